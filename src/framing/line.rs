//! Newline-delimited streams: each line is a frame.
//!
//! Lines that lie whole in the bytes at hand are handed out in place; only an unfinished line is carried over, in a buffer that is
//! given back once the line is complete. Every byte is searched for a newline once, so a line that arrives in a thousand pieces
//! costs as much as one that arrives whole. Empty lines (also `\r` alone) are skipped.

/// Limits of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLimits {
    /// Longest line without its newline, in bytes.
    pub line_bytes_max: usize,
    /// How much of a longer line is kept, in bytes.
    pub oversize_head_bytes: usize,
}

/// Most lines that are handed out at once.
const LINES_PER_PIECE_MAX: usize = 256;

/// What a stream is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Lines without their newlines, at least one and at most 256.
    Lines(&'a [&'a [u8]]),
    /// The beginning of a line that is longer than `line_bytes_max`; reported once, the rest of the line is skipped.
    Oversize(&'a [u8]),
}

/// The state of one stream between two reads.
#[derive(Debug, Default)]
pub struct LineFramer {
    /// The beginning of an unfinished line.
    carry: Vec<u8>,
    /// The rest of an oversize line is being skipped.
    skipping: bool,
}

impl LineFramer {
    /// Cuts `input` into pieces and hands each to `take`, which says whether to go on. Returns how many bytes of `input` have been
    /// used up: all of them unless `take` said `false`; the rest must then come first in the next call. Lines that are whole in `input` are
    /// handed out together.
    pub fn feed(
        &mut self,
        input: &[u8],
        limits: &LineLimits,
        mut take: impl FnMut(Piece<'_>) -> bool,
    ) -> usize {
        let mut at = 0;
        let mut lines: Vec<&[u8]> = Vec::new();
        while let Some(found) = memchr::memchr(b'\n', &input[at..]) {
            let part = &input[at..at + found];
            let in_place = !self.skipping && self.carry.is_empty() && part.len() <= limits.line_bytes_max;
            if in_place {
                if !is_blank(part) {
                    lines.push(part);
                }
                at += found + 1;
                if lines.len() == LINES_PER_PIECE_MAX && !hand_out(&mut lines, &mut take) {
                    return at;
                }
            } else {
                if !hand_out(&mut lines, &mut take) {
                    return at;
                }
                at += found + 1;
                if !self.complete(part, limits, &mut take) {
                    return at;
                }
            }
        }
        if !hand_out(&mut lines, &mut take) {
            return at;
        }
        self.carry_on(&input[at..], limits, &mut take);
        input.len()
    }

    /// `rest` is the beginning, or more, of a line whose end has not come yet.
    fn carry_on(&mut self, rest: &[u8], limits: &LineLimits, take: &mut impl FnMut(Piece<'_>) -> bool) {
        if self.skipping || rest.is_empty() {
            return;
        }
        if self.carry.len() + rest.len() > limits.line_bytes_max {
            self.report_oversize(rest, limits, take);
            self.skipping = true;
        } else {
            super::append(&mut self.carry, rest, limits.line_bytes_max);
        }
    }

    /// A newline came after `part`, which alone is no line.
    fn complete(
        &mut self,
        part: &[u8],
        limits: &LineLimits,
        take: &mut impl FnMut(Piece<'_>) -> bool,
    ) -> bool {
        if std::mem::take(&mut self.skipping) {
            return true;
        }
        if self.carry.len() + part.len() > limits.line_bytes_max {
            return self.report_oversize(part, limits, take);
        }
        let mut line = std::mem::take(&mut self.carry);
        super::append(&mut line, part, limits.line_bytes_max);
        is_blank(&line) || take(Piece::Lines(&[&line]))
    }

    fn report_oversize(
        &mut self,
        part: &[u8],
        limits: &LineLimits,
        take: &mut impl FnMut(Piece<'_>) -> bool,
    ) -> bool {
        let mut head = std::mem::take(&mut self.carry);
        head.truncate(limits.oversize_head_bytes);
        let room = limits.oversize_head_bytes - head.len();
        if head.is_empty() {
            return take(Piece::Oversize(&part[..part.len().min(room)]));
        }
        head.extend_from_slice(&part[..part.len().min(room)]);
        take(Piece::Oversize(&head))
    }

    /// The stream has ended: the length of the unfinished line, if there is one that has not been reported as oversize.
    /// The framer is then as new.
    pub fn finish(&mut self) -> Option<u64> {
        let carry = std::mem::take(&mut self.carry);
        let skipping = std::mem::take(&mut self.skipping);
        (!skipping && !carry.is_empty()).then_some(carry.len() as u64)
    }

    /// An unfinished line is being carried or skipped.
    pub fn is_within_line(&self) -> bool {
        self.skipping || !self.carry.is_empty()
    }

    /// Bytes of memory held.
    pub fn heap_bytes(&self) -> usize {
        self.carry.capacity()
    }
}

/// Hands out what has been gathered, if anything.
fn hand_out(lines: &mut Vec<&[u8]>, take: &mut impl FnMut(Piece<'_>) -> bool) -> bool {
    let go_on = lines.is_empty() || take(Piece::Lines(lines));
    lines.clear();
    go_on
}

fn is_blank(line: &[u8]) -> bool {
    line.is_empty() || line == b"\r"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Owned {
        Line(Vec<u8>),
        Oversize(Vec<u8>),
    }

    fn own(piece: Piece<'_>) -> Vec<Owned> {
        match piece {
            Piece::Lines(lines) => {
                assert!((1..=LINES_PER_PIECE_MAX).contains(&lines.len()));
                lines.iter().map(|l| Owned::Line(l.to_vec())).collect()
            }
            Piece::Oversize(l) => vec![Owned::Oversize(l.to_vec())],
        }
    }

    /// The plain slow framer: everything at hand, split at newlines.
    fn oracle(input: &[u8], limits: &LineLimits) -> (Vec<Owned>, Option<u64>) {
        let mut lines: Vec<&[u8]> = input.split(|b| *b == b'\n').collect();
        let tail = lines.pop().unwrap_or_default();
        let judge = |line: &[u8]| {
            if line.len() > limits.line_bytes_max {
                Some(Owned::Oversize(line[..limits.oversize_head_bytes.min(line.len())].to_vec()))
            } else {
                (!is_blank(line)).then(|| Owned::Line(line.to_vec()))
            }
        };
        let mut pieces: Vec<Owned> = lines.iter().filter_map(|l| judge(l)).collect();
        if tail.len() > limits.line_bytes_max {
            pieces.extend(judge(tail));
            return (pieces, None);
        }
        (pieces, (!tail.is_empty()).then_some(tail.len() as u64))
    }

    fn run(chunks: &[&[u8]], limits: &LineLimits) -> (Vec<Owned>, Option<u64>) {
        let mut framer = LineFramer::default();
        let mut pieces = Vec::new();
        for chunk in chunks {
            let used = framer.feed(chunk, limits, |p| {
                pieces.extend(own(p));
                true
            });
            assert_eq!(used, chunk.len());
        }
        let tail = framer.finish();
        assert!(!framer.is_within_line());
        assert_eq!(framer.heap_bytes(), 0);
        (pieces, tail)
    }

    const SMALL: LineLimits = LineLimits { line_bytes_max: 8, oversize_head_bytes: 3 };

    #[test]
    fn every_cut_of_a_stream_gives_the_same_pieces() {
        let stream: &[u8] =
            b"\n\r\nabc\nlonger-than-eight\n12345678\n123456789\nx\r\n\n0123456789abcdef\n\ntail";
        let expected = oracle(stream, &SMALL);
        assert_eq!(expected.0.len(), 6, "{expected:?}");
        for cut in 0..=stream.len() {
            assert_eq!(run(&[&stream[..cut], &stream[cut..]], &SMALL), expected, "cut at {cut}");
            let whole = &stream[..cut];
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            assert_eq!(run(&bytes, &SMALL), oracle(whole, &SMALL), "truncated at {cut}");
        }
    }

    #[test]
    fn a_taker_that_stops_gets_the_rest_later() {
        let mut framer = LineFramer::default();
        // The first line is handed out alone, since it began in an earlier read, and the oversize one between others.
        framer.feed(b"o", &SMALL, |p| panic!("{p:?}"));
        let input = b"ne\ntwo\nthree\nlonger-than-eight\nfour\nfi";
        let mut seen = Vec::new();
        let mut at = 0;
        let mut calls = 0;
        while at < input.len() {
            calls += 1;
            at += framer.feed(&input[at..], &SMALL, |p| {
                seen.extend(own(p));
                false
            });
        }
        let mut expected =
            [b"one".as_slice(), b"two", b"three", b"four"].map(|l| Owned::Line(l.to_vec())).to_vec();
        expected.insert(3, Owned::Oversize(b"lon".to_vec()));
        assert_eq!((seen, calls), (expected, 5));
        assert!(framer.is_within_line());
        assert_eq!(framer.finish(), Some(2));
    }

    #[test]
    fn an_oversize_line_at_the_end_is_reported_once_and_is_no_truncated_tail() {
        let (pieces, tail) = run(&[b"123456", b"789", b"0123", b"456"], &SMALL);
        assert_eq!(pieces, [Owned::Oversize(b"123".to_vec())]);
        assert_eq!(tail, None);
    }

    #[test]
    fn memory_of_a_long_line_is_bounded_by_its_limit() {
        let limits = LineLimits { line_bytes_max: 1 << 20, oversize_head_bytes: 4096 };
        let mut framer = LineFramer::default();
        for _ in 0..(1 << 20) / 1000 {
            framer.feed(&[b'x'; 1000], &limits, |p| panic!("{p:?}"));
        }
        assert!(framer.heap_bytes() <= 1 << 20, "{}", framer.heap_bytes());
        let mut head = 0;
        framer.feed(&[b'x'; 1000], &limits, |p| {
            head = match p {
                Piece::Oversize(h) => h.len(),
                Piece::Lines(_) => 0,
            };
            true
        });
        assert_eq!(head, 4096);
        assert_eq!(framer.heap_bytes(), 0);
    }

    #[test]
    fn many_lines_are_handed_out_in_portions() {
        let mut framer = LineFramer::default();
        let mut portions = Vec::new();
        framer.feed(&b"x\n".repeat(600), &SMALL, |p| {
            portions.push(own(p).len());
            true
        });
        assert_eq!(portions, [256, 256, 88]);
    }

    proptest! {
        #[test]
        fn any_stream_in_any_pieces(
            stream in prop::collection::vec(prop::sample::select(b"ab\n\r".to_vec()), 0..80),
            cuts in prop::collection::vec(0usize..80, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(run(&chunks, &SMALL), oracle(&stream, &SMALL));
        }
    }
}
