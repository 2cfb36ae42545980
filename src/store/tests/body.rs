//! Bodies: golden bytes, round trips, every truncation, limits.

use proptest::prelude::*;

use super::*;

fn task() -> TaskBody<'static> {
    TaskBody {
        id: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        order: 0x1112_1314_1516_1718,
        accepted_ns: 1_700_000_000_000_000_001,
        expires_ns: 1_700_000_086_400_000_002,
        attempts_max: 5,
        origin: 0xdead,
        origin_attempts: 3,
        sink: "ops/slack",
        group: "ops",
        source: "http",
        record: b"{\"type\":\"request\"}\n",
    }
}

fn failure() -> Failure {
    Failure {
        last_ns: 1_700_000_000_500_000_000,
        next_due_ns: 1_700_000_001_000_000_000,
        class: Some(Class::Transient),
        reason: None,
        status: 503,
        error: "service unavailable ✗".to_owned(),
    }
}

fn history() -> History {
    History { attempts: 2, unfinished: true, first_ns: 1_700_000_000_400_000_000, failure: failure() }
}

fn all() -> Vec<Body<'static>> {
    let dead = Failure { reason: Some(Reason::OutcomeUnknown), class: None, ..failure() };
    vec![
        Body::Accepted(task()),
        Body::Carried(history(), task()),
        Body::Reserved { id: 7, attempt: 3, at_ns: 99 },
        Body::Failed { id: 7, attempt: 3, failure: failure() },
        Body::Delivered { id: 7, attempt: 3 },
        Body::DeadLettered { id: 7 },
        Body::Dropped { id: 7 },
        Body::DeadLetter { dead_ns: 55, history: History { failure: dead, ..history() }, task: task() },
        Body::Removed { id: 7, why: Removal::Dropped },
        Body::Removed { id: 7, why: Removal::Replayed },
        Body::Removed { id: 7, why: Removal::MadeRoom },
    ]
}

fn golden_of(body: &Body<'_>) -> String {
    let hex: String = body.encode().iter().map(|b| format!("{b:02x}")).collect();
    format!("{} {hex}", body.kind())
}

/// What version 1 has written must be read for ever: the lines of this file are never changed, only added to.
#[test]
fn bodies_are_those_of_the_golden_file() {
    let golden = include_str!("../../../tests/data/store/bodies-v1.txt");
    let lines: Vec<&str> = golden.lines().filter(|l| !l.starts_with('#')).collect();
    let now: Vec<String> = all().iter().map(golden_of).collect();
    assert_eq!(lines, now);
    for (line, body) in lines.iter().zip(all()) {
        let (kind, hex) = line.split_once(' ').expect("kind and bytes");
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal"))
            .collect();
        assert_eq!(Body::decode(kind.parse().expect("a kind"), &bytes), Ok(body));
    }
}

#[test]
fn every_truncation_and_every_extension_is_an_error() {
    for body in all() {
        let bytes = body.encode();
        for len in 0..bytes.len() {
            assert!(Body::decode(body.kind(), &bytes[..len]).is_err(), "{} of {body:?}", len);
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Body::decode(body.kind(), &longer), Err(BodyError("longer than its fields")));
    }
}

