//! What tests of the control API and of the commands that use it need: a place, tasks in memory, an API over real parts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::api::{Api, Parts};
use super::reload::ReloadError;
use super::tasks::{Changed, Condition, Filter, Page, State, TaskBook, TaskLine, time_text};
use crate::config::{self, Config};
use crate::listener;
use crate::log_file::{LogFiles, Quarantine};
use crate::metrics::{self, Registry};
use crate::pipeline::Pipeline;
use crate::record::FieldPlan;
use crate::rule_group::{GroupRule, RuleGroup};
use crate::rules::{Limits, Rule};
use crate::service::{Gateway, Live};
use crate::side_effect::TaskId;

/// A directory of one's own, removed with everything in it.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vaf-control-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Task number `n`, accepted `n` seconds after the epoch, for the sink `GROUP/slack`.
pub(crate) fn line(n: u64, state: State, group: &str) -> TaskLine {
    let at = |seconds| time_text(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let dead = state == State::Dead;
    TaskLine {
        id: format!("{n:032x}"),
        state,
        standing: if dead { "dead" } else { "waiting" }.to_owned(),
        group: group.to_owned(),
        sink: format!("{group}/slack"),
        sink_known: true,
        source: "http".to_owned(),
        accepted_at: at(n),
        attempts: if dead { 3 } else { 0 },
        attempts_max: Some(3),
        expires_at: None,
        first_attempt_at: dead.then(|| at(n + 1)),
        last_attempt_at: dead.then(|| at(n + 1)),
        next_due_at: None,
        last_status: dead.then_some(500),
        last_error: dead.then(|| "the receiver said \u{1b}[31mno".to_owned()),
        dead_at: dead.then(|| at(n + 2)),
        reason: dead.then(|| "exhausted".to_owned()),
        replay_of: None,
        attempts_before: 0,
        record_bytes: 9,
    }
}

/// Tasks in memory, by the rules that the store keeps.
#[derive(Default)]
pub(crate) struct MemoryBook {
    pub(crate) tasks: Mutex<Vec<(TaskLine, Vec<u8>)>>,
    /// Everything fails with this.
    pub(crate) broken: Mutex<Option<String>>,
}

impl MemoryBook {
    pub(crate) fn with(lines: impl IntoIterator<Item = TaskLine>) -> MemoryBook {
        let tasks = lines.into_iter().map(|line| {
            let record = format!("{{\"n\":\"{}\"}}", &line.id[30..]);
            (line, record.into_bytes())
        });
        MemoryBook { tasks: Mutex::new(tasks.collect()), broken: Mutex::default() }
    }

    pub(crate) fn ids(&self, state: State) -> Vec<String> {
        self.tasks.lock().iter().filter(|(t, _)| t.state == state).map(|(t, _)| t.id.clone()).collect()
    }

    fn check(&self) -> io::Result<()> {
        self.broken.lock().as_ref().map_or(Ok(()), |what| Err(io::Error::other(what.clone())))
    }
}

fn takes(filter: &Filter, task: &TaskLine) -> bool {
    let at: jiff::Timestamp = task.accepted_at.parse().expect("a time");
    let accepted_at = SystemTime::try_from(at).expect("a time");
    filter.state.is_none_or(|state| state == task.state)
        && (filter.ids.is_empty() || filter.ids.iter().any(|id| id.to_string() == task.id))
        && filter.group.as_ref().is_none_or(|group| *group == task.group)
        && filter.sink.as_ref().is_none_or(|sink| *sink == task.sink)
        && filter.since.is_none_or(|since| accepted_at >= since)
        && filter.until.is_none_or(|until| accepted_at < until)
        && filter.reason.is_none_or(|reason| task.reason.as_deref() == Some(reason.label()))
}

impl TaskBook for MemoryBook {
    fn list(&self, filter: &Filter, offset: u64, limit: usize) -> io::Result<Page> {
        self.check()?;
        let tasks = self.tasks.lock();
        let all: Vec<&TaskLine> = tasks.iter().map(|(t, _)| t).filter(|t| takes(filter, t)).collect();
        let offset = offset as usize;
        let page: Vec<TaskLine> = all.iter().skip(offset).take(limit).map(|t| (*t).clone()).collect();
        let end = offset + page.len();
        let next = (end < all.len() && !page.is_empty()).then_some(end as u64);
        Ok(Page { tasks: page, total: all.len() as u64, next, damages: Vec::new() })
    }

    fn show(&self, id: TaskId) -> io::Result<Option<(TaskLine, Vec<u8>)>> {
        self.check()?;
        Ok(self.tasks.lock().iter().find(|(t, _)| t.id == id.to_string()).cloned())
    }

    fn replay(&self, filter: &Filter) -> io::Result<Changed> {
        self.check()?;
        let mut done = 0;
        for (task, _) in self.tasks.lock().iter_mut().filter(|(t, _)| t.state == State::Dead) {
            if takes(filter, task) {
                (task.state, task.reason, task.dead_at) = (State::Pending, None, None);
                done += 1;
            }
        }
        Ok(Changed { done, failed: Vec::new() })
    }

    fn discard(&self, filter: &Filter) -> io::Result<Changed> {
        self.check()?;
        let mut tasks = self.tasks.lock();
        let before = tasks.len();
        tasks.retain(|(task, _)| !takes(filter, task));
        Ok(Changed { done: (before - tasks.len()) as u64, failed: Vec::new() })
    }

    fn set_aside(&self) -> io::Result<Vec<String>> {
        self.check()?;
        Ok(vec!["/store/quarantine/0000000000000001.seg.damaged".to_owned()])
    }

    fn condition(&self) -> Condition {
        let count = |state| self.ids(state).len() as u64;
        Condition {
            pending: count(State::Pending),
            dead: count(State::Dead),
            bytes: 4096,
            bytes_max: 1 << 30,
            refusing: self.broken.lock().clone(),
            ..Condition::default()
        }
    }
}

/// An API over a pipeline with two groups, `deletions` with two rules and `rest` as the fallback, whose quarantine log is in `dir`.
pub(crate) fn api(dir: &Path, tasks: Option<Arc<dyn TaskBook>>) -> Api {
    let registry = Arc::new(Registry::new());
    let mut plan = FieldPlan::new();
    let mut group = |name: &str, rules: &[&str]| {
        let rule = |(i, text): (usize, &&str)| {
            let rule = Rule::compile(text, &mut plan, &Limits::default()).expect("the rule compiles");
            GroupRule::new(rule, registry.counter(&metrics::RULE_ERRORS, &[name, &(i + 1).to_string()]))
        };
        RuleGroup {
            name: name.into(),
            rules: rules.iter().enumerate().map(rule).collect(),
            log_file: None,
            sinks: Vec::new(),
            matches: registry.counter(&metrics::GROUP_MATCHES, &[name]),
        }
    };
    let rules = [r#"Request.Operation == "delete""#, r#"record.type.x == 1"#];
    let groups = vec![group("deletions", &rules), group("rest", &[])];
    let quarantine = config::LogFile::at(dir.join("quarantine.log"));
    let quarantine = Quarantine::new(LogFiles::new().open(&quarantine, &registry).expect("a log file"));
    let pipeline = Pipeline::new(plan.build(), groups, Some(1), quarantine, &registry).expect("a pipeline");
    let live = Live::new(Arc::new(pipeline), Vec::new(), 1 << 20, Vec::new());
    let gateway = Gateway::new(live, Arc::clone(&registry));
    Api::new(
        listener::configured(&Config::default()),
        Parts {
            gateway: Arc::new(gateway),
            registry,
            tasks,
            taps: Default::default(),
            reload: Box::new(|| Err(ReloadError::Busy)),
        },
    )
}
