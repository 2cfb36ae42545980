//! What the real program adds to an HTTP ack: ten typical rules, real audit entries of 1.6 KB, against the floor (a
//! thread per connection that answers 204 and does nothing else) in the same run, in turns.
//!
//! - `mixed`: all records of a captured trail in turn, as a server sees them; about one in six matches and is written.
//! - `unmatched`: decoded, ten rules, nothing written; what most records are.
//! - `matched`: the same and one line appended to the group's log file.
//! - `sinks hung`: the same as matched, while the group's webhook accepts connections and never answers.
//! - `two files`: the same as matched, with one group more, for whose file nothing comes.
//! - `disk hung`: the same, while eight records wait for that file, whose disk hangs (a frozen file system; needs the right to mount, left
//!   out otherwise).
//!
//! Open loop: 8 connections, 1,000 requests a second in all, latency from the instant at which a request was due. Closed
//! loop: 8 connections as fast as answers come. Read the ratios, not the figures.
//! `cargo bench --bench ack -- [--quick] [--rounds N] [--seconds S]`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a bench program measures time and prints"
)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/frozen.rs"]
mod frozen;
mod support;
#[path = "../tests/support/mod.rs"]
mod testing;

use daemon::Daemon;
use frozen::Disk;
use support::args::{Arguments, median};
use support::floor::Floor;
use support::load::{Outcome, closed_loop, open_loop};
use support::{RECORDS, record};
use testing::{TempDir, wait_until};

/// Name, address and the requests that it is sent.
type Server<'a> = (&'static str, SocketAddr, &'a [Vec<u8>]);
const MATCHED: usize = 3;
const SINKS_HUNG: usize = 5;
const TWO_FILES: usize = 6;
const DISK_HUNG: usize = 7;
/// Records that wait for the hanging disk, each on a connection of its own.
const WAITING: usize = 8;
const CONNECTIONS: usize = 8;
const OPEN_LOOP_PER_SECOND: u32 = 1000;

struct Options {
    rounds: usize,
    duration: Duration,
}

fn options() -> Options {
    let arguments = Arguments::of_process();
    Options {
        rounds: arguments.rounds(7),
        duration: Duration::from_secs_f64(arguments.number("--seconds", 0.1, 3.0)),
    }
}

fn main() {
    let options = options();
    let dir = TempDir::new("bench-ack");
    let floor = Floor::start().expect("the floor server");
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let plain = Daemon::start(&dir.join("plain"), None);
    let with_hung_sink = Daemon::start(&dir.join("hung"), Some(hung.local_addr().expect("its address")));
    let requests = |records: &[&str]| -> Vec<Vec<u8>> {
        records.iter().map(|r| support::request(r.as_bytes())).collect()
    };
    let mixed = requests(&RECORDS.lines().collect::<Vec<_>>());
    let (unmatched, matched) = (requests(&[record(false)]), requests(&[record(true)]));
    let beside = with_second_file(&dir.join("beside"), &dir.join("beside"));
    let hanging = with_hung_disk(&dir.join("hanging"));
    let mut servers: Vec<Server<'_>> = vec![
        ("floor", floor.address(), &mixed),
        ("mixed", plain.http(), &mixed),
        ("unmatched", plain.http(), &unmatched),
        ("matched", plain.http(), &matched),
        ("floor again", floor.address(), &mixed),
        ("sinks hung", with_hung_sink.http(), &matched),
        ("two files", beside.http(), &matched),
    ];
    match &hanging {
        Ok(hanging) => servers.push(("disk hung", hanging.daemon.http(), &matched)),
        Err(why) => println!("left out: disk hung ({why})"),
    }
    for (kind, run) in [("open loop", open as Run), ("closed loop", closed as Run)] {
        let mut rounds: Vec<Vec<Outcome>> = vec![Vec::new(); servers.len()];
        for round in 0..options.rounds {
            for i in 0..servers.len() {
                let at = (i + round) % servers.len();
                let (name, to, requests) = servers[at];
                let outcome = run(to, requests, options.duration);
                assert_eq!(outcome.errors, 0, "{name} answered something else than 204");
                assert_eq!(outcome.unanswered, 0, "{name} left a connection unanswered");
                rounds[at].push(outcome);
            }
        }
        report(kind, &servers, &rounds);
    }
}

