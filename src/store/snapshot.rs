//! What a snapshot says about itself, and how it goes.

use std::io;
use std::path::Path;

use super::durable::{Durable, Weight};
use super::explain::failed;
use super::layout::{NOTES_FILE, OWNER_FILE, PROTECTED_FILE, is_snapshot_file};
use crate::engine::{DirEntry, Disk, DiskDir, FileKind};
use crate::error::{Error, Result};
use crate::format::blob::{BLOB_ENCODED_BYTES_MAX, check_crc};
use crate::format::manifest::{CryptMode, Manifest, VerifyState};
use crate::types::{AuthId, BackupType, CLIENT_LOG_BLOB, Group, MANIFEST_BLOB, Snapshot};

/// Longest owner file that is read: an auth-id has at most 129 bytes.
const OWNER_BYTES_MAX: u64 = 4096;

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

impl GroupFilter {
    pub(super) fn passes(&self, group: &Group) -> bool {
        self.ty.is_none_or(|ty| ty == group.ty()) && self.id.as_ref().is_none_or(|id| id == group.id())
    }
}

/// A manifest as read from the disk.
#[derive(Clone, Debug)]
pub struct LoadedManifest {
    /// Its content.
    pub manifest: Manifest,
    /// Length of the blob.
    pub encoded_bytes: u64,
}

/// What listings show of a manifest.
#[derive(Debug)]
pub(super) struct ManifestSummary {
    /// The files that it lists, then the manifest itself.
    pub(super) files: Vec<FileInfo>,
    pub(super) comment: Option<String>,
    pub(super) verification: Option<VerifyState>,
    pub(super) fingerprint: Option<String>,
}

impl ManifestSummary {
    pub(super) fn of(LoadedManifest { manifest, encoded_bytes }: &LoadedManifest) -> Self {
        let listed = manifest.files().iter().map(|file| FileInfo {
            filename: file.filename.as_str().to_owned(),
            size: Some(file.size),
            crypt_mode: Some(file.crypt_mode),
        });
        let own = FileInfo {
            filename: MANIFEST_BLOB.to_owned(),
            size: Some(*encoded_bytes),
            crypt_mode: Some(if manifest.is_signed() { CryptMode::SignOnly } else { CryptMode::None }),
        };
        Self {
            files: listed.chain([own]).collect(),
            comment: manifest.comment().map(str::to_owned),
            verification: manifest.verify_state(),
            fingerprint: manifest.key_fingerprint().map(str::to_owned),
        }
    }

    /// Memory behind it, about.
    pub(super) fn heap_bytes(&self) -> usize {
        let files: usize = self.files.iter().map(|file| size_of::<FileInfo>() + file.filename.len()).sum();
        let upid = self.verification.as_ref().map_or(0, |found| found.upid.len());
        let texts = [&self.comment, &self.fingerprint].into_iter().flatten().map(String::len);
        size_of::<Self>() + files + upid + texts.sum::<usize>()
    }
}

/// What lies in a snapshot's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotDir {
    /// The files that count as the snapshot's.
    pub(super) files: Vec<String>,
    pub(super) protected: bool,
}

impl SnapshotDir {
    /// `None` if it is not there, or not any more.
    pub(super) fn read(disk: &Disk, dir: &Path) -> Result<Option<Self>> {
        match disk.read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            entries => Ok(Some(Self::of(entries.map_err(|e| failed("unable to list snapshot", dir, e))?))),
        }
    }

    /// What its entries say.
    pub(super) fn of(entries: Vec<DirEntry>) -> Self {
        let protected = entries.iter().any(|entry| entry.name == PROTECTED_FILE);
        let files = entries.into_iter().filter(|e| e.kind == FileKind::File && is_snapshot_file(&e.name));
        Self { files: files.map(|e| e.name).collect(), protected }
    }

    /// Memory behind it, about.
    pub(super) fn heap_bytes(&self) -> usize {
        self.files.iter().map(|name| size_of::<String>() + name.len()).sum()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.files.iter().any(|name| name == MANIFEST_BLOB)
    }
}

/// The error about a manifest, or another blob, that cannot be loaded. The quotes within quotes are the original's.
pub(super) fn unable_to_load(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound => Error::io(format!("unable to load blob '{path:?}'"), e),
        _ => failed("unable to load blob", path, e),
    }
}

/// Reads and parses a manifest. Content that is wrong is `Corrupt`, with the texts of the original.
pub(super) fn load_manifest(disk: &Disk, path: &Path) -> Result<LoadedManifest> {
    let encoded = disk.read(path, BLOB_ENCODED_BYTES_MAX).map_err(|e| unable_to_load(path, e))?;
    parse_manifest(path, &encoded)
}

/// As [`load_manifest`], of what was read already.
pub(super) fn parse_manifest(path: &Path, encoded: &[u8]) -> Result<LoadedManifest> {
    let manifest = Manifest::from_blob(encoded).map_err(|e| {
        // The original names the file when the blob is wrong, and not when the JSON in it is.
        if check_crc(encoded).is_ok() { e } else { e.context(format_args!("unable to load blob '{path:?}'")) }
    })?;
    Ok(LoadedManifest { manifest, encoded_bytes: encoded.len() as u64 })
}

/// Replaces a manifest, durably.
pub(super) fn store_manifest(disk: &Disk, durable: &Durable, path: &Path, encoded: &[u8]) -> Result<()> {
    durable.put(disk, path, encoded, Weight::Commit).map_err(|e| failed("unable to write manifest", path, e))
}

