//! What an inspection found, as the API tells it and the command line reads it. Pure.

use serde::{Deserialize, Serialize};

use crate::clock::EpochSecs;
use crate::types::{Namespace, Snapshot};

/// Either report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// About one snapshot.
    Snapshot(Box<SnapshotReport>),
    /// About chunks, and the snapshots that name them.
    Chunks(ChunksReport),
}

/// Which snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Named {
    /// Its namespace; empty for the root.
    pub ns: String,
    /// `vm`, `ct` or `host`.
    pub backup_type: String,
    /// Id of its group.
    pub backup_id: String,
    /// Seconds since the epoch.
    pub backup_time: EpochSecs,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotReport {
    /// Name of the datastore.
    pub store: String,
    /// Which snapshot.
    pub snapshot: Named,
    /// The only archive whose chunks were looked at, if one was named.
    pub archive: Option<String>,
    /// Whether everything that was looked at is in order.
    pub sound: bool,
    /// Why the manifest cannot be read, if so.
    pub manifest_fault: Option<String>,
    /// What the last verification or known-chunk check wrote into the manifest.
    pub verification: Option<Verification>,
    /// Whether it is the newest finished one of its group, on which the next backup builds.
    pub newest: bool,
    /// Its files.
    pub files: Vec<FileRow>,
    /// Its indexes.
    pub archives: Vec<ArchiveRow>,
    /// All its chunks together.
    pub chunks: ChunkTotals,
    /// Groups that name some of the same chunks, the one with most of them first.
    pub groups: Vec<SharingGroup>,
    /// Snapshots that do, the one with most of them first; at most 100.
    pub snapshots: Vec<SharingSnapshot>,
    /// How many more do.
    pub more_snapshots: u64,
    /// How many of those that do lie in namespaces that the asker may not see.
    pub hidden_snapshots: u64,
    /// Index files that could not be read: what they name counts as not shared.
    pub unreadable: Vec<String>,
    /// Chunks that are not there, sorted; at most 16,384.
    pub missing: Vec<ChunkFate>,
}

/// What a manifest says about the last verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verification {
    /// `ok` or `failed`.
    pub state: String,
    /// The task that said so.
    pub upid: String,
    /// When that task began; absent if its name cannot be read.
    pub time: Option<EpochSecs>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileRow {
    /// Its name.
    pub filename: String,
    /// `fixed-index`, `dynamic-index` or `blob`.
    pub kind: String,
    /// Bytes of the archive, of a blob those of its file; absent if neither manifest nor file tells.
    pub size: Option<u64>,
    /// From the manifest; absent if it does not list the file.
    pub crypt_mode: Option<String>,
    /// What is wrong; absent where size and checksum are those of the manifest, or where no manifest lists the file.
    pub fault: Option<String>,
}

/// An index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ArchiveRow {
    /// Its name.
    pub archive: String,
    /// How many chunks it names.
    pub entries: u64,
    /// How many different ones.
    pub distinct: u64,
    /// Entries that name the chunk of zeros of a fixed index; an encrypted one cannot be told.
    pub zero_entries: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Entries whose chunk is not there.
    pub lost_entries: u64,
    /// Bytes of the archive that are lost with them.
    pub lost_bytes: u64,
    /// Where; at most 1000.
    pub places: Vec<Place>,
    /// How many more places there are.
    pub more_places: u64,
}

/// A stretch of an archive that names one chunk, once or several times in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Place {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// The chunk.
    pub digest: String,
}

/// The chunks of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChunkTotals {
    /// How many its indexes name.
    pub entries: u64,
    /// How many different ones.
    pub distinct: u64,
    /// Bytes of its archives.
    pub bytes: u64,
    /// Bytes of the files of its chunks, each once.
    pub disk_bytes: u64,
    /// Different chunks that are not there.
    pub missing: u64,
    /// Different chunks that could not be asked for.
    pub unknown: u64,
    /// Different chunks that other snapshots name too.
    pub shared: u64,
    /// Bytes of their files.
    pub shared_disk_bytes: u64,
    /// Different chunks that no other snapshot names.
    pub own: u64,
    /// Bytes of their files: what removing the snapshot and a garbage collection would free.
    pub own_disk_bytes: u64,
}

