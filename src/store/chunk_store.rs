//! Chunks: insert and load.
//!
//! There is no lock over the store. An insert claims its digest; a second one of the same digest waits for the first and then finds its
//! file, and different digests never meet. The claim goes along with the work onto the pool, so an upload that is cut off does not let
//! the next one in too early.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::collision::{Existing, IfWhole, Incoming, Reason, Verdict, by_magic, by_size};
use super::create::CHUNK_DIR_MODE;
use super::custody::Custody;
use super::durable::{Durable, Weight};
use super::explain::failed;
use super::layout::Layout;
use super::suspects::Suspects;
use crate::engine::{Buffer, Disk, Engine, FileKind};
use crate::error::{Error, Kind, Result};
use crate::format::blob::{BLOB_ENCODED_BYTES_MAX, BlobHeader, BlobKind, check_crc};
use crate::types::{ChunkSize, Digest};

/// What an upload did to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// A file was written, or replaced.
    New {
        /// Length of the file now on the disk.
        bytes: u64,
    },
    /// The chunk was there already, and stays as it is.
    Known {
        /// Length of the file that stays.
        bytes: u64,
    },
}

/// A blob is hardly ever longer than its plaintext with the header of its kind: who compresses keeps what is shorter (spec 02 §1). A
/// client that does not, adds a few bytes per block of 128 KiB of what zstd could not compress; recorded servers take that.
fn check_length(encoded: &[u8], size: ChunkSize) -> Result<()> {
    let header = BlobHeader::parse(encoded)?;
    let payload_bytes = encoded.len() - header.header_bytes();
    let slack = if header.kind.is_compressed() { 512 + size.bytes() / 256 } else { 0 };
    match usize::try_from(size.bytes() + slack) {
        Ok(payload_bytes_max) if payload_bytes <= payload_bytes_max => Ok(()),
        _ => Err(Error::invalid(format!("chunk of {} bytes has a blob with {payload_bytes}", size.bytes()))),
    }
}

/// The chunks of one datastore.
#[derive(Debug)]
pub(super) struct ChunkStore {
    store: String,
    pub(super) layout: Layout,
    pub(super) durable: Durable,
    pub(super) custody: Arc<Custody>,
    pub(super) suspects: Suspects,
    prefix_made: AtomicBool,
}

impl ChunkStore {
    /// The chunks below `layout`; `store` is the name in messages.
    pub(super) fn new(store: &str, layout: Layout, durable: Durable, custody: Arc<Custody>) -> Self {
        Self {
            store: store.to_owned(),
            layout,
            durable,
            custody,
            suspects: Suspects::default(),
            prefix_made: AtomicBool::new(false),
        }
    }

    /// Puts a chunk into the store as `collision` decides.
    pub(super) async fn insert(
        self: &Arc<Self>,
        engine: &Engine,
        digest: Digest,
        encoded: Bytes,
        size: ChunkSize,
    ) -> Result<Inserted> {
        check_length(&encoded, size)?;
        let claim = self.custody.claims.claim(digest).await;
        let chunks = Arc::clone(self);
        engine
            .run(move |disk| {
                let inserted = chunks.insert_claimed(disk, &digest, &encoded);
                drop(claim);
                inserted
            })
            .await?
            .map_err(|e| match e.kind() {
                Kind::Io => e.context(format_args!("inserting chunk on store '{}' failed for {digest}", self.store)),
                _ => e,
            })
    }

