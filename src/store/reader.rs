//! A snapshot being read: locked shared, so nobody removes it.

use super::file_reader::FileReader;
use super::index_read::IndexReader;
use crate::error::{Error, Result};
use crate::types::{ArchiveName, Namespace, Snapshot};

/// The right to read one snapshot for as long as the lease lives.
#[derive(Debug)]
pub struct ReaderLease {
    namespace: Namespace,
    snapshot: Snapshot,
}

impl ReaderLease {
    /// Namespace of the snapshot.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Opens and validates an index.
    pub async fn open_index(&self, name: &ArchiveName) -> Result<IndexReader> {
        Err(Error::closed(name.to_string()))
    }

    /// Opens a blob; `NotFound` if there is none of that name.
    pub async fn open_blob(&self, name: &ArchiveName) -> Result<FileReader> {
        Err(Error::closed(name.to_string()))
    }
}
