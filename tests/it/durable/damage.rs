//! Damaged and foreign files in the store's directory, the predecessor's files, and a clock that jumps.

use std::path::PathBuf;

use super::*;

/// A server without workers has stored these records in one segment, and has ended. Its directory and its configuration with workers.
fn stopped_with(sink: &Sink, records: std::ops::Range<usize>) -> (Daemon, PathBuf) {
    let mut daemon = Plan::new(&durable(sink, "16MiB", "workers: 2")).start();
    sink.answer(Script::status(503));
    post_all(&daemon, records);
    daemon.kill();
    let segment = segments(&daemon).pop().expect("a segment");
    (daemon, segment)
}

fn segments(daemon: &Daemon) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(daemon.path("store"))
        .expect("the store's directory")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    found.sort();
    found
}

/// Turns one bit of a file round.
fn flip(path: &PathBuf, at: usize) {
    let mut bytes = std::fs::read(path).expect("the segment");
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn a_flipped_bit_costs_one_task_is_named_and_the_file_is_set_aside_by_command() {
    let sink = Sink::start([Script::status(503)]);
    let (daemon, segment) = stopped_with(&sink, 0..50);
    let bytes = std::fs::read(&segment).expect("the segment");
    let at = memchr::memmem::find(&bytes, b"\"00000020\"").expect("the record");
    flip(&segment, at);
    sink.answer(Script::ok());
    let before = sink.count();
    let mut daemon = daemon.again();
    wait_until("the intact ones are delivered", || sink.count() >= before + 49);
    let stderr = daemon.stderr();
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    let line = stderr.lines().find(|l| l.contains("ERROR")).unwrap_or_else(|| panic!("no error: {stderr}"));
    assert!(line.contains(&name) && line.contains(" at byte "), "{line}");
    assert!(line.contains("queue set-aside"), "the cure: {line}");
    let taken: std::collections::HashSet<usize> =
        sink.received()[before..].iter().filter(|r| r.status == 200).map(number).collect();
    let all: std::collections::HashSet<usize> = (0..50).filter(|n| *n != 20).collect();
    assert_eq!(taken, all);
    // The damage is kept until somebody moves it away.
    let kept = || {
        let names = std::fs::read_dir(daemon.path("store")).expect("readable");
        names.flatten().filter(|e| e.file_name().to_string_lossy().ends_with(".damaged")).count()
    };
    wait_until("the damaged file is kept under another name", || kept() == 1);
    wait_empty(&daemon);
    let status = daemon.run(&["status"], &[]);
    assert!(status.stdout.contains(&name), "{}", status.stdout);
    let moved = daemon.run(&["queue", "set-aside"], &[]);
    assert_eq!(moved.status.code(), Some(0), "{}", moved.stderr);
    assert!(moved.stdout.contains("quarantine"), "{}", moved.stdout);
    assert_eq!(kept(), 0);
    assert_eq!(std::fs::read_dir(daemon.path("store/quarantine")).expect("made").count(), 1);
    assert!(daemon.terminate().status.success());
    // It starts again, and sends nothing twice.
    let again = daemon.again();
    assert_eq!(again.metric("store_pending_tasks"), 0.0);
    assert_eq!(sink.received()[before..].iter().filter(|r| r.status == 200).count(), 49);
}

#[test]
fn truncated_empty_foreign_and_future_segments_stop_no_intact_task() {
    for (what, change) in [
        ("truncated", (|bytes: &mut Vec<u8>| bytes.truncate(20_000)) as fn(&mut Vec<u8>)),
        ("empty", |bytes| bytes.clear()),
        ("foreign", |bytes| *bytes = b"This is somebody's text.\n".repeat(4000)),
    ] {
        let sink = Sink::start([Script::status(503)]);
        let (daemon, segment) = stopped_with(&sink, 0..50);
        let mut bytes = std::fs::read(&segment).expect("the segment");
        change(&mut bytes);
        std::fs::write(&segment, &bytes).expect("written");
        sink.answer(Script::ok());
        let daemon = daemon.again();
        // What comes new is taken and delivered in any case.
        post_all(&daemon, 100..110);
        wait_empty(&daemon);
        let taken = numbers(&sink);
        assert!((100..110).all(|n| taken.contains(&n)), "{what}: {taken:?}");
        if what == "foreign" {
            let stderr = daemon.stderr();
            let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(stderr.lines().any(|l| l.contains(&name) && l.contains("ERROR")), "{what}: {stderr}");
        }
    }
}

/// Makes a segment one of a later format version, whole, with checksums that fit.
fn raise_version(path: &PathBuf) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("the segment");
    for copy in [0, 2048] {
        assert_eq!(bytes[copy + 8..copy + 12], [1, 0, 0, 0], "the format version at {copy}");
        bytes[copy + 8] = 9;
        let checksum = crc32c::crc32c(&bytes[copy..copy + 88]);
        bytes[copy + 88..copy + 92].copy_from_slice(&checksum.to_le_bytes());
    }
    std::fs::write(path, &bytes).expect("written");
    bytes
}

