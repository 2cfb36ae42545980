//! Senders that have fallen silent: what has sent records and sends none any more. A quiet cluster sends nothing, so silence is told and shown,
//! and makes nobody unready.
//!
//! Costs the request path nothing but for named sources, where it is a look at an immutable list and an addition: the supervisor's thread
//! looks about once a second which counters have moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::listener::Source;
use crate::metrics::{self, Family, Registry};

/// Sources (`POST /v1/audit/<source>`) that are watched at most; further ones are part of their listener only.
pub const SOURCES_MAX: usize = 64;
/// Longest name of a source that is watched.
pub const SOURCE_NAME_BYTES_MAX: usize = 64;

/// Who may fall silent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Listener(Source),
    Source(Arc<str>),
}

impl Who {
    fn series(&self) -> (&'static Family, &str) {
        match self {
            Who::Listener(source) => (&metrics::LISTENER_SILENT, source.label()),
            Who::Source(name) => (&metrics::SOURCE_SILENT, name),
        }
    }

    /// As in "nothing has come ...".
    fn place(&self) -> String {
        match self {
            Who::Listener(source) => format!("over {}", source.label()),
            Who::Source(name) => format!("from source {name}"),
        }
    }
}

/// What is known of one of them.
#[derive(Debug)]
struct Sender {
    who: Who,
    records: u64,
    /// When a record was last seen to have come; `None`: never.
    heard_at: Option<Instant>,
    /// For how long it was silent when it was last looked at, if that is alarming.
    silent: Option<Duration>,
}

/// A change that is to be said.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Begun(Duration),
    /// After more than so long.
    Over(Duration),
}

/// The senders, by what their counters say. Knows no clock: the time is handed in.
#[derive(Debug)]
struct Senders {
    since: Instant,
    senders: Vec<Sender>,
}

impl Senders {
    /// Looks at all of them: their counts now, and after how long silence is alarming. One that has never been heard counts from the begin,
    /// but only while nobody has been heard: a listener that nobody uses is no sender.
    fn look(&mut self, counts: Vec<(Who, u64)>, alarm: Duration, now: Instant) -> Vec<(Who, Change)> {
        self.senders.retain(|sender| counts.iter().any(|(who, _)| *who == sender.who));
        for (who, records) in counts {
            match self.senders.iter_mut().find(|sender| sender.who == who) {
                Some(sender) if sender.records == records => {}
                Some(sender) => (sender.records, sender.heard_at) = (records, Some(now)),
                None => {
                    let heard_at = (records > 0).then_some(now);
                    self.senders.push(Sender { who, records, heard_at, silent: None });
                }
            }
        }
        let nobody = self.senders.iter().all(|sender| sender.heard_at.is_none());
        let mut changes = Vec::new();
        for sender in &mut self.senders {
            let counts = nobody || sender.heard_at.is_some();
            let silence = now.saturating_duration_since(sender.heard_at.unwrap_or(self.since));
            let silent = (counts && silence >= alarm).then_some(silence);
            match (sender.silent, silent) {
                (None, Some(silence)) => changes.push((sender.who.clone(), Change::Begun(silence))),
                (Some(silence), None) => changes.push((sender.who.clone(), Change::Over(silence))),
                _ => {}
            }
            sender.silent = silent;
        }
        changes
    }
}

/// A named source.
#[derive(Debug)]
struct Named {
    name: Arc<str>,
    requests: AtomicU64,
}

/// Watches for silence, as long as the configuration asks for it. One for each process.
#[derive(Debug)]
pub struct Silence {
    registry: Arc<Registry>,
    on: AtomicBool,
    named: ArcSwap<Vec<Arc<Named>>>,
    /// Held by whoever adds a name.
    adding: Mutex<()>,
    senders: Mutex<Option<Senders>>,
}

impl Silence {
    /// Off until it is told to look.
    pub fn new(registry: Arc<Registry>) -> Silence {
        Silence {
            registry,
            on: AtomicBool::new(false),
            named: ArcSwap::default(),
            adding: Mutex::new(()),
            senders: Mutex::new(None),
        }
    }

