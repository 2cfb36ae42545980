//! Go's answers, as tables; a plain engine as oracle for the fast ways; limits; texts that are not UTF-8.

mod generate;
mod limits;

use std::collections::BTreeSet;

use fastrand::Rng;
use proptest::prelude::*;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{self, NFA};
use regex_syntax::hir::{Class, HirKind};
use serde_json::{Value, json};

use super::*;

const GO: &str = include_str!("../../../../tests/data/conformance/regex_go.jsonl");
const GENERATED: &str = include_str!("../../../../tests/data/rules/regex_generated.jsonl");
const BYTES: &str = include_str!("../../../../tests/data/rules/regex_bytes.jsonl");
const UNICODE: &str = include_str!("../../../../tests/data/rules/regex_unicode.jsonl");

/// `true`, `false` or the error, in the form of the tables.
fn answer(pattern: &str, text: &str) -> Value {
    match GoRegex::new(pattern) {
        Ok(regex) => json!(regex.is_match(text)),
        Err(error) => json!({"error": error.to_string()}),
    }
}

/// Compares every row with our answer and returns the number of rows.
fn verify(rows: &str) -> usize {
    let mut differences = Vec::new();
    let mut count = 0;
    for line in rows.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (pattern, text) = (row["pattern"].as_str().unwrap(), row["haystack"].as_str().unwrap());
        let got = answer(pattern, text);
        if got != row["want"] {
            differences.push(format!("{pattern:?} in {text:?}: Go {}, here {got}", row["want"]));
        }
        count += 1;
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    count
}

#[test]
fn go_conformance() {
    assert!(verify(GO) > 150);
}

#[test]
fn go_generated() {
    assert!(verify(GENERATED) > 400);
}

/// Writes pairs of pattern and text for Go's `regexp` to answer, or compares with what it answered (a key `want` in
/// each row, as in the tables). Of use with Go at hand only.
#[test]
#[ignore = "writes regex-pairs.jsonl into the temporary directory, or reads regex-answers.jsonl from there"]
fn go_differential() {
    let answers = std::env::temp_dir().join("regex-answers.jsonl");
    if let Ok(rows) = std::fs::read_to_string(&answers) {
        verify(&rows);
        return;
    }
    let mut rows = String::new();
    for seed in 1..=60_000 {
        let mut rng = Rng::with_seed(seed);
        let pattern = generate::pattern(&mut rng);
        let text = generate::text(&mut rng, &pattern);
        rows.push_str(&json!({"pattern": pattern, "haystack": text}).to_string());
        rows.push('\n');
    }
    std::fs::write(std::env::temp_dir().join("regex-pairs.jsonl"), rows).unwrap();
}

fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Each property that Go knows, plain and under `(?i)`, has the code points that it has in Go.
#[test]
fn unicode_properties_are_those_of_go() {
    let mut compared = 0;
    for line in UNICODE.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let pattern = row["pattern"].as_str().unwrap();
        let parsed = parse::parse(pattern, &RegexLimits::default());
        if row["refused"] == json!(true) {
            assert_eq!(parsed.unwrap_err().message, "invalid character class range", "{pattern}");
            continue;
        }
        let ranges: Vec<(char, char)> = match parsed.unwrap().kind() {
            HirKind::Class(Class::Unicode(class)) => {
                class.ranges().iter().map(|r| (r.start(), r.end())).collect()
            }
            HirKind::Literal(literal) => {
                std::str::from_utf8(&literal.0).unwrap().chars().map(|c| (c, c)).collect()
            }
            HirKind::Class(Class::Bytes(class)) if class.ranges().is_empty() => Vec::new(),
            other => panic!("{pattern}: {other:?}"),
        };
        let count: usize = ranges.iter().map(|&(lo, hi)| (lo..=hi).count()).sum();
        assert_eq!(json!(count), row["code_points"], "{pattern}");
        let text: String =
            ranges.iter().map(|&(lo, hi)| format!("{:x}-{:x};", lo as u32, hi as u32)).collect();
        assert_eq!(json!(format!("{:016x}", fnv1a(&text))), row["fnv1a"], "{pattern}");
        let complement = parse::parse(&pattern.replace("[", "[^"), &RegexLimits::default()).unwrap();
        let outside = |c: char| !ranges.iter().any(|&(lo, hi)| lo <= c && c <= hi);
        for c in ['\0', '\u{D7FE}', '\u{D7FF}', '\u{E000}', '\u{E001}', char::MAX] {
            let found = match complement.kind() {
                HirKind::Class(Class::Unicode(class)) => {
                    class.ranges().iter().any(|range| range.start() <= c && c <= range.end())
                }
                _ => false,
            };
            assert_eq!(found, outside(c), "complement of {pattern}, {c:?}");
        }
        compared += 1;
    }
    assert!(compared > 300);
}

