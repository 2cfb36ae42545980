//! When each record is due. Pure.

use std::time::{Duration, Instant};

const NS_PER_S: u128 = 1_000_000_000;

/// The instants of one flow among several that share a rate: record `k` of flow `f` is number `f + k * flows` of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) start: Instant,
    pub(super) duration: Duration,
    /// Records per second over all flows; 0: as fast as it goes.
    pub(super) per_s: u64,
    pub(super) flows: u64,
    pub(super) flow: u64,
}

impl Pace {
    /// Whether there is a rate.
    pub(super) fn is_paced(&self) -> bool {
        self.per_s > 0
    }

    /// The end of the run.
    pub(super) fn end(&self) -> Instant {
        self.start + self.duration
    }

    /// When this flow's record `k` is due. Only for a paced flow.
    pub(super) fn due(&self, k: u64) -> Instant {
        let number = u128::from(self.flow) + u128::from(k) * u128::from(self.flows);
        let ns = number * NS_PER_S / u128::from(self.per_s.max(1));
        self.start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX / 2))
    }

    /// How many of this flow's records are due before `at`. Only for a paced flow.
    pub(super) fn due_before(&self, at: Instant) -> u64 {
        let ns = at.saturating_duration_since(self.start).as_nanos();
        let of_all = (ns * u128::from(self.per_s)).div_ceil(NS_PER_S);
        let after_first = of_all.saturating_sub(u128::from(self.flow));
        u64::try_from(after_first.div_ceil(u128::from(self.flows.max(1)))).unwrap_or(u64::MAX)
    }

    /// How many records this flow has in the whole run; without a rate, as many as it can send.
    pub(super) fn total(&self) -> u64 {
        if self.is_paced() { self.due_before(self.end()) } else { u64::MAX }
    }

    /// Whether nothing more is to be sent: the run has ended and, at a rate, what was late has had `grace` more.
    pub(super) fn is_over(&self, now: Instant, grace: Duration) -> bool {
        now >= if self.is_paced() { self.end() + grace } else { self.end() }
    }

    /// How many of this flow's records may have been sent by `now`.
    pub(super) fn ready(&self, now: Instant) -> u64 {
        if self.is_paced() { self.due_before(now).min(self.total()) } else { u64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    #[test]
    fn the_flows_share_the_rate_evenly() {
        let start = clock::now();
        let pace = |flow| Pace { start, duration: Duration::from_secs(2), per_s: 1000, flows: 3, flow };
        let totals: Vec<u64> = (0..3).map(|flow| pace(flow).total()).collect();
        assert_eq!(totals, [667, 667, 666]);
        assert_eq!(pace(0).due(0), start);
        assert_eq!(pace(2).due(0), start + Duration::from_millis(2));
        assert_eq!(pace(1).due(1), start + Duration::from_millis(4));
        assert_eq!(pace(0).due_before(start), 0);
        assert_eq!(pace(0).due_before(start + Duration::from_nanos(1)), 1);
    }

    proptest! {
        #[test]
        fn due_before_counts_what_due_says(
            per_s in 1u64..2_000_000, flows in 1u64..50, flow in 0u64..50, at_ns in 0u64..3_000_000_000,
        ) {
            let flow = flow % flows;
            let pace = Pace { start: clock::now(), duration: Duration::from_secs(1), per_s, flows, flow };
            let at = pace.start + Duration::from_nanos(at_ns);
            let n = pace.due_before(at);
            prop_assert!(n == 0 || pace.due(n - 1) < at);
            prop_assert!(pace.due(n) >= at);
        }
    }
}
