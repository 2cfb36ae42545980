//! A sink's worker threads: take a task, try it, judge the answer.
//!
//! All decisions are made in [`Shared::next`] under the sink's gate, which is never held during I/O. A worker that may not
//! send waits on the wake channel with a deadline, so it can always be told that something has changed.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select};

use super::queue::{Job, QUEUE_BYTES_MAX, Shared};
use super::retry::{self, Admission, Class, Condition, GiveUp, Health};
use super::task::{End, TaskId};
use crate::clock;
use crate::sink::DeliveryError;
use crate::ticket::Ticket;

/// Tasks that may wait for another attempt beside the queue (and as many more as there are workers). While the sink is down
/// fresh tasks take turns as the probe until so many wait, so that neither an outage nor one poisoned task uses up one task's attempts at once.
pub(super) const DEFERRED_TASKS_MAX: usize = 16;
/// The same with a durable store, to which all others go back until their time comes: a task can have a day of attempts, and its fellows
/// must not wait for it.
pub(super) const DEFERRED_TASKS_MAX_DURABLE: usize = 256;
/// Bytes of the records of these tasks; the rest of what a sink may hold is for those that were not tried yet.
const DEFERRED_BYTES_MAX: usize = QUEUE_BYTES_MAX / 2;
/// How long a sink rests after the store could not write down an attempt; a random half is taken off.
const RESERVE_PAUSE: Duration = Duration::from_millis(500);
/// How often an idle worker asks the store again for a task that it could not read.
const TAKE_AGAIN: Duration = Duration::from_secs(1);
/// Shortest time between two lines of one kind about one sink: failed tasks, dropped tasks, going down.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// What the workers of one sink decide by.
#[derive(Debug, Default)]
pub(super) struct Gate {
    health: Health,
    /// Tasks that wait for another attempt, oldest first.
    deferred: Vec<Job>,
    /// With a ledger: the head of the queue, taken out to see how old it is.
    front: Option<Job>,
    /// Nothing is tried before: the store could not write down an attempt.
    reserve_at: Option<Instant>,
    /// Set once, when the drain begins: when it must end.
    drain_until: Option<Instant>,
    /// With a ledger: what is under way is finished, and nothing else is begun.
    leaving: bool,
    went_down_at: Option<Instant>,
    /// Whether the line that the sink is down was written; then one follows when it is up again.
    down_said: bool,
    down_line: LineLimit,
    failure_line: LineLimit,
    failures_unsaid: u64,
    reserve_line: LineLimit,
    drop_line: LineLimit,
    drops_said: u64,
}

/// Lets a line out at most once in [`LINE_INTERVAL`].
#[derive(Debug, Default)]
struct LineLimit(Option<Instant>);

impl LineLimit {
    fn allows(&mut self, now: Instant) -> bool {
        let allowed = self.0.is_none_or(|at| now.saturating_duration_since(at) >= LINE_INTERVAL);
        if allowed {
            self.0 = Some(now);
        }
        allowed
    }
}

impl Gate {
    pub(super) fn deferred_len(&self) -> usize {
        self.deferred.len()
    }

    /// Whether another task of the store may wait here for its next attempt.
    fn has_room_for(&self, job: &Job) -> bool {
        let bytes: usize = self.deferred.iter().map(|other| other.task.record.len()).sum();
        self.deferred.len() < DEFERRED_TASKS_MAX_DURABLE
            && (bytes == 0 || bytes + job.task.record.len() <= DEFERRED_BYTES_MAX)
    }

    /// Whether the head of the queue has been taken out.
    pub(super) fn has_front(&self) -> bool {
        self.front.is_some()
    }

    /// All that waits outside the queue.
    pub(super) fn take_waiting(&mut self) -> Vec<Job> {
        let mut waiting = std::mem::take(&mut self.deferred);
        waiting.extend(self.front.take());
        waiting
    }

    /// The head of the queue, for which `next` is asked where it is not there yet, if `is_late` says so; else a deferred task of which it
    /// says so.
    pub(super) fn take_late(
        &mut self,
        next: impl FnOnce() -> Option<Job>,
        is_late: impl Fn(&Job) -> bool,
    ) -> Option<Job> {
        if self.front.is_none() {
            self.front = next();
        }
        if self.front.as_ref().is_some_and(&is_late) {
            return self.front.take();
        }
        let at = self.deferred.iter().position(is_late)?;
        Some(self.deferred.remove(at))
    }

