//! What the keeper does for one log file: spares, renames, repairs, reopening. Only the keeper's thread comes here, so the state
//! needs no lock; the writers see none of it but `LogFile::current` and `Generation::next`.

use std::collections::VecDeque;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::fs::{self, FileId};
use super::generation::Generation;
use super::recover::move_to_backup;
use super::repair;
use super::speaker::Speaker;
use super::writer::{LogFile, open_current};
use crate::config::SyncPolicy;

/// Spares that wait for one file at most.
const SPARES_MAX: usize = 16;
/// Spares are kept for the rotations of this time, judged by the last ones.
const SPARES_FOR: Duration = Duration::from_millis(100);
/// How long spares stay many after a file has been written beyond its size for want of one.
const OVERRUN_MEMORY: Duration = Duration::from_secs(60);
/// How often the path is compared with the open file.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long the steps of a file rest after one has failed.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Tries of one repair before the file is rotated out with its torn line.
const REPAIRS_MAX: u32 = 10;
/// Names tried when others hold the ones wanted.
const NAMES_MAX: i64 = 1000;
/// In-flight bytes by which a busy file's size may differ from the count without meaning anything.
const SIZE_SLACK_BYTES: u64 = 1 << 20;

/// A log file and what belongs to it on disk.
#[derive(Debug)]
pub(super) struct Tended {
    pub(super) file: Arc<LogFile>,
    /// The generation whose file is at the path.
    named: Arc<Generation>,
    /// Those linked behind `named`, in order, under their hidden names. Writers may already be in the first ones.
    spares: VecDeque<Spare>,
    /// Replaced generations whose last writers may not be done.
    leaving: Vec<Leaving>,
    /// Times of the last rotations, newest last.
    rotated: VecDeque<Instant>,
    overran: Option<Instant>,
    overruns_seen: u64,
    /// Time in the last backup's name.
    last_name_ms: i64,
    next_spare: u64,
    checked: Instant,
    failed_repairs: u32,
    /// A step failed: none is tried again before this time.
    hold: Option<Instant>,
    speaker: Speaker,
    failure_speaker: Speaker,
}

#[derive(Debug)]
struct Spare {
    generation: Arc<Generation>,
    path: PathBuf,
}

#[derive(Debug)]
struct Leaving {
    generation: Arc<Generation>,
    place: Place,
}

/// Where a generation's file is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Under a backup's name, or out of our hands.
    Settled(Option<PathBuf>),
    /// Under a spare's hidden name.
    Hidden(PathBuf),
}

impl Tended {
    pub(super) fn new(file: Arc<LogFile>, now: Instant) -> Tended {
        let named = file.current.load_full();
        Tended {
            speaker: Speaker::default(),
            failure_speaker: Speaker::default(),
            named,
            spares: VecDeque::new(),
            leaving: Vec::new(),
            rotated: VecDeque::new(),
            overran: None,
            overruns_seen: 0,
            last_name_ms: i64::MIN,
            next_spare: 0,
            checked: now,
            failed_repairs: 0,
            hold: None,
            file,
        }
    }

    /// Everything that is to be done now. Errors are counted and said, and the step is tried again in a later pass.
    pub(super) fn pass(&mut self, now: Instant, wall: SystemTime) {
        if self.hold.is_none_or(|until| now >= until) {
            self.hold = None;
            let renamed = self.catch_up(now, wall);
            self.note(renamed, now);
            let made = self.make_spares(now);
            self.note(made, now);
            self.repair(now);
            self.let_go(now, wall);
        }
        if now.saturating_duration_since(self.checked) >= CHECK_EVERY {
            self.checked = now;
            let checked = self.check();
            self.note(checked, now);
        }
        let failures = self.file.failures.load(Ordering::Acquire);
        if failures > 0 && self.failure_speaker.may_speak(now) {
            self.file.failures.fetch_sub(failures, Ordering::AcqRel);
            if let Some(last) = self.file.last_failure.load_full() {
                log::error!("{failures} append(s) failed, the records were not acked; the last: {last}");
            }
        }
    }

