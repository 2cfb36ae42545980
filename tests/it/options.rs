//! The tables of keys and options in README.md, compared with those that the program knows.

use std::collections::BTreeSet;

use serde_yaml::Value;
use vault_audit_filter::config::KEYS;

use crate::docs::{commands, file, help};

/// The rows of README.md's tables whose first cell is a key, below the heading.
fn rows(heading: &str) -> Vec<String> {
    let readme = file("README.md");
    let section = readme.split_once(heading).unwrap_or_else(|| panic!("README.md has no {heading:?}")).1;
    let section = section.split("\n#").next().unwrap_or("");
    section.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect()
}

fn example() -> Value {
    serde_yaml::from_str(&file("config/example.yaml")).expect("YAML")
}

/// The value as one would write it on the command line or in the environment.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => String::new(),
        Value::Sequence(items) if items.is_empty() => String::new(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{}`", serde_yaml::to_string(other).expect("YAML").trim()),
    }
}

#[test]
fn the_table_of_keys_in_the_readme_is_the_programs() {
    let example = example();
    let value = |path: &str| path.split('.').try_fold(&example, |at, part| at.get(part)).cloned();
    let row = |key: &vault_audit_filter::config::Key| {
        let value = value(key.path).unwrap_or_else(|| panic!("config/example.yaml lacks {}", key.path));
        format!("| `{}` | {} | {} |", key.path, shown(&value), key.doc)
    };
    let wanted: Vec<String> = KEYS.iter().map(row).collect();
    assert_eq!(rows("\n## All keys"), wanted, "README.md should have\n{}", wanted.join("\n"));
}

/// The leaves below a value, by their path.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let Value::Mapping(map) = value else {
        found.insert(path.to_owned());
        return;
    };
    for (key, value) in map {
        let key = key.as_str().expect("a key");
        leaves(value, &if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }, found);
    }
}

#[test]
fn every_key_of_a_group_and_of_a_test_is_in_the_readme() {
    let (example, text) = (example(), file("config/example.yaml"));
    let mut wanted = BTreeSet::new();
    leaves(&example["rule_groups"][0], "", &mut wanted);
    let tabled: BTreeSet<String> = rows("\n### Keys of a rule group")
        .iter()
        .filter_map(|row| Some(row.strip_prefix("| `")?.split('`').next()?.to_owned()))
        .collect();
    let missing: Vec<&String> = wanted.difference(&tabled).collect();
    assert!(missing.is_empty(), "README.md lacks {missing:?}");
    for key in tabled.difference(&wanted) {
        let last = key.rsplit('.').next().unwrap_or(key);
        assert!(
            text.contains(&format!("# {last}: ")),
            "README.md has {key}, which config/example.yaml has not"
        );
    }
}

/// One option of a command, as `--help` tells it.
#[derive(Debug, Default)]
struct Flag {
    usage: String,
    about: String,
    default: String,
}

/// The options that a command's `--help` tells, below the headings that are wanted.
fn flags(command: &[&str], wanted: impl Fn(&str) -> bool) -> Vec<Flag> {
    let (mut found, mut inside, mut about_ends): (Vec<Flag>, bool, bool) = (Vec::new(), false, false);
    for line in help(command).lines() {
        let text = line.trim();
        if !line.starts_with(' ') {
            inside = if line.is_empty() { inside } else { wanted(line) };
        } else if inside && (line.starts_with("      --") || line.starts_with("  -")) {
            found.push(Flag { usage: text.to_owned(), ..Flag::default() });
            about_ends = false;
        } else if let Some(flag) = found.last_mut().filter(|_| inside) {
            if let Some(default) = text.strip_prefix("[default: ") {
                flag.default = default.trim_end_matches(']').to_owned();
            } else if text.is_empty() {
                about_ends = !flag.about.is_empty();
            } else if !about_ends && !text.starts_with('[') {
                flag.about = format!("{} {text}", flag.about).trim_start().to_owned();
            }
        }
    }
    found.retain(|flag| !flag.usage.contains("--help") && !flag.usage.contains("--version"));
    found
}

/// The commands of the program, those of `queue` with it.
fn all_commands() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for command in commands(&help(&[])) {
        let below = commands(&help(&[&command]));
        if below.is_empty() {
            all.push(vec![command]);
        } else {
            all.extend(below.into_iter().map(|sub| vec![command.clone(), sub]));
        }
    }
    all
}

#[test]
fn the_table_of_options_in_the_readme_is_the_programs() {
    let row = |command: &str, flag: &Flag| {
        let default = if flag.default.is_empty() { String::new() } else { format!("`{}`", flag.default) };
        format!("| {command} | `{}` | {default} | {} |", flag.usage, flag.about.replace('|', "\\|"))
    };
    let mut wanted: Vec<String> =
        flags(&[], |heading| !heading.starts_with("Examples")).iter().map(|flag| row("all", flag)).collect();
    for command in all_commands() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let own = flags(&words, |heading| heading == "Options:");
        wanted.extend(own.iter().map(|flag| row(&format!("`{}`", command.join(" ")), flag)));
    }
    assert!(wanted.len() > 40, "{wanted:#?}");
    let readme = file("README.md");
    let section = readme.split_once("\n## All options").expect("README.md has a table of options").1;
    let section = section.split("\n## ").next().unwrap_or("");
    let rows: Vec<&str> =
        section.lines().filter(|line| line.starts_with("| ") && line.contains("`-")).collect();
    assert_eq!(rows, wanted, "README.md should have\n{}", wanted.join("\n"));
}
