//! The rule language: expr (expr-lang, semantics of 1.17) over audit records, with Go-RE2 regular expressions.
//!
//! ```text
//! source ─ lexer ─▶ tokens ─ parser ─▶ ast ─ check ─▶ typed ast ─ fold, rewrite ─▶ ─ compile ─▶ code ─ eval ─▶ value
//! ```
//!
//! Pure: no I/O, no clock, no threads. A rule compiles once; evaluating it on a record costs no allocation once the
//! scratch is warm, and is bounded in steps, elements and bytes by [`Limits`]. Of many rules a [`RuleIndex`] finds those that
//! can be true of a record.
//!
//! Where this differs from the Go library on purpose:
//!
//! - `record` is the whole entry, untyped. A missing key is nil, and a member of nil, or of a value without members,
//!   is nil too as long as it came from `record` (`record.request.data.options.cas` needs no `?.`). In every other
//!   place a member of nil fails, as in Go.
//! - The environment has more fields than the predecessor's, so `"Namespace" in Request` is true. `string(Auth)` and
//!   `toJSON(Request)` show the predecessor's fields only, so that rules that compare such text keep their meaning.
//! - A mistyped field fails the rules that read it, not the record; keys match exactly; the last duplicate wins.
//! - `keys`, `values` and `toPairs` give the entries of string-keyed maps in the order of their keys; Go has no order.
//! - Sorting keeps the order of equal elements; Go does so up to twelve elements.
//! - `findLast` and `findLastIndex` leave the operand before them alone; in Go it is lost (`1 + findLastIndex(..)` fails).
//! - A power with a fraction (`2 ** 0.3`) may differ in its last bit; Go has its own `exp` in assembler.
//! - Values nested deeper than 200 levels cannot be compared or written.
//! - The local zone is UTC, and the time zone database is the program's own.

mod ast;
mod builtins;
mod check;
mod check_builtins;
mod check_messages;
mod check_operators;
mod code;
mod compile;
mod env;
mod error;
mod eval;
mod explain;
mod fold;
mod go_layout;
pub mod go_regex;
mod go_time;
mod index;
mod lexer;
mod loops;
mod members;
mod methods;
mod numbers;
mod ops;
mod parser;
mod parser_values;
mod plain;
mod program;
mod read;
mod rewrite;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::cell::Cell;

use bumpalo::Bump;

use crate::record::{FieldPlan, Record};
use code::{Ex, ExKind};
pub use env::{Constant, Environment};
pub use error::{EvalError, EvalErrorKind, RuleError};
use eval::{Scope, Vm};
pub use explain::{Explanation, Outcome};
pub use index::{Candidates, IndexScratch, RULES_MIN, RuleIndex};
use program::Program;
pub use types::StructDef;
use value::{Fault, Value};

/// What a rule may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the source.
    pub source_bytes_max: usize,
    /// Parts of the syntax tree, as the Go library counts them.
    pub nodes_max: usize,
    /// Levels of nesting of the syntax tree. Chains of `&&` and `||` are one level.
    pub depth_max: usize,
    /// Bytes of a regular expression.
    pub regex_bytes_max: usize,
    /// Bytes of the programs of all regular expressions of a rule, as [`go_regex::GoRegex::check`] reckons them.
    pub regex_programs_bytes_max: usize,
    /// Steps of one evaluation: about one for each operation or element, for 64 bytes of text read, or 16 written.
    pub steps_max: usize,
    /// Elements of arrays that one evaluation makes, as the Go library's memory budget counts them.
    pub memory_elements_max: usize,
    /// Bytes of values that one evaluation makes.
    pub memory_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            source_bytes_max: 64 * 1024,
            nodes_max: 10_000,
            depth_max: 100,
            regex_bytes_max: 10_000,
            regex_programs_bytes_max: 4 * 1024 * 1024,
            steps_max: 100_000,
            memory_elements_max: 1_000_000,
            memory_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// The part of [`Limits`] that holds when a rule runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunLimits {
    pub(crate) regex_bytes_max: usize,
    pub(crate) steps_max: usize,
    pub(crate) memory_elements_max: usize,
    pub(crate) memory_bytes_max: usize,
}

