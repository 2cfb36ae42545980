//! The wanted keys as a tree, laid out for looking up one key of a record after another.

use super::RawStr;

/// Number of a node in a [`Tree`], and of its state while decoding.
pub(super) type NodeId = u32;

/// Not a node: the value here interests nobody.
pub(super) const NOBODY: NodeId = NodeId::MAX;

/// Keys of this length and longer are looked up together.
const LENGTHS: usize = 48;

/// The wanted keys. Immutable.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: NodeId,
    nodes: Vec<Node>,
}

/// The keys wanted below one node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Which keys may be among them; see [`filter_bit`].
    filter: u64,
    /// Sorted by length.
    keys: Box<[Key]>,
    /// Keys of length `n` are `keys[first[n]..first[n + 1]]`.
    first: Box<[u32; LENGTHS + 2]>,
}

#[derive(Debug, Clone)]
struct Key {
    /// See [`head_and_tail`].
    head: u64,
    tail: u64,
    node: NodeId,
    name: Box<[u8]>,
}

impl Tree {
    /// A tree from its nodes in the order of their numbers, and the number of the root.
    pub(super) fn new(root: NodeId, nodes: Vec<Node>) -> Tree {
        Tree { root, nodes }
    }

    /// The node of the record itself.
    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes right below a node.
    pub(super) fn below(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let keys: &[Key] = self.nodes.get(node as usize).map_or(&[], |node| &node.keys);
        keys.iter().map(|key| key.node)
    }

    /// What [`Tree::find`] wants to know about a node; 0 if there is nothing below it.
    #[inline(always)]
    pub(super) fn filter(&self, node: NodeId) -> u64 {
        self.nodes.get(node as usize).map_or(0, |node| node.filter)
    }

    /// The node that a key leads to from `parent`, whose filter is `filter`. The key is `text[start..end]`, without escapes.
    #[inline(always)]
    pub(super) fn find(&self, parent: NodeId, filter: u64, text: &[u8], start: usize, end: usize) -> NodeId {
        let (Some(key), Some(&byte)) = (text.get(start..end), text.get(start)) else { return NOBODY };
        if filter & filter_bit(key.len(), byte) == 0 {
            return NOBODY;
        }
        let Some(node) = self.nodes.get(parent as usize) else { return NOBODY };
        node.find(key, text, start)
    }

    /// [`Tree::find`] for a key with escapes in it.
    #[cold]
    pub(super) fn find_escaped(&self, parent: NodeId, key: &[u8]) -> NodeId {
        let key = RawStr::new(key);
        let keys: &[Key] = self.nodes.get(parent as usize).map_or(&[], |node| &node.keys);
        keys.iter().find(|wanted| key.eq_bytes(&wanted.name)).map_or(NOBODY, |wanted| wanted.node)
    }
}

impl Node {
    /// A node from the keys wanted below it and the nodes that they lead to.
    pub(super) fn new<'a>(keys: impl Iterator<Item = (&'a str, NodeId)>) -> Node {
        let key = |(name, node): (&str, NodeId)| {
            let name = name.as_bytes();
            let (head, tail) = head_and_tail(name, 0, name.len());
            Key { head, tail, node, name: name.into() }
        };
        let mut keys: Box<[Key]> = keys.map(key).collect();
        keys.sort_by_key(|key| key.name.len());
        let mut first = Box::new([0; LENGTHS + 2]);
        for (length, first) in first.iter_mut().enumerate().take(LENGTHS + 1) {
            *first = keys.partition_point(|key| key.name.len() < length) as u32;
        }
        first[LENGTHS + 1] = keys.len() as u32;
        // The empty key is followed by its closing quotation mark.
        let bit = |key: &Key| filter_bit(key.name.len(), key.name.first().copied().unwrap_or(b'"'));
        Node { filter: keys.iter().fold(0, |filter, key| filter | bit(key)), keys, first }
    }

    /// The node that `key`, which starts at `text[start]`, leads to.
    #[inline(always)]
    fn find(&self, key: &[u8], text: &[u8], start: usize) -> NodeId {
        let length = key.len().min(LENGTHS);
        let same_length = self.first[length] as usize..self.first[length + 1] as usize;
        let (head, tail) = head_and_tail(text, start, key.len());
        for wanted in self.keys.get(same_length).unwrap_or_default() {
            if wanted.head == head && wanted.tail == tail && (length <= 16 || *wanted.name == *key) {
                return wanted.node;
            }
        }
        NOBODY
    }
}

/// The bit that stands for keys of this length and first byte (of the quotation mark behind it, if the key is empty).
#[inline(always)]
fn filter_bit(length: usize, first: u8) -> u64 {
    1 << ((length + 5 * usize::from(first)) % 64)
}

/// The first and the last eight of the `length` bytes at `start`; of fewer bytes, the first ones and zeros, and zero.
#[inline(always)]
fn head_and_tail(text: &[u8], start: usize, length: usize) -> (u64, u64) {
    let word =
        |at: usize| text.get(at..).and_then(<[u8]>::first_chunk::<8>).map(|chunk| u64::from_le_bytes(*chunk));
    match (word(start), length) {
        (Some(head), 8..) => (head, word(start + length - 8).unwrap_or_default()),
        (Some(head), _) => (head & !(u64::MAX << (8 * length)), 0),
        (None, _) => {
            let mut bytes = [0; 8];
            let there = text.get(start..).unwrap_or_default().iter().take(length);
            bytes.iter_mut().zip(there).for_each(|(to, from)| *to = *from);
            (u64::from_le_bytes(bytes), 0)
        }
    }
}
