//! The plain scan over all rules is the oracle: the index may leave out no rule that is true.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::tables::{Anywhere, Beginnings, RuleSet, Texts};
use super::{IndexScratch, RuleIndex};
use crate::record::{DecodeScratch, FieldPlan};
use crate::rules::{EvalScratch, Limits, Rule};

const RECORDS: &str = include_str!("../../../tests/data/records/openbao-2.7.2.jsonl");
const MIXED: &str = include_str!("../../../tests/data/rules/mixed1000.txt");
const TYPICAL: &str = include_str!("../../../tests/data/rules/typical10.txt");

/// What the index and the plain scan said of some records.
#[derive(Debug, Default)]
struct Seen {
    candidates: usize,
    /// Rules that are true, of all rules.
    matches: usize,
    errors: usize,
}

/// Holds the index and the plain scan equal over all records: every true rule is a candidate, candidates come in order, and
/// each group's first match is the same.
fn compare<S: AsRef<str>>(groups: &[Vec<S>], records: &[S]) -> Seen {
    let mut plan = FieldPlan::new();
    let mut compiled: Vec<Vec<Rule>> = Vec::new();
    for group in groups {
        let compile = |text: &S| match Rule::compile(text.as_ref(), &mut plan, &Limits::default()) {
            Ok(rule) => rule,
            Err(error) => panic!("{}", error.render(text.as_ref())),
        };
        compiled.push(group.iter().map(compile).collect());
    }
    let rules: Vec<Vec<&Rule>> = compiled.iter().map(|group| group.iter().collect()).collect();
    let index = RuleIndex::build(&rules);
    let decoder = plan.build();
    let (mut decode, mut eval, mut scratch) =
        (DecodeScratch::default(), EvalScratch::default(), IndexScratch::default());
    let mut seen = Seen::default();
    for text in records {
        let record = decoder.decode(text.as_ref().as_bytes(), &mut decode).expect("the record is valid");
        let candidates = index.candidates(&record, &mut scratch);
        for (number, group) in rules.iter().enumerate() {
            let results: Vec<_> = group.iter().map(|rule| rule.matches(&record, &mut eval)).collect();
            let found: Vec<usize> = candidates.of_group(number).collect();
            assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
            assert!(found.last().is_none_or(|last| *last < group.len()), "{found:?}");
            let is_true = |rule: &usize| results[*rule] == Ok(true);
            for rule in (0..group.len()).filter(is_true) {
                assert!(found.contains(&rule), "{:?} is true of {}", group[rule].source(), text.as_ref());
            }
            let first = found.iter().copied().find(is_true);
            assert_eq!(first, (0..group.len()).find(is_true));
            seen.candidates += found.len();
            seen.matches += (0..group.len()).filter(is_true).count();
            seen.errors += results.iter().filter(|result| result.is_err()).count();
        }
    }
    seen
}

/// Sources of the candidates of one record.
fn candidates(rules: &[&str], record: &str) -> Vec<String> {
    let mut plan = FieldPlan::new();
    let compiled: Vec<Rule> = rules
        .iter()
        .map(|text| Rule::compile(text, &mut plan, &Limits::default()).expect("the rule compiles"))
        .collect();
    let index = RuleIndex::build(&[compiled.iter().collect()]);
    let mut decode = DecodeScratch::default();
    let decoder = plan.build();
    let record = decoder.decode(record.as_bytes(), &mut decode).expect("the record is valid");
    let mut scratch = IndexScratch::default();
    index.candidates(&record, &mut scratch).of_group(0).map(|rule| rules[rule].to_owned()).collect()
}

#[test]
fn mixed_rules_over_real_records() {
    let records: Vec<&str> = RECORDS.lines().collect();
    let rules: Vec<&str> = TYPICAL.lines().chain(MIXED.lines()).collect();
    let seen = compare(std::slice::from_ref(&rules), &records);
    assert!(seen.matches > 10, "{seen:?}");
    // The index is there to leave out nearly everything.
    assert!(seen.candidates < records.len() * 10, "{seen:?}");
    let groups: Vec<Vec<&str>> = rules.chunks(67).map(<[&str]>::to_vec).collect();
    let split = compare(&groups, &records);
    assert_eq!((split.candidates, split.matches), (seen.candidates, seen.matches));
}

