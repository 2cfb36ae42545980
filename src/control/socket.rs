//! The control socket in the file system: owner-only from the first moment on, one server at a time, removed at the end.
//!
//! ```text
//!  DIR/NAME            the socket that clients connect to, mode 0600
//!  DIR/.NAME.d/        mode 0700; locked (flock) for as long as a server uses NAME
//!  DIR/.NAME.d/httpN   where tiny_http listens, behind the edge
//! ```
//!
//! A socket is bound inside the locked directory, given its mode there, and only then renamed to its place, so no other user
//! can reach it at any moment, whatever the umask, and a stale one of a dead server is replaced in one step.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// The file of a bound control socket with its private directory; both are removed when it is dropped.
#[derive(Debug)]
pub(super) struct SocketPlace {
    path: PathBuf,
    private: PathBuf,
    /// Of the socket's file, when it is ours.
    device_inode: Option<(u64, u64)>,
    /// Held for life: who has it is the server of this path.
    _lock: Flock<File>,
}

impl SocketPlace {
    /// Binds the control socket at `path`. Does not wait for anybody.
    ///
    /// # Errors
    /// Another server has the path, a file that is no socket is there, the directory cannot be written or belongs to somebody
    /// else; the message says which and what to do. Nothing is left behind.
    pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, SocketPlace)> {
        let fail = |e: &io::Error, cure: &str| failed(path, e, cure);
        let (private, lock) = take_private(path)?;
        check_free(path).map_err(|e| fail(&e, "remove it or set control.socket to another path"))?;
        let fresh = private.join("new");
        let bound = bind_at(&fresh).and_then(|listener| {
            let metadata = fs::symlink_metadata(&fresh)?;
            fs::rename(&fresh, path)?;
            Ok((listener, (metadata.dev(), metadata.ino())))
        });
        let (listener, device_inode) = bound.map_err(|e| {
            let _ = fs::remove_dir_all(&private);
            fail(&e, "set control.socket to a path of fewer than 90 bytes in a writable directory")
        })?;
        let device_inode = Some(device_inode);
        Ok((listener, SocketPlace { path: path.to_owned(), private, device_inode, _lock: lock }))
    }

    /// Takes the place of a socket at `path` that was passed: its file stays.
    ///
    /// # Errors
    /// As for [`SocketPlace::bind`], and where others than the owner may open the socket.
    pub(super) fn around(path: &Path) -> io::Result<SocketPlace> {
        let mode = fs::metadata(path)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let what = format!(
                "the passed socket {path:?} has mode {mode:04o}, and whoever opens it is the owner: write SocketMode=0600 in its socket unit"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        let (private, lock) = take_private(path)?;
        Ok(SocketPlace { path: path.to_owned(), private, device_inode: None, _lock: lock })
    }

    /// A directory of mode 0700 for further sockets; removed with this one.
    pub(super) fn private(&self) -> &Path {
        &self.private
    }

    fn is_ours(&self, found: &Metadata) -> bool {
        self.device_inode == Some((found.dev(), found.ino()))
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        // Whoever has put something else there meant it.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| self.is_ours(&found)) {
            let _ = fs::remove_file(&self.path);
        }
        let _ = fs::remove_dir_all(&self.private);
    }
}

/// Binds a socket of mode 0600 at `path`, in a directory that nobody else can enter. What is there is replaced.
pub(super) fn bind_at(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn failed(path: &Path, e: &io::Error, cure: &str) -> io::Error {
    io::Error::new(e.kind(), format!("control socket {path:?}: {e}; {cure}"))
}

/// The private directory of the socket at `path`, locked.
fn take_private(path: &Path) -> io::Result<(PathBuf, Flock<File>)> {
    let private = private_dir(path).ok_or_else(|| {
        failed(path, &io::Error::from(io::ErrorKind::InvalidInput), "name a file in a directory")
    })?;
    let lock = lock_dir(&private).map_err(|e| {
        let cure = match e.kind() {
            io::ErrorKind::WouldBlock => {
                "another server uses it: stop that one or set control.socket to another path"
            }
            _ => "its directory must exist, be writable, and belong to the user that runs the server",
        };
        failed(path, &e, cure)
    })?;
    Ok((private, lock))
}

fn private_dir(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    Some(path.with_file_name(format!(".{name}.d")))
}

/// Makes the private directory, or takes over the one that a dead server has left, and locks it.
fn lock_dir(dir: &Path) -> io::Result<Flock<File>> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        let what = format!("{dir:?} is not a directory of mode 0700 of this user");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Flock::lock(File::open(dir)?, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| io::Error::from(e))
}

/// Refuses a path where something else than a dead server's socket is.
fn check_free(path: &Path) -> io::Result<()> {
    let taken = |what: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(found) if !found.file_type().is_socket() => taken("a file that is no socket is there"),
        // Our own servers hold the lock, so whoever answers is another program.
        Ok(_) => match UnixStream::connect(path) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(e) => Err(e),
            Ok(_) => taken("another program answers there"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::TempDir;

    #[test]
    fn it_is_the_owners_alone_replaces_a_dead_one_and_goes_away() {
        let dir = TempDir::new();
        let path = dir.path().join("c.sock");
        drop(UnixListener::bind(&path).expect("a socket of a dead server"));
        let (listener, place) = SocketPlace::bind(&path).expect("bound");
        let mode = |path: &Path| fs::symlink_metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join(".c.sock.d")), 0o700);
        drop(UnixStream::connect(&path).expect("it listens"));
        listener.accept().expect("the connection arrives");
        let error = SocketPlace::bind(&path).expect_err("a second server").to_string();
        assert!(error.contains("another server uses it"), "{error}");
        UnixStream::connect(&path).expect("the first one still listens");
        drop(place);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0, "nothing is left");
    }

    #[test]
    fn what_a_killed_server_leaves_is_taken_over() {
        let dir = TempDir::new();
        let path = dir.path().join("c.sock");
        let private = dir.path().join(".c.sock.d");
        DirBuilder::new().mode(0o700).create(&private).expect("made");
        for left in [&path, &private.join("http"), &private.join("new")] {
            drop(UnixListener::bind(left).expect("bound"));
        }
        let (_, again) = SocketPlace::bind(&path).expect("bound again");
        drop(again);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_alone() {
        let dir = TempDir::new();
        let path = dir.path().join("c.sock");
        fs::write(&path, "text").expect("a file");
        let error = SocketPlace::bind(&path).expect_err("a file").to_string();
        assert!(error.contains("no socket") && error.contains("control.socket"), "{error}");
        assert_eq!(fs::read(&path).expect("still there"), b"text");
        let other = dir.path().join("d.sock");
        let _listening = UnixListener::bind(&other).expect("another program");
        let error = SocketPlace::bind(&other).expect_err("it answers").to_string();
        assert!(error.contains("another program"), "{error}");
        let open = dir.path().join(".e.sock.d");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, Permissions::from_mode(0o755)).expect("open to others");
        let error = SocketPlace::bind(&dir.path().join("e.sock")).expect_err("not private").to_string();
        assert!(error.contains("mode 0700"), "{error}");
        assert!(SocketPlace::bind(Path::new("/")).is_err());
        assert!(SocketPlace::bind(Path::new("/no/such/dir/c.sock")).is_err());
        let long = dir.path().join("x".repeat(100));
        let error = SocketPlace::bind(&long).expect_err("too long").to_string();
        assert!(error.contains("fewer than 90 bytes"), "{error}");
    }
}
