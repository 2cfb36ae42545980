//! What decoding costs: time per record, mean over 389 entries of a real OpenBao (1.3 KB on average, 217 bytes to 25 KB).
//!
//! - `decode/validate`: nothing extracted; what strict validation of the whole text costs.
//! - `decode/typical`: the fields that ten typical rules read; what the request path pays. The difference to `validate` is the price
//!   of finding fields.
//! - `decode/every_field`: every field of the schema; the worst a rule set can ask for.
//! - `peers/serde_json_skip`: serde_json validating the same text without keeping anything; the yardstick to stay below.
//! - `peers/serde_json_value`: serde_json building the whole tree; what extraction without a plan costs.
//!
//! Run: `cargo bench --bench decode`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde::de::IgnoredAny;
use vault_audit_filter::record::schema::{AUDIT_LOG, StructType, Type};
use vault_audit_filter::record::{DecodeScratch, FieldPlan};

const RECORDS: &str = include_str!("../tests/data/records/openbao-2.7.2.jsonl");

/// The fields that ten typical rules read.
const TYPICAL: [&[&str]; 12] = [
    &["type"],
    &["error"],
    &["auth", "policies"],
    &["auth", "token_policies"],
    &["auth", "token_type"],
    &["auth", "policy_results", "allowed"],
    &["auth", "policy_results", "granting_policies"],
    &["request", "mount_type"],
    &["request", "operation"],
    &["request", "path"],
    &["request", "remote_address"],
    &["response", "data", "current_version"],
];

fn every_field<'a>(plan: &mut FieldPlan, path: &mut Vec<&'a str>, ty: &'a StructType) {
    for field in ty.fields {
        path.push(field.json);
        match field.ty {
            Type::Struct(inner) => every_field(plan, path, inner),
            _ => _ = plan.want(path),
        }
        path.pop();
    }
}

/// Measures `one` on one record after another, so that the time of an iteration is the time per record.
fn per_record(c: &mut Criterion, name: &str, mut one: impl FnMut(&[u8])) {
    let records: Vec<&[u8]> = RECORDS.lines().map(str::as_bytes).collect();
    let mut next = records.iter().cycle();
    c.bench_function(name, |b| b.iter(|| next.next().map(|frame| one(black_box(frame)))));
}

fn decode(c: &mut Criterion) {
    let mut typical = FieldPlan::new();
    let slots: Vec<_> = TYPICAL.iter().map(|path| typical.want(path)).collect();
    let mut every = FieldPlan::new();
    every_field(&mut every, &mut Vec::new(), &AUDIT_LOG);
    for (name, plan) in [("validate", FieldPlan::new()), ("typical", typical), ("every_field", every)] {
        let decoder = plan.build();
        let mut scratch = DecodeScratch::default();
        per_record(c, &format!("decode/{name}"), |frame| {
            let record = decoder.decode(frame, &mut scratch).expect("a real record is valid");
            for slot in &slots {
                black_box(record.slot(*slot));
            }
        });
    }
}

fn peers(c: &mut Criterion) {
    per_record(c, "peers/serde_json_skip", |frame| {
        black_box(serde_json::from_slice::<IgnoredAny>(frame).is_ok());
    });
    per_record(c, "peers/serde_json_value", |frame| {
        black_box(serde_json::from_slice::<serde_json::Value>(frame).is_ok());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = decode, peers
}
criterion_main!(benches);
