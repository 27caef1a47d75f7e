//! How often the disk is asked: one batch for an append, each chunk once at finish, many at a time, and nothing under a lock.

use std::time::Duration;

use crate::support::daemon::{Daemon, Setup, make_store, temp_dir};
use crate::support::slowfs::{Behaviour, Op, SlowFs};
use crate::support::upload::{self, Backup, Chunk, Place};

const ARCHIVE: &str = "a.pxar.didx";
/// As many as the official client names in one append.
const COUNT: u64 = 128;

#[tokio::test]
async fn an_append_and_a_finish_ask_for_each_chunk_once() {
    let folder = temp_dir();
    let (backing, mount) = (folder.path().join("backing"), folder.path().join("mount"));
    make_store(&backing.join("golden"));
    std::fs::create_dir(&mount).unwrap();
    let fs = match SlowFs::mount(&backing, &mount, Behaviour::default()) {
        Ok(fs) => fs,
        Err(e) => return println!("skipped: no FUSE here: {e}"),
    };
    let setup = Setup { store: Some(mount.join("golden")), checks: [true, true, false], ..Setup::default() };
    let one_by_one = setup.engine == "sync";
    let daemon = Daemon::with(setup);
    let chunks: Vec<Chunk> = (0..COUNT).map(|seed| Chunk::made(seed, 1000 + seed)).collect();
    upload::full_backup(&daemon, Place::host("slow", 0), ARCHIVE, &chunks).await;

    let mut backup = Backup::start(&daemon, Place::host("slow", 1)).await;
    backup.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(200, "");
    let mut writer = backup.create(ARCHIVE, 0, "").await;
    fs.set(|b| b.delay = Duration::from_millis(5));
    fs.reset_counts();
    backup.append(&mut writer, &chunks.iter().collect::<Vec<_>>()).await.expect(200, "");
    assert_each_asked_once(&fs, &chunks, "append");
    let together = fs.waiting_max();
    assert!(one_by_one || together >= 16, "only {together} requests were under way at a time");

    backup.close(&writer).await.expect(200, "");
    backup.manifest().await.expect(200, "");
    fs.reset_counts();
    backup.finish().await.expect(200, "");
    assert_each_asked_once(&fs, &chunks, "finish");
    fs.set(|b| b.delay = Duration::ZERO);
    backup.session.close().await;
    daemon.idle().await;

    let log = daemon.last_task_log();
    assert!(log.contains("finish check: 128 chunks"), "{log}");
    assert!(log.contains("append check: 128 chunks in 1 batch"), "{log}");
}

fn assert_each_asked_once(fs: &SlowFs, chunks: &[Chunk], when: &str) {
    for chunk in chunks {
        let count = fs.count(&chunk.digest, Op::Lookup);
        assert_eq!(count, 1, "{when}: {} was asked for {count} times", chunk.digest);
    }
}

/// A digest that an index names a thousand times is asked for once.
#[tokio::test]
async fn a_finish_asks_once_for_what_is_named_often() {
    let daemon = Daemon::with(Setup { checks: [true, true, false], ..Setup::default() });
    let chunk = Chunk::made(1, 1000);
    let mut backup = Backup::start(&daemon, Place::host("often", 0)).await;
    let mut writer = backup.create(ARCHIVE, 0, "").await;
    backup.upload(&writer, &chunk).await.expect(200, "");
    for _ in 0..8 {
        backup.append(&mut writer, &vec![&chunk; 128]).await.expect(200, "");
    }
    backup.close(&writer).await.expect(200, "");
    backup.complete(&daemon).await;
    let log = daemon.last_task_log();
    assert!(log.contains("finish check: 1 chunk"), "{log}");
}