    /// A request has come whose path ends in that name, and whose sender may send. Names of letters, digits, `.`, `_` and `-` are watched,
    /// as long as they are few.
    pub fn heard_from(&self, name: &str) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let heard = |named: &[Arc<Named>]| {
            let found = named.iter().find(|named| *named.name == *name);
            found.map(|named| named.requests.fetch_add(1, Ordering::Relaxed)).is_some()
        };
        if heard(&self.named.load()) {
            return;
        }
        let in_names = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > SOURCE_NAME_BYTES_MAX || !name.bytes().all(in_names) {
            return;
        }
        let _adding = self.adding.lock();
        let named = self.named.load_full();
        if named.len() < SOURCES_MAX && !heard(&named) {
            let new = Arc::new(Named { name: name.into(), requests: AtomicU64::new(1) });
            self.named.store(Arc::new(named.iter().cloned().chain([new]).collect()));
        }
    }

    /// Looks who is silent, and gives the lines that are due. `listeners` are those that are open; `alarm` of zero is off.
    pub fn look(&self, listeners: &[Source], alarm: Duration, now: Instant) -> Vec<(log::Level, String)> {
        let is_on = !alarm.is_zero();
        self.on.store(is_on, Ordering::Relaxed);
        let mut senders = self.senders.lock();
        if !is_on {
            for sender in senders.take().into_iter().flat_map(|senders| senders.senders) {
                let (family, label) = sender.who.series();
                self.registry.remove(family, &[label]);
            }
            return Vec::new();
        }
        let named = self.named.load_full();
        let received = |source: &Source| {
            let count = |family| self.registry.counter(family, &[source.label()]).get();
            // What an operator has replayed is counted with the records of the HTTP listener.
            let replayed = match source {
                Source::Http => self.registry.counter(&metrics::RECORDS_REPLAYED, &[]).get(),
                _ => 0,
            };
            (Who::Listener(*source), count(&metrics::RECORDS_RECEIVED).saturating_sub(replayed))
        };
        let of_source = |named: &Arc<Named>| {
            (Who::Source(Arc::clone(&named.name)), named.requests.load(Ordering::Relaxed))
        };
        let counts = listeners.iter().map(received).chain(named.iter().map(of_source)).collect();
        let senders = senders.get_or_insert_with(|| Senders { since: now, senders: Vec::new() });
        let changes = senders.look(counts, alarm, now);
        for sender in &senders.senders {
            let (family, label) = sender.who.series();
            let seconds = sender.silent.map_or(0, |silence| silence.as_secs().max(1));
            self.registry.gauge(family, &[label]).set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
        changes.into_iter().map(|(who, change)| line(&who, &change)).collect()
    }

    /// Who is silent now, in a few words each; `None`: nobody looks.
    pub fn silent(&self) -> Option<Vec<String>> {
        let senders = self.senders.lock();
        let silent = senders.as_ref()?.senders.iter().filter_map(|sender| {
            Some(format!("nothing {} for {} s", sender.who.place(), sender.silent?.as_secs()))
        });
        Some(silent.collect())
    }

    /// For how long a listener is silent, if that is alarming.
    pub fn silence_of(&self, source: Source) -> Option<Duration> {
        let senders = self.senders.lock();
        let is = |sender: &&Sender| sender.who == Who::Listener(source);
        senders.as_ref()?.senders.iter().find(is)?.silent
    }

    /// The named sources: requests, and for how long each is silent, if that is alarming.
    pub fn sources(&self) -> Vec<(String, u64, Option<Duration>)> {
        let senders = self.senders.lock();
        let of_sources = senders.iter().flat_map(|senders| &senders.senders).filter_map(|sender| {
            let Who::Source(name) = &sender.who else { return None };
            Some((name.to_string(), sender.records, sender.silent))
        });
        of_sources.collect()
    }
}

