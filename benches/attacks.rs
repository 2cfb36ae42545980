//! What attacks on the HTTP listener cost those who behave: the real program, one attack after the other, each on a fresh process, while a
//! good client goes on (8 connections, 200 requests a second in all, latency from the instant at which a request was due). Before each attack the
//! same client runs without it: compare the two, not the figures. The attackers share the machine with the program and take what they can get
//! of it, so part of what the good client sees is the machine's and not the program's.
//!
//! Heads, bodies and writes have a second each (`limits.*_timeout`), so that a short run sees them end. "met" counts what the attackers
//! were answered (status), how often they were closed or reset, and how many connections they held at the end. Memory is the process' peak
//! (VmHWM) before and after the attack.
//!
//! Fails when the good client gets anything but 204.
//! `cargo bench --bench attacks -- [--quick] [--seconds S] [--only NAME]`; with `--profile release`, what is delivered.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a bench program measures time and prints"
)]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vault_audit_filter::clock;

#[path = "support/daemon.rs"]
mod daemon;
mod support;
#[path = "../tests/support/mod.rs"]
mod testing;

use daemon::Daemon;
use support::args::Arguments;
use support::load::{Outcome, open_loop};
use support::{RECORDS, record};
use testing::TempDir;

const CONNECTIONS: usize = 8;
const PER_SECOND: u32 = 200;
/// How long one read of an answer may take; longer counts as no answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The attack on a program that may open [`OPEN_FILES`] files only, fewer than connections.
const FEW_FILES: &str = "more connections than open files";
const OPEN_FILES: u64 = 96;

/// What attackers met: statuses, `closed`, `reset`, `held`, and how often.
type Met = BTreeMap<String, u64>;

/// Attacks an address until some instant.
type Attack = fn(SocketAddr, Instant) -> Met;

