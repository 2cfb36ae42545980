//! The program's command line from its real executable: exit codes, what goes to which stream, nothing bound with a
//! wrong configuration, and `setup` against a real OpenBao.

#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "one program, nothing to reach from outside; waits for another program"
)]

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

mod support;

use support::{free_port, left_out, openbao};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vault-audit-filter");

/// A directory of its own for one test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vaf-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        Scratch(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a temporary file can be written");
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The program with an environment of its own: the settings of whoever runs the tests must not reach it.
fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("VAULT_") || ["HOME", "CREDENTIALS_DIRECTORY", "RUST_LOG"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ended(output: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    ended(program(arguments, environment).output().expect("the program starts"))
}

#[test]
fn check_and_serve_refuse_every_wrong_configuration() {
    let mut files = 0;
    for entry in std::fs::read_dir(at("tests/data/config/wrong")).expect("the table is there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let wants = text.lines().filter_map(|line| line.strip_prefix("# wants "));
        let path = path.display().to_string();
        let checked = run(&["check", "--config", &path], &[]);
        assert_eq!((checked.code, checked.out.as_str()), (Some(1), ""), "{path}: {}", checked.err);
        let served = run(&["serve", "--config", &path], &[]);
        assert_eq!((served.code, served.out.as_str()), (Some(2), ""), "{path}: {}", served.err);
        assert_eq!(checked.err, served.err, "{path}");
        for want in wants {
            let (line, parts) = want.split_once(": ").expect("line: key: what | cure");
            let (key, parts) = parts.split_once(": ").expect("line: key: what | cure");
            let (what, cure) = parts.split_once(" | ").expect("line: key: what | cure");
            let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
            let place = format!("{path}:{line}: {key}");
            let told =
                checked.err.lines().any(|l| l.starts_with(&place) && l.contains(what) && l.contains(cure));
            assert!(told, "{want:?} is not in\n{}", checked.err);
        }
        files += 1;
    }
    assert!(files >= 30, "{files} files");
}

#[test]
fn a_wrong_configuration_binds_opens_and_writes_nothing() {
    let scratch = Scratch::new("nothing");
    // While the port is taken, a server that binds before it checks would speak of the port.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let text = format!(
        "listen: {{ http: {{ address: '127.0.0.1:{port}' }} }}\nvault: {{ audit_address: '127.0.0.1:0' }}\nasync: {{ workers: many }}\n\
         rule_groups:\n  - {{ name: a, rules: ['true'], log_file: {{ file_path: '{}/logs/a.log' }} }}\n",
        scratch.0.display()
    );
    let served = run(&["serve", "--config", &scratch.file("c.yaml", &text)], &[]);
    drop(taken);
    assert_eq!(served.code, Some(2), "{}", served.err);
    assert!(
        served.err.contains("async.workers") && !served.err.contains(&port.to_string()),
        "{}",
        served.err
    );
    assert!(!scratch.0.join("logs").exists());
}

#[test]
fn check_accepts_the_files_that_come_with_the_program() {
    for file in ["config/example.yaml", "config/quickstart.yaml", "tests/data/config/predecessor/readme.yaml"]
    {
        let checked = run(&["check", "--config", &at(file).display().to_string()], &[]);
        assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""), "{file}");
        assert!(checked.out.contains("no problems"), "{file}: {}", checked.out);
    }
}

#[test]
fn the_configuration_is_found_at_home_and_by_its_variable() {
    let scratch = Scratch::new("home");
    let home = scratch.0.display().to_string();
    scratch.file(".vault-audit-filter.yaml", "colour: red\n");
    let checked = run(&["check"], &[("HOME", &home)]);
    assert_eq!(checked.code, Some(1));
    assert!(checked.err.contains("/.vault-audit-filter.yaml:1: colour: unknown key"), "{}", checked.err);
    let other = scratch.file("other.yaml", "unmatched: ''\n");
    let checked = run(&["check"], &[("HOME", &home), ("VAULT_AUDIT_FILTER_CONFIG", &other)]);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    assert!(checked.out.contains("other.yaml"), "{}", checked.out);
    let checked = run(&["check", "--config", "/no/such/file.yaml"], &[]);
    assert!(checked.code == Some(1) && checked.err.contains("cannot read the file"), "{}", checked.err);
    let checked = run(&["check", "--config", &other], &[("VAULT_AUDIT_FILTER_ASYNC_WORKERS", "x")]);
    assert!(
        checked.code == Some(1) && checked.err.contains("environment VAULT_AUDIT_FILTER_ASYNC_WORKERS: "),
        "{}",
        checked.err
    );
}

