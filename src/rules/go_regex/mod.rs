//! (placeholder until the merge)
/// x
#[derive(Debug)]
pub struct GoRegex(regex_automata::meta::Regex);
/// x
#[derive(Debug)]
pub struct GoRegexError(String);
impl std::fmt::Display for GoRegexError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl GoRegex {
    /// x
    pub fn new(pattern: &str) -> Result<GoRegex, GoRegexError> {
        regex_automata::meta::Regex::new(pattern).map(GoRegex).map_err(|e| GoRegexError(e.to_string()))
    }
    /// x
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}
