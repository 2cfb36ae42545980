//! The configuration as a whole: files, environment, flags, and what is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::load::load_from;
use super::problem::Report;
use super::tree::{self, Node, Value};
use super::*;

/// Stands in every secret of the test data.
const SECRET: &str = "SeCrEtVaLuE";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A directory of its own for one test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vaf-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        Scratch(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a temporary file can be written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn overrides(path: &Path) -> Overrides {
    Overrides { config_path: Some(path.to_owned()), ..Overrides::default() }
}

fn environment(variables: &[(&str, &str)]) -> Overrides {
    let environment = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Overrides { environment, ..Overrides::default() }
}

/// Loads a text as a file named `t.yaml` in a directory of its own.
fn load_text(name: &str, text: &str, mut over: Overrides) -> Result<Loaded, Problems> {
    let scratch = Scratch::new(name);
    over.config_path = Some(scratch.file("t.yaml", text));
    load(&over)
}

#[test]
fn every_wrong_configuration_is_refused_with_key_place_and_cure() {
    let directory = root().join("tests/data/config/wrong");
    let (mut files, mut failures) = (0, Vec::new());
    for entry in std::fs::read_dir(&directory).expect("the table is there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let wants: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# wants ")).collect();
        assert!(!wants.is_empty(), "{path:?} wants nothing");
        let problems = load(&overrides(&path)).expect_err(&path.display().to_string());
        let shown = problems.to_string();
        assert!(!shown.contains(SECRET), "{path:?} shows a secret: {shown}");
        if problems.len() != wants.len() {
            failures.push(format!("{path:?}: {} problems: {shown}", problems.len()));
        }
        for want in wants {
            let (place, parts) = want.split_once(": ").expect("line: key: what | cure");
            let (key, parts) = parts.split_once(": ").expect("line: key: what | cure");
            let (what, cure) = parts.split_once(" | ").expect("line: key: what | cure");
            let found = problems.0.iter().any(|problem| {
                problem.line.to_string() == place
                    && problem.place == path.display().to_string()
                    && problem.key == key
                    && problem.what.contains(what)
                    && problem.cure.contains(cure)
            });
            if !found {
                failures.push(format!("{path:?} lacks {want:?}:\n{shown}"));
            }
        }
        files += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(files >= 30, "only {files} wrong configurations");
}

#[test]
fn the_example_names_every_key_with_its_default() {
    let path = root().join("config/example.yaml");
    let loaded = load(&overrides(&path)).expect("the example is right");
    assert_eq!(loaded.warnings, [], "the example has no odd parts");
    let mut config = loaded.config;
    assert_eq!((config.rule_groups.len(), config.tests.len()), (1, 1));
    config.rule_groups.clear();
    config.tests.clear();
    assert_eq!(config.side_effects.max_attempts, Some(MAX_ATTEMPTS_DEFAULT));
    config.side_effects.max_attempts = None;
    assert_eq!(config, Config::default());

    let text = std::fs::read_to_string(&path).expect("readable");
    let tree = tree::parse(&text, &mut Report::default()).expect("YAML");
    for key in &KEYS {
        let node = at(&tree, key.path).unwrap_or_else(|| panic!("the example lacks {}", key.path));
        let written = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::List(items) if items.is_empty() => String::new(),
            other => panic!("{}: {other:?}", key.path),
        };
        let default = match key.path {
            "async.retry.max_attempts" => MAX_ATTEMPTS_DEFAULT.to_string(),
            _ => key.default_text(),
        };
        let same = written == default
            || units::duration(&written).is_ok_and(|written| units::duration(&default) == Ok(written));
        assert!(same, "{}: {written}, built in {default}", key.path);
        assert!(!key.doc.is_empty());
    }
}

fn at<'t>(node: &'t Node, path: &str) -> Option<&'t Node> {
    path.split('.').try_fold(node, |node, name| match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| &entry.node),
        _ => None,
    })
}

