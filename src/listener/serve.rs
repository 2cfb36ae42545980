//! What a pool thread does with one event: accept, read, frame, ask the service, write.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::conn::{Conn, Next, Protocol};
use super::core::{Core, HandOver, LISTENER_BIT, Stage, WAKE_TOKEN};
use super::counters::CloseReason;
use super::slots::ConnId;
use super::taken::Taken;
use super::{Service, Source};
use crate::metrics::Counter;

/// Size of a thread's read buffer. A request or line that lies whole in it is served in place.
pub(super) const READ_BYTES: usize = 256 << 10;

/// How many reads an HTTP connection gets before the others come first.
pub(super) const READS_PER_WAKE: usize = 16;

/// How many connections are accepted before the established ones come first.
const ACCEPTS_PER_WAKE: usize = 16;

/// How long a listener rests after an error that trying again would only repeat.
const ACCEPT_PAUSE_MS: u64 = 100;

/// How often the same complaint is repeated at most.
pub(super) const COMPLAINT_PERIOD_MS: u64 = 10_000;

/// A thread's own things. Lives as long as the thread; the connection being served lends the rest.
pub(super) struct Hands<S: Service> {
    pub service: Arc<S>,
    pub worker: S::Worker,
    pub scratch: Box<[u8]>,
    /// Replies are encoded here.
    pub out: Vec<u8>,
    /// Content-decoded bodies.
    pub decoded: Vec<u8>,
    /// TLS records as received; empty until the first one.
    pub sealed: Vec<u8>,
}

impl<S: Service> Hands<S> {
    pub(super) fn new(service: Arc<S>) -> Self {
        let worker = service.worker();
        Hands {
            service,
            worker,
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            out: Vec::new(),
            decoded: Vec::new(),
            sealed: Vec::new(),
        }
    }

    /// Handles one event. A connection with more to do may be kept in `own`, the events of this thread, which then has to come back to it.
    pub(super) fn dispatch(&mut self, core: &Arc<Core>, token: u64, own: Option<&Taken>) {
        if token == WAKE_TOKEN {
            return;
        }
        let id = ConnId::of_token(token);
        if id.index & LISTENER_BIT != 0 {
            return accept(core, (id.index & !LISTENER_BIT) as usize);
        }
        let Some(slot) = core.slots.get(id.index) else { return };
        let mut inside = slot.lock();
        if inside.generation != id.generation {
            return;
        }
        let Some(conn) = inside.conn.as_deref_mut() else { return };
        let hands_over = core.hands_over();
        if hands_over == HandOver::AtOnce
            && conn.is_to_be_handed_over()
            && core.hand_over(slot, id.index, &mut inside)
        {
            return;
        }
        let Some(conn) = inside.conn.as_deref_mut() else { return };
        let stage = core.stage();
        if stage >= Stage::Draining {
            core.last_input_ms.store(core.now_ms(), Ordering::Relaxed);
        }
        if stage >= Stage::Closing && matches!(conn.protocol, Protocol::Lines(_)) {
            // Now, so that nothing is between the last read and the close.
            conn.stream.reset_on_close();
        }
        let outcome = match conn.protocol {
            _ if conn.parked.is_some() => return,
            _ if conn.lingering => self.linger(core, conn),
            Protocol::Http(_) => self.http_ready(core, slot, id, conn),
            Protocol::Lines(_) => self.lines_ready(core, slot, id, conn),
        };
        let next = match outcome.unwrap_or_else(Next::Close) {
            Next::Read if hands_over != HandOver::No && conn.is_to_be_handed_over() => {
                if core.hand_over(slot, id.index, &mut inside) {
                    return;
                }
                Next::Read
            }
            Next::Read | Next::Paused | Next::Linger if stage >= Stage::Closing => {
                self.lines_ended(core, conn);
                Next::Close(CloseReason::Shutdown)
            }
            Next::Read | Next::Write | Next::Linger if conn.broken => Next::Close(CloseReason::Peer),
            Next::Again if own.is_some_and(|own| own.keep(token)) => Next::Kept,
            next => next,
        };
        core.settle(slot, id, &mut inside, next);
    }

    /// Calls the service; a panic in there is counted and said, and costs this call only.
    pub(super) fn guarded<R>(
        &mut self,
        core: &Core,
        listener: usize,
        call: impl FnOnce(&S, &mut S::Worker) -> R,
    ) -> Option<R> {
        let state = &core.listeners[listener];
        guarded(&*self.service, &mut self.worker, &state.counters.panics, state.source, call)
    }

    /// Discards what the peer still sends, so that closing does not destroy the reply on its way.
    fn linger(&mut self, core: &Core, conn: &mut Conn) -> Result<Next, CloseReason> {
        for _ in 0..READS_PER_WAKE {
            match conn.stream.read(&mut self.scratch) {
                Ok(None) => break,
                Ok(Some(0)) | Err(_) => return Err(CloseReason::Peer),
                Ok(Some(n)) => conn.lingered_bytes += n,
            }
            if conn.lingered_bytes > core.bounds().linger_bytes_max {
                return Err(CloseReason::Peer);
            }
        }
        Ok(Next::Linger)
    }
}

