//! Receiving: what each listener does with good, bad, large and refused input, and whether the counters add up.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Daemon, HTTP_ONLY, WITH_TCP, WITH_UDP, entry};
use crate::support::send;

/// Every record goes into one file.
const EVERYTHING: &str = r#"
rule_groups:
  - name: everything
    log_file: { file_path: "{dir}/everything.log" }
"#;

/// Ten kinds of frames that are no audit entries, each with the word by which it is found again.
fn bad_frames() -> Vec<Vec<u8>> {
    let deep = format!(r#"{{"bad-09":{}{}}}"#, "[".repeat(12_000), "]".repeat(12_000));
    vec![
        b"bad-00 is plain text".to_vec(),
        br#"["bad-01","an array"]"#.to_vec(),
        br#""bad-02 a string""#.to_vec(),
        br#"{"type":"request","request":{"id":"bad-03","pa"#.to_vec(),
        br#"{"type":"bad-04"} trailing"#.to_vec(),
        br#"{"type":"bad-05 \q"}"#.to_vec(),
        b"{\"type\":\"bad-06 \xff\xfe\"}".to_vec(),
        b"{\"type\":\"bad-07 \x01\"}".to_vec(),
        br#"<json:object name="bad-08"></json:object>"#.to_vec(),
        deep.into_bytes(),
    ]
}

fn good_frames() -> Vec<Vec<u8>> {
    (0..50).map(|n| entry(&format!("good-{n:02}"), "read", "secret/data/a").into_bytes()).collect()
}

/// Good and bad mixed: a bad one after every fifth good one.
fn mixed_frames() -> Vec<Vec<u8>> {
    let mut bad = bad_frames().into_iter();
    good_frames()
        .chunks(5)
        .flat_map(|five| five.iter().cloned().chain(bad.next()).collect::<Vec<_>>())
        .collect()
}

/// 50 good records are in the log file once and whole, ten bad frames in quarantine, and nothing else was counted.
#[track_caller]
fn check_mixed(daemon: &mut Daemon, listener: &str) {
    daemon.wait_received(60);
    assert_eq!(daemon.metric(&format!("records_received_total{{listener=\"{listener}\"}}")), 60.0);
    for (outcome, records) in [("matched", 50.0), ("unmatched", 0.0), ("quarantined", 10.0), ("refused", 0.0)]
    {
        assert_eq!(daemon.metric(&format!("records_total{{outcome=\"{outcome}\"}}")), records, "{outcome}");
    }
    assert_eq!(daemon.sum("records_quarantined_total"), 10.0);
    let mut lines = daemon.lines("everything.log");
    lines.sort();
    let mut good: Vec<String> =
        good_frames().into_iter().map(|f| String::from_utf8(f).expect("good records are text")).collect();
    good.sort();
    assert_eq!(lines, good);
    check_quarantine(daemon, &bad_frames());
    assert!(daemon.is_alive(), "the process is still there");
    assert_eq!(daemon.admin("/livez").status, 200);
}

/// The frames in the quarantine log are these, byte for byte and in any order.
#[track_caller]
fn check_quarantine(daemon: &Daemon, bad: &[Vec<u8>]) {
    let frame_of = |line: &String| {
        let kept: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:.200}"));
        assert!(kept["reason"].is_string() && kept["listener"].is_string(), "{line:.200}");
        match (kept["raw"].as_str(), kept["raw_base64"].as_str()) {
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(text)) => STANDARD.decode(text).expect("base64"),
            _ => panic!("either of them: {line:.200}"),
        }
    };
    let mut kept: Vec<Vec<u8>> = daemon.lines("quarantine.log").iter().map(frame_of).collect();
    let mut bad = bad.to_vec();
    kept.sort();
    bad.sort();
    assert!(kept == bad, "{} frames are kept, {} should be", kept.len(), bad.len());
}

#[test]
fn http_keeps_bad_frames_and_acks_them() {
    let mut daemon = Daemon::start(&format!("{HTTP_ONLY}{EVERYTHING}"));
    let mut client = daemon.client();
    for frame in mixed_frames() {
        let answer = client.post("/v1/audit", &frame).expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", String::from_utf8_lossy(&frame[..20]));
        assert_eq!(answer.header("content-length"), None, "204 has no length");
    }
    check_mixed(&mut daemon, "http");
}

#[test]
fn tcp_keeps_bad_frames_and_goes_on() {
    let mut daemon = Daemon::start(&format!("{WITH_TCP}{EVERYTHING}"));
    let mut stream = send::tcp(daemon.audit());
    mixed_frames().iter().for_each(|frame| send::line(&mut stream, frame));
    check_mixed(&mut daemon, "tcp");
}

