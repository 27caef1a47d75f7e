//! Verification of small real datastores, with faults on demand.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::chunks::Bench;
use super::*;
use crate::clock::{Clock, EpochSecs};
use crate::engine::{ComputePool, Disk, Engine, EngineConfig, Fault};
use crate::format::blob::{self, Compression};
use crate::format::dynamic_index::DynamicEntry;
use crate::format::manifest::{CryptMode, Manifest, ManifestFile, VerifyOutcome, VerifyState};
use crate::store::layout::Layout;
use crate::store::{Datastore, DatastoreConfig, Inserted, SyncLevel};
use crate::sync::Mutex;
use crate::task::{Registry, Task};
use crate::types::{AuthId, ChunkSize, Digest, Namespace, Snapshot, Upid};

mod hostile;
mod partial;
mod resume;

const T0: i64 = 1_717_597_418;
const ARCHIVE: &str = "root.pxar.didx";

/// Counts the openings of files by their name, and spoils some of them.
#[derive(Default)]
struct Watcher {
    opened: Mutex<HashMap<String, u64>>,
    spoil: Mutex<Option<(String, Spoil)>>,
    hold: AtomicBool,
    /// Nothing may look at what has this in its path.
    denied: OnceLock<String>,
    read_only: AtomicBool,
    /// What happens when something with this in its path is looked at after a chunk was opened.
    when: OnceLock<(String, Box<dyn Fn() + Send + Sync>)>,
    chunk_seen: AtomicBool,
    /// Openings of chunks from the next one on, after which they are held up.
    hold_behind: AtomicUsize,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// Operations that a read-only file system refuses.
const CHANGES: &[&str] =
    &["create", "mkdir", "rename", "unlink", "rmdir", "utimensat", "ftruncate", "pwrite", "chmod", "fchmod"];

#[derive(Clone, Copy, Debug)]
enum Spoil {
    /// Every opening fails with this error number.
    Always(i32),
    /// Only the first.
    Once(i32),
}

impl Watcher {
    fn spoil(&self, digest: &Digest, how: Spoil) {
        *self.spoil.lock() = Some((digest.to_string(), how));
    }

    /// Chunk files opened since the last call, with how often.
    fn chunks_opened(&self) -> Vec<(String, u64)> {
        let mut opened: Vec<_> = self.opened.lock().drain().filter(|(name, _)| name.len() == 64).collect();
        opened.sort();
        opened
    }
}

impl Fault for Watcher {
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        let has = |part: &str| path.is_some_and(|path| path.to_string_lossy().contains(part));
        if self.denied.get().is_some_and(|part| has(part)) {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        if self.read_only.load(Ordering::SeqCst) && CHANGES.contains(&op) {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        if let Some((_, act)) = self.when.get().filter(|(part, _)| self.chunk_seen.load(Ordering::SeqCst) && has(part))
        {
            act();
        }
        let Some(name) = path.filter(|_| op == "open").and_then(|path| path.file_name()?.to_str()) else {
            return Ok(());
        };
        *self.opened.lock().entry(name.to_owned()).or_default() += 1;
        if name.len() == 64 {
            self.chunk_seen.store(true, Ordering::SeqCst);
        }
        if name.len() == 64
            && self.hold_behind.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) == Ok(1)
        {
            self.hold.store(true, Ordering::SeqCst);
        }
        while self.hold.load(Ordering::SeqCst) && name.len() == 64 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let mut spoil = self.spoil.lock();
        let Some((_, how)) = spoil.as_ref().filter(|(spoilt, _)| spoilt == name) else { return Ok(()) };
        let errno = match *how {
            Spoil::Always(errno) => errno,
            Spoil::Once(errno) => {
                *spoil = None;
                errno
            }
        };
        Err(io::Error::from_raw_os_error(errno))
    }
}

struct World {
    store: Datastore,
    tasks: Registry,
    compute: ComputePool,
    watcher: Arc<Watcher>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("store");
        for (path, mode) in [(base.clone(), 0o755), (base.join(".chunks"), 0o750)] {
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let watcher = Arc::new(Watcher::default());
        let engine = Engine::start_on("test", &EngineConfig::default(), Disk::with_fault(watcher.clone())).unwrap();
        let config =
            DatastoreConfig { sync_level: SyncLevel::None, ..DatastoreConfig::new("store1".parse().unwrap(), base) };
        let clock = Clock::manual(EpochSecs(T0));
        let store = Datastore::open(config, engine, clock.clone()).await.unwrap();
        let tasks = Registry::open(&dir.path().join("tasks"), clock).unwrap();
        Self { store, tasks, compute: ComputePool::new(2).unwrap(), watcher, _dir: dir }
    }

