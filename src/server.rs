//! The composition root: builds everything from a configuration, binds, starts the threads, waits for signals, drains
//! in order and joins. Reads top to bottom like the README.

mod build;
mod difference;
mod durable;
mod logs;
mod operator;
mod passed;
mod reload;
mod sockets;
mod watchdog;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use sd_notify::NotifyState;

use crate::clock;
use crate::config::{Config, Environment, Loaded, Problem, Problems};
use crate::control::{Control, Parts};
use crate::listener::{Pool, PoolOptions, Source, UdpListener, UdpOptions};
use crate::log_file::{LogFiles, LogKeeper};
use crate::metrics::{self, Registry};
use crate::pipeline::Pipeline;
use crate::rule_group::{Checked, Compiled};
use crate::service::Gateway;
use crate::side_effect::SideEffects;
use crate::signal::{Event, Signals};
use crate::sink::{self, HttpClient};
use crate::status_page::StatusPage;
use crate::store::Store;
use crate::tail::Taps;
use crate::trust;
use build::Around;
pub(crate) use durable::settings as store_settings;
use passed::Passed;
use reload::Outgoing;
use sockets::{Bound, HAND_OVER_MAX, Sockets, needs_tokens};
use watchdog::Watchdog;

/// How long threads that are not to wait for anything have to end; those that hang in a log file are left behind.
const ENDING_MAX: Duration = Duration::from_millis(500);

/// Longest wait for a signal.
const TICK: Duration = Duration::from_secs(1);
/// The same while something of an earlier configuration is still in use.
const OUTGOING_TICK: Duration = Duration::from_millis(50);

