//! Looking at pending tasks and dead letters, replaying and dropping them: for the command `queue` and the control API.

use std::collections::BinaryHeap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Store;
use super::api::{Dropped, Filter, Item, Kind, Listed, Replayed, Standing};
use super::body::{Body, Failure, History, Reason, Removal, TaskBody, from_ns, time_of, to_ns};
use super::dead::DeadEntry;
use super::inner::{Inner, Log, State};
use super::tasks::{Destination, Entry, State as TaskState};
use crate::side_effect::{Refused, TaskId};

/// Tasks that are replayed or dropped with one sync.
const BATCH: usize = 64;
/// Slots that are looked at while the state is locked.
const SCAN_SLOTS: usize = 1 << 15;

impl Filter {
    /// Whether a destination's tasks are meant.
    fn takes_sink(&self, d: &Destination) -> bool {
        let any = |list: &[String], name: &str| list.is_empty() || list.iter().any(|l| l == name);
        any(&self.groups, &d.group) && any(&self.sinks, &d.sink)
    }

    fn takes(&self, id: u128, accepted_ns: u64, reason: Option<Reason>) -> bool {
        (self.ids.is_empty() || self.ids.iter().any(|i| i.bits() == id))
            && self.since.is_none_or(|t| accepted_ns >= to_ns(t))
            && self.until.is_none_or(|t| accepted_ns < to_ns(t))
            && (self.reasons.is_empty() || reason.is_some_and(|r| self.reasons.contains(&r)))
    }

    /// Whether a pending task is meant.
    pub(super) fn takes_task(&self, entry: &Entry, destinations: &[Destination]) -> bool {
        self.kind != Some(Kind::Dead)
            && self.takes(entry.id, entry.accepted_ns, entry.tried().reason)
            && destinations.get(entry.sink as usize).is_some_and(|d| self.takes_sink(d))
    }

    /// Whether a dead letter is meant.
    pub(super) fn takes_dead(&self, entry: &DeadEntry, destinations: &[Destination]) -> bool {
        self.kind != Some(Kind::Pending)
            && self.takes(entry.id, entry.accepted_ns, Some(entry.reason))
            && destinations.get(entry.sink as usize).is_some_and(|d| self.takes_sink(d))
    }
}

impl Store {
    /// The tasks and dead letters that `filter` means: the `limit` oldest of them, pending ones first, and how many there are in all. Blocks for
    /// reads.
    pub fn list(&self, filter: &Filter, limit: usize) -> Listed {
        let (tasks, pending) = self.inner.matching_tasks(filter, limit);
        let (dead, dead_matched) = self.inner.matching_dead(filter, limit.saturating_sub(tasks.len()));
        let mut items: Vec<Item> =
            tasks.iter().filter_map(|id| self.inner.task_item(*id)).map(|(i, _)| i).collect();
        items.extend(dead.iter().filter_map(|id| self.inner.dead_item(*id)).map(|(i, _)| i));
        Listed { items, matched: pending + dead_matched }
    }

    /// One task or dead letter with its record. `None`: there is none with this id. Blocks for reads.
    pub fn show(&self, id: TaskId) -> Option<(Item, Vec<u8>)> {
        self.inner.task_item(id.bits()).or_else(|| self.inner.dead_item(id.bits()))
    }

