//! Files that the configuration names: the configuration itself and `*_file` secrets. Bounded reads.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::env::Environment;
use super::keys::token_complaint;
use super::problem::{Origin, Report};
use crate::secret::Secret;

/// The largest configuration file.
pub(super) const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// The largest file of secrets.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The variable that service managers set to the directory of a service's secrets.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Reads a whole file of at most `bytes_max`. Blocks on the file system.
///
/// # Errors
///
/// What opening or reading gives; [`io::ErrorKind::FileTooLarge`] for a larger file, [`io::ErrorKind::InvalidData`] for
/// one that is not UTF-8.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read_bytes_bounded(path, bytes_max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is not UTF-8 text"))
}

/// The same for a file that may hold any bytes.
pub(super) fn read_bytes_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    #[allow(clippy::disallowed_methods, reason = "bounded by take")]
    std::fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("the file is larger than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Reads the files that keys name.
#[derive(Debug)]
pub(super) struct Files<'e> {
    pub(super) environment: &'e Environment,
}

impl Files<'_> {
    /// The one secret in a file, without its trailing line end. Nothing of it is ever reported.
    pub(super) fn secret(
        &self,
        path: &Path,
        origin: &Origin,
        key: &str,
        report: &mut Report,
    ) -> Option<Secret> {
        let text = self.read(path, origin, key, report)?;
        let secret = text.trim_end_matches(['\r', '\n']);
        let complaint = if secret.is_empty() {
            "the file is empty"
        } else if secret.contains(['\r', '\n']) {
            "the file has more than one line"
        } else if secret.chars().any(char::is_control) {
            "the file has a control character in it"
        } else {
            return Some(Secret::new(secret));
        };
        report.problem(origin, key, complaint, "write the secret alone on its first line");
        None
    }

    /// Bearer tokens, one a line; empty lines and lines that begin with `#` do not count.
    pub(super) fn tokens(&self, path: &Path, origin: &Origin, key: &str, report: &mut Report) -> Vec<Secret> {
        let Some(text) = self.read(path, origin, key, report) else { return Vec::new() };
        let (mut tokens, before) = (Vec::new(), report.problems.len());
        for (i, line) in text.split('\n').enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match token_complaint(line) {
                Some((what, cure)) => {
                    report.problem(origin, key, format!("line {} of the file: {what}", i + 1), cure);
                }
                None => tokens.push(Secret::new(line)),
            }
        }
        if tokens.is_empty() && report.problems.len() == before {
            report.problem(
                origin,
                key,
                "the file has no token in it",
                "write one token a line, or remove the key",
            );
        }
        tokens
    }

    fn read(&self, path: &Path, origin: &Origin, key: &str, report: &mut Report) -> Option<String> {
        let path = self.expanded(path, origin, key, report)?;
        read_bounded(&path, SECRET_BYTES_MAX)
            .map_err(|error| {
                let what = format!("cannot read {:?}: {error}", path.display().to_string());
                let cure = "name a small text file that this user may read";
                report.problem(origin, key, what, cure);
            })
            .ok()
    }

    /// Puts the service manager's directory of secrets in the place of `${CREDENTIALS_DIRECTORY}`.
    pub(super) fn expanded(
        &self,
        path: &Path,
        origin: &Origin,
        key: &str,
        report: &mut Report,
    ) -> Option<PathBuf> {
        let text = path.to_string_lossy();
        let (braced, plain) = (format!("${{{CREDENTIALS}}}"), format!("${CREDENTIALS}"));
        let Some(pattern) = [braced, plain].into_iter().find(|pattern| text.contains(pattern)) else {
            return Some(path.to_owned());
        };
        let Some(directory) = self.environment.get(CREDENTIALS).filter(|d| !d.is_empty()) else {
            let what = format!("{CREDENTIALS} is not set");
            let cure = "it is set by systemd where the unit has LoadCredential=; else write the whole path";
            report.problem(origin, key, what, cure);
            return None;
        };
        Some(PathBuf::from(text.replace(&pattern, directory)))
    }
}
