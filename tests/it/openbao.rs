//! A real OpenBao with HTTP, TCP, UDP and Unix devices at once. Its own file device is the truth: the test works out
//! from that file, without the program, what each rule group's log file must hold.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{Daemon, HTTP_ONLY, WITH_TCP, WITH_UDP, whole_lines};
use crate::support::openbao::{Api, OpenBao, ROOT, program};
use crate::support::{TempDir, left_out};

/// Four groups of different kinds, and one that takes the rest.
const GROUPS: &str = r##"
unmatched: rest
rule_groups:
  - name: secret_writes
    rules:
      - 'Request.Operation in ["create", "update", "delete"] && Request.Path startsWith "secret/"'
    log_file: { file_path: "{dir}/secret_writes.log" }
  - name: denied
    rules:
      - 'Type == "response" and Error contains "permission denied"'
      - 'Auth.PolicyResults.Allowed == false && Request.Path != "sys/audit/test"'
    log_file: { file_path: "{dir}/denied.log" }
  - name: logins
    rules:
      - 'Request.Path matches "^auth/(approle|userpass)/login(/|$)" && Type == "response"'
    log_file: { file_path: "{dir}/logins.log" }
  - name: guarded
    rules:
      - 'record.request?.data?.options?.cas != nil'
      - 'any(Auth.Policies, # == "root") && Request.MountType in ["transit", "system"] && len(Request.Path) % 2 == 0'
    log_file: { file_path: "{dir}/guarded.log" }
  - name: rest
    log_file: { file_path: "{dir}/rest.log" }
"##;

const GROUP_NAMES: [&str; 5] = ["secret_writes", "denied", "logins", "guarded", "rest"];

/// The groups to which an entry belongs: the rules above once more, by hand.
fn groups_of(entry: &Value) -> Vec<&'static str> {
    let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let (kind, path, operation) = (text("/type"), text("/request/path"), text("/request/operation"));
    let allowed = entry.pointer("/auth/policy_results/allowed") == Some(&Value::Bool(true));
    let root = entry
        .pointer("/auth/policies")
        .and_then(Value::as_array)
        .is_some_and(|policies| policies.iter().any(|p| p == "root"));
    let cas = entry.pointer("/request/data/options/cas").is_some_and(|cas| !cas.is_null());
    let is_login = path.starts_with("auth/userpass/login/")
        || path == "auth/userpass/login"
        || path.starts_with("auth/approle/login/")
        || path == "auth/approle/login";
    let mut groups = Vec::new();
    if ["create", "update", "delete"].contains(&operation) && path.starts_with("secret/") {
        groups.push("secret_writes");
    }
    if (kind == "response" && text("/error").contains("permission denied"))
        || (!allowed && path != "sys/audit/test")
    {
        groups.push("denied");
    }
    if kind == "response" && is_login {
        groups.push("logins");
    }
    let mount_type = text("/request/mount_type");
    if cas || (root && ["transit", "system"].contains(&mount_type) && path.chars().count() % 2 == 0) {
        groups.push("guarded");
    }
    if groups.is_empty() {
        groups.push("rest");
    }
    groups
}

/// The part of a line that does not depend on the device: each device has a salt of its own and a time of its own,
/// that of its formatting, at the beginning of the line.
fn comparable(line: &str) -> String {
    const MARK: &str = "hmac-sha256:";
    let after_time = line.strip_prefix(r#"{"time":""#).and_then(|rest| rest.split_once('"'));
    let (_time, rest) = after_time.unwrap_or_else(|| panic!("the time comes first: {line}"));
    let mut parts = rest.split(MARK);
    let mut plain = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        assert_eq!(part.len() - rest.len(), 64, "a hash has 64 digits: {part}");
        plain.push_str(MARK);
        plain.push_str(rest);
    }
    plain
}

fn is_probe(entry: &Value) -> bool {
    entry.pointer("/request/path") == Some(&json!("sys/audit/test"))
}

/// By (request.id, type): how often, and what [`comparable`] leaves of the line. Probes are left out: each device has its own.
fn by_key<'a>(lines: impl IntoIterator<Item = &'a String>) -> BTreeMap<(String, String), (usize, String)> {
    let mut keys = BTreeMap::new();
    for line in lines {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("torn line: {e}: {line}"));
        if is_probe(&entry) {
            continue;
        }
        let key = (entry["request"]["id"].to_string(), entry["type"].to_string());
        let plain = comparable(line);
        let known = keys.entry(key).or_insert_with(|| (0, plain.clone()));
        known.0 += 1;
        assert_eq!(known.1, plain, "two lines of one entry differ");
    }
    keys
}

