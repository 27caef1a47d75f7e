//! Writing index files under a temporary name until they are closed.

use crate::error::{Error, Result};
use crate::format::dynamic_index::DynamicEntry;
use crate::types::{ArchiveName, Digest};

/// What an index is when it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedIndex {
    /// Checksum over all entries, as the header now says.
    pub csum: Digest,
    /// Slots of a fixed index, entries of a dynamic one.
    pub count: u64,
    /// Length of the archive in bytes.
    pub size_bytes: u64,
}

/// A fixed index in the making. Methods may be called concurrently; dropped without [`Self::close`], the file goes away.
#[derive(Debug)]
pub struct FixedWriter {
    name: ArchiveName,
}

impl FixedWriter {
    /// The archive's name.
    pub fn name(&self) -> &ArchiveName {
        &self.name
    }

    /// How many slots the index has.
    pub fn slot_count(&self) -> u64 {
        0
    }

    /// Writes digests into slots, in any order; a slot may be written again. All slots are checked before the first is written.
    pub async fn write_slots(&self, slots: Vec<(u64, Digest)>) -> Result<()> {
        Err(Error::closed(slots.len().to_string()))
    }

    /// Computes the checksum from the file, writes it into the header and gives the file its final name. With another checksum
    /// than `expected` the file goes away ("got unexpected checksum"). The writer is closed afterwards in any case.
    pub async fn close(&self, expected: Digest) -> Result<ClosedIndex> {
        Err(Error::closed(expected.to_string()))
    }
}

/// A dynamic index in the making. Dropped without [`Self::close`], the file goes away.
#[derive(Debug)]
pub struct DynamicWriter {
    name: ArchiveName,
}

impl DynamicWriter {
    /// The archive's name.
    pub fn name(&self) -> &ArchiveName {
        &self.name
    }

    /// Writes entries from the entry number `first` on. The caller keeps count and order; calls for different entries may run
    /// concurrently.
    pub async fn append(&self, first: u64, entries: Vec<DynamicEntry>) -> Result<()> {
        Err(Error::closed((first, entries.len()).0.to_string()))
    }

    /// As [`FixedWriter::close`]; `count` is how many entries were appended, and the file must hold exactly these.
    pub async fn close(&self, count: u64, expected: Digest) -> Result<ClosedIndex> {
        Err(Error::closed((count, expected).1.to_string()))
    }
}
