//! Records as lines: pure but for the one `writev`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IoSlice, Write};

/// Lines up to which their bytes go to `writev` where they are; more are copied together first, so that one call takes
/// them all (Linux takes 1024 pieces, two for each line).
const VECTORED_LINES_MAX: usize = 512;

/// The bytes of `record` as one line, without its newline.
///
/// A line break at the end is dropped. A raw line break within a JSON text can only stand between two tokens (in a string it
/// is escaped), where it means as much as a space, so each becomes one.
pub(super) fn line(record: &[u8]) -> Cow<'_, [u8]> {
    let end = record.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |at| at + 1);
    let record = &record[..end];
    if memchr::memchr2(b'\r', b'\n', record).is_none() {
        return Cow::Borrowed(record);
    }
    let space = |b: &u8| if matches!(b, b'\r' | b'\n') { b' ' } else { *b };
    Cow::Owned(record.iter().map(space).collect())
}

/// Bytes that `line` takes in the file.
pub(super) fn bytes_of(line: &[u8]) -> u64 {
    line.len() as u64 + 1
}

/// Writes all lines with one call, and says how many bytes the kernel took.
///
/// # Errors
/// Those of `writev`; nothing was written then.
pub(super) fn write_once(mut to: &File, lines: &[Cow<'_, [u8]>]) -> io::Result<usize> {
    const NEWLINE: &[u8] = b"\n";
    let once = |pieces: &[IoSlice<'_>], to: &mut &File| {
        loop {
            match to.write_vectored(pieces) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    };
    match lines {
        [line] => once(&[IoSlice::new(line), IoSlice::new(NEWLINE)], &mut to),
        few if few.len() <= VECTORED_LINES_MAX => {
            let pieces: Vec<_> = few.iter().flat_map(|l| [IoSlice::new(l), IoSlice::new(NEWLINE)]).collect();
            once(&pieces, &mut to)
        }
        many => once(&[IoSlice::new(&joined(many))], &mut to),
    }
}

/// All lines with their newlines.
pub(super) fn joined(lines: &[Cow<'_, [u8]>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(lines.iter().map(|l| l.len() + 1).sum());
    for line in lines {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out
}

/// The first `max` bytes of the lines with their newlines.
pub(super) fn first_bytes(lines: &[Cow<'_, [u8]>], max: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        if out.len() >= max {
            break;
        }
        out.extend_from_slice(&line[..line.len().min(max)]);
        out.push(b'\n');
    }
    out.truncate(max);
    out
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::fs;

    use super::{VECTORED_LINES_MAX, first_bytes, joined, line, write_once};
    use crate::log_file::fs::open_append;
    use crate::log_file::testing::TempDir;

    #[test]
    fn a_record_is_one_line() {
        for (record, expected) in [
            ("{}", "{}"),
            ("{}\n", "{}"),
            ("{}\r\n", "{}"),
            ("{}\n\n", "{}"),
            ("{\n  \"a\": 1\r\n}\n", "{   \"a\": 1  }"),
            ("{\"a\":\"x\\ny\"}", "{\"a\":\"x\\ny\"}"),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(line(record.as_bytes()), expected.as_bytes(), "{record:?}");
        }
        assert!(matches!(line(b"{}\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn any_number_of_lines_goes_in_one_write() {
        let dir = TempDir::new("lines");
        for count in [1, 2, VECTORED_LINES_MAX, VECTORED_LINES_MAX + 1, 3000] {
            let path = dir.path(&count.to_string());
            let (file, _) = open_append(&path, true).expect("open");
            let lines: Vec<_> = (0..count).map(|n| Cow::Owned(n.to_string().into_bytes())).collect();
            let expected: String = (0..count).map(|n| format!("{n}\n")).collect();
            assert_eq!(write_once(&file, &lines).expect("write"), expected.len());
            assert_eq!(fs::read(&path).expect("read"), expected.as_bytes());
            assert_eq!(joined(&lines), expected.as_bytes());
            for max in [0, 1, 2, 3, 64] {
                assert_eq!(first_bytes(&lines, max), &expected.as_bytes()[..max.min(expected.len())]);
            }
        }
    }
}
