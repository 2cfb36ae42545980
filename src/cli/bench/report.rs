//! What a run of `bench` has shown, before it is put into words.

use std::time::Duration;

use super::Looks;
use crate::load::{self, Comparison, Outcome, Target, Usage};
use crate::text::grouped;

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) kind: &'static str,
    pub(super) address: String,
    pub(super) admin: String,
    pub(super) rate_per_s: u64,
    pub(super) connections: u32,
    pub(super) duration: Duration,
    /// Whether the protocol has answers.
    pub(super) is_answered: bool,
}

/// Where the records came from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// `None`: built-in.
    pub(super) file: Option<String>,
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// Left out: no datagram holds them.
    pub(super) too_long: usize,
    /// There are more in the file than are held.
    pub(super) is_cut: bool,
}

/// The receiver's process before and after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) before: Usage,
    pub(super) after: Usage,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) asked: Asked,
    pub(super) source: Source,
    pub(super) outcome: Outcome,
    /// Sent, or with answers acked: what the receiver must have received.
    pub(super) acked: u64,
    /// What the counters say, or why they say nothing.
    pub(super) receiver: Result<Comparison, String>,
    /// Processor time of the receiver, and by what it is known.
    pub(super) receiver_cpu: Option<(Duration, String)>,
    pub(super) resident_bytes: Option<u64>,
}

/// What a receiver must have received: acked requests, or what was sent where there are no answers.
pub(super) fn acked(target: &Target, outcome: &Outcome) -> u64 {
    match target {
        Target::Http { .. } => good_answers(outcome),
        Target::Tcp(_) | Target::Udp(_) | Target::Unix(_) => outcome.sent,
    }
}

fn good_answers(outcome: &Outcome) -> u64 {
    outcome.books.statuses.range(200..300).map(|(_, count)| count).sum()
}

impl Report {
    pub(super) fn new(
        asked: Asked,
        source: Source,
        outcome: Outcome,
        looks: Looks,
        process: Option<Process>,
    ) -> Report {
        let acked = if asked.is_answered { good_answers(&outcome) } else { outcome.sent };
        let exported = looks.as_ref().ok().and_then(|(before, after)| {
            let seconds = after.cpu_seconds? - before.cpu_seconds?;
            let cpu = Duration::try_from_secs_f64(seconds).ok()?;
            Some((cpu, "process_cpu_seconds_total".to_owned()))
        });
        let observed = || {
            let process = process?;
            Some((process.after.cpu.saturating_sub(process.before.cpu), format!("process {}", process.pid)))
        };
        Report {
            receiver: looks.and_then(|(before, after)| load::compare(&before, &after, acked)),
            receiver_cpu: exported.or_else(observed),
            resident_bytes: process.map(|process| process.after.resident_bytes),
            asked,
            source,
            acked,
            outcome,
        }
    }

    /// Whether all was sent, answered well and received, as far as can be seen.
    pub(super) fn is_clean(&self) -> bool {
        let books = &self.outcome.books;
        let bad_answers: u64 = books.statuses.values().sum::<u64>() - good_answers(&self.outcome);
        let lost =
            self.receiver.as_ref().map_or(0, |c| c.lost + c.outcomes.get("refused").copied().unwrap_or(0));
        books.errors.is_empty() && bad_answers == 0 && self.outcome.unsent == 0 && lost == 0
    }

    /// Records per second: acked ones where there are answers.
    pub(super) fn per_s(&self) -> f64 {
        per_second(self.acked, self.outcome.elapsed)
    }

    /// Records that the processor time of the receiver is divided by.
    pub(super) fn received(&self) -> u64 {
        self.receiver.as_ref().map_or(self.acked, |c| c.received)
    }

    /// What a reader should know before trusting the figures.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let outcome = &self.outcome;
        if outcome.stopped {
            notes.push("ended early by a signal".to_owned());
        }
        if outcome.unsent > 0 {
            let unsent = grouped(outcome.unsent);
            notes.push(format!(
                "the rate was not reached: {unsent} records were due and could not be sent; the latencies are without them"
            ));
        }
        if self.source.too_long > 0 {
            let count = self.source.too_long;
            notes.push(format!("{count} records are too long for a datagram and were left out"));
        }
        if self.source.is_cut {
            notes.push(
                "the file has more records than are held (64 MiB, 200,000); the others were not sent"
                    .to_owned(),
            );
        }
        match &self.receiver {
            Err(why) => {
                notes.push(format!("losses cannot be told: {why}; --admin names the receiver's admin address"));
            }
            Ok(compared) if self.acked > 0 && compared.received == 0 => notes.push(format!(
                "the receiver at {} has counted nothing by its listener {:?}: is it the one that was sent to?",
                self.asked.admin, self.asked.kind
            )),
            Ok(compared) if compared.surplus > 0 => notes.push(format!(
                "the receiver has counted {} more than were {}: somebody else sends too, or requests whose answer was \
                 not seen; losses may hide behind that",
                grouped(compared.surplus),
                if self.asked.is_answered { "acked" } else { "sent" },
            )),
            Ok(compared) if compared.kernel_drops > 0 => notes.push(format!(
                "the kernel dropped {} datagrams: a larger net.core.rmem_max lets the receiver have a larger buffer",
                grouped(compared.kernel_drops)
            )),
            Ok(_) => {}
        }
        notes
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with few digits")]
pub(super) fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}
