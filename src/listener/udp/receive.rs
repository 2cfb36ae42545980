//! The receiving thread: drains the socket in batches, and does nothing else.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg};

use super::drops;
use super::ring::Ring;
use super::{Stop, WAIT};
use crate::clock;
use crate::listener::Heartbeat;
use crate::listener::counters::Rate;
use crate::listener::serve::COMPLAINT_PERIOD_MS;
use crate::metrics::Counter;

/// Datagrams received with one system call.
const DATAGRAMS_PER_BATCH: usize = 64;

/// At the end, how long what the kernel holds already is still read.
const LAST_READ_MAX: Duration = Duration::from_secs(1);

/// Longest rest after a batch.
const REST_MAX: Duration = Duration::from_millis(4);

/// What the kernel says it has dropped, and when the ring held the receiver up.
pub(super) struct Losses {
    /// The socket's count so far; the kernel's own wraps.
    pub seen: u32,
    /// Nothing was received since the kernel was last asked.
    pub asked: bool,
    pub kernel_drops: Arc<Counter>,
    pub ring_full: Arc<Counter>,
    pub drops_said: Rate,
    pub full_said: Rate,
    pub epoch: Instant,
}

impl Losses {
    fn now_ms(&self) -> u64 {
        clock::now().saturating_duration_since(self.epoch).as_millis() as u64
    }

    fn note(&mut self, total: u32) {
        let new = total.wrapping_sub(self.seen);
        // A datagram brings the count of when it came, which may be older than one that was asked for.
        if new == 0 || new > u32::MAX / 2 {
            return;
        }
        self.seen = total;
        self.kernel_drops.add(u64::from(new));
        if self.drops_said.allow(self.now_ms(), COMPLAINT_PERIOD_MS) {
            log::warn!(
                "udp: the kernel dropped {new} datagrams because the receive buffer was full, {} so far; raise sysctl net.core.rmem_max",
                self.kernel_drops.get()
            );
        }
    }

    fn note_full_ring(&self) {
        self.ring_full.inc();
        if self.full_said.allow(self.now_ms(), COMPLAINT_PERIOD_MS) {
            log::warn!(
                "udp: datagrams come in faster than they are evaluated and written; what the kernel's buffer cannot hold \
                 will be dropped and counted"
            );
        }
    }
}

pub(super) struct Receiver {
    pub socket: UdpSocket,
    pub stop: Arc<Stop>,
    pub ring: Arc<Ring>,
    pub heartbeat: Heartbeat,
    /// Room for one batch.
    pub buffers: Vec<u8>,
    pub datagram_bytes_max: usize,
    /// See [`rest`].
    pub rest: Duration,
    pub losses: Losses,
}

/// Room for one batch.
pub(super) fn batch_buffers(datagram_bytes_max: usize) -> Vec<u8> {
    vec![0; DATAGRAMS_PER_BATCH * datagram_bytes_max]
}

/// How long the receiver rests after a batch, so that the next one holds several datagrams: waking for each of them would cost
/// more than all the rest. Nobody waits for an answer; what comes meanwhile takes half of the receive buffer at a gigabyte in
/// a second.
pub(super) fn rest(receive_buffer_bytes: usize) -> Duration {
    Duration::from_nanos(receive_buffer_bytes as u64 / 2).min(REST_MAX)
}

impl Receiver {
    pub(super) fn run(&mut self) {
        let mut was_full = false;
        while !self.stop.asked.load(Ordering::SeqCst) {
            self.heartbeat.beat();
            let outlook = self.ring.look(clock::now());
            let nap = outlook.stale_in.unwrap_or(WAIT);
            if !outlook.has_room {
                if !std::mem::replace(&mut was_full, true) {
                    self.losses.note_full_ring();
                }
                self.ring.wait_for_room(clock::now() + nap);
                continue;
            }
            was_full = false;
            match self.batch() {
                Ok(0) if !self.wait(nap) => self.ask_for_drops(),
                Ok(0) => {}
                Ok(n) => {
                    self.losses.asked = false;
                    if n < DATAGRAMS_PER_BATCH {
                        std::thread::sleep(self.rest);
                    }
                }
                Err(e) => {
                    // An ICMP error of some earlier peer, say; the socket goes on.
                    log::debug!("udp: receive: {e}");
                    let _ = self.wait(nap);
                }
            }
        }
        let deadline = clock::now() + LAST_READ_MAX;
        while self.ring.wait_for_room(deadline)
            && self.batch().is_ok_and(|n| n > 0)
            && clock::now() < deadline
        {}
        self.ring.close();
    }

    /// It is quiet: what was dropped behind the last datagram is seen now, once.
    fn ask_for_drops(&mut self) {
        if !std::mem::replace(&mut self.losses.asked, true)
            && let Some(total) = drops::of(&self.socket)
        {
            self.losses.note(total);
        }
    }

    /// Sleeps until there is a datagram, or it is time to stop, to beat or to look after the ring: after `nap`. False: nothing came all
    /// that time.
    fn wait(&self, nap: Duration) -> bool {
        let mut fds = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.wake.as_fd(), PollFlags::POLLIN),
        ];
        let wait_ms = u16::try_from(nap.as_millis()).unwrap_or(u16::MAX).max(1);
        match poll(&mut fds, wait_ms) {
            Ok(n) => n > 0,
            Err(Errno::EINTR) => true,
            Err(e) => {
                log::error!("udp: cannot wait for datagrams: {e}");
                std::thread::sleep(Duration::from_millis(100));
                true
            }
        }
    }

    /// Receives what is there, up to one batch, into the ring. Returns how many datagrams that were.
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
                                self.losses.note(total);
                            }
                        }
                        (m.bytes, m.flags.contains(MsgFlags::MSG_TRUNC))
                    })
                    .collect(),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
                Err(e) => return Err(e),
            };
        self.ring.fill(|ring| {
            for ((bytes, cut), buffer) in received.iter().zip(self.buffers.chunks(self.datagram_bytes_max)) {
                ring.push(&buffer[..*bytes], *cut);
            }
        });
        Ok(received.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_receive_buffer_allows_a_short_rest_only() {
        assert_eq!(rest(212_992), Duration::from_nanos(106_496));
        assert_eq!(rest(64 << 20), REST_MAX);
    }
}
