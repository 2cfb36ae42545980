//! Character classes: the ASCII groups (`\d`, `[[:alpha:]]`), and the builder of bracket expressions.

use std::rc::Rc;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::unicode::{self, Property};

/// A named set of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// `\d` or `[:alpha:]`.
    Ascii(AsciiGroup),
    /// `\p{..}`; the flag asks for the complement.
    Unicode(Property, bool),
}

impl Group {
    /// The code points of the group. Under `(?i)` a complement is taken after folding. `None` if the tables lack
    /// the property.
    pub(super) fn class(self, folded: bool) -> Option<ClassUnicode> {
        let (mut class, negated) = match self {
            Group::Ascii(group) => (group.class(folded), group.negated),
            Group::Unicode(property, negated) => (unicode::class(property, folded)?, negated),
        };
        if negated {
            unicode::negate(&mut class);
        }
        Some(class)
    }
}

/// An ASCII group and whether its name asked for the complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AsciiGroup {
    ranges: &'static [(char, char)],
    negated: bool,
}

const DIGIT: &[(char, char)] = &[('0', '9')];
/// `\s` has no vertical tab, `[[:space:]]` has.
const PERL_SPACE: &[(char, char)] = &[('\t', '\n'), ('\x0C', '\r'), (' ', ' ')];
const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

impl AsciiGroup {
    /// The group of the letter after a backslash: `d`, `s`, `w` and their complements.
    pub(super) fn perl(letter: u8) -> Option<AsciiGroup> {
        let ranges = match letter.to_ascii_lowercase() {
            b'd' => DIGIT,
            b's' => PERL_SPACE,
            b'w' => WORD,
            _ => return None,
        };
        Some(AsciiGroup { ranges, negated: letter.is_ascii_uppercase() })
    }

    /// The group of a name between `[:` and `:]`.
    pub(super) fn posix(name: &str) -> Option<AsciiGroup> {
        let (name, negated) = match name.strip_prefix('^') {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let ranges: &[(char, char)] = match name {
            "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
            "alpha" => &[('A', 'Z'), ('a', 'z')],
            "ascii" => &[('\0', '\x7F')],
            "blank" => &[('\t', '\t'), (' ', ' ')],
            "cntrl" => &[('\0', '\x1F'), ('\x7F', '\x7F')],
            "digit" => DIGIT,
            "graph" => &[('!', '~')],
            "lower" => &[('a', 'z')],
            "print" => &[(' ', '~')],
            "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "space" => &[('\t', '\r'), (' ', ' ')],
            "upper" => &[('A', 'Z')],
            "word" => WORD,
            "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => return None,
        };
        Some(AsciiGroup { ranges, negated })
    }

    /// The members without regard to `negated`.
    fn class(self, folded: bool) -> ClassUnicode {
        let ranges = self.ranges.iter().map(|&(lo, hi)| ClassUnicodeRange::new(lo, hi));
        let class = ClassUnicode::new(ranges);
        if folded { unicode::fold(&class) } else { class }
    }
}

/// Collects the members of one bracket expression.
#[derive(Debug)]
pub(super) struct ClassBuilder {
    folded: bool,
    /// Characters and ranges as written; folded at the end.
    written: Vec<ClassUnicodeRange>,
    /// Groups, each once; they were folded before they were complemented.
    groups: Vec<Rc<ClassUnicode>>,
}

impl ClassBuilder {
    pub(super) fn new(folded: bool) -> ClassBuilder {
        ClassBuilder { folded, written: Vec::new(), groups: Vec::new() }
    }

    /// Adds the code points from `lo` to `hi`, both at most U+10FFFF. Surrogates fall out.
    pub(super) fn range(&mut self, lo: u32, hi: u32) {
        let lo = char::from_u32(lo).unwrap_or('\u{E000}');
        let hi = char::from_u32(hi).unwrap_or('\u{D7FF}');
        if lo <= hi {
            self.written.push(ClassUnicodeRange::new(lo, hi));
        }
    }

    /// Adds a whole group. Equal groups should be one `Rc`.
    pub(super) fn group(&mut self, group: Rc<ClassUnicode>) {
        if !self.groups.iter().any(|known| Rc::ptr_eq(known, &group)) {
            self.groups.push(group);
        }
    }

    pub(super) fn finish(self, negated: bool) -> ClassUnicode {
        let mut class = ClassUnicode::new(self.written);
        if self.folded {
            class = unicode::fold(&class);
        }
        let ranges = self.groups.iter().flat_map(|group| group.ranges()).copied();
        class = ClassUnicode::new(class.ranges().iter().copied().chain(ranges));
        if negated {
            unicode::negate(&mut class);
        }
        class
    }
}
