//! What all threads of a pool share: the poller, the slots, limits and counters; closing, arming and evicting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;

use super::Source;
use super::conn::{Conn, Next, Protocol};
use super::counters::{CloseReason, ListenerCounters, Rate};
use super::park;
use super::pool::Established;
use super::slots::{ConnId, Inside, Phase, Slot, Slots};
use super::socket::Listener;
use super::taken::Taken;
use super::tls::TlsSettings;
use crate::clock;
use crate::config::Limits;
use crate::framing::http::HttpLimits;
use crate::framing::line::LineLimits;
use crate::metrics::Gauge;

/// Marks the epoll tokens of listeners.
pub(super) const LISTENER_BIT: u32 = 1 << 31;
/// The epoll token of the eventfd that wakes everybody for the end.
pub(super) const WAKE_TOKEN: u64 = u64::MAX;

/// How far the pool is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Running,
    /// Answers say `Connection: close`.
    Draining,
    /// Each connection is closed as soon as a thread gets to it.
    Closing,
    Stopped,
}

/// Whether connections of senders are given away when they are between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandOver {
    No,
    /// Once nothing is left to be read.
    WhenRead,
    /// At once; what has come already stays in the kernel.
    AtOnce,
}

/// Connections that were given away.
#[derive(Default)]
struct HandedOver {
    connections: Vec<Established>,
    /// For so many more there is room.
    room: usize,
}

pub(super) struct ListenerState {
    pub source: Source,
    pub listener: Mutex<Option<Listener>>,
    /// See `Endpoint`.
    pub tls: Option<Arc<TlsSettings>>,
    pub is_passed: bool,
    pub counters: ListenerCounters,
    /// When to accept again after an error, in pool milliseconds; 0: accepting.
    pub resume_at_ms: AtomicU64,
    pub complaints: Rate,
    /// About TLS connections that have failed.
    pub tls_complaints: Rate,
}

/// Limits in the form in which they are needed.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub http: HttpLimits,
    pub lines: LineLimits,
    pub buffered_bytes_max: usize,
    pub idle_ms: u64,
    pub head_ms: u64,
    pub body_ms: u64,
    pub write_ms: u64,
    pub linger_bytes_max: usize,
}

/// How often a place for a newcomer is looked for before it is turned away.
const ADMIT_TRIES: usize = 4;

/// The smallest bound for a request body: a batch of records of ordinary size must pass even when `record_bytes_max` is small.
const BODY_BYTES_MIN: usize = 1 << 20;

impl Bounds {
    pub(super) fn new(limits: &Limits, buffered_bytes_max: usize) -> Self {
        let body_bytes_max = limits.record_bytes_max.max(BODY_BYTES_MIN);
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1);
        Bounds {
            http: HttpLimits { head_bytes_max: limits.head_bytes_max.max(64), body_bytes_max },
            lines: LineLimits {
                line_bytes_max: limits.record_bytes_max,
                oversize_head_bytes: super::OVERSIZE_HEAD_BYTES,
            },
            buffered_bytes_max,
            idle_ms: ms(limits.idle_timeout),
            head_ms: ms(limits.head_timeout),
            body_ms: ms(limits.body_timeout),
            write_ms: ms(limits.write_timeout),
            linger_bytes_max: 2 * body_bytes_max,
        }
    }

    /// How often deadlines are looked at: an eighth of the shortest, within 5 to 250 ms.
    pub(super) fn sweep_interval_ms(&self) -> u64 {
        (self.idle_ms.min(self.head_ms).min(self.body_ms).min(self.write_ms) / 8).clamp(5, 250)
    }
}

