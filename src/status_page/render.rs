//! The page as HTML, and its numbers as JSON. What the tables show stands here once: the script learns the columns from the page.

use std::fmt::Write as _;

use serde_json::Value;

use super::overview::Overview;
use crate::text::grouped;

/// The frame; the comments in it are replaced.
const PAGE: &str = include_str!("page.html");

/// How a value is written, here and by the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Text that names the row.
    Name,
    Text,
    Count,
    Bytes,
    Seconds,
    /// A ratio as a percentage.
    Share,
    /// Whether a sink is up.
    Up,
    /// Rules of a group.
    Rules,
    /// How fast a counter grows, with a plot: by the script only.
    Rate,
    /// A plot of the value itself: by the script only.
    Trend,
}

impl Form {
    /// The word by which the script knows it.
    fn word(self) -> &'static str {
        match self {
            Form::Name => "name",
            Form::Text => "text",
            Form::Count => "count",
            Form::Bytes => "bytes",
            Form::Seconds => "seconds",
            Form::Share => "share",
            Form::Up => "up",
            Form::Rules => "rules",
            Form::Rate => "rate",
            Form::Trend => "trend",
        }
    }

    fn is_live(self) -> bool {
        matches!(self, Form::Rate | Form::Trend)
    }

    fn text(self, value: &Value) -> String {
        let number = value.as_u64();
        match self {
            _ if value.is_null() => "–".to_owned(),
            Form::Name | Form::Text => value.as_str().unwrap_or_default().to_owned(),
            Form::Count => value.as_i64().map_or_else(String::new, |n| grouped(n.unsigned_abs())),
            Form::Bytes => bytes(number.unwrap_or(0)),
            Form::Seconds => seconds(number.unwrap_or(0)),
            Form::Share => format!("{} %", (value.as_f64().unwrap_or(0.0) * 100.0).floor()),
            Form::Up => if value == true { "up" } else { "down" }.to_owned(),
            Form::Rules => rules(value),
            Form::Rate | Form::Trend => String::new(),
        }
    }
}

/// A table; its rows are under the name `key` in the JSON.
struct Table {
    key: &'static str,
    title: &'static str,
    note: &'static str,
    /// What the rows are, for "and 7 more".
    rows: &'static str,
    /// Head of the column, name of the value in a row, form.
    columns: &'static [(&'static str, &'static str, Form)],
    is_wide: bool,
}

static TABLES: [Table; 8] = [
    Table {
        key: "listeners",
        title: "Listeners",
        note: "",
        rows: "listeners",
        columns: &[
            ("Listener", "listener", Form::Name),
            ("Address", "address", Form::Text),
            ("Connections", "connections", Form::Count),
            ("Records", "received", Form::Count),
            ("Per second", "received", Form::Rate),
            ("Received", "received_bytes", Form::Bytes),
            ("Silent for", "silent_s", Form::Seconds),
        ],
        is_wide: true,
    },
    Table {
        key: "groups",
        title: "Rule groups",
        note: "Rules by their numbers. A group goes no further than its first rule that matches; what never matched did not since this \
               configuration came into use.",
        rows: "groups",
        columns: &[
            ("Group", "group", Form::Name),
            ("Rules", "rules", Form::Count),
            ("Matches", "matches", Form::Count),
            ("Per second", "matches", Form::Rate),
            ("Never matched", "never_matched", Form::Rules),
            ("Failing", "failing", Form::Rules),
        ],
        is_wide: true,
    },
    Table {
        key: "sinks",
        title: "Sinks",
        note: "",
        rows: "sinks",
        columns: &[
            ("Sink", "sink", Form::Name),
            ("State", "up", Form::Up),
            ("Waiting", "waiting", Form::Count),
            ("Queue holds", "capacity", Form::Count),
            ("Waiting, lately", "waiting", Form::Trend),
            ("On disk", "stored", Form::Count),
            ("In flight", "in_flight", Form::Count),
            ("Delivered", "delivered", Form::Count),
            ("Per second", "delivered", Form::Rate),
            ("Failed", "failed", Form::Count),
            ("Dropped", "dropped", Form::Count),
        ],
        is_wide: true,
    },
    Table {
        key: "store",
        title: "Durable store",
        note: "",
        rows: "logs",
        columns: &[
            ("Kept", "log", Form::Name),
            ("Tasks", "tasks", Form::Count),
            ("Lately", "tasks", Form::Trend),
            ("Oldest", "oldest_s", Form::Seconds),
            ("Of its bound on disk", "disk_used", Form::Share),
        ],
        is_wide: false,
    },
    Table {
        key: "reasons",
        title: "Not taken as records",
        note: "",
        rows: "reasons",
        columns: &[
            ("Reason", "reason", Form::Name),
            ("Outcome", "outcome", Form::Text),
            ("Frames", "frames", Form::Count),
            ("Per second", "frames", Form::Rate),
        ],
        is_wide: false,
    },
    Table {
        key: "logs",
        title: "Log files",
        note: "",
        rows: "log files",
        columns: &[
            ("File", "file", Form::Name),
            ("State", "state", Form::Text),
            ("Hanging for", "hanging_s", Form::Seconds),
            ("Failed appends", "write_errors", Form::Count),
            ("Failed rotations", "keeper_errors", Form::Count),
        ],
        is_wide: true,
    },
    Table {
        key: "conditions",
        title: "Readiness",
        note: "",
        rows: "conditions",
        columns: &[("Condition", "condition", Form::Name), ("State", "state", Form::Text)],
        is_wide: false,
    },
    Table {
        key: "reloads",
        title: "Configuration",
        note: "",
        rows: "",
        columns: &[
            ("Last reload", "last", Form::Name),
            ("Applied", "applied", Form::Count),
            ("Refused", "refused", Form::Count),
            ("Failed", "failed", Form::Count),
        ],
        is_wide: false,
    },
];

