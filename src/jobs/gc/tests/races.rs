//! Each race of `docs/garbage-collection.md`, with the file operation that it hinges on held up.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::error::Kind;

/// Holds up the first operation `op` on a path that contains `part`, once armed.
#[derive(Debug, Default)]
pub(super) struct Gate {
    armed: Mutex<Option<Armed>>,
}

#[derive(Debug)]
struct Armed {
    op: &'static str,
    part: String,
    reached: tokio::sync::oneshot::Sender<()>,
    pass: mpsc::Receiver<()>,
}

/// An operation that is to be held up, or is.
#[derive(Debug)]
pub(super) struct Held {
    reached: tokio::sync::oneshot::Receiver<()>,
    open: mpsc::Sender<()>,
}

impl Gate {
    pub(super) fn arm(&self, op: &'static str, part: impl Into<String>) -> Held {
        let (reach, reached) = tokio::sync::oneshot::channel();
        let (open, pass) = mpsc::channel();
        *self.armed.lock() = Some(Armed { op, part: part.into(), reached: reach, pass });
        Held { reached, open }
    }
}

impl Fault for Gate {
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        let mut armed = self.armed.lock();
        let shown = path.map(|p| p.display().to_string()).unwrap_or_default();
        if armed.as_ref().is_some_and(|armed| armed.op == op && shown.contains(&armed.part)) {
            let Armed { reached, pass, .. } = armed.take().unwrap();
            drop(armed);
            let _ = reached.send(());
            // An open gate, or a test that has ended.
            let _ = pass.recv();
        }
        Ok(())
    }
}

impl Held {
    /// Waits until the operation is held up.
    pub(super) async fn reached(&mut self) {
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, &mut self.reached).await.expect("the operation comes").unwrap();
    }

    pub(super) fn open(&self) {
        let _ = self.open.send(());
    }
}

/// Time for what must not happen to happen; no pass mark.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

struct Race {
    scene: Arc<Scene>,
    gate: Arc<Gate>,
    _machine: Machine,
}

impl Race {
    /// A finished backup of 1 and 2, of which 2 is in no other; and 9, which nobody names. All of it is old.
    async fn new() -> Self {
        let gate = Arc::new(Gate::default());
        let machine = Machine::faulty(gate.clone());
        let scene = Scene::new(&machine).await;
        scene.back_up(&snapshot(0), &[1, 2]).await;
        scene.insert(9).await;
        scene.pass_time(30 * DAY);
        Self { scene: Arc::new(scene), gate, _machine: machine }
    }

    fn collecting(&self) -> tokio::task::JoinHandle<GcReport> {
        let scene = Arc::clone(&self.scene);
        tokio::spawn(async move { scene.collect().await })
    }

    /// An upload, as a session makes it, of a chunk that is used last long ago.
    async fn upload(scene: &Scene, known: &Known, n: u8) -> Inserted {
        let change = scene.store.begin_change();
        let inserted = scene.insert(n).await;
        known.add(n);
        drop(change);
        set_accessed(&scene.path(&digest(n)), T0 - 100 * DAY);
        inserted
    }
}

/// The removal has looked for the last time; the insert comes too late to find the file, and writes it.
#[tokio::test]
async fn an_insert_waits_for_the_removal_of_its_chunk() {
    let race = Race::new().await;
    let mut held = race.gate.arm("unlink", digest(9).to_string());
    let collecting = race.collecting();
    held.reached().await;
    let scene = Arc::clone(&race.scene);
    let inserting = tokio::spawn(async move { scene.insert(9).await });
    a_while().await;
    assert!(!inserting.is_finished());
    held.open();
    assert!(matches!(inserting.await.unwrap(), Inserted::New { .. }));
    assert_eq!(collecting.await.unwrap().status.removed_chunks, 1);
    assert!(race.scene.has(9));
}