pub(super) struct Core {
    pub epoll: Epoll,
    pub wake: EventFd,
    pub slots: Slots,
    pub listeners: Vec<ListenerState>,
    /// The events of each thread.
    pub taken: Vec<Taken>,
    /// A reload may exchange them.
    bounds: ArcSwap<Bounds>,
    buffered_bytes: AtomicUsize,
    buffered_gauge: Arc<Gauge>,
    /// The beginning of the pool's milliseconds.
    epoch: Instant,
    stage: AtomicU8,
    pub next_sweep_ms: AtomicU64,
    pub sweep_cursor: AtomicUsize,
    /// When anything was last received; tells the drain whether it is quiet.
    pub last_input_ms: AtomicU64,
    /// A [`HandOver`].
    hands_over: AtomicU8,
    handed_over: Mutex<HandedOver>,
}

impl Core {
    pub(super) fn new(
        epoll: Epoll,
        wake: EventFd,
        connections_max: usize,
        listeners: Vec<ListenerState>,
        threads: usize,
        bounds: Bounds,
        buffered_gauge: Arc<Gauge>,
    ) -> Self {
        Core {
            epoll,
            wake,
            slots: Slots::new(connections_max),
            listeners,
            taken: std::iter::repeat_with(Taken::default).take(threads).collect(),
            bounds: ArcSwap::from_pointee(bounds),
            buffered_bytes: AtomicUsize::new(0),
            buffered_gauge,
            epoch: clock::now(),
            stage: AtomicU8::new(Stage::Running as u8),
            next_sweep_ms: AtomicU64::new(0),
            sweep_cursor: AtomicUsize::new(0),
            last_input_ms: AtomicU64::new(0),
            hands_over: AtomicU8::new(HandOver::No as u8),
            handed_over: Mutex::default(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        clock::now().saturating_duration_since(self.epoch).as_millis() as u64
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Running,
            1 => Stage::Draining,
            2 => Stage::Closing,
            _ => Stage::Stopped,
        }
    }

    /// Whether connections are given away now.
    pub(super) fn hands_over(&self) -> HandOver {
        match self.hands_over.load(Ordering::SeqCst) {
            0 => HandOver::No,
            1 => HandOver::WhenRead,
            _ => HandOver::AtOnce,
        }
    }

    /// From now on.
    pub(super) fn set_hands_over(&self, how: HandOver) {
        self.hands_over.store(how as u8, Ordering::SeqCst);
    }

    /// Moves on to `stage`; never back.
    pub(super) fn advance_to(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
    }

    /// The limits now.
    pub(super) fn bounds(&self) -> Guard<Arc<Bounds>> {
        self.bounds.load()
    }

    /// Other limits from now on; what is under way goes on with them, too.
    pub(super) fn set_bounds(&self, bounds: Bounds) {
        self.bounds.store(Arc::new(bounds));
    }

    /// Whether `more` bytes may be buffered on top of what is.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.buffered_bytes.load(Ordering::Relaxed).saturating_add(more) <= self.bounds().buffered_bytes_max
    }

    /// Brings the budget up to date with what `conn` holds.
    pub(super) fn recharge(&self, conn: &mut Conn) {
        let held = conn.heap_bytes();
        let charged = std::mem::replace(&mut conn.charged_bytes, held);
        if held > charged {
            self.buffered_bytes.fetch_add(held - charged, Ordering::Relaxed);
            self.buffered_gauge.add((held - charged) as i64);
        } else if charged > held {
            self.buffered_bytes.fetch_sub(charged - held, Ordering::Relaxed);
            self.buffered_gauge.add(-((charged - held) as i64));
        }
    }

