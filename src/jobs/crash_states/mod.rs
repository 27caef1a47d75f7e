//! The power goes before every change of every scenario, on a simulated disk that loses what it may lose: what does the next start find?
//!
//! A scenario runs once, and the disk keeps every moment of it. Each moment is crashed in several ways, each result opened as a datastore
//! and held against what had been promised by then:
//!
//! | | |
//! |---|---|
//! | I1 | a snapshot that was reported finished at sync level `file` or `filesystem` is there with chunks that are right, unless its removal had begun |
//! | I2 | no manifest without all that it lists |
//! | I3 | garbage collection and the rest removed no chunk of a finished snapshot (what I1 and I2 see) |
//! | I5 | a base that was marked failed stays so |
//! | I6 | the datastore opens, takes a backup, and a garbage collection of it ends well |

mod runs;
mod scenarios;

use std::collections::BTreeMap;
use std::path::Path;

use crate::clock::{Clock, EpochSecs};
use crate::engine::sim::{Moment, Sim, Survival};
use crate::engine::{Disk, Engine, EngineConfig};
use crate::error::Result;
use crate::format::blob::{self, Compression, CrcPolicy};
use crate::format::dynamic_index::DynamicEntry;
use crate::format::manifest::{CryptMode, Manifest, ManifestFile, VerifyOutcome};
use crate::jobs::gc;
use crate::store::test_support::{T0, auth, name, root, stay};
use crate::store::{BackupLease, Datastore, DatastoreConfig, Stored, SyncLevel};
use crate::sync::Mutex;
use crate::task::{Registry, Task};
use crate::types::{CHUNK_BYTES_MAX, ChunkSize, Digest, Snapshot};

const ARCHIVE: &str = "a.pxar.didx";
const BASE: &str = "/store";
const CHUNK_BYTES: u64 = 5000;
const DAY: i64 = 86_400;

/// A chunk of more than a page; the same byte all through, so that a missing page is seen.
fn plain(n: u8) -> Vec<u8> {
    (0..CHUNK_BYTES).map(|i| n.wrapping_mul(31).wrapping_add(u8::try_from(i % 256).unwrap())).collect()
}

fn digest(n: u8) -> Digest {
    Digest::of(&plain(n))
}

/// What has been promised, and by which change of the disk.
#[derive(Clone, Debug, Default)]
struct Promises {
    finished: BTreeMap<String, (Snapshot, u64)>,
    /// Whose removal had begun.
    given_up: BTreeMap<String, u64>,
    marked: BTreeMap<String, u64>,
}

/// A datastore on a simulated disk.
#[derive(Debug)]
struct World {
    sim: Sim,
    store: Datastore,
    clock: Clock,
    level: SyncLevel,
    promises: Mutex<Promises>,
    tasks: Registry,
}

/// An empty datastore: its chunk directories come with the chunks.
fn blank() -> Sim {
    let sim = Sim::new(T0);
    let disk = Disk::simulated(&sim, None);
    disk.mkdir(Path::new(BASE), 0o755).unwrap();
    disk.mkdir(&Path::new(BASE).join(".chunks"), 0o750).unwrap();
    disk.syncfs(Path::new("/")).unwrap();
    sim
}

impl World {
    async fn open(sim: &Sim, level: SyncLevel, secs: i64, tasks: &Registry) -> Result<Self> {
        let config = EngineConfig { io_threads: 2, ..EngineConfig::default() };
        let config = EngineConfig { choice: crate::engine::EngineChoice::Sync, ..config };
        let engine = Engine::start_on("sim", &config, Disk::simulated(sim, None))?;
        let clock = Clock::manual(EpochSecs(secs));
        sim.set_time(secs);
        let config =
            DatastoreConfig { sync_level: level, ..DatastoreConfig::new("store1".parse().unwrap(), Path::new(BASE)) };
        let store = Datastore::open(config, engine, clock.clone()).await?;
        let (sim, tasks) = (sim.clone(), tasks.clone());
        Ok(Self { sim, store, clock, level, promises: Mutex::default(), tasks })
    }

    fn pass_time(&self, secs: i64) {
        let now = self.clock.now().0 + secs;
        self.clock.set(EpochSecs(now));
        self.sim.set_time(now);
    }

    fn changes(&self) -> u64 {
        self.sim.counts().1
    }

