//! What is found to be missing or bad is known everywhere: in the list, in the metrics, to the next backup, to other groups; and two commands
//! explain it.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringvault::clock::Clock;
use ringvault::engine::{ComputePool, Engine, EngineConfig};
use ringvault::jobs::inspect::{About, Inspection, Tracing};
use ringvault::store::{Datastore, DatastoreConfig};
use ringvault::task::Registry;
use ringvault::types::Namespace;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, STORE, Setup, temp_dir};
use crate::support::golden::Damage;
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, ask_backup, rest};
use crate::support::wire::{Conn, PATIENCE};

const ARCHIVE: &str = "disk.img.fidx";

/// Groups `host/m` and `host/n`, whose snapshots share the first chunk.
struct Scene {
    daemon: Daemon,
    m: [Chunk; 2],
    n: [Chunk; 2],
}

/// Where the hole is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Append,
    Finish,
    Preflight,
}

impl Scene {
    async fn new(checks: [bool; 3]) -> Self {
        let daemon = Daemon::with(Setup { checks, ..Setup::default() });
        let chunk = |seed| Chunk::made(seed, FIXED_CHUNK_BYTES);
        let scene = Self { daemon, m: [chunk(0), chunk(1)], n: [chunk(0), chunk(2)] };
        upload::full_backup(&scene.daemon, Place::host("m", 0), ARCHIVE, &scene.m).await;
        upload::full_backup(&scene.daemon, Place::host("n", 0), ARCHIVE, &scene.n).await;
        scene
    }

    fn shared(&self) -> &Chunk {
        &self.m[0]
    }

    /// `id hours state` of all snapshots, sorted; those without a state have `-`.
    async fn states(&self) -> Vec<String> {
        let listed = rest(&self.daemon, "GET", &format!("/api2/json/admin/datastore/{STORE}/snapshots"), b"").await;
        let row = |item: &Value| {
            let hours = (item["backup-time"].as_i64().expect("a time") - upload::FIRST_TIME) / 3600;
            let state = item["verification"]["state"].as_str().unwrap_or("-");
            format!("{} {hours} {state}", item["backup-id"].as_str().expect("an id"))
        };
        let mut rows: Vec<String> = listed.data().as_array().expect("rows").iter().map(row).collect();
        rows.sort();
        rows
    }

