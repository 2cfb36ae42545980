//! The quick form of a rule: its tests in a row, each with the test to go on with when it holds and when it does not.
//!
//! It answers most rules on most records. It does not answer where a part needs more than fields and constants, and where a
//! field is mistyped: then the rule is evaluated in the order in which it was written, which also tells the failure. So tests
//! may change places here, dear ones behind cheap ones, as long as the fields of those that are passed over are well typed.

use std::sync::Arc;

use memchr::memmem::Finder;

use super::ast::BinaryOp;
use super::code::{Cond, CondKind, FieldRead, LoopName, StrTest};
use super::go_regex::{GoRegex, LiteralTest};
use super::plain;
use crate::record::{Record, Slot};

/// Number of a step, or one of the ends below.
type Target = u32;

const TRUE: Target = u32::MAX;
const FALSE: Target = u32::MAX - 1;
/// Decided only by evaluating the rule as it stands.
const UNSURE: Target = u32::MAX - 2;

/// The tests of one rule. Immutable.
#[derive(Debug)]
pub(crate) struct Program {
    steps: Vec<Step>,
    start: Target,
}

#[derive(Debug)]
struct Step {
    field: FieldRead,
    yes: Target,
    no: Target,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Equals(Text),
    In(Texts),
    Prefix(Text),
    Suffix(Text),
    Contains(Arc<Finder<'static>>),
    Matches(Arc<GoRegex>),
    Bool,
    Int(BinaryOp, i64),
    List(LoopName, StrTest),
    /// The field holds what a test of this kind can read, or nothing.
    Typed(Wanted),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Str,
    Bool,
    Int,
}

impl Program {
    /// The program of a condition; `None` if it could never decide.
    pub(crate) fn new(cond: &Cond) -> Option<Program> {
        let mut program = Program { steps: Vec::new(), start: UNSURE };
        program.start = program.cond(cond, TRUE, FALSE);
        (program.start != UNSURE).then_some(program)
    }

    /// Whether the rule is true of the record; `None` where that is not decided here.
    #[inline]
    pub(crate) fn run(&self, record: &Record<'_>) -> Option<bool> {
        let mut at = self.start;
        while let Some(step) = self.steps.get(at as usize) {
            at = if step.hits(record)? { step.yes } else { step.no };
        }
        match at {
            TRUE => Some(true),
            FALSE => Some(false),
            _ => None,
        }
    }

    /// Appends the steps of a condition; where they begin.
    fn cond(&mut self, cond: &Cond, yes: Target, no: Target) -> Target {
        let (field, test) = match &cond.kind {
            CondKind::Const(value) => return if *value { yes } else { no },
            CondKind::Not(cond) => return self.cond(cond, no, yes),
            CondKind::All(conds) => {
                return self.chain(conds, yes, |program, cond, next| program.cond(cond, next, no));
            }
            CondKind::AnyOf(conds) => {
                return self.chain(conds, no, |program, cond, next| program.cond(cond, yes, next));
            }
            CondKind::Str(field, test) => (field, text_test(test)),
            CondKind::Bool(field) => (field, Test::Bool),
            CondKind::Int(field, op, value) => (field, Test::Int(*op, *value)),
            CondKind::List(field, quantifier, test) => (field, Test::List(*quantifier, test.clone())),
            CondKind::Text(..) | CondKind::Compare(_) | CondKind::Loop(_) | CondKind::Value(_) => {
                return UNSURE;
            }
        };
        self.step(*field, test, yes, no)
    }

    fn step(&mut self, field: FieldRead, test: Test, yes: Target, no: Target) -> Target {
        self.steps.push(Step { field, yes, no, test });
        // A rule has far fewer parts.
        self.steps.len() as Target - 1
    }

    /// Operands of one connective: `link` appends one of them before what comes behind it.
    fn chain(
        &mut self,
        conds: &[Cond],
        end: Target,
        mut link: impl FnMut(&mut Program, &Cond, Target) -> Target,
    ) -> Target {
        let mut next = end;
        // From the back, because each step needs to know what comes behind it.
        for run in conds.chunk_by(|a, b| a.is_plain() && b.is_plain()).rev() {
            let mut order: Vec<&Cond> = run.iter().collect();
            order.sort_by_key(|cond| is_dear(cond));
            let same = order.iter().zip(run).take_while(|(a, b)| std::ptr::eq(**a, *b)).count();
            for (place, cond) in order.iter().enumerate().rev() {
                next = link(self, cond, next);
                // Here the first one is passed over: nothing may be wrong with any that are.
                if place == same {
                    for cond in run.iter().filter(|cond| is_dear(cond)) {
                        next = self.typed(cond, next);
                    }
                }
            }
        }
        next
    }

