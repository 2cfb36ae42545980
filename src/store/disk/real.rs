//! A directory of the real file system.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Disk, DiskFile, LOCK_NAME, Listed, Lock, LockError, lock};

/// Mode of new files, before the umask: task records are for the owner only.
const FILE_MODE: u32 = 0o600;
/// Mode of new directories, before the umask.
const DIR_MODE: u32 = 0o700;
/// How many zeros one write carries when a file is made.
const ZEROS_BYTES: usize = 256 * 1024;

/// One directory of the real file system.
#[derive(Debug, Clone)]
pub struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    /// The directory at `dir`; it and those above it are made when they are not there, with the names of the new ones synced.
    ///
    /// # Errors
    /// Those of making it, with the directory in the message.
    pub fn open(dir: &Path) -> io::Result<RealDisk> {
        let told = |e: io::Error| io::Error::new(e.kind(), format!("cannot make directory {dir:?}: {e}"));
        make_dirs(dir).map_err(told)?;
        Ok(RealDisk { dir: dir.to_owned() })
    }

    /// The directory at `dir` as it is: nothing is made.
    pub fn existing(dir: &Path) -> RealDisk {
        RealDisk { dir: dir.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(above) = above {
        make_dirs(above)?;
    }
    match DirBuilder::new().mode(DIR_MODE).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) => Err(e),
        Ok(()) => File::open(above.unwrap_or(Path::new(".")))?.sync_all(),
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        for entry in self.dir.read_dir()? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                found.push(Listed { name, len: meta.len() });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(self.at(name))?;
        let file = RealFile { file };
        let zeros = vec![0; ZEROS_BYTES.min(usize::try_from(bytes).unwrap_or(ZEROS_BYTES))];
        let mut at = 0;
        while at < bytes {
            let n = zeros.len().min(usize::try_from(bytes - at).unwrap_or(zeros.len()));
            file.write_at(&zeros[..n], at)?;
            at += n as u64;
        }
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.at(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn open_read_only(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile { file: File::open(self.at(name))? }))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.at(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.at(from), self.at(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn lock(&self) -> Result<Lock, LockError> {
        lock::lock(&self.at(LOCK_NAME))
    }

    fn shown(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }
}

struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(buf, offset, |buf, at| self.file.read_at(buf, at))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_full(bytes, offset, |bytes, at| self.file.write_at(bytes, at))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// Calls `pread` until `buf` is full or the file ends; interrupted calls are made again.
pub(super) fn read_full(
    buf: &mut [u8],
    offset: u64,
    mut pread: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match pread(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Calls `pwrite` until all of `bytes` is written; a short write goes on behind it, an interrupted one is made again (nothing was
/// written then), every other error ends it.
pub(super) fn write_full(
    bytes: &[u8],
    offset: u64,
    mut pwrite: impl FnMut(&[u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(&bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
