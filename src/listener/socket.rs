//! Sockets: binding with messages that say what to do, and one type for both kinds of stream.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, SockAddr, SockRef, Socket as RawSocket, TcpKeepalive, Type};

/// Connections that the kernel holds ready until they are accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG_CONNECTIONS: i32 = 4096;

/// When a silent peer is asked for a sign of life, and when it is given up.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 5;

/// How long sent bytes may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix stream socket; the file, when it is ours, goes with it.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket, unlinked when this is dropped unless another process has replaced it in the meantime.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device_inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.device_inode);
        if same && let Err(e) = fs::remove_file(&self.path) {
            log::warn!("cannot remove socket file {:?}: {e}", self.path);
        }
    }
}

/// Listens on `addr` (`host:port`; a name is resolved, its first address that can be bound is used).
///
/// # Errors
/// With the address and what to do in the message.
pub fn bind_tcp(addr: &str) -> io::Result<TcpListener> {
    let candidates = addr.to_socket_addrs().map_err(|e| {
        explain(
            &e,
            format_args!("cannot listen on {addr:?}: {e}; write it as HOST:PORT, for example 127.0.0.1:1270"),
        )
    })?;
    let mut last = None;
    for candidate in candidates {
        match bind_one(candidate) {
            Ok(listener) => return Ok(listener),
            Err(e) => last = Some(e),
        }
    }
    let e = last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    Err(bind_error(addr, &e))
}

fn bind_one(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG_CONNECTIONS)?;
    Ok(socket.into())
}

/// The same words for TCP and UDP.
pub(super) fn bind_error(addr: &str, e: &io::Error) -> io::Error {
    let cure = match e.kind() {
        io::ErrorKind::AddrInUse => "another program has it; stop that one or choose another port",
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; use one of its own, 127.0.0.1 or 0.0.0.0"
        }
        io::ErrorKind::PermissionDenied => "choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE",
        _ => "check the address",
    };
    explain(e, format_args!("cannot listen on {addr}: {e}; {cure}"))
}

fn explain(e: &io::Error, text: std::fmt::Arguments<'_>) -> io::Error {
    io::Error::new(e.kind(), text.to_string())
}

/// Listens on a Unix stream socket at `path`, which gets mode 0600. A socket file that a dead process has left is replaced; one
/// that somebody answers on is not, nor is anything that is no socket.
///
/// # Errors
/// With the path and what to do in the message.
pub fn bind_unix(path: &Path) -> io::Result<Listener> {
    let fail = |e: io::Error, cure: &str| explain(&e, format_args!("cannot listen on {path:?}: {e}; {cure}"));
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let e = io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there");
            return Err(fail(e, "choose another path or remove it"));
        }
        Ok(_) if somebody_answers(path).map_err(|e| fail(e, "check who owns it"))? => {
            let e = io::Error::new(io::ErrorKind::AddrInUse, "another process answers there");
            return Err(fail(e, "stop that one or choose another path"));
        }
        Ok(_) => fs::remove_file(path).map_err(|e| fail(e, "remove the stale socket file"))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(fail(e, "check the path")),
    }
    let listener =
        UnixListener::bind(path).map_err(|e| fail(e, "its directory must exist and be writable"))?;
    // Between bind and chmod the file has the mode that the umask leaves; nothing can be accepted before the pool starts.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|e| fail(e, "check its owner"))?;
    let meta = fs::symlink_metadata(path).map_err(|e| fail(e, "check the path"))?;
    let file = SocketFile { path: path.to_owned(), device_inode: (meta.dev(), meta.ino()) };
    Ok(Listener::Unix(listener, Some(file)))
}

/// Only a refused connection proves that the socket file is stale. Does not block.
fn somebody_answers(path: &Path) -> io::Result<bool> {
    let probe = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

impl Listener {
    /// Sets what accepted sockets inherit. The socket may come from elsewhere (socket activation), so this is not left to `bind_tcp`.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self {
            Listener::Tcp(l) => {
                l.set_nonblocking(true)?;
                let socket = SockRef::from(l);
                socket.set_tcp_nodelay(true)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE_IDLE)
                    .with_interval(KEEPALIVE_INTERVAL)
                    .with_retries(KEEPALIVE_PROBES);
                socket.set_tcp_keepalive(&keepalive)?;
                socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
            }
            Listener::Unix(l, _) => l.set_nonblocking(true),
        }
    }

    pub(super) fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Listener::Tcp(l) => Stream::Tcp(l.accept()?.0),
            Listener::Unix(l, _) => Stream::Unix(l.accept()?.0),
        };
        match &stream {
            Stream::Tcp(s) => s.set_nonblocking(true)?,
            Stream::Unix(s) => s.set_nonblocking(true)?,
        }
        Ok(stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(l) => l.as_fd(),
            Listener::Unix(l, _) => l.as_fd(),
        }
    }
}

/// An established connection.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Reads what is there; `Ok(None)` when nothing is.
    pub(super) fn read(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        retry(|| match self {
            Stream::Tcp(s) => (&*s).read(buf),
            Stream::Unix(s) => (&*s).read(buf),
        })
    }

    /// Reads what is there, and leaves it there; `Ok(None)` when nothing is.
    pub(super) fn peek(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let fd = self.as_fd().as_raw_fd();
        retry(|| Ok(recv(fd, buf, MsgFlags::MSG_PEEK)?))
    }

    /// Writes what the kernel takes; `Ok(None)` when it takes nothing.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        retry(|| match self {
            Stream::Tcp(s) => (&*s).write(bytes),
            Stream::Unix(s) => (&*s).write(bytes),
        })
    }

    /// Whom the connection is with, for the diagnostics.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(s) => s.peer_addr().ok(),
            Stream::Unix(_) => None,
        }
    }

    /// Ends our side; what was written still arrives.
    pub(super) fn shutdown_write(&self) {
        // A peer that has gone already is no error here.
        let _ = match self {
            Stream::Tcp(s) => s.shutdown(Shutdown::Write),
            Stream::Unix(s) => s.shutdown(Shutdown::Write),
        };
    }

    /// Makes the close to come a reset, so that the sender's next write fails instead of being lost in silence.
    pub(super) fn reset_on_close(&self) {
        if let Stream::Tcp(s) = self {
            let _ = SockRef::from(s).set_linger(Some(Duration::ZERO));
        }
    }

    /// Makes a connection that another process has had fit to be served here.
    pub(super) fn adopt(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => {
                s.set_nonblocking(true)?;
                SockRef::from(s).set_linger(None)
            }
            Stream::Unix(s) => s.set_nonblocking(true),
        }
    }
}

fn retry(mut io: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        return match io() {
            Ok(n) => Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => Err(e),
        };
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
        }
    }
}
