//! The durable store as a [`TaskBook`]: open in this process, or looked at while nobody has it open.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tasks::{Changed, Condition, Filter, Page, State, TaskBook, TaskLine, time_text};
use crate::metrics::{self, Registry};
use crate::side_effect::{Ledger as _, TaskId};
use crate::store::{self, Item, Kind, OpenError, Store};

/// An open store.
pub struct OpenBook {
    store: Arc<Store>,
    registry: Arc<Registry>,
    dir: PathBuf,
    bytes_max: u64,
    damages: Vec<String>,
}

impl OpenBook {
    /// `registry` is the one that the store was opened with; `dir`, `bytes_max` and `report` are of its opening.
    pub fn new(
        store: Arc<Store>,
        registry: Arc<Registry>,
        dir: &Path,
        bytes_max: u64,
        report: &store::Report,
    ) -> OpenBook {
        let damages = report.damages.iter().map(ToString::to_string).collect();
        OpenBook { store, registry, dir: dir.to_owned(), bytes_max, damages }
    }

    fn gauge(&self, family: &'static metrics::Family) -> u64 {
        u64::try_from(self.registry.gauge(family, &[]).get()).unwrap_or(0)
    }
}

impl TaskBook for OpenBook {
    fn list(&self, filter: &Filter, offset: u64, limit: usize) -> io::Result<Page> {
        let listed = self.store.list(&of_store(filter), ahead(offset, limit));
        Ok(Page { damages: self.damages.clone(), ..page(listed, offset, limit) })
    }

    fn show(&self, id: TaskId) -> io::Result<Option<(TaskLine, Vec<u8>)>> {
        Ok(self.store.show(id).map(|(item, record)| (line(&item), record)))
    }

    fn replay(&self, filter: &Filter) -> io::Result<Changed> {
        let mut changed = Changed::default();
        for replayed in self.store.replay(&of_store(filter), usize::MAX) {
            note(&mut changed, replayed.dead, replayed.task.map(drop));
        }
        Ok(changed)
    }

    fn discard(&self, filter: &Filter) -> io::Result<Changed> {
        let mut changed = Changed::default();
        for dropped in Store::drop(&self.store, &of_store(filter), usize::MAX) {
            note(&mut changed, dropped.id, dropped.result);
        }
        Ok(changed)
    }

    fn set_aside(&self) -> io::Result<Vec<String>> {
        let moved = self.store.set_aside()?;
        Ok(moved.iter().map(|path| path.display().to_string()).collect())
    }

    fn condition(&self) -> Condition {
        Condition {
            pending: self.gauge(&metrics::STORE_PENDING_TASKS),
            dead: self.gauge(&metrics::DEAD_LETTERS),
            bytes: bytes_in(&self.dir),
            bytes_max: self.bytes_max,
            oldest_pending_s: self.gauge(&metrics::STORE_OLDEST_PENDING_SECONDS),
            refusing: self.store.accepting().err().map(|refused| refused.to_string()),
            damages: self.damages.clone(),
        }
    }
}

/// The directory of a store that nobody has open. Looks, and changes nothing.
pub(crate) struct ClosedBook {
    pub(crate) dir: PathBuf,
    /// Names of the sinks that the configuration has.
    pub(crate) sinks: Vec<String>,
}

impl ClosedBook {
    fn look(&self, filter: &store::Filter, limit: usize) -> io::Result<store::Looked> {
        store::look(&self.dir, &self.sinks, filter, limit).map_err(io_error)
    }
}

/// What an opening failed with, as the error of a question.
fn io_error(error: OpenError) -> io::Error {
    match error {
        OpenError::Locked { .. } => io::Error::new(io::ErrorKind::ResourceBusy, error.to_string()),
        OpenError::Io { doing, error } => io::Error::new(error.kind(), format!("{doing}: {error}")),
        other => io::Error::other(other.to_string()),
    }
}

const NOT_OPEN: &str = "the store is looked at only";

