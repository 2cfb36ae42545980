//! Requests without a response, and responses without a request: of each call Vault and OpenBao write an entry of type `request` and one of type
//! `response` with the same `request.id`. Evidence only: nothing waits for it, and it changes no answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fifo::{Fifo, Hashed};
use crate::listener::Source;
use crate::metrics::{self, Counter, Registry};

/// The listeners whose halves are told apart.
pub(super) const LISTENERS: [Source; 4] = [Source::Http, Source::Tcp, Source::Udp, Source::Unix];

/// Path of the entry by which an audit device is tried before it is enabled: a request that nobody answers.
const PROBE_PATH: &str = "sys/audit/test";

/// Ticks in a second.
const TICKS_PER_S: u128 = 10;
/// How many calls whose time is up go at once: others wait for the lock.
const EXPIRED_AT_ONCE: usize = 256;

/// One half of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Request,
    Response,
}

impl Half {
    fn of(kind: &str) -> Option<Half> {
        match kind {
            "request" => Some(Half::Request),
            "response" => Some(Half::Response),
            _ => None,
        }
    }

    fn bit(self) -> u8 {
        match self {
            Half::Request => 1,
            Half::Response => 2,
        }
    }
}

/// A call of which something has been seen. 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Call {
    /// Of id and listener.
    key: u64,
    /// When its first half came, in ticks.
    begun: u32,
    /// [`Half::bit`] of what has come.
    seen: u8,
    /// Number in [`LISTENERS`].
    listener: u8,
}

impl Hashed for Call {
    fn hash(&self) -> u64 {
        self.key
    }
}

/// What becomes of a call that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lonely {
    /// Its time is up and this half has not come; with the number of the listener.
    Missing(Half, usize),
    /// There was no room to wait for the other half any longer.
    Forgotten,
}

/// The calls of the last `wait`, in the order of their first halves. Knows no clock: ticks are handed in.
#[derive(Debug)]
struct Calls {
    calls: Fifo<Call>,
    wait: u32,
}

impl Calls {
    fn new(capacity: usize, wait: u32) -> Calls {
        Calls { calls: Fifo::new(capacity), wait }
    }

    /// A half has come. Calls whose time is up go first, then, if there is no room, the oldest one.
    fn see(&mut self, (key, listener): (u64, u8), half: Half, now: u32, lonely: &mut impl FnMut(Lonely)) {
        self.expire(now, lonely);
        if let Some(call) = self.calls.find(key, |call| call.key == key) {
            // A half that was sent twice changes nothing.
            call.seen |= half.bit();
            return;
        }
        let gone = self.calls.push(Call { key, begun: now, seen: half.bit(), listener });
        match gone {
            Some(call) if self.is_due(&call, now) => self.end(&call, lonely),
            Some(call) if missing(&call).is_some() => lonely(Lonely::Forgotten),
            _ => {}
        }
    }

    /// Lets go of calls whose time is up, of a bounded number at once. Whether that was all.
    fn expire(&mut self, now: u32, lonely: &mut impl FnMut(Lonely)) -> bool {
        for _ in 0..EXPIRED_AT_ONCE {
            if !self.calls.oldest().is_some_and(|call| self.is_due(call, now)) {
                return true;
            }
            if let Some(call) = self.calls.pop() {
                self.end(&call, lonely);
            }
        }
        false
    }

    fn is_due(&self, call: &Call, now: u32) -> bool {
        now.saturating_sub(call.begun) >= self.wait
    }

    /// The time of this call is up.
    fn end(&self, call: &Call, lonely: &mut impl FnMut(Lonely)) {
        match missing(call) {
            // The request may have come before the program ran, or before it looked.
            Some(Half::Request) if call.begun < self.wait => {}
            Some(half) => lonely(Lonely::Missing(half, usize::from(call.listener))),
            None => {}
        }
    }
}

fn missing(call: &Call) -> Option<Half> {
    match (call.seen & Half::Request.bit(), call.seen & Half::Response.bit()) {
        (0, _) => Some(Half::Request),
        (_, 0) => Some(Half::Response),
        _ => None,
    }
}

/// Looks for the halves of all calls. Shared by all threads that evaluate; nobody holds its lock for longer than one half takes, and what
/// has become due.
#[derive(Debug)]
pub struct Pairs {
    settings: (usize, Duration),
    base: Instant,
    key: RandomState,
    calls: Mutex<Calls>,
    /// By listener: without response, without request.
    unpaired: [[Arc<Counter>; 2]; LISTENERS.len()],
    forgotten: Arc<Counter>,
}

