//! Records that are sent twice. Senders that do not know whether a record came through send the whole of it again, byte for byte, on another
//! connection. The window remembers the last records that are *done* - written, and with the durable store on the disk -, so that the second one
//! can be acked without being written once more.
//!
//! What it takes to be the second one: the same `request.id`, the same `type`, the same length and the same bytes, by two hashes under a
//! key that is drawn anew in each process. The bytes belong to it because ids can repeat, by accident or because somebody wants a record to be taken
//! for another: an id alone must never make a record vanish from the audit trail. Whoever does not know the key can find no two records that
//! are taken for one another but by trying, one in 2^64 for each try with an id that is known and 2^128 otherwise.
//!
//! A record that is still under way is not in the window: whatever comes meanwhile is handled as new. So is one that was refused.

use std::hash::{BuildHasher, Hasher, RandomState};

use parking_lot::Mutex;

use super::fifo::{Fifo, Hashed};

/// How many entries are copied at once into a window of another size.
const COPY_AT_ONCE: usize = 4096;

/// What a record is known by. 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Of id, type and length.
    identity: u64,
    /// Of the record as it came, without whitespace around it.
    bytes: u64,
}

impl Hashed for Mark {
    fn hash(&self) -> u64 {
        self.bytes
    }
}

/// The last records that are done. Shared by all threads that evaluate; nobody holds its lock for longer than looking one mark up, or
/// adding those of one batch.
#[derive(Debug)]
pub struct Window {
    key: RandomState,
    capacity: usize,
    marks: Mutex<Fifo<Mark>>,
}

impl Window {
    /// Remembers the last `capacity` records, at 24 to 32 bytes each.
    pub fn new(capacity: usize) -> Window {
        Window { key: RandomState::new(), capacity, marks: Mutex::new(Fifo::new(capacity)) }
    }

    /// How many it remembers.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// One of another size that remembers what this one does, the newest where it is smaller. What becomes done while it is made may be
    /// missing in it: that is then taken as new.
    #[must_use]
    pub fn resized(&self, capacity: usize) -> Window {
        let mut marks = Fifo::new(capacity);
        let mut from = self.marks.lock().len().saturating_sub(capacity);
        loop {
            // Never long under the lock: records wait for it.
            let some = self.marks.lock().some(from, COPY_AT_ONCE);
            from += some.len();
            if some.is_empty() {
                break;
            }
            for mark in some {
                marks.push(mark);
            }
        }
        Window { key: self.key.clone(), capacity, marks: Mutex::new(marks) }
    }

    /// What this record is known by. Reads all of its bytes.
    pub fn mark(&self, id: &str, kind: &str, record: &[u8]) -> Mark {
        let mut hasher = self.key.build_hasher();
        hasher.write(record);
        Mark { identity: self.key.hash_one((id, kind, record.len())), bytes: hasher.finish() }
    }

    /// Whether that record is done.
    pub fn knows(&self, mark: Mark) -> bool {
        self.marks.lock().find(mark.bytes, |known| *known == mark).is_some()
    }

    /// These are done.
    pub fn remember(&self, done: impl Iterator<Item = Mark>) {
        let mut marks = self.marks.lock();
        for mark in done {
            // Two that were under way at once.
            if marks.find(mark.bytes, |known| *known == mark).is_none() {
                marks.push(mark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_records_are_known_and_no_others(
            capacity in 1usize..12,
            steps in prop::collection::vec((0u8..30, any::<bool>()), 0..200),
            other in 1usize..12,
        ) {
            let (window, mut plain) = (Window::new(capacity), VecDeque::new());
            let mark = |n: u8| window.mark(&format!("id{}", n % 5), "request", format!("record {n}").as_bytes());
            for (n, done) in steps {
                prop_assert_eq!(window.knows(mark(n)), plain.contains(&n));
                if done {
                    window.remember(std::iter::once(mark(n)));
                    if !plain.contains(&n) {
                        plain.push_back(n);
                        plain.drain(..plain.len().saturating_sub(capacity));
                    }
                }
            }
            let resized = window.resized(other);
            plain.drain(..plain.len().saturating_sub(other));
            for n in 0..30 {
                prop_assert_eq!(resized.knows(mark(n)), plain.contains(&n));
            }
        }
    }

    #[test]
    fn all_of_id_type_and_bytes_make_a_record_what_it_is() {
        let window = Window::new(10);
        let one = window.mark("id", "request", b"bytes");
        window.remember(std::iter::once(one));
        assert!(window.knows(window.mark("id", "request", b"bytes")));
        for (id, kind, bytes) in [
            ("id", "request", "bytez"),
            ("id", "request", "bytes "),
            ("id", "response", "bytes"),
            ("ie", "request", "bytes"),
            ("idr", "equest", "bytes"),
            ("", "", ""),
        ] {
            assert!(!window.knows(window.mark(id, kind, bytes.as_bytes())), "{id} {kind} {bytes}");
        }
        assert_ne!(Window::new(10).mark("id", "request", b"bytes"), one, "each process has a key of its own");
    }

    #[test]
    fn a_large_window_is_copied_whole() {
        let window = Window::new(20_000);
        let mark = |n: usize| window.mark("id", "request", &n.to_ne_bytes());
        window.remember((0..25_000).map(mark));
        let (larger, smaller) = (window.resized(30_000), window.resized(5_000));
        assert_eq!((0..25_000).filter(|n| larger.knows(mark(*n))).count(), 20_000);
        assert!((0..25_000).all(|n| smaller.knows(mark(n)) == (n >= 20_000)));
        assert_eq!((larger.capacity(), smaller.capacity()), (30_000, 5_000));
    }
}
