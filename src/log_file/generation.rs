//! One open file of a log file: what a rotation replaces as a whole.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::fs::{self, FileId};
use super::repair::Fragment;

/// Threads that may be inside the write of one file at once. One more waits, as it would in the kernel.
const DESCRIPTIONS_MAX: usize = 64;
/// How long an append waits for a description when all are taken and no other can be opened.
const DESCRIPTION_WAIT_MAX: Duration = Duration::from_secs(1);

/// An open file with its size and the threads that are writing to it.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) gate: Gate,
    /// Bytes in the file plus bytes about to be written to it.
    pub(super) size: AtomicU64,
    /// The file takes no more (file size limit, failed sync): rotate, whatever its size.
    pub(super) spent: AtomicBool,
    /// The generation after this one. Only the keeper sets it, ahead of time, and clears it when it ends.
    pub(super) next: ArcSwapOption<Generation>,
    /// Torn pieces that wait for the keeper. The lock is held for a push or a take, never for I/O.
    pub(super) fragments: Mutex<Vec<Fragment>>,
    pub(super) descriptions: Descriptions,
    id: FileId,
    _live: LiveToken,
}

impl Generation {
    /// Opens the file at `path`, made when it is not there (with `create_new`: it must not be). A line that a crash left
    /// without its end is ended, so that it is never glued to the next record.
    pub(super) fn open(path: &Path, create_new: bool, live: &Arc<Live>) -> io::Result<Generation> {
        let (file, meta) = fs::open_append(path, create_new)?;
        let id = FileId::of(&meta);
        let (token, alone) = live.enter(id);
        let mut len = meta.len();
        // Where others are writing to the file, its last byte is theirs: it may be the middle of a line that they are writing.
        if alone && fs::ends_torn(&file, len)? {
            io::Write::write_all(&mut &file, b"\n")?;
            len += 1;
        }
        Ok(Generation::of(file, len, id, token))
    }

    fn of(file: File, len: u64, id: FileId, token: LiveToken) -> Generation {
        Generation {
            gate: Gate::default(),
            size: AtomicU64::new(len),
            spent: AtomicBool::new(false),
            next: ArcSwapOption::empty(),
            fragments: Mutex::new(Vec::new()),
            descriptions: Descriptions::new(file),
            id,
            _live: token,
        }
    }

    /// A pipe in the place of a file: a write to it hangs for as long as a test does not read.
    #[cfg(test)]
    pub(super) fn of_pipe(writer: File, live: &Arc<Live>) -> Generation {
        let id = FileId::of(&writer.metadata().expect("the pipe"));
        let (token, _) = live.enter(id);
        Generation::of(writer, 0, id, token)
    }

    /// Which file it is.
    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Size, links and times of the file now.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.descriptions.first().metadata()
    }
}

/// Counts the threads inside a generation, and keeps new ones out while it is repaired or once it has been retired.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU32);

/// Closed until the repair has ended.
const REPAIR: u32 = 1 << 31;
/// Closed for ever.
const RETIRED: u32 = 1 << 30;

/// One thread inside a [`Gate`].
pub(super) struct Pass<'a>(&'a Gate);

impl Gate {
    /// Lets the caller in until it drops the pass; `None` when closed. Never waits.
    pub(super) fn enter(&self) -> Option<Pass<'_>> {
        if self.0.load(Ordering::Acquire) & (REPAIR | RETIRED) != 0 {
            return None;
        }
        let before = self.0.fetch_add(1, Ordering::AcqRel);
        let pass = Pass(self);
        (before & (REPAIR | RETIRED) == 0).then_some(pass)
    }

    /// Closes for a repair; those inside stay until they are done.
    pub(super) fn close_for_repair(&self) {
        self.0.fetch_or(REPAIR, Ordering::AcqRel);
    }

    /// Opens after a repair.
    pub(super) fn repaired(&self) {
        self.0.fetch_and(!REPAIR, Ordering::AcqRel);
    }

    /// Closes for ever.
    pub(super) fn retire(&self) {
        self.0.fetch_or(RETIRED, Ordering::AcqRel);
    }

    /// Closed for a repair.
    pub(super) fn in_repair(&self) -> bool {
        self.0.load(Ordering::Acquire) & REPAIR != 0
    }

    /// Closed for ever.
    pub(super) fn is_retired(&self) -> bool {
        self.0.load(Ordering::Acquire) & RETIRED != 0
    }

    /// Nobody is inside. With the gate closed, nobody will be.
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) & !(REPAIR | RETIRED) == 0
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Open file descriptions of one file, each used by one thread at a time. So a thread whose write fell short knows from its file
/// position where the fragment lies, whoever else is appending; and nobody waits for the kernel's lock of a shared position.
/// They are opened as they are needed: a file has as many as threads have been writing to it at once.
#[derive(Debug)]
pub(super) struct Descriptions(Box<[Slot]>);

#[derive(Debug, Default)]
struct Slot {
    taken: AtomicBool,
    file: OnceLock<File>,
}

/// A description in use by the caller alone.
pub(super) struct Description<'a> {
    slot: &'a Slot,
    file: &'a File,
}

impl Descriptions {
    fn new(first: File) -> Descriptions {
        let slots: Box<[Slot]> = (0..DESCRIPTIONS_MAX).map(|_| Slot::default()).collect();
        let _ = slots[0].file.set(first);
        Descriptions(slots)
    }

    /// The one that was opened with the generation, for calls that do not move its position.
    pub(super) fn first(&self) -> &File {
        self.0[0].file.get().expect("set by new")
    }

