//! Crashes at every step of the disk, with every part of what was not durable lost or kept: what was promised must hold.
//!
//! I1 acked and not ended: pending. I2 ended durably: never pending again. I3 sends <= remembered attempts <= limit. I4 nothing that
//! was not submitted, and nothing changed. I5 recovery can crash too. I7 the disk is bounded. I10 no acceptance is acked after a fault until a
//! fresh segment is there. I11 after the faults a fresh task gets through. I12 ends succeed when acceptance is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::support::*;
use crate::metrics::Registry;
use crate::side_effect::retry::GiveUp;
use crate::side_effect::{End, Ledger, Refused, SinkNumber, Task};
use crate::store::disk::sim::{Fault, Sim, World};
use crate::store::inner::Bugs;
use crate::store::{Filter, Kind, Reason, Settings, Store};

const S0: SinkNumber = SinkNumber(0);
pub(super) const SEGMENT: u64 = 12 << 10;

/// What was promised of one task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Promise {
    record: Vec<u8>,
    limit: Option<u32>,
    acked: bool,
    /// Attempts whose reservation succeeded: sent.
    sends: u32,
    /// Delivered or dropped was said.
    ended: bool,
    /// The attempt was given up.
    given_up: bool,
    /// The end is durable.
    settled: bool,
}

impl Promise {
    pub(super) fn acked(&self) -> bool {
        self.acked
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Model {
    pub(super) tasks: BTreeMap<u128, Promise>,
}

pub(super) type Shared = Arc<Mutex<Model>>;

pub(super) fn locked(model: &Shared) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn small_settings() -> Settings {
    let bytes_max = 14 * SEGMENT;
    Settings { segment_bytes: Some(SEGMENT), dead_bytes_max: 6 * SEGMENT, ..Settings::new("sim", bytes_max) }
}

/// A store at work on a simulated disk, with what it has promised.
pub(super) struct Worker<'m> {
    pub(super) store: Store,
    pub(super) model: &'m Shared,
    pub(super) clock: TestClock,
    pub(super) sim: Sim,
    /// Seconds that the keepers have seen go by.
    elapsed: std::cell::Cell<u64>,
}

impl<'m> Worker<'m> {
    /// Opens what is there and compares it. `None`: the fault has kept it from being opened.
    pub(super) fn open(
        sim: &Sim,
        model: &'m Shared,
        bugs: Bugs,
        fault: bool,
    ) -> Result<Option<Self>, String> {
        let clock = TestClock::at(1_000_000);
        let disks = (sim.disk("q"), sim.disk("q/dead"));
        let names = ["a/slack".to_owned()];
        match open_with(disks, small_settings(), &names, &clock, bugs, &Registry::new()) {
            Ok((store, report)) => {
                if !report.damages.is_empty() {
                    return Err(format!("I9: {:?}", report.damages));
                }
                let worker = Worker { store, model, clock, sim: sim.clone(), elapsed: Default::default() };
                worker.compare()?;
                worker.enter();
                Ok(Some(worker))
            }
            Err(_) if fault => Ok(None),
            Err(e) => Err(format!("I9: it does not open: {e}")),
        }
    }

