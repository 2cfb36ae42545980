//! UDP: one thread does nothing but receive, in batches, into a bounded ring; another evaluates and writes. A slow disk holds up the
//! second one only; the first goes on draining the kernel's buffer until the ring is full. A third stands by for the second one: while
//! that is held up, it goes on with what waits.

mod drops;
mod evaluate;
mod receive;
mod ring;

use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;
use socket2::{Domain, SockRef, Socket, Type};

use super::counters::Rate;
use super::serve::panic_text;
use super::socket::bind_error;
use super::{Heartbeat, Service, Source};
use crate::metrics::{self, Registry};
use crate::{clock, threads};
use evaluate::Evaluator;
use receive::{Losses, Receiver};
use ring::Ring;

/// Longest sleep of each thread; their heartbeats move at least this often.
const WAIT: Duration = Duration::from_secs(1);

/// Settings of the UDP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpOptions {
    /// Receive buffer to ask the kernel for, in bytes.
    pub receive_buffer_bytes: usize,
    /// Room for one datagram, in bytes; a longer one is cut and reported as such. UDP carries at most 65,527.
    pub datagram_bytes_max: usize,
    /// Bytes that may wait to be evaluated. One batch of datagrams more may come on top, and up to 96 are with each evaluating thread.
    pub ring_bytes_max: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        UdpOptions { receive_buffer_bytes: 8 << 20, datagram_bytes_max: 64 << 10, ring_bytes_max: 32 << 20 }
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

impl UdpOptions {
    /// For a socket that may have been passed: a receive buffer that is larger already stays so.
    ///
    /// # Errors
    /// The kernel does not tell how large it is.
    pub fn for_socket(socket: &UdpSocket) -> io::Result<UdpOptions> {
        let options = UdpOptions::default();
        let has = SockRef::from(socket).recv_buffer_size()? / 2;
        Ok(UdpOptions { receive_buffer_bytes: options.receive_buffer_bytes.max(has), ..options })
    }
}

/// The running threads. Dropping it stops them.
#[derive(Debug)]
pub struct UdpListener {
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: Arc<Stop>,
    heartbeats: [Heartbeat; 3],
    receive_buffer_bytes: usize,
}

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    wake: EventFd,
}

impl UdpListener {
    /// Starts receiving from `socket` on the thread `udp`, and evaluating on `udp-evaluate` and `udp-standby`. Raises the receive buffer as far as the
    /// system allows and says in the diagnostics when that is less than asked for.
    ///
    /// # Errors
    /// The kernel's refusal of a socket option or a thread; nothing runs then.
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
        let ring = Arc::new(Ring::new(options.ring_bytes_max.max(1)));
        let seen = Arc::downgrade(&ring);
        registry.gauge_fn(&metrics::UDP_RING_BYTES, &[], move || {
            seen.upgrade().map_or(0.0, |ring| ring.waiting_bytes() as f64)
        });
        // A passed socket is older than this process; the one before has counted for itself.
        let dropped_before = drops::of(&socket).unwrap_or(0);
        if dropped_before > 0 {
            log::warn!(
                "udp: the kernel had dropped {dropped_before} datagrams at the passed socket before this start"
            );
        }
        let heartbeats = ["udp", "udp-evaluate", "udp-standby"].map(|name| Heartbeat::new(name.to_owned()));
        let evaluator = |heartbeat: &Heartbeat| Evaluator {
            worker: service.worker(),
            service: Arc::clone(&service),
            ring: Arc::clone(&ring),
            heartbeat: heartbeat.clone(),
            panics: registry.counter(&metrics::SERVICE_PANICS, &[Source::Udp.label()]),
        };
        let (mut first, mut standby) = (evaluator(&heartbeats[1]), evaluator(&heartbeats[2]));
        let mut receiver = Receiver {
            socket,
            stop: Arc::clone(&stop),
            ring: Arc::clone(&ring),
            heartbeat: heartbeats[0].clone(),
            buffers: receive::batch_buffers(options.datagram_bytes_max),
            datagram_bytes_max: options.datagram_bytes_max,
            rest: receive::rest(receive_buffer_bytes),
            losses: Losses {
                seen: dropped_before,
                asked: true,
                kernel_drops: registry.counter(&metrics::UDP_KERNEL_DROPS, &[]),
                ring_full: registry.counter(&metrics::UDP_RING_FULL, &[]),
                drops_said: Rate::default(),
                full_said: Rate::default(),
                epoch: clock::now(),
            },
        };
        let listener = UdpListener { threads: Mutex::default(), stop, heartbeats, receive_buffer_bytes };
        let started = threads::spawn("udp-evaluate", move || first.run())
            .map(|thread| listener.threads.lock().push(thread))
            .and_then(|()| threads::spawn("udp-standby", move || standby.stand_by()))
            .map(|thread| listener.threads.lock().push(thread))
            .and_then(|()| threads::spawn("udp", move || receiver.run()))
            // The receiver ends first, and with it the ring.
            .map(|thread| listener.threads.lock().insert(0, thread));
        if let Err(e) = started {
            ring.close();
            return Err(e);
        }
        Ok(listener)
    }

    /// The receive buffer that the kernel has granted, in bytes.
    pub fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// The threads' signs of life.
    pub fn heartbeats(&self) -> [Heartbeat; 3] {
        self.heartbeats.clone()
    }

    /// Takes what the kernel holds already, for at most a second, closes the socket, evaluates what was received and ends the
    /// threads. Blocks.
    pub fn stop(&self) {
        self.ask_to_stop();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if let Err(panic) = thread.join() {
                log::error!("a udp thread panicked: {}", panic_text(&*panic));
            }
        }
    }

    /// The same, but what has not ended by `deadline` is left behind. Returns the names of those threads.
    pub fn stop_by(&self, deadline: Instant) -> Vec<String> {
        self.ask_to_stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        threads::join_by(threads, deadline)
    }

    fn ask_to_stop(&self) {
        self.stop.asked.store(true, Ordering::SeqCst);
        if let Err(e) = self.stop.wake.write(1) {
            log::error!("cannot wake the udp thread: {e}");
        }
    }
}

impl Drop for UdpListener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks for `wanted` bytes, past `net.core.rmem_max` where the process may. Asking for more never leaves less: who has passed the socket
/// may be allowed more than this process. Returns what was granted.
fn raise_receive_buffer(socket: &UdpSocket, wanted: usize) -> io::Result<usize> {
    // The kernel doubles the value for its own bookkeeping and reports the double (socket(7)).
    let socket_ref = SockRef::from(socket);
    let before = socket_ref.recv_buffer_size()? / 2;
    if wanted < before {
        socket_ref.set_recv_buffer_size(wanted)?;
    } else if setsockopt(socket, sockopt::RcvBufForce, &wanted).is_err() {
        let trial = Socket::new(Domain::for_address(socket.local_addr()?), Type::DGRAM, None)?;
        trial.set_recv_buffer_size(wanted)?;
        if trial.recv_buffer_size()? / 2 > before {
            socket_ref.set_recv_buffer_size(wanted)?;
        }
    }
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
