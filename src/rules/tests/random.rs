//! Random text never panics, random rules end.

use proptest::prelude::*;

use super::super::{EvalScratch, Limits, Rule};
use super::RECORD;
use crate::record::{DecodeScratch, FieldPlan};

/// Compiles and, where that works, evaluates; both must end without panic, and agree.
fn survive(source: &str) {
    let limits = Limits {
        steps_max: 100_000,
        memory_elements_max: 50_000,
        memory_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let mut plan = FieldPlan::new();
    match Rule::compile(source, &mut plan, &limits) {
        Err(error) => {
            assert!(error.span.end <= source.len());
            assert!(error.render(source).contains('^'));
        }
        Ok(rule) => {
            let decoder = plan.build();
            for record in
                [RECORD, "{}", r#"{"type":5,"auth":{"policies":"x"},"request":{"remote_port":"1"}}"#]
            {
                let mut decode = DecodeScratch::default();
                let record = decoder.decode(record.as_bytes(), &mut decode).expect("valid");
                let mut scratch = EvalScratch::default();
                let matched = rule.matches(&record, &mut scratch);
                let value = rule.evaluate(&record, &mut scratch);
                if let (Ok(matched), Ok(value)) = (&matched, &value) {
                    assert_eq!(*matched, *value == serde_json::json!({"bool": true}), "{source}");
                }
                let explanation = rule.explain(&record, &mut scratch);
                assert!(!explanation.to_string().is_empty());
            }
        }
    }
}

const WORDS: &[&str] = &[
    "Type",
    "Request",
    ".Path",
    ".RemotePort",
    "Auth",
    ".Policies",
    ".TokenIssueTime",
    "record",
    ".request",
    "?.",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "==",
    "!=",
    "<",
    ">=",
    "in",
    "not",
    "and",
    "||",
    "&&",
    "??",
    "?",
    ":",
    "..",
    "+",
    "-",
    "*",
    "/",
    "%",
    "**",
    "|",
    ",",
    ";",
    "#",
    "#index",
    "#acc",
    ".Name",
    "let",
    "x",
    "=",
    "if",
    "else",
    "true",
    "false",
    "nil",
    "1",
    "0",
    "2.5",
    "\"a\"",
    "'secret/'",
    "`x`",
    "b\"z\"",
    "matches",
    "contains",
    "startsWith",
    "any(",
    "all(",
    "map(",
    "filter(",
    "count(",
    "reduce(",
    "sortBy(",
    "groupBy(",
    "len(",
    "split(",
    "string(",
    "toJSON(",
    "fromJSON(",
    "date(",
    "duration(",
    "first(",
    "$env",
    "//",
    "/*",
    "*/",
    "\n",
    "é",
    "::",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(source in "\\PC{0,60}") {
        survive(&source);
    }

    #[test]
    fn any_words_are_answered(words in prop::collection::vec(prop::sample::select(WORDS), 0..25)) {
        survive(&words.join(" "));
        survive(&words.concat());
    }

    #[test]
    fn any_expression_is_answered(source in expression()) {
        survive(&source);
    }

    #[test]
    fn any_cut_of_a_rule_is_answered(at in 0usize..120) {
        let rule = "any(Auth.Policies, # startsWith \"r\\u{6f}\") && Request.Path in [`a`, 'b'] ? record.a?.b[1:-1] : {a: 1.5e3, (\"x\"): #}";
        survive(rule.get(..at.min(rule.len())).unwrap_or(""));
    }
}

/// Expressions that mostly compile.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "Type",
        "Request.Path",
        "Request.RemotePort",
        "Auth.Policies",
        "Auth.TokenIssueTime",
        "Auth.PolicyResults.Allowed",
        "1",
        "0",
        "-3",
        "2.5",
        "\"a\"",
        "\"secret/data\"",
        "nil",
        "true",
        "false",
        "[1, 2, 3]",
        "[\"root\", \"x\"]",
        "{a: 1}",
        "record",
        "record.request.data",
        "record.request.data.options.list",
        "1..5",
        "Auth.PolicyResults.GrantingPolicies",
        "Request.Headers",
        "duration(\"1h\")",
        "$env",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(5, 40, 3, |inner| {
        let operator = prop::sample::select(vec![
            "==", "!=", "<", ">", "<=", ">=", "in", "not in", "and", "||", "+", "-", "*", "/", "%", "**",
            "..", "contains", "matches",
        ]);
        let unary = prop::sample::select(vec![
            "len",
            "string",
            "type",
            "toJSON",
            "int",
            "float",
            "abs",
            "first",
            "last",
            "sum",
            "max",
            "min",
            "mean",
            "median",
            "sort",
            "reverse",
            "uniq",
            "flatten",
            "keys",
            "values",
            "toPairs",
            "fromPairs",
            "upper",
            "trim",
            "not ",
            "-",
            "count",
            "concat",
            "bitnot",
            "fromJSON",
        ]);
        let loops = prop::sample::select(vec![
            "any", "all", "none", "one", "map", "filter", "find", "count", "sum", "groupBy", "sortBy",
            "reduce",
        ]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (unary, inner.clone()).prop_map(|(name, a)| format!("{name}({a})")),
            (loops, inner.clone(), inner.clone())
                .prop_map(|(name, a, b)| format!("{name}({a}, {b} == # or # != nil)")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})?.[{b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}:]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} ?? {b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("(let v = {a}; [v, {b}])")),
        ]
    })
}
