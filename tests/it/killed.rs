//! Several clients back up, restore, prune, remove, collect and verify at once, and the daemon is killed in the middle of it, again and again. What
//! it had reported finished is there, what it had reported removed is not, nothing is locked or running, and work goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::gc::age;
use crate::support::daemon::{Daemon, Setup, check_datastore};
use crate::support::mortal::{ARCHIVE, Door, digests_of};
use crate::support::random::{Random, seed_from};
use crate::support::upload::{Chunk, Place};

/// Kills that `cargo test` makes, and how long each lets the clients work at most.
const ROUNDS: usize = 4;
const LIFE_MS: u64 = 700;

/// Those of the long form.
const ROUNDS_LONG: usize = 300;
const LIFE_LONG_MS: u64 = 1500;

/// Each has a client of its own that backs up to it.
const GROUPS: [&str; 3] = ["a", "b", "c"];

/// Snapshots of a group that prune keeps.
const KEPT: usize = 3;

/// Chunks that clients take from the snapshot before at most.
const KNOWN_MAX: usize = 8;

/// Chunks that everybody uploads now and then.
const SHARED: u64 = 12;

/// What a client knows of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It may be there or not: nobody has been told.
    Begun,
    /// It is there.
    Finished,
    /// Somebody asked for its removal; it may be there or not.
    Removing,
}

#[derive(Clone, Debug)]
struct Known {
    place: Place,
    chunks: Vec<Chunk>,
    state: State,
}

impl Known {
    fn digests(&self) -> Vec<String> {
        self.chunks.iter().map(|chunk| chunk.digest.clone()).collect()
    }
}

/// What was reported, and how often.
#[derive(Debug, Default)]
struct Model {
    /// By group and time, so that the last one of a group is its newest.
    snapshots: BTreeMap<(String, i64), Known>,
    /// Directories that must not come back.
    gone: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Counts {
    finished: AtomicUsize,
    /// Finished, but the client had not been told.
    untold: AtomicUsize,
    cut_off: AtomicUsize,
    restored: AtomicUsize,
}

/// What the clients share.
#[derive(Debug, Default)]
struct World {
    model: Mutex<Model>,
    /// Prune needs a group to itself to know what it will remove.
    groups: [tokio::sync::Mutex<()>; GROUPS.len()],
    is_dying: AtomicBool,
    hours: AtomicI64,
    counts: Counts,
}

fn count(cell: &AtomicUsize) {
    cell.fetch_add(1, Ordering::Relaxed);
}

fn is_locked(e: &io::Error) -> bool {
    let text = e.to_string();
    text.contains("unable to acquire lock") || text.contains("locked by another")
}

impl World {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dying(&self) -> bool {
        self.is_dying.load(Ordering::SeqCst)
    }

    /// A call failed: because the daemon is dead, or it is a failure.
    fn expect_death(&self, what: &str, e: &io::Error) {
        assert!(self.is_dying(), "{what}: {e}");
    }

    /// The newest finished snapshots of a group, newest first.
    fn newest(&self, group: &str) -> Vec<Known> {
        let model = self.model();
        let all = model.snapshots.values().rev();
        all.filter(|known| known.place.id == group && known.state == State::Finished).cloned().collect()
    }

    /// Backs up once; a lock that the last session of this client still holds is waited for where `is_patient`.
    async fn back_up(&self, door: &Door, group: &str, random: &mut Random, is_patient: bool) -> io::Result<()> {
        let place = Place::host(group, self.hours.fetch_add(1, Ordering::SeqCst));
        let mut chunks: Vec<Chunk> = self.newest(group).into_iter().next().map_or_else(Vec::new, |known| known.chunks);
        chunks.truncate(random.index(KNOWN_MAX + 1));
        let known: BTreeSet<String> = chunks.iter().map(|chunk| chunk.digest.clone()).collect();
        for _ in 0..1 + random.below(3) {
            let len = 200 + random.index(20_000);
            chunks.push(Chunk::of(&random.bytes(len)));
            chunks.push(Chunk::made(random.below(SHARED), 5000));
        }
        let key = (group.to_owned(), place.time);
        let begun = Known { place: place.clone(), chunks: chunks.clone(), state: State::Begun };
        self.model().snapshots.insert(key.clone(), begun);
        loop {
            let finished = || {
                count(&self.counts.finished);
                if let Some(known) = self.model().snapshots.get_mut(&key) {
                    known.state = State::Finished;
                }
            };
            match door.back_up(&place, &chunks, &known, finished).await {
                Err(e) if is_patient && is_locked(&e) => tokio::time::sleep(Duration::from_millis(2)).await,
                done => return done,
            }
        }
    }

