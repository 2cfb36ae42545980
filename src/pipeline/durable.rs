//! The way of a batch through the durable store: room is taken before anything is written, the tasks are handed over in one
//! call, and the batch is counted and answered when they are on the disk or refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::outcomes::{self, OVERSIZE, Outcomes, Tally};
use crate::clock;
use crate::side_effect::{Ledger, Refused, SinkNumber, Task};
use crate::ticket::Ticket;

/// What a task takes in the store beside its record, at most: names, times, framing.
const TASK_BYTES: usize = 512;

/// For how long a refusal says that the store takes nothing, when nothing was accepted since. A store can be too full for the records that
/// come and not yet for the smallest one.
const REFUSAL_COUNTS: Duration = Duration::from_secs(10);

/// When the store has last refused something, unless it has accepted something since.
pub(super) struct LastRefusal {
    base: Instant,
    /// Milliseconds from `base`, plus one; 0: never, or accepted since.
    at_ms: AtomicU64,
    /// What was refused: only a batch that is as large shows that there is room again.
    bytes: AtomicUsize,
}

impl LastRefusal {
    fn new() -> Self {
        LastRefusal { base: clock::now(), at_ms: AtomicU64::new(0), bytes: AtomicUsize::new(0) }
    }

    fn note(&self, accepted: bool, bytes: usize) {
        if !accepted {
            self.bytes.store(bytes, Ordering::Relaxed);
            self.at_ms.store(self.ms(clock::now()) + 1, Ordering::Relaxed);
        } else if self.at_ms.load(Ordering::Relaxed) != 0 && bytes >= self.bytes.load(Ordering::Relaxed) {
            self.at_ms.store(0, Ordering::Relaxed);
        }
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.base).as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn is_recent(&self, now: Instant) -> bool {
        let at_ms = self.at_ms.load(Ordering::Relaxed);
        at_ms != 0 && u128::from(self.ms(now).saturating_sub(at_ms - 1)) < REFUSAL_COUNTS.as_millis()
    }
}

/// The store as the pipeline sees it.
pub(super) struct Durable {
    ledger: Arc<dyn Ledger>,
    /// Longest record, and most that the tasks of one batch may take together: they stand next to each other.
    batch_bytes_max: usize,
    outcomes: Arc<Outcomes>,
    unsynced_bytes: Arc<AtomicUsize>,
    last_refusal: Arc<LastRefusal>,
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

impl Room {
    /// Room of so many bytes out of this one, at most all of it.
    pub(super) fn split(&mut self, bytes: usize) -> Room {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Room { bytes, of: Arc::clone(&self.of) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Durable {
    pub(super) fn new(ledger: Arc<dyn Ledger>, batch_bytes_max: usize, outcomes: Arc<Outcomes>) -> Self {
        Durable {
            ledger,
            batch_bytes_max,
            outcomes,
            unsynced_bytes: Arc::default(),
            last_refusal: Arc::new(LastRefusal::new()),
        }
    }

    pub(super) fn ledger(&self) -> &dyn Ledger {
        &*self.ledger
    }

    /// Most that may be on its way to the disk at a time; a batch alone may be larger. It is reached when the disk stands still: senders
    /// that nobody answers (streams, datagrams) must not fill the memory then.
    fn unsynced_bytes_max(&self) -> usize {
        self.batch_bytes_max.saturating_add(self.batch_bytes_max / 2)
    }

    /// Room for a batch of so many tasks, whose records have so many bytes together, else the reason of the refusal.
    pub(super) fn room(&self, record_bytes: usize, tasks: usize) -> Result<Room, usize> {
        let bytes = record_bytes.saturating_add(tasks.saturating_sub(1).saturating_mul(TASK_BYTES));
        if bytes > self.batch_bytes_max {
            return Err(OVERSIZE);
        }
        if let Err(refused) = self.ledger.accepting() {
            self.last_refusal.note(false, bytes);
            return Err(outcomes::of_store(refused));
        }
        let before = self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { bytes, of: Arc::clone(&self.unsynced_bytes) };
        if before > 0 && before.saturating_add(bytes) > self.unsynced_bytes_max() {
            self.last_refusal.note(false, bytes);
            return Err(outcomes::STORE_BUSY);
        }
        Ok(room)
    }

    /// Whether the store takes tasks: asked now, and by what it did with the last ones.
    pub(super) fn check(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let (ledger, last_refusal) = (Arc::clone(&self.ledger), Arc::clone(&self.last_refusal));
        move || match ledger.accepting() {
            Err(refused) => Err(refused.to_string()),
            Ok(()) if last_refusal.is_recent(clock::now()) => Err("the last tasks were refused".to_owned()),
            Ok(()) => Ok(()),
        }
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
        let last_refusal = Arc::clone(&self.last_refusal);
        let promise = Promise { outcomes, tally, ticket, kept: Err(Refused::Closed), last_refusal, room };
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
    last_refusal: Arc<LastRefusal>,
    room: Room,
}

impl Promise {
    fn end(mut self, result: Result<(), Refused>) {
        self.kept = result;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.last_refusal.note(self.kept.is_ok(), self.room.bytes);
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
        let store = Durable::new(Arc::clone(&ledger) as Arc<dyn Ledger>, 10_000, outcomes);
        assert_eq!(store.room(10_001, 1).map(drop), Err(OVERSIZE));
        // Several tasks need room for what comes with each.
        assert_eq!(store.room(10_000, 2).map(drop), Err(OVERSIZE));
        let large = store.room(10_000, 1).expect("as large as can be");
        assert_eq!(store.room(5_001, 1).map(drop), Err(STORE_BUSY));
        let more = store.room(5_000, 1).expect("room");
        assert_eq!(store.room(1, 1).map(drop), Err(STORE_BUSY));
        let mut large = large;
        let part = large.split(4_000);
        assert_eq!((large.bytes, part.bytes, large.split(7_000).bytes), (6_000, 4_000, 6_000));
        drop((large, more, part));
        assert_eq!(store.unsynced_bytes.load(Ordering::Relaxed), 0);
        drop(store.room(9_000, 2).expect("room"));
        let check = store.check();
        assert_eq!(check(), Err("the last tasks were refused".to_owned()));
        let accept = |bytes| {
            store.accept(&[], store.room(bytes, 1).expect("room"), Tally::default(), None);
            ledger.commit();
        };
        // A small one has room; that says nothing of those that were refused.
        accept(0);
        assert_eq!(check(), Err("the last tasks were refused".to_owned()));
        accept(1);
        assert_eq!(check(), Ok(()));
        for (refused, reason) in [(Refused::Full, 3), (Refused::Broken, 4), (Refused::Closed, 5)] {
            ledger.refuse(Some(refused));
            assert_eq!(store.room(1, 1).map(drop), Err(reason));
            assert_eq!(check(), Err(refused.to_string()));
        }
        // It says that it would take something; what came last was refused all the same.
        ledger.refuse(None);
        assert_eq!(check(), Err("the last tasks were refused".to_owned()));
        let refused_at = clock::now();
        assert!(store.last_refusal.is_recent(refused_at));
        assert!(!store.last_refusal.is_recent(refused_at + REFUSAL_COUNTS));
        accept(1);
        assert_eq!(check(), Ok(()));
    }
}
