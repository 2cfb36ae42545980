//! What is done beside the commits: faults ended, spares made, trimmed segments removed, a Mark when idle.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::book::{self, Current};
use super::commit::is_full;
use super::establish::{self, NotMade};
use super::format::{self, HEADER_BYTES, KIND_MARK};
#[cfg(test)]
use super::seed::Seed;
use super::types::{Class, Entry, Event};
use super::{Journal, Refused};
use crate::{clock, threads};

/// How long a record of [`Class::Finish`] waits for somebody to commit it.
const FINISH_WAIT: Duration = Duration::from_millis(20);
/// How long nothing was appended when the journal is called idle.
const IDLE: Duration = Duration::from_secs(1);
/// First and longest delay between attempts to go on after a fault.
const DELAYS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Longest time between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// Attempts that follow each other at growing delays.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempts {
    failed: Option<(Instant, Duration)>,
}

impl Attempts {
    /// How long to wait before the next one; zero when it is due.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.failed.map_or(Duration::ZERO, |(at, delay)| (at + delay).saturating_duration_since(now))
    }

    pub(super) fn ended(&mut self, now: Instant, good: bool) {
        let delay = self.failed.map_or(DELAYS.0, |(_, delay)| (delay * 2).min(DELAYS.1));
        self.failed = (!good).then_some((now, delay));
    }
}

/// What the keeper remembers between its looks.
#[derive(Debug, Default)]
pub(super) struct Keep {
    heal: Attempts,
    spare: Attempts,
    remove: Attempts,
    /// Records appended when last looked, and when they had changed.
    appended: u64,
    quiet_since: Option<Instant>,
    /// Since when a Finish record waits.
    finish_since: Option<Instant>,
}

