//! The command within the process: over a control socket with tasks in memory, and on the files of a store.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::cli::{self, Io};
use crate::config::Environment;
use crate::control::tasks::{State, TaskBook};
use crate::control::testing::{MemoryBook, TempDir, api, line};
use crate::control::{self, Control};
use crate::metrics::Registry;
use crate::side_effect::retry::{Class, GiveUp};
use crate::side_effect::{End, Ledger as _, SinkNumber, Task};
use crate::sink::DeliveryError;
use crate::store::{Settings, Store};

struct Outcome {
    code: u8,
    out: String,
    err: String,
}

impl Outcome {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

/// Runs `queue` with these arguments, on a terminal where `answer` is what is typed there.
fn queue_at(dir: &Path, arguments: &[&str], answer: Option<&str>) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io {
        input: match answer {
            Some(answer) => Box::new(io::Cursor::new(answer.to_owned())),
            None => Box::new(io::empty()),
        },
        out: Box::new(&mut out),
        err: Box::new(&mut err),
        err_is_terminal: answer.is_some(),
        out_is_terminal: false,
    };
    let words = ["vault-audit-filter", "queue"].into_iter().chain(arguments.iter().copied());
    let place = [OsString::from("--dir"), dir.as_os_str().to_owned()];
    let code = cli::run(words.map(OsString::from).chain(place), Environment::default(), &mut io);
    drop(io);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Outcome { code, out: text(out), err: text(err) }
}

struct Served {
    book: Arc<MemoryBook>,
    dir: TempDir,
    _control: Control,
}

impl Served {
    fn queue(&self, arguments: &[&str]) -> Outcome {
        queue_at(self.dir.path(), arguments, None)
    }
}

fn serve() -> Served {
    let dir = TempDir::new();
    let dead = (1..=5).map(|n| line(n, State::Dead, if n % 2 == 0 { "even" } else { "odd" }));
    let book = Arc::new(MemoryBook::with(dead.chain([line(9, State::Pending, "odd")])));
    let tasks = Some(Arc::clone(&book) as Arc<dyn TaskBook>);
    let bound = control::bind(&dir.path().join("control.sock")).expect("bound");
    let control = Control::start(bound, Arc::new(api(dir.path(), tasks)), 1 << 20).expect("started");
    Served { book, dir, _control: control }
}

const ONE: &str = "00000000000000000000000000000001";

#[test]
fn a_list_is_a_table_or_json() {
    let served = serve();
    let all = served.queue(&["list"]);
    assert_eq!((all.code, all.err.as_str()), (0, ""));
    let lines: Vec<&str> = all.out.lines().collect();
    assert_eq!(lines.len(), 7, "{}", all.out);
    assert!(lines[0].starts_with("ID  ") && lines[0].ends_with("LAST ERROR"), "{}", lines[0]);
    assert!(lines[1].contains("waiting"), "pending tasks first: {}", lines[1]);
    assert!(
        lines[2].contains(ONE) && lines[2].contains("3/3") && lines[2].contains("exhausted"),
        "{}",
        lines[2]
    );
    assert!(lines[2].contains("said \\u{1b}[31mno") && !all.out.contains('\u{1b}'), "{}", lines[2]);
    assert!(!all.out.contains("\"n\""), "no record");

    let some = served.queue(&["list", "--state", "dead", "--limit", "2"]);
    assert_eq!((some.code, some.out.lines().count()), (0, 3));
    assert!(some.err.contains("2 of 5 tasks; --limit 0"), "{}", some.err);
    let json = served.queue(&["list", "--format", "json", "--group", "even", "--limit", "0"]).json();
    assert_eq!((json["total"].as_u64(), json["tasks"].as_array().map(Vec::len)), (Some(2), Some(2)));
    assert_eq!(json["tasks"][0]["sink"], "even/slack");
    let none = served.queue(&["list", "--group", "none", "--format", "json"]);
    assert_eq!((none.code, &none.json()["total"]), (1, &Value::from(0)));
    let since = served.queue(&[
        "list",
        "--since",
        "1970-01-01T00:00:04Z",
        "--until",
        "1970-01-01T00:00:06Z",
        "--reason",
        "exhausted",
    ]);
    assert_eq!((since.code, since.out.lines().count()), (0, 3), "{}", since.out);
}

