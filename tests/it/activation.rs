//! Sockets that systemd passes: which listener they become, what is wrong with them, and that a restart under load loses nothing.

pub(crate) mod activator;
mod senders;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::{Daemon, HTTP_ONLY, Plan, WITH_TCP, WITH_UDP, entry};
use crate::support::{free_port, send, wait_until};
use activator::Activator;
use senders::{Sender, Sent};

const EVERYTHING: &str = r#"
rule_groups:
  - name: everything
    log_file: { file_path: "{dir}/everything.log", max_size: 1000 }
"#;

/// Restarts in one test.
const RESTARTS: usize = 5;

fn plan(listeners: &str) -> Plan {
    Plan::new(&format!("{listeners}{EVERYTHING}"))
}

/// How often each record stands in the log file.
fn written(daemon: &Daemon) -> BTreeMap<String, u64> {
    let mut times = BTreeMap::new();
    for line in daemon.lines("everything.log") {
        let record: serde_json::Value = serde_json::from_str(&line).expect("whole records");
        *times.entry(record["request"]["id"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    times
}

/// Stops and starts the program again and again while the senders go on, then ends both. What each has sent.
fn restart_under(
    activator: &mut Activator,
    mut daemon: Daemon,
    senders: Vec<Sender>,
) -> (Daemon, Vec<(&'static str, Sent)>) {
    let progress = |senders: &[Sender]| {
        let before: Vec<u64> = senders.iter().map(Sender::sent).collect();
        wait_until("every sender has sent some more", || {
            senders.iter().zip(&before).all(|(sender, before)| sender.sent() >= before + 20)
        });
    };
    progress(&senders);
    for _ in 0..RESTARTS {
        let ended = daemon.terminate();
        assert!(ended.status.success(), "{}", ended.stderr);
        activator.settle();
        daemon = activator.again(daemon);
        progress(&senders);
    }
    let sent: Vec<_> = senders.into_iter().map(Sender::stop).collect();
    if activator.keeps() {
        // What is left unread at the stop is for the next process, and there is none.
        let all: u64 = sent.iter().map(|(_, sent)| sent.records).sum();
        wait_until("everything is written", || daemon.lines("everything.log").len() as u64 >= all);
    }
    // The listeners are read to their end, and the datagrams too.
    let ended = daemon.terminate();
    assert!(ended.status.success(), "{}", ended.stderr);
    (daemon, sent)
}

/// The numbers of a sender's records that are missing, and how many lines are too many.
fn compare(times: &BTreeMap<String, u64>, name: &str, sent: &Sent) -> (Vec<u64>, u64) {
    let of = |n| times.get(&format!("{name}-{n}")).copied().unwrap_or(0);
    let missing: Vec<u64> = (0..sent.records).filter(|n| of(*n) == 0).collect();
    let doubled = (0..sent.records).map(|n| of(n).saturating_sub(1)).sum();
    let (records, resent) = (sent.records, &sent.resent);
    eprintln!("{name}: {records} sent, resent {resent:?}, missing {missing:?}, {doubled} twice");
    (missing, doubled)
}

#[test]
fn passed_sockets_are_served_in_the_place_of_the_configured_ones() {
    let plan = plan(WITH_TCP);
    let (path, [http, audit, _]) = (plan.path("passed.sock"), plan.ports());
    let (other_http, other_tcp) = (free_port(), free_port());
    let mut activator =
        Activator::default().tcp("http", other_http).tcp("tcp", other_tcp).unix("unix", &path);
    let mut daemon = activator.start(plan);
    let mut client = crate::support::http::Client::connect(other_http).expect("it listens");
    assert_eq!(
        client.post("/v1/audit", entry("by-http", "read", "a").as_bytes()).expect("answered").status,
        204
    );
    send::line(&mut send::tcp(other_tcp), entry("by-tcp", "read", "a").as_bytes());
    send::line(&mut send::unix(&path), entry("by-unix", "read", "a").as_bytes());
    daemon.wait_received(3);
    for port in [http, audit] {
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "{port} was not bound as well");
    }
    let said = daemon.stderr();
    for line in [
        format!("listening: HTTP on 127.0.0.1:{other_http} (passed)"),
        format!("listening: TCP on 127.0.0.1:{other_tcp} (passed)"),
        format!("listening: Unix stream on {} (passed)", path.display()),
        "and is what counts".to_owned(),
    ] {
        assert!(said.contains(&line), "{line:?} in {said}");
    }
    let shown = daemon.admin("/status.json").text().to_owned();
    assert!(
        shown.contains(&format!("127.0.0.1:{other_http}\""))
            && !shown.contains(&format!("127.0.0.1:{http}\"")),
        "{shown}"
    );
    assert!(daemon.terminate().status.success());
    assert_eq!(written(&daemon).len(), 3);
    // Both are systemd's: the file stays, and who connects waits.
    assert!(path.exists());
    UnixStream::connect(&path).expect("still held");
    TcpStream::connect((Ipv4Addr::LOCALHOST, other_http)).expect("still held");
}

#[test]
fn without_names_kind_and_address_decide() {
    for name in ["", "vault-audit-filter.socket"] {
        let plan = plan(WITH_UDP);
        let (path, [http, audit, admin]) = (plan.path("audit.sock"), plan.ports());
        let (activator, _) =
            Activator::default().tcp(name, admin).tcp(name, http).unix(name, &path).udp(name, audit);
        let mut activator = activator;
        let mut daemon = activator.start(plan);
        assert_eq!(daemon.post(&entry("a", "read", "a")), 204);
        send::udp(audit).send(entry("b", "read", "b").as_bytes()).expect("sent");
        send::line(&mut send::unix(&path), entry("c", "read", "c").as_bytes());
        daemon.wait_received(3);
        assert!(!daemon.stderr().contains("what counts"), "no address differs");
        assert!(daemon.terminate().status.success());
    }
}

#[test]
fn a_passed_control_socket_is_served_and_stays() {
    let plan = plan(&format!("{HTTP_ONLY}control: {{ socket: \"{{dir}}/control.sock\" }}\n"));
    let path = plan.path("control.sock");
    let mut activator = Activator::default().unix("control", &path);
    // As systemd makes it unless told otherwise.
    let allow = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    allow(0o666);
    let other = self::plan(&format!("{HTTP_ONLY}control: {{ socket: {} }}\n", path.display()));
    let told = activator.around(|words| other.under(words).run(&["serve"])).stderr;
    assert!(told.contains("SocketMode=0600"), "{told}");
    allow(0o600);
    let mut daemon = activator.start(plan);
    let answer = daemon.control("control.sock", "GET", "/v1/status", "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(daemon.terminate().status.success());
    assert!(path.exists(), "it is not ours to remove");
    daemon = activator.again(daemon);
    let answer = daemon.control("control.sock", "GET", "/v1/status", "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Runs `serve` with these sockets to its early end, and gives its diagnostics.
#[track_caller]
fn refused(plan: Plan, activator: Activator) -> String {
    let mut activator = activator;
    let ended = activator.around(|words| plan.under(words).run(&["serve"]));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    ended.stderr
}

#[test]
fn what_does_not_fit_stops_the_start_and_is_told_what_to_write() {
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let datagrams = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let connected = {
        let listener = free();
        TcpStream::connect(listener.local_addr().expect("bound")).expect("connected")
    };
    let dir = crate::support::TempDir::new("passed");
    let file = std::fs::File::create(dir.join("file")).expect("a file");
    let cases = [
        (Activator::default().any("http", datagrams()), "write ListenStream=127.0.0.1:PORT"),
        (Activator::default().any("udp", free()), "write ListenDatagram=127.0.0.1:PORT"),
        (Activator::default().any("tcp", free()), "write vault.audit_protocol: tcp"),
        (Activator::default().unix("unix", &dir.join("u")), "write listen.unix.path"),
        (Activator::default().unix("control", &dir.join("c")), "write control.socket"),
        (Activator::default().any("", free()), "write FileDescriptorName=http or admin or tcp"),
        (Activator::default().any("htpp", datagrams()), "write FileDescriptorName=udp"),
        (Activator::default().any("http", connected), "Accept=no"),
        (Activator::default().any("http", file), "is no TCP, UDP or Unix stream socket"),
    ];
    for (activator, cure) in cases {
        let said = refused(plan(HTTP_ONLY), activator);
        assert!(said.contains(cure), "{cure:?} in {said}");
    }
    // All of them at once.
    let two = Activator::default().any("udp", datagrams()).any("tcp", free());
    let said = refused(plan(HTTP_ONLY), two);
    assert!(said.contains("audit_protocol: tcp") && said.contains("audit_protocol: udp"), "{said}");
    let twice = Activator::default().any("udp", datagrams()).any("udp", datagrams());
    let said = refused(plan(WITH_UDP), twice);
    assert!(said.contains("pass one of them only"), "{said}");
}

#[test]
fn a_passed_socket_beyond_loopback_needs_tokens_too() {
    let everywhere = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a listener");
    let said = refused(plan(HTTP_ONLY), Activator::default().any("http", everywhere()));
    assert!(said.contains("no token is set") && said.contains("tokens_file"), "{said}");
    let with_tokens = HTTP_ONLY.replace("{http}\" }", "{http}\", tokens: [\"0123456789abcdef\"] }");
    let mut daemon = Activator::default().any("http", everywhere()).start(plan(&with_tokens));
    // Nor may a reload take them away.
    let without = daemon.fill(&format!("{HTTP_ONLY}{EVERYTHING}"));
    std::fs::write(daemon.path("config.yaml"), without).expect("written");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the reload is refused", || daemon.stderr().contains("not reloaded"));
    assert!(daemon.stderr().contains("no token is set"));
    assert!(daemon.terminate().status.success());
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let mut daemon = plan(HTTP_ONLY).env("LISTEN_PID", "1").env("LISTEN_FDS", "3").start();
    assert_eq!(daemon.post(&entry("a", "read", "a")), 204);
    assert!(daemon.terminate().status.success());
}

#[test]
fn restarts_with_kept_connections_lose_nothing_and_nobody_notices() {
    let plan = plan(WITH_TCP);
    let (path, notify, [http, audit, _]) = (plan.path("passed.sock"), plan.path("notify"), plan.ports());
    let mut activator = Activator::default().tcp("http", http).tcp("tcp", audit).unix("unix", &path);
    let keeper = activator.keep(&notify);
    let daemon =
        activator.start(plan.env("NOTIFY_SOCKET", notify.display().to_string()).env("FDSTORE", "100"));
    let senders = vec![
        Sender::tcp("tcp", audit, Duration::from_micros(500)),
        Sender::tcp("slow", audit, Duration::from_millis(7)),
        Sender::unix("unix", path, Duration::from_millis(1)),
        Sender::http("http", http, Duration::from_millis(2)),
    ];
    let (daemon, sent) = restart_under(&mut activator, daemon, senders);
    let times = written(&daemon);
    for (name, sent) in sent {
        assert_eq!(compare(&times, name, &sent), (Vec::new(), 0), "{name}: every record once");
        assert!(sent.resent.is_empty(), "{name}: no connection was closed");
    }
    assert_eq!(activator.kept, 4 * RESTARTS, "each sender's one connection at each restart");
    drop(keeper);
}

#[test]
fn restarts_with_passed_sockets_lose_no_datagram() {
    let plan = plan(WITH_UDP);
    let [http, audit, _] = plan.ports();
    let (activator, buffer_bytes) = Activator::default().tcp("http", http).udp("udp", audit);
    let mut activator = activator;
    // A datagram of 1 KB takes some 2.3 KB of the buffer; it is to hold those of three seconds.
    let per_s = (buffer_bytes / 2300 / 3).clamp(20, 2000) as u32;
    let daemon = activator.start(plan);
    let senders = vec![
        Sender::udp("udp", audit, Duration::from_secs(1) / per_s),
        Sender::http("http", http, Duration::from_millis(2)),
    ];
    let (daemon, sent) = restart_under(&mut activator, daemon, senders);
    let times = written(&daemon);
    for (name, sent) in sent {
        let (missing, doubled) = compare(&times, name, &sent);
        assert!(missing.is_empty(), "{name}");
        // An answer on its way when the connection was closed.
        assert!(doubled <= sent.resent.len() as u64, "{name}");
    }
}

#[test]
fn restarts_without_kept_connections_reset_streams_so_that_records_are_sent_again() {
    let plan = plan(WITH_TCP);
    let (path, [http, audit, _]) = (plan.path("passed.sock"), plan.ports());
    let mut activator = Activator::default().tcp("http", http).tcp("tcp", audit).unix("unix", &path);
    let daemon = activator.start(plan);
    let senders = vec![
        Sender::tcp("tcp", audit, Duration::from_micros(500)),
        Sender::unix("unix", path, Duration::from_millis(1)),
        Sender::http("http", http, Duration::from_millis(2)),
    ];
    let (daemon, sent) = restart_under(&mut activator, daemon, senders);
    let times = written(&daemon);
    for (name, sent) in sent {
        let (missing, doubled) = compare(&times, name, &sent);
        assert!(doubled <= sent.resent.len() as u64, "{name}");
        // What was written between the last read and the reset is lost: the sender takes it for sent, and learns of the reset with the
        // record behind it. With answers nothing is.
        for n in &missing {
            let noticed = sent.resent.iter().find(|resent| *resent > n).expect("it was noticed");
            assert!((*n..*noticed).all(|n| missing.contains(&n)), "{name}-{n} is not just before {noticed}");
        }
        if name == "http" {
            assert!(missing.is_empty(), "{name}");
        } else {
            assert!(sent.resent.len() >= RESTARTS, "{name}: each restart was noticed");
        }
    }
}
