//! The flood digest: what a full queue dropped is told in one message per window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counts drops without a lock; asked by the workers whether it is time to tell.
#[derive(Debug)]
pub(super) struct Digest {
    window: Duration,
    /// Named in the message: where the whole story is.
    see: Option<String>,
    base: Instant,
    dropped: AtomicU64,
    /// Nanoseconds from `base` to the first drop of the window, plus one; 0: no window is open.
    opened: AtomicU64,
}

impl Digest {
    pub(super) fn new(window: Duration, see: Option<String>, base: Instant) -> Self {
        Digest { window, see, base, dropped: AtomicU64::new(0), opened: AtomicU64::new(0) }
    }

    /// Counts `n` dropped records; the first one opens the window.
    pub(super) fn count(&self, n: u64, now: Instant) {
        self.dropped.fetch_add(n, Ordering::SeqCst);
        if self.opened.load(Ordering::SeqCst) == 0 {
            let at =
                u64::try_from(now.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX - 1);
            // Losing this race means that the window is open already.
            let _ = self.opened.compare_exchange(0, at.saturating_add(1), Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    fn opened_at(&self) -> Option<Instant> {
        let opened = self.opened.load(Ordering::SeqCst);
        (opened != 0).then(|| self.base + Duration::from_nanos(opened - 1))
    }

    /// When the message is due, if there is something to tell.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.opened_at().and_then(|at| at.checked_add(self.window))
    }

    /// Closes the window: how many were dropped and in how long. `None`: none.
    pub(super) fn take(&self, now: Instant) -> Option<(u64, Duration)> {
        let opened = self.opened_at()?;
        self.opened.store(0, Ordering::SeqCst);
        let dropped = self.dropped.swap(0, Ordering::SeqCst);
        (dropped > 0).then(|| (dropped, now.saturating_duration_since(opened)))
    }

    /// The message.
    pub(super) fn text(&self, group: &str, dropped: u64, within: Duration) -> String {
        let records = if dropped == 1 { "record" } else { "records" };
        let seconds = within.as_secs_f64().ceil().max(1.0);
        match &self.see {
            Some(file) => format!("{dropped} more {records} of group {group} in {seconds} s; see {file}"),
            None => format!("{dropped} more {records} of group {group} in {seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn one_window_one_message() {
        let t = clock::now();
        let second = Duration::from_secs(1);
        let digest = Digest::new(60 * second, Some("/var/log/a.log".into()), t);
        assert_eq!(digest.due_at(), None);
        assert_eq!(digest.take(t), None);
        digest.count(1, t + second);
        digest.count(411, t + 30 * second);
        assert_eq!(digest.due_at(), Some(t + 61 * second));
        assert_eq!(digest.take(t + 61 * second), Some((412, 60 * second)));
        assert_eq!(digest.due_at(), None);
        digest.count(1, t + 70 * second);
        assert_eq!(digest.due_at(), Some(t + 130 * second));
        assert_eq!(
            digest.text("g", 412, 60 * second),
            "412 more records of group g in 60 s; see /var/log/a.log"
        );
        let bare = Digest::new(second, None, t);
        assert_eq!(bare.text("g", 1, Duration::from_millis(1)), "1 more record of group g in 1 s");
    }
}