    fn chunk_path(&self, digest: &Digest) -> PathBuf {
        Layout::new(self.store.base_path()).chunk(digest)
    }

    async fn insert(&self, seed: u64) -> Inserted {
        let plain = plain(seed);
        let size = ChunkSize::new(plain.len() as u64).unwrap();
        let blob: Bytes = blob::encode(&plain, Compression::None).into();
        self.store.insert_chunk(Digest::of(&plain), blob, size).await.unwrap()
    }

    /// A finished snapshot whose archive consists of `seeds`; `listed` may tell lies about it.
    async fn backup_with(
        &self,
        group: &str,
        hours: i64,
        seeds: &[u64],
        listed: impl Fn(&mut ManifestFile),
    ) -> Snapshot {
        let snapshot = Snapshot::new(group.parse().unwrap(), EpochSecs(T0 + 3600 * hours)).unwrap();
        let lease = self.store.begin_backup(&Namespace::root(), &snapshot, &auth(), false).await.unwrap();
        let writer = lease.create_dynamic(&ARCHIVE.parse().unwrap()).await.unwrap();
        let (mut end, mut entries, mut bytes) = (0, Vec::new(), Vec::new());
        let mut made = HashMap::new();
        for seed in seeds {
            if !made.contains_key(seed) {
                self.insert(*seed).await;
                made.insert(*seed, (plain(*seed).len() as u64, digest(*seed)));
            }
            let (size, digest) = made[seed];
            end += size;
            bytes.extend_from_slice(&end.to_le_bytes());
            bytes.extend_from_slice(&digest.0);
            entries.push(DynamicEntry { end, digest });
        }
        writer.append(0, entries).await.unwrap();
        let closed = writer.close(seeds.len() as u64, Digest::of(&bytes)).await.unwrap();
        let conf = blob::encode(b"memory: 512\n", Compression::None);
        lease.store_blob(&"vm.conf.blob".parse().unwrap(), conf.clone().into()).await.unwrap();
        let mut manifest = Manifest::new(&snapshot);
        for (name, size, csum) in
            [(ARCHIVE, closed.size_bytes, closed.csum), ("vm.conf.blob", conf.len() as u64, Digest::of(&conf))]
        {
            let filename = name.parse().unwrap();
            let mut file = ManifestFile { filename, crypt_mode: CryptMode::None, size, csum };
            listed(&mut file);
            manifest.add_file(file).unwrap();
        }
        lease.finish(manifest.to_blob(), self.store.watch_taken().stay().await).await.unwrap();
        snapshot
    }

    async fn backup(&self, group: &str, hours: i64, seeds: &[u64]) -> Snapshot {
        self.backup_with(group, hours, seeds, |_| {}).await
    }

    fn verification(&self, scope: Scope, filter: Filter) -> Verification {
        Verification::job(self.store.clone(), self.compute.clone(), scope, filter)
    }

    async fn task(&self) -> Task {
        self.tasks.start("verify", None, &auth()).await.unwrap()
    }

    /// Verifies everything; the result of the task and its log.
    async fn verify(&self, filter: Filter) -> (Result<(), String>, Vec<String>) {
        self.verify_part(filter, Part::All).await
    }

