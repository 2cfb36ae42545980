//! At most one line of diagnostics in ten seconds about one matter.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(10);

/// Remembers when it last spoke.
#[derive(Debug, Default)]
pub(super) struct Speaker(Option<Instant>);

impl Speaker {
    /// Whether it is time to speak again; counts as spoken when it is.
    pub(super) fn may_speak(&mut self, now: Instant) -> bool {
        let may = self.0.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if may {
            self.0 = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::{PAUSE, Speaker};
    use crate::clock;

    #[test]
    fn it_pauses_between_lines() {
        let (mut speaker, start) = (Speaker::default(), clock::now());
        assert!(speaker.may_speak(start));
        assert!(!speaker.may_speak(start + PAUSE / 2));
        assert!(speaker.may_speak(start + PAUSE));
        assert!(!speaker.may_speak(start + PAUSE));
    }
}