/// Its second group has a file below `second`.
fn with_second_file(dir: &Path, second: &Path) -> Daemon {
    let file = second_file(second);
    let group = "  - name: second\n    rules: ['Request.Path startsWith \"second/\"']\n";
    Daemon::start_with(dir, None, &format!("{group}    log_file: {{ file_path: {file} }}\n"))
}

fn second_file(below: &Path) -> String {
    below.join("second.log").display().to_string()
}

/// The disk goes first: it thaws, and the program can end.
struct Hanging {
    _disk: Disk,
    _waiting: Vec<TcpStream>,
    daemon: Daemon,
}

/// The disk of its second file hangs, and records wait for it.
fn with_hung_disk(dir: &Path) -> Result<Hanging, String> {
    let mut disk = Disk::mount(dir)?;
    let daemon = with_second_file(dir, disk.path());
    disk.freeze()?;
    let entry = r#"{"type":"request","request":{"id":"1","operation":"read","path":"second/a"}}"#;
    let send = |_| {
        let mut client = TcpStream::connect(daemon.http()).expect("a connection");
        client.write_all(&support::request(entry.as_bytes())).expect("sent");
        client
    };
    let waiting = (0..WAITING).map(send).collect();
    let stuck = format!("log_write_stuck_seconds{{file=\"{}\"}}", second_file(disk.path()));
    let threads = daemon.threads("ingest-");
    wait_until("a write hangs", || daemon.metric(&stuck) > 0.0);
    wait_until("threads that hang are replaced", || daemon.threads("ingest-") > threads);
    Ok(Hanging { _disk: disk, _waiting: waiting, daemon })
}

/// A figure of a run.
type Figure = fn(&Outcome) -> f64;
type Run = fn(SocketAddr, &[Vec<u8>], Duration) -> Outcome;

fn open(to: SocketAddr, requests: &[Vec<u8>], duration: Duration) -> Outcome {
    open_loop(to, CONNECTIONS, OPEN_LOOP_PER_SECOND, requests, duration).expect("the open loop")
}

fn closed(to: SocketAddr, requests: &[Vec<u8>], duration: Duration) -> Outcome {
    closed_loop(to, CONNECTIONS, requests, duration).expect("the closed loop")
}

/// Medians over the rounds, and the medians of the ratios round by round: to the floor, and of the hung sinks to none.
fn report(kind: &str, servers: &[Server<'_>], rounds: &[Vec<Outcome>]) {
    println!("{kind}, {CONNECTIONS} connections:");
    let figures: [(&str, Figure); 4] = [
        ("per second", Outcome::per_second),
        ("p50 us", |o| o.percentile_us(50.0)),
        ("p99 us", |o| o.percentile_us(99.0)),
        ("max us", |o| o.percentile_us(100.0)),
    ];
    for (i, (name, _, requests)) in servers.iter().enumerate() {
        let bytes: usize = requests.iter().map(Vec::len).sum();
        print!("  {name:<12} {:>5} B", bytes / requests.len());
        for (label, figure) in figures {
            let own = median(rounds[i].iter().map(figure).collect());
            let ratio = median(
                rounds[i].iter().zip(&rounds[0]).map(|(o, floor)| figure(o) / figure(floor)).collect(),
            );
            print!(" | {label} {own:>8.0} ({ratio:.2}x floor)");
        }
        println!();
    }
    for (label, figure) in figures {
        let ratio = |with: usize, without: usize| {
            let pairs = rounds[with].iter().zip(&rounds[without]);
            median(pairs.map(|(w, wo)| figure(w) / figure(wo)).collect())
        };
        print!("  sinks hung / no sinks, {label}: {:.2}x", ratio(SINKS_HUNG, MATCHED));
        if servers.len() > DISK_HUNG {
            print!("; disk hung / two files, {label}: {:.2}x", ratio(DISK_HUNG, TWO_FILES));
        }
        println!();
    }
}
