//! Operators on values, as Go's `vm/runtime` of expr-lang/expr 1.17 defines them.

use std::cmp::Ordering;

use super::ast::BinaryOp;
use super::eval::Vm;
use super::numbers;
use super::types::{MapTy, Slice};
use super::value::{Array, Evaluated, Fault, Items, Map, Pair, Time, Value, fault, pair};

impl<'a> Vm<'a> {
    /// `==`: numbers across types, arrays element by element, everything else only with its own type.
    pub(crate) fn equal(&self, a: Value<'a>, b: Value<'a>) -> Result<bool, Fault> {
        self.step(1)?;
        if let Some(pair) = pair(a, b) {
            return Ok(match pair {
                Pair::Ints(a, b) => a == b,
                Pair::Floats(a, b) => a == b,
            });
        }
        match (a, b) {
            (Value::Str(a), Value::Str(b)) => Ok(a == b),
            (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
            (Value::Time(a), Value::Time(b)) => Ok(a.compare(b) == Ordering::Equal),
            (Value::Duration(a), Value::Duration(b)) => Ok(a == b),
            (Value::Array(a), Value::Array(b)) => self.equal_arrays(a, b),
            _ if a.is_nil() && b.is_nil() => Ok(true),
            _ => self.same(a, b),
        }
    }

    fn equal_arrays(&self, a: &'a Array<'a>, b: &'a Array<'a>) -> Result<bool, Fault> {
        let plain = |slice: &Slice| matches!(slice, Slice::Str | Slice::Int | Slice::Float | Slice::Bytes);
        let tolerant = match (&a.slice, &b.slice) {
            (Slice::Any, Slice::Any) => true,
            (Slice::Any, other) | (other, Slice::Any) => plain(other),
            (a, b) => plain(a) && a.same(b),
        };
        if !tolerant {
            return if a.nil && b.nil { Ok(true) } else { self.same_arrays(a, b) };
        }
        if a.items.len() != b.items.len() {
            return Ok(false);
        }
        let _deeper = self.deeper()?;
        for (a, b) in a.items.iter().zip(b.items.iter()) {
            if !self.equal(a, b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Go's `reflect.DeepEqual`: the same type all the way down.
    pub(crate) fn same(&self, a: Value<'a>, b: Value<'a>) -> Result<bool, Fault> {
        self.step(1)?;
        match (a, b) {
            (Value::Nil, Value::Nil) => Ok(true),
            (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
            (Value::Int(a), Value::Int(b)) => Ok(a == b),
            (Value::U8(a), Value::U8(b)) => Ok(a == b),
            (Value::Float(a), Value::Float(b)) => Ok(a == b),
            (Value::Str(a), Value::Str(b)) => Ok(a == b),
            (Value::Duration(a), Value::Duration(b)) => Ok(a == b),
            (Value::Month(a), Value::Month(b)) | (Value::Weekday(a), Value::Weekday(b)) => Ok(a == b),
            (Value::Time(a), Value::Time(b)) => Ok(a.compare(b) == Ordering::Equal),
            (Value::Location(a), Value::Location(b)) => Ok(a == b),
            (Value::Array(a), Value::Array(b)) => self.same_arrays(a, b),
            (Value::Map(a), Value::Map(b)) => self.same_maps(a, b),
            (Value::Struct(a), Value::Struct(b)) => {
                if !std::ptr::eq(a.def, b.def) || a.pointer != b.pointer {
                    return Ok(false);
                }
                let _deeper = self.deeper()?;
                for index in 0..a.def.fields.len() {
                    if !self.same(self.field(a, index)?, self.field(b, index)?)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn same_arrays(&self, a: &'a Array<'a>, b: &'a Array<'a>) -> Result<bool, Fault> {
        if !a.slice.same(&b.slice) || a.nil != b.nil || a.items.len() != b.items.len() {
            return Ok(false);
        }
        let _deeper = self.deeper()?;
        for (a, b) in a.items.iter().zip(b.items.iter()) {
            if !self.same(a, b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn same_maps(&self, a: &'a Map<'a>, b: &'a Map<'a>) -> Result<bool, Fault> {
        if !a.ty.same(b.ty) || a.nil != b.nil || a.entries.len() != b.entries.len() {
            return Ok(false);
        }
        let _deeper = self.deeper()?;
        for (key, value) in a.entries {
            match self.lookup(b, *key)? {
                Some(other) if self.same(*value, other)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// `<`, `<=`, `>`, `>=`.
    pub(crate) fn ordered(&self, op: BinaryOp, a: Value<'a>, b: Value<'a>) -> Result<bool, Fault> {
        let order = match (pair(a, b), a, b) {
            (Some(Pair::Ints(a, b)), ..) => Some(a.cmp(&b)),
            (Some(Pair::Floats(a, b)), ..) => a.partial_cmp(&b),
            (None, Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
            (None, Value::Time(a), Value::Time(b)) => Some(a.compare(b)),
            (None, Value::Duration(a), Value::Duration(b)) => Some(a.cmp(&b)),
            _ => return Err(undefined(op.text(), a, b)),
        };
        Ok(match op {
            BinaryOp::Lt => order == Some(Ordering::Less),
            BinaryOp::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            BinaryOp::Gt => order == Some(Ordering::Greater),
            _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        })
    }

    pub(crate) fn less(&self, a: Value<'a>, b: Value<'a>) -> Result<bool, Fault> {
        self.ordered(BinaryOp::Lt, a, b)
    }

    pub(crate) fn arithmetic(&self, op: BinaryOp, a: Value<'a>, b: Value<'a>) -> Evaluated<'a> {
        use BinaryOp::*;
        match op {
            Rem => {
                let (Value::Int(_) | Value::U8(_), Value::Int(_) | Value::U8(_)) = (a, b) else {
                    return Err(undefined(op.text(), a, b));
                };
                return match (a.int()?, b.int()?) {
                    (_, 0) => Err(fault("the remainder of a division by zero")),
                    (a, b) => Ok(Value::Int(a.wrapping_rem(b))),
                };
            }
            Pow => return Ok(Value::Float(numbers::pow(a.to_float()?, b.to_float()?))),
            _ => {}
        }
        if let Some(pair) = pair(a, b) {
            return Ok(match (op, pair) {
                (Add, Pair::Ints(a, b)) => Value::Int(a.wrapping_add(b)),
                (Sub, Pair::Ints(a, b)) => Value::Int(a.wrapping_sub(b)),
                (Mul, Pair::Ints(a, b)) => Value::Int(a.wrapping_mul(b)),
                (Add, Pair::Floats(a, b)) => Value::Float(a + b),
                (Sub, Pair::Floats(a, b)) => Value::Float(a - b),
                (Mul, Pair::Floats(a, b)) => Value::Float(a * b),
                (_, Pair::Ints(a, b)) => Value::Float(a as f64 / b as f64),
                (_, Pair::Floats(a, b)) => Value::Float(a / b),
            });
        }
        match (op, a, b) {
            (Add, Value::Str(a), Value::Str(b)) => self.concat_bytes(a, b).map(Value::Str),
            (Add, Value::Time(t), Value::Duration(d)) | (Add, Value::Duration(d), Value::Time(t)) => {
                Ok(Value::Time(self.bump.alloc(add(t, d))))
            }
            (Sub, Value::Time(t), Value::Duration(d)) => {
                Ok(Value::Time(self.bump.alloc(add(t, d.wrapping_neg()))))
            }
            (Sub, Value::Time(a), Value::Time(b)) => Ok(Value::Duration(between(a, b))),
            (Add, Value::Duration(a), Value::Duration(b)) => Ok(Value::Duration(a.wrapping_add(b))),
            (Sub, Value::Duration(a), Value::Duration(b)) => Ok(Value::Duration(a.wrapping_sub(b))),
            (Mul, Value::Duration(a), Value::Duration(b)) => Ok(Value::Duration(a.wrapping_mul(b))),
            // Go computes a duration times a float as a float.
            (Mul, Value::Duration(d), Value::Float(f)) | (Mul, Value::Float(f), Value::Duration(d)) => {
                Ok(Value::Float(d as f64 * f))
            }
            (Mul, Value::Duration(d), n) | (Mul, n, Value::Duration(d)) if n.number().is_some() => {
                Ok(Value::Duration(d.wrapping_mul(n.int()?)))
            }
            _ => Err(undefined(op.text(), a, b)),
        }
    }

    pub(crate) fn negate(&self, value: Value<'a>) -> Evaluated<'a> {
        match value {
            Value::Int(value) => Ok(Value::Int(value.wrapping_neg())),
            Value::Float(value) => Ok(Value::Float(-value)),
            Value::U8(value) => Ok(Value::U8(value.wrapping_neg())),
            other => Err(fault(format!("`-` is not defined on {}", other.type_name()))),
        }
    }

    pub(crate) fn range(&self, from: Value<'a>, to: Value<'a>) -> Evaluated<'a> {
        let (from, to) = (from.to_int()?, to.to_int()?);
        let size = to.wrapping_sub(from).wrapping_add(1).max(0);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.grow(size)?;
        Ok(self.array(Slice::Int, Items::Range(from, size)))
    }

    /// `needle in collection`, for a collection that is known at run time only.
    pub(crate) fn contains(&self, needle: Value<'a>, collection: Value<'a>) -> Result<bool, Fault> {
        match collection {
            Value::Nil => Ok(false),
            Value::Array(array) => {
                for item in array.items.iter() {
                    if self.equal(item, needle)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::Map(map) => Ok(self.lookup(map, needle)?.is_some()),
            Value::Struct(value) => match needle {
                Value::Str(name) => Ok(value.def.fields.iter().any(|field| field.name.as_bytes() == name)),
                other => Err(fault(format!("the name of a field is a string, found {}", other.type_name()))),
            },
            Value::Time(_) if matches!(needle, Value::Str(_)) => Ok(false),
            other => Err(fault(format!("`in` is not defined on {}", other.type_name()))),
        }
    }

    /// The value under a key. Nil stands for the zero key.
    ///
    /// # Errors
    /// A key that the map's type cannot have.
    pub(crate) fn lookup(&self, map: &Map<'a>, key: Value<'a>) -> Result<Option<Value<'a>>, Fault> {
        self.step(1 + map.entries.len() / 8)?;
        let key = match (map.ty, key) {
            (MapTy::AnyAny | MapTy::Groups, key) => {
                self.hashable(key)?;
                key
            }
            (_, Value::Nil) => Value::Str(b""),
            (_, Value::Str(_)) => key,
            (_, other) => {
                return Err(fault(format!("the key of a map is a string, found {}", other.type_name())));
            }
        };
        for (known, value) in map.entries {
            let hit = match (known, key) {
                (Value::Str(a), Value::Str(b)) => *a == b,
                (known, key) => self.same(*known, key)?,
            };
            if hit {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }

    /// # Errors
    /// A value that Go cannot use as a key: arrays, maps, and structs that hold some.
    pub(crate) fn hashable(&self, key: Value<'a>) -> Result<(), Fault> {
        match key {
            Value::Array(array) if !matches!(array.slice, Slice::Pair) => Err(not_key(key)),
            Value::Array(array) => array.items.iter().try_for_each(|item| self.hashable(item)),
            Value::Map(_) | Value::Method(_) => Err(not_key(key)),
            Value::Struct(value) if !value.pointer => {
                (0..value.def.fields.len()).try_for_each(|index| self.hashable(self.field(value, index)?))
            }
            _ => Ok(()),
        }
    }
}

fn not_key(key: Value<'_>) -> Fault {
    fault(format!("{} cannot be a key", key.type_name()))
}

fn undefined(op: &str, a: Value<'_>, b: Value<'_>) -> Fault {
    fault(format!("`{op}` is not defined on {} and {}", a.type_name(), b.type_name()))
}

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// A time moved by nanoseconds. Beyond 64 bits of seconds it stays where it is.
pub(crate) fn add<'a>(time: &Time<'a>, nanos: i64) -> Time<'a> {
    let sum = i64::from(time.nanos) + nanos.rem_euclid(NANOS);
    let seconds = time.seconds.saturating_add(nanos.div_euclid(NANOS)).saturating_add(sum / NANOS);
    Time { seconds, nanos: (sum % NANOS) as u32, zone: time.zone }
}

/// The duration between two times, at most the longest one there is.
pub(crate) fn between(a: &Time<'_>, b: &Time<'_>) -> i64 {
    let seconds = i128::from(a.seconds) - i128::from(b.seconds);
    let nanos = seconds * i128::from(NANOS) + i128::from(a.nanos) - i128::from(b.nanos);
    nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}
