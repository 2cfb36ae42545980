//! Files removed, moved, truncated, torn; crashes between two steps.

use super::*;

#[test]
fn a_removed_file_is_made_anew_with_its_directories() {
    let dir = TempDir::new("removed");
    let files = LogFiles::new();
    for sync in [SyncPolicy::Never, SyncPolicy::Always] {
        let path = dir.path("sub/sub/a.log");
        let file = open(&files, &path, Options { sync, ..options(MIB) });
        file.append(&[b"{\"lost\":1}"]).expect("append");
        fs::remove_dir_all(dir.path("sub")).expect("remove");
        file.append(&[b"{\"kept\":1}"]).expect("append");
        assert_eq!(fs::read(&path).expect("read"), b"{\"kept\":1}\n");
        fs::remove_file(&path).expect("remove");
        file.append(&[b"{\"kept\":2}"]).expect("append");
        assert_eq!(fs::read(&path).expect("read"), b"{\"kept\":2}\n");
        fs::remove_dir_all(dir.path("sub")).expect("remove");
        fs::write(dir.path("sub"), "in the way").expect("write");
        let e = file.append(&[b"{\"refused\":1}"]).expect_err("no directory can be made");
        assert!(e.to_string().contains("cannot append to log file") && e.to_string().contains("sub"), "{e}");
        fs::remove_file(dir.path("sub")).expect("remove");
        file.append(&[b"{\"kept\":3}"]).expect("append");
        assert_eq!(fs::read(&path).expect("read"), b"{\"kept\":3}\n");
        drop(file);
        files.shared.files.lock().clear();
        fs::remove_dir_all(dir.path("sub")).expect("remove");
    }
}

#[test]
fn a_quiet_file_that_was_moved_or_removed_is_reopened() {
    let dir = TempDir::new("moved");
    let files = LogFiles::new();
    let (path, away) = (dir.path("a.log"), dir.path("a.log.1"));
    let file = open(&files, &path, options(MIB));
    let _keeper = files.start_keeper().expect("keeper");
    file.append(&[b"{\"n\":1}"]).expect("append");
    fs::rename(&path, &away).expect("rename");
    eventually("the moved file is replaced", || path.exists());
    eventually("appends go there", || {
        file.append(&[b"{\"n\":2}"]).expect("append");
        fs::metadata(&path).expect("stat").len() > 0
    });
    fs::remove_file(&path).expect("remove");
    eventually("the removed file is replaced", || path.exists());
}

#[test]
fn reopening_at_once_keeps_the_old_file_when_the_new_one_cannot_be_opened() {
    let dir = TempDir::new("sighup");
    let files = LogFiles::new();
    let path = dir.path("sub/a.log");
    let file = open(&files, &path, options(MIB));
    let _keeper = files.start_keeper().expect("keeper");
    files.reopen().expect("nothing to do");
    fs::rename(dir.path("sub"), dir.path("away")).expect("rename");
    files.reopen().expect("reopen");
    file.append(&[b"{\"n\":1}"]).expect("append");
    assert_eq!(fs::read(&path).expect("read"), b"{\"n\":1}\n");
    fs::rename(&path, dir.path("old")).expect("rename");
    fs::create_dir(&path).expect("a directory in the way");
    let said = files.reopen().expect_err("a directory");
    assert!(said.len() == 1 && said[0].contains("sub/a.log"), "{said:?}");
    assert!(file.keeper_errors.get() > 0);
    file.append(&[b"{\"n\":2}"]).expect("append");
    assert_eq!(fs::read(dir.path("old")).expect("read"), b"{\"n\":1}\n{\"n\":2}\n");
}

