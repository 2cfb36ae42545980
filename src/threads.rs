//! Named threads. Every thread of the program is started here and joined by the code that started it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock;

/// A number of the calling thread's own, from 1. Takes no lock.
pub fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static OWN: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    OWN.with(|own| *own)
}

/// How often [`join_by`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Joins those of `threads` that have ended by `deadline`, and leaves the others behind: the kernel may keep a thread in a write to a disk
/// that hangs for ever. Says which panicked. Returns the names of those left.
pub fn join_by(threads: Vec<JoinHandle<()>>, deadline: Instant) -> Vec<String> {
    let mut left = Vec::new();
    for thread in threads {
        while !thread.is_finished() && clock::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        let name = thread.thread().name().unwrap_or("a thread").to_owned();
        if !thread.is_finished() {
            left.push(name);
        } else if thread.join().is_err() {
            log::error!("the thread {name} has panicked");
        }
    }
    left
}

/// Starts a thread called `name` (the kernel keeps 15 bytes of it).
///
/// # Errors
/// The kernel's refusal to make another thread, with the name in the message.
pub fn spawn<F>(name: &str, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot start thread {name}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_end_is_left_behind() {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let stuck = spawn("stuck", move || assert!(stopped.recv().is_err())).expect("a thread");
        let ended = spawn("ended", || ()).expect("a thread");
        let panicked = spawn("panicked", || panic!("as it should")).expect("a thread");
        let soon = clock::now() + Duration::from_secs(60);
        assert!(join_by(vec![ended, panicked], soon).is_empty());
        assert_eq!(join_by(vec![stuck], clock::now()), ["stuck"]);
        drop(stop);
        assert_eq!(number(), number());
    }
}
