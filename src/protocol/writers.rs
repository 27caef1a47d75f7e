//! The open indexes of a session: what may be appended where, and when an index may be closed. Pure.
//!
//! ```text
//! create ─→ open ─ plan ─→ in flight ─ commit or cancel ─→ open ─ close ─→ closed or discarded
//! ```
//!
//! A plan is made of what the writer is now; nothing changes until it is committed, after its chunks were seen on the
//! disk and its entries written. So an append happens whole or not at all, and one that fails may be sent again.

use std::collections::BTreeMap;

use super::action::{APPEND_ENTRIES_MAX, Append, Close, WriterId, WriterKind};
use crate::error::{Error, Result};
use crate::types::{ArchiveName, ChunkSize, Digest, FIXED_CHUNK_BYTES};

/// Sums over the chunks that a writer was sent, as the manifest tells them (spec 03 §7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UploadStats {
    /// Chunks sent.
    pub count: u64,
    /// Their plaintext, in bytes.
    pub size_bytes: u64,
    /// What they take on the disk, in bytes.
    pub compressed_bytes: u64,
    /// How many of them the store had already.
    pub duplicates: u64,
}

impl UploadStats {
    /// Adds what another writer was sent.
    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.size_bytes = self.size_bytes.saturating_add(other.size_bytes);
        self.compressed_bytes = self.compressed_bytes.saturating_add(other.compressed_bytes);
        self.duplicates = self.duplicates.saturating_add(other.duplicates);
    }
}

/// What kind of index a writer makes, and how far it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Slots of 4 MiB.
    Fixed {
        /// Length of the image.
        size_bytes: u64,
        /// Started as a copy of the base's index.
        incremental: bool,
    },
    /// One chunk after another.
    Dynamic {
        /// End of the last chunk.
        end: u64,
    },
}

impl Layout {
    /// Fixed or dynamic.
    pub fn kind(&self) -> WriterKind {
        match self {
            Self::Fixed { .. } => WriterKind::Fixed,
            Self::Dynamic { .. } => WriterKind::Dynamic,
        }
    }
}

/// Longest image: 1 PiB, an index of 8 GiB.
pub const IMAGE_BYTES_MAX: u64 = 1 << 50;

/// Slots of a fixed index over `size_bytes`.
pub fn slot_count(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(u64::from(FIXED_CHUNK_BYTES))
}

#[derive(Debug)]
struct Writer {
    archive: ArchiveName,
    layout: Layout,
    /// Chunks appended, a slot that was filled twice counted twice.
    appended: u64,
    /// Plans neither committed nor cancelled.
    in_flight: u32,
    stats: UploadStats,
    short_uploads: u64,
    filled: Bitmap,
}

/// Which slots of a fixed index were filled: one bit each, as far as the last filled one, 32 MiB for [`IMAGE_BYTES_MAX`].
#[derive(Debug, Default)]
struct Bitmap {
    words: Vec<u64>,
    count: u64,
}

impl Bitmap {
    fn set(&mut self, slot: u64) {
        let Ok(word) = usize::try_from(slot / 64) else { return };
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (slot % 64);
        self.count += u64::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }
}

/// Where the chunks of an append go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entries {
    /// Slot and chunk, in the order of the request; of two for one slot the later counts.
    Fixed(Vec<(u64, Digest)>),
    /// End and chunk, strictly rising, to be written from entry number `first` on.
    Dynamic {
        /// Entries before these.
        first: u64,
        /// End of the chunk in the stream, and the chunk.
        entries: Vec<(u64, Digest)>,
    },
}

impl Entries {
    fn slots(&self) -> impl Iterator<Item = u64> + '_ {
        let slots = match self {
            Self::Fixed(entries) => entries.as_slice(),
            Self::Dynamic { .. } => &[],
        };
        slots.iter().map(|(slot, _)| *slot)
    }
}

/// An append that may happen once its chunks have been seen. Commit it, or cancel it.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct AppendPlan {
    /// The writer.
    pub wid: WriterId,
    /// The chunks that it names, each once, sorted.
    pub digests: Vec<Digest>,
    /// What to write.
    pub entries: Entries,
    /// Offset of a dynamic writer before and after it.
    start: u64,
    end: u64,
}

