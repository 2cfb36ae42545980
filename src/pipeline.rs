//! What happens to a frame: decode, match, write log lines, hand tasks to the sinks, count. Read this first.
//!
//! Everything runs inline on the thread that received the frame. Nothing here takes a lock that a rotation, another
//! record's file or network I/O, or a slow sink could hold; a task is handed to a bounded queue or dropped with a counted reason.
//!
//! The order is the promise: log lines and quarantine lines are written first; only when all of them are written do
//! tasks go out and is the batch acked. If a write fails, nothing is acked, no task is made, and the sender's next
//! try may write a line that had already been written by the failed one.
//!
//! With a durable store the tasks of a batch go there, all or none, and the batch is acked and counted when they are on the disk:
//! by whichever thread ended the sync. This thread goes on with the next request meanwhile. The store is asked before anything is
//! written whether it takes tasks at all.

mod durable;
mod each;
mod outcomes;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use crate::clock;
use crate::listener::{BadFrame, Source};
use crate::log_file::{LogFile, LogTarget, Quarantine, Stdout};
use crate::metrics::{self, Counter, Registry};
use crate::record::{DecodeError, DecodeScratch, Decoder};
use crate::rule_group::{GroupRule, RuleGroup};
use crate::rules::{EvalScratch, IndexScratch, Rule, RuleIndex};
use crate::side_effect::{Ledger, SinkNumber, SinkQueue, Task};
use crate::tail::Taps;
use crate::ticket::Ticket;
use durable::{Durable, Room};
use outcomes::{LOG_WRITE, OVERSIZE, Outcomes, TRUNCATED};

/// Per-thread state of the pipeline: buffers that are used again for every frame.
#[derive(Debug, Default)]
pub struct Worker {
    decode: DecodeScratch,
    eval: EvalScratch,
    index: IndexScratch,
    hits: Vec<Hit>,
    bad: Vec<(usize, DecodeError)>,
    /// Empty but while a batch is handed to the store.
    tasks: Vec<(SinkNumber, Task)>,
    /// Something was handed to the store since this thread last saw to a sync.
    unsynced: bool,
}

impl Worker {
    /// For another pipeline of the same store: fresh buffers, and a sync that is due stays due.
    pub fn renew(&mut self) {
        *self = Worker { unsynced: self.unsynced, ..Worker::default() };
    }
}

/// Frame number `frame` of the batch belongs to group number `group`.
#[derive(Debug, Clone, Copy)]
struct Hit {
    frame: usize,
    group: usize,
    /// By the group's rules, not as the fallback.
    by_rules: bool,
}

/// The answer for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every line that had to be written is written. If a ticket was asked for, it brings the answer: the batch waits for room in a
    /// queue, or for the store.
    Acked,
    /// A line could not be written, or the store takes no tasks: nothing of this batch may be acked.
    Refused,
    /// The tasks are more than the store can take at a time: trying again does not help. Nothing was written.
    TooLarge,
}

/// A log file or standard output with the groups that write to it.
#[derive(Debug)]
struct Target {
    log: LogTarget,
    /// By group number; `true`: that group writes here.
    of_group: Vec<bool>,
    /// Takes every record, matched or not (no rule groups at all).
    takes_all: bool,
}

impl Target {
    /// The numbers of the frames that go here, in order.
    fn wanted(&self, frames: usize, hits: &[Hit], bad: &[(usize, DecodeError)]) -> Vec<usize> {
        if self.takes_all {
            let is_bad = |frame: &usize| bad.binary_search_by_key(frame, |(b, _)| *b).is_ok();
            return (0..frames).filter(|frame| !is_bad(frame)).collect();
        }
        let mut wanted: Vec<usize> =
            hits.iter().filter(|hit| self.of_group[hit.group]).map(|hit| hit.frame).collect();
        // Hits are in the order of frames: a frame that two groups put into one file is written once.
        wanted.dedup();
        wanted
    }
}

