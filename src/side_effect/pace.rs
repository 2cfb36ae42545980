//! How fast a destination may be sent to: a token bucket, and the pause that the destination itself asked for.
//!
//! Sinks of several groups that post to one destination share one [`Destination`].

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Messages that may go out at once after a quiet time.
pub const BURST_MESSAGES_MAX: f64 = 10.0;
/// Longest time between two looks at the bucket.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// A token bucket. Pure: the time is an argument.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate_per_s: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// A full bucket; `rate_per_s` of 0 (or less, or not a number) never waits.
    pub fn new(rate_per_s: f64) -> Self {
        Bucket { rate_per_s, tokens: BURST_MESSAGES_MAX, at: None }
    }

    fn unlimited(&self) -> bool {
        self.rate_per_s.is_nan() || self.rate_per_s <= 0.0
    }

    /// Changes the rate from now on; what was saved up stays.
    pub fn set_rate(&mut self, rate_per_s: f64) {
        self.rate_per_s = rate_per_s;
    }

    /// Lowers the rate to `rate_per_s` where that is a rate and slower than now.
    pub fn slow_to(&mut self, rate_per_s: f64) {
        if rate_per_s > 0.0 && (self.unlimited() || rate_per_s < self.rate_per_s) {
            self.rate_per_s = rate_per_s;
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// When there will be one; nothing is taken.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        if self.unlimited() {
            return Ok(());
        }
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate_per_s).min(BURST_MESSAGES_MAX);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let missing_s = (1.0 - self.tokens) / self.rate_per_s;
        // A nanosecond more than computed, so that rounding never makes the next look one too early.
        let wait = Duration::try_from_secs_f64(missing_s).unwrap_or(WAIT_MAX).min(WAIT_MAX)
            + Duration::from_nanos(1);
        Err(now + wait)
    }
}

/// What all sinks of one destination share.
#[derive(Debug)]
pub struct Destination {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    paused_until: Option<Instant>,
}

impl Destination {
    /// A destination that takes `rate_per_s` messages; 0 is no pacing.
    pub fn new(rate_per_s: f64) -> Self {
        Destination { state: Mutex::new(State { bucket: Bucket::new(rate_per_s), paused_until: None }) }
    }

    /// The sinks that use the destination want these rates: the slowest one holds for all, from now on. Pauses stay.
    pub fn set_rates(&self, rates: impl IntoIterator<Item = f64>) {
        let bucket = &mut self.state.lock().bucket;
        bucket.set_rate(0.0);
        rates.into_iter().for_each(|rate| bucket.slow_to(rate));
    }

    /// Nothing goes out before `until`. A pause is never shortened.
    pub fn pause(&self, until: Instant) {
        let mut state = self.state.lock();
        state.paused_until = state.paused_until.max(Some(until));
    }

    /// Asks to send one message now.
    ///
    /// # Errors
    /// When to ask again.
    pub fn acquire(&self, now: Instant) -> Result<(), Instant> {
        let mut state = self.state.lock();
        match state.paused_until {
            Some(until) if until > now => Err(until),
            _ => state.bucket.take(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    proptest! {
        /// Whatever the rate and the times of asking, no window holds more than its share and the burst; and the time that is
        /// named is always enough.
        #[test]
        fn never_more_than_rate_and_burst(rate in 0.01f64..1000.0, gaps in prop::collection::vec(0u64..3_000, 1..200)) {
            let start = clock::now();
            let mut now = start;
            let mut bucket = Bucket::new(rate);
            let mut taken = 0u32;
            for gap in gaps {
                now += Duration::from_millis(gap);
                match bucket.take(now) {
                    Ok(()) => taken += 1,
                    Err(at) => {
                        prop_assert!(at > now);
                        let mut later = bucket.clone();
                        prop_assert!(at - now >= WAIT_MAX || later.take(at + Duration::from_micros(1)).is_ok());
                    }
                }
                let most = BURST_MESSAGES_MAX + (now - start).as_secs_f64() * rate + 1e-6;
                prop_assert!(f64::from(taken) <= most, "{taken} > {most}");
            }
        }
    }

    #[test]
    fn no_rate_is_no_pacing() {
        let now = clock::now();
        for rate in [0.0, -1.0, f64::NAN] {
            let mut bucket = Bucket::new(rate);
            assert!((0..1000).all(|_| bucket.take(now).is_ok()), "{rate}");
        }
    }

    #[test]
    fn tiny_rates_do_not_overflow() {
        let now = clock::now();
        let mut bucket = Bucket::new(f64::MIN_POSITIVE);
        for _ in 0..10 {
            assert!(bucket.take(now).is_ok());
        }
        assert!(bucket.take(now).is_err());
    }

    #[test]
    fn a_clock_that_stands_or_jumps_back_gives_no_tokens() {
        let now = clock::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(1.0);
        while bucket.take(now).is_ok() {}
        assert!(bucket.take(now - Duration::from_secs(9)).is_err());
        assert!(bucket.take(now).is_err());
        assert!(bucket.take(now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn pauses_hold_for_all_and_are_not_shortened() {
        let now = clock::now();
        let destination = Destination::new(0.0);
        destination.pause(now + Duration::from_secs(5));
        destination.pause(now + Duration::from_secs(2));
        assert_eq!(destination.acquire(now), Err(now + Duration::from_secs(5)));
        assert_eq!(destination.acquire(now + Duration::from_secs(5)), Ok(()));
    }

    #[test]
    fn the_slowest_rate_of_a_shared_destination_holds() {
        let now = clock::now();
        let destination = Destination::new(1.0);
        destination.set_rates([0.0, 2.0, 5.0]);
        while destination.acquire(now).is_ok() {}
        let wait = destination.acquire(now).unwrap_err() - now;
        assert_eq!(wait.as_millis(), 500);
    }
}
