//! `Content-Encoding: gzip` with a bound on what comes out.

use std::io::Read;

use flate2::bufread::GzDecoder;

use super::Refusal;

/// Most members in one body. Each costs a decoder of its own, and an empty one is 20 bytes.
const MEMBERS_MAX: usize = 1024;

/// Decodes `body` into `out`, which is emptied first.
///
/// # Errors
/// 413 as soon as more than `bytes_max` bytes come out or there are more than 1024 members; 400 for what is no gzip or is cut
/// short. `out` then holds what had been decoded.
pub fn gunzip(body: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
    const TOO_LARGE: Refusal = Refusal::new(413, "body too large after decoding");
    out.clear();
    let mut rest = body;
    for _ in 0..MEMBERS_MAX {
        let mut member = GzDecoder::new(rest);
        let room = (bytes_max - out.len()) as u64 + 1;
        #[allow(clippy::disallowed_methods, reason = "reads through a limit")]
        let outcome = member.by_ref().take(room).read_to_end(out);
        if out.len() > bytes_max {
            return Err(TOO_LARGE);
        }
        if outcome.is_err() {
            return Err(Refusal::new(400, "body is not the gzip that Content-Encoding promises"));
        }
        rest = member.into_inner();
        if rest.is_empty() {
            return Ok(());
        }
    }
    Err(TOO_LARGE)
}