/// Calls the service; a panic in there is counted and said, and costs this call only: `None`.
pub(super) fn guarded<S: Service, R>(
    service: &S,
    worker: &mut S::Worker,
    panics: &Counter,
    source: Source,
    call: impl FnOnce(&S, &mut S::Worker) -> R,
) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(|| call(service, &mut *worker))) {
        Ok(result) => Some(result),
        Err(panic) => {
            panics.inc();
            log::error!("listener {}: handling a frame panicked: {}", source.label(), panic_text(&*panic));
            // Whatever the worker was in the middle of is gone with it.
            match catch_unwind(AssertUnwindSafe(|| service.worker())) {
                Ok(fresh) => *worker = fresh,
                Err(_) => log::error!("a new worker state could not be made; the old one stays"),
            }
            None
        }
    }
}

/// The message of a panic, made printable.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    text.escape_debug().to_string()
}

/// Takes new connections in.
fn accept(core: &Core, index: usize) {
    let Some(state) = core.listeners.get(index) else { return };
    let guard = state.listener.lock();
    let Some(listener) = &*guard else { return };
    if accept_pending(core, index, listener, ACCEPTS_PER_WAKE) {
        arm_listener(core, index, listener);
    }
}

/// Takes in what has connected already, up to `count_max` connections. `false`: the listener has to rest.
pub(super) fn accept_pending(
    core: &Core,
    index: usize,
    listener: &super::socket::Listener,
    count_max: usize,
) -> bool {
    let state = &core.listeners[index];
    for _ in 0..count_max {
        match listener.accept() {
            Ok(stream) => {
                let conn = Conn::new(stream, index, state.source, state.tls.clone());
                if let Err(refused) = core.admit(Box::new(conn), false) {
                    turn_away(core, index, &refused);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(e) => {
                state.counters.accept_errors.inc();
                if !is_passing(&e) {
                    pause(core, index, &e);
                    return false;
                }
            }
        }
    }
    true
}

/// Errors of the connection that was about to be accepted, not of the listener (accept(2)).
fn is_passing(e: &std::io::Error) -> bool {
    matches!(
        e.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::ECONNABORTED
                | Errno::EINTR
                | Errno::EPROTO
                | Errno::ENETDOWN
                | Errno::EHOSTDOWN
                | Errno::ENONET
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EPERM
        )
    )
}

fn turn_away(core: &Core, index: usize, refused: &Conn) {
    let state = &core.listeners[index];
    state.counters.count_close(CloseReason::Full);
    refused.stream.reset_on_close();
    if state.complaints.allow(core.now_ms(), COMPLAINT_PERIOD_MS) {
        log::warn!(
            "listener {}: all {} connections are busy, a new one was closed; raise limits.connections_max",
            state.source.label(),
            core.slots.len()
        );
    }
}

/// The listener rests; the sweep wakes it.
fn pause(core: &Core, index: usize, e: &std::io::Error) {
    let state = &core.listeners[index];
    let now_ms = core.now_ms();
    let out_of_files = matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE));
    if state.complaints.allow(now_ms, COMPLAINT_PERIOD_MS) {
        let cure = if out_of_files { "; raise LimitNOFILE or lower limits.connections_max" } else { "" };
        log::warn!("listener {}: cannot accept: {e}{cure}; trying again", state.source.label());
    }
    if out_of_files {
        core.evict_longest_idle();
    }
    state.resume_at_ms.store(now_ms + ACCEPT_PAUSE_MS, Ordering::SeqCst);
}

/// Has the poller report the next newcomer.
pub(super) fn arm_listener(core: &Core, index: usize, listener: &super::socket::Listener) {
    let token = ConnId { index: LISTENER_BIT | index as u32, generation: 0 }.token();
    let mut event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, token);
    if let Err(e) = core.epoll.modify(listener, &mut event) {
        let label = core.listeners[index].source.label();
        log::error!("listener {label}: cannot watch the listening socket: {e}; trying again");
        core.listeners[index].resume_at_ms.store(core.now_ms() + ACCEPT_PAUSE_MS, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_messages_are_made_printable() {
        let text = |panic: Box<dyn std::any::Any + Send>| panic_text(&*panic);
        assert_eq!(text(Box::new("a\nb\u{1b}")), r"a\nb\u{1b}");
        assert_eq!(text(Box::new("owned\0".to_owned())), r"owned\0");
        assert_eq!(text(Box::new(7)), "no message");
    }

    #[test]
    fn only_errors_of_the_listener_make_it_rest() {
        let passing = |errno: Errno| is_passing(&std::io::Error::from(errno));
        assert!(passing(Errno::ECONNABORTED) && passing(Errno::EPROTO));
        assert!(!passing(Errno::EMFILE) && !passing(Errno::ENFILE) && !passing(Errno::ENOBUFS));
    }
}
