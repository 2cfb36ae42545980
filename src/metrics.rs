//! Every metric of the program: names, help, labels, and the Prometheus text exposition.
//!
//! A series is registered once, at start, and is then a bare atomic: updating it takes no lock and never blocks. Only
//! registration and [`Registry::render`] take the registry's lock.
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>, text version 0.0.4.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "Prometheus' own words")]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric name with its help text and label names.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Type of the values.
    pub kind: Kind,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
}

macro_rules! families {
    ($($(#[$doc:meta])* $id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $( #[doc = $help] pub static $id: Family = Family { name: concat!("vault_audit_filter_", $name), help: $help, kind: Kind::$kind, labels: &[$($label),*] }; )*
        /// All families, in the order of the exposition.
        pub static FAMILIES: &[&Family] = &[$(&$id),*];
    };
}

families! {
    RECORDS_RECEIVED = Counter "records_received_total" ["listener"] "Frames received, by listener (http, tcp, udp, unix).";
    RECORDS = Counter "records_total" ["outcome"] "Frames by outcome: matched, unmatched, quarantined, duplicate (sent before, with dedupe.window), refused. Their sum is the sum of records_received_total.";
    RECORDS_QUARANTINED = Counter "records_quarantined_total" ["reason"] "Frames written to the quarantine log, by reason.";
    RECORDS_REFUSED = Counter "records_refused_total" ["reason"] "Frames refused, by reason; nothing of them was acked.";
    RECORDS_REPLAYED = Counter "records_replayed_total" [] "Frames that an operator has fed in over the control socket (replay); they are among those received by http.";
    RECEIVED_BYTES = Counter "received_bytes_total" ["listener"] "Bytes of frames received, by listener.";
    UNPAIRED = Counter "unpaired_total" ["listener", "missing"] "Calls of which one half has not come within pairs.wait, by listener and by what is missing (request, response); only with pairs.window.";
    PAIRS_FORGOTTEN = Counter "pairs_forgotten_total" [] "Calls whose other half was not waited for any longer because pairs.window was full; they are not in unpaired_total.";
    LISTENER_SILENT = Gauge "listener_silent_seconds" ["listener"] "For how long nothing has come over a listener; 0 unless that is longer than listen.silence_alarm, and only with it.";
    SOURCE_SILENT = Gauge "source_silent_seconds" ["source"] "The same for a named source (POST /v1/audit/<source>): up to 64 of those that have sent something.";
    GROUP_MATCHES = Counter "group_matches_total" ["group"] "Records matched by each rule group.";
    RULE_ERRORS = Counter "rule_errors_total" ["group", "rule"] "Run-time errors of a rule (its number in the group, from 1); the rule counts as not matching.";
    LOG_WRITE_ERRORS = Counter "log_write_errors_total" ["file"] "Appends to a log file that failed; the records were not acked.";
    LOG_WRITE_STUCK = Gauge "log_write_stuck_seconds" ["file"] "For how long a write to a log file has been hanging, or its sync; 0 unless that is more than a second.";
    LOG_SYNCS = Counter "log_syncs_total" ["file"] "Syncs of a log file with sync: always; one serves all records that waited for it.";
    LOG_ROTATIONS = Counter "log_rotations_total" ["file"] "Rotations of a log file.";
    LOG_KEEPER_ERRORS = Counter "log_keeper_errors_total" ["file"] "Failed rotation, compression or removal steps; they are tried again.";
    TASKS = Counter "tasks_total" ["sink", "outcome"] "Side-effect tasks by outcome: delivered, dropped (never sent), failed (given up after attempts), returned (to the durable store, from where they are read again).";
    TASKS_ACCEPTED = Counter "tasks_accepted_total" ["sink"] "Side-effect tasks handed to a sink (with the durable store: read from it): the sum of tasks_total, queue_length and tasks_in_flight.";
    TASKS_IN_FLIGHT = Gauge "tasks_in_flight" ["sink"] "Tasks that a worker holds at this moment.";
    TASKS_DROPPED = Counter "tasks_dropped_total" ["sink", "reason"] "Dropped side-effect tasks by reason.";
    ATTEMPTS = Counter "attempts_total" ["sink", "outcome"] "Delivery attempts by outcome: ok, transient, permanent, blocked.";
    QUEUE_LENGTH = Gauge "queue_length" ["sink"] "Tasks waiting for a sink: queued, waiting for room, or waiting for their next attempt.";
    TASKS_STORED = Gauge "tasks_stored" ["sink"] "Tasks of a sink that wait in the durable store and are not in its queue; only with async.durable.enabled.";
    QUEUE_CAPACITY = Gauge "queue_capacity" ["sink"] "Bound of a sink's queue.";
    SINK_UP = Gauge "sink_up" ["sink"] "1 while a sink takes deliveries, 0 while it is marked down.";
    DELIVERY_SECONDS = Histogram "delivery_seconds" ["sink"] "Duration of one delivery attempt.";
    HTTP_REQUEST_SECONDS = Histogram "http_request_seconds" [] "Time from a complete ingest request to its reply written.";
    HTTP_REQUESTS = Counter "http_requests_total" ["listener", "status"] "HTTP replies by listener (http, admin) and status code.";
    CONNECTIONS = Gauge "connections" ["listener"] "Open connections, by listener.";
    CONNECTIONS_CLOSED = Counter "connections_closed_total" ["listener", "reason"] "Connections closed by the program, by reason.";
    ACCEPT_ERRORS = Counter "accept_errors_total" ["listener"] "Failed accepts (out of file descriptors, say); the listener goes on.";
    SERVICE_PANICS = Counter "service_panics_total" ["listener"] "Requests, lines and datagrams whose handling panicked; the thread went on.";
    TLS_CERTIFICATE_EXPIRY = Gauge "tls_certificate_expiry_timestamp_seconds" [] "When the certificate of the HTTP listener, or the first one of its chain, ends: seconds since the epoch; only with listen.http.tls.";
    BUFFERED_BYTES = Gauge "buffered_bytes" [] "Bytes of unfinished requests, lines and replies held for all connections.";
    UDP_KERNEL_DROPS = Counter "udp_kernel_drops_total" [] "Datagrams that the kernel dropped because the socket's receive buffer was full.";
    UDP_RING_BYTES = Gauge "udp_ring_bytes" [] "Bytes of received datagrams that wait to be evaluated.";
    UDP_RING_FULL = Counter "udp_ring_full_total" [] "Times that receiving datagrams was held up because as many as may be were waiting to be evaluated.";
    STORE_UP = Gauge "store_up" ["log"] "1 while the disk takes the store's writes, 0 from a failed write or sync until a fresh segment is there, by log (pending, dead).";
    STORE_ACCEPTING = Gauge "store_accepting" [] "1 while the store takes new tasks, 0 while it is full or its disk has failed.";
    STORE_REFUSED = Counter "store_refused_total" [] "Acceptances refused by the store: full, or its disk has failed. Nothing of them was acked.";
    STORE_PENDING_TASKS = Gauge "store_pending_tasks" [] "Tasks in the store that have not ended, those in the queues and with workers included.";
    STORE_PARKED_TASKS = Gauge "store_parked_tasks" [] "Pending tasks without further attempts for whose dead letters there is no room.";
    STORE_OLDEST_PENDING_SECONDS = Gauge "store_oldest_pending_seconds" [] "Age of the oldest pending task that no worker has.";
    STORE_APPENDED_BYTES = Counter "store_appended_bytes_total" ["log"] "Bytes appended to the store, by log.";
    STORE_SYNCED_BYTES = Counter "store_synced_bytes_total" ["log"] "Bytes of the store that have become durable, by log.";
    STORE_SYNCED_RECORDS = Counter "store_synced_records_total" ["log"] "Records that have become durable, by log; divided by the count of store_sync_seconds it is the mean batch size.";
    STORE_SYNC_SECONDS = Histogram "store_sync_seconds" ["log"] "Duration of one sync of the store, by log.";
    STORE_FAULTS = Counter "store_faults_total" ["log"] "Writes and syncs of the store that failed, by log.";
    STORE_DISK_USED = Gauge "store_disk_used_ratio" ["log"] "Share of its bound that a log takes on the disk.";
    STORE_CARRIED = Counter "store_carried_total" [] "Tasks and dead letters copied forward so that an old segment could go.";
    STORE_IMPORTED = Counter "store_imported_total" [] "Task files of the predecessor that were imported.";
    STORE_DAMAGES = Counter "store_damages_total" [] "Damaged places found in the store.";
    DEAD_LETTERS = Gauge "dead_letters" [] "Dead letters kept.";
    DEAD_LETTERS_WRITTEN = Counter "dead_letters_written_total" [] "Tasks that became dead letters.";
    DEAD_LETTERS_REMOVED = Counter "dead_letters_removed_total" ["why"] "Dead letters removed: dropped, replayed, made_room (the oldest, where the newest are kept).";
    BUILD_INFO = Gauge "build_info" ["version"] "Always 1; the version is the label.";
    CONFIG_RELOADS = Counter "config_reloads_total" ["result"] "Reloads of the configuration by result: applied, refused (something is wrong with it, the old one stays), failed (it is right, but a file or thread could not be had; the old one stays).";
    CONFIG_LAST_RELOAD_SUCCESS = Gauge "config_last_reload_success" [] "1 while the last reload, or the start, has put the configuration to use, 0 after one that was refused or failed.";
    START_TIME = Gauge "start_time_seconds" [] "Start of the process, seconds since the epoch.";
}

/// A value that only grows. Padded to a cache line of its own, so that threads counting different things do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A whole number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, v: i64) {
        self.0.store(v, Ordering::Relaxed);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the histogram buckets, in nanoseconds: 1, 2.5 and 5 per decade from 10 µs to 10 s.
const BUCKETS_NS: [u64; 19] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Durations in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_NS.len()],
    above: AtomicU64,
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let at = BUCKETS_NS.partition_point(|bound| *bound < ns);
        self.buckets.get(at).unwrap_or(&self.above).fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().chain([&self.above]).map(|b| b.load(Ordering::Relaxed)).sum()
    }
}

