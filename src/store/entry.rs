//! What is kept in memory of one pending task, and of the sink that it is for.

use std::sync::Arc;

use super::body::Reason;
use super::journal::Position;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Appended, not durable yet.
    Syncing,
    /// Can be taken.
    Ready,
    /// A worker has it.
    Taken,
    /// Waits for a time.
    Held,
    /// Is to become a dead letter.
    Dying,
    /// Its dead letter is being written.
    Burying,
    /// Is to become a dead letter, for which there is no room.
    Parked,
}

/// What is known of a task of which at least one attempt was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tried {
    pub(crate) attempts: u32,
    /// The last attempt has no result yet.
    pub(crate) unfinished: bool,
    /// Why there will be no further one.
    pub(crate) reason: Option<Reason>,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    pub(crate) next_due_ns: u64,
    /// Where the last failure is written down.
    pub(crate) failed_at: Option<Position>,
}

/// One pending task.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: u128,
    /// Tasks of a sink are taken in this order.
    pub(crate) order: u64,
    pub(crate) accepted_ns: u64,
    /// Where its Accepted or Carried record is.
    pub(crate) at: Position,
    pub(super) tried: Option<Box<Tried>>,
    pub(crate) attempts_max: u32,
    /// Its place in [`super::tasks::Tasks::destinations`].
    pub(crate) sink: u32,
    pub(crate) state: State,
    /// Whether `at` is a Carried record.
    pub(crate) carried: bool,
}

impl Entry {
    pub(crate) fn new(
        id: u128,
        order: u64,
        accepted_ns: u64,
        at: Position,
        attempts_max: u32,
        sink: u32,
    ) -> Self {
        Entry {
            id,
            order,
            accepted_ns,
            at,
            tried: None,
            attempts_max,
            sink,
            state: State::Syncing,
            carried: false,
        }
    }

    pub(crate) fn tried(&self) -> Tried {
        self.tried.as_deref().copied().unwrap_or_default()
    }

    pub(crate) fn tried_mut(&mut self) -> &mut Tried {
        self.tried.get_or_insert_default()
    }

    pub(crate) fn set_tried(&mut self, tried: Tried) {
        self.tried = (tried != Tried::default()).then(|| Box::new(tried));
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.tried.as_ref().map_or(0, |t| t.attempts)
    }

    pub(super) fn len(&self) -> u64 {
        u64::from(self.at.len)
    }
}

/// A sink as tasks name it: of the configuration, or unknown to it.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) sink: Arc<str>,
    pub(crate) group: Arc<str>,
    /// Its number in the configuration, or in an earlier one of this process.
    pub(crate) number: Option<usize>,
    /// The configuration has it.
    pub(crate) configured: bool,
    /// Tasks in any state.
    pub(crate) tasks: u64,
}
