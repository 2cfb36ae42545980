//! What several benchmarks need: the floor that a receiver can be compared with, and a load generator.
#![allow(dead_code, reason = "shared by benchmarks that each use a part")]

pub mod args;
pub mod floor;
pub mod load;

/// The real entries that the benches send.
pub const RECORDS: &str = include_str!("../../tests/data/records/openbao-2.7.2.jsonl");

/// A response entry of about 1.6 KB: a denied write that the typical rules match, or a read that was allowed and that no rule wants.
pub fn record(matched: bool) -> &'static str {
    let wanted = |l: &&str| {
        let right = if matched {
            l.contains("permission denied")
        } else {
            l.contains("\"path\":\"secret/data/app/svc33\"")
        };
        right && l.contains("\"type\":\"response\"")
    };
    RECORDS
        .lines()
        .filter(wanted)
        .min_by_key(|l| l.len().abs_diff(1600))
        .expect("such a record is in the file")
}

/// The request that carries `body` to a receiver.
pub fn request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/audit HTTP/1.1\r\nHost: 127.0.0.1:1270\r\nAccept-Encoding: gzip\r\nContent-Length: {}\r\nUser-Agent: Go-http-client/1.1\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
