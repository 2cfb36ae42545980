//! The few file system steps that the log files need beyond std.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use rustix::fs::{AtFlags, RenameFlags, StatxFlags};

/// Mode of new log files, before the umask.
pub(super) const FILE_MODE: u32 = 0o600;
/// Mode of new directories, before the umask.
const DIR_MODE: u32 = 0o755;

/// Which file it is, whatever its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    pub(super) fn of(meta: &Metadata) -> FileId {
        FileId { dev: meta.dev(), ino: meta.ino() }
    }
}

/// Makes `dir` and those above it.
pub(super) fn create_dirs(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// Opens the file at `path` for appending, made when it is not there; never waits (a FIFO is refused).
///
/// # Errors
/// Those of `open`, and `InvalidInput` for what is not a regular file.
pub(super) fn open_append(path: &Path, create_new: bool) -> io::Result<(File, Metadata)> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(FILE_MODE).custom_flags(OFlag::O_NONBLOCK.bits());
    let file =
        if create_new { options.create_new(true).open(path) } else { options.create(true).open(path) }?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok((file, meta))
}

/// Another open file description of the same file, for appending: its file position is its own.
pub(super) fn another_description(file: &File) -> io::Result<File> {
    OpenOptions::new().append(true).open(proc_path(file))
}

/// The same file without `O_APPEND`, for the repair; `path` is tried where there is no /proc.
pub(super) fn open_in_place(file: &File, path: Option<&Path>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let id = FileId::of(&file.metadata()?);
    match (options.open(proc_path(file)), path) {
        (Ok(opened), _) => Ok(opened),
        (Err(e), None) => Err(e),
        (Err(_), Some(path)) => {
            let opened = options.open(path)?;
            if FileId::of(&opened.metadata()?) == id {
                Ok(opened)
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        }
    }
}

fn proc_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether the file's last byte is not a newline.
pub(super) fn ends_torn(file: &File, len: u64) -> io::Result<bool> {
    let Some(at) = len.checked_sub(1) else { return Ok(false) };
    let mut last = [0];
    file.read_exact_at(&mut last, at)?;
    Ok(last != *b"\n")
}

/// How many names the file has.
///
/// Only that is asked for: where the kernel keeps multigrain timestamps (Linux 6.13), a look at the times of a file makes the next write
/// to it take a new one and journal it, which costs as much as the write.
pub(super) fn link_count(file: &File) -> io::Result<u64> {
    match rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::NLINK) {
        Ok(found) => Ok(u64::from(found.stx_nlink)),
        // No such call, or a sandbox that forbids it.
        Err(_) => Ok(file.metadata()?.nlink()),
    }
}

/// What is at `path` itself; `None` when nothing is (also when a directory above it is missing).
pub(super) fn look(path: &Path) -> io::Result<Option<Metadata>> {
    found(fs::symlink_metadata(path))
}

/// What is at `path`, or where a symbolic link at `path` leads.
pub(super) fn look_through(path: &Path) -> io::Result<Option<Metadata>> {
    found(fs::metadata(path))
}

fn found(meta: io::Result<Metadata>) -> io::Result<Option<Metadata>> {
    match meta {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if is_missing(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_missing(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Renames without ever replacing a file.
///
/// File systems that know no `RENAME_NOREPLACE` get a link and an unlink; those without links a look and a rename.
///
/// # Errors
/// `AlreadyExists` when there is something at `to`; others as `rename` has them.
pub(super) fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => rename_by_link(from, to),
        other => other.map_err(Into::into),
    }
}

fn rename_by_link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(e) if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
            rename_after_look(from, to)
        }
        Err(e) => Err(e),
    }
}

fn rename_after_look(from: &Path, to: &Path) -> io::Result<()> {
    if look(to)?.is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// Removes a file; that it is gone already is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if !is_missing(&e) => Err(e),
        _ => Ok(()),
    }
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Gives `file` the mode and, where the process may, the owner that `like` has.
pub(super) fn take_over_mode(file: &File, like: &Metadata) -> io::Result<()> {
    let mine = file.metadata()?;
    if (mine.uid(), mine.gid()) != (like.uid(), like.gid()) {
        // Without the privilege the file stays ours, which is as good for us.
        let _ = fchown(file, Some(like.uid()), Some(like.gid()));
    }
    if mine.permissions() != like.permissions() {
        file.set_permissions(like.permissions())?;
    }
    Ok(())
}

