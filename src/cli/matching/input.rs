//! Where `match` reads records from: files, gzip files, standard input; in blocks, whose lines
//! are lent out where they lie; each line has a bound.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

/// How much is read at once: it stays in the cache until its lines have been looked at.
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

/// Lines of one input. Holds a block, and a longer line as far as the bound.
pub(in crate::cli) struct Lines<'a> {
    reader: Box<dyn Read + 'a>,
    bytes_max: usize,
    buffer: Vec<u8>,
    /// What has been read and not been lent out: `buffer[start..end]`; up to `searched` no line ends.
    start: usize,
    searched: usize,
    end: usize,
    /// The line at hand is too long; its beginning has been dropped.
    skipping: bool,
    /// The input is over.
    over: bool,
    /// Number of the last line, from 1.
    number: u64,
}

/// A line of the input.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Line<'l> {
    /// From 1.
    pub(in crate::cli) number: u64,
    /// Without the end; `None`: it was longer than the bound and was skipped.
    pub(in crate::cli) bytes: Option<&'l [u8]>,
}

impl<'a> Lines<'a> {
    /// Reads `reader`, and what is in it where that is gzip. `bytes` counts what was taken from `reader`.
    ///
    /// # Errors
    ///
    /// What the first read gives.
    pub(in crate::cli) fn new(
        reader: impl Read + 'a,
        bytes_max: usize,
        bytes: Rc<Cell<u64>>,
    ) -> io::Result<Self> {
        let mut lines = Lines {
            reader: Box::new(Counted { reader, bytes }),
            bytes_max,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            end: 0,
            skipping: false,
            over: false,
            number: 0,
        };
        // A pipe may give one byte first.
        while lines.end < GZIP_MAGIC.len() && !lines.over {
            lines.read()?;
        }
        if lines.buffer.starts_with(&GZIP_MAGIC) {
            lines.buffer.truncate(lines.end);
            let start = io::Cursor::new(std::mem::take(&mut lines.buffer));
            let zipped = BufReader::with_capacity(BUFFER_BYTES, start.chain(lines.reader));
            lines.reader = Box::new(MultiGzDecoder::new(zipped));
            (lines.end, lines.over) = (0, false);
        }
        Ok(lines)
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// What opening or the first read gives.
    pub(in crate::cli) fn open(
        path: &Path,
        bytes_max: usize,
        bytes: Rc<Cell<u64>>,
    ) -> io::Result<Lines<'static>> {
        Lines::new(File::open(path)?, bytes_max, bytes)
    }

    /// Whether everything has been read; lines may be left.
    pub(in crate::cli) fn is_over(&self) -> bool {
        self.over
    }

    /// The next line of what has been read; a last line without an end is one when the input is over. Does not block.
    pub(in crate::cli) fn next(&mut self) -> Option<Line<'_>> {
        let unseen = self.buffer.get(self.searched..self.end).unwrap_or_default();
        let (from, to) = match memchr::memchr(b'\n', unseen) {
            Some(at) => {
                let to = self.searched + at;
                (std::mem::replace(&mut self.start, to + 1), to)
            }
            None if self.over && (self.skipping || self.start < self.end) => {
                (std::mem::replace(&mut self.start, self.end), self.end)
            }
            None => {
                if self.end - self.start > self.bytes_max {
                    self.skipping = true;
                    self.start = self.end;
                }
                self.searched = self.end;
                return None;
            }
        };
        self.searched = self.start;
        self.number += 1;
        let line = self.buffer.get(from..to).unwrap_or_default();
        let too_long = std::mem::take(&mut self.skipping) || line.len() > self.bytes_max;
        let bytes = (!too_long).then(|| line.strip_suffix(b"\r").unwrap_or(line));
        Some(Line { number: self.number, bytes })
    }

    /// Reads on, after [`Lines::next`] has lent out everything there was. May block.
    ///
    /// # Errors
    ///
    /// What reading gives; for gzip also damage in the data.
    pub(in crate::cli) fn read(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.searched -= self.start;
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < self.end + BUFFER_BYTES {
            self.buffer.resize(self.end + BUFFER_BYTES, 0);
        }
        let room = self.buffer.get_mut(self.end..self.end + BUFFER_BYTES).unwrap_or_default();
        loop {
            match self.reader.read(room) {
                Ok(read) => {
                    self.over = read == 0;
                    self.end += read;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
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
        let mut all = Vec::new();
        loop {
            while let Some(line) = lines.next() {
                all.push(line.bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text")));
            }
            assert!(
                lines.buffer.len() <= 2 * BUFFER_BYTES + bytes_max,
                "no more is held than the bound allows"
            );
            if lines.is_over() {
                return all;
            }
            lines.read().expect("readable");
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
        let text = format!("{}\nshort\n{}\n12345\n123456", "x".repeat(3 << 20), "y".repeat(6));
        let wanted = vec![None, Some("short".to_owned()), None, Some("12345".to_owned()), None];
        assert_eq!(read(text.as_bytes(), 5), wanted);
        for long in [BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 3 * BUFFER_BYTES] {
            let line = "x".repeat(long);
            let text = format!("a\n{line}\nb\n{line}");
            let all = ["a", &line, "b", &line].map(|line| Some(line.to_owned())).to_vec();
            assert_eq!(read(text.as_bytes(), long), all, "{long}");
            let cut = vec![all[0].clone(), None, all[2].clone(), None];
            assert_eq!(read(text.as_bytes(), long - 1), cut, "{long}");
        }
    }

    #[test]
    fn damage_in_gzip_is_an_error() {
        let zipped = gzip(&b"some text\n".repeat(1000));
        let mut lines = Lines::new(&zipped[..zipped.len() / 2], 100, Rc::default()).expect("a start");
        let result = loop {
            while lines.next().is_some() {}
            match lines.read() {
                Ok(()) if lines.is_over() => break Ok(()),
                Ok(()) => {}
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
        while !lines.is_over() {
            lines.read().expect("readable");
            while lines.next().is_some() {}
        }
        assert_eq!((bytes.get(), lines.number), (zipped.len() as u64, 1000));
    }
}
