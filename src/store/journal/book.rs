//! What the journal remembers: where the next record goes, which segments there are, and how much room is left. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::format::{self, HEADER_BYTES};
use super::gate::{self, Batch};
use super::types::{Class, Entry, Options, Position};
use crate::side_effect::{Done, Refused};
use crate::store::disk::DiskFile;

/// Records for one segment that become durable together.
pub(super) struct Chunk {
    pub(super) segment: u64,
    /// Where in the segment they go.
    pub(super) offset: u64,
    pub(super) first_seq: u64,
    /// The records, not yet sealed.
    pub(super) bytes: Vec<u8>,
    /// The low-water mark in them.
    pub(super) trim: u64,
    /// Whether one of them is of [`Class::Finish`], for which the keeper looks.
    pub(super) finish: bool,
}

/// The segment that is appended to.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) number: u64,
    /// Where its durable records end.
    pub(super) end: u64,
    /// Size of its file.
    pub(super) bytes: u64,
    pub(super) file: Arc<dyn DiskFile>,
}

/// A segment of the journal, from the front to the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Size of its file.
    pub(super) bytes: u64,
    /// Whether damage was found in it.
    pub(super) damaged: bool,
}

/// Sizes and bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) segment_bytes: u64,
    pub(super) bytes_max: u64,
    pub(super) record_bytes_max: u32,
    pub(super) unsynced_bytes_max: usize,
    pub(super) spare_segments: usize,
}

impl Limits {
    pub(super) fn of(options: &Options) -> Limits {
        Limits {
            segment_bytes: u64::from(options.segment_bytes),
            bytes_max: options.bytes_max,
            record_bytes_max: options.record_bytes_max,
            unsynced_bytes_max: options.unsynced_bytes_max,
            spare_segments: options.spare_segments,
        }
    }
}

pub(super) struct Book {
    pub(super) limits: Limits,
    pub(super) current: Current,
    /// Segment and offset of the next record.
    cursor: (u64, u64),
    /// Segments that appends count on and that are not yet made.
    planned: u64,
    /// The highest number that any file has or had.
    pub(super) highest: u64,
    segments: BTreeMap<u64, Segment>,
    segments_bytes: u64,
    /// Names of empty, synced files of a segment's size.
    pub(super) spares: Vec<String>,
    /// Bytes of files that are kept but not used: set aside, foreign.
    pub(super) kept_bytes: u64,
    /// The last spare could not be made.
    pub(super) no_room: bool,
    /// Low-water mark: asked for, and durable.
    pub(super) trim_asked: u64,
    pub(super) trim_durable: u64,
    /// Segments that were begun and given up.
    pub(super) orphans: Vec<u64>,
    pub(super) unsynced_bytes: usize,
    pub(super) appended_records: u64,
    pub(super) appended_bytes: u64,
    pub(super) synced_bytes: u64,
    pub(super) syncs: u64,
    pub(super) faults: u64,
    /// Whether a Mark (or Close) is the last record, or there is none.
    pub(super) marked: bool,
}

pub(super) type State = gate::State<Book>;

impl Book {
    pub(super) fn new(limits: Limits, current: Current, highest: u64) -> Book {
        let mut book = Book {
            limits,
            cursor: (current.number, current.end),
            planned: 0,
            highest,
            segments: BTreeMap::new(),
            segments_bytes: 0,
            spares: Vec::new(),
            kept_bytes: 0,
            no_room: false,
            trim_asked: 0,
            trim_durable: 0,
            orphans: Vec::new(),
            unsynced_bytes: 0,
            appended_records: 0,
            appended_bytes: 0,
            synced_bytes: 0,
            syncs: 0,
            faults: 0,
            marked: false,
            current: current.clone(),
        };
        book.enter(current.number, Segment { bytes: current.bytes, damaged: false });
        book
    }

    /// There is a segment `number`.
    pub(super) fn enter(&mut self, number: u64, segment: Segment) {
        self.segments_bytes += segment.bytes;
        if let Some(old) = self.segments.insert(number, segment) {
            self.segments_bytes -= old.bytes;
        }
    }

    /// There is no segment `number` any more.
    pub(super) fn leave(&mut self, number: u64) {
        if let Some(old) = self.segments.remove(&number) {
            self.segments_bytes -= old.bytes;
        }
    }

    /// The segments from the front on.
    pub(super) fn segments(&self) -> &BTreeMap<u64, Segment> {
        &self.segments
    }

    /// Bytes of the directory in use.
    pub(super) fn bytes(&self) -> u64 {
        let segments = self.segments_bytes;
        let ready = (self.spares.len() + self.orphans.len()) as u64 * self.limits.segment_bytes;
        segments + ready + self.kept_bytes
    }

    /// How many more segments can be counted on.
    pub(super) fn further_segments(&self) -> u64 {
        let spares = self.spares.len() as u64;
        let room = self.limits.bytes_max.saturating_sub(self.bytes()) / self.limits.segment_bytes;
        let all = if self.no_room { spares } else { spares + room };
        all.saturating_sub(self.planned)
    }

    /// Whether another spare may be made beside those that are there.
    pub(super) fn wants_spare(&self) -> bool {
        let unmade = self.planned.saturating_sub(self.spares.len() as u64);
        self.spares.len() < self.limits.spare_segments
            && self.bytes() + (unmade + 1) * self.limits.segment_bytes <= self.limits.bytes_max
    }

