//! How snapshots, groups and namespaces go (spec 01 §7, §9), and how a namespace comes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::begin::DIR_MODE;
use super::datastore::Inner;
use super::explain::failed;
use super::layout::{NAMESPACE_DIR, PROTECTED_FILE};
use super::lock::DirLock;
use super::manifest_lock::ManifestLock;
use super::snapshot::{remove_group_if_empty, remove_snapshot_dir};
use super::tree::{self, NamespaceRemoval};
use crate::engine::{Disk, LockMode};
use crate::error::{Error, Result};
use crate::types::{BackupType, Group, Namespace, Snapshot};

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
    let dir = store.layout.snapshot(ns, snapshot);
    let locked = store.run(move |disk, _| {
        let lock = DirLock::take(disk, &dir, LockMode::Exclusive)
            .map_err(|refusal| refusal.of_snapshot(&dir, "possibly running or in use"))?;
        match disk.lstat(&dir.join(PROTECTED_FILE)) {
            Ok(_) => Err(Error::invalid("cannot remove protected snapshot")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(lock),
            Err(e) => Err(failed("unable to stat", &dir, e)),
        }
    });
    let lock = locked.await?;
    let manifest = store.layout.manifest(ns, snapshot);
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
            remove_emptied_group(disk, &store.layout.group(&ns, snapshot.group()));
        }
        Ok(())
    });
    removed.await
}

/// Tidies up behind the last snapshot of a group; that this fails is no failure of what was asked for.
fn remove_emptied_group(disk: &Disk, dir: &Path) {
    let Ok(lock) = DirLock::take(disk, dir, LockMode::Exclusive) else { return };
    if let Err(e) = remove_group_if_empty(disk, dir) {
        tracing::warn!(?dir, error = %e, "unable to remove an emptied group");
    }
    drop(lock);
}

/// Removes a group but for its protected snapshots.
async fn remove_group(store: &Arc<Inner>, ns: &Namespace, group: &Group, report: &mut NamespaceRemoval) -> Result<()> {
    let (own_ns, own_group) = (ns.clone(), group.clone());
    let locked = store.run(move |disk, store| {
        let dir = store.layout.group(&own_ns, &own_group);
        let lock = DirLock::take(disk, &dir, LockMode::Exclusive);
        let lock = lock.map_err(|refusal| refusal.of_group(&dir, "possible running backup"))?;
        Ok((lock, tree::snapshots(disk, &store.layout, &own_ns, &own_group)?))
    });
    let (lock, snapshots) = locked.await?;
    let mut protected = 0;
    for snapshot in snapshots {
        let marker = store.layout.snapshot(ns, &snapshot).join(PROTECTED_FILE);
        if store.run(move |disk, _| Ok(disk.lstat(&marker).is_ok())).await? {
            protected += 1;
        } else {
            remove_snapshot(store, ns, &snapshot, Emptied::KeepGroup).await?;
            report.removed_snapshots += 1;
        }
    }
    report.protected_snapshots += protected;
    let dir = store.layout.group(ns, group);
    let removed = store.run(move |disk, _| {
        // Stray files in a group are nobody's; with protected snapshots the group stays as it is.
        let removed = if protected == 0 { disk.remove_tree(&dir) } else { Ok(()) };
        drop(lock);
        removed.map_err(|e| failed("removing group directory failed:", &dir, e))
    });
    removed.await?;
    report.removed_groups += u64::from(protected == 0);
    Ok(())
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
pub(super) async fn delete_namespace(
    store: &Arc<Inner>,
    ns: &Namespace,
    delete_groups: bool,
) -> Result<NamespaceRemoval> {
    if ns.is_root() {
        return Err(Error::invalid("cannot delete root namespace"));
    }
    let mut report = NamespaceRemoval::default();
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
    if store.run(move |disk, store| tree::namespace_exists(disk, &store.layout, &own)).await? {
        return Err(Error::invalid(if delete_groups {
            "only partially deleted due to existing protected snapshots "
        } else {
            "only partially deleted due to existing groups but `delete-groups` not true "
        }));
    }
    Ok(report)
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
