//! Retry accounting: how often, how long between, and when a sink counts as down.
//!
//! Pure: time and randomness are arguments.
//!
//! An outage is the sink's, not the task's. The first transient failure marks the sink down; from then on one attempt at a
//! time probes it, at delays that double, while all other tasks wait without using up attempts. Any answer that shows the
//! sink at work opens it again.

use std::time::{Duration, Instant, SystemTime};

/// Attempts when `async.retry.max_attempts` is not set and nothing is durable: the predecessor's default.
pub const ATTEMPTS_MAX_DEFAULT: u32 = 3;
/// Shortest pause that a `Retry-After` can ask for.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// Longest pause that a `Retry-After` can ask for: an hour, so that one odd answer does not silence a sink for a day.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Time between probes of a sink that is blocked until somebody acts.
pub const BLOCKED_PROBE_INTERVAL: Duration = Duration::from_secs(180);

/// What a failed attempt says about further ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The same attempt may work later.
    Transient,
    /// This message will never be taken; others may be.
    Permanent,
    /// No message will be taken until somebody acts: a wrong token, a channel that is gone.
    Blocked,
}

impl Class {
    /// The value of the `outcome` label.
    pub fn label(self) -> &'static str {
        match self {
            Class::Transient => "transient",
            Class::Permanent => "permanent",
            Class::Blocked => "blocked",
        }
    }
}

/// Why a task is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// No attempts left.
    Exhausted,
    /// The destination will never take this message.
    Permanent,
    /// Older than `async.retry.max_age`.
    Expired,
}

impl GiveUp {
    /// One word for diagnostics.
    pub fn label(self) -> &'static str {
        match self {
            GiveUp::Exhausted => "exhausted",
            GiveUp::Permanent => "permanent",
            GiveUp::Expired => "expired",
        }
    }
}

/// `async.retry.*`, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Most attempts of one task; `None`: `max_age` alone bounds them.
    pub attempts_max: Option<u32>,
    /// First delay.
    pub backoff: Duration,
    /// Longest delay.
    pub backoff_max: Duration,
    /// Oldest a task may get; `None`: no limit.
    pub age_max: Option<Duration>,
    /// Time between probes of a blocked sink.
    pub blocked_probe: Duration,
}

/// What a task may cost, fixed when it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most attempts; `None`: only its age bounds them.
    pub attempts_max: Option<u32>,
    /// Oldest it may get; `None`: no limit.
    pub age_max: Option<Duration>,
}

impl Limits {
    /// When a task accepted at `accepted_at` is given up; `None`: never, for its age.
    pub fn expires_at(&self, accepted_at: SystemTime) -> Option<SystemTime> {
        self.age_max.and_then(|max| accepted_at.checked_add(max))
    }
}

impl Policy {
    /// The limits that it gives to a task.
    pub fn limits(&self) -> Limits {
        Limits { attempts_max: self.attempts_max, age_max: self.age_max }
    }

    /// The same for tasks that bring their own limit of attempts.
    #[must_use]
    pub fn without_limits(self) -> Policy {
        Policy { attempts_max: None, age_max: None, ..self }
    }

    /// The policy that the configuration asks for. An explicit `max_attempts` is literal (0 counts as 1); where it is not set,
    /// the durable store has `max_age` as its bound, and without a store it is [`ATTEMPTS_MAX_DEFAULT`].
    pub fn from_config(settings: &crate::config::SideEffects) -> Self {
        let durable = settings.durable.enabled;
        let attempts_max = match settings.max_attempts {
            Some(n) => Some(n.max(1)),
            None if durable => None,
            None => Some(ATTEMPTS_MAX_DEFAULT),
        };
        let backoff = settings.backoff.max(Duration::from_millis(1));
        Policy {
            attempts_max,
            backoff,
            backoff_max: settings.max_backoff.max(backoff),
            age_max: durable.then_some(settings.max_age),
            blocked_probe: BLOCKED_PROBE_INTERVAL,
        }
    }

