//! Records as lines over TCP or a Unix socket. There is no answer: done is what the kernel has taken.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::pace::Pace;
use super::tally::{Notes, kind_of};
use super::{BATCH, GRACE, RECONNECT_FIRST, RECONNECT_MAX, SLICE, STOP_PATIENCE, Shared, Target};
use crate::clock;

/// The most that is written at once.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// A connection, which is made again when it breaks.
pub(super) struct Connection {
    target: Target,
    timeout: Duration,
    stream: Option<Box<dyn Write + Send>>,
}

/// How far a write has come, and why no further.
struct Written {
    bytes: usize,
    error: Option<io::Error>,
}

impl Connection {
    /// Connects. `target` is a TCP or Unix address.
    pub(super) fn open(target: &Target, timeout: Duration) -> io::Result<Self> {
        let mut connection = Connection { target: target.clone(), timeout, stream: None };
        connection.connect()?;
        Ok(connection)
    }

    fn connect(&mut self) -> io::Result<()> {
        let stream: Box<dyn Write + Send> = match &self.target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, self.timeout)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(SLICE))?;
                Box::new(stream)
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(SLICE))?;
                Box::new(stream)
            }
            Target::Http { .. } | Target::Udp(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        self.stream = Some(stream);
        Ok(())
    }

    /// Sends until the run is over.
    pub(super) fn run(mut self, pace: &Pace, shared: &Shared) {
        let mut notes = Notes::new(&shared.tally);
        let total = pace.total();
        let first = shared.messages.first_of(pace.flow, pace.flows);
        let mut backoff = RECONNECT_FIRST;
        let mut k = 0;
        shared.sleep_until(pace.start);
        while k < total && !shared.stopped() {
            let now = clock::now();
            if pace.is_over(now, GRACE) {
                break;
            }
            let ready = pace.ready(now);
            if ready <= k {
                shared.sleep_until(pace.due(k).max(now + BATCH));
                continue;
            }
            if self.stream.is_none() {
                if let Err(error) = self.connect() {
                    shared.tally.error(kind_of(&error));
                    shared.sleep_until((clock::now() + backoff).min(pace.end() + GRACE));
                    backoff = (backoff * 2).min(RECONNECT_MAX);
                    continue;
                }
                backoff = RECONNECT_FIRST;
            }
            let index = first + usize::try_from(k % shared.messages.len() as u64).unwrap_or(0);
            let (bytes, count) = shared.messages.run(index, ready - k, WRITE_BYTES_MAX);
            let written = self.write(bytes, shared);
            let (whole, whole_bytes) = shared.messages.whole(index, written.bytes);
            let whole = whole.min(count);
            shared.tally.add_sent(whole, whole_bytes);
            note(&mut notes, pace, now, k, whole as u64);
            k += whole as u64;
            if let Some(error) = written.error {
                // The line that was cut is sent again, whole, as the audit devices do.
                self.stream = None;
                shared.tally.error(stalled_or(&error));
            }
        }
        if pace.is_paced() && !shared.stopped() {
            shared.tally.add_unsent(total - k);
        }
    }

    /// Writes all of it, or as much as is taken before the receiver takes nothing for too long.
    fn write(&mut self, bytes: &[u8], shared: &Shared) -> Written {
        let mut written = Written { bytes: 0, error: None };
        let Some(stream) = &mut self.stream else {
            written.error = Some(io::ErrorKind::NotConnected.into());
            return written;
        };
        let mut since: Option<Instant> = None;
        while written.bytes < bytes.len() {
            let error = match stream.write(&bytes[written.bytes..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(n) => {
                    written.bytes += n;
                    since = None;
                    continue;
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    let now = clock::now();
                    let waited = now.saturating_duration_since(*since.get_or_insert(now));
                    if waited < if shared.stopped() { STOP_PATIENCE } else { self.timeout } {
                        continue;
                    }
                    io::ErrorKind::TimedOut.into()
                }
                Err(e) => e,
            };
            written.error = Some(error);
            break;
        }
        written
    }
}

fn stalled_or(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::TimedOut => "the receiver took nothing for too long",
        _ => kind_of(error),
    }
}

/// `count` records from `k` on, handed over from `sent` on, are done.
pub(super) fn note(notes: &mut Notes<'_>, pace: &Pace, sent: Instant, k: u64, count: u64) {
    let done = clock::now();
    if pace.is_paced() {
        (k..k + count).for_each(|k| notes.done(pace.due(k), Some(sent), done, 1));
    } else if count > 0 {
        notes.done(sent, None, done, count);
    }
}