enum Source {
    Counter(Arc<Counter>),
    Gauge(Arc<Gauge>),
    /// Read at the time of the exposition.
    GaugeFn(Box<dyn Fn() -> f64 + Send + Sync>),
    Histogram(Arc<Histogram>),
}

struct Series {
    family: &'static Family,
    labels: Vec<String>,
    source: Source,
}

/// One series' value at some moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What it is a value of.
    pub family: &'static Family,
    /// The values of the family's labels.
    pub labels: Vec<String>,
    /// As in the exposition.
    pub value: f64,
}

/// All series of the process.
#[derive(Default)]
pub struct Registry {
    series: Mutex<Vec<Series>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({} series)", self.series.lock().len())
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of `family` with these label values; the same one when asked again.
    pub fn counter(&self, family: &'static Family, labels: &[&str]) -> Arc<Counter> {
        self.find_or_add(
            family,
            labels,
            |s| match s {
                Source::Counter(c) => Some(Arc::clone(c)),
                _ => None,
            },
            || {
                let made = Arc::new(Counter::default());
                (Source::Counter(Arc::clone(&made)), made)
            },
        )
    }

    /// The gauge of `family` with these label values; the same one when asked again.
    pub fn gauge(&self, family: &'static Family, labels: &[&str]) -> Arc<Gauge> {
        self.find_or_add(
            family,
            labels,
            |s| match s {
                Source::Gauge(g) => Some(Arc::clone(g)),
                _ => None,
            },
            || {
                let made = Arc::new(Gauge::default());
                (Source::Gauge(Arc::clone(&made)), made)
            },
        )
    }

