//! Garbage collection against datastores of a few chunks, whose access times are set by hand.
#![expect(clippy::disallowed_methods, reason = "a test makes and breaks files behind the store's back")]

mod access_time;
mod budget;
mod faults;
mod histories;
mod power;
mod races;
mod reserve;
mod resume;
mod rules;
mod stop;
mod strange;
mod unchanged;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{GcReport, Manner, begin, run};
use crate::clock::{Clock, EpochSecs};
use crate::engine::sim::Sim;
use crate::engine::{Disk, Engine, EngineChoice, EngineConfig, Fault};
use crate::error::Result;
use crate::format::blob::{self, Compression};
use crate::store::test_support::{T0, auth, fixed_csum, make_base, manifest, name, root, stay};
use crate::store::{BackupLease, Datastore, DatastoreConfig, FixedWriter, Inserted, Keeper, SyncLevel};
use crate::sync::Mutex;
use crate::task::{Registry, Task};
use crate::types::{ChunkSize, Digest, Snapshot};

const DAY: i64 = 86_400;

/// A chunk of a few bytes; its digest is made up, which the store does not mind, and lies in one of four directories.
fn chunk(n: u8) -> (Digest, Bytes, ChunkSize) {
    let mut digest = [n; 32];
    (digest[0], digest[1]) = (0, n % 4);
    let plain = [n; 40];
    (Digest(digest), blob::encode(&plain, Compression::None).into(), ChunkSize::new(40).unwrap())
}

fn digest(n: u8) -> Digest {
    chunk(n).0
}

/// Sets the access time of a path.
fn set_accessed(path: &Path, secs: i64) {
    let time = rustix::fs::Timespec { tv_sec: secs, tv_nsec: 0 };
    let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: omit };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// An empty datastore on a simulated disk, whose name is that of a directory of this machine: no two are the same.
fn make_simulated_base(sim: &Sim, like: &Path) -> PathBuf {
    let base = Path::new("/").join(like.file_name().unwrap());
    let disk = Disk::simulated(sim, None);
    disk.mkdir(&base, 0o755).unwrap();
    disk.mkdir(&base.join(".chunks"), 0o750).unwrap();
    base
}

/// What scenes share: threads are dear.
#[derive(Debug)]
struct Machine {
    engine: Engine,
    tasks: Registry,
    /// Its disk, if that is a simulated one.
    sim: Option<Sim>,
    _dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self::with(Disk::real())
    }

    /// With a disk whose clock goes as the test says; with a fault before each operation, if there is one.
    fn simulated(fault: Option<Arc<dyn Fault>>) -> Self {
        Self::on(&Sim::new(T0), fault)
    }

    fn on(sim: &Sim, fault: Option<Arc<dyn Fault>>) -> Self {
        let config = EngineConfig { choice: EngineChoice::Sync, io_threads: 4, ..EngineConfig::default() };
        Self { sim: Some(sim.clone()), ..Self::with_engine(Disk::simulated(sim, fault), &config) }
    }

    fn faulty(fault: Arc<dyn Fault>) -> Self {
        Self::with(Disk::with_fault(fault))
    }

    fn with(disk: Disk) -> Self {
        Self::with_engine(disk, &EngineConfig::default())
    }

    fn with_engine(disk: Disk, config: &EngineConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start_on("gc", config, disk).unwrap();
        let tasks = Registry::open(&dir.path().join("tasks"), Clock::system()).unwrap();
        Self { engine, tasks, sim: None, _dir: dir }
    }
}

/// A datastore and a clock.
#[derive(Debug)]
struct Scene {
    dir: tempfile::TempDir,
    base: PathBuf,
    store: Datastore,
    clock: Clock,
    tasks: Registry,
    sim: Option<Sim>,
    manner: Manner,
}

impl Scene {
    async fn new(machine: &Machine) -> Self {
        Self::with(machine, |_| {}).await
    }

