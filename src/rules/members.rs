//! Members, slices, and values that come from the rule or the environment instead of the record.

use super::ast::Literal;
use super::code::{Ex, Key, Member};
use super::env::{Constant, EnvKind, Environment};
use super::eval::{Scope, Vm, literal};
use super::methods;
use super::types::{MapTy, Slice};
use super::value::{Array, Evaluated, Fault, Fields, Items, Struct, Value, fault};

impl<'a> Vm<'a> {
    pub(crate) fn constants(&self, values: &'a [Literal]) -> Evaluated<'a> {
        self.take_bytes(std::mem::size_of::<Value<'_>>() * values.len())?;
        let values = self.bump.alloc_slice_fill_iter(values.iter().map(literal));
        Ok(self.array(Slice::Any, Items::Values(values)))
    }

    pub(crate) fn in_literals(&self, needle: Value<'a>, values: &'a [Literal]) -> Evaluated<'a> {
        for value in values {
            if self.equal(literal(value), needle)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }

    pub(crate) fn environment(&self, env: &'a Environment) -> Evaluated<'a> {
        match &*env.kind {
            EnvKind::Audit(def) => {
                let fields = Fields::Json(self.record.bytes());
                Ok(Value::Struct(self.bump.alloc(Struct { def, fields, pointer: true })))
            }
            EnvKind::Constants(values) => {
                let mut entries = bumpalo::collections::Vec::with_capacity_in(values.len(), self.bump);
                for (name, value) in values {
                    entries.push((Value::Str(name.as_bytes()), self.constant(value)?));
                }
                Ok(self.map(MapTy::StrAny { json: false }, entries.into_bump_slice()))
            }
        }
    }

    pub(crate) fn constant_of(&self, env: &'a Environment, index: usize) -> Evaluated<'a> {
        match &*env.kind {
            EnvKind::Constants(values) => {
                values.get(index).map_or(Ok(Value::Nil), |(_, value)| self.constant(value))
            }
            EnvKind::Audit(_) => Ok(Value::Nil),
        }
    }

    fn constant(&self, value: &'a Constant) -> Evaluated<'a> {
        Ok(match value {
            Constant::Nil => Value::Nil,
            Constant::Bool(value) => Value::Bool(*value),
            Constant::Int(value) => Value::Int(*value),
            Constant::Float(value) => Value::Float(*value),
            Constant::Str(value) => Value::Str(value.as_bytes()),
            Constant::Ints(values) => {
                let values = self.bump.alloc_slice_fill_iter(values.iter().map(|value| Value::Int(*value)));
                self.array(Slice::Int, Items::Values(values))
            }
            Constant::Struct(def, fields) => {
                let fields = Fields::Values(self.constant_slice(fields)?);
                Value::Struct(self.bump.alloc(Struct { def, fields, pointer: false }))
            }
            Constant::Structs(def, values) => {
                let values = self.constant_slice(values)?;
                self.array(Slice::Struct(def.clone()), Items::Values(values))
            }
        })
    }

    fn constant_slice(&self, values: &'a [Constant]) -> Result<&'a [Value<'a>], Fault> {
        let mut made = bumpalo::collections::Vec::with_capacity_in(values.len(), self.bump);
        for value in values {
            made.push(self.constant(value)?);
        }
        Ok(made.into_bump_slice())
    }

    pub(crate) fn member(&self, member: &'a Member, scope: &Scope<'a>) -> Evaluated<'a> {
        let base = self.eval(&member.base, scope)?;
        if self.broken.get() {
            return Ok(Value::Nil);
        }
        if base.is_nil() && member.optional {
            self.broken.set(true);
            return Ok(Value::Nil);
        }
        match &member.key {
            Key::Field(index) => match base {
                Value::Struct(value) => self.field(value, *index),
                other => Err(fault(format!("{} has no fields", other.type_name()))),
            },
            Key::Name(name) => self.fetch(base, Value::Str(name.as_bytes()), member.json),
            Key::Value(key) => {
                let key = self.eval(key, scope)?;
                self.fetch(base, key, member.json)
            }
        }
    }

    /// A member by a key that is known at run time.
    pub(crate) fn fetch(&self, base: Value<'a>, key: Value<'a>, json: bool) -> Evaluated<'a> {
        if let Value::Str(name) = key
            && let Some(method) = self.method_of(base, name)
        {
            return Ok(method);
        }
        let lenient = json && matches!(key, Value::Str(_));
        match base {
            Value::Array(array) if !lenient => {
                let index = key.to_int()?;
                let length = array.items.len();
                let at = if index < 0 { index.wrapping_add(length as i64) } else { index };
                usize::try_from(at).ok().and_then(|at| array.items.get(at)).ok_or_else(|| {
                    fault(format!("index {index} is out of range: the array has {length} elements"))
                })
            }
            Value::Str(text) if !lenient => {
                let index = key.to_int()?;
                let at = if index < 0 { index.wrapping_add(text.len() as i64) } else { index };
                let byte = usize::try_from(at).ok().and_then(|at| text.get(at));
                byte.map(|byte| Value::U8(*byte))
                    .ok_or_else(|| fault(format!("index {index} is out of range")))
            }
            Value::Map(map) => match self.lookup(map, key)? {
                Some(value) => Ok(value),
                None => Ok(match map.ty {
                    MapTy::StrStr => Value::Str(b""),
                    MapTy::StrStrs => self.nil_array(Slice::Str),
                    MapTy::Groups => self.nil_array(Slice::Any),
                    _ => Value::Nil,
                }),
            },
            Value::Struct(value) => {
                let name = key.str()?;
                let index = value.def.fields.iter().position(|field| field.name.as_bytes() == name);
                match index {
                    Some(index) => self.field(value, index),
                    None => Err(fault(format!("there is no field {:?}", String::from_utf8_lossy(name)))),
                }
            }
            _ if json => Ok(Value::Nil),
            other => Err(fault(format!("{} has no members", other.type_name()))),
        }
    }

    pub(crate) fn method_of(&self, base: Value<'a>, name: &[u8]) -> Option<Value<'a>> {
        let name = std::str::from_utf8(name).ok()?;
        let method = match base {
            Value::Struct(value) if value.def.shown_as.is_some() && name == "String" => methods::STRING,
            Value::Struct(_) => return None,
            base => methods::find(&base.receiver_ty(), name)?,
        };
        Some(Value::Method(self.bump.alloc((base, method))))
    }

    pub(crate) fn slice(&self, parts: &'a [Option<Ex>; 3], scope: &Scope<'a>) -> Evaluated<'a> {
        let [Some(base), from, to] = parts else { return Ok(Value::Nil) };
        let base = self.eval(base, scope)?;
        let length = match base {
            Value::Array(array) => array.items.len(),
            Value::Str(text) => text.len(),
            other => return Err(fault(format!("{} cannot be cut", other.type_name()))),
        };
        // As Go: the upper bound is evaluated first.
        let to = match to {
            Some(ex) => self.eval(ex, scope)?.to_int()?,
            None => length as i64,
        };
        let from = match from {
            Some(ex) => self.eval(ex, scope)?.to_int()?,
            None => 0,
        };
        let clamp = |at: i64| if at < 0 { at.wrapping_add(length as i64).max(0) } else { at };
        let to = usize::try_from(clamp(to)).unwrap_or(usize::MAX).min(length);
        let from = usize::try_from(clamp(from)).unwrap_or(usize::MAX).min(to);
        Ok(match base {
            Value::Array(array) => Value::Array(self.bump.alloc(Array {
                slice: array.slice.clone(),
                nil: array.nil,
                items: array.items.slice(from, to),
            })),
            Value::Str(text) => Value::Str(text.get(from..to).unwrap_or(b"")),
            other => other,
        })
    }
}