    /// Whether `class` may use `rolls` more segments.
    fn room(&self, class: Class, rolls: u64) -> bool {
        let kept = match class {
            Class::Accept => 1,
            Class::Finish => 0,
        };
        rolls + kept == 0 || self.further_segments() >= rolls + kept
    }

    pub(super) fn takes(&self, class: Class) -> bool {
        self.room(class, 0)
    }

    /// Size of the file of the segment that the next record goes to.
    fn cursor_bytes(&self) -> u64 {
        if self.cursor.0 == self.current.number { self.current.bytes } else { self.limits.segment_bytes }
    }

    /// Where the segment that follows `number` has its number.
    pub(super) fn number_after(&self, number: u64) -> u64 {
        number.max(self.highest) + 1
    }

    /// A new segment is the current one, empty.
    pub(super) fn established(&mut self, current: Current) {
        self.highest = self.highest.max(current.number);
        self.enter(current.number, Segment { bytes: current.bytes, damaged: false });
        self.current = current;
    }

    /// A segment that was planned has been made.
    pub(super) fn rolled(&mut self, current: Current) {
        self.planned = self.planned.saturating_sub(1);
        self.established(current);
    }

    /// The next record goes behind the durable ones of the current segment.
    pub(super) fn restart(&mut self) {
        self.planned = 0;
        self.cursor = (self.current.number, self.current.end);
    }

    /// Segment that the next record goes to.
    pub(super) fn cursor_segment(&self) -> u64 {
        self.cursor.0
    }
}

impl gate::Book for Book {
    type Payload = Chunk;

    fn settle(&mut self, chunk: &Chunk) {
        self.current.end = chunk.offset + chunk.bytes.len() as u64;
        self.trim_durable = self.trim_durable.max(chunk.trim);
        self.unsynced_bytes = self.unsynced_bytes.saturating_sub(chunk.bytes.len());
        self.synced_bytes += chunk.bytes.len() as u64;
        self.syncs += 1;
    }

    fn rewind(&mut self, stopped: bool) {
        self.unsynced_bytes = 0;
        self.trim_asked = self.trim_durable;
        self.faults += u64::from(stopped);
        self.marked = false;
        self.restart();
    }
}

/// Enters `entries` into the queue of batches: all next to each other, or none. Whether this is the first one that waits.
pub(super) fn place(
    state: &mut State,
    class: Class,
    entries: &[Entry<'_>],
    trim: u64,
    done: Done,
) -> Result<(Vec<Position>, bool), (Refused, Done)> {
    if let Some(why) = state.stopped {
        return Err((why, done));
    }
    let limits = state.book.limits;
    let too_long = entries.iter().any(|e| e.body.len() > limits.record_bytes_max as usize);
    let bytes: u64 = entries.iter().map(|e| format::record_bytes(e.body.len())).sum();
    let unsynced_max = match class {
        Class::Accept => limits.unsynced_bytes_max as u64,
        Class::Finish => limits.unsynced_bytes_max as u64 * 2,
    };
    let book = &mut state.book;
    let rolls = u64::from(book.cursor.1 + bytes > book.cursor_bytes());
    if too_long
        || bytes > limits.segment_bytes - HEADER_BYTES
        || book.unsynced_bytes as u64 + bytes > unsynced_max
        || !book.room(class, rolls)
    {
        return Err((Refused::Full, done));
    }
    if rolls > 0 {
        book.planned += 1;
        book.cursor = (book.number_after(book.cursor.0), HEADER_BYTES);
    }
    let first = state.queue.is_empty();
    let positions = push(state, entries, bytes as usize);
    if let Some(batch) = state.queue.back_mut() {
        batch.payload.trim = batch.payload.trim.max(trim);
        batch.payload.finish |= class == Class::Finish;
        batch.upto = state.next;
        batch.dones.push(done);
    }
    Ok((positions, first))
}

/// Appends the records to the last batch that waits, or to a new one.
fn push(state: &mut State, entries: &[Entry<'_>], bytes: usize) -> Vec<Position> {
    let book = &mut state.book;
    let (segment, offset) = book.cursor;
    // A Close has a sync of its own: only then does it say that everything before it was durable.
    let alone = entries.first().is_some_and(|entry| entry.kind == format::KIND_CLOSE);
    if alone || state.queue.back().is_none_or(|batch| batch.payload.segment != segment) {
        let payload = Chunk {
            segment,
            offset,
            first_seq: state.next,
            bytes: Vec::with_capacity(bytes),
            trim: 0,
            finish: false,
        };
        state.queue.push_back(Batch { payload, upto: state.next, dones: Vec::new() });
    }
    let mut positions = Vec::with_capacity(entries.len());
    if let Some(batch) = state.queue.back_mut() {
        let chunk = &mut batch.payload;
        for entry in entries {
            let at = chunk.offset + chunk.bytes.len() as u64;
            let (offset, len) = (at as u32, entry.body.len() as u32);
            positions.push(Position { segment, offset, len });
            format::push_record(&mut chunk.bytes, state.next, entry.kind, entry.body);
            state.next += 1;
        }
    }
    book.cursor.1 = offset + bytes as u64;
    book.unsynced_bytes += bytes;
    book.appended_bytes += bytes as u64;
    book.appended_records += entries.len() as u64;
    book.marked = false;
    positions
}
