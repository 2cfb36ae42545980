//! Answers of the control API: JSON with a status.

use serde_json::{Value, json};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP status code.
    pub(super) status: u16,
    /// JSON text; empty with 204.
    pub(super) body: Vec<u8>,
    /// Methods that are allowed, with 405.
    pub(super) allow: Option<&'static str>,
}

impl Answer {
    /// 200 with a value.
    pub(super) fn json(value: &impl serde::Serialize) -> Answer {
        match serde_json::to_vec(value) {
            Ok(body) => Answer { status: 200, body, allow: None },
            Err(e) => {
                Answer::error(500, &format!("the answer cannot be written as JSON: {e}"), "report this")
            }
        }
    }

    /// 204.
    pub(super) fn empty() -> Answer {
        Answer { status: 204, body: Vec::new(), allow: None }
    }

    /// `{"error": {"what": ..., "cure": ...}}`.
    pub(super) fn error(status: u16, what: &str, cure: &str) -> Answer {
        let body: Value = json!({ "error": { "what": what, "cure": cure } });
        Answer { status, body: body.to_string().into_bytes(), allow: None }
    }

    /// As bytes on the wire, with `Connection: close`.
    pub(super) fn to_http(&self) -> Vec<u8> {
        let reason = match self.status {
            400 => "Bad Request",
            408 => "Request Timeout",
            413 => "Content Too Large",
            503 => "Service Unavailable",
            _ => "Refused",
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.status,
            self.body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
