//! Side effects: work that is done beside the request path, never on it.
//!
//! One [`Task`] is one record, one group and one sink. Each sink has its own bounded queue ([`SinkQueue`], the only door in) and its
//! own worker threads, so a hung destination delays nobody else. Retry accounting is in [`retry`] (pure), pacing in [`pace`];
//! what a destination's answer means is the business of [`crate::sink`].
//!
//! Every accepted task ends in exactly one of delivered, dropped (with a reason) and failed:
//! `accepted = delivered + dropped + failed + queued + waiting + in flight` ([`Counts::add_up`]).
//!
//! With a durable store ([`Ledger`]) tasks are accepted by it, before the record is acked; a sink accepts a task when it reads it from
//! there, nothing is dropped, and what is left at the end is kept.
//!
//! ```text
//! without:  pipeline ──submit──▶ queue ──▶ workers ──▶ sink
//! with:     pipeline ──accept──▶ ledger ──take (refill)──▶ queue ──▶ workers ──reserve──▶ sink
//!                                  ▲                                  │ failed, ended, returned
//!                                  └──────────────────────────────────┘
//! ```

mod backlog;
mod digest;
mod exchange;
mod ledger;
mod meters;
pub mod pace;
mod queue;
pub mod retry;
mod task;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod timer;
mod worker;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

pub use exchange::{Exchange, Retirement};
pub use ledger::{Done, Ledger, Refused, SinkNumber};
pub use queue::{Counts, QUEUE_BYTES_MAX, SinkQueue, WAITING_ROOM_TASKS_MAX};
pub use task::{DropReason, End, Submitted, Task, TaskId};

use crate::config::{self, EnqueueMode};
use crate::metrics::Registry;
use crate::sink::Sink;
use crate::{clock, threads};
use exchange::Retired;
use pace::Destination;
use queue::{Parts, Shared};
use retry::Policy;
use timer::Timer;

/// How long after the drain's deadline a worker whose delivery was cut off may take to come back.
const ABORT_GRACE: Duration = Duration::from_millis(500);

/// One sink to start; [`crate::sink::build`] makes them from the configuration.
pub struct SinkSpec {
    /// The rule group.
    pub group: Arc<str>,
    /// What delivers.
    pub sink: Arc<dyn Sink>,
    /// Equal for sinks that share a destination's rate and pauses; may hold secrets, is never shown.
    pub destination: String,
    /// Messages per second; 0 is no pacing.
    pub rate_per_s: f64,
    /// The flood digest: window, and where the whole story is.
    pub digest: Option<(Duration, Option<String>)>,
    /// What it was made from.
    pub settings: SinkSettings,
}

/// What a sink was made from: a sink of the same name with equal settings is the same sink, and goes on through a reload. Holds secrets,
/// is never shown.
#[derive(Clone, PartialEq)]
pub enum SinkSettings {
    /// `forwarding`.
    Forwarding(config::Forwarding),
    /// `messaging`, and the group's log file, which the digest names.
    Messaging(Box<config::Messaging>, Option<PathBuf>),
    /// A sink of a test.
    #[cfg(test)]
    Test(u32),
}

impl SinkSpec {
    /// `GROUP/slack`, `GROUP/forward` and so on: the sink's name in metrics, in diagnostics and in the store.
    pub fn name(&self) -> String {
        format!("{}/{}", self.group, self.sink.name())
    }
}

/// What a drain left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Tasks that were still there when the time was up; counted as dropped with reason `shutdown`.
    pub dropped: u64,
    /// Attempts that did not come back even after being cut off; their outcome is unknown.
    pub unfinished: u64,
    /// Tasks that were given back to the durable store; they are pending there.
    pub kept: u64,
}

/// A sink with its threads.
struct Running {
    queue: Arc<SinkQueue>,
    /// What it was made from; equal ones go on through a reload.
    made_from: (SinkSettings, config::SideEffects),
    /// Name of its destination.
    destination: String,
    rate_per_s: f64,
    workers: Vec<JoinHandle<()>>,
    /// Disconnected when the last worker has ended.
    finished: Receiver<()>,
}

