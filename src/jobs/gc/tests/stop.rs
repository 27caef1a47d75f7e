//! A run that is asked to stop does next to nothing any more: counted, not timed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::races::Gate;
use super::*;
use crate::error::Kind;
use crate::store::GcMethod;

/// A gate, and a count of some operation.
#[derive(Debug)]
struct Counted {
    gate: Gate,
    op: &'static str,
    count: AtomicU64,
}

impl Fault for Counted {
    fn before(&self, op: &'static str, path: Option<&Path>) -> std::io::Result<()> {
        self.gate.before(op, path)?;
        self.count.fetch_add(u64::from(op == self.op), Ordering::SeqCst);
        Ok(())
    }
}

fn counted(op: &'static str) -> (Arc<Counted>, Machine) {
    let fault = Arc::new(Counted { gate: Gate::default(), op, count: AtomicU64::new(0) });
    let machine = Machine::faulty(fault.clone());
    (fault, machine)
}

type Running = tokio::task::JoinHandle<(crate::types::Upid, Result<GcReport>)>;

async fn start(scene: &Arc<Scene>) -> (crate::types::Upid, Running) {
    let task = scene.task().await;
    let upid = task.upid().clone();
    let collection = begin(&scene.store).await.unwrap();
    let (scene, name) = (Arc::clone(scene), upid.clone());
    let running = tokio::spawn(async move {
        let result = run(&scene.store, Manner::Resume, collection, &task, std::future::pending()).await;
        task.end(result.as_ref().map(drop).map_err(ToString::to_string)).await;
        (name, result)
    });
    (upid, running)
}

async fn is_aborted(running: Running) {
    let error = running.await.unwrap().1.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (Kind::Closed, "task aborted".to_owned()));
}

const MANY: u16 = 2000;

fn many(n: u16) -> Digest {
    let [high, low] = n.to_be_bytes();
    let mut digest = [0xab; 32];
    (digest[0], digest[1], digest[2], digest[3]) = (0, 1, high, low);
    Digest(digest)
}

#[tokio::test]
async fn a_huge_directory_loses_no_more_than_the_file_that_is_at_hand() {
    let (fault, machine) = counted("unlink");
    let scene = Arc::new(Scene::new(&machine).await);
    std::fs::create_dir_all(scene.base.join(".chunks/0001")).unwrap();
    for n in 0..MANY {
        std::fs::write(scene.path(&many(n)), "x").unwrap();
        set_accessed(&scene.path(&many(n)), T0);
    }
    scene.pass_time(30 * DAY);
    let mut held = fault.gate.arm("unlink", ".chunks/0001");
    let (upid, running) = start(&scene).await;
    held.reached().await;
    assert!(scene.tasks.abort(&upid));
    // The request is on its way to the run, which waits for the removal.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    held.open();
    is_aborted(running).await;
    let gone = (0..MANY).filter(|n| !scene.path(&many(*n)).exists()).count();
    // A chunk, and the file that is written for later runs.
    assert_eq!((gone, fault.count.load(Ordering::SeqCst)), (1, 2));
    // And it is gone on with, from this directory.
    assert_eq!(scene.collect().await.status.removed_chunks, u64::from(MANY) - 1);
}

#[tokio::test]
async fn marking_by_access_time_ends_at_the_chunks_that_are_at_hand() {
    let (fault, machine) = counted("utimensat");
    let scene = Arc::new(Scene::with(&machine, |config| config.gc.method = GcMethod::AccessTime).await);
    let lease = scene.begin(&snapshot(0)).await;
    let writer = lease.create_fixed(&name("disk.img.fidx"), u64::from(MANY) << 22).await.unwrap();
    writer.write_slots((0..MANY).map(|n| (n.into(), many(n))).collect()).await.unwrap();
    let digests: Vec<Digest> = (0..MANY).map(many).collect();
    writer.close(fixed_csum(&digests)).await.unwrap();
    let mut held = fault.gate.arm("utimensat", ".chunks/0001");
    let (upid, running) = start(&scene).await;
    held.reached().await;
    let before = fault.count.load(Ordering::SeqCst);
    assert!(scene.tasks.abort(&upid));
    // Without the gate being opened: what reads is left behind.
    is_aborted(running).await;
    held.open();
    while begin(&scene.store).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // Eight pieces of 256 were under way at most; the one that was held up had more than a hundred to go, and did one.
    let after = fault.count.load(Ordering::SeqCst);
    assert!(after < u64::from(MANY) && after >= before, "{before} {after}");
    drop(lease);
}

#[tokio::test]
async fn the_search_for_who_names_what_is_missing_ends_as_well() {
    let (fault, machine) = counted("open");
    let scene = Arc::new(Scene::new(&machine).await);
    scene.back_up(&snapshot(0), &[1, 2]).await;
    scene.back_up(&snapshot(1), &[1, 2, 3]).await;
    std::fs::remove_file(scene.path(&digest(2))).unwrap();
    let mut sweep = fault.gate.arm("readdir", ".chunks/0001");
    let (upid, running) = start(&scene).await;
    sweep.reached().await;
    let mut naming = fault.gate.arm("open", "disk.img.fidx");
    sweep.open();
    naming.reached().await;
    let before = fault.count.load(Ordering::SeqCst);
    assert!(scene.tasks.abort(&upid));
    is_aborted(running).await;
    naming.open();
    loop {
        match begin(&scene.store).await {
            Ok(collection) => break collection.end().await,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    }
    let after = fault.count.load(Ordering::SeqCst);
    assert!(after - before <= 4, "{before} {after}: that index, and what writes down how far it was");
    // The warnings are not lost with it.
    let (result, log) = scene.try_collect().await;
    result.unwrap();
    assert!(log.iter().any(|line| line.contains("WARN: ")), "{log:?}");
}
