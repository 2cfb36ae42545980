//! The two threads behind all log files: the keeper (spares, renames, repairs, reopening) and the archivist (retention and
//! compression). Writers wake the keeper and never wait for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::archive;
use super::speaker::Speaker;
use super::tended::{CHECK_EVERY, Tended};
use super::writer::LogFile;
use crate::clock;
use crate::threads;

/// How soon the keeper looks again for the last writers of a replaced or torn file.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How often rotated files are looked through without a rotation: those of quiet files age out, too.
const ARCHIVE_EVERY: Duration = Duration::from_secs(3600);
/// How soon a failed step of the archivist is tried again.
const ARCHIVE_AGAIN: Duration = Duration::from_secs(60);
/// How soon a backup that a writer was still in is looked at again.
const ARCHIVE_SOON: Duration = Duration::from_secs(1);
/// How long [`Shared::reopen`] waits for the keeper.
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(30);
/// Requests that wait for the keeper at most.
const REQUESTS_MAX: usize = 4;

/// What the registry and the two threads share. No append comes here.
#[derive(Debug)]
pub(super) struct Shared {
    /// The open files. The lock is held while a file is opened or closed for good.
    pub(super) files: Mutex<Vec<Arc<LogFile>>>,
    /// The keeper's state while none runs.
    tended: Mutex<Vec<Tended>>,
    pub(super) wake: Sender<()>,
    woken: Receiver<()>,
    archive_wake: Sender<()>,
    archive_woken: Receiver<()>,
    requests: Sender<Sender<Vec<String>>>,
    requested: Receiver<Sender<Vec<String>>>,
    stop: AtomicBool,
    running: AtomicBool,
}

impl Shared {
    pub(super) fn new() -> Arc<Shared> {
        let (wake, woken) = bounded(1);
        let (archive_wake, archive_woken) = bounded(1);
        let (requests, requested) = bounded(REQUESTS_MAX);
        Arc::new(Shared {
            files: Mutex::default(),
            tended: Mutex::default(),
            wake,
            woken,
            archive_wake,
            archive_woken,
            requests,
            requested,
            stop: AtomicBool::new(false),
            running: AtomicBool::new(false),
        })
    }

    /// Asks the keeper to reopen every file, and waits for its answer: one message for each file that could not be.
    pub(super) fn reopen(&self) -> Result<(), Vec<String>> {
        let not_running = || vec!["the log keeper is not running".to_owned()];
        if !self.running.load(Ordering::Acquire) {
            return Err(not_running());
        }
        let (answer, answered) = bounded(1);
        if self.requests.try_send(answer).is_err() {
            return Err(vec!["log files are being reopened already".to_owned()]);
        }
        let _ = self.wake.try_send(());
        match answered.recv_timeout(REOPEN_WAIT_MAX) {
            Ok(failed) if failed.is_empty() => Ok(()),
            Ok(failed) => Err(failed),
            Err(RecvTimeoutError::Disconnected) => Err(not_running()),
            Err(RecvTimeoutError::Timeout) => {
                Err(vec![format!("the log keeper did not answer within {} s", REOPEN_WAIT_MAX.as_secs())])
            }
        }
    }
}

/// The running threads. [`stop`](LogKeeper::stop) it after the last append; dropping it does the same.
#[derive(Debug)]
pub struct LogKeeper {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl LogKeeper {
    /// Starts the threads; returns once every file that is open has been seen to, so that spares are ready.
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<LogKeeper> {
        if shared.running.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the log keeper is running already"));
        }
        shared.stop.store(false, Ordering::Release);
        let mut keeper = LogKeeper { shared: Arc::clone(shared), threads: Vec::new() };
        survive_file_size_limit()?;
        let (ready, is_ready) = bounded::<()>(1);
        let theirs = Arc::clone(shared);
        keeper.threads.push(threads::spawn("log-keeper", move || keep(&theirs, ready))?);
        let theirs = Arc::clone(shared);
        keeper.threads.push(threads::spawn("log-archivist", move || archive_all(&theirs))?);
        // The sender goes away once the first pass is done.
        let _ = is_ready.recv();
        Ok(keeper)
    }

    /// Finishes pending rotations, removes unused helper files, abandons a running compression (it begins again at the next
    /// start) and joins the threads. Appends that come later still work, without rotation.
    pub fn stop(self) {
        drop(self);
    }

