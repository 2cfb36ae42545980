//! TLS inside a connection: sealed bytes in, plain bytes out, and the other way round. No I/O.
//!
//! ```text
//!  Expected ──first byte 0x16──▶ Open: handshake ──▶ Open: established ──close_notify──▶ ended
//!     └── any other byte ──▶ Failure: no TLS       └── garbage, an alert, too much ──▶ Failure
//! ```
//!
//! The session is made when the first byte is there, so that a peer that only connects costs no more than on a plain port. What the
//! session has to send is taken out at once and goes the way of every output, and plain bytes are taken out as soon as they are
//! unsealed: it holds an unfinished record, of 16 KiB at most, and nothing else.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{ServerConfig, ServerConnection};

use super::serve::READ_BYTES;

/// Size of a thread's buffer for sealed bytes.
pub(super) const SEALED_BYTES: usize = 32 << 10;

/// The longest record: 16 KiB, what sealing may add, and the header.
const RECORD_BYTES_MAX: usize = (16 << 10) + 2048 + 5;

// What one read brings, with the record that it completes, fits into a read buffer.
const _: () = assert!(SEALED_BYTES + RECORD_BYTES_MAX <= READ_BYTES);

/// So many bytes may come without plain ones in them: a handshake and a record. More is somebody who wants to be kept busy.
const FRUITLESS_BYTES_MAX: usize = 32 << 10;

/// The first byte of a TLS connection: the record type "handshake".
const HANDSHAKE: u8 = 0x16;

/// What TLS connections are begun with. A reload may exchange it; connections that have begun go on as they are.
pub struct TlsSettings(ArcSwap<ServerConfig>);

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSettings")
    }
}

impl TlsSettings {
    /// Begins with these.
    pub fn new(settings: Arc<ServerConfig>) -> Self {
        TlsSettings(ArcSwap::new(settings))
    }

    /// Uses others from now on.
    pub fn exchange(&self, settings: Arc<ServerConfig>) {
        self.0.store(settings);
    }
}

/// Why a TLS connection cannot go on.
#[derive(Debug)]
pub(super) enum Failure {
    /// The peer speaks plain HTTP.
    PlainHttp,
    /// The peer speaks something else.
    NoTls,
    /// The peer has gone in the middle of the handshake.
    Gone,
    /// Bytes came and came, and nothing was in them.
    Fruitless,
    Protocol(rustls::Error),
}

impl fmt::Display for Failure {
    /// For the diagnostics: nothing that the peer has sent is in it but numbers of the protocol.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::PlainHttp => f.write_str("the peer speaks HTTP without TLS"),
            Failure::NoTls => f.write_str("the peer speaks no TLS"),
            Failure::Gone => f.write_str("the peer has gone in the middle of the handshake"),
            Failure::Fruitless => f.write_str("the peer sends much with nothing in it"),
            Failure::Protocol(rustls::Error::AlertReceived(alert)) => {
                write!(f, "the peer gave up: {alert:?}")
            }
            Failure::Protocol(error) => error.fmt(f),
        }
    }
}

enum State {
    /// Nothing has come yet.
    Expected(Arc<TlsSettings>),
    Open(Box<ServerConnection>),
}

/// The TLS side of a connection.
pub(super) struct Session {
    state: State,
    /// The handshake is over.
    established: bool,
    /// The peer has said that it sends nothing more.
    ended: bool,
    /// Why it ended, where plain bytes that came before are to be handled first.
    failed: Option<Failure>,
    record: Record,
    /// Bytes received since the last plain ones.
    fruitless_bytes: usize,
}

impl Session {
    pub(super) fn new(settings: Arc<TlsSettings>) -> Self {
        Session {
            state: State::Expected(settings),
            established: false,
            ended: false,
            failed: None,
            record: Record::default(),
            fruitless_bytes: 0,
        }
    }

    /// Whether the handshake is still to be made, or to be ended.
    pub(super) fn is_handshaking(&self) -> bool {
        !self.established
    }

    /// Whether the handshake has begun and is not over.
    pub(super) fn is_amid_handshake(&self) -> bool {
        !self.established && matches!(self.state, State::Open(_))
    }

    /// Whether nothing more is to be had from the socket.
    pub(super) fn is_ended(&self) -> bool {
        self.ended || self.failed.is_some()
    }

    /// What [`Session::is_ended`] means: the end, or why.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Bytes of an unfinished record or handshake.
    pub(super) fn held_bytes(&self) -> usize {
        if self.established { self.record.have } else { self.fruitless_bytes }
    }

