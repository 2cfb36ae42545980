//! The certificate and the private key with which the HTTP listener says who it is.
//!
//! Checked when they are read: a pair that is here can be served with. No I/O: whoever has the files gives their bytes.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig};

/// What is spoken inside: nothing else is agreed on.
const PROTOCOL: &[u8] = b"http/1.1";

/// Which of the two files is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate chain.
    Certificate,
    /// The private key.
    Key,
}

/// What is wrong with a file. Nothing of a key is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub part: Part,
    /// What is wrong, without the file's name.
    pub what: String,
    /// What to do instead.
    pub cure: &'static str,
}

impl Fault {
    fn new(part: Part, what: impl Into<String>, cure: &'static str) -> Self {
        Fault { part, what: what.into(), cure }
    }
}

/// A certificate chain and the key that belongs to it.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    begins: SystemTime,
    ends: SystemTime,
    settings: Arc<ServerConfig>,
}

/// Both are the same when certificates and key are.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key == other.key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.chain.len())
    }
}

impl Identity {
    /// Reads a chain (the listener's own certificate first) and its key from the text of two PEM files, and tries them at the time `now`.
    ///
    /// # Errors
    /// Everything that is wrong with them: no PEM, no key that can be used, a key of another certificate, a certificate that has ended.
    pub fn new(certificate: &[u8], key: &[u8], now: SystemTime) -> Result<Identity, Vec<Fault>> {
        let mut faults = Vec::new();
        let chain = read_chain(certificate).map_err(|fault| faults.push(fault)).ok();
        let key = read_key(key).map_err(|fault| faults.push(fault)).ok();
        let times = chain.as_deref().and_then(|chain| times(chain, now).map_err(|f| faults.push(f)).ok());
        let (Some(chain), Some(key)) = (chain, key) else { return Err(faults) };
        let settings = settings(&chain, &key).map_err(|fault| faults.push(fault));
        match (times, settings) {
            (Some((begins, ends)), Ok(settings)) => Ok(Identity { chain, key, begins, ends, settings }),
            _ => {
                faults.dedup();
                Err(faults)
            }
        }
    }

    /// When all certificates of the chain have begun to be valid.
    pub fn begins(&self) -> SystemTime {
        self.begins
    }

    /// When the first certificate of the chain ends.
    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// What connections are begun with: TLS 1.2 and 1.3, HTTP/1.1 alone, and sessions resumed by tickets which the client keeps. Tickets
    /// are sealed with a key of this value, so those of another identity do not count.
    pub fn settings(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.settings)
    }
}

fn read_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let cure = "name a PEM file that holds the certificate of this host and, after it, those in between up to the authority";
    let fault = |what: String| Fault::new(Part::Certificate, what, cure);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, pem::Error>>()
        .map_err(|e| fault(format!("is not PEM: {e}")))?;
    if chain.is_empty() {
        return Err(fault("holds no certificate in PEM form".to_owned()));
    }
    Ok(chain)
}

fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    let cure = "name the PEM file of the certificate's private key (PKCS#8, PKCS#1 or SEC1)";
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if memchr::memmem::find(text, b"ENCRYPTED").is_some() => {
            let cure = "nobody is there to type its passphrase: write it without (openssl pkey -in KEY -out PLAIN, mode 0600)";
            Err(Fault::new(Part::Key, "holds a key that is encrypted", cure))
        }
        Err(pem::Error::NoItemsFound) => Err(Fault::new(Part::Key, "holds no private key in PEM form", cure)),
        Err(e) => Err(Fault::new(Part::Key, format!("is not PEM: {e}"), cure)),
    }
}

/// From when to when all certificates of the chain are valid. One that has ended is a fault.
fn times(chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(SystemTime, SystemTime), Fault> {
    let cure = "renew it";
    let (mut begins, mut ends) = (UNIX_EPOCH, None);
    for (i, certificate) in chain.iter().enumerate() {
        let (from, to) = validity(certificate).map_err(|e| not_understood(i + 1, &e))?;
        if to < now {
            let what = format!("certificate {} ended at {}", i + 1, shown(to));
            return Err(Fault::new(Part::Certificate, what, cure));
        }
        begins = begins.max(from);
        ends = Some(ends.map_or(to, |ends: SystemTime| ends.min(to)));
    }
    Ok((begins, ends.unwrap_or(begins)))
}

fn not_understood(number: usize, error: &Error) -> Fault {
    let what = format!("certificate {number} cannot be understood: {error}");
    Fault::new(Part::Certificate, what, "name a PEM file of X.509 certificates, version 3")
}

/// From when to when a certificate is valid. The verifier looks at that before anything else, and names the bound that it finds
/// violated: it is asked at the end of time and at its beginning.
fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let at = |seconds: u64| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], time, &[])
    };
    let to = match at(i64::MAX.cast_unsigned()) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => not_after,
        Err(error) => return Err(error),
        Ok(()) => return Err(Error::General("no end".to_owned())),
    };
    let from = match at(0) {
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => not_before,
        // It begins before 1970.
        _ => UnixTime::since_unix_epoch(Duration::ZERO),
    };
    let time = |time: UnixTime| UNIX_EPOCH + Duration::from_secs(time.as_secs());
    Ok((time(from), time(to)))
}

