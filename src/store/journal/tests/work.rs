//! Appending, committing, faults, room, trimming, closing, the keeper.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::options;
use crate::side_effect::Refused;
use crate::store::disk::sim::{Fault, Sim, World};
use crate::store::disk::{Disk, RealDisk};
use crate::store::journal::{Class, Entry, Event, Journal, Keeper, OpenError, Options, Position};
use crate::{clock, threads};

/// A journal on a simulated disk whose events are kept.
struct Bench {
    sim: Sim,
    journal: Journal,
    events: Arc<Mutex<Vec<Event>>>,
    now: Instant,
}

type Answers = Arc<Mutex<Vec<(u32, Result<(), Refused>)>>>;

fn bench(segments_max: u64) -> Bench {
    let sim = Sim::new(World::default());
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let mut options = options(segments_max);
    options.watch = Arc::new(move |event| told.lock().unwrap().push(event.clone()));
    let (journal, _) = Journal::open(sim.disk("q"), options, &mut |_, _| ()).unwrap();
    Bench { sim, journal, events, now: clock::now() }
}

impl Bench {
    fn append(&self, class: Class, len: usize) -> Result<Position, Refused> {
        let body = vec![9; len];
        let entry = Entry { kind: 1, body: &body };
        self.journal.append(class, &[entry], Box::new(|_| ())).map(|positions| positions[0])
    }

    fn numbered(&self, number: u32, answers: &Answers) -> Result<(), Refused> {
        let answers = Arc::clone(answers);
        let entry = Entry { kind: 1, body: &number.to_le_bytes() };
        let done = Box::new(move |result| answers.lock().unwrap().push((number, result)));
        self.journal.append(Class::Accept, &[entry], done).map(drop)
    }

    fn tick(&mut self, ms: u64) -> Duration {
        self.now += Duration::from_millis(ms);
        self.journal.tick(self.now)
    }

    fn saw(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(wanted)
    }
}

#[test]
fn answers_come_in_order_and_once_after_the_sync() {
    let b = bench(9);
    let answers = Answers::default();
    for n in 0..3 {
        b.numbered(n, &answers).unwrap();
    }
    assert!(answers.lock().unwrap().is_empty());
    assert_eq!(b.journal.stats().unsynced_bytes, 3 * 40);
    b.journal.commit();
    b.journal.commit();
    assert_eq!(*answers.lock().unwrap(), [(0, Ok(())), (1, Ok(())), (2, Ok(()))]);
    let stats = b.journal.stats();
    assert_eq!((stats.appended_records, stats.synced_bytes, stats.syncs, stats.refused), (3, 120, 1, None));
    assert!(b.saw(|e| matches!(e, Event::Synced { records: 3, bytes: 120, .. })));
}

#[test]
fn an_answer_that_panics_or_appends_holds_nobody_up() {
    let b = bench(9);
    let entry = Entry { kind: 1, body: b"x" };
    b.journal.append(Class::Accept, &[entry], Box::new(|_| panic!("on purpose"))).unwrap();
    let answers = Answers::default();
    b.numbered(1, &answers).unwrap();
    b.journal.commit();
    b.journal.append(Class::Accept, &[], Box::new(|r| r.unwrap())).unwrap();
    b.journal.commit();
    assert_eq!(answers.lock().unwrap().len(), 1);
}

