//! Walking namespaces, groups and snapshots. What does not match spec 01 §1 is not there.

use std::io;
use std::path::Path;

use super::explain::{failed, no_entry};
use super::layout::{Layout, NAMESPACE_DIR};
use super::lock::confirm_real;
use super::snapshot::{self, GroupFilter, SnapshotDir, read_owner};
use crate::clock::EpochSecs;
use crate::engine::{DirEntry, Disk, FileKind};
use crate::error::{Error, Result};
use crate::types::{AuthId, BackupType, Group, Namespace, Snapshot};

/// A snapshot in a listing of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// Which one.
    pub snapshot: Snapshot,
    /// Whether its manifest is there.
    pub finished: bool,
    /// Names of its files, in no particular order.
    pub files: Vec<String>,
    /// Whether it is protected against removal.
    pub protected: bool,
}

/// A group with an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Which one.
    pub group: Group,
    /// Who owns it.
    pub owner: AuthId,
    /// First line of its notes.
    pub comment: Option<String>,
    /// Its snapshots, oldest first; may be empty. Each took a reading of its directory: [`GroupSummary`](super::GroupSummary) is cheaper.
    pub snapshots: Vec<SnapshotFiles>,
}

/// How many groups and snapshots of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TypeCounts {
    /// Groups with at least one snapshot.
    pub groups: u64,
    /// Their snapshots.
    pub snapshots: u64,
}

/// How much a datastore holds, all namespaces together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Containers.
    pub ct: TypeCounts,
    /// Hosts.
    pub host: TypeCounts,
    /// Virtual machines.
    pub vm: TypeCounts,
}

impl Counts {
    pub(super) fn add(&mut self, ty: BackupType, snapshots: u64) {
        if snapshots > 0 {
            let counts = match ty {
                BackupType::Ct => &mut self.ct,
                BackupType::Host => &mut self.host,
                BackupType::Vm => &mut self.vm,
            };
            counts.groups += 1;
            counts.snapshots += snapshots;
        }
    }
}

/// Names of the directories in `dir`, sorted; none if it is not there.
fn subdirs(disk: &Disk, dir: &Path) -> Result<Vec<String>> {
    let entries = match disk.read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| failed("unable to list", dir, e))?,
    };
    let is_dir = |entry: &DirEntry| entry.kind == FileKind::Dir;
    let mut names: Vec<String> = entries.into_iter().filter(is_dir).map(|entry| entry.name).collect();
    names.sort();
    Ok(names)
}

/// Whether a namespace's directory is there. One that a symbolic link leads to is not.
pub(super) fn namespace_exists(disk: &Disk, layout: &Layout, ns: &Namespace) -> Result<bool> {
    let dir = layout.namespace(ns);
    // The base itself may be reached through a link.
    let found = if ns.is_root() { disk.stat(&dir).map(drop) } else { confirm_real(disk, layout.base(), &dir) };
    match found {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(failed("unable to stat namespace", &dir, e)),
    }
}

/// The namespaces directly below `ns`.
pub(super) fn children(disk: &Disk, layout: &Layout, ns: &Namespace) -> Result<Vec<Namespace>> {
    let names = subdirs(disk, &layout.namespace(ns).join(NAMESPACE_DIR))?;
    Ok(names.iter().filter_map(|name| ns.child(name).ok()).collect())
}

/// `parent` and what lies at most `max_depth` levels below it, parents first.
pub(super) fn namespaces(disk: &Disk, layout: &Layout, parent: &Namespace, max_depth: usize) -> Result<Vec<Namespace>> {
    let mut found = vec![parent.clone()];
    let mut at = 0;
    while let Some(ns) = found.get(at).cloned() {
        if ns.depth() - parent.depth() < max_depth {
            let below = children(disk, layout, &ns)?;
            found.splice(at + 1..at + 1, below);
        }
        at += 1;
    }
    Ok(found)
}

/// All group directories of a namespace, sorted, whether they have an owner or not. A namespace that is not there is an error.
pub(super) fn groups(disk: &Disk, layout: &Layout, ns: &Namespace) -> Result<Vec<Group>> {
    if !namespace_exists(disk, layout, ns)? {
        return Err(no_entry());
    }
    let mut groups = Vec::new();
    for ty in BackupType::ALL {
        let names = subdirs(disk, &layout.type_dir(ns, ty))?;
        groups.extend(names.iter().filter_map(|id| Group::new(ty, id).ok()));
    }
    groups.sort();
    Ok(groups)
}

/// The groups of a namespace that `filter` lets through, sorted; of an id some that may not be there, since no directory is read for them.
pub(super) fn groups_of(disk: &Disk, layout: &Layout, ns: &Namespace, filter: &GroupFilter) -> Result<Vec<Group>> {
    let Some(id) = &filter.id else {
        let mut groups = groups(disk, layout, ns)?;
        groups.retain(|group| filter.passes(group));
        return Ok(groups);
    };
    if !namespace_exists(disk, layout, ns)? {
        return Err(no_entry());
    }
    let groups = BackupType::ALL.into_iter().map(|ty| Group::new(ty, id));
    Ok(groups.collect::<Result<Vec<Group>>>()?.into_iter().filter(|group| filter.passes(group)).collect())
}

/// The snapshots of a group, oldest first; none if the group is not there.
pub(super) fn snapshots(disk: &Disk, layout: &Layout, ns: &Namespace, group: &Group) -> Result<Vec<Snapshot>> {
    let names = subdirs(disk, &layout.group(ns, group))?;
    Ok(snapshots_of(group, names.iter().map(String::as_str)))
}

/// The snapshots of a group that these directories are, oldest first.
pub(super) fn snapshots_of<'a>(group: &Group, names: impl Iterator<Item = &'a str>) -> Vec<Snapshot> {
    let snapshot = |name: &str| Snapshot::new(group.clone(), EpochSecs::from_utc_name(name)?).ok();
    let mut snapshots: Vec<Snapshot> = names.filter_map(snapshot).collect();
    snapshots.sort_by_key(Snapshot::time);
    snapshots
}

/// Who owns a group, for listings: a group whose owner cannot be told is logged and skipped (spec 01 §2).
pub(super) fn listed_owner(disk: &Disk, layout: &Layout, ns: &Namespace, group: &Group) -> Option<AuthId> {
    match read_owner(disk, &layout.owner(ns, group), group) {
        Ok(owner) => Some(owner),
        Err(e) => {
            tracing::warn!(namespace = %ns, %group, error = %e, "group is not listed: no owner");
            None
        }
    }
}

/// A group with its snapshots and their files; `None` without an owner.
pub(super) fn group_info(disk: &Disk, layout: &Layout, ns: &Namespace, group: Group) -> Result<Option<GroupInfo>> {
    let Some(owner) = listed_owner(disk, layout, ns, &group) else { return Ok(None) };
    let mut listed = Vec::new();
    for snapshot in snapshots(disk, layout, ns, &group)? {
        if let Some(dir) = SnapshotDir::read(disk, &layout.snapshot(ns, &snapshot))? {
            let finished = dir.is_finished();
            listed.push(SnapshotFiles { snapshot, finished, files: dir.files, protected: dir.protected });
        }
    }
    let comment = snapshot::read_group_comment(disk, &layout.group(ns, &group));
    Ok(Some(GroupInfo { group, owner, comment, snapshots: listed }))
}

/// What is said when a namespace is asked for that is not there.
pub(super) fn namespace_not_found() -> Error {
    Error::not_found("namespace not found")
}
