//! (skeleton)

/// How diagnostics look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. A second call changes nothing.
pub fn init(level: log::LevelFilter, _format: Format) {
    let _ = env_logger::Builder::new().filter_level(level).try_init();
}
