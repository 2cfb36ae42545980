//! Looking at the directory of a store that nobody has open, without changing anything in it; and moving damaged files away.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::admin::item;
use super::api::{Filter, Item, Kind, Listed, OpenError, Report, Standing};
use super::body::{Body, Failure, History, TaskBody, to_ns};
use super::disk::{Disk, LOCK_NAME, RealDisk};
use super::inner::Log;
use super::journal::{Entry as Record, Journal, Position};
use super::open::{DEAD_DIR, take_report};
use super::recover::Recovery;
use crate::side_effect::TaskId;

/// Name of the directory that damaged files are moved to.
const QUARANTINE_DIR: &str = "quarantine";
/// End of the name of a segment that was set aside.
const DAMAGED: &str = ".damaged";

/// What is in a store's directory that nobody has open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// As [`super::Store::list`] would list it.
    pub listed: Listed,
    /// Items that belong there and are not, because their records could not be found when they were read for the second time.
    pub left_out: u64,
    /// The record of the only item, where just one matches.
    pub record: Option<Vec<u8>>,
    /// What opening the store would find.
    pub report: Report,
}

/// Lists what is in the store's directory `dir` without changing anything in it, for sinks with these names. Holds the directory's lock, shared, while it
/// reads. Blocks for reads: all of both logs, twice.
///
/// # Errors
/// Another process has the store open: [`OpenError::Locked`]. The disk's.
pub fn look(dir: &Path, sinks: &[String], filter: &Filter, limit: usize) -> Result<Looked, OpenError> {
    let lock = shared_lock(dir)?;
    let pending: Arc<dyn Disk> = Arc::new(RealDisk::existing(dir));
    let dead_dir = dir.join(DEAD_DIR);
    let dead: Option<Arc<dyn Disk>> =
        if dead_dir.is_dir() { Some(Arc::new(RealDisk::existing(&dead_dir))) } else { None };
    let looked = look_on(&*pending, dead.as_deref(), dir, sinks, filter, limit);
    drop(lock);
    looked
}

/// Where a record is: in which log, and where there.
type Wanted = HashMap<(bool, Position), u128>;

pub(super) fn look_on(
    pending: &dyn Disk,
    dead: Option<&dyn Disk>,
    dir: &Path,
    sinks: &[String],
    filter: &Filter,
    limit: usize,
) -> Result<Looked, OpenError> {
    let error = |e: super::journal::OpenError| OpenError::Io {
        doing: format!("async.durable.dir {}", dir.display()),
        error: io::Error::other(e.to_string()),
    };
    let mut recovery = Recovery::new(sinks, 0, 0);
    let mut report = Report::default();
    if let Some(dead) = dead {
        let found = Journal::look(dead, &mut |at, record| recovery.dead_record(at, record)).map_err(error)?;
        take_report(&mut report, &found, &mut recovery.odd, Log::Dead);
    }
    let found = Journal::look(pending, &mut |at, record| recovery.record(at, record)).map_err(error)?;
    take_report(&mut report, &found, &mut recovery.odd, Log::Pending);
    let todo = recovery.finish(to_ns(crate::clock::wall()));
    for id in &todo.ended {
        recovery.tasks.remove(*id);
    }
    for id in &todo.replayed {
        recovery.dead.remove(*id);
    }
    report.outcome_unknown = todo.outcome_unknown;
    report.unknown_sinks = recovery.unknown_sinks();
    report.pending = recovery.tasks.len() as u64;
    report.dead = recovery.dead.len() as u64;
    let (chosen, wanted, matched) = choose(&recovery, filter, limit);
    let mut details = Details::default();
    if let Some(dead) = dead {
        Journal::look(dead, &mut |at, record| details.see(&recovery, &wanted, true, at, record))
            .map_err(error)?;
    }
    Journal::look(pending, &mut |at, record| details.see(&recovery, &wanted, false, at, record))
        .map_err(error)?;
    let (items, record) = details.items(&recovery, &chosen);
    let left_out = (chosen.len() - items.len()) as u64;
    Ok(Looked { listed: Listed { items, matched }, left_out, record, report })
}

/// The oldest that match, and the records that tell of them.
fn choose(recovery: &Recovery, filter: &Filter, limit: usize) -> (Vec<(Kind, u128)>, Wanted, u64) {
    let destinations = &recovery.tasks.destinations;
    let mut tasks: Vec<(u64, u128)> = recovery
        .tasks
        .iter()
        .filter(|e| filter.takes_task(e, destinations))
        .map(|e| (e.order, e.id))
        .collect();
    tasks.sort_unstable();
    let dead = recovery.dead.iter().filter(|e| filter.takes_dead(e, destinations));
    let dead: Vec<u128> = dead.map(|e| e.id).collect();
    let matched = (tasks.len() + dead.len()) as u64;
    let mut chosen: Vec<(Kind, u128)> = tasks.into_iter().map(|(_, id)| (Kind::Pending, id)).collect();
    chosen.extend(dead.into_iter().map(|id| (Kind::Dead, id)));
    chosen.truncate(limit);
    let mut wanted = Wanted::new();
    for (kind, id) in &chosen {
        match kind {
            Kind::Pending => {
                if let Some(entry) = recovery.tasks.get(*id) {
                    wanted.insert((false, entry.at), *id);
                    wanted.extend(entry.tried().failed_at.map(|at| ((false, at), *id)));
                }
            }
            Kind::Dead => wanted.extend(recovery.dead.get(*id).map(|e| ((true, e.at), *id))),
        }
    }
    (chosen, wanted, matched)
}