/// `unicode.SimpleFold` of Go 1.26 for every code point that has one: a hash over lines `code next\n`, decimal.
#[test]
fn case_folding_is_that_of_go() {
    let mut lines = String::new();
    // Code points outside of this table fold to themselves by construction.
    for c in unicode::FOLDING.ranges().iter().flat_map(|range| range.start()..=range.end()) {
        let orbit: BTreeSet<char> =
            unicode::fold_char(c).ranges().iter().flat_map(|range| range.start()..=range.end()).collect();
        let next = orbit.range(c..).nth(1).or(orbit.first()).copied().unwrap_or(c);
        if next != c {
            lines.push_str(&format!("{} {}\n", c as u32, next as u32));
        }
    }
    assert_eq!((lines.lines().count(), fnv1a(&lines)), (2878, 0x2d31957c681cc9b3));
}

/// Searches with the tree as it was parsed, in the plainest way that there is.
fn oracle(pattern: &str, text: &[u8]) -> bool {
    let hir = parse::parse(pattern, &RegexLimits::default()).unwrap();
    let nfa: NFA = thompson::Compiler::new().build_from_hir(&hir).unwrap();
    let vm = PikeVM::builder().build_from_nfa(nfa).unwrap();
    vm.is_match(&mut vm.create_cache(), text)
}

fn assert_required_holds(regex: &GoRegex, text: &str) {
    let required = regex.required_literals();
    let holds = |set: &Option<Vec<String>>, test: &dyn Fn(&str) -> bool| {
        set.as_ref().is_none_or(|set| set.iter().any(|member| test(member)))
    };
    assert!(holds(&required.exact, &|member| text == member), "{regex:?} {text:?} {required:?}");
    assert!(holds(&required.prefixes, &|member| text.starts_with(member)), "{regex:?} {text:?} {required:?}");
    assert!(holds(&required.suffixes, &|member| text.ends_with(member)), "{regex:?} {text:?} {required:?}");
    assert!(holds(&required.contains, &|member| text.contains(member)), "{regex:?} {text:?} {required:?}");
    let longer = [&required.prefixes, &required.suffixes, &required.contains];
    assert!(longer.into_iter().flatten().flatten().all(|member| !member.is_empty()), "{required:?}");
}

/// Every way to search agrees with the oracle, and the required texts are in every text that matches.
#[test]
fn fast_ways_agree_with_the_oracle() {
    let meta_only = RegexLimits { dfa_bytes_max: 0, ..RegexLimits::default() };
    let (mut matched, mut kinds) = (0, BTreeSet::new());
    for seed in 1..=400 {
        let mut rng = Rng::with_seed(seed);
        let pattern = generate::pattern(&mut rng);
        let Ok(regex) = GoRegex::new(&pattern) else { continue };
        let by_meta = GoRegex::with_limits(&pattern, &meta_only).unwrap();
        kinds.extend([&regex, &by_meta].map(|regex| match &regex.engine {
            Engine::Dfa(..) => "dfa",
            Engine::Meta(..) => "meta",
            _ => "literal",
        }));
        for _ in 0..3 {
            let text = generate::text(&mut rng, &pattern);
            let want = oracle(&pattern, text.as_bytes());
            assert_eq!(regex.is_match(&text), want, "{pattern:?} {text:?}");
            assert_eq!(by_meta.is_match(&text), want, "meta: {pattern:?} {text:?}");
            assert_eq!(regex.is_match_bytes(text.as_bytes()), want, "bytes: {pattern:?} {text:?}");
            if want {
                matched += 1;
                assert_required_holds(&regex, &text);
            }
        }
    }
    assert!(matched > 200, "{matched}");
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["dfa", "literal", "meta"]);
}

#[test]
fn plain_patterns_become_comparisons() {
    use LiteralTest::*;
    for (pattern, want) in [
        ("", Some(Always)),
        ("^", Some(Always)),
        ("(?m)x*$", None),
        ("x*$", Some(Always)),
        ("(a*)*", Some(Always)),
        ("^$", Some(Equals(""))),
        (r"\Asys/\z", Some(Equals("sys/"))),
        ("^sys/", Some(StartsWith("sys/"))),
        ("^sys/.*", Some(StartsWith("sys/"))),
        ("^(sys)/(.*)(/x)?", Some(StartsWith("sys/"))),
        (r"^\Qa.b\E", Some(StartsWith("a.b"))),
        ("(?i)^1/", Some(StartsWith("1/"))),
        ("(?i)^s/", None),
        (r"\.key$", Some(EndsWith(".key"))),
        (".*login.*", Some(Contains("login"))),
        ("(?:log)(in)", Some(Contains("login"))),
        ("[l]ogin", Some(Contains("login"))),
        ("login$.*", Some(EndsWith("login"))),
        ("(?m)^sys/", None),
        ("^.*login", None),
        ("a|b", None),
        ("\u{fffd}", None),
        (r"a\x{D800}", Some(Never)),
        (r"[^\x00-\x{10FFFF}]b", Some(Never)),
        (r"[^\x00-\x{D7FF}\x{E000}-\x{10FFFF}]", Some(Never)),
        (r"x(?:[^\PC\pC]|\x{DFFF}+)", Some(Never)),
        (r"^a(?:[^\PC\pC]b)?", Some(StartsWith("a"))),
    ] {
        assert_eq!(GoRegex::new(pattern).unwrap().literal_test(), want, "{pattern}");
    }
}

