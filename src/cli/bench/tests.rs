//! What `bench` prints and how it ends, with made-up receivers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use hdrhistogram::Histogram;

use super::chart::Row;
use super::report::Asked;
use super::*;
use crate::load::{Books, Comparison};
use crate::text::grouped;
use crate::threads;

/// A command line of nothing but `bench`.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn bench(words: &[&str]) -> (u8, String, String) {
    let line = Line::try_parse_from([&["bench"], words].concat()).expect("arguments");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io {
        input: Box::new(io::empty()),
        out: Box::new(&mut out),
        err: Box::new(&mut err),
        err_is_terminal: true,
        out_is_terminal: false,
    };
    let code = run(&line.arguments, &mut io);
    drop(io);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (code, text(out), text(err))
}

/// An admin listener whose counters are those of a receiver that takes `received`.
fn admin(listener: &'static str, received: Arc<AtomicU64>) -> String {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = server.local_addr().expect("bound").to_string();
    threads::spawn("admin", move || {
        for mut stream in server.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let n = received.load(Ordering::SeqCst);
            let body = format!(
                "vault_audit_filter_records_received_total{{listener=\"{listener}\"}} {n}\n\
                 vault_audit_filter_records_total{{outcome=\"matched\"}} {n}\n\
                 vault_audit_filter_start_time_seconds 17.5\nprocess_cpu_seconds_total {}\n",
                n * 2
            );
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
    })
    .expect("a thread");
    address
}

/// Receives datagrams and forgets each one whose number `lost` names.
fn udp_receiver(lost: fn(u64) -> bool) -> (SocketAddr, Arc<AtomicU64>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    threads::spawn("receiver", move || {
        let mut buffer = vec![0; 70_000];
        for n in 0.. {
            if socket.recv(&mut buffer).is_err() {
                return;
            }
            count.fetch_add(u64::from(!lost(n)), Ordering::SeqCst);
        }
    })
    .expect("a thread");
    (address, received)
}

#[test]
fn losses_are_found() {
    for (lost, exit) in [((|n| n % 10 == 3) as fn(u64) -> bool, 1), (|_| false, 0)] {
        let (address, received) = udp_receiver(lost);
        let admin = admin("udp", received);
        let to = address.to_string();
        let words =
            ["udp", &to, "--rate", "200/s", "--duration", "500ms", "--admin", &admin, "--format", "json"];
        let (code, out, err) = bench(&words);
        assert_eq!(code, exit, "{out}{err}");
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(json["receiver"]["lost"], if exit == 1 { 10 } else { 0 }, "{out}");
        assert_eq!((&json["sent"], &json["clean"]), (&100.into(), &(exit == 0).into()), "{out}");
        // The receiver's own figure is preferred: two seconds a record here.
        assert_eq!(json["receiver"]["cpu_us_per_record"], 2e6, "{out}");
        let total: u64 =
            json["histogram"].as_array().expect("rows").iter().filter_map(|r| r["count"].as_u64()).sum();
        assert_eq!((total, &json["latency_us"]["count"]), (100, &100.into()));
        for name in ["min", "mean", "p50", "p90", "p99", "p99_9", "p99_99", "max"] {
            assert!(
                json["latency_us"][name].is_number() && json["late_us"][name].is_number(),
                "{name}: {out}"
            );
        }
    }
}

#[test]
fn without_counters_and_with_those_of_somebody_else_it_says_so() {
    let (address, received) = udp_receiver(|_| false);
    let to = address.to_string();
    let common = ["udp", &to, "--rate", "100", "--duration", "700ms", "--connections", "2"];
    let (code, out, err) = bench(&[&common[..], &["--admin", "127.0.0.1:1"]].concat());
    assert_eq!(code, 0, "what cannot be seen is no failure: {out}");
    assert!(out.contains("note: losses cannot be told: http://127.0.0.1:1/metrics: "), "{out}");
    assert!(out.contains("receiver     not known\n"), "{out}");
    assert!(out.contains("latency      p50 ") && out.contains("of which     p50 "), "{out}");
    assert!(err.contains("of 0.7 s, ") && err.ends_with("\r\x1b[K"), "{err:?}");
    // Counters of another listener do not move for this one.
    let elsewhere = admin("tcp", received);
    let (code, out, _) = bench(&[&common[..], &["--admin", &elsewhere]].concat());
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("70 LOST (100.000 %)") && out.contains("is it the one that was sent to?"), "{out}");
}

