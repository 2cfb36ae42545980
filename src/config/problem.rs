//! What is wrong with a configuration: where it stands, which key, what, and what to write instead.

use std::fmt;

/// Where a setting came from. Ordered by precedence: a later variant wins over an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file, at this line from 1; 0 where the line is not known.
    File(u32),
    /// The environment variable of this name.
    Environment(String),
    /// The command line flag of this name, with its dashes.
    Flag(String),
}

impl Origin {
    /// The same kind of source, whatever the line or name.
    pub(super) fn same_source(&self, other: &Origin) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// One thing that is wrong (or, as a warning, odd). Its text is one line unless the complaint itself has several, and
/// never holds the value of a secret key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as given, the environment variable or the flag.
    pub place: String,
    /// Line in that file, from 1; 0 where there is none.
    pub line: u32,
    /// The key, as in `rule_groups[2].messaging.type`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead; may be empty where `what` says it.
    pub cure: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if !self.cure.is_empty() {
            write!(f, "; {}", self.cure)?;
        }
        Ok(())
    }
}

/// Everything that is wrong, in the order of the file; displayed one to a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many things are wrong.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects problems and warnings while the configuration is read, so that all of them are told at once.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The file's name as given, for the places of its problems.
    pub(super) file: String,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Report {
    pub(super) fn problem(
        &mut self,
        origin: &Origin,
        key: &str,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let problem = self.made(origin, key, what.into(), cure.into());
        self.problems.push(problem);
    }

    pub(super) fn warning(
        &mut self,
        origin: &Origin,
        key: &str,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let warning = self.made(origin, key, what.into(), cure.into());
        self.warnings.push(warning);
    }

    fn made(&self, origin: &Origin, key: &str, what: String, cure: String) -> Problem {
        let (place, line) = match origin {
            Origin::Default => ("defaults".to_owned(), 0),
            Origin::File(line) => (self.file.clone(), *line),
            Origin::Environment(name) => (format!("environment {name}"), 0),
            Origin::Flag(name) => (format!("flag {name}"), 0),
        };
        Problem { place, line, key: key.to_owned(), what, cure }
    }

    /// Problems and warnings in the order of the file, those from elsewhere first.
    pub(super) fn sort(&mut self) {
        let file = self.file.clone();
        for list in [&mut self.problems, &mut self.warnings] {
            list.sort_by_key(|problem| (problem.place == file, problem.line));
            list.dedup();
        }
    }
}

/// The text with its control characters escaped.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// The known word nearest to a mistyped one, if one is near: the same letters in another order, a few wrong letters, or
/// one within the other (`path` for `file_path`).
pub(super) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for word in known {
        let distance = strsim::damerau_levenshtein(typed, word);
        let allowed = (typed.chars().count().max(word.len()) / 3).max(1);
        let within = typed.len() >= 3 && (word.contains(typed) || (word.len() >= 3 && typed.contains(word)));
        if (distance <= allowed || within) && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, word));
        }
    }
    best.map(|(_, word)| word)
}

/// `a, b or c`.
pub(super) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_slips_and_parts_and_nothing_else() {
        let known = ["rules", "name", "file_path", "type", "queue_size", "audit_address"];
        for (typed, wanted) in [
            ("rule", Some("rules")),
            ("path", Some("file_path")),
            ("typ", Some("type")),
            ("queue_sise", Some("queue_size")),
            ("audit_adress", Some("audit_address")),
            ("queuesize", Some("queue_size")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known), wanted, "{typed}");
        }
    }

    #[test]
    fn text_has_place_line_key_what_and_cure() {
        let mut report = Report { file: "a.yaml".into(), ..Report::default() };
        report.problem(&Origin::File(3), "x.y", "wrong", "write z");
        report.problem(&Origin::Environment("V".into()), "", "odd", "");
        report.sort();
        assert_eq!(
            Problems(report.problems).to_string(),
            "environment V: odd\na.yaml:3: x.y: wrong; write z"
        );
        assert_eq!(alternatives(&["a", "b", "c"]), "a, b or c");
        assert_eq!(alternatives(&["a"]) + &alternatives(&[]), "a");
    }
}
