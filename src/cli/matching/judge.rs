//! Rules and groups over one record after the other, without any action.

use crate::clock;
use crate::config::RuleGroup;
use crate::record::{DecodeScratch, Decoder, FieldPlan, Record};
use crate::rule_group::{self, GroupRule};
use crate::rules::{EvalScratch, Explanation, Limits, Rule};

/// Rules under a name; without a name, the rules of the command line.
struct JudgeGroup {
    name: Option<String>,
    rules: Vec<Rule>,
    /// Somebody asked for it; the others are looked at only to know what they leave to the fallback.
    wanted: bool,
}

/// Judges records by groups.
pub(crate) struct Judge {
    groups: Vec<JudgeGroup>,
    fallback: Option<String>,
    decoder: Decoder,
    decode: DecodeScratch,
    eval: EvalScratch,
    /// Look at every rule of every group, part by part.
    explain: bool,
}

/// What a rule made of a record.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    /// Name of the group; `None` for rules of the command line.
    pub(crate) group: Option<String>,
    /// Number of the rule in its group, from 1; 0: the group has no rules, or is the fallback.
    pub(crate) rule: usize,
    /// Text of the rule.
    pub(crate) text: String,
    /// The outcome, or why there is none.
    pub(crate) outcome: Result<bool, String>,
    /// Part by part with what each read; when explaining.
    pub(crate) why: Option<Explanation>,
}

/// What the groups made of a record.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Whether a group matched by its rules, or took the record as the fallback.
    pub(crate) matched: bool,
    /// Names of the groups that matched.
    pub(crate) groups: Vec<String>,
    /// Rules that failed and, when explaining, every rule; otherwise the rules that were true.
    pub(crate) findings: Vec<Finding>,
}

impl Judge {
    /// Compiles rules of the command line. Each error is rendered with the rule's number.
    pub(crate) fn of_rules(rules: &[String], explain: bool) -> Result<Self, Vec<String>> {
        let mut plan = FieldPlan::new();
        let (mut compiled, mut errors) = (Vec::new(), Vec::new());
        for (i, text) in rules.iter().enumerate() {
            match compile(text, &mut plan) {
                Ok(rule) => compiled.push(rule),
                Err(error) => errors.push(format!("--rule {}: {}", i + 1, error.replace('\n', "\n    "))),
            }
        }
        let groups = vec![JudgeGroup { name: None, rules: compiled, wanted: true }];
        if errors.is_empty() { Ok(Judge::new(groups, None, &plan, explain)) } else { Err(errors) }
    }

    /// Compiles the rules of a configuration that was checked. `only` names the groups to look at; empty for all.
    pub(crate) fn of_groups(
        groups: &[RuleGroup],
        unmatched: Option<&str>,
        only: &[String],
        explain: bool,
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
            let rules =
                group.rules.iter().map(|rule| compile(&rule.text, &mut plan)).collect::<Result<_, _>>();
            let rules = rules.map_err(|error| vec![format!("group {:?}: {error}", group.name)])?;
            compiled.push(JudgeGroup { name: Some(group.name.clone()), rules, wanted });
        }
        Ok(Judge::new(compiled, fallback.map(str::to_owned), &plan, explain))
    }

    fn new(groups: Vec<JudgeGroup>, fallback: Option<String>, plan: &FieldPlan, explain: bool) -> Self {
        let (decode, eval) = (DecodeScratch::default(), EvalScratch::default());
        Judge { groups, fallback, decoder: plan.build(), decode, eval, explain }
    }

    /// Judges one frame.
    ///
    /// # Errors
    ///
    /// Why it is no record.
    pub(crate) fn judge(&mut self, frame: &[u8]) -> Result<Verdict, String> {
        let record = self.decoder.decode(frame, &mut self.decode).map_err(|error| error.to_string())?;
        self.eval.set_now(jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH));
        Ok(judge_groups(&self.groups, self.fallback.as_deref(), &record, self.explain, &mut self.eval))
    }
}