#[test]
fn moving_files_away_and_reopening_under_load_loses_nothing() {
    const COUNT: usize = 3000;
    let dir = TempDir::new("race");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(64 << 10));
    let keeper = files.start_keeper().expect("keeper");
    let senders: Vec<_> = (0..4).map(|sender| send(&file, sender, COUNT, 200)).collect();
    let mut moved = 0;
    while senders.iter().any(|s| !s.is_finished()) {
        if fs::rename(dir.path("a.log"), dir.path(&format!("moved.{moved}"))).is_ok() {
            moved += 1;
        }
        files.reopen().expect("reopen");
    }
    for sender in senders {
        sender.join().expect("sender");
    }
    keeper.stop();
    assert_each_once(&dir.lines(), 4, COUNT, 200);
}

#[test]
fn removing_files_under_load_leaves_whole_lines_and_a_working_file() {
    let dir = TempDir::new("rm");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("sub/a.log"), options(32 << 10));
    let keeper = files.start_keeper().expect("keeper");
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let file = Arc::clone(&file);
            crate::threads::spawn("sender", move || {
                for number in 0..3000 {
                    // The directory may vanish between its making and the file's, again and again: an error, never a lost line.
                    if let Err(e) = file.append(&[&record(sender, number, 200)]) {
                        let expected = [
                            io::ErrorKind::NotFound,
                            io::ErrorKind::AlreadyExists,
                            io::ErrorKind::WouldBlock,
                        ];
                        assert!(expected.contains(&e.kind()), "{e}");
                    }
                }
            })
            .expect("thread")
        })
        .collect();
    while senders.iter().any(|s| !s.is_finished()) {
        let _ = fs::remove_dir_all(dir.path("sub"));
    }
    for sender in senders {
        sender.join().expect("sender");
    }
    file.append(&[&record(9, 9, 200)]).expect("append");
    eventually("the file is at its path", || dir.path("sub/a.log").exists());
    keeper.stop();
    let mut lines = Vec::new();
    for name in crate::log_file::fs::list(&dir.path("sub")).expect("list") {
        let text = fs::read_to_string(dir.path("sub").join(name)).expect("read");
        lines.extend(text.lines().map(str::to_owned));
    }
    assert!(lines.iter().any(|l| l.contains("\"sender\":9")));
    assert!(lines.iter().all(|l| l.len() == 200 && l.ends_with("\"}")), "torn");
}

#[test]
fn a_truncated_file_is_counted_anew() {
    let dir = TempDir::new("copytruncate");
    let files = LogFiles::new();
    let path = dir.path("a.log");
    let file = open(&files, &path, options(3 * MIB));
    let _keeper = files.start_keeper().expect("keeper");
    file.append(&[&vec![b'x'; 2 * MIB as usize]]).expect("append");
    fs::OpenOptions::new().write(true).truncate(true).open(&path).expect("truncate");
    eventually("the size is read again", || file.current.load().size.load(Ordering::Relaxed) == 0);
    file.append(&[&vec![b'y'; 2 * MIB as usize]]).expect("append");
    assert_eq!(file.rotations.get(), 0);
    assert_eq!(fs::read(&path).expect("read")[0], b'y', "no hole in front");
    // With a writer inside, the count is corrected by the difference.
    let current = file.current.load_full();
    let inside = current.gate.enter().expect("open");
    fs::OpenOptions::new().write(true).truncate(true).open(&path).expect("truncate");
    eventually("the size is read again", || current.size.load(Ordering::Relaxed) == 0);
    drop(inside);
}

#[test]
fn spares_left_by_a_crash_become_the_file_in_their_order() {
    let dir = TempDir::new("adopt");
    for (name, text) in [
        ("a.log", "1\n"),
        (".a.log.next-9", "2\n"),
        (".a.log.next-10", "3\n"),
        (".a.log.next-11", ""),
        (".b.log.next-1", ""),
    ] {
        fs::write(dir.path(name), text).expect("write");
    }
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(MIB));
    file.append(&[b"4"]).expect("append");
    let names = dir.names();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(names[0], ".b.log.next-1", "somebody else's");
    let text = |name: &str| fs::read_to_string(dir.path(name)).expect("read");
    assert_eq!([text(&names[1]), text(&names[2]), text("a.log")], ["1\n", "2\n", "3\n4\n"]);
}

