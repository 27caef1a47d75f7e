//! How long a chunk's plaintext may be. Pure.

use std::num::NonZeroU32;

/// The longest plaintext of a chunk: 16 MiB (spec 02 §1).
pub const CHUNK_BYTES_MAX: u32 = 16 << 20;

/// Chunk size of every fixed index that the backup protocol creates: 4 MiB (spec 02 §3).
pub const FIXED_CHUNK_BYTES: u32 = 4 << 20;

/// Length of a chunk's plaintext in bytes, 1 to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSize(NonZeroU32);

impl ChunkSize {
    /// `None` for 0 and for more than [`CHUNK_BYTES_MAX`].
    pub fn new(bytes: u64) -> Option<Self> {
        let bytes = u32::try_from(bytes).ok().filter(|b| *b <= CHUNK_BYTES_MAX)?;
        NonZeroU32::new(bytes).map(Self)
    }

    /// In bytes.
    pub fn bytes(self) -> u32 {
        self.0.get()
    }
}
