//! The chunks that one index names: ordered, read ahead of the processor, judged, doubted, settled.
//!
//! ```text
//! index ─ batch of claims ─ in the order of inodes ─→ read (8 at a time) ─→ judge (all cores) ─ right ───────────→ seen
//!                                                          │ failed: once more        │ bad ─→ read again under the claim ─→ .N.bad
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::figures::Figures;
use super::part::Part;
use super::resume::Trail;
use super::seen::Seen;
use super::verdict::{Bad, Claim, Judged, Mismatch, judge, speaks_of_data};
use crate::engine::ComputePool;
use crate::error::{Error, Kind, Result};
use crate::store::{BudgetShare, Datastore, Doubt, IndexReader, Rate, SCAN_BLOCK_BYTES};
use crate::task::Task;
use crate::types::Digest;

/// Chunks read at a time: enough that a disk sorts its requests and a network's latency is hidden, few enough that backups get their turn.
/// Each holds its file and its plaintext, at most 32 MiB.
const READS_AHEAD: usize = 8;

/// Chunks being judged at a time beside those being read; more cores than this are left to backups.
const JUDGES_MAX: usize = 16;

/// Chunks put in order at a time: 1 TiB of an image, 14 MB of memory.
const BATCH_CHUNKS: usize = 1 << 18;

/// From how many chunks on inode numbers are looked up: one for every fourth prefix directory. With fewer, the directories would cost more
/// than the order saves, and they are read in the order of their names instead.
const INODE_ORDER_MIN: usize = 1 << 14;

/// Prefix directories read at a time for inode numbers: half of the threads of a store, so that backups are served in between.
const DIRS_AT_ONCE: usize = 8;

/// Chunks of one archive that cannot be read before it is given up: the disk has gone, and the rest would say the same.
const UNREADABLE_MAX: u64 = 100;

/// How often a long check says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What a verification works with, the chunks that it has seen included.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) store: &'a Datastore,
    pub(super) compute: &'a ComputePool,
    pub(super) task: &'a Task,
    pub(super) share: BudgetShare,
    pub(super) seen: Seen,
    pub(super) part: Part,
    pub(super) figures: Figures,
    pub(super) inode_order_min: usize,
    /// Keeps what is seen for the run after a crash.
    pub(super) trail: Option<Trail>,
}

/// How far the chunks of an archive are.
#[derive(Debug, Default)]
pub(super) struct Tally {
    chunks: u64,
    /// Those of them that are not left to another part or sample.
    chosen: AtomicU64,
    done: AtomicU64,
    /// Files that were read, each for all that name it.
    read: AtomicU64,
    loaded_bytes: AtomicU64,
    plain_bytes: AtomicU64,
    errors: AtomicU64,
    unreadable: AtomicU64,
    unknown: AtomicU64,
}

/// What became of one chunk.
#[derive(Debug)]
enum Outcome {
    /// What lies there is right, or right but for the claim.
    Judged(Judged, Option<Mismatch>),
    /// The first reading said so, and it was not so.
    Recovered(Judged, Option<Mismatch>, Bad),
    /// Bad, and what was done about it.
    Bad(Judged, Bad, Option<String>),
    /// Nobody knows.
    Unreadable(Error),
}

impl<'a> Bench<'a> {
    pub(super) fn new(store: &'a Datastore, compute: &'a ComputePool, task: &'a Task) -> Self {
        let share = store.budget().share(Rate::NONE);
        Self {
            store,
            compute,
            task,
            share,
            seen: Seen::default(),
            part: Part::All,
            figures: Figures::default(),
            inode_order_min: INODE_ORDER_MIN,
            trail: None,
        }
    }

