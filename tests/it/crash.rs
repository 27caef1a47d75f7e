//! Power cuts: the daemon is killed in the middle of a backup and started again over what it left.

use crate::support::daemon::{Daemon, Setup};
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, rest};

const ARCHIVE: &str = "disk.img.fidx";

/// After each of these steps of a second backup the daemon is killed.
const STEPS: [&str; 7] = ["upgrade", "create", "half a chunk", "chunk", "append", "close", "manifest"];

#[tokio::test]
async fn killed_at_every_step() {
    let mut daemon = Daemon::with(Setup::default());
    let chunks = [Chunk::made(0, FIXED_CHUNK_BYTES), Chunk::made(1, 1000)];
    let first = Place::host("m", 0);
    upload::full_backup(&daemon, first.clone(), ARCHIVE, &chunks).await;
    let plain = [upload::made_bytes(0, FIXED_CHUNK_BYTES), upload::made_bytes(1, 1000)].concat();

    for (hours, last) in (1..).zip(STEPS) {
        let place = Place::host("m", hours);
        let backup = begin(&daemon, place.clone(), last).await;
        daemon.kill();
        drop(backup);
        daemon.launch();

        assert!(!daemon.has(format!("{}/index.json.blob", place.dir())), "{last}: a half snapshot looks finished");
        assert!(upload::read_archive(&daemon, &first, ARCHIVE).await == plain, "{last}: the first snapshot is damaged");
        let unknown: Vec<_> = daemon.ended().into_iter().filter(|(_, result)| result != "OK").collect();
        assert!(!unknown.is_empty(), "{last}: the task that was cut off is nowhere");
        assert!(leftovers(&daemon).is_empty(), "{last}: {:?}", leftovers(&daemon));
        // The group is free, and what was left behind can be removed as any snapshot.
        let next = Backup::start(&daemon, Place::host("m", hours + 100)).await;
        next.leave(&daemon).await;
        if daemon.has(place.dir()) {
            let target = format!("/api2/json/admin/datastore/{}/snapshots?{}", daemon.store_name(), place.query());
            rest(&daemon, "DELETE", &target, b"").await.expect(200, "");
        }
    }
    let last = Place::host("m", 200);
    upload::full_backup(&daemon, last.clone(), ARCHIVE, &chunks).await;
    assert!(upload::read_archive(&daemon, &last, ARCHIVE).await == plain);
}

/// A session that has done everything up to `last`.
async fn begin(daemon: &Daemon, place: Place, last: &str) -> (Backup, Option<crate::support::wire::OpenStream>) {
    let mut backup = Backup::start(daemon, place).await;
    let seed = u64::try_from(backup.place.time).unwrap();
    let new = Chunk::made(seed, FIXED_CHUNK_BYTES);
    if last == "upgrade" {
        return (backup, None);
    }
    let mut writer = backup.create(ARCHIVE, FIXED_CHUNK_BYTES, "").await;
    if last == "half a chunk" {
        let target = Backup::chunk_target(&writer, &new);
        let mut stream = backup.session.open("POST", &target, &[], false).await.unwrap();
        stream.send(new.encoded.slice(..new.encoded.len() / 2), false).unwrap();
        return (backup, Some(stream));
    }
    if last == "create" {
        return (backup, None);
    }
    backup.upload(&writer, &new).await.expect(200, "");
    if last == "chunk" {
        return (backup, None);
    }
    backup.append(&mut writer, &[&new]).await.expect(200, "");
    if last == "append" {
        return (backup, None);
    }
    backup.close(&writer).await.expect(200, "");
    if last == "manifest" {
        backup.manifest().await.expect(200, "");
    }
    (backup, None)
}

/// Temporary files that a restart should have removed.
fn leftovers(daemon: &Daemon) -> Vec<String> {
    let mut found = Vec::new();
    walk(daemon.store(), &mut found);
    found
}

fn walk(dir: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            walk(&path, found);
        } else if name.contains(".tmp") {
            found.push(path.display().to_string());
        }
    }
}

/// SIGTERM lets a running backup finish and accepts no new one.
#[tokio::test]
async fn a_graceful_end_waits_for_a_running_backup() {
    let daemon = Daemon::start();
    let place = Place::host("m", 0);
    let mut backup = Backup::start(&daemon, place.clone()).await;
    daemon.ask_to_end();
    while !daemon.log().contains("shutting down") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    backup.blob("a.conf.blob", b"text").await.expect(200, "");
    backup.manifest().await.expect(200, "");
    backup.finish().await.expect(200, "");
    backup.session.close().await;
    assert!(daemon.wait().success());
    assert!(daemon.has(format!("{}/index.json.blob", place.dir())));
}

/// A session that does not end is cut off after the limit, and its snapshot removed.
#[tokio::test]
async fn a_graceful_end_removes_what_is_unfinished() {
    let daemon = Daemon::start();
    let backup = Backup::start(&daemon, Place::host("m", 0)).await;
    let dir = backup.place.dir();
    assert!(daemon.has(&dir));
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    assert!(!daemon.has(&dir), "the unfinished snapshot is still there");
    drop(backup);
}
