//! Whether the file system keeps the access times that are set (spec 01 §6.3).
//!
//! ```text
//! the original   insert ─▶ wait a second ─▶ look ─▶ touch ─▶ look: later than before?
//! here           insert ─▶ touch ─▶ look ─▶ set some seconds back ─▶ look ─▶ touch ─▶ look: later than before?
//!                             └───────────────── a look shows something else ─────────────────▶ as the original
//! ```
//!
//! To set it back takes no second, which is as long as everything else of a small collection. It proves the same: what was set is read again, twice.

use std::sync::Arc;
use std::time::Duration;

use super::{Collection, Run};
use crate::clock::EpochSecs;
use crate::engine::{Disk, FileMeta};
use crate::error::{Error, Result};
use crate::format::blob::{self, Compression};
use crate::store::explain::failed;
use crate::types::{ChunkSize, Digest, FIXED_CHUNK_BYTES};

/// More than the second that access times may be rounded to.
const BETWEEN: Duration = Duration::from_millis(1100);

/// How far it is set back: more than the two seconds that access times may be rounded to, and far less than the minute that is the shortest cutoff of any
/// collection, should we die before it is set again.
const BACK_SECS: i64 = 4;

impl Collection {
    /// Puts the chunk of zeros into the store, and sees that its access time moves when it is set. An error if it does not: then what was used a
    /// moment ago looks as old as garbage.
    pub async fn check_access_times(&self) -> Result<()> {
        let run = &self.run;
        let made = run.engine().run(|_| {
            let zeros = vec![0; FIXED_CHUNK_BYTES as usize];
            (Digest::of(&zeros), blob::encode(&zeros, Compression::Try))
        });
        let (digest, encoded) = made.await?;
        let size = ChunkSize::new(u64::from(FIXED_CHUNK_BYTES)).expect("4 MiB are at most 16");
        let encoded = bytes::Bytes::from(encoded);
        if let Err(e) = run.store.chunks.insert(run.engine(), digest, encoded.clone(), size).await {
            if !self.made_room(e.errno()).await {
                return Err(e);
            }
            run.store.chunks.insert(run.engine(), digest, encoded, size).await?;
        }
        if self.work(digest, |disk, run, digest| run.goes_back_and_forth(disk, digest)).await? {
            return Ok(());
        }
        let before = self.work(digest, |disk, run, digest| run.meta(disk, digest)).await?;
        let wait = async {
            tokio::time::sleep(BETWEEN).await;
            Ok(())
        };
        run.unless_stopped(wait).await?;
        let after = self.work(digest, |disk, run, digest| run.touched(disk, digest)).await?;
        if before.ino == after.ino && after.accessed > before.accessed {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "access time check failed: that of chunk {digest} was {} and is {} after it was set - this file system does not keep access \
             times, so use gc-method = \"memory\"",
            before.accessed, after.accessed
        )))
    }

    async fn work<T: Send + 'static>(
        &self,
        digest: Digest,
        work: impl FnOnce(&Disk, &Run, &Digest) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let run = Arc::clone(&self.run);
        self.run.engine().run(move |disk| work(disk, &run, &digest)).await?
    }
}

impl Run {
    /// Whether the access time can be seen to go back and then forth again. Another one who uses the chunk meanwhile, or a server that lets no time go
    /// back, makes it look as if not.
    fn goes_back_and_forth(&self, disk: &Disk, digest: &Digest) -> Result<bool> {
        let path = self.store.layout.chunk(digest);
        let now = self.touched(disk, digest)?;
        let wanted = EpochSecs(now.accessed.0 - BACK_SECS);
        if self.with_reserve(disk, || disk.set_accessed(&path, wanted)).is_err() {
            return Ok(false);
        }
        let back = self.meta(disk, digest)?;
        let again = self.touched(disk, digest)?;
        let same_file = now.ino == back.ino && back.ino == again.ino;
        Ok(same_file && back.accessed < now.accessed && back.accessed < again.accessed)
    }

    fn touched(&self, disk: &Disk, digest: &Digest) -> Result<FileMeta> {
        let path = self.store.layout.chunk(digest);
        self.with_reserve(disk, || disk.touch(&path))
            .map_err(|e| failed("unable to set the access time of", &path, e))?;
        self.meta(disk, digest)
    }

    fn meta(&self, disk: &Disk, digest: &Digest) -> Result<FileMeta> {
        let path = self.store.layout.chunk(digest);
        disk.lstat(&path).map_err(|e| failed("unable to check the access time of", &path, e))
    }
}
