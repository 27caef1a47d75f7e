//! Bad input and faults: whatever a client sends or a disk does, the daemon answers in words, holds no lock, loses no
//! finished snapshot, and serves the next one.

use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;

use crate::support::daemon::{Daemon, STORE, Setup, make_store, temp_dir};
use crate::support::loopfs::LoopFs;
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, ask_backup, ask_reader, rest};
use crate::support::wire::Conn;

const ARCHIVE: &str = "disk.img.fidx";

/// Names that no file, group or archive may have.
fn bad_names() -> Vec<String> {
    let mut names: Vec<String> =
        ["..", ".", ".hidden", "a/b", "../../etc/passwd", "a\0b", "", " ", "a b", "é", "a\nb", "%2e%2e", "-a", "a\\b"]
            .map(str::to_owned)
            .to_vec();
    names.push("n".repeat(10_240) + "/");
    names
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// It still does its work: a whole backup and a restore.
async fn assert_still_serves(daemon: &Daemon, id: &str) {
    let place = Place::host(id, 0);
    let chunk = Chunk::made(77, 5000);
    upload::full_backup(daemon, place.clone(), "a.pxar.didx", std::slice::from_ref(&chunk)).await;
    assert!(upload::read_archive(daemon, &place, "a.pxar.didx").await == upload::made_bytes(77, 5000));
}

/// Every call of REST and of both protocols with each of its parameters wrong in every way.
struct Call {
    method: &'static str,
    path: &'static str,
    /// Name and a value that would do.
    params: &'static [(&'static str, &'static str)],
    /// Those that may be left out.
    optional: &'static [&'static str],
}

const SNAPSHOT: [(&str, &str); 3] = [("backup-type", "host"), ("backup-id", "x"), ("backup-time", "1717597418")];

const REST_CALLS: &[Call] = &[
    Call { method: "GET", path: "version", params: &[], optional: &[] },
    Call { method: "GET", path: "admin/datastore", params: &[], optional: &[] },
    Call {
        method: "GET",
        path: "admin/datastore/golden/status",
        params: &[("verbose", "true")],
        optional: &["verbose"],
    },
    Call { method: "GET", path: "admin/datastore/golden/groups", params: &[("ns", "")], optional: &["ns"] },
    Call {
        method: "GET",
        path: "admin/datastore/golden/snapshots",
        params: &[("ns", ""), ("backup-type", "host"), ("backup-id", "x")],
        optional: &["ns", "backup-type", "backup-id"],
    },
    Call { method: "DELETE", path: "admin/datastore/golden/snapshots", params: &SNAPSHOT, optional: &[] },
    Call { method: "GET", path: "admin/datastore/golden/files", params: &SNAPSHOT, optional: &[] },
    Call {
        method: "GET",
        path: "admin/datastore/golden/namespace",
        params: &[("parent", ""), ("max-depth", "3")],
        optional: &["parent", "max-depth"],
    },
    Call { method: "POST", path: "admin/datastore/golden/namespace", params: &[("name", "new")], optional: &[] },
    Call { method: "DELETE", path: "admin/datastore/golden/namespace", params: &[("ns", "new")], optional: &[] },
    Call { method: "POST", path: "admin/datastore/golden/upload-backup-log", params: &SNAPSHOT, optional: &[] },
    Call {
        method: "GET",
        path: "backup",
        params: &[("store", STORE), SNAPSHOT[0], SNAPSHOT[1], SNAPSHOT[2], ("benchmark", "false"), ("debug", "true")],
        optional: &["benchmark", "debug"],
    },
    Call {
        method: "GET",
        path: "reader",
        params: &[("store", STORE), SNAPSHOT[0], SNAPSHOT[1], SNAPSHOT[2], ("debug", "true")],
        optional: &["debug"],
    },
];

fn query(params: &[(&str, &str)]) -> String {
    let pairs = params.iter().map(|(n, v)| format!("{n}={}", encoded(v)));
    pairs.collect::<Vec<_>>().join("&")
}

