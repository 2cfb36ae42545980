//! `now`, `date`, `duration`, `timezone`, and the methods of times and durations. The clock is an argument of the evaluation.

use std::cmp::Ordering;
use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::super::eval::Vm;
use super::super::go_layout;
use super::super::go_time::{self, DAY, civil};
use super::super::ops::{add, between};
use super::super::types::Method;
use super::super::value::{Evaluated, Fault, Time, Value, ZERO_TIME_SECONDS, Zone, fault};
use super::wrong;

/// Time zones come with the program: a rule reads no files.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

impl<'a> Vm<'a> {
    pub(super) fn time_builtin(&self, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
        match name {
            "now" => {
                let now = self.now.ok_or_else(|| fault("there is no clock here"))?;
                let zone = match args.first() {
                    Some(Value::Location(zone)) => Zone::Named(zone),
                    _ => Zone::Utc,
                };
                let nanos = now.as_nanosecond();
                let seconds = nanos.div_euclid(i128::from(SECOND)) as i64;
                Ok(self.time(Time { seconds, nanos: nanos.rem_euclid(i128::from(SECOND)) as u32, zone }))
            }
            "duration" => {
                let text = text_of(args.first().copied())?;
                let parsed = go_time::parse_duration(&text);
                parsed
                    .map(Value::Duration)
                    .ok_or_else(|| fault(format!("{text:?} is not a duration such as \"1h30m\"")))
            }
            "timezone" => {
                let zone = zone(&text_of(args.first().copied())?)?;
                Ok(Value::Location(self.alloc_zone(zone)))
            }
            _ => self.date(args),
        }
    }

