//! Evaluation. Recursion follows the tree, whose height is bounded when the rule is compiled; steps, elements and bytes
//! have budgets, so that no rule loops without end or uses memory without bound.

use std::cell::Cell;

use bumpalo::Bump;

use super::ast::{BinaryOp, Literal, LogicOp, UnaryOp};
use super::code::{Compare, Cond, CondKind, Equality, Ex, ExKind, StrTest};
use super::error::EvalErrorKind;
use super::go_regex::{GoRegex, RegexLimits};
use super::plain;
use super::types::{MapTy, Slice};
use super::value::{Array, Evaluated, Fault, Items, Map, Value, fault, fault_of};
use super::{EvalScratch, RunLimits};
use crate::record::Record;

/// One evaluation.
pub(crate) struct Vm<'a> {
    pub(crate) record: Record<'a>,
    pub(crate) bump: &'a Bump,
    pub(crate) now: Option<jiff::Timestamp>,
    pub(crate) limits: RunLimits,
    variables: &'a [Cell<Value<'a>>],
    steps: &'a Cell<usize>,
    elements: Cell<usize>,
    bytes: Cell<usize>,
    depth: Cell<usize>,
    /// An optional member met nil: the rest of the chain is nil.
    pub(crate) broken: Cell<bool>,
}

/// The innermost predicate's element.
pub(crate) struct Scope<'a> {
    pub(crate) item: Result<Value<'a>, &'static str>,
    pub(crate) index: usize,
    pub(crate) acc: Value<'a>,
}

impl Scope<'_> {
    /// Outside of every predicate.
    pub(crate) const OUTSIDE: Scope<'static> =
        Scope { item: Err("there is no element here"), index: 0, acc: Value::Nil };
}

/// How deep values may be nested when they are compared, written or read: recursion over values follows it.
pub(crate) const VALUE_DEPTH_MAX: usize = 200;

/// What compiling a pattern costs when it is known only at run time, in steps.
const COMPILE_STEPS: usize = 5_000;
const COMPILE_STEPS_PER_BYTE: usize = 200;

/// Such a pattern is used once: no automaton is built in advance.
const DYNAMIC_REGEX: RegexLimits = RegexLimits {
    pattern_bytes_max: 64 * 1024,
    program_bytes_max: 256 * 1024,
    dfa_bytes_max: 0,
    cache_bytes_max: 512 * 1024,
    depth_max: 1000,
    operator_depth_max: 250,
};

/// Gives the level back when it goes out of scope.
pub(crate) struct Deeper<'v>(&'v Cell<usize>);

