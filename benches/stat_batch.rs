//! An append's check of 128 known chunks: a serial loop of the standard library against each engine, in one run, turn
//! by turn.
//!
//! `cargo bench --bench stat_batch`. Root for the cold and the slow cells; `BENCH_DIR` says where.

#[allow(dead_code, reason = "shared with other benchmarks, of which this needs a part")]
mod support;

#[path = "../tests/it/support/slowfs.rs"]
#[allow(dead_code, clippy::disallowed_methods, reason = "a tool of the tests, of which this needs a part")]
mod slowfs;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringvault::engine::{Class, DirFd, Engine, EngineChoice, EngineConfig, StatBatch, StatName};
use slowfs::{Behaviour, SlowFs};
use support::{Series, drop_caches, measure};

const BATCH: usize = 128;
const DIRS: usize = 1024;
const BATCHES: usize = 32;

/// Rounds before those that count: each engine finds out what the cache is like, and the kernel starts its workers.
const ROUNDS_BEFORE: usize = 3;

/// A store to be asked, and how.
struct Cell<'a> {
    name: &'static str,
    root: &'a Path,
    rounds: usize,
    before_each: fn(),
}

fn main() {
    if !support::asked_for() {
        return;
    }
    let folder = support::folder();
    let (store, mount) = (folder.path().join("store"), folder.path().join("mount"));
    std::fs::create_dir(&mount).unwrap();
    let batches = make_chunks(&store);
    let rivals = rivals();
    println!("batches of {BATCH}; µs per chunk: median (least–most)\n");
    println!("| store | engine | wall | CPU |");
    println!("|---|---|---|---|");
    run(&Cell { name: "warm", root: &store, rounds: 200, before_each: || () }, &batches, &rivals);
    if drop_caches().is_ok() {
        let forget = || drop_caches().expect("it worked before");
        run(&Cell { name: "cold", root: &store, rounds: 15, before_each: forget }, &batches, &rivals);
    } else {
        println!("| cold | not measured: only root may drop caches | | |");
    }
    for (name, delay_ms) in [("2 ms per request", 2), ("10 ms per request", 10)] {
        let behaviour = Behaviour { delay: Duration::from_millis(delay_ms), ..Behaviour::default() };
        match SlowFs::mount(&store, &mount, behaviour) {
            Ok(slow) => run(&Cell { name, root: slow.path(), rounds: 3, before_each: || () }, &batches, &rivals),
            Err(e) => println!("| {name} | not measured: no FUSE here: {e} | | |"),
        }
    }
}

type Rival = (String, Option<Engine>);

fn rivals() -> Vec<Rival> {
    let ring = |workers| EngineConfig { choice: EngineChoice::Uring, workers, ..EngineConfig::default() };
    let engines = [
        ("sync", EngineConfig { choice: EngineChoice::Sync, ..EngineConfig::default() }),
        ("threads (32)", EngineConfig { choice: EngineChoice::Threads, ..EngineConfig::default() }),
        ("uring, 8 workers", ring(8)),
        ("uring, 64 workers", ring(64)),
        ("uring, 128 workers", ring(128)),
        ("auto (64 workers)", EngineConfig::default()),
    ];
    let mut rivals = vec![("std".to_owned(), None)];
    for (name, config) in engines {
        match Engine::start("bench", &config) {
            Ok(engine) => rivals.push((name.to_owned(), Some(engine))),
            Err(e) => println!("{name} is left out: {e}"),
        }
    }
    rivals
}

/// Empty files with the paths of chunks, in batches.
fn make_chunks(store: &Path) -> Vec<Vec<PathBuf>> {
    for dir in 0..DIRS {
        std::fs::create_dir_all(store.join(format!("{dir:04x}"))).unwrap();
    }
    let batches: Vec<Vec<PathBuf>> =
        (0..BATCHES).map(|b| (0..BATCH).map(|i| chunk_path(b * BATCH + i)).collect()).collect();
    for path in batches.iter().flatten() {
        std::fs::File::options().create_new(true).write(true).open(store.join(path)).unwrap();
    }
    batches
}

/// As a datastore has them: four digits of the digest, then all of it.
fn chunk_path(i: usize) -> PathBuf {
    let scattered = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:04x}/{scattered:016x}{scattered:016x}{scattered:016x}{scattered:016x}", i * 7 % DIRS).into()
}

fn run(cell: &Cell<'_>, batches: &[Vec<PathBuf>], rivals: &[Rival]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = Arc::new(DirFd::from(OwnedFd::from(std::fs::File::open(cell.root).unwrap())));
    let mut all: Vec<Series> = vec![Series::default(); rivals.len()];
    for n in 0..cell.rounds + ROUNDS_BEFORE {
        for (at, (_, engine)) in rivals.iter().enumerate() {
            // Each its own batch, so that nobody reads what another has warmed on the disk's side.
            let paths = &batches[(n * rivals.len() + at) % BATCHES];
            (cell.before_each)();
            let cost = measure(|| match engine {
                None => assert!(paths.iter().all(|path| std::fs::metadata(cell.root.join(path)).is_ok())),
                Some(engine) => {
                    let names = paths.iter().map(|path| StatName::new(path.to_str().unwrap()).unwrap()).collect();
                    let batch = StatBatch {
                        dir: Arc::clone(&dir),
                        names,
                        class: Class::Interactive,
                        force_sync: false,
                        stamps: false,
                    };
                    let reply = runtime.block_on(engine.stat(batch)).unwrap();
                    assert!(reply.results.iter().all(Result::is_ok));
                }
            });
            if n >= ROUNDS_BEFORE {
                all[at].push(cost);
            }
        }
    }
    for ((name, _), series) in rivals.iter().zip(&all) {
        println!("| {} | {name} | {} | {} |", cell.name, series.wall_us(BATCH), series.cpu_us(BATCH));
    }
}
