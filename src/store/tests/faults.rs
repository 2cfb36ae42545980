//! What a failing, full or damaged disk does to tasks.

use std::sync::Arc;

use super::promise::{SEGMENT, Shared, Worker, locked, small_settings};
use super::support::*;
use crate::metrics::Registry;
use crate::side_effect::retry::GiveUp;
use crate::side_effect::{End, Ledger, Refused, SinkNumber};
use crate::store::disk::sim::{Fault, Sim};
use crate::store::inner::Bugs;
use crate::store::{Filter, Kind, Reason};

const S0: SinkNumber = SinkNumber(0);

fn worker<'m>(sim: &Sim, model: &'m Shared) -> Worker<'m> {
    Worker::open(sim, model, Bugs::default(), false).expect("it opens").expect("a store")
}

fn dead() -> Filter {
    Filter { kind: Some(Kind::Dead), ..Filter::default() }
}

/// As if the process were killed.
fn kill(worker: Worker<'_>) {
    std::mem::forget(worker.store);
}

#[test]
fn after_a_failed_sync_nothing_is_acked_until_a_fresh_segment_is_there() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(2, 10, Some(2)).expect("accepted");
    let (task, other) = (w.take().expect("a task"), w.take().expect("another"));
    sim.set_fault(Some(Fault::AllSyncs));
    assert_eq!(w.accept(1, 10, None), Err(Refused::Broken));
    assert!(!w.send(&task, 1), "not reserved, not sent");
    assert_eq!(w.accept(1, 10, None), Err(Refused::Broken));
    assert!(w.store.accepting().is_err());
    w.delivered(&other);
    w.failed(&task, 1);
    w.tick();
    assert_eq!(w.accept(1, 10, None), Err(Refused::Broken));
    sim.set_fault(None);
    w.tick();
    w.accept(1, 10, None).expect("accepted again");
    assert!(w.send(&task, 2), "the attempt that was not reserved did not count, the failure of it did");
    w.compare().expect("as promised");
    kill(w);
    let w = worker(&sim, &model);
    assert_eq!(locked(&model).tasks.values().filter(|p| p.acked()).count(), 3);
    w.fresh_task_gets_through().expect("a fresh one");
}

#[test]
fn a_reservation_in_a_failed_batch_counts_for_nothing() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(1, 10, Some(1)).expect("accepted");
    let task = w.take().expect("a task");
    sim.set_fault(Some(Fault::AllSyncs));
    for _ in 0..3 {
        assert!(!w.send(&task, 1));
        w.tick();
    }
    sim.set_fault(None);
    w.tick();
    assert!(w.send(&task, 1));
    w.delivered(&task);
    assert!(w.accept(1, 10, None).is_ok());
    kill(w);
    let w = worker(&sim, &model);
    assert_eq!(w.store.list(&Filter::default(), 9).matched, 1);
}

#[test]
fn ends_that_a_fault_has_kept_back_are_written_when_it_is_over() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(4, 10, None).expect("accepted");
    let tasks: Vec<_> = (0..4).map(|_| w.take().expect("a task")).collect();
    for task in &tasks {
        assert!(w.send(task, 1));
    }
    w.delivered(&tasks[0]);
    w.failed(&tasks[1], 1);
    w.given_up(&tasks[2], 1);
    sim.set_fault(Some(Fault::AllSyncs));
    w.store.commit();
    w.delivered(&tasks[3]);
    w.tick();
    sim.set_fault(None);
    for _ in 0..4 {
        w.tick();
    }
    w.store.commit();
    assert!(w.store.inner.state.lock().lost.is_empty());
    let (item, _) = w.store.show(tasks[1].id).expect("pending");
    assert_eq!((item.error.as_str(), item.status), ("busy", Some(503)));
    kill(w);
    let w = worker(&sim, &model);
    let listed = w.store.list(&Filter::default(), 9);
    assert_eq!(listed.matched, 2);
    assert_eq!((listed.items[0].id, listed.items[0].error.as_str()), (tasks[1].id, "busy"));
    assert_eq!((listed.items[1].id, listed.items[1].reason), (tasks[2].id, Some(Reason::Exhausted)));
}

