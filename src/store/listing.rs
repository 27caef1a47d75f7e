//! Listings of many groups: in bounded pieces, some at once, answered one after another.
//!
//! A piece is a group, or a part of a large one, and one visit to the pool. What a listing holds in memory is a few pieces; what it takes of
//! the pool is at most half, all listings of the datastore together, so that backups are served in between.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::datastore::{Datastore, Inner};
use super::explain::failed;
use super::layout::{NOTES_FILE, OWNER_FILE};
use super::manifest_cache::{CachedSnapshot, Count, ListingCounters, Stamp};
use super::snapshot::{GroupFilter, ManifestSummary, SnapshotDir, SnapshotInfo};
use super::snapshot::{list_files, parse_manifest, read_group_comment_in, read_owner_in, unable_to_load};
use super::tree::{self, Counts};
use crate::clock::EpochSecs;
use crate::engine::{Disk, DiskDir, Engine, FileKind};
use crate::error::{Error, Kind, Result};
use crate::format::blob::BLOB_ENCODED_BYTES_MAX;
use crate::types::{AuthId, BackupType, Group, MANIFEST_BLOB, Namespace, Snapshot};

/// Snapshots of one piece: at 10 ms for each, a disk that is asked in vain gives a thread back after less than a second.
const SNAPSHOTS_PER_PIECE: usize = 64;

/// A group as listings show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// Which one.
    pub group: Group,
    /// Who owns it.
    pub owner: AuthId,
    /// First line of its notes.
    pub comment: Option<String>,
    /// How many snapshots it has, at least one.
    pub snapshot_count: usize,
    /// Time of its newest finished snapshot; of the newest if none is.
    pub last_backup: EpochSecs,
    /// Names of that snapshot's files, in no particular order.
    pub files: Vec<String>,
}

/// Whose groups are listed.
type MaySee = Arc<dyn Fn(&AuthId) -> bool + Send + Sync>;

/// How many pieces of listings a datastore works on at a time.
pub(super) fn places(engine: &Engine) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(at_once(engine)))
}

/// Half of the pool: a slow disk or network is kept busy, and there is always a thread for a backup.
fn at_once(engine: &Engine) -> usize {
    (engine.io_threads() / 2).max(1)
}

/// What a look at a piece found, and pieces that are to be looked at next.
struct Found<P, T> {
    rows: Vec<T>,
    more: Vec<P>,
}

impl<P, T> Found<P, T> {
    fn rows(rows: impl IntoIterator<Item = T>) -> Self {
        Self { rows: rows.into_iter().collect(), more: Vec::new() }
    }
}

type Look<P, T> = fn(&Disk, &Arc<Inner>, P) -> Result<Found<P, T>>;

enum Step<P, T> {
    /// `None` for the moment in which it is started.
    Waiting(Option<P>),
    Running(JoinHandle<Result<Found<P, T>>>),
}

/// Pieces in the order of their answers, the first few of them under way. Dropping it ends it.
struct Line<P, T> {
    store: Arc<Inner>,
    look: Look<P, T>,
    steps: VecDeque<Step<P, T>>,
}

impl<P: Send + 'static, T: Send + 'static> Line<P, T> {
    fn new(store: &Arc<Inner>, pieces: impl IntoIterator<Item = P>, look: Look<P, T>) -> Self {
        Self {
            store: Arc::clone(store),
            look,
            steps: pieces.into_iter().map(|piece| Step::Waiting(Some(piece))).collect(),
        }
    }

    /// The rows of the next piece that has any; `None` behind the last. After an error there is nothing more.
    async fn next(&mut self) -> Result<Option<Vec<T>>> {
        loop {
            self.start_some();
            let Some(Step::Running(running)) = self.steps.pop_front() else { return Ok(None) };
            let found = running.await.map_err(|e| Error::io("a listing was cut off", io::Error::other(e)));
            match found.and_then(|found| found) {
                Ok(Found { rows, more }) => {
                    for piece in more.into_iter().rev() {
                        self.steps.push_front(Step::Waiting(Some(piece)));
                    }
                    if !rows.is_empty() {
                        return Ok(Some(rows));
                    }
                }
                Err(error) => {
                    self.end();
                    return Err(error);
                }
            }
        }
    }

