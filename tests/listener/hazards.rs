//! What has ended, stalled or confused HTTP servers of this kind: each must get a plain answer or a plain close, and a well-behaved
//! client must be served meanwhile and afterwards.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::harness::*;

#[test]
fn enormous_lengths_are_413_before_a_byte_of_the_body() {
    let server = server();
    for length in
        ["999999999999", "18446744073709551615", "18446744073709551616", "99999999999999999999999999"]
    {
        let mut client = server.client();
        let head = format!("POST /v1/audit HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        let answer = client.exchange(head.as_bytes());
        assert_eq!((answer.status, answer.closes()), (413, true), "{length}");
        client.assert_closed();
    }
    server.assert_alive();
    assert_eq!(
        server.service.seen()[..4],
        [Seen::Refused(413), Seen::Refused(413), Seen::Refused(413), Seen::Refused(413)]
    );
    assert_eq!(server.metric("buffered_bytes"), 0);
}

#[test]
fn no_kept_alive_connection_is_left_unanswered() {
    let server = server();
    for connections in [6, 16, 64, 256] {
        let mut clients: Vec<Client> = (0..connections).map(|_| server.client()).collect();
        for round in 0..20 {
            for client in &mut clients {
                client.send(&post("/v1/audit", b"{}"));
            }
            for client in &mut clients {
                assert_eq!(client.answer().status, 204, "{connections} connections, round {round}");
            }
        }
    }
}

#[test]
fn busy_connections_do_not_starve_a_quiet_one() {
    let server = server();
    server.service.forgetful.store(true, Ordering::SeqCst);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.client();
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.exchange(&post("/v1/audit", b"{}")).status, 204);
                }
            });
        }
        for _ in 0..50 {
            server.assert_alive();
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn connections_cost_no_threads() {
    let server = server();
    let before = server.pool.heartbeats().len();
    let clients: Vec<Client> = (0..300).map(|_| server.client()).collect();
    until("300 connections", || server.pool.connections() == 300);
    server.assert_alive();
    assert_eq!((before, server.pool.heartbeats().len()), (2, 2));
    // Other tests of this process run pools of two threads too.
    assert!(threads_named("ingest-") < 100);
    drop(clients);
    until("their end", || server.pool.connections() == 0);
    assert_eq!(server.metric("connections{listener=\"http\"}"), 0);
}

#[test]
fn http_2_is_answered_505_and_leaves_nothing_behind() {
    let server = server();
    for preface in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/2.0\r\nHost: h\r\n\r\n"] {
        for _ in 0..50 {
            let mut client = server.client();
            let answer = client.exchange(preface.as_bytes());
            assert_eq!((answer.status, answer.closes()), (505, true));
            client.assert_closed();
        }
    }
    until("their end", || server.pool.connections() == 0);
    server.assert_alive();
    assert_eq!(server.metric("http_requests_total{listener=\"http\",status=\"505\"}"), 100);
    assert_eq!(server.metric("connections_closed_total{listener=\"http\",reason=\"refused\"}"), 100);
}

#[test]
fn a_storm_of_resets_passes() {
    let server = server();
    server.service.forgetful.store(true, Ordering::SeqCst);
    for n in 0..1500 {
        let mut stream = connect(server.http);
        match n % 3 {
            0 => stream.write_all(&post("/v1/audit", b"{}")).unwrap(),
            1 => stream.write_all(b"POST /v1/audit HTT").unwrap(),
            _ => {}
        }
        reset(stream);
    }
    server.assert_alive();
    until("their end", || server.pool.connections() == 0);
    assert_eq!(server.metric("service_panics_total{listener=\"http\"}"), 0);
}

#[test]
fn a_truncated_body_is_no_request() {
    let server = server();
    for request in [
        "POST /t HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello",
        "POST /t HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n",
        "POST /t HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST /t HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "POST /t HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /t HTTP/1.1\r\nHost: h\r\nContent-Le",
    ] {
        let mut client = server.client();
        client.send(request.as_bytes());
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (400, true), "{request:?}");
        client.assert_closed();
        let mut gone = connect(server.http);
        gone.write_all(request.as_bytes()).unwrap();
        reset(gone);
    }
    until("their end", || server.pool.connections() == 0);
    assert_eq!(server.service.requests(), []);
    server.assert_alive();
    assert!(server.metric("connections_closed_total{listener=\"http\",reason=\"truncated\"}") >= 6);
}

