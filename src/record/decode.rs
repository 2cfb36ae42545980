//! Decoding: one pass over a frame that validates it as strict JSON and notes where the wanted fields are.
//!
//! Grammar: RFC 8259, nothing more lenient (no byte order mark, no comments, no trailing comma). Go's `encoding/json`, which the
//! predecessor used, differs on purpose: it folds the case of keys, merges repeated objects and repairs invalid UTF-8; here keys match
//! exactly, the last of equal keys wins as a whole, and a frame that is not UTF-8 is refused.

use std::fmt;

use super::plan::{NodeId, ROOT};
use super::scan::{self, Fault, UNEXPECTED_END};
use super::{RawStr, Slot, SlotId};

/// How deep objects and arrays may nest; the limit of Go's `encoding/json`, so that what the senders could write can be read.
pub const DEPTH_MAX: usize = 10_000;

/// What a scratch keeps for the next record, in bytes of unescaped text; more than that is given back.
const ARENA_BYTES_KEPT: usize = 256 * 1024;

/// What a scratch keeps for the next record, in nested containers; more than that is given back.
const DEPTH_KEPT: usize = 1024;

/// Not a node: the value here interests nobody.
const NOBODY: NodeId = NodeId::MAX;

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

/// A field's state in the record at hand; offsets into the frame, or into the arena for [`Found::Unescaped`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Unreached,
    Absent,
    Null,
    Bool(bool),
    Number(usize, usize),
    Str(usize, usize),
    Escaped(usize, usize),
    Unescaped(usize, usize),
    Json(usize, usize),
}

/// An object or array that is open.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// Who wants it or something in it.
    node: NodeId,
    is_array: bool,
    start: usize,
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
    frame: &'s str,
    start: usize,
    end: usize,
    found: &'s [Found],
    arena: &'s str,
}

impl<'s> Record<'s> {
    /// The record as it came, without whitespace around it.
    pub fn bytes(&self) -> &'s [u8] {
        self.text().as_bytes()
    }

    /// [`Record::bytes`] as text.
    pub fn text(&self) -> &'s str {
        cut(self.frame, self.start, self.end)
    }

    /// What the record holds in a wanted field.
    ///
    /// A number that the decoder's plan did not hand out by the time the decoder was built is [`Slot::Unreached`].
    pub fn slot(&self, slot: SlotId) -> Slot<'s> {
        match self.found.get(slot.0 as usize).copied().unwrap_or(Found::Unreached) {
            Found::Unreached => Slot::Unreached,
            Found::Absent => Slot::Absent,
            Found::Null => Slot::Null,
            Found::Bool(value) => Slot::Bool(value),
            Found::Number(start, end) => Slot::Number(cut(self.frame, start, end)),
            Found::Str(start, end) | Found::Escaped(start, end) => Slot::Str(cut(self.frame, start, end)),
            Found::Unescaped(start, end) => Slot::Str(cut(self.arena, start, end)),
            Found::Json(start, end) => Slot::Json(cut(self.frame, start, end).as_bytes()),
        }
    }
}

/// Offsets come from the scanner and lie at character boundaries.
fn cut(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

/// A wanted key below a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedKey {
    pub(super) name: Box<[u8]>,
    pub(super) node: NodeId,
}

/// Extracts what a [`FieldPlan`](super::FieldPlan) asked for. Immutable; share it between threads.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// Wanted keys by node, sorted by length.
    keys: Vec<Box<[WantedKey]>>,
    /// Where each node keeps its state: nodes with a slot first, by its number, then the nodes in between.
    states: Vec<u32>,
    /// How many slots the plan had handed out.
    slots: u32,
}

