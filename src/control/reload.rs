//! `POST /v1/reload`: what became of it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::Answer;

/// A configuration that was put to use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Applied {
    /// Where it came from, in one line.
    pub source: String,
    /// What is different from now on, one line each.
    pub changed: Vec<String>,
    /// Keys whose new values need a restart: the running ones stay until then.
    pub restart: Vec<String>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// Why the old configuration stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadError {
    /// Something is wrong with the new one; each problem with its place.
    Refused(Vec<String>),
    /// It is right, but something outside failed: a log file cannot be opened, say.
    Failed(String),
    /// Other reloads are waiting, or the server is stopping.
    Busy,
}

/// What follows after every refusal.
const OLD_STAYS: &str = "the running configuration stays in use";

impl ReloadError {
    /// One line, without the problems themselves.
    pub fn what(&self) -> String {
        match self {
            ReloadError::Refused(problems) => {
                let s = if problems.len() == 1 { "" } else { "s" };
                format!("{} problem{s} in the configuration; {OLD_STAYS}", problems.len())
            }
            ReloadError::Failed(what) => format!("{what}; {OLD_STAYS}"),
            ReloadError::Busy => format!("the server is reloading already, or stopping; {OLD_STAYS}"),
        }
    }

    /// The answer to a client.
    pub(super) fn answer(&self) -> Answer {
        let (status, problems, cure) = match self {
            ReloadError::Refused(problems) => (
                422,
                &problems[..],
                "put it right and reload again; `vault-audit-filter check` tells the same",
            ),
            ReloadError::Failed(_) => (503, &[][..], "put that right and reload again"),
            ReloadError::Busy => (503, &[][..], "try again in a moment"),
        };
        let body = json!({ "error": { "what": self.what(), "cure": cure, "problems": problems } });
        Answer { status, body: body.to_string().into_bytes(), allow: None }
    }
}
