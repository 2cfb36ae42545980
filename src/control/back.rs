//! Behind the edge: tiny_http on a private socket with its fixed pool, and the threads that carry requests to it and answers back.
//!
//! ```text
//!  edge ──Whole──▶ relay (2 threads) ──private socket──▶ tiny_http ──Request──▶ worker (2 threads) ──▶ Api
//!    client ◀──────── answer ◀───────────────────────────── respond() ◀────────────────┘
//! ```

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tiny_http::{Header, Request, Response, Server, StatusCode};

use super::answer::Answer;
use super::api::{Api, ApiRequest, ApiWorker};
use super::edge::Whole;
use super::socket;
use crate::clock;

/// Threads that answer, and threads that carry.
pub(super) const POOL_THREADS: usize = 2;
/// How long an answer may be worked on.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to read its answer.
const READING_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait after tiny_http's listener has failed.
const REST: Duration = Duration::from_millis(50);
/// Carried at once.
const CHUNK_BYTES: usize = 64 << 10;

/// One tiny_http with the path of its own that it listens at: its end removes that file.
struct Generation {
    server: Server,
    path: PathBuf,
    number: u64,
}

impl Generation {
    fn start(directory: &Path, number: u64) -> io::Result<Arc<Generation>> {
        let path = directory.join(format!("http{number}"));
        let server = Server::from_listener(socket::bind_at(&path)?, None).map_err(io::Error::other)?;
        Ok(Arc::new(Generation { server, path, number }))
    }

    fn unblock(&self) {
        for _ in 0..POOL_THREADS {
            self.server.unblock();
        }
    }
}

/// tiny_http, replaced by a new one when its listener dies (one failed accept ends it for good).
pub(super) struct Back {
    directory: PathBuf,
    body_bytes_max: usize,
    current: Mutex<Arc<Generation>>,
    /// What each relay carries between, to cut it off at a stop.
    carried: [Mutex<Option<[UnixStream; 2]>>; POOL_THREADS],
    stopping: AtomicBool,
}

impl Back {
    /// Starts tiny_http on a socket in `directory`, which nobody else can enter.
    pub(super) fn start(directory: PathBuf, body_bytes_max: usize) -> io::Result<Back> {
        let current = Mutex::new(Generation::start(&directory, 0)?);
        let (carried, stopping) = (Default::default(), AtomicBool::new(false));
        Ok(Back { directory, body_bytes_max, current, carried, stopping })
    }

