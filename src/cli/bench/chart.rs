//! A histogram as rows of text.

use hdrhistogram::Histogram;

/// Most characters of a bar.
const BAR_MAX: u64 = 40;

/// One row: from, to (exclusive) in nanoseconds, how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) count: u64,
}

/// The recorded values in steps of 1, 2 and 5 per decade, from the first that has any to the last.
pub(super) fn rows(histogram: &Histogram<u64>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let (mut from, mut step) = (0, 1_000);
    let mut steps = [2, 5, 10].into_iter().cycle();
    let mut decade = 1_000;
    let mut values =
        histogram.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).peekable();
    while values.peek().is_some() {
        let mut count = 0;
        while let Some((_, n)) = values.next_if(|(value, _)| *value < step) {
            count += n;
        }
        if count > 0 || !rows.is_empty() {
            rows.push(Row { from_ns: from, to_ns: step, count });
        }
        from = step;
        let factor: u64 = steps.next().unwrap_or(10);
        step = decade * factor;
        if factor == 10 {
            decade *= 10;
        }
    }
    rows
}

/// The rows as lines, each beginning with two spaces.
pub(super) fn lines(rows: &[Row]) -> String {
    let total: u64 = rows.iter().map(|row| row.count).sum();
    let most = rows.iter().map(|row| row.count).max().unwrap_or(0).max(1);
    let mut text = String::new();
    for row in rows {
        // Whatever is there at all is seen.
        let length = (u128::from(row.count) * u128::from(BAR_MAX)).div_ceil(u128::from(most));
        let bar = "#".repeat(usize::try_from(length).unwrap_or(0));
        let share = super::output::ratio(row.count, total) * 100.0;
        let (from, to) = (super::output::time(row.from_ns), super::output::time(row.to_ns));
        text += &format!("  {from:>8} .. {to:>8}  {share:6.2} %  {bar}\n");
    }
    text
}
