//! Patterns that are made to cost much.

use super::super::*;

fn message(pattern: &str) -> String {
    GoRegex::new(pattern).unwrap_err().message
}

#[test]
fn nested_counts_are_multiplied() {
    assert_eq!(message("((((x{10}){10}){10}){10})"), "invalid repeat count");
    assert_eq!(message("(a{1000}){2}"), "invalid repeat count");
    assert_eq!(message("a{1001}"), "invalid repeat count");
    assert_eq!(message("((a{0}){1000}b{1000}){2}"), "invalid repeat count");
    for pattern in [
        "((x{10}){10}){10}",
        "(a{1000}){1}",
        "(a{0}){1000}",
        "((a{999}){0}){1000}",
        "(a{1000})*",
        "(a*){1000}",
    ] {
        assert!(GoRegex::new(pattern).is_ok(), "{pattern}");
    }
}

#[test]
fn groups_may_nest_a_thousand_levels() {
    let nested = |open: &str, levels: usize, inner: &str, close: &str| {
        GoRegex::new(&format!("{}{inner}{}", open.repeat(levels), close.repeat(levels)))
    };
    assert!(nested("(", 999, "a", ")").unwrap().is_match("a"));
    assert_eq!(nested("(", 1000, "a", ")").unwrap_err().message, "expression nests too deeply");
    assert!(nested("(?:", 5000, "a", ")").unwrap().is_match("a"));
    assert!(nested("(", 400, "a", ")*").unwrap().is_match(""));
    assert!(nested("(?:a(?:b|", 124, "c", "))").unwrap().is_match("ab"));
    assert!(nested("(?:x", 82, "a", "|b){0,1}").unwrap().is_match(""));
    assert!(nested("(?:x", 82, "a", "|b)+").unwrap().is_match("b"));
    assert!(nested("(a", 490, "b", "c)").unwrap().is_match(&format!(
        "{}b{}",
        "a".repeat(490),
        "c".repeat(490)
    )));
    assert_eq!(nested("(?:a(?:b|", 400, "c", "))").unwrap_err().message, "expression nests too deeply");
    assert_eq!(nested("(?:x(?:", 200, "a", ")*y)*").unwrap_err().message, "expression nests too deeply");
    assert_eq!(nested("(", 30_000, "a", ")").unwrap_err().message, "expression nests too deeply");
    assert_eq!(nested("(", 30_000, "a", "").unwrap_err().message, "missing closing )");
    // Branches that are alike are compared from top to bottom.
    let deep = format!("{}c{}", "(?:a(?:b|".repeat(60), "))".repeat(60));
    assert!(GoRegex::new(&format!("(?:x{deep})|(?:x{deep})")).unwrap().is_match("xab"));
}

#[test]
fn costly_patterns_are_answered() {
    for (pattern, text, want) in [
        ("(a*)*", "b".to_owned(), true),
        ("^(a*)*$", format!("{}b", "a".repeat(5000)), false),
        ("^(a|aa)+$", format!("{}b", "a".repeat(5000)), false),
        ("^(a?){500}a{500}$", "a".repeat(500), true),
        ("(x+x+)+y", "x".repeat(3000), false),
        (".{1000}", "é".repeat(1001), true),
        ("^.{1000}$", "é".repeat(1001), false),
        ("[a-c]{500}d", format!("{}d", "abc".repeat(200)), true),
        ("(?s).*.*.*.*=.*", "x".repeat(5000), false),
        (r"(?i)\p{Lu}{20}", "é".repeat(20), true),
    ] {
        assert_eq!(GoRegex::new(pattern).unwrap().is_match(&text), want, "{pattern}");
    }
}

#[test]
fn programs_have_a_size_limit() {
    for pattern in [r"\pL{1000}".to_owned(), r"(\pL\pN\pS){300}".to_owned(), r"[\pL]".repeat(10_000)] {
        assert!(message(&pattern).starts_with("expression too large"), "{}", &pattern[..9]);
        let checked = GoRegex::check(&pattern, &RegexLimits::default()).unwrap_err();
        assert_eq!(checked, GoRegex::new(&pattern).unwrap_err());
    }
    assert!(GoRegex::new(r"\pL{120}x").unwrap().is_match(&format!("{}x", "é".repeat(120))));
    let limits = RegexLimits { program_bytes_max: 10_000, ..RegexLimits::default() };
    assert!(GoRegex::with_limits("^[^/]+/x", &limits).is_ok());
    let error = GoRegex::with_limits("[a-z]{900}", &limits).unwrap_err();
    assert!(error.to_string().contains("10000 bytes"), "{error}");
}

#[test]
fn huge_classes_are_merged() {
    for group in [r"\pL", r"\PL", "a-z", "[:^alpha:]", r"\W", r"\p{Greek}"] {
        let pattern = format!("^[{}]$", group.repeat(60_000 / group.len()));
        let want = !matches!(group, r"\PL" | "a-z");
        assert_eq!(GoRegex::new(&pattern).unwrap().is_match("α"), want, "{group}");
        assert_eq!(GoRegex::new(&format!("(?i){pattern}")).unwrap().is_match("α"), want, "{group}");
    }
    // Each `[:` looks for its end.
    assert!(GoRegex::new(&format!("[{}x]", "[:".repeat(30_000))).unwrap().is_match(":"));
    assert!(GoRegex::new(&r"(?i)[\x00-\x{10FFFF}]".repeat(2500)).is_ok());
}

#[test]
fn patterns_have_a_length_limit() {
    assert!(GoRegex::new(&"a".repeat(64 * 1024)).is_ok());
    let error = GoRegex::new(&"é".repeat(64 * 1024)).unwrap_err();
    assert!(error.message.contains("131072 bytes, at most 65536"), "{error}");
    assert!(error.fragment.len() < 80);
    assert_eq!(error.span, 0..131_072);
}

#[test]
fn large_alternations_are_answered() {
    let words: Vec<String> = (0..5000).map(|n| format!("team{n}/x")).collect();
    let regex = GoRegex::new(&format!("^(?:{})$", words.join("|"))).unwrap();
    assert!(regex.is_match("team4999/x"));
    assert!(!regex.is_match("team5000/x"));
    let repeated = ["a.", "b.", "c.", "dd"].repeat(2000).join("|");
    assert!(GoRegex::new(&repeated).unwrap().is_match("ab"));
}
