//! What listings have read of snapshots, kept until it changes.
//!
//! Nothing is believed that was not compared: each listing asks for the stamp of every manifest, and reads again what bears another. So a
//! change needs no word from whoever makes it, another program included. Two traps are in the way:
//!
//! - An inode number comes back: a manifest that is replaced twice may lie in the first one's inode. Its change time tells them apart, if
//! - time has passed. Kernels stamp by a tick of 1 to 10 ms, some file systems by one or two seconds, so a change right after the reading
//!   might bear the same stamp. What is younger than [`SETTLE_SECS`] when it is read is therefore not kept ([`Stamp::settled`]).
//!
//! That takes for granted that the file system's clock is ours, which is not so on a network. There our own changes are what matters, and
//! they are told: [`ManifestCache::forget`].

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::snapshot::{ManifestSummary, SnapshotDir};
use crate::clock::EpochSecs;
use crate::engine::{FileMeta, FileTime};
use crate::sync::Mutex;
use crate::types::{Group, Namespace, Snapshot};

/// How old a change has to be before no later one can bear its stamp: the coarsest clock of a file system in use is FAT's, 2 s.
const SETTLE_SECS: i64 = 2;

/// Most snapshots that are remembered: six times the largest store that listings are measured with.
const SNAPSHOTS_MAX: usize = 1 << 17;

/// Most memory for it, 64 MiB: a usual snapshot of three archives takes about 700 bytes, so this is 90,000 of them. What does not fit is
/// read again by each listing.
const BYTES_MAX: usize = 64 << 20;

/// Counters of [`ManifestCache::forget`], shared by groups whose hashes collide; a collision costs one more reading.
const VERSIONS: usize = 64;

/// What tells one state of a file or directory from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    size_bytes: u64,
    mtime: FileTime,
    ctime: FileTime,
}

impl Stamp {
    pub(super) fn of(meta: &FileMeta) -> Self {
        let FileMeta { dev, ino, size_bytes, mtime, ctime, .. } = *meta;
        Self { dev, ino, size_bytes, mtime, ctime }
    }

    /// The stamp, if whatever happens to the file from `now` on will change it. `now` was asked before `meta` was, and `meta` before the
    /// content was read. The change time alone counts: any program can set the other one.
    pub(super) fn settled(meta: &FileMeta, now: EpochSecs) -> Option<Self> {
        (meta.ctime.secs.saturating_add(SETTLE_SECS) < now.0).then(|| Self::of(meta))
    }
}

/// What was read of one snapshot.
#[derive(Debug)]
pub(super) struct CachedSnapshot {
    /// Of its directory, as far as that can be trusted to change with the entries.
    pub(super) dir_stamp: Option<Stamp>,
    /// Its entries.
    pub(super) dir: SnapshotDir,
    /// The manifest with its stamp; nothing in it if it is there and is none.
    pub(super) manifest: Option<(Stamp, Option<Arc<ManifestSummary>>)>,
}

impl CachedSnapshot {
    /// Memory, about.
    fn bytes(&self) -> usize {
        // An entry of the map, the counts of two Arcs.
        const AROUND: usize = 64;
        let summary = self.manifest.as_ref().and_then(|(_, summary)| summary.as_ref()).map_or(0, |s| s.heap_bytes());
        size_of::<Self>() + AROUND + self.dir.heap_bytes() + summary
    }
}

/// What listings did, since the datastore was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListingCounters {
    /// Manifests that were opened.
    pub manifests_opened: u64,
    /// Manifests that were known and found unchanged.
    pub manifests_unchanged: u64,
    /// Directories of snapshots whose entries were known and found unchanged.
    pub directories_unchanged: u64,
}

/// One of [`ListingCounters`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    ManifestOpened,
    ManifestUnchanged,
    DirectoryUnchanged,
}

type Key = (Namespace, Group);

/// State of [`ManifestCache::forget`] for a group, before anything of it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version(u64);

/// What is known of the snapshots of one datastore.
#[derive(Debug)]
pub(super) struct ManifestCache {
    known: Mutex<Known>,
    versions: [AtomicU64; VERSIONS],
    hasher: RandomState,
    counts: [AtomicU64; 3],
}

#[derive(Debug)]
struct Known {
    groups: Vec<KnownGroup>,
    places: HashMap<Key, usize>,
    count: usize,
    bytes: usize,
    bounds: Bounds,
    /// Of the generator that picks who goes.
    random: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    count: usize,
    bytes: usize,
}

#[derive(Debug)]
struct KnownGroup {
    key: Key,
    snapshots: BTreeMap<EpochSecs, Arc<CachedSnapshot>>,
}

impl Default for ManifestCache {
    fn default() -> Self {
        Self::with_bounds(Bounds { count: SNAPSHOTS_MAX, bytes: BYTES_MAX })
    }
}

