//! The bytes.

use crate::store::journal::format::{
    HEADER_BYTES, HEADER_COPY, HEADER_USED, Header, HeaderError, Home, body_len, decode_header,
    decode_record, encode_header, header_page_differs, push_record, seal_records, segment_name,
    segment_number,
};

const HEADER: Header = Header {
    store: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
    number: 7,
    low_water: 5,
    base_seq: 1000,
    prev_number: 6,
    prev_end: 8000,
    bytes: 16_777_216,
    created_ms: 1_796_000_000_000,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn version_1_is_these_bytes() {
    let header = hex(&encode_header(&HEADER));
    let golden = concat!(
        "56414653",
        "45474d54",
        "01000000",
        "00000000",
        "100f0e0d0c0b0a090807060504030201",
        "0700000000000000",
        "0500000000000000",
        "e803000000000000",
        "0600000000000000",
        "401f000000000000",
        "0000000100000000"
    );
    assert_eq!(header[..160], *golden);
    assert_eq!(header[160..176], hex(&1_796_000_000_000_u64.to_le_bytes()));
    let mut crc = 0xffff_ffff_u32;
    for byte in &encode_header(&HEADER)[..88] {
        crc = step(crc, *byte);
    }
    assert_eq!(header[176..], hex(&(!crc).to_le_bytes()));

    let mut record = Vec::new();
    push_record(&mut record, 1000, 9, b"hello");
    assert_eq!(seal_records(&mut record, Home::new(HEADER.store, 7), 998), 1);
    let mut crc = 0xffff_ffff_u32;
    let home = [&HEADER.store.to_le_bytes()[..], &7_u64.to_le_bytes()].concat();
    for byte in home.iter().chain(&record[..4]).chain(&record[8..37]) {
        crc = step(crc, *byte);
    }
    let golden = format!(
        "05000000{}e803000000000000e603000000000000090000000000000068656c6c6f000000",
        hex(&(!crc).to_le_bytes())
    );
    assert_eq!(hex(&record), golden);
}

/// CRC32C, one bit at a time (RFC 3720, appendix B.4).
fn step(crc: u32, byte: u8) -> u32 {
    (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
}

#[test]
fn a_header_is_read_back_and_no_part_of_it_is() {
    let bytes = encode_header(&HEADER);
    assert_eq!(decode_header(&bytes), Ok(HEADER));
    for n in 0..bytes.len() {
        assert_eq!(decode_header(&bytes[..n]), Err(HeaderError::Short));
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 64 { HeaderError::Foreign } else { HeaderError::Damaged };
        assert_eq!(decode_header(&flipped), Err(expected), "bit {bit}");
    }
}

#[test]
fn later_versions_and_unknown_flags_are_said() {
    for (at, version) in [(8, 2), (12, 1)] {
        let mut bytes = encode_header(&HEADER);
        bytes[at] = 2;
        let crc = crc32c::crc32c(&bytes[..88]);
        bytes[88..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_header(&bytes), Err(HeaderError::Future { version }));
    }
}

#[test]
fn the_header_page_has_two_copies_and_zeros() {
    let mut page = vec![0; HEADER_BYTES as usize];
    page[..HEADER_USED].copy_from_slice(&encode_header(&HEADER));
    assert_eq!(header_page_differs(&page, &HEADER), Some(HEADER_COPY));
    page[HEADER_COPY as usize..HEADER_COPY as usize + HEADER_USED].copy_from_slice(&encode_header(&HEADER));
    assert_eq!(header_page_differs(&page, &HEADER), None);
    page[4095] = 1;
    assert_eq!(header_page_differs(&page, &HEADER), Some(4095));
}

#[test]
fn a_record_is_read_back_and_no_part_of_it_nor_elsewhere() {
    let home = Home::new(1, 2);
    for len in [0, 1, 7, 8, 9, 100] {
        let body = vec![0xab; len];
        let mut bytes = Vec::new();
        push_record(&mut bytes, 3, 4, &body);
        seal_records(&mut bytes, home, 2);
        let record = decode_record(&bytes, home).unwrap();
        assert_eq!((record.seq, record.durable_upto, record.kind, record.body), (3, 2, 4, &body[..]));
        assert_eq!(body_len(&bytes), Some(len as u32));
        for n in 0..bytes.len() {
            assert_eq!(decode_record(&bytes[..n], home), None);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_record(&flipped, home), None, "bit {bit} of a record with {len} bytes");
        }
        assert_eq!(decode_record(&bytes, Home::new(1, 3)), None);
        assert_eq!(decode_record(&bytes, Home::new(2, 2)), None);
    }
    assert_eq!(decode_record(&[0; 64], home), None);
    assert_eq!(decode_record(&[0xff; 64], home), None);
    assert_eq!(body_len(&[1, 2, 3]), None);
}

#[test]
fn names_are_numbers_of_sixteen_digits() {
    assert_eq!(segment_name(42), "0000000000000042.seg");
    assert_eq!(segment_number("0000000000000042.seg"), Some(42));
    for other in
        ["0000000000000000.seg", "42.seg", "0000000000000042.seg.damaged", "+000000000000042.seg", "LOCK"]
    {
        assert_eq!(segment_number(other), None, "{other}");
    }
}
