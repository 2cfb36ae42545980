//! The walk over a frame as the senders write it: one valid object without whitespace between its parts.
//!
//! Whatever is not as it expects, a fault or only a space, ends it without an answer: then [`Walk`](super::walk::Walk) begins anew. So
//! there are no messages here, and nothing is looked for in more than one place.

use super::found::{Found, Notes};
use super::quotes::Quotes;
use super::scan;
use super::tree::NodeId;

/// How many objects in which something is wanted may be inside each other; the walk is as many calls deep.
const WANTED_DEPTH_MAX: usize = 32;

/// How many containers inside each other [`skip`] goes into: their kinds are the bits of a number, below a bit that ends them.
const SKIPPED_DEPTH_MAX: usize = 63;

/// What is known of a text once it was walked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walked {
    /// It is ASCII. Otherwise it may be anything: ASCII with escapes in it, or no UTF-8.
    pub(super) is_ascii: bool,
    /// There are [`Found::Escaped`] strings.
    pub(super) has_escapes: bool,
}

/// Walks over the object that is the whole of `text`. `None`: it is none of those that this is made for, and what is noted is worth nothing.
pub(super) fn walk(text: &[u8], notes: Notes<'_>) -> Option<Walked> {
    if *text.first()? != b'{' {
        return None;
    }
    let root = notes.tree.root();
    let mut quick = Quick { text, quotes: Quotes::new(text), notes, has_escapes: false };
    let end = quick.container(root, 0, true, 0)?;
    let walked = || Walked { is_ascii: quick.quotes.is_ascii(), has_escapes: quick.has_escapes };
    (end == text.len()).then(walked)
}

struct Quick<'a> {
    text: &'a [u8],
    /// The quotation marks ahead; every string that is read must pass its own.
    quotes: Quotes<'a>,
    notes: Notes<'a>,
    has_escapes: bool,
}

impl Quick<'_> {
    /// The container of `node` begins at `at`, inside `depth` others: the index behind it.
    fn container(&mut self, node: NodeId, at: usize, is_object: bool, depth: usize) -> Option<usize> {
        let filter = self.notes.opened(node, is_object, at);
        let end = match filter {
            0 => skip(self.text, at + 1, is_object, &mut self.quotes)?,
            _ if depth == WANTED_DEPTH_MAX => return None,
            _ => self.members(node, filter, at + 1, depth)?,
        };
        self.notes.closed(node, at, end);
        Some(end)
    }

    /// The members of the object of `node` begin at `at`: the index behind its closing brace.
    fn members(&mut self, node: NodeId, filter: u64, mut at: usize, depth: usize) -> Option<usize> {
        let text = self.text;
        if *text.get(at)? == b'}' {
            return Some(at + 1);
        }
        loop {
            let quote = key(text, at, &mut self.quotes).filter(|key| !key.escaped)?.quote;
            let child = self.notes.tree.find(node, filter, text, at + 1, quote);
            self.notes.reached(child);
            at = self.value(child, quote + 2, depth)?;
            match *text.get(at)? {
                b',' => at += 1,
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// The value of `node` begins at `at`, in an object inside `depth` others: the index behind it.
    #[inline(always)]
    fn value(&mut self, node: NodeId, at: usize, depth: usize) -> Option<usize> {
        match *self.text.get(at)? {
            b'"' => {
                let end = self.quotes.string(at + 1).ok()?;
                if end.escaped {
                    self.has_escapes = true;
                    self.notes.leaf(node, Found::Escaped(at + 1, end.quote));
                } else {
                    self.notes.leaf(node, Found::Str(at + 1, end.quote));
                }
                Some(end.quote + 1)
            }
            b'{' => self.container(node, at, true, depth + 1),
            b'[' => self.container(node, at, false, depth + 1),
            byte => {
                let (end, found) = scalar(self.text, at, byte)?;
                self.notes.leaf(node, found);
                Some(end)
            }
        }
    }
}

/// The end of the key that begins at `at`. A colon is behind it.
#[inline(always)]
fn key(text: &[u8], at: usize, quotes: &mut Quotes<'_>) -> Option<scan::StringEnd> {
    if *text.get(at)? != b'"' {
        return None;
    }
    let end = quotes.string(at + 1).ok()?;
    (*text.get(end.quote + 1)? == b':').then_some(end)
}

/// A number, true, false or null, which begins with `byte` at `at`, and where it ends.
#[inline(always)]
fn scalar(text: &[u8], at: usize, byte: u8) -> Option<(usize, Found)> {
    match byte {
        b't' => word(text, at, b"true", Found::Bool(true)),
        b'f' => word(text, at, b"false", Found::Bool(false)),
        b'n' => word(text, at, b"null", Found::Null),
        b'0'..=b'9' | b'-' => {
            let end = scan::number(text, at).ok()?;
            Some((end, Found::Number(at, end)))
        }
        _ => None,
    }
}

#[inline(always)]
fn word<const N: usize>(text: &[u8], at: usize, word: &[u8; N], found: Found) -> Option<(usize, Found)> {
    (text.get(at..)?.first_chunk::<N>()? == word).then_some((at + N, found))
}

/// The index behind the container whose inside starts at `at`; nobody wants anything in it.
fn skip(text: &[u8], mut at: usize, is_object: bool, quotes: &mut Quotes<'_>) -> Option<usize> {
    const NONE: u64 = 1;
    // The lowest bit says whether the innermost container is an object.
    let mut kinds = NONE << 1 | u64::from(is_object);
    let closing = |kinds: u64| if kinds & 1 == 0 { b']' } else { b'}' };
    if *text.get(at)? == closing(kinds) {
        return Some(at + 1);
    }
    loop {
        if kinds & 1 == 1 {
            at = key(text, at, quotes)?.quote + 2;
        }
        match *text.get(at)? {
            b'"' => at = quotes.string(at + 1).ok()?.quote + 1,
            bracket @ (b'{' | b'[') => {
                if kinds >> SKIPPED_DEPTH_MAX != 0 {
                    return None;
                }
                kinds = kinds << 1 | u64::from(bracket == b'{');
                at += 1;
                if *text.get(at)? != closing(kinds) {
                    continue;
                }
            }
            byte => at = scalar(text, at, byte)?.0,
        }
        loop {
            let byte = *text.get(at)?;
            at += 1;
            if byte == b',' {
                break;
            }
            if byte != closing(kinds) {
                return None;
            }
            kinds >>= 1;
            if kinds == NONE {
                return Some(at);
            }
        }
    }
}