/// A group as far as it judges records.
pub(crate) trait Judging {
    /// Its name; none for the rules of the command line.
    fn name(&self) -> Option<&str>;
    /// Its rules in their order.
    fn rules(&self) -> impl Iterator<Item = &Rule>;
    /// It is asked for; the others are looked at only to know what they leave to the fallback.
    fn is_wanted(&self) -> bool;
}

impl Judging for JudgeGroup {
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    fn is_wanted(&self) -> bool {
        self.wanted
    }
}

impl Judging for rule_group::RuleGroup {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(GroupRule::rule)
    }

    fn is_wanted(&self) -> bool {
        true
    }
}

/// Judges a record by all groups. The time in `scratch` is set.
pub(crate) fn judge_groups<G: Judging>(
    groups: &[G],
    fallback: Option<&str>,
    record: &Record<'_>,
    explain: bool,
    scratch: &mut EvalScratch,
) -> Verdict {
    let (mut verdict, mut taken) = (Verdict::default(), false);
    for group in groups {
        // The group for what the others left takes only that when it has no rules of its own.
        let has_rules = group.rules().next().is_some();
        if !has_rules && group.name().is_some() && group.name() == fallback {
            continue;
        }
        let before = verdict.findings.len();
        let matched = group_matches(group, record, explain, scratch, &mut verdict.findings);
        taken |= matched;
        if !group.is_wanted() {
            verdict.findings.truncate(before);
        } else if matched {
            verdict.matched = true;
            verdict.groups.extend(group.name().map(str::to_owned));
        }
    }
    if let (false, Some(name)) = (taken, fallback) {
        verdict.matched = true;
        verdict.groups.push(name.to_owned());
        verdict.findings.push(without_rule(Some(name), "takes what no group matched"));
    }
    verdict
}

/// A finding as JSON: `{"group", "rule", "expression", "matched" or "error", "why"}`.
pub(crate) fn finding_json(finding: &Finding) -> serde_json::Value {
    let mut json =
        serde_json::json!({ "group": finding.group, "rule": finding.rule, "expression": finding.text });
    match &finding.outcome {
        Ok(matched) => json["matched"] = (*matched).into(),
        Err(error) => json["error"] = error.as_str().into(),
    }
    if let Some(why) = &finding.why {
        json["why"] = why.to_json();
    }
    json
}

/// Compiles a rule against the fields of `plan`, which it adds to; an error is rendered with its place.
fn compile(text: &str, plan: &mut FieldPlan) -> Result<Rule, String> {
    Rule::compile(text, plan, &Limits::default()).map_err(|error| error.render(text))
}

/// Whether the group matches: one true rule is enough, and the rest is looked at only when explaining.
fn group_matches<G: Judging>(
    group: &G,
    record: &Record<'_>,
    explain: bool,
    scratch: &mut EvalScratch,
    findings: &mut Vec<Finding>,
) -> bool {
    let (mut matched, mut has_rules) = (false, false);
    for (i, rule) in group.rules().enumerate() {
        has_rules = true;
        let outcome = rule.matches(record, scratch).map_err(|error| error.to_string());
        matched |= outcome == Ok(true);
        if explain || outcome != Ok(false) {
            let why = explain.then(|| rule.explain(record, scratch));
            let (group, text) = (group.name().map(str::to_owned), rule.source().to_owned());
            findings.push(Finding { group, rule: i + 1, text, outcome, why });
        }
        if matched && !explain {
            break;
        }
    }
    if !has_rules {
        findings.push(without_rule(group.name(), "has no rules and matches everything"));
    }
    matched || !has_rules
}

fn without_rule(group: Option<&str>, text: &str) -> Finding {
    Finding { group: group.map(str::to_owned), rule: 0, text: text.to_owned(), outcome: Ok(true), why: None }
}