#[test]
fn fields_out_of_bounds_are_errors() {
    let told = |kind, bytes: &[u8]| Body::decode(kind, bytes).map(|_| ()).map_err(|e| e.0);
    let mut long_name = Body::Accepted(TaskBody { sink: "", ..task() }).encode();
    long_name[64..66].copy_from_slice(&1025_u16.to_le_bytes());
    assert_eq!(told(ACCEPTED, &long_name), Err("a text is longer than allowed"));
    let mut bad_name = Body::Accepted(task()).encode();
    bad_name[66] = 0xff;
    assert_eq!(told(ACCEPTED, &bad_name), Err("a text is not UTF-8"));
    let mut long_record = Body::Accepted(TaskBody { record: b"", ..task() }).encode();
    let end = long_record.len();
    long_record[end - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(told(ACCEPTED, &long_record), Err("the record is longer than allowed"));
    let mut failed = Body::Failed { id: 1, attempt: 1, failure: failure() }.encode();
    failed[36] = 4;
    assert_eq!(told(FAILED, &failed), Err("unknown class of a failure"));
    failed[36] = 2;
    failed[37] = 7;
    assert_eq!(told(FAILED, &failed), Err("unknown reason"));
    let mut carried = Body::Carried(history(), task()).encode();
    carried[4] = 2;
    assert_eq!(told(CARRIED, &carried), Err("unknown state of an attempt"));
    let mut removed = Body::Removed { id: 1, why: Removal::Dropped }.encode();
    removed[16] = 0;
    assert_eq!(told(REMOVED, &removed), Err("unknown cause of a removal"));
    assert_eq!(told(99, b""), Err("unknown kind"));
    assert_eq!(BodyError("x").to_string(), "record body: x");
}

#[test]
fn long_names_and_errors_are_cut_at_a_character() {
    let long = "é".repeat(2000);
    let new = Task::new(long.as_str().into(), b"r"[..].into(), "http", from_ns(5));
    let body = TaskBody::of(&new, &long);
    assert_eq!((body.sink.len(), body.group.len()), (1024, 1024));
    let long = Failure { error: format!("a{long}"), ..failure() };
    let bytes = Body::Failed { id: 1, attempt: 1, failure: long }.encode();
    let Ok(Body::Failed { failure, .. }) = Body::decode(FAILED, &bytes) else { panic!("it can be read") };
    assert_eq!(failure.error.len(), 2047);
}

#[test]
fn a_task_comes_back_as_it_was() {
    let group: Arc<str> = "ops".into();
    let mut new = Task::new(Arc::clone(&group), b"record"[..].into(), "unix", from_ns(1_234_567_890));
    new.attempts_max = Some(4);
    new.expires_at = Some(from_ns(9_999_999_999));
    let bytes = Body::Accepted(TaskBody::of(&new, "ops/slack")).encode();
    let Ok(Body::Accepted(body)) = Body::decode(ACCEPTED, &bytes) else { panic!("it can be read") };
    assert_eq!(bytes.len(), body.encoded_len());
    let again = body.task(2, &group);
    assert_eq!((again.id, again.accepted_at, again.expires_at), (new.id, new.accepted_at, new.expires_at));
    assert_eq!((again.attempts_max, again.attempts_made, again.source), (Some(4), 2, "unix"));
    assert_eq!(again.record, new.record);
    assert_eq!(source_of("a listener of a later version"), "unknown");
}

#[test]
fn times_out_of_range_are_clamped() {
    assert_eq!(to_ns(UNIX_EPOCH - Duration::from_secs(1)), 1);
    assert_eq!(to_ns(UNIX_EPOCH + Duration::from_secs(u64::MAX / 1000)), u64::MAX);
    assert_eq!(time_of(0), None);
}

#[test]
fn reasons_have_labels() {
    for reason in Reason::ALL {
        assert_eq!(Reason::from_label(reason.label()), Some(reason));
    }
    assert_eq!(Reason::from_label("none"), None);
    let from: Vec<Reason> =
        [GiveUp::Exhausted, GiveUp::Permanent, GiveUp::Expired].map(Reason::from).to_vec();
    assert_eq!(from, [Reason::Exhausted, Reason::Permanent, Reason::Expired]);
}

proptest! {
    #[test]
    fn any_bytes_are_a_body_or_an_error(kind in 0_u8..30, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(body) = Body::decode(kind, &bytes) {
            prop_assert_eq!(body.encode(), bytes);
        }
    }

    #[test]
    fn any_task_comes_back(
        numbers in any::<(u128, u64, u64, u64, u32, u128, u32)>(),
        names in ("\\PC{0,40}", "\\PC{0,40}", "\\PC{0,10}"),
        record in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let (id, order, accepted_ns, expires_ns, attempts_max, origin, origin_attempts) = numbers;
        let (sink, group, source) = (&names.0, &names.1, &names.2);
        let task = TaskBody { id, order, accepted_ns, expires_ns, attempts_max, origin, origin_attempts, sink, group, source, record: &record };
        let body = Body::Carried(history(), task);
        let bytes = body.encode();
        prop_assert_eq!(Body::decode(CARRIED, &bytes), Ok(body));
    }
}

#[test]
fn every_class_of_failure_comes_back() {
    for class in [None, Some(Class::Transient), Some(Class::Permanent), Some(Class::Blocked)] {
        let body = Body::Failed { id: 7, attempt: 3, failure: Failure { class, ..failure() } };
        assert_eq!(Body::decode(FAILED, &body.encode()), Ok(body));
    }
}
