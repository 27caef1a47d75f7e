//! The runner and its workloads, small and in memory: what is counted is what was asked for, and nothing stays behind.
#![expect(clippy::disallowed_methods, reason = "a test makes files behind the store's back")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cold;
use super::job::{IoEngine, Job, SyncLevel, Workload};
use super::live::Phase;
use super::outcome::JobOutcome;
use super::run::{Unwatched, Watch, Watched, run, run_on};
use super::scratch::{path_of, work_path_of};
use crate::engine::{Disk, Fault};
use crate::sync::Mutex;
use crate::types::Digest;

/// A job over 64 chunks of 4 KiB, or images of 8 MiB.
pub(super) fn job(directory: &Path, workload: Workload) -> Job {
    Job {
        name: "job".to_owned(),
        wave: 0,
        group_id: 0,
        given: Vec::new(),
        directory: directory.to_owned(),
        filename: None,
        workdir: None,
        keep: false,
        existing: false,
        workload,
        bs: 4096,
        size: 8 << 20,
        nrfiles: 64,
        iodepth: 16,
        ioengine: IoEngine::Auto,
        workers: 8,
        numjobs: 1,
        runtime: None,
        time_based: false,
        ramp_time: Duration::ZERO,
        rate: None,
        rate_iops: None,
        loops: 1,
        randseed: 1,
        cold: false,
        logs: crate::bench::log::LogOptions::default(),
        first_run: 1,
        sorted: false,
        sync: SyncLevel::None,
        compress_percentage: 50,
        unchanged: false,
        checks: true,
        garbage_percent: 25,
        gc_method: Default::default(),
        again: false,
        group_reporting: false,
        percentiles: Vec::new(),
    }
}

fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn names(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Runs one job to a good end; its runs.
fn good(job: Job) -> Vec<JobOutcome> {
    let dir = job.directory.clone();
    let (before, keep) = (names(&dir), job.keep);
    let outcomes = run(&[job], &Unwatched).unwrap();
    for outcome in &outcomes {
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        assert!(!outcome.interrupted);
        assert!(outcome.datastore["host"]["kernel"].is_string(), "{:?}", outcome.datastore);
    }
    assert!(keep || names(&dir).iter().all(|name| before.contains(name)), "{:?}", names(&dir));
    outcomes
}

fn ios(outcomes: &[JobOutcome]) -> Vec<[u64; 3]> {
    outcomes.iter().map(|outcome| outcome.stats.ios).collect()
}

/// Everything below a directory: what it is, when it was changed, and the digest of its content.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (bool, i64, i64, Digest)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    for path in names(dir) {
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
        if meta.is_dir() {
            found.extend(tree(&path));
        }
        found.insert(path, (meta.is_dir(), meta.mtime(), meta.mtime_nsec(), Digest::of(&content)));
    }
    found
}