    /// Zones are counted references inside: the arena never runs their destructors, so the bundled ones are kept for good.
    fn alloc_zone(&self, zone: TimeZone) -> &'a TimeZone {
        self.bump.alloc(zone)
    }

    fn time(&self, time: Time<'a>) -> Value<'a> {
        Value::Time(self.bump.alloc(time))
    }

    fn date(&self, args: &[Value<'a>]) -> Evaluated<'a> {
        let (zone, args) = match args {
            [Value::Location(zone), rest @ ..] => (Zone::Named(zone), rest),
            rest => (Zone::Utc, rest),
        };
        let keep = |name: &str| -> &'a str { self.bump.alloc_str(name) };
        let text = match args.first() {
            Some(text) => text.str()?,
            None => return Err(fault("`date` wants a text")),
        };
        let shown = || String::from_utf8_lossy(text).into_owned();
        let time = match args {
            [_] => go_layout::DATE_LAYOUTS
                .iter()
                .find_map(|layout| go_layout::parse(layout.as_bytes(), text, zone, &keep))
                .ok_or_else(|| fault(format!("{:?} is not a date of a known form", shown())))?,
            [_, layout, name] if !matches!(zone, Zone::Named(_)) || args.len() == 3 => {
                let layout = layout.str()?;
                let zone = Zone::Named(self.alloc_zone(self::zone(&text_of(Some(*name))?)?));
                go_layout::parse(layout, text, zone, &keep).ok_or_else(|| no_layout(&shown(), layout))?
            }
            [_, layout, ..] => {
                let layout = layout.str()?;
                go_layout::parse(layout, text, zone, &keep).ok_or_else(|| no_layout(&shown(), layout))?
            }
            [] => return Err(fault("`date` wants a text")),
        };
        Ok(self.time(time))
    }

    pub(crate) fn call_method(&self, base: Value<'a>, method: Method, args: &[Value<'a>]) -> Evaluated<'a> {
        if args.len() != method.params.len() {
            let message =
                format!("`{}` takes {} arguments, found {}", method.name, method.params.len(), args.len());
            return Err(fault(message));
        }
        match base {
            Value::Time(time) => self.time_method(time, method.name, args),
            Value::Duration(value) => self.duration_method(value, method.name, args),
            Value::Struct(value) if method.name == "String" => match &value.def.shown_as {
                Some(text) => Ok(Value::Str(text.as_bytes())),
                None => Err(wrong(method.name, base)),
            },
            base if method.name == "String" => self.shown(base),
            base => Err(wrong(method.name, base)),
        }
    }

    fn time_method(&self, time: &'a Time<'a>, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
        let arg = |index: usize| args.get(index).copied().unwrap_or(Value::Nil);
        let other = || match arg(0) {
            Value::Time(other) => Ok(other),
            value => Err(wrong(name, value)),
        };
        let duration = || match arg(0) {
            Value::Duration(value) => Ok(value),
            value => Err(wrong(name, value)),
        };
        let moved = |zone| self.time(Time { zone, ..*time });
        let parts = civil(time);
        let int = |value: i64| Ok(Value::Int(value));
        match name {
            "Year" => int(parts.year),
            "Month" => Ok(Value::Month(parts.month as u8)),
            "Day" => int(i64::from(parts.day)),
            "Hour" => int(i64::from(parts.hour)),
            "Minute" => int(i64::from(parts.minute)),
            "Second" => int(i64::from(parts.second)),
            "Nanosecond" => int(i64::from(time.nanos)),
            "YearDay" => int(i64::from(parts.year_day)),
            "Weekday" => Ok(Value::Weekday(parts.weekday as u8)),
            "ISOWeek" => int(go_time::iso_year(time)),
            "Unix" => int(time.seconds),
            "UnixMilli" => {
                int(time.seconds.wrapping_mul(1_000).wrapping_add(i64::from(time.nanos / 1_000_000)))
            }
            "UnixMicro" => {
                int(time.seconds.wrapping_mul(1_000_000).wrapping_add(i64::from(time.nanos / 1_000)))
            }
            "UnixNano" => int(time.seconds.wrapping_mul(SECOND).wrapping_add(i64::from(time.nanos))),
            "Format" => {
                let layout = arg(0).str()?;
                self.step(layout.len())?;
                self.bytes_value(&go_layout::format(time, layout))
            }
            "String" => self.text(&go_time::time_text(time)),
            "Add" => Ok(self.time(add(time, duration()?))),
            "Sub" => Ok(Value::Duration(between(time, other()?))),
            "AddDate" => {
                let clamp = |value: i64| value.clamp(-1_000_000, 1_000_000);
                let (years, months, days) =
                    (clamp(arg(0).int()?), clamp(arg(1).int()?), clamp(arg(2).int()?));
                let day = go_time::days(
                    parts.year + years,
                    i64::from(parts.month) + months,
                    i64::from(parts.day) + days,
                );
                let local = day * DAY + i64::from(parts.hour * 3600 + parts.minute * 60 + parts.second);
                Ok(self.time(Time { seconds: time.zone.instant(local), ..*time }))
            }
            "Before" => Ok(Value::Bool(time.compare(other()?) == Ordering::Less)),
            "After" => Ok(Value::Bool(time.compare(other()?) == Ordering::Greater)),
            "Equal" => Ok(Value::Bool(time.compare(other()?) == Ordering::Equal)),
            "Compare" => int(time.compare(other()?) as i64),
            "IsZero" => Ok(Value::Bool(time.seconds == ZERO_TIME_SECONDS && time.nanos == 0)),
            "IsDST" => Ok(Value::Bool(time.zone.at(time.seconds).2)),
            "Truncate" | "Round" => Ok(self.time(cut(time, duration()?, name == "Round"))),
            // The local zone of the server is UTC for rules.
            "UTC" | "Local" => Ok(moved(Zone::Utc)),
            "In" => match arg(0) {
                Value::Location(zone) => Ok(moved(Zone::Named(zone))),
                value => Err(wrong(name, value)),
            },
            "Location" => match time.zone {
                Zone::Named(zone) => Ok(Value::Location(zone)),
                Zone::Utc => Ok(Value::Location(&UTC)),
                Zone::Fixed(offset, _) => {
                    let offset = jiff::tz::Offset::from_seconds(offset).unwrap_or(jiff::tz::Offset::UTC);
                    Ok(Value::Location(self.alloc_zone(TimeZone::fixed(offset))))
                }
            },
            "Zone" => self.text(&time.zone.at(time.seconds).1),
            _ => Err(fault(format!("`{name}` is not supported yet"))),
        }
    }

    fn duration_method(&self, value: i64, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
        // As Go: whole units and the rest are converted apart, for the last bit's sake.
        let float = |unit: i64| Ok(Value::Float((value / unit) as f64 + (value % unit) as f64 / unit as f64));
        let step = || match args.first() {
            Some(Value::Duration(step)) => Ok(*step),
            other => Err(wrong(name, other.copied().unwrap_or(Value::Nil))),
        };
        match name {
            "Hours" => float(3600 * SECOND),
            "Minutes" => float(60 * SECOND),
            "Seconds" => float(SECOND),
            "Milliseconds" => Ok(Value::Int(value / 1_000_000)),
            "Microseconds" => Ok(Value::Int(value / 1_000)),
            "Nanoseconds" => Ok(Value::Int(value)),
            "String" => self.text(&go_time::duration_text(value)),
            "Abs" => Ok(Value::Duration(value.checked_abs().unwrap_or(i64::MAX))),
            "Truncate" => Ok(Value::Duration(match step()? {
                step if step <= 0 => value,
                step => value - value % step,
            })),
            "Round" => Ok(Value::Duration(rounded(value, step()?))),
            _ => Err(fault(format!("`{name}` is not supported yet"))),
        }
    }
}

static UTC: TimeZone = TimeZone::UTC;

/// To the nearest multiple, halves away from zero.
fn rounded(value: i64, step: i64) -> i64 {
    if step <= 0 {
        return value;
    }
    let rest = value % step;
    let away = rest.unsigned_abs() >= step.unsigned_abs() - rest.unsigned_abs();
    let down = value - rest;
    let step = if value < 0 { -step } else { step };
    if away { down.checked_add(step).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX }) } else { down }
}

/// Down to a multiple of `step` since the zero time, or to the nearest one.
fn cut<'a>(time: &Time<'a>, step: i64, nearest: bool) -> Time<'a> {
    if step <= 0 {
        return *time;
    }
    let since = (i128::from(time.seconds) - i128::from(ZERO_TIME_SECONDS)) * i128::from(SECOND)
        + i128::from(time.nanos);
    let rest = since.rem_euclid(i128::from(step)) as i64;
    if nearest && rest >= step - rest { add(time, step - rest) } else { add(time, -rest) }
}

fn text_of(value: Option<Value<'_>>) -> Result<String, Fault> {
    let text = value.unwrap_or(Value::Nil).str()?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn no_layout(text: &str, layout: &[u8]) -> Fault {
    fault(format!("{text:?} does not fit the layout {:?}", String::from_utf8_lossy(layout)))
}

fn zone(name: &str) -> Result<TimeZone, Fault> {
    if matches!(name, "" | "UTC" | "Local") {
        return Ok(TimeZone::UTC);
    }
    ZONES.get(name).map_err(|_| fault(format!("there is no time zone {name:?}")))
}