    /// Makes sure that the fields of a condition are well typed.
    fn typed(&mut self, cond: &Cond, yes: Target) -> Target {
        let (field, wanted) = match &cond.kind {
            CondKind::Str(field, _) => (field, Wanted::Str),
            CondKind::Bool(field) => (field, Wanted::Bool),
            CondKind::Int(field, ..) => (field, Wanted::Int),
            CondKind::Not(cond) => return self.typed(cond, yes),
            CondKind::All(conds) | CondKind::AnyOf(conds) => {
                return conds.iter().fold(yes, |next, cond| self.typed(cond, next));
            }
            CondKind::Const(_) => return yes,
            CondKind::List(..)
            | CondKind::Text(..)
            | CondKind::Compare(_)
            | CondKind::Loop(_)
            | CondKind::Value(_) => {
                return UNSURE;
            }
        };
        self.step(*field, Test::Typed(wanted), yes, UNSURE)
    }
}

/// Looks at much more than a few bytes. A list keeps its place: that it is well typed is no cheaper to find out than the answer.
fn is_dear(cond: &Cond) -> bool {
    match &cond.kind {
        CondKind::Str(_, StrTest::Matches(regex)) => {
            !matches!(regex.literal_test(), Some(test) if !matches!(test, LiteralTest::Contains(_)))
        }
        CondKind::Str(_, StrTest::Contains(_)) => true,
        CondKind::Not(cond) => is_dear(cond),
        CondKind::All(conds) | CondKind::AnyOf(conds) => {
            conds.iter().any(is_dear) && !conds.iter().any(has_list)
        }
        _ => false,
    }
}

fn has_list(cond: &Cond) -> bool {
    match &cond.kind {
        CondKind::List(..) => true,
        CondKind::Not(cond) => has_list(cond),
        CondKind::All(conds) | CondKind::AnyOf(conds) => conds.iter().any(has_list),
        _ => false,
    }
}

fn text_test(test: &StrTest) -> Test {
    match test {
        StrTest::Eq(text) => Test::Equals(Text::new(text)),
        StrTest::In(set) => Test::In(Texts::new(&set.0)),
        StrTest::Prefix(text) => Test::Prefix(Text::new(text)),
        StrTest::Suffix(text) => Test::Suffix(Text::new(text)),
        StrTest::Contains(finder) => Test::Contains(finder.clone()),
        StrTest::Matches(regex) => match regex.literal_test() {
            Some(LiteralTest::Equals(text)) => Test::Equals(Text::new(text.as_bytes())),
            Some(LiteralTest::StartsWith(text)) => Test::Prefix(Text::new(text.as_bytes())),
            Some(LiteralTest::EndsWith(text)) => Test::Suffix(Text::new(text.as_bytes())),
            Some(LiteralTest::Contains(_) | LiteralTest::Always | LiteralTest::Never) | None => {
                Test::Matches(regex.clone())
            }
        },
    }
}

impl Step {
    /// Whether the test holds; `None` if the field is mistyped.
    #[inline(always)]
    fn hits(&self, record: &Record<'_>) -> Option<bool> {
        let slot = self.field.slot;
        let text = record.text_of(slot);
        Some(match &self.test {
            Test::Equals(wanted) => wanted.is(text?),
            Test::In(wanted) => wanted.has(text?),
            Test::Prefix(wanted) => wanted.begins(text?),
            Test::Suffix(wanted) => wanted.ends(text?),
            Test::Contains(finder) => finder.find(text?).is_some(),
            Test::Matches(regex) => {
                let text = text?;
                if text.len() > QUICK_BYTES && regex.steps(text.len()) > QUICK_STEPS {
                    return None;
                }
                regex.is_match_utf8(text)
            }
            Test::Bool => match record.slot(slot) {
                Slot::Bool(value) => value,
                slot if slot.is_missing() => false,
                _ => return None,
            },
            Test::Int(op, value) => return plain::int(record, &self.field, *op, *value),
            Test::List(quantifier, test) => return plain::list(record, &self.field, *quantifier, test),
            Test::Typed(wanted) => match wanted {
                Wanted::Str => text.is_some(),
                Wanted::Bool => {
                    let slot = record.slot(slot);
                    matches!(slot, Slot::Bool(_)) || slot.is_missing()
                }
                Wanted::Int => plain::int(record, &self.field, BinaryOp::Eq, 0).is_some(),
            },
        })
    }
}

/// A text to compare with. Most comparisons fail, and most of those at the length or at the first or last byte.
#[derive(Debug)]
struct Text(Box<[u8]>);

impl Text {
    fn new(text: &[u8]) -> Text {
        Text(text.into())
    }

    #[inline(always)]
    fn is(&self, text: &[u8]) -> bool {
        text.len() == self.0.len() && self.begins(text)
    }

    #[inline(always)]
    fn begins(&self, text: &[u8]) -> bool {
        let Some(last) = self.0.len().checked_sub(1) else { return true };
        text.get(last) == self.0.last() && text.first() == self.0.first() && text.starts_with(&self.0)
    }

    #[inline(always)]
    fn ends(&self, text: &[u8]) -> bool {
        text.last() == self.0.last() && text.ends_with(&self.0) || self.0.is_empty()
    }
}

/// Texts to find one among.
#[derive(Debug)]
struct Texts {
    /// Bit `n`: one has `n` bytes, bit 63: one has 63 or more.
    lengths: u64,
    /// In the order of [`super::code::StrSet`].
    texts: Box<[Text]>,
}

/// A search that may take longer than this is counted, which is not done here.
const QUICK_STEPS: usize = 10_000;
/// A text that is so short is not looked at in that way.
const QUICK_BYTES: usize = 256;

/// Up to so many texts are compared one by one.
const LIST_MAX: usize = 8;

fn length_bit(text: &[u8]) -> u64 {
    1 << text.len().min(63)
}

impl Texts {
    fn new(sorted: &[Box<[u8]>]) -> Texts {
        let lengths = sorted.iter().fold(0, |lengths, text| lengths | length_bit(text));
        Texts { lengths, texts: sorted.iter().map(|text| Text::new(text)).collect() }
    }

    #[inline(always)]
    fn has(&self, text: &[u8]) -> bool {
        if self.lengths & length_bit(text) == 0 {
            return false;
        }
        if self.texts.len() <= LIST_MAX {
            return self.texts.iter().any(|wanted| wanted.is(text));
        }
        self.texts.binary_search_by(|wanted| (wanted.0.len(), &*wanted.0).cmp(&(text.len(), text))).is_ok()
    }
}