#[test]
fn a_task_is_shown_with_its_record() {
    let served = serve();
    let text = served.queue(&["show", ONE]);
    assert_eq!(text.code, 0, "{}", text.err);
    for part in [
        "id              0000",
        "reason          exhausted",
        "HTTP 500",
        "record (9 bytes):\n{\"n\":\"01\"}\n",
    ] {
        assert!(text.out.contains(part), "{part:?}: {}", text.out);
    }
    assert!(!text.out.contains('\u{1b}'));
    let pending = served.queue(&["show", "00000000000000000000000000000009", "--format", "json"]).json();
    assert_eq!((&pending["task"]["state"], &pending["record"]["n"]), (&"pending".into(), &"09".into()));
    let none = served.queue(&["show", "000000000000000000000000000000ff"]);
    assert_eq!(none.code, 1);
    assert!(none.err.contains("there is no task") && none.err.contains("queue list"), "{}", none.err);
}

#[test]
fn dead_letters_are_replayed_and_dropped() {
    let served = serve();
    let replayed = served.queue(&["replay", ONE]);
    assert_eq!((replayed.code, replayed.out.as_str()), (0, "1 dead letter replayed\n"), "{}", replayed.err);
    assert_eq!(served.book.ids(State::Pending).len(), 2);
    let json = served.queue(&["replay", "--sink", "odd/slack", "--format", "json"]).json();
    assert_eq!(json["done"], 2);
    assert_eq!(served.queue(&["replay", "--sink", "odd/slack"]).code, 1, "nothing is left");
    let dropped = served.queue(&["drop", "--all"]);
    assert_eq!((dropped.code, dropped.out.as_str()), (0, "2 dead letters dropped\n"), "{}", dropped.err);
    let moved = served.queue(&["set-aside"]);
    assert_eq!((moved.code, moved.out.as_str()), (0, "/store/quarantine/0000000000000001.seg.damaged\n"));
    *served.book.broken.lock() = Some("EIO".to_owned());
    let failed = served.queue(&["drop", "--all", "--state", "pending"]);
    assert_eq!(failed.code, 2);
    assert!(failed.err.contains("EIO"), "{}", failed.err);
}

#[test]
fn a_drop_asks_on_a_terminal() {
    let served = serve();
    let on_terminal = |arguments: &[&str], answer| queue_at(served.dir.path(), arguments, Some(answer));
    for answer in ["", "n\n", "\n"] {
        let outcome = on_terminal(&["drop", "--all"], answer);
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{answer:?}");
        assert!(outcome.err.starts_with("Drop 5 dead letters for good? [y/N] "), "{}", outcome.err);
    }
    assert_eq!(on_terminal(&["drop", "--group", "even"], "y\n").out, "2 dead letters dropped\n");
    let not_asked = on_terminal(&["drop", "--all", "--yes", "--state", "pending"], "");
    assert_eq!((not_asked.out.as_str(), not_asked.err.as_str()), ("1 pending task dropped\n", ""));
    let nothing = on_terminal(&["drop", ONE, "--group", "even"], "");
    assert_eq!((nothing.code, nothing.err.as_str()), (1, ""), "there is nothing to ask about");
}

#[test]
fn what_is_not_said_is_not_done() {
    let served = serve();
    for (arguments, part) in [
        (&["drop"][..], "--all"),
        (&["replay"], "--all"),
        (&["drop", "--all", "--group", "even"], "--all does not go with"),
        (&["drop", "1234"], "32 hexadecimal digits"),
        (&["show", "zz"], "32 hexadecimal digits"),
        (&["list", "--since", "yesterday"], "90m or 24h"),
        (&["list", "--reason", "tired"], "possible values"),
        (&["list", "--state", "asleep"], "possible values"),
        (&["lsit"], "list"),
    ] {
        let outcome = served.queue(arguments);
        assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{arguments:?}");
        assert!(outcome.err.contains(part), "{arguments:?}: {}", outcome.err);
    }
    assert_eq!(served.book.ids(State::Dead).len(), 5);
    let dir = TempDir::new();
    let missing = queue_at(&dir.path().join("none"), &["list"], None);
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("there is no store in"), "{}", missing.err);
}

/// A store with two dead letters and a pending task, closed.
fn store_files(dir: &Path) {
    let names = ["payroll/slack".to_owned()];
    let opened = Store::open(Settings::new(dir, 8 << 20), &names, &Registry::new()).expect("opened");
    let tasks: Vec<(SinkNumber, Task)> = (0..3)
        .map(|n: u64| {
            let record = format!("{{\"type\":\"request\",\"n\":{n}}}").into_bytes();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + n);
            (SinkNumber(0), Task::new("payroll".into(), record.into(), "http", at))
        })
        .collect();
    opened.store.accept(&tasks, Box::new(|result| result.expect("accepted")));
    opened.store.commit();
    for _ in 0..2 {
        let task = opened.store.take(SinkNumber(0)).expect("a task");
        opened.store.reserve(SinkNumber(0), &task, 1).expect("reserved");
        let error = DeliveryError::new(Class::Permanent, "no such channel").with_status(404);
        let end = End::Failed { attempts: 1, reason: GiveUp::Permanent, error: &error };
        opened.store.ended(SinkNumber(0), &task, &end);
    }
    let dead = crate::store::Filter { kind: Some(crate::store::Kind::Dead), ..Default::default() };
    let deadline = crate::clock::now() + Duration::from_secs(60);
    while opened.store.list(&dead, 0).matched < 2 {
        assert!(crate::clock::now() < deadline, "they become dead letters");
        std::thread::sleep(Duration::from_millis(5));
    }
    opened.store.close().expect("closed");
}