    /// Verifies the chunks of an index that nobody has verified in this task. An error is the machine's, and ends the task.
    pub(super) async fn verify_chunks(&mut self, index: &IndexReader, encrypted: bool) -> Result<Arc<Tally>> {
        let (task, started) = (self.task, Instant::now());
        let tally = Arc::new(Tally { chunks: index.count(), ..Tally::default() });
        {
            let work = self.all_batches(index, encrypted, &tally);
            tokio::pin!(work);
            let mut ticks = tokio::time::interval_at(started + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
            loop {
                tokio::select! {
                    done = &mut work => break done?,
                    _ = ticks.tick() => task.log(format!("  {}", tally.progress(started.elapsed()))),
                }
            }
        }
        if tally.is_hopeless() {
            task.log(format!("giving up: {UNREADABLE_MAX} chunks could not be read"));
        }
        if !self.part.is_all() {
            let (chosen, read) = (tally.chosen.load(Ordering::Relaxed), tally.read.load(Ordering::Relaxed));
            task.log(format!("  {chosen} of {} chunks are in {}, {read} had to be read", tally.chunks, self.part));
        }
        task.log(format!("  {}", tally.total(started.elapsed())));
        tally.add_to(&mut self.figures);
        Ok(tally)
    }

    async fn all_batches(&mut self, index: &IndexReader, encrypted: bool, tally: &Arc<Tally>) -> Result<()> {
        let (mut scan, part) = (index.scan(), self.part);
        let mut is_through = false;
        // Read if nothing of the archive is in the sample.
        let (mut chosen, mut instead) = (0, None);
        while !is_through && !tally.is_hopeless() {
            let mut batch = Vec::new();
            while batch.len() < BATCH_CHUNKS {
                let turn = self.share.take(1, SCAN_BLOCK_BYTES.min(scan.left_bytes())).await;
                let Some(block) = scan.next_block().await? else {
                    is_through = true;
                    let instead = instead.take().filter(|_| chosen == 0).map(|(_, claim): (u64, Claim)| claim);
                    tally.add(&tally.chosen, instead.iter().len() as u64);
                    batch.extend(instead.filter(|claim| !self.seen.is_verified(claim)));
                    break;
                };
                drop(turn);
                let claims = block.iter().map(|e| Claim { digest: e.digest, size_bytes: e.size_bytes, encrypted });
                let (all, before) = (claims.len(), batch.len());
                for claim in claims {
                    if part.takes(&claim.digest) {
                        chosen += 1;
                        batch.extend((!self.seen.is_verified(&claim)).then_some(claim));
                    } else if let Some(rank) = part.rank(&claim.digest) {
                        instead = std::cmp::min(instead, Some((rank, claim))).or(Some((rank, claim)));
                    }
                }
                tally.add(&tally.done, (all - (batch.len() - before)) as u64);
            }
            tally.chosen.store(chosen.max(tally.chosen.load(Ordering::Relaxed)), Ordering::Relaxed);
            let named = batch.len();
            let mut batch = self.compute.run(move || sorted(batch)).await?;
            tally.add(&tally.done, (named - batch.len()) as u64);
            batch.retain(|claim| {
                let is_bad = if self.seen.is_bad(&claim.digest) {
                    self.task.log(format!("chunk {} was marked as corrupt", claim.digest));
                    true
                } else if self.seen.is_verified(&opposite(claim)) {
                    // It was read for another archive, and will be no other now.
                    self.task.log(Mismatch::CryptMode { is_sound: true }.describe(claim));
                    true
                } else {
                    false
                };
                if is_bad {
                    tally.add(&tally.errors, 1);
                    tally.add(&tally.done, 1);
                }
                !is_bad
            });
            if batch.len() >= self.inode_order_min {
                batch = self.in_inode_order(batch).await?;
            }
            self.verify_batch(batch, tally).await?;
        }
        Ok(())
    }

    /// Puts claims that are sorted by digest into the order of the inodes that their directories name; what is in none goes last.
    async fn in_inode_order(&self, batch: Vec<Claim>) -> Result<Vec<Claim>> {
        let mut prefixes: Vec<u16> = batch.iter().map(|claim| claim.digest.prefix()).collect();
        prefixes.dedup();
        let mut prefixes = prefixes.into_iter();
        let mut inodes: HashMap<Digest, u64> = batch.iter().map(|claim| (claim.digest, u64::MAX)).collect();
        let mut reading = JoinSet::new();
        loop {
            while reading.len() < DIRS_AT_ONCE {
                let Some(prefix) = prefixes.next() else { break };
                let (store, share) = (self.store.clone(), self.share.clone());
                reading.spawn(async move {
                    let _turn = share.take(1, 0).await;
                    store.chunk_inodes(prefix).await
                });
            }
            let Some(read) = reading.join_next().await else { break };
            // An order is a wish: without these the chunks are read all the same.
            for (digest, ino) in read.map_err(cut_off)?.unwrap_or_default() {
                if let Some(known) = inodes.get_mut(&digest) {
                    *known = ino;
                }
            }
        }
        let order = move || {
            let mut batch = batch;
            batch.sort_by_cached_key(|claim| (inodes.get(&claim.digest).copied(), *claim));
            batch
        };
        self.compute.run(order).await
    }

    async fn verify_batch(&mut self, batch: Vec<Claim>, tally: &Arc<Tally>) -> Result<()> {
        let judges = available_parallelism().map_or(1, usize::from).min(JUDGES_MAX);
        let reads = Arc::new(Semaphore::new(READS_AHEAD));
        let mut claims = batch.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < READS_AHEAD + judges && !tally.is_hopeless() {
                let Some(claim) = claims.next() else { break };
                let (store, compute, reads) = (self.store.clone(), self.compute.clone(), Arc::clone(&reads));
                let share = self.share.clone();
                running.spawn(async move { (claim, examine(&store, &compute, (&reads, &share), claim).await) });
            }
            let Some(examined) = running.join_next().await else { return Ok(()) };
            let (claim, outcome) = examined.map_err(cut_off)?;
            self.take(&claim, outcome?, tally);
            self.keep_trail().await;
        }
    }

