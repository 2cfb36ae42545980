//! Rules and groups over one record after the other, without any action.

use super::fields::{self, ReadField};
use crate::config::RuleGroup;
use crate::record::{DecodeScratch, Decoder, FieldPlan, Record, Slot, SlotId};

/// One compiled rule.
pub(in crate::cli) trait Predicate {
    /// Whether the rule is true for the record; an error says why it could not be told.
    fn matches(&mut self, record: &Record<'_>) -> Result<bool, String>;
}

/// Compiles a rule against the fields of `plan`, which it adds to; an error is rendered with its place.
pub(in crate::cli) type Compile<'c> = &'c dyn Fn(&str, &mut FieldPlan) -> Result<Box<dyn Predicate>, String>;

/// A rule with its text and, for explaining, what it reads.
struct JudgeRule {
    text: String,
    predicate: Box<dyn Predicate>,
    reads: Vec<(ReadField, SlotId)>,
}

/// Rules under a name; without a name, the rules of the command line.
struct JudgeGroup {
    name: Option<String>,
    rules: Vec<JudgeRule>,
    /// Somebody asked for it; the others are looked at only to know what they leave to the fallback.
    wanted: bool,
}

/// Judges records by groups.
pub(super) struct Judge {
    groups: Vec<JudgeGroup>,
    fallback: Option<String>,
    decoder: Decoder,
    scratch: DecodeScratch,
    /// Look at every rule of every group, and at what each reads.
    explain: bool,
}

/// What a rule made of a record.
#[derive(Debug, PartialEq)]
pub(super) struct Finding {
    /// Name of the group; `None` for rules of the command line.
    pub(super) group: Option<String>,
    /// Number of the rule in its group, from 1; 0: the group has no rules, or is the fallback.
    pub(super) rule: usize,
    /// Text of the rule.
    pub(super) text: String,
    /// The outcome, or why there is none.
    pub(super) outcome: Result<bool, String>,
    /// What it read: the field as written, and its value as JSON; for explaining.
    pub(super) read: Vec<(String, String)>,
}

/// What the groups made of a record.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// Whether a group matched by its rules, or took the record as the fallback.
    pub(super) matched: bool,
    /// Names of the groups that matched.
    pub(super) groups: Vec<String>,
    /// Rules that failed and, when explaining, every rule; otherwise the rules that were true.
    pub(super) findings: Vec<Finding>,
}

impl Judge {
    /// Compiles rules of the command line. Each error is rendered with the rule's number.
    pub(super) fn of_rules(
        rules: &[String],
        explain: bool,
        compile: Compile<'_>,
    ) -> Result<Self, Vec<String>> {
        let mut plan = FieldPlan::new();
        let (mut compiled, mut errors) = (Vec::new(), Vec::new());
        for (i, text) in rules.iter().enumerate() {
            match judge_rule(text, explain, &mut plan, compile) {
                Ok(rule) => compiled.push(rule),
                Err(error) => errors.push(format!("--rule {}: {}", i + 1, error.replace('\n', "\n    "))),
            }
        }
        let groups = vec![JudgeGroup { name: None, rules: compiled, wanted: true }];
        if errors.is_empty() { Ok(Judge::new(groups, None, &plan, explain)) } else { Err(errors) }
    }

    /// Compiles the rules of a configuration that was checked. `only` names the groups to look at; empty for all.
    pub(super) fn of_groups(
        groups: &[RuleGroup],
        unmatched: Option<&str>,
        only: &[String],
        explain: bool,
        compile: Compile<'_>,
    ) -> Result<Self, Vec<String>> {
        let mut plan = FieldPlan::new();
        let mut compiled = Vec::new();
        let wanted = |name: &str| only.is_empty() || only.iter().any(|known| known == name);
        let fallback = unmatched.filter(|name| wanted(name));
        for group in groups {
            let wanted = wanted(&group.name);
            if !wanted && fallback.is_none() {
                continue;
            }
            let rules = group.rules.iter().map(|rule| judge_rule(&rule.text, explain, &mut plan, compile));
            let rules = rules
                .collect::<Result<_, _>>()
                .map_err(|error| vec![format!("group {:?}: {error}", group.name)])?;
            compiled.push(JudgeGroup { name: Some(group.name.clone()), rules, wanted });
        }
        Ok(Judge::new(compiled, fallback.map(str::to_owned), &plan, explain))
    }

