//! Random and damaged records: the decoder accepts what serde_json accepts and finds what it finds.
//!
//! Deliberate differences, kept out of the comparison: serde_json has no limit of 10,000 levels where it only skips, refuses lone
//! surrogates and numbers beyond f64 where it builds values, and accepts other values than objects.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

const PATHS: [&str; 16] = [
    "",
    "type",
    "error",
    "time",
    "auth",
    "auth.policies",
    "auth.policy_results.allowed",
    "auth.policy_results.granting_policies",
    "auth.metadata.role",
    "request",
    "request.path",
    "request.operation",
    "request.remote_port",
    "request.data",
    "request.data.options.cas",
    "response.data.current_version",
];

/// What serde_json's value holds at a path.
fn expected(record: &Value, text: &str) -> Owned {
    let mut at = record;
    let keys = path(text);
    for (depth, key) in keys.iter().enumerate() {
        match at.get(key).filter(|_| at.is_object()) {
            Some(value) => at = value,
            None if at.is_object() && depth + 1 == keys.len() => return Owned::Absent,
            None if at.is_object() || at.is_null() => return Owned::Unreached,
            None => return Owned::Misplaced,
        }
    }
    match at {
        Value::Null => Owned::Null,
        Value::Bool(value) => Owned::Bool(*value),
        Value::Number(number) => Owned::Number(number.to_string()),
        Value::String(text) => Owned::Str(text.clone()),
        Value::Array(_) | Value::Object(_) => Owned::Json(at.to_string()),
    }
}

/// Numbers and containers as serde_json would write them.
fn normal(slot: Owned) -> Owned {
    let rewrite = |text: &str| serde_json::from_str::<Value>(text).unwrap().to_string();
    match slot {
        Owned::Number(text) => Owned::Number(rewrite(&text)),
        Owned::Json(text) => Owned::Json(rewrite(&text)),
        other => other,
    }
}

/// Decodes and compares; true if the frame was accepted.
fn agrees(frame: &[u8]) -> bool {
    let valid = std::str::from_utf8(frame).is_ok() && serde_json::from_slice::<IgnoredAny>(frame).is_ok();
    let is_object = frame.trim_ascii_start().starts_with(b"{");
    let show = String::from_utf8_lossy(frame);
    match slots(frame, &PATHS) {
        Ok(slots) => {
            assert!(valid && is_object, "accepted: {show}");
            if let Ok(record) = serde_json::from_slice::<Value>(frame) {
                for (path, slot) in PATHS.iter().zip(slots) {
                    assert_eq!(normal(slot), expected(&record, path), "{path} in {show}");
                }
            }
            true
        }
        Err(error) => {
            assert!(!valid || !is_object, "refused: {error}: {show}");
            false
        }
    }
}

#[test]
fn real_records_hold_what_serde_json_finds() {
    assert!(records().all(|text| agrees(text.as_bytes())));
}

#[test]
fn what_senders_write_is_walked_over_quickly() {
    let mut plan = FieldPlan::new();
    for text in PATHS {
        plan.want(&path(text));
    }
    let decoder = plan.build();
    let quickly = |frame: &str| decoder.quickly(frame.as_bytes(), &mut DecodeScratch::default());
    for text in records() {
        let plain = text.is_ascii() && !text.contains('\\');
        assert_eq!(quickly(text), Some(plain), "{text}");
    }
    let deep = |levels: usize| format!("{{\"other\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(quickly(&deep(63)).is_some());
    for (frame, fields) in [(deep(64), 0), ("{ }".to_owned(), 0), (r#"{"type" :"request"}"#.to_owned(), 1)] {
        assert_eq!(quickly(&frame), None, "{frame}");
        assert!(agrees(frame.as_bytes()));
        assert_eq!(slot(&frame, "type"), if fields == 0 { Owned::Absent } else { string("request") });
    }
    for levels in [1, 31, 32, 33, 34, 200] {
        let frame = format!("{}\"here\"{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert_eq!(slot(&frame, &["a"].repeat(levels).join(".")), string("here"), "{levels}");
    }
}

#[test]
fn every_part_and_every_other_byte_of_a_record_is_judged_as_serde_json_judges_it() {
    let short = records().filter(|text| text.len() < 1_000);
    for text in short.step_by(25) {
        for at in 0..text.len() {
            agrees(&text.as_bytes()[..at]);
            for byte in *br#"{}[],:"\ 0e-."# {
                let mut frame = text.as_bytes().to_vec();
                frame[at] = byte;
                agrees(&frame);
            }
        }
    }
}

/// A value with, now and then, keys that somebody wants.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e30..1e30).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[a-z/]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    let known: Vec<&str> = PATHS.iter().flat_map(|text| path(text)).collect();
    prop_oneof![9 => prop::sample::select(known).prop_map(str::to_string), 1 => ".{0,12}"]
}

/// A record, its top three levels biased towards wanted keys.
fn record() -> impl Strategy<Value = Value> {
    let object =
        || prop::collection::vec((key(), value()), 0..8).prop_map(|m| Value::Object(m.into_iter().collect()));
    let top =
        prop::sample::select(vec!["auth", "request", "response", "type", "error"]).prop_map(str::to_string);
    let member = (top, prop_oneof![object(), value()]);
    prop::collection::vec(member, 0..6).prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// Writes JSON in an odd but valid way: `dice` decides about whitespace, escapes and repeated members.
fn write(value: &Value, dice: &mut impl Iterator<Item = u8>, out: &mut String) {
    let space = |dice: &mut dyn Iterator<Item = u8>, out: &mut String| {
        out.push_str(["", "", "", " ", "\n", "\t\r\n  "][usize::from(dice.next().unwrap_or(0)) % 6]);
    };
    space(dice, out);
    match value {
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write(value, dice, out);
            }
            space(dice, out);
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            let mut first = true;
            for (key, value) in members {
                let repeats = if dice.next().is_some_and(|byte| byte < 32) { 2 } else { 1 };
                for repeat in 0..repeats {
                    out.push_str(if first { "" } else { "," });
                    first = false;
                    space(dice, out);
                    write_string(key, dice, out);
                    space(dice, out);
                    out.push(':');
                    let other = Value::from(repeat);
                    write(
                        if repeat + 1 == repeats { value } else { members.values().next().unwrap_or(&other) },
                        dice,
                        out,
                    );
                }
            }
            space(dice, out);
            out.push('}');
        }
        Value::String(text) => write_string(text, dice, out),
        other => out.push_str(&other.to_string()),
    }
    space(dice, out);
}

