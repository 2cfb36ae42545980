//! Receivers that hang, fail for a time, or refuse one record.

use std::time::{Duration, Instant};

use super::*;
use crate::support::happens_within;

/// Bytes of memory that one pending task may take, with room for what allocators keep.
const TASK_BYTES: usize = 400;

#[test]
fn a_hung_receiver_and_a_large_backlog_leave_acks_and_memory_as_they_were() {
    let backlog = long_form("VAF_BACKLOG", 3000);
    let sink = Sink::start([Script::Hang]);
    let daemon = Plan::new(&durable(&sink, "1GiB", "queue_size: 20")).start();
    let before = latencies(&daemon, 0..300);
    let memory_kib = daemon.process("VmRSS");
    std::thread::scope(|scope| {
        for part in 0..8 {
            let daemon = &daemon;
            scope.spawn(move || post_all(daemon, (0..backlog / 8).map(|n| 1_000_000 * (part + 1) + n)));
        }
    });
    let grown_kib = daemon.process("VmRSS").saturating_sub(memory_kib) as usize;
    let after = latencies(&daemon, 9_000_000..9_000_300);
    figures(format_args!(
        "ack p50 {:?}, p99 {:?}; with {backlog} tasks pending and a hung receiver {:?}, {:?}; memory {memory_kib} KiB, {grown_kib} KiB more",
        before.0, before.1, after.0, after.1
    ));
    // The buffers of eight connections and of the journal, and what the tasks themselves take.
    let bound_kib = 24 * 1024 + backlog * TASK_BYTES / 1024;
    assert!(grown_kib < bound_kib, "{grown_kib} KiB for {backlog} tasks");
    // The queue, and the few that were tried.
    assert!(daemon.metric("queue_length{sink=\"all/webhook\"}") <= 20.0 + sink.count() as f64);
    let pending = daemon.metric("store_pending_tasks");
    assert!(pending >= (backlog / 8 * 8 + 600 - 10) as f64, "{pending}");
    assert_eq!(daemon.sum("tasks_dropped_total"), 0.0);
    sink.resume();
    assert!(happens_within(Duration::from_secs(300), || daemon.metric("store_pending_tasks") == 0.0));
    assert_eq!(daemon.metric("dead_letters"), 0.0);
    assert_attempts(&sink.received());
}

#[test]
fn an_outage_kills_no_task_and_costs_few_requests() {
    let outage = Duration::from_millis(long_form("VAF_OUTAGE_MS", 4000) as u64);
    let tasks = long_form("VAF_OUTAGE_TASKS", 1000);
    let sink = Sink::start([Script::status(503)]);
    let daemon = Plan::new(&durable(&sink, "64MiB", "workers: 1")).start();
    let start = Instant::now();
    post_all(&daemon, 0..tasks);
    std::thread::sleep(outage.saturating_sub(start.elapsed()));
    assert_eq!(daemon.metric("sink_up{sink=\"all/webhook\"}"), 0.0);
    let during = sink.count();
    sink.answer(Script::ok());
    let over = Instant::now();
    wait_empty(&daemon);
    let seconds = over.elapsed().as_secs_f64();
    figures(format_args!(
        "an outage of {outage:?} with {tasks} tasks: {during} requests meanwhile, then {:.0} tasks/s",
        tasks as f64 / seconds
    ));
    assert_eq!((daemon.metric("dead_letters"), daemon.sum("tasks_dropped_total")), (0.0, 0.0));
    // Probes double their distance up to half a second: not one request for each task.
    assert!(during as f64 <= 15.0 + 4.0 * start.elapsed().as_secs_f64(), "{during} requests");
    let received = sink.received();
    assert_attempts(&received);
    let taken: Vec<usize> = received.iter().filter(|r| r.status == 200).map(number).collect();
    let mut all = taken.clone();
    all.sort_unstable();
    assert_eq!(all, (0..tasks).collect::<Vec<_>>(), "each once");
    // Those that were probes wait for their time; all others come in order.
    let probes: Vec<usize> = received.iter().filter(|r| r.status == 503).map(number).collect();
    let others: Vec<usize> = taken.into_iter().filter(|n| !probes.contains(n)).collect();
    assert!(others.is_sorted(), "{others:?}");
}

