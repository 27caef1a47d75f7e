//! The check of very many chunks: by the names in their directories where that is cheaper, by their inodes elsewhere.
//!
//! ```text
//!  sorted digests ─ runs of one directory ─┬─ many of it wanted ─▶ directory read on the pool ─┬─ name is there, a regular file: present
//!                                          │                                                   └─ anything else ─┐
//!                                          └─ few ────────────────────────────────────────────▶ statx in batches ◀┘
//! ```
//!
//! A name proves that a regular file is there, not how long it is; so no chunk is called missing before `statx` has said so, and lengths
//! are for the checks before this one: every chunk that an append names, and every slot that a copied index brings along, has been asked
//! for by `statx` in this session.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::check::{CHECK_BATCH_MAX, Checker, Freshness};
use super::chunk_store::ChunkStore;
use super::layout::{chunk_dir_name, chunk_of_name};
use super::presence::CheckReport;
use super::sweep_plan::{SweepPlan, runs};
use crate::engine::{Class, Disk, Engine, FileKind, NameBuffer};
use crate::error::Result;
use crate::types::Digest;

/// Directories read in one piece of work on the pool: 100 µs in memory, so that the way there and back costs little, and 60 ms where each
/// takes four requests of 2 ms, so that other work need not wait for long.
const PIECE_DIRS: usize = 8;

/// What is enough to call a chunk present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceProof {
    /// A regular file of that name, where directories are read; its length has been seen before.
    Name,
    /// Its inode: a regular file, long enough.
    Inode,
}

/// Chunks of some directories.
type Wanted = Vec<(u16, Vec<Digest>)>;

/// What reading some directories found.
struct Found {
    directories: u64,
    names: u64,
    present: usize,
    /// Those that are to be asked for one by one: not among the names, of another kind, or in a directory that cannot be read.
    doubted: Vec<Digest>,
}

impl Checker {
    /// Checks sorted `digests`, each once. As [`Self::check`], but reads directories where `proof` permits it and it is cheaper.
    pub(super) async fn sweep(
        self: &Arc<Self>,
        engine: &Engine,
        chunks: &ChunkStore,
        digests: &[Digest],
        proof: PresenceProof,
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<CheckReport> {
        if proof == PresenceProof::Inode || !engine.may_choose() {
            return self.check(engine, chunks, digests, Class::Sweep, Freshness::Server, progress).await;
        }
        debug_assert!(digests.is_sorted(), "the digests of one directory lie together");
        let started = Instant::now();
        // Half of the threads, so that what backups write and read goes on beside it.
        let width = (engine.io_threads() / 2).max(1);
        let (mut report, mut plan) = (CheckReport::default(), SweepPlan::default());
        let mut reading: JoinSet<Result<Found>> = JoinSet::new();
        let (mut piece, mut one_by_one) = (Wanted::new(), Vec::new());
        let mut runs = runs(digests);
        loop {
            let run = runs.next();
            let is_last = run.is_none();
            match run {
                Some((prefix, range)) if plan.lists(range.len()) => piece.push((prefix, digests[range].to_vec())),
                Some((_, range)) => one_by_one.extend_from_slice(&digests[range]),
                None => {}
            }
            if piece.len() == PIECE_DIRS || (is_last && !piece.is_empty()) {
                if reading.len() == width {
                    absorb(&mut reading, &mut plan, &mut report, &mut one_by_one).await?;
                    progress(report.checked);
                }
                let (checker, engine, wanted) = (Arc::clone(self), engine.clone(), std::mem::take(&mut piece));
                reading.spawn(async move { engine.run(move |disk| checker.read_dirs(disk, &wanted)).await });
            }
            while is_last && !reading.is_empty() {
                absorb(&mut reading, &mut plan, &mut report, &mut one_by_one).await?;
                progress(report.checked);
            }
            if one_by_one.len() >= CHECK_BATCH_MAX || is_last {
                for batch in one_by_one.chunks(CHECK_BATCH_MAX) {
                    self.ask(engine, batch, Class::Sweep, self.network_fs, &mut report).await?;
                    report.checked += batch.len();
                    progress(report.checked);
                }
                one_by_one.clear();
            }
            if is_last {
                break;
            }
        }
        self.settle(engine, chunks, &mut report).await?;
        report.elapsed = started.elapsed();
        Ok(report)
    }

    /// Reads the directories of `wanted`.
    fn read_dirs(&self, disk: &Disk, wanted: &Wanted) -> Found {
        let mut found = Found { directories: 0, names: 0, present: 0, doubted: Vec::new() };
        let mut buffer = NameBuffer::default();
        let mut seen = Vec::new();
        for (prefix, digests) in wanted {
            seen.clear();
            seen.resize(digests.len(), false);
            let mut names = 0;
            let visit = |name: &[u8], kind: Option<FileKind>| {
                names += 1;
                let digest = std::str::from_utf8(name).ok().and_then(chunk_of_name);
                let Some(digest) = digest.filter(|_| kind == Some(FileKind::File)) else { return };
                if let Ok(at) = digests.binary_search(&digest) {
                    seen[at] = true;
                }
            };
            let (dir, name) = (self.chunks_dir(), chunk_dir_name(*prefix));
            match disk.visit_names(&dir, &name, self.network_fs, &mut buffer, visit) {
                Ok(()) => {
                    found.directories += 1;
                    found.names += names;
                }
                // What was seen before the error is there; but then the disk is in trouble, and each chunk gets its own answer.
                Err(e) => {
                    tracing::debug!(dir = name, error = %e, "a chunk directory cannot be read, its chunks are asked for one by one");
                    seen.fill(false);
                }
            }
            found.present += seen.iter().filter(|seen| **seen).count();
            found.doubted.extend(digests.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(digest, _)| *digest));
        }
        found
    }
}

/// Waits for one piece and takes in what it found.
async fn absorb(
    reading: &mut JoinSet<Result<Found>>,
    plan: &mut SweepPlan,
    report: &mut CheckReport,
    one_by_one: &mut Vec<Digest>,
) -> Result<()> {
    let Some(joined) = reading.join_next().await else { return Ok(()) };
    let found = joined.map_err(|e| crate::error::Error::closed("a sweep was cut off").with_source(e))??;
    plan.saw(found.directories, found.names);
    report.checked += found.present;
    report.by_name += found.present;
    report.directories_read += found.directories;
    one_by_one.extend(found.doubted);
    Ok(())
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
