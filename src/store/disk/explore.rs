//! Tries every crash point of a workload on the simulated disk, and every image that a crash can leave there.
//!
//! A [`Scenario`] has rounds: each opens what the crash before it has left, checks it against a model of what was promised, and works on.
//! The explorer runs a round once without a fault and once for each fault, notes the world and the model after every step of the disk, and
//! makes from each pair the images of a process crash (the caches live on) and of a power loss (any part of what was not durable has
//! survived). The next round is run on each image; the last one on all of them.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use super::sim::{Fault, Loose, Sim, Steps, World};

/// What is explored.
pub(crate) trait Scenario {
    /// What was promised so far.
    type Model: Clone + Hash + Send + 'static;

    /// The model of an empty disk.
    fn start(&self) -> Self::Model;

    /// Opens what is on `sim`, compares it with `model`, enters into the model that this is now what there is, and works. With `fault` one of
    /// the disk's steps fails, which may end the round early; without one every step has to succeed. The last round should only open, compare
    /// and show that new work is taken.
    ///
    /// # Errors
    /// What was violated.
    fn round(
        &self,
        sim: &Sim,
        model: &Arc<Mutex<Self::Model>>,
        round: usize,
        fault: bool,
    ) -> Result<(), String>;
}

/// How much to try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Rounds with a crash after each but the last: at least two.
    pub(crate) rounds: usize,
    /// In how many of the first rounds faults are tried.
    pub(crate) faulty_rounds: usize,
    /// All subsets are tried of up to so many loose parts.
    pub(crate) subsets_max: usize,
    /// Random subsets of more.
    pub(crate) random: usize,
    /// How many images of a round get another round with crashes, spread over all of them.
    pub(crate) roots_max: usize,
}

/// What was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Rounds that were run from an image.
    pub(crate) runs: u64,
    /// Different pairs of a world and a model after a step.
    pub(crate) points: u64,
    /// Different images.
    pub(crate) images: u64,
}

struct Point<M> {
    world: World,
    model: M,
}

/// Explores until the first violation: what it is and where, or the counts.
pub(crate) fn explore<S: Scenario>(scenario: &S, plan: &Plan) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut roots = vec![Point { world: World::default(), model: scenario.start() }];
    for round in 0..plan.rounds - 1 {
        let last = round + 2 == plan.rounds;
        let mut seen = HashSet::new();
        let mut images = Vec::new();
        for root in &roots {
            let points = crash_points(scenario, plan, root, round, &mut seen, &mut counts)?;
            for point in points {
                for image in images_of(&point, plan, &mut rng) {
                    if !seen.insert(key(&image.world, &image.model, true)) {
                        continue;
                    }
                    counts.images += 1;
                    run(scenario, &image, plan.rounds - 1, None, &mut counts, None)
                        .map_err(|what| format!("{what} (after a crash in round {round})"))?;
                    if !last {
                        images.push(image);
                    }
                }
            }
        }
        // Caches that no sync will save any more are rare, and the hardest to get right: they have half of the places.
        let (lost, other): (Vec<_>, Vec<_>) = images.into_iter().partition(|image| image.world.has_lost());
        let spread = |images: Vec<_>| {
            let step = images.len().div_ceil((plan.roots_max / 2).max(1)).max(1);
            images.into_iter().step_by(step)
        };
        roots = spread(lost).chain(spread(other)).collect();
    }
    Ok(counts)
}

fn key<M: Hash>(world: &World, model: &M, image: bool) -> (u64, u64, bool) {
    let mut hasher = DefaultHasher::new();
    model.hash(&mut hasher);
    (world.fingerprint(), hasher.finish(), image)
}

