//! Fields of the record: typed, untyped, absent, mistyped.

use serde_json::json;

use super::super::{EvalErrorKind, EvalScratch, Expr, Limits};
use super::{RECORD, check, matches, value, value_over};
use crate::record::{DecodeScratch, FieldPlan};

#[test]
fn absent_and_null_are_zero() {
    for record in [
        "{}",
        r#"{"type":null,"request":null,"auth":{"policies":null,"policy_results":null},"response":{"data":{}}}"#,
    ] {
        for (source, want) in [
            ("Type", json!({"str": ""})),
            ("Request.RemotePort", json!({"int": "0"})),
            ("Auth.PolicyResults.Allowed", json!({"bool": false})),
            ("Auth.Policies == nil", json!({"bool": true})),
            ("len(Auth.PolicyResults.GrantingPolicies)", json!({"int": "0"})),
            ("Auth.TokenIssueTime.IsZero()", json!({"bool": true})),
            ("Auth.Metadata[\"role\"]", json!({"str": ""})),
            ("Request.Headers[\"x\"] == nil", json!({"bool": true})),
            ("record.request.data.options.cas", json!({"nil": true})),
            ("Request.Data.a.b.c == nil", json!({"bool": true})),
            ("Request.Namespace.Path", json!({"str": ""})),
            ("Response.Secret.LeaseID == \"\"", json!({"bool": true})),
        ] {
            assert_eq!(value_over(record, source).as_ref(), Ok(&want), "{source} over {record}");
        }
    }
}