    fn snapshot(group: &str, hours: i64) -> Snapshot {
        crate::store::test_support::snapshot(group, hours)
    }

    async fn insert(&self, n: u8) -> Result<()> {
        let encoded = blob::encode(&plain(n), Compression::None);
        self.store.insert_chunk(digest(n), encoded.into(), ChunkSize::new(CHUNK_BYTES).unwrap()).await.map(drop)
    }

    async fn begin(&self, snapshot: &Snapshot) -> Result<BackupLease> {
        self.store.begin_backup(&root(), snapshot, &auth(), false).await
    }

    /// Puts chunks and an index that names them into a lease.
    async fn write(&self, lease: &BackupLease, chunks: &[u8]) -> Result<()> {
        for n in chunks {
            self.insert(*n).await?;
        }
        let writer = lease.create_dynamic(&name(ARCHIVE)).await?;
        writer.append(0, entries(chunks)).await?;
        writer.close(chunks.len() as u64, csum(chunks)).await.map(drop)
    }

    async fn finish(&self, lease: &BackupLease, chunks: &[u8]) -> Result<()> {
        let mut manifest = Manifest::new(lease.snapshot());
        let size = chunks.len() as u64 * CHUNK_BYTES;
        let file = ManifestFile { filename: name(ARCHIVE), crypt_mode: CryptMode::None, size, csum: csum(chunks) };
        manifest.add_file(file).unwrap();
        lease.finish(manifest.to_blob(), stay(&self.store).await).await?;
        let snapshot = lease.snapshot().clone();
        let changes = self.changes();
        self.promises.lock().finished.insert(snapshot.to_string(), (snapshot, changes));
        Ok(())
    }

    async fn back_up(&self, snapshot: &Snapshot, chunks: &[u8]) -> Result<()> {
        let lease = self.begin(snapshot).await?;
        self.write(&lease, chunks).await?;
        self.finish(&lease, chunks).await
    }

    /// From now on the snapshot may be gone.
    fn give_up(&self, snapshot: &Snapshot) {
        let changes = self.changes();
        self.promises.lock().given_up.entry(snapshot.to_string()).or_insert(changes);
    }

    async fn remove(&self, snapshot: &Snapshot) -> Result<()> {
        self.give_up(snapshot);
        self.store.remove_snapshot(&root(), snapshot).await
    }

    async fn task(&self) -> Task {
        self.tasks.start(gc::WORKER_TYPE, Some("store1".to_owned()), &auth()).await.unwrap()
    }

    async fn collect(&self) -> Result<()> {
        let collection = gc::begin(&self.store).await?;
        let task = self.task().await;
        let result = gc::run(&self.store, gc::Manner::Resume, collection, &task, std::future::pending()).await;
        task.end(result.as_ref().map(drop).map_err(ToString::to_string)).await;
        result.map(drop)
    }
}

fn entries(chunks: &[u8]) -> Vec<DynamicEntry> {
    (1..).zip(chunks).map(|(n, chunk)| DynamicEntry { end: n * CHUNK_BYTES, digest: digest(*chunk) }).collect()
}

/// Checksum of a dynamic index: ends and digests.
fn csum(chunks: &[u8]) -> Digest {
    let bytes = |entry: DynamicEntry| entry.end.to_le_bytes().into_iter().chain(entry.digest.0);
    Digest::of(&entries(chunks).into_iter().flat_map(bytes).collect::<Vec<u8>>())
}

