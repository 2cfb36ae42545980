//! The program's own log on standard error: format, level, escaping, and messages that must not repeat without bound.
//!
//! Neither secrets nor record bodies are logged anywhere in the program; text that came from outside goes through
//! [`escape`] first, so that no control character reaches a terminal.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{Level, LevelFilter};

use crate::clock;
use crate::text::needs_escape;

/// How diagnostics look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `2026-11-24T05:48:10Z WARN  message`
    #[default]
    Text,
    /// One JSON object a line: `time`, `level`, `target`, `message`.
    Json,
}

/// Starts logging to standard error. A second call changes nothing.
pub fn init(level: LevelFilter, format: Format) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).target(env_logger::Target::Stderr);
    // Libraries speak at warning and above only: their debug lines may carry what passes through them.
    for library in ["ureq", "ureq_proto", "tiny_http"] {
        builder.filter_module(library, level.min(LevelFilter::Warn));
    }
    // Its warnings are about what a peer has sent, with bytes of it, and as many as the peer likes; failures are said by us.
    builder.filter_module("rustls", level.min(LevelFilter::Error));
    match format {
        Format::Text => builder.format(|out, record| {
            writeln!(out, "{} {:<5} {}", timestamp(), record.level(), escape(&record.args().to_string()))
        }),
        Format::Json => builder.format(|out, record| {
            writeln!(
                out,
                "{}",
                json_line(&timestamp(), record.level(), record.target(), &record.args().to_string())
            )
        }),
    };
    let _ = builder.try_init();
}

fn timestamp() -> String {
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{now:.3}")
}

fn json_line(time: &str, level: Level, target: &str, message: &str) -> String {
    serde_json::json!({ "time": time, "level": level.as_str(), "target": target, "message": message })
        .to_string()
}

/// `text` with its control characters (but for line breaks, which multi-line messages of our own have) and
/// bidirectional overrides made visible.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !needs_escape(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// Lets a message through at most once in an interval and counts what it held back. Lock-free.
#[derive(Debug)]
pub struct Limiter {
    interval: Duration,
    /// Milliseconds since the epoch of the last message; 0: none yet.
    last_ms: AtomicU64,
    held_back: AtomicU64,
}

impl Limiter {
    /// A limiter that lets one message through per `interval`.
    pub const fn new(interval: Duration) -> Self {
        Limiter { interval, last_ms: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// `Some(n)`: say it now, `n` messages were held back since the last one. `None`: hold it back.
    pub fn allow(&self) -> Option<u64> {
        let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.allow_at(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }

    fn allow_at(&self, now_ms: u64) -> Option<u64> {
        let last = self.last_ms.load(Ordering::Relaxed);
        let interval_ms = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        // A clock that was set back must not silence the message until it has caught up.
        let due = last == 0 || now_ms < last || now_ms - last >= interval_ms;
        if due && self.last_ms.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_overrides_are_made_visible() {
        assert_eq!(escape("a\u{1b}[31mb\rc\nd\u{202e}é"), "a\\u{1b}[31mb\\rc\nd\\u{202e}é");
    }

    #[test]
    fn json_lines_are_json() {
        let line = json_line("t", Level::Warn, "x", "a\"b\n\u{1b}");
        let parsed: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(parsed["message"], "a\"b\n\u{1b}");
        assert_eq!(parsed["level"], "WARN");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_limiter_counts_what_it_holds_back() {
        let limiter = Limiter::new(Duration::from_secs(10));
        assert_eq!(limiter.allow_at(1_000), Some(0));
        assert_eq!(limiter.allow_at(2_000), None);
        assert_eq!(limiter.allow_at(10_999), None);
        assert_eq!(limiter.allow_at(11_000), Some(2));
        assert_eq!(limiter.allow_at(500), Some(0), "a clock set back does not silence it");
        assert!(limiter.allow().is_some());
    }

    #[test]
    fn init_twice_is_harmless_in_both_formats() {
        init(LevelFilter::Off, Format::Json);
        init(LevelFilter::Off, Format::Text);
        assert!(timestamp().ends_with('Z'));
    }
}
