//! Witnesses: what a record must have for a rule to be true, read off the compiled rule.
//!
//! A rule is true only if every operand of a chain of `&&` is true, and at least one of a chain of `||`; an operand that is
//! false or fails cannot be stood in for. So one witness of one operand is enough for `&&`, and the witnesses of all
//! operands are needed for `||`. What is not understood here is open: it may be true of any record.

use super::super::ast::{BinaryOp, Literal, LogicOp};
use super::super::code::{
    Body, Compare, Cond, CondKind, Ex, ExKind, Key as MemberKey, Loop, LoopName, StrTest,
};
use super::super::go_regex::GoRegex;
use super::super::types::Ty;
use crate::record::SlotId;

/// Where a witness is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) slot: SlotId,
    pub(super) part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    /// The string; the empty one where the field is absent or null.
    Text,
    /// The string in lower case.
    Lower,
    /// The string in upper case.
    Upper,
    /// Each element of an array of strings.
    Items,
    /// `true` or `false` as text; false where the field is absent or null.
    Truth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Test {
    Equals,
    StartsWith,
    EndsWith,
    Contains,
}

/// One witness: the subject passes the test with this text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Witness {
    pub(super) subject: Subject,
    pub(super) test: Test,
    pub(super) text: Box<[u8]>,
    /// Of a field that has only a handful of values, so that many records have this one.
    pub(super) weak: bool,
}

/// What must hold for a condition to be true.
#[derive(Debug)]
pub(super) enum Need {
    /// Nothing that is known here.
    Open,
    /// One of these witnesses. None at all: never true.
    One(Vec<Witness>),
    All(Vec<Need>),
    Any(Vec<Need>),
}

impl Need {
    /// Calls `visit` for every witness, whether it will be chosen or not.
    pub(super) fn each<'n>(&'n self, visit: &mut dyn FnMut(&'n Witness)) {
        match self {
            Need::Open => {}
            Need::One(witnesses) => witnesses.iter().for_each(visit),
            Need::All(needs) | Need::Any(needs) => needs.iter().for_each(|need| need.each(visit)),
        }
    }

    /// The set of witnesses with the lowest cost one of which every record must have; `None`: there is no such set.
    pub(super) fn cheapest(&self, cost: &dyn Fn(&Witness) -> u64) -> Option<(u64, Vec<&Witness>)> {
        match self {
            Need::Open => None,
            Need::One(witnesses) => {
                let total = witnesses.iter().map(cost).fold(0, u64::saturating_add);
                Some((total, witnesses.iter().collect()))
            }
            Need::All(needs) => {
                needs.iter().filter_map(|need| need.cheapest(cost)).min_by_key(|(cost, _)| *cost)
            }
            Need::Any(needs) => {
                let (mut total, mut all) = (0_u64, Vec::new());
                for need in needs {
                    let (cost, witnesses) = need.cheapest(cost)?;
                    total = total.saturating_add(cost);
                    all.extend(witnesses);
                }
                Some((total, all))
            }
        }
    }

    fn one(subject: Subject, test: Test, text: &[u8], weak: bool) -> Need {
        // Every text starts with, ends with and holds the empty text.
        if text.is_empty() && test != Test::Equals {
            return Need::Open;
        }
        Need::One(vec![Witness { subject, test, text: text.into(), weak }])
    }

    fn truth(slot: SlotId, wanted: bool) -> Need {
        let text = if wanted { TRUE } else { FALSE };
        Need::one(Subject { slot, part: Part::Truth }, Test::Equals, text, true)
    }
}

pub(super) const TRUE: &[u8] = b"true";
pub(super) const FALSE: &[u8] = b"false";

/// What a rule needs to be true.
pub(super) fn of_rule(code: &Ex) -> Need {
    Reading::default().ex(code)
}

/// A string that a condition tests, traced back to a field.
#[derive(Clone, Copy)]
struct Traced {
    subject: Subject,
    /// The string is the beginning of the subject's, not all of it.
    beginning: bool,
}

impl From<Subject> for Traced {
    fn from(subject: Subject) -> Traced {
        Traced { subject, beginning: false }
    }
}

#[derive(Default)]
struct Reading<'e> {
    /// Values of variables; each number is given once in a rule.
    variables: Vec<(usize, &'e Ex)>,
}

