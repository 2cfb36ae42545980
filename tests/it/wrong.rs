//! Wrong configurations: `serve` and `check` refuse each with the place, the key and the cure, and open nothing.

use std::net::TcpStream;

use crate::harness::{HTTP_ONLY, Plan};

/// A mistake. The configuration stands below [`HTTP_ONLY`], whose lines are counted.
struct Wrong {
    yaml: &'static str,
    /// Line of the mistake within `yaml`, from 1.
    line: usize,
    /// The key, or another word by which the mistake is found in the file.
    key: &'static str,
    /// What to write instead, or a part of it.
    cure: &'static str,
}

const fn wrong(yaml: &'static str, line: usize, key: &'static str, cure: &'static str) -> Wrong {
    Wrong { yaml, line, key, cure }
}

const MISTAKES: &[Wrong] = &[
    wrong("rule_group: []", 1, "rule_group", "rule_groups"),
    wrong("async: { queue_sise: 3 }", 1, "queue_sise", "queue_size"),
    wrong("async:\n  retry:\n    max_attempt: 3", 3, "max_attempt", "max_attempts"),
    wrong("async: { queue_size: 0 }", 1, "async.queue_size", "1"),
    wrong("async: { queue_size: many }", 1, "async.queue_size", "number"),
    wrong("async: { enqueue_mode: wiat }", 1, "async.enqueue_mode", "wait"),
    wrong("async: { timeout: 5 }", 1, "async.timeout", "5s"),
    wrong("async: { timeout: soon }", 1, "async.timeout", "1m30s"),
    wrong("async: { retry: { backoff: 10s, max_backoff: 1s } }", 1, "async.retry.max_backoff", "longer"),
    wrong("async: { durable: { enabled: maybe } }", 1, "async.durable.enabled", "true"),
    wrong(
        "async: { durable: { dead_letters: { keep: none } } }",
        1,
        "async.durable.dead_letters.keep",
        "newest",
    ),
    wrong("dedupe: { window: 10000001 }", 1, "dedupe.window", "from 0 to 10000000"),
    wrong("pairs: { window: 10, wiat: 5s }", 1, "pairs.wiat", "wait"),
    wrong("pairs: { window: 10, wait: 0 }", 1, "pairs.wait", "longer than 0"),
    wrong("limits: { record_bytes_max: 64M }", 1, "limits.record_bytes_max", "64MiB"),
    wrong("unmatched: nobody\nrule_groups:\n  - name: somebody", 1, "unmatched", "somebody"),
    wrong("rule_groups:\n  - rules: ['true']", 2, "rule_groups[0]", "name"),
    wrong("rule_groups:\n  - name: a\n  - name: a", 3, "rule_groups[1].name", "of its own"),
    wrong("rule_groups:\n  - name: a\n    rule: ['true']", 3, "rule", "rules"),
    wrong("rule_groups:\n  - name: a\n    log_file: { path: ./a.log }", 3, "path", "file_path"),
    wrong("rule_groups:\n  - name: a\n    forwarding: { enabled: true }", 3, "forwarding", "address"),
    wrong("rule_groups:\n  - name: a\n    messaging: { type: irc }", 3, "messaging.type", "slack_webhook"),
    wrong("rule_groups:\n  - name: a\n    messaging: { type: slack_webhook }", 3, "messaging", "webhook_url"),
    wrong("rule_groups:\n  - name: a\n    messaging: { type: slack, token: t }", 3, "messaging", "channel"),
    wrong(
        "rule_groups:\n  - name: a\n    messaging: { type: slack_webhook, webhook_url_file: ./not-there }",
        3,
        "webhook_url_file",
        "not-there",
    ),
    wrong(
        "rule_groups:\n  - name: a\n    rules:\n      - 'true'\n      - 'Request.Operaton == \"delete\"'",
        5,
        "Operaton",
        "Operation",
    ),
    wrong("rule_groups:\n  - name: a\n    rules:\n      - 'Request.Path startsWith'", 4, "startsWith", "^"),
    wrong("rule_groups:\n  - name: a\n    rules:\n      - 'Request.Path > 3'", 4, "Request.Path > 3", "^"),
    wrong("rule_groups:\n  - name: a\n    rules:\n      - 'Type matches \"a(\"'", 4, "a(", "^"),
    wrong(
        "rule_groups:\n  - name: a\n    messaging: { type: slack_webhook, webhook_url: \"http://127.0.0.1:9/\", template: \"{{ Request.Pth }}\" }",
        3,
        "Pth",
        "Path",
    ),
    wrong("rule_groups:\n  - name: \"a\n", 2, "config.yaml", ":"),
    wrong("tests:\n  - name: t\n    record: { type: request }\n    groups: [nobody]", 4, "groups", "nobody"),
];

#[test]
fn each_mistake_is_refused_with_its_place_and_the_cure() {
    let mut failures = Vec::new();
    for mistake in MISTAKES {
        let plan = Plan::new(&format!("{HTTP_ONLY}{}\n", mistake.yaml));
        let place = format!("config.yaml:{}", HTTP_ONLY.lines().count() + mistake.line);
        for (command, codes) in [("serve", &[2][..]), ("check", &[1, 2][..])] {
            let ended = plan.run(&[command]);
            let said = format!("{}{}", ended.stdout, ended.stderr);
            let refused = ended.status.code().is_some_and(|code| codes.contains(&code));
            // A text without its closing quote is only missed at the end of the file.
            let placed =
                said.contains(&place) || mistake.key == "config.yaml" && said.contains("config.yaml");
            if !(refused && placed && said.contains(mistake.key) && said.contains(mistake.cure)) {
                let Wrong { yaml, key, cure, .. } = mistake;
                failures.push(format!(
                    "{command} of\n{yaml}\nwants {place}, {key}, {cure}; {:?} with\n{said}",
                    ended.status
                ));
            }
        }
        for port in plan.ports() {
            assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "bound although {}", mistake.yaml);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn secrets_are_not_in_the_messages_about_mistakes() {
    let yaml = r#"
vault: { token: "hvs.hidden-token", adress: x }
rule_groups:
  - name: a
    messaging: { type: slack, token: "xoxb-hidden", webhook_url: "https://hooks.example.com/hidden-hook", chanel: c }
"#;
    let plan = Plan::new(&format!("{}{yaml}", HTTP_ONLY.replacen("vault: { audit_protocol: none }", "", 1)));
    for command in ["serve", "check"] {
        let ended = plan.run(&[command]);
        assert!(!ended.status.success());
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains("chanel"), "{said}");
        assert!(!said.contains("hidden"), "{said}");
    }
}
