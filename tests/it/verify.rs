//! Verification: what the recorded server found in damaged data is found, and a flipped bit is found, told, healed and seen to be healed.

use std::path::Path;

use ringvault::clock::Clock;
use ringvault::engine::{ComputePool, Engine, EngineConfig};
use ringvault::jobs::verify::{Filter, Scope, Verification};
use ringvault::store::{Datastore, DatastoreConfig, SyncLevel};
use ringvault::task::Registry;
use ringvault::types::{Namespace, Snapshot};
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, STORE, Setup, temp_dir};
use crate::support::golden::{self, Damage};
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, rest};

/// Where our log differs from the recorded one: mutation, the recorded line (its beginning), ours.
type Better = (&'static str, &'static str, &'static str);

const BETTER: &[Better] = &[
    // We say what is there instead.
    ("chunk-is-directory", "can't verify chunk, load failed", "not a regular file"),
    // An index that contradicts itself is refused, and no good chunk is renamed for its sake.
    ("fidx-chunksize-odd", "", "drive-scsi0.img.fidx failed: Unable to open fixed index"),
    // The recorded server crashed.
    ("fidx-chunksize-0", "", "drive-scsi0.img.fidx failed: Unable to open fixed index"),
    ("didx-ends-decrease", "", "root.pxar.didx failed: "),
    ("manifest-bad-json", "", "manifest load error: "),
    // We say what is wrong with the length.
    (
        "didx-truncated",
        "verify damaged:host/alpha/2024-06-06T14:23:38Z/root.pxar.didx failed:",
        "is not a multiple of 40",
    ),
    ("didx-header-only", "verify damaged:host/alpha/2024-06-06T14:23:38Z/root.pxar.didx failed:", "has no entries"),
];

/// What a damage is, as the line says that tells it.
#[derive(Clone, Copy, Debug)]
enum Class {
    Absent,
    TooShort,
    WrongCrc,
    WrongMagic,
    NoFile,
    WrongDigest,
    WrongMode,
    WrongSize,
    WrongChecksum,
    Contradiction,
    Unordered,
    NoJson,
}

impl Class {
    /// Its words.
    fn words(self) -> &'static str {
        match self {
            Self::Absent => "No such file or directory (os error 2)",
            Self::TooShort => " too small (",
            Self::WrongCrc => "Data blob has wrong CRC checksum",
            Self::WrongMagic => "magic",
            Self::NoFile => "not a regular file",
            Self::WrongDigest => "detected chunk with wrong digest",
            Self::WrongMode => "does not match index CryptMode",
            Self::WrongSize => "wrong size (",
            Self::WrongChecksum => "wrong index checksum",
            Self::Contradiction => "Unable to open ",
            Self::Unordered => "dynamic index entry 5 goes from 687114 to 1",
            Self::NoJson => "unable to parse backup manifest json",
        }
    }
}

