//! Random patterns in Go's syntax, sound and broken ones, and texts that have a chance to match them.

use fastrand::Rng;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::super::RegexLimits;
use super::super::parse::parse;

const CHARS: &[&str] = &[
    "a",
    "b",
    "c",
    "k",
    "K",
    "s",
    "S",
    "x",
    "z",
    "A",
    "Z",
    "0",
    "1",
    "7",
    "9",
    "_",
    "-",
    "/",
    " ",
    ":",
    ",",
    "\"",
    "&",
    "~",
    "<",
    ">",
    "#",
    "%",
    "é",
    "É",
    "ß",
    "ẞ",
    "ſ",
    "\u{212A}",
    "Å",
    "\u{212B}",
    "σ",
    "ς",
    "Σ",
    "ι",
    "\u{345}",
    "İ",
    "ı",
    "i",
    "I",
    "Ж",
    "ж",
    "\u{1C80}",
    "в",
    "日",
    "😀",
    "\n",
    "\t",
    "\u{b}",
    "\u{a0}",
    "\u{2028}",
    "\u{663}",
    "\0",
    "\u{fffd}",
    "\u{10ffff}",
    "}",
    "]",
    "{",
    "a{",
    "{,2}",
    "{1",
    "{x}",
    "secret/",
    "auth/",
    "\u{378}",
    "\u{1171E}",
];

const ESCAPES: &[&str] = &[
    r"\d",
    r"\D",
    r"\s",
    r"\S",
    r"\w",
    r"\W",
    r"\n",
    r"\t",
    r"\a",
    r"\f",
    r"\r",
    r"\v",
    r"\.",
    r"\*",
    r"\\",
    r"\[",
    r"\]",
    r"\-",
    r"\_",
    r"\/",
    r"\x41",
    r"\x{17F}",
    r"\x{1F600}",
    r"\0",
    r"\07",
    r"\123",
    r"\101",
    r"\x7e",
    r"\pL",
    r"\PN",
    r"\p{Lu}",
    r"\p{^Ll}",
    r"\P{^Greek}",
    r"\p{greek}",
    r"\p{Latin}",
    r"\p{Any}",
    r"\p{ascii}",
    r"\PC",
    r"\p{Assigned}",
    r"\p{Uppercase_Letter}",
    r"\p{zs}",
    r"\p{M}",
    r"\p{Mn}",
    r"\p{Cyrillic}",
    r"\p{Common}",
    r"\pS",
    r"\p{LC}",
    r"\p{digit}",
    r"\p{Cn}",
];

const BROKEN: &[&str] = &[
    r"\h",
    r"\Z",
    r"\1",
    r"\8",
    r"\u0041",
    r"\C",
    r"\x",
    r"\xg",
    r"\x{}",
    r"\x{110000}",
    r"\x{41",
    r"\p",
    r"\p{",
    r"\pé",
    r"\p{Foo}",
    r"\p{Alphabetic}",
    r"\p{Script=Greek}",
    r"\p{Old_Italic}",
    r"\p{^}",
    r"\é",
    "\\",
    "(",
    ")",
    "[",
    "[^",
    "[]",
    "[^]",
    "[b-a]",
    r"[a-\d]",
    "[[:foo:]]",
    "[[:alpha:",
    "[[.a.]]",
    "*",
    "+",
    "?",
    "{2}",
    "**",
    "+*",
    "??",
    "???",
    "{2}{3}",
    "{1001}",
    "{1,1001}",
    "{3,2}",
    "{999999999999}",
    "{1,999999999}",
    "{01}",
    "{2,03}",
    "(?",
    "(?P",
    "(?P<",
    "(?P<n",
    "(?P<>a)",
    "(?P<a-b>c)",
    "(?<n",
    "(?<é>a)",
    "(?<=a)",
    "(?=a)",
    "(?!a)",
    "(?>a)",
    "(?#c)",
    "(?'n'a)",
    "(?P=n)",
    "(?i",
    "(?i-",
    "(?i-)",
    "(?-)",
    "(?--i)",
    "(?x)",
    "(?u:a)",
    "(?i:",
    "|",
    "||",
    "(|)",
    r"\Q",
    r"\E",
    r"\Qa*\E+",
    r"\Q\E*",
    "^*",
    "$+",
    r"\b*",
    r"(?:\b)?",
    "(?:)*",
    "()*",
    r"\x{D800}",
    r"[\x{D7FF}-\x{E000}]",
];

const CLASS_ITEMS: &[&str] = &[
    "a-c",
    "k",
    "s",
    "A-Z",
    "0-9",
    "a-z",
    "é",
    "à-ü",
    "-",
    "a&&b",
    "a--b",
    "~~",
    "[",
    "[a",
    "[:alpha:]",
    "[:^digit:]",
    "[:space:]",
    "[:word:]",
    "[:upper:]",
    "[:^lower:]",
    "[:punct:]",
    "[:cntrl:]",
    "^",
    ".",
    "$",
    r"\d",
    r"\W",
    r"\S",
    r"\]",
    r"\x41-\x5A",
    r"\p{Lu}",
    r"\PL",
    r"\p{^Greek}",
    "\u{212A}",
    "ſ",
    "\u{0}-\u{10ffff}",
    r"\n",
    "б-ю",
    r"\-",
    "!-/",
    r"\x{100}-\x{200}",
    "+--",
];

const FLAGS: &[&str] =
    &["i", "m", "s", "U", "im", "is", "-i", "i-s", "s-i", "-m", "-s", "ii", "i-i", "imsU", ""];

fn pick<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.usize(..list.len())]
}