impl Pairs {
    /// Waits for the other halves of up to `window` calls, at 24 to 32 bytes each, for so long. Begins with nothing: the requests of responses
    /// that come within the first `wait` are not missed.
    pub fn new(window: usize, wait: Duration, now: Instant, registry: &Registry) -> Pairs {
        let counters = |source: Source| {
            ["response", "request"]
                .map(|missing| registry.counter(&metrics::UNPAIRED, &[source.label(), missing]))
        };
        let wait_ticks = ticks(wait).max(1);
        Pairs {
            settings: (window, wait),
            base: now,
            key: RandomState::new(),
            calls: Mutex::new(Calls::new(window, wait_ticks)),
            unpaired: LISTENERS.map(counters),
            forgotten: registry.counter(&metrics::PAIRS_FORGOTTEN, &[]),
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> (usize, Duration) {
        self.settings
    }

    /// A record has come. What is neither request nor response of a call is left alone: other types (those of plugins have no id), and the entry by
    /// which a device is tried.
    pub fn see(&self, source: Source, (id, kind, path): (&str, &str, &str), now: Instant) {
        let Some(half) = Half::of(kind).filter(|_| path != PROBE_PATH) else { return };
        let Some(listener) = LISTENERS.iter().position(|known| *known == source) else { return };
        let listener = u8::try_from(listener).unwrap_or(u8::MAX);
        let key = self.key.hash_one((listener, id));
        let now = self.tick(now);
        self.calls.lock().see((key, listener), half, now, &mut |lonely| self.count(lonely));
    }

    /// Counts what has become due. To be called now and then: when nothing comes, nobody else does.
    pub fn sweep(&self, now: Instant) {
        let now = self.tick(now);
        while !self.calls.lock().expire(now, &mut |lonely| self.count(lonely)) {}
    }

    fn tick(&self, now: Instant) -> u32 {
        ticks(now.saturating_duration_since(self.base))
    }

    fn count(&self, lonely: Lonely) {
        match lonely {
            Lonely::Forgotten => self.forgotten.inc(),
            Lonely::Missing(half, listener) => {
                if let Some([response, request]) = self.unpaired.get(listener) {
                    match half {
                        Half::Response => response.inc(),
                        Half::Request => request.inc(),
                    }
                }
            }
        }
    }
}

/// Whole ticks, up to 13 years of them.
fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() * TICKS_PER_S / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    /// The same by a plain list that is searched from end to end.
    #[derive(Default)]
    struct Plain {
        calls: VecDeque<(u64, u32, bool, bool)>,
        missing: Vec<Half>,
        forgotten: usize,
    }

    impl Plain {
        fn expire(&mut self, now: u32, wait: u32) {
            while self.calls.front().is_some_and(|call| call.1 + wait <= now) {
                match self.calls.pop_front() {
                    Some((_, _, true, false)) => self.missing.push(Half::Response),
                    Some((_, begun, false, true)) if begun >= wait => self.missing.push(Half::Request),
                    _ => {}
                }
            }
        }

        fn see(&mut self, key: u64, half: Half, now: u32, (wait, capacity): (u32, usize)) {
            self.expire(now, wait);
            let is_request = half == Half::Request;
            if let Some(call) = self.calls.iter_mut().find(|call| call.0 == key) {
                call.2 |= is_request;
                call.3 |= !is_request;
                return;
            }
            if self.calls.len() == capacity
                && let Some((_, _, request, response)) = self.calls.pop_front()
                && request != response
            {
                self.forgotten += 1;
            }
            self.calls.push_back((key, now, is_request, !is_request));
        }
    }

    proptest! {
        #[test]
        fn what_is_missing_is_what_a_plain_list_misses(
            capacity in 1usize..20,
            wait in 1u32..30,
            steps in prop::collection::vec((0u64..60, any::<bool>(), 0u32..6), 0..300),
        ) {
            let (mut calls, mut plain) = (Calls::new(capacity, wait), Plain::default());
            let (mut missing, mut forgotten, mut now) = (Vec::new(), 0, 0);
            let mut note = |lonely| match lonely {
                Lonely::Missing(half, listener) => {
                    assert_eq!(listener, 3);
                    missing.push(half);
                }
                Lonely::Forgotten => forgotten += 1,
            };
            for (key, is_request, passed) in steps {
                now += passed;
                let half = if is_request { Half::Request } else { Half::Response };
                calls.see((key, 3), half, now, &mut note);
                plain.see(key, half, now, (wait, capacity));
            }
            calls.expire(now + wait, &mut note);
            plain.expire(now + wait, wait);
            prop_assert_eq!((missing, forgotten), (plain.missing, plain.forgotten));
            prop_assert_eq!(calls.calls.len(), 0);
        }
    }

    struct Scene {
        registry: Registry,
        pairs: Pairs,
        start: Instant,
    }

    impl Scene {
        fn new() -> Scene {
            let (registry, start) = (Registry::new(), clock::now());
            Scene { pairs: Pairs::new(100, Duration::from_secs(10), start, &registry), registry, start }
        }

        fn see(&self, at_s: u64, source: Source, id: &str, kind: &str) {
            self.pairs.see(source, (id, kind, "secret/a"), self.start + Duration::from_secs(at_s));
        }

        /// Without response, without request, at that time.
        fn missing(&self, at_s: u64, source: Source) -> [u64; 2] {
            self.pairs.sweep(self.start + Duration::from_secs(at_s));
            ["response", "request"]
                .map(|missing| self.registry.counter(&metrics::UNPAIRED, &[source.label(), missing]).get())
        }
    }

    #[test]
    fn both_halves_in_any_order_and_again_are_a_pair() {
        let scene = Scene::new();
        for (at, kind) in [(20, "request"), (21, "response"), (22, "request"), (23, "response")] {
            scene.see(at, Source::Tcp, "a", kind);
        }
        for (at, kind) in [(20, "response"), (29, "request")] {
            scene.see(at, Source::Udp, "b", kind);
        }
        assert_eq!((scene.missing(100, Source::Tcp), scene.missing(100, Source::Udp)), ([0, 0], [0, 0]));
    }

    #[test]
    fn a_half_is_missed_when_its_time_is_up_by_its_listener() {
        let scene = Scene::new();
        scene.see(20, Source::Http, "a", "request");
        scene.see(20, Source::Tcp, "b", "response");
        // The other half came in by another listener, so each of them has lost one.
        scene.see(21, Source::Http, "b", "request");
        assert_eq!((scene.missing(29, Source::Http), scene.missing(29, Source::Tcp)), ([0, 0], [0, 0]));
        assert_eq!((scene.missing(30, Source::Http), scene.missing(30, Source::Tcp)), ([1, 0], [0, 1]));
        assert_eq!((scene.missing(31, Source::Http), scene.missing(31, Source::Tcp)), ([2, 0], [0, 1]));
    }

    #[test]
    fn what_has_no_other_half_is_not_waited_for() {
        let scene = Scene::new();
        let at = scene.start + Duration::from_secs(20);
        scene.pairs.see(Source::Tcp, ("a", "request", PROBE_PATH), at);
        scene.pairs.see(Source::Tcp, ("b", "kmip-request", ""), at);
        scene.pairs.see(Source::Admin, ("c", "request", ""), at);
        // Its request may have come before the program ran; the request that nobody answers came while it did.
        scene.see(9, Source::Unix, "d", "response");
        scene.see(9, Source::Unix, "e", "request");
        assert_eq!((scene.missing(100, Source::Tcp), scene.missing(100, Source::Unix)), ([0, 0], [1, 0]));
    }

    #[test]
    fn what_is_due_at_once_goes_bit_by_bit() {
        let registry = Registry::new();
        let start = clock::now();
        let pairs = Pairs::new(1000, Duration::from_secs(10), start, &registry);
        let see = |n: u64, at_s: u64| {
            let id = n.to_string();
            pairs.see(Source::Http, (&id, "request", ""), start + Duration::from_secs(at_s));
        };
        (0..1000).for_each(|n| see(n, 20));
        let unpaired = || registry.counter(&metrics::UNPAIRED, &["http", "response"]).get();
        see(1000, 40);
        assert_eq!(unpaired(), EXPIRED_AT_ONCE as u64);
        (1001..2000).for_each(|n| see(n, 40));
        assert_eq!((unpaired(), registry.counter(&metrics::PAIRS_FORGOTTEN, &[]).get()), (1000, 0));
        (2000..3000).for_each(|n| see(n, 41));
        assert_eq!(registry.counter(&metrics::PAIRS_FORGOTTEN, &[]).get(), 1000);
        pairs.sweep(start + Duration::from_secs(51));
        assert_eq!(unpaired(), 2000);
    }

    #[test]
    fn a_full_window_forgets_and_says_so() {
        let scene = Scene::new();
        for n in 0..250 {
            scene.see(20, Source::Http, &n.to_string(), "request");
        }
        assert_eq!(scene.registry.counter(&metrics::PAIRS_FORGOTTEN, &[]).get(), 150);
        assert_eq!(scene.missing(30, Source::Http), [100, 0]);
    }
}
