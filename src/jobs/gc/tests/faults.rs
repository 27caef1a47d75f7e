//! Every file operation of a run fails once, or is the last one before the machine stops.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::test_support::{Countdown, closed};

struct Outcome {
    operations: u64,
    failed: bool,
}

/// A run over a store with something of everything, whose operation number `at` fails; then one that nothing happens to.
async fn run_with_fault_at(at: u64, errno: i32, for_good: bool) -> Outcome {
    let fault = Countdown::new(at, errno, for_good);
    let machine = Machine::faulty(fault.clone());
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2, 3]).await;
    scene.back_up(&snapshot(1), &[2, 4]).await;
    for n in [9, 10, 11] {
        scene.insert(n).await;
    }
    std::fs::remove_file(scene.path(&digest(3))).unwrap();
    let bad = scene.path(&digest(2)).with_file_name(format!("{}.0.bad", digest(2)));
    std::fs::write(&bad, "x").unwrap();
    set_accessed(&bad, T0);
    scene.pass_time(30 * DAY);
    fault.arm();
    let (result, log) = scene.try_collect().await;
    let operations = fault.count();
    assert!([1, 2, 4].into_iter().all(|n| scene.has(n)), "operation {at}: {log:?}");
    if result.is_err() {
        assert!(!scene.base.join(".gc-status").exists());
        assert!(log.last().unwrap().starts_with("TASK ERROR: "), "{log:?}");
    }
    let outcome = Outcome { operations, failed: result.is_err() };
    // The next start, on a disk that is well.
    let machine = Machine::new();
    let Scene { dir, base, store, clock, .. } = scene;
    let config = (*store.config()).clone();
    drop(store);
    closed(&base).await;
    let store = Datastore::open(config, machine.engine.clone(), clock.clone()).await.unwrap();
    let tasks = machine.tasks.clone();
    let again = Scene { dir, base, store, clock, tasks, sim: None, manner: Manner::Resume };
    let (result, log) = again.try_collect().await;
    let status = result.unwrap().status;
    assert_eq!((again.chunks(), bad.exists()), ([1, 2, 4].into(), false), "operation {at}: {log:?}");
    assert_eq!((status.disk_chunks, log.last().unwrap().as_str()), (3, "TASK WARNINGS: 1"), "operation {at}");
    outcome
}

async fn fail_everywhere(errno: i32, for_good: bool) {
    let operations = run_with_fault_at(u64::MAX >> 1, errno, for_good).await.operations;
    assert!(operations > 20, "{operations}");
    let mut failures = 0;
    for at in 0..operations {
        failures += u64::from(run_with_fault_at(at, errno, for_good).await.failed);
    }
    // Not all: a live chunk whose size is not known is none, and a status that cannot be kept is told.
    assert!(failures > operations / 2 && failures < operations, "{failures} of {operations}");
}

#[tokio::test]
async fn an_error_at_any_operation_costs_no_chunk() {
    fail_everywhere(libc::EIO, false).await;
}

#[tokio::test]
async fn a_disk_that_goes_at_any_operation_costs_no_chunk() {
    fail_everywhere(libc::EIO, true).await;
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_is_told_with_its_remedy() {
    #[derive(Debug)]
    struct ReadOnly;
    impl Fault for ReadOnly {
        fn before(&self, op: &'static str, path: Option<&Path>) -> std::io::Result<()> {
            let chunk = path.is_some_and(|path| path.ends_with(digest(9).to_string()));
            if op == "unlink" && chunk { Err(std::io::Error::from_raw_os_error(libc::EROFS)) } else { Ok(()) }
        }
    }
    let machine = Machine::faulty(Arc::new(ReadOnly));
    let scene = Scene::new(&machine).await;
    scene.insert(9).await;
    scene.pass_time(30 * DAY);
    let text = scene.try_collect().await.0.unwrap_err().to_string();
    assert!(text.contains(&digest(9).to_string()) && text.contains("mount it read-write"), "{text}");
}

#[tokio::test]
async fn a_directory_that_nobody_may_read_stops_everything_but_for_lost_and_found() {
    #[derive(Debug)]
    struct Denied {
        dir: &'static str,
        armed: AtomicBool,
    }
    impl Fault for Denied {
        fn before(&self, op: &'static str, path: Option<&Path>) -> std::io::Result<()> {
            let is_it = op == "readdir" && path.is_some_and(|path| path.ends_with(self.dir));
            let denied = is_it && self.armed.load(Ordering::SeqCst);
            if denied { Err(std::io::Error::from_raw_os_error(libc::EACCES)) } else { Ok(()) }
        }
    }
    for (dir, removed) in [("lost+found", true), ("host/lost+found", false), ("host/a", false), (".chunks/0001", false)]
    {
        let fault = Arc::new(Denied { dir, armed: AtomicBool::new(false) });
        let machine = Machine::faulty(fault.clone());
        let scene = Scene::new(&machine).await;
        scene.back_up(&snapshot(0), &[1]).await;
        scene.insert(9).await;
        scene.pass_time(30 * DAY);
        let depth = if dir == "lost+found" { "lost+found" } else { "host/lost+found" };
        std::fs::create_dir_all(scene.base.join(depth)).unwrap();
        fault.armed.store(true, Ordering::SeqCst);
        let result = scene.try_collect().await.0;
        assert_eq!((result.is_ok(), scene.has(9)), (removed, !removed), "{dir}: {result:?}");
        assert!(scene.has(1));
        if let Err(e) = result {
            assert!(e.to_string().contains(dir), "{e}");
        }
    }
}
