//! The whole of a log file, in one process: rotation and sharing here, faults in a file of their own.

mod faults;
mod steps;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::repair::Fragment;
use super::testing::{TempDir, eventually, options};
use super::writer::Options;
use super::{LogFile, LogFiles, LogTarget, OpenError, Quarantine};
use crate::config::{self, SyncPolicy};
use crate::metrics::Registry;

const MIB: u64 = 1 << 20;

fn config(path: &Path, max_size: u64) -> config::LogFile {
    config::LogFile {
        file_path: path.to_owned(),
        max_size,
        max_backups: 0,
        max_age: 0,
        compress: false,
        sync: SyncPolicy::Never,
    }
}

fn open(files: &LogFiles, path: &Path, options: Options) -> Arc<LogFile> {
    files.open_with(path, options, false, &Registry::new()).expect("open")
}

/// A record of `bytes` bytes that says who wrote it.
fn record(sender: usize, number: usize, bytes: usize) -> Vec<u8> {
    let mut text = format!("{{\"sender\":{sender},\"number\":{number},\"fill\":\"").into_bytes();
    text.resize(bytes.max(text.len() + 2) - 2, b'x');
    text.extend_from_slice(b"\"}");
    text
}

fn send(file: &Arc<LogFile>, sender: usize, count: usize, bytes: usize) -> JoinHandle<()> {
    let file = Arc::clone(file);
    crate::threads::spawn("sender", move || {
        for number in 0..count {
            file.append(&[&record(sender, number, bytes)]).expect("append");
        }
    })
    .expect("thread")
}

/// Every record of `senders` x `count` is there once, whole; nothing else is.
fn assert_each_once(lines: &[String], senders: usize, count: usize, bytes: usize) {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    for line in lines {
        *seen.entry(line).or_default() += 1;
    }
    for sender in 0..senders {
        for number in 0..count {
            let expected = String::from_utf8(record(sender, number, bytes)).expect("UTF-8");
            assert_eq!(seen.remove(expected.as_str()), Some(1), "sender {sender}, record {number}");
        }
    }
    assert!(seen.is_empty(), "lines that nobody wrote: {:?}", seen.keys().next());
}

#[test]
fn six_threads_through_one_mib_files_lose_and_tear_nothing() {
    const COUNT: usize = 5 * MIB as usize / 1500;
    let dir = TempDir::new("six");
    let files = LogFiles::new();
    let metrics = Registry::new();
    let file = files.open(&config(&dir.path("audit.log"), 1), &metrics).expect("open");
    let keeper = files.start_keeper().expect("keeper");
    let senders: Vec<_> = (0..6).map(|sender| send(&file, sender, COUNT, 1500)).collect();
    for sender in senders {
        sender.join().expect("sender");
    }
    keeper.stop();
    assert_each_once(&dir.lines(), 6, COUNT, 1500);
    let names = dir.names();
    let mut largest = 0;
    for name in &names {
        let meta = fs::metadata(dir.path(name)).expect("stat");
        assert_eq!(meta.mode() & 0o7777, 0o600, "{name}");
        largest = largest.max(meta.len());
        assert!(name == "audit.log" || file.names.parse_backup(name.as_ref()).is_some(), "{name}");
    }
    let overruns = file.overruns.load(Ordering::Relaxed);
    eprintln!("{} files, the largest of {largest} bytes, {overruns} appends beyond the size", names.len());
    assert!(largest <= MIB || overruns > 0, "{largest} bytes with a spare always at hand");
    assert_eq!(file.rotations.get() as usize, names.len() - 1);
    assert!(metrics.render().contains("log_rotations_total{file="));
}

#[test]
fn a_file_is_rotated_as_lumberjack_rotates_it() {
    let dir = TempDir::new("sizes");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(100));
    let keeper = files.start_keeper().expect("keeper");
    let steps = [(60, 0), (40, 0), (1, 1), (99, 1), (500, 2), (1, 3)];
    for (bytes, rotations) in steps {
        file.append(&[&vec![b'x'; bytes - 1]]).expect("append");
        eventually("rotated when size + length is beyond the size", || file.rotations.get() >= rotations);
        assert_eq!(file.rotations.get(), rotations, "{bytes}");
    }
    keeper.stop();
    let sizes: Vec<_> = dir.names().iter().map(|n| fs::metadata(dir.path(n)).expect("stat").len()).collect();
    assert_eq!(sizes, [100, 100, 500, 1], "{:?}", dir.names());
}

