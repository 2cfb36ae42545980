//! Appending: what the thread that evaluated a record does. See the module's documentation for the whole picture.

use std::borrow::Cow;
use std::io::{self, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use crossbeam_channel::Sender;

use nix::sys::resource::{Resource, getrlimit};

use super::flights::Flights;
use super::fs::{self, FileId};
use super::generation::{Description, Generation, Live};
use super::lines::{bytes_of, first_bytes, line, write_once};
use super::names::Names;
use super::repair::{Fragment, PROBE_BYTES_MAX};
use crate::config::{self, SyncPolicy};
use crate::metrics::{self, Counter, Registry};

/// Files up to this size have a spare from the start; larger ones get theirs at half of the size.
const EARLY_SPARE_BYTES: u64 = 16 << 20;
/// Turns that one append takes at most: each means that another thread replaced the generation meanwhile.
const TURNS_MAX: usize = 1000;

/// What governs one log file: the configuration's keys, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) bytes_max: u64,
    pub(super) backups_max: u32,
    pub(super) age_days_max: u32,
    pub(super) compress: bool,
    pub(super) sync: SyncPolicy,
}

impl From<&config::LogFile> for Options {
    fn from(from: &config::LogFile) -> Self {
        /// lumberjack's default, in MiB.
        const DEFAULT_MIB: u64 = 100;
        let mib = if from.max_size == 0 { DEFAULT_MIB } else { from.max_size };
        Options {
            bytes_max: mib.saturating_mul(1 << 20),
            backups_max: from.max_backups,
            age_days_max: from.max_age,
            compress: from.compress,
            sync: from.sync,
        }
    }
}

impl Options {
    /// Size at which the keeper makes a spare; 0: there is one from the start.
    pub(super) fn spare_at(&self) -> u64 {
        if self.bytes_max <= EARLY_SPARE_BYTES { 0 } else { self.bytes_max / 2 }
    }

    /// Rotated files are looked after.
    pub(super) fn archives(&self) -> bool {
        self.backups_max > 0 || self.age_days_max > 0 || self.compress
    }
}

/// One log file, shared by the groups that name it and by the threads that evaluate.
///
/// Guaranteed for every [`append`](LogFile::append): whole lines, never torn or interleaved, in the file when it returns `Ok`.
/// Nothing on that path waits for a rotation, a compression or another file; what the kernel itself does to order two writes to
/// one file is all that two appends share.
#[derive(Debug)]
pub struct LogFile {
    pub(super) names: Names,
    /// A reload may change them.
    options: ArcSwap<Options>,
    /// The path as people know it.
    pub(super) label: String,
    pub(super) current: ArcSwap<Generation>,
    pub(super) live: Arc<Live>,
    /// Rotated files wait for retention or compression.
    pub(super) archive_due: AtomicBool,
    /// Appends that went beyond the size because no spare was ready.
    pub(super) overruns: AtomicU64,
    /// Failed appends that diagnostics have not told of, and the last of them.
    pub(super) failures: AtomicU64,
    pub(super) last_failure: ArcSwapOption<String>,
    /// The last append failed.
    failing: AtomicBool,
    pub(super) flights: Arc<Flights>,
    pub(super) rotations: Arc<Counter>,
    pub(super) keeper_errors: Arc<Counter>,
    write_errors: Arc<Counter>,
    syncs: Arc<Counter>,
    keeper: Sender<()>,
}

enum Turn {
    /// So many lines are in the file.
    Wrote(usize),
    /// The generation was replaced.
    Again,
}

impl LogFile {
    pub(super) fn open(
        names: Names,
        label: String,
        options: Options,
        keeper: Sender<()>,
        metrics: &Registry,
    ) -> io::Result<LogFile> {
        let live = Arc::new(Live::default());
        let first = open_current(&names, options, &live)?;
        let flights = Arc::<Flights>::default();
        flights.show(metrics, &label);
        Ok(LogFile {
            current: ArcSwap::from_pointee(first),
            live,
            archive_due: AtomicBool::new(options.archives()),
            overruns: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_failure: ArcSwapOption::empty(),
            failing: AtomicBool::new(false),
            flights,
            rotations: metrics.counter(&metrics::LOG_ROTATIONS, &[&label]),
            keeper_errors: metrics.counter(&metrics::LOG_KEEPER_ERRORS, &[&label]),
            write_errors: metrics.counter(&metrics::LOG_WRITE_ERRORS, &[&label]),
            syncs: metrics.counter(&metrics::LOG_SYNCS, &[&label]),
            names,
            options: ArcSwap::from_pointee(options),
            label,
            keeper,
        })
    }

