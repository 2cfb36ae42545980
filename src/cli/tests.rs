//! The command line as a whole, within the process: what each command says, where, and its exit code.

use std::io;
use std::path::Path;

use super::*;

pub(super) struct Outcome {
    pub(super) code: u8,
    pub(super) out: String,
    pub(super) err: String,
}

pub(super) fn run_in(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io {
        input: Box::new(io::empty()),
        out: Box::new(&mut out),
        err: Box::new(&mut err),
        err_is_terminal: false,
        out_is_terminal: false,
    };
    let words = ["vault-audit-filter"].into_iter().chain(arguments.iter().copied()).map(OsString::from);
    let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let code = run(words, environment, &mut io);
    drop(io);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Outcome { code, out: text(out), err: text(err) }
}

fn at(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

#[test]
fn the_definition_holds_together() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn help_teaches_by_example() {
    let top = run_in(&["--help"], &[]);
    assert_eq!((top.code, top.err.as_str()), (0, ""));
    assert!(top.out.contains("Examples:") && top.out.contains("auditServer"), "{}", top.out);
    for command in [
        "serve",
        "check",
        "test",
        "match",
        "setup",
        "queue",
        "status",
        "tail",
        "replay",
        "reload",
        "bench",
        "completions",
    ] {
        assert!(top.out.contains(&format!("\n  {command} ")), "{command}");
        let help = run_in(&[command, "--help"], &[]);
        assert_eq!(help.code, 0, "{command}");
        assert!(help.out.contains("Examples:"), "{command}");
        assert!(help.out.contains(&format!("vault-audit-filter {command}")), "{command}: {}", help.out);
        let widest = help.out.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(130), "{command}: {widest:?}");
    }
    let version = run_in(&["--version"], &[]);
    assert_eq!(version.out, format!("vault-audit-filter {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_arguments_are_refused() {
    for (arguments, hint) in [
        (&["chekc"][..], "check"),
        (&[], "Usage"),
        (&["match", "--rule", "x", "--group", "y"], "cannot be used with"),
        (&["check", "--log-level", "loud"], "possible values"),
        (&["completions", "tcsh"], "possible values"),
    ] {
        let outcome = run_in(arguments, &[]);
        assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{arguments:?}");
        assert!(outcome.err.contains(hint), "{arguments:?}: {}", outcome.err);
    }
    let outcome = run_in(&["check"], &[("VAULT_AUDIT_FILTER_LOG_LEVEL", "loud")]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("is not one of off, error, warn, info"), "{}", outcome.err);
    let known = [("VAULT_AUDIT_FILTER_LOG_LEVEL", "DEBUG"), ("VAULT_AUDIT_FILTER_LOG_FORMAT", "json")];
    assert_eq!(run_in(&["check", "--config", &at("config/quickstart.yaml")], &known).code, 0);
}

#[test]
fn check_says_what_is_wrong_and_what_is_odd() {
    let outcome = run_in(&["check", "--config", &at("config/example.yaml")], &[]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    assert!(outcome.out.ends_with("no problems (1 rule group, 2 rules, 1 test)\n"), "{}", outcome.out);
    let odd = at("tests/data/config/predecessor/every_messenger.yaml");
    let outcome = run_in(&["check", "--config", &odd], &[]);
    assert_eq!((outcome.code, outcome.err.lines().count()), (0, 6), "{}", outcome.err);
    assert!(outcome.err.lines().all(|line| line.starts_with("warning: ")), "{}", outcome.err);
    let wrong = at("tests/data/config/wrong/five_things.yaml");
    let outcome = run_in(&["check", "--config", &wrong], &[]);
    assert_eq!((outcome.code, outcome.err.lines().count()), (1, 6), "{}", outcome.err);
    assert!(outcome.err.ends_with("5 problems in the configuration\n"), "{}", outcome.err);
    let outcome = run_in(&["auditServer", "--config", &wrong], &[]);
    assert_eq!((outcome.code, outcome.err.lines().count()), (2, 6), "{}", outcome.err);
}

#[test]
fn rules_that_do_not_compile_are_told_with_all_the_rest() {
    let wrong = at("tests/data/config/wrong/rules_and_more.yaml");
    for (command, code) in [("check", 1), ("serve", 2), ("match", 2)] {
        let outcome = run_in(&[command, "--config", &wrong], &[]);
        assert_eq!((outcome.code, outcome.out.as_str()), (code, ""), "{command}");
        let caret = "\n    1 | Request.Operaton == \"delete\"\n      |         ^^^^^^^^\n";
        assert!(outcome.err.contains(caret), "{command}: {}", outcome.err);
        assert!(outcome.err.contains("Request.Operation"), "{command}: {}", outcome.err);
        assert!(outcome.err.ends_with("3 problems in the configuration\n"), "{command}: {}", outcome.err);
    }
}

#[test]
fn flags_are_keys_of_the_configuration() {
    let quickstart = at("config/quickstart.yaml");
    for flag in ["--vault.address", "--vault.audit_address", "--vault.audit_protocol"] {
        let outcome = run_in(&["check", "--config", &quickstart, flag, "no such thing"], &[]);
        assert_eq!(outcome.code, 1, "{flag}");
        assert!(outcome.err.starts_with(&format!("flag {flag}: ")), "{}", outcome.err);
    }
    let all =
        ["--vault.token=t", "--vault.namespace=n", "--vault.audit_path=p", "--vault.audit_description=d"];
    let arguments: Vec<&str> = all.into_iter().chain(["check", "--config", &quickstart]).collect();
    assert_eq!(run_in(&arguments, &[]).code, 0, "before the command as well as after it");
}

/// A standard output that takes nothing.
struct Broken(io::ErrorKind);

impl io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_that_nobody_takes() {
    for (kind, code) in [(io::ErrorKind::BrokenPipe, 0), (io::ErrorKind::StorageFull, 1)] {
        let mut err = Vec::new();
        let mut io = Io {
            input: Box::new(io::empty()),
            out: Box::new(Broken(kind)),
            err: Box::new(&mut err),
            err_is_terminal: false,
            out_is_terminal: false,
        };
        let words = ["vault-audit-filter", "completions", "bash"].map(OsString::from);
        assert_eq!(run(words, Environment::default(), &mut io), code);
        drop(io);
        assert_eq!(err.is_empty(), code == 0);
    }
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let outcome = run_in(&["completions", shell], &[]);
        assert_eq!(outcome.code, 0, "{shell}");
        assert!(outcome.out.contains("completions") && outcome.out.contains("setup"), "{shell}");
    }
}

#[test]
fn the_stanza_needs_no_server() {
    let outcome = run_in(&["setup", "--print"], &[]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let wanted = "audit \"http\" \"vault-audit-filter\" {\n  description = \"Vault Audit Filter Device\"\n  options {\n    \
        headers = \"{\\\"X-Idempotency-Key\\\":[\\\"1\\\"]}\"\n    uri     = \"http://127.0.0.1:1270/v1/audit\"\n  }\n}\n";
    assert!(outcome.out.ends_with(wanted), "{}", outcome.out);
    let outcome = run_in(
        &[
            "setup",
            "--print",
            "json",
            "--device",
            "socket",
            "--vault.audit_protocol",
            "tcp",
            "--address",
            "audit.example:9",
        ],
        &[],
    );
    let json: serde_json::Value = serde_json::from_str(&outcome.out).expect("JSON");
    let wanted = serde_json::json!({ "address": "audit.example:9", "socket_type": "tcp" });
    assert_eq!(json["audit"][0]["socket"]["vault-audit-filter"]["options"], wanted);

    let tokens = [
        ("VAULT_AUDIT_FILTER_LISTEN_HTTP_TOKENS", "SeCrEtVaLuE"),
        ("VAULT_AUDIT_FILTER_VAULT_AUDIT_DESCRIPTION", ""),
    ];
    let outcome = run_in(
        &["setup", "--print", "hcl", "--skip-test", "--uri", "https://x.example/v1/audit/bao"],
        &tokens,
    );
    assert!(outcome.out.contains("[\\\"env://AUDIT_AUTHORIZATION\\\"]"), "{}", outcome.out);
    assert!(
        outcome.out.contains("skip_test = \"true\"") && !outcome.out.contains("description"),
        "{}",
        outcome.out
    );
    assert!(outcome.err.contains("AUDIT_AUTHORIZATION=\"Bearer TOKEN\""), "{}", outcome.err);
    assert!(outcome.out.contains("\n# The server reads AUDIT_AUTHORIZATION"), "{}", outcome.out);
    assert!(!outcome.out.contains("SeCrEtVaLuE"));
}

#[test]
fn setup_refuses_what_cannot_work() {
    let off = [("VAULT_AUDIT_FILTER_LISTEN_HTTP_ADDRESS", "")];
    let token = [("VAULT_TOKEN", "t")];
    for (arguments, environment, hint) in [
        (&["--print", "--vault.audit_path", "a b"][..], &[][..], "no path of an audit device"),
        (&["--print", "--vault.audit_path", "a/../b"], &[], "no path of an audit device"),
        (&["--print", "--device", "http"], &off, "give --uri URL"),
        (&["--print", "--uri", "example"], &[], "http://"),
        (&["--print", "--device", "socket", "--vault.audit_protocol", "none"], &[], "no socket listener"),
        (&["--print", "--device", "socket", "--address", "x"], &[], "no port"),
        (&["--vault.audit_address", ":1269"], &token, "every interface"),
        (&[], &[], "no token; set VAULT_TOKEN"),
        (&["--auth", "approle"], &[], "needs --role-id"),
        (&["--auth", "approle", "--role-id", "r", "--secret-id-file", "/no/such"], &[], "--secret-id-file"),
        (&["--auth", "jwt"], &[], "needs --role"),
        (&["--auth", "jwt", "--role", "r"], &[], "needs --jwt-file"),
        (&["--auth", "jwt", "--role", "r", "--jwt-file", "/dev/null"], &[], "one line of text"),
        (&["--auth", "kubernetes"], &[], "needs --role"),
        (&["--auth", "kubernetes", "--role", "r", "--jwt-file", "/no/such"], &[], "--jwt-file"),
        (&["--auth", "cert"], &[], "needs --client-cert"),
        (&["--client-cert", "/x"], &token, "both --client-cert and --client-key"),
        (&["--client-cert", "/no/such", "--client-key", "/no/such"], &token, "cannot be read"),
        (&["--ca-cert", "/dev/null"], &token, "holds no certificate"),
        (&["--vault.address", "nowhere"], &token, "http://"),
    ] {
        let arguments: Vec<&str> = ["setup"].into_iter().chain(arguments.iter().copied()).collect();
        let outcome = run_in(&arguments, environment);
        assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{arguments:?}: {}", outcome.err);
        assert!(outcome.err.contains(hint), "{arguments:?}: {}", outcome.err);
    }
    let wrong = at("tests/data/config/wrong/five_things.yaml");
    assert_eq!(run_in(&["setup", "--print", "--config", &wrong], &[]).code, 2);
}

#[test]
fn setup_says_what_failed_and_what_to_do() {
    let token = ("VAULT_TOKEN", "SeCrEtVaLuE");
    let api = crate::vault::fake::Api::start(|request| {
        let (line, body) = (request.line.as_str(), request.body.as_str());
        if line.starts_with("POST /v1/auth/") && body.contains("wrong") {
            return (400, r#"{"errors":["invalid role or secret ID"]}"#.into());
        }
        if line.starts_with("POST /v1/auth/") {
            return (200, r#"{"auth":{"client_token":"SeCrEtVaLuE2"}}"#.into());
        }
        if line.starts_with("GET /v1/sys/audit") {
            let there = r#"{"type":"socket","description":"","options":{"address":"127.0.0.1:1269","socket_type":"udp"}}"#;
            return (
                200,
                format!(r#"{{"data":{{"there/":{there},"odd/":{{"type":"file","options":null}}}}}}"#),
            );
        }
        let error = |text: &str| (400, format!(r#"{{"errors":["{text}"]}}"#));
        match line.split_whitespace().nth(1).unwrap_or_default().trim_start_matches("/v1/sys/audit/") {
            "probe" => error("audit backend failed test message: refused"),
            "namespace" => error("operation only available in root namespace"),
            "type" => error(r#"unknown backend type: \"http\""#),
            "used" => error("path already in use at x/"),
            "sealed" => (503, r#"{"errors":["Vault is sealed"]}"#.into()),
            "denied" => (403, r#"{"errors":["permission denied"]}"#.into()),
            "api" => error("cannot enable audit device via API; use declarative"),
            "other" => (400, String::new()),
            "moved" => (307, String::new()),
            _ => (204, String::new()),
        }
    });
    let address = api.address();
    let setup = |arguments: &[&str]| {
        let arguments: Vec<&str> =
            ["setup", "--vault.address", &address].into_iter().chain(arguments.iter().copied()).collect();
        let outcome = run_in(&arguments, &[token]);
        assert!(!outcome.err.contains("SeCrEtVaLuE") && !outcome.out.contains("SeCrEtVaLuE"));
        outcome
    };
    for (path, hint) in [
        ("probe", "start `vault-audit-filter serve` first"),
        ("namespace", "root namespace"),
        ("type", "use --device socket"),
        ("used", "another device is at or below used"),
        ("sealed", "unseal the server"),
        ("denied", "lacks sys/audit with sudo"),
        ("api", "put the stanza below there"),
        ("other", "the server answered 400"),
        ("moved", "not sent on to another"),
        ("odd", "exists with other options"),
    ] {
        let outcome = setup(&["--vault.audit_path", path]);
        assert_eq!(outcome.code, 1, "{path}");
        assert!(outcome.err.contains(hint), "{path}: {}", outcome.err);
        assert_eq!(outcome.out.contains("audit \"socket\" \"api\" {"), path == "api", "{}", outcome.out);
    }
    let outcome = setup(&["--vault.audit_path", "there"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    assert!(outcome.out.contains("enabled already"), "{}", outcome.out);
    let outcome = setup(&["--vault.audit_path", "/new/"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    assert_eq!(outcome.out, "enabled the audit device new: socket to 127.0.0.1:1269\n");
    let sent = api.requests().pop().expect("a request");
    assert_eq!(sent.line, "PUT /v1/sys/audit/new HTTP/1.1");
    let body: serde_json::Value = serde_json::from_str(&sent.body).expect("JSON");
    let options = serde_json::json!({ "address": "127.0.0.1:1269", "socket_type": "udp" });
    let description = "Vault Audit Filter Device";
    assert_eq!(body, serde_json::json!({ "type": "socket", "description": description, "options": options }));
    assert_eq!(sent.header("x-vault-token"), Some("SeCrEtVaLuE"));

    // A login of ours is given back, whatever came of it.
    let outcome = setup(&[
        "--auth",
        "approle",
        "--role-id",
        "r",
        "--auth-path",
        "/special/",
        "--vault.namespace",
        "ns",
    ]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let requests = api.requests();
    let lines: Vec<&str> = requests.iter().map(|request| request.line.as_str()).collect();
    let wanted = [
        "POST /v1/auth/special/login",
        "GET /v1/sys/audit",
        "PUT /v1/sys/audit/vault-audit-filter",
        "POST /v1/auth/token/revoke-self",
    ];
    for (line, wanted) in lines[lines.len() - 4..].iter().zip(wanted) {
        assert!(line.starts_with(wanted), "{lines:?}");
    }
    let [login, list, ..] = &requests[requests.len() - 4..] else { unreachable!("four requests") };
    assert_eq!((login.header("x-vault-namespace"), list.header("x-vault-namespace")), (Some("ns"), None));
    assert_eq!(list.header("x-vault-token"), Some("SeCrEtVaLuE2"));
    let outcome = setup(&["--auth", "approle", "--role-id", "wrong"]);
    assert!(outcome.code == 1 && outcome.err.contains("check the method (--auth)"), "{}", outcome.err);
}
