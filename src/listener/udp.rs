//! UDP: one thread that does nothing but receive, in batches, and hand each datagram to the service.

use std::io::{self, IoSliceMut};
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg, setsockopt, sockopt};
use parking_lot::Mutex;
use socket2::SockRef;

use super::counters::Rate;
use super::serve::{COMPLAINT_PERIOD_MS, panic_text};
use super::socket::bind_error;
use super::{BadFrame, Heartbeat, OVERSIZE_HEAD_BYTES, Service, Source};
use crate::metrics::{self, Counter, Registry};
use crate::{clock, threads};

/// Datagrams received with one system call.
const DATAGRAMS_PER_BATCH: usize = 32;

/// Longest sleep without a datagram; the heartbeat moves at least this often.
const WAIT_MS: u16 = 1000;

/// At the end, how long what the kernel holds already is still read.
const LAST_READ_MAX: Duration = Duration::from_secs(1);

/// Settings of the UDP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpOptions {
    /// Receive buffer to ask the kernel for, in bytes.
    pub receive_buffer_bytes: usize,
    /// Room for one datagram, in bytes; a longer one is cut and reported as such. UDP carries at most 65,527.
    pub datagram_bytes_max: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        UdpOptions { receive_buffer_bytes: 8 << 20, datagram_bytes_max: 64 << 10 }
    }
}

/// Opens a UDP socket on `addr` (`host:port`).
///
/// # Errors
/// With the address and what to do in the message.
pub fn bind_udp(addr: &str) -> io::Result<UdpSocket> {
    let candidates: Vec<_> = addr.to_socket_addrs().map_err(|e| bind_error(addr, &e))?.collect();
    UdpSocket::bind(&candidates[..]).map_err(|e| bind_error(addr, &e))
}

/// A running UDP thread. Dropping it stops it.
#[derive(Debug)]
pub struct UdpListener {
    thread: Mutex<Option<JoinHandle<()>>>,
    stop: Arc<Stop>,
    heartbeat: Heartbeat,
    receive_buffer_bytes: usize,
}

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    wake: EventFd,
}

impl UdpListener {
    /// Starts receiving from `socket` on the thread `udp`. Raises the receive buffer as far as the system allows and says in the
    /// diagnostics when that is less than asked for.
    ///
    /// # Errors
    /// The kernel's refusal of a socket option or a thread.
    pub fn start<S: Service>(
        service: Arc<S>,
        socket: UdpSocket,
        options: UdpOptions,
        registry: &Registry,
    ) -> io::Result<UdpListener> {
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        let receive_buffer_bytes = raise_receive_buffer(&socket, options.receive_buffer_bytes)?;
        let stop = Arc::new(Stop {
            asked: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        });
        let heartbeat = Heartbeat::new("udp".to_owned());
        let mut receiver = Receiver {
            worker: service.worker(),
            service,
            socket,
            stop: Arc::clone(&stop),
            heartbeat: heartbeat.clone(),
            buffers: vec![0; DATAGRAMS_PER_BATCH * options.datagram_bytes_max],
            datagram_bytes_max: options.datagram_bytes_max,
            drops: Drops {
                seen: 0,
                counter: registry.counter(&metrics::UDP_KERNEL_DROPS, &[]),
                complaints: Rate::default(),
                epoch: clock::now(),
            },
            panics: registry.counter(&metrics::SERVICE_PANICS, &[Source::Udp.label()]),
        };
        let thread = threads::spawn("udp", move || receiver.run())?;
        Ok(UdpListener { thread: Mutex::new(Some(thread)), stop, heartbeat, receive_buffer_bytes })
    }

    /// The receive buffer that the kernel has granted, in bytes.
    pub fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// The thread's sign of life.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Hands over what the kernel holds already, for at most a second, then closes the socket and ends the thread. Blocks.
    pub fn stop(&self) {
        self.stop.asked.store(true, Ordering::SeqCst);
        if let Err(e) = self.stop.wake.write(1) {
            log::error!("cannot wake the udp thread: {e}");
        }
        if let Some(thread) = self.thread.lock().take()
            && let Err(panic) = thread.join()
        {
            log::error!("the udp thread panicked: {}", panic_text(&*panic));
        }
    }
}

impl Drop for UdpListener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks for `wanted` bytes, past `net.core.rmem_max` where the process may. Returns what was granted.
fn raise_receive_buffer(socket: &UdpSocket, wanted: usize) -> io::Result<usize> {
    let socket_ref = SockRef::from(socket);
    if setsockopt(socket, sockopt::RcvBufForce, &wanted).is_err() {
        socket_ref.set_recv_buffer_size(wanted)?;
    }
    // The kernel doubles the value for its own bookkeeping and reports the double (socket(7)).
    let granted = socket_ref.recv_buffer_size()? / 2;
    if granted < wanted {
        log::warn!(
            "udp: receive buffer of {granted} bytes instead of {wanted}; set sysctl net.core.rmem_max={wanted} to allow more"
        );
    } else {
        log::info!("udp: receive buffer of {granted} bytes");
    }
    Ok(granted)
}

