//! A finish's check of many unique chunks: a serial loop of the standard library, the engine's sweep by stat, and by name in directories
//! that are read; in one run, turn by turn.
//!
//! `cargo bench --bench finish`. Root for the cold and the slow cells. `BENCH_DIR` says where, `BENCH_CHUNKS` how many chunks (100,000) and
//! `BENCH_EACH` how many of them a directory holds (15, as of a million chunks in all 65,536); `BENCH_SAMPLE` asks for the chunks of each
//! n-th directory only (1); `BENCH_CELLS` says which cells (`warm,cold,slow`).

#[allow(dead_code, reason = "shared with other benchmarks, of which this needs a part")]
mod support;

#[path = "../tests/it/support/slowfs.rs"]
#[allow(dead_code, clippy::disallowed_methods, reason = "a tool of the tests, of which this needs a part")]
mod slowfs;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringvault::clock::Clock;
use ringvault::engine::{Class, Engine, EngineConfig};
use ringvault::store::{Datastore, DatastoreConfig, Freshness};
use ringvault::types::Digest;
use slowfs::{Behaviour, SlowFs};
use support::{Series, drop_caches, measure, number};

/// Chunks of the cell in which each request waits: enough for all directories in flight several times, and a minute for the serial loop.
const SLOW_CHUNKS: usize = 6000;

const RIVALS: [&str; 3] = ["std", "engine, by stat", "engine, by name"];

/// A store to be asked, and how.
struct Cell<'a> {
    name: &'static str,
    base: &'a Path,
    digests: &'a [Digest],
    rounds: usize,
    /// Forget what is cached before each turn.
    cold: bool,
}

fn main() {
    if !support::asked_for() {
        return;
    }
    let folder = support::folder();
    let (base, mount) = (folder.path().join("store"), folder.path().join("mount"));
    let (chunks, each) = (number("BENCH_CHUNKS", 100_000), number("BENCH_EACH", 15));
    let cells = std::env::var("BENCH_CELLS").unwrap_or_else(|_| "warm,cold,slow".to_owned());
    let wanted = |name: &str| cells.split(',').any(|cell| cell == name);
    std::fs::create_dir(&mount).unwrap();
    let digests = make_chunks(&base, chunks, each);
    let asked = digests.len();
    println!("{chunks} chunks, {each} in a directory, {asked} asked for; µs per chunk: median (least–most)\n");
    println!("| store | way | wall | CPU | device reads per 1000 chunks |");
    println!("|---|---|---|---|---|");
    if wanted("warm") {
        run(&Cell { name: "warm", base: &base, digests: &digests, rounds: 7, cold: false });
    }
    if wanted("cold") {
        if forget(&base).is_ok() {
            run(&Cell { name: "cold", base: &base, digests: &digests, rounds: 3, cold: true });
        } else {
            println!("| cold | not measured: only root may drop caches | | | |");
        }
    }
    if wanted("slow") {
        let behaviour = Behaviour { delay: Duration::from_millis(2), ..Behaviour::default() };
        match SlowFs::mount(&base, &mount, behaviour) {
            Ok(_mounted) => {
                let digests = &digests[..digests.len().min(SLOW_CHUNKS)];
                run(&Cell { name: "2 ms per request", base: &mount, digests, rounds: 1, cold: false });
            }
            Err(e) => println!("| 2 ms per request | not measured: {e} | | | |"),
        }
    }
}

