//! Reading index files: opened and validated once, scanned in bounded blocks.

use std::path::Path;
use std::sync::Arc;

use super::file_reader::{FileReader, OpenFile};
use crate::engine::{Disk, Engine};
use crate::error::{Error, Result};
use crate::format::dynamic_index::{self, DYNAMIC_ENTRY_BYTES, DynamicHeader, DynamicScan};
use crate::format::fixed_index::{self, FIXED_ENTRY_BYTES, FixedHeader};
use crate::format::index::{INDEX_HEADER_BYTES, IndexCsum};
use crate::types::{ArchiveKind, Digest};

/// How much of an index is read at a time at most: the largest number of whole entries of either kind in about 1 MiB.
pub const SCAN_BLOCK_BYTES: u64 = (1 << 20) / 160 * 160;

// 160 is a multiple of 32 and of 40.
const _: () =
    assert!(SCAN_BLOCK_BYTES.is_multiple_of(FIXED_ENTRY_BYTES) && SCAN_BLOCK_BYTES.is_multiple_of(DYNAMIC_ENTRY_BYTES));

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

#[derive(Clone, Copy, Debug)]
enum Header {
    Fixed(FixedHeader),
    Dynamic { header: DynamicHeader, count: u64, size_bytes: u64 },
}

/// An open index file whose header is valid; cheap to clone.
#[derive(Clone, Debug)]
pub struct IndexReader {
    file: FileReader,
    header: Header,
}

impl IndexReader {
    /// Opens the index at `path`. The error texts are the original's; a missing index is not `NotFound`, for it answers 400.
    pub(super) fn open(disk: &Disk, engine: &Engine, path: &Path, kind: ArchiveKind) -> Result<Self> {
        let what = match kind {
            ArchiveKind::FixedIndex => "fixed",
            ArchiveKind::DynamicIndex => "dynamic",
            ArchiveKind::Blob => return Err(Error::invalid(format!("{path:?} is not an index"))),
        };
        Self::open_as(disk, engine, path, kind, &format!("Unable to open {what} index {path:?}"))
    }

    /// As [`Self::open`], with other words before an error.
    pub(super) fn open_as(disk: &Disk, engine: &Engine, path: &Path, kind: ArchiveKind, context: &str) -> Result<Self> {
        let open = OpenFile::open(disk, path).map_err(|e| Error::io(context, e))?;
        let header = Header::read(&open, kind).map_err(|e| e.context(context))?;
        Ok(Self { file: FileReader::new(engine.clone(), open), header })
    }

    /// Fixed or dynamic.
    pub fn kind(&self) -> ArchiveKind {
        match self.header {
            Header::Fixed(_) => ArchiveKind::FixedIndex,
            Header::Dynamic { .. } => ArchiveKind::DynamicIndex,
        }
    }

    /// How many entries.
    pub fn count(&self) -> u64 {
        match self.header {
            Header::Fixed(header) => header.slot_count(),
            Header::Dynamic { count, .. } => count,
        }
    }

    /// Length of the archive in bytes.
    pub fn size_bytes(&self) -> u64 {
        match self.header {
            Header::Fixed(header) => header.size_bytes,
            Header::Dynamic { size_bytes, .. } => size_bytes,
        }
    }

    /// Chunk size of a fixed index.
    pub fn chunk_bytes(&self) -> Option<u64> {
        match self.header {
            Header::Fixed(header) => Some(header.chunk_bytes),
            Header::Dynamic { .. } => None,
        }
    }

    /// The checksum that the header claims; [`IndexScan::csum`] tells the true one.
    pub fn stored_csum(&self) -> Digest {
        match self.header {
            Header::Fixed(header) => header.csum,
            Header::Dynamic { header, .. } => header.csum,
        }
    }

    /// The file itself, for a verbatim download.
    pub fn file(&self) -> &FileReader {
        &self.file
    }

    /// The same, read in the background.
    pub fn in_background(self) -> Self {
        Self { file: self.file.in_background(), ..self }
    }

