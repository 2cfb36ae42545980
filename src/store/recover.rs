//! From the records of both logs to the state of all tasks. Pure: it is given what the journals replay.

use std::collections::HashSet;
use std::time::Duration;

use super::body::{Body, BodyError, Failure, Reason, Removal, TaskBody};
use super::dead::{DeadEntry, DeadLetters};
use super::journal::{Entry as Record, Position};
use super::tasks::{Entry, Tasks};

/// A stored time at which a task is due is believed up to so far ahead: the clock may have jumped.
pub(crate) const DUE_AHEAD_MAX: Duration = Duration::from_secs(3600);

/// What is being put together.
pub(crate) struct Recovery {
    pub(crate) tasks: Tasks,
    pub(crate) dead: DeadLetters,
    /// Dead letters that a new task has taken the place of.
    replayed: HashSet<u128>,
    /// Intact records whose body is not what its kind says: a log, its place, what is wrong.
    pub(crate) odd: Vec<(Position, BodyError)>,
}

/// What is to be done once everything was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Todo {
    /// Their dead letters are there: they have to be ended.
    pub(crate) ended: Vec<u128>,
    /// Dead letters whose replay is there: they have to be removed.
    pub(crate) replayed: Vec<u128>,
    /// Tasks whose last allowed attempt was interrupted.
    pub(crate) outcome_unknown: u64,
}

impl Recovery {
    /// For sinks with these names, and segments of these capacities.
    pub(crate) fn new(sinks: &[String], capacity: u64, dead_capacity: u64) -> Self {
        Recovery {
            tasks: Tasks::new(sinks, capacity),
            dead: DeadLetters::new(dead_capacity),
            replayed: HashSet::new(),
            odd: Vec::new(),
        }
    }

    /// One record of the dead letters' log.
    pub(crate) fn dead_record(&mut self, at: Position, record: Record<'_>) {
        match Body::decode(record.kind, record.body) {
            Ok(Body::DeadLetter { dead_ns, history, task }) => {
                let sink = self.tasks.destination(task.sink, task.group);
                self.dead.insert(DeadEntry {
                    id: task.id,
                    dead_ns,
                    accepted_ns: task.accepted_ns,
                    at,
                    reason: history.failure.reason.unwrap_or(Reason::Exhausted),
                    sink,
                    settled: true,
                });
            }
            Ok(Body::Removed { id, why: Removal::Dropped | Removal::Replayed | Removal::MadeRoom }) => {
                self.dead.remove(id);
            }
            Ok(_) => self.odd.push((at, BodyError("a record of the other log"))),
            Err(e) => self.odd.push((at, e)),
        }
    }

    /// One record of the pending tasks' log.
    pub(crate) fn record(&mut self, at: Position, record: Record<'_>) {
        let body = match Body::decode(record.kind, record.body) {
            Ok(body) => body,
            Err(e) => return self.odd.push((at, e)),
        };
        match body {
            Body::Accepted(task) => {
                self.insert(at, &task);
            }
            Body::Carried(history, task) => {
                if !self.insert(at, &task) {
                    self.tasks.moved(task.id, at);
                }
                if let Some(entry) = self.tasks.get_mut(task.id) {
                    entry.carried = true;
                    // What follows tells of later attempts; what came before is in the history.
                    let tried = entry.tried_mut();
                    tried.attempts = history.attempts;
                    tried.unfinished = history.unfinished;
                    tried.first_ns = history.first_ns;
                    tried.failed_at = (history.failure != Failure::default()).then_some(at);
                    tried.last_ns = history.failure.last_ns;
                    tried.next_due_ns = history.failure.next_due_ns;
                    tried.reason = history.failure.reason;
                    let tried = *tried;
                    entry.set_tried(tried);
                }
            }
            Body::Reserved { id, attempt, at_ns } => {
                if let Some(entry) = self.tasks.get_mut(id) {
                    let tried = entry.tried_mut();
                    tried.attempts = tried.attempts.max(attempt);
                    tried.unfinished = true;
                    tried.last_ns = at_ns;
                    if tried.first_ns == 0 {
                        tried.first_ns = at_ns;
                    }
                }
            }
            Body::Failed { id, attempt, failure } => self.failed(at, id, attempt, &failure),
            Body::Delivered { id, .. } | Body::DeadLettered { id } | Body::Dropped { id } => {
                self.tasks.remove(id);
            }
            Body::DeadLetter { .. } | Body::Removed { .. } => {
                self.odd.push((at, BodyError("a record of the other log")));
            }
        }
    }

