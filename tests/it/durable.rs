//! Durable side effects with the real program: what was acked is delivered, whatever happens in between.

mod damage;
mod faults;
mod kill;
mod outage;

use std::collections::HashMap;
use std::time::Duration;

use crate::harness::{Daemon, HTTP_ONLY, Plan};
use crate::support::sink::{Received, Script, Sink};
use crate::support::wait_until;

/// A durable store of `max_bytes`, and one group of which every record goes to `sink`. More settings of `async` in `effects`.
fn durable(sink: &Sink, max_bytes: &str, effects: &str) -> String {
    let url = sink.url("/hook");
    format!(
        "{HTTP_ONLY}
async:
  timeout: 2s
  retry: {{ backoff: 50ms, max_backoff: 500ms }}
  durable: {{ enabled: true, dir: \"{{dir}}/store\", max_bytes: {max_bytes} }}
  {effects}
rule_groups:
  - name: all
    rules: ['true']
    messaging: {{ type: webhook, webhook_url: \"{url}\", format: raw, rate_per_s: 0 }}
"
    )
}

/// A record that can be told from all others, of at least so many bytes.
fn record(n: usize, bytes: usize) -> String {
    format!(r#"{{"type":"request","request":{{"id":"{n:08}","path":"{}"}}}}"#, "x".repeat(bytes))
}

/// The number of a record made by [`record`].
fn number(received: &Received) -> usize {
    let id = &received.json()["request"]["id"];
    id.as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no number in {received:?}"))
}

/// The numbers of all deliveries, in the order of their coming.
fn numbers(sink: &Sink) -> Vec<usize> {
    sink.received().iter().map(number).collect()
}

/// POSTs these records over one connection; each must be acked.
#[track_caller]
fn post_all(daemon: &Daemon, records: impl IntoIterator<Item = usize>) {
    let mut client = daemon.client();
    for n in records {
        let answer = client.post("/v1/audit", record(n, 1000).as_bytes()).expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
}

/// Waits until nothing is pending any more.
#[track_caller]
fn wait_empty(daemon: &Daemon) {
    wait_until("nothing is pending", || daemon.metric("store_pending_tasks") == 0.0);
}

/// Every delivery carries its attempt's number, no attempt is made twice, and all attempts of a task carry one key.
#[track_caller]
fn assert_attempts(received: &[Received]) {
    let mut attempts: HashMap<&str, u32> = HashMap::new();
    let mut keys: HashMap<usize, &str> = HashMap::new();
    for delivery in received {
        let key = delivery.header("idempotency-key").expect("a key");
        assert_eq!(delivery.header("webhook-id"), Some(key));
        let attempt = delivery.header("x-delivery-attempt").expect("an attempt").parse().expect("a number");
        let last = attempts.insert(key, attempt);
        assert!(last.is_none_or(|last| last < attempt), "{key}: attempt {attempt} after {last:?}");
        let first = keys.entry(number(delivery)).or_insert(key);
        assert_eq!(*first, key, "one record, one group, one sink: one task");
    }
}

#[test]
fn durable_side_effects_are_ready_and_counted() {
    let sink = Sink::start([Script::ok()]);
    let mut daemon = Plan::new(&durable(&sink, "16MiB", "workers: 1")).start();
    post_all(&daemon, 0..100);
    wait_empty(&daemon);
    assert_eq!(numbers(&sink), (0..100).collect::<Vec<_>>());
    assert_attempts(&sink.received());
    daemon.wait_received(100);
    let metrics = daemon.metrics();
    let value = |series: &str| metrics.get(series).copied().unwrap_or(-1.0);
    assert_eq!(value("records_total{outcome=\"matched\"}"), 100.0);
    assert_eq!(value("tasks_total{sink=\"all/webhook\",outcome=\"delivered\"}"), 100.0);
    assert_eq!(value("tasks_accepted_total{sink=\"all/webhook\"}"), 100.0);
    assert_eq!(value("tasks_stored{sink=\"all/webhook\"}"), 0.0);
    assert_eq!(value("dead_letters"), 0.0);
    assert!(daemon.admin("/readyz?verbose").text().contains("[+] durable store ok"));
    let ended = daemon.terminate();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
}

#[test]
fn a_directory_that_cannot_be_used_stops_the_start_with_the_cure() {
    let sink = Sink::start([Script::ok()]);
    let plan = Plan::new(&durable(&sink, "16MiB", "").replace("{dir}/store", "{dir}/file/store"));
    std::fs::write(plan.path("file"), "").expect("a file in the way");
    let refused = plan.run(&["serve"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("async.durable.dir"), "{}", refused.stderr);
    assert!(refused.stderr.contains("writ"), "the cure: {}", refused.stderr);
}

#[test]
fn a_second_process_on_the_directory_is_refused_with_the_pid_of_the_first() {
    let sink = Sink::start([Script::ok()]);
    let first = Plan::new(&durable(&sink, "16MiB", "")).start();
    let dir = first.path("store").display().to_string();
    let second = Plan::new(&durable(&sink, "16MiB", "").replace("{dir}/store", &dir));
    let refused = second.run(&["serve"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    let pid = format!("process {}", first.pid());
    assert!(refused.stderr.contains(&pid) && refused.stderr.contains("stop it"), "{}", refused.stderr);
    // The first one goes on.
    post_all(&first, 0..10);
    wait_empty(&first);
}

#[test]
fn without_workers_tasks_are_stored_and_delivered_when_there_are_some() {
    let sink = Sink::start([Script::ok()]);
    let yaml = durable(&sink, "16MiB", "workers: {workers}");
    let mut daemon = Plan::new(&yaml.replace("{workers}", "0")).start();
    post_all(&daemon, 0..200);
    assert_eq!(daemon.metric("tasks_stored{sink=\"all/webhook\"}"), 200.0);
    let ended = daemon.terminate();
    assert!(ended.stderr.contains("200 tasks wait in the store"), "{}", ended.stderr);
    assert_eq!(sink.count(), 0);
    let dir = daemon.path("store").display().to_string();
    let yaml = yaml.replace("{workers}", "1").replace("{dir}/store", &dir);
    let again = Plan::new(&yaml).start();
    wait_until("all are delivered", || sink.count() >= 200);
    wait_empty(&again);
    assert_eq!(numbers(&sink), (0..200).collect::<Vec<_>>(), "in the order of acceptance");
}

/// How long one POST takes, at the median and at 99 of 100, over one connection.
fn latencies(daemon: &Daemon, records: std::ops::Range<usize>) -> (Duration, Duration) {
    let mut client = daemon.client();
    let mut times: Vec<Duration> = records
        .map(|n| {
            let start = std::time::Instant::now();
            let answer = client.post("/v1/audit", record(n, 1000).as_bytes()).expect("an answer");
            assert_eq!(answer.status, 204, "{}", answer.text());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// Figures for people, on the standard error of the test program itself (libtest does not hold it back).
fn figures(figures: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{figures}\n").as_bytes());
}

/// A number from the environment, for the long form of a test.
fn long_form(name: &str, short: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(short)
}
