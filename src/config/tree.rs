//! The configuration file as a tree of values with their lines.
//!
//! Keys are made as viper sees them: lower case, and `vault.address: x` is `vault: {address: x}`. Merge keys (`<<`) are
//! applied. A key given twice is a problem. Records of `tests` keep their keys as written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};

use super::marks::{Children, Mark, marks};
use super::problem::{Origin, Report, printable};

/// One value and the line on which it begins, from 1; 0 where the line is not known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) value: Value,
}

/// A YAML value. Mappings keep their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A value with a tag of its own (`!name`), which nothing here takes.
    Tagged,
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_line: u32,
    pub(super) node: Node,
    /// Opened from a key with dots; such a mapping joins a plain one of the same name.
    dotted: bool,
}

impl Node {
    /// What stands here, for messages; never the value.
    pub(super) fn found(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a number",
            Value::Float(_) => "a number with a fraction",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Tagged => "a value with a tag",
        }
    }

    pub(super) fn origin(&self) -> Origin {
        Origin::File(self.line)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The value as JSON; `None` for tags and numbers that JSON does not have.
    pub(super) fn to_json(&self) -> Option<serde_json::Value> {
        use serde_json::{Number, Value as Json};
        Some(match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::Number(Number::from_i128(*n)?),
            Value::Float(f) => Json::Number(Number::from_f64(*f)?),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect::<Option<_>>()?),
            Value::Map(entries) => Json::Object(
                entries
                    .iter()
                    .map(|e| Some((e.key.clone(), e.node.to_json()?)))
                    .collect::<Option<serde_json::Map<_, _>>>()?,
            ),
            Value::Tagged => return None,
        })
    }
}

/// Reads one YAML document. `None` after a problem that leaves nothing to look at. An empty document is an empty mapping.
pub(super) fn parse(text: &str, report: &mut Report) -> Option<Node> {
    let mut root: Node = match serde_yaml::from_str(text) {
        Ok(root) => root,
        Err(error) => {
            yaml_error(&error, text, report);
            return None;
        }
    };
    if let Some(marks) = marks(text) {
        attach(&mut root, &marks);
    }
    match &root.value {
        Value::Null => Some(Node { line: 1, value: Value::Map(Vec::new()) }),
        Value::Map(_) => Some(normalised(root, "", report)),
        _ => {
            let what = format!("the file holds {}, not a mapping of keys", root.found());
            report.problem(&root.origin(), "", what, "write keys such as `rule_groups:` at the left edge");
            None
        }
    }
}

fn yaml_error(error: &serde_yaml::Error, document: &str, report: &mut Report) {
    let text = error.to_string();
    if text.contains("more than one document") {
        let cure = "keep one of them and remove the `---` between them";
        report.problem(&Origin::File(second_document(document)), "", "more than one YAML document", cure);
        return;
    }
    let line = error.location().map_or(0, |at| u32::try_from(at.line()).unwrap_or(0));
    let cure = if text.contains("recursion limit") || text.contains("repetition limit") {
        "write it with less nesting and fewer aliases"
    } else {
        "check the indentation (spaces, no tabs), the colons and the quotes there; put rules in single quotes"
    };
    report.problem(&Origin::File(line), "", format!("not YAML: {}", printable(&text)), cure);
}

/// The line of the `---` that follows on content.
fn second_document(document: &str) -> u32 {
    let mut content = false;
    for (number, line) in (1..).zip(document.split('\n')) {
        if content && line.starts_with("---") {
            return number;
        }
        content |= !line.trim().is_empty() && !line.starts_with(['#', '%']) && !line.starts_with("---");
    }
    0
}

/// Copies lines into the tree where the shapes agree.
fn attach(node: &mut Node, mark: &Mark) {
    node.line = mark.line;
    match (&mut node.value, &mark.children) {
        (Value::List(items), Children::List(marks)) if items.len() == marks.len() => {
            for (item, mark) in items.iter_mut().zip(marks) {
                attach(item, mark);
            }
        }
        (Value::Map(entries), Children::Map(marks)) if entries.len() == marks.len() => {
            for (entry, (key, value)) in entries.iter_mut().zip(marks) {
                entry.key_line = key.line;
                attach(&mut entry.node, value);
                // A block below its key is looked for at the key; the event of nothing comes a line late.
                if matches!(entry.node.value, Value::Null | Value::List(_) | Value::Map(_)) {
                    entry.node.line = key.line;
                }
            }
        }
        _ => {}
    }
}