impl Running {
    fn shared(&self) -> &Arc<Shared> {
        &self.queue.shared
    }

    /// Joins the workers. One that hangs in a system call is left to the end of the process.
    fn join(&mut self, all_ended: bool) {
        for thread in self.workers.drain(..) {
            if (all_ended || thread.is_finished()) && thread.join().is_err() {
                log::error!("a side-effect worker panicked");
            }
        }
    }
}

/// All sinks of the program with their threads.
pub struct SideEffects {
    running: Vec<Running>,
    queues: Vec<Arc<SinkQueue>>,
    /// Sinks that a reload has changed or removed, and that still have something to do.
    retired: Vec<Retired>,
    /// By name; shared by the sinks that send to one place, and by those of one configuration and the next.
    destinations: HashMap<String, Arc<Destination>>,
    ledger: Option<Arc<dyn Ledger>>,
    /// Whom the ledger wakes, by number.
    woken: Arc<ArcSwap<Vec<Weak<Shared>>>>,
    timer: Option<Timer>,
}

impl SideEffects {
    /// Starts every sink's workers (`workers` threads each, named after the sink) and, where waiting for room is allowed, the timer.
    /// What is pending in a `ledger` for these sinks is delivered beside what comes.
    ///
    /// # Errors
    /// A thread could not be started, or a sink has no number in the ledger; the threads that were started have been stopped again.
    pub fn start(
        settings: &config::SideEffects,
        specs: Vec<SinkSpec>,
        ledger: Option<&Arc<dyn Ledger>>,
        registry: &Registry,
    ) -> io::Result<SideEffects> {
        Self::start_with_policy(settings, Policy::from_config(settings), specs, ledger, registry)
    }

    fn start_with_policy(
        settings: &config::SideEffects,
        policy: Policy,
        specs: Vec<SinkSpec>,
        ledger: Option<&Arc<dyn Ledger>>,
        registry: &Registry,
    ) -> io::Result<SideEffects> {
        let woken: Arc<ArcSwap<Vec<Weak<Shared>>>> = Arc::default();
        if let Some(ledger) = ledger {
            // The ledger must not keep those alive that hold it.
            let sinks = Arc::clone(&woken);
            ledger.on_pending(Box::new(move |sink| {
                if let Some(shared) = sinks.load().get(sink.0).and_then(Weak::upgrade) {
                    shared.pending_came();
                }
            }));
        }
        let mut started = SideEffects {
            running: Vec::new(),
            queues: Vec::new(),
            retired: Vec::new(),
            destinations: HashMap::new(),
            ledger: ledger.cloned(),
            woken,
            timer: None,
        };
        match started.prepare_with_policy(settings, policy, specs, registry) {
            Ok(first) => {
                drop(started.exchange(first));
                Ok(started)
            }
            Err(e) => {
                started.drain(clock::now());
                Err(e)
            }
        }
    }

