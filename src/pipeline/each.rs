//! Frames for whose answer nobody waits: the lines of a stream, datagrams. They are evaluated and written together, but each of them
//! ends for itself: what one group's full disk or the store refuses costs the frames that wanted to go there, and no others.

use super::batch::Refusals;
use super::outcomes::OVERSIZE;
use super::{Pipeline, Worker, without};
use crate::listener::Source;
use crate::ticket::Ticket;

impl Pipeline {
    /// Takes the lines or datagrams of one read. Blocks as [`Pipeline::handle`] does. `ticket` is asked for when frames have to wait for a
    /// log file, once for each file, and at most once per task that has to wait for room in a queue. The caller then sees to the sync
    /// as after [`Pipeline::handle`].
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
        self.evaluate(source, frames, worker);
        let kept: Vec<&[u8]>;
        let left = if worker.duplicates.is_empty() {
            frames
        } else {
            kept = without(frames, &worker.duplicates);
            &kept
        };
        let mut refusals = Refusals::default();
        let room = match self.out.room_in_store(left, &worker.hits) {
            // One by one they may fit.
            Err(OVERSIZE) => {
                for frame in frames {
                    let _ = self.handle(source, &[frame], worker, ticket);
                }
                return;
            }
            // Frames whose tasks the store does not take are refused before anything is written.
            Err(reason) => {
                for hit in worker.hits.iter().filter(|hit| self.out.has_tasks(hit)) {
                    refusals.add(hit.frame, reason);
                }
                refusals.strike(&mut worker.hits, &mut worker.bad, &mut worker.marks);
                None
            }
            Ok(room) => room,
        };
        self.count_received(source, frames);
        self.out.outcomes.count_duplicates(worker.duplicates.len());
        if !left.is_empty() {
            self.write_and_finish((source, true), left, (refusals, room), worker, ticket);
        }
    }
}
