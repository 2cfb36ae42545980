//! The page in headless Chromium, which is driven over its debugging pipe.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::{HOSTILE, config, html, send_some};
use crate::harness::{Daemon, entry};
use crate::support::{PATIENCE, TempDir, free_port, left_out, wait_until};

fn has_browser(test: &str) -> bool {
    let found = Command::new("chromium").arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        left_out(test, "chromium (Debian's package of that name) is not here");
    }
    found
}

/// One page in a browser of its own; killed when dropped.
struct Browser {
    child: Child,
    input: File,
    messages: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// What the page said that a page in order does not say.
    complaints: Vec<Value>,
    is_loaded: bool,
    dir: TempDir,
}

impl Browser {
    /// Opens the status page at this port, with or without scripts, and waits until it is loaded.
    #[track_caller]
    fn open(port: u16, scripts: bool) -> Browser {
        let dir = TempDir::new("chromium");
        let [to, from, log] = ["to", "from", "log"].map(|name| dir.join(name));
        for pipe in [&to, &from] {
            mkfifo(pipe, Mode::S_IRWXU).expect("a named pipe");
        }
        let child = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<\"$VAF_TO\" 4>\"$VAF_FROM\"", "sh"])
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", dir.join("profile").display()))
            .envs([("VAF_TO", &to), ("VAF_FROM", &from)])
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a file"))
            .spawn()
            .expect("a shell");
        let input = File::options().write(true).open(to).expect("the pipe to it");
        let output = BufReader::new(File::open(from).expect("the pipe from it"));
        let (sender, messages) = sync_channel(1024);
        std::thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("the browser speaks JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Browser {
            child,
            input,
            messages,
            session: None,
            calls: 0,
            complaints: Vec::new(),
            is_loaded: false,
            dir,
        };
        browser.go_to(port, scripts);
        browser
    }

    fn go_to(&mut self, port: u16, scripts: bool) {
        let target = self.call("Target.createTarget", &json!({"url": "about:blank"}))["targetId"].clone();
        let attached = self.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
        self.call("Emulation.setScriptExecutionDisabled", &json!({"value": !scripts}));
        self.call("Page.navigate", &json!({"url": format!("http://127.0.0.1:{port}/")}));
        while !self.is_loaded {
            let message = self.receive();
            self.note(message);
        }
    }

    #[track_caller]
    fn receive(&self) -> Value {
        self.messages.recv_timeout(PATIENCE).unwrap_or_else(|e| {
            let log = std::fs::read(self.dir.join("log")).unwrap_or_default();
            panic!("nothing from the browser ({e}): {}", String::from_utf8_lossy(&log))
        })
    }

    fn note(&mut self, event: Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Page.loadEventFired") => self.is_loaded = true,
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => {
                self.complaints.push(params.clone())
            }
            Some("Log.entryAdded") => self.complaints.push(params["entry"].clone()),
            _ => {}
        }
    }

    /// Calls a method of the browser's protocol and gives its result.
    #[track_caller]
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).expect("the browser reads");
        loop {
            let message = self.receive();
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.note(message);
        }
    }

    /// The document as it is now.
    #[track_caller]
    fn document(&mut self) -> String {
        let root = self.call("DOM.getDocument", &json!({"depth": 0}))["root"]["nodeId"].clone();
        let document = self.call("DOM.getOuterHTML", &json!({"nodeId": root}));
        document["outerHTML"].as_str().expect("HTML").to_owned()
    }

    /// Waits until the document is so, and gives it.
    #[track_caller]
    fn wait(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let mut document = String::new();
        wait_until(what, || {
            document = self.document();
            is_so(&document)
        });
        document
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text between two others.
#[track_caller]
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start} in {text}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {start}")).0
}

/// The cells of all tables that do not move, row by row; without the admin listener, whose connections are those of the browser.
fn cells(document: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for row in document.split("<tr").skip(1).map(|row| row.split("</tr>").next().expect("a row")) {
        let mut cells = Vec::new();
        for cell in row.split("<t").skip(1) {
            let (tag, text) = cell.split_once('>').expect("a tag");
            if !tag.contains("live") {
                let text = text.split("</t").next().expect("a cell");
                cells.push(text.replace("&quot;", "\"").replace("&#39;", "'"));
            }
        }
        if cells.first().is_some_and(|first| first != "admin") {
            rows.push(cells);
        }
    }
    assert!(rows.len() > 10, "{rows:?}");
    rows
}

/// The part of the document about one of the records' numbers.
#[track_caller]
fn card<'a>(document: &'a str, name: &str) -> &'a str {
    between(document, &format!("data-card=\"{name}\""), "data-card")
}

