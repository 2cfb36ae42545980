//! Opening a store: the lock, both logs, what recovery found to do, the import, the threads.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, bounded};
use log::Level;
use parking_lot::Mutex;

use super::api::{Damage, OpenError, Report, Settings};
use super::body::{Body, NAME_BYTES_MAX, Removal};
use super::disk::{Disk, Lock, LockError, RealDisk};
use super::inner::{Clock, Inner, Log, State, capacity};
use super::journal::{self, Event, Journal, Options, Position};
use super::keeper::Threads;
use super::meters::Meters;
use super::recover::{Recovery, Todo};
use super::{Opened, Store, import};
use crate::clock;
use crate::metrics::Registry;
use crate::side_effect::Refused;
use crate::side_effect::retry::Limits;

/// Name of the dead letters' directory in the store's.
pub(crate) const DEAD_DIR: &str = "dead";
/// Smallest bound that has room for both logs.
pub const BYTES_MAX_MIN: u64 = 2 << 20;

/// What a store stands on, but for the settings.
pub(super) struct Base {
    pub(super) pending: Arc<dyn Disk>,
    pub(super) dead: Arc<dyn Disk>,
    pub(super) clock: Clock,
    pub(super) store: u128,
    pub(super) lock: Option<Lock>,
    #[cfg(test)]
    pub(super) bugs: super::inner::Bugs,
}

impl Store {
    /// Opens the store in `settings.dir`, made if it is missing, for sinks with these names (`GROUP/slack`; a sink's place is its
    /// [`SinkNumber`](crate::side_effect::SinkNumber)); reads what is pending, imports the predecessor's files, starts the threads. Blocks: some
    /// 0.5 s for a million pending tasks.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing was lost; damage is no error but told in the report and in the diagnostics.
    pub fn open(settings: Settings, sinks: &[String], registry: &Registry) -> Result<Opened, OpenError> {
        let dir = settings.dir.clone();
        let pending = real_disk(&dir)?;
        let lock = pending.lock().map_err(|e| lock_error(&dir, e))?;
        let dead = real_disk(&dir.join(DEAD_DIR))?;
        let base = Base {
            pending: Arc::new(pending),
            dead: Arc::new(dead),
            clock: Arc::new(clock::wall),
            store: fastrand::u128(1..),
            lock: Some(lock),
            #[cfg(test)]
            bugs: super::inner::Bugs::default(),
        };
        let (inner, kicked, mut report) = open_on(base, settings, sinks, registry)?;
        import::run(&inner, &dir, &mut report);
        say(&dir, &report);
        let threads = Threads::start(&inner, kicked)
            .map_err(|error| OpenError::Io { doing: "starting the store's threads".to_owned(), error })?;
        let store = Arc::new(Store { inner, threads: Mutex::new(Some(threads)) });
        Ok(Opened { store, report })
    }

    /// Longest record that fits into the store, in bytes; longer ones are refused with [`Refused::Full`], said in the diagnostics.
    pub fn record_bytes_max(&self) -> usize {
        self.inner.record_bytes_max()
    }

    /// Tasks that can be taken, of all sinks that there are or were.
    pub fn ready(&self) -> usize {
        self.inner.state.lock().tasks.ready_in_all()
    }

    /// What the tasks of later replays are given.
    pub fn set_limits(&self, limits: Limits) {
        *self.inner.limits.lock() = limits;
    }

    /// Ends the threads, makes everything durable, and marks the logs as closed in order; later acceptances are refused. What is pending
    /// stays. Blocks for the disk. Only the first call does something.
    ///
    /// # Errors
    /// Why not everything has become durable.
    pub fn close(&self) -> Result<(), Refused> {
        if let Some(threads) = self.threads.lock().take() {
            threads.stop(&self.inner);
        }
        self.inner.close()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            log::error!("{e} while it was being closed; what was accepted is kept");
        }
    }
}

fn real_disk(dir: &Path) -> Result<RealDisk, OpenError> {
    RealDisk::open(dir).map_err(|error| OpenError::Io {
        doing: format!(
            "async.durable.dir {}: it has to be a directory that this user can write to",
            dir.display()
        ),
        error,
    })
}

fn lock_error(dir: &Path, error: LockError) -> OpenError {
    match error {
        LockError::Held { pid, .. } => OpenError::Locked { dir: dir.to_owned(), pid },
        LockError::Io { error, path } => OpenError::Io {
            doing: format!(
                "async.durable.dir: cannot lock {path:?}; the directory has to be writable for this user"
            ),
            error,
        },
    }
}