    pub(super) fn options(&self) -> Options {
        **self.options.load()
    }

    /// From now on the keys of `config` govern the file, but for its path: a smaller size counts from the next append on, retention and
    /// compression at the keeper's next look. Does not block.
    pub fn reconfigure(&self, config: &config::LogFile) {
        let options = Options::from(config);
        if options != self.options() {
            self.options.store(Arc::new(options));
            self.archive_due.store(options.archives(), Ordering::Release);
            self.wake_keeper();
        }
    }

    /// The path as configured.
    pub fn path(&self) -> &str {
        &self.label
    }

    /// Appends each record as one line.
    ///
    /// `Ok` means: every line is whole in a file that had a name after the write and, with `sync: always`, on the disk. Blocks for
    /// the writes themselves; no rotation, compression or other file is waited for.
    /// The records go to the file with one `writev`, divided only where a rotation comes between two of them.
    ///
    /// # Errors
    /// The disk is full, a limit is reached, the disk fails, or a torn write is just being cut out (`WouldBlock`): nothing may be
    /// acked, and the next try may well succeed. No part of a line stays. Whole lines of the batch may: those in front of a
    /// rotation within the batch, and all of them when only the sync failed. Counted in `log_write_errors_total`.
    pub fn append(&self, records: &[&[u8]]) -> io::Result<()> {
        let _flight = self.flights.begin();
        let done = match records {
            [one] => self.append_lines(&[line(one)]),
            many => self.append_lines(&many.iter().map(|r| line(r)).collect::<Vec<_>>()),
        };
        // Written only when it changes: the line is shared by all threads that append.
        if done.is_err() != self.failing.load(Ordering::Relaxed) {
            self.failing.store(done.is_err(), Ordering::Relaxed);
        }
        done.map_err(|e| self.failed(&e))
    }

    /// Whether the last append succeeded (true before the first one). Does not block.
    pub fn is_writable(&self) -> bool {
        !self.failing.load(Ordering::Relaxed)
    }

