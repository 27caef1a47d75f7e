//! A datastore written by the original, adopted: everything is there as its own listings said, and a backup works on it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::test_support::*;
use super::{Datastore, Freshness, GroupFilter, SnapshotInfo};
use crate::engine::Class;
use crate::types::{ArchiveName, Digest, Namespace};

fn golden() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden");
    if dir.join("pbs-datastore.tar.zst").exists() {
        return Some(dir);
    }
    eprintln!("skipped: no golden data");
    None
}

fn untar(tar: &[u8], to: &Path) {
    let mut child = Command::new("tar").args(["-x", "-f", "-", "-C"]).arg(to).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), tar).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The datastore and what is expected of it.
fn unpack(to: &Path) -> Option<(PathBuf, Value)> {
    let golden = golden()?;
    let tar = zstd::decode_all(std::fs::File::open(golden.join("pbs-datastore.tar.zst")).unwrap()).unwrap();
    untar(&tar, to);
    let expected = std::fs::File::open(golden.join("expected.json")).unwrap();
    Some((to.join("pbsstore"), serde_json::from_reader(std::io::BufReader::new(expected)).unwrap()))
}

fn namespace(value: &Value) -> Namespace {
    value["ns"].as_str().unwrap().parse().unwrap()
}

/// As the listing of spec 05 §3 shows a snapshot.
fn shown(info: &SnapshotInfo) -> Value {
    let files: Vec<Value> = info
        .files
        .iter()
        .map(|file| {
            let mut value = json!({"filename": file.filename});
            if let (Some(size), Some(mode)) = (file.size, file.crypt_mode) {
                value["size"] = size.into();
                value["crypt-mode"] = mode.as_str().into();
            }
            value
        })
        .collect();
    let mut value = json!({
        "backup-type": info.snapshot.group().ty().as_str(),
        "backup-id": info.snapshot.group().id(),
        "backup-time": info.snapshot.time().0,
        "files": files,
        "owner": info.owner,
        "protected": info.protected,
    });
    for (key, optional) in [
        ("size", info.size.map(Value::from)),
        ("comment", info.comment.clone().map(Value::from)),
        ("fingerprint", info.fingerprint.clone().map(Value::from)),
        ("verification", info.verification.as_ref().map(|v| json!({"state": v.state, "upid": v.upid}))),
    ] {
        if let Some(optional) = optional {
            value[key] = optional;
        }
    }
    value
}

/// The order of files that no manifest lists is that of the directory, and means nothing.
fn sorted(mut value: Value) -> Value {
    if let Some(files) = value["files"].as_array_mut() {
        files.sort_by_key(Value::to_string);
    }
    value
}

async fn check_archives(store: &Datastore, expected: &Value) {
    let ns = namespace(expected);
    let time = expected["backup-time"].as_i64().unwrap();
    let snapshot = format!("{}/{}", expected["backup-type"].as_str().unwrap(), expected["backup-id"].as_str().unwrap());
    let snapshot = crate::types::Snapshot::new(snapshot.parse().unwrap(), crate::clock::EpochSecs(time)).unwrap();
    let reader = store.begin_reader(&ns, &snapshot).await.unwrap();
    for (file, facts) in expected["archives"].as_object().unwrap() {
        let Some(chunks) = facts["chunks"].as_array() else { continue };
        let file: ArchiveName = file.parse().unwrap();
        let index = reader.open_index(&file).await.unwrap();
        assert_eq!(index.size_bytes(), facts["size"].as_u64().unwrap());
        assert_eq!(index.count(), chunks.len() as u64);
        let mut scan = index.scan();
        let mut entries = Vec::new();
        while let Some(block) = scan.next_block().await.unwrap() {
            entries.extend(block);
        }
        let found: Vec<Value> = entries.iter().map(|e| json!([e.digest, e.size_bytes])).collect();
        assert_eq!(&found, chunks, "{snapshot} {file}");
        assert_eq!(scan.csum().unwrap().to_string(), facts["index_csum"].as_str().unwrap());
        let digests: Vec<Digest> = entries.iter().map(|entry| entry.digest).collect();
        let report = store.check_chunks(digests, Class::Interactive, Freshness::Cached).await.unwrap();
        let missing: Vec<Value> = report.missing.iter().map(|(digest, _)| json!(digest)).collect();
        assert_eq!(missing, *facts["missing_chunks"].as_array().unwrap_or(&Vec::new()), "{snapshot} {file}");
        assert!(report.unchecked.is_empty());
    }
    reader.release().await;
}

