//! One given value (a node of the file, or the text of a variable or flag) into the type that its key wants.
//!
//! Every reader returns `None` after it has reported a problem. viper took a quoted number or truth value where the key
//! wants one, and a bare number where it wants text; these are read too, with a warning.

use std::time::Duration;

use super::problem::{Origin, Report, alternatives, nearest};
use super::tree::{Node, Value};
use super::units;

/// A value as it was given, with the key it was given for.
#[derive(Debug, Clone)]
pub(super) struct Given<'a> {
    /// The key's whole path.
    pub(super) key: &'a str,
    pub(super) origin: Origin,
    pub(super) content: Content<'a>,
    /// Never show the value.
    pub(super) secret: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    Node(&'a Node),
    Text(&'a str),
}

impl<'a> Given<'a> {
    pub(super) fn node(key: &'a str, node: &'a Node) -> Self {
        Given { key, origin: node.origin(), content: Content::Node(node), secret: false }
    }

    pub(super) fn secret(self) -> Self {
        Given { secret: true, ..self }
    }

    /// Reports a problem with this value, which is shown after `what` unless it is secret.
    fn refuse<T>(&self, report: &mut Report, what: &str, cure: impl Into<String>) -> Option<T> {
        let shown = match (self.secret, self.content) {
            (false, Content::Text(text)) => Some(text),
            (false, Content::Node(Node { value: Value::Text(text), .. })) => Some(text.as_str()),
            _ => None,
        };
        let what = match shown {
            Some(text) => format!("{}: {what}", quoted(text)),
            None => what.to_owned(),
        };
        report.problem(&self.origin, self.key, what, cure);
        None
    }

    fn wrong_type<T>(&self, report: &mut Report, wanted: &str, cure: impl Into<String>) -> Option<T> {
        let found = match self.content {
            Content::Node(node) => node.found(),
            Content::Text(_) => "text",
        };
        self.refuse(report, &format!("found {found}, wanted {wanted}"), cure)
    }

    /// The content as text, where it is text.
    fn as_text(&self) -> Option<&'a str> {
        match self.content {
            Content::Text(text) => Some(text),
            Content::Node(Node { value: Value::Text(text), .. }) => Some(text),
            Content::Node(_) => None,
        }
    }

    fn is_from_file(&self) -> bool {
        matches!(self.content, Content::Node(_))
    }
}

/// A value of the configuration in quotes, with control characters escaped, cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// Text of one line, without control characters.
pub(super) fn line(given: &Given<'_>, report: &mut Report) -> Option<String> {
    let text = text(given, report)?;
    match units::control_character(&text) {
        Some(_) if given.secret => {
            given.refuse(report, "has a control character in it", "write it on one line")
        }
        Some(c) => given.refuse(report, &format!("has the control character {c} in it"), "leave it out"),
        None => Some(text),
    }
}

/// Text of any number of lines.
pub(super) fn text(given: &Given<'_>, report: &mut Report) -> Option<String> {
    if let Some(text) = given.as_text() {
        return Some(text.to_owned());
    }
    match given.content {
        Content::Node(Node { value: Value::Int(number), .. }) => {
            let cure = "write it in quotes";
            report.warning(&given.origin, given.key, "a number where text is wanted, read as text", cure);
            Some(number.to_string())
        }
        _ => given.wrong_type(report, "text", "write it in quotes"),
    }
}

/// Text that is not empty, without control characters.
pub(super) fn some_line(given: &Given<'_>, report: &mut Report) -> Option<String> {
    let text = line(given, report)?;
    if text.trim().is_empty() {
        return given.refuse(report, "is empty", "write a value, or leave the key out");
    }
    Some(text)
}

/// `true` or `false`.
pub(super) fn boolean(given: &Given<'_>, report: &mut Report) -> Option<bool> {
    if let Content::Node(Node { value: Value::Bool(value), .. }) = given.content {
        return Some(*value);
    }
    let Some(text) = given.as_text() else {
        return given.wrong_type(report, "true or false", "write true or false");
    };
    let value = match text.to_ascii_lowercase().as_str() {
        "true" => true,
        "false" => false,
        "yes" | "on" | "y" | "1" | "t" | "enabled" => {
            return given.refuse(report, "not true or false", "write true");
        }
        "no" | "off" | "n" | "0" | "f" | "disabled" => {
            return given.refuse(report, "not true or false", "write false");
        }
        _ => return given.wrong_type(report, "true or false", "write true or false"),
    };
    if given.is_from_file() {
        report.warning(&given.origin, given.key, "true or false in quotes", "write it without quotes");
    }
    Some(value)
}

/// A whole number from `min` to `max`.
pub(super) fn count(given: &Given<'_>, min: u64, max: u64, report: &mut Report) -> Option<u64> {
    let cure = format!("write a whole number from {min} to {max}");
    let number = match given.content {
        Content::Node(Node { value: Value::Int(number), .. }) => *number,
        _ => {
            let Some(number) = given.as_text().and_then(|text| text.trim().parse::<i128>().ok()) else {
                return given.wrong_type(report, "a whole number", cure);
            };
            if given.is_from_file() {
                report.warning(&given.origin, given.key, "a number in quotes", "write it without quotes");
            }
            number
        }
    };
    match u64::try_from(number) {
        Ok(value) if (min..=max).contains(&value) => Some(value),
        _ => {
            let what = format!("{number} is out of range");
            report.problem(&given.origin, given.key, what, cure);
            None
        }
    }
}