/// What the kernel says it has dropped.
struct Drops {
    /// The socket's count so far; the kernel's own wraps.
    seen: u32,
    counter: Arc<Counter>,
    complaints: Rate,
    epoch: Instant,
}

impl Drops {
    fn note(&mut self, total: u32) {
        let new = total.wrapping_sub(self.seen);
        self.seen = total;
        if new == 0 {
            return;
        }
        self.counter.add(u64::from(new));
        let now_ms = clock::now().saturating_duration_since(self.epoch).as_millis() as u64;
        if self.complaints.allow(now_ms, COMPLAINT_PERIOD_MS) {
            log::warn!(
                "udp: the kernel dropped {new} datagrams because the receive buffer was full, {} so far; raise sysctl net.core.rmem_max",
                self.counter.get()
            );
        }
    }
}

struct Receiver<S: Service> {
    service: Arc<S>,
    worker: S::Worker,
    socket: UdpSocket,
    stop: Arc<Stop>,
    heartbeat: Heartbeat,
    buffers: Vec<u8>,
    datagram_bytes_max: usize,
    drops: Drops,
    panics: Arc<Counter>,
}

impl<S: Service> Receiver<S> {
    fn run(&mut self) {
        while !self.stop.asked.load(Ordering::SeqCst) {
            self.heartbeat.beat();
            match self.batch() {
                Ok(DATAGRAMS_PER_BATCH) => {}
                Ok(_) => self.wait(),
                Err(e) => {
                    // An ICMP error of some earlier peer, say; the socket goes on.
                    log::debug!("udp: receive: {e}");
                    self.wait();
                }
            }
        }
        let deadline = clock::now() + LAST_READ_MAX;
        while self.batch().is_ok_and(|n| n > 0) && clock::now() < deadline {}
    }

    /// Sleeps until there is a datagram, or it is time to stop or to beat.
    fn wait(&self) {
        let mut fds = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.wake.as_fd(), PollFlags::POLLIN),
        ];
        if let Err(e) = poll(&mut fds, WAIT_MS)
            && e != Errno::EINTR
        {
            log::error!("udp: cannot wait for datagrams: {e}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Receives what is there, up to one batch, and hands it over. Returns how many datagrams that were.
    fn batch(&mut self) -> nix::Result<usize> {
        // Made anew for each call: the kernel shrinks the room for control messages in it to what it has used, and recvmmsg
        // does not restore it.
        let mut headers = MultiHeaders::<()>::preallocate(DATAGRAMS_PER_BATCH, Some(nix::cmsg_space!(u32)));
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.buffers.chunks_mut(self.datagram_bytes_max).map(|c| [IoSliceMut::new(c)]).collect();
        let fd = self.socket.as_raw_fd();
        let received: Vec<(usize, bool)> =
            match recvmmsg(fd, &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
                Ok(messages) => messages
                    .map(|m| {
                        for control in m.cmsgs().into_iter().flatten() {
                            if let ControlMessageOwned::RxqOvfl(total) = control {
                                self.drops.note(total);
                            }
                        }
                        (m.bytes, m.flags.contains(MsgFlags::MSG_TRUNC))
                    })
                    .collect(),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
                Err(e) => return Err(e),
            };
        for (at, (bytes, cut)) in received.iter().enumerate() {
            let start = at * self.datagram_bytes_max;
            let frame = &self.buffers[start..start + bytes];
            hand_over(&*self.service, &mut self.worker, frame, *cut, &self.panics);
        }
        self.service.after_datagrams(&mut self.worker);
        Ok(received.len())
    }
}

/// A panic of the service costs the datagram, not the thread.
fn hand_over<S: Service>(service: &S, worker: &mut S::Worker, frame: &[u8], cut: bool, panics: &Counter) {
    let call = AssertUnwindSafe(|| {
        if cut {
            let head = &frame[..frame.len().min(OVERSIZE_HEAD_BYTES)];
            service.bad_frame(Source::Udp, BadFrame::CutDatagram(head), worker);
        } else {
            service.datagram(frame, worker);
        }
    });
    if let Err(panic) = catch_unwind(call) {
        panics.inc();
        log::error!("udp: handling a datagram panicked: {}", panic_text(&*panic));
        if let Ok(fresh) = catch_unwind(AssertUnwindSafe(|| service.worker())) {
            *worker = fresh;
        }
    }
}
