//! The head of a request: request line, headers, and what they say about the body.

use std::mem::MaybeUninit;

use super::{HEADERS_MAX, HttpLimits, Parts, Refusal};

/// A piece of the head, as offsets into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies in it.
    fn of(whole: &[u8], part: &[u8]) -> Span {
        let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
        Span { start: start as u32, end: (start + part.len()) as u32 }
    }

    fn get(self, whole: &[u8]) -> Option<&[u8]> {
        whole.get(self.start as usize..self.end as usize)
    }

    fn text(self, whole: &[u8]) -> Option<&str> {
        std::str::from_utf8(self.get(whole)?).ok()
    }
}

/// How the end of the body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// So many bytes; 0 when there is no body.
    Sized(usize),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What the head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How the end of the body is known.
    pub length: BodyLength,
    /// `Content-Encoding: gzip`.
    pub gzip: bool,
    /// `Expect: 100-continue`, not answered yet.
    pub expect_continue: bool,
    /// The sender means to send more requests on this connection.
    pub keep_alive: bool,
    /// HTTP/1.0: a kept-alive answer has to say so.
    pub http10: bool,
    /// The method is HEAD: the answer has no body.
    pub is_head: bool,
    len: u32,
    method: Span,
    path: Span,
    query: Span,
    authorization: Option<Span>,
}

const BAD_SYNTAX: Refusal = Refusal::new(400, "malformed request head");

/// Looks for the end of a head, each byte once.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Where the request line begins: after leading empty lines.
    begin: usize,
    /// Where the current line begins.
    line: usize,
    scanned: usize,
    /// Length of the input when its syntax was last tried.
    tried: usize,
}

impl Scan {
    /// The length of the head, when it is complete.
    pub(super) fn find_end(&mut self, input: &[u8], limits: &HttpLimits) -> Result<Option<usize>, Refusal> {
        while let Some(found) = memchr::memchr(b'\n', &input[self.scanned..]) {
            let newline = self.scanned + found;
            if newline >= limits.head_bytes_max {
                return Err(self.too_long(input, limits));
            }
            if newline == 0 || input[newline - 1] != b'\r' {
                try_syntax(&input[..newline])?;
                return Err(Refusal::new(400, "a line of the head ends without carriage return"));
            }
            let empty = newline - 1 == self.line;
            self.scanned = newline + 1;
            let at_begin = self.line == self.begin;
            self.line = newline + 1;
            match (empty, at_begin) {
                (true, true) => self.begin = newline + 1,
                (true, false) => return Ok(Some(newline + 1)),
                (false, _) => {}
            }
        }
        self.scanned = input.len();
        if input.len() > limits.head_bytes_max {
            return Err(self.too_long(input, limits));
        }
        // What is no HTTP at all is answered at once; tried again only when the input has doubled, so the cost stays linear.
        if input.len() > self.begin && input.len() >= 2 * self.tried {
            self.tried = input.len();
            try_syntax(input)?;
        }
        Ok(None)
    }

    fn too_long(&self, input: &[u8], limits: &HttpLimits) -> Refusal {
        if let Err(refusal) = try_syntax(&input[..limits.head_bytes_max]) {
            return refusal;
        }
        if self.line == self.begin {
            Refusal::new(414, "request line too long")
        } else {
            Refusal::new(431, "request head too large")
        }
    }
}

/// Judges the syntax of the beginning of a head.
fn try_syntax(input: &[u8]) -> Result<(), Refusal> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(input, &mut headers) {
        Ok(_) => Ok(()),
        Err(e) => Err(refusal_of(e, input)),
    }
}

fn refusal_of(error: httparse::Error, input: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(431, "too many header lines"),
        httparse::Error::Version if names_a_version(input) => {
            Refusal::new(505, "this server speaks HTTP/1.1 and HTTP/1.0")
        }
        httparse::Error::HeaderName | httparse::Error::HeaderValue => {
            Refusal::new(400, "malformed header line")
        }
        httparse::Error::Token => Refusal::new(400, "malformed request line"),
        _ => BAD_SYNTAX,
    }
}

/// The third word of the request line begins like an HTTP version.
fn names_a_version(input: &[u8]) -> bool {
    let word = input.splitn(3, |b| *b == b' ').nth(2).unwrap_or_default();
    word.strip_prefix(b"HTTP/").and_then(|v| v.first()).is_some_and(u8::is_ascii_digit)
}

