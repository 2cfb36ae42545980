//! Configuration: flags, environment and file become one [`Config`] that cannot be wrong.
//!
//! Precedence: flags, then environment, then file, then the defaults of [`Config::default`]. Every problem is reported at once, with
//! file, line and key. Nothing else in the program reads settings.
//!
//! ```text
//! file ── tree (serde_yaml, marks) ──┐
//! environment ── env ────────────────┼── keys, values ── Draft ── cross ── Config
//! flags ─────────────────────────────┘   groups, messaging, cases
//! ```

mod cases;
mod certificate;
mod cross;
mod env;
mod files;
mod groups;
mod keys;
mod load;
mod marks;
mod messaging;
mod problem;
mod section;
#[cfg(test)]
mod tests;
mod tree;
mod units;
mod values;

pub use env::{ENVIRONMENT_ALIASES, ENVIRONMENT_FLAGS, Environment};
pub(crate) use files::read_bounded;
pub use keys::{ENVIRONMENT_PREFIX, KEYS, Key};
pub use load::{Checks, Loaded, Overrides, control_path, load, load_checked};
pub use problem::{Origin, Problem, Problems};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Identity;
use crate::secret::Secret;

/// The whole configuration, resolved and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Vault or OpenBao: where `setup` talks to, and the address of the TCP or UDP listener.
    pub vault: Vault,
    /// Side effects: queues, workers, retries.
    pub side_effects: SideEffects,
    /// Listeners other than the predecessor's.
    pub listen: Listen,
    /// Path of the control socket; empty is off.
    pub control_socket: Option<PathBuf>,
    /// Limits of connections, sizes and times.
    pub limits: Limits,
    /// Path of the quarantine log; `None`: `quarantine.log` beside the first group's log file, else in the current directory.
    pub quarantine_file: Option<PathBuf>,
    /// Name of the group that takes what no group matched.
    pub unmatched: Option<String>,
    /// Records remembered to drop those sent again; 0 is off.
    pub dedupe_window: usize,
    /// Calls whose other half is waited for; 0 is off.
    pub pairs_window: usize,
    /// How long it is waited for.
    pub pairs_wait: Duration,
    /// Longest time from SIGTERM to the end.
    pub drain_timeout: Duration,
    /// The rule groups in the order of the file.
    pub rule_groups: Vec<RuleGroup>,
    /// The `tests:` of the file.
    pub tests: Vec<Test>,
}

/// `vault.*`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named as the keys of the file, which config/example.yaml explains")]
pub struct Vault {
    pub address: String,
    pub token: Secret,
    pub namespace: String,
    pub audit_path: String,
    pub audit_address: String,
    pub audit_protocol: AuditProtocol,
    pub audit_description: String,
}

/// `vault.audit_protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditProtocol {
    /// One datagram, one record: the predecessor's default.
    Udp,
    /// Newline-delimited stream.
    Tcp,
    /// Neither; the HTTP or Unix listener is used.
    None,
}

/// Attempts per task where `async.retry.max_attempts` is not set.
pub const MAX_ATTEMPTS_DEFAULT: u32 = 3;

/// `async.*`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named as the keys of the file, which config/example.yaml explains")]
pub struct SideEffects {
    pub queue_size: usize,
    pub workers: usize,
    pub enqueue_mode: EnqueueMode,
    pub enqueue_timeout: Duration,
    pub timeout: Duration,
    /// `None`: not set in file, environment or flags (3 without the durable store).
    pub max_attempts: Option<u32>,
    pub backoff: Duration,
    pub max_backoff: Duration,
    pub max_age: Duration,
    pub durable: Durable,
}

/// `async.enqueue_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnqueueMode {
    /// A full queue drops at once.
    Drop,
    /// A full queue is waited for, up to `enqueue_timeout`.
    Wait,
}

/// `async.durable.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the keys of the file, which config/example.yaml explains")]
pub struct Durable {
    pub enabled: bool,
    pub dir: PathBuf,
    pub max_bytes: u64,
    pub dead_letters: DeadLetters,
}

/// `async.durable.dead_letters.keep`: what happens when the room for dead letters is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetters {
    /// None is ever removed: a task that fails then stays pending, out of the way of the others.
    All,
    /// The oldest ones are removed.
    Newest,
}

