//! What a snapshot says about itself.

use crate::format::manifest::{CryptMode, Manifest, VerifyState};
use crate::types::{AuthId, BackupType, Snapshot};

/// A file of a snapshot as listings show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name.
    pub filename: String,
    /// From the manifest; `None` for a file that no manifest lists.
    pub size: Option<u64>,
    /// From the manifest; `None` for a file that no manifest lists.
    pub crypt_mode: Option<CryptMode>,
}

/// A snapshot as listings show it.
#[derive(Clone, Debug)]
pub struct SnapshotInfo {
    /// Which one.
    pub snapshot: Snapshot,
    /// Owner of its group.
    pub owner: AuthId,
    /// Its files: those of the manifest, the manifest, the others.
    pub files: Vec<FileInfo>,
    /// Sum of the file sizes; `None` if the manifest is missing or unreadable.
    pub size: Option<u64>,
    /// First line of its notes.
    pub comment: Option<String>,
    /// What the last verification said.
    pub verification: Option<VerifyState>,
    /// Fingerprint of the key that encrypted or signed it.
    pub fingerprint: Option<String>,
    /// Whether it is protected against removal.
    pub protected: bool,
}

/// Which groups a listing shows; the default shows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFilter {
    /// Only this type.
    pub ty: Option<BackupType>,
    /// Only this id.
    pub id: Option<String>,
}

/// A manifest as read from the disk.
#[derive(Clone, Debug)]
pub struct LoadedManifest {
    /// Its content.
    pub manifest: Manifest,
    /// Length of the blob.
    pub encoded_bytes: u64,
}
