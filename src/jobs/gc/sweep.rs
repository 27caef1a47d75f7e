//! Phase 2: one chunk directory after the other, several at a time.
//!
//! A directory is the unit of work: read, its candidates looked at as one batch, judged, removed. Nothing is locked meanwhile but, one by one, the
//! digests that go. One that is as it was when it was last read, and holds nothing that is not live, is not read ([`Look`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use tokio::task::JoinHandle;

use super::cutoff::{Cutoff, Verdict};
use super::look::{Look, Next};
use super::mark::{count, cut_off};
use super::report::Swept;
use super::resume::{self, Trail};
use crate::engine::FileStat;
use crate::error::{Error, Result};
use crate::store::layout::CHUNK_DIR_COUNT as DIRS;
use crate::store::{
    ChunkName, DirListing, DirNames, GcMethod as Method, KnownDir, LookedDir, Pass, Remains, Removed, Unchanged,
};
use crate::task::Task;

/// Directories that are worked on at a time: half of the pool, so that backups are served in between.
const DIRS_IN_FLIGHT: usize = 8;

/// Directories whose turn has not come, those that need not be read included: they hold the names of their chunks.
const DIRS_WAITING: usize = 256;

/// Live chunks that are looked at for their sizes, in the whole run: the mean of 4096 is within 3 % of the true one even where sizes vary by as
/// much as they are large. That is all that live chunks cost; a store with no more of them is measured exactly.
pub(super) const SIZE_SAMPLE_CHUNKS: usize = 4096;

/// Files that could not be looked at before the disk is taken for broken.
const UNREADABLE_MAX: u64 = 100;

/// How a sweep judges.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) cutoff: Cutoff,
    pub(super) method: Method,
    /// What is left of the sample.
    pub(super) sample: Arc<AtomicUsize>,
}

/// How far a run is, over all of its passes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    percentage: u32,
    unreadable: u64,
}

/// What one directory had.
#[derive(Debug, Default)]
struct Dir {
    swept: Swept,
    unreadable: Vec<(ChunkName, Errno)>,
    /// What later runs may know of it.
    known: Option<KnownDir>,
}

/// What came of directories, in their order, up to the first error.
type SweptDirs = VecDeque<Result<(u16, Dir)>>;

/// Directories whose turn comes.
#[derive(Debug)]
enum Work {
    Unchanged(Unchanged),
    Read(JoinHandle<SweptDirs>),
}

