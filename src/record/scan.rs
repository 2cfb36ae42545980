//! The lexical part of strict JSON (RFC 8259): where a string, a number or a literal ends, and what is wrong when it does not.
//!
//! Works on bytes that are already known to be UTF-8. Nothing here allocates, recurses or panics, whatever the bytes are.

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

/// Which of 16 bytes are quotation marks, and which end plain text in a string: backslashes and control characters.
#[inline(always)]
fn classify(chunk: [u8; 16]) -> (u32, u32) {
    let bytes = u8x16::new(chunk);
    let quotes = bytes.simd_eq(u8x16::splat(b'"'));
    let backslashes = bytes.simd_eq(u8x16::splat(b'\\'));
    let controls = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    (quotes.to_bitmask(), (backslashes | controls).to_bitmask())
}

/// Index of the next quotation mark, backslash or control character at or after `at`, or the text's length.
#[inline]
fn next_stop(text: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let (quotes, specials) = classify(*chunk);
        if quotes | specials != 0 {
            return at + (quotes | specials).trailing_zeros() as usize;
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

/// The quotation marks of a text, 64 bytes at a time.
///
/// A reader that goes from string to string in order finds each one's end here without looking at the bytes between: the position of
/// the next quotation mark does not wait for the previous one to be looked at, which is what limits a scanner of short strings.
pub(super) struct Quotes<'a> {
    text: &'a [u8],
    /// Start of the block at hand, a multiple of 64.
    base: usize,
    /// Quotation marks in the block that have not been passed.
    quotes: u64,
    /// Backslashes and control characters in the block.
    specials: u64,
}

const BLOCK: usize = 64;

impl<'a> Quotes<'a> {
    pub(super) fn new(text: &'a [u8]) -> Quotes<'a> {
        let mut quotes = Quotes { text, base: 0, quotes: 0, specials: 0 };
        quotes.load(0);
        quotes
    }

    /// Makes the block that starts at `base` the one at hand.
    #[inline(always)]
    fn load(&mut self, base: usize) {
        self.base = base;
        match self.text.get(base..).and_then(<[u8]>::first_chunk::<BLOCK>) {
            Some(block) => self.classify(block),
            None => self.load_tail(),
        }
    }

    #[cold]
    fn load_tail(&mut self) {
        let mut block = [b' '; BLOCK];
        let tail = self.text.get(self.base..).unwrap_or_default();
        block.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
        self.classify(&block);
    }

    #[inline(always)]
    fn classify(&mut self, block: &[u8; BLOCK]) {
        (self.quotes, self.specials) = (0, 0);
        for (index, chunk) in block.as_chunks::<16>().0.iter().enumerate() {
            let (quotes, specials) = classify(*chunk);
            self.quotes |= u64::from(quotes) << (16 * index);
            self.specials |= u64::from(specials) << (16 * index);
        }
    }

    /// Goes to the next block; false at the end of the text.
    #[inline(always)]
    fn advance(&mut self) -> bool {
        let next = self.base + BLOCK;
        if next >= self.text.len() {
            return false;
        }
        self.load(next);
        true
    }

    /// Finds the end of the string whose first byte behind the opening quotation mark is at `at`. That mark must be the first one not
    /// passed yet.
    #[inline(always)]
    pub(super) fn string(&mut self, at: usize) -> Result<StringEnd, Fault> {
        while self.quotes == 0 && self.advance() {}
        let through_opening = self.quotes ^ self.quotes.wrapping_sub(1);
        self.quotes &= self.quotes.wrapping_sub(1);
        let mut specials = self.specials & !through_opening;
        let mut specials_before = 0;
        while self.quotes == 0 {
            specials_before |= specials;
            if !self.advance() {
                return self.careful_string(at);
            }
            specials = self.specials;
        }
        let through_closing = self.quotes ^ self.quotes.wrapping_sub(1);
        let quote = self.base + self.quotes.trailing_zeros() as usize;
        self.quotes &= self.quotes.wrapping_sub(1);
        if specials_before | (specials & through_closing) != 0 {
            return self.careful_string(at);
        }
        Ok(StringEnd { quote, escaped: false })
    }

    /// [`Quotes::string`] for strings with escapes in them, or faults.
    #[cold]
    fn careful_string(&mut self, at: usize) -> Result<StringEnd, Fault> {
        let end = string(self.text, at)?;
        let behind = end.quote + 1;
        self.load(behind - behind % BLOCK);
        self.quotes &= u64::MAX << (behind % BLOCK);
        Ok(end)
    }
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
    Err(Fault::new(at, if at < text.len() { "a number needs a digit here" } else { UNEXPECTED_END }))
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
    Err(Fault::new(offset, if offset < text.len() { "expected null, true or false" } else { UNEXPECTED_END }))
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
