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
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

pub use ledger::{Done, Ledger, Refused, SinkNumber};
pub use queue::{Counts, QUEUE_BYTES_MAX, SinkQueue, WAITING_ROOM_TASKS_MAX};
pub use task::{DropReason, End, Submitted, Task, TaskId};

use crate::config::EnqueueMode;
use crate::metrics::Registry;
use crate::sink::Sink;
use crate::{clock, threads};
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

/// All sinks of the program with their threads.
pub struct SideEffects {
    queues: Vec<Arc<SinkQueue>>,
    workers: Vec<JoinHandle<()>>,
    timer: Option<Timer>,
    /// Disconnected when the last worker has ended.
    finished: Receiver<()>,
}

impl SideEffects {
    /// Starts every sink's workers (`workers` threads each, named after the sink) and, where waiting for room is allowed, the timer.
    /// A `ledger` must have been opened with the names of these sinks in this order; what is pending in it is delivered beside what
    /// comes.
    ///
    /// # Errors
    /// A thread could not be started; those that were have been stopped again.
    pub fn start(
        settings: &crate::config::SideEffects,
        specs: Vec<SinkSpec>,
        ledger: Option<&Arc<dyn Ledger>>,
        registry: &Registry,
    ) -> io::Result<SideEffects> {
        Self::start_with_policy(settings, Policy::from_config(settings), specs, ledger, registry)
    }

    fn start_with_policy(
        settings: &crate::config::SideEffects,
        policy: Policy,
        specs: Vec<SinkSpec>,
        ledger: Option<&Arc<dyn Ledger>>,
        registry: &Registry,
    ) -> io::Result<SideEffects> {
        let may_wait = settings.enqueue_mode == EnqueueMode::Wait && ledger.is_none();
        let kick = (may_wait && !specs.is_empty()).then(timer::channel);
        let mut destinations: HashMap<String, Arc<Destination>> = HashMap::new();
        let mut queues = Vec::new();
        for (number, spec) in specs.into_iter().enumerate() {
            let name = spec.name();
            let destination = destinations
                .entry(spec.destination)
                .and_modify(|d| d.shared_with(spec.rate_per_s))
                .or_insert_with(|| Arc::new(Destination::new(spec.rate_per_s)));
            let digest = spec.digest.filter(|(window, _)| !window.is_zero());
            let parts = Parts {
                number: SinkNumber(number),
                name,
                group: spec.group,
                sink: spec.sink,
                destination: Arc::clone(destination),
                ledger: ledger.cloned(),
                policy,
                digest: digest.map(|(window, see)| digest::Digest::new(window, see, clock::now())),
                timer: kick.as_ref().map(|(tx, _)| tx.clone()),
            };
            queues.push(Arc::new(SinkQueue { shared: Shared::new(parts, settings, registry) }));
        }
        if let Some(ledger) = ledger {
            // The ledger must not keep those alive that hold it.
            let sinks: Vec<Weak<Shared>> = queues.iter().map(|q| Arc::downgrade(&q.shared)).collect();
            ledger.on_pending(Box::new(move |sink| {
                if let Some(shared) = sinks.get(sink.0).and_then(Weak::upgrade) {
                    shared.pending_came();
                }
            }));
        }
        let (running, finished) = bounded(1);
        let mut started = SideEffects { queues, workers: Vec::new(), timer: None, finished };
        match started.start_threads(settings.workers, running, kick) {
            Ok(()) => Ok(started),
            Err(e) => {
                started.drain(clock::now());
                Err(e)
            }
        }
    }

    fn start_threads(
        &mut self,
        workers: usize,
        running: Sender<()>,
        kick: Option<(Sender<()>, Receiver<()>)>,
    ) -> io::Result<()> {
        if let Some(kick) = kick {
            let sinks = self.queues.iter().map(|q| Arc::clone(&q.shared)).collect();
            self.timer = Some(Timer::start(kick, sinks)?);
        }
        for queue in &self.queues {
            for n in 0..workers {
                let (shared, running) = (Arc::clone(&queue.shared), running.clone());
                self.workers.push(threads::spawn(&format!("{}-{n}", shared.name), move || {
                    worker::run(&shared, n);
                    drop(running);
                })?);
            }
        }
        Ok(())
    }

    /// All sinks, in the order in which they were given.
    pub fn queues(&self) -> &[Arc<SinkQueue>] {
        &self.queues
    }

    /// The sinks of one rule group.
    pub fn queues_of(&self, group: &str) -> Vec<Arc<SinkQueue>> {
        self.queues.iter().filter(|q| q.group() == group).map(Arc::clone).collect()
    }

    /// Takes nothing more, finishes what is queued until `deadline`, then cuts off what is under way and counts the rest as
    /// dropped with reason `shutdown`. With a ledger, only what can be sent at once is still sent, and the rest is given back to it.
    /// Blocks until `deadline` at the latest, and half a second more where a delivery must be cut off.
    pub fn drain(self, deadline: Instant) -> Drained {
        let kept = |queues: &[Arc<SinkQueue>]| queues.iter().map(|q| q.counts().kept).sum::<u64>();
        let kept_before = kept(&self.queues);
        for queue in &self.queues {
            queue.shared.begin_drain(deadline);
        }
        let mut all_ended = self.finished.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected);
        if !all_ended {
            for queue in &self.queues {
                queue.shared.sink.abort();
                queue.shared.wake_all();
            }
            all_ended = self.finished.recv_timeout(ABORT_GRACE) == Err(RecvTimeoutError::Disconnected);
        }
        for thread in self.workers {
            // A worker that hangs in a system call is left to the end of the process.
            if (all_ended || thread.is_finished()) && thread.join().is_err() {
                log::error!("a side-effect worker panicked");
            }
        }
        let mut left = Drained::default();
        for queue in &self.queues {
            queue.shared.sweep();
            left.dropped += queue.shared.meters.dropped_for(DropReason::Shutdown);
            left.unfinished += queue.counts().in_flight;
        }
        left.kept = kept(&self.queues) - kept_before;
        if let Some(timer) = self.timer {
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
