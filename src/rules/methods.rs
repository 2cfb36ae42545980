//! Methods that values have: those of Go's `time.Time`, `time.Duration`, `time.Month`, `time.Weekday` and
//! `*time.Location`, as far as they return one value a rule can use.

use super::types::{Method, Param, Ty};

const fn method(name: &'static str, params: &'static [Param], result: Param) -> Method {
    Method { name, params, result }
}

use Param::{Bool, Duration, Float, Int, Location, Month, Str, Time, Weekday};

static TIME: [Method; 32] = [
    method("Year", &[], Int),
    method("Month", &[], Month),
    method("Day", &[], Int),
    method("Hour", &[], Int),
    method("Minute", &[], Int),
    method("Second", &[], Int),
    method("Nanosecond", &[], Int),
    method("YearDay", &[], Int),
    method("Weekday", &[], Weekday),
    method("ISOWeek", &[], Int),
    method("Unix", &[], Int),
    method("UnixMilli", &[], Int),
    method("UnixMicro", &[], Int),
    method("UnixNano", &[], Int),
    method("Format", &[Str], Str),
    method("String", &[], Str),
    method("Add", &[Duration], Time),
    method("Sub", &[Time], Duration),
    method("AddDate", &[Int, Int, Int], Time),
    method("Before", &[Time], Bool),
    method("After", &[Time], Bool),
    method("Equal", &[Time], Bool),
    method("Compare", &[Time], Int),
    method("IsZero", &[], Bool),
    method("IsDST", &[], Bool),
    method("Truncate", &[Duration], Time),
    method("Round", &[Duration], Time),
    method("UTC", &[], Time),
    method("Local", &[], Time),
    method("In", &[Location], Time),
    method("Location", &[], Location),
    method("Zone", &[], Str),
];

static DURATION: [Method; 10] = [
    method("Hours", &[], Float),
    method("Minutes", &[], Float),
    method("Seconds", &[], Float),
    method("Milliseconds", &[], Int),
    method("Microseconds", &[], Int),
    method("Nanoseconds", &[], Int),
    method("String", &[], Str),
    method("Abs", &[], Duration),
    method("Round", &[Duration], Duration),
    method("Truncate", &[Duration], Duration),
];

/// `String()`.
pub(crate) const STRING: Method = method("String", &[], Str);

static STRING_ONLY: [Method; 1] = [STRING];

/// The methods of a type.
pub(crate) fn of(ty: &Ty) -> &'static [Method] {
    match ty {
        Ty::Time => &TIME,
        Ty::Duration => &DURATION,
        Ty::Month | Ty::Weekday | Ty::Location => &STRING_ONLY,
        Ty::Struct(def) if def.shown_as.is_some() => &STRING_ONLY,
        _ => &[],
    }
}

/// A method by name.
pub(crate) fn find(ty: &Ty, name: &str) -> Option<Method> {
    of(ty).iter().find(|method| method.name == name).copied()
}
