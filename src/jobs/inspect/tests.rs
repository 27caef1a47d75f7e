//! Reports about small real datastores, compared with what is counted by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::report::{ChunkState, Remedy, SnapshotReport};
use super::trace::verify_state;
use super::*;
use crate::clock::Clock;
use crate::engine::ComputePool;
use crate::format::manifest::VerifyOutcome;
use crate::store::Datastore;
use crate::store::layout::Layout;
use crate::store::test_support::*;
use crate::task::{Registry, Task};
use crate::types::{Digest, Snapshot};

/// Enough digests for one pass, and so few that a handful of chunks takes several.
const PASSES: [usize; 2] = [1 << 10, 2];

struct World {
    store: Datastore,
    compute: ComputePool,
    tasks: Registry,
    dir: tempfile::TempDir,
    made: Vec<(Snapshot, Vec<u8>)>,
}

impl World {
    async fn new(made: &[(&str, i64, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&make_base(dir.path())).await;
        let tasks = Registry::open(&dir.path().join("tasks"), Clock::system()).unwrap();
        let mut world = Self { store, compute: ComputePool::new(2).unwrap(), tasks, dir, made: Vec::new() };
        for (group, hours, seeds) in made {
            let snapshot = snapshot(group, *hours);
            back_up(&world.store, &snapshot, seeds).await.unwrap();
            world.made.push((snapshot, seeds.to_vec()));
        }
        world
    }

    async fn task(&self) -> Task {
        self.tasks.start("inspect", None, &auth()).await.unwrap()
    }

    fn chunk_path(&self, seed: u8) -> PathBuf {
        Layout::new(self.store.base_path()).chunk(&chunk(seed).0)
    }

    fn lose(&self, seed: u8) {
        std::fs::remove_file(self.chunk_path(seed)).unwrap();
    }

    async fn inspect(&self, at: usize, digests_max: usize) -> SnapshotReport {
        let inspection = Inspection {
            store: self.store.clone(),
            compute: self.compute.clone(),
            ns: root(),
            snapshot: self.made[at].0.clone(),
            archive: None,
            may_see: Arc::new(|_| true),
            others: Vec::new(),
        };
        let task = self.task().await;
        let report = inspection.run_keeping(&task, digests_max).await.unwrap();
        task.end(Ok(())).await;
        report
    }

    fn tracing(&self, about: About) -> Tracing {
        Tracing {
            store: self.store.clone(),
            compute: self.compute.clone(),
            about,
            mark: false,
            may_see: Arc::new(|_| true),
            others: Vec::new(),
        }
    }

    async fn trace(&self, tracing: &Tracing, digests_max: usize) -> report::ChunksReport {
        let task = self.task().await;
        let report = tracing.run_keeping(&task, digests_max).await.unwrap();
        task.end(Ok(())).await;
        report
    }
}

fn set(seeds: &[u8]) -> BTreeSet<u8> {
    seeds.iter().copied().collect()
}

fn disk_bytes<'a>(seeds: impl IntoIterator<Item = &'a u8>) -> u64 {
    seeds.into_iter().map(|seed| chunk(*seed).1.len() as u64).sum()
}

fn time(named: &report::Named) -> (String, i64) {
    (format!("{}/{}", named.backup_type, named.backup_id), (named.backup_time.0 - T0) / 3600)
}

const MADE: &[(&str, i64, &[u8])] = &[
    ("host/a", 0, &[1, 2, 3, 1]),
    ("host/a", 1, &[1, 2, 4, 0, 0]),
    ("host/b", 0, &[2, 5]),
    ("vm/7", 0, &[6]),
    ("vm/7", 1, &[6, 7, 3]),
];

