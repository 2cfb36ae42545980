//! The store with its threads, in a real directory.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::support::*;
use crate::metrics::Registry;
use crate::side_effect::{End, Ledger, SinkNumber};
use crate::store::{Filter, Kind, OpenError, Store, look};

const S0: SinkNumber = SinkNumber(0);

#[test]
fn workers_on_many_threads_deliver_each_task_once() {
    let (dir, registry) = (Dir::new("threads"), Registry::new());
    let store = Store::open(settings(dir.path()), &sinks(), &registry).expect("opened").store;
    let clock = TestClock::at(1_700_000_000);
    let (tell, woken) = crossbeam_channel::bounded(10_000);
    store.on_pending(Box::new(move |sink| {
        let _ = tell.try_send(sink);
    }));
    store.on_pending(Box::new(|_| {}));
    let (sent, delivered) = crossbeam_channel::bounded(10_000);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (acceptor, clock) = (Arc::clone(&store), clock.clone());
            scope.spawn(move || {
                for n in 0..100_u8 {
                    accept(&acceptor, &[(S0, task("a", &[n; 200], &clock))])
                        .unwrap_or_else(|e| panic!("{e}"));
                }
            });
            let (store, sent, woken) = (Arc::clone(&store), sent.clone(), woken.clone());
            scope.spawn(move || {
                while sent.len() < 300 {
                    let Some(task) = store.take(S0) else {
                        let _ = woken.recv_timeout(std::time::Duration::from_millis(10));
                        continue;
                    };
                    store.reserve(S0, &task, 1).expect("reserved");
                    sent.send(task.id).expect("room");
                    store.ended(S0, &task, &End::Delivered);
                }
            });
        }
    });
    let mut ids: Vec<_> = delivered.try_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 300);
    store.close().expect("closed");
    let text = registry.render();
    assert!(text.contains("vault_audit_filter_store_pending_tasks 0"), "{text}");
    assert!(text.contains("vault_audit_filter_store_up{log=\"pending\"} 1"), "{text}");
    drop(store);
    let opened = Store::open(settings(dir.path()), &sinks(), &registry).expect("opened again");
    assert_eq!(opened.report.pending, 0);
}

#[test]
fn the_stores_own_thread_buries_what_is_given_up() {
    let (dir, registry) = (Dir::new("keeper"), Registry::new());
    let store = Store::open(settings(dir.path()), &sinks(), &registry).expect("opened").store;
    let id = {
        let clock = TestClock::at(1_700_000_000);
        accept(&store, &[(S0, task("a", b"x", &clock))]).expect("accepted");
        kill_next(&store, "refused")
    };
    let dead = Filter { kind: Some(Kind::Dead), ..Filter::default() };
    let deadline = crate::clock::now() + LATER;
    while store.list(&dead, 9).matched == 0 {
        assert!(crate::clock::now() < deadline, "no dead letter");
        std::thread::yield_now();
    }
    assert_eq!(store.show(id).expect("kept").0.kind, Kind::Dead);
    store.nudge();
}

/// Names the store's directory to a test that is run in another process.
const DIR: &str = "VAULT_AUDIT_FILTER_TEST_STORE";

/// The test of this name, alone, in a process of its own.
fn elsewhere(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let name = format!("store::tests::threads::{test}");
    command.args(["--exact", &name, "--include-ignored", "--nocapture"]).env(DIR, dir);
    command
}

/// Has the store with one task until it is killed.
#[test]
#[ignore = "run by a_process_that_is_killed_gives_its_directory_back"]
fn holds_a_store() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let registry = Registry::new();
    let opened = Store::open(settings(Path::new(&dir)), &sinks(), &registry).expect("opened");
    let clock = TestClock::at(1_700_000_000);
    accept(&opened.store, &[(S0, task("a", b"kept", &clock))]).expect("accepted");
    std::io::stdout().write_all(b"\nholds it\n").expect("somebody reads");
    // Nobody writes: the end comes with the process that waits for this one.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_process_that_is_killed_gives_its_directory_back() {
    let (dir, registry) = (Dir::new("two"), Registry::new());
    let mut holder = elsewhere("holds_a_store", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut said = Vec::new();
    let mut stdout = holder.stdout.take().expect("piped");
    while !said.ends_with(b"holds it\n") {
        let mut byte = [0];
        let n = stdout.read(&mut byte).expect("what it says");
        assert!(n == 1 && said.len() < 4096, "it has ended: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    let open = || Store::open(settings(dir.path()), &sinks(), &registry);
    let refused = open().map(drop).expect_err("it is in use");
    assert!(matches!(refused, OpenError::Locked { pid: Some(pid), .. } if pid == holder.id()), "{refused}");
    assert!(refused.to_string().contains(&format!("process {};", holder.id())), "{refused}");
    let looked = look(dir.path(), &sinks(), &Filter::default(), 9).map(drop).expect_err("it is in use");
    assert!(matches!(looked, OpenError::Locked { pid: Some(pid), .. } if pid == holder.id()), "{looked}");
    holder.kill().expect("killed");
    holder.wait().expect("gone");
    let opened = open().expect("it is free");
    assert_eq!((opened.report.pending, opened.report.damages.len()), (1, 0));
    assert_eq!(&*opened.store.take(S0).expect("the task").record, b"kept");
}

/// Not run with the others: prints how long it takes a fresh process to open a store of a million tasks, and its memory.
#[test]
#[ignore = "a measurement"]
fn a_million_pending_tasks() {
    if let Some(dir) = std::env::var_os(DIR) {
        return opens_a_million(Path::new(&dir));
    }
    let dir = Dir::new("million");
    let clock = TestClock::at(1_700_000_000);
    let (store, _) = open_settings(big(dir.path()), &clock);
    for n in 0..1000_u32 {
        let tasks: Vec<_> = (0..1000).map(|_| (S0, task("a", &n.to_le_bytes(), &clock))).collect();
        while accept(&store, &tasks).is_err() {
            settle(&store);
        }
    }
    drop(store);
    let status = elsewhere("a_million_pending_tasks", dir.path()).status().expect("a process");
    assert!(status.success(), "{status}");
}

fn big(dir: &Path) -> crate::store::Settings {
    crate::store::Settings::new(dir, 4 << 30)
}

fn opens_a_million(dir: &Path) {
    let status = |field: &str| -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").expect("status");
        let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
    };
    let (before, started) = (status("VmRSS:"), crate::clock::now());
    let (store, report) = open_settings(big(dir), &TestClock::at(1_700_000_000));
    let took = started.elapsed();
    assert_eq!((report.pending, store.pending(S0)), (1_000_000, 1_000_000));
    let (now, peak) = (status("VmRSS:"), status("VmHWM:"));
    let a_task = now.saturating_sub(before) * 1024 / 1_000_000;
    eprintln!("opened in {took:?}; {a_task} bytes of memory a task; {peak} KiB at most, {before} before");
}
