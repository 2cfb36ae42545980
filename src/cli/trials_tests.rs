//! `test` and `check --tests`, within the process.

use std::io::Write as _;
use std::path::PathBuf;

use super::tests::{Outcome, run_in};

/// A configuration in a directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("vaf-trials-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Scratch(path)
    }

    fn run(&self, yaml: &str, arguments: &[&str]) -> Outcome {
        let config = self.0.join("c.yaml");
        let yaml = yaml.replace("{dir}", &self.0.display().to_string());
        std::fs::write(&config, yaml).expect("written");
        let config = config.display().to_string();
        run_in(&[arguments, &["--config", &config]].concat(), &[])
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const GROUPS: &str = r#"
rule_groups:
  - name: deletions
    rules: ['Request.Operation == "delete"', 'record.request.data.n / 1 > 5']
    messaging: { type: slack_webhook, webhook_url: "http://127.0.0.1:1/x", template: "{{ Request.Path }} is *gone*" }
  - name: raw
    rules: ['Request.Path == "raw"']
    messaging: { type: webhook, webhook_url: "http://127.0.0.1:1/x", format: raw }
  - { name: rest, log_file: { file_path: "{dir}/rest.log" } }
unmatched: rest
tests:
"#;

#[test]
fn tests_that_pass_say_so_and_nothing_is_done() {
    let scratch = Scratch::new("pass");
    let zipped = std::fs::File::create(scratch.0.join("many.jsonl.gz")).expect("a file");
    let mut zipped = flate2::write::GzEncoder::new(zipped, flate2::Compression::fast());
    zipped
        .write_all(b"{\"request\":{\"operation\":\"read\"}}\n\n{\"request\":{\"operation\":\"list\"}}\n")
        .expect("written");
    zipped.finish().expect("written");
    let yaml = GROUPS.to_owned()
        + r#"
  - name: 'a delete # is told'
    record: { request: { operation: delete, path: "a<b" } }
    groups: [deletions]
    messages:
      - group: deletions
        text: |
          a&lt;b is *gone*
  - name: as it came
    record: '{"request": {"path":"raw"}}'
    groups: [raw]
    messages: [ { group: raw, text: '{"request": {"path":"raw"}}' } ]
  - { name: the rest, records_file: "{dir}/many.jsonl.gz", groups: [rest] }
"#;
    let outcome = scratch.run(&yaml, &["test"]);
    assert_eq!(
        (outcome.code, outcome.out.as_str(), outcome.err.as_str()),
        (0, "TAP version 14\n1..3\nok 1 - a delete \\# is told\nok 2 - as it came\nok 3 - the rest\n", "")
    );
    let outcome = scratch.run(&yaml, &["test", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&outcome.out).expect("JSON");
    assert_eq!((outcome.code, &json["passed"], &json["failed"]), (0, &3.into(), &0.into()));
    assert_eq!((&json["tests"][2]["records"], &json["tests"][2]["ok"]), (&2.into(), &true.into()));
    let outcome = scratch.run(&yaml, &["check", "--tests"]);
    assert!(
        outcome.code == 0 && outcome.out.ends_with("3 tests passed)\n"),
        "{} {}",
        outcome.out,
        outcome.err
    );
    assert!(!scratch.0.join("rest.log").exists(), "nothing is written");
}

#[test]
fn tests_that_fail_say_where_and_why() {
    let scratch = Scratch::new("fail");
    let lines =
        "{\"request\":{\"operation\":\"delete\"}}\n{\"request\":{\"operation\":\"read\"}}\nnone\n".to_owned();
    std::fs::write(scratch.0.join("mixed.jsonl"), lines + &"x\n".repeat(20)).expect("written");
    std::fs::write(scratch.0.join("empty.jsonl"), "\n").expect("written");
    let yaml = GROUPS.to_owned()
        + r#"
  - name: wrong groups
    record: { request: { operation: read, data: { n: "\u001b[2J" } } }
    groups: [deletions]
    messages: [ { group: deletions, text: "b is *gone*" } ]
  - { name: mixed, records_file: "{dir}/mixed.jsonl", groups: [deletions] }
  - { name: missing, records_file: "{dir}/missing.jsonl", groups: [] }
  - { name: empty, records_file: "{dir}/empty.jsonl", groups: [] }
  - { name: right, record: {}, groups: [rest] }
"#;
    let outcome = scratch.run(&yaml, &["test"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (1, ""));
    let out = &outcome.out;
    for part in [
        "1..5\nnot ok 1 - wrong groups\n  ---\n  at: \"",
        "c.yaml:",
        "the record reaches rest; not deletions; and should not reach rest; group \\\"deletions\\\", rule 2 failed: ",
        "sends \\\" is *gone*\\\", wanted \\\"b is *gone*\\\"",
        "mixed.jsonl:2: the record reaches rest; not deletions",
        "mixed.jsonl:3: this is no audit entry",
        "    - \"and 12 more\"\n  ...\n",
        "missing.jsonl: No such file",
        "empty.jsonl: there is no record in it",
        "ok 5 - right\n",
    ] {
        assert!(out.contains(part), "{part:?} in\n{out}");
    }
    assert!(!out.contains('\u{1b}') && !out.contains("mixed.jsonl:1:"), "{out}");
    // What is below a failed test is YAML.
    let yaml_block: String = out
        .lines()
        .skip_while(|line| *line != "  ---")
        .skip(1)
        .take_while(|line| *line != "  ...")
        .map(|line| line.to_owned() + "\n")
        .collect();
    let block: serde_yaml::Value = serde_yaml::from_str(&yaml_block).expect("YAML");
    assert_eq!(block["problems"].as_sequence().map(Vec::len), Some(2));
    let checked = scratch.run(&yaml, &["check", "--tests"]);
    assert_eq!((checked.code, checked.out.as_str()), (1, ""));
    assert!(checked.err.contains("test \"mixed\": "), "{}", checked.err);
    assert_eq!(scratch.run(&yaml, &["check"]).code, 0, "the configuration is right");
}

#[test]
fn no_tests_are_told_and_a_wrong_configuration_is_none() {
    let scratch = Scratch::new("none");
    let outcome = scratch.run(GROUPS, &["test"]);
    assert_eq!(
        (outcome.code, outcome.out.as_str()),
        (0, "TAP version 14\n1..0 # SKIP the configuration has no tests\n")
    );
    let outcome = scratch.run("rule_groups: [{ name: a, rules: ['1 +'] }]", &["test"]);
    assert!(outcome.code == 2 && outcome.out.is_empty() && outcome.err.contains("rule 1"), "{}", outcome.err);
}