#[test]
fn a_poisoned_task_holds_nobody_back_and_becomes_a_dead_letter() {
    // Record number 3 is answered with 500 for ever.
    let sink = Sink::start([Script::Poison("\"00000003\"", 500)]);
    let yaml = durable(&sink, "16MiB", "workers: 1")
        .replace("retry: { backoff", "retry: { max_attempts: 5, backoff");
    let daemon = Plan::new(&yaml).start();
    post_all(&daemon, 0..200);
    wait_empty(&daemon);
    assert_eq!(daemon.metric("dead_letters"), 1.0);
    let received = sink.received();
    assert_eq!(received.iter().filter(|r| number(r) == 3).count(), 5);
    let mut others: Vec<usize> = received.iter().map(number).filter(|n| *n != 3).collect();
    assert_eq!(others.len(), 199, "each once");
    others.dedup();
    assert!(others.is_sorted());
    assert_attempts(&received);
    assert_eq!(daemon.metric("tasks_total{sink=\"all/webhook\",outcome=\"failed\"}"), 1.0);
}

#[test]
fn an_answer_after_the_time_out_counts_as_unknown_and_is_tried_again_alone() {
    let sink = Sink::start([Script::Hang]);
    let yaml = durable(&sink, "16MiB", "workers: 2").replace("timeout: 2s", "timeout: 300ms");
    let daemon = Plan::new(&yaml).start();
    post_all(&daemon, [7]);
    wait_until("a second attempt", || sink.count() >= 2);
    sink.resume();
    wait_empty(&daemon);
    let received = sink.received();
    assert_attempts(&received);
    assert!(received.windows(2).all(|pair| pair[1].at - pair[0].at >= Duration::from_millis(290)));
    assert_eq!(daemon.metric("tasks_total{sink=\"all/webhook\",outcome=\"delivered\"}"), 1.0);
}

#[test]
fn many_poisoned_tasks_of_any_kind_hold_nobody_back() {
    // For good: dead letters at once. 300 that only fail: they wait for another attempt, more of them than find a place beside the queue.
    for (status, poisoned) in [(400, 40), (413, 40), (422, 40), (500, 300)] {
        let sink = Sink::start([Script::Poison("\"000000", status)]);
        let yaml = durable(&sink, "16MiB", "workers: 1")
            .replace("backoff: 50ms, max_backoff: 500ms", "backoff: 1ms, max_backoff: 2s");
        let daemon = Plan::new(&yaml).start();
        // Among good ones, one by one: many failures in a row are an outage. Numbers below 100 have six zeros in front.
        post_all(&daemon, (0..poisoned).flat_map(|n| [1_000_000 + n, n % 100]));
        wait_until("the good ones are delivered", || {
            sink.received().iter().filter(|r| r.status == 200).count() >= poisoned
        });
        if status == 500 {
            assert_eq!(daemon.metric("dead_letters"), 0.0);
        } else {
            wait_until("the others are dead letters", || daemon.metric("dead_letters") == poisoned as f64);
            assert_eq!(sink.count(), 2 * poisoned, "each once");
        }
        assert_eq!(daemon.sum("tasks_dropped_total"), 0.0);
    }
}

#[test]
fn an_explicit_limit_is_literal_and_the_newest_dead_letters_stay_within_their_bound() {
    // Room for some 500 KB of dead letters.
    let sink = Sink::start([Script::status(400)]);
    let yaml = durable(&sink, "2MiB", "workers: 1")
        .replace("max_bytes: 2MiB", "max_bytes: 2MiB, dead_letters: { keep: newest }");
    let daemon = Plan::new(&yaml).start();
    let mut client = daemon.client();
    for n in 0..100 {
        let body = record(n, 10_000);
        wait_until("it is taken", || {
            client.post("/v1/audit", body.as_bytes()).expect("an answer").status == 204
        });
    }
    wait_empty(&daemon);
    let dead = daemon.metric("dead_letters");
    assert!((1.0..60.0).contains(&dead), "{dead}");
    // Listed once the end of their tasks is on the disk, too.
    wait_until("all of them are listed", || {
        let listed = daemon.run(&["queue", "list", "--state", "dead", "--limit", "0"], &[]);
        listed.stdout.lines().filter(|line| line.contains("permanent")).count() as f64 == dead
    });
    drop(daemon);
    for limit in [1, 2] {
        let sink = Sink::start([Script::status(500)]);
        let yaml = durable(&sink, "16MiB", "")
            .replace("retry: { backoff: 50ms", &format!("retry: {{ max_attempts: {limit}, backoff: 1ms"));
        let daemon = Plan::new(&yaml).start();
        post_all(&daemon, [1]);
        wait_until("it is a dead letter", || daemon.metric("dead_letters") == 1.0);
        assert_eq!(sink.count(), limit);
    }
}
