//! `GET /v1/status`: what runs, in numbers.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::api::Parts;
use super::tasks::Condition;
use crate::clock;
use crate::evidence::Silence;
use crate::listener::{Listening, Source};
use crate::metrics::{self, Family, Registry};
use crate::rule_group::RuleGroup;
use crate::side_effect::SinkQueue;

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it; README explains them")]
pub struct Status {
    pub version: String,
    pub uptime_s: u64,
    pub records: Records,
    pub listeners: Vec<ListenerStatus>,
    /// Named sources that have sent something; only with listen.silence_alarm.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
    pub groups: Vec<GroupStatus>,
    pub sinks: Vec<SinkStatus>,
    /// `None`: the durable store is not enabled.
    pub store: Option<Condition>,
}

/// Frames by outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Records {
    pub matched: u64,
    pub unmatched: u64,
    pub quarantined: u64,
    /// Of an older server: 0.
    #[serde(default)]
    pub duplicate: u64,
    pub refused: u64,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ListenerStatus {
    pub listener: String,
    pub address: String,
    /// `None`: it has none (datagrams).
    pub connections: Option<i64>,
    pub received: u64,
    pub received_bytes: u64,
    /// For how long nothing has come, if that is longer than listen.silence_alarm.
    #[serde(default)]
    pub silent_s: Option<u64>,
}

/// One source of `/v1/audit/<source>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SourceStatus {
    pub source: String,
    pub requests: u64,
    /// As of a listener.
    pub silent_s: Option<u64>,
}

/// One rule group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct GroupStatus {
    pub group: String,
    pub matches: u64,
    pub rules: Vec<RuleStatus>,
    pub sinks: Vec<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Number in the group, from 1.
    pub rule: usize,
    /// Its text.
    pub expression: String,
    /// It has made its group match since this configuration came into use. A group goes no further than its first rule that matches.
    #[serde(default)]
    pub matched: bool,
    /// Run-time errors.
    pub errors: u64,
}

/// One sink. `accepted` is the sum of what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SinkStatus {
    pub sink: String,
    /// It takes deliveries.
    pub up: bool,
    pub accepted: u64,
    pub delivered: u64,
    pub dropped: u64,
    pub failed: u64,
    pub waiting: u64,
    pub in_flight: u64,
}

/// The numbers now. Takes the registry's lock for each listener.
pub(super) fn status(parts: &Parts, listeners: &[Listening], started: Instant) -> Status {
    let registry = &*parts.registry;
    let live = parts.gateway.live();
    let sinks = live.pipeline.groups().iter().flat_map(|group| &group.sinks);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: clock::now().saturating_duration_since(started).as_secs(),
        records: records(registry),
        listeners: listeners
            .iter()
            .map(|listening| listener_status(listening, registry, parts.gateway.silence()))
            .collect(),
        sources: parts.gateway.silence().sources().into_iter().map(source_status).collect(),
        groups: live.pipeline.groups().iter().map(group_status).collect(),
        sinks: sinks.map(|sink| sink_status(sink)).collect(),
        store: parts.tasks.as_ref().map(|book| book.condition()),
    }
}

/// Frames by outcome.
pub(crate) fn records(registry: &Registry) -> Records {
    let outcome = |label| count(registry, &metrics::RECORDS, label);
    Records {
        matched: outcome("matched"),
        unmatched: outcome("unmatched"),
        quarantined: outcome("quarantined"),
        duplicate: outcome("duplicate"),
        refused: outcome("refused"),
    }
}

fn count(registry: &Registry, family: &'static Family, label: &str) -> u64 {
    registry.counter(family, &[label]).get()
}

fn source_status((source, requests, silent): (String, u64, Option<Duration>)) -> SourceStatus {
    SourceStatus { source, requests, silent_s: silent.map(|silence| silence.as_secs()) }
}

/// The numbers of one listener.
pub(crate) fn listener_status(
    listening: &Listening,
    registry: &Registry,
    silence: &Silence,
) -> ListenerStatus {
    let label = listening.source.label();
    let is_ingest = listening.source != Source::Admin;
    let received = |family| if is_ingest { count(registry, family, label) } else { 0 };
    let has_connections = listening.source != Source::Udp;
    ListenerStatus {
        listener: label.to_owned(),
        address: listening.address.clone(),
        connections: has_connections.then(|| registry.gauge(&metrics::CONNECTIONS, &[label]).get()),
        received: received(&metrics::RECORDS_RECEIVED),
        received_bytes: received(&metrics::RECEIVED_BYTES),
        silent_s: silence.silence_of(listening.source).map(|silence| silence.as_secs()),
    }
}

fn group_status(group: &RuleGroup) -> GroupStatus {
    let rule = |(i, rule): (usize, &crate::rule_group::GroupRule)| RuleStatus {
        rule: i + 1,
        expression: rule.rule().source().to_owned(),
        matched: rule.has_matched(),
        errors: rule.errors(),
    };
    GroupStatus {
        group: group.name.to_string(),
        matches: group.matches.get(),
        rules: group.rules.iter().enumerate().map(rule).collect(),
        sinks: group.sinks.iter().map(|sink| sink.name().to_owned()).collect(),
    }
}

/// The numbers of one sink.
pub(crate) fn sink_status(sink: &SinkQueue) -> SinkStatus {
    let counts = sink.counts();
    SinkStatus {
        sink: sink.name().to_owned(),
        up: sink.is_up(),
        accepted: counts.accepted,
        delivered: counts.delivered,
        dropped: counts.dropped,
        failed: counts.failed,
        waiting: counts.queued + counts.waiting_for_room + counts.waiting_for_attempt,
        in_flight: counts.in_flight,
    }
}
