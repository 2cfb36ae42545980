//! Values of a running rule. They borrow from the record, the rule and the arena of the evaluation; copying one is cheap.

use std::cmp::Ordering;

use jiff::tz::TimeZone;

use super::error::{EvalError, EvalErrorKind};
use super::types::{MapTy, Slice, StructDef, Ty};

/// A failure on its way up; boxed, because it is rare and results are passed around a lot.
pub(crate) type Fault = Box<EvalError>;

pub(crate) type Evaluated<'a> = Result<Value<'a>, Fault>;

pub(crate) fn fault(message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Box::new(EvalError { kind: EvalErrorKind::Value, span: 0..0, message: message.into() })
}

pub(crate) fn fault_of(kind: EvalErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Box::new(EvalError { kind, span: 0..0, message: message.into() })
}

/// A value. Strings are bytes: cutting one through a character is allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    U8(u8),
    Float(f64),
    Str(&'a [u8]),
    Array(&'a Array<'a>),
    Map(&'a Map<'a>),
    Struct(&'a Struct<'a>),
    Time(&'a Time<'a>),
    /// Nanoseconds.
    Duration(i64),
    /// From 1.
    Month(u8),
    /// From Sunday, 0.
    Weekday(u8),
    Location(&'a TimeZone),
    /// A method with its receiver.
    Method(&'a (Value<'a>, super::types::Method)),
}

#[derive(Debug)]
pub(crate) struct Array<'a> {
    pub(crate) slice: Slice,
    /// Go's nil slice: equal to nil.
    pub(crate) nil: bool,
    pub(crate) items: Items<'a>,
}

/// Elements, some of them made only when asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Items<'a> {
    Values(&'a [Value<'a>]),
    /// Consecutive integers: the first and how many.
    Range(i64, usize),
    Bytes(&'a [u8]),
    Strs(&'a [&'a [u8]]),
}

#[derive(Debug)]
pub(crate) struct Map<'a> {
    pub(crate) ty: MapTy,
    pub(crate) nil: bool,
    pub(crate) entries: &'a [(Value<'a>, Value<'a>)],
}

#[derive(Debug)]
pub(crate) struct Struct<'a> {
    pub(crate) def: &'a StructDef,
    pub(crate) fields: Fields<'a>,
    /// `$env`, which Go holds by pointer.
    pub(crate) pointer: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fields<'a> {
    /// All of them zero.
    Zero,
    /// The text of a JSON object.
    Json(&'a [u8]),
    Values(&'a [Value<'a>]),
}

/// An instant with the zone it is shown in. Nanoseconds count from the start of the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time<'a> {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
    pub(crate) zone: Zone<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Zone<'a> {
    Utc,
    /// Seconds east of UTC, with the name if the text had one.
    Fixed(i32, Option<&'a str>),
    Named(&'a TimeZone),
}

/// 0001-01-01T00:00:00Z, the zero time of Go, in seconds since 1970.
pub(crate) const ZERO_TIME_SECONDS: i64 = -62_135_596_800;

pub(crate) static ZERO_TIME: Time<'static> = Time { seconds: ZERO_TIME_SECONDS, nanos: 0, zone: Zone::Utc };

impl<'a> Items<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Items::Values(values) => values.len(),
            Items::Range(_, count) => *count,
            Items::Bytes(bytes) => bytes.len(),
            Items::Strs(strs) => strs.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Items::Values(values) => values.get(index).copied(),
            Items::Range(first, count) => {
                (index < *count).then(|| Value::Int(first.wrapping_add(index as i64)))
            }
            Items::Bytes(bytes) => bytes.get(index).map(|byte| Value::U8(*byte)),
            Items::Strs(strs) => strs.get(index).map(|text| Value::Str(text)),
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).map_while(move |index| self.get(index))
    }

    pub(crate) fn slice(&self, from: usize, to: usize) -> Items<'a> {
        match self {
            Items::Values(values) => Items::Values(values.get(from..to).unwrap_or(&[])),
            Items::Range(first, _) => Items::Range(first.wrapping_add(from as i64), to - from),
            Items::Bytes(bytes) => Items::Bytes(bytes.get(from..to).unwrap_or(&[])),
            Items::Strs(strs) => Items::Strs(strs.get(from..to).unwrap_or(&[])),
        }
    }
}

