//! What a record costs after its bytes are there: decode, rules, log line; time per record, mean over 389 entries of a
//! real OpenBao (1.3 KB on average).
//!
//! - `rules/typical10`: ten typical rules over a decoded record, until one is true; what matching alone costs.
//! - `record/decode_and_10_rules`: decoding and those rules: the whole of the request path that is not I/O.
//! - `record/to_file`: the pipeline as the listeners call it: decode, rules, one `write` for records that match, counters.
//! - `record/all_to_file`: the same with a group that takes every record; the difference to `to_file` is the price of writing.
//!
//! Run: `cargo bench --bench pipeline`.
#![allow(missing_docs, reason = "a bench program")]

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, criterion_group, criterion_main};
use vault_audit_filter::config;
use vault_audit_filter::listener::Source;
use vault_audit_filter::log_file::{LogFiles, Quarantine};
use vault_audit_filter::metrics::{self, Registry};
use vault_audit_filter::pipeline::{Pipeline, Worker};
use vault_audit_filter::record::{DecodeScratch, Decoder, FieldPlan};
use vault_audit_filter::rule_group::{GroupRule, RuleGroup};
use vault_audit_filter::rules::{EvalScratch, Limits, Rule};
use vault_audit_filter::ticket::Ticket;

const RECORDS: &str = include_str!("../tests/data/records/openbao-2.7.2.jsonl");
const TYPICAL_RULES: &str = include_str!("../tests/data/rules/typical10.txt");

fn typical() -> (Vec<Rule>, Decoder) {
    let mut plan = FieldPlan::new();
    let rules = TYPICAL_RULES
        .lines()
        .filter(|l| !l.is_empty())
        .map(|text| Rule::compile(text, &mut plan, &Limits::default()).expect("a typical rule compiles"))
        .collect();
    (rules, plan.build())
}

fn any_matches(
    rules: &[Rule],
    record: &vault_audit_filter::record::Record<'_>,
    scratch: &mut EvalScratch,
) -> bool {
    rules.iter().any(|rule| rule.matches(record, scratch) == Ok(true))
}

fn rules(c: &mut Criterion) {
    let records: Vec<&[u8]> = RECORDS.lines().map(str::as_bytes).collect();
    let (rules, decoder) = typical();
    let mut eval = EvalScratch::default();
    let mut scratches: Vec<DecodeScratch> = records.iter().map(|_| DecodeScratch::default()).collect();
    let decoded: Vec<_> = records
        .iter()
        .zip(&mut scratches)
        .map(|(frame, scratch)| decoder.decode(frame, scratch).expect("a real record is valid"))
        .collect();
    let mut next = decoded.iter().cycle();
    c.bench_function("rules/typical10", |b| {
        b.iter(|| next.next().map(|record| any_matches(&rules, black_box(record), &mut eval)));
    });
    let mut scratch = DecodeScratch::default();
    let mut next = records.iter().cycle();
    c.bench_function("record/decode_and_10_rules", |b| {
        b.iter(|| {
            next.next().map(|frame| {
                let record = decoder.decode(black_box(frame), &mut scratch).expect("a real record is valid");
                any_matches(&rules, &record, &mut eval)
            })
        });
    });
}

fn pipeline(dir: &Path, all: bool) -> Pipeline {
    let registry = Registry::new();
    let files = LogFiles::new();
    let open = |name: &str| files.open(&config::LogFile::at(dir.join(name)), &registry).expect("a log file");
    let (rules, decoder) = typical();
    let errors = || registry.counter(&metrics::RULE_ERRORS, &["bench", "1"]);
    let group = RuleGroup {
        name: "bench".into(),
        rules: if all {
            Vec::new()
        } else {
            rules.into_iter().map(|r| GroupRule::new(r, errors())).collect()
        },
        log_file: Some(open(if all { "all.log" } else { "matched.log" })),
        sinks: Vec::new(),
        matches: registry.counter(&metrics::GROUP_MATCHES, &["bench"]),
    };
    let quarantine = Quarantine::new(open("quarantine.log"));
    Pipeline::new(decoder, vec![group], None, quarantine, &registry).expect("a pipeline")
}

fn whole(c: &mut Criterion) {
    let records: Vec<&[u8]> = RECORDS.lines().map(str::as_bytes).collect();
    let dir: PathBuf = std::env::temp_dir().join(format!("vaf-bench-pipeline-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary directory");
    for (name, all) in [("record/to_file", false), ("record/all_to_file", true)] {
        let pipeline = pipeline(&dir, all);
        let mut worker = Worker::default();
        let mut next = records.iter().cycle();
        c.bench_function(name, |b| {
            b.iter(|| {
                next.next().map(|frame| {
                    pipeline
                        .handle(Source::Http, &[black_box(frame)], &mut worker, &mut || Ticket::new(|_| {}))
                })
            });
        });
    }
    let _ = std::fs::remove_dir_all(&dir);
}

criterion_group!(benches, rules, whole);
criterion_main!(benches);