#[test]
fn arguments_that_cannot_be_are_refused_and_nothing_is_sent() {
    let dir = std::env::temp_dir().join(format!("vaf-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.join(name).display().to_string();
        std::fs::write(&path, text).expect("written");
        path
    };
    let (empty, odd, long) =
        (file("empty", "\n"), file("odd", "two words\n"), file("long", &"x".repeat(70_000)));
    for (words, hint) in [
        (&["tcp", "192.0.2.1:1269"][..], "--allow-remote"),
        (&["http", "http://192.0.2.1/v1/audit"], "invalid"),
        (&["http", "http://192.0.2.1:1270/v1/audit"], "--allow-remote"),
        (&["udp", "[2001:db8::1]:1269"], "--allow-remote"),
        (&["tcp", "127.0.0.1:9", "--admin", "192.0.2.1:1271"], "--admin"),
        (&["tcp", "127.0.0.1:9", "--admin", "nowhere"], "--admin"),
        (&["tcp", "127.0.0.1"], "HOST:PORT"),
        (&["tcp", "127.0.0.1:0"], "port 0"),
        (&["unix", ""], "path of a Unix socket"),
        (&["http", "https://127.0.0.1:9", "--ca-cert", "/no/such"], "--ca-cert"),
        (&["http", "https://127.0.0.1:9", "--ca-cert", &odd], "no certificate"),
        (&["http", "127.0.0.1:9", "--ca-cert", &odd], "https:// address only"),
        (&["http", "http://127.0.0.1:9/a b"], "no address"),
        (&["http", "user@127.0.0.1:9"], "no address"),
        (&["tcp", "127.0.0.1:9", "--token-file", &odd], "http only"),
        (&["http", "127.0.0.1:9", "--token-file", "/no/such"], "--token-file"),
        (&["http", "127.0.0.1:9", "--token-file", &odd], "visible ASCII"),
        (&["http", "127.0.0.1:9", "--token-file", &empty], "visible ASCII"),
        (&["http", "127.0.0.1:9", "--token-file", &long], "visible ASCII"),
        (&["tcp", "127.0.0.1:9", "--records", "/no/such"], "--records /no/such"),
        (&["tcp", "127.0.0.1:9", "--records", &empty], "no record"),
        (&["udp", "127.0.0.1:9", "--records", &long], "65,507"),
    ] {
        let (code, out, err) = bench(words);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
        assert!(err.contains(hint), "{words:?}: {err}");
    }
    std::fs::remove_dir_all(&dir).expect("removed");
    let (code, _, err) = bench(&["tcp", "127.0.0.1:1"]);
    assert!(code == 1 && err.contains("is the server running?"), "{err}");
    for wrong in [
        &["--rate", "fast"][..],
        &["--rate", "10000001"],
        &["--rate", "-1"],
        &["--duration", "10"],
        &["--duration", "0s"],
        &["--duration", "-5s"],
        &["--duration", "25h"],
        &["--connections", "0"],
        &["--connections", "1025"],
        &["--format", "xml"],
    ] {
        let words = [&["bench", "tcp", "127.0.0.1:9"], wrong].concat();
        assert!(Line::try_parse_from(&words).is_err(), "{words:?}");
    }
    for (text, wanted) in [("0", 0), ("1000/s", 1000), (" 50_000 /s", 50_000), ("1,000", 1000)] {
        assert_eq!(arguments::rate(text), Ok(wanted), "{text}");
    }
    assert_eq!(arguments::duration("1m30s"), Ok(Duration::from_secs(90)));
}

fn histogram(values_ns: &[u64]) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("digits");
    values_ns.iter().for_each(|ns| histogram.record(*ns).expect("recorded"));
    histogram
}

#[test]
fn the_chart_has_every_value_in_steps_of_1_2_5() {
    assert_eq!(chart::rows(&histogram(&[])), []);
    let row = |from_ns, to_ns, count| Row { from_ns, to_ns, count };
    assert_eq!(chart::rows(&histogram(&[0, 999])), [row(0, 1_000, 2)]);
    let rows = chart::rows(&histogram(&[1_500, 1_600, 30_000, 7_000_000_000]));
    assert_eq!((rows[0], rows[4]), (row(1_000, 2_000, 2), row(20_000, 50_000, 1)));
    assert_eq!(rows.last(), Some(&row(5_000_000_000, 10_000_000_000, 1)));
    assert!(rows.windows(2).all(|pair| pair[0].to_ns == pair[1].from_ns), "{rows:?}");
    let lines = chart::lines(&[row(1_000, 2_000, 200), row(2_000, 5_000, 0), row(5_000, 10_000, 1)]);
    let bar = "#".repeat(40);
    let wanted = format!(
        "      1 µs ..     2 µs   99.50 %  {bar}\n      2 µs ..     5 µs    0.00 %  \n      5 µs ..    10 µs    0.50 %  #\n"
    );
    assert_eq!(lines, wanted);
}