#[test]
fn help_version_completions_and_wrong_arguments() {
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["help", "match"], 0),
        (&["completions", "bash"], 0),
        (&["setup", "--print"], 0),
        (&[], 2),
        (&["serve", "--no-such-flag"], 2),
    ] {
        let ended = run(arguments, &[]);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.err);
        let (full, empty) = if code == 0 { (&ended.out, &ended.err) } else { (&ended.err, &ended.out) };
        assert!(!full.is_empty() && empty.is_empty(), "{arguments:?}");
    }
}

#[test]
fn match_is_like_grep() {
    let scratch = Scratch::new("match");
    let (a, b) = (
        r#"{"type":"request","request":{"operation":"delete","path":"secret/a"}}"#,
        r#"{ "type": "response", "request": {"operation":"read","path":"secret/b"}}"#,
    );
    let log = scratch.file("a.log", &format!("{a}\n{b}\nno record\n"));
    let rule = r#"Request.Operation == "delete""#;
    let some = run(&["match", "--rule", rule, &log], &[]);
    assert_eq!((some.code, some.out), (Some(0), format!("{a}\n")));
    assert!(some.err.contains("1 line skipped") && some.err.contains("a.log:3: "), "{}", some.err);
    let none = run(&["match", "--rule", "Type == 'other'", &log], &[]);
    assert_eq!((none.code, none.out.as_str()), (Some(1), ""));
    let wrong = run(&["match", "--rule", "Typ == 'other'", &log], &[]);
    assert!(wrong.code == Some(2) && wrong.err.contains("Type"), "{}", wrong.err);
    assert_eq!(run(&["match", "--rule", rule, "/no/such/file"], &[]).code, Some(2));

    // From a pipe, into a reader that has seen enough after one line.
    let many = scratch.file("many.log", &format!("{a}\n").repeat(100_000));
    let mut command = program(&["match", "--rule", rule, "-"], &[]);
    command.stdin(std::fs::File::open(many).expect("readable")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut first = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut out, &mut first).expect("a line");
    drop(out);
    let ended = ended(child.wait_with_output().expect("it ends"));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "a closed pipe is no failure");
    assert_eq!(first, format!("{a}\n"));
}

/// The quickstart's groups on entries of a real OpenBao take what their names say.
#[test]
fn the_quickstart_finds_what_it_is_for() {
    let scratch = Scratch::new("quickstart");
    let entry = |kind: &str, operation: &str, path: &str, policy: &str, error: &str| {
        serde_json::json!({
            "time": "2026-11-24T07:17:23.9Z", "type": kind, "auth": { "policies": [policy] }, "error": error,
            "request": { "id": "x", "operation": operation, "path": path },
        })
    };
    let denied = "1 error occurred:\n\t* permission denied\n\n";
    for (entry, groups) in [
        (entry("response", "read", "secret/data/a", "default", denied), &["denied"][..]),
        (entry("request", "read", "secret/data/a", "default", denied), &[]),
        (entry("response", "update", "auth/token/lookup-self", "", "invalid token"), &["denied"]),
        (entry("request", "update", "sys/policies/acl/admin", "ops", ""), &["changes"]),
        (entry("request", "read", "sys/policies/acl/admin", "ops", ""), &[]),
        (entry("request", "update", "auth/approle/role/ci", "ops", ""), &["changes"]),
        (entry("request", "update", "auth/approle/login", "", ""), &[]),
        (entry("request", "update", "sys/auth/oidc", "root", ""), &["changes", "root_and_deletes"]),
        (entry("request", "delete", "secret/metadata/a", "dev", ""), &["root_and_deletes"]),
        (entry("request", "update", "secret/destroy/a", "dev", ""), &["root_and_deletes"]),
        (entry("request", "update", "sys/generate-root/attempt", "", ""), &["root_and_deletes"]),
        (entry("request", "update", "sys/policiesx", "ops", ""), &[]),
    ] {
        let file = scratch.file("entry.json", &format!("{entry}\n"));
        let config = at("config/quickstart.yaml").display().to_string();
        let mut found = Vec::new();
        for group in ["denied", "changes", "root_and_deletes"] {
            let ended = run(&["match", "--config", &config, "--group", group, "--count", &file], &[]);
            match (ended.code, ended.out.trim()) {
                (Some(0), "1") => found.push(group),
                (Some(1), "0") => {}
                other => panic!("{other:?}: {}", ended.err),
            }
        }
        assert_eq!(found, groups, "{entry}");
    }
}

