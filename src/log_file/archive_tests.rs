//! Retention and compression.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use flate2::read::GzDecoder;

use super::super::testing::{TempDir, eventually, options};
use super::super::{LogFile, LogFiles};
use super::*;
use crate::clock;
use crate::metrics::Registry;

fn named(ms: i64, compressed: bool) -> (Backup, OsString) {
    (Backup { at_ms: ms, compressed }, format!("{ms}{}", if compressed { ".gz" } else { "" }).into())
}

fn planned(backups: &[(i64, bool)], now_ms: i64, o: Options) -> (Vec<String>, Vec<String>) {
    let plan = plan(backups.iter().map(|(ms, gz)| named(*ms, *gz)).collect(), now_ms, &o);
    let texts = |names: Vec<OsString>| names.into_iter().map(|n| n.into_string().expect("UTF-8")).collect();
    (texts(plan.remove), texts(plan.compress))
}

#[test]
fn plans_are_lumberjacks() {
    let o =
        |backups_max, age_days_max, compress| Options { backups_max, age_days_max, compress, ..options(1) };
    let all = [(1, false), (DAY_MS, false), (DAY_MS, true), (2 * DAY_MS, true), (3 * DAY_MS, false)];
    for (options, removed, compressed) in [
        (o(0, 0, false), vec![], vec![]),
        (o(0, 0, true), vec![], vec!["259200000", "86400000", "1"]),
        (o(2, 0, false), vec!["86400000", "86400000.gz", "1"], vec![]),
        (o(3, 0, true), vec!["1"], vec!["259200000", "86400000"]),
        (o(0, 2, false), vec!["1"], vec![]),
        (o(0, 1, true), vec!["86400000", "86400000.gz", "1"], vec!["259200000"]),
        (o(9, 9, false), vec![], vec![]),
        (o(1, 9, true), vec!["172800000.gz", "86400000", "86400000.gz", "1"], vec!["259200000"]),
    ] {
        assert_eq!(
            planned(&all, 3 * DAY_MS, options),
            (
                removed.iter().map(ToString::to_string).collect(),
                compressed.iter().map(ToString::to_string).collect()
            ),
            "{options}"
        );
    }
    assert_eq!(planned(&all, 0, o(0, u32::MAX, false)).0, Vec::<String>::new());
}

fn open(dir: &TempDir, options: Options) -> (LogFiles, Arc<LogFile>) {
    let files = LogFiles::new();
    let file = files.open_with(&dir.path("a.log"), options, false, &Registry::new()).expect("open");
    (files, file)
}

fn unzipped(path: &std::path::Path) -> String {
    let mut text = String::new();
    let from = GzDecoder::new(File::open(path).expect("open"));
    #[allow(clippy::disallowed_methods, reason = "bounded by take")]
    from.take(1 << 30).read_to_string(&mut text).expect("a whole gzip file");
    text
}

const A: &str = "a-2026-11-24T05-48-10.302.log";
const B: &str = "a-2026-11-25T05-48-10.302.log";

#[test]
fn compression_keeps_text_mode_and_times_and_cleans_up_after_a_crash() {
    let dir = TempDir::new("gzip");
    let (_files, file) = open(&dir, Options { compress: true, ..options(1 << 20) });
    let long = "{\"a\":1}\n".repeat(50_000);
    std::fs::write(dir.path(A), &long).expect("write");
    std::fs::write(dir.path(B), "b\n").expect("write");
    // A crash after the rename, or lumberjack's partial file; and one before the rename.
    std::fs::write(dir.path(&format!("{A}.gz")), "partial").expect("write");
    std::fs::write(dir.path(&format!(".{B}.gz.tmp")), "partial").expect("write");
    std::fs::write(dir.path(".other.gz.tmp"), "not ours").expect("write");
    let before = std::fs::metadata(dir.path(A)).expect("stat");
    let stopped = AtomicBool::new(true);
    tend(&file, clock::wall(), &stopped).expect("tend");
    assert!(dir.path(A).exists(), "stopped: nothing is begun");
    let (source, temp) = (File::open(dir.path(A)).expect("open"), dir.path(&format!(".{A}.gz.tmp")));
    assert_eq!(write_gz(&source, &temp, &stopped).expect_err("stopped").kind(), io::ErrorKind::Interrupted);
    compress(&file, OsStr::new(A), &stopped).expect("stopped is no error");
    assert!(dir.path(A).exists() && !temp.exists());

    tend(&file, clock::wall(), &AtomicBool::new(false)).expect("tend");
    assert_eq!(dir.names(), [".other.gz.tmp", &format!("{A}.gz"), &format!("{B}.gz"), "a.log"]);
    assert_eq!(unzipped(&dir.path(&format!("{A}.gz"))), long);
    let after = std::fs::metadata(dir.path(&format!("{A}.gz"))).expect("stat");
    assert_eq!(
        (after.mode(), after.mtime(), after.mtime_nsec()),
        (before.mode(), before.mtime(), before.mtime_nsec())
    );
    compress(&file, OsStr::new(A), &AtomicBool::new(false)).expect("gone is no error");
}

