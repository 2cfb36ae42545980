//! Source text to tokens. Model: the lexer of expr-lang/expr 1.17 (`parser/lexer`).

use std::sync::LazyLock;

use regex_syntax::hir::{ClassUnicode, HirKind};

use super::ast::Span;
use super::error::RuleError;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Ident(Box<str>),
    Number(Box<str>),
    Str(Box<[u8]>),
    Bytes(Box<[u8]>),
    /// Operators and the words that are operators.
    Op(&'static str),
    Bracket(char),
    Eof,
}

impl Token {
    /// The token as a message names it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Token::Ident(name) => format!("the name `{name}`"),
            Token::Number(text) => format!("the number `{text}`"),
            Token::Str(_) => "a string".into(),
            Token::Bytes(_) => "a bytes literal".into(),
            Token::Op(op) => format!("`{op}`"),
            Token::Bracket(bracket) => format!("`{bracket}`"),
            Token::Eof => "the end of the rule".into(),
        }
    }
}

/// Words that are operators outside of a member name.
const WORDS: [&str; 10] =
    ["in", "or", "and", "matches", "contains", "startsWith", "endsWith", "let", "if", "else"];

/// Operators of symbols, longest first; those of two symbols that are no operators of the language are refused by the parser.
const SYMBOLS: [&str; 32] = [
    "&&", "&=", "&*", "!&", "!=", "!*", "=&", "==", "=*", "*&", "*=", "**", "<&", "<=", "<*", ">&", ">=",
    ">*", "&", "!", "=", "*", "<", ">", ",", ";", "%", "+", "-", "^", "||", "|",
];

