//! No rule takes the process down, runs without end or uses memory without bound.

use super::super::{EvalErrorKind, EvalScratch, Limits, Rule};
use super::{RECORD, matches, refused, value};
use crate::record::{DecodeScratch, FieldPlan};

fn limited(source: &str) {
    let limits = Limits::default();
    let mut plan = FieldPlan::new();
    let rule = Rule::compile(source, &mut plan, &limits).expect(source);
    let decoder = plan.build();
    let mut decode = DecodeScratch::default();
    let record = decoder.decode(RECORD.as_bytes(), &mut decode).expect("valid");
    let error = rule.matches(&record, &mut EvalScratch::default()).expect_err(source);
    assert_eq!(error.kind, EvalErrorKind::Limit, "{source}: {error}");
}

#[test]
fn nasty_rules_reach_a_limit() {
    for source in [
        "1..1000000000",
        "len(1..9223372036854775807)",
        "map(1..999999, 1..999999)",
        "repeat(\"x\", 1000001)",
        "repeat(repeat(\"xxxxxxxxxx\", 90000), 1000)",
        "reduce(1..60, #acc + #acc, \"xxxxxxxxxx\")",
        "all(1..999999, all(1..999999, # > 0))",
        "reduce(1..500, [#acc]) == reduce(1..500, [#acc])",
        "string(reduce(1..500, [#acc], []))",
        "flatten(reduce(1..500, [#acc], []))",
        "toJSON(reduce(1..500, {{a: #acc}}, nil))",
        "reduce(1..100000, replace(#acc, \"\", \"ab\"), \"a\")",
        "uniq(map(1..100000, #))",
        "groupBy(map(1..100000, #), #)",
        "any(1..900000, Type matches (\"a{1,100}\" + string(#)))",
    ] {
        limited(source);
    }
}

#[test]
fn deep_rules_are_refused_and_long_ones_are_not() {
    for (open, close) in
        [("(", ")"), ("[", "]"), ("!", ""), ("-", ""), ("len([", "])"), ("if true {", "} else {1}")]
    {
        let source = format!("{}1{}", open.repeat(2_000), close.repeat(2_000));
        assert!(refused(&source).message.contains("too deeply"), "{open}");
    }
    for part in ["let x = 1; ", "true ? 1 : ", "Type.", "{a: ", "map(list, "] {
        refused(&part.repeat(5_000));
    }
    assert!(refused(&"1 < ".repeat(5_000)).message.contains("too large"));
    assert!(refused(&"x".repeat(100_000)).message.contains("bytes"));
    let nodes = format!("[{}]", "1,".repeat(20_000));
    assert!(refused(&nodes).message.contains("too large"));
    let long = vec!["Request.Path == \"secret/data/foo\""; 1_500].join(" && ");
    assert_eq!(matches(RECORD, &long), Ok(true));
    let long = vec!["Request.Path == \"x\""; 1_500].join(" or ");
    assert_eq!(matches(RECORD, &long), Ok(false));
}

