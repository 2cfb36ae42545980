//! Rules and groups over one record after the other, without any action.

use std::time::SystemTime;

use super::output::{finding_json, indented};
use crate::record::{DecodeError, DecodeScratch, Decoder, FieldPlan, Record};
use crate::rule_group::{Checked, GroupRule, RuleGroup};
use crate::rules::{Candidates, EvalError, EvalScratch, Explanation, IndexScratch, Limits, Rule, RuleIndex};

/// Rules under a name; without a name, the rules of the command line.
struct JudgeGroup {
    name: Option<String>,
    rules: Vec<Rule>,
    /// Somebody asked for it; the others are looked at only to know what they leave to the fallback.
    wanted: bool,
}

/// Judges records by groups, as the server does: the same decoder, the same index over the rules.
pub(in crate::cli) struct Judge {
    groups: Vec<JudgeGroup>,
    /// Number of the group that takes what no group matched.
    fallback: Option<usize>,
    decoder: Decoder,
    /// `None`: so few rules that all of them are evaluated, or every one is to be explained.
    index: Option<RuleIndex>,
    scratch: Scratch,
    /// Look at every rule of every group, part by part.
    explain: bool,
}

#[derive(Default)]
struct Scratch {
    decode: DecodeScratch,
    eval: EvalScratch,
    index: IndexScratch,
}

/// What made a group match, or fail to.
#[derive(Debug, PartialEq)]
pub(in crate::cli) struct Finding {
    /// Number of the group, for [`Judge::group_name`].
    pub(in crate::cli) group: usize,
    pub(in crate::cli) kind: FindingKind,
}

#[derive(Debug, PartialEq)]
pub(in crate::cli) enum FindingKind {
    /// A rule was evaluated.
    Rule {
        /// Its number in the group, from 0.
        number: usize,
        outcome: Result<bool, EvalError>,
        /// Part by part with what each read; when explaining.
        why: Option<Explanation>,
    },
    /// The group has no rules.
    NoRules,
    /// The group takes what no group matched.
    Fallback,
}

/// What the groups made of a record.
#[derive(Debug, Default, PartialEq)]
pub(in crate::cli) struct Verdict {
    /// Whether a group matched by its rules, or took the record as the fallback.
    pub(in crate::cli) matched: bool,
    /// Numbers of the groups that matched.
    pub(in crate::cli) groups: Vec<usize>,
    /// Rules that failed and, when explaining, everything that was looked at.
    pub(in crate::cli) findings: Vec<Finding>,
}

impl Judge {
    /// Compiles rules of the command line.
    ///
    /// # Errors
    /// Every rule that does not compile, with its number and the place in it.
    pub(in crate::cli) fn of_rules(texts: &[String], explain: bool) -> Result<Self, Vec<String>> {
        let mut plan = FieldPlan::new();
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for (i, text) in texts.iter().enumerate() {
            match Rule::compile(text, &mut plan, &Limits::default()) {
                Ok(rule) => rules.push(rule),
                Err(error) => errors.push(format!("--rule {}: {}", i + 1, indented(&error.render(text)))),
            }
        }
        let groups = vec![JudgeGroup { name: None, rules, wanted: true }];
        if errors.is_empty() { Ok(Judge::new(groups, None, plan.build(), explain)) } else { Err(errors) }
    }

    /// Takes the rules of a configuration. `only` names the groups to look at; empty for all.
    pub(in crate::cli) fn of_groups(checked: Checked, only: &[String], explain: bool) -> Self {
        let Checked { loaded, compiled } = checked;
        let config = loaded.config;
        let wanted = |name: &str| only.is_empty() || only.iter().any(|known| known == name);
        let unmatched = config.unmatched.filter(|name| wanted(name));
        let groups: Vec<JudgeGroup> = config
            .rule_groups
            .into_iter()
            .zip(compiled.rules)
            .map(|(group, rules)| JudgeGroup { wanted: wanted(&group.name), name: Some(group.name), rules })
            .filter(|group| group.wanted || unmatched.is_some())
            .collect();
        let fallback = unmatched.and_then(|name| groups.iter().position(|g| g.name.as_ref() == Some(&name)));
        Judge::new(groups, fallback, compiled.decoder, explain)
    }

    fn new(groups: Vec<JudgeGroup>, fallback: Option<usize>, decoder: Decoder, explain: bool) -> Self {
        let rules: Vec<Vec<&Rule>> = groups.iter().map(|group| group.rules.iter().collect()).collect();
        let index = if explain { None } else { RuleIndex::unless_few(&rules) };
        Judge { groups, fallback, decoder, index, scratch: Scratch::default(), explain }
    }

    /// Name of a group; `None`: rules of the command line.
    pub(in crate::cli) fn group_name(&self, group: usize) -> Option<&str> {
        self.groups.get(group)?.name.as_deref()
    }

    /// Text of a rule by the numbers of its group and itself.
    pub(in crate::cli) fn rule_text(&self, group: usize, rule: usize) -> &str {
        self.groups.get(group).and_then(|group| group.rules.get(rule)).map_or("", Rule::source)
    }

