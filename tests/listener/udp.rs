//! Datagrams.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_audit_filter::listener::{UdpListener, UdpOptions, bind_udp};
use vault_audit_filter::metrics::Registry;

use crate::harness::*;

struct Udp {
    service: Arc<Recorder>,
    listener: UdpListener,
    registry: Registry,
    sender: UdpSocket,
}

fn udp(options: UdpOptions) -> Udp {
    let socket = bind_udp("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(socket.local_addr().unwrap()).unwrap();
    let service = Arc::new(Recorder::default());
    let registry = Registry::new();
    let listener = UdpListener::start(Arc::clone(&service), socket, options, &registry).unwrap();
    Udp { service, listener, registry, sender }
}

#[test]
fn each_datagram_is_a_frame() {
    let udp = udp(UdpOptions::default());
    let mut expected = Vec::new();
    for n in 0..500usize {
        let datagram = format!("{{\"n\":{n},\"fill\":\"{}\"}}\n", "x".repeat(n * 3));
        udp.sender.send(datagram.as_bytes()).unwrap();
        expected.push(Seen::Datagram(datagram.into_bytes()));
        if n % 50 == 0 {
            until("them", || udp.service.count() == n + 1);
        }
    }
    let largest = vec![b'y'; 65_507];
    udp.sender.send(&largest).unwrap();
    expected.push(Seen::Datagram(largest));
    udp.sender.send(b"").unwrap();
    expected.push(Seen::Datagram(Vec::new()));
    until("all", || udp.service.count() == expected.len());
    assert_eq!(udp.service.seen(), expected);
    let heartbeats = udp.listener.heartbeats();
    assert_eq!(heartbeats.each_ref().map(|h| h.thread.as_str()), ["udp", "udp-evaluate", "udp-standby"]);
    for heartbeat in heartbeats {
        let beats = heartbeat.count();
        until("a beat", || heartbeat.count() > beats);
    }
}

#[test]
fn a_cut_datagram_is_no_frame() {
    let udp = udp(UdpOptions { datagram_bytes_max: 8000, ..UdpOptions::default() });
    udp.sender.send(&[b'x'; 8000]).unwrap();
    udp.sender.send(&[b'x'; 8001]).unwrap();
    udp.sender.send(b"after").unwrap();
    until("all", || udp.service.count() == 3);
    let expected = [Seen::Datagram(vec![b'x'; 8000]), Seen::Cut(4096), Seen::Datagram(b"after".to_vec())];
    assert_eq!(udp.service.seen(), expected);
}

#[test]
fn what_the_kernel_drops_is_counted() {
    let udp = udp(UdpOptions { receive_buffer_bytes: 4096, ring_bytes_max: 4096, ..UdpOptions::default() });
    assert!(udp.listener.receive_buffer_bytes() < 64 << 10);
    let mut sent = 0;
    for _ in 0..2 {
        let before = udp.service.count();
        udp.service.gate.shut();
        udp.sender.send(b"gate").unwrap();
        until("a busy thread", || udp.service.gate.waiting.load(Ordering::SeqCst) == 1);
        for _ in 0..200 {
            udp.sender.send(&[b'x'; 1000]).unwrap();
        }
        sent += 202;
        udp.service.gate.open();
        // The kernel tells with the next datagram that it can deliver.
        until("room", || udp.service.count() > before + 1);
        until("quiet", || {
            let count = udp.service.count();
            std::thread::sleep(std::time::Duration::from_millis(20));
            udp.service.count() == count
        });
        udp.sender.send(b"last").unwrap();
        until("the last", || udp.service.seen().last() == Some(&Seen::Datagram(b"last".to_vec())));
        let dropped = metric(&udp.registry.render(), "udp_kernel_drops_total") as usize;
        assert_eq!(dropped + udp.service.count(), sent);
        assert!(dropped > 50, "{dropped}");
    }
}

#[test]
fn what_the_kernel_drops_at_the_end_of_a_burst_is_counted_though_nothing_more_comes() {
    let udp = udp(UdpOptions { receive_buffer_bytes: 4096, ring_bytes_max: 4096, ..UdpOptions::default() });
    udp.service.gate.shut();
    udp.sender.send(b"gate").unwrap();
    until("a busy thread", || udp.service.gate.waiting.load(Ordering::SeqCst) == 1);
    for _ in 0..200 {
        udp.sender.send(&[b'x'; 1000]).unwrap();
    }
    udp.service.gate.open();
    until("all are accounted for", || {
        metric(&udp.registry.render(), "udp_kernel_drops_total") as usize + udp.service.count() == 201
    });
    assert!(udp.service.count() < 150);
}

#[test]
fn a_full_ring_is_counted_and_loses_nothing_by_itself() {
    let udp = udp(UdpOptions { ring_bytes_max: 4096, ..UdpOptions::default() });
    hold_both(&udp);
    for _ in 0..100 {
        udp.sender.send(&[b'x'; 1000]).unwrap();
    }
    until("a full ring", || metric(&udp.registry.render(), "udp_ring_full_total") > 0);
    udp.service.gate.open();
    until("all", || udp.service.count() == 102);
    assert_eq!(metric(&udp.registry.render(), "udp_kernel_drops_total"), 0);
}

/// The evaluating thread is held up, and so is the one that stands by for it.
fn hold_both(udp: &Udp) {
    udp.service.gate.shut();
    for busy in 1..=2 {
        udp.sender.send(b"gate").unwrap();
        until("a busy thread", || udp.service.gate.waiting.load(Ordering::SeqCst) == busy);
    }
}

#[test]
fn the_standby_goes_on_while_the_first_thread_is_held_up() {
    let udp = udp(UdpOptions::default());
    udp.service.gate.shut();
    udp.sender.send(b"gate").unwrap();
    until("a busy thread", || udp.service.gate.waiting.load(Ordering::SeqCst) == 1);
    for _ in 0..300 {
        udp.sender.send(b"goes on").unwrap();
    }
    until("the others", || udp.service.count() == 300);
    udp.service.gate.open();
    until("all", || udp.service.count() == 301);
}

#[test]
fn a_hung_disk_does_not_stop_the_draining() {
    // The kernel's buffer holds a few dozen of these.
    let udp = udp(UdpOptions { receive_buffer_bytes: 64 << 10, ..UdpOptions::default() });
    hold_both(&udp);
    let mut sent = 0;
    while sent < 3000 {
        for _ in 0..10 {
            udp.sender.send(&[b'x'; 1500]).unwrap();
            sent += 1;
        }
        until("them in the ring", || metric(&udp.registry.render(), "udp_ring_bytes") >= sent * 1500);
    }
    udp.service.gate.open();
    until("all", || udp.service.count() == 3002);
    assert_eq!(metric(&udp.registry.render(), "udp_kernel_drops_total"), 0);
    until("an empty ring", || metric(&udp.registry.render(), "udp_ring_bytes") == 0);
}

#[test]
fn a_panic_costs_one_datagram() {
    let udp = udp(UdpOptions::default());
    udp.sender.send(b"panic").unwrap();
    udp.sender.send(b"after").unwrap();
    until("the one after", || udp.service.count() == 1);
    // Twice when both were handed over at once.
    assert!((1..=2).contains(&metric(&udp.registry.render(), "service_panics_total{listener=\"udp\"}")));
    // Several that are handed over at once.
    hold_both(&udp);
    for datagram in [&b"panic"[..], b"one", b"two"] {
        udp.sender.send(datagram).unwrap();
    }
    until("them in the ring", || metric(&udp.registry.render(), "udp_ring_bytes") > 3 * 16);
    udp.service.gate.open();
    until("the others", || udp.service.count() == 5);
}

#[test]
fn what_has_arrived_before_the_end_is_handed_over() {
    let udp = udp(UdpOptions::default());
    hold_both(&udp);
    for _ in 0..100 {
        udp.sender.send(b"waiting").unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| udp.listener.stop());
        udp.service.gate.open();
    });
    assert_eq!(udp.service.count(), 102);
    udp.listener.stop();
    // Nobody is there any more.
    until("the refusal", || udp.sender.send(b"late").is_err());
}

#[test]
fn a_large_receive_buffer_that_was_passed_stays() {
    let socket = bind_udp("127.0.0.1:0").unwrap();
    let has = |socket: &std::net::UdpSocket| socket2::SockRef::from(socket).recv_buffer_size().unwrap() / 2;
    assert_eq!(UdpOptions::for_socket(&socket).unwrap(), UdpOptions::default());
    let wanted = UdpOptions::default().receive_buffer_bytes * 2;
    // As systemd does with ReceiveBuffer=, where this test may.
    if nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &wanted).is_ok() {
        assert_eq!(has(&socket), wanted);
        assert_eq!(UdpOptions::for_socket(&socket).unwrap().receive_buffer_bytes, wanted);
    }
}
