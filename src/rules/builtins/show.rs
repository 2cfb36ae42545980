//! Values as text: `string(v)`, which is Go's `%v`, and the typed dump that tests compare.

use super::super::eval::Vm;
use super::super::go_time;
use super::super::numbers;
use super::super::types::Slice;
use super::super::value::{Evaluated, Fault, Value, fault};
use super::strings::replaced;

/// Elements of an array in a typed dump.
const DUMPED_MAX: usize = 200;

impl<'a> Vm<'a> {
    pub(super) fn shown(&self, value: Value<'a>) -> Evaluated<'a> {
        if let Value::Str(_) = value {
            return Ok(value);
        }
        let mut out = Vec::new();
        self.show(value, &mut out)?;
        self.bytes_value(&out)
    }

    /// Appends the value as Go's `%v` shows it.
    pub(crate) fn show(&self, value: Value<'a>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let _deeper = self.deeper()?;
        let before = out.len();
        match value {
            Value::Nil => out.extend_from_slice(b"<nil>"),
            Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Value::U8(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Value::Float(value) => out.extend_from_slice(numbers::format_v(value).as_bytes()),
            Value::Str(text) => out.extend_from_slice(text),
            Value::Array(array) => {
                out.push(b'[');
                for (index, item) in array.items.iter().enumerate() {
                    if index > 0 {
                        out.push(b' ');
                    }
                    self.show(item, out)?;
                }
                out.push(b']');
            }
            Value::Map(map) => {
                out.extend_from_slice(b"map[");
                for (index, (key, value)) in self.by_key(map.entries)?.iter().enumerate() {
                    if index > 0 {
                        out.push(b' ');
                    }
                    self.show(*key, out)?;
                    out.push(b':');
                    self.show(*value, out)?;
                }
                out.push(b']');
            }
            Value::Struct(value) => match &value.def.shown_as {
                Some(text) => out.extend_from_slice(text.as_bytes()),
                None => {
                    out.push(b'{');
                    for index in 0..value.def.shown {
                        if index > 0 {
                            out.push(b' ');
                        }
                        self.show(self.field(value, index)?, out)?;
                    }
                    out.push(b'}');
                }
            },
            Value::Time(time) => out.extend_from_slice(go_time::time_text(time).as_bytes()),
            Value::Duration(value) => out.extend_from_slice(go_time::duration_text(value).as_bytes()),
            Value::Month(month) => out.extend_from_slice(go_time::month_name(month).as_bytes()),
            Value::Weekday(day) => out.extend_from_slice(go_time::weekday_name(day).as_bytes()),
            Value::Location(zone) => out.extend_from_slice(zone.iana_name().unwrap_or("UTC").as_bytes()),
            Value::Method(_) => return Err(fault("a method has no text")),
        }
        self.take_bytes(out.len() - before)
    }

    /// The value with its types, in the form of the conformance rows.
    pub(crate) fn dump(&self, value: Value<'a>) -> Result<serde_json::Value, Fault> {
        use serde_json::json;
        let _deeper = self.deeper()?;
        Ok(match value {
            Value::Nil => json!({"nil": true}),
            Value::Bool(value) => json!({"bool": value}),
            Value::Int(value) => json!({"int": value.to_string()}),
            Value::U8(value) => json!({"int": value.to_string()}),
            Value::Float(value) => json!({"float": numbers::format_g(value)}),
            Value::Str(text) => json!({"str": replaced(text)}),
            Value::Array(array) if matches!(array.slice, Slice::Bytes) => {
                let hex: String = array
                    .items
                    .iter()
                    .filter_map(|item| item.int().ok())
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                json!({"bytes": hex})
            }
            Value::Array(array) => {
                let items: Result<Vec<_>, Fault> =
                    array.items.iter().take(DUMPED_MAX).map(|item| self.dump(item)).collect();
                json!({"arr": items?})
            }
            Value::Map(map) => {
                let mut pairs = Vec::with_capacity(map.entries.len());
                for (key, value) in map.entries {
                    pairs.push(json!([self.dump(*key)?, self.dump(*value)?]));
                }
                pairs.sort_by_cached_key(|pair| pair.get(0).map(ToString::to_string));
                json!({"map": pairs})
            }
            Value::Struct(value) => {
                let mut fields = serde_json::Map::new();
                for (index, field) in value.def.fields.iter().enumerate() {
                    fields.insert(field.name.to_string(), self.dump(self.field(value, index)?)?);
                }
                json!({"struct": fields})
            }
            Value::Time(time) => json!({"time": go_time::rfc3339_utc(time)}),
            Value::Duration(value) => json!({"dur": value.to_string()}),
            Value::Month(value) | Value::Weekday(value) => json!({"int": value.to_string()}),
            Value::Location(_) => json!({"struct": {}}),
            Value::Method(_) => json!({"other": "func"}),
        })
    }
}
