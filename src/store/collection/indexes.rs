//! The index files of a datastore, wherever they lie, and what they name.

use std::io;
use std::path::PathBuf;

use super::{Pass, Shared};
use crate::engine::{Disk, FileKind};
use crate::error::{Error, Kind, Result};
use crate::store::explain::failed;
use crate::store::index_read::{IndexEntry, IndexReader, IndexScan, SCAN_BLOCK_BYTES};
use crate::store::layout::CHUNKS_DIR;
use crate::store::live_set::Mark;
use crate::types::{ArchiveKind, Digest};

/// How many digests are added under one lock: some tenths of a millisecond, so that an insert does not wait for a whole block.
const ADDED_AT_ONCE: usize = 4096;

/// Chunks that are touched in one piece of work: some seconds on the slowest disk, and a request to stop is seen between two.
const TOUCHED_AT_ONCE: usize = 256;

/// How many such pieces run at a time: half of the pool, so that backups are served in between.
const TOUCHES_IN_FLIGHT: usize = 8;

/// Directory that file systems make for what a check has found; often nobody may read it.
const LOST_AND_FOUND: &str = "lost+found";

/// An index file, where it was when it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Its path.
    pub path: PathBuf,
    /// Fixed or dynamic.
    kind: ArchiveKind,
}

impl Pass {
    /// One directory of the tree: its index files and the directories below it that may hold more. What is gone meanwhile is empty.
    ///
    /// Whatever ends in `.fidx` or `.didx` counts, also in an unfinished snapshot and outside of any group (spec 07 §1.2); names that begin with
    /// a dot are passed over. A directory that cannot be read is an error: what it names would be lost.
    pub async fn list_indexes(&self, dir: Option<PathBuf>) -> Result<(Vec<IndexFile>, Vec<PathBuf>)> {
        let _turn = self.shared.run.turn(1, 0).await?;
        self.read(move |disk, shared| list(disk, shared, dir)).await
    }

    /// Opens an index; `None` if it is gone.
    pub async fn open_index(&self, file: &IndexFile) -> Result<Option<IndexReader>> {
        let file = file.clone();
        self.read(move |disk, shared| {
            let engine = &shared.run.background;
            match IndexReader::open_as(disk, engine, &file.path, file.kind, &cannot_read(&file)) {
                Err(e) if e.errno() == Some(libc::ENOENT) => Ok(None),
                Err(e) => Err(with_remedy(e)),
                Ok(index) => Ok(Some(index)),
            }
        })
        .await
    }

    /// The next entries of an index; `None` behind the last, or if the file is gone.
    pub async fn next_block(&self, file: &IndexFile, scan: &mut IndexScan) -> Result<Option<Vec<IndexEntry>>> {
        let _turn = self.shared.run.turn(1, SCAN_BLOCK_BYTES.min(scan.left_bytes())).await?;
        match self.shared.run.unless_stopped(scan.next_block()).await {
            Err(e) if e.kind() != Kind::Closed => {
                // Cut off under our hands, as a network file system does with a removed file.
                if self.is_gone(file).await? { Ok(None) } else { Err(with_remedy(e.context(cannot_read(file)))) }
            }
            block => block,
        }
    }