impl<'a> Value<'a> {
    /// Nil of any kind: nil itself, a nil array, a nil map.
    pub(crate) fn is_nil(&self) -> bool {
        match self {
            Value::Nil => true,
            Value::Array(array) => array.nil,
            Value::Map(map) => map.nil,
            _ => false,
        }
    }

    /// The type as messages name it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::U8(_) => "byte",
            Value::Float(_) => "float",
            Value::Str(_) => "string",
            Value::Array(_) => "array",
            Value::Map(_) => "map",
            Value::Struct(_) => "object",
            Value::Time(_) => "time",
            Value::Duration(_) => "duration",
            Value::Month(_) => "month",
            Value::Weekday(_) => "weekday",
            Value::Location(_) => "timezone",
            Value::Method(_) => "method",
        }
    }

    pub(crate) fn bool(self) -> Result<bool, Fault> {
        match self {
            Value::Bool(value) => Ok(value),
            other => Err(fault(format!("wanted a bool, found {}", other.type_name()))),
        }
    }

    pub(crate) fn str(self) -> Result<&'a [u8], Fault> {
        match self {
            Value::Str(value) => Ok(value),
            other => Err(fault(format!("wanted a string, found {}", other.type_name()))),
        }
    }

    /// Go's `runtime.ToInt`: any number, floats cut off.
    pub(crate) fn to_int(self) -> Result<i64, Fault> {
        match self {
            Value::Int(value) => Ok(value),
            Value::U8(value) => Ok(i64::from(value)),
            Value::Float(value) => Ok(super::numbers::float_to_int(value)),
            other => Err(fault(format!("wanted a number, found {}", other.type_name()))),
        }
    }

    /// An integer where floats are refused.
    pub(crate) fn int(self) -> Result<i64, Fault> {
        match self {
            Value::Int(value) => Ok(value),
            Value::U8(value) => Ok(i64::from(value)),
            other => Err(fault(format!("wanted an int, found {}", other.type_name()))),
        }
    }

    pub(crate) fn to_float(self) -> Result<f64, Fault> {
        match self.number() {
            Some(Number::Int(value)) => Ok(value as f64),
            Some(Number::Float(value)) => Ok(value),
            None => Err(fault(format!("wanted a number, found {}", self.type_name()))),
        }
    }

    pub(crate) fn number(self) -> Option<Number> {
        match self {
            Value::Int(value) => Some(Number::Int(value)),
            Value::U8(value) => Some(Number::Int(i64::from(value))),
            Value::Float(value) => Some(Number::Float(value)),
            _ => None,
        }
    }

    /// The static type that the value would have as a method's receiver.
    pub(crate) fn receiver_ty(&self) -> Ty {
        match self {
            Value::Time(_) => Ty::Time,
            Value::Duration(_) => Ty::Duration,
            Value::Month(_) => Ty::Month,
            Value::Weekday(_) => Ty::Weekday,
            Value::Location(_) => Ty::Location,
            _ => Ty::Unknown,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

/// Both as they are computed with: integers, or floats as soon as one is.
pub(crate) enum Pair {
    Ints(i64, i64),
    Floats(f64, f64),
}

pub(crate) fn pair(a: Value<'_>, b: Value<'_>) -> Option<Pair> {
    Some(match (a.number()?, b.number()?) {
        (Number::Int(a), Number::Int(b)) => Pair::Ints(a, b),
        (Number::Int(a), Number::Float(b)) => Pair::Floats(a as f64, b),
        (Number::Float(a), Number::Int(b)) => Pair::Floats(a, b as f64),
        (Number::Float(a), Number::Float(b)) => Pair::Floats(a, b),
    })
}

impl Time<'_> {
    pub(crate) fn compare(&self, other: &Time<'_>) -> Ordering {
        (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos))
    }
}
