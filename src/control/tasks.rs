//! Tasks of the durable store as an operator sees them: what can be asked of whoever keeps them, by the server and by the command
//! line alike.

use std::fmt;
use std::io;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config;
use crate::side_effect::TaskId;
use crate::store::Reason;

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
    /// How it stands there: waiting, in_progress, delayed, dying (it will be a dead letter once there is room), dead.
    pub standing: String,
    /// Rule group.
    pub group: String,
    /// `GROUP/slack` and the like.
    pub sink: String,
    /// Whether the configuration has that sink: tasks of others wait until it has.
    pub sink_known: bool,
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
    /// When the first attempt began.
    pub first_attempt_at: Option<String>,
    /// When the last attempt began or ended.
    pub last_attempt_at: Option<String>,
    /// Not tried again before.
    pub next_due_at: Option<String>,
    /// HTTP status of the last attempt.
    pub last_status: Option<u16>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When it became a dead letter.
    pub dead_at: Option<String>,
    /// Why: a word of [`Reason`].
    pub reason: Option<String>,
    /// The dead letter that it replays.
    pub replay_of: Option<String>,
    /// Attempts made under that id and earlier ones.
    pub attempts_before: u32,
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
    /// The `offset` of those that follow; `None` at the end.
    pub next: Option<u64>,
    /// Damage in the store, because of which something may be missing: file, offset, what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damages: Vec<String>,
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
    /// Age of the oldest pending task that no worker has.
    pub oldest_pending_s: u64,
    /// Why nothing is accepted; `None` while it is.
    pub refusing: Option<String>,
    /// Damage that was found when the store was opened: file, offset, what.
    #[serde(default)]
    pub damages: Vec<String>,
}

/// Which tasks are meant. Everything that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Pending tasks or dead letters; both when `None`.
    pub state: Option<State>,
    /// One of these; any when empty.
    pub ids: Vec<TaskId>,
    /// Name of the rule group.
    pub group: Option<String>,
    /// Name of the sink: `GROUP/slack`.
    pub sink: Option<String>,
    /// Accepted at or after.
    pub since: Option<SystemTime>,
    /// Accepted before.
    pub until: Option<SystemTime>,
    /// Why it is dead.
    pub reason: Option<Reason>,
}

impl Filter {
    /// Whether it takes everything of its state.
    pub fn is_empty(&self) -> bool {
        *self == Filter { state: self.state, ..Filter::default() }
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
            "reason" => self.reason = Some(reason(text)?),
            _ => {
                let cure = "the conditions are state, id, group, sink, since, until and reason";
                return Err(FilterError::new(format!("unknown condition {name:?}"), cure));
            }
        }
        Ok(())
    }
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

fn reason(text: &str) -> Result<Reason, FilterError> {
    Reason::from_label(text).ok_or_else(|| {
        FilterError::new(
            format!("reason {text:?} does not exist"),
            format!("write one of {}", Reason::ALL.map(Reason::label).join(", ")),
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
    /// Tasks that `filter` takes, oldest first, without the first `offset` of them, at most `limit`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn list(&self, filter: &Filter, offset: u64, limit: usize) -> io::Result<Page>;

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

    /// Moves files that were set aside because of damage out of the way; where they are now.
    ///
    /// # Errors
    /// A file cannot be moved.
    fn set_aside(&self) -> io::Result<Vec<String>>;

    /// The store as a whole.
    fn condition(&self) -> Condition;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

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