/// The ways in which a parameter list can be wrong: what is wrong, and the query.
fn wrong_queries(call: &Call) -> Vec<(String, String)> {
    let mut all = vec![("unknown".to_owned(), format!("{}&no-such=1", query(call.params)))];
    for (i, (name, value)) in call.params.iter().enumerate() {
        let without: Vec<_> = call.params.iter().filter(|(n, _)| n != name).copied().collect();
        if !call.optional.contains(name) {
            all.push((format!("{name} missing"), query(&without)));
        }
        all.push((format!("{name} twice"), format!("{}&{name}={}", query(call.params), encoded(value))));
        let mut bad: Vec<String> = match *name {
            "verbose" | "debug" | "benchmark" => ["maybe", "2", "", "truetrue"].map(str::to_owned).to_vec(),
            "backup-time" => ["0", "-1", "1.5", "abc", "", "99999999999999999999", "0x10"].map(str::to_owned).to_vec(),
            "max-depth" => ["8", "-1", "x"].map(str::to_owned).to_vec(),
            "size" | "encoded-size" | "wid" | "chunk-count" => {
                ["-1", "x", "", "1e3", "18446744073709551616"].map(str::to_owned).to_vec()
            }
            "backup-type" => ["VM", "qemu", "", "../host"].map(str::to_owned).to_vec(),
            "digest" => vec!["xyz".into(), "A".repeat(64), "0".repeat(63), "0".repeat(65), String::new()],
            "csum" => vec!["xyz".into(), "0".repeat(62)],
            "ns" | "parent" => {
                ["..", "a//b", "a/../b", "/a", "a/", "a b", "a/b/c/d/e/f/g/h"].map(str::to_owned).to_vec()
            }
            _ => bad_names(),
        };
        bad.retain(|v| v != value);
        for value in bad {
            let mut params: Vec<(&str, &str)> = call.params.to_vec();
            params[i].1 = &value;
            let shown: String = value.chars().take(30).collect();
            all.push((format!("{name} = {shown:?}"), query(&params)));
        }
    }
    all
}

