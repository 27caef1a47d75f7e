//! The life of a backup on the disk: directory and locks taken, files written, then finished or gone.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::config::SyncLevel;
use super::datastore::Inner;
use super::durable::Weight;
use super::explain::failed;
use super::file_reader::{FileReader, OpenFile};
use super::index_read::IndexReader;
use super::index_write::{DynamicWriter, FixedWriter};
use super::lease::Lease;
use super::snapshot::store_manifest;
use super::taken::Stay;
use crate::engine::Disk;
use crate::error::{Error, Result};
use crate::format::index::{INDEX_HEADER_BYTES, IndexCsum};
use crate::format::manifest::{Manifest, VerifyOutcome, VerifyState};
use crate::types::{ArchiveKind, ArchiveName, Digest, FIXED_CHUNK_BYTES, Namespace, Snapshot};

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
    lease: Arc<Lease>,
}

impl BackupLease {
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease: Arc::new(lease) }
    }

    /// Namespace of the snapshot.
    pub fn namespace(&self) -> &Namespace {
        &self.lease.namespace
    }

    /// The snapshot being written.
    pub fn snapshot(&self) -> &Snapshot {
        &self.lease.snapshot
    }

    /// The snapshot that this one may build on.
    pub fn base(&self) -> Option<&Base> {
        self.lease.base.as_ref()
    }

    fn store(&self) -> &Arc<Inner> {
        &self.lease.store
    }

    /// Does work that writes into the snapshot's directory; the pass stays with the work, whoever waits for it. A writer that was dropped just
    /// before is gone by then.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk, &Arc<Lease>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.lease.settled().await;
        let pass = self.lease.enter()?;
        let lease = Arc::clone(&self.lease);
        let work = self.store().engine.run(move |disk| {
            let done = work(disk, &lease);
            drop(pass);
            done
        });
        work.await?
    }

    /// Starts a fixed index of 4 MiB chunks for an archive of `size_bytes`.
    pub async fn create_fixed(&self, name: &ArchiveName, size_bytes: u64) -> Result<FixedWriter> {
        let name = name.clone();
        self.write(move |disk, lease| FixedWriter::create(disk, lease, &name, size_bytes, None)).await
    }

    /// Starts a fixed index whose slots are those of the base's index of the same name, if that one's recomputed checksum is
    /// `reuse_csum` (hex as the client sent it) and it has as many slots.
    pub async fn create_fixed_from_base(
        &self,
        name: &ArchiveName,
        size_bytes: u64,
        reuse_csum: &str,
    ) -> Result<FixedWriter> {
        let base = self.base().ok_or_else(|| Error::invalid("cannot reuse index - no valid previous backup exists"))?;
        let path = self.store().layout.snapshot(self.namespace(), &base.snapshot).join(name.as_str());
        let (name, reuse_csum) = (name.clone(), reuse_csum.to_owned());
        self.write(move |disk, lease| {
            let index = IndexReader::open(disk, &lease.store.engine, &path, ArchiveKind::FixedIndex).map_err(|e| {
                let absent = e.errno() == Some(libc::ENOENT);
                let plain = Error::invalid("cannot reuse index - no previous backup exists for archive");
                if absent { plain } else { e.context("cannot reuse index") }
            })?;
            let from = index.file().open();
            let csum = csum_of(from)?.to_string();
            if csum != reuse_csum {
                return Err(Error::invalid(format!(
                    "expected csum ({reuse_csum:.80}) doesn't match last backup's ({csum}), cannot do incremental backup"
                )));
            }
            let chunk_bytes = u64::from(FIXED_CHUNK_BYTES);
            if index.chunk_bytes() != Some(chunk_bytes) || index.count() != size_bytes.div_ceil(chunk_bytes) {
                return Err(Error::invalid("clone_data_from failed - index sizes not equal"));
            }
            FixedWriter::create(disk, lease, &name, size_bytes, Some(from))
        })
        .await
    }

    /// Starts a dynamic index.
    pub async fn create_dynamic(&self, name: &ArchiveName) -> Result<DynamicWriter> {
        let name = name.clone();
        self.write(move |disk, lease| DynamicWriter::create(disk, lease, &name)).await
    }

    fn base_or_error(&self) -> Result<&Base> {
        self.base().ok_or_else(|| Error::invalid("no valid previous backup"))
    }

    /// An index of the base; "no valid previous backup" without one.
    pub async fn open_base_index(&self, name: &ArchiveName) -> Result<IndexReader> {
        self.store().open_index(self.namespace(), &self.base_or_error()?.snapshot, name).await
    }

    /// A blob of the base, its manifest too; `NotFound` if it has none of that name.
    pub async fn open_base_blob(&self, name: &ArchiveName) -> Result<FileReader> {
        self.store().open_blob(self.namespace(), &self.base_or_error()?.snapshot, name).await
    }

    /// An index of this snapshot that has been closed (for the check at finish).
    pub async fn open_index(&self, name: &ArchiveName) -> Result<IndexReader> {
        self.store().open_index(self.namespace(), self.snapshot(), name).await
    }

    /// Stores a blob whose CRC the caller has checked; replaces one of that name. Refuses the manifest: that is for
    /// [`Self::finish`].
    pub async fn store_blob(&self, name: &ArchiveName, encoded: Bytes) -> Result<()> {
        if name.is_manifest() || name.kind() != ArchiveKind::Blob {
            return Err(Error::invalid(format!("'{name}' is not stored as a blob")));
        }
        let name = name.clone();
        self.write(move |disk, lease| {
            let path = lease.dir.join(name.as_str());
            let stored = lease.store.durable.put(disk, &path, &encoded, Weight::Payload);
            stored.map_err(|e| failed("unable to write blob", &path, e))
        })
        .await
    }

    /// Makes everything durable as the sync level says, then lets the manifest appear, then releases all locks. On an error
    /// nothing is finished and the lease stays as it was. What was seen to be there before `stay` began, or under it, is there when the
    /// manifest appears.
    ///
    /// The chunks were asked for relative to a directory that has been open since the start; so it is asked once more whether that is still
    /// the one that a reader of this snapshot will find.
    pub async fn finish(&self, manifest_blob: Vec<u8>, stay: Stay) -> Result<()> {
        self.store().checker.confirm_place(&self.store().engine).await?;
        let share = self
            .write(move |disk, lease| {
                if lease.is_writing() {
                    return Err(Error::invalid("found open index writer - unable to finish backup"));
                }
                check_base(disk, lease)?;
                sync_payload(disk, lease)?;
                let path = lease.store.layout.manifest(&lease.namespace, &lease.snapshot);
                if let Err(e) = store_manifest(disk, &lease.store.durable, &path, &manifest_blob) {
                    // It may be there, and only the sync of its directory failed: then nobody knows for how long.
                    let _ = disk.unlink(&path);
                    return Err(e);
                }
                // The work goes on when its caller is gone, and so does the stay.
                drop(stay);
                lease.store.manifests.forget(&lease.namespace, &lease.snapshot);
                Ok(lease.set_finished())
            })
            .await?;
        if let Some(share) = share {
            share.release().await;
        }
        Ok(())
    }

    /// Marks the base as failed on behalf of the task `upid`: an index names a chunk that is gone. Fine without a base.
    pub async fn mark_base_failed(&self, upid: &str) -> Result<()> {
        let Some(base) = self.base() else { return Ok(()) };
        let failed = VerifyState { state: VerifyOutcome::Failed, upid: upid.to_owned() };
        let edit = move |manifest: &mut Manifest| manifest.set_verify_state(failed);
        self.store().update_manifest(self.namespace(), &base.snapshot, edit).await
    }

    /// Removes the unfinished snapshot, and its group if this backup made it and it is empty, then releases all locks. Waits for
    /// file work of this lease under way; later calls of its methods answer `Closed`. Does nothing after [`Self::finish`].
    pub async fn abandon(&self) -> Result<()> {
        self.lease.close();
        self.lease.wait_over().await
    }
}

