//! Decoding: one pass over a frame that validates it as strict JSON and notes where the wanted fields are.
//!
//! Grammar: RFC 8259, nothing more lenient (no byte order mark, no comments, no trailing comma). Go's `encoding/json`, which the
//! predecessor used, differs on purpose: it folds the case of keys, merges repeated objects and repairs invalid UTF-8; here keys match
//! exactly, the last of equal keys wins as a whole, and a frame that is not UTF-8 is refused.

use std::fmt;

use super::found::{Found, Notes};
use super::quick;
use super::quotes::Quotes;
use super::scan::{self, Fault};
use super::tree::Tree;
use super::walk::{Open, Walk};
use super::{RawStr, Slot, SlotId};

/// How deep objects and arrays may nest; the limit of Go's `encoding/json`, so that what the senders could write can be read.
pub const DEPTH_MAX: usize = 10_000;

/// What a scratch keeps for the next record, in bytes of unescaped text; more than that is given back.
const ARENA_BYTES_KEPT: usize = 256 * 1024;

/// What a scratch keeps for the next record, in nested containers; more than that is given back.
const DEPTH_KEPT: usize = 1024;

/// Why a frame is no record.
///
/// Offsets count bytes from the start of the frame. The text of the error shows nothing of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Nothing, or nothing but whitespace.
    Empty,
    /// The first byte starts no JSON object. What follows was not looked at.
    NotObject {
        /// What it looks like instead.
        looks_like: LooksLike,
    },
    /// The text violates JSON's grammar.
    Syntax {
        /// The byte that shows it.
        offset: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// More than [`DEPTH_MAX`] objects and arrays inside each other.
    TooDeep,
    /// Not UTF-8. The whole frame is checked first, so this one comes before any other fault.
    NotUtf8 {
        /// The first byte that belongs to no character.
        offset: usize,
    },
    /// An object, and then something else.
    TrailingData {
        /// The first byte behind the object that is no whitespace.
        offset: usize,
    },
}

/// What a frame that does not start with an object looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LooksLike {
    /// An array, a string, a number, true, false or null.
    OtherJson,
    /// An audit entry in JSONx, the XML form.
    Jsonx,
    /// An object behind a byte order mark.
    ByteOrderMark,
    /// Some text with an object behind it.
    Prefixed,
    /// None of these.
    Unknown,
}

impl DecodeError {
    /// The kind of fault as one word, for metrics and the quarantine log.
    pub fn reason(&self) -> &'static str {
        match self {
            DecodeError::Empty => "empty",
            DecodeError::NotObject { .. } => "not_object",
            DecodeError::Syntax { .. } => "syntax",
            DecodeError::TooDeep => "too_deep",
            DecodeError::NotUtf8 { .. } => "not_utf8",
            DecodeError::TrailingData { .. } => "trailing_data",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Empty => f.write_str("empty"),
            DecodeError::NotObject { looks_like } => {
                f.write_str("not a JSON object")?;
                f.write_str(match looks_like {
                    LooksLike::OtherJson => ": another JSON value",
                    LooksLike::Jsonx => ": looks like JSONx; set format=json on the audit device",
                    LooksLike::ByteOrderMark => ": starts with a byte order mark",
                    LooksLike::Prefixed => {
                        ": text before the object; remove the prefix option of the audit device"
                    }
                    LooksLike::Unknown => "",
                })
            }
            DecodeError::Syntax { offset, what } => write!(f, "invalid JSON at byte {offset}: {what}"),
            DecodeError::TooDeep => write!(f, "nested deeper than {DEPTH_MAX} levels"),
            DecodeError::NotUtf8 { offset } => write!(f, "not UTF-8 at byte {offset}"),
            DecodeError::TrailingData { offset } => {
                write!(f, "more data behind the JSON object, at byte {offset}")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<Fault> for DecodeError {
    fn from(Fault { offset, what }: Fault) -> DecodeError {
        DecodeError::Syntax { offset, what }
    }
}

/// Memory for decoding one record after another. One per thread; it holds no part of a record once the next one is decoded.
///
/// Once it has grown to the usual record, decoding allocates nothing. What a giant record made it grow beyond 256 KiB of unescaped text
/// or 1,024 levels is given back when the next record is decoded.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    found: Vec<Found>,
    open: Vec<Open>,
    arena: String,
}

impl DecodeScratch {
    /// How much memory it holds for the next record, in bytes.
    pub fn bytes_held(&self) -> usize {
        self.found.capacity() * size_of::<Found>()
            + self.open.capacity() * size_of::<Open>()
            + self.arena.capacity()
    }

    /// Forgets the record before and gives back what it alone needed.
    fn reset(&mut self, states: usize) {
        self.open.clear();
        self.open.shrink_to(DEPTH_KEPT);
        self.arena.clear();
        self.arena.shrink_to(ARENA_BYTES_KEPT);
        self.found.clear();
        self.found.resize(states, Found::Unreached);
    }
}

/// A decoded audit entry: its bytes and the wanted fields.
#[derive(Debug, Clone, Copy)]
pub struct Record<'s> {
    /// Valid UTF-8.
    frame: &'s [u8],
    start: usize,
    end: usize,
    found: &'s [Found],
    arena: &'s str,
}

impl<'s> Record<'s> {
    /// The record as it came, without whitespace around it.
    pub fn bytes(&self) -> &'s [u8] {
        cut(self.frame, self.start, self.end)
    }

