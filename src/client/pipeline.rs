//! One archive on its way: read → hash and compress → upload → append, each stage busy with another chunk.
//!
//! Order is kept where the protocol wants it: whether a chunk is known is decided, answers are awaited and entries are appended
//! in the order of the archive; hashing and the uploads themselves overlap. An entry is appended only after its chunk's upload
//! was answered.
//!
//! Memory: [`IN_FLIGHT_BYTES_MAX`] of chunks between reading and answer, plus at most three pieces with the reading thread,
//! plus for each working thread one chunk while it is being compressed.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::known::Known;
use super::observer::Observer;
use super::plan::AppendBatch;
use super::source::{Content, Piece};
use super::spawned::{Compute, Spawned};
use super::writer::{BackupSession, Writer};
use crate::error::{Error, Result};
use crate::format::blob::{self, Compression};
use crate::format::dynamic_index::DynamicEntry;
use crate::format::index::IndexCsum;
use crate::types::{Digest, FIXED_CHUNK_BYTES};

/// Bytes of chunks, plain or encoded, that are held between the reading and the server's answer. Enough for 16 blocks of an
/// incompressible image; the server's window of 32 MiB is the tighter limit on the wire (spec 03 §3).
pub const IN_FLIGHT_BYTES_MAX: u32 = 64 << 20;

/// Chunks that are being hashed, or have been and wait for their turn.
const HASHES_AHEAD: usize = 16;

/// Uploads whose answers are outstanding, and known chunks between them (the official client's queue, spec 06 §2.2).
const ANSWERS_AHEAD: usize = 64;

/// Granularity of the memory budget: semaphores count in 32 bits.
const BUDGET_UNIT: u32 = 1 << 10;

/// Digest and blob of four mebibytes of zeros; every image has some.
static ZERO_BLOCK: LazyLock<(Digest, Bytes)> = LazyLock::new(|| {
    let zeros = vec![0; FIXED_CHUNK_BYTES as usize];
    (Digest::of(&zeros), Bytes::from(blob::encode(&zeros, Compression::Try)))
});

/// What an archive's upload needs.
pub(super) struct Pipeline {
    pub(super) session: Arc<BackupSession>,
    pub(super) writer: Writer,
    pub(super) known: Arc<Known>,
    pub(super) compute: Compute,
    pub(super) observer: Arc<dyn Observer>,
}

/// What an archive's upload came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) chunks_uploaded: u64,
    pub(super) chunks_reused: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_uploaded: u64,
    /// Of the whole index.
    pub(super) csum: Digest,
}

/// How the checksum of the index comes about.
pub(super) enum Tally {
    /// Every slot of a fixed index is appended, in order.
    Fixed(IndexCsum),
    /// A dynamic index.
    Dynamic(IndexCsum),
    /// A fixed index that began as a copy; some of its slots are replaced.
    Patched(Vec<Digest>),
}

impl Tally {
    fn add(&mut self, offset: u64, size_bytes: u32, digest: Digest) -> Result<()> {
        match self {
            Self::Fixed(csum) => csum.update(&digest.0),
            Self::Dynamic(csum) => csum.update(&DynamicEntry { end: offset + u64::from(size_bytes), digest }.encode()),
            Self::Patched(slots) => {
                let slot = usize::try_from(offset / u64::from(FIXED_CHUNK_BYTES)).ok().and_then(|i| slots.get_mut(i));
                *slot.ok_or_else(|| Error::invalid("the previous index has fewer slots than the image"))? = digest;
            }
        }
        Ok(())
    }

    fn finish(self) -> Digest {
        match self {
            Self::Fixed(csum) | Self::Dynamic(csum) => csum.finish(),
            Self::Patched(slots) => {
                let mut csum = IndexCsum::new();
                for slot in &slots {
                    csum.update(&slot.0);
                }
                csum.finish()
            }
        }
    }
}

/// A piece that has been hashed; `encoded` unless its digest was known by then.
struct Hashed {
    offset: u64,
    size_bytes: u32,
    digest: Digest,
    encoded: Option<Bytes>,
    budget: OwnedSemaphorePermit,
}

/// An entry of the index, and the answer that has to come before it.
struct Entry {
    offset: u64,
    size_bytes: u32,
    digest: Digest,
    upload: Option<(u64, Spawned<Result<()>>)>,
}

impl Pipeline {
    /// Takes all pieces through. Dropping the future cuts every stage off.
    pub(super) async fn run(&self, pieces: mpsc::Receiver<Result<Piece>>, tally: Tally) -> Result<Outcome> {
        let (hashed_tx, hashed_rx) = mpsc::channel(HASHES_AHEAD);
        let (entry_tx, entry_rx) = mpsc::channel(ANSWERS_AHEAD);
        let (_, _, outcome) = tokio::try_join!(
            self.hash(pieces, hashed_tx),
            self.upload(hashed_rx, entry_tx),
            self.append(entry_rx, tally),
        )?;
        Ok(outcome)
    }

