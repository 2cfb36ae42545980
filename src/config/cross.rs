//! Checks between keys, and the last steps from what was given to what the server uses.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::certificate::Named;
use super::files::Files;
use super::groups::Placed;
use super::keys::Draft;
use super::problem::{Origin, Report, alternatives, nearest};
use super::{AuditProtocol, units, values};
use crate::store::record_bytes_max;

/// For how long OpenBao and Vault keep an idle connection.
const SENDER_IDLE: Duration = Duration::from_secs(90);

/// Runs every check. `whole` says that each group could be read, so that names can be judged.
pub(super) fn check(
    draft: &mut Draft,
    groups: &mut [Placed],
    whole: bool,
    files: &Files<'_>,
    report: &mut Report,
) {
    secret_files(draft, files, report);
    tls(draft, files, report);
    listeners(draft, report);
    authentication(draft, report);
    times(draft, report);
    group_names(draft, groups, whole, report);
    without_rules(draft, groups, report);
    log_files(draft, groups, report);
    store_takes(draft, report);
}

/// Below that a store is so small that ordinary records may not fit.
const STORE_TAKES_MIN: usize = 128 << 10;

/// Records that the durable store can never take get 413, or go to the quarantine log: better said before they come.
fn store_takes(draft: &Draft, report: &mut Report) {
    let durable = &draft.config.side_effects.durable;
    if !durable.enabled {
        return;
    }
    let (takes, limit) = (record_bytes_max(durable.max_bytes), draft.config.limits.record_bytes_max);
    let (key, size) = ("async.durable.max_bytes", "limits.record_bytes_max");
    if takes < limit && draft.origins.contains_key(size) {
        let what = format!(
            "{limit} bytes, and the durable store takes {takes} at a time with {key} {}: a larger record with side effects gets 413, \
             or goes to the quarantine log where nobody waits for an answer",
            durable.max_bytes
        );
        let cure =
            format!("write at most {takes}, or a larger {key} (the store takes up to 16 MB at a time)");
        report.warning(&draft.origin(size), size, what, cure);
    } else if takes < limit && takes < STORE_TAKES_MIN {
        let what = format!("the store takes only {takes} bytes of records at a time: larger ones get 413");
        report.warning(&draft.origin(key), key, what, "write at least 16MiB");
    }
}

fn secret_files(draft: &mut Draft, files: &Files<'_>, report: &mut Report) {
    if let Some(path) = draft.token_file.clone() {
        let (token, file) = (draft.origin("vault.token"), draft.origin("vault.token_file"));
        if file_counts(!draft.config.vault.token.is_empty(), "vault.token", &token, &file, report)
            && let Some(secret) = files.secret(&path, &file, "vault.token_file", report)
        {
            draft.config.vault.token = secret;
        }
    }
    if let Some(path) = draft.tokens_file.clone() {
        let (tokens, file) = (draft.origin("listen.http.tokens"), draft.origin("listen.http.tokens_file"));
        let given = !draft.config.listen.http_tokens.is_empty();
        if file_counts(given, "listen.http.tokens", &tokens, &file, report) {
            draft.config.listen.http_tokens = files.tokens(&path, &file, "listen.http.tokens_file", report);
        }
    }
}

/// Whether the `_file` key counts: it does not beside a value from a source that wins over its own; two from one source
/// are a problem.
fn file_counts(given: bool, key: &str, direct: &Origin, file: &Origin, report: &mut Report) -> bool {
    if given && direct.same_source(file) {
        let what = format!("both {key} and {key}_file are given");
        report.problem(file, &format!("{key}_file"), what, format!("keep {key}_file and remove {key}"));
        return false;
    }
    !given || file > direct
}

fn tls(draft: &mut Draft, files: &Files<'_>, report: &mut Report) {
    let (certificate, key) = ("listen.http.tls.certificate", "listen.http.tls.key");
    let (missing, given) = match (&draft.tls_certificate, &draft.tls_key) {
        (None, None) => return,
        (Some(chain), Some(secret)) => {
            let named = |key, path| Named { key, path, origin: draft.origin(key) };
            let tls = files.tls(&named(certificate, chain), &named(key, secret), report);
            draft.config.listen.http_tls = tls;
            return;
        }
        (Some(_), None) => (key, certificate),
        (None, Some(_)) => (certificate, key),
    };
    report.problem(&draft.origin(given), missing, format!("missing beside {given}"), "give both, or neither");
}