impl Decoder {
    /// `keys` by node, and the state index of each node; the first `slots` states are the slots.
    pub(super) fn new(keys: Vec<Box<[WantedKey]>>, states: Vec<u32>, slots: u32) -> Decoder {
        Decoder { keys, states, slots }
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
        scratch.reset(self.states.len());
        let text = match std::str::from_utf8(frame) {
            Ok(text) => text,
            Err(error) => return Err(DecodeError::NotUtf8 { offset: error.valid_up_to() }),
        };
        let start = scan::skip_whitespace(frame, 0);
        match frame.get(start) {
            Some(b'{') => {}
            Some(_) => {
                return Err(DecodeError::NotObject {
                    looks_like: looks_like(text.get(start..).unwrap_or_default()),
                });
            }
            None => return Err(DecodeError::Empty),
        }
        let end = Walk { decoder: self, text: frame, found: &mut scratch.found, open: &mut scratch.open }
            .run(start)?;
        let rest = scan::skip_whitespace(frame, end);
        if rest < frame.len() {
            return Err(DecodeError::TrailingData { offset: rest });
        }
        for found in scratch.found.iter_mut().take(self.slots as usize) {
            if let Found::Escaped(from, to) = *found {
                let before = scratch.arena.len();
                RawStr::new(cut(text, from, to).as_bytes()).unescape_into(&mut scratch.arena);
                *found = Found::Unescaped(before, scratch.arena.len());
            }
        }
        let found = scratch.found.get(..self.slots as usize).unwrap_or_default();
        Ok(Record { frame: text, start, end, found, arena: &scratch.arena })
    }

    fn keys_of(&self, node: NodeId) -> &[WantedKey] {
        self.keys.get(node as usize).map_or(&[], |keys| keys)
    }

    /// The node below `parent` for a key as it stands in the text.
    fn find(&self, parent: NodeId, key: &[u8], escaped: bool) -> NodeId {
        let keys = self.keys_of(parent);
        let found = if escaped {
            keys.iter().find(|wanted| RawStr::new(key).eq_bytes(&wanted.name))
        } else {
            keys.iter().find(|wanted| *wanted.name == *key)
        };
        found.map_or(NOBODY, |wanted| wanted.node)
    }
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

/// The walk over one text.
struct Walk<'a> {
    decoder: &'a Decoder,
    text: &'a [u8],
    found: &'a mut [Found],
    open: &'a mut Vec<Open>,
}