    /// The same, and reads only some of the chunks.
    async fn verify_part(&self, filter: Filter, part: Part) -> (Result<(), String>, Vec<String>) {
        let scope = Scope::Namespace { ns: Namespace::root(), max_depth: None };
        let task = self.task().await;
        let upid = task.upid().clone();
        let result = Verification { part, ..self.verification(scope, filter) }.run(&task).await;
        task.end(result.clone()).await;
        (result, self.log(&upid))
    }

    fn log(&self, upid: &Upid) -> Vec<String> {
        let text = std::fs::read_to_string(self.tasks.log_path(upid)).unwrap();
        text.lines().map(|line| line[27..].to_owned()).collect()
    }

    async fn state(&self, snapshot: &Snapshot) -> Option<VerifyOutcome> {
        let loaded = self.store.load_manifest(&Namespace::root(), snapshot).await.unwrap();
        loaded.manifest.verify_state().map(|found| found.state)
    }

    /// Names in the directory of a chunk.
    fn beside(&self, digest: &Digest) -> Vec<String> {
        let dir = std::fs::read_dir(self.chunk_path(digest).parent().unwrap()).unwrap();
        let mut names: Vec<String> = dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(crate::sync::violations(), 0, "a lock was held while the disk worked");
        }
    }
}

fn auth() -> AuthId {
    "tester@pbs!bench".parse().unwrap()
}

fn plain(seed: u64) -> Vec<u8> {
    format!("chunk {seed}, ").bytes().cycle().take(3000 + usize::try_from(seed).unwrap()).collect()
}

fn digest(seed: u64) -> Digest {
    Digest::of(&plain(seed))
}

#[expect(clippy::disallowed_methods, reason = "a test damages what no part of the daemon would")]
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[100] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

const FAILED: &str = "verification failed - please check the log for details";

