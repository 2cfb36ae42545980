//! What a sink is asked to deliver, and how it ends.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sink::DeliveryError;

/// Names one task for ever: the idempotency key of all its attempts. Printed as 32 hexadecimal digits.
///
/// The first 48 bits are milliseconds since the epoch, the other 80 are random (the layout of ULIDs), so ids sort by
/// acceptance and two servers do not make the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(u128);

impl TaskId {
    /// The id of a task accepted at `accepted_at`; of `random` the lower 80 bits are used.
    pub fn new(accepted_at: SystemTime, random: u128) -> Self {
        let millis = accepted_at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        TaskId((millis << 80) | (random & ((1 << 80) - 1)))
    }

    /// An id that was stored.
    pub fn from_bits(bits: u128) -> Self {
        TaskId(bits)
    }

    /// The id as a number, for storing it.
    pub fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Side-effect work for one record, one group and one sink. Cloning is cheap: the record is shared.
#[derive(Debug, Clone)]
pub struct Task {
    /// Stable over all attempts and restarts.
    pub id: TaskId,
    /// Name of the rule group that matched.
    pub group: Arc<str>,
    /// The record's bytes as received.
    pub record: Arc<[u8]>,
    /// Which listener the record came through ([`crate::listener::Source::label`]).
    pub source: &'static str,
    /// When the record was accepted.
    pub accepted_at: SystemTime,
    /// Attempts made so far, over all processes; in a delivery: before this attempt.
    pub attempts_made: u32,
    /// The task's own limit of attempts, fixed at acceptance; `None`: the sink's.
    pub attempts_max: Option<u32>,
    /// When it is given up, fixed at acceptance; `None`: the sink's age limit counts.
    pub expires_at: Option<SystemTime>,
}

impl Task {
    /// A new task with a fresh id, accepted at `accepted_at`.
    pub fn new(group: Arc<str>, record: Arc<[u8]>, source: &'static str, accepted_at: SystemTime) -> Self {
        let id = TaskId::new(accepted_at, fastrand::u128(..));
        Task {
            id,
            group,
            record,
            source,
            accepted_at,
            attempts_made: 0,
            attempts_max: None,
            expires_at: None,
        }
    }

    /// The number of the attempt that is under way, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempts_made.saturating_add(1)
    }
}

/// Why a task was never sent (or not sent to its end). The value of the `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// `enqueue_mode: drop` and no room.
    QueueFull,
    /// The records waiting for this sink hold too many bytes.
    QueueBytes,
    /// `enqueue_mode: wait` and no room within `enqueue_timeout`.
    EnqueueTimeout,
    /// `enqueue_mode: wait` and too many wait already.
    WaitingRoomFull,
    /// The program ends, and the drain's time was up.
    Shutdown,
    /// A reload has changed or removed the sink, and the drain's time was up.
    Reload,
}

impl DropReason {
    /// All of them.
    pub const ALL: [DropReason; 6] = [
        DropReason::QueueFull,
        DropReason::QueueBytes,
        DropReason::EnqueueTimeout,
        DropReason::WaitingRoomFull,
        DropReason::Shutdown,
        DropReason::Reload,
    ];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::QueueBytes => "queue_bytes",
            DropReason::EnqueueTimeout => "enqueue_timeout",
            DropReason::WaitingRoomFull => "waiting_room_full",
            DropReason::Shutdown => "shutdown",
            DropReason::Reload => "reload",
        }
    }
}

/// What became of a task that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// In the queue.
    Queued,
    /// Lost, and counted.
    Dropped(DropReason),
    /// In the waiting room, with a clone of the ticket that was asked for.
    Waiting,
}

/// How a task ended.
#[derive(Debug)]
pub enum End<'a> {
    /// The destination took it.
    Delivered,
    /// Given up after so many attempts.
    Failed {
        /// Attempts made, over all processes.
        attempts: u32,
        /// Why there is no further one.
        reason: super::retry::GiveUp,
        /// The last error.
        error: &'a DeliveryError,
    },
    /// Lost.
    Dropped(DropReason),
}
