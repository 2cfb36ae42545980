//! The control API on a real socket: its routes, and clients that do everything wrong while a good one goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::tasks::{State, TaskBook};
use super::testing::{MemoryBook, TempDir, api, line};
use super::*;

const BODY_BYTES_MAX: usize = 1 << 20;

struct Served {
    control: Option<Control>,
    book: Arc<MemoryBook>,
    path: PathBuf,
    _dir: TempDir,
}

fn serve_with(book: MemoryBook, with_store: bool) -> Served {
    let dir = TempDir::new();
    let path = dir.path().join("c.sock");
    let book = Arc::new(book);
    let tasks = with_store.then(|| Arc::clone(&book) as Arc<dyn TaskBook>);
    let api = Arc::new(api(dir.path(), tasks));
    let bound = bind(&path).expect("bound");
    let control = Control::start(bound, api, BODY_BYTES_MAX).expect("started");
    Served { control: Some(control), book, path, _dir: dir }
}

fn serve() -> Served {
    let dead = (1..=5).map(|n| line(n, State::Dead, if n % 2 == 0 { "even" } else { "odd" }));
    serve_with(MemoryBook::with(dead.chain([line(9, State::Pending, "odd")])), true)
}

impl Served {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        stream
    }

    /// Sends bytes, ends the request's side, and gives all that comes back.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(bytes);
        read_all(&mut stream)
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let text = self.raw(
            format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .as_bytes(),
        );
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    #[track_caller]
    fn good_client_is_served(&self) {
        assert_eq!(self.ask("GET", "/v1/status", "").0, 200);
    }
}

fn read_all(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    #[allow(clippy::disallowed_methods, reason = "a test's own server")]
    match stream.read_to_end(&mut bytes) {
        Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("{e} after {bytes:?}"),
        _ => String::from_utf8(bytes).expect("text"),
    }
}

#[test]
fn status_tells_what_runs() {
    let served = serve();
    let delete = r#"{"type":"request","request":{"operation":"delete"}}"#;
    assert_eq!(served.ask("POST", "/v1/audit", &format!("{delete}\n{{}}\nno record\n")).0, 204);
    let (status, body) = served.ask("GET", "/v1/status", "");
    assert_eq!(status, 200);
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        body["records"],
        json!({"matched": 1, "unmatched": 1, "quarantined": 1, "duplicate": 0, "refused": 0})
    );
    let groups = body["groups"].as_array().expect("groups");
    assert_eq!((&groups[0]["group"], &groups[0]["matches"]), (&json!("deletions"), &json!(1)));
    assert_eq!(groups[0]["rules"][0]["expression"], r#"Request.Operation == "delete""#);
    assert_eq!(groups[0]["rules"][0]["matched"], true);
    assert_eq!(groups[1]["matches"], 1, "the fallback");
    assert_eq!(
        (&body["store"]["pending"], &body["store"]["dead"], &body["store"]["refusing"]),
        (&json!(1), &json!(5), &Value::Null)
    );
    let http = body["listeners"].as_array().expect("listeners").iter().find(|l| l["listener"] == "http");
    assert_eq!(http.expect("the HTTP listener")["received"], 3);
    let read: super::status::Status = serde_json::from_value(body).expect("the form that the command reads");
    assert_eq!(read.groups.len(), 2);
}

#[test]
fn match_explains_and_does_nothing() {
    let served = serve();
    let record = r#" {"type":"request","request":{"operation":"delete"}}"#;
    let (status, body) = served.ask("POST", "/v1/match", record);
    assert_eq!((status, &body["matched"], &body["groups"]), (200, &json!(true), &json!(["deletions"])));
    let rules = body["rules"].as_array().expect("rules");
    assert_eq!(rules.len(), 2);
    assert_eq!((&rules[0]["rule"], &rules[0]["matched"]), (&json!(1), &json!(true)));
    assert_eq!(rules[0]["why"]["reads"][0]["field"], "Request.Operation");
    assert_eq!(rules[1]["why"]["text"], "record.type.x == 1");
    assert_eq!(rules[1]["matched"], false, "{rules:?}");
    let (_, rest) = served.ask("POST", "/v1/match", "{}");
    assert_eq!(rest["groups"], json!(["rest"]));
    let (status, body) = served.ask("POST", "/v1/match", "[1]");
    assert_eq!(status, 400);
    assert!(body["error"]["what"].as_str().is_some_and(|w| w.contains("no audit entry")), "{body}");
    let (_, after) = served.ask("GET", "/v1/status", "");
    assert_eq!(after["records"]["matched"], 0);
}

