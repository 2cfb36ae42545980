//! `check`: what is wrong with the configuration, all of it.

use clap::Args;

use super::{FAILED, Io, OK, say_problems, say_warnings, trials};
use crate::config::Overrides;

pub(super) const EXAMPLES: &str = "\
Examples:
  The file that the server would use:
      vault-audit-filter check
  A file before it is installed:
      vault-audit-filter check --config new.yaml && install -m 640 new.yaml /etc/vault-audit-filter/config.yaml
  With the tests that stand in it:
      vault-audit-filter check --tests

Each problem is one line: file:line: key: what is wrong; what to write instead.
Warnings are things that are odd and work. Nothing is opened, bound or written.
Exit code: 0 when the server would start with it (and with --tests all of its tests pass), 1 when not.";

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Run the tests of the configuration, too
    #[arg(long)]
    tests: bool,
}

/// Loads everything as `serve` would and tells what is wrong.
pub(super) fn run(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let checked = match super::load(overrides) {
        Ok(checked) => checked,
        Err(problems) => {
            say_problems(&problems, io);
            return FAILED;
        }
    };
    let loaded = checked.loaded.clone();
    say_warnings(&loaded.warnings, io);
    if arguments.tests {
        let outcomes = trials::outcomes(checked);
        let failures = trials::failures(&outcomes);
        if !failures.is_empty() {
            failures.iter().for_each(|failure| io.say(failure));
            return FAILED;
        }
    }
    let config = &loaded.config;
    let rules: usize = config.rule_groups.iter().map(|group| group.rules.len()).sum();
    let (groups, tests) = (config.rule_groups.len(), config.tests.len());
    let summary = format!(
        "{}: no problems ({}, {}, {})\n",
        loaded.source(),
        counted(groups, "rule group"),
        counted(rules, "rule"),
        counted(tests, "test") + if arguments.tests { " passed" } else { "" }
    );
    match io.print(&summary) {
        OK => OK,
        _ => FAILED,
    }
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
