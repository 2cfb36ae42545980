//! One handler behind three front doors: the ingest pool, tiny_http with a pool of four, and the floor server (a thread per connection that
//! answers and does nothing else). The answer to the question whether the ingest pool is still worth its code.
//!
//! `cargo bench --bench http` takes two minutes; `-- --rounds N`, `-- --seconds S`; `-- --quick` (also without `--bench`, as `cargo test` runs
//! it) only shows that everything works. Runs of the three alternate, and the ratios are medians over the rounds, since other work on the
//! machine disturbs absolute numbers.
#![allow(clippy::print_stdout, reason = "the report is the product")]
#![allow(unreachable_pub, reason = "a bench program has no outside")]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use support::args::median;
use support::floor::Floor;
use support::load::{Outcome, closed_loop, open_loop};
use vault_audit_filter::config::Limits;
use vault_audit_filter::listener::http::{Request, Response};
use vault_audit_filter::listener::{
    BadFrame, Endpoint, LineReply, Listener, Park, Pool, PoolOptions, Reply, Service, Source, bind_tcp,
};
use vault_audit_filter::metrics::Registry;

/// An audit record of about 1.2 KB, as OpenBao sends it for one read of a secret.
const RECORD: &[u8] = br#"{"time":"2026-11-24T09:00:00.123456789Z","type":"response","auth":{"client_token":"hmac-sha256:7f0e3c1d5b9a48e2a6c4f8d10b2e4a6c8e0f1a3b5c7d9e1f2a4b6c8d0e2f4a6b","accessor":"hmac-sha256:1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809","display_name":"approle","policies":["default","reader"],"token_policies":["default","reader"],"policy_results":{"allowed":true,"granting_policies":[{"name":"reader","namespace_id":"root","type":"acl"}]},"entity_id":"9c1f2a34-5b6c-4d7e-8f90-a1b2c3d4e5f6","token_type":"service","token_ttl":3600},"request":{"id":"5a6b7c8d-9e0f-4a1b-8c2d-3e4f5a6b7c8d","client_id":"9c1f2a34-5b6c-4d7e-8f90-a1b2c3d4e5f6","operation":"read","mount_point":"secret/","mount_type":"kv","mount_accessor":"kv_5f6a7b8c","client_token":"hmac-sha256:7f0e3c1d5b9a48e2a6c4f8d10b2e4a6c8e0f1a3b5c7d9e1f2a4b6c8d0e2f4a6b","namespace":{"id":"root"},"path":"secret/data/app/config","remote_address":"10.0.0.7","remote_port":51342},"response":{"mount_type":"kv","data":{"data":{"user":"hmac-sha256:0a1b2c3d","password":"hmac-sha256:4e5f6a7b"}}}}
"#;

/// The handler: a record is a body that begins like one.
fn handle(method: &str, path: &str, body: &[u8]) -> u16 {
    match (method, path) {
        ("POST", "/v1/audit") if body.first() == Some(&b'{') => 204,
        ("POST", "/v1/audit") => 400,
        _ => 404,
    }
}

struct Handler;

impl Service for Handler {
    type Worker = ();

    fn worker(&self) {}

    fn http(&self, _: Source, request: &Request<'_>, _: &mut (), _: &dyn Park) -> Reply {
        Reply::Now(Response::empty(handle(request.method, request.path, request.body)))
    }

    fn http_refused(&self, _: Source, _: u16) {}

    fn lines(&self, _: Source, _: &[&[u8]], _: &mut (), _: &dyn Park) -> LineReply {
        LineReply::Continue
    }

    fn datagrams(&self, _: &[&[u8]], _: &mut ()) {}

    fn bad_frame(&self, _: Source, _: BadFrame<'_>, _: &mut ()) {}
}

/// A server under test.
enum Door {
    Floor(Floor),
    Ingest(SocketAddr, Pool<Handler>),
    TinyHttp(SocketAddr, Arc<tiny_http::Server>, Vec<JoinHandle<()>>),
}

const TINY_HTTP_THREADS: usize = 4;
const NAMES: [&str; 3] = ["floor", "ingest pool", "tiny_http"];

impl Door {
    fn open(name: &str) -> Door {
        match name {
            "floor" => Door::Floor(Floor::start().expect("loopback has a free port")),
            "ingest pool" => Door::ingest(),
            _ => Door::tiny_http(),
        }
    }

    fn ingest() -> Door {
        let listener = bind_tcp("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let endpoint = Endpoint::new(Source::Http, Listener::Tcp(listener));
        let options = PoolOptions::new(Limits::default());
        let pool = Pool::start(Arc::new(Handler), vec![endpoint], options, &Registry::new());
        Door::Ingest(address, pool.expect("the pool starts"))
    }

    fn tiny_http() -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let server = Arc::new(tiny_http::Server::from_listener(listener, None).expect("tiny_http starts"));
        let threads = (0..TINY_HTTP_THREADS)
            .map(|_| {
                let server = Arc::clone(&server);
                let serve = move || while server.recv().is_ok_and(answer) {};
                std::thread::Builder::new().spawn(serve).expect("a thread starts")
            })
            .collect();
        Door::TinyHttp(address, server, threads)
    }

    fn address(&self) -> SocketAddr {
        match self {
            Door::Floor(floor) => floor.address(),
            Door::Ingest(address, _) | Door::TinyHttp(address, ..) => *address,
        }
    }

