//! Texts that every matching text must have, read off the translated pattern.
//!
//! The analysis goes once over the tree from the leaves up, after the manner of Russ Cox, "Regular Expression
//! Matching with a Trigram Index" (2012). For each part it knows, where that is small enough, all the texts that
//! the part matches, or else with which texts its matches begin and end and which of several texts they hold.
//! Assertions count as the empty text, so every set is one of necessary texts, never of sufficient ones.

use std::rc::Rc;

use regex_syntax::hir::{self, Class, ClassUnicode, Hir, HirKind, Visitor};

use super::engine::{anchored_at_end, anchored_at_start};
use super::node::never_matches;

/// Texts in a set that comes from putting parts in a row.
const PRODUCT_TEXTS_MAX: usize = 64;
/// Texts in a set that comes from an alternation.
const UNION_TEXTS_MAX: usize = 512;
/// Bytes of one text.
const TEXT_BYTES_MAX: usize = 256;
/// Members of a character class that are looked at one by one.
const CLASS_CHARS_MAX: usize = 16;
/// Copies of a repeated part that are written out.
const COPIES_MAX: u32 = 16;
/// Length from which a longer text is no better.
const GOOD_TEXT_BYTES: usize = 8;

/// What a text must have for a pattern to match it. Each set that is there is a condition of its own: the text
/// must fulfil one of its members. An empty set: no text matches. The converse does not hold, see
/// [`GoRegex::literal_test`](super::GoRegex::literal_test).
///
/// No member holds U+FFFD, so that the conditions also hold for texts that are not UTF-8, byte by byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Required {
    /// The text is one of these.
    pub exact: Option<Vec<String>>,
    /// The text starts with one of these; never the empty text.
    pub prefixes: Option<Vec<String>>,
    /// The text ends with one of these; never the empty text.
    pub suffixes: Option<Vec<String>>,
    /// The text holds one of these; never the empty text.
    pub contains: Option<Vec<String>>,
}

impl Required {
    /// The conditions of `hir`, which has been through [`trim`](super::engine::trim).
    pub(super) fn new(hir: &Hir) -> Required {
        if never_matches(hir) {
            let none = || Some(Vec::new());
            return Required { exact: none(), prefixes: none(), suffixes: none(), contains: none() };
        }
        let info = hir::visit(hir, Analysis::default()).unwrap_or_default();
        let (start, end) = (anchored_at_start(hir), anchored_at_end(hir));
        let useful = |set: Option<&Set>| set.filter(|set| set.is_useful()).map(Set::to_vec);
        Required {
            exact: info.exact.as_ref().filter(|_| start && end).map(Set::to_vec),
            prefixes: useful(info.prefix().filter(|_| start)),
            suffixes: useful(info.suffix().filter(|_| end)),
            contains: info.best().map(Set::without_redundant),
        }
    }
}

/// Texts in order, each once. Cheap to clone.
#[derive(Clone, Debug)]
struct Set {
    texts: Rc<Vec<String>>,
    shortest_bytes: usize,
    longest_bytes: usize,
}

impl Set {
    fn new(mut texts: Vec<String>) -> Set {
        texts.sort_unstable();
        texts.dedup();
        let (mut shortest_bytes, mut longest_bytes) = (usize::MAX, 0);
        for text in &texts {
            shortest_bytes = shortest_bytes.min(text.len());
            longest_bytes = longest_bytes.max(text.len());
        }
        Set { texts: Rc::new(texts), shortest_bytes, longest_bytes }
    }

    fn single(text: &str) -> Set {
        Set::new(vec![text.to_owned()])
    }

    /// There is something to look for: no member is the empty text. (Without members, there is no match.)
    fn is_useful(&self) -> bool {
        self.shortest_bytes > 0
    }

    fn to_vec(&self) -> Vec<String> {
        self.texts.to_vec()
    }

    /// Every text of `self` followed by every text of `next`, unless that is too much.
    fn product(&self, next: &Set) -> Option<Set> {
        let (len, next_len) = (self.texts.len(), next.texts.len());
        if len * next_len > PRODUCT_TEXTS_MAX.max(len).max(next_len)
            || self.longest_bytes + next.longest_bytes > TEXT_BYTES_MAX
        {
            return None;
        }
        let texts = self
            .texts
            .iter()
            .flat_map(|first| next.texts.iter().map(move |second| format!("{first}{second}")));
        Some(Set::new(texts.collect()))
    }

