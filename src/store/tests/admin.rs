//! Listing, showing, replaying, dropping; on an open store and on a stopped one's directory.

use super::support::*;
use crate::side_effect::retry::GiveUp;
use crate::side_effect::{Ledger, SinkNumber, TaskId};
use crate::store::disk::{Disk, RealDisk};
use crate::store::{
    DeadKeep, Filter, Item, Kind, OpenError, Reason, Settings, Standing, Store, look, look_at, set_aside,
};

const S0: SinkNumber = SinkNumber(0);

fn dead() -> Filter {
    Filter { kind: Some(Kind::Dead), ..Filter::default() }
}

fn only(id: TaskId) -> Filter {
    Filter { ids: vec![id], ..Filter::default() }
}

/// Three dead letters of sink 0 and 2, two waiting tasks, one in progress.
fn mixed(store: &Store, clock: &TestClock) -> (Vec<TaskId>, Vec<TaskId>) {
    let mut dead = Vec::new();
    for n in 0..2 {
        accept_one(store, &[n], clock);
        dead.push(kill_next(store, "refused"));
        clock.add(10);
    }
    let other = task("b", b"other", clock);
    accept(store, &[(SinkNumber(2), other)]).expect("accepted");
    let other = store.take(SinkNumber(2)).expect("a task");
    store.reserve(SinkNumber(2), &other, 1).expect("reserved");
    give_up(store, 2, &other, 1, GiveUp::Expired, "too old");
    dead.push(other.id);
    settle(store);
    clock.add(10);
    let waiting = (0..3).map(|n| accept_one(store, &[10 + n], clock)).collect();
    store.take(S0).expect("in progress");
    (dead, waiting)
}

fn ids(items: &[Item]) -> Vec<TaskId> {
    items.iter().map(|i| i.id).collect()
}

