//! What is there for those who watch the program: the alert rules and the dashboard name metrics that exist; `promtool` checks and tries the
//! rules, and a real Prometheus scrapes the real program, where Debian's package `prometheus` is on the `PATH`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

use vault_audit_filter::metrics::{FAMILIES, Kind};

use crate::harness::{Daemon, HTTP_ONLY, entry};
use crate::support::http::Client;
use crate::support::{TempDir, free_port, left_out, wait_until};

const ALERTS: &str = "config/prometheus/alerts.yaml";
const DASHBOARD: &str = "config/grafana/dashboard.json";

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect("a file of the project")
}

fn path(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// All queries of the alerts and of the dashboard.
fn queries() -> Vec<String> {
    let rules = text(ALERTS);
    let mut queries: Vec<String> =
        rules.lines().filter_map(|l| l.trim().strip_prefix("expr: ").map(str::to_owned)).collect();
    let dashboard: serde_json::Value = serde_json::from_str(&text(DASHBOARD)).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    queries.extend(targets.map(|target| target["expr"].as_str().expect("a query").to_owned()));
    assert!(queries.len() > 30, "{}", queries.len());
    queries
}

/// The words of a query.
fn words(query: &str) -> impl Iterator<Item = &str> {
    query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$')).filter(|w| !w.is_empty())
}

#[test]
fn alerts_and_dashboard_name_metrics_and_labels_that_exist() {
    let mut names = BTreeMap::new();
    for family in FAMILIES {
        let suffixes: &[&str] =
            if family.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        for suffix in suffixes {
            names.insert(format!("{}{suffix}", family.name), family.labels);
        }
    }
    let mut used = BTreeSet::new();
    for query in queries() {
        let metrics: Vec<&str> = words(&query).filter(|w| w.starts_with("vault_audit_filter_")).collect();
        assert!(!metrics.is_empty() || query.starts_with("up{"), "{query}");
        let mut labels: BTreeSet<&str> = ["instance", "le"].into();
        for name in metrics {
            let known = names.get(name).unwrap_or_else(|| panic!("there is no {name}: {query}"));
            labels.extend(*known);
            used.insert(name.to_owned());
        }
        for part in query.split("by (").skip(1) {
            let grouped = part.split(')').next().expect("a closing bracket");
            for label in grouped.split(',').map(str::trim) {
                assert!(labels.contains(label), "no metric of this query has the label {label}: {query}");
            }
        }
    }
    // What an operator must not miss.
    for name in ["records_refused_total", "udp_kernel_drops_total", "dead_letters_written_total", "sink_up"] {
        assert!(used.contains(&format!("vault_audit_filter_{name}")), "{name}");
    }
}

fn has(test: &str, program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        left_out(test, &format!("{program} (Debian's package prometheus) is not here"));
    }
    found
}

#[test]
fn promtool_finds_the_alert_rules_right_and_each_fires_when_it_should() {
    if !has("promtool_finds_the_alert_rules_right_and_each_fires_when_it_should", "promtool") {
        return;
    }
    for arguments in [["check", "rules", ALERTS], ["test", "rules", "tests/data/alerts_test.yaml"]] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("promtool runs");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    let tried = text("tests/data/alerts_test.yaml");
    for alert in text(ALERTS).lines().filter_map(|l| l.trim().strip_prefix("- alert: ").map(str::to_owned)) {
        let times = tried.matches(&format!("alertname=\"{alert}\"")).count();
        // Once for each try, and once more for each that fires.
        assert!(times >= 3, "{alert} is tried, firing and not");
    }
}

/// A running Prometheus; killed when dropped.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(dir: &TempDir, target: u16) -> Prometheus {
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{}]\nscrape_configs:\n  - job_name: vault-audit-filter\n    static_configs: [{{ targets: ['127.0.0.1:{target}'] }}]\n",
            path(ALERTS)
        );
        std::fs::write(dir.join("prometheus.yml"), config).expect("written");
        let port = free_port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus starts");
        Prometheus { child, port }
    }

    /// The value of the only series of a query, once there is one.
    fn value(&self, query: &str) -> Option<f64> {
        let answer = Client::connect(self.port).ok()?.get(&format!("/api/v1/query?query={query}")).ok()?;
        (answer.status == 200).then(|| answer.json())?["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_prometheus_scrapes_the_program() {
    if !has("a_real_prometheus_scrapes_the_program", "prometheus") {
        return;
    }
    let daemon = Daemon::start(&format!(
        "{HTTP_ONLY}\nrule_groups:\n  - name: deletions\n    rules: ['Request.Operation == \"delete\"']\n    log_file: {{ file_path: \"{{dir}}/deletions.log\" }}\n"
    ));
    let dir = TempDir::new("prometheus");
    let prometheus = Prometheus::start(&dir, daemon.admin_port());
    for n in 0..7 {
        assert_eq!(daemon.post(&entry(&n.to_string(), "delete", "secret/data/a")), 204);
    }
    wait_until("it has scraped the records", || {
        prometheus.value("vault_audit_filter_group_matches_total") == Some(7.0)
    });
    assert_eq!(prometheus.value("up"), Some(1.0));
    assert_eq!(prometheus.value("vault_audit_filter_http_request_seconds_count"), Some(7.0));
    // Whatever Prometheus finds wrong with a family would be missing.
    let families = prometheus.value("count(count%20by(__name__)({job=\"vault-audit-filter\"}))");
    assert!(families.is_some_and(|n| n > 20.0), "{families:?}");
}
