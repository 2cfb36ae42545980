//! String functions. Strings are bytes, as in Go: cutting one through a character is allowed.

use std::borrow::Cow;

use super::super::eval::Vm;
use super::super::types::Slice;
use super::super::value::{Evaluated, Fault, Items, Value, fault};

/// The text with each byte that is not UTF-8 replaced by U+FFFD, as Go walks over a string.
pub(crate) fn replaced(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(runes(text).map(|(c, _)| c).collect())
}

/// The characters of a text with their lengths in bytes; a byte that is not UTF-8 is U+FFFD.
pub(crate) fn runes(text: &[u8]) -> impl Iterator<Item = (char, usize)> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (c, length) = rune(rest)?;
        rest = rest.get(length..).unwrap_or(&[]);
        Some((c, length))
    })
}

fn rune(text: &[u8]) -> Option<(char, usize)> {
    let first = *text.first()?;
    let length = match first {
        0x00..=0x7f => return Some((first as char, 1)),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Some(('\u{fffd}', 1)),
    };
    let decoded = text.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match decoded.and_then(|text| text.chars().next()) {
        Some(c) => Some((c, length)),
        None => Some(('\u{fffd}', 1)),
    }
}

pub(crate) fn rune_count(text: &[u8]) -> usize {
    match std::str::from_utf8(text) {
        Ok(text) => text.chars().count(),
        Err(_) => runes(text).count(),
    }
}

/// Unicode's simple upper case, one character for one, as Go maps it.
fn upper(c: char) -> char {
    let mut mapped = c.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(only), None) => only,
        // The Greek letters with iota subscript have simple capitals besides their full ones.
        _ => match c as u32 {
            code @ (0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7) => {
                char::from_u32(code + 8).unwrap_or(c)
            }
            0x1fb3 => '\u{1fbc}',
            0x1fc3 => '\u{1fcc}',
            0x1ff3 => '\u{1ffc}',
            _ => c,
        },
    }
}

fn lower(c: char) -> char {
    // The only letter whose full lower case has two characters.
    if c == '\u{130}' { 'i' } else { c.to_lowercase().next().unwrap_or(c) }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, wanted)
}

impl<'a> Vm<'a> {
    pub(super) fn string_builtin(&self, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
        if name == "join" {
            return self.join(args);
        }
        let text = args.first().copied().unwrap_or(Value::Nil).str()?;
        let second = args.get(1).copied();
        self.step(text.len() / 64)?;
        let wanted = || second.unwrap_or(Value::Nil).str();
        Ok(match name {
            "trim" => Value::Str(match second {
                None => trim(text, &|c| c.is_whitespace()),
                Some(cut) => {
                    let cut = replaced(cut.str()?);
                    self.step(text.len().saturating_mul(cut.len()) / 64)?;
                    trim(text, &|c| cut.contains(c))
                }
            }),
            "trimPrefix" => {
                let prefix = second.map_or(Ok(b" ".as_slice()), Value::str)?;
                Value::Str(text.strip_prefix(prefix).unwrap_or(text))
            }
            "trimSuffix" => {
                let suffix = second.map_or(Ok(b" ".as_slice()), Value::str)?;
                Value::Str(text.strip_suffix(suffix).unwrap_or(text))
            }
            "upper" => return self.mapped_text(text, upper),
            "lower" => return self.mapped_text(text, lower),
            "split" | "splitAfter" => {
                return self.split(text, wanted()?, name == "splitAfter", args.get(2).copied());
            }
            "replace" => return self.replace(text, wanted()?, args),
            "repeat" => return self.repeat(text, second.unwrap_or(Value::Nil).to_int()?),
            "indexOf" => Value::Int(find(text, wanted()?).map_or(-1, |at| at as i64)),
            "lastIndexOf" => Value::Int(memchr::memmem::rfind(text, wanted()?).map_or(-1, |at| at as i64)),
            "hasPrefix" => Value::Bool(text.starts_with(wanted()?)),
            _ => Value::Bool(text.ends_with(wanted()?)),
        })
    }

