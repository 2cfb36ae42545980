//! A load generator for receivers of audit records: records at a rate over HTTP, TCP, UDP or a Unix stream, with latencies,
//! errors, and losses as the receiver's own counters show them.
//!
//! Open loop: each record has an instant at which it is due, fixed before the run, and its latency counts from there. A
//! receiver that stalls therefore shows in the latencies of everything that was due meanwhile ("coordinated omission",
//! <https://www.azul.com/files/HowNotToMeasureLatency_LLSummit_NYC_12Nov2013.pdf>). What was due and could not be sent before
//! the end is counted. Rate 0 is a closed loop: each connection sends as soon as it can.
//!
//! Every run is bounded: connections, duration, rate, the memory for records, and the wait for each answer.

mod address;
mod datagrams;
mod http;
mod pace;
mod process;
mod receiver;
mod records;
mod streams;
mod tally;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

pub use address::{Target, is_of_this_machine, resolve};
pub use process::{Usage, receiver_of};
pub use receiver::{Comparison, Receiver, Snapshot, compare};
pub use records::{Messages, Records};
pub use tally::{Books, Tally};
pub use wire::ClientTls;

use crate::{clock, threads};
use pace::Pace;

/// Most connections of a run; each has a thread.
pub const CONNECTIONS_MAX: u32 = 1024;
/// Longest run.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most records per second that can be asked for.
pub const RATE_PER_S_MAX: u64 = 10_000_000;

/// Between the making of the connections and the first record.
const LEAD: Duration = Duration::from_millis(20);
/// How long records that were due before the end may still be sent after it.
const GRACE: Duration = Duration::from_millis(100);
/// Longest sleep or wait without a look at whether to stop.
const SLICE: Duration = Duration::from_millis(100);
/// Once asked to stop, how long the answer or the end of a record is still waited for.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Streams and datagrams that are due within this time are sent together.
const BATCH: Duration = Duration::from_micros(250);
/// The first and the longest wait before a broken connection is made again.
const RECONNECT_FIRST: Duration = Duration::from_millis(1);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// With TLS, for HTTP.
    pub tls: Option<ClientTls>,
    /// Records per second over all connections; 0: as fast as it goes.
    pub rate_per_s: u64,
    /// Connections, at most [`CONNECTIONS_MAX`].
    pub connections: u32,
    /// How long.
    pub duration: Duration,
    /// Longest wait for a connection, for an answer, and for a stream that takes nothing.
    pub timeout: Duration,
}

/// A run under way.
#[derive(Debug)]
pub struct Run {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    flows: Vec<JoinHandle<()>>,
    started: Instant,
    cpu_before: Duration,
    duration: Duration,
}

/// What all flows of a run share.
#[derive(Debug, Clone)]
struct Shared {
    messages: Arc<Messages>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    timeout: Duration,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps until `until`; false when the run was stopped meanwhile.
    fn sleep_until(&self, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(clock::now());
            if self.stopped() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

/// What a run has come to.
#[derive(Debug)]
pub struct Outcome {
    /// Latencies, answers and errors.
    pub books: Books,
    /// Records that were wholly written.
    pub sent: u64,
    /// Their bytes, with what the protocol puts around them.
    pub sent_bytes: u64,
    /// Records that were due and not sent before the end.
    pub unsent: u64,
    /// From the first instant at which a record was due to the end of the run or its last answer.
    pub elapsed: Duration,
    /// Processor time of this process during the run.
    pub cpu: Duration,
    /// Whether the run was ended early.
    pub stopped: bool,
}

impl Run {
    /// Makes all connections and starts sending. Blocks until the connections are there.
    ///
    /// # Errors
    ///
    /// A connection that cannot be made, with what to do; nothing is left running then.
    pub fn start(plan: &Plan, messages: Messages) -> io::Result<Run> {
        let shared = Shared {
            messages: Arc::new(messages),
            tally: Arc::new(Tally::new()),
            stop: Arc::new(AtomicBool::new(false)),
            timeout: plan.timeout,
        };
        let mut senders = Vec::new();
        for _ in 0..plan.connections {
            senders.push(Sender::connect(plan)?);
        }
        let cpu_before = own_cpu();
        let started = clock::now() + LEAD;
        let mut run = Run {
            tally: Arc::clone(&shared.tally),
            stop: Arc::clone(&shared.stop),
            flows: Vec::new(),
            started,
            cpu_before,
            duration: plan.duration,
        };
        for (flow, sender) in senders.into_iter().enumerate() {
            let pace = Pace {
                start: started,
                duration: plan.duration,
                per_s: plan.rate_per_s,
                flows: u64::from(plan.connections),
                flow: flow as u64,
            };
            let shared = shared.clone();
            let spawned = threads::spawn(&format!("load-{flow}"), move || sender.run(&pace, &shared));
            match spawned {
                Ok(thread) => run.flows.push(thread),
                Err(error) => {
                    run.stop();
                    run.join();
                    return Err(error);
                }
            }
        }
        Ok(run)
    }

    /// Whether every flow has ended.
    pub fn is_over(&self) -> bool {
        self.flows.iter().all(JoinHandle::is_finished)
    }

    /// Ends the run early: what is under way is finished within a second or given up.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Counts so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How long it is meant to be.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Since the first record was due; never more than the run is long.
    pub fn elapsed(&self) -> Duration {
        clock::now().saturating_duration_since(self.started).min(self.duration)
    }

    /// Waits for the flows and gives what came out. Blocks at most for the rest of the run and one more time limit of an
    /// answer.
    pub fn finish(mut self) -> Outcome {
        self.join();
        let stopped = self.stop.load(Ordering::Relaxed);
        let cpu = own_cpu().saturating_sub(self.cpu_before);
        let last = self.tally.last().saturating_duration_since(self.started);
        // Early or late, time in which nothing was sent is no part of a rate that was as fast as it goes.
        let elapsed = if stopped { last } else { last.max(self.duration) };
        Outcome {
            sent: self.tally.sent(),
            sent_bytes: self.tally.sent_bytes(),
            unsent: self.tally.unsent(),
            books: self.tally.take_books(),
            elapsed,
            cpu,
            stopped,
        }
    }

    fn join(&mut self) {
        for flow in self.flows.drain(..) {
            // A flow that panicked has counted what it did until then.
            if flow.join().is_err() {
                self.tally.error("the sending thread panicked");
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

/// One connection before its thread runs.
enum Sender {
    Http(http::Connection),
    Stream(streams::Connection),
    Datagrams(datagrams::Peer),
}

impl Sender {
    fn connect(plan: &Plan) -> io::Result<Sender> {
        match &plan.target {
            Target::Http { address, .. } => {
                http::Connection::open(*address, plan.tls.clone(), plan.timeout).map(Sender::Http)
            }
            Target::Tcp(_) | Target::Unix(_) => {
                streams::Connection::open(&plan.target, plan.timeout).map(Sender::Stream)
            }
            Target::Udp(address) => datagrams::Peer::open(*address).map(Sender::Datagrams),
        }
    }

    fn run(self, pace: &Pace, shared: &Shared) {
        // The kernel's leave to wake a sleeper 50 µs late would be a part of every latency. Refused: it is one.
        let _ = prctl::set_timerslack(1);
        match self {
            Sender::Http(connection) => connection.run(pace, shared),
            Sender::Stream(connection) => connection.run(pace, shared),
            Sender::Datagrams(peer) => peer.run(pace, shared),
        }
    }
}

/// Processor time of this process, user and system.
fn own_cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
