//! Walking namespaces, groups and snapshots. What does not match spec 01 §1 is not there.

use crate::types::{AuthId, Group, Snapshot};

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
    /// Its snapshots, oldest first; may be empty.
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

/// What the removal of a namespace did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceRemoval {
    /// Groups that are gone.
    pub removed_groups: u64,
    /// Snapshots that are gone.
    pub removed_snapshots: u64,
    /// Snapshots that stay because they are protected.
    pub protected_snapshots: u64,
}
