//! A sink's side of the durable store: its queue is filled from there, oldest first; tasks that have grown too old are given up,
//! tried or not; what is left at the end goes back.
//!
//! The queue is read ahead of the workers and never holds more than it may; the rest waits on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::TrySendError;

use super::ledger::Ledger;
use super::queue::{Job, QUEUE_BYTES_MAX, Shared};
use super::retry::{Class, GiveUp};
use super::task::{End, Task};
use super::worker::Gate;
use crate::clock;
use crate::sink::DeliveryError;

/// Tasks read at a time: what a worker does before it goes on sending.
const REFILL_TASKS_MAX: usize = 64;

/// Longest time between two looks at how old the waiting tasks are, so that a clock that was set is noticed.
const EXPIRY_LOOK_MAX: Duration = Duration::from_secs(60);

impl Shared {
    /// So few that it is time to read on.
    fn runs_low(&self) -> bool {
        self.rx.len() <= self.capacity / 2
    }

    /// The store has tasks of this sink to be taken.
    pub(super) fn pending_came(&self) {
        // A worker that takes from a queue that runs low looks anyway.
        if self.runs_low() {
            self.wake_all();
        }
    }

    /// Reads tasks from the store when the queue runs low. Blocks for the reads; one worker at a time does it.
    pub(super) fn refill(&self) {
        let Some(ledger) = &self.ledger else { return };
        if !self.runs_low() || ledger.pending(self.number) == 0 || self.is_closed() {
            return;
        }
        let Some(_filling) = self.filling.try_lock() else { return };
        for _ in 0..REFILL_TASKS_MAX {
            let full = self.rx.len() >= self.capacity || self.bytes.load(Ordering::SeqCst) >= QUEUE_BYTES_MAX;
            if full {
                return;
            }
            let Some(task) = ledger.take(self.number) else { return };
            self.meters.accepted.inc();
            self.bytes.fetch_add(task.record.len(), Ordering::SeqCst);
            let job = Job { attempts: task.attempts_made, task, not_before: None };
            if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = self.try_queue(job) {
                // The drain has begun.
                return self.keep(ledger, &job);
            }
        }
    }

    /// Gives a task back to the store; it stays pending there, and comes back when its time has come.
    pub(super) fn keep(&self, ledger: &Arc<dyn Ledger>, job: &Job) {
        self.bytes.fetch_sub(job.task.record.len(), Ordering::SeqCst);
        self.meters.returned.inc();
        ledger.returned(self.number, &job.task);
    }

    /// When a task is given up: fixed at acceptance, or by the sink's limit where it was not.
    pub(super) fn expires_at(&self, task: &Task) -> Option<SystemTime> {
        task.expires_at.or_else(|| self.limits.expires_at(task.accepted_at))
    }

    /// Whether a task of the store is too old for a further attempt.
    pub(super) fn is_late(&self, task: &Task, wall: SystemTime) -> bool {
        self.ledger.is_some() && self.expires_at(task).is_some_and(|at| at <= wall)
    }

    /// A task of the store that is too old: the head of the queue or a deferred one.
    pub(super) fn take_late(&self, gate: &mut Gate) -> Option<Job> {
        self.ledger.as_ref()?;
        let wall = clock::wall();
        gate.take_late(|| self.rx.try_recv().ok(), |job| self.is_late(&job.task, wall))
    }

    /// `until`, or the time at which the next waiting task gets too old, whichever is first.
    pub(super) fn or_expiry(&self, gate: &Gate, now: Instant, until: Option<Instant>) -> Option<Instant> {
        let next = gate.waiting().filter_map(|job| self.expires_at(&job.task)).min();
        let wall = clock::wall();
        let left = |at: SystemTime| at.duration_since(wall).unwrap_or_default().min(EXPIRY_LOOK_MAX);
        until.into_iter().chain(next.map(|at| now + left(at))).min()
    }

    /// Gives up a task that is too old, whether it was ever tried or not.
    pub(super) fn expire(&self, job: &Job) {
        let error = DeliveryError::new(Class::Transient, "older than async.retry.max_age allows");
        self.say_failed(job, GiveUp::Expired.label(), &error, clock::now());
        self.end(job, &End::Failed { attempts: job.attempts, reason: GiveUp::Expired, error: &error });
    }
}
