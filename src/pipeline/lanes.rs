//! Lanes: what cannot be written by the thread that received it waits here for its log file, on one thread for each file.
//!
//! A batch comes here when its file hangs or is always synced. The lane's thread takes all that waits, up to a bound, appends it at
//! once (with `sync: always`: one sync for all of it), and sends each batch on its way: to the lane of its next file, or to its end.
//! So a lane's thread blocks on its own file only. It is started when the first batch comes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::batch::{self, Batch};
use super::outlets::{Outlets, Promise};
use crate::log_file::LogTarget;
use crate::{clock, threads};

/// Bytes that wait for one file at most, the batches' administration included; a single batch may be larger.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Batches that wait for one file at most.
const WAITING_BATCHES_MAX: usize = 65_536;
/// Bytes that go into one append, about; a single batch may be larger.
const APPEND_BYTES_MAX: usize = 4 << 20;
/// How long a thread has to end once nothing waits for it.
const END_MAX: Duration = Duration::from_millis(500);
/// How often the end looks whether the lanes are empty.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The queue in front of one log file.
#[derive(Debug)]
pub(super) struct Lane {
    log: LogTarget,
    name: String,
    /// Targets that use it, of whatever configuration.
    holds: AtomicUsize,
    /// Batches that wait, that are being appended, or that have not been sent on yet. 0: the lane is empty and idle.
    batches: AtomicUsize,
    bytes: AtomicUsize,
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Handed, usize)>,
    thread: Option<JoinHandle<()>>,
    /// Frames of the batches with the thread.
    busy_frames: u64,
    /// Nothing more is taken.
    closed: bool,
    /// The thread was left behind; what it has is counted as refused.
    abandoned: bool,
}

/// A target's hold on its lane. With the last one the lane's thread ends; nothing waits then, since what waits holds its targets.
#[derive(Debug)]
pub(super) struct Hold(Arc<Lane>);

impl Hold {
    pub(super) fn new(lane: Lane) -> Hold {
        lane.holds.fetch_add(1, Ordering::AcqRel);
        Hold(Arc::new(lane))
    }
}

impl Clone for Hold {
    fn clone(&self) -> Hold {
        self.0.holds.fetch_add(1, Ordering::AcqRel);
        Hold(Arc::clone(&self.0))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.holds.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.state.lock().closed = true;
            self.0.filled.notify_one();
        }
    }
}

impl std::ops::Deref for Hold {
    type Target = Arc<Lane>;

    fn deref(&self) -> &Arc<Lane> {
        &self.0
    }
}

/// A batch in front of target `number`.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) out: Arc<Outlets>,
    pub(super) batch: Batch,
    pub(super) promise: Promise,
    pub(super) number: usize,
}

/// Room in a lane for one batch; given back when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    lane: &'a Arc<Lane>,
    cost: usize,
    used: bool,
}

/// What a lane has left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Frames that waited and were refused.
    pub(super) waiting: u64,
    /// Frames of the append that the thread is still in. They are not counted as anything.
    pub(super) stuck: u64,
}

impl Lane {
    pub(super) fn new(log: LogTarget, number: usize) -> Lane {
        Lane {
            log,
            name: format!("log-lane-{number}"),
            holds: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            state: Mutex::default(),
            filled: Condvar::new(),
        }
    }

    /// Whether others may write to the file: not where each append is synced, nor while batches wait that came before.
    pub(super) fn takes_turns_inline(&self) -> bool {
        !self.log.syncs_always() && self.batches.load(Ordering::Acquire) == 0
    }