    fn append_lines(&self, mut lines: &[Cow<'_, [u8]>]) -> io::Result<()> {
        let mut turns = 0;
        while !lines.is_empty() {
            match self.turn(&self.current.load(), lines)? {
                Turn::Wrote(count) => lines = &lines[count..],
                Turn::Again if turns < TURNS_MAX => turns += 1,
                Turn::Again => {
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, "it is replaced too often"));
                }
            }
        }
        Ok(())
    }

    fn turn(&self, current: &Guard<Arc<Generation>>, lines: &[Cow<'_, [u8]>]) -> io::Result<Turn> {
        let Some(_pass) = current.gate.enter() else {
            return self.kept_out(current);
        };
        let options = self.options();
        let Some(room) = self.reserve(current, lines, &options) else {
            return Ok(Turn::Again);
        };
        let lines = &lines[..room.lines];
        let given_back = |e: io::Error| {
            current.size.fetch_sub(room.bytes, Ordering::AcqRel);
            e
        };
        let description = current.descriptions.take().map_err(given_back)?;
        match write_once(&description, lines) {
            Ok(written) if written as u64 == room.bytes => {}
            Ok(written) => return Err(self.fell_short(current, &description, lines, written, room.bytes)),
            Err(e) => return self.refused(current, &room, given_back(e)),
        }
        if fs::link_count(&description)? == 0 && self.replace_unlinked(current)? {
            return Ok(Turn::Again);
        }
        self.make_durable(current, &description, options.sync)?;
        Ok(Turn::Wrote(lines.len()))
    }

    /// The generation is closed: another has taken its place, or a torn write is being cut out, or the keeper has ended and has
    /// closed its spares.
    fn kept_out(&self, current: &Guard<Arc<Generation>>) -> io::Result<Turn> {
        if !Arc::ptr_eq(&self.current.load(), current) {
            return Ok(Turn::Again);
        }
        if current.gate.is_retired() {
            self.open_anew(current)?;
            return Ok(Turn::Again);
        }
        if current.gate.in_repair() {
            let why = "a write that fell short is being cut out";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
        }
        Ok(Turn::Again)
    }

    /// Takes room for as many of the lines as belong into this generation; `None`: the generation has been replaced.
    fn reserve(
        &self,
        current: &Guard<Arc<Generation>>,
        lines: &[Cow<'_, [u8]>],
        options: &Options,
    ) -> Option<Room> {
        let spent = current.spent.load(Ordering::Acquire);
        let mut start = current.size.load(Ordering::Acquire);
        loop {
            let room = if spent && start > 0 { None } else { Room::within(options.bytes_max, start, lines) };
            let Some(room) = room else { return self.rotate(current, lines) };
            match current.size.compare_exchange_weak(
                start,
                start + room.bytes,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    let half = options.spare_at();
                    if start < half && half <= start + room.bytes {
                        self.wake_keeper();
                    }
                    return Some(room);
                }
                Err(now) => start = now,
            }
        }
    }

    /// Puts the next generation in the place of a full one. Without one at hand the full one goes on growing: nobody waits.
    fn rotate(&self, full: &Guard<Arc<Generation>>, lines: &[Cow<'_, [u8]>]) -> Option<Room> {
        let Some(next) = full.next.load_full() else {
            self.overruns.fetch_add(1, Ordering::Relaxed);
            self.wake_keeper();
            let mut room = Room::all(lines);
            room.start = full.size.fetch_add(room.bytes, Ordering::AcqRel);
            return Some(room);
        };
        let _ = self.current.compare_and_swap(full, next);
        self.wake_keeper();
        None
    }

    /// The kernel took only the first bytes: nobody enters until the keeper has cut them out.
    fn fell_short(
        &self,
        current: &Generation,
        mut description: &std::fs::File,
        lines: &[Cow<'_, [u8]>],
        written: usize,
        wanted: u64,
    ) -> io::Error {
        if written == 0 {
            current.size.fetch_sub(wanted, Ordering::AcqRel);
            return short(io::ErrorKind::StorageFull, written, wanted, "the disk is full");
        }
        let end = match description.stream_position() {
            Ok(end) => end,
            Err(e) => return e,
        };
        let start = end.saturating_sub(written as u64);
        current.fragments.lock().push(Fragment {
            start,
            bytes: written as u64,
            probe: first_bytes(lines, PROBE_BYTES_MAX.min(written)),
        });
        current.gate.close_for_repair();
        let limited = getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(soft, _)| soft <= end);
        if limited && start > 0 {
            current.spent.store(true, Ordering::Release);
        }
        self.wake_keeper();
        if limited {
            return short(
                io::ErrorKind::FileTooLarge,
                written,
                wanted,
                "the process' file size limit is reached",
            );
        }
        short(io::ErrorKind::StorageFull, written, wanted, "the disk is full or a quota is reached")
    }

    /// Nothing was written. A file that has reached the system's size limit is rotated out, and the lines get another turn.
    fn refused(&self, current: &Generation, room: &Room, e: io::Error) -> io::Result<Turn> {
        let too_large = e.kind() == io::ErrorKind::FileTooLarge;
        if too_large && room.start > 0 && !current.spent.swap(true, Ordering::AcqRel) {
            return Ok(Turn::Again);
        }
        Err(e)
    }

    /// The file was removed under the writer: the lines are in nobody's file. `false`: it is at its path all the same (there are file
    /// systems that count no links).
    fn replace_unlinked(&self, gone: &Guard<Arc<Generation>>) -> io::Result<bool> {
        if !Arc::ptr_eq(&self.current.load(), gone) {
            return Ok(true);
        }
        if fs::look_through(&self.names.path())?.is_some_and(|meta| FileId::of(&meta) == gone.id()) {
            return Ok(false);
        }
        self.open_anew(gone)?;
        Ok(true)
    }

    fn open_anew(&self, instead_of: &Guard<Arc<Generation>>) -> io::Result<()> {
        let fresh = open_current(&self.names, self.options(), &self.live)?;
        let _ = self.current.compare_and_swap(instead_of, Arc::new(fresh));
        self.wake_keeper();
        Ok(())
    }

    /// Whoever brings many records in one append has them share one sync. After a failed sync the kernel may have dropped the pages, so
    /// the file takes no more and is rotated out.
    fn make_durable(
        &self,
        current: &Generation,
        description: &Description<'_>,
        sync: SyncPolicy,
    ) -> io::Result<()> {
        match sync {
            SyncPolicy::Never => Ok(()),
            SyncPolicy::Always => {
                self.syncs.inc();
                description.sync_data().inspect_err(|_| {
                    current.spent.store(true, Ordering::Release);
                    self.wake_keeper();
                })
            }
        }
    }

    pub(super) fn wake_keeper(&self) {
        // A full channel means that it is about to wake anyway.
        let _ = self.keeper.try_send(());
    }

    /// The error with the file's name. Diagnostics are the keeper's: standard error may be slow.
    fn failed(&self, e: &io::Error) -> io::Error {
        let named = format!("cannot append to log file {:?}: {e}", self.label);
        self.write_errors.inc();
        self.last_failure.store(Some(Arc::new(named.clone())));
        self.failures.fetch_add(1, Ordering::AcqRel);
        self.wake_keeper();
        io::Error::new(e.kind(), named)
    }
}

fn short(kind: io::ErrorKind, written: usize, wanted: u64, why: &str) -> io::Error {
    io::Error::new(kind, format!("only {written} of {wanted} bytes could be written: {why}"))
}

/// Opens the log file at its path, with the directories above it.
pub(super) fn open_current(names: &Names, options: Options, live: &Arc<Live>) -> io::Result<Generation> {
    /// Somebody may be removing the directory at this moment.
    const TRIES: usize = 5;
    let mut outcome = open_once(names, options, live);
    for _ in 1..TRIES {
        match &outcome {
            // A directory that goes while it is made: it was there (so it is not made) and then is not.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
                outcome = open_once(names, options, live);
            }
            _ => break,
        }
    }
    outcome
}