/// The header fields that matter, as found.
#[derive(Default)]
struct Fields<'a> {
    hosts: usize,
    host: &'a [u8],
    content_lengths: usize,
    content_length: &'a [u8],
    transfer_encodings: usize,
    transfer_encoding: &'a [u8],
    authorizations: usize,
    authorization: &'a [u8],
    gzips: usize,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut f = Fields::default();
        for header in headers {
            let value = header.value;
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            match header.name.len() {
                4 if is("host") => (f.hosts, f.host) = (f.hosts + 1, value),
                6 if is("expect") => f.expect(value)?,
                10 if is("connection") => f.connection(value),
                13 if is("authorization") => {
                    (f.authorizations, f.authorization) = (f.authorizations + 1, value);
                }
                14 if is("content-length") => {
                    (f.content_lengths, f.content_length) = (f.content_lengths + 1, value);
                }
                16 if is("content-encoding") => f.content_encoding(value)?,
                17 if is("transfer-encoding") => {
                    (f.transfer_encodings, f.transfer_encoding) = (f.transfer_encodings + 1, value);
                }
                _ => {}
            }
        }
        Ok(f)
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::new(417, "the only expectation met here is 100-continue"));
        }
        self.expect_continue = true;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn content_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for coding in list(value) {
            if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
                self.gzips += 1;
            } else if !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity") {
                return Err(Refusal::new(415, "content codings taken here: gzip, identity"));
            }
        }
        if self.gzips > 1 {
            return Err(Refusal::new(415, "gzip is taken once, not twice"));
        }
        Ok(())
    }

    /// RFC 9112, 3.2: exactly one Host on HTTP/1.1, at most one on HTTP/1.0.
    fn check_host(&self, http10: bool) -> Result<(), Refusal> {
        match self.hosts {
            0 if http10 => Ok(()),
            0 => Err(Refusal::new(400, "no Host header")),
            1 if self.host.iter().all(|b| is_host_byte(*b)) => Ok(()),
            1 => Err(Refusal::new(400, "malformed Host header")),
            _ => Err(Refusal::new(400, "more than one Host header")),
        }
    }

    /// RFC 9112, 6.3, in the strict reading: one length or none.
    fn body_length(&self, http10: bool, limits: &HttpLimits) -> Result<BodyLength, Refusal> {
        match (self.transfer_encodings, self.content_lengths) {
            (0, 0) => Ok(BodyLength::Sized(0)),
            (0, 1) => content_length(self.content_length, limits).map(BodyLength::Sized),
            (0, _) => Err(Refusal::new(400, "more than one Content-Length")),
            (_, 1..) => Err(Refusal::new(400, "both Content-Length and Transfer-Encoding")),
            (2.., 0) => Err(Refusal::new(400, "more than one Transfer-Encoding")),
            (1, 0) if http10 => Err(Refusal::new(400, "Transfer-Encoding in an HTTP/1.0 request")),
            (1, 0) => transfer_encoding(self.transfer_encoding),
        }
    }
}

fn content_length(value: &[u8], limits: &HttpLimits) -> Result<usize, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::new(400, "Content-Length is not a number"));
    }
    // Digits only, so what does not parse is too large for the type, and for us.
    std::str::from_utf8(value)
        .ok()
        .and_then(|v| v.parse::<usize>().ok())
        .filter(|n| *n <= limits.body_bytes_max)
        .ok_or(Refusal::new(413, "body too large"))
}

fn transfer_encoding(value: &[u8]) -> Result<BodyLength, Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(BodyLength::Chunked);
    }
    if list(value).any(|coding| coding.eq_ignore_ascii_case(b"chunked") || coding.is_empty()) {
        let last = list(value).last().unwrap_or_default();
        let chunked = list(value).filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
        if chunked != 1 || !last.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::new(400, "malformed Transfer-Encoding"));
        }
    }
    Err(Refusal::new(501, "the only transfer coding taken here is chunked"))
}

/// The members of a comma-separated list, without the white space around them.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&b)
}

impl Head {
    /// Reads a complete head: `input` ends with its empty line.
    pub(super) fn parse(input: &[u8], limits: &HttpLimits) -> Result<Head, Refusal> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(input, &mut headers) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(BAD_SYNTAX),
            Err(e) => return Err(refusal_of(e, input)),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(BAD_SYNTAX);
        };
        let http10 = version == 0;
        let fields = Fields::read(parsed.headers)?;
        fields.check_host(http10)?;
        let length = fields.body_length(http10, limits)?;
        let (path, query) = split_target(method, target)?;
        Ok(Head {
            length,
            gzip: fields.gzips == 1,
            expect_continue: fields.expect_continue && !http10 && length != BodyLength::Sized(0),
            keep_alive: !fields.close && (!http10 || fields.keep_alive),
            http10,
            is_head: method == "HEAD",
            len: input.len() as u32,
            method: Span::of(input, method.as_bytes()),
            path: Span::of(input, path.as_bytes()),
            query: Span::of(input, query.as_bytes()),
            authorization: (fields.authorizations == 1).then(|| Span::of(input, fields.authorization)),
        })
    }

    /// Length of the head, in bytes.
    pub fn head_bytes(&self) -> usize {
        self.len as usize
    }

    pub(super) fn parts<'a>(&self, head: &'a [u8], body: &'a [u8]) -> Option<Parts<'a>> {
        let method = self.method.text(head)?;
        let path = match self.path.text(head)? {
            // RFC 9112, 3.2.4: the absolute form without a path.
            "" if method == "OPTIONS" => "*",
            "" => "/",
            path => path,
        };
        Some(Parts {
            method,
            path,
            query: self.query.text(head)?,
            authorization: self.authorization.and_then(|span| span.get(head)),
            body,
        })
    }
}

/// Path and query of a request target (RFC 9112, 3.2); the path is empty when an absolute target has none.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(&'a str, &'a str), Refusal> {
    const BAD: Refusal = Refusal::new(400, "malformed request target");
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(BAD);
    }
    if method == "CONNECT" {
        return Err(Refusal::new(501, "CONNECT is not implemented"));
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok((target, &target[1..])) } else { Err(BAD) };
    }
    let origin = if target.starts_with('/') { target } else { after_authority(target).ok_or(BAD)? };
    let (path, query) = match origin.find('?') {
        Some(at) => (&origin[..at], &origin[at + 1..]),
        None => (origin, &origin[origin.len()..]),
    };
    Ok((path, query))
}

/// What follows `http://authority` in an absolute target.
fn after_authority(target: &str) -> Option<&str> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
    })?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let authority = &rest[..end];
    (!authority.is_empty() && authority.bytes().all(is_host_byte)).then(|| &rest[end..])
}
