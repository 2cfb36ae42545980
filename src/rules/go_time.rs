//! Times as Go's package `time` reads and writes them: civil dates, RFC 3339, durations. Layouts are in `go_layout`.

use super::value::{Time, Zone};

/// Seconds in a day.
pub(crate) const DAY: i64 = 86_400;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

pub(crate) fn month_name(month: u8) -> &'static str {
    MONTHS.get(usize::from(month).wrapping_sub(1)).copied().unwrap_or("")
}

pub(crate) fn weekday_name(day: u8) -> &'static str {
    WEEKDAYS.get(usize::from(day)).copied().unwrap_or("")
}

/// A name's number, from 0, and the length of its text: the whole name or its first three letters, in any case.
pub(crate) fn name_number(text: &[u8], months: bool, whole: bool) -> Option<(u32, usize)> {
    let names: &[&str] = if months { &MONTHS } else { &WEEKDAYS };
    names.iter().enumerate().find_map(|(index, name)| {
        let name = if whole { *name } else { name.get(..3)? };
        let start = text.get(..name.len())?;
        start.eq_ignore_ascii_case(name.as_bytes()).then_some((index as u32, name.len()))
    })
}

/// A date and time of day in some zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// From 1.
    pub(crate) month: u32,
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
    /// From 1.
    pub(crate) year_day: u32,
    /// From Sunday, 0.
    pub(crate) weekday: u32,
    /// Seconds east of UTC.
    pub(crate) offset: i32,
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar (algorithm of Howard Hinnant, `days_from_civil`).
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    // Months outside of 1 to 12 carry into the year.
    let year = year.saturating_add((month - 1).div_euclid(12));
    let month = (month - 1).rem_euclid(12) + 1;
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = (month + 9) % 12;
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era.saturating_mul(146_097).saturating_add(day_of_era - 719_468)
}

/// The date of a day since 1970-01-01: year, month, day.
fn date_of(days: i64) -> (i64, u32, u32) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = (if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 }) as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

pub(crate) fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

pub(crate) fn days_in(month: u32, year: i64) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Zone<'_> {
    /// Seconds east of UTC at an instant, the zone's short name, and whether it is summer time.
    pub(crate) fn at(&self, seconds: i64) -> (i32, String, bool) {
        match self {
            Zone::Utc => (0, "UTC".into(), false),
            Zone::Fixed(offset, name) => (*offset, name.unwrap_or("").into(), false),
            Zone::Named(zone) => match jiff::Timestamp::from_second(seconds) {
                Ok(instant) => {
                    let info = zone.to_offset_info(instant);
                    (info.offset().seconds(), info.abbreviation().into(), info.dst().is_dst())
                }
                Err(_) => (0, "UTC".into(), false),
            },
        }
    }

    /// The instant at which clocks of the zone show `local` (seconds as if it were UTC), as Go's `time.Date` finds it.
    pub(crate) fn instant(&self, local: i64) -> i64 {
        let first = i64::from(self.at(local).0);
        let second = i64::from(self.at(local.saturating_sub(first)).0);
        local.saturating_sub(second)
    }
}

pub(crate) fn civil(time: &Time<'_>) -> Civil {
    let (offset, _, _) = time.zone.at(time.seconds);
    let local = time.seconds.saturating_add(i64::from(offset));
    let day = local.div_euclid(DAY);
    let second_of_day = local.rem_euclid(DAY) as u32;
    let (year, month, day_of_month) = date_of(day);
    Civil {
        year,
        month,
        day: day_of_month,
        hour: second_of_day / 3600,
        minute: second_of_day / 60 % 60,
        second: second_of_day % 60,
        year_day: (day - days(year, 1, 1) + 1) as u32,
        weekday: (day + 4).rem_euclid(7) as u32,
        offset,
    }
}

/// The year of the week that a day lies in (ISO 8601).
pub(crate) fn iso_year(time: &Time<'_>) -> i64 {
    let civil = civil(time);
    // The Thursday of the same week decides.
    let day = days(civil.year, i64::from(civil.month), i64::from(civil.day));
    date_of(day + 3 - (i64::from(civil.weekday) + 6) % 7).0
}

/// Four digits at least, the sign not counted.
pub(crate) fn year_text(year: i64) -> String {
    format!("{}{:04}", if year < 0 { "-" } else { "" }, year.unsigned_abs())
}

fn fraction(nanos: u32) -> String {
    if nanos == 0 {
        return String::new();
    }
    format!(".{nanos:09}").trim_end_matches('0').to_owned()
}

/// `2006-01-02T15:04:05.999999999Z07:00`.
pub(crate) fn rfc3339(time: &Time<'_>) -> String {
    let civil = civil(time);
    let zone = match civil.offset {
        0 => "Z".to_owned(),
        offset => offset_text(offset, ":"),
    };
    format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}{}{zone}",
        year_text(civil.year),
        civil.month,
        civil.day,
        civil.hour,
        civil.minute,
        civil.second,
        fraction(time.nanos)
    )
}

