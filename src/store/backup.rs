//! The life of a backup on the disk: directory and locks taken, files written, then finished or gone.

use bytes::Bytes;

use super::file_reader::FileReader;
use super::index_read::IndexReader;
use super::index_write::{DynamicWriter, FixedWriter};
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::types::{ArchiveName, Namespace, Snapshot};

/// The snapshot that a backup may build on (`last_backup` of spec 03 §4), locked against removal while the lease lives.
#[derive(Clone, Debug)]
pub struct Base {
    /// Which one.
    pub snapshot: Snapshot,
    /// Its manifest as it was when the backup began.
    pub manifest: Manifest,
}

/// The right to write one new snapshot. Holds the group's lock, the new snapshot's, a shared one on the base and a share of the
/// process lock, until [`Self::finish`] or [`Self::abandon`]; dropped without either, it is abandoned on the engine's pool.
#[derive(Debug)]
pub struct BackupLease {
    namespace: Namespace,
    snapshot: Snapshot,
    base: Option<Base>,
}

impl BackupLease {
    /// Namespace of the snapshot.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The snapshot being written.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The snapshot that this one may build on.
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// Starts a fixed index of 4 MiB chunks for an archive of `size_bytes`.
    pub async fn create_fixed(&self, name: &ArchiveName, size_bytes: u64) -> Result<FixedWriter> {
        Err(Error::closed((name, size_bytes).0.to_string()))
    }

    /// Starts a fixed index whose slots are those of the base's index of the same name, if that one's recomputed checksum is
    /// `reuse_csum` (hex as the client sent it) and it has as many slots.
    pub async fn create_fixed_from_base(
        &self,
        name: &ArchiveName,
        size_bytes: u64,
        reuse_csum: &str,
    ) -> Result<FixedWriter> {
        Err(Error::closed((name, size_bytes, reuse_csum).2.to_string()))
    }

    /// Starts a dynamic index.
    pub async fn create_dynamic(&self, name: &ArchiveName) -> Result<DynamicWriter> {
        Err(Error::closed(name.to_string()))
    }

    /// An index of the base; "no valid previous backup" without one.
    pub async fn open_base_index(&self, name: &ArchiveName) -> Result<IndexReader> {
        Err(Error::closed(name.to_string()))
    }

    /// A blob of the base, its manifest too; `NotFound` if it has none of that name.
    pub async fn open_base_blob(&self, name: &ArchiveName) -> Result<FileReader> {
        Err(Error::closed(name.to_string()))
    }

    /// An index of this snapshot that has been closed (for the check at finish).
    pub async fn open_index(&self, name: &ArchiveName) -> Result<IndexReader> {
        Err(Error::closed(name.to_string()))
    }

    /// Stores a blob whose CRC the caller has checked; replaces one of that name. Refuses the manifest: that is for
    /// [`Self::finish`].
    pub async fn store_blob(&self, name: &ArchiveName, encoded: Bytes) -> Result<()> {
        Err(Error::closed((name, encoded).0.to_string()))
    }

    /// Makes everything durable as the sync level says, then lets the manifest appear, then releases all locks. On an error
    /// nothing is finished and the lease stays as it was.
    pub async fn finish(&self, manifest_blob: Vec<u8>) -> Result<()> {
        Err(Error::closed(manifest_blob.len().to_string()))
    }

    /// Marks the base as failed on behalf of the task `upid`: an index names a chunk that is gone. Fine without a base.
    pub async fn mark_base_failed(&self, upid: &str) -> Result<()> {
        Err(Error::closed(upid.to_string()))
    }

    /// Removes the unfinished snapshot, and its group if this backup made it and it is empty, then releases all locks. Waits for
    /// file work of this lease under way; later calls of its methods answer `Closed`. Does nothing after [`Self::finish`].
    pub async fn abandon(&self) -> Result<()> {
        Err(Error::closed("not yet"))
    }
}
