//! Rules and groups over one record after the other, without any action.

use crate::clock;
use crate::config::RuleGroup;
use crate::record::{DecodeScratch, Decoder, FieldPlan, Record};
use crate::rules::{EvalScratch, Explanation, Limits, Rule};

/// Rules under a name; without a name, the rules of the command line.
struct JudgeGroup {
    name: Option<String>,
    rules: Vec<Rule>,
    /// Somebody asked for it; the others are looked at only to know what they leave to the fallback.
    wanted: bool,
}

/// Judges records by groups.
pub(super) struct Judge {
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
pub(super) struct Finding {
    /// Name of the group; `None` for rules of the command line.
    pub(super) group: Option<String>,
    /// Number of the rule in its group, from 1; 0: the group has no rules, or is the fallback.
    pub(super) rule: usize,
    /// Text of the rule.
    pub(super) text: String,
    /// The outcome, or why there is none.
    pub(super) outcome: Result<bool, String>,
    /// Part by part with what each read; when explaining.
    pub(super) why: Option<Explanation>,
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
    pub(super) fn of_rules(rules: &[String], explain: bool) -> Result<Self, Vec<String>> {
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
    pub(super) fn of_groups(
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
    pub(super) fn judge(&mut self, frame: &[u8]) -> Result<Verdict, String> {
        let record = self.decoder.decode(frame, &mut self.decode).map_err(|error| error.to_string())?;
        self.eval.set_now(jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH));
        let (mut verdict, mut taken) = (Verdict::default(), false);
        for group in &self.groups {
            // The group for what the others left takes only that when it has no rules of its own.
            if group.rules.is_empty() && group.name.is_some() && group.name == self.fallback {
                continue;
            }
            let before = verdict.findings.len();
            let matched = group_matches(group, &record, self.explain, &mut self.eval, &mut verdict.findings);
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

/// Compiles a rule against the fields of `plan`, which it adds to; an error is rendered with its place.
fn compile(text: &str, plan: &mut FieldPlan) -> Result<Rule, String> {
    Rule::compile(text, plan, &Limits::default()).map_err(|error| error.render(text))
}

/// Whether the group matches: one true rule is enough, and the rest is looked at only when explaining.
fn group_matches(
    group: &JudgeGroup,
    record: &Record<'_>,
    explain: bool,
    scratch: &mut EvalScratch,
    findings: &mut Vec<Finding>,
) -> bool {
    if group.rules.is_empty() {
        findings.push(without_rule(group.name.clone(), "has no rules and matches everything"));
        return true;
    }
    let mut matched = false;
    for (i, rule) in group.rules.iter().enumerate() {
        let outcome = rule.matches(record, scratch).map_err(|error| error.to_string());
        matched |= outcome == Ok(true);
        if explain || outcome != Ok(false) {
            let why = explain.then(|| rule.explain(record, scratch));
            let (group, text) = (group.name.clone(), rule.source().to_owned());
            findings.push(Finding { group, rule: i + 1, text, outcome, why });
        }
        if matched && !explain {
            break;
        }
    }
    matched
}

fn without_rule(group: Option<String>, text: &str) -> Finding {
    Finding { group, rule: 0, text: text.to_owned(), outcome: Ok(true), why: None }
}
