//! A configuration that is exchanged while records come in, with the real program.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Daemon, HTTP_ONLY, WITH_TCP, entry};
use crate::support::http::Client;
use crate::support::sink::{Script, Sink};
use crate::support::{happens_within, send, wait_until};

/// Writes the configuration that the next reload reads.
#[track_caller]
fn write(daemon: &Daemon, yaml: &str) {
    let new = daemon.path("config.yaml.new");
    std::fs::write(&new, daemon.fill(yaml)).expect("written");
    std::fs::rename(new, daemon.path("config.yaml")).expect("in place");
}

/// `reload` of the configuration in place: exit code, and what it said on both streams.
fn reload(daemon: &Daemon) -> (Option<i32>, String) {
    let ended = daemon.run_as_is(&["reload"]);
    (ended.status.code(), ended.stdout + &ended.stderr)
}

#[track_caller]
fn reload_ok(daemon: &Daemon) -> String {
    let (code, said) = reload(daemon);
    assert_eq!(code, Some(0), "{said}");
    said
}

/// Entries of `/proc/PID/NAME`.
fn count_in_proc(daemon: &Daemon, name: &str) -> usize {
    std::fs::read_dir(format!("/proc/{}/{name}", daemon.pid())).expect("its process").count()
}

const SOCKET: &str = "control: { socket: \"{dir}/c.sock\" }\n";

/// Two groups that both take a record by its operation: with rules of one configuration the files `a.log` and `b.log`, with those of the
/// other one `c.log` and `d.log`.
fn pair(files: [&str; 2]) -> String {
    let group = |name: &str| {
        format!(
            "  - name: {name}\n    rules: ['Request.Operation == \"update\"']\n    log_file: {{ file_path: \"{{dir}}/{name}.log\" }}\n"
        )
    };
    format!("{WITH_TCP}{SOCKET}rule_groups:\n{}{}", group(files[0]), group(files[1]))
}

/// How many records of `ids` stand in each of the files, by id.
fn places(daemon: &Daemon) -> BTreeMap<String, Vec<&'static str>> {
    let mut places: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for name in ["a", "b", "c", "d"] {
        for line in daemon.lines(&format!("{name}.log")) {
            let record: serde_json::Value = serde_json::from_str(&line).expect("a whole record");
            let id = record["request"]["id"].as_str().expect("its id").to_owned();
            places.entry(id).or_default().push(name);
        }
    }
    places
}

