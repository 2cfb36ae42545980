//! What the Go expr library answers, row by row (`tests/data/conformance`, or the directory in `EXPR_CONFORMANCE_DIR`).
//!
//! A row: `expr`; `env` (`audit`: `records.json[rec]` or the row's own `record_text`; `gen`: fixed values; `none`: an empty
//! record); `want`: a typed value, or the class of the error (`compile`, `runtime`, `decode`). Messages are not compared.
//! Prints one line a file, `conformance: FILE: A of N agree`, and fails on a row that neither agrees nor is in [`DIFFERENCES`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use vault_audit_filter::record::{DecodeScratch, FieldPlan};
use vault_audit_filter::rules::go_regex::GoRegex;
use vault_audit_filter::rules::{Constant, Environment, EvalScratch, Limits, Rule, StructDef};

/// Rows that are answered otherwise on purpose: expression, a part of the record that tells it from others, reason.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("Request.Operation", r#"{"REQUEST""#, "keys match exactly"),
    ("Request.Path", "reque\u{17f}t", "keys match exactly"),
    ("Request.Operation + Request.Path", r#""request":{"path""#, "the last of equal keys wins as a whole"),
    ("Auth.Policies", r#"["a",1]"#, MISTYPED),
    ("Auth.Policies", r#"{"policies":"a"}"#, MISTYPED),
    ("Request.Operation", r#"{"operation":5}"#, MISTYPED),
    ("Request.RemotePort", "5.0", MISTYPED),
    ("Request.RemotePort", "5e0", MISTYPED),
    ("Request.Operation", r#"{"request":"x"}"#, MISTYPED),
    ("Response.Data.CurrentVersion", r#"{"data":[1]}"#, MISTYPED),
    ("Auth.TokenIssueTime", r#"token_issue_time":"""#, MISTYPED),
    ("Auth.TokenIssueTime", r#"2026-01-01""#, MISTYPED),
    ("Auth.TokenIssueTime", "2026-01-01 00:00:00Z", MISTYPED),
    ("Auth.TokenIssueTime", "2026-1-1T0:00:00Z", MISTYPED),
];

/// Go refuses the whole record.
const MISTYPED: &str = "a mistyped field fails the rules that read it, not the record";

/// Go counts neither steps nor bytes: some rows take more of them than a rule on the request path may.
const STEPS_MAX: usize = 10_000_000;
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where the rows are.
fn main_dir() -> PathBuf {
    match std::env::var_os("EXPR_CONFORMANCE_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/conformance"),
    }
}

fn generic_environment() -> Environment {
    let bar_holder: Arc<StructDef> = Environment::struct_of_strings("main.Foo", &["Bar"], Some("foo"));
    let make = |bar: &str| Constant::Struct(bar_holder.clone(), Box::new([Constant::Str(bar.into())]));
    Environment::constants([
        ("ok", Constant::Bool(true)),
        ("i", Constant::Int(1)),
        ("str", Constant::Str("str".into())),
        ("f64", Constant::Float(0.5)),
        ("array", Constant::Ints(Box::new([1, 2, 3, 4, 5]))),
        ("foo", make("foo")),
        ("list", Constant::Structs(bar_holder.clone(), Box::new([make("bar"), make("baz")]))),
    ])
}

/// What this project answers to a row.
fn answer(row: &Value, records: &[String], generic: &Environment) -> Value {
    let text = row["expr"].as_str().unwrap_or_default();
    let record = match (&row["record_text"], row["rec"].as_u64()) {
        (Value::String(text), _) => text.clone(),
        (_, Some(index)) => records.get(index as usize).cloned().unwrap_or_else(|| "{}".into()),
        _ if !row["record"].is_null() => row["record"].to_string(),
        _ => "{}".into(),
    };
    let env = if row["env"] == "gen" { generic.clone() } else { Environment::audit() };
    let mut plan = FieldPlan::new();
    let limits = Limits { steps_max: STEPS_MAX, memory_bytes_max: MEMORY_BYTES_MAX, ..Limits::default() };
    let rule = match Rule::compile_in(text, &env, &mut plan, &limits) {
        Ok(rule) => rule,
        Err(error) => return json!({"error": "compile", "message": error.render(text)}),
    };
    let decoder = plan.build();
    let mut decode_scratch = DecodeScratch::default();
    let decoded = match decoder.decode(record.as_bytes(), &mut decode_scratch) {
        Ok(decoded) => decoded,
        Err(error) => return json!({"error": "decode", "message": error.to_string()}),
    };
    let mut scratch = EvalScratch::default();
    scratch.set_now(jiff::Timestamp::UNIX_EPOCH);
    let value = rule.evaluate(&decoded, &mut scratch);
    let matched = rule.matches(&decoded, &mut scratch);
    match value {
        Ok(value) => {
            assert_eq!(matched, Ok(value == json!({"bool": true})), "matches and evaluate agree on {text}");
            let explained = rule.explain(&decoded, &mut scratch);
            assert!(!explained.to_string().is_empty());
            json!({"value": value})
        }
        Err(error) => {
            assert!(matched.is_err(), "matches and evaluate agree on {text}");
            json!({"error": "runtime", "message": error.to_string()})
        }
    }
}

/// Equal but for the order of maps, and for fields that our structs have and the Go structs do not.
fn agree(want: &Value, got: &Value) -> bool {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            if let (Some(error), Some(other)) = (want.get("error"), got.get("error")) {
                return error == other;
            }
            if let (Some(Value::Array(want)), Some(Value::Array(got))) = (want.get("map"), got.get("map")) {
                let sorted = |pairs: &[Value]| -> BTreeMap<String, Value> {
                    pairs.iter().map(|pair| (pair[0].to_string(), pair[1].clone())).collect()
                };
                let (want, got) = (sorted(want), sorted(got));
                return want.len() == got.len()
                    && want.iter().zip(&got).all(|((a, x), (b, y))| a == b && agree(x, y));
            }
            if let (Some(Value::Object(want)), Some(Value::Object(got))) =
                (want.get("struct"), got.get("struct"))
            {
                return want
                    .iter()
                    .all(|(name, value)| got.get(name).is_some_and(|other| agree(value, other)));
            }
            want.len() == got.len()
                && want.iter().all(|(key, value)| got.get(key).is_some_and(|other| agree(value, other)))
        }
        (Value::Array(want), Value::Array(got)) => {
            want.len() == got.len() && want.iter().zip(got).all(|(want, got)| agree(want, got))
        }
        (want, got) => want == got,
    }
}

/// Go's `findLast` and `findLastIndex` leave a value on the stack for each element that they look at (`emitLoopBackwards` of
/// `compiler/compiler.go`, 1.17.8): a left operand or an argument before them is lost, and true or false stands in its place.
/// Here they are like `find` and `findIndex`.
fn shows_the_lost_operand(row: &Value) -> bool {
    let message = row["want"]["message"].as_str().unwrap_or_default();
    let lost = ["interface {} is bool", "invalid operation: bool", "(type bool)"];
    lost.iter().any(|words| message.contains(words))
        && row["expr"].as_str().is_some_and(|expr| expr.contains("findLast"))
}

fn is_difference(row: &Value) -> bool {
    if shows_the_lost_operand(row) {
        return true;
    }
    let record = row["record_text"].as_str().unwrap_or_default();
    DIFFERENCES.iter().any(|(expr, part, _)| row["expr"] == *expr && record.contains(part))
}

/// A row of a regular expression: pattern, haystack, match or error.
fn regex_agrees(row: &Value) -> bool {
    let pattern = row["pattern"].as_str().unwrap_or_default();
    let haystack = row["haystack"].as_str().unwrap_or_default();
    match (GoRegex::new(pattern), &row["want"]) {
        (Ok(regex), Value::Bool(want)) => regex.is_match(haystack) == *want,
        (Err(_), want) => want.get("error").is_some(),
        _ => false,
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "the agreement is the test's report")]
fn go_answers() {
    let dir = main_dir();
    let read = |path: &Path| {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let records: Vec<Value> =
        serde_json::from_str(&read(&dir.join("records.json"))).expect("records.json is an array");
    let records: Vec<String> = records.iter().map(Value::to_string).collect();
    let generic = generic_environment();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("the directory of the rows")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no rows in {}", dir.display());
    let mut wrong = 0;
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (mut agreed, mut rows, mut differing) = (0, 0, 0);
        for line in read(&path).lines().filter(|line| !line.trim().is_empty()) {
            let row: Value = serde_json::from_str(line).expect("a row is JSON");
            rows += 1;
            if row.get("pattern").is_some() {
                if regex_agrees(&row) {
                    agreed += 1;
                } else {
                    wrong += 1;
                    eprintln!("{name}: {line}");
                }
                continue;
            }
            let got = answer(&row, &records, &generic);
            if agree(&row["want"], &got) {
                agreed += 1;
            } else if is_difference(&row) {
                differing += 1;
            } else {
                wrong += 1;
                eprintln!("{name}: {}\n  want {}\n  got  {got}", row["expr"], row["want"]);
            }
        }
        println!("conformance: {name}: {agreed} of {rows} agree");
        if differing > 0 {
            println!("conformance: {name}: {differing} differ on purpose");
        }
    }
    assert_eq!(wrong, 0, "rows that do not agree");
}
