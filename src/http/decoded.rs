//! The content of an archive as one stream: its chunks in order, read and decoded some ahead of the client.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::lifecycle::{Lifecycle, SessionGuard};
use super::produced::{Produced, Producer};
use crate::engine::ComputePool;
use crate::error::{Error, Result, SHUTTING_DOWN};
use crate::format::blob::{self, BlobHeader, CrcPolicy};
use crate::store::{Datastore, IndexEntry, IndexReader};
use crate::types::Digest;

/// Chunks under way at a time: enough to hash on two processors while the disk fetches the next, usually 16 MiB, at most 128.
const CHUNKS_AHEAD: usize = 4;

/// What a stream is made of.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) store: Datastore,
    pub(super) compute: ComputePool,
    pub(super) index: IndexReader,
    pub(super) lifecycle: Lifecycle,
    /// It counts as a session: that bounds how many there are, and the daemon waits for it to end.
    pub(super) guard: SessionGuard,
}

/// Begins to read.
pub(super) fn begin(source: Source) -> Produced {
    Produced::begin(1, |producer| async move {
        let Source { store, compute, index, lifecycle, guard } = source;
        let sent = tokio::select! {
            sent = send(&producer, &store, &compute, &index) => sent,
            () = lifecycle.closing() => Err(Error::closed(SHUTTING_DOWN)),
        };
        drop(guard);
        sent
    })
}

/// Chunks on their way. Dropping it ends those that have not begun.
#[derive(Default)]
struct Ahead(VecDeque<JoinHandle<Result<Bytes>>>);

impl Ahead {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(chunk) = self.0.pop_front() else { return Ok(None) };
        let chunk = chunk.await.map_err(|e| Error::io("reading a chunk was cut off", std::io::Error::other(e)));
        chunk?.map(Some)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn send(producer: &Producer, store: &Datastore, compute: &ComputePool, index: &IndexReader) -> Result<()> {
    let (mut scan, mut ahead) = (index.scan(), Ahead::default());
    while let Some(entries) = scan.next_block().await? {
        for entry in entries {
            if ahead.0.len() == CHUNKS_AHEAD
                && let Some(chunk) = ahead.next().await?
            {
                producer.send(chunk).await?;
            }
            ahead.0.push_back(tokio::spawn(content(store.clone(), compute.clone(), entry)));
        }
    }
    while let Some(chunk) = ahead.next().await? {
        producer.send(chunk).await?;
    }
    Ok(())
}

/// The plaintext of a chunk, which is what its index says or an error. One that is not is written anew by its next upload.
async fn content(store: Datastore, compute: ComputePool, entry: IndexEntry) -> Result<Bytes> {
    let digest = entry.digest;
    let encoded = store.read_chunk(digest).await?;
    let decoded = compute.run(move || decode(&encoded, &entry)).await?;
    decoded.map(Bytes::from).map_err(|e| {
        store.mark_suspect(&[digest]);
        e.context(format_args!("chunk {digest} cannot be decoded"))
    })
}

fn decode(encoded: &[u8], entry: &IndexEntry) -> Result<Vec<u8>> {
    if BlobHeader::parse(encoded)?.kind.is_encrypted() {
        return Err(Error::corrupt("it is encrypted, and its manifest does not say so"));
    }
    let plain = blob::decode(encoded, u64::from(entry.size_bytes), CrcPolicy::Check)?;
    if plain.len() as u64 != u64::from(entry.size_bytes) {
        return Err(Error::corrupt(format!("it has {} bytes, its index says {}", plain.len(), entry.size_bytes)));
    }
    if Digest::of(&plain) != entry.digest {
        return Err(Error::corrupt("its content is another"));
    }
    Ok(plain)
}
