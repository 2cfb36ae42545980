//! How many threads of a group may be inside an append at once: one fewer than there are threads, so that one always goes on.

use std::sync::atomic::{AtomicU64, Ordering};

/// The low bits of the word count permits, the others frames.
const COUNT_BITS: u32 = 16;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The permits of one group of threads.
#[derive(Debug)]
pub(super) struct Permits {
    taken: AtomicU64,
    max: AtomicU64,
}

/// Given back when dropped. Held during one append.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    of: &'a Permits,
    word: u64,
}

impl Permits {
    pub(super) fn new(max: usize) -> Permits {
        Permits { taken: AtomicU64::new(0), max: AtomicU64::new((max as u64).min(COUNT_MASK / 4)) }
    }

    /// There are threads more, and so many permits more.
    pub(super) fn add(&self, more: usize) {
        self.max.fetch_add((more as u64).min(COUNT_MASK / 4), Ordering::Relaxed);
    }

    /// A permit to write for a batch of so many frames. Does not wait.
    pub(super) fn take(&self, frames: usize) -> Option<Permit<'_>> {
        let word = (frames as u64) << COUNT_BITS | 1;
        let before = self.taken.fetch_add(word, Ordering::AcqRel);
        let permit = Permit { of: self, word };
        (before & COUNT_MASK < self.max.load(Ordering::Relaxed)).then_some(permit)
    }

    /// Frames of the batches that somebody is writing in this moment.
    pub(super) fn frames(&self) -> u64 {
        self.taken.load(Ordering::Acquire) >> COUNT_BITS
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(self.word, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_permits_than_there_are() {
        let permits = Permits::new(2);
        let (one, two) = (permits.take(3), permits.take(4));
        assert!(one.is_some() && two.is_some() && permits.take(5).is_none());
        assert_eq!(permits.frames(), 7);
        drop(one);
        assert!(permits.take(65_536).is_some());
        drop(two);
        assert_eq!(permits.frames(), 0);
        assert!(Permits::new(0).take(1).is_none());
        let one = permits.take(1);
        assert!(one.is_some());
        assert!(permits.take(1).is_some(), "two of two");
        let two = permits.take(1);
        assert!(two.is_some() && permits.take(1).is_none());
        permits.add(1);
        assert!(permits.take(1).is_some());
    }
}
