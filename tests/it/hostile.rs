//! Hostile and broken HTTP clients: each gets the status that HTTP names, loses its connection, and neither the process nor
//! anybody else notices.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::harness::{Daemon, HTTP_ONLY, entry};
use crate::support::http::Client;
use crate::support::{PATIENCE, wait_until};

/// Every record goes into one file.
const EVERYTHING: &str = r#"
rule_groups:
  - name: everything
    log_file: { file_path: "{dir}/everything.log" }
"#;

fn start() -> Daemon {
    Daemon::start(&format!("{HTTP_ONLY}{EVERYTHING}"))
}

/// A connection without the client's manners.
fn raw(daemon: &Daemon) -> TcpStream {
    let stream =
        TcpStream::connect(("127.0.0.1", daemon.http())).expect("the HTTP listener takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.set_write_timeout(Some(PATIENCE)).expect("a deadline");
    stream
}

/// Everything that comes until the other side closes.
fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "the connection is closed in time"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The process is there and takes records; nothing else was taken as one, and the counters add up.
#[track_caller]
fn check_unharmed(daemon: &mut Daemon) {
    assert!(daemon.is_alive(), "{}", daemon.stderr());
    assert_eq!(daemon.post(&entry("afterwards", "read", "a")), 204);
    let lines = daemon.lines("everything.log");
    assert!(
        lines.iter().all(|line| !line.contains("smuggled")),
        "nothing of the broken requests was taken as a record"
    );
    assert_eq!(daemon.sum("records_received_total"), daemon.sum("records_total"));
    assert_eq!(daemon.sum("service_panics_total"), 0.0);
}

#[test]
fn broken_http_is_refused_and_its_connection_closed() {
    let mut daemon = start();
    let endless = format!("POST /v1/audit HTTP/1.1\r\nX: {}", "y".repeat(40_000));
    let many = format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(3_000));
    let cases: Vec<(&str, &[u8], &[u16])> = vec![
        ("a length that is no number", b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n{}", &[400]),
        ("a signed length", b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}", &[400]),
        ("a huge length", b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n{}", &[413]),
        ("a length beyond 64 bits", b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n{}", &[400, 413]),
        ("two lengths", b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", &[400]),
        ("length and chunks", b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", &[400]),
        ("an unknown transfer coding", b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n{}", &[400, 501]),
        ("a signed chunk size", b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n", &[400]),
        ("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505]),
        ("HTTP/2.0 in a request line", b"GET / HTTP/2.0\r\n\r\n", &[400, 505]),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", &[400]),
        ("a head without end", endless.as_bytes(), &[431]),
        ("too many headers", many.as_bytes(), &[431]),
        ("no host", b"POST /v1/audit HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", &[400]),
    ];
    for (what, bytes, allowed) in cases {
        let mut client = daemon.client();
        client.send_raw(bytes).expect("sent");
        let answer = client.read_answer().unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(allowed.contains(&answer.status), "{what}: {}", answer.status);
        assert!(client.is_closed(), "{what}: the connection is closed");
    }
    check_unharmed(&mut daemon);
    assert_eq!(daemon.lines("everything.log").len(), 1);
}

#[test]
fn lines_of_the_head_that_proxies_read_differently_are_refused() {
    let mut daemon = start();
    for (what, line) in [
        ("a folded line", "X: a\r\n b".as_bytes()),
        ("a NUL", b"X: a\0b"),
        ("a space before the colon", b"X : a"),
        ("a bare newline", b"X: a\nY: b"),
        ("a bare carriage return", b"X: a\rY: b"),
        ("two hosts", b"Host: b"),
        ("no colon", b"nothing"),
    ] {
        let mut stream = raw(&daemon);
        let mut request = b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n".to_vec();
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n\r\n{\"smuggled\":        }");
        stream.write_all(&request).expect("sent");
        let answer = read_all(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what}: one answer: {answer}");
    }
    check_unharmed(&mut daemon);
}

#[test]
fn a_body_that_ends_too_early_is_no_record() {
    let mut daemon = start();
    let body = r#"{"type":"smuggled"}"#;
    for request in [
        format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len() + 1),
        format!(
            "POST /v1/audit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n",
            body.len()
        ),
        format!(
            "POST /v1/audit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}",
            body.len() + 8
        ),
    ] {
        let mut stream = raw(&daemon);
        stream.write_all(request.as_bytes()).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let answer = read_all(&mut stream);
        assert!(!answer.contains(" 204 "), "{request:?}: {answer}");
    }
    check_unharmed(&mut daemon);
}

#[test]
fn what_follows_a_refused_request_is_not_read_as_the_next_one() {
    let mut daemon = start();
    let inner = "POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{\"smuggled\":1}";
    for request in [
        format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n{inner}"),
        format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 0, {}\r\n\r\n{inner}", inner.len()),
        format!(
            "POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        ),
        format!(
            "POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n{inner}"
        ),
        format!("GET /v1/audit HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{inner}"),
    ] {
        let mut stream = raw(&daemon);
        stream.write_all(request.as_bytes()).expect("sent");
        let answer = read_all(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{request:?}: one answer: {answer}");
    }
    check_unharmed(&mut daemon);
}

#[test]
fn chunked_bodies_and_pipelined_requests_are_taken_in_order() {
    let mut daemon = start();
    let records: Vec<String> = (0..4).map(|n| entry(&format!("p{n}"), "read", "a")).collect();
    let mut request = String::new();
    for record in &records {
        let (start, end) = record.split_at(100);
        request.push_str("POST /v1/audit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        request.push_str(&format!(
            "64;name=value\r\n{start}\r\n{:X}\r\n{end}\r\n0\r\nTrailer: x\r\n\r\n",
            end.len()
        ));
    }
    let mut client = daemon.client();
    client.send_raw(request.as_bytes()).expect("sent");
    for n in 0..records.len() {
        assert_eq!(client.read_answer().unwrap_or_else(|e| panic!("answer {n}: {e}")).status, 204);
    }
    assert_eq!(daemon.lines("everything.log"), records);
    check_unharmed(&mut daemon);
}

#[test]
fn older_and_careful_clients_are_understood() {
    let mut daemon = start();
    let record = entry("old", "read", "a");
    let mut stream = raw(&daemon);
    let request = format!("POST /v1/audit HTTP/1.0\r\nContent-Length: {}\r\n\r\n{record}", record.len());
    stream.write_all(request.as_bytes()).expect("sent");
    let answer = read_all(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");

    let mut client = daemon.client();
    let head = format!(
        "POST /v1/audit HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        record.len()
    );
    client.send_raw(head.as_bytes()).expect("sent");
    assert_eq!(client.read_answer().expect("go on").status, 100);
    client.send_raw(record.as_bytes()).expect("sent");
    assert_eq!(client.read_answer().expect("an answer").status, 204);
    check_unharmed(&mut daemon);
}

#[test]
fn connections_that_are_reset_at_once_do_no_harm() {
    let mut daemon = start();
    for n in 0..500 {
        let mut stream = raw(&daemon);
        if n % 2 == 0 {
            let _ =
                stream.write_all(b"POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{\"smug");
        }
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("reset when closed");
    }
    check_unharmed(&mut daemon);
    wait_until("their places are free", || daemon.metric("connections{listener=\"http\"}") <= 1.0);
}

#[test]
fn a_crowd_costs_no_threads_and_everybody_in_it_is_served() {
    let mut daemon = start();
    assert_eq!(daemon.post(&entry("first", "read", "a")), 204);
    let threads = daemon.process("Threads");
    let mut crowd: Vec<Client> = (0..64).map(|_| daemon.client()).collect();
    let silent: Vec<TcpStream> = (0..200).map(|_| raw(&daemon)).collect();
    let stuck: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = raw(&daemon);
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
            stream
        })
        .collect();
    for round in 0..5 {
        for client in &mut crowd {
            let record = entry(&format!("r{round}"), "read", "a");
            assert_eq!(client.post("/v1/audit", record.as_bytes()).expect("an answer").status, 204);
        }
    }
    // Some may have been on their way to their start, and a slow disk gives each log file a lane; a connection gives none.
    let now = daemon.process("Threads");
    assert!(now <= threads + 8, "{threads} threads before, {now} with 314 connections");
    drop((silent, stuck));
    check_unharmed(&mut daemon);
}

#[test]
fn control_characters_of_records_reach_no_terminal() {
    let rules = "rule_groups:\n  - name: some\n    rules: ['int(Request.Path) > 0']\n    log_file: { file_path: \"{dir}/some.log\" }\n";
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{rules}"));
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{8}\u{9b}31m\u{202e}";
    let written = entry("1", "read", r"\u001b[2J\u001b]0;owned\u0007\r\u009b31m\u202e");
    for record in [evil.to_owned(), format!("{{\"path\":\"{evil}\"}}"), entry(evil, "read", evil), written] {
        assert_eq!(daemon.post(&record), 204);
    }
    let mut client = daemon.client();
    client.send_raw(format!("POST /{evil} HTTP/1.1\r\n\r\n").as_bytes()).expect("sent");
    assert_eq!(client.read_answer().expect("an answer").status, 400);
    assert_eq!(daemon.sum("rule_errors_total"), 1.0, "one of them failed in the rule, and was told of");
    assert_eq!(daemon.sum("records_quarantined_total"), 3.0);
    let shown = daemon.stderr() + &daemon.lines("quarantine.log").join("\n") + &daemon.admin("/").text();
    let raw = shown.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
    assert_eq!(raw, None, "{shown:?}");
}

#[test]
fn requests_sent_without_reading_answers_are_not_piled_up() {
    let mut daemon = Daemon::start(&format!("{HTTP_ONLY}limits: {{ write_timeout: 1s }}\n{EVERYTHING}"));
    let mut stream = raw(&daemon);
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a deadline");
    let requests = b"GET /v1/audit HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20_000);
    // Until the program reads no more, for 100 MB at most.
    let mut sent = 0;
    while sent < 100 << 20 && stream.write_all(&requests).is_ok() {
        sent += requests.len();
    }
    assert!(sent < 100 << 20, "the program stops reading from a client that does not take its answers");
    let kib = daemon.process("VmRSS");
    assert!(kib < 100 << 10, "{kib} KiB of memory");
    check_unharmed(&mut daemon);
}
