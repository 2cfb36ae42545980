//! (skeleton)

use std::fmt;

use crate::config::{Loaded, Problems};

/// Why the server did not start, or did not end as it should.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration is wrong; nothing was bound.
    Config(Problems),
    /// Something outside failed: an address in use, a directory that cannot be written.
    Runtime(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Config(problems) => problems.fmt(f),
            ServeError::Runtime(what) => f.write_str(what),
        }
    }
}

/// (skeleton)
///
/// # Errors
/// See [`ServeError`].
pub fn run(_loaded: &Loaded) -> Result<(), ServeError> {
    Err(ServeError::Runtime("the server is not part of this build".into()))
}
