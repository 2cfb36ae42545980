//! `match` as a whole: what is printed where, and the exit code.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::*;
use crate::config::Environment;

/// A directory of its own for one test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vaf-match-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        Scratch(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("a temporary file can be written");
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(clap::Parser)]
struct Parsed {
    #[command(flatten)]
    arguments: Arguments,
}

struct Outcome {
    code: u8,
    out: String,
    err: String,
}

fn run_with(arguments: &[&str], config: Option<&Path>, input: &[u8], terminal: bool) -> Outcome {
    let words = ["match"].into_iter().chain(arguments.iter().copied()).map(OsString::from);
    let parsed = <Parsed as clap::Parser>::try_parse_from(words).expect("arguments");
    let overrides = Overrides {
        config_path: config.map(Path::to_owned),
        environment: Environment::default(),
        ..Overrides::default()
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io {
        input: Box::new(input),
        out: Box::new(&mut out),
        err: Box::new(&mut err),
        err_is_terminal: terminal,
        out_is_terminal: false,
    };
    let code = run(&parsed.arguments, &overrides, &mut io);
    drop(io);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Outcome { code, out: text(out), err: text(err) }
}

fn run_on(arguments: &[&str], input: &[u8]) -> Outcome {
    run_with(arguments, None, input, false)
}

const A: &str = r#"{"type":"request","request":{"operation":"delete","path":"secret/a"},"auth":{"metadata":{"role":"r\u0001"}}}"#;
const B: &str = r#"  {"type":"response", "request":{"operation":"read","path":"secret/b"}}"#;

const DELETE: &str = r#"Request.Operation == "delete""#;
const READ: &str = r#"Request.Operation == "read""#;
const SECRET: &str = r#"Request.Path startsWith "secret/""#;
/// Fails on every record.
const FAILS: &str = "int(Request.Path) > 0";
const MISSPELT: &str = r#"Request.Operaton == "delete""#;

fn both() -> Vec<u8> {
    format!("{A}\n{B}\n").into_bytes()
}

#[test]
fn records_are_printed_as_they_came() {
    let outcome = run_on(&["--rule", DELETE], &both());
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, &*format!("{A}\n"), ""));
    let outcome = run_on(&["-r", READ, "-"], &both());
    assert_eq!((outcome.code, outcome.out), (0, format!("{B}\n")));
    let outcome = run_on(&["-r", READ, "-v"], &both());
    assert_eq!((outcome.code, outcome.out), (0, format!("{A}\n")));
    let outcome = run_on(&["-r", READ, "-r", DELETE], &both());
    assert_eq!(outcome.out.lines().count(), 2);
    let outcome = run_on(&["-r", "Type == 'other'"], &both());
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (1, "", ""));
    assert_eq!(run_on(&["-r", "true"], b"").code, 1);
}

#[test]
fn counts() {
    let outcome = run_on(&["-r", SECRET, "--count"], &both());
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "2\n"));
    let outcome = run_on(&["-r", "false", "-c"], &both());
    assert_eq!((outcome.code, outcome.out.as_str()), (1, "0\n"));
    let outcome =
        run_on(&["-r", SECRET, "-c", "--format", "json"], b"{}\nx\n{\"request\":{\"path\":\"secret/\"}}\n");
    let counts: serde_json::Value = serde_json::from_str(&outcome.out).expect("JSON");
    assert_eq!(counts, serde_json::json!({ "matched": 1, "records": 2, "bad_lines": 1, "rule_errors": 0 }));
}

#[test]
fn bad_lines_are_skipped_and_told_at_the_end() {
    let mut input = b"not json\n\n   \n[1]\n\xff\n".to_vec();
    input.extend(both());
    let outcome = run_on(&["-r", DELETE], &input);
    assert_eq!((outcome.code, outcome.out), (0, format!("{A}\n")));
    assert!(
        outcome.err.starts_with("3 lines skipped that hold no audit entry; the first: standard input:1: "),
        "{}",
        outcome.err
    );
    let outcome = run_on(&["-r", DELETE], b"x");
    assert!(outcome.code == 1 && outcome.err.starts_with("1 line skipped"), "{}", outcome.err);
}

#[test]
fn a_rule_that_fails_is_no_match_and_told_at_the_end() {
    let outcome = run_on(&["-r", FAILS, "-r", DELETE], &both());
    assert_eq!((outcome.code, outcome.out), (0, format!("{A}\n")));
    let wanted = "2 evaluations failed and counted as no match; the first: standard input:1: rule 1: \"secret/a\" is not an int\n";
    assert_eq!(outcome.err, wanted);
}

