//! Finding the valid records in a segment's bytes, and telling damage from a torn end. No I/O.

use super::format::{self, HEADER_BYTES, Home, KIND_CLOSE, KIND_TRIM, Record};

/// What is known about a segment before it is scanned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) home: Home,
    /// Sequence number of the first record; `None` when the header is unreadable.
    pub(super) base_seq: Option<u64>,
    /// Where the records end and the sequence number behind the last one, when there is a successor to say so.
    pub(super) end: Option<(u64, u64)>,
    /// Checksums are not looked at (a fault for tests).
    pub(super) blind: bool,
    /// Every invalid record ends the log (a fault for tests).
    pub(super) all_torn: bool,
}

/// A valid record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) seq: u64,
    pub(super) durable_upto: u64,
    pub(super) bytes: u64,
}

/// Bytes that had been synced and are no valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Records that were there; 0 when that cannot be told.
    pub(super) lost: u64,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// The valid records, in order.
    pub(super) records: Vec<Found>,
    pub(super) holes: Vec<Hole>,
    /// Where the records end.
    pub(super) end: u64,
    /// Sequence number behind the last one.
    pub(super) next_seq: u64,
    /// Bytes behind the end that are no zeros, up to the last of them: a torn end.
    pub(super) torn: u64,
    /// Greatest low-water mark in the records.
    pub(super) trim: u64,
    /// Whether the last record is a Close.
    pub(super) closed: bool,
}

/// Scans the bytes of a whole segment file.
pub(super) fn scan(bytes: &[u8], known: &Known) -> Scan {
    let limit = known.end.map_or(bytes.len() as u64, |(end, _)| end.min(bytes.len() as u64));
    let mut out =
        Scan { records: find(&bytes[..limit as usize], known), end: HEADER_BYTES, ..Scan::default() };
    let synced = synced_upto(&out.records);
    let mut next = known.base_seq;
    let mut kept = 0;
    for (i, found) in out.records.iter().enumerate() {
        let gap = found.offset > out.end || next.is_some_and(|next| next != found.seq);
        if gap {
            // Without a successor a gap is damage only if something behind it says that what was there had been synced.
            let expected = next.unwrap_or(0);
            let was_synced = known.end.is_some() || synced[i] > expected;
            if !was_synced || known.all_torn {
                break;
            }
            let lost = next.map_or(0, |next| found.seq.saturating_sub(next));
            out.holes.push(Hole { offset: out.end, bytes: found.offset - out.end, lost });
        }
        kept = i + 1;
        out.end = found.offset + found.bytes;
        next = Some(found.seq + 1);
    }
    out.records.truncate(kept);
    out.next_seq = next.unwrap_or(0);
    match known.end {
        Some(end) => short_end(&mut out, end),
        None => out.torn = torn(bytes, out.end),
    }
    for found in &out.records {
        let record = &bytes[found.offset as usize..];
        let (kind, body) = (record[24], &record[format::HEAD_BYTES..]);
        if let (KIND_TRIM, Some(mark)) = (kind, body.first_chunk::<8>()) {
            out.trim = out.trim.max(u64::from_le_bytes(*mark));
        }
        out.closed = kind == KIND_CLOSE;
    }
    out
}

/// Every record that is valid by itself and follows the earlier ones in sequence; invalid bytes are passed over in steps of 8.
fn find(bytes: &[u8], known: &Known) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = HEADER_BYTES as usize;
    let mut least = known.base_seq.unwrap_or(1);
    while at < bytes.len() {
        // Zeros are passed over fast: most of a segment may be empty.
        if bytes[at..].first_chunk() == Some(&[0_u8; 8]) {
            at += 8;
            continue;
        }
        let record = record_at(&bytes[at..], known).filter(|record| plausible(record, least, bytes.len()));
        let Some(record) = record else {
            at += 8;
            continue;
        };
        let taken = format::record_bytes(record.body.len());
        found.push(Found {
            offset: at as u64,
            seq: record.seq,
            durable_upto: record.durable_upto,
            bytes: taken,
        });
        least = record.seq + 1;
        at += taken as usize;
    }
    found
}

fn record_at<'a>(bytes: &'a [u8], known: &Known) -> Option<Record<'a>> {
    if known.blind { format::decode(bytes, |_| true) } else { format::decode_record(bytes, known.home) }
}

/// Whether a valid record can stand where `least` or a later one is expected.
fn plausible(record: &Record<'_>, least: u64, bytes: usize) -> bool {
    let most = if least == 1 { u64::MAX } else { least.saturating_add(bytes as u64) };
    (least..most).contains(&record.seq) && record.durable_upto <= record.seq
}

/// For each record, the greatest "durable upto" of it and those behind it.
fn synced_upto(records: &[Found]) -> Vec<u64> {
    let mut greatest = 0;
    let mut out: Vec<u64> = records
        .iter()
        .rev()
        .map(|found| {
            greatest = greatest.max(found.durable_upto);
            greatest
        })
        .collect();
    out.reverse();
    out
}

/// Enters what is missing before the end that the successor tells.
fn short_end(out: &mut Scan, (end, next_seq): (u64, u64)) {
    if out.end < end {
        let lost = if out.next_seq == 0 { 0 } else { next_seq.saturating_sub(out.next_seq) };
        out.holes.push(Hole { offset: out.end, bytes: end - out.end, lost });
    }
    out.end = end;
    out.next_seq = next_seq;
}

/// How many bytes from `end` to the last one that is not zero.
fn torn(bytes: &[u8], end: u64) -> u64 {
    let behind = bytes.get(end as usize..).unwrap_or_default();
    behind.iter().rposition(|b| *b != 0).map_or(0, |last| last as u64 + 1)
}