impl Drop for Deeper<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl<'a> Vm<'a> {
    pub(crate) fn new(
        record: &Record<'a>,
        scratch: &'a EvalScratch,
        limits: RunLimits,
        variables: usize,
    ) -> Vm<'a> {
        let bump = &scratch.bump;
        Vm {
            record: *record,
            bump,
            now: scratch.now,
            limits,
            variables: if variables == 0 {
                &[]
            } else {
                bump.alloc_slice_fill_with(variables, |_| Cell::new(Value::Nil))
            },
            steps: &scratch.steps,
            elements: Cell::new(0),
            bytes: Cell::new(0),
            depth: Cell::new(0),
            broken: Cell::new(false),
        }
    }

    /// Counts work before it is done; about one step for each operation or element, for 64 bytes read or 16 written.
    pub(crate) fn step(&self, steps: usize) -> Result<(), Fault> {
        let used = self.steps.get().saturating_add(steps);
        if used > self.limits.steps_max {
            return Err(fault_of(EvalErrorKind::Limit, "the rule takes too many steps"));
        }
        self.steps.set(used);
        Ok(())
    }

    /// Counts elements of new arrays, as the memory budget of the Go library.
    pub(crate) fn grow(&self, elements: usize) -> Result<(), Fault> {
        let used = self.elements.get().saturating_add(elements);
        self.elements.set(used);
        if used >= self.limits.memory_elements_max {
            return Err(fault_of(EvalErrorKind::Limit, "the rule makes too many elements"));
        }
        self.step(elements / 16)
    }

    /// Counts bytes of new values.
    pub(crate) fn take_bytes(&self, bytes: usize) -> Result<(), Fault> {
        let used = self.bytes.get().saturating_add(bytes);
        self.bytes.set(used);
        if used > self.limits.memory_bytes_max {
            return Err(fault_of(EvalErrorKind::Limit, "the rule uses too much memory"));
        }
        self.step(bytes / 16)
    }

    pub(crate) fn deeper(&self) -> Result<Deeper<'_>, Fault> {
        let depth = self.depth.get() + 1;
        if depth > VALUE_DEPTH_MAX {
            return Err(fault_of(EvalErrorKind::Limit, "the value is nested too deeply"));
        }
        self.depth.set(depth);
        Ok(Deeper(&self.depth))
    }

    pub(crate) fn array(&self, slice: Slice, items: Items<'a>) -> Value<'a> {
        Value::Array(self.bump.alloc(Array { slice, nil: false, items }))
    }

    pub(crate) fn nil_array(&self, slice: Slice) -> Value<'a> {
        Value::Array(self.bump.alloc(Array { slice, nil: true, items: Items::Values(&[]) }))
    }

    pub(crate) fn map(&self, ty: MapTy, entries: &'a [(Value<'a>, Value<'a>)]) -> Value<'a> {
        Value::Map(self.bump.alloc(Map { ty, nil: false, entries }))
    }

    pub(crate) fn text(&self, text: &str) -> Result<Value<'a>, Fault> {
        self.take_bytes(text.len())?;
        Ok(Value::Str(self.bump.alloc_str(text).as_bytes()))
    }

    pub(crate) fn bytes_value(&self, bytes: &[u8]) -> Result<Value<'a>, Fault> {
        self.take_bytes(bytes.len())?;
        Ok(Value::Str(self.bump.alloc_slice_copy(bytes)))
    }

    pub(crate) fn concat_bytes(&self, a: &[u8], b: &[u8]) -> Result<&'a [u8], Fault> {
        self.take_bytes(a.len() + b.len())?;
        let joined = self.bump.alloc_slice_fill_copy(a.len() + b.len(), 0);
        joined[..a.len()].copy_from_slice(a);
        joined[a.len()..].copy_from_slice(b);
        Ok(joined)
    }

    pub(crate) fn values(&self, values: &[Value<'a>]) -> Result<&'a [Value<'a>], Fault> {
        self.take_bytes(std::mem::size_of_val(values))?;
        Ok(self.bump.alloc_slice_copy(values))
    }

    /// Evaluates a condition.
    pub(crate) fn test(&self, cond: &'a Cond, scope: &Scope<'a>) -> Result<bool, Fault> {
        match &cond.kind {
            CondKind::Const(value) => Ok(*value),
            CondKind::All(conds) => {
                for cond in conds {
                    if !self.test(cond, scope)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            CondKind::AnyOf(conds) => {
                for cond in conds {
                    if self.test(cond, scope)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            CondKind::Not(cond) => Ok(!self.test(cond, scope)?),
            CondKind::Str(field, test) | CondKind::List(field, _, test) => {
                self.step(1 + test.steps(self.record.text_bytes(field.slot)))?;
                plain::leaf(cond, &self.record)
            }
            CondKind::Bool(_) | CondKind::Int(..) => {
                self.step(1)?;
                plain::leaf(cond, &self.record)
            }
            CondKind::Text(..) | CondKind::Compare(_) | CondKind::Loop(_) | CondKind::Value(_) => {
                self.test_general(cond, scope).map_err(|fault| located(fault, cond.span.range()))
            }
        }
    }

    fn test_general(&self, cond: &'a Cond, scope: &Scope<'a>) -> Result<bool, Fault> {
        self.step(1)?;
        match &cond.kind {
            CondKind::Text(ex, test) => self.test_text(self.eval(ex, scope)?, test),
            CondKind::Compare(compare) => self.compare(compare, scope),
            CondKind::Loop(looped) => self.test_loop(looped, scope),
            CondKind::Value(ex) => self.eval(ex, scope)?.bool(),
            _ => Ok(false),
        }
    }

    fn test_text(&self, value: Value<'a>, test: &StrTest) -> Result<bool, Fault> {
        match (value, test) {
            (Value::Str(text), test) => {
                self.step(test.steps(text.len()))?;
                Ok(test.hits(text))
            }
            (Value::Array(Array { items: Items::Bytes(bytes), .. }), StrTest::Matches(_)) => {
                Ok(test.hits(bytes))
            }
            // Nil stands for the zero key of the set.
            (Value::Nil, StrTest::In(set)) => Ok(set.contains(b"")),
            (value, StrTest::Eq(_) | StrTest::In(_)) => value.str().map(|_| false),
            (value, _) if value.is_nil() => Ok(false),
            (value, _) => value.str().map(|_| false),
        }
    }

    fn compare(&self, compare: &'a Compare, scope: &Scope<'a>) -> Result<bool, Fault> {
        use BinaryOp::*;
        let left = self.eval(&compare.left, scope)?;
        let right = self.eval(&compare.right, scope)?;
        match compare.op {
            Eq | Ne => {
                let equal = match (compare.mode, left, right) {
                    (Equality::Ints, Value::Int(a), Value::Int(b)) => a == b,
                    (Equality::Strs, Value::Str(a), Value::Str(b)) => a == b,
                    (Equality::Ints, a, b) => {
                        let other = if matches!(a, Value::Int(_)) { b } else { a };
                        return Err(fault(format!("wanted an int, found {}", other.type_name())));
                    }
                    (Equality::Strs, a, b) => {
                        a.str()?;
                        b.str()?;
                        false
                    }
                    (Equality::General, a, b) => self.equal(a, b)?,
                };
                Ok(equal == (compare.op == Eq))
            }
            In => self.contains(left, right),
            Matches | Contains | StartsWith | EndsWith => self.dynamic_text(compare.op, left, right),
            op => self.ordered(op, left, right),
        }
    }

    fn dynamic_text(&self, op: BinaryOp, left: Value<'a>, right: Value<'a>) -> Result<bool, Fault> {
        if left.is_nil() || right.is_nil() {
            return Ok(false);
        }
        let right = right.str()?;
        let left = match left {
            Value::Array(Array { items: Items::Bytes(bytes), .. }) if op == BinaryOp::Matches => bytes,
            other => other.str()?,
        };
        self.step((left.len() + right.len()) / 64)?;
        Ok(match op {
            BinaryOp::Contains => memchr::memmem::find(left, right).is_some(),
            BinaryOp::StartsWith => left.starts_with(right),
            BinaryOp::EndsWith => left.ends_with(right),
            _ => {
                if right.len() > self.limits.regex_bytes_max {
                    return Err(fault_of(EvalErrorKind::Limit, "the pattern is too long"));
                }
                // Compiling is dear: the budget pays for it.
                self.step(COMPILE_STEPS + right.len() * COMPILE_STEPS_PER_BYTE)?;
                let regex = GoRegex::with_limits(&String::from_utf8_lossy(right), &DYNAMIC_REGEX);
                let regex = regex.map_err(|error| {
                    fault(format!("bad regular expression: {}: `{}`", error.message, error.fragment))
                })?;
                self.step(regex.steps(left.len()))?;
                regex_hits(&regex, left)
            }
        })
    }

    /// Evaluates an expression.
    pub(crate) fn eval(&self, ex: &'a Ex, scope: &Scope<'a>) -> Evaluated<'a> {
        match &ex.kind {
            ExKind::Nil => Ok(Value::Nil),
            ExKind::Bool(value) => Ok(Value::Bool(*value)),
            ExKind::Int(value) => Ok(Value::Int(*value)),
            ExKind::Float(value) => Ok(Value::Float(*value)),
            ExKind::Str(value) => Ok(Value::Str(value)),
            ExKind::Var(index) => Ok(self.variables.get(*index).map_or(Value::Nil, Cell::get)),
            ExKind::Item => scope.item.map_err(fault),
            ExKind::Index => Ok(Value::Int(scope.index as i64)),
            ExKind::Acc => Ok(scope.acc),
            ExKind::Cond(cond) => self.test(cond, scope).map(Value::Bool),
            _ => self.eval_inner(ex, scope).map_err(|fault| located(fault, ex.span.range())),
        }
    }

    fn eval_inner(&self, ex: &'a Ex, scope: &Scope<'a>) -> Evaluated<'a> {
        self.step(1)?;
        match &ex.kind {
            ExKind::Field(slot, ty) => self.read_slot(*slot, ty),
            ExKind::Bytes(value) => Ok(self.array(Slice::Bytes, Items::Bytes(value))),
            ExKind::Constants(values) => self.constants(values),
            ExKind::Env(env) => self.environment(env),
            ExKind::Constant(env, index) => self.constant_of(env, *index),
            ExKind::Logic(op, conds, last) => {
                for cond in conds {
                    if self.test(cond, scope)? == (*op == LogicOp::Or) {
                        return Ok(Value::Bool(*op == LogicOp::Or));
                    }
                }
                self.eval(last, scope)
            }
            ExKind::Sign(UnaryOp::Minus, ex) => self.negate(self.eval(ex, scope)?),
            ExKind::Sign(_, ex) => self.eval(ex, scope),
            ExKind::Binary(op, pair) => self.binary(*op, pair, scope),
            ExKind::Coalesce(pair) => {
                let left = self.eval(&pair[0], scope)?;
                if left.is_nil() { self.eval(&pair[1], scope) } else { Ok(left) }
            }
            ExKind::InInts(ex, ints) => match self.eval(ex, scope)? {
                Value::Int(value) => Ok(Value::Bool(ints.contains(&value))),
                Value::Nil => Ok(Value::Bool(ints.contains(&0))),
                other => Err(fault(format!("wanted an int, found {}", other.type_name()))),
            },
            ExKind::InLiterals(ex, values) => self.in_literals(self.eval(ex, scope)?, values),
            ExKind::Chain(inner) => {
                let before = self.broken.replace(false);
                let value = self.eval(inner, scope);
                self.broken.set(before);
                let value = value?;
                Ok(if value.is_nil() { Value::Nil } else { value })
            }
            ExKind::Member(member) => self.member(member, scope),
            ExKind::Slice(parts) => self.slice(parts, scope),
            ExKind::CallMethod(base, method, args) => {
                let args = self.eval_all(args, scope)?;
                let base = self.eval(base, scope)?;
                if self.broken.get() {
                    return Ok(Value::Nil);
                }
                self.call_method(base, *method, args)
            }
            ExKind::CallValue(callee, args) => {
                let args = self.eval_all(args, scope)?;
                match self.eval(callee, scope)? {
                    _ if self.broken.get() => Ok(Value::Nil),
                    Value::Method((base, method)) => self.call_method(*base, *method, args),
                    other => Err(fault(format!("{} is not a function", other.type_name()))),
                }
            }
            ExKind::Builtin(name, args) => self.builtin(name, args, scope),
            ExKind::Loop(looped) => self.eval_loop(looped, scope),
            ExKind::Let(index, pair) => {
                let value = self.eval(&pair[0], scope)?;
                if let Some(variable) = self.variables.get(*index) {
                    variable.set(value);
                }
                self.eval(&pair[1], scope)
            }
            ExKind::Sequence(items) => {
                let mut last = Value::Nil;
                for item in items {
                    last = self.eval(item, scope)?;
                }
                Ok(last)
            }
            ExKind::If(cond, pair) => {
                let branch = if self.test(cond, scope)? { &pair[0] } else { &pair[1] };
                self.eval(branch, scope)
            }
            ExKind::Array(items) => {
                let values = self.eval_all(items, scope)?;
                self.grow(values.len())?;
                Ok(self.array(Slice::Any, Items::Values(values)))
            }
            ExKind::Map(pairs) => self.eval_map(pairs, scope),
            ExKind::Fail(message) => Err(fault(message.to_string())),
            _ => Ok(Value::Nil),
        }
    }

    pub(crate) fn eval_all(&self, items: &'a [Ex], scope: &Scope<'a>) -> Result<&'a [Value<'a>], Fault> {
        self.take_bytes(std::mem::size_of::<Value<'_>>() * items.len())?;
        let values = self.bump.alloc_slice_fill_copy(items.len(), Value::Nil);
        for (value, item) in values.iter_mut().zip(items) {
            *value = self.eval(item, scope)?;
        }
        Ok(values)
    }

    fn eval_map(&self, pairs: &'a [(Ex, Ex)], scope: &Scope<'a>) -> Evaluated<'a> {
        let mut entries = bumpalo::collections::Vec::with_capacity_in(pairs.len(), self.bump);
        for (key, value) in pairs {
            entries.push((self.eval(key, scope)?, self.eval(value, scope)?));
        }
        self.grow(pairs.len())?;
        let mut kept = bumpalo::collections::Vec::with_capacity_in(pairs.len(), self.bump);
        for (key, value) in entries {
            let text = key.str()?;
            self.step(kept.len())?;
            // As Go fills the map from the last pair to the first: of equal keys the first one stays.
            if !kept.iter().any(|(known, _)| matches!(known, Value::Str(known) if *known == text)) {
                kept.push((key, value));
            }
        }
        Ok(self.map(MapTy::StrAny { json: false }, kept.into_bump_slice()))
    }

    fn binary(&self, op: BinaryOp, pair: &'a [Ex; 2], scope: &Scope<'a>) -> Evaluated<'a> {
        let left = self.eval(&pair[0], scope)?;
        let right = self.eval(&pair[1], scope)?;
        match op {
            BinaryOp::Range => self.range(left, right),
            op => self.arithmetic(op, left, right),
        }
    }
}

pub(crate) fn literal(value: &Literal) -> Value<'_> {
    match value {
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Float(value) => Value::Float(*value),
        Literal::Str(value) => Value::Str(value),
    }
}

/// Gives a failure its place, unless something deeper has.
pub(crate) fn located(mut fault: Fault, span: std::ops::Range<usize>) -> Fault {
    if fault.span.is_empty() {
        fault.span = span;
    }
    fault
}

impl StrTest {
    pub(crate) fn hits(&self, text: &[u8]) -> bool {
        match self {
            StrTest::Eq(value) => **value == *text,
            StrTest::In(set) => set.contains(text),
            StrTest::Prefix(value) => text.starts_with(value),
            StrTest::Suffix(value) => text.ends_with(value),
            StrTest::Contains(finder) => finder.find(text).is_some(),
            StrTest::Matches(regex) => regex_hits(regex, text),
        }
    }
}

fn regex_hits(regex: &GoRegex, text: &[u8]) -> bool {
    match std::str::from_utf8(text) {
        Ok(text) => regex.is_match(text),
        Err(_) => regex.is_match(&super::builtins::strings::replaced(text)),
    }
}
