//! Runs against receivers that behave well, badly and not at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::sync::atomic::AtomicU64;

use super::*;

/// A receiver on a port of 127.0.0.1; its threads end with the test program.
fn tcp_server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let serve = Arc::new(serve);
    threads::spawn("server", move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            threads::spawn("connection", move || serve(stream)).expect("a thread");
        }
    })
    .expect("a thread");
    address
}

/// Answers each request, told by the end of its head, with these bytes; empty closes instead.
fn answering(answer: &'static [u8]) -> SocketAddr {
    tcp_server(move |mut stream| {
        let (mut seen, mut chunk) = (Vec::new(), [0; 8192]);
        loop {
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(n) => seen.extend_from_slice(&chunk[..n]),
            }
            while let Some(end) = whole_request(&seen) {
                seen.drain(..end);
                if answer.is_empty() || stream.write_all(answer).is_err() {
                    return;
                }
            }
        }
    })
}

fn whole_request(bytes: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes);
    let head = text.find("\r\n\r\n")? + 4;
    let length =
        text[..head].split("Content-Length: ").nth(1)?.split("\r\n").next()?.parse::<usize>().ok()?;
    (bytes.len() >= head + length).then_some(head + length)
}

/// Counts the lines that it reads.
fn counting_lines() -> (SocketAddr, Arc<AtomicU64>) {
    let lines = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lines);
    let address = tcp_server(move |stream| count_lines(stream, &count));
    (address, lines)
}

fn count_lines(mut stream: impl Read, count: &AtomicU64) {
    let mut chunk = vec![0; 64 << 10];
    while let Ok(n) = stream.read(&mut chunk) {
        if n == 0 {
            return;
        }
        count.fetch_add(memchr::memchr_iter(b'\n', &chunk[..n]).count() as u64, Ordering::SeqCst);
    }
}

fn http(address: SocketAddr) -> Target {
    Target::Http { address, host: address.to_string(), path: "/v1/audit".into() }
}

fn plan(target: Target, rate_per_s: u64, connections: u32, duration_ms: u64) -> Plan {
    let duration = Duration::from_millis(duration_ms);
    Plan { target, tls: None, rate_per_s, connections, duration, timeout: Duration::from_millis(300) }
}

fn run(plan: &Plan) -> Outcome {
    let messages = Messages::of(&Records::samples(), &plan.target, None);
    Run::start(plan, messages).expect("connected").finish()
}

#[track_caller]
fn reaches(count: &AtomicU64, wanted: u64) {
    let deadline = clock::now() + Duration::from_secs(30);
    while count.load(Ordering::SeqCst) < wanted && clock::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(count.load(Ordering::SeqCst), wanted);
}

#[test]
fn every_due_request_is_sent_and_its_answer_counted() {
    let address = answering(b"HTTP/1.1 204 No Content\r\n\r\n");
    let outcome = run(&plan(http(address), 400, 3, 500));
    let books = &outcome.books;
    assert_eq!(outcome.sent + outcome.unsent, 200);
    assert_eq!(books.statuses.get(&204), Some(&outcome.sent));
    assert_eq!((books.latency.len(), books.late.len()), (outcome.sent, outcome.sent));
    assert!(books.errors.is_empty() && !outcome.stopped && outcome.elapsed >= Duration::from_millis(500));
    assert!(outcome.sent_bytes > outcome.sent * 1500);
}

#[test]
fn answers_other_than_2xx_are_counted_by_status_and_connections_are_made_anew() {
    let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull";
    let closing = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n";
    for answer in [&refusal[..], &closing[..], &interim[..]] {
        let outcome = run(&plan(http(answering(answer)), 200, 2, 300));
        assert_eq!(outcome.sent + outcome.unsent, 60);
        assert_eq!(outcome.books.statuses, [(503, outcome.sent)].into());
        assert!(outcome.books.errors.is_empty(), "{:?}", outcome.books.errors);
    }
}

#[test]
fn connections_that_break_are_errors_and_the_run_goes_on() {
    let outcome = run(&plan(http(answering(b"")), 200, 2, 300));
    let closed = outcome.books.errors.get("connection closed").copied().unwrap_or_default();
    assert_eq!(closed + outcome.unsent, 60, "{:?}", outcome.books.errors);
    assert!(outcome.books.latency.is_empty() && outcome.books.statuses.is_empty());

    let outcome = run(&plan(http(answering(b"220 smtp.example\r\n\r\n")), 100, 1, 200));
    assert!(outcome.books.errors.contains_key("an answer that is not HTTP"), "{:?}", outcome.books.errors);
}

