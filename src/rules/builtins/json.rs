//! `toJSON` and `fromJSON`, as Go's `encoding/json` writes (indented by two spaces) and reads.

use super::super::eval::Vm;
use super::super::go_time;
use super::super::numbers;
use super::super::types::{MapTy, Slice};
use super::super::value::{Evaluated, Fault, Value, fault};
use super::convert::encode_base64;
use super::strings::runes;

impl<'a> Vm<'a> {
    pub(super) fn parsed_json(&self, value: Value<'a>) -> Evaluated<'a> {
        let text = value.str()?;
        self.take_bytes(text.len().saturating_mul(4))?;
        // As Go: what is not UTF-8 is replaced inside strings.
        let text = super::strings::replaced(text);
        match serde_json::from_str(&text) {
            Ok(parsed) => self.json_value(&parsed),
            Err(error) => Err(fault(format!("this is not JSON: {error}"))),
        }
    }

    pub(super) fn to_json(&self, value: Value<'a>) -> Evaluated<'a> {
        let mut out = Vec::new();
        self.write_json(value, 0, &mut out)?;
        self.bytes_value(&out)
    }

    fn write_json(&self, value: Value<'a>, indent: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        let _deeper = self.deeper()?;
        let before = out.len();
        match value {
            Value::Nil => out.extend_from_slice(b"null"),
            Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Value::Int(value) | Value::Duration(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Value::U8(value) | Value::Month(value) | Value::Weekday(value) => {
                out.extend_from_slice(value.to_string().as_bytes())
            }
            Value::Float(value) => match numbers::format_json(value) {
                Some(text) => out.extend_from_slice(text.as_bytes()),
                None => return Err(fault("JSON has no infinite numbers and no NaN")),
            },
            Value::Str(text) => write_string(text, out),
            Value::Array(array) if array.nil => out.extend_from_slice(b"null"),
            Value::Array(array) if matches!(array.slice, Slice::Bytes) => {
                let bytes: Vec<u8> =
                    array.items.iter().filter_map(|item| item.int().ok()).map(|byte| byte as u8).collect();
                out.push(b'"');
                out.extend_from_slice(&encode_base64(&bytes));
                out.push(b'"');
            }
            Value::Array(array) => {
                out.push(b'[');
                for (index, item) in array.items.iter().enumerate() {
                    separate(index, indent + 1, out);
                    self.write_json(item, indent + 1, out)?;
                    self.take_bytes(8)?;
                }
                close(array.items.len(), indent, b']', out);
            }
            Value::Map(map) if map.nil => out.extend_from_slice(b"null"),
            Value::Map(map) => {
                if matches!(map.ty, MapTy::AnyAny | MapTy::Groups) {
                    return Err(fault("JSON has no map whose keys are not strings"));
                }
                out.push(b'{');
                for (index, (key, value)) in self.by_key(map.entries)?.iter().enumerate() {
                    separate(index, indent + 1, out);
                    write_string(key.str()?, out);
                    out.extend_from_slice(b": ");
                    self.write_json(*value, indent + 1, out)?;
                }
                close(map.entries.len(), indent, b'}', out);
            }
            Value::Struct(value) => {
                out.push(b'{');
                for (index, field) in value.def.fields.iter().take(value.def.shown).enumerate() {
                    separate(index, indent + 1, out);
                    write_string(field.json.as_bytes(), out);
                    out.extend_from_slice(b": ");
                    self.write_json(self.field(value, index)?, indent + 1, out)?;
                }
                close(value.def.shown, indent, b'}', out);
            }
            Value::Time(time) => write_string(go_time::rfc3339(time).as_bytes(), out),
            // A Go location has no exported fields.
            Value::Location(_) => out.extend_from_slice(b"{}"),
            Value::Method(_) => return Err(fault("JSON has no functions")),
        }
        self.take_bytes(out.len() - before)
    }
}

fn separate(index: usize, indent: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(if index > 0 { b",\n" } else { b"\n" });
    out.extend(std::iter::repeat_n(b' ', indent * 2));
}

fn close(count: usize, indent: usize, bracket: u8, out: &mut Vec<u8>) {
    if count > 0 {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', indent * 2));
    }
    out.push(bracket);
}

/// With Go's escapes, those for HTML included.
fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for (c, length) in runes(text) {
        match c {
            // A byte that is not UTF-8.
            '\u{fffd}' if length == 1 => out.extend_from_slice(b"\\ufffd"),
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}
