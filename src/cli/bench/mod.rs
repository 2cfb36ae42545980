//! `bench`: what a receiver does under load, and what it loses.

mod arguments;
mod chart;
mod output;
mod report;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub(super) use self::arguments::rate;
use self::report::{Process, Report, Source};
use super::{FAILED, Io, OK, WRONG, io::Format};
use crate::load::{self, Messages, Outcome, Plan, Receiver, Records, Run, Snapshot, Target, Usage};
use crate::secret::Secret;
use crate::signal::Signals;

pub(super) const EXAMPLES: &str = "\
Examples:
  What the running server does with 1,000 requests a second over 8 connections:
      vault-audit-filter bench http 127.0.0.1:1270 --rate 1000/s --connections 8
  As fast as it goes over one TCP connection, with records of your own:
      vault-audit-filter bench tcp 127.0.0.1:1269 --rate 0 --records audit.log.1.gz
  How many datagrams a second come in without loss:
      vault-audit-filter bench udp 127.0.0.1:1269 --rate 50000/s --duration 30s
  A receiver with tokens, its admin listener elsewhere, the result for a program:
      vault-audit-filter bench http 127.0.0.1:1270 --token-file token --admin 127.0.0.1:9100 --format json
  Over TLS, with a private authority:
      vault-audit-filter bench http https://audit.example.org:1270 --ca-cert authority.pem --allow-remote

The records are received for real: they are matched, written and sent on as the receiver's groups say.
Latency counts from the instant at which a record was due, so a stall shows in all that was due meanwhile; at rate 0 it
counts from the sending. Over HTTP it ends with the answer; TCP, UDP and Unix sockets have none, there it ends when the
kernel has taken the record. Losses are what was sent (HTTP: answered with 2xx) and is not in the receiver's counters, which
are read at --admin before and after, so nobody else should send meanwhile. Ctrl-C ends early and reports.
Exit code: 0 when all was sent, answered and received as far as can be seen, 1 when not, 2 when something was wrong.";

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How the records are sent
    #[arg(value_name = "KIND")]
    kind: Kind,
    /// Where to: HOST:PORT, for http also http://HOST:PORT/PATH or https://, for unix a path
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// Records per second over all connections; 0: as fast as it goes
    #[arg(long, value_name = "N/s", default_value = "1000/s", value_parser = arguments::rate)]
    rate: u64,
    /// Connections, each with a thread (for udp: sockets); at most 1024
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=i64::from(load::CONNECTIONS_MAX)))]
    connections: u32,
    /// How long, such as 10s or 1m30s; at most 24h
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = arguments::duration)]
    duration: Duration,
    /// Longest wait for a connection or an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = arguments::duration)]
    timeout: Duration,
    /// Records to send, one a line, gzip or not, again and again [default: 100 built-in ones]
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// File with a token for `Authorization: Bearer` (http)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities that may vouch for an https address [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Admin address of the receiver, for its counters
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1271")]
    admin: String,
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Send to other machines too
    #[arg(long)]
    allow_remote: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// POST requests, one in flight per connection
    Http,
    /// Lines over TCP
    Tcp,
    /// One datagram a record
    Udp,
    /// Lines over a Unix stream socket
    Unix,
}

/// How often the progress line is drawn, and how soon a signal or the end is noticed.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
const NOTICE: Duration = Duration::from_millis(50);