impl<'e> Reading<'e> {
    fn ex(&mut self, ex: &'e Ex) -> Need {
        match &ex.kind {
            ExKind::Bool(true) => Need::Open,
            ExKind::Bool(false) => Need::One(Vec::new()),
            ExKind::Field(slot, ty) if ty.is_bool() => Need::truth(*slot, true),
            ExKind::Cond(cond) => self.cond(cond),
            ExKind::Logic(op, conds, last) => {
                let mut needs: Vec<Need> = conds.iter().map(|cond| self.cond(cond)).collect();
                needs.push(self.ex(last));
                match op {
                    LogicOp::And => Need::All(needs),
                    LogicOp::Or => Need::Any(needs),
                }
            }
            ExKind::Let(variable, pair) => {
                self.variables.push((*variable, &pair[0]));
                self.ex(&pair[1])
            }
            ExKind::Builtin(name @ ("hasPrefix" | "hasSuffix"), args) => self.has_affix(name, args),
            ExKind::Sequence(items) => items.last().map_or(Need::Open, |last| self.ex(last)),
            ExKind::If(cond, pair) => {
                let first = Need::All(vec![self.cond(cond), self.ex(&pair[0])]);
                Need::Any(vec![first, self.ex(&pair[1])])
            }
            _ => Need::Open,
        }
    }

    fn has_affix(&self, name: &str, args: &'e [Ex]) -> Need {
        match args {
            [value, Ex { kind: ExKind::Str(affix), .. }] => {
                self.trace(value).map_or(Need::Open, |traced| match (name, traced.beginning) {
                    ("hasPrefix", _) => Need::one(traced.subject, Test::StartsWith, affix, false),
                    (_, false) => Need::one(traced.subject, Test::EndsWith, affix, false),
                    (_, true) => Need::one(traced.subject, Test::Contains, affix, false),
                })
            }
            _ => Need::Open,
        }
    }

    fn cond(&mut self, cond: &'e Cond) -> Need {
        match &cond.kind {
            CondKind::Const(true) => Need::Open,
            CondKind::Const(false) => Need::One(Vec::new()),
            CondKind::All(conds) => Need::All(conds.iter().map(|cond| self.cond(cond)).collect()),
            CondKind::AnyOf(conds) => Need::Any(conds.iter().map(|cond| self.cond(cond)).collect()),
            CondKind::Not(inner) => match &inner.kind {
                CondKind::Not(cond) => self.cond(cond),
                CondKind::Bool(field) => Need::truth(field.slot, false),
                _ => Need::Open,
            },
            CondKind::Str(field, test) => {
                text(Subject { slot: field.slot, part: Part::Text }.into(), test, field.few_values)
            }
            CondKind::Bool(field) => Need::truth(field.slot, true),
            CondKind::List(field, quantifier, test) => items(field.slot, *quantifier, test),
            CondKind::Text(ex, test) => self.trace(ex).map_or(Need::Open, |traced| text(traced, test, false)),
            CondKind::Compare(compare) => self.compare(compare),
            CondKind::Loop(looped) => self.looped(looped),
            CondKind::Value(ex) => match &ex.kind {
                ExKind::InLiterals(ex, literals) => self.literals(ex, literals),
                _ => self.ex(ex),
            },
            CondKind::Int(..) => Need::Open,
        }
    }

    fn compare(&mut self, compare: &'e Compare) -> Need {
        let (left, right) = (&compare.left, &compare.right);
        match (compare.op, &left.kind, &right.kind) {
            (BinaryOp::Eq, ExKind::Field(slot, _), ExKind::Bool(value))
            | (BinaryOp::Eq, ExKind::Bool(value), ExKind::Field(slot, _)) => Need::truth(*slot, *value),
            (BinaryOp::Eq, ExKind::Str(value), _) => self.equals(right, value),
            (BinaryOp::Eq, _, ExKind::Str(value)) => self.equals(left, value),
            // Not in structs: they have their fields even where the record has nothing.
            (BinaryOp::In, ExKind::Str(value), ExKind::Field(slot, Ty::Array(..) | Ty::Json)) => {
                Need::one(Subject { slot: *slot, part: Part::Items }, Test::Equals, value, false)
            }
            _ => Need::Open,
        }
    }

    fn equals(&mut self, ex: &'e Ex, value: &[u8]) -> Need {
        self.trace(ex).map_or(Need::Open, |traced| equal(traced, value, false))
    }

    fn literals(&mut self, ex: &'e Ex, literals: &[Literal]) -> Need {
        let Some(traced) = self.trace(ex) else { return Need::Open };
        let each = literals.iter().map(|literal| match literal {
            Literal::Str(value) => equal(traced, value, false),
            _ => Need::Open,
        });
        Need::Any(each.collect())
    }

