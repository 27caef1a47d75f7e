//! Long work that is told to stop, or is killed: it stops within a few operations, frees what it held, and the next run does the rest.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, STORE, Setup, make_store, read_environment, temp_dir};
use crate::support::slowfs::{Behaviour, Op, SlowFs};
use crate::support::upload::{self, Chunk, Place};
use crate::support::wire::{Conn, Reply};

const ARCHIVE: &str = "a.pxar.didx";

/// What one lookup takes while something is to be caught at work.
const SLOW: Duration = Duration::from_millis(30);

/// A call by the token of the first start, which may do everything.
async fn call(daemon: &Daemon, method: &str, path: &str, body: Value) -> Reply {
    let secret = &read_environment(&daemon.data().join("connection.env"))["PBS_PASSWORD"];
    let authorization = format!("PBSAPIToken=admin@pbs!default:{secret}");
    let mut conn = Conn::open(daemon.peer()).await.expect("connect");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let headers = if body.is_empty() { &headers[..1] } else { &headers[..] };
    let reply = conn.call(method, &format!("/api2/json/{path}"), headers, body.as_bytes()).await.expect("an answer");
    conn.close().await;
    reply
}

/// Starts a task.
async fn start(daemon: &Daemon, path: &str, body: Value) -> String {
    call(daemon, "POST", path, body).await.data().as_str().expect("a UPID").to_owned()
}

async fn stop(daemon: &Daemon, upid: &str) {
    let name = percent_encoding::utf8_percent_encode(upid, percent_encoding::NON_ALPHANUMERIC);
    call(daemon, "DELETE", &format!("nodes/localhost/tasks/{name}"), Value::Null).await.expect(200, "");
}

/// How the task ended; waits for that.
async fn end(daemon: &Daemon, upid: &str) -> String {
    daemon.idle().await;
    daemon.ended().into_iter().find(|(name, _)| name == upid).expect("an ended task").1
}

pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed() < crate::support::wire::PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A daemon on a file system that can be slowed down; `None` where there is no FUSE.
pub fn on_slow_disk(folder: &Path) -> Option<(SlowFs, Daemon)> {
    let (backing, mount) = (folder.join("backing"), folder.join("mount"));
    make_store(&backing.join("golden"));
    std::fs::create_dir(&mount).unwrap();
    match SlowFs::mount(&backing, &mount, Behaviour::default()) {
        Ok(fs) => {
            let daemon = Daemon::with(Setup { store: Some(mount.join("golden")), ..Setup::default() });
            Some((fs, daemon))
        }
        Err(e) => {
            println!("skipped: no FUSE here: {e}");
            None
        }
    }
}

#[tokio::test]
async fn a_prune_that_is_stopped_removes_one_snapshot_more_at_most() {
    const COUNT: usize = 24;
    let folder = temp_dir();
    let Some((fs, daemon)) = on_slow_disk(folder.path()) else { return };
    let places: Vec<Place> = (0_i64..).take(COUNT).map(|hours| Place::host("p", hours)).collect();
    for place in &places {
        upload::full_backup(&daemon, place.clone(), ARCHIVE, &[Chunk::made(1, 1000)]).await;
    }
    let group = fs.backing().join("golden/host/p");
    let there = || places.iter().filter(|place| group.join(place.dir().rsplit('/').next().unwrap()).exists()).count();
    fs.set(|b| b.delay = SLOW);
    let target = format!("admin/datastore/{STORE}/prune-datastore");
    let upid = start(&daemon, &target, json!({"keep-last": 1})).await;
    until("a removal", || there() < COUNT).await;
    stop(&daemon, &upid).await;
    let at_stop = there();
    assert_eq!(end(&daemon, &upid).await, "task aborted", "{:#?}", daemon.task_log(&upid));
    let left = there();
    assert!(left + 1 >= at_stop && left > COUNT / 2, "{at_stop} were there, {left} are left");
    fs.set(|b| b.delay = Duration::ZERO);
    let upid = start(&daemon, &target, json!({"keep-last": 1})).await;
    assert_eq!((end(&daemon, &upid).await.as_str(), there()), ("OK", 1));
    upload::read_archive(&daemon, &places[COUNT - 1], ARCHIVE).await;
}

