//! The simulated disk against the kernel's, and what its crashes leave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::engine::{Disk, FileKind};

/// One operation on a few names, so that they meet.
#[derive(Clone, Debug)]
enum Op {
    Create(u8),
    OpenOrCreate(u8),
    Write(u8, u16, u16),
    SetLen(u8, u16),
    Read(u8),
    Mkdir(u8),
    Rmdir(u8),
    Unlink(u8),
    Rename(u8, u8),
    Symlink(u8, u8),
    Chmod(u8, u16),
    Lstat(u8),
    Stat(u8),
    List(u8),
    RemoveTree(u8),
    Sync(u8),
}

/// Paths that lie in one another, so that there are directories, files and links in each other's way.
const PATHS: [&str; 12] = ["a", "b", "c", "a/x", "a/y", "b/x", "b/x/p", "a/x/q", "c/../a/y", "l", "l/x", "a/./b"];

fn path(base: &Path, n: u8) -> PathBuf {
    base.join(PATHS[usize::from(n) % PATHS.len()])
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let n = || 0..12u8;
    let op = prop_oneof![
        n().prop_map(Op::Create),
        n().prop_map(Op::OpenOrCreate),
        (n(), 0..10_000u16, 0..9000u16).prop_map(|(n, at, len)| Op::Write(n, at, len)),
        (n(), 0..10_000u16).prop_map(|(n, len)| Op::SetLen(n, len)),
        n().prop_map(Op::Read),
        n().prop_map(Op::Mkdir),
        n().prop_map(Op::Mkdir),
        n().prop_map(Op::Rmdir),
        n().prop_map(Op::Unlink),
        (n(), n()).prop_map(|(a, b)| Op::Rename(a, b)),
        (n(), n()).prop_map(|(a, b)| Op::Symlink(a, b)),
        (n(), 0..0o1000u16).prop_map(|(n, mode)| Op::Chmod(n, mode)),
        n().prop_map(Op::Lstat),
        n().prop_map(Op::Stat),
        n().prop_map(Op::List),
        n().prop_map(Op::RemoveTree),
        n().prop_map(Op::Sync),
    ];
    prop::collection::vec(op, 1..60)
}

/// What can be compared of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Bytes(Vec<u8>),
    Meta(FileKind, u64, u32, u64),
    Names(BTreeMap<String, FileKind>),
    Error(Option<i32>, std::io::ErrorKind),
}

fn said<T>(result: std::io::Result<T>, say: impl FnOnce(T) -> Said) -> Said {
    match result {
        Ok(value) => say(value),
        Err(e) => Said::Error(e.raw_os_error(), e.kind()),
    }
}

fn meta(meta: crate::engine::FileMeta) -> Said {
    // What directories and links take, and how many names they have, each file system counts in its own way.
    let size = if meta.kind == FileKind::File { (meta.size_bytes, meta.nlink) } else { (0, 0) };
    let mode = if meta.kind == FileKind::Other { 0 } else { meta.mode };
    Said::Meta(meta.kind, size.0, mode, size.1)
}