#[test]
fn rules_that_do_not_compile_are_all_told() {
    let outcome = run_on(&["-r", MISSPELT, "-r", DELETE, "-r", MISSPELT], &both());
    assert_eq!((outcome.code, outcome.out.as_str()), (2, ""));
    let line = format!("\n    1 | {MISSPELT}\n      |         ^^^^^^^^\n");
    assert!(outcome.err.starts_with("--rule 1: 1:9: ") && outcome.err.contains(&line), "{}", outcome.err);
    assert!(outcome.err.contains("--rule 3: "), "{}", outcome.err);
}

#[test]
fn files_gzip_and_what_cannot_be_read() {
    let scratch = Scratch::new("files");
    let plain = scratch.file("a.log", &both());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&both()).expect("memory");
    let zipped = scratch.file("b.log.gz", &encoder.finish().expect("memory"));
    let missing = scratch.0.join("missing.log").display().to_string();
    let outcome = run_on(&["-r", DELETE, "--format", "json", &plain, &zipped], b"");
    assert_eq!(outcome.code, 0);
    let lines: Vec<serde_json::Value> =
        outcome.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines[0]["file"].as_str(), lines[1]["file"].as_str()), (Some(&*plain), Some(&*zipped)));
    assert_eq!(lines[1]["line"], 1);
    assert_eq!(lines[1]["record"]["request"]["path"], "secret/a");
    assert!(outcome.out.contains(A), "the record stands there byte for byte");

    let outcome = run_on(&["-r", DELETE, &missing, &plain, &scratch.0.display().to_string()], b"");
    assert_eq!((outcome.code, outcome.out), (2, format!("{A}\n")), "the others are read all the same");
    assert!(outcome.err.contains(&missing) && outcome.err.lines().count() == 2, "{}", outcome.err);
    let cut = std::fs::read(&zipped).expect("readable");
    let damaged = scratch.file("c.log.gz", &cut[..cut.len() - 9]);
    let outcome = run_on(&["-r", DELETE, &damaged], b"");
    assert_eq!(outcome.code, 2, "{}", outcome.err);
}

#[test]
fn groups_of_a_configuration_and_why() {
    let scratch = Scratch::new("groups");
    let config = r#"
unmatched: rest
rule_groups:
  - name: deletes
    rules: ['Request.Operation == "delete"', 'Auth.Metadata["role"] startsWith "r"']
    log_file: { file_path: a }
  - { name: rest, rules: ['Type == "never"'], log_file: { file_path: b } }
  - { name: fails, rules: [int(Request.Path) > 0], log_file: { file_path: c } }
"#;
    let config = PathBuf::from(scratch.file("c.yaml", config.as_bytes()));
    let outcome = run_with(&["--explain"], Some(&config), &both(), false);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    // Between these lines stand the parts of each rule, indented further.
    let heads: Vec<&str> = outcome.out.lines().filter(|line| !line.starts_with("      ")).collect();
    let wanted = [
        A,
        r#"  standard input:1: group "deletes", rule 1 matches"#,
        r#"  standard input:1: group "deletes", rule 2 matches"#,
        r#"  standard input:1: group "rest", rule 1 does not match"#,
        r#"  standard input:1: group "fails", rule 1 failed: "secret/a" is not an int"#,
        B,
        r#"  standard input:2: group "deletes", rule 1 does not match"#,
        r#"  standard input:2: group "deletes", rule 2 does not match"#,
        r#"  standard input:2: group "rest", rule 1 does not match"#,
        r#"  standard input:2: group "fails", rule 1 failed: "secret/b" is not an int"#,
        r#"  standard input:2: group "rest" takes what no group matched"#,
    ];
    assert_eq!(heads, wanted, "{}", outcome.out);
    let why = |line: &str| {
        line.starts_with("      ") && line.contains("Request.Operation == ") && line.contains("\"read\"")
    };
    assert!(outcome.out.lines().any(why), "what the rule read: {}", outcome.out);
    assert!(!outcome.out.contains('\u{1}'), "no control character");

    let outcome =
        run_with(&["--explain", "--format", "json", "-g", "deletes"], Some(&config), &both(), false);
    let line: serde_json::Value = serde_json::from_str(outcome.out.trim()).expect("one line of JSON");
    assert_eq!(line["groups"], serde_json::json!(["deletes"]));
    assert!(line["rules"][0]["why"].to_string().contains("delete"), "{line}");
    assert_eq!(line["rules"][0]["expression"], r#"Request.Operation == "delete""#);
    assert_eq!(line["rules"][0]["matched"], true);
    let outcome = run_with(&["-v", "-g", "deletes"], Some(&config), &both(), false);
    assert_eq!(outcome.out, format!("{B}\n"));

    let text = "unmatched: rest\nrule_groups:\n  - { name: deletes, rules: ['Request.Operation == \"delete\"'], log_file: { file_path: a } }\n  - { name: rest, log_file: { file_path: b } }\n";
    let rest = PathBuf::from(scratch.file("rest.yaml", text.as_bytes()));
    let outcome = run_with(&["--format", "json"], Some(&rest), &both(), false);
    let groups: Vec<_> = outcome
        .out
        .lines()
        .map(|line| line.split("\"groups\":").nth(1).map(|l| l[..12].to_owned()))
        .collect();
    assert_eq!(
        groups,
        [Some("[\"deletes\"],".to_owned()), Some("[\"rest\"],\"re".to_owned())],
        "{}",
        outcome.out
    );

    let outcome = run_with(&["-g", "rest"], Some(&rest), &both(), false);
    assert_eq!(outcome.out, format!("{B}\n"), "not what another group took");

    let outcome = run_with(&["-g", "delets"], Some(&config), &both(), false);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("did you mean \"deletes\"?"), "{}", outcome.err);
    let empty = PathBuf::from(scratch.file("empty.yaml", b""));
    let outcome = run_with(&[], Some(&empty), &both(), false);
    assert!(outcome.code == 2 && outcome.err.contains("give --rule EXPR"), "{}", outcome.err);
    let wrong = PathBuf::from(scratch.file("wrong.yaml", b"colour: red\n"));
    let outcome = run_with(&[], Some(&wrong), &both(), false);
    assert!(outcome.code == 2 && outcome.err.contains("unknown key"), "{}", outcome.err);
}

