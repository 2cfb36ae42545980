//! From a checked configuration to what records are handled with.

use std::sync::Arc;

use super::{ServeError, durable, logs, runtime};
use crate::clock;
use crate::config::{self, Config};
use crate::evidence::Evidence;
use crate::log_file::{self, LogFile, LogFiles, OpenError, Quarantine};
use crate::metrics::{self, Registry};
use crate::pipeline::Pipeline;
use crate::record::Decoder;
use crate::rule_group::{Compiled, GroupRule, RuleGroup};
use crate::rules::Rule;
use crate::service::Live;
use crate::side_effect::SinkQueue;
use crate::store::Store;
use crate::tail::Taps;

/// The log files of a configuration, open.
pub(super) struct OpenFiles {
    /// By group.
    groups: Vec<Option<Arc<LogFile>>>,
    quarantine: Arc<LogFile>,
}

impl OpenFiles {
    /// Opens all of them; those that are open already go on. The quarantine log comes first: it has the least to say about its options.
    pub(super) fn open(
        config: &Config,
        log_files: &LogFiles,
        registry: &Registry,
    ) -> Result<OpenFiles, ServeError> {
        let mut known: Vec<(Arc<LogFile>, config::LogFile)> = Vec::new();
        let mut open = |settings: &config::LogFile| {
            let failed = |e: OpenError| ServeError::Runtime(e.to_string());
            let file = log_files.open_or_share(settings, registry).map_err(failed)?;
            let other = known.iter().find(|(open, _)| Arc::ptr_eq(open, &file));
            if let Some(error) = other.and_then(|(_, other)| log_file::conflict(settings, other)) {
                return Err(failed(error));
            }
            known.push((Arc::clone(&file), settings.clone()));
            Ok(file)
        };
        let quarantine = open(&config::LogFile::at(config.quarantine_path()))?;
        let mut of_group = |group: &config::RuleGroup| group.log_file.as_ref().map(&mut open).transpose();
        let groups = config.rule_groups.iter().map(&mut of_group).collect::<Result<_, _>>()?;
        Ok(OpenFiles { groups, quarantine })
    }

    /// From now on they are governed by this configuration, which is the one that they were opened for.
    pub(super) fn reconfigure(&self, config: &Config) {
        self.quarantine.reconfigure(&config::LogFile::at(config.quarantine_path()));
        for (file, group) in self.groups.iter().zip(&config.rule_groups) {
            if let (Some(file), Some(settings)) = (file, &group.log_file) {
                file.reconfigure(settings);
            }
        }
    }
}

/// What every configuration of a process is used with.
pub(super) struct Around<'a> {
    pub(super) store: Option<&'a Arc<Store>>,
    pub(super) taps: &'a Arc<Taps>,
    /// What is looked for so far.
    pub(super) evidence: Option<&'a Evidence>,
    /// Fits it among the threads that run, and in the place of the one before.
    pub(super) place: &'a dyn Fn(Pipeline) -> Pipeline,
}

/// Puts together what records are handled with. `queues_of` gives a group's sinks.
pub(super) fn live(
    config: &Config,
    compiled: Compiled,
    files: &OpenFiles,
    queues_of: &dyn Fn(&str) -> Vec<Arc<SinkQueue>>,
    around: Around<'_>,
    registry: &Registry,
) -> Result<Live, ServeError> {
    let groups = build_groups(config, compiled.rules, files, queues_of, registry);
    let quarantine = Quarantine::new(Arc::clone(&files.quarantine));
    let pipeline = build_pipeline(config, compiled.decoder, groups, quarantine, registry)?;
    let evidence = Evidence::new(compiled.identity, config, around.evidence, registry, clock::now());
    let pipeline = pipeline.tapped(Arc::clone(around.taps)).looking_for(evidence);
    let pipeline = (around.place)(pipeline);
    let pipeline = Arc::new(match around.store {
        Some(store) => pipeline.storing(durable::ledger(store), store.record_bytes_max()),
        None => pipeline,
    });
    let checks = [logs::check(&pipeline)].into_iter().chain(durable::check(&pipeline)).collect();
    let tokens = config.listen.http_tokens.clone();
    Ok(Live::new(pipeline, tokens, config.limits.record_bytes_max, checks))
}

fn build_groups(
    config: &Config,
    rules: Vec<Vec<Rule>>,
    files: &OpenFiles,
    queues_of: &dyn Fn(&str) -> Vec<Arc<SinkQueue>>,
    registry: &Registry,
) -> Vec<RuleGroup> {
    let mut groups = Vec::with_capacity(config.rule_groups.len());
    for ((group, rules), log_file) in config.rule_groups.iter().zip(rules).zip(&files.groups) {
        let counted = |(i, rule): (usize, Rule)| {
            let number = (i + 1).to_string();
            GroupRule::new(rule, registry.counter(&metrics::RULE_ERRORS, &[&group.name, &number]))
        };
        groups.push(RuleGroup {
            name: group.name.as_str().into(),
            rules: rules.into_iter().enumerate().map(counted).collect(),
            log_file: log_file.clone(),
            sinks: queues_of(&group.name),
            matches: registry.counter(&metrics::GROUP_MATCHES, &[&group.name]),
        });
    }
    groups
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
