//! The edge in front of tiny_http: takes connections, reads one whole request of each with bounds in bytes and time, and hands it on.
//!
//! tiny_http 0.12 has no limit on heads, no deadline, and allocates an unread body at once, so that one request can end the process. It
//! therefore sees nothing but whole, checked requests, on a private socket. One thread waits for all connections that are still
//! sending; a client that says nothing costs a descriptor until its time is up, never a thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::answer::Answer;
use super::tail;
use crate::clock;
use crate::framing::http::{HttpLimits, RequestFramer, Step, gunzip};

/// Connections that may be sending at once; when full, the one that has been at it for longest makes room.
pub(super) const CONNECTIONS_MAX: usize = 32;
/// Request line and headers, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a request may take from the connection to its last byte. Tests wait for it.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 10 });
/// How long to leave the listener alone after it failed (out of descriptors, say).
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Read at once from one connection.
const READ_BYTES: usize = 64 << 10;

/// A whole request, checked, with the connection that waits for its answer.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) stream: UnixStream,
    /// For tiny_http: one head of our own making, and the body with its exact length.
    pub(super) bytes: Vec<u8>,
}

/// A connection that has not sent its request yet.
struct Sending {
    stream: UnixStream,
    since: Instant,
    buffer: Vec<u8>,
    framer: RequestFramer,
}

/// What became of a connection that was readable.
enum Progress {
    More,
    Whole(Vec<u8>),
    /// Answer and close.
    Refused(Answer),
    Gone,
}

pub(super) struct Edge {
    listener: UnixListener,
    /// Readable (at its end) when it is time to stop.
    stop: UnixStream,
    /// To the relays, and to the thread of the followers.
    out: [Sender<Whole>; 2],
    limits: HttpLimits,
    /// All requests that are coming in, together.
    buffered_bytes_max: usize,
    sending: Vec<Sending>,
    rest_until: Option<Instant>,
}

impl Edge {
    /// `listener` and `stop` become non-blocking. `body_bytes_max` bounds one request's body.
    pub(super) fn new(
        listener: UnixListener,
        stop: UnixStream,
        out: [Sender<Whole>; 2],
        body_bytes_max: usize,
    ) -> io::Result<Edge> {
        listener.set_nonblocking(true)?;
        stop.set_nonblocking(true)?;
        let limits = HttpLimits { head_bytes_max: HEAD_BYTES_MAX, body_bytes_max };
        let buffered_bytes_max = body_bytes_max.saturating_add(CONNECTIONS_MAX * HEAD_BYTES_MAX);
        let (sending, rest_until) = (Vec::new(), None);
        Ok(Edge { listener, stop, out, limits, buffered_bytes_max, sending, rest_until })
    }

    /// Serves until the other end of `stop` is closed.
    pub(super) fn run(mut self) {
        let mut scratch = vec![0; READ_BYTES];
        loop {
            let (stop, accept, readable) = match self.wait() {
                Ok(ready) => ready,
                Err(e) => {
                    log::error!("control socket: cannot wait for connections: {e}");
                    std::thread::sleep(ACCEPT_REST);
                    continue;
                }
            };
            if stop {
                return;
            }
            let now = clock::now();
            // From the last one on, so that removing leaves the other numbers as they are.
            for index in (0..self.sending.len()).rev() {
                if now >= self.sending[index].since + REQUEST_TIMEOUT {
                    self.refuse(index, &timed_out());
                } else if readable[index] {
                    self.serve(index, &mut scratch);
                }
            }
            if accept {
                self.accept(now);
            }
        }
    }

