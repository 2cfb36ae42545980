//! The environment: a copy of the process's, and the settings in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::keys::{Draft, ENVIRONMENT_PREFIX, KEYS};
use super::problem::{Origin, Report, nearest, printable};
use super::values::{Content, Given};

/// Variables of this program that are no keys: the paths and the diagnostics of the command line.
pub const ENVIRONMENT_FLAGS: [(&str, &str); 3] = [
    ("VAULT_AUDIT_FILTER_CONFIG", "--config"),
    ("VAULT_AUDIT_FILTER_LOG_LEVEL", "--log-level"),
    ("VAULT_AUDIT_FILTER_LOG_FORMAT", "--log-format"),
];

/// Variables that Vault's own tools read, and the documented one of the predecessor; a later one wins.
pub const ENVIRONMENT_ALIASES: [(&str, &str); 4] = [
    ("VAULT_ADDRESS", "vault.address"),
    ("VAULT_ADDR", "vault.address"),
    ("VAULT_TOKEN", "vault.token"),
    ("VAULT_NAMESPACE", "vault.namespace"),
];

/// A copy of environment variables, so that what reads them can be tried with any. Values that are not UTF-8 are kept
/// out of [`Environment::get`] and are a problem where they belong to a setting.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl fmt::Debug for Environment {
    /// Names only: values can be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// The variables of this process; names that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        Environment(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect(),
        )
    }

    /// The value of a variable, when it is set and UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.to_str())
    }

    /// The variables whose names begin with `prefix`.
    fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let range = self.0.range(prefix.to_owned()..);
        range
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, v)| (name.as_str(), v.to_str()))
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Environment(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Puts the settings of the environment over the draft. An alias that is empty counts as not set, as it does for
/// Vault's own tools; an empty variable that is named after a key sets that key to nothing.
pub(super) fn apply(environment: &Environment, draft: &mut Draft, report: &mut Report) {
    for (name, path) in ENVIRONMENT_ALIASES {
        let Some(value) = environment.0.get(name).filter(|value| !value.is_empty()) else { continue };
        take(path, name, value.to_str(), draft, report);
    }
    let (address, addr) = (environment.get("VAULT_ADDRESS"), environment.get("VAULT_ADDR"));
    if address.is_some_and(|a| !a.is_empty()) && addr.is_some_and(|a| !a.is_empty()) && address != addr {
        let origin = Origin::Environment("VAULT_ADDRESS".into());
        report.warning(
            &origin,
            "vault.address",
            "differs from VAULT_ADDR, which wins",
            "unset VAULT_ADDRESS",
        );
    }
    for (name, value) in environment.with_prefix(ENVIRONMENT_PREFIX) {
        if ENVIRONMENT_FLAGS.iter().any(|(known, _)| *known == name) {
            continue;
        }
        match KEYS.iter().find(|key| key.environment() == name) {
            Some(key) => take(key.path, name, value, draft, report),
            None if is_service_link(name) => {}
            None => unknown(name, report),
        }
    }
}

/// Whether Kubernetes has set this variable: in the pods of a namespace with a Service called `vault-audit-filter` it sets
/// `..._SERVICE_HOST`, `..._SERVICE_PORT`, `..._PORT`, `..._PORT_1269_UDP_ADDR` and the like. No key looks so.
fn is_service_link(name: &str) -> bool {
    let bare = name.trim_start_matches(ENVIRONMENT_PREFIX);
    let numbered = bare.split("PORT_").skip(1).any(|rest| {
        let protocol = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        protocol.len() < rest.len()
            && ["_TCP", "_UDP", "_SCTP"].iter().any(|known| protocol.starts_with(known))
    });
    bare.ends_with("SERVICE_HOST")
        || bare.contains("SERVICE_PORT")
        || bare == "PORT"
        || bare.ends_with("_PORT")
        || numbered
}

fn take(path: &str, name: &str, value: Option<&str>, draft: &mut Draft, report: &mut Report) {
    let origin = Origin::Environment(name.to_owned());
    let Some(key) = KEYS.iter().find(|key| key.path == path) else { return };
    match value {
        Some(text) => {
            let given = Given { key: key.path, origin, content: Content::Text(text), secret: false };
            key.take(draft, given, report);
        }
        None => report.problem(&origin, path, "not UTF-8 text", "set it to a text"),
    }
}

fn unknown(name: &str, report: &mut Report) {
    let names: Vec<String> = KEYS.iter().map(super::keys::Key::environment).collect();
    let known = names.iter().map(String::as_str).chain(ENVIRONMENT_FLAGS.iter().map(|(name, _)| *name));
    let bare = name.trim_start_matches(ENVIRONMENT_PREFIX);
    let cure = if bare.starts_with("RULE_GROUPS") || bare.starts_with("TESTS") {
        "rule groups and tests are set in the file only".to_owned()
    } else {
        // Compared without the prefix, which would make everything look alike.
        let near = nearest(bare, known.map(|name| name.trim_start_matches(ENVIRONMENT_PREFIX)));
        match near {
            Some(near) => format!("did you mean {ENVIRONMENT_PREFIX}{near}?"),
            None => "unset it; each key's variable is its path in capitals with underscores".to_owned(),
        }
    };
    report.problem(&Origin::Environment(printable(name)), "", "no key has this name", cure);
}
