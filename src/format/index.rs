//! What fixed and dynamic indexes have in common: header fields and checksum (spec 02 §3, §4). Pure.
//!
//! ```text
//!  0       8       24      32              64                4096
//!  ┌───────┬───────┬───────┬───────────────┬─────────────────┬─────────
//!  │ magic │ uuid  │ ctime │ index csum    │ by kind, zeros  │ entries …
//!  └───────┴───────┴───────┴───────────────┴─────────────────┴─────────
//! ```

use sha2::{Digest as _, Sha256};

use super::magic::MAGIC_BYTES;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::types::{DIGEST_BYTES, Digest};

/// Bytes before the first entry.
pub const INDEX_HEADER_BYTES: u64 = 4096;

/// Where the checksum stands, which the writer of an index fills in last.
pub const INDEX_CSUM_AT: u64 = 32;

/// A header as it lies in the file.
pub type HeaderBytes = [u8; 4096];

const UUID_AT: usize = MAGIC_BYTES;
const CTIME_AT: usize = UUID_AT + 16;
const CSUM_AT: usize = CTIME_AT + 8;

/// Where the fields begin that only one kind has.
pub(super) const KIND_FIELDS_AT: usize = CSUM_AT + DIGEST_BYTES;

const _: () = assert!(CSUM_AT as u64 == INDEX_CSUM_AT);
const _: () = assert!(size_of::<HeaderBytes>() as u64 == INDEX_HEADER_BYTES);

/// The fields of both kinds.
pub(super) struct CommonHeader {
    pub(super) uuid: [u8; 16],
    pub(super) ctime: EpochSecs,
    pub(super) csum: Digest,
}

impl CommonHeader {
    /// Reads what both kinds have. `bytes` begins with the header, and may go on. Error texts are the original's.
    pub(super) fn parse(bytes: &[u8], magic: [u8; MAGIC_BYTES]) -> Result<(Self, &HeaderBytes)> {
        let header: &HeaderBytes =
            bytes.first_chunk().ok_or_else(|| Error::corrupt(format!("index too small ({})", bytes.len())))?;
        if header[..MAGIC_BYTES] != magic {
            return Err(Error::corrupt("got unknown magic number"));
        }
        let ctime = i64::from_le_bytes(field(header, CTIME_AT));
        Ok((
            Self { uuid: field(header, UUID_AT), ctime: EpochSecs(ctime), csum: Digest(field(header, CSUM_AT)) },
            header,
        ))
    }

    /// The header with zeros where the fields of one kind go.
    pub(super) fn encode(&self, magic: [u8; MAGIC_BYTES]) -> HeaderBytes {
        let mut header = [0; 4096];
        header[..UUID_AT].copy_from_slice(&magic);
        header[UUID_AT..CTIME_AT].copy_from_slice(&self.uuid);
        header[CTIME_AT..CSUM_AT].copy_from_slice(&self.ctime.0.to_le_bytes());
        header[CSUM_AT..KIND_FIELDS_AT].copy_from_slice(&self.csum.0);
        header
    }
}

/// `N` bytes of a header at a constant place inside it.
pub(super) fn field<const N: usize>(header: &HeaderBytes, at: usize) -> [u8; N] {
    header[at..at + N].try_into().expect("N bytes")
}

/// Checksum of an index: SHA-256 over its entries as they lie in the file, in order.
#[derive(Clone, Debug, Default)]
pub struct IndexCsum(Sha256);

impl IndexCsum {
    /// Of no entries yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes of the entry area.
    pub fn update(&mut self, entries: &[u8]) {
        self.0.update(entries);
    }

    /// The checksum of all that was taken in.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::magic;

    #[test]
    fn the_checksum_is_the_same_however_the_entries_come() {
        let entries = [7; 1000];
        let mut csum = IndexCsum::new();
        entries.chunks(33).for_each(|part| csum.update(part));
        assert_eq!(csum.finish(), Digest::of(&entries));
        assert_eq!(IndexCsum::new().finish(), Digest::of(b""));
    }

    #[test]
    fn a_header_of_another_kind_or_length_is_refused_in_the_recorded_words() {
        let header = CommonHeader { uuid: [1; 16], ctime: EpochSecs(-1), csum: Digest([2; 32]) };
        let bytes = header.encode(magic::FIXED_INDEX);
        let text = |bytes: &[u8], magic| CommonHeader::parse(bytes, magic).err().unwrap().to_string();
        assert_eq!(text(&bytes, magic::DYNAMIC_INDEX), "got unknown magic number");
        for end in 0..bytes.len() {
            assert_eq!(text(&bytes[..end], magic::FIXED_INDEX), format!("index too small ({end})"));
        }
        let (parsed, _) = CommonHeader::parse(&bytes, magic::FIXED_INDEX).unwrap();
        assert_eq!((parsed.uuid, parsed.ctime, parsed.csum), ([1; 16], EpochSecs(-1), Digest([2; 32])));
    }
}
