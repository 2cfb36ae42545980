//! Every crash point, every image; and every fault that is built in has to be found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::model::{Item, Model, Shared, append, lock};
use super::options;
use crate::clock;
use crate::store::disk::explore::{Counts, Plan, Scenario, explore};
use crate::store::disk::sim::Sim;
use crate::store::journal::seed::Seed;
use crate::store::journal::{Class, Journal};

const SEGMENTS_MAX: u64 = 9;

struct Work {
    seed: Option<Seed>,
}

/// A journal and a clock that goes when it is told to.
struct Opened {
    journal: Journal,
    now: Instant,
}

impl Opened {
    fn tick(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.journal.tick(self.now);
    }
}

impl Work {
    /// Opens and compares. `None` when a fault has kept it from opening.
    fn open(&self, sim: &Sim, model: &Shared, fault: bool) -> Result<Option<Opened>, String> {
        let mut options = options(SEGMENTS_MAX);
        options.seed = self.seed;
        let mut found = Vec::new();
        let mut wrong = None;
        let opened = Journal::open(sim.disk("q"), options, &mut |at, entry| match Item::of(at, entry) {
            Ok(item) => found.push(item),
            Err(what) => wrong = Some(what),
        });
        let (journal, report) = match opened {
            Ok(opened) => opened,
            Err(_) if fault => return Ok(None),
            Err(e) => return Err(format!("does not open: {e}")),
        };
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        if let Some(damage) = report.damages.first() {
            return Err(format!("damage where there is none: {damage}"));
        }
        lock(model).recovered(found)?;
        Ok(Some(Opened { journal, now: clock::now() }))
    }

    /// Everything that was acked can be read; what is appended without a fault is acked.
    fn probe(&self, opened: &mut Opened, model: &Shared) -> Result<(), String> {
        let items = lock(model).acked.clone();
        let mut body = Vec::new();
        for item in items {
            opened.journal.read(item.at, &mut body).map_err(|e| format!("{item:?}: {e}"))?;
            if body != Item::body(item.id, item.at.len as usize) {
                return Err(format!("{item:?} reads as something else"));
            }
        }
        let before = lock(model).acked.len();
        let taken = append(&opened.journal, model, Class::Finish, &[40]);
        opened.journal.commit();
        if !taken || lock(model).acked.len() != before + 1 {
            return Err("new work is not taken".to_owned());
        }
        Ok(())
    }

    /// Work over several segments: batches of one and of many, across the ends of segments, with marks, trims and times of quiet.
    fn first(&self, o: &mut Opened, sim: &Sim, model: &Shared, fault: bool) -> Result<(), String> {
        for n in 0..10_u64 {
            append(&o.journal, model, Class::Accept, &[500, 400]);
            if n % 4 != 1 {
                append(&o.journal, model, Class::Finish, &[400, 200]);
            }
            if n % 3 != 1 {
                o.journal.commit();
            }
            if n % 2 == 0 {
                o.tick(if n % 4 == 0 { 30 } else { 6000 });
            }
            if n % 5 == 4 {
                trim(o, model);
                o.tick(10);
            }
            let used = sim.world().used("q");
            if used > SEGMENTS_MAX * 8192 {
                return Err(format!("{used} bytes of disk are used"));
            }
        }
        // Batches of which a later one covers a part of an earlier one, if that one has failed.
        for lens in [&[300, 300, 300][..], &[300], &[300, 300], &[300]] {
            append(&o.journal, model, Class::Finish, lens);
            o.journal.commit();
        }
        o.tick(6000);
        o.tick(2000);
        if fault {
            o.tick(6000);
            let before = lock(model).acked.len();
            append(&o.journal, model, Class::Finish, &[60]);
            o.journal.commit();
            if lock(model).acked.len() == before {
                return Err("the fault is over, and nothing is taken".to_owned());
            }
        }
        Ok(())
    }

    /// A little work, with a segment's end in it.
    fn second(&self, o: &mut Opened, model: &Shared) {
        for n in 0..5_u64 {
            append(&o.journal, model, Class::Accept, &[400]);
            o.journal.commit();
            append(&o.journal, model, Class::Finish, &[100, 500 + n as usize]);
            o.tick(30);
        }
        trim(o, model);
        o.tick(30);
        let _ = o.journal.close();
    }
}

/// Gives up all segments but the last three.
fn trim(o: &mut Opened, model: &Shared) {
    let first = o.journal.segments().current.saturating_sub(2);
    let mut known = lock(model);
    known.trimmed = known.trimmed.max(first);
    drop(known);
    o.journal.trim(first);
}

impl Scenario for Work {
    type Model = Model;

    fn start(&self) -> Model {
        Model::default()
    }

    fn round(
        &self,
        sim: &Sim,
        model: &Arc<std::sync::Mutex<Model>>,
        round: usize,
        fault: bool,
    ) -> Result<(), String> {
        let Some(mut opened) = self.open(sim, model, fault)? else { return Ok(()) };
        match round {
            0 => self.first(&mut opened, sim, model, fault),
            1 => {
                self.second(&mut opened, model);
                Ok(())
            }
            _ => self.probe(&mut opened, model),
        }
    }
}

fn run(seed: Option<Seed>, plan: &Plan) -> Result<Counts, String> {
    explore(&Work { seed }, plan)
}

const PLAN: Plan = Plan { rounds: 3, faulty_rounds: 1, subsets_max: 7, random: 4, roots_max: 60 };

#[test]
fn every_crash_point_of_two_workloads_keeps_what_was_promised() {
    let counts = run(None, &PLAN).unwrap();
    println!("{counts:?}");
    assert!(counts.runs > 5_000 && counts.images > 5_000, "{counts:?}");
}

#[test]
fn every_seeded_fault_is_found() {
    let seeds = [
        Seed::AckBeforeSync,
        Seed::NoDirSyncOnRoll,
        Seed::UnlinkBeforeMark,
        Seed::AppendInPlace,
        Seed::RenameBeforeSync,
        Seed::DeleteTailFirst,
        Seed::TrustOldTail,
        Seed::RetrySync,
        Seed::GoOnInFile,
        Seed::NoChecksum,
        Seed::OutOfOrder,
        Seed::RollWithoutSync,
    ];
    let mut missed = Vec::new();
    for seed in seeds {
        match run(Some(seed), &PLAN) {
            Ok(counts) => missed.push((seed, counts)),
            Err(what) => println!("{seed:?}: {what}"),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Faults in the second round as well, that is in recoveries: minutes.
#[test]
#[ignore = "long form: cargo test --lib store::journal -- --ignored --nocapture"]
fn every_fault_of_recoveries_too() {
    let plan = Plan { faulty_rounds: 2, roots_max: 24, ..PLAN };
    let counts = run(None, &plan).unwrap();
    println!("{counts:?}");
}
