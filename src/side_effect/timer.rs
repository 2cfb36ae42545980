//! The one thread that ends the waiting of those who waited too long for room, for all sinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::queue::Shared;
use crate::{clock, threads};

/// Started with the sinks, stopped after them.
pub(super) struct Timer {
    kick: Sender<()>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// The two ends of the channel that tells the timer of new deadlines. One place is enough: the timer looks at all sinks.
pub(super) fn channel() -> (Sender<()>, Receiver<()>) {
    bounded(1)
}

impl Timer {
    pub(super) fn start(
        (kick, kicked): (Sender<()>, Receiver<()>),
        sinks: Vec<Arc<Shared>>,
    ) -> std::io::Result<Timer> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = threads::spawn("enqueue-timer", move || {
            while !stopped.load(Ordering::SeqCst) {
                let now = clock::now();
                let next = sinks.iter().filter_map(|sink| sink.expire_waiting(now)).min();
                let _ = match next {
                    Some(at) => kicked.recv_deadline(at).ok(),
                    None => kicked.recv().ok(),
                };
            }
        })?;
        Ok(Timer { kick, stop, thread })
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.kick.try_send(());
        if self.thread.join().is_err() {
            log::error!("the enqueue timer panicked");
        }
    }
}
