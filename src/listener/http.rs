//! HTTP/1.1 as the ingest and admin listeners speak it.

use std::borrow::Cow;

/// A complete request: head read, body read and decoded.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// The path of the target, without query.
    pub path: &'a str,
    /// The query of the target, without `?`; empty when there is none.
    pub query: &'a str,
    /// The value of `Authorization`, if there was exactly one.
    pub authorization: Option<&'a [u8]>,
    /// The body after transfer and content decoding.
    pub body: &'a [u8],
}

/// A response. `Connection: close` and `Content-Length` are the listener's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// `Content-Type`; `None` sends none.
    pub content_type: Option<&'static str>,
    /// Further headers: `Allow`, `Retry-After`, `WWW-Authenticate` and the like.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body; always empty with 204.
    pub body: Cow<'static, [u8]>,
    /// Close the connection after this response.
    pub close: bool,
}

impl Response {
    /// A response without a body.
    pub const fn empty(status: u16) -> Self {
        Response { status, content_type: None, headers: &[], body: Cow::Borrowed(&[]), close: false }
    }

    /// A response with a line of plain text.
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(s) => Cow::Borrowed(s.as_bytes()),
            Cow::Owned(s) => Cow::Owned(s.into_bytes()),
        };
        Response { status, content_type: Some("text/plain; charset=utf-8"), headers: &[], body, close: false }
    }

    /// 503 with `Retry-After: 1`.
    pub fn try_again(body: &'static str) -> Self {
        Response { headers: &[("Retry-After", "1")], ..Response::text(503, body) }
    }
}
