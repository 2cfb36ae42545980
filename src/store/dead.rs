//! The dead letters as they are remembered: which there are and where. Pure.

use std::collections::{BTreeMap, HashMap};

use super::body::Reason;
use super::journal::Position;
use super::usage::Usage;

/// Room kept for the record that removes a dead letter.
const REMOVAL_BYTES: u64 = 64;

/// One dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadEntry {
    pub(crate) id: u128,
    pub(crate) dead_ns: u64,
    pub(crate) accepted_ns: u64,
    pub(crate) at: Position,
    pub(crate) reason: Reason,
    /// Its place in the pending tasks' list of destinations.
    pub(crate) sink: u32,
    /// The end of its task is durable too: it can be replayed and removed.
    pub(crate) settled: bool,
}

/// All dead letters.
#[derive(Debug, Default)]
pub(crate) struct DeadLetters {
    by_age: BTreeMap<(u64, u128), DeadEntry>,
    died: HashMap<u128, u64>,
    pub(crate) usage: Usage,
}

impl DeadLetters {
    /// For segments of this capacity.
    pub(crate) fn new(capacity: u64) -> Self {
        DeadLetters { usage: Usage::of(capacity), ..DeadLetters::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(crate) fn contains(&self, id: u128) -> bool {
        self.died.contains_key(&id)
    }

    pub(crate) fn get(&self, id: u128) -> Option<&DeadEntry> {
        self.by_age.get(&(*self.died.get(&id)?, id))
    }

    /// A dead letter is durable. One that is known already has been moved.
    pub(crate) fn insert(&mut self, entry: DeadEntry) {
        if self.contains(entry.id) {
            return self.moved(entry.id, entry.at);
        }
        self.usage.add(entry.at.segment, u64::from(entry.at.len), REMOVAL_BYTES);
        self.died.insert(entry.id, entry.dead_ns);
        self.by_age.insert((entry.dead_ns, entry.id), entry);
    }

    pub(crate) fn remove(&mut self, id: u128) -> Option<DeadEntry> {
        let died = self.died.remove(&id)?;
        let entry = self.by_age.remove(&(died, id))?;
        self.usage.remove(entry.at.segment, u64::from(entry.at.len), REMOVAL_BYTES);
        Some(entry)
    }

    /// The task's end is durable.
    pub(crate) fn settle(&mut self, id: u128) {
        if let Some(died) = self.died.get(&id)
            && let Some(entry) = self.by_age.get_mut(&(*died, id))
        {
            entry.settled = true;
        }
    }

    /// Its record was copied to `to`, which is durable.
    pub(crate) fn moved(&mut self, id: u128, to: Position) {
        if let Some(died) = self.died.get(&id)
            && let Some(entry) = self.by_age.get_mut(&(*died, id))
        {
            let from = std::mem::replace(&mut entry.at, to);
            self.usage.remove(from.segment, u64::from(from.len), REMOVAL_BYTES);
            self.usage.add(to.segment, u64::from(to.len), REMOVAL_BYTES);
        }
    }

    /// The oldest that can be removed.
    pub(crate) fn oldest_settled(&self) -> Option<u128> {
        self.by_age.values().find(|e| e.settled).map(|e| e.id)
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &DeadEntry> {
        self.by_age.values()
    }

    /// Oldest first, from the one after this on.
    pub(crate) fn iter_from(&self, after: (u64, u128)) -> impl Iterator<Item = &DeadEntry> {
        self.by_age.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded)).map(|(_, e)| e)
    }
}