#[test]
fn a_crash_between_the_steps_of_a_rotation_is_finished() {
    let dir = TempDir::new("half");
    let files = LogFiles::new();
    // The old file has its backup's name, the new one not yet the path.
    fs::write(dir.path("a-2026-11-24T05-48-10.302.log"), "1\n").expect("write");
    fs::write(dir.path(".a.log.next-0"), "2\n").expect("write");
    open(&files, &dir.path("a.log"), options(MIB)).append(&[b"3"]).expect("append");
    assert_eq!(fs::read(dir.path("a.log")).expect("read"), b"2\n3\n");
    // Linked but not unlinked, both.
    fs::write(dir.path("b-2026-11-24T05-48-10.302.log"), "1\n").expect("write");
    fs::hard_link(dir.path("b-2026-11-24T05-48-10.302.log"), dir.path("b.log")).expect("link");
    fs::write(dir.path(".b.log.next-0"), "2\n").expect("write");
    open(&files, &dir.path("b.log"), options(MIB)).append(&[b"3"]).expect("append");
    assert_eq!(fs::read(dir.path("b.log")).expect("read"), b"2\n3\n");
    assert_eq!(fs::read(dir.path("b-2026-11-24T05-48-10.302.log")).expect("read"), b"1\n");
    fs::write(dir.path("c.log"), "1\n").expect("write");
    fs::hard_link(dir.path("c.log"), dir.path(".c.log.next-0")).expect("link");
    open(&files, &dir.path("c.log"), options(MIB)).append(&[b"2"]).expect("append");
    assert_eq!(fs::read(dir.path("c.log")).expect("read"), b"1\n2\n");
    assert!(!dir.path(".c.log.next-0").exists());
}

#[test]
fn a_torn_write_is_cut_out_and_service_resumes() {
    let dir = TempDir::new("torn");
    let files = LogFiles::new();
    let path = dir.path("a.log");
    let file = open(&files, &path, Options { sync: SyncPolicy::Always, ..options(MIB) });
    file.append(&[b"{\"n\":1}"]).expect("append");
    // What a write that fell short leaves, with a line of another thread behind it.
    let current = file.current.load_full();
    let inside = current.gate.enter().expect("open");
    io::Write::write_all(&mut current.descriptions.first(), b"{\"n\":{\"n\":2}\n").expect("write");
    current.fragments.lock().push(Fragment { start: 8, bytes: 5, probe: b"{\"n\":".to_vec() });
    current.gate.close_for_repair();
    let refused = file.append(&[b"{\"n\":9}"]).expect_err("being repaired");
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    let keeper = files.start_keeper().expect("keeper");
    assert!(file.append(&[b"{\"n\":9}"]).is_err(), "not before the last writer has left");
    drop(inside);
    eventually("it is repaired", || file.append(&[b"{\"n\":3}"]).is_ok());
    keeper.stop();
    assert_eq!(fs::read(&path).expect("read"), b"{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
    assert_eq!(current.size.load(Ordering::Relaxed), 24);
}

#[test]
fn a_torn_write_that_is_not_there_is_said_and_service_resumes() {
    let dir = TempDir::new("nottorn");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(MIB));
    file.append(&[b"{\"n\":1}"]).expect("append");
    let current = file.current.load_full();
    current.fragments.lock().push(Fragment { start: 3, bytes: 2, probe: Vec::new() });
    current.gate.close_for_repair();
    let _keeper = files.start_keeper().expect("keeper");
    eventually("it is open again", || file.append(&[b"{\"n\":2}"]).is_ok());
    assert_eq!(file.keeper_errors.get(), 1);
    assert_eq!(fs::read(dir.path("a.log")).expect("read"), b"{\"n\":1}\n{\"n\":2}\n");
}

