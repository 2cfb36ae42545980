//! Start, reload and stop: wrong configurations, signals, readiness, and being short of file descriptors.

use std::io::{ErrorKind, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Daemon, HTTP_ONLY, Plan, WITH_TCP, WITH_UDP, entry};
use crate::support::http::Client;
use crate::support::sink::{Script, Sink};
use crate::support::{happens_within, send, wait_until};

const EVERYTHING: &str = r#"
rule_groups:
  - name: everything
    log_file: { file_path: "{dir}/everything.log" }
"#;

/// A group that tells a webhook about every record.
fn with_webhook(sink: &Sink, settings: &str) -> String {
    format!(
        "{HTTP_ONLY}{settings}\nrule_groups:\n  - name: everything\n    messaging: {{ type: webhook, webhook_url: \"{}\", rate_per_s: 0, digest_window: 0s }}\n",
        sink.url("/hook")
    )
}

#[test]
fn sigterm_finishes_queued_work_and_ends_with_success() {
    const RECORDS: usize = 30;
    let sink = Sink::start([Script::Hang]);
    let settings = "async: { queue_size: 100, workers: 2, timeout: 60s }\nshutdown: { drain_timeout: 60s }";
    let mut daemon = Daemon::start(&with_webhook(&sink, settings));
    for n in 0..RECORDS {
        assert_eq!(daemon.post(&entry(&format!("n{n}"), "read", "a")), 204);
    }
    wait_until("the workers are busy", || sink.count() == 2);
    daemon.signal(Signal::SIGTERM);
    wait_until("the listener is closed", || TcpStream::connect(("127.0.0.1", daemon.http())).is_err());
    assert!(daemon.is_alive(), "work is left");
    sink.resume();
    let ended = daemon.wait_end();
    assert!(ended.status.success(), "{:?}: {}", ended.status, ended.stderr);
    assert_eq!(sink.count(), RECORDS);
}

#[test]
fn sigterm_ends_in_time_and_says_what_is_left() {
    let sink = Sink::start([Script::Hang]);
    let settings =
        "async: { queue_size: 100, workers: 1, timeout: 300s }\nshutdown: { drain_timeout: 300ms }";
    let mut daemon = Daemon::start(&with_webhook(&sink, settings));
    for n in 0..7 {
        assert_eq!(daemon.post(&entry(&format!("n{n}"), "read", "a")), 204);
    }
    wait_until("the worker is busy", || sink.count() == 1);
    let ended = daemon.terminate();
    let report = ended.stderr.lines().find(|line| line.contains("left") || line.contains("dropped"));
    let report = report.unwrap_or_else(|| panic!("nothing is said about what is left: {}", ended.stderr));
    assert!(
        report.contains('6') || report.contains('7'),
        "how many tasks, with or without the one under way: {report}"
    );
    assert!(ended.status.code().is_some(), "it ends by itself: {:?}", ended.status);
}

#[test]
fn sigint_ends_it_too() {
    let mut daemon = Daemon::start(&format!("{HTTP_ONLY}{EVERYTHING}"));
    daemon.signal(Signal::SIGINT);
    let ended = daemon.wait_end();
    assert!(ended.status.success(), "{:?}: {}", ended.status, ended.stderr);
}

#[test]
fn a_stream_is_read_to_its_end_and_reset_when_the_program_stops() {
    let mut daemon = Daemon::start(&format!("{WITH_TCP}{EVERYTHING}"));
    let mut stream = send::tcp(daemon.audit());
    for n in 0..500 {
        send::line(&mut stream, entry(&format!("n{n}"), "read", "a").as_bytes());
    }
    daemon.wait_received(500);
    assert!(daemon.terminate().status.success());
    assert_eq!(daemon.lines("everything.log").len(), 500);
    let first_write = stream.write_all(b"{}\n");
    assert!(
        first_write.is_err(),
        "the sender learns it with its first write, and sends the record again elsewhere"
    );
}

