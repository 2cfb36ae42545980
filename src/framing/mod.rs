//! Framing: bytes in, frames out. Whoever owns a socket feeds these state machines and acts on what they say.
//!
//! Pure: no I/O, no clock, no threads. Datagrams need no framing: one datagram is one frame.

pub mod http;
pub mod line;

/// Appends `data` to `buf`, growing it by half of itself at most and never beyond `cap_max` unless the data needs it:
/// a buffer for a 64 MiB body must not end as 128 MiB.
pub(crate) fn append(buf: &mut Vec<u8>, data: &[u8], cap_max: usize) {
    let need = buf.len() + data.len();
    if need > buf.capacity() {
        let wish = (buf.capacity() + buf.capacity() / 2).max(need).min(cap_max.max(need));
        buf.reserve_exact(wish - buf.len());
    }
    buf.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    #[test]
    fn append_grows_in_steps_and_stops_at_the_bound() {
        let mut buf = Vec::new();
        let mut growths = 0;
        for _ in 0..1000 {
            let before = buf.capacity();
            super::append(&mut buf, &[7; 100], 100_000);
            growths += usize::from(buf.capacity() != before);
        }
        assert_eq!(buf, vec![7; 100_000]);
        assert_eq!(buf.capacity(), 100_000);
        assert!(growths < 25, "{growths}");
    }
}
