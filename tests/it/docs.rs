//! What README.md and the gate say, compared with what the program does.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use vault_audit_filter::metrics::{FAMILIES, Kind};

use crate::harness::{PROGRAM, Plan, clean_environment, entry, run_program};

pub(crate) fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The fenced blocks of README.md that are marked with `language`.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in file("README.md").lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.to_owned(), String::new())),
            (Some((info, text)), Some("")) => {
                if info == language {
                    blocks.push(std::mem::take(text));
                }
                open = None;
            }
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without end");
    blocks
}

pub(crate) fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(PROGRAM);
    clean_environment(command.args(arguments).arg("--help"));
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?} --help: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The commands that a help lists.
pub(crate) fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|command| command != "help")
        .collect()
}

/// The words of a text as a shell would see them, near enough for flags and names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "\"'`,;()[]{}=|<>".contains(c)).filter(|w| !w.is_empty())
}

/// The texts between back-ticks on lines outside of blocks.
fn code_spans() -> Vec<String> {
    let mut in_block = false;
    let mut spans = Vec::new();
    for line in file("README.md").lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

#[test]
fn the_table_of_metrics_in_the_readme_is_the_programs() {
    let rows: Vec<String> = file("README.md")
        .lines()
        .filter(|line| line.starts_with("| `vault_audit_filter_"))
        .map(str::to_owned)
        .collect();
    let wanted: Vec<String> = FAMILIES
        .iter()
        .map(|family| {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {kind} | {} | {} |", family.name, labels.join(", "), family.help)
        })
        .collect();
    let missing: Vec<&String> = wanted.iter().filter(|row| !rows.contains(row)).collect();
    let foreign: Vec<&String> = rows.iter().filter(|row| !wanted.contains(row)).collect();
    assert!(
        missing.is_empty() && foreign.is_empty(),
        "README.md lacks {missing:#?}\nand has {foreign:#?}\nwhere it should have\n{}",
        wanted.join("\n")
    );
    assert_eq!(rows, wanted, "in the order of the exposition");
}

#[test]
fn every_command_and_flag_of_the_readme_exists() {
    let top = help(&[]);
    let commands: BTreeSet<String> = commands(&top).into_iter().collect();
    assert!(commands.contains("serve") && commands.contains("match"), "the commands of {top}");
    let mut checked = 0;
    let shell: Vec<String> =
        blocks("sh").iter().flat_map(|b| b.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    for text in shell.iter().chain(&code_spans()) {
        // What follows a pipe or a comment belongs to another program.
        let Some((_, arguments)) = text.split('#').next().unwrap_or("").split_once("vault-audit-filter ")
        else {
            continue;
        };
        let arguments = arguments.split(" | ").next().unwrap_or("");
        let Some(command) = words(arguments).find(|word| word.chars().all(|c| c.is_ascii_lowercase())) else {
            continue;
        };
        assert!(commands.contains(command), "README.md names the command {command:?}: {text}");
        let help = help(&[command]);
        for flag in words(arguments).filter(|word| word.starts_with("--")) {
            let known = words(&help).chain(words(&top)).any(|word| word == flag);
            assert!(known, "README.md names the flag {flag:?} of {command:?}: {text}\n{help}");
            checked += 1;
        }
    }
    assert!(checked >= 5, "only {checked} flags were found in README.md");
}

#[test]
fn every_configuration_in_the_readme_is_accepted() {
    let blocks = blocks("yaml");
    assert!(blocks.len() >= 4, "{} examples", blocks.len());
    for block in blocks {
        let plan = Plan::new(&block);
        // Secrets that the examples read from files.
        for name in ["slack-hook", "tokens", "chat-token"] {
            std::fs::write(plan.path(name), "https://chat.example.com/hooks/x\n").expect("a secret");
        }
        let pair = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/listener");
        for (from, to) in [("first.pem", "tls.pem"), ("first.key", "tls.key")] {
            std::fs::copy(pair.join(from), plan.path(to)).expect("a pair");
        }
        std::fs::create_dir(plan.path("testdata")).expect("a directory");
        let quiet = std::fs::File::create(plan.path("testdata/quiet.jsonl.gz")).expect("a file of records");
        let mut quiet = flate2::write::GzEncoder::new(quiet, flate2::Compression::fast());
        quiet.write_all(entry("1", "read", "secret/data/a").as_bytes()).expect("written");
        quiet.finish().expect("written");
        let directory = plan.path("").display().to_string();
        let checked = plan.env("CREDENTIALS_DIRECTORY", directory).run(&["check", "--tests"]);
        assert!(checked.status.success(), "{}{}\n{block}", checked.stdout, checked.stderr);
    }
}

#[test]
fn every_field_named_in_the_readme_can_be_used_in_a_rule() {
    let mut checked = 0;
    for span in code_spans() {
        let is_field = ["Request.", "Response.", "Auth."].iter().any(|start| span.starts_with(start))
            || ["Type", "Time", "Error"].contains(&span.as_str());
        if is_field {
            let tried = run_program(&["match", "--rule", &format!("type({span}) != \"\"")], b"");
            assert_eq!(tried.status.code(), Some(1), "README.md names {span}: {}", tried.stderr);
            checked += 1;
        }
    }
    assert!(checked >= 10, "only {checked} fields were found in README.md");
}

#[test]
fn every_key_named_in_the_readme_exists() {
    let example: serde_yaml::Value = serde_yaml::from_str(&file("config/example.yaml")).expect("YAML");
    // Keys that stand in the example as comments only.
    let commented = file("config/example.yaml");
    let tops = [
        "vault",
        "async",
        "listen",
        "control",
        "limits",
        "quarantine",
        "dedupe",
        "pairs",
        "shutdown",
        "log_file",
        "forwarding",
        "messaging",
    ];
    let group = &example["rule_groups"][0];
    let mut checked = 0;
    for span in code_spans() {
        let parts: Vec<&str> = span.split('.').collect();
        let is_key = parts.len() >= 2
            && tops.contains(&parts[0])
            && span != "quarantine.log"
            && parts.iter().all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        if !is_key {
            continue;
        }
        let root = if example.get(parts[0]).is_some() { &example } else { group };
        let found = parts.iter().try_fold(root, |at, part| at.get(*part)).is_some();
        let last = parts[parts.len() - 1];
        assert!(found || commented.contains(&format!("# {last}: ")), "README.md names the key {span}");
        checked += 1;
    }
    assert!(checked >= 10, "only {checked} keys were found in README.md");
}

#[test]
fn the_gate_runs_what_the_readme_tells_to_run() {
    let commands = blocks("sh");
    let first = commands[0].lines().next().unwrap_or("");
    assert_eq!(first, "cargo run --release -- serve --config config/quickstart.yaml");
    let second = commands.iter().position(|block| block.trim() == "tests/run");
    assert!(second.is_some(), "the second command is tests/run");
    let gate = file(".ci/run");
    for run in ["readme_block 1", "readme_block 2", "tests/run"] {
        assert!(
            gate.lines().any(|line| line.contains(run) && !line.trim_start().starts_with('#')),
            "{run} in .ci/run"
        );
    }
    assert!(commands[1].contains("curl "), "the second block sends a record: {}", commands[1]);
}

#[test]
fn files_named_in_the_readme_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for span in code_spans() {
        let is_file =
            ["config/", "systemd/", "tests/", "benches/", "src/"].iter().any(|dir| span.starts_with(dir));
        if is_file {
            let name = span.split_whitespace().next().unwrap_or("");
            assert!(root.join(name).exists(), "README.md names {span}");
        }
    }
}

#[test]
fn the_unit_names_the_program_and_stops_later_than_the_drain() {
    let unit = file("systemd/vault-audit-filter.service");
    let value = |key: &str| {
        unit.lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(value("ExecStart")[0].contains("vault-audit-filter serve "));
    assert!(value("ExecStartPre")[0].contains("vault-audit-filter check "));
    assert_eq!(value("Type"), ["notify"]);
    let stop: u64 = value("TimeoutStopSec")[0].parse().expect("seconds");
    let drain = vault_audit_filter::config::Config::default().drain_timeout.as_secs();
    assert!(stop > drain, "{stop} s to stop, {drain} s to drain");
}
