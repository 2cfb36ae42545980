//! The compiled form: a tree of conditions over typed fields, with general expressions where a rule needs them.
//! It is immutable and shared; evaluating it neither hashes nor allocates for the usual operators.

use std::sync::Arc;

use memchr::memmem::Finder;

use super::ast::{BinaryOp, Literal, LogicOp, Span, UnaryOp};
use super::env::Environment;
use super::go_regex::GoRegex;
use super::types::{Method, Ty};
use crate::record::SlotId;

/// A condition and its place in the source.
#[derive(Debug)]
pub(crate) struct Cond {
    pub(crate) kind: CondKind,
    pub(crate) span: Span,
}

/// A field of the record and where the rule names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldRead {
    pub(crate) slot: SlotId,
    pub(crate) span: Span,
    /// So many records have each of its values that it is a poor key to look rules up by.
    pub(crate) few_values: bool,
}

/// Fields with a handful of values, as paths of JSON keys.
const FEW_VALUES: [&[&str]; 6] = [
    &["type"],
    &["request", "operation"],
    &["request", "mount_type"],
    &["request", "mount_class"],
    &["auth", "token_type"],
    &["response", "mount_type"],
];

impl FieldRead {
    /// Reads the field at a path of JSON keys.
    pub(crate) fn new(slot: SlotId, path: &[Box<str>], span: Span) -> FieldRead {
        let is_path = |few: &&[&str]| few.iter().copied().eq(path.iter().map(|key| &**key));
        FieldRead { slot, span, few_values: FEW_VALUES.iter().any(is_path) }
    }
}

#[derive(Debug)]
pub(crate) enum CondKind {
    Const(bool),
    All(Box<[Cond]>),
    AnyOf(Box<[Cond]>),
    Not(Box<Cond>),
    /// A string field and a constant.
    Str(FieldRead, StrTest),
    Bool(FieldRead),
    /// An integer field and a constant.
    Int(FieldRead, BinaryOp, i64),
    /// All, any, none or one of an array of strings.
    List(FieldRead, LoopName, StrTest),
    /// A string that is computed and a constant; `strict` where both are strings for the checker, so that nil fails.
    Text(Box<Ex>, StrTest),
    Compare(Box<Compare>),
    Loop(Box<Loop>),
    /// Any other expression: fails unless it is a bool.
    Value(Box<Ex>),
}

/// A test of a string against something known when the rule is compiled.
#[derive(Debug, Clone)]
pub(crate) enum StrTest {
    Eq(Box<[u8]>),
    In(StrSet),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Arc<Finder<'static>>),
    Matches(Arc<GoRegex>),
}

/// Sorted by length, then bytes.
#[derive(Debug, Clone)]
pub(crate) struct StrSet(pub(crate) Box<[Box<[u8]>]>);

impl StrSet {
    pub(crate) fn new(mut values: Vec<Box<[u8]>>) -> StrSet {
        values.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        values.dedup();
        StrSet(values.into())
    }

    pub(crate) fn contains(&self, text: &[u8]) -> bool {
        if self.0.len() <= 8 {
            return self.0.iter().any(|value| **value == *text);
        }
        self.0.binary_search_by(|value| (value.len(), &**value).cmp(&(text.len(), text))).is_ok()
    }
}

