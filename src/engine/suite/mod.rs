//! What every engine must show, whichever makes its checks.

mod random;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::{
    Class, DirFd, Engine, EngineChoice, EngineConfig, FileKind, FileStat, Stamp, StatBatch, StatName, StatResult,
};
use crate::clock::EpochSecs;
use crate::error::Kind;

/// Every engine that this machine can run, its name first. Says which one is left out, and why.
fn engines() -> Vec<(&'static str, Engine)> {
    let all = [
        ("auto", EngineChoice::Auto),
        ("uring", EngineChoice::Uring),
        ("threads", EngineChoice::Threads),
        ("sync", EngineChoice::Sync),
    ];
    let start = |(name, choice)| match Engine::start("suite", &EngineConfig { choice, workers: 16, io_threads: 4 }) {
        Ok(engine) => Some((name, engine)),
        Err(e) if choice == EngineChoice::Uring => {
            println!("skipped: engine uring: {e}");
            None
        }
        Err(e) => panic!("engine {name} does not start: {e}"),
    };
    all.into_iter().filter_map(start).collect()
}

/// A folder with files to look at.
struct Tree {
    folder: tempfile::TempDir,
    dir: Arc<DirFd>,
}

impl Tree {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = Arc::new(DirFd::from(std::os::fd::OwnedFd::from(std::fs::File::open(folder.path()).unwrap())));
        Self { folder, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, size_bytes: u64) {
        make_file(&self.path(name), size_bytes);
    }

    fn batch<S: AsRef<str>>(&self, class: Class, names: &[S]) -> StatBatch {
        let names = names.iter().map(|name| StatName::new(name.as_ref()).unwrap()).collect();
        StatBatch { dir: Arc::clone(&self.dir), names, class, force_sync: false, stamps: false }
    }
}

#[expect(clippy::disallowed_methods, reason = "makes what the engines look at")]
fn make_file(path: &Path, size_bytes: u64) {
    std::fs::File::create(path).unwrap().set_len(size_bytes).unwrap();
}

fn found(kind: FileKind, size_bytes: u64) -> StatResult {
    Ok(FileStat { kind, size_bytes, accessed: EpochSecs(0), stamp: Stamp::default() })
}

/// Answers without access times, which looking at a file may change.
fn timeless(results: &[StatResult]) -> Vec<StatResult> {
    results.iter().map(|result| result.map(|stat| FileStat { accessed: EpochSecs(0), ..stat })).collect()
}

