//! Rule groups: rules and actions under one name.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{self, Loaded, Problems};
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
}

impl GroupRule {
    /// A compiled rule; `errors` counts its run-time errors.
    pub fn new(rule: Rule, errors: Arc<Counter>) -> Self {
        GroupRule { rule, errors, said: AtomicBool::new(false) }
    }

    /// The compiled rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Run-time errors so far.
    pub fn errors(&self) -> u64 {
        self.errors.get()
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
            rule.rule.matches(record, scratch).unwrap_or_else(|error| {
                self.count_error(*number, rule, error.kind.as_str());
                false
            })
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
}

/// Compiles every rule of the configuration.
///
/// # Errors
/// Every rule that does not compile, with file, line, group, number and the place in the rule.
pub fn compile(loaded: &Loaded) -> Result<Compiled, Problems> {
    let plan = RefCell::new(FieldPlan::new());
    let compiled = RefCell::new(Vec::new());
    let limits = Limits::default();
    let problems = config::check_rules(loaded, &|text| {
        let rule = Rule::compile(text, &mut plan.borrow_mut(), &limits).map_err(|e| e.render(text))?;
        compiled.borrow_mut().push(rule);
        Ok(())
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut all = compiled.into_inner().into_iter();
    let rules = loaded
        .config
        .rule_groups
        .iter()
        .map(|group| all.by_ref().take(group.rules.len()).collect())
        .collect();
    Ok(Compiled { decoder: plan.into_inner().build(), rules })
}