    fn close(self) {
        match self {
            Door::Floor(floor) => drop(floor),
            Door::Ingest(_, pool) => pool.join(),
            Door::TinyHttp(_, server, threads) => {
                threads.iter().for_each(|_| server.unblock());
                for thread in threads {
                    thread.join().expect("a tiny_http thread ends in peace");
                }
            }
        }
    }
}

/// Serves one request; `true` as long as there may be more.
fn answer(mut request: tiny_http::Request) -> bool {
    let mut body = vec![0; request.body_length().unwrap_or(0)];
    let status = match request.as_reader().read_exact(&mut body) {
        Ok(()) => handle(request.method().as_str(), request.url(), &body),
        Err(_) => 400,
    };
    // A client that has gone is no reason to end.
    let _ = request.respond(tiny_http::Response::empty(status));
    true
}

#[derive(Clone, Copy)]
enum Load {
    Closed(usize),
    Open(usize, u32),
}

const LOADS: [Load; 4] = [Load::Closed(1), Load::Closed(8), Load::Closed(64), Load::Open(8, 1000)];

impl Load {
    fn name(self) -> String {
        match self {
            Load::Closed(connections) => format!("closed loop, {connections} connections"),
            Load::Open(connections, rate) => format!("open loop, {connections} connections, {rate}/s"),
        }
    }

    fn run(self, to: SocketAddr, request: &[u8], duration: Duration) -> Outcome {
        match self {
            Load::Closed(connections) => closed_loop(to, connections, &[request.to_vec()], duration),
            Load::Open(connections, rate) => open_loop(to, connections, rate, &[request.to_vec()], duration),
        }
        .expect("the load generator can connect")
    }

    /// [`Load::run`], with the processor time of the whole process.
    fn measure(self, to: SocketAddr, request: &[u8], duration: Duration) -> Measured {
        let before = cpu_us();
        let outcome = self.run(to, request, duration);
        let cpu_us = (cpu_us() - before) / outcome.latencies_ns.len().max(1) as f64;
        Measured { outcome, cpu_us }
    }
}

/// One run. The processor time per request, load generator included, is the figure that other work on the machine disturbs least.
struct Measured {
    outcome: Outcome,
    cpu_us: f64,
}

/// Processor time used so far, in microseconds.
fn cpu_us() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64
}

struct Settings {
    quick: bool,
    rounds: usize,
    duration: Duration,
}

fn settings() -> Settings {
    let args: Vec<String> = std::env::args().collect();
    let has = |name: &str| args.iter().any(|a| a == name);
    let value =
        |name: &str| args.iter().skip_while(|a| *a != name).nth(1).and_then(|v| v.parse::<f64>().ok());
    let quick = has("--quick") || has("--test") || !has("--bench");
    let (rounds, seconds) = if quick { (1.0, 0.2) } else { (5.0, 2.0) };
    Settings {
        quick,
        rounds: value("--rounds").unwrap_or(rounds).max(1.0) as usize,
        duration: Duration::from_secs_f64(value("--seconds").unwrap_or(seconds).clamp(0.05, 600.0)),
    }
}

/// One line of the report: medians over the rounds, and the medians of the ratios to the floor in the same round.
fn report(name: &str, rounds: &[Measured], floor: &[Measured]) {
    let of = |figure: &dyn Fn(&Measured) -> f64| median(rounds.iter().map(figure).collect());
    let ratio = |figure: &dyn Fn(&Measured) -> f64| {
        median(rounds.iter().zip(floor).map(|(a, b)| figure(a) / figure(b)).collect())
    };
    let percentile = |p: f64| move |m: &Measured| m.outcome.percentile_us(p);
    let rate = |m: &Measured| m.outcome.per_second();
    let errors: u64 = rounds.iter().map(|m| m.outcome.errors).sum();
    let starved: usize = rounds.iter().map(|m| m.outcome.starved).sum();
    let unanswered: usize = rounds.iter().map(|m| m.outcome.unanswered).sum();
    println!(
        "  {name:<12} {:>8.0}/s  p50 {:>7.1} us  p99 {:>8.1} us  max {:>9.1} us  cpu {:>5.1} us   to floor: rate {:.2}  p50 {:.2}  p99 {:.2}  cpu {:.2}   errors {errors}, starved {starved}, unanswered {unanswered}",
        of(&rate),
        of(&percentile(50.0)),
        of(&percentile(99.0)),
        of(&percentile(100.0)),
        of(&|m| m.cpu_us),
        ratio(&rate),
        ratio(&percentile(50.0)),
        ratio(&percentile(99.0)),
        ratio(&|m| m.cpu_us),
    );
}

fn main() {
    let settings = settings();
    let request = support::request(RECORD);
    println!("{} rounds of {:?}, request of {} bytes", settings.rounds, settings.duration, request.len());
    let mut failed = false;
    for load in LOADS {
        let mut outcomes = [const { Vec::new() }; NAMES.len()];
        for round in 0..settings.rounds {
            // Each round begins with another one, so that none always runs in the wake of the same.
            for turn in 0..NAMES.len() {
                let which = (round + turn) % NAMES.len();
                let door = Door::open(NAMES[which]);
                outcomes[which].push(load.measure(door.address(), &request, settings.duration));
                door.close();
            }
        }
        println!("{}", load.name());
        for (name, rounds) in NAMES.iter().zip(&outcomes) {
            report(name, rounds, &outcomes[0]);
        }
        // tiny_http leaving connections unanswered is a finding, not a failure; the ingest pool doing so is. A quick run is
        // too short to tell a starved connection from a busy machine.
        failed |= outcomes[1].iter().map(|m| &m.outcome).any(|o| {
            o.errors > 0
                || o.unanswered > 0
                || o.latencies_ns.is_empty()
                || (o.starved > 0 && !settings.quick)
        });
    }
    assert!(!failed, "the ingest pool answered wrongly or left a connection unanswered");
}
