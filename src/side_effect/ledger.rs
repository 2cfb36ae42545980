//! The seam to a durable store: who keeps account of tasks beyond this process.

use std::fmt;
use std::io;
use std::time::SystemTime;

use super::task::{End, Task};
use crate::sink::DeliveryError;

/// A sink's place in the list of sink names that the ledger was opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkNumber(pub usize);

/// Why tasks were not accepted: the records that they belong to must not be acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The bound of the disk use is reached, or the disk has no room for another segment.
    Full,
    /// The disk has failed; acceptance starts again by itself on a fresh segment.
    Broken,
    /// The store is being closed.
    Closed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Full => "the store of side effects is full",
            Refused::Broken => "the disk under the store of side effects has failed",
            Refused::Closed => "the store of side effects is closed",
        })
    }
}

impl std::error::Error for Refused {}

/// Called once, when tasks are on the disk or it is certain that they were refused: by whichever thread ended the sync, or within
/// [`Ledger::accept`] itself. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// Who keeps account of tasks beyond this process.
///
/// With a ledger, every task lives in it from acceptance to its end; a sink's queue holds what workers will try next. All methods can be
/// called from any thread.
pub trait Ledger: Send + Sync {
    /// Takes tasks in: all of them or none. Does not wait for the disk: somebody has to [`commit`](Self::commit) or
    /// [`nudge`](Self::nudge) afterwards. Once durable, the tasks can be taken with [`take`](Self::take), and the sinks' workers are
    /// woken as [`on_pending`](Self::on_pending) says.
    fn accept(&self, tasks: &[(SinkNumber, Task)], done: Done);

    /// Whether [`accept`](Self::accept) would be refused at once. Cheap; for readiness, and before log lines are written.
    ///
    /// # Errors
    /// Why.
    fn accepting(&self) -> Result<(), Refused>;

    /// Syncs what waits for it, on this thread, unless another thread is doing so (then it returns at once, and that thread will also
    /// sync what came meanwhile). Blocks for the disk.
    fn commit(&self);

    /// Has another thread [`commit`](Self::commit). Does not block.
    fn nudge(&self);

    /// The numbers of the sinks with these names, in their order. A name has one number for as long as the process runs; a new one gets the
    /// next, and what is pending under it can be taken from then on.
    ///
    /// # Errors
    /// A name that cannot be stored; the text says what to do. None of the new names has a number then.
    fn number(&self, sinks: &[String]) -> Result<Vec<SinkNumber>, String>;

    /// From now on these are all the sinks that there are: nobody takes the tasks of the others, which stay pending.
    fn keep_only(&self, sinks: &[String]);

    /// What to do when tasks of a sink have become ready to be taken. Set once, before the first task.
    fn on_pending(&self, wake: Box<dyn Fn(SinkNumber) + Send + Sync>);

    /// The oldest task of `sink` that nobody has taken; `None` when there is none. Blocks for a read.
    fn take(&self, sink: SinkNumber) -> Option<Task>;

    /// Tasks of `sink` that nobody has taken. Cheap.
    fn pending(&self, sink: SinkNumber) -> usize;

    /// Attempt number `attempt` (from 1) of `task` is about to be sent. Returns when that is durable; blocks for the
    /// disk. On an error nothing may be sent: the task waits for another reservation, and no attempt is counted.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]: the task is not pending any more, or nobody has taken it. [`io::ErrorKind::InvalidInput`]: no
    /// such attempt may be made, now or later. All others pass: try again.
    fn reserve(&self, sink: SinkNumber, task: &Task, attempt: u32) -> io::Result<()>;

    /// Attempt number `attempt` has failed, and another may follow from `next_due` on. Does not block.
    fn failed(
        &self,
        sink: SinkNumber,
        task: &Task,
        attempt: u32,
        next_due: SystemTime,
        error: &DeliveryError,
    );

    /// `task` has ended: it was delivered, or becomes a dead letter with `end`'s reason. Called at most once for a task that was taken.
    /// Does not wait for the disk.
    fn ended(&self, sink: SinkNumber, task: &Task, end: &End<'_>);

    /// `task` was taken and is given back: the program ends before it could be tried (again), or others are to have their turn. It stays
    /// pending, and can be taken again: where its last attempt has [`failed`](Self::failed), not before the time that was given then.
    fn returned(&self, sink: SinkNumber, task: &Task);
}
