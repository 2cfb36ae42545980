//! The keeper's steps one by one, with times of the test's choosing and no thread.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::clock;
use crate::log_file::tended::Tended;

const WALL: Duration = Duration::from_millis(1_795_499_290_302);

fn wall() -> SystemTime {
    UNIX_EPOCH + WALL
}

fn started(dir: &TempDir, bytes_max: u64) -> (Arc<LogFile>, Tended) {
    let file = open(&LogFiles::new(), &dir.path("a.log"), options(bytes_max));
    let mut tended = Tended::new(Arc::clone(&file), clock::now());
    tended.pass(clock::now(), wall());
    (file, tended)
}

fn text(dir: &TempDir, name: &str) -> String {
    fs::read_to_string(dir.path(name)).expect(name)
}

#[test]
fn what_somebody_put_at_the_path_before_a_rename_is_rotated_or_removed() {
    for (foreign, backups) in [("", vec![]), ("theirs\n", vec!["theirs\n"])] {
        let dir = TempDir::new("foreign");
        let (file, mut tended) = started(&dir, 20);
        file.append(&[b"{\"number\":111111}"]).expect("append");
        file.append(&[b"{\"number\":222222}"]).expect("append");
        fs::rename(dir.path("a.log"), dir.path("away")).expect("rename");
        fs::write(dir.path("a.log"), foreign).expect("write");
        tended.pass(clock::now(), wall());
        assert_eq!(text(&dir, "a.log"), "{\"number\":222222}\n");
        assert_eq!(text(&dir, "away"), "{\"number\":111111}\n");
        let rotated: Vec<_> = dir
            .names()
            .iter()
            .filter(|n| file.names.parse_backup((*n).as_ref()).is_some())
            .map(|n| text(&dir, n))
            .collect();
        assert_eq!(rotated, backups);
        assert_eq!(file.keeper_errors.get(), 0);
    }
}

#[test]
fn a_removed_spare_is_passed_over_and_its_lines_written_again() {
    let dir = TempDir::new("no-spare");
    let (file, mut tended) = started(&dir, 20);
    file.append(&[b"{\"number\":111111}"]).expect("append");
    for name in dir.names().iter().filter(|n| n.starts_with('.')) {
        fs::remove_file(dir.path(name)).expect("remove");
    }
    file.append(&[b"{\"number\":222222}"]).expect("append");
    tended.pass(clock::now(), wall());
    file.append(&[b"{\"number\":333333}"]).expect("append");
    tended.pass(clock::now(), wall());
    tended.close(clock::now(), wall());
    let mut lines = dir.lines();
    lines.sort();
    assert_eq!(lines, ["{\"number\":111111}", "{\"number\":222222}", "{\"number\":333333}"]);
}

#[test]
fn a_hidden_file_with_lines_gets_a_name_when_the_path_is_opened_anew() {
    let dir = TempDir::new("hidden");
    let (file, mut tended) = started(&dir, 20);
    for number in [111_111, 222_222] {
        file.append(&[format!("{{\"number\":{number}}}").as_bytes()]).expect("append");
    }
    // The second line is in a spare that has not got the path yet; now it is closed as a keeper that ends does it.
    file.current.load().gate.retire();
    file.append(&[b"{\"number\":333333}"]).expect("append");
    tended.pass(clock::now(), wall());
    assert_eq!(text(&dir, "a.log"), "{\"number\":111111}\n{\"number\":333333}\n");
    assert_eq!(text(&dir, "a-2026-11-24T05-48-10.302.log"), "{\"number\":222222}\n");
}

#[test]
fn a_torn_write_in_a_file_that_was_opened_anew_is_cut_out_once_nobody_writes() {
    let dir = TempDir::new("handover");
    let (file, mut tended) = started(&dir, MIB);
    file.append(&[b"{\"n\":1}"]).expect("append");
    let old = file.current.load_full();
    let inside = old.gate.enter().expect("open");
    old.gate.retire();
    file.append(&[b"{\"n\":2}"]).expect("the same file, opened anew");
    io::Write::write_all(&mut old.descriptions.first(), b"{\"x").expect("write");
    old.fragments.lock().push(Fragment { start: 16, bytes: 3, probe: b"{\"x".to_vec() });
    old.gate.close_for_repair();
    tended.pass(clock::now(), wall());
    assert!(tended.is_waiting());
    file.append(&[b"{\"n\":3}"]).expect("append");
    drop(inside);
    drop(old);
    tended.pass(clock::now(), wall());
    let refused = file.append(&[b"{\"n\":4}"]).expect_err("being repaired");
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    tended.pass(clock::now(), wall());
    file.append(&[b"{\"n\":5}"]).expect("append");
    assert_eq!(text(&dir, "a.log"), "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":5}\n");
    assert!(!tended.is_waiting());
}

#[test]
fn a_clock_that_was_set_back_by_much_names_files_by_its_time() {
    let dir = TempDir::new("clock");
    let names = crate::log_file::Names::new(&dir.path("a.log")).expect("names");
    let mut last_ms = WALL.as_millis() as i64 + 3_600_000;
    for expected in ["a-2026-11-24T05-48-10.302.log", "a-2026-11-24T05-48-10.303.log"] {
        fs::write(dir.path("a.log"), "x\n").expect("write");
        let to = crate::log_file::recover::move_to_backup(&names, &dir.path("a.log"), wall(), &mut last_ms);
        assert_eq!(to.expect("move"), dir.path(expected));
    }
}

#[test]
fn a_step_that_fails_rests_and_is_tried_again() {
    let dir = TempDir::new("hold");
    let (file, mut tended) = started(&dir, 20);
    file.append(&[b"{\"number\":111111}"]).expect("append");
    fs::rename(dir.path("a.log"), dir.path("away")).expect("rename");
    fs::create_dir(dir.path("a.log")).expect("in the way");
    file.append(&[b"{\"number\":222222}"]).expect("append");
    let now = clock::now();
    for _ in 0..5 {
        tended.pass(now, wall());
    }
    assert_eq!(file.keeper_errors.get(), 1, "it rests");
    assert!(!tended.is_waiting());
    tended.pass(now + Duration::from_millis(900), wall());
    assert_eq!(file.keeper_errors.get(), 2);
    fs::remove_dir(dir.path("a.log")).expect("remove");
    tended.pass(now + Duration::from_millis(1800), wall());
    assert_eq!(text(&dir, "a.log"), "{\"number\":222222}\n");
}

#[test]
fn owners_are_kept_where_the_process_may() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: owners: it needs root");
        return;
    }
    let dir = TempDir::new("owner");
    let (file, mut tended) = started(&dir, 20);
    std::os::unix::fs::chown(dir.path("a.log"), Some(65_534), Some(65_534)).expect("chown");
    file.append(&[b"{\"number\":111111}"]).expect("append");
    file.append(&[b"{\"number\":222222}"]).expect("append");
    tended.pass(clock::now(), wall());
    let meta = fs::metadata(dir.path("a.log")).expect("stat");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (65_534, 65_534, 0o600));
}