impl StrTest {
    /// The work of [`StrTest::hits`] on a text of so many bytes, in steps.
    pub(crate) fn steps(&self, bytes: usize) -> usize {
        match self {
            StrTest::Matches(regex) => regex.steps(bytes),
            _ => bytes / 64,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Compare {
    pub(crate) op: BinaryOp,
    pub(crate) left: Ex,
    pub(crate) right: Ex,
    pub(crate) mode: Equality,
}

/// How `==` compares, by the static types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Equality {
    /// Both are integers for the checker: anything else fails.
    Ints,
    /// Both are strings for the checker: anything else fails.
    Strs,
    General,
}

/// A general expression.
#[derive(Debug)]
pub(crate) struct Ex {
    pub(crate) kind: ExKind,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum ExKind {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Box<[u8]>),
    Bytes(Box<[u8]>),
    Constants(Box<[Literal]>),
    /// A typed field of the record.
    Field(SlotId, Ty),
    /// The whole environment.
    Env(Environment),
    /// A value of a constant environment.
    Constant(Environment, usize),
    Var(usize),
    Item,
    Index,
    Acc,
    Cond(Box<Cond>),
    /// A logical chain whose last operand is returned as it is.
    Logic(LogicOp, Box<[Cond]>, Box<Ex>),
    Sign(UnaryOp, Box<Ex>),
    Binary(BinaryOp, Box<[Ex; 2]>),
    Coalesce(Box<[Ex; 2]>),
    /// `in` with a literal list of integers.
    InInts(Box<Ex>, Box<[i64]>),
    /// `in` with a literal list.
    InLiterals(Box<Ex>, Box<[Literal]>),
    Chain(Box<Ex>),
    Member(Box<Member>),
    Slice(Box<[Option<Ex>; 3]>),
    CallMethod(Box<Ex>, Method, Box<[Ex]>),
    /// A call of a value that is no function for the checker.
    CallValue(Box<Ex>, Box<[Ex]>),
    Builtin(&'static str, Box<[Ex]>),
    Loop(Box<Loop>),
    Let(usize, Box<[Ex; 2]>),
    Sequence(Box<[Ex]>),
    If(Box<Cond>, Box<[Ex; 2]>),
    Array(Box<[Ex]>),
    Map(Box<[(Ex, Ex)]>),
    /// Fails when it is reached.
    Fail(Box<str>),
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) base: Ex,
    pub(crate) key: Key,
    pub(crate) optional: bool,
    /// Untyped content of the record: a member of nil, or of something without members, is nil.
    pub(crate) json: bool,
}

#[derive(Debug)]
pub(crate) enum Key {
    /// A field of a struct by number.
    Field(usize),
    /// A field, a key or a method by name.
    Name(Box<str>),
    Value(Ex),
}

/// A builtin that walks over a collection.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) name: LoopName,
    pub(crate) collection: Ex,
    pub(crate) body: Body,
    /// The order of `sortBy`, the start of `reduce`.
    pub(crate) third: Option<Ex>,
    pub(crate) map: Option<Ex>,
    pub(crate) throws: bool,
    pub(crate) threshold: Option<i64>,
}

#[derive(Debug)]
pub(crate) enum Body {
    /// The element itself.
    Item,
    Cond(Cond),
    Value(Ex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoopName {
    All,
    None,
    Any,
    One,
    Filter,
    Map,
    Find,
    FindIndex,
    FindLast,
    FindLastIndex,
    Count,
    Sum,
    GroupBy,
    SortBy,
    Reduce,
}

impl Ex {
    /// Calls `visit` for this expression and all below it that are evaluated outside of loops.
    pub(crate) fn reads<'e>(&'e self, visit: &mut dyn FnMut(&'e Ex)) {
        visit(self);
        match &self.kind {
            ExKind::Cond(cond) => cond.reads(visit),
            ExKind::Logic(_, conds, last) => {
                conds.iter().for_each(|cond| cond.reads(visit));
                last.reads(visit);
            }
            ExKind::Sign(_, ex) | ExKind::InInts(ex, _) | ExKind::InLiterals(ex, _) | ExKind::Chain(ex) => {
                ex.reads(visit)
            }
            ExKind::Binary(_, pair) | ExKind::Coalesce(pair) | ExKind::Let(_, pair) => {
                pair.iter().for_each(|ex| ex.reads(visit));
            }
            ExKind::Member(member) => {
                member.base.reads(visit);
                if let Key::Value(key) = &member.key {
                    key.reads(visit);
                }
            }
            ExKind::Slice(parts) => parts.iter().flatten().for_each(|ex| ex.reads(visit)),
            ExKind::CallMethod(base, _, args) | ExKind::CallValue(base, args) => {
                base.reads(visit);
                args.iter().for_each(|ex| ex.reads(visit));
            }
            ExKind::Builtin(_, items) | ExKind::Sequence(items) | ExKind::Array(items) => {
                items.iter().for_each(|ex| ex.reads(visit));
            }
            ExKind::Loop(looped) => looped.collection.reads(visit),
            ExKind::If(cond, pair) => {
                cond.reads(visit);
                pair.iter().for_each(|ex| ex.reads(visit));
            }
            ExKind::Map(pairs) => pairs.iter().for_each(|(key, value)| {
                key.reads(visit);
                value.reads(visit);
            }),
            _ => {}
        }
    }
}

impl Cond {
    /// Calls `visit` for the general expressions below that are evaluated outside of loops.
    pub(crate) fn reads<'e>(&'e self, visit: &mut dyn FnMut(&'e Ex)) {
        match &self.kind {
            CondKind::All(conds) | CondKind::AnyOf(conds) => conds.iter().for_each(|cond| cond.reads(visit)),
            CondKind::Not(cond) => cond.reads(visit),
            CondKind::Text(ex, _) | CondKind::Value(ex) => ex.reads(visit),
            CondKind::Compare(compare) => {
                compare.left.reads(visit);
                compare.right.reads(visit);
            }
            CondKind::Loop(looped) => looped.collection.reads(visit),
            CondKind::Const(_)
            | CondKind::Str(..)
            | CondKind::Bool(_)
            | CondKind::Int(..)
            | CondKind::List(..) => {}
        }
    }

    /// Evaluated with fields and constants only: neither arena nor variables are needed.
    pub(crate) fn is_plain(&self) -> bool {
        match &self.kind {
            CondKind::Const(_)
            | CondKind::Str(..)
            | CondKind::Bool(_)
            | CondKind::Int(..)
            | CondKind::List(..) => true,
            CondKind::All(conds) | CondKind::AnyOf(conds) => conds.iter().all(Cond::is_plain),
            CondKind::Not(cond) => cond.is_plain(),
            _ => false,
        }
    }
}
