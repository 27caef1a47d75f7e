//! A datastore of the original server, unpacked and served: everything is listed as it was, and comes back bit for bit.

use std::collections::{BTreeMap, BTreeSet};

use aes_gcm::aead::consts::U16;
use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{AesGcm, Nonce};
use serde_json::Value;

use crate::support::daemon::{Daemon, STORE, Setup, temp_dir};
use crate::support::upload::{self, Place, ask_reader, rest, sha256};
use crate::support::{compare, golden};

/// AES-256-GCM with the 16-byte IV of spec 02 §1.
type BlobCipher = AesGcm<aes_gcm::aes::Aes256, U16>;

struct Adopted {
    /// Before its folder, so that the daemon ends first.
    daemon: Daemon,
    expected: Value,
    _folder: tempfile::TempDir,
}

fn adopt() -> Option<Adopted> {
    if golden::is_absent() {
        return None;
    }
    let folder = temp_dir();
    let store = folder.path().join("pbsstore");
    golden::unpack_datastore(&store);
    // The recorded store has a hole and a leftover, which the checker would report.
    let daemon = Daemon::with(Setup { store: Some(store), is_checked: false, ..Setup::default() });
    Some(Adopted { daemon, expected: golden::expected(), _folder: folder })
}

fn place_of(snapshot: &Value) -> Place {
    let text = |key: &str| snapshot[key].as_str().unwrap_or_default().to_owned();
    Place {
        ns: text("ns"),
        kind: text("backup-type"),
        id: text("backup-id"),
        time: snapshot["backup-time"].as_i64().expect("a time"),
    }
}

fn by_namespace(items: &Value) -> BTreeMap<String, Vec<&Value>> {
    let mut found: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for item in items.as_array().expect("a list") {
        found.entry(item["ns"].as_str().unwrap_or_default().to_owned()).or_default().push(item);
    }
    found
}

fn sorted(list: Vec<Value>) -> Value {
    compare::sorted(Value::Array(list))
}

#[tokio::test]
async fn everything_is_listed_as_it_was() {
    let Some(Adopted { daemon, expected, _folder }) = adopt() else { return };
    let base = format!("/api2/json/admin/datastore/{STORE}");
    let list = |of: &Value| -> Vec<Value> { of.as_array().expect("a list").clone() };

    let namespaces = rest(&daemon, "GET", &format!("{base}/namespace"), b"").await.data();
    let names: BTreeSet<&str> = namespaces.as_array().unwrap().iter().map(|n| n["ns"].as_str().unwrap()).collect();
    let wanted: BTreeSet<&str> = expected["namespaces"].as_array().unwrap().iter().map(ns_of).collect();
    assert_eq!(names, wanted);

    for (ns, groups) in by_namespace(&expected["groups"]) {
        let found = rest(&daemon, "GET", &format!("{base}/groups?ns={}", ns.replace('/', "%2F")), b"").await.data();
        let wanted = groups.iter().filter(|g| !g["listed"].is_null()).map(|g| without_line_end(&g["listed"])).collect();
        assert_eq!(sorted(list(&found)), sorted(wanted), "groups of {ns:?}");
    }
    for (ns, snapshots) in by_namespace(&expected["snapshots"]) {
        let found = rest(&daemon, "GET", &format!("{base}/snapshots?ns={}", ns.replace('/', "%2F")), b"").await.data();
        let wanted = snapshots.iter().map(|s| s["listed"].clone()).collect();
        assert_eq!(sorted(list(&found)), sorted(wanted), "snapshots of {ns:?}");
    }
    for snapshot in expected["snapshots"].as_array().unwrap() {
        let place = place_of(snapshot);
        let found = rest(&daemon, "GET", &format!("{base}/files?{}", place.query()), b"").await;
        match snapshot["files_listing"].as_array() {
            Some(wanted) => assert_eq!(sorted(list(&found.data())), sorted(wanted.clone()), "{}", place.dir()),
            None => assert_eq!(found.status, 400, "{}: {}", place.dir(), found.text()),
        }
    }
    let status = rest(&daemon, "GET", &format!("{base}/status?verbose=true"), b"").await.data();
    for part in ["counts", "gc-status"] {
        assert_eq!(status[part], expected["status_verbose"][part], "{part}");
    }
    // What the last run left in the datastore; when it ran here is not known here.
    let collected = rest(&daemon, "GET", &format!("{base}/gc"), b"").await.data();
    for (name, value) in expected["gc_rest"].as_object().unwrap() {
        match name.as_str() {
            "store" => assert_eq!(collected[name], STORE),
            "duration" | "last-run-endtime" | "last-run-state" => assert!(collected.get(name).is_none(), "{name}"),
            _ => assert_eq!(&collected[name], value, "{name}"),
        }
    }
}

