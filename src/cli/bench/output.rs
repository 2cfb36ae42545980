//! The report as text for people and as JSON for programs.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::chart;
use super::report::{Report, per_second};
use crate::text::grouped;

/// The percentiles that are told.
const PERCENTILES: [(f64, &str); 5] =
    [(50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9"), (99.99, "p99.99")];
const MIB: f64 = 1_048_576.0;

/// A text from outside, without what could rewrite a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// Nanoseconds in the unit that suits them, with three digits.
#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    // What rounding would make four digits of keeps its unit.
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

/// A part of a whole, 0 of nothing.
#[allow(clippy::cast_precision_loss, reason = "shown with few digits")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and far below the limit"
)]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

/// The line that is drawn while the run goes on: records sent and time, now and when it was last drawn.
pub(super) fn progress(
    now: (u64, Duration),
    last: (u64, Duration),
    duration: Duration,
    failed: u64,
) -> String {
    let per_s = per_second(now.0.saturating_sub(last.0), now.1.saturating_sub(last.1));
    let failed = if failed > 0 { format!(", {} failed", grouped(failed)) } else { String::new() };
    let (elapsed, duration) = (now.1.as_secs_f64(), duration.as_secs_f64());
    format!("{elapsed:.1} of {duration:.1} s, {} sent, {}/s{failed}", grouped(now.0), grouped(rounded(per_s)))
}

fn percentiles(histogram: &Histogram<u64>) -> String {
    let parts =
        PERCENTILES.map(|(percent, name)| format!("{name} {}", time(histogram.value_at_percentile(percent))));
    format!("{}, max {}", parts.join(", "), time(histogram.max()))
}

/// The report for people.
pub(super) fn text(report: &Report) -> String {
    let (asked, outcome) = (&report.asked, &report.outcome);
    let books = &outcome.books;
    let mut text = head(report);
    let mut line = |name: &str, value: &str| text += &format!("{name:<12} {value}\n");
    line("sent", &sent(report));
    if asked.is_answered {
        line("answers", &counts(books.statuses.iter().map(|(status, n)| (status.to_string(), *n))));
    }
    line("errors", &counts(books.errors.iter().map(|(kind, n)| ((*kind).to_owned(), *n))));
    line("receiver", &receiver(report));
    if let Some((cpu, how)) = &report.receiver_cpu {
        let memory = report
            .resident_bytes
            .map_or_else(String::new, |bytes| format!("; {:.1} MiB resident", ratio(bytes, 1 << 20)));
        line(
            "",
            &format!("{} of processor time a record ({how}){memory}", per_record(*cpu, report.received())),
        );
    }
    line("generator", &format!("{} of processor time a record", per_record(outcome.cpu, outcome.sent)));
    if books.latency.is_empty() {
        line("latency", "nothing was measured");
    } else {
        line("latency", &percentiles(&books.latency));
        if !books.late.is_empty() {
            line("of which", &format!("{} before the sending", percentiles(&books.late)));
        }
    }
    text += &chart::lines(&chart::rows(&books.latency));
    for note in report.notes() {
        text += &format!("note: {note}\n");
    }
    text
}

fn head(report: &Report) -> String {
    let (asked, source) = (&report.asked, &report.source);
    let rate = match asked.rate_per_s {
        0 => "as fast as it goes".to_owned(),
        rate => format!("{}/s", grouped(rate)),
    };
    let number = grouped(source.records as u64);
    let records = match &source.file {
        None => format!("{number} built-in records"),
        Some(file) => format!("{number} records from {file}"),
    };
    let mean = grouped((source.bytes / (source.records + source.too_long).max(1)) as u64);
    format!(
        "{} {}: {rate} for {} s over {} connection{}; {records}, {mean} bytes each in the mean\n",
        asked.kind,
        asked.address,
        asked.duration.as_secs_f64(),
        asked.connections,
        if asked.connections == 1 { "" } else { "s" },
    )
}

fn sent(report: &Report) -> String {
    let outcome = &report.outcome;
    let mib = per_second(outcome.sent_bytes, outcome.elapsed) / MIB;
    format!(
        "{} in {:.2} s: {}/s{}, {mib:.1} MiB/s",
        grouped(outcome.sent),
        outcome.elapsed.as_secs_f64(),
        grouped(rounded(report.per_s())),
        if report.asked.is_answered { " answered with 2xx" } else { "" },
    )
}