fn line(who: &Who, change: &Change) -> (log::Level, String) {
    match change {
        Change::Begun(silence) => (
            log::Level::Warn,
            format!(
                "silence: nothing has come {} for {} s; is the audit device still enabled there, and does it reach this host?",
                who.place(),
                silence.as_secs()
            ),
        ),
        Change::Over(silence) => (
            log::Level::Info,
            format!("silence: records come {} again, after more than {} s", who.place(), silence.as_secs()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const ALARM: Duration = Duration::from_secs(10);

    struct Scene {
        registry: Arc<Registry>,
        silence: Silence,
        start: Instant,
    }

    impl Scene {
        fn new() -> Scene {
            let registry = Arc::new(Registry::new());
            Scene { silence: Silence::new(Arc::clone(&registry)), registry, start: clock::now() }
        }

        fn receive(&self, source: Source) {
            self.registry.counter(&metrics::RECORDS_RECEIVED, &[source.label()]).inc();
        }

        /// The lines that are due after so many seconds, each with its first letter for the level.
        fn look(&self, at_s: u64) -> Vec<String> {
            let now = self.start + Duration::from_secs(at_s);
            let lines = self.silence.look(&[Source::Http, Source::Tcp], ALARM, now);
            lines.into_iter().map(|(level, line)| format!("{level} {line}")).collect()
        }

        fn seconds(&self, source: Source) -> i64 {
            self.registry.gauge(&metrics::LISTENER_SILENT, &[source.label()]).get()
        }
    }

    #[test]
    fn silence_is_said_once_and_its_end_too() {
        let scene = Scene::new();
        assert!(scene.look(0).is_empty());
        scene.receive(Source::Tcp);
        assert!(scene.look(1).is_empty() && scene.look(10).is_empty());
        assert_eq!((scene.silence.silent(), scene.seconds(Source::Tcp)), (Some(Vec::new()), 0));
        let said = scene.look(11);
        assert!(said.len() == 1 && said[0].starts_with("WARN silence: nothing has come over tcp for 10 s"));
        assert!(scene.look(12).is_empty(), "once");
        assert_eq!(scene.silence.silent(), Some(vec!["nothing over tcp for 11 s".to_owned()]));
        assert_eq!((scene.seconds(Source::Tcp), scene.seconds(Source::Http)), (11, 0));
        assert_eq!(scene.silence.silence_of(Source::Tcp), Some(Duration::from_secs(11)));
        scene.receive(Source::Tcp);
        assert_eq!(scene.look(13), ["INFO silence: records come over tcp again, after more than 11 s"]);
        assert_eq!((scene.seconds(Source::Tcp), scene.silence.silence_of(Source::Tcp)), (0, None));
        assert!(scene.look(22).is_empty());
        assert_eq!(scene.look(23).len(), 1);
    }

    #[test]
    fn a_listener_that_nobody_uses_is_no_sender_unless_there_is_none() {
        let scene = Scene::new();
        assert!(scene.look(0).is_empty());
        assert_eq!(scene.look(10).len(), 2, "nothing at all since the start");
        scene.receive(Source::Http);
        let said = scene.look(11);
        assert!(said.len() == 2 && said.iter().all(|line| line.starts_with("INFO")), "{said:?}");
        scene.receive(Source::Http);
        assert!(scene.look(20).is_empty());
        assert_eq!(scene.look(30).len(), 1, "HTTP alone");
    }

    #[test]
    fn a_replay_is_no_sign_of_life() {
        let scene = Scene::new();
        scene.receive(Source::Http);
        assert!(scene.look(0).is_empty());
        scene.receive(Source::Http);
        scene.registry.counter(&metrics::RECORDS_REPLAYED, &[]).inc();
        assert_eq!(scene.look(10).len(), 1);
    }

    #[test]
    fn sources_are_told_apart_as_long_as_they_are_few() {
        let scene = Scene::new();
        scene.silence.heard_from("early");
        scene.look(0);
        for name in ["bao-1", "bao-2", "bao-1", "", "a/b", "a\u{1b}b", &"x".repeat(65)] {
            scene.silence.heard_from(name);
        }
        scene.receive(Source::Http);
        assert!(scene.look(1).is_empty());
        let sources = |silent| vec![("bao-1".to_owned(), 2, None), ("bao-2".to_owned(), 1, silent)];
        assert_eq!(scene.silence.sources(), sources(None), "it was off when the early one came");
        scene.silence.heard_from("bao-1");
        scene.receive(Source::Http);
        assert!(scene.look(9).is_empty());
        let said = scene.look(11);
        assert!(
            said.len() == 1 && said[0].contains("nothing has come from source bao-2 for 10 s"),
            "{said:?}"
        );
        assert_eq!(scene.silence.silent(), Some(vec!["nothing from source bao-2 for 10 s".to_owned()]));
        assert_eq!(scene.registry.gauge(&metrics::SOURCE_SILENT, &["bao-2"]).get(), 10);
        for n in 0..1000 {
            scene.silence.heard_from(&format!("many-{n}"));
        }
        scene.look(12);
        assert_eq!(scene.silence.sources().len(), SOURCES_MAX);
    }

    #[test]
    fn off_it_says_and_shows_nothing() {
        let scene = Scene::new();
        scene.receive(Source::Tcp);
        scene.look(0);
        assert_eq!(scene.look(10).len(), 1);
        assert!(scene.registry.render().contains("listener_silent_seconds{listener=\"tcp\"} 10"));
        assert!(scene.silence.look(&[Source::Tcp], Duration::ZERO, scene.start).is_empty());
        assert_eq!((scene.silence.silent(), scene.silence.silence_of(Source::Tcp)), (None, None));
        assert!(!scene.registry.render().contains("silent_seconds"));
    }
}
