//! One sink's door: a bounded queue, and the waiting room before it.
//!
//! [`SinkQueue::submit`] never blocks: it touches the bounded channel and, with `enqueue_mode: wait` and a full queue, a lock
//! that is only ever held for moving one task. With a durable store nobody submits: the workers fill the queue from there
//! (`backlog`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::digest::Digest;
use super::ledger::{Ledger, SinkNumber};
use super::meters::Meters;
use super::pace::Destination;
use super::retry::{Limits, Policy};
use super::task::{DropReason, End, Submitted, Task};
use super::worker::Gate;
use crate::config::EnqueueMode;
use crate::sink::Sink;
use crate::ticket::Ticket;
use crate::{clock, metrics};

/// Tasks that may wait for room in one sink's queue, with their parked replies.
pub const WAITING_ROOM_TASKS_MAX: usize = 1024;
/// Bytes of records that one sink may hold, in its queue and beside it. One record alone may be larger.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Longest time that a delivery, or the waiting for room, may be given.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A task on its way through this process.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) task: Task,
    /// Attempts made, over all processes.
    pub(super) attempts: u32,
    /// Not to be tried again before; `None` for one that was not tried here.
    pub(super) not_before: Option<Instant>,
}

struct Waiting {
    job: Job,
    deadline: Instant,
    ticket: Ticket,
}

/// What a sink's queue and workers share.
pub(super) struct Shared {
    pub(super) number: SinkNumber,
    pub(super) name: String,
    pub(super) group: Arc<str>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) destination: Arc<Destination>,
    pub(super) ledger: Option<Arc<dyn Ledger>>,
    /// With a ledger it has no limits: those of a task were fixed when it was accepted.
    pub(super) policy: Policy,
    /// What a task accepted now is given.
    pub(super) limits: Limits,
    pub(super) timeout: Duration,
    pub(super) meters: Meters,
    pub(super) digest: Option<Digest>,
    pub(super) gate: Mutex<Gate>,
    /// One for each worker: told of any change that a waiting worker should look at. One place is enough, since it looks at everything.
    pub(super) wakes: Vec<(Sender<()>, Receiver<()>)>,
    mode: EnqueueMode,
    enqueue_timeout: Duration,
    /// Gone once the sink takes nothing more.
    tx: ArcSwapOption<Sender<Job>>,
    pub(super) rx: Receiver<Job>,
    room: Mutex<VecDeque<Waiting>>,
    room_len: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    pub(super) capacity: usize,
    /// Held by the worker that fills the queue from the ledger; the others do not wait for it.
    pub(super) filling: Mutex<()>,
    /// Tells the timer that a deadline has appeared.
    timer: Option<Sender<()>>,
    /// A reload has put another sink, or none, in its place.
    pub(super) retired: AtomicBool,
}

/// What a sink is built from.
pub(super) struct Parts {
    pub(super) number: SinkNumber,
    pub(super) name: String,
    pub(super) group: Arc<str>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) destination: Arc<Destination>,
    pub(super) ledger: Option<Arc<dyn Ledger>>,
    pub(super) policy: Policy,
    pub(super) digest: Option<Digest>,
    pub(super) timer: Option<Sender<()>>,
    /// Sinks of the same name that may still have tasks.
    pub(super) before: Vec<Weak<Shared>>,
}

/// Where a sink's tasks are; at rest, `accepted` is the sum of all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Counts {
    pub accepted: u64,
    pub delivered: u64,
    pub dropped: u64,
    pub failed: u64,
    pub queued: u64,
    pub waiting_for_room: u64,
    pub waiting_for_attempt: u64,
    pub in_flight: u64,
    /// Given back to the durable store, where they stay pending; accepted once more when they are read again.
    pub kept: u64,
}

impl Counts {
    /// Whether every accepted task is accounted for.
    pub fn add_up(&self) -> bool {
        let ended = self.delivered + self.dropped + self.failed + self.kept;
        self.accepted
            == ended + self.queued + self.waiting_for_room + self.waiting_for_attempt + self.in_flight
    }
}

