//! What the tests of the store share: a small datastore, chunks, and whole backups.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{BackupLease, Datastore, DatastoreConfig, Inserted, SyncLevel};
use crate::clock::{Clock, EpochSecs};
use crate::engine::{Disk, Engine, EngineConfig, Fault};
use crate::error::Result;
use crate::format::blob::{self, Compression};
use crate::format::manifest::{CryptMode, Manifest, ManifestFile};
use crate::types::{ArchiveName, AuthId, ChunkSize, Digest, Namespace, Snapshot};

/// 2024-06-05T14:23:38Z, the time of all recordings.
pub(super) const T0: i64 = 1_717_597_418;

pub(super) fn engine() -> Engine {
    Engine::start("test", &EngineConfig::default()).unwrap()
}

pub(super) fn faulty_engine(fault: Arc<dyn Fault>) -> Engine {
    Engine::start_on("test", &EngineConfig::default(), Disk::with_fault(fault)).unwrap()
}

/// A datastore without its 65,536 chunk directories: they are made as chunks come.
pub(super) fn make_base(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let base = dir.join("store");
    for (path, mode) in [(base.clone(), 0o755), (base.join(".chunks"), 0o750)] {
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    base
}

pub(super) fn config(base: &Path, level: SyncLevel) -> DatastoreConfig {
    DatastoreConfig { sync_level: level, ..DatastoreConfig::new("store1".parse().unwrap(), base) }
}

pub(super) async fn open(base: &Path) -> Datastore {
    open_on(base, engine(), SyncLevel::File).await.unwrap()
}

pub(super) async fn open_on(base: &Path, engine: Engine, level: SyncLevel) -> Result<Datastore> {
    Datastore::open(config(base, level), engine, Clock::manual(EpochSecs(T0))).await
}

pub(super) fn snapshot(group: &str, hours: i64) -> Snapshot {
    Snapshot::new(group.parse().unwrap(), EpochSecs(T0 + 3600 * hours)).unwrap()
}

pub(super) fn name(text: &str) -> ArchiveName {
    text.parse().unwrap()
}

pub(super) fn auth() -> AuthId {
    "tester@pbs!bench".parse().unwrap()
}

pub(super) fn root() -> Namespace {
    Namespace::root()
}

/// A chunk of 4 MiB that compresses well: its digest and blob.
pub(super) fn chunk(seed: u8) -> (Digest, Bytes, ChunkSize) {
    let plain = vec![seed; 4 << 20];
    let blob = blob::encode(&plain, Compression::Try);
    (Digest::of(&plain), blob.into(), ChunkSize::new(4 << 20).unwrap())
}

pub(super) async fn insert(store: &Datastore, seed: u8) -> Result<Inserted> {
    let (digest, blob, size) = chunk(seed);
    store.insert_chunk(digest, blob, size).await
}

/// Checksum of a fixed index.
pub(super) fn fixed_csum(digests: &[Digest]) -> Digest {
    Digest::of(&digests.iter().flat_map(|d| d.0).collect::<Vec<u8>>())
}

/// A manifest that lists one image.
pub(super) fn manifest(snapshot: &Snapshot, csum: Digest, size: u64) -> Vec<u8> {
    let mut manifest = Manifest::new(snapshot);
    let filename = name("disk.img.fidx");
    manifest.add_file(ManifestFile { filename, crypt_mode: CryptMode::None, size, csum }).unwrap();
    manifest.to_blob()
}

/// Writes chunks and their index into a lease, and finishes it.
pub(super) async fn write_backup(store: &Datastore, lease: &BackupLease, seeds: &[u8]) -> Result<()> {
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
    lease.finish(manifest(lease.snapshot(), closed.csum, closed.size_bytes)).await
}

/// A whole backup.
pub(super) async fn back_up(store: &Datastore, snapshot: &Snapshot, seeds: &[u8]) -> Result<()> {
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
