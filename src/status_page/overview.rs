//! The numbers of the page, collected.

use std::collections::BTreeMap;

use serde::Serialize;

use super::health::{self, Health, Tone};
use super::{Look, StatusPage};
use crate::clock;
use crate::control::status::{self, ListenerStatus, Records, SinkStatus};
use crate::metrics::{self, Family, Registry};
use crate::rule_group::{GroupRule, RuleGroup};
use crate::side_effect::SinkQueue;

/// Most rows of one table.
pub(super) const ROWS_MAX: usize = 50;
/// Most rules that a group's row names.
const RULES_NAMED_MAX: usize = 8;
/// Longest text about a condition, in characters.
const CONDITION_CHARS_MAX: usize = 400;

/// The whole page, and `/status.json`.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    pub(super) version: &'static str,
    pub(super) uptime_ms: u64,
    pub(super) health: Health,
    pub(super) records: Totals,
    pub(super) listeners: Rows<ListenerStatus>,
    pub(super) reasons: Rows<Reason>,
    pub(super) groups: Rows<Group>,
    pub(super) sinks: Rows<Sink>,
    /// No rows: the durable store is not enabled.
    pub(super) store: Rows<StoreLog>,
    pub(super) logs: Rows<Log>,
    pub(super) conditions: Rows<ConditionRow>,
    pub(super) reloads: Rows<Reloads>,
}

/// Some rows, and how many there are besides.
#[derive(Debug, Serialize)]
pub(super) struct Rows<T> {
    pub(super) rows: Vec<T>,
    pub(super) more: usize,
}

impl<T> Rows<T> {
    fn all(rows: Vec<T>) -> Rows<T> {
        Rows { rows, more: 0 }
    }

    /// Those that rank highest, in the order in which they came.
    pub(super) fn highest<R: Ord>(rows: Vec<T>, rank: impl Fn(&T) -> R) -> Rows<T> {
        let more = rows.len().saturating_sub(ROWS_MAX);
        if more == 0 {
            return Rows::all(rows);
        }
        let mut ranked: Vec<(usize, T)> = rows.into_iter().enumerate().collect();
        ranked.sort_by_cached_key(|(_, row)| std::cmp::Reverse(rank(row)));
        ranked.truncate(ROWS_MAX);
        ranked.sort_by_key(|(at, _)| *at);
        Rows { rows: ranked.into_iter().map(|(_, row)| row).collect(), more }
    }

