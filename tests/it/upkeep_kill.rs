//! Garbage collection, verification and prune are killed at random points and started again: nothing is lost, work goes on where it stopped, and in
//! the end all of it is done.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, STORE, Setup, check_datastore};
use crate::support::random::{Random, seed_from};
use crate::support::upload::{self, Chunk, Place, rest};
use crate::support::wire::PATIENCE;

/// Kills that `cargo test` makes.
const KILLS: usize = 4;

/// Kills of the long form.
const KILLS_LONG: usize = 200;

/// Chunks of the snapshot that takes long to verify, 1 MiB each, which compress to nothing.
const CHUNKS: u64 = 1500;

const CHUNK_BYTES: u64 = 1 << 20;

/// Files of garbage that each round adds, all over the chunk directories.
const GARBAGE: u64 = 300;

const JOBS: &str = "gc-schedule = \"sat 03:00\"\n\
    [[verify-job]]\nid = \"weekly\"\nstore = \"golden\"\nschedule = \"sat 04:00\"\nignore-verified = false\n\
    [[prune-job]]\nid = \"nightly\"\nstore = \"golden\"\nschedule = \"sat 05:00\"\nkeep-last = 1\n";

/// What starts each job by hand, and the worker type of its tasks.
const STARTS: [(&str, &str); 3] = [
    ("admin/datastore/golden/gc", "garbage_collection"),
    ("admin/verify/weekly/run", "verificationjob"),
    ("admin/prune/nightly/run", "prunejob"),
];

/// A chunk of zeros and a number.
fn chunk(n: u64) -> Chunk {
    let mut plain = vec![0; usize::try_from(CHUNK_BYTES).unwrap()];
    plain[..8].copy_from_slice(&n.to_le_bytes());
    Chunk::of(&plain)
}

struct Story {
    daemon: Daemon,
    random: Random,
    live: Vec<PathBuf>,
    garbage: BTreeSet<PathBuf>,
    /// Snapshots of the group that is pruned.
    pruned: i64,
    seen: BTreeSet<String>,
    resumed: [usize; 2],
    went_on: usize,
}

