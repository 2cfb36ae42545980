//! Names of rotated files and of the helper files beside a log file: pure, no I/O.
//!
//! A backup of `PREFIX.EXT` is `PREFIX-2006-01-02T15-04-05.000.EXT` (UTC, milliseconds), with `.gz` behind it once
//! compressed: the names of <https://github.com/natefinch/lumberjack> (v2), whose parser reads exactly three digits of a
//! second and nothing behind them. So a second backup within one millisecond takes the next free millisecond rather than a
//! suffix: every name stays one that lumberjack, and whatever else knows its names, reads and sorts.
//!
//! `EXT` is what follows the last dot, dot included, as Go's `filepath.Ext` has it: `.bashrc` is all extension.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// Bytes of `2006-01-02T15-04-05.000`.
const STAMP_BYTES: usize = 23;
/// What a position of the stamp holds: `d` is a digit.
const STAMP_SHAPE: &[u8; STAMP_BYTES] = b"dddd-dd-ddTdd-dd-dd.ddd";
/// Infix of spare files.
const SPARE: &[u8] = b".next-";
/// Suffix of a compression that has not ended.
const GZ_TEMP: &[u8] = b".gz.tmp";

/// The names that belong to one log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    dir: PathBuf,
    file: OsString,
    ext_at: usize,
}

/// A rotated file's name, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Backup {
    /// Milliseconds since the epoch.
    pub(super) at_ms: i64,
    /// Ends in `.gz`.
    pub(super) compressed: bool,
}

impl Names {
    /// The names of the log file at `path`, which must name a file in a directory.
    pub(super) fn new(path: &Path) -> Option<Names> {
        let file = path.file_name()?.to_owned();
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let ext_at = file.as_bytes().iter().rposition(|b| *b == b'.').unwrap_or(file.len());
        Some(Names { dir, file, ext_at })
    }

    /// The directory that holds the log file and everything beside it.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The log file itself.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(&self.file)
    }

    fn prefix(&self) -> &[u8] {
        &self.file.as_bytes()[..self.ext_at]
    }

    fn ext(&self) -> &[u8] {
        &self.file.as_bytes()[self.ext_at..]
    }

    /// Name of the backup made at `at_ms`; `None` for a time outside the years 0 to 9999.
    pub(super) fn backup(&self, at_ms: i64) -> Option<OsString> {
        let at = Offset::UTC.to_datetime(Timestamp::from_millisecond(at_ms).ok()?);
        if !(0..=9999).contains(&at.year()) {
            return None;
        }
        let stamp = format!(
            "{:04}-{:02}-{:02}T{:02}-{:02}-{:02}.{:03}",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        );
        Some(join(&[self.prefix(), b"-", stamp.as_bytes(), self.ext()]))
    }

    /// Reads a name as a backup of this log file. Whatever is not one exactly is somebody else's file.
    pub(super) fn parse_backup(&self, name: &OsStr) -> Option<Backup> {
        let rest = name.as_bytes().strip_prefix(self.prefix())?.strip_prefix(b"-")?;
        let (stamp, rest) = rest.split_at_checked(STAMP_BYTES)?;
        let rest = rest.strip_prefix(self.ext())?;
        let compressed = match rest {
            b"" => false,
            b".gz" => true,
            _ => return None,
        };
        Some(Backup { at_ms: parse_stamp(stamp)?, compressed })
    }

    /// Name of the hidden file that will be the log file after the next rotation.
    pub(super) fn spare(&self, number: u64) -> OsString {
        join(&[b".", self.file.as_bytes(), SPARE, number.to_string().as_bytes()])
    }

    /// The number of a spare of this log file.
    pub(super) fn parse_spare(&self, name: &OsStr) -> Option<u64> {
        let digits =
            name.as_bytes().strip_prefix(b".")?.strip_prefix(self.file.as_bytes())?.strip_prefix(SPARE)?;
        let canonical = digits.first().is_some_and(|d| *d != b'0' || digits.len() == 1);
        if !canonical || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// Whether `name` is what a compression of one of this file's backups writes before it is whole.
    pub(super) fn is_gz_temp(&self, name: &OsStr) -> bool {
        let inner = name.as_bytes().strip_prefix(b".").and_then(|n| n.strip_suffix(GZ_TEMP));
        inner.and_then(|n| self.parse_backup(OsStr::from_bytes(n))).is_some_and(|backup| !backup.compressed)
    }
}

/// Hidden name under which the compression of the backup called `backup` is written.
pub(super) fn gz_temp(backup: &OsStr) -> OsString {
    join(&[b".", backup.as_bytes(), GZ_TEMP])
}

/// The backup's name once compressed.
pub(super) fn gz(backup: &OsStr) -> OsString {
    join(&[backup.as_bytes(), b".gz"])
}

fn join(parts: &[&[u8]]) -> OsString {
    OsString::from_vec(parts.concat())
}

