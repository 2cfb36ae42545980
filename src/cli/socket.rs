//! Where the control socket of the running server is.

use std::path::{Path, PathBuf};

use super::{Io, say_problems};
use crate::config::Overrides;

/// The named socket, else the one of the configuration. `None`: what is wrong has been said.
pub(super) fn find(named: Option<&Path>, overrides: &Overrides, io: &mut Io<'_>) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_owned());
    }
    let loaded = match super::load(overrides).map(|checked| checked.loaded) {
        Ok(loaded) => loaded,
        Err(problems) => {
            say_problems(&problems, io);
            io.say(
                "the control socket can be given without a configuration where the command has --socket PATH",
            );
            return None;
        }
    };
    let path = loaded.config.control_path();
    if path.is_none() {
        io.say(&format!(
            "{}: control.socket is not set and async.durable.enabled is false, so the server has no control socket; \
             set control.socket to a path and restart it",
            loaded.source()
        ));
    }
    path
}