/// Counters of one listener.
#[derive(Debug)]
struct Received {
    frames: Arc<Counter>,
    bytes: Arc<Counter>,
}

/// The rules and actions of a configuration, ready to take frames. Immutable; shared by all listener threads.
#[derive(Debug)]
pub struct Pipeline {
    decoder: Decoder,
    groups: Vec<RuleGroup>,
    /// `None`: so few rules that all of them are evaluated.
    index: Option<RuleIndex>,
    /// Number of the group that takes what no group matched.
    fallback: Option<usize>,
    targets: Vec<Target>,
    quarantine: Quarantine,
    received: [Received; 4],
    outcomes: Arc<Outcomes>,
    store: Option<Durable>,
    /// Who wants to see what is matched.
    taps: Option<Arc<Taps>>,
}

impl Pipeline {
    /// Puts the parts together. `fallback` is a number in `groups`. Without groups every record goes to standard output.
    ///
    /// # Errors
    /// Records are to go to standard output and there is none.
    pub fn new(
        decoder: Decoder,
        groups: Vec<RuleGroup>,
        fallback: Option<usize>,
        quarantine: Quarantine,
        registry: &Registry,
    ) -> io::Result<Self> {
        let received = [Source::Http, Source::Tcp, Source::Udp, Source::Unix].map(|source| Received {
            frames: registry.counter(&metrics::RECORDS_RECEIVED, &[source.label()]),
            bytes: registry.counter(&metrics::RECEIVED_BYTES, &[source.label()]),
        });
        let outcomes = Arc::new(Outcomes::new(registry, &groups));
        let targets = targets(&groups, registry)?;
        let index = index(&groups);
        Ok(Pipeline {
            decoder,
            groups,
            index,
            fallback,
            targets,
            quarantine,
            received,
            outcomes,
            store: None,
            taps: None,
        })
    }

    /// From now on tasks go to `ledger`, which was opened with the sinks of these groups, and a batch with tasks is acked when they are
    /// durable. It takes tasks with records of `batch_bytes_max` bytes at a time.
    #[must_use]
    pub fn storing(self, ledger: Arc<dyn Ledger>, batch_bytes_max: usize) -> Self {
        let store = Some(Durable::new(ledger, batch_bytes_max, Arc::clone(&self.outcomes)));
        Pipeline { store, ..self }
    }

    /// From now on what the groups match is shown there.
    #[must_use]
    pub fn tapped(self, taps: Arc<Taps>) -> Self {
        Pipeline { taps: Some(taps), ..self }
    }

    /// Whether the store takes tasks; `None`: there is none.
    pub fn store_check(&self) -> Option<Box<dyn Fn() -> Result<(), String> + Send + Sync>> {
        self.store.as_ref().map(|store| Box::new(store.check()) as _)
    }

    /// The rule groups in the order of the configuration.
    pub fn groups(&self) -> &[RuleGroup] {
        &self.groups
    }

    /// Extracts what the rules read.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The group that takes what no group matched.
    pub fn fallback(&self) -> Option<&RuleGroup> {
        self.fallback.and_then(|number| self.groups.get(number))
    }

