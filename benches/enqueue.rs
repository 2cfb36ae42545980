//! What a matching record's side effect costs the thread that evaluated it: making the task and handing it to the sink's bounded queue, which
//! never blocks.
//!
//! - `enqueue/queued`: there is room in the queue.
//! - `enqueue/dropped`: the queue is full and the task is counted and dropped, as with a destination that has been away for long.
//!
//! The sink has no workers, so nothing is delivered and nothing else runs. Run: `cargo bench --bench enqueue`.
#![allow(missing_docs, reason = "a bench program")]

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use vault_audit_filter::clock;
use vault_audit_filter::config::{Config, ForwardProtocol, Forwarding, RuleGroup};
use vault_audit_filter::metrics::Registry;
use vault_audit_filter::side_effect::{SideEffects, SinkQueue, Submitted, Task};
use vault_audit_filter::sink::{self, HttpClient};
use vault_audit_filter::ticket::Ticket;

const QUEUE_SIZE: usize = 100_000;

/// Side effects with a queue of so many places that nobody empties.
fn side_effects(queue_size: usize) -> SideEffects {
    let forwarding = Forwarding { address: "127.0.0.1:9".to_owned(), protocol: ForwardProtocol::Udp };
    let group = RuleGroup {
        name: "bench".to_owned(),
        rules: Vec::new(),
        log_file: None,
        forwarding: Some(forwarding),
        messaging: None,
    };
    let specs = sink::build(&[group], &HttpClient::new()).expect("a sink");
    let settings =
        vault_audit_filter::config::SideEffects { queue_size, workers: 0, ..Config::default().side_effects };
    SideEffects::start(&settings, specs, None, &Registry::new()).expect("it starts")
}

fn submit(queue: &SinkQueue, group: &Arc<str>, record: &Arc<[u8]>) -> Submitted {
    let task = Task::new(Arc::clone(group), Arc::clone(record), "http", clock::wall());
    queue.submit(task, &mut || Ticket::new(|_| {}))
}

fn enqueue(c: &mut Criterion) {
    let (group, record): (Arc<str>, Arc<[u8]>) = ("bench".into(), vec![b'x'; 1500].into());
    c.bench_function("enqueue/queued", |b| {
        b.iter_custom(|tasks| {
            let (mut left, mut took) = (tasks, Duration::ZERO);
            while left > 0 {
                let side_effects = side_effects(QUEUE_SIZE);
                let queue = Arc::clone(&side_effects.queues()[0]);
                let some = left.min(QUEUE_SIZE as u64);
                let start = clock::now();
                for _ in 0..some {
                    assert!(matches!(submit(&queue, &group, &record), Submitted::Queued));
                }
                took += start.elapsed();
                left -= some;
                side_effects.drain(clock::now());
            }
            took
        });
    });
    let side_effects = side_effects(1);
    let queue = Arc::clone(&side_effects.queues()[0]);
    let _ = submit(&queue, &group, &record);
    c.bench_function("enqueue/dropped", |b| b.iter(|| submit(&queue, &group, &record)));
    side_effects.drain(clock::now());
}

criterion_group!(benches, enqueue);
criterion_main!(benches);
