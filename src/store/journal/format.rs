//! The bytes of a segment: format version 1.
//!
//! All integers are little-endian. A segment is a file `%016d.seg` (its number, from 1), filled with zeros when it is made.
//!
//! # Header
//! In the first 4096 bytes, twice: at offset 0 and at offset 2048. All other bytes of the 4096 are zero.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `VAFSEGMT` |
//! | 8 | 4 | format version: 1 |
//! | 12 | 4 | flags: 0 |
//! | 16 | 16 | identity of the store, random |
//! | 32 | 8 | number of the segment, as in its name |
//! | 40 | 8 | low-water mark: segments with lower numbers are not needed |
//! | 48 | 8 | sequence number of the first record |
//! | 56 | 8 | number of the previous segment; 0: none |
//! | 64 | 8 | where the previous segment validly ends, in bytes; what lies behind is void |
//! | 72 | 8 | size of the file, in bytes |
//! | 80 | 8 | when it was made, in milliseconds since 1970 |
//! | 88 | 4 | CRC32C of the 88 bytes before |
//!
//! The last valid record of the previous segment is the one before this segment's first sequence number. Numbers between the previous
//! one and this one are void: segments that were begun and given up before anything in them became durable.
//!
//! # Record
//! From offset 4096 on, each at a multiple of 8. Zeros (kind 0) end the segment.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | length of the body |
//! | 4 | 4 | CRC32C |
//! | 8 | 8 | sequence number, from 1, without gaps |
//! | 16 | 8 | durable upto: all records with lower sequence numbers were durable when this one was written |
//! | 24 | 1 | kind: 1 to 199 of the user, 200 Trim (body: low-water mark u64), 201 Mark (empty), 202 Close (empty) |
//! | 25 | 7 | zero |
//! | 32 | … | body, then zeros up to a multiple of 8 |
//!
//! The CRC covers the store's identity and the segment's number (16 + 8 bytes that are not written), the length, and everything from the
//! sequence number to the end of the body: a record at home in another segment or store does not verify.

/// Size of the header area at the start of a segment, in bytes.
pub const HEADER_BYTES: u64 = 4096;
/// Size of a record's head, in bytes.
pub const HEAD_BYTES: usize = 32;

/// Room that a record with a body of `body` bytes takes in a segment, in bytes.
pub fn record_bytes(body: usize) -> u64 {
    (HEAD_BYTES + body).next_multiple_of(8) as u64
}

/// Format version that is written.
pub const VERSION: u32 = 1;
/// Offset of the header's second copy.
pub const HEADER_COPY: u64 = 2048;
/// Bytes of the header that are used.
pub const HEADER_USED: usize = 92;
/// Kind of the record that carries a low-water mark.
pub const KIND_TRIM: u8 = 200;
/// Kind of the record that says that everything before it was durable, written when idle.
pub const KIND_MARK: u8 = 201;
/// Kind of the last record of a journal that was closed in order.
pub const KIND_CLOSE: u8 = 202;

const MAGIC: &[u8; 8] = b"VAFSEGMT";

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Identity of the store.
    pub store: u128,
    /// Number of the segment.
    pub number: u64,
    /// Segments with lower numbers are not needed.
    pub low_water: u64,
    /// Sequence number of the first record.
    pub base_seq: u64,
    /// Number of the previous segment; 0: none.
    pub prev_number: u64,
    /// Where the previous segment validly ends, in bytes.
    pub prev_end: u64,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    Short,
    /// Another magic.
    Foreign,
    /// The checksum does not fit.
    Damaged,
    /// A version or flags that this release does not know; the checksum fits.
    Future {
        /// The version.
        version: u32,
    },
}

