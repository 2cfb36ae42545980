//! The table of scalar keys: everything outside `rule_groups` and `tests`. File, environment and flags go through it, and the
//! name of each environment variable follows from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Origin, Report};
use super::values::{self, Given};
use super::{AuditProtocol, Config, DeadLetters, EnqueueMode, units};
use crate::secret::Secret;

/// Prefix of the environment variables that are named after keys.
pub const ENVIRONMENT_PREFIX: &str = "VAULT_AUDIT_FILTER_";

/// The configuration while it is put together: what [`Config`] holds in another form, and who set what.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) token_file: Option<PathBuf>,
    pub(super) tokens_file: Option<PathBuf>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    /// Keys that were given, with the source that won.
    pub(super) origins: BTreeMap<&'static str, Origin>,
}

impl Draft {
    /// Who set this key.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// Where a key's value goes, and of which type it is.
enum Slot {
    /// Text without control characters that must not be empty.
    Text(fn(&mut Draft) -> &mut String),
    /// Text that may be empty.
    EmptyText(fn(&mut Draft) -> &mut String),
    /// Text; empty is none.
    OptionalText(fn(&mut Draft) -> &mut Option<String>),
    Secret(fn(&mut Draft) -> &mut Secret),
    Secrets(fn(&mut Draft) -> &mut Vec<Secret>),
    Address(fn(&mut Draft) -> &mut String),
    /// `host:port`; empty is off.
    OptionalAddress(fn(&mut Draft) -> &mut Option<String>),
    Url(fn(&mut Draft) -> &mut String),
    Path(fn(&mut Draft) -> &mut PathBuf),
    /// A path; empty is none.
    OptionalPath(fn(&mut Draft) -> &mut Option<PathBuf>),
    Bool(fn(&mut Draft) -> &mut bool),
    Count(fn(&mut Draft) -> &mut usize, u64, u64),
    OptionalCount(fn(&mut Draft) -> &mut Option<u32>, u64, u64),
    /// A duration; `true` where 0 has a meaning.
    Duration(fn(&mut Draft) -> &mut Duration, bool),
    Size(fn(&mut Draft) -> &mut usize, u64, u64),
    LongSize(fn(&mut Draft) -> &mut u64, u64, u64),
    AuditProtocol(fn(&mut Draft) -> &mut AuditProtocol),
    EnqueueMode(fn(&mut Draft) -> &mut EnqueueMode),
    DeadLetters(fn(&mut Draft) -> &mut DeadLetters),
}

/// One scalar key.
pub struct Key {
    /// Its whole path, as in `async.retry.backoff`.
    pub path: &'static str,
    /// One line on what it is for.
    pub doc: &'static str,
    slot: Slot,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const PROTOCOLS: [(&str, AuditProtocol); 3] =
    [("udp", AuditProtocol::Udp), ("tcp", AuditProtocol::Tcp), ("none", AuditProtocol::None)];
const ENQUEUE_MODES: [(&str, EnqueueMode); 2] = [("drop", EnqueueMode::Drop), ("wait", EnqueueMode::Wait)];
const DEAD_LETTERS: [(&str, DeadLetters); 2] = [("all", DeadLetters::All), ("newest", DeadLetters::Newest)];

const fn key(path: &'static str, slot: Slot, doc: &'static str) -> Key {
    Key { path, doc, slot }
}

/// Every scalar key, in the order of `config/example.yaml`.
pub static KEYS: [Key; 44] = [
    key("vault.address", Slot::Url(|d| &mut d.config.vault.address), "URL of Vault or OpenBao, for setup"),
    key("vault.token", Slot::Secret(|d| &mut d.config.vault.token), "token for setup"),
    key("vault.token_file", Slot::OptionalPath(|d| &mut d.token_file), "file that holds vault.token"),
    key(
        "vault.namespace",
        Slot::EmptyText(|d| &mut d.config.vault.namespace),
        "namespace that setup logs in to",
    ),
    key("vault.audit_path", Slot::Text(|d| &mut d.config.vault.audit_path), "path of the audit device"),
    key(
        "vault.audit_address",
        Slot::Address(|d| &mut d.config.vault.audit_address),
        "host:port of the UDP or TCP listener",
    ),
    key(
        "vault.audit_protocol",
        Slot::AuditProtocol(|d| &mut d.config.vault.audit_protocol),
        "protocol at vault.audit_address: udp, tcp or none",
    ),
    key(
        "vault.audit_description",
        Slot::EmptyText(|d| &mut d.config.vault.audit_description),
        "description of the audit device",
    ),
    key(
        "async.queue_size",
        Slot::Count(|d| &mut d.config.side_effects.queue_size, 1, 1_000_000),
        "tasks waiting, per sink",
    ),
    key("async.workers", Slot::Count(|d| &mut d.config.side_effects.workers, 0, 256), "threads, per sink"),
    key(
        "async.enqueue_mode",
        Slot::EnqueueMode(|d| &mut d.config.side_effects.enqueue_mode),
        "full queue: drop at once, or wait",
    ),
    key(
        "async.enqueue_timeout",
        Slot::Duration(|d| &mut d.config.side_effects.enqueue_timeout, false),
        "longest wait for room in the queue",
    ),
    key("async.timeout", Slot::Duration(|d| &mut d.config.side_effects.timeout, false), "one whole delivery"),
    key(
        "async.retry.max_attempts",
        Slot::OptionalCount(|d| &mut d.config.side_effects.max_attempts, 1, 65_535),
        "attempts per task; when not set 3, or with the store as many as max_age allows",
    ),
    key(
        "async.retry.backoff",
        Slot::Duration(|d| &mut d.config.side_effects.backoff, false),
        "first delay between attempts; doubles",
    ),
    key(
        "async.retry.max_backoff",
        Slot::Duration(|d| &mut d.config.side_effects.max_backoff, false),
        "longest delay between attempts",
    ),
    key(
        "async.retry.max_age",
        Slot::Duration(|d| &mut d.config.side_effects.max_age, false),
        "age at which a stored task is given up",
    ),
    key(
        "async.durable.enabled",
        Slot::Bool(|d| &mut d.config.side_effects.durable.enabled),
        "store tasks on disk before the ack",
    ),
    key(
        "async.durable.dir",
        Slot::Path(|d| &mut d.config.side_effects.durable.dir),
        "directory of the store",
    ),
    key(
        "async.durable.max_bytes",
        Slot::LongSize(|d| &mut d.config.side_effects.durable.max_bytes, 2 * MIB, 1024 * GIB),
        "most disk space of the store",
    ),
    key(
        "async.durable.dead_letters.keep",
        Slot::DeadLetters(|d| &mut d.config.side_effects.durable.dead_letters),
        "dead letters when their room is used up: all, or newest",
    ),
    key(
        "listen.http.address",
        Slot::OptionalAddress(|d| &mut d.config.listen.http_address),
        "host:port of the HTTP listener; empty is off",
    ),
    key("listen.http.tokens", Slot::Secrets(|d| &mut d.config.listen.http_tokens), "bearer tokens that pass"),
    key(
        "listen.http.tokens_file",
        Slot::OptionalPath(|d| &mut d.tokens_file),
        "file with bearer tokens, one a line",
    ),
    key(
        "listen.http.tls.certificate",
        Slot::OptionalPath(|d| &mut d.tls_certificate),
        "certificate chain of the listener, PEM",
    ),
    key("listen.http.tls.key", Slot::OptionalPath(|d| &mut d.tls_key), "private key of the listener, PEM"),
    key(
        "listen.http.insecure_allow_unauthenticated",
        Slot::Bool(|d| &mut d.config.listen.http_insecure_allow_unauthenticated),
        "listen beyond loopback without tokens",
    ),
    key(
        "listen.unix.path",
        Slot::OptionalPath(|d| &mut d.config.listen.unix_path),
        "path of the Unix stream listener; empty is off",
    ),
    key(
        "listen.admin.address",
        Slot::OptionalAddress(|d| &mut d.config.listen.admin_address),
        "host:port of health and metrics; empty is off",
    ),
    key(
        "listen.silence_alarm",
        Slot::Duration(|d| &mut d.config.listen.silence_alarm, true),
        "silence of a sender that is said and shown; 0 is off",
    ),
    key(
        "control.socket",
        Slot::OptionalPath(|d| &mut d.config.control_socket),
        "path of the control socket; empty is off",
    ),
    key(
        "limits.record_bytes_max",
        Slot::Size(|d| &mut d.config.limits.record_bytes_max, KIB, GIB),
        "largest record",
    ),
    key(
        "limits.connections_max",
        Slot::Count(|d| &mut d.config.limits.connections_max, 1, 1_000_000),
        "connections open at once",
    ),
    key(
        "limits.head_bytes_max",
        Slot::Size(|d| &mut d.config.limits.head_bytes_max, KIB, MIB),
        "largest HTTP request head",
    ),
    key(
        "limits.head_timeout",
        Slot::Duration(|d| &mut d.config.limits.head_timeout, false),
        "time for a head",
    ),
    key(
        "limits.body_timeout",
        Slot::Duration(|d| &mut d.config.limits.body_timeout, false),
        "time for a body",
    ),
    key(
        "limits.write_timeout",
        Slot::Duration(|d| &mut d.config.limits.write_timeout, false),
        "time for an answer to be taken",
    ),
    key(
        "limits.idle_timeout",
        Slot::Duration(|d| &mut d.config.limits.idle_timeout, false),
        "time a connection may be idle",
    ),
    key(
        "quarantine.log_file.file_path",
        Slot::OptionalPath(|d| &mut d.config.quarantine_file),
        "log of frames that are no records",
    ),
    key(
        "unmatched",
        Slot::OptionalText(|d| &mut d.config.unmatched),
        "name of the group for records that no group matched",
    ),
    key(
        "dedupe.window",
        Slot::Count(|d| &mut d.config.dedupe_window, 0, 10_000_000),
        "records remembered to drop those sent again; 0 is off",
    ),
    key(
        "pairs.window",
        Slot::Count(|d| &mut d.config.pairs_window, 0, 10_000_000),
        "calls whose other half, request or response, is waited for; 0 is off",
    ),
    key(
        "pairs.wait",
        Slot::Duration(|d| &mut d.config.pairs_wait, false),
        "how long the other half is waited for",
    ),
    key(
        "shutdown.drain_timeout",
        Slot::Duration(|d| &mut d.config.drain_timeout, true),
        "longest time from SIGTERM to the end",
    ),
];

impl Key {
    /// The environment variable of this key.
    pub fn environment(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.path.to_ascii_uppercase().replace('.', "_"))
    }

