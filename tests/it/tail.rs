//! `tail` with the real program: matches as they come, and a follower that does not read costs nobody anything.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Daemon, HTTP_ONLY, WITH_TCP, entry};
use crate::support::{send, wait_until};

const GROUPS: &str = r#"
control: { socket: "{dir}/c.sock" }
rule_groups:
  - { name: deletions, rules: ['Request.Operation == "delete"'], log_file: { file_path: "{dir}/deletions.log" } }
  - { name: "all of it", log_file: { file_path: "{dir}/all.log" } }
"#;

/// A connection that follows; its head has been read, so it follows from here on.
fn follow(daemon: &Daemon, query: &str) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.path("c.sock")).expect("the socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    write!(stream, "GET /v1/tail{query} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).expect("a head"), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("application/x-ndjson"), "{head}");
    stream
}

/// So many lines.
fn lines(stream: &mut UnixStream, n: usize) -> Vec<Value> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while text.iter().filter(|b| **b == b'\n').count() < n {
        let read = stream.read(&mut chunk).expect("more lines");
        assert!(read > 0, "the end after {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(text).expect("text").lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
}

#[test]
fn matches_come_as_they_are_made_and_reloads_do_not_end_it() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{GROUPS}"));
    let mut some = follow(&daemon, "?group=deletions");
    let mut all = follow(&daemon, "");
    let pretty = entry("n1", "delete", "a").replacen(',', ",\r\n", 1);
    assert_eq!(daemon.post(&entry("n0", "read", "a")), 204);
    assert_eq!(daemon.post(&pretty), 204);
    let seen = lines(&mut all, 3);
    let of =
        |line: &Value| (line["group"].as_str().map(str::to_owned), line["record"]["request"]["id"].clone());
    let [deletions, all_of_it] = ["deletions", "all of it"].map(|name| Some(name.to_owned()));
    assert_eq!(
        seen.iter().map(of).collect::<Vec<_>>(),
        [(all_of_it.clone(), "n0".into()), (deletions.clone(), "n1".into()), (all_of_it, "n1".into())]
    );
    assert_eq!(seen[0]["listener"], "http");
    let (code, said) = {
        let ended = daemon.run_as_is(&["reload"]);
        (ended.status.code(), ended.stderr)
    };
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(daemon.post(&entry("n2", "delete", "a")), 204);
    let seen = lines(&mut some, 2);
    assert_eq!(
        seen.iter().map(of).collect::<Vec<_>>(),
        [(deletions.clone(), "n1".into()), (deletions, "n2".into())]
    );
    // The other routes go on meanwhile, however many follow.
    let crowd: Vec<UnixStream> = (0..14).map(|_| follow(&daemon, "?group=all%20of%20it")).collect();
    assert_eq!(daemon.run_as_is(&["status"]).status.code(), Some(0));
    for (arguments, part) in
        [(&["tail"][..], "16 follow already"), (&["tail", "--group", "deletion"], "did you mean")]
    {
        let ended = daemon.run_as_is(arguments);
        assert!(ended.status.code() == Some(2) && ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    drop(crowd);
    // Those that have gone make room.
    wait_until("there is room again", || {
        let mut stream = UnixStream::connect(daemon.path("c.sock")).expect("the socket");
        write!(stream, "GET /v1/tail HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut start = [0; 12];
        stream.read_exact(&mut start).expect("an answer");
        &start == b"HTTP/1.1 200"
    });
}

#[test]
fn the_command_prints_lines_for_people_and_json_for_programs() {
    let mut daemon = Daemon::start(&format!("{HTTP_ONLY}{GROUPS}"));
    for (format, wanted) in [
        ("text", "deletions  request  delete  secret/a  approle  127.0.0.1"),
        ("json", "\"group\":\"deletions\""),
    ] {
        let ended = std::thread::scope(|scope| {
            let tail = scope.spawn(|| {
                daemon.run_as_is(&["tail", "--group", "deletions", "--lines", "2", "--format", format])
            });
            // It follows from some instant on: records come until it has seen enough.
            while !tail.is_finished() {
                assert_eq!(daemon.post(&entry("n", "delete", "secret/a")), 204);
                std::thread::sleep(Duration::from_millis(20));
            }
            tail.join().expect("it ends")
        });
        assert_eq!((ended.status.code(), ended.stdout.lines().count()), (Some(0), 2), "{}", ended.stderr);
        assert!(ended.stdout.lines().all(|line| line.contains(wanted)), "{}", ended.stdout);
    }
    assert!(daemon.terminate().status.success());
    assert_eq!(daemon.run_as_is(&["tail"]).status.code(), Some(1), "nobody runs");
}

#[test]
fn a_follower_that_does_not_read_loses_lines_and_holds_nobody_up() {
    const RECORDS: usize = 30_000;
    let mut daemon = Daemon::start(&format!("{WITH_TCP}{GROUPS}"));
    let mut slow = follow(&daemon, "?group=all+of+it");
    let mut stream = send::tcp(daemon.audit());
    let batch: String = (0..100).map(|n| entry(&format!("n{n}"), "read", "a") + "\n").collect();
    (0..RECORDS / 100).for_each(|_| stream.write_all(batch.as_bytes()).expect("taken"));
    daemon.wait_received(RECORDS);
    assert_eq!(daemon.lines("all.log").len(), RECORDS);
    let (mut shown, mut lost) = (0, 0);
    let mut text = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    while shown + lost < RECORDS {
        let read = slow.read(&mut chunk).expect("more");
        assert!(read > 0, "{shown} shown, {lost} lost");
        text.extend_from_slice(&chunk[..read]);
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let line: Value = serde_json::from_slice(&text[..end]).expect("a whole line");
            text.drain(..=end);
            match line["lost"].as_u64() {
                Some(n) => lost += n as usize,
                None => shown += 1,
            }
        }
    }
    assert_eq!(shown + lost, RECORDS, "what is not shown is counted");
    assert!(lost > 0 && shown >= 3000, "{shown} shown, {lost} lost");
    // The end of the server ends it, whether it reads or not.
    let _idle = follow(&daemon, "");
    assert!(daemon.terminate().status.success());
}
