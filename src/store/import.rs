//! The predecessor's task files: `pending/*.json` and `deadletter/*.json`, one file per task.
//!
//! ```text
//! pending:    {"id", "group_name", "attempts", "max_attempts"?, "last_error"?, "payload" (base64), "payload_str"}
//! deadletter: {"persisted": {as above}, "reason"}
//! ```
//! One such task went to all destinations of its group; here it becomes one task for each sink of the group. The new ids are a function of the old
//! one and the sink's name, so a file that is met again after a crash is not imported twice. Each file is moved to `imported/` once what it
//! became is durable; one that cannot be read stays, and is named.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use serde::Deserialize;

use super::api::Report;
use super::body::{
    Body, DEAD_LETTER, ERROR_BYTES_MAX, Failure, History, NAME_BYTES_MAX, Reason, TaskBody, cut, to_ns,
};
use super::dead::DeadEntry;
use super::disk::{Disk, RealDisk};
use super::inner::{Inner, Log, Outcome};
use super::journal::Class;
use crate::side_effect::{Refused, TaskId};

/// Longest task file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Files between two syncs.
const BATCH: usize = 128;
/// Files named in the report; of further ones only the number is told.
const NAMED_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
struct PendingFile {
    #[serde(default)]
    id: String,
    #[serde(default)]
    group_name: String,
    #[serde(default)]
    attempts: i64,
    #[serde(default, deserialize_with = "present")]
    max_attempts: Option<serde_json::Value>,
    #[serde(default)]
    last_error: String,
    #[serde(default)]
    payload: Option<String>,
    #[serde(default)]
    payload_str: String,
}

#[derive(Debug, Deserialize)]
struct DeadFile {
    persisted: PendingFile,
    #[serde(default)]
    reason: String,
}

/// A key that is there counts, even with null.
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(d).map(Some)
}

/// One file, read.
#[derive(Debug, PartialEq)]
struct OldTask {
    id: String,
    group: String,
    attempts: u32,
    attempts_max: Option<u32>,
    error: String,
    record: Vec<u8>,
    written: SystemTime,
}

/// Imports what is in `dir`. What went wrong is in the report.
pub(super) fn run(inner: &Arc<Inner>, dir: &Path, report: &mut Report) {
    let mut dead_ids = HashSet::new();
    for (name, is_dead) in [("deadletter", true), ("pending", false)] {
        let from = dir.join(name);
        if !from.is_dir() {
            continue;
        }
        let to = dir.join("imported").join(name);
        let import = Import { inner, from, to, is_dead };
        if let Err(e) = import.all(&mut dead_ids, report) {
            leave(report, import.from.display().to_string(), e.to_string());
        }
    }
    if report.imported > 0 {
        log::info!(
            "{} task files of the predecessor imported, moved to {}/imported",
            report.imported,
            dir.display()
        );
        inner.meters.imported.add(report.imported);
    }
    let state = inner.state.lock();
    report.pending = state.tasks.len() as u64;
    report.dead = state.dead.len() as u64;
}

fn leave(report: &mut Report, file: String, why: String) {
    if report.not_imported.len() < NAMED_MAX {
        report.not_imported.push((file, why));
    }
}

struct Import<'a> {
    inner: &'a Arc<Inner>,
    from: PathBuf,
    to: PathBuf,
    is_dead: bool,
}

