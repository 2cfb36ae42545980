//! Log files: one line per record, rotated, written by whichever thread evaluated the record, or by the file's lane.
//!
//! # How it works
//!
//! A *generation* is one open file with the count of its bytes. [`LogFile::append`] takes the current generation from an atomic
//! snapshot, takes room in it by an atomic addition, and hands whole lines to the kernel with one `writev` in append mode.
//! The thread for which there is no room puts the next generation in its place by one atomic exchange and goes on there.
//! That generation is a *spare*: an empty file under a hidden name (`.NAME.next-N`) in the same directory, opened ahead of time by the
//! keeper's thread, which afterwards gives the full file its backup's name and the spare the log file's name. When no
//! spare is ready the full file goes on growing: an append never waits for a rotation.
//!
//! # What is guaranteed
//!
//! - Lines are whole, each with exactly one newline, in a file that had a name after the write. With `sync: always` they are on the disk.
//! - A write that fell short is cut out again before anybody else may append (`repair`); meanwhile appends fail at once.
//! - A killed process loses no line that was acknowledged. At the next [`LogFiles::open`] a spare with lines in it becomes the log
//!   file (after what was there has been rotated), an empty one is removed, and an unfinished last line gets its newline.
//! - A file that was removed is made anew, with its directories, by the append that notices; one that was moved away is reopened within
//!   a second, or at [`LogFiles::reopen`].
//! - Rotated files are called and kept as lumberjack does it (`names`, `archive`).
//!
//! # Limits
//!
//! A file exceeds `max_size` by what is written between its end and the next spare; a record larger than `max_size` gets a file of its own.
//! At most 16 spares wait for one file, and 64 threads write to one file at once. An open file takes one descriptor, each spare one, and
//! each thread beyond the first that was ever writing to the same generation at the same time one more. Symbolic links in the path are
//! followed once, at the open. Two processes must not write one log file. A file system that hangs under one log file holds up the
//! threads that are in an append to it ([`Flights`] says which, and for how long; the pipeline sends nobody after them), and the
//! rotation of the other files, not their appends. No append is given up: the kernel may still carry it out.
//!
//! # Helper files
//!
//! `.NAME.next-N`: a spare; `.BACKUP.gz.tmp`: a compression in progress. Both are removed when the program stops or starts again.

mod archive;
mod flights;
mod fs;
mod generation;
mod keeper;
mod lines;
mod names;
mod quarantine;
mod recover;
mod repair;
mod speaker;
mod stdout;
mod tended;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use flights::Flights;
pub use keeper::LogKeeper;
pub use quarantine::Quarantine;
pub use stdout::Stdout;
pub use writer::LogFile;

use crate::clock;
use crate::config;
use crate::metrics::Registry;
use fs::FileId;
use keeper::Shared;
use names::Names;
use writer::Options;

/// Where a group's records go.
#[derive(Debug, Clone)]
pub enum LogTarget {
    /// A rotated file.
    File(Arc<LogFile>),
    /// Standard output: every record, when there are no rule groups at all.
    Stdout(Arc<Stdout>),
}

impl LogTarget {
    /// Appends each record as one line: see [`LogFile::append`] and [`Stdout::append`].
    ///
    /// # Errors
    /// Nothing of these records may be acked.
    pub fn append(&self, records: &[&[u8]]) -> io::Result<()> {
        match self {
            LogTarget::File(file) => file.append(records),
            LogTarget::Stdout(stdout) => stdout.append(records),
        }
    }

    /// Its appends that are in progress.
    pub fn flights(&self) -> &Arc<Flights> {
        match self {
            LogTarget::File(file) => &file.flights,
            LogTarget::Stdout(stdout) => &stdout.flights,
        }
    }

    /// Whether each append ends with a sync.
    pub fn syncs_always(&self) -> bool {
        matches!(self, LogTarget::File(file) if file.options().sync == config::SyncPolicy::Always)
    }

    /// Whether the last append succeeded (true before the first one). Does not block.
    pub fn is_writable(&self) -> bool {
        match self {
            LogTarget::File(file) => file.is_writable(),
            LogTarget::Stdout(_) => true,
        }
    }

    /// The path as configured, or `stdout`.
    pub fn label(&self) -> &str {
        match self {
            LogTarget::File(file) => file.path(),
            LogTarget::Stdout(_) => "stdout",
        }
    }

    /// Whether both lead to the same place.
    pub fn is_same(&self, other: &LogTarget) -> bool {
        match (self, other) {
            (LogTarget::File(one), LogTarget::File(other)) => Arc::ptr_eq(one, other),
            (LogTarget::Stdout(_), LogTarget::Stdout(_)) => true,
            _ => false,
        }
    }
}

/// All open log files of the process.
#[derive(Debug)]
pub struct LogFiles {
    shared: Arc<Shared>,
}

impl Default for LogFiles {
    fn default() -> Self {
        Self::new()
    }
}

impl LogFiles {
    /// No files yet, and no threads: see [`start_keeper`](Self::start_keeper).
    pub fn new() -> LogFiles {
        LogFiles { shared: Shared::new() }
    }

