//! Times, as far as the conformance rows do not show them: the clock is an argument.

use super::super::{EvalScratch, Limits, Rule};
use super::check;
use crate::record::{DecodeScratch, FieldPlan};

#[test]
fn the_clock_is_an_argument() {
    check(&[
        ("now()", r#"{"time":"2026-02-03T04:05:06.5Z"}"#),
        (
            "now(timezone(\"Europe/Zurich\")).Format(\"2006-01-02 15:04 MST\")",
            r#"{"str":"2026-02-03 05:05 CET"}"#,
        ),
        ("now() - Auth.TokenIssueTime > duration(\"24h\")", r#"{"bool":true}"#),
        ("date(Time).Year()", r#"{"int":"2026"}"#),
        ("now().Location().String()", r#"{"str":"UTC"}"#),
        ("Auth.TokenIssueTime.Location() == timezone(\"UTC\")", r#"{"bool":false}"#),
        ("timezone(\"Nowhere\")", "error: there is no time zone \"Nowhere\""),
    ]);
    let mut plan = FieldPlan::new();
    let rule = Rule::compile("now().Year() > 2000", &mut plan, &Limits::default()).expect("compiles");
    let decoder = plan.build();
    let mut decode = DecodeScratch::default();
    let record = decoder.decode(b"{}", &mut decode).expect("valid");
    let mut scratch = EvalScratch::default();
    assert!(rule.matches(&record, &mut scratch).is_err());
    scratch.set_now("2026-02-03T04:05:06Z".parse().expect("a time"));
    assert_eq!(rule.matches(&record, &mut scratch), Ok(true));
}

#[test]
fn far_away_times_do_not_overflow() {
    check(&[
        ("date(\"9999-12-31\").Add(duration(\"2540400h\")).Year() > 9999", r#"{"bool":true}"#),
        ("date(\"0000-01-01\").AddDate(-999999, 0, 0).Year() < 0", r#"{"bool":true}"#),
        (
            "date(\"2024-01-01\").AddDate(9223372036854775807, 9223372036854775807, 9223372036854775807).Year() > 0",
            r#"{"bool":true}"#,
        ),
        ("date(\"9999-12-31\") - date(\"0001-01-01\")", r#"{"dur":"9223372036854775807"}"#),
        (
            "date(\"9999-12-31\").AddDate(999999, 0, 0).In(timezone(\"Europe/Zurich\")).Format(\"MST\")",
            r#"{"str":"UTC"}"#,
        ),
    ]);
}