fn report(outcome: Outcome, receiver: Result<Comparison, String>) -> Report {
    let asked = Asked {
        kind: "http",
        address: "127.0.0.1:1270".into(),
        admin: "127.0.0.1:1271".into(),
        rate_per_s: 0,
        connections: 1,
        duration: Duration::from_secs(1),
        is_answered: true,
    };
    let source = Source { file: Some("a.jsonl".into()), records: 3, bytes: 300, too_long: 1, is_cut: true };
    let mut report = Report::new(asked, source, outcome, Err("not looked".into()), None);
    report.receiver = receiver;
    report
}

fn outcome() -> Outcome {
    Outcome {
        books: Books {
            latency: histogram(&[]),
            late: histogram(&[]),
            statuses: BTreeMap::from([(204, 1200), (503, 3)]),
            errors: BTreeMap::from([("connection closed", 2)]),
        },
        sent: 1205,
        sent_bytes: 1205 << 10,
        unsent: 7,
        elapsed: Duration::from_secs(1),
        cpu: Duration::from_millis(12),
        stopped: true,
    }
}

#[test]
fn the_text_says_all_that_went_wrong() {
    let text = output::text(&report(outcome(), Err("why".into())));
    for part in [
        "http 127.0.0.1:1270: as fast as it goes for 1 s over 1 connection; 3 records from a.jsonl, 75 bytes each",
        "sent         1,205 in 1.00 s: 1,200/s answered with 2xx, 1.2 MiB/s\n",
        "answers      204: 1,200, 503: 3\n",
        "errors       connection closed: 2\n",
        "generator    9.96 µs of processor time a record\n",
        "latency      nothing was measured\n",
        "note: ended early by a signal\n",
        "note: the rate was not reached: 7 records",
        "note: 1 records are too long for a datagram",
        "note: the file has more records",
        "note: losses cannot be told: why;",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let outcomes = BTreeMap::from([("matched".to_owned(), 1205), ("refused".to_owned(), 0)]);
    let more = Comparison { received: 1205, surplus: 5, outcomes, ..Comparison::default() };
    let text = output::text(&report(outcome(), Ok(more)));
    assert!(text.contains("receiver     1,205 received, 0 lost; matched: 1,205\n"), "{text}");
    assert!(text.contains("note: the receiver has counted 5 more than were acked"), "{text}");
    let dropped = Comparison { received: 1190, lost: 10, kernel_drops: 10, ..Comparison::default() };
    let text = output::text(&report(outcome(), Ok(dropped)));
    assert!(text.contains("1,190 received, 10 LOST (0.833 %); none\n"), "{text}");
    assert!(text.contains("note: the kernel dropped 10 datagrams: a larger net.core.rmem_max"), "{text}");
}

#[test]
fn only_a_run_without_any_fault_is_clean() {
    let good = || {
        let mut outcome = outcome();
        outcome.books.errors.clear();
        outcome.books.statuses.remove(&503);
        outcome.unsent = 0;
        outcome
    };
    let all = || Ok(Comparison { received: 1200, ..Comparison::default() });
    assert!(report(good(), all()).is_clean() && report(good(), Err("x".into())).is_clean());
    let faults: [fn(&mut Outcome); 3] = [
        |o| o.unsent = 1,
        |o| *o.books.statuses.entry(401).or_default() = 1,
        |o| *o.books.errors.entry("x").or_default() = 1,
    ];
    for fault in faults {
        let mut outcome = good();
        fault(&mut outcome);
        assert!(!report(outcome, all()).is_clean());
    }
    let lost = Comparison { received: 1199, lost: 1, ..Comparison::default() };
    assert!(!report(good(), Ok(lost)).is_clean());
    let refused = BTreeMap::from([("refused".to_owned(), 1)]);
    assert!(!report(good(), Ok(Comparison { outcomes: refused, ..Comparison::default() })).is_clean());
}

#[test]
fn numbers_are_written_for_people() {
    for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(grouped(number), text);
    }
    for (ns, text) in [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 µs"),
        (1_234, "1.23 µs"),
        (12_340, "12.3 µs"),
        (99_960, "100 µs"),
        (500_000, "500 µs"),
        (50_000_000, "50 ms"),
        (2_500_000_000, "2.5 s"),
    ] {
        assert_eq!(output::time(ns), text, "{ns}");
    }
    let line = output::progress(
        (1500, Duration::from_secs(2)),
        (500, Duration::from_secs(1)),
        Duration::from_secs(10),
        4,
    );
    assert_eq!(line, "2.0 of 10.0 s, 1,500 sent, 1,000/s, 4 failed");
    assert_eq!(output::shown("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
}
