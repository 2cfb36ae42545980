//! Disks that are full or fail. Each needs a tool of the system and is left out, with a word, where that is missing.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::support::left_out;

/// Set in the copy of the test program that has a mount namespace of its own.
const INSIDE: &str = "VAF_INSIDE_NAMESPACE";

/// Runs the named test once more in a mount namespace of its own; `true` in there, where the test is to be done.
fn inside_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.arg("-Urm");
        command
    };
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        left_out(test, "unshare -Urm is not permitted");
        return false;
    }
    let program = std::env::current_exe().expect("the test program");
    let status = unshare()
        .arg(program)
        .args(["--exact", &format!("durable::faults::{test}"), "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare runs");
    assert!(status.success(), "{status}");
    false
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("the tool runs");
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// What senders saw.
#[derive(Default)]
struct Seen {
    next: AtomicUsize,
    acked: Mutex<Vec<usize>>,
    refused: AtomicUsize,
}

impl Seen {
    /// Sends one record after the other until `stop` says so; only 204 and 503 may come.
    fn send_until(&self, daemon: &Daemon, bytes: usize, mut stop: impl FnMut(u16) -> bool) {
        let mut client = daemon.client();
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let answer = client.post("/v1/audit", record(n, bytes).as_bytes()).expect("an answer");
            match answer.status {
                204 => self.acked.lock().expect("no panic while held").push(n),
                503 => {
                    assert_eq!(answer.header("retry-after"), Some("1"));
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                other => panic!("{other}: {}", answer.text()),
            }
            if stop(answer.status) {
                return;
            }
        }
    }

    /// Waits until everything acked has been delivered; says the figures.
    fn check(&self, what: &str, daemon: &Daemon, sink: &Sink) {
        wait_empty(daemon);
        let received = sink.received();
        assert_attempts(&received);
        let taken: std::collections::HashSet<usize> =
            received.iter().filter(|r| r.status == 200).map(number).collect();
        let acked = self.acked.lock().expect("no panic while held");
        let lost = acked.iter().filter(|n| !taken.contains(n)).count();
        let refused = self.refused.load(Ordering::Relaxed);
        figures(format_args!(
            "{what}: {} acked, {refused} refused, {} delivered, {lost} lost",
            acked.len(),
            taken.len()
        ));
        assert_eq!((lost, daemon.metric("dead_letters")), (0, 0.0));
        assert!(refused > 0, "nothing was refused");
        let [received, outcomes] = ["records_received_total", "records_total"].map(|name| daemon.sum(name));
        assert_eq!(received, outcomes);
    }
}

#[test]
fn a_read_only_directory_stops_the_start_with_the_cure() {
    if !inside_namespace("a_read_only_directory_stops_the_start_with_the_cure") {
        return;
    }
    let sink = Sink::start([Script::ok()]);
    let plan = Plan::new(&durable(&sink, "16MiB", ""));
    let store = plan.path("store");
    std::fs::create_dir(&store).expect("a directory");
    let at = store.display().to_string();
    run("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs", &at]);
    let refused = plan.run(&["serve"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("async.durable.dir") && refused.stderr.contains(&at),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("writable"), "the cure: {}", refused.stderr);
    run("umount", &[&at]);
}

#[test]
fn a_full_disk_is_only_204_and_503_and_acceptance_comes_back() {
    if !inside_namespace("a_full_disk_is_only_204_and_503_and_acceptance_comes_back") {
        return;
    }
    let sink = Sink::start([Script::status(503)]);
    let plan = Plan::new(&durable(&sink, "128MiB", "workers: 2"));
    let store = plan.path("store");
    std::fs::create_dir(&store).expect("a directory");
    let at = store.display().to_string();
    run("mount", &["-t", "tmpfs", "-o", "size=48m", "tmpfs", &at]);
    let mut daemon = plan.start();
    let seen = Seen::default();
    // Full by its own tasks.
    let mut refusals = 0;
    seen.send_until(&daemon, 20_000, |status| {
        refusals += usize::from(status == 503);
        refusals > 20
    });
    assert_eq!(daemon.admin("/readyz").status, 503, "not ready while nothing is accepted");
    let answer = daemon.control("store/control.sock", "POST", "/v1/audit", &record(0, 20_000));
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"error\""), "{answer}");
    sink.answer(Script::ok());
    wait_until("it is ready again", || daemon.admin("/readyz").status == 200);
    seen.send_until(&daemon, 1000, |status| status == 204);
    wait_empty(&daemon);
    // Full by somebody else.
    let filler = store.join("filler");
    let _ = std::fs::write(&filler, vec![1; 48 << 20]);
    sink.answer(Script::status(503));
    let mut refusals = 0;
    seen.send_until(&daemon, 2000, |status| {
        refusals += usize::from(status == 503);
        refusals > 20
    });
    sink.answer(Script::ok());
    std::fs::remove_file(&filler).expect("removed");
    wait_until("it is ready again", || daemon.admin("/readyz").status == 200);
    seen.send_until(&daemon, 1000, |status| status == 204);
    seen.check("a full disk", &daemon, &sink);
    let ended = daemon.terminate();
    assert!(ended.stderr.contains("are refused until it takes tasks again"), "{}", ended.stderr);
    assert!(ended.stderr.contains("takes tasks again; "), "{}", ended.stderr);
    run("umount", &[&at]);
}

#[test]
fn failing_syncs_are_503_and_acceptance_comes_back_on_a_fresh_segment() {
    let test = "failing_syncs_are_503_and_acceptance_comes_back_on_a_fresh_segment";
    let traced = Command::new("strace").args(["-D", "-qq", "-o", "/dev/null", "true"]).status();
    if !traced.is_ok_and(|status| status.success()) {
        return left_out(test, "strace cannot trace");
    }
    let sink = Sink::start([Script::ok()]);
    // Four syncs of each thread fail, as on a disk that has lost what it was given.
    let inject = "inject=fdatasync:error=EIO:when=20..140+40";
    let daemon = Plan::new(&durable(&sink, "16MiB", "workers: 2"))
        .under(&["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject])
        .start();
    let seen = Arc::new(Seen::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| seen.send_until(&daemon, 300, |_| stop.load(Ordering::Relaxed)));
        }
        let enough =
            || seen.refused.load(Ordering::Relaxed) > 20 && seen.acked.lock().expect("no panic").len() > 500;
        wait_until("some are refused and many acked", enough);
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
    });
    wait_until("it is ready again", || daemon.admin("/readyz").status == 200);
    seen.check("failing syncs", &daemon, &sink);
    assert!(daemon.sum("store_faults_total") > 0.0);
}