/// Every mutation that is a damage to a backup: its class, and what the log names. In place of `CHUNK` stands the digest.
const FOUND: &[(&str, Class, &str)] = &[
    ("chunk-delete", Class::Absent, "CHUNK"),
    ("chunk-empty", Class::TooShort, "CHUNK"),
    ("chunk-half", Class::WrongCrc, "CHUNK"),
    ("chunk-short-header", Class::TooShort, "CHUNK"),
    ("chunk-flip", Class::WrongCrc, "CHUNK"),
    ("chunk-crc", Class::WrongCrc, "CHUNK"),
    ("chunk-magic", Class::WrongMagic, "CHUNK"),
    ("chunk-other-content", Class::WrongDigest, "CHUNK"),
    ("chunk-shorter-content", Class::WrongDigest, "CHUNK"),
    ("chunk-encrypted-magic", Class::WrongMode, "CHUNK"),
    ("chunk-is-directory", Class::NoFile, "CHUNK"),
    ("chunk-dir-missing", Class::Absent, "CHUNK"),
    ("didx-chunk-delete", Class::Absent, "CHUNK"),
    ("didx-chunk-flip", Class::WrongCrc, "CHUNK"),
    ("fidx-delete", Class::Absent, "drive-scsi0.img.fidx"),
    ("fidx-truncated-slot", Class::Contradiction, "drive-scsi0.img.fidx"),
    ("fidx-truncated-one", Class::Contradiction, "drive-scsi0.img.fidx"),
    ("fidx-header-only", Class::Contradiction, "drive-scsi0.img.fidx"),
    ("fidx-short", Class::TooShort, "drive-scsi0.img.fidx"),
    ("fidx-empty", Class::TooShort, "drive-scsi0.img.fidx"),
    ("fidx-magic", Class::WrongMagic, "drive-scsi0.img.fidx"),
    ("fidx-chunksize-0", Class::Contradiction, "drive-scsi0.img.fidx"),
    ("fidx-chunksize-odd", Class::Contradiction, "drive-scsi0.img.fidx"),
    ("fidx-size-plus", Class::WrongSize, "drive-scsi0.img.fidx"),
    ("fidx-digest-replaced", Class::WrongChecksum, "drive-scsi0.img.fidx"),
    ("fidx-digest-unknown", Class::WrongChecksum, "drive-scsi0.img.fidx"),
    ("didx-truncated", Class::Contradiction, "root.pxar.didx"),
    ("didx-truncated-one", Class::WrongSize, "root.pxar.didx"),
    ("didx-header-only", Class::Contradiction, "root.pxar.didx"),
    ("didx-magic", Class::WrongMagic, "root.pxar.didx"),
    ("didx-ends-decrease", Class::Unordered, "root.pxar.didx"),
    ("manifest-not-blob", Class::WrongMagic, "index.json.blob"),
    ("manifest-empty", Class::TooShort, "index.json.blob"),
    ("manifest-crc", Class::WrongCrc, "index.json.blob"),
    ("manifest-bad-json", Class::NoJson, "vm/100/2024-06-06T14:23:38Z"),
    ("manifest-missing", Class::Absent, "index.json.blob"),
    ("manifest-wrong-csum", Class::WrongChecksum, "drive-scsi0.img.fidx"),
    ("manifest-wrong-size", Class::WrongSize, "drive-scsi0.img.fidx"),
    ("manifest-wrong-blob-csum", Class::WrongChecksum, "qemu-server.conf.blob"),
    ("manifest-extra-file", Class::Absent, "nosuch.img.fidx"),
    ("manifest-encrypt-claim", Class::WrongMode, "drive-scsi0.img.fidx"),
    ("blob-truncated", Class::WrongCrc, "qemu-server.conf.blob"),
    ("blob-flip", Class::WrongCrc, "qemu-server.conf.blob"),
];

/// Mutations that touch nothing that a restore reads; the recorded server calls them right, and so do we.
const RIGHT: &[&str] = &[
    "fidx-csum-header",
    "manifest-other-id",
    "manifest-unknown-keys",
    "manifest-verify-garbage",
    "owner-missing",
    "owner-empty",
    "owner-garbage",
    "owner-no-newline",
    "stray-entries",
    "stray-index",
];

/// Whether the damage is found, told with its class, and named, and what is none is not called one; why not.
fn classified(mutation: &Value, done: &Done) -> Result<(), String> {
    let id = mutation["id"].as_str().expect("an id");
    let exit = mutation["pbs_3.2.4"]["verify"]["exitstatus"].as_str().expect("a status");
    let Some((_, class, name)) = FOUND.iter().find(|(mutation, _, _)| *mutation == id) else {
        let is_right = RIGHT.contains(&id) && done.result.is_ok() && exit == "OK";
        return if is_right { Ok(()) } else { Err(format!("{id}: in no table, or called damaged: {:#?}", done.log)) };
    };
    let name = name.replace("CHUNK", mutation["digest"].as_str().expect("a digest"));
    let at = done.log.iter().position(|line| line.contains(class.words()));
    // The line itself, or the one after it about the same, as recorded.
    let is_named = at.is_some_and(|at| done.log[at..].iter().take(2).any(|line| line.contains(&name)));
    // For all chunks of an archive there are lines of their own, and then one for the archive.
    let is_named = is_named || matches!(class, Class::WrongMode) && done.log.iter().any(|line| line.contains(&name));
    match (done.result.is_err(), at, is_named) {
        (true, Some(_), true) => Ok(()),
        (failed, _, _) => Err(format!("{id}: failed {failed}, {class:?} of {name} is not told: {:#?}", done.log)),
    }
}

/// What one verification did.
struct Done {
    result: Result<(), String>,
    log: Vec<String>,
    state: Option<String>,
}

fn open_config(base: &Path, name: &str) -> DatastoreConfig {
    DatastoreConfig { sync_level: SyncLevel::None, ..DatastoreConfig::new(name.parse().expect("a name"), base) }
}

