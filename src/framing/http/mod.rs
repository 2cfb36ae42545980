//! HTTP/1.1 requests out of bytes (RFC 9112), strictly: whatever could be read in two ways is refused, and the connection must
//! then be closed.
//!
//! [`RequestFramer`] holds what is known of the request that is being received. Its owner keeps the bytes: those at hand go into
//! [`RequestFramer::advance`], from the first byte of the request on. A request that lies whole in the bytes at hand is never copied.
//!
//! ```text
//!            ┌──────── NeedMore ────────┐
//!            ▼                          │
//!  new ──▶ Head ──head complete──▶ Sized body ────▶ Complete ──▶ parts() ──▶ reset()
//!            │                  └▶ Chunked body ──▶    ▲
//!            └──▶ Err(Refusal): answer, close          │ (data moves into the framer, chunk by chunk)
//! ```

mod chunked;
mod gzip;
mod head;

pub use gzip::gunzip;
pub use head::{BodyLength, Head};

use chunked::ChunkedDecoder;

/// Limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Request line, headers and the empty line; also the trailers of a chunked body. In bytes.
    pub head_bytes_max: usize,
    /// Body as sent, in bytes, and again after decoding.
    pub body_bytes_max: usize,
}

/// Most header lines of one request.
pub const HEADERS_MAX: usize = 100;

/// Why a request is not taken. The connection is out of step and must be closed after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: u16,
    /// One line for the sender.
    pub reason: &'static str,
}

impl Refusal {
    const fn new(status: u16, reason: &'static str) -> Self {
        Refusal { status, reason }
    }
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed. The first `consumed` bytes of the input have been used up and must not come again.
    NeedMore {
        /// Bytes of the input that are done with.
        consumed: usize,
    },
    /// The request is whole: ask [`RequestFramer::parts`] with the same input, then [`RequestFramer::reset`].
    Complete {
        /// Bytes of the input that belong to this request; the next one begins after them.
        consumed: usize,
    },
}

/// The parts of a whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// The path of the target without query; `*` for `OPTIONS *`.
    pub path: &'a str,
    /// The query without `?`.
    pub query: &'a str,
    /// `Authorization`, if there was exactly one.
    pub authorization: Option<&'a [u8]>,
    /// The body without its transfer coding, still content-coded when [`Head::gzip`] says so.
    pub body: &'a [u8],
}

/// One request as it comes in.
#[derive(Debug, Default)]
pub struct RequestFramer {
    state: State,
}

#[derive(Debug)]
enum State {
    Head(head::Scan),
    Sized { head: Head, end: usize },
    Chunked(Box<ChunkedBody>),
}

impl Default for State {
    fn default() -> Self {
        State::Head(head::Scan::default())
    }
}

#[derive(Debug)]
struct ChunkedBody {
    head: Head,
    head_bytes: Vec<u8>,
    decoder: ChunkedDecoder,
    data: Vec<u8>,
}

impl RequestFramer {
    /// Looks at `input`: the bytes of the current request that have not been consumed yet, earlier ones included.
    ///
    /// # Errors
    /// The answer that the sender gets. The framer is then of no further use for this connection.
    pub fn advance(&mut self, input: &[u8], limits: &HttpLimits) -> Result<Step, Refusal> {
        let mut consumed = 0;
        if let State::Head(scan) = &mut self.state {
            let Some(end) = scan.find_end(input, limits)? else {
                return Ok(Step::NeedMore { consumed });
            };
            let head = Head::parse(&input[..end], limits)?;
            self.state = match head.length {
                BodyLength::Sized(n) => State::Sized { head, end: end + n },
                BodyLength::Chunked => {
                    consumed = end;
                    State::Chunked(Box::new(ChunkedBody {
                        head,
                        head_bytes: input[..end].to_vec(),
                        decoder: ChunkedDecoder::default(),
                        data: Vec::new(),
                    }))
                }
            };
        }
        match &mut self.state {
            State::Sized { end, .. } if input.len() >= *end => Ok(Step::Complete { consumed: *end }),
            State::Chunked(body) => {
                let (used, done) = body.decoder.push(&input[consumed..], &mut body.data, limits)?;
                consumed += used;
                Ok(if done { Step::Complete { consumed } } else { Step::NeedMore { consumed } })
            }
            State::Head(_) | State::Sized { .. } => Ok(Step::NeedMore { consumed }),
        }
    }

    /// The head, once it is complete.
    pub fn head(&self) -> Option<&Head> {
        match &self.state {
            State::Head(_) => None,
            State::Sized { head, .. } => Some(head),
            State::Chunked(body) => Some(&body.head),
        }
    }

    /// The parts of the request for which [`RequestFramer::advance`] has just said [`Step::Complete`] with this `input`; `None` in
    /// any other state.
    pub fn parts<'a>(&'a self, input: &'a [u8]) -> Option<Parts<'a>> {
        match &self.state {
            State::Head(_) => None,
            State::Sized { head, end } => head.parts(input, input.get(head.head_bytes()..*end)?),
            State::Chunked(body) => body.head.parts(&body.head_bytes, &body.data),
        }
    }

    /// Whether the sender waits for `100 Continue`; true at most once for each request.
    pub fn take_expect_continue(&mut self) -> bool {
        let head = match &mut self.state {
            State::Head(_) => return false,
            State::Sized { head, .. } => head,
            State::Chunked(body) => &mut body.head,
        };
        std::mem::take(&mut head.expect_continue)
    }

    /// How long the bytes to keep can become while this request is received: the bound for the owner's buffer.
    pub fn input_bytes_max(&self, limits: &HttpLimits) -> usize {
        match &self.state {
            State::Head(_) => limits.head_bytes_max,
            State::Sized { end, .. } => *end,
            State::Chunked(_) => limits.head_bytes_max,
        }
    }

    /// Ready for the next request.
    pub fn reset(&mut self) {
        self.state = State::default();
    }

    /// Bytes of memory held besides the framer itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.state {
            State::Head(_) | State::Sized { .. } => 0,
            State::Chunked(body) => {
                size_of::<ChunkedBody>() + body.head_bytes.capacity() + body.data.capacity()
            }
        }
    }
}

#[cfg(test)]
mod tests;
