//! What the records of the store hold: their bodies, byte by byte.
//!
//! A record's frame (length, checksum, sequence, kind) is the business of [`super::journal`]; here is what is inside. All numbers are
//! little-endian. A `text` is a `u16` length in bytes and that many bytes of UTF-8. A `time` is a `u64`: nanoseconds since the epoch, 0 where
//! there is none. A body ends exactly where its fields end. New fields get a new kind; a kind is never changed.
//!
//! | kind | name | body |
//! |---|---|---|
//! | 1 | Accepted | task |
//! | 2 | Carried | history, task: a live task moved forward, so that the segment in which it stood can go |
//! | 3 | Reserved | id `u128`, attempt `u32`, time |
//! | 4 | Failed | id `u128`, attempt `u32`, failure |
//! | 5 | Delivered | id `u128`, attempt `u32` |
//! | 6 | DeadLettered | id `u128`: the dead letter is on the disk |
//! | 7 | Dropped | id `u128` |
//! | 20 | DeadLetter (in `dead/`) | dead at: time, history, task |
//! | 21 | Removed (in `dead/`) | id `u128`, why `u8` (1 dropped, 2 replayed, 3 made room) |
//!
//! No kind says that a task has got its limit later: every task has it from its acceptance on, those of the predecessor from their import.
//!
//! * task: id `u128`, order `u64` (of acceptance), accepted at: time, expires at: time, limit of attempts `u32` (0: none), origin `u128` (id of
//!   the dead letter that it replays, 0: none), attempts made before under that id `u32`, sink text, group text, source text, record `u32` length
//!   and bytes.
//! * history: attempts `u32`, unfinished `u8` (1: the last one has no result), first attempt: time, failure.
//! * failure: time of the last attempt, next due: time, class `u8` (0 none, 1 transient, 2 permanent, 3 blocked), give-up `u8` (0: another attempt may follow,
//!   else [`Reason`]), HTTP status `u16` (0: none), error text.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::side_effect::retry::{Class, GiveUp};
use crate::side_effect::{Task, TaskId};

pub(crate) const ACCEPTED: u8 = 1;
pub(crate) const CARRIED: u8 = 2;
pub(crate) const RESERVED: u8 = 3;
pub(crate) const FAILED: u8 = 4;
pub(crate) const DELIVERED: u8 = 5;
pub(crate) const DEAD_LETTERED: u8 = 6;
pub(crate) const DROPPED: u8 = 7;
pub(crate) const DEAD_LETTER: u8 = 20;
pub(crate) const REMOVED: u8 = 21;

/// Longest name of a sink, group or source.
pub const NAME_BYTES_MAX: usize = 1024;
/// Longest error that is kept with a failed attempt.
pub const ERROR_BYTES_MAX: usize = 2048;
/// Longest record that a task can hold.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// Why a task became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// No attempts left.
    Exhausted = 1,
    /// The destination refused it for good.
    Permanent = 2,
    /// Older than `async.retry.max_age`.
    Expired = 3,
    /// The last attempt allowed was interrupted: it may have been delivered.
    OutcomeUnknown = 4,
    /// Its record can no longer be read from the store.
    Damaged = 5,
    /// It was a dead letter of the predecessor.
    Imported = 6,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 6] = [
        Reason::Exhausted,
        Reason::Permanent,
        Reason::Expired,
        Reason::OutcomeUnknown,
        Reason::Damaged,
        Reason::Imported,
    ];

    /// One word, as in `--reason` and JSON.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Exhausted => "exhausted",
            Reason::Permanent => "permanent",
            Reason::Expired => "expired",
            Reason::OutcomeUnknown => "outcome_unknown",
            Reason::Damaged => "damaged",
            Reason::Imported => "imported",
        }
    }

    /// The reason with this label.
    pub fn from_label(label: &str) -> Option<Reason> {
        Self::ALL.into_iter().find(|r| r.label() == label)
    }

    fn from_code(code: u8) -> Option<Reason> {
        Self::ALL.into_iter().find(|r| *r as u8 == code)
    }
}