/// A listener of the configuration.
struct Listener {
    key: &'static str,
    address: String,
}

fn tcp_listeners(draft: &Draft) -> Vec<Listener> {
    let config = &draft.config;
    let mut listeners = Vec::new();
    let mut add = |key, address: &str| listeners.push(Listener { key, address: address.to_owned() });
    if config.vault.audit_protocol == AuditProtocol::Tcp {
        add("vault.audit_address", &config.vault.audit_address);
    }
    if let Some(address) = &config.listen.http_address {
        add("listen.http.address", address);
    }
    if let Some(address) = &config.listen.admin_address {
        add("listen.admin.address", address);
    }
    listeners
}

fn listeners(draft: &Draft, report: &mut Report) {
    let listeners = tcp_listeners(draft);
    for (i, one) in listeners.iter().enumerate() {
        if let Some(other) = listeners[..i].iter().find(|other| collide(&one.address, &other.address)) {
            // Tell it where somebody wrote it.
            let (at, beside) =
                if draft.origin(one.key) >= draft.origin(other.key) { (one, other) } else { (other, one) };
            let what = format!("{} is taken by {} ({})", at.address, beside.key, beside.address);
            report.problem(&draft.origin(at.key), at.key, what, "give each listener a port of its own");
        }
    }
    if let (Some(unix), Some(control)) = (&draft.config.listen.unix_path, &draft.config.control_socket)
        && normal(unix) == normal(control)
    {
        let what = "the path is taken by listen.unix.path";
        report.problem(
            &draft.origin("control.socket"),
            "control.socket",
            what,
            "give each socket a path of its own",
        );
    }
    if draft.config.vault.audit_protocol == AuditProtocol::None
        && draft.config.listen.http_address.is_none()
        && draft.config.listen.unix_path.is_none()
    {
        let what = "every listener is off: no record could arrive";
        let cure = "set vault.audit_protocol to udp or tcp, listen.http.address or listen.unix.path";
        report.problem(&draft.origin("vault.audit_protocol"), "listen", what, cure);
    }
}

/// Whether two binds want one port: the same host, or one of them on every interface. Port 0 is any free port.
fn collide(one: &str, other: &str) -> bool {
    let (Ok((host, port)), Ok((other_host, other_port))) = (units::host_port(one), units::host_port(other))
    else {
        return false;
    };
    let same_host = host.eq_ignore_ascii_case(other_host)
        || units::is_wildcard(host)
        || units::is_wildcard(other_host)
        || (host == "localhost" && other_host == "127.0.0.1")
        || (host == "127.0.0.1" && other_host == "localhost");
    port == other_port && port != 0 && same_host
}

fn authentication(draft: &Draft, report: &mut Report) {
    let listen = &draft.config.listen;
    let Some(address) = &listen.http_address else { return };
    let beyond = units::host_port(address).is_ok_and(|(host, _)| !units::is_loopback(host));
    // A tokens_file that could not be read has been reported; it is not also missing.
    if beyond
        && listen.http_tokens.is_empty()
        && draft.tokens_file.is_none()
        && !listen.http_insecure_allow_unauthenticated
    {
        let what = format!("{address} is reached from other machines and no token is set");
        let cure = "set listen.http.tokens_file, or listen on 127.0.0.1, or set \
                    listen.http.insecure_allow_unauthenticated: true";
        report.problem(&draft.origin("listen.http.address"), "listen.http.address", what, cure);
    }
}

fn times(draft: &mut Draft, report: &mut Report) {
    let idle = draft.origin("limits.idle_timeout");
    if draft.config.limits.idle_timeout <= SENDER_IDLE {
        let what = "senders keep idle connections for 90 s and would meet closed ones";
        report.warning(&idle, "limits.idle_timeout", what, "write more than 90s, such as 180s");
    }
    let effects = &mut draft.config.side_effects;
    if effects.backoff > effects.max_backoff {
        if draft.origins.contains_key("async.retry.max_backoff") {
            let what =
                format!("shorter than async.retry.backoff ({})", units::duration_text(effects.backoff));
            let cure = "write a longer max_backoff or a shorter backoff";
            report.problem(&draft.origin("async.retry.max_backoff"), "async.retry.max_backoff", what, cure);
        } else {
            // The predecessor has no such key: a long first delay alone is no mistake.
            effects.max_backoff = effects.backoff;
        }
    }
}