/// All different states after a step of `round` from `root`, without and with faults.
fn crash_points<S: Scenario>(
    scenario: &S,
    plan: &Plan,
    root: &Point<S::Model>,
    round: usize,
    seen: &mut HashSet<(u64, u64, bool)>,
    counts: &mut Counts,
) -> Result<Vec<Point<S::Model>>, String> {
    let mut points = Vec::new();
    let steps = noted(scenario, root, round, None, seen, counts, &mut points)?;
    if round < plan.faulty_rounds {
        let syncs = (0..steps.syncs).map(Fault::Sync);
        let writes = (0..steps.writes).flat_map(|n| [0, 100, 512, 700].map(|most| Fault::Write(n, most)));
        let names = (0..steps.names).map(Fault::Names);
        for fault in syncs.chain(writes).chain(names) {
            noted(scenario, root, round, Some(fault), seen, counts, &mut points)?;
        }
    }
    Ok(points)
}

fn noted<S: Scenario>(
    scenario: &S,
    root: &Point<S::Model>,
    round: usize,
    fault: Option<Fault>,
    seen: &mut HashSet<(u64, u64, bool)>,
    counts: &mut Counts,
    points: &mut Vec<Point<S::Model>>,
) -> Result<Steps, String> {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let steps = run(scenario, root, round, fault, counts, Some(&noted))?;
    for (world, model) in std::mem::take(&mut *noted.lock().unwrap_or_else(PoisonError::into_inner)) {
        if seen.insert(key(&world, &model, false)) {
            counts.points += 1;
            points.push(Point { world, model });
        }
    }
    Ok(steps)
}

type Noted<M> = Arc<Mutex<Vec<(World, M)>>>;

fn run<S: Scenario>(
    scenario: &S,
    root: &Point<S::Model>,
    round: usize,
    fault: Option<Fault>,
    counts: &mut Counts,
    noted: Option<&Noted<S::Model>>,
) -> Result<Steps, String> {
    counts.runs += 1;
    let sim = Sim::new(root.world.clone());
    let model = Arc::new(Mutex::new(root.model.clone()));
    if let Some(noted) = noted {
        let (model, noted) = (Arc::clone(&model), Arc::clone(noted));
        sim.observe(Some(Arc::new(move |world: &World| {
            let model = model.lock().unwrap_or_else(PoisonError::into_inner).clone();
            noted.lock().unwrap_or_else(PoisonError::into_inner).push((world.clone(), model));
        })));
    }
    sim.set_fault(fault);
    let result = scenario.round(&sim, &model, round, fault.is_some());
    sim.observe(None);
    if let Some(noted) = noted {
        let model = model.lock().unwrap_or_else(PoisonError::into_inner).clone();
        noted.lock().unwrap_or_else(PoisonError::into_inner).push((sim.world(), model));
    }
    result.map_err(|what| format!("round {round}, fault {fault:?}: {what}"))?;
    Ok(sim.steps())
}

/// What a crash can leave: the caches alive, or any part of what was loose.
fn images_of<M: Clone>(point: &Point<M>, plan: &Plan, rng: &mut fastrand::Rng) -> Vec<Point<M>> {
    let loose = point.world.loose();
    let mut kept: Vec<Vec<Loose>> = Vec::new();
    if loose.len() <= plan.subsets_max {
        for set in 0..1_u32 << loose.len() {
            let chosen = loose.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
            kept.push(chosen.map(|(_, part)| part.clone()).collect());
        }
    } else {
        kept.push(Vec::new());
        kept.push(loose.clone());
        for n in 1..loose.len() {
            kept.push(loose[..n].to_vec());
            kept.push(loose[n..].to_vec());
        }
        kept.extend(loose.iter().map(|part| vec![part.clone()]));
        for _ in 0..plan.random {
            kept.push(loose.iter().filter(|_| rng.bool()).cloned().collect());
        }
    }
    let model = &point.model;
    let power =
        kept.iter().map(|kept| Point { world: point.world.after_power_loss(kept), model: model.clone() });
    let process = Point { world: point.world.clone(), model: model.clone() };
    std::iter::once(process).chain(power).collect()
}
