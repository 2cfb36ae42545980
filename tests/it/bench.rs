//! `bench` against the program itself: every kind of listener, tokens, an early end, what is refused.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Daemon, HTTP_ONLY, PROGRAM, WITH_TCP, WITH_UDP, clean_environment, entry, run_program};
use crate::support::{TempDir, wait_until};

/// The built-in records are deletions to a fifth.
const DELETIONS: &str = r#"
rule_groups:
  - name: deletions
    rules: ['Request.Operation == "delete"']
    log_file: { file_path: "{dir}/deletions.log" }
"#;

impl Daemon {
    fn admin_address(&self) -> String {
        format!("127.0.0.1:{}", self.admin_port())
    }

    /// Runs `bench` with this program as the receiver; its exit code and report.
    #[track_caller]
    fn bench(&self, words: &[&str]) -> (Option<i32>, Value) {
        let admin = self.admin_address();
        let all = [&["bench"], words, &["--admin", &admin, "--format", "json"]].concat();
        let ended = run_program(&all, b"");
        let json = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}{}", ended.stdout, ended.stderr));
        (ended.status.code(), json)
    }
}

/// All that was sent came in and was counted by both sides.
#[track_caller]
fn adds_up(daemon: &Daemon, json: &Value, sent: u64) {
    assert_eq!(json["sent"].as_u64().zip(json["unsent"].as_u64()).map(|(a, b)| a + b), Some(sent), "{json}");
    let sent = &json["sent"];
    let receiver = &json["receiver"];
    assert_eq!((&receiver["received"], &receiver["lost"]), (sent, &0.into()), "{json}");
    assert_eq!(&json["latency_us"]["count"], sent, "{json}");
    assert!(receiver["resident_bytes"].as_u64() > Some(1 << 20), "the process was found: {json}");
    assert!(receiver["cpu_us_per_record"].is_number() && receiver["error"].is_null(), "{json}");
    let matched = receiver["outcomes"]["matched"].as_u64().expect("a number");
    assert_eq!(daemon.lines("deletions.log").len() as u64, matched);
    assert!(matched > 0, "{json}");
}

#[test]
fn bench_over_http_is_answered_and_received() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{DELETIONS}"));
    let to = format!("127.0.0.1:{}", daemon.http());
    let (code, json) =
        daemon.bench(&["http", &to, "--rate", "250/s", "--connections", "4", "--duration", "2s"]);
    adds_up(&daemon, &json, 500);
    assert_eq!(json["statuses"], serde_json::json!({ "204": json["sent"] }), "{json}");
    assert_eq!(code, Some(i32::from(json["clean"] != true)), "{json}");

    let url = format!("http://localhost:{}/v1/audit/bench", daemon.http());
    let (code, json) =
        daemon.bench(&["http", &url, "--rate", "0", "--connections", "2", "--duration", "500ms"]);
    assert_eq!(
        (code, &json["receiver"]["lost"], &json["errors"]),
        (Some(0), &0.into(), &serde_json::json!({}))
    );
    assert!(json["late_us"].is_null() && json["acked"] == json["sent"], "{json}");
    let (code, json) =
        daemon.bench(&["http", &format!("{to}/elsewhere"), "--rate", "20", "--duration", "500ms"]);
    assert_eq!(code, Some(1));
    assert_eq!((&json["statuses"]["404"], &json["acked"]), (&json["sent"], &0.into()), "{json}");
}

#[test]
fn bench_over_tcp_and_unix_streams_is_received() {
    for (kind, rate, sent) in [("tcp", "1000/s", 1000), ("unix", "500/s", 500)] {
        let daemon = Daemon::start(&format!("{WITH_TCP}{DELETIONS}"));
        let to = match kind {
            "tcp" => format!("127.0.0.1:{}", daemon.audit()),
            _ => daemon.path("audit.sock").display().to_string(),
        };
        let (code, json) =
            daemon.bench(&[kind, &to, "--rate", rate, "--connections", "3", "--duration", "1s"]);
        adds_up(&daemon, &json, sent);
        assert_eq!(code, Some(i32::from(json["clean"] != true)), "{json}");
        let (code, json) = daemon.bench(&[kind, &to, "--rate", "0", "--duration", "300ms"]);
        assert_eq!((code, &json["receiver"]["lost"]), (Some(0), &0.into()), "{json}");
        assert_eq!(json["receiver"]["received"], json["sent"]);
        assert_eq!(daemon.metric("records_refused_total{reason=\"truncated\"}"), 0.0, "no line was cut");
    }
}

