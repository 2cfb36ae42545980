//! Text for people: numbers as they read them, and text from outside that must not rewrite their terminal.

/// Whether a terminal does something else with a character than show it: control characters, and marks that change the direction of what follows.
pub(crate) fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with such characters made visible.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if needs_escape(c) { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