/// The header's bytes (one copy).
pub fn encode_header(header: &Header) -> [u8; HEADER_USED] {
    let mut out = [0; HEADER_USED];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[16..32].copy_from_slice(&header.store.to_le_bytes());
    let numbers = [
        header.number,
        header.low_water,
        header.base_seq,
        header.prev_number,
        header.prev_end,
        header.bytes,
        header.created_ms,
    ];
    for (place, number) in out[32..88].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&out[..88]);
    out[88..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads one copy of the header.
///
/// # Errors
/// Why it is none.
pub fn decode_header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let Some(bytes) = bytes.get(..HEADER_USED) else { return Err(HeaderError::Short) };
    if &bytes[..8] != MAGIC {
        return Err(HeaderError::Foreign);
    }
    if crc32c::crc32c(&bytes[..88]) != u32_at(bytes, 88) {
        return Err(HeaderError::Damaged);
    }
    let version = u32_at(bytes, 8);
    if version != VERSION || u32_at(bytes, 12) != 0 {
        return Err(HeaderError::Future { version });
    }
    let mut store = [0; 16];
    store.copy_from_slice(&bytes[16..32]);
    Ok(Header {
        store: u128::from_le_bytes(store),
        number: u64_at(bytes, 32),
        low_water: u64_at(bytes, 40),
        base_seq: u64_at(bytes, 48),
        prev_number: u64_at(bytes, 56),
        prev_end: u64_at(bytes, 64),
        bytes: u64_at(bytes, 72),
        created_ms: u64_at(bytes, 80),
    })
}

/// Whether `page` (the header area) is exactly what [`encode_header`] makes of `header`, both copies and the zeros between.
/// The first offset that differs.
pub fn header_page_differs(page: &[u8], header: &Header) -> Option<u64> {
    let copy = encode_header(header);
    let mut whole = [0; HEADER_BYTES as usize];
    whole[..HEADER_USED].copy_from_slice(&copy);
    whole[HEADER_COPY as usize..HEADER_COPY as usize + HEADER_USED].copy_from_slice(&copy);
    let differs = whole.iter().zip(page).position(|(a, b)| a != b);
    differs.map(|at| at as u64)
}

/// What a record's checksum begins with: its home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home(u32);

impl Home {
    /// The segment `number` of `store`.
    pub fn new(store: u128, number: u64) -> Home {
        Home(crc32c::crc32c_append(crc32c::crc32c(&store.to_le_bytes()), &number.to_le_bytes()))
    }
}

/// Appends a record that is not yet sealed.
pub fn push_record(out: &mut Vec<u8>, seq: u64, kind: u8, body: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(body);
    out.resize(start + record_bytes(body.len()) as usize, 0);
}

/// Seals all records in `bytes` (made by [`push_record`]): writes how far the journal is durable, and the checksums. The number of records.
pub fn seal_records(bytes: &mut [u8], home: Home, durable_upto: u64) -> u64 {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        let len = u32_at(bytes, at) as usize;
        bytes[at + 16..at + 24].copy_from_slice(&durable_upto.to_le_bytes());
        let crc = checksum(home, &bytes[at..at + HEAD_BYTES + len]);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        at += record_bytes(len) as usize;
        count += 1;
    }
    count
}

fn checksum(home: Home, record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(home.0, &record[..4]), &record[8..])
}

/// A record, as it lies in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its sequence number.
    pub seq: u64,
    /// All records with lower sequence numbers were durable when it was written.
    pub durable_upto: u64,
    /// Its kind, not 0.
    pub kind: u8,
    /// Its body.
    pub body: &'a [u8],
}

/// Reads the record that `bytes` begins with; `None` when there is no valid one.
pub fn decode_record(bytes: &[u8], home: Home) -> Option<Record<'_>> {
    decode(bytes, |record| checksum(home, record) == u32_at(record, 4))
}

/// [`decode_record`] with another idea of which checksums are right.
pub(super) fn decode(bytes: &[u8], right: impl Fn(&[u8]) -> bool) -> Option<Record<'_>> {
    let head = bytes.get(..HEAD_BYTES)?;
    let kind = head[24];
    if kind == 0 || head[25..] != [0; 7] {
        return None;
    }
    let end = HEAD_BYTES.checked_add(u32_at(head, 0) as usize)?;
    let padding = bytes.get(end..end.checked_next_multiple_of(8)?)?;
    if padding.iter().any(|b| *b != 0) || !right(&bytes[..end]) {
        return None;
    }
    Some(Record { seq: u64_at(head, 8), durable_upto: u64_at(head, 16), kind, body: &bytes[HEAD_BYTES..end] })
}

/// Length of the body that a record's head at the start of `bytes` says; `None` when there are fewer bytes than a length.
pub fn body_len(bytes: &[u8]) -> Option<u32> {
    (bytes.len() >= 4).then(|| u32_at(bytes, 0))
}

/// The file name of segment `number`.
pub fn segment_name(number: u64) -> String {
    format!("{number:016}.seg")
}

/// The number in a segment's file name.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let right = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|number| right && *number > 0)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
