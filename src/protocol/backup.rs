//! A backup session as a machine of values: what it knows, what it refuses, what is to be done. Pure.
//!
//! ```text
//!             on(action)                      carried out by http/backup.rs, fed back by
//! request ──→ Session ──→ Reply
//!                    └──→ Effect ──→ disk ──→ created, stored_blob, registered, appended, closed, finished, *_failed
//!
//! phase:  Open ── finish ──→ Finishing ── ok ──→ Finished ──→ Ended
//!           ↑─────────────── refused ──┘
//! ```
//!
//! Each call takes microseconds and touches no disk, so the driver may hold a lock around it and never around an effect.
//! Texts are those of the recordings (golden traces 12g–12j, 13–16).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::action::{Action, Append, ChunkUpload, Close, CreateIndex, WriterId, WriterKind};
use super::manifest_check::StoredFile;
use super::presence::{Known, Origin, PresenceMap};
use super::reply::Reply;
use super::writers::{AppendPlan, ClosedWriter, IMAGE_BYTES_MAX, Layout, UploadStats, Writers};
use crate::clock::EpochSecs;
use crate::error::{Error, Kind, Result};
use crate::types::{ArchiveKind, ArchiveName, ChunkSize, Digest, Snapshot};

/// Most indexes and blobs of one snapshot. A machine with more disks than writers exist does not either.
pub const FILES_MAX: usize = 1024;

/// Most chunks that one session may know: 256 TiB in chunks of 4 MiB, 3 GB of memory.
pub const KNOWN_CHUNKS_MAX: u64 = 64 << 20;

/// What a session is told when it begins.
#[derive(Clone, Debug)]
pub struct About {
    /// The snapshot that it makes.
    pub snapshot: Snapshot,
    /// Where the snapshot lies, for error texts.
    pub snapshot_path: String,
    /// When the base was taken, if there is a base.
    pub base_time: Option<EpochSecs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Finishing,
    Finished,
    Ended,
}

/// One backup session.
#[derive(Debug)]
pub struct Session {
    about: About,
    phase: Phase,
    writers: Writers,
    /// Blobs being stored and indexes being closed: at most one request at a time per name, so that what is remembered
    /// of a file is what is in it.
    in_flight: BTreeSet<ArchiveName>,
    files: BTreeMap<ArchiveName, StoredFile>,
    /// Closed indexes and stored blobs, one that was replaced counted again.
    file_count: u64,
    known: PresenceMap,
    stats: UploadStats,
    manifest: Option<Bytes>,
    cloned: bool,
}

/// What an action leads to.
#[derive(Debug)]
pub enum Step {
    /// Answered.
    Reply(Reply),
    /// To be carried out first.
    Do(Effect),
}

/// What is to be done outside of the machine.
#[derive(Debug)]
pub enum Effect {
    /// Send a file of the base. The chunks of an index become known first ([`Session::register_base`]), unless
    /// one is missing.
    ServePrevious(ArchiveName),
    /// Read the body, check it and store it, then [`Session::stored_blob`] or [`Session::blob_failed`]. The manifest is not
    /// stored: it goes to [`Session::hold_manifest`].
    StoreBlob {
        /// Name of the file.
        name: ArchiveName,
        /// Announced length of the body.
        encoded_bytes: u64,
    },
    /// Make the file of an index, then [`Session::created`] or [`Session::create_failed`].
    CreateIndex(CreatePlan),
    /// Read, check and store a chunk, then [`Session::registered`].
    StoreChunk(ChunkUpload),
    /// See that the chunks are there, write the entries, then [`Session::appended`] or [`Session::append_failed`].
    Append(AppendPlan),
    /// Complete the file of an index, then [`Session::closed`] or [`Session::close_failed`].
    Close(ClosePlan),
    /// Drop the file of an index and answer with the error.
    Discard(WriterId, Error),
    /// Check what finish demands, make the manifest appear, then [`Session::finished`] or [`Session::finish_failed`].
    Finish(FinishPlan),
    /// Read the body and forget it.
    Speedtest,
}

/// An index to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatePlan {
    /// Its name.
    pub archive: ArchiveName,
    /// Its kind and length.
    pub layout: Layout,
    /// Copy the base's index of that name, if that has this checksum.
    pub reuse_csum: Option<String>,
}

/// An index to be completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosePlan {
    /// The writer and what it was told.
    pub writer: ClosedWriter,
    /// What the client says the checksum is.
    pub csum: Digest,
}

