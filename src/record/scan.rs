//! The lexical part of strict JSON (RFC 8259): where a string, a number or a literal ends, and what is wrong when it does not.
//!
//! Whether the bytes are UTF-8 is found out elsewhere. Nothing here allocates, recurses or panics, whatever the bytes are.

use wide::u8x16;

/// What is wrong with a text, and the offset of the byte that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) what: &'static str,
}

impl Fault {
    #[cold]
    pub(super) fn new(offset: usize, what: &'static str) -> Fault {
        Fault { offset, what }
    }
}

/// The text ends where more is needed.
pub(super) const UNEXPECTED_END: &str = "the text ends too early";

/// The fault of a byte at `at` that is not what was expected, or is not there.
#[cold]
pub(super) fn missing(text: &[u8], at: usize, expected: &'static str) -> Fault {
    Fault::new(at, if at < text.len() { expected } else { UNEXPECTED_END })
}

/// Index of the next quotation mark, backslash or control character at or after `at`, or the text's length.
#[inline]
fn next_stop(text: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let bytes = u8x16::new(*chunk);
        let stops = bytes.simd_eq(u8x16::splat(b'"'))
            | bytes.simd_eq(u8x16::splat(b'\\'))
            | bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
        let stops = stops.to_bitmask();
        if stops != 0 {
            return at + stops.trailing_zeros() as usize;
        }
        at += 16;
    }
    while let Some(&byte) = text.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}

/// A string's text: where its closing quotation mark is, and whether there are escapes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StringEnd {
    pub(super) quote: usize,
    pub(super) escaped: bool,
}

/// Finds the end of the string whose first byte behind the opening quotation mark is at `at`.
#[inline(always)]
pub(super) fn string(text: &[u8], at: usize) -> Result<StringEnd, Fault> {
    let stop = next_stop(text, at);
    if text.get(stop) == Some(&b'"') {
        return Ok(StringEnd { quote: stop, escaped: false });
    }
    string_with_escapes(text, stop)
}

#[cold]
fn string_with_escapes(text: &[u8], mut at: usize) -> Result<StringEnd, Fault> {
    let mut escaped = false;
    loop {
        match text.get(at) {
            Some(b'"') => return Ok(StringEnd { quote: at, escaped }),
            Some(b'\\') => {
                at = escape(text, at)?;
                escaped = true;
            }
            Some(_) => return Err(Fault::new(at, "a control character in a string must be escaped")),
            None => return Err(Fault::new(at, UNEXPECTED_END)),
        }
        at = next_stop(text, at);
    }
}

/// The index behind the escape sequence whose backslash is at `at`.
fn escape(text: &[u8], at: usize) -> Result<usize, Fault> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            for digit in at + 2..at + 6 {
                match text.get(digit) {
                    Some(byte) if byte.is_ascii_hexdigit() => {}
                    Some(_) => return Err(Fault::new(digit, "\\u needs four hexadecimal digits")),
                    None => return Err(Fault::new(digit, UNEXPECTED_END)),
                }
            }
            Ok(at + 6)
        }
        Some(_) => Err(Fault::new(at + 1, "unknown escape sequence")),
        None => Err(Fault::new(at + 1, UNEXPECTED_END)),
    }
}

/// The index behind the number that starts at `at` with a digit or a minus sign.
#[inline]
pub(super) fn number(text: &[u8], mut at: usize) -> Result<usize, Fault> {
    if text.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match text.get(at) {
        // A digit behind a leading zero is no part of the number; the caller stumbles over it.
        Some(b'0') => at + 1,
        _ => digits(text, at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = digits(text, at)?;
    }
    Ok(at)
}

/// The index behind one or more digits.
#[inline]
fn digits(text: &[u8], start: usize) -> Result<usize, Fault> {
    let mut at = start;
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at > start {
        return Ok(at);
    }
    Err(missing(text, at, "a number needs a digit here"))
}

/// The index behind `word` (`null`, `true`, `false`), which must start at `at`.
#[inline]
pub(super) fn literal(text: &[u8], at: usize, word: &'static [u8]) -> Result<usize, Fault> {
    if text.get(at..).is_some_and(|rest| rest.starts_with(word)) {
        return Ok(at + word.len());
    }
    let same =
        word.iter().zip(text.get(at..).unwrap_or_default()).take_while(|(want, got)| want == got).count();
    let offset = at + same;
    Err(missing(text, offset, "expected null, true or false"))
}

/// The index of the first byte at or after `at` that is no JSON whitespace.
#[inline(always)]
pub(super) fn skip_whitespace(text: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = text.get(at) {
        // Nearly every byte asked for is a visible one.
        if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            break;
        }
        at += 1;
    }
    at
}

/// The text without the JSON whitespace at its end.
#[inline(always)]
pub(super) fn trim_whitespace_end(mut text: &[u8]) -> &[u8] {
    while let [before @ .., b' ' | b'\t' | b'\n' | b'\r'] = text {
        text = before;
    }
    text
}