/// What the second look finds. Records are not kept but for the one that is asked for alone, so that what is held is as much as what is
/// listed.
#[derive(Default)]
struct Details {
    items: HashMap<(bool, u128), Item>,
    failures: HashMap<u128, Failure>,
    record: Option<Vec<u8>>,
}

impl Details {
    fn see(&mut self, recovery: &Recovery, wanted: &Wanted, dead: bool, at: Position, record: Record<'_>) {
        let Some(id) = wanted.get(&(dead, at)) else { return };
        match Body::decode(record.kind, record.body) {
            Ok(Body::Failed { failure, .. }) => drop(self.failures.insert(*id, failure)),
            Ok(Body::Carried(history, task)) => {
                self.failures.insert(*id, history.failure);
                self.pending(recovery, &task);
            }
            Ok(Body::Accepted(task)) => self.pending(recovery, &task),
            Ok(Body::DeadLetter { dead_ns, history, task }) => {
                let sink = recovery.dead.get(*id).map_or(u32::MAX, |e| e.sink);
                let known = known(recovery, sink);
                let item = item(Kind::Dead, Standing::Dead, known, &history, &task, dead_ns);
                self.keep(item, &task);
            }
            _ => {}
        }
    }

    fn pending(&mut self, recovery: &Recovery, task: &TaskBody<'_>) {
        let Some(entry) = recovery.tasks.get(task.id) else { return };
        let tried = entry.tried();
        let failure = Failure {
            last_ns: tried.last_ns,
            next_due_ns: tried.next_due_ns,
            reason: tried.reason,
            ..Failure::default()
        };
        let history = History {
            attempts: tried.attempts,
            unfinished: tried.unfinished,
            first_ns: tried.first_ns,
            failure,
        };
        let standing = if tried.reason.is_some() { Standing::Dying } else { Standing::Waiting };
        let item = item(Kind::Pending, standing, known(recovery, entry.sink), &history, task, 0);
        self.keep(item, task);
    }

    fn keep(&mut self, item: Item, task: &TaskBody<'_>) {
        self.record = self.items.is_empty().then(|| task.record.to_vec());
        self.items.insert((item.kind == Kind::Dead, task.id), item);
    }

    /// The items in the order of `chosen`, each with its last failure; and the record, if there is one item.
    fn items(mut self, recovery: &Recovery, chosen: &[(Kind, u128)]) -> (Vec<Item>, Option<Vec<u8>>) {
        let mut items = Vec::with_capacity(chosen.len());
        for (kind, id) in chosen {
            let Some(mut item) = self.items.remove(&(*kind == Kind::Dead, *id)) else { continue };
            let failed = recovery.tasks.get(*id).is_some_and(|e| e.tried().failed_at.is_some());
            if let Some(failure) = self.failures.remove(id).filter(|_| failed && *kind == Kind::Pending) {
                item.status = (failure.status != 0).then_some(failure.status);
                item.error = failure.error;
            }
            items.push(item);
        }
        (items, self.record)
    }
}

/// Whether the configuration has the sink.
fn known(recovery: &Recovery, sink: u32) -> bool {
    recovery.tasks.destinations.get(sink as usize).is_some_and(|d| d.number.is_some())
}

/// Moves the files that were set aside because of damage (`*.damaged`) in `dir` and its dead letters' directory to `dir/quarantine/`. Their new
/// places. Segments in use are not touched. Blocks for the disk.
///
/// # Errors
/// Those of making the directory and of renaming; what was moved before stays there.
pub fn set_aside(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    let quarantine = dir.join(QUARANTINE_DIR);
    for (from, prefix) in [(dir.to_owned(), ""), (dir.join(DEAD_DIR), "dead-")] {
        if !from.is_dir() {
            continue;
        }
        let disk = RealDisk::existing(&from);
        let damaged: Vec<String> =
            disk.list()?.into_iter().map(|l| l.name).filter(|name| name.ends_with(DAMAGED)).collect();
        if damaged.is_empty() {
            continue;
        }
        RealDisk::open(&quarantine)?;
        for name in damaged {
            let to = quarantine.join(format!("{prefix}{name}"));
            let told =
                |e: io::Error| io::Error::new(e.kind(), format!("cannot move {name:?} to {to:?}: {e}"));
            std::fs::rename(from.join(&name), &to).map_err(told)?;
            moved.push(to);
        }
        disk.sync_dir()?;
        RealDisk::existing(&quarantine).sync_dir()?;
    }
    Ok(moved)
}

/// The directory's lock, shared, without writing; `None` where there has never been one.
fn shared_lock(dir: &Path) -> Result<Option<File>, OpenError> {
    let path = dir.join(LOCK_NAME);
    let io = |error| OpenError::Io { doing: format!("cannot look at {path:?}"), error };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound && dir.is_dir() => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(OpenError::Locked { dir: dir.to_owned(), pid: pid_in(&file) })
        }
        Err(std::fs::TryLockError::Error(e)) => Err(io(e)),
    }
}

fn pid_in(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let n = std::os::unix::fs::FileExt::read_at(file, &mut text, 0).ok()?;
    std::str::from_utf8(&text[..n]).ok()?.trim().parse().ok()
}

/// The only item that a look for `id` finds, with its record.
///
/// # Errors
/// As [`look`].
pub fn look_at(dir: &Path, sinks: &[String], id: TaskId) -> Result<Option<(Item, Vec<u8>)>, OpenError> {
    let filter = Filter { ids: vec![id], ..Filter::default() };
    let mut looked = look(dir, sinks, &filter, 1)?;
    Ok(looked.listed.items.pop().map(|item| (item, looked.record.unwrap_or_default())))
}
