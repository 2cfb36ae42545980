//! A batch on its way through the log files: borrowed while the thread that received it writes, owned while it waits in a lane.

use std::collections::BTreeMap;

use super::Hit;
use super::durable::Room;
use crate::evidence::Mark;
use crate::listener::{BadFrame, Source};
use crate::record::DecodeError;

/// Why a frame goes to the quarantine log.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flaw {
    /// It is no record.
    Undecodable(DecodeError),
    /// Something else is wrong with it: the reason, and what there is to say.
    Other(&'static str, &'static str),
}

impl Flaw {
    pub(super) fn head_only(reason: &'static str) -> Flaw {
        Flaw::Other(reason, "only the first bytes are kept")
    }

    pub(super) const TOO_LARGE_FOR_STORE: Flaw = Flaw::Other(
        BadFrame::OVERSIZE,
        "its side effects are larger than the durable store can take at a time",
    );

    pub(super) fn reason(&self) -> &'static str {
        match self {
            Flaw::Undecodable(error) => error.reason(),
            Flaw::Other(reason, _) => reason,
        }
    }

    pub(super) fn detail(&self) -> String {
        match self {
            Flaw::Undecodable(error) => error.to_string(),
            Flaw::Other(_, detail) => (*detail).to_owned(),
        }
    }
}

/// Frames that are not to be counted on, with the number of the reason. Empty but on bad days.
#[derive(Debug, Default)]
pub(super) struct Refusals(pub(super) BTreeMap<usize, usize>);

impl Refusals {
    /// The first reason counts.
    pub(super) fn add(&mut self, frame: usize, reason: usize) {
        self.0.entry(frame).or_insert(reason);
    }

    /// What is refused has no hits, is not in quarantine, and is not done.
    pub(super) fn strike(
        &self,
        hits: &mut Vec<Hit>,
        bad: &mut Vec<(usize, Flaw)>,
        marks: &mut Vec<(usize, Mark)>,
    ) {
        if !self.0.is_empty() {
            hits.retain(|hit| !self.0.contains_key(&hit.frame));
            bad.retain(|(frame, _)| !self.0.contains_key(frame));
            marks.retain(|(frame, _)| !self.0.contains_key(frame));
        }
    }
}

/// A batch that is being written.
#[derive(Debug)]
pub(super) struct Flow<'a> {
    pub(super) source: Source,
    /// Each frame ends for itself; else all of them together.
    pub(super) each: bool,
    pub(super) frames: &'a [&'a [u8]],
    pub(super) hits: &'a mut Vec<Hit>,
    pub(super) bad: &'a mut Vec<(usize, Flaw)>,
    /// By which frames are to be remembered once they are done. Empty unless something is remembered.
    pub(super) marks: &'a mut Vec<(usize, Mark)>,
    pub(super) refusals: Refusals,
    /// In the store, for the tasks of these frames.
    pub(super) room: Option<Room>,
    /// How many of the frames have gone on to a lane. They have neither hits nor flaws here any more.
    pub(super) gone: usize,
}

/// A batch that waits for a log file.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) source: Source,
    pub(super) each: bool,
    /// The frames behind one another.
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<usize>,
    pub(super) hits: Vec<Hit>,
    pub(super) bad: Vec<(usize, Flaw)>,
    pub(super) marks: Vec<(usize, Mark)>,
    pub(super) refusals: Refusals,
    pub(super) room: Option<Room>,
}

/// What a batch and a frame take beside their bytes, about.
const BATCH_BYTES: usize = 512;
const FRAME_BYTES: usize = 64;

/// What these frames take as a [`Batch`].
pub(super) fn cost(frames: &[&[u8]], numbers: &[usize]) -> usize {
    BATCH_BYTES + numbers.iter().map(|n| frames[*n].len() + FRAME_BYTES).sum::<usize>()
}