    /// Whether the value must never be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.slot, Slot::Secret(_) | Slot::Secrets(_))
    }

    /// The built-in value as one would write it in the file; empty for none.
    pub fn default_text(&self) -> String {
        self.text(&mut Draft::default())
    }

    /// Takes a given value; what is wrong with it goes to the report and leaves the draft as it was.
    pub(super) fn take(&self, draft: &mut Draft, mut given: Given<'_>, report: &mut Report) {
        given.secret = self.is_secret();
        if self.put(draft, &given, report).is_some() {
            draft.origins.insert(self.path, given.origin);
        }
    }

    fn put(&self, draft: &mut Draft, given: &Given<'_>, report: &mut Report) -> Option<()> {
        match &self.slot {
            Slot::Text(at) => *at(draft) = values::some_line(given, report)?,
            Slot::EmptyText(at) => *at(draft) = values::line(given, report)?,
            Slot::OptionalText(at) => *at(draft) = none_if_empty(values::line(given, report)?),
            Slot::Secret(at) => *at(draft) = Secret::new(values::line(given, report)?),
            Slot::Secrets(at) => *at(draft) = secrets(given, report)?,
            Slot::Address(at) => *at(draft) = values::address(given, report)?,
            Slot::OptionalAddress(at) => {
                *at(draft) = match none_if_empty(values::line(given, report)?) {
                    None => None,
                    Some(_) => Some(values::address(given, report)?),
                }
            }
            Slot::Url(at) => *at(draft) = values::url(given, report)?,
            Slot::Path(at) => *at(draft) = values::some_line(given, report)?.into(),
            Slot::OptionalPath(at) => {
                *at(draft) = none_if_empty(values::line(given, report)?).map(PathBuf::from);
            }
            Slot::Bool(at) => *at(draft) = values::boolean(given, report)?,
            Slot::Count(at, min, max) => {
                *at(draft) = usize::try_from(values::count(given, *min, *max, report)?).unwrap_or(usize::MAX);
            }
            Slot::OptionalCount(at, min, max) => {
                *at(draft) = u32::try_from(values::count(given, *min, *max, report)?).ok();
            }
            Slot::Duration(at, zero) => *at(draft) = values::duration(given, *zero, report)?,
            Slot::Size(at, min, max) => {
                *at(draft) = usize::try_from(values::bytes(given, *min, *max, report)?).unwrap_or(usize::MAX);
            }
            Slot::LongSize(at, min, max) => *at(draft) = values::bytes(given, *min, *max, report)?,
            Slot::AuditProtocol(at) => *at(draft) = chosen(given, &PROTOCOLS, report)?,
            Slot::EnqueueMode(at) => *at(draft) = chosen(given, &ENQUEUE_MODES, report)?,
            Slot::DeadLetters(at) => *at(draft) = chosen(given, &DEAD_LETTERS, report)?,
        }
        Some(())
    }