    fn start_some(&mut self) {
        for step in self.steps.iter_mut().take(at_once(&self.store.engine)) {
            let piece = match step {
                Step::Waiting(piece) => piece.take(),
                Step::Running(_) => None,
            };
            if let Some(piece) = piece {
                *step = Step::Running(begin(&self.store, self.look, piece));
            }
        }
    }
}

impl<P, T> Line<P, T> {
    fn end(&mut self) {
        for step in self.steps.drain(..) {
            if let Step::Running(running) = step {
                running.abort();
            }
        }
    }
}

impl<P, T> Drop for Line<P, T> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<P, T> fmt::Debug for Line<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}

fn begin<P, T>(store: &Arc<Inner>, look: Look<P, T>, piece: P) -> JoinHandle<Result<Found<P, T>>>
where
    P: Send + 'static,
    T: Send + 'static,
{
    let store = Arc::clone(store);
    tokio::spawn(async move {
        let place = Arc::clone(&store.listing_places).acquire_owned().await;
        let place = place.map_err(|_| Error::closed("the datastore is closed"))?;
        store
            .run(move |disk, store| {
                let found = look(disk, store, piece);
                drop(place);
                found
            })
            .await
    })
}

/// A listing of snapshots, by group and oldest first.
#[derive(Debug)]
pub struct SnapshotListing {
    line: Line<SnapshotPiece, SnapshotInfo>,
}

impl SnapshotListing {
    /// The next rows, some dozens at most; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<Vec<SnapshotInfo>>> {
        self.line.next().await
    }
}

/// A listing of groups, sorted.
#[derive(Debug)]
pub struct GroupListing {
    line: Line<GroupPiece, GroupSummary>,
}

impl GroupListing {
    /// The next rows; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<Vec<GroupSummary>>> {
        self.line.next().await
    }
}

struct GroupPiece {
    ns: Namespace,
    group: Group,
    may_see: MaySee,
}

enum SnapshotPiece {
    Group(GroupPiece),
    Part { ns: Namespace, owner: AuthId, snapshots: Vec<Snapshot> },
}

enum CountPiece {
    Namespace(Namespace),
    Group(Namespace, Group),
}

impl Datastore {
    /// Lists the snapshots of the groups of a namespace that `filter` lets through and whose owner `may_see` approves of: other groups cost
    /// a reading of their owner. Groups without a readable owner are logged and left out (spec 01 §2).
    pub async fn list_snapshots(
        &self,
        ns: &Namespace,
        filter: &GroupFilter,
        may_see: impl Fn(&AuthId) -> bool + Send + Sync + 'static,
    ) -> Result<SnapshotListing> {
        let pieces = self.group_pieces(ns, filter, Arc::new(may_see)).await?;
        Ok(SnapshotListing { line: Line::new(&self.inner, pieces.map(SnapshotPiece::Group), look_at_snapshots) })
    }

    /// Lists the groups of a namespace that have snapshots and whose owner `may_see` approves of. One reading of a directory for a group, one
    /// for its newest snapshot.
    pub async fn list_groups(
        &self,
        ns: &Namespace,
        may_see: impl Fn(&AuthId) -> bool + Send + Sync + 'static,
    ) -> Result<GroupListing> {
        let pieces = self.group_pieces(ns, &GroupFilter::default(), Arc::new(may_see)).await?;
        Ok(GroupListing { line: Line::new(&self.inner, pieces, look_at_group) })
    }

    async fn group_pieces(
        &self,
        ns: &Namespace,
        filter: &GroupFilter,
        may_see: MaySee,
    ) -> Result<impl Iterator<Item = GroupPiece> + use<>> {
        let groups = self.group_dirs(ns, filter).await?;
        let ns = ns.clone();
        Ok(groups.into_iter().map(move |group| GroupPiece { ns: ns.clone(), group, may_see: Arc::clone(&may_see) }))
    }

    /// All snapshots of the groups that `filter` lets through, by group, oldest first.
    pub async fn snapshots(&self, ns: &Namespace, filter: GroupFilter) -> Result<Vec<SnapshotInfo>> {
        let mut listing = self.list_snapshots(ns, &filter, |_| true).await?;
        let mut all = Vec::new();
        while let Some(rows) = listing.next().await? {
            all.extend(rows);
        }
        Ok(all)
    }

