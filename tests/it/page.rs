//! The status page: what it shows, to whom, and in a real browser, where Debian's package `chromium` is on the `PATH`.

#[path = "page/browser.rs"]
mod browser;

use serde_json::Value;

use crate::harness::{Daemon, HTTP_ONLY, WITH_TCP, entry};
use crate::support::http::{Answer, Client};
use crate::support::sink::{Script, Sink};
use crate::support::{free_port, wait_until};

/// A name that a careless page would run.
const HOSTILE: &str = "<script>alert(1)</script>\"'&amp;";

/// In records only.
const MARKER: &str = "m4rker-of-a-record";
/// In the configuration, and nobody's business who only sees the page.
const SECRETS: [&str; 3] = ["hidden-in-a-rule", "hidden-in-a-url", "hidden-token"];

/// Groups of every kind: `more` are further ones, `top` is at the top level.
fn config(top: &str, more: &str) -> String {
    format!(
        r#"{WITH_TCP}
{top}
rule_groups:
  - name: deletions
    rules: ['Request.Operation == "delete"', 'Request.Path == "hidden-in-a-rule"']
    log_file: {{ file_path: "{{dir}}/deletions.log" }}
  - name: '{}'
    rules: ['int(Request.Path) > 0', 'Request.Operation == "list"']
    log_file: {{ file_path: "{{dir}}/other.log" }}
{more}
"#,
        HOSTILE.replace('\'', "''")
    )
}

fn json(daemon: &Daemon) -> Value {
    let answer = daemon.admin("/status.json");
    assert_eq!(answer.status, 200);
    answer.json()
}

fn html(daemon: &Daemon) -> String {
    daemon.admin("/").text()
}

/// The row of a table of `/status.json` that has this value under this name.
#[track_caller]
fn row<'a>(page: &'a Value, table: &str, name: &str, value: &str) -> &'a Value {
    let rows = page[table]["rows"].as_array().unwrap_or_else(|| panic!("no table {table} in {page}"));
    rows.iter().find(|row| row[name] == value).unwrap_or_else(|| panic!("no {value} in {rows:?}"))
}

fn findings(page: &Value) -> Vec<&str> {
    page["health"]["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter_map(|f| f["text"].as_str())
        .collect()
}

/// One record of each outcome but refused, two matched; one refused for its size; all with the marker.
fn send_some(daemon: &Daemon) {
    for (record, status) in [
        (entry("1", "delete", MARKER), 204),
        (entry("2", "delete", "17"), 204),
        (entry(MARKER, "read", MARKER), 204),
        (format!("{MARKER} is no record"), 204),
        (entry("3", "read", &format!("{MARKER}{}", "x".repeat(5000))), 413),
    ] {
        assert_eq!(daemon.post(&record), status);
    }
}

#[test]
fn the_page_comes_with_the_headers_that_keep_it_to_itself() {
    let daemon = Daemon::start(&config("", ""));
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/status.json", "application/json"),
        ("/status.css", "text/css; charset=utf-8"),
        ("/status.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = daemon.admin(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}: {name}");
        }
        let policy: Vec<&str> =
            answer.header("content-security-policy").expect("a policy").split(';').map(str::trim).collect();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ] {
            assert!(policy.contains(&directive), "{path}: {directive} in {policy:?}");
        }
        assert_eq!(policy.len(), 10, "nothing else is allowed");
        // Nothing of it comes from elsewhere.
        let text = answer.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("//") || path.ends_with(".js"), "{path}");
        assert!(!text.contains("http:") && !text.contains("https:"), "{path}");
    }
    let css_and_js = daemon.admin("/status.css").body.len() + daemon.admin("/status.js").body.len();
    assert!(css_and_js < 20_000, "{css_and_js}");
}