    /// What is there against what was promised.
    pub(super) fn compare(&self) -> Result<(), String> {
        let pending = self.store.list(&Filter { kind: Some(Kind::Pending), ..Filter::default() }, 1000);
        let dead = self.store.list(&Filter { kind: Some(Kind::Dead), ..Filter::default() }, 1000);
        let model = locked(self.model);
        for item in pending.items.iter().chain(&dead.items) {
            let id = item.id.bits();
            let Some(promise) = model.tasks.get(&id) else {
                return Err(format!("I4: {id:x} was never submitted"));
            };
            let record = self.store.show(item.id).map(|(_, record)| record);
            if record.as_ref() != Some(&promise.record)
                || item.attempts_max != promise.limit
                || item.sink != "a/slack"
            {
                return Err(format!("I4: {id:x} has changed: {item:?}"));
            }
            if item.kind == Kind::Pending && promise.settled {
                return Err(format!("I2: {id:x} had ended"));
            }
            if item.attempts < promise.sends {
                return Err(format!(
                    "I3: {id:x} was sent {} times, {} are remembered",
                    promise.sends, item.attempts
                ));
            }
            if promise.limit.is_some_and(|limit| promise.sends > limit || item.attempts > limit) {
                return Err(format!("I3: {id:x} is above its limit: {item:?}"));
            }
        }
        for (id, promise) in &model.tasks {
            let there = |list: &[crate::store::Item]| list.iter().any(|i| i.id.bits() == *id);
            let (is_pending, is_dead) = (there(&pending.items), there(&dead.items));
            if is_pending && is_dead {
                return Err(format!("I2: {id:x} is pending and dead"));
            }
            if promise.acked && !promise.ended && !is_pending && !is_dead {
                return Err(format!("I1: {id:x} is lost"));
            }
            if promise.settled && promise.given_up && !is_dead {
                return Err(format!("I1: the dead letter {id:x} is lost"));
            }
        }
        let used = self.sim.world().used("q") + self.sim.world().used("q/dead");
        // At start one more segment of each is written before the old one goes.
        if used > 14 * SEGMENT + 2 * SEGMENT {
            return Err(format!("I7: {used} bytes"));
        }
        Ok(())
    }

    /// What recovery has found is what there is: it acts on it from now on.
    fn enter(&self) {
        let state = self.store.inner.state.lock();
        for (id, promise) in &mut locked(self.model).tasks {
            let (pending, dead) = (state.tasks.get(*id), state.dead.contains(*id));
            promise.acked |= pending.is_some() || dead;
            promise.ended = pending.is_none() && !dead;
            promise.given_up = dead || pending.is_some_and(|e| e.tried().reason.is_some());
            promise.settled = pending.is_none();
        }
    }

    pub(super) fn dropped(&self, task: &Task) {
        self.promise(task.id.bits(), |p| p.ended = true);
    }

    fn promise(&self, id: u128, change: impl FnOnce(&mut Promise)) {
        if let Some(promise) = locked(self.model).tasks.get_mut(&id) {
            change(promise);
        }
    }

    /// Accepts `n` tasks with records of `len` bytes.
    pub(super) fn accept(&self, n: usize, len: usize, limit: Option<u32>) -> Result<(), Refused> {
        let mut tasks = Vec::new();
        for _ in 0..n {
            // The same in each run, so that equal worlds are found to be equal.
            let number = locked(self.model).tasks.len() as u128 + 1;
            let mut new = task("a", &vec![number as u8; len], &self.clock);
            new.id = crate::side_effect::TaskId::from_bits(number * 0x1_0001_0001);
            new.attempts_max = limit;
            let promise = Promise {
                record: new.record.to_vec(),
                limit,
                acked: false,
                sends: 0,
                ended: false,
                given_up: false,
                settled: false,
            };
            locked(self.model).tasks.insert(new.id.bits(), promise);
            tasks.push((S0, new));
        }
        // What was promised is known before the next step of the disk: the answer is entered where it is given.
        let (told, answer) = crossbeam_channel::bounded(1);
        let model = Arc::clone(self.model);
        let ids: Vec<u128> = tasks.iter().map(|(_, t)| t.id.bits()).collect();
        self.store.accept(
            &tasks,
            Box::new(move |result| {
                if result.is_ok() {
                    for id in &ids {
                        if let Some(p) = locked(&model).tasks.get_mut(id) {
                            p.acked = true;
                        }
                    }
                }
                told.send(result).expect("room");
            }),
        );
        self.store.commit();
        let result = answer.try_recv().expect("an answer");
        if result.is_ok() {
            self.ends_are_durable();
        }
        result
    }

    /// All that was appended before is durable, unless a fault has kept it back.
    fn ends_are_durable(&self) {
        if self.store.inner.state.lock().lost.is_empty() {
            for promise in locked(self.model).tasks.values_mut().filter(|p| p.ended) {
                promise.settled = true;
            }
        }
    }