    /// The same, but a thread that a file system holds up is left behind at `deadline`, and said. What it would have done is done by the
    /// next start.
    pub fn stop_by(mut self, deadline: Instant) {
        self.ask_to_stop();
        let left = threads::join_by(std::mem::take(&mut self.threads), deadline);
        if !left.is_empty() {
            log::error!("{} hangs in a file system and is left behind", left.join(", "));
        }
    }

    fn ask_to_stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.shared.wake.try_send(());
        let _ = self.shared.archive_wake.try_send(());
    }
}

impl Drop for LogKeeper {
    fn drop(&mut self) {
        self.ask_to_stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a log keeper thread has panicked");
            }
        }
        self.shared.running.store(false, Ordering::Release);
    }
}

fn keep(shared: &Shared, ready: Sender<()>) {
    let mut ready = Some(ready);
    let mut tended = std::mem::take(&mut *shared.tended.lock());
    loop {
        adopt_and_close(shared, &mut tended);
        for one in &mut tended {
            one.pass(clock::now(), clock::wall());
        }
        while let Ok(answer) = shared.requested.try_recv() {
            let _ = answer.send(reopen_all(&mut tended));
        }
        if tended.iter().any(|t| t.file.archive_due.load(Ordering::Acquire)) {
            let _ = shared.archive_wake.try_send(());
        }
        ready.take();
        if shared.stop.load(Ordering::Acquire) {
            for one in &mut tended {
                one.close(clock::now(), clock::wall());
            }
            *shared.tended.lock() = tended;
            return;
        }
        let pause = if tended.iter().any(Tended::is_waiting) { LOOK_AGAIN } else { CHECK_EVERY };
        let _ = shared.woken.recv_timeout(pause);
    }
}

/// Takes new files on, and closes those that nobody can append to any more.
fn adopt_and_close(shared: &Shared, tended: &mut Vec<Tended>) {
    let mut files = shared.files.lock();
    for file in files.iter() {
        if !tended.iter().any(|t| Arc::ptr_eq(&t.file, file)) {
            tended.push(Tended::new(Arc::clone(file), clock::now()));
        }
    }
    // The registry's reference and ours.
    const OWN_REFERENCES: usize = 2;
    tended.retain_mut(|one| {
        let used = Arc::strong_count(&one.file) > OWN_REFERENCES;
        if !used {
            one.close(clock::now(), clock::wall());
            files.retain(|file| !Arc::ptr_eq(file, &one.file));
        }
        used
    });
}

fn reopen_all(tended: &mut [Tended]) -> Vec<String> {
    let reopened = tended.iter_mut().map(|one| {
        one.reopen_now(clock::now(), clock::wall()).map_err(|e| format!("log file {:?}: {e}", one.file.label))
    });
    reopened.filter_map(Result::err).collect()
}

fn archive_all(shared: &Shared) {
    let mut speaker = Speaker::default();
    let mut all_due: Option<Instant> = None;
    while !shared.stop.load(Ordering::Acquire) {
        let now = clock::now();
        let everything = all_due.is_none_or(|at| now >= at);
        if everything {
            all_due = Some(now + ARCHIVE_EVERY);
        }
        let files = shared.files.lock().clone();
        for file in files {
            if !file.archive_due.swap(false, Ordering::AcqRel) && !everything {
                continue;
            }
            match archive::tend(&file, clock::wall(), &shared.stop) {
                Ok(false) => {}
                Ok(true) => all_due = all_due.min(Some(now + ARCHIVE_SOON)),
                Err(e) => {
                    file.keeper_errors.inc();
                    all_due = all_due.min(Some(now + ARCHIVE_AGAIN));
                    if speaker.may_speak(now) {
                        log::warn!("log file {:?}: {e}; it will be tried again", file.label);
                    }
                }
            }
        }
        let until = all_due.map_or(ARCHIVE_EVERY, |at| at.saturating_duration_since(clock::now()));
        let _ = shared.archive_woken.recv_timeout(until);
    }
}

/// A write beyond the process' file size limit raises SIGXFSZ, whose default action ends the process; with a handler the write
/// fails instead.
fn survive_file_size_limit() -> io::Result<()> {
    signal_hook::flag::register(nix::libc::SIGXFSZ, Arc::default()).map(drop)
}
