//! Cutting torn lines out of a file whose disk ran full in the middle of a write.
//!
//! A write that falls short leaves a fragment: the first bytes of one or more lines, without the last newline. Others may have
//! appended whole lines behind it before anybody noticed. [`cut`] takes the fragments out in place: it moves what follows down
//! and cuts the end off, and so needs no room on the disk. Nobody may write to the file meanwhile.
//!
//! A process killed inside the move leaves every byte of every line in the file, but a line that was being moved may then
//! stand there twice or in two pieces; [`cut`] moves nothing when the fragment is the end of the file, the common case.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a fragment that are compared before anything is cut.
pub(super) const PROBE_BYTES_MAX: usize = 64;
/// Bytes moved at a time.
const MOVE_BYTES: usize = 64 << 10;

/// A piece of a write that fell short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Offset of its first byte.
    pub(super) start: u64,
    /// Its length; never 0.
    pub(super) bytes: u64,
    /// Its first bytes, at most [`PROBE_BYTES_MAX`].
    pub(super) probe: Vec<u8>,
}

/// What [`cut`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// Bytes taken out.
    pub(super) removed_bytes: u64,
    /// Fragments that were not found where they had been written (the file was truncated or changed by somebody else).
    pub(super) not_found: usize,
    /// Length of the file now.
    pub(super) len: u64,
}