    /// Takes the frames of one request as a whole. Blocks for no longer than its own file writes.
    /// `ticket` is asked for at most once per task that has to wait for room in a queue; with a store, at most once, and for
    /// [`Source::Http`] only: nobody waits for the answer to a line or a datagram. The caller then sees to the sync
    /// with [`Pipeline::commit`] or [`Pipeline::nudge`] when it holds nothing that others wait for.
    pub fn handle(
        &self,
        source: Source,
        frames: &[&[u8]],
        worker: &mut Worker,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> Verdict {
        self.count_received(source, frames);
        self.evaluate(frames, worker);
        let room = match self.room_in_store(frames, &worker.hits) {
            Ok(room) => room,
            Err(OVERSIZE) => {
                self.too_large_for_store(source, frames);
                return Verdict::TooLarge;
            }
            Err(reason) => {
                self.outcomes.count_refused(frames.len() as u64, reason);
                return Verdict::Refused;
            }
        };
        if !self.write_lines(frames, &worker.hits, &worker.bad)
            || !self.write_quarantine(source, frames, &worker.bad)
        {
            self.outcomes.count_refused(frames.len() as u64, LOG_WRITE);
            return Verdict::Refused;
        }
        match (&self.store, room) {
            (Some(store), Some(room)) => {
                self.store_tasks((store, room), source, frames, frames.len(), worker, ticket);
            }
            _ => {
                self.count_outcomes(frames.len(), worker);
                self.each_task(source, frames, &worker.hits, |sink, task| {
                    sink.submit(task, ticket);
                });
            }
        }
        self.show(source, frames, &worker.hits);
        Verdict::Acked
    }

    /// Syncs what this thread has handed to the store, unless another thread is doing so. Blocks for the disk; parked replies go out.
    pub fn commit(&self, worker: &mut Worker) {
        if std::mem::take(&mut worker.unsynced)
            && let Some(store) = &self.store
        {
            store.ledger().commit();
        }
    }

    /// Has another thread sync what this one has handed to the store. Does not block.
    pub fn nudge(&self, worker: &mut Worker) {
        if std::mem::take(&mut worker.unsynced)
            && let Some(store) = &self.store
        {
            store.ledger().nudge();
        }
    }

    /// Whether `body` is one record, as opposed to several separated by newlines.
    pub fn is_one_record(&self, body: &[u8], worker: &mut Worker) -> bool {
        self.decoder.decode(body, &mut worker.decode).is_ok()
    }

    /// Counts and keeps what is no frame: oversize heads and cut datagrams go to the quarantine log.
    pub fn bad_frame(&self, source: Source, bad: BadFrame<'_>) {
        let (head, reason) = match bad {
            BadFrame::Oversize(head) => (head, BadFrame::OVERSIZE),
            BadFrame::CutDatagram(head) => (head, BadFrame::CUT_DATAGRAM),
            BadFrame::Truncated(bytes) => {
                self.count_received_one(source, bytes);
                self.outcomes.count_refused(1, TRUNCATED);
                return;
            }
        };
        self.count_received_one(source, head.len() as u64);
        let kept = self.quarantine.append(
            source.label(),
            reason,
            "only the first bytes are kept",
            head,
            clock::wall(),
        );
        match kept {
            Ok(()) => self.outcomes.count_quarantined(reason),
            Err(_) => self.outcomes.count_refused(1, LOG_WRITE),
        }
    }

    /// The tasks of these frames can never be stored. A request is answered so; lines and datagrams, which nobody can be told of, are kept.
    fn too_large_for_store(&self, source: Source, frames: &[&[u8]]) {
        if source == Source::Http {
            return self.outcomes.count_refused(frames.len() as u64, OVERSIZE);
        }
        let detail = "its side effects are larger than the durable store can take at a time";
        for frame in frames {
            let now = clock::wall();
            match self.quarantine.append(source.label(), BadFrame::OVERSIZE, detail, frame, now) {
                Ok(()) => self.outcomes.count_quarantined(BadFrame::OVERSIZE),
                Err(_) => self.outcomes.count_refused(1, LOG_WRITE),
            }
        }
    }

    /// Counts the frames of a request that was refused because one of them is too large.
    pub fn refused_oversize(&self, source: Source, frames: usize) {
        let n = frames as u64;
        self.received(source).frames.add(n);
        self.outcomes.count_refused(n, OVERSIZE);
    }

    fn evaluate(&self, frames: &[&[u8]], worker: &mut Worker) {
        worker.hits.clear();
        worker.bad.clear();
        // One instant for the whole batch; rules that ask for the time see it.
        worker.eval.set_now(jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH));
        for (frame, bytes) in frames.iter().enumerate() {
            let record = match self.decoder.decode(bytes, &mut worker.decode) {
                Ok(record) => record,
                Err(error) => {
                    worker.bad.push((frame, error));
                    continue;
                }
            };
            let before = worker.hits.len();
            let candidates = self.index.as_ref().map(|index| index.candidates(&record, &mut worker.index));
            for (group, rules) in self.groups.iter().enumerate() {
                if self.is_pure_fallback(group) {
                    continue;
                }
                let matched = match &candidates {
                    Some(candidates) if !rules.rules.is_empty() => {
                        rules.first_match(candidates.of_group(group), &record, &mut worker.eval).is_some()
                    }
                    _ => rules.matches(&record, &mut worker.eval),
                };
                if matched {
                    worker.hits.push(Hit { frame, group, by_rules: true });
                }
            }
            if worker.hits.len() == before
                && let Some(group) = self.fallback
            {
                worker.hits.push(Hit { frame, group, by_rules: false });
            }
        }
    }

