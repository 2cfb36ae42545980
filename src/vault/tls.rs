//! Certificates of the connection to Vault or OpenBao.

use std::path::Path;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::{Options, VaultError};
use crate::config::read_bounded;

/// The largest PEM file: a bundle of every public authority is a quarter of it.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Where systems keep the authorities that they trust: Debian and Alpine, Fedora and Red Hat, SUSE.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The settings of the connection: the named authorities, else the system's, else the public ones built in.
pub(super) fn config(options: &Options) -> Result<TlsConfig, VaultError> {
    let mut builder = TlsConfig::builder();
    if let Some(path) = &options.ca_cert {
        builder = builder.root_certs(RootCerts::new_with_certs(&certificates(path)?));
    } else if options.address.starts_with("https:")
        && let Some(system) = SYSTEM_BUNDLES.iter().find_map(|path| certificates(Path::new(path)).ok())
    {
        builder = builder.root_certs(RootCerts::new_with_certs(&system));
    }
    if let Some((chain, key)) = &options.client_cert {
        let certificate = ClientCert::new_with_certs(&certificates(chain)?, private_key(key)?);
        builder = builder.client_cert(Some(certificate));
    }
    Ok(builder.build())
}

fn items(path: &Path) -> Result<Vec<PemItem<'static>>, VaultError> {
    let failed = |what: String| VaultError::Certificate { file: path.display().to_string(), what };
    let pem =
        read_bounded(path, PEM_BYTES_MAX).map_err(|error| failed(format!("cannot be read: {error}")))?;
    parse_pem(pem.as_bytes())
        .map(|item| item.map_err(|error| failed(format!("is not PEM: {error}"))))
        .collect()
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, VaultError> {
    let certificates: Vec<_> = items(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let what = "holds no certificate in PEM form".to_owned();
        return Err(VaultError::Certificate { file: path.display().to_string(), what });
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, VaultError> {
    let key = items(path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let what = "holds no private key in PEM form".to_owned();
    key.ok_or_else(|| VaultError::Certificate { file: path.display().to_string(), what })
}
