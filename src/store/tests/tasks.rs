//! Task states against a plain, slow model.

use proptest::prelude::*;

use super::*;

fn at(segment: u64, offset: u32) -> Position {
    Position { segment, offset, len: 100 }
}

#[derive(Debug, Clone)]
struct Slow {
    id: u128,
    order: u64,
    sink: usize,
    state: State,
    attempts: u32,
    attempts_max: u32,
    due: u64,
    segment: u64,
}

/// The oldest in a state.
fn oldest(model: &mut [Slow], wanted: impl Fn(&Slow) -> bool) -> Option<&mut Slow> {
    model.iter_mut().filter(|t| wanted(t)).min_by_key(|t| t.order)
}

#[derive(Debug, Clone)]
enum Step {
    Insert(usize, u32),
    Ready(usize),
    Take(usize),
    Reserve(usize, u32),
    Hold(usize, u64),
    Release(u64),
    Dying(usize),
    TakeDying,
    Park(usize),
    Unpark,
    Move(usize),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0_usize..40;
    prop_oneof![
        6 => (0_usize..3, 0_u32..4).prop_map(|(s, m)| Step::Insert(s, m)),
        4 => n.clone().prop_map(Step::Ready),
        6 => (0_usize..3).prop_map(Step::Take),
        3 => (n.clone(), 1_u32..5).prop_map(|(i, a)| Step::Reserve(i, a)),
        2 => (n.clone(), 1_u64..20).prop_map(|(i, d)| Step::Hold(i, d)),
        2 => (0_u64..20).prop_map(Step::Release),
        2 => n.clone().prop_map(Step::Dying),
        1 => Just(Step::TakeDying),
        1 => n.clone().prop_map(Step::Park),
        1 => Just(Step::Unpark),
        2 => n.clone().prop_map(Step::Move),
        3 => n.prop_map(Step::Remove),
    ]
}

fn names() -> Vec<String> {
    vec!["a/x".to_owned(), "a/y".to_owned()]
}

fn apply(tasks: &mut Tasks, model: &mut Vec<Slow>, step: Step, next: &mut u128) {
    let pick = |i: usize, model: &[Slow]| if model.is_empty() { None } else { Some(i % model.len()) };
    match step {
        Step::Insert(sink, attempts_max) => {
            *next += 1;
            let (id, order) = (*next, tasks.take_order());
            let name = ["a/x", "a/y", "gone/z"][sink];
            let place = tasks.destination(name, "g");
            assert!(tasks.insert(Entry::new(id, order, order, at(order / 8, 0), attempts_max, place)));
            assert!(!tasks.insert(Entry::new(id, order, order, at(order / 8, 0), attempts_max, place)));
            let segment = order / 8;
            model.push(Slow {
                id,
                order,
                sink,
                state: State::Syncing,
                attempts: 0,
                attempts_max,
                due: 0,
                segment,
            });
        }
        Step::Ready(i) => {
            let Some(i) = pick(i, model) else { return };
            model[i].state = State::Ready;
            assert_eq!(tasks.make_ready(model[i].id), (model[i].sink < 2).then_some(model[i].sink));
        }
        Step::Take(sink) => {
            let taken = tasks.take(sink).map(|e| e.id);
            let slow = oldest(model, |t| t.sink == sink && sink < 2 && t.state == State::Ready);
            assert_eq!(taken, slow.as_ref().map(|t| t.id));
            if let Some(slow) = slow {
                slow.state = State::Taken;
            }
        }
        Step::Reserve(i, attempt) => {
            let Some(i) = pick(i, model) else { return };
            let t = &mut model[i];
            let allowed = t.state == State::Taken
                && attempt > t.attempts
                && (t.attempts_max == 0 || attempt <= t.attempts_max);
            let result = tasks.reserve(t.id, attempt, 5);
            assert_eq!(result.is_ok(), allowed);
            if let Ok(before) = result {
                assert_eq!(before.attempts, t.attempts);
                if attempt % 2 == 0 {
                    tasks.unreserve(t.id, attempt, before);
                } else {
                    t.attempts = attempt;
                }
            }
        }
        Step::Hold(i, due) => {
            let Some(i) = pick(i, model) else { return };
            (model[i].state, model[i].due) = (State::Held, due);
            tasks.hold(model[i].id, due);
        }
        Step::Release(now) => {
            let numbers = tasks.release_due(now);
            let mut slow: Vec<usize> = Vec::new();
            for t in model.iter_mut().filter(|t| t.state == State::Held && t.due <= now) {
                t.state = State::Ready;
                slow.extend((t.sink < 2).then_some(t.sink));
            }
            slow.sort_unstable();
            slow.dedup();
            assert_eq!(numbers, slow);
        }
        Step::Dying(i) => {
            let Some(i) = pick(i, model) else { return };
            model[i].state = State::Dying;
            tasks.make_dying(model[i].id);
        }
        Step::TakeDying => {
            let taken = tasks.take_dying(2);
            for id in &taken {
                let slow = oldest(model, |t| t.state == State::Dying).expect("as many");
                assert_eq!(slow.id, *id);
                slow.state = State::Burying;
            }
            assert!(taken.len() == 2 || oldest(model, |t| t.state == State::Dying).is_none());
        }
        Step::Park(i) => {
            let Some(i) = pick(i, model) else { return };
            model[i].state = State::Parked;
            tasks.park(model[i].id);
        }
        Step::Unpark => {
            tasks.unpark(1);
            if let Some(t) = oldest(model, |t| t.state == State::Parked) {
                t.state = State::Dying;
            }
        }
        Step::Move(i) => {
            let Some(i) = pick(i, model) else { return };
            model[i].segment = 1000 + i as u64;
            tasks.moved(model[i].id, at(model[i].segment, 4));
        }
        Step::Remove(i) => {
            let Some(i) = pick(i, model) else { return };
            let slow = model.remove(i);
            assert_eq!(tasks.remove(slow.id).map(|e| e.id), Some(slow.id));
            assert!(tasks.remove(slow.id).is_none() && tasks.get(slow.id).is_none());
        }
    }
}

