//! The store as side effects see it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::Store;
use super::body::{Body, Failure, Reason, TaskBody, to_ns};
use super::inner::{Inner, Log, Outcome, State};
use super::journal::Class;
use super::recover::DUE_AHEAD_MAX;
use super::tasks::{Entry, State as TaskState};
use crate::side_effect::{Done, DropReason, End, Ledger, Refused, SinkNumber, Task};
use crate::sink::DeliveryError;

/// How long a task is left alone whose record could not be read because of the disk.
const READ_RETRY: Duration = Duration::from_secs(5);

impl Ledger for Store {
    fn accept(&self, tasks: &[(SinkNumber, Task)], done: Done) {
        let names = self.inner.sink_names.load();
        let mut bodies = Vec::with_capacity(tasks.len());
        for (number, task) in tasks {
            let name = names.get(number.0).map_or("", |name| &**name);
            bodies.push(TaskBody::of(task, name));
        }
        self.inner.accept(&bodies, done);
    }

    fn accepting(&self) -> Result<(), Refused> {
        self.inner.accepting()
    }

    fn commit(&self) {
        self.inner.pending.commit();
    }

    fn nudge(&self) {
        self.inner.pending.nudge();
    }

    fn number(&self, sinks: &[String]) -> Result<Vec<SinkNumber>, String> {
        for sink in sinks {
            super::open::check_name(sink)?;
        }
        let mut state = self.inner.state.lock();
        let numbers = sinks.iter().map(|sink| SinkNumber(state.tasks.number(sink))).collect();
        let names: Vec<Arc<str>> = state.tasks.sinks().to_vec();
        // Within the lock, so that no older list can come after a newer one.
        self.inner.sink_names.store(Arc::new(names));
        Ok(numbers)
    }

    fn keep_only(&self, sinks: &[String]) {
        self.inner.state.lock().tasks.keep_only(sinks);
    }

    fn on_pending(&self, wake: Box<dyn Fn(SinkNumber) + Send + Sync>) {
        if self.inner.wake.set(wake).is_err() {
            log::error!("the store was told twice whom to wake; the first one counts");
        }
    }

    fn take(&self, sink: SinkNumber) -> Option<Task> {
        let mut buf = Vec::new();
        loop {
            let (entry, group) = {
                let mut state = self.inner.state.lock();
                let entry = state.tasks.take(sink.0)?;
                let group = Arc::clone(&state.tasks.destinations[entry.sink as usize].group);
                (entry, group)
            };
            let attempts = entry.attempts();
            match self.inner.read_task(&entry, &mut buf) {
                Ok(body) => return Some(body.task(attempts, &group)),
                Err(error) => self.inner.unreadable(&entry, &error),
            }
        }
    }

    fn pending(&self, sink: SinkNumber) -> usize {
        self.inner.state.lock().tasks.ready(sink.0)
    }

    fn reserve(&self, _sink: SinkNumber, task: &Task, attempt: u32) -> io::Result<()> {
        self.inner.reserve(task.id.bits(), attempt)
    }

    fn failed(
        &self,
        _sink: SinkNumber,
        task: &Task,
        attempt: u32,
        next_due: SystemTime,
        error: &DeliveryError,
    ) {
        let mut state = self.inner.state.lock();
        self.inner.append_failure(&mut state, task.id.bits(), attempt, to_ns(next_due), None, error);
    }

    fn ended(&self, _sink: SinkNumber, task: &Task, end: &End<'_>) {
        let id = task.id.bits();
        let mut state = self.inner.state.lock();
        match end {
            End::Delivered => {
                let attempt = state.tasks.get(id).map_or(0, Entry::attempts);
                self.inner.end_task(&mut state, &Body::Delivered { id, attempt });
            }
            End::Failed { attempts, reason, error } => {
                let reason = Reason::from(*reason);
                self.inner.append_failure(&mut state, id, *attempts, 0, Some(reason), error);
                state.tasks.make_dying(id);
                self.inner.kick();
            }
            // It was accepted, and the program ends before it could be sent: it stays.
            End::Dropped(DropReason::Shutdown) => self.inner.give_back(&mut state, id),
            End::Dropped(_) => self.inner.end_task(&mut state, &Body::Dropped { id }),
        }
    }

    fn returned(&self, _sink: SinkNumber, task: &Task) {
        let mut state = self.inner.state.lock();
        self.inner.give_back(&mut state, task.id.bits());
    }
}

