//! How many groups and snapshots there are, from names of directories alone: what monitoring asks for every few seconds.

use super::Datastore;
use super::datastore::Inner;
use super::layout::Layout;
use super::tree;
use crate::clock::EpochSecs;
use crate::engine::{Disk, FsUsage};
use crate::error::Result;
use crate::types::{Group, Namespace, Upid};

/// Groups looked at in one piece of file work. Pieces follow one another, so a census never takes more than one of the threads for file work, and
/// none for longer than about a second on a slow disk (a directory and a file each).
const GROUPS_PER_PIECE: usize = 64;

/// A group with at least one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCensus {
    /// Where it is.
    pub ns: Namespace,
    /// Which one.
    pub group: Group,
    /// How many snapshots, unfinished ones included.
    pub snapshots: u64,
    /// How many of them are marked as failed; `None` until [`Datastore::survey_marks`] has been through.
    pub failed: Option<u64>,
    /// Time of the newest that has its manifest.
    pub newest: Option<EpochSecs>,
}

/// What the last garbage collection left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcCensus {
    /// When it began.
    pub started: EpochSecs,
    /// Bytes that indexes name.
    pub index_data_bytes: u64,
    /// Bytes of chunks in use.
    pub disk_bytes: u64,
    /// Chunks in use.
    pub disk_chunks: u64,
    /// Bytes of chunks it removed.
    pub removed_bytes: u64,
    /// Bytes of unused chunks that were too young.
    pub pending_bytes: u64,
    /// Chunks set aside as bad that are still there.
    pub still_bad: u64,
}

/// A datastore in numbers.
#[derive(Clone, Debug)]
pub struct Census {
    /// Space of its file system.
    pub usage: FsUsage,
    /// All groups of all namespaces that have a snapshot, namespaces in the order of the tree, groups sorted.
    pub groups: Vec<GroupCensus>,
    /// The last garbage collection, if there was one.
    pub gc: Option<GcCensus>,
}

impl Datastore {
    /// Counts groups and snapshots: one directory listing for each group, and one look for a manifest. Reads no manifest.
    pub async fn census(&self) -> Result<Census> {
        // An empty directory in the place of an unmounted disk is no answer.
        self.confirm_place().await?;
        let usage = self.usage().await?;
        let mut groups = Vec::new();
        for ns in self.namespaces(&Namespace::root(), None).await? {
            let layout = Layout::new(self.base_path());
            let place = ns.clone();
            let found = self.engine().run(move |disk| tree::groups(disk, &layout, &place)).await?;
            // The namespace may be removed meanwhile.
            for piece in found.unwrap_or_default().chunks(GROUPS_PER_PIECE) {
                let (place, piece) = (ns.clone(), piece.to_vec());
                groups.extend(self.inner.run(move |disk, store| look(disk, store, &place, piece)).await?);
            }
        }
        let gc = summary(&self.gc_status().await?);
        Ok(Census { usage, groups, gc })
    }
}

fn look(disk: &Disk, store: &Inner, ns: &Namespace, groups: Vec<Group>) -> Result<Vec<GroupCensus>> {
    let layout = &store.layout;
    let mut found = Vec::with_capacity(groups.len());
    for group in groups {
        let snapshots = tree::snapshots(disk, layout, ns, &group)?;
        if snapshots.is_empty() {
            continue;
        }
        let finished = snapshots.iter().rev().find(|snapshot| disk.stat(&layout.manifest(ns, snapshot)).is_ok());
        let newest = finished.map(crate::types::Snapshot::time);
        let failed = store.marks.count(ns, &snapshots);
        found.push(GroupCensus { ns: ns.clone(), group, snapshots: snapshots.len() as u64, failed, newest });
    }
    Ok(found)
}

/// The numbers of a status file; `None` without a collection in it.
fn summary(status: &serde_json::Value) -> Option<GcCensus> {
    let upid: Upid = status["upid"].as_str()?.parse().ok()?;
    let number = |key: &str| status[key].as_u64().unwrap_or_default();
    Some(GcCensus {
        started: upid.start,
        index_data_bytes: number("index-data-bytes"),
        disk_bytes: number("disk-bytes"),
        disk_chunks: number("disk-chunks"),
        removed_bytes: number("removed-bytes"),
        pending_bytes: number("pending-bytes"),
        still_bad: number("still-bad"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_without_a_collection_has_no_numbers() {
        assert_eq!(summary(&json!({"upid": null, "disk-bytes": 5})), None);
        let status = json!({
            "upid": "UPID:pbs1:00001A2B:0012C3D4:00000005:66607C8A:garbage_collection:store1:root@pam:",
            "index-data-bytes": 1, "disk-bytes": 2, "disk-chunks": 3, "removed-bytes": 4, "pending-bytes": 5, "still-bad": 6,
        });
        let want = GcCensus {
            started: EpochSecs(0x6660_7C8A),
            index_data_bytes: 1,
            disk_bytes: 2,
            disk_chunks: 3,
            removed_bytes: 4,
            pending_bytes: 5,
            still_bad: 6,
        };
        assert_eq!(summary(&status), Some(want));
    }
}
