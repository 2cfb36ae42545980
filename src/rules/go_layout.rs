//! Layouts of Go's package `time` (`2006-01-02 15:04:05`): what their parts mean, reading and writing by them.
//! Model: `time/format.go` of Go 1.26.

use super::go_time::{self, Civil, DAY, civil, days_in};
use super::value::{Time, Zone};

/// The layouts that `date()` tries, in order.
pub(crate) const DATE_LAYOUTS: [&str; 7] = [
    "2006-01-02",
    "15:04:05",
    "2006-01-02 15:04:05",
    "2006-01-02T15:04:05Z07:00",
    "02 Jan 06 15:04 MST",
    "Monday, 02-Jan-06 15:04:05 MST",
    "Mon, 02 Jan 2006 15:04:05 MST",
];

/// A part of a layout.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    LongMonth,
    Month,
    NumMonth,
    ZeroMonth,
    LongWeekday,
    Weekday,
    Day,
    UnderDay,
    ZeroDay,
    UnderYearDay,
    ZeroYearDay,
    Hour24,
    Hour12,
    ZeroHour12,
    Minute,
    ZeroMinute,
    Second,
    ZeroSecond,
    LongYear,
    Year,
    UpperPm,
    LowerPm,
    ZoneName,
    /// An offset: `Z` for UTC, a colon, minutes, seconds.
    Offset {
        z: bool,
        colon: bool,
        minutes: bool,
        seconds: bool,
    },
    /// A fraction of so many digits, trailing zeros kept (`0`) or dropped (`9`).
    Fraction {
        separator: u8,
        digits: usize,
        keep: bool,
    },
}

/// Texts of the parts, the longer of two with the same start first.
const PARTS: [(&str, Part); 34] = [
    ("January", Part::LongMonth),
    ("Jan", Part::Month),
    ("Monday", Part::LongWeekday),
    ("Mon", Part::Weekday),
    ("MST", Part::ZoneName),
    ("01", Part::ZeroMonth),
    ("002", Part::ZeroYearDay),
    ("02", Part::ZeroDay),
    ("03", Part::ZeroHour12),
    ("04", Part::ZeroMinute),
    ("05", Part::ZeroSecond),
    ("06", Part::Year),
    ("15", Part::Hour24),
    ("1", Part::NumMonth),
    ("2006", Part::LongYear),
    ("2", Part::Day),
    ("__2", Part::UnderYearDay),
    ("_2006", Part::LongYear),
    ("_2", Part::UnderDay),
    ("3", Part::Hour12),
    ("4", Part::Minute),
    ("5", Part::Second),
    ("PM", Part::UpperPm),
    ("pm", Part::LowerPm),
    ("-07:00:00", Part::Offset { z: false, colon: true, minutes: true, seconds: true }),
    ("-070000", Part::Offset { z: false, colon: false, minutes: true, seconds: true }),
    ("-07:00", Part::Offset { z: false, colon: true, minutes: true, seconds: false }),
    ("-0700", Part::Offset { z: false, colon: false, minutes: true, seconds: false }),
    ("-07", Part::Offset { z: false, colon: false, minutes: false, seconds: false }),
    ("Z07:00:00", Part::Offset { z: true, colon: true, minutes: true, seconds: true }),
    ("Z070000", Part::Offset { z: true, colon: false, minutes: true, seconds: true }),
    ("Z07:00", Part::Offset { z: true, colon: true, minutes: true, seconds: false }),
    ("Z0700", Part::Offset { z: true, colon: false, minutes: true, seconds: false }),
    ("Z07", Part::Offset { z: true, colon: false, minutes: false, seconds: false }),
];

/// The next part of a layout: where it starts, what it is, and where it ends.
fn next_part(layout: &[u8]) -> Option<(usize, Part, usize)> {
    for at in 0..layout.len() {
        let rest = &layout[at..];
        if let Some((end, part)) = fraction_part(layout, at) {
            return Some((at, part, end));
        }
        for (text, part) in &PARTS {
            if !rest.starts_with(text.as_bytes()) {
                continue;
            }
            // "Jan" and "Mon" are no parts inside a word such as "Janet".
            let lower_follows = rest.get(3).is_some_and(u8::is_ascii_lowercase);
            if matches!(part, Part::Month | Part::Weekday) && lower_follows {
                continue;
            }
            if *text == "_2006" {
                return Some((at + 1, Part::LongYear, at + 5));
            }
            return Some((at, *part, at + text.len()));
        }
    }
    None
}

/// `.000`, `,999` and the like, not followed by a further digit.
fn fraction_part(layout: &[u8], at: usize) -> Option<(usize, Part)> {
    let separator = *layout.get(at).filter(|byte| matches!(byte, b'.' | b','))?;
    let kind = *layout.get(at + 1).filter(|byte| matches!(byte, b'0' | b'9'))?;
    let digits = layout[at + 1..].iter().take_while(|byte| **byte == kind).count();
    let end = at + 1 + digits;
    if layout.get(end).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    Some((end, Part::Fraction { separator, digits, keep: kind == b'0' }))
}