const ATTACKS: [(&str, Attack); 15] = [
    ("slow heads", |to, until| trickle(to, until, 400, b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nX-Slow: ")),
    ("slow bodies", |to, until| {
        trickle(to, until, 400, b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{")
    }),
    ("slow chunks", |to, until| {
        trickle(
            to,
            until,
            400,
            b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFF\r\n{",
        )
    }),
    ("silent connections", |to, until| trickle(to, until, 1500, b"")),
    (FEW_FILES, |to, until| trickle(to, until, 400, b"")),
    ("connections opened and closed", |to, until| flood(to, until, None)),
    ("connections reset within a request", |to, until| {
        flood(to, until, Some(b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{\"smug"))
    }),
    ("answers that nobody reads", unread),
    ("pipelined requests", |to, until| {
        let many = b"GET /v1/audit HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200);
        exchange(to, until, &[many])
    }),
    ("smuggled requests", |to, until| exchange(to, until, &smuggled())),
    ("huge lengths", |to, until| {
        exchange(
            to,
            until,
            &[b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n{}".to_vec()],
        )
    }),
    ("endless heads", |to, until| {
        let head = format!("POST /v1/audit HTTP/1.1\r\nX: {}", "y".repeat(100_000));
        exchange(to, until, &[head.into_bytes()])
    }),
    ("gzip bombs", |to, until| exchange(to, until, std::slice::from_ref(&BOMB))),
    ("HTTP/2, TLS and noise", |to, until| exchange(to, until, &foreign())),
    ("deep nesting and broken JSON", |to, until| {
        let bodies = [
            "[".repeat(60_000),
            "{\"a\":".repeat(10_000),
            format!("{{\"a\":\"{}", "\u{1b}[2J".repeat(10_000)),
        ];
        exchange(to, until, &bodies.map(|body| support::request(body.as_bytes())))
    }),
];

/// The good client goes on: each of its connections has sent something before the attack begins. Who connects and is silent for as long as
/// it takes to open as many connections as there may be makes room for others, and when no descriptor is left newcomers wait in the kernel.
const GOOD_CLIENT_FIRST: Duration = Duration::from_millis(100);

/// Made before any clock runs.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(bomb);

fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    let duration = Duration::from_secs_f64(arguments.number("--seconds", 0.3, 5.0));
    raise_open_files();
    LazyLock::force(&BOMB);
    let dir = TempDir::new("bench-attacks");
    let requests: Vec<Vec<u8>> = RECORDS.lines().map(|line| support::request(line.as_bytes())).collect();
    println!(
        "good client: {CONNECTIONS} connections, {PER_SECOND}/s in all, {:.1} s without and {:.1} s with each attack\n",
        duration.as_secs_f64(),
        duration.as_secs_f64()
    );
    println!(
        "| attack | met | good client: 204 / other | p50, p99 without | p50, p99 during | p99 ratio | peak memory before, after |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut harmed = 0;
    let wanted = |name: &str| arguments.text("--only").is_none_or(|only| name.contains(only));
    for (n, (name, attack)) in ATTACKS.iter().enumerate().filter(|(_, (name, _))| wanted(name)) {
        let daemon = start(&dir, n, *name == FEW_FILES);
        let good = || {
            open_loop(daemon.http(), CONNECTIONS, PER_SECOND, &requests, duration).expect("the good client")
        };
        let without = good();
        let before = daemon.peak_mb();
        let (met, during) = std::thread::scope(|scope| {
            let until = clock::now() + duration;
            let to = daemon.http();
            let attacker = scope.spawn(move || {
                std::thread::sleep(GOOD_CLIENT_FIRST);
                attack(to, until)
            });
            let during = good();
            (attacker.join().expect("the attacker"), during)
        });
        let after = daemon.peak_mb();
        print_row(name, &met, [&without, &during], [before, after]);
        let lost = [&without, &during].iter().map(|o| o.errors + o.unanswered as u64).sum::<u64>();
        let alive = TcpStream::connect(daemon.admin()).is_ok()
            && daemon.metric("service_panics_total{listener=\"http\"}") == 0.0;
        harmed += u64::from(lost > 0 || !alive || met.is_empty());
    }
    if harmed == 0 {
        return ExitCode::SUCCESS;
    }
    println!("\n{harmed} attacks harmed the good client, or were none");
    ExitCode::FAILURE
}

fn start(dir: &TempDir, n: usize, few_files: bool) -> Daemon {
    let limits = "limits: { head_timeout: 1s, body_timeout: 1s, write_timeout: 1s }\n";
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    if few_files {
        // The program inherits it.
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, hard).expect("a lower limit");
    }
    let daemon = Daemon::start_with(&dir.join(&n.to_string()), None, limits);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("the limit as it was");
    // The first matching record opens the log file.
    let warm = open_loop(
        daemon.http(),
        1,
        100,
        &[support::request(record(true).as_bytes())],
        Duration::from_millis(50),
    );
    warm.expect("a first record");
    daemon
}

fn print_row(name: &str, met: &Met, [without, during]: [&Outcome; 2], [before, after]: [f64; 2]) {
    let met: Vec<String> = met.iter().map(|(what, n)| format!("{what}: {n}")).collect();
    let latency = |o: &Outcome| format!("{:.0}, {:.0} µs", o.percentile_us(50.0), o.percentile_us(99.0));
    println!(
        "| {name} | {} | {} / {} | {} | {} | {:.1} | {before:.0}, {after:.0} MB |",
        met.join(", "),
        during.latencies_ns.len(),
        during.errors + during.unanswered as u64,
        latency(without),
        latency(during),
        during.percentile_us(99.0) / without.percentile_us(99.0)
    );
}

/// The attackers hold more connections than programs may usually open.
fn raise_open_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 16), hard).expect("a higher limit of open files");
}

fn count(met: &mut Met, what: impl Into<String>, n: u64) {
    *met.entry(what.into()).or_default() += n;
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    Ok(stream)
}

/// Looks what has come on a connection that must not be waited for: `None` while it is open. Answers are counted.
fn look(stream: &mut TcpStream, met: &mut Met) -> Option<&'static str> {
    let mut answer = [0; 4096];
    match stream.read(&mut answer) {
        Ok(0) => Some("closed"),
        Ok(n) => {
            count_answers(&answer[..n], met);
            None
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some("reset"),
    }
}

fn count_answers(bytes: &[u8], met: &mut Met) {
    for at in memchr::memmem::find_iter(bytes, b"HTTP/1.1 ") {
        let status = bytes.get(at + 9..at + 12).unwrap_or_default();
        // Bodies name the version, too.
        if status.iter().all(u8::is_ascii_digit) {
            count(met, String::from_utf8_lossy(status), 1);
        }
    }
}

/// Holds so many connections, each of which sends `start` and then a byte every tenth of a second; with nothing to start with, nothing at
/// all. Those that are closed are opened anew.
fn trickle(to: SocketAddr, until: Instant, connections: usize, start: &[u8]) -> Met {
    let mut met = Met::new();
    let mut held: Vec<TcpStream> = Vec::new();
    while clock::now() < until {
        while held.len() < connections
            && clock::now() < until
            && let Ok(mut stream) = connect(to)
        {
            let _ = stream.write_all(start);
            let _ = stream.set_nonblocking(true);
            held.push(stream);
        }
        held.retain_mut(|stream| {
            let _ = if start.is_empty() { Ok(0) } else { stream.write(b"x") };
            let end = look(stream, &mut met);
            end.inspect(|end| count(&mut met, *end, 1)).is_none()
        });
        std::thread::sleep(Duration::from_millis(100));
    }
    count(&mut met, "held", held.len() as u64);
    met
}

/// Opens connections as fast as it goes; with a beginning of a request each of them is reset, else closed.
fn flood(to: SocketAddr, until: Instant, start: Option<&[u8]>) -> Met {
    let mut met = Met::new();
    while clock::now() < until {
        let Ok(mut stream) = connect(to) else {
            count(&mut met, "not connected", 1);
            continue;
        };
        if let Some(start) = start {
            let _ = stream.write_all(start);
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        count(&mut met, "opened", 1);
    }
    met
}

/// Sends requests and reads no answer, on 16 connections.
fn unread(to: SocketAddr, until: Instant) -> Met {
    let mut met = Met::new();
    let requests = b"GET /v1/audit HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let mut held: Vec<TcpStream> = Vec::new();
    while clock::now() < until {
        while held.len() < 16
            && let Ok(stream) = connect(to)
        {
            let _ = stream.set_nonblocking(true);
            held.push(stream);
        }
        held.retain_mut(|stream| match stream.write(&requests) {
            Ok(n) => {
                count(&mut met, "KB sent", n as u64 / 1000);
                true
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => true,
            Err(_) => {
                count(&mut met, "reset", 1);
                false
            }
        });
        std::thread::sleep(Duration::from_millis(1));
    }
    count(&mut met, "held", held.len() as u64);
    met
}

/// Sends each of these on a connection of its own and reads what comes until it is closed or nothing comes any more, over and over.
fn exchange(to: SocketAddr, until: Instant, requests: &[Vec<u8>]) -> Met {
    let mut met = Met::new();
    let mut answer = vec![0; 64 << 10];
    for request in requests.iter().cycle() {
        if clock::now() >= until {
            break;
        }
        let Ok(mut stream) = connect(to) else {
            count(&mut met, "not connected", 1);
            continue;
        };
        // It may be refused while it is being sent.
        let _ = stream.write_all(request);
        // Who answers and does not close is left after the last answer.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        loop {
            match stream.read(&mut answer) {
                Ok(0) => break count(&mut met, "closed", 1),
                Ok(n) => count_answers(&answer[..n], &mut met),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break count(&mut met, "no answer", 1),
                Err(_) => break count(&mut met, "reset", 1),
            }
        }
    }
    met
}

/// Requests whose end two readers could see in different places, each with another one behind it.
fn smuggled() -> Vec<Vec<u8>> {
    let inner = "POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    let heads = [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 60\r\n\r\n{}",
        "Content-Length: 2, 60\r\n\r\n{}",
        "Content-Length: +2\r\n\r\n{}",
        "Content-Length : 2\r\n\r\n{}",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
        "X: a\r\n Content-Length: 2\r\n\r\n{}",
        "X: a\nContent-Length: 2\r\n\r\n{}",
    ];
    let whole = |head: &str| format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\n{head}{inner}").into_bytes();
    heads.iter().map(|head| whole(head)).collect()
}

/// A quarter of a gigabyte of zeros in some 250 KB: one member over and over.
fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b'0'; 1 << 20]).expect("compressed");
    let body = encoder.finish().expect("compressed").repeat(256);
    let head = format!(
        "POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// What is not HTTP/1.
fn foreign() -> Vec<Vec<u8>> {
    let noise: Vec<u8> = (0..4096).map(|_| fastrand::u8(..)).collect();
    let hello =
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\r\n\r\n";
    vec![
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec(),
        hello.to_vec(),
        b"GET / HTTP/2.0\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        noise,
    ]
}
