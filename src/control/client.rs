//! A small blocking HTTP/1.1 client for the control socket: one request in a connection, every read bounded in bytes and time.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::tail::BUFFER_BYTES_MAX;

/// Status line and headers of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Body of an answer, in bytes: a task with the largest record that the store takes.
const BODY_BYTES_MAX: usize = 512 << 20;
/// One line of an answer without an end: the largest record that is shown, and what stands around it.
const LINE_BYTES_MAX: usize = BUFFER_BYTES_MAX + (64 << 10);
/// Wait for the next bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Wait for the server to take a piece of the request.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Header lines of an answer.
const HEADERS_MAX: usize = 32;

/// Asks the server behind a control socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    path: PathBuf,
}

/// Why there is no answer to work with.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// Nobody listens at the socket, or it does not exist: no server runs there.
    NoServer(io::Error),
    /// The socket cannot be used, or what came is no answer.
    Failed(String),
    /// The server says no.
    Refused {
        /// HTTP status.
        status: u16,
        /// What is wrong.
        what: String,
        /// What to do instead.
        cure: String,
        /// Everything that is wrong, where it is more than one thing.
        problems: Vec<String>,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoServer(e) => write!(f, "no server answers there: {e}"),
            ClientError::Failed(what) => f.write_str(what),
            ClientError::Refused { what, cure, .. } => write!(f, "{what}; {cure}"),
        }
    }
}

/// The form of the server's errors.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    what: String,
    cure: String,
    #[serde(default)]
    problems: Vec<String>,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Received {
    status: u16,
    body: Vec<u8>,
}

impl Client {
    /// A client for the server whose control socket is at `path`. Does nothing yet.
    pub(crate) fn at(path: &Path) -> Client {
        Client { path: path.to_owned() }
    }

    /// Whether a server listens.
    ///
    /// # Errors
    /// [`ClientError::NoServer`], or why the socket cannot be used.
    pub(crate) fn probe(&self) -> Result<(), ClientError> {
        self.connect().map(drop)
    }

    /// GETs JSON.
    pub(crate) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.ask("GET", target, b"")
    }

    /// POSTs JSON, and reads JSON.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Failed(e.to_string()))?;
        self.ask("POST", target, &body)
    }

    /// POSTs bytes; the answer is 204.
    pub(crate) fn post_bytes(&self, target: &str, body: &[u8]) -> Result<(), ClientError> {
        let received = self.exchange("POST", target, body)?;
        if received.status >= 300 { Err(refused(&received)) } else { Ok(()) }
    }

    /// GETs an answer without an end, line by line.
    pub(crate) fn follow(&self, target: &str) -> Result<Lines, ClientError> {
        let failed = |e: io::Error| ClientError::Failed(format!("the server at {:?}: {e}", self.path));
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(READ_TIMEOUT)).map_err(failed)?;
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).map_err(failed)?;
        let mut buffer = Vec::new();
        let head = read_head(&mut stream, &mut buffer).map_err(failed)?;
        if head.status >= 300 {
            let body = read_body(&mut stream, buffer, &head, BODY_BYTES_MAX).map_err(failed)?;
            return Err(refused(&Received { status: head.status, body }));
        }
        stream.set_read_timeout(None).map_err(failed)?;
        Ok(Lines { stream, buffer, seen: 0 })
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, target: &str, body: &[u8]) -> Result<T, ClientError> {
        let received = self.exchange(method, target, body)?;
        if received.status >= 300 {
            return Err(refused(&received));
        }
        serde_json::from_slice(&received.body).map_err(|e| {
            ClientError::Failed(format!(
                "the server at {:?} answers in another form than this version knows: {e}",
                self.path
            ))
        })
    }

    fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.path).map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NoServer(e),
            ErrorKind::PermissionDenied => ClientError::Failed(format!(
                "the control socket {:?} cannot be opened: {e}; run this as the user that runs the server",
                self.path
            )),
            _ => ClientError::Failed(format!("the control socket {:?}: {e}", self.path)),
        })
    }

    fn exchange(&self, method: &str, target: &str, body: &[u8]) -> Result<Received, ClientError> {
        let failed = |e: &io::Error| match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                ClientError::Failed(format!("the server at {:?} does not answer in time", self.path))
            }
            _ => ClientError::Failed(format!("the server at {:?}: {e}", self.path)),
        };
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(READ_TIMEOUT)).map_err(|e| failed(&e))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(|e| failed(&e))?;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        // A server that refuses early has answered all the same.
        match read_answer(&mut stream, BODY_BYTES_MAX) {
            Ok(received) => Ok(received),
            Err(e) => Err(failed(sent.as_ref().err().unwrap_or(&e))),
        }
    }
}

fn refused(received: &Received) -> ClientError {
    let told = serde_json::from_slice::<ErrorBody>(&received.body).map(|body| body.error);
    let ErrorText { what, cure, problems } = told.unwrap_or_else(|_| ErrorText {
        what: format!("the server answers with status {}", received.status),
        cure: "see its diagnostics".to_owned(),
        problems: Vec::new(),
    });
    ClientError::Refused { status: received.status, what, cure, problems }
}

