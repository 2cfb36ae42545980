//! API calls per second of a real OpenBao whose only audit device is this program, against the same OpenBao with a
//! server that does nothing but answer 204 (the floor). Two OpenBao servers run side by side; the load alternates
//! between them, so that both meet the same machine. The figure to read is the ratio.
//!
//! `VAF_BAO` names the `bao` program (default `target/openbao/bin/bao`, which `tests/run` fetches); without it the
//! bench says so and ends. `cargo bench --bench openbao -- [--quick] [--rounds N] [--seconds S]`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a bench program measures time and prints"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[path = "support/daemon.rs"]
mod daemon;
mod support;
#[path = "../tests/support/mod.rs"]
mod testing;

use daemon::Daemon;
use support::args::{Arguments, median};
use support::floor::Floor;
use testing::openbao::{self, OpenBao};
use testing::{PATIENCE, TempDir};

struct Options {
    rounds: usize,
    seconds: f64,
}

fn options() -> Options {
    let arguments = Arguments::of_process();
    Options { rounds: arguments.rounds(5), seconds: arguments.number("--seconds", 0.1, 3.0) }
}

fn main() {
    let bao = match openbao::program() {
        Ok(bao) => bao,
        Err(why) => {
            println!("left out: {why}");
            return;
        }
    };
    let options = options();
    let dir = TempDir::new("bench-openbao");
    let floor = Floor::start().expect("the floor server");
    let ours = Daemon::start(dir.path(), None);
    let with_audit_to = |name: &str, to| {
        let stanza = format!("audit \"http\" \"bench\" {{ options {{ uri = \"http://{to}/v1/audit\" }} }}\n");
        let server = OpenBao::start(&bao, &dir.join(name), &stanza);
        server.api().root("POST", "secret/data/bench", BODY);
        server
    };
    let with_floor = with_audit_to("floor", floor.address());
    let with_ours = with_audit_to("ours", ours.http());
    for clients in [1, 16] {
        let mut ratios = Vec::new();
        for round in 0..options.rounds {
            let (a, b) = if round % 2 == 0 {
                let a = load(&with_floor, clients, options.seconds);
                (a, load(&with_ours, clients, options.seconds))
            } else {
                let b = load(&with_ours, clients, options.seconds);
                (load(&with_floor, clients, options.seconds), b)
            };
            println!(
                "{clients:>2} clients, round {round}: floor {:>6.0}/s p50 {:>5.0} us, ours {:>6.0}/s p50 {:>5.0} us, ratio {:.3}",
                a.0,
                a.1,
                b.0,
                b.1,
                b.0 / a.0
            );
            ratios.push(b.0 / a.0);
        }
        println!("{clients:>2} clients: median ratio ours/floor {:.3}", median(ratios));
    }
}

/// What is written again and again.
const BODY: &str = r#"{"data":{"a":"b","c":"d"}}"#;

/// Reads and writes in turn from `clients` connections; calls per second and the median latency in microseconds. Each
/// client makes one call at least.
fn load(server: &OpenBao, clients: usize, seconds: f64) -> (f64, f64) {
    let (port, stop) = (server.port(), AtomicBool::new(false));
    let started = Instant::now();
    let mut all = Vec::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|n| {
                scope.spawn({
                    let stop = &stop;
                    move || calls(port, n, stop)
                })
            })
            .collect();
        thread::sleep(Duration::from_secs_f64(seconds));
        stop.store(true, Ordering::Relaxed);
        all.extend(threads.into_iter().flat_map(|t| t.join().expect("a client thread")));
    });
    let elapsed = started.elapsed().as_secs_f64();
    all.sort_by(f64::total_cmp);
    (all.len() as f64 / elapsed, all[all.len() / 2])
}

/// One client's calls until it is told to stop: their latencies in microseconds.
fn calls(port: u16, client: usize, stop: &AtomicBool) -> Vec<f64> {
    let own = format!("/v1/secret/data/bench-{client}");
    let mut connection = Client::connect(port).expect("a connection to OpenBao");
    let mut latencies = Vec::new();
    loop {
        let begin = Instant::now();
        let status = if latencies.len() % 2 == 0 {
            connection.call("GET", "/v1/secret/data/bench", "")
        } else {
            connection.call("POST", &own, BODY)
        };
        assert_eq!(status.expect("an answer"), 200);
        latencies.push(begin.elapsed().as_secs_f64() * 1e6);
        if stop.load(Ordering::Relaxed) {
            return latencies;
        }
    }
}

/// A kept-alive connection to OpenBao's API that costs the machine less than that of the tests.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> std::io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    fn call(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<u16> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: root\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok(status)
    }
}
