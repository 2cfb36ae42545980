//! `replay`: feeds saved records through a running server as if they came from a sender, over its control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::matching::input::Lines;
use super::matching::progress::Progress;
use super::socket::Socket;
use super::{FAILED, Io, OK, WRONG, bench, io::Format, matching, socket};
use crate::clock;
use crate::config::{Config, Overrides};
use crate::control::{Client, ClientError};
use crate::text::printable;

pub(super) const EXAMPLES: &str = "\
Examples:
  What was written while the server was down, and the rotated files before it:
      vault-audit-filter replay vault-audit.log.1.gz vault-audit.log
  Slowly, so that senders do not notice:
      vault-audit-filter replay --rate 500/s vault-audit.log
  On from where it stopped:
      vault-audit-filter replay --skip 12000 vault-audit.log.1.gz vault-audit.log
  Some of it:
      vault-audit-filter match --rule 'Request.Operation == \"delete\"' vault-audit.log | vault-audit-filter replay -

The records are received for real: matched, written, forwarded and told. Input is one audit entry a line, gzip or not; what is no
entry goes to the quarantine log, as it would from a sender. Records go in batches; the server answers each when it has taken all of it.
At the first one that it does not take it stops, and says how many lines are behind: `--skip` with that number goes on there.
Exit code: 0 all taken, 1 not, or no server runs there, 2 when something else was wrong.";

/// Most records and bytes that are sent together; a longer record goes alone.
const BATCH_RECORDS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// With a rate, what is sent together takes no longer than that.
const BATCHES_PER_S: u64 = 20;

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Leave out the first so many lines of all input
    #[arg(long, value_name = "LINES", default_value_t = 0)]
    skip: u64,
    /// Records per second; 0: as fast as they are taken
    #[arg(long, value_name = "N/s", default_value = "0", value_parser = bench::rate)]
    rate: u64,
    #[command(flatten)]
    server: Socket,
    /// What to print at the end
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Files with one audit entry a line, gzip or not; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Why it does not go on.
#[derive(Debug)]
enum Stop {
    /// An input cannot be read.
    Input(String),
    /// The server does not take it, or is not there.
    Server(ClientError),
}

/// Sends all inputs and tells what became of them.
pub(super) fn run(arguments: &Arguments, overrides: &Overrides, io: &mut Io<'_>) -> u8 {
    let Some(path) = arguments.server.find(overrides, io) else { return WRONG };
    let client = Client::at(&path);
    if let Err(error) = client.probe() {
        return socket::failed(&path, &error, io);
    }
    let total = if io.err_is_terminal { matching::total_bytes(&arguments.files) } else { None };
    let mut run = Run {
        send: &mut |batch: &[u8]| client.post_bytes("/v1/audit", batch),
        skip: arguments.skip,
        rate_per_s: arguments.rate,
        started: clock::now(),
        batch: Batch::default(),
        lines: 0,
        behind: 0,
        acked: 0,
        progress: Progress::new(total),
    };
    let result = arguments.files.iter().try_for_each(|file| run.file(file, io)).and_then(|()| run.send());
    run.progress.end(&mut io.err);
    if run.lines < run.skip && result.is_ok() {
        io.say(&format!(
            "there are {} lines, and --skip is {}: nothing was left to send",
            run.lines, run.skip
        ));
    }
    let (acked, behind) = (run.acked, run.behind.max(run.skip.min(run.lines)));
    let stopped = result.err();
    let code = match &stopped {
        None => OK,
        Some(Stop::Server(ClientError::Failed(_)) | Stop::Input(_)) => WRONG,
        Some(Stop::Server(_)) => FAILED,
    };
    let why = stopped.map(|stop| match stop {
        Stop::Input(what) => what,
        Stop::Server(error) => error.to_string(),
    });
    if let Some(why) = &why {
        io.say(&format!("stopped: {}", printable(why)));
        io.say(&format!("to go on there: --skip {behind}, with the same files"));
    }
    let text = match arguments.format {
        Format::Text => format!("{acked} record{} taken\n", if acked == 1 { "" } else { "s" }),
        Format::Json => {
            serde_json::json!({ "acked": acked, "lines": behind, "stopped": why }).to_string() + "\n"
        }
    };
    match io.print(&text) {
        OK => code,
        _ => WRONG,
    }
}

