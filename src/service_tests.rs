//! The gateway on real sockets, with a ledger in memory: what is acked, when, and by whom.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::*;
use crate::clock;
use crate::config::{self, Config, Limits};
use crate::evidence::{Evidence, Identity};
use crate::listener::{self, Endpoint, Listener, Pool, PoolOptions, UdpListener, UdpOptions};
use crate::log_file::{LogFiles, Quarantine};
use crate::metrics;
use crate::record::FieldPlan;
use crate::rule_group::{GroupRule, RuleGroup};
use crate::rules::{self, Rule};
use crate::side_effect::testing::MemoryLedger;
use crate::side_effect::{Ledger, Refused, SideEffects, SinkSettings, SinkSpec, Task};
use crate::sink::{DeliveryError, Sink};

/// What the store holds at most.
const RECORD_BYTES_MAX: usize = 100_000;
const PATIENCE: Duration = Duration::from_secs(60);
const MATCHING: &str = r#"{"type":"request","request":{"operation":"delete"}}"#;
const OTHER: &str = r#"{"type":"request","request":{"operation":"read"}}"#;

/// Never asked: there are no workers.
struct NoSink;

impl Sink for NoSink {
    fn name(&self) -> &'static str {
        "none"
    }

    fn deliver(&self, _: &Task, _: Instant) -> Result<(), DeliveryError> {
        Ok(())
    }
}

/// One group with a log file and a sink, behind an HTTP, a stream and a UDP listener.
struct Bench {
    dir: PathBuf,
    ledger: Arc<MemoryLedger>,
    registry: Arc<Registry>,
    pool: Pool<Gateway>,
    udp: UdpListener,
    http: SocketAddr,
    tcp: SocketAddr,
    udp_at: SocketAddr,
    _effects: SideEffects,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.udp.stop();
        self.pool.join();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn bench(ledger: MemoryLedger) -> Bench {
    bench_with(ledger, &Config::default())
}

/// It looks for what `config` asks for.
fn bench_with(ledger: MemoryLedger, config: &Config) -> Bench {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("vaf-service-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    let (ledger, registry) = (Arc::new(ledger), Arc::new(Registry::new()));
    let as_dyn: Arc<dyn Ledger> = Arc::clone(&ledger) as Arc<dyn Ledger>;
    let mut settings = config::SideEffects { workers: 0, ..config::SideEffects::default() };
    settings.durable.enabled = true;
    let (group, sink) = ("g".into(), Arc::new(NoSink));
    let spec = SinkSpec {
        group,
        sink,
        destination: "d".into(),
        rate_per_s: 0.0,
        digest: None,
        settings: SinkSettings::Test(0),
    };
    let effects = SideEffects::start(&settings, vec![spec], Some(&as_dyn), &registry).expect("no threads");
    let pipeline = pipeline(&dir, &effects, &registry, config).storing(as_dyn, RECORD_BYTES_MAX);
    let gateway = Arc::new(Gateway::new(
        Live::new(Arc::new(pipeline), Vec::new(), 1 << 20, Vec::new()),
        Arc::clone(&registry),
    ));
    let (http, tcp) = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).into();
    let at = |listener: &std::net::TcpListener| listener.local_addr().expect("bound");
    let (http_at, tcp_at) = (at(&http), at(&tcp));
    let endpoints = vec![
        Endpoint::new(Source::Http, Listener::Tcp(http)),
        Endpoint::new(Source::Tcp, Listener::Tcp(tcp)),
    ];
    let options = PoolOptions { threads: 3, ..PoolOptions::new(Limits::default()) };
    let pool = Pool::start(Arc::clone(&gateway), endpoints, options, &registry).expect("threads");
    let socket = listener::bind_udp("127.0.0.1:0").expect("a port");
    let udp_at = socket.local_addr().expect("bound");
    let udp = UdpListener::start(gateway, socket, UdpOptions::default(), &registry).expect("a thread");
    Bench { dir, ledger, registry, pool, udp, http: http_at, tcp: tcp_at, udp_at, _effects: effects }
}

fn pipeline(dir: &std::path::Path, effects: &SideEffects, registry: &Registry, config: &Config) -> Pipeline {
    let files = LogFiles::new();
    let open = |name: &str| files.open(&config::LogFile::at(dir.join(name)), registry).expect("a log file");
    let mut plan = FieldPlan::new();
    let text = r#"Request.Operation == "delete""#;
    let rule = Rule::compile(text, &mut plan, &rules::Limits::default()).expect("a rule");
    let group = RuleGroup {
        name: "g".into(),
        rules: vec![GroupRule::new(rule, registry.counter(&metrics::RULE_ERRORS, &["g", "1"]))],
        log_file: Some(open("g.log")),
        sinks: effects.queues_of("g"),
        matches: registry.counter(&metrics::GROUP_MATCHES, &["g"]),
    };
    let quarantine = Quarantine::new(open("quarantine.log"));
    let identity = Identity::wanted(config, &mut plan);
    let evidence = Evidence::new(identity, config, None, registry, clock::now());
    let pipeline = Pipeline::new(plan.build(), vec![group], None, quarantine, registry);
    pipeline.expect("a pipeline").looking_for(evidence)
}

impl Bench {
    fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.http).expect("the listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream
    }

