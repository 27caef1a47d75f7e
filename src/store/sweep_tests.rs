use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::config::SyncLevel;
use super::super::presence::MissingReason;
use super::super::test_support::{engine, faulty_engine, make_base, open_on};
use super::*;
use crate::engine::{EngineChoice, EngineConfig, EngineCounters, Fault};
use crate::store::Datastore;

/// Chunk `n` of directory `prefix`.
fn digest(prefix: u16, n: u16) -> Digest {
    let mut bytes = Digest::of(&n.to_be_bytes()).0;
    bytes[..2].copy_from_slice(&prefix.to_be_bytes());
    Digest(bytes)
}

fn path_of(base: &Path, digest: &Digest) -> PathBuf {
    base.join(".chunks").join(chunk_dir_name(digest.prefix())).join(digest.to_string())
}

/// Files of 12 bytes, whatever is in them.
fn put(base: &Path, digests: impl IntoIterator<Item = Digest>) {
    for digest in digests {
        let path = path_of(base, &digest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create_new(path).unwrap().set_len(12).unwrap();
    }
}

fn some(prefixes: &[u16], each: u16) -> Vec<Digest> {
    let all = prefixes.iter().flat_map(|prefix| (0..each).map(|n| digest(*prefix, n)));
    Vec::from_iter(all.collect::<BTreeSet<_>>())
}

async fn sweep(store: &Datastore, digests: &[Digest]) -> (CheckReport, EngineCounters) {
    let before = store.engine().counters();
    let mut heard = Vec::new();
    let report = store.sweep_chunks(digests, PresenceProof::Name, |asked| heard.push(asked)).await.unwrap();
    assert!(heard.is_sorted() && heard.last().copied().unwrap_or(0) == digests.len(), "{heard:?}");
    assert_eq!(report.checked, digests.len());
    let mut spent = store.engine().counters();
    spent.statx -= before.statx;
    spent.disk.directories_read -= before.disk.directories_read;
    (report, spent)
}

#[tokio::test]
async fn where_enough_is_wanted_directories_are_read_and_no_inode_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let base = make_base(folder.path());
    let digests = some(&[0, 1, 0x1234, 0xffff], 40);
    put(&base, digests.iter().copied());
    // Not of the snapshot, or not chunks at all.
    put(&base, [digest(1, 1000)]);
    for name in ["junk", "0.tmp_abcdef", &format!("{}.0.bad", digest(1, 0))] {
        std::fs::File::create_new(base.join(".chunks/0001").join(name)).unwrap();
    }
    let store = open_on(&base, engine(), SyncLevel::None).await.unwrap();
    let (report, spent) = sweep(&store, &digests).await;
    assert!(report.all_present());
    assert_eq!((report.by_name, report.directories_read), (160, 4));
    assert_eq!((spent.statx, spent.disk.directories_read), (0, 4));
    // Two of each are too few.
    let few = some(&[0, 1, 0x1234, 0xffff], 2);
    let (report, spent) = sweep(&store, &few).await;
    assert!(report.all_present());
    assert_eq!((report.by_name, spent.statx, spent.disk.directories_read), (0, 8, 0));
    // More pieces than may be under way.
    let prefixes: Vec<u16> = (100..400).collect();
    let many = some(&prefixes, 5);
    put(&base, many.iter().copied());
    let (report, spent) = sweep(&store, &many).await;
    assert!(report.all_present());
    assert_eq!((report.by_name, spent.statx, spent.disk.directories_read), (1500, 0, 300));
}

#[tokio::test]
async fn what_a_name_does_not_prove_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let base = make_base(folder.path());
    let digests = some(&[7], 20);
    put(&base, digests.iter().copied());
    let [absent, link, broken, dir, short] = [0, 3, 7, 11, 19].map(|at| digests[at]);
    let elsewhere = folder.path().join("elsewhere");
    std::fs::File::create_new(&elsewhere).unwrap().set_len(100).unwrap();
    for digest in [absent, link, broken, dir] {
        std::fs::remove_file(path_of(&base, &digest)).unwrap();
    }
    std::os::unix::fs::symlink(&elsewhere, path_of(&base, &link)).unwrap();
    std::os::unix::fs::symlink("nowhere", path_of(&base, &broken)).unwrap();
    std::fs::create_dir(path_of(&base, &dir)).unwrap();
    std::fs::File::create(path_of(&base, &short)).unwrap();
    let store = open_on(&base, engine(), SyncLevel::None).await.unwrap();
    let (report, spent) = sweep(&store, &digests).await;
    assert_eq!((report.by_name, spent.statx), (16, 4));
    let mut missing = report.missing.clone();
    missing.sort_by_key(|(digest, _)| *digest);
    assert_eq!(
        missing,
        [(absent, MissingReason::Absent), (broken, MissingReason::Absent), (dir, MissingReason::NotRegular)]
    );
    assert!(report.unchecked.is_empty());
    // A length is not seen by name; who wants it says so.
    let by_inode = store.sweep_chunks(&digests, PresenceProof::Inode, |_| {}).await.unwrap();
    assert!(by_inode.missing.contains(&(short, MissingReason::TooShort { size_bytes: 0 })));
    assert_eq!((by_inode.by_name, by_inode.missing.len()), (0, 4));
    // What is missing has become suspect: its next upload is written whatever lies there.
    assert!(store.inner.chunks.suspects.contains(&absent));
}