impl Journal {
    /// Has the keeper [`commit`](Self::commit). Does not block.
    pub fn nudge(&self) {
        self.nudged.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// The keeper's work that is due at `now`: commits what was nudged or has waited for 20 ms, ends a fault, makes spare segments, removes
    /// trimmed ones, writes a Mark when idle. Says after how long there may be more to do. Blocks for the disk; calls take turns.
    pub fn tick(&self, now: Instant) -> Duration {
        let mut keep = self.keep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        #[cfg(test)]
        if self.seed == Some(Seed::UnlinkBeforeMark) {
            self.remove(&mut keep, now);
        }
        let mut wait = self.commit_due(&mut keep, now);
        wait = wait.min(self.heal(&mut keep, now));
        wait = wait.min(self.remove(&mut keep, now));
        wait = wait.min(self.spares(&mut keep, now));
        wait.min(self.mark(&mut keep, now))
    }

    fn commit_due(&self, keep: &mut Keep, now: Instant) -> Duration {
        if self.nudged.swap(false, Ordering::Acquire) {
            keep.finish_since = None;
            self.commit_turns(usize::MAX);
        }
        if !self.gate.lock().queue.iter().any(|batch| batch.payload.finish) {
            keep.finish_since = None;
            return LOOK;
        }
        let since = *keep.finish_since.get_or_insert(now);
        let wait = (since + FINISH_WAIT).saturating_duration_since(now);
        if wait.is_zero() {
            keep.finish_since = None;
            self.commit_turns(usize::MAX);
            return LOOK;
        }
        wait
    }

    /// Goes on in a fresh segment after a fault.
    fn heal(&self, keep: &mut Keep, now: Instant) -> Duration {
        if self.gate.lock().stopped != Some(Refused::Broken) {
            keep.heal = Attempts::default();
            return LOOK;
        }
        let wait = keep.heal.wait(now);
        if !wait.is_zero() {
            return wait;
        }
        if !self.gate.claim() {
            return FINISH_WAIT;
        }
        let healed = self.fresh_segment();
        keep.heal.ended(now, healed.is_ok());
        match healed {
            Ok(current) => {
                self.gate.release(|state| {
                    state.book.established(current);
                    state.book.restart();
                    if state.stopped == Some(Refused::Broken) {
                        state.stopped = None;
                    }
                });
                (self.watch)(&Event::Opened);
                LOOK
            }
            Err(failed) => {
                self.gate.release(|_| ());
                log::warn!("the journal stays closed: {}", failed.what);
                keep.heal.wait(now)
            }
        }
    }

    fn fresh_segment(&self) -> Result<Current, NotMade> {
        let (number, seq, before) = {
            let state = self.gate.lock();
            let before = state.book.current.clone();
            (state.book.number_after(before.number), state.durable, before)
        };
        let made = self.make_segment(number, seq, &before);
        if let Err(NotMade { named: true, .. }) = made {
            self.given_up(number);
        }
        made
    }

    /// Removes what is below the durable low-water mark, front first, and what was begun and given up.
    fn remove(&self, keep: &mut Keep, now: Instant) -> Duration {
        let wait = keep.remove.wait(now);
        if !wait.is_zero() {
            return wait;
        }
        let removed = self.remove_orphans().and_then(|()| self.remove_trimmed());
        if let Err(e) = &removed {
            log::warn!("a journal's segment cannot be removed: {e}");
        }
        keep.remove.ended(now, removed.is_ok());
        keep.remove.wait(now).max(if removed.is_ok() { LOOK } else { Duration::ZERO })
    }

    fn remove_orphans(&self) -> io::Result<()> {
        let orphans = {
            let state = self.gate.lock();
            if state.stopped.is_some() { Vec::new() } else { state.book.orphans.clone() }
        };
        for number in orphans {
            gone(self.disk.unlink(&format::segment_name(number)))?;
            self.gate.lock().book.orphans.retain(|n| *n != number);
        }
        Ok(())
    }

    fn remove_trimmed(&self) -> io::Result<()> {
        loop {
            let (number, segment, recycle) = {
                let state = self.gate.lock();
                let book = &state.book;
                let Some((number, segment)) = self.next_trimmed(book) else { return Ok(()) };
                let limits = &book.limits;
                let recycle =
                    book.spares.len() < limits.spare_segments && segment.bytes == limits.segment_bytes;
                (number, segment, recycle)
            };
            let name = format::segment_name(number);
            self.handles.lock().unwrap_or_else(std::sync::PoisonError::into_inner).retain(|h| h.0 != number);
            let spare = if segment.damaged {
                self.set_aside(&name)?;
                None
            } else if recycle {
                self.recycle(&name, segment.bytes)?
            } else {
                gone(self.disk.unlink(&name))?;
                None
            };
            let mut state = self.gate.lock();
            state.book.leave(number);
            state.book.spares.extend(spare);
            if segment.damaged {
                state.book.kept_bytes += segment.bytes;
            }
        }
    }

    fn next_trimmed(&self, book: &book::Book) -> Option<(u64, book::Segment)> {
        #[cfg(test)]
        if self.seed == Some(Seed::OutOfOrder) && book.trim_asked > 0 {
            let mut later = book.segments().range(book.trim_asked + 1..book.current.number);
            return later.next().map(|(number, segment)| (*number, *segment));
        }
        #[cfg(test)]
        let durable =
            if self.seed == Some(Seed::UnlinkBeforeMark) { book.trim_asked } else { book.trim_durable };
        #[cfg(not(test))]
        let durable = book.trim_durable;
        let (number, segment) = book.segments().first_key_value()?;
        (*number < durable.min(book.current.number)).then_some((*number, *segment))
    }

    /// Gives a damaged segment a name under which nobody reads or removes it.
    fn set_aside(&self, name: &str) -> io::Result<()> {
        let aside = free_name(&*self.disk, &format!("{name}.damaged"))?;
        gone(self.disk.rename(name, &aside))?;
        (self.watch)(&Event::SetAside { file: self.disk.shown(&aside) });
        Ok(())
    }

    /// Makes a segment into a spare. Its name goes before its bytes do, so that nobody takes the zeros for damage.
    fn recycle(&self, name: &str, bytes: u64) -> io::Result<Option<String>> {
        let spare = self.spare_name();
        match self.disk.rename(name, &spare) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        }
        let zeroed = self.disk.sync_dir().and_then(|()| self.zero(&spare, bytes));
        if let Err(e) = zeroed {
            log::warn!("a journal's segment cannot be used again: {e}");
            gone(self.disk.unlink(&spare))?;
            return Ok(None);
        }
        Ok(Some(spare))
    }