    pub(super) fn take(&self) -> Option<Task> {
        self.store.take(S0)
    }

    /// Sends an attempt if it could be reserved.
    pub(super) fn send(&self, task: &Task, attempt: u32) -> bool {
        let reserved = self.store.reserve(S0, task, attempt).is_ok();
        if reserved {
            self.promise(task.id.bits(), |p| p.sends += 1);
        }
        reserved
    }

    pub(super) fn failed(&self, task: &Task, attempt: u32) {
        self.store.failed(S0, task, attempt, self.clock.now(), &error("busy"));
    }

    pub(super) fn delivered(&self, task: &Task) {
        self.promise(task.id.bits(), |p| p.ended = true);
        self.store.ended(S0, task, &End::Delivered);
    }

    pub(super) fn given_up(&self, task: &Task, attempts: u32) {
        self.promise(task.id.bits(), |p| p.given_up = true);
        give_up(&self.store, 0, task, attempts, GiveUp::Exhausted, "no more");
    }

    /// Takes, sends and delivers everything that is there.
    pub(super) fn deliver_all(&self) {
        while let Some(task) = self.take() {
            if !self.send(&task, task.attempts_made + 1) {
                self.store.returned(S0, &task);
                return;
            }
            self.delivered(&task);
        }
    }

    /// What the threads would do within some seconds.
    pub(super) fn tick(&self) {
        for _ in 0..2 {
            self.store.inner.tick();
            self.elapsed.set(self.elapsed.get() + 10);
            let now = crate::clock::now() + Duration::from_secs(self.elapsed.get());
            self.store.inner.pending.tick(now);
            self.store.inner.dead.tick(now);
        }
    }

    /// Waits until the faults are over, then shows that a fresh task gets through.
    pub(super) fn fresh_task_gets_through(&self) -> Result<(), String> {
        self.sim.set_fault(None);
        for _ in 0..8 {
            self.tick();
            self.deliver_all();
            if self.store.accepting().is_ok() {
                let before = locked(self.model).tasks.len();
                self.accept(1, 20, None).map_err(|e| format!("I11: {e}"))?;
                self.deliver_all();
                let model = locked(self.model);
                let fresh = model.tasks.values().filter(|p| p.acked && p.ended).count();
                return if fresh > 0 && model.tasks.len() > before {
                    Ok(())
                } else {
                    Err("I11: not delivered".into())
                };
            }
        }
        Err(format!("I11: nothing is accepted: {:?}", self.store.inner.pending.stats()))
    }
}

/// Every kind of step that a task can take, and enough of them that segments are emptied.
#[derive(Clone, Copy)]
struct Life {
    bugs: Bugs,
}

impl Life {
    fn first(self, w: &Worker<'_>) -> Option<()> {
        w.accept(1, 700, Some(3)).ok()?;
        let old = w.take()?;
        w.send(&old, 1).then_some(())?;
        w.failed(&old, 1);
        w.accept(2, 60, Some(1)).ok()?;
        let (poison, last) = (w.take()?, w.take()?);
        w.send(&poison, 1).then_some(())?;
        w.given_up(&poison, 1);
        w.tick();
        w.send(&last, 1).then_some(())?;
        for _ in 0..9 {
            w.accept(3, 1500, None).ok()?;
            for _ in 0..3 {
                let filler = w.take()?;
                w.delivered(&filler);
            }
            w.tick();
        }
        w.send(&old, 2).then_some(())?;
        w.delivered(&old);
        w.accept(1, 10, None).ok()
    }

