//! Making segments and spares: the order of steps that makes each appear whole or not at all.

use std::io;
use std::sync::Arc;

use super::format::{self, HEADER_COPY, Header};
use crate::store::disk::{Disk, DiskFile};

/// What a directory's leftovers are called; deleted at start.
pub(super) const TEMPORARY: &str = ".tmp";

/// How far the making of a segment came before it failed.
#[derive(Debug)]
pub(super) struct NotMade {
    pub(super) error: io::Error,
    /// The file has (or may have) the segment's name.
    pub(super) named: bool,
    /// What failed, with the file.
    pub(super) what: String,
}

/// Makes an empty, synced file of `bytes` zeros called `name`. What is left after an error is removed if possible.
pub(super) fn spare(disk: &dyn Disk, name: &str, bytes: u64) -> io::Result<()> {
    let made = disk.create(name, bytes).and_then(|file| file.sync());
    if made.is_err() {
        let _ = disk.unlink(name);
    }
    made
}

/// Makes the file `from`, empty and synced, into the segment that `header` describes. With `sync_dir` false the new name is not synced
/// (a fault for tests). A spare that failed is removed if possible.
pub(super) fn segment(
    disk: &dyn Disk,
    from: &str,
    header: &Header,
    sync_dir: bool,
) -> Result<Arc<dyn DiskFile>, NotMade> {
    let name = format::segment_name(header.number);
    let told = |named: bool, step: &'static str, file: &str| {
        let what = format!("{step} {:?}", disk.shown(file));
        move |error: io::Error| NotMade { what: format!("{what}: {error}"), error, named }
    };
    let written = disk.open(from).and_then(|file| {
        write_header(&*file, header)?;
        file.sync()?;
        Ok(file)
    });
    let file = written.map_err(told(false, "cannot write the header of", from)).inspect_err(|_| {
        let _ = disk.unlink(from);
    })?;
    disk.rename(from, &name).map_err(told(false, "cannot rename a spare to", &name)).inspect_err(|_| {
        let _ = disk.unlink(from);
    })?;
    if sync_dir {
        disk.sync_dir().map_err(told(true, "cannot sync the directory of", &name))?;
    }
    Ok(Arc::from(file))
}

/// Writes both copies of the header.
pub(super) fn write_header(file: &dyn DiskFile, header: &Header) -> io::Result<()> {
    let copy = format::encode_header(header);
    file.write_at(&copy, 0)?;
    file.write_at(&copy, HEADER_COPY)
}

/// Makes the file called `temporary` with the first `contents.len()` bytes of a segment, zeros up to `bytes` behind them, synced.
pub(super) fn copy(
    disk: &dyn Disk,
    temporary: &str,
    contents: &[u8],
    bytes: u64,
    sync: bool,
) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.create(temporary, bytes.max(contents.len() as u64))?;
    file.write_at(contents, 0)?;
    if sync {
        file.sync()?;
    }
    Ok(file)
}