/// All tokens of a source, the end included.
///
/// # Errors
/// The first thing that is no token, with its place.
pub(crate) fn lex(source: &str) -> Result<Vec<(Token, Span)>, RuleError> {
    let mut lexer = Lexer { source, at: 0, start: 0, tokens: Vec::new() };
    while lexer.token()? {}
    let end = Span::new(source.len(), source.len());
    lexer.tokens.push((Token::Eof, end));
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    start: usize,
    tokens: Vec<(Token, Span)>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, wanted: &str) -> bool {
        let hit = self.peek().is_some_and(|c| wanted.contains(c));
        if hit {
            self.at += 1;
        }
        hit
    }

    fn word(&self) -> &'s str {
        &self.source[self.start..self.at]
    }

    fn emit(&mut self, token: Token) {
        self.tokens.push((token, Span::new(self.start, self.at)));
        self.start = self.at;
    }

    fn error(&self, message: impl Into<String>) -> RuleError {
        RuleError::new(self.start..self.at, message)
    }

    /// Reads one token (or a blank, or a comment); false at the end.
    fn token(&mut self) -> Result<bool, RuleError> {
        self.start = self.at;
        let Some(c) = self.next() else { return Ok(false) };
        match c {
            c if c.is_whitespace() => {}
            '"' | '\'' => self.string(c, false)?,
            'b' | 'B' if matches!(self.peek(), Some('"' | '\'')) => {
                let quote = self.next().unwrap_or('"');
                self.string(quote, true)?;
            }
            '`' => self.raw_string()?,
            '0'..='9' => self.number()?,
            '.' => {
                if self.peek().is_some_and(|c| c.is_ascii_digit()) {
                    self.number()?;
                } else {
                    let op = if self.accept(".") { ".." } else { "." };
                    self.emit(Token::Op(op));
                }
            }
            '?' => {
                let op = if self.accept(".") {
                    "?."
                } else if self.accept("?") {
                    "??"
                } else {
                    "?"
                };
                self.emit(Token::Op(op));
            }
            '/' => self.slash()?,
            '#' => self.pointer(),
            ':' => {
                let op = if self.accept(":") { "::" } else { ":" };
                self.emit(Token::Op(op));
            }
            '(' | ')' | '[' | ']' | '{' | '}' => self.emit(Token::Bracket(c)),
            c if is_word(c) => self.identifier(),
            c => self.symbol(c)?,
        }
        Ok(true)
    }

    fn symbol(&mut self, c: char) -> Result<(), RuleError> {
        let rest = &self.source[self.start..];
        let Some(op) = SYMBOLS.iter().find(|op| rest.starts_with(**op)) else {
            return Err(self.error(format!("{} is not part of the language", show(c))));
        };
        self.at = self.start + op.len();
        self.emit(Token::Op(op));
        Ok(())
    }

    fn slash(&mut self) -> Result<(), RuleError> {
        if self.accept("/") {
            self.at = self.rest().find('\n').map_or(self.source.len(), |end| self.at + end + 1);
        } else if self.accept("*") {
            match self.rest().find("*/") {
                Some(end) => self.at += end + 2,
                None => return Err(self.error("this comment is not closed").help("close it with `*/`")),
            }
        } else {
            self.emit(Token::Op("/"));
        }
        Ok(())
    }

    fn pointer(&mut self) {
        // "##" is a token of its own that nothing accepts.
        let op = if self.accept("#") { "##" } else { "#" };
        self.emit(Token::Op(op));
        self.skip_word();
        if !self.word().is_empty() {
            self.emit(Token::Ident(self.word().into()));
        }
    }

    fn skip_word(&mut self) {
        while self.peek().is_some_and(is_word) {
            self.next();
        }
    }

    fn identifier(&mut self) {
        self.skip_word();
        let word = self.word();
        if word == "not" {
            self.emit(Token::Op("not"));
            self.at = self.source.len() - self.rest().trim_start_matches(' ').len();
            self.start = self.at;
            self.skip_word();
            let next = self.word();
            match WORDS.iter().find(|op| **op == next) {
                Some(op @ (&"in" | &"matches" | &"contains" | &"startsWith" | &"endsWith")) => {
                    self.emit(Token::Op(op))
                }
                _ => self.at = self.start,
            }
        } else if let Some(op) = WORDS.iter().find(|op| **op == word) {
            self.emit(Token::Op(op));
        } else {
            self.emit(Token::Ident(word.into()));
        }
    }

    fn accept_run(&mut self, wanted: &str) {
        while self.accept(wanted) {}
    }

    fn number(&mut self) -> Result<(), RuleError> {
        self.at = self.start;
        let mut digits = "0123456789_";
        if self.accept("0") {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        self.accept_run(digits);
        let whole = self.at;
        if self.accept(".") {
            if self.peek() == Some('.') {
                self.at = whole;
                self.emit(Token::Number(self.word().into()));
                return Ok(());
            }
            self.accept_run(digits);
        }
        if self.accept("eE") {
            self.accept("+-");
            self.accept_run(digits);
        }
        if self.peek().is_some_and(is_word) {
            self.next();
            return Err(self.error(format!("`{}` is not a number", self.word())));
        }
        self.emit(Token::Number(self.word().into()));
        Ok(())
    }

    fn raw_string(&mut self) -> Result<(), RuleError> {
        let mut value = String::new();
        loop {
            match self.next() {
                None => return Err(self.error("this string is not closed").help("close it with a backtick")),
                Some('`') if self.accept("`") => value.push('`'),
                Some('`') => break,
                Some(c) => value.push(c),
            }
        }
        self.emit(Token::Str(value.into_bytes().into()));
        Ok(())
    }

    fn string(&mut self, quote: char, bytes: bool) -> Result<(), RuleError> {
        let mut value = Vec::new();
        loop {
            match self.next() {
                None | Some('\n') => {
                    return Err(RuleError::new(self.start..self.start + 1, "this string is not closed")
                        .help(format!("close it with {quote} on the same line, or use a `raw string`")));
                }
                Some(c) if c == quote => break,
                Some('\\') => self.escape(quote, bytes, &mut value)?,
                // Newlines are normalised as in Go's lexer: a carriage return becomes a newline.
                Some('\r') => {
                    if self.peek() != Some('\n') {
                        value.push(b'\n');
                    } else {
                        continue;
                    }
                }
                Some(c) => value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.emit(if bytes { Token::Bytes(value.into()) } else { Token::Str(value.into()) });
        Ok(())
    }

    /// One escape; the backslash is read.
    fn escape(&mut self, quote: char, bytes: bool, out: &mut Vec<u8>) -> Result<(), RuleError> {
        let from = self.at - 1;
        let simple = match self.next() {
            Some('a') => 7,
            Some('b') => 8,
            Some('f') => 12,
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('v') => 11,
            Some('\\') => b'\\',
            Some(c) if c == quote => c as u8,
            Some('x') => return self.code(from, 16, 2, bytes, out),
            Some('u') if !bytes && self.peek() == Some('{') => return self.braced_code(from, out),
            Some('u') if !bytes => return self.code(from, 16, 4, false, out),
            Some('U') if !bytes => return self.code(from, 16, 8, false, out),
            Some('0'..='3') => {
                self.at -= 1;
                return self.code(from, 8, 3, bytes, out);
            }
            _ => return Err(self.bad_escape(from)),
        };
        out.push(simple);
        Ok(())
    }

    fn bad_escape(&self, from: usize) -> RuleError {
        let text = &self.source[from..self.at];
        let error = RuleError::new(from..self.at, format!("`{text}` is not an escape"));
        error.help("write `\\\\` for a backslash, or put regular expressions into a `raw string`")
    }

    fn code(
        &mut self,
        from: usize,
        radix: u32,
        digits: usize,
        byte: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), RuleError> {
        let mut code: u32 = 0;
        for _ in 0..digits {
            match self.peek().and_then(|c| c.to_digit(radix)) {
                Some(digit) => code = code.wrapping_mul(radix).wrapping_add(digit),
                None => {
                    self.next();
                    return Err(self.bad_escape(from));
                }
            }
            self.at += 1;
        }
        if byte {
            out.push(code as u8);
            return Ok(());
        }
        self.push_code(from, code, out)
    }

    fn braced_code(&mut self, from: usize, out: &mut Vec<u8>) -> Result<(), RuleError> {
        self.at += 1;
        let (mut code, mut digits) = (0u32, 0);
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) {
            code = code << 4 | digit;
            digits += 1;
            self.at += 1;
            if digits > 6 {
                return Err(self.bad_escape(from));
            }
        }
        if digits == 0 || !self.accept("}") {
            return Err(self.bad_escape(from));
        }
        self.push_code(from, code, out)
    }

    fn push_code(&mut self, from: usize, code: u32, out: &mut Vec<u8>) -> Result<(), RuleError> {
        // Surrogates become the replacement character, as Go encodes them.
        let c = match code {
            0xd800..=0xdfff => '\u{fffd}',
            code => char::from_u32(code).ok_or_else(|| self.bad_escape(from))?,
        };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
}

fn show(c: char) -> String {
    if c.is_control() { format!("the character {}", c.escape_unicode()) } else { format!("`{c}`") }
}

/// Letters and decimal digits of Unicode, `_` and `$`.
fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_' || c == '$';
    }
    let table = &*WORD_CLASS;
    let at = table.partition_point(|(_, end)| *end < c);
    table.get(at).is_some_and(|(start, _)| *start <= c)
}

/// True where the text is a name that may follow a dot.
pub(crate) fn is_name(text: &str) -> bool {
    text.chars().next().is_some_and(|c| is_word(c) && !c.is_numeric()) && text.chars().all(is_word)
}

/// Ranges of `\p{L}` and `\p{Nd}`, sorted.
static WORD_CLASS: LazyLock<Vec<(char, char)>> = LazyLock::new(|| {
    let mut class = ClassUnicode::empty();
    for pattern in [r"\p{L}", r"\p{Nd}"] {
        if let Ok(hir) = regex_syntax::parse(pattern)
            && let HirKind::Class(regex_syntax::hir::Class::Unicode(ranges)) = hir.kind()
        {
            class.union(ranges);
        }
    }
    class.ranges().iter().map(|range| (range.start(), range.end())).collect()
});