async fn verify(base: &Path, name: &str, scope: Scope) -> Done {
    let folder = temp_dir();
    let engine = Engine::start("verify", &EngineConfig::default()).expect("an engine");
    let store = Datastore::open(open_config(base, name), engine, Clock::system()).await.expect("a datastore");
    let tasks = Registry::open(&folder.path().join("tasks"), Clock::system()).expect("tasks");
    let compute = ComputePool::new(2).expect("threads");
    let snapshot = match &scope {
        Scope::Snapshot(ns, snapshot) => Some((ns.clone(), snapshot.clone())),
        _ => None,
    };
    let job = Verification::job(store.clone(), compute, scope, Filter::NONE);
    let (worker, root) = (job.worker(), "root@pam".parse().expect("a user"));
    let started = job.start(&tasks, worker, &root, std::future::pending(), ()).await.expect("a task");
    let result = started.outcome.await.expect("no panic");
    let text = std::fs::read_to_string(tasks.log_path(&started.upid)).expect("a log");
    let log = text.lines().map(|line| line[27..].to_owned()).collect();
    let state = match snapshot {
        Some((ns, snapshot)) => match store.load_manifest(&ns, &snapshot).await {
            Ok(loaded) => loaded.manifest.verify_state().map(|found| found.state.as_str().to_owned()),
            Err(_) => None,
        },
        None => None,
    };
    Done { result, log, state }
}

/// A line without what differs from run to run: times, speeds, the place of the datastore, and the digests that we name in addition.
fn plain(line: &str, base: &str) -> String {
    let line = line.replace(base, "STORE");
    if let Some((sizes, rest)) = line.trim_start().strip_prefix("verified ").and_then(|l| l.split_once(" in ")) {
        let errors = rest.rsplit_once('(').map_or("", |(_, errors)| errors);
        return format!("  verified {sizes} ({errors}");
    }
    line.split(" - chunk ").next().unwrap_or_default().to_owned()
}

fn comparable(log: &[String], base: &str) -> Vec<String> {
    // Ours also says which command tells more.
    log.iter().filter(|line| !line.starts_with("`ringvault ")).map(|line| plain(line, base)).collect()
}