    /// Starts one sink.
    fn start_sink(
        &self,
        spec: SinkSpec,
        number: SinkNumber,
        destination: Arc<Destination>,
        (settings, policy): (&config::SideEffects, Policy),
        registry: &Registry,
    ) -> (Running, io::Result<()>) {
        let name = spec.name();
        let digest = spec.digest.filter(|(window, _)| !window.is_zero());
        let others = self.running.iter().chain(self.retired.iter().map(|retired| &retired.sink));
        let before: Vec<Weak<Shared>> =
            others.map(Running::shared).filter(|other| other.name == name).map(Arc::downgrade).collect();
        let parts = Parts {
            number,
            name,
            group: spec.group,
            sink: spec.sink,
            destination,
            ledger: self.ledger.clone(),
            policy,
            digest: digest.map(|(window, see)| digest::Digest::new(window, see, clock::now())),
            timer: self.timer.as_ref().map(Timer::kick),
            before,
        };
        let shared = Shared::new(parts, settings, registry);
        if let Some(timer) = &self.timer {
            timer.watch(&shared);
        }
        let (running, finished) = bounded(1);
        let mut workers = Vec::with_capacity(settings.workers);
        let mut result = Ok(());
        for n in 0..settings.workers {
            let (theirs, running) = (Arc::clone(&shared), running.clone());
            match threads::spawn(&format!("{}-{n}", shared.name), move || {
                worker::run(&theirs, n);
                drop(running);
            }) {
                Ok(thread) => workers.push(thread),
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
        }
        let sink = Running {
            queue: Arc::new(SinkQueue { shared }),
            made_from: (spec.settings, settings.clone()),
            destination: spec.destination,
            rate_per_s: spec.rate_per_s,
            workers,
            finished,
        };
        (sink, result)
    }

    /// All sinks, in the order in which they were given.
    pub fn queues(&self) -> &[Arc<SinkQueue>] {
        &self.queues
    }

    /// The sinks of one rule group.
    pub fn queues_of(&self, group: &str) -> Vec<Arc<SinkQueue>> {
        queues_of(&self.queues, group)
    }

    /// Takes nothing more, finishes what is queued until `deadline`, then cuts off what is under way and counts the rest as
    /// dropped with reason `shutdown`. With a ledger, only what can be sent at once is still sent, and the rest is given back to it.
    /// Blocks until `deadline` at the latest, and half a second more where a delivery must be cut off.
    pub fn drain(mut self, deadline: Instant) -> Drained {
        let mut sinks: Vec<Running> = std::mem::take(&mut self.running);
        for sink in &sinks {
            sink.shared().begin_drain(deadline);
        }
        for mut retired in std::mem::take(&mut self.retired) {
            retired.begin(deadline);
            sinks.push(retired.sink);
        }
        // Sinks of one name count together.
        let names: HashMap<&str, &Arc<SinkQueue>> =
            sinks.iter().map(|sink| (sink.queue.name(), &sink.queue)).collect();
        let sum = |of: fn(&Shared) -> u64| names.values().map(|queue| of(&queue.shared)).sum::<u64>();
        let kept: fn(&Shared) -> u64 = |shared| shared.meters.returned.get();
        let dropped: fn(&Shared) -> u64 = |shared| {
            [DropReason::Shutdown, DropReason::Reload].map(|r| shared.meters.dropped_for(r)).iter().sum()
        };
        let (kept_before, dropped_before) = (sum(kept), sum(dropped));
        let mut all_ended = all_end_by(&sinks, deadline);
        if !all_ended {
            for sink in &sinks {
                sink.shared().sink.abort();
                sink.shared().wake_all();
            }
            all_ended = all_end_by(&sinks, clock::now() + ABORT_GRACE);
        }
        for sink in &sinks {
            sink.shared().sweep();
        }
        let left = Drained {
            dropped: sum(dropped) - dropped_before,
            unfinished: sum(|shared| u64::try_from(shared.meters.in_flight.get()).unwrap_or(0)),
            kept: sum(kept) - kept_before,
        };
        sinks.iter_mut().for_each(|sink| sink.join(all_ended));
        if let Some(timer) = self.timer.take() {
            timer.stop();
        }
        if left.dropped + left.unfinished > 0 {
            log::warn!(
                "side effects: {} tasks dropped at shutdown, {} of unknown outcome",
                left.dropped,
                left.unfinished
            );
        }
        left
    }
}

/// Whether all workers of these sinks have ended at `deadline`. Blocks.
fn all_end_by(sinks: &[Running], deadline: Instant) -> bool {
    sinks.iter().all(|sink| sink.finished.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected))
}

fn queues_of(queues: &[Arc<SinkQueue>], group: &str) -> Vec<Arc<SinkQueue>> {
    queues.iter().filter(|q| q.group() == group).map(Arc::clone).collect()
}