/// Numbers of `records` with a card each; the first one is the largest.
const CARDS: [(&str, &str); 6] = [
    ("Received", "received"),
    ("Matched", "matched"),
    ("Unmatched", "unmatched"),
    ("Quarantined", "quarantined"),
    ("Sent twice", "duplicate"),
    ("Refused", "refused"),
];

/// `/status.json`.
pub(super) fn json(overview: &Overview) -> Vec<u8> {
    // Strings and numbers in structs: there is nothing that could not be written.
    serde_json::to_vec(overview).unwrap_or_default()
}

/// The page, readable as it is.
pub(super) fn html(overview: &Overview) -> String {
    let numbers = serde_json::to_value(overview).unwrap_or_default();
    let mut page = String::with_capacity(32 << 10);
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("<!--") {
        page.push_str(before);
        let (name, after) = after.split_once("-->").unwrap_or((after, ""));
        match name {
            "version" => escape(overview.version, &mut page),
            "uptime" => page.push_str(&seconds(overview.uptime_ms / 1000)),
            "health" => health(overview, &mut page),
            "cards" => CARDS.iter().for_each(|card| self::card(card, &numbers["records"], &mut page)),
            "tables" => TABLES.iter().for_each(|table| self::table(table, &numbers[table.key], &mut page)),
            _ => {}
        }
        rest = after;
    }
    page.push_str(rest);
    page
}

fn health(overview: &Overview, out: &mut String) {
    let health = &overview.health;
    let _ = write!(
        out,
        "<section id=\"health\" class=\"{}\"><h2 id=\"verdict\" role=\"status\">{}</h2><ul id=\"findings\">",
        health.tone.word(),
        health.verdict
    );
    for finding in &health.findings {
        let _ = write!(out, "<li class=\"{}\">", finding.tone.word());
        escape(&finding.text, out);
        out.push_str("</li>");
    }
    out.push_str("</ul></section>");
}

fn card((title, key): &(&str, &str), records: &Value, out: &mut String) {
    let total = Form::Count.text(&records[key]);
    // Only the largest plot has room for words at its axis.
    let is_first = *key == CARDS[0].1;
    let axis = if is_first {
        "<p class=\"axis live\" aria-hidden=\"true\"><span></span><span>now</span></p>"
    } else {
        ""
    };
    let _ = write!(
        out,
        "<div class=\"card {key}\" data-card=\"{key}\"><h3>{title}</h3><p class=\"rate live\"></p><p class=\"total\"><b>{total}</b> since the \
         start</p><div class=\"plot live\"></div>{axis}</div>"
    );
}

fn table(table: &Table, rows: &Value, out: &mut String) {
    let Table { key, title, note, rows: what, columns, is_wide } = table;
    let (more, rows) = (&rows["more"], rows["rows"].as_array().map_or(&[][..], Vec::as_slice));
    let hidden = if rows.is_empty() { " hidden" } else { "" };
    let wide = if *is_wide { " class=\"wide\"" } else { "" };
    let _ = write!(
        out,
        "<section{wide} data-table=\"{key}\"{hidden}><h2 id=\"{key}\">{title}</h2><div class=\"scroll\" role=\"region\" tabindex=\"0\" \
         aria-labelledby=\"{key}\"><table aria-labelledby=\"{key}\"><thead><tr>"
    );
    for (head, name, form) in *columns {
        let live = if form.is_live() { " class=\"live\"" } else { "" };
        let _ = write!(
            out,
            "<th scope=\"col\" data-key=\"{name}\" data-form=\"{}\"{live}>{head}</th>",
            form.word()
        );
    }
    out.push_str("</tr></thead><tbody>");
    rows.iter().for_each(|values| row(columns, values, out));
    let more = more.as_u64().filter(|more| *more > 0).map(|more| format!("and {} more", grouped(more)));
    let _ = write!(
        out,
        "</tbody></table></div><p class=\"more\" data-rows=\"{what}\">{}</p>",
        more.map(|more| format!("{more} {what}")).unwrap_or_default()
    );
    if !note.is_empty() {
        let _ = write!(out, "<p class=\"note\">{note}</p>");
    }
    out.push_str("</section>");
}