    async fn with(machine: &Machine, edit: impl FnOnce(&mut DatastoreConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = match &machine.sim {
            None => make_base(dir.path()),
            Some(sim) => make_simulated_base(sim, dir.path()),
        };
        Self::at(machine, dir, base, edit).await
    }

    /// Of a datastore that is there.
    async fn at(
        machine: &Machine,
        dir: tempfile::TempDir,
        base: PathBuf,
        edit: impl FnOnce(&mut DatastoreConfig),
    ) -> Self {
        let clock = Clock::manual(EpochSecs(T0));
        let mut config = DatastoreConfig::new("store1".parse().unwrap(), &base);
        config.sync_level = SyncLevel::None;
        config.gc.reserve_bytes = 0;
        edit(&mut config);
        let store = Datastore::open(config, machine.engine.clone(), clock.clone()).await.unwrap();
        let scene = Self {
            dir,
            base,
            store,
            clock,
            tasks: machine.tasks.clone(),
            sim: machine.sim.clone(),
            manner: Manner::Resume,
        };
        scene.set_time(T0);
        scene
    }

    fn now(&self) -> i64 {
        self.clock.now().0
    }

    fn pass_time(&self, secs: i64) {
        self.set_time(self.now() + secs);
    }

    /// Sets the clock, and that of a simulated disk.
    fn set_time(&self, secs: i64) {
        self.clock.set(EpochSecs(secs));
        if let Some(sim) = &self.sim {
            sim.set_time(secs);
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.base.join(format!(".chunks/{:04x}/{digest}", digest.prefix()))
    }

    /// Puts a chunk into the store, used last at the time of the scene's clock.
    async fn insert(&self, n: u8) -> Inserted {
        let (digest, blob, size) = chunk(n);
        let inserted = self.store.insert_chunk(digest, blob, size).await.unwrap();
        match &self.sim {
            None => set_accessed(&self.path(&digest), self.now()),
            Some(sim) => sim.set_accessed(&self.path(&digest), self.now()).unwrap(),
        }
        inserted
    }

    fn has(&self, n: u8) -> bool {
        match &self.sim {
            None => self.path(&digest(n)).exists(),
            Some(sim) => Disk::simulated(sim, None).lstat(&self.path(&digest(n))).is_ok(),
        }
    }

    /// The chunks that are there.
    fn chunks(&self) -> BTreeSet<u8> {
        (0..=u8::MAX).filter(|n| self.has(*n)).collect()
    }

    /// A whole backup of chunks that are put into the store.
    async fn back_up(&self, snapshot: &Snapshot, chunks: &[u8]) {
        for n in chunks {
            self.insert(*n).await;
        }
        let lease = self.begin(snapshot).await;
        let writer = write(&lease, chunks).await.unwrap();
        close(&writer, chunks).await.unwrap();
        finish(&self.store, &lease, chunks).await.unwrap();
    }

    async fn begin(&self, snapshot: &Snapshot) -> BackupLease {
        self.store.begin_backup(&root(), snapshot, &auth(), false).await.unwrap()
    }

    async fn task(&self) -> Task {
        self.tasks.start(super::WORKER_TYPE, Some("store1".to_owned()), &auth()).await.unwrap()
    }

    async fn try_collect(&self) -> (Result<GcReport>, Vec<String>) {
        let task = self.task().await;
        let upid = task.upid().clone();
        let result = match begin(&self.store).await {
            Ok(collection) => run(&self.store, self.manner, collection, &task, std::future::pending()).await,
            Err(e) => Err(e),
        };
        task.end(result.as_ref().map(drop).map_err(ToString::to_string)).await;
        let log = std::fs::read_to_string(self.tasks.log_path(&upid)).unwrap();
        (result, log.lines().map(|line| line[27..].to_owned()).collect())
    }

    async fn collect(&self) -> GcReport {
        self.try_collect().await.0.unwrap()
    }
}

/// The snapshot of group `host/a` that is `hours` younger than the recordings.
fn snapshot(hours: i64) -> Snapshot {
    crate::store::test_support::snapshot("host/a", hours)
}

async fn write(lease: &BackupLease, chunks: &[u8]) -> Result<FixedWriter> {
    let writer = lease.create_fixed(&name("disk.img.fidx"), (chunks.len() as u64) << 22).await?;
    writer.write_slots((0..).zip(chunks.iter().map(|n| digest(*n))).collect()).await?;
    Ok(writer)
}

fn digests(chunks: &[u8]) -> Vec<Digest> {
    chunks.iter().map(|n| digest(*n)).collect()
}

async fn close(writer: &FixedWriter, chunks: &[u8]) -> Result<()> {
    writer.close(fixed_csum(&digests(chunks))).await.map(drop)
}

async fn finish(store: &Datastore, lease: &BackupLease, chunks: &[u8]) -> Result<()> {
    let size = (chunks.len() as u64) << 22;
    lease.finish(manifest(lease.snapshot(), fixed_csum(&digests(chunks)), size), stay(store).await).await
}

/// What a session knows.
#[derive(Debug, Default)]
struct Known(Mutex<BTreeSet<Digest>>);

impl Keeper for Known {
    fn keeps(&self, digest: &Digest) -> bool {
        self.0.lock().contains(digest)
    }
}

impl Known {
    /// Kept by the store from now on.
    fn of(store: &Datastore) -> Arc<Self> {
        let known = Arc::new(Self::default());
        let keeper: Arc<dyn Keeper> = known.clone();
        store.add_keeper(&keeper);
        known
    }

    fn add(&self, n: u8) {
        self.0.lock().insert(digest(n));
    }
}
