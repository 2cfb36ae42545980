//! `test`, and `check --tests`: the tests of the configuration, records that must reach certain groups and make certain messages.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::matching::input::Lines;
use super::matching::judge::{FindingKind, Judge, Verdict};
use super::matching::output::finding_name;
use super::{FAILED, Io, OK, WRONG, say_problems, say_warnings};
use crate::clock;
use crate::config::{Config, Messaging, Overrides, Test, TestInput};
use crate::rule_group::Checked;
use crate::side_effect::Task;
use crate::sink;
use crate::text::printable;

pub(super) const EXAMPLES: &str = "\
Examples:
  All tests of a configuration, in TAP, which most CI systems read:
      vault-audit-filter test --config new.yaml
  As JSON, only the names of those that failed:
      vault-audit-filter test --config new.yaml --format json | jq -r '.tests[] | select(.ok | not) | .name'
  A test in the configuration:
      tests:
        - name: deletions are told
          record: { type: request, request: { operation: delete, path: secret/data/a } }
          groups: [deletions]
          messages: [ { group: deletions, text: \"somebody deletes secret/data/a\" } ]
        - name: nothing of a quiet day
          records_file: testdata/quiet.jsonl.gz
          groups: []

A record must reach exactly these groups, the one of `unmatched` included. With `records_file` (one audit entry a line, gzip or
not) that holds for each of its records. Messages are compared as the group would send them, but for newlines at the end.
Nothing is written to log files, forwarded or sent.
Exit code: 0 all passed, 1 some failed, 2 the configuration is wrong.";

/// Problems of one test that are told; the rest is counted.
const PROBLEMS_MAX: usize = 10;

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to print: the Test Anything Protocol, or JSON
    #[arg(long, value_name = "FORMAT", default_value = "tap")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Tap,
    Json,
}

/// What became of one test.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Outcome {
    name: String,
    /// File and line of the test.
    place: String,
    ok: bool,
    /// How many records were tried.
    records: u64,
    /// What is not as it must be, each with the record's place where there is more than one.
    problems: Vec<String>,
}

/// Runs the tests and prints what became of them.
pub(super) fn run(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let checked = match super::load(overrides) {
        Ok(checked) => checked,
        Err(problems) => {
            say_problems(&problems, io);
            return WRONG;
        }
    };
    say_warnings(&checked.loaded.warnings, io);
    let outcomes = outcomes(checked);
    let text = match arguments.format {
        Format::Tap => tap(&outcomes),
        Format::Json => json(&outcomes),
    };
    if io.print(&text) != OK {
        return WRONG;
    }
    if outcomes.iter().all(|outcome| outcome.ok) { OK } else { FAILED }
}

/// Runs all tests of a configuration, in their order.
pub(super) fn outcomes(checked: Checked) -> Vec<Outcome> {
    let config = checked.loaded.config.clone();
    let file = checked.loaded.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let mut judge = Judge::of_groups(checked, &[], false);
    judge.set_now(clock::wall());
    let mut trial = Trial { judge, config: &config, verdict: Verdict::default() };
    config.tests.iter().map(|test| trial.outcome(test, &file)).collect()
}

/// Those that failed, for people.
pub(super) fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let failed = outcomes.iter().filter(|outcome| !outcome.ok);
    failed
        .flat_map(|outcome| {
            let line = |problem: &String| format!("{}: test {:?}: {problem}", outcome.place, outcome.name);
            outcome.problems.iter().map(line).collect::<Vec<_>>()
        })
        .map(|line| printable(&line))
        .collect()
}

/// What is tried with each test.
struct Trial<'c> {
    judge: Judge,
    config: &'c Config,
    verdict: Verdict,
}

