//! The real daemon at work on a disk that remembers.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::gc::{age, collect};
use crate::support::blocklog::{BlockLog, Log};
use crate::support::daemon::{Daemon, STORE, Setup, make_store, temp_dir};
use crate::support::loopfs::{self, LoopFs};
use crate::support::mortal::Door;
use crate::support::random::Random;
use crate::support::upload::{Chunk, Place};

/// A file system to record on.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// As `mkfs` and `mount` call it.
    pub name: &'static str,
    /// What `mkfs` is told: small, and all of it written at once, so that the recording has the daemon's writes and not those of mkfs.
    pub make: &'static [&'static str],
    /// What `mount` is told: what is discarded would not be in the log.
    pub mount: &'static [&'static str],
    /// Size of the disk.
    pub size_bytes: u64,
}

/// The three that datastores lie on most.
pub const KINDS: [Kind; 3] = [
    Kind {
        name: "ext4",
        make: &["-q", "-F", "-m", "0", "-i", "8192", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"],
        mount: &["nodiscard"],
        size_bytes: 64 << 20,
    },
    Kind { name: "xfs", make: &["-q", "-f", "-K"], mount: &["nodiscard"], size_bytes: 320 << 20 },
    Kind { name: "btrfs", make: &["-q", "-f", "-K"], mount: &["nodiscard"], size_bytes: 160 << 20 },
];

/// A snapshot that a client was told is finished.
#[derive(Clone, Debug)]
pub struct Promise {
    /// Which.
    pub place: Place,
    /// What its index names.
    pub digests: Vec<String>,
    /// Entries of the log when the client was told.
    pub finished: usize,
    /// And when somebody first asked for it to be removed.
    pub given_up: Option<usize>,
}

impl Promise {
    /// Whether it must be there after a power cut at this point of the log.
    pub fn is_due(&self, point: usize) -> bool {
        self.finished <= point && self.given_up.is_none_or(|at| at >= point)
    }
}

/// What reached a disk while a daemon worked on it, and what it had promised by when.
#[derive(Debug)]
pub struct Recording {
    /// The disk's.
    pub log: Log,
    /// In the order in which they were given.
    pub promises: Vec<Promise>,
    /// Everything that was ever uploaded.
    pub chunks: Vec<Chunk>,
}

/// Records `rounds` of work at each of these sync levels. The error says why this machine does not permit it.
pub async fn record(kind: Kind, levels: &[&'static str], rounds: i64, random: &mut Random) -> io::Result<Recording> {
    let folder = temp_dir();
    let (image, shown) = (folder.path().join("base"), folder.path().join("disk"));
    loopfs::make(&image, kind.name, kind.make, kind.size_bytes)?;
    let empty = LoopFs::attach(&image, &folder.path().join("empty"), kind.mount)?;
    make_store(&empty.path().join(STORE));
    drop(empty);
    std::fs::create_dir(&shown)?;
    // These three go in the order opposite to this, whatever happens: mounts are gone before what they lie on.
    let disk = BlockLog::mount(&image, &shown)?;
    let fs = LoopFs::attach(&disk.image(), &folder.path().join("store"), kind.mount)?;
    let mut work = Work { disk: &disk, random, promises: Mutex::default(), chunks: Vec::new(), hours: 0 };
    for level in levels {
        let store = Some(fs.path().join(STORE));
        let daemon = Daemon::with(Setup { store, sync_level: level, is_checked: false, ..Setup::default() });
        for round in 0..rounds {
            // From here on an error is none of the machine's.
            work.round(&daemon, round).await.unwrap_or_else(|e| panic!("round {round} at level {level}: {e}"));
        }
        daemon.idle().await;
    }
    let Work { promises, chunks, .. } = work;
    let promises = promises.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Recording { log: disk.log(), promises, chunks })
}

struct Work<'a> {
    disk: &'a BlockLog,
    random: &'a mut Random,
    promises: Mutex<Vec<Promise>>,
    chunks: Vec<Chunk>,
    hours: i64,
}

