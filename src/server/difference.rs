//! What a reload changes, and what only a restart can change.

use crate::config::{AuditProtocol, Config, Messaging, RuleGroup, RuleText};

/// From one configuration to the next.
pub(super) struct Difference {
    /// What is to be used: the new one, with the running values of what needs a restart.
    pub(super) config: Config,
    /// What is different, one line each.
    pub(super) changed: Vec<String>,
    /// Keys that need a restart.
    pub(super) restart: Vec<String>,
}

/// Compares the running configuration with the one that was read. Values are not told: they may be secrets.
pub(super) fn between(running: &Config, read: &Config) -> Difference {
    let mut config = read.clone();
    let restart = keep_running(running, &mut config);
    let changed = changes(running, &config);
    Difference { config, changed, restart }
}

/// Puts the running values in the place of those that need a restart. The keys where they differ.
fn keep_running(running: &Config, config: &mut Config) -> Vec<String> {
    let mut keys = Vec::new();
    let listen_before = config.listen.http_address.clone();
    macro_rules! keep {
        ($($key:literal => $($field:ident).+,)+) => {
            $(if config.$($field).+ != running.$($field).+ {
                config.$($field).+ = running.$($field).+.clone();
                keys.push($key.to_owned());
            })+
        };
    }
    let has_socket = |config: &Config| config.vault.audit_protocol != AuditProtocol::None;
    if has_socket(running) || has_socket(config) {
        keep!("vault.audit_address" => vault.audit_address,);
    }
    keep!(
        "vault.audit_protocol" => vault.audit_protocol,
        "listen.http.address" => listen.http_address,
        "listen.unix.path" => listen.unix_path,
        "listen.admin.address" => listen.admin_address,
        "control.socket" => control_socket,
        "limits.connections_max" => limits.connections_max,
        "async.durable.enabled" => side_effects.durable.enabled,
        "async.durable.dir" => side_effects.durable.dir,
        "async.durable.max_bytes" => side_effects.durable.max_bytes,
        "async.durable.dead_letters.keep" => side_effects.durable.dead_letters,
    );
    // Other certificates can be used at once; whether TLS is spoken cannot be changed for a socket that is bound.
    if config.listen.http_tls.is_some() != running.listen.http_tls.is_some() {
        config.listen.http_tls.clone_from(&running.listen.http_tls);
        keys.push("listen.http.tls".to_owned());
    }
    // The new address may do without tokens; the one that is bound may not.
    let other_address = listen_before != config.listen.http_address;
    if other_address && config.listen.http_tokens.is_empty() && !running.listen.http_tokens.is_empty() {
        config.listen.http_tokens.clone_from(&running.listen.http_tokens);
        keys.push("listen.http.tokens".to_owned());
    }
    keys
}

/// What differs among that which takes effect.
fn changes(running: &Config, config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for group in &running.rule_groups {
        if named(config, &group.name).is_none() {
            lines.push(format!("group {:?} is removed", group.name));
        }
    }
    for group in &config.rule_groups {
        match named(running, &group.name) {
            None => lines.push(format!("group {:?} is new", group.name)),
            Some(before) => lines.extend(group_changes(before, group)),
        }
    }
    let mut say = |differs: bool, what: &str| {
        if differs {
            lines.push(format!("{what} is changed"));
        }
    };
    let order =
        |config: &Config| -> Vec<String> { config.rule_groups.iter().map(|g| g.name.clone()).collect() };
    let (mut before, mut after) = (order(running), order(config));
    let other_order = before != after;
    before.sort_unstable();
    after.sort_unstable();
    say(other_order && before == after, "the order of the groups");
    say(running.unmatched != config.unmatched, "unmatched");
    say(running.quarantine_path() != config.quarantine_path(), "the quarantine log");
    say(running.side_effects != config.side_effects, "async");
    say(running.limits != config.limits, "limits");
    say(running.listen.http_tokens != config.listen.http_tokens, "listen.http.tokens");
    say(running.listen.silence_alarm != config.listen.silence_alarm, "listen.silence_alarm");
    say(running.dedupe_window != config.dedupe_window, "dedupe");
    let pairs = |config: &Config| (config.pairs_window, config.pairs_wait);
    say(pairs(running) != pairs(config), "pairs");
    say(running.listen.http_tls != config.listen.http_tls, "listen.http.tls");
    say(running.drain_timeout != config.drain_timeout, "shutdown.drain_timeout");
    lines
}

fn named<'c>(config: &'c Config, name: &str) -> Option<&'c RuleGroup> {
    config.rule_groups.iter().find(|group| group.name == name)
}

