//! What happens to a frame: decode, match, write log lines, hand tasks to the sinks, count. Read this first.
//!
//! Everything runs inline on the thread that received the frame, as long as log files take their lines at once. A log file that does
//! not (it hangs, or each append is synced) has a lane (`lanes`): a batch that would have to wait for it goes there, and the
//! thread goes on with the next request; the lane's thread writes the batch and ends it by the same code (`outlets`). A group of
//! threads has one permit fewer than threads to be inside an append (`permits`), so that one of them always goes on, whatever hangs.
//! Nothing here takes a lock that a rotation, another record's file or network I/O, or a slow sink could hold; a task is handed to a
//! bounded queue or dropped with a counted reason.
//!
//! The order is the promise: log lines and quarantine lines are written first; only when all of them are written do
//! tasks go out and is the batch acked. If a write fails, nothing is acked, no task is made, and the sender's next
//! try may write a line that had already been written by the failed one.
//!
//! With a durable store the tasks of a batch go there, all or none, and the batch is acked and counted when they are on the disk:
//! by whichever thread ended the sync. This thread goes on with the next request meanwhile. The store is asked before anything is
//! written whether it takes tasks at all.
//!
//! With `dedupe.window` a record that is *done* - counted here as written, and with tasks as stored - is remembered, and the same one is acked
//! and counted without being written again when it comes once more. One that is under way or was refused is not remembered: what comes
//! meanwhile is handled as new, also within one batch.

mod batch;
mod durable;
mod each;
#[cfg(test)]
mod evidence_tests;
#[cfg(test)]
mod hang_tests;
mod lanes;
mod outcomes;
mod outlets;
mod permits;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::clock;
use crate::evidence::{Evidence, Mark, Sight};
use crate::listener::{BadFrame, Source};
use crate::log_file::{LogTarget, Quarantine};
use crate::metrics::{self, Counter, Registry};
use crate::record::{DecodeScratch, Decoder};
use crate::rule_group::{GroupRule, RuleGroup};
use crate::rules::{EvalScratch, IndexScratch, Rule, RuleIndex};
use crate::side_effect::{Ledger, SinkNumber, Task};
use crate::tail::Taps;
use crate::ticket::Ticket;
use batch::{Flaw, Flow, Refusals};
use durable::{Durable, Room};
use outcomes::{LOG_WRITE, OVERSIZE, Outcomes, TRUNCATED};
use outlets::{Outlets, Written};
use permits::Permits;

/// Per-thread state of the pipeline: buffers that are used again for every frame.
#[derive(Debug, Default)]
pub struct Worker {
    decode: DecodeScratch,
    eval: EvalScratch,
    index: IndexScratch,
    hits: Vec<Hit>,
    bad: Vec<(usize, Flaw)>,
    /// By which frames are to be remembered once they are done.
    marks: Vec<(usize, Mark)>,
    /// Frames of the batch that were sent before and are done. The others are numbered without them.
    duplicates: Vec<usize>,
    /// Empty but while a batch is handed to the store.
    tasks: Vec<(SinkNumber, Task)>,
    /// Something was handed to the store since this thread last saw to a sync.
    unsynced: bool,
    /// Never blocks for a log file.
    by_lanes: bool,
    /// Takes what was taken before.
    again: bool,
}

impl Worker {
    /// Of a thread that must not block for a log file: every line goes by the file's lane.
    pub fn by_lanes() -> Worker {
        Worker { by_lanes: true, ..Worker::default() }
    }

    /// From now on it takes what an operator feeds in on purpose: nothing of that is left out as sent before, and nothing is evidence.
    #[must_use]
    pub fn taking_again(self) -> Worker {
        Worker { again: true, ..self }
    }

    /// Whether something was handed to the store and nobody has seen to the sync yet: [`Pipeline::commit`] or [`Pipeline::nudge`] is due.
    pub fn owes_sync(&self) -> bool {
        self.unsynced
    }

    /// For another pipeline of the same store: fresh buffers, and a sync that is due stays due.
    pub fn renew(&mut self) {
        let Worker { unsynced, by_lanes, again, .. } = *self;
        *self = Worker { unsynced, by_lanes, again, ..Worker::default() };
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
    /// Every line that had to be written is written. If a ticket was asked for, it brings the answer: the batch waits for a log file,
    /// for room in a queue, or for the store.
    Acked,
    /// A line could not be written, or the store takes no tasks: nothing of this batch may be acked.
    Refused,
    /// The tasks are more than the store can take at a time: trying again does not help. Nothing was written.
    TooLarge,
}

/// Threads of the pool that may be inside an append, where nobody says otherwise.
const WRITERS_DEFAULT: usize = 2;
/// Threads that evaluate datagrams and may be inside an append: there are two.
const UDP_WRITERS: usize = 1;

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
    /// `None`: so few rules that all of them are evaluated.
    index: Option<RuleIndex>,
    /// Number of the group that takes what no group matched.
    fallback: Option<usize>,
    received: [Received; 4],
    replayed: Arc<Counter>,
    /// What is looked at in each record that comes.
    evidence: Option<Evidence>,
    out: Arc<Outlets>,
    /// Of the pool's threads, and of those that evaluate datagrams.
    permits: Arc<[Permits; 2]>,
    closed: AtomicBool,
}

