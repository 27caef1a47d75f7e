//! Writing index files under a temporary name until they are closed.

use std::fmt;
use std::sync::Arc;

use super::custody::Custody;
use super::durable::{TempFile, Weight};
use super::explain::failed;
use super::file_reader::OpenFile;
use super::layout::temp_index_name;
use super::lease::Lease;
use crate::engine::Disk;
use crate::error::{Error, Kind, Result};
use crate::format::dynamic_index::{self, DYNAMIC_ENTRY_BYTES, DynamicEntry, DynamicHeader, DynamicScan};
use crate::format::fixed_index::{self, FixedHeader};
use crate::format::index::{HeaderBytes, INDEX_CSUM_AT, INDEX_HEADER_BYTES, IndexCsum};
use crate::sync::Mutex;
use crate::types::{ArchiveName, Digest, FIXED_CHUNK_BYTES};

/// The largest archive that an index is made for: 1 PiB, whose fixed index has 8 GiB. What a client asks for is a sparse file at first, so
/// without a bound one request could ask for a file that no file system holds.
pub const ARCHIVE_BYTES_MAX: u64 = 1 << 50;

/// How much is read at a time for the checksum; a multiple of both entry sizes.
const BLOCK_BYTES: usize = (1 << 20) / 160 * 160;

/// Mode of an index before the umask (spec 01 §1.2).
const INDEX_MODE: u32 = 0o666;

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

/// The temporary file of an index; dropped before it is closed, it goes away.
struct Writing {
    lease: Arc<Lease>,
    name: ArchiveName,
    temp: Option<TempFile>,
}

impl Writing {
    fn create(
        disk: &Disk,
        lease: &Arc<Lease>,
        name: &ArchiveName,
        header: &HeaderBytes,
        file_bytes: u64,
    ) -> Result<Self> {
        lease.reserve(name)?;
        let mut writing = Self { lease: Arc::clone(lease), name: name.clone(), temp: None };
        let path = lease.dir.join(temp_index_name(name));
        let made = lease.store.durable.create_temp(disk, &path, INDEX_MODE).and_then(|temp| {
            let written = temp.file.write_all_at(header, 0).and_then(|()| temp.file.set_len(file_bytes));
            match written {
                Ok(()) => Ok(temp),
                Err(e) => {
                    temp.discard(disk);
                    Err(e)
                }
            }
        });
        match made {
            Ok(temp) => {
                writing.temp = Some(temp);
                Ok(writing)
            }
            Err(e) => {
                lease.release(name);
                Err(failed("unable to create index", &path, e))
            }
        }
    }

    fn file(&self) -> &TempFile {
        self.temp.as_ref().expect("there until it is closed")
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let TempFile { file, path, .. } = self.file();
        file.write_all_at(bytes, offset).map_err(|e| failed("unable to write index", path, e))
    }

    /// Computes the checksum, puts it into the header and gives the file its name; or removes the file.
    fn close(
        mut self,
        disk: &Disk,
        (file_bytes, expected): (u64, Digest),
        see_block: impl FnMut(&Custody, &[u8]) -> Result<()>,
    ) -> Result<Digest> {
        // A collection that begins meanwhile waits until the file has its name; one that runs is told what it names before it has it.
        let _change = self.lease.store.custody.begin_change();
        let hashed = self.hash(file_bytes, expected, see_block);
        let Some(temp) = self.temp.take() else { return hashed };
        let path = self.lease.dir.join(self.name.as_str());
        let closed = match hashed {
            Ok(csum) => {
                let published = self.lease.store.durable.publish(disk, temp, &path, Weight::Payload);
                published.map(|()| csum).map_err(|e| failed("unable to close index", &path, e))
            }
            Err(e) => {
                temp.discard(disk);
                Err(e)
            }
        };
        self.lease.release(&self.name);
        closed
    }

    fn discard(mut self, disk: &Disk) {
        if let Some(temp) = self.temp.take() {
            temp.discard(disk);
            self.lease.release(&self.name);
        }
    }

