//! From a task that has no further attempt to a dead letter: the dead letter is durable first, then the task ends.

use std::sync::Arc;

use crossbeam_channel::bounded;

use super::accept::HISTORY_BYTES_MAX;
use super::api::DeadKeep;
use super::body::{Body, History, Reason, Removal, TaskBody};
use super::dead::DeadEntry;
use super::inner::{Inner, Log, State};
use super::journal::{Class, Position};
use super::tasks::{Entry, State as TaskState};
use crate::side_effect::Refused;

/// Dead letters that are written with one sync.
const BATCH: usize = 64;
/// The same, in bytes of records.
const BATCH_BYTES: u64 = 4 << 20;

/// A dead letter about to be written.
struct Coffin {
    entry: DeadEntry,
    body: Vec<u8>,
}

impl Inner {
    /// Writes the next dead letters. Blocks for the disk. True: there may be more.
    pub(crate) fn bury(self: &Arc<Self>) -> bool {
        let ids = self.next_to_bury();
        if ids.is_empty() {
            return false;
        }
        let mut coffins = Vec::with_capacity(ids.len());
        for id in ids {
            coffins.extend(self.coffin(id));
        }
        if coffins.is_empty() {
            return true;
        }
        let mut state = self.state.lock();
        let mut coffins = coffins.into_iter();
        let (mut written, mut refused) = (0, None);
        let (known, outcomes) = bounded(0);
        for coffin in coffins.by_ref() {
            // One by one: an append goes into one segment, and several at once would leave the end of it unused, which nobody counts.
            let (dead, known) = (coffin.entry, known.clone());
            let entry = (super::body::DEAD_LETTER, coffin.body);
            let result = self.append_one(Log::Dead, Class::Accept, entry, move |inner, state, result| {
                inner.buried(state, dead, result);
                drop(known);
            });
            if let Err(why) = result {
                refused = Some((why, dead.id));
                break;
            }
            written += 1;
        }
        let goes_on = written > 0 || refused.is_none();
        if let Some((why, id)) = refused {
            let left = std::iter::once(id).chain(coffins.map(|coffin| coffin.entry.id));
            let waits = goes_on || why != Refused::Full || self.makes_room_of_a_segment(&mut state);
            for id in left {
                if waits { state.tasks.make_dying(id) } else { state.tasks.park(id) }
            }
            if !waits {
                self.say_no_room(&mut state);
            }
        }
        self.meters.count_tasks(&state);
        drop((state, known));
        // Else the next ones would be counted as if there were room for all.
        self.commit_all(Log::Dead, &outcomes);
        goes_on
    }

    /// The next ones for which there is room; the others are parked. Where the newest are kept, the oldest make room, and the others wait
    /// for those that cannot go yet.
    fn next_to_bury(self: &Arc<Self>) -> Vec<u128> {
        let most = BATCH_BYTES.min(self.disk(Log::Dead).capacity / 2);
        let mut state = self.state.lock();
        let mut chosen = Vec::new();
        let (mut bytes, mut waits) = (0, false);
        for id in state.tasks.take_dying(BATCH) {
            let len = state.tasks.get(id).map_or(0, |e| u64::from(e.at.len));
            let len = state.dead.usage.taken(len + HISTORY_BYTES_MAX as u64);
            // In their order: the later one is the newer one.
            waits |= bytes > 0 && bytes + len > most;
            if waits {
                state.tasks.make_dying(id);
            } else if self.make_room(&mut state, bytes + len) {
                bytes += len;
                chosen.push(id);
            } else if self.settings.dead_keep == DeadKeep::Newest && (bytes > 0 || state.dead.len() > 0) {
                waits = true;
                state.tasks.make_dying(id);
            } else {
                state.tasks.park(id);
                self.say_no_room(&mut state);
            }
        }
        self.meters.count_tasks(&state);
        chosen
    }

    /// Whether so many bytes of dead letters more fit.
    fn make_room(self: &Arc<Self>, state: &mut State, bytes: u64) -> bool {
        let disk = self.disk(Log::Dead);
        while !state.dead.usage.fits(&disk, bytes, 0) {
            let oldest = state.dead.oldest_settled().filter(|_| self.settings.dead_keep == DeadKeep::Newest);
            let Some(id) = oldest else { return false };
            self.remove_dead(state, id, Removal::MadeRoom);
        }
        true
    }

    /// For where the log is full though the account, which knows nothing of what segments leave unused, has room: removes the oldest, a
    /// segment's worth of them, where the newest are kept. True: there will be room, or there was some to come already.
    fn makes_room_of_a_segment(self: &Arc<Self>, state: &mut State) -> bool {
        if self.settings.dead_keep != DeadKeep::Newest {
            return false;
        }
        let segments = self.dead.segments();
        let first = state.dead.usage.first_live().unwrap_or(segments.current);
        if first > segments.front || segments.going > 0 {
            return true;
        }
        let wanted = self.disk(Log::Dead).capacity;
        let mut freed = 0;
        while freed < wanted
            && let Some(id) = state.dead.oldest_settled()
        {
            freed += state.dead.get(id).map_or(0, |entry| state.dead.usage.taken(u64::from(entry.at.len)));
            self.remove_dead(state, id, Removal::MadeRoom);
        }
        freed > 0
    }

