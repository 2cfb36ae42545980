//! The words of the journal's interface.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::format;
#[cfg(test)]
use super::seed::Seed;
use crate::side_effect::Refused;

/// Where a record lies. Ordered as the records were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the record's head in the segment's file, in bytes.
    pub offset: u32,
    /// Length of the body, in bytes.
    pub len: u32,
}

/// What is appended and replayed: a kind (1 to 199 are the caller's) and a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// 1 to 199.
    pub kind: u8,
    /// The body, up to [`Options::record_bytes_max`].
    pub body: &'a [u8],
}

/// What an append is for, which decides whether it may use the last room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Takes something new in: leaves a segment's worth of room for [`Class::Finish`].
    Accept,
    /// Goes on with what was taken in, or ends it.
    Finish,
}

/// What happened, told to [`Options::watch`] with no lock held. The callee must not block.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A batch has become durable.
    Synced {
        /// Records in it.
        records: u64,
        /// Bytes written for it.
        bytes: u64,
        /// How long the sync took (without the write).
        took: Duration,
    },
    /// A write or sync has failed: nothing is accepted until [`Event::Opened`]. Everything that was not durable was answered with
    /// [`Refused::Broken`].
    Broken {
        /// What failed, with its file.
        what: String,
    },
    /// The fault is over, on a fresh segment: what failed can be appended again.
    Opened,
    /// A spare segment could not be made: what is there is used up, and it is tried again. Told once per such time.
    NoRoom {
        /// Why.
        what: String,
    },
    /// There is room again.
    Room,
    /// A segment below the low-water mark was set aside because damage had been found in it.
    SetAside {
        /// Its new name, with its directory.
        file: String,
    },
}

/// Who is told of [`Event`]s.
pub type Watch = Arc<dyn Fn(&Event) + Send + Sync>;

/// Settings of a journal.
#[derive(Clone)]
pub struct Options {
    /// Size of a segment's file, in bytes; a multiple of 4096, 8192 to 256 MiB. Segments of another size are read as they are.
    pub segment_bytes: u32,
    /// Bound of the directory's use, in bytes, spare and set-aside files included; at least three segments. (At start one more
    /// segment is written before the old one goes.)
    pub bytes_max: u64,
    /// Longest body, in bytes; it has to fit into a segment.
    pub record_bytes_max: u32,
    /// Bound of what waits in memory for the disk, in bytes. [`Class::Finish`] may use twice as much.
    pub unsynced_bytes_max: usize,
    /// How many empty segments are kept ready, if there is room: with fewer of them disk is saved, with none a thread that commits has to
    /// make the next segment itself.
    pub spare_segments: usize,
    /// Identity of the store, for a new directory: random. An old directory keeps its own.
    pub store: u128,
    /// Wall clock in milliseconds since 1970, for the headers (shown to people only).
    pub created_ms: fn() -> u64,
    /// Who is told what happens.
    pub watch: Watch,
    /// A fault built in for a test that has to find it.
    #[cfg(test)]
    pub(crate) seed: Option<Seed>,
}

/// Greatest size of a segment's file, in bytes: recovery has one in memory at a time.
pub(super) const SEGMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Default size of a segment's file, in bytes.
pub const SEGMENT_BYTES: u32 = 16 * 1024 * 1024;

impl Options {
    /// Defaults: segments of 16 MiB (smaller when `bytes_max` is below 8 of them, so that there are always eight, but not below 64 KiB),
    /// records of up to 1 MiB or a quarter of a segment, 64 MiB or two segments unsynced, two spare segments: one for what is
    /// appended next, one for [`Class::Finish`].
    pub fn new(bytes_max: u64, store: u128, watch: Watch) -> Options {
        let eighth = u32::try_from(bytes_max / 8).unwrap_or(u32::MAX) / 4096 * 4096;
        let segment_bytes = eighth.clamp(64 * 1024, SEGMENT_BYTES);
        Options {
            segment_bytes,
            bytes_max,
            record_bytes_max: (segment_bytes / 4).min(1024 * 1024),
            unsynced_bytes_max: (segment_bytes as usize * 2).min(64 * 1024 * 1024),
            spare_segments: 2,
            store,
            created_ms: wall_ms,
            watch,
            #[cfg(test)]
            seed: None,
        }
    }

