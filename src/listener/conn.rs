//! One connection between two events.

use std::time::Instant;

use super::Source;
use super::reply::Form;
use super::socket::Stream;
use crate::framing::http::RequestFramer;
use crate::framing::line::LineFramer;

/// What is known of a connection. Everything that grows lives in vectors that are given back when they are empty, so an idle
/// connection costs this structure, its slot and a file descriptor.
pub(super) struct Conn {
    pub stream: Stream,
    /// Index of the listener that accepted it.
    pub listener: usize,
    pub source: Source,
    pub protocol: Protocol,
    /// Bytes received that no frame has used up yet.
    pub input: Vec<u8>,
    /// Bytes of replies that the peer has not taken yet.
    pub output: Vec<u8>,
    pub output_at: usize,
    /// Close once `output` is out.
    pub closing: bool,
    /// The reply that waits for its ticket.
    pub parked: Option<ParkedReply>,
    /// A frame was completed since the poller was last armed: the clock of the next one starts anew.
    pub fresh: bool,
    /// Writing has failed: the peer is gone, and replies go nowhere. Complete requests that it has sent still count.
    pub broken: bool,
    /// The last reply is out.
    pub lingering: bool,
    /// Bytes discarded since the last reply.
    pub lingered_bytes: usize,
    /// What this connection has been charged with in the budget of buffered bytes.
    pub charged_bytes: usize,
}

pub(super) enum Protocol {
    Http(RequestFramer),
    Lines(LineFramer),
}

/// What is needed to answer a parked request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ParkedReply {
    /// `None` for a stream: nothing is answered.
    pub form: Option<Form>,
    pub since: Instant,
}

/// What is to happen with a connection after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for more input.
    Read,
    /// Wait until the peer takes more output.
    Write,
    /// There is more to do without waiting: let the others come first.
    Again,
    /// Wait for the ticket.
    Parked,
    /// Wait for room in the buffers.
    Paused,
    /// The last reply is out: discard input until the peer closes.
    Linger,
    /// Close now.
    Close(super::counters::CloseReason),
}

impl Conn {
    pub(super) fn new(stream: Stream, listener: usize, source: Source) -> Self {
        Conn {
            stream,
            listener,
            source,
            protocol: match source {
                Source::Http | Source::Admin => Protocol::Http(RequestFramer::default()),
                Source::Tcp | Source::Unix | Source::Udp => Protocol::Lines(LineFramer::default()),
            },
            input: Vec::new(),
            output: Vec::new(),
            output_at: 0,
            closing: false,
            parked: None,
            fresh: false,
            broken: false,
            lingering: false,
            lingered_bytes: 0,
            charged_bytes: 0,
        }
    }

    pub(super) fn has_output(&self) -> bool {
        self.output_at < self.output.len()
    }

    /// A sender's connection that another process can go on with.
    pub(super) fn is_to_be_handed_over(&self) -> bool {
        self.source != Source::Admin && self.is_between_frames()
    }

    /// Everything that came has been answered or written, and nothing of the next frame has come.
    fn is_between_frames(&self) -> bool {
        let within = match &self.protocol {
            Protocol::Http(framer) => framer.head().is_some(),
            Protocol::Lines(framer) => framer.is_within_line(),
        };
        let busy = self.closing || self.broken || self.lingering || self.parked.is_some();
        !within && !busy && self.input.is_empty() && !self.has_output()
    }

    /// Memory held beyond the connection itself.
    pub(super) fn heap_bytes(&self) -> usize {
        let framer = match &self.protocol {
            Protocol::Http(framer) => framer.heap_bytes(),
            Protocol::Lines(framer) => framer.heap_bytes(),
        };
        framer + self.input.capacity() + self.output.capacity()
    }

    /// Writes `bytes` after whatever still waits; what the kernel does not take waits. A failure marks the connection broken.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        if self.has_output() {
            return self.output.extend_from_slice(bytes);
        }
        match self.stream.write(bytes) {
            Ok(Some(written)) if written == bytes.len() => {}
            Ok(written) => {
                self.output = bytes[written.unwrap_or(0)..].to_vec();
                self.output_at = 0;
            }
            Err(_) => self.broken = true,
        }
    }

    /// Writes what waits. `true` when nothing is left to wait for.
    pub(super) fn flush(&mut self) -> bool {
        while self.has_output() && !self.broken {
            match self.stream.write(&self.output[self.output_at..]) {
                Ok(Some(written)) => self.output_at += written,
                Ok(None) => return false,
                Err(_) => self.broken = true,
            }
        }
        self.output = Vec::new();
        self.output_at = 0;
        true
    }

    /// What to wait for once a reply has been handed to [`Conn::send`]; `None`: go on with the next request.
    pub(super) fn after_reply(&mut self) -> Option<Next> {
        if self.has_output() {
            return Some(Next::Write);
        }
        self.closing.then(|| {
            self.stream.shutdown_write();
            self.lingering = true;
            self.input = Vec::new();
            Next::Linger
        })
    }
}