    /// A free description. Waits only when the process can open no further file and all that are open are in use by writes to
    /// this same file; then for [`DESCRIPTION_WAIT_MAX`] at most.
    ///
    /// # Errors
    /// Why no other could be opened.
    pub(super) fn take(&self) -> io::Result<Description<'_>> {
        let mut deadline = None;
        loop {
            let refused = match self.try_take() {
                Ok(Some(taken)) => return Ok(taken),
                Ok(None) => {
                    io::Error::new(io::ErrorKind::ResourceBusy, format!("{DESCRIPTIONS_MAX} writes at once"))
                }
                Err(e) => e,
            };
            let now = crate::clock::now();
            if now >= *deadline.get_or_insert(now + DESCRIPTION_WAIT_MAX) {
                return Err(refused);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn try_take(&self) -> io::Result<Option<Description<'_>>> {
        let own = own_slot();
        let slots = || (0..DESCRIPTIONS_MAX).map(|n| &self.0[(own + n) % DESCRIPTIONS_MAX]);
        for slot in slots() {
            if let Some(file) = slot.file.get()
                && slot.take()
            {
                return Ok(Some(Description { slot, file }));
            }
        }
        for slot in slots() {
            if slot.file.get().is_none() && slot.take() {
                // Somebody else may have opened it, and given it back, between the two steps.
                if slot.file.get().is_none() {
                    match fs::another_description(self.first()) {
                        Ok(file) => drop(slot.file.set(file)),
                        Err(e) => {
                            slot.taken.store(false, Ordering::Release);
                            return Err(e);
                        }
                    }
                }
                let file = slot.file.get().expect("set above");
                return Ok(Some(Description { slot, file }));
            }
        }
        Ok(None)
    }
}

impl Slot {
    fn take(&self) -> bool {
        !self.taken.load(Ordering::Relaxed) && !self.taken.swap(true, Ordering::Acquire)
    }
}

/// Where this thread looks first, so that threads do not all try the same one.
fn own_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    OWN.with(|own| *own)
}

impl Deref for Description<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        self.file
    }
}

impl Drop for Description<'_> {
    fn drop(&mut self) {
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// The files that generations have open, so that none is compressed or removed while somebody may be writing to it.
/// The lock is held for a look-up, never for I/O, and is not taken by appends.
#[derive(Debug, Default)]
pub(super) struct Live(Mutex<Vec<FileId>>);

#[derive(Debug)]
struct LiveToken {
    live: Arc<Live>,
    id: FileId,
}

impl Live {
    /// Whether a generation has the file open.
    pub(super) fn contains(&self, id: FileId) -> bool {
        self.0.lock().contains(&id)
    }

    /// Only one generation has the file open.
    pub(super) fn is_single(&self, id: FileId) -> bool {
        self.0.lock().iter().filter(|live| **live == id).count() == 1
    }

    fn enter(self: &Arc<Self>, id: FileId) -> (LiveToken, bool) {
        let mut ids = self.0.lock();
        let alone = !ids.contains(&id);
        ids.push(id);
        (LiveToken { live: Arc::clone(self), id }, alone)
    }
}

impl Drop for LiveToken {
    fn drop(&mut self) {
        let mut ids = self.live.0.lock();
        if let Some(at) = ids.iter().position(|id| *id == self.id) {
            ids.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log_file::testing::TempDir;

    #[test]
    fn a_closed_gate_keeps_out_and_counts_those_inside() {
        let gate = Gate::default();
        let inside = gate.enter().expect("open");
        gate.close_for_repair();
        assert!(gate.enter().is_none());
        assert!(!gate.is_empty() && gate.in_repair());
        drop(inside);
        assert!(gate.is_empty());
        gate.repaired();
        assert!(gate.enter().is_some());
        gate.retire();
        gate.repaired();
        assert!(gate.enter().is_none() && !gate.in_repair());
    }

    #[test]
    fn descriptions_are_opened_as_needed_and_bounded() {
        let dir = TempDir::new("generation");
        let live = Arc::new(Live::default());
        let generation = Generation::open(&dir.path("a"), false, &live).expect("open");
        let opened = |g: &Generation| g.descriptions.0.iter().filter(|s| s.file.get().is_some()).count();
        for _ in 0..10 {
            drop(generation.descriptions.take().expect("free"));
        }
        assert_eq!(opened(&generation), 1);
        let all: Vec<_> =
            (0..DESCRIPTIONS_MAX).map(|_| generation.descriptions.take().expect("free")).collect();
        assert_eq!(opened(&generation), DESCRIPTIONS_MAX);
        let refused = generation.descriptions.take().err().expect("all taken");
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        drop(all);
        assert!(generation.descriptions.take().is_ok());
    }

    #[test]
    fn a_torn_end_is_ended_unless_others_are_writing() {
        let dir = TempDir::new("torn");
        let live = Arc::new(Live::default());
        let path = dir.path("a");
        std::fs::write(&path, "{\"a\":1}\n{\"b").expect("write");
        let first = Generation::open(&path, false, &live).expect("open");
        assert_eq!(std::fs::read(&path).expect("read"), b"{\"a\":1}\n{\"b\n");
        assert_eq!(first.size.load(Ordering::Relaxed), 12);
        std::fs::write(&path, "{\"b").expect("write");
        let second = Generation::open(&path, false, &live).expect("open");
        assert_eq!(std::fs::read(&path).expect("read"), b"{\"b");
        assert!(live.contains(first.id()) && first.id() == second.id());
        drop(first);
        assert!(live.contains(second.id()));
        let id = second.id();
        drop(second);
        assert!(!live.contains(id));
    }
}
