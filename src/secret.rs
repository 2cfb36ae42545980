//! Secrets: tokens and webhook URLs. They have no `Display`, and their `Debug` shows nothing of them.

use std::fmt;

/// A string that is never printed. [`Secret::expose`] is the one way to its text; whoever calls it keeps it out of
/// diagnostics, errors and metrics.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty, that is: not configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in a time that depends on the lengths only, never on where the texts differ.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let ours = self.0.as_bytes();
        let mut difference = ours.len() ^ candidate.len();
        for (i, byte) in candidate.iter().enumerate() {
            difference |= usize::from(byte ^ ours.get(i).copied().unwrap_or(0));
        }
        difference == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(empty)" } else { "Secret(...)" })
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_shows_nothing_of_the_text() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(...)");
        assert_eq!(format!("{:?}", Secret::default()), "Secret(empty)");
    }

    #[test]
    fn matches_is_equality() {
        let secret = Secret::new("abc");
        assert!(secret.matches(b"abc"));
        for other in [&b""[..], b"ab", b"abd", b"abcd", b"\0\0\0", b"abc\0"] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert!(!Secret::new("ab\0").matches(b"ab"));
    }
}