#[test]
fn untyped_content() {
    check(&[
        ("record.request.data.options.cas == 3", r#"{"bool":true}"#),
        ("record.request.data.options.cas", r#"{"float":"3"}"#),
        ("Request.Data.options.cas > 2", r#"{"bool":true}"#),
        ("record[\"extra\"].deep.er", r#"{"bool":true}"#),
        ("let r = record; r.extra.nope.more", r#"{"nil":true}"#),
        ("record.type.nope", r#"{"nil":true}"#),
        ("record?.extra?.deep?.er", r#"{"bool":true}"#),
        ("\"extra\" in record", r#"{"bool":true}"#),
        ("\"nope\" in record", r#"{"bool":false}"#),
        ("keys(record.extra)", r#"{"arr":[{"str":"deep"}]}"#),
        ("record.request.data.options.list[1]", r#"{"str":"b"}"#),
        ("record.request.data.options.list[9]", "error: index 9 is out of range: the array has 3 elements"),
        ("record.nope[0]", r#"{"nil":true}"#),
        ("any(record.auth.policies, # == \"root\")", r#"{"bool":true}"#),
        (
            "map(record.auth.policy_results.granting_policies, .type)",
            r#"{"arr":[{"str":"acl"},{"nil":true}]}"#,
        ),
        (
            "map(record.auth.policy_results.granting_policies, .type.nope)",
            r#"{"arr":[{"nil":true},{"nil":true}]}"#,
        ),
        ("$env.record.type", r#"{"str":"request"}"#),
        ("record.nope + 1", "error: `+` is not defined on nil and int"),
        ("fromJSON(\"{}\").a.b", "error: nil has no members"),
        ("Auth.Metadata.team", r#"{"str":"a\"b"}"#),
        ("len(Auth.Metadata) == 2 and Auth.Metadata == Auth.Metadata", r#"{"bool":true}"#),
        ("Request.Headers[\"x-a\"]", r#"{"arr":[{"str":"1"},{"str":"2"}]}"#),
        ("\"2\" in Request.Headers[\"x-a\"]", r#"{"bool":true}"#),
        ("len(Request.Headers)", r#"{"int":"1"}"#),
        ("values(Request.Headers)", r#"{"arr":[{"arr":[{"str":"1"},{"str":"2"}]}]}"#),
    ]);
}

#[test]
fn a_mistyped_field_fails_only_the_rules_that_read_it() {
    let record = r#"{"type":5,"request":{"path":"p","remote_port":1.5,"headers":{"a":"b"}},
        "auth":{"policies":["a",1],"policy_results":{"allowed":"yes"},"metadata":{"a":1},"token_issue_time":"soon"}}"#;
    assert_eq!(matches(record, "Request.Path == \"p\""), Ok(true));
    for source in [
        "Type == \"x\"",
        "not (Type == \"x\")",
        "len(Type) > 0",
        "Request.RemotePort == 1",
        "Request.RemotePort + 1 == 2",
        "\"a\" in Auth.Policies",
        "any(Auth.Policies, # == \"a\")",
        "Auth.PolicyResults.Allowed",
        "Auth.PolicyResults.Allowed == true",
        "Auth.Metadata == nil",
        "len(Request.Headers) == 1",
        "Auth.TokenIssueTime.Year() == 1",
    ] {
        let error = matches(record, source).expect_err(source);
        assert_eq!(error.kind, EvalErrorKind::MistypedField, "{source}");
        assert!(!error.span.is_empty() && error.span.end <= source.len(), "{source}: {:?}", error.span);
    }
    assert_eq!(matches(record, "Request.Path == \"p\" || Type == \"x\""), Ok(true));
    assert_eq!(matches(record, "record.type == 5"), Ok(true));
}

#[test]
fn keys_are_exact_and_the_last_one_wins() {
    assert_eq!(matches(r#"{"TYPE":"a","type":"b","type":"c"}"#, "Type == \"c\""), Ok(true));
    let twice = r#"{"request":{"data":{"a":1,"a":2}}}"#;
    assert_eq!(matches(twice, "Request.Data == {a: 2.0} and record.request.data.a == 2"), Ok(true));
}

#[test]
fn whole_objects() {
    check(&[
        ("Auth == Auth", r#"{"bool":true}"#),
        ("Auth == Response.Auth", r#"{"bool":false}"#),
        ("Response.Auth.DisplayName", r#"{"str":""}"#),
        ("type(Auth)", r#"{"str":"main.Auth"}"#),
        ("\"Namespace\" in Request", r#"{"bool":true}"#),
        ("Request[\"Path\"]", r#"{"str":"secret/data/foo"}"#),
        ("string(Auth.PolicyResults)", r#"{"str":"{true [{root  acl} {p2  }]}"}"#),
        ("Auth.PolicyResults.GrantingPolicies[1].Name", r#"{"str":"p2"}"#),
        (
            "toJSON(Auth.PolicyResults.GrantingPolicies[0])",
            r#"{"str":"{\n  \"name\": \"root\",\n  \"namespace_id\": \"\",\n  \"type\": \"acl\"\n}"}"#,
        ),
    ]);
    assert!(value("$env").contains("\"RemotePort\":{\"int\":\"54321\"}"));
}

#[test]
fn templates_render_values_as_text() {
    let render = |source: &str| {
        let mut plan = FieldPlan::new();
        let expr = Expr::compile(source, &mut plan, &Limits::default()).expect(source);
        let decoder = plan.build();
        let mut decode = DecodeScratch::default();
        let record = decoder.decode(RECORD.as_bytes(), &mut decode).expect("valid");
        let mut out = String::from(">");
        let result = expr.render(&record, &mut EvalScratch::default(), &mut out);
        assert_eq!(expr.source(), source);
        result.map(|()| out)
    };
    for (source, want) in [
        ("Request.Path", ">secret/data/foo"),
        ("record.nope", ">"),
        ("nil", ">"),
        ("Request.RemotePort", ">54321"),
        ("Auth.Policies", ">[root default]"),
        ("join(Auth.Policies, \", \")", ">root, default"),
        ("1.5e6", ">1.5e+06"),
        ("\"é\"[0:1]", ">\u{fffd}"),
        ("{b: 1, a: [nil, true]}", ">map[a:[<nil> true] b:1]"),
        ("Auth.TokenIssueTime", ">2025-12-31 23:59:59 +0200 +0200"),
        ("duration(\"90s\")", ">1m30s"),
    ] {
        assert_eq!(render(source).as_deref(), Ok(want), "{source}");
    }
    assert!(render("Auth.Policies[7]").is_err());
}
