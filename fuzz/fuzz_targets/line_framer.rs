//! Two limits, four lengths and the bytes of a stream, cut into pieces of these lengths: the same lines as a plain split at the newlines gives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_audit_filter::framing::line::{LineFramer, LineLimits, Piece};

#[derive(Debug, PartialEq)]
enum Owned {
    Line(Vec<u8>),
    Oversize(Vec<u8>),
}

/// Everything at hand, split at newlines.
fn plain(stream: &[u8], limits: &LineLimits) -> (Vec<Owned>, Option<u64>) {
    let mut lines: Vec<&[u8]> = stream.split(|byte| *byte == b'\n').collect();
    let tail = lines.pop().unwrap_or_default();
    let long_tail = (tail.len() > limits.line_bytes_max).then_some(tail);
    let judge = |line: &[u8]| match line {
        b"" | b"\r" => None,
        _ if line.len() > limits.line_bytes_max => {
            Some(Owned::Oversize(line[..limits.oversize_head_bytes.min(line.len())].to_vec()))
        }
        _ => Some(Owned::Line(line.to_vec())),
    };
    let pieces = lines.into_iter().chain(long_tail).filter_map(judge).collect();
    (pieces, (long_tail.is_none() && !tail.is_empty()).then_some(tail.len() as u64))
}

fuzz_target!(|input: &[u8]| {
    let Some(([line_bytes_max, head, steps @ ..], stream)) = input.split_first_chunk::<6>() else { return };
    let line_bytes_max = usize::from(*line_bytes_max).max(2);
    let limits = LineLimits { line_bytes_max, oversize_head_bytes: usize::from(*head).min(line_bytes_max) };
    let mut framer = LineFramer::default();
    let mut pieces = Vec::new();
    let mut rest = stream;
    let mut steps = steps.iter().cycle();
    while !rest.is_empty() {
        let step = steps.next().copied().unwrap_or(u8::MAX);
        let length = (usize::from(step) + 1).min(rest.len());
        // An odd step stops at each piece, as a reader does that may take no more for now.
        let go_on = step % 2 == 0;
        let used = framer.feed(&rest[..length], &limits, |piece| {
            match piece {
                Piece::Lines(lines) => {
                    assert!((1..=256).contains(&lines.len()));
                    pieces.extend(lines.iter().map(|line| Owned::Line(line.to_vec())));
                }
                Piece::Oversize(head) => pieces.push(Owned::Oversize(head.to_vec())),
            }
            go_on
        });
        assert!(used <= length && (used == length || !go_on));
        assert!(framer.heap_bytes() <= limits.line_bytes_max);
        rest = &rest[used..];
    }
    let tail = framer.finish();
    assert_eq!((pieces, tail), plain(stream, &limits));
});
