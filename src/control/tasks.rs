//! Tasks of the durable store as an operator sees them: what can be asked of whoever keeps them, by the server and by the command
//! line alike.

use std::fmt;
use std::io;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config;
use crate::side_effect::TaskId;

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It will be delivered, or given up.
    Pending,
    /// It was given up and is kept: a dead letter.
    Dead,
}

impl State {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Dead => "dead",
        }
    }
}

/// One task, without its record. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    /// 32 hexadecimal digits: also the idempotency key of its deliveries.
    pub id: String,
    /// Where it is.
    pub state: State,
    /// Rule group.
    pub group: String,
    /// `GROUP/slack` and the like.
    pub sink: String,
    /// Listener that the record came through.
    pub source: String,
    /// When the record was accepted.
    pub accepted_at: String,
    /// Attempts made.
    pub attempts: u32,
    /// Its limit of attempts, where it has one.
    pub attempts_max: Option<u32>,
    /// When it is given up, where that is fixed.
    pub expires_at: Option<String>,
    /// When the last attempt began.
    pub last_attempt_at: Option<String>,
    /// Not tried again before.
    pub next_due_at: Option<String>,
    /// HTTP status of the last attempt.
    pub last_status: Option<u16>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When it became a dead letter.
    pub dead_at: Option<String>,
    /// Why: [`REASONS`].
    pub reason: Option<String>,
    /// The dead letter that it replays.
    pub replay_of: Option<String>,
    /// Length of its record.
    pub record_bytes: u64,
}

/// One task with its record as received.
#[derive(Debug, Serialize, Deserialize)]
pub struct TaskDetail {
    /// The task.
    pub task: TaskLine,
    /// The record; null when it is not JSON.
    pub record: Box<RawValue>,
    /// The record in base64, when it is not JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_base64: Option<String>,
}

impl TaskDetail {
    /// `record` are the bytes as received.
    pub fn new(task: TaskLine, record: &[u8]) -> TaskDetail {
        use base64::Engine as _;
        match serde_json::from_slice::<Box<RawValue>>(record) {
            Ok(record) => TaskDetail { task, record, record_base64: None },
            Err(_) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(record);
                TaskDetail { task, record: RawValue::NULL.to_owned(), record_base64: Some(encoded) }
            }
        }
    }
}

/// Some of the tasks that a filter takes, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<TaskLine>,
    /// How many the filter takes in all.
    pub total: u64,
    /// What to ask `after` for those that follow; `None` at the end.
    pub next: Option<String>,
}

/// What a replay or drop has done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changed {
    /// Tasks that were replayed or dropped.
    pub done: u64,
    /// Tasks that were meant and could not be, each with the reason.
    #[serde(default)]
    pub failed: Vec<String>,
}

/// The store as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Condition {
    /// Tasks that wait or are being delivered.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Bytes on the disk, spare segments included.
    pub bytes: u64,
    /// Bound of the disk use.
    pub bytes_max: u64,
    /// When the oldest pending task was accepted.
    pub oldest_pending_at: Option<String>,
    /// Why nothing is accepted; `None` while it is.
    pub refusing: Option<String>,
    /// Damage that was found: file, offset, what.
    #[serde(default)]
    pub damages: Vec<String>,
}

/// Words for why a task became a dead letter.
pub const REASONS: [&str; 6] =
    ["exhausted", "permanent", "expired", "outcome_unknown", "damaged", "imported"];

/// Which tasks are meant. Everything that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Pending tasks or dead letters; both when `None`.
    pub state: Option<State>,
    /// One of these; any when empty.
    pub ids: Vec<TaskId>,
    /// Name of the rule group.
    pub group: Option<String>,
    /// Name of the sink: `GROUP/slack`, or what follows the group (`slack`).
    pub sink: Option<String>,
    /// Accepted at or after.
    pub since: Option<SystemTime>,
    /// Accepted before.
    pub until: Option<SystemTime>,
    /// Why it is dead: one of [`REASONS`].
    pub reason: Option<String>,
}

/// What a filter looks at.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "as in TaskLine")]
pub struct Facts<'a> {
    pub id: TaskId,
    pub state: State,
    pub group: &'a str,
    pub sink: &'a str,
    pub accepted_at: SystemTime,
    pub reason: Option<&'a str>,
}

