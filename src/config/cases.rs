//! `tests`: records with the groups that they must reach.

use super::Test;
use super::problem::Report;
use super::section::Section;
use super::tree::{Node, Value};
use super::values::{self, Given};

const TEST_KEYS: [&str; 3] = ["name", "record", "groups"];

/// Reads the list of tests. `groups` are the names of the groups of this configuration, [`None`] where one of them
/// could not be read.
pub(super) fn read(node: &Node, groups: Option<&[&str]>, report: &mut Report) -> Vec<Test> {
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

fn read_test(node: &Node, path: &str, groups: Option<&[&str]>, report: &mut Report) -> Option<Test> {
    let section = Section::open(node, path, &TEST_KEYS, report)?;
    let key = |name: &str| section.path_of(name);
    let mut missing = |name: &str, cure: &str| {
        if section.get(name).is_none() {
            report.problem(&section.origin(), &key(name), format!("the test has no {name}"), cure);
        }
    };
    missing("name", "add `name: TEXT`");
    missing("record", "add `record: { type: request, ... }`, an audit entry");
    missing("groups", "add `groups: [NAME]`, or `groups: []` for none");
    let name = section.get("name").and_then(|n| values::some_line(&Given::node(&key("name"), n), report));
    let record = section.get("record").and_then(|n| record(n, &key("record"), report));
    let wanted = section.get("groups").and_then(|n| values::list(&Given::node(&key("groups"), n), report));
    for (i, (group, origin)) in wanted.iter().flatten().enumerate() {
        if groups.is_some_and(|groups| !groups.contains(&group.as_str())) {
            let what = format!("no group is named {}", values::quoted(group));
            let cure = super::cross::name_cure(group, groups.unwrap_or_default());
            report.problem(origin, &format!("{}[{i}]", key("groups")), what, cure);
        }
    }
    Some(Test { name: name?, record: record?, groups: wanted?.into_iter().map(|(name, _)| name).collect() })
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