    fn add_verified(&mut self, claim: &Claim) {
        if let (Some(print), Some(trail)) = (self.seen.add_verified(claim), &mut self.trail) {
            trail.note(print);
        }
    }

    /// Writes down what was seen, if it is time to.
    pub(super) async fn keep_trail(&mut self) {
        if let Some(trail) = self.trail.as_mut().filter(|trail| trail.is_due()) {
            trail.write().await;
        }
    }

    /// Logs and remembers what became of a chunk.
    fn take(&mut self, claim: &Claim, outcome: Outcome, tally: &Tally) {
        let (task, digest) = (self.task, &claim.digest);
        tally.add(&tally.done, 1);
        let load = |judged: &Judged| {
            tally.add(&tally.read, 1);
            if judged.loaded_bytes > 0 {
                tally.add(&tally.loaded_bytes, judged.loaded_bytes);
                tally.add(&tally.plain_bytes, u64::from(claim.size_bytes));
            }
        };
        let mismatch = match outcome {
            Outcome::Judged(judged, mismatch) => {
                load(&judged);
                mismatch
            }
            Outcome::Recovered(judged, mismatch, first) => {
                load(&judged);
                let first = first.describe(self.store.name().as_str(), digest);
                task.warn(format!("chunk {digest} was wrong at first and right when it was read again: {first}"));
                mismatch
            }
            Outcome::Bad(judged, bad, done) => {
                load(&judged);
                task.log(bad.describe(self.store.name().as_str(), digest));
                if let Some(done) = done {
                    task.log(done);
                }
                tally.add(&tally.errors, 1);
                self.seen.add_bad(*digest);
                return;
            }
            Outcome::Unreadable(error) => {
                task.log(format!("unable to verify chunk {digest} - {error}"));
                tally.add(&tally.errors, 1);
                tally.add(&tally.unreadable, 1);
                if speaks_of_data(&error) {
                    // An upload that is not compared with what cannot be read heals it.
                    self.store.mark_suspect(&[*digest]);
                } else {
                    tally.add(&tally.unknown, 1);
                }
                return;
            }
        };
        match mismatch {
            None => {
                self.store.trust(digest);
                self.add_verified(claim);
            }
            Some(mismatch) => {
                if mismatch == (Mismatch::CryptMode { is_sound: true }) {
                    self.add_verified(&opposite(claim));
                }
                task.log(mismatch.describe(claim));
                tally.add(&tally.errors, 1);
            }
        }
    }
}

/// The same chunk in the other crypt mode. It cannot be in both.
fn opposite(claim: &Claim) -> Claim {
    Claim { encrypted: !claim.encrypted, ..*claim }
}

fn cut_off(e: tokio::task::JoinError) -> Error {
    Error::io("verification was cut off", std::io::Error::other(e))
}

/// In the order of digests, each claim once.
fn sorted(mut batch: Vec<Claim>) -> Vec<Claim> {
    batch.sort_unstable();
    batch.dedup();
    batch
}

