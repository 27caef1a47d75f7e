//! An index's chunks made known to a session, a block of the file at a time.

use std::sync::Arc;

use crate::engine::ComputePool;
use crate::error::Result;
use crate::store::{IndexEntry, IndexReader};
use crate::sync::Mutex;
use crate::types::{ChunkSize, Digest};

/// Chunks that become known under one hold of the session's lock: a millisecond of it.
const AT_ONCE: usize = 1024;

/// A chunk that an index names, with the length of its plaintext.
type SizedChunk = (Digest, ChunkSize);

/// Calls `take` with all chunks that `index` names and the lengths of their plaintext, some at a time.
///
/// About a microsecond a chunk, so not on a thread of the runtime, and the session's lock is let go in between.
pub async fn take_chunks<S: Send + 'static>(
    index: &IndexReader,
    compute: &ComputePool,
    session: &Arc<Mutex<S>>,
    take: fn(&mut S, &[SizedChunk]) -> Result<()>,
) -> Result<()> {
    let mut scan = index.scan();
    while let Some(block) = scan.next_block().await? {
        let session = Arc::clone(session);
        let taken = compute.run(move || {
            let sized = |entry: &IndexEntry| Some((entry.digest, ChunkSize::new(u64::from(entry.size_bytes))?));
            let chunks: Vec<_> = block.iter().filter_map(sized).collect();
            chunks.chunks(AT_ONCE).try_for_each(|part| take(&mut session.lock(), part))
        });
        taken.await??;
    }
    Ok(())
}
