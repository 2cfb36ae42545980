//! The predecessor's files: good ones, bad ones, both kinds, more than once.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::side_effect::{Ledger, SinkNumber};
use crate::store::tests::support::*;
use crate::store::{Filter, Item, Kind, Store};

const RECORD: &str = "eyJ0eXBlIjoicmVxdWVzdCJ9Cg==";

fn pending_json(id: &str, group: &str, more: &str) -> String {
    format!(
        r#"{{"id":"{id}","group_name":"{group}","attempts":1{more},"payload":"{RECORD}","payload_str":"{{\"type\":\"request\"}}\n"}}"#
    )
}

fn dead_json(id: &str, group: &str, reason: &str) -> String {
    format!(r#"{{"persisted":{},"reason":"{reason}"}}"#, pending_json(id, group, ""))
}

struct Old(Dir);

impl Old {
    fn new(what: &str) -> Old {
        let dir = Dir::new(what);
        for name in ["pending", "deadletter"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        Old(dir)
    }

    fn put(&self, kind: &str, name: &str, text: &str) {
        fs::write(self.0.path().join(kind).join(name), text).expect("a file");
    }

    fn left(&self, kind: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.path().join(kind)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn open(&self) -> (Store, Report) {
        let (store, mut report) = open(self.0.path(), &TestClock::at(2_000_000_000));
        run(&store.inner, self.0.path(), &mut report);
        (store, report)
    }
}

fn items(store: &Store, kind: Kind) -> Vec<Item> {
    store.list(&Filter { kind: Some(kind), ..Filter::default() }, 1000).items
}

#[test]
fn files_become_one_task_for_each_sink_of_their_group() {
    let old = Old::new("import");
    let id = "20241003120000.123456789-7";
    old.put(
        "pending",
        &format!("{id}.json"),
        &pending_json(id, "a", r#","max_attempts":5,"last_error":"busy""#),
    );
    old.put("deadletter", "x.json", &dead_json("20241003120001.000000000-8", "b", "connection refused"));
    let (store, report) = old.open();
    assert_eq!((report.imported, report.pending, report.dead), (2, 2, 1));
    assert!(report.not_imported.is_empty(), "{report:?}");
    let pending = items(&store, Kind::Pending);
    let sinks: Vec<&str> = pending.iter().map(|i| i.sink.as_str()).collect();
    assert_eq!(sinks, ["a/slack", "a/forward"]);
    for item in &pending {
        assert_eq!((item.group.as_str(), item.source.as_str(), item.sink_known), ("a", "import", true));
        assert_eq!((item.attempts_max, item.origin_attempts, item.attempts), (Some(4), 1, 0));
    }
    let task = store.take(SinkNumber(0)).expect("a task");
    assert_eq!(&*task.record, b"{\"type\":\"request\"}\n");
    assert_eq!(task.id.bits() >> 80, 1_727_956_800_123);
    let dead = items(&store, Kind::Dead);
    assert_eq!((dead[0].sink.as_str(), dead[0].reason), ("b/slack", Some(Reason::Imported)));
    assert_eq!((dead[0].error.as_str(), dead[0].attempts), ("connection refused", 1));
    assert!(store.replay(&Filter::default(), 9)[0].task.is_ok());
    assert!(old.left("pending").is_empty() && old.left("deadletter").is_empty());
    assert_eq!(old.left("imported/pending"), [format!("{id}.json")]);
    assert_eq!(old.left("imported/deadletter"), ["x.json"]);
}

#[test]
fn what_cannot_be_read_stays_named_and_stops_nothing() {
    let old = Old::new("unreadable");
    let bad = [
        ("01.json", "", "empty"),
        ("02.json", "{\"id\":", "not a task file: line 1"),
        ("03.json", "7", "not a task file"),
        ("04.json", &pending_json("x", "a", "").replace("\"attempts\":1", "\"attempts\":-1"), "attempts"),
        ("05.json", &pending_json("x", "a", r#","max_attempts":0"#), "limit"),
        ("06.json", &pending_json("x", "a", r#","max_attempts":null"#), "limit"),
        ("07.json", &pending_json("x", "a", r#","max_attempts":"three""#), "limit"),
        ("08.json", &pending_json("x", "a", "").replace(RECORD, "%%%"), "base64"),
        ("09.json", r#"{"id":"x","group_name":"a"}"#, "no record"),
        ("10.json", &pending_json("x", &"g".repeat(2000), ""), "longer than 1024"),
    ];
    for (name, text, _) in &bad {
        old.put("pending", name, text);
    }
    fs::create_dir(old.0.path().join("pending/11.json")).expect("a directory");
    for n in 0..50 {
        old.put("pending", &format!("1{n}0.json"), &pending_json(&format!("good{n}"), "b", ""));
    }
    old.put("pending", ".side-task-123", "{");
    let (store, report) = old.open();
    assert_eq!((report.imported, report.pending), (50, 50));
    assert_eq!(report.not_imported.len(), bad.len() + 1, "{:?}", report.not_imported);
    for ((file, why), (name, _, wanted)) in report.not_imported.iter().zip(&bad) {
        assert!(file.ends_with(name) && why.contains(wanted), "{file}: {why}");
    }
    assert!(report.not_imported[10].1.contains("not a file"));
    assert_eq!(old.left("pending").len(), bad.len() + 2);
    drop(store);
    let (_, report) = old.open();
    assert_eq!((report.imported, report.pending), (0, 50));
}

#[test]
fn a_file_that_is_met_again_is_not_imported_twice() {
    let old = Old::new("twice");
    let text = pending_json("", "b", "");
    let dead = dead_json("d", "b", "");
    for round in 0..3 {
        old.put("pending", "same.json", &text);
        old.put("deadletter", "d.json", &dead);
        let (_, report) = old.open();
        assert_eq!((report.imported, report.pending, report.dead), (2, 1, 1), "round {round}");
    }
}

#[test]
fn a_task_with_a_dead_letter_is_not_sent_and_an_interrupted_one_is_of_unknown_outcome() {
    let old = Old::new("overlap");
    old.put("pending", "both.json", &pending_json("both", "b", ""));
    old.put("deadletter", "both.json", &dead_json("both", "b", "known failure"));
    old.put("pending", "cut.json", &pending_json("cut", "b", r#","max_attempts":1"#));
    old.put(
        "pending",
        "failed.json",
        &pending_json("failed", "b", r#","max_attempts":1,"last_error":"busy""#),
    );
    let (store, report) = old.open();
    assert_eq!((report.imported, report.pending, report.dead), (4, 0, 3));
    let mut reasons: Vec<_> = items(&store, Kind::Dead).iter().map(|i| (i.reason, i.error.clone())).collect();
    reasons.sort();
    let wanted = [
        (Some(Reason::Exhausted), "busy".to_owned()),
        (Some(Reason::OutcomeUnknown), String::new()),
        (Some(Reason::Imported), "known failure".to_owned()),
    ];
    let mut wanted = wanted.to_vec();
    wanted.sort();
    assert_eq!(reasons, wanted);
}

#[test]
fn tasks_of_groups_without_sinks_wait_for_one() {
    let old = Old::new("nosink");
    old.put("pending", "x.json", &pending_json("x", "gone", ""));
    let (store, report) = old.open();
    assert_eq!((report.imported, report.pending), (1, 1));
    let item = &items(&store, Kind::Pending)[0];
    assert_eq!((item.sink.as_str(), item.group.as_str(), item.sink_known), ("gone/-", "gone", false));
    drop(store);
    let disk = |p: &Path| -> Arc<dyn Disk> { Arc::new(RealDisk::existing(p)) };
    let disks = (disk(old.0.path()), disk(&old.0.path().join("dead")));
    let names = ["gone/webhook".to_owned()];
    let clock = TestClock::at(2_000_000_000);
    let registry = crate::metrics::Registry::new();
    let (store, report) =
        open_with(disks, settings(old.0.path()), &names, &clock, Default::default(), &registry)
            .expect("a store");
    assert!(report.unknown_sinks.is_empty());
    assert_eq!(&*store.take(SinkNumber(0)).expect("it has come back").group, "gone");
}

#[test]
fn a_full_or_closed_store_imports_later() {
    let old = Old::new("later");
    old.put("pending", "x.json", &pending_json("x", "b", ""));
    old.put("deadletter", "y.json", &dead_json("y", "b", "no"));
    let (store, mut report) = open(old.0.path(), &TestClock::at(2_000_000_000));
    store.inner.close().expect("closed");
    run(&store.inner, old.0.path(), &mut report);
    assert_eq!((report.imported, report.not_imported.len()), (0, 2));
    assert!(report.not_imported.iter().all(|(_, why)| why.contains("next start")), "{report:?}");
    let (_, report) = old.open();
    assert_eq!((report.imported, report.pending, report.dead), (2, 1, 1));
}

#[test]
fn a_file_that_cannot_be_moved_is_named() {
    let old = Old::new("stuck");
    old.put("pending", "x.json", &pending_json("x", "b", ""));
    // A directory of that name is in the way of the file.
    fs::create_dir_all(old.0.path().join("imported/pending/x.json/y")).expect("directories");
    let (_, report) = old.open();
    assert_eq!((report.imported, report.pending), (0, 1));
    assert!(report.not_imported[0].1.contains("cannot be moved"), "{report:?}");
    let other = Old::new("stuck2");
    other.put("pending", "x.json", &pending_json("x", "b", ""));
    fs::write(other.0.path().join("imported"), b"").expect("in the way");
    let (_, report) = other.open();
    assert_eq!((report.imported, report.not_imported.len()), (0, 1), "{report:?}");
}

#[test]
fn files_without_an_id_or_payload_are_taken_as_far_as_they_go() {
    let written = UNIX_EPOCH + Duration::from_secs(5);
    let bytes = br#"{"group_name":"a","payload_str":"text"}"#;
    let task = parse(bytes, false, written).expect("a task");
    assert_eq!((task.id.len(), task.record.as_slice(), task.attempts), (64, &b"text"[..], 0));
    assert_eq!(
        time_in("20241003120000.123456789-7"),
        Some(UNIX_EPOCH + Duration::from_millis(1_727_956_800_123))
    );
    assert_eq!(time_in("20241003120000"), Some(UNIX_EPOCH + Duration::from_secs(1_727_956_800)));
    for odd in ["", "20241303120000.1", "x0241003120000", "é2410031200000", "00000000000000"] {
        assert_eq!(time_in(odd), None, "{odd:?}");
    }
    assert_ne!(new_id("x", "a/slack"), new_id("x", "a/forward"));
    assert_eq!(new_id("x", "a/slack"), new_id("x", "a/slack"));
}

#[test]
fn an_unreadable_directory_is_named() {
    let old = Old::new("noread");
    old.put("pending", "x.json", &pending_json("x", "b", ""));
    let dir = old.0.path().join("pending");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o000)).expect("changed");
    let readable = fs::read_dir(&dir).is_ok();
    let (_, report) = old.open();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("changed");
    if !readable {
        assert_eq!((report.imported, report.not_imported.len()), (0, 1), "{report:?}");
    }
}
