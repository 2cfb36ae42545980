//! A reply that waits: the seam between whoever holds a request's work back (a full queue with
//! `enqueue_mode: wait`, later the durable store's sync) and the listener that sends the reply.
//!
//! No thread sleeps for it. The handler makes a [`Ticket`] lazily, hands clones to those who hold work back, and
//! returns [`crate::listener::Reply::Parked`]; the last clone to go away runs the ticket's action, on the thread that dropped it.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// One reference to a parked reply. Clone it once for each piece of work that must end first; drop the clone when that
/// piece has ended, whatever its outcome. When the last one is dropped, the action runs once.
#[derive(Clone)]
pub struct Ticket {
    #[allow(dead_code, reason = "held for its Drop")]
    inner: Arc<Inner>,
}

type Action = Box<dyn FnOnce() + Send>;

struct Inner {
    action: Mutex<Option<Action>>,
}

impl Ticket {
    /// A ticket whose `action` (send the parked reply) runs when the last clone is dropped. The action must not block.
    pub fn new(action: impl FnOnce() + Send + 'static) -> Self {
        Ticket { inner: Arc::new(Inner { action: Mutex::new(Some(Box::new(action))) }) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(action) = self.action.get_mut().take() {
            action();
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Ticket;

    #[test]
    fn the_action_runs_once_when_the_last_clone_goes() {
        let ran = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&ran);
        let ticket = Ticket::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        let other = ticket.clone();
        drop(ticket);
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        drop(other);
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    }
}
