//! What several benchmarks need: the floor that a receiver can be compared with, and a load generator.

pub mod floor;
pub mod load;

/// An audit record of about 1.2 KB, as OpenBao sends it for one read of a secret.
pub const RECORD: &[u8] = br#"{"time":"2026-11-24T09:00:00.123456789Z","type":"response","auth":{"client_token":"hmac-sha256:7f0e3c1d5b9a48e2a6c4f8d10b2e4a6c8e0f1a3b5c7d9e1f2a4b6c8d0e2f4a6b","accessor":"hmac-sha256:1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809","display_name":"approle","policies":["default","reader"],"token_policies":["default","reader"],"policy_results":{"allowed":true,"granting_policies":[{"name":"reader","namespace_id":"root","type":"acl"}]},"entity_id":"9c1f2a34-5b6c-4d7e-8f90-a1b2c3d4e5f6","token_type":"service","token_ttl":3600},"request":{"id":"5a6b7c8d-9e0f-4a1b-8c2d-3e4f5a6b7c8d","client_id":"9c1f2a34-5b6c-4d7e-8f90-a1b2c3d4e5f6","operation":"read","mount_point":"secret/","mount_type":"kv","mount_accessor":"kv_5f6a7b8c","client_token":"hmac-sha256:7f0e3c1d5b9a48e2a6c4f8d10b2e4a6c8e0f1a3b5c7d9e1f2a4b6c8d0e2f4a6b","namespace":{"id":"root"},"path":"secret/data/app/config","remote_address":"10.0.0.7","remote_port":51342},"response":{"mount_type":"kv","data":{"data":{"user":"hmac-sha256:0a1b2c3d","password":"hmac-sha256:4e5f6a7b"}}}}
"#;

/// The request that carries `body` to a receiver.
pub fn request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/audit HTTP/1.1\r\nHost: 127.0.0.1:1270\r\nAccept-Encoding: gzip\r\nContent-Length: {}\r\nUser-Agent: Go-http-client/1.1\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
