//! The quarantine log: frames that could not be decoded, kept as they came.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::LogFile;
use crate::text::needs_escape;

/// The [`LogFile`] that takes raw frames, one JSON object on a line for each ([`Quarantine::entry`]):
///
/// ```json
/// {"time":"2026-11-24T05:48:10.302Z","listener":"http","reason":"not_json","detail":"...","bytes":12,"raw":"not a record"}
/// ```
///
/// `time` is UTC. `bytes` is the number of bytes kept. They stand in `raw` when they are UTF-8, else in `raw_base64` (standard
/// alphabet, padded); decoding either gives back exactly the bytes that came, line breaks included. So
/// `jq -rj 'select(.raw).raw'` feeds frames to another try.
#[derive(Debug, Clone)]
pub struct Quarantine {
    file: Arc<LogFile>,
}

#[derive(Serialize)]
struct Entry<'a> {
    time: String,
    listener: &'a str,
    reason: &'a str,
    detail: &'a str,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
}

impl Quarantine {
    /// Quarantined frames go to `file`.
    pub fn new(file: Arc<LogFile>) -> Quarantine {
        Quarantine { file }
    }

    /// Where the entries go.
    pub fn file(&self) -> &Arc<LogFile> {
        &self.file
    }

    /// The entry of one frame, to be appended to [`Quarantine::file`]: a line without its newline.
    pub fn entry(listener: &str, reason: &str, detail: &str, raw: &[u8], now: SystemTime) -> Vec<u8> {
        let text = std::str::from_utf8(raw).ok();
        let time = jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let entry = Entry {
            time: format!("{time:.3}"),
            listener,
            reason,
            detail,
            bytes: raw.len(),
            raw: text,
            raw_base64: text.is_none().then(|| STANDARD.encode(raw)),
        };
        tamed(serde_json::to_string(&entry).expect("strings and a number always serialise")).into_bytes()
    }
}

/// The same JSON with escapes for what JSON does not ask to be escaped and yet changes what a terminal shows: somebody will look at it there.
fn tamed(json: String) -> String {
    if !json.contains(needs_escape) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + json.len() / 8);
    for c in json.chars() {
        if needs_escape(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use base64::Engine as _;
    use proptest::prelude::*;

    use super::{Quarantine, STANDARD};

    #[test]
    fn an_entry_reads_as_documented() {
        let at = UNIX_EPOCH + Duration::from_millis(1_795_499_290_302);
        assert_eq!(
            String::from_utf8(Quarantine::entry(
                "tcp",
                "not_json",
                "expected a value",
                b"not \"a\" record\n",
                at
            ))
            .expect("UTF-8"),
            r#"{"time":"2026-11-24T05:48:10.302Z","listener":"tcp","reason":"not_json","detail":"expected a value","bytes":15,"raw":"not \"a\" record\n"}"#
        );
        assert_eq!(
            String::from_utf8(Quarantine::entry("udp", "not_utf8", "", b"\xff\x00", at)).expect("UTF-8"),
            r#"{"time":"2026-11-24T05:48:10.302Z","listener":"udp","reason":"not_utf8","detail":"","bytes":2,"raw_base64":"/wA="}"#
        );
    }

    proptest! {
        #[test]
        fn the_frame_comes_back_byte_for_byte(raw in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "\\PC{0,60}[\r\n\u{2028}\u{0}\u{7f}-\u{9f}\u{202e}]{0,3}".prop_map(String::into_bytes),
        ], detail in "\\PC{0,20}") {
            let line = Quarantine::entry("http", "r", &detail, &raw, UNIX_EPOCH);
            let shown = std::str::from_utf8(&line).expect("UTF-8");
            prop_assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{:?}", shown);
            let back: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
            prop_assert_eq!(back["bytes"].as_u64(), Some(raw.len() as u64));
            prop_assert_eq!(back["detail"].as_str(), Some(detail.as_str()));
            let bytes = match (back["raw"].as_str(), back["raw_base64"].as_str()) {
                (Some(text), None) => text.as_bytes().to_vec(),
                (None, Some(encoded)) => STANDARD.decode(encoded).expect("base64"),
                other => panic!("exactly one of them: {other:?}"),
            };
            prop_assert_eq!(bytes, raw);
        }
    }
}
