//! Chunks as verification sees them: loaded with the reason why not, and set aside when they are bad (spec 01 §6.4).
//!
//! A chunk is renamed only under the claim of its digest, after it has been read once more there: an upload that has just written it anew
//! is not hit, and one that comes meanwhile finds the place free. A read that went wrong once on its way from the disk stays without
//! consequences.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chunk_store::ChunkStore;
use super::durable::Weight;
use super::explain::failed;
use super::layout::{bad_chunk_name, chunk_of_name};
use super::taken::Taking;
use crate::engine::{Buffer, Disk, Engine};
use crate::error::{Error, Result};
use crate::format::blob::BLOB_ENCODED_BYTES_MAX;
use crate::types::Digest;

/// How many bad versions of one chunk are kept; the last place is used again and again (spec 01 §6.4).
const BAD_PLACES: u8 = 10;

/// What lies at the place of a chunk.
#[derive(Debug)]
pub enum Stored {
    /// A file that may be a chunk.
    Blob(Buffer),
    /// Nothing.
    Absent,
    /// What is no chunk, whatever it holds: a directory, a file longer than any chunk, one that ends before its end.
    NoChunk(io::Error),
}

impl Stored {
    /// How many bytes were read.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Blob(bytes) => bytes.len() as u64,
            Self::Absent | Self::NoChunk(_) => 0,
        }
    }
}

/// What became of a doubted chunk.
#[derive(Debug)]
pub enum Doubt<G, F> {
    /// It is good: the first reading went wrong, or it has been written anew meanwhile.
    Unfounded(G),
    /// It is not there.
    Absent(F),
    /// It was bad, and is now called something else.
    Renamed(F, PathBuf),
    /// It is bad, and cannot be renamed.
    Stays(F, Error),
}

/// Whether the kernel's copy will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    AsItComes,
    /// What was read a moment ago was wrong: ask the disk, not the memory.
    FromDisk,
}

/// Reads what lies at a chunk's place. An error is the machine's: nothing is known then.
fn load(disk: &Disk, path: &Path, reading: Reading) -> Result<Stored> {
    let read = disk.open_target(path).and_then(|file| {
        if reading == Reading::FromDisk {
            file.forget_cached();
        }
        file.read_buffer(BLOB_ENCODED_BYTES_MAX, disk.buffers())
    });
    match read {
        Ok(bytes) => Ok(Stored::Blob(bytes)),
        Err(e) => match e.kind() {
            io::ErrorKind::NotFound => Ok(Stored::Absent),
            io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory => Ok(Stored::NoChunk(e)),
            _ => Err(failed("unable to read chunk", path, e)),
        },
    }
}

impl ChunkStore {
    /// Reads what lies at the place of a chunk.
    pub(super) async fn load(&self, engine: &Engine, digest: &Digest) -> Result<Stored> {
        let path = self.layout.chunk(digest);
        engine.run(move |disk| load(disk, &path, Reading::AsItComes)).await?
    }

    /// Reads a doubted chunk again, from the disk if that can be had; still bad by `judge`, it is set aside. `taking` was begun for it.
    pub(super) async fn settle<G: Send + 'static, F: Send + 'static>(
        self: &Arc<Self>,
        engine: &Engine,
        digest: Digest,
        taking: Taking,
        judge: impl FnOnce(Stored) -> Result<G, F> + Send + 'static,
    ) -> Result<Doubt<G, F>> {
        let claim = self.custody.claims.claim(digest).await;
        let chunks = Arc::clone(self);
        engine
            .run(move |disk| {
                let settled = chunks.settle_claimed(disk, &digest, judge);
                drop(claim);
                drop(taking);
                settled
            })
            .await?
    }

    fn settle_claimed<G, F>(
        &self,
        disk: &Disk,
        digest: &Digest,
        judge: impl FnOnce(Stored) -> Result<G, F>,
    ) -> Result<Doubt<G, F>> {
        let path = self.layout.chunk(digest);
        let stored = load(disk, &path, Reading::FromDisk)?;
        let absent = matches!(stored, Stored::Absent);
        let fault = match judge(stored) {
            Ok(good) => return Ok(Doubt::Unfounded(good)),
            Err(fault) => fault,
        };
        self.suspects.mark([*digest]);
        if absent {
            return Ok(Doubt::Absent(fault));
        }
        let dir = self.layout.chunk_dir(digest.prefix());
        let renamed = free_place(disk, &dir, digest).and_then(|bad| {
            let renaming = |e| failed("unable to rename corrupt chunk", &path, e);
            disk.rename(&path, &bad).map(|()| bad).map_err(renaming)
        });
        let bad = match renamed {
            Ok(bad) => bad,
            Err(e) => return Ok(Doubt::Stays(fault, e)),
        };
        // Else a power cut could bring it back under its own name, when nobody doubts it any more.
        if self.durable.syncs(Weight::Commit)
            && let Err(e) = disk.fsync_dir(&dir)
        {
            tracing::warn!(?dir, error = %e, "a corrupt chunk is renamed, but that may not last");
        }
        Ok(Doubt::Renamed(fault, bad))
    }
}

/// The first free name for a bad version of a chunk; the last one if all are taken.
fn free_place(disk: &Disk, dir: &Path, digest: &Digest) -> Result<PathBuf> {
    let mut places = (0..BAD_PLACES).map(|n| dir.join(bad_chunk_name(digest, n)));
    let is_free = |place: &PathBuf| match disk.lstat(place) {
        Ok(_) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(failed("unable to stat", place, e)),
    };
    for place in places.by_ref().take(usize::from(BAD_PLACES) - 1) {
        if is_free(&place)? {
            return Ok(place);
        }
    }
    places.next().ok_or_else(|| Error::io("no place for a bad chunk", io::ErrorKind::NotFound.into()))
}

