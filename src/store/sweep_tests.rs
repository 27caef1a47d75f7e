//! What a directory proves, what it does not, and how often the disk is asked.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::layout::{Layout, bad_chunk_name, temp_name};
use super::super::test_support::{config, make_base};
use super::super::{CheckSwitches, Datastore, DatastoreConfig, MissingReason, SyncLevel};
use super::*;
use crate::clock::{Clock, EpochSecs};
use crate::engine::{EngineChoice, EngineConfig, EngineCounters, Fault};

/// Chunks in each directory of these tests: as many as make it worth reading.
const EACH: u16 = 10;

/// A datastore with chunk files of twelve bytes, `EACH` in each of its first directories.
struct World {
    base: PathBuf,
    _folder: tempfile::TempDir,
    digests: Vec<Digest>,
}

impl World {
    fn new(directories: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = make_base(folder.path());
        let digests = (0..directories).flat_map(|prefix| (0..EACH).map(move |n| digest(prefix, n))).collect();
        let world = Self { base, _folder: folder, digests };
        for digest in &world.digests {
            world.make(digest);
        }
        world
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        Layout::new(&self.base).chunk(digest)
    }

    fn make(&self, digest: &Digest) {
        make_file(&self.path(digest));
    }

    fn beside(&self, digest: &Digest, name: &str) -> PathBuf {
        self.path(digest).with_file_name(name)
    }

    async fn open(&self, engine: Engine) -> Datastore {
        self.open_with(engine, CheckSwitches::default()).await
    }

    async fn open_with(&self, engine: Engine, checks: CheckSwitches) -> Datastore {
        let config = DatastoreConfig { checks, ..config(&self.base, SyncLevel::None) };
        Datastore::open(config, engine, Clock::manual(EpochSecs(0))).await.unwrap()
    }

    async fn check(&self, store: &Datastore) -> Checked {
        let before = store.engine().counters();
        let mut heard = Vec::new();
        let report = store.check_sorted_chunks_with(&self.digests, |n| heard.push(n)).await.unwrap();
        assert!(heard.is_sorted() && heard.last() == Some(&self.digests.len()), "{heard:?}");
        assert_eq!(report.checked, self.digests.len());
        Checked { report, before, after: store.engine().counters() }
    }
}

/// A report, and what it cost.
struct Checked {
    report: CheckReport,
    before: EngineCounters,
    after: EngineCounters,
}

impl Checked {
    fn statx(&self) -> u64 {
        self.after.statx - self.before.statx
    }

    fn listings(&self) -> u64 {
        self.after.disk.directories_read - self.before.disk.directories_read
    }

    fn by_name(&self) -> u64 {
        self.after.disk.checks_by_name - self.before.disk.checks_by_name
    }
}

fn digest(prefix: u16, n: u16) -> Digest {
    let mut digest = Digest([0xab; 32]);
    digest.0[..2].copy_from_slice(&prefix.to_be_bytes());
    digest.0[2..4].copy_from_slice(&n.to_be_bytes());
    digest
}

fn make_file(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create_new(path).unwrap().set_len(12).unwrap();
}

fn engines() -> Vec<Engine> {
    let choices = [EngineChoice::Auto, EngineChoice::Uring, EngineChoice::Threads, EngineChoice::Sync];
    let start = |choice| Engine::start("sweep", &EngineConfig { choice, ..EngineConfig::default() });
    let mut engines = Vec::new();
    for choice in choices {
        match start(choice) {
            Ok(engine) => engines.push(engine),
            Err(e) => println!("skipped: {choice:?}: {e}"),
        }
    }
    assert!(engines.len() >= 3);
    engines
}

fn faulty(fault: impl Fault + 'static) -> Engine {
    Engine::start_on("sweep", &EngineConfig::default(), Disk::with_fault(Arc::new(fault))).unwrap()
}

#[tokio::test]
async fn a_sweep_reads_each_directory_once_and_asks_for_no_inode() {
    let world = World::new(100);
    for engine in engines() {
        let store = world.open(engine).await;
        let checked = world.check(&store).await;
        assert!(checked.report.all_present());
        if !store.engine().may_choose() {
            // One that is forced is forced for every chunk.
            assert_eq!((checked.listings(), checked.statx(), checked.by_name()), (0, 1000, 0));
            store.engine().shutdown();
            continue;
        }
        assert_eq!((checked.report.by_name, checked.report.directories), (1000, 100));
        assert_eq!((checked.listings(), checked.statx(), checked.by_name()), (100, 0, 1000));
        // Besides the chunks, `.` and `..`.
        assert_eq!(checked.after.disk.names_read - checked.before.disk.names_read, 1200);
        store.engine().shutdown();
    }
}