/// Writes a time by a layout.
pub(crate) fn format(time: &Time<'_>, layout: &[u8]) -> Vec<u8> {
    let shown = civil(time);
    let (offset, name, _) = time.zone.at(time.seconds);
    let mut out = Vec::with_capacity(layout.len() + 10);
    let mut rest = layout;
    while let Some((start, part, end)) = next_part(rest) {
        out.extend_from_slice(&rest[..start]);
        out.extend_from_slice(written(part, &shown, time.nanos, offset, &name).as_bytes());
        rest = &rest[end..];
    }
    out.extend_from_slice(rest);
    out
}

fn written(part: Part, shown: &Civil, nanos: u32, offset: i32, name: &str) -> String {
    let hour12 = if shown.hour.is_multiple_of(12) { 12 } else { shown.hour % 12 };
    let month = go_time::month_name(shown.month as u8);
    let weekday = go_time::weekday_name(shown.weekday as u8);
    let half = if shown.hour >= 12 { "PM" } else { "AM" };
    match part {
        Part::LongMonth => month.into(),
        Part::Month => month.chars().take(3).collect(),
        Part::NumMonth => shown.month.to_string(),
        Part::ZeroMonth => format!("{:02}", shown.month),
        Part::LongWeekday => weekday.into(),
        Part::Weekday => weekday.chars().take(3).collect(),
        Part::Day => shown.day.to_string(),
        Part::UnderDay => format!("{:>2}", shown.day),
        Part::ZeroDay => format!("{:02}", shown.day),
        Part::UnderYearDay => format!("{:>3}", shown.year_day),
        Part::ZeroYearDay => format!("{:03}", shown.year_day),
        Part::Hour24 => format!("{:02}", shown.hour),
        Part::Hour12 => hour12.to_string(),
        Part::ZeroHour12 => format!("{hour12:02}"),
        Part::Minute => shown.minute.to_string(),
        Part::ZeroMinute => format!("{:02}", shown.minute),
        Part::Second => shown.second.to_string(),
        Part::ZeroSecond => format!("{:02}", shown.second),
        Part::LongYear => go_time::year_text(shown.year),
        Part::Year => format!("{:02}", shown.year.rem_euclid(100)),
        Part::UpperPm => half.into(),
        Part::LowerPm => half.to_lowercase(),
        Part::ZoneName if name.is_empty() => go_time::offset_text(offset, ""),
        Part::ZoneName => name.into(),
        Part::Offset { z: true, .. } if offset == 0 => "Z".into(),
        Part::Offset { colon, minutes, seconds, .. } => {
            let text = go_time::offset_text(offset, if colon { ":" } else { "" });
            let text = if minutes { text } else { text.chars().take(3).collect() };
            let rest = offset.unsigned_abs() % 60;
            match (seconds, colon) {
                (true, true) => format!("{text}:{rest:02}"),
                (true, false) => format!("{text}{rest:02}"),
                _ => text,
            }
        }
        Part::Fraction { separator, digits, keep } => {
            let all = format!("{nanos:09}");
            let cut: String = all.chars().chain(std::iter::repeat('0')).take(digits).collect();
            let cut = if keep { cut.as_str() } else { cut.trim_end_matches('0') };
            if cut.is_empty() { String::new() } else { format!("{}{cut}", separator as char) }
        }
    }
}

#[derive(Default)]
struct Found {
    year: i64,
    month: Option<u32>,
    day: Option<u32>,
    year_day: Option<u32>,
    hour: u32,
    minute: u32,
    second: u32,
    nanos: u32,
    pm: bool,
    am: bool,
    utc: bool,
    offset: Option<i32>,
    name: Option<String>,
}

/// Reads a time by a layout; a time without zone is in `zone`. The name of a zone that is not known is kept by `keep`.
pub(crate) fn parse<'a>(
    layout: &[u8],
    text: &[u8],
    zone: Zone<'a>,
    keep: &dyn Fn(&str) -> &'a str,
) -> Option<Time<'a>> {
    let mut found = Found::default();
    let (mut layout, mut text) = (layout, text);
    loop {
        let next = next_part(layout);
        let start = next.map_or(layout.len(), |(start, ..)| start);
        text = skip(text, &layout[..start])?;
        let Some((_, part, end)) = next else { break };
        layout = &layout[end..];
        text = read(part, text, layout, &mut found)?;
    }
    if !text.is_empty() {
        return None;
    }
    finish(found, zone, keep)
}

