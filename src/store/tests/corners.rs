//! What only a fault or a crash at the wrong moment brings about.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::promise::{SEGMENT, Shared, Worker, small_settings};
use super::support::*;
use crate::metrics::Registry;
use crate::side_effect::retry::GiveUp;
use crate::side_effect::{End, Ledger, Refused, SinkNumber, Task, TaskId};
use crate::store::disk::sim::{Fault, Sim, World};
use crate::store::disk::{Disk, DiskFile, Listed, Lock, LockError};
use crate::store::inner::{Bugs, Log};
use crate::store::journal::{Class, Entry as Record, Journal, Options};
use crate::store::look::{Looked, look_on};
use crate::store::{Filter, Kind, OpenError, Reason, Standing, Store, set_aside};

const S0: SinkNumber = SinkNumber(0);

fn worker<'m>(sim: &Sim, model: &'m Shared) -> Worker<'m> {
    Worker::open(sim, model, Bugs::default(), false).expect("it opens").expect("a store")
}

fn dead() -> Filter {
    Filter { kind: Some(Kind::Dead), ..Filter::default() }
}

fn looked(sim: &Sim) -> Result<Looked, OpenError> {
    let (pending, dead) = (sim.disk("q"), sim.disk("q/dead"));
    look_on(&*pending, Some(&*dead), Path::new("q"), &["a/slack".to_owned()], &Filter::default(), 99)
}

/// Takes and sends the next task, and gives it up.
fn kill(w: &Worker<'_>) -> Task {
    let task = w.take().expect("a task");
    assert!(w.send(&task, 1));
    w.given_up(&task, 1);
    task
}

/// The files of one log from one moment, those of the other from another: as a crash between two syncs leaves them.
fn between(pending: &World, dead: &World) -> Sim {
    let mut world = pending.clone();
    for name in world.names("q/dead") {
        world.take("q/dead", &name);
    }
    let mut dead = dead.clone();
    for name in dead.names("q/dead") {
        let bytes = dead.take("q/dead", &name).expect("it is listed");
        world.put("q/dead", &name, bytes);
    }
    Sim::new(world)
}

#[test]
fn a_crash_between_the_two_logs_leaves_each_task_in_one_of_them() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(1, 10, None).expect("accepted");
    let task = kill(&w);
    w.store.commit();
    let before = sim.world();
    w.tick();
    w.store.commit();
    let buried = sim.world();
    let replayed = w.store.replay(&dead(), 9);
    let new = replayed[0].task.clone().expect("a new task");
    let after = sim.world();
    // The dead letter is there, and its task has not ended yet; then the new task is there, and the dead letter has not gone yet.
    for (sim, kind, id) in
        [(between(&before, &buried), Kind::Dead, task.id), (between(&after, &buried), Kind::Pending, new)]
    {
        let world = sim.world().fingerprint();
        let looked = looked(&sim).expect("looked");
        let found: Vec<_> = looked.listed.items.iter().map(|i| (i.kind, i.id)).collect();
        assert_eq!((found, looked.left_out), (vec![(kind, id)], 0));
        assert_eq!(
            (looked.report.pending, looked.report.dead),
            if kind == Kind::Dead { (0, 1) } else { (1, 0) }
        );
        assert_eq!(sim.world().fingerprint(), world);
        let disks = (sim.disk("q"), sim.disk("q/dead"));
        let (clock, registry) = (TestClock::at(1_000_000), Registry::new());
        let sinks = ["a/slack".to_owned()];
        let (store, _) =
            open_with(disks, small_settings(), &sinks, &clock, Bugs::default(), &registry).expect("a store");
        let found: Vec<_> = store.list(&Filter::default(), 9).items.iter().map(|i| (i.kind, i.id)).collect();
        assert_eq!(found, [(kind, id)]);
    }
}

