//! Records that come twice: the second one is left out when the first one is done, and never before.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use parking_lot::Mutex;

use super::tests::pipeline_with_evidence;
use super::*;
use crate::config::{self, Config};
use crate::log_file::LogFiles;
use crate::log_file::testing::{TempDir, eventually, hanging_file};
use crate::threads;
use crate::ticket::Outcome;

const OUTCOMES: [&str; 5] = ["matched", "unmatched", "quarantined", "duplicate", "refused"];

/// Group `a` writes to a file of its own, or to one that hangs; `b` to another one.
struct Scene {
    pipeline: Arc<Pipeline>,
    registry: Registry,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    hung: Option<std::fs::File>,
    dir: TempDir,
}

fn config() -> Config {
    Config { dedupe_window: 10_000, pairs_window: 10_000, ..Config::default() }
}

impl Scene {
    fn new(hangs: bool) -> Scene {
        let (dir, registry) = (TempDir::new("evidence"), Registry::new());
        let open = |name: &str| {
            let path = dir.path(name).join("log");
            LogFiles::new().open(&config::LogFile::at(path), &registry).expect("a log file")
        };
        let (first, hung) = if hangs {
            let (file, reader) = hanging_file(&dir.path("hung.log"), &registry);
            (file, Some(reader))
        } else {
            (open("a"), None)
        };
        let rules = [r#"Request.Path startsWith "a""#, r#"Request.Path endsWith "b""#];
        let groups = [vec![rules[0]], vec![rules[1]], vec!["false"]];
        let pipeline =
            pipeline_with_evidence(&groups, &[first, open("b")], &dir.path(""), &registry, &config());
        Scene { pipeline: Arc::new(pipeline), registry, outcomes: Arc::default(), hung, dir }
    }

    fn handle<T: AsRef<[u8]>>(&self, source: Source, frames: &[T], worker: &mut Worker) -> Verdict {
        let frames: Vec<&[u8]> = frames.iter().map(AsRef::as_ref).collect();
        let mut ticket = || {
            let outcomes = Arc::clone(&self.outcomes);
            Ticket::new(move |outcome| outcomes.lock().push(outcome))
        };
        if source == Source::Http {
            return self.pipeline.handle(source, &frames, worker, &mut ticket);
        }
        self.pipeline.handle_each(source, &frames, worker, &mut ticket);
        Verdict::Acked
    }

    /// The same, until all that had to wait has been acked.
    fn handle_whole(&self, source: Source, frames: &[String], worker: &mut Worker) {
        let frames: Vec<&[u8]> = frames.iter().map(String::as_bytes).collect();
        let (sender, acked) = crossbeam_channel::bounded(frames.len());
        let mut asked = 0;
        let mut ticket = || {
            let sender = sender.clone();
            asked += 1;
            Ticket::new(move |outcome| sender.try_send(outcome).expect("room"))
        };
        if source == Source::Http {
            let verdict = self.pipeline.handle(source, &frames, worker, &mut ticket);
            assert_eq!(verdict, Verdict::Acked);
        } else {
            self.pipeline.handle_each(source, &frames, worker, &mut ticket);
        }
        (0..asked).for_each(|_| assert_eq!(acked.recv(), Ok(Outcome::Done)));
    }

    fn counts(&self) -> [u64; 5] {
        OUTCOMES.map(|outcome| self.registry.counter(&metrics::RECORDS, &[outcome]).get())
    }

    fn received(&self) -> u64 {
        let of = |source: Source| self.registry.counter(&metrics::RECORDS_RECEIVED, &[source.label()]).get();
        [Source::Http, Source::Tcp, Source::Udp, Source::Unix].map(of).iter().sum()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path(name).join("log")
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn record(id: &str, path: &str) -> String {
    format!(r#"{{"type":"request","request":{{"id":"{id}","path":"{path}"}}}}"#)
}

#[test]
fn what_is_done_is_left_out_and_the_others_keep_their_places() {
    let scene = Scene::new(false);
    let worker = &mut Worker::default();
    let first = [record("1", "a"), record("2", "x"), "no record".to_owned(), record("3", "ab")];
    assert_eq!(scene.handle(Source::Http, &first, worker), Verdict::Acked);
    assert_eq!(scene.counts(), [2, 1, 1, 0, 0]);
    // Again over other listeners, with new ones before, between and behind.
    for (n, source) in [Source::Tcp, Source::Http, Source::Udp].into_iter().enumerate() {
        let new = |at: &str, path: &str| record(&format!("{n}{at}"), path);
        let mut frames = vec![new("before", "b"), first[0].clone(), first[1].clone(), new("between", "a")];
        frames.extend([first[3].clone(), first[2].clone(), new("behind", "ab")]);
        assert_eq!(scene.handle(source, &frames, worker), Verdict::Acked);
        let n = n as u64 + 1;
        assert_eq!(scene.counts(), [2 + 3 * n, 1, 1 + n, 3 * n, 0]);
    }
    let ids = |name: &str| {
        let id = |line: &String| {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            record["request"]["id"].as_str().expect("an id").to_owned()
        };
        scene.lines(name).iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(ids("a"), ["1", "3", "0between", "0behind", "1between", "1behind", "2between", "2behind"]);
    let b = ["3", "0before", "0behind", "1before", "1behind", "2before", "2behind"];
    assert_eq!(ids("b"), b);
    // Nothing but duplicates, in a batch and alone.
    for frames in [&first[..2], &first[..1]] {
        for source in [Source::Http, Source::Unix] {
            assert_eq!(scene.handle(source, frames, worker), Verdict::Acked);
        }
    }
    assert_eq!((scene.counts(), scene.received()), ([11, 1, 4, 15, 0], 31));
    // Another type, or other bytes: another record.
    let others = [first[0].replace("\"request\",", "\"response\","), first[0].replace("\"a\"", "\"a/2\"")];
    assert_eq!(scene.handle(Source::Tcp, &others, worker), Verdict::Acked);
    assert_eq!((scene.counts(), scene.lines("a").len()), ([13, 1, 4, 15, 0], 10));
    // What an operator feeds in is taken, and not remembered.
    let operator = &mut Worker::default().taking_again();
    let fed = [first[0].clone(), record("fed", "a")];
    for _ in 0..2 {
        assert_eq!(scene.handle(Source::Http, &fed, operator), Verdict::Acked);
        operator.renew();
    }
    assert_eq!(scene.handle(Source::Http, &fed[1..], worker), Verdict::Acked);
    assert_eq!((scene.counts(), scene.lines("a").len()), ([18, 1, 4, 15, 0], 15));
    assert_eq!(scene.registry.counter(&metrics::RECORDS_REPLAYED, &[]).get(), 4);
}

#[test]
fn within_one_batch_nothing_is_done_yet() {
    let scene = Scene::new(false);
    let worker = &mut Worker::default();
    let twice = [record("1", "a"), record("1", "a")];
    assert_eq!(scene.handle(Source::Http, &twice, worker), Verdict::Acked);
    assert_eq!((scene.counts(), scene.lines("a").len()), ([2, 0, 0, 0, 0], 2));
    assert_eq!(scene.handle(Source::Tcp, &twice, worker), Verdict::Acked);
    assert_eq!((scene.counts(), scene.lines("a").len()), ([2, 0, 0, 2, 0], 2));
}

#[test]
fn what_was_refused_is_taken_when_it_comes_again() {
    let scene = Scene::new(false);
    let worker = &mut Worker::default();
    let dir = scene.dir.path("a");
    // A file in the place of the directory: the log file can neither be kept nor made anew.
    let break_it = || {
        std::fs::remove_dir_all(&dir).expect("removed");
        std::fs::write(&dir, "").expect("written");
    };
    let mend_it = || std::fs::remove_file(&dir).expect("removed");
    let frames = [record("1", "a"), record("2", "b"), record("3", "x")];
    break_it();
    assert_eq!(scene.handle(Source::Http, &frames, worker), Verdict::Refused);
    assert_eq!(scene.counts(), [0, 0, 0, 0, 3]);
    // Each line for itself: the others are done now.
    scene.handle(Source::Tcp, &frames, worker);
    assert_eq!((scene.counts(), scene.lines("b").len()), ([1, 1, 0, 0, 4], 1));
    // A request is refused as a whole; what is done already is done.
    assert_eq!(scene.handle(Source::Http, &frames, worker), Verdict::Refused);
    assert_eq!(scene.counts(), [1, 1, 0, 2, 5]);
    mend_it();
    assert_eq!(scene.handle(Source::Http, &frames, worker), Verdict::Acked);
    assert_eq!((scene.counts(), scene.lines("a").len()), ([2, 1, 0, 4, 5], 1));
    assert_eq!(scene.handle(Source::Http, &frames, worker), Verdict::Acked);
    assert_eq!((scene.counts(), scene.received()), ([2, 1, 0, 7, 5], 15));
}

#[test]
fn what_waits_for_a_file_that_hangs_is_not_done() {
    let mut scene = Scene::new(true);
    let long = |id: &str| record(id, &format!("a{}", "y".repeat(8 << 10)));
    let (pipeline, first) = (Arc::clone(&scene.pipeline), long("first"));
    let thread = threads::spawn("test-hangs", move || {
        let mut ticket = || Ticket::new(|_| {});
        pipeline.handle(Source::Http, &[first.as_bytes()], &mut Worker::by_lanes(), &mut ticket);
    });
    thread.expect("a thread").join().expect("no panic");
    let log = scene.pipeline.logs().next().expect("the hanging file").clone();
    eventually("it hangs", || log.flights().oldest().is_some_and(|age| age.as_millis() >= 60));
    let worker = &mut Worker::default();
    let frames = [long("1"), record("2", "b")];
    // Twice while nothing is written: both wait, and neither is acked.
    for n in 1..=2 {
        assert_eq!(scene.handle(Source::Http, &frames, worker), Verdict::Acked);
        scene.handle(Source::Tcp, &frames, worker);
        // The stream's second line goes elsewhere and is done.
        assert_eq!(scene.counts(), [1, 0, 0, 2 * (n - 1), 0], "{n}");
    }
    assert!(scene.outcomes.lock().is_empty());
    let mut reader = BufReader::new(scene.hung.take().expect("a reader"));
    let mut line = String::new();
    for _ in 0..5 {
        line.clear();
        #[allow(clippy::disallowed_methods, reason = "lines of this test")]
        reader.read_line(&mut line).expect("a line");
    }
    assert_eq!(line.trim_end(), frames[0]);
    eventually("all are counted", || scene.counts().iter().sum::<u64>() == scene.received());
    assert_eq!((scene.counts(), scene.lines("b").len()), ([7, 0, 0, 2, 0], 2));
    assert_eq!(*scene.outcomes.lock(), [Outcome::Done; 4]);
    assert_eq!(scene.handle(Source::Http, &frames, worker), Verdict::Acked);
    assert_eq!(scene.counts()[3], 4, "all of it is done");
}

#[test]
fn however_threads_meet_every_record_is_written_and_everything_is_counted() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 400;
    let scene = Scene::new(false);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let scene = &scene;
            scope.spawn(move || {
                let worker = &mut Worker::default();
                let source = [Source::Http, Source::Tcp, Source::Udp, Source::Unix][thread];
                for round in 0..ROUNDS {
                    // All threads send the same records, in batches that overlap in part.
                    let batch: Vec<String> =
                        (0..=round % 5).map(|n| record(&format!("{}", round * 2 + n), "ab")).collect();
                    scene.handle_whole(source, &batch, worker);
                    // Acked, so done: now at the latest it is left out.
                    scene.handle_whole(source, &batch[..1], worker);
                    assert_eq!(worker.duplicates, [0]);
                }
            });
        }
    });
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let lines = scene.lines("a");
    lines.iter().for_each(|line| *times.entry(line.clone()).or_default() += 1);
    let sent = (0..ROUNDS).flat_map(|round| (0..=round % 5).map(move |n| round * 2 + n));
    for id in sent {
        let seen = times.get(&record(&id.to_string(), "ab")).copied().unwrap_or(0);
        assert!((1..=THREADS).contains(&seen), "{id} was written {seen} times");
    }
    let counts = scene.counts();
    assert_eq!(counts.iter().sum::<u64>(), scene.received());
    assert_eq!((counts[0], counts[1], counts[2], counts[4]), (lines.len() as u64, 0, 0, 0));
    assert!(counts[3] >= (THREADS * ROUNDS) as u64);
    assert_eq!(scene.lines("b").len(), lines.len());
}