    /// Every task that waits outside the queue.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Job> {
        self.front.iter().chain(&self.deferred)
    }

    /// The oldest deferred task of those with the fewest attempts whose time has come.
    fn due(&self, now: Instant) -> Option<usize> {
        let is_due = |job: &Job| job.not_before.is_none_or(|at| at <= now);
        let due = self.deferred.iter().enumerate().filter(|(_, job)| is_due(job));
        due.min_by_key(|(_, job)| job.attempts).map(|(i, _)| i)
    }

    fn next_due_at(&self) -> Option<Instant> {
        self.deferred.iter().filter_map(|job| job.not_before).min()
    }
}

enum Next {
    /// Try this task; the flag says that it is the probe.
    Attempt(Job, bool),
    /// This task is too old for a further attempt.
    Expire(Job),
    /// Tell of so many dropped records.
    Digest(u64, Duration, bool),
    /// Nothing may be sent before this time, whatever comes in.
    Hold(Option<Instant>),
    /// Nothing to send: wait for a task, a change, or this time.
    Idle(Option<Instant>),
    Exit,
}

/// The body of worker thread `number` of a sink. Ends when the sink was closed and nothing is left, or when the drain's time is up.
pub(super) fn run(shared: &Arc<Shared>, number: usize) {
    let wake = &shared.wakes[number].1;
    loop {
        shared.say_drops();
        shared.refill();
        match shared.next() {
            Next::Attempt(job, probe) => shared.attempt(job, probe),
            Next::Expire(job) => shared.expire(&job),
            Next::Digest(dropped, within, probe) => shared.tell_digest(dropped, within, probe),
            Next::Hold(until) => shared.wait(wake, until, false),
            Next::Idle(until) => shared.wait(wake, until, true),
            Next::Exit => return,
        }
    }
}

impl Shared {
    fn next(&self) -> Next {
        let now = clock::now();
        let mut freed = Vec::new();
        let mut gate = self.gate.lock();
        if gate.leaving && self.ledger.is_some() {
            return Next::Exit;
        }
        let next = match self.take_late(&mut gate) {
            Some(job) => Next::Expire(job),
            None => self.decide(now, &mut gate, &mut freed),
        };
        let next = match (next, &self.ledger) {
            (Next::Attempt(job, probe), _) => {
                self.meters.in_flight.add(1);
                Next::Attempt(job, probe)
            }
            (Next::Expire(job), _) => {
                self.meters.in_flight.add(1);
                Next::Expire(job)
            }
            // What cannot be sent now is safe where it is.
            (Next::Hold(_) | Next::Idle(_), Some(_)) if gate.drain_until.is_some() => Next::Exit,
            (Next::Hold(until), Some(_)) => Next::Hold(self.or_expiry(&gate, now, until)),
            (Next::Idle(until), Some(ledger)) => {
                let until = self.or_expiry(&gate, now, until);
                // Where something came since the queue was filled, a wake is there, too.
                let unread = ledger.pending(self.number) > 0;
                Next::Idle(until.into_iter().chain(unread.then_some(now + TAKE_AGAIN)).min())
            }
            (other, _) => other,
        };
        drop(gate);
        drop(freed);
        next
    }

    /// What to do at `now`. The tickets of those who got in by it go to `freed`, to be dropped when the gate is open.
    fn decide(&self, now: Instant, gate: &mut Gate, freed: &mut Vec<Ticket>) -> Next {
        let draining = gate.drain_until;
        let digest_due = self.digest.as_ref().and_then(|d| d.due_at());
        // Looked at once: a task that comes from here on makes the channel ready, and an idle worker waits for that.
        let empty = self.is_empty() && gate.front.is_none();
        if let Some(until) = draining {
            let nothing_left = empty && gate.deferred.is_empty() && digest_due.is_none();
            if nothing_left || now >= until {
                return Next::Exit;
            }
        }
        let sooner = |at: Option<Instant>| at.into_iter().chain(draining).min();
        if gate.reserve_at.is_some_and(|at| at > now) {
            return Next::Hold(sooner(gate.reserve_at));
        }
        let probe = match gate.health.admit(now) {
            Admission::Go => false,
            Admission::Probe => true,
            Admission::Wait(at) => return Next::Hold(sooner(at)),
        };
        // With a store, what finds no place beside the queue goes back there: failed tasks hold nobody back.
        let fresh = !empty && (self.ledger.is_some() || gate.deferred.len() < DEFERRED_TASKS_MAX);
        let due = gate.due(now);
        // The last message of a drain tells what was dropped, without waiting for the window to end.
        let digest_now = digest_due.is_some_and(|at| at <= now || (draining.is_some() && empty));
        if !fresh && due.is_none() && !digest_now {
            return if empty {
                Next::Idle(sooner(gate.next_due_at().into_iter().chain(digest_due).min()))
            } else {
                Next::Hold(sooner(gate.next_due_at()))
            };
        }
        if let Err(at) = self.destination.acquire(now) {
            return Next::Hold(sooner(Some(at)));
        }
        if probe {
            gate.health.probe_starts();
        }
        if digest_now && let Some((dropped, within)) = self.digest.as_ref().and_then(|d| d.take(now)) {
            return Next::Digest(dropped, within, probe);
        }
        // Up: oldest first. Down: a fresh task is the probe, so that the failed ones keep their attempts.
        let job = match due {
            Some(i) if !(probe && fresh) => Some(gate.deferred.remove(i)),
            _ => gate.front.take().or_else(|| self.take(freed)),
        };
        match job {
            Some(job) => Next::Attempt(job, probe),
            None => {
                // What was there a moment ago has just run out of time: look again.
                if probe {
                    gate.health.probe_abandoned();
                }
                Next::Idle(Some(now))
            }
        }
    }