#[test]
fn a_batch_is_divided_between_files_and_whole() {
    let dir = TempDir::new("batch");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(1000));
    let keeper = files.start_keeper().expect("keeper");
    for sender in 0..4 {
        let records: Vec<_> = (0..10).map(|n| record(sender, n, 150)).collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        LogTarget::File(Arc::clone(&file)).append(&records).expect("append");
    }
    keeper.stop();
    assert_each_once(&dir.lines(), 4, 10, 150);
    assert!(dir.names().len() > 1, "{:?}", dir.names());
}

#[test]
fn an_existing_file_is_continued_and_its_torn_end_ended() {
    let dir = TempDir::new("continue");
    fs::write(dir.path("a.log"), "{\"a\":1}\n{\"torn").expect("write");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(MIB));
    file.append(&[b"{\"b\":2}\n"]).expect("append");
    assert_eq!(fs::read(dir.path("a.log")).expect("read"), b"{\"a\":1}\n{\"torn\n{\"b\":2}\n");
}

#[test]
fn one_file_has_one_writer_whatever_it_is_called() {
    let dir = TempDir::new("share");
    let files = LogFiles::new();
    let metrics = Registry::new();
    let first = files.open(&config(&dir.path("deep/er/a.log"), 1), &metrics).expect("open");
    assert_eq!(fs::metadata(dir.path("deep")).expect("stat").mode() & 0o700, 0o700);
    symlink(dir.path("deep/er/a.log"), dir.path("link.log")).expect("symlink");
    symlink(dir.path("deep"), dir.path("other")).expect("symlink");
    fs::hard_link(dir.path("deep/er/a.log"), dir.path("hard.log")).expect("link");
    for name in ["deep/er/a.log", "link.log", "other/er/a.log", "deep/../deep/er/a.log", "hard.log"] {
        let again = files.open(&config(&dir.path(name), 1), &metrics).expect("open");
        assert!(Arc::ptr_eq(&first, &again), "{name}");
        let refused = files.open(&config(&dir.path(name), 2), &metrics).expect_err("other options");
        let said = refused.to_string();
        assert!(matches!(refused, OpenError::Conflict { .. }), "{said}");
        assert!(std::error::Error::source(&refused).is_none());
        for part in ["max_size: 1,", "max_size: 2,", "deep/er/a.log", name, "same log_file keys"] {
            assert!(said.contains(part), "{said}");
        }
    }
    let other = files.open(&config(&dir.path("b.log"), 2), &metrics).expect("open");
    assert!(!Arc::ptr_eq(&first, &other));
}

#[test]
fn what_cannot_be_opened_is_named() {
    let dir = TempDir::new("refused");
    let files = LogFiles::default();
    fs::write(dir.path("file"), "").expect("write");
    for (name, part) in [("", "directory"), ("file/a.log", "cannot make the directory"), ("a\0b", "NUL byte")]
    {
        let e = files.open(&config(&dir.path(name), 1), &Registry::new()).expect_err("refused");
        assert!(e.to_string().starts_with("cannot open log file \""), "{e}");
        assert!(e.to_string().contains(part), "{name}: {e}");
        assert!(std::error::Error::source(&e).is_some());
    }
    assert!(files.reopen().expect_err("no keeper")[0].contains("not running"));
    let _keeper = files.start_keeper().expect("keeper");
    assert!(files.start_keeper().expect_err("a second one").to_string().contains("running already"));
}

