//! An append-only journal with group commit: bytes only, no tasks.
//!
//! One directory of segments ([`mod@format`]). Appends are copied into memory under a short lock and become durable together: the first
//! thread that wants them durable ([`Journal::commit`]) writes and syncs for all, and goes on with what came meanwhile. Nobody waits for
//! a lock that is held while the disk is waited for.
//!
//! A failed write or sync is never tried again on the same file. What was not durable is answered with an error, and the keeper makes a
//! fresh segment, whose header says where the previous one validly ends.
//!
//! # What cannot be told
//! Damage in the last batch before a crash looks like a write that the crash has torn. A Close record at the end and a Mark record when
//! idle make every earlier batch recognisable. A disk that lies about its syncs defeats all of this.

mod book;
mod chain;
mod commit;
mod establish;
pub mod format;
mod gate;
mod keeper;
mod read;
mod recover;
mod scan;
#[cfg(test)]
pub(crate) mod seed;
mod sync;
#[cfg(test)]
mod tests;
mod types;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use book::{Book, Limits};
use gate::{Bell, Gate};
use keeper::Keep;

pub use keeper::Keeper;
pub use types::{
    Class, Damage, DamageKind, Entry, Event, OpenError, Options, Position, Report, SEGMENT_BYTES, Segments,
    Stats, Watch,
};

use super::disk::{Disk, DiskFile};
use crate::side_effect::{Done, Refused};

/// How many open files of segments are kept for reading.
const HANDLES: usize = 32;

/// A journal that is open. All methods can be called from any thread.
pub struct Journal {
    disk: Arc<dyn Disk>,
    store: u128,
    limits: Limits,
    created_ms: fn() -> u64,
    watch: Watch,
    gate: Gate<Book>,
    bell: Arc<Bell>,
    nudged: AtomicBool,
    /// The leader's copy of its batch.
    scratch: Mutex<Vec<u8>>,
    /// Held by a tick from its start to its end; nobody else takes it.
    keep: Mutex<Keep>,
    /// Open files for reading, the last used ones last; not held while the disk is waited for.
    handles: Mutex<VecDeque<(u64, Arc<dyn DiskFile>)>>,
    /// Number of the next temporary file.
    names: AtomicU64,
    #[cfg(test)]
    seed: Option<seed::Seed>,
}

