//! Tables from texts to rules: which rules have a witness in this text.

use aho_corasick::automaton::OverlappingState;
use aho_corasick::{AhoCorasick, Input};

/// Texts and the rules that have each of them for a witness.
pub(super) type Texts = Vec<(Box<[u8]>, Vec<u32>)>;

/// A set of rules by number.
#[derive(Debug, Default)]
pub(super) struct RuleSet(Vec<u64>);

impl RuleSet {
    /// Makes this a copy of `other`.
    pub(super) fn copy_from(&mut self, other: &RuleSet) {
        self.0.clone_from(&other.0);
    }

    pub(super) fn with_room(rules: usize) -> RuleSet {
        RuleSet(vec![0; rules.div_ceil(64)])
    }

    pub(super) fn insert(&mut self, rules: &[u32]) {
        for rule in rules {
            if let Some(word) = self.0.get_mut(*rule as usize / 64) {
                *word |= 1 << (rule % 64);
            }
        }
    }

    /// The first member that is not below `from`.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        let mut at = from / 64;
        let mut word = self.0.get(at)? & (u64::MAX << (from % 64));
        while word == 0 {
            at += 1;
            word = *self.0.get(at)?;
        }
        Some(at * 64 + word.trailing_zeros() as usize)
    }
}

/// Rules of several texts, one range for each.
#[derive(Debug, Default)]
struct Postings(Vec<u32>);

type Range = std::ops::Range<u32>;

impl Postings {
    /// Numbers and lengths here stay below 2^32: they are bounded by the bytes of the rules.
    fn push(&mut self, rules: &[u32]) -> Range {
        let start = self.0.len() as u32;
        self.0.extend_from_slice(rules);
        start..self.0.len() as u32
    }

    fn get(&self, range: &Range) -> &[u32] {
        self.0.get(range.start as usize..range.end as usize).unwrap_or_default()
    }
}

/// Whole texts and beginnings in one sorted list.
///
/// Each entry knows the longest other entry that it begins with. Entries that a text begins with are the last entry
/// not behind the text in the order, or what that begins with: all strings between a beginning of the text and the
/// text itself begin with it too. So one binary search finds them all. It compares the first 16 bytes as a number, and texts only where
/// those are the same.
#[derive(Debug)]
pub(super) struct Beginnings {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    /// The [`key`] of each entry's text.
    keys: Vec<u128>,
    postings: Postings,
    longest_bytes: usize,
}

/// The first 16 bytes of a text, or all of them and zeros: texts are in the order of their keys, but for those that have the same one.
#[inline(always)]
fn key(text: &[u8]) -> u128 {
    u128::from_be_bytes(match text.first_chunk::<16>() {
        Some(first) => *first,
        None => {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
            bytes
        }
    })
}

#[derive(Debug)]
struct Entry {
    text: Range,
    parent: Option<u32>,
    /// Rules that need the text to be this.
    equals: Range,
    /// Rules that need the text to begin with this.
    starts: Range,
}

impl Beginnings {
    pub(super) fn new(equals: Texts, starts: Texts) -> Beginnings {
        let mut sorted: Vec<(Box<[u8]>, bool, Vec<u32>)> = Vec::new();
        sorted.extend(equals.into_iter().map(|(text, rules)| (text, false, rules)));
        sorted.extend(starts.into_iter().map(|(text, rules)| (text, true, rules)));
        sorted.sort();
        let longest_bytes = sorted.iter().map(|(text, ..)| text.len()).max().unwrap_or(0);
        let mut this = Beginnings {
            arena: Vec::new(),
            entries: Vec::new(),
            keys: Vec::new(),
            postings: Postings::default(),
            longest_bytes,
        };
        // Entries that the last one begins with, itself included.
        let mut open: Vec<u32> = Vec::new();
        for (text, starts, rules) in sorted {
            let range = this.postings.push(&rules);
            if open.last().is_none_or(|last| this.text(&this.entries[*last as usize]) != &*text) {
                while open
                    .last()
                    .is_some_and(|last| !text.starts_with(this.text(&this.entries[*last as usize])))
                {
                    open.pop();
                }
                let at = this.arena.len() as u32;
                this.arena.extend_from_slice(&text);
                this.keys.push(key(&text));
                let parent = open.last().copied();
                open.push(this.entries.len() as u32);
                let text = at..this.arena.len() as u32;
                this.entries.push(Entry { text, parent, equals: 0..0, starts: 0..0 });
            }
            if let Some(entry) = this.entries.last_mut() {
                *(if starts { &mut entry.starts } else { &mut entry.equals }) = range;
            }
        }
        this
    }

    fn text(&self, entry: &Entry) -> &[u8] {
        self.arena.get(entry.text.start as usize..entry.text.end as usize).unwrap_or_default()
    }

    /// Bytes of the longest text here: what comes behind in a text that is looked up matters only to whole texts.
    pub(super) fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries are not behind `text` in the order.
    fn behind(&self, text: &[u8]) -> usize {
        let wanted = key(text);
        let before = self.keys.partition_point(|key| *key < wanted);
        // Most texts have a key of their own.
        let same = self.keys.get(before..).unwrap_or_default();
        if same.first() != Some(&wanted) {
            return before;
        }
        let same = same.partition_point(|key| *key == wanted);
        let entries = self.entries.get(before..before + same).unwrap_or_default();
        before + entries.partition_point(|entry| self.text(entry) <= text)
    }

    /// Adds the rules whose witness `text` is, or begins with.
    pub(super) fn find(&self, text: &[u8], found: &mut RuleSet) {
        let mut next = self.behind(text).checked_sub(1);
        while let Some(entry) = next.and_then(|at| self.entries.get(at)) {
            let known = self.text(entry);
            if text.starts_with(known) {
                found.insert(self.postings.get(&entry.starts));
                if known.len() == text.len() {
                    found.insert(self.postings.get(&entry.equals));
                }
            }
            next = entry.parent.map(|parent| parent as usize);
        }
    }
}

/// Texts that may stand anywhere.
#[derive(Debug)]
pub(super) struct Anywhere {
    searcher: AhoCorasick,
    of_pattern: Vec<Range>,
    postings: Postings,
}

impl Anywhere {
    /// `None` if the automaton would be too large.
    pub(super) fn new(texts: &Texts) -> Option<Anywhere> {
        let searcher = AhoCorasick::new(texts.iter().map(|(text, _)| text)).ok()?;
        let mut postings = Postings::default();
        let of_pattern = texts.iter().map(|(_, rules)| postings.push(rules)).collect();
        Some(Anywhere { searcher, of_pattern, postings })
    }

    /// Adds the rules whose witness stands in `text`. False if that was given up because texts stand in it again and again;
    /// the rules that were not found then are unknown.
    pub(super) fn find(&self, text: &[u8], found: &mut RuleSet) -> bool {
        let mut state = OverlappingState::start();
        for _ in 0..=FINDS_MAX.max(2 * self.of_pattern.len()) {
            self.searcher.find_overlapping(Input::new(text), &mut state);
            let Some(hit) = state.get_match() else { return true };
            if let Some(range) = self.of_pattern.get(hit.pattern().as_usize()) {
                found.insert(self.postings.get(range));
            }
        }
        false
    }
}

/// Finds in one text after which all rules of the table count as found, or twice the number of texts if that is more.
const FINDS_MAX: usize = 64;