/// Records made of the texts that the rules look for, so that most rules are true of some.
#[test]
fn mixed_rules_over_records_made_for_them() {
    let texts: BTreeSet<&str> = MIXED.split('"').skip(1).step_by(2).collect();
    let texts: Vec<&str> = texts.into_iter().filter(|text| !text.contains('\\')).collect();
    let mut random = fastrand::Rng::with_seed(7);
    let mut pick = || texts[random.usize(..texts.len())].trim_start_matches('^');
    let operations = ["read", "create", "update", "delete", "list", "sudo", "patch", "renew", "revoke"];
    let mut records = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let path = match number % 4 {
            0 => format!("{text}x"),
            1 => format!("{}/{text}", pick()),
            2 => text.to_uppercase(),
            _ => (*text).to_owned(),
        };
        let record = serde_json::json!({
            "type": if number % 2 == 0 { "request" } else { "response" },
            "error": if number % 3 == 0 { "1 error: permission denied" } else { "" },
            "auth": {"display_name": text, "policies": [pick(), text, pick(), "a-admin", "b-admin"], "token_policies": [text, pick()],
                "policy_results": {"allowed": number % 5 != 0}},
            "request": {"path": path, "operation": operations[number % operations.len()], "mount_point": pick(), "mount_type": "kv",
                "remote_address": text},
        });
        records.push(record.to_string());
    }
    let rules: Vec<String> = MIXED.lines().map(str::to_owned).collect();
    let seen = compare(&rules.chunks(250).map(<[String]>::to_vec).collect::<Vec<_>>(), &records);
    assert!(seen.matches > 500, "{seen:?}");
}

/// Which of some rules are looked at, for a record that has the witness and for one that has not.
#[test]
fn rules_are_looked_up_by_their_best_part() {
    let with = r#"{"type":"request","error":"x: denied y","auth":{"policies":["p","b\u0065st"],"display_name":"Ann-Lee"},
        "request":{"path":"kv/data/app","operation":"read"}}"#;
    let without = r#"{"type":"request","error":null,"auth":{"policies":["q",null]},"request":{"path":"sys/x","operation":"read"}}"#;
    for rule in [
        r#"Request.Path == "kv/data/app""#,
        r#"Request.Operation == "read" && "kv/data/app" == Request.Path"#,
        r#"Type == "request" && Request.Path in ["a", "kv/data/app"] && Request.Operation in ["read", "list"]"#,
        r#"Request.Path startsWith "kv/" && Request.Path != """#,
        r#"Request.Path endsWith "/app""#,
        r#"Request.Path contains "data""#,
        r#"Request.Path matches "^kv/[a-z]+/app$""#,
        r#"Request.Path matches "data/(app|web)""#,
        r#""best" in Auth.Policies"#,
        r#"any(Auth.Policies, # == "p")"#,
        r#"one(Auth.Policies, # startsWith "bes")"#,
        r#"any(Auth.Policies, # in ["best", "worst"])"#,
        r#""p" in record.auth.policies"#,
        r#"any(record.auth.policies, # == "p")"#,
        r#"any(record.auth.policies, "p" == #)"#,
        r#"any(record.auth.policies, # startsWith "be")"#,
        r#"record.request.path == "kv/data/app""#,
        r#"record.request.path in ["kv/data/app", "b"]"#,
        r#"record.request.path startsWith "kv/""#,
        r#"Error contains "denied" && len(Auth.Policies) > 1"#,
        r#"(Request.Path == "nowhere" || Error contains "denied") && Type == "request""#,
        r#"lower(Auth.DisplayName) == "ann-lee""#,
        r#"upper(Auth.DisplayName) startsWith "ANN""#,
        r#"let n = lower(Auth.DisplayName); n startsWith "ann-" || n endsWith "-bob""#,
        r#"split(Request.Path, "/")[0] == "kv""#,
        r#"not (Request.Path startsWith "sys/") and split(Request.Path, "/")[0] in ["kv", "pki"]"#,
        r#"Request.Operation == "delete" ? Request.Path == "x" : Request.Path startsWith "kv/""#,
        r#"not (not (Request.Path startsWith "kv/"))"#,
        r#"hasPrefix(Request.Path, "kv/")"#,
    ] {
        let seen = compare(&[vec![rule]], &[with, without]);
        assert_eq!((seen.matches, seen.candidates), (1, 1), "{rule}");
        assert_eq!(candidates(&[rule], with), [rule]);
    }
}

