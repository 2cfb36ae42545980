//! Records as datagrams. There is no answer: done is what the kernel has taken.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::pace::Pace;
use super::streams::note;
use super::tally::{Notes, kind_of};
use super::{BATCH, GRACE, SLICE, Shared};
use crate::clock;

/// Datagrams sent between two looks at the clock.
const DATAGRAMS_PER_LOOK: u64 = 32;

/// A socket of its own port for the receiver.
pub(super) struct Peer {
    socket: UdpSocket,
}

impl Peer {
    /// Nothing is sent yet; whether somebody receives there is not known.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
        }?;
        socket.connect(address)?;
        socket.set_write_timeout(Some(SLICE))?;
        Ok(Peer { socket })
    }

    /// Sends until the run is over.
    pub(super) fn run(self, pace: &Pace, shared: &Shared) {
        let mut notes = Notes::new(&shared.tally);
        let total = pace.total();
        let mut index = shared.messages.first_of(pace.flow, pace.flows);
        let mut k = 0;
        shared.sleep_until(pace.start);
        while k < total && !shared.stopped() {
            let now = clock::now();
            if pace.is_over(now, GRACE) {
                break;
            }
            let ready = pace.ready(now);
            if ready <= k {
                shared.sleep_until(pace.due(k).max(now + BATCH));
                continue;
            }
            let batch = (ready - k).min(DATAGRAMS_PER_LOOK);
            let mut sent = 0;
            for _ in 0..batch {
                let message = shared.messages.get(index);
                index += 1;
                match self.socket.send(message) {
                    Ok(n) => {
                        shared.tally.add_sent(1, n);
                        sent += 1;
                    }
                    // Refused: an earlier datagram found nobody. It cost this one its sending.
                    Err(error) => shared.tally.error(kind_of(&error)),
                }
            }
            // Which of the batch failed does not matter for the instants.
            note(&mut notes, pace, now, k, sent);
            k += batch;
        }
        if pace.is_paced() && !shared.stopped() {
            shared.tally.add_unsent(total - k);
        }
    }
}
