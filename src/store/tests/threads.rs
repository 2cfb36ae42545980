//! The store with its threads, in a real directory.

use std::sync::Arc;

use super::support::*;
use crate::metrics::Registry;
use crate::side_effect::{End, Ledger, SinkNumber};
use crate::store::{Filter, Kind, Store};

const S0: SinkNumber = SinkNumber(0);

#[test]
fn workers_on_many_threads_deliver_each_task_once() {
    let (dir, registry) = (Dir::new("threads"), Registry::new());
    let store = Store::open(settings(dir.path()), &sinks(), &registry).expect("opened").store;
    let clock = TestClock::at(1_700_000_000);
    let (tell, woken) = crossbeam_channel::bounded(10_000);
    store.on_pending(Box::new(move |sink| {
        let _ = tell.try_send(sink);
    }));
    store.on_pending(Box::new(|_| {}));
    let (sent, delivered) = crossbeam_channel::bounded(10_000);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (acceptor, clock) = (Arc::clone(&store), clock.clone());
            scope.spawn(move || {
                for n in 0..100_u8 {
                    accept(&acceptor, &[(S0, task("a", &[n; 200], &clock))])
                        .unwrap_or_else(|e| panic!("{e}"));
                }
            });
            let (store, sent, woken) = (Arc::clone(&store), sent.clone(), woken.clone());
            scope.spawn(move || {
                while sent.len() < 300 {
                    let Some(task) = store.take(S0) else {
                        let _ = woken.recv_timeout(std::time::Duration::from_millis(10));
                        continue;
                    };
                    store.reserve(S0, &task, 1).expect("reserved");
                    sent.send(task.id).expect("room");
                    store.ended(S0, &task, &End::Delivered);
                }
            });
        }
    });
    let mut ids: Vec<_> = delivered.try_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 300);
    store.close().expect("closed");
    let text = registry.render();
    assert!(text.contains("vault_audit_filter_store_pending_tasks 0"), "{text}");
    assert!(text.contains("vault_audit_filter_store_up{log=\"pending\"} 1"), "{text}");
    drop(store);
    let opened = Store::open(settings(dir.path()), &sinks(), &registry).expect("opened again");
    assert_eq!(opened.report.pending, 0);
}

#[test]
fn the_stores_own_thread_buries_what_is_given_up() {
    let (dir, registry) = (Dir::new("keeper"), Registry::new());
    let store = Store::open(settings(dir.path()), &sinks(), &registry).expect("opened").store;
    let id = {
        let clock = TestClock::at(1_700_000_000);
        accept(&store, &[(S0, task("a", b"x", &clock))]).expect("accepted");
        kill_next(&store, "refused")
    };
    let dead = Filter { kind: Some(Kind::Dead), ..Filter::default() };
    let deadline = crate::clock::now() + LATER;
    while store.list(&dead, 9).matched == 0 {
        assert!(crate::clock::now() < deadline, "no dead letter");
        std::thread::yield_now();
    }
    assert_eq!(store.show(id).expect("kept").0.kind, Kind::Dead);
    store.nudge();
}

/// Not run with the others: prints how long it takes to open a store of a million tasks, and its memory.
#[test]
#[ignore = "a measurement"]
fn a_million_pending_tasks() {
    let pages = || -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
        statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number")
    };
    let dir = Dir::new("million");
    let big = crate::store::Settings::new(dir.path(), 4 << 30);
    let clock = TestClock::at(1_700_000_000);
    let (store, _) = open_settings(big.clone(), &clock);
    for n in 0..1000_u32 {
        let tasks: Vec<_> = (0..1000).map(|_| (S0, task("a", &n.to_le_bytes(), &clock))).collect();
        while accept(&store, &tasks).is_err() {
            settle(&store);
        }
    }
    drop(store);
    let (before, started) = (pages(), crate::clock::now());
    let (store, report) = open_settings(big, &clock);
    let took = started.elapsed();
    assert_eq!(report.pending, 1_000_000);
    eprintln!("{took:?}, {} bytes of memory a task", (pages() - before) * 4096 / 1_000_000);
    assert_eq!(store.pending(S0), 1_000_000);
}