#[tokio::test]
async fn the_recorded_datastore_is_listed_as_its_server_did() {
    let dir = tempfile::tempdir().unwrap();
    let Some((base, expected)) = unpack(dir.path()) else { return };
    let store = open(&base).await;
    let namespaces = store.namespaces(&root(), None).await.unwrap();
    assert_eq!(json!(namespaces.iter().map(Namespace::to_string).collect::<Vec<_>>()), expected["namespaces"]);
    for ns in &namespaces {
        let infos = store.snapshots(ns, GroupFilter::default()).await.unwrap();
        let all = expected["snapshots"].as_array().unwrap();
        let here: Vec<&Value> = all.iter().filter(|s| namespace(s) == *ns).collect();
        assert_eq!(infos.len(), here.len());
        for (info, expected) in infos.iter().zip(here) {
            assert_eq!(sorted(shown(info)), sorted(expected["listed"].clone()));
            if let Some(listed) = expected["files_listing"].as_array() {
                let files = store.files(ns, &info.snapshot).await.unwrap();
                assert_eq!(files.len(), listed.len());
            }
            check_archives(&store, expected).await;
        }
        let groups = store.groups(ns).await.unwrap();
        let all = expected["groups"].as_array().unwrap();
        assert_eq!(groups.len(), all.iter().filter(|g| namespace(g) == *ns).count());
    }
    let counts = store.counts().await.unwrap();
    let counts = json!({"ct": counts.ct, "host": counts.host, "vm": counts.vm, "other": null});
    assert_eq!(counts, expected["status_verbose"]["counts"]);
}

#[tokio::test]
async fn a_backup_on_the_recorded_datastore_builds_on_its_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let Some((base, _)) = unpack(dir.path()) else { return };
    let store = open(&base).await;
    let next = snapshot("vm/100", 48);
    let lease = store.begin_backup(&root(), &next, &auth(), false).await.unwrap();
    assert_eq!(lease.base().unwrap().snapshot, snapshot("vm/100", 24));
    let error = store.remove_snapshot(&root(), &snapshot("vm/100", 24)).await.unwrap_err();
    assert!(error.to_string().contains("possibly running or in use"), "the base is locked: {error}");
    write_backup(&store, &lease, &[1]).await.unwrap();
    let written = base.join("vm/100/2024-06-07T14:23:38Z");
    let owner = base.metadata().unwrap();
    for path in [written.clone(), written.join("disk.img.fidx"), written.join("index.json.blob")] {
        let meta = path.metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (owner.uid(), owner.gid()), "{path:?} belongs to the datastore's owner");
    }
    assert_eq!(written.join("index.json.blob").metadata().unwrap().mode() & 0o7777, 0o644);
    // A failed verification is a fact of the past: no base, whatever else the group has.
    let lease = store.begin_backup(&root(), &snapshot("vm/666", 24), &auth(), false).await.unwrap();
    assert!(lease.base().is_none());
    lease.abandon().await.unwrap();
    let crashed = base.join("host/crashed/2024-06-05T14:23:38Z");
    assert!(crashed.join("open.pxar.tmp_didx").exists(), "what another server left is not ours to clean up");
    let error = store.remove_snapshot(&root(), &snapshot("vm/100", 0)).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot remove protected snapshot");
    store.remove_snapshot(&root(), &snapshot("host/crashed", 0)).await.unwrap();
    assert!(!base.join("host/crashed").exists(), "an unfinished snapshot and its emptied group are gone");
}

#[tokio::test]
async fn the_vectors_datastore_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("mini");
    std::fs::create_dir(&base).unwrap();
    let tar = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors/mini-datastore.tar");
    untar(&std::fs::read(tar).unwrap(), &base);
    // The tar does not say whose the base is.
    let owner = base.join(".chunks").metadata().unwrap();
    std::os::unix::fs::chown(&base, Some(owner.uid()), Some(owner.gid())).unwrap();
    let store = open(&base).await;
    let groups = store.groups(&root()).await.unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].comment.as_deref(), Some("group note"));
    let listed = &groups[0].snapshots[0];
    assert!(listed.finished && listed.protected);
    let mut files = listed.files.clone();
    files.sort();
    assert_eq!(files, ["client.log.blob", "data.conf.blob", "index.json.blob", "test.img.fidx"]);
    let namespaces = store.namespaces(&root(), None).await.unwrap();
    assert_eq!(namespaces.iter().map(Namespace::to_string).collect::<Vec<_>>(), ["", "team", "team/sub"]);
    let reader = store.begin_reader(&root(), &listed.snapshot).await.unwrap();
    let index = reader.open_index(&name("test.img.fidx")).await.unwrap();
    let entries = index.scan().next_block().await.unwrap().unwrap();
    assert_eq!(entries[1].size_bytes, 1000);
    let blob = store.read_chunk(entries[1].digest).await.unwrap();
    let plain = crate::format::blob::decode(&blob, 1000, crate::format::blob::CrcPolicy::Check).unwrap();
    assert_eq!(plain, [0x41; 1000]);
    assert_eq!(
        store.upload_client_log(&root(), &listed.snapshot, blob.to_vec()).await.unwrap_err().to_string(),
        "backup already contains a log."
    );
    let file = reader.open_blob(&name("data.conf.blob")).await.unwrap();
    assert_eq!(file.read_block(0).await.unwrap().len() as u64, file.size_bytes());
    assert!(file.read_block(file.size_bytes()).await.unwrap().is_empty());
    let error = reader.open_blob(&name("nosuch.blob")).await.unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::NotFound);
    let error = reader.open_index(&name("nosuch.didx")).await.unwrap_err();
    let path = base.join("host/example/2024-06-05T14:23:38Z/nosuch.didx");
    assert_eq!(
        error.to_string(),
        format!("Unable to open dynamic index {path:?} - No such file or directory (os error 2)")
    );
}
