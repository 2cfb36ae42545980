//! Counts of a run, shared by its flows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::clock;

/// Largest duration that a histogram tells apart, in nanoseconds: an hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Three significant digits.
const DIGITS: u8 = 3;

/// A histogram of nanoseconds.
///
/// # Panics
///
/// Never: the bounds are valid by the rules of the library (`low >= 1`, `high >= 2 * low`, at most five digits).
#[allow(clippy::expect_used, reason = "constants")]
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, DIGITS).expect("valid bounds")
}

/// What was noted of a run.
#[derive(Debug)]
pub struct Books {
    /// From the instant at which a record was due (in a closed loop: from its sending) to its answer, or where there are no
    /// answers to the kernel's having taken it. Nanoseconds. Records that failed are not in it.
    pub latency: Histogram<u64>,
    /// How late records were handed to the kernel: because the sender was woken late, or because the connection was still
    /// busy with the one before. Nanoseconds. Empty in a closed loop.
    pub late: Histogram<u64>,
    /// Answers by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// What went wrong, by kind.
    pub errors: BTreeMap<&'static str, u64>,
}

impl Books {
    fn new() -> Self {
        Books { latency: histogram(), late: histogram(), statuses: BTreeMap::new(), errors: BTreeMap::new() }
    }
}

/// The counts. Cheap to read while the run goes on.
#[derive(Debug)]
pub struct Tally {
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    unsent: AtomicU64,
    failed: AtomicU64,
    made: Instant,
    last_ns: AtomicU64,
    books: Mutex<Books>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Tally {
            sent: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            made: clock::now(),
            last_ns: AtomicU64::new(0),
            books: Mutex::new(Books::new()),
        }
    }

    /// Records that were wholly written.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Their bytes.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Records that were due and not sent before the end.
    pub fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Errors, and answers other than 2xx.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// When something was last sent or answered.
    pub(super) fn last(&self) -> Instant {
        self.made + Duration::from_nanos(self.last_ns.load(Ordering::Relaxed))
    }

    pub(super) fn add_sent(&self, records: usize, bytes: usize) {
        self.sent.fetch_add(records as u64, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_unsent(&self, records: u64) {
        self.unsent.fetch_add(records, Ordering::Relaxed);
    }

    /// Something went wrong with a record or a connection.
    pub(super) fn error(&self, kind: &'static str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.books.lock().errors.entry(kind).or_default() += 1;
    }

    /// The books so far; they begin anew.
    pub(super) fn take_books(&self) -> Books {
        std::mem::replace(&mut self.books.lock(), Books::new())
    }
}

/// How many samples a flow holds back before it writes them into the shared books.
const HELD_MAX: usize = 512;

/// A flow's samples, written into the shared books many at a time, and when it is dropped.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    tally: &'a Tally,
    /// Latency and lateness in nanoseconds (no lateness in a closed loop), and how many records had both.
    samples: Vec<(u64, Option<u64>, u64)>,
    statuses: BTreeMap<u16, u64>,
    last: Instant,
}

impl<'a> Notes<'a> {
    pub(super) fn new(tally: &'a Tally) -> Self {
        Notes { tally, samples: Vec::with_capacity(HELD_MAX), statuses: BTreeMap::new(), last: tally.made }
    }

    /// `records` were done at `done`, having been due at `due`; `sent` is when they were handed over, where that matters.
    pub(super) fn done(&mut self, due: Instant, sent: Option<Instant>, done: Instant, records: u64) {
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(HIGHEST_NS);
        let late = sent.map(|sent| ns(sent.saturating_duration_since(due)));
        self.samples.push((ns(done.saturating_duration_since(due)), late, records));
        self.last = self.last.max(done);
        if self.samples.len() >= HELD_MAX {
            self.flush();
        }
    }

    /// An answer came.
    pub(super) fn status(&mut self, status: u16) {
        *self.statuses.entry(status).or_default() += 1;
        if !(200..300).contains(&status) {
            self.tally.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&mut self) {
        let last =
            u64::try_from(self.last.saturating_duration_since(self.tally.made).as_nanos()).unwrap_or(0);
        self.tally.last_ns.fetch_max(last, Ordering::Relaxed);
        let mut books = self.tally.books.lock();
        for (latency, late, records) in self.samples.drain(..) {
            books.latency.saturating_record_n(latency, records);
            if let Some(late) = late {
                books.late.saturating_record_n(late, records);
            }
        }
        for (status, count) in std::mem::take(&mut self.statuses) {
            *books.statuses.entry(status).or_default() += count;
        }
    }
}

impl Drop for Notes<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What kind of error that was, in a few words.
pub(super) fn kind_of(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => "connection refused",
        Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted | Kind::UnexpectedEof => {
            "connection closed"
        }
        Kind::TimedOut | Kind::WouldBlock => "no answer in time",
        Kind::InvalidData => "an answer that is not HTTP",
        Kind::NotFound => "no socket there",
        Kind::AddrNotAvailable => "no port left on this machine",
        Kind::PermissionDenied => "permission denied",
        _ => "another error of the socket",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_reach_the_books() {
        let tally = Tally::new();
        let (due, us) = (tally.made, Duration::from_micros(1));
        {
            let mut notes = Notes::new(&tally);
            for n in 0..HELD_MAX as u32 + 3 {
                notes.done(due, Some(due + us), due + us * (n + 1), 1);
            }
            notes.done(due + us, None, due, 2);
            for status in [204, 503, 204] {
                notes.status(status);
            }
        }
        tally.error("connection closed");
        assert_eq!((tally.failed(), tally.last()), (2, due + us * (HELD_MAX as u32 + 3)));
        let books = tally.take_books();
        assert_eq!((books.latency.len(), books.late.len()), (HELD_MAX as u64 + 5, HELD_MAX as u64 + 3));
        assert_eq!(books.latency.min(), 0, "a clock that seems to go back is no latency");
        assert_eq!(books.statuses, BTreeMap::from([(204, 2), (503, 1)]));
        assert_eq!(books.errors, BTreeMap::from([("connection closed", 1)]));
        assert!(tally.take_books().latency.is_empty());
    }

    #[test]
    fn errors_have_words() {
        use std::io::ErrorKind as Kind;
        for (kind, words) in [
            (Kind::ConnectionRefused, "refused"),
            (Kind::UnexpectedEof, "closed"),
            (Kind::WouldBlock, "in time"),
            (Kind::InvalidData, "HTTP"),
            (Kind::NotFound, "no socket"),
            (Kind::AddrNotAvailable, "port"),
            (Kind::PermissionDenied, "permission"),
            (Kind::OutOfMemory, "another"),
        ] {
            assert!(kind_of(&kind.into()).contains(words), "{kind:?}");
        }
    }
}
