//! `rule_groups`: names, rules, log files, forwarding.

use std::path::PathBuf;

use super::keys::chosen;
use super::load::{Context, check_rule};
use super::messaging;
use super::problem::{Origin, Report};
use super::section::Section;
use super::tree::{Node, Value};
use super::values::{self, Given};
use super::{ForwardProtocol, Forwarding, LogFile, RuleGroup, RuleText, SyncPolicy};

const GROUP_KEYS: [&str; 5] = ["name", "rules", "log_file", "forwarding", "messaging"];
const LOG_FILE_KEYS: [&str; 6] = ["file_path", "max_size", "max_backups", "max_age", "compress", "sync"];
const FORWARDING_KEYS: [&str; 3] = ["enabled", "address", "protocol"];

const SYNC: [(&str, SyncPolicy); 2] = [("never", SyncPolicy::Never), ("always", SyncPolicy::Always)];
const FORWARD_PROTOCOLS: [(&str, ForwardProtocol); 4] = [
    ("udp", ForwardProtocol::Udp),
    ("tcp", ForwardProtocol::Tcp),
    ("unix", ForwardProtocol::Unix),
    ("http", ForwardProtocol::Http),
];

/// The largest `max_size`, in MiB: 8 TiB.
const MAX_SIZE_MIB: u64 = 8 << 20;
/// The largest `max_age`, in days: a century.
const MAX_AGE_DAYS: u64 = 36_500;

/// A group and where its parts stand, for the checks across groups.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) group: RuleGroup,
    pub(super) path: String,
    pub(super) line: u32,
    pub(super) name_line: u32,
    pub(super) file_line: u32,
    /// It has no `rules`, or an empty list; not a wrong one, which has been reported.
    pub(super) without_rules: bool,
}

/// Reads the list of groups. A group with a problem is left out; the problem has been reported.
pub(super) fn read(node: &Node, context: &Context<'_>, report: &mut Report) -> Vec<Placed> {
    let items = match &node.value {
        Value::List(items) => items,
        Value::Null => return Vec::new(),
        _ => {
            let what = format!("found {}, wanted a list of groups", node.found());
            report.problem(&node.origin(), "rule_groups", what, "begin each group with `- name: NAME`");
            return Vec::new();
        }
    };
    let group = |(i, item)| read_group(item, &format!("rule_groups[{i}]"), context, report);
    items.iter().enumerate().filter_map(group).collect()
}

fn read_group(node: &Node, path: &str, context: &Context<'_>, report: &mut Report) -> Option<Placed> {
    let section = Section::open(node, path, &GROUP_KEYS, report)?;
    let name = name(&section, report);
    let rules =
        section.get("rules").map_or_else(Vec::new, |node| rules(node, &section.path_of("rules"), report));
    let log_file = section.get("log_file").map(|node| log_file(node, &section.path_of("log_file"), report));
    let forwarding =
        section.get("forwarding").and_then(|n| forwarding(n, &section.path_of("forwarding"), report));
    let messaging = section
        .get("messaging")
        .and_then(|n| messaging::read(n, &section.path_of("messaging"), context, report));
    for (i, rule) in rules.iter().enumerate() {
        let key = format!("{path}.rules[{i}]");
        check_rule(name.as_deref().unwrap_or_default(), &key, i, rule, context.checks.rule, report);
    }
    let name = name?;
    if ["log_file", "forwarding", "messaging"].iter().all(|key| section.get(key).is_none()) {
        let what = format!("group {} does nothing with what it matches", values::quoted(&name));
        report.warning(&section.origin(), path, what, "add log_file, forwarding or messaging");
    }
    let without_rules = match section.get("rules").map(|node| &node.value) {
        None => true,
        Some(Value::List(items)) => items.is_empty(),
        Some(_) => false,
    };
    let file_line = section.get("log_file").map_or(section.line, |n| n.line);
    Some(Placed {
        group: RuleGroup { name, rules, log_file: log_file.flatten(), forwarding, messaging },
        path: path.to_owned(),
        line: section.line,
        name_line: section.get("name").map_or(section.line, |n| n.line),
        file_line,
        without_rules,
    })
}

fn name(section: &Section<'_>, report: &mut Report) -> Option<String> {
    let key = section.path_of("name");
    match section.get("name") {
        Some(node) => values::some_line(&Given::node(&key, node), report),
        None => {
            report.problem(&section.origin(), &key, "the group has no name", "add `name: NAME`");
            None
        }
    }
}