    fn mapped_text(&self, text: &[u8], map: fn(char) -> char) -> Evaluated<'a> {
        self.take_bytes(text.len().saturating_mul(2))?;
        let mut mapped = bumpalo::collections::String::with_capacity_in(text.len(), self.bump);
        mapped.extend(runes(text).map(|(c, _)| map(c)));
        Ok(Value::Str(mapped.into_bump_str().as_bytes()))
    }

    /// `limit` as in Go's `SplitN`: none or negative for all, 0 for nil, otherwise that many parts at most.
    fn split(&self, text: &'a [u8], separator: &[u8], keep: bool, limit: Option<Value<'a>>) -> Evaluated<'a> {
        let limit = limit.map_or(Ok(-1), Value::to_int)?;
        if limit == 0 {
            return Ok(self.nil_array(Slice::Str));
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut parts = bumpalo::collections::Vec::new_in(self.bump);
        let mut rest = text;
        if separator.is_empty() {
            while parts.len() + 1 < limit && rest.len() > rune(rest).map_or(0, |(_, length)| length) {
                let (part, after) = rest.split_at(rune(rest).map_or(0, |(_, length)| length));
                self.take_bytes(size_of::<&[u8]>())?;
                parts.push(part);
                rest = after;
            }
            if !rest.is_empty() {
                parts.push(rest);
            }
        } else {
            while parts.len() + 1 < limit {
                let Some(at) = find(rest, separator) else { break };
                let end = if keep { at + separator.len() } else { at };
                self.take_bytes(size_of::<&[u8]>())?;
                parts.push(rest.get(..end).unwrap_or(b""));
                rest = rest.get(at + separator.len()..).unwrap_or(b"");
            }
            parts.push(rest);
        }
        Ok(self.array(Slice::Str, Items::Strs(parts.into_bump_slice())))
    }

    fn replace(&self, text: &'a [u8], old: &[u8], args: &[Value<'a>]) -> Evaluated<'a> {
        let new = args.get(2).copied().unwrap_or(Value::Nil).str()?;
        let limit = args.get(3).map_or(Ok(-1), |limit| limit.to_int())?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut out = bumpalo::collections::Vec::new_in(self.bump);
        let mut rest = text;
        let mut done = 0;
        while done < limit {
            let (skip, cut) = if old.is_empty() {
                // Before the first character, between characters and after the last one.
                match (done, rune(rest)) {
                    (0, _) => (0, 0),
                    (_, Some((_, length))) => (length, 0),
                    (_, None) => break,
                }
            } else {
                match find(rest, old) {
                    Some(at) => (at, old.len()),
                    None => break,
                }
            };
            self.step(1)?;
            self.take_bytes(skip + new.len())?;
            out.extend_from_slice(rest.get(..skip).unwrap_or(b""));
            out.extend_from_slice(new);
            rest = rest.get(skip + cut..).unwrap_or(b"");
            done += 1;
        }
        self.take_bytes(rest.len())?;
        out.extend_from_slice(rest);
        Ok(Value::Str(out.into_bump_slice()))
    }

    fn repeat(&self, text: &[u8], times: i64) -> Evaluated<'a> {
        let times = usize::try_from(times)
            .map_err(|_| fault(format!("`repeat` wants a count of 0 or more, found {times}")))?;
        let length = text.len().saturating_mul(times);
        // As Go: the count and the bytes both count against the budget of elements.
        self.grow(if times > 1_000_000 { usize::MAX } else { length })?;
        self.take_bytes(length)?;
        Ok(Value::Str(self.bump.alloc_slice_fill_iter((0..length).map(|at| text[at % text.len()]))))
    }

    fn join(&self, args: &[Value<'a>]) -> Evaluated<'a> {
        let glue = args.get(1).map_or(Ok(b"".as_slice()), |glue| glue.str())?;
        let array = match args.first() {
            Some(Value::Array(array)) if matches!(array.slice, Slice::Str | Slice::Any) => array,
            other => return Err(super::wrong("join", other.copied().unwrap_or(Value::Nil))),
        };
        let mut out = bumpalo::collections::Vec::new_in(self.bump);
        for (index, item) in array.items.iter().enumerate() {
            let item: Result<&[u8], Fault> = item.str();
            let item = item?;
            self.take_bytes(item.len() + glue.len())?;
            if index > 0 {
                out.extend_from_slice(glue);
            }
            out.extend_from_slice(item);
        }
        Ok(Value::Str(out.into_bump_slice()))
    }
}

fn trim<'t>(text: &'t [u8], cut: &dyn Fn(char) -> bool) -> &'t [u8] {
    let mut start = 0;
    for (c, length) in runes(text) {
        if !cut(c) {
            break;
        }
        start += length;
    }
    let text = text.get(start..).unwrap_or(b"");
    let mut end = text.len();
    while end > 0 {
        // The last character: at most four bytes back.
        let last = (1..=4.min(end)).rev().find_map(|length| {
            let part = text.get(end - length..end)?;
            rune(part).filter(|(_, found)| *found == length)
        });
        let (c, length) = last.unwrap_or(('\u{fffd}', 1));
        if !cut(c) {
            break;
        }
        end -= length;
    }
    text.get(..end).unwrap_or(b"")
}
