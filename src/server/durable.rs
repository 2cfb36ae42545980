//! The durable store in the server: opened first, watched while it runs, closed last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ServeError;
use crate::config::{Config, DeadLetters, SideEffects as SideEffectsConfig};
use crate::metrics::{self, Counter, Registry};
use crate::pipeline::Pipeline;
use crate::service::ReadyCheck;
use crate::side_effect::retry::Policy;
use crate::side_effect::{Ledger, SinkSpec};
use crate::store::{DeadKeep, Opened, Settings, Store};

/// Shortest time between two lines about refused records.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Why a record was refused that needed the store.
const STORE_REASONS: [&str; 4] = ["store_full", "store_broken", "store_closed", "store_busy"];

/// How the configuration wants its store opened.
pub(crate) fn settings(effects: &SideEffectsConfig) -> Settings {
    let durable = &effects.durable;
    let limits = Policy::from_config(effects).limits();
    Settings {
        dead_keep: match durable.dead_letters {
            DeadLetters::All => DeadKeep::All,
            DeadLetters::Newest => DeadKeep::Newest,
        },
        attempts_max: limits.attempts_max,
        age_max: limits.age_max,
        ..Settings::new(&durable.dir, durable.max_bytes)
    }
}

/// Opens the store for these sinks, where the configuration asks for one. What was found in it is in the diagnostics.
pub(super) fn open(
    config: &Config,
    sinks: &[SinkSpec],
    registry: &Registry,
) -> Result<Option<Opened>, ServeError> {
    let effects = &config.side_effects;
    let durable = &effects.durable;
    if !durable.enabled {
        return Ok(None);
    }
    let names: Vec<String> = sinks.iter().map(SinkSpec::name).collect();
    let opened =
        Store::open(settings(effects), &names, registry).map_err(|e| ServeError::Runtime(e.to_string()))?;
    if effects.workers == 0 {
        log::warn!("async.workers is 0: tasks are stored and not delivered");
    }
    let longest = opened.store.record_bytes_max();
    if longest < config.limits.record_bytes_max {
        log::info!(
            "the store takes {longest} bytes of records at a time: larger requests with side effects get 413, larger lines and datagrams go \
             to the quarantine log; a larger async.durable.max_bytes takes more, up to 16 MB"
        );
    }
    Ok(Some(opened))
}

/// The store as the side effects see it.
pub(super) fn ledger(store: &Arc<Store>) -> Arc<dyn Ledger> {
    Arc::clone(store) as Arc<dyn Ledger>
}

/// Readiness is red while the store takes no tasks.
pub(super) fn check(pipeline: &Pipeline) -> Option<ReadyCheck> {
    pipeline.store_check().map(|check| ReadyCheck { name: "durable store", check })
}

/// Closes the store when nobody uses it any more, and says what waits in it.
pub(super) fn close(store: &Store, unfinished: u64) {
    let waiting = store.ready() as u64 + unfinished;
    match store.close() {
        Ok(()) if waiting > 0 => log::info!("{waiting} tasks wait in the store for the next start"),
        Ok(()) => {}
        Err(e) => log::error!("the store could not be closed in order: {e}; what was accepted is kept"),
    }
}

/// Says when the store begins to refuse and when it takes tasks again, once each: on the supervisor's thread, since the request path
/// writes no diagnostics.
pub(super) struct Watch {
    ledger: Arc<dyn Ledger>,
    refused: Vec<Arc<Counter>>,
    /// Refused records that a line has told of.
    told: u64,
    stopped: bool,
    last_line: Option<Instant>,
}

impl Watch {
    pub(super) fn new(ledger: Arc<dyn Ledger>, registry: &Registry) -> Self {
        let refused =
            STORE_REASONS.iter().map(|reason| registry.counter(&metrics::RECORDS_REFUSED, &[reason]));
        Watch { ledger, refused: refused.collect(), told: 0, stopped: false, last_line: None }
    }

    /// Looks, and gives the line that is due, if there is one.
    pub(super) fn look(&mut self, now: Instant) -> Option<(log::Level, String)> {
        let refused: u64 = self.refused.iter().map(|counter| counter.get()).sum();
        let new = refused - self.told;
        let accepting = self.ledger.accepting();
        let was_stopped = std::mem::replace(&mut self.stopped, accepting.is_err());
        let line = match (accepting, was_stopped) {
            (Err(why), false) => {
                let what = format!("{why}: records with side effects are refused until it takes tasks again");
                return Some((log::Level::Error, what));
            }
            (Ok(()), true) => {
                let what = format!("the store of side effects takes tasks again; {new} records were refused");
                (log::Level::Info, what)
            }
            (Ok(()), false) if new > 0 && self.may_speak(now) => {
                let what =
                    format!("{new} records were refused: the store of side effects did not take their tasks");
                (log::Level::Warn, what)
            }
            _ => return None,
        };
        self.told = refused;
        self.last_line = Some(now);
        Some(line)
    }

    fn may_speak(&self, now: Instant) -> bool {
        self.last_line.is_none_or(|at| now.saturating_duration_since(at) >= LINE_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::side_effect::Refused;
    use crate::side_effect::testing::MemoryLedger;

    #[test]
    fn what_the_store_refuses_is_said_once_and_again_when_it_is_over() {
        let (ledger, registry) = (Arc::new(MemoryLedger::default()), Registry::new());
        let mut watch = Watch::new(Arc::clone(&ledger) as Arc<dyn Ledger>, &registry);
        let refused = registry.counter(&metrics::RECORDS_REFUSED, &["store_broken"]);
        let start = clock::now();
        let mut look = |seconds| watch.look(start + Duration::from_secs(seconds)).map(|(level, _)| level);
        assert_eq!(look(0), None);
        ledger.refuse(Some(Refused::Broken));
        assert_eq!(look(1), Some(log::Level::Error));
        refused.add(5);
        assert_eq!(look(2), None);
        ledger.refuse(None);
        assert_eq!(look(3), Some(log::Level::Info));
        assert_eq!(look(4), None);
        // Over between two looks: told, but not every second.
        refused.add(1);
        assert_eq!(look(5), None);
        assert_eq!(look(14), Some(log::Level::Warn));
        assert_eq!(look(30), None);
    }
}
