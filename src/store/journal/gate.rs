//! Group commit: how threads hand their appends to the one that syncs for all.
//!
//! One thread at a time leads. It takes the oldest batch, has it written and synced without a lock, publishes the result, runs the
//! answers, and looks for the next batch before it gives the lead back, under the same lock under which others look whether somebody
//! leads: what is appended is either seen by the leader or by its appender.
//!
//! `tests/loom.rs` compiles this file with loom's primitives and tries every interleaving.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Arc, Condvar, Mutex, MutexGuard};
use super::{Done, Refused};

/// What the journal keeps under the same lock.
pub(crate) trait Book {
    /// The bytes of a batch.
    type Payload;
    /// The batch is durable.
    fn settle(&mut self, payload: &Self::Payload);
    /// Everything that is not durable is void; nothing is waiting any more.
    fn rewind(&mut self, stopped: bool);
}

/// Appends that become durable together.
pub(crate) struct Batch<P> {
    pub(crate) payload: P,
    /// Sequence number behind its last record.
    pub(crate) upto: u64,
    pub(crate) dones: Vec<Done>,
}

/// Everything under the lock.
pub(crate) struct State<B: Book> {
    leading: bool,
    /// Batches that wait, oldest first.
    pub(crate) queue: VecDeque<Batch<B::Payload>>,
    /// The batch that is being written.
    pub(crate) inflight: Option<Arc<B::Payload>>,
    /// Sequence number of the next record.
    pub(crate) next: u64,
    /// All records with lower sequence numbers are durable.
    pub(crate) durable: u64,
    /// Why nothing is appended.
    pub(crate) stopped: Option<Refused>,
    pub(crate) book: B,
}

/// Why a batch did not become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What those who wait are told.
    pub(crate) refused: Refused,
    /// Whether nothing may be appended until the fault is over.
    pub(crate) stop: bool,
}

/// Makes a batch durable: gets the batch and how far the journal was durable when it was taken.
type Perform<'a, P> = &'a mut dyn FnMut(&P, u64) -> Result<(), Failure>;

/// How a call of [`Gate::commit`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// Another thread leads, or there was nothing to do.
    Idle,
    /// Nothing is left.
    Finished,
    /// The turns are used up and something is left: somebody else has to go on.
    Left,
}

/// A batch that is being committed.
struct Job<P> {
    payload: Arc<P>,
    upto: u64,
    dones: Vec<Done>,
    /// How far the journal was durable when the batch was taken.
    durable: u64,
}

/// The lock and the lead.
pub(crate) struct Gate<B: Book> {
    state: Mutex<State<B>>,
    #[cfg(test)]
    pub(crate) seed: Option<GateSeed>,
}

/// Faults of the hand-off that its model has to find.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GateSeed {
    /// The lead is given back after the lock under which the queue was seen empty.
    LostWakeup,
    /// The result is published before the sync.
    PublishBeforeSync,
    /// All that was appended until the end of the sync is said to be durable.
    WrongUpto,
    /// A failed sync is answered as a good one.
    SwallowedError,
}

impl<B: Book> Gate<B> {
    /// A gate to `book`; the next record has sequence number `next`, all before it are durable.
    pub(crate) fn new(book: B, next: u64) -> Gate<B> {
        let state = State {
            leading: false,
            queue: VecDeque::new(),
            inflight: None,
            next,
            durable: next,
            stopped: None,
            book,
        };
        Gate {
            state: Mutex::new(state),
            #[cfg(test)]
            seed: None,
        }
    }