/// An index that the client calls complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedWriter {
    /// The writer, not to be used any more.
    pub wid: WriterId,
    /// Name of the index.
    pub archive: ArchiveName,
    /// Fixed or dynamic, with its length.
    pub layout: Layout,
    /// Chunks appended.
    pub appended: u64,
    /// Chunks sent for it.
    pub stats: UploadStats,
    /// Slots of a fixed index that no chunk was put into; of a copied one, none.
    pub unfilled_slots: u64,
}

impl ClosedWriter {
    /// Length of the image or stream.
    pub fn size_bytes(&self) -> u64 {
        match self.layout {
            Layout::Fixed { size_bytes, .. } => size_bytes,
            Layout::Dynamic { end } => end,
        }
    }

    /// Appended chunks that were never sent for it: known ones, and repeated ones. Not below 0: a client may send
    /// chunks that it never appends (spec 03 §7).
    pub fn known_count(&self) -> u64 {
        self.appended.saturating_sub(self.stats.count)
    }
}

/// All open indexes of a session.
#[derive(Debug, Default)]
pub struct Writers {
    open: BTreeMap<WriterId, Writer>,
    given: u16,
    creating: u16,
}

impl Writers {
    /// Reserves one of the session's 256 numbers while the file is made. To be followed by [`Self::created`] or
    /// [`Self::create_failed`].
    pub fn begin_create(&mut self) -> Result<()> {
        if self.given + self.creating >= WriterId::MAX {
            return Err(Error::invalid(format!("a session has at most {} index writers", WriterId::MAX)));
        }
        self.creating += 1;
        Ok(())
    }

    /// Gives the new writer the next number.
    pub fn created(&mut self, archive: ArchiveName, layout: Layout) -> WriterId {
        self.creating -= 1;
        self.given += 1;
        let wid = WriterId::new(u64::from(self.given)).expect("begin_create keeps below the limit");
        let stats = UploadStats::default();
        let filled = Bitmap::default();
        let writer = Writer { archive, layout, appended: 0, in_flight: 0, stats, short_uploads: 0, filled };
        self.open.insert(wid, writer);
        wid
    }

    /// The number was not needed.
    pub fn create_failed(&mut self) {
        self.creating -= 1;
    }

    /// Name of the index of a writer, if that is open.
    pub fn archive_of(&self, wid: WriterId) -> Option<&ArchiveName> {
        self.open.get(&wid).map(|writer| &writer.archive)
    }

    /// Whether an index is open, or about to be.
    pub fn any_open(&self) -> bool {
        !self.open.is_empty() || self.creating > 0
    }

    fn get(&mut self, kind: WriterKind, wid: WriterId) -> Result<&mut Writer> {
        self.open
            .get_mut(&wid)
            .filter(|writer| writer.layout.kind() == kind)
            .ok_or_else(|| Error::invalid(format!("{kind} writer '{wid}' not registered")))
    }

    /// Counts a chunk that was sent for a writer (spec 03 §6.4). The unbalanced parenthesis is the original's.
    pub fn count_upload(
        &mut self,
        kind: WriterKind,
        wid: WriterId,
        size: ChunkSize,
        disk_bytes: u64,
        duplicate: bool,
    ) -> Result<()> {
        let writer = self.get(kind, wid)?;
        if kind == WriterKind::Fixed {
            if size.bytes() > FIXED_CHUNK_BYTES {
                return Err(Error::invalid(format!(
                    "fixed writer '{}' - got large chunk ({} > {FIXED_CHUNK_BYTES}",
                    writer.archive,
                    size.bytes()
                )));
            }
            if size.bytes() < FIXED_CHUNK_BYTES {
                if writer.short_uploads > 0 {
                    return Err(Error::invalid(format!(
                        "fixed writer '{wid}' - detected multiple end chunks (chunk size too small)"
                    )));
                }
                writer.short_uploads += 1;
            }
        }
        writer.stats.add(&UploadStats {
            count: 1,
            size_bytes: u64::from(size.bytes()),
            compressed_bytes: disk_bytes,
            duplicates: u64::from(duplicate),
        });
        Ok(())
    }