    /// The value in the draft as one would write it; secrets show nothing.
    fn text(&self, draft: &mut Draft) -> String {
        let path =
            |path: &Option<PathBuf>| path.as_ref().map_or_else(String::new, |p| p.display().to_string());
        match &self.slot {
            Slot::Text(at) | Slot::EmptyText(at) | Slot::Address(at) | Slot::Url(at) => at(draft).clone(),
            Slot::OptionalText(at) | Slot::OptionalAddress(at) => at(draft).clone().unwrap_or_default(),
            Slot::Secret(_) | Slot::Secrets(_) => String::new(),
            Slot::Path(at) => at(draft).display().to_string(),
            Slot::OptionalPath(at) => path(at(draft)),
            Slot::Bool(at) => at(draft).to_string(),
            Slot::Count(at, ..) => at(draft).to_string(),
            Slot::OptionalCount(at, ..) => at(draft).map_or_else(String::new, |n| n.to_string()),
            Slot::Duration(at, _) => units::duration_text(*at(draft)),
            Slot::Size(at, ..) => units::bytes_text(u64::try_from(*at(draft)).unwrap_or(u64::MAX)),
            Slot::LongSize(at, ..) => units::bytes_text(*at(draft)),
            Slot::AuditProtocol(at) => word(&PROTOCOLS, *at(draft)).to_owned(),
            Slot::EnqueueMode(at) => word(&ENQUEUE_MODES, *at(draft)).to_owned(),
            Slot::DeadLetters(at) => word(&DEAD_LETTERS, *at(draft)).to_owned(),
        }
    }
}

