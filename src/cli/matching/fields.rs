//! Which fields of the record a rule reads, for `--explain`: found in its text, outside of string literals. Pure.

use crate::record::schema::{AUDIT_LOG, Type};

/// A field as the rule writes it, and its keys in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadField {
    pub(super) written: String,
    pub(super) path: Vec<String>,
}

/// The fields that a rule reads, in its order, each once. Structs as a whole are left out.
pub(super) fn of_rule(text: &str) -> Vec<ReadField> {
    let mut fields: Vec<ReadField> = Vec::new();
    let mut rest = text;
    let mut after_dot = false;
    while let Some(c) = rest.chars().next() {
        if matches!(c, '"' | '\'' | '`') {
            rest = &rest[literal(rest)..];
            after_dot = false;
        } else if is_name_start(c) {
            let length = if after_dot { name(rest) } else { chain(rest, &mut fields) };
            rest = &rest[length..];
            after_dot = false;
        } else {
            after_dot = c == '.';
            // Digits take letters with them: 1e5 is no name.
            let length = if c.is_ascii_digit() { name(rest) } else { c.len_utf8() };
            rest = &rest[length..];
        }
    }
    fields
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}

/// Length of the name at the start of `text`.
fn name(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(text.len())
}

/// Length of the string literal at the start of `text`, to the end where it is not closed.
fn literal(text: &str) -> usize {
    let mut chars = text.char_indices();
    let Some((_, quote)) = chars.next() else { return 0 };
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return at + c.len_utf8();
        }
        if c == '\\' && quote != '`' {
            chars.next();
        }
    }
    text.len()
}

/// Reads `Name.Name["key"]?.Name` at the start of `text`; its length. A field of the record is added to `fields`.
fn chain(text: &str, fields: &mut Vec<ReadField>) -> usize {
    let mut end = name(text);
    let first = &text[..end];
    let mut path = Vec::new();
    let mut ty = match (first, AUDIT_LOG.field(first)) {
        ("record", _) => Type::Any,
        (_, Some(field)) => {
            path.push(field.json.to_owned());
            field.ty
        }
        _ => return end,
    };
    while let Some((key, length)) = step(&text[end..]) {
        ty = match ty {
            Type::Struct(structure) => match structure.field(&key) {
                Some(field) => {
                    path.push(field.json.to_owned());
                    field.ty
                }
                None => break,
            },
            Type::Map(values) => {
                path.push(key);
                *values
            }
            Type::Any => {
                path.push(key);
                Type::Any
            }
            _ => break,
        };
        end += length;
    }
    let field = ReadField { written: text[..end].to_owned(), path };
    if !matches!(ty, Type::Struct(_)) && !field.path.is_empty() && !fields.contains(&field) {
        fields.push(field);
    }
    end
}

/// One member access at the start of `text`: its key, and its length.
fn step(text: &str) -> Option<(String, usize)> {
    let after = text.strip_prefix("?.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
    let before = text.len() - after.len();
    if let Some(inner) = after.strip_prefix('[') {
        let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let length = literal(inner);
        let key = inner.get(1..length.checked_sub(1)?)?;
        if key.contains(['\\', quote]) || !inner[length..].starts_with(']') {
            return None;
        }
        return Some((key.to_owned(), before + 1 + length + 1));
    }
    if before == 0 || !after.starts_with(is_name_start) {
        return None;
    }
    let length = name(after);
    Some((after[..length].to_owned(), before + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_found_outside_of_literals() {
        for (rule, wanted) in [
            (r#"Request.Operation == "delete""#, vec!["Request.Operation=request/operation"]),
            (r#"Type == "Request.Path" && Error != ''"#, vec!["Type=type", "Error=error"]),
            (
                r#"Auth.PolicyResults.Allowed and any(Auth.Policies, # == "root") or Auth.Policies[0] == "x""#,
                vec!["Auth.PolicyResults.Allowed=auth/policy_results/allowed", "Auth.Policies=auth/policies"],
            ),
            (r#"Auth.Metadata["role"] == 'a\'b'"#, vec![r#"Auth.Metadata["role"]=auth/metadata/role"#]),
            (
                "record.request.data.options?.cas > 1e5",
                vec!["record.request.data.options?.cas=record.request.data.options.cas"],
            ),
            ("let x = Request; x.Path", vec![]),
            ("foo.Request.Path", vec![]),
            ("`Type` + \"unclosed Error", vec![]),
            ("Request", vec![]),
            ("record", vec![]),
            ("Request.Nothing", vec![]),
        ] {
            let found: Vec<String> = of_rule(rule)
                .iter()
                .map(|f| {
                    let separator = if f.written.starts_with("record") { "." } else { "/" };
                    let path = f.path.join(separator);
                    if f.written.starts_with("record") {
                        format!("{}=record.{path}", f.written)
                    } else {
                        format!("{}={path}", f.written)
                    }
                })
                .collect();
            assert_eq!(found, wanted, "{rule}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z.?\\[\\]\"'`\\\\ é#$1]{0,60}|\\PC{0,60}") {
            for field in of_rule(&text) {
                prop_assert!(text.contains(&field.written));
            }
        }
    }
}
