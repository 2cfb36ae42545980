//! What the store does beside its callers: dead letters, carries, held tasks, what a fault has kept from the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::body::Body;
use super::inner::{Inner, Log};
use super::journal::Keeper;
use crate::threads;

/// Time between two looks when nothing is said to have happened.
const INTERVAL: Duration = Duration::from_millis(250);
/// Parked tasks that are tried again at each look.
const UNPARK: usize = 64;
/// Batches of dead letters in one look; then the rest of the work gets its turn.
const TURNS: usize = 64;

/// The store's threads.
pub(super) struct Threads {
    keeper: Option<JoinHandle<()>>,
    /// The journals' own; they end after the store's.
    journals: Vec<Keeper>,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// The kernel's refusal to make a thread; none is left behind.
    pub(super) fn start(inner: &Arc<Inner>, kicked: Receiver<()>) -> io::Result<Threads> {
        let journals = vec![
            Keeper::start(Arc::clone(&inner.pending), "store-log")?,
            Keeper::start(Arc::clone(&inner.dead), "store-dead-log")?,
        ];
        let keeper = Arc::clone(inner);
        let keeper = threads::spawn("store", move || run(&keeper, &kicked))?;
        Ok(Threads { keeper: Some(keeper), journals })
    }

    /// Ends and joins them.
    pub(super) fn stop(mut self, inner: &Inner) {
        inner.stopping.store(true, Ordering::SeqCst);
        inner.kick();
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            log::error!("the store's thread panicked");
        }
        self.journals.clear();
    }
}

fn run(inner: &Arc<Inner>, kicked: &Receiver<()>) {
    while !inner.stopping.load(Ordering::SeqCst) {
        inner.tick();
        if kicked.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

impl Inner {
    /// Everything that is due. Blocks for the disk.
    pub(crate) fn tick(self: &Arc<Self>) {
        self.append_lost();
        self.release_due();
        {
            let _chores = self.chores.lock();
            self.unpark();
            for _ in 0..TURNS {
                if !self.bury() || self.stopping.load(Ordering::SeqCst) {
                    break;
                }
            }
            self.carry_all(Log::Pending);
            self.carry_all(Log::Dead);
        }
        let state = self.state.lock();
        self.trim(&state, Log::Pending);
        self.trim(&state, Log::Dead);
        self.meters.count_tasks(&state);
        let oldest = state.tasks.oldest_ns();
        drop(state);
        self.meters.look(self, oldest);
    }

    fn release_due(&self) {
        let now_ns = self.now_ns();
        let numbers = self.state.lock().tasks.release_due(now_ns);
        self.wake_sinks(&numbers);
    }

    /// Parked tasks get another chance when there is room.
    fn unpark(&self) {
        let mut state = self.state.lock();
        if state.tasks.parked() == 0 {
            state.full_said = false;
        } else if self.dead.accepting().is_ok() {
            state.tasks.unpark(UNPARK);
        }
    }

    /// Appends again what a fault has kept from the disk, once it takes writes.
    fn append_lost(self: &Arc<Self>) {
        for log in [Log::Pending, Log::Dead] {
            let mut state = self.state.lock();
            if state.lost_of(log).is_empty() {
                continue;
            }
            let lost = std::mem::take(state.lost_of(log));
            let mut left = lost.into_iter();
            for (kind, bytes) in left.by_ref() {
                let Ok(body) = Body::decode(kind, &bytes) else { continue };
                if !self.still_wanted(&state, &body) {
                    continue;
                }
                let before = state.lost_of(log).len();
                let dead = if let Body::DeadLettered { id } = body { Some(id) } else { None };
                let at = self.append_end(&mut state, log, &body, move |inner| {
                    if let Some(id) = dead {
                        inner.state.lock().dead.settle(id);
                    }
                });
                if let (Some(at), Body::Failed { id, .. }) = (at, &body)
                    && let Some(entry) = state.tasks.get_mut(*id)
                {
                    entry.tried_mut().failed_at = Some(at);
                }
                if state.lost_of(log).len() > before {
                    break;
                }
            }
            state.lost_of(log).extend(left);
            drop(state);
            self.journal(log).commit();
        }
    }

    /// A failure is of interest while its task lives and has had no further attempt.
    fn still_wanted(&self, state: &super::inner::State, body: &Body<'_>) -> bool {
        match body {
            Body::Failed { id, attempt, .. } => {
                state.tasks.get(*id).is_some_and(|e| e.attempts() == *attempt)
            }
            _ => true,
        }
    }

    /// The disk takes nothing more. Blocks for the disk.
    ///
    /// # Errors
    /// Why not everything has become durable.
    pub(crate) fn close(self: &Arc<Self>) -> Result<(), crate::side_effect::Refused> {
        if std::mem::replace(&mut self.state.lock().closed, true) {
            return Ok(());
        }
        self.append_lost();
        let dead = self.dead.close();
        let pending = self.pending.close();
        dead.and(pending)
    }
}
