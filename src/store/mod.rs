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
//! | what a presence check means | [`presence`], `check` |
//! | the life of a backup | `backup` |

mod backup;
mod check;
mod chunk_store;
pub mod collision;
mod datastore;
mod file_reader;
mod gc_status;
mod index_read;
mod index_write;
pub mod layout;
pub mod presence;
mod reader;
mod snapshot;
mod tree;

pub use backup::{BackupLease, Base};
pub use check::Freshness;
pub use chunk_store::Inserted;
pub use datastore::{CheckSwitches, Datastore, DatastoreConfig, SyncLevel};
pub use file_reader::{FileReader, STREAM_BLOCK_BYTES};
pub use index_read::{IndexEntry, IndexReader, IndexScan};
pub use index_write::{ClosedIndex, DynamicWriter, FixedWriter};
pub use presence::{CheckReport, MissingReason};
pub use reader::ReaderLease;
pub use snapshot::{FileInfo, GroupFilter, LoadedManifest, SnapshotInfo};
pub use tree::{Counts, GroupInfo, NamespaceRemoval, SnapshotFiles, TypeCounts};
