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
