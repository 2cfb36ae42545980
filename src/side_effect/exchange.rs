//! Sinks while the configuration changes: those that stay as they are go on with queue, workers, breaker and pace; those that are changed or
//! removed finish what they have, with their old settings, beside the new ones.
//!
//! ```text
//!   prepare ──▶ Exchange (new sinks run, nobody submits to them) ──┬─ exchange ──▶ Retirement ── retire ──▶ tend, again and again
//!                                                                  └─ abandon
//! ```

use std::sync::Weak;

use super::*;
use crate::metrics;

/// Sinks that may be finishing their work after a reload; when there are more, the oldest one's time is up.
const RETIRED_SINKS_MAX: usize = 16;

/// The sinks of the next configuration.
pub struct Exchange {
    sinks: Vec<Next>,
    destinations: HashMap<String, Arc<Destination>>,
    queues: Vec<Arc<SinkQueue>>,
}

enum Next {
    /// The running sink with this place stays.
    Kept(usize),
    New(Box<Running>),
}

impl Exchange {
    /// The sinks of one rule group.
    pub fn queues_of(&self, group: &str) -> Vec<Arc<SinkQueue>> {
        queues_of(&self.queues, group)
    }

    /// Names of the sinks that are new or changed.
    pub fn new_names(&self) -> Vec<String> {
        let new = |next: &Next| match next {
            Next::New(sink) => Some(sink.queue.name().to_owned()),
            Next::Kept(_) => None,
        };
        self.sinks.iter().filter_map(new).collect()
    }
}

/// The sinks that an exchange has put out of use: to be handed to [`SideEffects::retire`] when nobody submits to them any more.
pub struct Retirement(Vec<Running>);

impl Retirement {
    /// Whether there is nothing to retire.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of the sinks.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|sink| sink.queue.name().to_owned()).collect()
    }
}

/// A sink that finishes what it has.
pub(super) struct Retired {
    pub(super) sink: Running,
    deadline: Instant,
    /// When it was cut off.
    hurried_at: Option<Instant>,
}

impl Retired {
    /// The program ends: its time is up at `deadline`, if not before.
    pub(super) fn begin(&mut self, deadline: Instant) {
        self.deadline = self.deadline.min(deadline);
        self.sink.shared().begin_drain(self.deadline);
    }

    /// Whether it is over with the sink.
    fn is_over(&mut self, now: Instant) -> bool {
        let ended = self.sink.finished.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected);
        match self.hurried_at {
            _ if ended => true,
            None if now >= self.deadline => {
                self.hurried_at = Some(now);
                self.sink.shared().hurry();
                false
            }
            None => false,
            Some(at) => now >= at + ABORT_GRACE,
        }
    }

    /// Counts and gives back what is left.
    fn finish(mut self) {
        let ended = self.sink.workers.iter().all(JoinHandle::is_finished);
        let shared = Arc::clone(self.sink.shared());
        let before = shared.meters.dropped_for(DropReason::Reload);
        shared.sweep();
        let dropped = shared.meters.dropped_for(DropReason::Reload) - before;
        if dropped > 0 {
            log::warn!(
                "{}: {dropped} tasks dropped: the sink was changed or removed, and its time to finish was up",
                shared.name
            );
        }
        self.sink.join(ended);
    }
}

/// Nothing is in the place of this sink: what is said of sinks that there are is said of it no longer.
fn removed(shared: &Shared, registry: &Registry) {
    registry.remove(&metrics::SINK_UP, &[&shared.name]);
    registry.remove(&metrics::QUEUE_CAPACITY, &[&shared.name]);
    let waiting = shared.ledger.as_ref().map_or(0, |ledger| ledger.pending(shared.number));
    if waiting > 0 {
        log::warn!(
            "{waiting} tasks are kept for the sink {}, which the configuration does not have any more; they go out when it is there again",
            shared.name
        );
    }
}

impl SideEffects {
    /// Starts what is new or changed in `specs`. Nothing of what runs is touched, but for what the new sinks of a ledger take from it.
    ///
    /// # Errors
    /// A thread could not be started, or a new sink has no number in the ledger. Everything is as it was.
    pub fn prepare(
        &mut self,
        settings: &config::SideEffects,
        specs: Vec<SinkSpec>,
        registry: &Registry,
    ) -> io::Result<Exchange> {
        self.prepare_with_policy(settings, Policy::from_config(settings), specs, registry)
    }