/// Bytes that can be read, written and shortened in place: a file opened without `O_APPEND`.
pub(super) trait Bytes {
    fn len(&self) -> io::Result<u64>;
    fn read(&self, into: &mut [u8], at: u64) -> io::Result<()>;
    fn write(&mut self, from: &[u8], at: u64) -> io::Result<()>;
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

impl Bytes for &File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(into, at)
    }

    fn write(&mut self, from: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(from, at)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// Takes `fragments` out of `file`. A fragment is taken out only where it begins a line and its first bytes are there.
///
/// # Errors
/// Those of the file. What was moved before an error stays moved; when the first read or write fails nothing has changed.
pub(super) fn cut(mut file: impl Bytes, mut fragments: Vec<Fragment>) -> io::Result<Cut> {
    fragments.sort_by_key(|f| f.start);
    let len = file.len()?;
    let mut done = Cut { len, ..Cut::default() };
    let mut found: Vec<Fragment> = Vec::with_capacity(fragments.len());
    for fragment in fragments {
        let before = found.last().map_or(0, |f| f.start + f.bytes);
        if is_there(&file, &fragment, before, len)? {
            found.push(fragment);
        } else {
            done.not_found += 1;
        }
    }
    let Some(first) = found.first() else { return Ok(done) };
    let mut to = first.start;
    for (at, fragment) in found.iter().enumerate() {
        let from = fragment.start + fragment.bytes;
        let until = found.get(at + 1).map_or(len, |next| next.start);
        move_down(&mut file, from, until, to)?;
        to += until - from;
    }
    file.truncate(to)?;
    done.removed_bytes = len - to;
    done.len = to;
    Ok(done)
}

/// `before` is where the fragment in front of it ends: one may follow another directly.
fn is_there(file: &impl Bytes, fragment: &Fragment, before: u64, len: u64) -> io::Result<bool> {
    let end = fragment.start.checked_add(fragment.bytes);
    if fragment.bytes == 0 || fragment.start < before || end.is_none_or(|end| end > len) {
        return Ok(false);
    }
    if fragment.start > before {
        let mut last = [0];
        file.read(&mut last, fragment.start - 1)?;
        if last != *b"\n" {
            return Ok(false);
        }
    }
    let mut probe = [0; PROBE_BYTES_MAX];
    let probe = &mut probe[..fragment.probe.len().min(PROBE_BYTES_MAX)];
    file.read(probe, fragment.start)?;
    Ok(probe == &fragment.probe[..probe.len()])
}

fn move_down(file: &mut impl Bytes, mut from: u64, until: u64, mut to: u64) -> io::Result<()> {
    let mut buffer = vec![0; MOVE_BYTES.min(usize::try_from(until - from).unwrap_or(MOVE_BYTES))];
    while from < until {
        let bytes = buffer.len().min(usize::try_from(until - from).unwrap_or(MOVE_BYTES));
        file.read(&mut buffer[..bytes], from)?;
        file.write(&buffer[..bytes], to)?;
        from += bytes as u64;
        to += bytes as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::{Bytes, Cut, Fragment, PROBE_BYTES_MAX, cut};

    impl Bytes for &mut Vec<u8> {
        fn len(&self) -> io::Result<u64> {
            Ok(Vec::len(self) as u64)
        }

        fn read(&self, into: &mut [u8], at: u64) -> io::Result<()> {
            let at = at as usize;
            let from = self.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            into.copy_from_slice(from);
            Ok(())
        }

        fn write(&mut self, from: &[u8], at: u64) -> io::Result<()> {
            let at = at as usize;
            self[at..at + from.len()].copy_from_slice(from);
            Ok(())
        }

        fn truncate(&mut self, len: u64) -> io::Result<()> {
            Vec::truncate(self, len as usize);
            Ok(())
        }
    }

    fn fragment(start: usize, text: &[u8]) -> Fragment {
        let probe = text[..text.len().min(PROBE_BYTES_MAX)].to_vec();
        Fragment { start: start as u64, bytes: text.len() as u64, probe }
    }

    #[test]
    fn a_fragment_at_the_end_is_cut_off() {
        let mut file = b"{\"a\":1}\n{\"b\":".to_vec();
        let done = cut(&mut file, vec![fragment(8, b"{\"b\":")]).expect("cut");
        assert_eq!(done, Cut { removed_bytes: 5, not_found: 0, len: 8 });
        assert_eq!(file, b"{\"a\":1}\n");
    }

    #[test]
    fn lines_behind_a_fragment_move_down() {
        let mut file = b"{\"b\":{\"c\":1}\n{\"d\":2}\n".to_vec();
        let done = cut(&mut file, vec![fragment(0, b"{\"b\":")]).expect("cut");
        assert_eq!(done.removed_bytes, 5);
        assert_eq!(file, b"{\"c\":1}\n{\"d\":2}\n");
    }

    #[test]
    fn what_is_not_there_is_not_cut() {
        for (text, wrong) in [
            ("{\"a\":1}\n", fragment(0, b"{\"b\"")),
            ("{\"a\":1}\n", fragment(3, b"\":1")),
            ("{\"a\":1}\n", fragment(8, b"{")),
            ("{\"a\":1}\n", Fragment { start: u64::MAX, bytes: 2, probe: vec![] }),
            ("{\"a\":1}\n", Fragment { start: 0, bytes: 0, probe: vec![] }),
        ] {
            let mut file = text.as_bytes().to_vec();
            let done = cut(&mut file, vec![wrong.clone()]).expect("cut");
            assert_eq!((done.removed_bytes, done.not_found), (0, 1), "{wrong:?}");
            assert_eq!(file, text.as_bytes(), "{wrong:?}");
        }
    }

    proptest! {
        /// Whole lines and fragments in any order and of any size: what is left is the whole lines.
        #[test]
        fn the_whole_lines_are_left(
            parts in proptest::collection::vec((any::<bool>(), 1usize..300, any::<u8>(), 1usize..600), 0..40)
        ) {
            let (mut file, mut expected, mut fragments) = (Vec::new(), Vec::new(), Vec::new());
            for (whole, bytes, letter, scale) in parts {
                let mut text = vec![b'a' + letter % 26; if scale > 590 { bytes * scale } else { bytes }];
                if whole {
                    text.push(b'\n');
                    expected.extend_from_slice(&text);
                } else {
                    if scale % 3 == 0 { text.insert(text.len() / 2, b'\n'); }
                    fragments.push(fragment(file.len(), &text));
                }
                file.extend_from_slice(&text);
            }
            fragments.reverse();
            let before = file.len();
            let done = cut(&mut file, fragments).expect("cut");
            prop_assert_eq!(done.not_found, 0);
            prop_assert_eq!(done.removed_bytes as usize, before - expected.len());
            prop_assert_eq!(done.len as usize, expected.len());
            prop_assert!(file == expected);
        }
    }
}
