//! The composition root: builds everything from a configuration, binds, starts the threads, waits for signals, drains
//! in order and joins. Reads top to bottom like the README.

mod durable;
mod logs;
mod operator;
mod watchdog;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use sd_notify::NotifyState;

use crate::clock;
use crate::config::{self, AuditProtocol, Config, Environment, Loaded, Problem, Problems};
use crate::control::{Control, Parts};
use crate::listener::{self, Endpoint, Listener, Pool, PoolOptions, Source, UdpListener, UdpOptions};
use crate::log_file::{LogFile, LogFiles, LogKeeper, Quarantine};
use crate::metrics::{self, Registry};
use crate::pipeline::Pipeline;
use crate::record::Decoder;
use crate::rule_group::{Checked, Compiled, GroupRule, RuleGroup};
use crate::rules::Rule;
use crate::service::Gateway;
use crate::side_effect::SideEffects;
use crate::signal::{Event, Signals};
use crate::sink::{self, HttpClient};
use crate::store::Store;
use crate::trust;
pub(crate) use durable::settings as store_settings;
use watchdog::Watchdog;

/// How long threads that are not to wait for anything have to end; those that hang in a log file are left behind.
const ENDING_MAX: Duration = Duration::from_millis(500);

/// Longest wait for a signal.
const TICK: Duration = Duration::from_secs(1);

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

/// Runs the server until SIGTERM or SIGINT. Blocks.
///
/// # Errors
/// See [`ServeError`]; after an error nothing of the server is left running.
pub fn run(checked: Checked) -> Result<(), ServeError> {
    let signals = Signals::install()
        .map_err(|e| ServeError::Runtime(format!("cannot install signal handlers: {e}")))?;
    let Checked { loaded, compiled } = checked;
    let server = Server::start(&loaded, compiled)?;
    server.announce(&loaded.config);
    server.supervise(&signals);
    server.stop(loaded.config.drain_timeout);
    Ok(())
}

/// Everything that runs.
struct Server {
    registry: Arc<Registry>,
    gateway: Arc<Gateway>,
    pipeline: Arc<Pipeline>,
    pool: Pool<Gateway>,
    udp: Option<UdpListener>,
    side_effects: SideEffects,
    /// With `async.durable.enabled`.
    store: Option<Arc<Store>>,
    /// With `control.socket`, or a store.
    control: Option<Control>,
    log_files: LogFiles,
    log_keeper: LogKeeper,
}

impl Server {
    fn start(loaded: &Loaded, compiled: Compiled) -> Result<Server, ServeError> {
        let config = &loaded.config;
        let sinks =
            sink::build(&config.rule_groups, &http_client()?).map_err(|e| sink_problems(loaded, e))?;
        let registry = Arc::new(Registry::new());
        describe_process(&registry);

        // Sockets first: a second server on the same addresses must not touch the log files of the first one.
        let bound = Bound::bind(config).map_err(ServeError::Runtime)?;
        let opened = durable::open(config, &sinks, &registry)?;
        let store = opened.as_ref().map(|opened| Arc::clone(&opened.store));
        let control = operator::bind(config)?;
        let ledger = store.as_ref().map(durable::ledger);
        let log_files = LogFiles::new();
        let quarantine = open_quarantine(&log_files, config, &registry)?;
        let side_effects = SideEffects::start(&config.side_effects, sinks, ledger.as_ref(), &registry)
            .map_err(runtime("cannot start the side-effect workers"))?;
        let groups = build_groups(config, compiled.rules, &log_files, &side_effects, &registry)?;
        let log_keeper = log_files.start_keeper().map_err(runtime("cannot start the log keeper"))?;
        let mut options = PoolOptions::new(config.limits.clone());
        let pipeline = build_pipeline(config, compiled.decoder, groups, quarantine, &registry)?;
        // All but one may be in the write to a log file while the others serve.
        let pipeline = pipeline.writing_with(options.threads);
        options.threads += 1;
        let pipeline = Arc::new(match &store {
            Some(store) => pipeline.storing(durable::ledger(store), store.record_bytes_max()),
            None => pipeline,
        });
        let checks = [logs::check(&pipeline)].into_iter().chain(durable::check(&pipeline)).collect();

        let tokens = config.listen.http_tokens.clone();
        let record_bytes_max = config.limits.record_bytes_max;
        let gateway =
            Gateway::new(Arc::clone(&pipeline), tokens, record_bytes_max, Arc::clone(&registry), checks);
        let gateway = Arc::new(gateway);
        // One may be in the store's sync while the others serve.
        options.threads += usize::from(store.is_some());
        let pool = Pool::start(Arc::clone(&gateway), bound.endpoints, options, &registry)
            .map_err(runtime("cannot start the listener threads"))?;
        let udp = bound.udp.map(|socket| {
            UdpListener::start(Arc::clone(&gateway), socket, UdpOptions::default(), &registry)
                .map_err(runtime("cannot start the UDP listener"))
        });
        let udp = udp.transpose()?;
        let parts = Parts {
            gateway: Arc::clone(&gateway),
            pipeline: Arc::clone(&pipeline),
            registry: Arc::clone(&registry),
            sinks: side_effects.queues().to_vec(),
            tasks: opened.map(|opened| operator::tasks(config, &opened, &registry)),
        };
        let control = control.map(|bound| operator::start(config, bound, parts)).transpose()?;
        Ok(Server {
            registry,
            gateway,
            pipeline,
            pool,
            udp,
            side_effects,
            store,
            control,
            log_files,
            log_keeper,
        })
    }