impl Drop for BackupLease {
    fn drop(&mut self) {
        self.lease.close();
    }
}

/// The checksum over all entries of an index.
fn csum_of(index: &OpenFile) -> Result<Digest> {
    let mut csum = IndexCsum::new();
    let mut offset = INDEX_HEADER_BYTES;
    loop {
        let block = index.read_at(offset, super::STREAM_BLOCK_BYTES)?;
        if block.is_empty() {
            return Ok(csum.finish());
        }
        csum.update(&block);
        offset += block.len() as u64;
    }
}

/// The base is locked, but not against somebody who removes directories by hand: then known chunks may be gone with it.
fn check_base(disk: &Disk, lease: &Lease) -> Result<()> {
    let Some(base) = &lease.base else { return Ok(()) };
    let dir = lease.store.layout.snapshot(&lease.namespace, &base.snapshot);
    match disk.lstat(&dir) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::invalid(format!(
            "base snapshot {} was removed during the backup - unable to finish, chunks may be missing",
            base.snapshot
        ))),
        Err(e) => Err(failed("unable to stat base snapshot", &dir, e)),
    }
}

/// What to sync at finish when the level was changed meanwhile: what was written before the change lacks the syncs that the new level
/// takes for made, so then all is synced, unless nothing is wanted any more.
fn level_of(begun: SyncLevel, now: SyncLevel) -> SyncLevel {
    if begun == now || now == SyncLevel::None { now } else { SyncLevel::Filesystem }
}

/// Everything that the manifest will count on, on the disk before the manifest is.
fn sync_payload(disk: &Disk, lease: &Lease) -> Result<()> {
    let layout = &lease.store.layout;
    let sync = |dir: &Path| disk.fsync_dir(dir).map_err(|e| failed("unable to sync", dir, e));
    match level_of(lease.level, lease.store.durable.level()) {
        SyncLevel::None => Ok(()),
        SyncLevel::File => {
            // The files are synced; their directories are not known to the ones above yet.
            let (ns, group) = (&lease.namespace, lease.snapshot.group());
            sync(&lease.dir)?;
            sync(&layout.group(ns, group))?;
            if lease.group_made {
                sync(&layout.type_dir(ns, group.ty()))?;
                sync(&layout.namespace(ns))?;
            }
            Ok(())
        }
        SyncLevel::Filesystem => {
            // One file system is the rule; with .chunks on another (a mount, a symbolic link) that one counts too.
            disk.syncfs(layout.base()).map_err(|e| failed("unable to sync", layout.base(), e))?;
            if lease.store.chunks_elsewhere {
                disk.syncfs(&layout.chunks()).map_err(|e| failed("unable to sync", &layout.chunks(), e))?;
            }
            Ok(())
        }
    }
}