/// The options of a log with this bound.
fn options(bytes_max: u64, segment_bytes: Option<u64>, store: u128, watch: journal::Watch) -> Options {
    let mut options = Options::new(bytes_max, store, watch);
    if let Some(bytes) = segment_bytes {
        options.segment_bytes = u32::try_from(bytes).unwrap_or(u32::MAX) / 4096 * 4096;
    }
    // As long as a segment can hold, with some room for what the log itself writes there.
    options.record_bytes_max = options.segment_bytes.saturating_sub(2 * 4096);
    options.unsynced_bytes_max = options.unsynced_bytes_max.max(2 * options.segment_bytes as usize);
    options
}

/// Longest record, and most that the tasks of one request may take together, in bytes, of a store of `bytes_max` bytes.
pub fn record_bytes_max(bytes_max: u64) -> usize {
    let settings = Settings::new("", bytes_max);
    let watch: journal::Watch = Arc::new(|_: &Event| {});
    let longest = |bytes| options(bytes, None, 1, Arc::clone(&watch)).record_bytes_max;
    let pending = bytes_max.saturating_sub(settings.dead_bytes_max);
    let body_bytes_max = longest(pending).min(longest(settings.dead_bytes_max));
    super::accept::record_bytes_max(body_bytes_max as usize)
}

/// Whether a sink's name can be stored; the error says what to do.
pub(super) fn check_name(sink: &str) -> Result<(), String> {
    if sink.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let start = super::body::cut(sink, 64);
    Err(format!("the name of sink {start:?} is longer than {NAME_BYTES_MAX} bytes: shorten the group's"))
}

fn check(settings: &Settings, sinks: &[String]) -> Result<(), OpenError> {
    let pending = settings.bytes_max.saturating_sub(settings.dead_bytes_max);
    let too_few =
        settings.bytes_max < BYTES_MAX_MIN || settings.dead_bytes_max.min(pending) < BYTES_MAX_MIN / 4;
    if too_few && settings.segment_bytes.is_none() {
        return Err(OpenError::Setting(format!(
            "async.durable.max_bytes: {} bytes are too few, {} of them for dead letters; give it at least {BYTES_MAX_MIN}",
            settings.bytes_max, settings.dead_bytes_max
        )));
    }
    for (i, sink) in sinks.iter().enumerate() {
        check_name(sink).map_err(OpenError::Setting)?;
        if sinks[..i].contains(sink) {
            return Err(OpenError::Setting(format!(
                "two sinks are called {sink:?}: give their groups different names"
            )));
        }
    }
    Ok(())
}

/// Opens both logs and does what recovery asks for; starts no thread, takes no lock, imports nothing.
pub(super) fn open_on(
    base: Base,
    settings: Settings,
    sinks: &[String],
    registry: &Registry,
) -> Result<(Arc<Inner>, Receiver<()>, Report), OpenError> {
    check(&settings, sinks)?;
    let meters = Arc::new(Meters::new(registry));
    let (kick, kicked) = bounded(1);
    let watch = |log| -> journal::Watch {
        let (meters, kick) = (Arc::clone(&meters), kick.clone());
        Arc::new(move |event: &Event| {
            meters.event(log, event);
            if *event == Event::Opened {
                let _ = kick.try_send(());
            }
        })
    };
    let mut dead_options =
        options(settings.dead_bytes_max, settings.segment_bytes, base.store, watch(Log::Dead));
    // Nobody waits for a dead letter.
    dead_options.spare_segments = 1;
    let dead_segment_bytes = u64::from(dead_options.segment_bytes);
    let dead_body_max = dead_options.record_bytes_max;
    let bytes_max = settings.bytes_max.saturating_sub(settings.dead_bytes_max);
    let pending_options = options(bytes_max, settings.segment_bytes, base.store, watch(Log::Pending));
    let segment_bytes = u64::from(pending_options.segment_bytes);
    let mut recovery = Recovery::new(sinks, capacity(segment_bytes), capacity(dead_segment_bytes));
    let (dead, dead_report) =
        Journal::open(base.dead, dead_options, &mut |at, record| recovery.dead_record(at, record))
            .map_err(|e| journal_error(&settings, e))?;
    let mut report = Report::default();
    take_report(&mut report, &dead_report, &mut recovery.odd, Log::Dead);
    let body_max = pending_options.record_bytes_max.min(dead_body_max);
    let (pending, pending_report) =
        Journal::open(base.pending, pending_options, &mut |at, record| recovery.record(at, record))
            .map_err(|e| journal_error(&settings, e))?;
    take_report(&mut report, &pending_report, &mut recovery.odd, Log::Pending);
    let todo = recovery.finish(super::body::to_ns((base.clock)()));
    report.outcome_unknown = todo.outcome_unknown;
    report.unknown_sinks = recovery.unknown_sinks();
    meters.damages.add(report.damages.len() as u64);
    let inner = Arc::new(Inner {
        limits: Mutex::new(Limits { attempts_max: settings.attempts_max, age_max: settings.age_max }),
        settings,
        sink_names: ArcSwap::from_pointee(sinks.iter().map(|s| Arc::from(s.as_str())).collect()),
        pending: Arc::new(pending),
        dead: Arc::new(dead),
        body_bytes_max: body_max as usize,
        segment_bytes,
        dead_segment_bytes,
        state: Mutex::new(State {
            tasks: recovery.tasks,
            dead: recovery.dead,
            lost: Vec::new(),
            lost_dead: Vec::new(),
            full_said: false,
            closed: false,
            futile: [0; 2],
        }),
        wake: OnceLock::new(),
        clock: base.clock,
        meters,
        kick,
        chores: Mutex::new(()),
        stopping: AtomicBool::new(false),
        _lock: base.lock,
        #[cfg(test)]
        bugs: base.bugs,
    });
    finish(&inner, &todo);
    let state = inner.state.lock();
    report.pending = state.tasks.len() as u64;
    report.dead = state.dead.len() as u64;
    inner.meters.count_tasks(&state);
    drop(state);
    inner.meters.look(&inner, None);
    Ok((inner, kicked, report))
}

