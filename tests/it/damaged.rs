//! Every recorded way to damage a datastore: what cannot be trusted is refused or reported with file and reason, nothing
//! panics, and no lock stays behind. Where we do better than the recorded server (spec 03 §13), the table says so.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::daemon::{Daemon, STORE, Setup, temp_dir};
use crate::support::golden::Damage;
use crate::support::upload::{self, Backup, Place, ask_backup, ask_reader, chunk_path, rest};

/// What we answer where the recorded server answered otherwise: mutation, step, status (or whether the chunk is good after
/// its upload: 1 or 0), a part of the text.
type Better = (&'static str, &'static str, u16, &'static str);

const BETTER: &[Better] = &[
    // Known chunks are checked at append; shorter than a header counts as missing.
    ("chunk-delete", "append_known", 400, "known chunk stat failed on dbc02ae4"),
    ("chunk-empty", "append_known", 400, "known chunk stat failed on dbc02ae4"),
    ("chunk-short-header", "append_known", 400, "known chunk stat failed on dbc02ae4"),
    ("chunk-is-directory", "append_known", 400, "known chunk stat failed on dbc02ae4"),
    ("didx-chunk-delete", "append_known", 400, "known chunk stat failed on 5439ac15"),
    ("chunk-dir-missing", "append_known", 400, "known chunk stat failed on dbc02ae4"),
    // An upload heals a shorter file whose CRC is wrong, and a prefix directory that is gone.
    ("chunk-half", "good_after_reupload", 1, ""),
    ("chunk-short-header", "good_after_reupload", 1, ""),
    ("chunk-dir-missing", "reupload_chunk", 200, ""),
    ("chunk-dir-missing", "good_after_reupload", 1, ""),
    // What is no chunk at all is not sent, and from then on its upload is written in any case.
    ("chunk-empty", "reader_chunk", 400, "dbc02ae4"),
    ("chunk-short-header", "reader_chunk", 400, "dbc02ae4"),
    ("chunk-magic", "reader_chunk", 400, "dbc02ae4"),
    ("chunk-magic", "good_after_reupload", 1, ""),
    // An index that contradicts itself is refused before anybody uses it.
    ("fidx-chunksize-0", "reader_download_archive", 400, "drive-scsi0.img.fidx"),
    ("fidx-chunksize-0", "previous_archive", 400, "drive-scsi0.img.fidx"),
    ("fidx-chunksize-odd", "reader_download_archive", 400, "drive-scsi0.img.fidx"),
    ("fidx-chunksize-odd", "previous_archive", 400, "drive-scsi0.img.fidx"),
    ("didx-ends-decrease", "reader_download_archive", 400, "root.pxar.didx"),
    ("didx-ends-decrease", "previous_archive", 400, "root.pxar.didx"),
    ("fidx-chunksize-odd", "reader_chunk", 401, "not allowed"),
    ("didx-ends-decrease", "reader_chunk", 401, "not allowed"),
];

#[tokio::test]
async fn damaged_chunks() {
    play(|id| id.starts_with("chunk-") || id.starts_with("didx-chunk-")).await;
}

#[tokio::test]
async fn damaged_indexes() {
    play(|id| (id.starts_with("fidx-") || id.starts_with("didx-")) && !id.starts_with("didx-chunk-")).await;
}

#[tokio::test]
async fn damaged_manifests() {
    play(|id| id.starts_with("manifest-")).await;
}

#[tokio::test]
async fn damaged_blobs_owners_and_strays() {
    play(|id| ["blob-", "owner-", "stray-"].iter().any(|p| id.starts_with(p))).await;
}

async fn play(which: impl Fn(&str) -> bool) {
    let Some(damage) = Damage::unpack() else { return };
    let mut faults = Vec::new();
    let mut count = 0;
    for mutation in &damage.mutations {
        let id = mutation["id"].as_str().expect("an id");
        if which(id) {
            count += 1;
            faults.extend(one(&damage, mutation).await.into_iter().map(|f| format!("{id}: {f}")));
        }
    }
    assert!(count > 0);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Plays one mutation; what is not as wanted.
async fn one(damage: &Damage, mutation: &Value) -> Vec<String> {
    let folder = temp_dir();
    let store = folder.path().join("damaged");
    damage.copy(mutation, &store);
    // Append and finish checks are what is recorded against; the preflight has stories of its own.
    let setup = Setup { store: Some(store), is_checked: false, checks: [true, true, false], ..Setup::default() };
    let daemon = Daemon::with(setup);
    let results = steps(&daemon, &damage.pristine(), mutation).await;
    daemon.idle().await;
    let mut faults = judge(mutation, &results);
    faults.extend(no_lock_is_left(&daemon, mutation).await);
    faults
}

type Results = BTreeMap<&'static str, (u16, String)>;

fn target(mutation: &Value) -> Place {
    let text = mutation["target_snapshot"].as_str().expect("a snapshot");
    let parts: Vec<&str> = text.split('/').collect();
    let time = ringvault::clock::EpochSecs::from_utc_name(parts[2]).expect("a time");
    Place { ns: String::new(), kind: parts[0].into(), id: parts[1].into(), time: time.0 }
}

async fn steps(daemon: &Daemon, pristine: &Path, mutation: &Value) -> Results {
    let mut results = Results::new();
    let place = target(mutation);
    let archive = mutation["archive"].as_str().expect("an archive");
    let digest = mutation["digest"].as_str().expect("a digest");
    let base = format!("/api2/json/admin/datastore/{STORE}");
    let mut note = |step, reply: upload::Answer| {
        let text = if reply.body.len() < 2000 { reply.text() } else { String::new() };
        results.insert(step, (reply.status, text));
    };
    note("list_snapshots", rest(daemon, "GET", &format!("{base}/snapshots"), b"").await);
    note("list_group", rest(daemon, "GET", &format!("{base}/groups"), b"").await);
    note("files", rest(daemon, "GET", &format!("{base}/files?{}", place.query()), b"").await);

    match ask_reader(daemon, &place).await {
        upload::Asked::Refused(reply) => note("reader_upgrade", reply),
        upload::Asked::Session(reply, reader) => {
            note("reader_upgrade", reply);
            let get =
                async |target: String| reader.call("GET", &target, &[], bytes::Bytes::new()).await.expect("an answer");
            note("reader_download_manifest", get("/download?file-name=index.json.blob".into()).await);
            note("reader_download_archive", get(format!("/download?file-name={archive}")).await);
            note("reader_chunk", get(format!("/chunk?digest={digest}")).await);
            reader.close().await;
        }
    }

    let next = Place { time: place.time + 86_400, ..place.clone() };
    match ask_backup(daemon, &next, "").await {
        upload::Asked::Refused(reply) => note("next_backup_upgrade", reply),
        upload::Asked::Session(reply, session) => {
            note("next_backup_upgrade", reply);
            let backup = Backup::from_session(session, next);
            note("previous_backup_time", backup.get("/previous_backup_time").await);
            note("previous_manifest", backup.get("/previous?archive-name=index.json.blob").await);
            let previous = backup.get(&format!("/previous?archive-name={archive}")).await;
            let size = size_of(&previous.body, archive, digest);
            note("previous_archive", previous);
            if let Some(size) = size {
                let name = format!("again.{}", archive.rsplit('.').next().expect("an extension"));
                let writer = backup.create(&name, size, "").await;
                note("append_known", backup.append_at(&writer, &[(digest, 0)]).await);
                if let Ok(encoded) = std::fs::read(pristine.join(chunk_path(digest))) {
                    let chunk = upload::Chunk { digest: digest.into(), size, encoded: encoded.into() };
                    note("reupload_chunk", backup.upload(&writer, &chunk).await);
                }
            }
            backup.session.close().await;
        }
    }
    daemon.idle().await;
    if let Ok(whole) = std::fs::read(pristine.join(chunk_path(digest))) {
        let good = std::fs::read(daemon.store().join(chunk_path(digest))).is_ok_and(|now| now == whole);
        results.insert("good_after_reupload", (u16::from(good), String::new()));
    }
    results
}

/// The plain size of a chunk that an index names, by the index.
fn size_of(index: &[u8], archive: &str, digest: &str) -> Option<u64> {
    let wanted = hex::decode(digest).expect("hex");
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    if index.len() <= 4096 {
        return None;
    }
    if archive.ends_with(".fidx") {
        return index[4096..].chunks(32).any(|d| d == wanted).then_some(upload::FIXED_CHUNK_BYTES);
    }
    let mut start = 0;
    for entry in index[4096..].chunks(40).filter(|e| e.len() == 40) {
        let end = number(&entry[..8]);
        if entry[8..] == wanted {
            return end.checked_sub(start);
        }
        start = end;
    }
    None
}

fn judge(mutation: &Value, results: &Results) -> Vec<String> {
    let id = mutation["id"].as_str().expect("an id");
    let recorded = &mutation["pbs_3.2.4"];
    let steps = [
        "list_snapshots",
        "list_group",
        "files",
        "reader_upgrade",
        "reader_download_manifest",
        "reader_download_archive",
        "reader_chunk",
        "next_backup_upgrade",
        "previous_backup_time",
        "previous_manifest",
        "previous_archive",
        "append_known",
        "reupload_chunk",
        "good_after_reupload",
    ];
    let mut faults = Vec::new();
    for step in steps {
        let better = BETTER.iter().find(|(i, s, _, _)| *i == id && *s == step);
        let theirs = match step {
            "good_after_reupload" => recorded["after_reupload"]["good"].as_bool().map(u64::from),
            _ => recorded[step]["status"].as_u64(),
        };
        let (wanted, part) = match (better, theirs) {
            (Some((_, _, status, part)), _) => (u64::from(*status), *part),
            (None, Some(status)) => (status, ""),
            (None, None) => continue,
        };
        match results.get(step) {
            None => faults.push(format!("{step}: not reached, {wanted} wanted")),
            Some((status, text)) if u64::from(*status) != wanted || !text.contains(part) => {
                faults.push(format!("{step}: {status} {text:?}, but {wanted} {part:?} wanted"));
            }
            // What is refused says which file it is about.
            Some((400, text)) if better.is_none() && !names_a_file(text, &recorded[step]["text"]) => {
                faults.push(format!("{step}: {text:?} names no file, recorded: {}", recorded[step]["text"]));
            }
            Some(_) => {}
        }
    }
    faults
}

/// Whether a refusal names the file, digest or group that the recorded one names.
fn names_a_file(ours: &str, recorded: &Value) -> bool {
    let recorded = recorded.as_str().unwrap_or_default();
    let names: Vec<&str> = recorded.split([' ', '"', '\'', '/']).filter(|w| w.contains('.') || w.len() == 64).collect();
    let telling: Vec<&&str> = names.iter().filter(|w| w.len() > 8 && !w.ends_with('.')).collect();
    telling.is_empty() || telling.iter().any(|w| ours.contains(**w))
}

/// The group and the snapshot can be locked again: the snapshot can be removed, unless it is protected or was never whole.
async fn no_lock_is_left(daemon: &Daemon, mutation: &Value) -> Option<String> {
    let place = target(mutation);
    let base = format!("/api2/json/admin/datastore/{STORE}/snapshots?{}", place.query());
    let reply = rest(daemon, "DELETE", &base, b"").await;
    if reply.status == 200 {
        return None;
    }
    let text = reply.text();
    text.contains("lock").then(|| format!("a lock is left: {text}"))
}
