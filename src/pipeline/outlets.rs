//! Where evaluated frames go: log files, the quarantine log, the store, the sinks. One piece of code writes a batch from some
//! target on and finishes it, for the thread that received it and for the lanes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::batch::{self, Batch, Flaw, Flow, cost};
use super::durable::{Durable, Room};
use super::lanes::{Handed, Hold, Lane};
use super::outcomes::{LOG_BUSY, LOG_WRITE, Outcomes, Tally};
use super::permits::{Permit, Permits};
use super::{Hit, matched};
use crate::clock;
use crate::evidence::{Mark, Window};
use crate::listener::Source;
use crate::log_file::{LogFile, LogTarget, Quarantine, Stdout};
use crate::metrics::Registry;
use crate::rule_group::RuleGroup;
use crate::side_effect::{SinkNumber, SinkQueue, Task};
use crate::tail::Taps;
use crate::ticket::Ticket;

/// While an append to a file has been in progress for longer, no further thread writes to it: what comes waits in its lane.
const SLOW: Duration = Duration::from_millis(50);

/// Which frames a log takes.
#[derive(Debug)]
enum Takes {
    /// Those of groups; by group number.
    Groups(Vec<bool>),
    /// Every record, matched or not (no rule groups at all).
    Records,
    /// What is to be quarantined.
    Bad,
}

/// A log file or standard output, with who writes to it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) log: LogTarget,
    takes: Takes,
    pub(super) lane: Hold,
}

/// How far the thread got with a batch.
pub(super) enum Written {
    /// Every line is written, but for the frames in [`Flow::refusals`].
    All,
    /// The number of the reason: nothing of the batch may be acked.
    Refused(usize),
    /// All of it waits in lanes, which finish it.
    Gone,
}

/// Immutable; shared by all listener threads and by the batches that wait in lanes.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) groups: Vec<RuleGroup>,
    /// The quarantine log is the last one.
    pub(super) targets: Vec<Target>,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) store: Option<Durable>,
    /// Who wants to see what is matched.
    pub(super) taps: Option<Arc<Taps>>,
    /// Remembers what is done.
    pub(super) window: Option<Arc<Window>>,
}

impl Target {
    fn takes_one(&self, flow: &Flow<'_>) -> bool {
        match &self.takes {
            Takes::Groups(of_group) => flow.hits.iter().any(|hit| of_group[hit.group]),
            Takes::Records => flow.bad.is_empty(),
            Takes::Bad => !flow.bad.is_empty(),
        }
    }

    /// The numbers of the frames that go here, in order.
    pub(super) fn wanted(&self, frames: usize, hits: &[Hit], bad: &[(usize, Flaw)]) -> Vec<usize> {
        let mut wanted: Vec<usize> = match &self.takes {
            Takes::Groups(of_group) => {
                hits.iter().filter(|hit| of_group[hit.group]).map(|hit| hit.frame).collect()
            }
            Takes::Records => {
                let is_bad = |frame: &usize| bad.binary_search_by_key(frame, |(bad, _)| *bad).is_ok();
                (0..frames).filter(|frame| !is_bad(frame)).collect()
            }
            Takes::Bad => bad.iter().map(|(frame, _)| *frame).collect(),
        };
        // Hits are in the order of frames: a frame that two groups put into one file is written once.
        wanted.dedup();
        wanted
    }

    /// The lines of those frames, where they are not the frames themselves.
    pub(super) fn entries(
        &self,
        source: Source,
        frames: &[&[u8]],
        bad: &[(usize, Flaw)],
    ) -> Option<Vec<Vec<u8>>> {
        let entry = |(frame, flaw): &(usize, Flaw)| {
            let (reason, detail) = (flaw.reason(), flaw.detail());
            Quarantine::entry(source.label(), reason, &detail, frames[*frame], clock::wall())
        };
        matches!(self.takes, Takes::Bad).then(|| bad.iter().map(entry).collect())
    }

