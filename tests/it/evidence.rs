//! Records that come twice, halves that are missing and senders that fall silent, with the real program.

use serde_json::Value;

use crate::harness::{Daemon, HTTP_ONLY, Plan, WITH_TCP, WITH_UDP, entry};
use crate::hung;
use crate::support::{left_out, send, wait_until};

const GROUP: &str = "rule_groups:\n  - { name: all, log_file: { file_path: \"{dir}/logs/all.log\" } }\n";
const DEDUPE: &str = "dedupe: { window: 1000 }\n";
const CONTROL: &str = "control: { socket: \"{dir}/c.sock\" }\n";

fn duplicates(daemon: &Daemon) -> f64 {
    daemon.metric("records_total{outcome=\"duplicate\"}")
}

fn lines(daemon: &Daemon) -> usize {
    daemon.lines("logs/all.log").len()
}

/// The other half of an entry.
fn response(request: &str) -> String {
    request.replace(r#""type":"request""#, r#""type":"response""#)
}

#[test]
fn what_a_sender_sends_again_on_another_connection_stands_there_once() {
    let mut daemon = Daemon::start(&format!("{WITH_TCP}{CONTROL}{DEDUPE}{GROUP}"));
    let record = |n: usize| entry(&format!("id-{n}"), "read", &format!("secret/{n}"));
    // As the socket device does after a write that took too long: a part of the line, then the whole of it on a new connection, though the
    // first one had come through.
    let mut first = send::tcp(daemon.audit());
    (0..10).for_each(|n| send::line(&mut first, record(n).as_bytes()));
    wait_until("all are written", || lines(&daemon) == 10);
    std::io::Write::write_all(&mut first, &record(10).as_bytes()[..400]).expect("sent");
    drop(first);
    daemon.wait_received(11);
    let mut second = send::tcp(daemon.audit());
    for n in [9, 10, 11] {
        send::line(&mut second, record(n).as_bytes());
    }
    daemon.wait_received(14);
    assert_eq!((lines(&daemon), duplicates(&daemon)), (12, 1.0));
    assert_eq!(daemon.metric(r#"records_refused_total{reason="truncated"}"#), 1.0);
    // Over other listeners it is the same record; the other half and another record with the same id are not.
    let mut unix = send::unix(&daemon.path("audit.sock"));
    send::line(&mut unix, record(3).as_bytes());
    daemon.wait_received(15);
    assert_eq!(daemon.post(&record(11)), 204);
    assert_eq!(daemon.post(&format!("{}\n", record(11))), 204, "with its newline");
    assert_eq!((lines(&daemon), duplicates(&daemon)), (12, 4.0));
    let forged = record(3).replace("secret/3", "secret/payroll");
    assert_eq!(daemon.post(&[forged.clone(), response(&record(3)), record(3), record(4)].join("\n")), 204);
    daemon.wait_received(21);
    assert_eq!((lines(&daemon), duplicates(&daemon)), (14, 6.0));
    assert!(daemon.lines("logs/all.log").contains(&forged), "an id does not hide what is not the same");
    // Replayed on purpose, it is taken.
    std::fs::write(daemon.path("saved.jsonl"), record(5) + "\n").expect("written");
    let saved = daemon.path("saved.jsonl").display().to_string();
    assert_eq!(daemon.run_as_is(&["replay", &saved]).status.code(), Some(0));
    assert_eq!((lines(&daemon), duplicates(&daemon)), (15, 6.0));
    assert_eq!(daemon.metric("records_replayed_total"), 1.0);
    // A reload that changes the size keeps what fits; a restart forgets.
    let smaller = daemon.fill(&format!("{WITH_TCP}{CONTROL}{GROUP}dedupe: {{ window: 3 }}\n"));
    std::fs::write(daemon.path("config.yaml"), smaller).expect("written");
    let reloaded = daemon.run_as_is(&["reload"]);
    assert!(
        reloaded.status.success() && daemon.stderr().contains("reload: dedupe is changed"),
        "{}",
        reloaded.stderr
    );
    assert_eq!(daemon.post(&[forged, record(4), record(0)].join("\n")), 204);
    daemon.wait_received(25);
    assert_eq!((lines(&daemon), duplicates(&daemon)), (17, 7.0));
    let answer = daemon.control("c.sock", "GET", "/v1/status", "");
    assert!(answer.contains(r#""duplicate":7"#), "{answer}");
    let ended = daemon.terminate();
    assert!(ended.stderr.contains("7 duplicate, 1 refused"), "{}", ended.stderr);
    let daemon = daemon.again();
    assert_eq!(daemon.post(&record(0)), 204);
    assert_eq!((lines(&daemon), duplicates(&daemon)), (18, 0.0));
}

#[test]
fn without_a_window_both_are_written() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{GROUP}"));
    (0..2).for_each(|_| assert_eq!(daemon.post(&entry("id", "read", "a")), 204));
    assert_eq!((lines(&daemon), duplicates(&daemon)), (2, 0.0));
}

#[test]
fn what_a_full_disk_refused_is_taken_when_it_comes_again() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{DEDUPE}{GROUP}"));
    let record = entry("id", "read", "a");
    let logs = daemon.path("logs");
    // A file in the place of the directory: nothing can be written.
    std::fs::remove_dir_all(&logs).expect("removed");
    std::fs::write(&logs, "").expect("written");
    (0..2).for_each(|_| assert_eq!(daemon.post(&record), 503));
    std::fs::remove_file(&logs).expect("removed");
    assert_eq!(daemon.post(&record), 204);
    assert_eq!(daemon.post(&record), 204);
    daemon.wait_received(4);
    assert_eq!((lines(&daemon), duplicates(&daemon)), (1, 1.0));
}

#[test]
fn what_waits_for_a_disk_that_hangs_is_not_acked_because_it_comes_again() {
    if !hung::can_trace() {
        return left_out("what_waits_for_a_disk_that_hangs_is_not_acked", "strace cannot trace");
    }
    let groups = "rule_groups:\n  - { name: a, log_file: { file_path: \"{dir}/a.log\" } }\n";
    let daemon = hung::hanging(&format!("{WITH_UDP}{DEDUPE}{groups}"), &["a.log"]);
    let mut waiting = hung::send_each(&daemon, (0..4).map(|_| "a/1".to_owned()));
    hung::wait_hanging(&daemon, "a.log");
    let record = entry("a-1", "read", "a/1");
    let udp = send::udp(daemon.audit());
    udp.send(record.as_bytes()).expect("sent");
    wait_until("all are received", || daemon.sum("records_received_total") == 5.0);
    assert!(daemon.lines("a.log").is_empty());
    assert_eq!(daemon.sum("records_total"), 0.0, "nothing has ended");
    hung::let_go(&daemon);
    for client in &mut waiting {
        assert_eq!(client.read_answer().expect("an answer").status, 204);
    }
    daemon.wait_received(5);
    assert_eq!((daemon.lines("a.log").len(), duplicates(&daemon)), (5, 0.0));
    udp.send(record.as_bytes()).expect("sent");
    assert_eq!(daemon.post(&record), 204);
    daemon.wait_received(7);
    assert_eq!((daemon.lines("a.log").len(), duplicates(&daemon)), (5, 2.0));
}

#[test]
fn datagrams_that_come_twice_are_told_on_once() {
    let daemon = Daemon::start(&format!("{WITH_UDP}{DEDUPE}{GROUP}"));
    let udp = send::udp(daemon.audit());
    let record = |n: usize| entry(&format!("id-{n}"), "read", "a");
    for round in 1..=3 {
        (0..50).for_each(|n| assert!(udp.send(record(n).as_bytes()).is_ok()));
        daemon.wait_received(50 * round);
    }
    assert_eq!((lines(&daemon), duplicates(&daemon)), (50, 100.0));
}

/// Calls without that half, by listener.
fn unpaired(daemon: &Daemon, listener: &str, missing: &str) -> f64 {
    daemon.metric(&format!("unpaired_total{{listener=\"{listener}\",missing=\"{missing}\"}}"))
}

#[test]
fn halves_that_are_missing_are_counted_by_their_listener() {
    const PAIRS: usize = 100;
    let daemon = Daemon::start(&format!("{WITH_TCP}pairs: {{ window: 100000, wait: 4s }}\n{GROUP}"));
    let request = |id: &str| entry(id, "read", "a");
    // In both orders, over two connections, one of them twice.
    let mut streams = [send::tcp(daemon.audit()), send::tcp(daemon.audit())];
    for n in 0..PAIRS {
        let (request, other) = (n % 2, 1 - n % 2);
        let half = entry(&format!("both-{n}"), "read", "a");
        let halves = [half.clone(), response(&half)];
        send::line(&mut streams[request], halves[0].as_bytes());
        send::line(&mut streams[other], halves[1].as_bytes());
        send::line(&mut streams[0], halves[other].as_bytes());
    }
    // The probe that nobody answers, another type, and what is missed.
    let body = [
        entry("probe", "update", "sys/audit/test"),
        request("plugin").replace(r#""type":"request""#, r#""type":"kmip-request""#),
        request("lone"),
        request("lone"),
    ];
    assert_eq!(daemon.post(&body.join("\n")), 204);
    let mut sent = 0;
    // A response is missed without its request only once the program has looked for as long as it waits.
    wait_until("lone responses are counted", || {
        send::line(&mut streams[0], response(&request(&format!("lone-{sent}"))).as_bytes());
        sent += 1;
        unpaired(&daemon, "tcp", "request") > 0.0
    });
    daemon.wait_received(PAIRS * 3 + body.len() + sent);
    assert_eq!(lines(&daemon), PAIRS * 3 + body.len() + sent, "evidence changes nothing");
    // What came before is due, too.
    assert!(unpaired(&daemon, "tcp", "request") <= sent as f64);
    assert_eq!(unpaired(&daemon, "http", "response"), 1.0);
    assert_eq!((unpaired(&daemon, "tcp", "response"), unpaired(&daemon, "http", "request")), (0.0, 0.0));
    assert_eq!(daemon.metric("pairs_forgotten_total"), 0.0);
}

#[test]
fn silence_is_said_and_shown_and_makes_nobody_unready() {
    let yaml = format!("{WITH_TCP}{CONTROL}{GROUP}").replace("listen:\n", "listen:\n  silence_alarm: 1s\n");
    let daemon = Daemon::start(&yaml);
    let mut client = daemon.client();
    let mut post = |path: &str| {
        let answer = client.post(path, entry("id", "read", "a").as_bytes()).expect("an answer");
        assert_eq!(answer.status, 204);
    };
    let silent = |series: &str| daemon.metric(series) >= 1.0;
    let http = r#"listener_silent_seconds{listener="http"}"#;
    let bao = r#"source_silent_seconds{source="bao-1"}"#;
    // The names are known from the first look on.
    wait_until("it looks", || daemon.metrics().contains_key(http));
    post("/v1/audit/bao-1");
    wait_until("silence is shown", || silent(http) && silent(bao));
    assert_eq!(daemon.metric(r#"listener_silent_seconds{listener="tcp"}"#), 0.0, "nobody uses it");
    for what in ["nothing has come over http for", "nothing has come from source bao-1 for"] {
        wait_until(what, || daemon.stderr().contains(what));
    }
    let ready = daemon.admin("/readyz?verbose");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("[!] senders: nothing over http for "), "{}", ready.text());
    assert!(!daemon.admin("/readyz").text().contains("senders"));
    let answer = daemon.control("c.sock", "GET", "/v1/status", "");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status: Value = serde_json::from_str(body).expect("JSON");
    let listener = |name: &str| {
        let listeners = status["listeners"].as_array().expect("listeners");
        listeners.iter().find(|listener| listener["listener"] == name).expect("it is open")["silent_s"]
            .clone()
    };
    assert!(listener("http").as_u64().is_some_and(|seconds| seconds >= 1) && listener("tcp").is_null());
    assert_eq!(
        (&status["sources"][0]["source"], &status["sources"][0]["requests"]),
        (&"bao-1".into(), &1.into())
    );
    // Other records, as fast as they come, end it; the source stays silent.
    let again = "records come over http again";
    wait_until(again, || {
        post("/v1/audit");
        daemon.stderr().contains(again)
    });
    assert!(silent(bao) && !daemon.stderr().contains("from source bao-1 again"));
    wait_until("the source is heard", || {
        post("/v1/audit/bao-1");
        daemon.stderr().contains("records come from source bao-1 again")
    });
    // Off, nothing of it is left.
    std::fs::write(
        daemon.path("config.yaml"),
        daemon.fill(&yaml.replace("silence_alarm: 1s", "silence_alarm: 0")),
    )
    .expect("written");
    assert!(daemon.run_as_is(&["reload"]).status.success());
    wait_until("nothing is shown", || {
        !daemon.metrics().keys().any(|series| series.contains("silent_seconds"))
    });
    assert!(!daemon.admin("/readyz?verbose").text().contains("senders"));
}

#[test]
fn check_says_what_is_wrong_with_the_keys() {
    let plan = Plan::new(&format!("{HTTP_ONLY}dedupe: {{ windows: 5 }}\npairs: {{ window: many }}\n"));
    let checked = plan.run(&["check"]);
    assert_eq!(checked.status.code(), Some(1));
    let said = checked.stdout + &checked.stderr;
    for part in ["dedupe.windows", "did you mean window?", "pairs.window", "number"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