impl Shared {
    pub(super) fn new(
        parts: Parts,
        settings: &crate::config::SideEffects,
        registry: &metrics::Registry,
    ) -> Arc<Shared> {
        let capacity = settings.queue_size.max(1);
        let (tx, rx) = bounded(capacity);
        let limits = parts.policy.limits();
        let (policy, mode) = match parts.ledger {
            Some(_) => (parts.policy.without_limits(), EnqueueMode::Drop),
            None => (parts.policy, settings.enqueue_mode),
        };
        let shared = Arc::new(Shared {
            meters: Meters::new(registry, &parts.name, capacity),
            number: parts.number,
            name: parts.name,
            group: parts.group,
            sink: parts.sink,
            destination: parts.destination,
            ledger: parts.ledger,
            policy,
            limits,
            timeout: settings.timeout.min(TIMEOUT_MAX),
            digest: parts.digest,
            gate: Mutex::new(Gate::default()),
            wakes: (0..settings.workers).map(|_| bounded(1)).collect(),
            mode,
            enqueue_timeout: settings.enqueue_timeout.min(TIMEOUT_MAX),
            tx: ArcSwapOption::from_pointee(tx),
            rx,
            room: Mutex::new(VecDeque::new()),
            room_len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            capacity,
            filling: Mutex::new(()),
            timer: parts.timer,
            retired: AtomicBool::new(false),
        });
        let mut all = parts.before;
        all.push(Arc::downgrade(&shared));
        registry.gauge_fn(&metrics::QUEUE_LENGTH, &[&shared.name], move || {
            let waiting = |shared: Arc<Shared>| {
                let c = shared.counts();
                (c.queued + c.waiting_for_room + c.waiting_for_attempt) as f64
            };
            all.iter().filter_map(Weak::upgrade).map(waiting).sum()
        });
        if let Some(ledger) = &shared.ledger {
            let (ledger, number) = (Arc::downgrade(ledger), shared.number);
            registry.gauge_fn(&metrics::TASKS_STORED, &[&shared.name], move || {
                ledger.upgrade().map_or(0.0, |ledger| ledger.pending(number) as f64)
            });
        }
        shared
    }

    pub(super) fn counts(&self) -> Counts {
        let gate = self.gate.lock();
        Counts {
            accepted: self.meters.accepted.get(),
            delivered: self.meters.delivered.get(),
            dropped: self.meters.dropped.get(),
            failed: self.meters.failed.get(),
            queued: self.rx.len() as u64 + u64::from(gate.has_front()),
            waiting_for_room: self.room_len.load(Ordering::SeqCst) as u64,
            waiting_for_attempt: gate.deferred_len() as u64,
            in_flight: u64::try_from(self.meters.in_flight.get()).unwrap_or(0),
            kept: self.meters.returned.get(),
        }
    }

    fn submit(&self, task: Task, ticket: &mut dyn FnMut() -> Ticket) -> Submitted {
        debug_assert!(self.ledger.is_none(), "with a ledger, tasks go there");
        self.meters.accepted.inc();
        let len = task.record.len();
        let before = self.bytes.fetch_add(len, Ordering::SeqCst);
        let job = Job { attempts: task.attempts_made, task, not_before: None };
        if before > 0 && before.saturating_add(len) > QUEUE_BYTES_MAX {
            return self.dropped(&job, DropReason::QueueBytes);
        }
        let job = match (self.mode, self.room_len.load(Ordering::SeqCst)) {
            // Those that wait already come first.
            (EnqueueMode::Wait, 1..) => job,
            _ => match self.try_queue(job) {
                Ok(()) => return Submitted::Queued,
                Err(TrySendError::Full(job)) => job,
                Err(TrySendError::Disconnected(job)) => return self.dropped(&job, self.end_reason()),
            },
        };
        match self.mode {
            EnqueueMode::Drop => self.dropped(&job, DropReason::QueueFull),
            EnqueueMode::Wait => self.wait_for_room(job, ticket),
        }
    }

    #[allow(clippy::result_large_err, reason = "the channel gives the task back, which is moved on at once")]
    pub(super) fn try_queue(&self, job: Job) -> Result<(), TrySendError<Job>> {
        match &*self.tx.load() {
            Some(tx) => tx.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        }
    }

    fn wait_for_room(&self, mut job: Job, ticket: &mut dyn FnMut() -> Ticket) -> Submitted {
        let mut room = self.room.lock();
        if room.is_empty() {
            // Once more, under the lock: a worker that makes room from here on will find the task in the waiting room.
            job = match self.try_queue(job) {
                Ok(()) => return Submitted::Queued,
                Err(TrySendError::Full(job)) => job,
                Err(TrySendError::Disconnected(job)) => {
                    drop(room);
                    return self.dropped(&job, self.end_reason());
                }
            };
        }
        if room.len() >= WAITING_ROOM_TASKS_MAX {
            drop(room);
            return self.dropped(&job, DropReason::WaitingRoomFull);
        }
        let deadline = clock::now() + self.enqueue_timeout;
        room.push_back(Waiting { job, deadline, ticket: ticket() });
        self.room_len.store(room.len(), Ordering::SeqCst);
        let first = room.len() == 1;
        drop(room);
        if first && let Some(timer) = &self.timer {
            // Full means that the timer is about to look anyway.
            let _ = timer.try_send(());
        }
        Submitted::Waiting
    }

    /// The next task of the queue, or `None`. The place that it leaves goes to the oldest one in the waiting room; the caller drops the
    /// tickets of those that left it, which go to `freed`, when it holds no lock, since the last clone of one sends a reply.
    pub(super) fn take(&self, freed: &mut Vec<Ticket>) -> Option<Job> {
        let mut job = self.rx.try_recv().ok();
        if self.mode == EnqueueMode::Drop {
            return job;
        }
        let mut room = self.room.lock();
        while let Some(waiting) = room.pop_front() {
            let Waiting { job: next, deadline, ticket } = waiting;
            if job.is_none() {
                job = Some(next);
                freed.push(ticket);
                continue;
            }
            match self.try_queue(next) {
                Ok(()) => freed.push(ticket),
                Err(TrySendError::Full(next) | TrySendError::Disconnected(next)) => {
                    room.push_front(Waiting { job: next, deadline, ticket });
                    break;
                }
            }
        }
        self.room_len.store(room.len(), Ordering::SeqCst);
        job
    }

