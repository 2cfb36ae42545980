//! Signals as values: SIGTERM and SIGINT ask for the end, SIGHUP for reopening.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Iter;

use crate::threads;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM or SIGINT: drain and stop.
    Stop,
    /// SIGHUP: reopen log files.
    Reopen,
}

/// The process's signals from now on.
#[derive(Debug)]
pub struct Signals {
    events: Receiver<Event>,
    handle: signal_hook::iterator::Handle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP. A second SIGTERM or SIGINT while the first is being handled is queued.
    ///
    /// # Errors
    /// The kernel refuses the handlers or the thread.
    pub fn install() -> io::Result<Self> {
        let mut iter = Iter::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = iter.handle();
        let (send, events) = bounded(16);
        let thread = threads::spawn("signals", move || {
            for signal in iter.forever() {
                let event = if signal == SIGHUP { Event::Reopen } else { Event::Stop };
                // Sixteen unhandled signals say nothing that a seventeenth could add.
                let _ = send.try_send(event);
            }
        })?;
        Ok(Signals { events, handle, thread: Some(thread) })
    }

    /// The next event, or `None` after `timeout`. Blocks.
    pub fn wait(&self, timeout: Duration) -> Option<Event> {
        self.events.recv_timeout(timeout).ok()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