impl Inner {
    /// Nobody has the task any more: it can be taken when its time has come.
    fn give_back(&self, state: &mut State, id: u128) {
        let Some(entry) = state.tasks.get(id).filter(|e| e.state == TaskState::Taken) else { return };
        let (tried, now_ns) = (entry.tried(), self.now_ns());
        if !tried.unfinished && tried.next_due_ns > now_ns {
            let latest = now_ns.saturating_add(DUE_AHEAD_MAX.as_nanos() as u64);
            // Tasks that fail again and again must not come first again and again.
            state.tasks.lose_place(id);
            state.tasks.hold(id, tried.next_due_ns.min(latest));
        } else {
            state.tasks.make_ready(id);
        }
    }

    /// A taken task's record could not be read. Damage makes it a dead letter, alone; a disk that refuses to read gets another chance.
    pub(crate) fn unreadable(self: &Arc<Self>, entry: &Entry, error: &io::Error) {
        let mut state = self.state.lock();
        let Some(now) = state.tasks.get(entry.id) else { return };
        if now.at != entry.at {
            // It was moved between the look at its place and the read.
            state.tasks.make_ready(entry.id);
            return;
        }
        let id = crate::side_effect::TaskId::from_bits(entry.id);
        let at = self.place(Log::Pending, entry.at);
        if super::bury::is_damage(error) {
            log::error!("task {id}: {at}: {error}; it becomes a dead letter without its record");
            self.meters.damages.inc();
            if let Some(entry) = state.tasks.get_mut(entry.id) {
                entry.tried_mut().reason = Some(Reason::Damaged);
            }
            state.tasks.make_dying(entry.id);
            self.kick();
        } else {
            log::error!("task {id}: {at} cannot be read: {error}; next try in {} s", READ_RETRY.as_secs());
            let due = self.now_ns().saturating_add(READ_RETRY.as_nanos() as u64);
            state.tasks.hold(entry.id, due);
            self.kick();
        }
    }

    /// Counts an attempt, durably. Blocks for the disk.
    pub(crate) fn reserve(self: &Arc<Self>, id: u128, attempt: u32) -> io::Result<()> {
        let answer = Arc::new((Mutex::new(None), Condvar::new()));
        {
            let mut state = self.state.lock();
            let at_ns = self.now_ns();
            let before = state.tasks.reserve(id, attempt, at_ns)?;
            let body = Body::Reserved { id, attempt, at_ns };
            let told = Arc::clone(&answer);
            let outcome: Outcome = Box::new(move |inner, result| {
                if result.is_err() {
                    inner.state.lock().tasks.unreserve(id, attempt, before);
                }
                *told.0.lock() = Some(result);
                told.1.notify_all();
            });
            let entry = [(body.kind(), body.encode())];
            if let Err(refused) = self.append(Log::Pending, Class::Finish, &entry, outcome) {
                state.tasks.unreserve(id, attempt, before);
                return Err(io::Error::other(refused));
            }
        }
        #[cfg(test)]
        if self.bugs.send_before_reserved {
            return Ok(());
        }
        self.pending.commit();
        let mut result = answer.0.lock();
        while result.is_none() {
            answer.1.wait(&mut result);
        }
        result.unwrap_or(Ok(())).map_err(io::Error::other)
    }

    /// Writes a failure down and remembers it.
    fn append_failure(
        self: &Arc<Self>,
        state: &mut State,
        id: u128,
        attempt: u32,
        next_due_ns: u64,
        reason: Option<Reason>,
        error: &DeliveryError,
    ) {
        if state.tasks.get(id).is_none() {
            return;
        }
        let last_ns = self.now_ns();
        let failure = Failure {
            last_ns,
            next_due_ns,
            class: Some(error.class),
            reason,
            status: error.status.unwrap_or(0),
            error: error.message().to_owned(),
        };
        let at = self.append_end(state, Log::Pending, &Body::Failed { id, attempt, failure }, |_| {});
        if let Some(entry) = state.tasks.get_mut(id) {
            let tried = entry.tried_mut();
            tried.attempts = tried.attempts.max(attempt);
            tried.unfinished = false;
            tried.last_ns = last_ns;
            tried.reason = reason;
            tried.next_due_ns = next_due_ns;
            tried.failed_at = at;
        }
    }

    /// A task is over.
    pub(crate) fn end_task(self: &Arc<Self>, state: &mut State, body: &Body<'_>) {
        let (Body::Delivered { id, .. } | Body::Dropped { id } | Body::DeadLettered { id }) = body else {
            return;
        };
        if state.tasks.remove(*id).is_none() {
            return;
        }
        let dead = matches!(body, Body::DeadLettered { .. }).then_some(*id);
        self.append_end(state, Log::Pending, body, move |inner| {
            if let Some(id) = dead {
                let mut state = inner.state.lock();
                state.dead.settle(id);
                let others_wait = state.tasks.dying() > 0;
                drop(state);
                // It can make room for another one now.
                if others_wait {
                    inner.kick();
                }
            }
        });
        self.trim(state, Log::Pending);
        self.meters.count_tasks(state);
    }
}
