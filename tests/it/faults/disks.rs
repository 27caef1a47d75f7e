//! Disks that are full, turn read-only, or are pulled out.

use super::ARCHIVE;
use crate::support::daemon::{Daemon, STORE, Setup, make_store};
use crate::support::loopfs::LoopFs;
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, ask_backup, ask_reader, rest};

#[tokio::test]
async fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let fs = match LoopFs::mount(folder.path(), 24 << 20) {
        Ok(fs) => fs,
        Err(e) => return println!("skipped: no loop device here: {e}"),
    };
    let store = fs.path().join("golden");
    make_store(&store);
    let daemon = Daemon::with(Setup { store: Some(store), sync_level: "filesystem", ..Setup::default() });
    let before = Place::host("m", 0);
    let small = Chunk::made(1, 3000);
    upload::full_backup(&daemon, before.clone(), "a.pxar.didx", std::slice::from_ref(&small)).await;

    let mut backup = Backup::start(&daemon, Place::host("m", 1)).await;
    let dir = backup.place.dir();
    let mut writer = backup.create("a.pxar.didx", 0, "").await;
    let mut refused = None;
    for seed in 0..100 {
        let noise: Vec<u8> = (0..40_000_u64).flat_map(|i| hash(seed * 1_000_000 + i)).collect();
        let chunk = Chunk::of(&noise);
        let reply = backup.upload(&writer, &chunk).await;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
        backup.append(&mut writer, &[&chunk]).await.expect(200, "");
    }
    let refused = refused.expect("24 MiB hold 100 chunks of 1.2 MiB");
    refused.expect(400, "No space left on device");
    // Whatever else is asked for now, the daemon answers.
    for reply in [backup.close(&writer).await, backup.manifest().await, backup.finish().await] {
        assert!([200, 400].contains(&reply.status), "{}", reply.text());
    }
    backup.session.close().await;
    daemon.idle().await;
    let finished = daemon.ended().pop().is_some_and(|(_, result)| result == "OK");
    assert_eq!(daemon.has(&dir), finished, "what is not finished is gone");
    assert!(upload::read_archive(&daemon, &before, "a.pxar.didx").await == upload::made_bytes(1, 3000));
    drop(daemon);
}

/// 32 bytes that do not compress.
fn hash(n: u64) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(n.to_le_bytes()).to_vec()
}

#[tokio::test]
async fn a_datastore_that_turns_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let fs = match LoopFs::mount(folder.path(), 24 << 20) {
        Ok(fs) => fs,
        Err(e) => return println!("skipped: no loop device here: {e}"),
    };
    let store = fs.path().join("golden");
    make_store(&store);
    let setup = Setup { store: Some(store), is_checked: false, ..Setup::default() };
    let daemon = Daemon::with(setup);
    let place = Place::host("m", 0);
    upload::full_backup(&daemon, place.clone(), "a.pxar.didx", &[Chunk::made(1, 3000)]).await;
    fs.abort().expect("the file system stops");
    let refused = ask_backup(&daemon, &Place::host("m", 1), "").await.refused();
    refused.expect(400, "Read-only file system");
    ask_backup(&daemon, &Place::host("new", 1), "").await.refused().expect(400, "Read-only file system");
    assert!(upload::read_archive(&daemon, &place, "a.pxar.didx").await == upload::made_bytes(1, 3000));
    let target = format!("/api2/json/admin/datastore/{STORE}/snapshots?{}", place.query());
    rest(&daemon, "DELETE", &target, b"").await.expect(400, "Read-only file system");
    assert!(upload::read_archive(&daemon, &place, "a.pxar.didx").await == upload::made_bytes(1, 3000));
    drop(daemon);
}

/// The disk is pulled out: nothing is called missing, nothing is marked, and when it is back all is well.
#[tokio::test]
async fn a_datastore_that_vanishes() {
    let daemon = Daemon::with(Setup { checks: [true, true, false], ..Setup::default() });
    let place = Place::host("m", 0);
    let chunks = [Chunk::made(0, FIXED_CHUNK_BYTES)];
    upload::full_backup(&daemon, place.clone(), ARCHIVE, &chunks).await;
    let backup = Backup::start(&daemon, Place::host("m", 1)).await;
    backup.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(200, "");
    let mut writer = backup.create(ARCHIVE, FIXED_CHUNK_BYTES, "").await;
    let away = daemon.store().with_extension("away");
    let chunk_dir = daemon.store().join(".chunks");
    std::fs::rename(&chunk_dir, &away).unwrap();
    std::fs::create_dir(&chunk_dir).unwrap();
    // The directory that is held open is no longer the one in place: an answer from it would mean nothing.
    let hidden = away.join(&chunks[0].digest[..4]).join(&chunks[0].digest);
    let taken = away.join("taken");
    std::fs::rename(&hidden, &taken).unwrap();
    let refused = backup.append(&mut writer, &[&chunks[0]]).await;
    refused.expect(400, "known chunk stat failed");
    std::fs::rename(&taken, &hidden).unwrap();
    std::fs::remove_dir(&chunk_dir).unwrap();
    std::fs::rename(&away, &chunk_dir).unwrap();
    let target = format!("/api2/json/admin/datastore/{STORE}/snapshots");
    let listed = rest(&daemon, "GET", &target, b"").await.data();
    let marked = listed.as_array().unwrap().iter().any(|s| !s["verification"].is_null());
    assert!(!marked, "the base was marked although the store was not there: {listed}");
    backup.append(&mut writer, &[&chunks[0]]).await.expect(200, "");
    backup.leave(&daemon).await;

    // The whole datastore away: calls fail in words, and the daemon lives.
    let gone = daemon.store().with_extension("gone");
    std::fs::rename(daemon.store(), &gone).unwrap();
    for reply in [
        ask_backup(&daemon, &Place::host("m", 2), "").await.refused(),
        ask_reader(&daemon, &place).await.refused(),
        rest(&daemon, "GET", &target, b"").await,
    ] {
        assert!([400, 404].contains(&reply.status) && !reply.body.is_empty(), "{} {}", reply.status, reply.text());
    }
    std::fs::rename(&gone, daemon.store()).unwrap();
    assert!(upload::read_archive(&daemon, &place, ARCHIVE).await == upload::made_bytes(0, FIXED_CHUNK_BYTES));
}
