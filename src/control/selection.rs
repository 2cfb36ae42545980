//! Which tasks a request means: query parameters of a list, JSON of a replay or drop.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::tasks::{Filter, FilterError, State};

/// The body of a replay or drop. The conditions are those of [`Filter`], as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "as in Filter")]
pub struct Selection {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Everything, said on purpose.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

impl Selection {
    /// The conditions by name.
    fn conditions(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let ids = self.ids.iter().map(|id| ("id", id.as_str()));
        let others = [
            ("group", &self.group),
            ("sink", &self.sink),
            ("since", &self.since),
            ("until", &self.until),
            ("reason", &self.reason),
        ];
        ids.chain(others.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))))
    }

    /// The filter, which takes everything of `state` only when that was said.
    ///
    /// # Errors
    /// A condition that cannot be understood, no condition at all, or one beside `all`.
    pub fn filter(&self, state: State, now: SystemTime) -> Result<Filter, FilterError> {
        let mut filter = Filter { state: Some(state), ..Filter::default() };
        for (name, text) in self.conditions() {
            filter.set(name, text, now)?;
        }
        match (filter.is_empty(), self.all) {
            (true, false) => Err(FilterError {
                what: "nothing says which tasks are meant".to_owned(),
                cure: "give ids, a condition (group, sink, since, until, reason), or all to mean every one"
                    .to_owned(),
            }),
            (false, true) => Err(FilterError {
                what: "all does not go with ids or conditions".to_owned(),
                cure: "leave it out, or leave them out".to_owned(),
            }),
            _ => Ok(filter),
        }
    }

    /// The query parameters of a list.
    pub fn to_query(&self) -> String {
        let pairs: Vec<String> =
            self.conditions().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        pairs.join("&")
    }
}

/// What a list was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) filter: Filter,
    pub(super) offset: u64,
    pub(super) limit: Option<usize>,
}

/// Reads the query of a list.
///
/// # Errors
/// A parameter that does not exist or cannot be understood.
pub(super) fn from_query(query: &str, state: State, now: SystemTime) -> Result<Listed, FilterError> {
    let filter = Filter { state: Some(state), ..Filter::default() };
    let mut listed = Listed { filter, offset: 0, limit: None };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| FilterError {
            what: format!("the value of {name:?} is not percent-encoded UTF-8"),
            cure: "encode it, as `curl -G --data-urlencode` does".to_owned(),
        })?;
        match name {
            "offset" => listed.offset = number(name, &value)?,
            "limit" => listed.limit = Some(number(name, &value)?),
            "state" => {
                return Err(FilterError {
                    what: "the path says which state is meant".to_owned(),
                    cure: "ask /v1/pending or /v1/dead-letters".to_owned(),
                });
            }
            _ => listed.filter.set(name, &value, now)?,
        }
    }
    Ok(listed)
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, FilterError> {
    text.parse().map_err(|_| FilterError {
        what: format!("{name} {text:?} is not a number of tasks"),
        cure: "write a whole number".to_owned(),
    })
}

/// Percent-encodes all but unreserved characters (RFC 3986, 2.3).
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                let digit = |b: u8| char::from(b).to_digit(16);
                bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
                rest = tail;
            }
            // As forms encode a space; a plus sign itself comes encoded.
            b'+' => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::control::tasks::task_id;
    use crate::store::Reason;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn now() -> SystemTime {
        NOW + Duration::from_secs(1_000_000)
    }

    #[test]
    fn a_query_is_a_filter() {
        let query = format!("group=pay%20roll&sink=a+b&since=1h&reason=expired&id={ID}&offset=5&limit=7&");
        let listed = from_query(&query, State::Dead, now()).expect("understood");
        assert_eq!(listed.filter.group.as_deref(), Some("pay roll"));
        assert_eq!(listed.filter.sink.as_deref(), Some("a b"));
        assert_eq!(listed.filter.since, Some(now() - Duration::from_secs(3600)));
        assert_eq!(listed.filter.reason, Some(Reason::Expired));
        assert_eq!((listed.offset, listed.limit), (5, Some(7)));
        assert_eq!(listed.filter.ids, [task_id(ID).expect("an id")]);
        for (query, part) in [
            ("color=red", "color"),
            ("group=%zz", "percent-encoded"),
            ("group=%f", "percent-encoded"),
            ("group=%ff", "percent-encoded"),
            ("limit=many", "number of tasks"),
            ("limit=-1", "number of tasks"),
            ("offset=x", "number of tasks"),
            ("id=1", "id of a task"),
            ("since=yesterday", "not a time"),
            ("reason=bad", "does not exist"),
            ("state=dead", "the path says"),
        ] {
            let error = from_query(query, State::Dead, now()).expect_err(query).to_string();
            assert!(error.contains(part), "{query}: {error}");
        }
    }

    #[test]
    fn everything_has_to_be_said() {
        let of = |text: &str| {
            let selection: Selection = serde_json::from_str(text).expect("JSON");
            selection.filter(State::Dead, now())
        };
        assert!(of("{}").expect_err("empty").to_string().contains("all"));
        assert!(of(r#"{"all":true}"#).expect("all").is_empty());
        assert!(
            of(r#"{"all":true,"group":"a"}"#).expect_err("both").to_string().contains("does not go with")
        );
        assert!(!of(&format!(r#"{{"ids":["{ID}"]}}"#)).expect("ids").is_empty());
        assert!(of(r#"{"ids":["x"]}"#).is_err() && of(r#"{"until":""}"#).is_err());
        assert!(serde_json::from_str::<Selection>(r#"{"grup":"a"}"#).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in any::<String>()) {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            prop_assert_eq!(decode(&encoded), Some(text));
        }

        #[test]
        fn a_selection_survives_its_query(group in ".+", sink in ".+") {
            let selection = Selection { group: Some(group), sink: Some(sink), ids: vec![ID.to_owned()], ..Selection::default() };
            let listed = from_query(&selection.to_query(), State::Dead, now()).expect("understood");
            prop_assert_eq!(listed.filter, selection.filter(State::Dead, now()).expect("understood"));
        }

        #[test]
        fn no_query_panics(query in ".*") {
            let _ = from_query(&query, State::Pending, now());
        }
    }
}
