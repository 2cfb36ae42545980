//! Any text as a rule: it compiles or is refused with a place inside the text, and what compiles runs within its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_audit_filter::record::{DecodeScratch, FieldPlan};
use vault_audit_filter::rules::go_regex::GoRegex;
use vault_audit_filter::rules::{EvalScratch, Limits, Rule};

fuzz_target!(|source: &str| {
    // As a rule and, where it is short, as a regular expression.
    if source.len() <= 1_000 {
        let _ = GoRegex::new(source);
    }
    let mut plan = FieldPlan::new();
    match Rule::compile(source, &mut plan, &Limits::default()) {
        Err(error) => {
            assert!(error.span.start <= error.span.end && error.span.end <= source.len());
            assert!(error.render(source).contains('^'));
        }
        Ok(rule) => {
            let mut decode = DecodeScratch::default();
            let decoder = plan.build();
            let record = decoder.decode(b"{}", &mut decode).expect("an object");
            let _ = rule.matches(&record, &mut EvalScratch::default());
        }
    }
});