fn write_string(text: &str, dice: &mut impl Iterator<Item = u8>, out: &mut String) {
    if dice.next().is_none_or(|byte| byte < 192) {
        return out.push_str(&serde_json::to_string(text).unwrap());
    }
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04x}"));
    }
    out.push('"');
}

/// One change to a frame: where, how much, and what is put there.
fn damage() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let bytes = prop_oneof![
        Just(Vec::new()),
        prop::sample::select(br#"{}[],:"\/ 0-9.eE+utfn"#.to_vec()).prop_map(|byte| vec![byte]),
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::sample::select(vec![
            "null",
            "\"request\":",
            "\\u0041",
            "\\ud800",
            "1e5",
            "01",
            "[]",
            "{\"path\":1},"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    (any::<prop::sample::Index>(), 0_usize..4, bytes)
}

#[test]
fn strings_end_where_they_do_wherever_they_lie() {
    let strings = [
        "",
        "a",
        "plain text",
        r"\n",
        r#"\""#,
        r"\\",
        r#"a\\\"b"#,
        r"\u00e9 and more than a few bytes behind it",
        "é😀",
    ];
    let faults = ["\\", "\\x", "\t", "\u{1f}", "\"", "\\u12", "\\ud8"];
    let long = "x".repeat(130);
    for text in strings.iter().chain(&[long.as_str()]).chain(&faults) {
        for padding in 0..70 {
            for follow in [0, 1, 60] {
                let (padding, follow) = (" ".repeat(padding), "y".repeat(follow));
                let frame = format!(
                    r#"{{"request":{{{padding}"path":"{text}","operation":"{follow}"}},"t\u0079pe":"z"}}"#
                );
                assert_eq!(agrees(frame.as_bytes()), !faults.contains(text), "{frame}");
                let frame =
                    format!(r#"{{{padding}"{text}":"{text}{follow}{text}","type":"{text}"{padding}}}"#);
                assert_eq!(agrees(frame.as_bytes()), !faults.contains(text), "{frame}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_records_hold_what_serde_json_finds(
        record in record(),
        dice in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let mut text = String::new();
        write(&record, &mut dice.iter().copied().cycle(), &mut text);
        prop_assert!(agrees(text.as_bytes()));
    }

    #[test]
    fn damaged_records_are_judged_as_serde_json_judges_them(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec(damage(), 1..4),
    ) {
        let all: Vec<&str> = records().filter(|text| text.len() < 4_000).collect();
        let mut frame = pick.get(&all).as_bytes().to_vec();
        for (at, removed, bytes) in changes {
            let start = at.index(frame.len());
            let end = (start + removed).min(frame.len());
            frame.splice(start..end, bytes);
        }
        agrees(&frame);
    }

    #[test]
    fn any_bytes_are_judged_as_serde_json_judges_them(
        bytes in prop::collection::vec(prop::sample::select(br#"{}[],:"\u0dtruefalsnl1-.eE+ x"#.to_vec()), 0..24)
    ) {
        agrees(&[&b"{\"a\":"[..], &bytes, b"}"].concat());
        agrees(&bytes);
    }
}
