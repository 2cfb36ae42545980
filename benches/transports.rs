//! What the real program takes over each transport, measured with its own `bench` command: records of 1.56 KB, of which one in five matches and
//! is written to a file. The generator runs on the same cores, so figures a second say what both can do together; processor time a record is
//! the server's alone.
//!
//! - `rules`: lines over one TCP connection, as fast as it goes, with 1, 10 and 1,000 rules; with 10 over four connections too.
//! - `udp`: datagrams at 20,000, 60,000 and 100,000 a second: processor time, and what was lost.
//! - `burst`: 3,000 datagrams back to back into the idle server, 20 times: what was lost, and what of it the server has counted.
//! - `http`: requests over 1, 8, 64 and 256 connections, as fast as answers come.
//! - `stall`: 1,000 requests a second over 8 connections for a minute: the slowest answers.
//! - `idle`: memory of 1,000 connections that have sent one request each and stay.
//! - `rotation`: 8 and 256 connections as fast as answers come, with a rotation about every second and without.
//!
//! `cargo bench --profile release --bench transports -- [--quick] [--rounds N] [--seconds S] [--only rules|udp|...]`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a bench program measures time and prints"
)]

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[path = "support/daemon.rs"]
mod daemon;
mod support;
#[path = "../tests/support/mod.rs"]
mod testing;

use daemon::{Daemon, TYPICAL_RULES, rules_yaml};
use support::args::{Arguments, median};
use testing::{TempDir, free_port, wait_until};

const ONE_RULE: &str = "Request.Operation == \"delete\"";
const MANY_RULES: &str = include_str!("../tests/data/rules/mixed1000.txt");
/// Takes the one record in five of the built-in ones that is to be written.
const WRITTEN: &str = ONE_RULE;
const BURST: usize = 3000;
const BURSTS: usize = 20;
const IDLE_CONNECTIONS: usize = 1000;

struct Options {
    rounds: usize,
    seconds: f64,
    quick: bool,
}

type Part = fn(&Options, &Path);

fn main() {
    let arguments = Arguments::of_process();
    let options = Options {
        rounds: arguments.rounds(5),
        seconds: arguments.number("--seconds", 0.1, 3.0),
        quick: arguments.is_quick(),
    };
    let dir = TempDir::new("bench-transports");
    let parts: [(&str, Part); 7] = [
        ("rules", rules),
        ("udp", udp),
        ("burst", burst),
        ("http", http),
        ("stall", stall),
        ("idle", idle),
        ("rotation", rotation),
    ];
    for (name, part) in parts {
        if arguments.text("--only").is_none_or(|only| only == name) {
            part(&options, &dir.join(name));
        }
    }
}

/// A server on `protocol` with these rules in one group, which also takes the one record in five that is written.
fn server(dir: &Path, protocol: &str, rules: &str, file_keys: &str) -> Daemon {
    let [audit, http, admin] = [free_port(), free_port(), free_port()];
    let (vault, port) = match protocol {
        "http" => ("audit_protocol: none".to_owned(), http),
        _ => (format!("audit_protocol: {protocol}, audit_address: \"127.0.0.1:{audit}\""), audit),
    };
    let config = format!(
        "vault: {{ {vault} }}\nlisten:\n  http: {{ address: \"127.0.0.1:{http}\" }}\n  admin: {{ address: \"127.0.0.1:{admin}\" }}\nrule_groups:\n  - name: some\n    rules:\n{}    log_file: {{ file_path: {}{file_keys} }}\n",
        rules_yaml(rules),
        dir.join("matched.log").display()
    );
    Daemon::configured(dir, &config, [port, admin])
}

/// Ten typical rules or as many others, with one among them that takes one record in five.
fn among(rules: &str, count: usize) -> String {
    let rules: Vec<&str> = rules.lines().filter(|l| !l.is_empty()).take(count - 1).chain([WRITTEN]).collect();
    rules.join("\n")
}