    fn zero(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = self.disk.open(name)?;
        let zeros = vec![0; 64 * 1024];
        let mut at = 0;
        while at < bytes {
            let n = (bytes - at).min(zeros.len() as u64);
            file.write_at(&zeros[..n as usize], at)?;
            at += n;
        }
        file.sync()
    }

    fn spares(&self, keep: &mut Keep, now: Instant) -> Duration {
        let wait = keep.spare.wait(now);
        if !wait.is_zero() {
            return wait;
        }
        while self.gate.lock().book.wants_spare() {
            let name = self.spare_name();
            let made = establish::spare(&*self.disk, &name, self.limits.segment_bytes);
            keep.spare.ended(now, made.is_ok());
            match made {
                Ok(()) => {
                    let before = {
                        let mut state = self.gate.lock();
                        state.book.spares.push(name);
                        std::mem::replace(&mut state.book.no_room, false)
                    };
                    if before {
                        (self.watch)(&Event::Room);
                    }
                }
                Err(e) => {
                    let why = if is_full(&e) { "no room for" } else { "cannot make" };
                    self.tell_no_room(&format!("{why} {:?}: {e}", self.disk.shown(&name)));
                    return keep.spare.wait(now);
                }
            }
        }
        LOOK
    }

    /// When nothing was appended for a while, says in the journal that all of it is durable: its end can then be told from a torn write.
    fn mark(&self, keep: &mut Keep, now: Instant) -> Duration {
        let mut state = self.gate.lock();
        let idle = state.queue.is_empty() && state.inflight.is_none() && state.stopped.is_none();
        if state.book.marked || !idle || state.book.appended_records != keep.appended {
            keep.appended = state.book.appended_records;
            keep.quiet_since = None;
        }
        if state.book.marked || !idle {
            return LOOK;
        }
        let since = *keep.quiet_since.get_or_insert(now);
        let wait = (since + IDLE).saturating_duration_since(now);
        if wait.is_zero() && state.book.current.end > HEADER_BYTES {
            let mark = Entry { kind: KIND_MARK, body: &[] };
            let placed = book::place(&mut state, Class::Accept, &[mark], 0, Box::new(|_| ()));
            state.book.marked = true;
            drop(state);
            if placed.is_ok() {
                self.commit_turns(usize::MAX);
            }
            return LOOK;
        }
        wait.max(FINISH_WAIT)
    }
}

/// An error that says that the file is not there is none.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// `name`, or `name` with a number when there is such a file.
pub(super) fn free_name(disk: &dyn crate::store::disk::Disk, name: &str) -> io::Result<String> {
    let there = disk.list()?;
    let taken = |name: &str| there.iter().any(|file| file.name == name);
    let others = (2..).map(|n: u64| format!("{name}-{n}"));
    let free = std::iter::once(name.to_owned()).chain(others).find(|name| !taken(name));
    Ok(free.unwrap_or_else(|| name.to_owned()))
}

/// The thread that does [`Journal::tick`]; stopped and joined when dropped.
pub struct Keeper {
    journal: Arc<Journal>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it under `name` (up to 15 bytes).
    ///
    /// # Errors
    /// The kernel's refusal to make a thread.
    pub fn start(journal: Arc<Journal>, name: &str) -> io::Result<Keeper> {
        let stop = Arc::new(AtomicBool::new(false));
        let (its_journal, its_stop) = (Arc::clone(&journal), Arc::clone(&stop));
        let thread = threads::spawn(name, move || {
            while !its_stop.load(Ordering::Acquire) {
                let wait = its_journal.tick(clock::now());
                its_journal.bell.wait(wait);
            }
        })?;
        Ok(Keeper { journal, stop, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.journal.bell.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the keeper of a journal has panicked");
        }
    }
}
