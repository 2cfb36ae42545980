//! One mapping of the file, with its path: unknown keys are refused, known ones handed out.

use super::keys::KEYS;
use super::problem::{Origin, Report, alternatives, nearest, printable};
use super::tree::{Entry, Node, Value, child_path};

/// A mapping whose keys are all known.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) line: u32,
    entries: &'a [Entry],
}

impl<'a> Section<'a> {
    /// Opens a mapping and refuses the keys that are not in `known`. Null is an empty mapping. `None` after a problem
    /// with the whole; a problem with a key leaves the others.
    pub(super) fn open(node: &'a Node, path: &str, known: &[&str], report: &mut Report) -> Option<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => {
                let what = format!("found {}, wanted a mapping", node.found());
                let keys = alternatives(&known[..known.len().min(3)]);
                report.problem(&node.origin(), path, what, format!("write keys below it, such as {keys}"));
                return None;
            }
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                unknown(entry, path, known, report);
            }
        }
        Some(Section { path: path.to_owned(), line: node.line, entries })
    }

    /// The value of a key; `None` where it is missing or null, which is the same as in viper.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.node).filter(|node| !node.is_null())
    }

    /// The whole path of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        child_path(&self.path, key)
    }

    pub(super) fn origin(&self) -> Origin {
        Origin::File(self.line)
    }
}

/// Refuses a key, with the nearest known one of its level, else the whole path of a key of that name elsewhere.
fn unknown(entry: &Entry, path: &str, known: &[&str], report: &mut Report) {
    let elsewhere = || {
        let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
        KEYS.iter().find(|key| last(key.path) == entry.key).map(|key| key.path)
    };
    let cure = if let Some(near) = nearest(&entry.key, known.iter().copied()) {
        format!("did you mean {near}?")
    } else if let Some(whole) = elsewhere() {
        format!("did you mean {whole}?")
    } else {
        format!("the keys here are {}", alternatives(known))
    };
    let key = printable(&child_path(path, &entry.key));
    report.problem(&Origin::File(entry.key_line), &key, "unknown key", cure);
}
