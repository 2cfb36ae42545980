//! `status`: what a running server does, asked over its control socket.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;

use super::{Io, OK, WRONG, io::Format, socket};
use crate::config::Overrides;
use crate::control::Client;
use crate::control::status::Status;
use crate::text::printable;

pub(super) const EXAMPLES: &str = "\
Examples:
  Once, for people:
      vault-audit-filter status
  Again and again, on a terminal:
      vault-audit-filter status --watch
  For a script: is every sink up?
      vault-audit-filter status --format json | jq -e 'all(.sinks[]; .up)'

Asks the server over control.socket of the configuration, or control.sock in async.durable.dir when the durable store is on.
Exit code: 0 answered, 1 no server runs there, 2 when something was wrong.";

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Print it again every second, or every so many, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

/// Goes home and clears what is behind: less flicker than clearing all first.
const HOME: &str = "\x1b[H\x1b[J";

/// Prints the status, once or again and again.
pub(super) fn run(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let Some(path) = socket::find(overrides, io) else { return WRONG };
    let client = Client::at(&path);
    loop {
        let status: Status = match client.get("/v1/status") {
            Ok(status) => status,
            Err(error) => return socket::failed(&path, &error, io),
        };
        let text = match arguments.format {
            Format::Json => serde_json::to_string(&status).unwrap_or_default() + "\n",
            Format::Text if arguments.watch.is_some() && io.out_is_terminal => {
                HOME.to_owned() + &text(&status)
            }
            Format::Text => text(&status),
        };
        if io.print(&text) != OK {
            return WRONG;
        }
        let Some(seconds) = arguments.watch else { return OK };
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn text(status: &Status) -> String {
    let mut out = String::new();
    let records = &status.records;
    let _ =
        writeln!(out, "vault-audit-filter {}, up {}", printable(&status.version), uptime(status.uptime_s));
    let _ = writeln!(
        out,
        "records: {} matched, {} unmatched, {} quarantined, {} duplicate, {} refused",
        records.matched, records.unmatched, records.quarantined, records.duplicate, records.refused
    );
    let rows = status.listeners.iter().map(|listener| {
        let connections = listener.connections.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let (received, bytes) = (listener.received.to_string(), listener.received_bytes.to_string());
        let silent = silent(listener.silent_s);
        vec![listener.listener.clone(), listener.address.clone(), connections, received, bytes, silent]
    });
    let names = ["LISTENER", "ADDRESS", "CONNECTIONS", "RECORDS", "BYTES", "SILENT FOR"];
    table(&mut out, &names, rows.collect());
    let rows = status
        .sources
        .iter()
        .map(|source| vec![source.source.clone(), source.requests.to_string(), silent(source.silent_s)]);
    table(&mut out, &["SOURCE", "REQUESTS", "SILENT FOR"], rows.collect());
    let rows = status.groups.iter().map(|group| {
        let errors: u64 = group.rules.iter().map(|rule| rule.errors).sum();
        vec![
            group.group.clone(),
            group.matches.to_string(),
            group.rules.len().to_string(),
            errors.to_string(),
        ]
    });
    table(&mut out, &["GROUP", "MATCHES", "RULES", "RULE ERRORS"], rows.collect());
    let rows = status.sinks.iter().map(|sink| {
        let up = if sink.up { "up" } else { "down" };
        let counts = [sink.delivered, sink.failed, sink.dropped, sink.waiting, sink.in_flight];
        [sink.sink.clone(), up.to_owned()].into_iter().chain(counts.map(|n| n.to_string())).collect()
    });
    let names = ["SINK", "STATE", "DELIVERED", "FAILED", "DROPPED", "WAITING", "IN FLIGHT"];
    table(&mut out, &names, rows.collect());
    store(&mut out, status);
    out
}

fn store(out: &mut String, status: &Status) {
    let Some(store) = &status.store else { return };
    let accepting = match &store.refusing {
        None => "accepting".to_owned(),
        Some(why) => format!("NOT accepting: {}", printable(why)),
    };
    let share = store.bytes.saturating_mul(100).checked_div(store.bytes_max).unwrap_or(0);
    let _ = writeln!(
        out,
        "\nstore: {accepting}; {} pending (the oldest for {}), {} dead letters, {} bytes on disk ({share} % of the bound)",
        store.pending,
        uptime(store.oldest_pending_s),
        store.dead,
        store.bytes
    );
    for damage in &store.damages {
        let _ = writeln!(out, "damaged: {}", printable(damage));
    }
}

/// A table with its columns as wide as they need to be; nothing where there are no rows.
fn table(out: &mut String, names: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let head: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(rows)
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    out.push('\n');
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
}

fn silent(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), uptime)
}

/// `3d 4h 5m 6s`, from the first unit that is not zero.
fn uptime(seconds: u64) -> String {
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let from = parts.iter().position(|(n, _)| *n > 0).unwrap_or(parts.len() - 1);
    parts[from..].iter().map(|(n, unit)| format!("{n}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{
        GroupStatus, ListenerStatus, Records, RuleStatus, SinkStatus, SourceStatus,
    };
    use crate::control::tasks::Condition;

    #[test]
    fn people_get_tables_that_leave_their_terminal_alone() {
        let rule = RuleStatus { rule: 1, expression: "true".into(), matched: false, errors: 7 };
        let status = Status {
            version: "1.2.3".into(),
            uptime_s: 90_061,
            records: Records { matched: 1, unmatched: 2, quarantined: 3, duplicate: 5, refused: 4 },
            listeners: vec![ListenerStatus {
                listener: "udp".into(),
                address: "127.0.0.1:1269".into(),
                connections: None,
                received: 10,
                received_bytes: 1000,
                silent_s: Some(61),
            }],
            sources: vec![SourceStatus { source: "bao-1".into(), requests: 8, silent_s: None }],
            groups: vec![GroupStatus {
                group: "pay\u{1b}[2Jroll".into(),
                matches: 5,
                rules: vec![rule.clone(), rule],
                sinks: vec!["payroll/slack".into()],
            }],
            sinks: vec![SinkStatus {
                sink: "payroll/slack".into(),
                up: false,
                accepted: 9,
                delivered: 1,
                dropped: 2,
                failed: 3,
                waiting: 2,
                in_flight: 1,
            }],
            store: Some(Condition {
                pending: 3,
                dead: 2,
                bytes: 50,
                bytes_max: 200,
                oldest_pending_s: 61,
                refusing: Some("full".into()),
                damages: vec!["1.seg at byte 9: torn".into()],
            }),
        };
        let shown = text(&status);
        for part in [
            "up 1d 1h 1m 1s\n",
            "records: 1 matched, 2 unmatched, 3 quarantined, 5 duplicate, 4 refused\n",
            "udp       127.0.0.1:1269  -            10       1000   1m 1s\n",
            "bao-1   8         -\n",
            "pay\\u{1b}[2Jroll  5        2      14\n",
            "payroll/slack  down   1          3       2        2        1\n",
            "NOT accepting: full; 3 pending (the oldest for 1m 1s), 2 dead letters, 50 bytes on disk (25 % of",
            "damaged: 1.seg at byte 9: torn\n",
        ] {
            assert!(shown.contains(part), "{part:?} in\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'));
    }
}