pub(crate) fn rfc3339_utc(time: &Time<'_>) -> String {
    rfc3339(&Time { zone: Zone::Utc, ..*time })
}

pub(crate) fn offset_text(offset: i32, separator: &str) -> String {
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.unsigned_abs() / 60;
    format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
}

/// As Go's `Time.String`: `2006-01-02 15:04:05.999999999 -0700 MST`.
pub(crate) fn time_text(time: &Time<'_>) -> String {
    let civil = civil(time);
    let (offset, name, _) = time.zone.at(time.seconds);
    let shown = offset_text(offset, "");
    let name = if name.is_empty() { shown.clone() } else { name };
    format!(
        "{}-{:02}-{:02} {:02}:{:02}:{:02}{} {shown} {name}",
        year_text(civil.year),
        civil.month,
        civil.day,
        civil.hour,
        civil.minute,
        civil.second,
        fraction(time.nanos)
    )
}

/// As Go reads a time in JSON: RFC 3339 with any fraction, a comma before it too.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Time<'static>> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<u32> {
        let part = bytes.get(from..to)?;
        part.iter()
            .try_fold(0u32, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0')))
    };
    let is = |at: usize, wanted: u8| (bytes.get(at) == Some(&wanted)).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    for (at, wanted) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        is(at, wanted)?;
    }
    let (nanos, end) = parse_fraction(bytes, 19);
    let offset = match bytes.get(end) {
        Some(b'Z') if bytes.len() == end + 1 => 0,
        Some(sign @ (b'+' | b'-')) if bytes.len() == end + 6 => {
            is(end + 3, b':')?;
            let (hours, minutes) = (number(end + 1, end + 3)?, number(end + 4, end + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = (hours * 3600 + minutes * 60) as i32;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let fits = (1..=12).contains(&month) && (1..=days_in(month, i64::from(year))).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let local = days(i64::from(year), i64::from(month), i64::from(day)) * DAY
        + i64::from(hour * 3600 + minute * 60 + second);
    let zone = if offset == 0 { Zone::Utc } else { Zone::Fixed(offset, None) };
    Some(Time { seconds: local - i64::from(offset), nanos, zone })
}

/// A fraction of a second at `at`: its nanoseconds and where it ends. Without one, `at` again.
pub(crate) fn parse_fraction(bytes: &[u8], at: usize) -> (u32, usize) {
    if !matches!(bytes.get(at), Some(b'.' | b',')) || !bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        return (0, at);
    }
    let digits = bytes.iter().skip(at + 1).take_while(|byte| byte.is_ascii_digit());
    let (mut nanos, mut count) = (0u32, 0);
    for digit in digits {
        if count < 9 {
            nanos = nanos * 10 + u32::from(digit - b'0');
        }
        count += 1;
    }
    (nanos * 10u32.pow(9u32.saturating_sub(count)), at + 1 + count as usize)
}

/// As Go's `Duration.String`: `1h2m3.5s`, `1.5ms`, `0s`.
pub(crate) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let small = |unit: u64, name: &str| {
        let fraction = format!("{:0width$}", size % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() || unit == 1 { "" } else { "." };
        let fraction = if unit == 1 { "" } else { fraction };
        format!("{sign}{}{dot}{fraction}{name}", size / unit)
    };
    match size {
        0 => "0s".into(),
        1..1_000 => small(1, "ns"),
        1_000..1_000_000 => small(1_000, "µs"),
        1_000_000..1_000_000_000 => small(1_000_000, "ms"),
        _ => {
            let seconds = size / 1_000_000_000;
            let part = fraction((size % 1_000_000_000) as u32);
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let hours_text = if hours > 0 { format!("{hours}h") } else { String::new() };
            let minutes_text = if seconds >= 60 { format!("{minutes}m") } else { String::new() };
            format!("{sign}{hours_text}{minutes_text}{}{part}s", seconds % 60)
        }
    }
}

/// As Go's `time.ParseDuration`: signed decimal numbers with units, `300ms`, `-1.5h`, `2h45m`; a bare `0`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(digits);
        let (part, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u64 =
            if whole.is_empty() { 0 } else { whole.parse().ok().filter(|whole| *whole <= 1 << 63)? };
        let mut value = whole.checked_mul(unit).filter(|value| *value <= 1 << 63)?;
        if !part.is_empty() {
            // Go computes the fraction in floating point and cuts it off; digits that do not fit are dropped.
            let (mut digits, mut scale) = (0u64, 1.0);
            for digit in part.bytes().map(|digit| u64::from(digit - b'0')) {
                if digits > (i64::MAX as u64) / 10 {
                    break;
                }
                digits = digits * 10 + digit;
                scale *= 10.0;
            }
            let fraction = digits as f64 * (unit as f64 / scale);
            value = value.checked_add(fraction as u64).filter(|value| *value <= 1 << 63)?;
        }
        total = total.checked_add(value).filter(|total| *total <= 1 << 63)?;
        rest = after;
    }
    if negative {
        return Some((total as i64).wrapping_neg());
    }
    i64::try_from(total).ok()
}
