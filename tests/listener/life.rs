//! Binding, caps, running out of file descriptors, shutdown.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use vault_audit_filter::listener::{Endpoint, Listener, Pool, Source, bind_tcp, bind_udp, bind_unix};
use vault_audit_filter::metrics::Registry;

use crate::files::Folder;
use crate::harness::*;

#[test]
fn a_newcomer_gets_the_place_of_the_longest_idle() {
    let mut limits = limits();
    limits.connections_max = 4;
    let server = server_with(options(limits));
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.exchange(&post("/", b"")).status, 204);
        std::thread::sleep(Duration::from_millis(5));
    }
    // The first one has been active since.
    assert_eq!(clients[0].exchange(&post("/", b"")).status, 204);
    std::thread::sleep(Duration::from_millis(5));
    let mut newcomer = server.client();
    assert_eq!(newcomer.exchange(&post("/new", b"")).status, 204);
    clients[1].assert_closed();
    for at in [0, 2, 3] {
        assert_eq!(clients[at].exchange(&post("/", b"")).status, 204);
    }
    assert_eq!(server.metric("connections_closed_total{listener=\"http\",reason=\"evicted\"}"), 1);
    assert_eq!(server.pool.connections(), 4);
}

/// Many come within one millisecond: the clock cannot tell them apart, and the last ones are let in all the same.
#[test]
fn of_a_crowd_the_last_to_come_stay() {
    let mut limits = limits();
    limits.connections_max = 4;
    let server = server_with(options(limits));
    let mut crowd: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut crowd[..96] {
        client.assert_closed();
    }
    for client in &mut crowd[96..] {
        assert_eq!(client.exchange(&post("/", b"")).status, 204);
    }
    assert_eq!(server.metric("connections_closed_total{listener=\"http\",reason=\"evicted\"}"), 96);
}