impl From<GiveUp> for Reason {
    fn from(reason: GiveUp) -> Reason {
        match reason {
            GiveUp::Exhausted => Reason::Exhausted,
            GiveUp::Permanent => Reason::Permanent,
            GiveUp::Expired => Reason::Expired,
        }
    }
}

/// A body that does not hold what its kind says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyError(pub &'static str);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record body: {}", self.0)
    }
}

impl std::error::Error for BodyError {}

/// The `task` part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskBody<'a> {
    pub(crate) id: u128,
    pub(crate) order: u64,
    pub(crate) accepted_ns: u64,
    pub(crate) expires_ns: u64,
    pub(crate) attempts_max: u32,
    pub(crate) origin: u128,
    pub(crate) origin_attempts: u32,
    pub(crate) sink: &'a str,
    pub(crate) group: &'a str,
    pub(crate) source: &'a str,
    pub(crate) record: &'a [u8],
}

/// Where `order` stands in a `task` part: it is known only when the record is appended.
pub(crate) const ORDER_AT: usize = 16;

/// The `failure` part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) last_ns: u64,
    pub(crate) next_due_ns: u64,
    pub(crate) class: Option<Class>,
    pub(crate) reason: Option<Reason>,
    pub(crate) status: u16,
    pub(crate) error: String,
}

/// The `history` part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) attempts: u32,
    pub(crate) unfinished: bool,
    pub(crate) first_ns: u64,
    pub(crate) failure: Failure,
}

/// A body, decoded. Texts and record are borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Accepted(TaskBody<'a>),
    Carried(History, TaskBody<'a>),
    Reserved { id: u128, attempt: u32, at_ns: u64 },
    Failed { id: u128, attempt: u32, failure: Failure },
    Delivered { id: u128, attempt: u32 },
    DeadLettered { id: u128 },
    Dropped { id: u128 },
    DeadLetter { dead_ns: u64, history: History, task: TaskBody<'a> },
    Removed { id: u128, why: Removal },
}

/// Why a dead letter is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Removal {
    Dropped = 1,
    Replayed = 2,
    MadeRoom = 3,
}

/// Nanoseconds since the epoch; times before it count as the epoch's first nanosecond, since 0 says that there is none.
pub(crate) fn to_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// The time of so many nanoseconds.
pub(crate) fn from_ns(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ns)
}

/// The time of so many nanoseconds, unless there is none.
pub(crate) fn time_of(ns: u64) -> Option<SystemTime> {
    (ns != 0).then(|| from_ns(ns))
}

/// `text` cut to `bytes_max` at a character's boundary.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

