//! Every frame ends in exactly one outcome; here they are counted.

use std::sync::Arc;

use crate::evidence::{Mark, Window};
use crate::listener::BadFrame;
use crate::metrics::{self, Counter, Registry};
use crate::rule_group::RuleGroup;
use crate::side_effect::Refused;

/// Why frames go to the quarantine log: the reasons of [`crate::record::DecodeError`], and those of [`BadFrame`].
const QUARANTINE_REASONS: [&str; 8] = [
    "empty",
    "not_object",
    "syntax",
    "too_deep",
    "not_utf8",
    "trailing_data",
    BadFrame::OVERSIZE,
    BadFrame::CUT_DATAGRAM,
];

/// Why frames are refused. The numbers below name them.
const REFUSED_REASONS: [&str; 8] = [
    "log_write",
    "truncated",
    "oversize",
    "store_full",
    "store_broken",
    "store_closed",
    "store_busy",
    "log_busy",
];
/// A line could not be written.
pub(super) const LOG_WRITE: usize = 0;
/// The stream ended within the frame.
pub(super) const TRUNCATED: usize = 1;
/// Larger than it may be.
pub(super) const OVERSIZE: usize = 2;
/// Too much waits for the disk.
pub(super) const STORE_BUSY: usize = 6;

/// Too much waits for a log file.
pub(super) const LOG_BUSY: usize = 7;

/// Why the store refused.
pub(super) fn of_store(refused: Refused) -> usize {
    match refused {
        Refused::Full => 3,
        Refused::Broken => 4,
        Refused::Closed => 5,
    }
}

/// Outcome counters.
#[derive(Debug)]
pub(super) struct Outcomes {
    matched: Arc<Counter>,
    unmatched: Arc<Counter>,
    quarantined: Arc<Counter>,
    duplicate: Arc<Counter>,
    refused: Arc<Counter>,
    refused_because: [Arc<Counter>; REFUSED_REASONS.len()],
    quarantined_because: Vec<(&'static str, Arc<Counter>)>,
    /// Matches, by group number.
    of_group: Vec<Arc<Counter>>,
}

/// The outcomes of a batch that is not counted yet.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    /// Frames that the rules of some group have matched.
    pub(super) matched: u64,
    /// Numbers of the groups with a hit, one for each hit.
    pub(super) groups: Vec<usize>,
    /// The reason of each quarantined frame.
    pub(super) quarantined: Vec<&'static str>,
    /// What is to be remembered once the batch is done, and where.
    pub(super) done: Vec<Mark>,
    pub(super) window: Option<Arc<Window>>,
}

impl Outcomes {
    pub(super) fn new(registry: &Registry, groups: &[RuleGroup]) -> Self {
        let outcome = |label| registry.counter(&metrics::RECORDS, &[label]);
        let because = |reason| (reason, registry.counter(&metrics::RECORDS_QUARANTINED, &[reason]));
        Outcomes {
            matched: outcome("matched"),
            unmatched: outcome("unmatched"),
            quarantined: outcome("quarantined"),
            duplicate: outcome("duplicate"),
            refused: outcome("refused"),
            refused_because: REFUSED_REASONS
                .map(|reason| registry.counter(&metrics::RECORDS_REFUSED, &[reason])),
            quarantined_because: QUARANTINE_REASONS.map(because).to_vec(),
            of_group: groups.iter().map(|group| Arc::clone(&group.matches)).collect(),
        }
    }

    /// Counts a batch that nothing was wrong with; arguments as in [`Tally`].
    pub(super) fn count<'a>(
        &self,
        frames: u64,
        matched: u64,
        groups: impl Iterator<Item = usize>,
        quarantined: impl Iterator<Item = &'a str>,
    ) {
        groups.filter_map(|group| self.of_group.get(group)).for_each(|counter| counter.inc());
        let mut bad = 0;
        for reason in quarantined {
            self.count_quarantined(reason);
            bad += 1;
        }
        for (counter, n) in [(&self.matched, matched), (&self.unmatched, frames - bad - matched)] {
            if n > 0 {
                counter.add(n);
            }
        }
    }

    /// The same for a batch that had to wait. It is done.
    pub(super) fn count_tally(&self, tally: &Tally) {
        let groups = tally.groups.iter().copied();
        self.count(tally.frames, tally.matched, groups, tally.quarantined.iter().copied());
        if let Some(window) = tally.window.as_ref().filter(|_| !tally.done.is_empty()) {
            window.remember(tally.done.iter().copied());
        }
    }

    /// Counts frames that were sent before and are done.
    pub(super) fn count_duplicates(&self, frames: usize) {
        self.duplicate.add(frames as u64);
    }

    pub(super) fn count_quarantined(&self, reason: &str) {
        self.quarantined.inc();
        if let Some((_, counter)) = self.quarantined_because.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }

    /// Counts frames that are not acked; `reason` is one of the numbers above.
    pub(super) fn count_refused(&self, frames: u64, reason: usize) {
        self.refused.add(frames);
        if let Some(counter) = self.refused_because.get(reason) {
            counter.add(frames);
        }
    }
}