    fn insert(&mut self, at: Position, task: &TaskBody<'_>) -> bool {
        if task.origin != 0 {
            self.replayed.insert(task.origin);
        }
        let sink = self.tasks.destination(task.sink, task.group);
        let entry = Entry::new(task.id, task.order, task.accepted_ns, at, task.attempts_max, sink);
        self.tasks.insert(entry)
    }

    fn failed(&mut self, at: Position, id: u128, attempt: u32, failure: &Failure) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        let tried = entry.tried_mut();
        // The failure of an earlier attempt, written again after a fault, says nothing about the one under way.
        if attempt < tried.attempts {
            return;
        }
        tried.attempts = attempt;
        tried.unfinished = false;
        tried.last_ns = failure.last_ns;
        tried.next_due_ns = failure.next_due_ns;
        tried.reason = failure.reason;
        tried.failed_at = Some(at);
    }

    /// Everything was read: puts each task where it belongs at `now_ns`.
    pub(crate) fn finish(&mut self, now_ns: u64) -> Todo {
        let mut todo = Todo::default();
        let latest = now_ns.saturating_add(DUE_AHEAD_MAX.as_nanos() as u64);
        let mut from = Some(0);
        while let Some(at) = from {
            let (entries, next) = self.tasks.scan(at, 1 << 14);
            let some: Vec<(u128, Fate)> =
                entries.map(|e| (e.id, fate(e, self.dead.contains(e.id), now_ns))).collect();
            from = next;
            for (id, fate) in some {
                match fate {
                    Fate::Ready => drop(self.tasks.make_ready(id)),
                    Fate::Held(due) => self.tasks.hold(id, due.min(latest)),
                    Fate::Ended => todo.ended.push(id),
                    Fate::Dying(reason) => {
                        todo.outcome_unknown += u64::from(reason == Reason::OutcomeUnknown);
                        if let Some(entry) = self.tasks.get_mut(id) {
                            let tried = entry.tried_mut();
                            tried.reason = Some(reason);
                            if reason == Reason::OutcomeUnknown {
                                // What the attempt before had come to would read as this one's result.
                                tried.failed_at = None;
                            }
                        }
                        self.tasks.make_dying(id);
                    }
                }
            }
        }
        todo.replayed = self.replayed.iter().copied().filter(|id| self.dead.contains(*id)).collect();
        todo
    }

    /// Pending tasks by sink that the configuration does not have.
    pub(crate) fn unknown_sinks(&self) -> Vec<(String, u64)> {
        let mut unknown: Vec<(String, u64)> = Vec::new();
        for d in self.tasks.destinations.iter().filter(|d| d.number.is_none() && d.tasks > 0) {
            match unknown.iter_mut().find(|(sink, _)| **sink == *d.sink) {
                Some((_, n)) => *n += d.tasks,
                None => unknown.push((d.sink.to_string(), d.tasks)),
            }
        }
        unknown
    }
}

enum Fate {
    Ready,
    Held(u64),
    Ended,
    Dying(Reason),
}

fn fate(entry: &Entry, has_dead_letter: bool, now_ns: u64) -> Fate {
    let tried = entry.tried();
    let exhausted = entry.attempts_max != 0 && tried.attempts >= entry.attempts_max;
    if has_dead_letter {
        Fate::Ended
    } else if let Some(reason) = tried.reason {
        Fate::Dying(reason)
    } else if exhausted && tried.unfinished {
        Fate::Dying(Reason::OutcomeUnknown)
    } else if exhausted {
        Fate::Dying(Reason::Exhausted)
    } else if tried.next_due_ns > now_ns && !tried.unfinished {
        Fate::Held(tried.next_due_ns)
    } else {
        Fate::Ready
    }
}

#[cfg(test)]
#[path = "tests/recover.rs"]
mod tests;