#[test]
fn get_and_head_only_and_on_the_admin_address_only() {
    let daemon = Daemon::start(&config("", ""));
    let mut client = Client::connect(daemon.admin_port()).expect("the admin listener");
    for path in ["/status.css", "/status.js", "/?whatever", "/"] {
        let answer = client.request("GET", path, &[], b"").expect("an answer");
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.is_empty());
        client.send_raw(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_start(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head is text");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Security-Policy: "), "{head}");
        assert!(head.contains("\r\nContent-Length: "), "{head}");
        // No body follows: the next answer begins at once.
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = client.request(method, path, &[], b"").expect("an answer");
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    for path in ["/status", "/status.html", "/index.html", "/status.json/", "//", "/favicon.ico"] {
        assert_eq!(daemon.admin(path).status, 404, "{path}");
    }
    let mut client = daemon.client();
    for path in ["/", "/status.json", "/status.js"] {
        assert_eq!(
            client.request("GET", path, &[], b"").expect("an answer").status,
            404,
            "{path} for senders"
        );
    }
}

#[test]
fn its_numbers_are_those_of_the_metrics() {
    let daemon = Daemon::start(&config("limits: { record_bytes_max: 4096 }", ""));
    send_some(&daemon);
    let mut stream = crate::support::send::tcp(daemon.audit());
    crate::support::send::line(&mut stream, entry("4", "delete", "a").as_bytes());
    daemon.wait_received(6);
    let (page, metrics) = (json(&daemon), daemon.metrics());
    for outcome in ["matched", "unmatched", "quarantined", "refused"] {
        let counted = metrics[&format!("records_total{{outcome=\"{outcome}\"}}")];
        assert_eq!(page["records"][outcome].as_f64(), Some(counted), "{outcome}");
        assert!(counted > 0.0, "{outcome}");
    }
    assert_eq!(page["records"]["received"], 6);
    for (listener, connections) in [("http", true), ("tcp", true), ("unix", true)] {
        let row = row(&page, "listeners", "listener", listener);
        for (name, family) in
            [("received", "records_received_total"), ("received_bytes", "received_bytes_total")]
        {
            let counted = metrics[&format!("{family}{{listener=\"{listener}\"}}")];
            assert_eq!(row[name].as_f64(), Some(counted), "{listener}: {name}");
        }
        assert_eq!(row["connections"].is_number(), connections);
    }
    assert_eq!(row(&page, "listeners", "listener", "tcp")["connections"], 1);
    assert_eq!(
        row(&page, "listeners", "listener", "admin")["address"],
        format!("127.0.0.1:{}", daemon.admin_port())
    );
    assert_eq!(row(&page, "reasons", "reason", "oversize")["outcome"], "refused");
    assert_eq!(row(&page, "reasons", "reason", "not_object")["frames"], 1);

    let deletions = row(&page, "groups", "group", "deletions");
    assert_eq!((&deletions["matches"], &deletions["rules"]), (&3.into(), &2.into()));
    assert_eq!(deletions["matches"].as_f64(), Some(metrics["group_matches_total{group=\"deletions\"}"]));
    assert_eq!(deletions["never_matched"]["some"], serde_json::json!([{"rule": 2, "errors": 0}]));
    assert_eq!((&deletions["failing"]["some"], &deletions["tone"]), (&serde_json::json!([]), &"well".into()));
    let other = row(&page, "groups", "group", HOSTILE);
    let errors = daemon.sum("rule_errors_total");
    assert!(errors > 0.0);
    assert_eq!(other["failing"]["some"][0]["rule"], 1);
    assert_eq!(other["failing"]["some"][0]["errors"].as_f64(), Some(errors));
    assert_eq!(
        (&other["tone"], &other["never_matched"]["some"][0]["rule"]),
        (&"warn".into(), &2.into()),
        "{other}"
    );
    assert!(page["uptime_ms"].as_u64().is_some_and(|ms| ms > 0));
    assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(page["store"]["rows"], serde_json::json!([]), "there is no durable store");

    let html = html(&daemon);
    for part in [
        "<h3>Received</h3><p class=\"rate live\"></p><p class=\"total\"><b>6</b>",
        "<h3>Matched</h3><p class=\"rate live\"></p><p class=\"total\"><b>3</b>",
        "<th scope=\"row\">deletions</th><td>2</td><td>3</td>",
        "<meta http-equiv=\"refresh\" content=\"10\">",
        "<section data-table=\"store\" hidden>",
        "1 frame was refused, 1 frame went to quarantine",
    ] {
        assert!(html.contains(part), "{part} in {html}");
    }
    assert!(html.contains("class=\"well\"><h2 id=\"verdict\" role=\"status\">All is well</h2>"), "{html}");
}