    /// Starts reading the entries from the first.
    pub fn scan(&self) -> IndexScan {
        IndexScan {
            file: self.file.clone(),
            state: Some(ScanState {
                header: self.header,
                offset: INDEX_HEADER_BYTES,
                slot: 0,
                dynamic: DynamicScan::new(),
                csum: IndexCsum::new(),
            }),
            csum: None,
        }
    }
}

impl Header {
    fn read(open: &OpenFile, kind: ArchiveKind) -> Result<Self> {
        let size = open.size_bytes();
        let bytes = open.read_at(0, usize::try_from(INDEX_HEADER_BYTES).expect("4096"))?;
        if kind == ArchiveKind::FixedIndex {
            return Ok(Self::Fixed(FixedHeader::parse(&bytes, size)?));
        }
        let header = DynamicHeader::parse(&bytes, size)?;
        let count = dynamic_index::entry_count(size)?;
        let last = open.read_at(size - DYNAMIC_ENTRY_BYTES, usize::try_from(DYNAMIC_ENTRY_BYTES).expect("40"))?;
        let size_bytes = dynamic_index::entries(&last).last().map_or(0, |entry| entry.end);
        Ok(Self::Dynamic { header, count, size_bytes })
    }
}

/// Entries of an index in order, a block at a time.
#[derive(Debug)]
pub struct IndexScan {
    file: FileReader,
    state: Option<ScanState>,
    csum: Option<Digest>,
}

/// Travels with the work to the pool, where entries are hashed and parsed, and back.
#[derive(Debug)]
pub(super) struct ScanState {
    header: Header,
    offset: u64,
    slot: u64,
    dynamic: DynamicScan,
    csum: IndexCsum,
}

impl IndexScan {
    /// The next entries, at most about 32,000 of them (1 MiB of the file); `None` behind the last. Entries that contradict the
    /// header or each other are an error of kind `Corrupt`, which ends the scan.
    pub async fn next_block(&mut self) -> Result<Option<Vec<IndexEntry>>> {
        let Some(state) = self.state.take() else { return Ok(None) };
        if state.offset >= self.file.size_bytes() {
            self.csum = Some(state.csum.finish());
            return Ok(None);
        }
        let open = Arc::clone(self.file.open());
        let (state, entries) = self
            .file
            .engine()
            .run(move |_| {
                let mut state = state;
                let entries = state.read_block(&open)?;
                Ok::<_, Error>((state, entries))
            })
            .await??;
        self.state = Some(state);
        Ok(Some(entries))
    }

    /// Bytes of the file that have not been read yet.
    pub fn left_bytes(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| self.file.size_bytes().saturating_sub(state.offset))
    }

    /// The checksum over all entries; `None` before [`Self::next_block`] has said that there are no more.
    pub fn csum(&self) -> Option<Digest> {
        self.csum
    }
}

impl ScanState {
    fn read_block(&mut self, open: &OpenFile) -> Result<Vec<IndexEntry>> {
        let bytes = open.read_at(self.offset, usize::try_from(SCAN_BLOCK_BYTES).expect("1 MiB"))?;
        self.offset += bytes.len() as u64;
        self.csum.update(&bytes);
        let entries = match self.header {
            Header::Fixed(header) => {
                let first = self.slot;
                let entries: Option<Vec<IndexEntry>> = fixed_index::slots(&bytes)
                    .zip(first..)
                    .map(|(digest, slot)| {
                        let (range, size) = (header.chunk_range(slot)?, header.chunk_size(slot)?);
                        Some(IndexEntry { pos: range.start, digest, size_bytes: size.bytes() })
                    })
                    .collect();
                entries.ok_or_else(|| Error::corrupt("fixed index has more slots than its header says"))
            }
            Header::Dynamic { .. } => dynamic_index::entries(&bytes)
                .map(|entry| {
                    let (range, size) = self.dynamic.next(&entry)?;
                    Ok(IndexEntry { pos: range.start, digest: entry.digest, size_bytes: size.bytes() })
                })
                .collect(),
        };
        let entries = entries.map_err(|e| e.context(format_args!("index {:?}", open.path())))?;
        self.slot += entries.len() as u64;
        Ok(entries)
    }
}