    fn append(&self, flow: &Flow<'_>, wanted: &[usize]) -> io::Result<()> {
        if let Some(entries) = self.entries(flow.source, flow.frames, flow.bad) {
            return self.log.append(&entries.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        if let [frame] = flow.frames {
            return self.log.append(&[frame]);
        }
        self.log.append(&wanted.iter().map(|n| flow.frames[*n]).collect::<Vec<_>>())
    }

    /// The right to write here on this thread, unless somebody waits already, the file is slow or always synced, or all permits are
    /// taken.
    fn permit<'a>(&self, permits: Option<&'a Permits>, frames: usize) -> Option<Permit<'a>> {
        let permits = permits?;
        let may = self.lane.takes_turns_inline() && self.log.flights().oldest().is_none_or(|age| age < SLOW);
        if may { permits.take(frames) } else { None }
    }
}

impl Outlets {
    /// Writes the batch to its targets from number `from` on, here where that is allowed (`permits`), else it is handed to the lane of
    /// the target. `ticket` is asked for once for each batch that is handed over.
    pub(super) fn write(
        self: &Arc<Self>,
        flow: &mut Flow<'_>,
        from: usize,
        permits: Option<&Permits>,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> Written {
        for (number, target) in self.targets.iter().enumerate().skip(from) {
            let many;
            let wanted: &[usize] = match flow.frames {
                [_] if target.takes_one(flow) => &[0],
                [_] => &[],
                _ => {
                    many = target.wanted(flow.frames.len(), flow.hits, flow.bad);
                    &many
                }
            };
            if wanted.is_empty() {
                continue;
            }
            let refused = match target.permit(permits, flow.frames.len() - flow.gone) {
                Some(_permit) => target.append(flow, wanted).is_err().then_some(LOG_WRITE),
                None if self.hand_over(flow, number, wanted, ticket) => None,
                None => Some(LOG_BUSY),
            };
            match refused {
                None if flow.gone == flow.frames.len() => return Written::Gone,
                None => {}
                Some(reason) if flow.each => {
                    wanted.iter().for_each(|frame| flow.refusals.add(*frame, reason));
                }
                Some(reason) => return Written::Refused(reason),
            }
        }
        Written::All
    }

    /// Hands those frames (of a request: all of them) to the lane of target `number`. False: it is full.
    fn hand_over(
        self: &Arc<Self>,
        flow: &mut Flow<'_>,
        number: usize,
        wanted: &[usize],
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> bool {
        let all: Vec<usize>;
        let numbers = if flow.each {
            wanted
        } else {
            all = (0..flow.frames.len()).collect();
            &all
        };
        let lane = &self.targets[number].lane;
        let Some(place) = lane.reserve(cost(flow.frames, numbers)) else { return false };
        let of_these = flow.hits.iter().filter(|hit| numbers.binary_search(&hit.frame).is_ok());
        let (room_bytes, _) = self.size_of_tasks(flow.frames, of_these);
        let batch = flow.split(numbers, room_bytes);
        let frames = numbers.len() as u64;
        let promise = Promise { outcomes: Arc::clone(&self.outcomes), frames, ticket: Some(ticket()) };
        place.put(Handed { out: Arc::clone(self), batch, promise, number });
        true
    }

    /// A lane has written the batch to target `written`, or failed to: it goes on from there. True: something was handed to the store.
    pub(super) fn go_on(
        self: &Arc<Self>,
        batch: Batch,
        promise: Promise,
        written: usize,
        failed: bool,
    ) -> bool {
        let Batch { source, each, bytes, ends, mut hits, mut bad, mut marks, refusals, room } = batch;
        let frames = batch::frames(&bytes, &ends);
        let (hits, bad, marks) = (&mut hits, &mut bad, &mut marks);
        let mut flow = Flow { source, each, frames: &frames, hits, bad, marks, refusals, room, gone: 0 };
        if failed && !each {
            promise.refuse(LOG_WRITE);
            return false;
        }
        if failed {
            for frame in self.targets[written].wanted(frames.len(), flow.hits, flow.bad) {
                flow.refusals.add(frame, LOG_WRITE);
            }
        }
        let mut ticket = || promise.ticket();
        match self.write(&mut flow, written + 1, None, &mut ticket) {
            Written::All => {
                let stored = self.finish(flow, &mut Vec::new(), &mut ticket);
                promise.keep();
                stored
            }
            Written::Refused(reason) => {
                promise.refuse(reason);
                false
            }
            Written::Gone => {
                promise.keep();
                false
            }
        }
    }

    /// All lines are written: the tasks go out, and what has not been refused is counted. `tasks` is empty before and after.
    /// True: something was handed to the store; somebody has to see to the sync.
    pub(super) fn finish(
        &self,
        flow: Flow<'_>,
        tasks: &mut Vec<(SinkNumber, Task)>,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> bool {
        let Flow { source, frames, hits, bad, marks, refusals, room, gone, .. } = flow;
        refusals.strike(hits, bad, marks);
        for reason in refusals.0.values() {
            self.outcomes.count_refused(1, *reason);
        }
        let left = frames.len() - gone - refusals.0.len();
        self.show(source, frames, hits);
        match (&self.store, room) {
            (Some(store), Some(room)) if hits.iter().any(|hit| self.has_tasks(hit)) => {
                self.each_task(source, frames, hits, |sink, task| tasks.push(sink.to_store(task)));
                let tally = self.tally_to_store(source, left, hits, bad, marks);
                let ticket = (source == Source::Http).then(ticket);
                store.accept(tasks, room, tally, ticket);
                tasks.clear();
                true
            }
            _ => {
                let groups = hits.iter().map(|hit| hit.group);
                let reasons = bad.iter().map(|(_, flaw)| flaw.reason());
                self.outcomes.count(left as u64, matched(hits), groups, reasons);
                self.each_task(source, frames, hits, |sink, task| {
                    sink.submit(task, ticket);
                });
                // Last: what ends before here is new when it comes again.
                self.remember(marks);
                false
            }
        }
    }

    /// These frames are done.
    fn remember(&self, marks: &[(usize, Mark)]) {
        if let Some(window) = self.window.as_ref().filter(|_| !marks.is_empty()) {
            window.remember(marks.iter().map(|(_, mark)| *mark));
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

    /// The lanes of the files that `before` writes to as well are the same from now on.
    pub(super) fn share_lanes(&mut self, before: &Outlets) {
        for target in &mut self.targets {
            if let Some(known) = before.targets.iter().find(|known| known.log.is_same(&target.log)) {
                target.lane = known.lane.clone();
            }
        }
    }

    pub(super) fn has_tasks(&self, hit: &Hit) -> bool {
        !self.groups[hit.group].sinks.is_empty()
    }

    /// Room in the store for the tasks of these hits, if there are any, else the reason of the refusal.
    pub(super) fn room_in_store(&self, frames: &[&[u8]], hits: &[Hit]) -> Result<Option<Room>, usize> {
        let Some(store) = &self.store else { return Ok(None) };
        let (bytes, tasks) = self.size_of_tasks(frames, hits.iter());
        if tasks == 0 { Ok(None) } else { store.room(bytes, tasks).map(Some) }
    }

    /// Bytes of the records of these hits, once for each task, and how many tasks that are.
    fn size_of_tasks<'a>(&self, frames: &[&[u8]], hits: impl Iterator<Item = &'a Hit>) -> (usize, usize) {
        hits.fold((0, 0), |(bytes, tasks), hit| {
            let sinks = self.groups[hit.group].sinks.len();
            (bytes + frames[hit.frame].len() * sinks, tasks + sinks)
        })
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

    /// What is to be counted once the tasks of the batch are durable, or refused. Of a request that is all of it; of frames that end each
    /// for itself it is those with tasks, and the others are counted now.
    fn tally_to_store(
        &self,
        source: Source,
        frames: usize,
        hits: &[Hit],
        bad: &[(usize, Flaw)],
        marks: &[(usize, Mark)],
    ) -> Tally {
        let quarantined = bad.iter().map(|(_, flaw)| flaw.reason()).collect();
        if source == Source::Http {
            let groups = hits.iter().map(|hit| hit.group).collect();
            let done = marks.iter().map(|(_, mark)| *mark).collect();
            let (frames, window) = (frames as u64, self.window.clone());
            return Tally { frames, matched: matched(hits), groups, quarantined, done, window };
        }
        let mut stored = Tally { window: self.window.clone(), ..Tally::default() };
        let mut others = Tally { quarantined, window: self.window.clone(), ..Tally::default() };
        // In order, as hits are.
        let mut with_tasks_frames: Vec<usize> = Vec::new();
        for hits in hits.chunk_by(|a, b| a.frame == b.frame) {
            let with_tasks = hits.iter().any(|hit| self.has_tasks(hit));
            let tally = if with_tasks {
                with_tasks_frames.extend(hits.first().map(|hit| hit.frame));
                &mut stored
            } else {
                &mut others
            };
            tally.frames += 1;
            tally.matched += matched(hits);
            tally.groups.extend(hits.iter().map(|hit| hit.group));
        }
        for (frame, mark) in marks {
            let is_stored = with_tasks_frames.binary_search(frame).is_ok();
            if is_stored { stored.done.push(*mark) } else { others.done.push(*mark) }
        }
        others.frames = frames as u64 - stored.frames;
        self.outcomes.count_tally(&others);
        stored
    }
}

/// The answer that a batch in a lane still owes. However it goes away, the batch is counted and answered, and never acked by accident.
#[derive(Debug)]
pub(super) struct Promise {
    outcomes: Arc<Outcomes>,
    frames: u64,
    /// `None`: kept.
    ticket: Option<Ticket>,
}

impl Promise {
    fn ticket(&self) -> Ticket {
        self.ticket.clone().unwrap_or_else(|| Ticket::new(|_| {}))
    }

    /// The batch has been counted, or goes on elsewhere.
    fn keep(mut self) {
        self.ticket = None;
    }

    /// Nothing of the batch is acked; `reason` as in [`Outcomes::count_refused`].
    fn refuse(mut self, reason: usize) {
        if let Some(ticket) = self.ticket.take() {
            self.outcomes.count_refused(self.frames, reason);
            ticket.refuse();
        }
    }

    /// It has been counted as refused already.
    pub(super) fn give_up(mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.refuse();
        }
    }

    /// How many frames it is for.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.outcomes.count_refused(self.frames, LOG_WRITE);
            ticket.refuse();
        }
    }
}

/// The distinct files of the groups, each with who writes to it, and the quarantine log.
pub(super) fn targets(
    groups: &[RuleGroup],
    quarantine: &Quarantine,
    registry: &Registry,
) -> io::Result<Vec<Target>> {
    let mut takers: Vec<(LogTarget, Takes)> = Vec::new();
    if groups.is_empty() {
        takers.push((LogTarget::Stdout(Arc::new(Stdout::new(registry)?)), Takes::Records));
    }
    let mut files: Vec<(Arc<LogFile>, Vec<bool>)> = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        let Some(file) = &group.log_file else { continue };
        let at = files.iter().position(|(known, _)| Arc::ptr_eq(known, file)).unwrap_or_else(|| {
            files.push((Arc::clone(file), vec![false; groups.len()]));
            files.len() - 1
        });
        files[at].1[number] = true;
    }
    takers.extend(files.into_iter().map(|(file, of)| (LogTarget::File(file), Takes::Groups(of))));
    takers.push((LogTarget::File(Arc::clone(quarantine.file())), Takes::Bad));
    let mut targets: Vec<Target> = Vec::new();
    for (log, takes) in takers {
        // The quarantine log may be the file of a group.
        let known = targets.iter().find(|known| known.log.is_same(&log)).map(|known| known.lane.clone());
        let lane = known.unwrap_or_else(|| Hold::new(Lane::new(log.clone(), targets.len())));
        targets.push(Target { log, takes, lane });
    }
    Ok(targets)
}