#[test]
fn dead_letters_are_carried_when_their_segments_are_mostly_dead() {
    let (dir, clock) = (Dir::new("carrydead"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let mut killed = Vec::new();
    for n in 0..20 {
        accept_one(&store, &vec![n; 28_000], &clock);
        killed.push(kill_next(&store, "refused"));
        clock.add(1);
        settle(&store);
    }
    let full = store.inner.dead.segments();
    assert!(full.count >= 8, "{full:?}");
    let kept = [killed[0], killed[9]];
    for id in killed.iter().filter(|id| !kept.contains(id)) {
        let dropped = store.drop(&Filter { ids: vec![*id], ..dead() }, 1);
        assert!(dropped[0].result.is_ok(), "{dropped:?}");
    }
    for _ in 0..4 {
        settle(&store);
    }
    let after = store.inner.dead.segments();
    assert!(store.inner.meters.carried.get() > 0);
    assert!(after.front > full.front && after.count < full.count, "{after:?}");
    let records: Vec<u8> = kept.map(|id| store.show(id).expect("it is there").1[0]).to_vec();
    assert_eq!(records, [0, 9]);
    drop(store);
    let (store, report) = open(dir.path(), &clock);
    assert_eq!((report.dead, report.damages.len()), (2, 0));
    assert_eq!(store.list(&dead(), 9).items.iter().map(|i| i.id).collect::<Vec<_>>(), kept);
}

#[test]
fn carried_tasks_are_looked_at_with_their_last_failure() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(1, 700, None).expect("accepted");
    let old = w.take().expect("a task");
    assert!(w.send(&old, 1));
    w.failed(&old, 1);
    for _ in 0..12 {
        w.accept(3, 1500, None).expect("accepted");
        w.deliver_all();
        w.tick();
    }
    assert!(w.store.inner.meters.carried.get() > 0);
    w.store.commit();
    let looked = looked(&sim).expect("looked");
    let [item] = &looked.listed.items[..] else { panic!("{looked:?}") };
    assert_eq!((item.id, item.error.as_str(), item.status, item.attempts), (old.id, "busy", Some(503), 1));
    assert_eq!(looked.record.map(|record| record.len()), Some(700));
    sim.set_fault(Some(Fault::Reads));
    let refused = self::looked(&sim).expect_err("a disk that does not read").to_string();
    assert!(refused.starts_with("async.durable.dir q: cannot read"), "{refused}");
}

#[test]
fn records_that_nobody_knows_are_told_with_their_file_in_either_log() {
    let sim = Sim::default();
    for dir in ["q", "q/dead"] {
        let quiet: crate::store::journal::Watch = Arc::new(|_| ());
        let mut options = Options::new(14 * SEGMENT, 7, quiet);
        options.segment_bytes = SEGMENT as u32;
        options.record_bytes_max = 1000;
        let (journal, _) = Journal::open(sim.disk(dir), options, &mut |_, _| ()).expect("a journal");
        let entry = Record { kind: 99, body: b"of a later release" };
        journal.append(Class::Accept, &[entry], Box::new(|_| ())).expect("room");
        journal.close().expect("closed");
    }
    let report = looked(&sim).expect("looked").report;
    let told: Vec<String> = report.damages.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("dead/0000000000000001.seg at byte 4096: "), "{told:?}");
    assert!(told[1].starts_with("0000000000000001.seg at byte 4096: "), "{told:?}");
    for damage in &report.damages {
        assert!(damage.what.ends_with("the record is left out") && !damage.what.contains(".seg"), "{damage}");
    }
}

#[test]
fn a_drop_while_the_disk_takes_nothing_is_made_good_later() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(3, 10, None).expect("accepted");
    sim.set_fault(Some(Fault::AllSyncs));
    // The first one breaks the log, the second one is refused by it.
    for _ in 0..2 {
        let dropped = w.store.drop(&Filter::default(), 1);
        assert!(dropped[0].result.as_ref().is_err_and(|e| e.contains("once the disk")), "{dropped:?}");
    }
    assert_eq!(w.store.inner.state.lock().lost.len(), 2);
    sim.set_fault(None);
    w.tick();
    w.tick();
    w.store.commit();
    assert_eq!(looked(&sim).expect("looked").report.pending, 1);
}

