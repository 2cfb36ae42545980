//! Flags, environment, files and secrets: who wins, and what is never shown.

use std::path::{Path, PathBuf};

use super::*;

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
            "async.durable.enabled" => ("true", true),
            "async.durable.dead_letters.keep" => ("newest", true),
            "listen.http.tokens" => ("one,two", true),
            "vault.audit_address" | "listen.http.address" | "listen.admin.address" => {
                ("127.0.0.1:4444", true)
            }
            // Not alone: the value must be read, and the refusal must name the variable.
            "listen.http.tls.certificate" | "listen.http.tls.key" => ("/tmp/x", false),
            "unmatched" => ("nobody", false),
            "listen.silence_alarm" => ("95s", true),
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