/// Ends what has ended, durably, before anybody can see it.
fn finish(inner: &Arc<Inner>, todo: &Todo) {
    let mut state = inner.state.lock();
    for id in &todo.ended {
        inner.end_task(&mut state, &Body::DeadLettered { id: *id });
    }
    for id in &todo.replayed {
        inner.remove_dead(&mut state, *id, Removal::Replayed);
    }
    drop(state);
    if !todo.ended.is_empty() {
        inner.pending.commit();
    }
    if !todo.replayed.is_empty() {
        inner.dead.commit();
    }
}

fn journal_error(settings: &Settings, error: journal::OpenError) -> OpenError {
    match error {
        journal::OpenError::Options(what) => {
            OpenError::Setting(format!("async.durable.max_bytes {}: {what}", settings.bytes_max))
        }
        journal::OpenError::Io { file, doing, error } => {
            let kind = error.kind();
            let cure = match kind {
                io::ErrorKind::StorageFull => "; free some room: the newest segment is written anew at start",
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "; the directory and its files have to be writable for this user"
                }
                _ => "",
            };
            OpenError::Io {
                doing: format!("async.durable.dir {}: cannot {doing} {file:?}{cure}", settings.dir.display()),
                error,
            }
        }
    }
}

/// Adds what one log found.
pub(super) fn take_report(
    report: &mut Report,
    found: &journal::Report,
    odd: &mut Vec<(Position, super::body::BodyError)>,
    log: Log,
) {
    for damage in &found.damages {
        let name = Path::new(&damage.file).file_name().unwrap_or_default().to_string_lossy();
        let file = in_log(log, &name);
        report.damages.push(Damage { file, offset: damage.offset, what: damage.what.to_string() });
    }
    for (at, error) in odd.drain(..) {
        let file = in_log(log, &journal::format::segment_name(at.segment));
        let what = format!("{error}; the record is left out");
        report.damages.push(Damage { file, offset: u64::from(at.offset), what });
    }
    report.segments += found.segments;
    report.bytes += found.bytes;
}

/// The name of a log's file, relative to the store's directory.
fn in_log(log: Log, name: &str) -> String {
    match log {
        Log::Pending => name.to_owned(),
        Log::Dead => format!("{DEAD_DIR}/{name}"),
    }
}

fn say(dir: &Path, report: &Report) {
    for (level, line) in lines(dir, report) {
        log::log!(level, "{line}");
    }
}

/// What was found, for people.
fn lines(dir: &Path, report: &Report) -> Vec<(Level, String)> {
    let store = format!("store of side effects {}", dir.display());
    let mut lines = Vec::new();
    for damage in &report.damages {
        let line = format!("{store}: {damage}; `queue set-aside` moves damaged files away");
        lines.push((Level::Error, line));
    }
    for (sink, tasks) in &report.unknown_sinks {
        let line = format!(
            "{tasks} pending tasks are for {sink:?}, which the configuration does not have: they are kept; give the group its sink \
             back, or drop them with `queue drop --sink`"
        );
        lines.push((Level::Warn, line));
    }
    for (file, why) in &report.not_imported {
        lines.push((Level::Warn, format!("{file:?} was not imported and stays where it is: {why}")));
    }
    let line = format!(
        "{store}: {} tasks pending, {} dead letters, {} imported, {} of unknown outcome; {} segments, {} bytes",
        report.pending, report.dead, report.imported, report.outcome_unknown, report.segments, report.bytes
    );
    lines.push((Level::Info, line));
    lines
}

impl Inner {
    /// A position, for people.
    pub(super) fn place(&self, log: Log, at: Position) -> String {
        format!("{} at byte {}", in_log(log, &journal::format::segment_name(at.segment)), at.offset)
    }
}

#[cfg(test)]
#[path = "tests/open.rs"]
mod tests;