/// The path of a child, as messages show it.
pub(super) fn child_path(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Lower-cases keys, opens dotted ones, applies merges, refuses duplicates.
fn normalised(node: Node, path: &str, report: &mut Report) -> Node {
    let line = node.line;
    let value = match node.value {
        Value::List(items) => Value::List(
            items
                .into_iter()
                .enumerate()
                .map(|(i, item)| normalised(item, &format!("{path}[{i}]"), report))
                .collect(),
        ),
        Value::Map(entries) => {
            let mut map: Vec<Entry> = Vec::new();
            let (merges, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.key == "<<");
            for entry in own {
                insert(&mut map, entry, path, report);
            }
            for merge in merges {
                apply_merge(&mut map, merge, path, report);
            }
            Value::Map(map)
        }
        other => other,
    };
    Node { line, value }
}

fn insert(map: &mut Vec<Entry>, entry: Entry, path: &str, report: &mut Report) {
    let lower = entry.key.to_lowercase();
    let (head, node, dotted) = match lower.split_once('.') {
        Some((head, rest)) if !head.is_empty() && !rest.is_empty() => {
            let inner =
                Entry { key: rest.to_owned(), key_line: entry.key_line, node: entry.node, dotted: false };
            (head.to_owned(), Node { line: entry.key_line, value: Value::Map(vec![inner]) }, true)
        }
        _ => (lower.clone(), entry.node, false),
    };
    let here = child_path(path, &head);
    let node =
        if path.starts_with("tests[") && head == "record" { node } else { normalised(node, &here, report) };
    add(map, Entry { key: head, key_line: entry.key_line, node, dotted }, &here, report);
}

/// Adds an entry whose value is normalised; two mappings under one key become one when their keys differ.
fn add(map: &mut Vec<Entry>, entry: Entry, path: &str, report: &mut Report) {
    let Some(known) = map.iter_mut().find(|e| e.key == entry.key) else {
        map.push(entry);
        return;
    };
    match (&mut known.node.value, entry.node.value) {
        (Value::Map(into), Value::Map(from)) if known.dotted || entry.dotted => {
            known.dotted &= entry.dotted;
            for inner in from {
                let inner_path = child_path(path, &inner.key);
                add(into, inner, &inner_path, report);
            }
        }
        _ => {
            let what = format!("given twice, first on line {}", known.key_line);
            report.problem(&Origin::File(entry.key_line), path, what, "keep one of the two");
        }
    }
}

fn apply_merge(map: &mut Vec<Entry>, merge: Entry, path: &str, report: &mut Report) {
    let sources = match merge.node.value {
        Value::List(items) => items,
        value => vec![Node { line: merge.node.line, value }],
    };
    for source in sources {
        let source = normalised(source, path, report);
        let Value::Map(entries) = source.value else {
            let here = child_path(path, "<<");
            report.problem(
                &Origin::File(merge.key_line),
                &here,
                format!("found {}, wanted a mapping to merge", source.found()),
                "name an anchor of a mapping, as in `<<: *defaults`",
            );
            continue;
        };
        for entry in entries {
            if !map.iter().any(|e| e.key == entry.key) {
                map.push(entry);
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor)?;
        Ok(Node { line: 0, value })
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Node>()? {
            let node = access.next_value()?;
            entries.push(Entry { key: key_text(&key), key_line: 0, node, dotted: false });
        }
        Ok(Value::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        use serde::de::{IgnoredAny, VariantAccess};
        let (_, content): (String, _) = access.variant()?;
        content.newtype_variant::<IgnoredAny>()?;
        Ok(Value::Tagged)
    }
}

/// A key as text; keys that are lists or mappings become a text that no key has.
fn key_text(key: &Node) -> String {
    match &key.value {
        Value::Text(text) => text.clone(),
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(f) => f.to_string(),
        Value::List(_) | Value::Map(_) | Value::Tagged => "?".into(),
    }
}