impl Story {
    async fn begin(seed: u64) -> Self {
        let daemon = Daemon::with(Setup { more: JOBS.to_owned(), ..Setup::default() });
        for prefix in 0..=u16::MAX {
            let dir = daemon.store().join(format!(".chunks/{prefix:04x}"));
            let _ = std::fs::create_dir(&dir);
            std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o750)).expect("its mode");
        }
        let chunks: Vec<Chunk> = (0..CHUNKS).map(chunk).collect();
        upload::full_backup(&daemon, Place::host("big", 0), "a.pxar.didx", &chunks).await;
        upload::full_backup(&daemon, Place::host("small", 0), "a.pxar.didx", &chunks[..20]).await;
        let live = chunks.iter().map(|chunk| daemon.store().join(chunk.path())).collect();
        let (random, garbage, seen) = (Random::new(seed), BTreeSet::new(), BTreeSet::new());
        Self { daemon, random, live, garbage, pruned: 0, seen, resumed: [0; 2], went_on: 0 }
    }

    /// Files with names of chunks that nobody names, last used a month ago; and snapshots that no job keeps.
    async fn add_work(&mut self) {
        let old = std::time::SystemTime::now() - Duration::from_secs(30 * 86_400);
        for _ in 0..GARBAGE {
            let chunk = upload::encode_plain_blob(&self.random.below(u64::MAX).to_le_bytes());
            let name = upload::sha256(&chunk[12..]);
            let path = self.daemon.store().join(upload::chunk_path(&name));
            std::fs::write(&path, &chunk).expect("write garbage");
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
            file.set_times(std::fs::FileTimes::new().set_accessed(old)).expect("its access time");
            self.garbage.insert(path);
        }
        for _ in 0..3 {
            self.pruned += 1;
            upload::full_backup(&self.daemon, Place::host("p", self.pruned), "a.pxar.didx", &[chunk(1)]).await;
        }
    }

    async fn start_all(&self) {
        for (path, _) in STARTS {
            let reply = rest(&self.daemon, "POST", &format!("/api2/json/{path}"), b"").await;
            // One that a start of the daemon has gone on with runs already.
            assert!(
                reply.status == 200 || reply.text().contains("already running") || reply.text().contains("locked"),
                "{}",
                reply.text()
            );
        }
    }

    /// Kills the daemon, looks at what is there, and starts it again, as it would be if a schedule had started the jobs.
    fn kill(&mut self) {
        self.daemon.kill();
        self.nothing_is_lost();
        for entry in std::fs::read_dir(self.daemon.data().join("jobs")).expect("the states of jobs") {
            let path = entry.expect("an entry").path();
            let mut state: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&path).expect("read")).unwrap_or_default();
            if let Some(started) = state.get_mut("started").filter(|started| started.get("again").is_none()) {
                started["again"] = serde_json::json!({ "tries": 0, "progress": 0 });
                std::fs::write(&path, state.to_string()).expect("write");
            }
        }
        self.daemon.launch();
    }

    fn nothing_is_lost(&self) {
        let lost: Vec<&PathBuf> = self.live.iter().filter(|path| !path.exists()).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
    }

    /// Looks through the logs of tasks for those that went on with others.
    fn count_resumed(&mut self) {
        let names: Vec<String> =
            self.daemon.ended().into_iter().map(|(upid, _)| upid).chain(self.daemon.running()).collect();
        for upid in names {
            if !self.seen.contains(&upid) {
                let log = self.daemon.task_log(&upid);
                for (count, words) in
                    self.resumed.iter_mut().zip(["resuming at directory ", "resuming the verification "])
                {
                    if log.iter().any(|line| line.starts_with(words)) {
                        *count += 1;
                        self.seen.insert(upid.clone());
                    }
                }
            }
        }
        self.went_on = self.daemon.log().matches("a job that was cut off goes on").count();
    }

    /// Whether there is something to go on with: under its name, and not empty.
    fn has_progress(&self, of: &str) -> bool {
        let mut entries = std::fs::read_dir(self.daemon.store()).expect("list");
        entries.any(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(of) && !name.contains(".tmp_") && entry.metadata().is_ok_and(|meta| meta.len() > 0)
        })
    }

    async fn idle(&self) {
        let started = Instant::now();
        while !self.daemon.running().is_empty() {
            assert!(started.elapsed() < PATIENCE, "{:?} does not end", self.daemon.running());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All jobs come to their end, and it is the end that they would have come to without a kill.
    async fn end(mut self) {
        self.idle().await;
        // Prune first: what it removes is garbage for nobody, for its chunk is the big snapshot's.
        let before: BTreeSet<String> = self.daemon.ended().into_iter().map(|(upid, _)| upid).collect();
        self.start_all().await;
        self.idle().await;
        let ended = self.daemon.ended().into_iter().filter(|(upid, _)| !before.contains(upid));
        let results: Vec<(String, String)> = ended.collect();
        assert!(results.len() == 3 && results.iter().all(|(_, result)| result == "OK"), "{results:?}");
        self.count_resumed();
        self.nothing_is_lost();
        let left: Vec<&PathBuf> = self.garbage.iter().filter(|path| path.exists()).collect();
        assert!(left.is_empty(), "garbage that stays: {left:?}");
        let kept = std::fs::read_dir(self.daemon.store().join("host/p"))
            .expect("list")
            .filter(|entry| entry.as_ref().expect("an entry").path().is_dir());
        assert_eq!(kept.count(), 1, "snapshots that are kept");
        let listed =
            rest(&self.daemon, "GET", &format!("/api2/json/admin/datastore/{STORE}/snapshots"), b"").await.data();
        let unverified = listed.as_array().expect("rows").iter().filter(|row| row["verification"]["state"] != "ok");
        assert_eq!(unverified.count(), 0, "{listed}");
        assert!(!self.has_progress(".ringvault-gc-progress") && !self.has_progress(".ringvault-verify-"));
        // The independent checker reads every byte when the daemon has ended.
        drop(self.daemon);
    }
}

/// `kills` kills: the first two as soon as there is something to go on with, the others at random points.
async fn play(kills: usize, seed: u64) {
    let mut story = Story::begin(seed).await;
    story.add_work().await;
    let begun = Instant::now();
    story.start_all().await;
    for (round, of) in [(0, ".ringvault-gc-progress"), (1, ".ringvault-verify-")] {
        let started = Instant::now();
        while !story.has_progress(of) {
            assert!(started.elapsed() < PATIENCE, "no {of} is written");
            if story.daemon.running().is_empty() {
                story.add_work().await;
                story.start_all().await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        story.kill();
        let started = Instant::now();
        while story.resumed[round] == 0 {
            story.count_resumed();
            assert!(started.elapsed() < PATIENCE, "nothing goes on with {of}: {}", story.daemon.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        story.start_all().await;
    }
    story.idle().await;
    let whole = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).clamp(500, 20_000) / 2;
    for round in 2..kills {
        story.add_work().await;
        story.start_all().await;
        tokio::time::sleep(Duration::from_millis(story.random.below(whole))).await;
        story.count_resumed();
        story.kill();
        if round % 50 == 0 {
            story.idle().await;
            // The daemon runs, and has its record of temporary files.
            check_datastore(story.daemon.store(), &["--allow", "temp:.ringvault-temps-*"]);
        }
        // Sometimes at once again, in what the start of the daemon does.
        if story.random.below(4) == 0 {
            tokio::time::sleep(Duration::from_millis(story.random.below(whole / 4))).await;
            story.kill();
        }
    }
    story.count_resumed();
    let [gc, verify] = story.resumed;
    println!(
        "{kills} kills from seed {seed}: {gc} collections and {verify} verifications were gone on with, {} jobs by the daemon itself",
        story.went_on
    );
    assert!(gc > 0 && verify > 0 && story.went_on > 0);
    story.end().await;
}

#[tokio::test]
async fn upkeep_that_is_killed_goes_on() {
    play(KILLS, 1).await;
}

#[tokio::test]
#[ignore = "two hundred kills take a quarter of an hour"]
async fn upkeep_that_is_killed_two_hundred_times_goes_on() {
    play(KILLS_LONG, seed_from("RINGVAULT_KILL_SEED")).await;
}
