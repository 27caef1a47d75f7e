//! Files of snapshots over REST: as they lie there, and decoded.

use std::io;

use ringvault::types::Digest;
use serde_json::Value;

use crate::support::daemon::{Daemon, STORE, Setup, temp_dir};
use crate::support::golden;
use crate::support::upload::{Place, chunk_path};
use crate::support::wire::{Conn, Reply};

/// A call whose answer may be cut off.
async fn get(daemon: &Daemon, call: &str, place: &Place, file: &str) -> io::Result<Reply> {
    let target = format!("/api2/json/admin/datastore/{STORE}/{call}?{}&file-name={file}", place.query());
    let auth = daemon.authorization();
    let mut conn = Conn::open(daemon.peer()).await.expect("connect");
    conn.call("GET", &target, &[("authorization", &auth)], b"").await
}

fn place(snapshot: &Value) -> Place {
    let text = |key: &str| snapshot[key].as_str().expect("a text").to_owned();
    let time = snapshot["backup-time"].as_i64().expect("a time");
    Place { ns: text("ns"), kind: text("backup-type"), id: text("backup-id"), time }
}

fn golden_daemon() -> (Daemon, tempfile::TempDir) {
    let folder = temp_dir();
    let store = folder.path().join(STORE);
    golden::unpack_datastore(&store);
    (Daemon::with(Setup { store: Some(store), is_checked: false, ..Setup::default() }), folder)
}

#[tokio::test]
async fn every_file_of_the_recorded_datastore_is_sent_as_it_lies_and_decoded() {
    if golden::is_absent() {
        return;
    }
    let (daemon, _folder) = golden_daemon();
    let expected = golden::expected();
    let (mut whole, mut refused) = (0, 0);
    for snapshot in expected["snapshots"].as_array().expect("snapshots") {
        let place = place(snapshot);
        for (file, facts) in snapshot["archives"].as_object().expect("archives") {
            let at = format!("{}/{file}", place.dir());
            let stored = std::fs::read(daemon.store().join(&at)).expect("a stored file");
            let raw = get(&daemon, "download", &place, file).await.expect("an answer");
            assert_eq!((raw.status, raw.header("content-type")), (200, Some("application/octet-stream")), "{at}");
            assert!(raw.body == stored, "{at}");

            let decoded = get(&daemon, "download-decoded", &place, file).await;
            let listed = snapshot["manifest"]["files"].as_array().into_iter().flatten();
            let is_encrypted = listed.into_iter().any(|f| f["filename"] == **file && f["crypt-mode"] == "encrypt");
            if is_encrypted {
                decoded.expect("an answer").expect(400, &format!("cannot decode '{file}' - is encrypted"));
                refused += 1;
            } else if snapshot["manifest"].is_null() {
                decoded.expect("an answer").expect(400, "unable to load blob '");
                refused += 1;
            } else if facts["missing_chunks"].as_array().is_some_and(|missing| !missing.is_empty()) {
                // Its first chunk or a later one: refused, or cut off, but never a short success.
                assert!(decoded.is_err() || decoded.is_ok_and(|reply| reply.status == 400), "{at}");
                refused += 1;
            } else {
                let reply = decoded.unwrap_or_else(|e| panic!("{at}: {e}"));
                assert_eq!(reply.status, 200, "{at}: {}", reply.text());
                assert_eq!(Digest::of(&reply.body).to_string(), facts["plaintext_sha256"], "{at}");
                whole += 1;
            }
        }
    }
    assert!(whole > 30 && refused >= 5, "{whole} decoded, {refused} refused");
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_recorded_words() {
    if golden::is_absent() {
        return;
    }
    let (daemon, _folder) = golden_daemon();
    let there = Place { time: 1_717_683_818, kind: "vm".into(), ..Place::host("100", 0) };
    let absent = Place { time: 1, ..there.clone() };
    for (call, place, file, text) in [
        ("download", &absent, "index.json.blob", "File open failed: No such file or directory (os error 2)"),
        ("download", &there, "nope.img.fidx", "File open failed: No such file or directory (os error 2)"),
        ("download", &there, "owner", "unknown archive type: \"owner\""),
        ("download", &there, "..%2Fowner", "parameter verification failed - 'file-name'"),
        ("download-decoded", &there, "x.txt", "unknown archive type: \"x.txt\""),
        ("download-decoded", &there, "nope.blob", "File open failed: No such file or directory (os error 2)"),
        ("download-decoded", &there, "nope.img.fidx", "unable to read fixed index '\""),
        ("download-decoded", &absent, "index.json.blob", "unable to load blob '\""),
    ] {
        get(&daemon, call, place, file).await.expect("an answer").expect(400, text);
    }
}

/// The recorded server sent the first chunk and cut the body off; a client must see an error, whichever chunk it is.
#[tokio::test]
async fn a_chunk_that_is_missing_or_wrong_cuts_the_content_off() {
    if golden::is_absent() {
        return;
    }
    let expected = golden::expected();
    let snapshots = expected["snapshots"].as_array().expect("snapshots");
    let vm = snapshots.iter().find(|s| s["backup-id"] == "100" && s["backup-time"] == 1_717_683_818).expect("vm/100");
    let file = "drive-scsi0.img.fidx";
    let chunks = vm["archives"][file]["chunks"].as_array().expect("chunks");
    let first = chunks[0][0].as_str().expect("a digest");
    let last = chunks[chunks.len() - 1][0].as_str().expect("a digest");
    type Damage = fn(&std::path::Path);
    let flip: Damage = |path| {
        let mut bytes = std::fs::read(path).expect("a chunk");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).expect("write it back");
    };
    let remove: Damage = |path| std::fs::remove_file(path).expect("remove it");
    let other: Damage = |path| {
        let blob = ringvault::format::blob::encode(&[7; 4 << 20], ringvault::format::blob::Compression::Try);
        std::fs::write(path, blob).expect("write another");
    };
    for (digest, damage) in [(last, flip), (last, other), (last, remove), (first, remove)] {
        let (daemon, _folder) = golden_daemon();
        damage(&daemon.store().join(chunk_path(digest)));
        let reply = get(&daemon, "download-decoded", &place(vm), file).await;
        if digest == first {
            reply.expect("an answer").expect(400, digest);
        } else {
            assert!(reply.is_err(), "cut off");
            assert!(
                daemon.log().contains("an answer was cut off") && daemon.log().contains(digest),
                "{}",
                daemon.log()
            );
        }
    }
}
