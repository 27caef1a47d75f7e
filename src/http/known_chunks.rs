//! Known-chunk checks: a backup that finishes names only chunks that are on the disk (design §3).
//!
//! | when | what is asked for | how |
//! |---|---|---|
//! | append | the chunks of one request, before any entry is applied | one batch ahead of all sweeps |
//! | finish | each chunk that the closed indexes name, copied slots too, once | sorted, in passes of bounded memory; by name where that is less work |
//! | before the manifest appears | those of them that a job of this daemon has taken out of the store meanwhile | the same |
//! | preflight | the chunks of a base's index that is about to be used | in index order, ahead of the client |
//!
//! A chunk that is *missing* fails the request, and the base is marked as failed if it lent the chunk. A chunk that *could not be
//! checked* fails the request and marks nothing: a marked base costs a full upload. No lock is held while the disk works.

mod preflight;
mod progress;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::preflight::PREFLIGHT_BUDGET;
use self::preflight::Verdict;
use self::progress::{Progress, count, shown, told_regularly};
use super::session::Ending;
use crate::engine::{Class, ComputePool};
use crate::error::{Error, Result};
use crate::metrics::{CheckOutcome, CheckPlace};
use crate::protocol::backup::{Session, Source, append_stat_failed, finish_stat_failed};
use crate::protocol::passes::{PASS_DIGESTS_MAX, Pass};
use crate::protocol::writers::AppendPlan;
use crate::store::{
    BackupLease, CheckReport, Datastore, Freshness, IndexReader, MissingReason, Stay, Taken, TakenWatch,
};
use crate::sync::Mutex;
use crate::task::Task;
use crate::types::{ArchiveName, Digest};

/// Missing chunks that the log names one by one; the rest is a number.
const NAMED_MAX: usize = 10;

/// The checks of one backup session.
#[derive(Debug)]
pub struct KnownChunks {
    store: Datastore,
    lease: Arc<BackupLease>,
    task: Arc<Task>,
    compute: ComputePool,
    ending: Ending,
    session: Arc<Mutex<Session>>,
    base_marked: AtomicBool,
    appends: AppendCounters,
    preflights: Mutex<HashMap<ArchiveName, watch::Receiver<Option<Verdict>>>>,
    running: Mutex<Vec<JoinHandle<()>>>,
    /// Without the finish check, what the appends have seen has to last from the first of them on.
    since_start: Option<TakenWatch>,
    /// Chunks may have got past append and preflight without anybody asking for their lengths: one of the two was off, be it for a while.
    was_unasked: AtomicBool,
    budget: Duration,
}

#[derive(Debug, Default)]
struct AppendCounters {
    batches: AtomicU64,
    chunks: AtomicU64,
    elapsed_us: AtomicU64,
    slowest_us: AtomicU64,
}

/// What a report means for the request.
enum Fault {
    Missing(Digest, MissingReason),
    Unchecked(Digest, Errno),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(_, reason) => reason.fmt(f),
            Self::Unchecked(_, errno) => {
                write!(f, "{} - the check could not be made", std::io::Error::from(*errno))
            }
        }
    }
}

impl Fault {
    fn digest(&self) -> &Digest {
        match self {
            Self::Missing(digest, _) | Self::Unchecked(digest, _) => digest,
        }
    }

    /// The fault to tell of, if there is one: a missing chunk rather than one that could not be asked for.
    fn of(report: &CheckReport, first: impl Fn(&HashSet<Digest>) -> Option<Digest>) -> Option<Self> {
        fn told<R: Copy>(list: &[(Digest, R)], digest: Option<Digest>) -> Option<(Digest, R)> {
            list.iter().find(|(listed, _)| Some(*listed) == digest).or(list.first()).copied()
        }
        let missing: HashSet<Digest> = report.missing.iter().map(|(digest, _)| *digest).collect();
        told(&report.missing, first(&missing))
            .map(|(digest, reason)| Self::Missing(digest, reason))
            .or_else(|| told(&report.unchecked, None).map(|(digest, errno)| Self::Unchecked(digest, errno)))
    }
}

