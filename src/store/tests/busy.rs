//! The store's chores while other threads are at the disk, and syncs take longer than looking.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::support::*;
use crate::side_effect::{End, Ledger, SinkNumber};
use crate::store::Settings;
use crate::store::disk::{Disk, DiskFile, Listed, Lock, LockError, RealDisk};
use crate::store::inner::Bugs;

/// How long a sync takes.
const SYNC: Duration = Duration::from_millis(30);

/// A disk with slow syncs.
struct Slow(RealDisk);

struct SlowFile(Box<dyn DiskFile>);

impl Disk for Slow {
    fn list(&self) -> io::Result<Vec<Listed>> {
        self.0.list()
    }
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(name, bytes)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SlowFile(self.0.open(name)?)))
    }
    fn open_read_only(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.open_read_only(name)
    }
    fn unlink(&self, name: &str) -> io::Result<()> {
        self.0.unlink(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
    fn lock(&self) -> Result<Lock, LockError> {
        self.0.lock()
    }
    fn shown(&self, name: &str) -> String {
        self.0.shown(name)
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(SYNC);
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

/// What is still to be moved is known only when the copies are on the disk. To copy it again and again until then would fill the log with
/// copies, and a log that is full to the last segment can never be emptied again.
#[test]
fn what_lives_long_is_moved_once_however_long_a_sync_takes() {
    let (dir, clock) = (Dir::new("busy"), TestClock::at(1000));
    let disk = |path: &std::path::Path| -> Arc<dyn Disk> {
        Arc::new(Slow(RealDisk::open(path).expect("a directory")))
    };
    let disks = (disk(dir.path()), disk(&dir.path().join("dead")));
    let settings = Settings { segment_bytes: Some(64 << 10), ..Settings::new(dir.path(), 2 * MIB) };
    let registry = crate::metrics::Registry::new();
    let (store, _) =
        open_with(disks, settings, &sinks(), &clock, Bugs::default(), &registry).expect("a store");
    let long: Vec<_> = (0..8).map(|_| (SinkNumber(1), task("a", &[1; 3_000], &clock))).collect();
    accept(&store, &long).expect("accepted");
    let ended = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let others: Vec<_> =
                        (0..4).map(|_| (SinkNumber(2), task("b", &[2; 5_000], &clock))).collect();
                    // The chores may be behind.
                    while accept(&store, &others).is_err() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    while let Some(task) = store.take(SinkNumber(2)) {
                        store.ended(SinkNumber(2), &task, &End::Delivered);
                    }
                }
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            while ended.load(Ordering::SeqCst) < 2 {
                store.inner.tick();
                store.inner.pending.tick(crate::clock::now());
            }
        });
    });
    // Each turn of the log moves them once, and the log has at least five segments.
    let (carried, segments) = (store.inner.meters.carried.get(), store.inner.pending.segments());
    assert!(carried > 0 && carried <= 8 * segments.current / 4, "{carried} copies, {segments:?}");
}