    /// Makes new tasks of the dead letters that `filter` means, oldest first, at most `limit`. Each goes only when its new task, which has a
    /// new id and remembers the old one, is durable. Blocks for the disk.
    pub fn replay(&self, filter: &Filter, limit: usize) -> Vec<Replayed> {
        let (ids, _) = self.inner.matching_dead(filter, limit);
        let mut replayed = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            let _chores = self.inner.chores.lock();
            self.inner.replay_batch(batch, &mut replayed);
        }
        replayed
    }

    /// Drops the tasks and dead letters that `filter` means, oldest first, at most `limit`: they are gone for good when this returns. A task that a
    /// worker has is left. Blocks for the disk.
    pub fn drop(&self, filter: &Filter, limit: usize) -> Vec<Dropped> {
        let (tasks, _) = self.inner.matching_tasks(filter, limit);
        let (dead, _) = self.inner.matching_dead(filter, limit.saturating_sub(tasks.len()));
        let mut dropped = Vec::with_capacity(tasks.len() + dead.len());
        for batch in tasks.chunks(BATCH) {
            dropped.extend(self.inner.drop_batch(Log::Pending, batch));
        }
        for batch in dead.chunks(BATCH) {
            dropped.extend(self.inner.drop_batch(Log::Dead, batch));
        }
        dropped
    }

    /// Moves the files that were set aside because of damage (`*.damaged`) to `quarantine/` in the store's directory. Their new places. Blocks for
    /// the disk.
    ///
    /// # Errors
    /// Those of making the directory and of renaming; what was moved before stays there.
    pub fn set_aside(&self) -> std::io::Result<Vec<std::path::PathBuf>> {
        super::look::set_aside(&self.inner.settings.dir)
    }
}

impl Inner {
    /// Ids of pending tasks, oldest first.
    pub(super) fn matching_tasks(&self, filter: &Filter, limit: usize) -> (Vec<u128>, u64) {
        let mut oldest = BinaryHeap::new();
        let mut matched = 0;
        let mut from = Some(0);
        while let Some(at) = from {
            let state = self.state.lock();
            let (entries, next) = state.tasks.scan(at, SCAN_SLOTS);
            for entry in entries.filter(|e| e.state != TaskState::Syncing) {
                if filter.takes_task(entry, &state.tasks.destinations) {
                    matched += 1;
                    oldest.push((entry.order, entry.id));
                    if oldest.len() > limit {
                        oldest.pop();
                    }
                }
            }
            from = next;
        }
        (oldest.into_sorted_vec().into_iter().map(|(_, id)| id).collect(), matched)
    }

    /// Ids of dead letters, oldest first.
    pub(super) fn matching_dead(&self, filter: &Filter, limit: usize) -> (Vec<u128>, u64) {
        let state = self.state.lock();
        let matching =
            state.dead.iter().filter(|e| e.settled && filter.takes_dead(e, &state.tasks.destinations));
        let mut ids = Vec::new();
        let mut matched = 0;
        for entry in matching {
            matched += 1;
            if ids.len() < limit {
                ids.push(entry.id);
            }
        }
        (ids, matched)
    }

    fn task_item(&self, id: u128) -> Option<(Item, Vec<u8>)> {
        let mut buf = Vec::new();
        // Twice: it may be moved between the look at its place and the read.
        for _ in 0..2 {
            let (entry, sink, group, known) = {
                let state = self.state.lock();
                let entry = state.tasks.get(id).filter(|e| e.state != TaskState::Syncing)?.clone();
                let d = state.tasks.destinations.get(entry.sink as usize)?;
                (entry, Arc::clone(&d.sink), Arc::clone(&d.group), d.configured)
            };
            let history = self.history(&entry);
            let standing = standing(entry.state);
            match self.read_task(&entry, &mut buf) {
                Ok(task) => {
                    let item = item(Kind::Pending, standing, known, &history, &task, 0);
                    return Some((item, task.record.to_vec()));
                }
                Err(_) if self.state.lock().tasks.get(id).is_some_and(|now| now.at != entry.at) => {}
                Err(e) => {
                    let task = super::bury::without_record(&entry, &sink, &group);
                    let mut item = item(Kind::Pending, standing, known, &history, &task, 0);
                    item.error = format!("the record cannot be read: {e}");
                    return Some((item, Vec::new()));
                }
            }
        }
        None
    }