/// The recorded comment of a group ends with the line's end, ours does not (spec 01 §3).
fn without_line_end(group: &Value) -> Value {
    let mut group = group.clone();
    if let Some(comment) = group["comment"].as_str() {
        group["comment"] = comment.trim_end().into();
    }
    group
}

fn ns_of(item: &Value) -> &str {
    item.as_str().or(item["ns"].as_str()).expect("a namespace")
}

/// The archives of all snapshots that have a manifest: place, file name, description.
fn archives(expected: &Value) -> Vec<(Place, String, Value)> {
    let mut all = Vec::new();
    for snapshot in expected["snapshots"].as_array().expect("snapshots") {
        for (name, about) in snapshot["archives"].as_object().expect("archives") {
            all.push((place_of(snapshot), name.clone(), about.clone()));
        }
    }
    all
}

#[tokio::test]
async fn every_archive_comes_back_with_the_right_checksum() {
    let Some(Adopted { daemon, expected, _folder }) = adopt() else { return };
    let key = golden::enc_key("enc.key");
    let mut count = 0;
    for (place, name, about) in archives(&expected) {
        let wanted = about["plaintext_sha256"].as_str();
        let reader = ask_reader(&daemon, &place).await.session();
        let get =
            async |target: String| reader.call("GET", &target, &[], bytes::Bytes::new()).await.expect("an answer");
        let file = get(format!("/download?file-name={name}")).await;
        assert_eq!(file.status, 200, "{} {name}: {}", place.dir(), file.text());
        let mut plain = Vec::new();
        let mut missing = false;
        if name.ends_with(".blob") {
            plain = open_blob(&file.body, &key);
        } else {
            for chunk in about["chunks"].as_array().expect("chunks") {
                let digest = chunk[0].as_str().expect("a digest");
                let reply = get(format!("/chunk?digest={digest}")).await;
                if reply.status == 400 && wanted.is_none() {
                    missing = true;
                    continue;
                }
                assert_eq!(reply.status, 200, "{} {name} {digest}: {}", place.dir(), reply.text());
                let part = open_blob(&reply.body, &key);
                assert_eq!(Some(part.len() as u64), chunk[1].as_u64(), "{digest}");
                plain.extend_from_slice(&part);
            }
        }
        match wanted {
            Some(wanted) => assert_eq!(sha256(&plain), wanted, "{} {name}", place.dir()),
            None => assert!(missing, "{} {name}: nothing was missing", place.dir()),
        }
        count += 1;
        reader.close().await;
    }
    assert!(count >= 25, "only {count} archives");
    daemon.idle().await;
}

/// A blob's plain bytes, encrypted or not.
fn open_blob(blob: &[u8], key: &[u8; 32]) -> Vec<u8> {
    let is_zstd = match hex::encode(&blob[..8]).as_str() {
        "7b6785be222d4cf0" => false,
        "e6591bbf0bbfd80b" => true,
        _ => return upload::decode_blob(blob),
    };
    assert_eq!(blob[8..12], crc32fast::hash(&blob[44..]).to_le_bytes(), "CRC of a blob");
    let nonce = Nonce::<U16>::from_slice(&blob[12..28]);
    let sealed = [&blob[44..], &blob[28..44]].concat();
    let opened = BlobCipher::new(key.into()).decrypt(nonce, sealed.as_slice()).expect("the key fits");
    if is_zstd { zstd::stream::decode_all(&opened[..]).expect("zstd") } else { opened }
}

/// Through our own client: everything that is not encrypted, and the right complaint about the rest.
#[tokio::test]
async fn our_client_restores_every_archive() {
    let Some(Adopted { daemon, expected, _folder }) = adopt() else { return };
    let target = daemon.data().join("restored");
    for (place, name, about) in archives(&expected) {
        let snapshot = place.dir().rsplit("ns/").next().map(str::to_owned).expect("a snapshot");
        let parts: Vec<&str> = snapshot.split('/').collect();
        let snapshot = parts[parts.len() - 3..].join("/");
        let mut command = daemon.client();
        command.args(["restore", "--force", &snapshot, &name]).arg(&target);
        if !place.ns.is_empty() {
            command.args(["--ns", &place.ns]);
        }
        let out = command.output().expect("run the client");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let is_encrypted = about["encoding"].as_str().is_some_and(|e| e.starts_with("encrypted"))
            || about["server_download_decoded"]["text"].as_str().is_some_and(|t| t.contains("is encrypted"));
        let has_manifest = daemon.has(format!("{}/index.json.blob", place.dir()));
        match about["plaintext_sha256"].as_str() {
            Some(wanted) if !is_encrypted && has_manifest => {
                assert!(out.status.success(), "{} {name}: {said}", place.dir());
                assert_eq!(sha256(&std::fs::read(&target).unwrap()), wanted, "{} {name}", place.dir());
            }
            _ => {
                assert!(!out.status.success(), "{} {name} was restored", place.dir());
                assert!(!said.trim().is_empty());
            }
        }
    }
    daemon.idle().await;
}
