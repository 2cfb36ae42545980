//! The control API: what an operator asks of a running server, as JSON over HTTP on a Unix socket. Whoever can open the socket
//! is the owner, so there is no token.
//!
//! ```text
//!  client ──▶ socket (0600) ──▶ edge ──whole requests──▶ relay ──▶ tiny_http ──▶ worker ──▶ api ─┬▶ status, explain
//!                                                                                               ├▶ Gateway (records fed in)
//!  client ──────▶ cli::queue, cli::status (client.rs)                                           └▶ TaskBook (the durable store)
//!                              └──GET /v1/tail──▶ tail: one thread for all followers
//! ```

mod answer;
mod api;
mod back;
mod book;
mod client;
mod edge;
pub mod reload;
mod selection;
mod socket;
pub mod status;
mod tail;
pub mod tasks;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

pub use api::{Api, PAGE_TASKS_MAX, Parts, Reload};
pub(crate) use book::ClosedBook;
pub use book::OpenBook;
pub(crate) use client::{Client, ClientError};
pub use selection::Selection;
pub(crate) use selection::encode;

use crate::tail::FOLLOWERS_MAX;
use crate::{clock, threads};
use back::{Back, POOL_THREADS};
use edge::{CONNECTIONS_MAX, Edge, Whole};
use socket::SocketPlace;

/// How long answers that are on their way at a stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The control API being served; ends when told, or when dropped.
pub struct Control {
    place: Option<SocketPlace>,
    /// Closed to stop the edge.
    stop: Option<UnixStream>,
    edge: Option<JoinHandle<()>>,
    relays: Vec<JoinHandle<()>>,
    tail: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    back: Option<Arc<Back>>,
}

/// The control socket, bound and not yet served: clients wait.
pub struct Bound {
    listener: std::os::unix::net::UnixListener,
    place: SocketPlace,
}

/// Binds the control socket at `path`, before anything else of the server touches files.
///
/// # Errors
/// Another server has it, or it cannot be made; the message says what to do.
pub fn bind(path: &Path) -> io::Result<Bound> {
    let (listener, place) = SocketPlace::bind(path)?;
    Ok(Bound { listener, place })
}

/// The same for a socket at `path` that was passed: its file is not made, and stays.
///
/// # Errors
/// As for [`bind`].
pub fn adopt(listener: std::os::unix::net::UnixListener, path: &Path) -> io::Result<Bound> {
    Ok(Bound { listener, place: SocketPlace::around(path)? })
}

impl Control {
    /// Serves `api`. A request's body may have `body_bytes_max` bytes.
    ///
    /// # Errors
    /// A thread could not be started; nothing is left running or on the file system.
    pub fn start(bound: Bound, api: Arc<Api>, body_bytes_max: usize) -> io::Result<Control> {
        let Bound { listener, place } = bound;
        let back = Arc::new(Back::start(place.private().to_owned(), body_bytes_max)?);
        let (stop, stopped) = UnixStream::pair()?;
        let (out, whole) = bounded(CONNECTIONS_MAX);
        let (followers, following) = bounded(FOLLOWERS_MAX);
        let edge = Edge::new(listener, stopped, [out, followers], body_bytes_max)?;
        let mut control = Control {
            place: Some(place),
            stop: Some(stop),
            edge: None,
            relays: Vec::new(),
            tail: None,
            workers: Vec::new(),
            back: Some(Arc::clone(&back)),
        };
        // The edge goes in by value: where this fails it is gone before the relays are waited for.
        control.start_threads(edge, &whole, following, &back, &api)?;
        Ok(control)
    }

    fn start_threads(
        &mut self,
        edge: Edge,
        whole: &Receiver<Whole>,
        following: Receiver<Whole>,
        back: &Arc<Back>,
        api: &Arc<Api>,
    ) -> io::Result<()> {
        for n in 0..POOL_THREADS {
            let (worker_back, api) = (Arc::clone(back), Arc::clone(api));
            self.workers.push(threads::spawn(&format!("control-{n}"), move || worker_back.work(&api))?);
            let (back, whole) = (Arc::clone(back), whole.clone());
            self.relays.push(threads::spawn(&format!("control-relay-{n}"), move || back.relay(n, &whole))?);
        }
        let theirs = Arc::clone(api);
        let tail = move || tail::run(theirs.taps(), theirs.gateway(), &following);
        self.tail = Some(threads::spawn("control-tail", tail)?);
        self.edge = Some(threads::spawn("control-edge", move || edge.run())?);
        Ok(())
    }

    /// Takes no further request, answers those that are whole within two seconds, and removes the socket. Blocks for some four seconds at
    /// most: a request that works on the store's disk for longer is left to itself, and gets no answer.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // In this order each stage finds its input ended: the edge closes the relays' queue, then nobody calls tiny_http.
        drop(self.stop.take());
        let mut panicked =
            self.edge.take().map(JoinHandle::join).iter().filter(|joined| joined.is_err()).count();
        // Without the edge it has nobody to wait for.
        panicked += self.tail.take().map(JoinHandle::join).iter().filter(|joined| joined.is_err()).count();
        let back = self.back.take();
        let cut_off = |overdue: bool| {
            if let Some(back) = back.as_ref().filter(|_| overdue) {
                back.cut_off();
            }
        };
        let relays = join_within(2 * STOP_TIMEOUT, self.relays.drain(..).collect(), |waited| {
            cut_off(waited > STOP_TIMEOUT);
        });
        if let Some(back) = &back {
            back.stop();
        }
        // A relay that was cut off has left its worker behind; all others are done.
        let patience = if relays.left == 0 { STOP_TIMEOUT } else { Duration::ZERO };
        let workers = join_within(patience, self.workers.drain(..).collect(), |_| {});
        panicked += relays.panicked + workers.panicked;
        if panicked > 0 {
            log::error!("{panicked} threads of the control API panicked");
        }
        if workers.left > 0 {
            log::warn!(
                "control socket: a request still works on the store; it is left to itself, without an answer"
            );
        }
        // tiny_http's end connects to its own socket, so that has to be there still.
        drop(back);
        drop(self.place.take());
    }
}

/// What became of threads that were to end.
struct Joined {
    panicked: usize,
    /// They go on, detached.
    left: usize,
}

/// Joins threads that end within `patience`. Meanwhile `nudge` is called with the time that has gone by.
fn join_within(patience: Duration, threads: Vec<JoinHandle<()>>, mut nudge: impl FnMut(Duration)) -> Joined {
    let start = clock::now();
    loop {
        let waited = clock::now().saturating_duration_since(start);
        if threads.iter().all(JoinHandle::is_finished) || waited >= patience {
            break;
        }
        nudge(waited);
        std::thread::sleep(STOP_TIMEOUT / 200);
    }
    let (ended, running): (Vec<_>, Vec<_>) = threads.into_iter().partition(JoinHandle::is_finished);
    let panicked = ended.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
    Joined { panicked, left: running.len() }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("place", &self.place).finish_non_exhaustive()
    }
}