fn apply(disk: &Disk, base: &Path, op: &Op) -> Said {
    let nothing = |()| Said::Nothing;
    match op {
        Op::Create(n) => said(disk.create_new(&path(base, *n), 0o640), |_| Said::Nothing),
        Op::OpenOrCreate(n) => said(disk.open_or_create(&path(base, *n), 0o600), |_| Said::Nothing),
        Op::Write(n, at, len) => {
            let bytes = vec![u8::try_from(at % 251).unwrap() + 1; usize::from(*len)];
            said(disk.open_rw(&path(base, *n)).and_then(|file| file.write_all_at(&bytes, u64::from(*at))), nothing)
        }
        Op::SetLen(n, len) => {
            said(disk.open_rw(&path(base, *n)).and_then(|file| file.set_len(u64::from(*len))), nothing)
        }
        Op::Read(n) => said(disk.read(&path(base, *n), 15_000), Said::Bytes),
        Op::Mkdir(n) => said(disk.mkdir(&path(base, *n), 0o755), nothing),
        Op::Rmdir(n) => said(disk.rmdir(&path(base, *n)), nothing),
        Op::Unlink(n) => said(disk.unlink(&path(base, *n)), nothing),
        Op::Rename(a, b) => said(disk.rename(&path(base, *a), &path(base, *b)), nothing),
        Op::Symlink(to, n) => {
            let (to, n) = (Path::new(PATHS[usize::from(*to) % PATHS.len()]), path(base, *n));
            match &disk.sim {
                Some(sim) => said(sim.symlink(to, &n), nothing),
                None => said(std::os::unix::fs::symlink(to, &n), nothing),
            }
        }
        Op::Chmod(n, mode) => said(disk.chmod(&path(base, *n), u32::from(*mode) | 0o700), nothing),
        Op::Lstat(n) => said(disk.lstat(&path(base, *n)), meta),
        Op::Stat(n) => said(disk.stat(&path(base, *n)), meta),
        Op::List(n) => said(disk.read_dir(&path(base, *n)), |entries| {
            Said::Names(entries.into_iter().map(|entry| (entry.name, entry.kind)).collect())
        }),
        Op::RemoveTree(n) => said(disk.remove_tree(&path(base, *n)), nothing),
        Op::Sync(n) => said(disk.fsync_dir(&path(base, *n)), nothing),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Every operation answers as the kernel does, with the same error, and leaves what it leaves.
    #[test]
    fn it_does_what_the_kernel_does(ops in ops()) {
        let folder = tempfile::tempdir().unwrap();
        let sim = Sim::new(1_000);
        let (real, simulated) = (Disk::real(), Disk::simulated(&sim, None));
        for op in &ops {
            let (want, got) = (apply(&real, folder.path(), op), apply(&simulated, Path::new("/"), op));
            prop_assert_eq!(&got, &want, "{:?} of {:?}", op, ops);
        }
    }

    /// A disk that has lost things is a tree all the same, and what was synced is on it.
    #[test]
    fn a_crash_keeps_what_was_synced(before in ops(), after in ops(), seed: u64) {
        let sim = Sim::new(1_000);
        let disk = Disk::simulated(&sim, None);
        let root = Path::new("/");
        before.iter().for_each(|op| drop(apply(&disk, root, op)));
        disk.syncfs(root).unwrap();
        let synced = contents(&sim);
        prop_assert_eq!(&contents(&sim.crash(Survival::Nothing, seed)), &synced);
        after.iter().for_each(|op| drop(apply(&disk, root, op)));
        let now = contents(&sim);
        if !after.iter().any(|op| matches!(op, Op::Sync(_))) {
            prop_assert_eq!(&contents(&sim.crash(Survival::Nothing, seed)), &synced);
        }
        prop_assert_eq!(&contents(&sim.crash(Survival::Everything, seed)), &now);
        for survival in [Survival::Journal, Survival::Anything] {
            let (once, again) = (sim.crash(survival, seed), sim.crash(survival, seed));
            prop_assert_eq!(contents(&once), contents(&again), "the same seed, the same disk");
        }
    }
}

/// All names and what they hold, without times.
fn contents(sim: &Sim) -> BTreeMap<PathBuf, (FileKind, Vec<u8>)> {
    fn walk(disk: &Disk, dir: &Path, into: &mut BTreeMap<PathBuf, (FileKind, Vec<u8>)>) {
        for entry in disk.read_dir(dir).unwrap() {
            let path = dir.join(&entry.name);
            match entry.kind {
                FileKind::Dir => walk(disk, &path, into),
                FileKind::File => drop(into.insert(path.clone(), (entry.kind, disk.read(&path, 1 << 20).unwrap()))),
                FileKind::Other => {}
            }
            into.entry(path).or_insert((entry.kind, Vec::new()));
        }
    }
    let mut all = BTreeMap::new();
    walk(&Disk::simulated(sim, None), Path::new("/"), &mut all);
    all
}

/// What a synced directory has given away lies in a new directory that nobody synced; once that one has its name, it is there.
#[test]
fn a_rename_into_a_new_directory_is_not_lost_by_a_sync_of_the_old_one() {
    let sim = Sim::new(1_000);
    let disk = Disk::simulated(&sim, None);
    disk.mkdir(Path::new("/old"), 0o755).unwrap();
    disk.syncfs(Path::new("/")).unwrap();
    write(&disk, "/old/f", b"x").sync(SyncScope::All).unwrap();
    disk.mkdir(Path::new("/new"), 0o755).unwrap();
    disk.rename(Path::new("/old/f"), Path::new("/new/f")).unwrap();
    disk.fsync_dir(Path::new("/old")).unwrap();
    assert_eq!(contents(&sim.crash(Survival::Everything, 0)), contents(&sim));
}

fn write(disk: &Disk, path: &str, bytes: &[u8]) -> crate::engine::DiskFile {
    let file = disk.open_or_create(Path::new(path), 0o644).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// Crashes with many seeds; what the file `/f` holds after each, `None` where it is not there.
fn outcomes(sim: &Sim, survival: Survival) -> std::collections::BTreeSet<Option<Vec<u8>>> {
    let file = |seed| contents(&sim.crash(survival, seed)).remove(Path::new("/f")).map(|(_, bytes)| bytes);
    (0..400).map(file).collect()
}

#[test]
fn a_rename_may_survive_without_its_data_unless_that_was_synced() {
    for synced in [false, true] {
        let sim = Sim::new(0);
        let disk = Disk::simulated(&sim, None);
        let file = write(&disk, "/t", b"new");
        if synced {
            file.sync(SyncScope::All).unwrap();
        }
        disk.rename(Path::new("/t"), Path::new("/f")).unwrap();
        for survival in [Survival::Journal, Survival::Anything] {
            let found = outcomes(&sim, survival);
            assert!(found.contains(&None) && found.contains(&Some(b"new".to_vec())), "{survival:?} {found:?}");
            let torn = found.iter().flatten().any(|bytes| bytes != b"new");
            assert_eq!(torn, !synced, "{survival:?} {found:?}");
        }
        disk.fsync_dir(Path::new("/")).unwrap();
        assert!(!outcomes(&sim, Survival::Anything).contains(&None));
    }
}

#[test]
fn pages_are_lost_one_by_one() {
    let sim = Sim::new(0);
    let disk = Disk::simulated(&sim, None);
    let file = write(&disk, "/f", &[1; 12_288]);
    disk.syncfs(Path::new("/")).unwrap();
    file.write_all_at(&[2; 8192], 2048).unwrap();
    let torn = outcomes(&sim, Survival::Journal);
    let pages = |bytes: &Vec<u8>| [bytes[2048], bytes[4096], bytes[8192]];
    let shapes: std::collections::BTreeSet<_> = torn.iter().flatten().map(pages).collect();
    assert_eq!(shapes.len(), 8, "each of three pages old or new: {shapes:?}");
}

#[test]
fn a_name_that_came_back_into_a_directory_is_not_older_than_its_removal() {
    let sim = Sim::new(0);
    let disk = Disk::simulated(&sim, None);
    let dir = |name: &str| disk.mkdir(Path::new(name), 0o755).unwrap();
    dir("/a");
    dir("/b");
    disk.syncfs(Path::new("/")).unwrap();
    write(&disk, "/b/x", b"1");
    disk.rename(Path::new("/b/x"), Path::new("/a/y")).unwrap();
    disk.fsync_dir(Path::new("/a")).unwrap();
    for seed in 0..100 {
        let left = contents(&sim.crash(Survival::Anything, seed));
        assert!(left.contains_key(Path::new("/a/y")) && !left.contains_key(Path::new("/b/x")), "{left:?}");
    }
}

#[test]
fn plans_come_true() {
    let sim = Sim::new(0);
    let disk = Disk::simulated(&sim, None);
    sim.set_plan(Plan { fail: [(1, Errno::DQUOT)].into(), crash_before_change: Some(2), ..Plan::default() });
    disk.mkdir(Path::new("/a"), 0o755).unwrap();
    assert_eq!(disk.mkdir(Path::new("/b"), 0o755).unwrap_err().raw_os_error(), Some(libc::EDQUOT));
    disk.mkdir(Path::new("/c"), 0o755).unwrap();
    assert_eq!(sim.counts(), (3, 2), "what failed by plan is no change");
    assert!(disk.mkdir(Path::new("/d"), 0o755).is_err() && sim.is_dead());
    assert!(disk.lstat(Path::new("/a")).is_err(), "nothing answers without power");
    let next = sim.crash(Survival::Everything, 0);
    assert_eq!(contents(&next).len(), 2);

    next.set_plan(Plan { capacity_bytes: Some(8192), ..Plan::default() });
    let disk = Disk::simulated(&next, None);
    let file = disk.create_new(Path::new("/f"), 0o644).unwrap();
    assert_eq!(file.write_all_at(&[1; 12_288], 0).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!((file.meta().unwrap().size_bytes, disk.usage(Path::new("/")).unwrap().avail), (8192, 0));
    disk.unlink(Path::new("/f")).unwrap();
    assert_eq!(disk.usage(Path::new("/")).unwrap().avail, 8192);

    next.set_plan(Plan { fail_changes_from: Some((1, Errno::ROFS)), ..Plan::default() });
    disk.mkdir(Path::new("/g"), 0o755).unwrap();
    assert_eq!(disk.rmdir(Path::new("/g")).unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert!(disk.lstat(Path::new("/g")).is_ok());
}

#[test]
fn locks_exclude_handles_and_end_with_them() {
    let sim = Sim::new(0);
    let disk = Disk::simulated(&sim, None);
    disk.mkdir(Path::new("/d"), 0o755).unwrap();
    let open = || disk.open_dir(Path::new("/d")).unwrap();
    let (a, b) = (open(), open());
    a.try_flock(LockMode::Shared).unwrap();
    b.try_flock(LockMode::Shared).unwrap();
    assert_eq!(a.try_flock(LockMode::Exclusive).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(b);
    a.try_flock(LockMode::Exclusive).unwrap();
    let c = open();
    assert!(c.try_flock(LockMode::Shared).is_err());
    a.release_flock().unwrap();
    c.try_flock(LockMode::Exclusive).unwrap();
    assert!(
        Disk::simulated(&sim.crash(Survival::Everything, 0), None)
            .open_dir(Path::new("/d"))
            .unwrap()
            .try_flock(LockMode::Exclusive)
            .is_ok()
    );
}