    pub(super) fn prepare_with_policy(
        &mut self,
        settings: &config::SideEffects,
        policy: Policy,
        specs: Vec<SinkSpec>,
        registry: &Registry,
    ) -> io::Result<Exchange> {
        let may_wait = settings.enqueue_mode == EnqueueMode::Wait && self.ledger.is_none();
        if may_wait && !specs.is_empty() && self.timer.is_none() {
            self.timer = Some(Timer::start()?);
        }
        let names: Vec<String> = specs.iter().map(SinkSpec::name).collect();
        let numbers = match &self.ledger {
            Some(ledger) => ledger.number(&names).map_err(io::Error::other)?,
            None => (0..names.len()).map(SinkNumber).collect(),
        };
        let mut exchange = Exchange { sinks: Vec::new(), destinations: HashMap::new(), queues: Vec::new() };
        for (spec, number) in specs.into_iter().zip(numbers) {
            let name = spec.name();
            let destination = self.destination(&spec, &mut exchange);
            let same = |running: &Running| {
                running.queue.name() == name
                    && running.made_from.0 == spec.settings
                    && running.made_from.1 == *settings
            };
            if let Some(at) = self.running.iter().position(same) {
                exchange.queues.push(Arc::clone(&self.running[at].queue));
                exchange.sinks.push(Next::Kept(at));
                continue;
            }
            let (sink, result) = self.start_sink(spec, number, destination, (settings, policy), registry);
            exchange.queues.push(Arc::clone(&sink.queue));
            exchange.sinks.push(Next::New(Box::new(sink)));
            if let Err(e) = result {
                self.abandon(exchange, registry);
                return Err(e);
            }
        }
        Ok(exchange)
    }

    /// The destination of a sink: the one that sends there already, if there is one.
    fn destination(&self, spec: &SinkSpec, exchange: &mut Exchange) -> Arc<Destination> {
        let known = self.destinations.get(&spec.destination).map(Arc::clone);
        let made = || known.unwrap_or_else(|| Arc::new(Destination::new(spec.rate_per_s)));
        Arc::clone(exchange.destinations.entry(spec.destination.clone()).or_insert_with(made))
    }

    /// Puts the prepared sinks in the place of those that run. Those that are not among them any more go on, without being woken by the ledger,
    /// until they are retired.
    #[must_use = "what is out of use has to be retired"]
    pub fn exchange(&mut self, next: Exchange) -> Retirement {
        let mut running: Vec<Option<Running>> = self.running.drain(..).map(Some).collect();
        for next in next.sinks {
            match next {
                Next::Kept(at) => self.running.extend(running.get_mut(at).and_then(Option::take)),
                Next::New(sink) => self.running.push(*sink),
            }
        }
        self.destinations = next.destinations;
        for (name, destination) in &self.destinations {
            let there = self.running.iter().filter(|sink| sink.destination == *name);
            destination.set_rates(there.map(|sink| sink.rate_per_s));
        }
        self.queues = self.running.iter().map(|sink| Arc::clone(&sink.queue)).collect();
        if let Some(ledger) = &self.ledger {
            let most = self.running.iter().map(|sink| sink.shared().number.0 + 1).max().unwrap_or(0);
            let mut woken = std::iter::repeat_with(Weak::new).take(most).collect::<Vec<_>>();
            for sink in &self.running {
                woken[sink.shared().number.0] = Arc::downgrade(sink.shared());
            }
            self.woken.store(Arc::new(woken));
            let names: Vec<String> = self.queues.iter().map(|queue| queue.name().to_owned()).collect();
            ledger.keep_only(&names);
            // What became ready meanwhile has woken nobody.
            self.running.iter().for_each(|sink| sink.shared().wake_all());
        }
        Retirement(running.into_iter().flatten().collect())
    }

    /// Stops what was prepared and is not to be used after all.
    pub fn abandon(&mut self, exchange: Exchange, registry: &Registry) {
        let new = exchange.sinks.into_iter().filter_map(|next| match next {
            Next::New(sink) => Some(*sink),
            Next::Kept(_) => None,
        });
        let new = Retirement(new.collect());
        if let Some(ledger) = &self.ledger {
            let names: Vec<String> = self.queues.iter().map(|queue| queue.name().to_owned()).collect();
            ledger.keep_only(&names);
        }
        self.retire(new, clock::now(), registry);
    }

    /// Has sinks finish what they have until `deadline`: without a ledger all of it, with their old settings; with one, what is under way, and the
    /// rest is given back. What is left then is counted as dropped with reason `reload`. Does not wait for it: see [`tend`](Self::tend).
    pub fn retire(&mut self, retirement: Retirement, deadline: Instant, registry: &Registry) {
        for sink in retirement.0 {
            sink.shared().retire(deadline);
            self.retired.push(Retired { sink, deadline, hurried_at: None });
        }
        self.running.iter().for_each(|sink| sink.shared().publish());
        let too_many = self.retired.len().saturating_sub(RETIRED_SINKS_MAX);
        self.retired.iter_mut().take(too_many).for_each(|retired| retired.deadline = clock::now());
        self.tend(clock::now(), registry);
    }

    /// Puts away the retired sinks that have finished, and cuts off those whose time is up. To be called now and then, as long as it returns
    /// true: there are some left. Does not block for them.
    pub fn tend(&mut self, now: Instant, registry: &Registry) -> bool {
        for mut retired in std::mem::take(&mut self.retired) {
            if retired.is_over(now) {
                let shared = Arc::clone(retired.sink.shared());
                retired.finish();
                if !self.running.iter().any(|sink| sink.shared().name == shared.name) {
                    removed(&shared, registry);
                }
            } else {
                self.retired.push(retired);
            }
        }
        !self.retired.is_empty()
    }
}