/// What is wrong with how one mutation was verified.
async fn one(damage: &Damage, mutation: &Value) -> Vec<String> {
    let recorded = &mutation["pbs_3.2.4"]["verify"];
    let folder = temp_dir();
    let base = folder.path().join("damaged");
    damage.copy(mutation, &base);
    let id = mutation["id"].as_str().expect("an id");
    let target: Snapshot = mutation["target_snapshot"].as_str().expect("a snapshot").parse().expect("a snapshot");
    let done = verify(&base, "damaged", Scope::Snapshot(Namespace::root(), target)).await;

    let mut faults = Vec::new();
    let mut expect = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            faults.push(format!("{id}: {what}: {ours}, recorded: {theirs}"));
        }
    };
    if let Err(fault) = classified(mutation, &done) {
        expect("class", fault, String::new());
    }
    let better: Vec<&Better> = BETTER.iter().filter(|(mutation, _, _)| *mutation == id).collect();
    let exit = recorded["exitstatus"].as_str().expect("a status");
    let crashed = exit.contains("panicked");
    let refused = crashed || id == "fidx-chunksize-odd";
    let failure = "verification failed - please check the log for details";
    expect("result", done.result.clone().err().unwrap_or("OK".into()), if crashed { failure } else { exit }.into());
    // Without a manifest or an owner the recorded listing shows no state.
    if let Some(state) = recorded["state_after"].as_str().filter(|_| !crashed) {
        expect("state", done.state.clone().unwrap_or_default(), state.into());
    }
    if let (Some(names), false) = (recorded["chunk_dir_after"].as_array(), refused) {
        let digest = mutation["digest"].as_str().expect("a digest");
        let dir = base.join(format!(".chunks/{}", &digest[..4]));
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .map(|entries| entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect())
            .unwrap_or_default();
        found.sort();
        expect(
            "directory of the chunk",
            format!("{found:?}"),
            format!("{names:?}").replace("String(", "").replace("\")", "\""),
        );
    }
    let log = comparable(&done.log, base.to_str().expect("UTF-8"));
    for (_, _, part) in &better {
        if !log.iter().any(|line| line.contains(part)) {
            expect("log", format!("{log:#?}"), (*part).into());
        }
    }
    if better.iter().all(|(_, theirs, _)| !theirs.is_empty()) {
        let lines =
            recorded["log"].as_array().expect("lines").iter().map(|line| line.as_str().expect("text")[27..].to_owned());
        let theirs = comparable(&lines.collect::<Vec<_>>(), "/mnt/datastore/damaged");
        let ours_only = |line: &&String| !better.iter().any(|(_, begin, _)| line.starts_with(begin));
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (log.iter().filter(ours_only).collect(), theirs.iter().filter(ours_only).collect());
        expect("log", format!("{ours:#?}"), format!("{theirs:#?}"));
    }
    if refused && Path::new(&base).join(".chunks/dbc0").read_dir().expect("a directory").count() != 1 {
        faults.push(format!("{id}: a good chunk was renamed"));
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_damage_is_found_and_named_as_it_was_by_the_recorded_server() {
    let Some(damage) = Damage::unpack() else { return };
    let (mut faults, mut count) = (Vec::new(), 0);
    for mutation in &damage.mutations {
        if mutation["pbs_3.2.4"]["verify"].is_object() {
            count += 1;
            faults.extend(one(&damage, mutation).await);
        }
    }
    assert_eq!((count, FOUND.len() + RIGHT.len()), (53, 53), "every mutation was verified");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_datastore_verifies_as_its_server_found_it() {
    if golden::is_absent() {
        return;
    }
    let folder = temp_dir();
    let base = folder.path().join("pbsstore");
    golden::unpack_datastore(&base);
    let done = verify(&base, "pbsstore", Scope::Namespace { ns: Namespace::root(), max_depth: None }).await;
    let failed: Vec<&str> = done.log.iter().filter_map(|line| line.strip_prefix('\t')).collect();
    // One lost a chunk; the other never had a manifest.
    assert_eq!(failed, ["host/crashed/2024-06-05T14:23:38Z", "vm/666/2024-06-05T14:23:38Z"], "{:#?}", done.log);
    assert!(done.result.is_err());
    let engine = Engine::start("verify", &EngineConfig::default()).expect("an engine");
    let store = Datastore::open(open_config(&base, "pbsstore"), engine, Clock::system()).await.expect("a datastore");
    for listed in golden::expected()["snapshots"].as_array().expect("snapshots") {
        let ns: Namespace = listed["ns"].as_str().expect("ns").parse().expect("a namespace");
        let dir = listed["dir"].as_str().expect("dir");
        let parts: Vec<&str> = dir.rsplitn(4, '/').collect();
        let snapshot: Snapshot = format!("{}/{}/{}", parts[2], parts[1], parts[0]).parse().expect("a snapshot");
        let Ok(loaded) = store.load_manifest(&ns, &snapshot).await else {
            assert_eq!(parts[1], "crashed");
            continue;
        };
        let state = loaded.manifest.verify_state().map(|found| found.state.as_str());
        let wanted = if parts[1] == "666" { "failed" } else { "ok" };
        assert_eq!(state, Some(wanted), "{dir}");
    }
    // The recorded logs of the same snapshots and of a group.
    for run in golden::expected()["task_runs"].as_array().expect("runs") {
        let what = run["what"].as_str().expect("what");
        let scope = match what {
            "verify group vm/100" => Scope::Group(Namespace::root(), "vm/100".parse().expect("a group")),
            _ if what.starts_with("verify snapshot host/alpha") => at("host/alpha/2024-06-05T14:23:38Z"),
            _ if what.starts_with("verify snapshot ct") => at("ct/200/2024-06-05T14:23:38Z"),
            _ => continue,
        };
        let done = verify(&base, "pbsstore", scope).await;
        let lines: Vec<String> =
            run["log"].as_array().expect("a log").iter().map(|l| l.as_str().expect("text")[27..].to_owned()).collect();
        let place = base.to_str().expect("UTF-8");
        assert_eq!(comparable(&done.log, place), comparable(&lines, "/mnt/datastore/pbsstore"), "{what}");
    }
}

fn at(snapshot: &str) -> Scope {
    Scope::Snapshot(Namespace::root(), snapshot.parse().expect("a snapshot"))
}

const ARCHIVE: &str = "disk.img.fidx";

async fn start(daemon: &Daemon, body: Value) -> String {
    let target = format!("/api2/json/admin/datastore/{STORE}/verify");
    let query: Vec<String> = body
        .as_object()
        .expect("parameters")
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_str().map_or(value.to_string(), str::to_owned)))
        .collect();
    let reply = rest(daemon, "POST", &format!("{target}?{}", query.join("&")), b"").await;
    reply.data().as_str().expect("a UPID").to_owned()
}

