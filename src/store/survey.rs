//! What a look over the whole datastore needs: which indexes there are, how long chunk files are, and what was set aside.
//!
//! All of it reads only, and nothing is marked or remembered for it: who asks may be asking for another datastore's sake.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::Datastore;
use super::check::CHECK_BATCH_MAX;
use super::collection::ChunkName;
use super::datastore::Inner;
use super::explain::failed;
use super::layout::{Layout, chunk_stat_name};
use super::presence::{MissingReason, Presence, classify};
use super::snapshot::{GroupFilter, SnapshotDir};
use super::tree;
use crate::engine::{Class, Disk, StatBatch};
use crate::error::Result;
use crate::types::{ArchiveKind, ArchiveName, Digest, Group, Namespace, Snapshot};

/// The indexes of a snapshot, whether its group has an owner or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedSnapshot {
    /// Which one.
    pub snapshot: Snapshot,
    /// Whether its manifest is there.
    pub finished: bool,
    /// Its index files, sorted. May be empty.
    pub indexes: Vec<ArchiveName>,
}

/// A version of a chunk that a verification has set aside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetAside {
    /// What it was to be.
    pub digest: Digest,
    /// Its name: `DIGEST.N.bad`.
    pub file_name: String,
}

/// What lies at the place of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file of so many bytes, at least as long as a blob's header. Nothing is said about its content.
    Present {
        /// Length of the file.
        size_bytes: u64,
    },
    /// No chunk.
    Missing(MissingReason),
    /// The question was not answered.
    Unknown(Errno),
}

impl Datastore {
    /// The snapshots of a namespace with their index files, by group and oldest first: one reading of each group's and each snapshot's
    /// directory, some groups at once. A directory that cannot be read is an error; a namespace that is gone has no snapshots.
    pub async fn indexed_snapshots(&self, ns: &Namespace) -> Result<Vec<IndexedSnapshot>> {
        if !self.namespace_exists(ns).await? {
            return Ok(Vec::new());
        }
        let groups = self.group_dirs(ns, &GroupFilter::default()).await?;
        Ok(self.each_group(ns, groups, indexed).await?.into_iter().flatten().collect())
    }

    /// The files of a snapshot but its manifest, as they lie in its directory, sorted. None if it is gone.
    pub async fn stored_files(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<Vec<ArchiveName>> {
        let dir = self.inner.layout.snapshot(ns, snapshot);
        let listing = move |disk: &Disk, _: &Arc<Inner>| {
            let files = SnapshotDir::read(disk, &dir)?.map(|dir| dir.files).unwrap_or_default();
            let names = files.iter().filter_map(|name| name.parse::<ArchiveName>().ok());
            let mut names: Vec<ArchiveName> = names.filter(|name| !name.is_manifest()).collect();
            names.sort();
            Ok(names)
        };
        self.inner.run(listing).await
    }

    /// What lies at the places of `digests`, in their order; batches as of a sweep. Unlike [`Self::check_chunks`] this tells lengths and makes
    /// no chunk suspect. `progress` hears after each batch how many were asked so far.
    pub async fn measure_chunks(
        &self,
        digests: &[Digest],
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<Vec<Found>> {
        let Inner { checker, engine, network_fs, .. } = &*self.inner;
        let mut found = Vec::with_capacity(digests.len());
        for batch in digests.chunks(CHECK_BATCH_MAX) {
            let names = batch.iter().map(chunk_stat_name).collect();
            let dir = checker.chunks_dir();
            let reply = engine
                .stat(StatBatch { dir, names, class: Class::Sweep, force_sync: *network_fs, stamps: false })
                .await?;
            found.extend(reply.results.into_iter().map(|answer| match (answer, classify(answer)) {
                (Ok(stat), Presence::Present) => Found::Present { size_bytes: stat.size_bytes },
                (_, Presence::Missing(reason)) => Found::Missing(reason),
                (_, Presence::Unknown(errno)) => Found::Unknown(errno),
                (Err(errno), Presence::Present) => Found::Unknown(errno),
            }));
            progress(found.len());
        }
        if found.iter().any(|found| matches!(found, Found::Missing(_))) {
            self.confirm_place().await?;
        }
        Ok(found)
    }

    /// The set-aside versions that lie in one chunk directory, sorted. None if the directory is not there.
    pub async fn set_aside(&self, prefix: u16) -> Result<Vec<SetAside>> {
        let dir = self.inner.layout.chunk_dir(prefix);
        let listing = move |disk: &Disk, _: &Arc<Inner>| {
            let entries = match disk.read_dir(&dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries.map_err(|e| failed("unable to list chunks", &dir, e))?,
            };
            let mut found: Vec<SetAside> = entries
                .into_iter()
                .filter_map(|entry| match ChunkName::parse(&entry.name)? {
                    ChunkName { digest, bad: Some(_) } => Some(SetAside { digest, file_name: entry.name }),
                    _ => None,
                })
                .collect();
            found.sort();
            Ok(found)
        };
        self.inner.run(listing).await
    }
}

fn indexed(disk: &Disk, layout: &Layout, ns: &Namespace, group: Group) -> Result<Vec<IndexedSnapshot>> {
    let mut found = Vec::new();
    for snapshot in tree::snapshots(disk, layout, ns, &group)? {
        // Gone meanwhile.
        let Some(dir) = SnapshotDir::read(disk, &layout.snapshot(ns, &snapshot))? else { continue };
        let finished = dir.is_finished();
        let names = dir.files.iter().filter_map(|name| name.parse::<ArchiveName>().ok());
        let mut indexes: Vec<ArchiveName> = names.filter(|name| name.kind() != ArchiveKind::Blob).collect();
        indexes.sort();
        found.push(IndexedSnapshot { snapshot, finished, indexes });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::check::Freshness;
    use super::super::layout::bad_chunk_name;
    use super::super::taken::Taken;
    use super::super::test_support::*;
    use super::*;

    #[tokio::test]
    async fn lengths_holes_and_what_was_set_aside_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let base = make_base(dir.path());
        let store = open(&base).await;
        insert(&store, 1).await.unwrap();
        insert(&store, 2).await.unwrap();
        let ((good, encoded, _), (bad, ..)) = (chunk(1), chunk(2));
        let judge = |_| Err::<(), _>("wrong");
        store.settle_doubt(bad, judge).await.unwrap();
        let found = store.measure_chunks(&[good, bad], |_| ()).await.unwrap();
        let present = Found::Present { size_bytes: encoded.len() as u64 };
        assert_eq!(found, [present, Found::Missing(MissingReason::Absent)]);
        let aside = SetAside { digest: bad, file_name: bad_chunk_name(&bad, 0) };
        assert_eq!(store.set_aside(bad.prefix()).await.unwrap(), [aside]);
        assert_eq!(store.set_aside(good.prefix() ^ 1).await.unwrap(), []);
        // Who only measures tells nobody; a check tells the backups that run.
        let watch = store.watch_taken();
        store.measure_chunks(&[bad], |_| ()).await.unwrap();
        assert_eq!(watch.taken(), Taken::These(Vec::new()));
        store.check_chunks(vec![good, bad], Class::Sweep, Freshness::Cached).await.unwrap();
        assert_eq!((watch.taken(), store.suspects()), (Taken::These(vec![bad]), 1));
        store.trust(&bad);
        assert_eq!(store.suspects(), 0);
    }
}
