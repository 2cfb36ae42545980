//! What can go wrong between us and the API. No error holds a token.

use std::fmt;

/// The most of an answer that is no API error which is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultError {
    /// The server could not be reached, or the connection broke; a call that changes something may have arrived.
    Transport {
        /// The server's URL.
        address: String,
        /// What happened.
        what: String,
        /// Whether it was the certificate that was not trusted.
        untrusted: bool,
    },
    /// The server sends us elsewhere, where we do not follow.
    Redirect {
        /// Where to.
        to: String,
    },
    /// The server answered with an error.
    Refused {
        /// The path called.
        path: String,
        /// HTTP status.
        status: u16,
        /// The texts of `errors`, or the beginning of whatever came.
        errors: Vec<String>,
    },
    /// The server answered something that is not what the API answers.
    Answer {
        /// The path called.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// A certificate or key file that cannot be used.
    Certificate {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// The request could not be made: a value that HTTP cannot carry.
    Unsendable {
        /// What is wrong with it.
        what: String,
    },
}

impl VaultError {
    pub(super) fn transport(address: &str, error: &ureq::Error) -> Self {
        let what = error.to_string();
        let untrusted = matches!(error, ureq::Error::Rustls(_)) || what.contains("certificate");
        // An address may hold a password before its host.
        let address = match (address.find("://"), address.find('@')) {
            (Some(scheme), Some(at)) if at > scheme => {
                format!("{}://{}", &address[..scheme], &address[at + 1..])
            }
            _ => address.to_owned(),
        };
        VaultError::Transport { address, what, untrusted }
    }

    pub(super) fn refused(path: &str, status: u16, body: &str) -> Self {
        let errors = serde_json::from_str::<serde_json::Value>(body)
            .ok()
            .and_then(|body| {
                let errors = body.get("errors")?.as_array()?;
                Some(errors.iter().filter_map(|e| Some(one_line(e.as_str()?))).collect::<Vec<_>>())
            })
            .unwrap_or_else(|| {
                let start: String = one_line(body).chars().take(SHOWN_CHARS_MAX).collect();
                if start.is_empty() { Vec::new() } else { vec![start] }
            });
        VaultError::Refused { path: path.to_owned(), status, errors }
    }

    /// Whether one of the server's own error texts contains `text`.
    pub fn says(&self, text: &str) -> bool {
        matches!(self, VaultError::Refused { errors, .. } if errors.iter().any(|error| error.contains(text)))
    }

    /// The HTTP status of an answer that was an error.
    pub fn status(&self) -> Option<u16> {
        match self {
            VaultError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// The text with its runs of white space, line ends among them, as single spaces.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            VaultError::Transport { address, what, .. } => format!("no answer from {address}: {what}"),
            VaultError::Redirect { to } => format!("the server redirects to {to:?}"),
            VaultError::Refused { path, status, errors } if errors.is_empty() => {
                format!("{path}: the server answered {status}")
            }
            VaultError::Refused { path, status, errors } => {
                format!("{path}: the server answered {status}: {}", errors.join("; "))
            }
            VaultError::Answer { path, what } => format!("{path}: {what}"),
            VaultError::Certificate { file, what } => format!("{file}: {what}"),
            VaultError::Unsendable { what } => format!("the request cannot be sent: {what}"),
        };
        // Answers come from outside.
        let shown =
            text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() });
        f.write_str(&shown.collect::<String>())
    }
}

impl std::error::Error for VaultError {}