/// A random pattern. One in five or so is broken.
pub(super) fn pattern(rng: &mut Rng) -> String {
    let mut out = String::new();
    if rng.u8(..4) == 0 {
        out.push_str(&format!("(?{})", pick(rng, FLAGS)));
    }
    if rng.u8(..4) == 0 {
        out.push('^');
    }
    let depth = rng.u32(0..4);
    expression(rng, depth, &mut out);
    if rng.u8(..4) == 0 {
        out.push('$');
    }
    if rng.u8(..8) == 0 {
        mutate(rng, &mut out);
    }
    out
}

fn expression(rng: &mut Rng, depth: u32, out: &mut String) {
    for branch in 0..[1, 1, 1, 2, 3][rng.usize(..5)] {
        if branch > 0 {
            out.push('|');
        }
        for _ in 0..rng.u32(0..5) {
            atom(rng, depth, out);
            if rng.u8(..3) == 0 {
                repetition(rng, out);
            }
        }
    }
}

fn atom(rng: &mut Rng, depth: u32, out: &mut String) {
    match rng.u8(..40) {
        0..=17 => out.push_str(pick(rng, CHARS)),
        18..=21 => out.push_str(pick(rng, ESCAPES)),
        22..=23 => out.push('.'),
        24..=27 => bracket(rng, out),
        28 => out.push_str(["^", "$", r"\b", r"\B", r"\A", r"\z"][rng.usize(..6)]),
        29 => out.push_str(pick(rng, BROKEN)),
        30 => out.push_str(&format!(r"\Q{}{}\E", pick(rng, CHARS), pick(rng, BROKEN))),
        _ if depth == 0 => out.push_str(pick(rng, CHARS)),
        31 => {
            out.push_str(&format!("(?{}:", pick(rng, FLAGS)));
            expression(rng, depth - 1, out);
            out.push(')');
        }
        32 => {
            out.push_str(["(?P<n>", "(?<n1>", "(?P<_>", "(?<7>"][rng.usize(..4)]);
            expression(rng, depth - 1, out);
            out.push(')');
        }
        33..=35 => {
            out.push_str("(?:");
            expression(rng, depth - 1, out);
            out.push(')');
        }
        36 => {
            out.push('(');
            out.push_str(&format!("(?{})", pick(rng, FLAGS)));
            expression(rng, depth - 1, out);
            out.push(')');
        }
        _ => {
            out.push('(');
            expression(rng, depth - 1, out);
            out.push(')');
        }
    }
}

fn bracket(rng: &mut Rng, out: &mut String) {
    out.push_str(["[", "[", "[^", "[]", "[^]"][rng.usize(..5)]);
    for _ in 0..rng.u32(1..4) {
        out.push_str(pick(rng, CLASS_ITEMS));
    }
    out.push(']');
}

fn repetition(rng: &mut Rng, out: &mut String) {
    let list = [
        "*", "+", "?", "*?", "+?", "??", "{0}", "{1}", "{2}", "{0,1}", "{1,3}", "{2,}", "{0,}", "{2}?",
        "{40}", "{}",
    ];
    out.push_str(list[rng.usize(..list.len())]);
}

/// Takes out, doubles or puts in a character of the syntax.
fn mutate(rng: &mut Rng, out: &mut String) {
    let places: Vec<usize> = out.char_indices().map(|(at, _)| at).chain([out.len()]).collect();
    let at = places[rng.usize(..places.len())];
    match rng.u8(..3) {
        0 if at < out.len() => drop(out.remove(at)),
        1 => {
            if let Some(c) = out[at..].chars().next() {
                out.insert(at, c);
            }
        }
        _ => out.insert_str(at, pick(rng, BROKEN)),
    }
}

/// A text for `pattern`: often one that is made to match it, sometimes changed, sometimes unrelated.
pub(super) fn text(rng: &mut Rng, pattern: &str) -> String {
    let mut text = String::new();
    for _ in 0..[0, 0, 1, 2][rng.usize(..4)] {
        text.push_str(pick(rng, CHARS));
    }
    match parse(pattern, &RegexLimits::default()) {
        Ok(hir) if rng.u8(..6) > 0 => sample(rng, &hir, &mut text),
        _ => {
            for _ in 0..rng.u32(0..6) {
                text.push_str(pick(rng, CHARS));
            }
        }
    }
    for _ in 0..[0, 0, 0, 1][rng.usize(..4)] {
        text.push_str(pick(rng, CHARS));
    }
    if rng.u8(..4) == 0 && !text.is_empty() {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let at = places[rng.usize(..places.len())];
        match rng.u8(..3) {
            0 => drop(text.remove(at)),
            1 => text.insert_str(at, pick(rng, CHARS)),
            _ => text = text.to_uppercase(),
        }
    }
    text
}

/// Appends a text that `hir` matches, but for its assertions.
fn sample(rng: &mut Rng, hir: &Hir, out: &mut String) {
    if out.len() > 400 {
        return;
    }
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(Class::Bytes(_)) => {}
        HirKind::Literal(literal) => out.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(Class::Unicode(class)) => {
            if class.ranges().is_empty() {
                return;
            }
            let range = &class.ranges()[rng.usize(..class.ranges().len())];
            let last = (range.len() - 1) as u32;
            let code = range.start() as u32 + if rng.bool() { rng.u32(..=last) } else { 0 };
            out.push(char::from_u32(code).unwrap_or(range.start()));
        }
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX).min(repetition.min + 2);
            for _ in 0..rng.u32(repetition.min..=most) {
                sample(rng, &repetition.sub, out);
            }
        }
        HirKind::Capture(capture) => sample(rng, &capture.sub, out),
        HirKind::Concat(subs) => subs.iter().for_each(|sub| sample(rng, sub, out)),
        HirKind::Alternation(subs) => {
            let branch = rng.usize(..subs.len());
            sample(rng, &subs[branch], out);
        }
    }
}
