//! How snapshots, groups and namespaces go (spec 01 §4.2, §7, §9), and how a namespace comes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Datastore;
use super::attributes::is_protected;
use super::begin::DIR_MODE;
use super::datastore::Inner;
use super::explain::failed;
use super::layout::{NAMESPACE_DIR, NOTES_FILE, OWNER_FILE};
use super::lock::DirLock;
use super::manifest_lock::ManifestLock;
use super::snapshot::{remove_group_if_empty, remove_snapshot_dir};
use super::tree;
use crate::engine::{Disk, FileKind, LockMode};
use crate::error::{Error, Result};
use crate::types::{BackupType, Group, Namespace, Snapshot};

/// What the removal of a group or a namespace did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RemovalReport {
    /// Groups that are gone.
    pub removed_groups: u64,
    /// Snapshots that stay because they are protected.
    pub protected_snapshots: u64,
    /// Snapshots that are gone.
    pub removed_snapshots: u64,
}

/// What it means that a protected snapshot keeps a group or a namespace from going. It stays in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnProtected {
    /// An error, once all else is gone.
    Fail,
    /// A number in the report.
    Count,
}

/// What becomes of a group whose last snapshot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emptied {
    /// It goes too, with owner and notes, unless somebody holds its lock.
    RemoveGroup,
    /// The caller holds the group's lock and removes it himself.
    KeepGroup,
}

/// Removes a snapshot that nobody uses and that is not protected.
pub(super) async fn remove_snapshot(
    store: &Arc<Inner>,
    ns: &Namespace,
    snapshot: &Snapshot,
    emptied: Emptied,
) -> Result<()> {
    let (dir, manifest) = (store.layout.snapshot(ns, snapshot), store.layout.manifest(ns, snapshot));
    let named = manifest.clone();
    let locked = store.run(move |disk, store| {
        let lock = DirLock::take(disk, store.layout.base(), &dir, LockMode::Exclusive)
            .map_err(|refusal| refusal.of_snapshot(&dir, "possibly running or in use"))?;
        if is_protected(disk, &dir)? {
            return Err(Error::invalid("cannot remove protected snapshot"));
        }
        match disk.lstat(&named) {
            // Perhaps a good snapshot whose manifest somebody keeps elsewhere: not ours to judge.
            Ok(meta) if meta.kind == FileKind::Other => Err(Error::corrupt(format!(
                "its manifest {named:?} is no regular file but, for instance, a symbolic link: put the file in its place, or remove \
                 what is there"
            ))),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("unable to stat", &named, e)),
            _ => Ok(lock),
        }
    });
    let lock = locked.await?;
    // An unfinished snapshot has no manifest that anybody could change.
    let manifest_lock: Option<ManifestLock> = match store.manifest_locks.take(&store.engine, &manifest).await {
        Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::EISDIR)) => None,
        taken => Some(taken?),
    };
    let (ns, snapshot) = (ns.clone(), snapshot.clone());
    let removed = store.run(move |disk, store| {
        let dir = store.layout.snapshot(&ns, &snapshot);
        let removed = remove_snapshot_dir(disk, &store.durable, &dir);
        removed.map_err(|e| failed("removing backup snapshot failed:", &dir, e))?;
        store.manifest_locks.forget(disk, &manifest);
        drop((manifest_lock, lock));
        if emptied == Emptied::RemoveGroup {
            remove_emptied_group(disk, store, &store.layout.group(&ns, snapshot.group()));
        }
        Ok(())
    });
    removed.await
}

/// Tidies up behind the last snapshot of a group; that this fails is no failure of what was asked for.
fn remove_emptied_group(disk: &Disk, store: &Inner, dir: &Path) {
    let Ok(lock) = DirLock::take(disk, store.layout.base(), dir, LockMode::Exclusive) else { return };
    if let Err(e) = remove_group_if_empty(disk, &store.durable, dir) {
        tracing::warn!(?dir, error = %e, "unable to remove an emptied group");
    }
    drop(lock);
}

/// Removes a group but for its protected snapshots. The first snapshot that is in use ends it.
async fn remove_group(store: &Arc<Inner>, ns: &Namespace, group: &Group, report: &mut RemovalReport) -> Result<()> {
    let (own_ns, own_group) = (ns.clone(), group.clone());
    let locked = store.run(move |disk, store| {
        let dir = store.layout.group(&own_ns, &own_group);
        let lock = DirLock::take(disk, store.layout.base(), &dir, LockMode::Exclusive);
        let lock = lock.map_err(|refusal| refusal.of_group(&dir, "possible running backup"))?;
        Ok((lock, tree::snapshots(disk, &store.layout, &own_ns, &own_group)?))
    });
    let (lock, snapshots) = locked.await?;
    let mut protected = 0;
    for snapshot in snapshots {
        let dir = store.layout.snapshot(ns, &snapshot);
        if store.run(move |disk, _| is_protected(disk, &dir)).await? {
            protected += 1;
        } else {
            remove_snapshot(store, ns, &snapshot, Emptied::KeepGroup).await?;
            report.removed_snapshots += 1;
        }
    }
    report.protected_snapshots += protected;
    let dir = store.layout.group(ns, group);
    let removed = store.run(move |disk, store| {
        // With protected snapshots the group stays as it is.
        let removed = if protected == 0 { remove_emptied_tree(disk, store, &dir) } else { Ok(false) };
        drop(lock);
        removed.map_err(|e| failed("removing group directory failed:", &dir, e))
    });
    report.removed_groups += u64::from(removed.await?);
    Ok(())
}