fn number(text: &str) -> f64 {
    text.replace(',', "").parse().unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn received(document: &str) -> f64 {
    number(between(card(document, "received"), "<b>", "</b>"))
}

/// Points in the plot of one of the records' numbers.
fn points(document: &str, name: &str) -> usize {
    let card = card(document, name);
    if card.contains("class=\"line\"") {
        between(card, "class=\"line\" d=\"", "\"").matches(['M', 'L']).count()
    } else {
        0
    }
}

#[test]
fn a_browser_shows_numbers_that_move_and_finds_nothing_wrong_with_the_page() {
    if !has_browser("a_browser_shows_numbers_that_move_and_finds_nothing_wrong_with_the_page") {
        return;
    }
    let daemon = Daemon::start(&config("limits: { record_bytes_max: 4096 }", ""));
    send_some(&daemon);
    let done = AtomicBool::new(false);
    let (before, after, complaints) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = daemon.client();
            for n in 0.. {
                let answer = client.post("/v1/audit", entry(&n.to_string(), "delete", "a").as_bytes());
                assert_eq!(answer.expect("an answer").status, 204);
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let mut browser = Browser::open(daemon.admin_port(), true);
        let before = browser.wait("the script has looked once", |document| document.contains("class=\"js\""));
        let after =
            browser.wait("it has looked four times more", |document| points(document, "received") >= 4);
        done.store(true, Ordering::Relaxed);
        (before, after, std::mem::take(&mut browser.complaints))
    });
    assert_eq!(complaints, [Value::Null; 0], "no violation of the policy, no exception, no word");
    assert!(received(&after) > received(&before), "{} and {}", received(&after), received(&before));
    for name in ["received", "matched"] {
        let card = card(&after, name);
        assert!(number(between(card, "<span>", "</span>")) > 0.0, "{card}");
        assert!(points(&after, name) >= 4, "{card}");
        assert!(between(card, "aria-label=\"", "\"").starts_with("in the last "), "{card}");
    }
    let group = between(&after, "<th scope=\"row\">deletions</th>", "</tr>");
    assert!(number(between(group, "<span>", "</span>")) > 0.0, "{group}");
    assert!(group.contains("role=\"img\" aria-label=\"in the last "), "{group}");
    // That one came before the page was opened.
    assert_eq!(between(card(&after, "unmatched"), "<span>", "</span>"), "0");
}

#[test]
fn with_and_without_scripts_a_browser_shows_the_same() {
    if !has_browser("with_and_without_scripts_a_browser_shows_the_same") {
        return;
    }
    let more = format!(
        "    messaging: {{ type: webhook, webhook_url: \"http://127.0.0.1:{}/\" }}\n  - {{ name: last, log_file: {{ file_path: \"{{dir}}/last.log\" }} }}\n",
        free_port()
    );
    let durable = "async: { workers: 1, durable: { enabled: true, dir: \"{dir}/store\", max_bytes: 64MB }, retry: { backoff: 30s } }";
    let daemon = Daemon::start(&config(&format!("limits: {{ record_bytes_max: 4096 }}\n{durable}"), &more));
    send_some(&daemon);
    assert_eq!(daemon.post(&entry("1", "list", "a")), 204);
    wait_until("the sink is down", || {
        daemon.sum("sink_up") == 0.0 && daemon.sum("store_pending_tasks") == 2.0
    });
    let mut browser = Browser::open(daemon.admin_port(), false);
    let without = browser.document();
    assert!(!without.contains("class=\"js\""), "no script has run");
    assert_eq!(browser.complaints, [Value::Null; 0]);
    drop(browser);
    let mut browser = Browser::open(daemon.admin_port(), true);
    let with = browser.wait("the script has drawn", |document| points(document, "received") >= 1);
    assert_eq!(browser.complaints, [Value::Null; 0]);
    for (document, what) in [(&with, "with"), (&without, "without")] {
        assert_eq!(received(document), 6.0, "{what}");
        assert_eq!(between(document, "role=\"status\">", "<"), "Something is wrong", "{what}");
        let name = HOSTILE.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        assert!(document.contains(&format!("<th scope=\"row\">{name}</th>")), "{what}: {document}");
        assert!(document.contains(&format!("Sink {name}/webhook is down")), "{what}");
        assert_eq!(document.matches("<script").count(), 1, "{what}: the page's own");
    }
    // The tables are written by two programs: both write the same.
    assert_eq!(cells(&with), cells(&without));
    assert_eq!(cells(&without), cells(&html(&daemon)));
}
