//! Tests of the rule language. What the Go library answers is in `tests/conformance.rs`.

mod explain;
mod fields;
mod language;
mod messages;
mod nasty;
mod program;
mod random;
mod safety;
mod times;

use super::{EvalError, EvalScratch, Limits, Rule, RuleError};
use crate::record::{DecodeScratch, FieldPlan};

/// A record with a bit of everything.
pub(super) const RECORD: &str = r#"{
    "type": "request", "time": "2026-01-01T00:00:00Z",
    "auth": {"display_name": "root", "policies": ["root", "default"], "metadata": {"role": "ci", "team": "a\"b"},
        "policy_results": {"allowed": true, "granting_policies": [{"name": "root", "type": "acl"}, {"name": "p2"}]},
        "token_issue_time": "2025-12-31T23:59:59+02:00"},
    "request": {"operation": "update", "path": "secret/data/foo", "remote_port": 54321,
        "headers": {"x-a": ["1", "2"]}, "data": {"options": {"cas": 3, "list": [1, "b", null]}, "k": "v"}},
    "response": {"data": {"current_version": 3}},
    "extra": {"deep": {"er": true}}
}"#;

/// The typed value of an expression over a record, or the error of its evaluation.
pub(super) fn value_over(record: &str, source: &str) -> Result<serde_json::Value, EvalError> {
    let mut plan = FieldPlan::new();
    let rule = compiled(source, &mut plan);
    let decoder = plan.build();
    let mut decode = DecodeScratch::default();
    let record = decoder.decode(record.as_bytes(), &mut decode).expect("the record is valid");
    let mut scratch = EvalScratch::default();
    scratch.set_now("2026-02-03T04:05:06.5Z".parse().expect("a time"));
    rule.evaluate(&record, &mut scratch)
}

/// The same over [`RECORD`], as JSON text.
pub(super) fn value(source: &str) -> String {
    match value_over(RECORD, source) {
        Ok(value) => value.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

pub(super) fn matches(record: &str, source: &str) -> Result<bool, EvalError> {
    let mut plan = FieldPlan::new();
    let rule = compiled(source, &mut plan);
    let decoder = plan.build();
    let mut decode = DecodeScratch::default();
    let record = decoder.decode(record.as_bytes(), &mut decode).expect("the record is valid");
    rule.matches(&record, &mut EvalScratch::default())
}

fn compiled(source: &str, plan: &mut FieldPlan) -> Rule {
    match Rule::compile(source, plan, &Limits::default()) {
        Ok(rule) => rule,
        Err(error) => panic!("{}", error.render(source)),
    }
}

pub(super) fn refused(source: &str) -> RuleError {
    match Rule::compile(source, &mut FieldPlan::new(), &Limits::default()) {
        Ok(_) => panic!("{source:?} compiles"),
        Err(error) => error,
    }
}

/// Evaluates expressions and compares their typed values.
pub(super) fn check(cases: &[(&str, &str)]) {
    for (source, want) in cases {
        assert_eq!(value(source), *want, "{source}");
    }
}
