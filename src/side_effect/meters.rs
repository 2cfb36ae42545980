//! The metrics of one sink.

use std::sync::Arc;

use super::retry::Class;
use super::task::DropReason;
use crate::metrics::{self, Counter, Gauge, Histogram, Registry};

/// Registered once, at start; updating takes no lock.
#[derive(Debug)]
pub(super) struct Meters {
    pub(super) accepted: Arc<Counter>,
    pub(super) delivered: Arc<Counter>,
    pub(super) failed: Arc<Counter>,
    pub(super) dropped: Arc<Counter>,
    pub(super) returned: Arc<Counter>,
    pub(super) in_flight: Arc<Gauge>,
    pub(super) up: Arc<Gauge>,
    pub(super) capacity: Arc<Gauge>,
    pub(super) seconds: Arc<Histogram>,
    dropped_by_reason: [Arc<Counter>; DropReason::ALL.len()],
    attempts_ok: Arc<Counter>,
    attempts_failed: [Arc<Counter>; 3],
}

impl Meters {
    pub(super) fn new(registry: &Registry, sink: &str, capacity: usize) -> Self {
        let task = |outcome| registry.counter(&metrics::TASKS, &[sink, outcome]);
        let attempt = |outcome| registry.counter(&metrics::ATTEMPTS, &[sink, outcome]);
        let up = registry.gauge(&metrics::SINK_UP, &[sink]);
        up.set(1);
        let bound = registry.gauge(&metrics::QUEUE_CAPACITY, &[sink]);
        bound.set(i64::try_from(capacity).unwrap_or(i64::MAX));
        Meters {
            capacity: bound,
            accepted: registry.counter(&metrics::TASKS_ACCEPTED, &[sink]),
            delivered: task("delivered"),
            failed: task("failed"),
            dropped: task("dropped"),
            returned: task("returned"),
            in_flight: registry.gauge(&metrics::TASKS_IN_FLIGHT, &[sink]),
            up,
            seconds: registry.histogram(&metrics::DELIVERY_SECONDS, &[sink]),
            dropped_by_reason: DropReason::ALL
                .map(|reason| registry.counter(&metrics::TASKS_DROPPED, &[sink, reason.label()])),
            attempts_ok: attempt("ok"),
            attempts_failed: [Class::Transient, Class::Permanent, Class::Blocked]
                .map(|class| attempt(class.label())),
        }
    }

    pub(super) fn drop_one(&self, reason: DropReason) {
        self.dropped.inc();
        self.dropped_by_reason[reason as usize].inc();
    }

    pub(super) fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped_by_reason[reason as usize].get()
    }

    pub(super) fn attempt(&self, outcome: Result<(), Class>) {
        match outcome {
            Ok(()) => self.attempts_ok.inc(),
            Err(class) => self.attempts_failed[class as usize].inc(),
        }
    }
}