fn group_changes(before: &RuleGroup, after: &RuleGroup) -> Option<String> {
    let texts = |rules: &[RuleText]| rules.iter().map(|rule| rule.text.clone()).collect::<Vec<_>>();
    let placeless = |messaging: &Option<Messaging>| messaging.as_ref().map(Messaging::placeless);
    let parts = [
        ("rules", texts(&before.rules) != texts(&after.rules)),
        ("log_file", before.log_file != after.log_file),
        ("forwarding", before.forwarding != after.forwarding),
        ("messaging", placeless(&before.messaging) != placeless(&after.messaging)),
    ];
    let changed: Vec<&str> = parts.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    (!changed.is_empty()).then(|| format!("group {:?}: {} changed", after.name, changed.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::config::{LogFile, Tls};
    use crate::identity::Identity;
    use crate::secret::Secret;

    fn group(name: &str, rule: &str) -> RuleGroup {
        RuleGroup {
            name: name.to_owned(),
            rules: vec![RuleText { text: rule.to_owned(), line: 7 }],
            log_file: Some(LogFile::at(name.into())),
            forwarding: None,
            messaging: None,
        }
    }

    #[test]
    fn nothing_differs_from_itself_wherever_it_stands() {
        let config = Config { rule_groups: vec![group("a", "true")], ..Config::default() };
        let mut read = config.clone();
        read.rule_groups[0].rules[0].line = 9;
        let difference = between(&config, &read);
        assert_eq!((difference.changed, difference.restart), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_needs_a_restart_is_named_and_kept() {
        let running = Config::default();
        let mut read = Config::default();
        read.listen.http_address = Some("127.0.0.1:9999".into());
        read.control_socket = Some("c.sock".into());
        read.vault.audit_protocol = AuditProtocol::None;
        read.vault.audit_address = "127.0.0.1:9".into();
        read.limits.connections_max = 5;
        read.limits.head_bytes_max = 4096;
        read.side_effects.durable.enabled = true;
        read.side_effects.queue_size = 7;
        let Difference { config, changed, restart } = between(&running, &read);
        assert_eq!(
            restart,
            [
                "vault.audit_address",
                "vault.audit_protocol",
                "listen.http.address",
                "control.socket",
                "limits.connections_max",
                "async.durable.enabled"
            ]
        );
        assert_eq!(changed, ["async is changed", "limits is changed"]);
        let mut wanted = running.clone();
        wanted.limits.head_bytes_max = 4096;
        wanted.side_effects.queue_size = 7;
        assert_eq!(config, wanted);
        // Asked for once more, it is named once more.
        assert_eq!(between(&config, &read).restart.len(), 6);
        assert!(between(&config, &read).changed.is_empty());
    }

    #[test]
    fn evidence_is_looked_for_without_a_restart() {
        let running = Config::default();
        let mut read = Config::default();
        (read.dedupe_window, read.pairs_wait) = (5, std::time::Duration::from_secs(5));
        read.listen.silence_alarm = std::time::Duration::from_secs(5);
        let Difference { config, changed, restart } = between(&running, &read);
        assert_eq!(changed, ["listen.silence_alarm is changed", "dedupe is changed", "pairs is changed"]);
        assert_eq!((config, restart), (read, Vec::new()));
    }

    #[test]
    fn an_address_that_is_bound_keeps_its_tokens() {
        let mut running = Config::default();
        running.listen.http_address = Some("0.0.0.0:1270".into());
        running.listen.http_tokens = vec![Secret::new("t")];
        let read = Config::default();
        let Difference { config, restart, .. } = between(&running, &read);
        assert_eq!(restart, ["listen.http.address", "listen.http.tokens"]);
        assert_eq!(config.listen.http_tokens, running.listen.http_tokens);
        let mut read = running.clone();
        read.listen.http_tokens = vec![Secret::new("u")];
        let Difference { config, changed, restart } = between(&running, &read);
        assert_eq!((changed, restart), (vec!["listen.http.tokens is changed".to_owned()], Vec::new()));
        assert_eq!(config.listen.http_tokens, read.listen.http_tokens);
    }

    #[test]
    fn certificates_change_at_once_and_tls_itself_with_a_restart() {
        let tls = |name: &str| {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/listener");
            let (certificate, key) =
                (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
            let read = |path: &Path| std::fs::read(path).expect("test data");
            let identity = Identity::new(&read(&certificate), &read(&key), clock::wall()).expect("a pair");
            Some(Tls { certificate, key, identity: Arc::new(identity) })
        };
        let with = |http_tls| {
            let mut config = Config::default();
            config.listen.http_tls = http_tls;
            config
        };
        let (plain, first, second) = (with(None), with(tls("first")), with(tls("second")));
        for (running, read) in [(&plain, &first), (&first, &plain)] {
            let Difference { config, changed, restart } = between(running, read);
            assert_eq!((config, changed), (running.clone(), Vec::new()));
            assert_eq!(restart, ["listen.http.tls"]);
        }
        let Difference { config, changed, restart } = between(&first, &second);
        assert_eq!((config, restart), (second, Vec::new()));
        assert_eq!(changed, ["listen.http.tls is changed"]);
        assert!(between(&first, &with(tls("first"))).changed.is_empty(), "read again, the same");
    }

    #[test]
    fn groups_are_named_with_what_is_different() {
        let running =
            Config { rule_groups: vec![group("a", "true"), group("b", "true")], ..Config::default() };
        let mut read =
            Config { rule_groups: vec![group("b", "false"), group("c", "true")], ..running.clone() };
        read.rule_groups[0].log_file = None;
        read.unmatched = Some("c".into());
        let changed = between(&running, &read).changed;
        assert_eq!(
            changed,
            [
                "group \"a\" is removed",
                "group \"b\": rules, log_file changed",
                "group \"c\" is new",
                "unmatched is changed"
            ]
        );
        read.rule_groups = vec![group("b", "true"), group("a", "true")];
        read.unmatched = None;
        let changed = between(&running, &read).changed;
        assert_eq!(changed, ["the order of the groups is changed"]);
        read.quarantine_file = Some("q.log".into());
        read.rule_groups.clone_from(&running.rule_groups);
        assert_eq!(between(&running, &read).changed, ["the quarantine log is changed"]);
    }
}
