//! Messaging and forwarding: what the other side receives, and that nothing it does reaches the senders of records.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;

use serde_json::Value;

use crate::harness::{Daemon, HTTP_ONLY, entry};
use crate::support::sink::{Received, Script, Sink};
use crate::support::{PATIENCE, TempDir, wait_until};

/// A group for deletions with a log file and this messaging (a YAML flow mapping), and `more` at the top level.
fn notify(messaging: &str, more: &str) -> String {
    format!(
        r#"{HTTP_ONLY}
{more}
rule_groups:
  - name: deletions
    rules: ['Request.Operation == "delete"']
    log_file: {{ file_path: "{{dir}}/deletions.log" }}
    messaging: {messaging}
"#
    )
}

/// A webhook without pacing, so that tests need not wait for it.
fn webhook(sink: &Sink) -> String {
    format!("{{ type: webhook, webhook_url: \"{}\", rate_per_s: 0, digest_window: 0s }}", sink.url("/hook"))
}

fn deletion(n: usize) -> String {
    entry(&format!("id-{n}"), "delete", "secret/data/payroll")
}

/// Runs one message of a type through and gives what the sink received.
#[track_caller]
fn one_message(kind: &str, keys: &str, answer: Script, record: &str) -> Received {
    let sink = Sink::start([answer]);
    let keys = keys.replace("{sink}", &sink.url(""));
    let daemon = Daemon::start(&notify(&format!("{{ type: {kind}, {keys} }}"), ""));
    assert_eq!(daemon.post(record), 204);
    daemon.wait_sum("tasks_total", "outcome=\"delivered\"", 1.0);
    let received = sink.received();
    assert_eq!(received.len(), 1, "{kind}: one request");
    assert_eq!(received[0].method, "POST");
    let said = daemon.stderr();
    for secret in ["xoxb-very-secret", "T000/B000/hidden", "mm-very-secret", "hooks/hidden", "c2VjcmV0"] {
        assert!(!said.contains(secret), "no secret in diagnostics: {said}");
    }
    received[0].clone()
}

#[track_caller]
fn check_text(kind: &str, text: &Value) {
    let text = text.as_str().unwrap_or_else(|| panic!("{kind}: no text"));
    print_message(kind, text);
    for part in ["deletions", "delete", "secret/data/payroll", "approle"] {
        assert!(text.contains(part), "{kind}: {part} is in {text:?}");
    }
    assert!(!text.contains("hmac-sha256"), "{kind}: no hashes for people");
}

/// Shown by `cargo test -- --nocapture`.
#[allow(clippy::print_stdout, reason = "the texts are for the reader of the test's output")]
fn print_message(kind: &str, text: &str) {
    println!("--- {kind} ---\n{text}\n---");
}