/// Verifies and returns the result of the task and its log.
async fn verified(daemon: &Daemon, body: Value) -> (String, Vec<String>) {
    let upid = start(daemon, body).await;
    daemon.idle().await;
    let result = daemon.ended().into_iter().find(|(ended, _)| *ended == upid).expect("it has ended").1;
    (result, daemon.task_log(&upid))
}

/// Time and state of each snapshot of `host/m`, newest first.
async fn states(daemon: &Daemon) -> Vec<(i64, Value)> {
    let listed = rest(daemon, "GET", &format!("/api2/json/admin/datastore/{STORE}/snapshots"), b"").await.data();
    let mut states: Vec<(i64, Value)> = listed
        .as_array()
        .expect("snapshots")
        .iter()
        .map(|item| (item["backup-time"].as_i64().expect("a time"), item["verification"]["state"].clone()))
        .collect();
    states.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    states
}

/// `percent`, `seed` and `n-of-m` over REST.
#[tokio::test]
async fn a_part_and_a_sample_are_asked_for_over_rest() {
    let daemon = Daemon::start();
    let chunks = [Chunk::made(0, FIXED_CHUNK_BYTES), Chunk::made(1, FIXED_CHUNK_BYTES)];
    let place = Place::host("m", 0);
    upload::full_backup(&daemon, place.clone(), ARCHIVE, &chunks).await;
    let mut read = 0;
    for part in ["1/3", "2/3", "3/3"] {
        let (result, log) = verified(&daemon, json!({"n-of-m": part})).await;
        assert_eq!(result, "OK", "{log:#?}");
        let words = |line: &String| line.split(" had to be read").next()?.rsplit(' ').next()?.parse::<u64>().ok();
        read += log.iter().filter(|line| line.ends_with(" had to be read")).filter_map(words).sum::<u64>();
    }
    assert_eq!((read, states(&daemon).await), (2, vec![(place.time, Value::Null)]));
    let (_, log) = verified(&daemon, json!({"percent": "50", "seed": 7})).await;
    assert!(log[0].contains("a sample of 50 % of the chunks (seed 7)"), "{log:#?}");
    let (_, log) = verified(&daemon, json!({"percent": "0.5"})).await;
    let seed =
        log[0].split("(seed ").nth(1).and_then(|rest| rest.split(')').next()).and_then(|n| n.parse::<i64>().ok());
    let (_, again) = verified(&daemon, json!({"percent": "0.5", "seed": seed.expect("a seed")})).await;
    let without_rates = |log: &[String]| -> Vec<String> {
        log.iter().filter(|line| !line.starts_with("  verified ")).cloned().collect()
    };
    assert_eq!(without_rates(&log), without_rates(&again));
    assert_eq!(verified(&daemon, json!({"percent": 100})).await.0, "OK");
    assert_eq!(states(&daemon).await, [(place.time, json!("ok"))], "all was read");
    // What has been verified just now is looked at all the same, unless it is asked not to.
    let (_, log) = verified(&daemon, json!({"n-of-m": "1/3"})).await;
    assert!(!log.iter().any(|line| line.starts_with("SKIPPED")), "{log:#?}");
    let (_, log) = verified(&daemon, json!({"n-of-m": "1/3", "ignore-verified": true})).await;
    assert!(log.iter().any(|line| line.starts_with("SKIPPED")), "{log:#?}");
    let target = format!("/api2/json/admin/datastore/{STORE}/verify");
    for (query, part) in [
        ("percent=0", "percent"),
        ("percent=101", "percent"),
        ("n-of-m=4/3", "n-of-m"),
        ("n-of-m=1/3&percent=5", "either this or percent"),
        ("seed=5", "give percent too"),
    ] {
        rest(&daemon, "POST", &format!("{target}?{query}"), b"").await.expect(400, part);
    }
}

