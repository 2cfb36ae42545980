//! `serve`: check the configuration, then run the server.

use super::{FAILED, Io, OK, WRONG, say_problems};
use crate::config::Overrides;
use crate::server::{self, ServeError};

pub(super) const EXAMPLES: &str = "\
Examples:
  Three groups worth having, on loopback, log files below the current directory:
      vault-audit-filter serve --config config/quickstart.yaml
  Its own settings from the environment, its diagnostics as JSON:
      VAULT_AUDIT_FILTER_LISTEN_ADMIN_ADDRESS=127.0.0.1:9100 vault-audit-filter serve --log-format json

Signals: SIGTERM and SIGINT finish queued work within shutdown.drain_timeout and stop; SIGHUP reopens log files and
reloads the configuration.
Exit code: 0 after a stop, 1 when something outside failed, 2 when the configuration is wrong (then nothing was bound).";

/// Runs the server until it is told to stop. With a wrong configuration nothing is bound, opened or written.
pub(super) fn run(overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let checked = match super::load(overrides) {
        Ok(checked) => checked,
        Err(problems) => {
            say_problems(&problems, io);
            return WRONG;
        }
    };
    log::info!("{}", checked.loaded.source());
    for warning in &checked.loaded.warnings {
        log::warn!("{warning}");
    }
    match server::run(checked, &|| super::load(overrides)) {
        Ok(()) => OK,
        Err(ServeError::Config(problems)) => {
            say_problems(&problems, io);
            WRONG
        }
        Err(error @ ServeError::Runtime(_)) => {
            log::error!("{error}");
            FAILED
        }
    }
}
