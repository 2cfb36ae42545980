//! Every interleaving of the journal's group-commit hand-off, with loom: `cargo test --test loom`.
//!
//! The hand-off's own source is compiled here with loom's locks in place of std's, so nothing else has to be built with `cfg(loom)`. Each
//! seeded fault runs in a process of its own: a model that fails may abort while it unwinds.

#[path = "../src/store/journal/gate.rs"]
#[allow(dead_code, reason = "the model uses a part of it")]
mod gate;

mod sync {
    pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
}

use std::process::Command;

use gate::{Bell, Book, Failure, Gate, GateSeed, State, Turned};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};

/// As in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The disk has failed.
    Broken,
    /// The journal is closed; never here.
    Closed,
}

pub(crate) type Done = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// A batch is the numbers of its records.
#[derive(Default)]
struct Log;

impl Book for Log {
    type Payload = Vec<u64>;
    fn settle(&mut self, _: &Vec<u64>) {}
    fn rewind(&mut self, _: bool) {}
}

struct World {
    gate: Gate<Log>,
    bell: Bell,
    /// Records on the disk: all below this number.
    synced: AtomicUsize,
    answered: AtomicUsize,
    fails: bool,
}

impl World {
    fn new(seed: Option<GateSeed>, fails: bool) -> World {
        let mut gate = Gate::new(Log, 0);
        gate.seed = seed;
        let synced = AtomicUsize::new(0);
        World { gate, bell: Bell::new(), synced, answered: AtomicUsize::new(0), fails }
    }

    fn commit(&self, turns: usize) {
        let turned = self.gate.commit(turns, &mut |batch, durable| {
            assert_eq!(durable, batch[0], "all before the batch is durable");
            if self.fails {
                return Err(Failure { refused: Refused::Broken, stop: true });
            }
            let upto = batch.last().map_or(0, |last| last + 1);
            self.synced.store(upto as usize, Ordering::SeqCst);
            Ok(())
        });
        if turned == Turned::Left {
            self.bell.ring();
        }
    }
}

/// Appends one record; its answer must be true.
fn append(world: &Arc<World>) {
    let its_world = Arc::clone(world);
    let mut state = world.gate.lock();
    if state.stopped.is_some() {
        drop(state);
        world.answered.fetch_add(1, Ordering::SeqCst);
        return;
    }
    let number = state.next;
    let done: Done = Box::new(move |result| {
        let synced = its_world.synced.load(Ordering::SeqCst) as u64 > number;
        assert_eq!(result.is_ok(), synced, "record {number}: answered {result:?}, synced: {synced}");
        its_world.answered.fetch_add(1, Ordering::SeqCst);
    });
    push(&mut state, done);
}

fn push(state: &mut State<Log>, done: Done) {
    if state.queue.is_empty() {
        let batch = gate::Batch { payload: Vec::new(), upto: 0, dones: Vec::new() };
        state.queue.push_back(batch);
    }
    let number = state.next;
    state.next += 1;
    if let Some(batch) = state.queue.back_mut() {
        batch.payload.push(number);
        batch.upto = number + 1;
        batch.dones.push(done);
    }
}

/// Two threads (one of them the model's own) append and commit; with `turns` of 1, what a leader leaves is the keeper's.
fn model(seed: Option<GateSeed>, fails: bool, keeper: bool) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let world = Arc::new(World::new(seed, fails));
        let turns = if keeper { 1 } else { 100 };
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                append(&world);
                world.commit(turns);
            })
        };
        append(&world);
        world.commit(turns);
        if keeper {
            // The keeper waits for the bell, if somebody has said that something was left.
            while world.answered.load(Ordering::SeqCst) < 2 {
                if world.gate.commit(100, &mut |batch, _| {
                    world.synced.store(batch.last().map_or(0, |last| last + 1) as usize, Ordering::SeqCst);
                    Ok(())
                }) == Turned::Idle
                {
                    loom::thread::yield_now();
                }
            }
        }
        let joined = other.join();
        assert!(joined.is_ok(), "an answer was wrong");
        assert_eq!(
            world.answered.load(Ordering::SeqCst),
            2,
            "each append is answered once, and nobody is left waiting"
        );
        let state = world.gate.lock();
        assert!(state.queue.is_empty() && state.inflight.is_none());
        assert_eq!(state.durable, world.synced.load(Ordering::SeqCst) as u64, "durable is what was synced");
    });
}

/// The keeper sleeps until a leader has left something, however the ring and the wait fall.
#[test]
fn a_ring_is_never_missed() {
    loom::model(|| {
        let bell = Arc::new(Bell::new());
        let rung = Arc::new(AtomicUsize::new(0));
        let other = {
            let (bell, rung) = (Arc::clone(&bell), Arc::clone(&rung));
            loom::thread::spawn(move || {
                rung.store(1, Ordering::SeqCst);
                bell.ring();
            })
        };
        bell.wait(std::time::Duration::from_secs(1));
        assert_eq!(rung.load(Ordering::SeqCst), 1, "a wait ends with a ring");
        other.join().unwrap();
    });
}

#[test]
fn every_append_is_answered_and_truly() {
    model(None, false, false);
}

#[test]
fn every_append_is_answered_when_the_sync_fails() {
    model(None, true, false);
}

#[test]
fn what_a_leader_leaves_is_gone_on_with() {
    model(None, false, true);
}

/// Runs one seeded fault; only in a process of its own.
#[test]
#[ignore = "run by every_seeded_fault_is_found"]
fn seeded_lost_wakeup() {
    model(Some(GateSeed::LostWakeup), false, false);
}

#[test]
#[ignore = "run by every_seeded_fault_is_found"]
fn seeded_publish_before_sync() {
    model(Some(GateSeed::PublishBeforeSync), false, false);
}

#[test]
#[ignore = "run by every_seeded_fault_is_found"]
fn seeded_wrong_upto() {
    model(Some(GateSeed::WrongUpto), false, false);
}

#[test]
#[ignore = "run by every_seeded_fault_is_found"]
fn seeded_swallowed_error() {
    model(Some(GateSeed::SwallowedError), true, false);
}

#[test]
fn every_seeded_fault_is_found() {
    let program = std::env::current_exe().unwrap();
    let run =
        |name: &str| Command::new(&program).args(["--exact", name, "--include-ignored"]).output().unwrap();
    // The same way of running says nothing about a model that is right.
    assert!(run("every_append_is_answered_and_truly").status.success());
    for name in
        ["seeded_lost_wakeup", "seeded_publish_before_sync", "seeded_wrong_upto", "seeded_swallowed_error"]
    {
        let output = run(name);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name} was not found");
        assert!(
            said.contains("answered") || said.contains("durable"),
            "{name} failed in another way: {said}"
        );
    }
}
