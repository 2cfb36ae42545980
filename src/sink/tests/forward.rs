//! Forwarding to real sockets.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::super::testing::Reply;
use super::*;
use crate::config::{ForwardProtocol, Forwarding};

fn forward(protocol: ForwardProtocol, address: &str) -> Arc<dyn Sink> {
    let group = RuleGroup {
        name: "g".into(),
        rules: Vec::new(),
        log_file: None,
        forwarding: Some(Forwarding { address: address.into(), protocol }),
        messaging: None,
    };
    let specs = build(&[group], &HttpClient::new()).expect("a sink");
    assert_eq!(specs[0].rate_per_s, 0.0);
    assert_eq!(specs[0].digest, None);
    assert_eq!(specs[0].sink.name(), "forward");
    Arc::clone(&specs[0].sink)
}

/// One line as it comes, by a deadline.
fn line(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while bytes.last() != Some(&b'\n') {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            other => panic!("{other:?} after {} bytes", bytes.len()),
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    BufReader::new(stream)
}

fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("vaf-{name}-{}-{:x}.sock", std::process::id(), fastrand::u64(..)))
}

#[test]
fn wrong_addresses_are_refused() {
    for (protocol, address) in [
        (ForwardProtocol::Udp, ""),
        (ForwardProtocol::Udp, "nowhere"),
        (ForwardProtocol::Udp, "host:99999"),
        (ForwardProtocol::Tcp, ":80"),
        (ForwardProtocol::Tcp, "::1:80"),
        (ForwardProtocol::Http, "host:80"),
    ] {
        let group = RuleGroup {
            name: "g".into(),
            rules: Vec::new(),
            log_file: None,
            forwarding: Some(Forwarding { address: address.into(), protocol }),
            messaging: None,
        };
        let errors = build(&[group], &HttpClient::new()).err().expect(address);
        assert_eq!(errors[0].key, "forwarding.address");
    }
}

#[test]
fn udp_sends_one_datagram_of_the_records_bytes() {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a port");
    peer.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let address = peer.local_addr().expect("its address");
    let sink = forward(ForwardProtocol::Udp, &address.to_string());
    let mut buffer = vec![0; 70_000];
    for record in [RECORD.to_owned(), format!("{RECORD}\n"), "x".repeat(65_507)] {
        sink.deliver(&task(&record), in_time()).expect("handed over");
        let n = peer.recv(&mut buffer).expect("a datagram");
        assert_eq!(&buffer[..n], record.as_bytes());
    }
    let error = sink.deliver(&task(&"x".repeat(65_508)), in_time()).expect_err("too large");
    assert_eq!(error.class, Class::Permanent);
    assert!(error.message().contains("65508 bytes"), "{error}");
    // Nobody there is nobody's fault, and a peer that comes back gets what is sent from then on.
    drop(peer);
    sink.deliver(&task(RECORD), in_time()).expect("handed over");
    sink.deliver(&task(RECORD), in_time()).expect("handed over");
    let peer = UdpSocket::bind(address).expect("the same port");
    peer.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    sink.deliver(&task("again"), in_time()).expect("handed over");
    let n = peer.recv(&mut buffer).expect("a datagram");
    assert_eq!(&buffer[..n], b"again");
    assert_eq!(
        sink.deliver_text(TaskId::from_bits(1), "x", in_time()).expect_err("no texts").class,
        Class::Permanent
    );
}

#[test]
fn udp_by_name_and_over_ipv6() {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a port");
    peer.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let port = peer.local_addr().expect("its address").port();
    forward(ForwardProtocol::Udp, &format!("localhost:{port}"))
        .deliver(&task("a"), in_time())
        .expect("handed over");
    assert_eq!(peer.recv(&mut [0; 9]).expect("a datagram"), 1);
    let missing = forward(ForwardProtocol::Udp, "no-such-host.invalid:1");
    assert_eq!(missing.deliver(&task("a"), in_time()).expect_err("no address").class, Class::Transient);
    // Machines without IPv6 have nothing to test here.
    if let Ok(peer) = UdpSocket::bind("[::1]:0") {
        peer.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let address = peer.local_addr().expect("its address").to_string();
        forward(ForwardProtocol::Udp, &address).deliver(&task("b"), in_time()).expect("handed over");
        assert_eq!(peer.recv(&mut [0; 9]).expect("a datagram"), 1);
    }
}

