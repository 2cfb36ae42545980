//! Peers that are slow, hostile, or speak something else: they cost little, are counted, and harm nobody else.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::{AlertDescription, Error};

use super::{StopAtEnd, client_settings, connect, handshake, post, raw, session, start};
use crate::harness::{Daemon, HTTP_ONLY, entry};
use crate::support::http::Client;
use crate::support::wait_until;

/// How many connections of the HTTP listener were closed for that reason.
fn closed(daemon: &Daemon, reason: &str) -> f64 {
    daemon.metric(&format!("connections_closed_total{{listener=\"http\",reason=\"{reason}\"}}"))
}

/// The first flight of a client.
fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    session(&client_settings(&rustls::version::TLS13, &["http/1.1"])).write_tls(&mut bytes).expect("a hello");
    bytes
}

/// Everything until the other side closes.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return bytes,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return bytes,
            Err(e) => panic!("the connection is not closed: {e}"),
        }
    }
}

#[track_caller]
fn check_unharmed(daemon: &mut Daemon) {
    post(&mut connect(daemon.http()), &entry("after", "read", "a"));
    assert!(daemon.is_alive());
    assert_eq!(daemon.sum("service_panics_total"), 0.0);
    wait_until("nothing is held", || daemon.metric("buffered_bytes") == 0.0);
}

#[test]
fn whoever_stops_within_the_handshake_is_closed_in_time() {
    let mut daemon = start("limits: { head_timeout: 500ms }\n");
    let hello = hello();
    let mut streams: Vec<TcpStream> = Vec::new();
    for part in [0, 1, 5, 50, hello.len() - 1, hello.len()] {
        let mut stream = raw(daemon.http());
        stream.write_all(&hello[..part]).expect("sent");
        streams.push(stream);
    }
    wait_until("a part of a handshake is held", || daemon.metric("buffered_bytes") > 0.0);
    for (n, stream) in streams.iter_mut().enumerate() {
        let answer = read_all(stream);
        // Only who has sent a whole flight gets one.
        assert_eq!(!answer.is_empty(), n == 5, "{n}: {answer:?}");
    }
    assert_eq!(closed(&daemon, "head_timeout"), 6.0);
    // Half a record within a session is half a head.
    let mut client = connect(daemon.http());
    client.stream_mut().sock.write_all(b"\x17\x03\x03\x01\x00abc").expect("sent");
    assert_eq!(client.read_answer().expect("an answer").status, 408);
    // It is answered, and then closed and counted.
    wait_until("it is counted", || closed(&daemon, "head_timeout") == 7.0);
    check_unharmed(&mut daemon);
}

/// A socket to which bytes go one at a time.
#[derive(Debug)]
struct Drip(TcpStream);