#[test]
fn nothing_of_a_record_and_no_secret_is_on_it_and_names_stay_text() {
    let sink = format!(
        "    messaging: {{ type: webhook, webhook_url: \"http://127.0.0.1:{}/hidden-in-a-url\", token: \"hidden-token\" }}\n",
        free_port()
    );
    let daemon = Daemon::start(&config("limits: { record_bytes_max: 4096 }", &sink));
    send_some(&daemon);
    assert_eq!(daemon.post(&entry(MARKER, "list", MARKER)), 204);
    wait_until("the sink is down", || daemon.sum("sink_up") == 0.0);
    let (page, data) = (html(&daemon), daemon.admin("/status.json").text());
    for hidden in SECRETS.iter().chain(&[MARKER, "hmac-sha256", "approle"]) {
        assert!(!page.contains(hidden) && !data.contains(hidden), "{hidden}");
    }
    let escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;amp;";
    assert!(page.contains(&format!("<th scope=\"row\">{escaped}</th>")), "{page}");
    assert!(page.contains(&format!("Sink {escaped}/webhook is down")), "{page}");
    assert_eq!(page.matches("<script").count(), 1, "its own");
}

#[test]
fn what_is_wrong_stands_at_the_top() {
    let refusing = Sink::start([Script::status(400)]);
    let dead = free_port();
    let top = "async: { retry: { backoff: 50ms, max_backoff: 100ms }, durable: { enabled: true, dir: \"{dir}/store\", max_bytes: 64MB } }";
    let more = format!(
        r#"  - name: refused
    rules: ['Request.Operation == "delete"']
    messaging: {{ type: webhook, webhook_url: "{}", rate_per_s: 0 }}
  - name: nobody
    rules: ['Request.Operation == "delete"']
    messaging: {{ type: webhook, webhook_url: "http://127.0.0.1:{dead}/", rate_per_s: 0 }}
"#,
        refusing.url("/hook")
    );
    let daemon = Daemon::start(&config(top, &more));
    let page = json(&daemon);
    assert_eq!((&page["health"]["tone"], findings(&page).len()), (&"well".into(), 0), "{page}");
    assert!(html(&daemon).contains("<ul id=\"findings\"></ul>"));

    assert_eq!(daemon.post(&entry("1", "delete", "a")), 204);
    wait_until("one sink is down and the other has a dead letter", || {
        let metrics = daemon.metrics();
        metrics["sink_up{sink=\"nobody/webhook\"}"] == 0.0 && metrics["dead_letters"] == 1.0
    });
    // Looked at now and then by the store.
    wait_until("the page tells of it", || json(&daemon)["store"]["rows"][1]["tasks"] == 1);
    let page = json(&daemon);
    assert_eq!(
        (&page["health"]["tone"], &page["health"]["verdict"]),
        (&"bad".into(), &"Something is wrong".into())
    );
    let told = findings(&page);
    assert!(told.contains(&"Sink nobody/webhook is down"), "{told:?}");
    assert!(told.contains(&"1 dead letter is kept"), "{told:?}");
    let down = row(&page, "sinks", "sink", "nobody/webhook");
    assert_eq!((&down["up"], &down["tone"]), (&false.into(), &"bad".into()));
    assert_eq!(row(&page, "sinks", "sink", "refused/webhook")["failed"], 1);
    assert_eq!(row(&page, "store", "log", "pending tasks")["tasks"], 1);

    // A configuration that is refused.
    std::fs::write(daemon.path("config.yaml"), "colour: red\n").expect("written");
    let ended = daemon.run_as_is(&["reload"]);
    assert_ne!(ended.status.code(), Some(0), "{ended:?}");
    // `reload` finds no socket in that configuration; the signal needs none.
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the page tells of the reload", || json(&daemon)["reloads"]["rows"][0]["refused"] == 1);
    let page = json(&daemon);
    let told = findings(&page);
    assert!(told.contains(&"The last reload was not put to use; the earlier configuration is"), "{told:?}");
    let html = html(&daemon);
    for part in [
        "<section id=\"health\" class=\"bad\"><h2 id=\"verdict\" role=\"status\">Something is wrong</h2>",
        "<li class=\"bad\">Sink nobody/webhook is down</li>",
        "<tr class=\"bad\"><th scope=\"row\">nobody/webhook</th><td class=\"words\">down</td>",
        "<tr class=\"warn\"><th scope=\"row\">dead letters</th><td>1</td>",
        "<tr class=\"warn\"><th scope=\"row\">refused or failed</th><td>0</td><td>1</td>",
    ] {
        assert!(html.contains(part), "{part} in {html}");
    }
}

