//! The one thread that ends the waiting of those who waited too long for room, for all sinks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::queue::Shared;
use crate::{clock, threads};

/// Started with the sinks, stopped after them.
pub(super) struct Timer {
    kick: Sender<()>,
    stop: Arc<AtomicBool>,
    sinks: Arc<Mutex<Vec<Weak<Shared>>>>,
    thread: JoinHandle<()>,
}

impl Timer {
    /// Starts it, for no sinks yet.
    pub(super) fn start() -> std::io::Result<Timer> {
        // One place is enough: the timer looks at all sinks.
        let (kick, kicked): (Sender<()>, Receiver<()>) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let sinks: Arc<Mutex<Vec<Weak<Shared>>>> = Arc::default();
        let (stopped, watched) = (Arc::clone(&stop), Arc::clone(&sinks));
        let thread = threads::spawn("enqueue-timer", move || {
            while !stopped.load(Ordering::SeqCst) {
                let now = clock::now();
                // The sinks are not held while tickets go away: the last one of a reply sends it.
                let sinks: Vec<Arc<Shared>> = watched.lock().iter().filter_map(Weak::upgrade).collect();
                let next = sinks.iter().filter_map(|sink| sink.expire_waiting(now)).min();
                drop(sinks);
                let _ = match next {
                    Some(at) => kicked.recv_deadline(at).ok(),
                    None => kicked.recv().ok(),
                };
            }
        })?;
        Ok(Timer { kick, stop, sinks, thread })
    }

    /// Where to tell it of a new deadline.
    pub(super) fn kick(&self) -> Sender<()> {
        self.kick.clone()
    }

    /// Looks after one more sink, for as long as it lives.
    pub(super) fn watch(&self, sink: &Arc<Shared>) {
        let mut sinks = self.sinks.lock();
        sinks.retain(|known| known.strong_count() > 0);
        sinks.push(Arc::downgrade(sink));
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.kick.try_send(());
        if self.thread.join().is_err() {
            log::error!("the enqueue timer panicked");
        }
    }
}
