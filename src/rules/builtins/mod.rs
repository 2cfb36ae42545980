//! Builtin functions without predicate, as `builtin/builtin.go` and `builtin/lib.go` of expr-lang/expr 1.17 define them.

mod arrays;
mod convert;
pub(crate) mod json;
pub(crate) mod show;
pub(crate) mod strings;
mod times;

use super::code::Ex;
use super::eval::{Scope, Vm};
use super::numbers;
use super::types::Slice;
use super::value::{Evaluated, Fault, Value, fault};

impl<'a> Vm<'a> {
    /// Calls a builtin by name; the checker has seen to the number of arguments where their types are known.
    pub(crate) fn builtin(&self, name: &'static str, args: &'a [Ex], scope: &Scope<'a>) -> Evaluated<'a> {
        let args = self.eval_all(args, scope)?;
        let arg = |index: usize| args.get(index).copied().unwrap_or(Value::Nil);
        // As Go: where a call is not checked, functions of one argument take the last one.
        let only = args.last().copied().unwrap_or(Value::Nil);
        match name {
            "len" => self.len(only),
            "type" => self.type_of(only),
            "abs" | "ceil" | "floor" | "round" => self.rounded(name, only),
            "int" => self.to_integer(only),
            "float" => self.to_float_number(only),
            "string" => self.shown(only),
            "trim" | "trimPrefix" | "trimSuffix" | "upper" | "lower" | "split" | "splitAfter" | "replace"
            | "repeat" | "join" | "indexOf" | "lastIndexOf" | "hasPrefix" | "hasSuffix" => {
                self.string_builtin(name, args)
            }
            "max" | "min" => self.extreme(name, args),
            "mean" => self.mean(args),
            "median" => self.median(args),
            "toJSON" => self.to_json(arg(0)),
            "fromJSON" => self.parsed_json(arg(0)),
            "toBase64" => self.to_base64(arg(0)),
            "fromBase64" => self.decoded_base64(arg(0)),
            "now" | "duration" | "date" | "timezone" => self.time_builtin(name, args),
            "bitand" | "bitor" | "bitxor" | "bitnand" | "bitshl" | "bitshr" | "bitushr" => {
                bits(name, arg(0).int()?, arg(1).int()?)
            }
            "bitnot" => Ok(Value::Int(!arg(0).int()?)),
            _ => self.array_builtin(name, args),
        }
    }

    fn len(&self, value: Value<'a>) -> Evaluated<'a> {
        let length = match value {
            Value::Array(array) => array.items.len(),
            Value::Map(map) => map.entries.len(),
            Value::Str(text) => {
                self.step(text.len() / 64)?;
                strings::rune_count(text)
            }
            other => return Err(wrong("len", other)),
        };
        Ok(Value::Int(length as i64))
    }

    fn type_of(&self, value: Value<'a>) -> Evaluated<'a> {
        let name = match value {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::U8(_) => "uint",
            Value::Float(_) => "float",
            Value::Str(_) => "string",
            Value::Array(_) => "array",
            Value::Map(_) => "map",
            Value::Struct(value) => value.def.name.as_deref().unwrap_or("struct"),
            Value::Time(_) => "time.Time",
            Value::Duration(_) => "time.Duration",
            Value::Month(_) => "time.Month",
            Value::Weekday(_) => "time.Weekday",
            Value::Location(_) => "time.Location",
            Value::Method(_) => "func",
        };
        Ok(Value::Str(name.as_bytes()))
    }

    fn rounded(&self, name: &str, value: Value<'a>) -> Evaluated<'a> {
        Ok(match (name, value) {
            ("abs", Value::Int(value)) => Value::Int(value.wrapping_abs()),
            ("abs", Value::U8(value)) => Value::U8(value),
            // Go leaves the sign of negative zero alone here.
            ("abs", Value::Float(value)) => Value::Float(if value < 0.0 { -value } else { value }),
            (_, Value::Int(value)) => Value::Float(value as f64),
            (_, Value::U8(value)) => Value::Float(f64::from(value)),
            ("ceil", Value::Float(value)) => Value::Float(value.ceil()),
            ("floor", Value::Float(value)) => Value::Float(value.floor()),
            (_, Value::Float(value)) => Value::Float(numbers::round(value)),
            (_, other) => return Err(wrong(name, other)),
        })
    }
}

fn bits(name: &str, x: i64, y: i64) -> Evaluated<'static> {
    let shift = || u32::try_from(y.min(64)).map_err(|_| fault(format!("a shift by {y}, which is negative")));
    Ok(Value::Int(match name {
        "bitand" => x & y,
        "bitor" => x | y,
        "bitxor" => x ^ y,
        "bitnand" => x & !y,
        "bitshl" => x.checked_shl(shift()?).unwrap_or(0),
        "bitshr" => x >> shift()?.min(63),
        _ => (x as u64).checked_shr(shift()?).unwrap_or(0) as i64,
    }))
}

/// An argument that the function is not defined on.
pub(crate) fn wrong(name: &str, value: Value<'_>) -> Fault {
    fault(format!("`{name}` is not defined on {}", value.type_name()))
}

/// Go slice types whose elements the checker and the builtins know as plain.
pub(crate) fn is_sortable(slice: &Slice) -> bool {
    matches!(slice, Slice::Any | Slice::Int | Slice::Float | Slice::Str)
}
