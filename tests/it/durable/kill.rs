//! kill -9 and SIGTERM in mid-work.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// Connections that send at once.
const SENDERS: usize = 4;

/// How long before a kill a delivery may have come without the store knowing its end, which it syncs after 20 ms; and how long after the
/// kill the receiver may have read it. A busy machine takes its time.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// Sends records until `stop`, or until the program is gone; the acked ones go to `acked`.
fn send(daemon: &Daemon, next: &AtomicUsize, stop: &AtomicBool, acked: &Mutex<Vec<usize>>) {
    let mut mine = Vec::new();
    let mut client = daemon.client();
    while !stop.load(Ordering::Relaxed) {
        let n = next.fetch_add(1, Ordering::Relaxed);
        match client.post("/v1/audit", record(n, 300).as_bytes()) {
            Ok(answer) if answer.status == 204 => mine.push(n),
            // Full for the moment.
            Ok(answer) if answer.status == 503 => std::thread::sleep(Duration::from_millis(5)),
            Ok(answer) => panic!("{}: {}", answer.status, answer.text()),
            Err(_) => break,
        }
    }
    acked.lock().expect("no panic while held").extend(mine);
}

#[test]
fn what_was_acked_survives_kill_9_at_any_moment() {
    let rounds = long_form("VAF_KILLS", 10);
    let sink = Sink::start([Script::ok()]);
    // No delivery runs into its time limit, however busy the machine is: that would be another reason to try again.
    let yaml = durable(&sink, "16MiB", "workers: 2").replace("timeout: 2s", "timeout: 60s");
    let mut daemon = Plan::new(&yaml).start();
    let (next, acked) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let mut kills: Vec<Instant> = Vec::new();
    for round in 0..rounds {
        let stop = AtomicBool::new(false);
        // A receiver that fails now and then leaves a backlog behind for the kill to meet.
        sink.answer(if round % 3 == 2 { Script::status(503) } else { Script::ok() });
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| send(&daemon, &next, &stop, &acked));
            }
            std::thread::sleep(Duration::from_millis(fastrand::u64(10..300)));
            daemon.signal(nix::sys::signal::Signal::SIGKILL);
            kills.push(Instant::now());
            stop.store(true, Ordering::Relaxed);
        });
        daemon.wait_end();
        daemon = daemon.again();
        if round % 10 == 9 {
            sink.answer(Script::ok());
            wait_empty(&daemon);
        }
    }
    sink.answer(Script::ok());
    wait_empty(&daemon);
    let received = sink.received();
    assert_attempts(&received);
    // A delivery that was answered with 503 was none.
    let mut taken: HashMap<usize, Vec<Instant>> = HashMap::new();
    for delivery in &received {
        taken.entry(number(delivery)).or_default().push(delivery.at);
    }
    let acked = acked.into_inner().expect("no panic while held");
    let lost = acked.iter().filter(|n| !taken.contains_key(n)).count();
    let dead = daemon.metric("dead_letters");
    let ends = daemon.terminate();
    let (doubled, unexplained) = doubled(&received, &kills);
    figures(format_args!(
        "{rounds} kills: {} sent, {} acked, {} delivered, {} attempts, {dead} dead, {lost} lost, {doubled} doubled",
        next.load(Ordering::Relaxed),
        acked.len(),
        taken.len(),
        received.len(),
    ));
    assert!(acked.len() > rounds, "only {} records were acked", acked.len());
    assert_eq!((lost, dead), (0, 0.0), "{}", ends.stderr);
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

/// How many records were taken more than once, and those of them for which no kill had come between a delivery and its end.
fn doubled(received: &[Received], kills: &[Instant]) -> (usize, Vec<String>) {
    let mut answers: HashMap<usize, Vec<&Received>> = HashMap::new();
    for delivery in received.iter().filter(|delivery| delivery.status == 200) {
        answers.entry(number(delivery)).or_default().push(delivery);
    }
    let (mut doubled, mut unexplained) = (0, Vec::new());
    for (n, times) in answers.iter().filter(|(_, times)| times.len() > 1) {
        doubled += 1;
        for pair in times.windows(2) {
            let (first, second) = (pair[0].at, pair[1].at);
            let apart = |kill: &Instant| kill.max(&first).duration_since(*kill.min(&first));
            let nearest = kills.iter().filter(|kill| **kill < second).map(apart).min();
            if nearest.is_none_or(|apart| apart >= IN_FLIGHT) {
                let again = second - first;
                unexplained.push(format!(
                    "record {n} came again after {again:?}, nearest kill {nearest:?} from its first coming"
                ));
            }
        }
    }
    (doubled, unexplained)
}

#[test]
fn a_restart_delivers_the_backlog_in_order_and_then_what_comes() {
    let sink = Sink::start([Script::Hang]);
    let mut daemon = Plan::new(&durable(&sink, "16MiB", "workers: 1")).start();
    post_all(&daemon, 0..300);
    daemon.kill();
    let before = sink.count();
    sink.resume();
    let again = daemon.again();
    post_all(&again, 300..400);
    wait_empty(&again);
    let order = numbers(&sink);
    assert_eq!(order[before..], (0..400).collect::<Vec<_>>()[..]);
    assert_attempts(&sink.received());
    // The interrupted attempt counts.
    assert_eq!(sink.received()[before].header("x-delivery-attempt"), Some("2"));
}

#[test]
fn sigterm_with_500_queued_loses_nothing_and_does_not_wait_for_them() {
    let sink = Sink::start([Script::Hang]);
    // No attempt ends while the records are sent, however long that takes.
    let yaml = durable(&sink, "16MiB", "workers: 2").replace("timeout: 2s", "timeout: 120s")
        + "shutdown: { drain_timeout: 1s }\n";
    let mut daemon = Plan::new(&yaml).start();
    post_all(&daemon, 0..500);
    let ended = daemon.terminate();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains("500 tasks wait in the store"), "{}", ended.stderr);
    let under_way = sink.count();
    assert!(
        under_way <= 4,
        "{under_way} attempts of two workers, one each and one each when those are given up"
    );
    sink.resume();
    let again = daemon.again();
    wait_empty(&again);
    let mut after: Vec<usize> = numbers(&sink)[under_way..].to_vec();
    after.sort_unstable();
    assert_eq!(after, (0..500).collect::<Vec<_>>());
    assert_eq!(again.metric("dead_letters"), 0.0);
}
