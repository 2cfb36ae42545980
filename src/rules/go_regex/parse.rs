//! The parser of the syntax of Go 1.26's `regexp/syntax` (flags `Perl`), from pattern text to [`Hir`].
//!
//! It accepts what Go accepts and refuses what Go refuses with Go's words and the same piece of the pattern.
//! Beyond Go there are the limits of [`RegexLimits`]. One difference is left: Go factors common prefixes out of
//! alternations before it measures the height of its tree, so a pattern a few levels around 1,000 may be judged
//! otherwise.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use memchr::memmem;
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange, Dot, Hir, Look};

use super::class::{AsciiGroup, ClassBuilder, Group};
use super::node::{Node, Part};
use super::text::{INVALID_ESCAPE, Result, Text};
use super::{RegexLimits, unicode};

/// Highest count of one repetition, and of nested ones multiplied.
const COPIES_MAX: u32 = 1000;

const INVALID_CLASS_RANGE: &str = "invalid character class range";
const INVALID_NAMED_CAPTURE: &str = "invalid named capture";
const INVALID_PERL: &str = "invalid or unsupported Perl syntax";
const INVALID_REPEAT_OPERATOR: &str = "invalid nested repetition operator";
const INVALID_REPEAT_COUNT: &str = "invalid repeat count";
const MISSING_BRACKET: &str = "missing closing ]";
const MISSING_PAREN: &str = "missing closing )";
const MISSING_REPEAT_ARGUMENT: &str = "missing argument to repetition operator";
const UNEXPECTED_PAREN: &str = "unexpected )";
const NESTS_TOO_DEEPLY: &str = "expression nests too deeply";
pub(super) const TOO_LARGE: &str = "expression too large";

/// Translates `pattern`.
///
/// # Errors
/// The first fault, as Go finds it, or the limit that the pattern goes beyond.
pub(super) fn parse(pattern: &str, limits: &RegexLimits) -> Result<Hir> {
    Parser::new(pattern, limits).run()
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    /// `i`
    folded: bool,
    /// `m`
    multi_line: bool,
    /// `s`
    dot_matches_newline: bool,
}

/// An open group, or the whole pattern.
#[derive(Debug, Default)]
struct Frame {
    /// The flags to go back to at the closing parenthesis.
    outer_flags: Flags,
    captures: bool,
    /// Branches that a `|` has closed.
    branches: Vec<Node>,
    /// The nodes of the open branch. The last two may be literals that are still apart, because a repetition
    /// takes the last character only.
    items: Vec<Node>,
}

struct Parser<'p> {
    pattern: &'p str,
    text: Text<'p>,
    limits: &'p RegexLimits,
    flags: Flags,
    frame: Frame,
    /// The groups around `frame`, the whole pattern first.
    outer: Vec<Frame>,
    /// The groups that the pattern has named, and whether under `(?i)`.
    classes: HashMap<(Group, bool), Rc<ClassUnicode>>,
    class_bytes: usize,
    /// No `:]` at or after this place.
    posix_end_missing_from: usize,
}

