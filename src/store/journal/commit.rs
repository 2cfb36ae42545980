//! The leader's work: one batch to the disk.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::book::{Chunk, Current};
use super::establish::{self, NotMade};
use super::format::{self, HEADER_BYTES, Header, Home};
use super::gate::{Failure, Turned};
#[cfg(test)]
use super::seed::Seed;
use super::types::Event;
use super::{Journal, Refused};
use crate::clock;

/// How many batches a thread commits that came for its own, before it leaves the rest to the keeper.
const TURNS: usize = 4;

impl Journal {
    /// Writes and syncs what was appended, and what is appended meanwhile for some turns; the rest is left to the keeper. Returns at
    /// once when another thread does so, or when there is nothing to do. Otherwise blocks for the disk.
    pub fn commit(&self) {
        if self.commit_turns(TURNS) == Turned::Left {
            self.nudge();
        }
    }

    pub(super) fn commit_turns(&self, turns: usize) -> Turned {
        self.gate.commit(turns, &mut |chunk, durable| self.perform(chunk, durable))
    }

    fn perform(&self, chunk: &Chunk, durable: u64) -> Result<(), Failure> {
        if chunk.bytes.is_empty() {
            return Ok(());
        }
        let current = self.gate.lock().book.current.clone();
        let current = if current.number == chunk.segment { current } else { self.roll(chunk, &current)? };
        let name = format::segment_name(current.number);
        let mut sealed = self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sealed.clear();
        sealed.extend_from_slice(&chunk.bytes);
        let records = format::seal_records(&mut sealed, Home::new(self.store, current.number), durable);
        current
            .file
            .write_at(&sealed, chunk.offset)
            .map_err(|e| self.broken(&format!("cannot write {:?}: {e}", self.disk.shown(&name))))?;
        let start = clock::now();
        if self.syncs_data(chunk) {
            self.sync(&current)
                .map_err(|e| self.broken(&format!("cannot sync {:?}: {e}", self.disk.shown(&name))))?;
        }
        let took = clock::now().saturating_duration_since(start);
        (self.watch)(&Event::Synced { records, bytes: sealed.len() as u64, took });
        Ok(())
    }

    fn sync(&self, current: &Current) -> io::Result<()> {
        let result = current.file.sync();
        #[cfg(test)]
        if result.is_err() && self.seed == Some(Seed::RetrySync) {
            return current.file.sync();
        }
        result
    }

    #[cfg(not(test))]
    fn syncs_data(&self, _chunk: &Chunk) -> bool {
        true
    }

    #[cfg(test)]
    fn syncs_data(&self, chunk: &Chunk) -> bool {
        let more = self.gate.lock().queue.front().is_some_and(|next| next.payload.segment != chunk.segment);
        match self.seed {
            Some(Seed::AckBeforeSync) => false,
            Some(Seed::RollWithoutSync) => !more,
            _ => true,
        }
    }

    /// A write or sync on the current segment has failed.
    fn broken(&self, what: &str) -> Failure {
        #[cfg(test)]
        if self.seed == Some(Seed::GoOnInFile) {
            return Failure { refused: Refused::Broken, stop: false };
        }
        self.tell_broken(what);
        Failure { refused: Refused::Broken, stop: true }
    }

    fn tell_broken(&self, what: &str) {
        (self.watch)(&Event::Broken { what: what.to_owned() });
        self.bell.ring();
    }

    /// The segment that `chunk` begins becomes the current one; everything in the one before is durable.
    fn roll(&self, chunk: &Chunk, before: &Current) -> Result<Current, Failure> {
        match self.make_segment(chunk.segment, chunk.first_seq, before) {
            Ok(current) => {
                self.gate.lock().book.rolled(current.clone());
                self.bell.ring();
                Ok(current)
            }
            Err(failed) => Err(self.not_rolled(chunk.segment, &failed)),
        }
    }

    fn not_rolled(&self, number: u64, failed: &NotMade) -> Failure {
        if !failed.named && is_full(&failed.error) {
            self.tell_no_room(&failed.what);
            return Failure { refused: Refused::Full, stop: false };
        }
        if failed.named {
            self.given_up(number);
        }
        self.tell_broken(&failed.what);
        Failure { refused: Refused::Broken, stop: true }
    }

    /// Segment `number` has a name and will not be used.
    pub(super) fn given_up(&self, number: u64) {
        let mut state = self.gate.lock();
        state.book.highest = state.book.highest.max(number);
        state.book.orphans.push(number);
    }

    pub(super) fn tell_no_room(&self, what: &str) {
        let told = std::mem::replace(&mut self.gate.lock().book.no_room, true);
        if !told {
            (self.watch)(&Event::NoRoom { what: what.to_owned() });
        }
        self.bell.ring();
    }

    /// Makes segment `number`, from a spare if there is one, as the successor of `before`.
    pub(super) fn make_segment(
        &self,
        number: u64,
        base_seq: u64,
        before: &Current,
    ) -> Result<Current, NotMade> {
        let (spare, low_water) = {
            let mut state = self.gate.lock();
            (state.book.spares.pop(), state.book.trim_durable)
        };
        let from = match spare {
            Some(name) => name,
            None => self.inline_spare()?,
        };
        let header = Header {
            store: self.store,
            number,
            low_water,
            base_seq,
            prev_number: before.number,
            prev_end: before.end,
            bytes: self.limits.segment_bytes,
            created_ms: (self.created_ms)(),
        };
        let file = establish::segment(&*self.disk, &from, &header, self.syncs_names())?;
        Ok(Current { number, end: HEADER_BYTES, bytes: self.limits.segment_bytes, file })
    }

    fn inline_spare(&self) -> Result<String, NotMade> {
        let name = self.spare_name();
        match establish::spare(&*self.disk, &name, self.limits.segment_bytes) {
            Ok(()) => Ok(name),
            Err(error) => {
                let what = format!("cannot make {:?}: {error}", self.disk.shown(&name));
                Err(NotMade { error, named: false, what })
            }
        }
    }

    /// A name that no file has.
    pub(super) fn spare_name(&self) -> String {
        format!("spare-{}{}", self.names.fetch_add(1, Relaxed), establish::TEMPORARY)
    }

    #[cfg(not(test))]
    fn syncs_names(&self) -> bool {
        true
    }

    #[cfg(test)]
    fn syncs_names(&self) -> bool {
        self.seed != Some(Seed::NoDirSyncOnRoll)
    }
}

/// Whether the disk says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
