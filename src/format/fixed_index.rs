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
                "got unexpected file size ({} != {})",
                parsed.file_bytes() - INDEX_HEADER_BYTES,
                file_bytes.saturating_sub(INDEX_HEADER_BYTES),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::index::IndexCsum;

    const VECTOR: &[u8] = include_bytes!("../../tests/data/vectors/index-fixed-2chunks.fidx");
    const UUID: [u8; 16] = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();

    fn parse(bytes: &[u8]) -> Result<FixedHeader> {
        FixedHeader::parse(bytes, bytes.len() as u64)
    }

    /// The vector with other fields.
    fn with(size_bytes: u64, chunk_bytes: u64) -> Vec<u8> {
        let mut bytes = VECTOR.to_vec();
        bytes[SIZE_AT..CHUNK_SIZE_AT].copy_from_slice(&size_bytes.to_le_bytes());
        bytes[CHUNK_SIZE_AT..CHUNK_SIZE_AT + 8].copy_from_slice(&chunk_bytes.to_le_bytes());
        bytes
    }

    #[test]
    fn the_published_vector_both_ways() {
        let header = parse(VECTOR).unwrap();
        assert_eq!((header.uuid, header.ctime), (UUID, EpochSecs(1_717_597_418)));
        assert_eq!((header.size_bytes, header.chunk_bytes, header.slot_count()), (4_195_304, 4 << 20, 2));
        assert_eq!(header.encode(), VECTOR[..4096]);
        let mut csum = IndexCsum::new();
        csum.update(&VECTOR[4096..]);
        assert_eq!(csum.finish(), header.csum);
        assert_eq!(
            slots(&VECTOR[4096..]).collect::<Vec<_>>(),
            [Digest::of(&vec![0; 4 << 20]), Digest::of(&[b'A'; 1000])]
        );
        let fresh = FixedHeader::new(UUID, header.ctime, header.size_bytes, header.chunk_bytes).unwrap();
        assert_eq!(FixedHeader { csum: header.csum, ..fresh }, header);
    }

    #[test]
    fn only_the_last_chunk_is_short() {
        let header = parse(VECTOR).unwrap();
        assert_eq!(header.chunk_range(0), Some(0..4_194_304));
        assert_eq!(header.chunk_range(1), Some(4_194_304..4_195_304));
        assert_eq!(header.chunk_size(1).unwrap().bytes(), 1000);
        assert_eq!((header.slot_at(1), header.slot_at(2)), (Some(4128), None));
        assert_eq!((header.chunk_range(2), header.chunk_size(u64::MAX)), (None, None));
    }

    #[test]
    fn a_header_that_contradicts_itself_or_the_file_is_refused_and_the_field_is_named() {
        for (size, chunk, text) in [
            (4_195_304, 0, "field chunk_size is 0:"),
            (4_195_304, 4_194_303, "field chunk_size is 4194303:"),
            (4_195_304, 2048, "field chunk_size is 2048:"),
            (4_195_304, 32 << 20, "field chunk_size is 33554432:"),
            (4_195_304, 1 << 63, "field chunk_size"),
            (4_195_304, u64::MAX, "field chunk_size"),
            (0, 4 << 20, "field size is 0"),
            (4_195_304, 2 << 20, "(96 != 64)"),
            (4 << 20, 4 << 20, "(32 != 64)"),
            ((8 << 20) + 1, 4 << 20, "(96 != 64)"),
            (u64::MAX, 4096, "got unexpected file size"),
            (u64::MAX, 16 << 20, "got unexpected file size"),
        ] {
            let e = parse(&with(size, chunk)).unwrap_err();
            assert!(e.to_string().contains(text), "{size} {chunk}: {e}");
            assert_eq!(e.kind(), crate::error::Kind::Corrupt);
        }
    }

    #[test]
    fn every_other_length_is_refused() {
        for end in 0..VECTOR.len() {
            assert!(parse(&VECTOR[..end]).is_err(), "cut at {end}");
        }
        for bytes in [0, 4096, 4159, 4161, 4192, u64::MAX] {
            let text = FixedHeader::parse(VECTOR, bytes).unwrap_err().to_string();
            assert!(text.starts_with("got unexpected file size (64 != "), "{text}");
        }
    }

    proptest! {
        #[test]
        fn headers_round_trip(
            uuid: [u8; 16], ctime: i64, csum: [u8; 32], size_bytes in 1..=u64::MAX, chunk_bits in 12u32..=24,
        ) {
            let header = FixedHeader::new(uuid, EpochSecs(ctime), size_bytes, 1 << chunk_bits).unwrap();
            let header = FixedHeader { csum: Digest(csum), ..header };
            prop_assert_eq!(FixedHeader::parse(&header.encode(), header.file_bytes()).unwrap(), header);
            let last = header.slot_count() - 1;
            prop_assert_eq!(header.chunk_range(last).unwrap().end, size_bytes);
            prop_assert!(header.chunk_size(last).is_some());
            prop_assert_eq!(header.slot_at(last), Some(header.file_bytes() - FIXED_ENTRY_BYTES));
        }

        #[test]
        fn no_header_makes_it_panic(fields: [u8; 72], file_bytes: u64) {
            let mut bytes = [0; 4096];
            bytes[..8].copy_from_slice(&magic::FIXED_INDEX);
            bytes[8..80].copy_from_slice(&fields);
            let _ = FixedHeader::parse(&bytes, file_bytes);
        }
    }
}
