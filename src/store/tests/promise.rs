//! What a store on a simulated disk has promised, and whether it has kept it. The invariants' numbers are those of `crash.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::support::*;
use crate::metrics::Registry;
use crate::side_effect::retry::GiveUp;
use crate::side_effect::{End, Ledger, Refused, SinkNumber, Task};
use crate::store::disk::sim::Sim;
use crate::store::inner::Bugs;
use crate::store::{Filter, Kind, Settings, Store};

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
