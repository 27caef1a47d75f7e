//! Whether the file system keeps the access times that are set (spec 01 §6.3).

use std::sync::Arc;
use std::time::Duration;

use super::Collection;
use crate::engine::FileMeta;
use crate::error::{Error, Result};
use crate::format::blob::{self, Compression};
use crate::store::explain::failed;
use crate::types::{ChunkSize, Digest, FIXED_CHUNK_BYTES};

/// More than the second that access times may be rounded to.
const BETWEEN: Duration = Duration::from_millis(1100);

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
        let before = self.meta(&digest, false).await?;
        let wait = async {
            tokio::time::sleep(BETWEEN).await;
            Ok(())
        };
        run.unless_stopped(wait).await?;
        let after = self.meta(&digest, true).await?;
        if before.ino == after.ino && after.accessed > before.accessed {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "access time check failed: that of chunk {digest} was {} and is {} after it was set - this file system does not keep access \
             times, so use gc-method = \"memory\"",
            before.accessed, after.accessed
        )))
    }

    async fn meta(&self, digest: &Digest, touch: bool) -> Result<FileMeta> {
        let (run, path) = (Arc::clone(&self.run), self.run.store.layout.chunk(digest));
        let looked = self.run.engine().run(move |disk| {
            let touched = if touch { run.with_reserve(disk, || disk.touch(&path)) } else { Ok(()) };
            touched.and_then(|()| disk.lstat(&path)).map_err(|e| failed("unable to check the access time of", &path, e))
        });
        looked.await?
    }
}