    async fn hash(
        &self,
        mut pieces: mpsc::Receiver<Result<Piece>>,
        out: mpsc::Sender<Spawned<Result<Hashed>>>,
    ) -> Result<()> {
        let budget = Arc::new(Semaphore::new((IN_FLIGHT_BYTES_MAX / BUDGET_UNIT) as usize));
        while let Some(piece) = pieces.recv().await {
            let piece = piece?;
            let units = piece.size_bytes().div_ceil(BUDGET_UNIT);
            let permit = budget.clone().acquire_many_owned(units).await;
            let permit = permit.map_err(|_| Error::closed("the upload ended early"))?;
            let (known, compute) = (self.known.clone(), self.compute.clone());
            let hashed = Spawned::start(async move { compute.run(move || hash_one(piece, &known, permit)).await });
            if out.send(hashed).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn upload(
        &self,
        mut hashed: mpsc::Receiver<Spawned<Result<Hashed>>>,
        out: mpsc::Sender<Entry>,
    ) -> Result<()> {
        while let Some(next) = hashed.recv().await {
            let Hashed { offset, size_bytes, digest, encoded, mut budget } = next.join().await??;
            let upload = match encoded.filter(|_| self.known.insert(digest)) {
                None => None,
                Some(encoded) => {
                    // From here on only the encoded form is held.
                    let units = u32::try_from(encoded.len()).unwrap_or(u32::MAX).div_ceil(BUDGET_UNIT);
                    let spare = budget.num_permits().saturating_sub(units as usize);
                    drop(budget.split(spare));
                    let encoded_bytes = encoded.len() as u64;
                    let (session, writer, observer) = (self.session.clone(), self.writer, self.observer.clone());
                    let sent = Spawned::start(async move {
                        let begun = Instant::now();
                        let answer = session.upload_chunk(writer, digest, size_bytes, encoded).await;
                        drop(budget);
                        if answer.is_ok() {
                            observer.uploads(u64::from(size_bytes), begun.elapsed());
                        }
                        answer.map_err(|e| e.context(format!("chunk {digest}")))
                    });
                    Some((encoded_bytes, sent))
                }
            };
            if out.send(Entry { offset, size_bytes, digest, upload }).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn append(&self, mut entries: mpsc::Receiver<Entry>, mut tally: Tally) -> Result<Outcome> {
        let (mut chunks_uploaded, mut chunks_reused, mut bytes_read, mut bytes_uploaded) = (0, 0, 0, 0);
        let mut batch = AppendBatch::default();
        // Of the batch: entries without an upload, and their bytes.
        let mut reused = (0, 0);
        while let Some(Entry { offset, size_bytes, digest, upload }) = entries.recv().await {
            match upload {
                None => {
                    chunks_reused += 1;
                    reused = (reused.0 + 1, reused.1 + u64::from(size_bytes));
                }
                Some((encoded_bytes, answer)) => {
                    answer.join().await??;
                    chunks_uploaded += 1;
                    bytes_uploaded += encoded_bytes;
                }
            }
            bytes_read += u64::from(size_bytes);
            tally.add(offset, size_bytes, digest)?;
            if batch.push(offset, digest) {
                self.send(&mut batch, std::mem::take(&mut reused)).await?;
            }
            self.observer.advances(u64::from(size_bytes));
        }
        if !batch.is_empty() {
            self.send(&mut batch, reused).await?;
        }
        Ok(Outcome { chunks_uploaded, chunks_reused, bytes_read, bytes_uploaded, csum: tally.finish() })
    }

    async fn send(&self, batch: &mut AppendBatch, (reused, reused_bytes): (u32, u64)) -> Result<()> {
        let begun = Instant::now();
        if let Some(wait) = self.observer.holds_up(batch.digests()) {
            wait.await;
        }
        self.session.append(self.writer, batch).await?;
        if reused > 0 {
            self.observer.reuses(reused, reused_bytes, begun.elapsed());
        }
        Ok(())
    }
}

/// Hashes a piece, and compresses it unless it is known. Another piece of the same content may be on its way through another
/// thread: that is found out in order, by the next stage.
fn hash_one(piece: Piece, known: &Known, budget: OwnedSemaphorePermit) -> Hashed {
    let (offset, size_bytes) = (piece.offset, piece.size_bytes());
    let (digest, encoded) = match piece.content {
        Content::ZeroBlock => {
            let (digest, encoded) = &*ZERO_BLOCK;
            (*digest, (!known.contains(digest)).then(|| encoded.clone()))
        }
        Content::Bytes(bytes) => {
            let digest = Digest::of(&bytes);
            (digest, (!known.contains(&digest)).then(|| Bytes::from(blob::encode(&bytes, Compression::Try))))
        }
    };
    Hashed { offset, size_bytes, digest, encoded, budget }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_the_specs_example() {
        // Spec 02 §4: 4 MiB of zeros, then 1000 times 'A'.
        let chunks = [(0, FIXED_CHUNK_BYTES, ZERO_BLOCK.0), (4 << 20, 1000, Digest::of(&[b'A'; 1000]))];
        let fixed = "d6d8ce952a8fdcffa68a67935d0c10c61ece10dca27cc45b082f75e8c3404a9e";
        let dynamic = "fe2744d1c85f54eaf0b3aaaf277b05396b1ace6985d0b3cc346f4c71994bb5ec";
        for (mut tally, expected) in [
            (Tally::Fixed(IndexCsum::new()), fixed),
            (Tally::Dynamic(IndexCsum::new()), dynamic),
            (Tally::Patched(vec![Digest::ZERO; 2]), fixed),
        ] {
            for (offset, size_bytes, digest) in chunks {
                tally.add(offset, size_bytes, digest).unwrap();
            }
            assert_eq!(tally.finish().to_string(), expected);
        }
        assert!(Tally::Patched(Vec::new()).add(0, 1, Digest::ZERO).is_err());
    }
}