/// What the `bench` command says of a run.
fn run(daemon: &Daemon, kind: &str, rate: u32, connections: usize, seconds: f64) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_vault-audit-filter"))
        .args([
            "bench",
            kind,
            &daemon.http().to_string(),
            "--admin",
            &daemon.admin().to_string(),
            "--format",
            "json",
        ])
        .args(["--rate", &rate.to_string(), "--connections", &connections.to_string()])
        .args(["--duration", &format!("{seconds}s")])
        .output()
        .expect("the bench command");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// The median over the runs.
fn middle(reports: &[Value], pointer: &str) -> f64 {
    median(reports.iter().map(|r| number(r, pointer)).collect())
}

fn cpu(reports: &[Value]) -> f64 {
    middle(reports, "/receiver/cpu_us_per_record")
}

fn lost(reports: &[Value]) -> f64 {
    reports.iter().map(|r| number(r, "/receiver/lost")).sum()
}

/// Runs the arms in turns, so that what else the machine does hits all of them.
fn in_turns<const N: usize>(options: &Options, arms: [&dyn Fn() -> Value; N]) -> [Vec<Value>; N] {
    let mut reports: [Vec<Value>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..options.rounds {
        for (arm, reports) in arms.iter().zip(&mut reports) {
            reports.push(arm());
        }
    }
    reports
}

fn rules(options: &Options, dir: &Path) {
    println!("lines over TCP, as fast as it goes:");
    let [one, ten, many] =
        [("1", ONE_RULE.to_owned()), ("10", among(TYPICAL_RULES, 10)), ("1000", among(MANY_RULES, 1000))]
            .map(|(name, rules)| server(&dir.join(name), "tcp", &rules, ""));
    let arm = |daemon: &Daemon, connections| run(daemon, "tcp", 0, connections, options.seconds);
    let arms: [&dyn Fn() -> Value; 4] =
        [&|| arm(&one, 1), &|| arm(&ten, 1), &|| arm(&many, 1), &|| arm(&ten, 4)];
    let reports = in_turns(options, arms);
    let names = ["1 rule", "10 rules", "1,000 rules", "10 rules, 4 conn."];
    for (name, reports) in names.iter().zip(&reports) {
        println!(
            "  {name:<18} {:>9.0}/s | {:.2} us of processor time a record | {} lost",
            middle(reports, "/per_s"),
            cpu(reports),
            lost(reports)
        );
    }
    println!("  1,000 rules / 1 rule: {:.2}x", cpu(&reports[2]) / cpu(&reports[0]));
}

fn udp(options: &Options, dir: &Path) {
    println!("datagrams, 10 rules:");
    let daemon = server(dir, "udp", &among(TYPICAL_RULES, 10), "");
    let arm = |rate| run(&daemon, "udp", rate, 1, options.seconds);
    let rates = [20_000, 60_000, 100_000];
    let reports = in_turns(options, [&|| arm(rates[0]), &|| arm(rates[1]), &|| arm(rates[2])]);
    for (rate, reports) in rates.iter().zip(&reports) {
        println!(
            "  {rate:>7}/s asked, {:>7.0}/s sent | {:.2} us of processor time a record | {} lost",
            middle(reports, "/per_s"),
            cpu(reports),
            lost(reports)
        );
    }
}

fn burst(options: &Options, dir: &Path) {
    let daemon = server(dir, "udp", &among(TYPICAL_RULES, 10), "");
    let sender =
        UdpSocket::bind("127.0.0.1:0").and_then(|s| s.connect(daemon.http()).map(|()| s)).expect("a socket");
    let record = support::record(true).as_bytes();
    let bursts = if options.quick { 1 } else { BURSTS };
    let received = || daemon.metric("records_received_total{listener=\"udp\"}") as usize;
    let dropped = || daemon.metric("udp_kernel_drops_total") as usize;
    for n in 1..=bursts {
        for _ in 0..BURST {
            sender.send(record).expect("sent");
        }
        // What was dropped is counted at the latest when it has been quiet for a second.
        wait_until("all are accounted for", || received() + dropped() == n * BURST);
    }
    println!("{bursts} bursts of {BURST} datagrams into the idle server: {} lost, all counted", dropped());
}

fn latencies(report: &[Value]) -> String {
    let of = |name: &str| middle(report, &format!("/latency_us/{name}"));
    format!("p50 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0} us", of("p50"), of("p99"), of("p99_9"), of("max"))
}

fn http(options: &Options, dir: &Path) {
    println!("HTTP, 10 rules, as fast as answers come:");
    let daemon = server(dir, "http", &among(TYPICAL_RULES, 10), "");
    let arm = |connections| run(&daemon, "http", 0, connections, options.seconds);
    let reports = in_turns(options, [&|| arm(1), &|| arm(8), &|| arm(64), &|| arm(256)]);
    for (connections, reports) in [1, 8, 64, 256].iter().zip(&reports) {
        println!(
            "  {connections:>3} connections {:>8.0}/s | {:.1} us of processor time | {}",
            middle(reports, "/per_s"),
            cpu(reports),
            latencies(reports)
        );
    }
}

fn stall(options: &Options, dir: &Path) {
    let daemon = server(dir, "http", &among(TYPICAL_RULES, 10), "");
    let report = run(&daemon, "http", 1000, 8, if options.quick { options.seconds } else { 60.0 });
    println!(
        "HTTP, 1,000/s for {:.0} s over 8 connections: {}",
        number(&report, "/elapsed_s"),
        latencies(std::slice::from_ref(&report))
    );
    let late = |name| number(&report, &format!("/late_us/{name}"));
    println!("  of which before the sending: p99.9 {:.0}, max {:.0} us", late("p99_9"), late("max"));
}

fn idle(_: &Options, dir: &Path) {
    let daemon = server(dir, "http", &among(TYPICAL_RULES, 10), "");
    let before = daemon.resident_mb();
    let request = support::request(support::record(false).as_bytes());
    let connections: Vec<TcpStream> = (0..IDLE_CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(daemon.http()).expect("a connection");
            stream.write_all(&request).expect("taken");
            let mut answer = [0; 512];
            assert!(stream.read(&mut answer).is_ok_and(|n| answer[..n].starts_with(b"HTTP/1.1 204")));
            stream
        })
        .collect();
    let after = daemon.resident_mb();
    println!("{} idle connections: {before:.1} MB before, {after:.1} MB with them", connections.len());
}

