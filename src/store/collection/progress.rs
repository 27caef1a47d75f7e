//! The file that says how far a collection is, for the one after a crash. What is in it is the caller's business.

use std::io;
use std::sync::Arc;

use super::{Collection, Run};
use crate::engine::Disk;
use crate::error::{Error, Result};
use crate::store::Datastore;
use crate::store::durable::Weight;
use crate::store::explain::failed;
use crate::store::layout::{GC_PROGRESS_FILE, GC_STATUS_FILE, Layout};

/// Longest progress that is read; real ones have 600 bytes.
const PROGRESS_BYTES_MAX: u64 = 16 << 10;

impl Datastore {
    /// What the last collection said of how far it was, if it has not ended; `None` if it has, or if there was none.
    pub async fn gc_progress(&self) -> Result<Option<Vec<u8>>> {
        let inner = Arc::clone(&self.inner);
        self.engine().run(move |disk| read(disk, &inner.layout)).await?
    }
}

fn read(disk: &Disk, layout: &Layout) -> Result<Option<Vec<u8>>> {
    let path = layout.base().join(GC_PROGRESS_FILE);
    match disk.read(&path, PROGRESS_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("unable to read", &path, e)),
    }
}

impl Collection {
    /// Says how far this collection is, in place of what was said before. Appears whole or not at all; a power cut may cost it, which costs the next run
    /// some directories. On a full disk it fails: the reserve is for what matters.
    pub async fn write_progress(&self, progress: Vec<u8>) -> Result<()> {
        self.put(GC_PROGRESS_FILE, progress, Weight::Payload).await
    }

    /// Nothing is left to be resumed.
    pub async fn clear_progress(&self) -> Result<()> {
        self.on_disk(|disk, run| {
            let path = run.store.layout.base().join(GC_PROGRESS_FILE);
            match disk.unlink(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("unable to remove", &path, e)),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Stores the status of a complete run. Synced at both safe levels: a rename that reaches the disk ahead of the bytes would leave an empty file in
    /// place of the last status.
    pub async fn write_status(&self, status: Vec<u8>) -> Result<()> {
        self.put(GC_STATUS_FILE, status, Weight::Commit).await
    }

    /// What counts may use the reserve.
    async fn put(&self, name: &'static str, bytes: Vec<u8>, weight: Weight) -> Result<()> {
        self.on_disk(move |disk, run| {
            let path = run.store.layout.base().join(name);
            let put = || run.store.durable.put(disk, &path, &bytes, weight);
            let done = if weight == Weight::Commit { run.with_reserve(disk, put) } else { put() };
            done.map_err(|e| failed("unable to write", &path, e))
        })
        .await
    }

    async fn on_disk(&self, work: impl FnOnce(&Disk, &Run) -> Result<(), Error> + Send + 'static) -> Result<()> {
        let run = Arc::clone(&self.run);
        self.run.engine().run(move |disk| work(disk, &run)).await?
    }
}
