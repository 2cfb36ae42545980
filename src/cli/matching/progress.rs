//! How far a long run has come, drawn on one line of a terminal.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::clock;

/// Shorter runs draw nothing.
const QUIET: Duration = Duration::from_secs(1);

/// Time between two drawings.
const EVERY: Duration = Duration::from_millis(200);

/// Lines between two looks at the clock.
const LINES: u32 = 512;

/// A line like ` 45 %  1.2 of 2.7 GiB, 34 s left`, drawn anew now and then and removed at the end.
pub(in crate::cli) struct Progress {
    /// Bytes of all inputs; `None`: not to be drawn, or not known.
    total: Option<u64>,
    pub(in crate::cli) read: Rc<Cell<u64>>,
    started: Instant,
    drawn: Option<Instant>,
    countdown: u32,
}

impl Progress {
    /// `total` is the size of all inputs, when it is known and somebody looks.
    pub(in crate::cli) fn new(total: Option<u64>) -> Self {
        let total = total.filter(|bytes| *bytes > 0);
        Progress { total, read: Rc::default(), started: clock::now(), drawn: None, countdown: LINES }
    }

    /// Called for every line.
    pub(in crate::cli) fn line(&mut self, err: &mut dyn Write) {
        let Some(total) = self.total else { return };
        self.countdown -= 1;
        if self.countdown > 0 {
            return;
        }
        self.countdown = LINES;
        let now = clock::now();
        let last = self.drawn.unwrap_or(self.started + QUIET - EVERY);
        if now.saturating_duration_since(last) >= EVERY {
            self.drawn = Some(now);
            let text = text(self.read.get(), total, now.saturating_duration_since(self.started));
            let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
        }
    }

    /// Removes the line.
    pub(in crate::cli) fn end(&mut self, err: &mut dyn Write) {
        if self.drawn.take().is_some() {
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }
}

/// The line's text.
#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn text(read: u64, total: u64, elapsed: Duration) -> String {
    const MIB: f64 = 1_048_576.0;
    let part = (read as f64 / total as f64).min(1.0);
    let left = if part > 0.0 { elapsed.as_secs_f64() * (1.0 - part) / part } else { f64::INFINITY };
    let left = if left.is_finite() { format!(", {left:.0} s left") } else { String::new() };
    let (read, total) = (read as f64 / MIB, total as f64 / MIB);
    format!("{:3.0} %  {read:.1} of {total:.1} MiB{left}", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_tells_part_and_time_left() {
        let mib = 1 << 20;
        assert_eq!(text(mib, 4 * mib, Duration::from_secs(10)), " 25 %  1.0 of 4.0 MiB, 30 s left");
        assert_eq!(text(0, 4 * mib, Duration::from_secs(10)), "  0 %  0.0 of 4.0 MiB");
        assert_eq!(text(5 * mib, 4 * mib, Duration::from_secs(10)), "100 %  5.0 of 4.0 MiB, 0 s left");
    }

    #[test]
    fn it_is_drawn_after_a_while_and_removed() {
        let mut out = Vec::new();
        let mut progress = Progress::new(Some(100));
        progress.started -= QUIET * 2;
        for _ in 0..LINES {
            progress.line(&mut out);
        }
        progress.end(&mut out);
        progress.end(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), "\r\x1b[K  0 %  0.0 of 0.0 MiB\r\x1b[K");
        let mut none = Vec::new();
        for mut quiet in [Progress::new(None), Progress::new(Some(0)), Progress::new(Some(5))] {
            for _ in 0..LINES {
                quiet.line(&mut none);
            }
            quiet.end(&mut none);
        }
        assert!(none.is_empty(), "short runs and unknown sizes draw nothing");
    }
}
