//! What is said about log files whose writes hang: readiness, diagnostics, the last words.

use std::sync::Arc;
use std::time::Duration;

use crate::log_file::{Flights, LogTarget};
use crate::pipeline::{LeftInLogs, Pipeline};
use crate::service::ReadyCheck;

/// Readiness is red while the last append to a log file has failed, and while one hangs.
pub(super) fn check(pipeline: &Pipeline) -> ReadyCheck {
    let logs: Vec<LogTarget> = pipeline.logs().cloned().collect();
    ReadyCheck {
        name: "log files",
        check: Box::new(move || {
            let faults: Vec<String> = logs.iter().filter_map(fault).collect();
            if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
        }),
    }
}

fn fault(log: &LogTarget) -> Option<String> {
    if let Some(age) = log.flights().hanging() {
        return Some(format!("a write to {} has been hanging for {} s", log.label(), age.as_secs()));
    }
    (!log.is_writable()).then(|| format!("the last append to {} failed", log.label()))
}

/// Says when a log file begins to hang and when it is over, once each: on the supervisor's thread, since the request path writes no
/// diagnostics.
pub(super) struct Watch {
    files: Vec<Watched>,
}

struct Watched {
    label: String,
    flights: Arc<Flights>,
    hung_for: Option<Duration>,
}

impl Watch {
    pub(super) fn new(pipeline: &Pipeline) -> Watch {
        let mut watch = Watch { files: Vec::new() };
        watch.follow(pipeline);
        watch
    }

    /// Another configuration is in use. Files of earlier ones that hang are watched until that is over.
    pub(super) fn follow(&mut self, pipeline: &Pipeline) {
        self.files.retain(|file| file.hung_for.is_some() || file.flights.oldest().is_some());
        for log in pipeline.logs() {
            if !self.files.iter().any(|file| Arc::ptr_eq(&file.flights, log.flights())) {
                let (label, flights) = (log.label().to_owned(), Arc::clone(log.flights()));
                self.files.push(Watched { label, flights, hung_for: None });
            }
        }
    }

    /// Whether that thread hangs in the write to a log file, as of the last look.
    pub(super) fn holds(&self, thread: u64) -> bool {
        self.files.iter().any(|file| file.hung_for.is_some() && file.flights.holds(thread))
    }

    /// Whether any file hung at the last look.
    pub(super) fn any_hangs(&self) -> bool {
        self.files.iter().any(|file| file.hung_for.is_some())
    }

    /// Looks, and gives the lines that are due.
    pub(super) fn look(&mut self) -> Vec<(log::Level, String)> {
        let lines = self.files.iter_mut().filter_map(|file| {
            let age = file.flights.hanging();
            let before = std::mem::replace(&mut file.hung_for, age);
            let label = &file.label;
            match (before, age) {
                (None, Some(age)) => Some((
                    log::Level::Error,
                    format!(
                        "log file {label:?}: a write has been hanging for {} s; records that go there are not acked meanwhile, all \
                         others are",
                        age.as_secs()
                    ),
                )),
                (Some(before), None) => Some((
                    log::Level::Warn,
                    format!("log file {label:?}: writes end again; the longest hung for more than {} s", before.as_secs()),
                )),
                _ => None,
            }
        });
        lines.collect()
    }
}

/// Says at the end what was not written.
pub(super) fn say_left(left: &LeftInLogs) {
    if !left.hanging.is_empty() {
        log::error!(
            "writes to {} still hang; the threads in them are left behind, and whether their last lines are written is unknown",
            left.hanging.iter().map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ")
        );
    }
    if left.frames > 0 {
        log::error!("{} records were not written to their log files and not acked", left.frames);
    }
}
