//! What a datastore is told when it is opened. Pure.

use std::path::PathBuf;

use super::budget::BackgroundConfig;
use super::operations::MaintenanceMode;
use crate::types::DatastoreName;

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

impl CheckSwitches {
    /// Whether finish may take a name in a directory for a chunk. A name says nothing about a size, so that has been asked before in the
    /// same session: by append for the chunks that the client names, by preflight for those of a cloned index.
    pub fn finish_by_name(&self) -> bool {
        self.append && self.preflight
    }
}

impl Default for CheckSwitches {
    fn default() -> Self {
        Self { append: true, finish: true, preflight: true }
    }
}

/// How garbage collection tells what is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum GcMethod {
    /// By the set of chunks that the indexes name, in memory; live chunks are not touched.
    #[default]
    #[serde(rename = "memory")]
    Memory,
    /// As the original: the access time of each chunk that an index names is set first, and all are looked at.
    #[serde(rename = "atime")]
    AccessTime,
}

/// What garbage collection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcConfig {
    /// How it tells what is in use.
    pub method: GcMethod,
    /// Bytes that its set of live chunks may take.
    pub memory_max: u64,
    /// What was last used so many minutes before a run stays, whoever names it.
    pub cutoff_minutes: u32,
    /// Bytes that are kept for it, for when the disk is full; 0 for none.
    pub reserve_bytes: u64,
}

/// [`GcConfig::reserve_bytes`] unless it is set. What a run writes takes some kilobytes; the rest is for file systems that need new space for the
/// metadata in which a removal is noted.
pub const GC_RESERVE_BYTES: u64 = 4 << 20;

/// [`GcConfig::cutoff_minutes`] unless it is set (spec 07 §1): a day, for `relatime` mounts, and five minutes for clocks.
pub const GC_CUTOFF_MINUTES: u32 = 1445;

impl Default for GcConfig {
    /// 256 MiB: 23 million chunks, some 90 TB of images, in one pass.
    fn default() -> Self {
        Self {
            method: GcMethod::default(),
            memory_max: 256 << 20,
            cutoff_minutes: GC_CUTOFF_MINUTES,
            reserve_bytes: GC_RESERVE_BYTES,
        }
    }
}

/// What a datastore is told: when it is opened, and again when its configuration changes ([`Datastore::set_config`]).
///
/// [`Datastore::set_config`]: super::Datastore::set_config
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether each new backup is verified; the session asks.
    pub verify_new: bool,
    /// Owner and group of new objects when we run as root; `None` takes those of the base directory.
    pub owner: Option<(u32, u32)>,
    /// Where manifest locks lie if a server of the original kind works on the same directory at the same time:
    /// `/run/proxmox-backup/locks` of releases before 3.3.5. `None` locks the manifest file itself.
    pub lock_dir: Option<PathBuf>,
    /// What is refused from the first moment on; [`Datastore::set_maintenance`](super::Datastore::set_maintenance) changes it later.
    pub maintenance: Option<MaintenanceMode>,
    /// What garbage collection is told.
    pub gc: GcConfig,
    /// What all background work is told.
    pub background: BackgroundConfig,
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
            maintenance: None,
            verify_new: false,
            gc: GcConfig::default(),
            background: BackgroundConfig::default(),
        }
    }
}