fn row(columns: &[(&str, &str, Form)], values: &Value, out: &mut String) {
    let _ = write!(out, "<tr class=\"{}\">", values["tone"].as_str().unwrap_or_default());
    for (_, name, form) in columns {
        let (open, close) = match form {
            Form::Name => ("<th scope=\"row\">", "</th>"),
            _ if form.is_live() => ("<td class=\"live\">", "</td>"),
            Form::Text | Form::Up | Form::Rules => ("<td class=\"words\">", "</td>"),
            _ => ("<td>", "</td>"),
        };
        out.push_str(open);
        escape(&form.text(&values[name]), out);
        out.push_str(close);
    }
    out.push_str("</tr>");
}

/// Text as HTML that shows it, whatever it holds.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
}

/// `1.4 MiB`, cut and not rounded.
fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].iter();
    let mut unit = units.next();
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = Some(next);
    }
    let unit = unit.unwrap_or(&"");
    if n < 1024 { format!("{n} {unit}") } else { format!("{} {unit}", (value * 10.0).floor() / 10.0) }
}

/// `3 h 12 min`: the largest unit that is not zero, and the next one unless that is.
fn seconds(n: u64) -> String {
    let parts = [(n / 86_400, "d"), (n / 3600 % 24, "h"), (n / 60 % 60, "min"), (n % 60, "s")];
    let from = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    let shown = parts[from..].iter().take(2).enumerate().filter(|(i, (n, _))| *i == 0 || *n > 0);
    let text: Vec<String> = shown.map(|(_, (n, unit))| format!("{n} {unit}")).collect();
    text.join(" ")
}

/// `2 (15 times), 3 (once) and 4 more`.
fn rules(list: &Value) -> String {
    let one = |rule: &Value| {
        let number = rule["rule"].as_u64().unwrap_or(0);
        match rule["errors"].as_u64().unwrap_or(0) {
            0 => number.to_string(),
            1 => format!("{number} (once)"),
            errors => format!("{number} ({} times)", grouped(errors)),
        }
    };
    let some: Vec<String> = list["some"].as_array().into_iter().flatten().map(one).collect();
    match (some.is_empty(), list["more"].as_u64().unwrap_or(0)) {
        (true, _) => "–".to_owned(),
        (false, 0) => some.join(", "),
        (false, more) => format!("{} and {} more", some.join(", "), grouped(more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_people_read_them() {
        for (form, value, shown) in [
            (Form::Count, "0", "0"),
            (Form::Count, "999", "999"),
            (Form::Count, "1000", "1,000"),
            (Form::Count, "1234567", "1,234,567"),
            (Form::Count, "null", "–"),
            (Form::Bytes, "1023", "1023 B"),
            (Form::Bytes, "1024", "1 KiB"),
            (Form::Bytes, "1300", "1.2 KiB"),
            (Form::Bytes, "5000000000", "4.6 GiB"),
            (Form::Seconds, "0", "0 s"),
            (Form::Seconds, "61", "1 min 1 s"),
            (Form::Seconds, "3600", "1 h"),
            (Form::Seconds, "3700", "1 h 1 min"),
            (Form::Seconds, "86401", "1 d"),
            (Form::Seconds, "90061", "1 d 1 h"),
            (Form::Share, "0.829", "82 %"),
            (Form::Up, "true", "up"),
            (Form::Up, "false", "down"),
            (Form::Rules, r#"{"some": [], "more": 0}"#, "–"),
            (
                Form::Rules,
                r#"{"some": [{"rule": 1, "errors": 0}, {"rule": 4, "errors": 0}], "more": 0}"#,
                "1, 4",
            ),
            (
                Form::Rules,
                r#"{"some": [{"rule": 2, "errors": 1}, {"rule": 3, "errors": 1500}], "more": 7}"#,
                "2 (once), 3 (1,500 times) and 7 more",
            ),
            (Form::Rate, "7", ""),
        ] {
            let value = serde_json::from_str(value).expect("JSON");
            assert_eq!(form.text(&value), shown, "{form:?} of {value}");
        }
    }

    #[test]
    fn text_is_shown_as_it_is() {
        let mut out = String::new();
        escape("<script>alert('a') & \"b\"</script>é\u{202e}", &mut out);
        assert_eq!(out, "&lt;script&gt;alert(&#39;a&#39;) &amp; &quot;b&quot;&lt;/script&gt;é\u{202e}");
    }
}
