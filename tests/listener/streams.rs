//! Newline-delimited streams.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vault_audit_filter::config::Limits;
use vault_audit_filter::listener::{Endpoint, Pool, Source, bind_unix};
use vault_audit_filter::metrics::Registry;

use crate::files::Folder;
use crate::harness::*;

fn small_lines() -> Limits {
    Limits { record_bytes_max: 100_000, ..limits() }
}

#[test]
fn lines_arrive_whole_and_in_order() {
    let server = server();
    let mut sender = connect(server.tcp);
    let mut expected = Vec::new();
    let mut bytes = Vec::new();
    for n in 0..3000usize {
        let line = format!("{{\"n\":{n},\"fill\":\"{}\"}}", "x".repeat(n * 7 % 5000));
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(if n % 10 == 0 { b"\n\n" } else { b"\n" });
        expected.push(line.into_bytes());
    }
    for piece in bytes.chunks(12_345) {
        sender.write_all(piece).unwrap();
    }
    until("all lines", || server.service.count() == 3000);
    assert_eq!(server.service.lines(), expected);
    drop(sender);
    until("the end", || server.pool.connections() == 0);
    assert_eq!(server.service.count(), 3000);
    assert_eq!(server.metric("buffered_bytes"), 0);
}

#[test]
fn a_line_of_64_mib_is_a_line() {
    let server = server();
    let mut sender = connect(server.tcp);
    let mut line = vec![b'y'; 64 << 20];
    line.push(b'\n');
    sender.write_all(&line).unwrap();
    sender.write_all(b"next\n").unwrap();
    until("both", || server.service.count() == 2);
    let lines = server.service.lines();
    assert_eq!((lines[0].len(), lines[1].as_slice()), (64 << 20, b"next".as_slice()));
    until("the buffer's end", || server.metric("buffered_bytes") == 0);
}

#[test]
fn an_oversize_line_is_reported_and_skipped() {
    let server = server_with(options(small_lines()));
    let mut sender = connect(server.tcp);
    sender.write_all(b"before\n").unwrap();
    for _ in 0..100 {
        sender.write_all(&[b'z'; 10_000]).unwrap();
    }
    sender.write_all(b"the rest\nafter\n").unwrap();
    until("all", || server.service.count() == 3);
    let expected =
        [Seen::Line(b"before".to_vec()), Seen::Oversize(vec![b'z'; 4096]), Seen::Line(b"after".to_vec())];
    assert_eq!(server.service.seen(), expected);
    until("the buffer's end", || server.metric("buffered_bytes") == 0);
}

#[test]
fn an_unfinished_line_at_the_end_is_counted_and_not_a_line() {
    let server = server();
    for end in [reset as fn(TcpStream), drop] {
        let before = server.service.count();
        let mut sender = connect(server.tcp);
        sender.write_all(b"whole\n{\"time\":\"2026-").unwrap();
        until("the line", || server.service.count() == before + 1);
        end(sender);
        until("the tail", || server.service.count() == before + 2);
        let seen = server.service.seen();
        assert_eq!(seen[before..], [Seen::Line(b"whole".to_vec()), Seen::Truncated(14)]);
    }
    assert_eq!(server.metric("connections_closed_total{listener=\"tcp\",reason=\"truncated\"}"), 2);
    assert_eq!(server.metric("connections{listener=\"tcp\"}"), 0);
}