    /// What the record holds in a wanted field.
    ///
    /// A number that the decoder's plan did not hand out by the time the decoder was built is [`Slot::Unreached`].
    pub fn slot(&self, slot: SlotId) -> Slot<'s> {
        match self.found.get(slot.0 as usize).copied().unwrap_or(Found::Unreached) {
            Found::Unreached => Slot::Unreached,
            Found::Misplaced => Slot::Misplaced,
            Found::Absent => Slot::Absent,
            Found::Null => Slot::Null,
            Found::Bool(value) => Slot::Bool(value),
            Found::Number(start, end) => Slot::Number(text(cut(self.frame, start, end))),
            Found::Str(start, end) | Found::Escaped(start, end) => {
                Slot::Str(text(cut(self.frame, start, end)))
            }
            Found::Unescaped(start, end) => Slot::Str(self.arena.get(start..end).unwrap_or_default()),
            Found::Json(start, end) => Slot::Json(cut(self.frame, start, end)),
        }
    }

    /// How much text a slot holds, in bytes; 0 for what is no string, number, object or array.
    pub(crate) fn text_bytes(&self, slot: SlotId) -> usize {
        match self.found.get(slot.0 as usize) {
            Some(
                Found::Str(start, end)
                | Found::Escaped(start, end)
                | Found::Unescaped(start, end)
                | Found::Number(start, end)
                | Found::Json(start, end),
            ) => end - start,
            _ => 0,
        }
    }

    /// The bytes of a string field; nothing where it is absent or null, `None` where it holds something else.
    #[inline(always)]
    pub(crate) fn text_of(&self, slot: SlotId) -> Option<&'s [u8]> {
        let (text, start, end) = match self.found.get(slot.0 as usize) {
            Some(Found::Str(start, end) | Found::Escaped(start, end)) => (self.frame, *start, *end),
            Some(Found::Unescaped(start, end)) => (self.arena.as_bytes(), *start, *end),
            None | Some(Found::Absent | Found::Unreached | Found::Null) => return Some(b""),
            Some(Found::Misplaced | Found::Bool(_) | Found::Number(..) | Found::Json(..)) => return None,
        };
        Some(cut(text, start, end))
    }
}

/// Offsets come from a walk and lie within the frame.
#[inline(always)]
fn cut(frame: &[u8], start: usize, end: usize) -> &[u8] {
    frame.get(start..end).unwrap_or_default()
}

/// A part of a frame that was checked, from one character's start to another's.
fn text(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap_or_default()
}

/// Extracts what a [`FieldPlan`](super::FieldPlan) asked for. Immutable; share it between threads.
#[derive(Debug, Clone)]
pub struct Decoder {
    tree: Tree,
    /// How many slots the plan had handed out. The first states are the slots, by number.
    slots: u32,
}

