//! Log files: rotation under load, full disks, vanished directories, files renamed by others.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Daemon, HTTP_ONLY, Plan, WITH_TCP, entry, whole_lines};
use crate::support::{left_out, send, wait_until};

/// One group that writes everything to `log/all.log`; `keys` go to its `log_file`.
fn all_to_log(keys: &str) -> String {
    format!(
        "rule_groups:\n  - name: all\n    log_file: {{ file_path: \"{{dir}}/log/all.log\"{}{keys} }}\n",
        if keys.is_empty() { "" } else { ", " }
    )
}

/// The log file `all.log` and its backups, by name, when every rotation is done: until then, lines may stand in a file that
/// is still hidden.
fn log_files(dir: &Path) -> Vec<PathBuf> {
    let hidden = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with(".all.log.next");
    wait_until("no rotation is under way", || {
        let mut entries = std::fs::read_dir(dir).expect("the directory").filter_map(Result::ok);
        !entries.any(|e| hidden(&e) && e.metadata().is_ok_and(|meta| meta.len() > 0))
    });
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|entries| entries.map(|e| e.expect("an entry").path()).collect())
        .unwrap_or_default();
    files.retain(|f| f.file_name().is_some_and(|n| n.to_string_lossy().starts_with("all")));
    files.sort();
    files
}

/// `all-2006-01-02T15-04-05.000.log`, with or without a number after the time.
fn is_backup_name(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(middle) = name.strip_prefix("all-").and_then(|n| n.strip_suffix(".log")) else { return false };
    let Some((time, number)) = middle.split_at_checked(23) else { return false };
    let digits_and = |template: &str| {
        time.bytes().zip(template.bytes()).all(|(b, t)| if t == b'0' { b.is_ascii_digit() } else { b == t })
    };
    digits_and("0000-00-00T00-00-00.000")
        && (number.is_empty() || number[1..].bytes().all(|b| b.is_ascii_digit()) && number.len() > 1)
}

/// Unmounts when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A file system of 512 KiB in memory; `Err` says why there is none.
    fn mount(at: &Path) -> Result<SmallDisk, String> {
        std::fs::create_dir_all(at).map_err(|e| e.to_string())?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "vaf-test"])
            .arg(at)
            .output()
            .map_err(|e| format!("mount: {e}"))?;
        if mount.status.success() {
            Ok(SmallDisk(at.to_owned()))
        } else {
            Err(format!("needs the right to mount: {}", String::from_utf8_lossy(&mount.stderr).trim()))
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn thirty_megabytes_from_six_senders_are_rotated_without_losing_or_tearing_a_record() {
    const SENDERS: usize = 6;
    const RECORDS: usize = 1_100;
    let daemon = Daemon::start(&format!("{WITH_TCP}{}", all_to_log("max_size: 1")));
    // 1 to 9 KB, about 5 MB for each sender.
    let record = |sender: usize, n: usize| {
        entry(&format!("s{sender}-{n}"), "read", &format!("secret/{}", "x".repeat(n * 131 % 8_000)))
    };
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let daemon = &daemon;
            scope.spawn(move || {
                if sender % 2 == 0 {
                    let mut client = daemon.client();
                    for n in 0..RECORDS {
                        let answer =
                            client.post("/v1/audit", record(sender, n).as_bytes()).expect("an answer");
                        assert_eq!(answer.status, 204);
                    }
                } else {
                    let mut stream = send::tcp(daemon.audit());
                    (0..RECORDS).for_each(|n| send::line(&mut stream, record(sender, n).as_bytes()));
                }
            });
        }
    });
    daemon.wait_received(SENDERS * RECORDS);
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    let mut bytes = 0;
    for sender in 0..SENDERS {
        for n in 0..RECORDS {
            let record = record(sender, n);
            bytes += record.len() + 1;
            missing.insert(record, 1);
        }
    }
    assert!(bytes >= 30_000_000, "{bytes} bytes were sent");
    let files = log_files(&daemon.path("log"));
    for file in &files {
        let meta = std::fs::metadata(file).expect("its metadata");
        // Somewhat more when the next file was not there yet: nobody waits for a rotation.
        assert!(meta.len() <= 4 << 20, "{} has {} bytes", file.display(), meta.len());
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600, "{}", file.display());
        assert!(file.ends_with("all.log") || is_backup_name(file), "{}", file.display());
        for line in whole_lines(file) {
            let left = missing.get_mut(&line).unwrap_or_else(|| panic!("not what was sent: {line:.300}"));
            assert_eq!(*left, 1, "twice: {line:.300}");
            *left = 0;
        }
    }
    assert_eq!(missing.values().sum::<usize>(), 0, "records that are in no file");
    assert!(files.len() > bytes >> 22, "{} files", files.len());
    assert_eq!(daemon.sum("log_rotations_total") as usize, files.len() - 1);
    assert_eq!(daemon.sum("log_write_errors_total"), 0.0);
}

