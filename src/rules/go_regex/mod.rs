//! Regular expressions as Go 1.26 reads and answers them (`regexp`, the RE2 syntax of `regexp/syntax`).
//!
//! Rules were written for Go, and the regular expressions of Rust differ from Go's without a word: `\d`, `\w`,
//! `\s` and `\b` are ASCII in Go, `[a&&b]` is a set of three characters, `{` may stand for itself. So the pattern is
//! parsed here, by Go's grammar, and handed to `regex-automata` as a finished tree; nothing of the syntax of the
//! `regex` crate is reachable.
//!
//! The answer is whether a text matches, nothing else: there are no captures and no match positions.
//!
//! Where the answers are known to differ from Go 1.26:
//!
//! - A pattern beyond [`RegexLimits`] is refused. Go takes some of those, for example `\pL{1000}`, or operators
//!   (not mere groups) nested more than 250 levels deep.
//! - `^\x{D800}` finds U+FFFD in Go, because a surrogate turns into U+FFFD when a literal prefix is made of it.
//!   Here a surrogate matches nothing, as it does in Go everywhere else.
//!
//! ```
//! use vault_audit_filter::rules::go_regex::GoRegex;
//!
//! let regex = GoRegex::new(r"^auth/[^/]+/login(/|$)").unwrap();
//! assert!(regex.is_match("auth/userpass/login/bob"));
//! assert_eq!(
//!     GoRegex::new("a**").unwrap_err().to_string(),
//!     "error parsing regexp: invalid nested repetition operator: `**`"
//! );
//! ```

mod class;
mod engine;
mod node;
mod parse;
mod required;
mod size;
#[cfg(test)]
mod tests;
mod text;
mod unicode;

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use regex_syntax::hir::Hir;

use engine::Engine;
pub use engine::LiteralTest;
pub use required::Required;

/// Bytes of a text with invalid UTF-8 that a thread keeps room for.
const LOSSY_TEXT_BYTES_KEPT: usize = 64 * 1024;

thread_local! {
    static LOSSY_TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What a pattern may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexLimits {
    /// Bytes of the pattern text.
    pub pattern_bytes_max: usize,
    /// Bytes of the compiled program (the NFA), reckoned before it is built, and of the character classes that go
    /// into it. While a pattern is compiled, and for a program that does not fit `dfa_bytes_max`, there may be a
    /// few times as much.
    pub program_bytes_max: usize,
    /// Bytes of a DFA built in advance. A pattern that would need more is searched in other ways.
    pub dfa_bytes_max: usize,
    /// Bytes of the cache that each thread fills while it searches with a pattern without such a DFA.
    pub cache_bytes_max: usize,
    /// Height of the tree of a pattern, groups included. Go's figure is 1,000.
    pub depth_max: u32,
    /// Levels of concatenation, alternation and repetition within each other, without groups and other levels
    /// that make no difference to a match. What compiles them is recursive, so this bounds the stack.
    pub operator_depth_max: u32,
}

impl Default for RegexLimits {
    fn default() -> RegexLimits {
        RegexLimits {
            pattern_bytes_max: 64 * 1024,
            program_bytes_max: 2 * 1024 * 1024,
            dfa_bytes_max: 64 * 1024,
            cache_bytes_max: 512 * 1024,
            depth_max: 1000,
            operator_depth_max: 250,
        }
    }
}

/// Why a pattern is refused. The text form is Go's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoRegexError {
    /// Bytes of the pattern that the message is about.
    pub span: Range<usize>,
    /// What is wrong, in Go's words.
    pub message: String,
    /// The text of `span`; cut short where the pattern is longer than allowed.
    pub fragment: String,
}

impl fmt::Display for GoRegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error parsing regexp: {}: `{}`", self.message, self.fragment)
    }
}

impl std::error::Error for GoRegexError {}

/// A compiled pattern. Any number of threads may search with it at once.
pub struct GoRegex {
    pattern: String,
    engine: Engine,
    required: Required,
}

impl fmt::Debug for GoRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GoRegex").field(&self.pattern).finish()
    }
}

impl GoRegex {
    /// Compiles `pattern` within the default [`RegexLimits`].
    ///
    /// # Errors
    /// The fault that Go would report, or the limit that the pattern goes beyond.
    pub fn new(pattern: &str) -> Result<GoRegex, GoRegexError> {
        GoRegex::with_limits(pattern, &RegexLimits::default())
    }