fn group_names(draft: &Draft, groups: &[Placed], whole: bool, report: &mut Report) {
    let mut names: Vec<&str> = Vec::with_capacity(groups.len());
    let mut lines = HashMap::new();
    for placed in groups {
        let name = placed.group.name.as_str();
        if let Some(first) = lines.get(name) {
            let what = format!("{} is the name of the group on line {first} too", values::quoted(name));
            let key = format!("{}.name", placed.path);
            report.problem(&Origin::File(placed.name_line), &key, what, "give each group a name of its own");
        } else {
            lines.insert(name, placed.name_line);
        }
        names.push(name);
    }
    if let Some(name) = draft.config.unmatched.as_deref().filter(|name| whole && !names.contains(name)) {
        let what = format!("no group is named {}", values::quoted(name));
        report.problem(&draft.origin("unmatched"), "unmatched", what, name_cure(name, &names));
    }
}

/// Groups without rules match every record, but for the one that takes what the others left.
fn without_rules(draft: &Draft, groups: &[Placed], report: &mut Report) {
    let is_fallback = |placed: &&Placed| draft.config.unmatched.as_ref() == Some(&placed.group.name);
    for placed in groups.iter().filter(|placed| placed.without_rules && !is_fallback(placed)) {
        let what = format!("group {} has no rules", values::quoted(&placed.group.name));
        let cure = "it matches every record; add `rules:` to choose";
        report.warning(&Origin::File(placed.line), &placed.path, what, cure);
    }
}

/// What to write instead of a group's name that does not exist.
pub(super) fn name_cure(name: &str, names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().take(10).map(|name| values::quoted(name)).collect();
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {}?", values::quoted(near)),
        None if names.is_empty() => "there are no groups; add one to rule_groups".to_owned(),
        None => {
            let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
            format!("the groups are {}", alternatives(&quoted))
        }
    }
}

/// Groups that name one file share its writer: they must agree on it, and get one spelling of its path.
fn log_files(draft: &Draft, groups: &mut [Placed], report: &mut Report) {
    let mut seen: HashMap<PathBuf, usize> = HashMap::new();
    for i in 0..groups.len() {
        let Some(path) = groups[i].group.log_file.as_ref().map(|file| normal(&file.file_path)) else {
            continue;
        };
        let first = *seen.entry(path).or_insert(i);
        let (before, rest) = groups.split_at_mut(i);
        let (Some(known), Some(placed)) = (before.get(first), rest.first_mut()) else { continue };
        let (Some(other), Some(file)) = (&known.group.log_file, &mut placed.group.log_file) else { continue };
        file.file_path.clone_from(&other.file_path);
        if file != other {
            let name = values::quoted(&known.group.name);
            let what =
                format!("group {name} writes the same file with other options (line {})", known.file_line);
            let cure = "give both the same max_size, max_backups, max_age, compress and sync";
            report.problem(&Origin::File(placed.file_line), &format!("{}.log_file", placed.path), what, cure);
        }
    }
    let first = groups.iter().find_map(|placed| placed.group.log_file.as_ref());
    let quarantine = super::quarantine_path(draft.config.quarantine_file.as_deref(), first);
    if let Some(placed) = seen.get(&normal(&quarantine)).and_then(|i| groups.get(*i)) {
        let what = format!("group {} writes this file", values::quoted(&placed.group.name));
        let cure = "name another file in quarantine.log_file.file_path";
        let key = "quarantine.log_file.file_path";
        let origin = match draft.origin(key) {
            Origin::Default => Origin::File(placed.file_line),
            origin => origin,
        };
        report.problem(&origin, key, what, cure);
    }
}

/// The path by which two names of one file are told: through links where the file or its directory is there, otherwise
/// without its `.` and `..` parts.
fn normal(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(real) = absolute.canonicalize() {
        return real;
    }
    if let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name())
        && let Ok(real) = parent.canonicalize()
    {
        return real.join(name);
    }
    let mut normal = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}