    async fn backups(&self, door: Door, group: usize, mut random: Random) {
        loop {
            let _own = self.groups[group].lock().await;
            if let Err(e) = self.back_up(&door, GROUPS[group], &mut random, true).await {
                return self.expect_death("a backup", &e);
            }
        }
    }

    /// Prunes a group, or removes its oldest snapshot.
    async fn removals(&self, store: std::path::PathBuf, door: Door, mut random: Random) {
        while !self.is_dying() {
            tokio::time::sleep(Duration::from_millis(random.below(40))).await;
            let group = random.index(GROUPS.len());
            let _own = self.groups[group].lock().await;
            let mut going: Vec<Known> = self.newest(GROUPS[group]).into_iter().skip(KEPT).collect();
            let is_prune = random.below(2) == 0;
            if !is_prune {
                // The oldest alone.
                going.drain(..going.len().saturating_sub(1));
            }
            for known in &going {
                let key = (known.place.id.clone(), known.place.time);
                if let Some(known) = self.model().snapshots.get_mut(&key) {
                    known.state = State::Removing;
                }
            }
            let done = match (is_prune, going.first()) {
                (true, _) => {
                    let keep = json!({"backup-type": "host", "backup-id": GROUPS[group], "keep-last": KEPT});
                    door.ask("POST", "prune", &keep.to_string()).await
                }
                (false, Some(known)) => door.ask("DELETE", &format!("snapshots?{}", known.place.query()), "").await,
                (false, None) => continue,
            };
            match done {
                Ok(_) => self.forget(&store, &going),
                // Somebody reads it.
                Err(e) if is_locked(&e) => {}
                Err(e) => return self.expect_death("a removal", &e),
            }
        }
    }

    /// Of what was reported removed, what is not there any more must not come back; prune leaves what is being read.
    fn forget(&self, store: &std::path::Path, removed: &[Known]) {
        let mut model = self.model();
        for known in removed {
            let dir = known.place.dir();
            if !store.join(&dir).exists() {
                model.snapshots.remove(&(known.place.id.clone(), known.place.time));
                model.gone.insert(dir);
            }
        }
    }

    async fn restores(&self, door: Door, mut random: Random) {
        while !self.is_dying() {
            tokio::time::sleep(Duration::from_millis(random.below(10))).await;
            let group = GROUPS[random.index(GROUPS.len())];
            let finished = self.newest(group);
            if finished.is_empty() {
                continue;
            }
            let known = &finished[random.index(finished.len())];
            match door.restore(&known.place).await {
                Ok(digests) => {
                    assert_eq!(digests, known.digests(), "{}", known.place.dir());
                    count(&self.counts.restored);
                }
                Err(e) => {
                    let key = (known.place.id.clone(), known.place.time);
                    let is_there = self.model().snapshots.get(&key).is_some_and(|known| known.state == State::Finished);
                    // What is being removed need not be read.
                    if is_there {
                        return self.expect_death("a restore", &e);
                    }
                }
            }
        }
    }

    /// Starts one job after the other, whatever runs.
    async fn upkeep(&self, door: Door, mut random: Random) {
        loop {
            let call = ["gc", "verify"][random.index(2)];
            match door.ask("POST", call, "").await {
                Ok(_) => {}
                Err(e) if is_locked(&e) || e.to_string().contains("already running") => {}
                Err(e) => return self.expect_death(call, &e),
            }
            tokio::time::sleep(Duration::from_millis(random.below(60))).await;
        }
    }