/// The names in `dir`; none when there is no such directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<OsString>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(e) if is_missing(&e) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// `e` with what was being done, to which file.
pub(super) fn doing(e: &io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(e.kind(), format!("cannot {what} {path:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::*;
    use crate::log_file::testing::TempDir;

    #[test]
    fn no_way_of_renaming_replaces_a_file() {
        for (at, rename) in [rename_noreplace, rename_by_link, rename_after_look].iter().enumerate() {
            let dir = TempDir::new("rename");
            let (a, b, c) = (dir.path("a"), dir.path("b"), dir.path("c"));
            fs::write(&a, "a").expect("write");
            fs::write(&b, "b").expect("write");
            assert_eq!(rename(&a, &b).expect_err("b is there").kind(), io::ErrorKind::AlreadyExists, "{at}");
            assert_eq!(fs::read(&b).expect("b"), b"b", "{at}");
            rename(&a, &c).expect("c is free");
            assert_eq!(fs::read(&c).expect("c"), b"a", "{at}");
            assert!(look(&a).expect("look").is_none(), "{at}");
            assert_eq!(
                rename(&a, &dir.path("d")).expect_err("a is gone").kind(),
                io::ErrorKind::NotFound,
                "{at}"
            );
        }
    }

    #[test]
    fn descriptions_of_one_file_have_positions_of_their_own() {
        use std::io::{Seek, Write};
        let dir = TempDir::new("descriptions");
        let (mut first, meta) = open_append(&dir.path("a"), false).expect("open");
        let mut second = another_description(&first).expect("another");
        first.write_all(b"12345").expect("write");
        second.write_all(b"678").expect("write");
        assert_eq!((first.stream_position().expect("at"), second.stream_position().expect("at")), (5, 8));
        let in_place = open_in_place(&first, None).expect("open");
        assert_eq!(FileId::of(&in_place.metadata().expect("stat")), FileId::of(&meta));
        in_place.write_all_at(b"x", 0).expect("write in place");
        assert_eq!(fs::read(dir.path("a")).expect("read"), b"x2345678");
    }

    #[test]
    fn links_are_counted() {
        let dir = TempDir::new("links");
        let (file, _) = open_append(&dir.path("a"), false).expect("open");
        assert_eq!(link_count(&file).expect("stat"), 1);
        fs::hard_link(dir.path("a"), dir.path("b")).expect("link");
        assert_eq!(link_count(&file).expect("stat"), 2);
        remove(&dir.path("a")).expect("remove");
        remove(&dir.path("b")).expect("remove");
        assert_eq!(link_count(&file).expect("stat"), 0);
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = TempDir::new("regular");
        assert!(open_append(&dir.path(""), false).is_err());
        nix::unistd::mkfifo(&dir.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        assert_eq!(
            open_append(&dir.path("fifo"), false).expect_err("a FIFO").kind(),
            io::ErrorKind::InvalidInput
        );
        let (file, meta) = open_append(&dir.path("new"), true).expect("open");
        assert_eq!(meta.mode() & 0o7777, FILE_MODE);
        assert!(!ends_torn(&file, 0).expect("empty"));
        assert_eq!(
            open_append(&dir.path("new"), true).expect_err("it is there").kind(),
            io::ErrorKind::AlreadyExists
        );
    }

    #[test]
    fn a_missing_directory_is_no_error_for_those_who_clean() {
        let dir = TempDir::new("missing");
        assert!(list(&dir.path("none")).expect("list").is_empty());
        remove(&dir.path("none/file")).expect("remove");
        assert!(look(&dir.path("none/file")).expect("look").is_none());
        let said = doing(&io::Error::from(io::ErrorKind::NotFound), "open", &dir.path("x")).to_string();
        assert!(said.starts_with("cannot open ") && said.contains("/x\""), "{said}");
    }
}