    /// Sets the time that rules see from now on.
    pub(in crate::cli) fn set_now(&mut self, now: SystemTime) {
        self.scratch.eval.set_now(jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH));
    }

    /// Judges one frame; the answer replaces what is in `verdict`.
    ///
    /// # Errors
    ///
    /// Why it is no record.
    pub(in crate::cli) fn judge(&mut self, frame: &[u8], verdict: &mut Verdict) -> Result<(), DecodeError> {
        let Scratch { decode, eval, index } = &mut self.scratch;
        verdict.matched = false;
        verdict.groups.clear();
        verdict.findings.clear();
        let record = self.decoder.decode(frame, decode)?;
        let candidates = self.index.as_ref().map(|found| found.candidates(&record, index));
        let mut taken = false;
        for (number, group) in self.groups.iter().enumerate() {
            // The group for what the others left takes only that when it has no rules of its own.
            if group.rules.is_empty() && self.fallback == Some(number) {
                continue;
            }
            let before = verdict.findings.len();
            let mut look = Look { group, number, record: &record, eval, findings: &mut verdict.findings };
            let matched = if self.explain { look.explain() } else { look.matches(candidates) };
            taken |= matched;
            if !group.wanted {
                verdict.findings.truncate(before);
            } else if matched {
                verdict.matched = true;
                verdict.groups.push(number);
            }
        }
        if let (false, Some(group)) = (taken, self.fallback) {
            verdict.matched = true;
            verdict.groups.push(group);
            if self.explain {
                verdict.findings.push(Finding { group, kind: FindingKind::Fallback });
            }
        }
        Ok(())
    }
}

/// A look at one group's rules.
struct Look<'l, 'r> {
    group: &'l JudgeGroup,
    number: usize,
    record: &'l Record<'r>,
    eval: &'l mut EvalScratch,
    findings: &'l mut Vec<Finding>,
}

impl Look<'_, '_> {
    /// Whether one rule is true; the rules behind it are left alone. Only failures are noted.
    fn matches(&mut self, candidates: Option<Candidates<'_>>) -> bool {
        let rules = &self.group.rules;
        match candidates {
            Some(found) if !rules.is_empty() => {
                found.of_group(self.number).any(|number| self.is_true(number))
            }
            _ => rules.is_empty() || (0..rules.len()).any(|number| self.is_true(number)),
        }
    }

    #[inline]
    fn is_true(&mut self, number: usize) -> bool {
        let Some(rule) = self.group.rules.get(number) else { return false };
        match rule.matches(self.record, self.eval) {
            Ok(matched) => matched,
            Err(error) => {
                self.note(FindingKind::Rule { number, outcome: Err(error), why: None });
                false
            }
        }
    }

    /// Whether one rule is true; every rule is looked at and noted, part by part.
    fn explain(&mut self) -> bool {
        explain_rules(self.number, self.group.rules.iter(), self.record, self.eval, self.findings)
    }

    #[cold]
    fn note(&mut self, kind: FindingKind) {
        self.findings.push(Finding { group: self.number, kind });
    }
}

/// Whether one rule is true; every rule is looked at and noted, part by part.
fn explain_rules<'a>(
    group: usize,
    rules: impl ExactSizeIterator<Item = &'a Rule>,
    record: &Record<'_>,
    eval: &mut EvalScratch,
    findings: &mut Vec<Finding>,
) -> bool {
    if rules.len() == 0 {
        findings.push(Finding { group, kind: FindingKind::NoRules });
        return true;
    }
    let mut matched = false;
    for (number, rule) in rules.enumerate() {
        let outcome = rule.matches(record, eval);
        matched |= outcome == Ok(true);
        let why = Some(rule.explain(record, eval));
        findings.push(Finding { group, kind: FindingKind::Rule { number, outcome, why } });
    }
    matched
}

/// What the groups of a running server make of a record, as JSON: `{"matched", "groups", "rules"}`, every rule as `match --explain
/// --format json` shows it. `fallback` is the number of the group that takes what no group matched.
pub(crate) fn explain_groups(
    groups: &[RuleGroup],
    fallback: Option<usize>,
    record: &Record<'_>,
    eval: &mut EvalScratch,
) -> serde_json::Value {
    let (mut taken, mut findings) = (Vec::new(), Vec::new());
    for (number, group) in groups.iter().enumerate() {
        let only_fallback = group.rules.is_empty() && fallback == Some(number);
        let rules = group.rules.iter().map(GroupRule::rule);
        if !only_fallback && explain_rules(number, rules, record, eval, &mut findings) {
            taken.push(number);
        }
    }
    if let (true, Some(group)) = (taken.is_empty(), fallback) {
        taken.push(group);
        findings.push(Finding { group, kind: FindingKind::Fallback });
    }
    let name = |number: usize| groups.get(number).map(|group| &*group.name);
    let text = |group: usize, rule: usize| {
        groups.get(group).and_then(|group| group.rules.get(rule)).map_or("", |rule| rule.rule().source())
    };
    serde_json::json!({
        "matched": !taken.is_empty(),
        "groups": taken.iter().filter_map(|number| name(*number)).collect::<Vec<_>>(),
        "rules": findings
            .iter()
            .map(|finding| finding_json(finding, name(finding.group), |rule| text(finding.group, rule)))
            .collect::<Vec<_>>(),
    })
}
