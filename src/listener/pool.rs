//! The pool: threads around one poller, and how they are started, drained and joined.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;

use super::conn::Conn;
use super::core::{Bounds, Core, HandOver, LISTENER_BIT, ListenerState, Stage, WAKE_TOKEN};
use super::counters::{CloseReason, ListenerCounters, Rate};
use super::serve::{Hands, accept_pending, panic_text};
use super::slots::{ConnId, Phase};
use super::socket::{Listener, Stream};
use super::taken::{EVENTS_PER_WAIT, KEPT};
use super::{Service, Source, TlsSettings};
use crate::clock;
use crate::config::Limits;
use crate::metrics::{self, Registry};
use crate::threads;

/// How many connections are still taken in when accepting ends; the kernel resets the others.
const LAST_ACCEPTS_MAX: usize = 4096;

/// A drain ends early when nothing has been received for this long and no request is in flight.
const QUIET_MS: u64 = 250;

/// The smallest default bound for buffered bytes.
const BUFFERED_BYTES_MIN: usize = 256 << 20;

/// How long the threads have to close what is left once the drain is over.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// File descriptors that the process needs besides connections: log files, sinks, the poller.
const OTHER_FILES: u64 = 64;

/// A listening socket and what comes in through it: HTTP for [`Source::Http`] and [`Source::Admin`], lines for [`Source::Tcp`] and
/// [`Source::Unix`].
#[derive(Debug)]
pub struct Endpoint {
    /// What it is counted as, and how it is framed.
    pub source: Source,
    /// The socket.
    pub listener: Listener,
    /// What TLS connections are begun with, where TLS is spoken; with HTTP only.
    pub tls: Option<Arc<TlsSettings>>,
    /// Somebody else keeps the socket open: who connects when this one is closed waits for the next server.
    pub is_passed: bool,
}

impl Endpoint {
    /// Of a socket of our own, without TLS.
    pub fn new(source: Source, listener: Listener) -> Endpoint {
        Endpoint { source, listener, tls: None, is_passed: false }
    }
}

/// A connection of a sender, between two frames: the process before this one has served it, or the next one will.
#[derive(Debug)]
pub struct Established {
    /// What it is counted as, and how it is framed.
    pub source: Source,
    /// The connection.
    pub stream: Stream,
}

/// Settings of a pool.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Number of threads; at least one is started.
    pub threads: usize,
    /// Limits of connections, sizes and times.
    pub limits: Limits,
    /// Most bytes of unfinished requests, lines and replies held for all connections together. Over it HTTP requests get 503 and streams
    /// are not read. `None`: four times `record_bytes_max`, at least 256 MiB.
    pub buffered_bytes_max: Option<usize>,
}

impl PoolOptions {
    /// As many threads as cores, at least two; the default bound for buffered bytes.
    pub fn new(limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        PoolOptions { threads: cores.max(2), limits, buffered_bytes_max: None }
    }
}

/// A thread's sign of life: it moves at least once a second while the thread works.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The thread's name.
    pub thread: String,
    pub(super) beats: Arc<AtomicU64>,
    number: Arc<AtomicU64>,
}

impl Heartbeat {
    pub(crate) fn new(thread: String) -> Self {
        Heartbeat { thread, beats: Arc::default(), number: Arc::default() }
    }

    pub(crate) fn beat(&self) {
        self.number.store(threads::number(), Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of the thread ([`threads::number`]); 0 before its first loop.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// How many loops the thread has made.
    pub fn count(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}

/// What a drain left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still within a request, a line or a reply when the time was up.
    pub in_flight: usize,
}

/// Running listener threads. Dropping it joins them.
pub struct Pool<S: Service> {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    heartbeats: Mutex<Vec<Heartbeat>>,
    service: Arc<S>,
    /// So many threads were asked for.
    asked_for: usize,
}

impl<S: Service> std::fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads, {} connections)", self.heartbeats.lock().len(), self.core.slots.open())
    }
}

