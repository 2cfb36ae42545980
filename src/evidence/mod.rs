//! What the stream of records says about itself: records that come twice, halves that are missing, senders that fall silent.
//!
//! The cores know no sockets, files and clocks; bytes, values and times are handed in.

mod fifo;
mod pairs;
mod silence;
mod window;

use std::sync::Arc;
use std::time::Instant;

pub use pairs::Pairs;
pub use silence::{SOURCE_NAME_BYTES_MAX, SOURCES_MAX, Silence};
pub use window::{Mark, Window};

use crate::config::Config;
use crate::listener::Source;
use crate::metrics::Registry;
use crate::record::{FieldPlan, Record, Slot, SlotId};

/// The fields by which records are told apart and paired.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    id: SlotId,
    kind: SlotId,
    path: SlotId,
}

impl Identity {
    /// Asks for the fields, where the configuration looks at them.
    pub fn wanted(config: &Config, plan: &mut FieldPlan) -> Option<Identity> {
        let looks = config.dedupe_window > 0 || config.pairs_window > 0;
        looks.then(|| Identity {
            id: plan.want(&["request", "id"]),
            kind: plan.want(&["type"]),
            path: plan.want(&["request", "path"]),
        })
    }
}

/// What is looked at in each record that is received.
#[derive(Debug, Clone)]
pub struct Evidence {
    identity: Identity,
    /// With `dedupe.window`.
    pub window: Option<Arc<Window>>,
    /// With `pairs.window`.
    pub pairs: Option<Arc<Pairs>>,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It was sent before, and is done.
    Duplicate,
    /// It is new; to be remembered by this once it is done.
    New(Mark),
    /// It cannot be told from others, or nobody asks.
    Unknown,
}

impl Evidence {
    /// What the configuration asks for. What `before` has with the same settings goes on; a window of another size takes over what fits.
    pub fn new(
        identity: Option<Identity>,
        config: &Config,
        before: Option<&Evidence>,
        registry: &Registry,
        now: Instant,
    ) -> Option<Evidence> {
        let (size, wait) = (config.pairs_window, config.pairs_wait);
        let known = before.and_then(|before| before.pairs.clone());
        let pairs = (size > 0).then(|| {
            let same = known.filter(|pairs| pairs.settings() == (size, wait));
            same.unwrap_or_else(|| Arc::new(Pairs::new(size, wait, now, registry)))
        });
        let size = config.dedupe_window;
        let known = before.and_then(|before| before.window.clone());
        let window = (size > 0).then(|| match known {
            Some(window) if window.capacity() == size => window,
            Some(window) => Arc::new(window.resized(size)),
            None => Arc::new(Window::new(size)),
        });
        Some(Evidence { identity: identity?, window, pairs })
    }

    /// A record has come. `now` is asked for where the time matters.
    pub fn see(&self, source: Source, record: &Record<'_>, now: impl FnOnce() -> Instant) -> Sight {
        let text = |slot| match record.slot(slot) {
            // As good as none.
            Slot::Str("") => None,
            Slot::Str(text) => Some(text),
            _ => None,
        };
        let (Some(id), Some(kind)) = (text(self.identity.id), text(self.identity.kind)) else {
            return Sight::Unknown;
        };
        let mark = self.window.as_ref().map(|window| (window, window.mark(id, kind, record.bytes())));
        if let Some((window, mark)) = mark
            && window.knows(mark)
        {
            return Sight::Duplicate;
        }
        if let Some(pairs) = &self.pairs {
            pairs.see(source, (id, kind, text(self.identity.path).unwrap_or("")), now());
        }
        mark.map_or(Sight::Unknown, |(_, mark)| Sight::New(mark))
    }