/// A snapshot to be completed.
#[derive(Clone, Debug)]
pub struct FinishPlan {
    /// The manifest as the client sent it.
    pub manifest: Bytes,
    /// Whose it is to be.
    pub snapshot: Snapshot,
    /// What was closed and stored.
    pub files: BTreeMap<ArchiveName, StoredFile>,
    /// Sums over the closed indexes and the blobs.
    pub stats: UploadStats,
}

impl FinishPlan {
    /// The closed indexes, whose chunks have to be there.
    pub fn indexes(&self) -> Vec<ArchiveName> {
        self.files.keys().filter(|name| name.kind() != ArchiveKind::Blob).cloned().collect()
    }
}

/// Why a chunk is in the snapshot, for the blame when it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The base lent it: the base has the hole too.
    Base,
    /// It was sent in this session and lost since: nobody else's fault.
    Session,
}

impl Session {
    /// A session that has begun.
    pub fn new(about: About) -> Self {
        Self {
            about,
            phase: Phase::Open,
            writers: Writers::default(),
            in_flight: BTreeSet::new(),
            files: BTreeMap::new(),
            file_count: 0,
            known: PresenceMap::new(),
            stats: UploadStats::default(),
            manifest: None,
            cloned: false,
        }
    }

    /// What happens next for a request.
    pub fn on(&mut self, action: Action) -> Result<Step> {
        match action {
            Action::Root => Ok(Step::Reply(Reply::Subdirs(&super::action::BackupEndpoint::SUBDIRS))),
            Action::PreviousBackupTime => Ok(Step::Reply(Reply::PreviousBackupTime(self.about.base_time))),
            Action::Speedtest => Ok(Step::Do(Effect::Speedtest)),
            Action::Previous(archive) => self.previous(archive),
            Action::Blob { file_name, encoded_bytes } => self.blob(&file_name, encoded_bytes),
            Action::CreateIndex(request) => self.create(request),
            Action::Chunk(upload) => self.unfinished().map(|()| Step::Do(Effect::StoreChunk(upload))),
            Action::Append(request) => self.append(&request),
            Action::Close(request) => self.close(&request),
            Action::Finish => self.finish(),
        }
    }