    /// Compiles `pattern` within `limits`. Time and memory are bounded by them.
    ///
    /// # Errors
    /// As [`GoRegex::new`].
    pub fn with_limits(pattern: &str, limits: &RegexLimits) -> Result<GoRegex, GoRegexError> {
        let (hir, _) = translated(pattern, limits)?;
        let engine = Engine::new(&hir, limits).ok_or_else(|| program_too_large(pattern, limits))?;
        Ok(GoRegex { pattern: pattern.to_owned(), engine, required: Required::new(&hir) })
    }

    /// Judges `pattern` as [`GoRegex::with_limits`] does, without building what searches. Returns the bytes that
    /// the program is reckoned to take, as [`RegexLimits::program_bytes_max`] counts them.
    ///
    /// # Errors
    /// As [`GoRegex::new`].
    pub fn check(pattern: &str, limits: &RegexLimits) -> Result<usize, GoRegexError> {
        translated(pattern, limits).map(|(_, program_bytes)| program_bytes)
    }

    /// The pattern as it was given.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether the pattern matches anywhere in `text`. Takes time in proportion to the text, at worst multiplied
    /// by the size of the program. Does not block; does not allocate once each thread has searched a few times.
    #[inline]
    pub fn is_match(&self, text: &str) -> bool {
        self.engine.is_match(text.as_bytes())
    }

    /// [`GoRegex::is_match`] for bytes that are known to be UTF-8.
    #[inline]
    pub(crate) fn is_match_utf8(&self, text: &[u8]) -> bool {
        self.engine.is_match(text)
    }

    /// Whether the pattern matches anywhere in `text`, where every byte that is not part of valid UTF-8 counts as
    /// one U+FFFD, as in Go. Costs a copy of a text that is not UTF-8, into room that the thread keeps.
    pub fn is_match_bytes(&self, text: &[u8]) -> bool {
        if !self.engine.needs_utf8() || std::str::from_utf8(text).is_ok() {
            return self.engine.is_match(text);
        }
        LOSSY_TEXT.with_borrow_mut(|lossy| {
            lossy.clear();
            lossy.shrink_to(LOSSY_TEXT_BYTES_KEPT);
            for chunk in text.utf8_chunks() {
                lossy.push_str(chunk.valid());
                lossy.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            self.engine.is_match(lossy.as_bytes())
        })
    }

    /// The work of [`GoRegex::is_match`] on a text of so many bytes, in steps of [`crate::rules::Limits`].
    pub(crate) fn steps(&self, bytes: usize) -> usize {
        self.engine.steps(bytes)
    }

    /// What every matching text must have: conditions for an index over many patterns.
    pub fn required_literals(&self) -> &Required {
        &self.required
    }

    /// The comparison that the whole pattern comes down to, if it is no more than one. It then decides in place
    /// of the search, also for texts that are not UTF-8.
    pub fn literal_test(&self) -> Option<LiteralTest<'_>> {
        self.engine.literal_test()
    }

    /// Heap bytes of the pattern and its program, without caches that searching may add.
    pub fn memory_bytes(&self) -> usize {
        self.pattern.len() + self.engine.memory_bytes()
    }
}

/// The tree of `pattern`, and the bytes of its program.
fn translated(pattern: &str, limits: &RegexLimits) -> Result<(Hir, usize), GoRegexError> {
    if pattern.len() > limits.pattern_bytes_max {
        let mut fragment = pattern[..pattern.floor_char_boundary(64)].to_owned();
        fragment.push_str("...");
        return Err(GoRegexError {
            span: 0..pattern.len(),
            message: format!(
                "{}: {} bytes, at most {} are allowed; use several patterns",
                parse::TOO_LARGE,
                pattern.len(),
                limits.pattern_bytes_max
            ),
            fragment,
        });
    }
    let hir = engine::trim(parse::parse(pattern, limits)?);
    let program_bytes = size::program_bytes(&hir, limits.program_bytes_max)
        .ok_or_else(|| program_too_large(pattern, limits))?;
    Ok((hir, program_bytes))
}

fn program_too_large(pattern: &str, limits: &RegexLimits) -> GoRegexError {
    GoRegexError {
        span: 0..pattern.len(),
        message: format!(
            "{}: the program takes more than {} bytes; use lower repeat counts or smaller character classes",
            parse::TOO_LARGE,
            limits.program_bytes_max
        ),
        fragment: pattern.to_owned(),
    }
}
