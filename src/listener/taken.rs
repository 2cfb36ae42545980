//! The events that a pool thread has taken from the poller and not handled yet, and the connection that it goes on with. A thread
//! that is held up, in the write to a log file say, must not keep them: the sweep hands them to another one.

use std::sync::atomic::{AtomicU64, Ordering};

use super::core::WAKE_TOKEN;

/// How many events a thread takes at a time, at most. They wait for each other, so a thread that finds its events slow to handle (a
/// large body) takes one at a time and leaves the others to its fellows.
pub(super) const EVENTS_PER_WAIT: usize = 8;

/// The place of the connection that the thread goes on with when it has looked for others.
pub(super) const KEPT: usize = EVENTS_PER_WAIT;

/// A thread that has been handling its events for so long has the rest of them taken away.
const HELD_MS: u64 = 50;

/// The events of one thread. Each is handled once, by whoever claims it.
#[derive(Debug)]
pub(super) struct Taken {
    /// When they were taken, in pool milliseconds plus one; 0: all are handled.
    since: AtomicU64,
    /// [`WAKE_TOKEN`], which asks for nothing, in the place of those that are claimed.
    tokens: [AtomicU64; KEPT + 1],
}

impl Default for Taken {
    fn default() -> Self {
        let none = || AtomicU64::new(WAKE_TOKEN);
        Taken { since: AtomicU64::new(0), tokens: std::array::from_fn(|_| none()) }
    }
}

impl Taken {
    /// These have been taken now. The one that is kept stays.
    pub(super) fn put(&self, tokens: impl Iterator<Item = u64>, now_ms: u64) {
        for (place, token) in self.tokens[..KEPT].iter().zip(tokens) {
            place.store(token, Ordering::Relaxed);
        }
        self.since.store(now_ms + 1, Ordering::Release);
    }

    /// Claims event number `at`.
    pub(super) fn claim(&self, at: usize) -> u64 {
        self.tokens[at].swap(WAKE_TOKEN, Ordering::AcqRel)
    }

    /// The thread goes on with this connection, which is not armed. `false`: it keeps another one already.
    pub(super) fn keep(&self, token: u64) -> bool {
        self.tokens[KEPT].compare_exchange(WAKE_TOKEN, token, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether there is one to go on with.
    pub(super) fn keeps(&self) -> bool {
        self.tokens[KEPT].load(Ordering::Relaxed) != WAKE_TOKEN
    }

    /// All are handled, but for the one that is kept.
    pub(super) fn done(&self) {
        if !self.keeps() {
            self.since.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the thread has been held up.
    pub(super) fn is_held(&self, now_ms: u64) -> bool {
        let since = self.since.load(Ordering::Acquire);
        since != 0 && (now_ms + 1).saturating_sub(since) >= HELD_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_claimed_once_and_late_ones_are_seen() {
        let taken = Taken::default();
        assert!(!taken.is_held(10_000));
        taken.put([0, 7, 9].into_iter(), 100);
        assert!(!taken.is_held(149) && taken.is_held(150));
        assert_eq!([0, 1, 1, 2, 3].map(|at| taken.claim(at)), [0, 7, WAKE_TOKEN, 9, WAKE_TOKEN]);
        taken.done();
        assert!(!taken.is_held(10_000));
    }

    #[test]
    fn one_connection_is_kept_from_round_to_round_and_can_be_taken_away() {
        let taken = Taken::default();
        assert!(!taken.keeps());
        taken.put([7].into_iter(), 100);
        assert_eq!(taken.claim(0), 7);
        assert!(taken.keep(7) && !taken.keep(9) && taken.keeps());
        taken.done();
        assert!(taken.is_held(150), "nothing else is handled, but this one waits");
        taken.put([9].into_iter(), 200);
        assert!(!taken.is_held(249));
        assert_eq!([0, KEPT, KEPT].map(|at| taken.claim(at)), [9, 7, WAKE_TOKEN]);
        taken.done();
        assert!(!taken.is_held(10_000) && taken.keep(9));
    }
}