#[test]
fn nobody_within_a_request_is_evicted() {
    let mut limits = limits();
    limits.connections_max = 2;
    let server = server_with(options(limits));
    let mut busy: Vec<Client> = (0..2).map(|_| server.client()).collect();
    for client in &mut busy {
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{");
    }
    until("two buffers", || server.metric("buffered_bytes") > 90);
    let mut newcomer = server.client();
    newcomer.assert_closed();
    assert_eq!(server.metric("connections_closed_total{listener=\"http\",reason=\"connections_max\"}"), 1);
    for client in &mut busy {
        assert_eq!(client.exchange(b"}").status, 204);
    }
    server.assert_alive();
}

/// A server in a process of its own: its address on standard output, its metrics there at the end of standard input.
#[allow(clippy::print_stdout, reason = "the other process reads it")]
fn serve_alone() {
    let server = server();
    println!("ADDRESS {}", server.http);
    while std::io::stdin().read(&mut [0]).unwrap() > 0 {}
    println!("{}", server.registry.render());
}

#[test]
#[ignore = "run by out_of_file_descriptors"]
fn alone_with_few_file_descriptors() {
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
    serve_alone();
}

#[test]
#[ignore = "run by a_thousand_idle_connections_cost_little_memory"]
fn alone() {
    serve_alone();
}

struct Alone {
    process: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Alone {
    fn start(test: &str) -> Alone {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let text = read_until(&mut output, "ADDRESS ");
        let address = text.trim().rsplit(' ').next().unwrap().parse().unwrap();
        Alone { process, output, address }
    }

    fn client(&self) -> Client {
        Client::new(connect(self.address))
    }

    fn resident_bytes(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Ends it in peace; its metrics.
    fn end(mut self) -> String {
        drop(self.process.stdin.take());
        let metrics = read_until(&mut self.output, "test result");
        assert!(self.process.wait().unwrap().success());
        metrics
    }
}

fn read_until(from: &mut impl Read, mark: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).contains(mark) || byte != *b"\n" {
        assert_eq!(from.read(&mut byte).unwrap(), 1, "ended within {:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn out_of_file_descriptors() {
    let alone = Alone::start("life::alone_with_few_file_descriptors");
    let mut crowd: Vec<TcpStream> = (0..70).map(|_| connect(alone.address)).collect();
    // More than it can hold, and it goes on: the idle ones give way one after the other.
    for _ in 0..3 {
        assert_eq!(alone.client().exchange(&post("/", b"{}")).status, 204);
    }
    let mut closed = 0;
    for stream in &mut crowd {
        stream.set_nonblocking(true).unwrap();
        closed += usize::from(matches!(stream.read(&mut [0; 1]), Ok(0)));
    }
    assert!(closed > 5, "{closed}");
    drop(crowd);
    assert_eq!(alone.client().exchange(&post("/", b"{}")).status, 204);
    let text = alone.end();
    assert!(metric(&text, "accept_errors_total{listener=\"http\"}") > 0, "{text}");
    assert!(metric(&text, "connections_closed_total{listener=\"http\",reason=\"evicted\"}") > 0, "{text}");
}

#[test]
#[allow(clippy::print_stdout, reason = "a figure to know")]
fn a_thousand_idle_connections_cost_little_memory() {
    let alone = Alone::start("life::alone");
    let warm = |clients: &mut [Client]| {
        for client in clients {
            assert_eq!(client.exchange(&post("/", b"")).status, 204);
        }
    };
    // The first hundred pay for what is allocated once.
    let mut first: Vec<Client> = (0..100).map(|_| alone.client()).collect();
    warm(&mut first);
    let before = alone.resident_bytes();
    let mut clients: Vec<Client> = (0..900).map(|_| alone.client()).collect();
    warm(&mut clients);
    let each = alone.resident_bytes().saturating_sub(before) / 900;
    println!("{each} bytes of memory for each idle connection");
    // With what the recording service keeps of each request.
    assert!(each < 1024, "{each} bytes");
    let text = alone.end();
    assert_eq!(metric(&text, "connections{listener=\"http\"}"), 1000);
    assert_eq!(metric(&text, "buffered_bytes"), 0);
}

#[test]
fn a_drain_answers_with_close_and_then_refuses() {
    let server = server();
    let mut kept = server.client();
    assert_eq!(kept.exchange(&post("/", b"")).status, 204);
    let mut busy = server.client();
    server.service.gate.shut();
    busy.send(&post("/gate", b"{}"));
    until("a request in flight", || server.service.gate.waiting.load(Ordering::SeqCst) == 1);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| server.pool.drain(PATIENCE));
        until("the end of accepting", || TcpStream::connect(server.http).is_err());
        // The stage follows at once; a request may still slip in before it.
        until("an answer that closes", || {
            let answer = kept.exchange(&post("/late", b"{}"));
            assert_eq!(answer.status, 204);
            answer.closes()
        });
        kept.assert_closed();
        server.service.gate.open();
        let answer = busy.answer();
        assert_eq!((answer.status, answer.closes()), (204, true));
        busy.assert_closed();
        assert_eq!(drained.join().unwrap().in_flight, 0);
    });
    assert_eq!(server.pool.connections(), 0);
    server.pool.join();
}

#[test]
fn a_drain_reads_streams_until_they_are_quiet_and_resets_them() {
    let server = server();
    let mut sender = connect(server.tcp);
    sender.write_all(b"one\n").unwrap();
    until("the line", || server.service.count() == 1);
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| server.pool.drain(PATIENCE));
        until("the end of accepting", || TcpStream::connect(server.tcp).is_err());
        sender.write_all(b"two\n").unwrap();
        assert_eq!(drained.join().unwrap().in_flight, 0);
    });
    assert_eq!(server.service.lines(), [b"one".to_vec(), b"two".to_vec()]);
    // A reset: the next write fails, so that its sender sends the line again elsewhere.
    let end = sender.write_all(b"three\n").map_err(|e| e.kind());
    assert!(matches!(end, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{end:?}");
    assert_eq!(server.metric("connections_closed_total{listener=\"tcp\",reason=\"shutdown\"}"), 1);
}

#[test]
fn a_drain_does_not_wait_longer_than_it_may() {
    let server = server();
    let mut half = server.client();
    half.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n{");
    until("a buffer", || server.metric("buffered_bytes") > 0);
    let mut parked = connect(server.tcp);
    parked.write_all(b"park\nbehind").unwrap();
    let tickets = server.service.wait_for_tickets(1);
    let drained = server.pool.drain(Duration::from_millis(100));
    assert_eq!(drained.in_flight, 2);
    server.pool.join();
    half.assert_closed();
    assert_eq!(server.pool.connections(), 0);
    assert_eq!(server.metric("buffered_bytes"), 0);
    // What stood behind the parked line is counted as lost.
    assert!(server.service.seen().contains(&Seen::Truncated(6)), "{:?}", server.service.seen());
    drop(tickets);
}

#[test]
fn threads_beat_and_end() {
    let mut options = options(limits());
    options.threads = 3;
    let server = server_with(options);
    let beats = server.pool.heartbeats();
    let names: Vec<&str> = beats.iter().map(|b| b.thread.as_str()).collect();
    assert_eq!(names, ["ingest-0", "ingest-1", "ingest-2"]);
    let first: Vec<u64> = beats.iter().map(|b| b.count()).collect();
    until("a beat of each", || beats.iter().zip(&first).all(|(b, first)| b.count() > *first));
    server.pool.join();
    let last: Vec<u64> = beats.iter().map(|b| b.count()).collect();
    server.pool.join();
    assert_eq!(beats.iter().map(|b| b.count()).collect::<Vec<_>>(), last);
    assert!(format!("{:?}", server.pool).contains("0 connections"));
}

#[test]
fn binding_says_what_is_wrong_and_what_to_do() {
    let taken = bind_tcp("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (outcome, words) in [
        (bind_tcp(&address).map(drop), vec![address.as_str(), "another program", "choose another port"]),
        (bind_tcp("192.0.2.1:1270").map(drop), vec!["192.0.2.1:1270", "no such address"]),
        (bind_tcp("1270").map(drop), vec!["1270", "HOST:PORT"]),
        (bind_udp("192.0.2.1:1269").map(drop), vec!["192.0.2.1:1269", "no such address"]),
        (bind_udp("nonsense").map(drop), vec!["nonsense", "check the address"]),
    ] {
        let text = outcome.unwrap_err().to_string();
        assert!(words.iter().all(|w| text.contains(w)), "{text}");
    }
    let service = Arc::new(Recorder::default());
    let endpoint = Endpoint::new(Source::Udp, Listener::Tcp(taken));
    let refused = Pool::start(service, vec![endpoint], options(limits()), &Registry::new());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn unix_socket_files_are_replaced_only_when_stale() {
    let folder = Folder::new("sockets");
    let path = folder.path().join("s");
    // Left by a process that died: the file stays, nobody answers.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = bind_unix(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = bind_unix(&path).unwrap_err().to_string();
    assert!(text.contains("another process answers") && text.contains("choose another path"), "{text}");
    drop(listener);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(bind_unix(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let missing = bind_unix(&folder.path().join("no/s")).unwrap_err().to_string();
    assert!(missing.contains("directory must exist"), "{missing}");
    // A file that another process has put in our place is not ours to remove.
    let other = folder.path().join("o");
    let listener = bind_unix(&other).unwrap();
    std::fs::remove_file(&other).unwrap();
    std::fs::write(&other, "new").unwrap();
    drop(listener);
    assert!(other.exists());
}