#[test]
fn tasks_are_listed_in_pages_shown_replayed_and_dropped() {
    let served = serve();
    let (mut seen, mut offset) = (Vec::new(), 0);
    loop {
        let (status, page) = served.ask("GET", &format!("/v1/dead-letters?limit=2&offset={offset}"), "");
        assert_eq!((status, &page["total"]), (200, &json!(5)));
        let tasks = page["tasks"].as_array().expect("tasks");
        assert!(tasks.len() <= 2 && tasks.iter().all(|t| t.get("record").is_none()));
        seen.extend(tasks.iter().map(|t| t["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page["next"].as_u64() else { break };
        offset = next;
    }
    assert_eq!(seen, served.book.ids(State::Dead));
    let (_, even) = served.ask("GET", "/v1/dead-letters?group=even", "");
    assert_eq!(even["tasks"].as_array().map(Vec::len), Some(2));
    let (_, pending) = served.ask("GET", "/v1/pending", "");
    assert_eq!(pending["total"], 1);

    let id = &seen[0];
    let (status, shown) = served.ask("GET", &format!("/v1/dead-letters/{id}"), "");
    assert_eq!((status, &shown["record"]), (200, &json!({"n": "01"})));
    assert_eq!(shown["task"]["reason"], "exhausted");
    assert_eq!(served.ask("GET", &format!("/v1/pending/{id}"), "").0, 404);
    assert_eq!(served.ask("GET", "/v1/dead-letters/000000000000000000000000000000ff", "").0, 404);
    assert_eq!(served.ask("GET", "/v1/dead-letters/nonsense", "").0, 400);

    let (status, done) = served.ask("POST", "/v1/dead-letters/replay", &format!("{{\"ids\":[\"{id}\"]}}"));
    assert_eq!((status, &done["done"]), (200, &json!(1)));
    assert_eq!(served.book.ids(State::Pending).len(), 2);
    let (_, done) = served.ask("POST", "/v1/dead-letters/drop", r#"{"group":"even"}"#);
    assert_eq!(done["done"], 2);
    let (_, none) = served.ask("POST", "/v1/dead-letters/drop", r#"{"group":"even"}"#);
    assert_eq!(none["done"], 0);
    let (status, moved) = served.ask("POST", "/v1/set-aside", "{}");
    assert!(status == 200 && moved["moved"][0].is_string(), "{moved}");
    let (status, refused) = served.ask("POST", "/v1/dead-letters/drop", "{}");
    assert_eq!(status, 400);
    assert!(refused["error"]["cure"].as_str().is_some_and(|cure| cure.contains("all")), "{refused}");
    assert_eq!(served.ask("POST", "/v1/dead-letters/drop", r#"{"all":true}"#).1["done"], 2);
    assert_eq!(served.book.ids(State::Pending).len(), 2, "pending tasks are not dead letters");
    assert_eq!(served.ask("POST", "/v1/pending/drop", r#"{"all":true}"#).1["done"], 2);
}

#[test]
fn wrong_requests_are_told_what_to_do() {
    let served = serve();
    for (method, target, body, status, part) in [
        ("GET", "/", "", 404, "/v1/status"),
        ("GET", "/v1/dead-letter", "", 404, "/v1/status"),
        ("DELETE", "/v1/dead-letters", "", 405, "GET"),
        ("GET", "/v1/dead-letters/drop", "", 405, "POST"),
        ("POST", "/v1/pending/replay", "", 405, "GET"),
        ("POST", "/v1/status", "", 405, "GET"),
        ("GET", "/v1/audit", "", 405, "POST"),
        ("GET", "/v1/pending?limit=50000", "", 400, "at most 10000"),
        ("GET", "/v1/pending?since=then", "", 400, "24h"),
        ("POST", "/v1/dead-letters/drop", "all", 400, "send JSON"),
        ("POST", "/v1/dead-letters/replay", r#"{"everything":true}"#, 400, "send JSON"),
    ] {
        let (got, answer) = served.ask(method, target, body);
        assert_eq!(got, status, "{method} {target}: {answer}");
        let cure = answer["error"]["cure"].as_str().unwrap_or_default();
        assert!(cure.contains(part), "{method} {target}: {answer}");
    }
    *served.book.broken.lock() = Some("EIO".to_owned());
    let (status, answer) = served.ask("GET", "/v1/pending", "");
    assert_eq!(status, 503);
    assert!(answer["error"]["what"].as_str().is_some_and(|what| what.contains("EIO")), "{answer}");
    let without = serve_with(MemoryBook::default(), false);
    let (status, answer) = without.ask("GET", "/v1/dead-letters", "");
    assert_eq!(status, 409);
    assert!(
        answer["error"]["cure"].as_str().is_some_and(|c| c.contains("async.durable.enabled")),
        "{answer}"
    );
    assert_eq!(without.ask("GET", "/v1/status", "").1["store"], Value::Null);
}

#[test]
fn hostile_requests_are_refused_and_the_server_goes_on() {
    let served = serve();
    let head = |lines: &str| format!("POST /v1/match HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n");
    let endless = [b"GET /v1/status HTTP/1.1\r\nA: ".to_vec(), vec![b'x'; 4 << 20]].concat();
    let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(200_000));
    for (bytes, status) in [
        (b"\x16\x03\x01\x02\x00garbage\r\n\r\n".to_vec(), "400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "505"),
        (b"GET /v1/status HTTP/2.0\r\n\r\n".to_vec(), "505"),
        (b"GET /v1/status HTTP/1.1\n\n".to_vec(), "400"),
        (head("Content-Length: 999999999999").into_bytes(), "413"),
        (head("Content-Length: 18446744073709551615").into_bytes(), "413"),
        (head("Content-Length: 1048577").into_bytes(), "413"),
        (head("Content-Length: -1").into_bytes(), "400"),
        (head("Content-Length: 1\r\nContent-Length: 1").into_bytes(), "400"),
        (head("Content-Length: 1\r\nTransfer-Encoding: chunked").into_bytes(), "400"),
        (
            head("Content-Encoding: gzip\r\nContent-Length: 3")
                .into_bytes()
                .into_iter()
                .chain(*b"abc")
                .collect(),
            "400",
        ),
        (endless, "431"),
        (many.into_bytes(), "431"),
        (vec![b'A'; 1 << 20], "4"),
    ] {
        let answer = served.raw(&bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown:?}: {answer:?}");
        served.good_client_is_served();
    }
    let chunked =
        "POST /v1/match HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    assert!(served.raw(chunked.as_bytes()).starts_with("HTTP/1.1 200 "), "chunked is understood");
    let expects = "POST /v1/match HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut stream = served.connect();
    stream.write_all(expects.as_bytes()).expect("sent");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("it is told to go on");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").expect("sent");
    assert!(read_all(&mut stream).starts_with("HTTP/1.1 200 "));
}

#[test]
fn clients_that_say_nothing_or_leave_do_not_hold_up_others() {
    let served = serve();
    // More than may be sending at once: the oldest make room.
    let idle: Vec<UnixStream> = (0..3 * CONNECTIONS_MAX).map(|_| served.connect()).collect();
    let half: Vec<UnixStream> = (0..20)
        .map(|_| {
            let mut stream = served.connect();
            stream
                .write_all(b"POST /v1/match HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
                .expect("sent");
            stream
        })
        .collect();
    served.good_client_is_served();
    let mut oldest = idle.into_iter();
    let answer = read_all(&mut oldest.next().expect("the first"));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    drop((oldest, half));
    for n in 0..50 {
        let mut stream = served.connect();
        let part = &b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"[..if n % 2 == 0 { 10 } else { 36 }];
        let _ = stream.write_all(part);
        let _ = stream.shutdown(if n % 3 == 0 { Shutdown::Both } else { Shutdown::Write });
    }
    for _ in 0..20 {
        served.good_client_is_served();
    }
}

#[test]
fn a_request_that_does_not_come_to_its_end_is_given_up() {
    let served = serve();
    let mut drips = served.connect();
    drips.write_all(b"GET /v1/sta").expect("sent");
    let mut silent = served.connect();
    // Bytes do not buy time: the limit is for the whole request.
    let mut sent = 0;
    while sent < 10_000 && drips.write_all(b"x").is_ok() {
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(sent < 10_000, "it is closed in the end");
    assert!(read_all(&mut drips).starts_with("HTTP/1.1 408 "));
    assert!(read_all(&mut silent).starts_with("HTTP/1.1 408 "));
    served.good_client_is_served();
}

#[test]
fn an_answer_that_nobody_reads_holds_up_neither_others_nor_the_stop() {
    let many = (1..=4000).map(|n| line(n, State::Dead, "even"));
    let mut served = serve_with(MemoryBook::with(many), true);
    let mut stream = served.connect();
    stream.write_all(b"GET /v1/dead-letters?limit=10000 HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("the answer begins");
    assert_eq!(&first, b"HTTP/1.1 200");
    served.good_client_is_served();
    served.control.take().expect("running").stop();
    assert!(!served.path.exists());
}

#[test]
fn tiny_http_is_started_anew_when_it_has_stopped_listening() {
    let served = serve();
    served.good_client_is_served();
    for generation in 0..3 {
        let inner = served.path.with_file_name(".c.sock.d").join(format!("http{generation}"));
        std::fs::remove_file(inner).expect("the inner socket of this generation");
        served.good_client_is_served();
    }
}

#[test]
fn it_ends_when_told_and_leaves_nothing() {
    let mut served = serve();
    let _idle = served.connect();
    served.good_client_is_served();
    served.control.take().expect("running").stop();
    assert!(!served.path.exists());
    assert!(UnixStream::connect(&served.path).is_err());
    let private = served.path.with_file_name(".c.sock.d");
    assert!(!private.exists());
}

#[test]
fn a_panic_is_an_answer() {
    struct Panics;
    impl TaskBook for Panics {
        fn list(&self, _: &tasks::Filter, _: u64, _: usize) -> io::Result<tasks::Page> {
            panic!("on purpose")
        }
        fn show(&self, _: crate::side_effect::TaskId) -> io::Result<Option<(tasks::TaskLine, Vec<u8>)>> {
            Ok(None)
        }
        fn replay(&self, _: &tasks::Filter) -> io::Result<tasks::Changed> {
            Ok(tasks::Changed::default())
        }
        fn discard(&self, _: &tasks::Filter) -> io::Result<tasks::Changed> {
            Ok(tasks::Changed::default())
        }
        fn set_aside(&self) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
        fn condition(&self) -> tasks::Condition {
            tasks::Condition::default()
        }
    }
    let dir = TempDir::new();
    let path = dir.path().join("c.sock");
    let api = Arc::new(api(dir.path(), Some(Arc::new(Panics))));
    let control = Control::start(bind(&path).expect("bound"), api, BODY_BYTES_MAX).expect("started");
    let client = Client::at(&path);
    for _ in 0..5 {
        let error = client.get::<tasks::Page>("/v1/pending").expect_err("it panics");
        assert!(matches!(error, ClientError::Refused { status: 500, .. }), "{error}");
    }
    let condition: super::status::Status = client.get("/v1/status").expect("it goes on");
    assert_eq!(condition.store, Some(tasks::Condition::default()));
    control.stop();
}
