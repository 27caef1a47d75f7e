//! Fixed index `*.fidx`: an image cut into chunks of one size (spec 02 §3). Pure.
//!
//! Behind the fields of every index stand `size` and `chunk_size`, both u64; then one digest for each chunk.
//! The checksum covers the digests alone, so a header that contradicts itself is refused here, before anybody judges a
//! chunk by it.

use std::ops::Range;

use super::index::{CommonHeader, HeaderBytes, INDEX_HEADER_BYTES, KIND_FIELDS_AT, field};
use super::magic;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::types::{CHUNK_BYTES_MAX, ChunkSize, DIGEST_BYTES, Digest};

/// Bytes of a slot: one digest.
pub const FIXED_ENTRY_BYTES: u64 = 32;

/// Smallest chunk size of a header that is believed. Clients write 64 KiB at least; below a page the index would be
/// as long as a hundredth of the image.
pub const FIXED_CHUNK_BYTES_MIN: u64 = 4096;

/// Largest chunk size of a header: the longest chunk there is.
pub const FIXED_CHUNK_BYTES_MAX: u64 = CHUNK_BYTES_MAX as u64;

const SIZE_AT: usize = KIND_FIELDS_AT;
const CHUNK_SIZE_AT: usize = SIZE_AT + 8;

const _: () = assert!(DIGEST_BYTES as u64 == FIXED_ENTRY_BYTES);
// The length of no index overflows, whatever size its header claims.
const _: () = assert!(u64::MAX.div_ceil(FIXED_CHUNK_BYTES_MIN) < (u64::MAX - INDEX_HEADER_BYTES) / FIXED_ENTRY_BYTES);

/// Header of a fixed index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    /// Random, made with the index.
    pub uuid: [u8; 16],
    /// When the index was made.
    pub ctime: EpochSecs,
    /// SHA-256 over all slots; zero while the index is being written.
    pub csum: Digest,
    /// Length of the image, at least 1.
    pub size_bytes: u64,
    /// Length of every chunk but the last: a power of two from 4 KiB to 16 MiB.
    pub chunk_bytes: u64,
}

impl FixedHeader {
    /// A header without checksum yet. An error names the field that is out of bounds.
    pub fn new(uuid: [u8; 16], ctime: EpochSecs, size_bytes: u64, chunk_bytes: u64) -> Result<Self> {
        if size_bytes == 0 {
            return Err(Error::corrupt("fixed index field size is 0: an empty image has no index"));
        }
        if !chunk_bytes.is_power_of_two() || !(FIXED_CHUNK_BYTES_MIN..=FIXED_CHUNK_BYTES_MAX).contains(&chunk_bytes) {
            return Err(Error::corrupt(format!(
                "fixed index field chunk_size is {chunk_bytes}: \
                 a power of two from {FIXED_CHUNK_BYTES_MIN} to {FIXED_CHUNK_BYTES_MAX} expected"
            )));
        }
        Ok(Self { uuid, ctime, csum: Digest::ZERO, size_bytes, chunk_bytes })
    }

    /// Reads the header at the start of `bytes`, of a file that is `file_bytes` long. The file's length must be the one
    /// that `size` and `chunk_size` call for; the checksum is not compared.
    pub fn parse(bytes: &[u8], file_bytes: u64) -> Result<Self> {
        let (common, header) = CommonHeader::parse(bytes, magic::FIXED_INDEX)?;
        let size_bytes = u64::from_le_bytes(field(header, SIZE_AT));
        let chunk_bytes = u64::from_le_bytes(field(header, CHUNK_SIZE_AT));
        let parsed = Self { csum: common.csum, ..Self::new(common.uuid, common.ctime, size_bytes, chunk_bytes)? };
        if file_bytes != parsed.file_bytes() {
            return Err(Error::corrupt(format!(
                "got unexpected file size ({} != {}): fields size {size_bytes} and chunk_size {chunk_bytes} call for \
                 {} slots",
                parsed.file_bytes() - INDEX_HEADER_BYTES,
                file_bytes.saturating_sub(INDEX_HEADER_BYTES),
                parsed.slot_count(),
            )));
        }
        Ok(parsed)
    }

    /// The header as it lies in the file.
    pub fn encode(&self) -> HeaderBytes {
        let common = CommonHeader { uuid: self.uuid, ctime: self.ctime, csum: self.csum };
        let mut header = common.encode(magic::FIXED_INDEX);
        header[SIZE_AT..CHUNK_SIZE_AT].copy_from_slice(&self.size_bytes.to_le_bytes());
        header[CHUNK_SIZE_AT..CHUNK_SIZE_AT + 8].copy_from_slice(&self.chunk_bytes.to_le_bytes());
        header
    }

    /// How many chunks the image has, at least 1.
    pub fn slot_count(&self) -> u64 {
        self.size_bytes.div_ceil(self.chunk_bytes.max(1))
    }

    /// Length of the whole index file.
    pub fn file_bytes(&self) -> u64 {
        INDEX_HEADER_BYTES + self.slot_count() * FIXED_ENTRY_BYTES
    }

    /// Where in the file the digest of chunk `slot` stands; `None` behind the last one.
    pub fn slot_at(&self, slot: u64) -> Option<u64> {
        (slot < self.slot_count()).then(|| INDEX_HEADER_BYTES + slot * FIXED_ENTRY_BYTES)
    }

    /// The bytes of the image that chunk `slot` covers; only the last chunk may be short. `None` behind it.
    pub fn chunk_range(&self, slot: u64) -> Option<Range<u64>> {
        if slot >= self.slot_count() {
            return None;
        }
        let start = slot * self.chunk_bytes;
        Some(start..start.saturating_add(self.chunk_bytes).min(self.size_bytes))
    }

    /// Length of the plaintext of chunk `slot`; `None` behind the last one.
    pub fn chunk_size(&self, slot: u64) -> Option<ChunkSize> {
        let range = self.chunk_range(slot)?;
        ChunkSize::new(range.end - range.start)
    }
}

/// The digests of whole slots as they lie in the file; bytes that are no whole slot are left out.
pub fn slots(entries: &[u8]) -> impl ExactSizeIterator<Item = Digest> + '_ {
    entries.as_chunks::<DIGEST_BYTES>().0.iter().map(|slot| Digest(*slot))
}
