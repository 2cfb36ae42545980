//! Opening: what is in the directory, what of it is the journal, and its end made durable.
//!
//! Nothing is removed before the end has been written anew and synced, so that every step can be cut off and begun again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::book::{Book, Current, Limits, Segment};
use super::chain::{self, Link, Seen, Verdict};
use super::establish::{self, TEMPORARY};
use super::format::{self, HEADER_BYTES, HEADER_COPY, HEADER_USED, Header, Home};
use super::keeper::free_name;
use super::scan::{self, Known, Scan};
#[cfg(test)]
use super::seed::Seed;
use super::types::{Damage, DamageKind, Entry, OpenError, Options, Position, Report, SEGMENT_BYTES_MAX};
use crate::store::disk::{Disk, DiskFile};

/// A journal as it is after its opening.
pub(super) struct Recovered {
    pub(super) store: u128,
    pub(super) book: Book,
    pub(super) next_seq: u64,
    pub(super) report: Report,
}

pub(super) type Replay<'a> = &'a mut dyn FnMut(Position, Entry<'_>);

/// Faults that are built into the scan for tests.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    blind: bool,
    all_torn: bool,
}

fn failed(disk: &dyn Disk, doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> OpenError {
    let file = disk.shown(name);
    move |error| OpenError::Io { file, doing, error }
}

/// Reads a directory; nothing in it is changed.
pub(super) fn look(disk: &dyn Disk, replay: Replay<'_>) -> Result<Report, OpenError> {
    let mut found = survey(disk, Faults::default())?;
    read_all(disk, &mut found, replay)?;
    Ok(found.report)
}

/// What is in a directory.
struct Found {
    store: Option<u128>,
    faults: Faults,
    links: Vec<Link>,
    void: Vec<u64>,
    low_water: u64,
    highest: u64,
    kept_bytes: u64,
    report: Report,
    lens: BTreeMap<u64, u64>,
    /// Segments with damage.
    damaged: Vec<u64>,
    /// The last segment's bytes and what is in them.
    last: Option<(Vec<u8>, Scan)>,
}

fn survey(disk: &dyn Disk, faults: Faults) -> Result<Found, OpenError> {
    let listed = disk.list().map_err(failed(disk, "read directory", ""))?;
    let mut seen = Vec::new();
    let mut kept_bytes = 0;
    for file in &listed {
        if let Some(number) = format::segment_number(&file.name) {
            seen.push(Seen { number, len: file.len, page: read(disk, number, HEADER_BYTES)? });
        } else if file.name.contains(".seg.damaged") {
            kept_bytes += file.len;
        }
    }
    let store = chain::store(&seen);
    let mut found = Found {
        store,
        faults,
        links: Vec::new(),
        void: Vec::new(),
        low_water: 0,
        highest: seen.last().map_or(0, |file| file.number),
        kept_bytes,
        report: Report::default(),
        lens: seen.iter().map(|file| (file.number, file.len)).collect(),
        damaged: Vec::new(),
        last: None,
    };
    let (ours, kept) = sort_out(disk, &mut found, &seen)?;
    found.low_water = low_water(disk, &found, &ours)?;
    let chain = chain::chain(&ours, &kept, found.low_water);
    found.links = chain.links;
    found.void = chain.void;
    for (first, last) in chain.missing {
        for number in (first..=last).take(1000) {
            found.tell(disk, number, 0, DamageKind::Missing);
        }
    }
    Ok(found)
}

type Sorted = (BTreeMap<u64, Option<Header>>, Vec<u64>);

/// Divides the files into segments of this journal and files that are kept as they are.
fn sort_out(disk: &dyn Disk, found: &mut Found, seen: &[Seen]) -> Result<Sorted, OpenError> {
    let mut ours = BTreeMap::new();
    let mut kept = Vec::new();
    for file in seen {
        match chain::judge(file, found.store.unwrap_or_default()) {
            Verdict::Ours { header, damage } => {
                ours.insert(file.number, Some(header));
                if let Some((offset, what)) = damage {
                    found.damaged.push(file.number);
                    found.tell(disk, file.number, offset, what.into());
                }
            }
            Verdict::Unknown => {
                let link = Link { number: file.number, header: None, end: None };
                let (_, scan) = scan_link(disk, found, &link)?;
                if scan.records.is_empty() {
                    kept.push(file.number);
                    found.kept_bytes += file.len;
                    found.tell(disk, file.number, 0, DamageKind::Foreign);
                } else {
                    ours.insert(file.number, None);
                    found.damaged.push(file.number);
                    found.tell(disk, file.number, 0, DamageKind::Header);
                }
            }
            Verdict::Kept { offset, damage } => {
                kept.push(file.number);
                found.kept_bytes += file.len;
                found.tell(disk, file.number, offset, damage.into());
            }
        }
    }
    Ok((ours, kept))
}

/// The greatest mark in any header, and in the records of the last segment with a good header and of those behind it: a header has all
/// marks that were durable when it was written.
fn low_water(disk: &dyn Disk, found: &Found, ours: &BTreeMap<u64, Option<Header>>) -> Result<u64, OpenError> {
    let mut mark = ours.values().flatten().map(|header| header.low_water).max().unwrap_or(0);
    for (number, header) in ours.iter().rev() {
        let (_, scan) = scan_link(disk, found, &Link { number: *number, header: *header, end: None })?;
        mark = mark.max(scan.trim);
        if header.is_some() {
            break;
        }
    }
    Ok(mark)
}

impl Found {
    fn tell(&mut self, disk: &dyn Disk, number: u64, offset: u64, what: DamageKind) {
        let file = disk.shown(&format::segment_name(number));
        self.report.damages.push(Damage { file, offset, what });
    }
}

/// Up to `limit` bytes from the start of a segment's file.
fn read(disk: &dyn Disk, number: u64, limit: u64) -> Result<Vec<u8>, OpenError> {
    let name = format::segment_name(number);
    let file = disk.open_read_only(&name).map_err(failed(disk, "open", &name))?;
    let len = file.len().map_err(failed(disk, "read", &name))?.min(limit);
    let mut bytes = vec![0; len as usize];
    let n = file.read_at(&mut bytes, 0).map_err(failed(disk, "read", &name))?;
    bytes.truncate(n);
    Ok(bytes)
}

fn scan_link(disk: &dyn Disk, found: &Found, link: &Link) -> Result<(Vec<u8>, Scan), OpenError> {
    let limit = link.header.map_or(SEGMENT_BYTES_MAX, |header| header.bytes);
    let bytes = read(disk, link.number, limit)?;
    let known = Known {
        home: Home::new(found.store.unwrap_or_default(), link.number),
        base_seq: link.header.map(|header| header.base_seq),
        end: link.end,
        blind: found.faults.blind,
        all_torn: found.faults.all_torn,
    };
    let scan = scan::scan(&bytes, &known);
    Ok((bytes, scan))
}

/// Scans every segment; replays those that are needed.
fn read_all(disk: &dyn Disk, found: &mut Found, replay: Replay<'_>) -> Result<(), OpenError> {
    // What was told about headers of segments that are not needed any more is of no interest.
    let low_water = found.low_water;
    for link in found.links.clone() {
        let (bytes, scan) = scan_link(disk, found, &link)?;
        let needed = link.number >= low_water;
        for hole in &scan.holes {
            found.damaged.push(link.number);
            if needed {
                let what = DamageKind::Records { bytes: hole.bytes, lost: hole.lost };
                found.tell(disk, link.number, hole.offset, what);
            }
        }
        if needed {
            found.report.segments += 1;
            found.report.torn_bytes += scan.torn;
            replay_records(found, &link, &bytes, &scan, replay);
        }
        found.report.closed = scan.closed;
        found.last = Some((bytes, scan));
    }
    Ok(())
}

fn replay_records(found: &mut Found, link: &Link, bytes: &[u8], scan: &Scan, replay: Replay<'_>) {
    for record in &scan.records {
        found.report.bytes += record.bytes;
        let at = &bytes[record.offset as usize..];
        let kind = at[24];
        let len = format::body_len(at).unwrap_or_default();
        if kind < format::KIND_TRIM {
            let body = &at[format::HEAD_BYTES..format::HEAD_BYTES + len as usize];
            found.report.entries += 1;
            replay(
                Position { segment: link.number, offset: record.offset as u32, len },
                Entry { kind, body },
            );
        }
    }
}

/// Opens a directory: reads it, writes its end anew, and says where to go on.
pub(super) fn recover(
    disk: &dyn Disk,
    options: &Options,
    replay: Replay<'_>,
) -> Result<Recovered, OpenError> {
    remove_temporary(disk)?;
    let mut found = survey(disk, faults(options))?;
    read_all(disk, &mut found, replay)?;
    let store = found.store.unwrap_or(options.store);
    let limits = Limits::of(options);
    let (current, next_seq) = match (found.links.last().copied(), found.last.take()) {
        (Some(link), Some((bytes, scan))) => {
            let damaged = found.damaged.contains(&link.number);
            if damaged && keep_original(disk, &link, &bytes)? {
                found.kept_bytes += bytes.len() as u64;
            }
            let file = rewrite(disk, options, &link, &bytes, &scan)?;
            let size = link.header.map_or(bytes.len() as u64, |header| header.bytes);
            let before = Current { number: link.number, end: scan.end, bytes: size, file };
            if link.header.is_some() {
                (before, scan.next_seq)
            } else {
                let number = found.highest + 1;
                (
                    first(disk, options, store, number, Some((&before, scan.next_seq, found.low_water)))?,
                    scan.next_seq,
                )
            }
        }
        _ => (first(disk, options, store, found.highest + 1, None)?, 1),
    };
    found.highest = found.highest.max(current.number);
    Ok(Recovered { store, next_seq, book: book(limits, current, &found), report: found.report })
}

fn book(limits: Limits, current: Current, found: &Found) -> Book {
    let mut book = Book::new(limits, current, found.highest);
    for link in &found.links {
        let bytes = link.header.map_or(found.lens.get(&link.number).copied().unwrap_or(0), |h| h.bytes);
        book.enter(link.number, Segment { bytes, damaged: found.damaged.contains(&link.number) });
    }
    book.kept_bytes = found.kept_bytes;
    book.trim_asked = found.low_water;
    book.trim_durable = found.low_water;
    book.orphans.clone_from(&found.void);
    book.marked = found.report.closed;
    book
}

#[cfg(not(test))]
fn faults(_options: &Options) -> Faults {
    Faults::default()
}

#[cfg(test)]
fn faults(options: &Options) -> Faults {
    Faults {
        blind: options.seed == Some(Seed::NoChecksum),
        all_torn: options.seed == Some(Seed::TornWithoutUpto),
    }
}

fn remove_temporary(disk: &dyn Disk) -> Result<(), OpenError> {
    let listed = disk.list().map_err(failed(disk, "read directory", ""))?;
    for file in listed.iter().filter(|file| file.name.ends_with(TEMPORARY)) {
        disk.unlink(&file.name).map_err(failed(disk, "remove", &file.name))?;
    }
    Ok(())
}

/// Makes an empty segment, the first of a journal or the one behind `before`.
fn first(
    disk: &dyn Disk,
    options: &Options,
    store: u128,
    number: u64,
    before: Option<(&Current, u64, u64)>,
) -> Result<Current, OpenError> {
    let name = format::segment_name(number);
    let spare = format!("first{TEMPORARY}");
    let bytes = u64::from(options.segment_bytes);
    establish::spare(disk, &spare, bytes).map_err(failed(disk, "make", &name))?;
    let header = Header {
        store,
        number,
        low_water: before.map_or(0, |(_, _, mark)| mark),
        base_seq: before.map_or(1, |(_, seq, _)| seq),
        prev_number: before.map_or(0, |(before, _, _)| before.number),
        prev_end: before.map_or(0, |(before, _, _)| before.end),
        bytes,
        created_ms: (options.created_ms)(),
    };
    let made = establish::segment(disk, &spare, &header, true);
    let file = made.map_err(|e| failed(disk, "make", &name)(e.error))?;
    Ok(Current { number, end: HEADER_BYTES, bytes, file })
}

/// Writes the last segment anew, without its torn end, and syncs it. What was read may have been in memory only (after a sync that had failed
/// in the process before), and what lies behind the end must not come to life again.
fn rewrite(
    disk: &dyn Disk,
    options: &Options,
    link: &Link,
    bytes: &[u8],
    scan: &Scan,
) -> Result<Arc<dyn DiskFile>, OpenError> {
    let name = format::segment_name(link.number);
    let temporary = format!("tail{TEMPORARY}");
    if let Some(file) = trusted(disk, options, &name, scan).map_err(failed(disk, "open", &name))? {
        return Ok(file);
    }
    let mut contents = bytes[..(scan.end as usize).min(bytes.len())].to_vec();
    if let Some(header) = link.header {
        contents.resize(contents.len().max(HEADER_BYTES as usize), 0);
        let copy = format::encode_header(&header);
        contents[..HEADER_BYTES as usize].fill(0);
        contents[..HEADER_USED].copy_from_slice(&copy);
        contents[HEADER_COPY as usize..HEADER_COPY as usize + HEADER_USED].copy_from_slice(&copy);
    }
    let size = link.header.map_or(bytes.len() as u64, |header| header.bytes);
    let (first, early) = order(options);
    let made = (|| {
        if first {
            disk.unlink(&name)?;
            disk.sync_dir()?;
        }
        let file = establish::copy(disk, &temporary, &contents, size, !early)?;
        disk.rename(&temporary, &name)?;
        disk.sync_dir()?;
        if early {
            file.sync()?;
        }
        Ok(Arc::from(file))
    })();
    made.map_err(failed(disk, "write anew", &name))
}

/// Copies a damaged segment, whole, to a name under which nobody reads or removes it, once; whether it did.
fn keep_original(disk: &dyn Disk, link: &Link, bytes: &[u8]) -> Result<bool, OpenError> {
    let name = format::segment_name(link.number);
    let aside = format!("{name}.damaged");
    let temporary = format!("damaged{TEMPORARY}");
    let copied = (|| {
        if free_name(disk, &aside)? != aside {
            return Ok(false);
        }
        establish::copy(disk, &temporary, bytes, bytes.len() as u64, true)?;
        disk.rename(&temporary, &aside)?;
        disk.sync_dir()?;
        Ok(true)
    })();
    copied.map_err(failed(disk, "copy", &name))
}

/// Faults for tests: whether the old end goes first, and whether the new one gets its name before its sync.
#[cfg(not(test))]
fn order(_options: &Options) -> (bool, bool) {
    (false, false)
}

#[cfg(test)]
fn order(options: &Options) -> (bool, bool) {
    (options.seed == Some(Seed::DeleteTailFirst), options.seed == Some(Seed::RenameBeforeSync))
}

/// The old file, where a fault for tests has it gone on with.
#[cfg(not(test))]
fn trusted(_: &dyn Disk, _: &Options, _: &str, _: &Scan) -> io::Result<Option<Arc<dyn DiskFile>>> {
    Ok(None)
}

#[cfg(test)]
fn trusted(
    disk: &dyn Disk,
    options: &Options,
    name: &str,
    scan: &Scan,
) -> io::Result<Option<Arc<dyn DiskFile>>> {
    let trusts = match options.seed {
        Some(Seed::AppendInPlace) => true,
        Some(Seed::TrustOldTail) => scan.torn == 0,
        _ => false,
    };
    if !trusts {
        return Ok(None);
    }
    let file = disk.open(name)?;
    file.sync()?;
    Ok(Some(Arc::from(file)))
}
