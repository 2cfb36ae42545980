use super::*;
use crate::store::body::{self, History};

fn at(offset: u32) -> Position {
    Position { segment: 1, offset, len: 100 }
}

fn task(id: u128, sink: &'static str, group: &'static str) -> TaskBody<'static> {
    TaskBody {
        id,
        order: id as u64,
        accepted_ns: 5,
        expires_ns: 0,
        attempts_max: 2,
        origin: 0,
        origin_attempts: 0,
        sink,
        group,
        source: "http",
        record: b"x",
    }
}

fn recovery() -> Recovery {
    Recovery::new(&["a/slack".to_owned()], 0, 0)
}

impl Recovery {
    fn tell(&mut self, offset: u32, body: &Body<'_>) {
        self.record(at(offset), Record { kind: body.kind(), body: &body.encode() });
    }

    fn tell_dead(&mut self, offset: u32, body: &Body<'_>) {
        self.dead_record(at(offset), Record { kind: body.kind(), body: &body.encode() });
    }
}

#[test]
fn records_that_belong_elsewhere_are_told_with_their_place() {
    let mut r = recovery();
    let letter = Body::DeadLetter { dead_ns: 9, history: History::default(), task: task(1, "a/slack", "a") };
    r.tell(8, &letter);
    r.tell(16, &Body::Removed { id: 1, why: Removal::Dropped });
    r.record(at(24), Record { kind: body::ACCEPTED, body: b"short" });
    r.record(at(32), Record { kind: 99, body: b"" });
    r.tell_dead(40, &Body::Delivered { id: 1, attempt: 1 });
    r.dead_record(at(48), Record { kind: body::DEAD_LETTER, body: b"short" });
    let places: Vec<u32> = r.odd.iter().map(|(at, _)| at.offset).collect();
    assert_eq!(places, [8, 16, 24, 32, 40, 48]);
    assert!(r.odd[0].1.to_string().contains("of the other log") && r.odd[4].1 == r.odd[0].1);
    assert_eq!((r.tasks.len(), r.dead.len()), (0, 0));
}

#[test]
fn the_result_of_an_earlier_attempt_does_not_end_the_one_under_way() {
    let mut r = recovery();
    let failure = |reason| Failure { last_ns: 7, reason, ..Failure::default() };
    for id in 1..=4 {
        r.tell(id as u32 * 8, &Body::Accepted(task(id, "a/slack", "a")));
        r.tell(40, &Body::Reserved { id, attempt: 1, at_ns: 6 });
    }
    // 1: the second attempt was interrupted; 2: both have failed; 3: given up after the first; 4: one attempt is left.
    r.tell(48, &Body::Reserved { id: 1, attempt: 2, at_ns: 8 });
    r.tell(56, &Body::Failed { id: 1, attempt: 1, failure: failure(None) });
    r.tell(64, &Body::Failed { id: 2, attempt: 2, failure: failure(None) });
    r.tell(72, &Body::Failed { id: 3, attempt: 1, failure: failure(Some(Reason::Permanent)) });
    r.tell(80, &Body::Failed { id: 9, attempt: 1, failure: failure(None) });
    let todo = r.finish(100);
    assert_eq!(todo, Todo { outcome_unknown: 1, ..Todo::default() });
    let reasons = [1, 2, 3, 4].map(|id| r.tasks.get(id).and_then(|e| e.tried().reason));
    let wanted = [Some(Reason::OutcomeUnknown), Some(Reason::Exhausted), Some(Reason::Permanent), None];
    assert_eq!(reasons, wanted);
    assert_eq!(r.tasks.take(0).map(|e| (e.id, e.attempts())), Some((4, 1)));
    assert!(r.tasks.take(0).is_none());
}

#[test]
fn unknown_sinks_are_counted_over_their_groups_and_a_copied_dead_letter_is_one() {
    let mut r = recovery();
    for (id, group) in [(1, "x"), (2, "y"), (3, "y")] {
        r.tell(8, &Body::Accepted(task(id, "gone/slack", group)));
    }
    assert_eq!(r.unknown_sinks(), [("gone/slack".to_owned(), 3)]);
    let letter = Body::DeadLetter { dead_ns: 9, history: History::default(), task: task(7, "a/slack", "a") };
    r.tell_dead(8, &letter);
    r.tell_dead(400, &letter);
    assert_eq!(r.dead.iter().map(|e| (e.id, e.at.offset)).collect::<Vec<_>>(), [(7, 400)]);
}