#[test]
fn a_failed_sync_fails_all_that_waits_and_a_fresh_segment_follows() {
    let mut b = bench(9);
    b.tick(0);
    let first = b.append(Class::Accept, 50).unwrap();
    b.journal.commit();
    b.sim.set_fault(Some(Fault::AllSyncs));
    let answers = Answers::default();
    b.numbered(1, &answers).unwrap();
    b.numbered(2, &answers).unwrap();
    b.journal.commit();
    assert_eq!(*answers.lock().unwrap(), [(1, Err(Refused::Broken)), (2, Err(Refused::Broken))]);
    assert_eq!(b.journal.accepting(), Err(Refused::Broken));
    assert_eq!(b.numbered(3, &answers), Err(Refused::Broken));
    assert_eq!(answers.lock().unwrap().len(), 2, "a refusal is no answer");
    let waits: Vec<u128> = (0..7).map(|_| b.tick(5000).as_millis()).collect();
    assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000]);
    b.sim.set_fault(None);
    b.tick(5000);
    assert_eq!(b.journal.accepting(), Ok(()));
    assert!(b.saw(|e| *e == Event::Opened) && b.saw(|e| matches!(e, Event::Broken { .. })));
    let second = b.append(Class::Accept, 60).unwrap();
    b.journal.commit();
    b.tick(5000);
    let mut body = Vec::new();
    for (at, len) in [(first, 50), (second, 60)] {
        b.journal.read(at, &mut body).unwrap();
        assert_eq!(body, vec![9; len]);
    }
    assert_eq!(b.journal.stats().faults, 1);
    let mut seen = Vec::new();
    let (_, report) = Journal::open(b.sim.disk("q"), options(9), &mut |at, _| seen.push(at)).unwrap();
    assert_eq!(seen, [first, second]);
    assert!(report.damages.is_empty());
}

#[test]
fn without_room_what_was_accepted_can_still_be_finished() {
    let mut b = bench(9);
    b.tick(0);
    b.sim.set_fault(Some(Fault::Full));
    // Writes within a segment are not refused by a full disk: its room was taken when it was made.
    b.append(Class::Accept, 1900).unwrap();
    b.sim.set_fault(None);
    b.journal.commit();
    while b.journal.accepting().is_ok() {
        if b.append(Class::Accept, 1900).is_err() {
            break;
        }
        b.journal.commit();
        b.tick(30);
    }
    assert_eq!(b.append(Class::Accept, 1900), Err(Refused::Full));
    assert!(b.sim.world().used("q") <= 9 * 8192);
    let mut finished = 0;
    while b.append(Class::Finish, 100).is_ok() {
        b.journal.commit();
        finished += 1;
    }
    assert!(finished * 136 >= 4096 - 136, "a segment of room was kept: {finished}");
    let current = b.journal.segments().current;
    b.journal.trim(current);
    b.tick(30);
    assert!(b.append(Class::Finish, 8).is_err() || b.journal.segments().count < 9);
}

#[test]
fn a_disk_without_room_for_a_spare_refuses_what_is_new_until_there_is_room() {
    let mut b = bench(9);
    b.sim.set_fault(Some(Fault::Full));
    assert!(b.tick(0) > Duration::ZERO);
    assert!(b.saw(|e| matches!(e, Event::NoRoom { .. })));
    assert_eq!(b.journal.accepting(), Err(Refused::Full));
    assert_eq!(b.journal.stats().refused, Some(Refused::Full));
    b.sim.set_fault(None);
    b.tick(300);
    assert_eq!(b.journal.accepting(), Ok(()));
    assert!(b.saw(|e| *e == Event::Room));
}

#[test]
fn a_roll_without_room_is_no_fault() {
    let mut b = bench(9);
    for _ in 0..2 {
        b.append(Class::Accept, 1900).unwrap();
    }
    b.journal.commit();
    let answers = Answers::default();
    b.append(Class::Accept, 1900).unwrap();
    b.numbered(1, &answers).unwrap();
    b.sim.set_fault(Some(Fault::Full));
    b.journal.commit();
    assert_eq!(*answers.lock().unwrap(), [(1, Err(Refused::Full))]);
    assert_eq!(b.journal.accepting(), Err(Refused::Full));
    b.sim.set_fault(None);
    b.append(Class::Finish, 8).unwrap();
    b.journal.commit();
    b.tick(300);
    assert_eq!(b.journal.accepting(), Ok(()));
    assert_eq!(b.journal.stats().faults, 0);
}

#[test]
fn too_much_at_once_is_refused() {
    let b = bench(9);
    assert_eq!(b.append(Class::Accept, 2049), Err(Refused::Full));
    let body = vec![0; 2000];
    let three = [Entry { kind: 1, body: &body }; 3];
    assert_eq!(b.journal.append(Class::Finish, &three, Box::new(|_| ())).unwrap_err(), Refused::Full);
    let mut taken = 0;
    while b.append(Class::Accept, 1000).is_ok() {
        taken += 1;
    }
    assert!(taken > 0 && b.append(Class::Finish, 1000).is_ok());
}