#[test]
fn backups_are_compressed_and_only_so_many_kept() {
    let daemon =
        Daemon::start(&format!("{HTTP_ONLY}{}", all_to_log("max_size: 1, max_backups: 2, compress: true")));
    let mut client = daemon.client();
    for n in 0..60 {
        let record = entry(&format!("n{n}"), "read", &"x".repeat(100_000));
        assert_eq!(client.post("/v1/audit", record.as_bytes()).expect("an answer").status, 204);
    }
    let backups = || -> Vec<PathBuf> {
        log_files(&daemon.path("log")).into_iter().filter(|f| !f.ends_with("all.log")).collect()
    };
    let packed = |f: &PathBuf| f.extension().is_some_and(|e| e == "gz");
    wait_until("two compressed backups are left", || {
        let backups = backups();
        backups.len() == 2 && backups.iter().all(packed)
    });
    for backup in backups() {
        assert!(is_backup_name(&backup.with_extension("")), "{}", backup.display());
        assert_eq!(std::fs::metadata(&backup).expect("its metadata").permissions().mode() & 0o7777, 0o600);
        let mut text = String::new();
        let file = std::fs::File::open(&backup).expect("the backup");
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("whole gzip");
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line:.300}"));
        }
    }
}

#[test]
fn a_record_larger_than_a_file_may_be_gets_one_of_its_own() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{}", all_to_log("max_size: 1")));
    let records = [
        entry("small-1", "read", "a"),
        entry("large", "read", &"x".repeat(3 << 20)),
        entry("small-2", "read", "a"),
    ];
    records.iter().for_each(|r| assert_eq!(daemon.post(r), 204));
    let files = log_files(&daemon.path("log"));
    let lines: Vec<Vec<String>> = files.iter().map(|f| whole_lines(f)).collect();
    assert_eq!(
        lines.iter().filter(|lines| **lines == [records[0].clone()]).count(),
        1,
        "the first stays alone"
    );
    let mut all = lines.concat();
    all.sort();
    let mut wanted = records.to_vec();
    wanted.sort();
    assert!(all == wanted, "each is there once and whole");
}

