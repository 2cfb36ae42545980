//! A pool with a service that remembers what it was given, and clients that wait with a deadline.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use vault_audit_filter::clock;
use vault_audit_filter::config::Limits;
use vault_audit_filter::listener::http::{Request, Response};
use vault_audit_filter::listener::{
    BadFrame, Endpoint, LineReply, Listener, Park, Pool, PoolOptions, Reply, Service, Source, bind_tcp,
};
use vault_audit_filter::metrics::Registry;
use vault_audit_filter::ticket::Ticket;

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the service was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Request { method: String, path: String, query: String, body: Vec<u8> },
    Refused(u16),
    Line(Vec<u8>),
    Datagram(Vec<u8>),
    Oversize(Vec<u8>),
    Truncated(u64),
    Cut(usize),
}

/// A door that calls wait at while it is shut.
#[derive(Default)]
pub struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
    pub waiting: AtomicUsize,
}

impl Gate {
    pub fn shut(&self) {
        *self.shut.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.shut.lock().unwrap() = false;
        self.changed.notify_all();
    }

    pub fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let shut = self.shut.lock().unwrap();
        drop(self.changed.wait_timeout_while(shut, PATIENCE, |shut| *shut).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Does what the path of a request, or a line, says.
#[derive(Default)]
pub struct Recorder {
    pub seen: Mutex<Vec<Seen>>,
    pub tickets: Mutex<Vec<Ticket>>,
    pub gate: Gate,
    /// Count only: for tests that send very much.
    pub forgetful: AtomicBool,
    pub count: AtomicUsize,
}

impl Recorder {
    fn note(&self, seen: Seen) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if !self.forgetful.load(Ordering::SeqCst) {
            self.seen.lock().unwrap().push(seen);
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub fn lines(&self) -> Vec<Vec<u8>> {
        let line = |s| if let Seen::Line(l) = s { Some(l) } else { None };
        self.seen().into_iter().filter_map(line).collect()
    }

    pub fn requests(&self) -> Vec<(String, Vec<u8>)> {
        let request = |s| if let Seen::Request { path, body, .. } = s { Some((path, body)) } else { None };
        self.seen().into_iter().filter_map(request).collect()
    }

    pub fn wait_for_tickets(&self, n: usize) -> Vec<Ticket> {
        until("tickets", || self.tickets.lock().unwrap().len() >= n);
        std::mem::take(&mut *self.tickets.lock().unwrap())
    }
}

impl Service for Recorder {
    type Worker = Vec<u8>;

    fn worker(&self) -> Vec<u8> {
        Vec::new()
    }

    fn http(&self, _: Source, request: &Request<'_>, _: &mut Vec<u8>, park: &dyn Park) -> Reply {
        self.note(Seen::Request {
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            query: request.query.to_owned(),
            body: request.body.to_vec(),
        });
        match request.path {
            "/panic" => panic!("as asked\u{7}"),
            "/gate" => self.gate.pass(),
            "/park" => {
                self.tickets.lock().unwrap().push(park.ticket(204));
                return Reply::Parked;
            }
            "/park-twice" => {
                let mut tickets = self.tickets.lock().unwrap();
                tickets.extend([park.ticket(202), park.ticket(204)]);
                return Reply::Parked;
            }
            "/park-and-drop" => {
                drop(park.ticket(202));
                return Reply::Parked;
            }
            "/park-and-panic" => {
                self.tickets.lock().unwrap().push(park.ticket(204));
                panic!("with a ticket out");
            }
            "/park-and-answer" => drop(park.ticket(202)),
            "/park-without-ticket" => return Reply::Parked,
            "/big" => {
                let len = request.query.parse().unwrap();
                return Reply::Now(Response::text(200, "b".repeat(len)));
            }
            "/close" => return Reply::Now(Response { close: true, ..Response::empty(204) }),
            _ => {}
        }
        Reply::Now(match request.method {
            "POST" => Response::empty(204),
            "GET" | "HEAD" if request.path == "/text" => Response::text(200, "hello\n"),
            _ => Response { headers: &[("Allow", "POST")], ..Response::text(405, "POST\n") },
        })
    }

    fn http_refused(&self, _: Source, status: u16) {
        self.note(Seen::Refused(status));
    }

    fn lines(&self, _: Source, frames: &[&[u8]], _: &mut Vec<u8>, park: &dyn Park) -> LineReply {
        let mut reply = LineReply::Continue;
        for frame in frames {
            self.note(Seen::Line(frame.to_vec()));
            match *frame {
                b"panic" => panic!("as asked"),
                b"gate" => self.gate.pass(),
                b"park" => {
                    self.tickets.lock().unwrap().push(park.ticket(0));
                    reply = LineReply::Parked;
                }
                b"park-and-drop" => {
                    drop(park.ticket(0));
                    reply = LineReply::Parked;
                }
                b"park-and-go-on" => self.tickets.lock().unwrap().push(park.ticket(0)),
                _ => {}
            }
        }
        reply
    }

    fn datagrams(&self, frames: &[&[u8]], _: &mut Vec<u8>) {
        for frame in frames {
            if *frame == b"panic" {
                panic!("as asked");
            }
            if *frame == b"gate" {
                self.gate.pass();
            }
            self.note(Seen::Datagram(frame.to_vec()));
        }
    }

    fn bad_frame(&self, _: Source, bad: BadFrame<'_>, _: &mut Vec<u8>) {
        self.note(match bad {
            BadFrame::Oversize(head) => Seen::Oversize(head.to_vec()),
            BadFrame::Truncated(bytes) => Seen::Truncated(bytes),
            BadFrame::CutDatagram(head) => Seen::Cut(head.len()),
        });
    }
}

/// A running pool.
pub struct Server {
    pub service: Arc<Recorder>,
    pub pool: Pool<Recorder>,
    pub registry: Registry,
    pub http: SocketAddr,
    pub tcp: SocketAddr,
}

/// Limits with which nothing times out by accident.
pub fn limits() -> Limits {
    Limits {
        head_timeout: PATIENCE * 4,
        body_timeout: PATIENCE * 4,
        write_timeout: PATIENCE * 4,
        ..Limits::default()
    }
}

pub fn options(limits: Limits) -> PoolOptions {
    PoolOptions { threads: 2, ..PoolOptions::new(limits) }
}

pub fn server() -> Server {
    server_with(options(limits()))
}

pub fn server_with(options: PoolOptions) -> Server {
    let bind = || bind_tcp("127.0.0.1:0").unwrap();
    let (http, tcp): (TcpListener, TcpListener) = (bind(), bind());
    let addresses = (http.local_addr().unwrap(), tcp.local_addr().unwrap());
    let endpoints = vec![
        Endpoint::new(Source::Http, Listener::Tcp(http)),
        Endpoint::new(Source::Tcp, Listener::Tcp(tcp)),
    ];
    let service = Arc::new(Recorder::default());
    let registry = Registry::new();
    let pool = Pool::start(Arc::clone(&service), endpoints, options, &registry).unwrap();
    Server { service, pool, registry, http: addresses.0, tcp: addresses.1 }
}

impl Server {
    pub fn client(&self) -> Client {
        Client::new(connect(self.http))
    }

    /// A well-behaved client is served, on a connection of its own.
    pub fn assert_alive(&self) {
        let mut client = self.client();
        for _ in 0..2 {
            let response = client.exchange(&post("/alive", b"{}"));
            assert_eq!(response.status, 204);
        }
    }

    /// The value of a series, by its full name with labels; 0 when it is not there.
    pub fn metric(&self, series: &str) -> i64 {
        metric(&self.registry.render(), series)
    }
}

pub fn metric(text: &str, series: &str) -> i64 {
    text.lines()
        .filter_map(|line| line.strip_prefix("vault_audit_filter_")?.rsplit_once(' '))
        .find(|(name, _)| *name == series)
        .map_or(0, |(_, value)| value.parse().unwrap())
}

pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !happened() {
        assert!(clock::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Ends the connection with a reset.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn closes(&self) -> bool {
        self.headers.get("connection").is_some_and(|v| v == "close")
    }
}

pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        Client { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn exchange(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.answer()
    }

    pub fn answer(&mut self) -> Answer {
        self.answer_to("POST")
    }

    /// The next response; fails when there is none.
    pub fn answer_to(&mut self, method: &str) -> Answer {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill().unwrap(),
                "closed within a head: {:?}",
                self.buffer.escape_ascii().to_string()
            );
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = match headers.get("content-length") {
            Some(length) if method != "HEAD" => length.parse().unwrap(),
            _ => 0,
        };
        while self.buffer.len() < length {
            assert!(self.fill().unwrap(), "closed within a body");
        }
        Answer { status, headers, body: self.buffer.drain(..length).collect() }
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 << 10];
        let n = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n > 0)
    }

    /// Waits until the server has closed; nothing more may come.
    pub fn assert_closed(&mut self) {
        loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break,
                Err(e) => panic!("not closed: {e}"),
            }
        }
        assert_eq!(self.buffer.escape_ascii().to_string(), "", "unexpected bytes before the close");
    }
}

/// Threads of this process whose names begin with `prefix`.
pub fn threads_named(prefix: &str) -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with(prefix.as_bytes()))
        .count()
}
