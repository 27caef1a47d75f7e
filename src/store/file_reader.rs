//! A file of a snapshot, read in bounded blocks.

use bytes::Bytes;

use crate::error::{Error, Result};

/// How much is read at a time when a file is streamed: large enough that a disk is not seek-bound, small enough that a hundred
/// downloads fit in memory. 1 MiB.
pub const STREAM_BLOCK_BYTES: usize = 1 << 20;

/// An open file of a snapshot; cheap to clone.
#[derive(Clone, Debug)]
pub struct FileReader {
    size_bytes: u64,
}

impl FileReader {
    /// Its length when it was opened.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The block at `offset`, at most [`STREAM_BLOCK_BYTES`] long; empty at the end of the file. A file that became shorter
    /// since it was opened is an error.
    pub async fn read_block(&self, offset: u64) -> Result<Bytes> {
        Err(Error::closed(offset.to_string()))
    }

    /// All of it, if it is at most `max_bytes` long.
    pub async fn read_all(&self, max_bytes: u64) -> Result<Bytes> {
        Err(Error::closed(max_bytes.to_string()))
    }
}
