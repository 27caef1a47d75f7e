//! Known-chunk checks: a backup that finishes names only chunks that are on the disk (design §3).
//!
//! | when | what is asked for | how |
//! |---|---|---|
//! | append | the chunks of one request, before any entry is applied | one batch ahead of all sweeps |
//! | finish | each chunk that the closed indexes name, copied slots too, once | sorted, in passes of bounded memory |
//! | preflight | the chunks of a base's index that is about to be used | in index order, ahead of the client |
//!
//! A chunk that is *missing* fails the request, and the base is marked as failed if it lent the chunk. A chunk that *could not be
//! checked* fails the request and marks nothing: a marked base costs a full upload. No lock is held while the disk works.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::session::Ending;
use crate::engine::{Class, ComputePool};
use crate::error::{Error, Result};
use crate::protocol::backup::{Session, Source, append_stat_failed, finish_stat_failed};
use crate::protocol::passes::{PASS_DIGESTS_MAX, Pass};
use crate::protocol::writers::AppendPlan;
use crate::store::{BackupLease, CheckReport, Datastore, Freshness, IndexReader, MissingReason};
use crate::sync::Mutex;
use crate::task::Task;
use crate::types::{ArchiveName, Digest};

/// How long `previous` and `reuse-csum` wait for the preflight before they are answered without its verdict.
///
/// Clients have no time-out on the requests of a session, so this is about their users: five seconds once per archive is little, and
/// 64 workers on a store that takes 2 ms per request see 160,000 chunks in it, an image of 600 GiB.
pub const PREFLIGHT_BUDGET: Duration = Duration::from_secs(5);

/// How often a long check says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

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
}

#[derive(Debug, Default)]
struct AppendCounters {
    batches: AtomicU64,
    chunks: AtomicU64,
    elapsed_us: AtomicU64,
    slowest_us: AtomicU64,
}

