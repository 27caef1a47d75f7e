//! Reading index files: opened and validated once, scanned in bounded blocks.

use super::file_reader::FileReader;
use crate::error::{Error, Result};
use crate::types::{ArchiveKind, Digest};

/// One place of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where the chunk begins in the archive, in bytes.
    pub pos: u64,
    /// The chunk; [`Digest::ZERO`] in a slot of a fixed index that was never filled.
    pub digest: Digest,
    /// Length of the chunk's plaintext, 1 to 16 MiB.
    pub size_bytes: u32,
}

/// An open index file whose header is valid; cheap to clone.
#[derive(Clone, Debug)]
pub struct IndexReader {
    file: FileReader,
}

impl IndexReader {
    /// Fixed or dynamic.
    pub fn kind(&self) -> ArchiveKind {
        ArchiveKind::FixedIndex
    }

    /// How many entries.
    pub fn count(&self) -> u64 {
        0
    }

    /// Length of the archive in bytes.
    pub fn size_bytes(&self) -> u64 {
        0
    }

    /// Chunk size of a fixed index.
    pub fn chunk_bytes(&self) -> Option<u64> {
        None
    }

    /// The checksum that the header claims; [`IndexScan::csum`] tells the true one.
    pub fn stored_csum(&self) -> Digest {
        Digest::ZERO
    }

    /// The file itself, for a verbatim download.
    pub fn file(&self) -> &FileReader {
        &self.file
    }

    /// Starts reading the entries from the first.
    pub fn scan(&self) -> IndexScan {
        IndexScan { reader: self.clone() }
    }
}

/// Entries of an index in order, a block at a time.
#[derive(Debug)]
pub struct IndexScan {
    reader: IndexReader,
}

impl IndexScan {
    /// The next entries, at most about 26,000 of them (1 MiB of the file); `None` behind the last. Entries that contradict the
    /// header or each other are an error of kind `Corrupt`.
    pub async fn next_block(&mut self) -> Result<Option<Vec<IndexEntry>>> {
        Err(Error::closed(self.reader.count().to_string()))
    }

    /// The checksum over all entries; `None` before the last block was read.
    pub fn csum(&self) -> Option<Digest> {
        None
    }
}
