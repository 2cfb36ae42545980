//! Giving rotated files their names, and finishing at start-up what a crash has interrupted.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::fs::{self, FileId};
use super::names::{Names, gz};

/// Names tried when others hold the ones wanted.
const NAMES_MAX: usize = 1000;

/// Gives the file at `from` the name of a backup made now: with the next free millisecond when that name is taken.
pub(super) fn move_to_backup(
    names: &Names,
    from: &Path,
    wall: SystemTime,
    last_ms: &mut i64,
) -> io::Result<PathBuf> {
    let now_ms =
        wall.duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(0);
    let mut at_ms = now_ms.max(last_ms.saturating_add(1));
    // A clock set back by much: its names are right again at once, at the price of their order.
    const AHEAD_MS_MAX: i64 = 60_000;
    if at_ms - now_ms > AHEAD_MS_MAX {
        at_ms = now_ms;
    }
    for _ in 0..NAMES_MAX {
        let name =
            names.backup(at_ms).ok_or_else(|| io::Error::other("the clock is beyond the year 9999"))?;
        let to = names.dir().join(name);
        let compressed = gz(to.as_os_str());
        let taken = fs::look(Path::new(&compressed))?.is_some();
        match if taken { Err(io::ErrorKind::AlreadyExists.into()) } else { fs::rename_noreplace(from, &to) } {
            Ok(()) => {
                *last_ms = at_ms;
                return Ok(to);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => at_ms += 1,
            Err(e) => return Err(fs::doing(&e, "rotate", from)),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("no free name for the backup of {from:?}")))
}

/// Start-up: finishes what a crash has left between two steps of a rotation.
///
/// Called for a file that no generation of this process has open. Spares with lines in them become the log file, oldest first, after
/// what is there has been rotated; empty ones are removed.
///
/// # Errors
/// Those of the file system, with the path. What has been done stays done, and a next try goes on from there.
pub(super) fn recover(names: &Names, wall: SystemTime) -> io::Result<()> {
    let path = names.path();
    let present = fs::list(names.dir()).map_err(|e| fs::doing(&e, "read the directory", names.dir()))?;
    unlink_twin(names, &path, &present)?;
    let mut spares: Vec<_> =
        present.iter().filter_map(|n| Some((names.parse_spare(n)?, names.dir().join(n)))).collect();
    spares.sort();
    let mut last_ms = i64::MIN;
    for (_, spare) in spares {
        let Some(meta) = fs::look(&spare)? else { continue };
        let here = fs::look(&path)?;
        if meta.len() == 0 || here.as_ref().is_some_and(|h| FileId::of(h) == FileId::of(&meta)) {
            fs::remove(&spare)?;
            continue;
        }
        match here {
            Some(h) if h.len() == 0 => fs::remove(&path)?,
            Some(_) => drop(move_to_backup(names, &path, wall, &mut last_ms)?),
            None => {}
        }
        fs::rename_noreplace(&spare, &path).map_err(|e| fs::doing(&e, "put the next file at", &path))?;
        log::info!("{spare:?} is the log file {path:?} now: a rotation had been interrupted");
    }
    Ok(())
}

/// Where renaming is linking and unlinking, a crash may leave a backup that is still at the path as well.
fn unlink_twin(names: &Names, path: &Path, present: &[OsString]) -> io::Result<()> {
    let Some(here) = fs::look(path)?.filter(|meta| meta.nlink() > 1) else { return Ok(()) };
    for name in present.iter().filter(|n| names.parse_backup(n).is_some()) {
        if fs::look(&names.dir().join(name))?.is_some_and(|meta| FileId::of(&meta) == FileId::of(&here)) {
            return fs::remove(path);
        }
    }
    Ok(())
}
