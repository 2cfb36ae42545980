//! Stages one by one, and what the conformance rows do not cover.

use super::super::lexer::{Token, lex};
use super::super::{Constant, Environment, EvalScratch, Limits, Rule, RuleError, numbers};
use super::{check, matches, refused};
use crate::record::{DecodeScratch, FieldPlan};

#[test]
fn tokens() {
    let tokens = |source: &str| -> Vec<Token> {
        lex(source).expect(source).into_iter().map(|(token, _)| token).collect()
    };
    assert_eq!(tokens(" "), [Token::Eof]);
    assert_eq!(
        tokens("a not  in b // x"),
        [Token::Ident("a".into()), Token::Op("not"), Token::Op("in"), Token::Ident("b".into()), Token::Eof]
    );
    assert_eq!(tokens("1..2")[..2], [Token::Number("1".into()), Token::Op("..")]);
    assert_eq!(tokens("#index")[..2], [Token::Op("#"), Token::Ident("index".into())]);
    assert_eq!(tokens("`a``b`")[0], Token::Str(b"a`b".as_slice().into()));
    assert_eq!(tokens(r#"b"\xff\101é""#)[0], Token::Bytes(b"\xffA\xc3\xa9".as_slice().into()));
    assert_eq!(tokens("\"a\rb\"")[0], Token::Str(b"a\nb".as_slice().into()));
    assert_eq!(tokens(r#""\ud800""#)[0], Token::Str("\u{fffd}".as_bytes().into()));
    for bad in [
        "\"a",
        "'a\nb'",
        "`a",
        "/* a",
        "1a",
        "\"\\d\"",
        "\"\\u{}\"",
        "\"\\u{1234567}\"",
        "\"\\U00110000\"",
        "@",
        "~",
    ] {
        assert!(lex(bad).is_err(), "{bad}");
    }
}

#[test]
fn precedences() {
    check(&[
        ("2 + 3 * 4 ** 2 / 2", r#"{"float":"26"}"#),
        ("-2 ** 2", r#"{"float":"-4"}"#),
        ("not false and false or true", r#"{"bool":true}"#),
        ("1 < 2 < 3 and 3 > 2 > 1", r#"{"bool":true}"#),
        ("1 < 3 < 2", r#"{"bool":false}"#),
        ("\"a\" + \"b\" == \"ab\" and \"ab\" startsWith \"a\" + \"b\"", r#"{"bool":true}"#),
        ("1..3 | map(# * 2) | sum() == 12", r#"{"bool":true}"#),
        ("nil ?? nil ?? 3", r#"{"int":"3"}"#),
        ("false ?: 4", r#"{"int":"4"}"#),
        ("if 1 > 2 { 1 } else if 2 > 1 { 2; 3 } else { 4 }", r#"{"int":"3"}"#),
        ("let a = 1; let b = a + 1; [a, b]", r#"{"arr":[{"int":"1"},{"int":"2"}]}"#),
    ]);
}

#[test]
fn folding_keeps_gos_effects() {
    assert_eq!(matches("{}", "Auth.Policies[3] == \"x\" || true"), Ok(true));
    assert_eq!(matches("{}", "Auth.Policies[3] == \"x\" && false"), Ok(false));
    assert!(matches("{}", "Auth.Policies[3] == \"x\" && Type == \"y\"").is_err());
    assert!(refused("Type == \"a\" && 1 % 0 == 0").message.contains("zero"));
    assert!(refused("Type matches \"a\" + \"(\"").message.contains("regular expression"));
    check(&[
        ("sum(1..10000000)", r#"{"int":"50000005000000"}"#),
        ("first(filter([1, 0], 1 % # == 0))", r#"{"int":"1"}"#),
        ("sum([Type, \"x\"])", r#"{"str":"requestx"}"#),
        ("not (all(Auth.Policies, # == \"x\") && all(Auth.Policies, [1][9] == 1))", r#"{"bool":true}"#),
    ]);
}

#[test]
fn strict_equality_follows_the_static_types() {
    check(&[
        ("findIndex(Auth.Policies, # == \"nope\") == nil", r#"{"bool":true}"#),
        ("findIndex(Auth.Policies, # == \"nope\") == 1", "error: wanted an int, found nil"),
        ("find(Auth.Policies, # == \"nope\") == \"a\"", "error: wanted a string, found nil"),
        ("first(Auth.Policies) in [\"root\"]", r#"{"bool":true}"#),
        ("1 in [1.0, \"a\"]", r#"{"bool":true}"#),
    ]);
}

#[test]
fn misspelt_names_are_suggested() {
    let help = |source: &str| refused(source).help.unwrap_or_default();
    assert_eq!(help("request.path == \"\""), "did you mean `Request.Path`?");
    assert_eq!(help("Path == \"\""), "did you mean `Request.Path` or `Request.Namespace.Path`?");
    assert_eq!(help("Auth.PolicyResults.allowed"), "did you mean `Auth.PolicyResults.Allowed`?");
    assert_eq!(
        help("Auth.policyresults.grantingpolicies == nil"),
        "did you mean `Auth.PolicyResults.GrantingPolicies`?"
    );
    assert_eq!(help("let path = Type; paht == \"\""), "did you mean `path`?");
    assert_eq!(help("remote_port == 1"), "did you mean `Request.RemotePort`?");
    assert!(help("zzzzzz == 1").starts_with("the fields are Type, "));
    let error: RuleError = refused("startWith(Type, \"a\")");
    assert_eq!(
        error.to_string(),
        error.help.map_or(error.message.clone(), |help| format!("{} ({help})", error.message))
    );
}

#[test]
fn constant_environments() {
    let env = Environment::constants([
        ("n", Constant::Int(2)),
        ("none", Constant::Nil),
        ("b", Constant::Bool(true)),
    ]);
    let mut plan = FieldPlan::new();
    let decoder = FieldPlan::new().build();
    let mut decode = DecodeScratch::default();
    let record = decoder.decode(b"{}", &mut decode).expect("valid");
    for (source, want) in
        [("n + 1 == 3 and b", true), ("none == nil", true), ("$env.n == 3", false), ("len($env) == 3", true)]
    {
        let rule = Rule::compile_in(source, &env, &mut plan, &Limits::default()).expect(source);
        assert_eq!(rule.matches(&record, &mut EvalScratch::default()), Ok(want), "{source}");
    }
    assert!(Rule::compile_in("Type == \"a\"", &env, &mut plan, &Limits::default()).is_err());
}

#[test]
fn numbers_are_written_as_go_writes_them() {
    for (value, v, json) in [
        (0.0, "0", Some("0")),
        (-0.0, "-0", Some("-0")),
        (1.5, "1.5", Some("1.5")),
        (100_000.0, "100000", Some("100000")),
        (1e6, "1e+06", Some("1000000")),
        (123_456.789, "123456.789", Some("123456.789")),
        (1e21, "1e+21", Some("1e+21")),
        (0.0001, "0.0001", Some("0.0001")),
        (0.00001, "1e-05", Some("0.00001")),
        (1e-7, "1e-07", Some("1e-7")),
        (1.25e-9, "1.25e-09", Some("1.25e-9")),
        (f64::INFINITY, "+Inf", None),
        (f64::NEG_INFINITY, "-Inf", None),
        (f64::NAN, "NaN", None),
    ] {
        assert_eq!(numbers::format_v(value), v);
        assert_eq!(numbers::format_json(value).as_deref(), json);
    }
    for (text, want) in [
        ("1_0", Some(10.0)),
        ("0x1.8p1", Some(3.0)),
        ("1e400", None),
        ("_1", None),
        ("0x1", None),
        ("-inf", Some(f64::NEG_INFINITY)),
    ] {
        assert_eq!(numbers::parse_float(text), want, "{text}");
    }
    for (x, y, want) in [
        (2.0, 10.0, 1024.0),
        (2.0, -1074.0, 5e-324),
        (-8.0, 3.0, -512.0),
        (4.0, 0.5, 2.0),
        (0.0, -1.0, f64::INFINITY),
        (0.5, 1e300, 0.0),
    ] {
        assert_eq!(numbers::pow(x, y), want, "{x} ** {y}");
    }
    assert!(numbers::pow(-8.0, 1.0 / 3.0).is_nan());
}

#[test]
fn conditions_over_fields() {
    let record = r#"{"type":"abc","request":{"remote_port":7,"path":"x/y/z"},"auth":{"policies":["a","b"],"policy_results":{"allowed":true}}}"#;
    for (source, want) in [
        ("Request.RemotePort == 7", true),
        ("7 == Request.RemotePort", true),
        (
            "6 < Request.RemotePort and 8 > Request.RemotePort and 7 <= Request.RemotePort and 7 >= Request.RemotePort",
            true,
        ),
        ("Request.RemotePort != 7", false),
        ("Request.RemotePort in [1, 7]", true),
        ("Request.RemotePort in 1..6", false),
        ("Type in [\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"abc\"]", true),
        ("Type not in [\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]", true),
        (
            "Request.Path contains \"/y/\" and Request.Path endsWith \"z\" and hasPrefix(Request.Path, \"x\")",
            true,
        ),
        ("Request.Path matches \"^x/[a-z]+/\"", true),
        ("\"b\" in Auth.Policies and \"c\" not in Auth.Policies and \"\" not in Auth.Policies", true),
        ("Auth.PolicyResults.Allowed and !Auth.PolicyResults.Allowed", false),
        ("any(Auth.Policies, # in [\"b\"]) and none(Auth.Policies, # contains \"z\")", true),
        ("lower(Type) == \"abc\" and Type == lower(Type)", true),
        ("\"abc\" != Type", false),
    ] {
        assert_eq!(matches(record, source), Ok(want), "{source}");
    }
}