/// The completion script for bash is one that bash takes.
#[test]
fn bash_takes_its_completions() {
    let script = run(&["completions", "bash"], &[]).out;
    let mut bash = match Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn() {
        Ok(bash) => bash,
        Err(error) => return left_out("bash_takes_its_completions", &format!("no bash: {error}")),
    };
    bash.stdin.take().expect("piped").write_all(script.as_bytes()).expect("bash reads it");
    assert!(bash.wait().expect("bash ends").success());
}

/// An audit device that always works, as a stanza.
const FILE_DEVICE: &str = "audit \"file\" \"truth\" {\n  options {\n    file_path = \"/dev/null\"\n  }\n}\n";

/// A listener on a port that nobody gets by chance once it is closed.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

/// A real OpenBao in development mode.
struct OpenBao {
    _server: openbao::OpenBao,
    address: String,
}

impl OpenBao {
    /// Starts one with `config`; `None` after saying so where there is none.
    fn start(test: &str, scratch: &Scratch, config: &str) -> Option<Self> {
        let program = openbao::program().map_err(|why| left_out(test, &why)).ok()?;
        let server = openbao::OpenBao::start(&program, &scratch.0, config);
        Some(OpenBao { address: format!("http://127.0.0.1:{}", server.port()), _server: server })
    }

    fn api(&self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.address))
            .header("X-Vault-Token", "root")
            .body(body.to_owned())
            .expect("a request");
        let mut answer = ureq::run(request).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let text = answer.body_mut().read_to_string().expect("text");
        if text.is_empty() { serde_json::Value::Null } else { serde_json::from_str(&text).expect("JSON") }
    }

    fn setup(&self, arguments: &[&str], token: &str) -> Ended {
        let arguments: Vec<&str> = ["setup"].into_iter().chain(arguments.iter().copied()).collect();
        run(&arguments, &[("VAULT_ADDR", &self.address), ("VAULT_TOKEN", token)])
    }
}

#[test]
fn setup_enables_the_device_where_openbao_allows_it() {
    let scratch = Scratch::new("bao-api");
    let test = "setup_enables_the_device_where_openbao_allows_it";
    let config = format!("unsafe_allow_api_audit_creation = true\n{FILE_DEVICE}");
    let Some(bao) = OpenBao::start(test, &scratch, &config) else { return };
    // Whoever takes the probe of a TCP device: the kernel, as soon as the port listens.
    let (listener, address) = listener();
    let tcp = ["--vault.audit_protocol", "tcp", "--vault.audit_address", &address];

    let refused = bao.setup(&tcp, "no-such-token");
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("403") && refused.err.contains("sudo"), "{}", refused.err);
    assert!(!refused.err.contains("no-such-token"));

    let enabled = bao.setup(&tcp, "root");
    assert_eq!((enabled.code, enabled.err.as_str()), (Some(0), ""));
    let devices = bao.api("GET", "sys/audit", "");
    let device = &devices["data"]["vault-audit-filter/"];
    assert_eq!(device["type"], "socket");
    assert_eq!(device["description"], "Vault Audit Filter Device");
    assert_eq!(device["options"], serde_json::json!({ "address": address, "socket_type": "tcp" }));
    let again = bao.setup(&tcp, "root");
    assert!(again.code == Some(0) && again.out.contains("enabled already"), "{}{}", again.out, again.err);
    let changed = bao.setup(&["--vault.audit_address", "127.0.0.1:9"], "root");
    assert!(changed.code == Some(1) && changed.err.contains("audit disable"), "{}", changed.err);

    // Nobody listens there any more: the server's own probe fails, or is left out.
    drop(listener);
    let other: Vec<&str> = tcp.into_iter().chain(["--vault.audit_path", "other"]).collect();
    let probe = bao.setup(&other, "root");
    assert!(
        probe.code == Some(1) && probe.err.contains("start `vault-audit-filter serve` first"),
        "{}",
        probe.err
    );
    let other: Vec<&str> = other.into_iter().chain(["--skip-test"]).collect();
    assert_eq!(bao.setup(&other, "root").code, Some(0));
    let http = bao.setup(&["--device", "http", "--vault.audit_path", "web", "--skip-test"], "root");
    assert_eq!(http.code, Some(0), "{}", http.err);
    assert_eq!(
        bao.api("GET", "sys/audit", "")["data"]["web/"]["options"]["uri"],
        "http://127.0.0.1:1270/v1/audit"
    );
}