#[tokio::test]
async fn rest_calls_with_wrong_parameters() {
    let daemon = Daemon::start();
    let auth = daemon.authorization();
    let mut faults = Vec::new();
    for call in REST_CALLS {
        for (what, query) in wrong_queries(call) {
            let target = format!("/api2/json/{}?{query}", call.path);
            let mut conn = Conn::open(daemon.peer()).await.unwrap();
            let reply = conn.call(call.method, &target, &[("authorization", &auth)], b"").await;
            match reply {
                Ok(r) if (400..=414).contains(&r.status) && (!r.body.is_empty() || r.status == 414) => {}
                Ok(r) => faults.push(format!("{} {} {what}: {} {:?}", call.method, call.path, r.status, r.text())),
                Err(e) => faults.push(format!("{} {} {what}: {e}", call.method, call.path)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_still_serves(&daemon, "after").await;
}

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const SESSION_CALLS: &[Call] = &[
    Call { method: "POST", path: "blob", params: &[("file-name", "x.blob"), ("encoded-size", "13")], optional: &[] },
    Call { method: "POST", path: "dynamic_index", params: &[("archive-name", "x.didx")], optional: &[] },
    Call { method: "POST", path: "fixed_index", params: &[("archive-name", "x.fidx"), ("size", "5")], optional: &[] },
    Call {
        method: "POST",
        path: "fixed_chunk",
        params: &[("wid", "1"), ("digest", ZEROS), ("size", "5"), ("encoded-size", "17")],
        optional: &[],
    },
    Call {
        method: "POST",
        path: "dynamic_chunk",
        params: &[("wid", "1"), ("digest", ZEROS), ("size", "5"), ("encoded-size", "17")],
        optional: &[],
    },
    Call {
        method: "POST",
        path: "fixed_close",
        params: &[("wid", "1"), ("chunk-count", "1"), ("size", "5"), ("csum", ZEROS)],
        optional: &[],
    },
    Call {
        method: "POST",
        path: "dynamic_close",
        params: &[("wid", "1"), ("chunk-count", "1"), ("size", "5"), ("csum", ZEROS)],
        optional: &[],
    },
    Call { method: "GET", path: "previous", params: &[("archive-name", "x.fidx")], optional: &[] },
    Call { method: "GET", path: "previous_backup_time", params: &[], optional: &[] },
    Call { method: "POST", path: "finish", params: &[], optional: &[] },
];

const READER_CALLS: &[Call] = &[
    Call { method: "GET", path: "download", params: &[("file-name", "x.blob")], optional: &[] },
    Call { method: "GET", path: "chunk", params: &[("digest", ZEROS)], optional: &[] },
    Call { method: "GET", path: "speedtest", params: &[], optional: &[] },
];

#[tokio::test]
async fn session_calls_with_wrong_parameters() {
    let daemon = Daemon::start();
    assert_still_serves(&daemon, "base").await;
    let backup = Backup::start(&daemon, Place::host("m", 0)).await;
    let reader = ask_reader(&daemon, &Place::host("base", 0)).await.session();
    let mut faults = Vec::new();
    for (session, calls) in [(&backup.session, SESSION_CALLS), (&reader, READER_CALLS)] {
        for call in calls {
            for (what, query) in wrong_queries(call) {
                let target = format!("/{}?{query}", call.path);
                match session.call(call.method, &target, &[], Bytes::new()).await {
                    Ok(r) if (400..=414).contains(&r.status) && (!r.body.is_empty() || r.status == 414) => {}
                    Ok(r) => faults.push(format!("{} {what}: {} {:?}", call.path, r.status, r.text())),
                    Err(e) => faults.push(format!("{} {what}: {e}", call.path)),
                }
            }
        }
        for (method, target) in
            [("GET", "/nosuch"), ("PATCH", "/finish"), ("DELETE", "/"), ("GET", "/../x"), ("POST", "//")]
        {
            let reply = session.call(method, target, &[], Bytes::new()).await.expect("an answer");
            assert!((400..=404).contains(&reply.status), "{method} {target}: {}", reply.status);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // After all that the session still works.
    backup.create("b.pxar.didx", 0, "").await;
    reader.close().await;
    backup.leave(&daemon).await;
    assert_still_serves(&daemon, "after").await;
}

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

async fn do_steps(backup: &mut Backup, new: &Chunk, last: u64, kept: &mut Vec<crate::support::wire::OpenStream>) {
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

#[tokio::test]
async fn malformed_http() {
    let daemon = Daemon::start();
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(20_000));
    for bytes in [
        &b"\r\n\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0xff; 5000],
        huge.as_bytes(),
        many.as_bytes(),
    ] {
        let mut conn = Conn::open(daemon.peer()).await.unwrap();
        if conn.send_raw(bytes).await.is_ok() && conn.end_sending().await.is_ok() {
            match tokio::time::timeout(Duration::from_secs(20), conn.receive(false)).await {
                Ok(Ok(reply)) => assert!((400..=505).contains(&reply.status), "{}", reply.status),
                Ok(Err(_)) => {}
                Err(_) => {
                    panic!("{:?}: neither an answer nor an end", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]))
                }
            }
        }
    }
    assert_still_serves(&daemon, "after").await;
}

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

/// Runs `serve` and expects it to end by itself with a failure; what it said.
fn refused_start(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
    command.arg("serve").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start the daemon");
    let started = std::time::Instant::now();
    while child.try_wait().expect("its state").is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().expect("kill");
            panic!("{arguments:?}: it serves");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let out = child.wait_with_output().expect("its output");
    assert!(!out.status.success(), "{arguments:?}: success");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn serve_on_a_busy_port() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = busy.local_addr().unwrap().to_string();
    let folder = temp_dir();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[server]\n").unwrap();
    let data = folder.path().join("data");
    let paths = [data.to_str().unwrap(), config.to_str().unwrap()];
    let said = refused_start(&["--data-dir", paths[0], "--config", paths[1], "--listen", &addr]);
    assert!(said.contains(&addr) && said.contains("in use"), "{said}");
}

#[test]
fn serve_on_a_directory_that_is_no_datastore() {
    let folder = temp_dir();
    let plain = folder.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    std::fs::write(plain.join("letter.txt"), "dear").unwrap();
    let absent = folder.path().join("absent");
    for path in [&plain, &absent] {
        let config = folder.path().join("config.toml");
        std::fs::write(&config, format!("[[datastore]]\nname = \"main\"\npath = {path:?}\n")).unwrap();
        let data = folder.path().join("data");
        let said = refused_start(&[
            "--data-dir",
            data.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
        ]);
        assert!(said.contains(path.to_str().unwrap()), "{said}");
    }
    assert_eq!(std::fs::read_dir(&plain).unwrap().count(), 1, "it wrote into a directory that is not its own");
    assert!(!absent.exists());
}

#[test]
fn serve_with_a_broken_configuration() {
    let folder = temp_dir();
    let config = folder.path().join("config.toml");
    for (text, wanted) in [
        ("[server]\nlisten = \"127.0.0.1:0\"\nlsiten = 3\n", [":3:", "lsiten"]),
        ("[server]\nlisten = 8007\n", [":2:", "listen"]),
        ("[server]\n\nconnections-max = 0\n", [":3:", "connections-max"]),
        ("[[datastore]]\nname = \"main\"\n", [":1:", "path"]),
        ("[[datastore]]\nname = \"x\"\npath = \"a\"\n", [":2:", "name"]),
        ("[[datastore]]\nname = \"main\"\npath = \"a\"\nengine = \"magic\"\n", [":4:", "engine"]),
        ("[server\n", [":1:", ""]),
        ("[sever]\n", [":1:", "sever"]),
    ] {
        std::fs::write(&config, text).unwrap();
        let data = folder.path().join("data");
        let said = refused_start(&["--data-dir", data.to_str().unwrap(), "--config", config.to_str().unwrap()]);
        for part in wanted {
            assert!(said.contains(part), "{text:?}: {said}");
        }
    }
    let said = refused_start(&["--config", folder.path().join("none.toml").to_str().unwrap()]);
    assert!(said.contains("none.toml"), "{said}");
}
