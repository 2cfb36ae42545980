//! `queue` and `status` with the real program: while it runs, when it is down, and after it was killed; replays arrive at a
//! real HTTP server.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Daemon, Ended, HTTP_ONLY, Plan, entry};
use crate::support::sink::{Script, Sink};
use crate::support::wait_until;

/// A group with a webhook whose tasks are stored in `{dir}/store`.
fn durable(sink: &Sink) -> String {
    format!(
        "{HTTP_ONLY}
async: {{ durable: {{ enabled: true, dir: \"{{dir}}/store\", max_bytes: 64MiB }}, retry: {{ max_attempts: 2, backoff: 1ms }} }}
rule_groups:
  - name: payroll
    rules: ['Request.Operation == \"delete\"']
    messaging: {{ type: webhook, webhook_url: \"{}\", rate_per_s: 0, digest_window: 0s }}
",
        sink.url("/hook")
    )
}

fn refusing() -> Script {
    Script::status(400)
}

#[track_caller]
fn json(ended: &Ended) -> Value {
    assert!(ended.status.code().is_some_and(|code| code < 2), "{:?}: {}", ended.status, ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", ended.stdout, ended.stderr))
}

#[track_caller]
fn dead_letters(daemon: &Daemon) -> Value {
    json(&daemon.run(&["queue", "list", "--state", "dead", "--format", "json"], &[]))
}

#[test]
fn a_dead_letter_is_seen_replayed_and_delivered_while_the_server_runs() {
    let sink = Sink::start([refusing(), refusing(), Script::ok()]);
    let daemon = Daemon::start(&durable(&sink));
    let socket = daemon.path("store/control.sock");
    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for id in ["first", "second"] {
        assert_eq!(daemon.post(&entry(id, "delete", "secret/data/payroll")), 204);
    }
    wait_until("both are dead letters", || dead_letters(&daemon)["total"] == 2);
    let listed = dead_letters(&daemon);
    let task = &listed["tasks"][0];
    assert_eq!((&task["sink"], &task["group"]), (&"payroll/webhook".into(), &"payroll".into()));
    assert_eq!((&task["reason"], &task["last_status"]), (&"permanent".into(), &400.into()));
    let table = daemon.run(&["queue", "list"], &[]);
    assert!(
        table.stdout.contains("payroll/webhook") && table.stdout.contains("permanent"),
        "{}",
        table.stdout
    );
    assert!(!table.stdout.contains("secret/data"), "no record in a list: {}", table.stdout);

    let id = task["id"].as_str().expect("an id").to_owned();
    let shown = json(&daemon.run(&["queue", "show", &id, "--format", "json"], &[]));
    assert_eq!(shown["record"]["request"]["path"], "secret/data/payroll");
    let replayed = daemon.run(&["queue", "replay", &id], &[]);
    assert_eq!(replayed.status.code(), Some(0), "{}", replayed.stderr);
    assert_eq!(replayed.stdout, "1 dead letter replayed\n");
    wait_until("it is delivered", || sink.count() == 3);
    wait_until("it has ended", || {
        daemon.run(&["queue", "list", "--state", "pending"], &[]).status.code() == Some(1)
    });
    assert_eq!(dead_letters(&daemon)["total"], 1);
    let none = daemon.run(&["queue", "drop", "--group", "nobody"], &[]);
    assert_eq!(none.status.code(), Some(1));
    let dropped = daemon.run(&["queue", "drop", "--sink", "payroll/webhook"], &[]);
    assert_eq!((dropped.status.code(), dropped.stdout.as_str()), (Some(0), "1 dead letter dropped\n"));
    assert_eq!(dead_letters(&daemon)["total"], 0);
    let nothing_said = daemon.run(&["queue", "drop"], &[]);
    assert_eq!(nothing_said.status.code(), Some(2));
    assert!(nothing_said.stderr.contains("--all"), "{}", nothing_said.stderr);
}

#[test]
fn a_dead_letter_is_replayed_while_the_server_is_down_and_delivered_when_it_is_back() {
    let sink = Sink::start([refusing(), refusing(), Script::ok()]);
    let mut daemon = Daemon::start(&durable(&sink));
    for id in ["first", "second"] {
        assert_eq!(daemon.post(&entry(id, "delete", "secret/data/payroll")), 204);
    }
    wait_until("both are dead letters", || dead_letters(&daemon)["total"] == 2);
    let ended = daemon.terminate();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!daemon.path("store/control.sock").exists(), "the socket goes with the server");

    let listed = dead_letters(&daemon);
    assert_eq!(listed["total"], 2);
    let id = listed["tasks"][0]["id"].as_str().expect("an id").to_owned();
    let shown = daemon.run(&["queue", "show", &id], &[]);
    assert!(
        shown.stdout.contains("secret/data/payroll") && shown.stdout.contains("HTTP 400"),
        "{}",
        shown.stdout
    );
    assert_eq!(dead_letters(&daemon), listed, "looking changes nothing");
    let replayed = daemon.run(&["queue", "replay", "--reason", "permanent", "--since", "1h", &id], &[]);
    assert_eq!(
        (replayed.status.code(), replayed.stdout.as_str()),
        (Some(0), "1 dead letter replayed\n"),
        "{}",
        replayed.stderr
    );
    let pending = json(&daemon.run(&["queue", "list", "--state", "pending", "--format", "json"], &[]));
    assert_eq!((&pending["total"], &pending["tasks"][0]["replay_of"]), (&1.into(), &id.as_str().into()));
    let status = daemon.run(&["status"], &[]);
    assert_eq!(status.status.code(), Some(1), "no server runs: {}", status.stderr);

    let daemon = daemon.again();
    wait_until("it is delivered", || sink.count() == 3);
    assert_eq!(dead_letters(&daemon)["total"], 1);
    let key = |n: usize| sink.received()[n].header("idempotency-key").map(str::to_owned);
    assert_ne!(key(0), key(2), "a new task has a key of its own");
}

#[test]
fn a_killed_server_leaves_a_socket_that_the_next_one_replaces() {
    let sink = Sink::start([refusing()]);
    let mut daemon = Daemon::start(&durable(&sink));
    assert_eq!(daemon.post(&entry("first", "delete", "secret/data/payroll")), 204);
    wait_until("it is a dead letter", || dead_letters(&daemon)["total"] == 1);
    daemon.signal(Signal::SIGKILL);
    daemon.wait_end();
    assert!(daemon.path("store/control.sock").exists());
    assert_eq!(dead_letters(&daemon)["total"], 1, "from the files, beside a stale socket");
    let daemon = daemon.again();
    let status = json(&daemon.run(&["status", "--format", "json"], &[]));
    assert_eq!(status["store"]["dead"], 1, "{status}");
}

#[test]
fn status_match_and_records_fed_in_over_a_socket_of_its_own() {
    let yaml = format!(
        "{HTTP_ONLY}control: {{ socket: \"{{dir}}/c.sock\" }}\nrule_groups:\n  - name: deletions\n    rules: ['Request.Operation == \"delete\"']\n    log_file: {{ file_path: \"{{dir}}/deletions.log\" }}\n"
    );
    let daemon = Daemon::start(&yaml);
    let ask = |method: &str, target: &str, body: &str| {
        let answer = daemon.control("c.sock", method, target, body);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head[9..12].to_owned(), serde_json::from_str::<Value>(body).unwrap_or_default())
    };
    let record = entry("one", "delete", "secret/data/a");
    let (code, judged) = ask("POST", "/v1/match", &record);
    assert_eq!((code.as_str(), &judged["groups"][0]), ("200", &"deletions".into()));
    let found = daemon.run(&["match", "--explain", "--format", "json", &write_file(&daemon, &record)], &[]);
    assert_eq!(json(&found)["rules"], judged["rules"], "the same tree as the command's");
    assert_eq!(daemon.lines("deletions.log").len(), 0, "nothing is done");

    assert_eq!(ask("POST", "/v1/audit", &record).0, "204");
    assert_eq!(daemon.lines("deletions.log"), [record]);
    let status = json(&daemon.run(&["status", "--format", "json"], &[]));
    assert_eq!((&status["groups"][0]["matches"], &status["store"]), (&1.into(), &Value::Null));
    let text = daemon.run(&["status"], &[]);
    assert!(text.stdout.contains("deletions") && text.stdout.contains("1 matched"), "{}", text.stdout);
    let queue = daemon.run(&["queue", "list"], &[]);
    assert_eq!(queue.status.code(), Some(2));
    assert!(queue.stderr.contains("async.durable.enabled"), "{}", queue.stderr);

    // A second server must not take the socket away.
    let other = Plan::new(&yaml.replace("{dir}/c.sock", &daemon.path("c.sock").display().to_string()));
    let refused = other.run(&["serve"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("another server uses it"), "{}", refused.stderr);
    assert_eq!(ask("GET", "/v1/status", "").0, "200");
}

fn write_file(daemon: &Daemon, record: &str) -> String {
    let path = daemon.path("record.jsonl");
    std::fs::write(&path, record).expect("written");
    path.display().to_string()
}

#[test]
fn without_a_store_there_is_nothing_to_ask() {
    let plan = Plan::new(HTTP_ONLY);
    for command in [&["queue", "list"][..], &["status"]] {
        let ended = plan.run(command);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.contains("async.durable.enabled is false"), "{}", ended.stderr);
    }
}