#[test]
fn two_rotations_in_one_millisecond_get_two_names() {
    let dir = TempDir::new("clash");
    let names = super::Names::new(&dir.path("a.log")).expect("names");
    let wall = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_795_499_290_302);
    fs::write(dir.path("a-2026-11-24T05-48-10.303.log.gz"), "taken").expect("write");
    let mut last_ms = i64::MIN;
    for _ in 0..2 {
        fs::write(dir.path("a.log"), "x\n").expect("write");
        super::recover::move_to_backup(&names, &dir.path("a.log"), wall, &mut last_ms).expect("move");
    }
    // A clock that was set back keeps the order.
    fs::write(dir.path("a.log"), "x\n").expect("write");
    let before = wall - std::time::Duration::from_secs(5);
    super::recover::move_to_backup(&names, &dir.path("a.log"), before, &mut last_ms).expect("move");
    assert_eq!(
        dir.names(),
        [
            "a-2026-11-24T05-48-10.302.log",
            "a-2026-11-24T05-48-10.303.log.gz",
            "a-2026-11-24T05-48-10.304.log",
            "a-2026-11-24T05-48-10.305.log"
        ]
    );
    let missing = super::recover::move_to_backup(&names, &dir.path("a.log"), wall, &mut last_ms);
    assert_eq!(missing.expect_err("nothing there").kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_mode_that_an_administrator_gave_the_file_is_kept() {
    let dir = TempDir::new("mode");
    let files = LogFiles::new();
    let path = dir.path("a.log");
    let file = open(&files, &path, options(100));
    let keeper = files.start_keeper().expect("keeper");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
    for _ in 0..3 {
        file.append(&[&[b'x'; 90]]).expect("append");
    }
    keeper.stop();
    assert_eq!(dir.names().len(), 3);
    for name in dir.names() {
        assert_eq!(fs::metadata(dir.path(&name)).expect("stat").mode() & 0o7777, 0o640, "{name}");
    }
}

#[test]
fn without_a_keeper_a_file_only_grows() {
    let dir = TempDir::new("nokeeper");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(100));
    for _ in 0..5 {
        file.append(&[&[b'x'; 90]]).expect("append");
    }
    assert_eq!(dir.names(), ["a.log"]);
    assert_eq!(file.overruns.load(Ordering::Relaxed), 4);
    // One that comes later catches up.
    let keeper = files.start_keeper().expect("keeper");
    file.append(&[b"{}"]).expect("append");
    keeper.stop();
    assert_eq!(dir.names().len(), 2);
    // And appends after its end still work.
    for _ in 0..5 {
        file.append(&[&[b'x'; 90]]).expect("append");
    }
    assert_eq!(dir.lines().len(), 11);
    assert_eq!(dir.names().len(), 2);
}

#[test]
fn an_unused_file_is_closed_and_its_helpers_removed() {
    let dir = TempDir::new("unused");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(100));
    let _keeper = files.start_keeper().expect("keeper");
    assert!(dir.names().len() > 1, "a spare is there");
    drop(file);
    eventually("it is closed", || files.shared.files.lock().is_empty());
    eventually("its spares are removed", || dir.names() == ["a.log"]);
    let again = open(&files, &dir.path("a.log"), options(200));
    eventually("spares again", || dir.names().len() > 1);
    again.append(&[b"{}"]).expect("append");
}

#[test]
fn many_quick_rotations_keep_enough_spares() {
    let dir = TempDir::new("quick");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(4 << 10));
    let keeper = files.start_keeper().expect("keeper");
    let senders: Vec<_> = (0..3).map(|sender| send(&file, sender, 2000, 300)).collect();
    for sender in senders {
        sender.join().expect("sender");
    }
    keeper.stop();
    assert_each_once(&dir.lines(), 3, 2000, 300);
    assert!(dir.names().len() > 20, "{}", dir.names().len());
    assert!(dir.names().iter().all(|n| !n.starts_with('.')), "{:?}", dir.names());
}

#[test]
fn quarantined_frames_are_lines_of_a_log_file() {
    let dir = TempDir::new("quarantine");
    let files = LogFiles::new();
    let quarantine = Quarantine::new(open(&files, &dir.path("q.log"), options(MIB)));
    let entries: [(&str, &str, &[u8]); 2] = [("tcp", "not_json", b"x\ny"), ("udp", "not_utf8", b"\xff")];
    for (listener, reason, raw) in entries {
        let entry = Quarantine::entry(listener, reason, "why", raw, std::time::UNIX_EPOCH);
        quarantine.file().append(&[&entry]).expect("append");
    }
    let lines = dir.lines();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains(r#""raw":"x\ny""#) && lines[1].contains(r#""raw_base64":"/w==""#), "{lines:?}");
}

#[test]
fn a_large_file_gets_its_spare_at_half_of_its_size() {
    let dir = TempDir::new("half-spare");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(20 * MIB));
    let _keeper = files.start_keeper().expect("keeper");
    file.append(&[&vec![b'x'; 9 * MIB as usize]]).expect("append");
    assert_eq!(dir.names(), ["a.log"]);
    file.append(&[&vec![b'x'; MIB as usize]]).expect("append");
    eventually("there is a spare", || dir.names().len() == 2);
}

#[test]
fn the_keeper_may_end_and_begin_under_load() {
    const COUNT: usize = 4000;
    let dir = TempDir::new("restart");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(8 << 10));
    let senders: Vec<_> = (0..4).map(|sender| send(&file, sender, COUNT, 200)).collect();
    let mut keepers = 0;
    while senders.iter().any(|s| !s.is_finished()) {
        files.start_keeper().expect("keeper").stop();
        keepers += 1;
    }
    for sender in senders {
        sender.join().expect("sender");
    }
    files.start_keeper().expect("keeper").stop();
    assert_each_once(&dir.lines(), 4, COUNT, 200);
    assert!(keepers > 0 && file.rotations.get() > 0);
}