fn counts(parts: impl Iterator<Item = (String, u64)>) -> String {
    let parts: Vec<String> = parts.map(|(what, n)| format!("{what}: {}", grouped(n))).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn receiver(report: &Report) -> String {
    let compared = match &report.receiver {
        Ok(compared) => compared,
        Err(_) => return "not known".to_owned(),
    };
    let outcomes = counts(compared.outcomes.iter().filter(|(_, n)| **n > 0).map(|(o, n)| (o.clone(), *n)));
    let lost = match compared.lost {
        0 => "0 lost".to_owned(),
        lost => format!("{} LOST ({:.3} %)", grouped(lost), ratio(lost, report.acked) * 100.0),
    };
    format!("{} received, {lost}; {outcomes}", grouped(compared.received))
}

fn per_record(cpu: Duration, records: u64) -> String {
    let ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
    ns.checked_div(records).map_or("-".to_owned(), time)
}

/// The report for programs: one object.
pub(super) fn json(report: &Report) -> Value {
    let (asked, source, outcome) = (&report.asked, &report.source, &report.outcome);
    let books = &outcome.books;
    let rows: Vec<Value> = chart::rows(&books.latency)
        .iter()
        .map(|row| json!({ "from_us": us(row.from_ns), "to_us": us(row.to_ns), "count": row.count }))
        .collect();
    json!({
        "kind": asked.kind,
        "address": asked.address,
        "rate_per_s": asked.rate_per_s,
        "connections": asked.connections,
        "duration_s": asked.duration.as_secs_f64(),
        "records": {
            "file": source.file,
            "count": source.records,
            "bytes": source.bytes,
            "too_long": source.too_long,
            "cut": source.is_cut,
        },
        "ended_early": outcome.stopped,
        "elapsed_s": outcome.elapsed.as_secs_f64(),
        "sent": outcome.sent,
        "sent_bytes": outcome.sent_bytes,
        "unsent": outcome.unsent,
        "acked": asked.is_answered.then_some(report.acked),
        "per_s": report.per_s(),
        "bytes_per_s": per_second(outcome.sent_bytes, outcome.elapsed),
        "statuses": books.statuses.iter().map(|(s, n)| (s.to_string(), json!(n))).collect::<serde_json::Map<_, _>>(),
        "errors": books.errors,
        "latency_us": histogram(&books.latency),
        "late_us": histogram(&books.late),
        "histogram": rows,
        "receiver": receiver_json(report),
        "generator": { "cpu_s": outcome.cpu.as_secs_f64(), "cpu_us_per_record": cpu_us(outcome.cpu, outcome.sent) },
        "clean": report.is_clean(),
        "notes": report.notes(),
    })
}

fn receiver_json(report: &Report) -> Value {
    let cpu = report.receiver_cpu.as_ref();
    let mut receiver = json!({
        "admin": report.asked.admin,
        "cpu_s": cpu.map(|(cpu, _)| cpu.as_secs_f64()),
        "cpu_us_per_record": cpu.and_then(|(cpu, _)| cpu_us(*cpu, report.received())),
        "cpu_source": cpu.map(|(_, how)| how),
        "resident_bytes": report.resident_bytes,
    });
    match &report.receiver {
        Ok(compared) => {
            receiver["received"] = compared.received.into();
            receiver["lost"] = compared.lost.into();
            receiver["surplus"] = compared.surplus.into();
            receiver["kernel_drops"] = compared.kernel_drops.into();
            receiver["outcomes"] = json!(compared.outcomes);
        }
        Err(why) => receiver["error"] = why.as_str().into(),
    }
    receiver
}

fn cpu_us(cpu: Duration, records: u64) -> Option<f64> {
    (records > 0).then(|| cpu.as_secs_f64() * 1e6 * ratio(1, records))
}

#[allow(clippy::cast_precision_loss, reason = "the histogram has three digits")]
fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// Null where nothing was recorded.
fn histogram(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let mut all =
        json!({ "count": histogram.len(), "min": us(histogram.min()), "mean": histogram.mean() / 1e3 });
    for (percent, name) in PERCENTILES {
        all[name.replace('.', "_")] = us(histogram.value_at_percentile(percent)).into();
    }
    all["max"] = us(histogram.max()).into();
    all
}
