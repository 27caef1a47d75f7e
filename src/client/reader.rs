//! The requests of a reader session, one method each (spec 04).

use bytes::Bytes;

use super::index::Index;
use super::rest::Client;
use super::session::Session;
use super::writer::download_index;
use crate::error::{Error, Kind, Result};
use crate::format::blob::BLOB_ENCODED_BYTES_MAX;
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestFile};
use crate::types::{ArchiveName, Digest, MANIFEST_BLOB, Namespace, Snapshot};

/// Name of the protocol in the upgrade request.
const PROTOCOL: &str = "proxmox-backup-reader-protocol-v1";

/// A reader session on one snapshot. The server keeps the snapshot from being removed until it ends.
#[derive(Debug)]
pub struct ReaderSession {
    session: Session,
}

impl ReaderSession {
    /// Begins to read `snapshot`.
    pub async fn open(client: &Client, namespace: &Namespace, snapshot: &Snapshot) -> Result<Self> {
        let session = Session::open(client, "reader", PROTOCOL, (namespace, snapshot), &[]).await?;
        Ok(Self { session })
    }

    /// The raw requests, for tests.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The manifest, which must be that of this snapshot.
    pub async fn manifest(&self, snapshot: &Snapshot) -> Result<Manifest> {
        let bytes_max = usize::try_from(MANIFEST_BYTES_MAX).unwrap_or(usize::MAX);
        let encoded = self.session.download("download", &[("file-name", MANIFEST_BLOB)], bytes_max).await;
        let encoded = encoded.map_err(|e| match e.kind() {
            Kind::NotFound => e.context(format!("{snapshot} is not finished: it has no manifest")),
            _ => e.context(MANIFEST_BLOB),
        })?;
        let manifest = Manifest::from_blob(&encoded).map_err(|e| e.context(MANIFEST_BLOB))?;
        if manifest.snapshot() != snapshot {
            return Err(Error::corrupt(format!("the manifest of {snapshot} is that of {}", manifest.snapshot())));
        }
        Ok(manifest)
    }

    /// An index, checked against the manifest's entry. From now on its chunks can be asked for.
    pub async fn index(&self, file: &ManifestFile) -> Result<Index> {
        download_index(&self.session, "download", "file-name", file).await
    }

    /// A blob as it is stored.
    pub async fn blob(&self, name: &ArchiveName) -> Result<Bytes> {
        self.session.download("download", &[("file-name", name.as_str())], encoded_bytes_max()).await
    }

    /// A chunk as it is stored.
    pub async fn chunk(&self, digest: Digest) -> Result<Bytes> {
        self.session.download("chunk", &[("digest", &digest.to_string())], encoded_bytes_max()).await
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.session.close().await;
    }
}

fn encoded_bytes_max() -> usize {
    usize::try_from(BLOB_ENCODED_BYTES_MAX).unwrap_or(usize::MAX)
}