    /// The histogram of `family` with these label values; the same one when asked again.
    pub fn histogram(&self, family: &'static Family, labels: &[&str]) -> Arc<Histogram> {
        self.find_or_add(
            family,
            labels,
            |s| match s {
                Source::Histogram(h) => Some(Arc::clone(h)),
                _ => None,
            },
            || {
                let made = Arc::new(Histogram::default());
                (Source::Histogram(Arc::clone(&made)), made)
            },
        )
    }

    /// A gauge whose value is asked for at each exposition; `read` must not block. It takes the place of an earlier one with these labels.
    pub fn gauge_fn(
        &self,
        family: &'static Family,
        labels: &[&str],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let labels: Vec<String> = labels.iter().map(|l| (*l).to_owned()).collect();
        let source = Source::GaugeFn(Box::new(read));
        let mut series = self.series.lock();
        let same = |s: &&mut Series| std::ptr::eq(s.family, family) && s.labels == labels;
        // What the earlier one holds must not go while the series are locked.
        let earlier = match series.iter_mut().find(same) {
            Some(found) => Some(std::mem::replace(&mut found.source, source)),
            None => {
                series.push(Series { family, labels, source });
                None
            }
        };
        drop(series);
        drop(earlier);
    }

    /// Takes a series out of the exposition. Whoever still has it changes nothing any more; asked for again, it begins anew.
    pub fn remove(&self, family: &'static Family, labels: &[&str]) {
        let mut removed = Vec::new();
        let mut series = self.series.lock();
        let same = |s: &Series| std::ptr::eq(s.family, family) && s.labels == labels;
        removed.extend(series.extract_if(.., |s| same(s)));
        // What they hold must not go while the series are locked.
        drop(series);
    }

