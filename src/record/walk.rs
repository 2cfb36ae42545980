//! The walk over any frame: validates it, notes the wanted fields, and says what is wrong and where.

use super::decode::{DEPTH_MAX, DecodeError};
use super::found::Notes;
use super::quotes::Quotes;
use super::scan::{self, Fault, UNEXPECTED_END};
use super::tree::{NOBODY, NodeId};

/// An object or array that is open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// Who wants it or something in it.
    node: NodeId,
    kind: Kind,
    start: usize,
    /// The node's filter, if it is an object; see [`Tree::find`](super::tree::Tree::find).
    filter: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Around the outermost object.
    None,
    Object,
    Array,
}

/// The walk over one text.
pub(super) struct Walk<'a> {
    pub(super) notes: Notes<'a>,
    pub(super) text: &'a [u8],
    /// The quotation marks ahead; every string that is read must pass its own.
    pub(super) quotes: Quotes<'a>,
    /// The containers around the one at hand.
    pub(super) open: &'a mut Vec<Open>,
}

impl Walk<'_> {
    /// Walks over the object that starts at `at`; the index behind it.
    ///
    /// Whitespace is looked for only where a byte is none of those that may stand there: the senders write none.
    pub(super) fn run(&mut self, mut at: usize) -> Result<usize, DecodeError> {
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
                Kind::None => self.notes.tree.root(),
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
                _ => at = self.notes.scalar(node, text, at)?,
            }
            loop {
                match (text.get(at), inner.kind) {
                    (Some(b','), Kind::Object | Kind::Array) => {
                        at += 1;
                        break;
                    }
                    (Some(b'}'), Kind::Object) | (Some(b']'), Kind::Array) => {
                        at += 1;
                        self.notes.closed(inner.node, inner.start, at);
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
        let filter = self.notes.opened(node, kind == Kind::Object, at);
        *inner = Open { node, kind, start: at, filter };
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
            let tree = self.notes.tree;
            node = match key.escaped {
                false => tree.find(inner.node, inner.filter, self.text, at + 1, key.quote),
                true => tree.find_escaped(inner.node, self.text.get(at + 1..key.quote).unwrap_or_default()),
            };
            self.notes.reached(node);
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
        if self.text.get(at) == Some(&byte) {
            Ok(at)
        } else {
            Err(scan::missing(self.text, at, expected).into())
        }
    }

    #[inline(always)]
    fn string(&mut self, node: NodeId, at: usize) -> Result<usize, DecodeError> {
        let end = self.quotes.string(at)?;
        self.notes.string(node, at, end);
        Ok(end.quote + 1)
    }
}
