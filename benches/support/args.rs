//! The arguments of the bench programs, and the middle of several rounds.
#![allow(dead_code, reason = "shared by benchmarks that each use a part")]

/// The arguments that a bench was started with.
pub struct Arguments(Vec<String>);

impl Arguments {
    pub fn of_process() -> Self {
        Arguments(std::env::args().collect())
    }

    /// Only to see that it works: `--quick`, or `--test` as cargo says it.
    pub fn is_quick(&self) -> bool {
        self.has("--quick") || self.has("--test")
    }

    /// Whether `name` was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|a| a == name)
    }

    /// What follows `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|a| a == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    /// The number that follows `name`, else `quick` or `full`.
    pub fn number(&self, name: &str, quick: f64, full: f64) -> f64 {
        let given = self.text(name).and_then(|v| v.parse().ok());
        given.unwrap_or(if self.is_quick() { quick } else { full })
    }

    /// `--rounds`, at least one.
    pub fn rounds(&self, full: usize) -> usize {
        (self.number("--rounds", 1.0, full as f64) as usize).max(1)
    }
}

/// The middle value; of an even number the upper one of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
