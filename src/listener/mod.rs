//! Listeners: sockets in, frames out. A fixed pool of threads around one readiness poller serves HTTP (ingest and
//! admin) and newline-delimited streams (TCP, Unix); UDP has a thread of its own.
//!
//! This module knows sockets, framing, limits and deadlines. What a request or a line means is the [`Service`]'s business.

pub mod http;

use crate::ticket::Ticket;

/// Which front door a frame or request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Source {
    Http,
    Admin,
    Tcp,
    Unix,
    Udp,
}

impl Source {
    /// The value of the `listener` label.
    pub fn label(self) -> &'static str {
        match self {
            Source::Http => "http",
            Source::Admin => "admin",
            Source::Tcp => "tcp",
            Source::Unix => "unix",
            Source::Udp => "udp",
        }
    }
}

/// The way to a connection that waits: makes the ticket that ends the waiting.
pub trait Park {
    /// A ticket for this connection. Once it has been asked for, the service must return [`Reply::Parked`] (HTTP) or
    /// [`LineReply::Parked`]; the connection goes on when the last clone is gone. An HTTP request is then answered with `status`.
    fn ticket(&self, status: u16) -> Ticket;
}

/// What to answer to an HTTP request.
#[derive(Debug)]
pub enum Reply {
    /// Now: this response.
    Now(http::Response),
    /// When the ticket that was asked for has gone.
    Parked,
}

/// What to do with a stream after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineReply {
    /// Go on with the next line.
    Continue,
    /// Read nothing more from this connection until the ticket has gone.
    Parked,
}

/// Something that could not be taken as a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadFrame<'a> {
    /// Longer than `record_bytes_max`; the rest was skipped. Its first bytes, at most [`OVERSIZE_HEAD_BYTES`].
    Oversize(&'a [u8]),
    /// The stream ended within a line of so many bytes.
    Truncated(u64),
    /// A datagram longer than the receive buffer; what was received of it.
    CutDatagram(&'a [u8]),
}

/// How much of an oversize frame is kept for the quarantine log.
pub const OVERSIZE_HEAD_BYTES: usize = 4096;

/// What the listeners serve. Shared by all listener threads; each thread has a [`Service::Worker`] of its own.
pub trait Service: Send + Sync + 'static {
    /// Per-thread state: buffers that are used again and again.
    type Worker: Send;

    /// The state for one more thread.
    fn worker(&self) -> Self::Worker;

    /// One complete HTTP request. Must not block beyond its own file writes.
    fn http(
        &self,
        source: Source,
        request: &http::Request<'_>,
        worker: &mut Self::Worker,
        park: &dyn Park,
    ) -> Reply;

    /// An HTTP request refused before its body was there (`status`: 413 and the like), for the counters.
    fn http_refused(&self, source: Source, status: u16);

    /// One line of a stream, without its newline (a trailing `\r` is still there). Empty lines are not handed over.
    fn line(&self, source: Source, frame: &[u8], worker: &mut Self::Worker, park: &dyn Park) -> LineReply;

    /// One datagram as received.
    fn datagram(&self, frame: &[u8], worker: &mut Self::Worker);

    /// Something that is no frame.
    fn bad_frame(&self, source: Source, bad: BadFrame<'_>, worker: &mut Self::Worker);
}
