//! Crashes at every step of the disk, with every part of what was not durable lost or kept: what was promised must hold.
//!
//! I1 acked and not ended: pending. I2 ended durably: never pending again. I3 sends <= remembered attempts <= limit. I4 nothing that
//! was not submitted, and nothing changed. I5 recovery can crash too. I7 the disk is bounded. I10 no acceptance is acked after a fault until a
//! fresh segment is there. I11 after the faults a fresh task gets through. I12 ends succeed when acceptance is refused.

use std::sync::{Arc, Mutex, PoisonError};

use super::promise::{Model, Shared, Worker, locked};
use crate::side_effect::{Ledger, SinkNumber, Task};
use crate::store::disk::sim::{Fault, Sim, World};
use crate::store::inner::Bugs;
use crate::store::{Filter, Reason};

const S0: SinkNumber = SinkNumber(0);

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
