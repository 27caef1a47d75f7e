//! What a client waits for at an append while garbage collection and verification run: without them, with them, and with them under the budget of
//! the datastore; turn by turn, each append on cold caches.
//!
//! `benches/limited/backups-first` makes a slow disk and runs this on it. Alone: `cargo bench --bench backups_first`, as root. `BENCH_DIR` says
//! where, `BENCH_CHUNKS` how many chunks (20,000) of how many bytes `BENCH_BYTES` (16,384), `BENCH_BATCH` how many an append names (128),
//! `BENCH_SECS` how long a turn takes (20), `BENCH_ROUNDS` how many there are of each (3), `BENCH_JSON` the file that gets the figures,
//! `BENCH_LIMIT` a command that is run once all data is there.

#[allow(dead_code, reason = "this needs a part of it")]
mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringvault::clock::{Clock, EpochSecs};
use ringvault::engine::{Class, ComputePool, Engine, EngineConfig};
use ringvault::format::blob::{self, Compression};
use ringvault::format::dynamic_index::DynamicEntry;
use ringvault::format::index::IndexCsum;
use ringvault::format::manifest::{CryptMode, Manifest, ManifestFile};
use ringvault::jobs::gc;
use ringvault::jobs::verify::{Filter, Scope, Verification};
use ringvault::store::{BackgroundConfig, Datastore, DatastoreConfig, Freshness, Rate, SyncLevel};
use ringvault::task::Registry;
use ringvault::types::{AuthId, ChunkSize, Digest, Namespace, Snapshot};

/// A client has something else to do between two appends.
const PAUSE: Duration = Duration::from_millis(200);

/// Chunks that are written at a time when the datastore is made.
const INSERTS_AT_ONCE: usize = 16;

/// Of ten chunks, those that no index names. They are young, so each collection looks at them and lets them be.
const UNNAMED_OF_TEN: usize = 3;

const TURNS: [&str; 3] = ["alone", "jobs, no budget", "jobs, budget"];

struct World {
    store: Datastore,
    tasks: Registry,
    compute: ComputePool,
    base: PathBuf,
    digests: Vec<Digest>,
    collections: AtomicU64,
    verifications: AtomicU64,
}

/// What one kind of turn has seen.
#[derive(Default)]
struct Seen {
    appends: Vec<Duration>,
    /// Directories, chunks and index blocks that jobs have read, and inodes that they asked for.
    work: u64,
    waited: Duration,
}

fn main() {
    if !support::asked_for() {
        return;
    }
    let folder = support::folder();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = Arc::new(runtime.block_on(make(folder.path())));
    // A disk that is slow from the first moment on would take an hour to be filled.
    if let Ok(limit) = std::env::var("BENCH_LIMIT") {
        assert!(Command::new("sh").args(["-c", &limit]).status().is_ok_and(|status| status.success()), "{limit}");
    }
    let (rounds, secs) = (support::number("BENCH_ROUNDS", 3), support::number("BENCH_SECS", 20));
    let mut seen: [Seen; 3] = Default::default();
    for round in 0..rounds {
        for (turn, seen) in seen.iter_mut().enumerate() {
            if forget(&world.base).is_err() && round == 0 && turn == 0 {
                println!("caches are warm: only root may drop them");
            }
            runtime.block_on(run(&world, turn, round, Duration::from_secs(secs as u64), seen));
        }
    }
    tell(&world, &seen, rounds, secs);
    world.store.engine().shutdown();
}