/// The value of the word that was given.
pub(super) fn chosen<T: Copy>(given: &Given<'_>, table: &[(&str, T)], report: &mut Report) -> Option<T> {
    let words: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
    values::choice(given, &words, report).map(|i| table[i].1)
}

fn word<T: PartialEq>(table: &[(&'static str, T)], value: T) -> &'static str {
    table.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| *word)
}

fn none_if_empty(text: String) -> Option<String> {
    if text.trim().is_empty() { None } else { Some(text) }
}

fn secrets(given: &Given<'_>, report: &mut Report) -> Option<Vec<Secret>> {
    let mut secrets = Vec::new();
    for (i, (text, origin)) in values::list(given, report)?.into_iter().enumerate() {
        let key = format!("{}[{i}]", given.key);
        match token_complaint(&text) {
            Some((what, cure)) => report.problem(&origin, &key, what, cure),
            None => secrets.push(Secret::new(text)),
        }
    }
    Some(secrets)
}

/// What is wrong with a bearer token: it must survive an `Authorization` header.
pub(super) fn token_complaint(token: &str) -> Option<(&'static str, &'static str)> {
    if token.is_empty() {
        return Some((
            "an empty token, which everybody would know",
            "write a long random token, or remove it",
        ));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Some((
            "a token with white space, control or non-ASCII characters",
            "use letters, digits and -._~+/= only: a header must carry it",
        ));
    }
    None
}