/// What OpenBao's file device says that a group must hold.
fn truth_of(group: &str, truth: &[String]) -> BTreeMap<(String, String), (usize, String)> {
    by_key(truth.iter().filter(|line| {
        let entry: Value = serde_json::from_str(line).expect("OpenBao writes JSON");
        groups_of(&entry).contains(&group)
    }))
}

/// Compares the log files of one program with the truth; `devices` of OpenBao sent to it.
#[track_caller]
fn check_logs(daemon: &Daemon, truth: &[String], devices: usize) {
    let mut probes = 0;
    for group in GROUP_NAMES {
        let lines = daemon.lines(&format!("{group}.log"));
        probes += lines.iter().filter(|l| is_probe(&serde_json::from_str(l).expect("JSON"))).count();
        let (is, must) = (by_key(&lines), truth_of(group, truth));
        for (key, (times, plain)) in &must {
            let found = is.get(key);
            assert_eq!(
                found.map(|f| f.0),
                Some(times * devices),
                "{group}: {key:?} once per device: {plain}"
            );
            assert_eq!(found.map(|f| &f.1), Some(plain), "{group}: the bytes as OpenBao wrote them");
        }
        assert_eq!(is.len(), must.len(), "{group}: nothing else");
        let matches = daemon.metric(&format!("group_matches_total{{group=\"{group}\"}}"));
        assert_eq!(matches as usize, lines.len(), "{group}: matches counted");
    }
    assert_eq!(probes, devices, "each device's probe was taken");
    assert_eq!(daemon.metric(r#"records_total{outcome="quarantined"}"#), 0.0);
    assert_eq!(daemon.metric(r#"records_total{outcome="refused"}"#), 0.0);
    assert!(daemon.lines("quarantine.log").is_empty());
}

/// Makes API calls and counts them.
struct Caller<'a> {
    api: Api,
    calls: &'a AtomicUsize,
}

impl Caller<'_> {
    #[track_caller]
    fn call(&mut self, token: &str, method: &str, path: &str, body: &str, status: u16) -> Value {
        let answer = self.api.call(token, method, path, body);
        self.calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        answer.json()
    }
}

/// What all threads use: mounts, roles and a token that may do next to nothing.
struct Prepared {
    role_id: String,
    secret_id: String,
    limited: String,
}

fn prepare(caller: &mut Caller<'_>) -> Prepared {
    for (method, path, body) in [
        ("POST", "sys/auth/approle", r#"{"type":"approle"}"#),
        ("POST", "sys/auth/userpass", r#"{"type":"userpass"}"#),
        ("POST", "sys/mounts/transit", r#"{"type":"transit"}"#),
        (
            "PUT",
            "sys/policies/acl/limited",
            r#"{"policy":"path \"secret/data/open/*\" { capabilities = [\"read\"] }"}"#,
        ),
        ("POST", "auth/approle/role/app", r#"{"token_policies":["limited"],"token_ttl":"20m"}"#),
        ("POST", "auth/userpass/users/ada", r#"{"password":"lovelace","token_policies":["limited"]}"#),
    ] {
        caller.call(ROOT, method, path, body, 204);
    }
    // A key's first creation answers with the key.
    caller.call(ROOT, "POST", "transit/keys/k", "", 200);
    let role = caller.call(ROOT, "GET", "auth/approle/role/app/role-id", "", 200);
    let secret = caller.call(ROOT, "POST", "auth/approle/role/app/secret-id", "", 200);
    let token = caller.call(ROOT, "POST", "auth/token/create", r#"{"policies":["limited"]}"#, 200);
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    Prepared {
        role_id: text(&role["data"]["role_id"]),
        secret_id: text(&secret["data"]["secret_id"]),
        limited: text(&token["auth"]["client_token"]),
    }
}

/// One round of mixed traffic: 35 calls and more.
fn round(caller: &mut Caller<'_>, with: &Prepared, thread: usize, n: usize) {
    let own = format!("t{thread}/n{n}");
    secrets(caller, &own, n);
    logins(caller, with, &own);
    let policy = format!("sys/policies/acl/p-{thread}-{n}");
    caller.call(ROOT, "PUT", &policy, r#"{"policy":"path \"x/<&>/*\" { capabilities = [\"list\"] }"}"#, 204);
    caller.call(ROOT, "GET", &policy, "", 200);
    caller.call(ROOT, "DELETE", &policy, "", 204);
    let plain = json!({"plaintext": "c2VjcmV0"}).to_string();
    let sealed = caller.call(ROOT, "POST", "transit/encrypt/k", &plain, 200);
    let sealed = json!({"ciphertext": sealed["data"]["ciphertext"]}).to_string();
    caller.call(ROOT, "POST", "transit/decrypt/k", &sealed, 200);
    caller.call(ROOT, "GET", "sys/mounts", "", 200);
    caller.call(ROOT, "GET", "sys/auth", "", 200);
    caller.call(ROOT, "POST", "sys/capabilities-self", r#"{"paths":["secret/data/a","sys/mounts"]}"#, 200);
    caller.call(ROOT, "POST", "sys/tools/random/16", r#"{"format":"hex"}"#, 200);
    caller.call(ROOT, "GET", "sys/nothing-there", "", 404);
    if n.is_multiple_of(8) {
        let mount = format!("sys/auth/extra-{thread}-{n}");
        caller.call(ROOT, "POST", &mount, r#"{"type":"userpass","description":"short \"life\""}"#, 204);
        caller.call(ROOT, "DELETE", &mount, "", 204);
    }
}

fn secrets(caller: &mut Caller<'_>, own: &str, n: usize) {
    let data = format!("secret/data/{own}");
    let value = json!({"data": {"k": "v".repeat(n * 7 % 900), "n": n, "ratio": 0.5, "on": true, "no": null, "list": ["a", {"b": "ü<&>\n"}]}, "options": {"cas": 0}});
    caller.call(ROOT, "POST", &data, &value.to_string(), 200);
    // The check-and-set fails now: the entry has an error.
    caller.call(ROOT, "POST", &data, &value.to_string(), 400);
    caller.call(ROOT, "GET", &data, "", 200);
    caller.call(ROOT, "POST", &data, r#"{"data":{"k":"second"}}"#, 200);
    caller.call(ROOT, "GET", &format!("{data}?version=1"), "", 200);
    caller.call(ROOT, "GET", &format!("secret/metadata/{own}"), "", 200);
    caller.call(ROOT, "POST", &format!("secret/metadata/{own}"), r#"{"max_versions":5}"#, 204);
    caller.call(
        ROOT,
        "GET",
        &format!("secret/metadata/{}?list=true", own.split('/').next().unwrap_or("")),
        "",
        200,
    );
    caller.call(ROOT, "LIST", "secret/metadata", "", 200);
    caller.call(ROOT, "DELETE", &data, "", 204);
    caller.call(ROOT, "POST", &format!("secret/undelete/{own}"), r#"{"versions":[2]}"#, 204);
    caller.call(ROOT, "POST", &format!("secret/destroy/{own}"), r#"{"versions":[1]}"#, 204);
    let odd = format!("secret/data/{own}-%C3%BC%20%3C%26%3E%22");
    caller.call(ROOT, "POST", &odd, r#"{"data":{"a":"b"}}"#, 200);
    if n.is_multiple_of(3) {
        caller.call(ROOT, "DELETE", &format!("secret/metadata/{own}"), "", 204);
    }
}

fn logins(caller: &mut Caller<'_>, with: &Prepared, own: &str) {
    let approle = |secret: &str| json!({"role_id": with.role_id, "secret_id": secret}).to_string();
    caller.call("", "POST", "auth/approle/login", &approle(&with.secret_id), 200);
    caller.call("", "POST", "auth/approle/login", &approle("wrong"), 400);
    caller.call("", "POST", "auth/userpass/login/ada", r#"{"password":"lovelace"}"#, 200);
    caller.call("", "POST", "auth/userpass/login/ada", r#"{"password":"wrong"}"#, 400);
    let made = caller.call(ROOT, "POST", "auth/token/create", r#"{"policies":["limited"],"ttl":"5m"}"#, 200);
    let token = made["auth"]["client_token"].as_str().expect("a token").to_owned();
    caller.call(&token, "GET", "auth/token/lookup-self", "", 200);
    caller.call(&token, "POST", "auth/token/revoke-self", "", 204);
    caller.call(&token, "GET", "auth/token/lookup-self", "", 403);
    caller.call(&with.limited, "GET", &format!("secret/data/{own}"), "", 403);
    caller.call(&with.limited, "GET", "secret/data/open/none", "", 404);
    caller.call(&with.limited, "DELETE", "sys/policies/acl/limited", "", 403);
    caller.call("not-a-token", "GET", "secret/data/x", "", 403);
}

/// Mixed traffic from several threads; gives the number of API calls.
fn traffic(server: &OpenBao) -> usize {
    const THREADS: usize = 4;
    const ROUNDS: usize = 8;
    let calls = AtomicUsize::new(0);
    let caller = || Caller { api: server.api(), calls: &calls };
    let with = prepare(&mut caller());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (with, failed, mut caller) = (&with, &failed, caller());
            scope.spawn(move || {
                let run = || (0..ROUNDS).for_each(|n| round(&mut caller, with, thread, n));
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                    failed.lock().expect("no panic while held").push(thread);
                }
            });
        }
    });
    assert_eq!(
        failed.into_inner().expect("no panic while held"),
        Vec::<usize>::new(),
        "threads whose calls went wrong"
    );
    calls.into_inner()
}

#[test]
fn every_group_holds_exactly_the_entries_that_openbao_wrote_itself() {
    let program = match program() {
        Ok(program) => program,
        Err(why) => {
            return left_out(
                "openbao::every_group_holds_exactly_the_entries_that_openbao_wrote_itself",
                &why,
            );
        }
    };
    let dir = TempDir::new("openbao");
    let [http, tcp, udp] = [HTTP_ONLY, WITH_TCP, WITH_UDP].map(|l| Daemon::start(&format!("{l}{GROUPS}")));
    let all = Daemon::start(&format!("{WITH_UDP}{GROUPS}"));
    let truth = dir.join("truth.log");
    let socket = |name: &str, address: &str, kind: &str| {
        format!(
            "audit \"socket\" \"{name}\" {{\n options {{\n address = \"{address}\"\n socket_type = \"{kind}\"\n }}\n}}\n"
        )
    };
    let config = [
        format!("audit \"file\" \"truth\" {{ options {{ file_path = \"{}\" }} }}\n", truth.display()),
        format!(
            "audit \"http\" \"http\" {{ options {{ uri = \"http://127.0.0.1:{}/v1/audit\" }} }}\n",
            http.http()
        ),
        socket("tcp", &format!("127.0.0.1:{}", tcp.audit()), "tcp"),
        socket("udp", &format!("127.0.0.1:{}", udp.audit()), "udp"),
        format!(
            "audit \"http\" \"all-http\" {{ options {{ uri = \"http://127.0.0.1:{}/v1/audit/bao-1\" }} }}\n",
            all.http()
        ),
        socket("all-udp", &format!("127.0.0.1:{}", all.audit()), "udp"),
        socket("all-unix", &all.path("audit.sock").display().to_string(), "unix"),
    ]
    .concat();
    let server = OpenBao::start(&program, dir.path(), &config);
    let calls = traffic(&server);
    assert!(calls >= 1_000, "{calls} calls");
    let said = server.stop();
    let failures: Vec<&str> =
        said.lines().filter(|l| l.contains("failed to log") || l.contains("[ERROR]")).collect();
    assert!(failures.is_empty(), "OpenBao reports audit failures: {failures:#?}");

    let truth = whole_lines(&truth);
    let keys = by_key(&truth);
    assert!(keys.values().all(|(times, _)| *times == 1), "the truth has no entry twice");
    assert!(truth.len() >= 2 * calls, "{} entries for {calls} calls", truth.len());
    for group in GROUP_NAMES {
        assert!(truth_of(group, &truth).len() >= 30, "the traffic has something for {group}");
    }
    for (daemon, devices) in [(&http, 1), (&tcp, 1), (&udp, 1), (&all, 3)] {
        daemon.wait_received(devices * truth.len());
        check_logs(daemon, &truth, devices);
        assert_eq!(daemon.metric("udp_kernel_drops_total"), 0.0);
    }
}
