//! Queues and workers with a scripted sink, and with real servers.

mod exchange;
mod http;
mod ledger;
mod queue;
mod trouble;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use super::retry::Class;
use super::testing::MemoryLedger;
use super::*;
use crate::config;
use crate::sink::DeliveryError;
use crate::ticket::Ticket;

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a scripted sink does with an attempt.
#[derive(Debug, Clone)]
enum Act {
    Take,
    Fail(Class),
    FailFor(Class, Duration),
    Panic,
}

#[derive(Default)]
struct Script {
    acts: VecDeque<Act>,
    always: Option<Act>,
    poison: Option<TaskId>,
    attempts: Vec<(TaskId, Instant)>,
    texts: Vec<String>,
}

/// A sink that does what a test says. With a gate, each delivery waits for a permit (or for the gate's end).
#[derive(Default)]
struct TestSink {
    script: Mutex<Script>,
    changed: Condvar,
    gate: Option<Receiver<()>>,
    aborted: AtomicUsize,
}

impl TestSink {
    fn gated() -> (Arc<TestSink>, Sender<()>) {
        let (permits, gate) = bounded(10_000);
        (Arc::new(TestSink { gate: Some(gate), ..TestSink::default() }), permits)
    }

    fn doing(acts: Vec<Act>, always: Act) -> Arc<TestSink> {
        let script = Script { acts: acts.into(), always: Some(always), ..Script::default() };
        Arc::new(TestSink { script: Mutex::new(script), ..TestSink::default() })
    }

    fn always(&self, act: Act) {
        self.script.lock().always = Some(act);
    }

    fn attempts(&self) -> Vec<TaskId> {
        self.script.lock().attempts.iter().map(|(id, _)| *id).collect()
    }

    fn wait_for_attempts(&self, n: usize) -> Vec<TaskId> {
        let until = clock::now() + PATIENCE;
        let mut script = self.script.lock();
        while script.attempts.len() < n {
            assert!(
                !self.changed.wait_until(&mut script, until).timed_out(),
                "{} of {n}",
                script.attempts.len()
            );
        }
        script.attempts.iter().map(|(id, _)| *id).collect()
    }

    fn act(act: Act) -> Result<(), DeliveryError> {
        match act {
            Act::Take => Ok(()),
            Act::Fail(class) => Err(DeliveryError::new(class, "scripted")),
            Act::FailFor(class, pause) => {
                Err(DeliveryError::new(class, "scripted").with_retry_after(Some(pause)))
            }
            Act::Panic => panic!("scripted"),
        }
    }

    fn pass_gate(&self) -> Result<(), DeliveryError> {
        match &self.gate {
            Some(gate) => gate.recv().map_err(|_| DeliveryError::new(Class::Transient, "aborted")),
            None => Ok(()),
        }
    }
}

impl Sink for TestSink {
    fn name(&self) -> &'static str {
        "test"
    }

    fn deliver(&self, task: &Task, _deadline: Instant) -> Result<(), DeliveryError> {
        let act = {
            let mut script = self.script.lock();
            script.attempts.push((task.id, clock::now()));
            let next = script.acts.pop_front().or(script.always.clone()).unwrap_or(Act::Take);
            if script.poison == Some(task.id) { Act::Fail(Class::Transient) } else { next }
        };
        self.changed.notify_all();
        self.pass_gate()?;
        Self::act(act)
    }

    fn deliver_text(&self, _id: TaskId, text: &str, _deadline: Instant) -> Result<(), DeliveryError> {
        self.pass_gate()?;
        let mut script = self.script.lock();
        let act = script.acts.pop_front().or(script.always.clone()).unwrap_or(Act::Take);
        if matches!(act, Act::Take) {
            script.texts.push(text.to_owned());
        }
        drop(script);
        self.changed.notify_all();
        Self::act(act)
    }

    fn abort(&self) {
        self.aborted.fetch_add(1, Ordering::SeqCst);
    }
}

/// Settings with delays that tests do not wait for.
fn settings() -> config::SideEffects {
    config::SideEffects {
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(5),
        ..config::SideEffects::default()
    }
}

fn spec(sink: Arc<TestSink>) -> SinkSpec {
    SinkSpec {
        group: "g".into(),
        sink,
        destination: "d".into(),
        rate_per_s: 0.0,
        digest: None,
        settings: SinkSettings::Test(0),
    }
}

fn start(settings: &config::SideEffects, specs: Vec<SinkSpec>) -> (SideEffects, Registry) {
    start_with(settings, specs, None)
}

fn start_with(
    settings: &config::SideEffects,
    specs: Vec<SinkSpec>,
    ledger: Option<&Arc<MemoryLedger>>,
) -> (SideEffects, Registry) {
    let registry = Registry::new();
    let policy = Policy { blocked_probe: Duration::from_millis(20), ..Policy::from_config(settings) };
    let ledger = ledger.map(|ledger| Arc::clone(ledger) as Arc<dyn Ledger>);
    let started = SideEffects::start_with_policy(settings, policy, specs, ledger.as_ref(), &registry);
    (started.expect("threads"), registry)
}

fn task_of(n: usize) -> Task {
    Task::new(
        "g".into(),
        format!("{{\"n\":{n}}}").as_bytes().into(),
        "http",
        SystemTime::UNIX_EPOCH + Duration::from_millis(n as u64),
    )
}

fn fresh_task() -> Task {
    Task::new("g".into(), b"{}"[..].into(), "udp", clock::wall())
}

/// No ticket may be asked for.
fn no_ticket() -> Ticket {
    panic!("asked for a ticket")
}

fn submit(queue: &SinkQueue, task: Task) -> Submitted {
    queue.submit(task, &mut no_ticket)
}

fn soon() -> Instant {
    clock::now() + PATIENCE
}

/// Waits until `condition` holds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = soon();
    while !condition() {
        assert!(clock::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn assert_ends(queue: &SinkQueue, accepted: u64, delivered: u64, dropped: u64, failed: u64) {
    let counts = queue.counts();
    assert!(counts.add_up(), "{counts:?}");
    let expected = Counts { accepted, delivered, dropped, failed, ..Counts::default() };
    assert_eq!(counts, expected);
}

fn line(registry: &Registry, text: &str) -> bool {
    registry.render().contains(&format!("vault_audit_filter_{text}\n"))
}
