//! TLS on the HTTP listener, with the real program: senders of both versions, hostile ones, certificates that change.

mod attacks;
mod certificates;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned};

use crate::activation::activator::Activator;
use crate::harness::{Daemon, Plan, entry};
use crate::support::http::Client;
use crate::support::openbao::{OpenBao, program};
use crate::support::sink::{Script, Sink};
use crate::support::{TempDir, left_out, wait_until};

/// HTTPS and admin listeners; the pair is `tls.pem` and `tls.key`.
const HTTPS: &str = r#"
vault: { audit_protocol: none }
listen:
  http:
    address: "127.0.0.1:{http}"
    tls: { certificate: "{dir}/tls.pem", key: "{dir}/tls.key" }
  admin: { address: "127.0.0.1:{admin}" }
control: { socket: "{dir}/c.sock" }
quarantine: { log_file: { file_path: "{dir}/quarantine.log" } }
"#;

/// Every record goes to `everything.log`.
const EVERYTHING: &str = r#"
rule_groups:
  - name: everything
    rules: ['true']
    log_file: { file_path: "{dir}/everything.log" }
"#;

/// A file of the test data.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/listener").join(name)
}

/// The certificate that a pair of the test data presents.
fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(data(name)).expect("a certificate")
}

/// Puts files of the test data where the configuration looks for them.
fn install(directory: &Path, certificate: &str, key: &str) {
    for (from, to) in [(certificate, "tls.pem"), (key, "tls.key")] {
        let to = directory.join(to);
        std::fs::copy(data(from), &to).expect("copied");
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    }
}

/// A plan with the first pair in place.
fn plan(yaml: &str) -> Plan {
    let plan = Plan::new(yaml);
    install(&plan.path(""), "first.pem", "first.key");
    plan
}

fn start(more: &str) -> Daemon {
    plan(&format!("{HTTPS}{more}{EVERYTHING}")).start()
}

type Tls<S = TcpStream> = StreamOwned<ClientConnection, S>;

/// What a client that believes the test data's authority begins with.
fn client_settings(version: &'static rustls::SupportedProtocolVersion, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate("authority.pem")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut settings = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    settings.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(settings)
}

fn session(settings: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::clone(settings), name).expect("a session")
}

fn raw(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the listener takes connections");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a deadline");
    stream
}

/// Makes the handshake over `stream`.
fn handshake<S: Read + Write>(settings: &Arc<ClientConfig>, mut stream: S) -> io::Result<Client<Tls<S>>> {
    let mut session = session(settings);
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(Client::over(StreamOwned::new(session, stream)))
}

fn connect(port: u16) -> Client<Tls> {
    handshake(&client_settings(&rustls::version::TLS13, &["http/1.1"]), raw(port)).expect("a handshake")
}

fn presented<S: Read + Write>(client: &Client<Tls<S>>) -> CertificateDer<'static> {
    let chain = client.stream().conn.peer_certificates().expect("a chain");
    chain[0].clone().into_owned()
}

#[track_caller]
fn post<S: Read + Write>(client: &mut Client<Tls<S>>, record: &str) {
    let answer = client.post("/v1/audit", record.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 204, "{}", answer.text());
}