    /// Waits for the first event or deadline: whether to stop, whether somebody connects, and who has sent something.
    fn wait(&self) -> io::Result<(bool, bool, Vec<bool>)> {
        let now = clock::now();
        let resting = self.rest_until.filter(|until| *until > now);
        let deadlines = self.sending.iter().map(|s| s.since + REQUEST_TIMEOUT).chain(resting);
        let timeout = deadlines.min().map(|at| at.saturating_duration_since(now));
        // Up to the next whole millisecond, or the last one would be spun through.
        let timeout = timeout.map_or(PollTimeout::NONE, |t| {
            PollTimeout::try_from(t.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        let listen = if resting.is_some() { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut fds = vec![
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), listen),
        ];
        fds.extend(self.sending.iter().map(|s| PollFd::new(s.stream.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        Ok((ready[0], ready[1], ready[2..].to_vec()))
    }

    fn accept(&mut self, now: Instant) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if stream.set_nonblocking(true).is_err() {
                        continue;
                    }
                    if self.sending.len() == CONNECTIONS_MAX {
                        // The oldest stands first.
                        self.refuse(0, &timed_out());
                    }
                    let (buffer, framer) = (Vec::new(), RequestFramer::default());
                    self.sending.push(Sending { stream, since: now, buffer, framer });
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted || e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    log::warn!("control socket: cannot take a connection: {e}; trying again");
                    self.rest_until = Some(now + ACCEPT_REST);
                    return;
                }
            }
        }
    }

    fn serve(&mut self, index: usize, scratch: &mut [u8]) {
        let buffered: usize = self.sending.iter().map(|s| s.buffer.len() + s.framer.heap_bytes()).sum();
        let room = self.buffered_bytes_max.saturating_sub(buffered);
        match self.sending[index].progress(scratch, room, &self.limits) {
            Progress::More => {}
            Progress::Gone => drop(self.sending.remove(index)),
            Progress::Refused(answer) => self.refuse(index, &answer),
            Progress::Whole(bytes) => {
                let stream = self.sending.remove(index).stream;
                if let Err(TrySendError::Full(whole) | TrySendError::Disconnected(whole)) =
                    self.out[usize::from(tail::is_wanted(&bytes))].try_send(Whole { stream, bytes })
                {
                    let busy =
                        Answer::error(503, "too many requests wait for an answer", "try again in a moment");
                    send_at_once(&whole.stream, &busy);
                }
            }
        }
    }

    fn refuse(&mut self, index: usize, answer: &Answer) {
        let sending = self.sending.remove(index);
        send_at_once(&sending.stream, answer);
    }
}

fn timed_out() -> Answer {
    let what = format!("the request was not whole within {} s", REQUEST_TIMEOUT.as_secs());
    Answer::error(408, &what, "send it at once")
}

/// Sends what the socket's buffer takes, without waiting: an answer of the edge is short.
fn send_at_once(mut stream: &UnixStream, answer: &Answer) {
    let _ = stream.write(&answer.to_http());
    let _ = stream.shutdown(Shutdown::Write);
}

impl Sending {
    fn progress(&mut self, scratch: &mut [u8], room: usize, limits: &HttpLimits) -> Progress {
        loop {
            let read = match self.stream.read(scratch) {
                Ok(0) => return Progress::Gone,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Progress::More,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Progress::Gone,
            };
            if read > room {
                let what = "too many bytes of requests are coming in at once";
                return Progress::Refused(Answer::error(503, what, "send one request after the other"));
            }
            self.buffer.extend_from_slice(&scratch[..read]);
            match self.framer.advance(&self.buffer, limits) {
                Err(refusal) => {
                    let cure = "send one HTTP/1.1 request in a connection; `vault-audit-filter queue` and `status` do";
                    return Progress::Refused(Answer::error(refusal.status, refusal.reason, cure));
                }
                Ok(Step::NeedMore { consumed }) => {
                    self.buffer.drain(..consumed);
                    if self.framer.take_expect_continue() {
                        // Twenty-five bytes into an empty buffer; a client that does not get them sends its body all the same.
                        let _ = self.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    // The others get their turn.
                    return Progress::More;
                }
                Ok(Step::Complete { .. }) => return self.whole(limits),
            }
        }
    }

    /// The request in a form that leaves tiny_http nothing to decide.
    fn whole(&self, limits: &HttpLimits) -> Progress {
        let (Some(parts), Some(head)) = (self.framer.parts(&self.buffer), self.framer.head()) else {
            return Progress::Gone;
        };
        let mut decoded = Vec::new();
        let body = if head.gzip {
            if let Err(refusal) = gunzip(parts.body, limits.body_bytes_max, &mut decoded) {
                return Progress::Refused(Answer::error(
                    refusal.status,
                    refusal.reason,
                    "send it uncompressed",
                ));
            }
            &decoded[..]
        } else {
            parts.body
        };
        let question = if parts.query.is_empty() { "" } else { "?" };
        let mut bytes = format!(
            "{} {}{question}{} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            parts.method,
            parts.path,
            parts.query,
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        Progress::Whole(bytes)
    }
}
