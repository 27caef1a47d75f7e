//! Bodies, chunks and calls of a backup session that are wrong in what they say, how long they are, or when they come.

use bytes::Bytes;

use super::{ZEROS, assert_still_serves};
use crate::support::daemon::Daemon;
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, ask_backup};

#[tokio::test]
async fn appends_with_wrong_bodies() {
    let daemon = Daemon::start();
    let backup = Backup::start(&daemon, Place::host("m", 0)).await;
    let mut writer = backup.create("a.pxar.didx", 0, "").await;
    let chunk = Chunk::made(1, 1000);
    backup.upload(&writer, &chunk).await.expect(200, "");
    let d = &chunk.digest;
    let many = format!("[{}]", vec![format!("\"{d}\""); 3000].join(","));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies = [
        String::new(),
        "{".into(),
        "null".into(),
        "[]".into(),
        "\"text\"".into(),
        "{\"wid\":1}".into(),
        format!("{{\"wid\":1,\"digest-list\":[\"{d}\"],\"offset-list\":[]}}"),
        format!("{{\"wid\":1,\"digest-list\":[\"{d}\"],\"offset-list\":[-1]}}"),
        format!("{{\"wid\":1,\"digest-list\":[\"{d}\"],\"offset-list\":[0.5]}}"),
        format!("{{\"wid\":1,\"digest-list\":[\"{d}\"],\"offset-list\":[\"0\"]}}"),
        format!("{{\"wid\":1,\"digest-list\":[\"{d}\"],\"offset-list\":[18446744073709551615]}}"),
        format!("{{\"wid\":1,\"digest-list\":[\"{d}\"],\"offset-list\":[99999999999999999999999]}}"),
        format!("{{\"wid\":1,\"digest-list\":\"{d}\",\"offset-list\":0}}"),
        "{\"wid\":1,\"digest-list\":[null],\"offset-list\":[0]}".into(),
        format!("{{\"wid\":[1],\"digest-list\":[\"{d}\"],\"offset-list\":[0]}}"),
        format!("{{\"wid\":1,\"digest-list\":[\"{ZEROS}\"],\"offset-list\":[0]}}"),
        format!("{{\"wid\":1,\"wid\":2,\"digest-list\":[\"{d}\"],\"offset-list\":[0]}}"),
        format!("{{\"wid\":1,\"digest-list\":{many},\"offset-list\":[0]}}"),
        format!("{{\"wid\":1,\"digest-list\":{deep},\"offset-list\":[0]}}"),
        "\u{0}".repeat(1000),
        "x".repeat(1 << 20),
    ];
    for body in bodies {
        let shown: String = body.chars().take(90).collect();
        let json = [("content-type", "application/json")];
        let reply = backup.session.call("PUT", "/dynamic_index", &json, body.into()).await.expect(&shown);
        assert!((400..=404).contains(&reply.status), "{shown}: {} {}", reply.status, reply.text());
    }
    // Nothing of all that was applied.
    backup.append(&mut writer, &[&chunk]).await.expect(200, "");
    backup.post(&writer.close_target()).await.expect(200, "");
    backup.leave(&daemon).await;
}

#[tokio::test]
async fn chunk_bodies_shorter_longer_and_never_ending() {
    let daemon = Daemon::start();
    let backup = Backup::start(&daemon, Place::host("m", 0)).await;
    let writer = backup.create("a.pxar.didx", 0, "").await;
    let chunk = Chunk::made(1, 50_000);
    let target = Backup::chunk_target(&writer, &chunk);
    let send = async |body: Bytes| backup.session.call("POST", &target, &[], body).await.expect("an answer");
    send(Bytes::new()).await.expect(400, "");
    send(chunk.encoded.slice(1..)).await.expect(400, "");
    send([&chunk.encoded[..], b"x"].concat().into()).await.expect(400, "uploaded chunk is larger than announced.");

    // Far more than announced: refused without reading it all.
    let mut endless = backup.session.open("POST", &target, &[], false).await.unwrap();
    for _ in 0..64 {
        if endless.send(Bytes::from(vec![0; 1 << 20]), false).is_err() {
            break;
        }
    }
    endless.answer().await.unwrap().expect(400, "");

    // Bodies that never end hold up nobody, also not the end of the session.
    let mut hanging = Vec::new();
    for _ in 0..20 {
        let mut stream = backup.session.open("POST", &target, &[], false).await.unwrap();
        stream.send(chunk.encoded.slice(..20), false).unwrap();
        hanging.push(stream);
    }
    backup.upload(&writer, &chunk).await.expect(200, "");
    hanging.pop().unwrap().reset();
    backup.session.cut();
    drop(hanging);
    daemon.idle().await;
    assert!(!daemon.has(Place::host("m", 0).dir()));
    assert_still_serves(&daemon, "after").await;
}

