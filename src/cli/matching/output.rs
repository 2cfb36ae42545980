//! What `match` prints.

use std::io::{self, Write};

use super::Totals;
use super::judge::{Finding, Verdict, finding_json};

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
        verdict: &Verdict,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        if self.count {
            return Ok(());
        }
        if self.json {
            return self.json(record, file, line, verdict, out);
        }
        out.write_all(record)?;
        out.write_all(b"\n")?;
        if self.explain {
            for finding in &verdict.findings {
                explain(finding, file, line, out)?;
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
        verdict: &Verdict,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut head = serde_json::json!({ "file": file, "line": line, "groups": verdict.groups });
        if self.explain {
            head["rules"] = verdict.findings.iter().map(finding_json).collect();
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
pub(super) fn rule_name(finding: &Finding) -> String {
    match (&finding.group, finding.rule) {
        (Some(group), 0) => format!("group {group:?}"),
        (Some(group), rule) => format!("group {group:?}, rule {rule}"),
        (None, rule) => format!("rule {rule}"),
    }
}

fn explain(finding: &Finding, file: &str, line: u64, out: &mut dyn Write) -> io::Result<()> {
    let name = rule_name(finding);
    if finding.rule == 0 {
        return writeln!(out, "  {file}:{line}: {name} {}", finding.text);
    }
    let outcome = match &finding.outcome {
        Ok(true) => "matches".to_owned(),
        Ok(false) => "does not match".to_owned(),
        Err(error) => format!("failed: {}", printable(error)),
    };
    writeln!(out, "  {file}:{line}: {name} {outcome}")?;
    if let Some(why) = &finding.why {
        for part in why.to_string().lines() {
            writeln!(out, "      {}", printable(part))?;
        }
    }
    Ok(())
}

/// The text without control characters and direction overrides, which could rewrite a terminal.
pub(crate) fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hidden(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}
