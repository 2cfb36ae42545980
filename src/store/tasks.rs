//! The state of every pending task, and the order of each sink. Pure: it is told what became durable and what time it is.
//!
//! ```text
//!            durable            take              reserve n (durable)
//! Syncing ───────────▶ Ready ─────────▶ Taken ──────────────────────▶ Taken, n attempts
//!                       ▲  ▲              │ │                           │
//!             due       │  └── give back ─┘ └── no further attempt ─▶ Dying ── dead letter durable ─▶ (gone)
//! Held ─────────────────┘                                            │  ▲
//!                                              dead letters are full ▼  │ room again
//!                                                                    Parked
//! ```
//! Any state ends when the task is delivered or dropped. About 100 bytes a task: the record stays on the disk.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use hashbrown::HashTable;

pub(crate) use super::entry::{Destination, Entry, State, Tried};
use super::journal::Position;
use super::recover::DUE_AHEAD_MAX;
use super::usage::{Usage, finish_bytes};

const CHUNK: usize = 4096;

/// All pending tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    /// In chunks, so that growing copies nothing.
    slots: Vec<Vec<Option<Entry>>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    pub(crate) destinations: Vec<Destination>,
    names: HashMap<(Arc<str>, Arc<str>), u32>,
    /// Names by number.
    sinks: Vec<Arc<str>>,
    /// By number of the sink: what can be taken.
    ready: Vec<BTreeMap<u64, u32>>,
    /// By due time and order.
    held: BTreeMap<(u64, u64), u32>,
    /// To be made dead letters, oldest first.
    dying: BTreeMap<u64, u32>,
    parked: BTreeMap<u64, u32>,
    pub(crate) usage: Usage,
    next_order: u64,
    len: usize,
}

/// Ids are random in their lower half.
fn hash_of(id: u128) -> u64 {
    id as u64
}

impl Tasks {
    /// For sinks with these names, in the order of their numbers, and segments of this capacity. Names without a slash are their own group.
    pub(crate) fn new(sinks: &[String], capacity: u64) -> Self {
        let mut tasks = Tasks { next_order: 1, usage: Usage::of(capacity), ..Tasks::default() };
        for sink in sinks {
            tasks.number(sink);
        }
        tasks
    }

    /// Names of the sinks that have numbers, by number.
    pub(crate) fn sinks(&self) -> &[Arc<str>] {
        &self.sinks
    }

    /// The number of the sink of this name; from now on the configuration has it. Where tasks of it were found that nobody could take before, all
    /// tasks are looked at.
    pub(crate) fn number(&mut self, sink: &str) -> usize {
        let known = self.sinks.iter().position(|name| **name == *sink);
        let number = known.unwrap_or_else(|| {
            self.sinks.push(Arc::from(sink));
            self.ready.push(BTreeMap::new());
            self.sinks.len() - 1
        });
        let group = sink.rsplit_once('/').map_or(sink, |(group, _)| group);
        self.destination(sink, group);
        let mut any = false;
        for at in 0..self.destinations.len() {
            let (had, has) = (self.destinations[at].number, self.number_of(&self.destinations[at].sink));
            let there = &mut self.destinations[at];
            there.configured |= has == Some(number);
            there.number = had.or(has);
            any |= had.is_none() && has.is_some() && there.tasks > 0;
        }
        if any {
            self.list_ready();
        }
        number
    }

    /// Lists every task that can be taken where it belongs: sinks have got numbers.
    fn list_ready(&mut self) {
        let mut from = Some(0);
        while let Some(at) = from {
            let (entries, next) = self.scan(at, 1 << 14);
            let ready: Vec<u128> = entries.filter(|e| e.state == State::Ready).map(|e| e.id).collect();
            from = next;
            for id in ready {
                self.make_ready(id);
            }
        }
    }

    /// The configuration has these sinks, and no others.
    pub(crate) fn keep_only(&mut self, sinks: &[String]) {
        let numbers: Vec<usize> = (0..self.sinks.len())
            .filter(|number| sinks.iter().any(|sink| **sink == *self.sinks[*number]))
            .collect();
        for there in &mut self.destinations {
            there.configured = there.number.is_some_and(|number| numbers.contains(&number));
        }
    }