/// Skips the literal text of a layout; a run of blanks in it stands for any number of blanks.
fn skip<'t>(mut text: &'t [u8], mut literal: &[u8]) -> Option<&'t [u8]> {
    while let Some(first) = literal.first() {
        if *first == b' ' {
            if text.first().is_some_and(|byte| *byte != b' ') {
                return None;
            }
            literal = literal.trim_ascii_start();
            while text.first() == Some(&b' ') {
                text = &text[1..];
            }
            continue;
        }
        text = text.strip_prefix(std::slice::from_ref(first))?;
        literal = &literal[1..];
    }
    Some(text)
}

/// One or two digits; exactly two where `fixed`.
fn number(text: &[u8], fixed: bool) -> Option<(u32, &[u8])> {
    let digit =
        |at: usize| text.get(at).filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0'));
    match (digit(0)?, digit(1)) {
        (tens, Some(ones)) => Some((tens * 10 + ones, &text[2..])),
        (ones, None) if !fixed => Some((ones, &text[1..])),
        _ => None,
    }
}

fn digits(text: &[u8], count: usize) -> Option<(u32, &[u8])> {
    let part = text.get(..count)?;
    let value = part
        .iter()
        .try_fold(0u32, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0')))?;
    Some((value, &text[count..]))
}

fn read<'t>(part: Part, text: &'t [u8], layout: &[u8], found: &mut Found) -> Option<&'t [u8]> {
    let blank = |text: &'t [u8]| text.strip_prefix(b" ").unwrap_or(text);
    let rest;
    match part {
        Part::LongMonth | Part::Month => {
            let (month, length) = go_time::name_number(text, true, part == Part::LongMonth)?;
            found.month = Some(month + 1);
            rest = &text[length..];
        }
        Part::LongWeekday | Part::Weekday => {
            let (_, length) = go_time::name_number(text, false, part == Part::LongWeekday)?;
            rest = &text[length..];
        }
        Part::NumMonth | Part::ZeroMonth => {
            let (month, after) = number(text, part == Part::ZeroMonth)?;
            found.month = Some(month).filter(|month| (1..=12).contains(month));
            found.month?;
            rest = after;
        }
        Part::Day | Part::UnderDay | Part::ZeroDay => {
            let text = if part == Part::UnderDay { blank(text) } else { text };
            let (day, after) = number(text, part == Part::ZeroDay)?;
            found.day = Some(day);
            rest = after;
        }
        Part::UnderYearDay | Part::ZeroYearDay => {
            let text = if part == Part::UnderYearDay { text.trim_ascii_start() } else { text };
            let length = text.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
            let (day, after) = digits(text, if part == Part::ZeroYearDay { 3 } else { length.max(1) })?;
            found.year_day = Some(day);
            rest = after;
        }
        Part::Hour24 => {
            (found.hour, rest) = number(text, false)?;
            (found.hour < 24).then_some(())?;
        }
        Part::Hour12 | Part::ZeroHour12 => {
            (found.hour, rest) = number(text, part == Part::ZeroHour12)?;
            (found.hour <= 12).then_some(())?;
        }
        Part::Minute | Part::ZeroMinute => {
            (found.minute, rest) = number(text, part == Part::ZeroMinute)?;
            (found.minute < 60).then_some(())?;
        }
        Part::Second | Part::ZeroSecond => {
            let (second, after) = number(text, part == Part::ZeroSecond)?;
            found.second = Some(second).filter(|second| *second < 60)?;
            // A fraction may follow that the layout does not name.
            let named = next_part(layout)
                .is_some_and(|(start, part, _)| start == 0 && matches!(part, Part::Fraction { .. }));
            let (nanos, end) = if named { (0, 0) } else { go_time::parse_fraction(after, 0) };
            found.nanos = if end > 0 { nanos } else { found.nanos };
            rest = &after[end..];
        }
        Part::LongYear => {
            let (year, after) = digits(text, 4)?;
            found.year = i64::from(year);
            rest = after;
        }
        Part::Year => {
            let (year, after) = digits(text, 2)?;
            found.year = i64::from(if year >= 69 { year + 1900 } else { year + 2000 });
            rest = after;
        }
        Part::UpperPm | Part::LowerPm => {
            let half = text.get(..2)?;
            let wanted: [&[u8]; 2] = if part == Part::UpperPm { [b"PM", b"AM"] } else { [b"pm", b"am"] };
            (found.pm, found.am) = (half == wanted[0], half == wanted[1]);
            (found.pm || found.am).then_some(())?;
            rest = &text[2..];
        }
        Part::Fraction { digits: count, keep: true, .. } => {
            let end = count + 1;
            let part = text.get(..end)?;
            let (nanos, read) = go_time::parse_fraction(part, 0);
            (read == end).then_some(())?;
            found.nanos = nanos;
            rest = &text[end..];
        }
        Part::Fraction { .. } => {
            let (nanos, end) = go_time::parse_fraction(text, 0);
            found.nanos = nanos;
            rest = &text[end..];
        }
        Part::Offset { z, colon, minutes, seconds } => {
            rest = read_offset(text, z, colon, minutes, seconds, found)?
        }
        Part::ZoneName => rest = read_zone_name(text, found)?,
    }
    Some(rest)
}

