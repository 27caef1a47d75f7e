//! Preflight: the chunks of a base's index are asked for ahead of the client that is about to build on them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::progress::{Progress, count, shown, told_regularly};
use super::{Fault, KnownChunks};
use crate::engine::Class;
use crate::error::{Error, Result};
use crate::metrics::CheckPlace;
use crate::protocol::backup::append_stat_failed;
use crate::store::{Freshness, IndexEntry, IndexReader, MissingReason};
use crate::types::{ArchiveName, Digest};

/// How long `previous` and `reuse-csum` wait for the preflight before they are answered without its verdict.
///
/// Clients have no time-out on the requests of a session, so this is about their users: five seconds once per archive is little, and
/// 64 workers on a store that takes 2 ms per request see 160,000 chunks in it, an image of 600 GiB.
pub const PREFLIGHT_BUDGET: Duration = Duration::from_secs(5);

/// Chunks asked for together: a few rounds of 64 workers, so that a hole is seen soon on a disk of a hundred requests a second.
const STEP_CHUNKS: usize = 1024;

/// What a preflight found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every chunk is there.
    Clean,
    /// One is missing, and the base is marked.
    Hole(Digest, MissingReason),
    /// What was found cannot be told as one of the above: the error's text.
    Failed(String),
}

impl KnownChunks {
    /// Waits for the preflight of an index of the base, at most [`PREFLIGHT_BUDGET`]; past it, the sweep goes on behind the
    /// session. An error if a chunk is missing, or if one could not be checked.
    pub async fn preflight(self: &Arc<Self>, archive: &ArchiveName, index: &IndexReader) -> Result<()> {
        if !self.store.config().checks.preflight {
            self.was_unasked.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let mut verdict = self.preflight_of(archive, index);
        let found = tokio::time::timeout(self.budget, verdict.wait_for(Option::is_some));
        let found = match self.ending.unless(async { Ok(found.await) }).await? {
            Ok(Ok(found)) => found.clone(),
            Ok(Err(_)) => Some(Verdict::Failed("the sweep was cut off".to_owned())),
            Err(_) => {
                let budget = self.budget.as_secs();
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
                if let Some(verdict) = self.sweep_block(&block, &progress).await? {
                    return Ok(verdict);
                }
                progress.read.fetch_add(count(block.len()), Ordering::Relaxed);
            }
            Ok::<_, Error>(Verdict::Clean)
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

    /// `None` if all chunks of the block are there.
    async fn sweep_block(&self, block: &[IndexEntry], progress: &Progress) -> Result<Option<Verdict>> {
        let mut seen = HashSet::with_capacity(block.len());
        let digests: Vec<Digest> = block.iter().map(|e| e.digest).filter(|digest| seen.insert(*digest)).collect();
        for step in digests.chunks(STEP_CHUNKS) {
            let started = Instant::now();
            let report = self.store.check_chunks(step.to_vec(), Class::Sweep, Freshness::Cached).await;
            self.store.metrics().check_batches.at(CheckPlace::Preflight).observe(started.elapsed());
            self.count_checks(CheckPlace::Preflight, step.len(), report.as_ref().ok());
            let report = report?;
            progress.asked.fetch_add(count(step.len()), Ordering::Relaxed);
            if let Some((digest, reason)) = report.missing.first() {
                self.log_missing("preflight", &report);
                self.mark_base().await?;
                return Ok(Some(Verdict::Hole(*digest, *reason)));
            }
            if let Some((digest, errno)) = report.unchecked.first() {
                self.log_missing("preflight", &report);
                return Err(append_stat_failed(digest, Fault::Unchecked(*digest, *errno)));
            }
        }
        Ok(None)
    }
}