impl Trial<'_> {
    fn outcome(&mut self, test: &Test, file: &str) -> Outcome {
        let mut problems = Problems::default();
        let records = match &test.input {
            TestInput::Record(record) => {
                self.record(test, record.as_bytes(), "", &mut problems);
                1
            }
            TestInput::File(path) => match self.file(test, path, &mut problems) {
                Ok(0) => {
                    problems.add(|| format!("{}: there is no record in it", path.display()));
                    0
                }
                Ok(records) => records,
                Err(e) => {
                    problems.add(|| format!("{}: {e}", path.display()));
                    0
                }
            },
        };
        let Problems { mut told, more } = problems;
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        let place = if test.line > 0 { format!("{file}:{}", test.line) } else { file.to_owned() };
        Outcome { name: test.name.clone(), place, ok: told.is_empty(), records, problems: told }
    }

    fn file(&mut self, test: &Test, path: &Path, problems: &mut Problems) -> std::io::Result<u64> {
        let bytes_max = self.config.limits.record_bytes_max;
        let mut lines = Lines::open(path, bytes_max, Rc::default())?;
        let mut records = 0;
        loop {
            while let Some(line) = lines.next() {
                let place = format!("{}:{}: ", path.display(), line.number);
                match line.bytes {
                    None => {
                        problems.add(|| {
                            format!("{place}longer than limits.record_bytes_max ({bytes_max} bytes)")
                        });
                    }
                    Some(bytes) if bytes.trim_ascii().is_empty() => {}
                    Some(bytes) => {
                        records += 1;
                        self.record(test, bytes, &place, problems);
                    }
                }
            }
            if lines.is_over() {
                return Ok(records);
            }
            lines.read()?;
        }
    }

    /// Compares what the groups make of a record with what they must.
    fn record(&mut self, test: &Test, record: &[u8], place: &str, problems: &mut Problems) {
        if let Err(e) = self.judge.judge(record, &mut self.verdict) {
            return problems.add(|| format!("{place}this is no audit entry: {e}"));
        }
        let reached: Vec<&str> =
            self.verdict.groups.iter().filter_map(|group| self.judge.group_name(*group)).collect();
        let missing: Vec<&str> =
            test.groups.iter().map(String::as_str).filter(|g| !reached.contains(g)).collect();
        let foreign: Vec<&str> =
            reached.iter().copied().filter(|g| !test.groups.iter().any(|w| w == g)).collect();
        if !missing.is_empty() || !foreign.is_empty() {
            problems.add(|| {
                let but = |what: &str, names: &[&str]| {
                    if names.is_empty() { String::new() } else { format!("; {what} {}", names.join(", ")) }
                };
                let reached = if reached.is_empty() { "no group".to_owned() } else { reached.join(", ") };
                let (not, too) = (but("not", &missing), but("and should not reach", &foreign));
                format!("{place}the record reaches {reached}{not}{too}{}", self.rule_errors())
            });
        }
        for (group, text) in &test.messages {
            if let Some(problem) = self.message(group, text, record) {
                problems.add(|| format!("{place}{problem}"));
            }
        }
    }

    /// Rules that failed at run time may be why.
    fn rule_errors(&self) -> String {
        let failed = self.verdict.findings.iter().filter_map(|finding| match &finding.kind {
            FindingKind::Rule { outcome: Err(error), .. } => {
                Some(format!("; {} failed: {error}", finding_name(finding, &self.judge)))
            }
            _ => None,
        });
        failed.collect()
    }

    fn message(&self, group: &str, wanted: &str, record: &[u8]) -> Option<String> {
        let group = self.config.rule_groups.iter().find(|known| known.name == group)?;
        let messaging: &Messaging = group.messaging.as_ref()?;
        let record: Arc<[u8]> = Arc::from(record.trim_ascii());
        let task = Task::new(group.name.as_str().into(), record, "http", clock::wall());
        let text = match sink::message_text(messaging, &task) {
            Ok(text) => text,
            Err(e) => return Some(format!("group {:?}: {e}", group.name)),
        };
        let (sent, wanted) = (text.trim_end_matches('\n'), wanted.trim_end_matches('\n'));
        (sent != wanted).then(|| format!("group {:?} sends {sent:?}, wanted {wanted:?}", group.name))
    }
}

/// What is wrong in one test, up to a bound.
#[derive(Default)]
struct Problems {
    told: Vec<String>,
    more: u64,
}

impl Problems {
    fn add(&mut self, problem: impl FnOnce() -> String) {
        if self.told.len() < PROBLEMS_MAX {
            self.told.push(problem());
        } else {
            self.more += 1;
        }
    }
}

/// TAP version 14 (<https://testanything.org/tap-version-14-specification.html>). The YAML below a failed test is made of JSON strings.
fn tap(outcomes: &[Outcome]) -> String {
    let mut out = format!("TAP version 14\n1..{}", outcomes.len());
    out += if outcomes.is_empty() { " # SKIP the configuration has no tests\n" } else { "\n" };
    let quoted = |text: &str| serde_json::Value::from(printable(text)).to_string();
    for (number, outcome) in (1..).zip(outcomes) {
        // A backslash and a hash have a meaning of their own there.
        let name = printable(&outcome.name).replace('\\', "\\\\").replace('#', "\\#");
        out += &format!("{}ok {number} - {name}\n", if outcome.ok { "" } else { "not " });
        if !outcome.ok {
            out += &format!("  ---\n  at: {}\n  problems:\n", quoted(&outcome.place));
            outcome.problems.iter().for_each(|problem| out += &format!("    - {}\n", quoted(problem)));
            out += "  ...\n";
        }
    }
    out
}

fn json(outcomes: &[Outcome]) -> String {
    let passed = outcomes.iter().filter(|outcome| outcome.ok).count();
    let all = serde_json::json!({ "passed": passed, "failed": outcomes.len() - passed, "tests": outcomes });
    all.to_string() + "\n"
}