#[tokio::test]
async fn sharing_is_what_is_counted_by_hand() {
    let world = World::new(MADE).await;
    for digests_max in PASSES {
        for (at, (this, seeds)) in world.made.iter().enumerate() {
            let report = world.inspect(at, digests_max).await;
            assert!(report.sound, "{report:#?}");
            let ours = set(seeds);
            let mut shared = BTreeSet::new();
            let mut by_group: BTreeMap<String, (u64, BTreeSet<u8>)> = BTreeMap::new();
            let mut by_snapshot = BTreeSet::new();
            for (other, seeds) in world.made.iter().filter(|(other, _)| other != this) {
                let common: BTreeSet<u8> = ours.intersection(&set(seeds)).copied().collect();
                if common.is_empty() {
                    continue;
                }
                shared.extend(&common);
                let hours = (other.time().0 - T0) / 3600;
                by_snapshot.insert((other.group().to_string(), hours, common.len() as u64, disk_bytes(&common)));
                let group = by_group.entry(other.group().to_string()).or_default();
                group.0 += 1;
                group.1.extend(common);
            }
            let totals = &report.chunks;
            assert_eq!((totals.entries, totals.distinct), (seeds.len() as u64, ours.len() as u64));
            assert_eq!(totals.bytes, (seeds.len() as u64) << 22);
            assert_eq!((totals.shared, totals.own), (shared.len() as u64, (ours.len() - shared.len()) as u64));
            assert_eq!((totals.disk_bytes, totals.shared_disk_bytes), (disk_bytes(&ours), disk_bytes(&shared)));
            assert_eq!(totals.own_disk_bytes, disk_bytes(ours.difference(&shared)));
            let rows = report.snapshots.iter().map(|row| {
                let (group, hours) = time(&row.snapshot);
                (group, hours, row.chunks, row.disk_bytes)
            });
            assert_eq!(rows.collect::<BTreeSet<_>>(), by_snapshot);
            let groups = report.groups.iter().map(|row| (row.group.clone(), row.snapshots, row.chunks, row.disk_bytes));
            let want =
                by_group.into_iter().map(|(group, (n, common))| (group, n, common.len() as u64, disk_bytes(&common)));
            assert_eq!(groups.collect::<BTreeSet<_>>(), want.collect::<BTreeSet<_>>());
            let archive = &report.archives[0];
            assert_eq!((archive.entries, archive.distinct), (totals.entries, totals.distinct));
            assert_eq!(archive.zero_entries, seeds.iter().filter(|seed| **seed == 0).count() as u64);
        }
    }
}

#[tokio::test]
async fn a_missing_chunk_is_told_with_its_bytes_and_its_remedies() {
    let world = World::new(MADE).await;
    world.lose(1);
    world.lose(3);
    for digests_max in PASSES {
        let report = world.inspect(0, digests_max).await;
        assert_eq!(world.store.suspects(), 2, "the next upload of these is written in any case");
        assert!(!report.sound && !report.newest);
        assert_eq!((report.chunks.missing, report.chunks.unknown, report.archives[0].lost_entries), (2, 0, 3));
        assert_eq!(words::ranges(&report.archives[0].places, 0), "0..4194304, 8388608..16777216");
        let fates: BTreeMap<String, &report::ChunkFate> =
            report.missing.iter().map(|fate| (fate.digest.clone(), fate)).collect();
        let of = |seed: u8| fates[&chunk(seed).0.to_string()];
        assert_eq!((of(1).snapshots, of(3).snapshots), (2, 2));
        let backup = |group: &str| Remedy::Backup { ns: String::new(), group: group.to_owned(), full: false };
        assert_eq!(of(1).remedies, [backup("host/a")]);
        assert_eq!(of(3).remedies, [backup("vm/7")], "the newest of host/a has none of it");
    }
    // Whoever may not see a namespace gets its numbers and no names.
    let hidden = Inspection {
        store: world.store.clone(),
        compute: world.compute.clone(),
        ns: root(),
        snapshot: world.made[0].0.clone(),
        archive: Some(name("disk.img.fidx")),
        may_see: Arc::new(|_| false),
        others: Vec::new(),
    };
    let task = world.task().await;
    let report = hidden.run(&task).await.unwrap();
    assert_eq!((report.hidden_snapshots, report.snapshots.len(), report.groups.len()), (3, 0, 0));
    assert!(report.missing.iter().all(|fate| fate.remedies.is_empty()));
    let other = Inspection { archive: Some(name("x.fidx")), ..hidden };
    assert!(other.run(&task).await.unwrap_err().to_string().contains("has no file 'x.fidx'"));
}

