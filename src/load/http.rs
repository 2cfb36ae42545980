//! Records as POST requests, one in flight per connection.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::pace::Pace;
use super::tally::{Notes, kind_of};
use super::wire::{ClientTls, Wire};
use super::{GRACE, RECONNECT_FIRST, RECONNECT_MAX, STOP_PATIENCE, Shared};
use crate::clock;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest body of an answer that is read so that the connection can be used again.
const BODY_BYTES_MAX: usize = 64 << 10;

/// A connection, which is made again when it breaks.
pub(super) struct Connection {
    address: SocketAddr,
    tls: Option<ClientTls>,
    timeout: Duration,
    stream: Option<Wire>,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// Bytes of the body, where it has a known end.
    body: Option<usize>,
    head: usize,
    closes: bool,
}

impl Connection {
    /// Connects.
    pub(super) fn open(address: SocketAddr, tls: Option<ClientTls>, timeout: Duration) -> io::Result<Self> {
        let mut connection = Connection { address, tls, timeout, stream: None, buffer: Vec::new() };
        connection.connect()?;
        Ok(connection)
    }

    fn connect(&mut self) -> io::Result<()> {
        self.stream = Some(Wire::connect(self.address, self.tls.as_ref(), self.timeout)?);
        Ok(())
    }

    /// Sends until the run is over.
    pub(super) fn run(mut self, pace: &Pace, shared: &Shared) {
        let mut notes = Notes::new(&shared.tally);
        let mut index = shared.messages.first_of(pace.flow, pace.flows);
        let mut backoff = RECONNECT_FIRST;
        let total = pace.total();
        let mut k = 0;
        while k < total && shared.sleep_until(if pace.is_paced() { pace.due(k) } else { pace.start }) {
            let now = clock::now();
            if pace.is_over(now, GRACE) {
                break;
            }
            let due = if pace.is_paced() { pace.due(k) } else { now };
            k += 1;
            match self.exchange(shared.messages.get(index), shared) {
                Ok(status) => {
                    notes.status(status);
                    notes.done(due, pace.is_paced().then_some(now), clock::now(), 1);
                    backoff = RECONNECT_FIRST;
                }
                Err(error) => {
                    self.stream = None;
                    shared.tally.error(kind_of(&error));
                    // At a rate, the next record comes when it is due.
                    if !pace.is_paced() {
                        shared.sleep_until((clock::now() + backoff).min(pace.end()));
                        backoff = (backoff * 2).min(RECONNECT_MAX);
                    }
                }
            }
            index += 1;
        }
        if pace.is_paced() && !shared.stopped() {
            shared.tally.add_unsent(total - k);
        }
    }

    /// One request and its answer. After an error the connection is of no use.
    fn exchange(&mut self, request: &[u8], shared: &Shared) -> io::Result<u16> {
        if self.stream.is_none() {
            self.connect()?;
        }
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let deadline = clock::now() + self.timeout;
        let mut written = 0;
        while written < request.len() {
            let again = stream.write(&request[written..]);
            written += wait_for(again, deadline, shared)?;
        }
        shared.tally.add_sent(1, request.len());
        self.buffer.clear();
        let mut chunk = [0; 4096];
        let answer = loop {
            let n = wait_for(stream.read(&mut chunk), deadline, shared)?;
            self.buffer.extend_from_slice(&chunk[..n]);
            // An interim answer is followed by the real one.
            while let Some(answer) = parse(&self.buffer)?.filter(|a| (100..200).contains(&a.status)) {
                self.buffer.drain(..answer.head);
            }
            if let Some(answer) = parse(&self.buffer)? {
                break answer;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        let mut closes = answer.closes;
        match answer.body {
            Some(length) if length <= BODY_BYTES_MAX => {
                let mut have = self.buffer.len() - answer.head;
                while have < length {
                    have += wait_for(stream.read(&mut chunk), deadline, shared)?;
                }
                // Bytes that nobody asked for would be taken for the next answer.
                closes |= have > length;
            }
            _ => closes = true,
        }
        if closes {
            self.stream = None;
        }
        Ok(answer.status)
    }
}

/// The bytes of a read or write that may have to be tried again: 0 then. An end of the stream is an error.
fn wait_for(result: io::Result<usize>, deadline: Instant, shared: &Shared) -> io::Result<usize> {
    match result {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(n),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            let now = clock::now();
            // The limit is at most a moment away once the run is to stop.
            let asked_since = deadline.checked_sub(shared.timeout).unwrap_or(now);
            let gone_on = shared.stopped() && now.saturating_duration_since(asked_since) > STOP_PATIENCE;
            if now >= deadline || gone_on { Err(io::ErrorKind::TimedOut.into()) } else { Ok(0) }
        }
        Err(e) => Err(e),
    }
}

/// The head of an answer, once it is whole.
fn parse(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let head = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(io::ErrorKind::InvalidData.into()),
    };
    let status = answer.code.unwrap_or_default();
    let is = |name: &str| {
        let header = answer.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        header.and_then(|h| std::str::from_utf8(h.value).ok()).map(str::trim)
    };
    let body = match status {
        100..200 | 204 | 304 => Some(0),
        _ if is("transfer-encoding").is_some() => None,
        _ => is("content-length").and_then(|length| length.parse().ok()),
    };
    let connection = is("connection").unwrap_or_default();
    let keeps = answer.version == Some(1) || connection.eq_ignore_ascii_case("keep-alive");
    let closes = !keeps || connection.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
    Ok(Some(Answer { status, body, head, closes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_where_the_answer_ends() {
        for (text, status, body, closes) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, Some(0), false),
            (
                "HTTP/1.1 503 x\r\nContent-Length: 12\r\nConnection: keep-alive, Close\r\n\r\n",
                503,
                Some(12),
                true,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, Some(0), true),
            ("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\n\r\n", 200, None, false),
            ("HTTP/1.1 100 Continue\r\n\r\n", 100, Some(0), false),
        ] {
            let wanted = Answer { status, body, head: text.len(), closes };
            assert_eq!(parse(text.as_bytes()).expect("HTTP"), Some(wanted), "{text}");
            for cut in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..cut]).expect("HTTP"), None, "{text} cut at {cut}");
            }
        }
        assert!(parse(b"SSH-2.0-x\r\n").is_err());
    }
}