    /// Lets the workers end; requests that tiny_http has not handed out are not answered.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.current.lock().unblock();
    }

    /// Closes the connections of answers that are still on their way.
    pub(super) fn cut_off(&self) {
        for stream in self.carried.iter().filter_map(|carried| carried.lock().take()).flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// A connection to tiny_http, started anew where nobody listens any more.
    fn connect(&self) -> io::Result<UnixStream> {
        let gone = |e: &io::Error| matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound);
        let mut current = self.current.lock();
        match UnixStream::connect(&current.path) {
            Err(e) if gone(&e) && !self.is_stopping() => {
                log::warn!("control socket: its HTTP server had stopped listening and is started anew");
                let next = Generation::start(&self.directory, current.number + 1)?;
                std::mem::replace(&mut *current, next).unblock();
                UnixStream::connect(&current.path)
            }
            other => other,
        }
    }

    /// Carries requests until the edge has gone and the queue is empty. `number` is below [`POOL_THREADS`].
    pub(super) fn relay(&self, number: usize, whole: &crossbeam_channel::Receiver<Whole>) {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(Whole { stream, bytes }) = whole.recv() {
            let outcome = self.carry(number, &stream, bytes, &mut chunk);
            drop(self.carried[number].lock().take());
            if let Err(e) = outcome {
                log::debug!("control socket: a request was not answered: {e}");
            }
        }
    }

    fn carry(
        &self,
        number: usize,
        client: &UnixStream,
        request: Vec<u8>,
        chunk: &mut [u8],
    ) -> io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_write_timeout(Some(READING_TIMEOUT))?;
        let mut back = match self.connect().and_then(|back| send(back, &request)) {
            Ok(back) => back,
            Err(e) => {
                let what = format!("the control API cannot take the request: {e}");
                return (&mut &*client).write_all(&Answer::error(503, &what, "try again").to_http());
            }
        };
        drop(request);
        *self.carried[number].lock() = Some([client.try_clone()?, back.try_clone()?]);
        let mut to_client = client;
        let mut status_sent = false;
        let deadline = clock::now() + ANSWER_TIMEOUT;
        loop {
            let n = match back.read(chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if status_sent {
                to_client.write_all(&chunk[..n])?;
            } else {
                // tiny_http leaves out that header, and writes the head in one piece.
                let end = memchr::memmem::find(&chunk[..n], b"\r\n").map_or(n, |at| at + 2);
                to_client.write_all(&[&chunk[..end], b"Connection: close\r\n", &chunk[end..n]].concat())?;
                status_sent = true;
            }
            if clock::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        if !status_sent {
            let what = "the request was given up";
            to_client.write_all(&Answer::error(500, what, "see the server's diagnostics").to_http())?;
        }
        client.shutdown(Shutdown::Write)
    }

    /// Answers requests until [`Back::stop`].
    pub(super) fn work(&self, api: &Api) {
        let mut worker = api.worker();
        while !self.is_stopping() {
            let current = Arc::clone(&self.current.lock());
            match current.server.recv() {
                Ok(request) => self.answer(request, api, &mut worker),
                // Unblocked, or its listener has failed: the next connection starts a new one.
                Err(_) if !self.is_stopping() => std::thread::sleep(REST),
                Err(_) => return,
            }
        }
    }

    fn answer(&self, mut request: Request, api: &Api, worker: &mut ApiWorker) {
        let length = request.body_length().unwrap_or(0);
        if length > self.body_bytes_max {
            // Only somebody who went around the edge gets here. Dropping the request would allocate the whole length.
            std::mem::forget(request);
            return;
        }
        let mut body = Vec::with_capacity(length);
        #[allow(clippy::disallowed_methods, reason = "reads through a limit")]
        let read = request.as_reader().take(length as u64).read_to_end(&mut body);
        let answer = if read.is_ok() && body.len() == length {
            answer_safely(&request, &body, api, worker)
        } else {
            Answer::error(400, "the body is not whole", "send it again")
        };
        if let Err(e) = respond(request, answer) {
            log::debug!("control socket: an answer was not sent: {e}");
        }
    }
}

/// A panic in one request is an answer of 500, and the thread goes on.
fn answer_safely(request: &Request, body: &[u8], api: &Api, worker: &mut ApiWorker) -> Answer {
    let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
    let asked = ApiRequest { method: request.method().as_str(), path, query, body };
    catch_unwind(AssertUnwindSafe(|| api.answer(&asked, worker))).unwrap_or_else(|_| {
        *worker = api.worker();
        log::error!("control socket: the handling of {:?} panicked", path);
        Answer::error(500, "the handling of this request failed", "report it with the server's diagnostics")
    })
}

fn respond(request: Request, answer: Answer) -> io::Result<()> {
    let length = answer.body.len();
    let mut headers = Vec::new();
    let mut header = |name: &str, value: &str| headers.extend(Header::from_bytes(name, value).ok());
    header("Server", "vault-audit-filter");
    if answer.status != 204 {
        header("Content-Type", "application/json");
    }
    if let Some(methods) = answer.allow {
        header("Allow", methods);
    }
    let response =
        Response::new(StatusCode(answer.status), headers, Cursor::new(answer.body), Some(length), None);
    request.respond(response.with_chunked_threshold(usize::MAX))
}

fn send(back: UnixStream, request: &[u8]) -> io::Result<UnixStream> {
    back.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    back.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    (&mut &back).write_all(request)?;
    Ok(back)
}
