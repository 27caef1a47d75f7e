//! Garbage collection as an operator meets it: started over REST, told in a task log, on recorded datastores whole and damaged.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, STORE, Setup, temp_dir};
use crate::support::golden;
use crate::support::upload::{self, Backup, Chunk, Place, rest};

const ARCHIVE: &str = "disk.img.fidx";

fn target() -> String {
    format!("/api2/json/admin/datastore/{STORE}/gc")
}

/// Starts a collection and waits for its end: result and log.
pub async fn collect(daemon: &Daemon) -> (String, Vec<String>) {
    let upid = rest(daemon, "POST", &target(), b"").await.data();
    let upid = upid.as_str().expect("a UPID").to_owned();
    assert!(upid.contains(&format!(":garbage_collection:{STORE}:")), "{upid}");
    loop {
        if let Some((_, result)) = daemon.ended().into_iter().find(|(ended, _)| *ended == upid) {
            return (result, daemon.task_log(&upid));
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn status(daemon: &Daemon) -> Value {
    rest(daemon, "GET", &target(), b"").await.data()
}

/// What of a status is in the file.
fn status_file(status: &Value) -> Value {
    let mut file = status.clone();
    for key in ["store", "last-run-upid", "last-run-endtime", "last-run-state", "duration"] {
        assert!(file.as_object_mut().expect("an object").remove(key).is_some(), "{key}");
    }
    file
}

/// Makes all files of a tree look as if they were last used `secs` ago.
pub fn age(path: &Path, secs: u64) {
    let time = std::time::SystemTime::now() - std::time::Duration::from_secs(secs);
    for entry in std::fs::read_dir(path).expect("list") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            age(&entry.path(), secs);
        } else {
            let file = std::fs::File::open(entry.path()).expect("open");
            file.set_times(std::fs::FileTimes::new().set_accessed(time)).expect("set the access time");
        }
    }
}

/// Chunk files of a datastore.
fn chunks(daemon: &Daemon) -> BTreeSet<String> {
    let dirs = std::fs::read_dir(daemon.store().join(".chunks")).expect("list");
    let files = dirs.flat_map(|dir| std::fs::read_dir(dir.expect("an entry").path()).expect("list"));
    files.map(|file| file.expect("an entry").file_name().into_string().expect("a name")).collect()
}

const DAYS_2: u64 = 2 * 86_400;

#[tokio::test]
async fn a_backup_that_is_gone_frees_its_space() {
    let daemon = Daemon::start();
    assert_eq!(status(&daemon).await["disk-chunks"], 0);
    let shared = Chunk::made(0, upload::FIXED_CHUNK_BYTES);
    let (old, kept) = (Place::host("m", 0), Place::host("m", 1));
    upload::full_backup(&daemon, old.clone(), ARCHIVE, &[shared.clone(), Chunk::made(1, 1000)]).await;
    upload::full_backup(&daemon, kept.clone(), ARCHIVE, &[shared, Chunk::made(2, 1000)]).await;
    let snapshot = format!("/api2/json/admin/datastore/{STORE}/snapshots?{}", old.query());
    rest(&daemon, "DELETE", &snapshot, b"").await.expect(200, "");

    // Too young.
    let (result, log) = collect(&daemon).await;
    assert_eq!((result.as_str(), chunks(&daemon).len()), ("OK", 3), "{log:?}");

    age(&daemon.store().join(".chunks"), DAYS_2);
    let gone = Chunk::made(1, 1000);
    let bytes = std::fs::metadata(daemon.store().join(gone.path())).expect("the chunk").len();
    let (result, log) = collect(&daemon).await;
    assert_eq!(result, "OK", "{log:?}");
    assert!(!daemon.has(gone.path()) && chunks(&daemon).len() == 2);
    let begin = [
        format!("starting garbage collection on store {STORE}"),
        "Start GC phase1 (mark used chunks)".to_owned(),
        "marked 100% (1 of 1 index files)".to_owned(),
        "Start GC phase2 (sweep unused chunks)".to_owned(),
    ];
    assert_eq!(log[..4], begin);
    assert!(
        log.contains(&"Removed chunks: 1".to_owned()) && log.last().is_some_and(|line| line == "TASK OK"),
        "{log:?}"
    );
    assert!(log.iter().any(|line| line.contains("inodes looked at: 1 of chunks that nobody names")), "{log:?}");
    let now = status(&daemon).await;
    assert_eq!(
        (&now["store"], &now["removed-chunks"], &now["removed-bytes"]),
        (&json!(STORE), &json!(1), &json!(bytes))
    );
    assert_eq!((&now["disk-chunks"], &now["index-file-count"]), (&json!(2), &json!(1)));
    let verbose =
        rest(&daemon, "GET", &format!("/api2/json/admin/datastore/{STORE}/status?verbose=1"), b"").await.data();
    assert_eq!((&now["last-run-state"], now["duration"].as_i64().is_some()), (&json!("OK"), true));
    let listed = status_file(&now);
    assert_eq!(verbose["gc-status"], listed);
    let plain = [upload::made_bytes(0, upload::FIXED_CHUNK_BYTES), upload::made_bytes(2, 1000)].concat();
    assert!(upload::read_archive(&daemon, &kept, ARCHIVE).await == plain);
}

/// A running session keeps what it has sent, however long ago that was.
#[tokio::test]
async fn a_running_session_keeps_its_chunks() {
    let daemon = Daemon::start();
    let sent = Chunk::made(1, 1000);
    let mut backup = Backup::start(&daemon, Place::host("m", 0)).await;
    let mut writer = backup.create("a.pxar.didx", 0, "").await;
    backup.upload(&writer, &sent).await.expect(200, "");
    age(&daemon.store().join(".chunks"), 30 * 86_400);
    let (result, log) = collect(&daemon).await;
    assert_eq!(result, "OK", "{log:?}");
    assert!(daemon.has(sent.path()), "{log:?}");
    backup.append(&mut writer, &[&sent]).await.expect(200, "");
    backup.close(&writer).await.expect(200, "");
    backup.complete(&daemon).await;
    // Of one that ends without a snapshot nothing stays.
    let lost = Chunk::made(2, 1000);
    let backup = Backup::start(&daemon, Place::host("m", 1)).await;
    let writer = backup.create("a.pxar.didx", 0, "").await;
    backup.upload(&writer, &lost).await.expect(200, "");
    backup.leave(&daemon).await;
    age(&daemon.store().join(".chunks"), 30 * 86_400);
    collect(&daemon).await;
    assert!(daemon.has(sent.path()) && !daemon.has(lost.path()));
}

/// Another process works on the datastore: since when, nobody knows, so what it needs cannot be told from garbage.
#[tokio::test]
async fn a_datastore_that_another_process_uses_is_left_alone() {
    use ringvault::engine::{Disk, RecordLock};
    let daemon = Daemon::start();
    let lock = Disk::real().open_or_create(&daemon.store().join(".lock"), 0o644).expect("the lock file");
    lock.try_record_lock(RecordLock::Shared).expect("a share");
    let refused = rest(&daemon, "POST", &target(), b"").await;
    refused.expect(400, "another process uses this datastore");
    assert!(daemon.ended().is_empty() && daemon.running().is_empty());
    lock.try_record_lock(RecordLock::Unlocked).expect("no lock");
    assert_eq!(collect(&daemon).await.0, "OK");
}

/// The recorded datastore: what its own server found.
#[tokio::test]
async fn the_recorded_datastore_gives_the_recorded_status() {
    if golden::is_absent() {
        return;
    }
    let folder = temp_dir();
    let store = folder.path().join("golden");
    golden::unpack_datastore(&store);
    // Two hours before the run, as the one chunk that nobody names.
    age(&store.join(".chunks"), 7200);
    let daemon = Daemon::with(Setup { store: Some(store), is_checked: false, ..Setup::default() });
    let before = chunks(&daemon);
    let (result, log) = collect(&daemon).await;
    let expected = golden::expected();
    let run = expected["task_runs"].as_array().expect("runs").iter().find(|run| run["worker"] == "garbage_collection");
    let run = run.expect("a recorded collection");
    assert_eq!(result, run["exitstatus"]);
    assert_eq!(chunks(&daemon), before);
    let now = status(&daemon).await;
    let mut recorded = expected["gc_status_file"].clone();
    // One chunk was removed before the recording, and is not in it.
    for (key, value) in [("removed-chunks", json!(0)), ("removed-bytes", json!(0)), ("upid", now["upid"].clone())] {
        recorded[key] = value;
    }
    assert_eq!(now["last-run-state"], run["exitstatus"]);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    let mut wanted = keys(&expected["gc_rest"]);
    // As in the lists of jobs.
    wanted.insert("last-run-upid".to_owned());
    assert_eq!(keys(&now), wanted);
    assert_eq!(status_file(&now), recorded);
    // Every recorded line but for what is gone, in its order; warnings come when the sweep has seen what is missing.
    let recorded: BTreeSet<String> = run["log"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line.as_str().expect("text")[27..].to_owned())
        .collect();
    let base = daemon.store().display().to_string();
    let said: BTreeSet<String> = log
        .iter()
        .map(|line| line.replace(&base, "/mnt/datastore/pbsstore").replace("on store golden", "on store pbsstore"))
        .collect();
    let lacking: Vec<&String> = recorded.difference(&said).collect();
    let only_theirs = |line: &String| line.starts_with("Removed ") || line.starts_with("processed ");
    assert!(lacking.iter().all(|line| only_theirs(line)), "{lacking:?} in {log:?}");
}

/// Where a damaged datastore is better left alone than the recorded server did: mutation, part of the error.
const STRICTER: &[(&str, &str)] = &[
    ("fidx-chunksize-odd", "drive-scsi0.img.fidx"),
    ("fidx-chunksize-0", "drive-scsi0.img.fidx"),
    ("didx-ends-decrease", "root.pxar.didx"),
];

#[tokio::test]
async fn damaged_datastores_end_as_recorded() {
    if golden::is_absent() {
        return;
    }
    let folder = temp_dir();
    let pristine = folder.path().join("pristine");
    golden::unpack_datastore(&pristine);
    age(&pristine.join(".chunks"), DAYS_2);
    let store = folder.path().join("damaged");
    let all = golden::json("damaged/damaged.json");
    let setup = Setup { store: Some(store.clone()), is_checked: false, ..Setup::default() };
    let copy = || {
        let _ = std::fs::remove_dir_all(&store);
        assert!(Command::new("cp").arg("-a").arg(&pristine).arg(&store).status().expect("run cp").success());
    };
    copy();
    let mut daemon = Daemon::with(setup);
    let mut faults = Vec::new();
    let mut count = 0;
    for mutation in all["mutations"].as_array().expect("mutations") {
        let id = mutation["id"].as_str().expect("an id");
        let recorded = &mutation["pbs_3.2.4"]["gc"];
        let Some(wanted) = recorded["exitstatus"].as_str() else { continue };
        count += 1;
        assert!(daemon.terminate().success());
        copy();
        golden::apply(&store, &mutation["operations"]);
        daemon.launch();
        let before = chunks(&daemon);
        let (result, log) = collect(&daemon).await;
        let base = store.display().to_string();
        let warnings = |log: Vec<String>| {
            let lines = log.into_iter().map(|line| line.replace(&base, "/mnt/datastore/damaged"));
            lines.filter(|line| line.starts_with("WARN: ")).collect::<BTreeSet<_>>()
        };
        let theirs = recorded["log"].as_array().expect("lines");
        let theirs = theirs.iter().map(|line| line.as_str().expect("text")[27..].to_owned()).collect();
        let stricter = STRICTER.iter().find(|(stricter, _)| *stricter == id);
        let failed = !wanted.starts_with("WARNINGS") && wanted != "OK";
        let fits = match stricter {
            Some((_, part)) => result.contains(part) && result.contains("can't read index"),
            None if failed => {
                let file = wanted.split('\'').nth(1).and_then(|path| path.rsplit('/').next()).expect("a file");
                result.contains("can't read index") && result.contains(file)
            }
            None => result == wanted && warnings(log.clone()) == warnings(theirs),
        };
        if !fits {
            faults.push(format!("{id}: {result}, {wanted} wanted; {log:?}"));
        }
        if (failed || stricter.is_some()) && chunks(&daemon) != before {
            faults.push(format!("{id}: something was removed all the same"));
        }
    }
    assert!(count > 40, "{count}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
