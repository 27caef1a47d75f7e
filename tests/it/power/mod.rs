//! The power is cut while a daemon works on ext4, xfs and btrfs: what does the next start find?
//!
//! The file system lies on a disk that remembers every write and every flush (`support::blocklog`). From the log images are made as the disk may
//! be after a power cut; each is mounted, which lets the file system replay its journal, and what is there is held against what clients had been
//! told by then. The words I1, I2, I4, I6 are those of `src/jobs/crash_states/`.

mod cuts;
mod judge;
mod record;

use std::collections::BTreeSet;
use std::path::Path;

use cuts::{Cut, Rebuilder, Survival};
use judge::{Tally, judge};
use record::{KINDS, Kind, Promise, Recording, record};

use crate::gc::collect;
use crate::support::daemon::{Daemon, STORE, Setup, temp_dir};
use crate::support::loopfs::LoopFs;
use crate::support::mortal::Door;
use crate::support::random::{Random, seed_from};
use crate::support::upload::Place;

/// Images that `cargo test` makes of each file system, and rounds of work at each level.
const IMAGES: usize = 10;
const ROUNDS: i64 = 2;

/// Those of the long form.
const IMAGES_LONG: usize = 500;
const ROUNDS_LONG: i64 = 12;

/// On every so many images of the long form a daemon is started.
const REVIVED_EVERY: usize = 10;

/// The long form tells how far it is.
const REPORTED_EVERY: usize = 50;

/// Enough to see what is wrong.
const FAILURES_SHOWN: usize = 8;

/// The levels that promise something.
const SAFE: [&str; 2] = ["filesystem", "file"];

/// Mounts what a disk holds after one cut and judges it; where `is_revived`, a daemon goes to work on it as well.
async fn look(
    folder: &Path,
    kind: Kind,
    recording: &Recording,
    (cut, pages): (Cut, crate::support::blocklog::Pages),
    is_revived: bool,
) -> Result<Tally, String> {
    let image = folder.join("image");
    pages.store(&image, kind.size_bytes).map_err(|e| e.to_string())?;
    let seen = match LoopFs::attach(&image, &folder.join("after"), kind.mount) {
        Ok(fs) => {
            let store = fs.path().join(STORE);
            let due = || recording.promises.iter().filter(|promise| promise.is_due(cut.point));
            match judge(&store, due()) {
                Ok(_) if is_revived => revive(&store, recording, due().cloned().collect()).await,
                seen => seen,
            }
        }
        Err(e) => Err(format!("I6: it does not mount: {e}")),
    };
    std::fs::remove_file(&image).map_err(|e| e.to_string())?;
    seen
}

/// A daemon starts on what is left: all that is due can be read, every group takes a backup of all that anybody has ever sent (so that each
/// chunk meets what is left of it), and a garbage collection ends well.
async fn revive(store: &Path, recording: &Recording, mut due: Vec<Promise>) -> Result<Tally, String> {
    let setup = Setup { store: Some(store.to_owned()), is_checked: false, ..Setup::default() };
    let daemon = Daemon::with(setup);
    let door = Door::of(&daemon);
    for promise in &due {
        let digests = door.restore(&promise.place).await.map_err(|e| format!("I1: {}: {e}", promise.place.dir()))?;
        if digests != promise.digests {
            return Err(format!("I1: {} is read otherwise", promise.place.dir()));
        }
    }
    for group in ["a", "b", "c", "d"] {
        let place = Place::host(group, 10_000);
        let made = door.back_up(&place, &recording.chunks, &BTreeSet::new(), || ()).await;
        made.map_err(|e| format!("I6: no backup to {group}: {e}"))?;
        let digests = recording.chunks.iter().map(|chunk| chunk.digest.clone()).collect();
        due.push(Promise { place, digests, finished: 0, given_up: None });
    }
    daemon.idle().await;
    let (mut result, mut log) = collect(&daemon).await;
    if result != "OK" && remove_unfinished(store).map_err(|e| e.to_string())? > 0 {
        // An index that is torn keeps its chunks, and the log tells what to do; only those of unfinished snapshots may be.
        (result, log) = collect(&daemon).await;
    }
    if result != "OK" {
        return Err(format!("I6: a garbage collection ends with {result}: {log:?}"));
    }
    drop(daemon);
    judge(store, due.iter())
}

