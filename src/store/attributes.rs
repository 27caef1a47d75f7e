//! What users say about groups and snapshots, and may change at any time: notes, protection, owner (spec 01 §2, §3, §4.2).
//!
//! | what | where | changed under |
//! |---|---|---|
//! | notes of a snapshot | its manifest | the manifest's lock |
//! | protection of a snapshot | an empty file `.protected` | the snapshot's lock, exclusive |
//! | notes of a group | a file `notes` | nothing: replaced as a whole |
//! | owner of a group | the file `owner` | a turn within this process: replaced as a whole |
//!
//! The group's own lock would not do for the last two, for a backup holds it as long as it runs. That an emptied group may go at the same
//! moment is the removal's affair (`remove_group_if_empty`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Datastore;
use super::datastore::Inner;
use super::durable::Weight;
use super::explain::{failed, no_entry};
use super::layout::{NOTES_FILE, PROTECTED_FILE};
use super::lock::{DirLock, confirm_real, refuse_links};
use super::snapshot::{GroupFilter, SnapshotDir, read_owner};
use super::tree::{self, GroupInfo};
use crate::engine::{Disk, LockMode};
use crate::error::{Error, Kind, Result};
use crate::types::{AuthId, Group, Namespace, Snapshot};

/// Longest group notes that are read or written: more than a request can carry, and no danger to memory.
pub const GROUP_NOTES_BYTES_MAX: u64 = 1 << 20;

/// What prune has to know of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotState {
    /// Which one.
    pub snapshot: Snapshot,
    /// Whether its manifest is there.
    pub finished: bool,
    /// Whether it is protected against removal.
    pub protected: bool,
}

impl Datastore {
    /// Notes of a snapshot, possibly of many lines; empty if there are none.
    pub async fn notes(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<String> {
        Ok(self.load_manifest(ns, snapshot).await?.manifest.notes().to_owned())
    }

    /// Replaces the notes of a snapshot.
    pub async fn set_notes(&self, ns: &Namespace, snapshot: &Snapshot, notes: String) -> Result<()> {
        self.update_manifest(ns, snapshot, move |manifest| manifest.set_notes(&notes)).await
    }

    /// Whether a snapshot is protected against removal; one that is not there is not.
    pub async fn is_protected(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<bool> {
        let dir = self.inner.layout.snapshot(ns, snapshot);
        self.inner.run(move |disk, _| is_protected(disk, &dir)).await
    }

    /// Protects a snapshot against removal, or ends that. Nobody may be using it.
    pub async fn set_protected(&self, ns: &Namespace, snapshot: &Snapshot, protected: bool) -> Result<()> {
        let dir = self.inner.layout.snapshot(ns, snapshot);
        self.inner.run(move |disk, inner| set_protected(disk, inner, &dir, protected)).await
    }

    /// Notes of a group; empty if there are none, or no such group.
    pub async fn group_notes(&self, ns: &Namespace, group: &Group) -> Result<String> {
        let path = self.inner.layout.group(ns, group).join(NOTES_FILE);
        let notes = self.inner.run(move |disk, _| match disk.read(&path, GROUP_NOTES_BYTES_MAX) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(failed("unable to read", &path, e)),
        });
        notes.await
    }

    /// Replaces the notes of a group. An empty text removes their file, for no notes and empty notes are the same to everybody.
    pub async fn set_group_notes(&self, ns: &Namespace, group: &Group, notes: String) -> Result<()> {
        if notes.len() as u64 > GROUP_NOTES_BYTES_MAX {
            return Err(Error::invalid(format!("group notes may have at most {GROUP_NOTES_BYTES_MAX} bytes")));
        }
        let dir = self.inner.layout.group(ns, group);
        self.inner.run(move |disk, inner| set_group_notes(disk, inner, &dir, &notes)).await
    }

    /// Gives a group to somebody else, if `allowed` agrees when it hears whose it is now, or why that cannot be told. The file is replaced
    /// at once: whatever happens, the group has one owner or the other.
    pub async fn change_owner(
        &self,
        ns: &Namespace,
        group: &Group,
        owner: &AuthId,
        allowed: impl FnOnce(Result<AuthId>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (path, group, text) = (self.inner.layout.owner(ns, group), group.clone(), format!("{owner}\n"));
        let turn = self.inner.owner_turns.claim(path.clone()).await;
        let changed = self.inner.run(move |disk, inner| {
            refuse_links(disk, inner.layout.base(), path.parent().unwrap_or(&path))?;
            allowed(owner_of(disk, &path, &group))?;
            let put = inner.durable.put(disk, &path, text.as_bytes(), Weight::Commit);
            drop(turn);
            put.map_err(|e| failed("unable to create owner file", &path, e))
        });
        changed.await
    }

    /// Every group of a namespace with its owner, sorted, or why nobody can tell whose it is, with the path of the file that should say so: that
    /// costs no other group. One that has neither owner nor snapshots is left out, for it is just being made.
    pub async fn owned_groups(&self, ns: &Namespace) -> Result<Vec<(Group, Result<AuthId>)>> {
        let groups = self.group_dirs(ns, &GroupFilter::default()).await?;
        let owned = self.each_group(ns, groups, |disk, layout, ns, group| {
            let path = layout.owner(ns, &group);
            let owner = read_owner(disk, &path, &group);
            let is_unowned = owner.as_ref().is_err_and(|e| e.errno() == Some(libc::ENOENT));
            if is_unowned && tree::snapshots(disk, layout, ns, &group).is_ok_and(|snapshots| snapshots.is_empty()) {
                return Ok(None);
            }
            let with_path = |e: Error| if e.kind() == Kind::Corrupt { e.context(format_args!("{path:?}")) } else { e };
            Ok(Some((group, owner.map_err(with_path))))
        });
        Ok(owned.await?.into_iter().flatten().collect())
    }

    /// Every group of a namespace with its snapshots, sorted, or why it cannot be read: that costs no other group. One without an owner, or
    /// with one that makes no sense, is logged and left out, as in listings.
    pub async fn groups_or_faults(&self, ns: &Namespace) -> Result<Vec<(Group, Result<GroupInfo>)>> {
        let groups = self.group_dirs(ns, &GroupFilter::default()).await?;
        let looked = self.each_group(ns, groups, |disk, layout, ns, group| {
            let found = match tree::group_info(disk, layout, ns, group.clone()) {
                Ok(None) => unreadable_owner(disk, &layout.owner(ns, &group), &group).map(Err),
                found => found.transpose(),
            };
            Ok(found.map(|found| (group, found)))
        });
        Ok(looked.await?.into_iter().flatten().collect())
    }

    /// All snapshots of a group, oldest first, unfinished ones too. A group that is not there is an error.
    pub async fn snapshot_states(&self, ns: &Namespace, group: &Group) -> Result<Vec<SnapshotState>> {
        self.confirm_place().await?;
        let (ns, group) = (ns.clone(), group.clone());
        self.inner.run(move |disk, inner| snapshot_states(disk, inner, &ns, &group)).await
    }
}

/// Reads who owns a group; one that is not there is told from one without an owner.
pub(super) fn owner_of(disk: &Disk, path: &Path, group: &Group) -> Result<AuthId> {
    if disk.lstat(path.parent().unwrap_or(path)).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Err(no_entry());
    }
    read_owner(disk, path, group)
}

/// Why nobody can tell whether a group has an owner; `None` if it has one, or certainly none.
fn unreadable_owner(disk: &Disk, path: &Path, group: &Group) -> Option<Error> {
    let certain = [libc::ENOENT, libc::ENOTDIR, libc::EISDIR, libc::ELOOP];
    read_owner(disk, path, group).err().filter(|e| e.errno().is_some_and(|errno| !certain.contains(&errno)))
}

/// Whether the marker is there.
pub(super) fn is_protected(disk: &Disk, snapshot_dir: &Path) -> Result<bool> {
    match disk.lstat(&snapshot_dir.join(PROTECTED_FILE)) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed("unable to stat", &snapshot_dir.join(PROTECTED_FILE), e)),
    }
}