fn rules(node: &Node, path: &str, report: &mut Report) -> Vec<RuleText> {
    let Value::List(items) = &node.value else {
        let what = format!("found {}, wanted a list of rules", node.found());
        report.problem(
            &node.origin(),
            path,
            what,
            "write each rule on a line of its own after `- `, in single quotes",
        );
        return Vec::new();
    };
    let mut rules = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let key = format!("{path}[{i}]");
        match &item.value {
            // `- true` is a rule too: the constant.
            Value::Bool(constant) => rules.push(RuleText { text: constant.to_string(), line: item.line }),
            Value::Text(text) if text.trim().is_empty() => {
                report.problem(
                    &item.origin(),
                    &key,
                    "an empty rule",
                    "write an expression, or remove the line",
                );
            }
            Value::Text(text) => rules.push(RuleText { text: text.clone(), line: item.line }),
            _ => {
                let what = format!("found {}, wanted a rule as text", item.found());
                report.problem(&item.origin(), &key, what, "put the whole rule in single quotes");
            }
        }
    }
    rules
}

fn log_file(node: &Node, path: &str, report: &mut Report) -> Option<LogFile> {
    let section = Section::open(node, path, &LOG_FILE_KEYS, report)?;
    let before = report.problems.len();
    let key = |name: &str| section.path_of(name);
    let file_path = match section.get("file_path") {
        Some(node) => values::some_line(&Given::node(&key("file_path"), node), report),
        None => {
            let cure = "add `file_path: PATH`";
            report.problem(&section.origin(), &key("file_path"), "the log file has no path", cure);
            None
        }
    };
    let mut number = |name: &str, max: u64| match section.get(name) {
        Some(node) => values::count(&Given::node(&key(name), node), 0, max, report).unwrap_or(0),
        None => 0,
    };
    let max_size = number("max_size", MAX_SIZE_MIB);
    let max_backups = u32::try_from(number("max_backups", u32::MAX.into())).unwrap_or(u32::MAX);
    let max_age = u32::try_from(number("max_age", MAX_AGE_DAYS)).unwrap_or(u32::MAX);
    let compress = section
        .get("compress")
        .is_some_and(|node| values::boolean(&Given::node(&key("compress"), node), report).unwrap_or(false));
    let sync = section
        .get("sync")
        .and_then(|node| chosen(&Given::node(&key("sync"), node), &SYNC, report))
        .unwrap_or(SyncPolicy::Never);
    let file_path = PathBuf::from(file_path?);
    if file_path.file_name().is_none() || file_path.as_os_str().to_string_lossy().ends_with('/') {
        let origin = section.get("file_path").map_or(section.origin(), Node::origin);
        report.problem(
            &origin,
            &key("file_path"),
            "names a directory",
            "add a file name, such as /var/log/a.log",
        );
    }
    let whole = report.problems.len() == before;
    whole.then_some(LogFile { file_path, max_size, max_backups, max_age, compress, sync })
}

fn forwarding(node: &Node, path: &str, report: &mut Report) -> Option<Forwarding> {
    let section = Section::open(node, path, &FORWARDING_KEYS, report)?;
    let key = |name: &str| section.path_of(name);
    let enabled = section.get("enabled").map(|n| values::boolean(&Given::node(&key("enabled"), n), report));
    let protocol = match section.get("protocol") {
        Some(node) => chosen(&Given::node(&key("protocol"), node), &FORWARD_PROTOCOLS, report)?,
        None => ForwardProtocol::Udp,
    };
    let given = section.get("address").filter(|node| node.value != Value::Text(String::new()));
    let Some(node) = given else {
        if enabled == Some(Some(true)) {
            let cure = format!("add `address: {}`, or set enabled: false", example(protocol));
            report.problem(
                &section.origin(),
                &key("address"),
                "forwarding is enabled and has no address",
                cure,
            );
        }
        return None;
    };
    let address_key = key("address");
    let given = Given::node(&address_key, node);
    let address = match protocol {
        ForwardProtocol::Udp | ForwardProtocol::Tcp => values::address(&given, report)?,
        ForwardProtocol::Unix => values::some_line(&given, report)?,
        ForwardProtocol::Http => values::url(&given, report)?,
    };
    if enabled.is_none() {
        let what = "forwarding has an address and is not enabled";
        report.warning(&Origin::File(section.line), path, what, "nothing is forwarded; add `enabled: true`");
    }
    (enabled == Some(Some(true))).then_some(Forwarding { address, protocol })
}

fn example(protocol: ForwardProtocol) -> &'static str {
    match protocol {
        ForwardProtocol::Udp | ForwardProtocol::Tcp => "HOST:PORT",
        ForwardProtocol::Unix => "/run/receiver.sock",
        ForwardProtocol::Http => "https://HOST/PATH",
    }
}
