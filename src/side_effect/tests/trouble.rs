//! Failing sinks: retries, outages, poison, pauses, pacing, digests.

use super::*;

#[test]
fn a_transient_failure_is_tried_again_and_a_permanent_one_is_not() {
    let acts = vec![
        Act::Fail(Class::Transient),
        Act::Fail(Class::Transient),
        Act::Take,
        Act::Fail(Class::Permanent),
    ];
    let sink = TestSink::doing(acts, Act::Take);
    let (effects, registry) =
        start(&config::SideEffects { workers: 1, ..settings() }, vec![spec(Arc::clone(&sink))]);
    let queue = Arc::clone(&effects.queues()[0]);
    submit(&queue, fresh_task());
    eventually("delivered", || queue.counts().delivered == 1);
    submit(&queue, fresh_task());
    eventually("failed", || queue.counts().failed == 1);
    effects.drain(soon());
    assert_ends(&queue, 2, 1, 0, 1);
    let ids = sink.attempts();
    assert_eq!(ids.len(), 4);
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "one id over all attempts");
    assert!(line(&registry, "attempts_total{sink=\"g/test\",outcome=\"transient\"} 2"));
    assert!(line(&registry, "attempts_total{sink=\"g/test\",outcome=\"permanent\"} 1"));
    assert!(line(&registry, "sink_up{sink=\"g/test\"} 1"));
}

#[test]
fn attempts_are_bounded_by_the_sinks_limit_or_the_tasks_own() {
    let sink = TestSink::doing(vec![], Act::Fail(Class::Transient));
    let (effects, registry) = start(
        &config::SideEffects { workers: 1, max_attempts: Some(4), ..settings() },
        vec![spec(Arc::clone(&sink))],
    );
    let queue = Arc::clone(&effects.queues()[0]);
    submit(&queue, fresh_task());
    eventually("given up", || queue.counts().failed == 1);
    assert_eq!(sink.attempts().len(), 4);
    submit(&queue, Task { attempts_max: Some(2), ..fresh_task() });
    eventually("given up", || queue.counts().failed == 2);
    assert_eq!(sink.attempts().len(), 6);
    submit(&queue, Task { attempts_made: 3, ..fresh_task() });
    eventually("given up", || queue.counts().failed == 3);
    assert_eq!(sink.attempts().len(), 7);
    assert!(line(&registry, "sink_up{sink=\"g/test\"} 0"));
    effects.drain(soon());
    assert_ends(&queue, 3, 0, 0, 3);
}

/// An outage longer than any one task's attempts: probes take turns, nothing is lost.
#[test]
fn an_outage_costs_no_task() {
    let sink = TestSink::doing(vec![Act::Fail(Class::Transient); 12], Act::Take);
    let (effects, _) = start(
        &config::SideEffects { workers: 3, queue_size: 100, ..settings() },
        vec![spec(Arc::clone(&sink))],
    );
    let queue = Arc::clone(&effects.queues()[0]);
    (0..100).for_each(|_| assert_eq!(submit(&queue, fresh_task()), Submitted::Queued));
    assert_eq!(effects.drain(soon()), Drained::default());
    assert_ends(&queue, 100, 100, 0, 0);
    assert_eq!(sink.attempts().len(), 112);
}

#[test]
fn while_a_sink_is_down_only_one_at_a_time_probes_it() {
    let (sink, permits) = TestSink::gated();
    sink.always(Act::Fail(Class::Transient));
    let (effects, _) = start(
        &config::SideEffects { workers: 4, queue_size: 100, ..settings() },
        vec![spec(Arc::clone(&sink))],
    );
    let queue = Arc::clone(&effects.queues()[0]);
    (0..50).for_each(|_| assert_eq!(submit(&queue, fresh_task()), Submitted::Queued));
    sink.wait_for_attempts(4);
    (0..4).for_each(|_| permits.send(()).expect("room"));
    for probe in 5..12 {
        sink.wait_for_attempts(probe);
        eventually("one in flight", || {
            let in_flight = queue.counts().in_flight;
            // A probe may have taken the permit of one of the first four.
            if in_flight > 1 && permits.is_empty() {
                permits.send(()).expect("room");
            }
            in_flight == 1
        });
        assert!(queue.counts().waiting_for_attempt <= 4 + 16, "the deferred ones are bounded");
        permits.send(()).expect("room");
    }
    sink.always(Act::Take);
    (0..1000).for_each(|_| permits.send(()).expect("room"));
    effects.drain(soon());
    assert_ends(&queue, 50, 50, 0, 0);
}

