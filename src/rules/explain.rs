//! Why a rule matched or did not: its parts with the values that they saw.

use std::fmt::{self, Write as _};
use std::ops::Range;

use super::code::{Cond, CondKind, Ex, ExKind};
use super::eval::{Scope, Vm};
use super::value::{Fault, Value};
use crate::record::{Slot, SlotId};

/// One part of a rule with what it came to. The root is the whole rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The part's place in the source, in bytes.
    pub span: Range<usize>,
    /// The part's text.
    pub text: String,
    /// What it came to.
    pub outcome: Outcome,
    /// It decided what its parent came to: the rest was not evaluated, or did not matter.
    pub decided: bool,
    /// The fields that it read and their values, as text.
    pub reads: Vec<(String, String)>,
    /// The operands of a logical operator.
    pub parts: Vec<Explanation>,
}

/// What a part of a rule came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// true or false.
    Bool(bool),
    /// Another value, as text.
    Value(String),
    /// A failure.
    Failed(String),
    /// Not evaluated, because a part before it decided.
    Skipped,
}

/// Characters of a value that are shown.
const VALUE_MAX: usize = 200;

impl Explanation {
    /// As JSON: `{"text", "start", "end", "outcome", "decided", "reads", "parts"}`.
    pub fn to_json(&self) -> serde_json::Value {
        let outcome = match &self.outcome {
            Outcome::Bool(value) => serde_json::json!({"bool": value}),
            Outcome::Value(text) => serde_json::json!({"value": text}),
            Outcome::Failed(message) => serde_json::json!({"error": message}),
            Outcome::Skipped => serde_json::json!({"skipped": true}),
        };
        let reads: Vec<_> = self
            .reads
            .iter()
            .map(|(name, value)| serde_json::json!({"field": name, "value": value}))
            .collect();
        let parts: Vec<_> = self.parts.iter().map(Explanation::to_json).collect();
        serde_json::json!({
            "text": self.text, "start": self.span.start, "end": self.span.end, "outcome": outcome,
            "decided": self.decided, "reads": reads, "parts": parts,
        })
    }

    fn write(&self, indent: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.decided { "*" } else { " " };
        let outcome = match &self.outcome {
            Outcome::Bool(value) => value.to_string(),
            Outcome::Value(text) => format!("value {text}"),
            Outcome::Failed(message) => format!("error: {}", message.escape_debug()),
            Outcome::Skipped => "not evaluated".into(),
        };
        write!(f, "{}{mark} {outcome:<5}  {}", "  ".repeat(indent), one_line(&self.text))?;
        if !self.reads.is_empty() {
            f.write_str("    [")?;
            for (index, (name, value)) in self.reads.iter().enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                write!(f, "{comma}{} = {value}", one_line(name))?;
            }
            f.write_char(']')?;
        }
        for part in &self.parts {
            f.write_char('\n')?;
            part.write(indent + 1, f)?;
        }
        Ok(())
    }
}

/// Indented, one part a line; `*` marks the part that decided. Control characters are escaped.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(0, f)
    }
}

