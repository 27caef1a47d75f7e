//! Dynamic index `*.didx`: a stream cut into chunks of differing size (spec 02 §4). Pure.
//!
//! The header has the fields of every index and nothing else. Entry i is the offset at which chunk i ends (u64,
//! exclusive) and its digest, 40 bytes together; chunk i begins where chunk i − 1 ends.

use std::ops::Range;

use super::index::{CommonHeader, HeaderBytes, INDEX_HEADER_BYTES};
use super::magic;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::types::{CHUNK_BYTES_MAX, ChunkSize, DIGEST_BYTES, Digest};

/// Bytes of an entry: end and digest.
pub const DYNAMIC_ENTRY_BYTES: u64 = 40;

const END_BYTES: usize = 8;
const ENTRY_BYTES: usize = END_BYTES + DIGEST_BYTES;

const _: () = assert!(ENTRY_BYTES as u64 == DYNAMIC_ENTRY_BYTES);

/// Header of a dynamic index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicHeader {
    /// Random, made with the index.
    pub uuid: [u8; 16],
    /// When the index was made.
    pub ctime: EpochSecs,
    /// SHA-256 over all entries; zero while the index is being written.
    pub csum: Digest,
}

impl DynamicHeader {
    /// Reads the header at the start of `bytes`, of a file that is `file_bytes` long and must hold whole entries, at
    /// least one ([`entry_count`] says how many). The checksum is not compared.
    pub fn parse(bytes: &[u8], file_bytes: u64) -> Result<Self> {
        let (CommonHeader { uuid, ctime, csum }, _) = CommonHeader::parse(bytes, magic::DYNAMIC_INDEX)?;
        entry_count(file_bytes)?;
        Ok(Self { uuid, ctime, csum })
    }

    /// The header as it lies in the file.
    pub fn encode(&self) -> HeaderBytes {
        CommonHeader { uuid: self.uuid, ctime: self.ctime, csum: self.csum }.encode(magic::DYNAMIC_INDEX)
    }
}

/// How many entries an index file of `file_bytes` has. None at all is an error, as in the original: such an index
/// would describe an archive that no client can restore.
pub fn entry_count(file_bytes: u64) -> Result<u64> {
    let Some(area) = file_bytes.checked_sub(INDEX_HEADER_BYTES) else {
        return Err(Error::corrupt(format!("index too small ({file_bytes})")));
    };
    if area == 0 {
        return Err(Error::corrupt("dynamic index has no entries"));
    }
    if !area.is_multiple_of(DYNAMIC_ENTRY_BYTES) {
        return Err(Error::corrupt(format!(
            "got unexpected file size ({area} is not a multiple of {DYNAMIC_ENTRY_BYTES})"
        )));
    }
    Ok(area / DYNAMIC_ENTRY_BYTES)
}

/// One chunk of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicEntry {
    /// Offset in the stream of the first byte that is no longer in this chunk.
    pub end: u64,
    /// The chunk.
    pub digest: Digest,
}

impl DynamicEntry {
    /// Reads an entry. Whether its end makes sense shows only next to its neighbour: [`DynamicScan`].
    pub fn parse(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let (end, digest) = bytes.split_first_chunk().expect("40 bytes");
        Self { end: u64::from_le_bytes(*end), digest: Digest(digest.try_into().expect("32 bytes")) }
    }

    /// The entry as it lies in the file.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..END_BYTES].copy_from_slice(&self.end.to_le_bytes());
        bytes[END_BYTES..].copy_from_slice(&self.digest.0);
        bytes
    }
}

/// The whole entries of `bytes` as they lie in the file; bytes that are no whole entry are left out.
pub fn entries(bytes: &[u8]) -> impl ExactSizeIterator<Item = DynamicEntry> + '_ {
    bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(DynamicEntry::parse)
}

/// Goes through the entries of an index in order, from the first on, and bounds each chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DynamicScan {
    pos: u64,
    end: u64,
}

impl DynamicScan {
    /// Before the first entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The range of the stream that the next entry covers and its length, 1 byte to 16 MiB. An entry that ends
    /// elsewhere is an error, and does not move the scan.
    pub fn next(&mut self, entry: &DynamicEntry) -> Result<(Range<u64>, ChunkSize)> {
        let size = entry.end.checked_sub(self.end).and_then(ChunkSize::new).ok_or_else(|| {
            Error::corrupt(format!(
                "dynamic index entry {} goes from {} to {}: 1 to {CHUNK_BYTES_MAX} bytes expected",
                self.pos, self.end, entry.end
            ))
        })?;
        let range = self.end..entry.end;
        self.pos += 1;
        self.end = entry.end;
        Ok((range, size))
    }