    /// Takes the lock, which must not be held while anything is waited for.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits up to `turns` batches with `perform`, which gets the batch and how far the journal was durable when it was taken, unless another
    /// thread leads. `perform` runs without the lock; so do the answers, in order of the appends.
    pub(crate) fn commit(&self, turns: usize, perform: Perform<'_, B::Payload>) -> Turned {
        let mut state = self.lock();
        if state.leading {
            return Turned::Idle;
        }
        let Some(mut job) = take(&mut state) else { return Turned::Idle };
        state.leading = true;
        drop(state);
        for turn in 1.. {
            self.turn(job, perform);
            let mut state = self.lock();
            if turn < turns
                && let Some(next) = take(&mut state)
            {
                job = next;
                continue;
            }
            let left = !state.queue.is_empty();
            #[cfg(test)]
            let mut state = if self.seed == Some(GateSeed::LostWakeup) {
                drop(state);
                self.lock()
            } else {
                state
            };
            state.leading = false;
            return if left { Turned::Left } else { Turned::Finished };
        }
        Turned::Finished
    }

    fn turn(&self, job: Job<B::Payload>, perform: Perform<'_, B::Payload>) {
        #[cfg(test)]
        if self.seed == Some(GateSeed::PublishBeforeSync) {
            let (payload, durable) = (Arc::clone(&job.payload), job.durable);
            let dones = publish(&mut self.lock(), job, Ok(()));
            answer(dones, Ok(()));
            let _ = perform(&payload, durable);
            return;
        }
        let result = perform(&job.payload, job.durable);
        #[cfg(test)]
        let result = if self.seed == Some(GateSeed::SwallowedError) { Ok(()) } else { result };
        let mut state = self.lock();
        #[cfg(test)]
        let job = if self.seed == Some(GateSeed::WrongUpto) { wrong_upto(&mut state, job) } else { job };
        let dones = publish(&mut state, job, result);
        drop(state);
        answer(dones, result.map_err(|failure| failure.refused));
    }

    /// Takes the lead without a batch, for work on the files that must not run beside a commit; `false` when somebody has it.
    pub(crate) fn claim(&self) -> bool {
        let mut state = self.lock();
        !std::mem::replace(&mut state.leading, true)
    }

    /// Gives the lead back, with `change` made under the same lock.
    pub(crate) fn release<T>(&self, change: impl FnOnce(&mut State<B>) -> T) -> T {
        let mut state = self.lock();
        state.leading = false;
        change(&mut state)
    }
}

fn take<B: Book>(state: &mut State<B>) -> Option<Job<B::Payload>> {
    let batch = state.queue.pop_front()?;
    let payload = Arc::new(batch.payload);
    state.inflight = Some(Arc::clone(&payload));
    Some(Job { payload, upto: batch.upto, dones: batch.dones, durable: state.durable })
}

/// Enters the result; the answers to be given.
fn publish<B: Book>(state: &mut State<B>, job: Job<B::Payload>, result: Result<(), Failure>) -> Vec<Done> {
    state.inflight = None;
    let mut dones = job.dones;
    match result {
        Ok(()) => {
            state.durable = job.upto;
            state.book.settle(&job.payload);
        }
        Err(failure) => {
            for batch in state.queue.drain(..) {
                dones.extend(batch.dones);
            }
            state.next = state.durable;
            if failure.stop && state.stopped != Some(Refused::Closed) {
                state.stopped = Some(failure.refused);
            }
            state.book.rewind(failure.stop);
        }
    }
    dones
}

fn answer(dones: Vec<Done>, result: Result<(), Refused>) {
    for done in dones {
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            log::error!("an answer to an append has panicked; the journal goes on");
        }
    }
}

#[cfg(test)]
fn wrong_upto<B: Book>(state: &mut State<B>, mut job: Job<B::Payload>) -> Job<B::Payload> {
    for batch in &mut state.queue {
        job.dones.append(&mut batch.dones);
    }
    job.upto = state.next;
    job
}

/// Wakes the keeper.
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn new() -> Bell {
        Bell { rung: Mutex::new(false), heard: Condvar::new() }
    }

    /// Wakes the one that waits, or has the next wait return at once.
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Waits for a ring, at most for `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = if *rung {
            rung
        } else {
            self.heard.wait_timeout(rung, limit).unwrap_or_else(PoisonError::into_inner).0
        };
        *rung = false;
    }
}