    /// Waits for a change, for `until`, and, with `for_tasks`, for a task in the queue.
    fn wait(&self, wake: &Receiver<()>, until: Option<Instant>, for_tasks: bool) {
        let mut select = Select::new();
        select.recv(wake);
        // A closed queue is always ready; a draining worker is woken by deadlines and changes alone.
        if for_tasks && self.gate.lock().drain_until.is_none() {
            select.recv(&self.rx);
        }
        match until {
            Some(at) => drop(select.ready_deadline(at)),
            None => drop(select.ready()),
        }
        let _ = wake.try_recv();
    }

    /// Makes all waiting workers look again.
    pub(super) fn wake_all(&self) {
        for (wake, _) in &self.wakes {
            let _ = wake.try_send(());
        }
    }

    /// The latest time at which an attempt that starts now must have ended.
    fn deadline(&self, now: Instant) -> Instant {
        let own = now + self.timeout;
        self.gate.lock().drain_until.map_or(own, |until| until.min(own))
    }

    fn attempt(&self, mut job: Job, probe: bool) {
        job.attempts = job.attempts.saturating_add(1);
        if let Some(ledger) = &self.ledger
            && let Err(e) = ledger.reserve(self.number, &job.task, job.attempts)
        {
            return self.not_reserved(job, probe, &e);
        }
        job.task.attempts_made = job.attempts - 1;
        let started = clock::now();
        let deadline = self.deadline(started);
        let result = guarded(|| self.sink.deliver(&job.task, deadline));
        let now = clock::now();
        self.meters.seconds.observe(now.saturating_duration_since(started));
        self.meters.attempt(result.as_ref().map(|_| ()).map_err(|e| e.class));
        self.judge_sink(result.as_ref().err(), probe, now);
        match result {
            Ok(()) => self.end(&job, &End::Delivered),
            Err(error) => self.judge_task(job, &error, now),
        }
    }

    /// Ends a task that a worker held.
    pub(super) fn end(&self, job: &Job, end: &End<'_>) {
        match end {
            End::Delivered => self.meters.delivered.inc(),
            End::Failed { .. } => self.meters.failed.inc(),
            End::Dropped(reason) => self.meters.drop_one(*reason),
        }
        self.meters.in_flight.add(-1);
        self.ended(job, end);
    }

    fn defer(&self, job: Job) {
        let mut gate = self.gate.lock();
        // Oldest first: ids sort by acceptance.
        let at = gate.deferred.partition_point(|other| other.task.id < job.task.id);
        gate.deferred.insert(at, job);
        self.meters.in_flight.add(-1);
        drop(gate);
        self.wake_all();
    }

