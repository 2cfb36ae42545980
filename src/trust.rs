//! Which authorities may vouch for a server: read from PEM files of the operator and of the system.

use std::path::Path;

use ureq::tls::{Certificate, PemItem, PrivateKey, parse_pem};

use crate::config::{Environment, read_bounded};

/// The largest PEM file: a bundle of every public authority is a quarter of it.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Names a bundle that replaces the system's, as OpenSSL and Go have it.
pub const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// Where systems keep the authorities that they trust: Debian and Alpine, Fedora and Red Hat, SUSE.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The authorities of the bundle that `SSL_CERT_FILE` names, else the system's; `None` where the system has none, for the
/// public ones built in. Blocks on the file system.
///
/// # Errors
/// The named bundle cannot be read or holds no certificate; the message names it.
pub fn system(environment: &Environment) -> Result<Option<Vec<Certificate<'static>>>, String> {
    match environment.get(BUNDLE_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => certificates(Path::new(path)).map(Some).map_err(|what| {
            format!("{BUNDLE_VARIABLE}: {path:?} {what}; name a PEM file of certificates or unset it")
        }),
        None => Ok(SYSTEM_BUNDLES.iter().find_map(|path| certificates(Path::new(path)).ok())),
    }
}

/// The certificates of a PEM file. Blocks on the file system.
///
/// # Errors
/// What is wrong with the file, without its name.
pub fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let certificates: Vec<_> = items(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        Err("holds no certificate in PEM form".to_owned())
    } else {
        Ok(certificates)
    }
}

/// The first private key of a PEM file. Blocks on the file system.
///
/// # Errors
/// What is wrong with the file, without its name.
pub fn private_key(path: &Path) -> Result<PrivateKey<'static>, String> {
    let key = items(path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    key.ok_or_else(|| "holds no private key in PEM form".to_owned())
}

fn items(path: &Path) -> Result<Vec<PemItem<'static>>, String> {
    let pem = read_bounded(path, PEM_BYTES_MAX).map_err(|error| format!("cannot be read: {error}"))?;
    parse_pem(pem.as_bytes()).map(|item| item.map_err(|error| format!("is not PEM: {error}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_is_named_must_be_there_and_hold_certificates() {
        let of = |path: &str| system(&Environment::from_iter([(BUNDLE_VARIABLE, path)]));
        let data = |name: &str| format!("{}/tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(of(&data("authority.pem")).expect("a bundle").map(|c| c.len()), Some(1));
        for (path, why) in
            [("/no/such/file", "cannot be read"), (data("README.md").as_str(), "no certificate")]
        {
            let error = of(path).expect_err(path);
            assert!(
                error.contains(why) && error.contains(path) && error.contains(BUNDLE_VARIABLE),
                "{error}"
            );
        }
        assert!(
            private_key(Path::new(&data("authority.pem"))).expect_err("no key").contains("no private key")
        );
    }
}
