//! The streams of a command.

use std::io::{self, BufWriter, IsTerminal, Read, Write};

use super::{FAILED, OK};

/// How a command prints what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// What a command reads and writes. The process's own streams, or a test's buffers.
pub struct Io<'a> {
    /// Standard input.
    pub input: Box<dyn Read + 'a>,
    /// Standard output, buffered; flushed by the command line at its end.
    pub out: Box<dyn Write + 'a>,
    /// Standard error.
    pub err: Box<dyn Write + 'a>,
    /// Whether standard error is a terminal, so that progress may be drawn on it.
    pub err_is_terminal: bool,
    /// Whether standard output is one.
    pub out_is_terminal: bool,
}

impl Io<'_> {
    /// The process's streams.
    pub fn of_process() -> Self {
        Io {
            input: Box::new(io::stdin().lock()),
            out: Box::new(BufWriter::with_capacity(64 << 10, io::stdout().lock())),
            err: Box::new(io::stderr()),
            err_is_terminal: io::stderr().is_terminal(),
            out_is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Writes a line to standard error. Whether anybody reads it changes nothing.
    pub(super) fn say(&mut self, line: &str) {
        let _ = writeln!(self.err, "{line}");
    }

    /// Writes a text to standard output, as it is; the command's exit code. A reader that has gone is no failure.
    pub(super) fn print(&mut self, text: &str) -> u8 {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Ok(()) => OK,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => OK,
            Err(error) => {
                self.say(&format!("cannot write to standard output: {error}"));
                FAILED
            }
        }
    }
}