#[test]
fn checks_of_appends_are_as_many_as_chunks_with_each_engine() {
    let dir = memory();
    // Laid out once, and used by all.
    let mut job = job(dir.path(), Workload::KnownAppend);
    (job.keep, job.nrfiles, job.numjobs, job.loops) = (true, 100, 3, 2);
    for engine in [IoEngine::SerialStd, IoEngine::Sync, IoEngine::Threads, IoEngine::Auto] {
        job.ioengine = engine;
        let outcomes = good(job.clone());
        assert_eq!(ios(&outcomes), [[200, 0, 0]; 3], "{engine:?}");
        let statx = outcomes[0].datastore["counters"]["statx"].as_u64().unwrap();
        assert_eq!(statx, if engine == IoEngine::SerialStd { 0 } else { 600 }, "{engine:?}");
        assert!(outcomes[0].notes.iter().any(|line| line.starts_with("storage: ")), "{:?}", outcomes[0].notes);
    }
    job.keep = false;
    good(job);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_finish_asks_for_each_chunk_once() {
    let dir = memory();
    for (engine, sorted, nrfiles) in
        [(IoEngine::Auto, true, 10_000), (IoEngine::Threads, false, 500), (IoEngine::SerialStd, true, 5000)]
    {
        let mut job = job(dir.path(), Workload::KnownFinish);
        (job.ioengine, job.sorted, job.nrfiles) = (engine, sorted, nrfiles);
        let outcomes = good(job);
        assert_eq!(ios(&outcomes), [[nrfiles, 0, 0]], "{engine:?}");
        assert!(outcomes[0].started_ms > 0 && !outcomes[0].runtime.is_zero());
    }
}

#[test]
fn chunks_are_inserted_and_read_as_often_as_asked() {
    let dir = memory();
    for sync in [SyncLevel::None, SyncLevel::File, SyncLevel::Filesystem] {
        let mut job = job(dir.path(), Workload::ChunkInsert);
        (job.sync, job.numjobs, job.loops, job.compress_percentage) = (sync, 2, 2, 0);
        let outcomes = good(job);
        assert_eq!(ios(&outcomes), [[0, 128, 0]; 2], "{sync:?}");
        assert_eq!(outcomes[0].stats.bytes, [0, 128 * (4096 + 12), 0]);
    }
    let mut job = job(dir.path(), Workload::ChunkRead);
    (job.numjobs, job.loops) = (2, 3);
    let outcomes = good(job);
    assert_eq!(ios(&outcomes), [[192, 0, 0]; 2]);
    assert!(outcomes[0].stats.bytes[0] > 192 * 2048);
}

#[test]
fn snapshots_are_verified_whole() {
    let dir = memory();
    let mut job = job(dir.path(), Workload::Verify);
    (job.nrfiles, job.loops, job.numjobs) = (300, 2, 2);
    let outcomes = good(job);
    assert_eq!(ios(&outcomes), [[600, 0, 0]; 2], "two snapshots, twice, by each");
    assert_eq!(outcomes[0].stats.bytes[0], 600 * 4096);
}

#[test]
fn a_collection_removes_the_garbage_of_each_round() {
    use crate::store::GcMethod;
    let dir = memory();
    for (method, garbage) in [(GcMethod::Memory, 25), (GcMethod::AccessTime, 50), (GcMethod::Memory, 100)] {
        let mut job = job(dir.path(), Workload::Gc);
        (job.gc_method, job.garbage_percent, job.nrfiles, job.loops) = (method, garbage, 1000, 2);
        let outcomes = good(job);
        let removed = u64::from(garbage) * 10 * 2;
        // That method puts a chunk of its own there, to see whether access times are kept.
        let probes = if method == GcMethod::AccessTime { 2 } else { 0 };
        assert_eq!(ios(&outcomes), [[2000 + probes - removed, 0, removed]], "{method:?}");
        let operations = if method == GcMethod::AccessTime { 2.0 } else { 0.0 };
        // The chunk that such a run puts there itself is asked too.
        let told = outcomes[0].datastore["gc"]["inode_operations_per_live_chunk"].as_f64().unwrap();
        assert!((told - operations).abs() < 0.01, "{method:?}: {told}");
        let read = &outcomes[0].datastore["gc"]["directories_read"];
        assert_eq!(*read, 65_536, "nobody asked to leave anything out");
    }
}

#[test]
fn the_original_way_collects_and_verifies_the_same() {
    let dir = memory();
    let mut collected = job(dir.path(), Workload::Gc);
    (collected.ioengine, collected.garbage_percent, collected.nrfiles) = (IoEngine::SerialStd, 25, 1000);
    let outcomes = good(collected);
    assert_eq!(ios(&outcomes), [[750, 0, 250]]);
    let told = &outcomes[0].datastore["gc"];
    assert_eq!((&told["method"], &told["inode_operations_per_live_chunk"]), (&"original".into(), &2.0.into()));
    assert_eq!((&told["access_times_written"], &told["directories_swept"]), (&750.into(), &65_536.into()));
    let mut verified = job(dir.path(), Workload::Verify);
    (verified.ioengine, verified.nrfiles) = (IoEngine::SerialStd, 300);
    for by_inode in [false, true] {
        verified.sorted = by_inode;
        let outcomes = good(verified.clone());
        assert_eq!(ios(&outcomes), [[300, 0, 0]]);
        assert!(outcomes[0].datastore["verify"]["cores_bytes_per_sec"].as_u64().unwrap() > 0);
    }
}

#[test]
fn logs_are_numbered_by_run_and_hold_what_was_counted() {
    let (dir, logs) = (memory(), memory());
    let mut job = job(dir.path(), Workload::KnownAppend);
    let name = logs.path().join("log");
    (job.numjobs, job.first_run) = (2, 3);
    job.logs.iops = Some(name.display().to_string());
    good(job);
    for number in [3, 4] {
        let text = std::fs::read_to_string(logs.path().join(format!("log_iops.{number}.log"))).unwrap();
        assert_eq!(text.lines().count(), 4, "64 chunks in batches of 16: {text}");
        assert!(text.lines().all(|line| line.ends_with(", 16, 0, 0")), "{text}");
    }
}

#[test]
fn backups_and_restores_go_through_a_daemon() {
    let dir = memory();
    let mut job = job(dir.path(), Workload::Backup);
    (job.numjobs, job.loops) = (2, 2);
    let outcomes = good(job.clone());
    // Two blocks of 4 MiB, and none of the second round was there.
    assert_eq!(ios(&outcomes), [[0, 4, 0]; 2]);
    assert_eq!(outcomes[0].stats.bytes, [0, 16 << 20, 0]);
    (job.workload, job.size) = (Workload::Restore, (8 << 20) + 5);
    let outcomes = good(job);
    assert_eq!(ios(&outcomes), [[6, 0, 0]; 2]);
    assert_eq!(outcomes[0].stats.bytes[0], 2 * ((8 << 20) + 5));
}

#[test]
fn unchanged_backups_become_a_table() {
    let dir = memory();
    let mut job = job(dir.path(), Workload::Backup);
    (job.unchanged, job.loops) = (true, 2);
    let work = memory();
    job.workdir = Some(work.path().to_owned());
    job.keep = true;
    let outcomes = good(job.clone());
    // What is not the datastore lies elsewhere, and a later run finds both again.
    assert!(work_path_of(&job).join("stream").exists() && path_of(&job).join("store").exists());
    assert_eq!(names(&path_of(&job)).len(), 2, "the datastore and the stamp");
    job.keep = false;
    good(job.clone());
    assert!(names(work.path()).is_empty());
    let table = outcomes[0].datastore["unchanged"].as_array().unwrap();
    assert_eq!(table.len(), 2);
    let chunks: u64 = table.iter().map(|row| row["chunks"].as_u64().unwrap()).sum();
    for row in table {
        for column in ["on", "off", "original"] {
            assert_eq!(row[column]["runs_s"].as_array().unwrap().len(), 2, "{row}");
        }
        let checks = |column: &str| row[column]["checks"].as_u64().unwrap();
        assert_eq!(checks("off"), 0, "{row}");
        // Each chunk with its append, and at the end; none here comes twice.
        assert_eq!(checks("original"), 2 * row["chunks"].as_u64().unwrap(), "{row}");
        assert!(checks("on") > 0, "{row}");
    }
    // Those with checks count.
    assert_eq!(outcomes[0].stats.ios, [0, 2 * chunks, 0]);
    let shown = outcomes[0].notes.join("\n");
    assert!(shown.contains("directory stream") && shown.contains("original's checks"), "{shown}");
}

#[test]
fn an_existing_datastore_is_read_and_stays_as_it_is() {
    let dir = memory();
    let mut made = job(dir.path(), Workload::ChunkRead);
    (made.keep, made.loops) = (true, 1);
    good(made.clone());
    let store = path_of(&made).join("store");
    // A crashed run's temporary file, which opening for work would remove, and the status of a collection.
    for name in [".ringvault-tmp-x", ".gc-status"] {
        std::fs::write(store.join(name), b"{}").unwrap();
    }
    let before = tree(&store);
    for workload in [Workload::KnownAppend, Workload::KnownFinish, Workload::ChunkRead] {
        for engine in [IoEngine::Auto, IoEngine::SerialStd] {
            let mut job = job(&store, workload);
            (job.existing, job.ioengine, job.nrfiles) = (true, engine, 1000);
            if workload == Workload::ChunkRead && engine == IoEngine::SerialStd {
                continue;
            }
            let outcomes = good(job);
            assert_eq!(ios(&outcomes), [[64, 0, 0]], "all that are there");
        }
    }
    for workload in [Workload::ChunkInsert, Workload::Gc, Workload::Verify, Workload::Backup, Workload::Restore] {
        let mut job = job(&store, workload);
        job.existing = true;
        let said = run(&[job], &Unwatched).unwrap_err().to_string();
        assert!(said.contains("only read"), "{workload:?}: {said}");
    }
    let said = run(&[job(&store, Workload::KnownAppend)], &Unwatched).unwrap_err().to_string();
    assert!(said.contains("is a datastore"), "{said}");
    assert!(before == tree(&store), "something was changed");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_made() {
    let dir = memory();
    let refused = |edit: &dyn Fn(&mut Job)| {
        let mut job = job(dir.path(), Workload::ChunkInsert);
        edit(&mut job);
        let said = run(&[job], &Unwatched).unwrap_err().to_string();
        assert!(names(dir.path()).is_empty(), "{said}");
        said
    };
    for (edit, part) in [
        ((&|job: &mut Job| job.nrfiles = 1 << 40) as &dyn Fn(&mut Job), "not enough space"),
        (&|job| (job.nrfiles, job.workload) = (1 << 40, Workload::KnownAppend), "GiB are needed"),
        (&|job| job.directory.push("missing"), "No such file"),
        (&|job| job.directory = "/dev/null".into(), "no directory"),
        (&|job| job.existing = true, "only read"),
        (&|job| (job.existing, job.workload) = (true, Workload::KnownAppend), "is no datastore"),
        (&|job| job.ioengine = IoEngine::SerialStd, "known-append, known-finish, gc and verify"),
        (&|job| (job.sorted, job.workload) = (true, Workload::Verify), "sorted is how serial-std"),
        (&|job| job.nrfiles = 0, "nrfiles"),
        (&|job| job.bs = 0, "bs: "),
        (&|job| job.bs = 17 << 20, "16 MiB"),
        (&|job| (job.numjobs, job.workload) = (2, Workload::Gc), "numjobs"),
        (&|job| (job.rate, job.workload) = (Some(1), Workload::Gc), "rate"),
        (&|job| job.unchanged = true, "unchanged"),
        (&|job| (job.time_based, job.workload) = (true, Workload::Backup), "loops"),
        (&|job| (job.size, job.workload) = (0, Workload::Restore), "size"),
    ] {
        let said = refused(edit);
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// Stops a run as Ctrl-C does, once it has counted something.
#[derive(Default)]
struct Stopping(Mutex<Vec<std::thread::JoinHandle<()>>>);

impl Watch for Stopping {
    fn wave_begins(&self, runs: &[Watched]) {
        let live = runs[0].live.clone();
        self.0.lock().push(std::thread::spawn(move || {
            while live.glance().stats.ios == [0; 3] && live.clock().0 != Phase::Done {
                std::thread::sleep(Duration::from_millis(5));
            }
            live.stop();
        }));
    }

    fn wave_ends(&self, runs: &[Watched]) {
        assert!(runs.iter().all(|run| run.live.clock().0 == Phase::Done));
        self.0.lock().drain(..).for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn an_interrupted_run_tells_what_it_has_and_leaves_nothing_behind() {
    let dir = memory();
    for workload in [
        Workload::KnownAppend,
        Workload::KnownFinish,
        Workload::ChunkInsert,
        Workload::ChunkRead,
        Workload::Verify,
        Workload::Gc,
        Workload::Restore,
    ] {
        let mut job = job(dir.path(), workload);
        (job.time_based, job.runtime) = (true, Some(Duration::from_secs(3600)));
        let outcomes = run(&[job], &Stopping::default()).unwrap();
        let [outcome] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert!(outcome.interrupted && outcome.error.is_none(), "{workload:?}: {:?}", outcome.error);
        assert!(outcome.stats.ios.iter().sum::<u64>() > 0, "{workload:?}");
        assert!(names(dir.path()).is_empty(), "{workload:?}: {:?}", names(dir.path()));
    }
}

/// A disk that takes so many writes and no more.
#[derive(Debug)]
struct FullAfter(AtomicU64);

impl Fault for FullAfter {
    fn before(&self, op: &'static str, _: Option<&Path>) -> io::Result<()> {
        let writes = matches!(op, "write" | "pwrite" | "rename");
        if writes && self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            return Err(io::Error::from_raw_os_error(28));
        }
        Ok(())
    }
}

#[test]
fn a_disk_that_fails_ends_its_wave_with_an_error_and_the_next_one_runs() {
    let dir = memory();
    let mut insert = job(dir.path(), Workload::ChunkInsert);
    insert.iodepth = 1;
    let mut beside = job(dir.path(), Workload::KnownAppend);
    (beside.name, beside.time_based, beside.runtime) = ("beside".into(), true, Some(Duration::from_secs(3600)));
    let mut next = job(dir.path(), Workload::KnownFinish);
    (next.name, next.wave) = ("next".into(), 1);
    let disk = Disk::with_fault(Arc::new(FullAfter(AtomicU64::new(40))));
    let outcomes = run_on(&[insert, beside, next], &Unwatched, disk).unwrap();
    let error = outcomes[0].error.as_ref().expect("an error").to_string();
    assert!(error.contains("No space left"), "{error}");
    assert!((1..64).contains(&outcomes[0].stats.ios[1]), "{:?}", outcomes[0].stats.ios);
    assert!(outcomes[1].interrupted && outcomes[1].error.is_none());
    assert_eq!(outcomes[2].stats.ios, [64, 0, 0]);
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

#[test]
fn rates_limit_what_is_done() {
    let dir = memory();
    let mut job = job(dir.path(), Workload::KnownAppend);
    (job.time_based, job.runtime, job.rate_iops, job.iodepth) = (true, Some(Duration::from_millis(500)), Some(40), 10);
    // The first batch at once, and no more than 20 in the half second after it.
    let done = ios(&good(job.clone()))[0][0];
    assert!((10..=30).contains(&done), "{done}");
    (job.workload, job.rate_iops, job.rate) = (Workload::ChunkInsert, None, Some(4108 * 40));
    job.compress_percentage = 0;
    let done = ios(&good(job))[0][1];
    assert!((1..=22).contains(&done), "{done}");
}

#[test]
fn a_ramp_does_not_count() {
    let dir = memory();
    let mut job = job(dir.path(), Workload::KnownAppend);
    job.ramp_time = Duration::from_secs(3600);
    let outcomes = good(job.clone());
    assert_eq!((outcomes[0].stats.ios, outcomes[0].runtime), ([0; 3], Duration::ZERO));
    (job.ramp_time, job.time_based, job.runtime) = (Duration::from_millis(50), true, Some(Duration::from_millis(50)));
    let outcomes = good(job);
    assert!(outcomes[0].runtime >= Duration::from_millis(50) && outcomes[0].stats.ios[0] > 0);
}

#[test]
fn caches_are_dropped_where_that_is_permitted() {
    let dir = memory();
    let mut job = job(dir.path(), Workload::KnownAppend);
    job.cold = true;
    if let Err(e) = cold::check() {
        let said = run(&[job], &Unwatched).unwrap_err().to_string();
        assert!(said.contains(&e.to_string()), "{said}");
        eprintln!("skipped: {e}");
        return;
    }
    job.loops = 2;
    let outcomes = good(job);
    assert_eq!(ios(&outcomes), [[128, 0, 0]]);
    let cache = outcomes[0].datastore["cache"].as_str().unwrap();
    assert!(cache.starts_with("cold: ") && cache.contains("dropped before each loop"), "{cache}");
}

#[test]
fn a_ring_that_is_not_had_says_why() {
    let dir = memory();
    let mut job = job(dir.path(), Workload::KnownAppend);
    job.ioengine = IoEngine::Uring;
    let outcomes = run(&[job], &Unwatched).unwrap();
    match &outcomes[0].error {
        None => assert_eq!(outcomes[0].datastore["counters"]["statx_ring"], 64),
        Some(e) => assert!(e.to_string().contains("engine uring was asked for"), "{e}"),
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn an_existing_datastore_whose_garbage_somebody_collects_is_left_alone() {
    let dir = memory();
    let mut made = job(dir.path(), Workload::ChunkRead);
    made.keep = true;
    good(made.clone());
    let store = path_of(&made).join("store");
    let script = "import fcntl,os,struct,sys\n\
                  fd=os.open(sys.argv[1],os.O_RDWR)\n\
                  fcntl.fcntl(fd,fcntl.F_SETLK,struct.pack('hhqqi',fcntl.F_WRLCK,0,0,0,0))\n\
                  print('held',flush=True)\n\
                  sys.stdin.read()\n";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(store.join(".lock"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    let mut job = job(&store, Workload::KnownAppend);
    job.existing = true;
    let outcomes = run(&[job.clone()], &Unwatched).unwrap();
    let said = outcomes[0].error.as_ref().expect("an error").to_string();
    assert!(said.contains("another process uses this datastore"), "{said}");
    drop(child.stdin.take());
    child.wait().unwrap();
    good(job);
}