/// `listen.*`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// `listen.http.address`; `None` is off.
    pub http_address: Option<String>,
    /// `listen.http.tokens` and `tokens_file` together.
    pub http_tokens: Vec<Secret>,
    /// `listen.http.tls.certificate` and `.key`.
    pub http_tls: Option<Tls>,
    /// Allows a bind beyond loopback without tokens.
    pub http_insecure_allow_unauthenticated: bool,
    /// `listen.unix.path`; `None` is off.
    pub unix_path: Option<PathBuf>,
    /// `listen.admin.address`; `None` is off.
    pub admin_address: Option<String>,
    /// `listen.silence_alarm`: silence of a sender that is said; 0 is off.
    pub silence_alarm: Duration,
}

/// `listen.http.tls`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named as the keys of the file, which config/example.yaml explains")]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// What the two files held when the configuration was read.
    pub identity: Arc<Identity>,
}

/// `limits.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the keys of the file, which config/example.yaml explains")]
pub struct Limits {
    pub record_bytes_max: usize,
    pub connections_max: usize,
    pub head_bytes_max: usize,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    pub idle_timeout: Duration,
}

/// One entry of `rule_groups`.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleGroup {
    /// Unique among the groups.
    pub name: String,
    /// The rules' texts and where they stand; none: every record matches.
    pub rules: Vec<RuleText>,
    /// Where matching records are written.
    pub log_file: Option<LogFile>,
    /// Where matching records are forwarded to.
    pub forwarding: Option<Forwarding>,
    /// Who is told.
    pub messaging: Option<Messaging>,
}

/// A rule as written, with its place for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleText {
    /// The expression.
    pub text: String,
    /// Line in the configuration file, from 1; 0 where it does not come from a file.
    pub line: u32,
}

/// `log_file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Where lines are appended.
    pub file_path: PathBuf,
    /// Rotation threshold in MiB; 0 means 100.
    pub max_size: u64,
    /// Rotated files kept; 0 keeps all.
    pub max_backups: u32,
    /// Days a rotated file is kept; 0 keeps.
    pub max_age: u32,
    /// gzip rotated files.
    pub compress: bool,
    /// When a write counts as done.
    pub sync: SyncPolicy,
}

impl LogFile {
    /// A log file at `path` with the default of every other key.
    pub fn at(path: PathBuf) -> Self {
        LogFile {
            file_path: path,
            max_size: 100,
            max_backups: 0,
            max_age: 0,
            compress: false,
            sync: SyncPolicy::Never,
        }
    }
}

/// `log_file.sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// When `write` returned.
    Never,
    /// When `fdatasync` returned.
    Always,
}

/// `forwarding`, when enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// `host:port`, a socket path (`unix`) or a URL (`http`).
    pub address: String,
    /// How records travel.
    pub protocol: ForwardProtocol,
}

/// `forwarding.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ForwardProtocol {
    Udp,
    Tcp,
    Unix,
    Http,
}

/// `messaging`.
#[derive(Debug, Clone, PartialEq)]
pub struct Messaging {
    /// Which service, with what that service needs.
    pub kind: MessagingKind,
    /// Text template; empty: the readable default.
    pub template: String,
    /// Line of the template in the configuration file.
    pub template_line: u32,
    /// Text from the template, or the record as it came.
    pub format: MessageFormat,
    /// Messages per second to this destination; 0 is no pacing.
    pub rate_per_s: f64,
    /// Window of the flood digest; 0 is off.
    pub digest_window: Duration,
}

impl Messaging {
    /// The same wherever it stands in the file: for comparing two configurations.
    pub fn placeless(&self) -> Messaging {
        Messaging { template_line: 0, ..self.clone() }
    }
}

/// `messaging.type` with its keys.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named as the keys of the file, which config/example.yaml explains")]
pub enum MessagingKind {
    Slack {
        url: String,
        token: Secret,
        channel: String,
    },
    SlackWebhook {
        webhook_url: Secret,
    },
    Mattermost {
        url: String,
        token: Secret,
        channel: String,
    },
    MattermostWebhook {
        webhook_url: Secret,
    },
    /// `token`, when given, signs as Standard Webhooks do.
    Webhook {
        webhook_url: Secret,
        token: Secret,
    },
}

/// `messaging.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFormat {
    /// From the template.
    Text,
    /// The record as it came: what the predecessor sent.
    Raw,
}