    fn new(groups: Vec<JudgeGroup>, fallback: Option<String>, plan: &FieldPlan, explain: bool) -> Self {
        Judge { groups, fallback, decoder: plan.build(), scratch: DecodeScratch::default(), explain }
    }

    /// Judges one frame.
    ///
    /// # Errors
    ///
    /// Why it is no record.
    pub(super) fn judge(&mut self, frame: &[u8]) -> Result<Verdict, String> {
        let record = self.decoder.decode(frame, &mut self.scratch).map_err(|error| error.to_string())?;
        let (mut verdict, mut taken) = (Verdict::default(), false);
        for group in &mut self.groups {
            // The group for what the others left takes only that when it has no rules of its own.
            if group.rules.is_empty() && group.name.is_some() && group.name == self.fallback {
                continue;
            }
            let before = verdict.findings.len();
            let matched = group_matches(group, &record, self.explain, &mut verdict.findings);
            taken |= matched;
            if !group.wanted {
                verdict.findings.truncate(before);
            } else if matched {
                verdict.matched = true;
                verdict.groups.extend(group.name.clone());
            }
        }
        if let (false, Some(name)) = (taken, &self.fallback) {
            verdict.matched = true;
            verdict.groups.push(name.clone());
            verdict.findings.push(without_rule(Some(name.clone()), "takes what no group matched"));
        }
        Ok(verdict)
    }
}

fn judge_rule(
    text: &str,
    explain: bool,
    plan: &mut FieldPlan,
    compile: Compile<'_>,
) -> Result<JudgeRule, String> {
    let predicate = compile(text, plan)?;
    let reads = if explain { fields::of_rule(text) } else { Vec::new() };
    let reads = reads
        .into_iter()
        .map(|field| {
            let path: Vec<&str> = field.path.iter().map(String::as_str).collect();
            let slot = plan.want(&path);
            (field, slot)
        })
        .collect();
    Ok(JudgeRule { text: text.to_owned(), predicate, reads })
}

/// Whether the group matches: one true rule is enough, and the rest is looked at only when explaining.
fn group_matches(
    group: &mut JudgeGroup,
    record: &Record<'_>,
    explain: bool,
    findings: &mut Vec<Finding>,
) -> bool {
    if group.rules.is_empty() {
        findings.push(without_rule(group.name.clone(), "has no rules and matches everything"));
        return true;
    }
    let mut matched = false;
    for (i, rule) in group.rules.iter_mut().enumerate() {
        let outcome = rule.predicate.matches(record);
        matched |= outcome == Ok(true);
        if explain || outcome != Ok(false) {
            let read = rule
                .reads
                .iter()
                .map(|(field, slot)| (field.written.clone(), shown(record.slot(*slot))))
                .collect();
            findings.push(Finding {
                group: group.name.clone(),
                rule: i + 1,
                text: rule.text.clone(),
                outcome,
                read,
            });
        }
        if matched && !explain {
            break;
        }
    }
    matched
}

fn without_rule(group: Option<String>, text: &str) -> Finding {
    Finding { group, rule: 0, text: text.to_owned(), outcome: Ok(true), read: Vec::new() }
}

/// A field's value as JSON, `null` where the record lacks it.
fn shown(slot: Slot<'_>) -> String {
    match slot {
        Slot::Unreached | Slot::Absent | Slot::Null => "null".to_owned(),
        Slot::Bool(value) => value.to_string(),
        Slot::Number(text) => text.to_owned(),
        Slot::Str(text) => serde_json::Value::from(text).to_string(),
        Slot::Json(text) => String::from_utf8_lossy(text).into_owned(),
    }
}