fn read_offset<'t>(
    text: &'t [u8],
    z: bool,
    colon: bool,
    minutes: bool,
    seconds: bool,
    found: &mut Found,
) -> Option<&'t [u8]> {
    if z && let Some(rest) = text.strip_prefix(b"Z") {
        found.utc = true;
        return Some(rest);
    }
    let sign = match text.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, mut rest) = digits(&text[1..], 2)?;
    let mut read = |wanted: bool| -> Option<u32> {
        if !wanted {
            return Some(0);
        }
        if colon {
            rest = rest.strip_prefix(b":")?;
        }
        let value;
        (value, rest) = digits(rest, 2)?;
        Some(value)
    };
    let (minute, second) = (read(minutes)?, read(seconds)?);
    if hours > 24 || minute > 59 || second > 59 {
        return None;
    }
    found.offset = Some(sign * (hours * 3600 + minute * 60 + second) as i32);
    Some(rest)
}

/// Three or four capitals, `GMT+3`, or an offset such as `+03`.
fn read_zone_name<'t>(text: &'t [u8], found: &mut Found) -> Option<&'t [u8]> {
    if let Some(rest) = text.strip_prefix(b"UTC") {
        found.utc = true;
        return Some(rest);
    }
    let signed = |text: &[u8]| -> Option<usize> {
        matches!(text.first(), Some(b'+' | b'-')).then_some(())?;
        let count = text[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value: u32 = std::str::from_utf8(&text[1..=count]).ok()?.parse().ok()?;
        (value <= 23).then_some(count + 1)
    };
    let capitals = text.iter().take(6).take_while(|byte| byte.is_ascii_uppercase()).count();
    let length = if text.starts_with(b"ChST") || text.starts_with(b"MeST") {
        4
    } else if text.starts_with(b"GMT") {
        3 + signed(&text[3..]).unwrap_or(0)
    } else if let Some(length) = signed(text) {
        length
    } else {
        match capitals {
            3 => 3,
            4 if text[3] == b'T' || text.starts_with(b"WITA") => 4,
            5 if text[4] == b'T' => 5,
            _ => return None,
        }
    };
    found.name = Some(String::from_utf8_lossy(&text[..length]).into_owned());
    Some(&text[length..])
}

fn finish<'a>(found: Found, zone: Zone<'a>, keep: &dyn Fn(&str) -> &'a str) -> Option<Time<'a>> {
    let mut hour = found.hour;
    if found.pm && hour < 12 {
        hour += 12;
    } else if found.am && hour == 12 {
        hour = 0;
    }
    let (mut month, mut day) = (found.month, found.day);
    if let Some(year_day) = found.year_day {
        let most = if go_time::is_leap(found.year) { 366 } else { 365 };
        (1..=most).contains(&year_day).then_some(())?;
        let mut left = year_day;
        let mut by_day = 1;
        while left > days_in(by_day, found.year) {
            left -= days_in(by_day, found.year);
            by_day += 1;
        }
        if month.is_some_and(|month| month != by_day) || day.is_some_and(|day| day != left) {
            return None;
        }
        (month, day) = (Some(by_day), Some(left));
    }
    let (month, day) = (month.unwrap_or(1), day.unwrap_or(1));
    (1..=days_in(month, found.year)).contains(&day).then_some(())?;
    let date = go_time::days(found.year, i64::from(month), i64::from(day));
    let local = date * DAY + i64::from(hour * 3600 + found.minute * 60 + found.second);
    let at = |seconds, zone| Some(Time { seconds, nanos: found.nanos, zone });
    if found.utc {
        return at(local, Zone::Utc);
    }
    if let Some(offset) = found.offset {
        let seconds = local - i64::from(offset);
        let (here, name, _) = zone.at(seconds);
        if here == offset && found.name.as_ref().is_none_or(|wanted| *wanted == name) {
            return at(seconds, zone);
        }
        return at(seconds, Zone::Fixed(offset, found.name.as_deref().map(keep)));
    }
    if let Some(name) = &found.name {
        let seconds = zone.instant(local);
        if zone.at(seconds).1 == *name {
            return at(seconds, zone);
        }
        let offset = match name.strip_prefix("GMT") {
            Some(hours) if !hours.is_empty() => hours.parse::<i32>().ok()? * 3600,
            _ => 0,
        };
        // As Go: the time is taken as UTC, and only shown in the zone.
        return at(local, Zone::Fixed(offset, Some(keep(name))));
    }
    at(zone.instant(local), zone)
}