    /// Takes what was read from the socket, at most [`SEALED_BYTES`], and writes what is in it to `plain`, which has [`READ_BYTES`].
    /// Returns how much that was. What is to be sent then, also after a failure, is had from [`Session::output`].
    pub(super) fn unseal(&mut self, sealed: &[u8], plain: &mut [u8]) -> Result<usize, Failure> {
        let mut filled = 0;
        match self.unseal_into(sealed, plain, &mut filled) {
            Ok(()) => Ok(filled),
            Err(failure) if filled == 0 => Err(failure),
            Err(failure) => {
                self.failed = Some(failure);
                Ok(filled)
            }
        }
    }

    fn unseal_into(
        &mut self,
        mut sealed: &[u8],
        plain: &mut [u8],
        filled: &mut usize,
    ) -> Result<(), Failure> {
        self.begin(sealed)?;
        let State::Open(tls) = &mut self.state else { return Ok(()) };
        while !sealed.is_empty() && !self.ended {
            let before = sealed;
            // It takes 4 KiB at a time at most.
            if tls.read_tls(&mut sealed).is_err() || sealed.len() == before.len() {
                return Err(Failure::Fruitless);
            }
            let taken = &before[..before.len() - sealed.len()];
            self.record.follow(taken);
            let outcome = tls.process_new_packets();
            // Also before a failure something may have come. It is taken whole: the buffer has room for all that a read can bring.
            let got = tls.reader().read(&mut plain[*filled..]).unwrap_or(0);
            *filled += got;
            let state = outcome.map_err(Failure::Protocol)?;
            self.ended = state.peer_has_closed();
            let established = !tls.is_handshaking();
            if got > 0 || established != self.established {
                self.fruitless_bytes = 0;
            } else {
                self.fruitless_bytes += taken.len();
            }
            self.established = established;
            if self.fruitless_bytes > FRUITLESS_BYTES_MAX {
                return Err(Failure::Fruitless);
            }
        }
        Ok(())
    }

    /// Makes the session once the first byte is there.
    fn begin(&mut self, sealed: &[u8]) -> Result<(), Failure> {
        let State::Expected(settings) = &self.state else { return Ok(()) };
        match sealed.first() {
            None => return Ok(()),
            Some(&HANDSHAKE) => {}
            // Methods are upper-case letters.
            Some(b'A'..=b'Z') => return Err(Failure::PlainHttp),
            Some(_) => return Err(Failure::NoTls),
        }
        let mut tls = ServerConnection::new(settings.0.load_full()).map_err(Failure::Protocol)?;
        // Output is taken out at once, and there is one reply at a time.
        tls.set_buffer_limit(None);
        self.state = State::Open(Box::new(tls));
        Ok(())
    }

    /// Bytes that wait to be sent: of the handshake, alerts, answers of the protocol itself.
    pub(super) fn output(&mut self) -> Vec<u8> {
        let mut sealed = Vec::new();
        if let State::Open(tls) = &mut self.state {
            while tls.wants_write() {
                // Writing to a Vec cannot fail.
                if tls.write_tls(&mut sealed).is_err() {
                    break;
                }
            }
        }
        sealed
    }

    /// Seals `plain`; `None` where that is not possible any more.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let State::Open(tls) = &mut self.state else { return None };
        if !self.established {
            return None;
        }
        tls.writer().write_all(plain).ok()?;
        Some(self.output())
    }

    /// What tells the peer that nothing more comes; nothing when it was said already.
    pub(super) fn farewell(&mut self) -> Vec<u8> {
        match &mut self.state {
            State::Open(tls) if self.established => tls.send_close_notify(),
            _ => return Vec::new(),
        }
        self.output()
    }
}

/// How much of an unfinished record has come: the session does not tell.
#[derive(Debug, Default)]
struct Record {
    header: [u8; 5],
    have: usize,
}

impl Record {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let whole = match self.header.get_mut(self.have..) {
                Some(missing) if !missing.is_empty() => {
                    let n = missing.len().min(bytes.len());
                    missing[..n].copy_from_slice(&bytes[..n]);
                    self.have += n;
                    bytes = &bytes[n..];
                    continue;
                }
                _ => 5 + usize::from(u16::from_be_bytes([self.header[3], self.header[4]])),
            };
            let n = (whole - self.have).min(bytes.len());
            self.have += n;
            bytes = &bytes[n..];
            if self.have == whole {
                self.have = 0;
            }
        }
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
