//! Reading the record: slots and JSON text to values. A field that holds another JSON type than the schema says fails;
//! one that is absent or null is the zero value of its type.

use std::sync::Arc;

use super::error::EvalErrorKind;
use super::eval::Vm;
use super::types::{MapTy, Slice, StructDef, Ty};
use super::value::{Evaluated, Fault, Fields, Items, Struct, Value, ZERO_TIME, fault_of};
use crate::record::json::{self, Node};
use crate::record::{Slot, SlotId};

static STR: Ty = Ty::Str;
static JSON: Ty = Ty::Json;

/// A JSON value, its string unescaped.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Missing,
    Bool(bool),
    Number(&'a str),
    Str(&'a str),
    Array(&'a [u8]),
    Object(&'a [u8]),
}

impl<'a> Vm<'a> {
    /// The value of a wanted field.
    pub(crate) fn read_slot(&self, slot: SlotId, ty: &'a Ty) -> Evaluated<'a> {
        let raw = match self.record.slot(slot) {
            Slot::Unreached | Slot::Absent | Slot::Null => Raw::Missing,
            // A path of `record` may lead anywhere; a field of the schema may not.
            Slot::Misplaced if matches!(ty, Ty::Json | Ty::Any | Ty::Unknown) => Raw::Missing,
            Slot::Misplaced => return Err(mistyped("within an object")),
            Slot::Bool(value) => Raw::Bool(value),
            Slot::Number(text) => Raw::Number(text),
            Slot::Str(text) => Raw::Str(text),
            Slot::Json(text) if text.first() == Some(&b'[') => Raw::Array(text),
            Slot::Json(text) => Raw::Object(text),
        };
        self.typed(raw, ty)
    }

    /// A field of a struct by number.
    pub(crate) fn field(&self, value: &Struct<'a>, index: usize) -> Evaluated<'a> {
        let Some(field) = value.def.fields.get(index) else { return Ok(Value::Nil) };
        match value.fields {
            Fields::Zero => self.typed(Raw::Missing, &field.ty),
            Fields::Values(values) => Ok(values.get(index).copied().unwrap_or(Value::Nil)),
            Fields::Json(text) => {
                self.step(1 + text.len() / 256)?;
                let raw = match json::get(text, &field.json) {
                    Some(node) => self.raw(node)?,
                    None => Raw::Missing,
                };
                self.typed(raw, &field.ty)
            }
        }
    }

    fn raw(&self, node: Node<'a>) -> Result<Raw<'a>, Fault> {
        Ok(match node {
            Node::Null => Raw::Missing,
            Node::Bool(value) => Raw::Bool(value),
            Node::Number(text) => Raw::Number(text),
            Node::Str(text) => Raw::Str(self.unescaped(text)?),
            Node::Array(text) => Raw::Array(text),
            Node::Object(text) => Raw::Object(text),
        })
    }

    fn unescaped(&self, text: json::RawStr<'a>) -> Result<&'a str, Fault> {
        if !text.is_escaped()
            && let Ok(plain) = std::str::from_utf8(text.raw())
        {
            return Ok(plain);
        }
        let plain = text.to_cow();
        self.take_bytes(plain.len())?;
        Ok(self.bump.alloc_str(&plain))
    }

    fn typed(&self, raw: Raw<'a>, ty: &'a Ty) -> Evaluated<'a> {
        Ok(match (ty, raw) {
            (Ty::Str, Raw::Str(text)) => Value::Str(text.as_bytes()),
            (Ty::Str, Raw::Missing) => Value::Str(b""),
            (Ty::Bool, Raw::Bool(value)) => Value::Bool(value),
            (Ty::Bool, Raw::Missing) => Value::Bool(false),
            (Ty::Int, Raw::Number(text)) => match json::int(text) {
                Some(value) => Value::Int(value),
                None => return Err(mistyped("an integer of 64 bits")),
            },
            (Ty::Int, Raw::Missing) => Value::Int(0),
            (Ty::Float, Raw::Number(text)) => Value::Float(json::float(text)),
            (Ty::Float, Raw::Missing) => Value::Float(0.0),
            (Ty::Time, Raw::Str(text)) => match super::go_time::parse_rfc3339(text) {
                Some(time) => Value::Time(self.bump.alloc(time)),
                None => return Err(mistyped("a time of RFC 3339")),
            },
            (Ty::Time, Raw::Missing) => Value::Time(&ZERO_TIME),
            (Ty::Array(slice, elem), Raw::Array(text)) => self.typed_array(slice, elem, text)?,
            (Ty::Array(slice, _), Raw::Missing) => self.nil_array(slice.clone()),
            (Ty::Struct(def), Raw::Object(text)) => self.object(def, Fields::Json(text)),
            (Ty::Struct(def), Raw::Missing) => self.object(def, Fields::Zero),
            (Ty::Map(map), Raw::Object(text)) => self.typed_map(*map, text)?,
            (Ty::Map(map), Raw::Missing) => {
                Value::Map(self.bump.alloc(super::value::Map { ty: *map, nil: true, entries: &[] }))
            }
            (Ty::Json | Ty::Any | Ty::Unknown, raw) => self.untyped(raw)?,
            _ => return Err(mistyped("of the type that the schema says")),
        })
    }

    fn object(&self, def: &'a Arc<StructDef>, fields: Fields<'a>) -> Value<'a> {
        Value::Struct(self.bump.alloc(Struct { def, fields, pointer: false }))
    }

    fn typed_array(&self, slice: &Slice, elem: &'a Ty, text: &'a [u8]) -> Evaluated<'a> {
        let _deeper = self.deeper()?;
        self.step(text.len() / 64)?;
        let mut strs = bumpalo::collections::Vec::new_in(self.bump);
        let mut values = bumpalo::collections::Vec::new_in(self.bump);
        for node in json::elements(text) {
            self.take_bytes(size_of::<Value<'_>>())?;
            let raw = self.raw(node)?;
            match (elem, raw) {
                (Ty::Str, Raw::Str(text)) => strs.push(text.as_bytes()),
                (Ty::Str, Raw::Missing) => strs.push(b"".as_slice()),
                (Ty::Str, _) => return Err(mistyped("an array of strings")),
                (elem, raw) => values.push(self.typed(raw, elem)?),
            }
        }
        let items = match elem {
            Ty::Str => Items::Strs(strs.into_bump_slice()),
            _ => Items::Values(values.into_bump_slice()),
        };
        Ok(self.array(slice.clone(), items))
    }

    fn typed_map(&self, ty: MapTy, text: &'a [u8]) -> Evaluated<'a> {
        let _deeper = self.deeper()?;
        self.step(text.len() / 64)?;
        let mut entries: bumpalo::collections::Vec<'_, (Value<'a>, Value<'a>)> =
            bumpalo::collections::Vec::new_in(self.bump);
        for (key, node) in json::members(text) {
            self.take_bytes(2 * size_of::<Value<'_>>())?;
            let key = self.unescaped(key)?.as_bytes();
            let raw = self.raw(node)?;
            let value = match (ty, raw) {
                (MapTy::StrStr, Raw::Str(text)) => Value::Str(text.as_bytes()),
                (MapTy::StrStr, Raw::Missing) => Value::Str(b""),
                (MapTy::StrStrs, Raw::Array(text)) => self.typed_array(&Slice::Str, &STR, text)?,
                (MapTy::StrStrs, Raw::Missing) => self.nil_array(Slice::Str),
                (MapTy::StrStr | MapTy::StrStrs, _) => return Err(mistyped("a map of strings")),
                (_, raw) => self.untyped(raw)?,
            };
            // The last of equal keys wins.
            self.step(entries.len() / 8)?;
            match entries.iter_mut().find(|(known, _)| matches!(known, Value::Str(known) if *known == key)) {
                Some(entry) => entry.1 = value,
                None => entries.push((Value::Str(key), value)),
            }
        }
        Ok(self.map(ty, entries.into_bump_slice()))
    }

    /// Untyped content; numbers are floats, as Go decodes them.
    fn untyped(&self, raw: Raw<'a>) -> Evaluated<'a> {
        Ok(match raw {
            Raw::Missing => Value::Nil,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Number(text) => Value::Float(json::float(text)),
            Raw::Str(text) => Value::Str(text.as_bytes()),
            Raw::Array(text) => self.typed_array(&Slice::Any, &JSON, text)?,
            Raw::Object(text) => self.typed_map(MapTy::StrAny { json: true }, text)?,
        })
    }

    /// JSON text that a rule made (`fromJSON`).
    pub(crate) fn json_value(&self, value: &serde_json::Value) -> Evaluated<'a> {
        let _deeper = self.deeper()?;
        self.take_bytes(2 * size_of::<Value<'_>>())?;
        Ok(match value {
            serde_json::Value::Null => Value::Nil,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => self.text(text)?,
            serde_json::Value::Array(items) => {
                let mut values = bumpalo::collections::Vec::with_capacity_in(items.len(), self.bump);
                for item in items {
                    values.push(self.json_value(item)?);
                }
                self.array(Slice::Any, Items::Values(values.into_bump_slice()))
            }
            serde_json::Value::Object(members) => {
                let mut entries = bumpalo::collections::Vec::with_capacity_in(members.len(), self.bump);
                for (key, member) in members {
                    entries.push((self.text(key)?, self.json_value(member)?));
                }
                self.map(MapTy::StrAny { json: false }, entries.into_bump_slice())
            }
        })
    }
}

#[cold]
fn mistyped(wanted: &str) -> Fault {
    fault_of(EvalErrorKind::MistypedField, format!("the field is not {wanted} in this record"))
}
