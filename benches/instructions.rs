//! Instructions of the program for a record, counted by callgrind: the same on a busy machine and on a quiet one, so that a change of a few
//! percent is seen. Not time: a system call counts with what the program does for it, not with what the kernel does.
//!
//! - `match/10_rules`, `match/1000_rules`: `match --count` over the entries of a real OpenBao: splitting lines, decoding, rules.
//! - `http/10_rules`: the server gets the entries over one HTTP connection and writes those that match to a file.
//! - `tcp/10_rules`: the same as lines over TCP.
//!
//! Each is run with few and with many records; the difference, divided by the records between, has no start-up in it.
//!
//! `cargo bench --bench instructions` prints a table beside the counts in `benches/instructions.tsv`; `-- --check` also fails when one is
//! more than 5 % over it; `-- --update` writes it anew; `-- --program FILE` counts another build of the program. Needs valgrind; without it nothing
//! is counted, with a word.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a bench program counts and prints"
)]

#[path = "support/daemon.rs"]
mod daemon;
mod support;
#[path = "../tests/support/mod.rs"]
mod testing;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use daemon::{TYPICAL_RULES, rules_yaml};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::RECORDS;
use support::args::Arguments;
use testing::http::Client;
use testing::{TempDir, free_port, wait_until};

const MANY_RULES: &str = include_str!("../tests/data/rules/mixed1000.txt");
const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.tsv");
/// How many times the entries are handed in, in the two runs of each count.
const COPIES: [usize; 2] = [2, 12];
const COPIES_QUICK: [usize; 2] = [1, 2];
/// What another compiler or C library may change.
const TOLERANCE: f64 = 1.05;

struct Bench {
    dir: TempDir,
    program: PathBuf,
    copies: [usize; 2],
}

impl Bench {
    /// Runs the program under callgrind until `drive`, which gets its process, has had it end; the instructions it took.
    fn count(&self, arguments: &[&str], drive: impl FnOnce(u32)) -> f64 {
        let log = self.dir.path().join("callgrind.log");
        let mut child = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(format!("--log-file={}", log.display()))
            .arg(&self.program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("valgrind starts");
        drive(child.id());
        let status = child.wait().expect("it ends");
        assert!(status.code().is_some_and(|code| code < 2), "{arguments:?}: {status}");
        let text = std::fs::read_to_string(log).expect("callgrind's log");
        let collected = text.lines().find_map(|l| l.split_once("Collected :")?.1.trim().parse().ok());
        collected.unwrap_or_else(|| panic!("no count in {text}"))
    }

    /// Instructions for a record, from a run with few and a run with many.
    fn per_record(&self, mut run: impl FnMut(&str) -> f64) -> f64 {
        let [few, many] = self.copies.map(|copies| run(&RECORDS.repeat(copies)));
        (many - few) / ((self.copies[1] - self.copies[0]) * RECORDS.lines().count()) as f64
    }

    fn config(&self, rules: &str, listen: &str) -> String {
        let path = self.dir.path().join("config.yaml");
        let file = self.dir.path().join("matched.log");
        let groups = format!(
            "rule_groups:\n  - name: counted\n    rules:\n{}    log_file: {{ file_path: {} }}\n",
            rules_yaml(rules),
            file.display()
        );
        std::fs::write(&path, format!("{listen}{groups}")).expect("written");
        path.display().to_string()
    }

    fn match_count(&self, rules: &str) -> f64 {
        let config = self.config(rules, "");
        let input = self.dir.path().join("records.jsonl");
        let input_name = input.display().to_string();
        self.per_record(|records| {
            std::fs::write(&input, records).expect("written");
            self.count(&["match", "--count", "--config", &config, &input_name], |_| {})
        })
    }

    /// The server under callgrind; `send` gets its address and hands in the records.
    fn serve(&self, protocol: &str, send: impl Fn(SocketAddr, &str)) -> f64 {
        let [port, admin] = [free_port(), free_port()];
        let listen = match protocol {
            "tcp" => {
                format!("vault: {{ audit_protocol: tcp, audit_address: \"127.0.0.1:{port}\" }}\nlisten:\n")
            }
            _ => format!(
                "vault: {{ audit_protocol: none }}\nlisten:\n  http: {{ address: \"127.0.0.1:{port}\" }}\n"
            ),
        };
        let listen = format!("{listen}  admin: {{ address: \"127.0.0.1:{admin}\" }}\n");
        let config = self.config(TYPICAL_RULES, &listen);
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        self.per_record(|records| {
            self.count(&["serve", "--config", &config], |pid| {
                wait_until("the server is ready", || is_ready(admin));
                send(to, records);
                let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
                kill(pid, Signal::SIGTERM).expect("it runs");
            })
        })
    }

    fn run(&self, name: &str) -> f64 {
        match name {
            "match/10_rules" => self.match_count(TYPICAL_RULES),
            "match/1000_rules" => self.match_count(MANY_RULES),
            "http/10_rules" => self.serve("http", send_http),
            _ => self.serve("tcp", send_tcp),
        }
    }
}

fn is_ready(admin: u16) -> bool {
    let ask = || Client::connect(admin)?.get("/readyz");
    ask().is_ok_and(|answer| answer.status == 200)
}

fn send_http(to: SocketAddr, records: &str) {
    let mut stream = TcpStream::connect(to).expect("the listener");
    let mut answer = [0; 512];
    for record in records.lines() {
        stream.write_all(&support::request(record.as_bytes())).expect("taken");
        let n = stream.read(&mut answer).expect("an answer");
        assert!(answer[..n].starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer[..n]));
    }
}

/// In pieces that the server reads one by one, so that both runs have reads of the same size; ended once the server has read all of it.
fn send_tcp(to: SocketAddr, records: &str) {
    let mut stream = TcpStream::connect(to).expect("the listener");
    for piece in records.as_bytes().chunks(256 << 10) {
        stream.write_all(piece).expect("taken");
    }
    stream.shutdown(std::net::Shutdown::Write).expect("connected");
    // The server closes when it has read the end.
    let _ = stream.read(&mut [0; 1]);
}

/// Names and instructions of `benches/instructions.tsv`.
fn expected() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(EXPECTED).unwrap_or_default();
    let line = |l: &str| l.split_once('\t').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    text.lines().filter_map(line).collect()
}

fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|o| o.status.success()) {
        println!("skipped: instructions for a record are counted by valgrind, which is not on this machine");
        return ExitCode::SUCCESS;
    }
    let program = arguments.text("--program").unwrap_or(env!("CARGO_BIN_EXE_vault-audit-filter"));
    let copies = if arguments.is_quick() { COPIES_QUICK } else { COPIES };
    let bench =
        Bench { dir: TempDir::new("bench-instructions"), program: Path::new(program).to_owned(), copies };
    let expected = expected();
    let (mut table, mut worse) = (String::new(), false);
    for name in ["match/10_rules", "match/1000_rules", "http/10_rules", "tcp/10_rules"] {
        let counted = bench.run(name);
        let known = expected.get(name).copied().unwrap_or(f64::NAN);
        println!(
            "{name:<18} {counted:>8.0} instructions a record ({:.3}x of the {known:.0} expected)",
            counted / known
        );
        let _ = writeln!(table, "{name}\t{counted:.0}");
        worse |= counted.is_nan() || counted > known * TOLERANCE;
    }
    if arguments.has("--update") {
        std::fs::write(EXPECTED, table).expect("written");
    } else if arguments.has("--check") && worse {
        println!(
            "more than {TOLERANCE}x of what is expected: find out why, or write the new counts with --update"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