/// Files in the order of spec 05 §4: those of the manifest, the manifest itself, what else lies there. The size is the sum of those that
/// have one.
pub(super) fn list_files(dir: &SnapshotDir, manifest: Option<&ManifestSummary>) -> (Vec<FileInfo>, Option<u64>) {
    let unknown = |name: &String| FileInfo { filename: name.clone(), size: None, crypt_mode: None };
    let Some(manifest) = manifest else { return (dir.files.iter().map(unknown).collect(), None) };
    let mut files = manifest.files.clone();
    let is_listed = |name: &str| manifest.files.iter().any(|file| file.filename == name);
    files.extend(dir.files.iter().filter(|name| !is_listed(name)).map(unknown));
    let size = files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add);
    (files, Some(size))
}

/// Reads who owns a group.
pub(super) fn read_owner(disk: &Disk, path: &Path, group: &Group) -> Result<AuthId> {
    parse_owner(&disk.read(path, OWNER_BYTES_MAX).map_err(|e| failed("unable to read", path, e))?, group)
}

/// As [`read_owner`], in the group's directory.
pub(super) fn read_owner_in(dir: &DiskDir, group: &Group) -> Result<AuthId> {
    let bytes = dir.open(OWNER_FILE).and_then(|file| file.read_all(OWNER_BYTES_MAX));
    parse_owner(&bytes.map_err(|e| failed("unable to read", &dir.path().join(OWNER_FILE), e))?, group)
}

fn parse_owner(bytes: &[u8], group: &Group) -> Result<AuthId> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default().trim_end();
    line.parse().map_err(|_| Error::corrupt(format!("parsing owner for {group} failed: not a valid user id")))
}

/// Writes who owns a group that has no owner file yet.
pub(super) fn create_owner(disk: &Disk, durable: &Durable, path: &Path, owner: &AuthId) -> Result<()> {
    durable
        .create_exclusive(disk, path, format!("{owner}\n").as_bytes(), 0o666)
        .map_err(|e| failed("unable to create owner file", path, e))
}

/// First line of a group's notes.
pub(super) fn read_group_comment(disk: &Disk, group_dir: &Path) -> Option<String> {
    first_line(&disk.read(&group_dir.join(NOTES_FILE), BLOB_ENCODED_BYTES_MAX).ok()?)
}

/// As [`read_group_comment`], in the group's directory.
pub(super) fn read_group_comment_in(dir: &DiskDir) -> Option<String> {
    first_line(&dir.open(NOTES_FILE).ok()?.read_all(BLOB_ENCODED_BYTES_MAX).ok()?)
}

fn first_line(bytes: &[u8]) -> Option<String> {
    String::from_utf8_lossy(bytes).lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
}

/// Removes a snapshot's directory; fine if it is gone. The manifest goes first, and durably so, that a crash on the way leaves an unfinished
/// snapshot and not one that looks whole and misses files.
pub(super) fn remove_snapshot_dir(disk: &Disk, durable: &Durable, dir: &Path) -> io::Result<()> {
    match disk.unlink(&dir.join(MANIFEST_BLOB)) {
        Ok(()) if durable.syncs(Weight::Commit) => disk.fsync_dir(dir)?,
        Ok(()) => {}
        // Somebody put a directory in its place: no manifest that could be believed.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {}
        Err(e) => return Err(e),
    }
    match disk.remove_tree(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes a group's directory with its owner and notes if nothing else is in it; says whether it did. The caller holds the group's lock.
pub(super) fn remove_group_if_empty(disk: &Disk, durable: &Durable, dir: &Path) -> io::Result<bool> {
    let entries = match disk.read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    if entries.iter().any(|entry| ![OWNER_FILE, NOTES_FILE].contains(&entry.name.as_str())) {
        return Ok(false);
    }
    // The owner last: without it nobody sees the group, and a backup may take an empty directory over.
    let owner_path = dir.join(OWNER_FILE);
    let owner = disk.read(&owner_path, OWNER_BYTES_MAX);
    for path in [&dir.join(NOTES_FILE), &owner_path] {
        match disk.unlink(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    match (disk.rmdir(dir), owner) {
        // Somebody gave it notes or another owner meanwhile, which needs no lock: so it stays, and somebody's it has to be.
        (Err(e), Ok(owner)) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
            match durable.create_exclusive(disk, &owner_path, &owner, 0o666) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
                _ => Ok(false),
            }
        }
        (removed, _) => removed.map(|()| true),
    }
}

/// Whether a group is what a crash leaves between the making of its directory and the writing of its owner: nothing in it, or an
/// owner file of no bytes. The caller holds the group's lock.
pub(super) fn is_group_leftover(disk: &Disk, dir: &Path) -> Result<bool> {
    let entries = disk.read_dir(dir).map_err(|e| failed("unable to list group", dir, e))?;
    match entries.as_slice() {
        [] => Ok(true),
        [only] if only.name == OWNER_FILE => {
            let path = dir.join(OWNER_FILE);
            let meta = disk.lstat(&path).map_err(|e| failed("unable to stat", &path, e))?;
            Ok(meta.kind == FileKind::File && meta.size_bytes == 0)
        }
        _ => Ok(false),
    }
}

/// Stores the client's log, if there is none yet. The caller has the turn of this snapshot, so nobody else does the same.
pub(super) fn store_client_log(disk: &Disk, durable: &Durable, dir: &Path, blob: &[u8]) -> Result<()> {
    let path = dir.join(CLIENT_LOG_BLOB);
    match disk.lstat(&path) {
        Ok(_) => return Err(Error::invalid("backup already contains a log.")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("unable to stat", &path, e)),
    }
    check_crc(blob)?;
    durable.put(disk, &path, blob, Weight::Payload).map_err(|e| failed("unable to write client log", &path, e))
}