/// What an operator does with snapshots that never ended. Returns how many there were.
fn remove_unfinished(store: &Path) -> std::io::Result<usize> {
    let mut removed = 0;
    for group in std::fs::read_dir(store.join("host"))? {
        for snapshot in std::fs::read_dir(group?.path())? {
            let snapshot = snapshot?.path();
            if snapshot.is_dir() && !snapshot.join("index.json.blob").exists() {
                std::fs::remove_dir_all(&snapshot)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// What cuts of a recording came to.
#[derive(Debug, Default)]
struct Outcome {
    sum: Tally,
    failures: Vec<String>,
    by_survival: std::collections::BTreeMap<Survival, usize>,
}

async fn cut_all(
    kind: Kind,
    recording: &Recording,
    cuts: &[Cut],
    revived_every: usize,
    random: &mut Random,
) -> Outcome {
    let folder = temp_dir();
    let (mut rebuilder, mut outcome) = (Rebuilder::new(&recording.log), Outcome::default());
    for (n, cut) in (1..).zip(cuts) {
        let pages = rebuilder.after(*cut, random);
        *outcome.by_survival.entry(cut.survival).or_default() += 1;
        match look(folder.path(), kind, recording, (*cut, pages), n % revived_every == 0).await {
            Ok(tally) => {
                outcome.sum.promised += tally.promised;
                outcome.sum.finished += tally.finished;
                outcome.sum.cut_off += tally.cut_off;
            }
            Err(what) => outcome.failures.push(format!("image {n}, {cut:?}: {what}")),
        }
        if n % REPORTED_EVERY == 0 {
            println!("{}: {n} of {} images, {} failures", kind.name, cuts.len(), outcome.failures.len());
        }
    }
    outcome
}

/// The whole story on one file system; says why where the machine does not permit it.
async fn play(kind: Kind, rounds: i64, images: usize, seed: u64) {
    if !judge::has_checker() {
        return println!("skipped: no python3 for the independent checker");
    }
    let mut random = Random::new(seed);
    let recording = match record(kind, &SAFE, rounds, &mut random).await {
        Ok(recording) => recording,
        Err(e) => return println!("skipped: no {} on a recording disk here: {e}", kind.name),
    };
    let promises: Vec<usize> = recording.promises.iter().map(|promise| promise.finished).collect();
    let is_long = images >= IMAGES_LONG;
    let cuts = if is_long {
        cuts::everywhere(&recording.log, &promises, images, &mut random)
    } else {
        cuts::some(&recording.log, &promises, images, &mut random)
    };
    let every = if is_long { REVIVED_EVERY } else { images };
    let Outcome { sum, failures, by_survival } = cut_all(kind, &recording, &cuts, every, &mut random).await;
    let flushes = recording.log.entries.iter().filter(|e| matches!(e, crate::support::blocklog::Entry::Flush)).count();
    println!(
        "{}: {} images from seed {seed} ({by_survival:?}), {} with a daemon on them; {} writes, {flushes} flushes, {} promises in the log; {} promised \
         snapshots whole, {} finished ones in all, {} signs of what was cut off; {} failures",
        kind.name,
        cuts.len(),
        cuts.len() / every,
        recording.log.entries.len() - flushes,
        promises.len(),
        sum.promised,
        sum.finished,
        sum.cut_off,
        failures.len(),
    );
    let shown = failures.iter().take(FAILURES_SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} from seed {seed}:\n{shown}", kind.name);
    assert!(flushes > 0 && sum.promised > 0, "nothing was at stake");
}

#[tokio::test]
async fn ext4_keeps_what_was_promised() {
    play(KINDS[0], ROUNDS, IMAGES, 1).await;
}

#[tokio::test]
async fn xfs_keeps_what_was_promised() {
    play(KINDS[1], ROUNDS, IMAGES, 1).await;
}

#[tokio::test]
async fn btrfs_keeps_what_was_promised() {
    play(KINDS[2], ROUNDS, IMAGES, 1).await;
}

#[tokio::test]
#[ignore = "five hundred images of each file system take a quarter of an hour"]
async fn five_hundred_power_cuts_of_each_file_system() {
    for kind in KINDS {
        play(kind, ROUNDS_LONG, IMAGES_LONG, seed_from("RINGVAULT_POWER_SEED")).await;
    }
}

/// The harness itself: a daemon that does not sync breaks promises, and the cuts show it.
#[tokio::test]
async fn without_syncs_promises_are_broken() {
    if !judge::has_checker() {
        return println!("skipped: no python3 for the independent checker");
    }
    let mut random = Random::new(1);
    let recording = match record(KINDS[0], &["none"], ROUNDS, &mut random).await {
        Ok(recording) => recording,
        Err(e) => return println!("skipped: no recording disk here: {e}"),
    };
    let end = recording.log.entries.len();
    let cuts = [Cut { point: end, survival: Survival::Nothing }];
    let outcome = cut_all(KINDS[0], &recording, &cuts, usize::MAX, &mut random).await;
    assert!(outcome.failures.iter().any(|failure| failure.contains("I1: ")), "{outcome:?}");
}