    /// Most bytes that one append can carry, heads included.
    pub fn append_bytes_max(&self) -> u64 {
        u64::from(self.segment_bytes) - format::HEADER_BYTES
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let segment = u64::from(self.segment_bytes);
        let sizes = 2 * format::HEADER_BYTES..=SEGMENT_BYTES_MAX;
        if !self.segment_bytes.is_multiple_of(4096) || !sizes.contains(&segment) {
            return Err(format!(
                "segment_bytes {segment} is not a multiple of 4096 from 8192 to {SEGMENT_BYTES_MAX}"
            ));
        }
        if self.bytes_max < 3 * segment {
            return Err(format!(
                "a bound of {} bytes is too small for three segments of {segment}: raise it",
                self.bytes_max
            ));
        }
        if format::record_bytes(self.record_bytes_max as usize) > self.append_bytes_max() {
            return Err(format!(
                "records of {} bytes do not fit into segments of {segment}",
                self.record_bytes_max
            ));
        }
        Ok(())
    }
}

fn wall_ms() -> u64 {
    crate::clock::wall()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// What recovery found wrong. The file is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, with its directory; for a missing one, the name that it would have.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: DamageKind,
}

/// Kinds of [`Damage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DamageKind {
    /// Bytes that are no valid record although they had been synced; what is intact behind them was replayed.
    Records {
        /// How many bytes.
        bytes: u64,
        /// How many records were lost with them.
        lost: u64,
    },
    /// The segment's header is damaged; its records were read nevertheless.
    Header,
    /// The file has no bytes.
    Empty,
    /// The file is shorter than its header says (or than a header); what is there was replayed.
    Truncated {
        /// Bytes that it should have; 0 when that is unknown.
        expected: u64,
    },
    /// The file is of another store or is no segment: not read.
    Foreign,
    /// The header names another segment number than the file name: not read.
    Misplaced {
        /// The number in the header.
        number: u64,
    },
    /// Written by a later version: not read.
    Future {
        /// Its version.
        version: u32,
    },
    /// The file is not there although its successor is.
    Missing,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at offset {}: {}", self.file, self.offset, self.what)
    }
}

/// Without the place: that is the [`Damage`]'s.
impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DamageKind::Records { bytes, lost } => {
                write!(f, "{bytes} bytes are damaged, {lost} records lost; the others were replayed")
            }
            DamageKind::Header => f.write_str("the header is damaged; intact records were replayed"),
            DamageKind::Empty => f.write_str("the file is empty"),
            DamageKind::Truncated { expected: 0 } => f.write_str("the file ends here, within its header"),
            DamageKind::Truncated { expected } => {
                write!(f, "the file ends here instead of at {expected}; what is there was replayed")
            }
            DamageKind::Foreign => f.write_str("not a segment of this store; not read"),
            DamageKind::Misplaced { number } => {
                write!(f, "the header is that of segment {number}; not read: give the file its own name back")
            }
            DamageKind::Future { version } => {
                write!(f, "format version {version} is of a later release; not read")
            }
            DamageKind::Missing => f.write_str("the segment is missing"),
        }
    }
}

/// What opening a journal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, by file. Nothing of it was deleted.
    pub damages: Vec<Damage>,
    /// Segments that were read.
    pub segments: u64,
    /// Bytes of valid records that were read.
    pub bytes: u64,
    /// Entries given to the caller.
    pub entries: u64,
    /// Bytes of a torn tail that was cut: never durable, nobody was told that they were.
    pub torn_bytes: u64,
    /// Whether the journal had been closed in order.
    pub closed: bool,
}

/// Why a journal could not be opened. Nothing was lost by it.
#[derive(Debug)]
pub enum OpenError {
    /// The settings do not fit together.
    Options(String),
    /// The disk refused a step; a read error is one too, and never taken for the end of the log.
    Io {
        /// The file (or directory), as shown to people.
        file: String,
        /// The step.
        doing: &'static str,
        /// The disk's answer.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Options(what) => f.write_str(what),
            OpenError::Io { file, doing, error } => {
                write!(f, "cannot {doing} {file:?}: {error}")?;
                match error.kind() {
                    io::ErrorKind::StorageFull => {
                        f.write_str("; free some room: the newest segment is written anew at start")
                    }
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                        f.write_str("; the directory and its files have to be writable for this user")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// Segments and bytes of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segments {
    /// Number of the oldest segment that is needed.
    pub front: u64,
    /// Number of the segment that is appended to.
    pub current: u64,
    /// How many there are from the front on.
    pub count: u64,
    /// How many before the front are still to be removed.
    pub going: u64,
    /// Bytes of the directory in use: segments, spares and files that were set aside.
    pub bytes: u64,
}

/// Counts since the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records appended.
    pub appended_records: u64,
    /// Bytes appended, heads included.
    pub appended_bytes: u64,
    /// Bytes that have become durable.
    pub synced_bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Faults so far.
    pub faults: u64,
    /// Bytes that wait in memory for the disk.
    pub unsynced_bytes: u64,
    /// Why appends of [`Class::Accept`] are refused, if they are.
    pub refused: Option<Refused>,
}
