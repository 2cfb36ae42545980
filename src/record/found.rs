//! What is noted of each wanted field while a frame is walked over.

use super::scan::{self, Fault, StringEnd};
use super::tree::{NOBODY, NodeId, Tree};

/// A field's state in the record at hand; offsets into the frame, or into the arena for [`Found::Unescaped`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
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

/// The states of the wanted fields, as a walk over the frame sets them.
pub(super) struct Notes<'a> {
    pub(super) tree: &'a Tree,
    pub(super) found: &'a mut [Found],
}

impl Notes<'_> {
    #[inline(always)]
    fn note(&mut self, node: NodeId, found: Found) {
        if let Some(place) = self.found.get_mut(node as usize) {
            *place = found;
        }
    }

    /// A key that leads to `node` has come. What an earlier key of the same name left below it counts no longer.
    #[inline(always)]
    pub(super) fn reached(&mut self, node: NodeId) {
        if node != NOBODY && self.found.get(node as usize) != Some(&Found::Absent) {
            self.mark_below(node, Found::Unreached);
        }
    }

    /// The object or array of `node` begins at `at`. The answer is the node's filter for an object's keys ([`Tree::find`]).
    #[inline(always)]
    pub(super) fn opened(&mut self, node: NodeId, is_object: bool, at: usize) -> u64 {
        if node == NOBODY {
            return 0;
        }
        self.note(node, Found::Json(at, at));
        if !is_object {
            self.no_object(node);
            return 0;
        }
        let tree = self.tree;
        tree.below(node).for_each(|child| self.note(child, Found::Absent));
        tree.filter(node)
    }

    /// What began at `start` has ended before `end`.
    #[inline(always)]
    pub(super) fn closed(&mut self, node: NodeId, start: usize, end: usize) {
        self.note(node, Found::Json(start, end));
    }

    /// `node` holds the string whose first byte behind the opening quotation mark is at `at`.
    #[inline(always)]
    pub(super) fn string(&mut self, node: NodeId, at: usize, end: StringEnd) {
        let quote = end.quote;
        self.leaf(node, if end.escaped { Found::Escaped(at, quote) } else { Found::Str(at, quote) });
    }

    /// Reads the number, true, false or null at `at`, which `node` holds; the index behind it.
    #[inline(always)]
    pub(super) fn scalar(&mut self, node: NodeId, text: &[u8], at: usize) -> Result<usize, Fault> {
        let (end, found) = scalar(text, at)?;
        self.leaf(node, found);
        Ok(end)
    }

    /// `node` holds something that has no fields.
    #[inline(always)]
    fn leaf(&mut self, node: NodeId, found: Found) {
        if node != NOBODY {
            self.note(node, found);
            if found != Found::Null {
                self.no_object(node);
            }
        }
    }

    /// What is wanted below `node` cannot be there.
    #[inline(always)]
    fn no_object(&mut self, node: NodeId) {
        if self.tree.filter(node) != 0 {
            self.mark_below(node, Found::Misplaced);
        }
    }

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

/// A number, true, false or null at `at`, and the index behind it.
#[inline(always)]
pub(super) fn scalar(text: &[u8], at: usize) -> Result<(usize, Found), Fault> {
    Ok(match text.get(at) {
        Some(b'0'..=b'9' | b'-') => {
            let end = scan::number(text, at)?;
            (end, Found::Number(at, end))
        }
        Some(b't') => (scan::literal(text, at, b"true")?, Found::Bool(true)),
        Some(b'f') => (scan::literal(text, at, b"false")?, Found::Bool(false)),
        Some(b'n') => (scan::literal(text, at, b"null")?, Found::Null),
        _ => return Err(scan::missing(text, at, "expected a value")),
    })
}