    /// The texts of all `sets`, unless one is not known or they are too many.
    fn union<'a>(sets: impl Iterator<Item = Option<&'a Set>>) -> Option<Set> {
        let mut texts = Vec::new();
        for set in sets {
            texts.extend_from_slice(&set?.texts);
            if texts.len() > 2 * UNION_TEXTS_MAX {
                texts.sort_unstable();
                texts.dedup();
                if texts.len() > UNION_TEXTS_MAX {
                    return None;
                }
            }
        }
        let set = Set::new(texts);
        (set.texts.len() <= UNION_TEXTS_MAX).then_some(set)
    }

    /// The best one of `sets` to look for: with the longest shortest text, then with the fewest texts.
    fn best<'a>(sets: impl IntoIterator<Item = Option<&'a Set>>) -> Option<&'a Set> {
        let useful = sets.into_iter().flatten().filter(|set| set.is_useful());
        useful.max_by_key(|set| {
            let shortest = set.shortest_bytes;
            (shortest.min(GOOD_TEXT_BYTES), std::cmp::Reverse(set.texts.len()), shortest)
        })
    }

    /// The texts without those that hold another one.
    fn without_redundant(&self) -> Vec<String> {
        let held = |text: &str| {
            self.texts.iter().any(|other| other.len() < text.len() && text.contains(other.as_str()))
        };
        self.texts.iter().filter(|text| !held(text)).cloned().collect()
    }
}

/// What is known of the matches of a part.
#[derive(Clone, Debug, Default)]
struct Info {
    /// They are these, at most.
    exact: Option<Set>,
    /// They begin with one of these; unused while `exact` is known.
    prefix: Option<Set>,
    /// They end with one of these; unused while `exact` is known.
    suffix: Option<Set>,
    /// They hold one of these.
    contains: Option<Set>,
}

impl Info {
    fn exactly(set: Set) -> Info {
        Info { exact: Some(set), ..Info::default() }
    }

    fn prefix(&self) -> Option<&Set> {
        self.exact.as_ref().or(self.prefix.as_ref())
    }

    fn suffix(&self) -> Option<&Set> {
        self.exact.as_ref().or(self.suffix.as_ref())
    }

    /// The best set to look for.
    fn best(&self) -> Option<&Set> {
        Set::best([&self.exact, &self.prefix, &self.suffix, &self.contains].map(Option::as_ref))
    }

    /// `self` followed by `next`.
    fn then(self, next: Info) -> Info {
        if let (Some(first), Some(second)) = (&self.exact, &next.exact)
            && let Some(exact) = first.product(second)
        {
            return Info::exactly(exact);
        }
        let seam = self.suffix().and_then(|set| set.product(next.prefix()?));
        let prefix = match (&self.exact, next.prefix()) {
            (Some(exact), Some(prefix)) => exact.product(prefix).or_else(|| Some(exact.clone())),
            _ => self.prefix().cloned(),
        };
        let suffix = match (self.suffix(), &next.exact) {
            (Some(suffix), Some(exact)) => suffix.product(exact).or_else(|| Some(exact.clone())),
            _ => next.suffix().cloned(),
        };
        let contains = Set::best([self.best(), next.best(), seam.as_ref()]).cloned();
        Info { exact: None, prefix, suffix, contains }
    }

    /// Any of `branches`.
    fn any_of(branches: &[Info]) -> Info {
        if let Some(exact) = Set::union(branches.iter().map(|branch| branch.exact.as_ref())) {
            return Info::exactly(exact);
        }
        Info {
            exact: None,
            prefix: Set::union(branches.iter().map(Info::prefix)),
            suffix: Set::union(branches.iter().map(Info::suffix)),
            contains: Set::union(branches.iter().map(Info::best)),
        }
    }

