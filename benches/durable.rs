//! What the durable store costs the sender: acks that wait for the disk, beside the bare append and `fdatasync` of the same bytes in the
//! same directory, in turns; and what a backlog costs: ack latency, memory and start-up with a hung webhook.
//!
//! - `bare, growing` and `bare, zero-filled`: one thread that appends a record and syncs it, over and over.
//! - `1 client`, `64 clients`: closed loop against the real program, every record matches, is written to the log file and stored.
//! - `backlog`: open loop (8 connections, 1,000/s) with a webhook that never answers, with nothing pending and with many tasks pending.
//! - `start`: killed with many tasks pending and started again, until it serves.
//!
//! Read the ratios, not the figures. `cargo bench --bench durable -- [--quick] [--rounds N] [--seconds S] [--pending N] [--start N]
//! [--only acks|backlog|start]`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a bench program measures time and prints"
)]

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "support/daemon.rs"]
mod daemon;
mod support;
#[path = "../tests/support/mod.rs"]
mod testing;

use daemon::Daemon;
use support::args::{Arguments, median};
use support::load::{Outcome, closed_loop, open_loop};
use support::record;
use testing::{TempDir, wait_until};

/// As large as a segment of the store.
const ZERO_FILLED_BYTES: usize = 16 << 20;
const BATCH_RECORDS: usize = 500;

struct Options {
    rounds: usize,
    duration: Duration,
    pending: usize,
    start: usize,
    only: Option<String>,
}

fn options() -> Options {
    let arguments = Arguments::of_process();
    Options {
        rounds: arguments.rounds(5),
        duration: Duration::from_secs_f64(arguments.number("--seconds", 0.1, 2.0)),
        pending: arguments.number("--pending", 500.0, 100_000.0) as usize,
        start: arguments.number("--start", 500.0, 1_000_000.0) as usize,
        only: arguments.text("--only").map(str::to_owned),
    }
}

type Part = fn(&Options, &Path);

fn main() {
    let options = options();
    let dir = TempDir::new("bench-durable");
    let parts: [(&str, Part); 3] = [("acks", acks), ("backlog", backlog), ("start", start)];
    for (name, part) in parts {
        if options.only.as_deref().is_none_or(|only| only == name) {
            part(&options, dir.path());
        }
    }
}

fn durable(dir: &Path, more: &str) -> String {
    format!(
        "async:\n  durable: {{ enabled: true, dir: {}, max_bytes: 8GiB }}\n  timeout: 600s\n{more}",
        dir.join("store").display()
    )
}