#[test]
fn as_fast_as_it_goes_waits_for_each_answer_and_backs_off_from_errors() {
    let outcome = run(&plan(http(answering(b"HTTP/1.1 204 No Content\r\n\r\n")), 0, 2, 200));
    assert!(outcome.sent > 2 && outcome.unsent == 0);
    assert_eq!(outcome.books.statuses, [(204, outcome.sent)].into());
    assert!(outcome.books.late.is_empty());
    let outcome = run(&plan(http(answering(b"")), 0, 1, 200));
    // 1, 2, 4, ... 64 ms: a handful of tries, not thousands.
    let closed = outcome.books.errors["connection closed"];
    assert!((1..=9).contains(&closed), "{closed}");
}

#[test]
fn a_receiver_that_hangs_ends_the_run_in_bounded_time() {
    let hung = tcp_server(|stream| {
        std::thread::sleep(Duration::from_secs(600));
        drop(stream);
    });
    let outcome = run(&plan(http(hung), 1000, 2, 200));
    let hangs = outcome.books.errors["no answer in time"];
    assert_eq!((outcome.sent, hangs), (2, 2), "one request for each connection");
    assert_eq!(outcome.unsent, 198, "what was due meanwhile could not be sent");
    // Streams: the kernel's buffers fill, then nothing is taken any more.
    let outcome = run(&plan(Target::Tcp(hung), 0, 1, 200));
    assert!(outcome.sent > 0);
    assert!(outcome.books.errors["the receiver took nothing for too long"] >= 1);
}

#[test]
fn lines_arrive_whole_and_are_counted() {
    let (address, lines) = counting_lines();
    let outcome = run(&plan(Target::Tcp(address), 2000, 3, 300));
    assert_eq!(outcome.sent + outcome.unsent, 600);
    reaches(&lines, outcome.sent);
    assert_eq!(outcome.books.latency.len(), outcome.sent);

    let (address, lines) = counting_lines();
    let outcome = run(&plan(Target::Tcp(address), 0, 2, 200));
    assert!(outcome.sent > 100 && outcome.books.errors.is_empty());
    reaches(&lines, outcome.sent);

    let path = std::env::temp_dir().join(format!("vaf-load-lines-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).expect("bound");
    let lines = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lines);
    threads::spawn("server", move || {
        listener.incoming().flatten().for_each(|stream| count_lines(stream, &count));
    })
    .expect("a thread");
    let outcome = run(&plan(Target::Unix(path.clone()), 500, 1, 200));
    reaches(&lines, outcome.sent);
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn a_stream_that_is_cut_is_made_anew() {
    let address = tcp_server(|mut stream| {
        let mut some = [0; 5000];
        let _ = stream.read_exact(&mut some);
    });
    let outcome = run(&plan(Target::Tcp(address), 0, 1, 200));
    assert!(outcome.books.errors["connection closed"] >= 1, "{:?}", outcome.books.errors);
    assert!(outcome.sent >= 1);
}

#[test]
fn datagrams_arrive_one_a_record() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    let target = Target::Udp(address);
    let outcome = run(&plan(target.clone(), 100, 2, 200));
    assert_eq!(outcome.sent + outcome.unsent, 20);
    socket.set_nonblocking(true).expect("nonblocking");
    let mut buffer = [0; 4096];
    let mut seen = 0;
    while let Ok(n) = socket.recv(&mut buffer) {
        assert!(serde_json::from_slice::<serde_json::Value>(&buffer[..n]).is_ok());
        seen += 1;
    }
    assert_eq!(seen, outcome.sent);
    drop(socket);
    let outcome = run(&plan(target, 100, 1, 200));
    assert!(outcome.books.errors["connection refused"] >= 1, "{:?}", outcome.books.errors);
    assert!(outcome.sent < 20);
}

#[test]
fn nobody_there_is_an_error_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    for target in [http(address), Target::Tcp(address), Target::Unix("/nowhere/at.sock".into())] {
        let messages = Messages::of(&Records::samples(), &target, None);
        assert!(Run::start(&plan(target, 1, 1, 100), messages).is_err());
    }
}

#[test]
fn a_run_can_be_ended_early() {
    let (address, lines) = counting_lines();
    for target in [Target::Tcp(address), http(answering(b"HTTP/1.1 204 No Content\r\n\r\n"))] {
        let plan = plan(target, 100, 2, 3_600_000);
        let messages = Messages::of(&Records::samples(), &plan.target, None);
        let run = Run::start(&plan, messages).expect("connected");
        while run.tally().sent() < 10 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!run.is_over() && run.elapsed() < run.duration());
        run.stop();
        let outcome = run.finish();
        assert!(outcome.stopped && outcome.sent >= 10 && outcome.unsent == 0);
        assert!(outcome.elapsed < plan.duration && outcome.elapsed > Duration::ZERO);
    }
    assert!(lines.load(Ordering::SeqCst) > 0);
}
