//! Decoding: one pass over a frame that validates it as strict JSON and notes where the wanted fields are.
//!
//! Grammar: RFC 8259, nothing more lenient (no byte order mark, no comments, no trailing comma). Go's `encoding/json`, which the
//! predecessor used, differs on purpose: it folds the case of keys, merges repeated objects and repairs invalid UTF-8; here keys match
//! exactly, the last of equal keys wins as a whole, and a frame that is not UTF-8 is refused.

use std::fmt;

use super::scan::{self, Fault, Quotes, UNEXPECTED_END};
use super::tree::{NOBODY, NodeId, Tree};
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

/// A field's state in the record at hand; offsets into the frame, or into the arena for [`Found::Unescaped`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Unreached,
    Misplaced,
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
    kind: Kind,
    start: usize,
    /// The node's filter, if it is an object; see [`Tree::find`].
    filter: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Around the outermost object.
    None,
    Object,
    Array,
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
            Found::Misplaced => Slot::Misplaced,
            Found::Absent => Slot::Absent,
            Found::Null => Slot::Null,
            Found::Bool(value) => Slot::Bool(value),
            Found::Number(start, end) => Slot::Number(cut(self.frame, start, end)),
            Found::Str(start, end) | Found::Escaped(start, end) => Slot::Str(cut(self.frame, start, end)),
            Found::Unescaped(start, end) => Slot::Str(cut(self.arena, start, end)),
            Found::Json(start, end) => Slot::Json(cut(self.frame, start, end).as_bytes()),
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
            Some(Found::Unescaped(start, end)) => (self.arena, *start, *end),
            None | Some(Found::Absent | Found::Unreached | Found::Null) => return Some(b""),
            Some(Found::Misplaced | Found::Bool(_) | Found::Number(..) | Found::Json(..)) => return None,
        };
        Some(text.as_bytes().get(start..end).unwrap_or_default())
    }
}

/// Offsets come from the scanner and lie at character boundaries.
fn cut(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
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
        scratch.reset(self.tree.len());
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
        let end = Walk {
            tree: &self.tree,
            text: frame,
            quotes: Quotes::new(frame),
            found: &mut scratch.found,
            open: &mut scratch.open,
        }
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
    tree: &'a Tree,
    text: &'a [u8],
    /// The quotation marks ahead; every string that is read must pass its own.
    quotes: Quotes<'a>,
    found: &'a mut [Found],
    /// The containers around the one at hand.
    open: &'a mut Vec<Open>,
}

