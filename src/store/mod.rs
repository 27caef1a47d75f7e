//! A datastore: the directory tree of spec 01, its locks, its chunks and its snapshots.
//!
//! [`Datastore`] is the public face and a cheap clone. Every method that touches a disk is async and does its file work
//! on the engine's pool; nothing here blocks a runtime thread. What a caller gets are values and reports; wording a task log is
//! the caller's business.
//!
//! | to know | read |
//! |---|---|
//! | where things lie | [`layout`] |
//! | how a file appears | `durable`, `temps` |
//! | who waits for whom | `lock`, `claims` |
//! | what becomes of an uploaded chunk | [`collision`], `chunk_store` |
//! | which chunk directories need not be read again | `dir_names` |
//! | what keeps a chunk from being removed | `custody`, `live_set`, [`Collection`] |
//! | what a presence check means | [`presence`], `check` |
//! | the life of a backup | `backup` |
//! | how many groups are listed | `listing`, `manifest_cache` |
//! | what a maintenance mode refuses | `operations` |
//! | what becomes of a bad chunk | `set_aside` |
//! | how a running backup hears of what a job takes away | `taken` |
//! | what a look over all indexes needs | `survey` |
//! | how many snapshots are marked as failed | `marks` |

mod attributes;
mod backup;
mod begin;
mod budget;
mod census;
mod check;
mod chunk_store;
mod claims;
mod collection;
pub mod collision;
mod config;
mod create;
mod custody;
mod datastore;
mod destroy;
mod dir_names;
mod durable;
mod explain;
mod file_reader;
mod gc_status;
mod index_read;
mod index_write;
mod journal;
pub mod layout;
mod lease;
mod listing;
mod live_set;
mod lock;
mod manifest_cache;
mod manifest_lock;
mod marks;
mod network_fs;
mod operations;
pub mod presence;
mod process_lock;
mod reader;
mod removal;
mod set_aside;
mod snapshot;
mod survey;
mod suspects;
mod sweep;
mod sweep_plan;
mod taken;
mod temps;
mod tree;

pub use attributes::{GROUP_NOTES_BYTES_MAX, SnapshotState};
pub use backup::{BackupLease, Base};
pub use budget::{BackgroundConfig, Budget, Cause, Guest, Rate, Share as BudgetShare, Turn, Waited};
pub use census::{Census, GcCensus, GroupCensus};
pub use check::{CHECK_BATCH_MAX, Freshness};
pub use chunk_store::Inserted;
pub use collection::{
    Candidate, ChunkDirs, ChunkName, Collection, DirListing, DirNames, IndexFile, KnownDirs, LOOKED_AT_ONCE, LookedDir,
    Pass, Remains, Removed, Unchanged,
};
pub use config::{CheckSwitches, DatastoreConfig, GC_CUTOFF_MINUTES, GC_RESERVE_BYTES, GcConfig, GcMethod, SyncLevel};
pub use custody::{Change, Keeper};
pub use datastore::{Datastore, WeakDatastore};
pub use destroy::LeftBehind;
pub use dir_names::KnownDir;
pub use file_reader::{FileReader, STREAM_BLOCK_BYTES};
pub use index_read::{IndexEntry, IndexReader, IndexScan, SCAN_BLOCK_BYTES};
pub use index_write::{ARCHIVE_BYTES_MAX, ClosedIndex, DynamicWriter, FixedWriter};
pub use journal::Journal;
pub use listing::{GroupListing, GroupSummary, SnapshotListing};
pub use manifest_cache::ListingCounters;
pub use operations::{
    ActiveOperations, MAINTENANCE_MESSAGE_BYTES_MAX, MaintenanceKind, MaintenanceMode, Operation, OperationGuard,
};
pub use presence::{CheckReport, MissingReason};
pub use process_lock::{Exclusion, Share};
pub use reader::ReaderLease;
pub use removal::{OnProtected, RemovalReport};
pub use set_aside::{Doubt, Stored};
pub use snapshot::{FileInfo, GroupFilter, LoadedManifest, SnapshotInfo};
pub use survey::{Found, IndexedSnapshot, SetAside};
pub use suspects::SUSPECTS_MAX;
pub use taken::{Stay, Taken, TakenWatch, Taking};
pub use temps::RECORD_PREFIX;
pub use tree::{Counts, GroupInfo, SnapshotFiles, TypeCounts};

#[cfg(test)]
mod attributes_tests;
#[cfg(test)]
mod backup_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod listing_tests;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tree_tests;