/// Syncs a second that one thread does with a record each.
fn bare(path: &Path, zero_filled: bool, duration: Duration) -> f64 {
    let file = File::create(path).expect("a file");
    if zero_filled {
        file.write_all_at(&vec![0; ZERO_FILLED_BYTES], 0).and_then(|()| file.sync_all()).expect("zeros");
    }
    let bytes = record(true).as_bytes();
    let (mut at, mut count) = (0, 0);
    let started = Instant::now();
    while started.elapsed() < duration {
        file.write_all_at(bytes, at).and_then(|()| file.sync_data()).expect("a synced write");
        at += bytes.len() as u64;
        if zero_filled && at as usize + bytes.len() > ZERO_FILLED_BYTES {
            at = 0;
        }
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

fn acks(options: &Options, dir: &Path) {
    // Workers are off: only what the sender waits for is measured.
    let off = "  workers: 0\n";
    let [one, many] = ["one", "many"].map(|name| {
        Daemon::start_with(&dir.join(name), Some(([127, 0, 0, 1], 9).into()), &durable(&dir.join(name), off))
    });
    let request = [support::request(record(true).as_bytes())];
    let closed = |daemon: &Daemon, clients| {
        let outcome =
            closed_loop(daemon.http(), clients, &request, options.duration).expect("the closed loop");
        assert_eq!((outcome.errors, outcome.unanswered), (0, 0));
        outcome.per_second()
    };
    let mut rounds: Vec<[f64; 4]> = Vec::new();
    for _ in 0..options.rounds {
        rounds.push([
            bare(&dir.join("growing"), false, options.duration),
            bare(&dir.join("zeros"), true, options.duration),
            closed(&one, 1),
            closed(&many, 64),
        ]);
    }
    println!("{} B a record; medians of {} rounds:", record(true).len(), options.rounds);
    for (i, name) in ["bare, growing", "bare, zero-filled", "1 client", "64 clients"].iter().enumerate() {
        let own = median(rounds.iter().map(|r| r[i]).collect());
        let to = |other: usize| median(rounds.iter().map(|r| r[i] / r[other]).collect());
        println!("  {name:<18} {own:>8.0}/s ({:.2}x growing, {:.2}x zero-filled)", to(0), to(1));
    }
    for (daemon, clients) in [(&one, 1), (&many, 64)] {
        let records = daemon.metric("store_synced_records_total{log=\"pending\"}");
        let syncs = daemon.metric("store_sync_seconds_count{log=\"pending\"}");
        println!("  records a sync with {clients} clients: {:.1}", records / syncs);
    }
}

/// Hands in `tasks` matching records in large requests.
fn fill(daemon: &Daemon, tasks: usize) {
    let mut left = tasks;
    while left > 0 {
        let records = left.min(BATCH_RECORDS);
        let body = vec![record(true); records].join("\n");
        let request = [support::request(body.as_bytes())];
        let requests = (left / records).max(1);
        let mut stream = std::net::TcpStream::connect(daemon.http()).expect("the listener");
        for _ in 0..requests {
            use std::io::{Read, Write};
            let mut answer = [0; 512];
            stream.write_all(&request[0]).expect("taken");
            let n = stream.read(&mut answer).expect("an answer");
            assert!(answer[..n].starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer[..n]));
        }
        left -= requests * records;
    }
}

fn backlog(options: &Options, dir: &Path) {
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let webhook = hung.local_addr().expect("bound");
    let [empty, full] = ["empty", "full"]
        .map(|name| Daemon::start_with(&dir.join(name), Some(webhook), &durable(&dir.join(name), "")));
    fill(&full, options.pending);
    println!("webhook hung, 8 connections, 1,000/s:");
    println!(
        "  resident memory: {:.1} MB with nothing pending, {:.1} MB with {:.0} tasks",
        empty.resident_mb(),
        full.resident_mb(),
        full.metric("store_pending_tasks")
    );
    let request = [support::request(record(true).as_bytes())];
    let run = |daemon: &Daemon| {
        let outcome = open_loop(daemon.http(), 8, 1000, &request, options.duration).expect("the open loop");
        assert_eq!((outcome.errors, outcome.unanswered), (0, 0));
        outcome
    };
    let mut rounds: Vec<[Outcome; 2]> = Vec::new();
    for round in 0..options.rounds {
        let first_full = round % 2 == 1;
        let a = run(if first_full { &full } else { &empty });
        let b = run(if first_full { &empty } else { &full });
        rounds.push(if first_full { [b, a] } else { [a, b] });
    }
    for percent in [50.0, 99.0] {
        let of = |i: usize| median(rounds.iter().map(|r| r[i].percentile_us(percent)).collect());
        let ratio = median(
            rounds.iter().map(|r| r[1].percentile_us(percent) / r[0].percentile_us(percent)).collect(),
        );
        println!(
            "  p{percent:.0} {:.0} us with nothing pending, {:.0} us with the backlog ({ratio:.2}x)",
            of(0),
            of(1)
        );
    }
    println!("  resident memory afterwards: {:.1} MB, {:.1} MB", empty.resident_mb(), full.resident_mb());
}

fn start(options: &Options, dir: &Path) {
    let dir = dir.join("start");
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let webhook = hung.local_addr().expect("bound");
    let daemon = Daemon::start_with(&dir, Some(webhook), &durable(&dir, ""));
    let filling = Instant::now();
    fill(&daemon, options.start);
    let seconds = filling.elapsed().as_secs_f64();
    println!("{} tasks stored in {seconds:.1} s, {:.0}/s", options.start, options.start as f64 / seconds);
    let before = daemon.resident_mb();
    let started = Instant::now();
    let daemon = daemon.kill_and_restart();
    // The sockets are bound before the store is read, and answer after it.
    let pending = daemon.metric("store_pending_tasks");
    let ready = started.elapsed();
    assert!(pending as usize >= options.start, "{pending} pending");
    println!(
        "  killed and started again: ready after {:.0} ms, {pending:.0} pending, {:.1} MB resident ({before:.1} before)",
        ready.as_secs_f64() * 1000.0,
        daemon.resident_mb()
    );
    wait_until("it goes on", || daemon.metric("store_accepting") > 0.0);
}
