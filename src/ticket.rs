//! A reply that waits: the seam between whoever holds a request's work back (a full queue with
//! `enqueue_mode: wait`, the durable store's sync) and the listener that sends the reply.
//!
//! No thread sleeps for it. The handler makes a [`Ticket`] lazily, hands clones to those who hold work back, and
//! returns [`crate::listener::Reply::Parked`]; the last clone to go away runs the ticket's action, on the thread that dropped it.
//! Whoever cannot do its part says [`Ticket::refuse`] before it lets its clone go.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// One reference to a parked reply. Clone it once for each piece of work that must end first; drop the clone when that
/// piece has ended. When the last one is dropped, the action runs once.
#[derive(Clone)]
pub struct Ticket {
    inner: Arc<Inner>,
}

/// How the work that a reply waited for has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody has refused.
    Done,
    /// Somebody has: the request must not be acked.
    Refused,
}

type Action = Box<dyn FnOnce(Outcome) + Send>;

struct Inner {
    refused: AtomicBool,
    action: Mutex<Option<Action>>,
}

impl Ticket {
    /// A ticket whose `action` (send the parked reply) runs when the last clone is dropped, with how it went. The action must not block.
    pub fn new(action: impl FnOnce(Outcome) + Send + 'static) -> Self {
        let action: Action = Box::new(action);
        Ticket {
            inner: Arc::new(Inner { refused: AtomicBool::new(false), action: Mutex::new(Some(action)) }),
        }
    }

    /// This piece of work could not be done: the action will be told [`Outcome::Refused`], whatever the others say.
    pub fn refuse(self) {
        // The drop of an Arc orders this before the action.
        self.inner.refused.store(true, Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(action) = self.action.get_mut().take() {
            action(if *self.refused.get_mut() { Outcome::Refused } else { Outcome::Done });
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use std::sync::Arc;

    use super::{Outcome, Ticket};

    fn noting() -> (Ticket, Arc<Mutex<Vec<Outcome>>>) {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ran);
        (Ticket::new(move |outcome| seen.lock().push(outcome)), ran)
    }

    #[test]
    fn the_action_runs_once_when_the_last_clone_goes() {
        let (ticket, ran) = noting();
        let other = ticket.clone();
        drop(ticket);
        assert!(ran.lock().is_empty());
        drop(other);
        assert_eq!(*ran.lock(), [Outcome::Done]);
    }

    #[test]
    fn one_refusal_is_enough_whoever_comes_last() {
        for refuse_first in [true, false] {
            let (ticket, ran) = noting();
            let (refused, done) = (ticket.clone(), ticket);
            if refuse_first {
                refused.refuse();
                assert!(ran.lock().is_empty());
                drop(done);
            } else {
                drop(done);
                refused.refuse();
            }
            assert_eq!(*ran.lock(), [Outcome::Refused]);
        }
    }
}