impl Import<'_> {
    fn all(&self, dead_ids: &mut HashSet<String>, report: &mut Report) -> io::Result<()> {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&self.from)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // What an interrupted write has left is no task.
            if !name.starts_with(".side-task-") {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        // Names begin with the time.
        names.sort_unstable();
        for batch in names.chunks(BATCH) {
            self.batch(batch, dead_ids, report)?;
        }
        RealDisk::existing(&self.from).sync_dir()
    }

    fn batch(&self, names: &[String], dead_ids: &mut HashSet<String>, report: &mut Report) -> io::Result<()> {
        let mut done = Vec::with_capacity(names.len());
        for name in names {
            match self.one(name, dead_ids) {
                Ok(()) => done.push(name),
                Err(why) => leave(report, self.from.join(name).display().to_string(), why),
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        RealDisk::open(&self.to)?;
        for name in done {
            let (from, to) = (self.from.join(name), self.to.join(name));
            match fs::rename(&from, &to) {
                Ok(()) => report.imported += 1,
                Err(e) => {
                    let why = format!(
                        "it is in the store now, but cannot be moved to {to:?}: {e}; move it away, or it is imported again"
                    );
                    leave(report, from.display().to_string(), why);
                }
            }
        }
        RealDisk::existing(&self.to).sync_dir()
    }

    /// Takes one file in, durably.
    fn one(&self, name: &str, dead_ids: &mut HashSet<String>) -> Result<(), String> {
        let path = self.from.join(name);
        let (bytes, written) = read(&path).map_err(|e| format!("it cannot be read: {e}"))?;
        if bytes.is_empty() {
            return Err("it is empty".to_owned());
        }
        let old = parse(&bytes, self.is_dead, written)?;
        // The predecessor may have been stopped between writing the dead letter and removing the task: it was never sent again.
        if !self.is_dead && dead_ids.contains(&old.id) {
            return Ok(());
        }
        let unknown = old.attempts_max.is_some_and(|max| old.attempts >= max);
        let result = if self.is_dead || unknown { self.dead(&old) } else { self.pending(&old) };
        if self.is_dead && result.is_ok() {
            dead_ids.insert(old.id);
        }
        result.map_err(|refused| format!("{refused}; it is imported at the next start"))
    }

    /// The sinks that a task of this group goes to; `GROUP/-` where the configuration has none.
    fn sinks(&self, group: &str) -> Vec<String> {
        let mine = |name: &&Arc<str>| name.rsplit_once('/').is_some_and(|(g, _)| g == group);
        let sinks: Vec<String> = self.inner.sink_names.iter().filter(mine).map(|s| s.to_string()).collect();
        if sinks.is_empty() { vec![format!("{group}/-")] } else { sinks }
    }

    fn body<'b>(&self, old: &'b OldTask, sink: &'b str) -> TaskBody<'b> {
        let settings = &self.inner.settings;
        let now = (self.inner.clock)();
        TaskBody {
            id: new_id(&old.id, sink).bits(),
            order: 0,
            accepted_ns: to_ns(old.written),
            expires_ns: settings.age_max.and_then(|age| now.checked_add(age)).map_or(0, to_ns),
            attempts_max: old.attempts_max.or(settings.attempts_max).unwrap_or(0),
            origin: 0,
            origin_attempts: old.attempts,
            sink,
            group: &old.group,
            source: "import",
            record: &old.record,
        }
    }

    fn pending(&self, old: &OldTask) -> Result<(), Refused> {
        let sinks = self.sinks(&old.group);
        let mut bodies = Vec::with_capacity(sinks.len());
        for sink in &sinks {
            let mut body = self.body(old, sink);
            // What is left of the limit: attempts made before count.
            if body.attempts_max != 0 {
                body.attempts_max = body.attempts_max.saturating_sub(old.attempts).max(1);
            }
            let state = self.inner.state.lock();
            if state.tasks.get(body.id).is_none() && !state.dead.contains(body.id) {
                bodies.push(body);
            }
        }
        if bodies.is_empty() { Ok(()) } else { self.inner.accept_now(&bodies) }
    }

    fn dead(&self, old: &OldTask) -> Result<(), Refused> {
        let reason = if self.is_dead {
            Reason::Imported
        } else if old.error.is_empty() {
            Reason::OutcomeUnknown
        } else {
            Reason::Exhausted
        };
        for sink in self.sinks(&old.group) {
            let body = self.body(old, &sink);
            if self.inner.state.lock().dead.contains(body.id) {
                continue;
            }
            let failure = Failure {
                last_ns: to_ns(old.written),
                reason: Some(reason),
                error: cut(&old.error, ERROR_BYTES_MAX).to_owned(),
                ..Failure::default()
            };
            let history = History { attempts: old.attempts, failure, ..History::default() };
            let task = TaskBody { origin_attempts: 0, expires_ns: 0, ..body };
            self.inner.import_dead(&history, task, reason)?;
        }
        Ok(())
    }
}

impl Inner {
    /// Writes a dead letter that never was a task here. Blocks for the disk.
    fn import_dead(
        self: &Arc<Self>,
        history: &History,
        task: TaskBody<'_>,
        reason: Reason,
    ) -> Result<(), Refused> {
        let dead_ns = to_ns(from_written(history));
        let body = Body::DeadLetter { dead_ns, history: history.clone(), task }.encode();
        let answer = Arc::new(parking_lot::Mutex::new(None));
        let told = Arc::clone(&answer);
        let outcome: Outcome = Box::new(move |_, result| *told.lock() = Some(result));
        let mut state = self.state.lock();
        let bytes = state.dead.usage.taken(body.len() as u64);
        if body.len() > self.body_bytes_max || !state.dead.usage.fits(&self.disk(Log::Dead), bytes, 0) {
            return Err(Refused::Full);
        }
        let at = self.append(Log::Dead, Class::Accept, &[(DEAD_LETTER, body)], outcome)?;
        let sink = state.tasks.destination(task.sink, task.group);
        drop(state);
        self.dead.commit();
        answer.lock().take().unwrap_or(Err(Refused::Broken))?;
        for at in at {
            let entry = DeadEntry {
                id: task.id,
                dead_ns,
                accepted_ns: task.accepted_ns,
                at,
                reason,
                sink,
                settled: true,
            };
            self.state.lock().dead.insert(entry);
        }
        Ok(())
    }
}

fn from_written(history: &History) -> SystemTime {
    super::body::from_ns(history.failure.last_ns)
}

/// The file's bytes and when it was written.
fn read(path: &Path) -> io::Result<(Vec<u8>, SystemTime)> {
    let file = fs::File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    #[allow(clippy::disallowed_methods, reason = "through a limit")]
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok((bytes, meta.modified().unwrap_or(UNIX_EPOCH)))
}

/// What a file says; the errors are for people, and hold nothing of it.
fn parse(bytes: &[u8], is_dead: bool, written: SystemTime) -> Result<OldTask, String> {
    let wrong =
        |e: serde_json::Error| format!("it is not a task file: line {} column {}", e.line(), e.column());
    let (file, reason) = if is_dead {
        let DeadFile { persisted, reason } = serde_json::from_slice(bytes).map_err(wrong)?;
        (persisted, reason)
    } else {
        (serde_json::from_slice::<PendingFile>(bytes).map_err(wrong)?, String::new())
    };
    let attempts = u32::try_from(file.attempts).map_err(|_| "its number of attempts is none")?;
    let attempts_max = match &file.max_attempts {
        None => None,
        Some(value) => {
            let limit = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
            Some(limit.ok_or("its limit of attempts is none")?)
        }
    };
    let record = match file.payload.filter(|p| !p.is_empty()) {
        Some(payload) => base64::engine::general_purpose::STANDARD
            .decode(payload)
            .map_err(|_| "its payload is not base64")?,
        None => file.payload_str.into_bytes(),
    };
    if record.is_empty() {
        return Err("it holds no record".to_owned());
    }
    if file.group_name.len() + 16 > NAME_BYTES_MAX {
        return Err(format!("the name of its group is longer than {NAME_BYTES_MAX} bytes"));
    }
    let id = if file.id.is_empty() { hex(&digest(&[bytes])) } else { file.id };
    let error = if reason.is_empty() { file.last_error } else { reason };
    Ok(OldTask {
        id,
        group: file.group_name,
        attempts,
        attempts_max,
        error: printable(&error),
        record,
        written,
    })
}

fn printable(text: &str) -> String {
    crate::sink::DeliveryError::new(crate::sink::Class::Permanent, text).message().to_owned()
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The id here of the predecessor's task `id` at `sink`: always the same. The predecessor's begin with the time of acceptance
/// (`20060102150405.000000000-N`); where one does not, the id sorts before all others.
fn new_id(id: &str, sink: &str) -> TaskId {
    let digest = digest(&[id.as_bytes(), sink.as_bytes()]);
    let mut random = [0; 16];
    random.copy_from_slice(&digest[..16]);
    TaskId::new(time_in(id).unwrap_or(UNIX_EPOCH), u128::from_le_bytes(random))
}

fn time_in(id: &str) -> Option<SystemTime> {
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", id.get(..14)?).ok()?;
    let seconds = jiff::tz::Offset::UTC.to_timestamp(time).ok()?.as_second();
    let millis: u64 = id.get(15..18).and_then(|ms| ms.parse().ok()).unwrap_or(0);
    UNIX_EPOCH
        .checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))?
        .checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
#[path = "tests/import.rs"]
mod tests;