#[test]
fn five_mistakes_are_five_messages_and_nothing_is_bound() {
    let wrong = r#"
vault: { audit_protocol: tpc, audit_address: "127.0.0.1:{audit}" }
listen:
  http: { address: "127.0.0.1:{http}" }
  admin: { adress: "127.0.0.1:{admin}" }
async: { queue_size: -3 }
shutdown: { drain_timeout: 10 parsecs }
rule_groups:
  - name: deletions
    rules:
      - 'Request.Operaton == "delete"'
    log_file: { file_path: "{dir}/deletions.log" }
"#;
    let plan = Plan::new(wrong);
    let ended = plan.run(&["serve"]);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    for part in ["audit_protocol", "adress", "queue_size", "drain_timeout", "Operaton"] {
        assert!(ended.stderr.contains(part), "{part} is named in:\n{}", ended.stderr);
    }
    for cure in ["tcp", "address", "Request.Operation"] {
        assert!(ended.stderr.contains(cure), "the cure {cure:?} is named in:\n{}", ended.stderr);
    }
    for place in ["config.yaml:2", "config.yaml:5", "config.yaml:6", "config.yaml:7", "config.yaml:11"] {
        assert!(ended.stderr.contains(place), "the place {place:?} is named in:\n{}", ended.stderr);
    }
    assert!(!plan.path("deletions.log").exists(), "nothing was opened");
    let checked = plan.run(&["check"]);
    assert!(!checked.status.success());
    let said = format!("{}{}", checked.stdout, checked.stderr);
    for part in ["audit_protocol", "adress", "queue_size", "drain_timeout", "Operaton"] {
        assert!(said.contains(part), "{part} is named in:\n{said}");
    }
}

#[test]
fn check_accepts_what_serve_accepts() {
    let checked = Plan::new(&format!("{WITH_UDP}{EVERYTHING}")).run(&["check"]);
    assert!(checked.status.success(), "{}{}", checked.stdout, checked.stderr);
}

#[test]
fn a_taken_port_is_said_and_nothing_else_stays_bound() {
    let plan = Plan::new(&format!("{WITH_UDP}{EVERYTHING}"));
    let [http, audit, admin] = plan.ports();
    let _taken = UdpSocket::bind(("127.0.0.1", audit)).expect("free");
    let ended = plan.run(&["serve"]);
    assert!(!ended.status.success());
    assert!(ended.stderr.contains(&audit.to_string()), "the address is named: {}", ended.stderr);
    for port in [http, admin] {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}

#[test]
fn a_start_right_after_a_stop_finds_its_ports_free() {
    let plan = Plan::new(&format!("{WITH_TCP}{EVERYTHING}"));
    let [_, audit, _] = plan.ports();
    let mut first = plan.start();
    let mut stream = send::tcp(audit);
    send::line(&mut stream, entry("first", "read", "a").as_bytes());
    first.wait_received(1);
    assert!(first.terminate().status.success());
    let mut second = first.again();
    let mut stream = send::tcp(audit);
    send::line(&mut stream, entry("second", "read", "a").as_bytes());
    second.wait_received(1);
    assert!(second.terminate().status.success());
    assert_eq!(second.lines("everything.log").len(), 2);
}

#[test]
fn running_out_of_file_descriptors_is_survived() {
    let mut daemon = Plan::new(&format!("{WITH_TCP}{EVERYTHING}")).open_files_max(64).start();
    let mut kept = daemon.client();
    assert_eq!(
        kept.post("/v1/audit", entry("before", "read", "a").as_bytes()).expect("an answer").status,
        204
    );
    let crowd: Vec<TcpStream> =
        (0..150).filter_map(|_| TcpStream::connect(("127.0.0.1", daemon.http())).ok()).collect();
    assert!(crowd.len() > 64, "the kernel takes connections for the program");
    // UDP and streams that are open go on meanwhile; the crowd may have pushed out the idle connection.
    let _ = kept.post("/v1/audit", entry("meanwhile", "read", "a").as_bytes());
    assert!(daemon.is_alive());
    wait_until("it is counted", || {
        let counted = ["accept_errors_total", "connections_closed_total"].map(|name| daemon.try_sum(name));
        counted.into_iter().flatten().sum::<f64>() > 0.0
    });
    drop(crowd);
    wait_until("newcomers are served again", || {
        let answer = Client::connect(daemon.http())
            .and_then(|mut c| c.post("/v1/audit", entry("after", "read", "a").as_bytes()));
        answer.is_ok_and(|a| a.status == 204)
    });
    assert!(daemon.is_alive());
    assert!(daemon.lines("everything.log").iter().any(|line| line.contains("\"after\"")));
}

#[test]
fn a_newcomer_takes_the_place_of_the_longest_idle_connection() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}limits: {{ connections_max: 8 }}\n{EVERYTHING}"));
    let record = entry("a", "read", "a");
    let mut clients: Vec<Client> = (0..30).map(|_| daemon.client()).collect();
    let last = clients.last_mut().expect("thirty");
    assert_eq!(last.post("/v1/audit", record.as_bytes()).expect("an answer").status, 204);
    assert!(clients[0].is_closed(), "the first to come was idle for longest");
    assert!(daemon.sum("connections_closed_total") >= 22.0);
}

