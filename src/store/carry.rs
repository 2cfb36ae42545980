//! Moving what is still alive in the oldest segment forward, so that the segment can go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::bounded;

use super::accept::HISTORY_BYTES_MAX;
use super::body::{self, Body};
use super::inner::{Inner, Log, State};
use super::journal::{Class, Position};
use super::tasks::Entry;
use super::usage::{Carry, FRAME_BYTES};

/// Bytes of records that are moved with one sync.
const BATCH_BYTES: u64 = 1 << 20;
/// Segments that are emptied in one look; then the rest of the work gets its turn.
const TURNS: u64 = 64;
/// Slots that are looked at while the state is locked.
const SCAN_SLOTS: usize = 1 << 15;

/// Something alive in the oldest segment.
#[derive(Clone)]
enum Live {
    Task(Entry),
    Dead { id: u128, at: Position },
}

impl Live {
    fn at(&self) -> Position {
        match self {
            Live::Task(entry) => entry.at,
            Live::Dead { at, .. } => *at,
        }
    }
}

impl Inner {
    /// Empties the oldest segments of a log as long as that is worth it. Blocks for the disk.
    pub(crate) fn carry_all(self: &Arc<Self>, log: Log) {
        let rotation = self.disk(log).segments;
        for turn in 0..TURNS {
            let Some((victim, why)) = self.victim(log) else { return };
            if let Carry::Near(dead) = why
                && turn >= rotation
            {
                self.state.lock().futile[log.index()] = dead;
                return;
            }
            if !self.carry(log, victim) || self.stopping.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Empties a segment. True: something has been moved.
    fn carry(self: &Arc<Self>, log: Log, victim: u64) -> bool {
        // Each copy has its history with it.
        let most = BATCH_BYTES.min(self.disk(log).capacity / 2);
        let mut moved = false;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for one in self.live_in(log, victim) {
            let len = u64::from(one.at().len) + HISTORY_BYTES_MAX as u64 + FRAME_BYTES;
            if bytes > 0 && bytes + len > most {
                moved |= self.carry_batch(log, std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += len;
            batch.push(one);
        }
        moved | self.carry_batch(log, batch)
    }

    /// The oldest segment, if it should be emptied.
    fn victim(&self, log: Log) -> Option<(u64, Carry)> {
        let mut disk = self.disk(log);
        let mut state = self.state.lock();
        let usage = match log {
            Log::Pending => &state.tasks.usage,
            Log::Dead => &state.dead.usage,
        };
        let victim = usage.first_live()?;
        // Those below it go as soon as the mark is durable.
        let current = self.journal(log).segments().current;
        disk.segments = (current + 1).saturating_sub(victim);
        let why = usage.carry_wanted(&disk).filter(|_| victim < current);
        match why {
            // But for the last segment: when that is full too, nothing can be moved any more.
            Some(Carry::Near(dead))
                if dead < state.futile[log.index()] + disk.capacity
                    && disk.segments + 1 < disk.segments_max =>
            {
                None
            }
            Some(why) => Some((victim, why)),
            None => {
                state.futile[log.index()] = 0;
                None
            }
        }
    }

    /// What is alive in a segment. The state is not locked for long at a time.
    fn live_in(&self, log: Log, segment: u64) -> Vec<Live> {
        let mut live = Vec::new();
        match log {
            Log::Pending => {
                let mut from = Some(0);
                while let Some(at) = from {
                    let state = self.state.lock();
                    let (entries, next) = state.tasks.scan(at, SCAN_SLOTS);
                    live.extend(entries.filter(|e| e.at.segment == segment).cloned().map(Live::Task));
                    from = next;
                }
            }
            Log::Dead => {
                let mut after = (0, 0);
                loop {
                    let state = self.state.lock();
                    let mut last = None;
                    for entry in state.dead.iter_from(after).take(SCAN_SLOTS) {
                        last = Some((entry.dead_ns, entry.id));
                        if entry.at.segment == segment {
                            live.push(Live::Dead { id: entry.id, at: entry.at });
                        }
                    }
                    let Some(last) = last else { break };
                    after = last;
                }
            }
        }
        live.sort_by_key(Live::at);
        live
    }

    fn carry_batch(self: &Arc<Self>, log: Log, batch: Vec<Live>) -> bool {
        let mut copies = Vec::with_capacity(batch.len());
        for live in batch {
            if let Some(copy) = self.copy_of(&live) {
                copies.push((live, copy));
            }
        }
        #[cfg(test)]
        if self.bugs.trim_before_carry
            && let Some((live, _)) = copies.first()
        {
            self.journal(log).trim(live.at().segment + 1);
            self.journal(log).commit();
            self.journal(log).tick(crate::clock::now());
        }
        let state = self.state.lock();
        // What has ended or changed while it was read is left to the next turn.
        copies.retain(|(live, _)| match live {
            Live::Task(was) => {
                state.tasks.get(was.id).is_some_and(|is| is.at == was.at && is.tried() == was.tried())
            }
            Live::Dead { id, at } => state.dead.get(*id).is_some_and(|is| is.at == *at),
        });
        let mut count = 0;
        let (known, outcomes) = bounded(0);
        for (live, copy) in copies {
            // One by one: an append goes into one segment, and several at once would leave the end of it unused.
            let known = known.clone();
            let result = self.append_one(log, Class::Finish, copy, move |inner, state, result| {
                if let Ok(to) = result {
                    carried(state, &live, to);
                    inner.trim(state, log);
                }
                drop(known);
            });
            if result.is_err() {
                break;
            }
            count += 1;
        }
        drop((state, known));
        if count == 0 {
            return false;
        }
        // Else what is moved would be taken for what is still to be moved, and copied again and again.
        self.commit_all(log, &outcomes);
        self.meters.carried.add(count);
        true
    }

    /// The record to append for it; `None` where it cannot be read, which is left to whoever needs it.
    fn copy_of(&self, live: &Live) -> Option<(u8, Vec<u8>)> {
        let mut buf = Vec::new();
        match live {
            Live::Task(entry) => {
                let task = self.read_task(entry, &mut buf).ok()?;
                let history = self.history(entry);
                #[cfg(test)]
                let history = if self.bugs.carry_forgets_attempts { Default::default() } else { history };
                Some((body::CARRIED, Body::Carried(history, task).encode()))
            }
            Live::Dead { at, .. } => {
                self.dead.read(*at, &mut buf).ok()?;
                Some((body::DEAD_LETTER, buf))
            }
        }
    }
}

/// The copy is durable: it is the record now, and the old segment can go.
fn carried(state: &mut State, live: &Live, to: Position) {
    match live {
        Live::Task(was) if state.tasks.get(was.id).is_some_and(|is| is.at == was.at) => {
            state.tasks.moved(was.id, to);
        }
        Live::Dead { id, at } if state.dead.get(*id).is_some_and(|is| is.at == *at) => {
            state.dead.moved(*id, to);
        }
        _ => {}
    }
}
