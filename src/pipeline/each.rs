//! Frames for whose answer nobody waits: the lines of a stream, datagrams. They are evaluated and written together, but each of them
//! ends for itself: what one group's full disk or the store refuses costs the frames that wanted to go there, and no others.

use std::collections::BTreeMap;

use super::outcomes::{LOG_WRITE, OVERSIZE, Tally};
use super::{Hit, Pipeline, Worker, matched};
use crate::listener::Source;
use crate::ticket::Ticket;

/// Frames that are not to be counted on, with the number of the reason. Empty but on bad days.
#[derive(Debug, Default)]
struct Refusals(BTreeMap<usize, usize>);

impl Refusals {
    /// The first reason counts.
    fn add(&mut self, frame: usize, reason: usize) {
        self.0.entry(frame).or_insert(reason);
    }

    /// Frames whose tasks the store does not take are refused before anything is written.
    fn refuse_tasks(&mut self, pipeline: &Pipeline, worker: &mut Worker, reason: usize) {
        for hit in worker.hits.iter().filter(|hit| pipeline.has_tasks(hit)) {
            self.add(hit.frame, reason);
        }
        self.strike(worker);
    }

    /// What is refused has no hits, and is not in quarantine.
    fn strike(&self, worker: &mut Worker) {
        if !self.0.is_empty() {
            worker.hits.retain(|hit| !self.0.contains_key(&hit.frame));
            worker.bad.retain(|(frame, _)| !self.0.contains_key(frame));
        }
    }
}

impl Pipeline {
    /// Takes the lines or datagrams of one read. Blocks for no longer than its own file writes. `ticket` is asked for at most once
    /// per task that has to wait for room in a queue; not with a store. The caller then sees to the sync as after
    /// [`Pipeline::handle`].
    pub fn handle_each(
        &self,
        source: Source,
        frames: &[&[u8]],
        worker: &mut Worker,
        ticket: &mut dyn FnMut() -> Ticket,
    ) {
        let trimmed: Vec<&[u8]> = frames.iter().map(|frame| frame.trim_ascii()).collect();
        let frames = trimmed.as_slice();
        if let [_] = frames {
            let _ = self.handle(source, frames, worker, ticket);
            return;
        }
        self.evaluate(frames, worker);
        let mut refusals = Refusals::default();
        let room = match self.room_in_store(frames, &worker.hits) {
            // One by one they may fit.
            Err(OVERSIZE) => {
                for frame in frames {
                    let _ = self.handle(source, &[frame], worker, ticket);
                }
                return;
            }
            Err(reason) => {
                refusals.refuse_tasks(self, worker, reason);
                None
            }
            Ok(room) => room,
        };
        self.count_received(source, frames);
        self.write_each(source, frames, worker, &mut refusals);
        refusals.strike(worker);
        for reason in refusals.0.values() {
            self.outcomes.count_refused(1, *reason);
        }
        let left = frames.len() - refusals.0.len();
        match (&self.store, room) {
            (Some(store), Some(room)) if worker.hits.iter().any(|hit| self.has_tasks(hit)) => {
                self.store_tasks((store, room), source, frames, left, worker, ticket);
            }
            _ => {
                self.count_outcomes(left, worker);
                self.each_task(source, frames, &worker.hits, |sink, task| {
                    sink.submit(task, ticket);
                });
            }
        }
        self.show(source, frames, &worker.hits);
    }

    fn has_tasks(&self, hit: &Hit) -> bool {
        !self.groups[hit.group].sinks.is_empty()
    }

    /// Writes what each log file takes with one append, and what is to be quarantined.
    fn write_each(&self, source: Source, frames: &[&[u8]], worker: &Worker, refusals: &mut Refusals) {
        for target in &self.targets {
            let wanted = target.wanted(frames.len(), &worker.hits, &worker.bad);
            let lines: Vec<&[u8]> = wanted.iter().map(|frame| frames[*frame]).collect();
            if !lines.is_empty() && target.log.append(&lines).is_err() {
                wanted.iter().for_each(|frame| refusals.add(*frame, LOG_WRITE));
            }
        }
        for (frame, error) in &worker.bad {
            if !self.keep_bad(source, frames[*frame], error) {
                refusals.add(*frame, LOG_WRITE);
            }
        }
    }

    /// What is to be counted once the tasks of the batch are durable, or refused. Of a request that is all of it; of frames that end each
    /// for itself it is those with tasks, and the others are counted now.
    pub(super) fn tally_to_store(&self, source: Source, frames: usize, worker: &Worker) -> Tally {
        let quarantined = worker.bad.iter().map(|(_, error)| error.reason()).collect();
        if source == Source::Http {
            let groups = worker.hits.iter().map(|hit| hit.group).collect();
            return Tally { frames: frames as u64, matched: matched(&worker.hits), groups, quarantined };
        }
        let mut stored = Tally::default();
        let mut others = Tally { quarantined, ..Tally::default() };
        for hits in worker.hits.chunk_by(|a, b| a.frame == b.frame) {
            let with_tasks = hits.iter().any(|hit| self.has_tasks(hit));
            let tally = if with_tasks { &mut stored } else { &mut others };
            tally.frames += 1;
            tally.matched += matched(hits);
            tally.groups.extend(hits.iter().map(|hit| hit.group));
        }
        others.frames = frames as u64 - stored.frames;
        self.outcomes.count_tally(&others);
        stored
    }
}
