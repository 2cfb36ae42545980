//! Replies that wait for a ticket.

use std::sync::atomic::Ordering;
use std::time::Duration;

use vault_audit_filter::ticket::Ticket;

use crate::harness::*;

#[test]
fn the_reply_comes_when_the_last_ticket_goes() {
    let server = server();
    let mut client = server.client();
    client.send(&[post("/park", b"{}"), post("/after", b"")].concat());
    let mut tickets = server.service.wait_for_tickets(1);
    tickets.push(tickets[0].clone());
    drop(tickets.pop());
    // Nobody else waits for it, and nothing behind it is served.
    server.assert_alive();
    assert!(server.service.requests().iter().all(|(path, _)| path != "/after"));
    client.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let early = std::io::Read::read(&mut client.stream, &mut [0; 1]).map_err(|e| e.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock));
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(tickets);
    assert_eq!(client.answer().status, 204);
    assert_eq!(client.answer().status, 204);
    assert_eq!(server.service.requests().last().unwrap().0, "/after");
    assert_eq!(client.exchange(&post("/again", b"")).status, 204);
}

#[test]
fn a_refused_ticket_is_a_503_whoever_lets_go_last() {
    let server = server();
    let mut client = server.client();
    for refuse_first in [true, false] {
        client.send(&post("/park-twice", b"{}"));
        let mut tickets = server.service.wait_for_tickets(2);
        let (one, other) = (tickets.remove(0), tickets.remove(0));
        if refuse_first {
            one.refuse();
            drop(other);
        } else {
            drop(one);
            other.refuse();
        }
        let answer = client.answer();
        assert_eq!((answer.status, answer.headers.get("retry-after").map(String::as_str)), (503, Some("1")));
        assert!(!answer.closes());
    }
    client.send(&post("/park", b"{}"));
    server.service.wait_for_tickets(1);
    assert_eq!(client.answer().status, 204);
}

#[test]
fn tickets_may_go_in_any_order_on_any_thread() {
    let server = server();
    for round in 0..30 {
        let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
        for client in &mut clients {
            client.send(&post("/park", b"{}"));
        }
        let mut tickets: Vec<Ticket> = Vec::new();
        until("all tickets", || {
            tickets.append(&mut server.service.tickets.lock().unwrap());
            tickets.len() == 20
        });
        fastrand::Rng::with_seed(round).shuffle(&mut tickets);
        let other = tickets.split_off(10);
        std::thread::scope(|scope| {
            scope.spawn(move || drop(tickets));
            scope.spawn(move || drop(other));
        });
        for client in &mut clients {
            assert_eq!(client.answer().status, 204);
            assert_eq!(client.exchange(&post("/next", b"")).status, 204);
        }
    }
}

#[test]
fn a_ticket_dropped_while_the_service_runs_is_answered() {
    let server = server();
    let mut client = server.client();
    for _ in 0..10 {
        assert_eq!(client.exchange(&post("/park-and-drop", b"{}")).status, 202);
    }
    // Dropped by another thread, as close to the return of the service as can be.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2000 {
                until("a ticket", || server.service.tickets.lock().unwrap().pop().is_some());
            }
        });
        for n in 0..2000 {
            assert_eq!(client.exchange(&post("/park", b"{}")).status, 204, "{n}");
        }
    });
}

#[test]
fn a_second_ticket_is_a_clone_of_the_first() {
    let server = server();
    let mut client = server.client();
    client.send(&post("/park-twice", b"{}"));
    let mut tickets = server.service.wait_for_tickets(2);
    drop(tickets.pop());
    server.assert_alive();
    drop(tickets);
    assert_eq!(client.answer().status, 202);
}

#[test]
fn the_client_may_have_gone() {
    let server = server();
    for _ in 0..20 {
        let mut client = server.client();
        client.send(&post("/park", b"{}"));
        let tickets = server.service.wait_for_tickets(1);
        reset(client.stream);
        drop(tickets);
        until("the end", || server.pool.connections() == 0);
    }
    server.assert_alive();
}

#[test]
fn misuse_of_tickets_is_answered_and_does_not_hang() {
    let server = server();
    let mut client = server.client();
    let answer = client.exchange(&post("/park-without-ticket", b"{}"));
    assert_eq!((answer.status, answer.closes()), (500, true));
    client.assert_closed();
    let mut client = server.client();
    assert_eq!(client.exchange(&post("/park-and-answer", b"{}")).status, 204);
    assert_eq!(client.exchange(&post("/next", b"{}")).status, 204);
    assert_eq!(client.exchange(&post("/park-and-panic", b"{}")).status, 500);
    client.assert_closed();
    drop(server.service.wait_for_tickets(1));
    server.assert_alive();
}

#[test]
fn a_parked_connection_is_neither_evicted_nor_timed_out() {
    let mut limits = limits();
    limits.connections_max = 3;
    limits.idle_timeout = Duration::from_millis(100);
    limits.head_timeout = Duration::from_millis(100);
    limits.body_timeout = Duration::from_millis(100);
    let server = server_with(options(limits));
    let mut parked = server.client();
    parked.send(&post("/park", b"{}"));
    let tickets = server.service.wait_for_tickets(1);
    for _ in 0..5 {
        server.assert_alive();
    }
    let mut idle = server.client();
    idle.assert_closed();
    drop(tickets);
    assert_eq!(parked.answer().status, 204);
}

#[test]
fn a_drain_waits_for_parked_replies_up_to_its_time() {
    let server = server();
    let mut answered = server.client();
    let mut never = server.client();
    answered.send(&post("/park", b"{}"));
    let tickets = server.service.wait_for_tickets(1);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| server.pool.drain(PATIENCE));
        until("the drain", || std::net::TcpStream::connect(server.http).is_err());
        drop(tickets);
        let answer = answered.answer();
        assert_eq!((answer.status, answer.closes()), (204, true));
        answered.assert_closed();
        assert_eq!(drained.join().unwrap().in_flight, 0);
    });
    never.assert_closed();
    let server = self::server();
    let mut left = server.client();
    left.send(&post("/park", b"{}"));
    let tickets = server.service.wait_for_tickets(1);
    assert_eq!(server.pool.drain(Duration::from_millis(50)).in_flight, 1);
    server.pool.join();
    left.assert_closed();
    drop(tickets);
    assert_eq!(server.service.gate.waiting.load(Ordering::SeqCst), 0);
}
