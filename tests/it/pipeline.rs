//! Groups and outcomes: rules that fail, the fallback group, shared files, and what is refused as a whole.

use crate::harness::{Daemon, HTTP_ONLY, entry};
use crate::support::wait_until;

/// `[matched, unmatched, quarantined, refused]`.
fn outcomes(daemon: &Daemon) -> [f64; 4] {
    ["matched", "unmatched", "quarantined", "refused"]
        .map(|outcome| daemon.metric(&format!("records_total{{outcome=\"{outcome}\"}}")))
}

fn post(daemon: &Daemon, body: &str) -> u16 {
    daemon.client().post("/v1/audit", body.as_bytes()).expect("an answer").status
}

#[test]
fn a_rule_that_fails_on_a_record_is_counted_and_said_once_and_the_others_go_on() {
    let daemon = Daemon::start(&format!(
        "{HTTP_ONLY}rule_groups:\n  - name: mixed\n    rules:\n      - 'Auth.Policies[5] == \"root\"'\n      - 'Request.RemotePort == 7'\n      - 'Request.Path == \"wanted\"'\n    log_file: {{ file_path: \"{{dir}}/mixed.log\" }}\n"
    ));
    let records = [
        r#"{"type":"request","request":{"path":"wanted","remote_port":7,"secret_word":"hunter2"}}"#,
        r#"{"type":"request","request":{"path":"wanted","remote_port":"hunter2"}}"#,
        r#"{"type":"request","request":{"path":"other","remote_port":"hunter2"}}"#,
    ];
    for record in records {
        assert_eq!(post(&daemon, record), 204);
    }
    assert_eq!(daemon.lines("mixed.log"), records[..2]);
    assert_eq!(outcomes(&daemon), [2.0, 1.0, 0.0, 0.0]);
    let errors = |rule: u8| daemon.metric(&format!("rule_errors_total{{group=\"mixed\",rule=\"{rule}\"}}"));
    assert_eq!([errors(1), errors(2), errors(3)], [3.0, 2.0, 0.0]);
    let said = daemon.stderr();
    assert_eq!(said.matches("rule 1 failed").count(), 1, "{said}");
    assert_eq!(said.matches("rule 2 failed on a record (mistyped field)").count(), 1, "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_fallback_group_takes_what_no_group_matched_and_nothing_else() {
    let daemon = Daemon::start(&format!(
        "{HTTP_ONLY}unmatched: rest\nrule_groups:\n  - name: rest\n    log_file: {{ file_path: \"{{dir}}/rest.log\" }}\n  - name: deletes\n    rules: ['Request.Operation == \"delete\"']\n    log_file: {{ file_path: \"{{dir}}/deletes.log\" }}\n"
    ));
    let (delete, read) = (entry("1", "delete", "a"), entry("2", "read", "a"));
    assert_eq!(post(&daemon, &format!("{delete}\n{read}\n{delete}\n")), 204);
    assert_eq!(daemon.lines("deletes.log"), [delete.clone(), delete]);
    assert_eq!(daemon.lines("rest.log"), [read]);
    assert_eq!(outcomes(&daemon), [2.0, 1.0, 0.0, 0.0]);
    let matches = |group: &str| daemon.metric(&format!("group_matches_total{{group=\"{group}\"}}"));
    assert_eq!([matches("rest"), matches("deletes")], [1.0, 2.0]);
}

#[test]
fn a_record_of_two_groups_with_one_file_is_written_once() {
    let daemon = Daemon::start(&format!(
        "{HTTP_ONLY}rule_groups:\n  - name: deletes\n    rules: ['Request.Operation == \"delete\"']\n    log_file: {{ file_path: \"{{dir}}/shared.log\" }}\n  - name: secrets\n    rules: ['Request.Path startsWith \"secret/\"']\n    log_file: {{ file_path: \"{{dir}}/shared.log\" }}\n"
    ));
    let both = entry("1", "delete", "secret/a");
    let (one, other) = (entry("2", "delete", "b"), entry("3", "read", "secret/b"));
    assert_eq!(post(&daemon, &both), 204);
    assert_eq!(post(&daemon, &format!("{one}\n{both}\n{other}")), 204);
    assert_eq!(daemon.lines("shared.log"), [both.clone(), one, both, other]);
}

#[test]
fn a_record_on_several_lines_is_one_record_and_one_line() {
    let daemon = Daemon::start(&format!(
        "{HTTP_ONLY}rule_groups:\n  - name: all\n    log_file: {{ file_path: \"{{dir}}/all.log\" }}\n"
    ));
    assert_eq!(post(&daemon, "{\n  \"type\":\r\n \"request\"\n}\n"), 204);
    let lines = daemon.lines("all.log");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let record: serde_json::Value = serde_json::from_str(&lines[0]).expect("the record is whole");
    assert_eq!(record["type"], "request");
    assert_eq!(outcomes(&daemon), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn one_record_over_the_limit_refuses_its_whole_batch() {
    let daemon = Daemon::start(&format!(
        "{HTTP_ONLY}limits: {{ record_bytes_max: 4KiB }}\nrule_groups:\n  - name: all\n    log_file: {{ file_path: \"{{dir}}/all.log\" }}\n"
    ));
    let (small, large) = (entry("1", "read", "a"), entry("2", "read", &"x".repeat(5000)));
    assert_eq!(post(&daemon, &format!("{small}\n{large}\n{small}")), 413);
    assert_eq!(post(&daemon, &large), 413);
    assert_eq!(post(&daemon, &"{}\n".repeat(70_000)), 413, "more records than one request may have");
    assert_eq!(post(&daemon, &format!("{small}\n{small}")), 204);
    assert_eq!(daemon.lines("all.log"), [small.clone(), small]);
    assert_eq!(outcomes(&daemon), [2.0, 0.0, 0.0, 70_004.0]);
    assert_eq!(daemon.metric("records_refused_total{reason=\"oversize\"}"), 70_004.0);
    assert_eq!(daemon.sum("records_received_total"), 70_006.0);
}

#[test]
fn while_nothing_can_be_written_the_program_is_not_ready_and_acks_nothing() {
    let daemon = Daemon::start(&format!(
        "{}rule_groups:\n  - name: all\n    log_file: {{ file_path: \"{{dir}}/log/all.log\" }}\n",
        HTTP_ONLY.replace("{dir}/", "{dir}/log/")
    ));
    let (record, bad) = (entry("1", "read", "a"), "not a record");
    let dir = daemon.path("log");
    std::fs::remove_dir_all(&dir).expect("removed");
    std::fs::write(&dir, "in the way").expect("written");
    wait_until("records are refused", || post(&daemon, &record) == 503);
    wait_until("bad frames are refused", || post(&daemon, bad) == 503);
    assert_eq!(post(&daemon, &format!("{record}\n{bad}")), 503);
    let readiness = daemon.admin("/readyz");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("[-] log files: the last append to"), "{}", readiness.text());
    assert_eq!(daemon.admin("/livez").status, 200);

    std::fs::remove_file(&dir).expect("removed");
    wait_until("records are taken again", || post(&daemon, &record) == 204);
    wait_until("bad frames are kept again", || post(&daemon, bad) == 204);
    assert_eq!(daemon.admin("/readyz").status, 200);
    assert!(daemon.lines("log/all.log").contains(&record));
    assert!(daemon.lines("log/quarantine.log").last().is_some_and(|line| line.contains(bad)));
    assert_eq!(daemon.sum("records_received_total"), daemon.sum("records_total"));
}