    /// Groups and snapshots of all namespaces, as far as groups have an owner's file and snapshots. One reading of a directory for a group.
    pub async fn counts(&self) -> Result<Counts> {
        let namespaces = self.namespaces(&Namespace::root(), None).await?;
        let mut line = Line::new(&self.inner, namespaces.into_iter().map(CountPiece::Namespace), count);
        let mut counts = Counts::default();
        while let Some(found) = line.next().await? {
            for (ty, snapshots) in found {
                counts.add(ty, snapshots);
            }
        }
        Ok(counts)
    }

    /// What listings did so far.
    pub fn listing_counters(&self) -> ListingCounters {
        self.inner.manifests.counters()
    }
}

/// A group's directory and what its entries say.
struct GroupDir {
    dir: DiskDir,
    has_owner: bool,
    has_notes: bool,
    /// Oldest first.
    snapshots: Vec<Snapshot>,
}

impl GroupDir {
    /// `None` if it is not there, or not any more.
    fn read(disk: &Disk, store: &Inner, ns: &Namespace, group: &Group) -> Result<Option<Self>> {
        let Some(dir) = open(disk, store, ns, group)? else { return Ok(None) };
        let entries = dir.entries().map_err(|e| failed("unable to list group", dir.path(), e))?;
        let has = |name: &str| entries.iter().any(|entry| entry.name == name);
        let (has_owner, has_notes) = (has(OWNER_FILE), has(NOTES_FILE));
        let dirs = entries.iter().filter(|entry| entry.kind == FileKind::Dir).map(|entry| entry.name.as_str());
        let snapshots = tree::snapshots_of(group, dirs);
        Ok(Some(Self { dir, has_owner, has_notes, snapshots }))
    }

    /// `None`, and a line in the log, if that cannot be told.
    fn owner(&self, ns: &Namespace, group: &Group) -> Option<AuthId> {
        let warn = |e: &Error| tracing::warn!(namespace = %ns, %group, error = %e, "group is not listed: no owner");
        read_owner_in(&self.dir, group).inspect_err(warn).ok()
    }
}