fn rotation(options: &Options, dir: &Path) {
    for connections in [8, 256] {
        rotation_with(options, &dir.join(connections.to_string()), connections);
    }
}

fn rotation_with(options: &Options, dir: &Path, connections: usize) {
    println!("HTTP, {connections} connections as fast as answers come:");
    let [none, each_second] = [("none", ", max_size: 2000"), ("each", ", max_size: 15, max_backups: 3")]
        .map(|(name, keys)| server(&dir.join(name), "http", &among(TYPICAL_RULES, 10), keys));
    let seconds = if options.quick { options.seconds } else { options.seconds.max(10.0) };
    let arm = |daemon: &Daemon| run(daemon, "http", 0, connections, seconds);
    let reports = in_turns(options, [&|| arm(&none), &|| arm(&each_second)]);
    let p99_without = middle(&reports[0], "/latency_us/p99");
    for (i, (name, daemon)) in [("none", &none), ("each", &each_second)].into_iter().enumerate() {
        let file = dir.join(name).join("matched.log");
        let rotations = daemon.metric(&format!("log_rotations_total{{file=\"{}\"}}", file.display()));
        let (per_second, latencies) = (middle(&reports[i], "/per_s"), latencies(&reports[i]));
        let longest = reports[i].iter().map(|r| number(r, "/latency_us/max")).fold(0.0, f64::max);
        println!(
            "  {rotations:>4} rotations {per_second:>8.0}/s | {latencies} | longest of all {:.2}x the p99 without",
            longest / p99_without
        );
    }
    let ratio = |name| middle(&reports[1], name) / middle(&reports[0], name);
    println!(
        "  with / without: p99 {:.2}x, p99.9 {:.2}x",
        ratio("/latency_us/p99"),
        ratio("/latency_us/p99_9")
    );
}