/// A bit flips; verification finds it, the list shows it, the next backup gets no base and uploads in full, which heals the store.
#[tokio::test]
async fn a_flipped_bit_is_found_told_healed_and_seen_to_be_healed() {
    let daemon = Daemon::start();
    let chunks = [Chunk::made(0, FIXED_CHUNK_BYTES), Chunk::made(1, FIXED_CHUNK_BYTES)];
    let place = |hours| Place::host("m", hours);
    upload::full_backup(&daemon, place(0), ARCHIVE, &chunks).await;
    assert_eq!(verified(&daemon, json!({})).await.0, "OK");
    assert_eq!(states(&daemon).await, [(place(0).time, json!("ok"))]);

    let file = daemon.store().join(chunks[1].path());
    let mut bytes = std::fs::read(&file).expect("the chunk");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("flip a bit");
    // It has been verified just now, so nothing is looked at.
    assert_eq!(verified(&daemon, json!({})).await.0, "OK");
    let (result, log) = verified(&daemon, json!({"ignore-verified": false})).await;
    assert_eq!(result, "verification failed - please check the log for details", "{log:#?}");
    assert!(log.contains(&format!("\thost/m/{}", place(0).dir().rsplit('/').next().expect("a time"))), "{log:#?}");
    assert_eq!(states(&daemon).await, [(place(0).time, json!("failed"))]);
    assert!(!file.exists() && daemon.has(format!("{}.0.bad", chunks[1].path())));

    // No base: everything is sent again, and the chunk is written anew.
    let backup = Backup::start(&daemon, place(1)).await;
    backup.get("/previous_backup_time").await.expect(200, "{\"data\":null}");
    backup.leave(&daemon).await;
    upload::full_backup(&daemon, place(1), ARCHIVE, &chunks).await;
    assert_eq!(std::fs::read(&file).expect("the chunk"), chunks[1].encoded);
    let (result, log) = verified(&daemon, json!({"ignore-verified": false})).await;
    assert_eq!(result, "OK", "{log:#?}");
    assert_eq!(states(&daemon).await, [(place(1).time, json!("ok")), (place(0).time, json!("ok"))]);
    assert_eq!(log.iter().filter(|line| line.starts_with("  check disk.img.fidx")).count(), 2);

    // One snapshot, one group, and what is wrong with a request.
    let one = json!({"backup-type": "host", "backup-id": "m", "backup-time": place(1).time, "ignore-verified": false});
    let (result, log) = verified(&daemon, one).await;
    assert_eq!((result.as_str(), log.iter().filter(|line| line.starts_with("verify ")).count()), ("OK", 1), "{log:#?}");
    let group = json!({"backup-type": "host", "backup-id": "m", "ignore-verified": false, "outdated-after": 3});
    let (_, log) = verified(&daemon, group).await;
    assert_eq!(log[0], format!("verify group {STORE}:host/m (2 snapshots)"));
    assert_eq!(log.last().expect("a line"), "TASK OK");
    let target = format!("/api2/json/admin/datastore/{STORE}/verify");
    rest(&daemon, "POST", &format!("{target}?backup-id=m"), b"").await.expect(400, "backup-type");
    rest(&daemon, "POST", &format!("{target}?backup-type=host"), b"").await.expect(400, "backup-id");
    rest(&daemon, "POST", &format!("{target}?backup-type=host&backup-id=nobody"), b"").await.expect(400, "ENOENT");
}

#[tokio::test]
async fn new_backups_are_verified_where_the_datastore_says_so() {
    let daemon = Daemon::with(Setup { more: "verify-new = true\n".into(), ..Setup::default() });
    let place = Place::host("m", 0);
    upload::full_backup(&daemon, place.clone(), ARCHIVE, &[Chunk::made(0, FIXED_CHUNK_BYTES)]).await;
    // It begins when the session is over, not with it.
    let started = std::time::Instant::now();
    while states(&daemon).await != [(place.time, json!("ok"))] {
        assert!(started.elapsed().as_secs() < 60, "no verification: {:?}", daemon.ended());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    daemon.idle().await;
    let (upid, result) = daemon.ended().pop().expect("a task");
    assert_eq!(result, "OK");
    assert!(upid.contains(&format!(":verify:{STORE}\\x3ahost-m-{:08X}:", place.time)), "{upid}");
    // One that is left unfinished is not.
    Backup::start(&daemon, Place::host("m", 1)).await.leave(&daemon).await;
    daemon.idle().await;
    let verifications = daemon.ended().iter().filter(|(upid, _)| upid.contains(":verify:")).count();
    assert_eq!(verifications, 1);
}
