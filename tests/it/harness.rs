//! The program under test: started from its real executable in a directory of its own, looked at through its metrics,
//! log files and standard error, stopped by signals.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::http::{Answer, Client};
use crate::support::{PATIENCE, TempDir, free_port, happens_within, wait_until};

/// The executable under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vault-audit-filter");

/// How long a command that is not `serve` may run.
const RUN_MAX: std::time::Duration = std::time::Duration::from_secs(20);

/// Prefix of every metric.
const PREFIX: &str = "vault_audit_filter_";

/// A configuration with its own ports and directory, not started yet. In its text `{dir}`, `{http}`, `{audit}` and
/// `{admin}` stand for the directory and for the ports of the listeners.
#[derive(Debug)]
pub struct Plan {
    dir: TempDir,
    http: u16,
    audit: u16,
    admin: u16,
    yaml: String,
    environment: Vec<(String, String)>,
    open_files_max: Option<u32>,
    under: Vec<String>,
}

impl Plan {
    /// Fills in the text of a configuration.
    pub fn new(yaml: &str) -> Plan {
        let (dir, http, audit, admin) = (TempDir::new("it"), free_port(), free_port(), free_port());
        let mut plan = Plan {
            dir,
            http,
            audit,
            admin,
            yaml: String::new(),
            environment: Vec::new(),
            open_files_max: None,
            under: Vec::new(),
        };
        plan.yaml = plan.fill(yaml);
        plan
    }

    /// The text of a configuration with this plan's directory and ports.
    pub fn fill(&self, yaml: &str) -> String {
        yaml.replace("{dir}", &self.dir.path().display().to_string())
            .replace("{http}", &self.http.to_string())
            .replace("{audit}", &self.audit.to_string())
            .replace("{admin}", &self.admin.to_string())
    }

    /// Adds a variable to the program's environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Plan {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Starts the program with that limit on open files.
    pub fn open_files_max(mut self, n: u32) -> Plan {
        self.open_files_max = Some(n);
        self
    }

    /// Starts the program through another one, which must end in its place: `strace -D` and the like.
    pub fn under(mut self, program: &[&str]) -> Plan {
        self.under = program.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The ports of the HTTP, the TCP or UDP, and the admin listener.
    pub fn ports(&self) -> [u16; 3] {
        [self.http, self.audit, self.admin]
    }

    fn command(&self, arguments: &[&str]) -> Command {
        std::fs::write(self.path("config.yaml"), &self.yaml).expect("the configuration file");
        self.command_as_is(arguments)
    }

    /// With the configuration file that is there.
    fn command_as_is(&self, arguments: &[&str]) -> Command {
        let config = self.path("config.yaml");
        let mut command = match (self.open_files_max, self.under.split_first()) {
            (None, None) => Command::new(PROGRAM),
            (None, Some((under, words))) => {
                let mut under = Command::new(under);
                under.args(words).arg(PROGRAM);
                under
            }
            (Some(n), _) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {n}; exec \"$0\" \"$@\""), PROGRAM]);
                shell
            }
        };
        command.args(arguments).arg("--config").arg(config).current_dir(self.dir.path());
        clean_environment(&mut command);
        command.envs(self.environment.iter().map(|(n, v)| (n, v))).stdin(Stdio::null());
        command
    }

    /// Runs a command of the program to its end. One that does not end is killed: its status has no code then.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        self.run_command(self.command(arguments), environment)
    }

    fn run_command(&self, mut command: Command, environment: &[(&str, &str)]) -> Ended {
        let names = ["run.stdout", "run.stderr"];
        let [out, err] = names.map(|name| File::create(self.path(name)).expect("its output"));
        command.envs(environment.iter().copied()).stdout(out).stderr(err);
        let mut child = command.spawn().expect("the program starts");
        if !happens_within(RUN_MAX, || matches!(child.try_wait(), Ok(Some(_)))) {
            let _ = child.kill();
        }
        let status = child.wait().expect("its status");
        let [stdout, stderr] = names.map(|name| read_text(&self.path(name)));
        Ended { status, stdout, stderr }
    }

    /// Starts `serve` and waits until `/readyz` says that every listener is bound.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let [out, err] = ["stdout", "stderr"].map(|name| File::create(self.path(name)).expect("its output"));
        let child = self.command(&["serve"]).stdout(out).stderr(err).spawn().expect("the program starts");
        let mut daemon = Daemon { child, plan: self, ended: None };
        let ready = happens_within(PATIENCE, || {
            assert!(daemon.is_alive(), "the program ended before it was ready:\n{}", daemon.stderr());
            daemon.try_admin("/readyz").is_some_and(|answer| answer.status == 200)
        });
        assert!(ready, "the program was not ready in time:\n{}", daemon.stderr());
        daemon
    }
}

