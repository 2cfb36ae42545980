//! One connection between two events.

use std::sync::Arc;
use std::time::Instant;

use super::Source;
use super::reply::Form;
use super::socket::Stream;
use super::tls::{Failure, SEALED_BYTES, Session, TlsSettings};
use crate::framing::http::RequestFramer;
use crate::framing::line::LineFramer;

/// What is known of a connection. Everything that grows lives in vectors that are given back when they are empty, so an idle
/// connection costs this structure, its slot and a file descriptor.
pub(super) struct Conn {
    pub stream: Stream,
    /// Between the socket and everything else, where TLS is spoken.
    tls: Option<Box<Session>>,
    /// Index of the listener that accepted it.
    pub listener: usize,
    pub source: Source,
    pub protocol: Protocol,
    /// Bytes received that no frame has used up yet; unsealed where TLS is spoken.
    pub input: Vec<u8>,
    /// Bytes of replies that the peer has not taken yet; sealed where TLS is spoken.
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
    /// The same, and the thread at hand comes back to it.
    Kept,
    /// Wait for the ticket.
    Parked,
    /// Wait for room in the buffers.
    Paused,
    /// The last reply is out: discard input until the peer closes.
    Linger,
    /// Close now.
    Close(super::counters::CloseReason),
}

/// Why nothing more can be read.
#[derive(Debug)]
pub(super) enum Broken {
    /// The peer is gone.
    Gone,
    /// The TLS session cannot go on.
    Tls(Failure),
}

impl Conn {
    pub(super) fn new(
        stream: Stream,
        listener: usize,
        source: Source,
        tls: Option<Arc<TlsSettings>>,
    ) -> Self {
        Conn {
            stream,
            tls: tls.map(|settings| Box::new(Session::new(settings))),
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
        self.may_be_handed_over() && self.is_between_frames()
    }

    /// Whether that may be so once its frame has ended.
    pub(super) fn may_be_handed_over(&self) -> bool {
        // A TLS session ends with the process that has its keys.
        self.source != Source::Admin && self.tls.is_none() && !self.lingering && !self.closing
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
        let unfinished = self.tls.as_ref().map_or(0, |tls| tls.held_bytes());
        framer + self.input.capacity() + self.output.capacity() + unfinished
    }

    /// Whether a TLS handshake is still to be made.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether a part of a TLS record has come.
    pub(super) fn is_within_record(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.held_bytes() > 0)
    }

    /// Whether the end of the TLS session is known, so that it need not be waited for.
    pub(super) fn is_ended(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_ended())
    }

    /// Reads what is there into `plain`, a read buffer; `Ok(None)`: nothing is, `Ok(Some(0))`: the peer has closed. `sealed` is room to
    /// work in where TLS is spoken.
    pub(super) fn receive(
        &mut self,
        plain: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Result<Option<usize>, Broken> {
        if self.tls.is_none() {
            return self.stream.read(plain).map_err(|_| Broken::Gone);
        }
        sealed.resize(SEALED_BYTES, 0);
        self.receive_sealed(plain, sealed)
    }

    fn receive_sealed(&mut self, plain: &mut [u8], sealed: &mut [u8]) -> Result<Option<usize>, Broken> {
        // Bounded: a session fails when too much comes with nothing in it.
        loop {
            let Some(tls) = &mut self.tls else { return Err(Broken::Gone) };
            if tls.is_ended() {
                return tls.end().map(|()| Some(0)).map_err(Broken::Tls);
            }
            let n = match self.stream.read(sealed) {
                Ok(Some(0)) if tls.is_amid_handshake() => return Err(Broken::Tls(Failure::Gone)),
                Ok(Some(n)) if n > 0 => n,
                Ok(other) => return Ok(other),
                Err(_) if tls.is_amid_handshake() => return Err(Broken::Tls(Failure::Gone)),
                Err(_) => return Err(Broken::Gone),
            };
            let outcome = tls.unseal(&sealed[..n], plain);
            let output = tls.output();
            if !output.is_empty() {
                self.put(&output);
            }
            match outcome.map_err(Broken::Tls)? {
                0 if n < sealed.len() && !self.is_ended() => return Ok(None),
                0 => {}
                got => return Ok(Some(got)),
            }
        }
    }

    /// Writes `bytes` after whatever still waits, sealed where TLS is spoken; what the kernel does not take waits. A failure marks the
    /// connection broken.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.put(bytes),
            Some(tls) => match tls.seal(bytes) {
                Some(sealed) => self.put(&sealed),
                None => self.broken = true,
            },
        }
    }

    /// Sends `bytes` as they are to a peer that speaks no TLS, or tells nothing more to one with which it has failed, and waits for it to
    /// close.
    pub(super) fn give_up(&mut self, bytes: &[u8]) -> Next {
        self.put(bytes);
        self.linger()
    }

    /// Tells a TLS peer that nothing more comes, once, if it takes that at once.
    pub(super) fn farewell(&mut self) {
        if let Some(tls) = &mut self.tls
            && !self.broken
        {
            let output = tls.farewell();
            if !output.is_empty() {
                self.put(&output);
            }
        }
    }

    /// What to wait for before there is more to read.
    pub(super) fn reading(&self) -> Next {
        if self.has_output() { Next::Write } else { Next::Read }
    }

    fn put(&mut self, bytes: &[u8]) {
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
        if self.closing && !self.has_output() {
            self.farewell();
        }
        if self.has_output() {
            return Some(Next::Write);
        }
        self.closing.then(|| self.linger())
    }

    /// The last byte is out.
    fn linger(&mut self) -> Next {
        self.stream.shutdown_write();
        self.lingering = true;
        self.input = Vec::new();
        self.tls = None;
        Next::Linger
    }

    /// Gives back everything but the socket.
    pub(super) fn let_go(&mut self) {
        self.tls = None;
        self.input = Vec::new();
        self.output = Vec::new();
        self.protocol = Protocol::Lines(LineFramer::default());
    }
}
