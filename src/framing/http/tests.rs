use std::io::Write as _;

use proptest::prelude::*;

use super::*;

const LIMITS: HttpLimits = HttpLimits { head_bytes_max: 512, body_bytes_max: 100 };

/// A request as it was taken, in the words of the data file.
fn describe(framer: &mut RequestFramer, input: &[u8]) -> String {
    let parts = framer.parts(input).expect("a complete request has parts");
    let head = framer.head().expect("a complete request has a head");
    let mut text = format!(
        "ok {} {} ?{} body={} {}",
        parts.method,
        parts.path,
        parts.query,
        String::from_utf8_lossy(parts.body),
        if head.keep_alive { "keep" } else { "close" },
    );
    text += if head.gzip { " gzip" } else { "" };
    text += if framer.take_expect_continue() { " expect" } else { "" };
    text
}

/// Feeds a connection's bytes in pieces, as their owner does. Returns what came of them and whether something unfinished is left.
fn run(chunks: &[&[u8]], limits: &HttpLimits) -> (Vec<String>, bool) {
    let mut framer = RequestFramer::default();
    let mut seen = Vec::new();
    let mut input: Vec<u8> = Vec::new();
    for chunk in chunks {
        input.extend_from_slice(chunk);
        while !input.is_empty() {
            match framer.advance(&input, limits) {
                Err(refusal) => {
                    seen.push(refusal.status.to_string());
                    return (seen, false);
                }
                Ok(Step::NeedMore { consumed }) => {
                    input.drain(..consumed);
                    let line_or_request = framer.input_bytes_max(limits).max(1024);
                    assert!(input.len() <= line_or_request, "{} bytes kept", input.len());
                    break;
                }
                Ok(Step::Complete { consumed }) => {
                    seen.push(describe(&mut framer, &input[..consumed]));
                    input.drain(..consumed);
                    framer.reset();
                    assert_eq!(framer.heap_bytes(), 0);
                }
            }
        }
    }
    let unfinished = framer.head().is_some() || !input.is_empty();
    (seen, unfinished)
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        out.push(match bytes.next().expect("something after the backslash") {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'x' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    out
}

fn rows() -> Vec<(String, Vec<u8>)> {
    let rows: Vec<_> = include_str!("../../../tests/data/http_requests.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('\t').expect("a tab in each row"))
        .map(|(expected, request)| (expected.to_owned(), unescape(request)))
        .collect();
    assert!(rows.len() > 100);
    rows
}

#[test]
fn each_request_gets_what_the_table_says() {
    for (expected, request) in rows() {
        let (seen, unfinished) = run(&[&request], &LIMITS);
        let shown = request.escape_ascii();
        // What follows a taken request in the same row would be a second one.
        assert_eq!((seen.as_slice(), unfinished), ([expected].as_slice(), false), "{shown}");
    }
}

#[test]
fn where_the_bytes_are_cut_makes_no_difference() {
    for (expected, request) in rows() {
        let without_expect = expected.replace(" expect", "");
        for cut in 0..=request.len() {
            let (seen, _) = run(&[&request[..cut], &request[cut..]], &LIMITS);
            let seen: Vec<String> = seen.iter().map(|s| s.replace(" expect", "")).collect();
            assert_eq!(
                seen,
                std::slice::from_ref(&without_expect),
                "cut at {cut}: {}",
                request.escape_ascii()
            );
        }
        let bytes: Vec<&[u8]> = request.chunks(1).collect();
        assert_eq!(run(&bytes, &LIMITS).0, [expected], "byte by byte: {}", request.escape_ascii());
    }
}

#[test]
fn a_truncated_request_is_no_request() {
    for (expected, request) in rows() {
        for end in 0..request.len() {
            let (seen, _) = run(&[&request[..end]], &LIMITS);
            let ok = seen.is_empty() || (!expected.starts_with("ok") && seen == [expected.clone()]);
            assert!(ok, "{end} bytes of {} gave {seen:?}", request.escape_ascii());
        }
    }
}

fn status_of(request: &[u8]) -> Vec<String> {
    let whole = run(&[request], &LIMITS).0;
    let bytes: Vec<&[u8]> = request.chunks(1).collect();
    assert_eq!(run(&bytes, &LIMITS).0, whole, "{}", request.escape_ascii());
    whole
}

#[test]
fn the_head_is_bounded_in_bytes_and_lines() {
    let head = |target: &str, headers: &str| {
        format!("GET /{target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n").into_bytes()
    };
    let fixed = head("", "").len();
    let fill = "x".repeat(LIMITS.head_bytes_max - fixed);
    assert!(status_of(&head(&fill, ""))[0].starts_with("ok"));
    assert_eq!(status_of(&head(&(fill.clone() + "x"), "")), ["431"]);
    assert_eq!(status_of(&head(&fill.repeat(2), "")), ["414"]);
    assert_eq!(status_of(&head("", &format!("X: {}\r\n", fill.repeat(2)))), ["431"]);
    assert_eq!(status_of(&[b'A'; 600]), ["414"]);
    // An endless header line has no end to wait for.
    assert_eq!(status_of(&[b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 600]].concat()), ["431"]);
    let wide = HttpLimits { head_bytes_max: 16 << 10, ..LIMITS };
    let lines = |n: usize| head("", &"A: b\r\n".repeat(n - 1));
    assert!(run(&[&lines(HEADERS_MAX)], &wide).0[0].starts_with("ok"));
    assert_eq!(run(&[&lines(HEADERS_MAX + 1)], &wide).0, ["431"]);
    assert_eq!(run(&lines(HEADERS_MAX + 1).chunks(1).collect::<Vec<_>>(), &wide).0, ["431"]);
}

#[test]
fn chunk_lines_and_trailers_are_bounded() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = |text: &str| [head, text].concat().into_bytes();
    let long = "x".repeat(2000);
    assert_eq!(status_of(&body(&format!("1;{long}"))), ["400"]);
    assert_eq!(status_of(&body(&"0".repeat(1100))), ["400"]);
    assert_eq!(status_of(&body(&format!("0\r\nT: {long}"))), ["431"]);
    assert_eq!(status_of(&body(&format!("0\r\n{}\r\n", "T: x\r\n".repeat(200)))), ["431"]);
    let few = status_of(&body(&format!("0\r\n{}\r\n", "T: x\r\n".repeat(20))));
    assert!(few[0].starts_with("ok"), "{few:?}");
    // A byte of data for 900 bytes of extension, again and again.
    let wasteful = format!("1;{}\r\nx\r\n", "e".repeat(900)).repeat(50);
    assert_eq!(status_of(&body(&wasteful)), ["400"]);
}

#[test]
fn pipelined_requests_come_out_one_by_one() {
    let one = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxx".as_slice();
    let two =
        b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n\r\n".as_slice();
    let three = b"GET /c HTTP/1.1\r\nHost: h\r\n\r\n".as_slice();
    let all = [one, two, three, two, one].concat();
    let seen = status_of(&all);
    let paths: Vec<&str> = seen.iter().map(|s| s.split(' ').nth(2).unwrap()).collect();
    assert_eq!(paths, ["/a", "/b", "/c", "/b", "/a"]);
}

#[test]
fn authorization_counts_only_when_there_is_exactly_one() {
    let authorization = |headers: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        let mut framer = RequestFramer::default();
        framer.advance(request.as_bytes(), &LIMITS).unwrap();
        framer.parts(request.as_bytes()).unwrap().authorization.map(<[u8]>::to_vec)
    };
    assert_eq!(authorization(""), None);
    assert_eq!(authorization("authorization:  Bearer x \r\n"), Some(b"Bearer x".to_vec()));
    assert_eq!(authorization("Authorization: a\r\nAuthorization: a\r\n"), None);
}