#[tokio::test]
async fn what_a_directory_does_not_prove_is_asked_for() {
    let world = World::new(5);
    let at = |prefix, n| world.path(&digest(prefix, n));
    let remove = |prefix, n| std::fs::remove_file(at(prefix, n)).unwrap();
    // A directory in its place; a link to a chunk, one to nothing, one to itself.
    remove(0, 1);
    std::fs::create_dir(at(0, 1)).unwrap();
    remove(0, 2);
    symlink(at(0, 3), at(0, 2)).unwrap();
    remove(0, 4);
    symlink("nothing", at(0, 4)).unwrap();
    remove(0, 5);
    symlink(at(0, 5), at(0, 5)).unwrap();
    // Gone, with everything beside it that has a similar name.
    remove(1, 6);
    let gone = digest(1, 6);
    for name in [
        bad_chunk_name(&gone, 0),
        temp_name(&gone.to_string(), "AbC123"),
        gone.to_string().to_uppercase(),
        gone.to_string()[..63].to_owned(),
        format!("{gone}0"),
    ] {
        make_file(&world.beside(&gone, &name));
    }
    // Under the right name in the wrong directory.
    make_file(&at(2, 0).with_file_name(gone.to_string()));
    // No directory at all, and one behind a link.
    std::fs::remove_dir_all(at(3, 0).parent().unwrap()).unwrap();
    let (there, elsewhere) = (at(4, 0).parent().unwrap().to_owned(), world.base.join("elsewhere"));
    Disk::real().rename(&there, &elsewhere).unwrap();
    symlink(&elsewhere, &there).unwrap();
    for engine in engines().into_iter().filter(Engine::may_choose) {
        let store = world.open(engine).await;
        let checked = world.check(&store).await;
        let mut missing = vec![
            (digest(0, 1), MissingReason::NotRegular),
            (digest(0, 4), MissingReason::Absent),
            (gone, MissingReason::Absent),
        ];
        missing.extend((0..EACH).map(|n| (digest(3, n), MissingReason::Absent)));
        assert_eq!(checked.report.missing, missing, "in the order asked");
        assert_eq!(checked.report.unchecked, [(digest(0, 5), rustix::io::Errno::LOOP)]);
        assert_eq!((checked.report.by_name, checked.by_name()), (6 + 9 + 10 + 10, 35));
        assert_eq!(checked.statx(), 4 + 1 + 10, "{}", store.engine().kind());
        store.engine().shutdown();
    }
}

/// Sizes: a name says nothing about them. Who wants them asked for at finish switches one of the other checks off.
#[tokio::test]
async fn a_short_file_is_found_by_stat_only() {
    let world = World::new(2);
    std::fs::File::options().write(true).open(world.path(&digest(1, 1))).unwrap().set_len(11).unwrap();
    let all = CheckSwitches::default();
    for (checks, statx) in
        [(all, 0), (CheckSwitches { append: false, ..all }, 20), (CheckSwitches { preflight: false, ..all }, 20)]
    {
        let store = world.open_with(Engine::start("sweep", &EngineConfig::default()).unwrap(), checks).await;
        let checked = world.check(&store).await;
        assert_eq!(checked.statx(), statx);
        assert_eq!(checked.report.all_present(), statx == 0, "{checks:?}");
        store.engine().shutdown();
        drop(store);
        super::super::test_support::closed(&world.base).await;
    }
}

/// Fails one operation on one directory.
#[derive(Debug)]
struct Refuse(&'static str, &'static str, i32);

impl Fault for Refuse {
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        let refused = op == self.0 && path == Some(self.1.as_ref());
        if refused { Err(io::Error::from_raw_os_error(self.2)) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_is_asked_for_chunk_by_chunk() {
    for (op, errno) in [("open", libc::EACCES), ("open", libc::EMFILE), ("open", libc::ENOENT), ("readdir", libc::EIO)]
    {
        let world = World::new(3);
        let store = world.open(faulty(Refuse(op, "0001", errno))).await;
        let checked = world.check(&store).await;
        assert!(checked.report.all_present(), "{op} {errno}");
        assert_eq!((checked.statx(), checked.report.by_name), (u64::from(EACH), 20), "{op} {errno}");
    }
}

/// When the second directory is opened, a chunk comes into the first, which has been read by then.
#[derive(Debug)]
struct ComesLate(PathBuf);

impl Fault for ComesLate {
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        if op == "open" && path == Some("0001".as_ref()) {
            make_file(&self.0);
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_name_that_comes_after_the_listing_is_there() {
    let world = World::new(2);
    let late = world.path(&digest(0, 7));
    std::fs::remove_file(&late).unwrap();
    let store = world.open(faulty(ComesLate(late))).await;
    let checked = world.check(&store).await;
    assert!(checked.report.all_present(), "{:?}", checked.report.missing);
    assert_eq!((checked.statx(), checked.report.by_name), (1, 19));
}

/// Of sparse directories a large sweep tries some first.
#[tokio::test]
async fn a_sweep_of_one_chunk_a_directory_asks_for_each_in_one_way() {
    let mut world = World::new(0);
    world.digests = (0..5000).map(|prefix| digest(prefix, 0)).collect();
    for digest in &world.digests {
        world.make(digest);
    }
    let store = world.open(Engine::start("sweep", &EngineConfig::default()).unwrap()).await;
    let checked = world.check(&store).await;
    assert!(checked.report.all_present());
    // How many depends on whether the disk was waited for; each chunk is asked for in one way.
    assert!(checked.report.directories >= 16);
    assert_eq!(checked.report.by_name, checked.report.directories);
    assert_eq!((checked.statx() + checked.by_name(), checked.listings()), (5000, checked.report.directories as u64));
}
