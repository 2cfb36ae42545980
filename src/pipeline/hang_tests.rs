//! A log file that hangs holds up nobody but those who write to it. The file is a pipe that nobody reads.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;

use super::tests::pipeline_with_logs;
use super::*;
use crate::config::{self, SyncPolicy};
use crate::log_file::LogFiles;
use crate::log_file::testing::{TempDir, eventually, hanging_file};
use crate::threads;
use crate::ticket::Outcome;

const BYTES: usize = 8 << 10;

/// Groups `a` and `b`; what `a` takes goes to a file that hangs.
struct Scene {
    pipeline: Arc<Pipeline>,
    registry: Registry,
    reader: Option<BufReader<File>>,
    good: PathBuf,
    outcomes: Arc<Mutex<Vec<(u64, Outcome)>>>,
    next: AtomicU64,
    _dir: TempDir,
}

impl Scene {
    fn new() -> Scene {
        let (dir, registry) = (TempDir::new("hang"), Registry::new());
        let (bad, reader) = hanging_file(&dir.path("a.log"), &registry);
        let good = dir.path("b.log");
        let file = LogFiles::new().open(&config::LogFile::at(good.clone()), &registry).expect("a log file");
        let rules = [r#"Request.Path startsWith "a""#, r#"Request.Path endsWith "b""#];
        let groups = [vec![rules[0]], vec![rules[1]], vec!["false"]];
        let pipeline = pipeline_with_logs(&groups, &[bad, file], &dir.path(""), &registry);
        Scene {
            pipeline: Arc::new(pipeline),
            registry,
            reader: Some(BufReader::new(reader)),
            good,
            outcomes: Arc::default(),
            next: AtomicU64::new(0),
            _dir: dir,
        }
    }

    /// A ticket that notes its end under a number of its own.
    fn ticket(&self) -> Ticket {
        let (outcomes, number) = (Arc::clone(&self.outcomes), self.next.fetch_add(1, Ordering::SeqCst));
        Ticket::new(move |outcome| outcomes.lock().push((number, outcome)))
    }

    fn handle(&self, source: Source, frames: &[String], worker: &mut Worker) -> (Verdict, u64) {
        let before = self.next.load(Ordering::SeqCst);
        let frames: Vec<&[u8]> = frames.iter().map(String::as_bytes).collect();
        let mut ticket = || self.ticket();
        let verdict = match source {
            Source::Http => self.pipeline.handle(source, &frames, worker, &mut ticket),
            _ => {
                self.pipeline.handle_each(source, &frames, worker, &mut ticket);
                Verdict::Acked
            }
        };
        (verdict, self.next.load(Ordering::SeqCst) - before)
    }

    /// The thread of `worker` or the lane writes a record that does not fit into the pipe, and hangs. (Of several threads that write
    /// long lines to it at once a pipe makes a mess, other than a file: tests that read let the lane be the only one.)
    fn hang(&self, mut worker: Worker) -> std::thread::JoinHandle<()> {
        let pipeline = Arc::clone(&self.pipeline);
        let thread = threads::spawn("test-hangs", move || {
            let record = record("a/first");
            let mut ticket = || Ticket::new(|_| {});
            pipeline.handle(Source::Http, &[record.as_bytes()], &mut worker, &mut ticket);
        });
        let log = self.pipeline.logs().next().expect("the hanging file").clone();
        eventually("it hangs", || log.flights().oldest().is_some_and(|age| age >= Duration::from_millis(60)));
        thread.expect("a thread")
    }

    #[allow(clippy::disallowed_methods, reason = "lines of this test")]
    /// Reads so many lines out of the file that hangs: the paths of the records, which must be whole.
    fn read(&mut self, lines: usize) -> Vec<String> {
        let reader = self.reader.as_mut().expect("not dropped");
        let mut paths: Vec<String> = (0..lines)
            .map(|_| {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                let record: serde_json::Value = serde_json::from_str(&line).expect("a whole record");
                record["request"]["path"].as_str().expect("its path").to_owned()
            })
            .collect();
        paths.sort();
        paths
    }

    fn count(&self, outcome: &str) -> u64 {
        self.registry.counter(&metrics::RECORDS, &[outcome]).get()
    }

    fn refused(&self, reason: &str) -> u64 {
        self.registry.counter(&metrics::RECORDS_REFUSED, &[reason]).get()
    }

    fn good_lines(&self) -> usize {
        std::fs::read_to_string(&self.good).expect("the good file").lines().count()
    }
}

fn record(path: &str) -> String {
    format!(r#"{{"request":{{"path":"{path}"}},"x":"{}"}}"#, "y".repeat(BYTES))
}

#[test]
fn what_goes_elsewhere_is_written_while_one_file_hangs_and_nothing_is_lost() {
    let mut scene = Scene::new();
    let hung = scene.hang(Worker::by_lanes());
    let worker = &mut Worker::default();
    for n in 0..20 {
        assert_eq!(scene.handle(Source::Http, &[record(&format!("a/{n:02}"))], worker), (Verdict::Acked, 1));
        assert_eq!(scene.handle(Source::Http, &[record("x/b")], worker), (Verdict::Acked, 0), "at once");
        assert_eq!(scene.handle(Source::Http, &[record("x")], worker), (Verdict::Acked, 0));
    }
    assert_eq!(scene.handle(Source::Http, &["no record".to_owned()], worker), (Verdict::Acked, 0));
    assert_eq!((scene.good_lines(), scene.count("matched"), scene.count("unmatched")), (20, 20, 20));
    assert!(scene.outcomes.lock().is_empty());
    let read = scene.read(21);
    assert_eq!((read[0].as_str(), read[19].as_str(), read[20].as_str()), ("a/00", "a/19", "a/first"));
    hung.join().expect("no panic");
    eventually("all are acked", || scene.outcomes.lock().len() == 20);
    // In the order in which they came.
    let acked: Vec<_> = (0..20).map(|number| (number, Outcome::Done)).collect();
    assert_eq!(*scene.outcomes.lock(), acked);
    assert_eq!((scene.count("matched"), scene.count("refused")), (41, 0));
    // The lane is idle: this thread writes again.
    let pipeline = Arc::clone(&scene.pipeline);
    eventually("the lane is idle", || {
        let small = r#"{"request":{"path":"a"}}"#;
        let mut asked = false;
        let mut ticket = || {
            asked = true;
            Ticket::new(|_| {})
        };
        pipeline.handle(Source::Http, &[small.as_bytes()], &mut Worker::default(), &mut ticket);
        !asked
    });
}

#[test]
fn lines_of_one_read_wait_each_for_their_own_file() {
    let mut scene = Scene::new();
    let hung = scene.hang(Worker::by_lanes());
    let frames = ["a/1", "b", "a/b", "x", "a/2"].map(record);
    let mut frames = frames.to_vec();
    frames.push("no record".to_owned());
    let worker = &mut Worker::default();
    for source in [Source::Tcp, Source::Udp] {
        assert_eq!(scene.handle(source, &frames, worker), (Verdict::Acked, 1));
    }
    // Those that want the file that hangs have gone with all that they still have to do.
    assert_eq!(scene.good_lines(), 2);
    assert_eq!(["matched", "unmatched", "quarantined"].map(|o| scene.count(o)), [2, 2, 2]);
    assert_eq!(scene.read(7), ["a/1", "a/1", "a/2", "a/2", "a/b", "a/b", "a/first"]);
    hung.join().expect("no panic");
    eventually("all are counted", || scene.count("matched") == 9);
    assert_eq!((scene.good_lines(), scene.outcomes.lock().len()), (4, 2));
}

#[test]
fn a_request_that_two_files_want_is_acked_after_both() {
    let mut scene = Scene::new();
    let hung = scene.hang(Worker::by_lanes());
    let worker = &mut Worker::default();
    let frames = [record("a/b"), record("b"), "no record".to_owned()];
    assert_eq!(scene.handle(Source::Http, &frames, worker), (Verdict::Acked, 1));
    assert_eq!((scene.good_lines(), scene.outcomes.lock().len()), (0, 0));
    assert_eq!(scene.read(2), ["a/b", "a/first"]);
    hung.join().expect("no panic");
    eventually("it is acked", || scene.outcomes.lock().len() == 1);
    assert_eq!(*scene.outcomes.lock(), [(0, Outcome::Done)]);
    assert_eq!((scene.good_lines(), scene.count("quarantined"), scene.count("matched")), (2, 1, 3));
}

#[test]
fn a_full_lane_refuses_at_once_and_a_failed_append_refuses_all_of_it() {
    let mut scene = Scene::new();
    let hung = scene.hang(Worker::default());
    let worker = &mut Worker::default();
    let large = format!(r#"{{"request":{{"path":"a"}},"x":"{}"}}"#, "y".repeat(3 << 20));
    let mut taken = 0;
    let verdict = loop {
        match scene.handle(Source::Http, std::slice::from_ref(&large), worker) {
            (Verdict::Acked, 1) if taken < 100 => taken += 1,
            other => break other,
        }
    };
    assert_eq!(verdict, (Verdict::Refused, 0));
    assert!((5..12).contains(&taken), "32 MiB: {taken}");
    assert_eq!((scene.refused("log_busy"), scene.count("refused")), (1, 1));
    // Of a stream only the lines that want to go there.
    assert_eq!(scene.handle(Source::Tcp, &[large.clone(), record("b"), record("x")], worker).1, 0);
    assert_eq!((scene.refused("log_busy"), scene.good_lines(), scene.count("unmatched")), (2, 1, 1));
    // Its reader goes: every write fails.
    scene.reader = None;
    hung.join().expect("no panic");
    eventually("all are answered", || scene.outcomes.lock().len() == taken);
    assert!(scene.outcomes.lock().iter().all(|(_, outcome)| *outcome == Outcome::Refused));
    assert_eq!(scene.refused("log_write"), taken as u64 + 1, "the thread that hung too");
}

#[test]
fn at_the_end_what_hangs_is_left_and_counted_as_refused() {
    let mut scene = Scene::new();
    let hung = scene.hang(Worker::default());
    let worker = &mut Worker::default();
    // The first one is with the lane's thread once it is the only one: the others wait.
    for n in 0..5 {
        scene.handle(Source::Http, &[record(&format!("a/{n}")), record("x")], worker);
    }
    let left = scene.pipeline.close(std::iter::empty(), clock::now());
    assert_eq!(left.frames, 11);
    assert!(matches!(&left.hanging[..], [name] if name.ends_with("a.log")), "{left:?}");
    assert_eq!((scene.count("refused"), scene.refused("log_write")), (11, 11));
    assert_eq!(scene.pipeline.close(std::iter::empty(), clock::now()), LeftInLogs::default());
    // Nothing goes to a lane any more; other files take their lines.
    assert_eq!(scene.handle(Source::Http, &[record("a")], worker), (Verdict::Refused, 0));
    assert_eq!(scene.handle(Source::Http, &[record("b")], worker), (Verdict::Acked, 0));
    // What ends all the same is not acked.
    scene.reader = None;
    hung.join().expect("no panic");
    eventually("all are answered", || scene.outcomes.lock().len() == 5);
    assert!(scene.outcomes.lock().iter().all(|(_, outcome)| *outcome == Outcome::Refused));
}

#[test]
fn where_every_append_is_synced_records_share_syncs() {
    const RECORDS: usize = 500;
    let (dir, registry) = (TempDir::new("synced"), Registry::new());
    let path = dir.path("log");
    let file = config::LogFile { sync: SyncPolicy::Always, ..config::LogFile::at(path.clone()) };
    let file = LogFiles::new().open(&file, &registry).expect("a log file");
    let pipeline = pipeline_with_logs(&[Vec::new(), vec!["false"]], &[file], &dir.path(""), &registry);
    let acked = Arc::new(AtomicU64::new(0));
    let mut worker = Worker::default();
    for n in 0..RECORDS {
        let (acked, record) = (Arc::clone(&acked), format!(r#"{{"request":{{"path":"{n}"}}}}"#));
        let mut asked = 0;
        let mut ticket = || {
            asked += 1;
            let acked = Arc::clone(&acked);
            Ticket::new(move |outcome| {
                assert_eq!(outcome, Outcome::Done);
                acked.fetch_add(1, Ordering::SeqCst);
            })
        };
        assert_eq!(
            pipeline.handle(Source::Http, &[record.as_bytes()], &mut worker, &mut ticket),
            Verdict::Acked
        );
        assert_eq!(asked, 1, "always by the lane");
    }
    eventually("all are acked", || acked.load(Ordering::SeqCst) == RECORDS as u64);
    let text = std::fs::read_to_string(&path).expect("the file");
    let numbers: Vec<usize> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a record"))
        .map(|record| record["request"]["path"].as_str().and_then(|n| n.parse().ok()).expect("a number"))
        .collect();
    assert_eq!(numbers, (0..RECORDS).collect::<Vec<_>>(), "each once, in order");
    let syncs = registry.counter(&metrics::LOG_SYNCS, &[&path.display().to_string()]).get();
    assert!((1..=RECORDS as u64).contains(&syncs), "{syncs}");
}

#[test]
fn a_thread_of_the_operator_never_writes_itself() {
    let scene = Scene::new();
    assert_eq!(scene.handle(Source::Http, &[record("b")], &mut Worker::by_lanes()), (Verdict::Acked, 1));
    eventually("it is acked", || *scene.outcomes.lock() == [(0, Outcome::Done)]);
    assert_eq!((scene.good_lines(), scene.count("matched")), (1, 1));
}

#[test]
fn a_successor_shares_the_lanes_and_what_waits_in_the_earlier_one_is_finished() {
    let mut scene = Scene::new();
    let hung = scene.hang(Worker::by_lanes());
    let worker = &mut Worker::default();
    assert_eq!(scene.handle(Source::Http, &[record("a/00")], worker), (Verdict::Acked, 1));
    let files: Vec<_> = scene.pipeline.out.groups.iter().filter_map(|group| group.log_file.clone()).collect();
    // The second group's file is not used any more.
    let groups = [vec![r#"Request.Path startsWith "a""#], vec!["false"]];
    let elsewhere = TempDir::new("hang-quarantine");
    let successor = pipeline_with_logs(&groups, &files[..1], &elsewhere.path(""), &scene.registry);
    let successor = Arc::new(successor.succeeding(&scene.pipeline));
    let before = std::mem::replace(&mut scene.pipeline, successor);
    assert!(Arc::ptr_eq(&before.permits, &scene.pipeline.permits));
    assert!(Arc::ptr_eq(&before.out.targets[0].lane, &scene.pipeline.out.targets[0].lane));
    assert!(!before.is_idle() && scene.pipeline.is_idle());
    worker.renew();
    assert_eq!(
        scene.handle(Source::Http, &[record("a/01")], worker),
        (Verdict::Acked, 1),
        "behind the other"
    );
    let ended = Arc::downgrade(&before.out);
    let alone: Vec<_> = before.out.targets[1..].iter().map(|target| Arc::downgrade(&target.lane)).collect();
    drop(before);
    assert!(ended.upgrade().is_some(), "a batch of the earlier one waits");
    assert_eq!(scene.read(3), ["a/00", "a/01", "a/first"]);
    hung.join().expect("no panic");
    eventually("both are acked", || scene.outcomes.lock().len() == 2);
    assert_eq!(*scene.outcomes.lock(), [(0, Outcome::Done), (1, Outcome::Done)]);
    eventually("the earlier one is gone", || ended.upgrade().is_none());
    assert!(alone.iter().all(|lane| lane.upgrade().is_none()), "with the lanes that only it had");
    let mut by_lanes = Worker::by_lanes();
    by_lanes.renew();
    assert_eq!(scene.handle(Source::Http, &[record("a/02")], &mut by_lanes), (Verdict::Acked, 1));
    assert_eq!(scene.read(1), ["a/02"], "the shared lane goes on");
}
