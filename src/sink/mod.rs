//! Sinks: remote destinations, and what their answers mean.
//!
//! A [`Sink`] makes one attempt and judges it; when and how often is the business of [`crate::side_effect`]. All of them
//! are blocking, and none outlasts the deadline that it is given.
//!
//! A [`DeliveryError`] can be shown to anybody: it holds no secret, no URL beyond scheme and host, and no byte of a record.

mod answer;
mod build;
mod client;
mod escape;
mod forward;
mod mattermost;
mod resolver;
mod slack;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
pub mod text;
mod webhook;

use std::fmt;
use std::time::{Duration, Instant};

pub use build::{BuildError, build, message_text};
pub use client::HttpClient;

pub use crate::side_effect::retry::Class;
use crate::side_effect::{Task, TaskId};

/// Longest message of a [`DeliveryError`].
pub const ERROR_CHARS_MAX: usize = 300;

/// One remote destination.
pub trait Sink: Send + Sync {
    /// What kind of destination it is: the second half of the sink's name, after the group.
    fn name(&self) -> &'static str;

    /// Makes one attempt to deliver a task. Blocks until it is judged, at most until `deadline`.
    ///
    /// # Errors
    /// Why it failed, and whether another attempt makes sense. After a transient error the outcome may be unknown: the
    /// destination may have got the message. All attempts carry the task's id, so that it can tell.
    fn deliver(&self, task: &Task, deadline: Instant) -> Result<(), DeliveryError>;

    /// Delivers a message of the program itself (a flood digest) instead of a record.
    ///
    /// # Errors
    /// As [`Sink::deliver`]; destinations that take records only refuse for good.
    fn deliver_text(&self, id: TaskId, text: &str, deadline: Instant) -> Result<(), DeliveryError> {
        let _ = (id, text, deadline);
        Err(DeliveryError::new(Class::Permanent, "this destination takes records only"))
    }

    /// Cuts off deliveries that are under way, as far as that is possible; later ones may fail. For the end of a drain.
    fn abort(&self) {}
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryError {
    /// What it says about further attempts.
    pub class: Class,
    /// HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// How long the destination asked to be left alone.
    pub retry_after: Option<Duration>,
    /// For people: at most [`ERROR_CHARS_MAX`] characters, none of them a control character.
    message: String,
}

impl DeliveryError {
    /// An error without an answer. `message` must hold no secret; its control characters are escaped and its length is bounded.
    pub fn new(class: Class, message: impl AsRef<str>) -> Self {
        DeliveryError { class, status: None, retry_after: None, message: printable(message.as_ref()) }
    }

    /// The same with an HTTP status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The same with a pause that the destination asked for.
    #[must_use]
    pub fn with_retry_after(mut self, pause: Option<Duration>) -> Self {
        self.retry_after = pause;
        self
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DeliveryError {}

/// `text` with control characters escaped, cut to [`ERROR_CHARS_MAX`].
fn printable(text: &str) -> String {
    let mut out = String::new();
    let mut chars = 0;
    for c in text.chars() {
        // Bidirectional controls can make a line on a terminal read as another.
        let hidden = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        let piece = if hidden { c.escape_unicode().to_string() } else { c.to_string() };
        chars += piece.chars().count();
        if chars >= ERROR_CHARS_MAX {
            out.push('…');
            break;
        }
        out.push_str(&piece);
    }
    out
}