    /// Waits until the metrics say so: failed snapshots, doubted chunks.
    async fn metrics_say(&self, failed: u64, doubted: u64) {
        let want = [
            format!("ringvault_datastore_failed_snapshots{{datastore=\"{STORE}\"}} {failed}"),
            format!("ringvault_datastore_doubted_chunks{{datastore=\"{STORE}\"}} {doubted}"),
        ];
        let started = Instant::now();
        loop {
            let mut conn = Conn::open(self.daemon.peer()).await.expect("connect");
            let page = conn.call("GET", "/metrics", &[], &[]).await.expect("an answer").text();
            conn.close().await;
            if want.iter().all(|line| page.lines().any(|is| is == line)) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{want:?} is not in\n{page}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Verifies all anew; the result of the task.
    async fn verify(&self, more: &str) -> (String, Vec<String>) {
        let target = format!("/api2/json/admin/datastore/{STORE}/verify?ignore-verified=false{more}");
        let upid = rest(&self.daemon, "POST", &target, b"").await.data().as_str().expect("a UPID").to_owned();
        self.daemon.idle().await;
        let result = self.daemon.ended().into_iter().find(|(ended, _)| *ended == upid).expect("it has ended").1;
        (result, self.daemon.task_log(&upid))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
        command.args(arguments).arg("--data-dir").arg(self.daemon.data()).arg("--config");
        command.arg(self.daemon.data().join("config.toml")).env("NO_COLOR", "1").stdin(Stdio::null());
        command.output().expect("a run")
    }

    /// What a command says, after its status was this.
    #[track_caller]
    fn says(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{error}\n{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).expect("text")
    }

    #[track_caller]
    fn json(&self, status: i32, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--output", "json"]).collect();
        serde_json::from_str(&self.says(status, &arguments)).expect("JSON")
    }

    /// The next backup of a group has no base, and sends everything.
    async fn next_is_full(&self, id: &str, hours: i64, chunks: &[Chunk]) {
        let backup = Backup::start(&self.daemon, Place::host(id, hours)).await;
        backup.get("/previous_backup_time").await.expect(200, "{\"data\":null}");
        backup.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(400, "no valid previous backup");
        backup.leave(&self.daemon).await;
        upload::full_backup(&self.daemon, Place::host(id, hours), ARCHIVE, chunks).await;
    }

    fn snapshot_of(&self, id: &str) -> String {
        Place::host(id, 0).dir()
    }
}

/// Verification finds a bad chunk in one group; the other group, which names it too, is told by the report.
#[tokio::test]
async fn what_a_verification_finds_is_known_everywhere_and_healed_by_the_next_backup() {
    let scene = Scene::new([true, true, true]).await;
    let digest = scene.shared().digest.clone();
    assert_eq!(scene.verify("").await.0, "OK");
    scene.metrics_say(0, 0).await;
    let sound = scene.says(0, &["inspect", STORE, &scene.snapshot_of("m")]);
    for part in
        ["the newest of its group", "verification: ok", "shared with others           1 chunk", "nothing is missing"]
    {
        assert!(sound.contains(part), "{part} is not in\n{sound}");
    }

    let file = scene.daemon.store().join(scene.shared().path());
    let mut bytes = std::fs::read(&file).expect("the chunk");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("flip a bit");
    scene.daemon.expect(&["--allow-missing-chunk", &digest]);
    let (result, log) = scene.verify("&backup-type=host&backup-id=m").await;
    assert!(result.contains("verification failed"), "{log:#?}");
    assert!(log.iter().any(|line| line.starts_with(&format!("`ringvault repair report {STORE} --bad`"))), "{log:#?}");
    assert_eq!(scene.states().await, ["m 0 failed", "n 0 ok"]);
    scene.metrics_say(1, 1).await;

    // One snapshot, explained; with a daemon that runs.
    let report = scene.json(3, &["inspect", STORE, &scene.snapshot_of("n"), "--archive", ARCHIVE]);
    assert_eq!((&report["sound"], &report["chunks"]["missing"]), (&json!(false), &json!(1)), "{report:#}");
    assert_eq!(report["archives"][0]["places"], json!([{"offset": 0, "bytes": FIXED_CHUNK_BYTES, "digest": digest}]));
    let remedies = &report["missing"][0]["remedies"];
    assert_eq!(remedies[0], json!({"by": "backup", "ns": "", "group": "host/m", "full": true}), "{report:#}");
    assert_eq!(remedies[2], json!({"by": "set-aside", "file": format!("{digest}.0.bad")}));
    let text = scene.says(3, &["inspect", STORE, &scene.snapshot_of("n")]);
    for part in ["4.00 MiB lost, bytes 0..4194304", "next backup of host/m is a full one", "this snapshot is not whole"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }

    // All that name the chunk, by each way to ask.
    for ask in [vec!["--chunk", &digest], vec!["--missing"], vec!["--bad"]] {
        let report = scene.json(3, &[vec!["repair", "report", STORE], ask].concat());
        let ids: Vec<&str> = report["snapshots"]
            .as_array()
            .expect("snapshots")
            .iter()
            .map(|found| found["snapshot"]["backup-id"].as_str().expect("an id"))
            .collect();
        assert_eq!((ids, &report["marked"]), (vec!["m", "n"], &json!(0)), "{report:#}");
    }
    assert_eq!(scene.states().await, ["m 0 failed", "n 0 ok"], "a report changes nothing");
    let said = scene.says(3, &["repair", "report", STORE, "--missing", "--mark"]);
    assert!(said.contains("2 snapshots marked as failed"), "{said}");
    assert_eq!(scene.states().await, ["m 0 failed", "n 0 failed"]);
    scene.metrics_say(2, 1).await;

    // Both upload everything; the chunk is back, and a verification that leaves out what it knows looks at the marks.
    scene.next_is_full("n", 1, &scene.n).await;
    scene.next_is_full("m", 1, &scene.m).await;
    scene.metrics_say(2, 0).await;
    assert!(scene.says(0, &["repair", "report", STORE, "--missing"]).starts_with("4 index files read: 0 of 0 chunks"));
    let target = format!("/api2/json/admin/datastore/{STORE}/verify");
    rest(&scene.daemon, "POST", &target, b"").await.expect(200, "UPID");
    scene.daemon.idle().await;
    assert_eq!(scene.states().await, ["m 0 ok", "m 1 ok", "n 0 ok", "n 1 ok"]);
    scene.metrics_say(0, 0).await;
}

async fn a_hole_spreads(met: Met) {
    let scene = Scene::new([true, true, met == Met::Preflight]).await;
    let digest = scene.shared().digest.clone();
    // The other group's backup runs already, and knows the chunk from its own base.
    let other = Backup::start(&scene.daemon, Place::host("n", 1)).await;
    other.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(200, "");
    let mut other_writer = other.create(ARCHIVE, 2 * FIXED_CHUNK_BYTES, "").await;

    let mut backup = Backup::start(&scene.daemon, Place::host("m", 1)).await;
    let upid = scene.daemon.running().into_iter().find(|upid| upid.contains("host-m:")).expect("it runs");
    if met == Met::Preflight {
        scene.daemon.remove_chunk(&digest);
        backup.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(400, &digest);
    } else {
        backup.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(200, "");
        let mut writer = backup.create(ARCHIVE, 2 * FIXED_CHUNK_BYTES, "").await;
        let named: Vec<&Chunk> = scene.m.iter().collect();
        if met == Met::Append {
            scene.daemon.remove_chunk(&digest);
            backup.append(&mut writer, &named).await.expect(400, "known chunk stat failed on");
        } else {
            backup.append(&mut writer, &named).await.expect(200, "");
            backup.close(&writer).await.expect(200, "");
            backup.manifest().await.expect(200, "");
            scene.daemon.remove_chunk(&digest);
            backup.finish().await.expect(400, "stat registered chunks failed");
        }
    }
    assert_eq!(scene.states().await.iter().filter(|row| row.ends_with("failed")).collect::<Vec<_>>(), ["m 0 failed"]);
    scene.metrics_say(1, 1).await;
    // The one that runs meets it as well, whatever it did before.
    let named: Vec<&Chunk> = scene.n.iter().collect();
    other.append(&mut other_writer, &named).await.expect(400, "known chunk stat failed on");
    assert_eq!(
        scene.states().await.iter().filter(|row| row.ends_with("failed")).collect::<Vec<_>>(),
        ["m 0 failed", "n 0 failed"]
    );
    backup.session.close().await;
    other.leave(&scene.daemon).await;
    let log = scene.daemon.task_log(&upid);
    let hint = format!("`ringvault repair report {STORE} --chunk DIGEST` tells which other snapshots name it");
    assert!(log.contains(&hint), "{log:#?}");
    scene.metrics_say(2, 1).await;

    scene.next_is_full("m", 2, &scene.m).await;
    scene.metrics_say(2, 0).await;
    assert_eq!(scene.verify("").await.0, "OK");
    assert_eq!(scene.states().await, ["m 0 ok", "m 2 ok", "n 0 ok"]);
    scene.metrics_say(0, 0).await;
    // And the group that sent nothing lends again.
    match ask_backup(&scene.daemon, &Place::host("n", 3), "").await {
        upload::Asked::Session(_, session) => {
            let backup = Backup::from_session(session, Place::host("n", 3));
            backup.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(200, "");
            backup.leave(&scene.daemon).await;
        }
        upload::Asked::Refused(reply) => panic!("{}", reply.text()),
    }
}

#[tokio::test]
async fn a_hole_met_at_an_append_is_known_everywhere_and_healed_by_the_next_backup() {
    a_hole_spreads(Met::Append).await;
}

#[tokio::test]
async fn a_hole_met_at_a_finish_is_known_everywhere_and_healed_by_the_next_backup() {
    a_hole_spreads(Met::Finish).await;
}

#[tokio::test]
async fn a_hole_met_by_a_preflight_is_known_everywhere_and_healed_by_the_next_backup() {
    a_hole_spreads(Met::Preflight).await;
}

/// Without a daemon the commands do the same by themselves; what they cannot do is said.
#[tokio::test]
async fn the_commands_work_without_a_daemon_and_refuse_what_is_not_there() {
    let scene = Scene::new([true, true, true]).await;
    let snapshot = scene.snapshot_of("m");
    let running = scene.json(0, &["inspect", STORE, &snapshot]);
    let listed =
        rest(&scene.daemon, "GET", &format!("/api2/json/admin/datastore/{STORE}/report?upid=UPID:x"), b"").await;
    listed.expect(400, "");
    let inspect = format!("/api2/json/admin/datastore/{STORE}/inspect?backup-type=host&backup-id=m&backup-time=1");
    rest(&scene.daemon, "POST", &inspect, b"").await.expect(200, "UPID");
    let report = format!("/api2/json/admin/datastore/{STORE}/chunk-report");
    rest(&scene.daemon, "POST", &report, b"").await.expect(400, "one of chunk, missing and bad is needed");
    scene.daemon.idle().await;
    assert!(scene.daemon.terminate().success());
    assert_eq!(scene.json(0, &["inspect", STORE, &snapshot]), running);
    let said = scene.says(1, &["inspect", STORE, "host/m/1999-01-01T00:00:00Z"]);
    assert!(said.is_empty(), "{said}");
    std::fs::remove_file(scene.daemon.store().join(scene.m[1].path())).expect("remove a chunk");
    scene.daemon.expect(&["--allow-missing-chunk", &scene.m[1].digest]);
    let report = scene.json(3, &["repair", "report", STORE, "--missing"]);
    assert_eq!(report["chunks"][0]["digest"], json!(scene.m[1].digest), "{report:#}");
    assert_eq!(report["snapshots"][0]["snapshot"]["backup-id"], "m");
}

/// Damage that only a reading of chunks can tell.
const UNSEEN: &[&str] = &[
    "chunk-half",
    "chunk-flip",
    "chunk-crc",
    "chunk-magic",
    "chunk-other-content",
    "chunk-shorter-content",
    "chunk-encrypted-magic",
    "didx-chunk-flip",
    "manifest-encrypt-claim",
];

/// Damage after which a chunk that an index names is not there.
const HOLES: &[&str] = &[
    "chunk-delete",
    "chunk-empty",
    "chunk-short-header",
    "chunk-is-directory",
    "didx-chunk-delete",
    "chunk-dir-missing",
    "fidx-digest-unknown",
];

/// What is wrong with what the two reports say of one damaged datastore.
async fn one(damage: &Damage, mutation: &Value) -> Option<String> {
    let folder = temp_dir();
    let base = folder.path().join("damaged");
    damage.copy(mutation, &base);
    let id = mutation["id"].as_str().expect("an id");
    let engine = Engine::start("inspect", &EngineConfig::default()).expect("an engine");
    let config = DatastoreConfig::new("damaged".parse().expect("a name"), &base);
    let store = Datastore::open(config, engine, Clock::system()).await.expect("a datastore");
    let tasks = Registry::open(&folder.path().join("tasks"), Clock::system()).expect("tasks");
    let root = "root@pam".parse().expect("a user");
    let task = tasks.start("inspect", None, &root).await.expect("a task");
    let compute = ComputePool::new(2).expect("threads");
    let inspection = Inspection {
        store: store.clone(),
        compute: compute.clone(),
        ns: Namespace::root(),
        snapshot: mutation["target_snapshot"].as_str().expect("a snapshot").parse().expect("a snapshot"),
        archive: None,
        may_see: Arc::new(|_| true),
        others: Vec::new(),
    };
    let report = inspection.run(&task).await.expect("a report");
    let (about, may_see) = (About::Missing, inspection.may_see.clone());
    let tracing = Tracing { store, compute, about, mark: false, may_see, others: Vec::new() };
    let holes = tracing.run(&task).await.expect("a report");
    task.end(Ok(())).await;

    let verified = mutation["pbs_3.2.4"]["verify"]["exitstatus"].as_str().expect("a status");
    let sound = verified == "OK" || UNSEEN.contains(&id);
    let target = format!("{}/{}", report.snapshot.backup_type, report.snapshot.backup_id);
    // One hole is in the pristine one.
    let loses = holes.snapshots.iter().any(|found| {
        found.loses_data && format!("{}/{}", found.snapshot.backup_type, found.snapshot.backup_id) == target
    });
    let has_hole = HOLES.contains(&id);
    let agrees = report.sound == sound && (report.chunks.missing > 0) == has_hole && loses == has_hole;
    (!agrees).then(|| format!("{id}: sound {} ({sound}), hole {has_hole}, loses {loses}: {report:#?}", report.sound))
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_damage_that_no_chunk_has_to_be_read_for_is_told() {
    let Some(damage) = Damage::unpack() else { return };
    let mut faults = Vec::new();
    for mutation in &damage.mutations {
        faults.extend(one(&damage, mutation).await);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