#[test]
fn parts_are_there_for_complete_requests_only() {
    let mut framer = RequestFramer::default();
    assert_eq!(framer.parts(b""), None);
    let request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab";
    assert_eq!(framer.advance(request, &LIMITS), Ok(Step::NeedMore { consumed: 0 }));
    assert_eq!(framer.parts(request), None);
    assert!(!framer.take_expect_continue());
}

#[test]
fn a_head_in_drips_is_read_in_linear_time() {
    let limits = HttpLimits { head_bytes_max: 1 << 20, body_bytes_max: 0 };
    let mut request = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    request.extend(format!("X: {}\r\n", "y".repeat(10_000)).repeat(50).into_bytes());
    request.extend_from_slice(b"\r\n");
    // Half a million steps; each one parsing all that is there would take minutes.
    let mut framer = RequestFramer::default();
    for end in 1..request.len() {
        assert_eq!(framer.advance(&request[..end], &limits), Ok(Step::NeedMore { consumed: 0 }));
    }
    assert_eq!(framer.advance(&request, &limits), Ok(Step::Complete { consumed: request.len() }));
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_is_decoded_up_to_its_bound() {
    let mut out = b"old".to_vec();
    gunzip(&gzip(b"hello"), 5, &mut out).unwrap();
    assert_eq!(out, b"hello");
    assert_eq!(gunzip(&gzip(b"hello!"), 5, &mut out).unwrap_err().status, 413);
    gunzip(&[gzip(b"two "), gzip(b""), gzip(b"members")].concat(), 100, &mut out).unwrap();
    assert_eq!(out, b"two members");
    let bomb = gzip(&vec![0; 10 << 20]);
    assert!(bomb.len() < 20_000);
    let mut out = Vec::new();
    assert_eq!(gunzip(&bomb, 1 << 20, &mut out).unwrap_err().status, 413);
    assert!(out.capacity() < 4 << 20, "{}", out.capacity());
    assert_eq!(gunzip(&gzip(b"").repeat(2000), 100, &mut out).unwrap_err().status, 413);
}

#[test]
fn what_is_no_whole_gzip_is_refused() {
    let mut out = Vec::new();
    let good = gzip(b"some text that is long enough to matter");
    for end in 0..good.len() {
        assert_eq!(gunzip(&good[..end], 100, &mut out).unwrap_err().status, 400, "{end} bytes");
    }
    let mut damaged = good.clone();
    let crc = damaged.len() - 8;
    damaged[crc] ^= 1;
    assert_eq!(gunzip(&damaged, 100, &mut out).unwrap_err().status, 400);
    assert_eq!(gunzip(&[good, b"trailing".to_vec()].concat(), 100, &mut out).unwrap_err().status, 400);
}

/// A request, and what the framer must say of it.
fn any_request() -> impl Strategy<Value = (Vec<u8>, String)> {
    let body = prop::collection::vec(prop::sample::select(b"ab\r\n0;: {".to_vec()), 0..60);
    let sizes = prop::collection::vec(1usize..9, 1..30);
    (body, sizes, any::<bool>(), any::<bool>(), 0usize..3).prop_map(
        |(body, sizes, chunked, close, trailers)| {
            let mut request = b"POST /p?q HTTP/1.1\r\nHost: h\r\n".to_vec();
            if close {
                request.extend_from_slice(b"Connection: close\r\n");
            }
            if chunked {
                request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                let mut rest = body.as_slice();
                for size in sizes.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (chunk, after) = rest.split_at(rest.len().min(*size));
                    request.extend(format!("{:x};e={size}\r\n", chunk.len()).into_bytes());
                    request.extend_from_slice(chunk);
                    request.extend_from_slice(b"\r\n");
                    rest = after;
                }
                request.extend(format!("0\r\n{}\r\n", "T: v\r\n".repeat(trailers)).into_bytes());
            } else {
                request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
                request.extend_from_slice(&body);
            }
            let kept = if close { "close" } else { "keep" };
            (request, format!("ok POST /p ?q body={} {kept}", String::from_utf8_lossy(&body)))
        },
    )
}

