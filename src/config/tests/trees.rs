//! YAML as viper reads it, and YAML that nobody should write.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn keys_are_as_in_viper() {
    let text = "VAULT.Audit_Path: p\nvault:\n  Audit_Description: d\nasync.retry.backoff: 1s\nasync:\n  retry.max_attempts: \"4\"\nlisten:\n";
    let loaded = load_text("viper", text, Overrides::default()).expect("right");
    assert_eq!(loaded.config.vault.audit_path, "p");
    assert_eq!(loaded.config.vault.audit_description, "d");
    assert_eq!(loaded.config.side_effects.backoff, Duration::from_secs(1));
    assert_eq!(loaded.config.side_effects.max_attempts, Some(4));
    assert!(
        loaded.warnings.iter().any(|w| w.line == 6 && w.what == "a number in quotes"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn anchors_and_merges_are_applied() {
    let text = "rule_groups:\n  - &first\n    name: a\n    rules: &r ['true']\n    log_file: &lf { file_path: a.log, max_size: 5 }\n  - name: b\n    rules: *r\n    log_file: { <<: *lf, file_path: b.log }\n  - { <<: [*first], name: c }\n";
    let loaded = load_text("merge", text, Overrides::default()).expect("right");
    let groups = &loaded.config.rule_groups;
    let file =
        |i: usize| groups[i].log_file.as_ref().map(|f| (f.file_path.display().to_string(), f.max_size));
    assert_eq!(file(1), Some(("b.log".into(), 5)));
    assert_eq!(file(2), Some(("a.log".into(), 5)));
    assert_eq!((groups[1].rules.len(), groups[1].rules[0].line), (1, 4));
}

#[test]
fn empty_and_null_mean_defaults() {
    for text in ["", "\n# nothing\n", "---\n", "vault:\nasync:\nrule_groups:\ntests:\n", "{}"] {
        let loaded =
            load_text("empty", text, Overrides::default()).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(loaded.config, Config::default(), "{text:?}");
    }
}

#[cfg(unix)]
#[test]
fn names_of_one_log_file_are_one_name() {
    let scratch = Scratch::new("one-file");
    let dir = scratch.0.display().to_string();
    std::os::unix::fs::symlink(&scratch.0, scratch.0.join("link")).expect("a link");
    let group = |name: &str, path: &str| {
        format!("  - {{ name: {name}, rules: ['true'], log_file: {{ file_path: '{path}', max_size: 3 }} }}\n")
    };
    let text = format!(
        "rule_groups:\n{}{}{}",
        group("a", &format!("{dir}/x.log")),
        group("b", &format!("{dir}/./link/x.log")),
        group("c", &format!("{dir}/missing/../missing/x.log"))
    );
    let config = load_text("one-file-config", &text, Overrides::default()).expect("right").config;
    let path = |i: usize| config.rule_groups[i].log_file.as_ref().map(|f| f.file_path.display().to_string());
    assert_eq!(path(1), path(0));
    assert_eq!(
        path(2),
        Some(format!("{dir}/missing/../missing/x.log")),
        "a file of its own keeps its spelling"
    );
    let other = text.replacen("max_size: 3", "max_size: 4", 1);
    let problems = load_text("one-file-config", &other, Overrides::default()).expect_err("other options");
    assert!(
        problems.len() == 1 && problems.to_string().contains("with other options (line 2)"),
        "{problems}"
    );
}

#[test]
fn the_group_for_what_is_left_needs_no_rules() {
    let text = "unmatched: rest\nrule_groups:\n  - { name: rest, log_file: { file_path: a } }\n";
    let loaded = load_text("rest", text, Overrides::default()).expect("right");
    assert_eq!((loaded.warnings, loaded.config.unmatched.as_deref()), (Vec::new(), Some("rest")));
}

#[test]
fn odd_things_are_warned_about() {
    for (text, what) in [
        ("rule_groups:\n  - name: a\n    log_file: { file_path: a }\n", "has no rules"),
        ("rule_groups:\n  - name: a\n    rules: ['true']\n", "does nothing"),
        ("limits: { idle_timeout: 60s }\n", "senders keep idle connections for 90 s"),
        ("vault: { audit_path: 5 }\n", "a number where text is wanted"),
        ("listen: { http: { insecure_allow_unauthenticated: 'true' } }\n", "true or false in quotes"),
        (
            "rule_groups:\n  - name: a\n    rules: ['true']\n    messaging: { type: slack_webhook, webhook_url: 'https://x/y', format: raw, template: t }\n",
            "ignores the template",
        ),
    ] {
        let loaded = load_text("odd", text, Overrides::default()).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(loaded.warnings.iter().any(|w| w.what.contains(what)), "{text}: {:?}", loaded.warnings);
    }
}

/// Any YAML that a generator makes out of our own words and of others.
fn yaml() -> impl Strategy<Value = serde_yaml::Value> {
    let words: Vec<String> = KEYS
        .iter()
        .flat_map(|key| key.path.split('.').map(str::to_owned).chain([key.path.to_owned()]))
        .chain(
            [
                "rule_groups",
                "name",
                "rules",
                "log_file",
                "file_path",
                "messaging",
                "type",
                "slack",
                "token",
                "tests",
                "<<",
            ]
            .map(str::to_owned),
        )
        .collect();
    let text = prop_oneof![
        proptest::sample::select(words.clone()),
        "\\PC{0,12}",
        Just("5ms".to_owned()),
        Just("127.0.0.1:0".to_owned())
    ];
    let leaf = prop_oneof![
        Just(serde_yaml::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        text.clone().prop_map(serde_yaml::Value::String),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_yaml::Value::Sequence),
            proptest::collection::vec((proptest::sample::select(words.clone()), inner), 0..6).prop_map(
                |entries| {
                    serde_yaml::Value::Mapping(
                        entries
                            .into_iter()
                            .map(|(key, value)| (serde_yaml::Value::String(key), value))
                            .collect(),
                    )
                }
            ),
        ]
    })
}

/// Reads a text without the disk.
fn read(text: &str) -> Report {
    let mut report = Report { file: "t.yaml".into(), ..Report::default() };
    let root = tree::parse(text, &mut report);
    load::resolve(root.as_ref(), &Overrides::default(), Checks::NONE, &mut report);
    report
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_yaml_makes_it_panic(value in yaml()) {
        let text = serde_yaml::to_string(&value).expect("a value is YAML");
        read(&text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        read(&text);
    }

    #[test]
    fn no_damage_to_the_example_makes_it_panic(at in 0_usize..6000, with in "\\PC{0,3}") {
        let text = include_str!("../../../config/example.yaml");
        let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        read(&format!("{}{with}{}", &text[..at], &text[at..]));
        read(&text[..at]);
    }
}

#[test]
fn hostile_yaml_is_refused() {
    let deep = "[".repeat(10_000);
    let deep_maps: String = (0..200).fold(String::new(), |text, i| text + &" ".repeat(i) + "a:\n");
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
        d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    for text in [
        deep.as_str(),
        &deep_maps,
        bomb,
        "a: !tag 5\nvault: !x {}\n",
        "? [a]\n: b\n",
        "5: 6\nnull: 7\n1.5: 2\n",
    ] {
        assert!(!read(text).problems.is_empty(), "{}", &text[..text.len().min(40)]);
    }
}