#[test]
fn required_texts() {
    let set = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let get = |pattern: &str| GoRegex::new(pattern).unwrap().required_literals().clone();

    let prefix = get("^sys/polic(y|ies/acl)/");
    assert_eq!((prefix.exact, prefix.prefixes), (None, set(&["sys/policies/acl/", "sys/policy/"])));
    let login = get("^auth/[^/]+/login(/|$)");
    assert_eq!((login.prefixes, login.suffixes, login.contains), (set(&["auth/"]), None, set(&["/login"])));
    let metadata = get("^[^/]+/(metadata|destroy)/");
    assert_eq!((metadata.prefixes, metadata.contains), (None, set(&["/destroy/", "/metadata/"])));
    let network = get(r"^172\.(1[6-9]|2[0-9]|3[01])\.");
    assert_eq!(network.prefixes.as_ref().map(Vec::len), Some(16));
    assert_eq!(get("^(a|b)$").exact, set(&["a", "b"]));
    assert_eq!(get("(?i)^ab").prefixes, set(&["AB", "Ab", "aB", "ab"]));
    assert_eq!(get("prod/[a-z]+$").contains, set(&["prod/"]));
    assert_eq!(get("^[^/]+[.]key$").suffixes, set(&[".key"]));
    assert_eq!(get("root|admin").contains, set(&["admin", "root"]));
    assert_eq!(get("abc|abcd|b").contains, set(&["b"]));
    assert_eq!(get(".+"), Required::default());
    assert_eq!(get(r"\x{D800}").contains, set(&[]));
    assert_eq!(get("\u{fffd}"), Required::default());
    let long = format!("^{}", "x".repeat(1000));
    assert_eq!(get(&long).prefixes, set(&["x".repeat(256).as_str()]));
}

#[test]
fn errors_point_into_the_pattern() {
    for (pattern, span, message) in [
        ("a[b", 1..3, "missing closing ]"),
        ("xa**", 2..4, "invalid nested repetition operator"),
        ("é\\h", 2..4, "invalid escape sequence"),
        ("ab\\", 3..3, "trailing backslash at end of expression"),
        ("(a", 0..2, "missing closing )"),
        ("a(?P<é>b)", 1..8, "invalid named capture"),
        ("[z-a]", 1..4, "invalid character class range"),
    ] {
        let error = GoRegex::new(pattern).unwrap_err();
        assert_eq!((error.span.clone(), error.message.as_str()), (span, message), "{pattern}");
        assert_eq!(error.fragment, pattern[error.span.clone()]);
    }
}

/// Go's answers for strings with invalid UTF-8.
#[test]
fn bytes_that_are_not_utf8_count_as_one_replacement_character_each() {
    for line in BYTES.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let hex = row["hex"].as_str().unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let text: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let regex = GoRegex::new(row["pattern"].as_str().unwrap()).unwrap();
        assert_eq!(json!(regex.is_match_bytes(&text)), row["want"], "{regex:?} in {text:?}");
    }
}

#[test]
fn several_threads_search_at_once() {
    let large = format!("(?:{}){{9}}", (0..100).map(|n| format!("w{n}x?")).collect::<Vec<_>>().join("|"));
    for (pattern, hit, miss) in [
        ("^auth/[^/]+/login(/|$)", "auth/a/login".to_owned(), "auth/login".to_owned()),
        (large.as_str(), "w7".repeat(9), "w7".repeat(8)),
    ] {
        let regex = GoRegex::new(pattern).unwrap();
        assert_eq!(matches!(regex.engine, Engine::Meta(..)), pattern == large);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert!(regex.is_match(&hit));
                        assert!(!regex.is_match(&miss));
                    }
                });
            }
        });
    }
}

#[test]
fn a_regex_tells_its_pattern_and_its_size() {
    for (pattern, least) in [("", 0), ("abc", 6), ("^abc", 7), ("abc$", 7), ("^abc$", 8), ("a.c", 100)] {
        let regex = GoRegex::new(pattern).unwrap();
        assert_eq!(regex.pattern(), pattern);
        assert!(regex.memory_bytes() >= least, "{pattern}: {}", regex.memory_bytes());
        assert_eq!(format!("{regex:?}"), format!("GoRegex({pattern:?})"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any text is a pattern or an error that points into it.
    #[test]
    fn any_pattern_is_answered(pattern in r"[\[\](){}?*+|\\^$.:<>PQEpxi,0-9a-c&é -]{0,40}", text in ".{0,12}") {
        match GoRegex::new(&pattern) {
            Ok(regex) => {
                let matched = regex.is_match(&text);
                prop_assert_eq!(matched, oracle(&pattern, text.as_bytes()));
                if matched {
                    assert_required_holds(&regex, &text);
                }
            }
            Err(error) => prop_assert_eq!(Some(error.fragment.as_str()), pattern.get(error.span.clone())),
        }
    }

    #[test]
    fn any_unicode_pattern_is_answered(pattern in any::<String>(), bytes in any::<Vec<u8>>()) {
        if let Ok(regex) = GoRegex::new(&pattern) {
            regex.is_match_bytes(&bytes);
        }
    }
}