impl<'p> Parser<'p> {
    fn new(pattern: &'p str, limits: &'p RegexLimits) -> Parser<'p> {
        Parser {
            pattern,
            text: Text(pattern),
            limits,
            flags: Flags::default(),
            frame: Frame::default(),
            outer: Vec::new(),
            classes: HashMap::new(),
            class_bytes: 0,
            posix_end_missing_from: usize::MAX,
        }
    }

    fn run(mut self) -> Result<Hir> {
        let mut at = 0;
        // Where the repetition operator that was read just before starts.
        let mut repetition_at = None;
        while let Some(byte) = self.text.byte(at) {
            let mut this_repetition_at = None;
            at = match byte {
                b'(' if self.text.byte(at + 1) == Some(b'?') => self.perl_group(at)?,
                b'(' => self.open(true, at + 1),
                b'|' => self.bar(at + 1)?,
                b')' => self.close(at + 1)?,
                b'^' | b'$' | b'.' => self.symbol(byte, at + 1)?,
                b'[' => self.bracket(at)?,
                b'*' | b'+' | b'?' | b'{' => match self.text.operator(at) {
                    Some((min, max, after)) => {
                        this_repetition_at = Some(at);
                        self.repeat(at, (min, max), after, repetition_at)?
                    }
                    None => self.character('{', at + 1)?,
                },
                b'\\' => self.backslash(at)?,
                _ => {
                    let (c, after) = self.text.next_char(at);
                    self.character(c, after)?
                }
            };
            repetition_at = this_repetition_at;
        }
        let node = self.finish_frame()?;
        if !self.outer.is_empty() {
            return Err(self.text.error(MISSING_PAREN, 0..self.pattern.len()));
        }
        let part = node.into_part();
        self.check_depth(&part)?;
        Ok(part.hir)
    }

    // Stack.

    fn push(&mut self, node: Node) -> Result<()> {
        self.merge_literals();
        self.check(&node)?;
        self.frame.items.push(node);
        Ok(())
    }

    fn check(&self, node: &Node) -> Result<()> {
        if node.height_levels > self.limits.depth_max {
            return Err(self.text.error(NESTS_TOO_DEEPLY, 0..self.pattern.len()));
        }
        Ok(())
    }

    fn check_depth(&self, part: &Part) -> Result<()> {
        if part.depth_levels > self.limits.operator_depth_max {
            return Err(self.text.error(NESTS_TOO_DEEPLY, 0..self.pattern.len()));
        }
        Ok(())
    }

    fn merge_literals(&mut self) {
        let items = &mut self.frame.items;
        if items.len() < 2 {
            return;
        }
        if let (Some(last), Some(before)) = (items.pop(), items.last_mut())
            && let Some(last) = before.append_literal(last)
        {
            items.push(last);
        }
    }

    fn character(&mut self, c: char, after: usize) -> Result<usize> {
        self.push(Node::literal(c, self.flags.folded))?;
        Ok(after)
    }

    /// A code point from an escape; a surrogate, which no text holds, matches nothing.
    fn code_point(&mut self, code: u32, after: usize) -> Result<usize> {
        match char::from_u32(code) {
            Some(c) => self.character(c, after),
            None => self.push(Node::leaf(Hir::fail())).map(|()| after),
        }
    }

    fn symbol(&mut self, symbol: u8, after: usize) -> Result<usize> {
        let hir = match (symbol, self.flags.multi_line, self.flags.dot_matches_newline) {
            (b'^', false, _) => Hir::look(Look::Start),
            (b'^', true, _) => Hir::look(Look::StartLF),
            (b'$', false, _) => Hir::look(Look::End),
            (b'$', true, _) => Hir::look(Look::EndLF),
            (_, _, false) => Hir::dot(Dot::AnyCharExceptLF),
            (_, _, true) => Hir::dot(Dot::AnyChar),
        };
        self.push(Node::leaf(hir))?;
        Ok(after)
    }

    /// Closes the open branch.
    fn finish_branch(&mut self) -> Result<Node> {
        self.merge_literals();
        let node = Node::concat(std::mem::take(&mut self.frame.items));
        self.check(&node)?;
        Ok(node)
    }

    /// Closes the open branch and joins the branches.
    fn finish_frame(&mut self) -> Result<Node> {
        let last = self.finish_branch()?;
        let mut branches = std::mem::take(&mut self.frame.branches);
        branches.push(last);
        let node = Node::alternation(branches);
        self.check(&node)?;
        Ok(node)
    }

    fn bar(&mut self, after: usize) -> Result<usize> {
        let branch = self.finish_branch()?;
        self.frame.branches.push(branch);
        Ok(after)
    }

    fn open(&mut self, captures: bool, after: usize) -> usize {
        let frame = Frame { outer_flags: self.flags, captures, ..Frame::default() };
        self.outer.push(std::mem::replace(&mut self.frame, frame));
        after
    }

    fn close(&mut self, after: usize) -> Result<usize> {
        let node = self.finish_frame()?;
        let Some(outer) = self.outer.pop() else {
            return Err(self.text.error(UNEXPECTED_PAREN, 0..self.pattern.len()));
        };
        let closed = std::mem::replace(&mut self.frame, outer);
        self.flags = closed.outer_flags;
        self.push(if closed.captures { node.captured() } else { node })?;
        Ok(after)
    }

    // Groups and flags.

    /// `(?P<name>`, `(?<name>`, `(?flags)` and `(?flags:`, at the opening parenthesis.
    fn perl_group(&mut self, at: usize) -> Result<usize> {
        let rest = &self.pattern[at..];
        let name_at = if rest.starts_with("(?P<") && rest.len() > 4 {
            Some(at + 4)
        } else if rest.starts_with("(?<") && rest.len() > 3 {
            Some(at + 3)
        } else {
            None
        };
        if let Some(name_at) = name_at {
            let Some(len) = rest.find('>') else {
                return Err(self.text.error(INVALID_NAMED_CAPTURE, at..self.pattern.len()));
            };
            let name = &self.pattern[name_at..at + len];
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return Err(self.text.error(INVALID_NAMED_CAPTURE, at..at + len + 1));
            }
            return Ok(self.open(true, at + len + 1));
        }
        self.perl_flags(at)
    }

    fn perl_flags(&mut self, at: usize) -> Result<usize> {
        let mut flags = self.flags;
        let (mut value, mut flag_needed) = (true, false);
        let mut place = at + 2;
        while place < self.pattern.len() {
            let (c, after) = self.text.next_char(place);
            place = after;
            match c {
                'i' => flags.folded = value,
                'm' => flags.multi_line = value,
                's' => flags.dot_matches_newline = value,
                // Which of several matches is found is never asked.
                'U' => {}
                '-' if value => {
                    (value, flag_needed) = (false, true);
                    continue;
                }
                ':' | ')' if !flag_needed => {
                    if c == ':' {
                        self.open(false, place);
                    }
                    self.flags = flags;
                    return Ok(place);
                }
                _ => break,
            }
            flag_needed = false;
        }
        Err(self.text.error(INVALID_PERL, at..place))
    }

    // Repetition.

    /// Repeats the last node. `at..after` is the operator without the `?` that may follow.
    fn repeat(
        &mut self,
        at: usize,
        (min, max): (Option<u32>, Option<u32>),
        mut after: usize,
        repetition_at: Option<usize>,
    ) -> Result<usize> {
        let counted = self.text.byte(at) == Some(b'{');
        let min = match min {
            Some(min) if min <= COPIES_MAX && max.is_none_or(|max| max <= COPIES_MAX && min <= max) => min,
            _ => return Err(self.text.error(INVALID_REPEAT_COUNT, at..after)),
        };
        if self.text.byte(after) == Some(b'?') {
            after += 1;
        }
        if let Some(before) = repetition_at {
            return Err(self.text.error(INVALID_REPEAT_OPERATOR, before..after));
        }
        let Some(node) = self.frame.items.pop() else {
            return Err(self.text.error(MISSING_REPEAT_ARGUMENT, at..after));
        };
        let node = node.repeated(min, max, counted);
        self.check(&node)?;
        if counted && (min >= 2 || max.is_some_and(|max| max >= 2)) && node.copies > COPIES_MAX {
            return Err(self.text.error(INVALID_REPEAT_COUNT, at..after));
        }
        self.frame.items.push(node);
        Ok(after)
    }

    // Escapes.

    /// Everything that starts with a backslash outside of brackets.
    fn backslash(&mut self, at: usize) -> Result<usize> {
        let look = match self.text.byte(at + 1) {
            Some(b'A') => Look::Start,
            Some(b'z') => Look::End,
            Some(b'b') => Look::WordAscii,
            Some(b'B') => Look::WordAsciiNegate,
            Some(b'C') => return Err(self.text.error(INVALID_ESCAPE, at..at + 2)),
            Some(b'Q') => return self.quoted(at + 2),
            _ => {
                if let Some((group, after)) = self.escaped_group(at)? {
                    self.push_class((*group).clone())?;
                    return Ok(after);
                }
                let (code, after) = self.text.escape(at)?;
                return self.code_point(code, after);
            }
        };
        self.push(Node::leaf(Hir::look(look)))?;
        Ok(at + 2)
    }

    /// The characters up to `\E` or the end.
    fn quoted(&mut self, at: usize) -> Result<usize> {
        let rest: &'p str = &self.pattern[at..];
        let (text, after) = match rest.split_once("\\E") {
            Some((text, _)) => (text, at + text.len() + 2),
            None => (rest, self.pattern.len()),
        };
        for c in text.chars() {
            self.character(c, after)?;
        }
        Ok(after)
    }

    // Classes.

    fn push_class(&mut self, class: ClassUnicode) -> Result<()> {
        self.class_bytes += std::mem::size_of_val::<[ClassUnicodeRange]>(class.ranges());
        if self.class_bytes > self.limits.program_bytes_max {
            return Err(self.text.error(TOO_LARGE, 0..self.pattern.len()));
        }
        self.push(Node::class(class))
    }

    /// A bracket expression, at its `[`.
    fn bracket(&mut self, at: usize) -> Result<usize> {
        let mut place = at + 1;
        let negated = self.text.byte(place) == Some(b'^');
        place += usize::from(negated);
        let mut class = ClassBuilder::new(self.flags.folded);
        let first = place;
        // A `]` right at the start is a member.
        while place == first || self.text.byte(place) != Some(b']') {
            if let Some((group, after)) = self.posix_group(place)? {
                class.group(group);
                place = after;
            } else if let Some((group, after)) = self.escaped_group(place)? {
                class.group(group);
                place = after;
            } else {
                let (lo, mut after) = self.member(place, at)?;
                let mut hi = lo;
                // A `-` before the closing bracket is a member.
                if self.text.byte(after) == Some(b'-') && self.text.byte(after + 1).is_some_and(|b| b != b']')
                {
                    (hi, after) = self.member(after + 1, at)?;
                    if hi < lo {
                        return Err(self.text.error(INVALID_CLASS_RANGE, place..after));
                    }
                }
                class.range(lo, hi);
                place = after;
            }
        }
        self.push_class(class.finish(negated))?;
        Ok(place + 1)
    }

    /// One character of the bracket expression that starts at `bracket_at`.
    fn member(&self, at: usize, bracket_at: usize) -> Result<(u32, usize)> {
        match self.text.byte(at) {
            None => Err(self.text.error(MISSING_BRACKET, bracket_at..self.pattern.len())),
            Some(b'\\') => self.text.escape(at),
            Some(_) => {
                let (c, after) = self.text.next_char(at);
                Ok((u32::from(c), after))
            }
        }
    }

    /// `[:name:]` at `at` and the place after it. Without `:]` anywhere behind, `[` is a character.
    fn posix_group(&mut self, at: usize) -> Result<Option<(Rc<ClassUnicode>, usize)>> {
        let rest = &self.pattern.as_bytes()[at.min(self.pattern.len())..];
        if !rest.starts_with(b"[:") || at >= self.posix_end_missing_from {
            return Ok(None);
        }
        let Some(len) = memmem::find(&rest[2..], b":]") else {
            self.posix_end_missing_from = at;
            return Ok(None);
        };
        let end = at + len + 4;
        let group = AsciiGroup::posix(&self.pattern[at + 2..at + 2 + len]).map(Group::Ascii);
        self.group(group, at..end).map(Some)
    }

    /// `\d`, `\pL`, `\p{Greek}`, `\P{^Greek}` at `at`, if it is one of them, and the place after it.
    fn escaped_group(&mut self, at: usize) -> Result<Option<(Rc<ClassUnicode>, usize)>> {
        let (Some(b'\\'), Some(letter)) = (self.text.byte(at), self.text.byte(at + 1)) else {
            return Ok(None);
        };
        if let Some(group) = AsciiGroup::perl(letter) {
            return self.group(Some(Group::Ascii(group)), at..at + 2).map(Some);
        }
        if !matches!(letter, b'p' | b'P') {
            return Ok(None);
        }
        let (c, mut end) = self.text.next_char(at + 2);
        let mut name = at + 2..end;
        if c == '{' {
            let Some(len) = self.pattern[at..].find('}') else {
                return Err(self.text.error(INVALID_CLASS_RANGE, at..self.pattern.len()));
            };
            (name, end) = (at + 3..at + len, at + len + 1);
        }
        let name = &self.pattern[name];
        let (name, negated) = match name.strip_prefix('^') {
            Some(rest) => (rest, letter == b'p'),
            None => (name, letter == b'P'),
        };
        let group = unicode::property(name).map(|property| Group::Unicode(property, negated));
        self.group(group, at..end).map(Some)
    }

    /// The code points of `group`, kept for the next time that the pattern names it, and the end of `span`, which
    /// is where the pattern names it. No group: the name is not known.
    fn group(&mut self, group: Option<Group>, span: Range<usize>) -> Result<(Rc<ClassUnicode>, usize)> {
        let folded = self.flags.folded;
        if let Some(class) = group.and_then(|group| self.classes.get(&(group, folded))) {
            return Ok((Rc::clone(class), span.end));
        }
        match group.and_then(|group| Some((group, Rc::new(group.class(folded)?)))) {
            Some((group, class)) => {
                self.classes.insert((group, folded), Rc::clone(&class));
                Ok((class, span.end))
            }
            None => Err(self.text.error(INVALID_CLASS_RANGE, span)),
        }
    }
}
