//! The receiver's own counters, read from `/metrics` of its admin address before and after a run: what it has received, what
//! the kernel has dropped, and so what was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use ureq::Agent;

use crate::clock;
use crate::metrics::{self, Family};

/// Longest time for one look.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// The most that is read of an exposition.
const BODY_BYTES_MAX: u64 = 16 << 20;
/// Between two looks while the counters still move.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Counters that stand still for so long have come to rest.
const REST: Duration = Duration::from_secs(1);
/// How long the counters are waited for in all.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// The admin address of a receiver.
#[derive(Debug)]
pub struct Receiver {
    url: String,
    listener: &'static str,
    agent: Agent,
}

/// The counters at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Frames that came in by the listener under load.
    pub received: u64,
    /// Frames of all listeners by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Datagrams that the kernel dropped.
    pub kernel_drops: u64,
    /// When the receiver was started, seconds since the epoch; another value is another process.
    pub started: f64,
    /// `process_cpu_seconds_total`, where the receiver has it.
    pub cpu_seconds: Option<f64>,
}

/// What happened between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Frames that came in by the listener under load.
    pub received: u64,
    /// Sent (HTTP: acked) and not received.
    pub lost: u64,
    /// Received and not sent by this run: somebody else sends too, or (HTTP) the answer did not come through.
    pub surplus: u64,
    /// Of all listeners, by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Datagrams that the kernel dropped.
    pub kernel_drops: u64,
}

impl Receiver {
    /// A receiver whose listener `listener` is to be watched, by its admin address `HOST:PORT`. Nothing is sent yet.
    pub fn new(admin: &str, listener: &'static str) -> Receiver {
        // No proxy: the address is meant literally.
        let config = Agent::config_builder()
            .timeout_global(Some(LOOK_MAX))
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .build();
        Receiver { url: format!("http://{admin}/metrics"), listener, agent: config.new_agent() }
    }

    /// Reads the counters. Blocks for at most five seconds.
    ///
    /// # Errors
    ///
    /// Why there are none.
    pub fn look(&self) -> Result<Snapshot, String> {
        let mut answer = self.agent.get(&self.url).call().map_err(|e| format!("{}: {e}", self.url))?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(format!("{}: answered {status}", self.url));
        }
        let read = answer.body_mut().with_config().limit(BODY_BYTES_MAX).lossy_utf8(true).read_to_string();
        let text = read.map_err(|e| format!("{}: {e}", self.url))?;
        parse(&text, self.listener)
            .ok_or_else(|| format!("{}: no counters of vault-audit-filter there", self.url))
    }

    /// Looks until `expected` more frames than in `before` have come in and have an outcome, or nothing moves for a second,
    /// or for at most 30 seconds, or `stop` says so. Blocks.
    ///
    /// # Errors
    ///
    /// A look that failed.
    pub fn settle(
        &self,
        before: &Snapshot,
        expected: u64,
        stop: impl FnMut(Duration) -> bool,
    ) -> Result<Snapshot, String> {
        settle(|| self.look(), before, expected, stop)
    }
}

/// `stop` waits for that long and says whether to end.
fn settle(
    mut look: impl FnMut() -> Result<Snapshot, String>,
    before: &Snapshot,
    expected: u64,
    mut stop: impl FnMut(Duration) -> bool,
) -> Result<Snapshot, String> {
    let deadline = clock::now() + SETTLE_MAX;
    let sum = |snapshot: &Snapshot| snapshot.outcomes.values().sum::<u64>();
    let mut last = look()?;
    let mut moved = clock::now();
    loop {
        let all_in = last.received.saturating_sub(before.received) >= expected;
        let all_done = sum(&last).saturating_sub(sum(before)) >= expected;
        let now = clock::now();
        if (all_in && all_done) || now.saturating_duration_since(moved) >= REST || now >= deadline {
            return Ok(last);
        }
        if stop(LOOK_EVERY) {
            return Ok(last);
        }
        let next = look()?;
        if (next.received, sum(&next)) != (last.received, sum(&last)) {
            moved = clock::now();
        }
        last = next;
    }
}

/// What the receiver did between two looks while `sent` records were sent to it; an error says why the counters do not tell.
///
/// # Errors
///
/// The receiver was started anew in between.
pub fn compare(before: &Snapshot, after: &Snapshot, sent: u64) -> Result<Comparison, String> {
    #[allow(clippy::float_cmp, reason = "the same number printed twice, or another one")]
    let is_another = before.started != after.started;
    if is_another || after.received < before.received {
        return Err("the receiver was started anew during the run".to_owned());
    }
    let received = after.received - before.received;
    let outcomes = after
        .outcomes
        .iter()
        .map(|(outcome, n)| {
            (outcome.clone(), n.saturating_sub(before.outcomes.get(outcome).copied().unwrap_or(0)))
        })
        .collect();
    Ok(Comparison {
        received,
        lost: sent.saturating_sub(received),
        surplus: received.saturating_sub(sent),
        outcomes,
        kernel_drops: after.kernel_drops.saturating_sub(before.kernel_drops),
    })
}

