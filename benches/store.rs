//! The journal's durable appends beside bare write + fdatasync of the same bytes on the same disk: `cargo bench --bench store`.
//!
//! Each iteration is 64 records of 1,500 bytes, appended by 1, 8 or 64 threads that each wait for theirs to be durable.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vault_audit_filter::store::disk::RealDisk;
use vault_audit_filter::store::journal::{Class, Entry, Event, Journal, Keeper, Options};
use vault_audit_filter::threads;

const RECORD_BYTES: usize = 1500;
const RECORDS: usize = 64;
/// The journal is trimmed to so many segments.
const SEGMENTS: u64 = 4;

struct Store {
    journal: Arc<Journal>,
    _keeper: Keeper,
}

impl Store {
    fn open(dir: &Path) -> Store {
        let disk = Arc::new(RealDisk::open(dir).expect("a directory"));
        let quiet = Arc::new(|_: &Event| {});
        let options = Options::new(1 << 30, 1, quiet);
        let (journal, _) = Journal::open(disk, options, &mut |_, _| ()).expect("a journal");
        let journal = Arc::new(journal);
        let keeper = Keeper::start(Arc::clone(&journal), "keeper").expect("a thread");
        Store { journal, _keeper: keeper }
    }
}

/// Appends `count` records one after another, each durable before the next.
fn append(journal: &Journal, count: usize, body: &[u8]) {
    let (told, answer) = mpsc::sync_channel(1);
    for _ in 0..count {
        let told = told.clone();
        let done = Box::new(move |result: Result<(), _>| {
            let _ = told.send(result.is_ok());
        });
        journal.append(Class::Accept, &[Entry { kind: 1, body }], done).expect("room");
        journal.commit();
        assert_eq!(answer.recv(), Ok(true));
    }
}

/// `threads` threads that share [`RECORDS`] appends per iteration.
fn appenders(journal: &Arc<Journal>, count: usize, iterations: u64) {
    let body = vec![b'r'; RECORD_BYTES];
    let workers: Vec<_> = (0..count)
        .map(|_| {
            let (journal, body) = (Arc::clone(journal), body.clone());
            threads::spawn("appender", move || {
                for _ in 0..iterations {
                    append(&journal, RECORDS / count, &body);
                    journal.trim(journal.segments().current.saturating_sub(SEGMENTS));
                }
            })
            .expect("a thread")
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
}

fn directory() -> PathBuf {
    let dir = PathBuf::from("target").join(format!("bench-store-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn store(c: &mut Criterion) {
    let dir = directory();
    let store = Store::open(&dir.join("journal"));
    let mut group = c.benchmark_group("store");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS as u64));

    let file: File =
        OpenOptions::new().write(true).create(true).truncate(true).open(dir.join("bare")).expect("a file");
    let size = 16 << 20;
    file.write_all_at(&vec![0; size], 0).expect("room");
    file.sync_all().expect("a sync");
    let body = vec![b'r'; RECORD_BYTES + 36];
    let mut at = 0;
    group.bench_function("write+fdatasync", |b| {
        b.iter(|| {
            for _ in 0..RECORDS {
                if at + body.len() > size {
                    at = 0;
                }
                file.write_all_at(&body, at as u64).expect("a write");
                file.sync_data().expect("a sync");
                at += body.len();
            }
        });
    });
    for threads in [1, 8, 64] {
        group.bench_function(format!("append+commit/{threads}"), |b| {
            b.iter_custom(|iterations| {
                let start = vault_audit_filter::clock::now();
                appenders(&store.journal, threads, iterations);
                start.elapsed()
            });
        });
    }
    group.finish();
    drop(store);
    let _ = std::fs::remove_dir_all(&dir);
}

criterion_group!(benches, store);
criterion_main!(benches);