#[test]
fn a_poisoned_task_does_not_hold_the_others_back() {
    let sink = TestSink::doing(vec![], Act::Take);
    let poison = fresh_task();
    sink.script.lock().poison = Some(poison.id);
    let settings =
        config::SideEffects { workers: 1, queue_size: 100, max_attempts: Some(1_000_000), ..settings() };
    let (effects, _) = start(&settings, vec![spec(Arc::clone(&sink))]);
    let queue = Arc::clone(&effects.queues()[0]);
    submit(&queue, poison);
    (0..50).for_each(|_| assert_eq!(submit(&queue, fresh_task()), Submitted::Queued));
    eventually("all others", || queue.counts().delivered == 50);
    let left = effects.drain(clock::now() + Duration::from_millis(20));
    assert_eq!(left.dropped, 1);
    assert_ends(&queue, 51, 50, 1, 0);
}

#[test]
fn a_blocked_sink_is_probed_and_keeps_its_queue() {
    let sink = TestSink::doing(vec![Act::Fail(Class::Blocked); 3], Act::Take);
    let (effects, registry) =
        start(&config::SideEffects { workers: 1, ..settings() }, vec![spec(Arc::clone(&sink))]);
    let queue = Arc::clone(&effects.queues()[0]);
    submit(&queue, fresh_task());
    sink.wait_for_attempts(1);
    eventually("marked", || line(&registry, "sink_up{sink=\"g/test\"} 0"));
    (0..5).for_each(|_| assert_eq!(submit(&queue, fresh_task()), Submitted::Queued));
    eventually("all delivered", || queue.counts().delivered == 6);
    assert!(line(&registry, "attempts_total{sink=\"g/test\",outcome=\"blocked\"} 3"));
    assert!(line(&registry, "sink_up{sink=\"g/test\"} 1"));
    effects.drain(soon());
    assert_ends(&queue, 6, 6, 0, 0);
}

#[test]
fn a_panic_costs_the_task_and_not_the_worker() {
    let sink = TestSink::doing(vec![Act::Panic], Act::Take);
    let (effects, _) = start(&config::SideEffects { workers: 1, ..settings() }, vec![spec(sink)]);
    let queue = Arc::clone(&effects.queues()[0]);
    (0..2).for_each(|_| assert_eq!(submit(&queue, fresh_task()), Submitted::Queued));
    effects.drain(soon());
    assert_ends(&queue, 2, 1, 0, 1);
}

#[test]
fn a_pause_holds_for_every_sink_of_the_destination() {
    let pause = Duration::from_secs(1);
    let one = TestSink::doing(vec![Act::FailFor(Class::Transient, pause)], Act::Take);
    let other = TestSink::doing(vec![], Act::Take);
    let elsewhere = TestSink::doing(vec![], Act::Take);
    let specs = vec![
        spec(Arc::clone(&one)),
        SinkSpec { group: "h".into(), ..spec(Arc::clone(&other)) },
        SinkSpec { group: "i".into(), destination: "e".into(), ..spec(Arc::clone(&elsewhere)) },
    ];
    let (effects, _) = start(&settings(), specs);
    let queues: Vec<_> = effects.queues().to_vec();
    submit(&queues[0], fresh_task());
    eventually("the pause", || queues[0].counts().waiting_for_attempt == 1);
    let paused_at = one.script.lock().attempts[0].1;
    (0..3).for_each(|_| assert_eq!(submit(&queues[1], fresh_task()), Submitted::Queued));
    (0..3).for_each(|_| assert_eq!(submit(&queues[2], fresh_task()), Submitted::Queued));
    elsewhere.wait_for_attempts(3);
    other.wait_for_attempts(3);
    one.wait_for_attempts(2);
    for sink in [&one, &other] {
        let after: Vec<Instant> =
            sink.script.lock().attempts.iter().map(|(_, at)| *at).filter(|at| *at > paused_at).collect();
        assert!(after.iter().all(|at| *at - paused_at >= pause), "{after:?}");
    }
    effects.drain(soon());
}

