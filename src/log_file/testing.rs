//! What the tests of this module share.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::generation::Generation;
use super::writer::Options;
use super::{LogFile, LogFiles};
use crate::clock;
use crate::config::{self, SyncPolicy};
use crate::metrics::Registry;

/// A directory of its own, removed at the end.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> TempDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("vaf-log-{}-{name}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        TempDir(dir.canonicalize().expect("canonical"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Names in the directory, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = super::fs::list(&self.0)
            .expect("list")
            .into_iter()
            .map(|n| n.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    /// The lines of all files that are not compressed, hidden ones included.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for name in self.names().iter().filter(|n| !n.ends_with(".gz")) {
            let text = String::from_utf8(std::fs::read(self.path(name)).expect("read")).expect("UTF-8");
            assert!(text.is_empty() || text.ends_with('\n'), "{name} ends in a torn line");
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A log file whose writes hang once 4 KiB are in it, until they are read from the other end.
pub(crate) fn hanging_file(path: &std::path::Path, metrics: &Registry) -> (Arc<LogFile>, File) {
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    let file = LogFiles::new().open(&config::LogFile::at(path.to_owned()), metrics).expect("a log file");
    file.current.store(Arc::new(Generation::of_pipe(File::from(writer), &file.live)));
    (file, File::from(reader))
}

/// Options with a size in bytes and everything else off.
pub(in crate::log_file) fn options(bytes_max: u64) -> Options {
    Options { bytes_max, backups_max: 0, age_days_max: 0, compress: false, sync: SyncPolicy::Never }
}

/// Waits until `happened`, or fails after ten seconds.
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = clock::now() + Duration::from_secs(10);
    while !happened() {
        assert!(clock::now() < deadline, "it did not happen: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
