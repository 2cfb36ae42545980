//! The walk over a frame as the senders write it: one valid object without whitespace between its parts.
//!
//! Whatever is not as it expects, a fault or only a space, ends it without an answer: then [`Walk`](super::walk::Walk) begins anew. So
//! there are no messages here, and nothing is looked for in more than one place.

use super::found::{Notes, scalar};
use super::quotes::Quotes;
use super::scan;
use super::tree::NodeId;

/// How many objects in which something is wanted may be inside each other; the walk is as many calls deep.
const WANTED_DEPTH_MAX: usize = 32;

/// How many containers inside each other [`skip`] goes into: their kinds are the bits of a number, below a bit that ends them.
const SKIPPED_DEPTH_MAX: usize = 63;

/// Walks over the object that is the whole of `text`: whether that is ASCII without escapes. If not, it may be anything, also no UTF-8.
/// `None`: it is none of those that this is made for, and what is noted is worth nothing.
pub(super) fn walk(text: &[u8], notes: Notes<'_>) -> Option<bool> {
    if *text.first()? != b'{' {
        return None;
    }
    let root = notes.tree.root();
    let mut quick = Quick { text, quotes: Quotes::new(text), notes };
    let end = quick.container(root, 0, true, 0)?;
    (end == text.len()).then(|| quick.quotes.is_plain())
}

struct Quick<'a> {
    text: &'a [u8],
    /// The quotation marks ahead; every string that is read must pass its own.
    quotes: Quotes<'a>,
    notes: Notes<'a>,
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
                self.notes.string(node, at + 1, end);
                Some(end.quote + 1)
            }
            b'{' => self.container(node, at, true, depth + 1),
            b'[' => self.container(node, at, false, depth + 1),
            _ => self.notes.scalar(node, self.text, at).ok(),
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
            _ => at = scalar(text, at).ok()?.0,
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