#[test]
fn one_flooding_stream_leaves_room_for_the_others() {
    let server = server();
    server.service.forgetful.store(true, Ordering::SeqCst);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut flood = connect(server.tcp);
                let batch = b"{\"type\":\"request\"}\n".repeat(20_000);
                while !stop.load(Ordering::SeqCst) {
                    flood.write_all(&batch).unwrap();
                }
            });
        }
        until("a flood", || server.service.count() > 10_000);
        for _ in 0..50 {
            server.assert_alive();
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_stream_may_be_silent_but_not_within_a_line() {
    let mut limits = limits();
    limits.idle_timeout = Duration::from_millis(200);
    limits.body_timeout = Duration::from_millis(600);
    let server = server_with(options(limits));
    let mut quiet = connect(server.tcp);
    let mut stuck = connect(server.tcp);
    quiet.write_all(b"one\n").unwrap();
    stuck.write_all(b"one\ntwo").unwrap();
    let end = stuck.read(&mut [0; 10]).map_err(|e| e.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert_eq!(server.metric("connections_closed_total{listener=\"tcp\",reason=\"line_timeout\"}"), 1);
    quiet.write_all(b"two\n").unwrap();
    until("the line after the silence", || {
        server.service.lines().iter().filter(|l| *l == b"two").count() == 1
    });
    assert!(server.service.seen().contains(&Seen::Truncated(3)));
}

#[test]
fn lines_that_keep_coming_in_halves_do_not_run_into_the_deadline() {
    let mut limits = limits();
    limits.body_timeout = Duration::from_millis(300);
    let server = server_with(options(limits));
    let mut sender = connect(server.tcp);
    sender.write_all(b"he").unwrap();
    for n in 1..40 {
        // Each write ends one line and begins the next.
        sender.write_all(b"llo\nhe").unwrap();
        until("a line", || server.service.count() == n);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.pool.connections(), 1);
}

#[test]
fn a_panic_costs_one_line() {
    let server = server();
    let mut sender = connect(server.tcp);
    sender.write_all(b"panic\nafter\n").unwrap();
    until("the line after", || server.service.lines().contains(&b"after".to_vec()));
    // Once more when the two were read together: they are then handed over one by one.
    assert!((1..=2).contains(&server.metric("service_panics_total{listener=\"tcp\"}")));
    server.assert_alive();
}

#[test]
fn a_parked_stream_is_read_again_when_its_ticket_goes() {
    let server = server();
    let mut sender = connect(server.tcp);
    sender.write_all(b"first\npark\nsecond\nthi").unwrap();
    let tickets = server.service.wait_for_tickets(1);
    server.assert_alive();
    sender.write_all(b"rd\npark-and-drop\nfourth\npark\n").unwrap();
    server.assert_alive();
    // What was read together is handed over together; nothing is read after it.
    assert_eq!(server.service.lines().len(), 3);
    drop(tickets);
    let tickets = server.service.wait_for_tickets(1);
    assert_eq!(server.service.lines().len(), 7);
    sender.write_all(b"last").unwrap();
    drop(tickets);
    sender.write_all(b" line\n").unwrap();
    until("the last", || server.service.lines().len() == 8);
    assert_eq!(server.service.lines()[3], b"third");
    assert_eq!(server.service.lines()[7], b"last line");
}

#[test]
fn a_ticket_that_outlives_its_stream_does_nothing() {
    let server = server();
    let mut sender = connect(server.tcp);
    sender.write_all(b"park\n").unwrap();
    let first = server.service.wait_for_tickets(1);
    reset(sender);
    let mut other = connect(server.tcp);
    other.write_all(b"park-and-go-on\nmore\n").unwrap();
    let stale = server.service.wait_for_tickets(1);
    until("more", || server.service.lines().len() == 3);
    drop(first);
    until("the first stream's end", || server.pool.connections() == 1);
    drop(stale);
    other.write_all(b"again\n").unwrap();
    until("again", || server.service.lines().len() == 4);
}

#[test]
fn streams_pause_while_the_buffers_are_full() {
    let mut options = options(Limits { record_bytes_max: 4 << 20, ..limits() });
    options.buffered_bytes_max = Some(2 << 20);
    let server = server_with(options);
    let mut holder = server.client();
    holder.send(b"POST /h HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n");
    holder.send(&[b'x'; 1_900_000]);
    until("a buffer", || server.metric("buffered_bytes") >= 1_900_000);
    let mut sender = connect(server.tcp);
    sender.write_all(&vec![b'y'; 500_000]).unwrap();
    until("the pause", || server.metric("buffered_bytes") > 1_950_000);
    sender.write_all(b"\nsmall\n").unwrap();
    server.assert_alive();
    assert_eq!(server.service.lines().len(), 0);
    assert_eq!(holder.exchange(&[b'x'; 100_000]).status, 204);
    until("the lines", || server.service.lines().len() == 2);
    assert_eq!(server.service.lines()[0].len(), 500_000);
    until("the buffers' end", || server.metric("buffered_bytes") == 0);
}

#[test]
fn unix_streams() {
    let folder = Folder::new("unix");
    let path = folder.path().join("audit.sock");
    let service = Arc::new(Recorder::default());
    let registry = Registry::new();
    let endpoint = Endpoint::new(Source::Unix, bind_unix(&path).unwrap());
    let pool = Pool::start(Arc::clone(&service), vec![endpoint], options(limits()), &registry).unwrap();
    let mut sender = UnixStream::connect(&path).unwrap();
    sender.write_all(b"one\ntwo\nthr").unwrap();
    until("two lines", || service.count() == 2);
    let drained = pool.drain(PATIENCE.min(Duration::from_millis(300)));
    assert_eq!(drained.in_flight, 1, "the unfinished line");
    assert_eq!(service.seen()[2], Seen::Truncated(3));
    // A sender notices at once and sends again elsewhere.
    until("the broken pipe", || sender.write_all(b"ee\n").is_err());
    assert!(!path.exists());
    pool.join();
}
