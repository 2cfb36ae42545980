//! `match`: like grep, with rules. Prints the records that match, as they came.

pub(super) mod input;
pub(crate) mod judge;
pub(super) mod output;
pub(super) mod progress;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use self::input::Lines;
use self::judge::{FindingKind, Judge, Verdict};
use self::output::Printer;
use self::progress::Progress;
use super::{FAILED, Io, OK, WRONG, io::Format, say_problems, say_warnings};
use crate::clock;
use crate::config::{self, Config, Overrides};
use crate::text::printable;

pub(super) const EXAMPLES: &str = "\
Examples:
  Deletes in an audit log, in rotated and compressed ones too:
      vault-audit-filter match --rule 'Request.Operation == \"delete\"' audit.log audit-*.log.gz
  What the groups of a configuration would take, and why:
      vault-audit-filter match --config config/quickstart.yaml --explain audit.log
  Denied requests as they come:
      tail -f audit.log | vault-audit-filter match --rule 'Error contains \"permission denied\"'
  One group, as JSON with file, line and groups beside the record:
      vault-audit-filter match --config config/quickstart.yaml --group denied --format json audit.log

Input is one audit entry a line, from files (gzip is recognised) or from standard input. Lines that are no entries are
skipped, counted, and told about at the end. Nothing is written to log files, forwarded or sent.
Exit code: 0 when something matched, 1 when nothing did, 2 when something was wrong.";

/// Arguments of `match`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rule to try instead of the configuration's groups; may be given several times
    #[arg(short, long = "rule", value_name = "EXPR", conflicts_with = "group")]
    rules: Vec<String>,
    /// Only this group; may be given several times
    #[arg(short, long, value_name = "NAME")]
    group: Vec<String>,
    /// Say which rule of which group matched, and what it read
    #[arg(short, long)]
    explain: bool,
    /// Print only how many records matched
    #[arg(short, long, conflicts_with = "explain")]
    count: bool,
    /// Take the records that do not match instead
    #[arg(short = 'v', long)]
    invert_match: bool,
    /// What to print: the records as they came, or JSON with file, line, groups and record
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Files with one audit entry a line, gzip or not; - is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What a run has counted.
#[derive(Debug, Default)]
struct Totals {
    records: u64,
    /// Records that were taken: those that match, or with `--invert-match` those that do not.
    taken: u64,
    bad: u64,
    first_bad: Option<String>,
    rule_errors: u64,
    first_rule_error: Option<String>,
    /// An input could not be opened or read to its end.
    broken: bool,
}

/// Matches every input and prints what is asked for.
pub(super) fn run(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let (mut judge, bytes_max) = match judge(arguments, overrides, io) {
        Ok(judge) => judge,
        Err(code) => return code,
    };
    let mut run = Run {
        judge: &mut judge,
        printer: Printer {
            count: arguments.count,
            json: arguments.format == Format::Json,
            explain: arguments.explain,
        },
        verdict: Verdict::default(),
        invert: arguments.invert_match,
        bytes_max,
        totals: Totals::default(),
        progress: Progress::new(None),
    };
    let stdin = [PathBuf::from("-")];
    let files = if arguments.files.is_empty() { &stdin[..] } else { &arguments.files };
    // Records on the same terminal would tear the line.
    if io.err_is_terminal && (!io.out_is_terminal || arguments.count) {
        run.progress = Progress::new(total_bytes(files));
    }
    let result = files.iter().try_for_each(|file| run.file(file, io));
    run.progress.end(&mut io.err);
    let result =
        result.and_then(|()| run.printer.end(&run.totals, &mut io.out)).and_then(|()| io.out.flush());
    match result {
        Ok(()) => {}
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return OK,
        Err(error) => {
            io.say(&format!("cannot write to standard output: {error}"));
            return WRONG;
        }
    }
    say_totals(&run.totals, io);
    match (run.totals.broken, run.totals.taken) {
        (true, _) => WRONG,
        (false, 0) => FAILED,
        (false, _) => OK,
    }
}

/// The sizes of all inputs; `None` where one is standard input or has no size.
pub(super) fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    files
        .iter()
        .map(|file| std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map(|m| m.len()))
        .sum()
}