#[test]
fn slack_gets_a_readable_message_through_its_api() {
    let keys = r#"url: "{sink}/api/", token: "xoxb-very-secret", channel: "C024BE91L""#;
    let request = one_message("slack", keys, Script::json(r#"{"ok":true,"ts":"1.2"}"#), &deletion(1));
    assert_eq!(request.path, "/api/chat.postMessage");
    assert_eq!(request.header("authorization"), Some("Bearer xoxb-very-secret"));
    assert!(request.header("content-type").is_some_and(|t| t.starts_with("application/json")));
    assert_eq!(request.json()["channel"], "C024BE91L");
    check_text("slack", &request.json()["text"]);
}

#[test]
fn a_slack_webhook_gets_a_readable_message() {
    let keys = r#"webhook_url: "{sink}/services/T000/B000/hidden""#;
    let request = one_message("slack_webhook", keys, Script::ok(), &deletion(1));
    assert_eq!(request.path, "/services/T000/B000/hidden");
    check_text("slack_webhook", &request.json()["text"]);
}

#[test]
fn mattermost_gets_a_readable_message_through_its_api() {
    let keys = r#"url: "{sink}", token: "mm-very-secret", channel: "4xp9fdt77pncbef59f4k1qe83o""#;
    let answer = Script::Answer { status: 201, headers: Vec::new(), body: r#"{"id":"p"}"#.into() };
    let request = one_message("mattermost", keys, answer, &deletion(1));
    assert_eq!(request.path, "/api/v4/posts");
    assert_eq!(request.header("authorization"), Some("Bearer mm-very-secret"));
    assert_eq!(request.json()["channel_id"], "4xp9fdt77pncbef59f4k1qe83o");
    check_text("mattermost", &request.json()["message"]);
}

#[test]
fn a_mattermost_webhook_gets_a_readable_message() {
    let keys = r#"webhook_url: "{sink}/hooks/hidden""#;
    let request = one_message("mattermost_webhook", keys, Script::ok(), &deletion(1));
    assert_eq!(request.path, "/hooks/hidden");
    check_text("mattermost_webhook", &request.json()["text"]);
}

#[test]
fn any_webhook_gets_json_with_the_headers_of_standard_webhooks() {
    let keys = r#"webhook_url: "{sink}/hooks/hidden", token: "whsec_c2VjcmV0""#;
    let request = one_message("webhook", keys, Script::status(204), &deletion(1));
    for header in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert!(request.header(header).is_some(), "{header}: {:?}", request.headers);
    }
    assert!(request.header("webhook-signature").is_some_and(|s| s.starts_with("v1,")));
    print_message("webhook", &request.json().to_string());
    assert!(request.json().to_string().contains("secret/data/payroll"));
}

#[test]
fn text_from_a_record_cannot_call_everybody() {
    let record = entry("id-1", "delete", "secret/<!channel> & @channel `x`");
    let keys = r#"webhook_url: "{sink}/services/T000/B000/hidden", template: "deleted {{ Request.Path }}""#;
    let slack = one_message("slack_webhook", keys, Script::ok(), &record).json()["text"].to_string();
    assert!(
        slack.contains("deleted") && slack.contains("&lt;!channel&gt;") && slack.contains("&amp;"),
        "{slack}"
    );
    assert!(!slack.contains("<!channel>"), "{slack}");
    let keys = r#"webhook_url: "{sink}/hooks/hidden", template: "deleted {{ Request.Path }}""#;
    let mattermost =
        one_message("mattermost_webhook", keys, Script::ok(), &record).json()["text"].to_string();
    assert!(mattermost.contains("deleted") && !mattermost.contains(" @channel"), "{mattermost}");
}

#[test]
fn templates_and_raw_records_are_sent_as_configured() {
    let keys = r#"webhook_url: "{sink}/hooks/x", template: "{{ Request.Operation }} by {{ upper(Auth.DisplayName) }}: {{ len(Auth.Policies) }}""#;
    let text = one_message("slack_webhook", keys, Script::ok(), &deletion(1)).json()["text"].clone();
    assert_eq!(text, "delete by APPROLE: 2");
    let keys = r#"webhook_url: "{sink}/hooks/x", format: raw"#;
    let text = one_message("mattermost_webhook", keys, Script::ok(), &deletion(1)).json()["text"].clone();
    let text = text.as_str().expect("a text");
    assert!(text.contains(&deletion(1)), "the record as it came: {text}");
}

#[test]
fn forwarding_over_udp_sends_the_bytes_of_the_record() {
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    receiver.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let address = receiver.local_addr().expect("bound");
    let daemon = Daemon::start(&format!(
        r#"{HTTP_ONLY}
rule_groups:
  - name: forwarded
    rules: ['Request.Operation == "delete"']
    forwarding: {{ enabled: true, address: "{address}" }}
"#
    ));
    let mut buffer = vec![0; 65_536];
    for n in 0..5 {
        assert_eq!(daemon.post(&entry("other", "read", "a")), 204);
        assert_eq!(daemon.post(&deletion(n)), 204);
        let length = receiver.recv(&mut buffer).expect("a datagram");
        assert_eq!(String::from_utf8_lossy(buffer[..length].trim_ascii_end()), deletion(n));
    }
    daemon.wait_sum("tasks_total", "outcome=\"delivered\"", 5.0);
}

#[test]
fn forwarding_over_streams_and_http_sends_each_record_once() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let dir = TempDir::new("forwarding");
    let unix = UnixListener::bind(dir.join("peer.sock")).expect("a socket");
    let http = Sink::start([Script::status(204)]);
    let group = |protocol: &str, address: &str| {
        format!(
            "  - name: by_{protocol}\n    forwarding: {{ enabled: true, protocol: {protocol}, address: \"{address}\" }}\n"
        )
    };
    let daemon = Daemon::start(&format!(
        "{HTTP_ONLY}\nasync: {{ workers: 1 }}\nrule_groups:\n{}{}{}",
        group("tcp", &tcp.local_addr().expect("bound").to_string()),
        group("unix", &dir.join("peer.sock").display().to_string()),
        group("http", &http.url("/records"))
    ));
    let records: Vec<String> = (0..5).map(deletion).collect();
    for (n, record) in records.iter().enumerate() {
        assert_eq!(daemon.post(record), 204);
        // One after the other: each group's queue holds only twenty.
        daemon.wait_sum("tasks_total", "outcome=\"delivered\"", 3.0 * (n + 1) as f64);
    }
    fn lines(stream: impl Read, n: usize) -> Vec<String> {
        BufReader::new(stream).lines().take(n).map(|line| line.expect("a whole line")).collect()
    }
    let stream = tcp.accept().expect("a connection").0;
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    assert_eq!(lines(stream, records.len()), records);
    let stream = unix.accept().expect("a connection").0;
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    assert_eq!(lines(stream, records.len()), records);
    let bodies: Vec<String> =
        http.received().iter().map(|r| String::from_utf8_lossy(&r.body).trim_end().to_owned()).collect();
    assert_eq!(bodies, records);
}

#[test]
fn a_hung_sink_holds_back_neither_acks_nor_other_sinks() {
    const RECORDS: usize = 200;
    let (hung, good) = (Sink::start([Script::Hang]), Sink::start([Script::ok()]));
    let second = format!(
        "  - name: also\n    rules: ['Request.Operation == \"delete\"']\n    messaging: {}\n",
        webhook(&good)
    );
    let settings = "async: { queue_size: 5, workers: 1, timeout: 300s, enqueue_mode: drop }\nshutdown: { drain_timeout: 200ms }";
    let mut daemon = Daemon::start(&(notify(&webhook(&hung), settings) + &second));
    let mut client = daemon.client();
    for n in 0..RECORDS {
        assert_eq!(client.post("/v1/audit", deletion(n).as_bytes()).expect("an answer").status, 204);
        // The good sink's queue is as short: let it keep up.
        wait_until("the good sink has it", || good.count() == n + 1);
    }
    assert_eq!(daemon.lines("deletions.log").len(), RECORDS);
    assert_eq!(hung.count(), 1, "its only worker hangs in the first request");
    // One task is with the worker, five wait.
    daemon.wait_sum("tasks_total", "outcome=\"dropped\"", (RECORDS - 6) as f64);
    daemon.wait_sum("tasks_total", "outcome=\"delivered\"", RECORDS as f64);
    assert_eq!(daemon.sum("tasks_dropped_total"), (RECORDS - 6) as f64);
    assert_eq!(daemon.sum("queue_length"), 5.0);
    assert_eq!(daemon.sum("queue_capacity"), 10.0, "both queues");
    let ended = daemon.terminate();
    let said = ended.stderr;
    assert!(said.contains("left") || said.contains("dropped"), "it says what is left: {said}");
}

#[test]
fn retry_after_is_honoured_and_the_message_arrives() {
    let busy = Script::Answer { status: 429, headers: vec!["Retry-After: 1".into()], body: String::new() };
    let sink = Sink::start([busy, Script::ok()]);
    let daemon =
        Daemon::start(&notify(&webhook(&sink), "async: { retry: { max_attempts: 2, backoff: 1ms } }"));
    assert_eq!(daemon.post(&deletion(1)), 204);
    daemon.wait_sum("tasks_total", "outcome=\"delivered\"", 1.0);
    let received = sink.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"), "one id for all attempts");
    assert_eq!(daemon.sum_where("attempts_total", "outcome=\"transient\""), 1.0);
}

#[test]
fn ok_false_is_a_failure_and_a_passing_one_is_tried_again() {
    let sink = Sink::start([
        Script::json(r#"{"ok":false,"error":"ratelimited"}"#),
        Script::json(r#"{"ok":true,"ts":"1"}"#),
        Script::json(r#"{"ok":false,"error":"msg_too_long"}"#),
        Script::json(r#"{"ok":true,"ts":"2"}"#),
    ]);
    let slack = format!(
        "{{ type: slack, url: \"{}\", token: t, channel: c, rate_per_s: 0, digest_window: 0s }}",
        sink.url("/api/")
    );
    let daemon =
        Daemon::start(&notify(&slack, "async: { workers: 1, retry: { max_attempts: 3, backoff: 1ms } }"));
    assert_eq!(daemon.post(&deletion(1)), 204);
    daemon.wait_sum("tasks_total", "outcome=\"delivered\"", 1.0);
    assert_eq!(sink.count(), 2);
    assert_eq!(daemon.post(&deletion(2)), 204);
    daemon.wait_sum("tasks_total", "outcome=\"failed\"", 1.0);
    assert_eq!(sink.count(), 3, "a message that is too long is not sent again");
    assert_eq!(daemon.post(&deletion(3)), 204);
    daemon.wait_sum("tasks_total", "outcome=\"delivered\"", 2.0);
    assert!(daemon.stderr().contains("msg_too_long"), "the reason is said: {}", daemon.stderr());
}

#[test]
fn an_explicit_number_of_attempts_is_literal() {
    let sink = Sink::start([Script::status(500)]);
    let daemon = Daemon::start(&notify(
        &webhook(&sink),
        "async: { retry: { max_attempts: 4, backoff: 1ms, max_backoff: 5ms } }",
    ));
    assert_eq!(daemon.post(&deletion(1)), 204);
    daemon.wait_sum("tasks_total", "outcome=\"failed\"", 1.0);
    assert_eq!(sink.count(), 4);
    assert_eq!(daemon.sum_where("attempts_total", "outcome=\"transient\""), 4.0);
}

#[test]
fn enqueue_mode_wait_waits_for_room_and_drops_when_there_is_none_in_time() {
    let sink = Sink::start([Script::Hang]);
    let settings = "async: { queue_size: 1, workers: 1, timeout: 300s, enqueue_mode: wait, enqueue_timeout: 50ms }\nshutdown: { drain_timeout: 200ms }";
    let daemon = Daemon::start(&notify(&webhook(&sink), settings));
    for n in 0..6 {
        assert_eq!(daemon.post(&deletion(n)), 204, "acked when the waiting is over");
        wait_until("the worker has the first", || sink.count() == 1);
    }
    daemon.wait_sum("tasks_total", "outcome=\"dropped\"", 4.0);
    assert_eq!(daemon.sum("tasks_dropped_total"), 4.0);
    assert_eq!(daemon.lines("deletions.log").len(), 6);
}

#[test]
fn enqueue_mode_wait_loses_nothing_when_room_comes_in_time() {
    const SENDERS: usize = 8;
    let sink = Sink::start([Script::Hang]);
    let settings =
        "async: { queue_size: 1, workers: 1, timeout: 300s, enqueue_mode: wait, enqueue_timeout: 60s }";
    let daemon = Daemon::start(&notify(&webhook(&sink), settings));
    std::thread::scope(|scope| {
        let posts: Vec<_> = (0..SENDERS)
            .map(|n| {
                scope.spawn({
                    let daemon = &daemon;
                    move || daemon.post(&deletion(n))
                })
            })
            .collect();
        // More senders wait than the program has threads; it answers others all the same.
        wait_until("every line is written", || daemon.lines("deletions.log").len() == SENDERS);
        assert_eq!(daemon.post(&entry("other", "read", "a")), 204);
        assert_eq!(daemon.admin("/readyz").status, 200);
        sink.resume();
        for post in posts {
            assert_eq!(post.join().expect("an answer"), 204);
        }
    });
    daemon.wait_sum("tasks_total", "outcome=\"delivered\"", SENDERS as f64);
    assert_eq!(daemon.sum("tasks_dropped_total"), 0.0);
}

#[test]
fn no_workers_means_accepted_and_not_delivered() {
    let sink = Sink::start([Script::ok()]);
    let settings = "async: { workers: 0, queue_size: 3 }\nshutdown: { drain_timeout: 200ms }";
    let mut daemon = Daemon::start(&notify(&webhook(&sink), settings));
    for n in 0..5 {
        assert_eq!(daemon.post(&deletion(n)), 204);
    }
    assert_eq!(daemon.sum("queue_length"), 3.0);
    daemon.wait_sum("tasks_total", "outcome=\"dropped\"", 2.0);
    drop(daemon.terminate());
    assert_eq!(sink.count(), 0);
}