#[test]
fn a_complete_body_counts_even_when_its_sender_has_gone() {
    let server = server();
    for n in 0..50 {
        let mut stream = connect(server.http);
        stream.write_all(&post(&format!("/closed/{n}"), b"{}")).unwrap();
        drop(stream);
    }
    until("all of them", || server.service.requests().len() == 50);
    // Two at once, and gone before the first answer: the second counts as well.
    server.service.gate.shut();
    let mut stream = connect(server.http);
    stream.write_all(&[post("/gate", b""), post("/pipelined", b"{}")].concat()).unwrap();
    until("the first", || server.service.gate.waiting.load(Ordering::SeqCst) == 1);
    reset(stream);
    server.service.gate.open();
    until("the second", || server.service.requests().iter().any(|(path, _)| path == "/pipelined"));
    until("the end", || server.pool.connections() == 0);
}

fn short_deadlines() -> Server {
    let mut limits = limits();
    limits.head_timeout = Duration::from_millis(300);
    limits.body_timeout = Duration::from_millis(300);
    limits.idle_timeout = Duration::from_millis(1500);
    server_with(options(limits))
}

#[test]
fn slow_heads_and_bodies_are_ended_and_block_nobody() {
    let server = short_deadlines();
    let starts: [&[u8]; 3] = [
        b"POST / HTTP/1.1\r\nHost: h\r\nX-Slow: ",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n{",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ];
    let mut slow: Vec<Client> = Vec::new();
    for n in 0..150 {
        let mut client = server.client();
        client.send(starts[n % 3]);
        slow.push(client);
    }
    server.assert_alive();
    for client in &mut slow {
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (408, true));
        client.assert_closed();
    }
    server.assert_alive();
    assert_eq!(server.metric("connections_closed_total{listener=\"http\",reason=\"head_timeout\"}"), 50);
    assert_eq!(server.metric("connections_closed_total{listener=\"http\",reason=\"body_timeout\"}"), 100);
    assert_eq!(server.metric("buffered_bytes"), 0);
}

#[test]
fn a_drip_does_not_extend_a_deadline() {
    let server = short_deadlines();
    for (start, drip) in [
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: ".as_slice(), b"x".as_slice()),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ] {
        let mut client = server.client();
        client.send(start);
        let mut drops = 0;
        // A write to the closed connection fails soon after the server has closed it.
        until("the end of the drip", || {
            std::thread::sleep(Duration::from_millis(10));
            drops += 1;
            client.stream.write_all(drip).is_err()
        });
        assert!(drops > 3, "{drops}");
    }
    server.assert_alive();
    assert!(server.service.requests().iter().all(|(path, _)| path == "/alive"));
}

#[test]
fn idle_connections_are_closed_in_silence() {
    let server = short_deadlines();
    let mut never_used = server.client();
    let mut used = server.client();
    assert_eq!(used.exchange(&post("/v1/audit", b"{}")).status, 204);
    never_used.assert_closed();
    used.assert_closed();
    assert_eq!(server.metric("connections_closed_total{listener=\"http\",reason=\"idle_timeout\"}"), 2);
}

#[test]
fn an_endless_head_ends_at_its_limit() {
    let server = server();
    let mut client = server.client();
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: ");
    let mut sent = 0usize;
    // The server discards for a while, so that the answer is not lost, and then closes.
    while sent < 600 << 20 && client.stream.write_all(&[b'x'; 64 << 10]).is_ok() {
        sent += 64 << 10;
    }
    assert!(sent < 300 << 20, "{sent} bytes were taken");
    server.assert_alive();
    assert_eq!(server.service.seen()[0], Seen::Refused(431));
    assert_eq!(server.metric("buffered_bytes"), 0);
    let many = "A: b\r\n".repeat(2000);
    let mut client = server.client();
    let answer = client.exchange(format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n").as_bytes());
    assert_eq!((answer.status, answer.closes()), (431, true));
    client.assert_closed();
    let mut client = server.client();
    let answer = client.exchange(format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000)).as_bytes());
    assert_eq!((answer.status, answer.closes()), (414, true));
    client.assert_closed();
}