/// Sweeps the directories of a pass, and adds what they had to `swept`. On an error no further directory is begun, and those that are begun
/// are waited for.
pub(super) async fn sweep(
    pass: &Pass,
    rule: &Rule,
    task: &Task,
    (swept, progress, trail, names): (&mut Swept, &mut Progress, &mut Trail<'_>, &mut DirNames),
) -> Result<()> {
    let dirs = pass.chunk_dirs().await?;
    let mut look = Look::new(pass, &dirs, std::mem::take(&mut names.known), rule.method);
    let mut absent = dirs.unmet.into_iter().peekable();
    let now = names.now();
    let (mut running, mut in_flight) = (VecDeque::new(), 0);
    let mut done = SweptDirs::new();
    let mut failure = None;
    loop {
        while failure.is_none() && in_flight < DIRS_IN_FLIGHT && running.len() < DIRS_WAITING {
            match look.next().await {
                Ok(Some(Next::Unchanged(unchanged))) => running.push_back(Work::Unchanged(unchanged)),
                Ok(Some(Next::Read(prefixes))) => {
                    let (pass, rule) = (pass.clone(), rule.clone());
                    let dirs = tokio::spawn(async move { sweep_dirs(&pass, &prefixes, &rule, now).await });
                    running.push_back(Work::Read(dirs));
                    in_flight += 1;
                }
                Ok(None) => break,
                Err(e) => failure = Some(e),
            }
        }
        if done.is_empty() {
            done = match running.pop_front() {
                None => break,
                Some(Work::Unchanged(unchanged)) => [Ok((unchanged.dir.prefix, Dir::of(unchanged, rule)))].into(),
                Some(Work::Read(dirs)) => {
                    in_flight -= 1;
                    dirs.await.unwrap_or_else(|e| [Err(cut_off(e))].into())
                }
            };
        }
        let Some(dir) = done.pop_front() else { continue };
        match dir {
            Ok((prefix, dir)) => {
                progress.tell(prefix, swept.chunks, &dir, task);
                swept.add(&dir.swept);
                if let (Some(known), None) = (&dir.known, &failure) {
                    names.keep(known).await;
                }
                while let Some((_, unmet)) = absent.next_if(|(missing, _)| *missing < prefix) {
                    swept.unmet += unmet;
                }
                // Behind a failure others were swept, but not all.
                if failure.is_none() {
                    trail.advance(u32::from(prefix) + 1, swept, progress.unreadable).await;
                }
                if progress.unreadable > UNREADABLE_MAX {
                    failure = failure.or_else(|| Some(too_many_unreadable()));
                }
            }
            // The first one counts; those behind it are likely the same.
            Err(e) => failure = failure.or(Some(e)),
        }
    }
    swept.unmet += absent.map(|(_, unmet)| unmet).sum::<u64>();
    names.known = look.end();
    failure.map_or(Ok(()), Err)
}

impl Dir {
    /// Of one that was not read.
    fn of(Unchanged { dir, unmet }: Unchanged, rule: &Rule) -> Self {
        let (chunks, measured) = (count(dir.prints.len()), u64::from(dir.measured));
        rule.sampled(dir.measured as usize);
        let swept = Swept {
            chunks,
            unasked_chunks: chunks - measured,
            sampled_chunks: measured,
            sampled_bytes: dir.measured_bytes,
            unmet,
            dirs_unchanged: 1,
            ..Swept::default()
        };
        Self { swept, unreadable: Vec::new(), known: Some(dir) }
    }
}

impl Rule {
    /// So many of the sample are there. Several directories may have taken from what was left at once; then the sample is a little larger.
    fn sampled(&self, chunks: usize) {
        let taken = |left: usize| Some(left.saturating_sub(chunks));
        let _ = self.sample.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
    }
}

fn too_many_unreadable() -> Error {
    let text = format!("more than {UNREADABLE_MAX} chunk files could not be looked at");
    Error::io(text, std::io::Error::other("the disk fails: look at the kernel's log"))
}

impl Progress {
    /// Of a run that goes on with another one.
    pub(super) fn from(resumed: Option<&resume::Progress>) -> Self {
        resumed
            .map_or_else(Self::default, |from| Self { percentage: percentage(from.next), unreadable: from.unreadable })
    }

    fn tell(&mut self, prefix: u16, chunks_before: u64, dir: &Dir, task: &Task) {
        let percentage = percentage(prefix.into());
        if percentage > self.percentage && dir.swept.chunks > 0 {
            task.log(format!("processed {percentage}% ({chunks_before} chunks)"));
            self.percentage = percentage;
        }
        for (name, errno) in &dir.unreadable {
            self.unreadable += 1;
            let error = std::io::Error::from(*errno);
            task.warn(format!("chunk {name} could not be looked at and stays - {error}"));
        }
    }
}

fn percentage(dirs: u32) -> u32 {
    dirs * 100 / DIRS
}

/// Sweeps directories that follow one another.
async fn sweep_dirs(pass: &Pass, prefixes: &[u16], rule: &Rule, now: Option<i64>) -> SweptDirs {
    let mut swept = SweptDirs::with_capacity(prefixes.len());
    match rule.method {
        Method::Memory => {
            for prefix in prefixes {
                let dir = sweep_dir(pass, *prefix, rule, now).await;
                swept.push_back(dir.map(|dir| (*prefix, dir)));
            }
        }
        Method::AccessTime => {
            let (looked, ended) = pass.look(prefixes, now).await;
            for LookedDir { prefix, listing, stats } in looked {
                let dir = judge(pass, rule, listing, stats).await;
                swept.push_back(dir.map(|dir| (prefix, dir)));
                if swept.back().is_some_and(Result::is_err) {
                    return swept;
                }
            }
            swept.extend(ended.err().map(Err));
        }
    }
    swept
}

/// A directory whose live chunks are of no interest, but for a sample.
async fn sweep_dir(pass: &Pass, prefix: u16, rule: &Rule, now: Option<i64>) -> Result<Dir> {
    let listing = pass.list_chunks(prefix, Remains::Sample(rule.sample.load(Ordering::Relaxed)), now).await?;
    let names: Vec<ChunkName> = listing.candidates.iter().map(|candidate| candidate.name).collect();
    let stats = pass.stat(&names).await?;
    judge(pass, rule, listing, stats).await
}

/// Decides about what lies in a directory, and removes what is to go.
async fn judge(
    pass: &Pass,
    rule: &Rule,
    listing: DirListing,
    stats: Vec<Result<Option<FileStat>, Errno>>,
) -> Result<Dir> {
    let mut dir = Dir { known: listing.known, ..Dir::default() };
    dir.swept.dirs_read = 1;
    dir.swept.unmet = listing.unmet;
    dir.swept.unasked_chunks = listing.live;
    dir.swept.chunks = listing.live + count(listing.candidates.len());
    if listing.candidates.is_empty() {
        return Ok(dir);
    }
    let mut old = Vec::new();
    let mut sampled = 0;
    for (candidate, stat) in listing.candidates.iter().zip(stats) {
        let name = candidate.name;
        let is_sample = candidate.stays && name.bad.is_none();
        sampled += usize::from(is_sample);
        dir.swept.stats += u64::from(!is_sample);
        match stat {
            Ok(None) => {}
            Ok(Some(stat)) if is_sample => {
                dir.swept.sampled_chunks += 1;
                dir.swept.sampled_bytes += stat.size_bytes;
            }
            Ok(Some(stat)) if candidate.stays => dir.swept.used_bytes += stat.size_bytes,
            Ok(Some(stat)) => match rule.cutoff.judge(stat.accessed) {
                Verdict::Remove => old.push((name, stat)),
                verdict => dir.swept.keep(name, verdict, &stat),
            },
            Err(_) if is_sample => dir.swept.unasked_chunks += 1,
            Err(errno) => dir.unreadable.push((name, errno)),
        }
    }
    rule.sampled(sampled);
    remove(pass, rule, old, &mut dir.swept).await?;
    let Swept { sampled_chunks, sampled_bytes, used_chunks, used_bytes, pending_chunks, pending_bytes, .. } = dir.swept;
    // What has lost a chunk is another directory now.
    let is_same = dir.swept.removed_chunks == 0;
    // Who names none of the chunks that stay may do so before the next run.
    dir.known = dir.known.filter(|_| is_same).map(|known| KnownDir {
        measured: u32::try_from(sampled_chunks + used_chunks + pending_chunks).unwrap_or(0),
        measured_bytes: sampled_bytes + used_bytes + pending_bytes,
        ..known
    });
    Ok(dir)
}

async fn remove(pass: &Pass, rule: &Rule, old: Vec<(ChunkName, FileStat)>, swept: &mut Swept) -> Result<()> {
    let names: Vec<ChunkName> = old.iter().map(|(name, _)| *name).collect();
    let removed = pass.remove(&names, rule.cutoff.min_atime).await?;
    for ((name, stat), removed) in old.into_iter().zip(removed) {
        match removed {
            Removed::Yes { bytes } => {
                swept.removed_bytes += bytes;
                *(if name.bad.is_none() { &mut swept.removed_chunks } else { &mut swept.removed_bad }) += 1;
            }
            Removed::Vanished => {}
            Removed::Kept => swept.keep(name, Verdict::InUse, &stat),
            Removed::Younger(stat) => swept.keep(name, rule.cutoff.judge(stat.accessed), &stat),
        }
    }
    Ok(())
}

impl Swept {
    /// Counts a file that stays (spec 07 §1.4).
    fn keep(&mut self, name: ChunkName, verdict: Verdict, stat: &FileStat) {
        match (verdict, name.bad) {
            (Verdict::Pending, None) => {
                self.pending_chunks += 1;
                self.pending_bytes += stat.size_bytes;
            }
            (Verdict::Pending, Some(_)) => self.still_bad += 1,
            (_, bad) => {
                self.used_chunks += u64::from(bad.is_none());
                self.used_bytes += stat.size_bytes;
            }
        }
    }
}