#[test]
fn slow_clients_are_cut_off_and_hold_nobody_up() {
    let limits = "limits: { head_timeout: 300ms, body_timeout: 300ms, idle_timeout: 600ms }";
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{limits}\n{EVERYTHING}"));
    let mut slow: Vec<Client> = Vec::new();
    for start in
        ["", "POST /v1/au", "POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"type\":"]
    {
        for _ in 0..20 {
            let mut client = daemon.client();
            client.send_raw(start.as_bytes()).expect("sent");
            slow.push(client);
        }
    }
    assert_eq!(daemon.post(&entry("a", "read", "a")), 204);
    for mut client in slow {
        // Either an answer and the end, or just the end.
        match client.read_answer() {
            Ok(answer) => assert!(answer.status == 408 && client.is_closed(), "{answer:?}"),
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{e}")
            }
        }
    }
    assert_eq!(daemon.lines("everything.log").len(), 1);
}

#[test]
fn systemd_is_told_of_readiness_and_the_watchdog_is_fed() {
    let plan = Plan::new(&format!("{HTTP_ONLY}{EVERYTHING}"));
    let path = plan.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a deadline");
    let said = Arc::new(Mutex::new(Vec::<String>::new()));
    let (hear, stop) = (Arc::clone(&said), Arc::new(Mutex::new(false)));
    let stopped = Arc::clone(&stop);
    let ear = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while !*stopped.lock().expect("no panic while held") {
            if let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                hear.lock().expect("no panic while held").extend(text.lines().map(str::to_owned));
            }
        }
    });
    let count = |what: &str| said.lock().expect("no panic while held").iter().filter(|l| *l == what).count();
    let mut daemon =
        plan.env("NOTIFY_SOCKET", path.display().to_string()).env("WATCHDOG_USEC", "3000000").start();
    wait_until("READY=1", || count("READY=1") == 1);
    wait_until("signs of life", || count("WATCHDOG=1") >= 2);
    assert_eq!(daemon.post(&entry("a", "read", "a")), 204);
    let ended = daemon.terminate();
    assert!(ended.status.success());
    assert!(happens_within(Duration::from_secs(5), || count("STOPPING=1") == 1), "STOPPING=1: {said:?}");
    *stop.lock().expect("no panic while held") = true;
    ear.join().expect("the listening thread");
}

#[test]
fn the_admin_listener_tells_of_life_readiness_and_metrics() {
    let daemon = Daemon::start(&format!("{HTTP_ONLY}{EVERYTHING}"));
    for path in ["/livez", "/readyz", "/healthz", "/readyz?verbose"] {
        assert_eq!(daemon.admin(path).status, 200, "{path}");
    }
    let metrics = daemon.admin("/metrics");
    assert!(metrics.header("content-type").is_some_and(|t| t.starts_with("text/plain; version=0.0.4")));
    assert!(metrics.text().contains("# TYPE vault_audit_filter_records_received_total counter"));
    assert_eq!(daemon.admin("/v1/audit").status, 404, "records do not come this way");
    assert_eq!(daemon.client().get("/metrics").expect("an answer").status, 404, "and metrics not that way");
    let version = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(daemon.metric(&version), 1.0);
    assert!(daemon.metric("start_time_seconds") > 1.7e9);
}

#[test]
fn diagnostics_hold_neither_records_nor_control_characters() {
    let mut daemon = Daemon::start(&format!("{WITH_TCP}{EVERYTHING}"));
    for record in
        ["{\"type\":\"very-private \u{1b}[31m", "\u{1b}]0;title\u{7} very-private", "{\"very-private\":01}"]
    {
        assert_eq!(daemon.post(record), 204);
        send::line(&mut send::tcp(daemon.audit()), record.as_bytes());
    }
    let mut client = daemon.client();
    client.send_raw(b"GET /\x1b[31mvery-private HTTP/1.1\r\n\r\n").expect("sent");
    assert!(client.read_answer().is_ok_and(|answer| answer.status >= 400));
    daemon.wait_received(6);
    let said = daemon.terminate().stderr;
    assert!(!said.contains("very-private"), "{said}");
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
}