#[test]
fn bench_over_udp_is_received() {
    let daemon = Daemon::start(&format!("{WITH_UDP}{DELETIONS}"));
    let to = format!("127.0.0.1:{}", daemon.audit());
    let (code, json) =
        daemon.bench(&["udp", &to, "--rate", "500/s", "--connections", "2", "--duration", "1s"]);
    adds_up(&daemon, &json, 500);
    assert_eq!(code, Some(i32::from(json["clean"] != true)), "{json}");
}

#[test]
fn bench_sends_the_records_of_a_file_with_a_token() {
    let tokens = HTTP_ONLY.replace("\"127.0.0.1:{http}\"", "\"127.0.0.1:{http}\", tokens: [\"good\"]");
    let daemon = Daemon::start(&format!("{tokens}{DELETIONS}"));
    let dir = TempDir::new("bench");
    let (records, token) = (dir.join("records"), dir.join("token"));
    let both = [entry("1", "delete", "secret/data/a"), "no record".to_owned()];
    std::fs::write(&records, both.join("\n\n")).expect("written");
    std::fs::write(&token, "good\n").expect("written");
    let [records, token] = [records, token].map(|path| path.display().to_string());
    let to = format!("127.0.0.1:{}", daemon.http());
    let words =
        ["http", &to, "--records", &records, "--rate", "100", "--duration", "500ms", "--token-file", &token];
    let (_, json) = daemon.bench(&words);
    adds_up(&daemon, &json, 50);
    assert_eq!((&json["records"]["count"], &json["records"]["file"]), (&2.into(), &records.as_str().into()));
    assert_eq!(
        json["receiver"]["outcomes"]["quarantined"].as_u64(),
        json["sent"].as_u64().map(|n| n / 2),
        "{json}"
    );
    assert!(!json.to_string().contains("good"), "no secret is told: {json}");
    let (code, json) = daemon.bench(&words[..words.len() - 2]);
    assert_eq!((code, &json["statuses"]["401"]), (Some(1), &json["sent"]), "{json}");
}

#[test]
fn bench_ends_early_by_a_signal_and_reports() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{DELETIONS}"));
    let mut command = Command::new(PROGRAM);
    clean_environment(&mut command);
    let (to, admin) = (format!("127.0.0.1:{}", daemon.http()), daemon.admin_address());
    command.args(["bench", "http", &to, "--admin", &admin, "--rate", "100/s", "--duration", "1h"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the program starts");
    wait_until("records come in", || daemon.sum("records_total") >= 5.0);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it is there");
    let output = child.wait_with_output().expect("its output");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("note: ended early by a signal\n"), "{text}");
    assert!(text.contains(" received, 0 lost; "), "{text}");
    assert!(text.contains("latency      p50 ") && text.contains(" .. ") && text.contains('#'), "{text}");
    assert!(output.stderr.is_empty(), "no progress where nobody looks");
}

#[test]
fn bench_tells_when_the_receiver_goes_and_refuses_other_machines() {
    let mut daemon = Daemon::start(&format!("{WITH_TCP}{DELETIONS}"));
    let to = format!("127.0.0.1:{}", daemon.audit());
    let admin = daemon.admin_address();
    let words = ["bench", "tcp", &to, "--admin", &admin, "--duration", "3s", "--timeout", "500ms"];
    let bench = std::thread::scope(|scope| {
        let bench = scope.spawn(|| run_program(&words, b""));
        wait_until("records come in", || daemon.sum("records_total") >= 5.0);
        daemon.signal(Signal::SIGKILL);
        daemon.wait_end();
        bench.join().expect("it ends")
    });
    assert_eq!(bench.status.code(), Some(1), "{}", bench.stdout);
    assert!(bench.stdout.contains("connection refused: "), "{}", bench.stdout);
    assert!(bench.stdout.contains("note: losses cannot be told: "), "{}", bench.stdout);

    let gone = run_program(&words, b"");
    assert_eq!((gone.status.code(), gone.stdout.as_str()), (Some(1), ""));
    assert!(gone.stderr.contains("is the server running?"), "{}", gone.stderr);
    let remote = run_program(&["bench", "udp", "192.0.2.1:1269"], b"");
    assert_eq!((remote.status.code(), remote.stdout.as_str()), (Some(2), ""));
    assert!(remote.stderr.contains("--allow-remote"), "{}", remote.stderr);
}
