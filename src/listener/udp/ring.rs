//! The hand-over from the thread that receives datagrams to those that evaluate them: pieces of a few dozen, in order.
//!
//! The lock is held for copying one batch of datagrams in, or for taking a piece out; never during I/O or evaluation. A thread that is
//! held up while it evaluates keeps one piece back, and no more. When nobody has taken anything for a while though something waits, the
//! receiver calls the standby.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::clock;

/// A piece that has more datagrams takes no further batch: so it has 96 at most, where a batch has 64.
const PIECE_DATAGRAMS: usize = 32;
/// Empty pieces that are kept to be filled again.
const FREE_PIECES: usize = 4;
/// Nobody has taken anything for so long though something waits: the standby is called.
const STALE: Duration = Duration::from_millis(50);

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
    /// The last one is being filled.
    pieces: VecDeque<Datagrams>,
    /// Bytes in them.
    held_bytes: usize,
    free: Vec<Datagrams>,
    closed: bool,
    /// Since when something waits and nobody has taken anything.
    untaken_since: Option<Instant>,
    /// The standby is to help.
    called: bool,
    /// An evaluator sleeps.
    evaluator_waits: bool,
    /// The receiver sleeps.
    receiver_waits: bool,
}

/// The ring. One thread receives, others take.
#[derive(Debug)]
pub(super) struct Ring {
    state: Mutex<State>,
    filled: Condvar,
    room: Condvar,
    standby: Condvar,
    bytes_max: usize,
}

/// What the receiver finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outlook {
    /// There is room for another batch.
    pub(super) has_room: bool,
    /// How long until the standby is called, unless somebody takes something; `None`: nothing waits.
    pub(super) stale_in: Option<Duration>,
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
    /// At most `bytes_max` bytes wait, and one batch more; one piece is with each evaluator.
    pub(super) fn new(bytes_max: usize) -> Ring {
        Ring {
            state: Mutex::default(),
            filled: Condvar::new(),
            room: Condvar::new(),
            standby: Condvar::new(),
            bytes_max,
        }
    }

    /// Bytes that wait to be evaluated.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.state.lock().held_bytes
    }

    /// Whether there is room, and calls the standby when it is time. Does not wait.
    pub(super) fn look(&self, now: Instant) -> Outlook {
        let mut state = self.state.lock();
        let stale_in = state.untaken_since.map(|since| {
            let waited = now.saturating_duration_since(since);
            if waited >= STALE && !state.called {
                state.called = true;
                self.standby.notify_one();
            }
            // Called: it has as long again.
            STALE.checked_sub(waited).filter(|left| !left.is_zero()).unwrap_or(STALE)
        });
        Outlook { has_room: state.held_bytes < self.bytes_max, stale_in }
    }

    /// Waits for room for another batch, until `deadline`. False: there is none yet.
    pub(super) fn wait_for_room(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while state.held_bytes >= self.bytes_max {
            state.receiver_waits = true;
            let late = self.room.wait_until(&mut state, deadline).timed_out();
            state.receiver_waits = false;
            if late {
                return state.held_bytes < self.bytes_max;
            }
        }
        true
    }

    /// Copies a batch in, whatever its size: [`Ring::wait_for_room`] comes first.
    pub(super) fn fill(&self, copy: impl FnOnce(&mut Datagrams)) {
        let mut state = self.state.lock();
        let mut piece = match state.pieces.pop_back() {
            Some(last) if last.frames.len() <= PIECE_DATAGRAMS => last,
            last => {
                state.pieces.extend(last);
                state.free.pop().unwrap_or_default()
            }
        };
        let before = piece.held_bytes();
        copy(&mut piece);
        state.held_bytes += piece.held_bytes() - before;
        if piece.is_empty() {
            return;
        }
        state.pieces.push_back(piece);
        if state.untaken_since.is_none() {
            state.untaken_since = Some(clock::now());
        }
        let wake = state.evaluator_waits;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Nothing more will come. What is left is evaluated, by the standby too.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
        self.standby.notify_all();
    }

    /// Exchanges `empty` for the oldest piece; waits for something for at most `patience`.
    pub(super) fn take(&self, empty: &mut Datagrams, patience: Duration, now: Instant) -> Taken {
        let deadline = now + patience;
        let mut state = self.state.lock();
        let mut piece = loop {
            if let Some(piece) = state.pieces.pop_front() {
                break piece;
            }
            if state.closed {
                return Taken::End;
            }
            state.evaluator_waits = true;
            let late = self.filled.wait_until(&mut state, deadline).timed_out();
            state.evaluator_waits = false;
            if late && state.pieces.is_empty() {
                return if state.closed { Taken::End } else { Taken::None };
            }
        };
        state.held_bytes -= piece.held_bytes();
        state.untaken_since = if state.pieces.is_empty() { None } else { Some(clock::now()) };
        std::mem::swap(&mut piece, empty);
        if state.free.len() < FREE_PIECES {
            state.free.push(piece);
        }
        let wake = state.receiver_waits;
        drop(state);
        if wake {
            self.room.notify_one();
        }
        Taken::Some
    }

    /// For the standby: waits to be called, for at most `patience`. True: it is to take until there is nothing more.
    pub(super) fn wait_for_call(&self, patience: Duration, now: Instant) -> bool {
        let mut state = self.state.lock();
        if !state.called && !state.closed {
            self.standby.wait_until(&mut state, now + patience);
        }
        std::mem::take(&mut state.called) || state.closed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::threads;

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

    #[test]
    fn what_nobody_takes_calls_the_standby_and_one_piece_is_held_back() {
        let ring = Ring::new(1 << 20);
        let start = clock::now();
        assert_eq!(ring.look(start), Outlook { has_room: true, stale_in: None });
        for n in 0..200_u8 {
            ring.fill(|to| to.push(&[n], false));
        }
        let later = clock::now();
        assert!(ring.look(later).stale_in.is_some_and(|left| left <= STALE));
        // One evaluator takes a piece and stands still.
        let mut held = Datagrams::default();
        assert_eq!(ring.take(&mut held, Duration::ZERO, later), Taken::Some);
        assert!(held.iter().count() <= 2 * PIECE_DATAGRAMS);
        let now = clock::now();
        ring.look(now);
        assert!(!ring.wait_for_call(Duration::ZERO, now));
        ring.look(now + STALE);
        assert!(ring.wait_for_call(Duration::ZERO, now));
        assert!(!ring.wait_for_call(Duration::ZERO, now), "called once");
        let (mut taken, mut seen) = (Datagrams::default(), held.iter().count());
        while ring.take(&mut taken, Duration::ZERO, now) == Taken::Some {
            seen += taken.iter().count();
            taken.clear();
        }
        assert_eq!((seen, ring.waiting_bytes()), (200, 0));
        ring.close();
        assert!(ring.wait_for_call(Duration::ZERO, now));
    }
}
