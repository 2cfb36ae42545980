//! The hand-off on one thread: what it says after good and bad syncs, and that each seeded fault makes it say something false. Every
//! interleaving of threads is tried by `tests/loom.rs`.

use std::sync::{Arc, Mutex};

use crate::side_effect::{Done, Refused};
use crate::store::journal::gate::{Batch, Book, Failure, Gate, GateSeed, Turned};

#[derive(Default)]
struct Log {
    settled: u64,
    rewound: u64,
}

impl Book for Log {
    type Payload = u64;
    fn settle(&mut self, upto: &u64) {
        self.settled = *upto;
    }
    fn rewind(&mut self, _: bool) {
        self.rewound += 1;
    }
}

type Answers = Arc<Mutex<Vec<(u64, Result<(), Refused>)>>>;

/// Two batches of one record each.
fn gate(seed: Option<GateSeed>, answers: &Answers) -> Gate<Log> {
    let mut gate = Gate::new(Log::default(), 1);
    gate.seed = seed;
    let mut state = gate.lock();
    for number in 1..3 {
        let answers = Arc::clone(answers);
        let done: Done = Box::new(move |result| answers.lock().unwrap().push((number, result)));
        state.queue.push_back(Batch { payload: number + 1, upto: number + 1, dones: vec![done] });
        state.next = number + 1;
    }
    drop(state);
    gate
}

#[test]
fn a_batch_is_answered_after_it_was_performed_and_a_failure_fails_all() {
    let answers = Answers::default();
    let gate = gate(None, &answers);
    let turned = gate.commit(1, &mut |_, durable| {
        assert_eq!((durable, answers.lock().unwrap().len()), (1, 0));
        Ok(())
    });
    let state = gate.lock();
    assert_eq!((turned, state.durable, state.book.settled), (Turned::Left, 2, 2));
    drop(state);
    let turned = gate.commit(9, &mut |_, _| Err(Failure { refused: Refused::Broken, stop: true }));
    assert_eq!(*answers.lock().unwrap(), [(1, Ok(())), (2, Err(Refused::Broken))]);
    let state = gate.lock();
    assert_eq!((turned, state.durable, state.next, state.book.rewound), (Turned::Finished, 2, 2, 1));
    assert_eq!(state.stopped, Some(Refused::Broken));
}

#[test]
fn each_seeded_fault_says_something_false() {
    let broken = Failure { refused: Refused::Broken, stop: true };
    let run = |seed, result: Result<(), Failure>| {
        let answers = Answers::default();
        let gate = gate(seed, &answers);
        let mut early = 0;
        let turned = gate.commit(1, &mut |_, _| {
            early += answers.lock().unwrap().len();
            result
        });
        let good = answers.lock().unwrap().iter().filter(|(_, result)| result.is_ok()).count();
        let durable = gate.lock().durable;
        (turned, early, good, durable)
    };
    assert_eq!(run(None, Ok(())), (Turned::Left, 0, 1, 2));
    assert_eq!(run(None, Err(broken)), (Turned::Finished, 0, 0, 1));
    assert_eq!(run(Some(GateSeed::PublishBeforeSync), Err(broken)), (Turned::Left, 1, 1, 2));
    assert_eq!(run(Some(GateSeed::SwallowedError), Err(broken)), (Turned::Left, 0, 1, 2));
    assert_eq!(run(Some(GateSeed::WrongUpto), Ok(())).2, 2, "both, and one was performed");
    // On one thread nobody is lost.
    assert_eq!(run(Some(GateSeed::LostWakeup), Ok(())), (Turned::Left, 0, 1, 2));
}
