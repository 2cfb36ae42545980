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
    let beats = udp.listener.heartbeat().count();
    until("a beat", || udp.listener.heartbeat().count() > beats);
    assert_eq!(udp.listener.heartbeat().thread, "udp");
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
    let udp = udp(UdpOptions { receive_buffer_bytes: 4096, ..UdpOptions::default() });
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
fn a_panic_costs_one_datagram() {
    let udp = udp(UdpOptions::default());
    udp.sender.send(b"panic").unwrap();
    udp.sender.send(b"after").unwrap();
    until("the one after", || udp.service.count() == 1);
    assert_eq!(metric(&udp.registry.render(), "service_panics_total{listener=\"udp\"}"), 1);
}

#[test]
fn what_has_arrived_before_the_end_is_handed_over() {
    let udp = udp(UdpOptions::default());
    udp.service.gate.shut();
    udp.sender.send(b"gate").unwrap();
    until("a busy thread", || udp.service.gate.waiting.load(Ordering::SeqCst) == 1);
    for _ in 0..100 {
        udp.sender.send(b"waiting").unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| udp.listener.stop());
        udp.service.gate.open();
    });
    assert_eq!(udp.service.count(), 101);
    udp.listener.stop();
    // Nobody is there any more.
    until("the refusal", || udp.sender.send(b"late").is_err());
}
