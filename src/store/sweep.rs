//! A sweep of sorted digests that reads directories where that is less work than asking for each chunk.
//!
//! A name in its directory proves that the chunk is there and a regular file; it says nothing about a size. Whatever a directory does not
//! prove is asked for one by one: a name that is not told may have come meanwhile, what is no regular file may be a link to one, and a
//! directory that cannot be read says nothing about its chunks.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::check::{CHECK_BATCH_MAX, Checker};
use super::chunk_store::ChunkStore;
use super::layout::{chunk_dir_name, chunk_of_name};
use super::presence::CheckReport;
use super::sweep_plan::{Plan, Seen};
use crate::engine::{Class, DirFd, Disk, Engine, FileKind, NamesBuffer};
use crate::error::{Error, Result};
use crate::types::Digest;

impl Checker {
    /// Checks `digests`, sorted and each once, as a sweep that asks servers; `progress` hears now and then how many were asked so far.
    pub(super) async fn check_sorted(
        self: &Arc<Self>,
        engine: &Engine,
        chunks: &ChunkStore,
        digests: &[Digest],
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<CheckReport> {
        let started = Instant::now();
        let mut report = CheckReport::default();
        let mut seen = Seen::default();
        let mut plan = Plan::new(digests, self.network_fs);
        let mut planned = false;
        let mut listings = JoinSet::new();
        let mut to_ask: Vec<Digest> = Vec::new();
        loop {
            // What ended while a batch was asked for.
            let mut ended = listings.try_join_next();
            // The first piece tells what directories are like here; until then nothing more is planned.
            while ended.is_none()
                && !planned
                && (seen.directories > 0 || listings.is_empty())
                && listings.len() < engine.sweep_width()
                && to_ask.len() < CHECK_BATCH_MAX
            {
                let Some(piece) = plan.next_piece(&mut seen) else {
                    planned = true;
                    break;
                };
                to_ask.extend(piece.asked);
                if !piece.listed.is_empty() {
                    let (engine, dir, ask_server) = (engine.clone(), self.chunks_dir(), self.network_fs);
                    let work = move |disk: &Disk| list(disk, &dir, ask_server, &piece.listed);
                    listings.spawn(async move { engine.run_for_sweep(work).await });
                }
            }
            let only_to_ask = planned && listings.is_empty() && !to_ask.is_empty();
            if ended.is_none() && !only_to_ask && to_ask.len() < CHECK_BATCH_MAX {
                ended = listings.join_next().await;
            }
            if let Some(listed) = ended {
                let listed: Listed = listed.map_err(|e| Error::io("a listing was not made", e.into()))??;
                seen.add(&listed.seen);
                report.by_name += listed.seen.found;
                report.checked += listed.seen.found;
                to_ask.extend(listed.unproven);
            } else if !to_ask.is_empty() {
                let batch: Vec<Digest> = to_ask.drain(..to_ask.len().min(CHECK_BATCH_MAX)).collect();
                self.ask(engine, &batch, Class::Sweep, self.network_fs, &mut report).await?;
                report.checked += batch.len();
            } else {
                break;
            }
            progress(report.checked);
        }
        report.directories = seen.directories;
        report.missing.sort_unstable_by_key(|(digest, _)| *digest);
        report.unchecked.sort_unstable_by_key(|(digest, _)| *digest);
        self.conclude(engine, chunks, report, started).await
    }
}

/// What directories have told.
#[derive(Debug, Default)]
struct Listed {
    seen: Seen,
    /// The chunks that have to be asked for one by one.
    unproven: Vec<Digest>,
}

/// Looks for `digests`, sorted, in their directories below `chunks_dir`. Blocks.
fn list(disk: &Disk, chunks_dir: &Arc<DirFd>, ask_server: bool, digests: &[Digest]) -> Listed {
    let started = Instant::now();
    let mut listed = Listed::default();
    let mut buffer = NamesBuffer::default();
    let mut there = Vec::new();
    for run in digests.chunk_by(|a, b| a.prefix() == b.prefix()) {
        there.clear();
        there.resize(run.len(), false);
        let each = |name: &[u8], kind| {
            listed.seen.names += 1;
            if kind != Some(FileKind::File) {
                return false;
            }
            let digest = std::str::from_utf8(name).ok().filter(|name| name.len() == 64).and_then(chunk_of_name);
            let Some(at) = digest.and_then(|digest| run.binary_search(&digest).ok()) else { return false };
            !std::mem::replace(&mut there[at], true)
        };
        // An error is no answer: what was told before it holds, the rest is asked for.
        if let Err(e) = disk.names_in(chunks_dir, &chunk_dir_name(run[0].prefix()), ask_server, &mut buffer, each) {
            tracing::debug!(prefix = run[0].prefix(), error = %e, "a chunk directory was not read");
        }
        let unproven = run.iter().zip(&there).filter(|(_, there)| !**there).map(|(digest, _)| *digest);
        listed.unproven.extend(unproven);
        listed.seen.directories += 1;
    }
    listed.seen.asked = digests.len();
    listed.seen.found = digests.len() - listed.unproven.len();
    listed.seen.took = started.elapsed();
    listed
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
