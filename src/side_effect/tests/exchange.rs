//! Sinks while the configuration changes.

use super::*;

fn named(group: &str, sink: &Arc<TestSink>, settings: u32) -> SinkSpec {
    let settings = SinkSettings::Test(settings);
    SinkSpec { group: group.into(), settings, ..spec(Arc::clone(sink)) }
}

#[test]
fn an_unchanged_sink_is_the_same_one_and_a_changed_one_finishes_beside_the_new_one() {
    let [stays, new]: [Arc<TestSink>; 2] = Default::default();
    let (old, permits) = TestSink::gated();
    let settings = settings();
    let (mut effects, registry) = start(&settings, vec![named("a", &stays, 1), named("b", &old, 1)]);
    let before = effects.queues().to_vec();
    (0..3).for_each(|n| assert_eq!(submit(&before[1], task_of(n)), Submitted::Queued));
    let next = effects
        .prepare(&settings, vec![named("b", &new, 2), named("a", &stays, 1)], &registry)
        .expect("threads");
    assert_eq!(next.new_names(), ["b/test"]);
    let queue = next.queues_of("b").remove(0);
    let retired = effects.exchange(next);
    assert_eq!(retired.names(), ["b/test"]);
    assert!(Arc::ptr_eq(&effects.queues()[1], &before[0]), "in another place, and the same");
    // Between the exchange and the retirement both take tasks.
    assert_eq!(submit(&before[1], task_of(3)), Submitted::Queued);
    assert_eq!(submit(&queue, task_of(4)), Submitted::Queued);
    effects.retire(retired, soon(), &registry);
    assert_eq!(before[1].submit(task_of(5), &mut no_ticket), Submitted::Dropped(DropReason::Reload));
    assert!(effects.tend(clock::now(), &registry), "it has something to do");
    (0..4).for_each(|_| permits.send(()).expect("room"));
    eventually("the old one has finished", || !effects.tend(clock::now(), &registry));
    eventually("the new one has, too", || new.attempts().len() == 1);
    assert_eq!((old.attempts().len(), stays.attempts().len()), (4, 0));
    let text = registry.render();
    assert_eq!(text.matches("queue_length{sink=\"b/test\"}").count(), 1, "{text}");
    // Removed: its gauges go, its counters stay.
    let none = effects.prepare(&settings, vec![named("a", &stays, 1)], &registry).expect("no threads");
    let retired = effects.exchange(none);
    effects.retire(retired, soon(), &registry);
    eventually("it has gone", || !effects.tend(clock::now(), &registry));
    let text = registry.render();
    assert!(
        !text.contains("sink_up{sink=\"b/test\"}") && text.contains("sink_up{sink=\"a/test\"} 1"),
        "{text}"
    );
    assert!(text.contains("tasks_total{sink=\"b/test\",outcome=\"delivered\"} 5"), "{text}");
    assert_eq!(effects.drain(soon()), Drained::default());
}

#[test]
fn too_many_that_hang_are_cut_off_one_after_the_other() {
    let settings = settings();
    let (sinks, permits): (Vec<Arc<TestSink>>, Vec<Sender<()>>) = (0..20).map(|_| TestSink::gated()).unzip();
    let (mut effects, registry) = start(&settings, vec![named("a", &sinks[0], 0)]);
    for (n, sink) in (1u32..).zip(&sinks[1..]) {
        assert_eq!(submit(&effects.queues()[0], task_of(n as usize)), Submitted::Queued);
        let next = effects.prepare(&settings, vec![named("a", sink, n)], &registry).expect("threads");
        let retired = effects.exchange(next);
        effects.retire(retired, soon(), &registry);
    }
    eventually("those that are too many are left behind", || {
        effects.tend(clock::now(), &registry);
        effects.retired.len() <= 16
    });
    drop(permits);
    eventually("the others finish", || !effects.tend(clock::now(), &registry));
    effects.drain(soon());
}

#[test]
fn what_was_prepared_can_be_abandoned() {
    let [sink, other]: [Arc<TestSink>; 2] = Default::default();
    let ledger = Arc::new(MemoryLedger::default());
    let settings = settings();
    let (mut effects, registry) = start_with(&settings, vec![named("a", &sink, 1)], Some(&ledger));
    let next = effects.prepare(&settings, vec![named("a", &other, 2), named("b", &other, 1)], &registry);
    effects.abandon(next.expect("threads"), &registry);
    assert_eq!(ledger.kept_only(), ["a/test"]);
    ledger.put(0, task_of(1));
    eventually("it is delivered by the one that runs", || sink.attempts().len() == 1);
    eventually("the others have gone", || !effects.tend(clock::now(), &registry));
    assert!(other.attempts().is_empty());
    effects.drain(soon());
    ledger.assert_sound();
}