impl Work<'_> {
    fn new_chunks(&mut self, count: u64) -> Vec<Chunk> {
        let mut chunk = || {
            let len = 500 + self.random.index(12_000);
            Chunk::of(&self.random.bytes(len))
        };
        let made: Vec<Chunk> = (0..count).map(|_| chunk()).collect();
        self.chunks.extend_from_slice(&made);
        made
    }

    fn promise(&self, place: &Place, chunks: &[Chunk]) {
        let digests = chunks.iter().map(|chunk| chunk.digest.clone()).collect();
        let promise = Promise { place: place.clone(), digests, finished: self.disk.position(), given_up: None };
        self.promises.lock().unwrap_or_else(PoisonError::into_inner).push(promise);
    }

    /// Chunks of the newest snapshot of a group.
    fn newest(&self, group: &str) -> Vec<Chunk> {
        let promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = promises.iter().rfind(|promise| promise.place.id == group);
        let chunk = |digest: &String| self.chunks.iter().find(|chunk| chunk.digest == *digest).cloned();
        newest.into_iter().flat_map(|promise| promise.digests.iter().filter_map(chunk)).collect()
    }

    /// Two clients back up at once, one of them names chunks that it does not send, the other sends some that are there; a third breaks off.
    /// Then prune, garbage collection and verification, while a backup runs.
    async fn round(&mut self, daemon: &Daemon, round: i64) -> io::Result<()> {
        let door = Door::of(daemon);
        self.hours += 1;
        let at = |group: &str, hours| Place::host(group, hours);
        let (mut a, mut b) = (self.newest("a"), self.newest("a"));
        a.truncate(6);
        b.truncate(2);
        let known: BTreeSet<String> = a.iter().map(|chunk| chunk.digest.clone()).collect();
        a.extend(self.new_chunks(3));
        b.extend(self.new_chunks(3));
        let lost = self.new_chunks(2);
        let (in_a, in_b, in_c) = (at("a", self.hours), at("b", self.hours), at("c", self.hours));
        let none = BTreeSet::new();
        let (first, second, third) = tokio::join!(
            door.back_up(&in_a, &a, &known, || self.promise(&in_a, &a)),
            door.back_up(&in_b, &b, &none, || self.promise(&in_b, &b)),
            door.break_off(&in_c, &lost),
        );
        first.and(second).and(third)?;
        daemon.idle().await;
        let notes = json!({"backup-type": "host", "backup-id": "a", "backup-time": in_a.time, "notes": "kept"});
        door.ask("PUT", "notes", &notes.to_string()).await?;
        if round % 2 == 0 {
            return Ok(());
        }
        self.give_up_all_but(2);
        for group in ["a", "b"] {
            let keep = json!({"backup-type": "host", "backup-id": group, "keep-last": 2});
            door.ask("POST", "prune", &keep.to_string()).await?;
        }
        age(&daemon.store().join(".chunks"), 2 * 86_400);
        self.hours += 1;
        let (late, mut chunks) = (at("d", self.hours), self.newest("b"));
        chunks.extend(self.new_chunks(2));
        let (backup, (result, log)) =
            tokio::join!(door.back_up(&late, &chunks, &none, || self.promise(&late, &chunks)), collect(daemon));
        assert_eq!(result, "OK", "{log:?}");
        door.ask("POST", "verify", "").await?;
        daemon.idle().await;
        backup
    }

    /// From here on only the newest snapshots of each group that is pruned must be there.
    fn give_up_all_but(&self, kept: usize) {
        let now = self.disk.position();
        let mut promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        for group in ["a", "b"] {
            let of_group = promises.iter_mut().rev().filter(|promise| promise.place.id == group);
            for promise in of_group.skip(kept) {
                promise.given_up.get_or_insert(now);
            }
        }
    }
}
