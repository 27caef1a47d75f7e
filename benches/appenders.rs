//! Sixteen clients that append at once to one datastore, whose checks have to wait for the disk: whether one of them is starved, and how
//! many threads it takes.
//!
//! `cargo bench --bench appenders`. Root for both cells; `BENCH_DIR` says where.

#[allow(dead_code, reason = "shared with other benchmarks, of which this needs a part")]
mod support;

#[path = "../tests/it/support/slowfs.rs"]
#[allow(dead_code, clippy::disallowed_methods, reason = "a tool of the tests, of which this needs a part")]
mod slowfs;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringvault::engine::{Class, DirFd, Engine, EngineConfig, StatBatch, StatName};
use slowfs::{Behaviour, SlowFs};
use support::drop_caches;

const CLIENTS: usize = 16;
const BATCH: usize = 128;
/// Batches of each client, one after another.
const ROUNDS: usize = 12;
const DIRS: usize = 1024;

fn main() {
    if !support::asked_for() {
        return;
    }
    let folder = support::folder();
    let (store, mount) = (folder.path().join("store"), folder.path().join("mount"));
    std::fs::create_dir(&mount).unwrap();
    make_chunks(&store);
    println!("{CLIENTS} clients at once, each {ROUNDS} batches of {BATCH}; ms\n");
    println!(
        "| store | batch, median | slowest | slowest / median | client, median of its batches: least–most | in flight, most | ring threads |"
    );
    println!("|---|---|---|---|---|---|---|");
    match drop_caches() {
        Ok(()) => run("cold", &store),
        Err(e) => println!("| cold | not measured: {e} | | | | | |"),
    }
    let behaviour = Behaviour { delay: Duration::from_millis(2), ..Behaviour::default() };
    match SlowFs::mount(&store, &mount, behaviour) {
        Ok(_mounted) => run("2 ms per request", &mount),
        Err(e) => println!("| 2 ms per request | not measured: {e} | | | | | |"),
    }
}

/// Empty files with the paths of chunks.
fn make_chunks(store: &Path) {
    for dir in 0..DIRS {
        std::fs::create_dir_all(store.join(format!("{dir:04x}"))).unwrap();
    }
    for i in 0..CLIENTS * ROUNDS * BATCH {
        std::fs::File::create_new(store.join(name(i))).unwrap();
    }
}

/// As a datastore has them: four digits of the digest, then all of it.
fn name(i: usize) -> String {
    let scattered = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:04x}/{scattered:016x}{scattered:016x}{scattered:016x}{scattered:016x}", i * 7 % DIRS)
}

fn run(cell: &str, root: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let engine = Engine::start("bench", &EngineConfig::default()).unwrap();
    let dir = Arc::new(DirFd::from(OwnedFd::from(std::fs::File::open(root).unwrap())));
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| runtime.spawn(append(engine.clone(), Arc::clone(&dir), client))).collect();
    let each: Vec<Vec<Duration>> = clients.into_iter().map(|client| runtime.block_on(client).unwrap()).collect();
    let mut all: Vec<Duration> = each.iter().flatten().copied().collect();
    all.sort_unstable();
    let (median, slowest) = (all[all.len() / 2], all[all.len() - 1]);
    let medians = each.iter().map(|client| client[client.len() / 2]);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "| {cell} | {:.1} | {:.1} | {:.1} | {:.1}–{:.1} | {} | {} |",
        ms(median),
        ms(slowest),
        slowest.as_secs_f64() / median.as_secs_f64(),
        ms(medians.clone().min().unwrap()),
        ms(medians.max().unwrap()),
        engine.counters().in_flight_max,
        ring_threads(),
    );
}

/// What each batch of a client took, sorted.
async fn append(engine: Engine, dir: Arc<DirFd>, client: usize) -> Vec<Duration> {
    let mut took = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let first = (round * CLIENTS + client) * BATCH;
        let names = (first..first + BATCH).map(|i| StatName::new(&name(i)).unwrap()).collect();
        let started = Instant::now();
        let batch =
            StatBatch { dir: Arc::clone(&dir), names, class: Class::Interactive, force_sync: false, stamps: false };
        let reply = engine.stat(batch).await.unwrap();
        took.push(started.elapsed());
        assert!(reply.results.iter().all(Result::is_ok));
    }
    took.sort_unstable();
    took
}

/// Threads of engines in this process; the kernel's workers are not among them.
fn ring_threads() -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap();
    let names = names.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| ["uring:bench", "threads:bench"].contains(&name.trim())).count()
}