    fn repeated(self, min: u32, max: Option<u32>) -> Info {
        if min == 0 {
            return match max {
                Some(1) => Info::any_of(&[Info::exactly(Set::single("")), self]),
                _ => Info::default(),
            };
        }
        let written = min.min(COPIES_MAX);
        let copies = (1..written).fold(self.clone(), |copies, _| copies.then(self.clone()));
        if max == Some(written) {
            return copies;
        }
        // More copies come in between: both ends stay.
        Info {
            exact: None,
            prefix: copies.prefix().cloned(),
            suffix: copies.suffix().cloned(),
            contains: copies.best().cloned(),
        }
    }
}

/// An open concatenation or alternation.
enum Open {
    /// What the parts so far come to.
    Concat(Option<Info>),
    Alternation(Vec<Info>),
}

/// Collects [`Info`] from the leaves up, without recursion.
#[derive(Default)]
struct Analysis {
    /// Finished parts whose parents are not.
    done: Vec<Info>,
    open: Vec<Open>,
}

impl Analysis {
    /// Adds the part that was finished last to the concatenation or alternation around it.
    fn join(&mut self) {
        let part = self.done.pop().unwrap_or_default();
        match self.open.last_mut() {
            Some(Open::Concat(whole)) => {
                *whole = Some(match whole.take() {
                    Some(before) => before.then(part),
                    None => part,
                });
            }
            Some(Open::Alternation(branches)) => branches.push(part),
            None => {}
        }
    }

    fn close(&mut self) {
        self.join();
        self.done.push(match self.open.pop() {
            Some(Open::Concat(whole)) => whole.unwrap_or_default(),
            Some(Open::Alternation(branches)) => Info::any_of(&branches),
            None => Info::default(),
        });
    }
}

impl Visitor for Analysis {
    type Output = Info;
    type Err = std::convert::Infallible;

    fn finish(mut self) -> Result<Info, Self::Err> {
        Ok(self.done.pop().unwrap_or_default())
    }

    fn visit_pre(&mut self, hir: &Hir) -> Result<(), Self::Err> {
        match hir.kind() {
            HirKind::Concat(_) => self.open.push(Open::Concat(None)),
            HirKind::Alternation(_) => self.open.push(Open::Alternation(Vec::new())),
            _ => {}
        }
        Ok(())
    }

    fn visit_post(&mut self, hir: &Hir) -> Result<(), Self::Err> {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => self.done.push(Info::exactly(Set::single(""))),
            HirKind::Literal(literal) => self.done.push(literal_info(&literal.0)),
            HirKind::Class(Class::Unicode(class)) => self.done.push(class_info(class)),
            HirKind::Class(Class::Bytes(_)) => self.done.push(Info::default()),
            HirKind::Repetition(repetition) => {
                let part = self.done.pop().unwrap_or_default();
                self.done.push(part.repeated(repetition.min, repetition.max));
            }
            HirKind::Capture(_) => {}
            HirKind::Concat(_) | HirKind::Alternation(_) => self.close(),
        }
        Ok(())
    }

    fn visit_concat_in(&mut self) -> Result<(), Self::Err> {
        self.join();
        Ok(())
    }

    fn visit_alternation_in(&mut self) -> Result<(), Self::Err> {
        self.join();
        Ok(())
    }
}

fn literal_info(bytes: &[u8]) -> Info {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::REPLACEMENT_CHARACTER) && text.len() <= TEXT_BYTES_MAX => {
            Info::exactly(Set::single(text))
        }
        // Too long a text still has two ends.
        Ok(text) if !text.contains(char::REPLACEMENT_CHARACTER) => {
            let head = Set::single(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
            let tail = Set::single(&text[text.ceil_char_boundary(text.len() - TEXT_BYTES_MAX)..]);
            Info { exact: None, contains: Some(head.clone()), prefix: Some(head), suffix: Some(tail) }
        }
        _ => Info::default(),
    }
}

fn class_info(class: &ClassUnicode) -> Info {
    let count: usize = class.ranges().iter().map(|range| range.len()).sum();
    let chars = class.ranges().iter().flat_map(|range| range.start()..=range.end());
    if count > CLASS_CHARS_MAX || chars.clone().any(|c| c == char::REPLACEMENT_CHARACTER) {
        return Info::default();
    }
    Info::exactly(Set::new(chars.map(String::from).collect()))
}
