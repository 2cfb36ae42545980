//! What several benchmarks need: the floor that a receiver can be compared with, and a load generator.
#![allow(dead_code, reason = "shared by benchmarks that each use a part")]

pub mod floor;
pub mod load;

/// The request that carries `body` to a receiver.
pub fn request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/audit HTTP/1.1\r\nHost: 127.0.0.1:1270\r\nAccept-Encoding: gzip\r\nContent-Length: {}\r\nUser-Agent: Go-http-client/1.1\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
