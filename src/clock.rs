//! The only place that reads the clock. Pure modules take the time as an argument.

use std::time::{Instant, SystemTime};

/// Monotonic time, for deadlines and durations.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time, for names of rotated files and times shown to people.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