impl ManifestCache {
    fn with_bounds(bounds: Bounds) -> Self {
        let known = Known {
            groups: Vec::new(),
            places: HashMap::new(),
            count: 0,
            bytes: 0,
            bounds,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        Self {
            known: Mutex::new(known),
            versions: [const { AtomicU64::new(0) }; VERSIONS],
            hasher: RandomState::new(),
            counts: Default::default(),
        }
    }

    fn version_of(&self, key: &Key) -> &AtomicU64 {
        let hash = self.hasher.hash_one(key);
        &self.versions[usize::try_from(hash % VERSIONS as u64).unwrap_or(0)]
    }

    /// To be asked for before anything of the group is read, and given to [`Self::put`].
    pub(super) fn version(&self, key: &Key) -> Version {
        Version(self.version_of(key).load(Ordering::SeqCst))
    }

    /// What is known of these snapshots of a group, in their order.
    pub(super) fn get(&self, key: &Key, times: impl Iterator<Item = EpochSecs>) -> Vec<Option<Arc<CachedSnapshot>>> {
        let known = self.known.lock();
        let group = known.places.get(key).map(|at| &known.groups[*at]);
        times.map(|time| group.and_then(|group| group.snapshots.get(&time)).cloned()).collect()
    }

    /// Remembers what was read of a group since `version`; nothing if somebody said meanwhile that it changed.
    pub(super) fn put(&self, key: &Key, version: Version, found: Vec<(EpochSecs, Arc<CachedSnapshot>)>) {
        let mut known = self.known.lock();
        if self.version_of(key).load(Ordering::SeqCst) == version.0 {
            for (time, snapshot) in found {
                known.put(key, time, snapshot);
            }
        }
    }

    /// Forgets the snapshots of a group that are no longer in `times`, which is sorted.
    pub(super) fn retain(&self, key: &Key, times: &[EpochSecs]) {
        let mut known = self.known.lock();
        let Some(at) = known.places.get(key).copied() else { return };
        let gone: Vec<EpochSecs> =
            known.groups[at].snapshots.keys().filter(|time| times.binary_search(time).is_err()).copied().collect();
        for time in gone {
            known.remove(key, time);
        }
    }

    /// Told by whoever of us changes a manifest.
    pub(super) fn forget(&self, ns: &Namespace, snapshot: &Snapshot) {
        let key = (ns.clone(), snapshot.group().clone());
        let mut known = self.known.lock();
        self.version_of(&key).fetch_add(1, Ordering::SeqCst);
        known.remove(&key, snapshot.time());
    }

    pub(super) fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> ListingCounters {
        let [manifests_opened, manifests_unchanged, directories_unchanged] =
            self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        ListingCounters { manifests_opened, manifests_unchanged, directories_unchanged }
    }
}

impl Known {
    fn put(&mut self, key: &Key, time: EpochSecs, snapshot: Arc<CachedSnapshot>) {
        self.remove(key, time);
        let bytes = snapshot.bytes();
        while self.count + 1 > self.bounds.count || self.bytes + bytes > self.bounds.bytes {
            if !self.evict(key) {
                return;
            }
        }
        let at = *self.places.entry(key.clone()).or_insert_with(|| {
            self.groups.push(KnownGroup { key: key.clone(), snapshots: BTreeMap::new() });
            self.groups.len() - 1
        });
        self.groups[at].snapshots.insert(time, snapshot);
        self.count += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, key: &Key, time: EpochSecs) {
        let Some(at) = self.places.get(key).copied() else { return };
        if let Some(gone) = self.groups[at].snapshots.remove(&time) {
            self.count -= 1;
            self.bytes -= gone.bytes();
        }
        if self.groups[at].snapshots.is_empty() {
            self.remove_group(at);
        }
    }

    fn remove_group(&mut self, at: usize) {
        let gone = self.groups.swap_remove(at);
        self.places.remove(&gone.key);
        if let Some(moved) = self.groups.get(at) {
            self.places.insert(moved.key.clone(), at);
        }
        self.count -= gone.snapshots.len();
        self.bytes -= gone.snapshots.values().map(|snapshot| snapshot.bytes()).sum::<usize>();
    }