fn set_protected(disk: &Disk, store: &Arc<Inner>, dir: &Path, protected: bool) -> Result<()> {
    let lock = DirLock::take(disk, store.layout.base(), dir, LockMode::Exclusive)
        .map_err(|refusal| refusal.of_snapshot(dir, "possibly running or in use"))?;
    let marker = dir.join(PROTECTED_FILE);
    let changed = match protected {
        true => store.durable.create_exclusive(disk, &marker, b"", 0o666),
        false => disk.unlink(&marker),
    };
    match changed {
        // As it is wanted already; but who made it so may have crashed before it was durable.
        Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {}
        changed => changed.map_err(|e| failed("unable to change", &marker, e))?,
    }
    // Prune relies on it for good, so a power cut must not take it away.
    if store.durable.syncs(Weight::Commit) {
        disk.fsync_dir(dir).map_err(|e| failed("unable to sync", dir, e))?;
    }
    drop(lock);
    Ok(())
}

fn set_group_notes(disk: &Disk, store: &Arc<Inner>, dir: &Path, notes: &str) -> Result<()> {
    match confirm_real(disk, store.layout.base(), dir) {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Err(no_entry()),
        Err(e) => return Err(failed("unable to stat", dir, e)),
    }
    let path = dir.join(NOTES_FILE);
    if !notes.is_empty() {
        let put = store.durable.put(disk, &path, notes.as_bytes(), Weight::Commit);
        return put.map_err(|e| failed("unable to write", &path, e));
    }
    match disk.unlink(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(|e| failed("unable to remove", &path, e))?,
    }
    if store.durable.syncs(Weight::Commit) {
        disk.fsync_dir(dir).map_err(|e| failed("unable to sync", dir, e))?;
    }
    Ok(())
}

fn snapshot_states(disk: &Disk, store: &Arc<Inner>, ns: &Namespace, group: &Group) -> Result<Vec<SnapshotState>> {
    let dir = store.layout.group(ns, group);
    match disk.lstat(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(no_entry()),
        found => found.map_err(|e| failed("unable to stat", &dir, e))?,
    };
    let mut states = Vec::new();
    for snapshot in tree::snapshots(disk, &store.layout, ns, group)? {
        // It may be removed between its listing and its reading.
        if let Some(dir) = SnapshotDir::read(disk, &store.layout.snapshot(ns, &snapshot))? {
            states.push(SnapshotState { snapshot, finished: dir.is_finished(), protected: dir.protected });
        }
    }
    Ok(states)
}
