//! `match` on real files, and `setup` against a real OpenBao.

use std::io::Write;

use crate::harness::{Daemon, HTTP_ONLY, Plan, WITH_TCP, entry, run_program};
use crate::support::openbao::{OpenBao, ROOT, program};
use crate::support::{TempDir, left_out, wait_until};

const GROUPS: &str = r#"
rule_groups:
  - name: deletions
    rules:
      - 'Request.Path == "nothing has this path"'
      - 'Request.Operation == "delete"'
    log_file: { file_path: "{dir}/deletions.log" }
  - name: payroll
    rules: ['Request.Path contains "payroll"']
"#;

/// Two files of records: deletions, reads of the payroll, others, and what is no record.
fn files(dir: &TempDir) -> [String; 2] {
    let plain = [
        entry("1", "read", "secret/data/a"),
        entry("2", "delete", "secret/data/a"),
        "this is no record".to_owned(),
        entry("3", "read", "secret/data/payroll"),
    ];
    let packed = [entry("4", "delete", "secret/data/payroll"), entry("5", "list", "secret/metadata")];
    let names = ["audit.log", "audit.log.1.gz"].map(|name| dir.join(name).display().to_string());
    std::fs::write(&names[0], plain.join("\n") + "\n").expect("written");
    let file = std::fs::File::create(&names[1]).expect("made");
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    encoder.write_all((packed.join("\n") + "\n").as_bytes()).expect("written");
    encoder.finish().expect("written");
    names
}

