//! Responses as bytes.

use std::io::Write as _;

use super::http::Response;
use crate::framing::http::Head;

/// What the request says about the form of its answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Form {
    /// No body: the request was HEAD.
    pub is_head: bool,
    /// The sender speaks HTTP/1.0: a kept connection has to be confirmed.
    pub http10: bool,
    /// The connection is closed after the answer.
    pub close: bool,
}

impl Form {
    pub(super) fn of(head: &Head) -> Form {
        Form { is_head: head.is_head, http10: head.http10, close: !head.keep_alive }
    }

    /// For a request that could not be understood.
    pub(super) const REFUSED: Form = Form { is_head: false, http10: false, close: true };
}

pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends `response` to `out`.
pub(super) fn encode(response: &Response, form: Form, out: &mut Vec<u8>) {
    // Without the machinery of `write!`, which takes longer than all the rest of the usual answer.
    let digits = [100, 10, 1].map(|place| b'0' + (response.status / place % 10) as u8);
    let line = [b"HTTP/1.1 ", &digits[..], b" ", reason_phrase(response.status).as_bytes(), b"\r\n"];
    line.iter().for_each(|part| out.extend_from_slice(part));
    let content_type = response.content_type.map(|content_type| ("Content-Type", content_type));
    for (name, value) in content_type.iter().chain(response.headers) {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    // RFC 9110, 8.6: no Content-Length in a 1xx or 204 response.
    let has_body = !matches!(response.status, 100..=199 | 204 | 304);
    if has_body {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "Content-Length: {}\r\n", response.body.len());
    }
    if form.close || response.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if form.http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if has_body && !form.is_head {
        out.extend_from_slice(&response.body);
    }
}

/// The statuses that have a series of their own in the metrics.
pub(super) const STATUSES: [(u16, &str); 20] = [
    (200, "OK"),
    (202, "Accepted"),
    (204, "No Content"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (408, "Request Timeout"),
    (413, "Content Too Large"),
    (414, "URI Too Long"),
    (415, "Unsupported Media Type"),
    (417, "Expectation Failed"),
    (422, "Unprocessable Content"),
    (429, "Too Many Requests"),
    (431, "Request Header Fields Too Large"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (503, "Service Unavailable"),
    (505, "HTTP Version Not Supported"),
];

fn reason_phrase(status: u16) -> &'static str {
    STATUSES.iter().find(|(s, _)| *s == status).map_or("", |(_, phrase)| phrase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &Response, form: Form) -> String {
        let mut out = Vec::new();
        encode(response, form, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn responses_as_they_go_out() {
        let keep = Form::default();
        let head = Form { is_head: true, ..keep };
        let http10 = Form { http10: true, ..keep };
        let no_content = Response::empty(204);
        let mut busy = Response::text(503, "later\n");
        busy.headers = &[("Retry-After", "1")];
        let closing = Response { close: true, ..Response::empty(200) };
        for (response, form, expected) in [
            (&no_content, keep, "HTTP/1.1 204 No Content\r\n\r\n"),
            (&no_content, http10, "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n"),
            (&no_content, Form::REFUSED, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
            (
                &busy,
                keep,
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nContent-Length: 6\r\n\r\nlater\n",
            ),
            (
                &busy,
                head,
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nContent-Length: 6\r\n\r\n",
            ),
            (&closing, http10, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            (&Response::empty(299), keep, "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"),
        ] {
            assert_eq!(text(response, form), expected);
        }
    }
}
