//! The public face of a datastore.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::backup::BackupLease;
use super::check::Freshness;
use super::chunk_store::Inserted;
use super::presence::CheckReport;
use super::reader::ReaderLease;
use super::snapshot::{FileInfo, GroupFilter, LoadedManifest, SnapshotInfo};
use super::tree::{Counts, GroupInfo, NamespaceRemoval};
use crate::clock::Clock;
use crate::engine::{Class, Engine, FsUsage};
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::types::{AuthId, ChunkSize, DatastoreName, Digest, Group, Namespace, Snapshot};

/// What is made durable, and when (`tuning: sync-level` of spec 01 §6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncLevel {
    /// Nothing is synced; a power cut may cost the last snapshots.
    None,
    /// Every file when it appears, with its directory.
    File,
    /// One `syncfs` when a backup finishes, before its manifest appears.
    #[default]
    Filesystem,
}

/// Which known-chunk checks are made (design §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CheckSwitches {
    /// Before an entry is applied.
    pub append: bool,
    /// Before a backup finishes.
    pub finish: bool,
    /// When an index of the base is served or cloned.
    pub preflight: bool,
}

impl Default for CheckSwitches {
    fn default() -> Self {
        Self { append: true, finish: true, preflight: true }
    }
}

/// What a datastore is told when it is opened.
#[derive(Clone, Debug)]
pub struct DatastoreConfig {
    /// Its name, unique in this daemon.
    pub name: DatastoreName,
    /// Its directory.
    pub path: PathBuf,
    /// A line for listings.
    pub comment: Option<String>,
    /// What is made durable, and when.
    pub sync_level: SyncLevel,
    /// Which known-chunk checks are made; the session asks.
    pub checks: CheckSwitches,
    /// Owner and group of new objects when we run as root; `None` takes those of the base directory.
    pub owner: Option<(u32, u32)>,
    /// Where manifest locks lie if a server of the original kind works on the same directory at the same time:
    /// `/run/proxmox-backup/locks` of releases before 3.3.5. `None` locks the manifest file itself.
    pub lock_dir: Option<PathBuf>,
}

impl DatastoreConfig {
    /// Everything at its default.
    pub fn new(name: DatastoreName, path: impl Into<PathBuf>) -> Self {
        Self {
            name,
            path: path.into(),
            comment: None,
            sync_level: SyncLevel::default(),
            checks: CheckSwitches::default(),
            owner: None,
            lock_dir: None,
        }
    }
}

/// An open datastore; cheap to clone.
#[derive(Clone, Debug)]
pub struct Datastore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: DatastoreConfig,
    engine: Engine,
    clock: Clock,
}

fn not_yet<T>() -> Result<T> {
    Err(Error::closed("not yet"))
}

impl Datastore {
    /// Makes a new datastore: the base directory (which may exist and be empty of a `.chunks`), `.chunks`, `.lock` and the 65,536
    /// chunk directories, in this order, with the modes of spec 01 §1.2. `owner` needs root.
    pub async fn create(path: &Path, owner: Option<(u32, u32)>, engine: &Engine) -> Result<()> {
        let _ = (path, owner, engine);
        not_yet()
    }

    /// Checks every directory and mode of an existing datastore that is to be adopted, and names the first that is wrong together
    /// with the command that puts it right. Looks at all 65,536 chunk directories: for the day of adoption, not for every start.
    pub async fn verify_layout(path: &Path, owner: Option<(u32, u32)>, engine: &Engine) -> Result<()> {
        let _ = (path, owner, engine);
        not_yet()
    }

    /// Opens a datastore, and removes the temporary files that a crashed run of this program left in it.
    pub async fn open(config: DatastoreConfig, engine: Engine, clock: Clock) -> Result<Self> {
        Ok(Self { inner: Arc::new(Inner { config, engine, clock }) })
    }

    /// Its name.
    pub fn name(&self) -> &DatastoreName {
        &self.inner.config.name
    }

    /// What it was told when it was opened.
    pub fn config(&self) -> &DatastoreConfig {
        &self.inner.config
    }

    /// Its engine.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Its directory.
    pub fn base_path(&self) -> &Path {
        &self.inner.config.path
    }

    /// Whether it lies on a network or user-space file system, where another host may change files behind our back.
    pub fn is_network_fs(&self) -> bool {
        false
    }

    /// Space of its file system.
    pub async fn usage(&self) -> Result<FsUsage> {
        not_yet()
    }

    /// Groups and snapshots of all namespaces.
    pub async fn counts(&self) -> Result<Counts> {
        not_yet()
    }

    /// Whether a namespace is there; the root always is.
    pub async fn namespace_exists(&self, ns: &Namespace) -> Result<bool> {
        let _ = ns;
        not_yet()
    }

    /// `parent` and all namespaces below it, at most `max_depth` levels down (`None`: all), parents before children.
    pub async fn namespaces(&self, parent: &Namespace, max_depth: Option<usize>) -> Result<Vec<Namespace>> {
        let _ = (parent, max_depth);
        not_yet()
    }