impl Filter {
    /// Whether it takes everything of its state.
    pub fn is_empty(&self) -> bool {
        *self == Filter { state: self.state, ..Filter::default() }
    }

    /// Whether the task is meant.
    pub fn takes(&self, task: &Facts<'_>) -> bool {
        self.state.is_none_or(|state| state == task.state)
            && (self.ids.is_empty() || self.ids.contains(&task.id))
            && self.group.as_deref().is_none_or(|group| group == task.group)
            && self.sink.as_deref().is_none_or(|sink| is_sink(sink, task))
            && self.since.is_none_or(|since| task.accepted_at >= since)
            && self.until.is_none_or(|until| task.accepted_at < until)
            && self.reason.as_deref().is_none_or(|reason| task.reason == Some(reason))
    }

    /// Sets one condition from its name and text: those of the command line's options, the API's query parameters and its JSON.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn set(&mut self, name: &str, text: &str, now: SystemTime) -> Result<(), FilterError> {
        match name {
            "state" => self.state = Some(state(text)?),
            "id" => self.ids.push(task_id(text)?),
            "group" => self.group = Some(text.to_owned()),
            "sink" => self.sink = Some(text.to_owned()),
            "since" => self.since = Some(time(name, text, now)?),
            "until" => self.until = Some(time(name, text, now)?),
            "reason" => self.reason = Some(reason(text)?.to_owned()),
            _ => {
                let cure = "the conditions are state, id, group, sink, since, until and reason";
                return Err(FilterError::new(format!("unknown condition {name:?}"), cure));
            }
        }
        Ok(())
    }
}

/// The whole name, or its part after the group.
fn is_sink(asked: &str, task: &Facts<'_>) -> bool {
    asked == task.sink
        || task.sink.strip_prefix(task.group).and_then(|rest| rest.strip_prefix('/')) == Some(asked)
}

/// A condition that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub cure: String,
}

impl FilterError {
    fn new(what: String, cure: impl Into<String>) -> Self {
        FilterError { what, cure: cure.into() }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.cure)
    }
}

impl std::error::Error for FilterError {}

fn state(text: &str) -> Result<State, FilterError> {
    match text {
        "pending" => Ok(State::Pending),
        "dead" => Ok(State::Dead),
        _ => Err(FilterError::new(format!("state {text:?} does not exist"), "write pending or dead")),
    }
}

fn reason(text: &str) -> Result<&'static str, FilterError> {
    REASONS.into_iter().find(|known| *known == text).ok_or_else(|| {
        FilterError::new(
            format!("reason {text:?} does not exist"),
            format!("write one of {}", REASONS.join(", ")),
        )
    })
}

/// The id of these 32 hexadecimal digits.
///
/// # Errors
/// It is none.
pub fn task_id(text: &str) -> Result<TaskId, FilterError> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(TaskId::from_bits).ok_or_else(|| {
        FilterError::new(
            format!("{text:?} is not the id of a task"),
            "write the 32 hexadecimal digits that `vault-audit-filter queue list` shows",
        )
    })
}

/// A point in time: RFC 3339, or how long ago.
fn time(name: &str, text: &str, now: SystemTime) -> Result<SystemTime, FilterError> {
    if let Ok(at) = text.parse::<jiff::Timestamp>().and_then(SystemTime::try_from) {
        return Ok(at);
    }
    if let Ok(ago) = config::parse_duration(text) {
        return Ok(now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH));
    }
    Err(FilterError::new(
        format!("{name} {text:?} is not a time"),
        "write how long ago, such as 90m or 24h, or a time such as 2026-11-24T07:00:00Z",
    ))
}