    /// Removes a dead letter. Durable with the next sync of its log.
    pub(crate) fn remove_dead(self: &Arc<Self>, state: &mut State, id: u128, why: Removal) {
        if state.dead.remove(id).is_some() {
            self.meters.removed(why).inc();
            self.append_end(state, Log::Dead, &Body::Removed { id, why }, |_| {});
            self.trim(state, Log::Dead);
            self.meters.count_tasks(state);
        }
    }

    /// The dead letter is durable: its task ends. Or it is not, and the task is tried again.
    fn buried(self: &Arc<Self>, state: &mut State, dead: DeadEntry, result: Result<Position, Refused>) {
        if state.tasks.get(dead.id).is_some_and(|e| e.state == TaskState::Burying) {
            match result {
                Ok(at) => {
                    self.meters.buried.inc();
                    state.dead.insert(DeadEntry { at, ..dead });
                    self.end_task(state, &Body::DeadLettered { id: dead.id });
                }
                Err(_) => state.tasks.make_dying(dead.id),
            }
        }
        self.meters.count_tasks(state);
        self.kick();
    }

    fn say_no_room(&self, state: &mut State) {
        if !state.full_said {
            state.full_said = true;
            log::warn!(
                "dead letters have used up their share of async.durable.max_bytes ({} bytes): tasks that should become dead letters \
                 stay pending, out of the way of the others, until `queue drop` or `queue replay` has made room",
                self.settings.dead_bytes_max
            );
        }
    }

    /// The dead letter of a task; `None`: it cannot be made now, and the task was put back.
    fn coffin(self: &Arc<Self>, id: u128) -> Option<Coffin> {
        let (entry, sink, group) = {
            let state = self.state.lock();
            let entry = state.tasks.get(id)?.clone();
            let destination = state.tasks.destinations.get(entry.sink as usize)?;
            (entry, Arc::clone(&destination.sink), Arc::clone(&destination.group))
        };
        let mut history = self.history(&entry);
        let mut reason = history.failure.reason.unwrap_or(Reason::Exhausted);
        let mut buf = Vec::new();
        let task = if reason == Reason::Damaged {
            without_record(&entry, &sink, &group)
        } else {
            match self.read_task(&entry, &mut buf) {
                Ok(task) => task,
                Err(_) if self.was_moved(&entry) => return None,
                Err(e) if is_damage(&e) => {
                    reason = Reason::Damaged;
                    history.failure.error = format!("the record can no longer be read: {e}");
                    self.meters.damages.inc();
                    without_record(&entry, &sink, &group)
                }
                Err(e) => {
                    self.say_unreadable(id, &e);
                    self.state.lock().tasks.park(id);
                    return None;
                }
            }
        };
        history.failure.reason = Some(reason);
        Some(self.close_coffin(&entry, reason, history, task))
    }

    fn say_unreadable(&self, id: u128, error: &std::io::Error) {
        if self.meters.unreadable_said.allows(crate::clock::now()) {
            log::error!(
                "task {}: its record cannot be read to make it a dead letter: {error}; it stays pending, and is tried again",
                crate::side_effect::TaskId::from_bits(id)
            );
        }
    }

    /// Whether the task's record has another place now; then it is tried again there.
    fn was_moved(&self, entry: &Entry) -> bool {
        let mut state = self.state.lock();
        let moved = state.tasks.get(entry.id).is_some_and(|now| now.at != entry.at);
        if moved {
            state.tasks.make_dying(entry.id);
        }
        moved
    }

    fn close_coffin(&self, entry: &Entry, reason: Reason, history: History, task: TaskBody<'_>) -> Coffin {
        let dead_ns = self.now_ns();
        let dead = DeadEntry {
            id: entry.id,
            dead_ns,
            accepted_ns: entry.accepted_ns,
            at: entry.at,
            reason,
            sink: entry.sink,
            settled: false,
        };
        Coffin { entry: dead, body: Body::DeadLetter { dead_ns, history, task }.encode() }
    }
}

/// Whether an error of reading says that the record is gone for good.
pub(crate) fn is_damage(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof
    )
}

/// What is still known of a task whose record is gone.
pub(super) fn without_record<'a>(entry: &Entry, sink: &'a str, group: &'a str) -> TaskBody<'a> {
    TaskBody {
        id: entry.id,
        order: entry.order,
        accepted_ns: entry.accepted_ns,
        expires_ns: 0,
        attempts_max: entry.attempts_max,
        origin: 0,
        origin_attempts: 0,
        sink,
        group,
        source: "",
        record: b"",
    }
}