    fn dead_item(&self, id: u128) -> Option<(Item, Vec<u8>)> {
        let mut buf = Vec::new();
        // Twice, as with tasks.
        for _ in 0..2 {
            let (entry, sink, group, known) = {
                let state = self.state.lock();
                let entry = *state.dead.get(id).filter(|e| e.settled)?;
                let d = state.tasks.destinations.get(entry.sink as usize)?;
                (entry, Arc::clone(&d.sink), Arc::clone(&d.group), d.configured)
            };
            match self.read_dead(&entry, &mut buf) {
                Ok((history, task)) => {
                    let item = item(Kind::Dead, Standing::Dead, known, &history, &task, entry.dead_ns);
                    return Some((item, task.record.to_vec()));
                }
                Err(_) if self.state.lock().dead.get(id).is_some_and(|now| now.at != entry.at) => {}
                Err(e) => {
                    let failure = Failure { reason: Some(entry.reason), error: e, ..Failure::default() };
                    let history = History { failure, ..History::default() };
                    let task = super::bury::without_record(
                        &Entry::new(id, 0, entry.accepted_ns, entry.at, 0, entry.sink),
                        &sink,
                        &group,
                    );
                    let item = item(Kind::Dead, Standing::Dead, known, &history, &task, entry.dead_ns);
                    return Some((item, Vec::new()));
                }
            }
        }
        None
    }

    /// A dead letter's history and task, or why they cannot be read. Blocks for the disk.
    fn read_dead<'b>(
        &self,
        entry: &DeadEntry,
        buf: &'b mut Vec<u8>,
    ) -> Result<(History, TaskBody<'b>), String> {
        self.dead.read(entry.at, buf).map_err(|e| format!("the record cannot be read: {e}"))?;
        match Body::decode(super::body::DEAD_LETTER, buf) {
            Ok(Body::DeadLetter { history, task, .. }) if task.id == entry.id => Ok((history, task)),
            _ => Err("the record cannot be read: it is another one's".to_owned()),
        }
    }

    fn replay_batch(self: &Arc<Self>, ids: &[u128], replayed: &mut Vec<Replayed>) {
        for id in ids {
            let task = self.replay_one(*id);
            replayed.push(Replayed { dead: TaskId::from_bits(*id), task });
        }
        self.dead.commit();
    }

    fn replay_one(self: &Arc<Self>, id: u128) -> Result<TaskId, String> {
        let entry = *self.state.lock().dead.get(id).ok_or("it is not there any more")?;
        let mut buf = Vec::new();
        let (history, task) = self.read_dead(&entry, &mut buf)?;
        if entry.reason == Reason::Damaged {
            return Err("its record is lost, there is nothing to deliver".to_owned());
        }
        if !self.knows_sink(task.sink) {
            return Err(format!(
                "the configuration has no sink {:?}: give its group the sink back first",
                task.sink
            ));
        }
        let now = (self.clock)();
        let new = TaskId::new(now, fastrand::u128(..));
        let limits = *self.limits.lock();
        let body = TaskBody {
            id: new.bits(),
            accepted_ns: to_ns(now),
            expires_ns: limits.expires_at(now).map_or(0, to_ns),
            attempts_max: limits.attempts_max.unwrap_or(0),
            origin: id,
            origin_attempts: task.origin_attempts.saturating_add(history.attempts),
            ..task
        };
        self.accept_now(&[body]).map_err(|refused| refused.to_string())?;
        self.remove_dead(&mut self.state.lock(), id, Removal::Replayed);
        Ok(new)
    }

    pub(super) fn knows_sink(&self, sink: &str) -> bool {
        let state = self.state.lock();
        state.tasks.destinations.iter().any(|d| *d.sink == *sink && d.configured)
    }

    /// Takes tasks in and waits until they are durable.
    pub(super) fn accept_now(self: &Arc<Self>, tasks: &[TaskBody<'_>]) -> Result<(), Refused> {
        let answer = Arc::new((Mutex::new(None), Condvar::new()));
        let told = Arc::clone(&answer);
        self.accept(
            tasks,
            Box::new(move |result| {
                *told.0.lock() = Some(result);
                told.1.notify_all();
            }),
        );
        self.pending.commit();
        let mut result = answer.0.lock();
        while result.is_none() {
            answer.1.wait(&mut result);
        }
        result.unwrap_or(Ok(()))
    }

    pub(super) fn drop_batch(self: &Arc<Self>, log: Log, ids: &[u128]) -> Vec<Dropped> {
        let waiting = Arc::new((Mutex::new(Waiting::default()), Condvar::new()));
        let mut dropped = Vec::with_capacity(ids.len());
        {
            let mut state = self.state.lock();
            for id in ids {
                let result = self.drop_one(&mut state, log, *id, &waiting);
                dropped.push(Dropped { id: TaskId::from_bits(*id), result });
            }
            self.trim(&state, log);
            self.meters.count_tasks(&state);
        }
        self.journal(log).commit();
        let mut seen = waiting.0.lock();
        while seen.open > 0 {
            waiting.1.wait(&mut seen);
        }
        for one in &mut dropped {
            if seen.failed.contains(&one.id.bits()) {
                one.result = Err(format!("{}; it will be gone once the disk takes writes", Refused::Broken));
            }
        }
        dropped
    }

    fn drop_one(
        self: &Arc<Self>,
        state: &mut State,
        log: Log,
        id: u128,
        waiting: &Arc<(Mutex<Waiting>, Condvar)>,
    ) -> Result<(), String> {
        let body = match log {
            Log::Pending => match state.tasks.get(id).map(|e| e.state) {
                None => return Err("it is not there any more".to_owned()),
                Some(TaskState::Taken) => {
                    return Err("a worker has it: try again when it has been delivered or given up, or stop the server first".to_owned());
                }
                Some(TaskState::Burying | TaskState::Syncing) => {
                    return Err("it is just being written: try again".to_owned());
                }
                Some(TaskState::Ready | TaskState::Held | TaskState::Dying | TaskState::Parked) => {
                    state.tasks.remove(id);
                    Body::Dropped { id }
                }
            },
            Log::Dead => {
                state.dead.remove(id).ok_or("it is not there any more")?;
                self.meters.removed(Removal::Dropped).inc();
                Body::Removed { id, why: Removal::Dropped }
            }
        };
        let entry = [(body.kind(), body.encode())];
        let again = entry[0].clone();
        waiting.0.lock().open += 1;
        let told = Arc::clone(waiting);
        let outcome: super::inner::Outcome = Box::new(move |inner, result| {
            if result.is_err() {
                inner.state.lock().lost_of(log).push(again);
            }
            let mut seen = told.0.lock();
            seen.open -= 1;
            if result.is_err() {
                seen.failed.push(id);
            }
            told.1.notify_all();
        });
        if self.append(log, super::journal::Class::Finish, &entry, outcome).is_err() {
            let [entry] = entry;
            state.lost_of(log).push(entry);
            let mut seen = waiting.0.lock();
            seen.open -= 1;
            seen.failed.push(id);
        }
        Ok(())
    }
}