#[test]
fn requests_of_one_who_does_not_read_pile_up_at_the_sender() {
    let server = server();
    server.service.forgetful.store(true, Ordering::SeqCst);
    let mut client = server.client();
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let batch = b"GET /text HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    let mut batches = 0;
    while batches < 20_000 && client.stream.write_all(&batch).is_ok() {
        batches += 1;
    }
    assert!(batches < 20_000, "the server took everything");
    server.assert_alive();
    let buffered = server.metric("buffered_bytes");
    assert!((1..1 << 20).contains(&buffered), "{buffered} bytes buffered");
    reset(client.stream);
    until("the end", || server.pool.connections() == 0);
    assert_eq!(server.metric("buffered_bytes"), 0);
}

#[test]
fn ambiguous_requests_get_their_status_and_a_close() {
    let server = server();
    let mut rows = 0;
    for row in include_str!("../data/http_requests.tsv").lines() {
        let Some((expected, request)) = row.split_once('\t') else { continue };
        // The rest of the table depends on its own small limits, or is taken.
        let Ok(status) = expected.parse::<u16>() else { continue };
        if status == 413 {
            continue;
        }
        rows += 1;
        let request = unescape(request);
        let mut client = server.client();
        let answer = client.exchange(&[&request, post("/smuggled", b"").as_slice()].concat());
        assert_eq!((answer.status, answer.closes()), (status, true), "{row}");
        assert!(!answer.body.is_empty(), "{row}");
        client.assert_closed();
    }
    assert!(rows > 80, "{rows}");
    assert_eq!(server.service.requests(), []);
    server.assert_alive();
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let escaped = if b == b'\\' { bytes.next() } else { None };
        out.push(match escaped {
            None => b,
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'x') => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            Some(other) => other,
        });
    }
    out
}

#[test]
fn a_body_that_is_refused_does_not_become_the_next_request() {
    let server = server();
    let inner = String::from_utf8(post("/smuggled", b"")).unwrap();
    for head in [
        "Content-Length: 99999999",
        "Content-Length: x",
        "Transfer-Encoding: identity",
        "Expect: x\r\nContent-Length: 60",
    ] {
        let mut client = server.client();
        let answer =
            client.exchange(format!("POST / HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n{inner}").as_bytes());
        assert!(answer.status >= 400 && answer.closes(), "{head}");
        client.assert_closed();
    }
    assert_eq!(server.service.requests(), []);
}

#[test]
fn a_refused_sender_sees_the_status_while_it_is_still_sending() {
    let server = server();
    let mut client = server.client();
    let body = vec![b'x'; 80 << 20];
    client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    client.send(&body);
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (413, true));
    client.assert_closed();
    assert_eq!(server.metric("buffered_bytes"), 0);
}

#[test]
fn tls_on_a_plain_port_is_told_at_once() {
    let server = server();
    let mut client = server.client();
    let answer = client.exchange(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert_eq!((answer.status, answer.closes()), (400, true));
    client.assert_closed();
}

#[test]
fn a_reply_goes_out_in_one_piece() {
    let server = server();
    let mut client = server.client();
    for _ in 0..20 {
        client.send(b"POST /big?8000 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        let mut piece = [0; 16 << 10];
        let n = client.stream.read(&mut piece).unwrap();
        assert!(n > 8000, "{n} bytes first");
    }
}

#[test]
fn a_gzip_bomb_is_413_and_costs_no_more_than_the_bound() {
    let server = server();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    for _ in 0..200 {
        encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let mut client = server.client();
    client.send(
        format!(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            bomb.len()
        )
        .as_bytes(),
    );
    client.send(&bomb);
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (413, true));
    client.assert_closed();
    server.assert_alive();
    assert_eq!(server.service.seen()[0], Seen::Refused(413));
}

#[test]
fn a_panic_of_the_service_costs_one_connection() {
    let server = server();
    for n in 1..=5 {
        let mut client = server.client();
        let answer = client.exchange(&post("/panic", b"{}"));
        assert_eq!((answer.status, answer.closes()), (500, true));
        client.assert_closed();
        assert_eq!(server.metric("service_panics_total{listener=\"http\"}"), n);
    }
    server.assert_alive();
}

#[test]
fn a_reader_that_stops_is_closed_and_blocks_nobody() {
    let mut limits = limits();
    limits.write_timeout = Duration::from_millis(300);
    let server = server_with(options(limits));
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(b"POST /big?20000000 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    }
    server.assert_alive();
    let series = "connections_closed_total{listener=\"http\",reason=\"write_timeout\"}";
    until("the deadline", || server.metric(series) == 4);
    until("the buffers' end", || server.metric("buffered_bytes") == 0);
    server.assert_alive();
}