fn compare(tasks: &Tasks, model: &[Slow]) {
    assert_eq!(tasks.len(), model.len());
    assert_eq!(tasks.iter().count(), model.len());
    assert_eq!(tasks.parked(), model.iter().filter(|t| t.state == State::Parked).count());
    for sink in 0..2 {
        let slow = model.iter().filter(|t| t.sink == sink && t.state == State::Ready).count();
        assert_eq!(tasks.ready(sink), slow);
    }
    assert_eq!(tasks.usage.count(), model.len() as u64);
    assert_eq!(tasks.usage.first_live(), model.iter().map(|t| t.segment).min());
    for t in model {
        let entry = tasks.get(t.id).expect("it is there");
        assert_eq!((entry.order, entry.state, entry.attempts()), (t.order, t.state, t.attempts));
        assert_eq!(entry.at.segment, t.segment);
    }
}

proptest! {
    #[test]
    fn states_and_order_are_those_of_a_list(steps in proptest::collection::vec(step(), 1..150)) {
        let mut tasks = Tasks::new(&names(), 0);
        let mut model = Vec::new();
        let mut next = 0x1000;
        for step in steps {
            apply(&mut tasks, &mut model, step, &mut next);
            compare(&tasks, &model);
        }
    }
}

#[test]
fn more_tasks_than_a_chunk_holds() {
    let mut tasks = Tasks::new(&names(), 0);
    let n = 3 * CHUNK + 5;
    for i in 0..n {
        let order = tasks.take_order();
        // Ids whose lower halves are equal collide in the index.
        let id = ((i as u128) << 64) | (i as u128 / 3);
        assert!(tasks.insert(Entry::new(id, order, 1, at(1, 0), 0, 0)));
        tasks.make_ready(id);
    }
    let (entries, next) = tasks.scan(CHUNK, 10);
    assert_eq!((entries.count(), next), (10, Some(CHUNK + 10)));
    let (entries, next) = tasks.scan(3 * CHUNK, CHUNK);
    assert_eq!((entries.count(), next), (5, None));
    for i in 0..n {
        assert_eq!(tasks.take(0).map(|e| e.order), Some(i as u64 + 1));
    }
    for i in (0..n).rev() {
        assert!(tasks.remove(((i as u128) << 64) | (i as u128 / 3)).is_some());
    }
    assert_eq!((tasks.len(), tasks.usage.first_live()), (0, None));
}

#[test]
fn a_group_without_a_named_sink_goes_to_its_first_one() {
    let mut tasks =
        Tasks::new(&["g/h/x".to_owned(), "g/x".to_owned(), "g/y".to_owned(), "plain".to_owned()], 0);
    let numbers: Vec<Option<usize>> = ["g/-", "g/h/-", "h/-", "g/y", "g", "plain", "-"]
        .map(|name| {
            let place = tasks.destination(name, "g");
            tasks.destinations[place as usize].number
        })
        .to_vec();
    assert_eq!(numbers, [Some(1), Some(0), None, Some(2), None, Some(3), None]);
}

#[test]
fn the_oldest_is_looked_for_among_all_that_wait() {
    let mut tasks = Tasks::new(&names(), 0);
    assert_eq!(tasks.oldest_ns(), None);
    for (id, accepted_ns) in [(1, 50), (2, 40), (3, 30), (4, 20)] {
        let order = tasks.take_order();
        tasks.insert(Entry::new(id, order, accepted_ns, at(1, 0), 0, 0));
    }
    tasks.make_ready(1);
    assert_eq!(tasks.oldest_ns(), Some(50));
    tasks.make_dying(2);
    assert_eq!(tasks.oldest_ns(), Some(40));
    tasks.make_dying(3);
    tasks.park(3);
    assert_eq!(tasks.oldest_ns(), Some(30));
    assert_eq!(tasks.make_ready(99), None);
}

#[test]
fn an_entry_stays_small() {
    assert!(size_of::<Entry>() <= 80, "{}", size_of::<Entry>());
    assert_eq!(size_of::<Option<Entry>>(), size_of::<Entry>());
}
