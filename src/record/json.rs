//! Reading inside JSON text that a [`Decoder`](super::Decoder) has validated: the objects and arrays of [`Slot::Json`](super::Slot).
//!
//! Lazy: nothing is read before it is asked for, nothing is allocated but unescaped strings. Given text that is not valid JSON, the
//! functions stop early or answer nonsense, but they neither panic nor recurse nor loop for ever.

use std::borrow::Cow;

use super::scan;

/// One JSON value, its inside still text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node<'a> {
    /// null, and anything that is no JSON value.
    Null,
    /// true or false.
    Bool(bool),
    /// A number's text; see [`int`] and [`float`].
    Number(&'a str),
    /// A string.
    Str(RawStr<'a>),
    /// An array with its brackets; see [`elements`].
    Array(&'a [u8]),
    /// An object with its braces; see [`members`].
    Object(&'a [u8]),
}

/// A string as it stands between its quotation marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawStr<'a> {
    text: &'a [u8],
    escaped: bool,
}

impl<'a> RawStr<'a> {
    /// The text between two quotation marks.
    pub(super) fn new(text: &'a [u8]) -> RawStr<'a> {
        RawStr { text, escaped: memchr::memchr(b'\\', text).is_some() }
    }

    /// The text between the quotation marks, escapes and all.
    pub fn raw(&self) -> &'a [u8] {
        self.text
    }

    /// Whether it holds escape sequences.
    pub fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// The string itself; borrowed unless it holds escape sequences.
    pub fn to_cow(&self) -> Cow<'a, str> {
        if !self.escaped {
            return String::from_utf8_lossy(self.text);
        }
        let mut string = String::with_capacity(self.text.len());
        self.unescape_into(&mut string);
        Cow::Owned(string)
    }

    /// Appends the string itself to `out`. A surrogate escape without its other half becomes U+FFFD.
    pub fn unescape_into(&self, out: &mut String) {
        for piece in (Pieces { text: self.text }) {
            match piece {
                Piece::Plain(plain) => match std::str::from_utf8(plain) {
                    Ok(plain) => out.push_str(plain),
                    Err(_) => out.push_str(&String::from_utf8_lossy(plain)),
                },
                Piece::Char(char) => out.push(char),
            }
        }
    }

    /// Whether the string is `other`. Allocates nothing.
    pub fn eq_str(&self, other: &str) -> bool {
        self.eq_bytes(other.as_bytes())
    }

    pub(super) fn eq_bytes(&self, mut other: &[u8]) -> bool {
        if !self.escaped {
            return self.text == other;
        }
        let mut buffer = [0; 4];
        for piece in (Pieces { text: self.text }) {
            let bytes = match piece {
                Piece::Plain(plain) => plain,
                Piece::Char(char) => char.encode_utf8(&mut buffer).as_bytes(),
            };
            match other.strip_prefix(bytes) {
                Some(rest) => other = rest,
                None => return false,
            }
        }
        other.is_empty()
    }
}

/// A part of a string: text without escapes, or what one escape stands for.
enum Piece<'a> {
    Plain(&'a [u8]),
    Char(char),
}

struct Pieces<'a> {
    text: &'a [u8],
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        match memchr::memchr(b'\\', self.text) {
            Some(0) => {
                let (char, length) = unescape(self.text);
                self.text = self.text.get(length..).unwrap_or_default();
                Some(Piece::Char(char))
            }
            Some(backslash) => {
                let (plain, rest) = self.text.split_at(backslash);
                self.text = rest;
                Some(Piece::Plain(plain))
            }
            None if self.text.is_empty() => None,
            None => Some(Piece::Plain(std::mem::take(&mut self.text))),
        }
    }
}

/// What the escape sequence at the start of `text` stands for, and its length.
fn unescape(text: &[u8]) -> (char, usize) {
    match text.get(1) {
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'n') => ('\n', 2),
        Some(b'r') => ('\r', 2),
        Some(b't') => ('\t', 2),
        Some(b'u') => unescape_unit(text),
        Some(&byte) if byte.is_ascii() => (char::from(byte), 2),
        _ => (char::REPLACEMENT_CHARACTER, 2),
    }
}

/// The character of `\uXXXX` at the start of `text`, or of two of them that are a surrogate pair.
fn unescape_unit(text: &[u8]) -> (char, usize) {
    let Some(unit) = code_unit(text) else {
        return (char::REPLACEMENT_CHARACTER, text.len());
    };
    let Some(char) = char::from_u32(u32::from(unit)) else {
        let low = text.get(6..).and_then(code_unit);
        let pair = low.and_then(|low| char::decode_utf16([unit, low]).next()?.ok());
        return pair.map_or((char::REPLACEMENT_CHARACTER, 6), |char| (char, 12));
    };
    (char, 6)
}

/// The UTF-16 code unit that `\uXXXX` at the start of `text` names.
fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit: u16, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

/// The value that `text` holds. Whitespace around it is fine.
pub fn node(text: &[u8]) -> Node<'_> {
    let start = scan::skip_whitespace(text, 0);
    value(text, start).0
}

/// The value that starts at `at`, and the index behind it; the same index if there is none.
fn value(text: &[u8], at: usize) -> (Node<'_>, usize) {
    let Some(&first) = text.get(at) else { return (Node::Null, at) };
    let end = skip(text, at);
    let inside = text.get(at..end).unwrap_or_default();
    let node = match first {
        b'{' => Node::Object(inside),
        b'[' => Node::Array(inside),
        b'"' => Node::Str(RawStr::new(text.get(at + 1..end.saturating_sub(1)).unwrap_or_default())),
        b't' => Node::Bool(true),
        b'f' => Node::Bool(false),
        b'0'..=b'9' | b'-' => Node::Number(std::str::from_utf8(inside).unwrap_or_default()),
        _ => Node::Null,
    };
    (node, end)
}

