//! The predecessor's task files: `pending/*.json` and `deadletter/*.json`, one file per task.
//!
//! ```text
//! pending:    {"id", "group_name", "attempts", "max_attempts"?, "last_error"?, "payload" (base64), "payload_str"}
//! deadletter: {"persisted": {as above}, "reason"}
//! ```
//! One such task went to all destinations of its group; here it becomes one task for each sink of the group. The new ids are a function of the old
//! one and the sink's name, so a file that is met again after a crash is not imported twice. Each file is moved to `imported/` once what it
//! became is durable; one that cannot be read stays, and is named.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use parking_lot::{Condvar, Mutex};
use serde::Deserialize;

use super::api::Report;
use super::body::{
    Body, DEAD_LETTER, ERROR_BYTES_MAX, Failure, History, NAME_BYTES_MAX, Reason, TaskBody, cut, to_ns,
};
use super::dead::DeadEntry;
use super::disk::{Disk, RealDisk};
use super::inner::{Inner, Log, Outcome};
use super::journal::Class;
use super::usage::FRAME_BYTES;
use crate::side_effect::{Refused, TaskId};

/// Longest task file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Files between two syncs, and the bytes of their tasks.
const BATCH: usize = 1024;
const BATCH_BYTES: u64 = 2 << 20;
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
        let mut batch = Batch::default();
        // What waits for a sync is in memory: a log takes no more than its segments hold.
        let bytes_max = BATCH_BYTES.min(self.inner.segment_bytes / 2).min(self.inner.dead_segment_bytes / 2);
        for name in names {
            match self.one(name, dead_ids, &mut batch) {
                Ok(file) => batch.files.push(file),
                Err(why) => leave(report, self.from.join(name).display().to_string(), why),
            }
            if batch.bytes >= bytes_max {
                self.settle(std::mem::take(&mut batch), dead_ids, report)?;
            }
        }
        self.settle(batch, dead_ids, report)
    }

    /// Makes a batch durable, and moves the files away that are whole in the store.
    fn settle(&self, batch: Batch, dead_ids: &mut HashSet<String>, report: &mut Report) -> io::Result<()> {
        let (files, failed) = batch.commit(self.inner);
        let mut done = Vec::with_capacity(files.len());
        for file in files {
            match file.ids.iter().find_map(|id| failed.get(id)) {
                Some(refused) => {
                    leave(report, self.from.join(&file.name).display().to_string(), next_start(*refused));
                }
                None => {
                    if self.is_dead {
                        dead_ids.insert(file.old_id);
                    }
                    done.push(file.name);
                }
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        RealDisk::open(&self.to)?;
        for name in done {
            let (from, to) = (self.from.join(&name), self.to.join(&name));
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

    /// Reads one file and hands it to the logs.
    fn one(&self, name: &str, dead_ids: &HashSet<String>, batch: &mut Batch) -> Result<File, String> {
        let path = self.from.join(name);
        let (bytes, written) = read(&path).map_err(|e| format!("it cannot be read: {e}"))?;
        if bytes.is_empty() {
            return Err("it is empty".to_owned());
        }
        let old = parse(&bytes, self.is_dead, written)?;
        // The predecessor may have been stopped between writing the dead letter and removing the task: it was never sent again.
        let ids = if !self.is_dead && dead_ids.contains(&old.id) {
            Vec::new()
        } else {
            let unknown = old.attempts_max.is_some_and(|max| old.attempts >= max);
            let handed =
                if self.is_dead || unknown { self.dead(&old, batch) } else { self.pending(&old, batch) };
            handed.map_err(next_start)?
        };
        Ok(File { name: name.to_owned(), old_id: old.id, ids })
    }

    /// The sinks that a task of this group goes to; `GROUP/-` where the configuration has none.
    fn sinks(&self, group: &str) -> Vec<String> {
        let mine = |name: &&Arc<str>| name.rsplit_once('/').is_some_and(|(g, _)| g == group);
        let sinks: Vec<String> =
            self.inner.sink_names.load().iter().filter(mine).map(|s| s.to_string()).collect();
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

    /// The ids of the tasks that the file became.
    fn pending(&self, old: &OldTask, batch: &mut Batch) -> Result<Vec<u128>, Refused> {
        let sinks = self.sinks(&old.group);
        let (mut ids, mut bodies) = (Vec::with_capacity(sinks.len()), Vec::with_capacity(sinks.len()));
        for sink in &sinks {
            let mut body = self.body(old, sink);
            // What is left of the limit: attempts made before count.
            if body.attempts_max != 0 {
                body.attempts_max = body.attempts_max.saturating_sub(old.attempts).max(1);
            }
            ids.push(body.id);
            if batch.is_new(self.inner, body.id) {
                bodies.push(body);
            }
        }
        if !bodies.is_empty() {
            batch.bytes += bodies.iter().map(|body| body.encoded_len() as u64 + FRAME_BYTES).sum::<u64>();
            let handed = bodies.iter().map(|body| body.id).collect();
            let told = batch.waits_for(handed);
            self.inner.accept(&bodies, Box::new(told));
        }
        Ok(ids)
    }

    /// The ids of the dead letters that the file became.
    fn dead(&self, old: &OldTask, batch: &mut Batch) -> Result<Vec<u128>, Refused> {
        let reason = if self.is_dead {
            Reason::Imported
        } else if old.error.is_empty() {
            Reason::OutcomeUnknown
        } else {
            Reason::Exhausted
        };
        let mut ids = Vec::new();
        for sink in self.sinks(&old.group) {
            let body = self.body(old, &sink);
            ids.push(body.id);
            if !batch.is_new(self.inner, body.id) {
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
            self.inner.import_dead(&history, task, reason, batch)?;
        }
        Ok(ids)
    }
}

/// A file whose tasks were handed to the logs.
struct File {
    name: String,
    old_id: String,
    ids: Vec<u128>,
}

/// What was handed to the logs since the last sync.
#[derive(Default)]
struct Batch {
    files: Vec<File>,
    ids: HashSet<u128>,
    dead: Vec<DeadEntry>,
    bytes: u64,
    dead_bytes: u64,
    unsynced: Arc<(Mutex<Unsynced>, Condvar)>,
}

#[derive(Default)]
struct Unsynced {
    open: usize,
    failed: HashMap<u128, Refused>,
}

impl Batch {
    /// Whether the store does not have this task, in this batch either.
    fn is_new(&mut self, inner: &Inner, id: u128) -> bool {
        let state = inner.state.lock();
        let known = state.tasks.get(id).is_some() || state.dead.contains(id);
        drop(state);
        !known && self.ids.insert(id)
    }

    /// To be called when it is known what became of these.
    fn waits_for(&self, ids: Vec<u128>) -> impl FnOnce(Result<(), Refused>) + Send + use<> {
        self.unsynced.0.lock().open += 1;
        let unsynced = Arc::clone(&self.unsynced);
        move |result| {
            let mut told = unsynced.0.lock();
            told.open -= 1;
            if let Err(refused) = result {
                told.failed.extend(ids.into_iter().map(|id| (id, refused)));
            }
            unsynced.1.notify_all();
        }
    }

    /// Makes it durable. Its files, and which of their tasks are not in the store and why. Blocks for the disk.
    fn commit(self, inner: &Inner) -> (Vec<File>, HashMap<u128, Refused>) {
        inner.pending.commit();
        inner.dead.commit();
        let mut told = self.unsynced.0.lock();
        while told.open > 0 {
            self.unsynced.1.wait(&mut told);
        }
        let failed = std::mem::take(&mut told.failed);
        drop(told);
        let mut state = inner.state.lock();
        for entry in self.dead.into_iter().filter(|entry| !failed.contains_key(&entry.id)) {
            state.dead.insert(entry);
        }
        (self.files, failed)
    }
}

fn next_start(refused: Refused) -> String {
    format!("{refused}; it is imported at the next start")
}

impl Inner {
    /// Appends a dead letter that never was a task here; it is one when `batch` is durable.
    fn import_dead(
        self: &Arc<Self>,
        history: &History,
        task: TaskBody<'_>,
        reason: Reason,
        batch: &mut Batch,
    ) -> Result<(), Refused> {
        let dead_ns = to_ns(from_written(history));
        let body = Body::DeadLetter { dead_ns, history: history.clone(), task }.encode();
        let mut state = self.state.lock();
        let len = body.len() as u64;
        let bytes = state.dead.usage.taken(len);
        let fits = state.dead.usage.fits(&self.disk(Log::Dead), batch.dead_bytes + bytes, 0);
        if body.len() > self.body_bytes_max || !fits {
            return Err(Refused::Full);
        }
        let told = batch.waits_for(vec![task.id]);
        let outcome: Outcome = Box::new(move |_, result| told(result));
        let appended = self.append(Log::Dead, Class::Accept, &[(DEAD_LETTER, body)], outcome);
        let at = appended.inspect_err(|_| batch.unsynced.0.lock().open -= 1)?;
        let sink = state.tasks.destination(task.sink, task.group);
        drop(state);
        batch.bytes += len + FRAME_BYTES;
        batch.dead_bytes += bytes;
        batch.dead.extend(at.into_iter().map(|at| DeadEntry {
            id: task.id,
            dead_ns,
            accepted_ns: task.accepted_ns,
            at,
            reason,
            sink,
            settled: true,
        }));
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
