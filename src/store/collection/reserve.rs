//! Space that garbage collection has when nobody else has any: a file in the datastore that is given up when the disk is full.
//!
//! A removal frees space, and on file systems that never write in place it needs some first: the new version of the directory. Where that cannot be had, no
//! garbage could ever go. So a run that finds room makes a file of bytes that do not compress; the first operation of a run that meets a full disk, or a
//! quota that is used up, removes that file and is done once more. The next run that finds room makes the file anew.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Collection, Run};
use crate::engine::Disk;
use crate::store::durable::Weight;
use crate::store::layout::GC_RESERVE_FILE;

/// How many times the reserve has to be free before it is made: it is not to be what fills the disk.
const ROOM_FACTOR: u64 = 8;

/// Random bytes that are made at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// What a run has done with the reserve.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    given_up: AtomicBool,
}

/// Whether an operation failed for want of space.
fn is_full(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

impl Run {
    /// Does a file operation; where there is no space for it, gives the reserve up and does it once more.
    pub(super) fn with_reserve<T>(&self, disk: &Disk, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(e) if is_full(&e) && self.give_reserve_up(disk) => work(),
            done => done,
        }
    }

    /// Whether there is space now that was not there before.
    fn give_reserve_up(&self, disk: &Disk) -> bool {
        let base = self.store.layout.base();
        let path = base.join(GC_RESERVE_FILE);
        // Where not even a name can be removed, its blocks may.
        let freed = disk.unlink(&path).or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => Err(e),
            _ => disk.open_rw(&path)?.set_len(0),
        });
        if freed.is_ok() {
            self.reserve.given_up.store(true, Ordering::SeqCst);
            // Some file systems hand out what was freed only when they have written that down.
            let _ = disk.syncfs(base);
        }
        // Another thread of this run may have been faster.
        self.reserve.given_up.load(Ordering::SeqCst)
    }

    /// Makes the reserve if it is not there and there is ample room for it; removes one of another length.
    fn keep_reserve(&self, disk: &Disk, wanted: u64) -> io::Result<()> {
        let path = self.store.layout.base().join(GC_RESERVE_FILE);
        let there = match disk.lstat(&path) {
            Ok(meta) => Some(meta.size_bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        if there.unwrap_or(0) == wanted {
            return Ok(());
        }
        if there.is_some() {
            disk.unlink(&path)?;
        }
        if wanted == 0 || disk.usage(self.store.layout.base())?.avail / ROOM_FACTOR < wanted {
            return Ok(());
        }
        let mut bytes = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
        for block in bytes.chunks_mut(BLOCK_BYTES) {
            getrandom::fill(block).map_err(|e| io::Error::other(e.to_string()))?;
        }
        self.store.durable.put(disk, &path, &bytes, Weight::Payload)
    }
}

impl Collection {
    /// Makes a reserve of so many bytes if there is room, 0 for none; a wish, which costs no run.
    pub async fn keep_reserve(&self, bytes: u64) {
        let run = Arc::clone(&self.run);
        let kept = self.run.engine().run(move |disk| {
            if let Err(error) = run.keep_reserve(disk, bytes) {
                tracing::warn!(base = ?run.store.layout.base(), %error, "no reserve for garbage collection on a full disk");
            }
        });
        drop(kept.await);
    }

    /// Whether this run has met a full disk and used the reserve.
    pub fn has_used_reserve(&self) -> bool {
        self.run.reserve.given_up.load(Ordering::SeqCst)
    }

    /// Gives the reserve up if that is why something failed; whether it is worth to try again.
    pub(super) async fn made_room(&self, errno: Option<i32>) -> bool {
        if !errno.is_some_and(|errno| is_full(&io::Error::from_raw_os_error(errno))) {
            return false;
        }
        let run = Arc::clone(&self.run);
        self.run.engine().run(move |disk| run.give_reserve_up(disk)).await.unwrap_or(false)
    }
}