#[tokio::test]
async fn a_directory_that_is_not_there_or_lies_elsewhere_is_no_reason_to_guess() {
    let folder = tempfile::tempdir().unwrap();
    let base = make_base(folder.path());
    let (gone, moved, here) = (some(&[1], 10), some(&[2], 10), some(&[3], 10));
    put(&base, moved.iter().chain(&here).copied());
    std::fs::rename(base.join(".chunks/0002"), folder.path().join("0002")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("0002"), base.join(".chunks/0002")).unwrap();
    let store = open_on(&base, engine(), SyncLevel::None).await.unwrap();
    let all = [gone.clone(), moved, here].concat();
    let (report, spent) = sweep(&store, &all).await;
    assert_eq!((report.by_name, spent.statx), (10, 20));
    assert_eq!(report.missing.iter().map(|(digest, _)| *digest).collect::<BTreeSet<_>>(), gone.into_iter().collect());
}

/// Refuses to read chunk directories.
#[derive(Debug)]
struct Unreadable(&'static str);

impl Fault for Unreadable {
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        let is_chunk_dir = path.is_some_and(|path| path == Path::new("0005"));
        if op == self.0 && is_chunk_dir { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }
}

#[tokio::test]
async fn chunks_of_a_directory_that_cannot_be_read_are_asked_for_one_by_one() {
    for op in ["open", "readdir"] {
        let folder = tempfile::tempdir().unwrap();
        let base = make_base(folder.path());
        let digests = some(&[4, 5, 6], 10);
        put(&base, digests.iter().copied());
        let store = open_on(&base, faulty_engine(Arc::new(Unreadable(op))), SyncLevel::None).await.unwrap();
        let (report, spent) = sweep(&store, &digests).await;
        assert!(report.all_present(), "{op}");
        assert_eq!((report.by_name, report.directories_read, spent.statx), (20, 2, 10), "{op}");
    }
}

#[tokio::test]
async fn an_engine_that_is_forced_asks_for_every_inode() {
    let folder = tempfile::tempdir().unwrap();
    let base = make_base(folder.path());
    let digests = some(&[8, 9], 30);
    put(&base, digests.iter().copied());
    for choice in [EngineChoice::Sync, EngineChoice::Threads, EngineChoice::Uring] {
        let Ok(engine) = Engine::start("test", &EngineConfig { choice, ..EngineConfig::default() }) else {
            println!("skipped: no engine {choice:?} here");
            continue;
        };
        let store = open_on(&base, engine, SyncLevel::None).await.unwrap();
        let (report, spent) = sweep(&store, &digests).await;
        assert!(report.all_present());
        assert_eq!((report.by_name, spent.statx, spent.disk.directories_read), (0, 60, 0), "{choice:?}");
    }
}

#[tokio::test]
async fn both_ways_say_the_same_of_any_store() {
    let folder = tempfile::tempdir().unwrap();
    let base = make_base(folder.path());
    let mut state = 1_u64;
    let mut random = move |below: u16| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u16::try_from((state >> 40) % u64::from(below)).unwrap()
    };
    let (mut asked, mut there) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..6000 {
        let digest = digest(random(200), random(60));
        if random(100) < 95 {
            there.insert(digest);
        }
        if random(100) < 60 {
            asked.insert(digest);
        }
    }
    put(&base, there.iter().copied());
    let store = open_on(&base, engine(), SyncLevel::None).await.unwrap();
    let asked = Vec::from_iter(asked);
    let (report, _) = sweep(&store, &asked).await;
    let missing: BTreeSet<Digest> = report.missing.iter().map(|(digest, _)| *digest).collect();
    assert!(report.by_name > 0);
    assert_eq!(missing, asked.iter().filter(|digest| !there.contains(*digest)).copied().collect());
    let (again, _) = sweep(&store, &[]).await;
    assert!(again.all_present());
}