/// A reload every 100 ms under 5,000 records a second over HTTP and TCP, with two configurations in turn. For 5 s; with
/// `VAF_RELOAD_SECONDS=30` for so many.
#[test]
fn no_record_is_lost_or_handled_by_halves_while_configurations_change() {
    const PER_SECOND: usize = 5_000;
    let seconds = std::env::var("VAF_RELOAD_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    let configurations = [pair(["a", "b"]), pair(["c", "d"])];
    let mut daemon = Daemon::start(&configurations[0]);
    let body = |flow: &str, n: usize| entry(&format!("{flow}{n}"), "update", "secret/data/a");
    let (stop, reloads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut acked, mut sent) = (0, 0);
    let http = daemon.http();
    // Once that is answered, every thread has been started.
    assert_eq!(daemon.run_as_is(&["status"]).status.code(), Some(0));
    let before = [count_in_proc(&daemon, "fd"), count_in_proc(&daemon, "task")];
    // Each sends what is due by now, in small batches, as senders do.
    let paced = |send: &mut dyn FnMut(std::ops::Range<usize>)| {
        let start = Instant::now();
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            let due = (start.elapsed().as_secs_f64() * PER_SECOND as f64 / 2.0) as usize;
            if due > done {
                send(done..due.min(done + 50));
                done = due.min(done + 50);
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        done
    };
    std::thread::scope(|scope| {
        let over_http = scope.spawn(|| {
            let mut client = Client::connect(http).expect("a connection");
            paced(&mut |range| {
                let lines: Vec<String> = range.map(|n| body("h", n)).collect();
                let answer = client
                    .post("/v1/audit", lines.join("\n").as_bytes())
                    .expect("an answer on the same connection");
                assert_eq!(answer.status, 204, "{}", answer.text());
            })
        });
        let over_tcp = scope.spawn(|| {
            let mut stream = send::tcp(daemon.audit());
            paced(&mut |range| {
                let lines: String = range.map(|n| body("t", n) + "\n").collect();
                stream.write_all(lines.as_bytes()).expect("the stream stays open");
            })
        });
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let next = Instant::now() + Duration::from_millis(100);
            let n = reloads.fetch_add(1, Ordering::Relaxed);
            write(&daemon, &configurations[(n + 1) % 2]);
            let mut control =
                std::os::unix::net::UnixStream::connect(daemon.path("c.sock")).expect("the socket");
            control
                .write_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                .expect("sent");
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut control, &mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        stop.store(true, Ordering::Relaxed);
        acked = over_http.join().expect("the HTTP sender");
        sent = over_tcp.join().expect("the TCP sender");
    });
    daemon.wait_received(acked + sent);
    let reloads = reloads.load(Ordering::Relaxed);
    assert_eq!(daemon.metric("config_reloads_total{result=\"applied\"}"), reloads as f64);
    assert_eq!(daemon.metric("records_total{outcome=\"matched\"}"), (acked + sent) as f64);
    let matches: f64 = daemon.sum("group_matches_total");
    assert_eq!(matches, 2.0 * (acked + sent) as f64);
    let places = places(&daemon);
    let wanted = (0..acked).map(|n| format!("h{n}")).chain((0..sent).map(|n| format!("t{n}")));
    let mut of = [0, 0];
    for id in wanted {
        match places.get(&id).map(Vec::as_slice) {
            Some(["a", "b"]) => of[0] += 1,
            Some(["c", "d"]) => of[1] += 1,
            other => panic!("{id} stands in {other:?}"),
        }
    }
    assert_eq!(places.len(), acked + sent, "no record that nobody sent");
    assert!(of[0] > 0 && of[1] > 0, "both configurations were in use: {of:?}");
    // Files that nobody writes to any more are closed; threads are what they were.
    let mut now = [0, 0];
    let settled = happens_within(Duration::from_secs(20), || {
        now = [count_in_proc(&daemon, "fd"), count_in_proc(&daemon, "task")];
        now[0] <= before[0] + 4 && now[1] <= before[1]
    });
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .expect("its process")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .collect();
    assert!(settled, "descriptors and threads {before:?} before, {now:?} after: {open:#?}");
    eprintln!(
        "{reloads} reloads in {seconds} s, {acked} records over HTTP and {sent} over TCP: {of:?} by each configuration"
    );
    assert!(daemon.terminate().status.success());
}

#[test]
fn a_wrong_configuration_leaves_the_old_one_in_use_and_says_everything() {
    let daemon = Daemon::start(&pair(["a", "b"]));
    let socket = daemon.path("c.sock").display().to_string();
    let wrong = pair(["c", "d"]).replace("Request.Operation", "Request.Operaton") + "colour: red\n";
    write(&daemon, &wrong);
    for arguments in [&["reload"][..], &["reload", "--socket", &socket]] {
        let ended = daemon.run_as_is(arguments);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        for part in
            ["Operaton", "group \"c\", rule 1", "group \"d\", rule 1", "colour", "3 problems", "stays in use"]
        {
            assert!(ended.stderr.contains(part), "{part:?}: {}", ended.stderr);
        }
    }
    assert_eq!(daemon.metric("config_reloads_total{result=\"refused\"}"), 2.0);
    assert_eq!(daemon.metric("config_last_reload_success"), 0.0);
    daemon.signal(Signal::SIGHUP);
    wait_until("it is refused", || daemon.metric("config_reloads_total{result=\"refused\"}") == 3.0);
    assert!(daemon.stderr().contains("not reloaded: 3 problems in the configuration"), "{}", daemon.stderr());
    assert_eq!(daemon.post(&entry("still", "update", "a")), 204);
    assert_eq!((daemon.lines("a.log").len(), daemon.lines("b.log").len()), (1, 1));
    assert!(!daemon.path("c.log").exists(), "nothing of the wrong one was opened");
    // A log file that cannot be had: right, and of no use.
    write(&daemon, &pair(["a/under/a/file", "b"]));
    std::fs::write(daemon.path("a"), "").expect("a file where a directory would have to be");
    let (code, said) = reload(&daemon);
    assert!(code == Some(1) && said.contains("stays in use"), "{code:?} {said}");
    assert_eq!(daemon.metric("config_reloads_total{result=\"failed\"}"), 1.0);
    // Put right, by signal.
    write(&daemon, &pair(["c", "d"]));
    daemon.signal(Signal::SIGHUP);
    wait_until("it is applied", || daemon.metric("config_reloads_total{result=\"applied\"}") == 1.0);
    assert_eq!(daemon.metric("config_last_reload_success"), 1.0);
    assert_eq!(daemon.post(&entry("then", "update", "a")), 204);
    assert_eq!(
        (daemon.lines("a.log").len(), daemon.lines("c.log").len(), daemon.lines("d.log").len()),
        (1, 1, 1)
    );
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let yaml = format!(
        "{HTTP_ONLY}{SOCKET}rule_groups:\n  - name: a\n    log_file: {{ file_path: \"{{dir}}/a.log\", max_size: 5 }}\n"
    );
    let daemon = Daemon::start(&yaml);
    assert!(reload_ok(&daemon).ends_with("is in use, as before\n"));
    let other = yaml.replace(
        "http: { address: \"127.0.0.1:{http}\" }",
        "http: { address: \"127.0.0.1:1\", tokens: [rotated] }",
    ) + "    rules: ['Request.Path == \"wanted\"']\nlimits: { connections_max: 77, record_bytes_max: 2KiB }\n";
    write(&daemon, &other.replace("max_size: 5", "max_size: 6, compress: true"));
    let said = reload_ok(&daemon);
    for part in [
        "group \"a\": rules, log_file changed\n",
        "limits is changed\n",
        "listen.http.tokens is changed\n",
        "listen.http.address: not changed, that needs a restart\n",
        "limits.connections_max: not changed, that needs a restart\n",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert_eq!(daemon.post(&entry("n", "update", "wanted")), 401, "the new tokens count");
    let mut client = daemon.client();
    for (path, status) in [("wanted", 204), ("unwanted", 204), (&*"x".repeat(3000), 413)] {
        let body = entry("n", "update", path);
        let head = format!(
            "POST /v1/audit HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer rotated\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.send_raw(head.as_bytes()).expect("sent");
        assert_eq!(client.read_answer().expect("an answer").status, status, "{path}");
    }
    assert_eq!(daemon.lines("a.log").len(), 1, "the new rule, on the same connection");
    let json = daemon.run_as_is(&["reload", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["changed"], serde_json::json!([]));
    assert_eq!(json["restart"][0], "listen.http.address", "named again: the file still wants it");
}

/// A group with a webhook at `url` that is tried again every 50 ms.
fn webhook(url: &str, more: &str) -> String {
    format!(
        "{HTTP_ONLY}{SOCKET}async: {{ queue_size: 100, workers: 1, timeout: 20s, retry: {{ max_attempts: 1000, backoff: 50ms, max_backoff: 50ms }}{more} }}
shutdown: {{ drain_timeout: 20s }}
rule_groups:
  - name: everything
    messaging: {{ type: webhook, webhook_url: \"{url}\", rate_per_s: 0, digest_window: 0s }}
"
    )
}

#[test]
fn a_sink_in_the_middle_of_a_retry_finishes_with_its_old_settings() {
    let (old, new) = (Sink::start([Script::status(503)]), Sink::start([Script::ok()]));
    let mut daemon = Daemon::start(&webhook(&old.url("/old"), ""));
    for n in 0..5 {
        assert_eq!(daemon.post(&entry(&format!("old{n}"), "update", "a")), 204);
    }
    wait_until("it is tried again and again", || old.count() >= 3);
    write(&daemon, &webhook(&new.url("/new"), ""));
    assert!(reload_ok(&daemon).contains("group \"everything\": messaging changed"));
    assert_eq!(daemon.post(&entry("new", "update", "a")), 204);
    wait_until("the new one is told", || new.count() == 1);
    assert_eq!(daemon.metric("sink_up{sink=\"everything/webhook\"}"), 1.0, "that of the new one");
    old.answer(Script::ok());
    daemon.wait_sum("tasks_total", "outcome=\"delivered\"", 6.0);
    let taken = old.received().iter().filter(|r| r.status == 200).count();
    assert_eq!((taken, new.count()), (5, 1), "each got what was accepted for it");
    assert_eq!(daemon.sum("tasks_dropped_total"), 0.0);
    // Unchanged: the same sink goes on, whatever else changes.
    let threads = count_in_proc(&daemon, "task");
    wait_until("the old worker has gone", || count_in_proc(&daemon, "task") <= threads);
    write(
        &daemon,
        &(webhook(&new.url("/new"), "")
            + "  - { name: other, log_file: { file_path: \"{dir}/other.log\" } }\n"),
    );
    reload_ok(&daemon);
    assert_eq!(daemon.post(&entry("newer", "update", "a")), 204);
    wait_until("told", || new.count() == 2);
    // Removed while it hangs: it is waited for no longer than the drain allows, and counted.
    new.answer(Script::Hang);
    assert_eq!(daemon.post(&entry("hangs", "update", "a")), 204);
    wait_until("it hangs", || new.count() == 3);
    let without = format!(
        "{HTTP_ONLY}{SOCKET}shutdown: {{ drain_timeout: 300ms }}\nrule_groups:\n  - {{ name: other, log_file: {{ file_path: \"{{dir}}/other.log\" }} }}\n"
    );
    write(&daemon, &without);
    assert!(reload_ok(&daemon).contains("group \"everything\" is removed"));
    wait_until("it is cut off", || {
        daemon.metric("tasks_dropped_total{sink=\"everything/webhook\",reason=\"reload\"}") == 1.0
    });
    let ended = daemon.terminate();
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[test]
fn stored_tasks_go_to_the_sink_that_takes_the_place_of_theirs() {
    let durable = ", durable: { enabled: true, dir: \"{dir}/store\", max_bytes: 64MiB }";
    let (old, new) = (Sink::start([Script::status(503)]), Sink::start([Script::ok()]));
    let mut daemon = Daemon::start(&webhook(&old.url("/old"), durable));
    for n in 0..20 {
        assert_eq!(daemon.post(&entry(&format!("n{n}"), "update", "a")), 204);
    }
    wait_until("it is tried", || old.count() >= 2);
    // Removed: they stay, unknown to the configuration, and nothing is lost.
    let without = format!(
        "{HTTP_ONLY}{SOCKET}async: {{ durable: {{ enabled: true, dir: \"{{dir}}/store\", max_bytes: 64MiB }} }}\nrule_groups:\n  - {{ name: other, log_file: {{ file_path: \"{{dir}}/other.log\" }} }}\n"
    );
    write(&daemon, &without);
    reload_ok(&daemon);
    let listed = || -> serde_json::Value {
        let ended = daemon.run_as_is(&["queue", "list", "--state", "pending", "--format", "json"]);
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    wait_until("all are given back", || {
        let tasks = listed();
        tasks["total"] == 20
            && tasks["tasks"].as_array().is_some_and(|tasks| {
                tasks.iter().all(|t| t["sink_known"] == false && t["standing"] != "in_progress")
            })
    });
    let tried = old.count();
    // A sink of the same name takes them over.
    write(&daemon, &webhook(&new.url("/new"), durable));
    reload_ok(&daemon);
    wait_until("all are delivered", || new.count() == 20);
    assert_eq!(old.count(), tried);
    wait_until("the store is empty", || listed()["total"] == 0);
    assert_eq!(listed()["total"], 0);
    assert_eq!(daemon.post(&entry("after", "update", "a")), 204);
    wait_until("the new ones too", || new.count() == 21);
    // A sink that was never there before, with the store open.
    let third = webhook(&new.url("/new"), durable).replace("name: everything", "name: third");
    write(&daemon, &third);
    reload_ok(&daemon);
    assert_eq!(daemon.post(&entry("third", "update", "a")), 204);
    wait_until("it is delivered", || new.count() == 22);
    let ended = daemon.terminate();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(happens_within(Duration::from_secs(1), || !daemon.path("c.sock").exists()));
}
