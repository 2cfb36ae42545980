//! The verdict, and which rows are shown.

use super::health::{self, Facts, Tone};
use super::overview::{ConditionRow, ROWS_MAX, Readings, Rows};
use crate::metrics::{self, Registry};

fn judge(
    registry: &Registry,
    conditions: &[ConditionRow],
    rule_errors: u64,
    is_durable: bool,
) -> health::Health {
    judge_with(registry, conditions, &[], rule_errors, is_durable)
}

fn judge_with(
    registry: &Registry,
    conditions: &[ConditionRow],
    silent: &[String],
    rule_errors: u64,
    is_durable: bool,
) -> health::Health {
    let readings = Readings::of(registry);
    health::judge(&Facts { readings: &readings, conditions, sinks: &[], silent, rule_errors, is_durable })
}

/// Of a server that has started.
fn registry() -> Registry {
    let registry = Registry::new();
    registry.gauge(&metrics::CONFIG_LAST_RELOAD_SUCCESS, &[]).set(1);
    registry
}

fn texts(health: &health::Health) -> Vec<&str> {
    health.findings.iter().map(|finding| finding.text.as_str()).collect()
}

#[test]
fn what_is_over_leaves_the_verdict_good() {
    let registry = registry();
    let health = judge(&registry, &[], 0, false);
    assert_eq!((health.tone, health.verdict, health.findings.len()), (Tone::Well, "All is well", 0));
    registry.counter(&metrics::RECORDS_REFUSED, &["oversize"]).add(1000);
    registry.counter(&metrics::RECORDS_REFUSED, &["truncated"]).add(500);
    registry.counter(&metrics::UDP_KERNEL_DROPS, &[]).inc();
    let health = judge(&registry, &[], 2, false);
    assert_eq!((health.tone, health.verdict), (Tone::Well, "All is well"));
    assert_eq!(
        texts(&health),
        [
            "Since the start: 1,500 frames were refused, 1 datagram was dropped by the kernel, 2 evaluations of rules failed"
        ]
    );
}

#[test]
fn the_worst_comes_first_and_gives_the_verdict() {
    let registry = registry();
    registry.gauge(&metrics::CONFIG_LAST_RELOAD_SUCCESS, &[]).set(0);
    registry.gauge_fn(&metrics::STORE_DISK_USED, &["pending"], || 0.856);
    registry.gauge(&metrics::STORE_OLDEST_PENDING_SECONDS, &[]).set(4000);
    registry.gauge(&metrics::DEAD_LETTERS, &[]).set(3);
    let health = judge(&registry, &[], 1, true);
    assert_eq!((health.tone, health.verdict), (Tone::Warn, "It works; something is worth a look"));
    let warned = [
        "The last reload was not put to use; the earlier configuration is",
        "The durable store takes 85 % of its bound",
        "A task has been waiting in the durable store for more than an hour",
        "3 dead letters are kept",
    ];
    assert_eq!(texts(&health), [&warned[..], &["Since the start: 1 evaluation of a rule failed"]].concat());
    let conditions = [
        ConditionRow { condition: "accepting", tone: Tone::Well, state: "ok".into() },
        ConditionRow { condition: "durable store", tone: Tone::Bad, state: "its disk has failed".into() },
    ];
    let health = judge(&registry, &conditions, 0, true);
    assert_eq!((health.tone, health.verdict), (Tone::Bad, "Something is wrong"));
    assert_eq!(texts(&health), [&["Not ready: durable store: its disk has failed"], &warned[..]].concat());
    let silent = ["nothing over tcp for 700 s".to_owned(), "nothing from source bao-1 for 900 s".to_owned()];
    let health = judge_with(&registry, &[], &silent, 0, false);
    assert_eq!(
        texts(&health),
        [warned[0], "Silent senders: nothing over tcp for 700 s; nothing from source bao-1 for 900 s"]
    );
    // Without a store nothing is said of one.
    assert_eq!(texts(&judge(&registry, &[], 0, false)), [warned[0]]);
}

#[test]
fn the_highest_rows_are_shown_in_their_own_order() {
    let few = Rows::highest((0..ROWS_MAX).collect(), |n| *n);
    assert_eq!((few.rows, few.more), ((0..ROWS_MAX).collect(), 0));
    let many = Rows::highest((0..3 * ROWS_MAX).collect(), |n| (*n == 7, n % 3 == 0, std::cmp::Reverse(*n)));
    assert_eq!((many.rows.len(), many.more), (ROWS_MAX, 2 * ROWS_MAX));
    assert!(many.rows.is_sorted() && many.rows.contains(&7) && many.rows.contains(&0), "{:?}", many.rows);
    assert_eq!(many.rows.iter().filter(|n| **n % 3 == 0).count(), ROWS_MAX - 1);
}