/// A time for people and JSON: RFC 3339 in UTC, to the millisecond.
pub fn time_text(time: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

/// Who keeps tasks: the durable store, open in the server or opened by the command line.
///
/// All methods may block for the disk and can be called from any thread.
pub trait TaskBook: Send + Sync {
    /// Tasks that `filter` takes, oldest first, from behind `after` on, at most `limit` of them.
    ///
    /// # Errors
    /// The store cannot be read.
    fn list(&self, filter: &Filter, after: Option<TaskId>, limit: usize) -> io::Result<Page>;

    /// One task with its record's bytes; `None` when there is none of that id.
    ///
    /// # Errors
    /// The store cannot be read.
    fn show(&self, id: TaskId) -> io::Result<Option<(TaskLine, Vec<u8>)>>;

    /// Makes new tasks out of dead letters. Pending tasks are left alone.
    ///
    /// # Errors
    /// The store takes nothing, or cannot be read or written.
    fn replay(&self, filter: &Filter) -> io::Result<Changed>;

    /// Removes tasks for good.
    ///
    /// # Errors
    /// The store cannot be read or written.
    fn discard(&self, filter: &Filter) -> io::Result<Changed>;

    /// The store as a whole. Cheap.
    fn condition(&self) -> Condition;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

    fn facts(id: u128, seconds: u64) -> Facts<'static> {
        let accepted_at = EPOCH + Duration::from_secs(seconds);
        let (group, sink, reason) = ("pay/roll", "pay/roll/slack", Some("expired"));
        Facts { id: TaskId::from_bits(id), state: State::Dead, group, sink, accepted_at, reason }
    }

    fn filter(conditions: &[(&str, &str)]) -> Filter {
        let mut filter = Filter::default();
        for (name, text) in conditions {
            filter.set(name, text, EPOCH + Duration::from_secs(10_000)).expect("understood");
        }
        filter
    }

    #[test]
    fn every_condition_has_to_hold() {
        let task = facts(7, 6400);
        let id = format!("{:032x}", 7);
        for conditions in [
            &[][..],
            &[("state", "dead")],
            &[("id", &id)],
            &[("group", "pay/roll"), ("sink", "slack")],
            &[("sink", "pay/roll/slack")],
            &[("since", "1h"), ("until", "59m")],
            &[("since", "1970-01-01T01:46:40Z"), ("until", "1970-01-01T01:46:41+00:00")],
            &[("reason", "expired")],
        ] {
            assert!(filter(conditions).takes(&task), "{conditions:?}");
        }
        for conditions in [
            &[("state", "pending")][..],
            &[("id", "00000000000000000000000000000008")],
            &[("group", "pay")],
            &[("sink", "roll/slack")],
            &[("sink", "pay/roll/")],
            &[("sink", "")],
            &[("since", "3599s")],
            &[("until", "1h")],
            &[("reason", "exhausted")],
            &[("id", &id), ("reason", "exhausted")],
        ] {
            assert!(!filter(conditions).takes(&task), "{conditions:?}");
        }
        assert!(!filter(&[("reason", "expired")]).takes(&Facts { reason: None, ..task }));
    }

    #[test]
    fn wrong_conditions_teach() {
        for (name, text, part) in [
            ("state", "alive", "write pending or dead"),
            ("id", "12", "32 hexadecimal digits"),
            ("id", "+123456789abcdef0123456789abcdef0", "32 hexadecimal digits"),
            ("since", "5", "90m or 24h"),
            ("until", "2026-13-01T00:00:00Z", "90m or 24h"),
            ("reason", "tired", "outcome_unknown"),
            ("colour", "red", "the conditions are"),
        ] {
            let error = Filter::default().set(name, text, EPOCH).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_record_is_shown_byte_for_byte() {
        let line: TaskLine = crate::control::testing::line(1, State::Dead, "a");
        let record = r#"{"n": 1.50e3, "big": 123456789012345678901234567890}"#;
        let detail = TaskDetail::new(line.clone(), record.as_bytes());
        let json = serde_json::to_string(&detail).expect("JSON");
        assert!(json.contains(record), "{json}");
        let back: TaskDetail = serde_json::from_str(&json).expect("the same form");
        assert_eq!((back.task, back.record.get()), (line.clone(), record));
        let odd = TaskDetail::new(line, b"\xff{");
        assert_eq!((odd.record.get(), odd.record_base64.as_deref()), ("null", Some("/3s=")));
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time_text(EPOCH + Duration::from_micros(1_500_900)), "1970-01-01T00:00:01.500Z");
    }
}
