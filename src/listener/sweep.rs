//! Deadlines: every few milliseconds one of the pool threads looks at the slots' stamps and closes what is overdue.
//!
//! The cost of one look is bounded (a window of slots), and a slot whose mutex somebody holds is left for the next one: it is being
//! served in this moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::epoll::EpollFlags;

use super::Service;
use super::conn::{Conn, Protocol};
use super::core::Core;
use super::counters::CloseReason;
use super::http::Response;
use super::park::answer;
use super::reply::Form;
use super::serve::{Hands, arm_listener};
use super::slots::{ConnId, Phase};
use super::taken::KEPT;

/// How many slots one sweep looks at.
const SLOTS_PER_SWEEP: usize = 16 << 10;

/// Time between sweeps while a listener rests after an error.
const RESTING_SWEEP_MS: u64 = 25;

/// Longest sleep of a thread: its heartbeat moves at least this often.
const HEARTBEAT_MS: u16 = 1000;

/// How long the peer has to close its side after the last reply.
const LINGER_MS: u64 = 2_000;

impl Core {
    /// How long until deadlines are looked at again.
    fn sweep_interval_ms(&self) -> u64 {
        let resting = self.listeners.iter().any(|l| l.resume_at_ms.load(Ordering::Relaxed) != 0);
        if resting { RESTING_SWEEP_MS } else { self.bounds().sweep_interval_ms() }
    }

    /// How long a thread may sleep.
    pub(super) fn wait_ms(&self) -> u16 {
        let interval = self.sweep_interval_ms();
        let nothing_due = self.slots.open() == 0 && interval != RESTING_SWEEP_MS;
        if nothing_due { HEARTBEAT_MS } else { interval as u16 }
    }

    /// Whether the caller is the one to sweep now.
    fn claim_sweep(&self, now_ms: u64) -> bool {
        let due = self.next_sweep_ms.load(Ordering::Relaxed);
        let next = now_ms + self.sweep_interval_ms();
        now_ms >= due
            && self.next_sweep_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Why a connection that has been in `phase` for `age_ms` must be closed.
    fn overdue(&self, phase: Phase, age_ms: u64) -> Option<CloseReason> {
        let (limit_ms, reason) = match phase {
            Phase::Free | Phase::Quiet | Phase::Parked => return None,
            Phase::Idle => (self.bounds().idle_ms, CloseReason::IdleTimeout),
            Phase::Head | Phase::Handshake => (self.bounds().head_ms, CloseReason::HeadTimeout),
            Phase::Body => (self.bounds().body_ms, CloseReason::BodyTimeout),
            Phase::Line | Phase::Paused => (self.bounds().body_ms, CloseReason::LineTimeout),
            Phase::Write => (self.bounds().write_ms, CloseReason::WriteTimeout),
            Phase::Linger => (LINGER_MS, CloseReason::Peer),
        };
        (age_ms >= limit_ms).then_some(reason)
    }
}

impl<S: Service> Hands<S> {
    /// Looks at deadlines, resting listeners and events that a thread cannot get to, if it is time.
    pub(super) fn sweep_if_due(&mut self, core: &Arc<Core>, now_ms: u64) {
        if !core.claim_sweep(now_ms) {
            return;
        }
        for (index, state) in core.listeners.iter().enumerate() {
            let resume_at = state.resume_at_ms.load(Ordering::SeqCst);
            if resume_at != 0 && now_ms >= resume_at {
                state.resume_at_ms.store(0, Ordering::SeqCst);
                if let Some(listener) = &*state.listener.lock() {
                    arm_listener(core, index, listener);
                }
            }
        }
        for taken in &core.taken {
            for at in 0..=KEPT {
                // Asked each time: this thread may be held up in turn.
                if taken.is_held(core.now_ms()) {
                    self.dispatch(core, taken.claim(at), None);
                }
            }
        }
        if core.slots.open() == 0 {
            return;
        }
        let count = core.slots.len().min(SLOTS_PER_SWEEP);
        let first = core.sweep_cursor.fetch_add(count, Ordering::Relaxed);
        for at in 0..count {
            let index = (first.wrapping_add(at) % core.slots.len()) as u32;
            self.look_at(core, index, now_ms);
        }
    }

    fn look_at(&mut self, core: &Arc<Core>, index: u32, now_ms: u64) {
        let Some(slot) = core.slots.get(index) else { return };
        let (phase, since) = slot.phase();
        let reason = core.overdue(phase, now_ms.saturating_sub(since));
        let resume = phase == Phase::Paused && core.has_room(super::serve::READ_BYTES);
        if reason.is_none() && !resume {
            return;
        }
        let Some(mut inside) = slot.try_lock() else { return };
        if slot.phase() != (phase, since) {
            return;
        }
        let id = ConnId { index, generation: inside.generation };
        if resume {
            return core.arm(slot, id, &mut inside, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT);
        }
        if let (Some(reason), Some(conn)) = (reason, inside.conn.as_deref_mut()) {
            self.tell_overdue(core, conn, reason);
            core.close(slot, index, &mut inside, reason);
        }
    }

    /// Tells the peer or the service what is being given up.
    fn tell_overdue(&mut self, core: &Core, conn: &mut Conn, reason: CloseReason) {
        let (source, listener) = (conn.source, conn.listener);
        match (&conn.protocol, reason) {
            // There is nobody yet to whom something could be said.
            (Protocol::Http(_), _) if conn.is_handshaking() => {}
            (Protocol::Http(_), CloseReason::HeadTimeout | CloseReason::BodyTimeout) => {
                self.guarded(core, listener, |service, _| service.http_refused(source, 408));
                let response = Response::text(408, "the request took too long to arrive\n");
                answer(core, conn, &response, Form::REFUSED, None, &mut self.out);
            }
            (Protocol::Lines(_), _) => {
                self.lines_ended(core, conn);
            }
            (Protocol::Http(_), _) => {}
        }
    }
}