/// Opens what a crash left and holds it against what was promised at that moment. `is_kept` says whether anything was promised at all:
/// without syncs, a power cut may cost what it likes, but no manifest may lie.
async fn check(
    sim: &Sim,
    moment: &Moment,
    promises: &Promises,
    world: &World,
    survival: Survival,
) -> Result<(), String> {
    let after = World::open(sim, world.level, world.clock.now().0 + 60, &world.tasks).await;
    let after = after.map_err(|e| format!("I6: the datastore does not open: {e}"))?;
    let is_safe = world.level != SyncLevel::None || survival == Survival::Everything;
    let listed = after.store.groups(&root()).await.map_err(|e| format!("I6: no listing: {e}"))?;
    let there: BTreeMap<String, bool> =
        listed.iter().flat_map(|group| group.snapshots.iter().map(|s| (s.snapshot.to_string(), s.finished))).collect();
    let due = |at: &u64| *at <= moment.changes;
    for (shown, (_, at)) in promises.finished.iter().filter(|(_, (_, at))| is_safe && due(at)) {
        let is_given_up = promises.given_up.get(shown).is_some_and(due);
        if !is_given_up && there.get(shown) != Some(&true) {
            return Err(format!("I1: {shown}, finished at change {at}, is not there"));
        }
    }
    for group in &listed {
        for listed in group.snapshots.iter().filter(|s| s.finished && is_safe) {
            whole(&after.store, &listed.snapshot).await.map_err(|why| format!("I2: {}: {why}", listed.snapshot))?;
        }
    }
    for (shown, at) in promises.marked.iter().filter(|(_, at)| is_safe && due(at)) {
        let (snapshot, _) = &promises.finished[shown];
        let loaded = after.store.load_manifest(&root(), snapshot).await.map_err(|e| format!("I5: {e}"))?;
        if loaded.manifest.verify_state().map(|state| state.state) != Some(VerifyOutcome::Failed) {
            return Err(format!("I5: {shown}, marked at change {at}, is not marked"));
        }
    }
    if survival == Survival::Everything {
        // What was found before the process was killed counts yet. A run that it cut off goes on, or ends at a torn index, as below.
        after.pass_time(DAY);
        let _ = after.collect().await;
    }
    // A year later nothing is in the way of anybody.
    after.pass_time(365 * DAY);
    let next = World::snapshot("host/next", 24 * 365);
    after.back_up(&next, &[1, 200]).await.map_err(|e| format!("I6: no backup: {e}"))?;
    if is_safe {
        // An index that is torn keeps its chunks, and tells what to do; only those of unfinished snapshots may be.
        if let Err(e) = after.collect().await {
            for torn in listed.iter().flat_map(|group| &group.snapshots).filter(|s| !s.finished) {
                after.store.remove_snapshot(&root(), &torn.snapshot).await.map_err(|e| format!("I6: {e}"))?;
            }
            after.collect().await.map_err(|after| format!("I6: no garbage collection: {e}; then: {after}"))?;
        }
        whole(&after.store, &next).await.map_err(|why| format!("I3: {next}: {why}"))?;
        for listed in listed.iter().flat_map(|group| &group.snapshots).filter(|s| s.finished) {
            whole(&after.store, &listed.snapshot).await.map_err(|why| format!("I3: {}: {why}", listed.snapshot))?;
        }
    }
    Ok(())
}

/// Whether all that a snapshot's manifest lists is there and right.
async fn whole(store: &Datastore, snapshot: &Snapshot) -> Result<(), String> {
    let manifest = store.load_manifest(&root(), snapshot).await.map_err(|e| format!("its manifest: {e}"))?.manifest;
    for file in manifest.files() {
        let index = store.open_index(&root(), snapshot, &file.filename).await.map_err(|e| e.to_string())?;
        if index.size_bytes() != file.size {
            return Err(format!("{} has {} bytes, not {}", file.filename, index.size_bytes(), file.size));
        }
        let mut scan = index.scan();
        while let Some(block) = scan.next_block().await.map_err(|e| e.to_string())? {
            for entry in block {
                let stored = store.load_chunk(&entry.digest).await.map_err(|e| e.to_string())?;
                let Stored::Blob(encoded) = stored else { return Err(format!("chunk {}: {stored:?}", entry.digest)) };
                let plain = blob::decode(&encoded, u64::from(CHUNK_BYTES_MAX), CrcPolicy::Check);
                let plain = plain.map_err(|e| format!("chunk {}: {e}", entry.digest))?;
                if Digest::of(&plain) != entry.digest || plain.len() as u64 != u64::from(entry.size_bytes) {
                    return Err(format!("chunk {} is another one", entry.digest));
                }
            }
        }
        if scan.csum() != Some(file.csum) {
            return Err(format!("{} has another checksum", file.filename));
        }
    }
    Ok(())
}

fn registry(dir: &Path) -> Registry {
    Registry::open(&dir.join("tasks"), Clock::system()).unwrap()
}

/// For tests of one moment.
#[derive(Debug)]
#[expect(dead_code, reason = "shown as a whole")]
struct Found {
    scenario: &'static str,
    level: SyncLevel,
    change: u64,
    survival: Survival,
    seed: u64,
    why: String,
}