    /// Decides where the chunks of a request go; `size_of` says how long a known chunk is, or that it is not known.
    ///
    /// Entries are judged in order, each as the original does: known, writer, place. The first fault is the answer.
    pub fn plan_append(
        &mut self,
        request: &Append,
        size_of: impl Fn(&Digest) -> Option<ChunkSize>,
    ) -> Result<AppendPlan> {
        let Append { kind, wid, digests, offsets } = request;
        if digests.len() != offsets.len() {
            let (has, wants) = (offsets.len(), digests.len());
            return Err(Error::invalid(format!("offset list has wrong length ({has} != {wants})")));
        }
        if digests.len() > APPEND_ENTRIES_MAX {
            let text = format!("an append has at most {APPEND_ENTRIES_MAX} chunks (got {})", digests.len());
            return Err(Error::invalid(text));
        }
        if let Some(first) = digests.first()
            && size_of(first).is_none()
        {
            return Err(no_such_chunk(first));
        }
        let writer = self.get(*kind, *wid)?;
        let sized =
            |digest: &Digest| size_of(digest).map(|s| u64::from(s.bytes())).ok_or_else(|| no_such_chunk(digest));
        let (entries, start, end) = match writer.layout {
            Layout::Fixed { size_bytes, .. } => {
                let mut entries = Vec::with_capacity(digests.len());
                for (digest, offset) in digests.iter().zip(offsets) {
                    entries.push((fixed_slot(*offset, sized(digest)?, size_bytes)?, *digest));
                }
                (Entries::Fixed(entries), 0, 0)
            }
            Layout::Dynamic { end: start } => {
                let mut end = start;
                let mut entries = Vec::with_capacity(digests.len());
                for (digest, offset) in digests.iter().zip(offsets) {
                    let size = sized(digest)?;
                    if *offset != end {
                        return Err(strange_offset(&writer.archive, end, *offset));
                    }
                    // 256 PiB and more at 2^64: cannot be reached by chunks of at most 16 MiB, yet costs nothing to say.
                    end = end.checked_add(size).ok_or_else(|| strange_offset(&writer.archive, end, *offset))?;
                    entries.push((end, *digest));
                }
                (Entries::Dynamic { first: writer.appended, entries }, start, end)
            }
        };
        writer.in_flight += 1;
        let mut digests = digests.clone();
        digests.sort_unstable();
        digests.dedup();
        Ok(AppendPlan { wid: *wid, digests, entries, start, end })
    }

    /// Whether a plan still fits: nothing else was appended to a dynamic index since. Asked before its entries
    /// are written.
    pub fn still_fits(&self, plan: &AppendPlan) -> Result<()> {
        match self.open.get(&plan.wid).map(|writer| (&writer.layout, &writer.archive)) {
            Some((Layout::Dynamic { end }, archive)) if *end != plan.start => {
                Err(strange_offset(archive, *end, plan.start))
            }
            Some(_) => Ok(()),
            None => Err(Error::invalid(format!("{} writer '{}' not registered", plan.kind(), plan.wid))),
        }
    }

    /// The entries are in the file.
    pub fn commit_append(&mut self, plan: AppendPlan) {
        // A writer with a plan in flight cannot be closed, so it is there.
        if let Some(writer) = self.open.get_mut(&plan.wid) {
            writer.in_flight -= 1;
            writer.appended += plan.count();
            match &mut writer.layout {
                Layout::Dynamic { end } => *end = plan.end,
                Layout::Fixed { .. } => plan.entries.slots().for_each(|slot| writer.filled.set(slot)),
            }
        }
    }

    /// The append did not happen.
    pub fn cancel_append(&mut self, plan: AppendPlan) {
        if let Some(writer) = self.open.get_mut(&plan.wid) {
            writer.in_flight -= 1;
        }
    }