#[tokio::test]
async fn the_access_time_is_that_of_the_file() {
    let tree = Tree::new();
    for (name, secs) in [("old", 1_000_000_000), ("late", 4_000_000_000), ("before", -7)] {
        tree.file(name, 1);
        let time = rustix::fs::Timespec { tv_sec: secs, tv_nsec: 999_999_999 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, tree.path(name), &times, rustix::fs::AtFlags::empty()).unwrap();
        for (engine_name, engine) in engines() {
            for force_sync in [false, true] {
                let batch = StatBatch { force_sync, ..tree.batch(Class::Sweep, &[name]) };
                let reply = engine.stat(batch).await.unwrap();
                assert_eq!(reply.results[0].unwrap().accessed, EpochSecs(secs), "{engine_name} {name}");
            }
        }
    }
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_names() {
    let tree = Tree::new();
    let names: Vec<String> = (0..300).map(|i| format!("f{i}")).collect();
    for (i, name) in names.iter().enumerate().filter(|(i, _)| i % 3 != 0) {
        tree.file(name, i as u64);
    }
    for (engine_name, engine) in engines() {
        for class in [Class::Interactive, Class::Sweep] {
            for force_sync in [false, true] {
                let batch = StatBatch { force_sync, ..tree.batch(class, &names) };
                let reply = engine.stat(batch).await.unwrap();
                assert_eq!(reply.results.len(), names.len());
                for (i, result) in timeless(&reply.results).into_iter().enumerate() {
                    let expected = if i % 3 == 0 { Err(Errno::NOENT) } else { found(FileKind::File, i as u64) };
                    assert_eq!(result, expected, "{engine_name} {class:?} {force_sync} name {i}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_kind_of_thing_is_told_apart() {
    let tree = Tree::new();
    tree.file("empty", 0);
    tree.file("five", 5);
    tree.file("large", 1 << 40);
    std::fs::create_dir(tree.path("dir")).unwrap();
    tree.file("dir/inside", 7);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, tree.path(name)).unwrap();
    link("five", "to-file");
    link("dir", "to-dir");
    link("nothing", "to-nothing");
    link("loop-b", "loop-a");
    link("loop-a", "loop-b");
    let size_of_dir = std::fs::metadata(tree.path("dir")).unwrap().len();
    let table = [
        ("empty", found(FileKind::File, 0)),
        ("five", found(FileKind::File, 5)),
        ("large", found(FileKind::File, 1 << 40)),
        ("dir", found(FileKind::Dir, size_of_dir)),
        ("dir/inside", found(FileKind::File, 7)),
        ("dir/../five", found(FileKind::File, 5)),
        ("fifo", found(FileKind::Other, 0)),
        ("to-file", found(FileKind::File, 5)),
        ("to-dir", found(FileKind::Dir, size_of_dir)),
        ("to-dir/inside", found(FileKind::File, 7)),
        ("to-nothing", Err(Errno::NOENT)),
        ("loop-a", Err(Errno::LOOP)),
        ("five/below", Err(Errno::NOTDIR)),
        ("missing", Err(Errno::NOENT)),
        ("missing/below", Err(Errno::NOENT)),
        ("", Err(Errno::NOENT)),
        (".", found(FileKind::Dir, std::fs::metadata(tree.path(".")).unwrap().len())),
    ];
    let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    for (engine_name, engine) in engines() {
        // More than once: the second time each way of asking finds the caches full.
        for round in 0..4 {
            let reply = engine.stat(tree.batch(Class::Interactive, &names)).await.unwrap();
            for (result, (name, expected)) in timeless(&reply.results).iter().zip(&table) {
                assert_eq!(result, expected, "{engine_name} {name:?} round {round}");
            }
        }
    }
}

#[tokio::test]
async fn errors_that_are_not_absence_keep_their_number() {
    let tree = Tree::new();
    tree.file("file", 1);
    // A file in the place of the batch's directory, and a name longer than the file system takes: both work as root
    // too.
    let not_a_dir = Arc::new(DirFd::from(std::os::fd::OwnedFd::from(std::fs::File::open(tree.path("file")).unwrap())));
    for (engine_name, engine) in engines() {
        let batch = StatBatch { dir: Arc::clone(&not_a_dir), ..tree.batch(Class::Sweep, &["a", "b"]) };
        let reply = engine.stat(batch).await.unwrap();
        assert_eq!(reply.results, [Err(Errno::NOTDIR), Err(Errno::NOTDIR)], "{engine_name}");
    }
    // Who may not pass through a directory learns so. Root may, and has to skip this.
    if rustix::process::geteuid().is_root() {
        println!("skipped: EACCES cannot be provoked as root");
        return;
    }
    std::fs::create_dir(tree.path("shut")).unwrap();
    tree.file("shut/file", 1);
    let mode = |bits| std::os::unix::fs::PermissionsExt::from_mode(bits);
    std::fs::set_permissions(tree.path("shut"), mode(0o000)).unwrap();
    for (engine_name, engine) in engines() {
        let reply = engine.stat(tree.batch(Class::Interactive, &["shut/file"])).await.unwrap();
        assert_eq!(reply.results, [Err(Errno::ACCESS)], "{engine_name}");
    }
    std::fs::set_permissions(tree.path("shut"), mode(0o700)).unwrap();
}

#[tokio::test]
async fn counters_are_exact_and_an_empty_batch_counts_as_one() {
    let tree = Tree::new();
    tree.file("here", 20);
    for (engine_name, engine) in engines() {
        let reply = engine.stat(tree.batch::<&str>(Class::Sweep, &[])).await.unwrap();
        assert_eq!(reply.results, []);
        for _ in 0..3 {
            engine.stat(tree.batch(Class::Interactive, &["here", "gone"])).await.unwrap();
        }
        engine.run(|_| ()).await.unwrap();
        let c = engine.counters();
        assert_eq!((c.batches_interactive, c.batches_sweep, c.statx, c.jobs), (3, 1, 6, 1), "{engine_name}");
        assert_eq!(c.statx_inline + c.statx_cached + c.statx_ring + c.statx_pool, 6, "{engine_name}");
        match engine_name {
            "uring" => assert_eq!(c.statx_ring, 6),
            "sync" => assert_eq!(c.statx_inline, 6),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_batch_of_a_hundred_thousand_names_is_one_batch() {
    let tree = Tree::new();
    for i in 0..100 {
        tree.file(&format!("f{i}"), i);
    }
    let names: Vec<String> = (0..100_000).map(|i| format!("f{}", i % 101)).collect();
    for (engine_name, engine) in engines() {
        let reply = engine.stat(tree.batch(Class::Sweep, &names)).await.unwrap();
        for (i, result) in timeless(&reply.results).into_iter().enumerate() {
            let size = (i % 101) as u64;
            let expected = if size == 100 { Err(Errno::NOENT) } else { found(FileKind::File, size) };
            assert_eq!(result, expected, "{engine_name} name {i}");
        }
        let c = engine.counters();
        assert_eq!((c.batches_sweep, c.statx), (1, 100_000), "{engine_name}");
        assert!(c.in_flight_max <= 16, "{engine_name}: a sweep never has more in flight than there are workers");
    }
}

/// However many sweeps there are, and however long their work takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_work_of_sweeps_leaves_a_thread_to_clients() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    for (engine_name, engine) in engines() {
        assert_eq!(engine.sweep_width(), 3, "of four threads");
        let (open_gate, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(crate::sync::Mutex::new(gate));
        let begun = Arc::new(AtomicUsize::new(0));
        let sweeps: Vec<_> = (0..20)
            .map(|i| {
                let (engine, gate, begun) = (engine.clone(), Arc::clone(&gate), Arc::clone(&begun));
                tokio::spawn(async move {
                    let work = move |_: &super::Disk| {
                        begun.fetch_add(1, Ordering::SeqCst);
                        let _ = gate.lock().recv();
                        i
                    };
                    engine.run_for_sweep(work).await.unwrap()
                })
            })
            .collect();
        while begun.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        for n in 0..50 {
            assert_eq!(engine.run(move |_| n).await.unwrap(), n, "{engine_name}");
        }
        assert_eq!(begun.load(Ordering::SeqCst), 3, "{engine_name}");
        drop(open_gate);
        for (i, sweep) in sweeps.into_iter().enumerate() {
            assert_eq!(sweep.await.unwrap(), i, "{engine_name}");
        }
        engine.shutdown();
        assert_eq!(engine.run_for_sweep(|_| ()).await.unwrap_err().kind(), Kind::Closed, "{engine_name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_many_tasks_do_not_mix() {
    let tree = Arc::new(Tree::new());
    for i in 0..200 {
        tree.file(&format!("f{i}"), i);
    }
    for (engine_name, engine) in engines() {
        let tasks: Vec<_> = (0..64u64)
            .map(|task| {
                let (engine, tree) = (engine.clone(), Arc::clone(&tree));
                tokio::spawn(async move {
                    let class = if task % 3 == 0 { Class::Sweep } else { Class::Interactive };
                    for round in 0..20 {
                        let wanted: Vec<u64> = (0..task + 1).map(|i| (i * 7 + task * 31 + round) % 220).collect();
                        let names: Vec<String> = wanted.iter().map(|i| format!("f{i}")).collect();
                        let reply = engine.stat(tree.batch(class, &names)).await.unwrap();
                        let sizes = reply.results.into_iter().map(|result| result.map(|s| s.size_bytes));
                        let expected = wanted.iter().map(|&i| if i < 200 { Ok(i) } else { Err(Errno::NOENT) });
                        assert!(sizes.eq(expected));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let c = engine.counters();
        assert_eq!((c.batches_sweep, c.batches_interactive), (22 * 20, 42 * 20), "{engine_name}");
        assert_eq!(c.statx, (1..=64).sum::<u64>() * 20, "{engine_name}");
        assert_eq!(crate::sync::violations(), 0);
    }
}

#[tokio::test]
async fn an_interactive_batch_overtakes_a_sweep() {
    let tree = Tree::new();
    tree.file("here", 20);
    for (engine_name, engine) in engines() {
        // The machine may be so busy that a sweep is through before we come to ask; then the order shows nothing, and a
        // longer sweep does. An engine that answers in the order of arrival never gets through here.
        let overtook = |attempt: u32| {
            let (engine, tree) = (engine.clone(), &tree);
            async move {
                let many = vec!["here"; 20_000 << attempt];
                let before = engine.counters();
                let sweep = tokio::spawn({
                    let (engine, batch) = (engine.clone(), tree.batch(Class::Sweep, &many));
                    async move { engine.stat(batch).await }
                });
                while engine.counters().statx == before.statx {
                    tokio::task::yield_now().await;
                }
                engine.stat(tree.batch(Class::Interactive, &["here"])).await.unwrap();
                // A batch is counted when its last name is answered.
                let overtaken = engine.counters().batches_sweep == before.batches_sweep;
                assert_eq!(sweep.await.unwrap().unwrap().results.len(), many.len());
                overtaken
            }
        };
        let mut attempt = 0;
        while !overtook(attempt).await {
            attempt += 1;
            assert!(attempt < 8, "{engine_name}: an append waits for the whole sweep");
        }
    }
}

#[tokio::test]
async fn a_dropped_future_leaves_the_engine_whole() {
    let tree = Tree::new();
    tree.file("here", 20);
    for (engine_name, engine) in engines() {
        for _ in 0..50 {
            let stat = engine.stat(tree.batch(Class::Interactive, &["here"; 100]));
            // Polled once, so the batch is with the engine, and then forgotten.
            tokio::select! { biased; _ = stat => {}, () = std::future::ready(()) => {} }
        }
        let reply = engine.stat(tree.batch(Class::Interactive, &["here"])).await.unwrap();
        assert_eq!(timeless(&reply.results), [found(FileKind::File, 20)]);
        engine.shutdown();
        let c = engine.counters();
        assert_eq!((c.batches_interactive, c.statx), (51, 5001), "{engine_name}: forgotten, yet made");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_in_the_middle_answers_what_has_begun_and_refuses_the_rest() {
    let tree = Arc::new(Tree::new());
    tree.file("here", 20);
    for (engine_name, engine) in engines() {
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let (engine, tree) = (engine.clone(), Arc::clone(&tree));
                tokio::spawn(async move {
                    let mut answered = 0u64;
                    loop {
                        match engine.stat(tree.batch(Class::Interactive, &["here"; 50])).await {
                            Ok(reply) => {
                                assert!(reply.results.iter().all(Result::is_ok));
                                answered += 1;
                            }
                            Err(e) => {
                                assert_eq!(e.kind(), Kind::Closed);
                                return answered;
                            }
                        }
                    }
                })
            })
            .collect();
        while engine.counters().batches_interactive < 20 {
            tokio::task::yield_now().await;
        }
        tokio::task::block_in_place(|| engine.shutdown());
        let mut answered = 0;
        for task in asking {
            answered += task.await.unwrap();
        }
        assert_eq!(engine.counters().batches_interactive, answered, "{engine_name}: each one made was answered");
        assert_eq!(engine.run(|_| ()).await.unwrap_err().kind(), Kind::Closed);
        let empty = tree.batch::<&str>(Class::Sweep, &[]);
        assert_eq!(engine.stat(empty).await.unwrap_err().kind(), Kind::Closed);
        engine.shutdown();
    }
}

#[tokio::test]
async fn a_panic_in_file_work_is_an_error_of_its_caller_only() {
    for (engine_name, engine) in engines() {
        for _ in 0..10 {
            let error = engine.run(|_| -> u8 { panic!("no such room") }).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Io, "{engine_name}");
            assert!(error.to_string().ends_with("no such room"), "{error}");
        }
        assert_eq!(engine.run(|_| 7).await.unwrap(), 7, "{engine_name}");
    }
}

#[tokio::test]
async fn the_last_handle_ends_the_engine_inside_a_runtime_too() {
    let tree = Tree::new();
    tree.file("here", 20);
    for (_, engine) in engines() {
        let other = engine.clone();
        drop(engine);
        assert!(other.stat(tree.batch(Class::Sweep, &["here"])).await.is_ok());
        drop(other);
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (workers, io_threads) in [(0, 1), (257, 1), (1, 0)] {
        let config = EngineConfig { choice: EngineChoice::Sync, workers, io_threads };
        assert_eq!(Engine::start("suite", &config).unwrap_err().kind(), Kind::Invalid);
    }
}

/// Refuses io_uring to this thread and those it starts, as a container's profile does.
fn forbid_io_uring(errno: i32) {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn where_io_uring_is_forbidden_threads_do_its_work_and_the_reason_is_told() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        // A filter cannot be taken off again, so it goes on a thread of its own.
        let sandboxed = std::thread::spawn(move || {
            forbid_io_uring(errno);
            let config = EngineConfig { choice: EngineChoice::Uring, ..EngineConfig::default() };
            let error = Engine::start("suite", &config).unwrap_err();
            assert_eq!(error.kind(), Kind::Io);
            assert!(error.to_string().starts_with("engine uring was asked for"), "{error}");

            let engine = Engine::start("suite", &EngineConfig::default()).unwrap();
            assert_eq!(engine.kind(), "threads");
            let reason = engine.fallback_reason().unwrap();
            let knob = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            if matches!(knob.trim(), "" | "0") {
                assert!(error.to_string().contains("seccomp"), "{error}");
                assert!(reason.contains("seccomp"), "{reason}");
            }
            let tree = Tree::new();
            tree.file("here", 20);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let batch = StatBatch { force_sync: true, ..tree.batch(Class::Sweep, &["here", "gone"]) };
            let reply = runtime.block_on(engine.stat(batch)).unwrap();
            assert_eq!(timeless(&reply.results), [found(FileKind::File, 20), Err(Errno::NOENT)]);
            assert_eq!(engine.counters().statx_pool, 2);
        });
        sandboxed.join().unwrap();
    }
}

#[tokio::test]
async fn many_engines_may_start_and_end() {
    let tree = Tree::new();
    tree.file("here", 20);
    for _ in 0..50 {
        for (engine_name, engine) in engines() {
            let reply = engine.stat(tree.batch(Class::Interactive, &["here"; 3])).await.unwrap();
            assert_eq!(timeless(&reply.results), [found(FileKind::File, 20); 3], "{engine_name}");
            engine.detach(|_| ());
            engine.shutdown();
            assert_eq!(engine.counters().jobs, 1, "{engine_name}: what was given before the shutdown is done");
        }
    }
}