fn cut(stream: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|c| c.index(stream.len() + 1)).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    at.windows(2).map(|w| stream[w[0]..w[1]].to_vec()).collect()
}

#[test]
fn an_unfinished_head_that_is_no_http_is_refused_at_the_latest_at_its_end() {
    let (start, rest) = (b"POST /p?q HTTP/1.1\r\nHost: ", b"h\r\nContent-Length: 0\r\0\r\n");
    assert_eq!(run(&[&[&start[..], rest].concat()], &LIMITS), (vec!["400".to_owned()], false), "at once");
    assert_eq!(run(&[start, rest], &LIMITS), (vec![], true), "not looked at again so soon");
    assert_eq!(run(&[start, rest, b"\r\n"], &LIMITS), (vec!["400".to_owned()], false));
}

proptest! {
    #[test]
    fn any_requests_in_any_pieces(
        requests in prop::collection::vec(any_request(), 1..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let expected: Vec<String> = requests.into_iter().map(|(_, text)| text).collect();
        let chunks = cut(&stream, &cuts);
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(run(&chunks, &LIMITS), (expected, false));
    }

    #[test]
    fn damaged_requests_mean_the_same_in_any_pieces(
        requests in prop::collection::vec(any_request(), 1..3),
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"\r\n\0 :;,0a+\xff".to_vec()), any::<bool>()), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        for (at, byte, insert) in damage {
            let at = at.index(stream.len());
            if insert { stream.insert(at, byte) } else { stream[at] = byte }
        }
        // What is no HTTP may be refused before the end of its head, sooner or later as the pieces come: see `Scan::find_end`.
        // With its end it is refused in any case.
        stream.extend_from_slice(b"\r\n\r\n");
        let whole = run(&[&stream], &LIMITS);
        let chunks = cut(&stream, &cuts);
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(run(&chunks, &LIMITS), whole);
    }
}
