//! Parked replies: how a ticket that is dropped on any thread finds its connection again.
//!
//! The state is one atomic word per slot: a sequence number, the status to answer with, and one of
//!
//! ```text
//!  NONE ──ticket()──▶ WAITING ──service has returned──▶ PARKED ──last ticket dropped──▶ NONE  (the dropping thread replies)
//!                        └──last ticket dropped──▶ DONE ──service has returned──▶ NONE       (the pool thread replies)
//! ```
//!
//! Only the holder of the slot's mutex changes the sequence number, and closing the connection does, so a ticket that comes late
//! finds another number and does nothing. In WAITING the pool thread holds the mutex, so the dropping thread must not want it; in PARKED
//! nobody holds it for longer than it takes to write a reply.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Park;
use super::conn::{Conn, Next};
use super::core::{Core, Stage};
use super::counters::CloseReason;
use super::http::Response;
use super::reply::{self, Form};
use super::slots::{ConnId, Slot};
use crate::clock;
use crate::ticket::{Outcome, Ticket};

const NONE: u64 = 0;
const WAITING: u64 = 1;
const PARKED: u64 = 2;
const DONE: u64 = 3;

/// The status of a parked request whose work was refused.
const REFUSED: u16 = 503;

fn word(sequence: u32, status: u16, state: u64) -> u64 {
    u64::from(sequence) << 32 | u64::from(status) << 8 | state
}

fn sequence(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Invalidates the ticket that is out for `slot`, if any. The slot's mutex is held.
pub(super) fn forget(slot: &Slot) {
    let now = slot.park.load(Ordering::SeqCst);
    slot.park.store(word(sequence(now).wrapping_add(1), 0, NONE), Ordering::SeqCst);
}

/// [`forget`], where a ticket is out.
pub(super) fn forget_if(slot: &Slot, asked: bool) {
    if asked {
        forget(slot);
    }
}

/// What the service gets to park one request or line with.
pub(super) struct Parking<'a> {
    core: &'a Arc<Core>,
    slot: &'a Slot,
    id: ConnId,
    ticket: RefCell<Option<Ticket>>,
}

impl<'a> Parking<'a> {
    pub(super) fn new(core: &'a Arc<Core>, slot: &'a Slot, id: ConnId) -> Self {
        Parking { core, slot, id, ticket: RefCell::new(None) }
    }

    /// The service has returned. Whether it had asked for a ticket.
    pub(super) fn asked(self) -> bool {
        // Dropping our clone here may be what completes the ticket: the state is then DONE, not PARKED.
        self.ticket.into_inner().is_some()
    }
}

impl Park for Parking<'_> {
    fn ticket(&self, status: u16) -> Ticket {
        let mut asked = self.ticket.borrow_mut();
        if let Some(ticket) = &*asked {
            return ticket.clone();
        }
        forget(self.slot);
        let sequence = sequence(self.slot.park.load(Ordering::SeqCst));
        self.slot.park.store(word(sequence, 0, WAITING), Ordering::SeqCst);
        let (core, id) = (Arc::downgrade(self.core), self.id);
        let ticket = Ticket::new(move |outcome| {
            if let Some(core) = core.upgrade() {
                let status = if outcome == Outcome::Refused { REFUSED } else { status };
                complete(&core, id, sequence, status);
            }
        });
        asked.insert(ticket).clone()
    }
}

/// The service has returned with "parked": either the ticket is still out (`None`), or it has gone and this is the status to answer
/// with. The slot's mutex is held.
pub(super) fn settle(slot: &Slot) -> Option<u16> {
    let now = slot.park.load(Ordering::SeqCst);
    let parked = word(sequence(now), 0, PARKED);
    let waiting = word(sequence(now), 0, WAITING);
    match slot.park.compare_exchange(waiting, parked, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => None,
        Err(done) => {
            forget(slot);
            Some((done >> 8) as u16)
        }
    }
}

/// The last clone of a ticket has gone.
fn complete(core: &Core, id: ConnId, ticket: u32, status: u16) {
    let Some(slot) = core.slots.get(id.index) else { return };
    let waiting = word(ticket, 0, WAITING);
    let done = word(ticket, status, DONE);
    match slot.park.compare_exchange(waiting, done, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => return,
        Err(now) if now == word(ticket, 0, PARKED) => {}
        Err(_) => return,
    }
    let mut inside = slot.lock();
    if slot.park.load(Ordering::SeqCst) != word(ticket, 0, PARKED) || inside.generation != id.generation {
        return;
    }
    forget(slot);
    let Some(conn) = inside.conn.as_deref_mut() else { return };
    let next = resume(core, conn, status);
    core.settle(slot, id, &mut inside, next);
}

/// Sends the parked reply; a stream just goes on.
fn resume(core: &Core, conn: &mut Conn, status: u16) -> Next {
    if let Some(parked) = conn.parked.take()
        && let Some(form) = parked.form
    {
        answer(core, conn, &response(status), form, Some(parked.since), &mut Vec::new());
        if let Some(next) = conn.after_reply() {
            return next;
        }
    }
    match conn.input.is_empty() {
        true if conn.broken => Next::Close(CloseReason::Peer),
        true if conn.is_ended() => Next::Again,
        true => Next::Read,
        false => Next::Again,
    }
}

/// The answer to a request that was parked.
pub(super) fn response(status: u16) -> Response {
    match status {
        REFUSED => Response::try_again("the record could not be stored; try again\n"),
        status => Response::empty(status),
    }
}

/// Encodes a reply, hands it to the socket and counts it. `out` is room to work in.
pub(super) fn answer(
    core: &Core,
    conn: &mut Conn,
    response: &Response,
    mut form: Form,
    since: Option<std::time::Instant>,
    out: &mut Vec<u8>,
) {
    form.close |= response.close || core.stage() >= Stage::Draining;
    conn.closing |= form.close;
    conn.fresh = true;
    out.clear();
    reply::encode(response, form, out);
    let counters = &core.listeners[conn.listener].counters;
    counters.count_status(response.status);
    conn.send(out);
    if let (Some(histogram), Some(since)) = (&counters.request_seconds, since) {
        histogram.observe(clock::now().saturating_duration_since(since));
    }
}