    fn count(&self, series: &str) -> u64 {
        let text = self.registry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("vault_audit_filter_{series} ")));
        line.map_or(0, |value| value.parse().expect("a number"))
    }

    /// matched, unmatched, quarantined, refused
    fn outcomes(&self) -> [u64; 4] {
        ["matched", "unmatched", "quarantined", "refused"]
            .map(|outcome| self.count(&format!("records_total{{outcome=\"{outcome}\"}}")))
    }

    fn log_lines(&self) -> usize {
        std::fs::read_to_string(self.dir.join("g.log")).map_or(0, |text| text.lines().count())
    }

    fn refused_for(&self, reason: &str) -> u64 {
        self.count(&format!("records_refused_total{{reason=\"{reason}\"}}"))
    }
}

fn post(stream: &mut TcpStream, body: &str) {
    let head = format!("POST /v1/audit HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).expect("taken");
}

/// Reads one answer: its status and its text.
fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() >= length.map_or(0, |n| n.parse().expect("a length")) {
                return (head[9..12].parse().expect("a status"), text);
            }
        }
        let n = stream.read(&mut chunk).expect("an answer");
        assert!(n > 0, "closed after {text:?}");
        bytes.extend_from_slice(&chunk[..n]);
    }
}

fn eventually(what: &str, done: impl Fn() -> bool) {
    let until = clock::now() + PATIENCE;
    while !done() {
        assert!(clock::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn assert_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
    assert!(stream.read(&mut [0; 1]).is_err(), "answered too early");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
}

fn slow() -> (Bench, Sender<()>) {
    let (permits, disk) = bounded(100);
    (bench(MemoryLedger::slow(disk)), permits)
}

#[test]
fn a_record_is_acked_and_counted_when_its_tasks_are_durable_and_nobody_else_waits() {
    let (bench, permits) = slow();
    let mut first = bench.client();
    post(&mut first, MATCHING);
    eventually("its line is written", || bench.log_lines() == 1);
    assert_silent(&mut first);
    assert_eq!(bench.outcomes(), [0; 4]);
    // One thread is in the sync; the others take what needs no store, and hand over what does.
    let mut second = bench.client();
    post(&mut second, OTHER);
    assert_eq!(answer(&mut second).0, 204);
    let mut others: Vec<TcpStream> = (0..10).map(|_| bench.client()).collect();
    others.iter_mut().for_each(|client| post(client, &format!("{MATCHING}\n{OTHER}\n{MATCHING}\nno record")));
    eventually("their lines are written", || bench.log_lines() == 21);
    others.iter_mut().for_each(assert_silent);
    assert_eq!(bench.outcomes(), [0, 1, 0, 0]);
    permits.send(()).expect("room");
    assert_eq!(answer(&mut first), (204, "HTTP/1.1 204 No Content\r\n\r\n".to_owned()));
    // All that came meanwhile is one batch.
    permits.send(()).expect("room");
    for client in &mut others {
        assert_eq!(answer(client).0, 204);
    }
    assert_eq!(bench.outcomes(), [21, 11, 10, 0]);
    assert_eq!(bench.count("group_matches_total{group=\"g\"}"), 21);
    assert_eq!(bench.count("records_received_total{listener=\"http\"}"), 42);
    assert_eq!(bench.ledger.open_tasks(0).len(), 21);
    drop(permits);
    bench.ledger.assert_sound();
}

#[test]
fn a_store_that_takes_nothing_writes_nothing_and_says_so() {
    let bench = bench(MemoryLedger::default());
    let mut client = bench.client();
    for (refused, reason) in
        [(Refused::Full, "store_full"), (Refused::Broken, "store_broken"), (Refused::Closed, "store_closed")]
    {
        bench.ledger.refuse(Some(refused));
        post(&mut client, MATCHING);
        let (status, text) = answer(&mut client);
        assert_eq!(status, 503);
        assert!(text.contains("Retry-After: 1\r\n"), "{text}");
        assert_eq!(bench.refused_for(reason), 1);
    }
    // What needs no store is acked all the same.
    post(&mut client, OTHER);
    assert_eq!(answer(&mut client).0, 204);
    assert_eq!((bench.log_lines(), bench.outcomes()), (0, [0, 1, 0, 3]));
    bench.ledger.refuse(None);
    post(&mut client, MATCHING);
    assert_eq!(answer(&mut client).0, 204);
    assert_eq!((bench.log_lines(), bench.outcomes()), (1, [1, 1, 0, 3]));
}

#[test]
fn a_sync_that_fails_is_a_503_to_all_that_waited_for_it() {
    let (bench, permits) = slow();
    bench.ledger.fail_syncs(1);
    let mut first = bench.client();
    post(&mut first, MATCHING);
    eventually("its line is written", || bench.log_lines() == 1);
    permits.send(()).expect("room");
    let (status, text) = answer(&mut first);
    assert_eq!(status, 503);
    assert!(text.contains("Retry-After: 1\r\n"), "{text}");
    assert_eq!((bench.outcomes(), bench.refused_for("store_broken")), ([0, 0, 0, 1], 1));
    permits.send(()).expect("room");
    post(&mut first, MATCHING);
    assert_eq!(answer(&mut first).0, 204);
    assert_eq!(bench.outcomes(), [1, 0, 0, 1]);
    assert_eq!(bench.ledger.open_tasks(0).len(), 1);
}

#[test]
fn a_record_that_the_store_cannot_hold_is_too_large_where_it_has_to_be_stored() {
    let bench = bench(MemoryLedger::default());
    let mut client = bench.client();
    let long = |record: &str| record.replace('}', &format!("{}}}", " ".repeat(RECORD_BYTES_MAX)));
    post(&mut client, &long(MATCHING));
    assert_eq!(answer(&mut client).0, 413);
    post(&mut client, &long(OTHER));
    assert_eq!(answer(&mut client).0, 204);
    assert_eq!((bench.log_lines(), bench.outcomes()), (0, [0, 1, 0, 1]));
    assert_eq!(bench.refused_for("oversize"), 1);
    // So are many in one request: they go to the store together or not at all.
    post(&mut client, &[MATCHING; 300].join("\n"));
    assert_eq!(answer(&mut client).0, 413);
    assert_eq!((bench.log_lines(), bench.refused_for("oversize")), (0, 301));
}

#[test]
fn streams_and_datagrams_go_on_while_the_disk_is_waited_for() {
    let (bench, permits) = slow();
    let mut stream = TcpStream::connect(bench.tcp).expect("the listener");
    for _ in 0..50 {
        stream.write_all(format!("{MATCHING}\n{OTHER}\n").as_bytes()).expect("taken");
    }
    eventually("all lines are read", || bench.count("records_received_total{listener=\"tcp\"}") == 100);
    eventually("all lines are written", || bench.log_lines() == 50);
    assert_eq!(bench.outcomes()[0], 0);
    (0..60).for_each(|_| permits.send(()).expect("room"));
    eventually("all are counted", || bench.outcomes() == [50, 50, 0, 0]);
    let before = bench.ledger.asked().1;
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    sender.send_to(MATCHING.as_bytes(), bench.udp_at).expect("sent");
    eventually("it is counted", || bench.outcomes() == [51, 50, 0, 0]);
    assert!(bench.ledger.asked().1 > before, "another thread was asked for the sync");
    bench.ledger.refuse(Some(Refused::Broken));
    stream.write_all(format!("{MATCHING}\n").as_bytes()).expect("taken");
    eventually("it is refused", || bench.outcomes() == [51, 50, 0, 1]);
    drop(permits);
    bench.ledger.assert_sound();
}

#[test]
fn lines_that_were_read_together_end_each_for_itself() {
    let bench = bench(MemoryLedger::default());
    let mut stream = TcpStream::connect(bench.tcp).expect("the listener");
    let too_long =
        MATCHING.replace("\"delete\"", &format!("\"delete\",\"x\":\"{}\"", "y".repeat(RECORD_BYTES_MAX)));
    let lines = format!("{MATCHING}\n{OTHER}\n{too_long}\n{MATCHING}\nno record\n");
    stream.write_all(lines.as_bytes()).expect("taken");
    eventually("all are counted", || bench.outcomes() == [2, 1, 2, 0]);
    assert_eq!(bench.log_lines(), 2, "what can never be stored goes to quarantine alone");
    bench.ledger.refuse(Some(Refused::Full));
    stream.write_all(lines.as_bytes()).expect("taken");
    eventually("those with tasks are refused", || bench.outcomes() == [2, 2, 4, 2]);
    assert_eq!(bench.log_lines(), 2);
    bench.ledger.refuse(None);
    // Lines of a hundred kilobytes can be read in parts, each with a sync of its own.
    bench.ledger.fail_syncs(u32::MAX);
    stream.write_all(lines.as_bytes()).expect("taken");
    eventually("those whose syncs failed are refused", || bench.outcomes() == [2, 3, 6, 4]);
    // What is sent in one small piece is read in one, and one sync is for all of it.
    bench.ledger.fail_syncs(1);
    stream.write_all(format!("{MATCHING}\n{OTHER}\n{MATCHING}\n").as_bytes()).expect("taken");
    eventually("both in the failed sync are refused", || bench.outcomes() == [2, 4, 6, 6]);
    bench.ledger.assert_sound();
}

#[test]
fn what_waits_for_the_disk_is_not_done_and_what_the_disk_refused_is_not_either() {
    let (permits, disk) = bounded(100);
    let config = Config { dedupe_window: 100, ..Config::default() };
    let bench = bench_with(MemoryLedger::slow(disk.clone()), &config);
    let record = MATCHING.replace("{\"operation\"", "{\"id\":\"1\",\"operation\"");
    let duplicates = || bench.count("records_total{outcome=\"duplicate\"}");
    let mut clients: Vec<TcpStream> = (0..2).map(|_| bench.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        post(client, &record);
        eventually("its line is written", || bench.log_lines() == n + 1);
    }
    // The first one's tasks are not on the disk: the second one is another one, and neither is acked.
    clients.iter_mut().for_each(assert_silent);
    assert_eq!((bench.outcomes(), duplicates()), ([0; 4], 0));
    bench.ledger.fail_syncs(2);
    (0..2).for_each(|_| permits.send(()).expect("room"));
    for client in &mut clients {
        assert_eq!(answer(client).0, 503);
    }
    assert_eq!((bench.outcomes(), duplicates()), ([0, 0, 0, 2], 0));
    bench.ledger.fail_syncs(0);
    (0..2).for_each(|_| permits.send(()).expect("room"));
    let mut again = bench.client();
    post(&mut again, &record);
    assert_eq!(answer(&mut again).0, 204);
    assert_eq!((bench.outcomes(), duplicates(), bench.log_lines()), ([1, 0, 0, 2], 0, 3));
    // Now it is done.
    post(&mut again, &record);
    assert_eq!(answer(&mut again).0, 204);
    assert_eq!((bench.outcomes(), duplicates(), bench.log_lines()), ([1, 0, 0, 2], 1, 3));
    assert_eq!(bench.ledger.open_tasks(0).len(), 1);
    while disk.try_recv().is_ok() {}
    // Lines that were read together: those without tasks are done at once, those with tasks when they are on the disk.
    let lines: Vec<String> =
        ["2", "3"].iter().map(|id| record.replace("\"1\"", &format!("\"{id}\""))).collect();
    let other = lines[1].replace("delete", "read");
    let text = format!("{}\n{other}\n", lines[0]);
    let mut stream = TcpStream::connect(bench.tcp).expect("the listener");
    stream.write_all(text.as_bytes()).expect("taken");
    eventually("the line is written", || bench.log_lines() == 4);
    eventually("the other one is done", || bench.outcomes()[1] == 1);
    stream.write_all(text.as_bytes()).expect("taken");
    eventually("it is left out, the first one is not", || duplicates() == 2 && bench.log_lines() == 5);
    (0..4).for_each(|_| permits.send(()).expect("room"));
    eventually("both are stored", || bench.outcomes() == [3, 1, 0, 2]);
    stream.write_all(text.as_bytes()).expect("taken");
    eventually("both are done", || duplicates() == 4);
    assert_eq!(bench.log_lines(), 5);
    drop(permits);
    bench.ledger.assert_sound();
}