impl Journal {
    /// Opens the journal in `disk`, which the caller has locked, made when there is none: gives every intact entry that is not below the
    /// low-water mark to `replay`, in the order of their appending, and has the end rewritten so that all of it is durable. Blocks.
    ///
    /// # Errors
    /// The disk's; damage is no error but told in the report. What was there before is still there.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        replay: &mut dyn FnMut(Position, Entry<'_>),
    ) -> Result<(Journal, Report), OpenError> {
        options.check().map_err(OpenError::Options)?;
        let recovered = recover::recover(&*disk, &options, replay)?;
        let journal = Journal {
            store: recovered.store,
            limits: recovered.book.limits,
            created_ms: options.created_ms,
            watch: options.watch,
            gate: Gate::new(recovered.book, recovered.next_seq),
            bell: Arc::new(Bell::new()),
            nudged: AtomicBool::new(false),
            scratch: Mutex::default(),
            keep: Mutex::default(),
            handles: Mutex::default(),
            names: AtomicU64::new(1),
            #[cfg(test)]
            seed: options.seed,
            disk,
        };
        Ok((journal, recovered.report))
    }

    /// Gives every intact entry to `replay`, and changes nothing: for looking at a directory whose lock the caller holds. Blocks.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn look(disk: &dyn Disk, replay: &mut dyn FnMut(Position, Entry<'_>)) -> Result<Report, OpenError> {
        recover::look(disk, replay)
    }

    /// Appends all of `entries` or none, next to each other, in one batch, and says where they are. Does not wait for the disk: somebody
    /// has to [`commit`](Self::commit) or [`nudge`](Self::nudge); [`Class::Finish`] is committed by the keeper after 20 ms at the latest.
    ///
    /// `done` is called exactly once, in the order of appends, with no lock held, by the thread that ends the sync or finds the fault; not
    /// at all when this returns an error.
    ///
    /// # Errors
    /// `Full`: no room for this class, too much unsynced, or more than a segment holds. `Broken`: until the fault is over. `Closed`.
    /// Nothing was appended, and `done` was dropped.
    pub fn append(&self, class: Class, entries: &[Entry<'_>], done: Done) -> Result<Vec<Position>, Refused> {
        debug_assert!(
            entries.iter().all(|e| (1..200).contains(&e.kind)),
            "kinds from 200 on are the journal's"
        );
        // Its guard is gone before a refused `done` is dropped.
        let placed = book::place(&mut self.gate.lock(), class, entries, 0, done);
        let (positions, first) = placed.map_err(|(why, _)| why)?;
        if first && class == Class::Finish {
            self.bell.ring();
        }
        Ok(positions)
    }

    /// Whether [`append`](Self::append) of [`Class::Accept`] would be refused now. Does not block.
    ///
    /// # Errors
    /// Why.
    pub fn accepting(&self) -> Result<(), Refused> {
        let state = self.gate.lock();
        match state.stopped {
            Some(why) => Err(why),
            None if state.book.takes(Class::Accept) => Ok(()),
            None => Err(Refused::Full),
        }
    }

    /// Says that no segment below `first` is needed: what the caller wants kept from them must have been appended before. Does not block:
    /// the mark becomes durable with the next batch, after which the keeper removes them, front first. If that batch fails, this is
    /// forgotten; say it again once the journal is open.
    pub fn trim(&self, first: u64) {
        let bell = Arc::clone(&self.bell);
        let placed = {
            let mut state = self.gate.lock();
            let first = first.min(state.book.cursor_segment());
            if first <= state.book.trim_asked {
                return;
            }
            let trim = Entry { kind: format::KIND_TRIM, body: &first.to_le_bytes() };
            let done: Done = Box::new(move |_| bell.ring());
            let placed = book::place(&mut state, Class::Finish, &[trim], first, done);
            if placed.is_ok() {
                state.book.trim_asked = first;
            }
            placed
        };
        if placed.is_ok() {
            self.nudge();
        }
    }

    /// The segments. Does not block.
    pub fn segments(&self) -> Segments {
        let book = &self.gate.lock().book;
        let front = book.trim_durable.max(book.segments().first_key_value().map_or(0, |(n, _)| *n));
        Segments {
            front,
            current: book.cursor_segment(),
            count: book.segments().range(front..).count() as u64,
            going: book.segments().range(..front).count() as u64,
            bytes: book.bytes(),
        }
    }

    /// Counts. Does not block.
    pub fn stats(&self) -> Stats {
        let refused = self.accepting().err();
        let book = &self.gate.lock().book;
        Stats {
            appended_records: book.appended_records,
            appended_bytes: book.appended_bytes,
            synced_bytes: book.synced_bytes,
            syncs: book.syncs,
            faults: book.faults,
            unsynced_bytes: book.unsynced_bytes as u64,
            refused,
        }
    }

    /// Makes everything durable, with a Close record behind it; later appends are refused. Blocks for the disk.
    ///
    /// # Errors
    /// Why not everything has become durable.
    pub fn close(&self) -> Result<(), Refused> {
        let (told, answer) = crossbeam_channel::bounded(1);
        let placed = {
            let mut state = self.gate.lock();
            let close = Entry { kind: format::KIND_CLOSE, body: &[] };
            let done: Done = Box::new(move |result| {
                let _ = told.send(result);
            });
            let placed = book::place(&mut state, Class::Finish, &[close], 0, done);
            state.stopped = Some(Refused::Closed);
            state.book.marked = true;
            placed
        };
        if let Err((why, _)) = placed {
            // What was appended before can become durable without the Close.
            self.commit_turns(usize::MAX);
            return Err(why);
        }
        loop {
            self.commit_turns(usize::MAX);
            if let Ok(result) = answer.recv_timeout(Duration::from_millis(20)) {
                return result;
            }
        }
    }
}
