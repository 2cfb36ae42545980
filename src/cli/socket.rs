//! Where the control socket of the running server is, and what to say when it does not answer.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{FAILED, Io, WRONG, say_problems};
use crate::config::{self, Loaded, Overrides};
use crate::control::ClientError;

/// The socket, for commands that can do without a configuration.
#[derive(Debug, Args)]
pub(super) struct Socket {
    /// The server's control socket [default: that of the configuration]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Socket {
    /// The named socket, else the one of the configuration. `None`: what is wrong has been said.
    pub(super) fn find(&self, overrides: &Overrides, io: &mut Io<'_>) -> Option<PathBuf> {
        self.socket.clone().or_else(|| find(overrides, io))
    }

    /// The same, for a server that will tell of the mistakes in the configuration itself: they do not keep it from being asked.
    pub(super) fn find_despite_mistakes(&self, overrides: &Overrides, io: &mut Io<'_>) -> Option<PathBuf> {
        self.socket.clone().or_else(|| match super::load(overrides) {
            Ok(checked) => of(&checked.loaded, io),
            Err(problems) => config::control_path(overrides).or_else(|| unknown(&problems, io)),
        })
    }
}

/// The socket of the configuration. `None`: what is wrong has been said.
pub(super) fn find(overrides: &Overrides, io: &mut Io<'_>) -> Option<PathBuf> {
    match super::load(overrides) {
        Ok(checked) => of(&checked.loaded, io),
        Err(problems) => unknown(&problems, io),
    }
}

fn unknown(problems: &config::Problems, io: &mut Io<'_>) -> Option<PathBuf> {
    say_problems(problems, io);
    io.say("the control socket can be given without a configuration where the command has --socket PATH");
    None
}

fn of(loaded: &Loaded, io: &mut Io<'_>) -> Option<PathBuf> {
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

/// Says why the server at `path` did not do what it was asked. The exit code.
pub(super) fn failed(path: &Path, error: &ClientError, io: &mut Io<'_>) -> u8 {
    io.say(&format!("{path:?}: {error}"));
    if matches!(error, ClientError::NoServer(_)) { FAILED } else { WRONG }
}