fn open_once(names: &Names, options: Options, live: &Arc<Live>) -> io::Result<Generation> {
    let path = names.path();
    fs::create_dirs(names.dir()).map_err(|e| fs::doing(&e, "make the directory", names.dir()))?;
    let opened =
        Generation::open(&path, false, live).map_err(|e| fs::doing(&e, "open the log file", &path))?;
    if options.sync == SyncPolicy::Always {
        fs::sync_dir(names.dir()).map_err(|e| fs::doing(&e, "sync the directory", names.dir()))?;
    }
    Ok(opened)
}

/// Room taken in a generation.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    /// Size of the file in front of it.
    start: u64,
    lines: usize,
    bytes: u64,
}

impl Room {
    /// As many lines as fit behind `start`; one at least when the file is empty, so that a record larger than a file gets one of its
    /// own.
    fn within(max: u64, start: u64, lines: &[Cow<'_, [u8]>]) -> Option<Room> {
        let mut room = Room { start, lines: 0, bytes: 0 };
        for line in lines {
            let bytes = room.bytes + bytes_of(line);
            let fits = start.checked_add(bytes).is_some_and(|end| end <= max);
            if !fits && (start > 0 || room.lines > 0) {
                break;
            }
            room.lines += 1;
            room.bytes = bytes;
        }
        (room.lines > 0).then_some(room)
    }

    fn all(lines: &[Cow<'_, [u8]>]) -> Room {
        Room { start: 0, lines: lines.len(), bytes: lines.iter().map(|l| bytes_of(l)).sum() }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{Options, Room};
    use crate::config::{LogFile, SyncPolicy};

    #[test]
    fn lines_are_divided_as_lumberjack_divides_them() {
        let room = |max, start, sizes: &[usize]| {
            let lines: Vec<Cow<'_, [u8]>> =
                sizes.iter().map(|bytes| Cow::Owned(vec![b'x'; bytes - 1])).collect();
            Room::within(max, start, &lines).map(|r| (r.lines, r.bytes))
        };
        assert_eq!(room(10, 0, &[5, 5, 1]), Some((2, 10)), "up to the size and not beyond");
        assert_eq!(room(10, 6, &[4]), Some((1, 4)));
        assert_eq!(room(10, 7, &[4]), None, "it begins a new file");
        assert_eq!(room(10, 0, &[11, 1]), Some((1, 11)), "larger than a file: a file of its own");
        assert_eq!(room(10, 1, &[11]), None);
        assert_eq!(room(10, 0, &[1, 11]), Some((1, 1)));
        assert_eq!(room(u64::MAX, u64::MAX - 1, &[5]), None);
    }

    #[test]
    fn sizes_are_in_mib_and_have_lumberjacks_default() {
        let config = |max_size| LogFile {
            file_path: "a".into(),
            max_size,
            max_backups: 0,
            max_age: 0,
            compress: false,
            sync: SyncPolicy::Never,
        };
        for (max_size, bytes) in [(0, 100 << 20), (1, 1 << 20), (100, 100 << 20), (u64::MAX, u64::MAX)] {
            assert_eq!(Options::from(&config(max_size)).bytes_max, bytes);
        }
    }
}
