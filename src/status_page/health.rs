//! What is wrong, if anything: the line at the top of the page.

use serde::Serialize;

use super::overview::{ConditionRow, Readings};
use crate::control::status::SinkStatus;
use crate::metrics;
use crate::side_effect::SinkQueue;
use crate::text::grouped;

/// From this share on, a bounded thing is called nearly full.
pub(super) const NEARLY_FULL: f64 = 0.8;
/// From this age on, in seconds, a pending task is called old.
const OLD_S: u64 = 3600;
/// Most things that are named in one sentence.
const NAMED_MAX: usize = 5;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tone {
    /// Nothing to do.
    Well,
    /// It happened since the start, and says nothing of now.
    Past,
    /// Worth a look.
    Warn,
    /// It does not work.
    Bad,
}

impl Tone {
    pub(super) fn word(self) -> &'static str {
        match self {
            Tone::Well => "well",
            Tone::Past => "past",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
        }
    }
}

/// The verdict with its grounds, the worst first.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    pub(super) tone: Tone,
    pub(super) verdict: &'static str,
    pub(super) findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) tone: Tone,
    pub(super) text: String,
}

/// What is judged.
pub(super) struct Facts<'a> {
    pub(super) readings: &'a Readings,
    pub(super) conditions: &'a [ConditionRow],
    pub(super) sinks: &'a [(&'a SinkQueue, SinkStatus)],
    /// Who has sent nothing for too long, a sentence each.
    pub(super) silent: &'a [String],
    pub(super) rule_errors: u64,
    pub(super) is_durable: bool,
}

pub(super) fn judge(facts: &Facts<'_>) -> Health {
    let mut findings = Vec::new();
    bad(facts, &mut |text| findings.push(Finding { tone: Tone::Bad, text }));
    warn(facts, &mut |text| findings.push(Finding { tone: Tone::Warn, text }));
    let mut events = Vec::new();
    past(facts, &mut |text| events.push(text));
    if !events.is_empty() {
        findings.push(Finding { tone: Tone::Past, text: format!("Since the start: {}", events.join(", ")) });
    }
    let worst = findings.first().map_or(Tone::Well, |finding| finding.tone);
    let (tone, verdict) = match worst {
        Tone::Bad => (Tone::Bad, "Something is wrong"),
        Tone::Warn => (Tone::Warn, "It works; something is worth a look"),
        Tone::Past | Tone::Well => (Tone::Well, "All is well"),
    };
    Health { tone, verdict, findings }
}

fn bad(facts: &Facts<'_>, say: &mut dyn FnMut(String)) {
    for row in facts.conditions.iter().filter(|row| row.tone == Tone::Bad) {
        say(format!("Not ready: {}: {}", row.condition, row.state));
    }
    let down: Vec<&str> =
        facts.sinks.iter().filter(|(_, sink)| !sink.up).map(|(_, sink)| sink.sink.as_str()).collect();
    match down[..] {
        [] => {}
        [sink] => say(format!("Sink {sink} is down")),
        _ => say(format!("{} sinks are down: {}", down.len(), named(&down))),
    }
}

fn warn(facts: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let readings = facts.readings;
    if readings.sum(&metrics::CONFIG_LAST_RELOAD_SUCCESS) == 0 {
        say("The last reload was not put to use; the earlier configuration is".to_owned());
    }
    match facts.silent {
        [] => {}
        silent => say(format!("Silent senders: {}", silent.join("; "))),
    }
    let full: Vec<&str> = facts
        .sinks
        .iter()
        .filter(|(queue, sink)| is_nearly_full(queue, sink))
        .map(|(_, s)| s.sink.as_str())
        .collect();
    // With a durable store a full queue is no trouble: tasks wait on the disk.
    if !full.is_empty() && !facts.is_durable {
        say(format!("Queues nearly full: {}", named(&full)));
    }
    if !facts.is_durable {
        return;
    }
    let used = readings.labelled(&metrics::STORE_DISK_USED, "pending");
    if used >= NEARLY_FULL {
        say(format!("The durable store takes {} % of its bound", (used * 100.0) as u64));
    }
    if readings.sum(&metrics::STORE_OLDEST_PENDING_SECONDS) >= OLD_S {
        say("A task has been waiting in the durable store for more than an hour".to_owned());
    }
    for (family, one, many) in [
        (&metrics::DEAD_LETTERS, "dead letter is kept", "dead letters are kept"),
        (
            &metrics::STORE_DAMAGES,
            "damaged place was found in the durable store",
            "damaged places were found in the durable store",
        ),
    ] {
        count(readings.sum(family), one, many, say);
    }
}

fn is_nearly_full(queue: &SinkQueue, sink: &SinkStatus) -> bool {
    sink.waiting as f64 >= queue.capacity() as f64 * NEARLY_FULL
}

/// What has happened since the start.
fn past(facts: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let readings = facts.readings;
    for (family, one, many) in [
        (&metrics::RECORDS_REFUSED, "frame was refused", "frames were refused"),
        (&metrics::RECORDS_QUARANTINED, "frame went to quarantine", "frames went to quarantine"),
        (
            &metrics::UDP_KERNEL_DROPS,
            "datagram was dropped by the kernel",
            "datagrams were dropped by the kernel",
        ),
        (&metrics::LOG_WRITE_ERRORS, "append to a log file failed", "appends to log files failed"),
        (
            &metrics::LOG_KEEPER_ERRORS,
            "step of rotation or clean-up failed",
            "steps of rotation or clean-up failed",
        ),
        (&metrics::ACCEPT_ERRORS, "connection could not be accepted", "connections could not be accepted"),
        (
            &metrics::SERVICE_PANICS,
            "request, line or datagram panicked",
            "requests, lines or datagrams panicked",
        ),
    ] {
        count(readings.sum(family), one, many, say);
    }
    count(facts.rule_errors, "evaluation of a rule failed", "evaluations of rules failed", say);
    count(
        facts.sinks.iter().map(|(_, sink)| sink.dropped).sum(),
        "task was dropped",
        "tasks were dropped",
        say,
    );
    count(
        facts.sinks.iter().map(|(_, sink)| sink.failed).sum(),
        "task was given up",
        "tasks were given up",
        say,
    );
}

fn count(n: u64, one: &str, many: &str, say: &mut dyn FnMut(String)) {
    match n {
        0 => {}
        1 => say(format!("1 {one}")),
        _ => say(format!("{} {many}", grouped(n))),
    }
}

fn named(names: &[&str]) -> String {
    let some = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}