    /// Counts what has become due meanwhile. To be called now and then.
    pub fn sweep(&self, now: Instant) {
        if let Some(pairs) = &self.pairs {
            pairs.sweep(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::metrics;
    use crate::record::{DecodeScratch, Decoder};

    const CAPTURED: &str = include_str!("../../tests/data/records/openbao-2.7.2.jsonl");
    const WAIT: Duration = Duration::from_secs(120);

    fn evidence(config: &Config, registry: &Registry, start: Instant) -> (Evidence, Decoder) {
        let mut plan = FieldPlan::new();
        let identity = Identity::wanted(config, &mut plan);
        let evidence =
            Evidence::new(identity, config, None, registry, start).expect("something is asked for");
        (evidence, plan.build())
    }

    fn sights(evidence: &Evidence, decoder: &Decoder, lines: &[&str], at: Instant) -> Vec<Sight> {
        let mut scratch = DecodeScratch::default();
        let mut see = |line: &&str| {
            let record = decoder.decode(line.as_bytes(), &mut scratch).expect("a record");
            evidence.see(Source::Http, &record, || at)
        };
        lines.iter().map(&mut see).collect()
    }

    #[test]
    fn entries_of_a_real_openbao_are_paired_but_for_those_that_the_cut_has_torn_apart() {
        let lines: Vec<&str> = CAPTURED.lines().collect();
        let mut halves: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for line in &lines {
            let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let number = match entry["type"].as_str() {
                Some("request") => 0,
                Some("response") => 1,
                _ => continue,
            };
            if let Some(id) = entry["request"]["id"].as_str()
                && entry["request"]["path"] != "sys/audit/test"
            {
                halves.entry(id.to_owned()).or_default()[number] += 1;
            }
        }
        let missing = |number: usize| halves.values().filter(|halves| halves[number] == 0).count() as u64;
        assert!(halves.len() > 150 && missing(0) > 0 && missing(1) > 0, "{halves:?}");
        // In any order, and each of them twice.
        let backwards: Vec<&str> = lines.iter().rev().copied().collect();
        for order in [&lines, &backwards, &[lines.clone(), lines.clone()].concat()] {
            let (registry, start) = (Registry::new(), clock::now());
            let config = Config { pairs_window: 1000, pairs_wait: WAIT, ..Config::default() };
            let (evidence, decoder) = evidence(&config, &registry, start);
            let at = start + WAIT;
            assert!(sights(&evidence, &decoder, order, at).iter().all(|sight| *sight == Sight::Unknown));
            let unpaired = |missing| registry.counter(&metrics::UNPAIRED, &["http", missing]).get();
            evidence.sweep(at + WAIT - Duration::from_secs(1));
            assert_eq!((unpaired("request"), unpaired("response")), (0, 0));
            evidence.sweep(at + WAIT);
            assert_eq!((unpaired("request"), unpaired("response")), (missing(0), missing(1)));
            assert_eq!(registry.counter(&metrics::PAIRS_FORGOTTEN, &[]).get(), 0);
        }
    }

    #[test]
    fn a_record_without_id_or_type_is_never_taken_for_another() {
        let (registry, start) = (Registry::new(), clock::now());
        let config = Config { dedupe_window: 10, ..Config::default() };
        let (evidence, decoder) = evidence(&config, &registry, start);
        let window = evidence.window.clone().expect("a window");
        let whole = r#"{"type":"request","request":{"id":"a"}}"#;
        for line in [
            whole,
            r#"{"type":"kmip-request"}"#,
            r#"{"type":"request","request":{"id":""}}"#,
            r#"{"type":"request","request":{"id":7}}"#,
            r#"{"type":null,"request":{"id":"a"}}"#,
            r#"{"request":{"id":"a"}}"#,
            r#"{"type":"request","request":null}"#,
        ] {
            for _ in 0..2 {
                match sights(&evidence, &decoder, &[line], start)[..] {
                    [Sight::New(mark)] if line == whole => window.remember(std::iter::once(mark)),
                    [sight] => assert_eq!(sight == Sight::Duplicate, line == whole, "{line}: {sight:?}"),
                    _ => unreachable!("one line, one sight"),
                }
            }
        }
        // With whitespace around it, it is the same; in it, another one.
        let around = format!(" {whole}\r");
        let within = whole.replace(':', ": ");
        let sights = sights(&evidence, &decoder, &[&around, &within], start);
        assert!(matches!(sights[..], [Sight::Duplicate, Sight::New(_)]), "{sights:?}");
    }

    #[test]
    fn a_reload_keeps_what_has_the_same_settings_and_what_fits() {
        let (registry, now) = (Registry::new(), clock::now());
        let asked = |dedupe, pairs, wait_s| Config {
            dedupe_window: dedupe,
            pairs_window: pairs,
            pairs_wait: Duration::from_secs(wait_s),
            ..Config::default()
        };
        let first = asked(2, 3, 4);
        let (before, _) = evidence(&first, &registry, now);
        let next = |config: &Config| {
            let identity = Identity::wanted(config, &mut FieldPlan::new());
            Evidence::new(identity, config, Some(&before), &registry, now)
        };
        let window = before.window.clone().expect("a window");
        let mark = |n: &str| window.mark(n, "request", n.as_bytes());
        window.remember(["a", "b"].map(mark).into_iter());
        let same = next(&first).expect("something is asked for");
        assert!(Arc::ptr_eq(same.window.as_ref().expect("a window"), &window));
        assert!(Arc::ptr_eq(&same.pairs.expect("pairs"), before.pairs.as_ref().expect("pairs")));
        let other = next(&asked(1, 3, 5)).expect("something is asked for");
        let smaller = other.window.expect("a window");
        assert!(!smaller.knows(mark("a")) && smaller.knows(mark("b")));
        assert!(!Arc::ptr_eq(&other.pairs.expect("pairs"), before.pairs.as_ref().expect("pairs")));
        let only_pairs = next(&asked(0, 3, 4)).expect("something is asked for");
        assert!(only_pairs.window.is_none() && only_pairs.pairs.is_some());
        assert!(next(&asked(0, 0, 4)).is_none());
    }
}
