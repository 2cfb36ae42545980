//! A ledger in memory, for tests: as strict as a store, with faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::OnceLock;
use std::time::SystemTime;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use super::ledger::{Done, Ledger, Refused, SinkNumber};
use super::task::{End, Task, TaskId};
use crate::clock;
use crate::sink::DeliveryError;

type Wake = Box<dyn Fn(SinkNumber) + Send + Sync>;

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Pending,
    Taken,
    Ended,
}

#[derive(Debug)]
struct Entry {
    sink: SinkNumber,
    task: Task,
    place: Place,
    attempts: u32,
    /// Not to be taken before.
    due: Option<SystemTime>,
}

impl Entry {
    fn new(sink: SinkNumber, task: Task, attempts: u32) -> Entry {
        Entry { sink, task, place: Place::Pending, attempts, due: None }
    }

    fn is_ready(&self, sink: SinkNumber, wall: SystemTime) -> bool {
        self.sink == sink && self.place == Place::Pending && self.due.is_none_or(|due| due <= wall)
    }
}

#[derive(Default)]
struct State {
    unsynced: VecDeque<(Vec<(SinkNumber, Task)>, Done)>,
    /// Ids sort by acceptance.
    entries: BTreeMap<TaskId, Entry>,
    refusing: Option<Refused>,
    syncs_failing: u32,
    reserves_failing: u32,
    /// Tasks whose attempts are refused for good, with the kind of the error.
    never: Vec<(TaskId, io::ErrorKind)>,
    commits: u32,
    nudges: u32,
    log: Vec<String>,
    /// Names by number.
    names: Vec<String>,
    kept_only: Vec<String>,
    /// What broke the contract.
    broken: Vec<String>,
}

/// Keeps account of tasks as a store does, and of what broke the contract.
#[derive(Default)]
pub(crate) struct MemoryLedger {
    state: Mutex<State>,
    /// Held by the thread that syncs.
    syncing: Mutex<()>,
    wake: OnceLock<Wake>,
    /// When set, each sync waits for a permit.
    disk: Option<Receiver<()>>,
}

impl MemoryLedger {
    /// A ledger whose syncs wait for permits.
    pub(crate) fn slow(disk: Receiver<()>) -> Self {
        MemoryLedger { disk: Some(disk), ..MemoryLedger::default() }
    }

    /// Refuses everything from now on, or nothing.
    pub(crate) fn refuse(&self, why: Option<Refused>) {
        self.state.lock().refusing = why;
    }

    /// The next `n` syncs fail.
    pub(crate) fn fail_syncs(&self, n: u32) {
        self.state.lock().syncs_failing = n;
    }

    /// The next `n` reservations fail.
    pub(crate) fn fail_reserves(&self, n: u32) {
        self.state.lock().reserves_failing = n;
    }

    /// No attempt of this task can be reserved, ever.
    pub(crate) fn never_reserve(&self, id: TaskId, kind: io::ErrorKind) {
        self.state.lock().never.push((id, kind));
    }

    /// How often a commit and a nudge were asked for.
    pub(crate) fn asked(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.commits, state.nudges)
    }

    /// Puts a task in as if it had been found at the start.
    pub(crate) fn put(&self, sink: usize, task: Task) {
        let attempts = task.attempts_made;
        let entry = Entry::new(SinkNumber(sink), task, attempts);
        self.state.lock().entries.insert(entry.task.id, entry);
        self.tell(SinkNumber(sink));
    }

    /// The pending and taken tasks of a sink, oldest first.
    pub(crate) fn open_tasks(&self, sink: usize) -> Vec<Task> {
        let state = self.state.lock();
        let open = |entry: &&Entry| entry.sink.0 == sink && entry.place != Place::Ended;
        state.entries.values().filter(open).map(|entry| entry.task.clone()).collect()
    }

    /// The sinks that there are.
    pub(crate) fn kept_only(&self) -> Vec<String> {
        self.state.lock().kept_only.clone()
    }

    /// What it was told, in the form `SINK ID what`, with the lowest byte of the id.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    /// Fails the test when the contract was broken, or a task is still taken.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let state = self.state.lock();
        assert!(state.broken.is_empty(), "{:?}", state.broken);
        let taken = state.entries.values().filter(|entry| entry.place == Place::Taken).count();
        assert_eq!(taken, 0, "tasks are still taken");
        assert!(state.unsynced.is_empty(), "something was never synced");
    }

    fn tell(&self, sink: SinkNumber) {
        if let Some(wake) = self.wake.get() {
            wake(sink);
        }
    }

    fn sync(&self) {
        // Looked at once more after each turn: what came while this thread was the leader is its to sync.
        while !self.state.lock().unsynced.is_empty() {
            let Some(_leader) = self.syncing.try_lock() else { return };
            let batch = std::mem::take(&mut self.state.lock().unsynced);
            if let Some(disk) = &self.disk {
                let _ = disk.recv();
            }
            let mut state = self.state.lock();
            let failed = state.syncs_failing > 0;
            state.syncs_failing = state.syncs_failing.saturating_sub(1);
            let mut sinks = Vec::new();
            if !failed {
                for (sink, task) in batch.iter().flat_map(|(tasks, _)| tasks) {
                    let entry = Entry::new(*sink, task.clone(), 0);
                    if state.entries.insert(task.id, entry).is_some() {
                        state.broken.push(format!("{} accepted twice", task.id));
                    }
                    sinks.push(*sink);
                }
            }
            drop(state);
            sinks.sort_unstable();
            sinks.dedup();
            sinks.into_iter().for_each(|sink| self.tell(sink));
            for (_, done) in batch {
                done(if failed { Err(Refused::Broken) } else { Ok(()) });
            }
        }
    }

    fn with(&self, sink: SinkNumber, task: &Task, what: &str, change: impl FnOnce(&mut Entry) -> bool) {
        let mut state = self.state.lock();
        let sound = state
            .entries
            .get_mut(&task.id)
            .is_some_and(|entry| entry.place == Place::Taken && entry.sink == sink && change(entry));
        let line = format!("{} {} {what}", sink.0, task.id.bits() & 0xff);
        if !sound {
            state.broken.push(line.clone());
        }
        state.log.push(line);
    }
}

