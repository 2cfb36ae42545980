//! What `match` prints.

use std::io::{self, Write};

use super::Totals;
use super::judge::{Finding, FindingKind, Judge, Verdict};
use crate::text::printable;

/// Prints records and, when asked, why they were taken.
pub(super) struct Printer {
    /// Nothing but the number at the end.
    pub(super) count: bool,
    pub(super) json: bool,
    pub(super) explain: bool,
}

impl Printer {
    /// Prints one record: its bytes as they came, or within JSON.
    pub(super) fn record(
        &self,
        record: &[u8],
        file: &str,
        line: u64,
        (judge, verdict): (&Judge, &Verdict),
        out: &mut dyn Write,
    ) -> io::Result<()> {
        if self.count {
            return Ok(());
        }
        if self.json {
            return self.json(record, file, line, (judge, verdict), out);
        }
        out.write_all(record)?;
        out.write_all(b"\n")?;
        if self.explain {
            for finding in &verdict.findings {
                explain(finding, judge, file, line, out)?;
            }
        }
        Ok(())
    }

    /// One JSON object a line; the record stands in it byte for byte.
    fn json(
        &self,
        record: &[u8],
        file: &str,
        line: u64,
        (judge, verdict): (&Judge, &Verdict),
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let groups: Vec<_> = verdict.groups.iter().filter_map(|group| judge.group_name(*group)).collect();
        let mut head = serde_json::json!({ "file": file, "line": line, "groups": groups });
        if self.explain {
            let json = |finding: &Finding| {
                let text = |rule| judge.rule_text(finding.group, rule);
                finding_json(finding, judge.group_name(finding.group), text)
            };
            head["rules"] = verdict.findings.iter().map(json).collect();
        }
        let head = head.to_string();
        // Within the object that was just made: everything but its closing brace.
        out.write_all(&head.as_bytes()[..head.len() - 1])?;
        out.write_all(b",\"record\":")?;
        out.write_all(record.trim_ascii())?;
        out.write_all(b"}\n")
    }

    /// Prints what stands at the end.
    pub(super) fn end(&self, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
        match (self.count, self.json) {
            (false, _) => Ok(()),
            (true, false) => writeln!(out, "{}", totals.taken),
            (true, true) => {
                let counts = serde_json::json!({
                    "matched": totals.taken,
                    "records": totals.records,
                    "bad_lines": totals.bad,
                    "rule_errors": totals.rule_errors,
                });
                writeln!(out, "{counts}")
            }
        }
    }
}

/// `group "a", rule 2`, or `rule 2` of the command line.
pub(in crate::cli) fn finding_name(finding: &Finding, judge: &Judge) -> String {
    let rule = match finding.kind {
        FindingKind::Rule { number, .. } => Some(number + 1),
        FindingKind::NoRules | FindingKind::Fallback => None,
    };
    match (judge.group_name(finding.group), rule) {
        (Some(group), None) => format!("group {group:?}"),
        (Some(group), Some(rule)) => format!("group {group:?}, rule {rule}"),
        (None, rule) => format!("rule {}", rule.unwrap_or_default()),
    }
}

/// What a finding without a rule says.
const NO_RULES: &str = "has no rules and matches everything";
const FALLBACK: &str = "takes what no group matched";

fn explain(finding: &Finding, judge: &Judge, file: &str, line: u64, out: &mut dyn Write) -> io::Result<()> {
    let name = finding_name(finding, judge);
    let (outcome, why) = match &finding.kind {
        FindingKind::NoRules => (NO_RULES.to_owned(), None),
        FindingKind::Fallback => (FALLBACK.to_owned(), None),
        FindingKind::Rule { outcome: Ok(true), why, .. } => ("matches".to_owned(), why.as_ref()),
        FindingKind::Rule { outcome: Ok(false), why, .. } => ("does not match".to_owned(), why.as_ref()),
        FindingKind::Rule { outcome: Err(error), why, .. } => {
            (format!("failed: {}", printable(&error.to_string())), why.as_ref())
        }
    };
    writeln!(out, "  {file}:{line}: {name} {outcome}")?;
    let parts = why.map(ToString::to_string).unwrap_or_default();
    parts.lines().try_for_each(|part| writeln!(out, "      {}", printable(part)))
}

/// A finding of `group` as JSON: `{"group", "rule", "expression", "matched" or "error", "why"}`; `text` gives a rule's text. A finding
/// without a rule has the number 0 and says why in the place of the expression.
pub(super) fn finding_json<'a>(
    finding: &Finding,
    group: Option<&str>,
    text: impl FnOnce(usize) -> &'a str,
) -> serde_json::Value {
    match &finding.kind {
        FindingKind::NoRules | FindingKind::Fallback => {
            let text = if finding.kind == FindingKind::NoRules { NO_RULES } else { FALLBACK };
            serde_json::json!({ "group": group, "rule": 0, "expression": text, "matched": true })
        }
        FindingKind::Rule { number, outcome, why } => {
            let text = text(*number);
            let mut json = serde_json::json!({ "group": group, "rule": number + 1, "expression": text });
            match outcome {
                Ok(matched) => json["matched"] = (*matched).into(),
                Err(error) => json["error"] = error.to_string().into(),
            }
            if let Some(why) = why {
                json["why"] = why.to_json();
            }
            json
        }
    }
}

/// Lines after the first stand below it.
pub(super) fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}
