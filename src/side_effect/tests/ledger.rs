//! With a ledger: what workers take, in which order, and what the ledger is told.

use super::*;

fn durable(workers: usize, queue_size: usize) -> config::SideEffects {
    let mut settings = config::SideEffects { workers, queue_size, ..settings() };
    settings.durable.enabled = true;
    settings
}

/// A task with a small number as its id, never too old.
fn numbered(n: u128) -> Task {
    Task { id: TaskId::from_bits(n), ..fresh_task() }
}

/// As the pipeline does it.
fn accept(ledger: &MemoryLedger, queue: &SinkQueue, tasks: impl IntoIterator<Item = Task>) {
    let tasks: Vec<(SinkNumber, Task)> = tasks.into_iter().map(|task| queue.to_store(task)).collect();
    ledger.accept(&tasks, Box::new(|result| result.expect("accepted")));
    ledger.commit();
}

#[test]
fn every_attempt_is_reserved_before_it_is_made_and_every_end_is_told() {
    let ledger = Arc::new(MemoryLedger::default());
    ledger.fail_reserves(2);
    let sink =
        TestSink::doing(vec![Act::Fail(Class::Transient), Act::Take, Act::Fail(Class::Permanent)], Act::Take);
    let (effects, _) = start_with(&durable(1, 1), vec![spec(Arc::clone(&sink))], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    accept(&ledger, &queue, [numbered(1)]);
    eventually("delivered", || queue.counts().delivered == 1);
    ledger.put(0, Task { attempts_made: 5, attempts_max: Some(9), ..numbered(2) });
    eventually("failed", || queue.counts().failed == 1);
    effects.drain(soon());
    accept(&ledger, &queue, [numbered(3)]);
    assert_eq!(
        ledger.log(),
        [
            "0 1 reserve 1",
            "0 1 failed 1 scripted",
            "0 1 reserve 2",
            "0 1 delivered",
            "0 2 reserve 6",
            "0 2 given up 6 permanent: scripted",
        ]
    );
    assert_eq!(sink.attempts().len(), 3, "nothing was sent without a reservation");
    assert_eq!(ledger.open_tasks(0).len(), 1, "what came after the drain stays");
    ledger.assert_sound();
}

#[test]
fn a_backlog_goes_out_in_order_beside_what_comes_and_memory_holds_a_queue_of_it() {
    let ledger = Arc::new(MemoryLedger::default());
    (0..1000).for_each(|n| ledger.put(0, numbered(n)));
    let (sink, permits) = TestSink::gated();
    let (effects, registry) = start_with(&durable(1, 10), vec![spec(Arc::clone(&sink))], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    sink.wait_for_attempts(1);
    eventually("read ahead", || queue.counts().queued > 0);
    let counts = queue.counts();
    assert!(counts.add_up() && counts.queued <= 10 && counts.in_flight == 1, "{counts:?}");
    let stored = 1000 - counts.queued - 1;
    assert!(line(&registry, &format!("tasks_stored{{sink=\"g/test\"}} {stored}")));
    accept(&ledger, &queue, (1000..1200).map(numbered));
    for n in 0..1200_u64 {
        permits.send(()).expect("room");
        if n % 100 == 99 {
            eventually("a hundred more", || queue.counts().delivered > n);
            assert!(queue.counts().queued <= 10, "{:?}", queue.counts());
        }
    }
    assert_eq!(sink.attempts(), (0..1200).map(TaskId::from_bits).collect::<Vec<_>>());
    assert_eq!(effects.drain(soon()), Drained::default());
    assert_ends(&queue, 1200, 1200, 0, 0);
    ledger.assert_sound();
}

#[test]
fn several_workers_and_sinks_deliver_each_task_once() {
    let ledger = Arc::new(MemoryLedger::default());
    let sinks = [TestSink::doing(vec![], Act::Take), TestSink::doing(vec![], Act::Take)];
    let of_group =
        |group: &str, sink: &Arc<TestSink>| SinkSpec { group: group.into(), ..spec(Arc::clone(sink)) };
    let specs = vec![of_group("g", &sinks[0]), of_group("h", &sinks[1])];
    let (effects, _) = start_with(&durable(4, 3), specs, Some(&ledger));
    let queues: Vec<_> = effects.queues().to_vec();
    std::thread::scope(|scope| {
        for part in 0..4_u128 {
            let (ledger, queues) = (&ledger, &queues);
            scope.spawn(move || {
                for n in 0..100 {
                    let number = part * 1000 + n * 2;
                    let tasks =
                        [queues[0].to_store(numbered(number)), queues[1].to_store(numbered(number + 1))];
                    ledger.accept(&tasks, Box::new(|result| result.expect("accepted")));
                    ledger.commit();
                }
            });
        }
    });
    for queue in &queues {
        eventually("all are delivered", || queue.counts().delivered == 400);
    }
    effects.drain(soon());
    for sink in &sinks {
        let ids: std::collections::HashSet<TaskId> = sink.attempts().into_iter().collect();
        assert_eq!((ids.len(), sink.attempts().len()), (400, 400));
    }
    ledger.assert_sound();
}

#[test]
fn an_outage_costs_the_probes_attempts_and_nobody_dies() {
    let ledger = Arc::new(MemoryLedger::default());
    let sink = TestSink::doing(vec![], Act::Fail(Class::Transient));
    let (effects, _) = start_with(&durable(2, 5), vec![spec(Arc::clone(&sink))], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    accept(&ledger, &queue, (0..50).map(numbered));
    sink.wait_for_attempts(30);
    assert!(queue.counts().add_up());
    sink.always(Act::Take);
    eventually("all are delivered", || queue.counts().delivered == 50);
    effects.drain(soon());
    assert_ends(&queue, 50, 50, 0, 0);
    ledger.assert_sound();
}

#[test]
fn a_poisoned_task_holds_nobody_back_and_ends_at_its_limit() {
    let ledger = Arc::new(MemoryLedger::default());
    let sink = TestSink::doing(vec![], Act::Take);
    sink.script.lock().poison = Some(TaskId::from_bits(0));
    let settings = config::SideEffects { max_attempts: Some(4), ..durable(2, 5) };
    let (effects, _) = start_with(&settings, vec![spec(Arc::clone(&sink))], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    accept(&ledger, &queue, (0..50).map(numbered));
    eventually("the others are delivered", || queue.counts().delivered == 49);
    eventually("it is given up", || queue.counts().failed == 1);
    effects.drain(soon());
    assert_ends(&queue, 50, 49, 0, 1);
    assert_eq!(sink.attempts().iter().filter(|id| id.bits() == 0).count(), 4);
    assert!(ledger.log().contains(&"0 0 given up 4 exhausted: scripted".to_owned()));
    ledger.assert_sound();
}

#[test]
fn a_task_that_can_never_be_reserved_is_given_up_or_forgotten_and_the_others_go_on() {
    let ledger = Arc::new(MemoryLedger::default());
    ledger.never_reserve(TaskId::from_bits(3), std::io::ErrorKind::InvalidInput);
    ledger.never_reserve(TaskId::from_bits(5), std::io::ErrorKind::NotFound);
    let sink = TestSink::doing(vec![], Act::Take);
    let (effects, _) = start_with(&durable(1, 5), vec![spec(Arc::clone(&sink))], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    accept(&ledger, &queue, (0..10).map(numbered));
    eventually("the others are delivered", || queue.counts().delivered == 8);
    let counts = queue.counts();
    assert_eq!((counts.failed, counts.kept, counts.in_flight), (1, 1, 0));
    assert!(counts.add_up(), "{counts:?}");
    assert_eq!(
        effects.drain(soon()),
        Drained::default(),
        "what was given back before is no part of the drain"
    );
    assert!(ledger.log().iter().any(|line| line.starts_with("0 3 given up 0 exhausted: not sent")));
    ledger.assert_sound();
}

#[test]
fn any_number_of_poisoned_tasks_holds_nobody_back() {
    let ledger = Arc::new(MemoryLedger::default());
    let poisoned = 300;
    let sink = TestSink::doing(vec![Act::Fail(Class::Transient); poisoned], Act::Take);
    let settings = config::SideEffects { backoff: Duration::from_millis(1), ..durable(1, 5) };
    let settings = config::SideEffects { max_backoff: Duration::from_millis(2), ..settings };
    let (effects, _) = start_with(&settings, vec![spec(Arc::clone(&sink))], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    accept(&ledger, &queue, (0..400).map(numbered));
    eventually("all are delivered in the end", || queue.counts().delivered == 400);
    assert!(queue.counts().add_up());
    effects.drain(soon());
    ledger.assert_sound();
}

#[test]
fn limits_are_those_of_the_acceptance() {
    let sink = || vec![spec(TestSink::doing(vec![], Act::Take))];
    let (effects, _) = start_with(&durable(0, 5), sink(), Some(&Arc::default()));
    let (number, task) = effects.queues()[0].to_store(task_of(1000));
    let day = Duration::from_secs(24 * 3600);
    assert_eq!((number, task.attempts_max), (SinkNumber(0), None));
    assert_eq!(task.expires_at, Some(task.accepted_at + day));
    let settings =
        config::SideEffects { max_attempts: Some(7), max_age: Duration::from_secs(1), ..durable(0, 5) };
    let (effects, _) = start_with(&settings, sink(), Some(&Arc::default()));
    let (_, task) = effects.queues()[0].to_store(task_of(1000));
    assert_eq!(task.attempts_max, Some(7));
    assert_eq!(task.expires_at, Some(task.accepted_at + Duration::from_secs(1)));
    // A stored task without a limit has none, whatever the configuration says now; with one it keeps it.
    let ledger = Arc::new(MemoryLedger::default());
    ledger.put(0, numbered(1));
    ledger.put(0, Task { attempts_max: Some(2), ..numbered(2) });
    let sink = TestSink::doing(vec![Act::Fail(Class::Transient); 20], Act::Take);
    let settings = config::SideEffects { max_attempts: Some(3), ..durable(1, 5) };
    let (effects, _) = start_with(&settings, vec![spec(sink)], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    eventually("both have ended", || queue.counts().delivered + queue.counts().failed == 2);
    effects.drain(soon());
    assert!(ledger.log().contains(&"0 2 given up 2 exhausted: scripted".to_owned()), "{:?}", ledger.log());
    assert!(ledger.log().contains(&"0 1 delivered".to_owned()));
    ledger.assert_sound();
}

#[test]
fn what_is_too_old_is_given_up_untried_also_while_the_sink_is_down() {
    let ledger = Arc::new(MemoryLedger::default());
    let past = Some(clock::wall() - Duration::from_secs(1));
    let soon_over = Some(clock::wall() + Duration::from_millis(300));
    ledger.put(0, Task { expires_at: past, attempts_made: 3, ..numbered(1) });
    ledger.put(0, Task { expires_at: past, ..numbered(2) });
    ledger.put(0, Task { expires_at: soon_over, ..numbered(3) });
    ledger.put(0, Task { expires_at: soon_over, ..numbered(4) });
    let sink = TestSink::doing(vec![], Act::Fail(Class::Blocked));
    let settings = durable(1, 1);
    let policy = Policy { blocked_probe: Duration::from_secs(3600), ..Policy::from_config(&settings) };
    let as_dyn: Arc<dyn Ledger> = Arc::clone(&ledger) as Arc<dyn Ledger>;
    let specs = vec![spec(Arc::clone(&sink))];
    let effects = SideEffects::start_with_policy(&settings, policy, specs, Some(&as_dyn), &Registry::new())
        .expect("threads");
    let queue = Arc::clone(&effects.queues()[0]);
    eventually("all are given up", || queue.counts().failed == 4);
    let log = ledger.log();
    let given_up = |n: u32, attempts: u32| {
        let line = format!("0 {n} given up {attempts} expired: older than async.retry.max_age allows");
        assert!(log.contains(&line), "{line} in {log:?}");
    };
    given_up(1, 3);
    given_up(2, 0);
    given_up(3, 1);
    given_up(4, 0);
    assert_eq!(sink.attempts(), [TaskId::from_bits(3)]);
    effects.drain(soon());
    assert_ends(&queue, 4, 0, 0, 4);
    ledger.assert_sound();
}

#[test]
fn without_workers_all_stays_where_it_is() {
    let ledger = Arc::new(MemoryLedger::default());
    let sink = TestSink::doing(vec![], Act::Take);
    let (effects, _) = start_with(&durable(0, 5), vec![spec(Arc::clone(&sink))], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    accept(&ledger, &queue, (0..50).map(numbered));
    assert_eq!(effects.drain(soon()), Drained::default());
    assert!(sink.attempts().is_empty());
    assert_eq!(ledger.open_tasks(0).len(), 50);
    ledger.assert_sound();
}

#[test]
fn a_drain_gives_back_what_it_cannot_send_at_once() {
    let ledger = Arc::new(MemoryLedger::default());
    let sink = TestSink::doing(vec![], Act::Fail(Class::Transient));
    let settings = config::SideEffects {
        backoff: Duration::from_secs(3600),
        max_backoff: Duration::from_secs(3600),
        ..durable(2, 5)
    };
    let (effects, _) = start_with(&settings, vec![spec(Arc::clone(&sink))], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    accept(&ledger, &queue, (0..50).map(numbered));
    eventually("down", || queue.counts().waiting_for_attempt > 0 && queue.counts().in_flight == 0);
    // Long before its time: nothing can be sent.
    let left = effects.drain(clock::now() + Duration::from_secs(3600));
    assert!(left.kept > 0 && left.dropped == 0 && left.unfinished == 0, "{left:?}");
    assert_eq!(ledger.open_tasks(0).len(), 50);
    let counts = queue.counts();
    assert!(counts.add_up() && counts.kept == left.kept, "{counts:?}");
    ledger.assert_sound();
}

#[test]
fn an_attempt_that_is_cut_off_counts_and_the_task_stays_pending() {
    let ledger = Arc::new(MemoryLedger::default());
    let (sink, permits) = TestSink::gated();
    let (effects, _) = start_with(&durable(1, 5), vec![spec(Arc::clone(&sink))], Some(&ledger));
    let queue = Arc::clone(&effects.queues()[0]);
    accept(&ledger, &queue, (0..3).map(numbered));
    sink.wait_for_attempts(1);
    let left = std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the abort", || sink.aborted.load(Ordering::SeqCst) > 0);
            drop(permits);
        });
        effects.drain(clock::now())
    });
    assert_eq!(left, Drained { kept: 3, ..Drained::default() });
    assert_eq!(ledger.log().iter().filter(|line| line.contains("reserve")).count(), 1);
    let open = ledger.open_tasks(0);
    assert_eq!(open.len(), 3);
    assert_eq!(ledger.take(SinkNumber(0)).expect("pending").attempts_made, 1);
    ledger.returned(SinkNumber(0), &open[0]);
    assert_eq!(queue.counts().kept, 3);
    ledger.assert_sound();
}
