//! `tests`: records with the groups that they must reach.

use super::problem::{Origin, Report};
use super::section::Section;
use super::tree::{Node, Value};
use super::values::{self, Given};
use super::{RuleGroup, Test, TestInput};

const TEST_KEYS: [&str; 5] = ["name", "record", "records_file", "groups", "messages"];
const MESSAGE_KEYS: [&str; 2] = ["group", "text"];

/// Reads the list of tests. `groups` are the groups of this configuration, [`None`] where one of them could not be read.
pub(super) fn read(node: &Node, groups: Option<&[&RuleGroup]>, report: &mut Report) -> Vec<Test> {
    let items = match &node.value {
        Value::List(items) => items,
        Value::Null => return Vec::new(),
        _ => {
            let what = format!("found {}, wanted a list of tests", node.found());
            report.problem(&node.origin(), "tests", what, "begin each test with `- name: NAME`");
            return Vec::new();
        }
    };
    let test = |(i, item)| read_test(item, &format!("tests[{i}]"), groups, report);
    items.iter().enumerate().filter_map(test).collect()
}

fn read_test(node: &Node, path: &str, groups: Option<&[&RuleGroup]>, report: &mut Report) -> Option<Test> {
    let section = Section::open(node, path, &TEST_KEYS, report)?;
    let key = |name: &str| section.path_of(name);
    let mut missing = |name: &str, cure: &str| {
        if section.get(name).is_none() {
            report.problem(&section.origin(), &key(name), format!("the test has no {name}"), cure);
        }
    };
    missing("name", "add `name: TEXT`");
    let has_file = section.get("records_file").is_some();
    if !has_file {
        missing("record", "add `record: { type: request, ... }`, an audit entry, or `records_file: PATH`");
    }
    missing("groups", "add `groups: [NAME]`, or `groups: []` for none");
    let name = section.get("name").and_then(|n| values::some_line(&Given::node(&key("name"), n), report));
    let record = section.get("record").and_then(|n| record(n, &key("record"), report)).map(TestInput::Record);
    let file = section
        .get("records_file")
        .and_then(|n| values::some_line(&Given::node(&key("records_file"), n), report))
        .map(|path| TestInput::File(path.into()));
    if let (Some(node), true) = (section.get("record"), has_file) {
        let cure = "keep one of them";
        report.problem(&node.origin(), &key("record"), "the test has a record and a records_file", cure);
    }
    let wanted = section.get("groups").and_then(|n| values::list(&Given::node(&key("groups"), n), report));
    for (i, (group, origin)) in wanted.iter().flatten().enumerate() {
        let _ = known(group, origin, &format!("{}[{i}]", key("groups")), groups, report);
    }
    let messages = section
        .get("messages")
        .map_or_else(Vec::new, |node| read_messages(node, &key("messages"), groups, report));
    Some(Test {
        name: name?,
        line: section.line,
        input: record.or(file)?,
        groups: wanted?.into_iter().map(|(name, _)| name).collect(),
        messages,
    })
}

/// The group of this name. `None` where it is not known, which is a problem if the groups are.
fn known<'g>(
    name: &str,
    origin: &Origin,
    key: &str,
    groups: Option<&[&'g RuleGroup]>,
    report: &mut Report,
) -> Option<&'g RuleGroup> {
    let groups = groups?;
    let found = groups.iter().find(|group| group.name == name).copied();
    if found.is_none() {
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        let what = format!("no group is named {}", values::quoted(name));
        report.problem(origin, key, what, super::cross::name_cure(name, &names));
    }
    found
}

/// `messages`: which group must send which text.
fn read_messages(
    node: &Node,
    path: &str,
    groups: Option<&[&RuleGroup]>,
    report: &mut Report,
) -> Vec<(String, String)> {
    let Value::List(items) = &node.value else {
        let what = format!("found {}, wanted a list of messages", node.found());
        report.problem(&node.origin(), path, what, "begin each message with `- group: NAME`");
        return Vec::new();
    };
    let mut messages = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(section) = Section::open(item, &path, &MESSAGE_KEYS, report) else { continue };
        for (name, cure) in [("group", "add `group: NAME`"), ("text", "add `text: TEXT`, as it is sent")] {
            if section.get(name).is_none() {
                report.problem(
                    &section.origin(),
                    &section.path_of(name),
                    format!("the message has no {name}"),
                    cure,
                );
            }
        }
        let (group_key, text_key) = (section.path_of("group"), section.path_of("text"));
        let group = section.get("group").and_then(|n| {
            let name = values::some_line(&Given::node(&group_key, n), report)?;
            if known(&name, &n.origin(), &group_key, groups, report).is_some_and(|g| g.messaging.is_none()) {
                let what = format!("the group {} has no messaging, so it sends none", values::quoted(&name));
                report.problem(&n.origin(), &group_key, what, "name a group with messaging");
            }
            Some(name)
        });
        let text = section.get("text").and_then(|n| values::text(&Given::node(&text_key, n), report));
        messages.extend(group.zip(text));
    }
    messages
}

/// The record as JSON text: written as YAML or as a text that holds JSON.
fn record(node: &Node, key: &str, report: &mut Report) -> Option<String> {
    match &node.value {
        Value::Map(_) => {
            if let Some(json) = node.to_json() {
                return Some(json.to_string());
            }
            let cure = "leave out tags, .nan and .inf";
            report.problem(&node.origin(), key, "the record holds a value that JSON does not have", cure);
        }
        Value::Text(text) => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(serde_json::Value::Object(_)) => return Some(text.clone()),
            Ok(_) => report.problem(&node.origin(), key, "the record is not a JSON object", "write { ... }"),
            Err(error) => {
                let what = format!("the record is not JSON: {error}");
                report.problem(&node.origin(), key, what, "write an audit entry, as YAML or as JSON text");
            }
        },
        _ => {
            let what = format!("found {}, wanted an audit entry", node.found());
            report.problem(&node.origin(), key, what, "write a mapping, as in record: { type: request }");
        }
    }
    None
}
