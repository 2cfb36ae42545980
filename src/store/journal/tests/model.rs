//! What the journal has promised, and what a recovery may show.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::side_effect::{Done, Refused};
use crate::store::journal::{Class, Entry, Journal, Position};

/// A record: all of it follows from its number and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) id: u64,
    pub(super) at: Position,
}

impl Item {
    pub(super) fn body(id: u64, len: usize) -> Vec<u8> {
        let mut body = id.to_le_bytes().to_vec();
        body.resize(len.max(8), id as u8 ^ 0x5a);
        body
    }

    /// Reads a body back.
    pub(super) fn of(at: Position, entry: Entry<'_>) -> Result<Item, String> {
        let id = entry.body.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
        let id = id.ok_or_else(|| format!("a record that is too short at {at:?}"))?;
        if entry.kind != 1 || entry.body != Item::body(id, entry.body.len()) {
            return Err(format!("record {id} at {at:?} is not as it was appended"));
        }
        Ok(Item { id, at })
    }
}

/// What was promised.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct Model {
    /// Told to be durable, in order.
    pub(super) acked: Vec<Item>,
    /// Appended and not answered.
    tail: Vec<Item>,
    /// Told not to be durable, since the last ack: what was written of them may still be there.
    failed: Vec<Vec<Item>>,
    /// Records of lower segments may be gone.
    pub(super) trimmed: u64,
    pub(super) next_id: u64,
}

pub(super) type Shared = Arc<Mutex<Model>>;

pub(super) fn lock(model: &Shared) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model {
    /// Whether a recovery may show `found`; from now on it is what there is.
    pub(super) fn recovered(&mut self, found: Vec<Item>) -> Result<(), String> {
        let from = found.first().map_or(u64::MAX, |item| item.at.segment);
        let cut = if found.is_empty() { self.trimmed } else { from.min(self.trimmed) };
        let acked: Vec<Item> = self.acked.iter().filter(|item| item.at.segment >= cut).copied().collect();
        let behind = found.strip_prefix(&acked[..]).ok_or_else(|| differs(&acked, &found))?;
        let tails = self.failed.iter().chain([&self.tail]);
        if !tails.into_iter().any(|tail| tail.starts_with(behind) || trimmed(tail, cut).starts_with(behind)) {
            return Err(format!("records that nobody may see: {behind:?}; acked up to {:?}", acked.last()));
        }
        self.acked = found;
        self.tail.clear();
        self.failed.clear();
        Ok(())
    }

    fn answered(&mut self, count: usize, result: Result<(), Refused>) {
        if result.is_ok() {
            let acked = self.tail.drain(..count);
            self.acked.extend(acked);
            self.failed.clear();
        } else if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.failed.push(tail);
        }
    }
}

fn trimmed(tail: &[Item], cut: u64) -> Vec<Item> {
    tail.iter().filter(|item| item.at.segment >= cut).copied().collect()
}

fn differs(acked: &[Item], found: &[Item]) -> String {
    let at = acked.iter().zip(found).position(|(a, b)| a != b).unwrap_or(acked.len().min(found.len()));
    format!("acked record {:?} is not there: {:?} instead", acked.get(at), found.get(at))
}

/// Appends records of the lengths `lens` in one go and enters them into the model; whether they were taken.
pub(super) fn append(journal: &Journal, model: &Shared, class: Class, lens: &[usize]) -> bool {
    let first = lock(model).next_id;
    let bodies: Vec<Vec<u8>> = lens.iter().zip(first..).map(|(len, id)| Item::body(id, *len)).collect();
    let entries: Vec<Entry<'_>> = bodies.iter().map(|body| Entry { kind: 1, body }).collect();
    let told = Arc::clone(model);
    let count = lens.len();
    let done: Done = Box::new(move |result| lock(&told).answered(count, result));
    let Ok(positions) = journal.append(class, &entries, done) else { return false };
    let mut model = lock(model);
    model.next_id += count as u64;
    model.tail.extend(positions.into_iter().zip(first..).map(|(at, id)| Item { id, at }));
    true
}
