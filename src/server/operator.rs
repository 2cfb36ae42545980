//! The control API in the server: its socket is bound before log files are opened, and served once everything else runs.

use std::sync::Arc;

use super::ServeError;
use crate::config::Config;
use crate::control::tasks::TaskBook;
use crate::control::{self, Api, Bound, Control, OpenBook, Parts};
use crate::metrics::Registry;
use crate::store::Opened;

/// Binds the control socket, where there is to be one.
pub(super) fn bind(config: &Config) -> Result<Option<Bound>, ServeError> {
    let Some(path) = config.control_path() else { return Ok(None) };
    let bound = control::bind(&path).map_err(|e| ServeError::Runtime(e.to_string()))?;
    log::info!("listening: control API on {}", path.display());
    Ok(Some(bound))
}

/// The store as the operator sees it.
pub(super) fn tasks(config: &Config, opened: &Opened, registry: &Arc<Registry>) -> Arc<dyn TaskBook> {
    let durable = &config.side_effects.durable;
    let store = Arc::clone(&opened.store);
    Arc::new(OpenBook::new(store, Arc::clone(registry), &durable.dir, durable.max_bytes, &opened.report))
}

/// Serves the control API.
pub(super) fn start(config: &Config, bound: Bound, parts: Parts) -> Result<Control, ServeError> {
    let api = Arc::new(Api::new(config, parts));
    Control::start(bound, api, config.limits.record_bytes_max)
        .map_err(|e| ServeError::Runtime(format!("cannot start the control API: {e}")))
}
