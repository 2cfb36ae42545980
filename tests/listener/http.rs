//! HTTP as senders use it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vault_audit_filter::listener::{Endpoint, Pool, Source, bind_unix};
use vault_audit_filter::metrics::Registry;

use crate::files::Folder;
use crate::harness::*;

#[test]
fn one_connection_carries_many_requests() {
    let server = server();
    let mut client = server.client();
    for n in 0..100 {
        let answer = client.exchange(&post("/v1/audit/bao?x=1", format!("{{\"n\":{n}}}\n").as_bytes()));
        assert_eq!(answer.status, 204);
        assert!(answer.headers.is_empty(), "{:?}", answer.headers);
    }
    let seen = server.service.seen();
    assert_eq!(seen.len(), 100);
    let expected = Seen::Request {
        method: "POST".into(),
        path: "/v1/audit/bao".into(),
        query: "x=1".into(),
        body: b"{\"n\":7}\n".to_vec(),
    };
    assert_eq!(seen[7], expected);
    assert_eq!(server.pool.connections(), 1);
    assert_eq!(server.metric("http_requests_total{listener=\"http\",status=\"204\"}"), 100);
    until("the last duration", || server.metric("http_request_seconds_count") == 100);
    assert_eq!(server.metric("buffered_bytes"), 0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = server();
    let mut client = server.client();
    let mut all = Vec::new();
    for n in 0..200 {
        all.extend(match n % 3 {
            0 => post(&format!("/{n}"), &vec![b'x'; n * 10]),
            1 => format!("GET /text?{n} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes(),
            _ => b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                .to_vec(),
        });
    }
    client.send(&all);
    for n in 0..200 {
        let answer = client.answer();
        let expected: (u16, &[u8]) = if n % 3 == 1 { (200, b"hello\n") } else { (204, b"") };
        assert_eq!((answer.status, answer.body.as_slice()), expected, "answer {n}");
    }
    let seen = server.service.requests();
    assert_eq!(seen.len(), 200);
    assert_eq!(seen[198], ("/198".to_owned(), vec![b'x'; 1980]));
    assert_eq!(seen[197], ("/c".to_owned(), b"abc".to_vec()));
}

#[test]
fn bodies_of_every_size_arrive_whole() {
    let server = server();
    let mut client = server.client();
    for size in [0, 1, 65_000, 65_536, 65_537, 1 << 20, 5_000_000, 64 << 20] {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        assert_eq!(client.exchange(&post("/v1/audit", &body)).status, 204, "{size}");
        let seen = std::mem::take(&mut *server.service.seen.lock().unwrap());
        assert!(matches!(&seen[..], [Seen::Request { body: got, .. }] if *got == body), "{size}");
        until("the buffers' end", || server.metric("buffered_bytes") == 0);
    }
    let body = vec![b'y'; 300_000];
    let mut request = b"POST /v1/audit HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(7_777) {
        request.extend(format!("{:X}\r\n", chunk.len()).into_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(client.exchange(&request).status, 204);
    assert_eq!(server.service.requests()[0].1, body);
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let server = server();
    let mut client = server.client();
    for byte in post("/v1/audit", b"{\"a\":1}") {
        client.send(&[byte]);
    }
    assert_eq!(client.answer().status, 204);
    assert_eq!(server.service.requests(), [("/v1/audit".to_owned(), b"{\"a\":1}".to_vec())]);
}

#[test]
fn gzip_bodies_are_decoded() {
    let server = server();
    let body = b"{\"type\":\"request\"}\n".repeat(100_000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(&body).unwrap();
    let packed = encoder.finish().unwrap();
    let mut client = server.client();
    for coding in ["gzip", "x-gzip", "identity, gzip"] {
        let head = format!(
            "POST /v1/audit HTTP/1.1\r\nHost: h\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            packed.len()
        );
        assert_eq!(client.exchange(&[head.as_bytes(), &packed].concat()).status, 204);
    }
    let empty = b"POST /e HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(client.exchange(empty).status, 204);
    let seen = server.service.requests();
    assert!(seen[..3].iter().all(|(_, got)| *got == body));
    assert_eq!(seen[3].1, b"");
    let damaged = [
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n".as_slice(),
        b"nope!",
    ]
    .concat();
    let answer = client.exchange(&damaged);
    assert_eq!((answer.status, answer.closes()), (400, true));
}

#[test]
fn expect_100_is_answered_before_the_body() {
    let server = server();
    let mut client = server.client();
    let head =
        b"POST /v1/audit HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n";
    assert_eq!(client.exchange(head).status, 100);
    assert_eq!(client.exchange(&[b'x'; 100_000]).status, 204);
    // A body that comes along needs no invitation.
    let whole = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(client.exchange(whole).status, 204);
    let too_large = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n";
    assert_eq!(client.exchange(too_large).status, 413);
    client.assert_closed();
    let mut client = server.client();
    let answer =
        client.exchange(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: wonders\r\nContent-Length: 1\r\n\r\n");
    assert_eq!((answer.status, answer.closes()), (417, true));
    client.assert_closed();
}

#[test]
fn who_closes_when() {
    let server = server();
    for (request, status, connection) in [
        ("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 204, Some("close")),
        ("POST / HTTP/1.0\r\n\r\n", 204, Some("close")),
        ("POST /close HTTP/1.1\r\nHost: h\r\n\r\n", 204, Some("close")),
        ("POST / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 204, Some("keep-alive")),
        ("POST / HTTP/1.1\r\nHost: h\r\n\r\n", 204, None),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 405, None),
    ] {
        let mut client = server.client();
        let answer = client.exchange(request.as_bytes());
        assert_eq!(answer.status, status, "{request:?}");
        assert_eq!(answer.headers.get("connection").map(String::as_str), connection, "{request:?}");
        if connection == Some("close") {
            client.assert_closed();
        } else {
            assert_eq!(client.exchange(&post("/again", b"")).status, 204, "{request:?}");
        }
    }
}

#[test]
fn head_gets_the_head_only() {
    let server = server();
    let mut client = server.client();
    client.send(b"HEAD /text HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = client.answer_to("HEAD");
    assert_eq!((answer.status, answer.headers["content-length"].as_str()), (200, "6"));
    assert_eq!(client.exchange(b"GET /text HTTP/1.1\r\nHost: h\r\n\r\n").body, b"hello\n");
}

#[test]
fn a_sender_that_ends_its_side_still_gets_the_answers() {
    let server = server();
    let mut client = server.client();
    client.send(&[post("/a", b"1"), post("/b", b"2")].concat());
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((client.answer().status, client.answer().status), (204, 204));
    client.assert_closed();
}

#[test]
fn a_long_reply_arrives_whole_at_a_slow_reader() {
    let server = server();
    let mut client = server.client();
    client.send(b"POST /big?10000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    until("a reply that waits", || server.metric("buffered_bytes") > 0);
    // What was sent meanwhile is served after it.
    client.send(&post("/after", b"{}"));
    assert_eq!(client.answer().body, vec![b'b'; 10_000_000]);
    assert_eq!(client.answer().status, 204);
    until("the buffers' end", || server.metric("buffered_bytes") == 0);
}

#[test]
fn over_the_budget_of_buffered_bytes_requests_get_503() {
    let mut options = options(limits());
    options.buffered_bytes_max = Some(1 << 20);
    let server = server_with(options);
    let mut holder = server.client();
    holder.send(b"POST /h HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n");
    holder.send(&[b'x'; 800_000]);
    until("a buffer", || server.metric("buffered_bytes") >= 800_000);
    let mut client = server.client();
    let answer = client.exchange(b"POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n{");
    assert_eq!((answer.status, answer.closes(), answer.headers["retry-after"].as_str()), (503, true, "1"));
    client.assert_closed();
    // What needs no buffer is served all the same.
    server.assert_alive();
    assert_eq!(holder.exchange(&[b'x'; 100_000]).status, 204);
    until("room again", || server.metric("buffered_bytes") == 0);
    let mut client = server.client();
    assert_eq!(client.exchange(&post("/c", &[b'x'; 500_000])).status, 204);
}

#[test]
fn http_over_a_unix_socket() {
    let folder = Folder::new("http-unix");
    let path = folder.path().join("s");
    let service = Arc::new(Recorder::default());
    let registry = Registry::new();
    let endpoint = Endpoint::new(Source::Admin, bind_unix(&path).unwrap());
    let pool = Pool::start(Arc::clone(&service), vec![endpoint], options(limits()), &registry).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(&post("/v1/audit", b"{}")).unwrap();
    let mut answer = [0; 100];
    let n = stream.read(&mut answer).unwrap();
    assert_eq!(&answer[..n], b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(metric(&registry.render(), "connections{listener=\"admin\"}"), 1);
    pool.join();
    assert!(!path.exists());
}