fn open(disk: &Disk, store: &Inner, ns: &Namespace, group: &Group) -> Result<Option<DiskDir>> {
    let path = store.layout.group(ns, group);
    match disk.dir(&path) {
        Ok(dir) => Ok(Some(dir)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(failed("unable to open group", &path, e)),
    }
}

fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn count(disk: &Disk, store: &Arc<Inner>, piece: CountPiece) -> Result<Found<CountPiece, (BackupType, u64)>> {
    match piece {
        CountPiece::Namespace(ns) => {
            let groups = match tree::groups(disk, &store.layout, &ns) {
                // Removed since it was listed.
                Err(e) if e.kind() == Kind::Invalid => Vec::new(),
                groups => groups?,
            };
            let more = groups.into_iter().map(|group| CountPiece::Group(ns.clone(), group)).collect();
            Ok(Found { rows: Vec::new(), more })
        }
        CountPiece::Group(ns, group) => {
            let found = GroupDir::read(disk, store, &ns, &group)?.filter(|dir| dir.has_owner);
            Ok(Found::rows(found.map(|dir| (group.ty(), dir.snapshots.len() as u64))))
        }
    }
}

fn look_at_group(disk: &Disk, store: &Arc<Inner>, piece: GroupPiece) -> Result<Found<GroupPiece, GroupSummary>> {
    let GroupPiece { ns, group, may_see } = piece;
    let Some(dir) = GroupDir::read(disk, store, &ns, &group)? else { return Ok(Found::rows([])) };
    if dir.snapshots.is_empty() {
        return Ok(Found::rows([]));
    }
    let Some(owner) = dir.owner(&ns, &group).filter(|owner| may_see(owner)) else { return Ok(Found::rows([])) };
    let mut newest: Option<(EpochSecs, SnapshotDir)> = None;
    for snapshot in dir.snapshots.iter().rev() {
        if let Some((listed, (), _)) = read_entries(&dir.dir, &snapshot.dir_name(), |_| Ok(()))? {
            let is_finished = listed.is_finished();
            if is_finished || newest.is_none() {
                newest = Some((snapshot.time(), listed));
            }
            if is_finished {
                break;
            }
        }
    }
    Ok(Found::rows(newest.map(|(last_backup, listed)| GroupSummary {
        comment: dir.has_notes.then(|| read_group_comment_in(&dir.dir)).flatten(),
        snapshot_count: dir.snapshots.len(),
        last_backup,
        files: listed.files,
        group,
        owner,
    })))
}

fn look_at_snapshots(
    disk: &Disk,
    store: &Arc<Inner>,
    piece: SnapshotPiece,
) -> Result<Found<SnapshotPiece, SnapshotInfo>> {
    match piece {
        SnapshotPiece::Group(GroupPiece { ns, group, may_see }) => {
            let Some(dir) = GroupDir::read(disk, store, &ns, &group)? else { return Ok(Found::rows([])) };
            let key = (ns, group);
            let times: Vec<EpochSecs> = dir.snapshots.iter().map(Snapshot::time).collect();
            store.manifests.retain(&key, &times);
            if dir.snapshots.is_empty() {
                return Ok(Found::rows([]));
            }
            let Some(owner) = dir.owner(&key.0, &key.1).filter(|owner| may_see(owner)) else {
                return Ok(Found::rows([]));
            };
            let mut parts = dir.snapshots.chunks(SNAPSHOTS_PER_PIECE);
            let first = parts.next().unwrap_or_default();
            let rows = part(store, &dir.dir, &key, &owner, first)?;
            let rest = |snapshots: &[Snapshot]| SnapshotPiece::Part {
                ns: key.0.clone(),
                owner: owner.clone(),
                snapshots: snapshots.to_vec(),
            };
            Ok(Found { rows, more: parts.map(rest).collect() })
        }
        SnapshotPiece::Part { ns, owner, snapshots } => {
            let Some(group) = snapshots.first().map(|snapshot| snapshot.group().clone()) else {
                return Ok(Found::rows([]));
            };
            let Some(dir) = open(disk, store, &ns, &group)? else { return Ok(Found::rows([])) };
            Ok(Found::rows(part(store, &dir, &(ns, group), &owner, &snapshots)?))
        }
    }
}

/// Some snapshots of one group.
fn part(
    store: &Inner,
    dir: &DiskDir,
    key: &(Namespace, Group),
    owner: &AuthId,
    snapshots: &[Snapshot],
) -> Result<Vec<SnapshotInfo>> {
    let version = store.manifests.version(key);
    let known = store.manifests.get(key, snapshots.iter().map(Snapshot::time));
    let (mut infos, mut read) = (Vec::with_capacity(snapshots.len()), Vec::new());
    for (snapshot, known) in snapshots.iter().zip(known) {
        let Some(look) = look_at(store, dir, snapshot, known.as_deref())? else { continue };
        infos.push(look.info(snapshot, owner));
        if look.is_news {
            read.push((snapshot.time(), Arc::new(look.found)));
        }
    }
    store.manifests.put(key, version, read);
    Ok(infos)
}

/// What a look at a snapshot found.
struct Looked {
    found: CachedSnapshot,
    summary: Option<Arc<ManifestSummary>>,
    /// Whether it is not what was known.
    is_news: bool,
}

impl Looked {
    fn info(&self, snapshot: &Snapshot, owner: &AuthId) -> SnapshotInfo {
        let summary = self.summary.as_deref();
        let (files, size) = list_files(&self.found.dir, summary);
        SnapshotInfo {
            snapshot: snapshot.clone(),
            owner: owner.clone(),
            files,
            size,
            comment: summary.and_then(|s| s.comment.clone()),
            verification: summary.and_then(|s| s.verification.clone()),
            fingerprint: summary.and_then(|s| s.fingerprint.clone()),
            protected: self.found.dir.protected,
        }
    }
}

/// Reads of a snapshot what has changed since it was known; `None` if it is not there any more.
///
/// Known and unchanged costs two questions, one for the directory and one for the manifest; on a file system whose directories are not
/// trusted a reading of the directory in the place of the first. Unknown: both are opened and read.
fn look_at(
    store: &Inner,
    group: &DiskDir,
    snapshot: &Snapshot,
    known: Option<&CachedSnapshot>,
) -> Result<Option<Looked>> {
    let name = snapshot.dir_name();
    // Before anything is asked of the disk, see `Stamp::settled`.
    let now = store.clock.now();
    let Some(LookedAtDir { dir, stamp: dir_stamp, handle, is_news }) = look_at_dir(store, group, &name, known, now)?
    else {
        return Ok(None);
    };
    // Relative to what is open: each component may be a request to a server.
    let (at, path) = match &handle {
        Some(handle) => (handle, MANIFEST_BLOB.to_owned()),
        None => (group, format!("{name}/{MANIFEST_BLOB}")),
    };
    let known_manifest = known.and_then(|known| known.manifest.as_ref());
    let (manifest, summary, manifest_is_news) = if !dir.is_finished() {
        (None, None, known_manifest.is_some())
    } else if let Some((stamp, summary)) = known_manifest
        && at.lstat(&path).is_ok_and(|meta| Stamp::of(&meta) == *stamp)
    {
        store.manifests.count(Count::ManifestUnchanged);
        (Some((*stamp, summary.clone())), summary.clone(), false)
    } else {
        let (stamp, summary) = read_manifest(store, at, &path, snapshot, now);
        (stamp.map(|stamp| (stamp, summary.clone())), summary, true)
    };
    let found = CachedSnapshot { dir_stamp, dir, manifest };
    Ok(Some(Looked { found, summary, is_news: is_news || manifest_is_news }))
}

/// What a look at a snapshot's directory found.
struct LookedAtDir {
    dir: SnapshotDir,
    /// Under which the entries may be believed.
    stamp: Option<Stamp>,
    /// The directory, if it had to be opened.
    handle: Option<DiskDir>,
    /// Whether it is not what was known.
    is_news: bool,
}

fn look_at_dir(
    store: &Inner,
    group: &DiskDir,
    name: &str,
    known: Option<&CachedSnapshot>,
    now: EpochSecs,
) -> Result<Option<LookedAtDir>> {
    if let Some(CachedSnapshot { dir, dir_stamp: Some(stamp), .. }) = known {
        match group.lstat(name) {
            Ok(meta) if Stamp::of(&meta) == *stamp => {
                store.manifests.count(Count::DirectoryUnchanged);
                return Ok(Some(LookedAtDir { dir: dir.clone(), stamp: Some(*stamp), handle: None, is_news: false }));
            }
            Err(e) if is_gone(&e) => return Ok(None),
            _ => {}
        }
    }
    let stamp = |dir: &DiskDir| match store.tree_is_remote {
        // Not every server tells that entries came or went (object stores behind FUSE never do).
        true => Ok(None),
        false => dir.meta().map(|meta| Stamp::settled(&meta, now)),
    };
    let Some((dir, stamp, handle)) = read_entries(group, name, stamp)? else { return Ok(None) };
    let is_news = stamp.is_some() || known.is_none_or(|known| known.dir != dir);
    Ok(Some(LookedAtDir { dir, stamp, handle: Some(handle), is_news }))
}

/// Opens the directory of a snapshot and reads its entries after `before`; `None` if it is not there.
fn read_entries<T>(
    group: &DiskDir,
    name: &str,
    before: impl FnOnce(&DiskDir) -> io::Result<T>,
) -> Result<Option<(SnapshotDir, T, DiskDir)>> {
    let read = group.dir(name).and_then(|dir| {
        let before = before(&dir)?;
        Ok((SnapshotDir::of(dir.entries()?), before, dir))
    });
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(failed("unable to list snapshot", &group.path().join(name), e)),
    }
}

/// Reads a manifest. One that cannot be read is logged, and the snapshot is listed without what it would say; one that is wrong is known
/// to be wrong until it changes.
fn read_manifest(
    store: &Inner,
    dir: &DiskDir,
    path: &str,
    snapshot: &Snapshot,
    now: EpochSecs,
) -> (Option<Stamp>, Option<Arc<ManifestSummary>>) {
    store.manifests.count(Count::ManifestOpened);
    let full = dir.path().join(path);
    let read = dir.open(path).and_then(|file| {
        let meta = file.meta()?;
        Ok((Stamp::settled(&meta, now), file.read_whole(&meta, BLOB_ENCODED_BYTES_MAX)?))
    });
    let (stamp, encoded) = match read {
        Ok(read) => read,
        Err(e) => {
            let error = unable_to_load(&full, e);
            tracing::warn!(%snapshot, %error, "manifest is not readable");
            return (None, None);
        }
    };
    let loaded = parse_manifest(&full, &encoded);
    let loaded = loaded.inspect_err(|error| tracing::warn!(%snapshot, %error, "manifest is not readable"));
    (stamp, loaded.ok().map(|loaded| Arc::new(ManifestSummary::of(&loaded))))
}
