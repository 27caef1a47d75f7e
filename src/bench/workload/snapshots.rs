//! Snapshots for verifications and collections: written through the store as a backup writes them, without a client.

use super::Ground;
use crate::clock::{Clock, EpochSecs};
use crate::engine::Engine;
use crate::error::Result;
use crate::format::dynamic_index::DynamicEntry;
use crate::format::index::IndexCsum;
use crate::format::manifest::{CryptMode, Manifest, ManifestFile};
use crate::store::{Datastore, DatastoreConfig};
use crate::task::{Registry, Task};
use crate::types::{ArchiveName, AuthId, Digest, Namespace, Snapshot};

/// Time of the first snapshot: 2024-06-05T14:23:38Z.
const FIRST_SECS: i64 = 1_717_597_418;

/// Entries that are written at a time.
const STEP: usize = 4096;

/// Who owns them.
pub fn owner() -> AuthId {
    "bench@pbs".parse().expect("a user")
}

/// The snapshot `number`, a second later than the one before.
pub fn name(number: usize) -> Result<Snapshot> {
    let offset = i64::try_from(number).unwrap_or(i64::MAX);
    Snapshot::new("host/bench".parse()?, EpochSecs(FIRST_SECS.saturating_add(offset)))
}

/// Writes a snapshot with one stream that consists of `digests`, each of `bytes`. Whether they are there is not asked.
pub fn write(ground: &Ground, engine: &Engine, number: usize, digests: &[Digest], bytes: u64) -> Result<()> {
    let path = ground.scratch()?.store();
    let archive: ArchiveName = "data.stream.didx".parse()?;
    ground.runtime.block_on(async {
        let config = DatastoreConfig::new("bench".parse()?, path);
        let store = Datastore::open(config, engine.clone(), Clock::system()).await?;
        let snapshot = name(number)?;
        let lease = store.begin_backup(&Namespace::root(), &snapshot, &owner(), false).await?;
        let writer = lease.create_dynamic(&archive).await?;
        let (mut end, mut first, mut csum) = (0, 0, IndexCsum::new());
        for step in digests.chunks(STEP) {
            ground.go_on()?;
            let entry = |digest: &Digest| {
                end += bytes;
                DynamicEntry { end, digest: *digest }
            };
            let entries: Vec<DynamicEntry> = step.iter().map(entry).collect();
            for entry in &entries {
                csum.update(&entry.encode());
            }
            writer.append(first, entries).await?;
            first += step.len() as u64;
        }
        let closed = writer.close(first, csum.finish()).await?;
        let mut manifest = Manifest::new(&snapshot);
        manifest.add_file(ManifestFile {
            filename: archive,
            crypt_mode: CryptMode::None,
            size: closed.size_bytes,
            csum: closed.csum,
        })?;
        lease.finish(manifest.to_blob(), store.watch_taken().stay().await).await
    })
}

/// A task for a job that wants to tell one. Their logs lie in the scratch directory.
#[derive(Debug)]
pub struct Tasks(Registry);

impl Tasks {
    /// Opens the directory of the logs.
    pub fn open(ground: &Ground) -> Result<Self> {
        Registry::open(&ground.scratch()?.path().join("tasks"), Clock::system()).map(Self)
    }

    /// Starts one.
    pub async fn start(&self, worker_type: &str) -> Result<Task> {
        self.0.start(worker_type, Some("bench".to_owned()), &owner()).await
    }
}
