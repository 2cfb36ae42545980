//! Any bytes as a frame: the decoder accepts what serde_json accepts, but for what it documents, and finds the same fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use vault_audit_filter::record::{DecodeError, DecodeScratch, FieldPlan, Slot, json};

const PATHS: [&[&str]; 12] = [
    &[],
    &["type"],
    &["error"],
    &["auth"],
    &["auth", "policies"],
    &["auth", "policy_results", "allowed"],
    &["auth", "metadata", "role"],
    &["request", "path"],
    &["request", "operation"],
    &["request", "remote_port"],
    &["request", "data", "options", "cas"],
    &["response", "data", "current_version"],
];

/// What serde_json's value holds at a path.
fn at<'v>(record: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(record, |value, key| value.as_object()?.get(*key))
}

fn same(slot: Slot<'_>, value: Option<&Value>) -> bool {
    match (slot, value) {
        (Slot::Unreached | Slot::Misplaced | Slot::Absent, None) | (Slot::Null, Some(Value::Null)) => true,
        (Slot::Bool(slot), Some(Value::Bool(value))) => slot == *value,
        (Slot::Str(slot), Some(Value::String(value))) => slot == value,
        (Slot::Number(slot), Some(Value::Number(value))) => json::int(slot).map_or_else(
            || Some(json::float(slot)) == value.as_f64(),
            |int| {
                value.as_i64() == Some(int) || (int == 0 && value.as_f64().is_some_and(|float| float == 0.0))
            },
        ),
        (Slot::Json(text), Some(value @ (Value::Array(_) | Value::Object(_)))) => {
            serde_json::from_slice::<Value>(text).is_ok_and(|slot| slot == *value)
        }
        _ => false,
    }
}

fuzz_target!(|frame: &[u8]| {
    let mut plan = FieldPlan::new();
    let slots = PATHS.map(|path| plan.want(path));
    let mut scratch = DecodeScratch::default();
    let decoder = plan.build();
    let decoded = decoder.decode(frame, &mut scratch);
    // Without its own limit of 128 levels serde_json could run out of stack: deeper frames are not compared.
    let depth = frame.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if let Err(DecodeError::NotUtf8 { offset }) = decoded {
        assert_eq!(std::str::from_utf8(frame).map_err(|error| error.valid_up_to()), Err(offset));
        return;
    }
    if depth > 100 {
        return;
    }
    let valid = serde_json::from_slice::<serde::de::IgnoredAny>(frame).is_ok();
    let is_object = frame.trim_ascii_start().first() == Some(&b'{');
    match decoded {
        Err(error) => assert!(!valid || !is_object, "refused: {error}"),
        Ok(record) => {
            assert!(valid && is_object, "accepted");
            assert_eq!(record.bytes(), frame.trim_ascii());
            // Lone surrogates and numbers beyond f64 are no values for serde_json.
            let Ok(value) = serde_json::from_slice::<Value>(frame) else { return };
            for (path, slot) in PATHS.iter().zip(slots) {
                assert!(same(record.slot(slot), at(&value, path)), "{path:?}: {:?}", record.slot(slot));
            }
        }
    }
});