#[test]
fn filters_choose_by_every_field() {
    let (dir, clock) = (Dir::new("filter"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let (died, waiting) = mixed(&store, &clock);
    let listed = |filter: &Filter| ids(&store.list(filter, 100).items);
    assert_eq!(listed(&Filter::default()), [waiting.clone(), died.clone()].concat());
    assert_eq!(listed(&dead()), died);
    assert_eq!(listed(&Filter { kind: Some(Kind::Pending), ..Filter::default() }), waiting);
    assert_eq!(listed(&Filter { groups: vec!["b".to_owned()], ..Filter::default() }), died[2..]);
    assert_eq!(listed(&Filter { sinks: vec!["b/slack".to_owned()], ..Filter::default() }), died[2..]);
    assert_eq!(listed(&Filter { reasons: vec![Reason::Permanent], ..Filter::default() }), died[..2]);
    let until = Some(TestClock::at(1010).now());
    assert_eq!(listed(&Filter { until, ..Filter::default() }), died[..1]);
    assert_eq!(listed(&Filter { since: until, ..dead() }), died[1..]);
    assert_eq!(listed(&only(waiting[1])), [waiting[1]]);
    assert_eq!(listed(&only(TaskId::from_bits(1))), []);
    let two = store.list(&Filter::default(), 2);
    assert_eq!((ids(&two.items), two.matched), (waiting[..2].to_vec(), 6));
    assert_eq!(ids(&store.list(&Filter::default(), 4).items).len(), 4);
    let standings: Vec<_> = store.list(&Filter::default(), 9).items.iter().map(|i| i.standing).collect();
    let (w, d) = (Standing::Waiting, Standing::Dead);
    assert_eq!(standings, [Standing::InProgress, w, w, d, d, d]);
    assert!(store.show(TaskId::from_bits(1)).is_none());
    let labels = [w, Standing::InProgress, Standing::Delayed, Standing::Dying, d].map(Standing::label);
    assert_eq!(labels, ["waiting", "in_progress", "delayed", "dying", "dead"]);
}

#[test]
fn a_replayed_dead_letter_is_a_new_task_with_its_history() {
    let (dir, clock) = (Dir::new("replay"), TestClock::at(1000));
    let limits = Settings { attempts_max: Some(7), age_max: Some(LATER), ..settings(dir.path()) };
    let (store, _) = open_settings(limits, &clock);
    accept_one(&store, b"again", &clock);
    let old = kill_next(&store, "refused");
    settle(&store);
    clock.set(5000);
    let replayed = store.replay(&dead(), 10);
    assert_eq!((replayed.len(), replayed[0].dead), (1, old));
    let new = replayed[0].task.clone().expect("a task");
    assert_eq!(store.list(&dead(), 9).matched, 0);
    let item = store.show(new).expect("pending").0;
    assert_eq!((item.origin, item.origin_attempts, item.attempts), (Some(old), 1, 0));
    assert_eq!((item.attempts_max, item.expires_at), (Some(7), Some(clock.now() + LATER)));
    drop(store);
    let (store, report) = open(dir.path(), &clock);
    assert_eq!((report.pending, report.dead), (1, 0));
    let taken = store.take(S0).expect("the new one");
    assert_eq!((taken.id, &*taken.record, taken.attempts_made), (new, &b"again"[..], 0));
    store.reserve(S0, &taken, 1).expect("reserved");
    give_up(&store, 0, &taken, 1, GiveUp::Permanent, "refused");
    settle(&store);
    let item = store.show(new).expect("dead").0;
    assert_eq!((item.origin, item.origin_attempts), (Some(old), 1));
    let newest = store.replay(&only(new), 1)[0].task.clone().expect("a task");
    assert_eq!(store.show(newest).expect("pending").0.origin_attempts, 2);
}

#[test]
fn what_cannot_be_replayed_says_why_and_stays() {
    let (dir, clock) = (Dir::new("noreplay"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let (died, _) = mixed(&store, &clock);
    drop(store);
    let disk =
        |p: &std::path::Path| -> std::sync::Arc<dyn Disk> { std::sync::Arc::new(RealDisk::existing(p)) };
    let disks = (disk(dir.path()), disk(&dir.path().join("dead")));
    let registry = crate::metrics::Registry::new();
    let fewer = ["a/slack".to_owned()];
    let (store, _) = open_with(disks, settings(dir.path()), &fewer, &clock, Default::default(), &registry)
        .expect("a store");
    let replayed = store.replay(&dead(), 9);
    assert!(replayed[..2].iter().all(|r| r.task.is_ok()));
    assert_eq!(replayed[2].dead, died[2]);
    assert!(replayed[2].task.as_ref().is_err_and(|e| e.contains("no sink \"b/slack\"")), "{replayed:?}");
    assert_eq!(ids(&store.list(&dead(), 9).items), died[2..]);
    store.inner.close().expect("closed");
    let refused = store.replay(&Filter { ids: vec![died[2]], ..Filter::default() }, 9);
    assert!(refused[0].task.is_err());
    assert!(store.inner.knows_sink("a/slack"));
}

#[test]
fn dropped_ones_are_gone_for_good_but_not_those_in_progress() {
    let (dir, clock) = (Dir::new("dropped"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    let (died, waiting) = mixed(&store, &clock);
    let dropped = store.drop(&Filter { groups: vec!["a".to_owned()], ..Filter::default() }, 4);
    assert_eq!(dropped.iter().map(|d| d.id).collect::<Vec<_>>(), [&waiting[..], &died[..1]].concat());
    assert!(dropped[0].result.as_ref().is_err_and(|e| e.contains("a worker has it")));
    assert!(dropped[1..].iter().all(|d| d.result.is_ok()));
    // Gone when the call returns: the process may be killed now.
    std::mem::forget(store);
    let (store, report) = open(dir.path(), &clock);
    assert_eq!((report.pending, report.dead), (1, 2));
    assert_eq!(ids(&store.list(&Filter::default(), 9).items), [&waiting[..1], &died[1..]].concat());
    let again = store.drop_ids(&[died[0], waiting[1]]);
    assert!(again.iter().all(|d| d.result.as_ref().is_err_and(|e| e.contains("not there"))));
}

impl Store {
    /// Drops by id without looking first.
    fn drop_ids(&self, ids: &[TaskId]) -> Vec<crate::store::Dropped> {
        let ids: Vec<u128> = ids.iter().map(|i| i.bits()).collect();
        let mut dropped = self.inner.drop_batch(crate::store::inner::Log::Pending, &ids);
        dropped.extend(self.inner.drop_batch(crate::store::inner::Log::Dead, &ids));
        dropped
    }
}

#[test]
fn a_stopped_stores_directory_is_listed_without_touching_it() {
    let (dir, clock) = (Dir::new("look"), TestClock::at(1000));
    let names = sinks();
    let nothing = look(&dir.path().join("none"), &names, &Filter::default(), 9);
    assert!(matches!(nothing, Err(OpenError::Io { .. })), "{nothing:?}");
    assert_eq!(look(dir.path(), &names, &Filter::default(), 9).expect("an empty one").listed.matched, 0);
    let (store, _) = open(dir.path(), &clock);
    mixed(&store, &clock);
    let tried = store.take(S0).expect("a task");
    store.reserve(S0, &tried, 1).expect("reserved");
    store.failed(S0, &tried, 1, clock.now(), &error("busy"));
    let open_list = store.list(&Filter::default(), 9);
    drop(store);
    let before = snapshot(dir.path());
    let looked = look(dir.path(), &names, &Filter::default(), 9).expect("looked");
    assert_eq!(looked.listed.matched, 6);
    let plain = |mut item: Item| {
        if item.kind == Kind::Pending {
            item.standing = Standing::Waiting;
        }
        item
    };
    let wanted: Vec<Item> = open_list.items.into_iter().map(plain).collect();
    assert_eq!(looked.listed.items, wanted);
    assert_eq!((looked.record, looked.report.pending, looked.report.dead), (None, 3, 3));
    let two = look(dir.path(), &names, &Filter::default(), 2).expect("looked").listed;
    assert_eq!((two.items.len(), two.matched), (2, 6));
    let (item, record) = look_at(dir.path(), &names, tried.id).expect("looked").expect("found");
    assert_eq!((item.error.as_str(), record.as_slice()), ("busy", &tried.record[..]));
    let dead_id = wanted[5].id;
    assert_eq!(look_at(dir.path(), &names, dead_id).expect("looked").expect("found").1, b"other");
    assert!(look_at(dir.path(), &names, TaskId::from_bits(3)).expect("looked").is_none());
    assert_eq!(snapshot(dir.path()), before);
}

/// Every file with its bytes.
fn snapshot(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        if entry.path().is_dir() {
            files.extend(snapshot(&entry.path()));
        } else {
            files.push((entry.path(), std::fs::read(entry.path()).expect("a file")));
        }
    }
    files.sort();
    files
}

#[test]
fn one_process_has_a_directory_and_others_are_told_which() {
    let (dir, registry) = (Dir::new("lock"), crate::metrics::Registry::new());
    let opened = Store::open(settings(dir.path()), &sinks(), &registry).expect("opened");
    let pid = Some(std::process::id());
    let second = Store::open(settings(dir.path()), &sinks(), &registry).map(|_| ());
    assert!(matches!(&second, Err(OpenError::Locked { pid: p, .. }) if *p == pid), "{second:?}");
    let message = second.expect_err("locked").to_string();
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    let looked = look(dir.path(), &sinks(), &Filter::default(), 9);
    assert!(matches!(&looked, Err(OpenError::Locked { pid: p, .. }) if *p == pid), "{looked:?}");
    assert!(format!("{:?}", opened.store).starts_with("Store("));
    opened.store.close().expect("closed");
    opened.store.close().expect("closed already");
    drop(opened);
    Store::open(settings(dir.path()), &sinks(), &registry).expect("free again");
    let nobody = OpenError::Locked { dir: "d".into(), pid: None };
    assert!(nobody.to_string().contains("another process"));
}

#[test]
fn bad_settings_and_directories_are_refused_with_the_cure() {
    let dir = Dir::new("bad");
    let registry = crate::metrics::Registry::new();
    let told = |settings: Settings, sinks: &[String]| {
        Store::open(settings, sinks, &registry).map(|_| ()).expect_err("refused").to_string()
    };
    let few = told(Settings::new(dir.path(), MIB), &[]);
    assert!(few.contains("async.durable.max_bytes") && few.contains("at least 2097152"), "{few}");
    let twice = told(settings(dir.path()), &["a/x".to_owned(), "a/x".to_owned()]);
    assert!(twice.contains("two sinks are called \"a/x\""), "{twice}");
    let long = told(settings(dir.path()), &["x".repeat(2000)]);
    assert!(long.contains("longer than 1024 bytes"), "{long}");
    std::fs::write(dir.path().join("file"), b"").expect("a file");
    let file = told(settings(&dir.path().join("file")), &[]);
    assert!(file.contains("has to be a directory"), "{file}");
    let tiny = Settings { segment_bytes: Some(4096), ..settings(dir.path()) };
    let tiny = told(tiny, &[]);
    assert!(tiny.contains("async.durable.max_bytes"), "{tiny}");
    std::fs::create_dir(dir.path().join("locked")).expect("a directory");
    std::fs::create_dir(dir.path().join("locked/LOCK")).expect("a directory");
    let lock = told(settings(&dir.path().join("locked")), &[]);
    assert!(lock.contains("cannot lock"), "{lock}");
}

#[test]
fn where_there_is_no_room_dead_letters_wait_or_the_oldest_go() {
    for keep in [DeadKeep::All, DeadKeep::Newest] {
        let (dir, clock) = (Dir::new("keep"), TestClock::at(1000));
        let room = Settings { dead_bytes_max: 512 << 10, dead_keep: keep, ..settings(dir.path()) };
        let (store, _) = open_settings(room, &clock);
        let mut killed = Vec::new();
        for n in 0..12 {
            accept_one(&store, &vec![n; 28_000], &clock);
            killed.push(kill_next(&store, "refused"));
            settle(&store);
            clock.add(1);
        }
        let there = ids(&store.list(&dead(), 99).items);
        let kept = there.len();
        assert!((2..12).contains(&kept), "{kept}");
        let bytes: u64 = store.inner.dead.segments().bytes;
        assert!(bytes <= 512 << 10, "{bytes}");
        if keep == DeadKeep::Newest {
            assert_eq!(there, killed[12 - kept..]);
            assert_eq!(store.list(&Filter::default(), 99).matched, kept as u64);
            continue;
        }
        assert_eq!(there, killed[..kept]);
        assert_eq!(store.list(&Filter::default(), 99).matched, 12, "the others are pending");
        // They are in nobody's way.
        let fresh = accept_one(&store, b"fresh", &clock);
        assert_eq!(store.take(S0).expect("the fresh one").id, fresh);
        assert_eq!(store.inner.state.lock().tasks.parked(), 12 - kept);
        let dropped = store.drop(&dead(), 3);
        assert!(dropped.iter().all(|d| d.result.is_ok()));
        for _ in 0..6 {
            settle(&store);
        }
        let there = ids(&store.list(&dead(), 99).items);
        assert_eq!(there[..kept - 3], killed[3..kept]);
        let parked = store.inner.state.lock().tasks.parked();
        let segments = store.inner.dead.segments();
        assert!(there.len() > kept - 3, "kept {kept}, {parked} parked, {segments:?}");
        let parked =
            store.drop(&Filter { kind: Some(Kind::Pending), ids: killed.clone(), ..Filter::default() }, 99);
        assert!(parked.iter().all(|d| d.result.is_ok()), "{parked:?}");
    }
}

#[test]
fn files_that_were_set_aside_are_moved_by_command() {
    let (dir, clock) = (Dir::new("aside"), TestClock::at(1000));
    let (store, _) = open(dir.path(), &clock);
    assert_eq!(store.set_aside().expect("nothing to do"), Vec::<std::path::PathBuf>::new());
    std::fs::write(dir.path().join("0000000000000001.seg.damaged"), b"1").expect("a file");
    std::fs::write(dir.path().join("dead/0000000000000001.seg.damaged"), b"2").expect("a file");
    let moved = store.set_aside().expect("moved");
    let quarantine = dir.path().join("quarantine");
    let wanted =
        ["0000000000000001.seg.damaged", "dead-0000000000000001.seg.damaged"].map(|n| quarantine.join(n));
    assert_eq!(moved, wanted);
    assert_eq!(std::fs::read(&wanted[1]).expect("it is there"), b"2");
    let fresh = Dir::new("aside2");
    std::fs::write(fresh.path().join("x.damaged"), b"").expect("a file");
    std::fs::write(fresh.path().join("quarantine"), b"").expect("in the way");
    assert!(set_aside(fresh.path()).is_err());
}

/// Where the newest dead letters are kept, every task that fails becomes one, however their lengths, the batches in which they come and
/// the moments at which the disk is looked at fall.
#[test]
fn where_the_newest_are_kept_none_waits_for_ever() {
    for seed in 0..20 {
        let (dir, clock) = (Dir::new("newest"), TestClock::at(1000));
        let room =
            Settings { dead_bytes_max: 512 << 10, dead_keep: DeadKeep::Newest, ..settings(dir.path()) };
        let (store, _) = open_settings(room, &clock);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut killed, mut open) = (Vec::new(), 0);
        while killed.len() < 120 {
            match rng.u8(..4) {
                0 | 1 if open < 20 => {
                    let len = if seed % 4 > 0 { 9_000 + 800 * seed as usize } else { rng.usize(1..50_000) };
                    accept_one(&store, &vec![1; len], &clock);
                    open += 1;
                }
                2 if open > 0 => {
                    killed.push(kill_next(&store, "refused"));
                    open -= 1;
                }
                3 => store.inner.tick(),
                _ => settle(&store),
            }
            clock.add(1);
        }
        let mut turns = 0;
        while store.inner.state.lock().tasks.len() > open {
            settle(&store);
            turns += 1;
            let state = store.inner.state.lock();
            let (left, parked) = (state.tasks.len() - open, state.tasks.parked());
            let segments = store.inner.dead.segments();
            assert!(turns < 100, "seed {seed}: {left} wait, {parked} parked, {segments:?}");
        }
        let there = ids(&store.list(&dead(), 999).items);
        assert!(store.inner.dead.segments().bytes <= 512 << 10);
        assert_eq!(there, killed[killed.len() - there.len()..], "the newest, seed {seed}");
    }
}

/// The account of what is alive knows nothing of what segments leave unused. Where the newest are kept, that holds nobody up either.
#[test]
fn where_segments_have_holes_the_oldest_dead_letters_go() {
    let (dir, clock) = (Dir::new("holes"), TestClock::at(1000));
    let room = Settings { dead_bytes_max: 512 << 10, dead_keep: DeadKeep::Newest, ..settings(dir.path()) };
    let (store, _) = open_settings(room, &clock);
    // As if moving them together had been found futile.
    let settle = |store: &Store| {
        for _ in 0..8 {
            store.inner.state.lock().futile = [u64::MAX / 2; 2];
            settle(store);
        }
    };
    let kill = |count: usize| -> Vec<TaskId> {
        let one = |_| {
            accept_one(&store, &[1; 10_000], &clock);
            clock.add(1);
            let id = kill_next(&store, "refused");
            settle(&store);
            id
        };
        (0..count).map(one).collect()
    };
    let first = kill(25);
    let holes = first.iter().enumerate().filter(|(n, _)| n % 5 > 0).map(|(_, id)| *id).collect();
    let mut all: Vec<TaskId> = first.iter().step_by(5).copied().collect();
    let dropped = store.drop(&Filter { ids: holes, ..dead() }, 99);
    assert!(dropped.len() == 20 && dropped.iter().all(|d| d.result.is_ok()));
    settle(&store);
    all.extend(kill(25));
    let state = store.inner.state.lock();
    assert_eq!((state.tasks.len(), state.tasks.parked()), (0, 0), "{:?}", store.inner.dead.segments());
    drop(state);
    let there = ids(&store.list(&dead(), 99).items);
    assert!(there.len() > 10, "{}", there.len());
    assert_eq!(there, all[all.len() - there.len()..], "the newest");
}
