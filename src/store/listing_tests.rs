//! Listings: what they ask of the disk, what they see of a change, and in which pieces they come.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::layout::Layout;
use super::test_support::*;
use super::{Datastore, GroupFilter, GroupSummary, ListingCounters, SnapshotInfo, SyncLevel};
use crate::clock::{Clock, EpochSecs};
use crate::engine::{Disk, DiskCounts, Fault};
use crate::format::manifest::{CryptMode, Manifest, ManifestFile};
use crate::types::{AuthId, Digest, Group, MANIFEST_BLOB, Namespace, Snapshot};

/// Longer than two changes may share a stamp on the file systems that tests run on.
const TICK: Duration = Duration::from_millis(15);

fn write(path: &Path, bytes: &[u8]) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn manifest_of(snapshot: &Snapshot, notes: &str) -> Vec<u8> {
    let mut manifest = Manifest::new(snapshot);
    let file = ManifestFile { filename: name("a.img.fidx"), crypt_mode: CryptMode::None, size: 7, csum: Digest::ZERO };
    manifest.add_file(file).unwrap();
    manifest.set_notes(notes);
    manifest.to_blob()
}

/// A snapshot as listings see it: no chunk, an index of no bytes.
fn make_snapshot(base: &Path, ns: &Namespace, snapshot: &Snapshot) -> PathBuf {
    let dir = Layout::new(base).snapshot(ns, snapshot);
    std::fs::create_dir_all(&dir).unwrap();
    write(&dir.join("a.img.fidx"), b"");
    write(&dir.join(MANIFEST_BLOB), &manifest_of(snapshot, ""));
    let owner = dir.parent().unwrap().join("owner");
    if !owner.exists() {
        write(&owner, b"tester@pbs!bench\n");
    }
    dir
}

/// The time, as far ahead that all there is counts as settled.
fn settle(store: &Datastore) {
    store.clock().set(EpochSecs(Clock::system().now().0 + 60));
}

async fn list(store: &Datastore) -> Vec<SnapshotInfo> {
    store.snapshots(&root(), GroupFilter::default()).await.unwrap()
}

/// Compared as a whole: everything a listing says.
async fn shown(store: &Datastore) -> Vec<String> {
    list(store)
        .await
        .into_iter()
        .map(|mut info| {
            info.files.sort_by(|a, b| a.filename.cmp(&b.filename));
            format!("{info:?}")
        })
        .collect()
}

async fn summaries(store: &Datastore, may_see: fn(&AuthId) -> bool) -> Vec<GroupSummary> {
    let mut listing = store.list_groups(&root(), may_see).await.unwrap();
    let mut all = Vec::new();
    while let Some(rows) = listing.next().await.unwrap() {
        all.extend(rows);
    }
    all
}

fn since(now: DiskCounts, before: DiskCounts) -> DiskCounts {
    DiskCounts {
        opened: now.opened - before.opened,
        directories_read: now.directories_read - before.directories_read,
        names_read: now.names_read - before.names_read,
        checks_by_name: now.checks_by_name - before.checks_by_name,
        stats: now.stats - before.stats,
        others: now.others - before.others,
    }
}