#[test]
fn the_sample_group_of_the_example_is_read_as_written() {
    let loaded = load(&overrides(&root().join("config/example.yaml"))).expect("the example is right");
    let group = &loaded.config.rule_groups[0];
    assert_eq!(group.name, "critical_events");
    assert_eq!(
        group.rules[1].text,
        r#"Request.Path startsWith "secret/metadata/" && Auth.PolicyResults.Allowed == true"#
    );
    assert_eq!(group.rules[1].line, group.rules[0].line + 1);
    let wanted = LogFile {
        file_path: "/var/log/vault_critical_events.log".into(),
        max_size: 100,
        max_backups: 5,
        max_age: 30,
        compress: true,
        sync: SyncPolicy::Never,
    };
    assert_eq!(group.log_file.as_ref(), Some(&wanted));
    let wanted = Forwarding { address: "127.0.0.1:9001".into(), protocol: ForwardProtocol::Udp };
    assert_eq!(group.forwarding.as_ref(), Some(&wanted));
    let messaging = group.messaging.as_ref().expect("messaging");
    let url = Secret::new("https://chat.example.com/hooks/xxx");
    assert_eq!(messaging.kind, MessagingKind::MattermostWebhook { webhook_url: url });
    assert_eq!((messaging.format, messaging.digest_window), (MessageFormat::Text, Duration::from_secs(60)));
    assert!((messaging.rate_per_s - 1.0).abs() < f64::EPSILON);
    let test = &loaded.config.tests[0];
    assert_eq!(test.groups, ["critical_events"]);
    let record: serde_json::Value = serde_json::from_str(&test.record).expect("JSON");
    assert_eq!(record["auth"]["policy_results"]["allowed"], true);
}

#[test]
fn the_quickstart_is_three_groups_on_loopback_below_the_current_folder() {
    let loaded = load(&overrides(&root().join("config/quickstart.yaml"))).expect("the quickstart is right");
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    let names: Vec<&str> = config.rule_groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["denied", "changes", "root_and_deletes"]);
    for group in &config.rule_groups {
        assert!(!group.rules.is_empty());
        assert!(group.forwarding.is_none() && group.messaging.is_none());
        let file = &group.log_file.as_ref().expect("a log file").file_path;
        assert!(file.starts_with("./vault-audit-filter-logs"), "{file:?}");
    }
    assert_eq!(config.quarantine_path(), Path::new("./vault-audit-filter-logs/quarantine.log"));
    assert_eq!(config.vault.audit_protocol, AuditProtocol::Tcp);
    for address in [Some(config.vault.audit_address), config.listen.http_address, config.listen.admin_address]
    {
        assert!(address.expect("on").starts_with("127.0.0.1:"));
    }
}

#[test]
fn the_predecessors_files_run_unchanged() {
    let directory = root().join("tests/data/config/predecessor");
    for (name, groups, warnings) in
        [("readme.yaml", 2, 0), ("development.yaml", 2, 0), ("every_messenger.yaml", 6, 6)]
    {
        let loaded =
            load(&overrides(&directory.join(name))).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(loaded.config.rule_groups.len(), groups, "{name}");
        assert_eq!(loaded.warnings.len(), warnings, "{name}: {:?}", loaded.warnings);
        assert!(loaded.warnings.iter().all(|warning| !warning.to_string().contains(SECRET)));
    }
    let loaded = load(&overrides(&directory.join("every_messenger.yaml"))).expect("right");
    let effects = &loaded.config.side_effects;
    assert_eq!((effects.queue_size, effects.workers), (100, 4));
    assert_eq!(effects.max_attempts, Some(5));
    assert_eq!(effects.max_backoff, Duration::from_secs(60), "raised to the first delay");
    assert_eq!(loaded.config.vault.audit_address, "0.0.0.0:1269");
    let kinds: Vec<_> = loaded
        .config
        .rule_groups
        .iter()
        .map(|group| group.messaging.as_ref().map(|m| m.kind.clone()))
        .collect();
    assert!(matches!(&kinds[0], Some(MessagingKind::Slack { url, channel, .. })
        if url == "https://slack.com/api/" && channel == "C0123456789"));
    assert!(matches!(kinds[1], Some(MessagingKind::SlackWebhook { .. })));
    assert!(matches!(kinds[2], Some(MessagingKind::Mattermost { .. })));
    assert!(matches!(kinds[3], Some(MessagingKind::MattermostWebhook { .. })));
    assert_eq!((&kinds[4], &kinds[5]), (&None, &None));
    assert_eq!(
        loaded.config.rule_groups[5].forwarding, None,
        "an address alone does not enable it, as in Go"
    );
}