#[tokio::test]
async fn a_verification_that_is_stopped_reads_no_more_than_it_had_begun() {
    const COUNT: u64 = 200;
    /// Chunks that a verification reads at a time.
    const READS_AHEAD: u64 = 8;
    let folder = temp_dir();
    let Some((fs, daemon)) = on_slow_disk(folder.path()) else { return };
    let chunks: Vec<Chunk> = (0..COUNT).map(|seed| Chunk::made(seed, 1000)).collect();
    let place = Place::host("v", 0);
    upload::full_backup(&daemon, place.clone(), ARCHIVE, &chunks).await;
    fs.reset_counts();
    fs.set(|b| b.delay = SLOW);
    let read = || chunks.iter().map(|chunk| fs.count(&chunk.digest, Op::Open)).sum::<u64>();
    let target = format!("admin/datastore/{STORE}/verify");
    let upid = start(&daemon, &target, json!({})).await;
    until("a chunk is read", || read() > 0).await;
    stop(&daemon, &upid).await;
    let at_stop = read();
    assert_eq!(end(&daemon, &upid).await, "task aborted", "{:#?}", daemon.task_log(&upid));
    // What was on its way in the pool comes to its end by itself.
    tokio::time::sleep(4 * SLOW).await;
    let more = read() - at_stop;
    assert!(more <= READS_AHEAD, "{more} chunks were begun after the stop");
    assert!(read() < COUNT / 2, "it had read {} by then", read());
    fs.set(|b| b.delay = Duration::ZERO);
    let upid = start(&daemon, &target, json!({})).await;
    assert_eq!(end(&daemon, &upid).await, "OK");
    // Nobody holds the snapshot.
    let target = format!("admin/datastore/{STORE}/snapshots?{}", place.query());
    call(&daemon, "DELETE", &target, Value::Null).await.expect(200, "");
}

#[tokio::test]
async fn a_creation_that_is_stopped_leaves_nothing_and_one_that_is_killed_is_completed() {
    let mut daemon = Daemon::start();
    let folder = temp_dir();
    let base = folder.path().join("new");
    let wanted = || json!({"name": "second", "path": base});
    let dirs = || std::fs::read_dir(base.join(".chunks")).map_or(0, Iterator::count);
    let upid = start(&daemon, "config/datastore", wanted()).await;
    until("chunk directories", || dirs() > 0).await;
    stop(&daemon, &upid).await;
    assert_eq!(end(&daemon, &upid).await, "task aborted", "{:#?}", daemon.task_log(&upid));
    assert!(!base.exists());
    call(&daemon, "GET", "config/datastore/second", Value::Null).await.expect(404, "");

    start(&daemon, "config/datastore", wanted()).await;
    until("chunk directories", || dirs() > 0).await;
    daemon.kill();
    let left = dirs();
    assert!((1..65_536).contains(&left), "{left}");
    daemon.launch();
    // Not with something else in it.
    std::fs::write(base.join("mine"), "x").unwrap();
    let upid = start(&daemon, "config/datastore", wanted()).await;
    let refused = end(&daemon, &upid).await;
    assert!(refused.contains("its creation was cut off, and") && refused.contains("mine"), "{refused}");
    assert_eq!((dirs(), base.join("mine").exists()), (left, true), "nothing is touched");
    std::fs::remove_file(base.join("mine")).unwrap();
    let upid = start(&daemon, "config/datastore", wanted()).await;
    assert_eq!(end(&daemon, &upid).await, "OK");
    assert_eq!(dirs(), 65_536);
    let names: std::collections::BTreeSet<_> =
        std::fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), [".chunks", ".lock"]);
}