impl Walk<'_> {
    /// Walks over the object that starts at `at`; the index behind it.
    ///
    /// Whitespace is looked for only where a byte is none of those that may stand there: the senders write none.
    fn run(&mut self, mut at: usize) -> Result<usize, DecodeError> {
        let text = self.text;
        let mut inner = Open { node: NOBODY, kind: Kind::None, start: at, filter: 0 };
        loop {
            let node = match inner.kind {
                Kind::Object => {
                    let (node, value) = self.key(&inner, at)?;
                    at = value;
                    node
                }
                Kind::Array => NOBODY,
                Kind::None => self.tree.root(),
            };
            if text.get(at).is_some_and(|byte| *byte <= b' ') {
                at = scan::skip_whitespace(text, at);
            }
            match text.get(at) {
                Some(b'"') => at = self.string(node, at + 1)?,
                Some(b'{') => {
                    self.enter(node, &mut inner, Kind::Object, at)?;
                    at = scan::skip_whitespace(text, at + 1);
                    if text.get(at) != Some(&b'}') {
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(node, &mut inner, Kind::Array, at)?;
                    at = scan::skip_whitespace(text, at + 1);
                    if text.get(at) != Some(&b']') {
                        continue;
                    }
                }
                _ => at = self.scalar(node, at)?,
            }
            loop {
                match (text.get(at), inner.kind) {
                    (Some(b','), Kind::Object | Kind::Array) => {
                        at += 1;
                        break;
                    }
                    (Some(b'}'), Kind::Object) | (Some(b']'), Kind::Array) => {
                        at += 1;
                        self.note(inner.node, Found::Json(inner.start, at));
                        match self.open.pop() {
                            Some(outer) if outer.kind != Kind::None => inner = outer,
                            _ => return Ok(at),
                        }
                    }
                    (Some(b' ' | b'\t' | b'\n' | b'\r'), _) => at = scan::skip_whitespace(text, at),
                    (other, kind) => return Err(self.unexpected(other, kind, at)),
                }
            }
        }
    }

    #[cold]
    fn unexpected(&self, found: Option<&u8>, kind: Kind, at: usize) -> DecodeError {
        let what = match (found, kind) {
            (None, _) => UNEXPECTED_END,
            (Some(_), Kind::Array) => "expected ',' or ']'",
            (Some(_), _) => "expected ',' or '}'",
        };
        Fault::new(at, what).into()
    }

    /// Opens the container at `at`.
    #[inline(always)]
    fn enter(&mut self, node: NodeId, inner: &mut Open, kind: Kind, at: usize) -> Result<(), DecodeError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        self.open.push(*inner);
        *inner = Open { node, kind, start: at, filter: 0 };
        if node != NOBODY {
            self.note(node, Found::Json(at, at));
            if kind == Kind::Object {
                let tree = self.tree;
                inner.filter = tree.filter(node);
                tree.below(node).for_each(|child| self.note(child, Found::Absent));
            } else {
                self.no_object(node);
            }
        }
        Ok(())
    }

    /// Reads a key of the object `inner`, and its colon: whose value follows, and where it starts.
    #[inline(always)]
    fn key(&mut self, inner: &Open, mut at: usize) -> Result<(NodeId, usize), DecodeError> {
        if self.text.get(at) != Some(&b'"') {
            at = self.seek(at, b'"', "expected a key in quotation marks")?;
        }
        let key = self.quotes.string(at + 1)?;
        let mut node = NOBODY;
        if inner.filter != 0 {
            node = match key.escaped {
                false => self.tree.find(inner.node, inner.filter, self.text, at + 1, key.quote),
                true => {
                    self.tree.find_escaped(inner.node, self.text.get(at + 1..key.quote).unwrap_or_default())
                }
            };
            if node != NOBODY && self.found.get(node as usize) != Some(&Found::Absent) {
                self.mark_below(node, Found::Unreached);
            }
        }
        let mut colon = key.quote + 1;
        if self.text.get(colon) != Some(&b':') {
            colon = self.seek(colon, b':', "expected ':'")?;
        }
        Ok((node, colon + 1))
    }

    /// The index of `byte`, which may only have whitespace before it.
    #[cold]
    fn seek(&self, at: usize, byte: u8, expected: &'static str) -> Result<usize, DecodeError> {
        let at = scan::skip_whitespace(self.text, at);
        if self.text.get(at) == Some(&byte) { Ok(at) } else { Err(self.missing(at, expected)) }
    }

    /// The fault of a byte at `at` that is not what was expected, or is not there.
    #[cold]
    fn missing(&self, at: usize, expected: &'static str) -> DecodeError {
        Fault::new(at, if at < self.text.len() { expected } else { UNEXPECTED_END }).into()
    }

    #[inline(always)]
    fn string(&mut self, node: NodeId, at: usize) -> Result<usize, DecodeError> {
        let end = self.quotes.string(at)?;
        if node != NOBODY {
            let found = if end.escaped { Found::Escaped(at, end.quote) } else { Found::Str(at, end.quote) };
            self.note(node, found);
            self.no_object(node);
        }
        Ok(end.quote + 1)
    }

    /// Reads a number, true, false or null.
    #[inline]
    fn scalar(&mut self, node: NodeId, at: usize) -> Result<usize, DecodeError> {
        let (end, found) = match self.text.get(at) {
            Some(b'0'..=b'9' | b'-') => {
                let end = scan::number(self.text, at)?;
                (end, Found::Number(at, end))
            }
            Some(b't') => (scan::literal(self.text, at, b"true")?, Found::Bool(true)),
            Some(b'f') => (scan::literal(self.text, at, b"false")?, Found::Bool(false)),
            Some(b'n') => (scan::literal(self.text, at, b"null")?, Found::Null),
            _ => return Err(self.missing(at, "expected a value")),
        };
        self.note(node, found);
        if found != Found::Null {
            self.no_object(node);
        }
        Ok(end)
    }

    /// `node` holds something that has no fields: what is wanted below it cannot be there.
    #[inline(always)]
    fn no_object(&mut self, node: NodeId) {
        if self.tree.filter(node) != 0 {
            self.mark_below(node, Found::Misplaced);
        }
    }

    #[inline(always)]
    fn note(&mut self, node: NodeId, found: Found) {
        if let Some(place) = self.found.get_mut(node as usize) {
            *place = found;
        }
    }

    /// Replaces what an earlier key of the same name left below `node`.
    #[cold]
    fn mark_below(&mut self, node: NodeId, found: Found) {
        let tree = self.tree;
        let mut nodes = vec![node];
        while let Some(node) = nodes.pop() {
            tree.below(node).for_each(|child| self.note(child, found));
            nodes.extend(tree.below(node));
        }
    }
}
