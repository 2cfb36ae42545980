//! One process per directory.

use std::any::Any;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Name of the lock file in a locked directory.
pub const LOCK_NAME: &str = "LOCK";

/// The right to a directory; given back when dropped. The kernel gives it back when the process ends, however it ends.
pub struct Lock(#[allow(dead_code, reason = "held for its drop")] Box<dyn Any + Send + Sync>);

impl Lock {
    pub(super) fn new(held: impl Any + Send + Sync) -> Lock {
        Lock(Box::new(held))
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

/// Why a directory could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process (or another part of this one) has it.
    Held {
        /// Process id of the holder; `None` when it has not written it yet.
        pid: Option<u32>,
        /// The lock file.
        path: String,
    },
    /// The lock file could not be opened or written.
    Io {
        /// What was not possible.
        error: io::Error,
        /// The lock file.
        path: String,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { pid: Some(pid), path } => {
                write!(f, "{path:?} is locked by process {pid}: stop it first, or use another directory")
            }
            LockError::Held { pid: None, path } => {
                write!(f, "{path:?} is locked by another process: stop it first, or use another directory")
            }
            LockError::Io { error, path } => {
                write!(f, "cannot lock {path:?}: {error}; the directory has to be writable for this user")
            }
        }
    }
}

impl std::error::Error for LockError {}

/// Locks the file at `path` (made when it is not there) with flock(2) and writes this process's id into it.
pub(super) fn lock(path: &Path) -> Result<Lock, LockError> {
    let shown = path.display().to_string();
    let io = |error: io::Error| LockError::Io { error, path: shown.clone() };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => {
            write_pid(&held).map_err(io)?;
            Ok(Lock::new(held))
        }
        Err((file, Errno::EWOULDBLOCK)) => Err(LockError::Held { pid: read_pid(&file), path: shown }),
        Err((_, errno)) => Err(io(errno.into())),
    }
}

fn write_pid(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
}

fn read_pid(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let n = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..n]).ok()?.trim().parse().ok()
}