/// The insert has found the file, and is about to say so; the sweep leaves it.
#[tokio::test]
async fn a_chunk_that_is_being_inserted_stays() {
    for op in ["stat", "utimensat"] {
        let race = Race::new().await;
        let mut held = race.gate.arm(op, digest(9).to_string());
        let scene = Arc::clone(&race.scene);
        let inserting = tokio::spawn(async move { scene.insert(9).await });
        held.reached().await;
        let status = race.scene.collect().await.status;
        assert_eq!((status.removed_chunks, race.scene.has(9)), (0, true), "{op}");
        held.open();
        assert!(matches!(inserting.await.unwrap(), Inserted::Known { .. }), "{op}");
        assert!(race.scene.has(9));
    }
}

/// Between the reading of a directory and the removal somebody uses a chunk of it again; then nothing but the watch knows, for the clock was
/// set back, and the access time is old.
#[tokio::test]
async fn what_was_inserted_while_it_runs_stays_whatever_its_age() {
    let race = Race::new().await;
    // The last look before the removal.
    let mut held = race.gate.arm("readdir", ".chunks/0001");
    let collecting = race.collecting();
    held.reached().await;
    let inserted = race.scene.insert(9).await;
    set_accessed(&race.scene.path(&digest(9)), T0 - 100 * DAY);
    assert!(matches!(inserted, Inserted::Known { .. }));
    held.open();
    assert_eq!(collecting.await.unwrap().status.removed_chunks, 0);
    assert!(race.scene.has(9));
    // Nobody has named it since.
    assert_eq!(race.scene.collect().await.status.removed_chunks, 1);
}

/// Spec 07 §1.3: the backup that builds on a snapshot finishes, and the snapshot is pruned, between the listing and the reading.
#[tokio::test]
async fn a_backup_that_finishes_behind_the_listing_keeps_what_it_took_over() {
    let race = Race::new().await;
    let scene = &race.scene;
    let lease = scene.begin(&snapshot(1)).await;
    let writer = write(&lease, &[2]).await.unwrap();
    let mut held = race.gate.arm("open", format!("{}/disk.img.fidx", snapshot(0).dir_name()));
    let collecting = race.collecting();
    held.reached().await;
    close(&writer, &[2]).await.unwrap();
    finish(&scene.store, &lease, &[2]).await.unwrap();
    scene.store.remove_snapshot(&root(), &snapshot(0)).await.unwrap();
    held.open();
    let status = collecting.await.unwrap().status;
    assert_eq!(scene.chunks(), [2].into());
    assert_eq!(status.removed_chunks, 2);
}

/// An index gets its name while the collection begins: it is either waited for, or tells what it names.
#[tokio::test]
async fn a_collection_waits_for_an_index_that_is_being_closed() {
    let race = Race::new().await;
    let scene = &race.scene;
    let lease = scene.begin(&snapshot(1)).await;
    let writer = write(&lease, &[9]).await.unwrap();
    let mut held = race.gate.arm("rename", "disk.img.fidx");
    let closing = tokio::spawn(async move { close(&writer, &[9]).await });
    held.reached().await;
    let collecting = race.collecting();
    a_while().await;
    assert!(!collecting.is_finished());
    held.open();
    closing.await.unwrap().unwrap();
    assert_eq!(collecting.await.unwrap().status.removed_chunks, 0);
    assert!(scene.has(9));
    drop(lease);
}

/// What a session has sent, and what no index names yet.
#[tokio::test]
async fn what_a_running_session_knows_stays_whatever_its_age() {
    let race = Race::new().await;
    let scene = &race.scene;
    let known = Known::of(&scene.store);
    for n in [9, 10] {
        Race::upload(scene, &known, n).await;
    }
    let status = scene.collect().await.status;
    assert_eq!((status.removed_chunks, status.disk_chunks), (0, 4));
    // It ends without a snapshot.
    drop(known);
    assert_eq!(scene.collect().await.status.removed_chunks, 2);
    assert_eq!(scene.chunks(), [1, 2].into());
}

