//! The whole way: configuration, queues, workers, real servers; and what is said in diagnostics meanwhile.

use std::sync::Once;

use super::*;
use crate::config::MessageFormat;
use crate::sink::testing::{HttpServer, Reply};
use crate::sink::tests::{PATH, RECORD, TOKEN, group, kinds, task};
use crate::sink::{HttpClient, build};

/// Everything that is logged in this process.
static CAPTURED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("vault_audit_filter") {
            CAPTURED.lock().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

fn capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Another test of this binary may have set a logger of its own; then the lines are not seen here.
        if log::set_boxed_logger(Box::new(Capture)).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
    });
}

fn fast() -> config::SideEffects {
    config::SideEffects { timeout: Duration::from_millis(300), ..settings() }
}

#[test]
fn every_kind_survives_trouble_with_one_id_and_says_no_secret() {
    capture();
    let server = HttpServer::start(Reply::json(200, r#"{"ok":true}"#));
    for kind in kinds(&server) {
        let before = server.received().len();
        for reply in [Reply::Hang, Reply::text(503, TOKEN), Reply::text(401, PATH), Reply::text(400, RECORD)]
        {
            server.then(reply);
        }
        let specs = build(&[group(kind, MessageFormat::Text, "")], &HttpClient::new()).expect("a sink");
        let policy = Policy {
            blocked_probe: Duration::from_millis(5),
            ..Policy::from_config(&config::SideEffects { max_attempts: Some(9), ..fast() })
        };
        let effects = SideEffects::start_with_policy(
            &config::SideEffects { workers: 1, ..fast() },
            policy,
            specs,
            None,
            &Registry::new(),
        )
        .expect("threads");
        let queue = Arc::clone(&effects.queues()[0]);
        submit(&queue, task(RECORD));
        eventually("refused for good", || queue.counts().failed == 1);
        submit(&queue, task(RECORD));
        eventually("delivered", || queue.counts().delivered == 1);
        effects.drain(soon());
        let all = server.received().split_off(before);
        assert_eq!(all.len(), 5);
        if let Some(id) = all[0].header("idempotency-key") {
            assert!(all[..4].iter().all(|r| r.header("idempotency-key") == Some(id)));
            assert_ne!(all[4].header("idempotency-key"), Some(id));
        }
        if all[0].target.ends_with("/posts") {
            let id = |n: usize| all[n].json()["pending_post_id"].clone();
            assert!(id(0) == id(3) && id(3) != id(4));
        }
    }
    let said = CAPTURED.lock().join("\n");
    for secret in [TOKEN, PATH, "S3CR3T", "s3cr3t", "ldap-jane", "secret/data/app"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn outages_are_said_once() {
    capture();
    let server = HttpServer::start(Reply::text(404, "no_service"));
    let mut one = group(kinds(&server)[1].clone(), MessageFormat::Text, "");
    one.name = "said-once".into();
    let specs = build(&[one], &HttpClient::new()).expect("a sink");
    let policy = Policy {
        blocked_probe: Duration::from_millis(5),
        ..Policy::from_config(&config::SideEffects { max_attempts: Some(99), ..fast() })
    };
    let effects =
        SideEffects::start_with_policy(&fast(), policy, specs, None, &Registry::new()).expect("threads");
    let queue = Arc::clone(&effects.queues()[0]);
    (0..3).for_each(|_| assert_eq!(submit(&queue, task(RECORD)), Submitted::Queued));
    server.wait_for(8);
    server.always(Reply::text(200, "ok"));
    eventually("delivered", || queue.counts().delivered == 3);
    effects.drain(soon());
    let said: Vec<String> = CAPTURED.lock().iter().filter(|l| l.contains("said-once/")).cloned().collect();
    if !said.is_empty() {
        assert_eq!(said.iter().filter(|l| l.starts_with("ERROR")).count(), 1, "{said:?}");
        assert!(said[0].contains("no_service") && said[0].contains("until somebody acts"), "{said:?}");
        assert!(said.last().is_some_and(|l| l.contains("takes deliveries again")), "{said:?}");
    }
}

#[test]
fn a_429_pauses_everybody_who_posts_there() {
    let server = HttpServer::start(Reply::text(200, "ok"));
    server.then(Reply::Full(429, vec![("Retry-After", "1".into())], "rate_limited".into()));
    let mut groups = vec![group(kinds(&server)[1].clone(), MessageFormat::Text, ""); 2];
    groups[1].name = "other".into();
    let specs = build(&groups, &HttpClient::new()).expect("sinks");
    assert_eq!(specs[0].destination, specs[1].destination);
    let (effects, _) = start(&settings(), specs);
    let queues = effects.queues().to_vec();
    submit(&queues[0], task(RECORD));
    eventually("the pause", || queues[0].counts().waiting_for_attempt == 1);
    submit(&queues[1], task(RECORD));
    let left = effects.drain(soon());
    assert_eq!(left, Drained::default());
    let received = server.received();
    assert_eq!(received.len(), 3);
    for later in &received[1..] {
        let pause = later.at - received[0].at;
        assert!(pause >= Duration::from_secs(1), "posted within the pause, after {pause:?}");
    }
}

#[test]
fn a_hanging_destination_is_cut_off_at_the_end_of_a_drain() {
    let server = HttpServer::start(Reply::Hang);
    let specs = build(&[group(kinds(&server)[4].clone(), MessageFormat::Text, "")], &HttpClient::new())
        .expect("a sink");
    let (effects, _) = start(&config::SideEffects { timeout: PATIENCE, ..settings() }, specs);
    let queue = Arc::clone(&effects.queues()[0]);
    (0..10).for_each(|_| assert_eq!(submit(&queue, task(RECORD)), Submitted::Queued));
    server.wait_for(2);
    let started = clock::now();
    let left = effects.drain(started + Duration::from_millis(100));
    assert!(clock::now() - started < PATIENCE / 2);
    assert_eq!(left, Drained { dropped: 10, unfinished: 0, kept: 0 });
    assert_ends(&queue, 10, 0, 10, 0);
}