impl KnownChunks {
    /// The checks of the session `session`, which writes the snapshot of `lease` as the task `task`.
    pub fn new(
        store: Datastore,
        lease: Arc<BackupLease>,
        task: Arc<Task>,
        compute: ComputePool,
        ending: Ending,
        session: Arc<Mutex<Session>>,
    ) -> Self {
        let since_start = (!store.config().checks.finish).then(|| store.watch_taken());
        let was_unasked = AtomicBool::new(!store.config().checks.finish_by_name());
        Self {
            store,
            lease,
            task,
            compute,
            ending,
            session,
            base_marked: AtomicBool::new(false),
            appends: AppendCounters::default(),
            preflights: Mutex::default(),
            running: Mutex::default(),
            since_start,
            was_unasked,
            budget: PREFLIGHT_BUDGET,
        }
    }

    /// The right to write that the checks work for.
    #[cfg(test)]
    pub(super) fn lease(&self) -> &BackupLease {
        &self.lease
    }

    /// The same with another budget than [`PREFLIGHT_BUDGET`].
    #[cfg(test)]
    pub(super) fn with_budget(self, budget: Duration) -> Self {
        Self { budget, ..self }
    }

    /// Sees that the chunks of an append are there, all in one batch.
    pub async fn check_append(&self, plan: &AppendPlan) -> Result<()> {
        if plan.digests.is_empty() {
            return Ok(());
        }
        if !self.store.config().checks.append {
            self.was_unasked.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let started = Instant::now();
        let report = self.store.check_chunks(plan.digests.clone(), Class::Interactive, Freshness::Cached).await;
        self.appends.count(plan.digests.len(), started.elapsed());
        self.store.metrics().check_batches.at(CheckPlace::Append).observe(started.elapsed());
        self.count_checks(CheckPlace::Append, plan.digests.len(), report.as_ref().ok());
        let report = report.map_err(|e| e.context("known chunk stat failed"))?;
        let first = |missing: &HashSet<Digest>| plan.first_that(|digest| missing.contains(digest));
        match Fault::of(&report, first) {
            None => Ok(()),
            Some(fault) => {
                self.blame("append", &report).await?;
                Err(append_stat_failed(fault.digest(), &fault))
            }
        }
    }

    /// Sees that every chunk that the closed indexes `archives` name is there, each asked for once. What comes back keeps it that way as far
    /// as jobs of this daemon go, until the manifest has appeared.
    pub async fn check_finish(&self, archives: &[ArchiveName]) -> Result<Stay> {
        let work = async {
            if let Some(watch) = &self.since_start {
                self.task.log("finish check: switched off for this datastore");
                return self.check_taken(archives, watch).await;
            }
            let watch = self.store.watch_taken();
            self.sweep_indexes(archives, PASS_DIGESTS_MAX, None).await?;
            self.check_taken(archives, &watch).await
        };
        self.ending.unless(work).await
    }

    /// Asks once more for the chunks that were taken out of the store since `watch` began, as far as `archives` name them.
    async fn check_taken(&self, archives: &[ArchiveName], watch: &TakenWatch) -> Result<Stay> {
        let stay = watch.stay().await;
        match watch.taken() {
            Taken::These(taken) if taken.is_empty() => {}
            Taken::These(taken) => {
                let taken = HashSet::from_iter(taken);
                self.task.log(format!("finish check: {} chunks were taken out of the store meanwhile", taken.len()));
                self.sweep_indexes(archives, PASS_DIGESTS_MAX, Some(&taken)).await?;
            }
            Taken::TooMany => {
                self.task.log("finish check: too many chunks were taken out of the store meanwhile, all are asked for");
                self.sweep_indexes(archives, PASS_DIGESTS_MAX, None).await?;
            }
        }
        Ok(stay)
    }

    /// Asks for the chunks that `archives` name (with `only`: for those of them) with at most `digests_max` digests in memory.
    pub(super) async fn sweep_indexes(
        &self,
        archives: &[ArchiveName],
        digests_max: usize,
        only: Option<&HashSet<Digest>>,
    ) -> Result<()> {
        let started = Instant::now();
        let failed = |e: Error| e.context("stat registered chunks failed");
        let mut indexes = Vec::with_capacity(archives.len());
        for archive in archives {
            indexes.push(self.lease.open_index(archive).await.map_err(failed)?);
        }
        let entries: u64 = indexes.iter().map(IndexReader::count).sum();
        let progress = Progress { entries, ..Progress::default() };
        let work = async {
            let mut pass = Some(Pass::first(digests_max));
            while let Some(now) = pass {
                let (digests, next) = self.collect(&indexes, now, only, &progress).await.map_err(failed)?;
                self.check_sorted(&digests, &progress).await?;
                pass = next;
            }
            Ok(())
        };
        let result = told_regularly(work, || self.task.log(format!("finish check: {progress}"))).await;
        if result.is_ok() {
            self.task.log(format!(
                "finish check: {} chunks of {} indexes are there ({}, {}, engine {})",
                progress.asked.load(Ordering::Relaxed),
                indexes.len(),
                progress.ways(),
                shown(started.elapsed()),
                self.store.engine().kind(),
            ));
        }
        result
    }

    /// Reads all indexes once and keeps the digests of one pass.
    async fn collect(
        &self,
        indexes: &[IndexReader],
        mut pass: Pass,
        only: Option<&HashSet<Digest>>,
        progress: &Progress,
    ) -> Result<(Vec<Digest>, Option<Pass>)> {
        progress.passes.fetch_add(1, Ordering::Relaxed);
        progress.read.store(0, Ordering::Relaxed);
        for index in indexes {
            let mut scan = index.scan();
            while let Some(block) = scan.next_block().await? {
                for entry in &block {
                    let wanted = only.is_none_or(|only| only.contains(&entry.digest));
                    if wanted && pass.add(&entry.digest) {
                        pass = self.compute.run(move || (pass.compact(), pass).1).await?;
                    }
                }
                progress.read.fetch_add(count(block.len()), Ordering::Relaxed);
            }
        }
        self.compute.run(move || pass.end()).await
    }

    /// Whether a name will do at finish, because the length of every chunk has been seen in this session: of those that the client named at
    /// their append, of those that an index brought along by its preflight. One that went on past its budget, or failed, has not seen all.
    pub(super) fn lengths_are_seen(&self) -> bool {
        let is_clean = |verdict: &watch::Receiver<Option<Verdict>>| *verdict.borrow() == Some(Verdict::Clean);
        !self.was_unasked.load(Ordering::Relaxed) && self.preflights.lock().values().all(is_clean)
    }

    async fn check_sorted(&self, digests: &[Digest], progress: &Progress) -> Result<()> {
        let before = progress.asked.load(Ordering::Relaxed);
        progress.to_ask.store(before + count(digests.len()), Ordering::Relaxed);
        let batches = self.store.metrics().check_batches.at(CheckPlace::Finish);
        let mut batch_started = Instant::now();
        let tell = |asked: usize| {
            progress.asked.store(before + count(asked), Ordering::Relaxed);
            batches.observe(std::mem::replace(&mut batch_started, Instant::now()).elapsed());
        };
        let checked = if self.lengths_are_seen() {
            self.store.check_sorted_chunks_with(digests, tell).await
        } else {
            self.store.check_chunks_with(digests, Class::Sweep, Freshness::Server, tell).await
        };
        self.count_checks(CheckPlace::Finish, digests.len(), checked.as_ref().ok());
        let report = checked.map_err(|e| e.context("stat registered chunks failed"))?;
        progress.by_name.fetch_add(count(report.by_name), Ordering::Relaxed);
        progress.directories.fetch_add(count(report.directories), Ordering::Relaxed);
        progress.asked.store(before + count(digests.len()), Ordering::Relaxed);
        match Fault::of(&report, |_| None) {
            None => Ok(()),
            Some(fault) => {
                self.blame("finish", &report).await?;
                Err(finish_stat_failed(fault.digest(), &fault))
            }
        }
    }

    /// Counts what became of `asked` checks; without a report none was answered.
    fn count_checks(&self, place: CheckPlace, asked: usize, report: Option<&CheckReport>) {
        let asked = count(asked);
        let (missing, unchecked) = report.map_or((0, asked), |r| (count(r.missing.len()), count(r.unchecked.len())));
        let outcomes = self.store.metrics().known_chunk_checks.at(place);
        outcomes.at(CheckOutcome::Present).add(asked.saturating_sub(missing + unchecked));
        outcomes.at(CheckOutcome::Missing).add(missing);
        outcomes.at(CheckOutcome::Unchecked).add(unchecked);
    }

    /// Logs what a check found, and marks the base if it lent a chunk that is missing.
    async fn blame(&self, check: &str, report: &CheckReport) -> Result<()> {
        self.log_missing(check, report);
        let from_base = {
            let session = self.session.lock();
            report.missing.iter().any(|(digest, _)| session.source_of(digest) == Source::Base)
        };
        if from_base { self.mark_base().await } else { Ok(()) }
    }

    fn log_missing(&self, check: &str, report: &CheckReport) {
        for (digest, reason) in report.missing.iter().take(NAMED_MAX) {
            self.task.log(format!("{check} check: chunk {digest} is missing - {reason}"));
        }
        for (digest, errno) in report.unchecked.iter().take(NAMED_MAX) {
            let error = std::io::Error::from(*errno);
            self.task.log(format!("{check} check: chunk {digest} could not be checked - {error}"));
        }
        let (missing, unchecked) = (report.missing.len(), report.unchecked.len());
        if missing > 0 {
            // Other groups may name them too, and do not know yet.
            let store = self.store.name();
            self.task
                .log(format!("`ringvault repair report {store} --chunk DIGEST` tells which other snapshots name it"));
        }
        if missing.max(unchecked) > NAMED_MAX {
            self.task.log(format!("{check} check: {missing} chunks are missing, {unchecked} could not be checked"));
        }
    }

    /// Marks the base, once in a session. An error here takes the place of what led to it (spec 03 §10).
    async fn mark_base(&self) -> Result<()> {
        let Some(base) = self.lease.base() else { return Ok(()) };
        if self.base_marked.load(Ordering::Acquire) {
            return Ok(());
        }
        let upid = self.task.upid().to_string();
        self.lease.mark_base_failed(&upid).await.map_err(|e| {
            let error = e.context("manifest update failed");
            self.task.log(error.to_string());
            error
        })?;
        self.base_marked.store(true, Ordering::Release);
        self.task.log(format!(
            "marked snapshot {} as failed: chunks that it names are missing, so the next backup uploads everything",
            base.snapshot
        ));
        Ok(())
    }

    /// Waits for the sweeps that are under way, which stop when the session ends, and logs what the appends asked for.
    pub async fn end(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        for sweep in running {
            // A sweep that panicked has nothing to say any more.
            let _ = sweep.await;
        }
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let batches = counted(&self.appends.batches);
        if batches > 0 {
            self.task.log(format!(
                "append check: {} chunks in {batches} batches ({} in all, slowest {}, engine {})",
                counted(&self.appends.chunks),
                shown(Duration::from_micros(counted(&self.appends.elapsed_us))),
                shown(Duration::from_micros(counted(&self.appends.slowest_us))),
                self.store.engine().kind(),
            ));
        }
    }
}

impl AppendCounters {
    fn count(&self, chunks: usize, elapsed: Duration) {
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.chunks.fetch_add(count(chunks), Ordering::Relaxed);
        self.elapsed_us.fetch_add(elapsed_us, Ordering::Relaxed);
        self.slowest_us.fetch_max(elapsed_us, Ordering::Relaxed);
    }
}
