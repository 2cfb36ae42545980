//! Certificates of the connection to Vault or OpenBao.

use std::path::Path;

use ureq::tls::{ClientCert, RootCerts, TlsConfig};

use super::{Options, VaultError};
use crate::config::Environment;
use crate::trust;

/// The settings of the connection: the named authorities, else the system's, else the public ones built in.
pub(super) fn config(options: &Options) -> Result<TlsConfig, VaultError> {
    let mut builder = TlsConfig::builder();
    if let Some(path) = &options.ca_cert {
        builder = builder.root_certs(RootCerts::new_with_certs(&of_file(path, trust::certificates)?));
    } else if options.address.starts_with("https:")
        && let Ok(Some(system)) = trust::system(&Environment::default())
    {
        builder = builder.root_certs(RootCerts::new_with_certs(&system));
    }
    if let Some((chain, key)) = &options.client_cert {
        let chain = of_file(chain, trust::certificates)?;
        builder =
            builder.client_cert(Some(ClientCert::new_with_certs(&chain, of_file(key, trust::private_key)?)));
    }
    Ok(builder.build())
}

fn of_file<T>(path: &Path, read: impl Fn(&Path) -> Result<T, String>) -> Result<T, VaultError> {
    read(path).map_err(|what| VaultError::Certificate { file: path.display().to_string(), what })
}