/// Ends the threads of a test when it ends, also when it fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A record of at least that many bytes.
fn large(id: &str, bytes: usize) -> String {
    format!(r#"{{"type":"request","request":{{"id":"{id}","path":"{}"}}}}"#, "x".repeat(bytes))
}

#[test]
fn a_passed_socket_speaks_tls_and_its_connections_end_with_the_process() {
    let plan = plan(&format!("{HTTPS}{EVERYTHING}"));
    let (notify, [http, ..]) = (plan.path("notify"), plan.ports());
    let mut activator = Activator::default().tcp("http", http);
    let keeper = activator.keep(&notify);
    let plan = plan.env("NOTIFY_SOCKET", notify.display().to_string()).env("FDSTORE", "100");
    let mut daemon = activator.start(plan);
    for n in 0..3 {
        let mut client = connect(http);
        post(&mut client, &entry(&format!("a{n}"), "read", "a"));
        assert!(daemon.terminate().status.success());
        activator.settle();
        // Its keys are gone, so it is told to come again, and waits for the next process then.
        let ended = client.post("/v1/audit", entry("late", "read", "a").as_bytes());
        assert!(ended.is_err(), "no answer from nobody");
        daemon = activator.again(daemon);
        assert_eq!(activator.kept, 0, "no session was left with systemd");
        post(&mut connect(http), &entry(&format!("b{n}"), "read", "a"));
    }
    assert!(daemon.stderr().contains("HTTPS on"), "{}", daemon.stderr());
    let lines = daemon.lines("everything.log");
    assert_eq!(lines.len(), 6, "{lines:?}");
    drop(keeper);
}

#[test]
fn records_come_in_over_both_versions_on_a_kept_connection() {
    let mut daemon = start("");
    let mut sent = Vec::new();
    for (version, number) in [
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
    ] {
        for alpn in [&["h2", "http/1.1"][..], &[]] {
            let mut client =
                handshake(&client_settings(version, alpn), raw(daemon.http())).expect("a handshake");
            for n in 0..20 {
                let record = entry(&format!("{number:?}-{}-{n}", alpn.len()), "read", "a");
                post(&mut client, &record);
                sent.push(record);
            }
            let session = &client.stream().conn;
            assert_eq!(session.protocol_version(), Some(number));
            assert_eq!(session.alpn_protocol(), (!alpn.is_empty()).then_some(&b"http/1.1"[..]));
            assert_eq!(presented(&client), certificate("first.pem"));
        }
    }
    assert_eq!(daemon.lines("everything.log"), sent);
    assert_eq!(daemon.metric("tls_certificate_expiry_timestamp_seconds"), 4_922_899_200.0);
    assert_eq!(daemon.metric(r#"connections_closed_total{listener="http",reason="tls"}"#), 0.0);
    let said = daemon.stderr();
    assert!(said.contains("listening: HTTPS on 127.0.0.1:"), "{said}");
    daemon.terminate();
    assert!(!daemon.stderr().contains("TLS connection"), "{}", daemon.stderr());
}

#[test]
fn large_bodies_pipelined_and_packed_ones_come_in_whole() {
    let daemon = start("");
    let mut client = connect(daemon.http());
    let mut sent = Vec::new();
    for megabytes in [1, 5, 20] {
        let record = large("large", megabytes << 20);
        post(&mut client, &record);
        sent.push(record);
    }
    let many: Vec<String> = (0..2_000).map(|n| entry(&format!("m{n}"), "read", "a")).collect();
    post(&mut client, &many.join("\n"));
    sent.extend(many);
    let packed = large("packed", 3 << 20);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(packed.as_bytes()).expect("packed");
    let body = gzip.finish().expect("packed");
    let answer =
        client.request("POST", "/v1/audit", &[("Content-Encoding", "gzip")], &body).expect("an answer");
    assert_eq!(answer.status, 204);
    sent.push(packed);
    // Thirty requests in one write.
    let pipelined: Vec<String> = (0..30).map(|n| entry(&format!("p{n}"), "read", "a")).collect();
    let requests: String = pipelined
        .iter()
        .map(|r| format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{r}", r.len()))
        .collect();
    client.send_raw(requests.as_bytes()).expect("sent");
    for n in 0..pipelined.len() {
        assert_eq!(client.read_answer().unwrap_or_else(|e| panic!("answer {n}: {e}")).status, 204);
    }
    sent.extend(pipelined);
    assert!(daemon.lines("everything.log") == sent, "all of them, in order, byte for byte");
    wait_until("nothing is held", || daemon.metric("buffered_bytes") == 0.0);
}

/// So many senders at once, each with a connection of its own over which it sends `each` records, and then `last`.
fn send_from_many(port: u16, senders: usize, each: usize, last: impl Fn(usize, &mut Client<Tls>) + Sync) {
    std::thread::scope(|scope| {
        for sender in 0..senders {
            let last = &last;
            scope.spawn(move || {
                let mut client = connect(port);
                for n in 0..each {
                    post(&mut client, &entry(&format!("s{sender}-{n}"), "update", "a"));
                }
                last(sender, &mut client);
            });
        }
    });
}

#[test]
fn many_senders_at_once_are_all_acked() {
    const SENDERS: usize = 16;
    const EACH: usize = 100;
    let daemon = start("");
    send_from_many(daemon.http(), SENDERS, EACH, |_, _| {});
    let lines: std::collections::BTreeSet<String> = daemon.lines("everything.log").into_iter().collect();
    assert_eq!((lines.len(), daemon.lines("everything.log").len()), (SENDERS * EACH, SENDERS * EACH));
    daemon.wait_received(SENDERS * EACH);
}

/// The replies come from the thread that has ended the store's sync, through the session of the connection.
#[test]
fn replies_that_wait_for_the_disk_are_sealed_by_whoever_sends_them() {
    const SENDERS: usize = 8;
    const EACH: usize = 40;
    let sink = Sink::start([Script::ok()]);
    let url = sink.url("/hook");
    let daemon = plan(&format!(
        "{HTTPS}
async:
  durable: {{ enabled: true, dir: \"{{dir}}/store\", max_bytes: 64MiB }}
rule_groups:
  - name: all
    rules: ['true']
    messaging: {{ type: webhook, webhook_url: \"{url}\", format: raw, rate_per_s: 0 }}
"
    ))
    .start();
    send_from_many(daemon.http(), SENDERS, EACH, |sender, client| {
        // A reply that is parked while the next request is there already.
        let record = entry(&format!("s{sender}-pair"), "update", "a");
        let request =
            format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{record}", record.len());
        client.send_raw(request.repeat(2).as_bytes()).expect("sent");
        for _ in 0..2 {
            assert_eq!(client.read_answer().expect("an answer").status, 204);
        }
    });
    wait_until("all are delivered", || sink.count() >= SENDERS * (EACH + 2));
    assert_eq!(sink.count(), SENDERS * (EACH + 2));
}

#[test]
fn the_end_of_a_connection_is_told() {
    let daemon = start("limits: { idle_timeout: 300ms }\n");
    let record = entry("last", "read", "a");
    let mut asked = connect(daemon.http());
    let answer = asked.request("POST", "/v1/audit", &[("Connection", "close")], record.as_bytes());
    assert_eq!(answer.expect("an answer").status, 204);
    let mut refused = connect(daemon.http());
    refused.send_raw(b"POST /v1/audit HTTP/9.9\r\n\r\n").expect("sent");
    assert!(refused.read_answer().expect("an answer").status >= 400);
    let mut idle = connect(daemon.http());
    post(&mut idle, &record);
    for (what, client) in [("asked for", &mut asked), ("refused", &mut refused), ("idle", &mut idle)] {
        // Without close_notify this is an error.
        let mut rest = [0; 1];
        assert_eq!(client.read_some(&mut rest).unwrap_or_else(|e| panic!("{what}: {e}")), 0, "{what}");
    }
    // A client that says that it sends nothing more is still answered.
    let mut client = connect(daemon.http());
    let head =
        format!("POST /v1/audit HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{record}", record.len());
    client.send_and_end(head.as_bytes());
    assert_eq!(client.read_answer().expect("an answer").status, 204);
    assert!(client.is_closed());
}

impl Client<Tls> {
    /// Sends bytes and close_notify in one go.
    fn send_and_end(&mut self, bytes: &[u8]) {
        let tls = self.stream_mut();
        tls.conn.writer().write_all(bytes).expect("taken");
        tls.conn.send_close_notify();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut tls.sock).expect("sent");
        }
    }
}

#[test]
fn bench_speaks_tls() {
    let daemon = start("");
    let to = format!("https://localhost:{}", daemon.http());
    let (authority, admin) = (data("authority.pem"), format!("127.0.0.1:{}", daemon.admin_port()));
    let authority = authority.display().to_string();
    let words = [
        "bench",
        "http",
        &to,
        "--ca-cert",
        &authority,
        "--rate",
        "500/s",
        "--connections",
        "3",
        "--admin",
        &admin,
    ];
    let ended =
        crate::harness::run_program(&[&words[..], &["--duration", "1s", "--format", "json"]].concat(), b"");
    let json: serde_json::Value = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", ended.stdout, ended.stderr));
    assert_eq!(json["statuses"], serde_json::json!({ "204": json["sent"] }), "{json}");
    assert_eq!(json["receiver"]["lost"], 0, "{json}");
    assert_eq!(daemon.lines("everything.log").len() as u64, json["sent"].as_u64().expect("a number"));
    // Nobody vouches for it there.
    let other =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/authority.pem").display().to_string();
    let ended =
        crate::harness::run_program(&["bench", "http", &to, "--ca-cert", &other, "--admin", &admin], b"");
    assert!(ended.status.code() == Some(1) && ended.stderr.contains("certificate"), "{}", ended.stderr);
    wait_until("it is counted", || {
        daemon.metric(r#"connections_closed_total{listener="http",reason="tls"}"#) == 1.0
    });
    assert!(daemon.stderr().contains("the peer gave up: "), "{}", daemon.stderr());
}

/// OpenBao believes the authority that `SSL_CERT_FILE` names.
#[test]
fn openbao_sends_over_tls() {
    let program = match program() {
        Ok(program) => program,
        Err(why) => return left_out("tls::openbao_sends_over_tls", &why),
    };
    let (dir, daemon) = (TempDir::new("openbao-tls"), start(""));
    let truth = dir.join("truth.log");
    let config = format!(
        "audit \"file\" \"truth\" {{ options {{ file_path = \"{}\" }} }}\n\
         audit \"http\" \"https\" {{ options {{ uri = \"https://127.0.0.1:{}/v1/audit\" }} }}\n",
        truth.display(),
        daemon.http()
    );
    let authority = data("authority.pem");
    let server =
        OpenBao::start_with(&program, dir.path(), &config, &[("SSL_CERT_FILE", authority.as_os_str())]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let mut api = server.api();
            scope.spawn(move || {
                for n in 0..50 {
                    let path = format!("secret/data/t{thread}/{n}");
                    api.root("POST", &path, r#"{"data":{"k":"v"}}"#);
                    api.root("GET", &path, "");
                }
            });
        }
    });
    let said = server.stop();
    let failures: Vec<&str> =
        said.lines().filter(|l| l.contains("failed to log") || l.contains("[ERROR]")).collect();
    assert!(failures.is_empty(), "OpenBao reports audit failures: {failures:#?}");
    let truth = crate::harness::whole_lines(&truth);
    assert!(truth.len() >= 4 * 50 * 2 * 2, "{} entries", truth.len());
    daemon.wait_received(truth.len());
    assert_eq!(daemon.lines("everything.log").len(), truth.len());
    assert_eq!(daemon.metric(r#"records_total{outcome="quarantined"}"#), 0.0);
    assert_eq!(daemon.metric(r#"connections_closed_total{listener="http",reason="tls"}"#), 0.0);
}