impl From<&Limits> for RunLimits {
    fn from(limits: &Limits) -> RunLimits {
        RunLimits {
            regex_bytes_max: limits.regex_bytes_max,
            steps_max: limits.steps_max,
            memory_elements_max: limits.memory_elements_max,
            memory_bytes_max: limits.memory_bytes_max,
        }
    }
}

/// Memory that evaluations reuse, and the time that `now()` tells. One for each thread.
#[derive(Debug, Default)]
pub struct EvalScratch {
    bump: Bump,
    /// Steps of the last evaluation.
    steps: Cell<usize>,
    now: Option<jiff::Timestamp>,
}

/// An arena larger than this is given back after the evaluation that needed it.
const ARENA_BYTES_KEPT: usize = 1024 * 1024;

impl EvalScratch {
    /// Sets the time that `now()` tells until the next call. Without it `now()` fails.
    pub fn set_now(&mut self, now: jiff::Timestamp) {
        self.now = Some(now);
    }

    /// Steps that the last evaluation took, as [`Limits::steps_max`] counts them. Where fields and constants decide, each looked at
    /// once, nothing is counted, and this is the figure of the evaluation before.
    pub fn steps_used(&self) -> usize {
        self.steps.get()
    }

    /// Bytes of memory held for values: after an evaluation, all that it used.
    pub fn bytes_held(&self) -> usize {
        self.bump.allocated_bytes()
    }

    fn reset(&mut self) {
        self.steps.set(0);
        if self.bump.allocated_bytes() > ARENA_BYTES_KEPT {
            self.bump = Bump::new();
        } else {
            self.bump.reset();
        }
    }
}

/// An expression of the language, compiled: for templates.
#[derive(Debug)]
pub struct Expr {
    source: Box<str>,
    code: Ex,
    variables: usize,
    limits: RunLimits,
}

impl Expr {
    /// Compiles an expression over the audit environment. The fields that it reads are asked for in `plan`; records must be
    /// decoded with a decoder built from it later on.
    ///
    /// # Errors
    /// The first thing that the language refuses, with its place; `plan` may then hold fields that nothing reads.
    pub fn compile(source: &str, plan: &mut FieldPlan, limits: &Limits) -> Result<Expr, RuleError> {
        Expr::compile_in(source, &Environment::audit(), plan, limits)
    }

    /// As [`Expr::compile`], over another environment.
    ///
    /// # Errors
    /// As [`Expr::compile`].
    pub fn compile_in(
        source: &str,
        env: &Environment,
        plan: &mut FieldPlan,
        limits: &Limits,
    ) -> Result<Expr, RuleError> {
        let mut node = parser::parse(source, limits)?;
        check::check(&mut node, env, limits)?;
        rewrite::sets(&mut node);
        fold::fold(&mut node)?;
        rewrite::loops(&mut node);
        let (code, variables) = compile::lower(&node, env, plan, limits)?;
        Ok(Expr { source: source.into(), code, variables, limits: RunLimits::from(limits) })
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Appends the value as text: strings as they are, nil and an absent field as nothing, everything else as the
    /// language's `string()` shows it. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// A failure at run time; `out` is then unchanged.
    pub fn render(
        &self,
        record: &Record<'_>,
        scratch: &mut EvalScratch,
        out: &mut String,
    ) -> Result<(), EvalError> {
        self.run(record, scratch, |vm, value| {
            match value {
                Value::Nil => {}
                Value::Str(text) => out.push_str(&builtins::strings::replaced(text)),
                other => {
                    let mut text = Vec::new();
                    vm.show(other, &mut text)?;
                    out.push_str(&String::from_utf8_lossy(&text));
                }
            }
            Ok(())
        })
    }

    /// The value with its types, as JSON: `{"int": "1"}`, `{"str": ".."}`, `{"arr": [..]}`, `{"map": [[key, value]]}`,
    /// `{"struct": {..}}`, `{"time": ".."}`, `{"dur": nanoseconds}`, `{"bytes": hex}`, `{"nil": true}`. Arrays are cut after
    /// 200 elements.
    ///
    /// # Errors
    /// A failure at run time.
    pub fn evaluate(
        &self,
        record: &Record<'_>,
        scratch: &mut EvalScratch,
    ) -> Result<serde_json::Value, EvalError> {
        self.run(record, scratch, |vm, value| vm.dump(value))
    }

    fn run<T>(
        &self,
        record: &Record<'_>,
        scratch: &mut EvalScratch,
        finish: impl for<'a> FnOnce(&Vm<'a>, Value<'a>) -> Result<T, Fault>,
    ) -> Result<T, EvalError> {
        scratch.reset();
        let vm = Vm::new(record, scratch, self.limits, self.variables);
        let value = vm.eval(&self.code, &Scope::OUTSIDE).and_then(|value| finish(&vm, value));
        value.map_err(|fault| *fault)
    }
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    expr: Expr,
    /// Decides most records; `None` for a rule that it could decide on none.
    program: Option<Program>,
}

impl Rule {
    /// Compiles a rule over the audit environment; see [`Expr::compile`]. As in the Go library any type is accepted: a rule
    /// whose value is no bool never matches.
    ///
    /// # Errors
    /// The first thing that the language refuses, with its place.
    pub fn compile(source: &str, plan: &mut FieldPlan, limits: &Limits) -> Result<Rule, RuleError> {
        Rule::compile_in(source, &Environment::audit(), plan, limits)
    }