/// The rules to try and the longest line to take, or the exit code after what is wrong has been told.
fn judge(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> Result<(Judge, usize), u8> {
    let told = |errors: Vec<String>, io: &mut Io<'_>| {
        errors.iter().for_each(|error| io.say(error));
        WRONG
    };
    if !arguments.rules.is_empty() {
        let bytes_max = Config::default().limits.record_bytes_max;
        let judge = Judge::of_rules(&arguments.rules, arguments.explain);
        return judge.map(|judge| (judge, bytes_max)).map_err(|errors| told(errors, io));
    }
    let checked = super::load(overrides).map_err(|problems| {
        say_problems(&problems, io);
        WRONG
    })?;
    let loaded = &checked.loaded;
    say_warnings(&loaded.warnings, io);
    let config = &loaded.config;
    let mut errors: Vec<String> = Vec::new();
    if config.rule_groups.is_empty() {
        errors.push(format!(
            "{}: there are no rule groups; give --rule EXPR or --config FILE",
            loaded.source()
        ));
    } else {
        let names: Vec<&str> = config.rule_groups.iter().map(|group| group.name.as_str()).collect();
        for wanted in arguments.group.iter().filter(|wanted| !names.contains(&wanted.as_str())) {
            errors.push(format!(
                "--group {wanted:?}: no such group; {}",
                config::group_name_cure(wanted, &names)
            ));
        }
    }
    if !errors.is_empty() {
        return Err(told(errors, io));
    }
    let bytes_max = config.limits.record_bytes_max;
    Ok((Judge::of_groups(checked, &arguments.group, arguments.explain), bytes_max))
}

/// One run over all inputs.
struct Run<'j> {
    judge: &'j mut Judge,
    verdict: Verdict,
    printer: Printer,
    invert: bool,
    bytes_max: usize,
    totals: Totals,
    progress: Progress,
}

impl Run<'_> {
    /// Matches one input. An error is one of standard output; what is wrong with the input is told.
    fn file(&mut self, path: &Path, io: &mut Io<'_>) -> io::Result<()> {
        let bytes = self.progress.read.clone();
        let name =
            if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let name = printable(&name);
        let read = {
            let Io { input, out, err, .. } = io;
            let lines = if path == Path::new("-") {
                Lines::new(input, self.bytes_max, bytes)
            } else {
                Lines::open(path, self.bytes_max, bytes)
            };
            match lines {
                Ok(mut lines) => self.lines(&mut lines, &name, out, err)?,
                Err(error) => Err(error),
            }
        };
        if let Err(error) = read {
            self.totals.broken = true;
            self.progress.end(&mut io.err);
            io.out.flush()?;
            io.say(&format!("{name}: {error}"));
        }
        Ok(())
    }

    /// The outer error is one of standard output, the inner one of the input.
    fn lines(
        &mut self,
        lines: &mut Lines<'_>,
        name: &str,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> io::Result<io::Result<()>> {
        loop {
            self.judge.set_now(clock::wall());
            while let Some(line) = lines.next() {
                match line.bytes {
                    None => {
                        let reason = || format!("longer than {} bytes", self.bytes_max);
                        self.totals.bad(name, line.number, reason);
                    }
                    Some(bytes) if bytes.trim_ascii().is_empty() => {}
                    Some(bytes) => self.record(bytes, name, line.number, out)?,
                }
                self.progress.line(err);
            }
            if lines.is_over() {
                return Ok(Ok(()));
            }
            // Somebody may watch: what has matched so far is shown before the wait.
            out.flush()?;
            if let Err(error) = lines.read() {
                return Ok(Err(error));
            }
        }
    }

    fn record(&mut self, line: &[u8], name: &str, number: u64, out: &mut dyn Write) -> io::Result<()> {
        if let Err(reason) = self.judge.judge(line, &mut self.verdict) {
            self.totals.bad(name, number, || reason.to_string());
            return Ok(());
        }
        self.totals.records += 1;
        for finding in &self.verdict.findings {
            if let FindingKind::Rule { outcome: Err(error), .. } = &finding.kind {
                self.totals.rule_errors += 1;
                let first =
                    || format!("{name}:{number}: {}: {error}", output::finding_name(finding, self.judge));
                self.totals.first_rule_error.get_or_insert_with(first);
            }
        }
        if self.verdict.matched != self.invert {
            self.totals.taken += 1;
            self.printer.record(line, name, number, (self.judge, &self.verdict), out)?;
        }
        Ok(())
    }
}

impl Totals {
    #[cold]
    fn bad(&mut self, name: &str, number: u64, reason: impl FnOnce() -> String) {
        self.bad += 1;
        self.first_bad.get_or_insert_with(|| format!("{name}:{number}: {}", reason()));
    }
}

/// Tells what could not be used.
fn say_totals(totals: &Totals, io: &mut Io<'_>) {
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    if let Some(first) = &totals.first_bad {
        let count = totals.bad;
        io.say(&format!(
            "{count} line{} skipped that hold no audit entry; the first: {first}",
            plural(count)
        ));
    }
    if let Some(first) = &totals.first_rule_error {
        let count = totals.rule_errors;
        io.say(&format!(
            "{count} evaluation{} failed and counted as no match; the first: {first}",
            plural(count)
        ));
    }
}
