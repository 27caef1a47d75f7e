//! The original method: `metadata` of the absolute path, one chunk after another.

use crate::error::{Error, IoContext, Result};
use crate::format::blob::BLOB_BYTES_MIN;
use crate::store::layout::Layout;
use crate::types::Digest;

/// Checks `digests` one after another. Errors: the first that is not there.
pub fn check(layout: &Layout, digests: &[Digest]) -> Result<()> {
    for digest in digests {
        let path = layout.chunk(digest);
        let meta = std::fs::metadata(&path).io_context(|| format!("chunk {path:?}"))?;
        if !meta.is_file() || meta.len() < BLOB_BYTES_MIN {
            return Err(Error::corrupt(format!("chunk {path:?} is no chunk")));
        }
    }
    Ok(())
}
