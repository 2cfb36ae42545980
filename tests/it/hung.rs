//! Log files on a disk that hangs: strace keeps each write to them back until it is killed.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Daemon, HTTP_ONLY, Plan, WITH_TCP, WITH_UDP, entry};
use crate::support::http::Client;
use crate::support::{left_out, send, wait_until};

/// Records on as many connections.
const MANY: usize = 300;

/// Groups `a`, `b` and `c` with files of that name, by the first letter of the path.
const GROUPS: &str = r#"
rule_groups:
  - { name: a, rules: ['Request.Path startsWith "a/"'], log_file: { file_path: "{dir}/a.log" } }
  - { name: b, rules: ['Request.Path startsWith "b/"'], log_file: { file_path: "{dir}/b.log" } }
  - { name: c, rules: ['Request.Path startsWith "c/"'], log_file: { file_path: "{dir}/c.log" } }
"#;

pub(crate) fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-D", "-qq", "-o", "/dev/null", "true"]).status();
    traced.is_ok_and(|status| status.success())
}

/// Starts the program so that those calls on these files are kept back.
fn start(yaml: &str, files: &[&str], call: &str, delay: Duration) -> Daemon {
    let plan = Plan::new(yaml);
    let paths: Vec<String> = files.iter().map(|name| plan.path(name).display().to_string()).collect();
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:delay_enter={}", delay.as_micros());
    let mut under = vec!["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    under.extend(paths.iter().flat_map(|path| ["-P", path.as_str()]));
    plan.under(&under).start()
}

/// Starts it so that writes to these files hang until [`let_go`].
pub(crate) fn hanging(yaml: &str, files: &[&str]) -> Daemon {
    start(yaml, files, "writev", Duration::from_secs(900))
}

fn tracer(daemon: &Daemon) -> Pid {
    let tracer = i32::try_from(daemon.process("TracerPid")).expect("a process id");
    assert!(tracer > 0, "it is traced");
    Pid::from_raw(tracer)
}

/// The disks work again.
pub(crate) fn let_go(daemon: &Daemon) {
    kill(tracer(daemon), Signal::SIGKILL).expect("strace is there");
}

/// POSTs a record of each path on a connection of its own, and does not wait for the answers.
pub(crate) fn send_each(daemon: &Daemon, paths: impl Iterator<Item = String>) -> Vec<Client> {
    let send = |path: String| {
        let (mut client, body) = (daemon.client(), entry(&path.replace('/', "-"), "read", &path));
        let head = format!("POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        client.send_raw(format!("{head}{body}").as_bytes()).expect("sent");
        client
    };
    paths.map(send).collect()
}

/// The paths of the records in a log file, which must be whole.
#[track_caller]
fn paths(daemon: &Daemon, file: &str) -> Vec<String> {
    let path = |line: &String| {
        let record: serde_json::Value = serde_json::from_str(line).expect("a record");
        record["request"]["path"].as_str().expect("its path").to_owned()
    };
    daemon.lines(file).iter().map(path).collect()
}

/// Each once, in any order.
#[track_caller]
fn assert_each_once(found: &[String], expected: impl Iterator<Item = String>) {
    let set: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(set.len(), found.len(), "none twice");
    assert_eq!(set, expected.collect());
}

pub(crate) fn wait_hanging(daemon: &Daemon, file: &str) {
    let says = format!("{file} has been hanging for");
    wait_until("readiness names the file", || {
        let answer = daemon.admin("/readyz?verbose");
        answer.status == 503 && answer.text().contains(&says)
    });
    let series = format!("log_write_stuck_seconds{{file=\"{}\"}}", daemon.path(file).display());
    assert!(daemon.metric(&series) >= 1.0, "{series}");
}

fn others_go_on(base: &str) {
    if !can_trace() {
        return left_out("a hanging log file", "strace cannot trace");
    }
    let mut daemon = hanging(&format!("{base}{GROUPS}"), &["a.log"]);
    let name = |n: usize| format!("a/{n}");
    let mut waiting = send_each(&daemon, (0..MANY).map(name));
    wait_hanging(&daemon, "a.log");
    for n in 0..50 {
        assert_eq!(daemon.post(&entry("b", "read", &format!("b/http{n}"))), 204);
        assert_eq!(daemon.post(&entry("x", "read", "x")), 204);
    }
    assert_eq!(daemon.post("no record"), 204, "the quarantine log is another file");
    // Lines and datagrams, those for the file that hangs among them.
    let (udp, mut unix) = (base == WITH_UDP, send::unix(&daemon.path("audit.sock")));
    let lines =
        |what: &str, n: usize| ["a", "b"].map(|group| entry("l", "read", &format!("{group}/{what}{n}")));
    for n in 0..20 {
        for line in lines("unix", n) {
            send::line(&mut unix, line.as_bytes());
        }
    }
    if udp {
        let socket = send::udp(daemon.audit());
        for n in 0..20 {
            for line in lines("audit", n) {
                socket.send(line.as_bytes()).expect("sent");
            }
        }
    } else {
        // One connection for the group that waits, another one for the other.
        let mut streams = [send::tcp(daemon.audit()), send::tcp(daemon.audit())];
        for n in 0..20 {
            for (stream, line) in streams.iter_mut().zip(lines("audit", n)) {
                send::line(stream, line.as_bytes());
            }
        }
        wait_until("the stream's records are written", || daemon.lines("b.log").len() >= 70);
        wait_until("the other one's first ones are taken", || {
            daemon.sum_where("records_received_total", "tcp") > 20.0
        });
    }
    let datagrams = || daemon.lines("b.log").iter().filter(|line| line.contains("b/audit")).count();
    wait_until("what is for another file is written", || datagrams() == 20);
    assert_eq!(daemon.lines("quarantine.log").len(), 1);
    // All that while nothing was written to the file that hangs, nor acked.
    assert!(daemon.lines("a.log").is_empty());
    assert_eq!(daemon.metric(r#"http_requests_total{listener="http",status="204"}"#), 101.0);
    wait_until("it is said", || daemon.stderr().contains("a write has been hanging"));
    let_go(&daemon);
    for client in &mut waiting {
        assert_eq!(client.read_answer().expect("an answer").status, 204);
    }
    daemon.wait_received(MANY + 101 + 80);
    let streamed = (0..20).flat_map(|n| [format!("a/unix{n}"), format!("a/audit{n}")]);
    assert_each_once(&paths(&daemon, "a.log"), (0..MANY).map(name).chain(streamed));
    wait_until("it is ready again", || daemon.admin("/readyz").status == 200);
    assert_eq!(daemon.metric(r#"records_total{outcome="refused"}"#), 0.0);
    wait_until("its end is said", || daemon.stderr().contains("writes end again"));
    let ended = daemon.terminate();
    assert_eq!(ended.stderr.matches("a write has been hanging").count(), 1, "{}", ended.stderr);
}

#[test]
fn a_hanging_log_file_holds_up_nobody_else_on_http_and_streams() {
    others_go_on(WITH_TCP);
}

#[test]
fn a_hanging_log_file_holds_up_nobody_else_on_udp() {
    others_go_on(WITH_UDP);
}

#[test]
fn two_files_hang_and_the_third_takes_its_records() {
    if !can_trace() {
        return left_out("two_files_hang_and_the_third_takes_its_records", "strace cannot trace");
    }
    let daemon = hanging(&format!("{HTTP_ONLY}{GROUPS}"), &["a.log", "b.log"]);
    let name = |n: usize| format!("{}/{n}", ["a", "b"][n % 2]);
    let mut waiting = send_each(&daemon, (0..100).map(name));
    wait_hanging(&daemon, "a.log");
    wait_hanging(&daemon, "b.log");
    for n in 0..50 {
        assert_eq!(daemon.post(&entry("c", "read", &format!("c/{n}"))), 204);
    }
    assert_eq!(daemon.lines("c.log").len(), 50);
    assert!(daemon.lines("a.log").is_empty() && daemon.lines("b.log").is_empty());
    let_go(&daemon);
    for client in &mut waiting {
        assert_eq!(client.read_answer().expect("an answer").status, 204);
    }
    let both = [paths(&daemon, "a.log"), paths(&daemon, "b.log")].concat();
    assert_each_once(&both, (0..100).map(name));
}

/// Threads of the pool.
fn pool_threads(daemon: &Daemon) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.expect("a thread").path().join("comm")).unwrap_or_default()
    };
    tasks.map(name).filter(|name| name.starts_with("ingest-")).count()
}

#[test]
fn threads_that_hang_in_a_file_are_replaced_once() {
    if !can_trace() {
        return left_out("threads_that_hang_in_a_file_are_replaced_once", "strace cannot trace");
    }
    let mut daemon = hanging(&format!("{HTTP_ONLY}{GROUPS}"), &["a.log", "b.log"]);
    // As many as cores, one more because log files may hang. They have names only once they run.
    let before = std::thread::available_parallelism().map_or(2, usize::from).max(2) + 1;
    wait_until("all threads run", || pool_threads(&daemon) == before);
    let name = |n: usize| format!("a/{n}");
    let mut waiting = send_each(&daemon, (0..MANY).map(name));
    wait_hanging(&daemon, "a.log");
    wait_until("some have been replaced", || pool_threads(&daemon) > before);
    assert_eq!(daemon.post(&entry("c", "read", "c/1")), 204);
    // The new ones may write, too, and hang in another file: there is a bound.
    let other = |n: usize| format!("b/{n}");
    waiting.extend(send_each(&daemon, (0..MANY).map(other)));
    wait_hanging(&daemon, "b.log");
    wait_until("as many more as there were at most", || {
        (before + 1..=2 * before).contains(&pool_threads(&daemon))
    });
    for n in 2..50 {
        assert_eq!(daemon.post(&entry("c", "read", &format!("c/{n}"))), 204);
    }
    assert_eq!(daemon.lines("c.log").len(), 49);
    let_go(&daemon);
    for client in &mut waiting {
        assert_eq!(client.read_answer().expect("an answer").status, 204);
    }
    assert_each_once(&paths(&daemon, "a.log"), (0..MANY).map(name));
    assert_each_once(&paths(&daemon, "b.log"), (0..MANY).map(other));
    wait_until("it is ready again", || daemon.admin("/readyz").status == 200);
    assert!(pool_threads(&daemon) <= 2 * before);
    let ended = daemon.terminate();
    assert!(ended.status.success() && ended.stderr.contains("is started"), "{}", ended.stderr);
}

#[test]
fn records_of_many_connections_share_the_syncs_of_a_synced_file() {
    if !can_trace() {
        return left_out("records_of_many_connections_share_the_syncs", "strace cannot trace");
    }
    const CONNECTIONS: usize = 32;
    const EACH: usize = 10;
    let groups =
        "rule_groups:\n  - { name: all, log_file: { file_path: \"{dir}/all.log\", sync: always } }\n";
    let daemon = start(&format!("{HTTP_ONLY}{groups}"), &["all.log"], "fdatasync", Duration::from_millis(20));
    std::thread::scope(|scope| {
        for c in 0..CONNECTIONS {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut client = daemon.client();
                for n in 0..EACH {
                    let record = entry("r", "read", &format!("{c}/{n}"));
                    assert_eq!(client.post("/v1/audit", record.as_bytes()).expect("an answer").status, 204);
                }
            });
        }
    });
    let expected = (0..CONNECTIONS).flat_map(|c| (0..EACH).map(move |n| format!("{c}/{n}")));
    assert_each_once(&paths(&daemon, "all.log"), expected);
    let syncs = daemon.sum("log_syncs_total");
    assert!(syncs >= EACH as f64 && syncs < (CONNECTIONS * EACH / 2) as f64, "{syncs} syncs");
}

#[test]
fn the_program_ends_in_time_and_says_what_hangs() {
    if !can_trace() {
        return left_out("the_program_ends_in_time_and_says_what_hangs", "strace cannot trace");
    }
    let settings = "shutdown: { drain_timeout: 1s }";
    let mut daemon = hanging(&format!("{WITH_UDP}{settings}{GROUPS}"), &["a.log"]);
    let mut waiting = send_each(&daemon, (0..40).map(|n| format!("a/{n}")));
    let socket = send::udp(daemon.audit());
    for n in 0..10 {
        socket.send(entry("l", "read", &format!("a/udp{n}")).as_bytes()).expect("sent");
    }
    wait_hanging(&daemon, "a.log");
    wait_until("all are received", || daemon.sum("records_received_total") >= 50.0);
    assert_eq!(daemon.post(&entry("b", "read", "b/1")), 204);
    let tracer = tracer(&daemon);
    daemon.signal(Signal::SIGTERM);
    let status = format!("/proc/{}/status", daemon.pid());
    wait_until("it has ended but for threads that are held", || {
        std::fs::read_to_string(&status).is_ok_and(|text| text.contains("State:\tZ"))
    });
    // What is left of the process then is in strace's hands, as it would be in the kernel's with a real disk.
    kill(tracer, Signal::SIGKILL).expect("strace is there");
    let ended = daemon.wait_end();
    assert!(ended.status.success(), "{:?}: {}", ended.status, ended.stderr);
    assert!(ended.stderr.contains("still hang"), "{}", ended.stderr);
    assert!(ended.stderr.contains("50 records were not written"), "{}", ended.stderr);
    assert!(ended.stderr.contains("50 refused"), "{}", ended.stderr);
    assert_eq!(daemon.lines("b.log").len(), 1);
    let status = |client: &mut Client| client.read_answer().map_or(0, |answer| answer.status);
    let acked = waiting.iter_mut().filter_map(|client| (status(client) == 204).then_some(())).count();
    assert_eq!((acked, daemon.lines("a.log").len()), (0, 0), "what is not written is not acked");
}
