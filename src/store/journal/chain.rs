//! Which files of a directory make up the journal, in which order, and what is wrong with the others. No I/O.

use std::collections::BTreeMap;

use super::format::{self, HEADER_BYTES, HEADER_COPY, Header, HeaderError};
use super::types::DamageKind;

/// A segment's file, by its number: length and the first bytes.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) number: u64,
    pub(super) len: u64,
    /// Up to [`HEADER_BYTES`].
    pub(super) page: Vec<u8>,
}

/// What a file is, as far as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A segment of this store. The damage to tell, if any.
    Ours { header: Header, damage: Option<(u64, DamageKindCopy)> },
    /// The header is unreadable: it is ours if it has valid records.
    Unknown,
    /// Not to be read.
    Kept { offset: u64, damage: DamageKindCopy },
}

/// [`DamageKind`], those that a header can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DamageKindCopy {
    Header,
    Empty,
    Truncated { expected: u64 },
    Foreign,
    Misplaced { number: u64 },
    Future { version: u32 },
}

impl From<DamageKindCopy> for DamageKind {
    fn from(kind: DamageKindCopy) -> DamageKind {
        match kind {
            DamageKindCopy::Header => DamageKind::Header,
            DamageKindCopy::Empty => DamageKind::Empty,
            DamageKindCopy::Truncated { expected } => DamageKind::Truncated { expected },
            DamageKindCopy::Foreign => DamageKind::Foreign,
            DamageKindCopy::Misplaced { number } => DamageKind::Misplaced { number },
            DamageKindCopy::Future { version } => DamageKind::Future { version },
        }
    }
}

fn headers(page: &[u8]) -> [Result<Header, HeaderError>; 2] {
    let copy = page.get(HEADER_COPY as usize..).unwrap_or_default();
    [format::decode_header(page), format::decode_header(copy)]
}

/// The identity that most headers have (of the lowest numbers, if there are as many of another).
pub(super) fn store(seen: &[Seen]) -> Option<u128> {
    let mut counts: BTreeMap<u128, (usize, std::cmp::Reverse<u64>)> = BTreeMap::new();
    for file in seen {
        for header in headers(&file.page).into_iter().flatten() {
            let (count, _) = counts.entry(header.store).or_insert((0, std::cmp::Reverse(file.number)));
            *count += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, rank)| *rank).map(|(store, _)| store)
}

/// What `file` is in `store`.
pub(super) fn judge(file: &Seen, store: u128) -> Verdict {
    if file.len == 0 {
        return Verdict::Kept { offset: 0, damage: DamageKindCopy::Empty };
    }
    let copies = headers(&file.page);
    if let Some((header, offset)) =
        copies.iter().zip([0, HEADER_COPY]).find_map(|(c, at)| c.ok().map(|h| (h, at)))
    {
        if header.store != store {
            return Verdict::Kept { offset, damage: DamageKindCopy::Foreign };
        }
        if header.number != file.number {
            let damage = DamageKindCopy::Misplaced { number: header.number };
            return Verdict::Kept { offset, damage };
        }
        let damage = if file.len < header.bytes {
            Some((file.len, DamageKindCopy::Truncated { expected: header.bytes }))
        } else {
            format::header_page_differs(&file.page, &header).map(|at| (at, DamageKindCopy::Header))
        };
        return Verdict::Ours { header, damage };
    }
    for copy in copies {
        if let Err(HeaderError::Future { version }) = copy {
            return Verdict::Kept { offset: 8, damage: DamageKindCopy::Future { version } };
        }
    }
    if file.len < HEADER_BYTES {
        return Verdict::Kept { offset: file.len, damage: DamageKindCopy::Truncated { expected: 0 } };
    }
    Verdict::Unknown
}

/// A segment of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) header: Option<Header>,
    /// Where its records end and the sequence number behind them, as its successor says.
    pub(super) end: Option<(u64, u64)>,
}

/// The journal's segments.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// In ascending order.
    pub(super) links: Vec<Link>,
    /// Begun and given up.
    pub(super) void: Vec<u64>,
    /// Numbers that ought to be there (as ranges, ends included).
    pub(super) missing: Vec<(u64, u64)>,
}

/// Follows the predecessors from the last of `ours` down. `kept` are numbers of files that are there and not read.
pub(super) fn chain(ours: &BTreeMap<u64, Option<Header>>, kept: &[u64], low_water: u64) -> Chain {
    let mut out = Chain::default();
    let mut next = ours.last_key_value().map(|(number, _)| *number);
    let mut end = None;
    while let Some(number) = next {
        let header = ours.get(&number).copied().flatten();
        out.links.push(Link { number, header, end });
        let below = |limit: u64| ours.range(..limit).next_back().map(|(n, _)| *n);
        next = below(number);
        end = None;
        let Some(header) = header else { continue };
        // Only what was begun with a good header is void; anything else between is damage, and read.
        while let Some(between) = next.filter(|n| *n > header.prev_number) {
            if ours.get(&between).copied().flatten().is_none() {
                break;
            }
            out.void.push(between);
            next = below(between);
        }
        let prev = header.prev_number;
        if next == Some(prev) {
            end = Some((header.prev_end, header.base_seq));
        } else if prev > 0 && prev >= low_water && next.is_none_or(|n| n < prev) {
            let first = next.map_or(low_water.max(1), |n| (n + 1).max(low_water));
            missing(&mut out.missing, first.min(prev), prev, kept);
        }
    }
    out.links.reverse();
    out.missing.reverse();
    out
}

/// Enters the parts of `first..=last` that are not in `kept`.
fn missing(out: &mut Vec<(u64, u64)>, first: u64, last: u64, kept: &[u64]) {
    let mut from = first;
    let mut parts = Vec::new();
    for number in kept.iter().copied().filter(|n| (first..=last).contains(n)) {
        if number > from {
            parts.push((from, number - 1));
        }
        from = number + 1;
    }
    if from <= last {
        parts.push((from, last));
    }
    out.extend(parts.into_iter().rev());
}