#[tokio::test]
async fn a_second_listing_asks_two_questions_a_snapshot_and_opens_nothing_of_it() {
    const GROUPS: u64 = 10;
    const EACH: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    for group in 0..GROUPS {
        for hours in 0..EACH {
            make_snapshot(&base, &root(), &snapshot(&format!("vm/{group}"), i64::try_from(hours).unwrap()));
        }
    }
    let store = open(&base).await;
    settle(&store);
    let all = GROUPS * EACH;
    // Of every listing: the place of the datastore, the namespace, three directories of types, and of each group the directory and
    // the owner, which is read.
    let around = DiskCounts {
        opened: 2 * GROUPS,
        directories_read: 3 + GROUPS,
        stats: 3 + GROUPS,
        others: GROUPS,
        ..DiskCounts::default()
    };
    for (round, want, counters) in [
        (
            "unknown",
            DiskCounts {
                opened: around.opened + 2 * all,
                directories_read: around.directories_read + all,
                stats: around.stats + 2 * all,
                others: around.others + all,
                ..around
            },
            ListingCounters { manifests_opened: all, manifests_unchanged: 0, directories_unchanged: 0 },
        ),
        (
            "known",
            DiskCounts { stats: around.stats + 2 * all, ..around },
            ListingCounters { manifests_opened: all, manifests_unchanged: all, directories_unchanged: all },
        ),
    ] {
        let before = store.engine().counters().disk;
        assert_eq!(list(&store).await.len() as u64, all);
        assert_eq!(since(store.engine().counters().disk, before), want, "{round}");
        assert_eq!(store.listing_counters(), counters, "{round}");
    }
    let before = store.engine().counters().disk;
    assert_eq!(summaries(&store, |_| true).await.len() as u64, GROUPS);
    let want =
        DiskCounts { opened: around.opened + GROUPS, directories_read: around.directories_read + GROUPS, ..around };
    assert_eq!(since(store.engine().counters().disk, before), want, "groups look into their newest snapshot alone");
    let before = store.engine().counters().disk;
    assert_eq!(store.counts().await.unwrap().vm.snapshots, all);
    let counted = since(store.engine().counters().disk, before);
    assert_eq!((counted.opened, counted.directories_read), (GROUPS, 4 + GROUPS), "counting looks into no snapshot");
    let before = store.engine().counters().disk;
    let filter = GroupFilter { ty: None, id: Some("3".into()) };
    assert_eq!(store.snapshots(&root(), filter).await.unwrap().len() as u64, EACH);
    let asked = since(store.engine().counters().disk, before);
    assert_eq!(asked.directories_read, 1, "one group by its id costs nothing for the others");
}

#[tokio::test]
async fn what_changed_is_seen_however_it_was_done_and_only_that_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let (first, second) = (snapshot("vm/1", 0), snapshot("vm/1", 1));
    let path = make_snapshot(&base, &root(), &first);
    let other = make_snapshot(&base, &root(), &second);
    let store = open(&base).await;
    settle(&store);
    let disk = Disk::real();
    let mut opened = 0;
    // What is done, how many manifests are read for it, and the comment and protection that are listed then.
    type Change<'a> = (&'a str, Box<dyn Fn() + 'a>, u64, Option<&'a str>, bool);
    let manifest = path.join(MANIFEST_BLOB);
    let changes: Vec<Change<'_>> = vec![
        ("nothing was known", Box::new(|| ()), 2, None, false),
        ("nothing", Box::new(|| ()), 0, None, false),
        ("written in place", Box::new(|| write(&manifest, &manifest_of(&first, "one"))), 1, Some("one"), false),
        (
            "in place, as long as before",
            Box::new(|| write(&manifest, &manifest_of(&first, "two"))),
            1,
            Some("two"),
            false,
        ),
        (
            "replaced twice, perhaps by the first inode",
            Box::new(|| {
                for notes in ["six", "ten"] {
                    write(&path.join("new"), &manifest_of(&first, notes));
                    disk.rename(&path.join("new"), &manifest).unwrap();
                }
            }),
            1,
            Some("ten"),
            false,
        ),
        ("protected", Box::new(|| write(&path.join(".protected"), b"")), 0, Some("ten"), true),
        ("a log is added", Box::new(|| write(&path.join("client.log.blob"), b"x")), 0, Some("ten"), true),
        ("unprotected", Box::new(|| std::fs::remove_file(path.join(".protected")).unwrap()), 0, Some("ten"), false),
        ("no manifest any more", Box::new(|| std::fs::remove_file(&manifest).unwrap()), 0, None, false),
        ("nonsense", Box::new(|| write(&manifest, b"nonsense")), 1, None, false),
        ("still nonsense", Box::new(|| ()), 0, None, false),
        ("healed", Box::new(|| write(&manifest, &manifest_of(&first, "good"))), 1, Some("good"), false),
        ("the other one is gone", Box::new(|| std::fs::remove_dir_all(&other).unwrap()), 0, Some("good"), false),
    ];
    for (what, change, reads, comment, protected) in changes {
        std::thread::sleep(TICK);
        change();
        let infos = list(&store).await;
        assert_eq!((infos[0].comment.as_deref(), infos[0].protected), (comment, protected), "{what}");
        opened += reads;
        assert_eq!(store.listing_counters().manifests_opened, opened, "{what}");
        let fresh = open(&base).await;
        assert_eq!(shown(&store).await, shown(&fresh).await, "{what}");
    }
    store.update_manifest(&root(), &first, |m| m.set_notes("ours")).await.unwrap();
    assert_eq!(list(&store).await[0].comment.as_deref(), Some("ours"));
    write(&base.join("vm/1/owner"), b"other@pbs\n");
    assert_eq!(list(&store).await[0].owner.to_string(), "other@pbs");
}