#[test]
fn a_segment_of_a_later_version_is_named_left_as_it_is_and_stops_no_other() {
    let sink = Sink::start([Script::status(503)]);
    let mut daemon = Plan::new(&durable(&sink, "64MiB", "workers: 2")).start();
    let mut stored = 0;
    while segments(&daemon).len() < 3 {
        post_all(&daemon, stored..stored + 500);
        stored += 500;
        assert!(stored < 100_000, "{:?}", segments(&daemon));
    }
    daemon.kill();
    for newest in [false, true] {
        let mut all = segments(&daemon);
        let future = if newest { all.pop().expect("one") } else { all.swap_remove(1) };
        let bytes = raise_version(&future);
        let name = future.file_name().expect("a name").to_string_lossy().into_owned();
        sink.answer(Script::ok());
        daemon = daemon.again();
        post_all(&daemon, stored..stored + 10);
        wait_empty(&daemon);
        let stderr = daemon.stderr();
        let line = stderr.lines().find(|l| l.contains("ERROR") && l.contains(&name));
        let line = line.unwrap_or_else(|| panic!("{name} is not named: {stderr}"));
        assert!(line.contains("version 9") && line.contains("byte 8"), "{line}");
        assert_eq!(std::fs::read(&future).expect("still there"), bytes);
        let taken: std::collections::HashSet<usize> =
            sink.received().iter().filter(|r| r.status == 200).map(number).collect();
        assert!((stored..stored + 10).all(|n| taken.contains(&n)), "what comes new is delivered");
        assert!(taken.contains(&0), "and what lies before it");
        assert!(!taken.is_empty() && taken.len() < stored + 10, "{} of {stored}", taken.len());
        daemon.kill();
        stored += 10;
    }
}

#[test]
fn the_predecessors_files_are_imported_once_and_bad_ones_among_them_stop_nothing() {
    let tasks = long_form("VAF_IMPORT", 300);
    let sink = Sink::start([Script::ok()]);
    let plan = Plan::new(&durable(&sink, "1GiB", "workers: 2"));
    let pending = plan.path("store/pending");
    std::fs::create_dir_all(&pending).expect("a directory");
    for n in 0..tasks {
        let text = serde_json::json!({
            "id": format!("20260902150405.{n:09}-{n}"), "group_name": "all", "attempts": 0, "max_attempts": 3,
            "payload_str": record(n, 300),
        });
        std::fs::write(pending.join(format!("20260902150405.{n:09}-{n}.json")), text.to_string())
            .expect("written");
    }
    std::fs::write(pending.join("0-empty.json"), "").expect("written");
    std::fs::write(pending.join("20260902150405.000000100-x.json"), r#"{"id":"x","pay"#).expect("written");
    let start = std::time::Instant::now();
    let mut daemon = plan.start();
    let ready = start.elapsed();
    figures(format_args!(
        "{tasks} of the predecessor's files: ready after {ready:?}, {} KiB",
        daemon.process("VmHWM")
    ));
    wait_until("all are delivered", || sink.count() >= tasks);
    wait_empty(&daemon);
    let mut taken = numbers(&sink);
    taken.sort_unstable();
    assert_eq!(taken, (0..tasks).collect::<Vec<_>>(), "each once");
    let stderr = daemon.stderr();
    for name in ["0-empty.json", "20260902150405.000000100-x.json"] {
        assert!(stderr.contains(name), "{name}: {stderr}");
        assert!(pending.join(name).exists(), "{name} stays");
    }
    assert_eq!(std::fs::read_dir(&pending).expect("readable").count(), 2);
    assert!(daemon.terminate().status.success());
    let again = daemon.again();
    assert_eq!((again.metric("store_pending_tasks"), sink.count()), (0.0, tasks));
}

#[test]
fn what_the_store_can_never_take_is_said_at_start_answered_and_kept() {
    let sink = Sink::start([Script::ok()]);
    let yaml = durable(&sink, "2MiB", "workers: 1")
        .replace("audit_protocol: none", "audit_protocol: tcp, audit_address: \"127.0.0.1:{audit}\"")
        + "limits: { record_bytes_max: 1MiB }\n";
    let plan = Plan::new(&yaml);
    let checked = plan.run(&["check"]);
    let said = checked.stdout + &checked.stderr;
    assert!(said.contains("limits.record_bytes_max") && said.contains("write at most"), "{said}");
    let daemon = plan.start();
    let large = record(1, 100_000);
    let answer = daemon.client().post("/v1/audit", large.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 413, "{}", answer.text());
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", daemon.audit())).expect("connected");
    let lines = format!("{large}\n{}\n", record(2, 100));
    std::io::Write::write_all(&mut stream, lines.as_bytes()).expect("sent");
    wait_until("the small one is delivered", || sink.count() == 1);
    daemon.wait_sum("records_quarantined_total", "oversize", 1.0);
    let kept = daemon.lines("quarantine.log");
    let line: serde_json::Value = serde_json::from_str(&kept[0]).expect("JSON");
    assert_eq!((line["reason"].as_str(), line["raw"].as_str()), (Some("oversize"), Some(large.as_str())));
}

#[test]
fn tasks_of_a_sink_that_is_gone_are_kept_said_and_taken_again() {
    let sink = Sink::start([Script::status(503)]);
    let mut daemon = Plan::new(&durable(&sink, "16MiB", "")).start();
    post_all(&daemon, 0..20);
    daemon.kill();
    let dir = daemon.path("store").display().to_string();
    let yaml = durable(&sink, "16MiB", "").replace("{dir}/store", &dir);
    let mut without = Plan::new(&yaml.replace("name: all", "name: other")).start();
    let stderr = without.stderr();
    assert!(stderr.contains("20 pending tasks are for \"all/webhook\""), "{stderr}");
    assert_eq!(without.metric("store_pending_tasks"), 20.0);
    without.terminate();
    sink.answer(Script::ok());
    let back = Plan::new(&yaml).start();
    wait_empty(&back);
    let mut taken: Vec<usize> = sink.received().iter().filter(|r| r.status == 200).map(number).collect();
    taken.sort_unstable();
    assert_eq!(taken, (0..20).collect::<Vec<_>>(), "each once");
}
