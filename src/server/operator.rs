//! The control API in the server: its socket is bound before log files are opened, and served once everything else runs.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::ServeError;
use crate::config::Config;
use crate::control::reload::ReloadError;
use crate::control::tasks::TaskBook;
use crate::control::{self, Api, Bound, Control, OpenBook, Parts, Reload};
use crate::listener::Listening;
use crate::metrics::Registry;
use crate::service::Gateway;
use crate::signal::{Event, Signals};
use crate::store::Opened;

/// Binds the control socket, where there is to be one, or takes the one that was passed.
pub(super) fn bind(config: &Config, passed: Option<UnixListener>) -> Result<Option<Bound>, ServeError> {
    let Some(path) = config.control_path() else { return Ok(None) };
    let bound = match passed {
        Some(listener) => control::adopt(listener, &path),
        None => control::bind(&path),
    };
    let bound = bound.map_err(|e| ServeError::Runtime(e.to_string()))?;
    log::info!("listening: control API on {}", path.display());
    Ok(Some(bound))
}

/// The store as the operator sees it.
pub(super) fn tasks(config: &Config, opened: &Opened, registry: &Arc<Registry>) -> Arc<dyn TaskBook> {
    let durable = &config.side_effects.durable;
    let store = Arc::clone(&opened.store);
    Arc::new(OpenBook::new(store, Arc::clone(registry), &durable.dir, durable.max_bytes, &opened.report))
}

/// How long the control API waits before it looks whether the server is stopping.
const LOOK: Duration = Duration::from_millis(100);

/// Has the supervisor reload the configuration, and waits for its answer.
pub(super) fn reload(gateway: &Arc<Gateway>, signals: &Signals) -> Reload {
    let (gateway, events) = (Arc::clone(gateway), signals.sender());
    Box::new(move || {
        let (answer, answered) = bounded(1);
        if events.try_send(Event::Reload(answer)).is_err() {
            return Err(ReloadError::Busy);
        }
        loop {
            match answered.recv_timeout(LOOK) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) if !gateway.is_draining() => {}
                Err(_) => return Err(ReloadError::Busy),
            }
        }
    })
}

/// Serves the control API.
pub(super) fn start(
    config: &Config,
    bound: Bound,
    listening: Vec<Listening>,
    parts: Parts,
) -> Result<Control, ServeError> {
    let api = Arc::new(Api::new(listening, parts));
    Control::start(bound, api, config.limits.record_bytes_max)
        .map_err(|e| ServeError::Runtime(format!("cannot start the control API: {e}")))
}
