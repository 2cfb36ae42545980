//! Log files against a killed process, a full disk and a file size limit.
//!
//! A test that needs a process of its own starts this binary again, for the one test called `child`, with its work in
//! the environment.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vault_audit_filter::clock;
use vault_audit_filter::config::{self, SyncPolicy};
use vault_audit_filter::log_file::{LogFile, LogFiles};
use vault_audit_filter::metrics::Registry;
use vault_audit_filter::threads;

const CHILD: &str = "VAF_TEST_LOG_FILE_CHILD";
const DEADLINE: Duration = Duration::from_secs(60);

struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> TempDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("vaf-log-it-{}-{name}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory");
        TempDir(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(dir: &Path, sync: SyncPolicy) -> config::LogFile {
    config::LogFile {
        file_path: dir.join("audit.log"),
        max_size: 1,
        max_backups: 0,
        max_age: 0,
        compress: false,
        sync,
    }
}

/// A record that tells whose it is; lengths differ, so that a torn one is not taken for whole.
fn record(sender: usize, number: usize) -> String {
    let fill = "x".repeat(200 + (sender * 7919 + number * 104_729) % 3000);
    format!("{{\"sender\":{sender},\"number\":{number},\"fill\":\"{fill}\",\"end\":{number}}}")
}

fn read(path: &Path) -> String {
    String::from_utf8(fs::read(path).expect("read")).expect("UTF-8")
}

/// Whole lines with how often each is there, and the torn ones: only the last line of a file may be one.
fn lines(dir: &Path) -> (HashMap<String, u32>, usize) {
    let (mut whole, mut torn) = (HashMap::new(), 0);
    for entry in fs::read_dir(dir).expect("list") {
        let path = entry.expect("entry").path();
        if !path.file_name().and_then(OsStr::to_str).is_some_and(|n| n.contains("audit")) {
            continue;
        }
        let text = read(&path);
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if line.starts_with("{\"sender\":") && serde_json::from_str::<serde_json::Value>(line).is_ok() {
                *whole.entry(line.to_owned()).or_default() += 1;
            } else {
                torn += 1;
                let next_is_ours = lines.peek().is_none_or(|next| next.starts_with("{\"sender\":"));
                assert!(next_is_ours, "{path:?}: a torn line before {:?}", lines.peek());
            }
        }
    }
    (whole, torn)
}

fn start_child(work: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["child", "--exact", "--nocapture", "--include-ignored"])
        .env(CHILD, format!("{work}:{}", dir.display()))
        .stdout(Stdio::null())
        .spawn()
        .expect("the child")
}

#[test]
#[ignore = "only as a process that another test starts"]
fn child() {
    let Some(work) = std::env::var_os(CHILD).and_then(|w| w.into_string().ok()) else { return };
    let (work, dir) = work.split_once(':').expect("work and directory");
    let dir = Path::new(dir);
    match work {
        "append" => append_for_ever(dir, SyncPolicy::Never),
        "append-sync" => append_for_ever(dir, SyncPolicy::Always),
        "limit" => append_below_a_limit(dir),
        other => panic!("{other}"),
    }
}

/// Appends from four threads, noting each ack, until it is killed.
fn append_for_ever(dir: &Path, sync: SyncPolicy) {
    let files = LogFiles::new();
    let file = files.open(&config(dir, sync), &Registry::new()).expect("open");
    let _keeper = files.start_keeper().expect("keeper");
    let first = usize::try_from(fs::metadata(dir.join("acks")).map_or(0, |m| m.len())).expect("small");
    let acks = Arc::new(OpenOptions::new().create(true).append(true).open(dir.join("acks")).expect("acks"));
    let threads: Vec<_> = (0..4)
        .map(|sender| {
            let (file, acks) = (Arc::clone(&file), Arc::clone(&acks));
            threads::spawn("sender", move || {
                for number in first.. {
                    file.append(&[record(sender, number).as_bytes()]).expect("append");
                    (&*acks).write_all(format!("{sender} {number}\n").as_bytes()).expect("ack");
                }
            })
            .expect("thread")
        })
        .collect();
    for thread in threads {
        thread.join().expect("sender");
    }
}

fn acked(dir: &Path) -> Vec<(usize, usize)> {
    let Ok(bytes) = fs::read(dir.join("acks")) else { return Vec::new() };
    let text = String::from_utf8(bytes).expect("UTF-8");
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    let pair = |line: &str| line.split_once(' ').and_then(|(s, n)| Some((s.parse().ok()?, n.parse().ok()?)));
    whole.lines().filter_map(pair).collect()
}