#[test]
fn tcp_writes_lines_on_one_kept_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let sink = forward(ForwardProtocol::Tcp, &listener.local_addr().expect("its address").to_string());
    sink.deliver(&task("{\"a\":1}"), in_time()).expect("written");
    let mut peer = accept(&listener);
    sink.deliver(&task("{\"a\":\n\r\n 2}\r\n"), in_time()).expect("written");
    // A peer that talks back does no harm.
    peer.get_mut().write_all(b"thanks\n").expect("written");
    sink.deliver(&task("{\"a\":3}"), in_time()).expect("written");
    assert_eq!(line(&mut peer), "{\"a\":1}\n");
    assert_eq!(line(&mut peer), "{\"a\":    2}\n");
    assert_eq!(line(&mut peer), "{\"a\":3}\n");
}

#[test]
fn a_tcp_peer_that_restarts_is_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let sink = forward(ForwardProtocol::Tcp, &address.to_string());
    sink.deliver(&task("1"), in_time()).expect("written");
    let mut peer = accept(&listener);
    assert_eq!(line(&mut peer), "1\n");
    drop(peer);
    // The old connection is noticed to be closed before anything is written to it.
    sink.deliver(&task("2"), in_time()).expect("written to a new connection");
    let mut peer = accept(&listener);
    assert_eq!(line(&mut peer), "2\n");
    drop(peer);
    drop(listener);
    let error = sink.deliver(&task("3"), in_time()).expect_err("nobody there");
    assert_eq!(error.class, Class::Transient);
    let listener = TcpListener::bind(address).expect("the same port");
    sink.deliver(&task("3"), in_time()).expect("written");
    assert_eq!(line(&mut accept(&listener)), "3\n");
}

#[test]
fn a_tcp_peer_that_takes_nothing_ends_the_attempt_and_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let sink = forward(ForwardProtocol::Tcp, &listener.local_addr().expect("its address").to_string());
    let huge = "x".repeat(16 << 20);
    let error = sink.deliver(&task(&huge), clock::now() + Duration::from_millis(300)).expect_err("not taken");
    assert_eq!(error.class, Class::Transient);
    // The rest of the cut line never comes: the next one is on a connection of its own.
    sink.deliver(&task("next"), in_time()).expect("written");
    let _cut = accept(&listener);
    assert_eq!(line(&mut accept(&listener)), "next\n");
    sink.abort();
}

#[test]
fn unix_streams_work_alike() {
    let path = socket_path("forward");
    let sink = forward(ForwardProtocol::Unix, &path.display().to_string());
    assert_eq!(sink.deliver(&task("0"), in_time()).expect_err("nobody there").class, Class::Transient);
    let listener = UnixListener::bind(&path).expect("a socket");
    let take = |listener: &UnixListener| -> UnixStream {
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    };
    sink.deliver(&task("1"), in_time()).expect("written");
    sink.deliver(&task("2"), in_time()).expect("written");
    let mut peer = take(&listener);
    assert_eq!(line(&mut peer), "1\n");
    assert_eq!(line(&mut peer), "2\n");
    drop((peer, listener));
    std::fs::remove_file(&path).expect("removed");
    let listener = UnixListener::bind(&path).expect("a socket");
    sink.deliver(&task("3"), in_time()).expect("written");
    let mut peer = take(&listener);
    assert_eq!(line(&mut peer), "3\n");
    let error = sink
        .deliver(&task(&"x".repeat(8 << 20)), clock::now() + Duration::from_millis(300))
        .expect_err("not taken");
    assert_eq!(error.class, Class::Transient);
    sink.abort();
    std::fs::remove_file(&path).expect("removed");
    let bad = forward(ForwardProtocol::Unix, &"x".repeat(4096));
    assert_eq!(bad.deliver(&task("1"), in_time()).expect_err("no such path").class, Class::Transient);
}

#[test]
fn http_posts_the_record() {
    let server = HttpServer::start(Reply::status(202));
    let sink = forward(ForwardProtocol::Http, &server.url("/in"));
    let t = crate::side_effect::Task { attempts_made: 2, ..task(RECORD) };
    sink.deliver(&t, in_time()).expect("taken");
    let r = server.wait_for(1).remove(0);
    assert_eq!(r.header("x-delivery-attempt"), Some("3"));
    assert_eq!((r.method.as_str(), r.target.as_str(), r.text().as_str()), ("POST", "/in", RECORD));
    assert_eq!(r.header("idempotency-key"), Some(&*t.id.to_string()));
    assert_eq!(r.header("content-type"), Some("application/json"));
    server.always(Reply::status(503));
    assert_eq!(sink.deliver(&t, in_time()).expect_err("not taken").status, Some(503));
    sink.abort();
}