#[test]
fn a_slow_step_of_the_keeper_holds_up_no_append() {
    let dir = TempDir::new("slow");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(1000));
    let _keeper = files.start_keeper().expect("keeper");
    // The keeper waits for this lock at its next pass; the registry's is the only one that it takes.
    let held = files.shared.files.lock();
    let stop = Arc::new(AtomicBool::new(false));
    let appended = Arc::new(AtomicU64::new(0));
    let (file2, stop2, appended2) = (Arc::clone(&file), Arc::clone(&stop), Arc::clone(&appended));
    let sender = crate::threads::spawn("sender", move || {
        while !stop2.load(Ordering::Relaxed) {
            file2.append(&[&[b'x'; 400]]).expect("append");
            appended2.fetch_add(1, Ordering::Relaxed);
        }
    })
    .expect("thread");
    eventually("appends go on", || appended.load(Ordering::Relaxed) > 1000);
    drop(held);
    stop.store(true, Ordering::Relaxed);
    sender.join().expect("sender");
}

#[test]
fn a_rotation_that_fails_is_tried_again_and_loses_nothing() {
    let dir = TempDir::new("blocked");
    let files = LogFiles::new();
    let path = dir.path("a.log");
    let file = open(&files, &path, options(1000));
    let keeper = files.start_keeper().expect("keeper");
    file.append(&[&record(0, 0, 900)]).expect("append");
    fs::rename(&path, dir.path("away")).expect("rename");
    fs::create_dir(&path).expect("a directory in the way");
    fs::write(path.join("inside"), "x").expect("write");
    for number in 1..5 {
        file.append(&[&record(0, number, 900)]).expect("append");
    }
    eventually("it is counted", || file.keeper_errors.get() > 0);
    assert!(path.join("inside").exists());
    fs::remove_file(path.join("inside")).expect("remove");
    fs::remove_dir(&path).expect("remove");
    eventually("the names are put right", || path.is_file());
    file.append(&[&record(0, 5, 900)]).expect("append");
    keeper.stop();
    assert_each_once(&dir.lines(), 1, 6, 900);
    assert!(dir.names().iter().all(|n| !n.starts_with('.')), "{:?}", dir.names());
}

#[test]
fn a_spent_file_is_rotated_whatever_its_size() {
    let dir = TempDir::new("spent");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(100 * MIB));
    let keeper = files.start_keeper().expect("keeper");
    file.append(&[b"{\"n\":1}"]).expect("append");
    assert_eq!(dir.names(), ["a.log"], "no spare before half of the size");
    file.current.load().spent.store(true, Ordering::Release);
    file.wake_keeper();
    eventually("there is a spare", || dir.names().len() == 2);
    file.append(&[b"{\"n\":2}"]).expect("append");
    eventually("it is rotated", || file.rotations.get() == 1);
    keeper.stop();
    assert_eq!(fs::read(dir.path("a.log")).expect("read"), b"{\"n\":2}\n");
}

#[test]
fn a_torn_write_in_a_replaced_file_is_cut_out() {
    let dir = TempDir::new("torn-old");
    let files = LogFiles::new();
    let file = open(&files, &dir.path("a.log"), options(20));
    let keeper = files.start_keeper().expect("keeper");
    file.append(&[b"{\"n\":1}"]).expect("append");
    let old = file.current.load_full();
    let inside = old.gate.enter().expect("open");
    eventually("it is replaced", || {
        file.append(&[b"{\"number\":12345}"]).expect("append");
        !Arc::ptr_eq(&old, &file.current.load())
    });
    let end = old.metadata().expect("stat").len();
    io::Write::write_all(&mut old.descriptions.first(), b"{\"x").expect("write");
    old.fragments.lock().push(Fragment { start: end, bytes: 3, probe: b"{\"x".to_vec() });
    old.gate.close_for_repair();
    drop(inside);
    eventually("it is cut out", || old.metadata().expect("stat").len() == end);
    keeper.stop();
    assert!(dir.lines().iter().all(|l| l.ends_with('}')));
}
