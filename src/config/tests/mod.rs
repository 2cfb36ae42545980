//! The configuration as a whole: files, environment, flags, and what is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

mod sources;
mod trees;

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
    let rule = |text: &str| {
        let compiled = crate::rules::Rule::compile(text, &mut Default::default(), &Default::default());
        compiled.map(drop).map_err(|error| error.render(text))
    };
    let checks = Checks { rule: &rule, ..Checks::NONE };
    let (mut files, mut failures) = (0, Vec::new());
    for entry in std::fs::read_dir(&directory).expect("the table is there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let wants: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# wants ")).collect();
        assert!(!wants.is_empty(), "{path:?} wants nothing");
        let problems = load_checked(&overrides(&path), checks).expect_err(&path.display().to_string());
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
    let TestInput::Record(record) = &test.input else { panic!("{test:?}") };
    let record: serde_json::Value = serde_json::from_str(record).expect("JSON");
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
#[cfg(unix)]
#[test]
fn rules_and_templates_that_do_not_compile_are_reported_with_their_place() {
    let text = "rule_groups:\n  - name: a\n    rules:\n      - good\n      - bad\n    messaging: { type: slack_webhook, webhook_url: 'https://x/y', template: bad }\n";
    let compile =
        |text: &str| if text == "bad" { Err("no such name\n  bad\n  ^".to_owned()) } else { Ok(()) };
    let rule = "t.yaml:5: rule_groups[0].rules[1]: group \"a\", rule 2: no such name\n      bad";
    // Together with every other problem.
    let text = text.to_owned() + "colour: red\n";
    let scratch = Scratch::new("rules-and-more");
    let over = Overrides { config_path: Some(scratch.file("t.yaml", &text)), ..Overrides::default() };
    let problems = load_checked(&over, Checks { rule: &compile, template: &compile }).expect_err("three");
    let shown = problems.to_string();
    assert_eq!(problems.len(), 3, "{shown}");
    assert!(shown.contains(rule), "{shown}");
    assert!(
        shown.contains("t.yaml:6: rule_groups[0].messaging.template: no such name\n      bad"),
        "{shown}"
    );
}

#[test]
fn the_quarantine_stands_beside_the_first_log_file() {
    assert_eq!(Config::default().quarantine_path(), Path::new("quarantine.log"));
    let text =
        "rule_groups:\n  - name: a\n    rules: ['true']\n    log_file: { file_path: /var/log/x/a.log }\n";
    let loaded = load_text("quarantine", text, Overrides::default()).expect("right");
    assert_eq!(loaded.config.quarantine_path(), Path::new("/var/log/x/quarantine.log"));
}