    /// Holds what is there against what was reported; what nobody had been told of is known from here on.
    fn settle(&self, store: &std::path::Path) {
        let mut model = self.model();
        let Model { snapshots, gone } = &mut *model;
        for dir in gone.iter() {
            assert!(!store.join(dir).exists(), "{dir} was reported removed and is there again");
        }
        snapshots.retain(|_, known| {
            let dir = store.join(known.place.dir());
            if !dir.join("index.json.blob").exists() {
                assert_ne!(
                    known.state,
                    State::Finished,
                    "{} was reported finished and is not there",
                    known.place.dir()
                );
                count(&self.counts.cut_off);
                return false;
            }
            let index = std::fs::read(dir.join(ARCHIVE)).expect("a finished snapshot has its index");
            assert_eq!(digests_of(&index), known.digests(), "{}", known.place.dir());
            if known.state == State::Begun {
                count(&self.counts.untold);
            }
            known.state = State::Finished;
            true
        });
    }
}

struct Story {
    daemon: Daemon,
    world: Arc<World>,
    random: Random,
}

impl Story {
    /// Lets all clients work for a while, kills the daemon under them and starts it again.
    async fn round(&mut self, life_ms: u64) {
        let (world, door) = (&self.world, Door::of(&self.daemon));
        let store = self.daemon.store().to_owned();
        let mut clients = tokio::task::JoinSet::new();
        for group in 0..GROUPS.len() {
            let (world, door, random) = (Arc::clone(world), door.clone(), Random::new(self.random.number()));
            clients.spawn(async move { world.backups(door, group, random).await });
        }
        for _ in 0..2 {
            let (world, door, random) = (Arc::clone(world), door.clone(), Random::new(self.random.number()));
            clients.spawn(async move { world.restores(door, random).await });
        }
        let (own, theirs, random) = (Arc::clone(world), door.clone(), Random::new(self.random.number()));
        clients.spawn(async move { own.removals(store, theirs, random).await });
        let (own, random) = (Arc::clone(world), Random::new(self.random.number()));
        clients.spawn(async move { own.upkeep(door, random).await });

        tokio::time::sleep(Duration::from_millis(self.random.below(life_ms))).await;
        // What they meet from here on may be the death of the daemon.
        world.is_dying.store(true, Ordering::SeqCst);
        self.daemon.kill();
        while let Some(client) = clients.join_next().await {
            client.expect("a client met nothing that it should not have");
        }
        world.is_dying.store(false, Ordering::SeqCst);
        world.settle(self.daemon.store());
        if self.random.below(2) == 0 {
            // Whatever nobody names is old enough to go now.
            age(&self.daemon.store().join(".chunks"), 2 * 86_400);
        }
        self.daemon.launch();
        self.looks_well().await;
    }

    /// The daemon has begun anew: nothing runs or is locked, everything that is finished is whole, and can be added to.
    async fn looks_well(&mut self) {
        self.daemon.idle().await;
        let more = ["--allow-unfinished", "--allow", "temp:.ringvault-temps-*", "--allow", "absent:.chunks"];
        check_datastore(self.daemon.store(), &more);
        let door = Door::of(&self.daemon);
        for group in GROUPS {
            let finished = self.world.newest(group);
            let any = (!finished.is_empty()).then(|| self.random.index(finished.len()));
            for known in finished.first().into_iter().chain(any.map(|any| &finished[any])) {
                let digests = door.restore(&known.place).await.expect("a restore");
                assert_eq!(digests, known.digests(), "{}", known.place.dir());
            }
            self.world.back_up(&door, group, &mut self.random, false).await.expect("the group is free");
        }
    }
}

async fn play(rounds: usize, life_ms: u64, seed: u64) {
    let daemon = Daemon::with(Setup::default());
    // What was cut off stays until somebody removes it.
    daemon.expect(&["--allow-unfinished"]);
    let mut story = Story { daemon, world: Arc::default(), random: Random::new(seed) };
    for _ in 0..rounds {
        story.round(life_ms).await;
    }
    let ended = story.daemon.ended();
    let well = |kind: &str| ended.iter().filter(|(upid, result)| upid.contains(kind) && result == "OK").count();
    let [collections, verifications] = [":garbage_collection:", ":verify"].map(well);
    let Counts { finished, untold, cut_off, restored } = &story.world.counts;
    let [finished, untold, cut_off, restored] =
        [finished, untold, cut_off, restored].map(|cell| cell.load(Ordering::Relaxed));
    let removed = story.world.model().gone.len();
    println!(
        "{rounds} kills from seed {seed}: {finished} backups reported finished, {untold} finished without a word, {cut_off} cut off or half removed, \
         {removed} snapshots reported removed, {restored} restored under load, {collections} collections and {verifications} verifications came to their end"
    );
    assert!(finished > 0 && restored > 0, "nothing was at stake");
    assert!(rounds < ROUNDS_LONG || (removed > 0 && collections > 0 && verifications > 0 && cut_off > 0));
}

#[tokio::test]
async fn a_daemon_that_is_killed_keeps_its_word() {
    play(ROUNDS, LIFE_MS, 1).await;
}

#[tokio::test]
#[ignore = "three hundred kills take a quarter of an hour"]
async fn a_daemon_that_is_killed_three_hundred_times_keeps_its_word() {
    play(ROUNDS_LONG, LIFE_LONG_MS, seed_from("RINGVAULT_KILL_SEED")).await;
}
