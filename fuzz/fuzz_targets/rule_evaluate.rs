//! A rule and a record behind its last newline: the compiled form, the general evaluator, the index and the explanation say the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_audit_filter::record::{DecodeScratch, FieldPlan};
use vault_audit_filter::rules::{EvalScratch, IndexScratch, Limits, Rule, RuleIndex};

/// A rule that shares the index with the one at hand.
const OTHER: &str = r#"Request.Path startsWith "secret/" && Request.Operation == "read""#;

fuzz_target!(|input: &str| {
    let Some((source, frame)) = input.rsplit_once('\n') else { return };
    // Fewer steps than by default, so that many inputs are tried.
    let limits = Limits {
        steps_max: 20_000,
        memory_elements_max: 20_000,
        memory_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let mut plan = FieldPlan::new();
    let Ok(rule) = Rule::compile(source, &mut plan, &limits) else { return };
    let other = Rule::compile(OTHER, &mut plan, &limits).expect("a rule");
    let mut decode = DecodeScratch::default();
    let decoder = plan.build();
    let Ok(record) = decoder.decode(frame.as_bytes(), &mut decode) else { return };
    let mut scratch = EvalScratch::default();

    let matched = rule.matches(&record, &mut scratch);
    let value = rule.evaluate(&record, &mut scratch);
    match (&matched, &value) {
        (Ok(matched), Ok(value)) => {
            assert_eq!(*matched, *value == serde_json::json!({"bool": true}), "{source}");
        }
        // Showing a value takes steps too.
        (Ok(_), Err(_)) | (Err(_), Err(_)) => {}
        (Err(error), Ok(_)) => panic!("{source}: {error}, and yet it has a value"),
    }
    let explanation = rule.explain(&record, &mut scratch);
    assert!(!explanation.to_string().is_empty());

    let index = RuleIndex::build(&[vec![&rule, &other]]);
    let mut index_scratch = IndexScratch::default();
    let candidates: Vec<usize> = index.candidates(&record, &mut index_scratch).of_group(0).collect();
    for (number, rule) in [&rule, &other].into_iter().enumerate() {
        if rule.matches(&record, &mut scratch) == Ok(true) {
            assert!(candidates.contains(&number), "the index leaves out {}", rule.source());
        }
    }
});