    /// How many entries have passed.
    pub fn pos(&self) -> u64 {
        self.pos
    }

    /// Where the last of them ended: after the last entry, the length of the stream.
    pub fn end(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::index::IndexCsum;

    const VECTOR: &[u8] = include_bytes!("../../tests/data/vectors/index-dynamic-2chunks.didx");
    const UUID: [u8; 16] = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();

    fn entry(end: u64) -> DynamicEntry {
        DynamicEntry { end, digest: Digest([9; 32]) }
    }

    #[test]
    fn the_published_vector_both_ways() {
        let header = DynamicHeader::parse(VECTOR, VECTOR.len() as u64).unwrap();
        assert_eq!((header.uuid, header.ctime), (UUID, EpochSecs(1_717_597_418)));
        assert_eq!(header.encode(), VECTOR[..4096]);
        assert_eq!(entry_count(VECTOR.len() as u64).unwrap(), 2);
        let mut csum = IndexCsum::new();
        let mut scan = DynamicScan::new();
        let mut sizes = Vec::new();
        for entry in entries(&VECTOR[4096..]) {
            csum.update(&entry.encode());
            sizes.push((scan.next(&entry).unwrap().1.bytes(), entry.digest));
        }
        assert_eq!(csum.finish(), header.csum);
        assert_eq!(sizes, [(4 << 20, Digest::of(&vec![0; 4 << 20])), (1000, Digest::of(&[b'A'; 1000]))]);
        assert_eq!((scan.pos(), scan.end()), (2, 4_195_304));
    }

    #[test]
    fn only_whole_entries_and_at_least_one() {
        for bytes in 0..4096 {
            assert_eq!(entry_count(bytes).unwrap_err().to_string(), format!("index too small ({bytes})"));
        }
        assert_eq!(entry_count(4096).unwrap_err().to_string(), "dynamic index has no entries");
        for bytes in (4097..4136).chain(4137..4176) {
            let text = entry_count(bytes).unwrap_err().to_string();
            assert!(text.starts_with("got unexpected file size"), "{text}");
        }
        for end in (0..VECTOR.len()).filter(|end| *end != 4136) {
            assert!(DynamicHeader::parse(&VECTOR[..end], end as u64).is_err(), "cut at {end}");
        }
        assert!(DynamicHeader::parse(&VECTOR[..100], 4176).is_err(), "fewer bytes than the file has");
        assert!(entry_count(u64::MAX).is_err());
    }

    #[test]
    fn ends_go_up_by_the_length_of_a_chunk() {
        let max = u64::from(CHUNK_BYTES_MAX);
        for (ends, good) in [
            (&[1, 2, 2 + max][..], true),
            (&[max], true),
            (&[0], false),
            (&[5, 5], false),
            (&[5, 4], false),
            (&[max + 1], false),
            (&[1, u64::MAX], false),
        ] {
            let mut scan = DynamicScan::new();
            let all = ends.iter().try_for_each(|end| scan.next(&entry(*end)).map(drop));
            assert_eq!(all.is_ok(), good, "{ends:?}");
        }
        let mut scan = DynamicScan::new();
        scan.next(&entry(10)).unwrap();
        assert_eq!(
            scan.next(&entry(10)).unwrap_err().to_string(),
            "dynamic index entry 1 goes from 10 to 10: 1 to 16777216 bytes expected"
        );
        assert_eq!(scan.next(&entry(15)).unwrap().0, 10..15, "an error does not move the scan");
    }

    proptest! {
        #[test]
        fn entries_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let again: Vec<u8> = entries(&bytes).flat_map(|entry| entry.encode()).collect();
            prop_assert_eq!(&again[..], &bytes[..bytes.len() / 40 * 40]);
            let mut scan = DynamicScan::new();
            let _ = entries(&bytes).try_for_each(|entry| scan.next(&entry).map(drop));
        }

        #[test]
        fn headers_round_trip(uuid: [u8; 16], ctime: i64, csum: [u8; 32], count in 1u64..1 << 50) {
            let header = DynamicHeader { uuid, ctime: EpochSecs(ctime), csum: Digest(csum) };
            let file_bytes = INDEX_HEADER_BYTES + count * DYNAMIC_ENTRY_BYTES;
            prop_assert_eq!(DynamicHeader::parse(&header.encode(), file_bytes).unwrap(), header);
            prop_assert_eq!(entry_count(file_bytes).unwrap(), count);
        }
    }
}