/// A datastore with chunks that a snapshot names, and others.
async fn make(folder: &Path) -> World {
    let base = folder.join("store");
    let (count, bytes) = (support::number("BENCH_CHUNKS", 20_000), support::number("BENCH_BYTES", 16_384));
    let mut config = DatastoreConfig::new("bench".parse().unwrap(), &base);
    config.sync_level = SyncLevel::None;
    // The directories are made with their chunks: few have more than one, so an append meets cold ones for long.
    std::fs::create_dir_all(base.join(".chunks")).unwrap();
    let engine = Engine::start("bench", &EngineConfig::default()).unwrap();
    let store = Datastore::open(config, engine, Clock::system()).await.unwrap();
    let mut named = Vec::new();
    let mut inserts = tokio::task::JoinSet::new();
    for number in 0..count {
        let plain = noise(number as u64, bytes);
        let (digest, size) = (Digest::of(&plain), ChunkSize::new(bytes as u64).expect("a chunk's size"));
        if number % 10 >= UNNAMED_OF_TEN {
            named.push(digest);
        }
        if inserts.len() >= INSERTS_AT_ONCE {
            inserts.join_next().await;
        }
        let store = store.clone();
        let encoded = blob::encode(&plain, Compression::None).into();
        inserts.spawn(async move { store.insert_chunk(digest, encoded, size).await.unwrap() });
    }
    inserts.join_all().await;
    write_snapshot(&store, &named, bytes as u64).await;
    let tasks = Registry::open(&folder.join("tasks"), Clock::system()).unwrap();
    let compute = ComputePool::new(2).unwrap();
    let (collections, verifications) = Default::default();
    World { store, tasks, compute, base, digests: named, collections, verifications }
}

/// Bytes that are different for each number.
fn noise(number: u64, bytes: usize) -> Vec<u8> {
    let mut plain = vec![0; bytes];
    let mut state = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in plain.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    plain
}

fn owner() -> AuthId {
    "bench@pbs".parse().unwrap()
}

async fn write_snapshot(store: &Datastore, digests: &[Digest], bytes: u64) {
    let snapshot = Snapshot::new("host/bench".parse().unwrap(), EpochSecs(1_717_597_418)).unwrap();
    let lease = store.begin_backup(&Namespace::root(), &snapshot, &owner(), false).await.unwrap();
    let archive = "data.stream.didx".parse().unwrap();
    let writer = lease.create_dynamic(&archive).await.unwrap();
    let (mut end, mut csum) = (0, IndexCsum::new());
    let entry = |digest: &Digest| {
        end += bytes;
        DynamicEntry { end, digest: *digest }
    };
    let entries: Vec<DynamicEntry> = digests.iter().map(entry).collect();
    entries.iter().for_each(|entry| csum.update(&entry.encode()));
    let count = entries.len() as u64;
    writer.append(0, entries).await.unwrap();
    let closed = writer.close(count, csum.finish()).await.unwrap();
    let mut manifest = Manifest::new(&snapshot);
    let file =
        ManifestFile { filename: archive, crypt_mode: CryptMode::None, size: closed.size_bytes, csum: closed.csum };
    manifest.add_file(file).unwrap();
    lease.finish(manifest.to_blob(), store.watch_taken().stay().await).await.unwrap();
}

/// Appends for so long, with what the turn wants beside them.
async fn run(world: &Arc<World>, turn: usize, round: usize, lasts: Duration, seen: &mut Seen) {
    let with_budget = turn == 2;
    let background = BackgroundConfig { rate: Rate::NONE, idle_priority: with_budget, back_off: with_budget };
    let config = (*world.store.config()).clone();
    world.store.set_config(DatastoreConfig { background, ..config });
    let before = (work(world), world.store.budget().waited());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let jobs = (turn > 0).then(|| {
        let collect = tokio::spawn(collect(Arc::clone(world), stopped.clone()));
        (collect, tokio::spawn(verify(Arc::clone(world), stopped)))
    });
    let (until, batch) = (Instant::now() + lasts, support::number("BENCH_BATCH", 128));
    let mut appends = 0;
    // The same order of chunks in all turns of a round.
    let mut at = (round * 7919) % world.digests.len();
    while Instant::now() < until {
        let named = (0..batch).map(|n| world.digests[(at + n * 131) % world.digests.len()]).collect();
        at = (at + batch * 131 + 1) % world.digests.len();
        let begun = Instant::now();
        let report = world.store.check_chunks(named, Class::Interactive, Freshness::Cached).await.unwrap();
        seen.appends.push(begun.elapsed());
        assert!(report.all_present());
        appends += batch as u64;
        // One read of a cold disk brings the neighbours of what was asked for along: without this, only a turn's first appends would be cold.
        let _ = std::fs::OpenOptions::new()
            .write(true)
            .open("/proc/sys/vm/drop_caches")
            .map(|mut file| file.write_all(b"3"));
        tokio::time::sleep(PAUSE).await;
    }
    seen.work += work(world) - before.0 - appends;
    stop.send_replace(true);
    if let Some((collect, verify)) = jobs {
        collect.await.unwrap();
        verify.await.unwrap();
    }
    let waited = world.store.budget().waited();
    seen.waited += waited.backups - before.1.backups;
}

