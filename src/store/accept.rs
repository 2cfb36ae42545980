//! Taking tasks in.

use std::sync::Arc;

use super::body::{ACCEPTED, ORDER_AT, TaskBody};
use super::inner::{Inner, Log, Outcome};
use super::journal::Class;
use super::tasks::{Entry, State as TaskState};
use super::usage::{FRAME_BYTES, finish_bytes};
use crate::side_effect::{Done, Refused};

/// What a body may grow by when its task is carried or becomes a dead letter: the history, with the longest error.
pub(crate) const HISTORY_BYTES_MAX: usize = 64 + super::body::ERROR_BYTES_MAX;

impl Inner {
    /// Appends new tasks, all or none. `done` is called when they are durable, and visible, or refused.
    pub(crate) fn accept(self: &Arc<Self>, tasks: &[TaskBody<'_>], done: Done) {
        if let Err((refused, done)) = self.try_accept(tasks, done) {
            self.meters.refused.inc();
            done(Err(refused));
        }
    }

    fn try_accept(self: &Arc<Self>, tasks: &[TaskBody<'_>], done: Done) -> Result<(), (Refused, Done)> {
        let mut entries = Vec::with_capacity(tasks.len());
        let (mut lens, mut finish) = (Vec::with_capacity(tasks.len()), 0);
        for task in tasks {
            let len = task.encoded_len();
            if len + HISTORY_BYTES_MAX > self.body_bytes_max {
                self.say_too_long(task.record.len());
                return Err((Refused::Full, done));
            }
            let mut body = Vec::with_capacity(len);
            task.encode(&mut body);
            lens.push(body.len() as u64);
            finish += finish_bytes(task.attempts_max);
            entries.push((ACCEPTED, body));
        }
        let mut state = self.state.lock();
        if state.closed {
            return Err((Refused::Closed, done));
        }
        let bytes = lens.iter().map(|len| state.tasks.usage.taken(*len)).sum();
        if !state.tasks.usage.fits(&self.disk(Log::Pending), bytes, finish) {
            return Err((Refused::Full, done));
        }
        let mut orders = Vec::with_capacity(tasks.len());
        for (task, (_, body)) in tasks.iter().zip(&mut entries) {
            let order = state.tasks.take_order();
            body[ORDER_AT..ORDER_AT + 8].copy_from_slice(&order.to_le_bytes());
            orders.push((task.id, order));
        }
        // The caller's `done` is in one place, so that a refusal gives it back.
        let slot = Arc::new(parking_lot::Mutex::new(Some(done)));
        let outcome = accepted(orders.clone(), Arc::clone(&slot));
        match self.append(Log::Pending, Class::Accept, &entries, outcome) {
            Ok(positions) => {
                for ((task, (id, order)), at) in tasks.iter().zip(orders).zip(positions) {
                    let sink = state.tasks.destination(task.sink, task.group);
                    let entry = Entry::new(id, order, task.accepted_ns, at, task.attempts_max, sink);
                    state.tasks.insert(entry);
                }
                Ok(())
            }
            Err(refused) => {
                drop(state);
                let done = slot.lock().take();
                done.map_or(Ok(()), |done| Err((refused, done)))
            }
        }
    }

    /// Whether the smallest task would be refused.
    pub(crate) fn accepting(&self) -> Result<(), Refused> {
        let state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let fits = state.tasks.usage.fits(&self.disk(Log::Pending), FRAME_BYTES, finish_bytes(1));
        drop(state);
        if !fits {
            return Err(Refused::Full);
        }
        self.pending.accepting()
    }

    fn say_too_long(&self, record_bytes: usize) {
        if self.meters.too_long_said.allows(crate::clock::now()) {
            log::error!(
                "a record of {record_bytes} bytes is longer than the store can hold ({}): lower limits.record_bytes_max, or raise async.durable.max_bytes",
                self.record_bytes_max()
            );
        }
    }

    /// Longest record that fits, with the longest names.
    pub(crate) fn record_bytes_max(&self) -> usize {
        record_bytes_max(self.body_bytes_max)
    }
}

/// The same for logs whose longest body has so many bytes.
pub(super) fn record_bytes_max(body_bytes_max: usize) -> usize {
    body_bytes_max.saturating_sub(HISTORY_BYTES_MAX + 128 + 3 * super::body::NAME_BYTES_MAX)
}

/// When new tasks are durable they can be taken; when they have failed they never were.
fn accepted(orders: Vec<(u128, u64)>, done: Arc<parking_lot::Mutex<Option<Done>>>) -> Outcome {
    Box::new(move |inner, result| {
        let mut numbers = Vec::new();
        let mut state = inner.state.lock();
        for (id, order) in orders {
            let ours = state.tasks.get(id).is_some_and(|e| e.order == order && e.state == TaskState::Syncing);
            if ours && result.is_ok() {
                numbers.extend(state.tasks.make_ready(id));
            } else if ours {
                state.tasks.remove(id);
            }
        }
        inner.meters.count_tasks(&state);
        drop(state);
        let done = done.lock().take();
        if let Some(done) = done {
            done(result);
        }
        numbers.sort_unstable();
        numbers.dedup();
        inner.wake_sinks(&numbers);
    })
}