#[test]
fn setup_logs_in_with_an_approle() {
    let scratch = Scratch::new("bao-approle");
    let test = "setup_logs_in_with_an_approle";
    let config = format!("unsafe_allow_api_audit_creation = true\n{FILE_DEVICE}");
    let Some(bao) = OpenBao::start(test, &scratch, &config) else { return };
    // The policy of the help.
    let policy = r#"path "sys/audit" { capabilities = ["read", "sudo"] } path "sys/audit/*" { capabilities = ["create", "update", "sudo"] }"#;
    let policy = serde_json::json!({ "policy": policy }).to_string();
    bao.api("PUT", "sys/policies/acl/audit-setup", &policy);
    bao.api("POST", "sys/auth/machines", r#"{"type":"approle"}"#);
    bao.api("POST", "auth/machines/role/setup", r#"{"token_policies":"audit-setup"}"#);
    let role_id = bao.api("GET", "auth/machines/role/setup/role-id", "")["data"]["role_id"].clone();
    let secret_id = bao.api("POST", "auth/machines/role/setup/secret-id", "{}")["data"]["secret_id"].clone();
    let file = scratch.file("secret-id", &format!("{}\n", secret_id.as_str().expect("text")));
    let role_id = role_id.as_str().expect("text");
    let login = ["--auth", "approle", "--auth-path", "machines", "--role-id", role_id];
    let arguments: Vec<&str> = login.into_iter().chain(["--secret-id-file", &file, "--skip-test"]).collect();
    let enabled = bao.setup(&arguments, "");
    assert_eq!((enabled.code, enabled.err.as_str()), (Some(0), ""));
    assert_eq!(bao.api("GET", "sys/audit", "")["data"]["vault-audit-filter/"]["type"], "socket");

    let wrong = scratch.file("wrong", "00000000-0000-0000-0000-000000000000\n");
    let arguments: Vec<&str> = login.into_iter().chain(["--secret-id-file", &wrong]).collect();
    let refused = bao.setup(&arguments, "");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.starts_with("could not log in: auth/machines/login: the server answered 400"),
        "{}",
        refused.err
    );
}

#[test]
fn setup_shows_the_stanza_where_openbao_refuses_and_openbao_takes_it() {
    let scratch = Scratch::new("bao-refuses");
    let test = "setup_shows_the_stanza_where_openbao_refuses_and_openbao_takes_it";
    let Some(bao) = OpenBao::start(test, &scratch, "") else { return };
    let (_listener, address) = listener();
    let tcp = ["--vault.audit_protocol", "tcp", "--vault.audit_address", &address];
    let refused = bao.setup(&tcp, "root");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("from its configuration file only"), "{}", refused.err);
    assert!(refused.out.contains("audit \"socket\" \"vault-audit-filter\" {"), "{}", refused.out);
    drop(bao);

    let scratch = Scratch::new("bao-takes");
    let Some(bao) = OpenBao::start(test, &scratch, &refused.out) else { return };
    let device = bao.api("GET", "sys/audit", "")["data"]["vault-audit-filter/"].clone();
    assert_eq!(device["options"], serde_json::json!({ "address": address, "socket_type": "tcp" }));
    let again = bao.setup(&tcp, "root");
    assert!(again.code == Some(0) && again.out.contains("enabled already"), "{}{}", again.out, again.err);
    drop(bao);

    // The other form and the other device, with a description that needs escaping.
    let description = "a \"quoted\" \\ ${name}";
    let arguments = ["setup", "--print", "json", "--skip-test", "--vault.audit_description", description];
    let hcl = [&arguments[..2], &arguments[3..]].concat();
    let bare = [&arguments[..5], &[""]].concat();
    for (arguments, description) in [(&arguments[..], description), (&hcl, description), (&bare, "")] {
        let printed = run(arguments, &[]).out;
        let scratch = Scratch::new("bao-prints");
        // Nobody listens: without a device that works OpenBao would do nothing at all.
        let printed = match serde_json::from_str::<serde_json::Value>(&printed) {
            Ok(mut json) => {
                let devices = json["audit"].as_array_mut().expect("a list");
                let device = serde_json::json!({ "local": false, "options": { "file_path": "/dev/null" } });
                devices.push(serde_json::json!({ "file": { "truth": device } }));
                json.to_string()
            }
            Err(_) => printed + FILE_DEVICE,
        };
        let Some(bao) = OpenBao::start(test, &scratch, &printed) else { return };
        let device = bao.api("GET", "sys/audit", "")["data"]["vault-audit-filter/"].clone();
        assert_eq!(device["type"], "http", "{printed}");
        assert_eq!(device["description"], description, "{printed}");
        assert_eq!(device["options"]["headers"], r#"{"X-Idempotency-Key":["1"]}"#);
    }
}
