//! What is alive in which segment, when the oldest segment can go, when it has to be emptied, and how much fits. Pure.

use std::collections::BTreeMap;

/// Bytes that a record takes beside its body: frame and padding, rounded up.
pub(crate) const FRAME_BYTES: u64 = 40;
/// Room kept for each record that tells of an attempt or of the end of a live task.
const FINISH_BYTES: u64 = 64;
/// Attempts that room is kept for where a task has no limit, and at most: what was written of earlier ones is garbage that a carry frees.
const FINISH_ATTEMPTS_MAX: u64 = 8;
const FINISH_ATTEMPTS_DEFAULT: u64 = 3;

/// Room that has to stay free for a live task to be finished.
pub(crate) fn finish_bytes(attempts_max: u32) -> u64 {
    let attempts = match attempts_max {
        0 => FINISH_ATTEMPTS_DEFAULT,
        n => u64::from(n).min(FINISH_ATTEMPTS_MAX),
    };
    FINISH_BYTES * (attempts + 2)
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Live {
    count: u64,
    bytes: u64,
}

/// Live records by segment.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    segments: BTreeMap<u64, Live>,
    bytes: u64,
    count: u64,
    finish: u64,
}

/// What a journal has on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Segments in the log.
    pub(crate) segments: u64,
    /// Bytes of one segment.
    pub(crate) segment_bytes: u64,
    /// Bound of everything.
    pub(crate) bytes_max: u64,
    /// Bytes of all its files.
    pub(crate) bytes: u64,
}

impl Usage {
    /// A live record in `segment`, whose body has `len` bytes; `finish` is the room to keep for its end.
    pub(crate) fn add(&mut self, segment: u64, len: u64, finish: u64) {
        let live = self.segments.entry(segment).or_default();
        live.count += 1;
        live.bytes += len + FRAME_BYTES;
        self.count += 1;
        self.bytes += len + FRAME_BYTES;
        self.finish += finish;
    }

    /// The record is not needed any more. The same numbers as in [`Self::add`].
    pub(crate) fn remove(&mut self, segment: u64, len: u64, finish: u64) {
        let Some(live) = self.segments.get_mut(&segment) else { return };
        live.count -= 1;
        live.bytes -= len + FRAME_BYTES;
        if live.count == 0 {
            self.segments.remove(&segment);
        }
        self.count -= 1;
        self.bytes -= len + FRAME_BYTES;
        self.finish -= finish;
    }

    /// Live bytes, frames included.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Live records.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Live records in `segment`.
    #[cfg(test)]
    pub(crate) fn count_in(&self, segment: u64) -> u64 {
        self.segments.get(&segment).map_or(0, |live| live.count)
    }

    /// The oldest segment in which something is alive; everything below it can go.
    pub(crate) fn first_live(&self) -> Option<u64> {
        self.segments.keys().next().copied()
    }

    /// Whether so many more bytes (frames included) with so much room for their ends fit, with what is alive and two segments for finishing and
    /// carrying.
    pub(crate) fn fits(&self, disk: &Disk, bytes: u64, finish: u64) -> bool {
        let reserve = 2 * disk.segment_bytes + self.finish + finish;
        self.bytes + bytes + reserve <= disk.bytes_max
    }

    /// Whether what is alive in the oldest segment should be moved forward, so that the segment can go.
    ///
    /// Either the log has more than `4 + 2 * ceil(live / segment)` segments, which bounds it at twice what is alive, and the write
    /// amplification at two; or the bound of the disk is near and at least two segments' worth of it is dead.
    pub(crate) fn carry_wanted(&self, disk: &Disk) -> bool {
        let allowed = 4 + 2 * self.bytes.div_ceil(disk.segment_bytes);
        let near = disk.bytes + 3 * disk.segment_bytes > disk.bytes_max;
        let garbage = (disk.segments * disk.segment_bytes).saturating_sub(self.bytes);
        disk.segments > allowed || (near && garbage >= 3 * disk.segment_bytes)
    }
}

#[cfg(test)]
#[path = "tests/usage.rs"]
mod tests;