/// Why the server did not start, or did not end as it should.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration is wrong; nothing was bound.
    Config(Problems),
    /// Something outside failed: an address in use, a directory that cannot be written.
    Runtime(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Config(problems) => problems.fmt(f),
            ServeError::Runtime(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ServeError {}

/// Runs the server until SIGTERM or SIGINT. Blocks. `read` reads and checks the configuration anew, for reloads.
///
/// # Errors
/// See [`ServeError`]; after an error nothing of the server is left running.
pub fn run(checked: Checked, read: &dyn Fn() -> Result<Checked, Problems>) -> Result<(), ServeError> {
    // First of all: descriptors and environment are as systemd has left them.
    let passed = Passed::take(&Environment::of_process()).map_err(ServeError::Runtime)?;
    let signals = Signals::install()
        .map_err(|e| ServeError::Runtime(format!("cannot install signal handlers: {e}")))?;
    let Checked { loaded, compiled } = checked;
    let mut server = Server::start(&loaded, compiled, passed, &signals)?;
    server.announce();
    server.supervise(&signals, read);
    server.stop();
    Ok(())
}

/// Everything that runs.
struct Server {
    /// What is in use, whatever the file says by now.
    config: Config,
    /// Of the sinks.
    client: HttpClient,
    registry: Arc<Registry>,
    gateway: Arc<Gateway>,
    pool: Pool<Gateway>,
    udp: Option<UdpListener>,
    side_effects: SideEffects,
    /// With `async.durable.enabled`.
    store: Option<Arc<Store>>,
    /// With `control.socket`, or a store.
    control: Option<Control>,
    log_files: LogFiles,
    log_keeper: LogKeeper,
    /// Who follows what is matched.
    taps: Arc<Taps>,
    /// Configurations that were exchanged and may still be in use.
    outgoing: Vec<Outgoing>,
    /// What listens where.
    sockets: Sockets,
}

impl Server {
    fn start(
        loaded: &Loaded,
        compiled: Compiled,
        passed: Passed,
        signals: &Signals,
    ) -> Result<Server, ServeError> {
        let config = &loaded.config;
        let client = http_client()?;
        let sinks = sink::build(&config.rule_groups, &client).map_err(|e| sink_problems(loaded, e))?;
        let registry = Arc::new(Registry::new());
        describe_process(&registry);
        // Nobody can ask before it is so.
        registry.gauge(&metrics::CONFIG_LAST_RELOAD_SUCCESS, &[]).set(1);

        // Sockets first: a second server on the same addresses must not touch the log files of the first one.
        let assigned = passed.assign(config).map_err(ServeError::Runtime)?;
        needs_tokens(assigned.exposed, config).map_err(ServeError::Runtime)?;
        let bound = Bound::bind(config, assigned).map_err(ServeError::Runtime)?;
        let opened = durable::open(config, &sinks, &registry)?;
        let store = opened.as_ref().map(|opened| Arc::clone(&opened.store));
        let control = operator::bind(config, bound.control)?;
        let ledger = store.as_ref().map(durable::ledger);
        let log_files = LogFiles::new();
        let files = build::OpenFiles::open(config, &log_files, &registry)?;
        files.reconfigure(config);
        let side_effects = SideEffects::start(&config.side_effects, sinks, ledger.as_ref(), &registry)
            .map_err(runtime("cannot start the side-effect workers"))?;
        let log_keeper = log_files.start_keeper().map_err(runtime("cannot start the log keeper"))?;
        let taps = Arc::new(Taps::default());
        let queues_of = |group: &str| side_effects.queues_of(group);
        let mut options = PoolOptions::new(config.limits.clone());
        // All but one may be in the write to a log file while the others serve.
        let writers = options.threads;
        options.threads += 1;
        let place = |new: Pipeline| new.writing_with(writers);
        let around = Around { store: store.as_ref(), taps: &taps, evidence: None, place: &place };
        let live = build::live(config, compiled, &files, &queues_of, around, &registry)?;
        let gateway = Gateway::new(live, Arc::clone(&registry))
            .showing(StatusPage::new(config, bound.sockets.listening.clone()));
        let gateway = Arc::new(gateway);
        // One may be in the store's sync while the others serve.
        options.threads += usize::from(store.is_some());
        let pool = Pool::start(Arc::clone(&gateway), bound.endpoints, options, &registry)
            .map_err(runtime("cannot start the listener threads"))?;
        let udp = bound.udp.map(|socket| {
            UdpOptions::for_socket(&socket)
                .and_then(|options| UdpListener::start(Arc::clone(&gateway), socket, options, &registry))
                .map_err(runtime("cannot start the UDP listener"))
        });
        let udp = udp.transpose()?;
        let parts = Parts {
            reload: operator::reload(&gateway, signals),
            taps: Arc::clone(&taps),
            gateway: Arc::clone(&gateway),
            registry: Arc::clone(&registry),
            tasks: opened.map(|opened| operator::tasks(config, &opened, &registry)),
        };
        let control = control
            .map(|control| operator::start(config, control, bound.sockets.listening.clone(), parts))
            .transpose()?;
        // Last: where the start fails, systemd still has them for the next one.
        sockets::adopt(&pool, bound.connections);
        certificate_expiry(config, &registry);
        Ok(Server {
            config: config.clone(),
            client,
            registry,
            gateway,
            pool,
            udp,
            side_effects,
            store,
            control,
            log_files,
            log_keeper,
            taps,
            outgoing: Vec::new(),
            sockets: bound.sockets,
        })
    }

    /// Says what runs where, then tells systemd that it is ready.
    fn announce(&self) {
        let config = &self.config;
        self.sockets.announce(config);
        if config.rule_groups.is_empty() {
            log::warn!("no rule groups: every record goes to standard output");
        }
        let (groups, sinks) = (config.rule_groups.len(), self.side_effects.queues().len());
        log::info!(
            "vault-audit-filter {} is ready: {groups} rule groups, {sinks} sinks",
            env!("CARGO_PKG_VERSION")
        );
        notify(&[NotifyState::Ready, NotifyState::Status(&self.status())]);
    }

    /// Handles signals and feeds systemd's watchdog, as long as every listener thread shows signs of life, until it is
    /// time to stop.
    fn supervise(&mut self, signals: &Signals, read: &dyn Fn() -> Result<Checked, Problems>) {
        let udp = self.udp.iter().flat_map(UdpListener::heartbeats);
        let threads = self.pool.heartbeats().into_iter().chain(udp);
        let mut watchdog = Watchdog::new(sd_notify::watchdog_enabled(), threads, clock::now());
        // The threads of the last complaint.
        let mut silent = String::new();
        let mut complained = false;
        let mut store =
            self.store.as_ref().map(|store| durable::Watch::new(durable::ledger(store), &self.registry));
        let mut logs = logs::Watch::new(&self.gateway.live().pipeline);
        loop {
            for (level, line) in logs.look() {
                log::log!(level, "{line}");
            }
            if logs.any_hangs()
                && let Err(e) = self.replace_held(&logs, &mut watchdog)
                && !std::mem::replace(&mut complained, true)
            {
                log::error!(
                    "no thread can be started in the place of those that hang in writes to log files: {e}"
                );
            }
            if let Some((level, line)) = store.as_mut().and_then(|store| store.look(clock::now())) {
                log::log!(level, "{line}");
            }
            for (level, line) in self.look_for_evidence(clock::now()) {
                log::log!(level, "{line}");
            }
            let nap = if self.tend_outgoing(clock::now()) { OUTGOING_TICK } else { TICK };
            match signals.wait(watchdog.nap().min(nap)) {
                Some(Event::Stop) => return,
                Some(Event::HangUp) => {
                    self.reopen();
                    drop(self.reload(read));
                    logs.follow(&self.gateway.live().pipeline);
                }
                Some(Event::Reload(answer)) => {
                    // Who has asked may have gone.
                    let _ = answer.try_send(self.reload(read));
                    logs.follow(&self.gateway.live().pipeline);
                }
                None => {}
            }
            // Whoever hangs in the write to a log file does not come back sooner when the program is killed.
            let live = self.gateway.live();
            let logs_in_use = || self.outgoing.iter().map(Outgoing::pipeline).chain([&*live.pipeline]);
            let excused =
                |thread| logs_in_use().flat_map(Pipeline::logs).any(|log| log.flights().has_thread(thread));
            match watchdog.due(clock::now(), excused) {
                Ok(false) => {}
                Ok(true) => {
                    silent.clear();
                    notify(&[NotifyState::Watchdog, NotifyState::Status(&self.status())]);
                }
                Err(threads) if threads == silent => {}
                Err(threads) => {
                    log::error!("no sign of life from {threads}: the watchdog is not fed");
                    silent = threads;
                }
            }
        }
    }

    /// Has other threads take the places of those of the pool that hang in the write to a log file.
    fn replace_held(&self, logs: &logs::Watch, watchdog: &mut Watchdog) -> io::Result<()> {
        let held = self.pool.heartbeats().iter().filter(|thread| logs.holds(thread.number())).count();
        while let Some(thread) = self.pool.make_up_for(held)? {
            self.gateway.live().pipeline.more_writers(1);
            log::warn!("{held} threads hang in writes to log files; {} is started", thread.thread);
            watchdog.add(thread, clock::now());
        }
        Ok(())
    }

    /// Counts halves that have been waited for long enough, and looks who is silent; gives the lines that are due.
    fn look_for_evidence(&self, now: Instant) -> Vec<(log::Level, String)> {
        if let Some(evidence) = self.gateway.live().pipeline.evidence() {
            evidence.sweep(now);
        }
        let senders = self.sockets.listening.iter().map(|listening| listening.source);
        let senders: Vec<Source> = senders.filter(|source| *source != Source::Admin).collect();
        self.gateway.silence().look(&senders, self.config.listen.silence_alarm, now)
    }

    fn reopen(&self) {
        log::info!("SIGHUP: reopening log files");
        match self.log_files.reopen() {
            Ok(()) => log::info!("log files are reopened"),
            Err(errors) => {
                errors.iter().for_each(|e| log::error!("{e}; the file that was open stays in use"))
            }
        }
    }

    /// Stops accepting, drains the listeners, then the sinks, within `drain_timeout` in all; then closes the log files.
    fn stop(mut self) {
        let drain_timeout = self.config.drain_timeout;
        let deadline = clock::now() + drain_timeout;
        log::info!("stopping: draining for at most {drain_timeout:?}");
        notify(&[NotifyState::Stopping]);
        self.gateway.set_draining();
        // Senders get half of the time, so that the sinks have the other half whatever the senders do.
        let half = clock::now() + drain_timeout / 2;
        let left_with_systemd = self.sockets.hand_over(&self.pool, drain_timeout / 2);
        let draining = if self.sockets.all_passed { HAND_OVER_MAX } else { drain_timeout };
        let drained = self.pool.drain(draining.min(half.saturating_duration_since(clock::now())));
        let ending = clock::now() + ENDING_MAX;
        if let Some(udp) = &self.udp {
            udp.stop_by(half.max(ending));
        }
        self.pool.join_by(ending);
        let live = self.gateway.live();
        let earlier = self.outgoing.iter().map(Outgoing::pipeline);
        let left_in_logs = live.pipeline.close(earlier, half);
        self.gateway.set_stopped();
        drop(self.control.take());
        let status = self.status();
        for outgoing in self.outgoing.drain(..) {
            self.side_effects.retire(outgoing.sinks, deadline, &self.registry);
        }
        let left = self.side_effects.drain(deadline);
        if let Some(store) = &self.store {
            durable::close(store, left.unfinished);
        }
        logs::say_left(&left_in_logs);
        self.log_keeper.stop_by(clock::now() + ENDING_MAX);
        if left_with_systemd > 0 {
            log::info!("{left_with_systemd} connections are left with systemd for the next server");
        }
        if drained.in_flight > 0 {
            log::warn!(
                "{} connections were still within a request or line and were closed",
                drained.in_flight
            );
        }
        if left.dropped > 0 || left.unfinished > 0 {
            log::warn!(
                "left behind after shutdown.drain_timeout: {} side-effect tasks not delivered and {}, {} of them with \
                 an attempt under way whose outcome is unknown",
                left.dropped + left.unfinished,
                if self.store.is_some() { "kept" } else { "dropped" },
                left.unfinished
            );
        }
        log::info!("stopped: {status}");
    }

    fn status(&self) -> String {
        let count = |outcome| self.registry.counter(&metrics::RECORDS, &[outcome]).get();
        format!(
            "{} records matched, {} unmatched, {} quarantined, {} duplicate, {} refused",
            count("matched"),
            count("unmatched"),
            count("quarantined"),
            count("duplicate"),
            count("refused")
        )
    }
}

fn sink_problems(loaded: &Loaded, errors: Vec<sink::BuildError>) -> ServeError {
    let place = loaded.path.as_ref().map_or_else(|| "defaults".to_owned(), |path| path.display().to_string());
    let problem = |error: sink::BuildError| Problem {
        place: place.clone(),
        line: error.line,
        key: error.key,
        what: format!("group {:?}: {}", error.group, error.message),
        cure: String::new(),
    };
    ServeError::Config(Problems(errors.into_iter().map(problem).collect()))
}

/// The client of the sinks; it trusts whom the system trusts.
fn http_client() -> Result<HttpClient, ServeError> {
    let authorities = trust::system(&Environment::of_process()).map_err(ServeError::Runtime)?;
    Ok(HttpClient::trusting(authorities.as_deref()))
}

fn runtime(what: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |e| ServeError::Runtime(format!("{what}: {e}"))
}

/// Tells when the certificate of the HTTP listener ends, where it has one.
fn certificate_expiry(config: &Config, registry: &Registry) {
    if let Some(tls) = &config.listen.http_tls {
        let ends = tls.identity.ends().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(ends.as_secs()).unwrap_or(i64::MAX);
        registry.gauge(&metrics::TLS_CERTIFICATE_EXPIRY, &[]).set(seconds);
    }
}

fn describe_process(registry: &Registry) {
    registry.gauge(&metrics::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1);
    let since_epoch = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    registry.gauge_fn(&metrics::START_TIME, &[], move || since_epoch.as_secs_f64());
}

/// Sends to systemd when it asked to be told; says nothing when it did not.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!("cannot notify systemd: {e}");
    }
}