    /// A fallback group without rules takes only what nobody else took; as an ordinary group it would take everything.
    fn is_pure_fallback(&self, group: usize) -> bool {
        self.fallback == Some(group) && self.groups[group].rules.is_empty()
    }

    /// Appends the frames to every log file that takes them; false when one could not be written (the log file has
    /// counted it and said why).
    fn write_lines(&self, frames: &[&[u8]], hits: &[Hit], bad: &[(usize, DecodeError)]) -> bool {
        self.targets.iter().all(|target| {
            if let [frame] = frames {
                let wanted = if target.takes_all {
                    bad.is_empty()
                } else {
                    hits.iter().any(|h| target.of_group[h.group])
                };
                return !wanted || target.log.append(&[frame]).is_ok();
            }
            let lines: Vec<&[u8]> =
                target.wanted(frames.len(), hits, bad).into_iter().map(|n| frames[n]).collect();
            lines.is_empty() || target.log.append(&lines).is_ok()
        })
    }

    fn write_quarantine(&self, source: Source, frames: &[&[u8]], bad: &[(usize, DecodeError)]) -> bool {
        bad.iter().all(|(frame, error)| self.keep_bad(source, frames[*frame], error))
    }

    /// Writes a frame that is no record to the quarantine log; false when that failed (the log has counted it and said why).
    fn keep_bad(&self, source: Source, frame: &[u8], error: &DecodeError) -> bool {
        let detail = error.to_string();
        self.quarantine.append(source.label(), error.reason(), &detail, frame, clock::wall()).is_ok()
    }

    fn count_outcomes(&self, frames: usize, worker: &Worker) {
        let groups = worker.hits.iter().map(|hit| hit.group);
        let reasons = worker.bad.iter().map(|(_, error)| error.reason());
        self.outcomes.count(frames as u64, matched(&worker.hits), groups, reasons);
    }

    /// Room in the store for the tasks of these hits, if there are any, else the reason of the refusal.
    fn room_in_store(&self, frames: &[&[u8]], hits: &[Hit]) -> Result<Option<Room>, usize> {
        let Some(store) = &self.store else { return Ok(None) };
        let (bytes, tasks) = self.size_of_tasks(frames, hits);
        if tasks == 0 { Ok(None) } else { store.room(bytes, tasks).map(Some) }
    }

    /// Bytes of the records of these hits, once for each task, and how many tasks that are.
    fn size_of_tasks(&self, frames: &[&[u8]], hits: &[Hit]) -> (usize, usize) {
        hits.iter().fold((0, 0), |(bytes, tasks), hit| {
            let sinks = self.groups[hit.group].sinks.len();
            (bytes + frames[hit.frame].len() * sinks, tasks + sinks)
        })
    }

    /// Hands all tasks of the batch to the store. The rest happens when they are durable, or refused.
    /// `left` frames have not been refused.
    fn store_tasks(
        &self,
        (store, room): (&Durable, Room),
        source: Source,
        frames: &[&[u8]],
        left: usize,
        worker: &mut Worker,
        ticket: &mut dyn FnMut() -> Ticket,
    ) {
        let mut tasks = std::mem::take(&mut worker.tasks);
        self.each_task(source, frames, &worker.hits, |sink, task| tasks.push(sink.to_store(task)));
        let tally = self.tally_to_store(source, left, worker);
        let ticket = (source == Source::Http).then(ticket);
        store.accept(&tasks, room, tally, ticket);
        tasks.clear();
        worker.tasks = tasks;
        worker.unsynced = true;
    }