#[test]
fn pacing_lets_a_burst_out_and_then_holds_the_rate() {
    let sink = TestSink::doing(vec![], Act::Take);
    let rate = 100.0;
    let (effects, _) = start(
        &config::SideEffects { queue_size: 100, workers: 4, ..settings() },
        vec![SinkSpec { rate_per_s: rate, ..spec(Arc::clone(&sink)) }],
    );
    let queue = Arc::clone(&effects.queues()[0]);
    (0..40).for_each(|_| assert_eq!(submit(&queue, fresh_task()), Submitted::Queued));
    effects.drain(soon());
    let mut times: Vec<Instant> = sink.script.lock().attempts.iter().map(|(_, at)| *at).collect();
    times.sort();
    assert_eq!(times.len(), 40);
    // Never faster: the n-th after the burst has waited for its token.
    let (first, last) = (times[0], times[39]);
    assert!(last - first >= Duration::from_secs_f64(29.0 / rate), "{:?}", last - first);
}

#[test]
fn what_was_dropped_is_told_in_one_message() {
    let (sink, permits) = TestSink::gated();
    let digest = Some((Duration::from_millis(100), Some("/var/log/g.log".to_owned())));
    let settings = config::SideEffects { workers: 1, queue_size: 1, ..settings() };
    let (effects, _) = start(&settings, vec![SinkSpec { digest, ..spec(Arc::clone(&sink)) }]);
    let queue = Arc::clone(&effects.queues()[0]);
    submit(&queue, fresh_task());
    sink.wait_for_attempts(1);
    submit(&queue, fresh_task());
    (0..412)
        .for_each(|_| assert_eq!(submit(&queue, fresh_task()), Submitted::Dropped(DropReason::QueueFull)));
    (0..100).for_each(|_| permits.send(()).expect("room"));
    eventually("told", || !sink.script.lock().texts.is_empty());
    assert_eq!(sink.script.lock().texts, ["412 more records of group g in 1 s; see /var/log/g.log"]);
    effects.drain(soon());
    assert_eq!(sink.script.lock().texts.len(), 1);
    assert_ends(&queue, 414, 2, 412, 0);
}

#[test]
fn a_digest_that_fails_is_told_with_the_next_one_and_a_drain_tells_at_once() {
    let (sink, permits) = TestSink::gated();
    let digest = Some((Duration::from_secs(3600), None));
    let settings = config::SideEffects { workers: 1, queue_size: 1, ..settings() };
    let (effects, _) = start(&settings, vec![SinkSpec { digest, ..spec(Arc::clone(&sink)) }]);
    let queue = Arc::clone(&effects.queues()[0]);
    submit(&queue, fresh_task());
    sink.wait_for_attempts(1);
    submit(&queue, fresh_task());
    (0..3).for_each(|_| assert_eq!(submit(&queue, fresh_task()), Submitted::Dropped(DropReason::QueueFull)));
    // The two tasks are taken; the first try of the digest is not.
    sink.script.lock().acts = vec![Act::Take, Act::Fail(Class::Transient)].into();
    (0..100).for_each(|_| permits.send(()).expect("room"));
    effects.drain(soon());
    assert_eq!(sink.script.lock().texts, ["3 more records of group g in 1 s"]);
}

#[test]
fn a_digest_that_is_refused_is_not_told_again() {
    let (sink, permits) = TestSink::gated();
    let settings = config::SideEffects { workers: 1, queue_size: 1, ..settings() };
    let digest = Some((Duration::from_millis(1), None));
    let (effects, _) = start(&settings, vec![SinkSpec { digest, ..spec(Arc::clone(&sink)) }]);
    let queue = Arc::clone(&effects.queues()[0]);
    submit(&queue, fresh_task());
    sink.wait_for_attempts(1);
    submit(&queue, fresh_task());
    submit(&queue, fresh_task());
    sink.always(Act::Fail(Class::Permanent));
    (0..100).for_each(|_| permits.send(()).expect("room"));
    assert_eq!(effects.drain(soon()), Drained::default());
    assert!(sink.script.lock().texts.is_empty());
    // The first was under way before the sink turned.
    assert_ends(&queue, 3, 1, 1, 1);
}

#[test]
fn tasks_grow_too_old_where_age_is_the_limit() {
    let sink = TestSink::doing(vec![], Act::Fail(Class::Transient));
    let mut settings = config::SideEffects { workers: 1, max_age: Duration::from_millis(1), ..settings() };
    settings.durable.enabled = true;
    let (effects, _) = start(&settings, vec![spec(Arc::clone(&sink))]);
    let queue = Arc::clone(&effects.queues()[0]);
    submit(&queue, task_of(1));
    eventually("expired", || queue.counts().failed == 1);
    assert_eq!(sink.attempts().len(), 1);
    effects.drain(soon());
}
