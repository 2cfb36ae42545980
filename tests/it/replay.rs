//! `replay` with the real program: saved records go through the groups of a running server.

use std::io::Write as _;

use crate::harness::{Daemon, HTTP_ONLY, Plan, entry};

fn config(more: &str) -> String {
    format!(
        "{HTTP_ONLY}control: {{ socket: \"{{dir}}/c.sock\" }}\n{more}
rule_groups:
  - {{ name: deletions, rules: ['Request.Operation == \"delete\"'], log_file: {{ file_path: \"{{dir}}/deletions.log\" }} }}
"
    )
}

#[test]
fn saved_records_are_received_for_real() {
    let mut daemon = Daemon::start(&config(""));
    let [plain, zipped] = ["a.jsonl", "b.jsonl.gz"].map(|name| daemon.path(name));
    let line =
        |n: usize| entry(&format!("n{n}"), if n.is_multiple_of(2) { "delete" } else { "read" }, "a") + "\n";
    std::fs::write(&plain, (0..1500).map(line).collect::<String>()).expect("written");
    let mut gz = flate2::write::GzEncoder::new(
        std::fs::File::create(&zipped).expect("a file"),
        flate2::Compression::fast(),
    );
    gz.write_all(((1500..2000).map(line).collect::<String>() + "no entry\n").as_bytes()).expect("written");
    gz.finish().expect("written");
    let [plain, zipped] = [plain, zipped].map(|path| path.display().to_string());
    let ended = daemon.run_as_is(&["replay", &plain, &zipped]);
    assert_eq!(
        (ended.status.code(), ended.stdout.as_str()),
        (Some(0), "2001 records taken\n"),
        "{}",
        ended.stderr
    );
    daemon.wait_received(2001);
    assert_eq!(daemon.lines("deletions.log").len(), 1000);
    assert_eq!(daemon.metric("records_total{outcome=\"quarantined\"}"), 1.0);
    let ended = daemon
        .run_as_is(&["replay", "--skip", "1999", "--rate", "1000/s", "--format", "json", &plain, &zipped]);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(json, serde_json::json!({ "acked": 2, "lines": 2001, "stopped": null }));
    assert_eq!(daemon.lines("deletions.log").len(), 1000, "n1999 was read");
    let missing = daemon.path("missing").display().to_string();
    let ended = daemon.run_as_is(&["replay", &plain, &missing]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("to go on there: --skip 1500"), "{}", ended.stderr);
    assert!(daemon.terminate().status.success());
    let ended = daemon.run_as_is(&["replay", &plain]);
    assert_eq!(ended.status.code(), Some(1), "nobody runs: {}", ended.stderr);
}

#[test]
fn it_stops_at_what_is_refused_and_goes_on_from_there() {
    let daemon = Daemon::start(&config("limits: { record_bytes_max: 4KiB }"));
    let path = daemon.path("a.jsonl");
    let line = |n: usize| {
        let long = if n == 300 { "x".repeat(8 << 10) } else { String::new() };
        entry(&format!("n{n}"), "delete", &format!("a{long}")) + "\n"
    };
    std::fs::write(&path, (0..600).map(line).collect::<String>()).expect("written");
    let path = path.display().to_string();
    let ended = daemon.run_as_is(&["replay", &path]);
    assert_eq!(
        (ended.status.code(), ended.stdout.as_str()),
        (Some(1), "300 records taken\n"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("to go on there: --skip 300"), "{}", ended.stderr);
    let ended = daemon.run_as_is(&["replay", "--skip", "301", &path]);
    assert_eq!(
        (ended.status.code(), ended.stdout.as_str()),
        (Some(0), "299 records taken\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(daemon.lines("deletions.log").len(), 599);
}

#[test]
fn without_a_socket_it_says_what_to_set() {
    let ended = Plan::new(HTTP_ONLY).run(&["replay", "-"]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("control.socket"), "{}", ended.stderr);
}