/// A disk that is another one from some time on.
struct Turning {
    disks: [Arc<dyn Disk>; 2],
    opened: AtomicUsize,
    /// Files that are opened on the first one.
    first: usize,
}

impl Disk for Turning {
    fn list(&self) -> std::io::Result<Vec<Listed>> {
        self.disks[0].list()
    }
    fn create(&self, name: &str, bytes: u64) -> std::io::Result<Box<dyn DiskFile>> {
        self.disks[0].create(name, bytes)
    }
    fn open(&self, name: &str) -> std::io::Result<Box<dyn DiskFile>> {
        self.disks[0].open(name)
    }
    fn open_read_only(&self, name: &str) -> std::io::Result<Box<dyn DiskFile>> {
        let opened = self.opened.fetch_add(1, Ordering::SeqCst);
        self.disks[usize::from(opened >= self.first)].open_read_only(name)
    }
    fn unlink(&self, name: &str) -> std::io::Result<()> {
        self.disks[0].unlink(name)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disks[0].rename(from, to)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.disks[0].sync_dir()
    }
    fn lock(&self) -> Result<Lock, LockError> {
        self.disks[0].lock()
    }
    fn shown(&self, name: &str) -> String {
        self.disks[0].shown(name)
    }
}

#[test]
fn what_a_look_cannot_find_again_is_counted() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(1, 100, None).expect("accepted");
    w.accept(1, 50, None).expect("accepted");
    let mut worse = sim.world();
    for name in worse.names("q") {
        let bytes = worse.bytes("q", &name).expect("it is listed");
        if let Some(at) = bytes.windows(50).position(|w| w == [2; 50]) {
            bytes[at] ^= 1;
        }
    }
    let worse = Sim::new(worse);
    let look = |first| {
        let pending = Turning { disks: [sim.disk("q"), worse.disk("q")], opened: AtomicUsize::new(0), first };
        let names = ["a/slack".to_owned()];
        let looked = look_on(&pending, None, Path::new("q"), &names, &Filter::default(), 9).expect("looked");
        (looked, pending.opened.into_inner())
    };
    let (whole, opened) = look(usize::MAX);
    assert_eq!((whole.listed.items.len(), whole.left_out), (2, 0));
    let (cut, _) = look(opened / 2);
    assert_eq!((cut.listed.items.len(), cut.listed.matched, cut.left_out), (1, 2, 1));
    assert_eq!(cut.listed.items[0], whole.listed.items[0]);
}

/// Changes every byte of `needle` where a file of the directory holds it.
fn corrupt(dir: &Path, needle: &[u8]) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let Ok(mut bytes) = std::fs::read(entry.path()) else { continue };
        if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) {
            bytes[at] ^= 1;
            std::fs::write(entry.path(), bytes).expect("written");
        }
    }
}

