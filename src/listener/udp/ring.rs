//! The hand-over from the thread that receives datagrams to the one that evaluates them: two buffers that change places.
//!
//! The lock is held for copying one batch of datagrams in, or for the exchange; never during I/O or evaluation.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Memory that an empty buffer may keep.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Datagrams behind one another.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    bytes: Vec<u8>,
    frames: Vec<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    end: usize,
    cut: bool,
}

impl Datagrams {
    /// Adds a copy of one. `cut`: it was longer, and the rest is lost.
    pub(super) fn push(&mut self, datagram: &[u8], cut: bool) {
        self.bytes.extend_from_slice(datagram);
        self.frames.push(Frame { end: self.bytes.len(), cut });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// In the order of arrival, with the mark of the cut ones.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let starts = std::iter::once(0).chain(self.frames.iter().map(|f| f.end));
        starts.zip(&self.frames).map(|(start, frame)| (&self.bytes[start..frame.end], frame.cut))
    }

    /// What they take, their administration included: empty datagrams are bounded too.
    fn held_bytes(&self) -> usize {
        self.bytes.len() + self.frames.len() * size_of::<Frame>()
    }

    /// Forgets them; what a burst has made large is given back.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() + self.frames.capacity() * size_of::<Frame>() > KEPT_BYTES_MAX {
            *self = Datagrams::default();
        }
        self.bytes.clear();
        self.frames.clear();
    }
}

#[derive(Debug, Default)]
struct State {
    filling: Datagrams,
    closed: bool,
    /// The evaluator sleeps.
    evaluator_waits: bool,
    /// The receiver sleeps.
    receiver_waits: bool,
}

/// The ring. One thread receives, one takes.
#[derive(Debug)]
pub(super) struct Ring {
    state: Mutex<State>,
    filled: Condvar,
    room: Condvar,
    bytes_max: usize,
}

/// What [`Ring::take`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Some,
    /// Nothing came in time.
    None,
    /// Closed, and nothing is left.
    End,
}

impl Ring {
    /// At most `bytes_max` bytes wait, and one batch more; as many again are with the evaluator.
    pub(super) fn new(bytes_max: usize) -> Ring {
        Ring { state: Mutex::default(), filled: Condvar::new(), room: Condvar::new(), bytes_max }
    }

    /// Bytes that wait for the evaluator.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.state.lock().filling.held_bytes()
    }

    /// Waits for room for another batch, until `deadline`. False: there is none yet.
    pub(super) fn wait_for_room(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while state.filling.held_bytes() >= self.bytes_max {
            state.receiver_waits = true;
            let late = self.room.wait_until(&mut state, deadline).timed_out();
            state.receiver_waits = false;
            if late {
                return state.filling.held_bytes() < self.bytes_max;
            }
        }
        true
    }

    /// Copies a batch in, whatever its size: [`Ring::wait_for_room`] comes first.
    pub(super) fn fill(&self, copy: impl FnOnce(&mut Datagrams)) {
        let mut state = self.state.lock();
        copy(&mut state.filling);
        let wake = state.evaluator_waits && !state.filling.is_empty();
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// Exchanges `empty` for all that waits; waits for something for at most `patience`.
    pub(super) fn take(&self, empty: &mut Datagrams, patience: Duration, now: Instant) -> Taken {
        let deadline = now + patience;
        let mut state = self.state.lock();
        while state.filling.is_empty() {
            if state.closed {
                return Taken::End;
            }
            state.evaluator_waits = true;
            let late = self.filled.wait_until(&mut state, deadline).timed_out();
            state.evaluator_waits = false;
            if late && state.filling.is_empty() {
                return if state.closed { Taken::End } else { Taken::None };
            }
        }
        std::mem::swap(&mut state.filling, empty);
        let wake = state.receiver_waits;
        drop(state);
        if wake {
            self.room.notify_one();
        }
        Taken::Some
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{clock, threads};

    fn soon() -> Instant {
        clock::now() + Duration::from_secs(120)
    }

    #[test]
    fn all_datagrams_come_through_in_order_and_the_ring_stays_bounded() {
        const COUNT: u32 = 50_000;
        let ring = Arc::new(Ring::new(1000));
        let receiver = Arc::clone(&ring);
        let thread = threads::spawn("test-receiver", move || {
            for n in 0..COUNT {
                while !receiver.wait_for_room(soon()) {}
                receiver.fill(|to| to.push(&n.to_le_bytes(), n.is_multiple_of(7)));
            }
            receiver.close();
        })
        .expect("a thread");
        let mut taken = Datagrams::default();
        let mut expected: u32 = 0;
        loop {
            match ring.take(&mut taken, Duration::from_secs(120), clock::now()) {
                Taken::Some => {
                    assert!(taken.held_bytes() < 1000 + 4 + size_of::<Frame>());
                    for (datagram, cut) in taken.iter() {
                        assert_eq!(
                            (datagram, cut),
                            (&expected.to_le_bytes()[..], expected.is_multiple_of(7))
                        );
                        expected += 1;
                    }
                    taken.clear();
                }
                Taken::None => panic!("nothing came"),
                Taken::End => break,
            }
        }
        thread.join().expect("no panic");
        assert_eq!(expected, COUNT);
        assert_eq!(ring.waiting_bytes(), 0);
    }

    #[test]
    fn a_full_ring_makes_the_receiver_wait_and_empty_datagrams_count() {
        let ring = Ring::new(10 * size_of::<Frame>());
        for _ in 0..10 {
            assert!(ring.wait_for_room(clock::now()));
            ring.fill(|to| to.push(b"", false));
        }
        assert!(!ring.wait_for_room(clock::now()));
        let mut taken = Datagrams::default();
        assert_eq!(ring.take(&mut taken, Duration::ZERO, clock::now()), Taken::Some);
        assert_eq!(taken.iter().count(), 10);
        assert!(ring.wait_for_room(clock::now()));
        taken.clear();
        assert_eq!(ring.take(&mut taken, Duration::ZERO, clock::now()), Taken::None);
        ring.fill(|to| to.push(b"last", false));
        ring.close();
        assert_eq!(ring.take(&mut taken, Duration::ZERO, clock::now()), Taken::Some);
        taken.clear();
        assert_eq!(ring.take(&mut taken, Duration::ZERO, clock::now()), Taken::End);
    }

    #[test]
    fn what_a_burst_needed_is_given_back() {
        let mut datagrams = Datagrams::default();
        datagrams.push(&vec![0; 2 * KEPT_BYTES_MAX], false);
        datagrams.clear();
        assert_eq!(datagrams.bytes.capacity(), 0);
        datagrams.push(b"x", true);
        datagrams.clear();
        assert!(datagrams.bytes.capacity() > 0 && datagrams.is_empty());
    }
}