#[test]
fn a_full_disk_refuses_the_record_and_takes_it_once_there_is_room() {
    let plan = Plan::new(&format!("{HTTP_ONLY}{}", all_to_log("")));
    let disk = match SmallDisk::mount(&plan.path("log")) {
        Ok(disk) => disk,
        Err(why) => {
            return left_out(
                "log_file::a_full_disk_refuses_the_record_and_takes_it_once_there_is_room",
                &why,
            );
        }
    };
    let filler = disk.0.join("filler");
    std::fs::write(&filler, vec![0; 256 << 10]).expect("room for the filler");
    let mut daemon = plan.start();
    let record = |n: usize| entry(&format!("n{n}"), "read", &"x".repeat(3_000));
    let mut acked = Vec::new();
    let refused = loop {
        let n = acked.len();
        match daemon.post(&record(n)) {
            204 => acked.push(record(n)),
            503 => break record(n),
            other => panic!("status {other}"),
        }
        assert!(n < 1_000, "256 KiB hold fewer than a thousand records of 4 KB");
    };
    assert!(acked.len() > 10, "{} records fitted", acked.len());
    for _ in 0..5 {
        assert_eq!(daemon.post(&refused), 503, "as long as the disk is full");
    }
    assert!(daemon.is_alive());
    assert_eq!(daemon.metric(r#"records_total{outcome="refused"}"#), 6.0);
    assert!(daemon.sum("log_write_errors_total") >= 6.0);
    assert_eq!(daemon.admin("/livez").status, 200);
    assert!(daemon.stderr().contains("all.log"), "the file is named: {}", daemon.stderr());
    // What the failed writes have left is cut off.
    wait_until("the file ends with a whole line", || {
        std::fs::read(daemon.path("log/all.log")).expect("the file").ends_with(b"\n")
    });
    assert_eq!(daemon.lines("log/all.log"), acked, "what was acked is there, nothing is torn");

    std::fs::remove_file(&filler).expect("removed");
    wait_until("there is room again", || daemon.post(&refused) == 204);
    acked.push(refused);
    assert_eq!(daemon.lines("log/all.log"), acked);
    assert_eq!(daemon.sum("records_received_total"), daemon.sum("records_total"));
    drop(daemon.terminate());
    drop(disk);
}

#[test]
fn a_vanished_directory_is_made_again_and_what_cannot_be_written_is_not_acked() {
    let mut daemon = Daemon::start(&format!("{HTTP_ONLY}{}", all_to_log("")));
    let (dir, file) = (daemon.path("log"), daemon.path("log/all.log"));
    assert_eq!(daemon.post(&entry("first", "read", "a")), 204);

    std::fs::remove_dir_all(&dir).expect("removed");
    wait_until("the log file is there again", || {
        assert!([204, 503].contains(&daemon.post(&entry("meanwhile", "read", "a"))));
        file.exists()
    });
    let record = entry("second", "read", "a");
    assert_eq!(daemon.post(&record), 204);
    assert!(daemon.lines("log/all.log").contains(&record));

    // A file stands where the directory was: now nothing can be written.
    std::fs::remove_dir_all(&dir).expect("removed");
    std::fs::write(&dir, "in the way").expect("written");
    wait_until("records are refused", || daemon.post(&entry("third", "read", "a")) == 503);
    for _ in 0..3 {
        assert_eq!(daemon.post(&entry("third", "read", "a")), 503);
    }
    assert!(daemon.is_alive());
    assert!(daemon.sum("log_write_errors_total") > 0.0);
    wait_until("the file is named in the diagnostics", || daemon.stderr().contains("all.log"));

    std::fs::remove_file(&dir).expect("removed");
    let record = entry("fourth", "read", "a");
    wait_until("records are taken again", || daemon.post(&record) == 204);
    assert!(daemon.lines("log/all.log").contains(&record));
    assert_eq!(daemon.sum("records_received_total"), daemon.sum("records_total"));
}

#[test]
fn sighup_reopens_a_renamed_file() {
    let mut daemon = Daemon::start(&format!("{HTTP_ONLY}{}", all_to_log("")));
    let (before, after) = (entry("before", "read", "a"), entry("after", "read", "a"));
    assert_eq!(daemon.post(&before), 204);
    std::fs::rename(daemon.path("log/all.log"), daemon.path("log/moved.log")).expect("renamed");
    daemon.signal(Signal::SIGHUP);
    wait_until("the file is there again", || daemon.path("log/all.log").exists());
    assert_eq!(daemon.post(&after), 204);
    assert_eq!(daemon.lines("log/moved.log"), [before]);
    assert_eq!(daemon.lines("log/all.log"), [after]);
    assert!(daemon.is_alive());
}

#[test]
fn a_truncated_file_goes_on_at_its_new_end() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{}", all_to_log("")));
    assert_eq!(daemon.post(&entry("before", "read", "a")), 204);
    std::fs::write(daemon.path("log/all.log"), "").expect("truncated");
    let after = entry("after", "read", "a");
    assert_eq!(daemon.post(&after), 204);
    assert_eq!(daemon.lines("log/all.log"), [after]);
}

#[test]
fn a_restart_appends_and_two_groups_share_one_file() {
    let groups = r#"
rule_groups:
  - name: reads
    rules: ['Request.Operation == "read"']
    log_file: { file_path: "{dir}/shared.log", sync: always }
  - name: of_a
    rules: ['Request.Path == "a"']
    log_file: { file_path: "{dir}/shared.log", sync: always }
"#;
    let plan = Plan::new(&format!("{HTTP_ONLY}{groups}"));
    let earlier = entry("earlier", "read", "a");
    std::fs::write(plan.path("shared.log"), format!("{earlier}\n")).expect("a file from an earlier run");
    let daemon = plan.start();
    let [both, second, neither] = [("both", "read", "a"), ("second", "list", "a"), ("neither", "list", "b")]
        .map(|(id, operation, path)| entry(id, operation, path));
    for record in [&both, &second, &neither] {
        assert_eq!(daemon.post(record), 204);
    }
    assert_eq!(
        daemon.lines("shared.log"),
        [earlier, both, second],
        "a record of both groups stands there once"
    );
    assert_eq!(daemon.metric(r#"records_total{outcome="unmatched"}"#), 1.0);
    assert_eq!(daemon.metric(r#"group_matches_total{group="of_a"}"#), 2.0);
}