    fn unfinished(&self) -> Result<()> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Finishing => Err(Error::invalid("backup is being finished.")),
            Phase::Finished => Err(Error::invalid("backup already marked as finished.")),
            Phase::Ended => Err(Error::closed("backup session has ended.")),
        }
    }

    fn previous(&self, archive: ArchiveName) -> Result<Step> {
        if self.about.base_time.is_none() {
            return Err(Error::invalid("no valid previous backup"));
        }
        if archive.kind() != ArchiveKind::Blob {
            self.unfinished()?;
        }
        Ok(Step::Do(Effect::ServePrevious(archive)))
    }

    /// Chunks of an index of the base may be appended from now on.
    pub fn register_base(&mut self, chunks: &[(Digest, ChunkSize)]) -> Result<()> {
        self.unfinished()?;
        self.room_for_chunks(chunks.len())?;
        for (digest, size) in chunks {
            self.known.insert(digest, *size, Origin::Base);
        }
        Ok(())
    }

    fn room_for_chunks(&self, count: usize) -> Result<()> {
        if self.known.count() + u64::try_from(count).unwrap_or(u64::MAX) > KNOWN_CHUNKS_MAX {
            return Err(Error::invalid(format!("a session knows at most {KNOWN_CHUNKS_MAX} chunks")));
        }
        Ok(())
    }

    fn blob(&mut self, file_name: &str, encoded_bytes: u64) -> Result<Step> {
        let name = file_name
            .parse()
            .ok()
            .filter(|name: &ArchiveName| name.kind() == ArchiveKind::Blob)
            .ok_or_else(|| Error::invalid(format!("wrong blob file extension: '{file_name}'")))?;
        self.unfinished()?;
        self.room_for_file(&name)?;
        self.claim(&name)?;
        Ok(Step::Do(Effect::StoreBlob { name, encoded_bytes }))
    }

    fn claim(&mut self, name: &ArchiveName) -> Result<()> {
        if self.in_flight.insert(name.clone()) {
            Ok(())
        } else {
            Err(Error::invalid(format!("'{name}' is being stored by another request")))
        }
    }

    fn room_for_file(&self, name: &ArchiveName) -> Result<()> {
        if !self.files.contains_key(name) && self.files.len() >= FILES_MAX {
            return Err(Error::invalid(format!("a snapshot has at most {FILES_MAX} files")));
        }
        Ok(())
    }

    /// A blob is in its file.
    pub fn stored_blob(&mut self, name: ArchiveName, encoded_bytes: u64, csum: Digest) -> Reply {
        self.count_blob(&name, encoded_bytes);
        self.files.insert(name, StoredFile { csum, size_bytes: encoded_bytes, unfilled_slots: 0 });
        Reply::Null
    }

    /// The manifest has arrived. It stays here until finish, so that no crash leaves a snapshot that looks finished.
    pub fn hold_manifest(&mut self, name: &ArchiveName, encoded: Bytes) -> Reply {
        let encoded_bytes = u64::try_from(encoded.len()).unwrap_or(u64::MAX);
        self.manifest = Some(encoded);
        self.count_blob(name, encoded_bytes);
        Reply::Null
    }

    fn count_blob(&mut self, name: &ArchiveName, encoded_bytes: u64) {
        self.in_flight.remove(name);
        self.file_count += 1;
        self.stats.add(&UploadStats { size_bytes: encoded_bytes, ..UploadStats::default() });
    }

    /// A blob was not stored.
    pub fn blob_failed(&mut self, name: &ArchiveName) {
        self.in_flight.remove(name);
    }

    fn create(&mut self, request: CreateIndex) -> Result<Step> {
        let (name, kind) = match &request {
            CreateIndex::Fixed { archive, .. } => (archive, ArchiveKind::FixedIndex),
            CreateIndex::Dynamic { archive } => (archive, ArchiveKind::DynamicIndex),
        };
        let archive = name
            .parse()
            .ok()
            .filter(|archive: &ArchiveName| archive.kind() == kind)
            .ok_or_else(|| Error::invalid(format!("wrong archive extension: '{name}'")))?;
        let (layout, reuse_csum) = match request {
            CreateIndex::Fixed { size_bytes, reuse_csum, .. } => {
                (Layout::Fixed { size_bytes, incremental: reuse_csum.is_some() }, reuse_csum)
            }
            CreateIndex::Dynamic { .. } => (Layout::Dynamic { end: 0 }, None),
        };
        self.unfinished()?;
        self.room_for_file(&archive)?;
        if let Layout::Fixed { size_bytes, .. } = layout
            && size_bytes > IMAGE_BYTES_MAX
        {
            return Err(Error::invalid(format!("an image has at most {IMAGE_BYTES_MAX} bytes (got {size_bytes})")));
        }
        if reuse_csum.is_some() && self.about.base_time.is_none() {
            return Err(Error::invalid("cannot reuse index - no valid previous backup exists"));
        }
        self.writers.begin_create()?;
        Ok(Step::Do(Effect::CreateIndex(CreatePlan { archive, layout, reuse_csum })))
    }

    /// The file of an index is there; gives it its number.
    pub fn created(&mut self, plan: CreatePlan) -> WriterId {
        self.cloned |= plan.reuse_csum.is_some();
        self.writers.created(plan.archive, plan.layout)
    }

    /// The file of an index could not be made.
    pub fn create_failed(&mut self) {
        self.writers.create_failed();
    }

    /// A chunk is in the store: `disk_bytes` long there, and if `duplicate` it was before. Only now its writer is
    /// looked at (spec 03 §6.4).
    pub fn registered(&mut self, upload: &ChunkUpload, disk_bytes: u64, duplicate: bool) -> Result<Reply> {
        let ChunkUpload { kind, wid, digest, size, .. } = *upload;
        self.unfinished()?;
        self.room_for_chunks(1)?;
        self.writers.count_upload(kind, wid, size, disk_bytes, duplicate)?;
        self.known.insert(&digest, size, Origin::Upload);
        Ok(Reply::Stored(digest))
    }

    fn append(&mut self, request: &Append) -> Result<Step> {
        self.unfinished()?;
        let known = &self.known;
        let plan = self.writers.plan_append(request, |digest| known.get(digest).map(|k| k.size))?;
        Ok(Step::Do(Effect::Append(plan)))
    }

    /// Whether an append whose chunks were seen may still be written.
    pub fn append_still_fits(&self, plan: &AppendPlan) -> Result<()> {
        self.unfinished()?;
        self.writers.still_fits(plan)
    }

    /// The entries are in the file.
    pub fn appended(&mut self, plan: AppendPlan) -> Reply {
        self.writers.commit_append(plan);
        Reply::Null
    }

    /// Nothing was appended.
    pub fn append_failed(&mut self, plan: AppendPlan) {
        self.writers.cancel_append(plan);
    }

    fn close(&mut self, request: &Close) -> Result<Step> {
        self.unfinished()?;
        if let Some(archive) = self.writers.archive_of(request.wid)
            && self.in_flight.contains(archive)
        {
            return Err(Error::invalid(format!("'{archive}' is being stored by another request")));
        }
        Ok(Step::Do(match self.writers.close(request)? {
            Ok(writer) => {
                self.in_flight.insert(writer.archive.clone());
                Effect::Close(ClosePlan { writer, csum: request.csum })
            }
            Err((wid, error)) => Effect::Discard(wid, error),
        }))
    }

    /// The index is complete, with the checksum that the client said.
    pub fn closed(&mut self, plan: &ClosePlan) -> Reply {
        let ClosePlan { writer, csum } = plan;
        self.in_flight.remove(&writer.archive);
        let file = StoredFile { csum: *csum, size_bytes: writer.size_bytes(), unfilled_slots: writer.unfilled_slots };
        self.files.insert(writer.archive.clone(), file);
        self.file_count += 1;
        self.stats.add(&writer.stats);
        Reply::Null
    }

    /// The index could not be completed; its writer is gone.
    pub fn close_failed(&mut self, plan: &ClosePlan) {
        self.in_flight.remove(&plan.writer.archive);
    }

    fn finish(&mut self) -> Result<Step> {
        self.unfinished()?;
        if self.writers.any_open() {
            return Err(Error::invalid("found open index writer - unable to finish backup"));
        }
        if let Some(name) = self.in_flight.first() {
            return Err(Error::invalid(format!("'{name}' is still being stored - unable to finish backup")));
        }
        if self.file_count == 0 {
            return Err(Error::invalid("backup does not contain valid files (file count == 0)"));
        }
        let Some(manifest) = self.manifest.clone() else {
            let path = &self.about.snapshot_path;
            return Err(Error::invalid(format!(
                "unable to update manifest blob - unable to load blob '\"{path}/index.json.blob\"' - \
                 No such file or directory (os error 2)"
            )));
        };
        self.phase = Phase::Finishing;
        let snapshot = self.about.snapshot.clone();
        Ok(Step::Do(Effect::Finish(FinishPlan { manifest, snapshot, files: self.files.clone(), stats: self.stats })))
    }

    /// The manifest is under its name: the snapshot is real.
    pub fn finished(&mut self) -> Reply {
        self.phase = Phase::Finished;
        Reply::Null
    }

    /// Something was missing: the client may mend it and try again, or give up.
    pub fn finish_failed(&mut self) {
        if self.phase == Phase::Finishing {
            self.phase = Phase::Open;
        }
    }

    /// The connection has ended: nothing may be written any more. Whether the snapshot is real.
    pub fn end(&mut self) -> bool {
        let finished = self.phase == Phase::Finished;
        self.phase = Phase::Ended;
        finished
    }

    /// Whether the snapshot is real.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Whose fault it is when a chunk of this snapshot is missing (design §3).
    ///
    /// A chunk that was neither sent nor served by `previous` came with a copied index.
    pub fn source_of(&self, digest: &Digest) -> Source {
        match self.known.get(digest) {
            Some(Known { from_base: true, .. }) => Source::Base,
            None if self.cloned => Source::Base,
            _ => Source::Session,
        }
    }

    /// Whether this session may still name a chunk: the client sent it, or an index that was served to it names it.
    pub fn knows(&self, digest: &Digest) -> bool {
        self.known.contains(digest)
    }

    /// How many chunks are known, and how many bytes that takes.
    pub fn known_chunks(&self) -> (u64, u64) {
        (self.known.count(), self.known.memory_bytes())
    }
}

/// What an error that came up while an index was completed is told as.
pub fn close_failed_context(kind: WriterKind, archive: &ArchiveName) -> String {
    format!("{kind} writer '{archive}' close failed")
}

/// Judges the length of a blob's body.
pub fn check_blob_length(announced: u64, received: u64) -> Result<()> {
    if announced == received {
        Ok(())
    } else {
        Err(Error::invalid(format!("got blob with unexpected length ({announced} != {received})")))
    }
}

/// The answer to an append that names a chunk that is not there, or that could not be asked for.
pub fn append_stat_failed(digest: &Digest, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Invalid, format!("known chunk stat failed on {digest} - {why}"))
}

/// The answer to a finish whose indexes name a chunk that is not there, or that could not be asked for.
pub fn finish_stat_failed(digest: &Digest, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Invalid, format!("stat registered chunks failed - stat failed on {digest} - {why}"))
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