#[tokio::test(flavor = "multi_thread")]
async fn each_distinct_chunk_is_read_once_in_a_task() {
    let world = World::new().await;
    let all: Vec<u64> = (0..40).collect();
    let first = world.backup("host/a", 0, &all).await;
    world.backup("host/a", 1, &[&all[..], &all[5..20]].concat()).await;
    world.backup("vm/1", 0, &all[10..]).await;
    world.watcher.chunks_opened();
    let (result, log) = world.verify(Filter::default()).await;
    assert_eq!(result, Ok(()), "{log:#?}");
    let mut wanted: Vec<(String, u64)> = all.iter().map(|seed| (digest(*seed).to_string(), 1)).collect();
    wanted.sort();
    assert_eq!(world.watcher.chunks_opened(), wanted);
    assert_eq!(world.state(&first).await, Some(VerifyOutcome::Ok));
    let began: Vec<&str> = log.iter().filter_map(|line| line.strip_prefix("verify store1:")).collect();
    let name = |hours: i64| EpochSecs(T0 + 3600 * hours).to_utc_name().unwrap();
    assert_eq!(began, [format!("host/a/{}", name(1)), format!("host/a/{}", name(0)), format!("vm/1/{}", name(0))]);
    // Again: nothing is left to do, and nothing is read.
    let (result, log) = world.verify(Filter::default()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(log.iter().filter(|line| line.ends_with("(recently verified)")).count(), 3, "{log:#?}");
    assert_eq!(world.watcher.chunks_opened(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_chunk_is_set_aside_once_and_fails_every_snapshot_that_names_it() {
    let world = World::new().await;
    let (a, b) = (world.backup("host/a", 0, &[1, 2, 3]).await, world.backup("host/b", 0, &[3, 4]).await);
    let whole = world.backup("host/c", 0, &[1, 4]).await;
    flip(&world.chunk_path(&digest(3)));
    std::fs::remove_file(world.chunk_path(&digest(2))).unwrap();
    let mut watch = Some(world.store.watch_taken());
    let (result, log) = world.verify(Filter::default()).await;
    assert_eq!(result, Err(FAILED.to_owned()));
    for (snapshot, state) in [(&a, VerifyOutcome::Failed), (&b, VerifyOutcome::Failed), (&whole, VerifyOutcome::Ok)] {
        assert_eq!(world.state(snapshot).await, Some(state), "{snapshot}");
    }
    assert_eq!(world.beside(&digest(3)), [format!("{}.0.bad", digest(3))]);
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!(lines("can't verify chunk, load failed"), 2, "{log:#?}");
    assert_eq!(lines("corrupted chunk renamed to"), 1);
    assert_eq!(lines(&format!("chunk {} was marked as corrupt", digest(3))), 1);
    let end = log.iter().position(|line| line == "Failed to verify the following snapshots/groups:").unwrap();
    assert_eq!(log[end + 1..], [format!("\t{a}"), format!("\t{b}"), format!("TASK ERROR: {FAILED}")]);
    // Backups that run are told, and the next upload is written whatever lies there by then.
    let taken = watch.take().unwrap().taken();
    let crate::store::Taken::These(mut taken) = taken else { panic!("few were taken") };
    taken.sort();
    let mut wanted = vec![digest(2), digest(3)];
    wanted.sort();
    assert_eq!(taken, wanted);
    assert!(matches!(world.insert(3).await, Inserted::New { .. }));
    // The state was found by a verification, so it is not looked at again by itself.
    assert_eq!(world.verify(Filter::default()).await.0, Ok(()));
    world.insert(2).await;
    assert_eq!(world.verify(Filter::NONE).await.0, Ok(()));
    assert_eq!(world.state(&a).await, Some(VerifyOutcome::Ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_disk_is_not_corruption() {
    // Error number, what becomes of the snapshot's state.
    for (errno, state) in [(libc::EIO, Some(VerifyOutcome::Failed)), (libc::EACCES, None), (libc::ESTALE, None)] {
        let world = World::new().await;
        let snapshot = world.backup("host/a", 0, &[1, 2, 3]).await;
        world.watcher.spoil(&digest(2), Spoil::Always(errno));
        let (result, log) = world.verify(Filter::default()).await;
        assert_eq!(result, Err(FAILED.to_owned()), "{errno}: {log:#?}");
        assert!(log.iter().any(|line| line.contains(&format!("unable to verify chunk {}", digest(2)))), "{log:#?}");
        assert_eq!(world.state(&snapshot).await, state, "{errno}");
        assert_eq!(world.beside(&digest(2)), [digest(2).to_string()], "nothing is renamed");
        *world.watcher.spoil.lock() = None;
        // What the medium did not give back is written anew; of the others nothing is known.
        let healed = matches!(world.insert(2).await, Inserted::New { .. });
        assert_eq!(healed, errno == libc::EIO);
        assert_eq!(world.verify(Filter::NONE).await.0, Ok(()));
        assert_eq!(world.state(&snapshot).await, Some(VerifyOutcome::Ok));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_once_is_read_again() {
    let world = World::new().await;
    let snapshot = world.backup("host/a", 0, &[1, 2, 3]).await;
    world.watcher.spoil(&digest(2), Spoil::Once(libc::EIO));
    assert_eq!(world.verify(Filter::default()).await.0, Ok(()));
    assert_eq!(world.state(&snapshot).await, Some(VerifyOutcome::Ok));
    // Absent when it is first looked for, there the second time: a chunk that was being written anew.
    world.watcher.spoil(&digest(3), Spoil::Once(libc::ENOENT));
    let (result, log) = world.verify(Filter::NONE).await;
    assert_eq!(result, Ok(()));
    assert!(log.iter().any(|line| line.contains("was wrong at first and right when it was read again")), "{log:#?}");
    assert_eq!(log.last().unwrap(), "TASK WARNINGS: 1");
    assert_eq!(world.state(&snapshot).await, Some(VerifyOutcome::Ok));
    assert_eq!(world.beside(&digest(3)), [digest(3).to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_an_index_misdescribes_stays_where_it_is() {
    let world = World::new().await;
    let good = world.backup("host/a", 0, &[1, 2]).await;
    let lies = world
        .backup_with("host/b", 0, &[1, 2], |file| {
            if file.filename.as_str() == ARCHIVE {
                file.crypt_mode = CryptMode::Encrypt;
            }
        })
        .await;
    let (result, log) = world.verify(Filter::default()).await;
    assert_eq!(result, Err(FAILED.to_owned()));
    let mismatches =
        log.iter().filter(|l| l.starts_with("chunk CryptMode None does not match index CryptMode Encrypt"));
    assert_eq!(mismatches.count(), 2, "{log:#?}");
    assert_eq!(world.state(&good).await, Some(VerifyOutcome::Ok));
    assert_eq!(world.state(&lies).await, Some(VerifyOutcome::Failed));
    assert_eq!(world.beside(&digest(1)), [digest(1).to_string()]);
    // A length that contradicts the content is the index's fault as well.
    let store = &world.store;
    let task = world.task().await;
    let mut bench = Bench::new(store, &world.compute, &task);
    let claim = super::verdict::Claim { digest: digest(1), size_bytes: 7, encrypted: false };
    let stored = store.load_chunk(&claim.digest).await.unwrap();
    assert!(super::verdict::judge(&stored, &claim).verdict.unwrap().is_some());
    bench.inode_order_min = 0;
    let lease = store.begin_reader(&Namespace::root(), &good).await.unwrap();
    let index = lease.open_index(&ARCHIVE.parse().unwrap()).await.unwrap();
    assert_eq!(bench.verify_chunks(&index, false).await.unwrap().errors(), 0, "in the order of inodes too");
    drop(bench);
    task.end(Ok(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_verification_leaves_the_state_as_it_was() {
    let world = World::new().await;
    let snapshot = world.backup("host/a", 0, &[1, 2, 3]).await;
    let scope = Scope::Snapshot(Namespace::root(), snapshot.clone());
    world.watcher.hold.store(true, Ordering::SeqCst);
    let job = world.verification(scope, Filter::default());
    assert_eq!(job.worker(), ("verify_snapshot", format!("store1:/host/a/{:08X}", snapshot.time().0)));
    let worker = job.worker();
    let closing = std::future::pending();
    let started = job.start(&world.tasks, worker, &auth(), closing, ()).await.unwrap();
    while world.watcher.opened.lock().keys().all(|name| name.len() != 64) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(world.tasks.abort(&started.upid));
    assert_eq!(started.outcome.await.unwrap(), Err("task aborted".to_owned()));
    world.watcher.hold.store(false, Ordering::SeqCst);
    assert_eq!(world.log(&started.upid).last().unwrap(), "TASK ERROR: task aborted");
    assert_eq!(world.state(&snapshot).await, None);
    // Nothing is locked any more.
    let done = async {
        while world.store.remove_snapshot(&Namespace::root(), &snapshot).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), done).await.expect("the lock is let go");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_or_gone_is_skipped_and_what_a_check_has_marked_is_not() {
    let world = World::new().await;
    let snapshot = world.backup("host/a", 0, &[1]).await;
    let next = Snapshot::new(snapshot.group().clone(), EpochSecs(T0 + 7200)).unwrap();
    let running = world.store.begin_backup(&Namespace::root(), &next, &auth(), false).await.unwrap();
    let (result, log) = world.verify(Filter::default()).await;
    assert_eq!(result, Ok(()), "{log:#?}");
    assert!(log.iter().any(|line| line.starts_with(&format!("SKIPPED: verify store1:{next}"))), "{log:#?}");
    running.abandon().await.unwrap();
    let mark = async |worker: &str| {
        let upid = format!("UPID:pbs1:00001A2B:0012C3D4:00000005:66607C8A:{worker}:store1:root@pam:");
        let state = VerifyState { state: VerifyOutcome::Failed, upid };
        let edit = move |manifest: &mut Manifest| manifest.set_verify_state(state);
        world.store.update_manifest(&Namespace::root(), &snapshot, edit).await
    };
    mark("verify").await.unwrap();
    assert_eq!(world.verify(Filter::default()).await.0, Ok(()));
    assert_eq!(world.state(&snapshot).await, Some(VerifyOutcome::Failed), "skipped");
    mark("backup").await.unwrap();
    let as_the_original = Filter { recheck_marked: false, ..Filter::default() };
    assert_eq!(world.verify(as_the_original).await.0, Ok(()));
    assert_eq!(world.state(&snapshot).await, Some(VerifyOutcome::Failed), "skipped");
    assert_eq!(world.verify(Filter::default()).await.0, Ok(()));
    assert_eq!(world.state(&snapshot).await, Some(VerifyOutcome::Ok), "healed meanwhile, and now it says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_the_asker_may_not_verify_are_left_out_and_benchmarks_always() {
    let world = World::new().await;
    let ns = world.store.create_namespace(&Namespace::root(), "a").await.unwrap();
    let snapshot = world.backup("vm/9", 0, &[1]).await;
    world.backup("vm/10", 0, &[1]).await;
    world.backup("host/benchmark", 0, &[1]).await;
    let seen = async |permit: Permit, from: &Namespace| {
        let scope = Scope::Namespace { ns: from.clone(), max_depth: None };
        let task = world.task().await;
        let upid = task.upid().clone();
        let job = Verification { permit, ..world.verification(scope, Filter::NONE) };
        job.run(&task).await.unwrap();
        task.end(Ok(())).await;
        let log = world.log(&upid);
        let groups = log.iter().filter_map(|line| line.strip_prefix("verify group store1:")?.split(' ').next());
        groups.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(seen(everybody(), &Namespace::root()).await, ["vm/9", "vm/10"]);
    let owner = auth();
    let own: Permit = Arc::new(move |ns, of| ns.is_root() && *of == owner);
    assert_eq!(seen(own, &Namespace::root()).await, ["vm/9", "vm/10"]);
    let nobody: Permit = Arc::new(|_, _| false);
    assert_eq!(seen(nobody, &Namespace::root()).await, [""; 0]);
    assert_eq!(seen(everybody(), &ns).await, [""; 0]);
    // A group that is not there is told, and so is a snapshot.
    for (scope, ends) in [
        (Scope::Group(Namespace::root(), "vm/11".parse().unwrap()), "ENOENT: No such file or directory"),
        (Scope::Group(ns.clone(), snapshot.group().clone()), "ENOENT: No such file or directory"),
    ] {
        let task = world.task().await;
        let result = world.verification(scope, Filter::NONE).run(&task).await;
        assert_eq!(result, Err(ends.to_owned()));
        task.end(result).await;
    }
}

#[tokio::test]
async fn tasks_are_called_as_recorded() {
    let world = World::new().await;
    let (root, ns): (Namespace, Namespace) = (Namespace::root(), "prod/db".parse().unwrap());
    let snapshot: Snapshot = "vm/101/2024-06-05T14:23:45Z".parse().unwrap();
    let group = snapshot.group().clone();
    for (scope, ty, id) in [
        (Scope::Namespace { ns: root.clone(), max_depth: None }, "verify", "store1"),
        (Scope::Namespace { ns: ns.clone(), max_depth: Some(0) }, "verify", "store1:prod/db"),
        (Scope::Group(root.clone(), group.clone()), "verify_group", "store1:/vm/101"),
        (Scope::Snapshot(root.clone(), snapshot.clone()), "verify_snapshot", "store1:/vm/101/666074F1"),
        (Scope::Snapshot(ns.clone(), snapshot.clone()), "verify_snapshot", "store1:ns/prod/ns/db/vm/101/666074F1"),
    ] {
        assert_eq!(world.verification(scope, Filter::NONE).worker(), (ty, id.to_owned()));
    }
    let new = Verification::worker_of_new(&world.store, &root, &snapshot);
    assert_eq!(new, ("verify", "store1:vm/101/666074F1".to_owned()));
    assert_eq!(Verification::worker_of_job(&world.store, "daily"), ("verificationjob", "store1:daily".to_owned()));
}