impl<'a> TaskBody<'a> {
    /// What is stored of a new task. `order` is filled in later.
    pub(crate) fn of(task: &'a Task, sink: &'a str) -> TaskBody<'a> {
        TaskBody {
            id: task.id.bits(),
            order: 0,
            accepted_ns: to_ns(task.accepted_at),
            expires_ns: task.expires_at.map_or(0, to_ns),
            attempts_max: task.attempts_max.unwrap_or(0),
            origin: 0,
            origin_attempts: 0,
            sink: cut(sink, NAME_BYTES_MAX),
            group: cut(&task.group, NAME_BYTES_MAX),
            source: cut(task.source, NAME_BYTES_MAX),
            record: &task.record,
        }
    }

    /// The task, with `attempts` made so far.
    pub(crate) fn task(&self, attempts: u32, group: &Arc<str>) -> Task {
        Task {
            id: TaskId::from_bits(self.id),
            group: Arc::clone(group),
            record: Arc::from(self.record),
            source: source_of(self.source),
            accepted_at: from_ns(self.accepted_ns),
            attempts_made: attempts,
            attempts_max: (self.attempts_max != 0).then_some(self.attempts_max),
            expires_at: time_of(self.expires_ns),
        }
    }

    /// Length of its encoding in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        16 + 8
            + 8
            + 8
            + 4
            + 16
            + 4
            + 6
            + self.sink.len()
            + self.group.len()
            + self.source.len()
            + 4
            + self.record.len()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.order.to_le_bytes());
        out.extend_from_slice(&self.accepted_ns.to_le_bytes());
        out.extend_from_slice(&self.expires_ns.to_le_bytes());
        out.extend_from_slice(&self.attempts_max.to_le_bytes());
        out.extend_from_slice(&self.origin.to_le_bytes());
        out.extend_from_slice(&self.origin_attempts.to_le_bytes());
        put_text(out, self.sink);
        put_text(out, self.group);
        put_text(out, self.source);
        out.extend_from_slice(&(self.record.len() as u32).to_le_bytes());
        out.extend_from_slice(self.record);
    }

    fn decode(r: &mut Reader<'a>) -> Result<Self, BodyError> {
        let body = TaskBody {
            id: r.u128()?,
            order: r.u64()?,
            accepted_ns: r.u64()?,
            expires_ns: r.u64()?,
            attempts_max: r.u32()?,
            origin: r.u128()?,
            origin_attempts: r.u32()?,
            sink: r.text(NAME_BYTES_MAX)?,
            group: r.text(NAME_BYTES_MAX)?,
            source: r.text(NAME_BYTES_MAX)?,
            record: r.record()?,
        };
        Ok(body)
    }
}

/// The label as a word that lives for ever: tasks carry `&'static str`.
fn source_of(label: &str) -> &'static str {
    const KNOWN: [&str; 6] = ["http", "tcp", "udp", "unix", "admin", "import"];
    KNOWN.into_iter().find(|known| *known == label).unwrap_or("unknown")
}

impl Failure {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last_ns.to_le_bytes());
        out.extend_from_slice(&self.next_due_ns.to_le_bytes());
        out.push(match self.class {
            None => 0,
            Some(Class::Transient) => 1,
            Some(Class::Permanent) => 2,
            Some(Class::Blocked) => 3,
        });
        out.push(self.reason.map_or(0, |r| r as u8));
        out.extend_from_slice(&self.status.to_le_bytes());
        put_text(out, cut(&self.error, ERROR_BYTES_MAX));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Failure {
            last_ns: r.u64()?,
            next_due_ns: r.u64()?,
            class: match r.u8()? {
                0 => None,
                1 => Some(Class::Transient),
                2 => Some(Class::Permanent),
                3 => Some(Class::Blocked),
                _ => return Err(BodyError("unknown class of a failure")),
            },
            reason: match r.u8()? {
                0 => None,
                code => Some(Reason::from_code(code).ok_or(BodyError("unknown reason"))?),
            },
            status: r.u16()?,
            error: r.text(ERROR_BYTES_MAX)?.to_owned(),
        })
    }
}

impl History {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.attempts.to_le_bytes());
        out.push(u8::from(self.unfinished));
        out.extend_from_slice(&self.first_ns.to_le_bytes());
        self.failure.encode(out);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(History {
            attempts: r.u32()?,
            unfinished: match r.u8()? {
                0 => false,
                1 => true,
                _ => return Err(BodyError("unknown state of an attempt")),
            },
            first_ns: r.u64()?,
            failure: Failure::decode(r)?,
        })
    }
}