#[tokio::test]
async fn files_that_are_not_what_the_manifest_says_are_told() {
    let world = World::new(&[("host/a", 0, &[1, 2])]).await;
    let dir = Layout::new(world.store.base_path()).snapshot(&root(), &world.made[0].0);
    let report = world.inspect(0, 100).await;
    let shown = |report: &SnapshotReport| -> Vec<(String, Option<String>, bool)> {
        report.files.iter().map(|f| (f.filename.clone(), f.crypt_mode.clone(), f.fault.is_none())).collect()
    };
    let listed = ("disk.img.fidx".to_owned(), Some("none".to_owned()));
    let stray = ("vm.conf.blob".to_owned(), None, true);
    assert_eq!(shown(&report), [(listed.0.clone(), listed.1.clone(), true), stray.clone()]);
    // One digest of the index is another one now.
    let index = dir.join("disk.img.fidx");
    let mut bytes = std::fs::read(&index).unwrap();
    bytes[4096] ^= 1;
    put(&index, &bytes);
    let report = world.inspect(0, 100).await;
    assert_eq!(shown(&report), [(listed.0.clone(), listed.1.clone(), false), stray.clone()]);
    assert!(report.files[0].fault.as_ref().unwrap().starts_with("wrong checksum"), "{report:#?}");
    assert_eq!((report.sound, report.chunks.missing), (false, 1));
    put(&index, &bytes[..4100]);
    let report = world.inspect(0, 100).await;
    assert!(report.files[0].fault.as_ref().unwrap().contains("Unable to open fixed index"), "{report:#?}");
    std::fs::remove_file(dir.join("index.json.blob")).unwrap();
    let report = world.inspect(0, 100).await;
    assert!(report.manifest_fault.unwrap().contains("was not finished") && !report.sound && !report.newest);
}

#[tokio::test]
async fn the_report_about_chunks_names_who_loses_what() {
    let world = World::new(MADE).await;
    let digest = |seed: u8| chunk(seed).0;
    // Nobody loses anything by a chunk that is there.
    let tracing = world.tracing(About::Chunks(vec![digest(6), digest(2), digest(200)]));
    let report = world.trace(&tracing, 100).await;
    assert_eq!((report.chunks.len(), report.snapshots.len(), report.indexes), (3, 5, 5));
    assert!(report.is_sound() && report.snapshots.iter().all(|found| !found.loses_data), "{report:#?}");
    let nobody = report.chunks.iter().find(|fate| fate.digest == digest(200).to_string()).unwrap();
    assert_eq!((nobody.state, nobody.snapshots), (ChunkState::Missing, 0));

    world.lose(2);
    world.lose(7);
    for digests_max in PASSES {
        let report = world.trace(&world.tracing(About::Missing), digests_max).await;
        let chunks: BTreeSet<&str> = report.chunks.iter().map(|fate| fate.digest.as_str()).collect();
        assert_eq!(chunks, BTreeSet::from([digest(2).to_string().as_str(), digest(7).to_string().as_str()]));
        let found: Vec<((String, i64), bool, bool, String)> = report
            .snapshots
            .iter()
            .map(|found| {
                let archive = &found.archives[0];
                (time(&found.snapshot), found.newest, found.loses_data, words::ranges(&archive.places, 0))
            })
            .collect();
        let row =
            |group: &str, hours, newest, ranges: &str| ((group.to_owned(), hours), newest, true, ranges.to_owned());
        let want = [
            row("host/a", 0, false, "4194304..8388608"),
            row("host/a", 1, true, "4194304..8388608"),
            row("host/b", 0, true, "0..4194304"),
            row("vm/7", 1, true, "4194304..8388608"),
        ];
        assert_eq!(found, want);
        assert!(!report.is_sound());
    }
}