/// Chunk files of the twelve bytes of a header, in an order that has nothing to do with their names.
fn make_chunks(base: &Path, chunks: usize, each: usize) -> Vec<Digest> {
    let directories = chunks.div_ceil(each).clamp(1, 1 << 16);
    let mut digests: Vec<Digest> = (0..chunks)
        .map(|i| {
            let mut digest = Digest::of(&i.to_le_bytes());
            // Spread over the directories that there are, which are spread over those that there could be.
            let prefix = u16::try_from(i % directories * (1 << 16) / directories).expect("below 65,536");
            digest.0[..2].copy_from_slice(&prefix.to_be_bytes());
            digest
        })
        .collect();
    for digest in &digests {
        let path = path_of(base, digest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create_new(path).unwrap().set_len(12).unwrap();
    }
    digests.sort_unstable();
    let sampled = digests.chunk_by(|a, b| a.prefix() == b.prefix()).step_by(number("BENCH_SAMPLE", 1).max(1));
    sampled.flatten().copied().collect()
}

fn path_of(base: &Path, digest: &Digest) -> PathBuf {
    base.join(".chunks").join(format!("{:04x}", digest.prefix())).join(digest.to_string())
}

fn run(cell: &Cell<'_>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let engine = Engine::start("bench", &EngineConfig::default()).unwrap();
    let config = DatastoreConfig::new("bench".parse().unwrap(), cell.base);
    let store = runtime.block_on(Datastore::open(config, engine, Clock::system())).unwrap();
    let count = cell.digests.len();
    let mut all = vec![Series::default(); RIVALS.len()];
    let mut reads = vec![Vec::new(); RIVALS.len()];
    // The first round finds out what the cache is like, and starts the kernel's workers.
    let rounds_before = usize::from(!cell.cold && cell.rounds > 1);
    for round in 0..cell.rounds + rounds_before {
        for way in 0..RIVALS.len() {
            if cell.cold {
                forget(cell.base).expect("it worked before");
            }
            let before = device_reads(cell.base);
            let cost = measure(|| ask(&runtime, &store, cell, way));
            if round >= rounds_before {
                all[way].push(cost);
                reads[way].extend(device_reads(cell.base).zip(before).map(|(after, before)| after - before));
            }
        }
    }
    for (way, name) in RIVALS.iter().enumerate() {
        reads[way].sort_unstable();
        let read = reads[way].get(reads[way].len() / 2).map_or("–".to_owned(), |reads| {
            (reads * 1000).div_ceil(u64::try_from(count).expect("it fits")).to_string()
        });
        println!("| {} | {name} | {} | {} | {read} |", cell.name, all[way].wall_us(count), all[way].cpu_us(count));
    }
}

fn ask(runtime: &tokio::runtime::Runtime, store: &Datastore, cell: &Cell<'_>, way: usize) {
    let report = match way {
        0 => {
            assert!(cell.digests.iter().all(|digest| std::fs::metadata(path_of(cell.base, digest)).is_ok()));
            return;
        }
        1 => runtime.block_on(store.check_chunks_with(cell.digests, Class::Sweep, Freshness::Server, |_| ())),
        _ => runtime.block_on(store.check_sorted_chunks_with(cell.digests, |_| ())),
    };
    let report = report.unwrap();
    assert!(report.all_present());
    if std::env::var_os("BENCH_VERBOSE").is_some() {
        eprintln!("{}: {} by name in {} directories", RIVALS[way], report.by_name, report.directories);
    }
}

/// Reads that the disk below `path` has completed; `None` if it is on no disk of its own.
fn device_reads(path: &Path) -> Option<u64> {
    let dev = path.metadata().ok()?.dev();
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    stat.split_whitespace().next()?.parse().ok()
}

/// Forgets what is cached of the file system below `path`. What its journal has not put in its place yet would stay in memory: freezing
/// puts it there, which only a mounted file system other than the root can stand.
fn forget(path: &Path) -> std::io::Result<()> {
    let root = Path::new("/").metadata()?.dev();
    if path.metadata()?.dev() != root
        && let Some(mount) = path.ancestors().take_while(|p| p.metadata().is_ok_and(|m| m.dev() != root)).last()
    {
        for what in ["--freeze", "--unfreeze"] {
            // Not every file system can; then dropping has to do.
            let _ = Command::new("fsfreeze").arg(what).arg(mount).stderr(std::process::Stdio::null()).status();
        }
    }
    drop_caches()
}