impl Walk<'_> {
    /// Walks over the object that starts at `at`; the index behind it.
    fn run(&mut self, mut at: usize) -> Result<usize, DecodeError> {
        let mut node = ROOT;
        loop {
            at = match self.text.get(at) {
                Some(b'{') => {
                    let inside = self.enter(node, at, false)?;
                    if self.text.get(inside) != Some(&b'}') {
                        (node, at) = self.key(node, inside)?;
                        continue;
                    }
                    inside
                }
                Some(b'[') => {
                    let inside = self.enter(node, at, true)?;
                    if self.text.get(inside) != Some(&b']') {
                        (node, at) = (NOBODY, inside);
                        continue;
                    }
                    inside
                }
                Some(b'"') => self.string(node, at + 1)?,
                Some(b'0'..=b'9' | b'-') => {
                    let end = scan::number(self.text, at)?;
                    self.note(node, Found::Number(at, end));
                    end
                }
                Some(b't') => self.literal(node, at, b"true", Found::Bool(true))?,
                Some(b'f') => self.literal(node, at, b"false", Found::Bool(false))?,
                Some(b'n') => self.literal(node, at, b"null", Found::Null)?,
                Some(_) => return Err(Fault::new(at, "expected a value").into()),
                None => return Err(Fault::new(at, UNEXPECTED_END).into()),
            };
            match self.leave(at)? {
                Next::Value(next_node, next_at) => (node, at) = (next_node, next_at),
                Next::End(end) => return Ok(end),
            }
        }
    }

    /// Opens the container at `at`; the index of the first byte in it that is no whitespace.
    #[inline]
    fn enter(&mut self, node: NodeId, at: usize, is_array: bool) -> Result<usize, DecodeError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        self.open.push(Open { node, is_array, start: at });
        if node != NOBODY {
            self.note(node, Found::Json(at, at));
            if !is_array {
                self.each_below(node, Found::Absent);
            }
        }
        Ok(scan::skip_whitespace(self.text, at + 1))
    }

    /// Closes containers that end at or after `at` and finds where the next value is.
    #[inline]
    fn leave(&mut self, mut at: usize) -> Result<Next, DecodeError> {
        loop {
            at = scan::skip_whitespace(self.text, at);
            let Some(Open { node, is_array, start }) = self.open.last().copied() else {
                return Ok(Next::End(at));
            };
            match (self.text.get(at), is_array) {
                (Some(b','), false) => {
                    let (node, at) = self.key(node, scan::skip_whitespace(self.text, at + 1))?;
                    return Ok(Next::Value(node, at));
                }
                (Some(b','), true) => {
                    return Ok(Next::Value(NOBODY, scan::skip_whitespace(self.text, at + 1)));
                }
                (Some(b'}'), false) | (Some(b']'), true) => {
                    at += 1;
                    self.open.pop();
                    self.note(node, Found::Json(start, at));
                    if self.open.is_empty() {
                        return Ok(Next::End(at));
                    }
                }
                (Some(_), false) => return Err(Fault::new(at, "expected ',' or '}'").into()),
                (Some(_), true) => return Err(Fault::new(at, "expected ',' or ']'").into()),
                (None, _) => return Err(Fault::new(at, UNEXPECTED_END).into()),
            }
        }
    }

    /// Reads a key of an object that belongs to `parent`, and its colon: whose value follows, and where it starts.
    #[inline]
    fn key(&mut self, parent: NodeId, at: usize) -> Result<(NodeId, usize), DecodeError> {
        match self.text.get(at) {
            Some(b'"') => {}
            Some(_) => return Err(Fault::new(at, "expected a key in quotation marks").into()),
            None => return Err(Fault::new(at, UNEXPECTED_END).into()),
        }
        let key = scan::string(self.text, at + 1)?;
        let mut node = NOBODY;
        if parent != NOBODY {
            node =
                self.decoder.find(parent, self.text.get(at + 1..key.quote).unwrap_or_default(), key.escaped);
            if node != NOBODY {
                self.forget(node);
            }
        }
        let colon = scan::skip_whitespace(self.text, key.quote + 1);
        match self.text.get(colon) {
            Some(b':') => Ok((node, scan::skip_whitespace(self.text, colon + 1))),
            Some(_) => Err(Fault::new(colon, "expected ':'").into()),
            None => Err(Fault::new(colon, UNEXPECTED_END).into()),
        }
    }

    #[inline]
    fn string(&mut self, node: NodeId, at: usize) -> Result<usize, DecodeError> {
        let end = scan::string(self.text, at)?;
        if node != NOBODY {
            let found = if end.escaped { Found::Escaped(at, end.quote) } else { Found::Str(at, end.quote) };
            self.note(node, found);
        }
        Ok(end.quote + 1)
    }

    #[inline]
    fn literal(
        &mut self,
        node: NodeId,
        at: usize,
        word: &'static [u8],
        found: Found,
    ) -> Result<usize, DecodeError> {
        let end = scan::literal(self.text, at, word)?;
        self.note(node, found);
        Ok(end)
    }

    #[inline(always)]
    fn note(&mut self, node: NodeId, found: Found) {
        if let Some(state) = self.decoder.states.get(node as usize)
            && let Some(place) = self.found.get_mut(*state as usize)
        {
            *place = found;
        }
    }

    fn each_below(&mut self, node: NodeId, found: Found) {
        let decoder = self.decoder;
        for key in decoder.keys_of(node) {
            self.note(key.node, found);
        }
    }

    /// Drops what an earlier key of the same name left in `node`'s fields.
    #[inline]
    fn forget(&mut self, node: NodeId) {
        let state = self.decoder.states.get(node as usize).copied().unwrap_or(u32::MAX);
        if self.found.get(state as usize) != Some(&Found::Absent) {
            self.forget_below(node);
        }
    }

    #[cold]
    fn forget_below(&mut self, node: NodeId) {
        let decoder = self.decoder;
        let mut nodes = vec![node];
        while let Some(node) = nodes.pop() {
            self.each_below(node, Found::Unreached);
            nodes.extend(decoder.keys_of(node).iter().map(|key| key.node));
        }
    }
}

/// What comes after a value.
enum Next {
    /// A value for a node, and where it starts.
    Value(NodeId, usize),
    /// The end of the outermost object.
    End(usize),
}