/// Reads one answer with a `Content-Length`; interim answers (1xx) are skipped.
fn read_answer(reader: &mut impl Read, body_bytes_max: usize) -> io::Result<Received> {
    let mut buffer = Vec::new();
    let head = read_head(reader, &mut buffer)?;
    let body = read_body(reader, buffer, &head, body_bytes_max)?;
    Ok(Received { status: head.status, body })
}

fn bad(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

/// Reads the head of an answer; what came behind it is in `buffer`.
fn read_head(reader: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<AnswerHead> {
    loop {
        let Some(head) = parse_head(buffer).map_err(bad)? else {
            if buffer.len() > HEAD_BYTES_MAX {
                return Err(bad("the head of the answer is too long"));
            }
            let mut chunk = [0; 4096];
            let n = read_some(reader, &mut chunk)?;
            if n == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer ends in its head"));
            }
            buffer.extend_from_slice(&chunk[..n]);
            continue;
        };
        buffer.drain(..head.bytes);
        if head.status >= 200 {
            return Ok(head);
        }
    }
}

/// Reads the body that belongs to `head`, whose beginning is in `buffer`.
fn read_body(
    reader: &mut impl Read,
    mut buffer: Vec<u8>,
    head: &AnswerHead,
    body_bytes_max: usize,
) -> io::Result<Vec<u8>> {
    let length =
        if head.status == 204 { 0 } else { head.length.ok_or_else(|| bad("an answer without length"))? };
    if length > body_bytes_max {
        return Err(bad("the answer is too long"));
    }
    buffer.truncate(length);
    let rest = (length - buffer.len()) as u64;
    #[allow(clippy::disallowed_methods, reason = "reads through a limit")]
    reader.by_ref().take(rest).read_to_end(&mut buffer)?;
    if buffer.len() < length {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer ends in its body"));
    }
    Ok(buffer)
}

/// Lines of an answer without an end.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// So much of `buffer` holds no line end.
    seen: usize,
}

impl Lines {
    /// The next line, without its end; `None`: the server has closed. Blocks.
    ///
    /// # Errors
    /// A line longer than any that the server sends, or what reading gives.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', self.buffer.get(self.seen..).unwrap_or_default()) {
                let mut line: Vec<u8> = self.buffer.drain(..=self.seen + at).collect();
                line.pop();
                self.seen = 0;
                return Ok(Some(line));
            }
            self.seen = self.buffer.len();
            if self.seen > LINE_BYTES_MAX {
                return Err(bad("a line is too long"));
            }
            let mut chunk = [0; 16 << 10];
            match read_some(&mut self.stream, &mut chunk)? {
                0 => return Ok(None),
                n => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

fn read_some(reader: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(chunk) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

struct AnswerHead {
    status: u16,
    length: Option<usize>,
    bytes: usize,
}

fn parse_head(bytes: &[u8]) -> Result<Option<AnswerHead>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let end = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("what answers there is no HTTP server"),
    };
    let of_length = |h: &&httparse::Header<'_>| h.name.eq_ignore_ascii_case("content-length");
    let length = answer.headers.iter().find(of_length).map(|h| {
        let digits = std::str::from_utf8(h.value).unwrap_or_default();
        digits.parse::<usize>().map_err(|_| "the length of the answer is not a number")
    });
    let status = answer.code.ok_or("an answer without status")?;
    Ok(Some(AnswerHead { status, length: length.transpose()?, bytes: end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello, and more";

    /// Gives one byte at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }

    #[test]
    fn every_truncation_of_an_answer_is_an_error() {
        let whole = ANSWER.len() - ", and more".len();
        for end in 0..=ANSWER.len() {
            let received = read_answer(&mut &ANSWER[..end], 5);
            let dripped = read_answer(&mut Drip(&ANSWER[..end]), 5);
            for received in [received, dripped] {
                match received {
                    Ok(received) => {
                        assert!(end >= whole, "{end}");
                        assert_eq!((received.status, &received.body[..]), (200, &b"hello"[..]));
                    }
                    Err(e) => assert!(end < whole && e.kind() == ErrorKind::UnexpectedEof, "{end}: {e}"),
                }
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'x'; 1 << 20]].concat();
        for (bytes, part) in [
            (&b"SSH-2.0-OpenSSH\r\n\r\n"[..], "no HTTP server"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "without length"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not a number"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "too long"),
            (&endless, "head of the answer is too long"),
        ] {
            let error = read_answer(&mut &bytes[..], 8).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        let empty = read_answer(&mut &b"HTTP/1.1 204 No Content\r\n\r\n"[..], 8).expect("no body");
        assert_eq!(empty, Received { status: 204, body: Vec::new() });
    }

    #[test]
    fn refusals_say_what_and_what_to_do() {
        let of = |body: &str| refused(&Received { status: 400, body: body.into() }).to_string();
        assert_eq!(of(r#"{"error":{"what":"a","cure":"b"}}"#), "a; b");
        assert!(of("Bad Gateway").contains("status 400"));
        let error = Client::at(Path::new("/no/such.sock")).get::<u8>("/").expect_err("nobody");
        assert!(matches!(error, ClientError::NoServer(_)), "{error}");
    }
}