/// Removes the directory of a group without snapshots. Stray files in it are nobody's; they go before the owner, so that a crash on the way
/// leaves a group that a backup or another removal can work with.
fn remove_emptied_tree(disk: &Disk, store: &Inner, dir: &Path) -> io::Result<bool> {
    for entry in disk.read_dir(dir)? {
        let path = dir.join(&entry.name);
        let removed = match entry.kind {
            _ if [OWNER_FILE, NOTES_FILE].contains(&entry.name.as_str()) => Ok(()),
            FileKind::Dir => disk.remove_tree(&path),
            FileKind::File | FileKind::Other => disk.unlink(&path),
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    remove_group_if_empty(disk, &store.durable, dir)
}

impl Datastore {
    /// Removes a snapshot, and its group when that was the last one. Refused while somebody uses it, and when it is protected.
    pub async fn remove_snapshot(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<()> {
        remove_snapshot(&self.inner, ns, snapshot, Emptied::RemoveGroup).await
    }

    /// Removes a group with its owner and notes, but for protected snapshots: while it has one it stays. Refused while a backup runs.
    pub async fn remove_group(
        &self,
        ns: &Namespace,
        group: &Group,
        on_protected: OnProtected,
    ) -> Result<RemovalReport> {
        let mut report = RemovalReport::default();
        remove_group(&self.inner, ns, group, &mut report).await?;
        match (report.protected_snapshots, on_protected) {
            (1.., OnProtected::Fail) => Err(Error::invalid(format!(
                "group {group} only partially deleted due to protected snapshots: {} removed, {} protected",
                report.removed_snapshots, report.protected_snapshots
            ))),
            _ => Ok(report),
        }
    }

    /// Removes a namespace and those below it, with `delete_groups` also their groups, but for protected snapshots. What remains is an error
    /// once all else is gone. One that does not exist is removed already.
    pub async fn delete_namespace(
        &self,
        ns: &Namespace,
        delete_groups: bool,
        on_protected: OnProtected,
    ) -> Result<RemovalReport> {
        delete_namespace(&self.inner, ns, delete_groups, on_protected).await
    }
}

/// Makes the directory of `ns`, whose parent has to be there.
pub(super) fn create_namespace(
    disk: &Disk,
    store: &Arc<Inner>,
    parent: &Namespace,
    ns: Namespace,
) -> Result<Namespace> {
    if !tree::namespace_exists(disk, &store.layout, parent)? {
        return Err(Error::invalid(format!("cannot create new namespace, parent {parent} doesn't already exists")));
    }
    let dir = store.layout.namespace(&ns);
    for path in [&store.layout.namespace(parent).join(NAMESPACE_DIR), &dir] {
        match store.durable.make_dir(disk, path, DIR_MODE) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("unable to create namespace", path, e));
            }
            _ => {}
        }
    }
    Ok(ns)
}

/// Removes a namespace from the leaves up.
async fn delete_namespace(
    store: &Arc<Inner>,
    ns: &Namespace,
    delete_groups: bool,
    on_protected: OnProtected,
) -> Result<RemovalReport> {
    if ns.is_root() {
        return Err(Error::invalid("cannot delete root namespace"));
    }
    let mut report = RemovalReport::default();
    let own = ns.clone();
    let listed = store.run(move |disk, store| match tree::namespace_exists(disk, &store.layout, &own)? {
        true => tree::namespaces(disk, &store.layout, &own, usize::MAX),
        false => Ok(Vec::new()),
    });
    for below in listed.await?.into_iter().rev() {
        if delete_groups {
            let own = below.clone();
            for group in store.run(move |disk, store| tree::groups(disk, &store.layout, &own)).await? {
                remove_group(store, &below, &group, &mut report).await?;
            }
        }
        store.run(move |disk, store| remove_empty_dirs(disk, store, &below)).await?;
    }
    let own = ns.clone();
    let remains = store.run(move |disk, store| tree::namespace_exists(disk, &store.layout, &own)).await?;
    match (remains, delete_groups, report.protected_snapshots, on_protected) {
        (false, ..) | (true, true, 1.., OnProtected::Count) => Ok(report),
        (true, false, ..) => {
            Err(Error::invalid("only partially deleted due to existing groups but `delete-groups` not true "))
        }
        (true, true, 1.., OnProtected::Fail) => {
            Err(Error::invalid("only partially deleted due to existing protected snapshots "))
        }
        (true, true, 0, _) => Err(Error::invalid(format!(
            "only partially deleted: in the directory of namespace {ns} are files that belong to no group"
        ))),
    }
}

/// Removes the directories of one namespace as far as nothing is in them.
fn remove_empty_dirs(disk: &Disk, store: &Arc<Inner>, ns: &Namespace) -> Result<()> {
    let dir = store.layout.namespace(ns);
    let types = BackupType::ALL.map(|ty| store.layout.type_dir(ns, ty));
    for path in types.iter().chain([&dir.join(NAMESPACE_DIR), &dir]) {
        match disk.rmdir(path) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                return Err(failed("unable to remove", path, e));
            }
            _ => {}
        }
    }
    Ok(())
}
