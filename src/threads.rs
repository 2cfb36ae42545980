//! Named threads. Every thread of the program is started here and joined by the code that started it.

use std::io;
use std::thread::{Builder, JoinHandle};

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