#[test]
fn progress_is_for_terminals_and_long_runs() {
    let scratch = Scratch::new("progress");
    let file = scratch.file("a.log", &both());
    for terminal in [false, true] {
        let outcome = run_with(&["-r", DELETE, "-c", &file], None, b"", terminal);
        assert_eq!((outcome.out.as_str(), outcome.err.as_str()), ("1\n", ""), "too short to draw");
    }
    assert_eq!(total_bytes(&[PathBuf::from(&file)]), Some(both().len() as u64));
    assert_eq!(total_bytes(&[PathBuf::from(&file), PathBuf::from("-")]), None);
}

/// A standard output whose reader has gone, or whose disk is full.
struct Broken(io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
    for (kind, code, said) in [(io::ErrorKind::BrokenPipe, 0, false), (io::ErrorKind::StorageFull, 2, true)] {
        let parsed = <Parsed as clap::Parser>::try_parse_from(["match", "-r", DELETE]).expect("arguments");
        let mut err = Vec::new();
        let input = both();
        let mut io = Io {
            input: Box::new(&input[..]),
            out: Box::new(Broken(kind)),
            err: Box::new(&mut err),
            err_is_terminal: false,
            out_is_terminal: false,
        };
        assert_eq!(run(&parsed.arguments, &Overrides::default(), &mut io), code);
        drop(io);
        assert_eq!(!err.is_empty(), said, "{}", String::from_utf8_lossy(&err));
    }
}

/// Standard input that shows when it is waited for, and an output that notes when it is flushed.
#[derive(Clone, Default)]
struct Journal(std::rc::Rc<std::cell::RefCell<Vec<String>>>);

struct Waited<'a>(Vec<&'a [u8]>, Journal);

impl Read for Waited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.0.borrow_mut().push("read".into());
        if self.0.is_empty() {
            return Ok(0);
        }
        let part = self.0.remove(0);
        buffer[..part.len()].copy_from_slice(part);
        Ok(part.len())
    }
}

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().push("write".into());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().push("flush".into());
        Ok(())
    }
}

#[test]
fn what_matched_is_shown_before_the_next_line_is_waited_for() {
    let journal = Journal::default();
    let line = format!("{A}\n");
    let mut io = Io {
        input: Box::new(Waited(vec![line.as_bytes(), line.as_bytes()], journal.clone())),
        out: Box::new(journal.clone()),
        err: Box::new(io::sink()),
        err_is_terminal: false,
        out_is_terminal: false,
    };
    let parsed = <Parsed as clap::Parser>::try_parse_from(["match", "-r", DELETE]).expect("arguments");
    assert_eq!(run(&parsed.arguments, &Overrides::default(), &mut io), 0);
    drop(io);
    let events = journal.0.borrow().clone();
    let first_write = events.iter().position(|event| event == "write").expect("it was printed");
    let next_read =
        first_write + events[first_write..].iter().position(|event| event == "read").expect("it went on");
    assert!(events[first_write..next_read].contains(&"flush".to_owned()), "{events:?}");
}