#[test]
fn dead_letters_wait_for_their_disk() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(2, 10, None).expect("accepted");
    let task = w.take().expect("a task");
    assert!(w.send(&task, 1));
    w.given_up(&task, 1);
    w.store.commit();
    sim.set_fault(Some(Fault::AllSyncs));
    w.tick();
    assert_eq!(w.store.list(&dead(), 9).matched, 0);
    w.dropped(&task);
    let dropped = w.store.drop(&Filter { ids: vec![task.id], ..Filter::default() }, 9);
    assert_eq!(dropped.len(), 1);
    sim.set_fault(None);
    for _ in 0..4 {
        w.tick();
    }
    w.store.commit();
    w.compare().expect("as promised");
}

#[test]
fn a_drop_that_the_disk_has_not_taken_says_so_and_is_made_good() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(3, 10, None).expect("accepted");
    let task = w.take().expect("a task");
    assert!(w.send(&task, 1));
    w.given_up(&task, 1);
    w.tick();
    w.store.commit();
    assert_eq!(w.store.list(&dead(), 9).matched, 1);
    sim.set_fault(Some(Fault::AllSyncs));
    for _ in 0..2 {
        let dropped = w.store.drop(&Filter::default(), 2);
        assert!(
            dropped.iter().all(|d| d.result.as_ref().is_err_and(|e| e.contains("once the disk"))),
            "{dropped:?}"
        );
    }
    let replayed = w.store.replay(&dead(), 9);
    assert!(replayed.is_empty());
    sim.set_fault(None);
    w.tick();
    w.tick();
    w.store.commit();
    kill(w);
    let disks = (sim.disk("q"), sim.disk("q/dead"));
    let names = ["a/slack".to_owned()];
    let clock = TestClock::at(1_000_000);
    let (store, report) =
        open_with(disks, small_settings(), &names, &clock, Bugs::default(), &Registry::new())
            .expect("a store");
    assert_eq!((report.pending, report.dead, store.pending(S0)), (0, 0, 0));
}

#[test]
fn a_disk_that_does_not_read_gives_the_task_another_chance() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(1, 10, None).expect("accepted");
    sim.set_fault(Some(Fault::Reads));
    assert!(w.take().is_none());
    let item = w.store.list(&Filter::default(), 1).items.pop().expect("it is there");
    assert!(item.error.contains("cannot be read"), "{item:?}");
    w.tick();
    assert!(w.take().is_none());
    sim.set_fault(None);
    w.clock.add(5);
    w.tick();
    let task = w.take().expect("again");
    assert!(w.send(&task, 1));
    w.given_up(&task, 1);
    w.store.commit();
    sim.set_fault(Some(Fault::Reads));
    w.store.inner.tick();
    assert_eq!(w.store.inner.state.lock().tasks.parked(), 1);
    sim.set_fault(None);
    w.tick();
    w.store.commit();
    assert_eq!(w.store.list(&dead(), 9).matched, 1);
}

/// Flips a byte of the record of the only file of a directory that holds it.
fn damage(sim: &Sim, dir: &str, needle: &[u8]) -> Sim {
    let mut world = sim.world();
    for name in world.names(dir) {
        let Some(bytes) = world.bytes(dir, &name) else { continue };
        if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) {
            bytes[at] ^= 1;
        }
    }
    Sim::new(world)
}

