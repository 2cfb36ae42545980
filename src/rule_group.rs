//! Rule groups: rules and actions under one name.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{self, Checks, Loaded, Overrides, Problems};
use crate::evidence::Identity;
use crate::log_file::LogFile;
use crate::metrics::Counter;
use crate::record::{Decoder, FieldPlan, Record};
use crate::rules::{EvalScratch, Limits, Rule};
use crate::side_effect::SinkQueue;

/// One rule of a group with the counter of its run-time errors.
#[derive(Debug)]
pub struct GroupRule {
    rule: Rule,
    errors: Arc<Counter>,
    /// The first error was said; further ones are only counted.
    said: AtomicBool,
    matched: AtomicBool,
}

impl GroupRule {
    /// A compiled rule; `errors` counts its run-time errors.
    pub fn new(rule: Rule, errors: Arc<Counter>) -> Self {
        GroupRule { rule, errors, said: AtomicBool::new(false), matched: AtomicBool::new(false) }
    }

    /// The compiled rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Run-time errors so far.
    pub fn errors(&self) -> u64 {
        self.errors.get()
    }

    /// Whether it has made its group match since this configuration came into use. A group goes no further than its first rule that
    /// matches.
    pub fn has_matched(&self) -> bool {
        self.matched.load(Ordering::Relaxed)
    }

    /// Written once: what every thread reads stays in every thread's cache.
    fn note_match(&self) {
        if !self.has_matched() {
            self.matched.store(true, Ordering::Relaxed);
        }
    }
}

/// Rules and actions under one name. Immutable after start; shared by all threads that evaluate.
#[derive(Debug)]
pub struct RuleGroup {
    /// The name, unique among the groups.
    pub name: Arc<str>,
    /// None: every record matches.
    pub rules: Vec<GroupRule>,
    /// Where matching records are written.
    pub log_file: Option<Arc<LogFile>>,
    /// Whom matching records are sent to.
    pub sinks: Vec<Arc<SinkQueue>>,
    /// Records matched.
    pub matches: Arc<Counter>,
}

impl RuleGroup {
    /// Whether one of the rules yields true for the record; a group without rules matches every record. A run-time
    /// error is no match for that rule: it is counted, said once, and the other rules go on.
    pub fn matches(&self, record: &Record<'_>, scratch: &mut EvalScratch) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        self.first_match(0..self.rules.len(), record, scratch).is_some()
    }

    /// The number of the first rule among `candidates` that yields true. A run-time error is no match for that rule, as in
    /// [`RuleGroup::matches`]. `candidates` are numbers of rules, evaluated in their order until one matches.
    pub fn first_match(
        &self,
        candidates: impl IntoIterator<Item = usize>,
        record: &Record<'_>,
        scratch: &mut EvalScratch,
    ) -> Option<usize> {
        candidates.into_iter().find(|number| {
            let Some(rule) = self.rules.get(*number) else { return false };
            let matched = rule.rule.matches(record, scratch).unwrap_or_else(|error| {
                self.count_error(*number, rule, error.kind.as_str());
                false
            });
            if matched {
                rule.note_match();
            }
            matched
        })
    }

    /// Only the kind of the error is said: its message may hold values of the record.
    #[cold]
    fn count_error(&self, index: usize, rule: &GroupRule, kind: &str) {
        rule.errors.inc();
        if !rule.said.swap(true, Ordering::Relaxed) {
            log::warn!(
                "group {:?}, rule {} failed on a record ({kind}) and counts as not matching; further errors of it are only counted; \
                 `vault-audit-filter match --explain` shows where it fails",
                self.name,
                index + 1,
            );
        }
    }
}

/// The rules of all groups, compiled together so that one decoder extracts what any of them reads.
#[derive(Debug)]
pub struct Compiled {
    /// Extracts the fields that the rules name.
    pub decoder: Decoder,
    /// The rules by group, in the order of the configuration.
    pub rules: Vec<Vec<Rule>>,
    /// The fields that evidence needs, where the configuration asks for some.
    pub identity: Option<Identity>,
}

/// A configuration that was read and checked, with its rules: compiling them is how they are checked.
#[derive(Debug)]
pub struct Checked {
    /// The settings, and where they came from.
    pub loaded: Loaded,
    /// The rules of its groups.
    pub compiled: Compiled,
}

/// Reads a configuration and checks all of it, as [`config::load_checked`] does. `template` tries a message template.
///
/// # Errors
/// Everything that is wrong, in the order of the file; a rule that does not compile with its group, number and place.
pub fn load(
    overrides: &Overrides,
    template: &dyn Fn(&str) -> Result<(), String>,
) -> Result<Checked, Problems> {
    let limits = Limits::default();
    let compiled = RefCell::new((FieldPlan::new(), Vec::new()));
    let compile = |text: &str| {
        let (plan, rules) = &mut *compiled.borrow_mut();
        rules.push(Rule::compile(text, plan, &limits).map_err(|error| error.render(text))?);
        Ok(())
    };
    let loaded = config::load_checked(overrides, Checks { rule: &compile, template })?;
    let (mut plan, rules) = compiled.into_inner();
    // Without a problem every rule of every group was tried once, in the order of the file.
    let mut rules = rules.into_iter();
    let of_group = |group: &config::RuleGroup| rules.by_ref().take(group.rules.len()).collect();
    let rules = loaded.config.rule_groups.iter().map(of_group).collect();
    let identity = Identity::wanted(&loaded.config, &mut plan);
    Ok(Checked { loaded, compiled: Compiled { decoder: plan.build(), rules, identity } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(name: &str, text: &str) -> Result<Checked, Problems> {
        let path = std::env::temp_dir().join(format!("vaf-rule-group-{name}-{}.yaml", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        let overrides = Overrides { config_path: Some(path.clone()), ..Overrides::default() };
        let checked = load(&overrides, &|_| Ok(()));
        let _ = std::fs::remove_file(&path);
        checked
    }

    #[test]
    fn every_group_gets_the_rules_that_stand_in_it() {
        let text = "
rule_groups:
  - { name: a, rules: ['true', 'Type == \"x\"'], log_file: { file_path: a } }
  - { name: none, log_file: { file_path: b } }
  - { name: b, rules: ['Type == \"x\"', 'Request.Path == \"y\"', 'true'], log_file: { file_path: c } }
";
        let checked = load_text("right", text).expect("right");
        let groups = &checked.loaded.config.rule_groups;
        assert_eq!(groups.len(), checked.compiled.rules.len());
        for (group, rules) in groups.iter().zip(&checked.compiled.rules) {
            let texts: Vec<&str> = group.rules.iter().map(|rule| rule.text.as_str()).collect();
            let sources: Vec<&str> = rules.iter().map(Rule::source).collect();
            assert_eq!(texts, sources, "{}", group.name);
        }
        assert_eq!(checked.compiled.rules.iter().map(Vec::len).sum::<usize>(), 5);
    }

    #[test]
    fn rules_that_do_not_compile_are_told_with_everything_else() {
        let text = "colour: red\nrule_groups:\n  - { name: a, rules: ['true', Typ, '1 +'], log_file: { file_path: a } }\n";
        let problems = load_text("wrong", text).expect_err("three problems");
        let shown = problems.to_string();
        assert_eq!(problems.len(), 3, "{shown}");
        for part in ["colour", "group \"a\", rule 2: 1:1: ", "group \"a\", rule 3: "] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
