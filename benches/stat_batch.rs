//! An append's check of 128 known chunks: a serial loop of the standard library against each engine, in one run, turn by turn.
//!
//! `cargo bench --bench stat_batch`. Root for the cold cells; `BENCH_DIR` says where.

mod support;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringvault::engine::{Class, Engine, EngineChoice, EngineConfig, StatBatch, StatName};
use support::{Series, drop_caches, measure};

const BATCH: usize = 128;
const DIRS: usize = 1024;
const BATCHES: usize = 32;
const ROUNDS_COLD: usize = 15;
const ROUNDS_WARM: usize = 200;

fn main() {
    if !support::asked_for() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = support::folder();
    let batches: Vec<Vec<String>> =
        (0..BATCHES).map(|b| (0..BATCH).map(|i| chunk_path(b * BATCH + i)).collect()).collect();
    for dir in 0..DIRS {
        std::fs::create_dir(folder.path().join(format!("{dir:04x}"))).unwrap();
    }
    for path in batches.iter().flatten() {
        std::fs::File::options().create_new(true).write(true).open(folder.path().join(path)).unwrap();
    }
    let dir = Arc::new(OwnedFd::from(std::fs::File::open(folder.path()).unwrap()));
    let choices = [
        ("sync", EngineChoice::Sync),
        ("threads", EngineChoice::Threads),
        ("uring, forced", EngineChoice::Uring),
        ("auto", EngineChoice::Auto),
    ];
    let mut rivals = vec![("std", None)];
    for (name, choice) in choices {
        match Engine::start("bench", &EngineConfig { choice, ..EngineConfig::default() }) {
            Ok(engine) => rivals.push((name, Some(engine))),
            Err(e) => println!("{name} is left out: {e}"),
        }
    }
    println!("batches of {BATCH}; µs per chunk: median (least–most)\n");
    println!("| engine | cache | wall | CPU |");
    println!("|---|---|---|---|");
    let can_be_cold = drop_caches().is_ok();
    for (cache, rounds, cold) in [("warm", ROUNDS_WARM, false), ("cold", ROUNDS_COLD, true)] {
        if cold && !can_be_cold {
            println!("| – | cold | not measured: only root may drop caches | |");
            continue;
        }
        let mut all: Vec<Series> = vec![Series::default(); rivals.len()];
        for n in 0..rounds + 5 {
            for (at, (_, engine)) in rivals.iter().enumerate() {
                // Each its own batch, so that nobody reads what another has warmed on the disk's side.
                let names = &batches[(n * rivals.len() + at) % BATCHES];
                if cold {
                    drop_caches().expect("it worked before");
                }
                let cost = measure(|| match engine {
                    None => {
                        for name in names {
                            let size = std::fs::metadata(folder.path().join(name)).unwrap().len();
                            assert_eq!(size, 0);
                        }
                    }
                    Some(engine) => {
                        let names = names.iter().map(|name| StatName::new(name).unwrap()).collect();
                        let batch =
                            StatBatch { dir: Arc::clone(&dir), names, class: Class::Interactive, force_sync: false };
                        let reply = runtime.block_on(engine.stat(batch)).unwrap();
                        assert!(reply.results.iter().all(Result::is_ok));
                    }
                });
                // The first few let each engine find out what the cache is like.
                if n >= 5 {
                    all[at].push(cost);
                }
            }
        }
        for ((name, _), series) in rivals.iter().zip(&all) {
            println!("| {name} | {cache} | {} | {} |", series.wall_us(BATCH), series.cpu_us(BATCH));
        }
    }
}

/// A path as a datastore has them: four digits of the digest, then all of it.
fn chunk_path(i: usize) -> String {
    let scattered = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:04x}/{scattered:016x}{scattered:016x}{scattered:016x}{scattered:016x}", i * 7 % DIRS)
}