    fn second(self, w: &Worker<'_>) -> Option<()> {
        w.tick();
        w.accept(2, 90, Some(2)).ok()?;
        while let Some(task) = w.take() {
            let attempt = task.attempts_made + 1;
            w.send(&task, attempt).then_some(())?;
            if attempt % 2 == 0 {
                w.delivered(&task);
            } else {
                w.failed(&task, attempt);
                if task.attempts_max == Some(attempt) {
                    w.given_up(&task, attempt);
                }
            }
        }
        w.tick();
        w.accept(1, 10, None).ok()
    }
}

impl Life {
    /// Opens what a crash has left, and shows that new work is taken.
    fn check(self, sim: &Sim, model: &Shared) -> Result<(), String> {
        let Some(worker) = Worker::open(sim, model, self.bugs, false)? else { return Ok(()) };
        worker.fresh_task_gets_through()?;
        worker.compare()
    }

    fn work(self, worker: &Worker<'_>, round: usize) -> Result<(), String> {
        let done = if round == 0 { self.first(worker) } else { self.second(worker) };
        if done.is_none() && round == 0 {
            Err("something was refused without a fault".to_owned())
        } else {
            Ok(())
        }
    }

    /// Works, and after every step of the disk looks at what a crash would leave there: a process crash, or a power loss of nothing, all or a
    /// half of what was not durable. From every `stride`th image another generation starts. The number of images.
    fn crash_everywhere(self, world: World, model: Model, round: usize, stride: u64) -> Result<u64, String> {
        let (sim, shared) = (Sim::new(world), Arc::new(Mutex::new(model)));
        let found: Arc<Mutex<(u64, Option<String>)>> = Arc::default();
        let (seen, known) = (Arc::clone(&found), Arc::clone(&shared));
        sim.observe(Some(Arc::new(move |world: &World| {
            let model = locked(&known).clone();
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            for image in images(world) {
                if seen.1.is_some() {
                    return;
                }
                seen.0 += 1;
                let copy = Arc::new(Mutex::new(model.clone()));
                let mut result = self.check(&Sim::new(image.clone()), &copy);
                if result.is_ok() && stride > 0 && seen.0 % stride == 0 {
                    let next = self.crash_everywhere(image, model.clone(), round + 1, 0);
                    result = next.map(|n| seen.0 += n);
                }
                seen.1 = result.err().map(|e| format!("{e} (after a crash in round {round})"));
            }
        })));
        let result = Worker::open(&sim, &shared, self.bugs, false)
            .and_then(|worker| worker.map_or(Ok(()), |worker| self.work(&worker, round)));
        sim.observe(None);
        let (images, violation) = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        match violation {
            Some(violation) => Err(violation),
            None => result.map(|()| images),
        }
    }
}

/// What a crash can leave, but for the order of sectors, which the journal's own tests try.
fn images(world: &World) -> Vec<World> {
    let loose = world.loose();
    let mut images = vec![world.clone()];
    if !loose.is_empty() {
        let half: Vec<_> = loose.iter().step_by(2).cloned().collect();
        images.extend([&[][..], &half, &loose].map(|kept| world.after_power_loss(kept)));
    }
    images
}

#[test]
fn no_crash_breaks_a_promise() {
    let life = Life { bugs: Bugs::default() };
    let images = life.crash_everywhere(World::default(), Model::default(), 0, 397).expect("no violation");
    eprintln!("{images} images");
    assert!(images > 300, "{images}");
}

/// Random work, ended by a crash at a random step of the disk, five times over on the same disk.
#[test]
fn random_work_over_five_generations_breaks_no_promise() {
    for seed in 0..12 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut world, mut model) = (World::default(), Model::default());
        for generation in 0..5 {
            let sim = Sim::new(world.clone());
            let shared = Arc::new(Mutex::new(model.clone()));
            let caught: Arc<Mutex<Caught>> = Arc::default();
            let (catch, known, step) = (Arc::clone(&caught), Arc::clone(&shared), rng.u64(5..150));
            sim.observe(Some(Arc::new(move |world: &World| {
                let mut catch = catch.lock().unwrap_or_else(PoisonError::into_inner);
                catch.0 += 1;
                if catch.0 == step {
                    catch.1 = Some((world.clone(), locked(&known).clone()));
                }
            })));
            let worker = Worker::open(&sim, &shared, Bugs::default(), false);
            let worker = worker.unwrap_or_else(|e| panic!("seed {seed}, generation {generation}: {e}"));
            if let Some(worker) = worker {
                random_work(&worker, &mut rng);
                std::mem::forget(worker.store);
            }
            sim.observe(None);
            let caught = caught.lock().unwrap_or_else(PoisonError::into_inner).1.take();
            let (at, promised) = caught.unwrap_or_else(|| (sim.world(), locked(&shared).clone()));
            model = promised;
            world = if rng.bool() {
                at
            } else {
                let kept: Vec<_> = at.loose().into_iter().filter(|_| rng.bool()).collect();
                at.after_power_loss(&kept)
            };
        }
        let shared = Arc::new(Mutex::new(model));
        let checked = Life { bugs: Bugs::default() }.check(&Sim::new(world), &shared);
        checked.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

/// Steps so far, and what there was and was promised after the wanted one.
type Caught = (u64, Option<(World, Model)>);

fn random_work(worker: &Worker<'_>, rng: &mut fastrand::Rng) {
    let mut taken: Vec<Task> = Vec::new();
    for _ in 0..40 {
        match rng.u32(0..10) {
            0..4 => {
                let limit = [None, Some(1), Some(2)][rng.usize(0..3)];
                let _ = worker.accept(rng.usize(1..4), rng.usize(1..1500), limit);
            }
            4 => worker.tick(),
            5 => worker.store.commit(),
            6 => worker.sim.set_fault([None, Some(Fault::AllSyncs), Some(Fault::Full)][rng.usize(0..3)]),
            _ => {
                worker.sim.set_fault(None);
                taken.extend(worker.take());
            }
        }
        let Some(task) = taken.pop() else { continue };
        let attempt = task.attempts_made + 1;
        if !worker.send(&task, attempt) {
            worker.store.returned(S0, &task);
        } else if rng.bool() {
            worker.delivered(&task);
        } else {
            worker.given_up(&task, attempt);
        }
    }
}

#[test]
fn the_workload_carries_buries_and_ends() {
    let (sim, model) = (Sim::default(), Shared::default());
    let life = Life { bugs: Bugs::default() };
    let worker = Worker::open(&sim, &model, life.bugs, false).expect("it opens").expect("a store");
    assert_eq!(life.first(&worker), Some(()));
    let meters = &worker.store.inner.meters;
    assert!(meters.carried.get() > 0 && meters.buried.get() == 1);
    assert!(worker.store.inner.pending.segments().front > 1);
}

#[test]
fn seeded_bugs_are_found() {
    let none = Bugs::default();
    let bugs = [
        ("I3", Bugs { send_before_reserved: true, ..none }),
        ("I1", Bugs { trim_before_carry: true, ..none }),
        ("I3", Bugs { carry_forgets_attempts: true, ..none }),
    ];
    for (invariant, bugs) in bugs {
        let found = Life { bugs }.crash_everywhere(World::default(), Model::default(), 0, 0);
        let found = found.expect_err("a violation");
        assert!(found.contains(invariant), "{bugs:?}: {found}");
    }
}

#[test]
fn an_attempt_that_was_interrupted_is_never_sent_beyond_the_limit() {
    let (sim, model) = (Sim::default(), Shared::default());
    {
        let worker = Worker::open(&sim, &model, Bugs::default(), false).expect("it opens").expect("a store");
        worker.accept(1, 10, Some(1)).expect("accepted");
        let task = worker.take().expect("a task");
        assert!(worker.send(&task, 1));
        // A process that is killed closes nothing.
        std::mem::forget(worker.store);
    }
    let worker = Worker::open(&sim, &model, Bugs::default(), false).expect("it opens").expect("a store");
    assert!(worker.take().is_none());
    worker.tick();
    let dead = worker.store.list(&Filter { reasons: vec![Reason::OutcomeUnknown], ..Filter::default() }, 9);
    assert_eq!(dead.matched, 1);
}
