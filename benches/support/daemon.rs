//! The real program with ten typical rules in one group, on ports of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::testing::{free_port, wait_until};

/// Ten rules as an operator would write them; the same as in the decode and pipeline benches.
const TYPICAL_RULES: &str = include_str!("../../tests/data/rules/typical10.txt");

/// A running program; killed when dropped.
pub struct Daemon {
    child: Child,
    http: SocketAddr,
}

impl Daemon {
    /// Starts it with its files below `dir`, and waits until it is ready. With `webhook`, each match is also sent there.
    pub fn start(dir: &Path, webhook: Option<SocketAddr>) -> Daemon {
        std::fs::create_dir_all(dir).expect("temporary directory");
        let (http, admin) = (free_port(), free_port());
        let rules: String = TYPICAL_RULES
            .lines()
            .filter(|l| !l.is_empty())
            .map(|r| format!("      - '{}'\n", r.replace('\'', "''")))
            .collect();
        let messaging = webhook.map_or_else(String::new, |to| {
            format!("    messaging: {{ type: webhook, webhook_url: \"http://{to}/\" }}\n")
        });
        let config = format!(
            "vault: {{ audit_protocol: none }}\nlisten:\n  http: {{ address: \"127.0.0.1:{http}\" }}\n  admin: {{ address: \"127.0.0.1:{admin}\" }}\nrule_groups:\n  - name: typical\n    rules:\n{rules}    log_file: {{ file_path: {} }}\n{messaging}",
            dir.join("matched.log").display()
        );
        let path = dir.join("config.yaml");
        std::fs::write(&path, config).expect("configuration file");
        let child = Command::new(env!("CARGO_BIN_EXE_vault-audit-filter"))
            .args(["serve", "--config"])
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut daemon = Daemon { child, http: SocketAddr::from(([127, 0, 0, 1], http)) };
        wait_until("the program is ready", || {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                panic!("the program ended with {status} before it was ready");
            }
            TcpStream::connect(("127.0.0.1", admin)).is_ok()
        });
        daemon
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
