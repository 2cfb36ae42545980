//! Followers of matches: whoever wants to see what groups match, as it comes, without anybody waiting for them.
//!
//! The path of a record asks one flag whether somebody follows. If so, what a group has matched is put into that follower's bounded buffer; what finds
//! no room there is counted as lost for that follower, and nothing else happens.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

/// Matches that wait for one follower.
pub const BUFFER_MATCHES_MAX: usize = 4096;
/// Bytes of their records.
pub const BUFFER_BYTES_MAX: usize = 4 << 20;
/// Followers at a time.
pub const FOLLOWERS_MAX: usize = 16;

/// One record that a group has matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The rule group.
    pub group: Arc<str>,
    /// The listener that the record came through.
    pub listener: &'static str,
    /// When it was handled.
    pub at: SystemTime,
    /// The record's bytes as received.
    pub record: Box<[u8]>,
}

/// All followers of a server.
#[derive(Default)]
pub struct Taps {
    /// Somebody follows.
    open: AtomicBool,
    followers: ArcSwap<Vec<Arc<Shared>>>,
    /// Held while followers come and go.
    changing: Mutex<()>,
}

struct Shared {
    /// None: every group.
    groups: Vec<String>,
    out: Sender<Match>,
    /// Of the records in the buffer.
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// One follower; it stops following when dropped.
pub struct Follower {
    taps: Arc<Taps>,
    shared: Arc<Shared>,
    matches: Receiver<Match>,
}

impl Taps {
    /// Whether anybody follows: one atomic load.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Shows that a group has matched a record. Takes no lock, and waits for nobody.
    pub fn show(&self, group: &Arc<str>, listener: &'static str, at: SystemTime, record: &[u8]) {
        for follower in self.followers.load().iter() {
            if follower.groups.is_empty() || follower.groups.iter().any(|wanted| **wanted == **group) {
                follower.offer(group, listener, at, record);
            }
        }
    }

    /// Follows these groups from now on; none: all of them. `None`: there are [`FOLLOWERS_MAX`] already.
    pub fn follow(self: &Arc<Self>, groups: Vec<String>) -> Option<Follower> {
        let _changing = self.changing.lock();
        let mut followers = Vec::clone(&self.followers.load());
        if followers.len() >= FOLLOWERS_MAX {
            return None;
        }
        let (out, matches) = bounded(BUFFER_MATCHES_MAX);
        let shared = Arc::new(Shared { groups, out, bytes: AtomicUsize::new(0), lost: AtomicU64::new(0) });
        followers.push(Arc::clone(&shared));
        self.followers.store(Arc::new(followers));
        self.open.store(true, Ordering::Relaxed);
        Some(Follower { taps: Arc::clone(self), shared, matches })
    }

    fn leave(&self, follower: &Arc<Shared>) {
        let _changing = self.changing.lock();
        let mut followers = Vec::clone(&self.followers.load());
        followers.retain(|other| !Arc::ptr_eq(other, follower));
        self.open.store(!followers.is_empty(), Ordering::Relaxed);
        self.followers.store(Arc::new(followers));
    }
}

impl Shared {
    fn offer(&self, group: &Arc<str>, listener: &'static str, at: SystemTime, record: &[u8]) {
        let before = self.bytes.fetch_add(record.len(), Ordering::Relaxed);
        let fits = before.saturating_add(record.len()) <= BUFFER_BYTES_MAX && !self.out.is_full();
        let sent = fits && {
            let record = record.into();
            self.out.try_send(Match { group: Arc::clone(group), listener, at, record }).is_ok()
        };
        if !sent {
            self.bytes.fetch_sub(record.len(), Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Follower {
    /// The next match, if there is one. Does not block.
    pub fn next(&self) -> Option<Match> {
        let found = self.matches.try_recv().ok()?;
        self.shared.bytes.fetch_sub(found.record.len(), Ordering::Relaxed);
        Some(found)
    }

    /// How many matches found no room since this was last asked. They came before those that are in the buffer, or between them.
    pub fn take_lost(&self) -> u64 {
        self.shared.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.taps.leave(&self.shared);
    }
}

impl fmt::Debug for Taps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Taps({} followers)", self.followers.load().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn followers_see_their_groups_in_order_and_nothing_after_they_left() {
        let taps = Arc::new(Taps::default());
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        assert!(!taps.is_open());
        let all = taps.follow(Vec::new()).expect("room");
        let only = taps.follow(vec!["b".into(), "c".into()]).expect("room");
        for (group, record) in [(&a, "1"), (&b, "2"), (&a, "3")] {
            taps.show(group, "http", AT, record.as_bytes());
        }
        let records = |follower: &Follower| -> Vec<Box<[u8]>> {
            std::iter::from_fn(|| follower.next()).map(|m| m.record).collect()
        };
        assert_eq!(records(&all), ["1", "2", "3"].map(|r| r.as_bytes().into()));
        assert_eq!(records(&only), [Box::from(&b"2"[..])]);
        drop(all);
        assert!(taps.is_open());
        drop(only);
        assert!(!taps.is_open());
        taps.show(&a, "http", AT, b"4");
    }

    #[test]
    fn a_slow_follower_loses_what_finds_no_room_and_is_told_how_many() {
        let taps = Arc::new(Taps::default());
        let a: Arc<str> = "a".into();
        let follower = taps.follow(Vec::new()).expect("room");
        (0..BUFFER_MATCHES_MAX + 7).for_each(|_| taps.show(&a, "tcp", AT, b"x"));
        assert_eq!((follower.take_lost(), follower.take_lost()), (7, 0));
        assert_eq!(std::iter::from_fn(|| follower.next()).count(), BUFFER_MATCHES_MAX);
        let half = vec![b'x'; BUFFER_BYTES_MAX / 2 + 1];
        (0..3).for_each(|_| taps.show(&a, "tcp", AT, &half));
        assert_eq!((follower.take_lost(), std::iter::from_fn(|| follower.next()).count()), (2, 1));
        taps.show(&a, "tcp", AT, &vec![b'x'; BUFFER_BYTES_MAX]);
        assert_eq!((follower.take_lost(), std::iter::from_fn(|| follower.next()).count()), (0, 1));
        let others: Vec<Follower> =
            (1..FOLLOWERS_MAX).map(|_| taps.follow(Vec::new()).expect("room")).collect();
        assert!(taps.follow(Vec::new()).is_none());
        drop(others);
        assert!(taps.follow(Vec::new()).is_some());
    }
}
