//! What is said when a rule cannot be compiled or evaluated.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::ops::Range;

/// A rule that cannot be compiled: what, where, and what to type instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The place in the source, in bytes; on character boundaries, within the source.
    pub span: Range<usize>,
    /// What is wrong, with the type found and the type wanted.
    pub message: String,
    /// What to type instead, where that can be told.
    pub help: Option<String>,
}

impl RuleError {
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> RuleError {
        RuleError { span, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> RuleError {
        self.help = Some(help.into());
        self
    }

    /// Line and column (in characters) of the place, both from 1.
    pub fn position(&self, source: &str) -> (usize, usize) {
        let start = floor_boundary(source, self.span.start);
        let before = source.get(..start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// The message with line and column, the source line with a caret line under the place, and the help.
    /// Control characters of the source are escaped; long lines are cut around the place.
    pub fn render(&self, source: &str) -> String {
        let (line_no, column) = self.position(source);
        let start = floor_boundary(source, self.span.start);
        let line_start = source.get(..start).and_then(|s| s.rfind('\n')).map_or(0, |at| at + 1);
        let line_end = source.get(start..).and_then(|s| s.find('\n')).map_or(source.len(), |at| start + at);
        let end = floor_boundary(source, self.span.end).clamp(start, line_end);
        let (mut text, mut before, mut width) = (String::new(), 0, 0);
        let (from, to) = window(source, line_start, line_end, start, end);
        if from > line_start {
            text.push_str("...");
            before += 3;
        }
        for (at, c) in source.get(from..to).unwrap_or("").char_indices() {
            let shown = push_shown(&mut text, c);
            if from + at < start {
                before += shown;
            } else if from + at < end {
                width += shown;
            }
        }
        if to < line_end {
            text.push_str("...");
        }
        let mut out = String::new();
        let _ = writeln!(out, "{}:{}: {}", line_no, column, escape(&self.message));
        let gutter = " ".repeat(line_no.to_string().len());
        let _ = writeln!(out, "{line_no} | {text}");
        let _ = write!(out, "{gutter} | {}{}", " ".repeat(before), "^".repeat(width.max(1)));
        if let Some(help) = &self.help {
            let _ = write!(out, "\n{gutter} = help: {}", escape(help));
        }
        out
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.message))?;
        match &self.help {
            Some(help) => write!(f, " ({})", escape(help)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RuleError {}

/// Characters of a source line shown on each side of the place at most.
const SHOWN_MAX: usize = 100;

fn window(source: &str, line_start: usize, line_end: usize, start: usize, end: usize) -> (usize, usize) {
    let mut from = line_start;
    if start - line_start > SHOWN_MAX {
        from = floor_boundary(source, start - SHOWN_MAX / 2);
    }
    let mut to = line_end;
    if line_end - end.min(start + SHOWN_MAX) > SHOWN_MAX {
        to = floor_boundary(source, end.min(start + SHOWN_MAX) + SHOWN_MAX);
    }
    (from, to)
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Appends a character as it is shown and returns how many columns it takes.
fn push_shown(out: &mut String, c: char) -> usize {
    if c == '\t' {
        out.push(' ');
        return 1;
    }
    if c.is_control() || is_format(c) {
        let escaped: String = c.escape_default().collect();
        out.push_str(&escaped);
        return escaped.len();
    }
    out.push(c);
    columns(c)
}

/// Bidirectional and invisible format characters would make the shown line lie.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Terminal columns of a character: two for the wide East Asian blocks and emoji (Unicode TR11), none for combining marks.
fn columns(c: char) -> usize {
    match c as u32 {
        0x300..=0x36f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_format(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A rule that failed on one record. It is no match for that rule; other rules go on.
///
/// The message may hold values of the record (as the Go library's messages do): it belongs into `match --explain`,
/// not into diagnostics. [`EvalError::kind`] is free of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalError {
    /// What class of failure.
    pub kind: EvalErrorKind,
    /// The place in the rule's source, in bytes.
    pub span: Range<usize>,
    /// What happened.
    pub message: Cow<'static, str>,
}

/// Classes of run-time failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EvalErrorKind {
    /// An operation on a value it is not defined for, or an index that is not there.
    Value,
    /// A field of the record has another JSON type than the schema says.
    MistypedField,
    /// A limit of [`crate::rules::Limits`] was reached.
    Limit,
}

impl EvalErrorKind {
    /// One word or two for counters and diagnostics.
    pub fn as_str(self) -> &'static str {
        match self {
            EvalErrorKind::Value => "value",
            EvalErrorKind::MistypedField => "mistyped field",
            EvalErrorKind::Limit => "limit",
        }
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.message))
    }
}

impl std::error::Error for EvalError {}

/// The candidate nearest to a misspelt name: the same letters in another case, or few edits away.
pub(crate) fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let plain = |s: &str| s.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect::<Vec<char>>();
    let wanted = plain(name);
    let most = (wanted.len() / 3).max(1);
    candidates
        .filter_map(|candidate| {
            let distance = edit_distance(&wanted, &plain(candidate), most)?;
            Some((distance, candidate))
        })
        .min_by_key(|(distance, candidate)| (*distance, *candidate))
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance (insert, delete, substitute, swap neighbours), `None` when above `most`.
fn edit_distance(a: &[char], b: &[char], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most || a.len() > 100 {
        return None;
    }
    let width = b.len() + 1;
    let mut table = vec![0usize; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let at = i * width + j;
            table[at] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut best =
                    (table[at - width] + 1).min(table[at - 1] + 1).min(table[at - width - 1] + same);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[at - 2 * width - 2] + 1);
                }
                best
            };
        }
    }
    let distance = table[a.len() * width + b.len()];
    (distance <= most).then_some(distance)
}