impl Decoder {
    pub(super) fn new(tree: Tree, slots: u32) -> Decoder {
        Decoder { tree, slots }
    }

    /// Validates a frame and notes where its wanted fields are.
    ///
    /// The whole frame is checked, wanted or not. Whitespace around the object is fine. Keys match exactly once unescaped; the last of
    /// equal keys wins with everything below it. A surrogate escape without its other half reads as U+FFFD.
    pub fn decode<'s>(
        &self,
        frame: &'s [u8],
        scratch: &'s mut DecodeScratch,
    ) -> Result<Record<'s>, DecodeError> {
        let plain = scan::trim_whitespace_end(frame);
        match self.quickly(plain, scratch) {
            Some(is_plain) => {
                if !is_plain {
                    check_utf8(frame)?;
                }
                Ok(self.record(frame, (0, plain.len()), !is_plain, scratch))
            }
            None => self.carefully(frame, scratch),
        }
    }

    /// [`Decoder::decode`] of a frame as senders write it, without whitespace behind it; [`quick::walk`].
    pub(super) fn quickly(&self, plain: &[u8], scratch: &mut DecodeScratch) -> Option<bool> {
        scratch.reset(self.tree.len());
        quick::walk(plain, Notes { tree: &self.tree, found: &mut scratch.found })
    }

    /// [`Decoder::decode`] of any frame.
    pub(super) fn carefully<'s>(
        &self,
        frame: &'s [u8],
        scratch: &'s mut DecodeScratch,
    ) -> Result<Record<'s>, DecodeError> {
        scratch.reset(self.tree.len());
        check_utf8(frame)?;
        let start = scan::skip_whitespace(frame, 0);
        match frame.get(start) {
            Some(b'{') => {}
            Some(_) => {
                return Err(DecodeError::NotObject {
                    looks_like: looks_like(text(cut(frame, start, frame.len()))),
                });
            }
            None => return Err(DecodeError::Empty),
        }
        let end = Walk {
            notes: Notes { tree: &self.tree, found: &mut scratch.found },
            text: frame,
            quotes: Quotes::new(frame),
            open: &mut scratch.open,
        }
        .run(start)?;
        let rest = scan::skip_whitespace(frame, end);
        if rest < frame.len() {
            return Err(DecodeError::TrailingData { offset: rest });
        }
        Ok(self.record(frame, (start, end), true, scratch))
    }

    /// What was found in the frame, unescaped; there are no escapes in it unless it `may_have_escapes`.
    fn record<'s>(
        &self,
        frame: &'s [u8],
        (start, end): (usize, usize),
        may_have_escapes: bool,
        scratch: &'s mut DecodeScratch,
    ) -> Record<'s> {
        let found = scratch.found.get_mut(..self.slots as usize).unwrap_or_default();
        if may_have_escapes {
            for found in found.iter_mut() {
                if let Found::Escaped(from, to) = *found {
                    let before = scratch.arena.len();
                    RawStr::new(cut(frame, from, to)).unescape_into(&mut scratch.arena);
                    *found = Found::Unescaped(before, scratch.arena.len());
                }
            }
        }
        Record { frame, start, end, found, arena: &scratch.arena }
    }
}

/// The whole frame is checked before anything else is.
fn check_utf8(frame: &[u8]) -> Result<(), DecodeError> {
    let checked = std::str::from_utf8(frame);
    checked.map(drop).map_err(|error| DecodeError::NotUtf8 { offset: error.valid_up_to() })
}

/// What the text of a frame that starts with no object looks like.
#[cold]
fn looks_like(text: &str) -> LooksLike {
    if text.starts_with("<json:") || text.starts_with("<?xml") {
        LooksLike::Jsonx
    } else if text.starts_with('\u{feff}') {
        LooksLike::ByteOrderMark
    } else if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        LooksLike::OtherJson
    } else if text.contains('{') {
        LooksLike::Prefixed
    } else {
        LooksLike::Unknown
    }
}
