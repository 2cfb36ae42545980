//! The real program with ten typical rules in one group, on ports of its own.
#![allow(dead_code, reason = "shared by benchmarks that each use a part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::testing::{free_port, wait_until};

/// Ten rules as an operator would write them; the same as in the decode and pipeline benches.
pub const TYPICAL_RULES: &str = include_str!("../../tests/data/rules/typical10.txt");

/// Rules, one a line, as the items of a group's list in the configuration.
pub fn rules_yaml(rules: &str) -> String {
    let item = |rule: &str| format!("      - '{}'\n", rule.replace('\'', "''"));
    rules.lines().filter(|l| !l.is_empty()).map(item).collect()
}

/// A running program; killed when dropped.
pub struct Daemon {
    child: Child,
    http: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
}

impl Daemon {
    /// Starts it with its files below `dir`, and waits until it is ready. With `webhook`, each match is also sent there.
    pub fn start(dir: &Path, webhook: Option<SocketAddr>) -> Daemon {
        Self::start_with(dir, webhook, "")
    }

    /// The same with more keys of the configuration's top level.
    pub fn start_with(dir: &Path, webhook: Option<SocketAddr>, more: &str) -> Daemon {
        std::fs::create_dir_all(dir).expect("temporary directory");
        let (http, admin) = (free_port(), free_port());
        let rules = rules_yaml(TYPICAL_RULES);
        let messaging = webhook.map_or_else(String::new, |to| {
            format!("    messaging: {{ type: webhook, webhook_url: \"http://{to}/\" }}\n")
        });
        let config = format!(
            "vault: {{ audit_protocol: none }}\nlisten:\n  http: {{ address: \"127.0.0.1:{http}\" }}\n  admin: {{ address: \"127.0.0.1:{admin}\" }}\nrule_groups:\n  - name: typical\n    rules:\n{rules}    log_file: {{ file_path: {} }}\n{messaging}{more}",
            dir.join("matched.log").display()
        );
        Self::configured(dir, &config, [http, admin])
    }

    /// With this configuration, which names these ports for HTTP (or whatever the bench sends to) and for the admin address.
    pub fn configured(dir: &Path, config: &str, ports: [u16; 2]) -> Daemon {
        std::fs::create_dir_all(dir).expect("temporary directory");
        let path = dir.join("config.yaml");
        std::fs::write(&path, config).expect("configuration file");
        let [http, admin] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Self::run(path, http, admin)
    }

    fn run(path: PathBuf, http: SocketAddr, admin: SocketAddr) -> Daemon {
        let child = Command::new(env!("CARGO_BIN_EXE_vault-audit-filter"))
            .args(["serve", "--config"])
            .arg(&path)
            .args(["--log-level", "error"])
            .stdin(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut daemon = Daemon { child, http, admin, config: path };
        wait_until("the program is ready", || {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                panic!("the program ended with {status} before it was ready");
            }
            TcpStream::connect(admin).is_ok()
        });
        daemon
    }

    /// Kills it (no clean stop) and starts it again with the same configuration.
    pub fn kill_and_restart(mut self) -> Daemon {
        let _ = self.child.kill();
        let _ = self.child.wait();
        Self::run(std::mem::take(&mut self.config), self.http, self.admin)
    }

    /// Its resident memory in MB.
    pub fn resident_mb(&self) -> f64 {
        self.memory_mb("VmRSS:")
    }

    /// The most that was ever resident, in MB.
    pub fn peak_mb(&self) -> f64 {
        self.memory_mb("VmHWM:")
    }

    fn memory_mb(&self, key: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kb =
            status.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<f64>().ok());
        kb.unwrap_or(f64::NAN) / 1000.0
    }

    /// How many of its threads have names that begin so.
    pub fn threads(&self, name: &str) -> usize {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|found| found.starts_with(name)).count()
    }

    /// A figure of its metrics, without the common prefix; 0 when it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.admin).expect("the admin address");
        let mut text = String::new();
        let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        asked.and_then(|()| stream.read_to_string(&mut text)).expect("an answer");
        let line = |l: &str| l.strip_prefix("vault_audit_filter_")?.strip_prefix(name)?.trim().parse().ok();
        text.lines().find_map(line).unwrap_or(0.0)
    }

    /// Its admin address.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its HTTP listener.
    pub fn http(&self) -> SocketAddr {
        self.http
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
