//! What the parts of the store share.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;

use super::api::Settings;
use super::body::{self, Body, Failure, History, TaskBody, to_ns};
use super::dead::DeadLetters;
use super::disk::Lock;
use super::journal::{Class, Entry, Journal, Position};
use super::meters::Meters;
use super::tasks::{self, Tasks};
use super::usage::Disk;
use crate::side_effect::retry::Limits;
use crate::side_effect::{Done, Refused, SinkNumber};

/// Time after which a thread that waits for an outcome looks after the disk itself.
const COMMIT_WAIT: Duration = Duration::from_millis(20);

/// Which of the two logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    Pending,
    Dead,
}

impl Log {
    /// Its place in a pair.
    pub(crate) fn index(self) -> usize {
        match self {
            Log::Pending => 0,
            Log::Dead => 1,
        }
    }

    /// The value of the `log` label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Log::Pending => "pending",
            Log::Dead => "dead",
        }
    }
}

/// Faults that tests build in to see that they are found.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bugs {
    /// The attempt may be sent before its reservation is durable.
    pub(crate) send_before_reserved: bool,
    /// The oldest segment goes before its live tasks have been copied.
    pub(crate) trim_before_carry: bool,
    /// A carried task has no attempts.
    pub(crate) carry_forgets_attempts: bool,
}

/// The time on the wall.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What changes, under one mutex.
pub(crate) struct State {
    pub(crate) tasks: Tasks,
    pub(crate) dead: DeadLetters,
    /// Ends and failures that a fault has kept from the disk: appended again when it takes writes.
    pub(crate) lost: Vec<(u8, Vec<u8>)>,
    /// The same for the dead letters' log.
    pub(crate) lost_dead: Vec<(u8, Vec<u8>)>,
    /// Whether it was said that there is no room for dead letters.
    pub(crate) full_said: bool,
    pub(crate) closed: bool,
    /// Dead bytes of each log that emptying all of its segments has not freed: long records leave room unused.
    pub(crate) futile: [u64; 2],
}

pub(crate) type Wake = Box<dyn Fn(SinkNumber) + Send + Sync>;

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    /// What a replay gives to its tasks.
    pub(crate) limits: Mutex<Limits>,
    /// By number.
    pub(crate) sink_names: ArcSwap<Vec<Arc<str>>>,
    pub(crate) pending: Arc<Journal>,
    pub(crate) dead: Arc<Journal>,
    /// Longest body of either log.
    pub(crate) body_bytes_max: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) dead_segment_bytes: u64,
    pub(crate) state: Mutex<State>,
    pub(crate) wake: OnceLock<Wake>,
    pub(crate) clock: Clock,
    pub(crate) meters: Arc<Meters>,
    /// Tells the keeper that there is something to do.
    pub(crate) kick: Sender<()>,
    /// One burial, carry or command at a time.
    pub(crate) chores: Mutex<()>,
    pub(crate) stopping: AtomicBool,
    /// Held for life.
    pub(crate) _lock: Option<Lock>,
    #[cfg(test)]
    pub(crate) bugs: Bugs,
}

/// Told what became of an append; not called when the append itself is refused.
pub(crate) type Outcome = Box<dyn FnOnce(&Arc<Inner>, Result<(), Refused>) + Send>;

/// Bytes of records that a segment can hold.
pub(crate) fn capacity(segment_bytes: u64) -> u64 {
    segment_bytes.saturating_sub(super::journal::format::HEADER_BYTES)
}

impl Inner {
    pub(crate) fn now_ns(&self) -> u64 {
        to_ns((self.clock)())
    }

    pub(crate) fn journal(&self, log: Log) -> &Journal {
        match log {
            Log::Pending => &self.pending,
            Log::Dead => &self.dead,
        }
    }

    /// The bound of a log.
    pub(crate) fn bytes_max(&self, log: Log) -> u64 {
        match log {
            Log::Pending => self.settings.bytes_max.saturating_sub(self.settings.dead_bytes_max),
            Log::Dead => self.settings.dead_bytes_max,
        }
    }

    /// What a log has on the disk.
    pub(crate) fn disk(&self, log: Log) -> Disk {
        let segments = self.journal(log).segments();
        let segment_bytes = match log {
            Log::Pending => self.segment_bytes,
            Log::Dead => self.dead_segment_bytes,
        };
        Disk {
            segments: segments.count,
            capacity: capacity(segment_bytes),
            segments_max: self.bytes_max(log) / segment_bytes.max(1),
        }
    }

    /// Appends to a log. Called with the state locked: the order of appends is that of the changes of the state.
    pub(crate) fn append(
        self: &Arc<Self>,
        log: Log,
        class: Class,
        entries: &[(u8, Vec<u8>)],
        outcome: Outcome,
    ) -> Result<Vec<Position>, Refused> {
        let entries: Vec<Entry<'_>> =
            entries.iter().map(|(kind, body)| Entry { kind: *kind, body }).collect();
        let inner = Arc::clone(self);
        let done: Done = Box::new(move |result| outcome(&inner, result));
        self.journal(log).append(class, &entries, done)
    }