#[test]
fn unix_keeps_bad_frames_and_goes_on() {
    let mut daemon = Daemon::start(&format!("{WITH_TCP}{EVERYTHING}"));
    let mut stream = send::unix(&daemon.path("audit.sock"));
    mixed_frames().iter().for_each(|frame| send::line(&mut stream, frame));
    check_mixed(&mut daemon, "unix");
}

#[test]
fn udp_keeps_bad_frames_and_goes_on() {
    let mut daemon = Daemon::start(&format!("{WITH_UDP}{EVERYTHING}"));
    let socket = send::udp(daemon.audit());
    for (n, mut frame) in mixed_frames().into_iter().enumerate() {
        if n % 2 == 0 {
            frame.push(b'\n');
        }
        assert_eq!(socket.send(&frame).expect("sent"), frame.len());
    }
    check_mixed(&mut daemon, "udp");
}

#[test]
fn a_stream_is_framed_by_newlines_however_it_is_cut() {
    let daemon = Daemon::start(&format!("{WITH_TCP}{EVERYTHING}"));
    let mut bytes = Vec::new();
    for (n, frame) in good_frames().iter().enumerate() {
        bytes.extend_from_slice(frame);
        bytes.extend_from_slice(if n % 3 == 0 { b"\r\n" } else { b"\n" });
        if n % 7 == 0 {
            bytes.extend_from_slice(b"\n\r\n");
        }
    }
    let mut stream = send::tcp(daemon.audit());
    for part in bytes.chunks(97) {
        stream.write_all(part).expect("the listener reads");
    }
    // An unfinished line at the end of the stream is counted and never evaluated.
    stream
        .write_all(&entry("unfinished", "read", "secret/data/a").as_bytes()[..400])
        .expect("the listener reads");
    drop(stream);
    daemon.wait_received(51);
    assert_eq!(daemon.metric(r#"records_total{outcome="matched"}"#), 50.0);
    assert_eq!(daemon.metric(r#"records_total{outcome="refused"}"#), 1.0);
    assert_eq!(daemon.sum("records_refused_total"), 1.0);
    let lines = daemon.lines("everything.log");
    assert_eq!(lines.len(), 50);
    assert!(lines.iter().all(|line| line.ends_with("}}") && !line.contains("unfinished")));
}

#[test]
fn a_batch_is_acked_as_a_whole_and_its_bad_lines_are_kept() {
    let mut daemon = Daemon::start(&format!("{HTTP_ONLY}{EVERYTHING}"));
    let mut body = mixed_frames().join(&b'\n');
    body.push(b'\n');
    assert_eq!(daemon.client().post("/v1/audit/bao-1", &body).expect("an answer").status, 204);
    check_mixed(&mut daemon, "http");
}

#[test]
fn gzip_bodies_are_decoded_up_to_the_limit() {
    let limited = format!("{HTTP_ONLY}limits: {{ record_bytes_max: 1MiB }}\n{EVERYTHING}");
    let mut daemon = Daemon::start(&limited);
    let packed = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("into memory");
        encoder.finish().expect("into memory")
    };
    let gzip = [("Content-Encoding", "gzip")];
    let post =
        |body: &[u8]| daemon.client().request("POST", "/v1/audit", &gzip, body).expect("an answer").status;
    assert_eq!(post(&packed(&good_frames().join(&b'\n'))), 204);
    // 64 MiB of spaces in 64 KiB.
    let bomb = packed(&vec![b' '; 64 << 20]);
    assert_eq!(post(&bomb), 413);
    let cut = packed(&good_frames()[0]);
    assert_eq!(post(&cut[..cut.len() - 9]), 400);
    assert_eq!(post(b"this is no gzip"), 400);
    assert_eq!(daemon.lines("everything.log").len(), 50);
    assert!(daemon.is_alive());
    assert_eq!(daemon.sum("records_received_total"), daemon.sum("records_total"));
}

#[test]
fn tokens_methods_paths_and_sizes_are_answered_by_the_book() {
    let yaml = HTTP_ONLY.replace(
        "\"127.0.0.1:{http}\" }",
        "\"127.0.0.1:{http}\", tokens: [\"first-token\", \"second-token\"] }",
    );
    let mut daemon = Daemon::start(&format!("{yaml}limits: {{ record_bytes_max: 64KiB }}\n{EVERYTHING}"));
    let record = entry("a", "read", "secret/data/a");
    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        daemon.client().request(method, path, headers, body).expect("an answer")
    };
    let auth = [("Authorization", "Bearer second-token")];
    let refused = ask("POST", "/v1/audit", &[], record.as_bytes());
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    for wrong in
        ["Bearer second-toke", "Bearer second-token2", "Bearer ", "Basic second-token", "second-token"]
    {
        assert_eq!(
            ask("POST", "/v1/audit", &[("Authorization", wrong)], record.as_bytes()).status,
            401,
            "{wrong}"
        );
    }
    assert_eq!(
        ask("POST", "/v1/audit", &[("authorization", "bearer first-token")], record.as_bytes()).status,
        204
    );
    assert_eq!(ask("POST", "/v1/audit", &auth, record.as_bytes()).status, 204);
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        // The answer to HEAD has a length and no body.
        let mut client = daemon.client();
        client
            .send_raw(
                format!("{method} /v1/audit HTTP/1.1\r\nHost: a\r\n{}: {}\r\n\r\n", auth[0].0, auth[0].1)
                    .as_bytes(),
            )
            .expect("sent");
        let mut line = [0; 12];
        client.read_start(&mut line).expect("an answer");
        assert_eq!(&line, b"HTTP/1.1 405", "{method}");
    }
    assert_eq!(ask("GET", "/v1/audit", &auth, b"").header("allow"), Some("POST"));
    assert_eq!(ask("POST", "/elsewhere", &auth, record.as_bytes()).status, 404);
    assert_eq!(ask("POST", "/v1/auditor", &auth, record.as_bytes()).status, 404);
    let large = entry("large", "read", &"x".repeat(70_000));
    assert_eq!(ask("POST", "/v1/audit", &auth, large.as_bytes()).status, 413);
    assert_eq!(
        ask("POST", "/v1/audit", &auth, b"").status,
        204,
        "an empty body is no audit entry: kept, not refused"
    );
    let lines = daemon.lines("everything.log");
    assert_eq!(lines, [record.clone(), record.clone()]);
    assert_eq!(daemon.metric(r#"records_refused_total{reason="oversize"}"#), 1.0);
    assert_eq!(daemon.sum("records_received_total"), daemon.sum("records_total"));
    assert!(daemon.is_alive());
    let said = daemon.terminate().stderr;
    assert!(
        !said.contains("first-token") && !said.contains("second-token"),
        "no secret in diagnostics: {said}"
    );
}

#[test]
fn a_record_of_5_mb_passes_by_http_and_by_tcp() {
    let daemon = Daemon::start(&format!("{WITH_TCP}{EVERYTHING}"));
    let big = entry("big", "list", &"k".repeat(5_000_000));
    assert_eq!(daemon.post(&big), 204);
    let mut stream = send::tcp(daemon.audit());
    send::line(&mut stream, big.as_bytes());
    daemon.wait_received(2);
    let lines = daemon.lines("everything.log");
    assert!(lines.len() == 2 && lines.iter().all(|line| *line == big), "both whole");
}

#[test]
fn a_line_over_the_limit_is_skipped_and_its_beginning_kept() {
    let daemon = Daemon::start(&format!("{WITH_TCP}limits: {{ record_bytes_max: 64KiB }}\n{EVERYTHING}"));
    let mut stream = send::tcp(daemon.audit());
    let good = entry("good", "read", "secret/data/a");
    send::line(&mut stream, good.as_bytes());
    send::line(&mut stream, entry("bad-00", "read", &"x".repeat(1 << 20)).as_bytes());
    send::line(&mut stream, good.as_bytes());
    daemon.wait_received(3);
    assert_eq!(daemon.lines("everything.log"), [good.clone(), good]);
    assert_eq!(daemon.metric(r#"records_quarantined_total{reason="oversize"}"#), 1.0);
    let kept = daemon.lines("quarantine.log");
    assert!(kept.len() == 1 && kept[0].contains("bad-00"), "its beginning is kept");
    assert!(kept[0].len() < 64 << 10, "and no more than that");
}

#[test]
fn without_rule_groups_every_record_goes_to_standard_output() {
    let mut daemon = Daemon::start(HTTP_ONLY);
    let record = entry("a", "read", "secret/data/a");
    assert_eq!(daemon.post(&record), 204);
    assert_eq!(daemon.terminate().stdout, format!("{record}\n"));
}

#[test]
fn a_complete_body_counts_even_when_its_sender_has_gone() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{EVERYTHING}"));
    let record = entry("gone", "read", "secret/data/a");
    let mut client = daemon.client();
    let request =
        format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{record}", record.len());
    client.send_raw(request.as_bytes()).expect("sent");
    drop(client);
    daemon.wait_received(1);
    assert_eq!(daemon.lines("everything.log"), [record]);
}