/// Records that go together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Of each record: where it ends in `bytes`, and how many lines of the input are behind with it.
    ends: Vec<(usize, u64)>,
}

struct Run<'r> {
    send: &'r mut dyn FnMut(&[u8]) -> Result<(), ClientError>,
    skip: u64,
    rate_per_s: u64,
    started: Instant,
    batch: Batch,
    /// Lines seen, those that were skipped or empty included.
    lines: u64,
    /// So many lines need not be sent again.
    behind: u64,
    /// Records taken.
    acked: u64,
    progress: Progress,
}

impl Run<'_> {
    fn file(&mut self, path: &Path, io: &mut Io<'_>) -> Result<(), Stop> {
        let Io { input, err, .. } = io;
        let stdin = path == Path::new("-");
        let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
        let bytes_max = Config::default().limits.record_bytes_max;
        let read = self.progress.read.clone();
        let unreadable = |e: io::Error| Stop::Input(format!("{name}: {e}"));
        let lines =
            if stdin { Lines::new(input, bytes_max, read) } else { Lines::open(path, bytes_max, read) };
        // What can be sent is sent before the end, so that the place is right.
        let mut lines = match lines {
            Ok(lines) => lines,
            Err(e) => return self.send().and(Err(unreadable(e))),
        };
        loop {
            while let Some(line) = lines.next() {
                self.progress.line(err);
                let Some(bytes) = line.bytes else {
                    let what = format!("{name}:{}: longer than {bytes_max} bytes", line.number);
                    return self.send().and(Err(Stop::Input(what)));
                };
                self.lines += 1;
                if self.lines > self.skip && !bytes.trim_ascii().is_empty() {
                    self.add(bytes)?;
                }
            }
            if lines.is_over() {
                return Ok(());
            }
            if let Err(e) = lines.read() {
                return self.send().and(Err(unreadable(e)));
            }
        }
    }

    fn add(&mut self, record: &[u8]) -> Result<(), Stop> {
        let with_it = self.batch.bytes.len() + record.len() + 1;
        if !self.batch.ends.is_empty() && with_it > BATCH_BYTES_MAX {
            // This line is not in it.
            self.lines -= 1;
            let sent = self.send();
            self.lines += 1;
            sent?;
        }
        self.batch.bytes.extend_from_slice(record);
        self.batch.bytes.push(b'\n');
        self.batch.ends.push((self.batch.bytes.len(), self.lines));
        let records_max = match self.rate_per_s {
            0 => BATCH_RECORDS_MAX,
            rate => usize::try_from(rate / BATCHES_PER_S).unwrap_or(usize::MAX).clamp(1, BATCH_RECORDS_MAX),
        };
        if self.batch.ends.len() >= records_max { self.send() } else { Ok(()) }
    }

    /// Sends what is there, when it is due.
    fn send(&mut self) -> Result<(), Stop> {
        let batch = std::mem::take(&mut self.batch);
        if batch.ends.is_empty() {
            self.behind = self.lines;
            return Ok(());
        }
        if self.rate_per_s > 0 {
            #[allow(clippy::cast_precision_loss, reason = "a time to sleep")]
            let due = Duration::from_secs_f64(self.acked as f64 / self.rate_per_s as f64);
            std::thread::sleep((self.started + due).saturating_duration_since(clock::now()));
        }
        self.send_part(&batch.bytes, &batch.ends, 0)?;
        self.behind = self.lines;
        Ok(())
    }

    /// Sends records that begin at `start`; in halves where they are too large together.
    fn send_part(&mut self, bytes: &[u8], ends: &[(usize, u64)], start: usize) -> Result<(), Stop> {
        let Some((end, behind)) = ends.last().copied() else { return Ok(()) };
        match (self.send)(bytes.get(start..end).unwrap_or_default()) {
            Ok(()) => {
                self.acked += ends.len() as u64;
                self.behind = behind;
                Ok(())
            }
            Err(ClientError::Refused { status: 413, .. }) if ends.len() > 1 => {
                let (first, second) = ends.split_at(ends.len() / 2);
                self.send_part(bytes, first, start)?;
                self.send_part(bytes, second, first.last().map_or(start, |(end, _)| *end))
            }
            Err(error) => Err(Stop::Server(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `text` with these arguments to a server that takes what `take` says.
    fn replay(
        text: &str,
        skip: u64,
        take: impl Fn(&[u8]) -> Result<(), u16>,
    ) -> (Result<(), Stop>, Vec<String>, u64, u64) {
        let mut taken = Vec::new();
        let mut send = |batch: &[u8]| match take(batch) {
            Ok(()) => {
                taken.push(String::from_utf8(batch.to_vec()).expect("text"));
                Ok(())
            }
            Err(status) => Err(ClientError::Refused {
                status,
                what: "no".into(),
                cure: "wait".into(),
                problems: Vec::new(),
            }),
        };
        let mut run = Run {
            send: &mut send,
            skip,
            rate_per_s: 0,
            started: clock::now(),
            batch: Batch::default(),
            lines: 0,
            behind: 0,
            acked: 0,
            progress: Progress::new(None),
        };
        let mut io = Io {
            input: Box::new(io::Cursor::new(text.as_bytes().to_vec())),
            out: Box::new(io::sink()),
            err: Box::new(io::sink()),
            err_is_terminal: false,
            out_is_terminal: false,
        };
        let result = run.file(Path::new("-"), &mut io).and_then(|()| run.send());
        let (acked, behind) = (run.acked, run.behind);
        (result, taken, acked, behind)
    }

    #[test]
    fn lines_go_in_batches_and_empty_ones_count_as_lines() {
        let (result, taken, acked, behind) = replay("a\n\nb\r\nc", 0, |_| Ok(()));
        assert!(result.is_ok());
        assert_eq!((taken, acked, behind), (vec!["a\nb\nc\n".to_owned()], 3, 4));
        let (_, taken, acked, behind) = replay("a\n\nb\nc\n", 3, |_| Ok(()));
        assert_eq!((taken, acked, behind), (vec!["c\n".to_owned()], 1, 4));
        let (result, taken, acked, _) = replay("a\n", 9, |_| Ok(()));
        assert!(result.is_ok() && taken.is_empty() && acked == 0);
        let many = "x\n".repeat(BATCH_RECORDS_MAX * 2 + 1);
        let (_, taken, acked, behind) = replay(&many, 0, |_| Ok(()));
        assert_eq!((taken.len(), acked, behind), (3, 1001, 1001));
        let long = format!("{0}\n{0}\n{0}\n", "y".repeat(BATCH_BYTES_MAX / 2));
        let (_, taken, acked, behind) = replay(&long, 0, |_| Ok(()));
        assert_eq!((taken.len(), acked, behind), (3, 3, 3));
    }

    /// Wherever it stops, what is behind and what is sent from there on are all lines, once each.
    #[test]
    fn it_can_go_on_from_where_it_stopped() {
        let lines: Vec<String> =
            (0..1200).map(|n| if n % 7 == 3 { String::new() } else { format!("r{n}") }).collect();
        let text = lines.join("\n") + "\n";
        let wanted: Vec<&String> = lines.iter().filter(|line| !line.is_empty()).collect();
        for bad in ["r0", "r1", "r499", "r583", "r585", "r700", "r1199"] {
            // Too large together: the halves find the one that is refused.
            let refuses = |batch: &[u8]| {
                let batch = String::from_utf8(batch.to_vec()).expect("text");
                match batch.lines().any(|line| line == bad) {
                    false => Ok(()),
                    true if batch.lines().count() > 1 => Err(413),
                    true => Err(503),
                }
            };
            let (result, taken, acked, behind) = replay(&text, 0, refuses);
            assert!(matches!(result, Err(Stop::Server(ClientError::Refused { status: 503, .. }))), "{bad}");
            let (result, rest, more, end) = replay(&text, behind, |_| Ok(()));
            assert!(result.is_ok(), "{bad}");
            let all: String = taken.into_iter().chain(rest).collect();
            assert_eq!(all.lines().collect::<Vec<_>>(), wanted, "{bad}");
            assert_eq!((acked + more, end), (wanted.len() as u64, 1200), "{bad}");
        }
    }
}
