//! The way of a batch through the durable store: room is taken before anything is written, the tasks are handed over in one
//! call, and the batch is counted and answered when they are on the disk or refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::outcomes::{self, OVERSIZE, Outcomes, Tally};
use crate::side_effect::{Ledger, Refused, SinkNumber, Task};
use crate::ticket::Ticket;

/// Most bytes of records handed to the store that are not on the disk yet. A batch alone may be larger. It is reached when the disk
/// stands still: senders that nobody answers (streams, datagrams) must not fill the memory then.
pub(super) const UNSYNCED_BYTES_MAX: usize = 256 << 20;

/// The store as the pipeline sees it.
pub(super) struct Durable {
    ledger: Arc<dyn Ledger>,
    record_bytes_max: usize,
    outcomes: Arc<Outcomes>,
    unsynced_bytes: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Durable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Durable").field("unsynced_bytes", &self.unsynced_bytes).finish_non_exhaustive()
    }
}

/// Room for the tasks of one batch; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Durable {
    pub(super) fn new(ledger: Arc<dyn Ledger>, record_bytes_max: usize, outcomes: Arc<Outcomes>) -> Self {
        Durable { ledger, record_bytes_max, outcomes, unsynced_bytes: Arc::default() }
    }

    pub(super) fn ledger(&self) -> &dyn Ledger {
        &*self.ledger
    }

    /// Room for a batch whose tasks hold so many bytes of records, the longest one of `longest` bytes, else the reason of the refusal.
    pub(super) fn room(&self, bytes: usize, longest: usize) -> Result<Room, usize> {
        if longest > self.record_bytes_max {
            return Err(OVERSIZE);
        }
        self.ledger.accepting().map_err(outcomes::of_store)?;
        let before = self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { bytes, of: Arc::clone(&self.unsynced_bytes) };
        if before > 0 && before.saturating_add(bytes) > UNSYNCED_BYTES_MAX {
            return Err(outcomes::STORE_BUSY);
        }
        Ok(room)
    }

    /// Hands over the tasks of a batch whose lines are written. Does not block.
    pub(super) fn accept(
        &self,
        tasks: &[(SinkNumber, Task)],
        room: Room,
        tally: Tally,
        ticket: Option<Ticket>,
    ) {
        let outcomes = Arc::clone(&self.outcomes);
        let promise = Promise { outcomes, tally, ticket, kept: Err(Refused::Closed), _room: room };
        self.ledger.accept(tasks, Box::new(move |result| promise.end(result)));
    }
}

/// A batch whose tasks are on their way to the disk. However it goes away, it is counted and answered, and never acked by accident.
struct Promise {
    outcomes: Arc<Outcomes>,
    tally: Tally,
    /// Of the reply, where somebody waits for one.
    ticket: Option<Ticket>,
    /// Whether its tasks are durable; what nobody tells is a refusal.
    kept: Result<(), Refused>,
    _room: Room,
}

impl Promise {
    fn end(mut self, result: Result<(), Refused>) {
        self.kept = result;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        match self.kept {
            Ok(()) => self.outcomes.count_tally(&self.tally),
            Err(refused) => {
                self.outcomes.count_refused(self.tally.frames, outcomes::of_store(refused));
                if let Some(ticket) = self.ticket.take() {
                    ticket.refuse();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use crate::pipeline::outcomes::STORE_BUSY;
    use crate::side_effect::testing::MemoryLedger;

    #[test]
    fn what_waits_for_the_disk_is_bounded_but_one_batch_may_be_large() {
        let outcomes = Arc::new(Outcomes::new(&Registry::new(), &[]));
        let ledger = Arc::new(MemoryLedger::default());
        let store = Durable::new(Arc::clone(&ledger) as Arc<dyn Ledger>, 100, outcomes);
        assert_eq!(store.room(101, 101).map(drop), Err(OVERSIZE));
        let large = store.room(UNSYNCED_BYTES_MAX + 1, 100).expect("alone");
        assert_eq!(store.room(1, 1).map(drop), Err(STORE_BUSY));
        drop(large);
        let half = store.room(UNSYNCED_BYTES_MAX / 2, 1).expect("room");
        let other = store.room(UNSYNCED_BYTES_MAX / 2, 1).expect("room");
        assert_eq!(store.room(1, 1).map(drop), Err(STORE_BUSY));
        drop((half, other));
        assert_eq!(store.unsynced_bytes.load(Ordering::Relaxed), 0);
        for (refused, reason) in [(Refused::Full, 3), (Refused::Broken, 4), (Refused::Closed, 5)] {
            ledger.refuse(Some(refused));
            assert_eq!(store.room(1, 1).map(drop), Err(reason));
        }
    }
}