    /// Appends one record. Called with the state locked; `outcome` has it locked too, and is told where the record is once that is durable.
    pub(crate) fn append_one(
        self: &Arc<Self>,
        log: Log,
        class: Class,
        entry: (u8, Vec<u8>),
        outcome: impl FnOnce(&Arc<Inner>, &mut State, Result<Position, Refused>) + Send + 'static,
    ) -> Result<(), Refused> {
        let place = Arc::new(Mutex::new(None));
        let its_place = Arc::clone(&place);
        let told: Outcome = Box::new(move |inner, result| {
            let mut state = inner.state.lock();
            // Locked before: whoever appends holds the state until the place is there.
            let place = its_place.lock().ok_or(Refused::Broken);
            outcome(inner, &mut state, result.and(place));
        });
        *place.lock() = self.append(log, class, &[entry], told)?.first().copied();
        Ok(())
    }

    /// Appends the end (or a failure) of something; what a fault keeps from the disk is appended again later. Called with `state` locked.
    pub(crate) fn append_end(
        self: &Arc<Self>,
        state: &mut State,
        log: Log,
        body: &Body<'_>,
        then: impl FnOnce(&Arc<Inner>) + Send + 'static,
    ) -> Option<Position> {
        let entry = [(body.kind(), body.encode())];
        let again = entry[0].clone();
        let outcome: Outcome = Box::new(move |inner, result| match result {
            Ok(()) => then(inner),
            Err(_) => {
                inner.state.lock().lost_of(log).push(again);
                inner.kick();
            }
        });
        match self.append(log, Class::Finish, &entry, outcome) {
            Ok(positions) => positions.first().copied(),
            Err(_) => {
                let [entry] = entry;
                state.lost_of(log).push(entry);
                None
            }
        }
    }

    /// Commits what was appended to a log, and waits until the outcome of it is known: when `outcomes` has no sender any more. Blocks for
    /// the disk. Where another thread is at the disk, `commit` alone returns before that.
    pub(crate) fn commit_all(&self, log: Log, outcomes: &Receiver<()>) {
        loop {
            self.journal(log).commit();
            let known = outcomes.recv_timeout(COMMIT_WAIT) != Err(RecvTimeoutError::Timeout);
            if known || self.stopping.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Has the keeper look.
    pub(crate) fn kick(&self) {
        let _ = self.kick.try_send(());
    }

    pub(crate) fn wake_sinks(&self, numbers: &[usize]) {
        if let Some(wake) = self.wake.get() {
            for number in numbers {
                wake(SinkNumber(*number));
            }
        }
    }

    /// What is below the oldest live record is not needed. Called with the state locked, after something has ended.
    pub(crate) fn trim(&self, state: &State, log: Log) {
        let journal = self.journal(log);
        let segments = journal.segments();
        let first_live = match log {
            Log::Pending => state.tasks.usage.first_live(),
            Log::Dead => state.dead.usage.first_live(),
        };
        let first = first_live.unwrap_or(segments.current).min(segments.current);
        if first > segments.front {
            journal.trim(first);
        }
    }

    /// Reads a task's Accepted or Carried record.
    pub(crate) fn read_task<'b>(
        &self,
        entry: &tasks::Entry,
        buf: &'b mut Vec<u8>,
    ) -> io::Result<TaskBody<'b>> {
        self.pending.read(entry.at, buf)?;
        let kind = if entry.carried { body::CARRIED } else { body::ACCEPTED };
        let task = match Body::decode(kind, buf) {
            Ok(Body::Accepted(task) | Body::Carried(_, task)) if task.id == entry.id => task,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the record is another task's")),
            Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e)),
        };
        Ok(task)
    }

    /// A task's history; the texts of its last failure are read where they are written down, and empty where they are not.
    pub(crate) fn history(&self, entry: &tasks::Entry) -> History {
        let tried = entry.tried();
        let mut failure = tried.failed_at.and_then(|at| self.read_failure(entry.id, at)).unwrap_or_default();
        failure.last_ns = tried.last_ns;
        failure.next_due_ns = tried.next_due_ns;
        failure.reason = tried.reason;
        History { attempts: tried.attempts, unfinished: tried.unfinished, first_ns: tried.first_ns, failure }
    }

    fn read_failure(&self, wanted: u128, at: Position) -> Option<Failure> {
        let mut buf = Vec::new();
        self.pending.read(at, &mut buf).ok()?;
        // It stands in a record of its own, or was carried with the task.
        match Body::decode(body::FAILED, &buf).or_else(|_| Body::decode(body::CARRIED, &buf)) {
            Ok(Body::Failed { id, failure, .. }) if id == wanted => Some(failure),
            Ok(Body::Carried(history, task)) if task.id == wanted => Some(history.failure),
            _ => None,
        }
    }
}

impl State {
    pub(crate) fn lost_of(&mut self, log: Log) -> &mut Vec<(u8, Vec<u8>)> {
        match log {
            Log::Pending => &mut self.lost,
            Log::Dead => &mut self.lost_dead,
        }
    }
}
