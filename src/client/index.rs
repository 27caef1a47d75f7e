//! An index file as it was downloaded: checked against the manifest before anybody believes it. Pure.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::format::dynamic_index::{self, DynamicHeader, DynamicScan};
use crate::format::fixed_index::{self, FixedHeader};
use crate::format::index::{INDEX_HEADER_BYTES, IndexCsum};
use crate::format::manifest::ManifestFile;
use crate::types::{ArchiveKind, Digest};

/// Longest index that is downloaded, in bytes: a fixed one of 128 TiB. It is held in memory.
pub const INDEX_BYTES_MAX: usize = 1 << 30;

/// A chunk's place in its archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The bytes of the archive that it holds; at most 16 MiB.
    pub range: Range<u64>,
    /// Its name.
    pub digest: Digest,
}

/// A whole index whose checksum and size are those of the manifest. Takes its file's length in memory.
#[derive(Debug)]
pub struct Index {
    raw: Vec<u8>,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Fixed(FixedHeader),
    Dynamic,
}

impl Index {
    /// Checks the bytes of an index file: shape, every entry, and that checksum and size, computed from the entries rather
    /// than read from the header, are what the manifest says (spec 06 §2.1).
    pub fn check(raw: Vec<u8>, file: &ManifestFile) -> Result<Self> {
        let file_bytes = u64::try_from(raw.len()).unwrap_or(u64::MAX);
        let (layout, size_bytes) = match file.filename.kind() {
            ArchiveKind::FixedIndex => {
                let header = FixedHeader::parse(&raw, file_bytes)?;
                let size_bytes = header.size_bytes;
                (Layout::Fixed(header), size_bytes)
            }
            ArchiveKind::DynamicIndex => {
                DynamicHeader::parse(&raw, file_bytes)?;
                let mut scan = DynamicScan::new();
                for entry in dynamic_index::entries(entry_area(&raw)) {
                    scan.next(&entry)?;
                }
                (Layout::Dynamic, scan.end())
            }
            ArchiveKind::Blob => return Err(Error::invalid("a blob is no index")),
        };
        let mut csum = IndexCsum::new();
        csum.update(entry_area(&raw));
        let csum = csum.finish();
        if csum != file.csum {
            return Err(Error::corrupt(format!("the index has checksum {csum}, the manifest says {}", file.csum)));
        }
        if size_bytes != file.size {
            return Err(Error::corrupt(format!(
                "the index covers {size_bytes} bytes, the manifest says {}",
                file.size
            )));
        }
        Ok(Self { raw, layout })
    }

    /// The chunks in the order of the archive.
    pub fn slots(&self) -> Box<dyn Iterator<Item = Slot> + Send + '_> {
        match &self.layout {
            Layout::Fixed(header) => Box::new(
                fixed_index::slots(entry_area(&self.raw))
                    .zip(0_u64..)
                    .map(move |(digest, slot)| Slot { range: header.chunk_range(slot).unwrap_or_default(), digest }),
            ),
            Layout::Dynamic => {
                let mut start = 0;
                Box::new(dynamic_index::entries(entry_area(&self.raw)).map(move |entry| {
                    let range = start..entry.end;
                    start = entry.end;
                    Slot { range, digest: entry.digest }
                }))
            }
        }
    }

    /// The digests in the order of the archive.
    pub fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.slots().map(|slot| slot.digest)
    }
}

fn entry_area(raw: &[u8]) -> &[u8] {
    usize::try_from(INDEX_HEADER_BYTES).ok().and_then(|header| raw.get(header..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;
    use crate::format::manifest::CryptMode;

    /// Two slots, the second one byte long.
    fn fixed() -> (Vec<u8>, ManifestFile) {
        let size = (4 << 20) + 1;
        let mut raw = FixedHeader::new([0; 16], EpochSecs(1), size, 4 << 20).unwrap().encode().to_vec();
        raw.extend([1; 32].iter().chain(&[2; 32]));
        let mut csum = IndexCsum::new();
        csum.update(&raw[4096..]);
        let filename = "a.img.fidx".parse().unwrap();
        (raw, ManifestFile { filename, crypt_mode: CryptMode::None, size, csum: csum.finish() })
    }

    #[test]
    fn slots_cover_the_archive() {
        let (raw, file) = fixed();
        let index = Index::check(raw, &file).unwrap();
        let slots: Vec<Slot> = index.slots().collect();
        assert_eq!(slots[0], Slot { range: 0..4 << 20, digest: Digest([1; 32]) });
        assert_eq!(slots[1], Slot { range: 4 << 20..(4 << 20) + 1, digest: Digest([2; 32]) });
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn whatever_the_manifest_does_not_confirm_is_refused() {
        let (raw, file) = fixed();
        let other_size = ManifestFile { size: file.size - 1, ..file.clone() };
        let other_kind = ManifestFile { filename: "a.didx".parse().unwrap(), ..file.clone() };
        assert!(Index::check(raw.clone(), &other_size).unwrap_err().to_string().contains("covers"));
        assert!(Index::check(raw.clone(), &other_kind).is_err());
        for at in 4096..raw.len() {
            let mut flipped = raw.clone();
            flipped[at] ^= 1;
            assert!(Index::check(flipped, &file).unwrap_err().to_string().contains("checksum"));
        }
        for end in [0, 7, 4095, 4096, 4128, raw.len() - 1] {
            assert!(Index::check(raw[..end].to_vec(), &file).is_err(), "{end}");
        }
    }
}
