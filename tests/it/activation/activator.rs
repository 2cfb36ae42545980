//! Stands for systemd: holds listening sockets and, where the program leaves connections, those too, and starts the program with them.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::harness::{Daemon, Plan};
use crate::support::wait_until;

/// Descriptors in one message at most.
const FDS_MAX: usize = 253;

/// What the program has left, by name.
type Store = Arc<Mutex<BTreeMap<String, Vec<OwnedFd>>>>;

/// The sockets with their names, and the store of connections.
#[derive(Debug, Default)]
pub struct Activator {
    sockets: Vec<(String, OwnedFd)>,
    store: Store,
    /// How often the keeper has found nothing to receive; none without a keeper.
    idle: Option<Arc<AtomicU64>>,
    /// Connections that the program has left, all together.
    pub kept: usize,
}

impl Activator {
    /// Listens on TCP.
    pub fn tcp(mut self, name: &str, port: u16) -> Activator {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        self.sockets.push((name.to_owned(), listener.into()));
        self
    }

    /// Opens a UDP socket with as large a receive buffer as there is. Its size in bytes comes with it.
    pub fn udp(mut self, name: &str, port: u16) -> (Activator, usize) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        let socket_ref = socket2::SockRef::from(&socket);
        socket_ref.set_recv_buffer_size(8 << 20).expect("a receive buffer");
        let bytes = socket_ref.recv_buffer_size().expect("its size");
        self.sockets.push((name.to_owned(), socket.into()));
        (self, bytes)
    }

    /// Listens on a Unix stream socket.
    pub fn unix(mut self, name: &str, path: &Path) -> Activator {
        let listener = UnixListener::bind(path).expect("a free path");
        self.sockets.push((name.to_owned(), listener.into()));
        self
    }

    /// Passes any descriptor.
    pub fn any(mut self, name: &str, fd: impl Into<OwnedFd>) -> Activator {
        self.sockets.push((name.to_owned(), fd.into()));
        self
    }

    /// The words that start a program with the sockets as descriptors 3 and on, in front of the program's own; `start` must happen within
    /// `with`.
    pub fn around<R>(&mut self, with: impl FnOnce(&[&str]) -> R) -> R {
        // What was left is passed once: the program has systemd forget it.
        let kept = std::mem::take(&mut *self.store.lock().expect("no panic while held"));
        self.kept += kept.values().map(Vec::len).sum::<usize>();
        let all: Vec<(&str, BorrowedFd<'_>)> = self
            .sockets
            .iter()
            .map(|(name, fd)| (name.as_str(), fd.as_fd()))
            .chain(kept.iter().flat_map(|(name, fds)| fds.iter().map(|fd| (name.as_str(), fd.as_fd()))))
            .collect();
        let script = script(&all);
        let inherit = |flags| {
            for (_, fd) in &all {
                fcntl_setfd(fd, flags).expect("an open descriptor");
            }
        };
        inherit(FdFlags::empty());
        let done = with(&["bash", "-c", &script]);
        inherit(FdFlags::CLOEXEC);
        done
    }

    /// Starts the program and waits until it is ready.
    #[track_caller]
    pub fn start(&mut self, plan: Plan) -> Daemon {
        self.around(|words| plan.under(words).start())
    }

    /// Starts it once more in the same place, after it has ended.
    #[track_caller]
    pub fn again(&mut self, daemon: Daemon) -> Daemon {
        self.around(|words| daemon.again_with(|plan| plan.under(words)))
    }

    /// Whether it keeps what is left with it.
    pub fn keeps(&self) -> bool {
        self.idle.is_some()
    }

    /// Keeps what is left with it through the socket at `path`, as systemd does.
    pub fn keep(&mut self, path: &Path) -> Keeper {
        let socket = UnixDatagram::bind(path).expect("a socket for messages");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a deadline");
        let (store, stop) = (Arc::clone(&self.store), Arc::new(AtomicBool::new(false)));
        let (stopped, idle) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
        self.idle = Some(Arc::clone(&idle));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                if !receive(&socket, &store) {
                    idle.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Keeper { stop, thread: Some(thread) }
    }

    /// Waits until everything that has been left is in the store: the program has ended, so nothing comes after an empty look.
    pub fn settle(&self) {
        let Some(idle) = &self.idle else { return };
        // The first one may have begun before the end.
        let wanted = idle.load(Ordering::SeqCst) + 2;
        wait_until("all messages are received", || idle.load(Ordering::SeqCst) >= wanted);
    }
}

/// Receives until it is dropped.
pub struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// First away from where they are, so that none is overwritten before its turn.
fn script(all: &[(&str, BorrowedFd<'_>)]) -> String {
    let mut words = String::new();
    let numbered = || all.iter().map(|(_, fd)| fd.as_raw_fd()).enumerate();
    for (n, fd) in numbered() {
        words.push_str(&format!("exec {}<&{fd} {fd}<&-\n", 500 + n));
    }
    for (n, _) in numbered() {
        words.push_str(&format!("exec {}<&{} {}<&-\n", 3 + n, 500 + n, 500 + n));
    }
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let names = if names.iter().all(|name| name.is_empty()) {
        String::new()
    } else {
        format!("export LISTEN_FDNAMES='{}'\n", names.join(":"))
    };
    words + &format!("{names}export LISTEN_PID=$$ LISTEN_FDS={}\nexec \"$0\" \"$@\"", all.len())
}

/// One message: descriptors are kept under their name, or those of a name are forgotten. False: there is none.
fn receive(socket: &UnixDatagram, store: &Store) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 4096];
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
    let Ok(received) = received else { return false };
    let text = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
    let mut store = store.lock().expect("no panic while held");
    if text.lines().any(|line| line == "FDSTOREREMOVE=1") {
        store.remove(&name);
    }
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message
            && text.lines().any(|line| line == "FDSTORE=1")
        {
            store.entry(name.clone()).or_default().extend(fds);
        }
    }
    true
}