    /// `any` and `one` over an array of the record: some element passes.
    fn looped(&mut self, looped: &'e Loop) -> Need {
        let (ExKind::Field(slot, Ty::Array(..) | Ty::Json), Body::Cond(body)) =
            (&looped.collection.kind, &looped.body)
        else {
            return Need::Open;
        };
        let is_item = |ex: &Ex| matches!(ex.kind, ExKind::Item);
        match &body.kind {
            CondKind::Text(item, test) if is_item(item) => items(*slot, looped.name, test),
            CondKind::Compare(compare) if compare.op == BinaryOp::Eq => {
                match (&compare.left, &compare.right) {
                    (item, Ex { kind: ExKind::Str(value), .. })
                    | (Ex { kind: ExKind::Str(value), .. }, item)
                        if is_item(item) && is_existential(looped.name) =>
                    {
                        Need::one(Subject { slot: *slot, part: Part::Items }, Test::Equals, value, false)
                    }
                    _ => Need::Open,
                }
            }
            _ => Need::Open,
        }
    }

    /// The field whose string `ex` yields, or the beginning of it. Where the field holds no string, `ex` may yield anything.
    fn trace(&self, ex: &'e Ex) -> Option<Traced> {
        match &ex.kind {
            ExKind::Field(slot, _) => Some(Subject { slot: *slot, part: Part::Text }.into()),
            ExKind::Var(number) => {
                // A value refers to earlier variables only, so this ends.
                let (_, value) = self.variables.iter().find(|(known, _)| known == number)?;
                self.trace(value)
            }
            ExKind::Chain(inner) => self.trace(inner),
            ExKind::Builtin(name @ ("lower" | "upper"), args) => {
                let part = if *name == "lower" { Part::Lower } else { Part::Upper };
                let traced = self.trace(args.first()?)?;
                let plain = traced.subject.part == Part::Text;
                plain.then_some(Traced { subject: Subject { part, ..traced.subject }, ..traced })
            }
            // The first piece is where the text begins, whatever the separator.
            ExKind::Member(member) => match (&member.base.kind, &member.key) {
                (
                    ExKind::Builtin("split" | "splitAfter", args),
                    MemberKey::Value(Ex { kind: ExKind::Int(0), .. }),
                ) => {
                    let traced = self.trace(args.first()?)?;
                    Some(Traced { beginning: true, ..traced })
                }
                _ => None,
            },
            _ => None,
        }
    }
}

fn is_existential(quantifier: LoopName) -> bool {
    matches!(quantifier, LoopName::Any | LoopName::One)
}

fn items(slot: SlotId, quantifier: LoopName, test: &StrTest) -> Need {
    if !is_existential(quantifier) {
        return Need::Open;
    }
    text(Subject { slot, part: Part::Items }.into(), test, false)
}

fn equal(traced: Traced, value: &[u8], weak: bool) -> Need {
    let test = if traced.beginning { Test::StartsWith } else { Test::Equals };
    Need::one(traced.subject, test, value, weak)
}

fn text(traced: Traced, test: &StrTest, weak: bool) -> Need {
    let subject = traced.subject;
    match test {
        StrTest::Eq(value) => equal(traced, value, weak),
        StrTest::In(set) => Need::Any(set.0.iter().map(|value| equal(traced, value, weak)).collect()),
        StrTest::Prefix(value) => Need::one(subject, Test::StartsWith, value, weak),
        StrTest::Contains(finder) => Need::one(subject, Test::Contains, finder.needle(), weak),
        // Of a beginning these tell only that they are somewhere in the text.
        StrTest::Suffix(value) => {
            let test = if traced.beginning { Test::Contains } else { Test::EndsWith };
            Need::one(subject, test, value, weak)
        }
        StrTest::Matches(_) if traced.beginning => Need::Open,
        StrTest::Matches(regex) => pattern(subject, regex, weak),
    }
}

/// Each set of required texts is a condition of its own.
fn pattern(subject: Subject, regex: &GoRegex, weak: bool) -> Need {
    let required = regex.required_literals();
    let sets = [
        (Test::Equals, &required.exact),
        (Test::StartsWith, &required.prefixes),
        (Test::EndsWith, &required.suffixes),
        (Test::Contains, &required.contains),
    ];
    let need = |(test, set): (Test, &Option<Vec<String>>)| {
        let each = set.as_ref()?.iter().map(|value| Need::one(subject, test, value.as_bytes(), weak));
        Some(Need::Any(each.collect()))
    };
    Need::All(sets.into_iter().filter_map(need).collect())
}