/// A number from 0 to `max`, fractions allowed.
pub(super) fn number(given: &Given<'_>, max: f64, report: &mut Report) -> Option<f64> {
    let cure = format!("write a number from 0 to {max}");
    let value = match given.content {
        #[allow(clippy::cast_precision_loss, reason = "numbers beyond 2^53 are out of range anyway")]
        Content::Node(Node { value: Value::Int(number), .. }) => *number as f64,
        Content::Node(Node { value: Value::Float(number), .. }) => *number,
        _ => match given.as_text().and_then(|text| text.trim().parse::<f64>().ok()) {
            Some(number) => number,
            None => return given.wrong_type(report, "a number", cure),
        },
    };
    if (0.0..=max).contains(&value) {
        return Some(value);
    }
    report.problem(&given.origin, given.key, format!("{value} is out of range"), cure);
    None
}

/// A duration. `zero` says what 0 stands for where the key takes 0.
pub(super) fn duration(given: &Given<'_>, zero: bool, report: &mut Report) -> Option<Duration> {
    let value = match given.content {
        Content::Node(Node { value: Value::Int(0), .. }) => Ok(Duration::ZERO),
        Content::Node(Node { value: Value::Int(n), .. }) if *n > 0 => {
            Err((format!("found {n}, a number without a unit"), format!("write {n}s, {n}ms or {n}m")))
        }
        Content::Node(Node { value: Value::Int(_) | Value::Float(_), .. }) => Err((
            "found a bare number, wanted a duration".into(),
            "write one such as 5ms, 10s or 1m30s".into(),
        )),
        _ => match given.as_text() {
            Some(text) => units::duration(text.trim()),
            None => return given.wrong_type(report, "a duration", "write one such as 5ms, 10s or 1m30s"),
        },
    };
    match value {
        Ok(value) if value.is_zero() && !zero => {
            given.refuse(report, "must be longer than 0", "write a duration such as 5ms, 10s or 1m30s")
        }
        Ok(value) => Some(value),
        Err((what, cure)) => given.refuse(report, &what, cure),
    }
}

/// A size in bytes from `min` to `max`.
pub(super) fn bytes(given: &Given<'_>, min: u64, max: u64, report: &mut Report) -> Option<u64> {
    let range = format!("write a size from {} to {}", units::bytes_text(min), units::bytes_text(max));
    let value = match given.content {
        Content::Node(Node { value: Value::Int(number), .. }) => {
            u64::try_from(*number).map_err(|_| ("a size out of range".to_owned(), range.clone()))
        }
        _ => match given.as_text() {
            Some(text) => units::bytes(text.trim()),
            None => return given.wrong_type(report, "a size in bytes", range),
        },
    };
    match value {
        Ok(value) if (min..=max).contains(&value) => Some(value),
        Ok(value) => given.refuse(report, &format!("{} is out of range", units::bytes_text(value)), range),
        Err((what, cure)) => given.refuse(report, &what, cure),
    }
}

/// One of `words`, whatever its case; its index.
pub(super) fn choice(given: &Given<'_>, words: &[&str], report: &mut Report) -> Option<usize> {
    let one_of = alternatives(words);
    let Some(text) = given.as_text() else {
        return given.wrong_type(report, &one_of, format!("write {one_of}"));
    };
    let word = text.trim().to_ascii_lowercase();
    words.iter().position(|known| *known == word).or_else(|| {
        let cure = match nearest(&word, words.iter().copied()) {
            Some(near) => format!("did you mean {near}? It is one of {one_of}"),
            None => format!("write {one_of}"),
        };
        given.refuse(report, "not a value of this key", cure)
    })
}

/// `host:port`, completed where the host is left out as Go allows.
pub(super) fn address(given: &Given<'_>, report: &mut Report) -> Option<String> {
    let text = line(given, report)?;
    match units::host_port(text.trim()) {
        Ok(("", port)) => Some(format!("0.0.0.0:{port}")),
        Ok(_) => Some(text.trim().to_owned()),
        Err((what, cure)) => given.refuse(report, &what, cure),
    }
}

/// An `http://` or `https://` URL. URLs can hold passwords, so they are not shown.
pub(super) fn url(given: &Given<'_>, report: &mut Report) -> Option<String> {
    let text = text(given, report)?;
    match units::http_url(text.trim()) {
        Ok(()) => Some(text.trim().to_owned()),
        Err((what, cure)) => given.clone().secret().refuse(report, &what, cure),
    }
}

/// A list of texts. In variables and flags the items are separated by commas or line ends.
pub(super) fn list(given: &Given<'_>, report: &mut Report) -> Option<Vec<(String, Origin)>> {
    match given.content {
        Content::Text(text) => {
            let items = text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty());
            Some(items.map(|item| (item.to_owned(), given.origin.clone())).collect())
        }
        Content::Node(Node { value: Value::List(items), .. }) => {
            let mut texts = Vec::with_capacity(items.len());
            let mut whole = true;
            for (i, item) in items.iter().enumerate() {
                let key = format!("{}[{i}]", given.key);
                let mut inner = Given::node(&key, item);
                inner.secret = given.secret;
                match text(&inner, report) {
                    Some(text) => texts.push((text, item.origin())),
                    None => whole = false,
                }
            }
            whole.then_some(texts)
        }
        Content::Node(_) => {
            given.wrong_type(report, "a list", "write each item on a line of its own after `- `")
        }
    }
}