    /// Makes room: forgets a group other than `but`, if there is one.
    ///
    /// Any one. Listings read the whole store in a circle, and of what was used longest ago a circle finds nothing again.
    fn evict(&mut self, but: &Key) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let count = self.groups.len() as u64;
        let start = usize::try_from(self.random.checked_rem(count).unwrap_or(0)).unwrap_or(0);
        let places = (start..self.groups.len()).chain(0..start);
        match places.into_iter().find(|at| self.groups[*at].key != *but) {
            Some(at) => {
                self.remove_group(at);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::FileKind;

    fn meta(ctime: i64) -> FileMeta {
        let time = |secs| FileTime { secs, nanos: 7 };
        FileMeta {
            kind: FileKind::File,
            size_bytes: 100,
            mode: 0o644,
            uid: 0,
            gid: 0,
            dev: 1,
            ino: 2,
            nlink: 1,
            mtime: time(ctime),
            ctime: time(ctime),
            accessed: crate::clock::EpochSecs(0),
        }
    }

    fn key(id: usize) -> Key {
        (Namespace::root(), format!("vm/{id}").parse().unwrap())
    }

    fn found() -> Arc<CachedSnapshot> {
        let dir = SnapshotDir { files: vec!["index.json.blob".to_owned()], protected: false };
        Arc::new(CachedSnapshot { dir_stamp: None, dir, manifest: Some((Stamp::of(&meta(0)), None)) })
    }

    fn is_known(cache: &ManifestCache, key: &Key, time: i64) -> bool {
        cache.get(key, std::iter::once(EpochSecs(time)))[0].is_some()
    }

    #[test]
    fn each_part_of_a_stamp_tells_two_states_apart_and_the_young_are_not_believed() {
        let stamp = Stamp::of(&meta(10));
        let nanos = |nanos| FileTime { secs: 10, nanos };
        for other in [
            FileMeta { dev: 9, ..meta(10) },
            FileMeta { ino: 9, ..meta(10) },
            FileMeta { size_bytes: 9, ..meta(10) },
            FileMeta { mtime: nanos(9), ..meta(10) },
            FileMeta { ctime: nanos(9), ..meta(10) },
        ] {
            assert_ne!(Stamp::of(&other), stamp);
        }
        assert_eq!(Stamp::of(&FileMeta { mode: 0, nlink: 2, ..meta(10) }), stamp);
        for (now, settled) in [(9, false), (10, false), (12, false), (13, true)] {
            assert_eq!(Stamp::settled(&meta(10), EpochSecs(now)), settled.then_some(stamp), "{now}");
        }
        let from_the_future = FileMeta { mtime: FileTime { secs: i64::MAX, nanos: 0 }, ..meta(10) };
        assert!(Stamp::settled(&from_the_future, EpochSecs(13)).is_some(), "anybody can set that one");
    }

    #[test]
    fn a_change_that_is_told_while_it_is_read_is_not_overwritten_by_what_was_read() {
        let cache = ManifestCache::default();
        let (key, time) = (key(1), EpochSecs(5));
        let snapshot = Snapshot::new(key.1.clone(), time).unwrap();
        let version = cache.version(&key);
        cache.put(&key, version, vec![(time, found())]);
        assert!(is_known(&cache, &key, 5) && !is_known(&cache, &key, 6));
        cache.forget(&key.0, &snapshot);
        assert!(!is_known(&cache, &key, 5));
        cache.put(&key, version, vec![(time, found())]);
        assert!(!is_known(&cache, &key, 5), "read before the change");
        cache.put(&key, cache.version(&key), vec![(time, found())]);
        assert!(is_known(&cache, &key, 5));
    }

    #[test]
    fn both_bounds_hold_and_what_is_gone_is_not_counted() {
        let one = found().bytes();
        for bounds in [Bounds { count: 10, bytes: usize::MAX }, Bounds { count: usize::MAX, bytes: 10 * one }] {
            let cache = ManifestCache::with_bounds(bounds);
            for id in 0..100 {
                let put = (0..3).map(|time| (EpochSecs(time), found())).collect();
                cache.put(&key(id), cache.version(&key(id)), put);
                let known = cache.known.lock();
                let real: usize = known.groups.iter().map(|group| group.snapshots.len()).sum();
                assert_eq!((known.count, known.bytes), (real, real * one));
                assert!(real <= 10 && known.places.len() == known.groups.len());
                assert!(known.places.iter().all(|(key, at)| known.groups[*at].key == *key));
            }
            assert!(is_known(&cache, &key(99), 2), "newcomers are let in");
            // One group that is larger than all of it.
            let put = (0..30).map(|time| (EpochSecs(time), found())).collect();
            cache.put(&key(7), cache.version(&key(7)), put);
            assert_eq!(cache.known.lock().count, 10);
            cache.retain(&key(7), &[EpochSecs(3), EpochSecs(4), EpochSecs(50)]);
            assert_eq!(cache.known.lock().count, 2);
            cache.retain(&key(7), &[]);
            let known = cache.known.lock();
            assert_eq!((known.count, known.bytes, known.groups.len()), (0, 0, 0));
        }
    }

    #[test]
    fn a_circle_larger_than_the_bound_still_finds_a_part() {
        let cache = ManifestCache::with_bounds(Bounds { count: 50, bytes: usize::MAX });
        let mut hits = 0;
        for id in (0..100).cycle().take(2000) {
            hits += usize::from(is_known(&cache, &key(id), 0));
            cache.put(&key(id), cache.version(&key(id)), vec![(EpochSecs(0), found())]);
        }
        assert!(hits > 200, "{hits} of 2000");
    }
}
