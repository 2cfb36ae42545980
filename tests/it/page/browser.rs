//! The page in headless Chromium.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{HOSTILE, config, html, send_some};
use crate::harness::{Daemon, entry};
use crate::support::{TempDir, free_port, happens_within, left_out, wait_until};

/// What the browser made of the page.
struct Seen {
    /// The document as it was in the end.
    dom: String,
    /// Lines of the browser's log that come from the page's console.
    console: Vec<String>,
}

fn has_browser(test: &str) -> bool {
    let found = Command::new("chromium").arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        left_out(test, "chromium (Debian's package of that name) is not here");
    }
    found
}

/// Opens the page and keeps it open for so many seconds of its own time, which goes by faster than ours.
fn browse(port: u16, seconds: u32, more: &[&str]) -> Seen {
    let dir = TempDir::new("chromium");
    let [out, log] = ["dom", "log"].map(|name| dir.join(name));
    let to = |path: &std::path::Path| Stdio::from(File::create(path).expect("a file"));
    let mut browser = Command::new("chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
        ])
        .args(["--enable-logging=stderr", "--v=0", "--dump-dom"])
        .arg(format!("--virtual-time-budget={}", seconds * 1000))
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .args(more)
        .arg(format!("http://127.0.0.1:{port}/"))
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .stdout(to(&out))
        .stderr(to(&log))
        .spawn()
        .expect("chromium starts");
    let ended =
        happens_within(crate::support::PATIENCE * 2, || browser.try_wait().expect("its state").is_some());
    if !ended {
        let _ = browser.kill();
        let _ = browser.wait();
    }
    let [dom, log] = [out, log]
        .map(|path| String::from_utf8_lossy(&std::fs::read(path).expect("its output")).into_owned());
    assert!(ended, "chromium did not end: {log}");
    assert!(dom.contains("</html>"), "no document: {dom}\n{log}");
    let console = log.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    Seen { dom, console }
}

/// The text between two others.
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
            if !tag.contains("live") && !tag.starts_with("r") {
                cells.push(
                    text.split("</t").next().expect("a cell").replace("&quot;", "\"").replace("&#39;", "'"),
                );
            }
        }
        if cells.first().is_some_and(|first| first != "admin") {
            rows.push(cells);
        }
    }
    assert!(rows.len() > 10, "{rows:?}");
    rows
}

fn number(text: &str) -> u64 {
    text.replace(',', "").parse().unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn received(document: &str) -> u64 {
    number(between(between(document, "data-card=\"received\"", "</div>"), "<b>", "</b>"))
}

#[test]
fn a_browser_shows_numbers_that_move_and_finds_nothing_wrong_with_the_page() {
    if !has_browser("a_browser_shows_numbers_that_move_and_finds_nothing_wrong_with_the_page") {
        return;
    }
    let daemon = Daemon::start(&config("", ""));
    send_some(&daemon);
    let before = received(&html(&daemon));
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
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
        wait_until("records flow", || received(&html(&daemon)) > before + 10);
        let seen = browse(daemon.admin_port(), 30, &[]);
        done.store(true, Ordering::Relaxed);
        seen
    });
    assert_eq!(seen.console, [""; 0], "no violation of the policy, no exception");
    let dom = &seen.dom;
    assert!(dom.contains("<html lang=\"en\" class=\"js\">"), "{dom}");
    assert!(received(dom) > before + 10);
    for card in ["received", "matched"] {
        let card = between(dom, &format!("data-card=\"{card}\""), "</svg>");
        let rate = between(card, "<span>", "</span>");
        assert!(rate.replace(',', "").parse::<f64>().is_ok_and(|rate| rate > 0.0), "{card}");
        let line = between(card, "class=\"line\" d=\"", "\"");
        assert!(line.matches(['M', 'L']).count() > 5, "a line through many points: {line}");
        assert!(between(card, "aria-label=\"", "\"").starts_with("in the last "), "{card}");
    }
    let group = between(dom, "<th scope=\"row\">deletions</th>", "</tr>");
    assert!(
        between(group, "<span>", "</span>").replace(',', "").parse::<f64>().is_ok_and(|rate| rate > 0.0),
        "{group}"
    );
    // Unmatched ones came before the page was opened.
    assert_eq!(between(between(dom, "data-card=\"unmatched\"", "</svg>"), "<span>", "</span>"), "0");
}

#[test]
fn with_and_without_scripts_a_browser_shows_the_same() {
    if !has_browser("with_and_without_scripts_a_browser_shows_the_same") {
        return;
    }
    let sink = format!(
        "    messaging: {{ type: webhook, webhook_url: \"http://127.0.0.1:{}/\" }}\n  - {{ name: last, log_file: {{ file_path: \"{{dir}}/last.log\" }} }}\n",
        free_port()
    );
    let daemon = Daemon::start(&config("limits: { record_bytes_max: 4096 }", &sink));
    send_some(&daemon);
    assert_eq!(daemon.post(&entry("1", "list", "a")), 204);
    wait_until("the sink is down and waits", || {
        daemon.sum("sink_up") == 0.0 && daemon.sum("tasks_in_flight") == 0.0
    });
    let with = browse(daemon.admin_port(), 10, &[]);
    let without = browse(daemon.admin_port(), 1, &["--blink-settings=scriptEnabled=false"]);
    assert_eq!(with.console, [""; 0]);
    assert_eq!(without.console, [""; 0]);
    assert!(with.dom.contains("class=\"js\"") && !without.dom.contains("class=\"js\""));
    for (seen, what) in [(&with, "with"), (&without, "without")] {
        assert_eq!(received(&seen.dom), 6, "{what}");
        assert_eq!(between(&seen.dom, "role=\"status\">", "<"), "Something is wrong", "{what}");
        let name = HOSTILE.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        assert!(seen.dom.contains(&format!("<th scope=\"row\">{name}</th>")), "{what}: {}", seen.dom);
        assert!(seen.dom.contains(&format!("Sink {name}/webhook is down")), "{what}");
        assert_eq!(seen.dom.matches("<script").count(), 1, "{what}: the page's own");
    }
    // The tables are written by two programs: both write the same.
    assert_eq!(cells(&with.dom), cells(&without.dom));
    assert_eq!(cells(&without.dom), cells(&html(&daemon)));
}
