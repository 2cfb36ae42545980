//! Listeners: sockets in, frames out. A fixed pool of threads around one readiness poller serves HTTP (ingest and
//! admin) and newline-delimited streams (TCP, Unix); UDP has threads of its own.
//!
//! This module knows sockets, framing, limits and deadlines. What a request or a line means is the [`Service`]'s business.

//!
//! ```text
//!  kernel ──epoll, one-shot──▶ pool thread ──▶ serve ─┬▶ accept ──▶ slots
//!                                                     ├▶ serve_http  ──▶ framing::http ──▶ Service::http ──▶ reply
//!                                                     └▶ serve_lines ──▶ framing::line ──▶ Service::line
//!  a ticket's last drop, any thread ──▶ park ──▶ reply          sweep: deadlines, resting listeners, paused streams
//!  `conn` reads and writes the socket; where TLS is spoken, through `tls`, which does no I/O
//! ```
//!
//! # Invariants
//!
//! 1. A connection is served by at most one thread at a time: its slot's mutex is held from the event to the next arming.
//! 2. A thread never waits for a peer, nor for a slot that another thread is serving a request in. For the disk of the durable store
//!    it waits only after its events ([`Service::after_events`]), when it holds no slot. In the write to a log file it holds the slot of
//!    that record alone: its other events are taken over by another thread (`taken`).
//! 3. One request is in flight per connection; what was pipelined behind it waits, at most one read buffer of it.
//! 4. At a hand-over ([`Pool::hand_over`]) a connection leaves between two frames and nothing of what came behind is consumed.
//! 5. The epoll token names slot and generation, so an event or a ticket for a connection that has gone finds nothing.

mod conn;
mod core;
mod counters;
pub mod http;
mod park;
mod pool;
mod reply;
mod serve;
mod serve_http;
mod serve_lines;
mod slots;
mod socket;
mod sweep;
mod taken;
mod tls;
mod udp;

pub use pool::{Drained, Endpoint, Established, Heartbeat, Pool, PoolOptions};
pub use socket::{Listener, SocketFile, Stream, bind_tcp, bind_unix};
pub use tls::TlsSettings;
pub use udp::{UdpListener, UdpOptions, bind_udp};

use crate::config::{AuditProtocol, Config};
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

/// A listener and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Which one.
    pub source: Source,
    /// `host:port` or a path; several where several sockets were passed for it.
    pub address: String,
}

/// The listeners that a configuration asks for, in the order in which they are shown.
pub fn configured(config: &Config) -> Vec<Listening> {
    let audit = match config.vault.audit_protocol {
        AuditProtocol::Udp => Some(Source::Udp),
        AuditProtocol::Tcp => Some(Source::Tcp),
        AuditProtocol::None => None,
    };
    let listen = &config.listen;
    let all = [
        listen.http_address.clone().map(|address| (Source::Http, address)),
        audit.map(|source| (source, config.vault.audit_address.clone())),
        listen.unix_path.as_ref().map(|path| (Source::Unix, path.display().to_string())),
        listen.admin_address.clone().map(|address| (Source::Admin, address)),
    ];
    all.into_iter().flatten().map(|(source, address)| Listening { source, address }).collect()
}

/// The way to a connection that waits: makes the ticket that ends the waiting.
pub trait Park {
    /// A ticket for this connection. Once it has been asked for, the service must return [`Reply::Parked`] (HTTP) or
    /// [`LineReply::Parked`]; the connection goes on when the last clone is gone. An HTTP request is then answered with `status`, or
    /// with 503 and `Retry-After: 1` when the ticket was refused.
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

/// What to do with a stream after some lines.
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

impl BadFrame<'_> {
    /// The reason under which [`BadFrame::Oversize`] is counted and quarantined.
    pub const OVERSIZE: &'static str = "oversize";
    /// The reason under which [`BadFrame::CutDatagram`] is counted and quarantined.
    pub const CUT_DATAGRAM: &'static str = "cut_datagram";
}

/// How much of an oversize frame is kept for the quarantine log.
pub const OVERSIZE_HEAD_BYTES: usize = 4096;

/// What the listeners serve. Shared by all listener threads; each thread has a [`Service::Worker`] of its own.
pub trait Service: Send + Sync + 'static {
    /// Per-thread state: buffers that are used again and again.
    type Worker: Send;

    /// The state for one more thread.
    fn worker(&self) -> Self::Worker;

    /// One complete HTTP request. Must not block beyond its own file writes, and never on all threads of the pool at once.
    fn http(
        &self,
        source: Source,
        request: &http::Request<'_>,
        worker: &mut Self::Worker,
        park: &dyn Park,
    ) -> Reply;

    /// An HTTP request refused before its body was there (`status`: 413 and the like), for the counters.
    fn http_refused(&self, source: Source, status: u16);

    /// Lines of one stream that were read together, without their newlines (a trailing `\r` is still there). Empty lines are not handed
    /// over.
    fn lines(
        &self,
        source: Source,
        frames: &[&[u8]],
        worker: &mut Self::Worker,
        park: &dyn Park,
    ) -> LineReply;

    /// Datagrams as received, in the order of arrival.
    fn datagrams(&self, frames: &[&[u8]], worker: &mut Self::Worker);

    /// Something that is no frame.
    fn bad_frame(&self, source: Source, bad: BadFrame<'_>, worker: &mut Self::Worker);

    /// A pool thread has handled all the events that it took; it holds no connection now. It may block for a disk here: the other threads
    /// of the pool go on.
    fn after_events(&self, worker: &mut Self::Worker) {
        let _ = worker;
    }

    /// The UDP thread has handed over a batch of datagrams. Must not block.
    fn after_datagrams(&self, worker: &mut Self::Worker) {
        let _ = worker;
    }
}