#[test]
fn a_backup_that_a_writer_has_open_is_left_alone() {
    let dir = TempDir::new("live");
    let (_files, file) = open(&dir, Options { compress: true, backups_max: 1, ..options(1 << 20) });
    for (name, text) in [(A, "a\n"), (B, "b\n")] {
        std::fs::write(dir.path(name), text).expect("write");
    }
    let writers: Vec<_> = [A, B]
        .map(|name| {
            super::super::generation::Generation::open(&dir.path(name), false, &file.live).expect("open")
        })
        .into_iter()
        .collect();
    assert!(tend(&file, clock::wall(), &AtomicBool::new(false)).expect("tend"), "something is left to do");
    assert_eq!(dir.names(), [A, B, "a.log"]);
    drop(writers);
    assert!(!tend(&file, clock::wall(), &AtomicBool::new(false)).expect("tend"));
    assert_eq!(dir.names(), [&format!("{B}.gz"), "a.log"]);
}

#[test]
fn failures_are_named_and_the_rest_is_done() {
    let dir = TempDir::new("failures");
    let (_files, file) = open(&dir, Options { compress: true, ..options(1 << 20) });
    std::fs::create_dir(dir.path(A)).expect("a directory called like a backup");
    std::fs::write(dir.path(B), "b\n").expect("write");
    let e = tend(&file, clock::wall(), &AtomicBool::new(false)).expect_err("a directory");
    assert!(e.to_string().contains("cannot compress") && e.to_string().contains(A), "{e}");
    assert_eq!(dir.names(), [A, &format!("{B}.gz"), "a.log"]);
}

#[test]
fn rotated_files_are_compressed_and_counted_while_records_come() {
    let dir = TempDir::new("mill");
    let (files, file) = open(&dir, Options { compress: true, backups_max: 3, ..options(1000) });
    std::fs::write(dir.path("a-2001-01-01T00-00-00.000.log"), "old\n").expect("write");
    std::fs::write(dir.path("a-2001-01-01.log"), "not a backup\n").expect("write");
    let keeper = files.start_keeper().expect("keeper");
    let mut count = 0;
    eventually("six rotations", || {
        for _ in 0..20 {
            file.append(&[format!("{{\"number\":{count}}}").as_bytes()]).expect("append");
            count += 1;
        }
        file.rotations.get() >= 6
    });
    eventually("three compressed backups are left", || {
        let names: Vec<_> = dir.names().into_iter().filter(|n| !n.starts_with('.')).collect();
        names.iter().filter(|n| n.ends_with(".log.gz")).count() == 3 && names.len() == 5
    });
    keeper.stop();
    let names = dir.names();
    assert_eq!(names[0], "a-2001-01-01.log");
    let mut numbers = String::new();
    for name in &names[1..4] {
        numbers.push_str(&unzipped(&dir.path(name)));
    }
    numbers.push_str(&std::fs::read_to_string(dir.path("a.log")).expect("read"));
    let first = count - numbers.lines().count();
    for (line, number) in numbers.lines().zip(first..) {
        assert_eq!(line, format!("{{\"number\":{number}}}"));
    }
}

#[test]
fn a_quiet_file_ages_out_at_the_start() {
    let dir = TempDir::new("age");
    let (files, file) = open(&dir, Options { age_days_max: 1, ..options(1 << 20) });
    let at = |back: Duration| {
        let ms = (clock::wall() - back).duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        file.names.backup(ms as i64).expect("a name").into_string().expect("UTF-8")
    };
    let (old, young) = (at(Duration::from_secs(25 * 3600)), at(Duration::from_secs(23 * 3600)));
    for name in [&old, &young] {
        std::fs::write(dir.path(name), "x\n").expect("write");
    }
    let _keeper = files.start_keeper().expect("keeper");
    eventually("the old one is removed", || !dir.path(&old).exists());
    assert!(dir.path(&young).exists());
}

#[test]
fn a_failed_compression_is_counted() {
    let dir = TempDir::new("counted");
    let (files, file) = open(&dir, Options { compress: true, ..options(1 << 20) });
    std::fs::create_dir(dir.path(A)).expect("a directory called like a backup");
    let _keeper = files.start_keeper().expect("keeper");
    eventually("it is counted", || file.keeper_errors.get() == 1);
}
