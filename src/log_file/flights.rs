//! Which appends of one file are in progress, since when, and on which threads: so that one that hangs is seen from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::{self, Registry};
use crate::{clock, threads};

/// An append that takes longer is called hanging.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// Appends of one file that are watched at a time; what comes on top is not seen. Those who evaluate are fewer on most machines.
const SEATS: usize = 32;
/// Bits of a seat's word that name the thread.
const THREAD_BITS: u32 = 20;

/// The appends of one file that are in progress. Reading and writing take no lock.
#[derive(Debug)]
pub struct Flights {
    base: Instant,
    /// 0: free; else the millisecond (from `base`, plus one) at which the append began, and the thread that is in it.
    seats: [AtomicU64; SEATS],
}

/// One append in progress; it has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    seat: Option<&'a AtomicU64>,
}

impl Default for Flights {
    fn default() -> Self {
        Flights { base: clock::now(), seats: Default::default() }
    }
}

impl Flights {
    /// An append begins on this thread.
    pub(super) fn begin(&self) -> Flight<'_> {
        let thread = threads::number();
        let word = (self.now_ms() + 1) << THREAD_BITS | (thread & ((1 << THREAD_BITS) - 1));
        let own = thread as usize;
        let seat = (0..SEATS).map(|n| &self.seats[own.wrapping_add(n) % SEATS]).find(|seat| {
            seat.load(Ordering::Relaxed) == 0
                && seat.compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        Flight { seat }
    }

    /// For how long the oldest append has been in progress; `None`: none is.
    pub fn oldest(&self) -> Option<Duration> {
        let began = self.words().map(|word| (word >> THREAD_BITS) - 1).min()?;
        Some(Duration::from_millis(self.now_ms().saturating_sub(began)))
    }

    /// For how long the oldest append has been in progress, where that is longer than a second.
    pub fn hanging(&self) -> Option<Duration> {
        self.oldest().filter(|age| *age >= HANGS_AFTER)
    }

    /// Shows in the metrics for how long an append of the file called `label` has been hanging.
    pub(super) fn show(self: &Arc<Self>, metrics: &Registry, label: &str) {
        let seen = Arc::downgrade(self);
        metrics.gauge_fn(&metrics::LOG_WRITE_STUCK, &[label], move || {
            seen.upgrade().and_then(|flights| flights.hanging()).map_or(0.0, |age| age.as_secs_f64())
        });
    }

    /// Whether the thread with this number ([`threads::number`]) is in an append.
    pub fn has_thread(&self, number: u64) -> bool {
        let mask = (1 << THREAD_BITS) - 1;
        self.words().any(|word| word & mask == number & mask)
    }

    /// Whether that thread's append is one that hangs.
    pub fn holds(&self, number: u64) -> bool {
        let (mask, now) = ((1 << THREAD_BITS) - 1, self.now_ms());
        let hangs =
            |word: u64| u128::from(now.saturating_sub((word >> THREAD_BITS) - 1)) >= HANGS_AFTER.as_millis();
        self.words().any(|word| word & mask == number & mask && hangs(word))
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        self.seats.iter().map(|seat| seat.load(Ordering::Acquire)).filter(|word| *word != 0)
    }

    fn now_ms(&self) -> u64 {
        clock::now().saturating_duration_since(self.base).as_millis() as u64
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            seat.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_append_is_seen_with_its_thread() {
        let flights = Flights::default();
        assert!(flights.oldest().is_none() && !flights.has_thread(threads::number()));
        let first = flights.begin();
        std::thread::sleep(Duration::from_millis(20));
        let second = flights.begin();
        assert!(flights.oldest().is_some_and(|age| age >= Duration::from_millis(19)));
        assert!(flights.has_thread(threads::number()) && !flights.has_thread(threads::number() + 1));
        assert!(!flights.holds(threads::number()), "it is young");
        drop(first);
        assert!(flights.oldest().is_some());
        drop(second);
        assert!(flights.oldest().is_none());
    }

    #[test]
    fn more_appends_than_seats_are_no_fault() {
        let flights = Flights::default();
        let many: Vec<_> = (0..SEATS + 3).map(|_| flights.begin()).collect();
        assert_eq!(many.iter().filter(|flight| flight.seat.is_none()).count(), 3);
        drop(many);
        assert!(flights.oldest().is_none());
    }
}