#[test]
fn a_killed_process_loses_no_acked_record() {
    for (work, sync, step) in [("append", SyncPolicy::Never, 4000), ("append-sync", SyncPolicy::Always, 500)]
    {
        let dir = TempDir::new("kill");
        let mut wanted = 0;
        for round in 0..4 {
            let mut child = start_child(work, &dir.0);
            wanted += step + 37 * round;
            let deadline = clock::now() + DEADLINE;
            while acked(&dir.0).len() < wanted {
                assert!(clock::now() < deadline, "the child is too slow");
                assert!(child.try_wait().expect("wait").is_none(), "the child has ended by itself");
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().expect("SIGKILL");
            child.wait().expect("wait");
            wanted = acked(&dir.0).len();
        }
        let files = LogFiles::new();
        let file = files.open(&config(&dir.0, sync), &Registry::new()).expect("open after the crash");
        file.append(&[record(9, 9).as_bytes()]).expect("append");
        let (whole, torn) = lines(&dir.0);
        let mut lost = Vec::new();
        for (sender, number) in acked(&dir.0) {
            match whole.get(&record(sender, number)) {
                Some(1) => {}
                other => lost.push((sender, number, other.copied())),
            }
        }
        assert!(lost.is_empty(), "{work}: {lost:?}");
        assert!(whole.contains_key(&record(9, 9)));
        eprintln!("{work}: {} lines, {torn} torn by 4 kills", whole.len());
        assert!(torn <= 4 * 4, "at most one for each thread that was killed");
        let hidden = fs::read_dir(&dir.0)
            .expect("list")
            .filter(|e| e.as_ref().expect("entry").file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 0, "spares are adopted or removed");
    }
}

/// A file size limit (`ulimit -f`) below `max_size`: the file is rotated at the limit, and nothing is lost or doubled.
fn append_below_a_limit(dir: &Path) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_FSIZE, 300 << 10, hard).expect("setrlimit");
    let files = LogFiles::new();
    let metrics = Registry::new();
    let file = files.open(&config(dir, SyncPolicy::Never), &metrics).expect("open");
    let keeper = files.start_keeper().expect("keeper");
    let failed = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|sender| {
            let (file, failed) = (Arc::clone(&file), Arc::clone(&failed));
            threads::spawn("sender", move || {
                for number in 0..500 {
                    let tries = append_until_ok(&file, &record(sender, number));
                    failed.fetch_add(tries, Ordering::Relaxed);
                }
            })
            .expect("thread")
        })
        .collect();
    for thread in threads {
        thread.join().expect("sender");
    }
    let too_large = vec![b'x'; 400 << 10];
    assert!(file.append(&[&too_large]).is_err(), "no file can hold it");
    append_until_ok(&file, &record(4, 0));
    keeper.stop();
    assert!(failed.load(Ordering::Relaxed) > 0, "the limit was never met");
    assert!(metrics.render().contains("log_write_errors_total{file="));
    setrlimit(Resource::RLIMIT_FSIZE, soft, hard).expect("setrlimit");
}

/// How many tries failed before one succeeded.
fn append_until_ok(file: &LogFile, record: &str) -> u64 {
    let deadline = clock::now() + DEADLINE;
    let mut failed = 0;
    loop {
        match file.append(&[record.as_bytes()]) {
            Ok(()) => return failed,
            Err(e) => {
                let expected =
                    [io::ErrorKind::StorageFull, io::ErrorKind::FileTooLarge, io::ErrorKind::WouldBlock];
                assert!(expected.contains(&e.kind()), "{e:?}");
                assert!(clock::now() < deadline, "it stays refused: {e}");
                failed += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[test]
fn a_file_size_limit_tears_and_doubles_nothing() {
    let dir = TempDir::new("limit");
    let ended = start_child("limit", &dir.0).wait().expect("wait");
    assert!(ended.success(), "{ended}");
    let (whole, torn) = lines(&dir.0);
    assert_eq!(torn, 0);
    for (sender, number) in (0..4).flat_map(|s| (0..500).map(move |n| (s, n))).chain([(4, 0)]) {
        assert_eq!(whole.get(&record(sender, number)), Some(&1), "sender {sender}, record {number}");
    }
    assert_eq!(whole.len(), 2001);
    for entry in fs::read_dir(&dir.0).expect("list") {
        let entry = entry.expect("entry");
        assert!(entry.metadata().expect("stat").len() <= 300 << 10, "{entry:?}");
    }
}

/// A small tmpfs, unmounted at the end.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(bytes: usize) -> Result<SmallDisk, String> {
        let dir = TempDir::new("disk");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "vaf-test"])
            .arg(&dir.0)
            .stderr(Stdio::null())
            .status();
        match mounted {
            Ok(status) if status.success() => Ok(SmallDisk(dir)),
            Ok(status) => Err(format!("mount: {status} (it needs root)")),
            Err(e) => Err(format!("mount: {e}")),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

#[test]
fn a_full_disk_tears_nothing_and_service_resumes_with_room() {
    let disk = match SmallDisk::mount(1 << 20) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("left out: a full disk: {why}");
            return;
        }
    };
    let dir = &disk.0.0;
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![0; 600 << 10]).expect("ballast");
    let files = LogFiles::new();
    let file = files.open(&config(dir, SyncPolicy::Always), &Registry::new()).expect("open");
    let keeper = files.start_keeper().expect("keeper");
    let refused = Arc::new(AtomicU64::new(0));
    let give_up = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|sender| {
            let (file, refused, give_up) = (Arc::clone(&file), Arc::clone(&refused), Arc::clone(&give_up));
            threads::spawn("sender", move || {
                for number in 0..100 {
                    let text = record(sender, number);
                    while let Err(e) = file.append(&[text.as_bytes()]) {
                        assert!(
                            matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::WouldBlock),
                            "{e:?}"
                        );
                        refused.fetch_add(1, Ordering::Relaxed);
                        if give_up.load(Ordering::Relaxed) {
                            return;
                        }
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            })
            .expect("thread")
        })
        .collect();
    let deadline = clock::now() + DEADLINE;
    while refused.load(Ordering::Relaxed) < 400 && clock::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let full = refused.load(Ordering::Relaxed);
    fs::remove_file(&ballast).expect("room");
    let deadline = clock::now() + DEADLINE;
    while !threads.iter().all(std::thread::JoinHandle::is_finished) && clock::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    give_up.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("sender");
    }
    append_until_ok(&file, &record(4, 0));
    keeper.stop();
    assert!(full >= 400, "the disk was never full: {full}");
    let (whole, torn) = lines(dir);
    assert_eq!(torn, 0);
    let senders: HashSet<_> = (0..4).flat_map(|s| (0..100).map(move |n| record(s, n))).collect();
    assert_eq!(whole.len(), senders.len() + 1);
    assert!(senders.iter().all(|r| whole.get(r) == Some(&1)), "each once");
    drop(File::open(dir.join("audit.log")).expect("the file is there"));
}
