//! The durable store of side effects: every task is on the disk from acceptance to its end.
//!
//! ```text
//! side_effect ── dyn Ledger ──▶ Store ──┬── tasks (pure): state and order of each task, what is alive in which segment
//!                                       ├── journal of pending tasks (DIR/*.seg)
//! queue command ── admin ──▶            └── journal of dead letters (DIR/dead/*.seg)
//! ```
//! [`journal`] keeps bytes and knows no tasks; [`disk`] is its seam to the file system. The format of the record bodies is in `body.rs`.
//!
//! # What is guaranteed
//! * A task whose acceptance was answered with `Ok` is pending after any crash until it was delivered, dropped by command, or is a dead
//!   letter; with the same bytes, limit and sink.
//! * No attempt is sent before its reservation is durable, so attempts are counted over any number of restarts, and the limit holds.
//! * A dead letter is durable before its task ends; its task ends before the dead letter can be replayed or dropped.
//! * A replayed dead letter goes only when the new task is durable. After a crash in between the next start removes it.
//! * What was accepted can be finished when nothing more is accepted because of the bound of the disk use.
//!
//! # What is not
//! Deliveries are at least once: the end of a delivered task is synced within 20 ms, not before the next one is sent. Tasks of one record are
//! accepted all or none, but a crash before the answer can leave some of them.
//!
//! # Locks
//! One mutex holds the state of all tasks. No disk is waited for under it; appends copy into memory. Reads are done outside of it.

mod accept;
mod admin;
mod api;
mod body;
mod bury;
mod carry;
mod dead;
pub mod disk;
mod entry;
mod import;
mod inner;
pub mod journal;
mod keeper;
mod ledger;
mod look;
mod meters;
mod open;
mod recover;
mod tasks;
#[cfg(test)]
mod tests;
mod usage;

use std::sync::Arc;

pub use api::{
    Damage, DeadKeep, Dropped, Filter, Item, Kind, Listed, OpenError, Replayed, Report, Settings, Standing,
};
pub use body::{BodyError, ERROR_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, Reason};
pub use look::{Looked, look, look_at, set_aside};
pub use open::{BYTES_MAX_MIN, record_bytes_max};

use inner::Inner;
use keeper::Threads;

/// An open store: the only one on its directory. Closed by [`Store::close`] or when it is dropped.
pub struct Store {
    inner: Arc<Inner>,
    threads: parking_lot::Mutex<Option<Threads>>,
}

/// A store that was opened, and what was found.
pub struct Opened {
    /// The store; its threads run.
    pub store: Arc<Store>,
    /// What was found.
    pub report: Report,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.inner.settings.dir.display())
    }
}
