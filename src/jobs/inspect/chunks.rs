//! Some chunks: which snapshots lose data when they are gone.

use std::sync::Arc;

use super::MaySee;
use super::report::{AffectedArchive, AffectedSnapshot, ChunksReport, Named};
use super::trace::{CHUNKS_MAX, Trace, Wanted, trace, verify_state};
use super::walk::{self, Listed, Next, Site, Tenths, UNREADABLE_MAX, Walk, in_order};
use crate::engine::{Class, ComputePool};
use crate::error::{Kind, Result};
use crate::format::manifest::{VerifyOutcome, VerifyState};
use crate::protocol::passes::{PASS_DIGESTS_MAX, Pass};
use crate::store::layout::CHUNK_DIR_COUNT;
use crate::store::{Datastore, Freshness};
use crate::task::Task;
use crate::types::Digest;

/// Type of its tasks; a snapshot that bears the mark of one is looked at by every verification.
pub const WORKER_TYPE: &str = "chunkreport";

/// Affected snapshots that the log names; the report has them all.
const LOGGED_MAX: usize = 100;

/// Which chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// These, whether they are there or not.
    Chunks(Vec<Digest>),
    /// All that an index names and that are not there.
    Missing,
    /// All of which a version has been set aside as bad.
    SetAside,
}

impl About {
    fn word(&self) -> &'static str {
        match self {
            Self::Chunks(_) => "chunks",
            Self::Missing => "missing",
            Self::SetAside => "bad",
        }
    }
}

/// What is to be traced.
pub struct Tracing {
    /// In which datastore.
    pub store: Datastore,
    /// Who searches.
    pub compute: ComputePool,
    /// Which chunks.
    pub about: About,
    /// Whether finished snapshots that name a chunk that is not there are marked as failed.
    pub mark: bool,
    /// Which namespaces are named.
    pub may_see: MaySee,
    /// Where missing chunks are looked for too.
    pub others: Vec<Datastore>,
}

impl std::fmt::Debug for Tracing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tracing of {:?} in {}", self.about, self.store.name())
    }
}

impl Tracing {
    /// Worker type and id of its task.
    pub fn worker(&self) -> (&'static str, String) {
        (WORKER_TYPE, self.store.name().to_string())
    }

    /// Does it. Drop the future to stop it.
    pub async fn run(&self, task: &Task) -> Result<ChunksReport> {
        self.run_keeping(task, PASS_DIGESTS_MAX).await
    }

    /// The same with at most so many digests in memory.
    pub(super) async fn run_keeping(&self, task: &Task, digests_max: usize) -> Result<ChunksReport> {
        let site = Site { store: self.store.clone(), compute: self.compute.clone() };
        let listed = walk::list(&self.store).await?;
        let mut unreadable = Vec::new();
        let (digests, more_chunks) = match &self.about {
            About::Chunks(digests) => (digests.clone(), 0),
            About::Missing => self.missing(&site, &listed, task, digests_max, &mut unreadable).await?,
            About::SetAside => self.set_aside(task).await?,
        };
        let wanted = Wanted::measured(&self.store, digests).await?;
        let count = wanted.lookup.digests().len() as u64 + more_chunks;
        task.log(format!("it is about {}", super::words::counted(count, "chunk")));
        let trace = match (wanted.lookup.digests(), &self.about) {
            ([], About::Missing) => {
                let indexes = listed.iter().map(|listed| listed.indexes.len() as u64).sum();
                Trace { indexes, unreadable, ..Trace::default() }
            }
            ([], _) => Trace::default(),
            _ => trace(&site, &listed, &wanted, task).await?,
        };
        let marked = if self.mark { self.mark(&trace, task).await? } else { 0 };
        let may_see = |listed: &Listed| (self.may_see)(&listed.ns);
        let chunks = trace.fates(&site, &wanted, &self.others, may_see, task).await?;
        let mut report = ChunksReport {
            store: self.store.name().to_string(),
            about: self.about.word().to_owned(),
            indexes: trace.indexes,
            unreadable: trace.unreadable,
            chunks,
            more_chunks,
            snapshots: Vec::new(),
            hidden_snapshots: 0,
            marked,
        };
        for traced in trace.affected {
            let listed = traced.listed;
            if !may_see(&listed) {
                report.hidden_snapshots += 1;
                continue;
            }
            let verification = verify_state(&self.store, &listed).await?;
            let archives = traced.archives.into_iter().map(|(name, places)| AffectedArchive {
                archive: name.to_string(),
                entries: places.entries,
                bytes: places.bytes,
                places: places.kept,
                more_places: places.more,
            });
            report.snapshots.push(AffectedSnapshot {
                snapshot: Named::of(&listed.ns, &listed.snapshot),
                finished: listed.finished,
                newest: listed.newest,
                loses_data: traced.loses_data,
                verification: verification.map(|state| state.as_str().to_owned()),
                archives: archives.collect(),
            });
        }
        self.log(&report, task);
        Ok(report)
    }

