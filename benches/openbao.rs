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
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[path = "support/floor.rs"]
mod floor;

/// Ten rules as an operator would write them; the same as in the decode and rules benches.
const TYPICAL_RULES: &str = include_str!("../tests/data/rules/typical10.txt");

struct Options {
    rounds: usize,
    seconds: f64,
}

fn options() -> Options {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).and_then(|v| v.parse().ok())
    };
    let quick = args.iter().any(|a| a == "--quick" || a == "--test");
    Options {
        rounds: value("--rounds").map_or(if quick { 1 } else { 5 }, |v: f64| v as usize),
        seconds: value("--seconds").unwrap_or(if quick { 0.3 } else { 3.0 }),
    }
}

fn main() {
    let bao =
        std::env::var_os("VAF_BAO").map_or_else(|| PathBuf::from("target/openbao/bin/bao"), PathBuf::from);
    if !bao.exists() {
        println!("left out: no OpenBao at {} (tests/run fetches it, VAF_BAO names another)", bao.display());
        return;
    }
    let options = options();
    let dir = std::env::temp_dir().join(format!("vaf-bench-openbao-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary directory");
    let floor = floor::Floor::start().expect("the floor server");
    let ours = Daemon::start(&dir);
    let with_floor = Bao::start(&bao, &dir.join("floor"), &format!("http://{}/v1/audit", floor.address()));
    let with_ours = Bao::start(&bao, &dir.join("ours"), &format!("http://{}/v1/audit", ours.http));
    for clients in [1, 16] {
        let mut ratios = Vec::new();
        for round in 0..options.rounds {
            let (a, b) = if round % 2 == 0 {
                let a = with_floor.load(clients, options.seconds);
                (a, with_ours.load(clients, options.seconds))
            } else {
                let b = with_ours.load(clients, options.seconds);
                (with_floor.load(clients, options.seconds), b)
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
        ratios.sort_by(f64::total_cmp);
        println!("{clients:>2} clients: median ratio ours/floor {:.3}", ratios[ratios.len() / 2]);
    }
    drop((with_floor, with_ours, ours));
    let _ = std::fs::remove_dir_all(&dir);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready() {
        assert!(Instant::now() < deadline, "{what} was not ready within 20 s");
        thread::sleep(Duration::from_millis(20));
    }
}

struct Daemon {
    child: Child,
    http: SocketAddr,
}

impl Daemon {
    fn start(dir: &Path) -> Daemon {
        let (http, admin) = (free_port(), free_port());
        let rules: String = TYPICAL_RULES
            .lines()
            .filter(|l| !l.is_empty())
            .map(|r| format!("      - '{}'\n", r.replace('\'', "''")))
            .collect();
        let config = format!(
            "vault: {{ audit_protocol: none }}\nlisten:\n  http: {{ address: \"127.0.0.1:{http}\" }}\n  admin: {{ address: \"127.0.0.1:{admin}\" }}\nrule_groups:\n  - name: typical\n    rules:\n{rules}    log_file: {{ file_path: {} }}\n",
            dir.join("matched.log").display()
        );
        let path = dir.join("config.yaml");
        std::fs::write(&path, config).expect("configuration file");
        let child = Command::new(env!("CARGO_BIN_EXE_vault-audit-filter"))
            .args(["serve", "--config"])
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        wait_for("the program", || TcpStream::connect(("127.0.0.1", admin)).is_ok());
        Daemon { child, http: SocketAddr::from(([127, 0, 0, 1], http)) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Bao {
    child: Child,
    api: u16,
}

impl Bao {
    fn start(program: &Path, dir: &Path, uri: &str) -> Bao {
        std::fs::create_dir_all(dir).expect("temporary directory");
        let api = free_port();
        let config = dir.join("bao.hcl");
        std::fs::write(&config, format!("audit \"http\" \"bench\" {{ options {{ uri = \"{uri}\" }} }}\n"))
            .expect("configuration file");
        let child = Command::new(program)
            .args(["server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token"])
            .arg(format!("-dev-listen-address=127.0.0.1:{api}"))
            .arg(format!("-config={}", config.display()))
            .env("HOME", dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("OpenBao starts");
        let bao = Bao { child, api };
        wait_for("OpenBao", || {
            Client::connect(api)
                .and_then(|mut c| c.call("GET", "/v1/auth/token/lookup-self", ""))
                .is_ok_and(|s| s == 200)
        });
        let status = Client::connect(api)
            .and_then(|mut c| c.call("POST", "/v1/secret/data/bench", r#"{"data":{"a":"b","c":"d"}}"#));
        assert_eq!(status.expect("a first write"), 200);
        bao
    }

    /// Reads and writes in turn from `clients` connections; calls per second and the median latency in microseconds.
    fn load(&self, clients: usize, seconds: f64) -> (f64, f64) {
        let stop = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let threads: Vec<_> = (0..clients)
            .map(|n| {
                let (stop, api) = (Arc::clone(&stop), self.api);
                thread::spawn(move || {
                    let mut client = Client::connect(api).expect("a connection to OpenBao");
                    let mut latencies = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let begin = Instant::now();
                        let status = if latencies.len() % 2 == 0 {
                            client.call("GET", "/v1/secret/data/bench", "")
                        } else {
                            client.call(
                                "POST",
                                &format!("/v1/secret/data/bench-{n}"),
                                r#"{"data":{"a":"b","c":"d"}}"#,
                            )
                        };
                        assert_eq!(status.expect("an answer"), 200);
                        latencies.push(begin.elapsed().as_secs_f64() * 1e6);
                    }
                    latencies
                })
            })
            .collect();
        thread::sleep(Duration::from_secs_f64(seconds));
        stop.store(true, Ordering::Relaxed);
        let mut all: Vec<f64> =
            threads.into_iter().flat_map(|t| t.join().expect("a client thread")).collect();
        let elapsed = started.elapsed().as_secs_f64();
        all.sort_by(f64::total_cmp);
        (all.len() as f64 / elapsed, all[all.len() / 2])
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A kept-alive connection to OpenBao's API.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> std::io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
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
