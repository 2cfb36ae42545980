//! What many rules cost: decoding a record and finding the first rule that matches it, as ns per record, mean over 389 entries of a
//! real OpenBao (1.3 KB on average).
//!
//! - `rules/typical10/plain`: ten rules as operators write them, evaluated one by one, as the pipeline does below
//!   [`RULES_MIN`](vault_audit_filter::rules::RULES_MIN) rules: the yardstick.
//! - `rules/mixed1000/*`, `rules/mixed10000/*`: rules of a large installation in one group; few of them match any of these records.
//!   `plain` evaluates all of them, `indexed` the candidates of the index. The ten thousand are the thousand ten times over, with
//!   other teams and addresses each time. Goal: `mixed10000/indexed` takes at most five times as long as `typical10/plain`.
//! - `rules/same_operation10000/indexed`: the worst case of the index, ten thousand rules that have nothing to be looked up by but the
//!   operation, so that a read has all of them for candidates.
//! - `index/build10000`: building the index once, as at start.
//!
//! Run: `cargo bench --bench rules`.
#![allow(missing_docs, reason = "a bench program")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use vault_audit_filter::record::{DecodeScratch, Decoder, FieldPlan};
use vault_audit_filter::rules::{EvalScratch, IndexScratch, Limits, Rule, RuleIndex};

const RECORDS: &str = include_str!("../tests/data/records/openbao-2.7.2.jsonl");
const TYPICAL: &str = include_str!("../tests/data/rules/typical10.txt");
const MIXED: &str = include_str!("../tests/data/rules/mixed1000.txt");

/// The words of the mixed rules that name teams.
const TEAMS: [&str; 20] = [
    "ads",
    "billing",
    "checkout",
    "crm",
    "data",
    "edge",
    "fraud",
    "hr",
    "identity",
    "iot",
    "ledger",
    "legal",
    "logistics",
    "media",
    "ml",
    "mobile",
    "payments",
    "platform",
    "search",
    "support",
];

/// The thousand rules, and nine copies with other teams and addresses.
fn mixed10000() -> Vec<String> {
    let renamed = |rule: &str, copy: usize| {
        let before_team = ["\"", "-", "/", "@"];
        let names = before_team.iter().flat_map(|lead| TEAMS.iter().map(move |team| format!("{lead}{team}")));
        // `secret/data/` is no team.
        let names = names.filter(|name| name != "/data");
        let teams = names.fold(rule.to_owned(), |rule, name| rule.replace(&name, &format!("{name}{copy}")));
        teams.replace("\"10.", &format!("\"1{copy}."))
    };
    let copies = (1..10).flat_map(|copy| MIXED.lines().map(move |rule| renamed(rule, copy)));
    MIXED.lines().map(str::to_owned).chain(copies).collect()
}

fn compiled<'t>(texts: impl IntoIterator<Item = &'t str>) -> (Vec<Rule>, Decoder) {
    let mut plan = FieldPlan::new();
    let compile = |text| Rule::compile(text, &mut plan, &Limits::default()).expect("the rule compiles");
    let rules: Vec<Rule> = texts.into_iter().map(compile).collect();
    (rules, plan.build())
}

/// Measures `one` on one record after another, so that the time of an iteration is the time per record.
fn per_record(c: &mut Criterion, name: &str, mut one: impl FnMut(&[u8])) {
    let records: Vec<&[u8]> = RECORDS.lines().map(str::as_bytes).collect();
    let mut next = records.iter().cycle();
    c.bench_function(name, |b| b.iter(|| next.next().map(|frame| one(black_box(frame)))));
}

fn plain(c: &mut Criterion, name: &str, rules: &[Rule], decoder: &Decoder) {
    let (mut decode, mut eval) = (DecodeScratch::default(), EvalScratch::default());
    per_record(c, &format!("rules/{name}/plain"), |frame| {
        let record = decoder.decode(frame, &mut decode).expect("a real record is valid");
        black_box(rules.iter().position(|rule| rule.matches(&record, &mut eval).unwrap_or(false)));
    });
}

fn indexed(c: &mut Criterion, name: &str, rules: &[Rule], decoder: &Decoder) {
    let index = RuleIndex::build(&[rules.iter().collect()]);
    let (mut decode, mut eval) = (DecodeScratch::default(), EvalScratch::default());
    let mut scratch = IndexScratch::default();
    per_record(c, &format!("rules/{name}/indexed"), |frame| {
        let record = decoder.decode(frame, &mut decode).expect("a real record is valid");
        let mut candidates = index.candidates(&record, &mut scratch).of_group(0);
        black_box(candidates.find(|rule| rules[*rule].matches(&record, &mut eval).unwrap_or(false)));
    });
}

fn many(c: &mut Criterion) {
    let (rules, decoder) = compiled(TYPICAL.lines());
    plain(c, "typical10", &rules, &decoder);
    indexed(c, "typical10", &rules, &decoder);
    let (rules, decoder) = compiled(MIXED.lines());
    plain(c, "mixed1000", &rules, &decoder);
    indexed(c, "mixed1000", &rules, &decoder);
    let texts = mixed10000();
    let (rules, decoder) = compiled(texts.iter().map(String::as_str));
    plain(c, "mixed10000", &rules, &decoder);
    indexed(c, "mixed10000", &rules, &decoder);
    c.bench_function("index/build10000", |b| {
        b.iter(|| RuleIndex::build(&[black_box(&rules).iter().collect()]));
    });
    let same = r#"Request.Operation == "read" && Request.RemotePort > 65535"#;
    let (rules, decoder) = compiled(std::iter::repeat_n(same, 10_000));
    indexed(c, "same_operation10000", &rules, &decoder);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = many
}
criterion_main!(benches);