/// An upload has put its chunk into the store, and the session does not know it yet.
#[tokio::test]
async fn a_collection_waits_until_sessions_know_what_was_sent() {
    let race = Race::new().await;
    let scene = &race.scene;
    let known = Known::of(&scene.store);
    let change = scene.store.begin_change();
    scene.insert(9).await;
    set_accessed(&scene.path(&digest(9)), T0 - 100 * DAY);
    let collecting = race.collecting();
    a_while().await;
    assert!(!collecting.is_finished());
    known.add(9);
    drop(change);
    assert_eq!(collecting.await.unwrap().status.removed_chunks, 0);
    assert!(scene.has(9));
}

/// Two handles on one directory, as after a change of the configuration, know of each other.
#[tokio::test]
async fn a_datastore_that_is_opened_twice_is_one() {
    let race = Race::new().await;
    let scene = &race.scene;
    let again = Datastore::open((*scene.store.config()).clone(), scene.store.engine().clone(), scene.clock.clone());
    let again = again.await.unwrap();
    let known = Known::of(&again);
    known.add(9);
    assert_eq!(scene.collect().await.status.removed_chunks, 0);
    drop(known);
    let mut held = race.gate.arm("unlink", digest(9).to_string());
    let collecting = race.collecting();
    held.reached().await;
    assert_eq!(begin(&again).await.unwrap_err().kind(), Kind::Busy);
    let (digest, blob, size) = chunk(9);
    let inserting = tokio::spawn(async move { again.insert_chunk(digest, blob, size).await });
    a_while().await;
    assert!(!inserting.is_finished());
    held.open();
    assert!(matches!(inserting.await.unwrap().unwrap(), Inserted::New { .. }));
    collecting.await.unwrap();
}

/// Whoever reads is left behind at once; whoever removes is waited for.
#[tokio::test]
async fn an_abort_ends_it_at_once_and_lets_nobody_in_too_early() {
    for (op, part) in [
        ("readdir", "host/a".to_owned()),
        ("open", "disk.img.fidx".to_owned()),
        ("readdir", ".chunks/0001".to_owned()),
        ("unlink", digest(9).to_string()),
    ] {
        let race = Race::new().await;
        let scene = &race.scene;
        let mut held = race.gate.arm(op, part);
        let task = scene.task().await;
        let upid = task.upid().clone();
        let collection = begin(&scene.store).await.unwrap();
        let running = tokio::spawn({
            let scene = Arc::clone(scene);
            async move {
                let result = run(&scene.store, Manner::Resume, collection, &task, std::future::pending()).await;
                task.end(result.as_ref().map(drop).map_err(ToString::to_string)).await;
                result
            }
        });
        held.reached().await;
        assert!(scene.tasks.abort(&upid));
        if op == "unlink" {
            a_while().await;
            assert!(!running.is_finished());
            assert_eq!(begin(&scene.store).await.unwrap_err().kind(), Kind::Busy);
            held.open();
        }
        // Without the gate being opened, but for the removal.
        let error = running.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (Kind::Closed, "task aborted".to_owned()));
        assert_eq!(scene.has(9), op != "unlink");
        assert!(!scene.base.join(".gc-status").exists());
        held.open();
        // What was left behind lets the right go when it is over.
        while begin(&scene.store).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The disk is taken away under a run: on its empty mount point no index names anything.
#[tokio::test]
async fn nothing_is_removed_when_the_datastore_is_not_where_it_was() {
    let race = Race::new().await;
    let scene = &race.scene;
    let mut held = race.gate.arm("readdir", ".chunks/0001");
    let running = tokio::spawn({
        let scene = Arc::clone(scene);
        async move { scene.try_collect().await.0 }
    });
    held.reached().await;
    let aside = scene.dir.path().join("aside");
    #[expect(clippy::disallowed_methods, reason = "stands for an unmount")]
    let moved = |from: &Path, to: &Path| std::fs::rename(from, to).unwrap();
    moved(&scene.base, &aside);
    std::fs::create_dir(&scene.base).unwrap();
    moved(&aside.join(".chunks"), &scene.base.join(".chunks"));
    held.open();
    let text = running.await.unwrap().unwrap_err().to_string();
    assert!(text.starts_with("the datastore is not at its place"), "{text}");
    assert!(scene.has(9));
}