#[tokio::test]
async fn what_is_younger_than_its_stamp_can_tell_is_read_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    make_snapshot(&base, &root(), &snapshot("vm/1", 0));
    let store = open(&base).await;
    for (ahead, opened) in [(0, 1), (0, 2), (60, 3), (60, 3), (0, 3)] {
        store.clock().set(EpochSecs(Clock::system().now().0 + ahead));
        list(&store).await;
        assert_eq!(store.listing_counters().manifests_opened, opened);
    }
}

/// A listing that remembers and one that does not, after each of many changes in no particular order.
#[tokio::test]
async fn a_listing_that_remembers_says_what_one_says_that_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    for hours in 0..6 {
        make_snapshot(&base, &root(), &snapshot("host/a", hours));
    }
    let store = open(&base).await;
    settle(&store);
    let disk = Disk::real();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for step in 0..80 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let snapshot = snapshot("host/a", i64::try_from(random >> 8 & 7).unwrap());
        let path = Layout::new(&base).snapshot(&root(), &snapshot);
        let manifest = path.join(MANIFEST_BLOB);
        std::thread::sleep(TICK);
        match random % 8 {
            0 | 1 if path.exists() => write(&manifest, &manifest_of(&snapshot, &format!("{:02}", step % 100))),
            2 if path.exists() => {
                write(&path.join("new"), &manifest_of(&snapshot, &format!("{:02}", step % 100)));
                disk.rename(&path.join("new"), &manifest).unwrap();
            }
            3 if manifest.exists() => {
                let notes = move |m: &mut Manifest| m.set_notes(&step.to_string());
                store.update_manifest(&root(), &snapshot, notes).await.unwrap_or_default();
            }
            4 if path.exists() => match path.join(".protected") {
                marker if marker.exists() => std::fs::remove_file(marker).unwrap(),
                marker => write(&marker, b""),
            },
            5 if path.exists() => std::fs::remove_dir_all(&path).unwrap(),
            6 if manifest.exists() => std::fs::remove_file(&manifest).unwrap(),
            _ if !path.exists() => drop(make_snapshot(&base, &root(), &snapshot)),
            _ => write(&path.join(format!("{step}.blob")), b""),
        }
        let fresh = open(&base).await;
        assert_eq!(shown(&store).await, shown(&fresh).await, "step {step}");
    }
    let counters = store.listing_counters();
    assert!(counters.manifests_unchanged > 5 * counters.manifests_opened / 2, "it did remember: {counters:?}");
}

#[tokio::test]
async fn a_large_group_comes_in_pieces_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    for (group, count) in [("vm/1", 150), ("vm/2", 1), ("ct/9", 3)] {
        for hours in 0..count {
            make_snapshot(&base, &root(), &snapshot(group, hours));
        }
    }
    let store = open(&base).await;
    let mut listing = store.list_snapshots(&root(), &GroupFilter::default(), |_| true).await.unwrap();
    let (mut sizes, mut all) = (Vec::new(), Vec::new());
    while let Some(rows) = listing.next().await.unwrap() {
        sizes.push(rows.len());
        all.extend(rows.into_iter().map(|info| info.snapshot));
    }
    assert_eq!(sizes, [3, 64, 64, 22, 1]);
    let mut sorted = all.clone();
    sorted.sort_by_key(|s| (s.group().clone(), s.time()));
    assert_eq!(all, sorted);
}