/// Runs the program to its end with this standard input.
pub fn run_program(arguments: &[&str], input: &[u8]) -> Ended {
    let mut command = Command::new(PROGRAM);
    clean_environment(&mut command);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    // It may end without reading all of it.
    let _ = std::io::Write::write_all(&mut stdin, input);
    drop(stdin);
    let output = child.wait_with_output().expect("its output");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ended { status: output.status, stdout, stderr }
}

/// The settings of whoever runs the tests must not reach the program.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["VAULT_", "NOTIFY_", "LISTEN_", "WATCHDOG_", "FDSTORE", "RUST_LOG", "CREDENTIALS_DIRECTORY"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A running program. When dropped it is asked to end, and killed when it does not; if the test has failed, its
/// standard error is printed.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    plan: Plan,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Starts the program with this configuration; see [`Plan`].
    #[track_caller]
    pub fn start(yaml: &str) -> Daemon {
        Plan::new(yaml).start()
    }

    /// Runs another command with its configuration, to the end.
    pub fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        self.plan.run_with(arguments, environment)
    }

    /// The same, with the configuration file as it is now.
    pub fn run_as_is(&self, arguments: &[&str]) -> Ended {
        self.plan.run_command(self.plan.command_as_is(arguments), &[])
    }

    /// The text of a configuration with its directory and ports.
    pub fn fill(&self, yaml: &str) -> String {
        self.plan.fill(yaml)
    }

    /// Port of the HTTP listener.
    pub fn http(&self) -> u16 {
        self.plan.http
    }

    /// Port of the TCP or UDP listener.
    pub fn audit(&self) -> u16 {
        self.plan.audit
    }

    /// Port of the admin listener.
    pub fn admin_port(&self) -> u16 {
        self.plan.admin
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.plan.path(name)
    }

    /// A kept-alive connection to the HTTP listener.
    pub fn client(&self) -> Client {
        Client::connect(self.plan.http).expect("the HTTP listener takes connections")
    }

    /// POSTs a record on a connection of its own and gives the status.
    #[track_caller]
    pub fn post(&self, record: &str) -> u16 {
        self.client().post("/v1/audit", record.as_bytes()).expect("an answer").status
    }

    fn try_admin(&self, path: &str) -> Option<Answer> {
        Client::connect(self.plan.admin).ok()?.get(path).ok()
    }

    /// GET on the admin listener.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Answer {
        self.try_admin(path).unwrap_or_else(|| panic!("no answer to GET {path}:\n{}", self.stderr()))
    }

    /// The whole answer of the control API at the socket of this name.
    #[track_caller]
    pub fn control(&self, socket: &str, method: &str, target: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(self.path(socket)).expect("the control socket");
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// All series: name without the common prefix, labels as exposed, value.
    #[track_caller]
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        parse_metrics(&self.admin("/metrics").text())
    }

    /// One series, such as `records_total{outcome="matched"}`; 0 when it does not exist.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        self.metrics().get(series).copied().unwrap_or(0.0)
    }

    /// The sum of all series of a family; `None`: the program has no answer now.
    pub fn try_sum(&self, family: &str) -> Option<f64> {
        Some(sum(&parse_metrics(&self.try_admin("/metrics")?.text()), family))
    }

    /// The sum of all series of a family.
    #[track_caller]
    pub fn sum(&self, family: &str) -> f64 {
        sum(&self.metrics(), family)
    }

    /// The sum of those series of a family that have this label, such as `outcome="delivered"`.
    #[track_caller]
    pub fn sum_where(&self, family: &str, label: &str) -> f64 {
        let wanted = |series: &str| series.split('{').next() == Some(family) && series.contains(label);
        self.metrics().iter().filter(|(series, _)| wanted(series)).map(|(_, value)| value).sum()
    }

    /// Waits until [`Daemon::sum_where`] has reached `value`.
    #[track_caller]
    pub fn wait_sum(&self, family: &str, label: &str, value: f64) {
        wait_until(&format!("{family}{{{label}}} is {value}"), || self.sum_where(family, label) >= value);
        assert_eq!(self.sum_where(family, label), value, "{family}{{{label}}}");
    }

    /// Waits until as many records have been received and each of them has an outcome, and checks that these add up.
    #[track_caller]
    pub fn wait_received(&self, records: usize) {
        let records = records as f64;
        let mut seen = (0.0, 0.0);
        let ok = happens_within(PATIENCE, || {
            let metrics = self.metrics();
            seen = (sum(&metrics, "records_received_total"), sum(&metrics, "records_total"));
            seen.0 >= records && seen.1 >= records
        });
        assert!(ok && seen == (records, records), "wanted {records} received and as many outcomes: {seen:?}");
    }

    /// Lines of a file in its directory, each of which must be whole.
    #[track_caller]
    pub fn lines(&self, name: &str) -> Vec<String> {
        whole_lines(&self.path(name))
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        read_text(&self.path("stderr"))
    }

    /// A number from `/proc/PID/status`, such as `Threads` or `VmRSS` (in KiB).
    #[track_caller]
    pub fn process(&self, key: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = value.and_then(|v| v.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no number {key} in {status}"))
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("its state");
        }
        self.ended.is_none()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, and waits for its end.
    #[track_caller]
    pub fn kill(&mut self) -> Ended {
        self.signal(Signal::SIGKILL);
        self.wait_end()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the process is there");
    }

    /// Starts it once more in the same place after it has ended; the outputs begin anew.
    #[track_caller]
    pub fn again(self) -> Daemon {
        self.again_with(|plan| plan)
    }

    /// The same with something changed about how.
    #[track_caller]
    pub fn again_with(mut self, change: impl FnOnce(Plan) -> Plan) -> Daemon {
        assert!(!self.is_alive(), "it has ended");
        let elsewhere = Plan::new("");
        change(std::mem::replace(&mut self.plan, elsewhere)).start()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_end(&mut self) -> Ended {
        wait_until("the program has ended", || !self.is_alive());
        Ended {
            status: self.ended.expect("it has ended"),
            stdout: String::from_utf8_lossy(&std::fs::read(self.path("stdout")).unwrap_or_default())
                .into_owned(),
            stderr: self.stderr(),
        }
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn terminate(&mut self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.wait_end()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_alive() {
            self.signal(Signal::SIGTERM);
            if !happens_within(std::time::Duration::from_secs(5), || !self.is_alive()) {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- standard error of the program ---\n{}---", self.stderr());
        }
    }
}

/// A file as text; nothing when it does not exist.
fn read_text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// The series of a text exposition, without the common prefix.
pub fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
            let series = series.strip_prefix(PREFIX).unwrap_or_else(|| panic!("foreign metric {line:?}"));
            (series.to_owned(), value.parse().unwrap_or_else(|e| panic!("{line:?}: {e}")))
        })
        .collect()
}

