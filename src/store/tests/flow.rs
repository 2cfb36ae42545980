//! A task's way through the store, and over restarts.

use super::support::*;
use crate::side_effect::retry::GiveUp;
use crate::side_effect::{DropReason, End, Ledger, Refused, SinkNumber};
use crate::store::{Filter, Kind, Reason, Standing};

const S0: SinkNumber = SinkNumber(0);
const S1: SinkNumber = SinkNumber(1);

#[test]
fn tasks_are_taken_oldest_first_and_returned_ones_go_back_to_their_place() {
    let (dir, clock) = (Dir::new("order"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let ids: Vec<_> = (0..4).map(|n| accept_one(&store, &[b'r', n], &clock)).collect();
    assert_eq!((store.pending(S0), store.pending(S1)), (4, 0));
    let (first, second) = (store.take(S0).expect("one"), store.take(S0).expect("two"));
    assert_eq!((first.id, second.id), (ids[0], ids[1]));
    assert_eq!(&*first.record, [b'r', 0]);
    assert_eq!((first.source, &*first.group, first.accepted_at), ("http", "a", clock.now()));
    store.returned(S0, &first);
    assert_eq!(store.take(S0).expect("again").id, ids[0]);
    assert_eq!(store.take(S0).expect("three").id, ids[2]);
    store.ended(S0, &second, &End::Delivered);
    assert_eq!(store.pending(S0), 1);
}

#[test]
fn a_task_is_not_visible_before_it_is_durable() {
    let (dir, clock) = (Dir::new("visible"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let (told, answer) = crossbeam_channel::bounded(1);
    let woken = crossbeam_channel::bounded(8);
    store.on_pending(Box::new(move |sink| woken.0.send(sink).expect("room")));
    let tasks = [(S0, task("a", b"x", &clock)), (S1, task("a", b"x", &clock))];
    store.accept(&tasks, Box::new(move |result| told.send(result).expect("room")));
    assert!(answer.try_recv().is_err());
    assert!(store.take(S0).is_none());
    assert_eq!(store.list(&Filter::default(), 10).matched, 0);
    store.commit();
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    let mut sinks: Vec<_> = woken.1.try_iter().collect();
    sinks.sort_unstable();
    assert_eq!(sinks, [S0, S1]);
    assert!(store.take(S0).is_some() && store.take(S1).is_some());
}

#[test]
fn everything_about_a_task_survives_a_restart() {
    let (dir, clock) = (Dir::new("restart"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let mut limited = task("b", b"limited", &clock);
    limited.attempts_max = Some(3);
    limited.expires_at = Some(clock.now() + LATER);
    let id = limited.id;
    accept(&store, &[(SinkNumber(2), limited)]).expect("accepted");
    let plain = accept_one(&store, b"plain", &clock);
    let taken = store.take(SinkNumber(2)).expect("a task");
    store.reserve(SinkNumber(2), &taken, 1).expect("reserved");
    store.failed(SinkNumber(2), &taken, 1, clock.now(), &error("busy"));
    store.reserve(SinkNumber(2), &taken, 2).expect("reserved");
    drop(store);
    clock.add(1);
    let (store, report) = open(dir.path(), &clock);
    assert_eq!((report.pending, report.dead, report.outcome_unknown), (2, 0, 0));
    let again = store.take(SinkNumber(2)).expect("the interrupted one");
    assert_eq!((again.id, again.attempts_made, again.attempts_max), (id, 2, Some(3)));
    assert_eq!(again.expires_at, Some(TestClock::at(1000).now() + LATER));
    assert_eq!(&*again.record, b"limited");
    assert_eq!(store.take(S0).expect("the other").id, plain);
    let (item, record) = store.show(id).expect("shown");
    assert_eq!((item.attempts, item.error.as_str(), item.status), (2, "busy", Some(503)));
    assert_eq!((item.standing, record.as_slice()), (Standing::InProgress, &b"limited"[..]));
    store.close().expect("closed");
}

#[test]
fn attempts_are_counted_once_and_never_above_the_limit() {
    let (dir, clock) = (Dir::new("limit"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let mut limited = task("a", b"x", &clock);
    limited.attempts_max = Some(2);
    accept(&store, &[(S0, limited)]).expect("accepted");
    let missing = task("a", b"x", &clock);
    let told = |e: std::io::Error| e.to_string();
    assert_eq!(store.reserve(S0, &missing, 1).map_err(told), Err("no such task is pending".to_owned()));
    let task = store.take(S0).expect("a task");
    store.reserve(S0, &task, 1).expect("the first");
    assert!(store.reserve(S0, &task, 1).map_err(told).is_err_and(|e| e.contains("before")));
    store.reserve(S0, &task, 2).expect("the second");
    assert!(store.reserve(S0, &task, 3).map_err(told).is_err_and(|e| e.contains("used up")));
    store.returned(S0, &task);
    assert!(store.reserve(S0, &task, 3).map_err(told).is_err_and(|e| e.contains("taken")));
}

#[test]
fn an_interrupted_final_attempt_is_a_dead_letter_of_unknown_outcome() {
    let (dir, clock) = (Dir::new("unknown"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let mut limited = task("a", b"x", &clock);
    limited.attempts_max = Some(2);
    let id = limited.id;
    accept(&store, &[(S0, limited)]).expect("accepted");
    let task = store.take(S0).expect("a task");
    store.reserve(S0, &task, 1).expect("reserved");
    store.failed(S0, &task, 1, clock.now(), &error("the one before"));
    store.reserve(S0, &task, 2).expect("reserved");
    drop(store);
    let (store, report) = open(dir.path(), &clock);
    assert_eq!(report.outcome_unknown, 1);
    assert!(store.take(S0).is_none());
    settle(&store);
    let (item, record) = store.show(id).expect("kept");
    assert_eq!((item.kind, item.reason, item.attempts), (Kind::Dead, Some(Reason::OutcomeUnknown), 2));
    assert_eq!((item.error.as_str(), record.as_slice()), ("", &b"x"[..]));
    drop(store);
    let (store, report) = open(dir.path(), &clock);
    assert_eq!((report.pending, report.dead, report.outcome_unknown), (0, 1, 0));
    assert_eq!(store.list(&Filter::default(), 9).matched, 1);
}

#[test]
fn a_dead_letter_keeps_the_whole_story() {
    let (dir, clock) = (Dir::new("story"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let id = accept_one(&store, b"the record", &clock);
    let task = store.take(S0).expect("a task");
    clock.set(1010);
    store.reserve(S0, &task, 1).expect("reserved");
    store.failed(S0, &task, 1, clock.now() + LATER, &error("first"));
    clock.set(1050);
    store.reserve(S0, &task, 2).expect("reserved");
    clock.set(1051);
    give_up(&store, 0, &task, 2, GiveUp::Exhausted, "second");
    assert_eq!(store.show(id).expect("dying").0.standing, Standing::Dying);
    settle(&store);
    for _ in 0..2 {
        let (store, _) = open(dir.path(), &clock);
        let (item, record) = store.show(id).expect("kept");
        assert_eq!(
            (item.kind, item.standing, item.reason),
            (Kind::Dead, Standing::Dead, Some(Reason::Exhausted))
        );
        assert_eq!((item.sink.as_str(), item.group.as_str(), item.source.as_str()), ("a/slack", "a", "http"));
        assert_eq!((item.attempts, item.status, item.error.as_str()), (2, Some(503), "second"));
        assert_eq!(item.accepted_at, TestClock::at(1000).now());
        assert_eq!(item.first_attempt_at, Some(TestClock::at(1010).now()));
        assert_eq!(item.last_attempt_at, Some(TestClock::at(1051).now()));
        assert_eq!(item.dead_at, Some(TestClock::at(1051).now()));
        assert_eq!(record, b"the record");
    }
}

#[test]
fn tasks_of_sinks_that_are_gone_are_kept_and_come_back_with_them() {
    let (dir, clock) = (Dir::new("gone"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let lost = task("b", b"for b", &clock);
    let id = lost.id;
    accept(&store, &[(SinkNumber(2), lost)]).expect("accepted");
    accept_one(&store, b"for a", &clock);
    drop(store);
    let registry = crate::metrics::Registry::new();
    let disk = |p: &std::path::Path| -> std::sync::Arc<dyn crate::store::disk::Disk> {
        std::sync::Arc::new(crate::store::disk::RealDisk::existing(p))
    };
    let disks = (disk(dir.path()), disk(&dir.path().join("dead")));
    let fewer = vec!["a/slack".to_owned()];
    let (store, report) =
        open_with(disks, settings(dir.path()), &fewer, &clock, Default::default(), &registry)
            .expect("a store");
    assert_eq!(report.unknown_sinks, [("b/slack".to_owned(), 1)]);
    assert_eq!((report.pending, store.pending(S0)), (2, 1));
    let item = store.show(id).expect("kept").0;
    assert_eq!((item.sink.as_str(), item.sink_known), ("b/slack", false));
    drop(store);
    let (store, report) = open(dir.path(), &clock);
    assert!(report.unknown_sinks.is_empty());
    assert_eq!(store.take(SinkNumber(2)).expect("back").id, id);
}

#[test]
fn a_task_that_is_not_due_is_held_back_for_an_hour_at_most() {
    let (dir, clock) = (Dir::new("held"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    for n in 0..2 {
        accept_one(&store, &[n], &clock);
    }
    let (soon, jumped) = (store.take(S0).expect("one"), store.take(S0).expect("two"));
    for task in [&soon, &jumped] {
        store.reserve(S0, task, 1).expect("reserved");
    }
    store.failed(S0, &soon, 1, clock.now() + LATER, &error("busy"));
    store.failed(S0, &jumped, 1, clock.now() + 100_000 * LATER, &error("busy"));
    drop(store);
    let (store, _) = open(dir.path(), &clock);
    assert_eq!(store.pending(S0), 0);
    assert_eq!(store.show(soon.id).expect("held").0.standing, Standing::Delayed);
    let woken = crossbeam_channel::bounded(8);
    store.on_pending(Box::new(move |sink| woken.0.send(sink).expect("room")));
    store.inner.tick();
    assert_eq!(woken.1.try_iter().count(), 0);
    clock.add(30);
    store.inner.tick();
    assert_eq!(woken.1.try_iter().collect::<Vec<_>>(), [S0]);
    assert_eq!(store.take(S0).expect("due").id, soon.id);
    clock.add(3600);
    store.inner.tick();
    assert_eq!(store.take(S0).expect("due").id, jumped.id);
}

#[test]
fn a_drop_at_shutdown_keeps_the_task_and_any_other_ends_it() {
    let (dir, clock) = (Dir::new("drop"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let kept = accept_one(&store, b"1", &clock);
    accept_one(&store, b"2", &clock);
    let (one, two) = (store.take(S0).expect("one"), store.take(S0).expect("two"));
    store.ended(S0, &one, &End::Dropped(DropReason::Shutdown));
    store.ended(S0, &two, &End::Dropped(DropReason::QueueFull));
    assert_eq!(store.pending(S0), 1);
    store.close().expect("closed");
    drop(store);
    let (store, report) = open(dir.path(), &clock);
    assert_eq!(report.pending, 1);
    assert_eq!(store.take(S0).expect("kept").id, kept);
}

#[test]
fn a_closed_store_refuses_and_keeps() {
    let (dir, clock) = (Dir::new("closed"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    accept_one(&store, b"1", &clock);
    let task = store.take(S0).expect("a task");
    store.inner.close().expect("closed");
    let answer = accept(&store, &[(S0, super::support::task("a", b"2", &clock))]);
    assert_eq!((answer, store.accepting()), (Err(Refused::Closed), Err(Refused::Closed)));
    assert!(store.reserve(S0, &task, 1).is_err());
    drop(store);
    let (store, report) = open(dir.path(), &clock);
    assert_eq!(report.pending, 1);
    assert_eq!(store.take(S0).expect("kept").attempts_made, 0);
}

#[test]
fn a_record_that_is_too_long_is_refused() {
    let (dir, clock) = (Dir::new("long"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let longest = store.record_bytes_max();
    assert!(longest > 40_000, "{longest}");
    let fits = task("a", &vec![b'x'; longest], &clock);
    let not = task("a", &vec![b'x'; longest + 4000], &clock);
    assert_eq!(accept(&store, &[(S0, fits)]), Ok(()));
    assert_eq!(accept(&store, &[(S0, not)]), Err(Refused::Full));
    assert_eq!(store.accepting(), Ok(()));
    kill_next(&store, "poison");
    settle(&store);
    assert_eq!(store.list(&Filter { kind: Some(Kind::Dead), ..Filter::default() }, 9).matched, 1);
}
