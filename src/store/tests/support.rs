//! What the tests share: stores without threads, a clock that is set by hand, tasks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::metrics::Registry;
use crate::side_effect::retry::{Class, GiveUp};
use crate::side_effect::{End, Ledger, Refused, SinkNumber, Task, TaskId};
use crate::sink::DeliveryError;
use crate::store::body::from_ns;
use crate::store::disk::{Disk, RealDisk};
use crate::store::inner::Bugs;
use crate::store::open::{Base, open_on};
use crate::store::{OpenError, Report, Settings, Store};

/// A directory of its own, removed when dropped.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(what: &str) -> Dir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vaf-store-{what}-{}-{n}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Dir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A clock that is set by hand, in seconds.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(crate) fn at(seconds: u64) -> TestClock {
        TestClock(Arc::new(AtomicU64::new(seconds)))
    }

    pub(crate) fn now(&self) -> SystemTime {
        from_ns(self.0.load(Ordering::SeqCst) * 1_000_000_000)
    }

    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    pub(crate) fn add(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn sinks() -> Vec<String> {
    vec!["a/slack".to_owned(), "a/forward".to_owned(), "b/slack".to_owned()]
}

pub(crate) fn settings(dir: &Path) -> Settings {
    Settings { segment_bytes: Some(64 << 10), ..Settings::new(dir, 8 * MIB) }
}

/// A store on these disks, without threads.
pub(crate) fn open_with(
    disks: (Arc<dyn Disk>, Arc<dyn Disk>),
    settings: Settings,
    sinks: &[String],
    clock: &TestClock,
    bugs: Bugs,
    registry: &Registry,
) -> Result<(Store, Report), OpenError> {
    let clock = clock.clone();
    let base = Base {
        pending: disks.0,
        dead: disks.1,
        clock: Arc::new(move || clock.now()),
        store: 7,
        lock: None,
        bugs,
    };
    let (inner, _, report) = open_on(base, settings, sinks, registry)?;
    Ok((Store { inner, threads: Mutex::new(None) }, report))
}

/// A store in a real directory, without threads and lock.
pub(crate) fn open(dir: &Path, clock: &TestClock) -> (Store, Report) {
    open_settings(settings(dir), clock)
}

pub(crate) fn open_settings(settings: Settings, clock: &TestClock) -> (Store, Report) {
    let disk = |path: &Path| -> Arc<dyn Disk> { Arc::new(RealDisk::open(path).expect("a directory")) };
    let disks = (disk(&settings.dir), disk(&settings.dir.join("dead")));
    open_with(disks, settings, &sinks(), clock, Bugs::default(), &Registry::new()).expect("a store")
}

/// Everything that is due now, and what follows from it.
pub(crate) fn settle(store: &Store) {
    for _ in 0..3 {
        store.inner.tick();
        store.inner.pending.commit();
        store.inner.dead.commit();
        store.inner.pending.tick(crate::clock::now());
        store.inner.dead.tick(crate::clock::now());
    }
}

pub(crate) fn task(group: &str, record: &[u8], clock: &TestClock) -> Task {
    Task::new(group.into(), record.into(), "http", clock.now())
}

/// Accepts tasks and waits until they are durable.
pub(crate) fn accept(store: &Store, tasks: &[(SinkNumber, Task)]) -> Result<(), Refused> {
    let (told, answer) = crossbeam_channel::bounded(1);
    store.accept(tasks, Box::new(move |result| told.send(result).expect("somebody waits")));
    store.commit();
    // Another thread may be the one that syncs.
    answer.recv_timeout(LATER).expect("an answer")
}

/// Accepts one task for sink 0.
pub(crate) fn accept_one(store: &Store, record: &[u8], clock: &TestClock) -> TaskId {
    let task = task("a", record, clock);
    let id = task.id;
    accept(store, &[(SinkNumber(0), task)]).expect("accepted");
    id
}

pub(crate) fn error(message: &str) -> DeliveryError {
    DeliveryError::new(Class::Transient, message).with_status(503)
}

pub(crate) fn give_up(store: &Store, sink: usize, task: &Task, attempts: u32, reason: GiveUp, message: &str) {
    let error = error(message);
    store.ended(SinkNumber(sink), task, &End::Failed { attempts, reason, error: &error });
}

/// Takes the next task of sink 0, tries it once, and gives it up.
pub(crate) fn kill_next(store: &Store, message: &str) -> TaskId {
    let task = store.take(SinkNumber(0)).expect("a task");
    let attempt = task.attempts_made + 1;
    store.reserve(SinkNumber(0), &task, attempt).expect("reserved");
    give_up(store, 0, &task, attempt, GiveUp::Permanent, message);
    task.id
}

pub(crate) const LATER: Duration = Duration::from_secs(30);
