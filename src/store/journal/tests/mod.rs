//! Tests of the journal.
#![allow(clippy::print_stdout, reason = "what was tried is shown with --nocapture")]

mod crash;
mod damage;
mod format;
mod gate;
mod model;
mod work;

use std::sync::Arc;

use super::types::{Event, Options};

/// Segments of the least size; nobody listens.
pub(super) fn options(segments_max: u64) -> Options {
    let mut options = Options::new(segments_max * 8192, 7, Arc::new(|_: &Event| {}));
    options.segment_bytes = 8192;
    options.record_bytes_max = 2048;
    options.created_ms = || 0;
    options
}
