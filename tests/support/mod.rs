//! What end-to-end tests need besides the program: places, ports, patience, senders, an HTTP client, a recording
//! HTTP server and a real OpenBao.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "shared by test programs that each use a part; tests read whole answers, start plain threads and look at the clock"
)]

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub mod http;
pub mod openbao;
pub mod send;
pub mod sink;

/// How long a test waits for an event before it fails. Long, because it only bounds the failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of one's own, removed with everything in it.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes a new, empty directory whose name contains `name`.
    pub fn new(name: &str) -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vaf-{}-{n}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port of 127.0.0.1 that is free for TCP and UDP. Taken from below the range from which the kernel gives ports to
/// outgoing connections, and never twice by one process, so that it is still free when the program binds it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let here = (Ipv4Addr::LOCALHOST, port);
        if let (Ok(_tcp), Ok(_udp)) = (TcpListener::bind(here), UdpSocket::bind(here)) {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// Asks `done` again and again until it says yes; false when that takes longer than `patience`.
pub fn happens_within(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for an event, and fails naming it when it does not come.
#[track_caller]
pub fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(happens_within(PATIENCE, done), "waited {} s in vain until {what}", PATIENCE.as_secs());
}

/// Says on the standard error of the test program itself (libtest does not hold it back) that a test could not run
/// here, and notes it in the file that `VAF_LEFT_OUT` names, from which `tests/run` prints a summary.
pub fn left_out(test: &str, why: &str) {
    let line = format!("left out: {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("VAF_LEFT_OUT")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = file.write_all(line.as_bytes());
    }
}