/// The frames of a [`Batch`].
pub(super) fn frames<'a>(bytes: &'a [u8], ends: &[usize]) -> Vec<&'a [u8]> {
    let starts = std::iter::once(&0).chain(ends);
    starts.zip(ends).map(|(start, end)| &bytes[*start..*end]).collect()
}

impl Flow<'_> {
    /// Takes the frames with these numbers, in order, out of the batch, with all that belongs to them. `room_bytes` of the room in the
    /// store go with them.
    pub(super) fn split(&mut self, numbers: &[usize], room_bytes: usize) -> Batch {
        let new_number = |frame: usize| numbers.binary_search(&frame).ok();
        let mut batch = Batch {
            source: self.source,
            each: self.each,
            bytes: Vec::with_capacity(numbers.iter().map(|n| self.frames[*n].len()).sum()),
            ends: Vec::with_capacity(numbers.len()),
            hits: Vec::new(),
            bad: Vec::new(),
            marks: Vec::new(),
            refusals: Refusals::default(),
            room: None,
        };
        for number in numbers {
            batch.bytes.extend_from_slice(self.frames[*number]);
            batch.ends.push(batch.bytes.len());
            if let Some(reason) = self.refusals.0.remove(number) {
                batch.refusals.add(batch.ends.len() - 1, reason);
            }
        }
        self.hits.retain(|hit| match new_number(hit.frame) {
            Some(frame) => {
                batch.hits.push(Hit { frame, ..*hit });
                false
            }
            None => true,
        });
        self.bad.retain(|(frame, flaw)| match new_number(*frame) {
            Some(frame) => {
                batch.bad.push((frame, *flaw));
                false
            }
            None => true,
        });
        self.marks.retain(|(frame, mark)| match new_number(*frame) {
            Some(frame) => {
                batch.marks.push((frame, *mark));
                false
            }
            None => true,
        });
        self.gone += numbers.len();
        batch.room = if self.gone == self.frames.len() {
            self.room.take()
        } else {
            self.room.as_mut().filter(|_| room_bytes > 0).map(|room| room.split(room_bytes))
        };
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Window;

    #[test]
    fn frames_go_with_all_that_belongs_to_them() {
        let frames: [&[u8]; 4] = [b"zero", b"one", b"two", b"three"];
        let hit = |frame, group| Hit { frame, group, by_rules: true };
        let mut hits = vec![hit(0, 1), hit(1, 0), hit(1, 2), hit(3, 2)];
        let mut bad = vec![(2, Flaw::head_only("oversize"))];
        let window = Window::new(1);
        let mark = |frame: usize| (frame, window.mark("id", "request", frames[frame]));
        let mut marks = vec![mark(0), mark(1), mark(3)];
        let mut flow = Flow {
            source: Source::Tcp,
            each: true,
            frames: &frames,
            hits: &mut hits,
            bad: &mut bad,
            marks: &mut marks,
            refusals: Refusals::default(),
            room: None,
            gone: 0,
        };
        flow.refusals.add(1, 6);
        flow.refusals.add(1, 7);
        flow.refusals.add(0, 5);
        let batch = flow.split(&[1, 2, 3], 0);
        assert_eq!((flow.gone, flow.refusals.0.len(), batch.ends.len()), (3, 1, 3));
        assert_eq!(super::frames(&batch.bytes, &batch.ends), frames[1..]);
        let of = |hits: &[Hit]| hits.iter().map(|hit| (hit.frame, hit.group)).collect::<Vec<_>>();
        assert_eq!(of(&batch.hits), [(0, 0), (0, 2), (2, 2)]);
        assert_eq!(batch.refusals.0.get(&0), Some(&6));
        assert_eq!(batch.bad.iter().map(|(frame, _)| *frame).collect::<Vec<_>>(), [1]);
        assert_eq!((of(&hits), bad.len()), (vec![(0, 1)], 0));
        assert_eq!((marks, batch.marks), (vec![mark(0)], vec![(0, mark(1).1), (2, mark(3).1)]));
    }
}
