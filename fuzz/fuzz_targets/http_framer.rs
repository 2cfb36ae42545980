//! Four lengths and the bytes of a connection, cut into pieces of these lengths: the same requests are taken as in one piece and then
//! the same refusal comes, within the bound on what is kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_audit_filter::framing::http::{HttpLimits, RequestFramer, Step};

const LIMITS: HttpLimits = HttpLimits { head_bytes_max: 512, body_bytes_max: 300 };

/// What came of a connection's bytes.
#[derive(Debug, PartialEq)]
enum Seen {
    Request { method: String, path: String, query: String, authorization: Option<Vec<u8>>, body: Vec<u8> },
    Refused { status: u16, reason: &'static str },
}

/// Feeds the pieces as their owner does.
fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Seen> {
    let mut framer = RequestFramer::default();
    let mut seen = Vec::new();
    let mut input: Vec<u8> = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        while !input.is_empty() {
            match framer.advance(&input, &LIMITS) {
                Err(refusal) => {
                    assert!((400..600).contains(&refusal.status));
                    seen.push(Seen::Refused { status: refusal.status, reason: refusal.reason });
                    return seen;
                }
                Ok(Step::NeedMore { consumed }) => {
                    input.drain(..consumed);
                    assert!(input.len() <= framer.input_bytes_max(&LIMITS).max(1024));
                    break;
                }
                Ok(Step::Complete { consumed }) => {
                    let parts = framer.parts(&input[..consumed]).expect("a whole request has parts");
                    assert!(parts.body.len() <= LIMITS.body_bytes_max);
                    seen.push(Seen::Request {
                        method: parts.method.to_owned(),
                        path: parts.path.to_owned(),
                        query: parts.query.to_owned(),
                        authorization: parts.authorization.map(<[u8]>::to_vec),
                        body: parts.body.to_vec(),
                    });
                    input.drain(..consumed);
                    framer.reset();
                    assert_eq!(framer.heap_bytes(), 0);
                }
            }
        }
    }
    seen
}

/// Cuts a stream: each step takes the next number (1 to 256) of bytes, over and over.
fn cut<'a>(mut stream: &'a [u8], steps: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut steps = steps.iter().cycle();
    std::iter::from_fn(move || {
        let length = steps.next().map_or(usize::MAX, |step| usize::from(*step) + 1).min(stream.len());
        let (piece, rest) = stream.split_at(length);
        stream = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// More than any head may have: behind it nothing that a connection began with is still undecided.
const FILL: [u8; 2 * LIMITS.head_bytes_max] = [b'x'; 2 * LIMITS.head_bytes_max];

fuzz_target!(|input: &[u8]| {
    let Some((steps, stream)) = input.split_first_chunk::<4>() else { return };
    let whole = run(std::iter::once(stream));
    let pieces = run(cut(stream, steps));
    // What is wrong in a head may be refused before its end, depending on where it was looked at: when the stream ends there, one
    // way may have refused and the other may still wait.
    let (shorter, longer) = if whole.len() < pieces.len() { (&whole, &pieces) } else { (&pieces, &whole) };
    let (common, more) = longer.split_at(shorter.len());
    assert_eq!(common, shorter.as_slice());
    assert!(matches!(more, [] | [Seen::Refused { .. }]), "{more:?}");

    // When the stream goes on, both must come to the same.
    let filled = [stream, &FILL].concat();
    let ended = run(std::iter::once(filled.as_slice()));
    assert_eq!(ended, run(cut(&filled, steps)));
    // Neither what was taken nor a refusal depends on what comes later.
    assert_eq!(ended[..longer.len()], longer[..]);
});
