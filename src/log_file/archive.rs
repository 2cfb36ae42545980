//! Rotated files: how many are kept, how long, and their compression. Runs on a thread of its own, so that a long compression
//! holds up no rotation.
//!
//! Only files whose names are exactly those of this log file's backups are touched, and none that a writer has open. Order
//! as in lumberjack's `mill`: first what is beyond `max_backups` (a file and its `.gz` count once), then what is older than
//! `max_age` by the time in its name, then what is left uncompressed is compressed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::fs::{self, FILE_MODE, FileId};
use super::names::{Backup, gz, gz_temp};
use super::writer::{LogFile, Options};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// Bytes compressed between two looks at the stop flag.
const SLICE_BYTES: usize = 64 << 10;

/// Applies retention and compression to the backups of `file`. Ends early, with nothing half done, once `stop` is set.
/// `true`: a backup was left alone because a writer may still be in it.
///
/// # Errors
/// The first error; the other files have been seen to all the same.
pub(super) fn tend(file: &LogFile, wall: SystemTime, stop: &AtomicBool) -> io::Result<bool> {
    if !file.options().archives() {
        return Ok(false);
    }
    let dir = file.names.dir();
    let present = fs::list(dir).map_err(|e| fs::doing(&e, "read the directory", dir))?;
    let mut outcome = Ok(());
    // This is the only thread that compresses: what is there under a temporary name is from a crash.
    for name in present.iter().filter(|n| file.names.is_gz_temp(n)) {
        outcome =
            outcome.and(fs::remove(&dir.join(name)).map_err(|e| fs::doing(&e, "remove", &dir.join(name))));
    }
    let backups = present.into_iter().filter_map(|n| Some((file.names.parse_backup(&n)?, n))).collect();
    let now_ms =
        wall.duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(0);
    let plan = plan(backups, now_ms, &file.options());
    let mut left = false;
    for (name, removed) in
        plan.remove.iter().map(|n| (n, true)).chain(plan.compress.iter().map(|n| (n, false)))
    {
        let path = dir.join(name);
        if is_live(file, &path) {
            left = true;
        } else if removed {
            outcome = outcome.and(fs::remove(&path).map_err(|e| fs::doing(&e, "remove", &path)));
        } else if !stop.load(Ordering::Acquire) {
            outcome = outcome.and(compress(file, name, stop).map_err(|e| fs::doing(&e, "compress", &path)));
        }
    }
    outcome.map(|()| left)
}

fn is_live(file: &LogFile, path: &Path) -> bool {
    matches!(fs::look(path), Ok(Some(meta)) if file.live.contains(FileId::of(&meta)))
}

/// What is to be done with the backups.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    remove: Vec<OsString>,
    compress: Vec<OsString>,
}

/// Pure: decides by names, the time and the options.
fn plan(mut backups: Vec<(Backup, OsString)>, now_ms: i64, options: &Options) -> Plan {
    let mut plan = Plan::default();
    // Newest first; of a pair, the uncompressed one first.
    backups.sort_by_key(|(b, _)| (std::cmp::Reverse(b.at_ms), b.compressed));
    let kept_max = if options.backups_max == 0 { usize::MAX } else { options.backups_max as usize };
    let oldest_ms = match options.age_days_max {
        0 => i64::MIN,
        days => now_ms.saturating_sub(i64::from(days).saturating_mul(DAY_MS)),
    };
    let (mut times, mut last) = (0usize, None);
    for (backup, name) in backups {
        if last != Some(backup.at_ms) {
            times += 1;
            last = Some(backup.at_ms);
        }
        if times > kept_max || backup.at_ms < oldest_ms {
            plan.remove.push(name);
        } else if options.compress && !backup.compressed {
            plan.compress.push(name);
        }
    }
    plan
}

/// Compresses a backup to a temporary name, makes that durable, gives it the name, removes the source. A crash at any point
/// leaves the source or the whole `.gz`, or both; a `.gz` beside its source is written again.
fn compress(file: &LogFile, name: &OsStr, stop: &AtomicBool) -> io::Result<()> {
    let dir = file.names.dir();
    let (source, temp, target) = (dir.join(name), dir.join(gz_temp(name)), dir.join(gz(name)));
    let from = match File::open(&source) {
        // Somebody else has cleaned up.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let before = from.metadata()?;
    let written = write_gz(&from, &temp, stop).and_then(|to| {
        fs::take_over_mode(&to, &before)?;
        to.set_times(FileTimes::new().set_accessed(before.accessed()?).set_modified(before.modified()?))?;
        to.sync_all()?;
        let after = from.metadata()?;
        if (after.len(), after.mtime(), after.mtime_nsec())
            != (before.len(), before.mtime(), before.mtime_nsec())
        {
            return Err(io::Error::other("it was written to meanwhile"));
        }
        std::fs::rename(&temp, &target)
    });
    if let Err(e) = written {
        let _ = fs::remove(&temp);
        return if stop.load(Ordering::Acquire) { Ok(()) } else { Err(e) };
    }
    fs::sync_dir(dir)?;
    fs::remove(&source)
}

fn write_gz(mut from: &File, temp: &Path, stop: &AtomicBool) -> io::Result<File> {
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(temp)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    let mut slice = vec![0; SLICE_BYTES];
    loop {
        if stop.load(Ordering::Acquire) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match from.read(&mut slice) {
            Ok(0) => return encoder.finish(),
            Ok(bytes) => encoder.write_all(&slice[..bytes])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