#[test]
fn a_record_that_is_damaged_while_the_store_runs_is_a_dead_letter_alone() {
    let (dir, clock) = (Dir::new("damage"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let bad = accept_one(&store, b"the damaged record", &clock);
    let good = accept_one(&store, b"the good record", &clock);
    for entry in std::fs::read_dir(dir.path()).expect("a directory").flatten() {
        let Ok(mut bytes) = std::fs::read(entry.path()) else { continue };
        if let Some(at) = bytes.windows(11).position(|w| w == b"the damaged") {
            bytes[at] ^= 1;
            std::fs::write(entry.path(), bytes).expect("written");
        }
    }
    assert_eq!(store.take(S0).expect("the good one").id, good);
    settle(&store);
    let (item, record) = store.show(bad).expect("kept");
    assert_eq!((item.kind, item.reason, record.len()), (Kind::Dead, Some(Reason::Damaged), 0));
    assert_eq!((item.sink.as_str(), item.accepted_at), ("a/slack", clock.now()));
    let replayed = store.replay(&dead(), 9);
    assert!(replayed[0].task.as_ref().is_err_and(|e| e.contains("lost")), "{replayed:?}");
    assert_eq!(store.list(&dead(), 9).matched, 1);
}

#[test]
fn damage_found_at_start_is_told_and_hides_nothing_intact() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    for n in 0..4 {
        w.accept(1, 100 + n, None).expect("accepted");
    }
    w.store.close().expect("closed");
    drop(w);
    let sim = damage(&sim, "q", &[2; 50]);
    let disks = (sim.disk("q"), sim.disk("q/dead"));
    let (clock, registry) = (TestClock::at(1_000_000), Registry::new());
    let names = ["a/slack".to_owned()];
    let (store, report) =
        open_with(disks, small_settings(), &names, &clock, Bugs::default(), &registry).expect("a store");
    assert_eq!((report.pending, report.damages.len()), (3, 1), "{report:?}");
    let damage = &report.damages[0];
    assert!(
        damage.file == "0000000000000001.seg" && damage.offset > 4096 && !damage.what.contains("seg"),
        "{damage}"
    );
    assert_eq!(store.pending(S0), 3);
    assert!(registry.render().contains("vault_audit_filter_store_damages_total 1"));
}

#[test]
fn a_full_store_refuses_and_finishes_what_it_has() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    let mut accepted = 0;
    while w.accept(1, 1000, None).is_ok() {
        accepted += 1;
        w.tick();
        assert!(accepted < 200);
    }
    assert!(accepted > 20, "{accepted}");
    assert_eq!(w.accept(1, 1000, None), Err(Refused::Full));
    let mut done = 0;
    while let Some(task) = w.take() {
        assert!(w.send(&task, 1), "I12");
        w.failed(&task, 1);
        assert!(w.send(&task, 2), "I12");
        w.delivered(&task);
        done += 1;
        if done % 5 == 0 {
            w.tick();
            w.compare().expect("bounded");
        }
    }
    assert_eq!(done, accepted);
    w.fresh_task_gets_through().expect("room again");
}

#[test]
fn a_disk_without_room_refuses_and_finishes_what_it_has() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(5, 1000, None).expect("accepted");
    w.tick();
    sim.set_fault(Some(Fault::Names(sim.steps().names)));
    while let Some(task) = w.take() {
        assert!(w.send(&task, 1));
        w.delivered(&task);
    }
    w.tick();
    w.fresh_task_gets_through().expect("room again");
    w.compare().expect("as promised");
}

/// A sink that is away for a week: tasks come every minute, one is probed now and then; all that fits is kept, the disk is bounded, and
/// what was accepted comes out in order.
#[test]
fn a_week_long_outage_is_bounded_and_ends_in_order() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    let (mut accepted, mut refused, mut died) = (Vec::new(), 0, 0);
    for minute in 0..7 * 24 * 60 / 10 {
        w.clock.add(600);
        let new = task("a", &[minute as u8; 300], &w.clock);
        let id = new.id;
        match accept(&w.store, &[(S0, new)]) {
            Ok(()) => accepted.push(id),
            Err(refusal) => {
                assert_eq!(refusal, Refused::Full);
                refused += 1;
            }
        }
        if minute % 6 == 0
            && let Some(probe) = w.store.take(S0)
        {
            let attempt = probe.attempts_made + 1;
            w.store.reserve(S0, &probe, attempt).expect("I12: reserved");
            if attempt >= 3 {
                give_up(&w.store, 0, &probe, attempt, GiveUp::Expired, "still down");
                died += 1;
            } else {
                w.store.failed(S0, &probe, attempt, w.clock.now(), &error("down"));
                w.store.returned(S0, &probe);
            }
        }
        if minute % 10 == 0 {
            w.tick();
        }
        let used = sim.world().used("q") + sim.world().used("q/dead");
        assert!(used <= 14 * SEGMENT, "I7: {used} in minute {minute}");
    }
    assert!(died > 20 && refused > 100 && accepted.len() > 80, "{died} {refused} {}", accepted.len());
    assert!(w.store.inner.meters.carried.get() > 0);
    let mut delivered = Vec::new();
    while let Some(task) = w.store.take(S0) {
        w.store.reserve(S0, &task, task.attempts_made + 1).expect("reserved");
        w.store.ended(S0, &task, &End::Delivered);
        delivered.push(task.id);
    }
    for _ in 0..3 {
        w.tick();
    }
    w.store.commit();
    let listed = w.store.list(&Filter::default(), 10_000);
    let rest: Vec<_> = listed.items.iter().map(|i| i.id).collect();
    assert_eq!(rest.len() + delivered.len(), accepted.len());
    let in_order: Vec<_> = accepted.iter().filter(|id| delivered.contains(id)).copied().collect();
    assert_eq!(delivered, in_order);
    assert_eq!(accept(&w.store, &[(S0, task("a", b"after", &w.clock))]), Ok(()));
    let _ = Arc::strong_count(&model);
}