/// Sends, and reports.
pub(super) fn run(arguments: &Arguments, io: &mut Io<'_>) -> u8 {
    let (plan, messages, source) = match prepare(arguments) {
        Ok(prepared) => prepared,
        Err(error) => {
            io.say(&error);
            return WRONG;
        }
    };
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            io.say(&format!("cannot install signal handlers: {error}"));
            return FAILED;
        }
    };
    let receiver = Receiver::new(&arguments.admin, plan.target.listener());
    let before = receiver.look();
    let pid = of_this_machine(&plan.target).then(|| load::receiver_of(&plan.target)).flatten();
    let usage_before = pid.and_then(Usage::of);
    let running = match Run::start(&plan, messages) {
        Ok(running) => running,
        Err(error) => {
            let cure = "is the server running? `vault-audit-filter serve` starts it";
            io.say(&format!("cannot connect to {}: {error}; {cure}", arguments.address));
            return FAILED;
        }
    };
    let outcome = watch(running, &signals, io);
    let acked = report::acked(&plan.target, &outcome);
    let after = before.clone().and_then(|before| {
        receiver.settle(&before, acked, |wait| signals.wait(wait).is_some()).map(|after| (before, after))
    });
    let process = pid.zip(usage_before).zip(pid.and_then(Usage::of));
    let process = process.map(|((pid, before), after)| Process { pid, before, after });
    let report = Report::new(arguments_of(arguments, &plan), source, outcome, after, process);
    let text = match arguments.format {
        Format::Text => output::text(&report),
        Format::Json => format!("{}\n", output::json(&report)),
    };
    match io.print(&text) {
        OK if report.is_clean() => OK,
        _ => FAILED,
    }
}

fn arguments_of(arguments: &Arguments, plan: &Plan) -> report::Asked {
    report::Asked {
        kind: plan.target.listener(),
        address: output::shown(&arguments.address),
        admin: output::shown(&arguments.admin),
        rate_per_s: plan.rate_per_s,
        connections: plan.connections,
        duration: plan.duration,
        is_answered: matches!(plan.target, Target::Http { .. }),
    }
}

fn of_this_machine(target: &Target) -> bool {
    target.address().is_none_or(|address| load::is_of_this_machine(address.ip()))
}

/// What is to be done, or why not. Nothing is sent.
fn prepare(arguments: &Arguments) -> Result<(Plan, Messages, Source), String> {
    let target = arguments::target(arguments)?;
    let tls = arguments::tls(arguments)?;
    arguments::check_admin(arguments)?;
    let token = match &arguments.token_file {
        Some(_) if arguments.kind != Kind::Http => return Err("--token-file is for http only".to_owned()),
        Some(path) => Some(arguments::token(path)?),
        None => None,
    };
    let records = match &arguments.records {
        Some(path) => Records::of_file(path).map_err(|e| format!("--records {}: {e}", path.display()))?,
        None => Records::samples(),
    };
    let messages = Messages::of(&records, &target, token.as_ref().map(Secret::expose));
    if messages.is_empty() {
        return Err(
            "none of the records fits into a datagram (65,507 bytes); send them over tcp or http".to_owned()
        );
    }
    let source = Source {
        file: arguments.records.as_ref().map(|path| output::shown(&path.display().to_string())),
        records: messages.len(),
        bytes: records.bytes(),
        too_long: messages.too_long,
        is_cut: records.is_cut,
    };
    let plan = Plan {
        target,
        tls,
        rate_per_s: arguments.rate,
        connections: arguments.connections,
        duration: arguments.duration,
        timeout: arguments.timeout,
    };
    Ok((plan, messages, source))
}

/// Waits for the end of the run or for a signal, and draws the progress line where somebody sees it.
fn watch(running: Run, signals: &Signals, io: &mut Io<'_>) -> Outcome {
    let mut drawn = false;
    let (mut since, mut last) = (Duration::ZERO, (0, Duration::ZERO));
    while !running.is_over() {
        if signals.wait(NOTICE).is_some() {
            running.stop();
            break;
        }
        since += NOTICE;
        if io.err_is_terminal && since >= PROGRESS_EVERY {
            since = Duration::ZERO;
            let now = (running.tally().sent(), running.elapsed());
            let line = output::progress(now, last, running.duration(), running.tally().failed());
            last = now;
            drawn = true;
            let _ = write!(io.err, "\r\x1b[K{line}").and_then(|()| io.err.flush());
        }
    }
    let outcome = running.finish();
    if drawn {
        let _ = write!(io.err, "\r\x1b[K").and_then(|()| io.err.flush());
    }
    outcome
}

/// The counters before and after, or why there are none.
type Looks = Result<(Snapshot, Snapshot), String>;

/// A file's first bytes, up to a limit that is more than it may have.
fn read_bounded(path: &std::path::Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    #[allow(clippy::disallowed_methods, reason = "read through a limit")]
    io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(path)?, bytes_max + 1), &mut bytes)?;
    Ok(bytes)
}
