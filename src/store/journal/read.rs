//! Reading a record back.

use std::io;
use std::sync::{Arc, PoisonError};

use super::book::Chunk;
use super::format::{self, HEAD_BYTES, Home};
use super::types::Position;
use super::{HANDLES, Journal};
use crate::store::disk::DiskFile;

impl Journal {
    /// Reads the body of the record at `position` into `body` (cleared first): from memory while it waits there, else from the disk with
    /// its checksum looked at. Blocks for the disk.
    ///
    /// # Errors
    /// `InvalidData` when there is no valid record of that length; the disk's.
    pub fn read(&self, position: Position, body: &mut Vec<u8>) -> io::Result<()> {
        body.clear();
        if self.read_waiting(position, body) {
            return Ok(());
        }
        let file = self.handle(position.segment)?;
        body.resize(format::record_bytes(position.len as usize) as usize, 0);
        let n = file.read_at(body, u64::from(position.offset))?;
        let home = Home::new(self.store, position.segment);
        let valid =
            format::decode_record(&body[..n], home).is_some_and(|r| r.body.len() == position.len as usize);
        if !valid {
            body.clear();
            let name = self.disk.shown(&format::segment_name(position.segment));
            let what = format!("{name:?}: no valid record at offset {}", position.offset);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        body.copy_within(HEAD_BYTES.., 0);
        body.truncate(position.len as usize);
        Ok(())
    }

    fn read_waiting(&self, position: Position, body: &mut Vec<u8>) -> bool {
        let state = self.gate.lock();
        let waiting =
            state.inflight.as_deref().into_iter().chain(state.queue.iter().map(|batch| &batch.payload));
        for chunk in waiting {
            if let Some(found) = in_chunk(chunk, position) {
                body.extend_from_slice(found);
                return true;
            }
        }
        false
    }

    fn handle(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        {
            let state = self.gate.lock();
            if state.book.current.number == segment {
                return Ok(Arc::clone(&state.book.current.file));
            }
        }
        let lock = || self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = lock().iter().find(|(number, _)| *number == segment) {
            return Ok(Arc::clone(file));
        }
        let file: Arc<dyn DiskFile> = Arc::from(self.disk.open_read_only(&format::segment_name(segment))?);
        let mut handles = lock();
        if handles.len() >= HANDLES {
            handles.pop_front();
        }
        handles.push_back((segment, Arc::clone(&file)));
        Ok(file)
    }
}

fn in_chunk(chunk: &Chunk, position: Position) -> Option<&[u8]> {
    if chunk.segment != position.segment {
        return None;
    }
    let at = usize::try_from(u64::from(position.offset).checked_sub(chunk.offset)?).ok()?;
    let record = chunk.bytes.get(at..)?;
    (format::body_len(record)? == position.len).then_some(())?;
    record.get(HEAD_BYTES..HEAD_BYTES + position.len as usize)
}