fn sum(metrics: &BTreeMap<String, f64>, family: &str) -> f64 {
    let of_family = |series: &str| series.split('{').next() == Some(family);
    metrics.iter().filter(|(series, _)| of_family(series)).map(|(_, value)| value).sum()
}

/// The lines of a file; none when it does not exist. An unfinished last line fails the test.
#[track_caller]
pub fn whole_lines(path: &Path) -> Vec<String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => panic!("{}: {e}", path.display()),
    };
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "{} ends within a line", path.display());
    let text = String::from_utf8(bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(str::to_owned).collect()
}

/// HTTP and admin listeners, nothing else; the quarantine log is `quarantine.log`.
pub const HTTP_ONLY: &str = r#"
vault: { audit_protocol: none }
listen:
  http: { address: "127.0.0.1:{http}" }
  admin: { address: "127.0.0.1:{admin}" }
quarantine: { log_file: { file_path: "{dir}/quarantine.log" } }
"#;

/// HTTP, TCP, Unix and admin listeners.
pub const WITH_TCP: &str = r#"
vault: { audit_protocol: tcp, audit_address: "127.0.0.1:{audit}" }
listen:
  http: { address: "127.0.0.1:{http}" }
  unix: { path: "{dir}/audit.sock" }
  admin: { address: "127.0.0.1:{admin}" }
quarantine: { log_file: { file_path: "{dir}/quarantine.log" } }
"#;

/// HTTP, UDP, Unix and admin listeners.
pub const WITH_UDP: &str = r#"
vault: { audit_protocol: udp, audit_address: "127.0.0.1:{audit}" }
listen:
  http: { address: "127.0.0.1:{http}" }
  unix: { path: "{dir}/audit.sock" }
  admin: { address: "127.0.0.1:{admin}" }
quarantine: { log_file: { file_path: "{dir}/quarantine.log" } }
"#;

/// An audit entry of about 1 KB in OpenBao's form. `id` must need no escaping.
pub fn entry(id: &str, operation: &str, path: &str) -> String {
    let hash = format!("hmac-sha256:{:064x}", 0x5eed);
    format!(
        r#"{{"time":"2026-11-24T07:17:23.938843435Z","type":"request","auth":{{"client_token":"{hash}","accessor":"{hash}","display_name":"approle","policies":["app","default"],"token_policies":["app","default"],"policy_results":{{"allowed":true,"granting_policies":[{{"name":"app","namespace_id":"root","type":"acl"}}]}},"token_type":"service","token_issue_time":"2026-11-24T07:17:23Z"}},"request":{{"id":"{id}","client_id":"0DHqvq2D77kL2/JTPSZkTMJbkFVmUu0TzMi0jiXcFy8=","operation":"{operation}","mount_point":"secret/","mount_type":"kv","mount_accessor":"kv_14ee1983","mount_running_version":"v2.7.2+builtin.bao","mount_class":"secret","client_token":"{hash}","client_token_accessor":"{hash}","namespace":{{"id":"root"}},"path":"{path}","data":{{"data":{{"password":"{hash}","user":"{hash}"}},"options":{{"cas":0}}}},"remote_address":"127.0.0.1","remote_port":41234}}}}"#
    )
}
