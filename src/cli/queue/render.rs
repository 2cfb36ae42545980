//! What `queue` prints.

use std::fmt::Write as _;

use crate::control::tasks::{State, TaskDetail, TaskLine};
use crate::text::printable;

/// Widest column of free text, in characters.
const TEXT_CHARS_MAX: usize = 60;
/// Widest column of a name, in characters.
const NAME_CHARS_MAX: usize = 40;

/// A value as one line of JSON.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value)
        .map_or_else(|e| format!("{{\"error\":{:?}}}\n", e.to_string()), |text| text + "\n")
}

/// Text from outside that cannot move a terminal's cursor.
pub(super) fn safe(text: &str) -> String {
    printable(text)
}

/// `3 dead letters`.
pub(super) fn counted(count: u64, state: State) -> String {
    let noun = match state {
        State::Dead => "dead letter",
        State::Pending => "pending task",
    };
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Prints a list page by page.
pub(super) struct Lister {
    json: bool,
    listed: u64,
    /// Widths of the columns so far: later pages keep them, or widen them.
    widths: [usize; COLUMNS.len()],
}

const COLUMNS: [&str; 7] = ["ID", "STATE", "SINK", "ACCEPTED", "ATTEMPTS", "REASON", "LAST ERROR"];

impl Lister {
    pub(super) fn new(json: bool) -> Lister {
        Lister { json, listed: 0, widths: COLUMNS.map(str::len) }
    }

    /// Tasks printed so far.
    pub(super) fn listed(&self) -> u64 {
        self.listed
    }

    /// The next tasks.
    pub(super) fn tasks(&mut self, tasks: &[TaskLine]) -> String {
        let first = self.listed == 0;
        self.listed += tasks.len() as u64;
        if self.json {
            return self.json_tasks(tasks, first);
        }
        if tasks.is_empty() {
            return String::new();
        }
        let rows: Vec<_> = tasks.iter().map(cells).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let header = first.then(|| COLUMNS.map(str::to_owned));
        header.iter().chain(&rows).map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String; COLUMNS.len()]) -> String {
        let mut line = String::new();
        for (width, cell) in self.widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }

    fn json_tasks(&self, tasks: &[TaskLine], first: bool) -> String {
        let mut text = String::new();
        for (i, task) in tasks.iter().enumerate() {
            text.push_str(if first && i == 0 { "{\"tasks\":[" } else { "," });
            text.push_str(json(task).trim_end());
        }
        text
    }

    /// What stands at the end, with how many there are in all.
    pub(super) fn end(&self, total: u64) -> String {
        match (self.json, self.listed) {
            (false, _) => String::new(),
            (true, 0) => format!("{{\"tasks\":[],\"total\":{total}}}\n"),
            (true, _) => format!("],\"total\":{total}}}\n"),
        }
    }
}

fn cells(task: &TaskLine) -> [String; COLUMNS.len()] {
    let attempts = match task.attempts_max {
        Some(max) => format!("{}/{max}", task.attempts),
        None => task.attempts.to_string(),
    };
    [
        safe(&task.id),
        safe(&task.standing),
        cut(&safe(&task.sink), NAME_CHARS_MAX),
        safe(&task.accepted_at),
        attempts,
        task.reason.as_deref().map_or_else(|| "-".to_owned(), safe),
        task.last_error.as_deref().map_or_else(|| "-".to_owned(), |error| cut(&safe(error), TEXT_CHARS_MAX)),
    ]
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max - 1).chain(['…']).collect(),
    }
}

/// One task with its record, for people.
pub(super) fn detail(detail: &TaskDetail) -> String {
    let task = &detail.task;
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<15} {}", safe(value));
    };
    row("id", &task.id);
    row("state", &task.standing);
    row("group", &task.group);
    let unknown = if task.sink_known { "" } else { " (not in the configuration: it waits until it is)" };
    row("sink", &format!("{}{unknown}", task.sink));
    row("source", &task.source);
    row("accepted", &task.accepted_at);
    row("attempts", &cells(task)[4]);
    for (name, value) in [
        ("first attempt", &task.first_attempt_at),
        ("last attempt", &task.last_attempt_at),
        ("next attempt", &task.next_due_at),
        ("expires", &task.expires_at),
        ("last error", &task.last_error),
        ("dead since", &task.dead_at),
        ("reason", &task.reason),
        ("replay of", &task.replay_of),
    ] {
        if let Some(value) = value {
            row(name, value);
        }
    }
    if task.attempts_before > 0 {
        row("attempts before", &task.attempts_before.to_string());
    }
    if let Some(status) = task.last_status {
        row("last status", &format!("HTTP {status}"));
    }
    let (form, record) = match &detail.record_base64 {
        None => ("", detail.record.get()),
        Some(encoded) => (", in base64 since it is no JSON", encoded.as_str()),
    };
    let _ = writeln!(text, "\nrecord ({} bytes{form}):\n{}", task.record_bytes, safe(record));
    text
}
