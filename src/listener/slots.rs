//! The fixed table of connections.
//!
//! Each connection has a slot with a mutex of its own, which one pool thread at a time holds while it serves the connection. What
//! the periodic sweep, eviction and parked replies need to know without that mutex stands beside it in atomics.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::conn::Conn;

/// What a connection is doing; with the time since when, this decides its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No connection.
    Free,
    /// HTTP: nothing of a request has come.
    Idle,
    /// Stream: between lines.
    Quiet,
    /// HTTP: within a head.
    Head,
    /// HTTP: within a body.
    Body,
    /// Stream: within a line.
    Line,
    /// A reply waits for the peer to read.
    Write,
    /// A parked reply, or a stream that waits for its ticket.
    Parked,
    /// The last reply is out; what the peer still sends is discarded.
    Linger,
    /// A stream that is not read until there is room in the buffers.
    Paused,
    /// TLS: from the beginning of the connection to the end of the handshake.
    Handshake,
}

const PHASES: [Phase; 11] = [
    Phase::Free,
    Phase::Idle,
    Phase::Quiet,
    Phase::Head,
    Phase::Body,
    Phase::Line,
    Phase::Write,
    Phase::Parked,
    Phase::Linger,
    Phase::Paused,
    Phase::Handshake,
];

/// Names a connection for as long as it lives: index of its slot and generation. Also the epoll token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnId {
    pub index: u32,
    pub generation: u32,
}

impl ConnId {
    pub(super) fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn of_token(token: u64) -> Self {
        ConnId { index: token as u32, generation: (token >> 32) as u32 }
    }
}

/// The part of a slot behind its mutex.
#[derive(Default)]
pub(super) struct Inside {
    /// Counts the connections that this slot has held.
    pub generation: u32,
    pub conn: Option<Box<Conn>>,
}

/// One place for a connection.
#[derive(Default)]
pub(super) struct Slot {
    inside: Mutex<Inside>,
    /// Phase in the low four bits, milliseconds of its beginning above.
    stamp: AtomicU64,
    /// How many connections had been admitted before this one: who came first where the milliseconds cannot tell.
    order: AtomicU64,
    /// Its connection has brought a request or a line, in this process or the one before, or has made a TLS handshake.
    has_sent: AtomicBool,
    /// The state of the parked reply: see `park`.
    pub park: AtomicU64,
}

impl Slot {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock()
    }

    /// For those who must not wait: somebody who holds it is serving the connection.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Inside>> {
        self.inside.try_lock()
    }

    /// Somebody holds the mutex.
    pub(super) fn is_locked(&self) -> bool {
        self.inside.is_locked()
    }

    /// Phase and its beginning.
    pub(super) fn phase(&self) -> (Phase, u64) {
        let stamp = self.stamp.load(Ordering::Relaxed);
        (PHASES[(stamp & 15) as usize % PHASES.len()], stamp >> 4)
    }

    /// The place of its connection in the order of admission.
    pub(super) fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    /// A new connection, with its place in the order of admission.
    pub(super) fn begin(&self, order: u64, has_sent: bool) {
        self.order.store(order, Ordering::Relaxed);
        self.has_sent.store(has_sent, Ordering::Relaxed);
    }

    /// Whether its connection has brought anything yet.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent.load(Ordering::Relaxed)
    }

    /// It has.
    pub(super) fn set_has_sent(&self) {
        if !self.has_sent() {
            self.has_sent.store(true, Ordering::Relaxed);
        }
    }

    /// Enters `phase`; its clock goes on if the connection was in it already.
    pub(super) fn enter(&self, phase: Phase, now_ms: u64) {
        if self.phase().0 != phase {
            self.enter_anew(phase, now_ms);
        }
    }

    /// Enters `phase` with a fresh clock.
    pub(super) fn enter_anew(&self, phase: Phase, now_ms: u64) {
        self.stamp.store(now_ms << 4 | phase as u64, Ordering::Relaxed);
    }
}

/// All slots.
pub(super) struct Slots {
    slots: Box<[Slot]>,
    /// Held for a push or pop only.
    free: Mutex<Vec<u32>>,
    open: AtomicUsize,
    admitted: AtomicU64,
}

impl Slots {
    pub(super) fn new(connections_max: usize) -> Self {
        // Bit 31 marks tokens of listeners.
        let count = connections_max.clamp(1, 1 << 30);
        Slots {
            slots: (0..count).map(|_| Slot::default()).collect(),
            free: Mutex::new((0..count as u32).rev().collect()),
            open: AtomicUsize::new(0),
            admitted: AtomicU64::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The next place in the order of admission.
    pub(super) fn next_order(&self) -> u64 {
        self.admitted.fetch_add(1, Ordering::Relaxed)
    }

    /// How many hold a connection.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(self.slots.iter())
    }

    /// A free slot's index, taken out of the free list.
    pub(super) fn take_free(&self) -> Option<u32> {
        let index = self.free.lock().pop()?;
        self.open.fetch_add(1, Ordering::SeqCst);
        Some(index)
    }

    /// Gives an index back. Its connection is gone and its generation advanced.
    pub(super) fn give_back(&self, index: u32) {
        self.free.lock().push(index);
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_survive_packing_and_keep_their_beginning() {
        let slot = Slot::default();
        assert_eq!(slot.phase(), (Phase::Free, 0));
        for phase in PHASES {
            slot.enter_anew(phase, 12_345);
            slot.enter(phase, 99_999);
            assert_eq!(slot.phase(), (phase, 12_345));
        }
        slot.enter(Phase::Idle, 99_999);
        assert_eq!(slot.phase(), (Phase::Idle, 99_999));
    }

    #[test]
    fn tokens_name_index_and_generation() {
        let id = ConnId { index: 77, generation: u32::MAX };
        assert_eq!(ConnId::of_token(id.token()), id);
    }

    #[test]
    fn indices_are_given_out_once() {
        let slots = Slots::new(3);
        let mut taken: Vec<u32> = std::iter::from_fn(|| slots.take_free()).collect();
        taken.sort_unstable();
        assert_eq!((taken, slots.open()), (vec![0, 1, 2], 3));
        slots.give_back(1);
        assert_eq!((slots.open(), slots.take_free(), slots.take_free()), (2, Some(1), None));
    }
}