/// The chunks of one prefix directory with their inode numbers, from the directory alone; none if it is not there.
pub(super) fn chunk_inodes(disk: &Disk, dir: &Path) -> Result<Vec<(Digest, u64)>> {
    match disk.read_dir(dir) {
        Ok(entries) => Ok(entries.into_iter().filter_map(|e| Some((chunk_of_name(&e.name)?, e.ino))).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed("unable to list chunks", dir, e)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::test_support::*;
    use super::super::{Datastore, Inserted};
    use super::*;
    use crate::format::blob::check_crc;

    fn judge(stored: Stored) -> Result<(), &'static str> {
        match stored {
            Stored::Blob(bytes) => check_crc(&bytes).map(|_| ()).map_err(|_| "wrong"),
            Stored::Absent => Err("absent"),
            Stored::NoChunk(_) => Err("no chunk"),
        }
    }

    fn path_of(base: &Path, seed: u8) -> PathBuf {
        super::super::layout::Layout::new(base).chunk(&chunk(seed).0)
    }

    #[expect(clippy::disallowed_methods, reason = "a test damages what no part of the daemon would")]
    fn put(path: &Path, content: &[u8]) {
        std::fs::write(path, content).unwrap();
    }

    fn renamed(doubt: Doubt<(), &'static str>) -> Option<PathBuf> {
        match doubt {
            Doubt::Renamed("wrong", to) => Some(to),
            _ => None,
        }
    }

    async fn settle(store: &Datastore, seed: u8) -> Result<Doubt<(), &'static str>> {
        store.settle_doubt(chunk(seed).0, judge).await
    }

    #[tokio::test]
    async fn a_bad_chunk_gets_the_first_free_name_and_the_last_one_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let base = make_base(dir.path());
        let store = open(&base).await;
        let path = path_of(&base, 1);
        for round in 0..12_u8 {
            assert_eq!(insert(&store, 1).await.unwrap(), Inserted::New { bytes: chunk(1).1.len() as u64 }, "{round}");
            put(&path, &[round; 40]);
            let bad = PathBuf::from(format!("{}.{}.bad", path.display(), round.min(9)));
            assert_eq!(renamed(settle(&store, 1).await.unwrap()), Some(bad.clone()));
            assert_eq!(std::fs::read(bad).unwrap(), [round; 40]);
            assert!(!path.exists());
        }
        assert!(matches!(settle(&store, 1).await.unwrap(), Doubt::Absent("absent")));
        std::fs::create_dir_all(path_of(&base, 2)).unwrap();
        assert!(matches!(settle(&store, 2).await.unwrap(), Doubt::Renamed("no chunk", _)));
    }

    /// Somebody uploads the chunk between its first reading and its judgement: that upload waits, or its file stays.
    #[tokio::test]
    async fn a_chunk_that_was_written_anew_stays() {
        let dir = tempfile::tempdir().unwrap();
        let base = make_base(dir.path());
        let store = open(&base).await;
        insert(&store, 1).await.unwrap();
        let whole = std::fs::read(path_of(&base, 1)).unwrap();
        assert!(matches!(settle(&store, 1).await.unwrap(), Doubt::Unfounded(())));
        assert_eq!(std::fs::read(path_of(&base, 1)).unwrap(), whole);
        // And one that comes while the chunk is judged writes behind the renaming.
        put(&path_of(&base, 1), &[0; 40]);
        let judging = Arc::new(AtomicBool::new(false));
        let (begun, go) = std::sync::mpsc::channel();
        let uploading = tokio::spawn({
            let (store, judging) = (store.clone(), judging.clone());
            async move {
                while !judging.load(Ordering::SeqCst) {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                begun.send(()).unwrap();
                insert(&store, 1).await.unwrap()
            }
        });
        let settled = store.settle_doubt(chunk(1).0, move |stored| {
            judging.store(true, Ordering::SeqCst);
            go.recv().unwrap();
            judge(stored)
        });
        assert!(matches!(settled.await.unwrap(), Doubt::Renamed("wrong", _)));
        assert_eq!(uploading.await.unwrap(), Inserted::New { bytes: whole.len() as u64 });
        assert_eq!(std::fs::read(path_of(&base, 1)).unwrap(), whole);
    }

    #[tokio::test]
    async fn an_error_of_the_disk_renames_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let base = make_base(dir.path());
        let fault = Countdown::new(0, libc::EIO, true);
        let store = open_on(&base, faulty_engine(fault.clone()), super::super::SyncLevel::None).await.unwrap();
        insert(&store, 1).await.unwrap();
        put(&path_of(&base, 1), &[0; 40]);
        fault.arm();
        let error = settle(&store, 1).await.unwrap_err();
        assert_eq!(error.errno(), Some(libc::EIO), "{error}");
        assert_eq!(std::fs::read(path_of(&base, 1)).unwrap(), [0; 40]);
    }

    #[tokio::test]
    async fn inodes_come_from_the_directory() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let base = make_base(dir.path());
        let store = open(&base).await;
        insert(&store, 1).await.unwrap();
        let (digest, path) = (chunk(1).0, path_of(&base, 1));
        put(&path.with_extension("0.bad"), b"");
        let ino = std::fs::metadata(&path).unwrap().ino();
        assert_eq!(store.chunk_inodes(digest.prefix()).await.unwrap(), [(digest, ino)]);
        assert_eq!(store.chunk_inodes(digest.prefix() ^ 1).await.unwrap(), []);
    }
}
