//! A real HTTP server on loopback whose answers are scripted.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::{clock, threads};

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// One request as received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// When it was complete.
    pub(crate) at: Instant,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a UTF-8 body")
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Status, headers, body.
    Full(u16, Vec<(&'static str, String)>, String),
    /// The same, and the connection is closed behind it without saying so before.
    FullThenClose(u16, String),
    /// Nothing, until the server or the client ends.
    Hang,
    /// A head, then one byte of body now and then, for ever.
    Drip,
    /// The connection is closed without a byte.
    Close,
    /// These bytes, then the end.
    Bytes(Vec<u8>),
}

impl Reply {
    pub(crate) fn status(status: u16) -> Reply {
        Reply::Full(status, Vec::new(), String::new())
    }

    pub(crate) fn json(status: u16, body: &str) -> Reply {
        Reply::Full(status, vec![("Content-Type", "application/json".into())], body.into())
    }

    pub(crate) fn text(status: u16, body: &str) -> Reply {
        Reply::Full(status, vec![("Content-Type", "text/plain".into())], body.into())
    }
}

struct Script {
    received: Vec<Received>,
    once: VecDeque<Reply>,
    always: Reply,
}

struct Inner {
    script: Mutex<Script>,
    changed: Condvar,
    stop: AtomicBool,
    connections: AtomicUsize,
}

/// The server. Stops, with all its threads, when dropped.
pub(crate) struct HttpServer {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    acceptor: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Answers `always` once no other reply is scripted.
    pub(crate) fn start(always: Reply) -> HttpServer {
        Self::start_at("127.0.0.1:0", always)
    }

    pub(crate) fn start_at(address: &str, always: Reply) -> HttpServer {
        let listener = TcpListener::bind(address).expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let inner = Arc::new(Inner {
            script: Mutex::new(Script { received: Vec::new(), once: VecDeque::new(), always }),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&inner);
        let acceptor = threads::spawn("test-accept", move || accept(&listener, &shared)).expect("a thread");
        HttpServer { address, inner, acceptor: Some(acceptor) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request gets this instead.
    pub(crate) fn then(&self, reply: Reply) -> &Self {
        self.inner.script.lock().once.push_back(reply);
        self
    }

    /// All further requests get this.
    pub(crate) fn always(&self, reply: Reply) {
        self.inner.script.lock().always = reply;
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.inner.script.lock().received.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::SeqCst)
    }

    /// Waits until `n` requests have come, and returns them all.
    pub(crate) fn wait_for(&self, n: usize) -> Vec<Received> {
        let until = clock::now() + PATIENCE;
        let mut script = self.inner.script.lock();
        while script.received.len() < n {
            let timed_out = self.inner.changed.wait_until(&mut script, until).timed_out();
            assert!(!timed_out, "{} of {n} requests came", script.received.len());
        }
        script.received.clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.acceptor.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, inner: &Arc<Inner>) {
    let mut threads_of_connections = Vec::new();
    for stream in listener.incoming() {
        if inner.stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        let number = inner.connections.fetch_add(1, Ordering::SeqCst);
        let inner = Arc::clone(inner);
        threads_of_connections.extend(threads::spawn("test-conn", move || {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
            serve(stream, &inner, number);
        }));
    }
    for thread in threads_of_connections {
        let _ = thread.join();
    }
}

fn serve(mut stream: TcpStream, inner: &Inner, connection: usize) {
    let mut buffer = Vec::new();
    while let Some(received) = read_request(&mut stream, &mut buffer, inner, connection) {
        let mut script = inner.script.lock();
        script.received.push(received);
        let reply = script.once.pop_front().unwrap_or_else(|| script.always.clone());
        drop(script);
        inner.changed.notify_all();
        if !answer(&mut stream, reply, inner) {
            return;
        }
    }
}

/// Whether the connection goes on.
fn answer(stream: &mut TcpStream, reply: Reply, inner: &Inner) -> bool {
    let full = |status: u16, headers: &[(&str, String)], body: &str| {
        let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if status == 204 || status == 304 {
            text = format!("HTTP/1.1 {status} X\r\n");
        }
        text + "\r\n" + body
    };
    match reply {
        Reply::Full(status, headers, body) => {
            stream.write_all(full(status, &headers, &body).as_bytes()).is_ok()
        }
        Reply::FullThenClose(status, body) => {
            let _ = stream.write_all(full(status, &[], &body).as_bytes());
            false
        }
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
            false
        }
        Reply::Close => false,
        Reply::Hang => {
            let mut byte = [0];
            while !inner.stop.load(Ordering::SeqCst) {
                match stream.read(&mut byte) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(e)
                        if matches!(
                            e.kind(),
                            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        ) => {}
                    Err(_) => break,
                }
            }
            false
        }
        Reply::Drip => {
            let head = "HTTP/1.1 200 X\r\nContent-Length: 1000000\r\n\r\n";
            let mut open = stream.write_all(head.as_bytes()).is_ok();
            while open && !inner.stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
                open = stream.write_all(b" ").is_ok();
            }
            false
        }
    }
}

fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    inner: &Inner,
    connection: usize,
) -> Option<Received> {
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(request) = parse(buffer, connection) {
            return Some(request);
        }
        match stream.read(&mut chunk) {
            Ok(0) => return None,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                if inner.stop.load(Ordering::SeqCst) {
                    return None;
                }
            }
            Err(_) => return None,
        }
    }
}

fn parse(buffer: &mut Vec<u8>, connection: usize) -> Option<Received> {
    let end = memchr::memmem::find(buffer, b"\r\n\r\n")? + 4;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    head.parse(&buffer[..end]).expect("a well-formed head");
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned()))
        .collect();
    let length = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, v)| v.parse().expect("a length"));
    if buffer.len() < end + length {
        return None;
    }
    let (method, target) =
        (head.method.expect("a method").to_owned(), head.path.expect("a target").to_owned());
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some(Received { connection, method, target, headers, body, at: clock::now() })
}
