//! The quick form of a rule says what the rule says that is evaluated as it stands, failures included.

use proptest::prelude::*;

use super::super::{EvalScratch, Limits, Rule};
use crate::record::{DecodeScratch, FieldPlan};

/// Fields, each with tests of its type.
fn test() -> impl Strategy<Value = String> {
    let field =
        prop::sample::select(vec!["Type", "Error", "Request.Path", "Request.Operation", "Auth.TokenType"]);
    let text = || prop::sample::select(vec!["", "a", "ab", "abc", "read", "sys/a", "secret/data/abc", "é"]);
    let operator =
        prop::sample::select(vec!["==", "!=", "startsWith", "endsWith", "contains", "in", "matches"]);
    let on_text = (field, operator, text(), text()).prop_map(|(field, operator, a, b)| match operator {
        "in" => format!("{field} in [{a:?}, {b:?}]"),
        "matches" => format!("{field} matches {:?}", format!("^{a}.*{b}")),
        _ => format!("{field} {operator} {a:?}"),
    });
    let number = (prop::sample::select(vec!["==", "<", ">=", "!="]), 0..3)
        .prop_map(|(operator, value)| format!("Request.RemotePort {operator} {value}"));
    prop_oneof![
        6 => on_text,
        1 => number,
        1 => Just("Auth.PolicyResults.Allowed".to_owned()),
        1 => text().prop_map(|text| format!("{text:?} in Auth.Policies")),
        1 => Just("true".to_owned()),
        // What no quick form has.
        1 => Just("int(Request.Path) > 0".to_owned()),
        1 => Just("len(Type) > 3".to_owned()),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    test().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..5).prop_map(|parts| format!("({})", parts.join(" && "))),
            prop::collection::vec(inner.clone(), 2..5).prop_map(|parts| format!("({})", parts.join(" || "))),
            inner.prop_map(|part| format!("!({part})")),
        ]
    })
}

/// Texts, nothing, and now and then something that is mistyped.
fn value() -> impl Strategy<Value = String> {
    let text =
        prop::sample::select(vec!["", "a", "abc", "ab\\u0063", "read", "sys/abc", "secret/data/abc", "é"]);
    prop_oneof![
        8 => text.prop_map(|text| format!("\"{text}\"")),
        1 => Just("null".to_owned()),
        1 => prop::sample::select(vec!["1", "0", "true", "false", "1.5", "{}", "[]", "[\"a\", null]", "[1]"])
            .prop_map(str::to_owned),
    ]
}

fn record() -> impl Strategy<Value = String> {
    (prop::collection::vec(value(), 8), 0..256u32).prop_map(|(values, present)| {
        let keys = ["type", "error", "path", "operation", "remote_port", "token_type", "policies", "allowed"];
        let member = |at: usize| (present >> at & 1 == 1).then(|| format!("\"{}\":{}", keys[at], values[at]));
        let members = |from: usize, to: usize| (from..to).filter_map(member).collect::<Vec<_>>().join(",");
        let results = if present & 0x90 == 0x90 { "7".to_owned() } else { format!("{{{}}}", members(7, 8)) };
        let auth: Vec<String> = [members(5, 7), format!("\"policy_results\":{results}")]
            .into_iter()
            .filter(|m| !m.is_empty())
            .collect();
        let top: Vec<String> = [
            members(0, 2),
            format!("\"request\":{{{}}}", members(2, 5)),
            format!("\"auth\":{{{}}}", auth.join(",")),
        ]
        .into_iter()
        .filter(|m| !m.is_empty())
        .collect();
        format!("{{{}}}", top.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_forms_agree(source in rule(), frame in record()) {
        let mut plan = FieldPlan::new();
        let rule = Rule::compile(&source, &mut plan, &Limits::default()).expect("compiles");
        let decoder = plan.build();
        let mut decode = DecodeScratch::default();
        let record = decoder.decode(frame.as_bytes(), &mut decode).expect("valid");
        let mut scratch = EvalScratch::default();
        let as_written = rule.matches_as_written(&record, &mut scratch);
        prop_assert_eq!(rule.matches(&record, &mut scratch), as_written, "{}", source);
    }
}

#[test]
fn dear_tests_change_places_only_where_no_failure_is_lost() {
    let source = r#"Request.Path matches "^a.*b" && Request.Operation == "read""#;
    let mut plan = FieldPlan::new();
    let rule = Rule::compile(source, &mut plan, &Limits::default()).expect("compiles");
    let decoder = plan.build();
    for (frame, quick) in [
        (r#"{"request":{"path":"a","operation":"list"}}"#, Some(false)),
        (r#"{"request":{"path":"ab","operation":"read"}}"#, Some(true)),
        (r#"{"request":{"path":1,"operation":"list"}}"#, None),
        (r#"{"request":{"path":"x","operation":1}}"#, None),
    ] {
        let mut decode = DecodeScratch::default();
        let record = decoder.decode(frame.as_bytes(), &mut decode).expect("valid");
        assert_eq!(rule.program.as_ref().expect("a program").run(&record), quick, "{frame}");
        let matched = rule.matches(&record, &mut EvalScratch::default());
        assert_eq!(matched.is_err(), frame.contains("\"path\":1"), "{frame}: {matched:?}");
    }
}