/// Reads and judges one chunk. An error ends the task: the machine is at its end, or the daemon.
async fn examine(
    store: &Datastore,
    compute: &ComputePool,
    (reads, share): (&Semaphore, &BudgetShare),
    claim: Claim,
) -> Result<Outcome> {
    let place = reads.acquire().await.map_err(|_| Error::closed("verification has ended"))?;
    let mut turn = share.take(1, u64::from(claim.size_bytes)).await;
    let mut stored = store.load_chunk(&claim.digest).await;
    if stored.is_err() {
        stored = store.load_chunk(&claim.digest).await;
    }
    let stored = match stored {
        Ok(stored) => stored,
        Err(e) if e.kind() == Kind::Closed => return Err(e),
        Err(e) => return Ok(Outcome::Unreadable(e)),
    };
    turn.settle(stored.bytes());
    drop((turn, place));
    let judged = compute.run(move || judge(&stored, &claim)).await?;
    let first = match judged.verdict.clone() {
        Ok(mismatch) => return Ok(Outcome::Judged(judged, mismatch)),
        Err(bad) => bad,
    };
    let again = move |stored| {
        let judged = judge(&stored, &claim);
        match judged.verdict.clone() {
            Ok(mismatch) => Ok((judged, mismatch)),
            Err(bad) => Err((judged, bad)),
        }
    };
    match store.settle_doubt(claim.digest, again).await {
        Ok(Doubt::Unfounded((judged, mismatch))) => Ok(Outcome::Recovered(judged, mismatch, first)),
        Ok(Doubt::Absent((judged, bad))) => Ok(Outcome::Bad(judged, bad, None)),
        Ok(Doubt::Renamed((judged, bad), to)) => {
            Ok(Outcome::Bad(judged, bad, Some(format!("corrupted chunk renamed to {to:?}"))))
        }
        Ok(Doubt::Stays((judged, bad), e)) => Ok(Outcome::Bad(judged, bad, Some(e.to_string()))),
        Err(e) if e.kind() == Kind::Closed => Err(e),
        Err(e) => Ok(Outcome::Unreadable(e)),
    }
}

impl Tally {
    fn add(&self, counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Chunks that are wrong, missing, or could not be read.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Those of them about which nothing is known: the machine failed.
    pub(super) fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Whether it makes no sense to go on with this archive.
    fn is_hopeless(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed) >= UNREADABLE_MAX
    }

    fn progress(&self, elapsed: Duration) -> String {
        let done = self.done.load(Ordering::Relaxed);
        format!("{done} of {} chunks so far, {}", self.chunks, self.rates(elapsed))
    }

    fn add_to(&self, figures: &mut Figures) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        figures.chunks_named += self.chunks;
        figures.chunks_chosen += count(&self.chosen);
        figures.chunks_read += count(&self.read);
        figures.chunk_errors += self.errors();
        figures.stored_bytes += count(&self.loaded_bytes);
        figures.plain_bytes += count(&self.plain_bytes);
    }

    /// In the words of the original.
    fn total(&self, elapsed: Duration) -> String {
        format!("verified {} ({} errors)", self.rates(elapsed), self.errors())
    }

    fn rates(&self, elapsed: Duration) -> Rates {
        let bytes = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Rates { loaded: bytes(&self.loaded_bytes), plain: bytes(&self.plain_bytes), elapsed }
    }
}

/// `0.58/12.31 MiB in 0.02 seconds, speed 31.57/673.24 MiB/s`: as stored, and as the client sees it.
struct Rates {
    loaded: u64,
    plain: u64,
    elapsed: Duration,
}

impl fmt::Display for Rates {
    #[expect(clippy::cast_precision_loss, reason = "two decimals for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (loaded, plain) = (mib(self.loaded), mib(self.plain));
        let secs = self.elapsed.as_secs_f64();
        let rate = |mib: f64| if secs > 0.0 { mib / secs } else { 0.0 };
        let (loaded_rate, plain_rate) = (rate(loaded), rate(plain));
        write!(f, "{loaded:.2}/{plain:.2} MiB in {secs:.2} seconds, speed {loaded_rate:.2}/{plain_rate:.2} MiB/s")
    }
}