fn one_line(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    joined
        .chars()
        .flat_map(|c| {
            if c.is_control() { c.escape_default().collect::<String>() } else { c.to_string() }
                .chars()
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A value as it stands in an explanation: JSON-like, cut, control characters escaped.
fn shown<'a>(vm: &Vm<'a>, value: Value<'a>) -> String {
    let text = match value {
        Value::Str(text) => format!("{:?}", String::from_utf8_lossy(text)),
        other => {
            let mut out = Vec::new();
            match vm.show(other, &mut out) {
                Ok(()) => String::from_utf8_lossy(&out).escape_debug().to_string(),
                Err(fault) => format!("error: {}", fault.message),
            }
        }
    };
    if text.chars().count() > VALUE_MAX {
        let cut: String = text.chars().take(VALUE_MAX).collect();
        return format!("{cut}...");
    }
    text
}

/// Walks over the compiled form and asks each part.
pub(crate) struct Explainer<'r, 'a> {
    pub(crate) source: &'r str,
    pub(crate) vm: &'r Vm<'a>,
}

impl<'a> Explainer<'_, 'a> {
    pub(crate) fn rule(&self, code: &'a Ex) -> Explanation {
        match &code.kind {
            ExKind::Cond(cond) => self.cond(cond),
            _ => {
                let value = self.vm.eval(code, &Scope::OUTSIDE);
                let mut reads = Vec::new();
                code.reads(&mut |ex| self.read(ex, &mut reads));
                let outcome = match value {
                    Ok(Value::Bool(value)) => Outcome::Bool(value),
                    Ok(value) => Outcome::Value(shown(self.vm, value)),
                    Err(fault) => Outcome::Failed(fault.message.to_string()),
                };
                self.part(code.span.range(), outcome, reads, Vec::new())
            }
        }
    }

    fn part(
        &self,
        span: Range<usize>,
        outcome: Outcome,
        reads: Vec<(String, String)>,
        parts: Vec<Explanation>,
    ) -> Explanation {
        let text = self.source.get(span.clone()).unwrap_or("").to_owned();
        Explanation { span, text, outcome, decided: false, reads, parts }
    }

    fn cond(&self, cond: &'a Cond) -> Explanation {
        match &cond.kind {
            CondKind::All(conds) => self.chain(cond, conds, false),
            CondKind::AnyOf(conds) => self.chain(cond, conds, true),
            CondKind::Not(inner) => {
                let mut part = self.cond(inner);
                part.decided = true;
                let outcome = match &part.outcome {
                    Outcome::Bool(value) => Outcome::Bool(!value),
                    other => other.clone(),
                };
                self.part(cond.span.range(), outcome, Vec::new(), vec![part])
            }
            _ => self.leaf(cond),
        }
    }

    /// `decides` is the value that ends the chain.
    fn chain(&self, cond: &Cond, conds: &'a [Cond], decides: bool) -> Explanation {
        let mut parts: Vec<Explanation> = Vec::with_capacity(conds.len());
        let mut outcome = None;
        for operand in conds {
            if outcome.is_some() {
                parts.push(self.part(operand.span.range(), Outcome::Skipped, Vec::new(), Vec::new()));
                continue;
            }
            let mut part = self.cond(operand);
            match &part.outcome {
                Outcome::Bool(value) if *value != decides => {}
                decided => {
                    outcome = Some(decided.clone());
                    part.decided = true;
                }
            }
            parts.push(part);
        }
        self.part(cond.span.range(), outcome.unwrap_or(Outcome::Bool(!decides)), Vec::new(), parts)
    }

    fn leaf(&self, cond: &'a Cond) -> Explanation {
        let outcome = match self.vm.test(cond, &Scope::OUTSIDE) {
            Ok(value) => Outcome::Bool(value),
            Err(fault) => Outcome::Failed(fault.message.to_string()),
        };
        let mut reads = Vec::new();
        match &cond.kind {
            CondKind::Str(field, _)
            | CondKind::Bool(field)
            | CondKind::Int(field, ..)
            | CondKind::List(field, ..) => {
                let name = self.source.get(field.span.range()).unwrap_or("").to_owned();
                reads.push((name, self.slot(field.slot)));
            }
            _ => cond.reads(&mut |ex| self.read(ex, &mut reads)),
        }
        self.part(cond.span.range(), outcome, reads, Vec::new())
    }

    fn slot(&self, slot: SlotId) -> String {
        let text = match self.vm.record.slot(slot) {
            Slot::Unreached | Slot::Absent => return "absent".into(),
            Slot::Misplaced => return "not there: its parent is no object".into(),
            Slot::Null => return "null".into(),
            Slot::Bool(value) => value.to_string(),
            Slot::Number(text) => text.to_owned(),
            Slot::Str(text) => format!("{text:?}"),
            Slot::Json(text) => String::from_utf8_lossy(text).escape_debug().to_string(),
        };
        match text.char_indices().nth(VALUE_MAX) {
            Some((end, _)) => format!("{}...", text.get(..end).unwrap_or("")),
            None => text,
        }
    }

    fn read(&self, ex: &'a Ex, reads: &mut Vec<(String, String)>) {
        let ExKind::Field(..) = &ex.kind else { return };
        let name = self.source.get(ex.span.range()).unwrap_or("").to_owned();
        if reads.iter().any(|(known, _)| *known == name) {
            return;
        }
        let value: Result<Value<'a>, Fault> = self.vm.eval(ex, &Scope::OUTSIDE);
        let text = match value {
            Ok(value) => shown(self.vm, value),
            Err(fault) => format!("error: {}", fault.message),
        };
        reads.push((name, text));
    }
}