    /// The place of a sink in [`Self::destinations`]; made if it is new.
    pub(crate) fn destination(&mut self, sink: &str, group: &str) -> u32 {
        let key = (Arc::from(sink), Arc::from(group));
        if let Some(at) = self.names.get(&key) {
            return *at;
        }
        let at = self.destinations.len() as u32;
        let (sink, group) = (Arc::clone(&key.0), Arc::clone(&key.1));
        let number = self.number_of(&sink);
        self.destinations.push(Destination { sink, group, number, configured: number.is_some(), tasks: 0 });
        self.names.insert(key, at);
        at
    }

    /// The configured sink that takes tasks of this name. `GROUP/-` is any sink of the group: the predecessor did not say which.
    fn number_of(&self, sink: &str) -> Option<usize> {
        let prefix = sink.strip_suffix('-').filter(|p| p.ends_with('/'));
        self.sinks.iter().position(|name| {
            **name == *sink
                || prefix.is_some_and(|p| name.rsplit_once('/').is_some_and(|(g, _)| p == format!("{g}/")))
        })
    }

    /// The next number of acceptance.
    pub(crate) fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order - 1
    }

    /// Orders from here on are above `order`.
    pub(crate) fn saw_order(&mut self, order: u64) {
        self.next_order = self.next_order.max(order.saturating_add(1));
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Tasks that can be taken from a sink.
    pub(crate) fn ready(&self, number: usize) -> usize {
        self.ready.get(number).map_or(0, BTreeMap::len)
    }

    /// Tasks that can be taken from any sink.
    pub(crate) fn ready_in_all(&self) -> usize {
        self.ready.iter().map(BTreeMap::len).sum()
    }

    /// Tasks that are to become dead letters and are not looked at yet.
    pub(crate) fn dying(&self) -> usize {
        self.dying.len()
    }

    /// Tasks that wait for room as dead letters.
    pub(crate) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// When the oldest pending task was accepted. Looks at each sink's oldest only, and at those out of order.
    pub(crate) fn oldest_ns(&self) -> Option<u64> {
        let firsts = self.ready.iter().filter_map(|r| r.values().next());
        let others = self.dying.values().take(1).chain(self.parked.values().take(1));
        firsts.chain(others).filter_map(|slot| self.slot(*slot)).map(|e| e.accepted_ns).min()
    }

    fn find(&self, id: u128) -> Option<u32> {
        self.index.find(hash_of(id), |slot| self.slot(*slot).is_some_and(|e| e.id == id)).copied()
    }

    fn slot(&self, slot: u32) -> Option<&Entry> {
        self.slots.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)?.as_ref()
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Option<Entry>> {
        self.slots.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    pub(crate) fn get(&self, id: u128) -> Option<&Entry> {
        self.slot(self.find(id)?)
    }

    /// For everything but `state`, `order` and `at`, which have their own methods.
    pub(crate) fn get_mut(&mut self, id: u128) -> Option<&mut Entry> {
        let slot = self.find(id)?;
        self.slot_mut(slot)?.as_mut()
    }

    /// Takes a task in, in the state [`State::Syncing`]. False: there is one with this id already, and nothing has changed.
    pub(crate) fn insert(&mut self, entry: Entry) -> bool {
        if self.find(entry.id).is_some() {
            return false;
        }
        self.saw_order(entry.order);
        self.usage.add(entry.at.segment, entry.len(), finish_bytes(entry.attempts_max));
        if let Some(destination) = self.destinations.get_mut(entry.sink as usize) {
            destination.tasks += 1;
        }
        let id = entry.id;
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        if let Some(place) = self.slot_mut(slot) {
            *place = Some(entry);
        }
        let slots = &self.slots;
        let rehash = |slot: &u32| {
            let entry =
                slots.get(*slot as usize / CHUNK).and_then(|c| c.get(*slot as usize % CHUNK)?.as_ref());
            entry.map_or(0, |e| hash_of(e.id))
        };
        self.index.insert_unique(hash_of(id), slot, rehash);
        self.len += 1;
        true
    }

    fn grow(&mut self) -> u32 {
        if self.slots.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.slots.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.slots.len() - 1;
        self.slots[chunk].push(None);
        (chunk * CHUNK + self.slots[chunk].len() - 1) as u32
    }

    /// Takes a task out, whatever its state.
    pub(crate) fn remove(&mut self, id: u128) -> Option<Entry> {
        let slot = self.find(id)?;
        self.unlist(slot);
        let entry = self.slot_mut(slot)?.take()?;
        if let Ok(found) = self.index.find_entry(hash_of(id), |s| *s == slot) {
            found.remove();
        }
        self.free.push(slot);
        self.usage.remove(entry.at.segment, entry.len(), finish_bytes(entry.attempts_max));
        if let Some(destination) = self.destinations.get_mut(entry.sink as usize) {
            destination.tasks -= 1;
        }
        self.len -= 1;
        Some(entry)
    }

    /// Takes a task out of the list of its state.
    fn unlist(&mut self, slot: u32) {
        let Some(entry) = self.slot(slot) else { return };
        let (order, state, due) = (entry.order, entry.state, entry.tried().next_due_ns);
        match state {
            State::Syncing | State::Taken | State::Burying => {}
            State::Ready => {
                if let Some(number) = self.number_at(slot) {
                    self.ready[number].remove(&order);
                }
            }
            State::Held => {
                self.held.remove(&(due, order));
            }
            State::Dying => {
                self.dying.remove(&order);
            }
            State::Parked => {
                self.parked.remove(&order);
            }
        }
    }

    fn number_at(&self, slot: u32) -> Option<usize> {
        let sink = self.slot(slot)?.sink;
        self.destinations.get(sink as usize)?.number
    }

    fn set_state(&mut self, slot: u32, state: State) {
        self.unlist(slot);
        let number = self.number_at(slot);
        let Some(Some(entry)) = self.slot_mut(slot) else { return };
        entry.state = state;
        let (order, due) = (entry.order, entry.tried().next_due_ns);
        match state {
            State::Syncing | State::Taken | State::Burying => {}
            State::Ready => {
                // Tasks of unknown sinks are ready for nobody.
                if let Some(number) = number {
                    self.ready[number].insert(order, slot);
                }
            }
            State::Held => {
                self.held.insert((due, order), slot);
            }
            State::Dying => {
                self.dying.insert(order, slot);
            }
            State::Parked => {
                self.parked.insert(order, slot);
            }
        }
    }

    /// The task can be taken, in its place. The number of the sink whose workers should know.
    pub(crate) fn make_ready(&mut self, id: u128) -> Option<usize> {
        let slot = self.find(id)?;
        self.set_state(slot, State::Ready);
        self.number_at(slot)
    }

    /// The task can be taken at `due_ns`.
    pub(crate) fn hold(&mut self, id: u128, due_ns: u64) {
        if let Some(slot) = self.find(id) {
            self.unlist(slot);
            if let Some(Some(entry)) = self.slot_mut(slot) {
                entry.state = State::Taken;
                entry.tried_mut().next_due_ns = due_ns;
            }
            self.set_state(slot, State::Held);
        }
    }

    /// A taken task loses its place: when it can be taken again, all that wait by now come before it.
    pub(crate) fn lose_place(&mut self, id: u128) {
        let order = self.take_order();
        if let Some(entry) = self.get_mut(id).filter(|entry| entry.state == State::Taken) {
            entry.order = order;
        }
    }

    /// The oldest task of a sink that can be taken.
    pub(crate) fn take(&mut self, number: usize) -> Option<Entry> {
        let (_, slot) = self.ready.get(number)?.first_key_value()?;
        let slot = *slot;
        self.set_state(slot, State::Taken);
        self.slot(slot).cloned()
    }

    /// Makes ready what is due. The numbers of the sinks whose workers should know.
    pub(crate) fn release_due(&mut self, now_ns: u64) -> Vec<usize> {
        let mut numbers = Vec::new();
        while let Some(((due, _), slot)) = self.held.first_key_value() {
            if *due > now_ns {
                break;
            }
            let slot = *slot;
            self.set_state(slot, State::Ready);
            numbers.extend(self.number_at(slot));
        }
        // So far ahead nothing is put: the clock was set back.
        let latest = now_ns.saturating_add(2 * DUE_AHEAD_MAX.as_nanos() as u64);
        while let Some(((due, _), slot)) = self.held.last_key_value()
            && *due > latest
        {
            let slot = *slot;
            self.set_state(slot, State::Ready);
            numbers.extend(self.number_at(slot));
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// An attempt starts. It counts from here on.
    ///
    /// # Errors
    /// It must not be sent: the task is gone or nobody has it ([`io::ErrorKind::NotFound`]), or has used up its attempts, or this attempt was
    /// counted before ([`io::ErrorKind::InvalidInput`]).
    pub(crate) fn reserve(&mut self, id: u128, attempt: u32, now_ns: u64) -> io::Result<Tried> {
        let gone = |what| io::Error::new(io::ErrorKind::NotFound, what);
        let never = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let entry = self.get_mut(id).ok_or_else(|| gone("no such task is pending"))?;
        if entry.state != State::Taken {
            return Err(gone("nobody has taken the task"));
        }
        if attempt <= entry.attempts() {
            return never("an attempt of this number was made before");
        }
        if entry.attempts_max != 0 && attempt > entry.attempts_max {
            return never("the task has used up its attempts");
        }
        let before = entry.tried();
        let tried = entry.tried_mut();
        tried.attempts = attempt;
        tried.unfinished = true;
        tried.last_ns = now_ns;
        if tried.first_ns == 0 {
            tried.first_ns = now_ns;
        }
        Ok(before)
    }

    /// The attempt was not written down after all: it does not count.
    pub(crate) fn unreserve(&mut self, id: u128, attempt: u32, before: Tried) {
        if let Some(entry) = self.get_mut(id)
            && entry.attempts() == attempt
        {
            entry.set_tried(before);
        }
    }

    /// The task ends as a dead letter: nobody takes it any more.
    pub(crate) fn make_dying(&mut self, id: u128) {
        if let Some(slot) = self.find(id) {
            self.set_state(slot, State::Dying);
        }
    }

    /// There is no room for its dead letter.
    pub(crate) fn park(&mut self, id: u128) {
        if let Some(slot) = self.find(id) {
            self.set_state(slot, State::Parked);
        }
    }

    /// Tries the oldest `n` parked ones again.
    pub(crate) fn unpark(&mut self, n: usize) {
        let parked: Vec<u32> = self.parked.values().take(n).copied().collect();
        for slot in parked {
            self.set_state(slot, State::Dying);
        }
    }

    /// The oldest of those that are to become dead letters, at most `n`: from now on [`State::Burying`].
    pub(crate) fn take_dying(&mut self, n: usize) -> Vec<u128> {
        let slots: Vec<u32> = self.dying.values().take(n).copied().collect();
        let mut ids = Vec::with_capacity(slots.len());
        for slot in slots {
            self.set_state(slot, State::Burying);
            ids.extend(self.slot(slot).map(|e| e.id));
        }
        ids
    }

    /// The task's record was copied to `to`, which is durable.
    pub(crate) fn moved(&mut self, id: u128, to: Position) {
        let Some(slot) = self.find(id) else { return };
        let Some(Some(entry)) = self.slot_mut(slot) else { return };
        let finish = finish_bytes(entry.attempts_max);
        let (from, len) = (std::mem::replace(&mut entry.at, to), u64::from(to.len));
        entry.carried = true;
        if let Some(tried) = entry.tried.as_deref_mut()
            && tried.failed_at.is_some()
        {
            // The text of the last failure was carried with the task.
            tried.failed_at = Some(to);
        }
        self.usage.remove(from.segment, u64::from(from.len), finish);
        self.usage.add(to.segment, len, finish);
    }

    /// Entries in slots from `from` on, at most `n` slots; and where to go on, if there are more.
    pub(crate) fn scan(&self, from: usize, n: usize) -> (impl Iterator<Item = &Entry>, Option<usize>) {
        let end = self.slots.last().map_or(0, |last| (self.slots.len() - 1) * CHUNK + last.len());
        let until = (from + n).min(end);
        let entries = (from..until).filter_map(|slot| self.slot(slot as u32));
        (entries, (until < end).then_some(until))
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().flatten().flatten()
    }
}

#[cfg(test)]
#[path = "tests/tasks.rs"]
mod tests;