#[test]
fn the_regular_expressions_of_a_rule_have_a_size_limit_together() {
    let test = |count: usize| format!("Request.Path matches {:?}", format!(r"\pL{{{count}}}x"));
    let any = |rules: usize| vec![test(100); rules].join(" or ");
    assert_eq!(matches(RECORD, &any(2)), Ok(false));
    let error = refused(&any(1_000));
    assert!(error.message.contains("the limit for a rule is 4194304"), "{}", error.message);
    let before = Limits::default().regex_programs_bytes_max / (100 * 827 * 20);
    assert_eq!(any(1_000)[..error.span.start].matches("matches").count(), before + 1);
    assert!(refused(&test(1_000)).message.contains("the program takes more than 2097152 bytes"));
    // Patterns that only folding makes constant count as well.
    let folded = vec![r#"Request.Path matches ("\\pL{100}" + "x")"#; 1_000].join(" or ");
    assert!(refused(&folded).message.contains("the limit for a rule is"));
}

#[test]
fn operands_that_are_evaluated_twice_count_as_copies() {
    // Each level doubles the middle operand: without a bound the tree would have 2^50 parts.
    let mut source = String::from("1");
    for _ in 0..50 {
        source = format!("0 < ({source}) < 9");
    }
    refused(&source);
    let mut source = String::from("true");
    for _ in 0..60 {
        source = format!("({source} ?: false)");
    }
    refused(&source);
}

#[test]
fn a_scratch_serves_on_after_a_failure_and_gives_memory_back() {
    let mut plan = FieldPlan::new();
    let limits = Limits { steps_max: 10_000_000, ..Limits::default() };
    let big = Rule::compile("len(map(1..400000, #)) > 1", &mut plan, &limits).expect("compiles");
    let bad = Rule::compile("Auth.Policies[9] == \"x\"", &mut plan, &limits).expect("compiles");
    let good = Rule::compile("any(Auth.Policies, # == \"root\")", &mut plan, &limits).expect("compiles");
    let decoder = plan.build();
    let mut decode = DecodeScratch::default();
    let record = decoder.decode(RECORD.as_bytes(), &mut decode).expect("valid");
    let mut scratch = EvalScratch::default();
    assert_eq!(big.matches(&record, &mut scratch), Ok(true));
    assert!(scratch.bump.allocated_bytes() > 1024 * 1024);
    assert!(bad.matches(&record, &mut scratch).is_err());
    assert!(scratch.bump.allocated_bytes() < 1024 * 1024);
    assert_eq!(good.matches(&record, &mut scratch), Ok(true));
    let before = scratch.bump.allocated_bytes();
    for _ in 0..100 {
        assert_eq!(good.matches(&record, &mut scratch), Ok(true));
    }
    assert_eq!(scratch.bump.allocated_bytes(), before);
}

#[test]
fn limits_are_the_callers() {
    let limits = Limits { steps_max: 50, ..Limits::default() };
    let mut plan = FieldPlan::new();
    let rule = Rule::compile("all(1..100, # > 0)", &mut plan, &limits).expect("compiles");
    let decoder = plan.build();
    let mut decode = DecodeScratch::default();
    let record = decoder.decode(b"{}", &mut decode).expect("valid");
    let error = rule.matches(&record, &mut EvalScratch::default()).expect_err("too many steps");
    assert_eq!(error.kind, EvalErrorKind::Limit);
    assert_eq!(error.kind.as_str(), "limit");
}

#[test]
fn the_deepest_rules_run() {
    let nested = |open: &str, middle: &str, close: &str, times: usize| {
        format!("{}{middle}{}", open.repeat(times), close.repeat(times))
    };
    for times in [60, 95] {
        assert_eq!(value(&nested("(", "1", ")", times)), r#"{"int":"1"}"#);
        assert!(value(&nested("[", "1", "]", times)).starts_with(r#"{"arr":[{"arr""#));
        assert!(value(&nested("{a: ", "1", "}", times)).starts_with(r#"{"map""#));
        assert_eq!(value(&nested("not (", "Type == \"x\"", ")", 2 * (times / 4))), r#"{"bool":false}"#);
        assert_eq!(value(&nested("any([1], ", "# == 1", ")", times)), r#"{"bool":true}"#);
        assert_eq!(value(&nested("len(string(", "Type", "))", times / 2)), r#"{"int":"1"}"#);
        assert_eq!(value(&nested("if Type == \"x\" { 1 } else { ", "2", " }", times / 2)), r#"{"int":"2"}"#);
        assert_eq!(
            value(&nested("Type == \"request\" && (Type == \"x\" || (", "true", "))", times / 4)),
            r#"{"bool":true}"#
        );
        assert_eq!(value(&nested("(nil ?? ", "3", ")", times / 2)), r#"{"int":"3"}"#);
    }
}

#[test]
fn large_patterns_are_answered_on_texts_of_ordinary_length() {
    for pattern in
        [".{1000}", "(?i)[a-z ]{1000}", r"\\pL{100}", "(a|b|c|.){1000}", r"[\\w\\s]{1000}", "[^/]{400}b"]
    {
        for (text, expected) in [("\"x\"", false), ("repeat(\"a\", 9000) + \"b\"", true)] {
            // Not folded while compiling: the field is read.
            let rule = format!("(Type + {text}) matches \"{pattern}\"");
            assert_eq!(value(&rule), format!(r#"{{"bool":{expected}}}"#), "{rule}");
        }
    }
}
