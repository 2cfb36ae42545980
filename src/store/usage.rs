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
    /// What a segment can hold; 0: no such limit.
    capacity: u64,
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
    /// Bytes of records that one segment can hold.
    pub(crate) capacity: u64,
    /// Segments that the bound has room for.
    pub(crate) segments_max: u64,
}

/// Why the oldest segment should be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carry {
    /// The log is longer than twice what is alive.
    Long,
    /// The bound of the disk is near; so many bytes of the log are dead.
    Near(u64),
}

impl Usage {
    /// For segments that can hold so much.
    pub(crate) fn of(capacity: u64) -> Usage {
        Usage { capacity, ..Usage::default() }
    }

    /// What a record of such a body takes of a segment: records do not straddle segments, so long ones leave room unused.
    pub(crate) fn taken(&self, len: u64) -> u64 {
        let bytes = len + FRAME_BYTES;
        if self.capacity == 0 { bytes } else { (self.capacity / (self.capacity / bytes).max(1)).max(bytes) }
    }

    /// A live record in `segment`, whose body has `len` bytes; `finish` is the room to keep for its end.
    pub(crate) fn add(&mut self, segment: u64, len: u64, finish: u64) {
        let bytes = self.taken(len);
        let live = self.segments.entry(segment).or_default();
        live.count += 1;
        live.bytes += bytes;
        self.count += 1;
        self.bytes += bytes;
        self.finish += finish;
    }

    /// The record is not needed any more. The same numbers as in [`Self::add`].
    pub(crate) fn remove(&mut self, segment: u64, len: u64, finish: u64) {
        let bytes = self.taken(len);
        let Some(live) = self.segments.get_mut(&segment) else { return };
        live.count -= 1;
        live.bytes -= bytes;
        if live.count == 0 {
            self.segments.remove(&segment);
        }
        self.count -= 1;
        self.bytes -= bytes;
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

    /// Whether so many more bytes (as [`Self::taken`] counts them) with so much room for their ends fit, with what is alive and three segments for
    /// finishing and carrying.
    pub(crate) fn fits(&self, disk: &Disk, bytes: u64, finish: u64) -> bool {
        let reserve = 3 * disk.capacity + self.finish + finish;
        self.bytes + bytes + reserve <= disk.segments_max * disk.capacity
    }

    /// Whether what is alive in the oldest segment should be moved forward, so that the segment can go.
    ///
    /// Either the log has more than `4 + 2 * ceil(live / segment)` segments, which bounds it at twice what is alive, and the write
    /// amplification at two; or only two more segments fit, and at least one segment's worth of the log is dead.
    pub(crate) fn carry_wanted(&self, disk: &Disk) -> Option<Carry> {
        let allowed = 4 + 2 * self.bytes.div_ceil(disk.capacity);
        let dead = (disk.segments * disk.capacity).saturating_sub(self.bytes);
        if disk.segments > allowed {
            Some(Carry::Long)
        } else {
            (disk.segments + 2 >= disk.segments_max && dead >= disk.capacity).then_some(Carry::Near(dead))
        }
    }
}

#[cfg(test)]
#[path = "tests/usage.rs"]
mod tests;