#[test]
fn rules_that_cannot_be_reduced_are_always_candidates() {
    for rule in [
        "true",
        r#"Request.Path != "a""#,
        r#"not (Request.Path startsWith "kv/")"#,
        r#"Request.Path startsWith """#,
        r#"Request.Path matches "a*""#,
        r#"Request.Path == "x" || len(Auth.Policies) == 0"#,
        r#"all(Auth.Policies, # == "p")"#,
        r#"none(Auth.Policies, # == "p")"#,
        "Request.RemotePort == 0",
        r#""Allowed" in Auth.PolicyResults"#,
        r#""x" in Request.Headers"#,
        r#"Request.RemotePort > 3 ? Request.Path == "x" : true"#,
    ] {
        assert_eq!(candidates(&[rule], "{}"), [rule]);
    }
    assert!(candidates(&["false", r#"Request.Path matches "[^\\x00-\\x{10FFFF}]""#], "{}").is_empty());
}

#[test]
fn weak_parts_are_used_for_want_of_better_ones() {
    let rules = [
        r#"Request.Operation == "read""#,
        r#"Type == "request" && Auth.PolicyResults.Allowed"#,
        "not Auth.PolicyResults.Allowed",
        "Auth.PolicyResults.Allowed == true",
    ];
    let record = |operation, allowed: &str| {
        format!(
            r#"{{"type":"request","request":{{"operation":"{operation}"}},"auth":{{"policy_results":{allowed}}}}}"#
        )
    };
    assert_eq!(candidates(&rules, &record("list", r#"{"allowed":false}"#)), [rules[1], rules[2]]);
    assert_eq!(candidates(&rules, &record("list", "null")), [rules[1], rules[2]]);
    assert_eq!(candidates(&rules, &record("read", r#"{"allowed":true}"#)), [rules[0], rules[1], rules[3]]);
}

/// A mistyped field makes the rules that look there fail, as without the index.
#[test]
fn rules_over_mistyped_fields_stay_candidates() {
    let rules = [
        r#"Request.Path == "a""#,
        r#"Type == "request" && lower(Request.Path) startsWith "a""#,
        r#""p" in Auth.Policies"#,
        r#"Auth.DisplayName == "d""#,
    ];
    let record = r#"{"request":{"path":7},"auth":{"policies":["p",{}],"display_name":"e"}}"#;
    assert_eq!(candidates(&rules, record), rules[..3]);
    assert_eq!(candidates(&rules[2..], r#"{"auth":{"policies":"p"}}"#), rules[2..3]);
    // Letters beyond ASCII are left to the rule.
    assert_eq!(candidates(&rules[1..2], r#"{"request":{"path":"É"}}"#), rules[1..2]);
}

#[test]
fn no_rules_no_candidates() {
    assert!(candidates(&[], "{}").is_empty());
    let index = RuleIndex::build(&[vec![], vec![]]);
    let mut decode = DecodeScratch::default();
    let decoder = FieldPlan::new().build();
    let record = decoder.decode(b"{}", &mut decode).expect("valid");
    let mut scratch = IndexScratch::default();
    let candidates = index.candidates(&record, &mut scratch);
    assert_eq!((0..4).map(|group| candidates.of_group(group).count()).sum::<usize>(), 0);
}

fn members(set: &RuleSet) -> Vec<usize> {
    std::iter::successors(set.next(0), |rule| set.next(rule + 1)).collect()
}

#[test]
fn many_finds_in_one_text_are_given_up() {
    let texts: Texts = vec![(Box::from(*b"aa"), vec![0]), (Box::from(*b"b"), vec![1])];
    let anywhere = Anywhere::new(&texts).expect("a small automaton");
    let mut found = RuleSet::with_room(2);
    assert!(anywhere.find(&[b'a'; 60], &mut found));
    assert_eq!(members(&found), [0]);
    assert!(!anywhere.find(&[b'a'; 600], &mut found));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn beginnings_are_found_as_by_comparing_each(
        common in "(|[ab]{12,17})",
        equals in prop::collection::btree_set("[ab\\x{ff}\\x00]{0,4}", 0..12),
        starts in prop::collection::btree_set("[ab\\x{ff}\\x00]{1,4}", 0..12),
        bare in prop::collection::btree_set("[ab\\x00]{1,2}", 0..2),
        text in "[abc\\x{ff}\\x00]{0,6}",
    ) {
        // Some share more than what is compared as a number.
        let longer = |texts: BTreeSet<String>| -> BTreeSet<String> {
            texts.into_iter().map(|text| format!("{common}{text}")).chain(bare.iter().cloned()).collect()
        };
        let (equals, starts, text) = (longer(equals), longer(starts), format!("{common}{text}"));
        let numbered = |texts: &BTreeSet<String>, from: u32| -> Texts {
            texts.iter().zip(from..).map(|(text, rule)| (text.as_bytes().into(), vec![rule])).collect()
        };
        let table = Beginnings::new(numbered(&equals, 0), numbered(&starts, 100));
        let mut found = RuleSet::with_room(200);
        table.find(text.as_bytes(), &mut found);
        let mut want: Vec<usize> = Vec::new();
        want.extend(equals.iter().enumerate().filter(|(_, known)| **known == text).map(|(rule, _)| rule));
        want.extend(starts.iter().enumerate().filter(|(_, known)| text.starts_with(*known)).map(|(rule, _)| rule + 100));
        prop_assert_eq!(members(&found), want);
    }

    #[test]
    fn random_rules_match_as_in_the_plain_scan(
        mut groups in prop::collection::vec(prop::collection::vec(rule(), 0..12), 1..4),
        records in prop::collection::vec(record(), 1..12),
    ) {
        // A variable within another one of its name is refused.
        let compiles = |text: &String| Rule::compile(text, &mut FieldPlan::new(), &Limits::default()).is_ok();
        groups.iter_mut().for_each(|group| group.retain(compiles));
        compare(&groups, &records);
    }
}

/// Short texts over few letters, so that they meet often.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab/]{1,3}",
        1 => Just(String::new()),
        1 => "[aAbBé]{1,2}",
        1 => Just("read".to_owned()),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let shapes = prop::sample::select(LEAVES);
    let leaf = (shapes, text(), text()).prop_map(|(shape, a, b)| {
        shape.replace('X', &format!("{a:?}")).replace('Y', &format!("{b:?}")).replace('~', &a)
    });
    leaf.prop_recursive(4, 24, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            4 => pair.clone().prop_map(|(a, b)| format!("({a} && {b})")),
            3 => pair.clone().prop_map(|(a, b)| format!("({a} or {b})")),
            1 => inner.clone().prop_map(|a| format!("not ({a})")),
            1 => pair.clone().prop_map(|(a, b)| format!("(let v = {a}; v && {b})")),
            1 => pair.prop_map(|(a, b)| format!("(({a}) == ({b}))")),
            1 => (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(({a}) ? ({b}) : ({c}))")),
        ]
    })
}

const LEAVES: &[&str] = &[
    "Request.Path == X",
    "X == Request.Path",
    "Request.Path != X",
    "Request.Path in [X, Y]",
    "Request.Path not in [X, Y]",
    "Request.Path startsWith X",
    "Request.Path endsWith X",
    "Request.Path contains X",
    "Request.Path matches \"^~\"",
    "Request.Path matches \"~$\"",
    "Request.Path matches \"^(~|b)/?a$\"",
    "Request.Path matches \"(?i)~\"",
    "Request.Path matches \"[ab]~\"",
    "hasPrefix(Request.Path, X)",
    "hasSuffix(Request.Path, X)",
    "Request.Operation == X",
    "Request.Operation in [X, \"read\"]",
    "Type == \"request\"",
    "Error != \"\"",
    "Error contains X",
    "X in Auth.Policies",
    "X not in Auth.Policies",
    "any(Auth.Policies, # == X)",
    "any(Auth.Policies, # startsWith X)",
    "any(Auth.Policies, # in [X, Y])",
    "any(Auth.Policies, not (# == X))",
    "one(Auth.Policies, # endsWith X)",
    "all(Auth.Policies, # == X)",
    "none(Auth.Policies, # contains X)",
    "count(Auth.Policies, # startsWith X) >= 2",
    "lower(Request.Path) == X",
    "lower(Request.Path) startsWith X",
    "upper(Request.Path) endsWith X",
    "(let p = lower(Request.Path); p startsWith X || p endsWith Y)",
    "(let p = Request.Path; let q = p; q contains X)",
    "split(Request.Path, \"/\")[0] == X",
    "split(Request.Path, X)[0] endsWith Y",
    "splitAfter(lower(Request.Path), \"/\")[0] in [X, Y]",
    "split(Request.Path, \"/\")[1] == X",
    "record.request.path == X",
    "record.request.path startsWith X",
    "record.request.path in [X, Y]",
    "record.request?.path contains X",
    "X in record.auth.policies",
    "any(record.auth.policies, # == X)",
    "any(record.auth.policies, # endsWith X)",
    "record.auth.policies[0] == X",
    "Auth.PolicyResults.Allowed",
    "Auth.PolicyResults.Allowed == false",
    "record.auth.policy_results.allowed == true",
    "Request.RemotePort > 1",
    "X in Request",
    "\"Path\" in Request",
    "\"Allowed\" in Auth.PolicyResults",
    "X in Request.Headers",
    "X in record.request",
    "record.request.operation == nil",
    "record.request.path not in [X, \"\"]",
    "Request.Path == Request.Operation",
    "(record.request.path ?? X) == Y",
    "(Request.Path startsWith X) == Auth.PolicyResults.Allowed",
    "any([X, Request.Path], # == Y)",
    "any(filter(Auth.Policies, # startsWith X), # endsWith Y)",
    "len(filter(Auth.Policies, # == X)) > 0",
    "count(Auth.Policies, # == X) > 0",
    "any(record.auth.policies, # == X and # == Y)",
    "find(Auth.Policies, # == X) != nil",
    "lower(split(Request.Path, \"/\")[0]) == X",
    "Request.Path < X",
    "trim(Request.Path) == X",
    "Request.Path + X == Y",
    "[true, false][Request.RemotePort]",
    "int(Request.Path) > 0",
    "true",
    "false",
];

/// A record whose fields may be absent, null or mistyped.
fn record() -> impl Strategy<Value = String> {
    let quoted = || {
        prop_oneof![
            8 => text().prop_map(|text| format!("{text:?}")),
            1 => Just(r#""\u0061\/b""#.to_owned()),
            1 => prop::sample::select(vec!["null", "7", "true", "[]", "[\"a\"]", "{}", "{\"a\":\"b\"}"]).prop_map(str::to_owned),
        ]
    };
    let policies = prop_oneof![
        8 => prop::collection::vec(quoted(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
        1 => quoted(),
    ];
    let allowed = prop::sample::select(vec!["true", "false", "null", "1"]);
    let fields = (quoted(), quoted(), quoted(), policies, allowed, 0..4_u8, any::<u8>());
    fields.prop_map(|(path, operation, error, policies, allowed, port, there)| {
        let field = |bit: u8, text: String| if there & bit == 0 { "\"x\":0".to_owned() } else { text };
        // Sometimes the parent is no object.
        let request = if there % 16 == 15 { r#""request":7,"x":"# } else { r#""request":"# };
        format!(
            r#"{{"type":"request",{},"auth":{{{},"policy_results":{{{}}}}},{request}{{{},{},"remote_port":{port}}}}}"#,
            field(1, format!(r#""error":{error}"#)),
            field(2 | 4, format!(r#""policies":{policies}"#)),
            field(2, format!(r#""allowed":{allowed}"#)),
            field(8 | 16 | 32, format!(r#""path":{path}"#)),
            field(64, format!(r#""operation":{operation}"#)),
        )
    })
}