fn work(world: &World) -> u64 {
    let counted = world.store.engine().counters();
    counted.statx + counted.disk.opened + counted.disk.directories_read
}

/// One collection after another, until it is told to stop.
async fn collect(world: Arc<World>, mut stopped: tokio::sync::watch::Receiver<bool>) {
    while !*stopped.borrow() {
        // What the one before has left behind on the pool when it was stopped may not be over yet.
        let Ok(collection) = gc::begin(&world.store).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let task = world.tasks.start(gc::WORKER_TYPE, Some("bench".into()), &owner()).await.unwrap();
        let closing = async { drop(stopped.wait_for(|stop| *stop).await) };
        let result = gc::run(&world.store, gc::Manner::Fresh, collection, &task, closing).await;
        world.collections.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
        task.end(Ok(())).await;
    }
}

/// One verification after another, until it is told to stop.
async fn verify(world: Arc<World>, mut stopped: tokio::sync::watch::Receiver<bool>) {
    while !*stopped.borrow() {
        let scope = Scope::Namespace { ns: Namespace::root(), max_depth: None };
        let verification = Verification::job(world.store.clone(), world.compute.clone(), scope, Filter::NONE);
        let task = world.tasks.start("verify", Some("bench".into()), &owner()).await.unwrap();
        tokio::select! {
            result = verification.run(&task) => {
                result.unwrap();
                world.verifications.fetch_add(1, Ordering::Relaxed);
            }
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        task.end(Ok(())).await;
    }
}

fn tell(world: &World, seen: &[Seen; 3], rounds: usize, secs: usize) {
    let batch = support::number("BENCH_BATCH", 128);
    println!("{} chunks, appends of {batch}, {rounds} rounds of {secs} s each\n", world.digests.len());
    println!("| turn | appends | p50 ms | p99 ms | slowest ms | work of jobs a second | jobs waited s |");
    println!("|---|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    for (name, seen) in TURNS.iter().zip(seen) {
        let mut sorted = seen.appends.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        let (p50, p99, slowest, count) = (at(50), at(99), at(100), sorted.len());
        let (work, waited) = (seen.work / (rounds * secs).max(1) as u64, seen.waited.as_secs());
        println!("| {name} | {count} | {p50:.1} | {p99:.1} | {slowest:.1} | {work} | {waited} |");
        rows.push(serde_json::json!({
            "turn": name, "appends": count, "p50_ms": p50, "p99_ms": p99, "slowest_ms": slowest,
            "work_per_second": work, "waited_seconds": waited,
        }));
    }
    let figures = serde_json::json!({
        "chunks": world.digests.len(), "batch": batch, "rounds": rounds, "seconds": secs, "turns": rows,
        "collections": world.collections.load(Ordering::Relaxed),
        "verifications": world.verifications.load(Ordering::Relaxed),
    });
    if let Some(path) = std::env::var_os("BENCH_JSON") {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
        writeln!(file, "{figures:#}").unwrap();
    }
}

/// Forgets what is cached of the file system below `path`; what its journal has not put in its place yet as well.
fn forget(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let root = Path::new("/").metadata()?.dev();
    if path.metadata()?.dev() != root
        && let Some(mount) = path.ancestors().take_while(|p| p.metadata().is_ok_and(|m| m.dev() != root)).last()
    {
        for what in ["--freeze", "--unfreeze"] {
            let _ = Command::new("fsfreeze").arg(what).arg(mount).stderr(std::process::Stdio::null()).status();
        }
    }
    support::drop_caches()
}
