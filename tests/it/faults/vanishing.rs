//! Clients that are suddenly gone, or never say anything.

use bytes::Bytes;

use super::{ARCHIVE, assert_still_serves};
use crate::support::daemon::{Daemon, STORE};
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, ask_reader, rest};
use crate::support::wire::{Conn, OpenStream};

/// After each step the client is gone, by a FIN and by a reset: the snapshot goes, the locks go, the chunks stay.
#[tokio::test]
async fn a_client_vanishes_at_every_step() {
    let daemon = Daemon::start();
    let base = Place::host("m", 0);
    let chunks = [Chunk::made(0, FIXED_CHUNK_BYTES), Chunk::made(1, 1000)];
    upload::full_backup(&daemon, base.clone(), ARCHIVE, &chunks).await;
    for step in 0..10 {
        for by_reset in [false, true] {
            let mut backup = Backup::start(&daemon, Place::host("m", 1)).await;
            let dir = backup.place.dir();
            let new = Chunk::made(100 + step, FIXED_CHUNK_BYTES);
            let mut kept = Vec::new();
            do_steps(&mut backup, &new, step, &mut kept).await;
            if by_reset {
                backup.session.reset();
            } else {
                backup.session.cut();
            }
            drop(kept);
            daemon.idle().await;
            assert!(!daemon.has(&dir), "step {step}: the unfinished snapshot is still there");
            assert_eq!(daemon.has(new.path()), step >= 4, "step {step}: the chunk");
            assert!(daemon.has(base.dir()));
            let (_, result) = daemon.ended().pop().expect("a task");
            assert_ne!(result, "OK", "step {step}");
            std::fs::remove_file(daemon.store().join(new.path())).ok();
        }
    }
    // The connection may vanish right after the answer to finish, which is what the official client does.
    let mut backup = Backup::start(&daemon, Place::host("m", 1)).await;
    let dir = backup.place.dir();
    backup.blob("a.conf.blob", b"text").await.expect(200, "");
    backup.manifest().await.expect(200, "");
    backup.finish().await.expect(200, "");
    backup.session.reset();
    daemon.idle().await;
    assert!(daemon.has(dir));
    assert_eq!(daemon.ended().pop().map(|(_, result)| result).as_deref(), Some("OK"));
}

async fn do_steps(backup: &mut Backup, new: &Chunk, last: u64, kept: &mut Vec<OpenStream>) {
    if last == 0 {
        return;
    }
    backup.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(200, "");
    if last == 1 {
        return;
    }
    let mut writer = backup.create(ARCHIVE, FIXED_CHUNK_BYTES, "").await;
    if last == 2 {
        return;
    }
    if last == 3 {
        let target = Backup::chunk_target(&writer, new);
        let mut stream = backup.session.open("POST", &target, &[], false).await.unwrap();
        stream.send(new.encoded.slice(..new.encoded.len() / 2), false).unwrap();
        return kept.push(stream);
    }
    backup.upload(&writer, new).await.expect(200, "");
    if last == 4 {
        return;
    }
    backup.append(&mut writer, &[new]).await.expect(200, "");
    if last == 5 {
        return;
    }
    if last == 6 {
        let json = [("content-type", "application/json")];
        let body = Bytes::from_static(b"{\"wid\":1,\"digest-list\":[");
        let mut stream = backup.session.open("PUT", "/fixed_index", &json, false).await.unwrap();
        stream.send(body, false).unwrap();
        return kept.push(stream);
    }
    backup.close(&writer).await.expect(200, "");
    if last == 7 {
        return;
    }
    backup.blob("a.conf.blob", b"text").await.expect(200, "");
    if last == 8 {
        return;
    }
    backup.manifest().await.expect(200, "");
}

/// A client that downloads and goes away, or that never says anything at all.
#[tokio::test]
async fn readers_and_silent_clients_vanish() {
    let daemon = Daemon::start();
    let place = Place::host("m", 0);
    upload::full_backup(&daemon, place.clone(), ARCHIVE, &[Chunk::made(0, FIXED_CHUNK_BYTES)]).await;
    for by_reset in [false, true] {
        let reader = ask_reader(&daemon, &place).await.session();
        let _download =
            reader.start("GET", &format!("/download?file-name={ARCHIVE}"), &[], Bytes::new()).await.unwrap();
        if by_reset {
            reader.reset();
        } else {
            reader.cut();
        }
        daemon.idle().await;
    }
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(daemon.peer().addr).await.unwrap());
        silent.last_mut().unwrap().set_nodelay(true).unwrap();
    }
    let mut half = Conn::open(daemon.peer()).await.unwrap();
    half.send_raw(b"GET /api2/json/version HTTP/1.1\r\nhost: x\r\nx-long: ").await.unwrap();
    let target = format!("/api2/json/admin/datastore/{STORE}/snapshots?{}", place.query());
    rest(&daemon, "DELETE", &target, b"").await.expect(200, "");
    assert_still_serves(&daemon, "after").await;
}
