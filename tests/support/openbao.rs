//! A real OpenBao in development mode, with audit devices of the test's choice.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::http::{Answer, Client};

/// The root token of every server started here.
pub const ROOT: &str = "root";

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct OpenBao {
    child: Child,
    port: u16,
    log: PathBuf,
}

/// The `bao` program: `VAF_BAO`, else the one that `tests/run` fetches. An error says where it was looked for.
pub fn program() -> Result<PathBuf, String> {
    let path = std::env::var_os("VAF_BAO")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/openbao/bin/bao"), PathBuf::from);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("no OpenBao at {}; tests/run fetches it, VAF_BAO names another", path.display()))
    }
}

impl OpenBao {
    /// Starts a server whose files go below `dir`, with `config` (audit stanzas and the like) as its configuration, and
    /// waits until it answers and has its root token.
    pub fn start(program: &Path, dir: &Path, config: &str) -> OpenBao {
        OpenBao::start_with(program, dir, config, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(
        program: &Path,
        dir: &Path,
        config: &str,
        environment: &[(&str, &std::ffi::OsStr)],
    ) -> OpenBao {
        std::fs::create_dir_all(dir).expect("a directory for OpenBao");
        // In development mode it also listens on the port after its own.
        let port = loop {
            let port = super::free_port();
            if super::free_port() == port + 1 {
                break port;
            }
        };
        let (file, log) = (dir.join("openbao.hcl"), dir.join("openbao.log"));
        std::fs::write(&file, config).expect("OpenBao's configuration");
        let out = File::create(&log).expect("OpenBao's log");
        let child = Command::new(program)
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={ROOT}"))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .arg(format!("-config={}", file.display()))
            .current_dir(dir)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out)
            .spawn()
            .expect("OpenBao starts");
        let mut server = OpenBao { child, port, log };
        server.wait_ready();
        server
    }

    fn wait_ready(&mut self) {
        // Development mode mounts secret/ last; before that, requests could race with the set-up.
        let ready = |server: &mut OpenBao| {
            if let Ok(Some(status)) = server.child.try_wait() {
                panic!("OpenBao ended with {status}:\n{}", server.log());
            }
            TcpStream::connect(("127.0.0.1", server.port)).is_ok()
                && server.log().contains("Development mode should NOT be used")
        };
        if !super::happens_within(super::PATIENCE, || ready(self)) {
            panic!("OpenBao was not ready in time:\n{}", self.log());
        }
    }

    /// Its API port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// An API client with a connection of its own.
    pub fn api(&self) -> Api {
        Api { client: Client::connect(self.port).expect("OpenBao takes connections") }
    }

    /// Ends the server and waits for its end: its file device is complete then.
    pub fn stop(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        if !super::happens_within(super::PATIENCE, || matches!(self.child.try_wait(), Ok(Some(_)))) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        self.log()
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// API calls over one kept-alive connection.
#[derive(Debug)]
pub struct Api {
    client: Client,
}

impl Api {
    /// One call; `body` empty sends none.
    pub fn call(&mut self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let headers = [("X-Vault-Token", token), ("Content-Type", "application/json")];
        let headers = if token.is_empty() { &headers[1..] } else { &headers[..] };
        self.client
            .request(method, &format!("/v1/{path}"), headers, body.as_bytes())
            .unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// One call as root that must succeed.
    #[track_caller]
    pub fn root(&mut self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let answer = self.call(ROOT, method, path, body);
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.text());
        answer.json()
    }
}