    /// Takes a writer out to be closed (spec 03 §6.6).
    ///
    /// The outer error leaves the writer as it is. The inner one consumes it, as the original does: count or size
    /// differ from what the client says, so what it made is to be discarded.
    pub fn close(&mut self, request: &Close) -> Result<Result<ClosedWriter, (WriterId, Error)>> {
        let Close { kind, wid, .. } = request;
        let writer = self.get(*kind, *wid)?;
        if writer.in_flight > 0 {
            let (archive, running) = (&writer.archive, writer.in_flight);
            let text = format!("{kind} writer '{archive}' close failed - {running} appends are still running");
            return Err(Error::invalid(text));
        }
        let writer = self.open.remove(wid).expect("was there a moment ago");
        let Writer { archive, layout, appended, stats, filled, .. } = writer;
        let unfilled_slots = match layout {
            Layout::Fixed { size_bytes, incremental: false } => slot_count(size_bytes) - filled.count,
            Layout::Fixed { .. } | Layout::Dynamic { .. } => 0,
        };
        let closed = ClosedWriter { wid: *wid, archive, layout, appended, stats, unfilled_slots };
        Ok(match close_fault(&closed, request) {
            None => Ok(closed),
            Some(fault) => {
                let text = format!("{kind} writer '{}' close failed - {fault}", closed.archive);
                Err((*wid, Error::invalid(text)))
            }
        })
    }
}

impl AppendPlan {
    /// A plan to name these chunks, for tests of what is asked about them.
    #[cfg(test)]
    pub fn naming(digests: Vec<Digest>) -> Self {
        let entries = Entries::Fixed(digests.iter().map(|digest| (0, *digest)).collect());
        Self { wid: WriterId::new(1).expect("a number"), digests, entries, start: 0, end: 0 }
    }

    /// The first chunk, in the order of the request, that `is` so.
    pub fn first_that(&self, is: impl Fn(&Digest) -> bool) -> Option<Digest> {
        match &self.entries {
            Entries::Fixed(entries) => entries.iter().map(|(_, digest)| *digest).find(is),
            Entries::Dynamic { entries, .. } => entries.iter().map(|(_, digest)| *digest).find(is),
        }
    }

    /// How many entries.
    pub fn count(&self) -> u64 {
        let count = match &self.entries {
            Entries::Fixed(entries) => entries.len(),
            Entries::Dynamic { entries, .. } => entries.len(),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Fixed or dynamic.
    pub fn kind(&self) -> WriterKind {
        match self.entries {
            Entries::Fixed(_) => WriterKind::Fixed,
            Entries::Dynamic { .. } => WriterKind::Dynamic,
        }
    }
}

/// What is wrong with the client's count or size. The csum is compared when the file has been read.
fn close_fault(closed: &ClosedWriter, said: &Close) -> Option<String> {
    let count = |ours: u64| {
        (ours != said.chunk_count).then(|| format!("unexpected chunk count ({ours} != {})", said.chunk_count))
    };
    let size =
        |ours: u64| (ours != said.size_bytes).then(|| format!("unexpected file size ({ours} != {})", said.size_bytes));
    match closed.layout {
        Layout::Dynamic { end } => count(closed.appended).or_else(|| size(end)),
        Layout::Fixed { incremental: true, .. } => count(closed.appended),
        Layout::Fixed { size_bytes, .. } => {
            count(closed.appended).or_else(|| count(slot_count(size_bytes))).or_else(|| size(size_bytes))
        }
    }
}

/// The slot of a chunk in a fixed index (spec 03 §6.5). The texts are the original's, parentheses included.
fn fixed_slot(offset: u64, size: u64, image_bytes: u64) -> Result<u64> {
    let chunk_bytes = u64::from(FIXED_CHUNK_BYTES);
    let end = offset.saturating_add(size);
    if end > image_bytes {
        return Err(Error::invalid(format!("chunk data exceeds size ({end} >= {image_bytes})")));
    }
    if size > chunk_bytes || (size != chunk_bytes && end != image_bytes) {
        return Err(Error::invalid(format!("chunk with unexpected length ({size} != {chunk_bytes}")));
    }
    if !offset.is_multiple_of(chunk_bytes) {
        return Err(Error::invalid(format!("got unaligned chunk (pos = {offset})")));
    }
    Ok(offset / chunk_bytes)
}

fn no_such_chunk(digest: &Digest) -> Error {
    Error::invalid(format!("no such chunk {digest}"))
}

fn strange_offset(archive: &ArchiveName, ours: u64, got: u64) -> Error {
    Error::invalid(format!(
        "dynamic writer '{archive}' append chunk failed - got strange chunk offset ({ours} != {got})"
    ))
}