/// The index behind the value that starts at `at`; `at` if there is none, the text's length if it has no end.
fn skip(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(b'{' | b'[') => skip_container(text, at),
        Some(b'"') => scan::string(text, at + 1).map_or(text.len(), |end| end.quote + 1),
        Some(b'0'..=b'9' | b'-') => scan::number(text, at).unwrap_or(at),
        Some(b't') => scan::literal(text, at, b"true").unwrap_or(at),
        Some(b'f') => scan::literal(text, at, b"false").unwrap_or(at),
        Some(b'n') => scan::literal(text, at, b"null").unwrap_or(at),
        _ => at,
    }
}

fn skip_container(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => match scan::string(text, at + 1) {
                Ok(end) => at = end.quote,
                Err(_) => return text.len(),
            },
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The elements of an array, in order.
pub fn elements(array: &[u8]) -> Elements<'_> {
    Elements { rest: Rest::new(array, b'[') }
}

/// The members of an object, in order, repeated keys and all; where a key counts once, the last one does.
pub fn members(object: &[u8]) -> Members<'_> {
    Members { rest: Rest::new(object, b'{') }
}

/// The value of `key` in an object: the last one, if it is repeated.
pub fn get<'a>(object: &'a [u8], key: &str) -> Option<Node<'a>> {
    members(object).filter(|(name, _)| name.eq_str(key)).last().map(|(_, node)| node)
}

/// What is left of a container's inside.
#[derive(Debug, Clone)]
struct Rest<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn new(text: &'a [u8], bracket: u8) -> Rest<'a> {
        let at = scan::skip_whitespace(text, 0);
        let at = if text.get(at) == Some(&bracket) { at + 1 } else { text.len() };
        Rest { text, at }
    }

    /// Goes to the next item, over whitespace and commas.
    fn seek(&mut self) {
        self.at = scan::skip_whitespace(self.text, self.at);
        while self.text.get(self.at) == Some(&b',') {
            self.at = scan::skip_whitespace(self.text, self.at + 1);
        }
    }

    fn value(&mut self) -> Option<Node<'a>> {
        let (node, end) = value(self.text, self.at);
        if end == self.at {
            self.at = self.text.len();
            return None;
        }
        self.at = end;
        Some(node)
    }
}

/// Iterator over an array's elements; see [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: Rest<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        self.rest.seek();
        self.rest.value()
    }
}

/// Iterator over an object's members; see [`members`].
#[derive(Debug, Clone)]
pub struct Members<'a> {
    rest: Rest<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (RawStr<'a>, Node<'a>);

    fn next(&mut self) -> Option<(RawStr<'a>, Node<'a>)> {
        self.rest.seek();
        let Some(Node::Str(key)) = self.rest.value() else {
            self.rest.at = self.rest.text.len();
            return None;
        };
        self.rest.at = scan::skip_whitespace(self.rest.text, self.rest.at);
        if self.rest.text.get(self.rest.at) == Some(&b':') {
            self.rest.at = scan::skip_whitespace(self.rest.text, self.rest.at + 1);
        }
        Some((key, self.rest.value()?))
    }
}

/// A piece of JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// null, true, false, a number or a string.
    Scalar(Node<'a>),
    /// A key of the object at hand; its value follows.
    Key(RawStr<'a>),
    /// An array begins.
    ArrayStart,
    /// The array at hand ends.
    ArrayEnd,
    /// An object begins.
    ObjectStart,
    /// The object at hand ends.
    ObjectEnd,
}

/// A value with everything in it, piece by piece, in one pass.
///
/// [`elements`] and [`members`] look at a container's text once for each level above what is read. That is nothing where a path is
/// followed, but reading a whole value with them takes time in its size times its depth; this takes time in its size.
pub fn tokens(text: &[u8]) -> Tokens<'_> {
    Tokens { text, at: 0 }
}

/// Iterator over the pieces of a value; see [`tokens`].
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r' | b',') = self.text.get(self.at) {
            self.at += 1;
        }
        let token = match self.text.get(self.at)? {
            b'[' => Token::ArrayStart,
            b']' => Token::ArrayEnd,
            b'{' => Token::ObjectStart,
            b'}' => Token::ObjectEnd,
            _ => return self.scalar_or_key(),
        };
        self.at += 1;
        Some(token)
    }
}

impl<'a> Tokens<'a> {
    fn scalar_or_key(&mut self) -> Option<Token<'a>> {
        let (node, end) = value(self.text, self.at);
        if end == self.at {
            self.at = self.text.len();
            return None;
        }
        self.at = end;
        if let Node::Str(key) = node {
            let colon = scan::skip_whitespace(self.text, end);
            if self.text.get(colon) == Some(&b':') {
                self.at = colon + 1;
                return Some(Token::Key(key));
            }
        }
        Some(Token::Scalar(node))
    }
}

/// A number as a 64-bit integer, as strict as Go: `5.0`, `5e0` and what does not fit are none.
pub fn int(number: &str) -> Option<i64> {
    if number.starts_with('+') {
        return None;
    }
    number.parse().ok()
}

/// A number as the nearest 64-bit float; infinite if it is too large, NaN if the text is no number.
pub fn float(number: &str) -> f64 {
    number.parse().unwrap_or(f64::NAN)
}