/// Every variable, a value for it that differs from the default, and how that value is written back.
#[test]
fn every_key_has_an_environment_variable() {
    let scratch = Scratch::new("environment");
    let token = scratch.file("token", "t0ken\n");
    let token = token.display().to_string();
    for key in &KEYS {
        let (value, alone): (&str, bool) = match key.path {
            "vault.address" => ("https://vault.example:8200", true),
            "vault.token" => ("s.abc", true),
            "vault.token_file" | "listen.http.tokens_file" => (&token, true),
            "vault.audit_protocol" => ("tcp", true),
            "async.enqueue_mode" => ("wait", true),
            "listen.http.tokens" => ("one,two", true),
            "vault.audit_address" | "listen.http.address" | "listen.admin.address" => {
                ("127.0.0.1:4444", true)
            }
            // Not available in this version, or not alone: the value must be read, and the refusal must name the variable.
            "async.durable.enabled" => ("true", false),
            "dedupe.window" => ("5", false),
            "listen.http.tls.certificate" | "listen.http.tls.key" | "control.socket" => ("/tmp/x", false),
            "unmatched" => ("nobody", false),
            "listen.http.insecure_allow_unauthenticated" => ("TRUE", true),
            _ => match key.default_text().as_str() {
                "" => ("/some/text", true),
                text if text.ends_with("iB") => ("2MiB", true),
                text if text.parse::<u64>().is_ok() => ("7", true),
                text if units::duration(text).is_ok() => ("95s", true),
                _ => ("other", true),
            },
        };
        let value = if key.path == "limits.head_bytes_max" { "32KiB" } else { value };
        let value = if key.path == "async.retry.max_attempts" { "9" } else { value };
        let name = key.environment();
        assert_eq!(name, format!("VAULT_AUDIT_FILTER_{}", key.path.replace('.', "_").to_uppercase()));
        let result = load_from(&environment(&[(&name, value)]), Checks::NONE, std::iter::empty());
        match result {
            Ok(loaded) => {
                assert!(alone, "{name} should have been refused");
                assert_ne!(loaded.config, Config::default(), "{name}={value} changed nothing");
            }
            Err(problems) => {
                assert!(!alone, "{name}={value}: {problems}");
                assert!(problems.to_string().contains(&name), "{problems}");
            }
        }
    }
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "vault: { audit_path: from-file, audit_description: from-file, address: http://file }\n";
    let mut over = environment(&[
        ("VAULT_AUDIT_FILTER_VAULT_AUDIT_DESCRIPTION", "from-environment"),
        ("VAULT_ADDRESS", "http://address"),
        ("VAULT_ADDR", "http://addr"),
        ("VAULT_NAMESPACE", "ns1"),
        ("VAULT_TOKEN", ""),
    ]);
    let loaded = load_text("precedence1", file, over.clone()).expect("right");
    assert_eq!(loaded.config.vault.audit_path, "from-file");
    assert_eq!(loaded.config.vault.audit_description, "from-environment");
    assert_eq!(loaded.config.vault.address, "http://addr");
    assert_eq!(loaded.config.vault.namespace, "ns1");
    assert!(loaded.config.vault.token.is_empty());
    assert_eq!(loaded.config.vault.audit_address, Config::default().vault.audit_address);
    assert!(loaded.warnings.iter().any(|w| w.to_string().contains("differs from VAULT_ADDR")));
    assert!(loaded.source().contains("t.yaml"));

    over.flags = vec![("vault.address", "http://flag".into()), ("vault.audit_path", "from-flag".into())];
    let loaded = load_text("precedence2", file, over.clone()).expect("right");
    assert_eq!(loaded.config.vault.address, "http://flag");
    assert_eq!(loaded.config.vault.audit_path, "from-flag");

    over.flags = vec![("vault.audit_address", "nowhere".into())];
    let problems = load_text("precedence3", file, over).expect_err("no port");
    assert!(
        problems
            .to_string()
            .starts_with("flag --vault.audit_address: vault.audit_address: \"nowhere\": no port")
    );
}

