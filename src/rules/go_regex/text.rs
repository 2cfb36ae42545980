//! Reads characters, escapes and repetition operators of a pattern. Places are byte offsets.

use std::ops::Range;

use super::GoRegexError;

pub(super) const INVALID_ESCAPE: &str = "invalid escape sequence";
pub(super) const TRAILING_BACKSLASH: &str = "trailing backslash at end of expression";

pub(super) type Result<T> = std::result::Result<T, GoRegexError>;

/// The text of a pattern.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'p>(pub(super) &'p str);

impl Text<'_> {
    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.0.as_bytes().get(at).copied()
    }

    /// The character at `at` and the place after it. At the end: U+FFFD and the end, as Go's decoder does, which
    /// its parser relies on.
    pub(super) fn next_char(&self, at: usize) -> (char, usize) {
        match self.0.get(at..).and_then(|rest| rest.chars().next()) {
            Some(c) => (c, at + c.len_utf8()),
            None => (char::REPLACEMENT_CHARACTER, at),
        }
    }

    pub(super) fn error(&self, message: &str, span: Range<usize>) -> GoRegexError {
        let fragment = self.0.get(span.clone()).unwrap_or_default().to_owned();
        GoRegexError { span, message: message.to_owned(), fragment }
    }

    /// Minimum, maximum and the place after the operator at `at`; `None` for a `{` that is a character. A count
    /// too large to be read has `None` as minimum.
    pub(super) fn operator(&self, at: usize) -> Option<(Option<u32>, Option<u32>, usize)> {
        match self.byte(at)? {
            b'*' => return Some((Some(0), None, at + 1)),
            b'+' => return Some((Some(1), None, at + 1)),
            b'?' => return Some((Some(0), Some(1), at + 1)),
            _ => {}
        }
        let (min, mut place) = self.count(at + 1)?;
        let (mut min, mut max) = (min, min);
        if self.byte(place)? == b',' {
            place += 1;
            if self.byte(place)? == b'}' {
                max = None;
            } else {
                (max, place) = self.count(place)?;
                if max.is_none() {
                    min = None;
                }
            }
        }
        (self.byte(place)? == b'}').then_some((min, max, place + 1))
    }

    /// A decimal number without leading zeros and the place after it. The value is `None` beyond 8 digits.
    fn count(&self, at: usize) -> Option<(Option<u32>, usize)> {
        let rest = &self.0.as_bytes()[at.min(self.0.len())..];
        let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if len == 0 || (len > 1 && rest[0] == b'0') {
            return None;
        }
        let value = if len > 8 { None } else { self.0[at..at + len].parse().ok() };
        Some((value, at + len))
    }

    /// The code point of the escape at `at`, which is a backslash, and the place after it.
    pub(super) fn escape(&self, at: usize) -> Result<(u32, usize)> {
        if at + 1 >= self.0.len() {
            return Err(self.error(TRAILING_BACKSLASH, self.0.len()..self.0.len()));
        }
        let (c, after) = self.next_char(at + 1);
        let code = match c {
            '0'..='7' if c == '0' || self.octal_digit(after).is_some() => return Ok(self.octal(at + 1)),
            'x' => return self.hexadecimal(at, after),
            'a' => 0x07,
            'f' => 0x0C,
            'n' => 0x0A,
            'r' => 0x0D,
            't' => 0x09,
            'v' => 0x0B,
            _ if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
            _ => return Err(self.error(INVALID_ESCAPE, at..after)),
        };
        Ok((code, after))
    }

    fn octal_digit(&self, at: usize) -> Option<u32> {
        (self.byte(at)? as char).to_digit(8)
    }

    /// One to three octal digits.
    fn octal(&self, at: usize) -> (u32, usize) {
        let digits = (at..at + 3).map_while(|place| self.octal_digit(place));
        digits.fold((0, at), |(code, place), digit| (code * 8 + digit, place + 1))
    }

    /// `\xFF` or `\x{10FFFF}`; `after` is the place behind the `x`.
    fn hexadecimal(&self, at: usize, after: usize) -> Result<(u32, usize)> {
        let invalid = |end: usize| Err(self.error(INVALID_ESCAPE, at..end));
        if after >= self.0.len() {
            return invalid(after);
        }
        let (first, mut place) = self.next_char(after);
        if first != '{' {
            let (second, end) = self.next_char(place);
            return match (first.to_digit(16), second.to_digit(16)) {
                (Some(high), Some(low)) => Ok((high * 16 + low, end)),
                _ => invalid(end),
            };
        }
        let mut code = 0;
        while place < self.0.len() {
            let (c, end) = self.next_char(place);
            match c.to_digit(16) {
                Some(digit) => code = code * 16 + digit,
                // At least one digit.
                None if c == '}' && place > after + 1 => return Ok((code, end)),
                None => return invalid(end),
            }
            if code > u32::from(char::MAX) {
                return invalid(end);
            }
            place = end;
        }
        invalid(place)
    }
}
