//! How foreign text is made harmless in a message. A path or a display name is chosen by whoever talks to Vault: it must neither
//! ping a channel nor change the layout of a message.
//!
//! Sources: <https://api.slack.com/reference/surfaces/formatting#escaping> (exactly `&`, `<` and `>`),
//! <https://docs.mattermost.com/collaborate/format-messages.html> and the server's rewriting of `<...>` in webhook texts.

/// The language that a destination's messages are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markup {
    /// Slack's mrkdwn.
    Slack,
    /// Mattermost's Markdown.
    Mattermost,
    /// None.
    Plain,
}

/// Stands between a character and what it would start.
const ZERO_WIDTH_SPACE: char = '\u{200b}';

impl Markup {
    /// Appends a foreign value to a message: without control characters, and without anything that means something to the destination.
    pub(super) fn push_value(self, out: &mut String, value: &str) {
        self.push(out, value, true);
    }

    /// Appends a whole foreign text: only what would call people is taken away, and line breaks stay.
    pub(super) fn push_text(self, out: &mut String, text: &str) {
        self.push(out, text, false);
    }

    fn push(self, out: &mut String, text: &str, one_line: bool) {
        let mut before = ' ';
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let next = chars.peek().copied().unwrap_or(' ');
            match c {
                '\n' | '\t' if !one_line => out.push(c),
                '\n' | '\r' | '\t' => out.push(' '),
                c if c.is_control() || is_invisible(c) => {}
                '`' if one_line && self != Markup::Plain => out.push('\''),
                '&' if self == Markup::Slack => out.push_str("&amp;"),
                '<' if self == Markup::Slack => out.push_str("&lt;"),
                '>' if self == Markup::Slack => out.push_str("&gt;"),
                '@' if self == Markup::Mattermost && !before.is_alphanumeric() => {
                    out.push('@');
                    out.push(ZERO_WIDTH_SPACE);
                }
                // `<!channel>` and `<url|label>` are rewritten by webhooks before Markdown is.
                '<' if self == Markup::Mattermost && !next.is_whitespace() => {
                    out.push('<');
                    out.push(ZERO_WIDTH_SPACE);
                }
                c => out.push(c),
            }
            before = c;
        }
    }

    /// `text` (already harmless) in bold.
    pub(super) fn bold(self, text: &str) -> String {
        match self {
            Markup::Slack => format!("*{text}*"),
            Markup::Mattermost => format!("**{text}**"),
            Markup::Plain => text.to_owned(),
        }
    }

    /// A foreign value in a code span, where nothing else is interpreted.
    pub(super) fn code(self, value: &str) -> String {
        let mut out = String::with_capacity(value.len() + 2);
        let quote = if self == Markup::Plain { "" } else { "`" };
        out.push_str(quote);
        self.push_value(&mut out, value);
        out.push_str(quote);
        out
    }
}

/// Characters that are not seen but change what is: bidirectional controls, zero-width characters, line separators.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Cuts `text` to `chars_max` characters, the last of which say so and name the request. Entities and code spans stay whole. With
/// `is_part` something is missing already, and is said to be.
pub(super) fn cut(text: &mut String, chars_max: usize, request_id: Option<&str>, is_part: bool) {
    // No string has more characters than bytes.
    if !is_part && (text.len() <= chars_max || text.chars().count() <= chars_max) {
        return;
    }
    let note = match request_id {
        Some(id) => format!(" … (truncated, request id {})", id.chars().take(64).collect::<String>()),
        None => " … (truncated)".to_owned(),
    };
    let room = chars_max.saturating_sub(note.chars().count() + 1);
    let end = text.char_indices().nth(room).map_or(text.len(), |(i, _)| i);
    text.truncate(end);
    // "&amp;" is the longest entity: an ampersand without its semicolon among the last four bytes is a cut one.
    if let Some(at) = text.rfind('&')
        && text.len() - at < 5
        && !text[at..].contains(';')
    {
        text.truncate(at);
    }
    if text.matches('`').count() % 2 == 1 {
        text.push('`');
    }
    text.push_str(&note);
}

#[cfg(test)]
#[path = "escape_tests.rs"]
mod tests;