impl TaskBook for ClosedBook {
    fn list(&self, filter: &Filter, offset: u64, limit: usize) -> io::Result<Page> {
        let looked = self.look(&of_store(filter), ahead(offset, limit))?;
        let damages = looked.report.damages.iter().map(ToString::to_string).collect();
        Ok(Page { damages, ..page(looked.listed, offset, limit) })
    }

    fn show(&self, id: TaskId) -> io::Result<Option<(TaskLine, Vec<u8>)>> {
        let found = store::look_at(&self.dir, &self.sinks, id).map_err(io_error)?;
        Ok(found.map(|(item, record)| (line(&item), record)))
    }

    fn replay(&self, _: &Filter) -> io::Result<Changed> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, NOT_OPEN))
    }

    fn discard(&self, _: &Filter) -> io::Result<Changed> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, NOT_OPEN))
    }

    fn set_aside(&self) -> io::Result<Vec<String>> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, NOT_OPEN))
    }

    fn condition(&self) -> Condition {
        let report = self.look(&store::Filter::default(), 0).map(|looked| looked.report).unwrap_or_default();
        Condition {
            pending: report.pending,
            dead: report.dead,
            bytes: bytes_in(&self.dir),
            refusing: Some("no server runs".to_owned()),
            damages: report.damages.iter().map(ToString::to_string).collect(),
            ..Condition::default()
        }
    }
}

fn note(changed: &mut Changed, id: TaskId, result: Result<(), String>) {
    match result {
        Ok(()) => changed.done += 1,
        Err(why) => changed.failed.push(format!("{id}: {why}")),
    }
}

fn of_store(filter: &Filter) -> store::Filter {
    store::Filter {
        kind: filter.state.map(|state| match state {
            State::Pending => Kind::Pending,
            State::Dead => Kind::Dead,
        }),
        ids: filter.ids.clone(),
        groups: filter.group.iter().cloned().collect(),
        sinks: filter.sink.iter().cloned().collect(),
        since: filter.since,
        until: filter.until,
        reasons: filter.reason.into_iter().collect(),
    }
}

/// How many the store has to list for a page.
fn ahead(offset: u64, limit: usize) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(limit)
}

fn page(listed: store::Listed, offset: u64, limit: usize) -> Page {
    let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
    let tasks: Vec<TaskLine> = listed.items.iter().skip(skipped).take(limit).map(line).collect();
    let end = offset.saturating_add(tasks.len() as u64);
    let next = (end < listed.matched && !tasks.is_empty()).then_some(end);
    Page { tasks, total: listed.matched, next, damages: Vec::new() }
}

fn line(item: &Item) -> TaskLine {
    TaskLine {
        id: item.id.to_string(),
        state: match item.kind {
            Kind::Pending => State::Pending,
            Kind::Dead => State::Dead,
        },
        standing: item.standing.label().to_owned(),
        group: item.group.clone(),
        sink: item.sink.clone(),
        sink_known: item.sink_known,
        source: item.source.clone(),
        accepted_at: time_text(item.accepted_at),
        attempts: item.attempts,
        attempts_max: item.attempts_max,
        expires_at: item.expires_at.map(time_text),
        first_attempt_at: item.first_attempt_at.map(time_text),
        last_attempt_at: item.last_attempt_at.map(time_text),
        next_due_at: item.next_due_at.map(time_text),
        last_status: item.status,
        last_error: (!item.error.is_empty()).then(|| item.error.clone()),
        dead_at: item.dead_at.map(time_text),
        reason: item.reason.map(|reason| reason.label().to_owned()),
        replay_of: item.origin.map(|id| id.to_string()),
        attempts_before: item.origin_attempts,
        record_bytes: item.record_bytes,
    }
}

/// Bytes of the files in the store's directory and one level below.
fn bytes_in(dir: &Path) -> u64 {
    let files = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))).collect::<Vec<_>>()
    };
    let mut total = 0;
    for (path, metadata) in files(dir) {
        if metadata.is_dir() {
            total += files(&path).iter().map(|(_, m)| if m.is_file() { m.len() } else { 0 }).sum::<u64>();
        } else if metadata.is_file() {
            total += metadata.len();
        }
    }
    total
}