#[tokio::test]
async fn groups_are_summed_up_by_their_newest_finished_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    for (group, hours) in [("vm/1", 0), ("vm/1", 1), ("vm/1", 2), ("vm/2", 5), ("vm/2", 6), ("ct/3", 0), ("ct/4", 0)] {
        make_snapshot(&base, &root(), &snapshot(group, hours));
    }
    for unfinished in [("vm/1", 2), ("vm/2", 5), ("vm/2", 6)] {
        let snapshot = snapshot(unfinished.0, unfinished.1);
        std::fs::remove_file(Layout::new(&base).manifest(&root(), &snapshot)).unwrap();
    }
    write(&base.join("vm/1/notes"), b"first\nsecond");
    write(&base.join("ct/3/owner"), b"other@pbs\n");
    write(&base.join("ct/4/owner"), b"nonsense");
    std::fs::create_dir_all(base.join("vm/7/not-a-time")).unwrap();
    write(&base.join("vm/7/owner"), b"tester@pbs!bench\n");
    let store = open(&base).await;
    let group =
        |name: &str, owner: &str, comment: Option<&str>, snapshot_count, hours: i64, files: &[&str]| GroupSummary {
            group: name.parse::<Group>().unwrap(),
            owner: owner.parse().unwrap(),
            comment: comment.map(str::to_owned),
            snapshot_count,
            last_backup: EpochSecs(T0 + 3600 * hours),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
        };
    let mut found = summaries(&store, |_| true).await;
    found.iter_mut().for_each(|summary| summary.files.sort());
    let all = [
        group("ct/3", "other@pbs", None, 1, 0, &["a.img.fidx", MANIFEST_BLOB]),
        group("vm/1", "tester@pbs!bench", Some("first"), 3, 1, &["a.img.fidx", MANIFEST_BLOB]),
        group("vm/2", "tester@pbs!bench", None, 2, 6, &["a.img.fidx"]),
    ];
    assert_eq!(found, all);
    let others = summaries(&store, |owner| owner.to_string() == "other@pbs").await;
    assert_eq!(others.len(), 1);
    let mut listing = store.list_snapshots(&root(), &GroupFilter::default(), |_| false).await.unwrap();
    assert!(listing.next().await.unwrap().is_none());
    assert_eq!(store.listing_counters().manifests_opened, 0, "nothing is read of groups that are not shown");
    let error = store.list_groups(&"nope".parse().unwrap(), |_| true).await.unwrap_err();
    assert_eq!(error.to_string(), "ENOENT: No such file or directory");
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.ct.groups, counts.vm.groups, counts.vm.snapshots), (2, 2, 5));
}

/// Refuses to read one directory.
#[derive(Debug)]
struct Unreadable(PathBuf);

impl Fault for Unreadable {
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        match path {
            Some(path) if op == "readdir" && path == self.0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_disk_that_fails_ends_the_listing() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    for group in 1..40 {
        make_snapshot(&base, &root(), &snapshot(&format!("vm/{group}"), 0));
    }
    let fault = Arc::new(Unreadable(base.join("vm/20")));
    let store = open_on(&base, faulty_engine(fault), SyncLevel::None).await.unwrap();
    let mut listing = store.list_snapshots(&root(), &GroupFilter::default(), |_| true).await.unwrap();
    for _ in 1..20 {
        assert_eq!(listing.next().await.unwrap().unwrap().len(), 1);
    }
    let error = listing.next().await.unwrap_err().to_string();
    assert!(error.contains("unable to list group") && error.contains("vm/20"), "{error}");
    assert!(listing.next().await.unwrap().is_none(), "nothing comes behind an error");
}
