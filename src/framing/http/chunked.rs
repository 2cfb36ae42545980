//! The chunked transfer coding (RFC 9112, 7.1), strictly.

use super::{HttpLimits, Refusal};

/// Longest chunk-size line with its extensions, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 1024;

/// How many bytes of size lines and extensions a body may carry beyond 16 bytes for each chunk and twice its data: a body made
/// of one-byte chunks with long extensions is an attack on the reader's time (CVE-2023-39326 names it).
const EXCESS_BYTES_MAX: usize = 16 << 10;

const BAD_SIZE: Refusal = Refusal::new(400, "malformed chunk size");
const BAD_END: Refusal = Refusal::new(400, "chunk data does not end where its size says");
const BAD_TRAILER: Refusal = Refusal::new(400, "malformed trailer");
const TOO_LARGE: Refusal = Refusal::new(413, "body too large");

/// Takes a chunked body apart.
#[derive(Debug, Default)]
pub(super) struct ChunkedDecoder {
    state: State,
    excess_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Size,
    /// So many bytes of data are still to come.
    Data(usize),
    DataEnd,
    Trailer,
    Done,
}

impl ChunkedDecoder {
    /// Decodes from `input` into `data`. Returns how many bytes were used, and whether the body is complete; unused bytes must come
    /// again, and are never more than a line.
    pub(super) fn push(
        &mut self,
        input: &[u8],
        data: &mut Vec<u8>,
        limits: &HttpLimits,
    ) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Size => {
                    let Some(line) = line(rest, SIZE_LINE_BYTES_MAX, BAD_SIZE)? else { break };
                    at += line.len() + 2;
                    self.size_line(line, data.len(), limits)?;
                }
                State::Data(left) => {
                    let part = &rest[..left.min(rest.len())];
                    if part.is_empty() {
                        break;
                    }
                    crate::framing::append(data, part, limits.body_bytes_max);
                    at += part.len();
                    self.state = match left - part.len() {
                        0 => State::DataEnd,
                        left => State::Data(left),
                    };
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => break,
                    _ => return Err(BAD_END),
                },
                State::Trailer => {
                    let room = limits.head_bytes_max - self.trailer_bytes;
                    let too_large = Refusal::new(431, "trailers too large");
                    let Some(line) = line(rest, room, too_large)? else { break };
                    at += line.len() + 2;
                    self.trailer_bytes += line.len() + 2;
                    self.trailer_line(line)?;
                }
                State::Done => return Ok((at, true)),
            }
        }
        Ok((at, false))
    }

    fn size_line(&mut self, line: &[u8], so_far: usize, limits: &HttpLimits) -> Result<(), Refusal> {
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        if size.is_empty() || !is_extension(extension) {
            return Err(BAD_SIZE);
        }
        let size = std::str::from_utf8(size).map_err(|_| BAD_SIZE)?;
        // Hexadecimal digits only: what does not parse is too large.
        let size = usize::from_str_radix(size, 16).map_err(|_| TOO_LARGE)?;
        if size > limits.body_bytes_max - so_far {
            return Err(TOO_LARGE);
        }
        self.excess_bytes = (self.excess_bytes + line.len() + 2).saturating_sub(16 + 2 * size);
        if self.excess_bytes > EXCESS_BYTES_MAX {
            return Err(Refusal::new(400, "too little data in too many chunks"));
        }
        self.state = if size == 0 { State::Trailer } else { State::Data(size) };
        Ok(())
    }

    /// Trailers are checked and dropped (RFC 9110, 6.5.1 allows it).
    fn trailer_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.is_empty() {
            self.state = State::Done;
            return Ok(());
        }
        let colon = memchr::memchr(b':', line).ok_or(BAD_TRAILER)?;
        let name_ok = colon > 0 && line[..colon].iter().all(|b| is_token_byte(*b));
        if name_ok && line[colon + 1..].iter().all(|b| is_field_byte(*b)) { Ok(()) } else { Err(BAD_TRAILER) }
    }
}

/// The line at the start of `rest` without its CRLF, if it is all there. `too_long` when it is longer than `max` bytes with its CRLF.
fn line(rest: &[u8], max: usize, too_long: Refusal) -> Result<Option<&[u8]>, Refusal> {
    let window = &rest[..rest.len().min(max)];
    match memchr::memchr2(b'\r', b'\n', window) {
        Some(end) => match &window[end..] {
            [b'\r', b'\n', ..] => Ok(Some(&window[..end])),
            [b'\r'] if rest.len() < max => Ok(None),
            [b'\r'] => Err(too_long),
            _ => Err(Refusal::new(400, "a line of the body ends without carriage return and newline")),
        },
        None if rest.len() >= max => Err(too_long),
        None => Ok(None),
    }
}

/// Nothing, or white space and `;` and anything printable.
fn is_extension(bytes: &[u8]) -> bool {
    bytes.is_empty()
        || (bytes.trim_ascii_start().starts_with(b";") && bytes.iter().all(|b| is_field_byte(*b)))
}

fn is_field_byte(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