    fn hash(
        &self,
        file_bytes: u64,
        expected: Digest,
        mut see_block: impl FnMut(&Custody, &[u8]) -> Result<()>,
    ) -> Result<Digest> {
        let TempFile { file, path, .. } = self.file();
        let reading = |e| failed("unable to read index", path, e);
        let size = file.meta().map_err(reading)?.size_bytes;
        if size != file_bytes {
            return Err(Error::invalid(format!("index has {size} bytes, {file_bytes} expected")));
        }
        let mut csum = IndexCsum::new();
        let mut offset = INDEX_HEADER_BYTES;
        let mut block = vec![0; BLOCK_BYTES];
        while offset < size {
            let bytes = usize::try_from(size - offset).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            let block = &mut block[..bytes];
            file.read_exact_at(block, offset).map_err(reading)?;
            see_block(&self.lease.store.custody, block)?;
            csum.update(block);
            offset += bytes as u64;
        }
        let csum = csum.finish();
        if csum != expected {
            return Err(Error::invalid("got unexpected checksum"));
        }
        self.write(&csum.0, INDEX_CSUM_AT)?;
        Ok(csum)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let Some(temp) = self.temp.take() else { return };
        // Without a pass the whole directory is about to go, or is gone and may be another's by now.
        let Ok(pass) = self.lease.enter() else { return };
        let discard = self.lease.discarding(self.name.clone());
        self.lease.store.engine.detach(move |disk| {
            temp.discard(disk);
            drop((discard, pass));
        });
    }
}

/// What both writers share: the file while it is open, and who works on it.
struct Slot {
    lease: Arc<Lease>,
    writing: Mutex<Option<Arc<Writing>>>,
}

impl Slot {
    async fn discard(&self) -> Result<()> {
        let pass = self.lease.enter()?;
        let writing = self.take()?;
        let discarded = self.lease.store.engine.run(move |disk| {
            writing.discard(disk);
            drop(pass);
        });
        discarded.await
    }

    fn new(writing: Writing) -> Self {
        Self { lease: Arc::clone(&writing.lease), writing: Mutex::new(Some(Arc::new(writing))) }
    }

    /// Writes runs of bytes at offsets.
    async fn write(&self, runs: Vec<(u64, Vec<u8>)>) -> Result<()> {
        let pass = self.lease.enter()?;
        let writing = self.writing.lock().clone().ok_or_else(|| Error::invalid("index is closed"))?;
        let written = self.lease.store.engine.run(move |_| {
            let written = runs.iter().try_for_each(|(offset, bytes)| writing.write(bytes, *offset));
            drop((writing, pass));
            written
        });
        written.await?
    }

    /// Takes the file for closing, if nobody writes to it.
    fn take(&self) -> Result<Writing> {
        let mut slot = self.writing.lock();
        let writing = slot.take().ok_or_else(|| Error::invalid("index is closed"))?;
        Arc::try_unwrap(writing).map_err(|writing| {
            *slot = Some(writing);
            Error::invalid("index is still being written to")
        })
    }
}

/// A fixed index in the making. Methods may be called concurrently; dropped without [`Self::close`], the file goes away.
pub struct FixedWriter {
    name: ArchiveName,
    header: FixedHeader,
    slot: Slot,
}

impl FixedWriter {
    /// Makes the file, all slots empty, or as in `from`, which has as many.
    pub(super) fn create(
        disk: &Disk,
        lease: &Arc<Lease>,
        name: &ArchiveName,
        size_bytes: u64,
        from: Option<&OpenFile>,
    ) -> Result<Self> {
        if size_bytes > ARCHIVE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "an image of {size_bytes} bytes is too large, at most {ARCHIVE_BYTES_MAX}"
            )));
        }
        let header = FixedHeader::new(new_uuid(), lease.store.clock.now(), size_bytes, u64::from(FIXED_CHUNK_BYTES))
            .map_err(|e| e.with_kind(Kind::Invalid))?;
        let writing = Writing::create(disk, lease, name, &header.encode(), header.file_bytes())?;
        if let Some(from) = from {
            let mut offset = INDEX_HEADER_BYTES;
            while offset < header.file_bytes() {
                let block = from.read_at(offset, BLOCK_BYTES)?;
                if block.is_empty() {
                    return Err(Error::corrupt(format!("index {:?} became shorter", from.path())));
                }
                writing.write(&block, offset)?;
                offset += block.len() as u64;
            }
        }
        Ok(Self { name: name.clone(), header, slot: Slot::new(writing) })
    }

    /// The archive's name.
    pub fn name(&self) -> &ArchiveName {
        &self.name
    }

    /// How many slots the index has.
    pub fn slot_count(&self) -> u64 {
        self.header.slot_count()
    }

    /// Writes digests into slots, in any order; a slot may be written again. All slots are checked before the first is written.
    pub async fn write_slots(&self, mut slots: Vec<(u64, Digest)>) -> Result<()> {
        // Stable, so of two writes to one slot the later one stays behind the earlier.
        slots.sort_by_key(|(slot, _)| *slot);
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        for (slot, digest) in slots {
            let at = self.header.slot_at(slot).ok_or_else(|| {
                Error::invalid(format!("slot {slot} is behind the last of {} of '{}'", self.slot_count(), self.name))
            })?;
            match runs.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == at => bytes.extend_from_slice(&digest.0),
                _ => runs.push((at, digest.0.to_vec())),
            }
        }
        self.slot.write(runs).await
    }

    /// Removes the file. Unlike after a drop, its name is free when this returns.
    pub async fn discard(&self) -> Result<()> {
        self.slot.discard().await
    }

    /// Computes the checksum from the file, writes it into the header and gives the file its final name. With another checksum
    /// than `expected` the file goes away ("got unexpected checksum"). The writer is closed afterwards in any case, but for a call while
    /// slots are being written.
    pub async fn close(&self, expected: Digest) -> Result<ClosedIndex> {
        let pass = self.slot.lease.enter()?;
        let writing = self.slot.take()?;
        let header = self.header;
        let closed = self.slot.lease.store.engine.run(move |disk| {
            let csum = writing.close(disk, (header.file_bytes(), expected), |custody, block| {
                custody.tell(fixed_index::slots(block));
                Ok(())
            });
            drop(pass);
            Ok(ClosedIndex { csum: csum?, count: header.slot_count(), size_bytes: header.size_bytes })
        });
        closed.await?
    }
}