    fn map<U>(self, each: impl FnMut(T) -> U) -> Rows<U> {
        Rows { rows: self.rows.into_iter().map(each).collect(), more: self.more }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Totals {
    pub(super) received: u64,
    #[serde(flatten)]
    pub(super) outcomes: Records,
}

/// Why frames were not taken as records.
#[derive(Debug, Serialize)]
pub(super) struct Reason {
    pub(super) reason: String,
    pub(super) outcome: &'static str,
    pub(super) frames: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Group {
    pub(super) group: String,
    pub(super) tone: Tone,
    pub(super) rules: usize,
    pub(super) matches: u64,
    pub(super) never_matched: RuleList,
    pub(super) failing: RuleList,
}

/// Some rules of a group by their numbers, and how many there are besides.
#[derive(Debug, Serialize)]
pub(super) struct RuleList {
    pub(super) some: Vec<NamedRule>,
    pub(super) more: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct NamedRule {
    pub(super) rule: usize,
    pub(super) errors: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Sink {
    #[serde(flatten)]
    pub(super) status: SinkStatus,
    pub(super) tone: Tone,
    pub(super) capacity: usize,
    /// Tasks that wait on the disk only; `None` without a durable store.
    pub(super) stored: Option<u64>,
}

/// One of the durable store's two logs.
#[derive(Debug, Serialize)]
pub(super) struct StoreLog {
    pub(super) log: &'static str,
    pub(super) tone: Tone,
    pub(super) tasks: u64,
    pub(super) oldest_s: Option<u64>,
    pub(super) disk_used: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Log {
    pub(super) file: String,
    pub(super) tone: Tone,
    pub(super) state: &'static str,
    /// For how long a write has been hanging.
    pub(super) hanging_s: Option<u64>,
    pub(super) write_errors: u64,
    pub(super) keeper_errors: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct ConditionRow {
    pub(super) condition: &'static str,
    pub(super) tone: Tone,
    pub(super) state: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Reloads {
    pub(super) last: &'static str,
    pub(super) tone: Tone,
    pub(super) applied: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
}

/// Values of the families that are not reached through the configuration in use.
pub(super) struct Readings(Vec<metrics::Reading>);

impl Readings {
    pub(super) fn of(registry: &Registry) -> Readings {
        Readings(registry.read(&FAMILIES))
    }

    fn series(&self, family: &'static Family) -> impl Iterator<Item = &metrics::Reading> {
        self.0.iter().filter(move |reading| std::ptr::eq(reading.family, family))
    }

    /// The sum of a family.
    pub(super) fn sum(&self, family: &'static Family) -> u64 {
        self.series(family).map(|reading| reading.value as u64).sum()
    }

    /// The value of a family's series with this only label.
    pub(super) fn labelled(&self, family: &'static Family, label: &str) -> f64 {
        self.series(family).find(|reading| reading.labels == [label]).map_or(0.0, |reading| reading.value)
    }

    /// By the only label.
    fn by_label(&self, family: &'static Family) -> BTreeMap<&str, u64> {
        self.series(family)
            .filter_map(|reading| Some((reading.labels.first()?.as_str(), reading.value as u64)))
            .collect()
    }
}

/// What [`Readings`] holds.
static FAMILIES: [&Family; 15] = [
    &metrics::RECORDS_RECEIVED,
    &metrics::RECORDS_QUARANTINED,
    &metrics::RECORDS_REFUSED,
    &metrics::LOG_WRITE_ERRORS,
    &metrics::LOG_KEEPER_ERRORS,
    &metrics::ACCEPT_ERRORS,
    &metrics::SERVICE_PANICS,
    &metrics::UDP_KERNEL_DROPS,
    &metrics::STORE_PENDING_TASKS,
    &metrics::STORE_OLDEST_PENDING_SECONDS,
    &metrics::STORE_DISK_USED,
    &metrics::STORE_DAMAGES,
    &metrics::DEAD_LETTERS,
    &metrics::CONFIG_RELOADS,
    &metrics::CONFIG_LAST_RELOAD_SUCCESS,
];

impl StatusPage {
    pub(super) fn overview(&self, look: &Look<'_>) -> Overview {
        let readings = Readings::of(look.registry);
        let groups = look.pipeline.groups();
        let queues = groups.iter().flat_map(|group| &group.sinks);
        let sinks: Vec<(&SinkQueue, SinkStatus)> =
            queues.map(|queue| (&**queue, status::sink_status(queue))).collect();
        let listeners =
            self.listeners.iter().map(|l| status::listener_status(l, look.registry, look.silence));
        let conditions = conditions(&look.conditions);
        let logs = logs(look, &readings);
        let facts = health::Facts {
            readings: &readings,
            conditions: &conditions,
            sinks: &sinks,
            silent: &look.silence.silent().unwrap_or_default(),
            rule_errors: groups.iter().map(errors).sum(),
            is_durable: self.is_durable,
        };
        Overview {
            version: env!("CARGO_PKG_VERSION"),
            uptime_ms: clock::now().saturating_duration_since(self.started).as_millis() as u64,
            health: health::judge(&facts),
            records: Totals {
                received: readings.sum(&metrics::RECORDS_RECEIVED),
                outcomes: status::records(look.registry),
            },
            listeners: Rows::all(listeners.collect()),
            reasons: Rows::all(reasons(&readings)),
            groups: Rows::highest(groups.iter().collect(), |group| (errors(group) > 0, group.matches.get()))
                .map(group_row),
            sinks: Rows::highest(sinks, |(_, status)| (!status.up, status.waiting)).map(|(queue, status)| {
                Sink {
                    tone: if status.up { Tone::Well } else { Tone::Bad },
                    capacity: queue.capacity(),
                    stored: queue.stored(),
                    status,
                }
            }),
            store: Rows::all(if self.is_durable { store(&readings).into() } else { Vec::new() }),
            logs,
            conditions: Rows::all(conditions),
            reloads: Rows::all(vec![reloads(&readings)]),
        }
    }
}

/// The conditions of readiness as rows.
fn conditions(conditions: &[super::Condition]) -> Vec<ConditionRow> {
    let row = |(condition, result): &super::Condition| match result {
        Ok(()) => ConditionRow { condition, tone: Tone::Well, state: "ok".to_owned() },
        Err(what) => ConditionRow { condition, tone: Tone::Bad, state: cut(what) },
    };
    conditions.iter().map(row).collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(CONDITION_CHARS_MAX) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text.to_owned(),
    }
}

fn reasons(readings: &Readings) -> Vec<Reason> {
    let of = |family, outcome| {
        let counted = readings.by_label(family).into_iter().filter(|(_, frames)| *frames > 0);
        counted.map(move |(reason, frames)| Reason { reason: reason.to_owned(), outcome, frames })
    };
    let quarantined = of(&metrics::RECORDS_QUARANTINED, "quarantined");
    of(&metrics::RECORDS_REFUSED, "refused").chain(quarantined).collect()
}

fn errors(group: &RuleGroup) -> u64 {
    group.rules.iter().map(GroupRule::errors).sum()
}

fn group_row(group: &RuleGroup) -> Group {
    let named = |wanted: &dyn Fn(&GroupRule) -> bool| {
        let all = group.rules.iter().enumerate().filter(|(_, rule)| wanted(rule));
        let mut some: Vec<NamedRule> =
            all.map(|(i, rule)| NamedRule { rule: i + 1, errors: rule.errors() }).collect();
        let more = some.len().saturating_sub(RULES_NAMED_MAX);
        some.truncate(RULES_NAMED_MAX);
        RuleList { some, more }
    };
    let mut never_matched = named(&|rule| !rule.has_matched());
    never_matched.some.iter_mut().for_each(|named| named.errors = 0);
    let failing = named(&|rule| rule.errors() > 0);
    Group {
        group: group.name.to_string(),
        tone: if failing.some.is_empty() { Tone::Well } else { Tone::Warn },
        rules: group.rules.len(),
        matches: group.matches.get(),
        never_matched,
        failing,
    }
}

fn store(readings: &Readings) -> [StoreLog; 2] {
    let used = |log| readings.labelled(&metrics::STORE_DISK_USED, log);
    let tone = |is_noteworthy: bool| if is_noteworthy { Tone::Warn } else { Tone::Well };
    let (pending, dead) = (used("pending"), used("dead"));
    let letters = readings.sum(&metrics::DEAD_LETTERS);
    [
        StoreLog {
            log: "pending tasks",
            tone: tone(pending >= health::NEARLY_FULL),
            tasks: readings.sum(&metrics::STORE_PENDING_TASKS),
            oldest_s: Some(readings.sum(&metrics::STORE_OLDEST_PENDING_SECONDS)),
            disk_used: pending,
        },
        StoreLog {
            log: "dead letters",
            tone: tone(letters > 0),
            tasks: letters,
            oldest_s: None,
            disk_used: dead,
        },
    ]
}

fn logs(look: &Look<'_>, readings: &Readings) -> Rows<Log> {
    let write_errors = readings.by_label(&metrics::LOG_WRITE_ERRORS);
    let keeper_errors = readings.by_label(&metrics::LOG_KEEPER_ERRORS);
    let row = |log: &crate::log_file::LogTarget| {
        let hanging = log.flights().hanging();
        let (tone, state) = match (hanging, log.is_writable()) {
            (Some(_), _) => (Tone::Bad, "a write hangs"),
            (None, false) => (Tone::Bad, "the last append failed"),
            (None, true) => (Tone::Well, "ok"),
        };
        let errors = |counted: &BTreeMap<&str, u64>| counted.get(log.label()).copied().unwrap_or(0);
        Log {
            file: log.label().to_owned(),
            tone,
            state,
            hanging_s: hanging.map(|age| age.as_secs()),
            write_errors: errors(&write_errors),
            keeper_errors: errors(&keeper_errors),
        }
    };
    Rows::highest(look.pipeline.logs().map(row).collect(), |log| {
        (log.tone == Tone::Bad, log.write_errors, log.keeper_errors)
    })
}

fn reloads(readings: &Readings) -> Reloads {
    let count = |result| readings.labelled(&metrics::CONFIG_RELOADS, result) as u64;
    let (applied, refused, failed) = (count("applied"), count("refused"), count("failed"));
    let is_in_use = readings.sum(&metrics::CONFIG_LAST_RELOAD_SUCCESS) == 1;
    let (last, tone) = match (is_in_use, applied + refused + failed) {
        (true, 0) => ("none since the start", Tone::Well),
        (true, _) => ("applied", Tone::Well),
        (false, _) => ("refused or failed", Tone::Warn),
    };
    Reloads { last, tone, applied, refused, failed }
}
