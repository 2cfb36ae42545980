//! An append-only journal with group commit: bytes only, no tasks.
//!
//! One directory of segments ([`format`]). Appends are copied into memory under a short lock and become durable together: the first
//! thread that wants them durable ([`Journal::commit`]) writes and syncs for all, and goes on with what came meanwhile. Nobody waits for
//! a lock that is held while the disk is waited for.
//!
//! A failed write or sync is never tried again on the same file. What was not durable is answered with an error, and the keeper makes a
//! fresh segment, whose header says where the previous one validly ends.
//!
//! # What cannot be told
//! Damage in the last batch before a crash looks like a write that the crash has torn. A Close record at the end and a Mark record when
//! idle make every earlier batch recognisable. A disk that lies about its syncs defeats all of this.

pub mod format;
#[cfg(test)]
pub(crate) mod seed;
mod types;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use types::{
    Class, Damage, DamageKind, Entry, Event, OpenError, Options, Position, Report, SEGMENT_BYTES, Segments,
    Stats, Watch,
};

use super::disk::Disk;
use crate::side_effect::{Done, Refused};

/// A journal that is open. All methods can be called from any thread.
pub struct Journal {}

impl Journal {
    /// Opens the journal in `disk`, which the caller has locked, made when there is none: gives every intact entry that is not below the
    /// low-water mark to `replay`, in the order of their appending, and has the end rewritten so that all of it is durable. Blocks.
    ///
    /// # Errors
    /// The disk's; damage is no error but told in the report. What was there before is still there.
    pub fn open(
        _disk: Arc<dyn Disk>,
        _options: Options,
        _replay: &mut dyn FnMut(Position, Entry<'_>),
    ) -> Result<(Journal, Report), OpenError> {
        unimplemented!()
    }

    /// Gives every intact entry to `replay`, and changes nothing: for looking at a directory whose lock the caller holds. Blocks.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn look(_disk: &dyn Disk, _replay: &mut dyn FnMut(Position, Entry<'_>)) -> Result<Report, OpenError> {
        unimplemented!()
    }

    /// Appends all of `entries` or none, next to each other, in one batch, and says where they are. Does not wait for the disk: somebody
    /// has to [`commit`](Self::commit) or [`nudge`](Self::nudge); [`Class::Finish`] is committed by the keeper after 20 ms at the latest.
    ///
    /// `done` is called exactly once, in the order of appends, with no lock held, by the thread that ends the sync or finds the fault;
    /// when the append is refused, by this one before this returns.
    ///
    /// # Errors
    /// `Full`: no room for this class, too much unsynced, or more than a segment holds. `Broken`: until the fault is over. `Closed`.
    pub fn append(
        &self,
        _class: Class,
        _entries: &[Entry<'_>],
        _done: Done,
    ) -> Result<Vec<Position>, Refused> {
        unimplemented!()
    }

    /// Writes and syncs what was appended, and what is appended meanwhile for some turns; the rest is left to the keeper. Returns at
    /// once when another thread does so, or when there is nothing to do. Otherwise blocks for the disk.
    pub fn commit(&self) {
        unimplemented!()
    }

    /// Has the keeper [`commit`](Self::commit). Does not block.
    pub fn nudge(&self) {
        unimplemented!()
    }

    /// Whether [`append`](Self::append) of [`Class::Accept`] would be refused now. Does not block.
    ///
    /// # Errors
    /// Why.
    pub fn accepting(&self) -> Result<(), Refused> {
        unimplemented!()
    }

    /// Reads the body of the record at `position` into `body` (cleared first): from memory while it waits there, else from the disk with
    /// its checksum looked at. Blocks for the disk.
    ///
    /// # Errors
    /// `InvalidData` when there is no valid record of that length; the disk's.
    pub fn read(&self, _position: Position, _body: &mut Vec<u8>) -> io::Result<()> {
        unimplemented!()
    }

    /// Says that no segment below `first` is needed: what the caller wants kept from them must have been appended before. Does not block:
    /// the mark becomes durable with the next batch, after which the keeper removes them, front first. If that batch fails, this is
    /// forgotten; say it again once the journal is open.
    pub fn trim(&self, _first: u64) {
        unimplemented!()
    }

    /// The segments. Does not block.
    pub fn segments(&self) -> Segments {
        unimplemented!()
    }

    /// Counts. Does not block.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// The keeper's work that is due at `now`: commits what was nudged or has waited for 20 ms, ends a fault, makes spare segments, removes
    /// trimmed ones, writes a Mark when idle. Says after how long there may be more to do. Blocks for the disk; calls take turns.
    pub fn tick(&self, _now: Instant) -> Duration {
        unimplemented!()
    }

    /// Makes everything durable, with a Close record behind it; later appends are refused. Blocks for the disk.
    ///
    /// # Errors
    /// Why not everything has become durable.
    pub fn close(&self) -> Result<(), Refused> {
        unimplemented!()
    }
}

/// The thread that does [`Journal::tick`]; stopped and joined when dropped.
pub struct Keeper {}

impl Keeper {
    /// Starts it under `name` (up to 15 bytes).
    ///
    /// # Errors
    /// The kernel's refusal to make a thread.
    pub fn start(_journal: Arc<Journal>, _name: &str) -> io::Result<Keeper> {
        unimplemented!()
    }
}