    /// Room for a batch of that cost; `None`: the lane is full, or closed. Does not block.
    pub(super) fn reserve<'a>(self: &'a Arc<Self>, cost: usize) -> Option<Place<'a>> {
        let batches = self.batches.fetch_add(1, Ordering::AcqRel);
        let bytes = self.bytes.fetch_add(cost, Ordering::Relaxed);
        let place = Place { lane: self, cost, used: false };
        let full =
            batches >= WAITING_BATCHES_MAX || (bytes > 0 && bytes.saturating_add(cost) > WAITING_BYTES_MAX);
        (!full && place.has_thread()).then_some(place)
    }

    fn give_back(&self, batches: usize, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.batches.fetch_sub(batches, Ordering::AcqRel);
    }

    /// The thread's life.
    fn run(&self) {
        loop {
            let (taken, cost) = self.take();
            if taken.is_empty() {
                return;
            }
            let count = taken.len();
            // What a panic leaves is refused by its promises.
            if catch_unwind(AssertUnwindSafe(|| self.write(taken))).is_err() {
                log::error!("log file {:?}: handling its batches panicked", self.log.label());
            }
            self.give_back(count, cost);
        }
    }

    /// Waits for batches, and takes as many as belong into one append, with their cost. None: the end.
    fn take(&self) -> (Vec<Handed>, usize) {
        let mut state = self.state.lock();
        while state.queue.is_empty() && !state.closed {
            self.filled.wait(&mut state);
        }
        let (mut taken, mut cost) = (Vec::new(), 0);
        while let Some((_, next)) = state.queue.front()
            && (taken.is_empty() || cost + next <= APPEND_BYTES_MAX)
            && let Some((handed, next)) = state.queue.pop_front()
        {
            cost += next;
            state.busy_frames += handed.promise.frames();
            taken.push(handed);
        }
        (taken, cost)
    }

    fn write(&self, taken: Vec<Handed>) {
        let failed = append(&self.log, &taken);
        let abandoned = {
            let mut state = self.state.lock();
            state.busy_frames = 0;
            state.abandoned
        };
        let mut stored = None;
        for Handed { out, batch, promise, number } in taken {
            if abandoned {
                promise.give_up();
            } else if out.go_on(batch, promise, number, failed) {
                stored = Some(out);
            }
        }
        if let Some(store) = stored.as_ref().and_then(|out| out.store.as_ref()) {
            store.ledger().nudge();
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.batches.load(Ordering::Acquire) == 0
    }

    /// Takes nothing more; what waits is refused. The thread has until `deadline` to end, and is left behind then.
    fn close(&self, deadline: Instant) -> Left {
        let (queue, thread) = {
            let mut state = self.state.lock();
            state.closed = true;
            (std::mem::take(&mut state.queue), state.thread.take())
        };
        self.filled.notify_one();
        let mut left = Left::default();
        for (handed, cost) in queue {
            left.waiting += handed.promise.frames();
            drop(handed);
            self.give_back(1, cost);
        }
        if thread.is_none_or(|thread| threads::join_by(vec![thread], deadline).is_empty()) {
            return left;
        }
        let mut state = self.state.lock();
        // 0: between its last append and its end.
        if state.busy_frames > 0 {
            state.abandoned = true;
            left.stuck = state.busy_frames;
        }
        left
    }

    /// The file.
    pub(super) fn log(&self) -> &LogTarget {
        &self.log
    }
}

impl Place<'_> {
    /// Starts the thread where none runs yet. False: there can be none.
    fn has_thread(&self) -> bool {
        let mut state = self.lane.state.lock();
        if state.closed || state.thread.is_some() {
            return !state.closed;
        }
        let lane = Arc::clone(self.lane);
        match threads::spawn(&self.lane.name, move || lane.run()) {
            Ok(thread) => {
                state.thread = Some(thread);
                true
            }
            Err(e) => {
                log::error!(
                    "log file {:?}: {e}; records that wait for it are refused",
                    self.lane.log.label()
                );
                false
            }
        }
    }

    /// Puts the batch in. In a lane that was closed meanwhile it is refused.
    pub(super) fn put(mut self, handed: Handed) {
        let mut state = self.lane.state.lock();
        if state.closed {
            drop(state);
            return drop(handed);
        }
        state.queue.push_back((handed, self.cost));
        self.used = true;
        drop(state);
        self.lane.filled.notify_one();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.lane.give_back(1, self.cost);
        }
    }
}

/// Appends the lines of all batches at once. True: that failed, and nothing of them may be acked.
fn append(log: &LogTarget, taken: &[Handed]) -> bool {
    let frames: Vec<Vec<&[u8]>> =
        taken.iter().map(|handed| batch::frames(&handed.batch.bytes, &handed.batch.ends)).collect();
    let entries: Vec<Option<Vec<Vec<u8>>>> = taken
        .iter()
        .zip(&frames)
        .map(|(handed, frames)| {
            let target = &handed.out.targets[handed.number];
            target.entries(handed.batch.source, frames, &handed.batch.bad)
        })
        .collect();
    let mut lines: Vec<&[u8]> = Vec::new();
    for ((handed, frames), entries) in taken.iter().zip(&frames).zip(&entries) {
        match entries {
            Some(entries) => lines.extend(entries.iter().map(Vec::as_slice)),
            None => {
                let Batch { hits, bad, .. } = &handed.batch;
                let wanted = handed.out.targets[handed.number].wanted(frames.len(), hits, bad);
                lines.extend(wanted.into_iter().map(|frame| frames[frame]));
            }
        }
    }
    log.append(&lines).is_err()
}

/// Waits until nothing waits in any lane, until `deadline`; then ends them. What each has left, in order.
pub(super) fn close<'a>(lanes: impl Iterator<Item = &'a Arc<Lane>> + Clone, deadline: Instant) -> Vec<Left> {
    // A batch is counted in one lane until it is in the next one.
    while !lanes.clone().all(|lane| lane.is_idle()) && clock::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
    }
    // First none takes anything more: what one still sends on must not get into another one that has ended.
    for lane in lanes.clone() {
        lane.state.lock().closed |= true;
    }
    let end = clock::now() + END_MAX;
    lanes.map(|lane| lane.close(end)).collect()
}