    /// The attempt cannot be made now, or never: then the sink goes on without this task.
    fn not_reserved(&self, mut job: Job, probe: bool, error: &io::Error) {
        let say = self.gate.lock().reserve_line.allows(clock::now());
        if say {
            log::error!("{}: attempt of task {} not reserved, nothing sent: {error}", self.name, job.task.id);
        }
        let attempts = job.attempts - 1;
        job.attempts = attempts;
        match (error.kind(), &self.ledger) {
            (io::ErrorKind::NotFound, Some(ledger)) => {
                self.abandon_probe(probe);
                self.meters.in_flight.add(-1);
                self.keep(ledger, &job);
                self.wake_all();
            }
            (io::ErrorKind::InvalidInput, _) => {
                self.abandon_probe(probe);
                let error = DeliveryError::new(Class::Transient, format!("not sent: {error}"));
                self.end(&job, &End::Failed { attempts, reason: GiveUp::Exhausted, error: &error });
                self.wake_all();
            }
            _ => self.defer_unreserved(job, probe),
        }
    }

    fn abandon_probe(&self, probe: bool) {
        if probe {
            self.gate.lock().health.probe_abandoned();
        }
    }

    /// Back to where it was; for a moment nothing is tried.
    fn defer_unreserved(&self, job: Job, probe: bool) {
        let pause = RESERVE_PAUSE.mul_f64(0.5 + 0.5 * fastrand::f64());
        let mut gate = self.gate.lock();
        gate.reserve_at = Some(clock::now() + pause);
        if probe {
            gate.health.probe_abandoned();
        }
        drop(gate);
        self.defer(job);
    }

    /// Another attempt, or the end of the task.
    fn judge_task(&self, mut job: Job, error: &DeliveryError, now: Instant) {
        let draining = self.gate.lock().drain_until;
        if draining.is_some_and(|until| now >= until) && error.class != Class::Permanent {
            return match &self.ledger {
                // Cut off: its outcome is unknown, and the attempt is on the disk already.
                Some(ledger) => {
                    self.meters.in_flight.add(-1);
                    self.keep(ledger, &job);
                }
                None => self.end(&job, &End::Dropped(self.end_reason())),
            };
        }
        let wall = clock::wall();
        let (own_max, expires_at) = (job.task.attempts_max, self.expires_at(&job.task));
        match self.policy.another(job.attempts, own_max, expires_at, wall, error.class) {
            Ok(()) => {
                let own = self.policy.delay(job.attempts, fastrand::f64());
                let delay = own.max(error.retry_after.map_or(own, retry::retry_after));
                job.not_before = now.checked_add(delay);
                if let Some(ledger) = &self.ledger {
                    let next_due = wall.checked_add(delay).unwrap_or(wall);
                    ledger.failed(self.number, &job.task, job.attempts, next_due, error);
                    if !self.gate.lock().has_room_for(&job) {
                        self.meters.in_flight.add(-1);
                        self.keep(ledger, &job);
                        return self.wake_all();
                    }
                }
                self.defer(job);
            }
            Err(reason) => {
                self.say_failed(&job, reason.label(), error, now);
                self.end(&job, &End::Failed { attempts: job.attempts, reason, error });
            }
        }
    }

    /// One line per task that was given up, at most one in [`LINE_INTERVAL`]; the rest is counted in the next.
    pub(super) fn say_failed(&self, job: &Job, reason: &str, error: &DeliveryError, now: Instant) {
        let mut gate = self.gate.lock();
        if !gate.failure_line.allows(now) {
            gate.failures_unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut gate.failures_unsaid);
        drop(gate);
        let more =
            if unsaid > 0 { format!(" ({unsaid} more since the last such line)") } else { String::new() };
        let (sink, id, n) = (&self.name, job.task.id, job.attempts);
        log::warn!("{sink}: task {id} given up ({reason}) after {n} attempts: {error}{more}");
    }

    /// Says how many tasks were dropped since the last such line. On a worker's thread: the request path does not write diagnostics.
    fn say_drops(&self) {
        let dropped = self.meters.dropped.get();
        let mut gate = self.gate.lock();
        if dropped == gate.drops_said || gate.drain_until.is_some() || !gate.drop_line.allows(clock::now()) {
            return;
        }
        let new = dropped - std::mem::replace(&mut gate.drops_said, dropped);
        drop(gate);
        log::warn!(
            "{}: {new} tasks dropped, see tasks_dropped_total for the reasons; {dropped} in all",
            self.name
        );
    }

