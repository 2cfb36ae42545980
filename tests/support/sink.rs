//! A recording HTTP server that stands for Slack, Mattermost or a webhook: it keeps every request and gives the
//! answers that the test has written for it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One request as received.
#[derive(Debug, Clone)]
pub struct Received {
    /// Method.
    pub method: String,
    /// Target.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// When it was complete.
    pub at: Instant,
    /// The status that it was or will be answered with; 0 for one that hangs.
    pub status: u16,
}

impl Received {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Script {
    /// Answer.
    Answer {
        /// Status code.
        status: u16,
        /// Header lines without line break.
        headers: Vec<String>,
        /// Body.
        body: String,
    },
    /// This status for a request whose body holds the text, 200 for all others.
    Poison(&'static str, u16),
    /// Read the request and answer nothing until the sink is dropped or [`Sink::resume`] is called.
    Hang,
}

impl Script {
    /// 200 with a JSON body.
    pub fn json(body: &str) -> Script {
        Script::Answer {
            status: 200,
            headers: vec!["Content-Type: application/json".into()],
            body: body.into(),
        }
    }

    /// 200 with `ok` as plain text, as incoming webhooks answer.
    pub fn ok() -> Script {
        Script::Answer { status: 200, headers: vec!["Content-Type: text/plain".into()], body: "ok".into() }
    }

    /// A status with an empty body.
    pub fn status(status: u16) -> Script {
        Script::Answer { status, headers: Vec::new(), body: String::new() }
    }
}

#[derive(Debug)]
struct Shared {
    received: Mutex<Vec<Received>>,
    /// Answers still to be given; the last one is given for ever.
    script: Mutex<VecDeque<Script>>,
    /// False while requests that hang are held.
    resumed: Mutex<bool>,
    resume: Condvar,
    stop: AtomicBool,
}

/// The server; stopped when dropped.
#[derive(Debug)]
pub struct Sink {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Starts the server. It gives the answers of `script` one after the other and then the last one for ever.
    pub fn start(script: impl IntoIterator<Item = Script>) -> Sink {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the sink");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            script: Mutex::new(script.into_iter().collect()),
            resumed: Mutex::new(false),
            resume: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || accept(&listener, &for_thread));
        Sink { port, shared, thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Everything received so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().expect("no panic while held").clone()
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        self.shared.received.lock().expect("no panic while held").len()
    }

    /// From now on, this answer.
    pub fn answer(&self, script: Script) {
        *self.shared.script.lock().expect("no panic while held") = VecDeque::from([script]);
    }

    /// Lets hanging requests go (they get 200 `ok`), and those to come as well.
    pub fn resume(&self) {
        *self.shared.resumed.lock().expect("no panic while held") = true;
        self.shared.resume.notify_all();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.resume();
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(stream) = stream {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || serve(stream, &shared));
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut stream) {
        let script = {
            let mut script = shared.script.lock().expect("no panic while held");
            if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
        };
        let script = match script.unwrap_or_else(Script::ok) {
            Script::Poison(word, status) => {
                let poisoned = String::from_utf8_lossy(&request.body).contains(word);
                Script::status(if poisoned { status } else { 200 })
            }
            other => other,
        };
        if let Script::Answer { status, .. } = script {
            request.status = status;
        }
        shared.received.lock().expect("no panic while held").push(request);
        let (status, headers, body) = match script {
            Script::Answer { status, headers, body } => (status, headers, body),
            Script::Hang | Script::Poison(..) => {
                let resumed = shared.resumed.lock().expect("no panic while held");
                drop(shared.resume.wait_while(resumed, |resumed| !*resumed).expect("no panic while held"));
                (200, Vec::new(), "ok".to_owned())
            }
        };
        let mut answer = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n", body.len());
        for header in headers {
            answer.push_str(&header);
            answer.push_str("\r\n");
        }
        answer.push_str("\r\n");
        answer.push_str(&body);
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    if stream.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers: Vec<(String, String)> = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let start = body.len();
            body.resize(start + size + 2, 0);
            stream.read_exact(&mut body[start..]).ok()?;
            body.truncate(start + size);
            if size == 0 {
                break;
            }
        }
    } else {
        body = vec![0; header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0)];
        stream.read_exact(&mut body).ok()?;
    }
    Some(Received { method, path, headers, body, at: Instant::now(), status: 0 })
}