/// One entry of `tests`.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// Shown in the report.
    pub name: String,
    /// Line in the configuration file.
    pub line: u32,
    /// What is tried.
    pub input: TestInput,
    /// Names of the groups that must match, no others.
    pub groups: Vec<String>,
    /// Messages that groups must send about it: the group's name and the text.
    pub messages: Vec<(String, String)>,
}

/// `tests[].record` or `tests[].records_file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestInput {
    /// One record as JSON text.
    Record(String),
    /// A file with one record a line, gzip or not. All of them must reach the same groups.
    File(PathBuf),
}

/// Name of the control socket in the durable store's directory.
pub(crate) const CONTROL_SOCKET_NAME: &str = "control.sock";

/// What to write instead of the name of a group that does not exist.
pub(crate) fn group_name_cure(name: &str, names: &[&str]) -> String {
    cross::name_cure(name, names)
}

/// What is wrong with an `http://` or `https://` URL, and what to write instead.
pub(crate) fn check_http_url(text: &str) -> Result<(), (String, String)> {
    units::http_url(text)
}

/// Whether a `host:port` stands for every interface; an error says what is wrong with it and what to write instead.
pub(crate) fn check_host_port(text: &str) -> Result<bool, (String, String)> {
    units::host_port(text).map(|(host, _)| units::is_wildcard(host))
}

/// Reads a duration such as `90s` or `1m30s`; an error says what is wrong with it and what to write instead.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, (String, String)> {
    units::duration(text)
}

impl Config {
    /// Where the control API listens: `control.socket`, else `control.sock` in the durable store's directory where the store is
    /// enabled, else nowhere.
    pub fn control_path(&self) -> Option<PathBuf> {
        let durable = &self.side_effects.durable;
        let beside_the_store = || durable.enabled.then(|| durable.dir.join(CONTROL_SOCKET_NAME));
        self.control_socket.clone().or_else(beside_the_store)
    }

    /// Where frames that are no records go: the named file, else `quarantine.log` beside the first group's log file,
    /// else in the current directory.
    pub fn quarantine_path(&self) -> PathBuf {
        let first = self.rule_groups.iter().find_map(|group| group.log_file.as_ref());
        quarantine_path(self.quarantine_file.as_deref(), first)
    }
}

fn quarantine_path(named: Option<&Path>, first: Option<&LogFile>) -> PathBuf {
    match (named, first) {
        (Some(path), _) => path.to_owned(),
        (None, Some(file)) => file.file_path.with_file_name("quarantine.log"),
        (None, None) => PathBuf::from("quarantine.log"),
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            vault: Vault {
                address: "http://127.0.0.1:8200".into(),
                token: Secret::default(),
                namespace: String::new(),
                audit_path: "/vault-audit-filter".into(),
                audit_address: "127.0.0.1:1269".into(),
                audit_protocol: AuditProtocol::Udp,
                audit_description: "Vault Audit Filter Device".into(),
            },
            side_effects: SideEffects::default(),
            listen: Listen {
                http_address: Some("127.0.0.1:1270".into()),
                http_tokens: Vec::new(),
                http_tls: None,
                http_insecure_allow_unauthenticated: false,
                unix_path: None,
                admin_address: Some("127.0.0.1:1271".into()),
                silence_alarm: Duration::ZERO,
            },
            control_socket: None,
            limits: Limits::default(),
            quarantine_file: None,
            unmatched: None,
            dedupe_window: 0,
            pairs_window: 0,
            // Longer than the 90 s that Vault and OpenBao give a request unless told otherwise.
            pairs_wait: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(10),
            rule_groups: Vec::new(),
            tests: Vec::new(),
        }
    }
}

impl Default for SideEffects {
    fn default() -> Self {
        SideEffects {
            queue_size: 20,
            workers: 2,
            enqueue_mode: EnqueueMode::Drop,
            enqueue_timeout: Duration::from_millis(5),
            timeout: Duration::from_secs(5),
            max_attempts: None,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(30),
            max_age: Duration::from_secs(24 * 3600),
            durable: Durable {
                enabled: false,
                dir: "./.vault-audit-filter-sideeffects".into(),
                max_bytes: 1 << 30,
                dead_letters: DeadLetters::All,
            },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            record_bytes_max: 64 << 20,
            connections_max: 1024,
            head_bytes_max: 16 << 10,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(180),
        }
    }
}
