//! Another configuration while records come in: all of it is read, checked and built beside the one in use, then exchanged for it at once.
//!
//! What is wrong leaves the old one in use, whole. A batch is handled by one of them; what only the old one had goes when nothing uses it any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::build::Around;
use super::difference::{self, Difference};
use super::{ServeError, Server, build, certificate_expiry, notify, sink_problems};
use crate::clock;
use crate::config::{Config, Problems};
use crate::control::reload::{Applied, ReloadError};
use crate::identity::shown;
use crate::metrics;
use crate::pipeline::Pipeline;
use crate::rule_group::Checked;
use crate::service::Live;
use crate::side_effect::Retirement;
use crate::side_effect::retry::Policy;
use crate::sink;

/// How long a reload waits for the last batches of the old configuration. What takes longer is looked at again by the supervisor.
const LAST_BATCHES: Duration = Duration::from_millis(20);
/// Old configurations that may be in use: by threads that a disk holds up.
const OUTGOING_MAX: usize = 8;

/// A configuration that is not handed out any more.
pub(super) struct Outgoing {
    live: Arc<Live>,
    /// Sinks that only it has.
    pub(super) sinks: Retirement,
}

impl Outgoing {
    /// No thread handles anything with it, and nothing of it waits for a log file.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.live) == 1 && self.live.pipeline.is_idle()
    }

    pub(super) fn pipeline(&self) -> &Pipeline {
        &self.live.pipeline
    }
}

impl Server {
    /// Reads the configuration and puts it to use; says and counts what became of it.
    pub(super) fn reload(
        &mut self,
        read: &dyn Fn() -> Result<Checked, Problems>,
    ) -> Result<Applied, ReloadError> {
        let now = NotifyState::monotonic_usec_now();
        notify(&[Some(NotifyState::Reloading), now.ok()].into_iter().flatten().collect::<Vec<_>>());
        let outcome = self.try_reload(read);
        let result = match &outcome {
            Ok(_) => "applied",
            Err(ReloadError::Refused(_)) => "refused",
            Err(ReloadError::Failed(_) | ReloadError::Busy) => "failed",
        };
        self.registry.counter(&metrics::CONFIG_RELOADS, &[result]).inc();
        self.registry.gauge(&metrics::CONFIG_LAST_RELOAD_SUCCESS, &[]).set(i64::from(outcome.is_ok()));
        say(&outcome);
        notify(&[NotifyState::Ready, NotifyState::Status(&self.status())]);
        outcome
    }

    fn try_reload(&mut self, read: &dyn Fn() -> Result<Checked, Problems>) -> Result<Applied, ReloadError> {
        if self.outgoing.len() >= OUTGOING_MAX {
            let what = format!(
                "{OUTGOING_MAX} earlier configurations are still in use by records that a disk holds up"
            );
            return Err(ReloadError::Failed(what));
        }
        let Checked { mut loaded, compiled } = read().map_err(|problems| refused(&problems))?;
        super::needs_tokens(self.sockets.exposed, &loaded.config)
            .map_err(|problem| ReloadError::Refused(vec![problem]))?;
        let Difference { config, changed, restart } = difference::between(&self.config, &loaded.config);
        loaded.config = config;
        let config = &loaded.config;
        let specs = sink::build(&config.rule_groups, &self.client)
            .map_err(|errors| failed(sink_problems(&loaded, errors)))?;
        let files = build::OpenFiles::open(config, &self.log_files, &self.registry).map_err(failed)?;
        let exchange = self
            .side_effects
            .prepare(&config.side_effects, specs, &self.registry)
            .map_err(|e| ReloadError::Failed(format!("cannot start the side-effect workers: {e}")))?;
        let queues_of = |group: &str| exchange.queues_of(group);
        let before = self.gateway.live();
        let place = |new: Pipeline| new.succeeding(&before.pipeline);
        let evidence = before.pipeline.evidence();
        let around = Around { store: self.store.as_ref(), taps: &self.taps, evidence, place: &place };
        let live = match build::live(config, compiled, &files, &queues_of, around, &self.registry) {
            Ok(live) => live,
            Err(error) => {
                self.side_effects.abandon(exchange, &self.registry);
                return Err(failed(error));
            }
        };
        drop(before);
        // Nothing fails from here on.
        files.reconfigure(config);
        self.pool.set_limits(&config.limits);
        self.exchange_certificate(config);
        if let Some(store) = &self.store {
            store.set_limits(Policy::from_config(&config.side_effects).limits());
        }
        let live = self.gateway.exchange(live);
        let sinks = self.side_effects.exchange(exchange);
        self.outgoing.push(Outgoing { live, sinks });
        let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
        let source = loaded.source();
        self.config = loaded.config;
        self.wait_for_last_batches();
        Ok(Applied { source, changed, restart, warnings })
    }

    /// Connections that are open, and handshakes that have begun, go on with the earlier one. The same one again changes nothing: the
    /// tickets that it has sealed stay good.
    fn exchange_certificate(&self, config: &Config) {
        let running = self.config.listen.http_tls.as_ref().map(|tls| &tls.identity);
        if let (Some(settings), Some(tls)) = (&self.sockets.tls, &config.listen.http_tls)
            && running != Some(&tls.identity)
        {
            settings.exchange(tls.identity.settings());
            certificate_expiry(config, &self.registry);
            log::info!(
                "listen.http.tls: another certificate is in use, until {}",
                shown(tls.identity.ends())
            );
        }
    }

    fn wait_for_last_batches(&mut self) {
        let until = clock::now() + LAST_BATCHES;
        while clock::now() < until && !self.outgoing.iter().all(Outgoing::is_unused) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.tend_outgoing(clock::now());
    }

    /// Lets go of what earlier configurations leave behind, as far as that is possible now. Whether something is left.
    pub(super) fn tend_outgoing(&mut self, now: Instant) -> bool {
        for outgoing in std::mem::take(&mut self.outgoing) {
            if outgoing.is_unused() {
                let deadline = now + self.config.drain_timeout;
                self.side_effects.retire(outgoing.sinks, deadline, &self.registry);
            } else {
                self.outgoing.push(outgoing);
            }
        }
        self.side_effects.tend(now, &self.registry) || !self.outgoing.is_empty()
    }
}

fn refused(problems: &Problems) -> ReloadError {
    ReloadError::Refused(problems.0.iter().map(ToString::to_string).collect())
}

fn failed(error: ServeError) -> ReloadError {
    match error {
        ServeError::Config(problems) => refused(&problems),
        ServeError::Runtime(what) => ReloadError::Failed(what),
    }
}

fn say(outcome: &Result<Applied, ReloadError>) {
    match outcome {
        Ok(applied) => {
            applied.warnings.iter().for_each(|warning| log::warn!("{warning}"));
            applied.changed.iter().for_each(|line| log::info!("reload: {line}"));
            let same = if applied.changed.is_empty() { ", as before" } else { "" };
            log::info!("reloaded: {} is in use{same}", applied.source);
            for key in &applied.restart {
                log::warn!("reload: {key}: the running value stays until a restart");
            }
        }
        Err(error) => {
            if let ReloadError::Refused(problems) = error {
                problems.iter().for_each(|problem| log::error!("{problem}"));
            }
            log::error!("not reloaded: {}", error.what());
        }
    }
}