/// What a preflight found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Every chunk is there.
    Clean,
    /// One is missing, and the base is marked.
    Hole(Digest, MissingReason),
    /// What was found cannot be told as one of the above: the error's text.
    Failed(String),
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
        }
    }

    /// Sees that the chunks of an append are there, all in one batch.
    pub async fn check_append(&self, plan: &AppendPlan) -> Result<()> {
        if !self.store.config().checks.append || plan.digests.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let report = self.store.check_chunks(plan.digests.clone(), Class::Interactive, Freshness::Cached).await;
        self.appends.count(plan.digests.len(), started.elapsed());
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

    /// Sees that every chunk that the closed indexes `archives` name is there, each asked for once.
    pub async fn check_finish(&self, archives: &[ArchiveName]) -> Result<()> {
        if !self.store.config().checks.finish {
            self.task.log("finish check: switched off for this datastore");
            return Ok(());
        }
        self.ending.unless(self.sweep_indexes(archives, PASS_DIGESTS_MAX)).await
    }

    async fn sweep_indexes(&self, archives: &[ArchiveName], digests_max: usize) -> Result<()> {
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
                let (digests, next) = self.collect(&indexes, now, &progress).await.map_err(failed)?;
                self.check_sorted(&digests, &progress).await?;
                pass = next;
            }
            Ok(())
        };
        let result = told_regularly(work, || self.task.log(format!("finish check: {progress}"))).await;
        if result.is_ok() {
            self.task.log(format!(
                "finish check: {} chunks of {} indexes are there ({}, engine {})",
                progress.asked.load(Ordering::Relaxed),
                indexes.len(),
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
        progress: &Progress,
    ) -> Result<(Vec<Digest>, Option<Pass>)> {
        progress.passes.fetch_add(1, Ordering::Relaxed);
        progress.read.store(0, Ordering::Relaxed);
        for index in indexes {
            let mut scan = index.scan();
            while let Some(block) = scan.next_block().await? {
                for entry in &block {
                    if pass.add(&entry.digest) {
                        pass = self.compute.run(move || (pass.compact(), pass).1).await?;
                    }
                }
                progress.read.fetch_add(count(block.len()), Ordering::Relaxed);
            }
        }
        self.compute.run(move || pass.end()).await
    }

    async fn check_sorted(&self, digests: &[Digest], progress: &Progress) -> Result<()> {
        let before = progress.asked.load(Ordering::Relaxed);
        progress.to_ask.store(before + count(digests.len()), Ordering::Relaxed);
        let tell = |asked: usize| progress.asked.store(before + count(asked), Ordering::Relaxed);
        let checked = self.store.check_chunks_with(digests, Class::Sweep, Freshness::Server, tell).await;
        let report = checked.map_err(|e| e.context("stat registered chunks failed"))?;
        progress.asked.store(before + count(digests.len()), Ordering::Relaxed);
        match Fault::of(&report, |_| None) {
            None => Ok(()),
            Some(fault) => {
                self.blame("finish", &report).await?;
                Err(finish_stat_failed(fault.digest(), &fault))
            }
        }
    }

    /// Waits for the preflight of an index of the base, at most [`PREFLIGHT_BUDGET`]; past it, the sweep goes on behind the
    /// session. An error if a chunk is missing, or if one could not be checked.
    pub async fn preflight(self: &Arc<Self>, archive: &ArchiveName, index: &IndexReader) -> Result<()> {
        if !self.store.config().checks.preflight {
            return Ok(());
        }
        let mut verdict = self.preflight_of(archive, index);
        let found = tokio::time::timeout(PREFLIGHT_BUDGET, verdict.wait_for(Option::is_some));
        let found = match self.ending.unless(async { Ok(found.await) }).await? {
            Ok(Ok(found)) => found.clone(),
            Ok(Err(_)) => Some(Verdict::Failed("the sweep was cut off".to_owned())),
            Err(_) => {
                let budget = PREFLIGHT_BUDGET.as_secs();
                self.task.log(format!("preflight of '{archive}': not through after {budget} s, goes on meanwhile"));
                None
            }
        };
        match found {
            None | Some(Verdict::Clean) => Ok(()),
            Some(Verdict::Hole(digest, reason)) => Err(append_stat_failed(&digest, reason)),
            Some(Verdict::Failed(text)) => {
                // Asked again, it is tried again: the cause may have passed.
                self.preflights.lock().remove(archive);
                Err(Error::invalid(text))
            }
        }
    }

    /// The verdict of the one preflight that each index of the base gets in a session; begun here if there is none yet.
    fn preflight_of(self: &Arc<Self>, archive: &ArchiveName, index: &IndexReader) -> watch::Receiver<Option<Verdict>> {
        let mut preflights = self.preflights.lock();
        if let Some(verdict) = preflights.get(archive) {
            return verdict.clone();
        }
        let (tell, verdict) = watch::channel(None);
        preflights.insert(archive.clone(), verdict.clone());
        drop(preflights);
        let (known, archive, index) = (self.clone(), archive.clone(), index.clone());
        let sweep = tokio::spawn(async move {
            let found = known.ending.unless(known.sweep_base(&archive, &index)).await;
            let found = found.unwrap_or_else(|e| {
                known.task.log(format!("preflight of '{archive}': {e}"));
                Verdict::Failed(e.to_string())
            });
            tell.send_replace(Some(found));
        });
        let mut running = self.running.lock();
        running.retain(|sweep| !sweep.is_finished());
        running.push(sweep);
        verdict
    }

    /// Asks for the chunks of an index in its order, so that the inode cache is warm where the client comes next. Ends at
    /// the first block with a hole: one is enough to need a full upload.
    async fn sweep_base(&self, archive: &ArchiveName, index: &IndexReader) -> Result<Verdict> {
        let started = Instant::now();
        let progress = Progress { entries: index.count(), ..Progress::default() };
        let work = async {
            let mut scan = index.scan();
            while let Some(block) = scan.next_block().await? {
                let mut seen = HashSet::with_capacity(block.len());
                let digests: Vec<Digest> =
                    block.iter().map(|e| e.digest).filter(|digest| seen.insert(*digest)).collect();
                drop(seen);
                progress.passes.store(1, Ordering::Relaxed);
                let report = self.store.check_chunks_with(&digests, Class::Sweep, Freshness::Cached, |_| {}).await?;
                progress.read.fetch_add(count(block.len()), Ordering::Relaxed);
                progress.asked.fetch_add(count(digests.len()), Ordering::Relaxed);
                if let Some((digest, reason)) = report.missing.first() {
                    self.log_missing("preflight", &report);
                    self.mark_base().await?;
                    return Ok(Verdict::Hole(*digest, *reason));
                }
                if let Some((digest, errno)) = report.unchecked.first() {
                    let fault = Fault::Unchecked(*digest, *errno);
                    return Err(append_stat_failed(digest, fault));
                }
            }
            Ok(Verdict::Clean)
        };
        let verdict = told_regularly(work, || self.task.log(format!("preflight of '{archive}': {progress}"))).await?;
        let (asked, elapsed) = (progress.asked.load(Ordering::Relaxed), shown(started.elapsed()));
        let engine = self.store.engine().kind();
        self.task.log(match &verdict {
            Verdict::Clean => {
                format!("preflight of '{archive}': {asked} chunks are there ({elapsed}, engine {engine})")
            }
            _ => format!("preflight of '{archive}': ended after {asked} chunks ({elapsed}, engine {engine})"),
        });
        Ok(verdict)
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

/// How far a sweep is.
#[derive(Debug, Default)]
struct Progress {
    entries: u64,
    passes: AtomicU64,
    read: AtomicU64,
    asked: AtomicU64,
    to_ask: AtomicU64,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (asked, to_ask) = (now(&self.asked), now(&self.to_ask));
        if asked < to_ask {
            write!(f, "{asked} of {to_ask} chunks so far")?;
        } else {
            write!(f, "{asked} chunks so far, {} of {} entries read", now(&self.read), self.entries)?;
        }
        match now(&self.passes) {
            0 | 1 => Ok(()),
            pass => write!(f, ", pass {pass}"),
        }
    }
}

/// Does `work`, and calls `tell` every [`PROGRESS_INTERVAL`] meanwhile.
async fn told_regularly<T>(work: impl Future<Output = T>, tell: impl Fn()) -> T {
    tokio::pin!(work);
    let mut ticks = tokio::time::interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => tell(),
        }
    }
}

fn shown(elapsed: Duration) -> String {
    format!("{:.3} s", elapsed.as_secs_f64())
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}
