//! systemd's watchdog: whether the program works is told by its threads' signs of life.

use std::time::{Duration, Instant};

use super::TICK;
use crate::listener::Heartbeat;

/// How long a listener thread may go without a sign of life before the watchdog is left unfed. The threads move at
/// least once a second.
const HEARTBEAT_SILENCE_MAX: Duration = Duration::from_secs(3);

/// Feeds systemd's watchdog at half of its interval, but only while every listener thread shows signs of life.
pub(super) struct Watchdog {
    interval: Option<Duration>,
    fed_at: Instant,
    threads: Vec<(Heartbeat, u64, Instant)>,
}

impl Watchdog {
    pub(super) fn new(
        interval: Option<Duration>,
        heartbeats: impl Iterator<Item = Heartbeat>,
        now: Instant,
    ) -> Self {
        let mut watchdog = Watchdog { interval: interval.map(|w| w / 2), fed_at: now, threads: Vec::new() };
        heartbeats.for_each(|heartbeat| watchdog.add(heartbeat, now));
        watchdog
    }

    /// Another thread that is to show signs of life.
    pub(super) fn add(&mut self, heartbeat: Heartbeat, now: Instant) {
        self.threads.push((heartbeat.clone(), heartbeat.count(), now));
    }

    /// How long the supervisor may sleep.
    pub(super) fn nap(&self) -> Duration {
        self.interval.map_or(TICK, |interval| TICK.min(interval / 2))
    }

    /// Whether it is time to feed the watchdog; an error names the threads that keep it from being fed. A thread for whose number
    /// `is_excused` says true may be silent: it is where it must be waited for.
    pub(super) fn due(&mut self, now: Instant, is_excused: impl Fn(u64) -> bool) -> Result<bool, String> {
        for (heartbeat, count, moved_at) in &mut self.threads {
            if *count != heartbeat.count() {
                (*count, *moved_at) = (heartbeat.count(), now);
            }
        }
        if self.interval.is_none_or(|interval| now - self.fed_at < interval) {
            return Ok(false);
        }
        let silent = self.threads.iter().filter(|(heartbeat, _, moved_at)| {
            now - *moved_at > HEARTBEAT_SILENCE_MAX && !is_excused(heartbeat.number())
        });
        let names: Vec<&str> = silent.map(|(heartbeat, _, _)| heartbeat.thread.as_str()).collect();
        if !names.is_empty() {
            // Fed as soon as they move again: a disk that stood still for some seconds must not end the program.
            return Err(names.join(", "));
        }
        self.fed_at = now;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_watchdog_is_fed_while_every_thread_moves() {
        let beats = ["ingest-0", "udp"].map(|name| Heartbeat::new(name.to_owned()));
        let start = clock::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(4)), beats.iter().cloned(), start);
        let none = |_| false;
        assert_eq!(watchdog.due(at(1.0), none), Ok(false), "half of the interval has not passed");
        assert_eq!(watchdog.due(at(2.0), none), Ok(true), "no thread was silent for long");
        beats.iter().for_each(Heartbeat::beat);
        assert_eq!(watchdog.due(at(3.0), none), Ok(false));
        beats[1].beat();
        assert_eq!(watchdog.due(at(6.5), none), Err("ingest-0".to_owned()));
        assert_eq!(watchdog.due(at(6.75), none), Err("ingest-0".to_owned()));
        beats[0].beat();
        assert_eq!(watchdog.due(at(7.0), none), Ok(true), "without waiting for another half interval");
        // Both are silent; one of them hangs in a log file.
        let both = beats[0].number();
        assert_eq!(watchdog.due(at(20.0), |_| false), Err("ingest-0, udp".to_owned()));
        assert_eq!(watchdog.due(at(20.0), |number| number == both), Ok(true));
    }

    #[test]
    fn without_a_watchdog_nothing_is_due() {
        let mut watchdog = Watchdog::new(None, std::iter::empty(), clock::now());
        assert_eq!(watchdog.due(clock::now() + Duration::from_secs(3600), |_| false), Ok(false));
        assert_eq!(watchdog.nap(), TICK);
        assert_eq!(Watchdog::new(Some(TICK), std::iter::empty(), clock::now()).nap(), TICK / 4);
    }
}