#[test]
fn a_key_that_no_variable_has_is_refused_with_a_suggestion() {
    for (name, cure) in [
        ("VAULT_AUDIT_FILTER_ASYNC_QUEUESIZE", "did you mean VAULT_AUDIT_FILTER_ASYNC_QUEUE_SIZE?"),
        ("VAULT_AUDIT_FILTER_RULE_GROUPS", "in the file only"),
        ("VAULT_AUDIT_FILTER_LOG_LEVLE", "did you mean VAULT_AUDIT_FILTER_LOG_LEVEL?"),
        ("VAULT_AUDIT_FILTER_XYZZY", "unset it"),
    ] {
        let problems = load_from(&environment(&[(name, SECRET)]), Checks::NONE, std::iter::empty())
            .expect_err(name)
            .to_string();
        assert!(problems.contains(&format!("environment {name}: ")) && problems.contains(cure), "{problems}");
        assert!(!problems.contains(SECRET));
    }
    let known = environment(&[("VAULT_AUDIT_FILTER_LOG_LEVEL", "debug"), ("VAULT_AUDIT_FILTERED", "x")]);
    assert!(load_from(&known, Checks::NONE, std::iter::empty()).is_ok());
    assert!(!format!("{:?}", environment(&[("VAULT_TOKEN", SECRET)])).contains(SECRET));
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(vec![b'a', 0xff]);
    let over = Overrides {
        environment: [("VAULT_AUDIT_FILTER_VAULT_AUDIT_PATH".to_owned(), value)].into_iter().collect(),
        ..Overrides::default()
    };
    let problems = load_from(&over, Checks::NONE, std::iter::empty()).expect_err("not UTF-8");
    assert!(problems.to_string().contains("not UTF-8 text"), "{problems}");
}

#[test]
fn files_are_looked_for_in_order() {
    let scratch = Scratch::new("search");
    let home = scratch.file("home.yaml", "vault: { audit_path: home }\n");
    let system = scratch.file("system.yaml", "vault: { audit_path: system }\n");
    let missing = scratch.0.join("missing.yaml");
    let searched = |paths: &[&PathBuf]| {
        load_from(
            &Overrides::default(),
            Checks::NONE,
            paths.iter().map(|path| (*path).clone()).collect::<Vec<_>>().into_iter(),
        )
    };
    let loaded = searched(&[&home, &system]).expect("right");
    assert_eq!((loaded.config.vault.audit_path.as_str(), loaded.path), ("home", Some(home.clone())));
    assert_eq!(searched(&[&missing, &system]).expect("right").config.vault.audit_path, "system");
    let loaded = searched(&[&missing]).expect("defaults");
    assert_eq!(loaded.path, None);
    assert!(loaded.source().contains("built-in defaults"));
    assert!(loaded.warnings.iter().any(|w| w.what == "there are no rule groups"));

    // A named file must be there; one that is there must be readable.
    let named =
        |path: &Path| load_from(&overrides(path), Checks::NONE, [home.clone()].into_iter()).map(|l| l.path);
    let problems = named(&missing).expect_err("missing").to_string();
    assert!(
        problems.contains("missing.yaml: cannot read the file") && problems.contains("--config"),
        "{problems}"
    );
    assert!(named(&scratch.0).is_err(), "a directory");
    std::fs::write(scratch.0.join("latin1.yaml"), [b'a', 0xe9]).expect("written");
    let problems = named(&scratch.0.join("latin1.yaml")).expect_err("latin 1").to_string();
    assert!(problems.contains("not UTF-8"), "{problems}");
    let over = environment(&[("VAULT_AUDIT_FILTER_CONFIG", &system.display().to_string())]);
    assert_eq!(load_from(&over, Checks::NONE, [home.clone()].into_iter()).expect("right").path, Some(system));
    let over = environment(&[("HOME", &scratch.0.display().to_string())]);
    std::fs::rename(&home, scratch.0.join(".vault-audit-filter.yaml")).expect("renamed");
    assert_eq!(load(&over).expect("right").config.vault.audit_path, "home");
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let scratch = Scratch::new("secrets");
    scratch.file("token", &format!("{SECRET}\r\n"));
    scratch.file("tokens", &format!("# two of them\n{SECRET}1\n\n{SECRET}2\n"));
    scratch.file("hook", &format!("https://hooks.example.com/{SECRET}\n"));
    let text = "vault: { token_file: '${CREDENTIALS_DIRECTORY}/token' }\n\
        listen: { http: { address: '0.0.0.0:1270', tokens_file: '$CREDENTIALS_DIRECTORY/tokens' } }\n\
        rule_groups:\n  - name: a\n    rules: ['true']\n    messaging: { type: slack_webhook, webhook_url_file: '${CREDENTIALS_DIRECTORY}/hook' }\n\
        \x20 - name: b\n    rules: ['true']\n    messaging: { type: webhook, webhook_url_file: '${CREDENTIALS_DIRECTORY}/hook', token_file: '${CREDENTIALS_DIRECTORY}/token' }\n";
    let over = environment(&[("CREDENTIALS_DIRECTORY", &scratch.0.display().to_string())]);
    let loaded = load_text("secrets1", text, over.clone()).expect("right");
    assert_eq!(loaded.config.vault.token.expose(), SECRET);
    let tokens: Vec<&str> = loaded.config.listen.http_tokens.iter().map(Secret::expose).collect();
    assert_eq!(tokens, [format!("{SECRET}1"), format!("{SECRET}2")]);
    let hook = Secret::new(format!("https://hooks.example.com/{SECRET}"));
    let kind = MessagingKind::SlackWebhook { webhook_url: hook.clone() };
    assert_eq!(loaded.config.rule_groups[0].messaging.as_ref().map(|m| &m.kind), Some(&kind));
    let kind = MessagingKind::Webhook { webhook_url: hook, token: Secret::new(SECRET) };
    assert_eq!(loaded.config.rule_groups[1].messaging.as_ref().map(|m| &m.kind), Some(&kind));
    assert!(!format!("{loaded:?}").contains(SECRET));

    // A variable wins over the file's key, whichever of the two forms each has.
    let mut over = over;
    over.flags = vec![("vault.token", "from-flag".into())];
    assert_eq!(load_text("secrets2", text, over).expect("right").config.vault.token.expose(), "from-flag");

    for (content, what) in
        [("", "the file is empty"), ("a\nb\n", "more than one line"), ("a\u{1}b", "control character")]
    {
        let path = scratch.file("bad", content);
        let text = format!("vault: {{ token_file: {:?} }}\n", path.display().to_string());
        let problems = load_text("secrets3", &text, Overrides::default()).expect_err(what).to_string();
        assert!(problems.contains(what), "{problems}");
    }
    for (content, what) in
        [("# none\n", "no token in it"), ("ok\nwith space\n", "line 2 of the file: a token with white space")]
    {
        let path = scratch.file("bad", content);
        let text = format!("listen: {{ http: {{ tokens_file: {:?} }} }}\n", path.display().to_string());
        let problems = load_text("secrets4", &text, Overrides::default()).expect_err(what).to_string();
        assert!(problems.contains(what) && !problems.contains("with space\""), "{problems}");
    }
    let path = scratch.file("large", &"x".repeat(70_000));
    let text = format!("vault: {{ token_file: {:?} }}\n", path.display().to_string());
    let problems = load_text("secrets5", &text, Overrides::default()).expect_err("large").to_string();
    assert!(problems.contains("larger than 65536 bytes"), "{problems}");
}

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