#[test]
fn a_dead_letter_that_cannot_be_read_is_listed_and_can_be_dropped() {
    let (dir, clock) = (Dir::new("baddead"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let mut ids = Vec::new();
    for record in [&b"the first record"[..], b"the second record"] {
        accept_one(&store, record, &clock);
        ids.push(kill_next(&store, "refused"));
        settle(&store);
        clock.add(10);
    }
    corrupt(&dir.path().join("dead"), b"the first record");
    let listed = store.list(&Filter::default(), 9);
    assert_eq!((listed.matched, listed.items.len()), (2, 2));
    let bad = &listed.items[0];
    assert_eq!((bad.id, bad.sink.as_str(), bad.sink_known, bad.record_bytes), (ids[0], "a/slack", true, 0));
    assert_eq!(
        (bad.standing, bad.reason, bad.dead_at),
        (Standing::Dead, Some(Reason::Permanent), Some(TestClock::at(1000).now()))
    );
    assert!(bad.error.starts_with("the record cannot be read"), "{}", bad.error);
    let replayed = store.replay(&Filter { ids: ids[..1].to_vec(), ..dead() }, 9);
    assert!(replayed[0].task.as_ref().is_err_and(|e| e.contains("cannot be read")), "{replayed:?}");
    // The place of another one's record is no better.
    let other = store.inner.state.lock().dead.get(ids[1].bits()).expect("it is there").at;
    store.inner.state.lock().dead.moved(ids[0].bits(), other);
    assert!(store.show(ids[0]).expect("it is there").0.error.contains("another one's"));
    let dropped = store.drop(&Filter { ids: ids[..1].to_vec(), ..dead() }, 9);
    assert!(dropped[0].result.is_ok() && store.show(ids[0]).is_none());
}

#[test]
fn a_record_that_is_lost_before_the_burial_leaves_a_dead_letter_that_says_so() {
    let (dir, clock) = (Dir::new("lost"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let id = accept_one(&store, b"the lost record", &clock);
    assert_eq!(kill_next(&store, "refused"), id);
    store.commit();
    corrupt(dir.path(), b"the lost record");
    settle(&store);
    let (item, record) = store.show(id).expect("kept");
    assert_eq!(
        (item.kind, item.reason, item.attempts, record.len()),
        (Kind::Dead, Some(Reason::Damaged), 1, 0)
    );
    assert!(item.error.starts_with("the record can no longer be read"), "{}", item.error);
    assert_eq!(store.inner.meters.damages.get(), 1);
}

#[test]
fn a_place_that_holds_another_record_is_damage() {
    for wrong_kind in [false, true] {
        let (dir, clock) = (Dir::new("other"), TestClock::at(1000));
        let (store, _) = open(dir.path(), &clock);
        let ids = [accept_one(&store, b"one", &clock), accept_one(&store, b"two", &clock)].map(TaskId::bits);
        {
            let mut state = store.inner.state.lock();
            let other = state.tasks.get(ids[1]).expect("it is there").at;
            let entry = state.tasks.get_mut(ids[0]).expect("it is there");
            if wrong_kind {
                entry.carried = true;
            } else {
                entry.at = other;
            }
        }
        assert_eq!(store.take(S0).map(|task| task.id.bits()), Some(ids[1]));
        settle(&store);
        let item = store.show(TaskId::from_bits(ids[0])).expect("kept").0;
        assert_eq!((item.kind, item.reason), (Kind::Dead, Some(Reason::Damaged)));
    }
}

#[test]
fn a_task_that_was_moved_while_it_was_read_is_taken_again() {
    let (dir, clock) = (Dir::new("moved"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let id = accept_one(&store, b"one", &clock);
    let mut stale = store.inner.state.lock().tasks.take(0).expect("a task");
    assert_eq!((stale.id, store.pending(S0)), (id.bits(), 0));
    stale.at.offset += 8;
    store.inner.unreadable(&stale, &std::io::Error::from(std::io::ErrorKind::InvalidData));
    assert_eq!((store.pending(S0), store.inner.meters.damages.get()), (1, 0));
    let task = store.take(S0).expect("again");
    // What is told of a task that is over changes nothing.
    store.ended(S0, &task, &End::Delivered);
    store.inner.unreadable(&stale, &std::io::Error::from(std::io::ErrorKind::InvalidData));
    store.failed(S0, &task, 1, clock.now(), &error("late"));
    store.ended(S0, &task, &End::Delivered);
    store.returned(S0, &task);
    assert_eq!(store.list(&Filter::default(), 9).matched, 0);
}

#[test]
fn what_is_being_written_is_not_dropped() {
    let (dir, clock) = (Dir::new("syncing"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let (told, answer) = crossbeam_channel::bounded(1);
    let new = task("a", b"x", &clock);
    let id = new.id.bits();
    store.accept(&[(S0, new)], Box::new(move |result| told.send(result).expect("somebody waits")));
    let dropped = store.inner.drop_batch(Log::Pending, &[id]);
    assert!(dropped[0].result.as_ref().is_err_and(|e| e.contains("being written")), "{dropped:?}");
    store.commit();
    assert_eq!(answer.recv_timeout(LATER), Ok(Ok(())));
    assert_eq!(store.pending(S0), 1);
}

#[test]
fn dead_letters_wait_for_room_on_the_disk() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(1, 10, None).expect("accepted");
    kill(&w);
    w.store.commit();
    sim.set_fault(Some(Fault::Full));
    w.store.inner.dead.tick(crate::clock::now());
    w.store.inner.tick();
    assert_eq!((w.store.list(&dead(), 9).matched, w.store.inner.state.lock().tasks.parked()), (0, 1));
    sim.set_fault(None);
    w.tick();
    w.tick();
    assert_eq!((w.store.list(&dead(), 9).matched, w.store.inner.state.lock().tasks.parked()), (1, 0));
    w.compare().expect("as promised");
}

#[test]
fn a_dead_letters_task_ends_again_after_a_fault_and_late_failures_are_forgotten() {
    let (sim, model) = (Sim::default(), Shared::default());
    let w = worker(&sim, &model);
    w.accept(2, 10, None).expect("accepted");
    kill(&w);
    let other = w.take().expect("a task");
    assert!(w.send(&other, 1));
    w.store.commit();
    // The dead letter becomes durable, its task's end does not.
    sim.set_fault(Some(Fault::Sync(sim.steps().syncs + 1)));
    w.store.inner.tick();
    w.failed(&other, 1);
    w.store.commit();
    assert_eq!(w.store.inner.state.lock().lost.len(), 2);
    assert!(w.store.inner.state.lock().dead.oldest_settled().is_none());
    // The disk takes writes again, and the next attempt is made before the failure is written down.
    w.store.inner.pending.tick(crate::clock::now());
    assert!(w.send(&other, 2));
    w.store.inner.tick();
    w.store.commit();
    assert!(w.store.inner.state.lock().dead.oldest_settled().is_some());
    assert!(w.store.inner.state.lock().lost.is_empty());
    std::mem::forget(w.store);
    let w = worker(&sim, &model);
    let item = w.store.show(other.id).expect("pending").0;
    assert_eq!((item.kind, item.attempts, item.error.as_str()), (Kind::Pending, 2, ""));
}

#[test]
fn moving_what_was_set_aside_names_the_file_that_cannot_be_moved() {
    let dir = Dir::new("inway");
    assert_eq!(set_aside(dir.path()).expect("nothing to do"), Vec::<std::path::PathBuf>::new());
    std::fs::write(dir.path().join("0000000000000001.seg.damaged"), b"1").expect("a file");
    std::fs::create_dir_all(dir.path().join("quarantine/0000000000000001.seg.damaged")).expect("in the way");
    let refused = set_aside(dir.path()).expect_err("in the way").to_string();
    assert!(refused.starts_with("cannot move \"0000000000000001.seg.damaged\""), "{refused}");
    assert!(dir.path().join("0000000000000001.seg.damaged").is_file());
}

#[test]
fn a_closed_store_refuses_everybody() {
    let (dir, clock) = (Dir::new("closed"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    accept_one(&store, b"x", &clock);
    let task = store.take(S0).expect("a task");
    store.close().expect("closed");
    assert_eq!(accept(&store, &[(S0, super::support::task("a", b"y", &clock))]), Err(Refused::Closed));
    assert_eq!(store.accepting(), Err(Refused::Closed));
    assert!(store.reserve(S0, &task, 1).is_err_and(|e| e.to_string().contains("closed")));
    give_up(&store, 0, &task, 1, GiveUp::Exhausted, "no more");
    drop(store);
    let (store, report): (Store, _) = open(dir.path(), &clock);
    assert_eq!((report.pending, store.pending(S0)), (1, 1));
}