#[test]
fn a_stopped_servers_files_are_enough() {
    let dir = TempDir::new();
    store_files(dir.path());
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).expect("readable").map(|e| e.expect("entry").file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let queue = |arguments: &[&str]| queue_at(dir.path(), arguments, None);
    let listed = queue(&["list", "--format", "json"]).json();
    assert_eq!(listed["total"], 3, "{listed}");
    let states: Vec<&str> =
        listed["tasks"].as_array().expect("tasks").iter().filter_map(|t| t["state"].as_str()).collect();
    assert_eq!(states, ["pending", "dead", "dead"]);
    let dead = &listed["tasks"][1];
    assert_eq!(
        (&dead["reason"], &dead["last_status"], &dead["attempts"], &dead["sink"]),
        (&"permanent".into(), &404.into(), &1.into(), &"payroll/slack".into())
    );
    let id = dead["id"].as_str().expect("an id");
    let shown = queue(&["show", id]);
    assert!(
        shown.out.contains("{\"type\":\"request\",\"n\":0}") && shown.out.contains("no such channel"),
        "{}",
        shown.out
    );
    assert_eq!(queue(&["show", ONE]).code, 1);
    assert_eq!(names(), before, "list and show change nothing");

    let replayed = queue(&["replay", id]);
    assert_eq!((replayed.code, replayed.out.as_str()), (0, "1 dead letter replayed\n"), "{}", replayed.err);
    let pending = queue(&["list", "--state", "pending", "--format", "json"]).json();
    assert_eq!(pending["total"], 2);
    let new = pending["tasks"].as_array().expect("tasks").iter().find(|t| t["replay_of"] == id);
    assert_eq!(new.expect("the new task")["attempts_before"], 1);
    let dropped = queue(&["drop", "--sink", "payroll/slack"]);
    assert_eq!((dropped.code, dropped.out.as_str()), (0, "1 dead letter dropped\n"), "{}", dropped.err);
    assert_eq!(queue(&["drop", "--sink", "payroll/slack"]).code, 1);
    assert_eq!(queue(&["drop", "--all", "--state", "pending"]).out, "2 pending tasks dropped\n");
    let nothing = queue(&["set-aside"]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("no damaged file"), "{}", nothing.err);
    assert_eq!(queue(&["list"]).code, 1);
}

#[test]
fn a_store_that_somebody_has_open_is_left_alone() {
    let dir = TempDir::new();
    let opened = Store::open(Settings::new(dir.path(), 8 << 20), &[], &Registry::new()).expect("opened");
    for action in [&["list"][..], &["drop", "--all"]] {
        let outcome = queue_at(dir.path(), action, None);
        assert_eq!(outcome.code, 2);
        let pid = format!("process {}", std::process::id());
        assert!(outcome.err.contains(&pid) && outcome.err.contains("--config FILE"), "{}", outcome.err);
    }
    drop(opened);
}

#[test]
fn damage_is_told_and_what_is_intact_is_listed() {
    let dir = TempDir::new();
    store_files(dir.path());
    let file = dir.path().join("dead/0000000000000001.seg");
    let mut bytes = std::fs::read(&file).expect("the segment of the dead letters");
    let record = br#"{"type":"request","n":0}"#;
    let at = bytes.windows(record.len()).position(|w| w == record).expect("the first dead letter");
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).expect("damaged");
    let listed = queue_at(dir.path(), &["list", "--format", "json"], None);
    assert_eq!(listed.code, 0, "{}", listed.err);
    assert!(listed.err.contains("dead/0000000000000001.seg at byte "), "{}", listed.err);
    assert!(listed.err.contains("queue set-aside"), "{}", listed.err);
    let json = listed.json();
    let states: Vec<&str> =
        json["tasks"].as_array().expect("tasks").iter().filter_map(|t| t["state"].as_str()).collect();
    assert!(states.contains(&"dead"), "the other one is there: {json}");
}
