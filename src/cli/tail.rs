//! `tail`: what the groups of a running server match, as it comes.

use clap::Args;
use serde_json::Value;

use super::socket::Socket;
use super::{FAILED, Io, OK, WRONG, io::Format, socket};
use crate::config::Overrides;
use crate::control::{Client, encode};
use crate::text::printable;

pub(super) const EXAMPLES: &str = "\
Examples:
  Everything that any group matches:
      vault-audit-filter tail
  Two groups:
      vault-audit-filter tail --group deletions --group root
  The next denied request, whole:
      vault-audit-filter tail --group denied --lines 1 --format json | jq .record
  Paths, as they are deleted:
      vault-audit-filter tail --group deletions --format json | jq -r .record.request.path

It shows what is matched from now on, about 50 ms later, until it is interrupted. Nobody waits for it: where it cannot keep up,
matches are left out, and it is said how many. A reload does not end it.
Exit code: 0 as many as --lines says, or the reader has gone, 1 no server runs there, or it has stopped, 2 when something was wrong.";

/// Arguments of `tail`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this group; may be given several times
    #[arg(short, long, value_name = "NAME")]
    group: Vec<String>,
    /// End after so many matches
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    lines: Option<u64>,
    #[command(flatten)]
    server: Socket,
    /// What to print: one line of what matters, or the whole record within JSON
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Follows until the end.
pub(super) fn run(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let Some(path) = arguments.server.find(overrides, io) else { return WRONG };
    let groups: Vec<String> =
        arguments.group.iter().map(|group| format!("group={}", encode(group))).collect();
    let mut lines = match Client::at(&path).follow(&format!("/v1/tail?{}", groups.join("&"))) {
        Ok(lines) => lines,
        Err(error) => return socket::failed(&path, &error, io),
    };
    let mut left = arguments.lines;
    loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => {
                io.say("the server has ended the connection");
                return FAILED;
            }
            Err(error) => {
                io.say(&format!("{path:?}: {error}"));
                return WRONG;
            }
        };
        let value: Value = serde_json::from_slice(&line).unwrap_or_default();
        if let Some(lost) = value["lost"].as_u64() {
            io.say(&format!("{lost} matches left out: they came faster than they could be shown"));
            continue;
        }
        let mut text = match arguments.format {
            Format::Json => line,
            Format::Text => summary(&value, io.out_is_terminal).into_bytes(),
        };
        text.push(b'\n');
        match io.out.write_all(&text).and_then(|()| io.out.flush()) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return OK,
            Err(e) => {
                io.say(&format!("cannot write to standard output: {e}"));
                return WRONG;
            }
        }
        left = left.map(|n| n - 1);
        if left == Some(0) {
            return OK;
        }
    }
}

/// Colours of groups on a terminal: each keeps its own.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];

/// `07:17:23.938  GROUP  request  delete  secret/data/a  root  127.0.0.1  error`, what is not there left out.
fn summary(found: &Value, coloured: bool) -> String {
    let paint = |code: u8, text: &str| {
        if coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let text = |pointer: &str| printable(found.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let (at, group) = (text("/at"), text("/group"));
    let time = at.split('T').nth(1).map_or(at.as_str(), |time| time.trim_end_matches('Z'));
    let colour = COLOURS
        [group.bytes().fold(0_usize, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into())) % COLOURS.len()];
    let mut parts = vec![paint(2, time), paint(colour, &group)];
    let record = |path: &str| text(&format!("/record/{path}"));
    let operation = record("request/operation");
    let code = if operation == "delete" { 31 } else { 1 };
    for (code, part) in [
        (0, record("type")),
        (code, operation),
        (0, record("request/path")),
        (0, record("auth/display_name")),
        (2, record("request/remote_address")),
        (31, record("error")),
    ] {
        if !part.is_empty() {
            parts.push(if code == 0 { part } else { paint(code, &part) });
        }
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_is_one_line_that_leaves_the_terminal_alone() {
        let found = serde_json::json!({
            "at": "2026-11-24T07:17:23.938Z", "group": "a\u{1b}[2J", "listener": "http",
            "record": { "type": "request", "request": { "operation": "delete", "path": "x\ny\u{202e}" }, "error": "no" },
        });
        assert_eq!(summary(&found, false), "07:17:23.938  a\\u{1b}[2J  request  delete  x\\ny\\u{202e}  no");
        let coloured = summary(&found, true);
        assert!(
            coloured.contains("\u{1b}[31mdelete\u{1b}[0m") && !coloured.contains("[2J\u{1b}[2J"),
            "{coloured}"
        );
        assert!(!coloured.contains('\n') && coloured.matches('\u{1b}').count() == 8, "{coloured:?}");
        assert_eq!(summary(&serde_json::json!({"group": "g"}), false), "  g");
    }
}