#[test]
fn a_log_file_that_cannot_be_written_makes_it_red() {
    let daemon = Daemon::start(&format!(
        "{HTTP_ONLY}rule_groups:\n  - {{ name: gone, log_file: {{ file_path: \"{{dir}}/logs/gone.log\" }} }}\n  - {{ name: good, log_file: {{ file_path: \"{{dir}}/good.log\" }} }}\n"
    ));
    std::fs::remove_dir_all(daemon.path("logs")).expect("removed");
    std::fs::write(daemon.path("logs"), "not a directory").expect("written");
    wait_until("records are refused", || daemon.post(&entry("1", "read", "a")) == 503);
    let page = json(&daemon);
    assert_eq!(page["health"]["tone"], "bad");
    assert_eq!(daemon.admin("/readyz").status, 503);
    assert!(findings(&page)[0].starts_with("Not ready: log files: "), "{page}");
    let file = row(&page, "logs", "file", &daemon.path("logs/gone.log").display().to_string());
    assert_eq!(
        (&file["state"], &file["write_errors"], &file["tone"]),
        (&"the last append failed".into(), &1.into(), &"bad".into())
    );
    assert_eq!(row(&page, "conditions", "condition", "log files")["tone"], "bad");
    assert_eq!(row(&page, "conditions", "condition", "accepting")["state"], "ok");
    assert_eq!(row(&page, "reasons", "reason", "log_write")["frames"], 1);
}

#[test]
fn a_thousand_groups_of_ten_rules_make_a_page_of_bounded_size() {
    let mut groups = String::new();
    for n in 0..1000 {
        let rules: Vec<String> = (0..10).map(|k| format!("'Request.Path == \"{n}/{k}\"'")).collect();
        groups.push_str(&format!(
            "  - name: group-{n:04}\n    rules: [{}{}]\n    log_file: {{ file_path: \"{{dir}}/all.log\" }}\n",
            rules.join(", "),
            if n == 999 { ", 'Request.Operation == \"read\" && int(Request.Path) > 0'" } else { "" }
        ));
    }
    let daemon = Daemon::start(&format!("{HTTP_ONLY}rule_groups:\n{groups}"));
    for path in ["777/3", "777/4", "888/9"] {
        assert_eq!(daemon.post(&entry("1", "read", path)), 204);
    }
    let Answer { body, .. } = daemon.admin("/");
    assert!(body.len() < 40_000, "{}", body.len());
    let (html, page) = (String::from_utf8(body).expect("text"), json(&daemon));
    assert_eq!(
        (page["groups"]["rows"].as_array().map(Vec::len), &page["groups"]["more"]),
        (Some(50), &950.into())
    );
    assert!(html.contains("<p class=\"more\" data-rows=\"groups\">and 950 more groups</p>"));
    // What is noteworthy is among those that are shown, in the order of the configuration.
    let shown: Vec<&str> =
        page["groups"]["rows"].as_array().expect("rows").iter().filter_map(|g| g["group"].as_str()).collect();
    assert!(shown.is_sorted(), "{shown:?}");
    for name in ["group-0777", "group-0888", "group-0999"] {
        assert!(shown.contains(&name), "{name} in {shown:?}");
    }
    let failing = row(&page, "groups", "group", "group-0999");
    assert_eq!((&failing["failing"]["some"][0]["rule"], &failing["tone"]), (&11.into(), &"warn".into()));
    assert!(
        html.contains(
            "<td class=\"words\">1, 2, 3, 4, 5, 6, 7, 8 and 3 more</td><td class=\"words\">11 (3 times)</td>"
        ),
        "{html}"
    );
    assert_eq!(row(&page, "groups", "group", "group-0777")["never_matched"]["more"], 0);
}
