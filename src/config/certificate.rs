//! The certificate and key of the HTTP listener: from the files that two keys name to an identity that can be used.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Tls;
use super::files::{Files, read_bytes_bounded};
use super::problem::{Origin, Report};
use crate::clock;
use crate::identity::{Identity, Part, shown};

/// The largest PEM file: a chain has a few KiB.
const PEM_BYTES_MAX: u64 = 256 << 10;

/// A certificate that ends sooner is told.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Everybody on the machine may read it.
const READABLE_BY_OTHERS: u32 = 0o004;

/// A file that a key names.
pub(super) struct Named<'a> {
    pub(super) key: &'static str,
    pub(super) path: &'a Path,
    pub(super) origin: Origin,
}

impl Files<'_> {
    /// Reads both files and tries them as a server would; everything that is wrong goes to the report.
    pub(super) fn tls(&self, certificate: &Named<'_>, key: &Named<'_>, report: &mut Report) -> Option<Tls> {
        let (chain, secret) = (self.pem(certificate, report), self.pem(key, report));
        if let Some(path) = self.expanded(key.path, &key.origin, key.key, &mut Report::default())
            && fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & READABLE_BY_OTHERS != 0)
        {
            let what = "everybody on this machine may read the key";
            report.warning(
                &key.origin,
                key.key,
                what,
                "chmod it to 0600, or to 0640 with a group of its own",
            );
        }
        let now = clock::wall();
        match Identity::new(&chain?, &secret?, now) {
            Ok(identity) => {
                say_times(&identity, now, certificate, report);
                let (certificate, key) = (certificate.path.to_owned(), key.path.to_owned());
                Some(Tls { certificate, key, identity: Arc::new(identity) })
            }
            Err(faults) => {
                for fault in faults {
                    let file = if fault.part == Part::Key { key } else { certificate };
                    let what = format!("{:?} {}", file.path.display().to_string(), fault.what);
                    report.problem(&file.origin, file.key, what, fault.cure);
                }
                None
            }
        }
    }

    fn pem(&self, file: &Named<'_>, report: &mut Report) -> Option<Vec<u8>> {
        let path = self.expanded(file.path, &file.origin, file.key, report)?;
        read_bytes_bounded(&path, PEM_BYTES_MAX)
            .map_err(|error: io::Error| {
                let what = format!("cannot read {:?}: {error}", path.display().to_string());
                report.problem(&file.origin, file.key, what, "name a PEM file that this user may read");
            })
            .ok()
    }
}

/// What is no mistake and will be one.
fn say_times(identity: &Identity, now: std::time::SystemTime, file: &Named<'_>, report: &mut Report) {
    if identity.begins() > now {
        let what = format!("the certificate is not valid before {}", shown(identity.begins()));
        report.warning(&file.origin, file.key, what, "see whether the clock of this machine is right");
    }
    if identity.ends() < now + ENDS_SOON {
        let what = format!("the certificate ends at {}", shown(identity.ends()));
        report.warning(&file.origin, file.key, what, "renew it, and reload");
    }
}