impl<'a> Body<'a> {
    /// Reads the body of a record of `kind`.
    ///
    /// # Errors
    /// It is not one: too short, too long, or a field out of its bounds.
    pub(crate) fn decode(kind: u8, bytes: &'a [u8]) -> Result<Body<'a>, BodyError> {
        let mut r = Reader(bytes);
        let body = match kind {
            ACCEPTED => Body::Accepted(TaskBody::decode(&mut r)?),
            CARRIED => Body::Carried(History::decode(&mut r)?, TaskBody::decode(&mut r)?),
            RESERVED => Body::Reserved { id: r.u128()?, attempt: r.u32()?, at_ns: r.u64()? },
            FAILED => Body::Failed { id: r.u128()?, attempt: r.u32()?, failure: Failure::decode(&mut r)? },
            DELIVERED => Body::Delivered { id: r.u128()?, attempt: r.u32()? },
            DEAD_LETTERED => Body::DeadLettered { id: r.u128()? },
            DROPPED => Body::Dropped { id: r.u128()? },
            DEAD_LETTER => Body::DeadLetter {
                dead_ns: r.u64()?,
                history: History::decode(&mut r)?,
                task: TaskBody::decode(&mut r)?,
            },
            REMOVED => Body::Removed {
                id: r.u128()?,
                why: match r.u8()? {
                    1 => Removal::Dropped,
                    2 => Removal::Replayed,
                    3 => Removal::MadeRoom,
                    _ => return Err(BodyError("unknown cause of a removal")),
                },
            },
            _ => return Err(BodyError("unknown kind")),
        };
        if r.0.is_empty() { Ok(body) } else { Err(BodyError("longer than its fields")) }
    }

    pub(crate) fn kind(&self) -> u8 {
        match self {
            Body::Accepted(_) => ACCEPTED,
            Body::Carried(..) => CARRIED,
            Body::Reserved { .. } => RESERVED,
            Body::Failed { .. } => FAILED,
            Body::Delivered { .. } => DELIVERED,
            Body::DeadLettered { .. } => DEAD_LETTERED,
            Body::Dropped { .. } => DROPPED,
            Body::DeadLetter { .. } => DEAD_LETTER,
            Body::Removed { .. } => REMOVED,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        match self {
            Body::Accepted(task) => task.encode(&mut out),
            Body::Carried(history, task) => {
                history.encode(&mut out);
                task.encode(&mut out);
            }
            Body::Reserved { id, attempt, at_ns } => {
                put_attempt(&mut out, *id, *attempt);
                out.extend_from_slice(&at_ns.to_le_bytes());
            }
            Body::Failed { id, attempt, failure } => {
                put_attempt(&mut out, *id, *attempt);
                failure.encode(&mut out);
            }
            Body::Delivered { id, attempt } => put_attempt(&mut out, *id, *attempt),
            Body::DeadLettered { id } | Body::Dropped { id } => out.extend_from_slice(&id.to_le_bytes()),
            Body::DeadLetter { dead_ns, history, task } => {
                out.extend_from_slice(&dead_ns.to_le_bytes());
                history.encode(&mut out);
                task.encode(&mut out);
            }
            Body::Removed { id, why } => {
                out.extend_from_slice(&id.to_le_bytes());
                out.push(*why as u8);
            }
        }
        out
    }
}

fn put_attempt(out: &mut Vec<u8>, id: u128, attempt: u32) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&attempt.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// What is left of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], BodyError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(BodyError("shorter than its fields"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BodyError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(BodyError("shorter than its fields"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, BodyError> {
        self.array::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Result<u16, BodyError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BodyError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, BodyError> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Result<u128, BodyError> {
        self.array().map(u128::from_le_bytes)
    }

    fn text(&mut self, bytes_max: usize) -> Result<&'a str, BodyError> {
        let len = usize::from(self.u16()?);
        if len > bytes_max {
            return Err(BodyError("a text is longer than allowed"));
        }
        std::str::from_utf8(self.take(len)?).map_err(|_| BodyError("a text is not UTF-8"))
    }

    fn record(&mut self) -> Result<&'a [u8], BodyError> {
        let len = self.u32()? as usize;
        if len > RECORD_BYTES_MAX {
            return Err(BodyError("the record is longer than allowed"));
        }
        self.take(len)
    }
}

#[cfg(test)]
#[path = "tests/body.rs"]
mod tests;
