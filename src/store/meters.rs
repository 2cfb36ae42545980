//! The store's metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::Mutex;

use super::body::{Removal, from_ns};
use super::inner::{Inner, Log, State};
use super::journal::Event;
use crate::metrics::{self, Counter, Gauge, Histogram, Registry};

/// Shortest time between two lines of one kind.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// Lets a line out at most once in [`LINE_INTERVAL`].
#[derive(Debug, Default)]
pub(crate) struct LineLimit(Mutex<Option<Instant>>);

impl LineLimit {
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let allowed = last.is_none_or(|at| now.saturating_duration_since(at) >= LINE_INTERVAL);
        if allowed {
            *last = Some(now);
        }
        allowed
    }
}

/// Of one log.
struct LogMeters {
    up: Arc<Gauge>,
    appended: Arc<Counter>,
    synced: Arc<Counter>,
    syncs: Arc<Histogram>,
    records: Arc<Counter>,
    faults: Arc<Counter>,
    used: Arc<AtomicU64>,
}

impl LogMeters {
    fn new(log: Log, registry: &Registry) -> Self {
        let label = [log.label()];
        let used = Arc::new(AtomicU64::new(0));
        let share = Arc::clone(&used);
        registry.gauge_fn(&metrics::STORE_DISK_USED, &label, move || {
            f64::from_bits(share.load(Ordering::Relaxed))
        });
        let up = registry.gauge(&metrics::STORE_UP, &label);
        up.set(1);
        LogMeters {
            up,
            appended: registry.counter(&metrics::STORE_APPENDED_BYTES, &label),
            synced: registry.counter(&metrics::STORE_SYNCED_BYTES, &label),
            syncs: registry.histogram(&metrics::STORE_SYNC_SECONDS, &label),
            records: registry.counter(&metrics::STORE_SYNCED_RECORDS, &label),
            faults: registry.counter(&metrics::STORE_FAULTS, &label),
            used,
        }
    }
}

pub(crate) struct Meters {
    logs: [LogMeters; 2],
    accepting: Arc<Gauge>,
    pub(crate) refused: Arc<Counter>,
    pending: Arc<Gauge>,
    parked: Arc<Gauge>,
    dead: Arc<Gauge>,
    oldest: Arc<Gauge>,
    pub(crate) buried: Arc<Counter>,
    removed: [Arc<Counter>; 3],
    pub(crate) carried: Arc<Counter>,
    pub(crate) imported: Arc<Counter>,
    pub(crate) damages: Arc<Counter>,
    pub(crate) too_long_said: LineLimit,
    pub(crate) unreadable_said: LineLimit,
}

impl Meters {
    pub(crate) fn new(registry: &Registry) -> Self {
        let removed = |why| registry.counter(&metrics::DEAD_LETTERS_REMOVED, &[why]);
        Meters {
            logs: [LogMeters::new(Log::Pending, registry), LogMeters::new(Log::Dead, registry)],
            accepting: registry.gauge(&metrics::STORE_ACCEPTING, &[]),
            refused: registry.counter(&metrics::STORE_REFUSED, &[]),
            pending: registry.gauge(&metrics::STORE_PENDING_TASKS, &[]),
            parked: registry.gauge(&metrics::STORE_PARKED_TASKS, &[]),
            dead: registry.gauge(&metrics::DEAD_LETTERS, &[]),
            oldest: registry.gauge(&metrics::STORE_OLDEST_PENDING_SECONDS, &[]),
            buried: registry.counter(&metrics::DEAD_LETTERS_WRITTEN, &[]),
            removed: [removed("dropped"), removed("replayed"), removed("made_room")],
            carried: registry.counter(&metrics::STORE_CARRIED, &[]),
            imported: registry.counter(&metrics::STORE_IMPORTED, &[]),
            damages: registry.counter(&metrics::STORE_DAMAGES, &[]),
            too_long_said: LineLimit::default(),
            unreadable_said: LineLimit::default(),
        }
    }

    pub(crate) fn removed(&self, why: Removal) -> &Counter {
        match why {
            Removal::Dropped => &self.removed[0],
            Removal::Replayed => &self.removed[1],
            Removal::MadeRoom => &self.removed[2],
        }
    }

    fn of(&self, log: Log) -> &LogMeters {
        match log {
            Log::Pending => &self.logs[0],
            Log::Dead => &self.logs[1],
        }
    }

    /// After a change of the state.
    pub(crate) fn count_tasks(&self, state: &State) {
        let int = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.pending.set(int(state.tasks.len()));
        self.parked.set(int(state.tasks.parked()));
        self.dead.set(int(state.dead.len()));
    }

    /// What is looked at now and then.
    pub(crate) fn look(&self, inner: &Inner, oldest_ns: Option<u64>) {
        let now = (inner.clock)();
        let age = oldest_ns.map_or(Duration::ZERO, |ns| now.duration_since(from_ns(ns)).unwrap_or_default());
        self.oldest.set(age.as_secs() as i64);
        self.accepting.set(i64::from(inner.accepting().is_ok()));
        for log in [Log::Pending, Log::Dead] {
            let meters = self.of(log);
            let used = inner.journal(log).segments().bytes as f64 / inner.bytes_max(log).max(1) as f64;
            meters.used.store(used.to_bits(), Ordering::Relaxed);
            let stats = inner.journal(log).stats();
            meters.appended.add(stats.appended_bytes.saturating_sub(meters.appended.get()));
            meters.synced.add(stats.synced_bytes.saturating_sub(meters.synced.get()));
        }
    }

    /// What a journal tells.
    pub(crate) fn event(&self, log: Log, event: &Event) {
        let meters = self.of(log);
        match event {
            Event::Synced { records, took, .. } => {
                meters.syncs.observe(*took);
                meters.records.add(*records);
            }
            Event::Broken { .. } => {
                meters.up.set(0);
                meters.faults.inc();
            }
            Event::Opened => meters.up.set(1),
            Event::NoRoom { .. } | Event::Room | Event::SetAside { .. } => {}
        }
        if let Some((level, line)) = line(log, event) {
            log::log!(level, "{line}");
        }
    }
}

/// What is said of an event in the diagnostics.
fn line(log: Log, event: &Event) -> Option<(Level, String)> {
    let which = match log {
        Log::Pending => "the store of side effects",
        Log::Dead => "the store of dead letters",
    };
    let (level, what) = match event {
        Event::Synced { .. } => return None,
        Event::Broken { what } => {
            (Level::Error, format!("{what}; nothing is accepted until a fresh segment can be written"))
        }
        Event::Opened => (Level::Info, "the disk takes writes again, on a fresh segment".to_owned()),
        Event::NoRoom { what } => {
            (Level::Error, format!("no room for another segment: {what}; what was accepted goes on"))
        }
        Event::Room => (Level::Info, "there is room again".to_owned()),
        Event::SetAside { file } => (
            Level::Warn,
            format!("{file:?} was damaged and is not needed any more; `queue set-aside` moves it away"),
        ),
    };
    Some((level, format!("{which}: {what}")))
}

#[cfg(test)]
#[path = "tests/meters.rs"]
mod tests;
