//! What a program will take, reckoned from the tree before anything is built: a pattern beyond its limit is refused at once, and
//! not after so many bytes have been filled.
//!
//! The figures are those of the NFA of `regex-automata` 0.4, which has a state of 24 bytes for each byte of a literal and about 20
//! bytes for each row of byte ranges that a class of characters comes to in UTF-8 (`\pL`: 827 rows, 15.5 kB; `\PL` the
//! same; `[a-z]`: 24 bytes). A program can turn out smaller where rows or words have parts in common.

use regex_syntax::hir::{Class, Hir, HirKind};
use regex_syntax::utf8::Utf8Sequences;

const STATE_BYTES: usize = 24;
const ROW_BYTES: usize = 20;

/// Bytes of the program for `hir`; `None` when they are more than `bytes_max`. Takes time in proportion to the pattern and to
/// `bytes_max` at most. Recursive: the depth of the tree is bounded by the parser.
pub(super) fn program_bytes(hir: &Hir, bytes_max: usize) -> Option<usize> {
    let bytes = match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => STATE_BYTES,
        HirKind::Literal(literal) => literal.0.len().saturating_mul(STATE_BYTES),
        HirKind::Class(class) => class_bytes(class, bytes_max)?,
        HirKind::Capture(capture) => program_bytes(&capture.sub, bytes_max)?,
        HirKind::Concat(subs) | HirKind::Alternation(subs) => {
            let own = if matches!(hir.kind(), HirKind::Alternation(_)) { STATE_BYTES } else { 0 };
            subs.iter().try_fold(own, |sum, sub| {
                let left = bytes_max.checked_sub(sum)?;
                Some(sum + program_bytes(sub, left)?)
            })?
        }
        HirKind::Repetition(repetition) => {
            let copies = repetition.max.unwrap_or(repetition.min).max(1) as usize;
            // A branch before each copy that may be left out, and one that goes back.
            let branches = copies - (repetition.min as usize).min(copies) + 1;
            let copy = program_bytes(&repetition.sub, bytes_max / copies)?;
            copy.saturating_mul(copies).saturating_add(branches.saturating_mul(STATE_BYTES))
        }
    };
    (bytes <= bytes_max).then_some(bytes)
}

fn class_bytes(class: &Class, bytes_max: usize) -> Option<usize> {
    let Class::Unicode(class) = class else { return Some(STATE_BYTES) };
    if class.is_ascii() {
        return Some(STATE_BYTES.max(class.ranges().len() * ROW_BYTES));
    }
    let rows = class.ranges().iter().flat_map(|range| Utf8Sequences::new(range.start(), range.end()));
    let rows_max = bytes_max / ROW_BYTES;
    // One more tells that they are too many.
    let rows = rows.take(rows_max.saturating_add(1)).count();
    (rows <= rows_max).then_some(rows * ROW_BYTES)
}

#[cfg(test)]
mod tests {
    use regex_automata::nfa::thompson::{self, WhichCaptures};

    use super::super::{RegexLimits, parse::parse};
    use super::*;

    fn built_bytes(hir: &Hir) -> usize {
        let config = thompson::Config::new().which_captures(WhichCaptures::None);
        thompson::Compiler::new().configure(config).build_from_hir(hir).unwrap().memory_usage()
    }

    #[test]
    fn the_figure_is_near_the_truth() {
        for inner in [
            "a",
            "abcdefgh",
            ".",
            "[^x]",
            "[a-z]",
            "[ac-eg-z]",
            "(?i)k",
            r"\pL",
            r"\PL",
            r"\p{Lu}",
            r"\pN",
            r"[\pL\pN_-]",
            "[а-яё]",
            "(?:ab|cd|ef)",
            "(?:a.|b)",
            "a*",
            "a?b+",
            "^a$",
            r"\b",
            "(?:a{3}b{2,5}){2,}",
        ] {
            for pattern in [format!("(?:{inner}){{40}}"), format!("(?:{inner}){{20,40}}x")] {
                let hir = parse(&pattern, &RegexLimits::default()).unwrap();
                let (reckoned, built) = (program_bytes(&hir, usize::MAX).unwrap(), built_bytes(&hir));
                // Besides the states there are tables of a few KiB.
                assert!(built <= 2 * reckoned + 4096, "{pattern}: {built} bytes, reckoned {reckoned}");
                assert!(reckoned <= 3 * built, "{pattern}: {built} bytes, reckoned {reckoned}");
                // The limit is kept to the byte.
                assert_eq!(program_bytes(&hir, reckoned), Some(reckoned), "{pattern}");
                assert_eq!(program_bytes(&hir, reckoned - 1), None, "{pattern}");
            }
        }
    }
}
