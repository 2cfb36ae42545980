//! Standard output as the target of every record, when there are no rule groups.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;

use super::flights::Flights;
use super::lines::{joined, line, write_once};
use crate::clock;
use crate::metrics::{self, Counter, Registry};

/// How long one append waits for a non-blocking output to take more.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Writes records as whole lines to an output that may be a file, a pipe or a terminal.
///
/// A regular file is written without a lock. A pipe takes a long line in several pieces, so writers of anything else take turns: whoever
/// pipes the output into a slow reader has asked to wait for it.
#[derive(Debug)]
pub struct Stdout {
    to: File,
    /// The last write ended within a line. `None`: a regular file.
    turns: Option<Mutex<Turns>>,
    wait_max: Duration,
    pub(super) flights: Arc<Flights>,
    write_errors: Arc<Counter>,
}

#[derive(Debug, Default)]
struct Turns {
    torn: bool,
}

impl Stdout {
    /// The process' standard output.
    ///
    /// # Errors
    /// There is none (it is closed).
    pub fn new(metrics: &Registry) -> io::Result<Stdout> {
        let to = io::stdout().as_fd().try_clone_to_owned()?;
        Stdout::to(File::from(to), metrics)
    }

    fn to(to: File, metrics: &Registry) -> io::Result<Stdout> {
        let regular = to.metadata()?.is_file();
        let flights = Arc::<Flights>::default();
        flights.show(metrics, "stdout");
        Ok(Stdout {
            turns: (!regular).then(Mutex::default),
            to,
            wait_max: WAIT_MAX,
            flights,
            write_errors: metrics.counter(&metrics::LOG_WRITE_ERRORS, &["stdout"]),
        })
    }

    /// Writes each record as one line. `Ok`: the kernel has all of them. Blocks as long as the reader of a pipe makes it; a
    /// non-blocking output is waited for 10 s at most.
    ///
    /// # Errors
    /// The reader has gone (`BrokenPipe`), the disk is full, the wait was too long (`TimedOut`). A line that is left torn is ended
    /// before the next one. Counted in `log_write_errors_total{file="stdout"}`.
    pub fn append(&self, records: &[&[u8]]) -> io::Result<()> {
        let _flight = self.flights.begin();
        let lines: Vec<_> = records.iter().map(|r| line(r)).collect();
        let done = match &self.turns {
            None => self.write_file(&lines),
            Some(turns) => self.write_stream(&joined(&lines), &mut turns.lock()),
        };
        done.map_err(|e| {
            self.write_errors.inc();
            io::Error::new(e.kind(), format!("cannot write to standard output: {e}"))
        })
    }

    fn write_file(&self, lines: &[Cow<'_, [u8]>]) -> io::Result<()> {
        let wanted: usize = lines.iter().map(|l| l.len() + 1).sum();
        if wanted == 0 {
            return Ok(());
        }
        let written = write_once(&self.to, lines)?;
        if written < wanted {
            // Best effort: on a full disk the end of the line does not fit either.
            let _ = (&self.to).write_all(b"\n");
            let message = format!("only {written} of {wanted} bytes could be written");
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        Ok(())
    }

    fn write_stream(&self, text: &[u8], turns: &mut Turns) -> io::Result<()> {
        let deadline = clock::now() + self.wait_max;
        if turns.torn {
            self.write_all(b"\n", deadline).map_err(|(e, _)| e)?;
            turns.torn = false;
        }
        self.write_all(text, deadline).map_err(|(e, written)| {
            turns.torn = written > 0 && text.get(written - 1) != Some(&b'\n');
            e
        })
    }

    /// With the error, how much was written.
    fn write_all(&self, text: &[u8], deadline: Instant) -> Result<(), (io::Error, usize)> {
        let mut written = 0;
        while written < text.len() {
            match (&self.to).write(&text[written..]) {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), written)),
                Ok(bytes) => written += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(deadline).map_err(|e| (e, written))?;
                }
                Err(e) => return Err((e, written)),
            }
        }
        Ok(())
    }

    fn wait(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its reader takes nothing"));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Read};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Duration;

    use super::Stdout;
    use crate::log_file::testing::TempDir;
    use crate::metrics::Registry;

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        (File::from(reader), File::from(writer))
    }

    #[test]
    fn a_file_gets_whole_lines() {
        let dir = TempDir::new("stdout");
        let file = File::create(dir.path("out")).expect("create");
        let stdout = Stdout::to(file, &Registry::new()).expect("stdout");
        assert!(stdout.turns.is_none());
        stdout.append(&[b"{\"a\":1}\n", b"{\"b\":\n2}"]).expect("append");
        stdout.append(&[]).expect("append nothing");
        assert_eq!(std::fs::read(dir.path("out")).expect("read"), b"{\"a\":1}\n{\"b\": 2}\n");
    }

    #[test]
    fn lines_longer_than_a_pipe_takes_at_once_stay_whole() {
        let (mut reader, writer) = pipe();
        let stdout = Arc::new(Stdout::to(writer, &Registry::new()).expect("stdout"));
        let threads: Vec<_> = (b'a'..b'd')
            .map(|letter| {
                let stdout = Arc::clone(&stdout);
                crate::threads::spawn("test", move || {
                    for _ in 0..20 {
                        stdout.append(&[&vec![letter; 100_000]]).expect("append");
                    }
                })
                .expect("thread")
            })
            .collect();
        let mut all = vec![0; 3 * 20 * 100_001];
        reader.read_exact(&mut all).expect("read");
        for thread in threads {
            thread.join().expect("join");
        }
        for line in all.chunks(100_001) {
            assert!(line[..100_000].iter().all(|b| *b == line[0]) && line[100_000] == b'\n');
        }
    }

    #[test]
    fn the_process_output_is_a_target() {
        let stdout = Stdout::new(&Registry::new()).expect("standard output");
        crate::log_file::LogTarget::Stdout(Arc::new(stdout)).append(&[]).expect("nothing to write");
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error_and_counted() {
        let (reader, writer) = pipe();
        let stdout = Stdout::to(writer, &Registry::new()).expect("stdout");
        drop(reader);
        assert_eq!(stdout.append(&[b"{}"]).expect_err("no reader").kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(stdout.write_errors.get(), 1);
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let (mut reader, writer) = UnixStream::pair().expect("pair");
        writer.set_nonblocking(true).expect("nonblocking");
        let mut stdout = Stdout::to(File::from(OwnedFd::from(writer)), &Registry::new()).expect("stdout");
        stdout.wait_max = Duration::from_millis(20);
        let long = vec![b'x'; 8 << 20];
        assert_eq!(stdout.append(&[&long]).expect_err("nobody reads").kind(), io::ErrorKind::TimedOut);
        reader.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let reading = crate::threads::spawn("test", move || {
            let mut seen = Vec::new();
            let mut piece = vec![0; 1 << 16];
            while !seen.ends_with(b"\n{\"a\":1}\n") {
                let bytes = reader.read(&mut piece).expect("read");
                assert!(bytes > 0, "the end came early");
                seen.extend_from_slice(&piece[..bytes]);
            }
            assert_eq!(seen.iter().filter(|b| **b == b'\n').count(), 2);
        })
        .expect("thread");
        stdout.wait_max = Duration::from_secs(10);
        stdout.append(&[b"{\"a\":1}"]).expect("append");
        reading.join().expect("reader");
    }
}