    /// Opens a log file, made with its directories when missing, after finishing what a crash has interrupted. The same file named
    /// again (also by a symbolic or hard link) gives the same [`LogFile`]. Does file I/O; not for the request path.
    ///
    /// A file whose last [`LogFile`] has been dropped is closed by the keeper.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or is open already with other options; nothing has changed then, but for
    /// directories, and an empty file where there was none.
    pub fn open(&self, config: &config::LogFile, metrics: &Registry) -> Result<Arc<LogFile>, OpenError> {
        self.open_with(&config.file_path, Options::from(config), false, metrics)
    }

    /// The same for a reload: a file that is open already is given whatever its options are, until [`LogFile::reconfigure`] changes them.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn open_or_share(
        &self,
        config: &config::LogFile,
        metrics: &Registry,
    ) -> Result<Arc<LogFile>, OpenError> {
        self.open_with(&config.file_path, Options::from(config), true, metrics)
    }

    fn open_with(
        &self,
        path: &Path,
        options: Options,
        or_other: bool,
        metrics: &Registry,
    ) -> Result<Arc<LogFile>, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        let (canonical, id) = locate(path).map_err(failed)?;
        let no_name = || failed(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
        let names = Names::new(&canonical).ok_or_else(no_name)?;
        let mut files = self.shared.files.lock();
        let same = |f: &&Arc<LogFile>| f.names == names || f.live.contains(id);
        if let Some(open) = files.iter().find(same) {
            return share(open, path, &names, (!or_other).then_some(options));
        }
        recover::recover(&names, clock::wall()).map_err(failed)?;
        let label = path.display().to_string();
        let opened =
            LogFile::open(names, label, options, self.shared.wake.clone(), metrics).map_err(failed)?;
        let opened = Arc::new(opened);
        files.push(Arc::clone(&opened));
        drop(files);
        opened.wake_keeper();
        Ok(opened)
    }

    /// Starts the threads that rotate, repair, reopen, compress and clean up. Without them files only grow. Returns once the files
    /// open so far have been seen to.
    ///
    /// # Errors
    /// It is running already, or the system gives no thread.
    pub fn start_keeper(&self) -> io::Result<LogKeeper> {
        LogKeeper::start(&self.shared)
    }

    /// For SIGHUP: opens every path whose file was moved away or replaced anew, and uses the old file until that has succeeded.
    /// Waits for the keeper; appends go on meanwhile.
    ///
    /// # Errors
    /// One message for each file that stays the old one; also counted in `log_keeper_errors_total`, and tried again every second.
    pub fn reopen(&self) -> Result<(), Vec<String>> {
        self.shared.reopen()
    }
}

/// Makes the file when missing; its path without symbolic links, and which file it is.
fn locate(path: &Path) -> io::Result<(PathBuf, FileId)> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dirs(dir).map_err(|e| fs::doing(&e, "make the directory", dir))?;
    }
    let (_, meta) = fs::open_append(path, false)?;
    Ok((path.canonicalize()?, FileId::of(&meta)))
}

/// Whether two groups want different things of one file, whose names in the configuration may differ.
pub fn conflict(file: &config::LogFile, other: &config::LogFile) -> Option<OpenError> {
    let (wanted, has) = (Options::from(file), Options::from(other));
    (wanted != has).then(|| OpenError::Conflict {
        path: file.file_path.clone(),
        other: other.file_path.clone(),
        wanted: wanted.to_string(),
        has: has.to_string(),
    })
}

fn share(
    open: &Arc<LogFile>,
    path: &Path,
    names: &Names,
    wanted: Option<Options>,
) -> Result<Arc<LogFile>, OpenError> {
    if wanted.is_some_and(|options| options != open.options()) {
        return Err(OpenError::Conflict {
            path: path.to_owned(),
            other: PathBuf::from(open.path()),
            wanted: wanted.map(|options| options.to_string()).unwrap_or_default(),
            has: format!("{}", open.options()),
        });
    }
    if open.names != *names {
        log::warn!("{path:?} is the same file as {:?}: rotated files get the latter's name", open.path());
    }
    Ok(Arc::clone(open))
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sync = match self.sync {
            config::SyncPolicy::Never => "never",
            config::SyncPolicy::Always => "always",
        };
        write!(
            f,
            "max_size: {}, max_backups: {}, max_age: {}, compress: {}, sync: {sync}",
            self.bytes_max >> 20,
            self.backups_max,
            self.age_days_max,
            self.compress
        )
    }
}

/// Why a log file could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused.
    Io {
        /// As configured.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// Two groups name one file and want different things of it.
    Conflict {
        /// As configured now.
        path: PathBuf,
        /// As configured first.
        other: PathBuf,
        /// Options wanted now.
        wanted: String,
        /// Options that the open file has.
        has: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io { path, source } => write!(f, "cannot open log file {path:?}: {source}"),
            OpenError::Conflict { path, other, wanted, has } => write!(
                f,
                "log file {path:?} has ({wanted}), but {other:?}, the same file, has ({has}): \
                 give every group that names it the same log_file keys"
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { source, .. } => Some(source),
            OpenError::Conflict { .. } => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