/// A group that names some of the same chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SharingGroup {
    /// Its namespace.
    pub ns: String,
    /// `vm/100`.
    pub group: String,
    /// Snapshots of it that do, other than the one the report is about.
    pub snapshots: u64,
    /// Different chunks.
    pub chunks: u64,
    /// Bytes of their files.
    pub disk_bytes: u64,
}

/// A snapshot that names some of the same chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SharingSnapshot {
    /// Which.
    pub snapshot: Named,
    /// Different chunks.
    pub chunks: u64,
    /// Bytes of their files.
    pub disk_bytes: u64,
}

/// Whether a chunk is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChunkState {
    /// It is; what is in it is not known.
    Present,
    /// It is not.
    Missing,
    /// The disk did not say.
    Unknown,
}

/// One chunk, who needs it, and what would bring it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChunkFate {
    /// Which.
    pub digest: String,
    /// Whether it is there.
    pub state: ChunkState,
    /// Why not; empty if it is.
    pub reason: String,
    /// How many snapshots name it, unfinished ones and those that the asker may not see included.
    pub snapshots: u64,
    /// What would bring it back, the easiest first; of a chunk that is there, what would if it went.
    pub remedies: Vec<Remedy>,
}

/// Something that would bring a chunk back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Remedy {
    /// Another datastore of this server has it.
    Copy {
        /// Its name.
        store: String,
    },
    /// The newest snapshot of a group names it, so its next full backup sends it again, if the data has not changed since.
    Backup {
        /// Namespace of the group.
        ns: String,
        /// `vm/100`.
        group: String,
        /// Whether its next backup is a full one: the newest snapshot is marked as failed.
        full: bool,
    },
    /// A verification has set a version aside as bad.
    SetAside {
        /// Name of the file beside the chunk.
        file: String,
    },
}

/// Chunks, and who names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChunksReport {
    /// Name of the datastore.
    pub store: String,
    /// What was asked about: `chunks`, `missing` or `bad`.
    pub about: String,
    /// Index files that were read.
    pub indexes: u64,
    /// Index files that could not be read: what they name is not in the report.
    pub unreadable: Vec<String>,
    /// The chunks, sorted; at most 16,384.
    pub chunks: Vec<ChunkFate>,
    /// How many more were found.
    pub more_chunks: u64,
    /// Snapshots that name some of them, by namespace and group, oldest first.
    pub snapshots: Vec<AffectedSnapshot>,
    /// How many more do in namespaces that the asker may not see.
    pub hidden_snapshots: u64,
    /// How many snapshots were marked as failed.
    pub marked: u64,
}

/// A snapshot that names some of the chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AffectedSnapshot {
    /// Which.
    pub snapshot: Named,
    /// Whether it is finished.
    pub finished: bool,
    /// Whether it is the newest finished one of its group.
    pub newest: bool,
    /// Whether it names a chunk that is not there.
    pub loses_data: bool,
    /// `ok` or `failed`, as its manifest says by now.
    pub verification: Option<String>,
    /// Its archives that name some.
    pub archives: Vec<AffectedArchive>,
}

/// An archive that names some of the chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AffectedArchive {
    /// Its name.
    pub archive: String,
    /// Entries that name one.
    pub entries: u64,
    /// Bytes of the archive in them.
    pub bytes: u64,
    /// Where; at most 1000, and 100,000 in all the report.
    pub places: Vec<Place>,
    /// How many more places there are.
    pub more_places: u64,
}

impl Named {
    /// A snapshot in a namespace.
    pub fn of(ns: &Namespace, snapshot: &Snapshot) -> Self {
        Self {
            ns: ns.to_string(),
            backup_type: snapshot.group().ty().as_str().to_owned(),
            backup_id: snapshot.group().id().to_owned(),
            backup_time: snapshot.time(),
        }
    }
}

impl ChunksReport {
    /// Whether a snapshot names a chunk that is not there.
    pub fn is_sound(&self) -> bool {
        self.unreadable.is_empty()
            && !self.chunks.iter().any(|chunk| chunk.state != ChunkState::Present && chunk.snapshots > 0)
    }
}