#[test]
fn what_waits_in_memory_can_be_read_and_what_is_not_there_cannot() {
    let b = bench(9);
    let at = b.append(Class::Accept, 33).unwrap();
    let mut body = vec![1];
    b.journal.read(at, &mut body).unwrap();
    assert_eq!(body, vec![9; 33]);
    let wrong = Position { offset: at.offset + 8, ..at };
    let error = b.journal.read(wrong, &mut body).unwrap_err();
    assert!(error.to_string().contains("no valid record at offset"), "{error}");
    b.journal.commit();
    for wrong in [Position { len: 32, ..at }, Position { offset: 9000, ..at }] {
        assert_eq!(b.journal.read(wrong, &mut body).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    }
    assert!(b.journal.read(Position { segment: 99, ..at }, &mut body).is_err());
    // More segments than files are kept open.
    let mut b = bench(60);
    let mut all = Vec::new();
    for _ in 0..80 {
        all.push(b.append(Class::Accept, 2000).unwrap());
        b.journal.commit();
        b.tick(30);
    }
    for at in all.iter().chain(&all) {
        b.journal.read(*at, &mut body).unwrap();
        assert_eq!(body.len(), 2000);
    }
}

#[test]
fn trimmed_segments_are_used_again_or_removed() {
    let mut b = bench(9);
    for _ in 0..10 {
        b.append(Class::Accept, 2000).unwrap();
        b.journal.commit();
    }
    let before = b.journal.segments();
    assert_eq!((before.front, before.count), (1, before.current));
    b.journal.trim(before.current);
    b.journal.trim(before.current);
    b.tick(30);
    let after = b.journal.segments();
    assert_eq!((after.front, after.count), (before.current, after.current - before.current + 1));
    assert_eq!(after.bytes, b.sim.world().used("q"));
    assert_eq!(after.bytes, (after.count + 2) * 8192, "two spares");
}

#[test]
fn errors_of_removing_and_using_again_are_tried_again_later() {
    for n in 0..4 {
        let mut b = bench(9);
        for _ in 0..6 {
            b.append(Class::Accept, 2000).unwrap();
            b.journal.commit();
        }
        let current = b.journal.segments().current;
        b.journal.trim(current);
        b.journal.commit();
        let steps = b.sim.steps();
        b.sim.set_fault(Some(
            [Fault::Names(steps.names), Fault::Sync(steps.syncs), Fault::Full, Fault::Sync(steps.syncs + 1)]
                [n],
        ));
        b.tick(30);
        b.sim.set_fault(None);
        b.tick(6000);
        b.tick(6000);
        let after = b.journal.segments();
        assert_eq!((after.front, after.count), (current, after.current - current + 1), "fault {n}");
        assert_eq!(after.bytes, b.sim.world().used("q"));
    }
}

#[test]
fn a_new_name_that_is_not_synced_is_given_up() {
    let mut b = bench(9);
    b.tick(0);
    for _ in 0..2 {
        b.append(Class::Accept, 1900).unwrap();
    }
    b.journal.commit();
    b.append(Class::Accept, 1900).unwrap();
    // The header's sync succeeds, that of the directory fails; and once more when it is tried again.
    b.sim.set_fault(Some(Fault::Sync(b.sim.steps().syncs + 1)));
    b.journal.commit();
    assert_eq!(b.journal.accepting(), Err(Refused::Broken));
    b.sim.set_fault(Some(Fault::Sync(b.sim.steps().syncs + 1)));
    b.tick(0);
    assert_eq!(b.journal.accepting(), Err(Refused::Broken));
    let (_, report) = Journal::open(Sim::new(b.sim.world()).disk("q"), options(9), &mut |_, _| ()).unwrap();
    assert!(report.damages.is_empty());
    b.sim.set_fault(None);
    b.tick(300);
    assert_eq!(b.journal.accepting(), Ok(()));
    b.tick(300);
    assert_eq!(b.journal.segments().bytes, b.sim.world().used("q"));
}

#[test]
fn closing_makes_all_durable_and_refuses_what_follows() {
    let mut b = bench(9);
    let answers = Answers::default();
    b.numbered(1, &answers).unwrap();
    b.journal.close().unwrap();
    assert_eq!(*answers.lock().unwrap(), [(1, Ok(()))]);
    assert_eq!(b.numbered(2, &answers), Err(Refused::Closed));
    assert_eq!(b.journal.accepting(), Err(Refused::Closed));
    b.journal.trim(1);
    assert_eq!(b.journal.close(), Err(Refused::Closed));
    b.tick(9000);
    let (journal, report) = Journal::open(b.sim.disk("q"), options(9), &mut |_, _| ()).unwrap();
    assert!(report.closed);
    b.sim.set_fault(Some(Fault::AllSyncs));
    assert_eq!(journal.close(), Err(Refused::Broken));
    assert_eq!(journal.accepting(), Err(Refused::Closed));
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let disk = Sim::new(World::default()).disk("q");
    let changes: [fn(&mut Options); 4] = [
        |o| o.segment_bytes = 8193,
        |o| o.segment_bytes = 4096,
        |o| o.bytes_max = 2 * 8192,
        |o| o.record_bytes_max = 8192,
    ];
    for change in changes {
        let mut options = options(9);
        change(&mut options);
        let error = Journal::open(Arc::clone(&disk), options, &mut |_, _| ()).err().unwrap();
        assert!(matches!(error, OpenError::Options(_)) && !error.to_string().is_empty());
    }
    let quiet: fn(&Event) = |_| ();
    assert_eq!(Options::new(1 << 30, 1, Arc::new(quiet)).segment_bytes, 16 << 20);
    let small = Options::new(1 << 20, 1, Arc::new(quiet));
    assert_eq!((small.segment_bytes, small.append_bytes_max()), (128 << 10, (128 << 10) - 4096));
    assert!((small.created_ms)() > 0);
    small.check().unwrap();
}

/// The keeper's thread commits what nobody else does, on the real disk, beside eight threads that append and commit.
#[test]
fn threads_and_the_keeper_share_the_syncs() {
    let dir = std::env::temp_dir().join(format!("vaf-journal-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&dir).unwrap());
    let mut options = options(200);
    options.bytes_max = 100 * 65536;
    options.segment_bytes = 65536;
    let (journal, _) = Journal::open(Arc::clone(&disk), options.clone(), &mut |_, _| ()).unwrap();
    let journal = Arc::new(journal);
    let keeper = Keeper::start(Arc::clone(&journal), "keeper").unwrap();
    let wrong = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..8_u8)
        .map(|n| {
            let (journal, wrong) = (Arc::clone(&journal), Arc::clone(&wrong));
            let body = move || {
                let (told, answer) = mpsc::sync_channel(1);
                for i in 0..30_u8 {
                    let told = told.clone();
                    let entry = Entry { kind: 1, body: &[n, i, 1, 2, 3] };
                    let class = if n == 0 { Class::Finish } else { Class::Accept };
                    let done =
                        Box::new(move |result: Result<(), Refused>| told.send(result.is_ok()).unwrap());
                    let at = journal.append(class, &[entry], done).unwrap();
                    match n {
                        // The keeper looks after these by itself.
                        0 => (),
                        1 => journal.nudge(),
                        _ => journal.commit(),
                    }
                    let mut body = Vec::new();
                    let ok = answer.recv_timeout(Duration::from_secs(60)) == Ok(true);
                    journal.read(at[0], &mut body).unwrap();
                    if !ok || body != [n, i, 1, 2, 3] {
                        wrong.store(true, Ordering::SeqCst);
                    }
                }
            };
            threads::spawn("appender", body).unwrap()
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(!wrong.load(Ordering::SeqCst));
    journal.close().unwrap();
    drop(keeper);
    let mut entries = 0;
    let report = Journal::look(&*disk, &mut |_, _| entries += 1).unwrap();
    assert_eq!((entries, report.closed, report.damages.len()), (240, true, 0));
    std::fs::remove_dir_all(&dir).unwrap();
}