    /// Something waits for other threads and should be looked at again soon.
    pub(super) fn is_waiting(&self) -> bool {
        self.hold.is_none() && self.awaits_writers()
    }

    fn awaits_writers(&self) -> bool {
        !self.leaving.is_empty()
            || self.named.gate.in_repair()
            || self.spares.iter().any(|s| s.generation.gate.in_repair())
    }

    fn note(&mut self, done: io::Result<()>, now: Instant) {
        if let Err(e) = done {
            self.file.keeper_errors.inc();
            self.hold = Some(now + TRY_AGAIN);
            if self.speaker.may_speak(now) {
                log::warn!("log file {:?}: {e}; it will be tried again", self.file.label);
            }
        }
    }

    /// Brings the names on disk up to where the writers are.
    fn catch_up(&mut self, now: Instant, wall: SystemTime) -> io::Result<()> {
        loop {
            let current = self.file.current.load_full();
            if Arc::ptr_eq(&current, &self.named) {
                return Ok(());
            }
            if self.spares.iter().any(|s| Arc::ptr_eq(&s.generation, &current)) {
                self.rename_one(now, wall)?;
            } else {
                // A writer found its file removed and opened the path anew.
                self.follow(current);
            }
        }
    }

    /// One rotation: what is at the path gets a backup's name, the first spare gets the path.
    fn rename_one(&mut self, now: Instant, wall: SystemTime) -> io::Result<()> {
        let path = self.file.names.path();
        let next = &self.spares[0];
        let next_id = next.generation.id();
        let mut place = Place::Settled(None);
        for _ in 0..NAMES_MAX {
            match fs::look(&path)? {
                Some(meta) if FileId::of(&meta) == next_id => break,
                Some(meta) if meta.is_dir() => {
                    return Err(io::Error::new(
                        io::ErrorKind::IsADirectory,
                        format!("{path:?} is a directory now"),
                    ));
                }
                // Nobody's lines, nobody writing: what a reopening made that came too late.
                Some(meta) if meta.len() == 0 && !self.file.live.contains(FileId::of(&meta)) => {
                    fs::remove(&path)?
                }
                Some(meta) => {
                    let moved = move_to_backup(&self.file.names, &path, wall, &mut self.last_name_ms)?;
                    if FileId::of(&meta) == self.named.id() {
                        place = Place::Settled(Some(moved));
                        take_over_mode(&self.spares[0].generation, &meta)?;
                    }
                }
                None => {}
            }
            match fs::rename_noreplace(&self.spares[0].path, &path) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                // Somebody removed the hidden file: its writers notice by themselves.
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(fs::doing(&e, "put the next file at", &path)),
            }
        }
        if let Some(spare) = self.spares.pop_front() {
            let before = std::mem::replace(&mut self.named, spare.generation);
            self.leave(before, place);
        }
        self.file.rotations.inc();
        self.rotated.push_back(now);
        if self.rotated.len() > SPARES_MAX {
            self.rotated.pop_front();
        }
        Ok(())
    }

    /// `current` is the path's generation now; those known before have been replaced.
    fn follow(&mut self, current: Arc<Generation>) {
        let before = std::mem::replace(&mut self.named, current);
        self.leave(before, Place::Settled(None));
        for spare in std::mem::take(&mut self.spares) {
            self.leave(spare.generation, Place::Hidden(spare.path));
        }
    }

    fn leave(&mut self, generation: Arc<Generation>, place: Place) {
        generation.gate.retire();
        self.leaving.push(Leaving { generation, place });
    }

    /// Lets go of replaced generations whose last writer is done.
    fn let_go(&mut self, now: Instant, wall: SystemTime) {
        for mut leaving in std::mem::take(&mut self.leaving) {
            if !leaving.generation.gate.is_empty() {
                self.leaving.push(leaving);
                continue;
            }
            let done = self.settle(&mut leaving, wall);
            if done.is_err() {
                self.leaving.push(leaving);
            } else if self.file.options().archives() {
                self.file.archive_due.store(true, Ordering::Release);
            }
            self.note(done, now);
        }
    }

    fn settle(&mut self, leaving: &mut Leaving, wall: SystemTime) -> io::Result<()> {
        let generation = &leaving.generation;
        if !generation.fragments.lock().is_empty() {
            let at = match &leaving.place {
                Place::Settled(path) => path.as_deref(),
                Place::Hidden(path) => Some(path.as_path()),
            };
            if generation.id() == self.named.id() {
                // The path was opened anew and is the same file: it has writers again, so it is repaired as theirs.
                self.named.fragments.lock().append(&mut generation.fragments.lock());
                self.named.gate.close_for_repair();
            } else {
                cut_fragments(&self.file, generation, at)?;
            }
        }
        let Place::Hidden(path) = &leaving.place else { return Ok(()) };
        // Only its own file may be touched under that name.
        let found = fs::look(path)?.filter(|meta| FileId::of(meta) == generation.id());
        match found {
            Some(meta) if meta.len() == 0 => fs::remove(path)?,
            Some(_) => {
                move_to_backup(&self.file.names, path, wall, &mut self.last_name_ms)?;
            }
            None => {}
        }
        leaving.place = Place::Settled(None);
        Ok(())
    }

    fn make_spares(&mut self, now: Instant) -> io::Result<()> {
        let overruns = self.file.overruns.load(Ordering::Relaxed);
        if overruns > self.overruns_seen {
            self.overruns_seen = overruns;
            self.overran = Some(now);
        }
        let wanted = self.spares_wanted(now);
        while self.spares.len() < wanted {
            self.make_spare()?;
        }
        Ok(())
    }

    fn spares_wanted(&self, now: Instant) -> usize {
        let since = |at: &Instant| now.saturating_duration_since(*at);
        if self.overran.as_ref().is_some_and(|at| since(at) < OVERRUN_MEMORY) {
            return SPARES_MAX;
        }
        let lately = self.rotated.iter().filter(|at| since(at) < SPARES_FOR).count();
        let size = self.named.size.load(Ordering::Relaxed);
        let spare_at = self.file.options().spare_at();
        let early = spare_at == 0;
        let due = early || size >= spare_at || self.named.spent.load(Ordering::Relaxed);
        match (due, lately) {
            (false, 0) => 0,
            (_, lately) => (2 * lately).clamp(if early { 2 } else { 1 }, SPARES_MAX),
        }
    }

    fn make_spare(&mut self) -> io::Result<()> {
        let names = &self.file.names;
        let (path, generation) = loop {
            let path = names.dir().join(names.spare(self.next_spare));
            self.next_spare += 1;
            match Generation::open(&path, true, &self.file.live) {
                Ok(generation) => break (path, Arc::new(generation)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(fs::doing(&e, "make the next file", &path)),
            }
        };
        if self.file.options().sync == SyncPolicy::Always {
            fs::sync_dir(names.dir()).map_err(|e| fs::doing(&e, "sync the directory", names.dir()))?;
        }
        let last = self.spares.back().map_or(&self.named, |s| &s.generation);
        last.next.store(Some(Arc::clone(&generation)));
        self.spares.push_back(Spare { generation, path });
        Ok(())
    }

    /// Cuts torn writes out of the files in use, once nobody is in them.
    fn repair(&mut self, now: Instant) {
        let path = self.file.names.path();
        let torn: Vec<_> = std::iter::once((Arc::clone(&self.named), path))
            .chain(self.spares.iter().map(|s| (Arc::clone(&s.generation), s.path.clone())))
            .filter(|(g, _)| g.gate.in_repair() && g.gate.is_empty() && self.file.live.is_single(g.id()))
            .collect();
        for (generation, at) in torn {
            let done = cut_fragments(&self.file, &generation, Some(&at));
            match &done {
                Ok(()) => self.failed_repairs = 0,
                Err(_) if self.failed_repairs < REPAIRS_MAX => self.failed_repairs += 1,
                Err(e) => {
                    log::error!(
                        "log file {:?}: a torn line stays, the file is rotated: {e}",
                        self.file.label
                    );
                    self.failed_repairs = 0;
                    generation.fragments.lock().clear();
                    generation.spent.store(true, Ordering::Release);
                }
            }
            if generation.fragments.lock().is_empty() {
                generation.gate.repaired();
            }
            self.note(done, now);
        }
    }

    /// Compares the path with the open file, and the counted size with the real one.
    fn check(&mut self) -> io::Result<()> {
        if !Arc::ptr_eq(&self.file.current.load(), &self.named) {
            return Ok(());
        }
        match fs::look_through(&self.file.names.path())? {
            Some(meta) if FileId::of(&meta) == self.named.id() => self.count_again(),
            _ => self.reopen(),
        }
    }

    /// Opens the path anew when it no longer names the open file. The old file stays in use when that fails.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let path = self.file.names.path();
        if fs::look_through(&path)?.is_some_and(|meta| FileId::of(&meta) == self.named.id()) {
            return Ok(());
        }
        let fresh = Arc::new(open_current(&self.file.names, self.file.options(), &self.file.live)?);
        let before = self.file.current.compare_and_swap(&self.named, Arc::clone(&fresh));
        if Arc::ptr_eq(&before, &self.named) {
            self.follow(fresh);
            log::info!("log file {:?} reopened", self.file.label);
        }
        Ok(())
    }

    /// Renames what is due, then [`reopen`](Self::reopen)s; for SIGHUP.
    pub(super) fn reopen_now(&mut self, now: Instant, wall: SystemTime) -> io::Result<()> {
        let done = self.catch_up(now, wall).and_then(|()| self.reopen());
        let said = done.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string())).copied();
        self.note(said, now);
        done
    }

    /// Somebody else may have truncated the file (logrotate's copytruncate) or appended to it.
    fn count_again(&self) -> io::Result<()> {
        let size = &self.named.size;
        let counted = size.load(Ordering::Acquire);
        let quiet = self.named.gate.is_empty();
        let real = self.named.metadata()?.len();
        if quiet && self.named.gate.is_empty() {
            // Fails when somebody has taken room meanwhile; the next check sees to it.
            let _ = size.compare_exchange(counted, real, Ordering::AcqRel, Ordering::Relaxed);
        } else if real.saturating_add(SIZE_SLACK_BYTES) < counted {
            size.fetch_sub(counted - real, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The last pass: names are brought up to date, unused spares removed. Appends may go on, without rotation.
    pub(super) fn close(&mut self, now: Instant, wall: SystemTime) {
        self.hold = None;
        self.pass(now, wall);
        let unused = |g: &Generation| g.size.load(Ordering::Acquire) == 0 && g.gate.is_empty();
        while let Some(spare) = self.spares.pop_back_if(|spare| unused(&spare.generation)) {
            let before = self.spares.back().map_or(&self.named, |s| &s.generation);
            before.next.store(None);
            // Closed first: a line could be acked between the look and the removal. Whoever comes to it opens the path anew.
            spare.generation.gate.retire();
            if !unused(&spare.generation) {
                self.spares.push_back(spare);
                break;
            }
            if let Err(e) = fs::remove(&spare.path) {
                log::warn!("cannot remove {:?}: {e}", spare.path);
            }
        }
    }
}

fn cut_fragments(file: &LogFile, generation: &Generation, at: Option<&Path>) -> io::Result<()> {
    let in_place = fs::open_in_place(generation.descriptions.first(), at)?;
    let fragments = generation.fragments.lock().clone();
    let done = repair::cut(&in_place, fragments)?;
    generation.fragments.lock().clear();
    generation.size.store(done.len, Ordering::Release);
    if file.options().sync == SyncPolicy::Always {
        in_place.sync_data()?;
    }
    if done.removed_bytes > 0 {
        log::warn!(
            "log file {:?}: cut out {} bytes of writes that fell short",
            file.label,
            done.removed_bytes
        );
    }
    if done.not_found > 0 {
        file.keeper_errors.inc();
        log::error!(
            "log file {:?}: {} write(s) that fell short are not where they were: the file was changed by somebody else",
            file.label,
            done.not_found
        );
    }
    Ok(())
}

/// The new file gets the mode (and the owner) of the one it replaces, as an administrator may have changed them.
fn take_over_mode(next: &Generation, before: &Metadata) -> io::Result<()> {
    fs::take_over_mode(next.descriptions.first(), before)
}