/// A time for people.
pub fn shown(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map_or_else(|_| "a time beyond all calendars".to_owned(), |t| t.to_string())
}

fn settings(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Fault> {
    let build = || {
        let mut settings = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain.to_vec(), key.clone_key())?;
        settings.alpn_protocols = vec![PROTOCOL.to_vec()];
        settings.ticketer = ring::Ticketer::new()?;
        settings.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(settings))
    };
    build().map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Fault::new(
            Part::Key,
            "is not the key of the certificate",
            "name the key with which the certificate was requested, and put the certificate of this host first in its file",
        ),
        Error::InvalidCertificate(_) => not_understood(1, &error),
        // The text of this error is about the kind of key, not about its value.
        error => Fault::new(
            Part::Key,
            format!("holds a key that cannot be used: {error}"),
            "use RSA with 2048 to 4096 bits, ECDSA with P-256 or P-384, or Ed25519",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/listener");
        std::fs::read(directory.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// 2026-11-24.
    const NOW: Duration = Duration::from_secs(1_795_500_000);

    fn read(certificate: &str, key: &str) -> Result<Identity, Vec<Fault>> {
        Identity::new(&file(certificate), &file(key), UNIX_EPOCH + NOW)
    }

    #[test]
    fn pairs_are_taken_in_every_form_of_key() {
        let first = read("first.pem", "first.key").expect("PKCS#8");
        let same = read("first.pem", "first.sec1.key").expect("SEC1");
        let second = read("second.pem", "second.key").expect("PKCS#1, with an intermediate");
        assert_eq!((first.chain.len(), second.chain.len()), (1, 2));
        assert_ne!(first, second);
        assert_eq!(same.chain, first.chain);
        assert_eq!(read("first.pem", "first.key").expect("the same"), first);
        assert_eq!(shown(first.begins()), "2026-01-01T00:00:00Z");
        assert_eq!(shown(first.ends()), "2126-01-01T00:00:00Z");
        assert_eq!(format!("{first:?}"), "Identity(1 certificates)");
        let future = read("future.pem", "first.key").expect("whoever reads it decides");
        assert_eq!(shown(future.begins()), "2100-01-01T00:00:00Z");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_file_and_all_of_it() {
        let faults = |certificate: &str, key: &str| -> Vec<(Part, String)> {
            let faults = read(certificate, key).expect_err("wrong");
            faults.into_iter().map(|fault| (fault.part, fault.what)).collect()
        };
        let certificate = |what: &str| (Part::Certificate, what.to_owned());
        let key = |what: &str| (Part::Key, what.to_owned());
        for (files, wanted) in [
            (("first.pem", "second.key"), vec![key("is not the key of the certificate")]),
            (
                ("first.key", "first.pem"),
                vec![
                    certificate("holds no certificate in PEM form"),
                    key("holds no private key in PEM form"),
                ],
            ),
            (("first.pem", "first.encrypted.key"), vec![key("holds a key that is encrypted")]),
            (("expired.pem", "first.key"), vec![certificate("certificate 1 ended at 2021-01-01T00:00:00Z")]),
            (
                ("expired.pem", "second.key"),
                vec![
                    certificate("certificate 1 ended at 2021-01-01T00:00:00Z"),
                    key("is not the key of the certificate"),
                ],
            ),
        ] {
            assert_eq!(faults(files.0, files.1), wanted, "{files:?}");
        }
        let text = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let faults = Identity::new(text, &file("first.key"), UNIX_EPOCH + NOW).expect_err("no certificate");
        assert!(
            faults.len() == 1 && faults[0].part == Part::Certificate && faults[0].what.contains("understood"),
            "{faults:?}"
        );
        let torn = b"-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n";
        let faults = Identity::new(&file("first.pem"), torn, UNIX_EPOCH + NOW).expect_err("no key");
        assert!(
            faults.len() == 1 && faults[0].part == Part::Key && faults[0].what.contains("PEM"),
            "{faults:?}"
        );
    }
}