/// What the log files have left behind at the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LeftInLogs {
    /// Frames that were not acked; they are counted as refused.
    pub frames: u64,
    /// The log files in whose writes threads still hang.
    pub hanging: Vec<String>,
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
        let targets = outlets::targets(&groups, &quarantine, registry)?;
        let index = index(&groups);
        let replayed = registry.counter(&metrics::RECORDS_REPLAYED, &[]);
        let out = Arc::new(Outlets { groups, targets, outcomes, store: None, taps: None, window: None });
        let permits = Arc::new([WRITERS_DEFAULT, UDP_WRITERS].map(Permits::new));
        Ok(Pipeline {
            decoder,
            index,
            fallback,
            received,
            replayed,
            evidence: None,
            out,
            permits,
            closed: AtomicBool::new(false),
        })
    }

    /// From now on tasks go to `ledger`, which was opened with the sinks of these groups, and a batch with tasks is acked when they are
    /// durable. It takes tasks with records of `batch_bytes_max` bytes at a time. To be called before the first frame.
    #[must_use]
    pub fn storing(mut self, ledger: Arc<dyn Ledger>, batch_bytes_max: usize) -> Self {
        match Arc::get_mut(&mut self.out) {
            Some(out) => {
                out.store = Some(Durable::new(ledger, batch_bytes_max, Arc::clone(&out.outcomes)));
            }
            None => log::error!("the store came after the first frames and is not used"),
        }
        self
    }

    /// So many threads of the pool may be inside an append at once: fewer than it has.
    #[must_use]
    pub fn writing_with(mut self, threads: usize) -> Self {
        self.permits = Arc::new([threads, UDP_WRITERS].map(Permits::new));
        self
    }

    /// The pool has so many threads more, and as many more may be inside an append. That goes for what succeeds this pipeline, too.
    pub fn more_writers(&self, threads: usize) {
        self.permits[0].add(threads);
    }

    /// What the groups match is shown there. To be called before the first frame.
    #[must_use]
    pub fn tapped(mut self, taps: Arc<Taps>) -> Self {
        match Arc::get_mut(&mut self.out) {
            Some(out) => out.taps = Some(taps),
            None => log::error!("who follows came after the first frames and sees nothing"),
        }
        self
    }

    /// Looks for that in each record; its fields are of the plan of the decoder. To be called before the first frame.
    #[must_use]
    pub fn looking_for(mut self, evidence: Option<Evidence>) -> Self {
        match Arc::get_mut(&mut self.out) {
            Some(out) => {
                out.window = evidence.as_ref().and_then(|evidence| evidence.window.clone());
                self.evidence = evidence;
            }
            None => log::error!("the evidence came after the first frames and is not looked for"),
        }
        self
    }

    /// What it looks for in each record.
    pub fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    /// Takes the place of `before` while the same threads run on: the permits are the same, and so are the lanes of the files that both
    /// write to. To be called before the first frame.
    #[must_use]
    pub fn succeeding(mut self, before: &Pipeline) -> Self {
        self.permits = Arc::clone(&before.permits);
        match Arc::get_mut(&mut self.out) {
            Some(out) => out.share_lanes(&before.out),
            None => {
                log::error!("the earlier configuration came after the first frames; its lanes are not shared")
            }
        }
        self
    }

    /// Whether nothing of it waits for a log file.
    pub fn is_idle(&self) -> bool {
        // Each batch in a lane holds the outlets.
        Arc::strong_count(&self.out) == 1
    }

    /// Whether the store takes tasks; `None`: there is none.
    pub fn store_check(&self) -> Option<Box<dyn Fn() -> Result<(), String> + Send + Sync>> {
        self.out.store.as_ref().map(|store| Box::new(store.check()) as _)
    }

    /// The log files, each once, and standard output, where records go there.
    pub fn logs(&self) -> impl Iterator<Item = &LogTarget> + Clone {
        self.lanes().map(|lane| lane.log())
    }

    fn lanes(&self) -> impl Iterator<Item = &Arc<lanes::Lane>> + Clone {
        let targets = &self.out.targets;
        targets.iter().enumerate().filter_map(move |(at, target)| {
            let is_first = !targets[..at].iter().any(|known| Arc::ptr_eq(&*known.lane, &*target.lane));
            is_first.then_some(&*target.lane)
        })
    }

    /// Waits for the lines that wait for log files, until `deadline`, and ends the lanes' threads, also those of the pipelines that this one
    /// has succeeded and that are not gone yet. What is not written by then is refused: nothing of it is acked. Threads that hang in a
    /// write are left behind, half a second after the deadline at the latest. To be called when no frames come any more; the first
    /// call counts.
    pub fn close<'a>(&'a self, earlier: impl Iterator<Item = &'a Pipeline>, deadline: Instant) -> LeftInLogs {
        if self.closed.swap(true, Ordering::AcqRel) {
            return LeftInLogs::default();
        }
        let mut lanes: Vec<&Arc<lanes::Lane>> = Vec::new();
        for lane in self.lanes().chain(earlier.flat_map(Pipeline::lanes)) {
            if !lanes.iter().any(|known| Arc::ptr_eq(known, lane)) {
                lanes.push(lane);
            }
        }
        let left = lanes::close(lanes.iter().copied(), deadline);
        // Those of the threads that were left behind; they will not be counted otherwise.
        let inline: u64 = self.permits.iter().map(Permits::frames).sum();
        let stuck = inline + left.iter().map(|left| left.stuck).sum::<u64>();
        if stuck > 0 {
            self.out.outcomes.count_refused(stuck, LOG_WRITE);
        }
        let waiting: u64 = left.iter().map(|left| left.waiting).sum();
        let hanging = lanes.iter().map(|lane| lane.log()).filter(|log| log.flights().oldest().is_some());
        LeftInLogs { frames: waiting + stuck, hanging: hanging.map(|log| log.label().to_owned()).collect() }
    }

    /// The rule groups in the order of the configuration.
    pub fn groups(&self) -> &[RuleGroup] {
        &self.out.groups
    }

    /// Extracts what the rules read.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The group that takes what no group matched.
    pub fn fallback(&self) -> Option<&RuleGroup> {
        self.fallback.and_then(|number| self.out.groups.get(number))
    }

    /// Takes the frames of one request as a whole. Blocks for no longer than an append of its own, and not for a log file that hangs
    /// already.
    /// `ticket` is asked for when the batch has to wait for a log file, and at most once per task that has to wait for room in a queue;
    /// with a store, for [`Source::Http`] also where there are tasks: nobody waits for the store's answer to a line or a datagram.
    /// The caller then sees to the sync with [`Pipeline::commit`] or [`Pipeline::nudge`] when it holds nothing that others wait for.
    pub fn handle(
        &self,
        source: Source,
        frames: &[&[u8]],
        worker: &mut Worker,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> Verdict {
        self.count_received(source, frames);
        if worker.again {
            self.replayed.add(frames.len() as u64);
        }
        self.evaluate(source, frames, worker);
        let kept: Vec<&[u8]>;
        let frames = if worker.duplicates.is_empty() {
            frames
        } else {
            self.out.outcomes.count_duplicates(worker.duplicates.len());
            kept = without(frames, &worker.duplicates);
            if kept.is_empty() {
                return Verdict::Acked;
            }
            &kept
        };
        let room = match self.out.room_in_store(frames, &worker.hits) {
            Ok(room) => room,
            Err(OVERSIZE) => {
                self.too_large_for_store(source, frames, worker, ticket);
                return Verdict::TooLarge;
            }
            Err(reason) => {
                self.out.outcomes.count_refused(frames.len() as u64, reason);
                return Verdict::Refused;
            }
        };
        self.write_and_finish((source, false), frames, (Refusals::default(), room), worker, ticket)
    }

    /// Writes the frames that were evaluated, here or by lanes, and finishes those that are written.
    fn write_and_finish(
        &self,
        (source, each): (Source, bool),
        frames: &[&[u8]],
        (refusals, room): (Refusals, Option<Room>),
        worker: &mut Worker,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> Verdict {
        let permits = (!worker.by_lanes).then(|| &self.permits[usize::from(source == Source::Udp)]);
        let (hits, bad, marks) = (&mut worker.hits, &mut worker.bad, &mut worker.marks);
        let mut flow = Flow { source, each, frames, hits, bad, marks, refusals, room, gone: 0 };
        match self.out.write(&mut flow, 0, permits, ticket) {
            Written::All => {
                worker.unsynced |= self.out.finish(flow, &mut worker.tasks, ticket);
                Verdict::Acked
            }
            Written::Refused(reason) => {
                self.out.outcomes.count_refused(frames.len() as u64, reason);
                Verdict::Refused
            }
            Written::Gone => Verdict::Acked,
        }
    }

    /// Syncs what this thread has handed to the store, unless another thread is doing so. Blocks for the disk; parked replies go out.
    pub fn commit(&self, worker: &mut Worker) {
        if std::mem::take(&mut worker.unsynced)
            && let Some(store) = &self.out.store
        {
            store.ledger().commit();
        }
    }

    /// Has another thread sync what this one has handed to the store. Does not block.
    pub fn nudge(&self, worker: &mut Worker) {
        if std::mem::take(&mut worker.unsynced)
            && let Some(store) = &self.out.store
        {
            store.ledger().nudge();
        }
    }

    /// Whether `body` is one record, as opposed to several separated by newlines.
    pub fn is_one_record(&self, body: &[u8], worker: &mut Worker) -> bool {
        self.decoder.decode(body, &mut worker.decode).is_ok()
    }

    /// Counts and keeps what is no frame: oversize heads and cut datagrams go to the quarantine log.
    pub fn bad_frame(&self, source: Source, bad: BadFrame<'_>, worker: &mut Worker) {
        let (head, flaw) = match bad {
            BadFrame::Oversize(head) => (head, Flaw::head_only(BadFrame::OVERSIZE)),
            BadFrame::CutDatagram(head) => (head, Flaw::head_only(BadFrame::CUT_DATAGRAM)),
            BadFrame::Truncated(bytes) => {
                self.count_received_one(source, bytes);
                self.out.outcomes.count_refused(1, TRUNCATED);
                return;
            }
        };
        self.count_received_one(source, head.len() as u64);
        self.keep(source, &[head], flaw, worker, &mut || Ticket::new(|_| {}));
    }

    /// The tasks of these frames can never be stored. A request is answered so; lines and datagrams, which nobody can be told of, are kept.
    fn too_large_for_store(
        &self,
        source: Source,
        frames: &[&[u8]],
        worker: &mut Worker,
        ticket: &mut dyn FnMut() -> Ticket,
    ) {
        match source {
            Source::Http => self.out.outcomes.count_refused(frames.len() as u64, OVERSIZE),
            _ => self.keep(source, frames, Flaw::TOO_LARGE_FOR_STORE, worker, ticket),
        }
    }

    /// All of these frames go to quarantine, and nowhere else.
    fn keep(
        &self,
        source: Source,
        frames: &[&[u8]],
        flaw: Flaw,
        worker: &mut Worker,
        ticket: &mut dyn FnMut() -> Ticket,
    ) {
        worker.hits.clear();
        worker.bad.clear();
        worker.marks.clear();
        worker.bad.extend((0..frames.len()).map(|frame| (frame, flaw)));
        self.write_and_finish((source, true), frames, Default::default(), worker, ticket);
    }

    /// Counts the frames of a request that was refused because one of them is too large.
    pub fn refused_oversize(&self, source: Source, frames: usize) {
        let n = frames as u64;
        self.received(source).frames.add(n);
        self.out.outcomes.count_refused(n, OVERSIZE);
    }

    /// What each frame is. Those that were sent before and are done have no number.
    fn evaluate(&self, source: Source, frames: &[&[u8]], worker: &mut Worker) {
        worker.hits.clear();
        worker.bad.clear();
        worker.marks.clear();
        worker.duplicates.clear();
        let evidence = self.evidence.as_ref().filter(|_| !worker.again);
        // One instant for the whole batch; rules that ask for the time see it.
        worker.eval.set_now(jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH));
        for (place, bytes) in frames.iter().enumerate() {
            let frame = place - worker.duplicates.len();
            let record = match self.decoder.decode(bytes, &mut worker.decode) {
                Ok(record) => record,
                Err(error) => {
                    worker.bad.push((frame, Flaw::Undecodable(error)));
                    continue;
                }
            };
            if let Some(evidence) = evidence {
                match evidence.see(source, &record, clock::now) {
                    Sight::Duplicate => {
                        worker.duplicates.push(place);
                        continue;
                    }
                    Sight::New(mark) => worker.marks.push((frame, mark)),
                    Sight::Unknown => {}
                }
            }
            let before = worker.hits.len();
            let candidates = self.index.as_ref().map(|index| index.candidates(&record, &mut worker.index));
            for (group, rules) in self.out.groups.iter().enumerate() {
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
        self.fallback == Some(group) && self.out.groups[group].rules.is_empty()
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

/// Those of `frames` that are not at these places, which are in order.
fn without<'f>(frames: &[&'f [u8]], places: &[usize]) -> Vec<&'f [u8]> {
    let others = frames.iter().enumerate().filter(|(place, _)| places.binary_search(place).is_err());
    others.map(|(_, frame)| *frame).collect()
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
