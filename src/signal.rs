//! Signals as values: SIGTERM and SIGINT ask for the end, SIGHUP for reopening and reloading. Others may ask for a reload the same way.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Iter;

use crate::control::reload::{Applied, ReloadError};
use crate::threads;

/// What a signal asks for.
#[derive(Debug)]
pub enum Event {
    /// SIGTERM or SIGINT: drain and stop.
    Stop,
    /// SIGHUP: reopen log files, then reload the configuration.
    HangUp,
    /// Somebody who waits for the answer wants the configuration reloaded.
    Reload(Sender<Result<Applied, ReloadError>>),
}

/// The process's signals from now on.
#[derive(Debug)]
pub struct Signals {
    events: Receiver<Event>,
    sender: Sender<Event>,
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
        let sender = send.clone();
        let thread = threads::spawn("signals", move || {
            for signal in iter.forever() {
                let event = if signal == SIGHUP { Event::HangUp } else { Event::Stop };
                // Sixteen unhandled signals say nothing that a seventeenth could add.
                let _ = send.try_send(event);
            }
        })?;
        Ok(Signals { events, sender, handle, thread: Some(thread) })
    }

    /// Where others put events in: a bounded channel.
    pub fn sender(&self) -> Sender<Event> {
        self.sender.clone()
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
