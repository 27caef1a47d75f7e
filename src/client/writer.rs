//! The requests of a backup session, one method each (spec 03 §6, in the shapes of spec 06 §2).

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::index::{INDEX_BYTES_MAX, Index};
use super::plan::AppendBatch;
use super::rest::Client;
use super::session::Session;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestFile};
use crate::types::{ArchiveName, Digest, MANIFEST_BLOB, Namespace, Snapshot};

/// Name of the protocol in the upgrade request.
const PROTOCOL: &str = "proxmox-backup-protocol-v1";

/// An open index of the session: what later requests about it begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    kind: WriterKind,
    /// The number that the server gave it.
    pub wid: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriterKind {
    Fixed,
    Dynamic,
}

impl WriterKind {
    fn path(self, what: Request) -> &'static str {
        match (self, what) {
            (Self::Fixed, Request::Index) => "fixed_index",
            (Self::Fixed, Request::Chunk) => "fixed_chunk",
            (Self::Fixed, Request::Close) => "fixed_close",
            (Self::Dynamic, Request::Index) => "dynamic_index",
            (Self::Dynamic, Request::Chunk) => "dynamic_chunk",
            (Self::Dynamic, Request::Close) => "dynamic_close",
        }
    }
}

#[derive(Clone, Copy)]
enum Request {
    Index,
    Chunk,
    Close,
}

/// A backup session. Dropped before [`Self::finish`] was answered, its snapshot vanishes.
#[derive(Debug)]
pub struct BackupSession {
    session: Session,
}

impl BackupSession {
    /// Begins the backup of `snapshot`, which must be newer than the last of its group.
    pub async fn open(client: &Client, namespace: &Namespace, snapshot: &Snapshot) -> Result<Self> {
        let more = [("benchmark", "false")];
        Ok(Self { session: Session::open(client, "backup", PROTOCOL, (namespace, snapshot), &more).await? })
    }

    /// The raw requests, for tests.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Time of the snapshot that may lend its chunks; `None` when there is none.
    pub async fn previous_backup_time(&self) -> Result<Option<EpochSecs>> {
        let path = "previous_backup_time";
        match self.session.call(Method::GET, path, &[]).await? {
            Value::Null => Ok(None),
            data => match data.as_i64() {
                Some(time) => Ok(Some(EpochSecs(time))),
                None => Err(self.session.unexpected(path, &data)),
            },
        }
    }

    /// The manifest of that snapshot.
    pub async fn previous_manifest(&self) -> Result<Manifest> {
        let bytes_max = usize::try_from(MANIFEST_BYTES_MAX).unwrap_or(usize::MAX);
        let blob = self.session.download("previous", &[("archive-name", MANIFEST_BLOB)], bytes_max).await?;
        Manifest::from_blob(&blob)
    }

    /// An index of that snapshot, checked against its manifest. The server lets the session append its chunks from now on.
    pub async fn previous_index(&self, file: &ManifestFile) -> Result<Index> {
        download_index(&self.session, "previous", "archive-name", file).await
    }

    /// Opens a fixed index for an image of `size_bytes`; with `reuse_csum` it starts as a copy of the previous one.
    pub async fn create_fixed(
        &self,
        name: &ArchiveName,
        size_bytes: u64,
        reuse_csum: Option<Digest>,
    ) -> Result<Writer> {
        let size = size_bytes.to_string();
        let csum = reuse_csum.map(|csum| csum.to_string());
        let mut query = vec![("archive-name", name.as_str())];
        if let Some(csum) = &csum {
            query.push(("reuse-csum", csum));
        }
        query.push(("size", &size));
        self.create(WriterKind::Fixed, &query).await
    }

    /// Opens a dynamic index.
    pub async fn create_dynamic(&self, name: &ArchiveName) -> Result<Writer> {
        self.create(WriterKind::Dynamic, &[("archive-name", name.as_str())]).await
    }

    async fn create(&self, kind: WriterKind, query: &[(&str, &str)]) -> Result<Writer> {
        let path = kind.path(Request::Index);
        let data = self.session.call(Method::POST, path, query).await?;
        let wid = data.as_u64().ok_or_else(|| self.session.unexpected(path, &data))?;
        Ok(Writer { kind, wid })
    }

    /// Sends a chunk: its blob, and digest and length of its plaintext.
    pub async fn upload_chunk(&self, writer: Writer, digest: Digest, size_bytes: u32, encoded: Bytes) -> Result<()> {
        let (digest, size) = (digest.to_string(), size_bytes.to_string());
        let (encoded_size, wid) = (encoded.len().to_string(), writer.wid.to_string());
        let query = [("digest", digest.as_str()), ("encoded-size", &encoded_size), ("size", &size), ("wid", &wid)];
        self.session.upload(writer.kind.path(Request::Chunk), &query, encoded).await?;
        Ok(())
    }

    /// Puts entries into the index and empties the batch. One at a time for each writer.
    pub async fn append(&self, writer: Writer, batch: &mut AppendBatch) -> Result<()> {
        self.session.put(writer.kind.path(Request::Index), batch.take_body(writer.wid)).await?;
        Ok(())
    }

    /// Closes an index: entries appended, bytes that they stand for, checksum of the whole.
    pub async fn close_index(&self, writer: Writer, chunk_count: u64, size_bytes: u64, csum: Digest) -> Result<()> {
        let (count, size) = (chunk_count.to_string(), size_bytes.to_string());
        let (csum, wid) = (csum.to_string(), writer.wid.to_string());
        let query = [("chunk-count", count.as_str()), ("csum", &csum), ("size", &size), ("wid", &wid)];
        self.session.call(Method::POST, writer.kind.path(Request::Close), &query).await?;
        Ok(())
    }

    /// Stores an encoded blob, the manifest included.
    pub async fn upload_blob(&self, name: &str, encoded: Bytes) -> Result<()> {
        let size = encoded.len().to_string();
        self.session.upload("blob", &[("encoded-size", &size), ("file-name", name)], encoded).await?;
        Ok(())
    }

    /// Makes the snapshot final. Takes as long as the server needs for its last checks.
    pub async fn finish(&self) -> Result<()> {
        self.session.call(Method::POST, "finish", &[]).await?;
        Ok(())
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.session.close().await;
    }
}

/// Downloads an index and checks it against the manifest's entry. The caller adds the name to an error.
pub(super) async fn download_index(
    session: &Session,
    path: &str,
    parameter: &str,
    file: &ManifestFile,
) -> Result<Index> {
    let mut raw = Vec::new();
    let keep = |piece: &[u8]| {
        if raw.len() + piece.len() > INDEX_BYTES_MAX {
            return Err(Error::invalid(format!("the index is longer than {INDEX_BYTES_MAX} bytes")));
        }
        raw.extend_from_slice(piece);
        Ok(())
    };
    session.download_into(path, &[(parameter, file.filename.as_str())], keep).await?;
    Index::check(raw, file)
}