    /// Whether neither the queue nor the waiting room holds a task.
    pub(super) fn is_empty(&self) -> bool {
        self.rx.is_empty() && self.room_len.load(Ordering::SeqCst) == 0
    }

    /// Drops what waited too long for room. Returns the next deadline.
    pub(super) fn expire_waiting(&self, now: Instant) -> Option<Instant> {
        let mut late = Vec::new();
        let mut room = self.room.lock();
        while room.front().is_some_and(|w| w.deadline <= now) {
            late.extend(room.pop_front());
        }
        self.room_len.store(room.len(), Ordering::SeqCst);
        let next = room.front().map(|w| w.deadline);
        drop(room);
        for waiting in late {
            self.dropped(&waiting.job, DropReason::EnqueueTimeout);
            drop(waiting.ticket);
        }
        next
    }

    /// Counts a task as lost.
    pub(super) fn dropped(&self, job: &Job, reason: DropReason) -> Submitted {
        self.meters.drop_one(reason);
        if !matches!(reason, DropReason::Shutdown | DropReason::Reload)
            && let Some(digest) = &self.digest
        {
            digest.count(1, clock::now());
        }
        self.ended(job, &End::Dropped(reason));
        Submitted::Dropped(reason)
    }

    /// Gives back what an ended task held, and tells the store.
    pub(super) fn ended(&self, job: &Job, end: &End<'_>) {
        self.bytes.fetch_sub(job.task.record.len(), Ordering::SeqCst);
        if let Some(ledger) = &self.ledger {
            ledger.ended(self.number, &job.task, end);
        }
    }

    /// Why tasks are dropped that a drain leaves.
    pub(super) fn end_reason(&self) -> DropReason {
        if self.retired.load(Ordering::SeqCst) { DropReason::Reload } else { DropReason::Shutdown }
    }

    /// Takes nothing more from here on.
    pub(super) fn close(&self) {
        self.tx.store(None);
    }

    /// Takes nothing more.
    pub(super) fn is_closed(&self) -> bool {
        self.tx.load().is_none()
    }

    /// Drops all that is left after the workers have gone; with a ledger, gives it back.
    pub(super) fn sweep(&self) {
        let mut left = self.gate.lock().take_waiting();
        let waiting = std::mem::take(&mut *self.room.lock());
        self.room_len.store(0, Ordering::SeqCst);
        // The channel says "disconnected" when the last submit that was under way has ended.
        while let Ok(job) = self.rx.recv_timeout(Duration::from_secs(1)) {
            left.push(job);
        }
        for job in left.iter().chain(waiting.iter().map(|w| &w.job)) {
            match &self.ledger {
                Some(ledger) => self.keep(ledger, job),
                None => drop(self.dropped(job, self.end_reason())),
            }
        }
    }
}

/// One sink as the request path sees it.
#[derive(Clone)]
pub struct SinkQueue {
    pub(super) shared: Arc<Shared>,
}

impl SinkQueue {
    /// `GROUP/slack`, `GROUP/forward` and so on: the value of the `sink` label.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The rule group whose records go here.
    pub fn group(&self) -> &str {
        &self.shared.group
    }

    /// Hands a task over. Never blocks. Not for a program with a ledger, which takes the tasks itself ([`SinkQueue::to_store`]).
    /// `ticket` is asked for exactly when the answer is [`Submitted::Waiting`]; that clone goes away when the task has got into the
    /// queue or was dropped because its time was up.
    pub fn submit(&self, task: Task, ticket: &mut dyn FnMut() -> Ticket) -> Submitted {
        self.shared.submit(task, ticket)
    }

    /// The task as the ledger is to take it in: under this sink's number, with the limits that the configuration gives it now and
    /// that it keeps for ever.
    pub fn to_store(&self, mut task: Task) -> (SinkNumber, Task) {
        task.attempts_max = self.shared.limits.attempts_max;
        task.expires_at = self.shared.limits.expires_at(task.accepted_at);
        (self.shared.number, task)
    }

    /// Where this sink's tasks are. Not one instant's picture while workers are busy.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Whether it takes deliveries, as far as is known.
    pub fn is_up(&self) -> bool {
        self.shared.meters.up.get() == 1
    }

    /// Bound of the queue, in tasks.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Tasks that wait in the durable store only; `None` without one.
    pub fn stored(&self) -> Option<u64> {
        self.shared.ledger.as_ref().map(|ledger| ledger.pending(self.shared.number) as u64)
    }
}

impl std::fmt::Debug for SinkQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SinkQueue").field(&self.shared.name).finish()
    }
}