#[tokio::test]
async fn chunks_that_are_not_what_they_say() {
    let daemon = Daemon::start();
    let backup = Backup::start(&daemon, Place::host("m", 0)).await;
    let writer = backup.create("a.pxar.didx", 0, "").await;
    let good = Chunk::made(1, 50_000);
    let other = Chunk { digest: ZEROS.into(), ..good.clone() };
    backup.upload(&writer, &other).await.expect(400, "detected chunk with wrong digest.");
    let longer = Chunk { size: 50_001, ..good.clone() };
    backup.upload(&writer, &longer).await.expect(400, "");
    let cut = Chunk { encoded: upload::zstd_blob(&good.encoded[12..good.encoded.len() - 5]), ..good.clone() };
    backup.upload(&writer, &cut).await.expect(400, "");

    // 2 GiB of zeros in 64 KiB, said to be 4 MiB: decoding stops at what was announced.
    let mut bomb = Vec::new();
    let part = zstd::bulk::compress(&vec![0; 128 << 20], 19).unwrap();
    for _ in 0..16 {
        bomb.extend_from_slice(&part);
    }
    let bomb = Chunk { digest: ZEROS.into(), size: FIXED_CHUNK_BYTES, encoded: upload::zstd_blob(&bomb) };
    let before = peak_memory_kib(&daemon);
    backup.upload(&writer, &bomb).await.expect(400, "");
    let grown = peak_memory_kib(&daemon).saturating_sub(before);
    assert!(grown < 256 * 1024, "the daemon grew by {grown} KiB");

    // The CRC of a chunk is the server's to set.
    let mut wrong_crc = good.encoded.to_vec();
    wrong_crc[9] ^= 0xff;
    backup.upload(&writer, &Chunk { encoded: wrong_crc.into(), ..good.clone() }).await.expect(200, "");
    assert_eq!(std::fs::read(daemon.store().join(good.path())).unwrap(), good.encoded);
    backup.leave(&daemon).await;
}

fn peak_memory_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("its status");
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[tokio::test]
async fn indexes_closed_twice_and_finish_out_of_turn() {
    let daemon = Daemon::start();
    let mut backup = Backup::start(&daemon, Place::host("m", 0)).await;
    backup.finish().await.expect(400, "backup does not contain valid files (file count == 0)");
    let chunk = Chunk::made(1, 1000);
    let mut writer = backup.create("a.pxar.didx", 0, "").await;
    backup.upload(&writer, &chunk).await.expect(200, "");
    backup.append_at(&writer, &[(ZEROS, 0)]).await.expect(400, "no such chunk");
    backup.append(&mut writer, &[&chunk]).await.expect(200, "");
    backup.finish().await.expect(400, "found open index writer - unable to finish backup");
    backup.close(&writer).await.expect(200, "");
    backup.post(&writer.close_target()).await.expect(400, "dynamic writer '1' not registered");
    backup.finish().await.expect(400, "unable to update manifest blob");
    // A manifest that lists what was never stored, and one with another checksum.
    let honest = backup.manifest_value();
    let mut lies = [honest.clone(), honest.clone(), honest.clone()];
    lies[0]["files"][0]["filename"] = "never.pxar.didx".into();
    lies[1]["files"][0]["csum"] = ZEROS.into();
    lies[2]["backup-id"] = "other".into();
    for lie in lies {
        let blob = upload::encode_blob(lie.to_string().as_bytes());
        backup.raw_blob("index.json.blob", blob).await.expect(200, "");
        let refused = backup.finish().await;
        assert_eq!(refused.status, 400, "{lie} was accepted");
        assert!(!daemon.has(format!("{}/index.json.blob", backup.place.dir())));
    }
    backup.manifest().await.expect(200, "");
    backup.finish().await.expect(200, "");
    backup.finish().await.expect(400, "backup already marked as finished.");
    for reply in [
        backup.post("/dynamic_index?archive-name=late.didx").await,
        backup.raw_blob("late.conf.blob", upload::encode_blob(b"late")).await,
        backup.manifest().await,
    ] {
        reply.expect(400, "backup already marked as finished.");
    }
    backup.session.close().await;
    daemon.idle().await;
    assert!(upload::read_archive(&daemon, &Place::host("m", 0), "a.pxar.didx").await == upload::made_bytes(1, 1000));
}

#[tokio::test]
async fn a_second_backup_of_the_group_waits_for_nobody() {
    let daemon = Daemon::start();
    let first = Backup::start(&daemon, Place::host("m", 0)).await;
    for hours in [0, 1] {
        let refused = ask_backup(&daemon, &Place::host("m", hours), "").await.refused();
        refused.expect(400, "another backup is already running");
    }
    let other = Backup::start(&daemon, Place::host("n", 0)).await;
    other.session.close().await;
    first.leave(&daemon).await;
    Backup::start(&daemon, Place::host("m", 0)).await.leave(&daemon).await;
}
