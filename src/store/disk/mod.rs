//! What the journal asks of a file system: the seam between its decisions and the disk.
//!
//! A [`Disk`] is one directory. [`RealDisk`] is the real one; tests put a simulated one behind the same trait, which keeps what a
//! reader sees apart from what would survive a power loss. Nothing here tries again after an error: what a failed write or sync has
//! left on the disk is unknown, and the caller has to go on with another file.

#[cfg(test)]
pub(crate) mod explore;
mod lock;
mod real;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

use std::io;

pub use lock::{LOCK_NAME, Lock, LockError};
pub use real::RealDisk;

/// A name in a directory and the length of the regular file behind it, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name; what is not UTF-8 is left out of listings.
    pub name: String,
    /// The file's length, in bytes.
    pub len: u64,
}

/// One directory of files. Every method blocks for the disk.
///
/// Names are plain file names without a separator. Changes of names survive a power loss only after [`sync_dir`](Self::sync_dir), those
/// of contents only after [`DiskFile::sync`].
pub trait Disk: Send + Sync {
    /// The regular files of the directory, in order of their names.
    ///
    /// # Errors
    /// Those of reading the directory.
    fn list(&self) -> io::Result<Vec<Listed>>;

    /// Makes a file of `bytes` zeros (really written, not sparse), not yet synced. It is readable and writable by its owner only.
    ///
    /// # Errors
    /// `AlreadyExists`; those of writing, after which a partial file may be left.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// Those of opening.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Those of opening.
    fn open_read_only(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Removes a name.
    ///
    /// # Errors
    /// Those of unlinking.
    fn unlink(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, which takes the place of a file that had it.
    ///
    /// # Errors
    /// Those of renaming.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes all changes of names so far survive a power loss.
    ///
    /// # Errors
    /// Those of the sync; what has survived is then unknown.
    fn sync_dir(&self) -> io::Result<()>;

    /// Takes the directory for this process until the answer is dropped, and writes the process id into [`LOCK_NAME`].
    ///
    /// # Errors
    /// [`LockError::Held`] names the process that has it.
    fn lock(&self) -> Result<Lock, LockError>;

    /// `name` with its directory, for messages.
    fn shown(&self, name: &str) -> String;
}

/// An open file. Every method blocks for the disk; all can be called from any thread.
pub trait DiskFile: Send + Sync {
    /// Reads from `offset` on until `buf` is full or the file ends: the number of bytes read.
    ///
    /// # Errors
    /// Those of reading.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Those of writing; any part of `bytes` may then have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written survive a power loss.
    ///
    /// # Errors
    /// Those of the sync. What was written since the last good sync is then lost or not, and a later good sync says nothing about it.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Those of asking for it.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Those of asking for its length.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