    /// Takes a connection in, closing an idle one when all slots are in use (see [`Core::evict_longest_idle`]). Gives it back when none is
    /// idle. `has_sent`: it is known from before.
    pub(super) fn admit(&self, conn: Box<Conn>, has_sent: bool) -> Result<(), Box<Conn>> {
        let now_ms = self.now_ms();
        let free = (0..ADMIT_TRIES).find_map(|attempt| {
            if attempt > 0 {
                // Somebody may be closing a connection in this moment.
                std::thread::yield_now();
            }
            self.slots.take_free().or_else(|| {
                // One that comes from another process takes nobody's place.
                if !has_sent {
                    self.evict_longest_idle();
                }
                self.slots.take_free()
            })
        });
        let Some(index) = free else { return Err(conn) };
        let Some(slot) = self.slots.get(index) else { return Err(conn) };
        let mut inside = slot.lock();
        let id = ConnId { index, generation: inside.generation };
        let listener = &self.listeners[conn.listener];
        listener.counters.connections.add(1);
        let phase = reading_phase(&conn);
        let conn = inside.conn.insert(conn);
        slot.begin(self.slots.next_order(), has_sent);
        slot.enter_anew(phase, now_ms);
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, id.token());
        if let Err(e) = self.epoll.add(&conn.stream, event) {
            log::warn!("listener {}: cannot watch a connection: {e}", listener.source.label());
            listener.counters.accept_errors.inc();
            self.close(slot, index, &mut inside, CloseReason::Full);
        }
        Ok(())
    }

    /// Closes the connection that has been idle for longest, of those that have never sent anything where there are such; `false` when none
    /// is idle. Waits for no slot.
    pub(super) fn evict_longest_idle(&self) -> bool {
        // Somebody may begin to serve the chosen one in this moment, hence more than one try.
        for _ in 0..8 {
            let longest = self
                .slots
                .iter()
                .filter_map(|(index, slot)| {
                    let (phase, since) = slot.phase();
                    let rank = match phase {
                        Phase::Linger => 0,
                        // Whoever has never sent anything makes room before a sender between two requests.
                        Phase::Handshake => 1,
                        Phase::Idle | Phase::Quiet => 1 + u8::from(slot.has_sent()),
                        _ => return None,
                    };
                    // One that is being served in this moment is not idle.
                    (!slot.is_locked()).then_some((rank, since, slot.order(), index))
                })
                .min();
            let Some((_, since, order, index)) = longest else { return false };
            let Some(slot) = self.slots.get(index) else { return false };
            let Some(mut inside) = slot.try_lock() else { continue };
            let evictable = slot.order() == order
                && matches!(slot.phase(), (Phase::Linger | Phase::Handshake | Phase::Idle | Phase::Quiet, s) if s == since);
            if evictable && inside.conn.is_some() {
                self.close(slot, index, &mut inside, CloseReason::Evicted);
                return true;
            }
        }
        false
    }

    /// Does what `next` says with the connection in `inside`, whose lock is held: arms the poller, sets phase and deadline, or closes.
    pub(super) fn settle(&self, slot: &Slot, id: ConnId, inside: &mut Inside, next: Next) {
        let Some(conn) = inside.conn.as_deref_mut() else { return };
        self.recharge(conn);
        let now_ms = self.now_ms();
        let (phase, flags) = match next {
            Next::Close(reason) => return self.close(slot, id.index, inside, reason),
            Next::Read => (reading_phase(conn), Some(EpollFlags::EPOLLIN)),
            Next::Again => (reading_phase(conn), Some(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)),
            Next::Kept => (reading_phase(conn), None),
            Next::Write => (Phase::Write, Some(EpollFlags::EPOLLOUT)),
            Next::Linger => (Phase::Linger, Some(EpollFlags::EPOLLIN)),
            Next::Parked => return slot.enter_anew(Phase::Parked, now_ms),
            Next::Paused => return slot.enter(Phase::Paused, now_ms),
        };
        let is_idle = matches!(phase, Phase::Idle | Phase::Quiet);
        if is_idle {
            // It has been served, or has made its handshake.
            slot.set_has_sent();
        }
        if std::mem::take(&mut conn.fresh) || is_idle {
            slot.enter_anew(phase, now_ms);
        } else {
            slot.enter(phase, now_ms);
        }
        if let Some(flags) = flags {
            self.arm(slot, id, inside, flags);
        }
    }

    /// Has the poller report the connection once more.
    pub(super) fn arm(&self, slot: &Slot, id: ConnId, inside: &mut Inside, flags: EpollFlags) {
        let Some(conn) = inside.conn.as_deref() else { return };
        let mut event = EpollEvent::new(flags | EpollFlags::EPOLLONESHOT, id.token());
        if let Err(e) = self.epoll.modify(&conn.stream, &mut event) {
            log::warn!("listener {}: cannot watch a connection: {e}", conn.source.label());
            self.close(slot, id.index, inside, CloseReason::Shutdown);
        }
    }

    /// Gives the connection in `inside`, whose lock is held and which is between two frames, away: it stays open. `false`: nobody takes it
    /// any more, or there is no room, and it stays.
    pub(super) fn hand_over(&self, slot: &Slot, index: u32, inside: &mut Inside) -> bool {
        let mut away = self.handed_over.lock();
        if away.room == 0 {
            return false;
        }
        let Some(mut conn) = inside.conn.take() else { return false };
        // Another copy of its descriptor will live on, so closing ours does not end the watching.
        if let Err(e) = self.epoll.delete(&conn.stream) {
            log::warn!("listener {}: cannot leave a connection: {e}", conn.source.label());
        }
        if matches!(conn.protocol, Protocol::Lines(_)) {
            // Should nobody take it over.
            conn.stream.reset_on_close();
        }
        self.recharge(&mut conn);
        self.listeners[conn.listener].counters.connections.add(-1);
        let Conn { stream, source, .. } = *conn;
        away.connections.push(Established { source, stream });
        away.room -= 1;
        drop(away);
        self.free(slot, index, inside);
        true
    }

    /// There is room for `max` to be given away.
    pub(super) fn begin_hand_over(&self, max: usize) {
        self.handed_over.lock().room = max;
    }

    /// Takes what was given away; nothing is any more.
    pub(super) fn end_hand_over(&self) -> Vec<Established> {
        self.set_hands_over(HandOver::No);
        std::mem::take(&mut *self.handed_over.lock()).connections
    }

    /// Whether there is room for one more, and a connection that may come between two frames and be given away then.
    pub(super) fn may_hand_over(&self) -> bool {
        let may = |slot: &Slot| {
            // Somebody is serving it.
            let Some(inside) = slot.try_lock() else { return true };
            inside.conn.as_ref().is_some_and(|conn| conn.may_be_handed_over())
        };
        self.handed_over.lock().room > 0 && self.slots.iter().any(|(_, slot)| may(slot))
    }

    /// Ends the connection in `inside`, whose lock is held.
    pub(super) fn close(&self, slot: &Slot, index: u32, inside: &mut Inside, reason: CloseReason) {
        let Some(mut conn) = inside.conn.take() else { return };
        if !conn.has_output() {
            conn.farewell();
        }
        if matches!(conn.protocol, Protocol::Lines(_)) && reason != CloseReason::Peer {
            conn.stream.reset_on_close();
        }
        park::forget(slot);
        conn.let_go();
        self.recharge(&mut conn);
        let counters = &self.listeners[conn.listener].counters;
        counters.connections.add(-1);
        counters.count_close(reason);
        drop(conn);
        self.free(slot, index, inside);
    }

    /// The connection has gone from the slot.
    fn free(&self, slot: &Slot, index: u32, inside: &mut Inside) {
        inside.generation = inside.generation.wrapping_add(1);
        slot.enter_anew(Phase::Free, self.now_ms());
        self.slots.give_back(index);
    }
}

/// What a connection that is waiting for input is in the middle of.
fn reading_phase(conn: &Conn) -> Phase {
    match &conn.protocol {
        Protocol::Http(_) if conn.is_handshaking() => Phase::Handshake,
        Protocol::Http(framer) if framer.head().is_some() => Phase::Body,
        Protocol::Http(_) if conn.input.is_empty() && !conn.is_within_record() => Phase::Idle,
        Protocol::Http(_) => Phase::Head,
        Protocol::Lines(framer) if framer.is_within_line() => Phase::Line,
        Protocol::Lines(_) => Phase::Quiet,
    }
}
