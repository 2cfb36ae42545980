//! Where `match` reads records from: files, gzip files, standard input; one line at a time, each with a bound.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

/// How much is read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// The first bytes of a gzip member.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Counts the bytes that were read, before they are decompressed.
struct Counted<R> {
    reader: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// Lines of one input.
pub(super) struct Lines<'a> {
    reader: BufReader<Box<dyn Read + 'a>>,
    bytes_max: usize,
    /// Number of the last line, from 1.
    pub(super) number: u64,
}

/// What a call of [`Lines::next`] came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A line is in the buffer, without its end.
    Line,
    /// A line was longer than the bound and was skipped.
    TooLong,
    /// The input is over.
    End,
}

impl<'a> Lines<'a> {
    /// Reads `reader`, and what is in it where that is gzip. `bytes` counts what was taken from `reader`.
    ///
    /// # Errors
    ///
    /// What the first read gives.
    pub(super) fn new(reader: impl Read + 'a, bytes_max: usize, bytes: Rc<Cell<u64>>) -> io::Result<Self> {
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, Counted { reader, bytes });
        // A pipe may give one byte first; the second comes with the next read, so ask for both.
        let mut start = [0; 2];
        let mut filled = 0;
        while filled < start.len() {
            match raw.read(&mut start[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let is_gzip = start[..filled] == GZIP_MAGIC;
        let whole = io::Cursor::new(start[..filled].to_vec()).chain(raw);
        let reader: Box<dyn Read + 'a> = if is_gzip {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, whole)))
        } else {
            Box::new(whole)
        };
        Ok(Lines { reader: BufReader::with_capacity(BUFFER_BYTES, reader), bytes_max, number: 0 })
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// What opening or the first read gives.
    pub(super) fn open(path: &Path, bytes_max: usize, bytes: Rc<Cell<u64>>) -> io::Result<Lines<'static>> {
        Lines::new(File::open(path)?, bytes_max, bytes)
    }

    /// Whether the next line may have to be waited for.
    pub(super) fn may_wait(&self) -> bool {
        self.reader.buffer().is_empty()
    }

    /// Reads the next line into `line`, which is emptied first. A last line without an end counts.
    ///
    /// # Errors
    ///
    /// What reading gives; for gzip also damage in the data.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Next> {
        line.clear();
        let (mut some, mut too_long) = (false, false);
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                if !some {
                    return Ok(Next::End);
                }
                break;
            }
            some = true;
            let end = memchr::memchr(b'\n', buffer);
            let part = &buffer[..end.unwrap_or(buffer.len())];
            if line.len() + part.len() > self.bytes_max {
                too_long = true;
                line.clear();
            }
            if !too_long {
                line.extend_from_slice(part);
            }
            let consumed = part.len() + usize::from(end.is_some());
            self.reader.consume(consumed);
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        if too_long {
            return Ok(Next::TooLong);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Next::Line)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// One byte at a time, as a slow pipe.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(buffer.len()).min(1);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn read(input: impl Read, bytes_max: usize) -> Vec<Option<String>> {
        let mut lines = Lines::new(input, bytes_max, Rc::default()).expect("readable");
        let (mut all, mut line) = (Vec::new(), Vec::new());
        loop {
            match lines.next(&mut line).expect("readable") {
                Next::Line => all.push(Some(String::from_utf8(line.clone()).expect("text"))),
                Next::TooLong => all.push(None),
                Next::End => return all,
            }
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn lines_come_whole_whatever_the_reads() {
        let text = b"one\r\n\nthree\nfour";
        let wanted: Vec<_> = ["one", "", "three", "four"].map(|l| Some(l.to_owned())).into();
        assert_eq!(read(&text[..], 100), wanted);
        assert_eq!(read(Drip(text), 100), wanted);
        let mut zipped = gzip(&text[..5]);
        zipped.extend(gzip(&text[5..]));
        assert_eq!(read(&zipped[..], 100), wanted, "two members are one stream");
        assert_eq!(read(Drip(&zipped), 100), wanted);
        for short in [&b""[..], b"x", b"\x1f", b"\n"] {
            assert_eq!(read(short, 100).len(), usize::from(!short.is_empty()));
        }
    }

    #[test]
    fn lines_over_the_bound_are_skipped_and_counted() {
        let text = format!("{}\nshort\n{}\n12345\n123456", "x".repeat(1 << 20), "y".repeat(6));
        let wanted = vec![None, Some("short".to_owned()), None, Some("12345".to_owned()), None];
        assert_eq!(read(text.as_bytes(), 5), wanted);
    }

    #[test]
    fn damage_in_gzip_is_an_error() {
        let zipped = gzip(&b"some text\n".repeat(1000));
        let mut lines = Lines::new(&zipped[..zipped.len() / 2], 100, Rc::default()).expect("a start");
        let mut line = Vec::new();
        let result = loop {
            match lines.next(&mut line) {
                Ok(Next::End) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        assert!(result.is_err());
    }

    #[test]
    fn bytes_are_counted_as_they_are_on_disk() {
        let bytes = Rc::new(Cell::new(0));
        let zipped = gzip(&b"some text\n".repeat(1000));
        let mut lines = Lines::new(&zipped[..], 100, bytes.clone()).expect("readable");
        assert!(lines.may_wait());
        let mut line = Vec::new();
        while lines.next(&mut line).expect("readable") != Next::End {}
        assert_eq!((bytes.get(), lines.number), (zipped.len() as u64, 1000));
    }
}