fn parse_stamp(stamp: &[u8]) -> Option<i64> {
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'd' { byte.is_ascii_digit() } else { byte == shape };
    if stamp.len() != STAMP_BYTES || !stamp.iter().zip(STAMP_SHAPE).all(fits) {
        return None;
    }
    let number =
        |from: usize, to: usize| stamp[from..to].iter().fold(0i32, |n, d| n * 10 + i32::from(d - b'0'));
    let small = |from: usize| i8::try_from(number(from, from + 2)).ok();
    let year = i16::try_from(number(0, 4)).ok()?;
    let (month, day, hour, minute, second) = (small(5)?, small(8)?, small(11)?, small(14)?, small(17)?);
    let at = DateTime::new(year, month, day, hour, minute, second, number(20, 23) * 1_000_000).ok()?;
    Some(Offset::UTC.to_timestamp(at).ok()?.as_millisecond())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use proptest::prelude::*;

    use super::{Backup, Names, gz, gz_temp};

    /// 2026-11-24T05:48:10.302Z.
    const AT_MS: i64 = 1_795_499_290_302;

    fn names(path: &str) -> Names {
        Names::new(Path::new(path)).expect("a file name")
    }

    #[test]
    fn backups_are_called_as_lumberjack_calls_them() {
        for (path, expected) in [
            ("/var/log/a.log", "a-2026-11-24T05-48-10.302.log"),
            ("/var/log/a", "a-2026-11-24T05-48-10.302"),
            ("a.tar.gz", "a.tar-2026-11-24T05-48-10.302.gz"),
            ("/x/.hidden", "-2026-11-24T05-48-10.302.hidden"),
            ("/x/trailing.", "trailing-2026-11-24T05-48-10.302."),
            ("/x.d/plain", "plain-2026-11-24T05-48-10.302"),
        ] {
            assert_eq!(names(path).backup(AT_MS).as_deref(), Some(OsStr::new(expected)), "{path}");
            assert_eq!(
                names(path).parse_backup(OsStr::new(expected)),
                Some(Backup { at_ms: AT_MS, compressed: false }),
                "{path}"
            );
            assert_eq!(
                names(path).parse_backup(&gz(OsStr::new(expected))),
                Some(Backup { at_ms: AT_MS, compressed: true }),
                "{path}"
            );
        }
        assert_eq!(names("a.log").dir(), Path::new("."));
        assert_eq!(names("a.log").backup(i64::MAX), None);
        assert_eq!(names("a.log").backup(-62_167_219_200_001), None, "before the year 0");
        assert!(Names::new(Path::new("/")).is_none());
    }

    #[test]
    fn what_is_not_exactly_a_backup_is_somebody_elses_file() {
        let n = names("/var/log/a.log");
        for other in [
            "a.log",
            "a-2026-11-24T05-48-10.302.log.gz.tmp",
            "a-2026-11-24T05-48-10.302.log.bz2",
            "a-2026-11-24T05-48-10.30.log",
            "a-2026-11-24T05-48-10.3021.log",
            "a-2026-11-24T05-48-10.302.1.log",
            "a-2026-11-24 05-48-10.302.log",
            "a-2026-13-24T05-48-10.302.log",
            "a-2026-02-30T05-48-10.302.log",
            "a-2026-11-24T24-48-10.302.log",
            "a-2026-11-24T05-48-60.302.log",
            "a-b-2026-11-24T05-48-10.302.log",
            "aa-2026-11-24T05-48-10.302.log",
            "a-2026-11-24T05-48-10.302",
            "a-+026-11-24T05-48-10.302.log",
            "a-2026-11-24T05-48-10.302.txt",
            "a-",
            "",
        ] {
            assert_eq!(n.parse_backup(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn helper_files_are_hidden_and_recognised() {
        let n = names("/var/log/a.log");
        assert_eq!(n.spare(7), ".a.log.next-7");
        assert_eq!(n.parse_spare(OsStr::new(".a.log.next-7")), Some(7));
        for other in [
            ".a.log.next-",
            ".a.log.next-07",
            ".a.log.next-x",
            ".b.log.next-7",
            "a.log.next-7",
            ".a.log.next--1",
        ] {
            assert_eq!(n.parse_spare(OsStr::new(other)), None, "{other}");
        }
        let backup = n.backup(AT_MS).expect("a name");
        assert!(n.is_gz_temp(&gz_temp(&backup)));
        assert!(!n.is_gz_temp(&gz_temp(&gz(&backup))));
        assert!(!n.is_gz_temp(OsStr::new(".a.log.gz.tmp")));
    }

    proptest! {
        #[test]
        fn every_name_reads_back(at_ms in -62_167_219_200_000i64..253_402_300_800_000, path in "[a-z.-]{1,12}", number: u64) {
            let Some(n) = Names::new(Path::new(&path)) else { return Ok(()) };
            let name = n.backup(at_ms).expect("within the years 0 to 9999");
            prop_assert_eq!(n.parse_backup(&name), Some(Backup { at_ms, compressed: false }));
            prop_assert_eq!(n.parse_backup(&gz(&name)), Some(Backup { at_ms, compressed: true }));
            prop_assert!(n.is_gz_temp(&gz_temp(&name)));
            prop_assert_eq!(n.parse_spare(&n.spare(number)), Some(number));
        }

        #[test]
        fn names_sort_as_their_times(a in 0i64..253_402_300_800_000, b in 0i64..253_402_300_800_000) {
            let n = names("/x/a.log");
            prop_assert_eq!(a.cmp(&b), n.backup(a).cmp(&n.backup(b)));
        }

        #[test]
        fn no_name_makes_the_parser_panic(name in "\\PC{0,60}") {
            let _ = names("/x/a.log").parse_backup(OsStr::new(&name));
            let _ = names("/x/a.log").parse_spare(OsStr::new(&name));
        }
    }
}