    /// Makes a namespace; fine if it exists already.
    pub async fn create_namespace(&self, parent: &Namespace, name: &str) -> Result<Namespace> {
        let _ = (parent, name);
        not_yet()
    }

    /// Removes a namespace and those below it, with `delete_groups` also their groups; protected snapshots stay, and are an error
    /// once all else is gone.
    pub async fn delete_namespace(&self, ns: &Namespace, delete_groups: bool) -> Result<NamespaceRemoval> {
        let _ = (ns, delete_groups);
        not_yet()
    }

    /// All groups of a namespace that have a readable owner, sorted.
    pub async fn groups(&self, ns: &Namespace) -> Result<Vec<GroupInfo>> {
        let _ = ns;
        not_yet()
    }

    /// All snapshots of the groups that `filter` lets through, by group, oldest first.
    pub async fn snapshots(&self, ns: &Namespace, filter: GroupFilter) -> Result<Vec<SnapshotInfo>> {
        let _ = (ns, filter);
        not_yet()
    }

    /// Files of a snapshot: those of the manifest, then the manifest, then the others (spec 05 §4).
    pub async fn files(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<Vec<FileInfo>> {
        let _ = (ns, snapshot);
        not_yet()
    }

    /// Owner of a group.
    pub async fn owner(&self, ns: &Namespace, group: &Group) -> Result<AuthId> {
        let _ = (ns, group);
        not_yet()
    }

    /// Removes a snapshot, and its group when that was the last one. Refused while somebody uses it, and when it is protected.
    pub async fn remove_snapshot(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<()> {
        let _ = (ns, snapshot);
        not_yet()
    }

    /// Stores the client's log of a backup; refused if there is one. The CRC is checked here.
    pub async fn upload_client_log(&self, ns: &Namespace, snapshot: &Snapshot, blob: Vec<u8>) -> Result<()> {
        let _ = (ns, snapshot, blob);
        not_yet()
    }

    /// Reads a manifest.
    pub async fn load_manifest(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<LoadedManifest> {
        let _ = (ns, snapshot);
        not_yet()
    }

    /// Changes a manifest under its lock: waits up to 5 s for it, then load, edit, atomic and durable replacement.
    pub async fn update_manifest(
        &self,
        ns: &Namespace,
        snapshot: &Snapshot,
        edit: impl FnOnce(&mut Manifest) + Send + 'static,
    ) -> Result<()> {
        let _ = (ns, snapshot, edit);
        not_yet()
    }

    /// Puts a chunk into the store, as spec 01 §6.1 and 03 §13 decide. `encoded` is a data blob with its CRC set that belongs to
    /// `digest`; `size` is the length of its plaintext. Inserts of one digest wait for each other, different digests never do.
    pub async fn insert_chunk(&self, digest: Digest, encoded: Bytes, size: ChunkSize) -> Result<Inserted> {
        let _ = (digest, encoded, size);
        not_yet()
    }

    /// The stored blob of a chunk, unchanged.
    pub async fn read_chunk(&self, digest: Digest) -> Result<Vec<u8>> {
        let _ = digest;
        not_yet()
    }

    /// Whether chunks are there with a plausible size (design §3). What is missing becomes suspect: its next upload is written
    /// whatever lies there by then. Before anything is called missing, the store itself is seen to be in its place.
    pub async fn check_chunks(&self, digests: Vec<Digest>, class: Class, freshness: Freshness) -> Result<CheckReport> {
        self.check_chunks_with(&digests, class, freshness, |_| {}).await
    }

    /// As [`Self::check_chunks`]; `progress` hears after each batch of at most 4096 how many were asked so far.
    pub async fn check_chunks_with(
        &self,
        digests: &[Digest],
        class: Class,
        freshness: Freshness,
        progress: impl FnMut(usize) + Send,
    ) -> Result<CheckReport> {
        let _ = (digests, class, freshness, progress);
        not_yet()
    }

    /// Remembers chunks as doubtful (a bounded number; the oldest are forgotten first): their next upload is written in any case.
    pub fn mark_suspect(&self, digests: &[Digest]) {
        let _ = digests;
    }

    /// Starts a backup: namespace, group and owner checked, base chosen, directory made, locks taken (spec 03 §2 steps 5, 7–12).
    /// With `benchmark` the owner is not checked.
    pub async fn begin_backup(
        &self,
        ns: &Namespace,
        snapshot: &Snapshot,
        auth: &AuthId,
        benchmark: bool,
    ) -> Result<BackupLease> {
        let _ = (ns, snapshot, auth, benchmark);
        not_yet()
    }

    /// Starts reading a snapshot, which is locked against removal meanwhile. An unfinished one that nobody writes may be read.
    pub async fn begin_reader(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<ReaderLease> {
        let _ = (ns, snapshot);
        not_yet()
    }
}
