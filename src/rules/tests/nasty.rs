//! The nastiest rules (`tests/data/rules/nasty.txt`): each is refused, or ends within its limits in steps and memory.

use super::super::{EvalErrorKind, EvalScratch, Limits, Rule};
use crate::clock;
use crate::record::{DecodeScratch, FieldPlan};

const TABLE: &str = include_str!("../../../tests/data/rules/nasty.txt");

/// Memory comes in chunks that double.
const CHUNKS: usize = 2;

fn record() -> String {
    let numbers = vec!["1"; 10_000].join(",");
    let path = "a".repeat(64 * 1024);
    format!(r#"{{"type":"request","request":{{"path":"{path}","data":{{"numbers":[{numbers}]}}}}}}"#)
}

#[test]
#[allow(clippy::print_stdout, reason = "what each rule costs is the test's report")]
fn every_nasty_rule_is_refused_or_bounded() {
    let limits = Limits::default();
    let frame = record();
    println!("{:>9} {:>10} {:>9}  outcome, rule", "steps", "bytes", "µs");
    let mut wrong = Vec::new();
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    for (wanted, source) in rows.map(|line| line.split_once('\t').expect("a tab in each row")) {
        let mut plan = FieldPlan::new();
        let mut scratch = EvalScratch::default();
        let started = clock::now();
        let (outcome, evaluated) = match Rule::compile(source, &mut plan, &limits) {
            Err(error) => (format!("refused: {}", error.message), None),
            Ok(rule) => {
                let mut decode = DecodeScratch::default();
                let decoder = plan.build();
                let record = decoder.decode(frame.as_bytes(), &mut decode).expect("valid");
                let started = clock::now();
                let outcome = match rule.matches(&record, &mut scratch) {
                    Ok(matched) => matched.to_string(),
                    Err(error) if error.kind == EvalErrorKind::Limit => format!("limit: {error}"),
                    Err(error) => format!("fails: {error}"),
                };
                (outcome, Some(started.elapsed()))
            }
        };
        let micros = evaluated.unwrap_or_else(|| started.elapsed()).as_micros();
        let (steps, bytes) = (scratch.steps_used(), scratch.bytes_held());
        let shown: String = source.chars().take(70).collect();
        println!("{steps:>9} {bytes:>10} {micros:>9}  {wanted}: {shown}");
        let (class, words) = wanted.split_once(": ").unwrap_or((wanted, ""));
        if !(outcome.starts_with(class) && outcome.contains(words)) {
            wrong.push(format!("{source}: {outcome}"));
        }
        assert!(steps <= limits.steps_max, "{source}: {steps} steps");
        assert!(bytes <= CHUNKS * limits.memory_bytes_max, "{source}: {bytes} bytes");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