/// Drops that are not durable yet, and those that failed.
#[derive(Default)]
struct Waiting {
    open: usize,
    failed: Vec<u128>,
}

fn standing(state: TaskState) -> Standing {
    match state {
        TaskState::Syncing | TaskState::Ready => Standing::Waiting,
        TaskState::Taken => Standing::InProgress,
        TaskState::Held => Standing::Delayed,
        TaskState::Dying | TaskState::Burying | TaskState::Parked => Standing::Dying,
    }
}

/// What is shown of a task.
pub(super) fn item(
    kind: Kind,
    standing: Standing,
    sink_known: bool,
    history: &History,
    task: &TaskBody<'_>,
    dead_ns: u64,
) -> Item {
    let failure = &history.failure;
    Item {
        id: TaskId::from_bits(task.id),
        kind,
        standing,
        sink: task.sink.to_owned(),
        sink_known,
        group: task.group.to_owned(),
        source: task.source.to_owned(),
        accepted_at: from_ns(task.accepted_ns),
        expires_at: time_of(task.expires_ns),
        attempts: history.attempts,
        attempts_max: (task.attempts_max != 0).then_some(task.attempts_max),
        first_attempt_at: time_of(history.first_ns),
        last_attempt_at: time_of(failure.last_ns),
        next_due_at: time_of(failure.next_due_ns),
        status: (failure.status != 0).then_some(failure.status),
        error: failure.error.clone(),
        reason: failure.reason,
        dead_at: time_of(dead_ns),
        origin: (task.origin != 0).then(|| TaskId::from_bits(task.origin)),
        origin_attempts: task.origin_attempts,
        record_bytes: task.record.len() as u64,
    }
}
