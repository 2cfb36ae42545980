//! What a reload changes in a store that is open: sinks and limits.

use std::time::Duration;

use super::support::*;
use crate::side_effect::retry::Limits;
use crate::side_effect::{Ledger, SinkNumber};
use crate::store::{Filter, Kind};

const S0: SinkNumber = SinkNumber(0);
const S2: SinkNumber = SinkNumber(2);

#[test]
fn a_sink_that_goes_keeps_its_tasks_and_one_that_comes_takes_those_that_waited_for_it() {
    let (dir, clock) = (Dir::new("sinks"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let for_b = task("b", b"for b", &clock);
    let id = for_b.id;
    accept(&store, &[(S2, for_b)]).expect("accepted");
    accept_one(&store, b"for a", &clock);
    assert_eq!(store.ready(), 2);
    // The group b is gone: said, kept.
    store.keep_only(&sinks()[..1]);
    assert!(!store.show(id).expect("kept").0.sink_known);
    // It comes back under the number that it had; another one is new.
    let names = ["b/slack".to_owned(), "c/webhook".to_owned()];
    assert_eq!(store.number(&names), Ok(vec![S2, SinkNumber(3)]));
    store.keep_only(&names);
    assert!(store.show(id).expect("kept").0.sink_known);
    assert_eq!(store.take(S2).expect("as before").id, id);
    let for_c = task("c", b"for c", &clock);
    let new = for_c.id;
    accept(&store, &[(SinkNumber(3), for_c)]).expect("accepted");
    assert_eq!(store.take(SinkNumber(3)).expect("its own").id, new);
    let long = store.number(&["x".repeat(10_000)]).expect_err("too long to be stored");
    assert!(long.contains("shorten the group's"), "{long}");
}

#[test]
fn tasks_found_at_the_start_go_to_a_sink_that_comes_later() {
    let (dir, clock) = (Dir::new("later"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let waiting: Vec<_> = (0..3u8)
        .map(|n| {
            let task = task("b", &[n], &clock);
            let id = task.id;
            accept(&store, &[(S2, task)]).expect("accepted");
            id
        })
        .collect();
    drop(store);
    let disk = |p: &std::path::Path| -> std::sync::Arc<dyn crate::store::disk::Disk> {
        std::sync::Arc::new(crate::store::disk::RealDisk::existing(p))
    };
    let disks = (disk(dir.path()), disk(&dir.path().join("dead")));
    let registry = crate::metrics::Registry::new();
    let known = [sinks()[0].clone()];
    let (store, report) =
        open_with(disks, settings(dir.path()), &known, &clock, Default::default(), &registry)
            .expect("a store");
    assert_eq!(report.unknown_sinks, [("b/slack".to_owned(), 3)]);
    assert_eq!(store.number(&["b/slack".to_owned()]), Ok(vec![SinkNumber(1)]));
    assert_eq!(store.pending(SinkNumber(1)), 3);
    for id in waiting {
        assert_eq!(store.take(SinkNumber(1)).expect("in order").id, id);
    }
}

#[test]
fn a_replay_has_the_limits_of_now() {
    let (dir, clock) = (Dir::new("limits"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    accept_one(&store, b"poison", &clock);
    kill_next(&store, "gone");
    settle(&store);
    store.set_limits(Limits { attempts_max: Some(7), age_max: Some(Duration::from_secs(60)) });
    let dead = Filter { kind: Some(Kind::Dead), ..Filter::default() };
    assert_eq!(store.replay(&dead, 9).len(), 1);
    settle(&store);
    let again = store.take(S0).expect("pending again");
    assert_eq!(again.attempts_max, Some(7));
    clock.add(61);
    assert!(again.expires_at.is_some_and(|at| at <= clock.now()), "{:?}", again.expires_at);
}