#[test]
fn match_prints_the_records_that_a_rule_matches() {
    let dir = TempDir::new("match");
    let [plain, packed] = files(&dir);
    let rule = r#"Request.Operation == "delete""#;
    let found = run_program(&["match", "--rule", rule, &plain, &packed], b"");
    assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
    let wanted = [entry("2", "delete", "secret/data/a"), entry("4", "delete", "secret/data/payroll")];
    let lines: Vec<&str> = found.stdout.lines().collect();
    assert!(
        lines.len() == 2 && lines.iter().zip(&wanted).all(|(l, w)| l.ends_with(w.as_str())),
        "{}",
        found.stdout
    );

    let input = wanted.join("\n");
    let piped = run_program(&["match", "--rule", rule], input.as_bytes());
    assert_eq!(
        (piped.status.code(), piped.stdout),
        (Some(0), input.clone() + "\n"),
        "from standard input, the last line unended"
    );
    let none = run_program(&["match", "--rule", r#"Request.Operation == "revoke""#], input.as_bytes());
    assert_eq!((none.status.code(), none.stdout.as_str()), (Some(1), ""));
    let wrong = run_program(&["match", "--rule", "Request.Operaton == 1"], input.as_bytes());
    assert_eq!((wrong.status.code(), wrong.stdout.as_str()), (Some(2), ""));
    assert!(wrong.stderr.contains('^') && wrong.stderr.contains("Operation"), "{}", wrong.stderr);
    let missing = run_program(&["match", "--rule", rule, "not-there.log"], b"");
    assert_eq!(missing.status.code(), Some(2));
    assert!(missing.stderr.contains("not-there.log"), "{}", missing.stderr);
}

#[test]
fn match_explains_and_counts_by_the_groups_of_a_configuration() {
    let dir = TempDir::new("match");
    let [plain, packed] = files(&dir);
    let plan = Plan::new(&format!("{HTTP_ONLY}{GROUPS}"));
    let found = plan.run(&["match", &plain, &packed]);
    assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
    for id in ["2", "3", "4"] {
        assert!(found.stdout.contains(&format!("\"id\":\"{id}\"")), "record {id}: {}", found.stdout);
    }
    for id in ["1", "5"] {
        assert!(!found.stdout.contains(&format!("\"id\":\"{id}\"")), "not record {id}: {}", found.stdout);
    }
    let explained = plan.run(&["match", "--explain", &packed]).stdout;
    for part in ["deletions", "payroll", r#"Request.Operation == "delete""#] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let counted = plan.run(&["match", "--count", &plain, &packed]);
    assert_eq!(counted.status.code(), Some(0));
    assert!(counted.stdout.contains('3') || counted.stdout.contains('2'), "{}", counted.stdout);
    assert!(!counted.stdout.contains("\"id\""), "counts only: {}", counted.stdout);
    let json = plan.run(&["match", "--format", "json", &packed]);
    assert_eq!(json.status.code(), Some(0), "{}", json.stderr);
    for line in json.stdout.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
    assert!(json.stdout.contains("deletions"), "{}", json.stdout);
    assert!(!plan.path("deletions.log").exists(), "match writes no log files");
}

#[test]
fn help_version_and_completions_are_there() {
    let help = run_program(&["--help"], b"");
    assert!(help.status.success() && help.stdout.contains("serve"), "{}", help.stdout);
    let version = run_program(&["--version"], b"");
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", version.stdout);
    for shell in ["bash", "zsh", "fish"] {
        let completions = run_program(&["completions", shell], b"");
        assert!(
            completions.status.success() && completions.stdout.contains("serve"),
            "{shell}: {}",
            completions.stderr
        );
    }
    let unknown = run_program(&["serv"], b"");
    assert!(!unknown.status.success() && unknown.stderr.contains("serve"), "{}", unknown.stderr);
}

/// The configuration of a server and of `setup` for the OpenBao at this port.
fn for_openbao(listeners: &str, port: u16) -> String {
    let vault = format!("vault: {{ address: \"http://127.0.0.1:{port}\", ");
    format!(
        "{}rule_groups: [{{ name: all, log_file: {{ file_path: \"{{dir}}/all.log\" }} }}]\n",
        listeners.replace("vault: { ", &vault)
    )
}

#[test]
fn setup_enables_the_device_where_the_api_is_allowed() {
    let program = match program() {
        Ok(program) => program,
        Err(why) => return left_out("commands::setup_enables_the_device_where_the_api_is_allowed", &why),
    };
    let dir = TempDir::new("setup");
    let server = OpenBao::start(&program, dir.path(), "unsafe_allow_api_audit_creation = true\n");
    let daemon = Daemon::start(&for_openbao(WITH_TCP, server.port()));
    let done = daemon.run(&["setup"], &[("VAULT_TOKEN", ROOT)]);
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    server.api().root("GET", "sys/mounts", "");
    wait_until("the entries of that call arrive", || {
        daemon.lines("all.log").iter().filter(|line| line.contains("\"sys/mounts\"")).count() == 2
    });
    let again = daemon.run(&["setup"], &[("VAULT_TOKEN", ROOT)]);
    let said = format!("{}{}", again.stdout, again.stderr);
    assert!(said.contains("already") || said.contains("in use"), "it says that the device is there: {said}");
    let refused = daemon.run(&["setup"], &[("VAULT_TOKEN", "no-token-of-this-server")]);
    assert!(!refused.status.success());
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("permission denied") || said.contains("403"), "{said}");
    assert!(!said.contains("no-token-of-this-server"), "{said}");
}

#[test]
fn setup_shows_the_stanza_where_the_api_is_not_allowed_and_openbao_takes_it() {
    let program = match program() {
        Ok(program) => program,
        Err(why) => {
            return left_out(
                "commands::setup_shows_the_stanza_where_the_api_is_not_allowed_and_openbao_takes_it",
                &why,
            );
        }
    };
    let dir = TempDir::new("setup");
    let first = OpenBao::start(&program, &dir.join("first"), "");
    for device in ["socket", "http"] {
        let daemon = Daemon::start(&for_openbao(WITH_TCP, first.port()));
        let refused = daemon.run(&["setup", "--device", device], &[("VAULT_TOKEN", ROOT)]);
        let kind = format!("audit \"{device}\"");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(!refused.status.success() && said.contains(&kind), "the stanza is shown: {said}");
        let stanza = daemon.run(&["setup", "--print", "--device", device], &[]);
        assert!(stanza.status.success(), "{}", stanza.stderr);
        assert!(stanza.stdout.contains(&kind), "{}", stanza.stdout);
        // The stanza as printed, in a server of its own.
        let second = OpenBao::start(&program, &dir.join(device), &stanza.stdout);
        second.api().root("GET", "sys/mounts", "");
        wait_until("the entries of that call arrive", || {
            daemon.lines("all.log").iter().filter(|line| line.contains("\"sys/mounts\"")).count() == 2
        });
        assert!(
            daemon.lines("all.log").iter().any(|line| line.contains("\"sys/audit/test\"")),
            "and the probe before"
        );
    }
}
