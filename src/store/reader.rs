//! A snapshot being read: locked shared, so nobody removes it.

use std::sync::Arc;

use super::datastore::Inner;
use super::file_reader::FileReader;
use super::index_read::IndexReader;
use super::lock::DirLock;
use super::operations::OperationGuard;
use crate::error::Result;
use crate::types::{ArchiveName, Namespace, Snapshot};

/// The right to read one snapshot for as long as the lease lives.
#[derive(Debug)]
pub struct ReaderLease {
    store: Arc<Inner>,
    namespace: Namespace,
    snapshot: Snapshot,
    lock: Option<DirLock>,
    _operation: OperationGuard,
}

impl ReaderLease {
    pub(super) fn new(
        store: Arc<Inner>,
        (namespace, snapshot): (Namespace, Snapshot),
        lock: DirLock,
        operation: OperationGuard,
    ) -> Self {
        Self { store, namespace, snapshot, lock: Some(lock), _operation: operation }
    }

    /// Namespace of the snapshot.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Lets the snapshot go, and waits until others see that; a dropped lease does the same behind the caller's back.
    pub async fn release(mut self) {
        let lock = self.lock.take();
        let _ = self.store.engine.run(move |_| drop(lock)).await;
    }

    /// Opens and validates an index.
    pub async fn open_index(&self, name: &ArchiveName) -> Result<IndexReader> {
        self.store.open_index(&self.namespace, &self.snapshot, name).await
    }

    /// Opens a blob; `NotFound` if there is none of that name.
    pub async fn open_blob(&self, name: &ArchiveName) -> Result<FileReader> {
        self.store.open_blob(&self.namespace, &self.snapshot, name).await
    }
}

impl Drop for ReaderLease {
    fn drop(&mut self) {
        // Closing a descriptor on a network file system may wait for its server.
        if let Some(lock) = self.lock.take() {
            self.store.engine.detach(move |_| drop(lock));
        }
    }
}
