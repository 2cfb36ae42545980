//! The listeners' metrics, looked up once at start so that counting takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Source;
use super::reply::STATUSES;
use crate::metrics::{self, Counter, Gauge, Histogram, Registry};

/// Why the program closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The peer went, or asked for it: not counted.
    Peer,
    /// The peer went in the middle of a request or line.
    Truncated,
    IdleTimeout,
    HeadTimeout,
    BodyTimeout,
    LineTimeout,
    WriteTimeout,
    /// Made room for a newcomer.
    Evicted,
    /// `connections_max` reached and none idle.
    Full,
    /// Answered with an error after which the connection is out of step.
    Refused,
    Shutdown,
    /// No TLS handshake came about, or the session broke.
    Tls,
}

const REASONS: [&str; 11] = [
    "truncated",
    "idle_timeout",
    "head_timeout",
    "body_timeout",
    "line_timeout",
    "write_timeout",
    "evicted",
    "connections_max",
    "refused",
    "shutdown",
    "tls",
];

impl CloseReason {
    fn index(self) -> Option<usize> {
        match self {
            CloseReason::Peer => None,
            other => Some(other as usize - 1),
        }
    }
}

/// The series of one listener.
pub(super) struct ListenerCounters {
    pub connections: Arc<Gauge>,
    pub accept_errors: Arc<Counter>,
    pub panics: Arc<Counter>,
    closed: [Arc<Counter>; REASONS.len()],
    statuses: Vec<Arc<Counter>>,
    other_status: Option<Arc<Counter>>,
    /// Ingest only.
    pub request_seconds: Option<Arc<Histogram>>,
}

impl ListenerCounters {
    pub(super) fn new(source: Source, registry: &Registry) -> Self {
        let label = source.label();
        let is_http = matches!(source, Source::Http | Source::Admin);
        let status = |s: &str| registry.counter(&metrics::HTTP_REQUESTS, &[label, s]);
        ListenerCounters {
            connections: registry.gauge(&metrics::CONNECTIONS, &[label]),
            accept_errors: registry.counter(&metrics::ACCEPT_ERRORS, &[label]),
            panics: registry.counter(&metrics::SERVICE_PANICS, &[label]),
            closed: REASONS.map(|reason| registry.counter(&metrics::CONNECTIONS_CLOSED, &[label, reason])),
            statuses: if is_http {
                STATUSES.iter().map(|(s, _)| status(&s.to_string())).collect()
            } else {
                Vec::new()
            },
            other_status: is_http.then(|| status("other")),
            request_seconds: (source == Source::Http)
                .then(|| registry.histogram(&metrics::HTTP_REQUEST_SECONDS, &[])),
        }
    }

    pub(super) fn count_close(&self, reason: CloseReason) {
        if let Some(index) = reason.index() {
            self.closed[index].inc();
        }
    }

    pub(super) fn count_status(&self, status: u16) {
        let known = STATUSES.iter().position(|(s, _)| *s == status).and_then(|at| self.statuses.get(at));
        if let Some(counter) = known.or(self.other_status.as_ref()) {
            counter.inc();
        }
    }
}

/// Lets a message through once per period.
#[derive(Debug, Default)]
pub(super) struct Rate {
    next_ms: AtomicU64,
}

impl Rate {
    /// Whether to speak now; if so, not again before `period_ms` have passed.
    pub(super) fn allow(&self, now_ms: u64, period_ms: u64) -> bool {
        let next = self.next_ms.load(Ordering::Relaxed);
        now_ms >= next
            && self
                .next_ms
                .compare_exchange(next, now_ms + period_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_series_in_order() {
        let registry = Registry::new();
        let counters = ListenerCounters::new(Source::Tcp, &registry);
        counters.count_close(CloseReason::Peer);
        counters.count_close(CloseReason::Truncated);
        counters.count_close(CloseReason::Shutdown);
        counters.count_close(CloseReason::Shutdown);
        counters.count_status(204);
        let text = registry.render();
        let value =
            |reason: &str| format!("connections_closed_total{{listener=\"tcp\",reason=\"{reason}\"}} ");
        assert!(text.contains(&(value("truncated") + "1")), "{text}");
        assert!(text.contains(&(value("shutdown") + "2")), "{text}");
        assert!(text.contains(&(value("connections_max") + "0")), "{text}");
        assert!(!text.contains("http_requests_total"), "{text}");
    }

    #[test]
    fn an_unknown_status_is_counted_as_other() {
        let registry = Registry::new();
        let counters = ListenerCounters::new(Source::Http, &registry);
        counters.count_status(418);
        counters.count_status(204);
        let text = registry.render();
        assert!(text.contains("http_requests_total{listener=\"http\",status=\"other\"} 1"), "{text}");
        assert!(text.contains("http_requests_total{listener=\"http\",status=\"204\"} 1"), "{text}");
    }

    #[test]
    fn a_rate_lets_one_through_per_period() {
        let rate = Rate::default();
        let spoken: Vec<u64> = (0..50).filter(|ms| rate.allow(*ms, 20)).collect();
        assert_eq!(spoken, [0, 20, 40]);
    }
}