    /// What an attempt's answer says about the sink and its destination.
    fn judge_sink(&self, error: Option<&DeliveryError>, probe: bool, now: Instant) {
        if let Some(pause) = error.and_then(|e| e.retry_after) {
            let jitter = Duration::from_secs_f64(fastrand::f64() * 0.25);
            self.destination.pause(now + retry::retry_after(pause) + jitter);
        }
        let mut gate = self.gate.lock();
        let news = match error {
            Some(e) if e.class != Class::Permanent => {
                let delay = |n| {
                    let own = self.policy.probe_delay(e.class, n, fastrand::f64());
                    own.max(e.retry_after.map_or(own, retry::retry_after))
                };
                let news = gate.health.failed(e.class, probe, now, delay);
                if news.is_some() && gate.went_down_at.is_none() {
                    gate.went_down_at = Some(now);
                }
                news
            }
            // A refusal of this message shows that the sink is at work.
            _ => gate.health.worked().map(|_| Condition::Up),
        };
        let Some(news) = news else {
            drop(gate);
            if probe {
                self.wake_all();
            }
            return;
        };
        let since = if news == Condition::Up { gate.went_down_at.take() } else { None };
        // A sink that fails now and then must not fill the diagnostics.
        let say = match news {
            Condition::Up => std::mem::take(&mut gate.down_said),
            Condition::Down => gate.down_line.allows(now),
            Condition::Blocked => true,
        };
        gate.down_said |= say && news != Condition::Up;
        drop(gate);
        self.publish();
        if say {
            self.say_condition(news, error, since, now);
        }
        self.wake_all();
    }

    fn say_condition(
        &self,
        news: Condition,
        error: Option<&DeliveryError>,
        since: Option<Instant>,
        now: Instant,
    ) {
        let name = &self.name;
        let error = error.map_or_else(String::new, ToString::to_string);
        match news {
            Condition::Up => {
                let down = since.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
                log::info!("{name}: takes deliveries again after {:.1} s", down.as_secs_f64());
            }
            Condition::Down => log::warn!("{name}: down, probing with one task at growing delays: {error}"),
            Condition::Blocked => log::error!(
                "{name}: refuses everything until somebody acts: {error}; tasks are kept {}, next probe in about {} s",
                if self.ledger.is_some() { "on disk" } else { "up to the queue's bound" },
                self.policy.blocked_probe.as_secs()
            ),
        }
    }

    fn tell_digest(&self, dropped: u64, within: Duration, probe: bool) {
        let Some(digest) = &self.digest else { return };
        let text = digest.text(&self.group, dropped, within);
        let started = clock::now();
        let deadline = self.deadline(started);
        let id = TaskId::new(clock::wall(), fastrand::u128(..));
        let result = guarded(|| self.sink.deliver_text(id, &text, deadline));
        let now = clock::now();
        self.judge_sink(result.as_ref().err(), probe, now);
        match result {
            Ok(()) => log::info!("{}: told of {dropped} dropped records", self.name),
            Err(e) if e.class == Class::Permanent => {
                log::warn!("{}: digest of {dropped} dropped records refused: {e}", self.name);
            }
            // Told with the next window.
            Err(_) => digest.count(dropped, now),
        }
    }

    /// Puts the gauges that belong to the sink of this name, and not to the tasks, to what they are for this one.
    pub(super) fn publish(&self) {
        if !self.retired.load(Ordering::SeqCst) {
            let up = self.gate.lock().health.condition() == Condition::Up;
            self.meters.up.set(i64::from(up));
            self.meters.capacity.set(i64::try_from(self.capacity).unwrap_or(i64::MAX));
        }
    }

    /// Another sink, or none, is in its place: as [`begin_drain`](Self::begin_drain). With a ledger only what is under way is finished, and all
    /// else given back at once: it is there for whoever is in its place. Nobody submits any more.
    pub(super) fn retire(&self, deadline: Instant) {
        self.retired.store(true, Ordering::SeqCst);
        self.gate.lock().leaving = true;
        self.begin_drain(deadline);
        if self.ledger.is_some() {
            self.sweep();
        }
    }

    /// The drain has to end at once: what is under way is cut off.
    pub(super) fn hurry(&self) {
        self.gate.lock().drain_until = Some(clock::now());
        self.sink.abort();
        self.wake_all();
    }

    /// From now on: finish what is there, until `deadline`.
    pub(super) fn begin_drain(&self, deadline: Instant) {
        self.close();
        self.gate.lock().drain_until = Some(deadline);
        self.wake_all();
    }
}

/// Runs a delivery; a panic in it (a fault of ours) costs the task, not the worker.
fn guarded(deliver: impl FnOnce() -> Result<(), DeliveryError>) -> Result<(), DeliveryError> {
    catch_unwind(AssertUnwindSafe(deliver))
        .unwrap_or_else(|_| Err(DeliveryError::new(Class::Permanent, "the delivery code panicked")))
}