/// A dynamic index in the making. Dropped without [`Self::close`], the file goes away.
pub struct DynamicWriter {
    name: ArchiveName,
    slot: Slot,
}

impl DynamicWriter {
    /// Makes the file, without entries.
    pub(super) fn create(disk: &Disk, lease: &Arc<Lease>, name: &ArchiveName) -> Result<Self> {
        let header = DynamicHeader { uuid: new_uuid(), ctime: lease.store.clock.now(), csum: Digest::ZERO };
        let writing = Writing::create(disk, lease, name, &header.encode(), INDEX_HEADER_BYTES)?;
        Ok(Self { name: name.clone(), slot: Slot::new(writing) })
    }

    /// The archive's name.
    pub fn name(&self) -> &ArchiveName {
        &self.name
    }

    /// Writes entries from the entry number `first` on. The caller keeps count and order; calls for different entries may run
    /// concurrently.
    pub async fn append(&self, first: u64, entries: Vec<DynamicEntry>) -> Result<()> {
        let at = dynamic_offset(first)?;
        dynamic_offset(first.saturating_add(entries.len() as u64))?;
        self.slot.write(vec![(at, entries.iter().flat_map(DynamicEntry::encode).collect())]).await
    }

    /// As [`FixedWriter::discard`].
    pub async fn discard(&self) -> Result<()> {
        self.slot.discard().await
    }

    /// As [`FixedWriter::close`]; `count` is how many entries were appended. The file must hold exactly these, each behind the one
    /// before.
    pub async fn close(&self, count: u64, expected: Digest) -> Result<ClosedIndex> {
        let pass = self.slot.lease.enter()?;
        let file_bytes = dynamic_offset(count)?;
        let writing = self.slot.take()?;
        let closed = self.slot.lease.store.engine.run(move |disk| {
            let mut scan = DynamicScan::new();
            let csum = writing.close(disk, (file_bytes, expected), |custody, block| {
                custody.tell(dynamic_index::entries(block).map(|entry| entry.digest));
                let moved = dynamic_index::entries(block).try_for_each(|entry| scan.next(&entry).map(drop));
                moved.map_err(|e| e.with_kind(Kind::Invalid))
            });
            drop(pass);
            let csum = csum?;
            Ok(ClosedIndex { csum, count: scan.pos(), size_bytes: scan.end() })
        });
        closed.await?
    }
}

/// Where an entry stands, if the archive may be that long.
fn dynamic_offset(entry: u64) -> Result<u64> {
    // A chunk has at least one byte; an index of a petabyte of these would not fit anywhere, but its size can be computed.
    if entry > ARCHIVE_BYTES_MAX / DYNAMIC_ENTRY_BYTES {
        return Err(Error::invalid(format!("entry {entry} is behind what an index may hold")));
    }
    Ok(INDEX_HEADER_BYTES + entry * DYNAMIC_ENTRY_BYTES)
}

fn new_uuid() -> [u8; 16] {
    uuid::Uuid::new_v4().into_bytes()
}

impl fmt::Debug for FixedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedWriter").field("name", &self.name).field("header", &self.header).finish_non_exhaustive()
    }
}

impl fmt::Debug for DynamicWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicWriter").field("name", &self.name).finish_non_exhaustive()
    }
}
