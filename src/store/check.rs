//! Presence checks of chunks: batches through the engine, and what is done about a hole.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::chunk_store::ChunkStore;
use super::explain::failed;
use super::layout::{Layout, chunk_stat_name};
use super::presence::{CheckReport, Presence, classify};
use crate::engine::{Class, DirFd, Disk, Engine, FileMeta, StatBatch};
use crate::error::{Error, Result};
use crate::types::Digest;

/// Names per batch: enough to keep every worker busy, few enough that an interactive batch gets between two of a sweep and that progress is
/// told often (about 40 s at 100 stats a second). 72 bytes each.
pub const CHECK_BATCH_MAX: usize = 4096;

/// How fresh an answer has to be. On a local file system both are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// What a network file system's cache says will do (append).
    Cached,
    /// A network file system has to ask its server: another host may have deleted the file (finish).
    Server,
}

/// What a check needs of a datastore.
#[derive(Debug)]
pub(super) struct Checker {
    layout: Layout,
    /// `.chunks` as it was when the datastore was opened.
    chunks_dir: Arc<DirFd>,
    chunks_meta: FileMeta,
    pub(super) network_fs: bool,
    /// A number for this opening: as long as `.chunks` is open, its file system is not unmounted.
    pub(super) token: u64,
}

impl Checker {
    /// Opens `.chunks` for good.
    pub(super) fn open(disk: &Disk, layout: Layout, network_fs: bool) -> io::Result<Self> {
        let chunks_dir = Arc::new(disk.open_dir(&layout.chunks())?);
        let chunks_meta = disk.dir_meta(&chunks_dir)?;
        let token = RandomState::new().hash_one(chunks_meta.ino);
        Ok(Self { layout, chunks_dir, chunks_meta, network_fs, token })
    }

    /// `.chunks` as it was when the datastore was opened.
    pub(super) fn chunks_dir(&self) -> Arc<DirFd> {
        Arc::clone(&self.chunks_dir)
    }

    /// Checks `digests` in batches; `progress` hears after each how many were asked so far.
    pub(super) async fn check(
        self: &Arc<Self>,
        engine: &Engine,
        chunks: &ChunkStore,
        digests: &[Digest],
        class: Class,
        freshness: Freshness,
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<CheckReport> {
        let started = Instant::now();
        let mut report = CheckReport::default();
        let ask_server = self.network_fs && freshness == Freshness::Server;
        for batch in digests.chunks(CHECK_BATCH_MAX) {
            self.ask(engine, batch, class, ask_server, &mut report).await?;
            report.checked += batch.len();
            progress(report.checked);
        }
        if !report.missing.is_empty() && self.network_fs && !ask_server {
            // A cached "no such file" may be older than the chunk: another host may have written it since.
            let doubted: Vec<Digest> =
                std::mem::take(&mut report.missing).into_iter().map(|(digest, _)| digest).collect();
            for batch in doubted.chunks(CHECK_BATCH_MAX) {
                self.ask(engine, batch, class, true, &mut report).await?;
            }
        }
        self.conclude(engine, chunks, report, started).await
    }

    /// What is done about a hole before anybody hears of it.
    pub(super) async fn conclude(
        self: &Arc<Self>,
        engine: &Engine,
        chunks: &ChunkStore,
        mut report: CheckReport,
        started: Instant,
    ) -> Result<CheckReport> {
        if !report.missing.is_empty() {
            self.confirm_place(engine).await?;
            chunks.suspects.mark(report.missing.iter().map(|(digest, _)| *digest));
            // A backup whose sweep saw it before it went asks for it once more.
            chunks.custody.taken.note(report.missing.iter().map(|(digest, _)| *digest));
        }
        report.elapsed = started.elapsed();
        Ok(report)
    }

    /// One batch for the engine; counts nothing but what is missing or unknown.
    pub(super) async fn ask(
        &self,
        engine: &Engine,
        digests: &[Digest],
        class: Class,
        force_sync: bool,
        report: &mut CheckReport,
    ) -> Result<()> {
        let names = digests.iter().map(chunk_stat_name).collect();
        let dir = Arc::clone(&self.chunks_dir);
        let reply = engine.stat(StatBatch { dir, names, class, force_sync, stamps: false }).await?;
        for (digest, answer) in digests.iter().zip(reply.results) {
            match classify(answer) {
                Presence::Present => {}
                Presence::Missing(reason) => report.missing.push((*digest, reason)),
                Presence::Unknown(errno) => report.unchecked.push((*digest, errno)),
            }
        }
        Ok(())
    }

    /// Whether the path of the datastore still leads to the directory that was asked: a disk that is unmounted, or replaced, would make
    /// every chunk look missing, and every snapshot that lent one a failed one.
    pub(super) async fn confirm_place(self: &Arc<Self>, engine: &Engine) -> Result<()> {
        let checker = Arc::clone(self);
        engine
            .run(move |disk| {
                let path = checker.layout.chunks();
                let gone = |why: String| Error::io("the datastore is not at its place", io::Error::other(why));
                let named = disk.stat(&path).map_err(|e| failed("the datastore is not at its place:", &path, e))?;
                let held = disk.dir_meta(&checker.chunks_dir).map_err(|e| failed("unable to stat", &path, e))?;
                let was = (checker.chunks_meta.dev, checker.chunks_meta.ino);
                if held.nlink == 0 || (named.dev, named.ino) != was {
                    return Err(gone(format!(
                        "{path:?} is another directory than when the datastore was opened; restart the daemon"
                    )));
                }
                Ok(())
            })
            .await?
    }
}