    /// Makes the tasks of these hits, one after the other.
    fn each_task(
        &self,
        source: Source,
        frames: &[&[u8]],
        hits: &[Hit],
        mut take: impl FnMut(&SinkQueue, Task),
    ) {
        let mut accepted_at: Option<SystemTime> = None;
        let mut shared: Option<(usize, Arc<[u8]>)> = None;
        for hit in hits {
            let group = &self.groups[hit.group];
            for sink in &group.sinks {
                let record = match &shared {
                    Some((frame, record)) if *frame == hit.frame => Arc::clone(record),
                    _ => {
                        let record: Arc<[u8]> = Arc::from(frames[hit.frame].trim_ascii());
                        shared = Some((hit.frame, Arc::clone(&record)));
                        record
                    }
                };
                let accepted_at = *accepted_at.get_or_insert_with(clock::wall);
                take(sink, Task::new(Arc::clone(&group.name), record, source.label(), accepted_at));
            }
        }
    }

    /// Shows the hits of frames that were written to whoever follows.
    #[inline]
    fn show(&self, source: Source, frames: &[&[u8]], hits: &[Hit]) {
        if let Some(taps) = self.taps.as_ref().filter(|taps| taps.is_open()) {
            let now = clock::wall();
            for hit in hits {
                taps.show(&self.groups[hit.group].name, source.label(), now, frames[hit.frame]);
            }
        }
    }

    fn received(&self, source: Source) -> &Received {
        match source {
            Source::Http | Source::Admin => &self.received[0],
            Source::Tcp => &self.received[1],
            Source::Udp => &self.received[2],
            Source::Unix => &self.received[3],
        }
    }

    fn count_received(&self, source: Source, frames: &[&[u8]]) {
        let counters = self.received(source);
        counters.frames.add(frames.len() as u64);
        counters.bytes.add(frames.iter().map(|f| f.len() as u64).sum());
    }

    fn count_received_one(&self, source: Source, bytes: u64) {
        let counters = self.received(source);
        counters.frames.inc();
        counters.bytes.add(bytes);
    }
}

/// How many frames the rules of some group have matched. The hits of one frame stand together.
fn matched(hits: &[Hit]) -> u64 {
    let mut matched = 0;
    let mut last = None;
    for hit in hits.iter().filter(|hit| hit.by_rules) {
        if last != Some(hit.frame) {
            matched += 1;
            last = Some(hit.frame);
        }
    }
    matched
}

/// An index over the rules of all groups, unless they are few.
fn index(groups: &[RuleGroup]) -> Option<RuleIndex> {
    let rules: Vec<Vec<&Rule>> =
        groups.iter().map(|group| group.rules.iter().map(GroupRule::rule).collect()).collect();
    RuleIndex::unless_few(&rules)
}

/// The distinct files of the groups, each with who writes to it.
fn targets(groups: &[RuleGroup], registry: &Registry) -> io::Result<Vec<Target>> {
    if groups.is_empty() {
        let stdout = LogTarget::Stdout(Arc::new(Stdout::new(registry)?));
        return Ok(vec![Target { log: stdout, of_group: Vec::new(), takes_all: true }]);
    }
    let mut targets: Vec<(Arc<LogFile>, Vec<bool>)> = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        let Some(file) = &group.log_file else { continue };
        let at = targets.iter().position(|(known, _)| Arc::ptr_eq(known, file)).unwrap_or_else(|| {
            targets.push((Arc::clone(file), vec![false; groups.len()]));
            targets.len() - 1
        });
        targets[at].1[number] = true;
    }
    let target = |(file, of_group)| Target { log: LogTarget::File(file), of_group, takes_all: false };
    Ok(targets.into_iter().map(target).collect())
}