    async fn is_gone(&self, file: &IndexFile) -> Result<bool> {
        let path = file.path.clone();
        let gone =
            move |disk: &Disk, _: &Shared| Ok(disk.lstat(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
        self.read(gone).await
    }

    /// Adds digests that an index names to the live ones; those that are new among them come back. When the set takes more than it may, the
    /// upper half of its directories is left for another pass.
    pub async fn mark(&self, entries: Vec<IndexEntry>) -> Result<Vec<Digest>> {
        self.read(move |_, shared| {
            let mut new = Vec::new();
            for part in entries.chunks(ADDED_AT_ONCE) {
                let mut live = shared.live.lock();
                new.extend(part.iter().map(|entry| entry.digest).filter(|digest| live.add(digest, Mark::Named)));
                while live.is_over() {
                    live.halve().map_err(|_| {
                        Error::invalid(
                            "the live chunks of one directory do not fit into memory - raise gc-memory-mib of this datastore",
                        )
                    })?;
                }
            }
            Ok(new)
        })
        .await
    }

    /// Sets the access time of chunks to now; those that are not there are passed over.
    pub async fn touch(&self, digests: &[Digest]) -> Result<()> {
        let mut running = tokio::task::JoinSet::new();
        let run = &self.shared.run;
        for part in digests.chunks(run.share.piece(TOUCHED_AT_ONCE)) {
            if running.len() >= TOUCHES_IN_FLIGHT {
                join_one(&mut running).await?;
            }
            let (pass, part, turn) = (self.clone(), part.to_vec(), run.turn(part.len(), 0).await?);
            running.spawn(async move {
                let _turn = turn;
                pass.read(move |disk, shared| touch(disk, shared, &part)).await
            });
        }
        while !running.is_empty() {
            join_one(&mut running).await?;
        }
        Ok(())
    }

    /// Of the chunks that an index names, those whose file no directory had, in order, each as often as it is named.
    pub async fn unmet(&self, entries: Vec<IndexEntry>) -> Result<Vec<Digest>> {
        self.read(move |_, shared| {
            let live = shared.live.lock();
            Ok(entries.iter().map(|entry| entry.digest).filter(|digest| live.is_unmet(digest)).collect())
        })
        .await
    }
}

async fn join_one(running: &mut tokio::task::JoinSet<Result<()>>) -> Result<()> {
    match running.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(e)) => Err(Error::io("a piece of garbage collection ended early", io::Error::other(e))),
        None => Ok(()),
    }
}

fn cannot_read(file: &IndexFile) -> String {
    format!("can't read index '{}'", file.path.display())
}

/// For the reader of the task log: what this means, and what to do.
fn with_remedy(error: Error) -> Error {
    Error::new(
        error.kind(),
        format!(
            "{error} - what it names cannot be told from garbage, so nothing is removed: put it right, or remove its snapshot"
        ),
    )
}

fn list(disk: &Disk, shared: &Shared, dir: Option<PathBuf>) -> Result<(Vec<IndexFile>, Vec<PathBuf>)> {
    let base = shared.run.store.layout.base();
    let is_base = dir.is_none();
    let dir = dir.unwrap_or_else(|| base.to_owned());
    let entries = match disk.read_dir_all(&dir) {
        // Gone, or a file by now.
        Err(e) if !is_base && matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Vec::new(),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && is_lost_and_found(&dir, base) => Vec::new(),
        entries => entries.map_err(|e| with_remedy(failed("unable to list", &dir, e)))?,
    };
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    for (name, kind) in entries {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b".") {
            if bytes == CHUNKS_DIR.as_bytes() && kind == FileKind::Dir && !is_base {
                return Err(Error::invalid(format!(
                    "{dir:?} is a datastore within this one, whose chunks nobody could tell apart - move it elsewhere"
                )));
            }
            continue;
        }
        let archive = match bytes.rsplit(|b| *b == b'.').next() {
            Some(b"fidx") => Some(ArchiveKind::FixedIndex),
            Some(b"didx") => Some(ArchiveKind::DynamicIndex),
            _ => None,
        };
        match (kind, archive) {
            (FileKind::Dir, _) => dirs.push(dir.join(name)),
            (FileKind::File, Some(kind)) if bytes.contains(&b'.') => {
                files.push(IndexFile { path: dir.join(name), kind })
            }
            _ => {}
        }
    }
    Ok((files, dirs))
}

fn is_lost_and_found(dir: &std::path::Path, base: &std::path::Path) -> bool {
    dir.file_name().is_some_and(|name| name == LOST_AND_FOUND) && dir.parent() == Some(base)
}

fn touch(disk: &Disk, shared: &Shared, digests: &[Digest]) -> Result<()> {
    for digest in digests {
        shared.run.go_on()?;
        let path = shared.run.store.layout.chunk(digest);
        match shared.run.with_reserve(disk, || disk.touch(&path)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("unable to touch chunk", &path, e)),
            _ => {}
        }
    }
    Ok(())
}