impl Ledger for MemoryLedger {
    fn accept(&self, tasks: &[(SinkNumber, Task)], done: Done) {
        let mut state = self.state.lock();
        if let Some(why) = state.refusing {
            drop(state);
            return done(Err(why));
        }
        state.unsynced.push_back((tasks.to_vec(), done));
    }

    fn accepting(&self) -> Result<(), Refused> {
        self.state.lock().refusing.map_or(Ok(()), Err)
    }

    fn commit(&self) {
        self.state.lock().commits += 1;
        self.sync();
    }

    fn nudge(&self) {
        self.state.lock().nudges += 1;
        self.sync();
    }

    fn number(&self, sinks: &[String]) -> Result<Vec<SinkNumber>, String> {
        let names = &mut self.state.lock().names;
        let mut number = |sink: &String| {
            let at = names.iter().position(|name| name == sink).unwrap_or_else(|| {
                names.push(sink.clone());
                names.len() - 1
            });
            SinkNumber(at)
        };
        Ok(sinks.iter().map(&mut number).collect())
    }

    fn keep_only(&self, sinks: &[String]) {
        self.state.lock().kept_only = sinks.to_vec();
    }

    fn on_pending(&self, wake: Wake) {
        if self.wake.set(wake).is_err() {
            self.state.lock().broken.push("on_pending was set twice".to_owned());
        }
    }

    fn take(&self, sink: SinkNumber) -> Option<Task> {
        let mut state = self.state.lock();
        let wall = clock::wall();
        let entry = state.entries.values_mut().find(|entry| entry.is_ready(sink, wall))?;
        entry.place = Place::Taken;
        Some(Task { attempts_made: entry.attempts, ..entry.task.clone() })
    }

    fn pending(&self, sink: SinkNumber) -> usize {
        let state = self.state.lock();
        let wall = clock::wall();
        state.entries.values().filter(|entry| entry.is_ready(sink, wall)).count()
    }

    fn reserve(&self, sink: SinkNumber, task: &Task, attempt: u32) -> io::Result<()> {
        {
            let mut state = self.state.lock();
            if state.reserves_failing > 0 {
                state.reserves_failing -= 1;
                return Err(io::Error::other("the disk is full"));
            }
            if let Some((_, kind)) = state.never.iter().find(|(id, _)| *id == task.id) {
                let kind = *kind;
                // Somebody has ended it behind the sink's back.
                if kind == io::ErrorKind::NotFound
                    && let Some(entry) = state.entries.get_mut(&task.id)
                {
                    entry.place = Place::Ended;
                }
                return Err(kind.into());
            }
        }
        self.with(sink, task, &format!("reserve {attempt}"), |entry| {
            entry.attempts += 1;
            entry.attempts == attempt && entry.task.attempts_max.is_none_or(|max| attempt <= max)
        });
        Ok(())
    }

    fn failed(&self, sink: SinkNumber, task: &Task, attempt: u32, due: SystemTime, error: &DeliveryError) {
        self.with(sink, task, &format!("failed {attempt} {error}"), |entry| {
            entry.due = Some(due);
            entry.attempts == attempt && due > SystemTime::UNIX_EPOCH
        });
    }

    fn ended(&self, sink: SinkNumber, task: &Task, end: &End<'_>) {
        let (what, sound) = match end {
            End::Delivered => ("delivered".to_owned(), true),
            End::Failed { attempts, reason, error } => {
                (format!("given up {attempts} {}: {error}", reason.label()), true)
            }
            End::Dropped(reason) => (format!("dropped {}", reason.label()), false),
        };
        self.with(sink, task, &what, |entry| {
            entry.place = Place::Ended;
            sound
        });
    }

    fn returned(&self, sink: SinkNumber, task: &Task) {
        if self.state.lock().never.contains(&(task.id, io::ErrorKind::NotFound)) {
            return;
        }
        self.with(sink, task, "returned", |entry| {
            entry.place = Place::Pending;
            true
        });
    }
}