#[tokio::test]
async fn marks_make_the_next_backup_a_full_one() {
    let world = World::new(MADE).await;
    world.lose(2);
    let tracing = Tracing { mark: true, ..world.tracing(About::Missing) };
    let report = world.trace(&tracing, 100).await;
    assert_eq!(report.marked, 3);
    assert!(report.snapshots.iter().all(|found| found.verification.as_deref() == Some("failed")));
    let full = |group: &str| Remedy::Backup { ns: String::new(), group: group.to_owned(), full: true };
    assert_eq!(report.chunks[0].remedies, [full("host/a"), full("host/b")]);
    for (group, base) in [("host/a", false), ("host/b", false), ("vm/7", true)] {
        let lease = world.store.begin_backup(&root(), &snapshot(group, 9), &auth(), false).await.unwrap();
        assert_eq!(lease.base().is_some(), base, "{group}");
        lease.abandon().await.unwrap();
    }
    let listed = walk::list(&world.store).await.unwrap();
    assert_eq!(verify_state(&world.store, &listed[4]).await.unwrap(), None);
    assert_eq!(verify_state(&world.store, &listed[0]).await.unwrap(), Some(VerifyOutcome::Failed));
}

#[tokio::test]
async fn what_was_set_aside_and_what_lies_elsewhere_is_told() {
    let world = World::new(&[("host/a", 0, &[1, 2])]).await;
    world.store.settle_doubt(chunk(1).0, |_| Err::<(), _>("wrong")).await.unwrap();
    let other = World::new(&[("host/z", 0, &[1])]).await;
    let tracing = Tracing { others: vec![other.store.clone()], ..world.tracing(About::SetAside) };
    let report = world.trace(&tracing, 100).await;
    let digest: Digest = chunk(1).0;
    assert_eq!(report.chunks.len(), 1);
    assert_eq!((&report.chunks[0].digest, report.chunks[0].state), (&digest.to_string(), ChunkState::Missing));
    let want = [
        Remedy::Copy { store: "store1".into() },
        Remedy::Backup { ns: String::new(), group: "host/a".into(), full: false },
        Remedy::SetAside { file: format!("{digest}.0.bad") },
    ];
    assert_eq!(report.chunks[0].remedies, want);
}

#[tokio::test]
async fn an_index_that_cannot_be_read_is_named_and_one_that_is_gone_is_not() {
    let world = World::new(&[("host/a", 0, &[1]), ("host/b", 0, &[1]), ("host/c", 0, &[1])]).await;
    let index =
        |at: usize| Layout::new(world.store.base_path()).snapshot(&root(), &world.made[at].0).join("disk.img.fidx");
    put(&index(1), &[0; 5000]);
    let report = world.inspect(0, 2).await;
    assert_eq!((report.unreadable.len(), report.chunks.shared), (1, 1), "{report:#?}");
    let tracing = world.tracing(About::Chunks(vec![chunk(1).0]));
    let report = world.trace(&tracing, 100).await;
    assert_eq!((report.unreadable.len(), report.snapshots.len(), report.is_sound()), (1, 2, false));
    let report = world.trace(&world.tracing(About::Missing), 2).await;
    assert_eq!((report.unreadable.len(), report.chunks.len(), report.is_sound()), (1, 0, false), "{report:#?}");
    let listed = walk::list(&world.store).await.unwrap();
    std::fs::remove_file(index(2)).unwrap();
    let names = listed[2].indexes.clone();
    let mut walk = walk::Walk::new(&world.store, &listed[2], &names[0]);
    assert!(matches!(walk.next().await.unwrap(), walk::Next::End));
    drop(world.dir);
}

#[expect(clippy::disallowed_methods, reason = "a test damages what no part of the daemon would")]
fn put(path: &std::path::Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
}