impl Read for Drip {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Drip {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(&buf[..buf.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let mut daemon = start("");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let settings = client_settings(version, &["http/1.1"]);
        let mut client = handshake(&settings, Drip(raw(daemon.http()))).expect("a handshake");
        post(&mut client, &entry("drip", "read", "a"));
        post(&mut client, &entry("drop", "read", "a"));
    }
    assert_eq!(daemon.lines("everything.log").len(), 4);
    check_unharmed(&mut daemon);
}

#[test]
fn garbage_is_closed_and_counted_and_says_little() {
    let mut daemon = start("");
    let marked = |mut bytes: Vec<u8>| {
        bytes.extend_from_slice(b"MARK\n");
        bytes
    };
    let mut bad_name = hello();
    let at = bad_name.windows(9).position(|w| w == b"localhost").expect("the name in the hello");
    bad_name[at..at + 9].copy_from_slice(b"MARK\x01\x02\x03\x04\x05");
    let pieces: Vec<Vec<u8>> = vec![
        marked(b"\0\0\0".to_vec()),
        marked(b"\x16\x03\x01\x00\x05hello".to_vec()),
        marked(b"\x16\xff\xff\xff\xff".to_vec()),
        marked(b"\x16\x03\x01\x40\x01\x01\x00\x3f\xfd".to_vec()),
        marked(b"\x15\x03\x01\x00\x02\x02\x28".to_vec()),
        marked(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        // A handshake message of 16 MB, begun again and again.
        b"\x16\x03\x01\x10\x00\x01\xff\xff\xff"
            .iter()
            .copied()
            .chain([7; 4092])
            .cycle()
            .take(200_000)
            .collect(),
        // Records of nothing.
        b"\x16\x03\x01\x00\x00".repeat(20_000),
        (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect(),
        bad_name,
    ];
    for (n, bytes) in pieces.iter().enumerate() {
        let mut stream = raw(daemon.http());
        // It may be closed before all of it is sent.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = read_all(&mut stream);
        assert!(answer.len() < 4096, "{n}: {} bytes", answer.len());
    }
    wait_until("all are counted", || closed(&daemon, "tls") == pieces.len() as f64);
    // Garbage within a session that is established.
    let mut client = connect(daemon.http());
    post(&mut client, &entry("good", "read", "a"));
    client
        .stream_mut()
        .sock
        .write_all(b"\x17\x03\x03\x00\x20garbagegarbagegarbagegarbagegarb")
        .expect("sent");
    let error = client.read_answer().expect_err("an alert");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    wait_until("it is counted", || closed(&daemon, "tls") == pieces.len() as f64 + 1.0);
    check_unharmed(&mut daemon);
    let said = daemon.stderr();
    assert!(!said.contains("MARK") && !said.contains("SSH"), "{said}");
    let lines = said.lines().filter(|line| line.contains("TLS connection")).count();
    assert!((1..=3).contains(&lines), "{lines} lines: {said}");
    assert!(said.contains("with 127.0.0.1:"), "{said}");
}

#[test]
fn who_speaks_plain_http_is_told_so() {
    let mut daemon = start("");
    let body = "x".repeat(1 << 20);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    ] {
        let mut client = Client::connect(daemon.http()).expect("a connection");
        client.send_raw(request.as_bytes()).expect("sent");
        let answer = client.read_answer().expect("an answer");
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
        assert!(answer.text().contains("https://"), "{}", answer.text());
        assert!(client.is_closed());
    }
    assert_eq!(closed(&daemon, "tls"), 2.0);
    assert_eq!(daemon.metric(r#"http_requests_total{listener="http",status="400"}"#), 2.0);
    check_unharmed(&mut daemon);
    // The other way round.
    let plain = Daemon::start(HTTP_ONLY);
    let settings = client_settings(&rustls::version::TLS13, &[]);
    let error = handshake(&settings, raw(plain.http())).expect_err("no handshake");
    assert!(error.to_string().contains("corrupt message"), "{error}");
    assert_eq!(plain.metric(r#"http_requests_total{listener="http",status="400"}"#), 1.0);
}

#[test]
fn a_client_that_wants_another_protocol_is_refused() {
    let mut daemon = start("");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let error = handshake(&client_settings(version, &["h2"]), raw(daemon.http())).expect_err("refused");
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let wanted = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(inner, Some(&wanted), "{error}");
    }
    wait_until("both are counted", || closed(&daemon, "tls") == 2.0);
    check_unharmed(&mut daemon);
}

/// More handshakes than there may be connections, whole ones, halves and garbage, while a sender goes on over its connection and
/// another one is idle for longer than any of them.
#[test]
fn a_flood_of_handshakes_takes_nothing_from_a_sender() {
    let mut daemon = start("limits: { connections_max: 48, head_timeout: 60s }\n");
    let (port, hello, stop) = (daemon.http(), hello(), AtomicBool::new(false));
    let [mut idle, mut good] = [(); 2].map(|()| connect(port));
    post(&mut idle, &entry("before", "read", "a"));
    post(&mut good, &entry("before", "read", "a"));
    let threads = daemon.process("Threads");
    let mut acked = 2;
    std::thread::scope(|scope| {
        for kind in 0..4 {
            let (hello, stop) = (&hello, &stop);
            scope.spawn(move || {
                let settings = client_settings(&rustls::version::TLS13, &[]);
                let mut held = std::collections::VecDeque::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = raw(port);
                    // The program may close any of them for a newcomer.
                    let _ = match kind {
                        0 => stream.write_all(&hello[..hello.len() / 2]),
                        1 => stream.write_all(hello),
                        2 => stream.write_all(b"\x16\x03\x01garbage"),
                        _ => handshake(&settings, stream.try_clone().expect("a second handle")).map(drop),
                    };
                    if kind != 3 {
                        held.push_back(stream);
                    }
                    if held.len() > 60 {
                        held.pop_front();
                    }
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        // These stay: there are more than there may be, even where the program accepts others only after they have gone.
        let mut crowd: Vec<TcpStream> = (0..60).map(|_| raw(port)).collect();
        for stream in &mut crowd {
            let _ = stream.write_all(&hello[..hello.len() / 2]);
        }
        let until = Instant::now() + Duration::from_secs(60);
        for n in 0.. {
            if n >= 300 && n % 50 == 0 && (closed(&daemon, "evicted") > 0.0 || Instant::now() > until) {
                break;
            }
            post(&mut good, &entry(&format!("good-{n}"), "read", "a"));
            acked += 1;
            // A sender has pauses, in which its connection is idle.
            std::thread::sleep(Duration::from_millis(2));
        }
        post(&mut idle, &entry("after", "read", "a"));
        acked += 1;
    });
    assert_eq!(daemon.lines("everything.log").len(), acked);
    assert!(closed(&daemon, "evicted") > 0.0, "there were more than may be");
    // On a slow disk each log file gets a thread for what waits for it.
    assert!(daemon.process("Threads") <= threads + 2, "threads");
    check_unharmed(&mut daemon);
}