    fn find_or_add<T>(
        &self,
        family: &'static Family,
        labels: &[&str],
        get: impl Fn(&Source) -> Option<T>,
        make: impl FnOnce() -> (Source, T),
    ) -> T {
        assert_eq!(labels.len(), family.labels.len(), "label values of {}", family.name);
        let mut series = self.series.lock();
        let same = |s: &&Series| std::ptr::eq(s.family, family) && s.labels == labels;
        if let Some(found) = series.iter().find(same).and_then(|s| get(&s.source)) {
            return found;
        }
        let (source, made) = make();
        series.push(Series { family, labels: labels.iter().map(|l| (*l).to_owned()).collect(), source });
        made
    }

    /// The values that the series of these families have now, in the order of their registration. Not for histograms, which have no one
    /// value. Blocks for registrations only.
    pub fn read(&self, families: &[&'static Family]) -> Vec<Reading> {
        let series = self.series.lock();
        let wanted = |s: &&Series| families.iter().any(|family| std::ptr::eq(s.family, *family));
        let reading = |s: &Series| {
            let value = match &s.source {
                Source::Counter(counter) => counter.get() as f64,
                Source::Gauge(gauge) => gauge.get() as f64,
                Source::GaugeFn(read) => read(),
                Source::Histogram(_) => return None,
            };
            Some(Reading { family: s.family, labels: s.labels.clone(), value })
        };
        series.iter().filter(wanted).filter_map(reading).collect()
    }

    /// The exposition text of all series, grouped by family.
    pub fn render(&self) -> String {
        let series = self.series.lock();
        let mut out = String::with_capacity(16 << 10);
        for family in FAMILIES {
            let mut of_family = series.iter().filter(|s| std::ptr::eq(s.family, *family)).peekable();
            if of_family.peek().is_none() {
                continue;
            }
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {kind}", family.name, family.help, family.name);
            for s in of_family {
                render_series(&mut out, s);
            }
        }
        out
    }
}

fn render_series(out: &mut String, series: &Series) {
    let name = series.family.name;
    let labels = label_text(series);
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = match &series.source {
        Source::Counter(c) => writeln!(out, "{name}{braced} {}", c.get()),
        Source::Gauge(g) => writeln!(out, "{name}{braced} {}", g.get()),
        Source::GaugeFn(read) => writeln!(out, "{name}{braced} {}", read()),
        Source::Histogram(h) => {
            render_histogram(out, name, &labels, &braced, h);
            Ok(())
        }
    };
}

fn render_histogram(out: &mut String, name: &str, labels: &str, braced: &str, h: &Histogram) {
    let lead = if labels.is_empty() { String::new() } else { format!("{labels},") };
    let mut total = 0;
    for (bucket, bound) in h.buckets.iter().zip(BUCKETS_NS) {
        total += bucket.load(Ordering::Relaxed);
        let _ = writeln!(out, "{name}_bucket{{{lead}le=\"{}\"}} {total}", bound as f64 / 1e9);
    }
    total += h.above.load(Ordering::Relaxed);
    let _ = writeln!(out, "{name}_bucket{{{lead}le=\"+Inf\"}} {total}");
    let _ = writeln!(out, "{name}_sum{braced} {}", h.sum_ns.load(Ordering::Relaxed) as f64 / 1e9);
    let _ = writeln!(out, "{name}_count{braced} {total}");
}

fn label_text(series: &Series) -> String {
    let mut out = String::new();
    for (label, value) in series.family.labels.iter().zip(&series.labels) {
        if !out.is_empty() {
            out.push(',');
        }
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{label}=\"{value}\"");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_same_labels_give_the_same_counter() {
        let registry = Registry::new();
        registry.counter(&RECORDS, &["matched"]).inc();
        registry.counter(&RECORDS, &["matched"]).add(2);
        registry.counter(&RECORDS, &["refused"]).inc();
        let text = registry.render();
        assert!(text.contains("vault_audit_filter_records_total{outcome=\"matched\"} 3\n"), "{text}");
        assert!(text.contains("vault_audit_filter_records_total{outcome=\"refused\"} 1\n"), "{text}");
        assert_eq!(text.matches("# TYPE vault_audit_filter_records_total counter").count(), 1);
    }

    #[test]
    fn a_series_can_be_replaced_and_removed() {
        let registry = Registry::new();
        for value in [1.0, 2.0] {
            registry.gauge_fn(&QUEUE_LENGTH, &["s"], move || value);
        }
        registry.gauge(&SINK_UP, &["s"]).set(1);
        registry.gauge(&SINK_UP, &["t"]).set(1);
        let text = registry.render();
        assert_eq!(text.matches("queue_length{sink=\"s\"}").count(), 1, "{text}");
        assert!(text.contains("queue_length{sink=\"s\"} 2\n"), "{text}");
        registry.remove(&SINK_UP, &["s"]);
        let text = registry.render();
        assert!(!text.contains("sink_up{sink=\"s\"}") && text.contains("sink_up{sink=\"t\"} 1\n"), "{text}");
        assert_eq!(registry.gauge(&SINK_UP, &["s"]).get(), 0, "a new one");
    }

    #[test]
    fn label_values_are_escaped() {
        let registry = Registry::new();
        registry.counter(&GROUP_MATCHES, &["a\"b\\c\nd"]).inc();
        assert!(registry.render().contains(r#"{group="a\"b\\c\nd"} 1"#));
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_inclusive() {
        let registry = Registry::new();
        let h = registry.histogram(&HTTP_REQUEST_SECONDS, &[]);
        for us in [1, 10, 11, 20_000_000] {
            h.observe(Duration::from_micros(us));
        }
        let text = registry.render();
        for line in [
            "_bucket{le=\"0.00001\"} 2",
            "_bucket{le=\"0.000025\"} 3",
            "_bucket{le=\"10\"} 3",
            "_bucket{le=\"+Inf\"} 4",
            "_count 4",
            "_sum 20.000022",
        ] {
            assert!(
                text.contains(&format!("vault_audit_filter_http_request_seconds{line}\n")),
                "{line}: {text}"
            );
        }
        assert_eq!(h.count(), 4);
    }

    #[test]
    fn gauges_are_read_when_asked() {
        let registry = Registry::new();
        registry.gauge_fn(&QUEUE_LENGTH, &["s"], || 7.0);
        registry.gauge(&CONNECTIONS, &["tcp"]).add(3);
        registry.gauge(&CONNECTIONS, &["tcp"]).add(-1);
        let text = registry.render();
        assert!(text.contains("vault_audit_filter_queue_length{sink=\"s\"} 7\n"));
        assert!(text.contains("vault_audit_filter_connections{listener=\"tcp\"} 2\n"));
    }
}
