//! What the outside says to the store and hears from it.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::body::Reason;
use crate::side_effect::TaskId;

/// What to do when the room for dead letters is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeadKeep {
    /// Keep all: tasks that should become dead letters stay pending, out of the way of the others, until there is room.
    #[default]
    All,
    /// Keep the newest: the oldest dead letters go, counted.
    Newest,
}

/// How to open a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `async.durable.dir`. Made if it is missing and its parent exists.
    pub dir: PathBuf,
    /// `async.durable.max_bytes`: bound of all files of the store together, dead letters included.
    pub bytes_max: u64,
    /// The share of `bytes_max` that dead letters may take.
    pub dead_bytes_max: u64,
    /// `async.durable.dead_letters.keep`.
    pub dead_keep: DeadKeep,
    /// Limit of attempts of tasks that come without one: imported and replayed tasks.
    pub attempts_max: Option<u32>,
    /// Oldest that an imported or replayed task may get, counted from its import or replay.
    pub age_max: Option<Duration>,
    /// Bytes of one segment of pending tasks; `None`: a sixteenth of the room, between 64 KiB and 16 MiB.
    pub segment_bytes: Option<u64>,
}

impl Settings {
    /// The usual settings: a quarter for dead letters, all of which are kept; no limits of their own.
    pub fn new(dir: impl Into<PathBuf>, bytes_max: u64) -> Settings {
        Settings {
            dir: dir.into(),
            bytes_max,
            dead_bytes_max: bytes_max / 4,
            dead_keep: DeadKeep::All,
            attempts_max: None,
            age_max: None,
            segment_bytes: None,
        }
    }
}

/// Why a store cannot be opened. The message says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it open; its process id where that could be read.
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who holds it.
        pid: Option<u32>,
    },
    /// The directory or a file in it cannot be read or written.
    Io {
        /// What was being done, with the path.
        doing: String,
        /// Why it failed.
        error: std::io::Error,
    },
    /// A setting that cannot be used.
    Setting(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Locked { dir, pid } => {
                write!(f, "async.durable.dir {}: in use by ", dir.display())?;
                match pid {
                    Some(pid) => write!(f, "process {pid}")?,
                    None => f.write_str("another process")?,
                }
                f.write_str("; stop it first, or give this one a directory of its own")
            }
            OpenError::Io { doing, error } => write!(f, "{doing}: {error}"),
            OpenError::Setting(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for OpenError {}

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the store's directory.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there, without the place.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file, self.offset, self.what)
    }
}

/// What was found when the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Pending tasks, those of unknown sinks included.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Tasks whose last allowed attempt was interrupted: they become dead letters, outcome unknown.
    pub outcome_unknown: u64,
    /// Pending tasks by sink that the configuration does not have.
    pub unknown_sinks: Vec<(String, u64)>,
    /// Damaged places. What is intact was read all the same; nothing was deleted.
    pub damages: Vec<Damage>,
    /// Files of the predecessor that became tasks or dead letters.
    pub imported: u64,
    /// Files of the predecessor that were left where they are, with the reason.
    pub not_imported: Vec<(String, String)>,
    /// Segments of both logs.
    pub segments: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Pending or dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A task that waits for its delivery.
    Pending,
    /// A dead letter.
    Dead,
}

/// Which tasks are meant. Empty lists and `None` mean all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Pending or dead ones only.
    pub kind: Option<Kind>,
    /// These ids.
    pub ids: Vec<TaskId>,
    /// These rule groups.
    pub groups: Vec<String>,
    /// These sinks (`GROUP/slack`).
    pub sinks: Vec<String>,
    /// Accepted at this time or later.
    pub since: Option<SystemTime>,
    /// Accepted before this time.
    pub until: Option<SystemTime>,
    /// These reasons; pending tasks match only where they wait for room as dead letters with that reason.
    pub reasons: Vec<Reason>,
}

/// Where a pending task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Waits for a worker.
    Waiting,
    /// A worker has it: it is being sent, or waits for its next attempt.
    InProgress,
    /// Waits for a time before it can be taken.
    Delayed,
    /// Will be a dead letter as soon as that is written, or there is room.
    Dying,
    /// Is a dead letter.
    Dead,
}

impl Standing {
    /// One word, for people and JSON.
    pub fn label(self) -> &'static str {
        match self {
            Standing::Waiting => "waiting",
            Standing::InProgress => "in_progress",
            Standing::Delayed => "delayed",
            Standing::Dying => "dying",
            Standing::Dead => "dead",
        }
    }
}

/// One task or dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its id.
    pub id: TaskId,
    /// Pending or dead.
    pub kind: Kind,
    /// Where it stands.
    pub standing: Standing,
    /// The sink's name.
    pub sink: String,
    /// Whether the configuration has such a sink.
    pub sink_known: bool,
    /// The rule group.
    pub group: String,
    /// The listener that the record came through.
    pub source: String,
    /// When it was accepted.
    pub accepted_at: SystemTime,
    /// When it is given up.
    pub expires_at: Option<SystemTime>,
    /// Attempts made.
    pub attempts: u32,
    /// Its limit.
    pub attempts_max: Option<u32>,
    /// Start of the first attempt.
    pub first_attempt_at: Option<SystemTime>,
    /// Start or end of the last attempt, whichever was written down last.
    pub last_attempt_at: Option<SystemTime>,
    /// When another attempt may follow.
    pub next_due_at: Option<SystemTime>,
    /// HTTP status of the last failed attempt.
    pub status: Option<u16>,
    /// The last error.
    pub error: String,
    /// Why it is dead or about to be.
    pub reason: Option<Reason>,
    /// When it died.
    pub dead_at: Option<SystemTime>,
    /// The dead letter that it replays.
    pub origin: Option<TaskId>,
    /// Attempts made under that and earlier ids.
    pub origin_attempts: u32,
    /// Length of the record; 0 where it can no longer be read.
    pub record_bytes: u64,
}

/// An answer to [`super::Store::list`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// Oldest first, pending ones before dead ones; at most as many as were asked for.
    pub items: Vec<Item>,
    /// How many match.
    pub matched: u64,
}

/// What became of one task of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The dead letter.
    pub dead: TaskId,
    /// The new task, or why there is none; the dead letter is then still there.
    pub task: Result<TaskId, String>,
}

/// What became of one task of a drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The task or dead letter.
    pub id: TaskId,
    /// Why it is still there.
    pub result: Result<(), String>,
}
