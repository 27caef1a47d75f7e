//! What the tests of the store share: a small datastore, chunks, and whole backups.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::{BackupLease, Datastore, DatastoreConfig, Inserted, Stay, SyncLevel};
use crate::clock::{Clock, EpochSecs};
use crate::engine::{Disk, Engine, EngineConfig, Fault};
use crate::error::Result;
use crate::format::blob::{self, Compression};
use crate::format::manifest::{CryptMode, Manifest, ManifestFile};
use crate::types::{ArchiveName, AuthId, ChunkSize, Digest, Namespace, Snapshot};

/// 2024-06-05T14:23:38Z, the time of all recordings.
pub(crate) const T0: i64 = 1_717_597_418;

pub(crate) fn engine() -> Engine {
    Engine::start("test", &EngineConfig::default()).unwrap()
}

pub(crate) fn faulty_engine(fault: Arc<dyn Fault>) -> Engine {
    Engine::start_on("test", &EngineConfig::default(), Disk::with_fault(fault)).unwrap()
}

/// A datastore without its 65,536 chunk directories: they are made as chunks come.
pub(crate) fn make_base(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let base = dir.join("store");
    for (path, mode) in [(base.clone(), 0o755), (base.join(".chunks"), 0o750)] {
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    base
}

pub(crate) fn config(base: &Path, level: SyncLevel) -> DatastoreConfig {
    DatastoreConfig { sync_level: level, ..DatastoreConfig::new("store1".parse().unwrap(), base) }
}

pub(crate) async fn open(base: &Path) -> Datastore {
    open_on(base, engine(), SyncLevel::File).await.unwrap()
}

pub(crate) async fn open_on(base: &Path, engine: Engine, level: SyncLevel) -> Result<Datastore> {
    Datastore::open(config(base, level), engine, Clock::manual(EpochSecs(T0))).await
}

pub(crate) fn snapshot(group: &str, hours: i64) -> Snapshot {
    Snapshot::new(group.parse().unwrap(), EpochSecs(T0 + 3600 * hours)).unwrap()
}

pub(crate) fn name(text: &str) -> ArchiveName {
    text.parse().unwrap()
}

pub(crate) fn auth() -> AuthId {
    "tester@pbs!bench".parse().unwrap()
}

pub(crate) fn root() -> Namespace {
    Namespace::root()
}

/// A chunk of 4 MiB that compresses well: its digest and blob. Made once, for it takes a while without optimisation.
pub(crate) fn chunk(seed: u8) -> (Digest, Bytes, ChunkSize) {
    static MADE: [OnceLock<(Digest, Bytes)>; 256] = [const { OnceLock::new() }; 256];
    let (digest, blob) = MADE[usize::from(seed)].get_or_init(|| {
        let plain = vec![seed; 4 << 20];
        (Digest::of(&plain), blob::encode(&plain, Compression::Try).into())
    });
    (*digest, blob.clone(), ChunkSize::new(4 << 20).unwrap())
}

pub(crate) async fn insert(store: &Datastore, seed: u8) -> Result<Inserted> {
    let (digest, blob, size) = chunk(seed);
    store.insert_chunk(digest, blob, size).await
}

/// Checksum of a fixed index.
pub(crate) fn fixed_csum(digests: &[Digest]) -> Digest {
    Digest::of(&digests.iter().flat_map(|d| d.0).collect::<Vec<u8>>())
}

/// A manifest that lists one image.
pub(crate) fn manifest(snapshot: &Snapshot, csum: Digest, size: u64) -> Vec<u8> {
    let mut manifest = Manifest::new(snapshot);
    let filename = name("disk.img.fidx");
    manifest.add_file(ManifestFile { filename, crypt_mode: CryptMode::None, size, csum }).unwrap();
    manifest.to_blob()
}

/// What a backup finishes under.
pub(crate) async fn stay(store: &Datastore) -> Stay {
    store.watch_taken().stay().await
}

/// Writes chunks and their index into a lease, and finishes it.
pub(crate) async fn write_backup(store: &Datastore, lease: &BackupLease, seeds: &[u8]) -> Result<()> {
    let size = (seeds.len() as u64) << 22;
    let writer = lease.create_fixed(&name("disk.img.fidx"), size).await?;
    let mut slots = Vec::new();
    for (slot, seed) in (0..).zip(seeds) {
        insert(store, *seed).await?;
        slots.push((slot, chunk(*seed).0));
    }
    writer.write_slots(slots.clone()).await?;
    let digests: Vec<Digest> = slots.iter().map(|(_, digest)| *digest).collect();
    let closed = writer.close(fixed_csum(&digests)).await?;
    let conf = blob::encode(b"memory: 512\n", Compression::None);
    lease.store_blob(&name("vm.conf.blob"), conf.into()).await?;
    lease.finish(manifest(lease.snapshot(), closed.csum, closed.size_bytes), stay(store).await).await
}

/// A whole backup.
pub(crate) async fn back_up(store: &Datastore, snapshot: &Snapshot, seeds: &[u8]) -> Result<()> {
    let lease = store.begin_backup(&root(), snapshot, &auth(), false).await?;
    match write_backup(store, &lease, seeds).await {
        Ok(()) => Ok(()),
        Err(e) => {
            // The failure that led here counts, not that of the clean-up.
            let _ = lease.abandon().await;
            Err(e)
        }
    }
}

/// Fails operations by their number, from [`Self::arm`] on.
#[derive(Debug)]
pub(crate) struct Countdown {
    count: AtomicU64,
    fail_at: u64,
    errno: i32,
    /// The disk is gone from then on, as after a crash; else only that operation fails.
    for_good: bool,
}

const UNARMED: u64 = 1 << 60;

impl Countdown {
    /// `fail_at` counts from 0.
    pub(crate) fn new(fail_at: u64, errno: i32, for_good: bool) -> Arc<Self> {
        Arc::new(Self { count: AtomicU64::new(UNARMED), fail_at, errno, for_good })
    }

    pub(crate) fn arm(&self) {
        self.count.store(0, Ordering::SeqCst);
    }

    /// Operations since it was armed.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}

impl Fault for Countdown {
    fn before(&self, _op: &'static str, _path: Option<&Path>) -> io::Result<()> {
        let at = self.count.fetch_add(1, Ordering::SeqCst);
        if at == self.fail_at || (self.for_good && (self.fail_at..UNARMED).contains(&at)) {
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        Ok(())
    }
}

/// Waits until nobody in this process has the datastore at `base` open, as after the end of a process.
pub(crate) async fn closed(base: &Path) {
    while super::process_lock::is_open(base) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// A dead daemon holds no locks and a closed one has no record of temporary files; here its threads may need a moment to let go.
pub(super) async fn reopen(base: &Path) -> Datastore {
    let is_record = |path: &Path| path.to_str().is_some_and(|p| p.contains(super::RECORD_PREFIX));
    let is_held = |path: &Path| {
        let exclusive = crate::engine::LockMode::Exclusive;
        std::fs::File::open(path).is_ok_and(|file| crate::engine::try_flock(&file, exclusive).is_err())
    };
    for _ in 0..2000 {
        let mut entries = std::fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path());
        if !super::process_lock::is_open(base) && !entries.any(|path| is_record(&path) && is_held(&path)) {
            return open(base).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the old datastore is still open");
}

/// Every path below `dir`, relative to it.
pub(crate) fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path.clone());
            }
            found.push(path.strip_prefix(dir).unwrap().to_owned());
        }
    }
    found.sort();
    found
}