#[test]
fn rules_and_templates_that_do_not_compile_are_reported_with_their_place() {
    let text = "rule_groups:\n  - name: a\n    rules:\n      - good\n      - bad\n    messaging: { type: slack_webhook, webhook_url: 'https://x/y', template: bad }\n";
    let loaded = load_text("rules", text, Overrides::default()).expect("right");
    let compile =
        |text: &str| if text == "bad" { Err("no such name\n  bad\n  ^".to_owned()) } else { Ok(()) };
    let rule = "t.yaml:5: rule_groups[0].rules[1]: group \"a\", rule 2: no such name\n      bad";
    let problems = check_rules(&loaded, &compile);
    assert!(problems.len() == 1 && problems.to_string().contains(rule), "{problems}");

    // The same together with every other problem.
    let over = Overrides::default();
    let text = text.to_owned() + "colour: red\n";
    let scratch = Scratch::new("rules-and-more");
    let over = Overrides { config_path: Some(scratch.file("t.yaml", &text)), ..over };
    let problems = load_checked(&over, Checks { rule: &compile, template: &compile }).expect_err("three");
    let shown = problems.to_string();
    assert_eq!(problems.len(), 3, "{shown}");
    assert!(shown.contains(rule), "{shown}");
    assert!(
        shown.contains("t.yaml:6: rule_groups[0].messaging.template: no such name\n      bad"),
        "{shown}"
    );
    assert!(check_rules(&loaded, &|_| Ok(())).is_empty());
}

#[test]
fn the_quarantine_stands_beside_the_first_log_file() {
    assert_eq!(Config::default().quarantine_path(), Path::new("quarantine.log"));
    let text =
        "rule_groups:\n  - name: a\n    rules: ['true']\n    log_file: { file_path: /var/log/x/a.log }\n";
    let loaded = load_text("quarantine", text, Overrides::default()).expect("right");
    assert_eq!(loaded.config.quarantine_path(), Path::new("/var/log/x/quarantine.log"));
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
        let text = include_str!("../../config/example.yaml");
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
