//! Any endpoint that takes JSON, with the headers of Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use std::time::{Instant, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::json;

use super::answer::{self, class_of};
use super::client::{Answer, Endpoint, HttpClient};
use super::text::Messages;
use super::{DeliveryError, Sink};
use crate::clock;
use crate::config::MessageFormat;
use crate::secret::Secret;
use crate::side_effect::{Task, TaskId};

/// Tells the destination which attempt of a task this is, from 1. No standard names such a header.
pub(super) const ATTEMPT_HEADER: &str = "x-delivery-attempt";

/// A JSON endpoint.
pub(super) struct Webhook {
    endpoint: Endpoint,
    key: Option<hmac::Key>,
    messages: Messages,
    client: HttpClient,
}

impl Webhook {
    /// With a `secret` every message is signed. A secret that starts with `whsec_` is base64 behind that, as the standard has it; any
    /// other one is taken byte for byte.
    pub(super) fn new(
        url: &Secret,
        secret: &Secret,
        messages: Messages,
        client: HttpClient,
    ) -> Result<Webhook, &'static str> {
        let key = match secret.expose() {
            "" => None,
            text => Some(hmac::Key::new(hmac::HMAC_SHA256, &secret_bytes(text)?)),
        };
        Ok(Webhook { endpoint: Endpoint::parse(url)?, key, messages, client })
    }

    /// Equal for sinks that post to one URL.
    pub(super) fn destination(&self) -> String {
        self.endpoint.expose().to_owned()
    }

    fn post(&self, id: TaskId, attempt: u32, body: &[u8], deadline: Instant) -> Result<(), DeliveryError> {
        let (id, attempt) = (id.to_string(), attempt.to_string());
        let seconds = clock::wall().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()).to_string();
        let mut headers = vec![
            ("content-type", "application/json"),
            ("idempotency-key", &id),
            (ATTEMPT_HEADER, &attempt),
            ("webhook-id", &id),
            ("webhook-timestamp", &seconds),
        ];
        let signature;
        if let Some(key) = &self.key {
            signature = sign(key, &id, &seconds, body);
            headers.push(("webhook-signature", &signature));
        }
        let answer = self.client.post(&self.endpoint, &headers, body, deadline)?;
        judge(&self.endpoint, &answer)
    }
}

fn secret_bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    match text.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| "the token after whsec_ is not base64"),
        None => Ok(text.as_bytes().to_vec()),
    }
}

/// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
pub(super) fn sign(key: &hmac::Key, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// Any 2xx is success; of the rest, what [`class_of`] says.
pub(super) fn judge(endpoint: &Endpoint, answer: &Answer) -> Result<(), DeliveryError> {
    match answer.status {
        200..=299 => Ok(()),
        status => Err(answer::error(endpoint, answer, class_of(status), "")),
    }
}

/// `{"type", "id", "timestamp", "group", "listener", "text", "data"}`, where `data` is the record byte for byte.
fn envelope(task: &Task, text: &str) -> Vec<u8> {
    let at = jiff::Timestamp::try_from(task.accepted_at).unwrap_or_default();
    let head = json!({
        "type": "audit.record",
        "id": task.id.to_string(),
        "timestamp": at.to_string(),
        "group": &*task.group,
        "listener": task.source,
        "text": text,
    });
    let mut body = head.to_string().into_bytes();
    body.pop();
    body.extend_from_slice(b",\"data\":");
    if serde_json::from_slice::<serde::de::IgnoredAny>(&task.record).is_ok() {
        body.extend_from_slice(&task.record);
    } else {
        // Only a store could have damaged it: as text, so that the message stays JSON.
        body.extend_from_slice(json!(String::from_utf8_lossy(&task.record)).to_string().as_bytes());
    }
    body.push(b'}');
    body
}

impl Sink for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn deliver(&self, task: &Task, deadline: Instant) -> Result<(), DeliveryError> {
        match self.messages.format() {
            MessageFormat::Raw => self.post(task.id, task.attempt(), &task.record, deadline),
            MessageFormat::Text => {
                self.post(task.id, task.attempt(), &envelope(task, &self.messages.text(task)), deadline)
            }
        }
    }

    fn deliver_text(&self, id: TaskId, text: &str, deadline: Instant) -> Result<(), DeliveryError> {
        let body = json!({
            "type": "audit.digest",
            "id": id.to_string(),
            "timestamp": jiff::Timestamp::try_from(clock::wall()).unwrap_or_default().to_string(),
            "text": self.messages.own(text),
        });
        self.post(id, 1, body.to_string().as_bytes(), deadline)
    }

    fn abort(&self) {
        self.client.abort();
    }
}