    /// As [`Rule::compile`], over another environment.
    ///
    /// # Errors
    /// As [`Rule::compile`].
    pub fn compile_in(
        source: &str,
        env: &Environment,
        plan: &mut FieldPlan,
        limits: &Limits,
    ) -> Result<Rule, RuleError> {
        let expr = Expr::compile_in(source, env, plan, limits)?;
        let program = match &expr.code.kind {
            ExKind::Cond(cond) => Program::new(cond),
            _ => None,
        };
        Ok(Rule { expr, program })
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.expr.source
    }

    /// True when the value is the bool true. Does not block; bounded by the limits that the rule was compiled with.
    ///
    /// # Errors
    /// A failure at run time: no match.
    #[inline]
    pub fn matches(&self, record: &Record<'_>, scratch: &mut EvalScratch) -> Result<bool, EvalError> {
        match self.program.as_ref().and_then(|program| program.run(record)) {
            Some(matched) => Ok(matched),
            None => self.matches_as_written(record, scratch),
        }
    }

    /// [`Rule::matches`] part by part in the order in which the rule was written.
    fn matches_as_written(&self, record: &Record<'_>, scratch: &mut EvalScratch) -> Result<bool, EvalError> {
        scratch.reset();
        let vm = Vm::new(record, scratch, self.expr.limits, self.expr.variables);
        let result = match &self.expr.code.kind {
            ExKind::Cond(cond) => vm.test(cond, &Scope::OUTSIDE),
            ExKind::Bool(value) => Ok(*value),
            _ => vm.eval(&self.expr.code, &Scope::OUTSIDE).map(|value| matches!(value, Value::Bool(true))),
        };
        result.map_err(|fault| *fault)
    }

    /// The value with its types; see [`Expr::evaluate`].
    ///
    /// # Errors
    /// A failure at run time.
    pub fn evaluate(
        &self,
        record: &Record<'_>,
        scratch: &mut EvalScratch,
    ) -> Result<serde_json::Value, EvalError> {
        self.expr.evaluate(record, scratch)
    }

    /// Evaluates the rule part by part and tells which part decided. Slower than [`Rule::matches`]; for people.
    pub fn explain(&self, record: &Record<'_>, scratch: &mut EvalScratch) -> Explanation {
        scratch.reset();
        let vm = Vm::new(record, scratch, self.expr.limits, self.expr.variables);
        explain::Explainer { source: &self.expr.source, vm: &vm }.rule(&self.expr.code)
    }
}