    /// Says what runs where, then tells systemd that it is ready.
    fn announce(&self, config: &Config) {
        for (what, address) in listening(config) {
            log::info!("listening: {what} on {address}");
        }
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
    fn supervise(&self, signals: &Signals) {
        let udp = self.udp.iter().flat_map(UdpListener::heartbeats);
        let threads = self.pool.heartbeats().into_iter().chain(udp);
        let mut watchdog = Watchdog::new(sd_notify::watchdog_enabled(), threads, clock::now());
        // The threads of the last complaint.
        let mut silent = String::new();
        let mut store =
            self.store.as_ref().map(|store| durable::Watch::new(durable::ledger(store), &self.registry));
        let mut logs = logs::Watch::new(&self.pipeline);
        loop {
            for (level, line) in logs.look() {
                log::log!(level, "{line}");
            }
            if let Some((level, line)) = store.as_mut().and_then(|store| store.look(clock::now())) {
                log::log!(level, "{line}");
            }
            match signals.wait(watchdog.nap()) {
                Some(Event::Stop) => return,
                Some(Event::Reopen) => self.reopen(),
                None => {}
            }
            // Whoever hangs in the write to a log file does not come back sooner when the program is killed.
            let excused = |thread| self.pipeline.logs().any(|log| log.flights().has_thread(thread));
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
    fn stop(mut self, drain_timeout: Duration) {
        let deadline = clock::now() + drain_timeout;
        log::info!("stopping: draining for at most {drain_timeout:?}");
        notify(&[NotifyState::Stopping]);
        self.gateway.set_draining();
        // Senders get half of the time, so that the sinks have the other half whatever the senders do.
        let half = clock::now() + drain_timeout / 2;
        let drained = self.pool.drain(drain_timeout / 2);
        let ending = clock::now() + ENDING_MAX;
        if let Some(udp) = &self.udp {
            udp.stop_by(half.max(ending));
        }
        self.pool.join_by(ending);
        let left_in_logs = self.pipeline.close(half);
        self.gateway.set_stopped();
        drop(self.control.take());
        let status = self.status();
        let sinks = self.side_effects.queues().len();
        let left = self.side_effects.drain(deadline);
        if let Some(store) = &self.store {
            durable::close(store, sinks, left.unfinished);
        }
        logs::say_left(&left_in_logs);
        self.log_keeper.stop_by(clock::now() + ENDING_MAX);
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
            "{} records matched, {} unmatched, {} quarantined, {} refused",
            count("matched"),
            count("unmatched"),
            count("quarantined"),
            count("refused")
        )
    }
}

fn build_groups(
    config: &Config,
    rules: Vec<Vec<Rule>>,
    log_files: &LogFiles,
    side_effects: &SideEffects,
    registry: &Registry,
) -> Result<Vec<RuleGroup>, ServeError> {
    let mut groups = Vec::with_capacity(config.rule_groups.len());
    for (group, rules) in config.rule_groups.iter().zip(rules) {
        let log_file =
            group.log_file.as_ref().map(|file| open_log_file(log_files, file, registry)).transpose()?;
        let counted = |(i, rule): (usize, Rule)| {
            let number = (i + 1).to_string();
            GroupRule::new(rule, registry.counter(&metrics::RULE_ERRORS, &[&group.name, &number]))
        };
        groups.push(RuleGroup {
            name: group.name.as_str().into(),
            rules: rules.into_iter().enumerate().map(counted).collect(),
            log_file,
            sinks: side_effects.queues_of(&group.name),
            matches: registry.counter(&metrics::GROUP_MATCHES, &[&group.name]),
        });
    }
    Ok(groups)
}

fn build_pipeline(
    config: &Config,
    decoder: Decoder,
    groups: Vec<RuleGroup>,
    quarantine: Quarantine,
    registry: &Registry,
) -> Result<Pipeline, ServeError> {
    let fallback = config.unmatched.as_ref().and_then(|name| groups.iter().position(|g| *g.name == **name));
    Pipeline::new(decoder, groups, fallback, quarantine, registry)
        .map_err(runtime("cannot write to standard output, where records go without rule groups"))
}

fn open_log_file(
    log_files: &LogFiles,
    file: &config::LogFile,
    registry: &Registry,
) -> Result<Arc<LogFile>, ServeError> {
    log_files.open(file, registry).map_err(|e| ServeError::Runtime(e.to_string()))
}

fn open_quarantine(
    log_files: &LogFiles,
    config: &Config,
    registry: &Registry,
) -> Result<Quarantine, ServeError> {
    let file = config::LogFile::at(config.quarantine_path());
    Ok(Quarantine::new(open_log_file(log_files, &file, registry)?))
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

/// The sockets of a configuration, bound and not yet served.
struct Bound {
    endpoints: Vec<Endpoint>,
    udp: Option<std::net::UdpSocket>,
}

impl Bound {
    /// Binds all; the error names every address that could not be had.
    fn bind(config: &Config) -> Result<Bound, String> {
        let mut bound = Bound { endpoints: Vec::new(), udp: None };
        let mut errors = Vec::new();
        let listen = &config.listen;
        for (source, address) in
            [(Source::Admin, &listen.admin_address), (Source::Http, &listen.http_address)]
        {
            if let Some(address) = address {
                bound.add(source, listener::bind_tcp(address).map(Listener::Tcp), &mut errors);
            }
        }
        match config.vault.audit_protocol {
            AuditProtocol::Tcp => {
                bound.add(
                    Source::Tcp,
                    listener::bind_tcp(&config.vault.audit_address).map(Listener::Tcp),
                    &mut errors,
                );
            }
            AuditProtocol::Udp => match listener::bind_udp(&config.vault.audit_address) {
                Ok(socket) => bound.udp = Some(socket),
                Err(e) => errors.push(e.to_string()),
            },
            AuditProtocol::None => {}
        }
        if let Some(path) = &listen.unix_path {
            bound.add(Source::Unix, listener::bind_unix(path), &mut errors);
        }
        if errors.is_empty() { Ok(bound) } else { Err(errors.join("\n")) }
    }

    fn add(&mut self, source: Source, listener: io::Result<Listener>, errors: &mut Vec<String>) {
        match listener {
            Ok(listener) => self.endpoints.push(Endpoint { source, listener }),
            Err(e) => errors.push(e.to_string()),
        }
    }
}

/// What listens where, for the diagnostics.
fn listening(config: &Config) -> Vec<(&'static str, String)> {
    let audit = match config.vault.audit_protocol {
        AuditProtocol::Udp => Some(("UDP", config.vault.audit_address.clone())),
        AuditProtocol::Tcp => Some(("TCP", config.vault.audit_address.clone())),
        AuditProtocol::None => None,
    };
    let http = config.listen.http_address.clone().map(|a| ("HTTP", a));
    let unix = config.listen.unix_path.as_ref().map(|p| ("Unix stream", p.display().to_string()));
    let admin = config.listen.admin_address.clone().map(|a| ("admin", a));
    [http, audit, unix, admin].into_iter().flatten().collect()
}