    fn insert_claimed(&self, disk: &Disk, digest: &Digest, encoded: &[u8]) -> Result<Inserted> {
        // Before it is looked for: whatever its access time, no collection that runs removes it any more.
        self.custody.tell(std::iter::once(*digest));
        let path = self.layout.chunk(digest);
        let new_bytes = encoded.len() as u64;
        let incoming = Incoming { kind: BlobHeader::parse(encoded)?.kind, size_bytes: new_bytes };
        let existing = match disk.stat(&path) {
            Ok(meta) => Some(Existing {
                regular: meta.kind == FileKind::File,
                size_bytes: meta.size_bytes,
                suspect: self.suspects.contains(digest),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed("unable to stat chunk", &path, e)),
        };
        if let Some(existing) = existing {
            match self.judge(disk, &path, existing, incoming)? {
                Verdict::Keep | Verdict::Check(IfWhole::Keep) => match disk.touch(&path) {
                    Ok(()) => return Ok(Inserted::Known { bytes: existing.size_bytes }),
                    // A garbage collection of another process was faster than the touch that protects from it.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(failed("unable to touch chunk", &path, e)),
                },
                Verdict::Refuse(reason) | Verdict::Check(IfWhole::Refuse(reason)) => {
                    return Err(self.refusal(digest, reason));
                }
                Verdict::Replace if existing.size_bytes > new_bytes && !existing.suspect => {}
                Verdict::Replace => {
                    tracing::warn!(store = self.store, %digest, ?existing, "replacing a chunk that is not whole")
                }
            }
        }
        self.write(disk, digest, &path, encoded)?;
        self.suspects.clear(digest);
        Ok(Inserted::New { bytes: new_bytes })
    }

    /// Reads as much of the file as the decision needs: nothing, eight bytes, or all of it. `Check` comes back only for a whole file.
    fn judge(&self, disk: &Disk, path: &Path, existing: Existing, incoming: Incoming) -> Result<Verdict> {
        if let Some(verdict) = by_size(existing, incoming) {
            return Ok(verdict);
        }
        let reading = |e| failed("unable to read chunk", path, e);
        let file = disk.open_target(path).map_err(reading)?;
        let mut magic = [0; 8];
        file.read_exact_at(&mut magic, 0).map_err(reading)?;
        let verdict = by_magic(existing, BlobKind::from_magic(&magic), incoming);
        if !matches!(verdict, Verdict::Check(_)) {
            return Ok(verdict);
        }
        match file.read_all(BLOB_ENCODED_BYTES_MAX) {
            Ok(bytes) if check_crc(&bytes).is_ok() => Ok(verdict),
            Ok(_) => Ok(Verdict::Replace),
            // No chunk is that long.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Verdict::Replace),
            Err(e) => Err(reading(e)),
        }
    }

    fn write(&self, disk: &Disk, digest: &Digest, path: &Path, encoded: &[u8]) -> Result<()> {
        let writing = |e| failed("unable to write chunk", path, e);
        match self.durable.put(disk, path, encoded, Weight::Payload) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            done => return done.map_err(writing),
        }
        // Somebody removed the prefix directory, or unpacked a datastore without its empty ones. Not so if all of it is gone.
        let dir = self.layout.chunk_dir(digest.prefix());
        match self.durable.make_dir(disk, &dir, CHUNK_DIR_MODE) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("unable to make chunk directory", &dir, e));
            }
            // Also if it is another insert's, which may not have come so far.
            _ if self.durable.syncs(Weight::Payload) => {
                let chunks = self.layout.chunks();
                disk.fsync_dir(&chunks).map_err(|e| failed("unable to sync", &chunks, e))?;
            }
            _ => {}
        }
        if !self.prefix_made.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                store = self.store,
                ?dir,
                "a chunk directory was missing and is made anew; further ones are not logged"
            );
        }
        self.durable.put(disk, path, encoded, Weight::Payload).map_err(writing)
    }

    fn refusal(&self, digest: &Digest, reason: Reason) -> Error {
        let store = &self.store;
        Error::invalid(match reason {
            Reason::NotRegular => format!(
                "got unexpected file type on store '{store}' for chunk {digest} - remove {:?} by hand, then the next \
                 backup writes it anew",
                self.layout.chunk(digest)
            ),
            Reason::EncryptedOverPlain => format!(
                "Overwriting unencrypted chunk '{digest}' on store '{store}' with encrypted chunk with same digest not \
                 allowed!"
            ),
            Reason::EncryptedOverEncrypted => {
                format!("Overwriting existing (encrypted) chunk '{digest}' on store '{store}' is not allowed!")
            }
        })
    }

    /// The stored blob as it is; what it holds is the reader's to check.
    pub(super) async fn read(&self, engine: &Engine, digest: Digest) -> Result<Buffer> {
        let path = self.layout.chunk(&digest);
        engine
            .run(move |disk| {
                let opened = disk.open_target(&path);
                let bytes = opened.and_then(|file| file.read_buffer(BLOB_ENCODED_BYTES_MAX, disk.buffers()));
                bytes.map_err(|e| Error::new(Kind::Io, format!("reading file {path:?} failed: {e}")))
            })
            .await?
    }
}