    /// The delay after the `failures`-th failure in a row (from 1): `backoff` doubled each time, at most `backoff_max`, of which a
    /// random half is taken off (equal jitter). `random` is in 0..1.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.backoff.saturating_mul(1 << doublings).min(self.backoff_max);
        let half = full / 2;
        half + half.mul_f64(random.clamp(0.0, 1.0))
    }

    /// How long a sink is left alone after its `failures`-th failure in a row, the last one of class `class`.
    pub fn probe_delay(&self, class: Class, failures: u32, random: f64) -> Duration {
        match class {
            Class::Blocked => self.blocked_probe.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0)),
            _ => self.delay(failures, random),
        }
    }

    /// Whether a task whose `attempts`-th attempt failed with `class` at `now` gets another one. `own_max` is its own limit of attempts,
    /// `expires_at` the time at which it is given up.
    ///
    /// # Errors
    /// Why there is none.
    pub fn another(
        &self,
        attempts: u32,
        own_max: Option<u32>,
        expires_at: Option<SystemTime>,
        now: SystemTime,
        class: Class,
    ) -> Result<(), GiveUp> {
        if class == Class::Permanent {
            return Err(GiveUp::Permanent);
        }
        if own_max.or(self.attempts_max).is_some_and(|max| attempts >= max) {
            return Err(GiveUp::Exhausted);
        }
        if expires_at.is_some_and(|at| at <= now) {
            return Err(GiveUp::Expired);
        }
        Ok(())
    }
}

/// The pause that a `Retry-After` asks for, within bounds.
pub fn retry_after(asked: Duration) -> Duration {
    asked.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
}

/// What is known of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It takes deliveries.
    Up,
    /// The last attempts failed; it is probed.
    Down,
    /// It refuses everything until somebody acts; it is probed rarely.
    Blocked,
}

/// Whether an attempt may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Go,
    /// Yes, as the one probe; call [`Health::probe_starts`].
    Probe,
    /// Not before this time; `None`: not before the running probe has ended.
    Wait(Option<Instant>),
}

/// The health of one sink.
#[derive(Debug, Clone)]
pub struct Health {
    condition: Condition,
    failures: u32,
    next_probe: Option<Instant>,
    probing: bool,
}

impl Default for Health {
    fn default() -> Self {
        Health { condition: Condition::Up, failures: 0, next_probe: None, probing: false }
    }
}

impl Health {
    /// What is known.
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// Failed probes in a row, the failure that marked the sink down included.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether an attempt may start at `now`.
    pub fn admit(&self, now: Instant) -> Admission {
        match (self.condition, self.next_probe) {
            (Condition::Up, _) => Admission::Go,
            _ if self.probing => Admission::Wait(None),
            (_, Some(at)) if at > now => Admission::Wait(Some(at)),
            _ => Admission::Probe,
        }
    }

    /// The probe has started; there is no other until it ends.
    pub fn probe_starts(&mut self) {
        self.probing = true;
    }

    /// An attempt that was not the probe's to judge ended (the store refused the reservation, say).
    pub fn probe_abandoned(&mut self) {
        self.probing = false;
    }

    /// An attempt showed the sink at work. Returns the condition that this ended, if it was not up.
    pub fn worked(&mut self) -> Option<Condition> {
        let before = std::mem::take(self);
        (before.condition != Condition::Up).then_some(before.condition)
    }

    /// An attempt failed with `class` (transient or blocked) at `now`. `probe` says whether it was the probe; failures of attempts that
    /// were under way when the sink went down do not lengthen the delay. `delay` is asked for the delay after so many
    /// failures. Returns the new condition if it changed.
    pub fn failed(
        &mut self,
        class: Class,
        probe: bool,
        now: Instant,
        delay: impl FnOnce(u32) -> Duration,
    ) -> Option<Condition> {
        if probe {
            self.probing = false;
        }
        let condition = if class == Class::Blocked { Condition::Blocked } else { Condition::Down };
        let changed = condition != self.condition;
        if !probe && self.condition != Condition::Up && (!changed || condition == Condition::Down) {
            return None;
        }
        if changed {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.condition = condition;
        self.next_probe = now.checked_add(delay(self.failures));
        changed.then_some(condition)
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
