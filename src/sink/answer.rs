//! What HTTP statuses and error codes mean, where services agree.

use std::time::Duration;

use super::client::{Answer, Endpoint};
use super::{Class, DeliveryError};

/// Longest error code that is repeated in diagnostics.
const CODE_BYTES_MAX: usize = 100;

/// The meaning of a status that is not 2xx, for every kind of destination (RFC 9110; Standard Webhooks; the services' references).
/// A redirect is not followed, so it will not go away by itself either, but it says nothing about other messages.
pub(super) fn class_of(status: u16) -> Class {
    match status {
        408 | 425 | 429 => Class::Transient,
        401 | 403 | 404 | 410 => Class::Blocked,
        500..=599 => Class::Transient,
        _ => Class::Permanent,
    }
}

/// The error for an answer, with `what` said about it and the pause that it asks for.
pub(super) fn error(endpoint: &Endpoint, answer: &Answer, class: Class, what: &str) -> DeliveryError {
    let status = answer.status;
    let what = if what.is_empty() { explain(status) } else { what };
    let colon = if what.is_empty() { "" } else { ": " };
    let mut error = DeliveryError::new(class, format!("{}: HTTP {status}{colon}{what}", endpoint.shown()));
    if class != Class::Permanent {
        let in_body = || (status == 429).then(|| json_seconds(&answer.body)).flatten();
        error = error.with_retry_after(answer.retry_after.or_else(in_body));
    }
    error.with_status(status)
}

fn explain(status: u16) -> &'static str {
    match status {
        300..=399 => "redirects are not followed; configure the URL that it leads to",
        401 => "token or signature not accepted",
        403 => "not allowed",
        404 | 410 => "nothing there; is the URL right?",
        413 => "the message is too large for it",
        429 => "too many messages",
        _ => "",
    }
}

/// `retry_after` of a JSON body, as Slack and Discord send it.
fn json_seconds(body: &[u8]) -> Option<Duration> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    Duration::try_from_secs_f64(value.get("retry_after")?.as_f64()?).ok()
}

/// `text` if it looks like an error code: such a word can be shown, anything else might repeat the message or a secret.
pub(super) fn code(text: &str) -> Option<&str> {
    let text = text.trim();
    let is_code = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (!text.is_empty() && text.len() <= CODE_BYTES_MAX && text.bytes().all(is_code)).then_some(text)
}