    /// All chunks that an index names and that are not there, at most [`CHUNKS_MAX`], and how many more.
    async fn missing(
        &self,
        site: &Site,
        listed: &[Arc<Listed>],
        task: &Task,
        digests_max: usize,
        unreadable: &mut Vec<String>,
    ) -> Result<(Vec<Digest>, u64)> {
        let (mut missing, mut more) = (Vec::new(), 0);
        let mut pass = Some(Pass::first(digests_max));
        while let Some(mut now) = pass {
            let mut progress = Tenths::new(task, "reading all indexes", listed.len());
            for (at, listed) in listed.iter().enumerate() {
                // Digests of all snapshots meet in one pass, so one index follows the other.
                for name in &listed.indexes {
                    let mut walk = Walk::new(&site.store, listed, name);
                    loop {
                        match walk.next().await? {
                            Next::Block(block) => {
                                for entry in &block {
                                    if now.add(&entry.digest) {
                                        now = site.compute.run(move || (now.compact(), now).1).await?;
                                    }
                                }
                            }
                            Next::End => break,
                            Next::Unreadable(why) => {
                                unreadable.push(why);
                                break;
                            }
                        }
                    }
                }
                progress.tell(at + 1);
            }
            let (digests, next) = site.compute.run(move || now.end()).await?;
            let mut progress = Tenths::new(task, "asking for their chunks", digests.len());
            // Each is asked for: a name in a directory may be that of an empty file.
            let asked = |done| progress.tell(done);
            let report = self.store.check_chunks_with(&digests, Class::Sweep, Freshness::Server, asked).await?;
            for (digest, _) in report.missing {
                if missing.len() < CHUNKS_MAX { missing.push(digest) } else { more += 1 }
            }
            for (digest, errno) in report.unchecked.iter().take(1) {
                let error = std::io::Error::from(*errno);
                let count = report.unchecked.len();
                task.warn(format!("{count} chunks could not be asked for, {digest} among them - {error}"));
            }
            pass = next;
        }
        unreadable.sort();
        unreadable.dedup();
        unreadable.truncate(UNREADABLE_MAX);
        Ok((missing, more))
    }

    /// All chunks of which a version has been set aside, at most [`CHUNKS_MAX`], and how many more.
    async fn set_aside(&self, task: &Task) -> Result<(Vec<Digest>, u64)> {
        let (mut found, mut more) = (Vec::new(), 0);
        let count = usize::try_from(CHUNK_DIR_COUNT).unwrap_or(0);
        let mut progress = Tenths::new(task, "reading chunk directories", count);
        let start = |prefix: usize| {
            let store = self.store.clone();
            async move { store.set_aside(u16::try_from(prefix).unwrap_or(u16::MAX)).await }
        };
        in_order(count, start, |at, aside| {
            for file in aside {
                match found.last() {
                    Some(last) if *last == file.digest => {}
                    _ if found.len() < CHUNKS_MAX => found.push(file.digest),
                    _ => more += 1,
                }
            }
            progress.tell(at + 1);
        })
        .await?;
        Ok((found, more))
    }

    /// Marks the finished snapshots that name a chunk that is not there, as a known-chunk check does with its base: the next backup of a
    /// group whose newest snapshot is marked uploads everything. How many.
    async fn mark(&self, trace: &Trace, task: &Task) -> Result<u64> {
        let upid = task.upid().to_string();
        let mut marked = 0;
        for traced in trace.affected.iter().filter(|traced| traced.loses_data && traced.listed.finished) {
            let Listed { ns, snapshot, .. } = &*traced.listed;
            let failed = VerifyState { state: VerifyOutcome::Failed, upid: upid.clone() };
            match self.store.update_manifest(ns, snapshot, move |manifest| manifest.set_verify_state(failed)).await {
                Ok(()) => {
                    marked += 1;
                    task.log(format!("marked snapshot {} as failed", shown(&traced.listed)));
                }
                Err(e) if e.kind() == Kind::Closed => return Err(e),
                Err(e) => task.warn(format!("snapshot {} could not be marked - {e}", shown(&traced.listed))),
            }
        }
        Ok(marked)
    }

    fn log(&self, report: &ChunksReport, task: &Task) {
        for (at, line) in super::words::summary(report).into_iter().take(LOGGED_MAX + 1).enumerate() {
            match at {
                0 if report.is_sound() => task.log(line),
                0 => task.warn(line),
                // As the list at the end of a verification.
                _ => task.log(format!("\t{line}")),
            }
        }
        if !report.unreadable.is_empty() {
            let count = report.unreadable.len().min(UNREADABLE_MAX);
            task.warn(format!("{count} index files could not be read; the first: {}", report.unreadable[0]));
        }
    }
}

/// `vm/100/TIME`, with the namespace before it.
fn shown(listed: &Listed) -> String {
    match listed.ns.is_root() {
        true => listed.snapshot.to_string(),
        false => format!("{}:{}", listed.ns, listed.snapshot),
    }
}
