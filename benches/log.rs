//! What an append to a log file costs: a record of 1.5 KB, from 1, 2 and 4 threads at full speed.
//!
//! - `bare_write`: one `write` in append mode on a file of each thread's own: the floor that the kernel sets.
//! - `no_rotation`: [`LogFile::append`] into one file that is never full. The difference to the floor is ours (snapshot, room,
//!   `fstat`), plus, with several threads, the kernel's ordering of writes to one file.
//! - `rotation`: the same through `max_size: 1`, so a rotation every 700 records; also printed: how far files went beyond 1 MiB.
//! - `batch_of_16`: 16 records in one append, as an HTTP body with several lines makes it; the time is for one record.
//!
//! The figures are the wall time of one record over all threads: half of it with two threads means twice the records.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vault_audit_filter::config::{self, SyncPolicy};
use vault_audit_filter::log_file::{LogFile, LogFiles, LogKeeper};
use vault_audit_filter::metrics::Registry;
use vault_audit_filter::{clock, threads};

const RECORD_BYTES: usize = 1500;
const BATCH: usize = 16;

struct Bench {
    dir: PathBuf,
    file: Arc<LogFile>,
    keeper: Option<LogKeeper>,
}

impl Bench {
    fn new(name: &str, max_size: u64, max_backups: u32) -> Bench {
        let dir = std::env::temp_dir().join(format!("vaf-bench-log-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let config = config::LogFile {
            file_path: dir.join("audit.log"),
            max_size,
            max_backups,
            max_age: 0,
            compress: false,
            sync: SyncPolicy::Never,
        };
        let files = LogFiles::new();
        let file = files.open(&config, &Registry::new()).expect("open");
        let keeper = files.start_keeper().expect("keeper");
        Bench { dir, file, keeper: Some(keeper) }
    }

    fn largest(&self) -> u64 {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|e| Some(e.metadata().ok()?.len())).max().unwrap_or(0)
    }

    /// So that the disk does not fill up; the keeper finds out by itself.
    fn truncate(&self) {
        empty(&self.dir.join("audit.log"));
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.keeper.take();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn empty(path: &Path) {
    if let Ok(file) = OpenOptions::new().write(true).open(path) {
        let _ = file.set_len(0);
    }
}

/// Wall time in which `count` threads call `work` `iters` times together.
fn timed(count: usize, iters: u64, work: impl Fn(usize) + Send + Sync + 'static) -> Duration {
    let (work, barrier) = (Arc::new(work), Arc::new(Barrier::new(count + 1)));
    let running: Vec<_> = (0..count)
        .map(|number| {
            let (work, barrier) = (Arc::clone(&work), Arc::clone(&barrier));
            let share = iters / count as u64 + u64::from((number as u64) < iters % count as u64);
            threads::spawn("bench", move || {
                barrier.wait();
                for _ in 0..share {
                    work(number);
                }
            })
            .expect("thread")
        })
        .collect();
    barrier.wait();
    let start = clock::now();
    for thread in running {
        thread.join().expect("bench thread");
    }
    start.elapsed()
}

fn record() -> Vec<u8> {
    let mut record = b"{\"fill\":\"".to_vec();
    record.resize(RECORD_BYTES - 2, b'x');
    record.extend_from_slice(b"\"}");
    record
}

fn bare_write(c: &mut Criterion) {
    let mut group = c.benchmark_group("bare_write");
    group.throughput(Throughput::Bytes(RECORD_BYTES as u64 + 1));
    let dir = std::env::temp_dir().join(format!("vaf-bench-log-{}-bare", std::process::id()));
    fs::create_dir_all(&dir).expect("directory");
    for count in [1, 2, 4] {
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter_custom(|iters| {
                let files: Vec<File> = (0..count)
                    .map(|n| {
                        File::create(dir.join(n.to_string()))
                            .and(OpenOptions::new().append(true).open(dir.join(n.to_string())))
                    })
                    .collect::<Result<_, _>>()
                    .expect("files");
                let mut line = record();
                line.push(b'\n');
                timed(count, iters, move |n| {
                    assert_eq!((&files[n]).write(black_box(&line)).expect("write"), line.len());
                })
            });
        });
    }
    group.finish();
    let _ = fs::remove_dir_all(&dir);
}

fn append(c: &mut Criterion) {
    for (name, max_size, max_backups) in [("no_rotation", 1 << 20, 0), ("rotation", 1, 2)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(RECORD_BYTES as u64 + 1));
        for count in [1, 2, 4] {
            let bench = Bench::new(name, max_size, max_backups);
            let mut largest = 0;
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter_custom(|iters| {
                    let (file, record) = (Arc::clone(&bench.file), record());
                    let took =
                        timed(count, iters, move |_| file.append(&[black_box(&record)]).expect("append"));
                    largest = largest.max(bench.largest());
                    if max_backups == 0 {
                        bench.truncate();
                    }
                    took
                });
            });
            if max_backups > 0 {
                eprintln!(
                    "{name}/{count}: the largest of the files seen had {:.2} MiB",
                    largest as f64 / f64::from(1 << 20)
                );
            }
        }
        group.finish();
    }
}

fn batch(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch_of_16");
    group.throughput(Throughput::Bytes(RECORD_BYTES as u64 + 1));
    let bench = Bench::new("batch", 1 << 20, 0);
    group.bench_function(BenchmarkId::from_parameter(1), |b| {
        b.iter_custom(|iters| {
            let (file, record) = (Arc::clone(&bench.file), record());
            let appends = iters.div_ceil(BATCH as u64);
            let took = timed(1, appends, move |_| file.append(&[record.as_slice(); BATCH]).expect("append"));
            bench.truncate();
            took.mul_f64(iters as f64 / (appends * BATCH as u64) as f64)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = bare_write, append, batch
}
criterion_main!(benches);