impl<S: Service> Pool<S> {
    /// Starts serving `endpoints`. Returns at once; the threads are `ingest-0` and so on.
    ///
    /// # Errors
    /// The kernel's refusal of a poller, a socket option or a thread, or an endpoint of [`Source::Udp`] or of lines with TLS. No thread is left running.
    pub fn start(
        service: Arc<S>,
        endpoints: Vec<Endpoint>,
        options: PoolOptions,
        registry: &Registry,
    ) -> io::Result<Pool<S>> {
        let asked_for = options.threads.max(1);
        warn_of_file_limit(options.limits.connections_max);
        let buffered = options.buffered_bytes_max.unwrap_or_else(|| buffered_bytes_max(&options.limits));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE_TOKEN))?;
        let mut listeners = Vec::with_capacity(endpoints.len());
        for (index, endpoint) in (0u32..).zip(endpoints) {
            let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            if endpoint.source == Source::Udp {
                return refused("UDP is served by UdpListener");
            }
            if endpoint.tls.is_some() && !matches!(endpoint.source, Source::Http | Source::Admin) {
                return refused("TLS is spoken with HTTP only");
            }
            endpoint.listener.prepare()?;
            let token = ConnId { index: LISTENER_BIT | index, generation: 0 }.token();
            epoll.add(
                &endpoint.listener,
                EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, token),
            )?;
            listeners.push(ListenerState {
                source: endpoint.source,
                counters: ListenerCounters::new(endpoint.source, registry),
                listener: Mutex::new(Some(endpoint.listener)),
                tls: endpoint.tls,
                is_passed: endpoint.is_passed,
                resume_at_ms: AtomicU64::new(0),
                complaints: Rate::default(),
                tls_complaints: Rate::default(),
            });
        }
        let core = Arc::new(Core::new(
            epoll,
            wake,
            options.limits.connections_max,
            listeners,
            2 * asked_for,
            Bounds::new(&options.limits, buffered),
            registry.gauge(&metrics::BUFFERED_BYTES, &[]),
        ));
        let pool = Pool { core, threads: Mutex::default(), heartbeats: Mutex::default(), service, asked_for };
        for _ in 0..asked_for {
            pool.start_thread()?;
        }
        Ok(pool)
    }

    /// Serves connections that another process has had, as far as there is a listener of their kind and room; the others are closed.
    /// Returns how many are served.
    pub fn adopt(&self, connections: Vec<Established>) -> usize {
        let core = &self.core;
        let serves = |Established { source, stream }| {
            let Some(listener) = core.listeners.iter().position(|l| l.source == source) else { return false };
            // What was begun without TLS does not go on with it.
            core.listeners[listener].tls.is_none()
                && stream.adopt().is_ok()
                && core.admit(Box::new(Conn::new(stream, listener, source, None)), true).is_ok()
        };
        connections.into_iter().map(serves).filter(|served| *served).count()
    }

    /// Starts a thread in the place of one of those that are `held` up, where fewer serve than were asked for; in all at most as many more
    /// as that, which stay when the others come back. To be called by one thread, until it returns none. Returns the new one's sign of life.
    ///
    /// # Errors
    /// The kernel's refusal of a thread; those that there are go on.
    pub fn make_up_for(&self, held: usize) -> io::Result<Option<Heartbeat>> {
        let wanted = self.asked_for + held.min(self.asked_for);
        let is_enough = self.heartbeats.lock().len() >= wanted;
        if is_enough { Ok(None) } else { self.start_thread().map(Some) }
    }

    fn start_thread(&self) -> io::Result<Heartbeat> {
        let number = self.heartbeats.lock().len();
        let heartbeat = Heartbeat::new(format!("ingest-{number}"));
        let mut hands = Hands::new(Arc::clone(&self.service));
        let (core, beat) = (Arc::clone(&self.core), heartbeat.clone());
        let thread = threads::spawn(&heartbeat.thread, move || run(&core, number, &mut hands, &beat))?;
        self.threads.lock().push(thread);
        self.heartbeats.lock().push(heartbeat.clone());
        Ok(heartbeat)
    }

    /// Other limits from now on, for open connections too. The number of connections stays.
    pub fn set_limits(&self, limits: &Limits) {
        self.core.set_bounds(Bounds::new(limits, buffered_bytes_max(limits)));
    }

    /// A sign of life of each thread, for the watchdog.
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        self.heartbeats.lock().clone()
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.core.slots.open()
    }

    /// Takes in who has connected already, then closes the listening sockets; established connections go on. New connections are
    /// refused by the kernel from here on. A Unix socket's file is removed. Where the socket was passed, who is not taken in yet waits
    /// for the next server.
    pub fn stop_accepting(&self) {
        for (index, state) in self.core.listeners.iter().enumerate() {
            let mut listener = state.listener.lock();
            match listener.take() {
                // It stays open elsewhere, and so would the watching.
                Some(listener) if state.is_passed => drop(self.core.epoll.delete(&listener)),
                Some(listener) => drop(accept_pending(&self.core, index, &listener, LAST_ACCEPTS_MAX)),
                None => {}
            }
        }
    }

    /// Stops accepting, and takes the connections of senders out as they come between two frames, for at most `timeout`: in the first half
    /// of it once nothing is left to be read, then at once. They stay open: what their senders write meanwhile waits in the kernel for the
    /// process that is given them. At most `max` are taken; the others stay, and TLS connections, which end with the process that has their
    /// keys. Blocks.
    pub fn hand_over(&self, timeout: Duration, max: usize) -> Vec<Established> {
        let core = &self.core;
        self.stop_accepting();
        core.begin_hand_over(max);
        for how in [HandOver::WhenRead, HandOver::AtOnce] {
            core.set_hands_over(how);
            let deadline = clock::now() + timeout / 2;
            while core.may_hand_over() && clock::now() < deadline {
                self.nudge_all();
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        core.end_hand_over()
    }

    /// Stops accepting, lets requests in flight finish and reads the streams until they are quiet, for at most `timeout`; then
    /// closes all connections. HTTP requests that come meanwhile are served and answered with `Connection: close`; streams are closed
    /// with a reset, so that their senders' next write fails and is sent again elsewhere. Blocks.
    pub fn drain(&self, timeout: Duration) -> Drained {
        let core = &self.core;
        core.last_input_ms.store(core.now_ms(), Ordering::Relaxed);
        // First: who finds the listener closed gets no reply any more that leaves a connection open.
        core.advance_to(Stage::Draining);
        self.stop_accepting();
        let deadline = clock::now() + timeout;
        loop {
            let quiet = core.now_ms().saturating_sub(core.last_input_ms.load(Ordering::Relaxed)) >= QUIET_MS;
            if (quiet && self.in_flight() == 0) || core.slots.open() == 0 || clock::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let in_flight = self.in_flight();
        core.advance_to(Stage::Closing);
        let deadline = clock::now() + CLOSING_MAX;
        while core.slots.open() > 0 && clock::now() < deadline {
            self.nudge_all();
            std::thread::sleep(Duration::from_millis(2));
        }
        Drained { in_flight }
    }

    /// Connections that are within something.
    fn in_flight(&self) -> usize {
        let is_busy = |phase| {
            !matches!(phase, Phase::Free | Phase::Idle | Phase::Quiet | Phase::Linger | Phase::Handshake)
        };
        self.core
            .slots
            .iter()
            .filter(|(_, slot)| is_busy(slot.phase().0) || slot.try_lock().is_none())
            .count()
    }

    /// Has the threads look at each connection; at this stage they close it.
    fn nudge_all(&self) {
        for (index, slot) in self.core.slots.iter() {
            let phase = slot.phase().0;
            if matches!(phase, Phase::Free | Phase::Parked | Phase::Write) {
                continue;
            }
            let Some(mut inside) = slot.try_lock() else { continue };
            let id = ConnId { index, generation: inside.generation };
            self.core.arm(slot, id, &mut inside, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT);
        }
    }

    /// Ends the threads and closes what is still open. Blocks until each thread has finished the event that it is handling.
    pub fn join(&self) {
        self.end_threads();
        for thread in self.threads.lock().drain(..) {
            if let Err(panic) = thread.join() {
                log::error!("a listener thread panicked: {}", panic_text(&*panic));
            }
        }
        self.close_all();
    }

    /// The same, but threads that have not ended by `deadline` are left behind, with the connections that they serve. Returns their names.
    pub fn join_by(&self, deadline: Instant) -> Vec<String> {
        self.end_threads();
        let threads = std::mem::take(&mut *self.threads.lock());
        let left = threads::join_by(threads, deadline);
        self.close_all();
        left
    }

    fn end_threads(&self) {
        self.stop_accepting();
        self.core.advance_to(Stage::Stopped);
        if let Err(e) = self.core.wake.write(1) {
            log::error!("cannot wake the listener threads: {e}");
        }
    }

    /// Closes what is still open, but for what a thread that was left behind is serving.
    fn close_all(&self) {
        if self.core.slots.open() == 0 {
            return;
        }
        let mut hands = Hands::new(Arc::clone(&self.service));
        for (index, slot) in self.core.slots.iter() {
            let Some(mut inside) = slot.try_lock() else { continue };
            if let Some(conn) = inside.conn.as_deref_mut() {
                hands.lines_ended(&self.core, conn);
            }
            self.core.close(slot, index, &mut inside, CloseReason::Shutdown);
        }
    }
}

impl<S: Service> Drop for Pool<S> {
    fn drop(&mut self) {
        self.join();
    }
}

/// A thread's life.
fn run<S: Service>(core: &Arc<Core>, number: usize, hands: &mut Hands<S>, heartbeat: &Heartbeat) {
    let taken = &core.taken[number];
    let mut events = [EpollEvent::empty(); EVENTS_PER_WAIT];
    let mut take = EVENTS_PER_WAIT;
    while core.stage() != Stage::Stopped {
        // Arming a connection that can be read at once would wake another thread for it, which costs more than what it would do.
        let keeps = taken.keeps();
        let timeout = if keeps { 0 } else { core.wait_ms() };
        let ready = match core.epoll.wait(&mut events[..take], timeout) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(e) => {
                log::error!("{}: cannot wait for events: {e}", heartbeat.thread);
                std::thread::sleep(Duration::from_millis(100));
                0
            }
        };
        heartbeat.beat();
        let start_ms = core.now_ms();
        taken.put(events[..ready].iter().map(EpollEvent::data), start_ms);
        // Only one that is alone is kept: of several each takes its turn.
        let own = (ready + usize::from(keeps) == 1).then_some(taken);
        for at in (0..ready).chain(keeps.then_some(KEPT)) {
            survive(|| hands.dispatch(core, taken.claim(at), own));
        }
        taken.done();
        let end_ms = core.now_ms();
        let slow = end_ms > start_ms + 1;
        take = if slow { 1 } else { (take * 2).min(EVENTS_PER_WAIT) };
        survive(|| hands.sweep_if_due(core, end_ms));
        survive(|| hands.service.after_events(&mut hands.worker));
    }
}

/// The service's panics have been caught further in; one of our own must not end a thread either.
fn survive(step: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(step)) {
        log::error!("a listener thread panicked and goes on: {}", panic_text(&*panic));
    }
}

fn buffered_bytes_max(limits: &Limits) -> usize {
    limits.record_bytes_max.saturating_mul(4).max(BUFFERED_BYTES_MIN)
}

fn warn_of_file_limit(connections_max: usize) {
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < connections_max as u64 + OTHER_FILES
    {
        log::warn!(
            "limits.connections_max is {connections_max}, but this process may open {soft} files only; raise LimitNOFILE"
        );
    }
}
