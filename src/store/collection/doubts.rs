//! Doubted chunks that are nobody's concern any more.

use super::Pass;
use super::chunks::{ChunkName, is_wanted};
use crate::error::Result;
use crate::types::Digest;

impl Pass {
    /// Forgets that chunks of this pass were doubted that are not there and that nobody wants: with the garbage they were removed, or what named them
    /// is gone. To be asked when the pass is over, for only then is it known what is wanted. Costs a look at each such chunk, at most
    /// [`SUSPECTS_MAX`](crate::store::SUSPECTS_MAX) and usually none.
    pub async fn forget_doubts(&self) -> Result<()> {
        let store = &self.shared.run.store;
        let (suspects, prefixes, keepers) = (&store.chunks.suspects, self.prefixes(), store.custody.keepers());
        let mut doubted: Vec<(Digest, u64)> = suspects.list();
        doubted.retain(|(digest, _)| {
            prefixes.contains(&u32::from(digest.prefix())) && !is_wanted(&self.shared, digest, &keepers)
        });
        let names: Vec<ChunkName> =
            doubted.iter().map(|(digest, _)| ChunkName { digest: *digest, bad: None }).collect();
        for ((digest, number), stat) in doubted.into_iter().zip(self.stat(&names).await?) {
            if matches!(stat, Ok(None)) {
                suspects.forget(&digest, number);
            }
        }
        Ok(())
    }
}
