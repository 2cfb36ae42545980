//! What `explain` shows.

use super::super::{EvalScratch, Explanation, Limits, Outcome, Rule};
use super::RECORD;
use crate::record::{DecodeScratch, FieldPlan};

fn explained(source: &str) -> Explanation {
    let mut plan = FieldPlan::new();
    let rule = Rule::compile(source, &mut plan, &Limits::default()).expect(source);
    let decoder = plan.build();
    let mut decode = DecodeScratch::default();
    let record = decoder.decode(RECORD.as_bytes(), &mut decode).expect("valid");
    assert_eq!(rule.source(), source);
    rule.explain(&record, &mut EvalScratch::default())
}

#[test]
fn the_operand_that_decided_is_marked() {
    let tree = explained(
        "Type == \"request\" && (Request.Path startsWith \"sys/\" || Request.Operation in [\"update\"]) && Error != \"\"",
    );
    assert_eq!(tree.outcome, Outcome::Bool(false));
    let marks: Vec<bool> = tree.parts.iter().map(|part| part.decided).collect();
    assert_eq!(marks, [false, false, true]);
    assert_eq!(tree.parts[1].parts[1].reads, [("Request.Operation".to_owned(), "\"update\"".to_owned())]);
    let text = tree.to_string();
    let want = "\
  false  Type == \"request\" && (Request.Path startsWith \"sys/\" || Request.Operation in [\"update\"]) && Error != \"\"
    true   Type == \"request\"    [Type = \"request\"]
    true   (Request.Path startsWith \"sys/\" || Request.Operation in [\"update\"])
      false  Request.Path startsWith \"sys/\"    [Request.Path = \"secret/data/foo\"]
    * true   Request.Operation in [\"update\"]    [Request.Operation = \"update\"]
* false  Error != \"\"
    * true   Error != \"\"    [Error = absent]";
    let squeeze = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(squeeze(&text), squeeze(want));
}

#[test]
fn parts_behind_the_decision_are_not_evaluated() {
    let tree = explained("Type == \"x\" && Auth.Policies[9] == \"y\"");
    assert_eq!(tree.parts[1].outcome, Outcome::Skipped);
    let tree = explained("Type == \"request\" && Auth.Policies[9] == \"y\"");
    assert!(matches!(&tree.outcome, Outcome::Failed(message) if message.contains("out of range")));
    assert!(tree.parts[1].decided);
    assert!(tree.to_string().contains("Auth.Policies = [root default]"));
}

#[test]
fn values_that_are_no_bool() {
    assert_eq!(explained("Request.RemotePort").outcome, Outcome::Value("54321".into()));
    assert_eq!(explained("Request.Path").outcome, Outcome::Value("\"secret/data/foo\"".into()));
    let json = explained("any(Auth.Policies, # == \"root\") and not Auth.PolicyResults.Allowed").to_json();
    assert_eq!(json["outcome"]["bool"], false);
    assert_eq!(json["parts"][0]["reads"][0]["field"], "Auth.Policies");
    assert_eq!(json["parts"][1]["parts"][0]["reads"][0]["value"], "true");
    assert_eq!(json["start"], 0);
}