/// The counters of an exposition; `None` when it is not one of this program.
fn parse(text: &str, listener: &str) -> Option<Snapshot> {
    let mut snapshot = Snapshot::default();
    let mut known = false;
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let Ok(value) = value.parse::<f64>() else { continue };
        let is = |family: &Family| series.split('{').next() == Some(family.name);
        let count = || as_count(value);
        if is(&metrics::RECORDS_RECEIVED) {
            known = true;
            if label(series, "listener") == Some(listener) {
                snapshot.received = count();
            }
        } else if is(&metrics::RECORDS) {
            if let Some(outcome) = label(series, "outcome") {
                snapshot.outcomes.insert(outcome.to_owned(), count());
            }
        } else if is(&metrics::UDP_KERNEL_DROPS) {
            snapshot.kernel_drops = count();
        } else if is(&metrics::START_TIME) {
            snapshot.started = value;
        } else if series == "process_cpu_seconds_total" {
            snapshot.cpu_seconds = Some(value);
        }
    }
    known.then_some(snapshot)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are whole and not negative"
)]
fn as_count(value: f64) -> u64 {
    value as u64
}

/// The value of a label of a series; the values that are looked for have no escapes.
fn label<'s>(series: &'s str, name: &str) -> Option<&'s str> {
    let labels = series.split_once('{')?.1.strip_suffix('}')?;
    labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn the_programs_own_exposition_is_understood() {
        let registry = Registry::new();
        registry.counter(&metrics::RECORDS_RECEIVED, &["http"]).add(7);
        registry.counter(&metrics::RECORDS_RECEIVED, &["tcp"]).add(5);
        registry.counter(&metrics::RECORDS, &["matched"]).add(4);
        registry.counter(&metrics::RECORDS, &["unmatched"]).add(8);
        registry.counter(&metrics::UDP_KERNEL_DROPS, &[]).add(3);
        registry.gauge_fn(&metrics::START_TIME, &[], || 1_795_504_643.25);
        let text = registry.render() + "process_cpu_seconds_total 1.5\nodd line\n";
        let snapshot = parse(&text, "tcp").expect("counters");
        let outcomes = BTreeMap::from([("matched".to_owned(), 4), ("unmatched".to_owned(), 8)]);
        let wanted = Snapshot {
            received: 5,
            outcomes,
            kernel_drops: 3,
            started: 1_795_504_643.25,
            cpu_seconds: Some(1.5),
        };
        assert_eq!(snapshot, wanted);
        assert_eq!(parse(&text, "unix").expect("counters").received, 0);
        for foreign in ["", "go_goroutines 5\n", "<html>\n", "# HELP x y\n"] {
            assert_eq!(parse(foreign, "tcp"), None, "{foreign}");
        }
    }

    fn at(received: u64, matched: u64, kernel_drops: u64) -> Snapshot {
        let outcomes = BTreeMap::from([("matched".to_owned(), matched)]);
        Snapshot { received, outcomes, kernel_drops, started: 1.0, cpu_seconds: None }
    }

    #[test]
    fn losses_are_what_was_sent_and_did_not_come_in() {
        for (sent, lost, surplus) in [(10, 0, 0), (13, 3, 0), (8, 0, 2)] {
            let compared = compare(&at(5, 5, 1), &at(15, 15, 4), sent).expect("comparable");
            let seen = (compared.received, compared.lost, compared.surplus, compared.kernel_drops);
            assert_eq!(seen, (10, lost, surplus, 3));
            assert_eq!(compared.outcomes["matched"], 10);
        }
        let another = Snapshot { started: 2.0, ..at(15, 15, 0) };
        assert!(compare(&at(5, 5, 0), &another, 10).is_err());
        assert!(compare(&at(5, 5, 0), &at(4, 4, 0), 10).is_err());
    }

    #[test]
    fn counters_are_waited_for_until_all_is_in_or_nothing_moves() {
        // Comes in bit by bit, the outcomes after the receipts.
        let mut n = 0;
        let look = || {
            n += 1;
            Ok(at(n.min(3), n.min(5).saturating_sub(2), 0))
        };
        let settled = settle(look, &at(0, 0, 0), 3, |_| false).expect("looks");
        assert_eq!(settled, at(3, 3, 0));
        // Never all of it, told to stop.
        let mut asked = 0;
        let stop = |_| {
            asked += 1;
            asked == 3
        };
        assert_eq!(settle(|| Ok(at(2, 2, 0)), &at(0, 0, 0), 3, stop).expect("looks"), at(2, 2, 0));
        // Never all of it: at rest.
        let pause = |wait: Duration| {
            std::thread::sleep(wait);
            false
        };
        assert_eq!(settle(|| Ok(at(2, 2, 0)), &at(0, 0, 0), 3, pause).expect("looks"), at(2, 2, 0));
        assert!(settle(|| Err("gone".to_owned()), &at(0, 0, 0), 3, |_| false).is_err());
    }

    #[test]
    fn nobody_there_is_said() {
        let error = Receiver::new("127.0.0.1:1", "http").look().expect_err("nobody listens");
        assert!(error.starts_with("http://127.0.0.1:1/metrics: "), "{error}");
    }
}
