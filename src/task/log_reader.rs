//! Reads logs by lines while they grow. Blocking work runs on one thread of its own, a bounded piece at a time, so that neither the
//! runtime nor the writer of the logs waits for it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::line_index::LineIndex;
use crate::engine::{ComputePool, Disk, DiskFile};
use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::types::Upid;

/// What is looked at in one go when a log is counted: some milliseconds of a slow disk.
const SCAN_BYTES: usize = 1 << 20;

/// What is read in one go for a page or a download.
const BLOCK_BYTES: usize = 64 << 10;

/// Logs whose lines are remembered. Each takes at most 80 KiB, that of a full log of short lines.
const INDEXES_MAX: usize = 64;

/// Opens logs. A cheap clone.
#[derive(Clone, Debug)]
pub(super) struct LogReader {
    disk: Disk,
    pool: ComputePool,
    /// The one that was used last at the end.
    indexes: Arc<Mutex<VecDeque<(String, LineIndex)>>>,
}

/// A log as it was when it was opened.
#[derive(Debug)]
pub struct TaskLog {
    file: Arc<DiskFile>,
    pool: ComputePool,
    index: LineIndex,
    end_bytes: u64,
    lines: u64,
    active: bool,
}

impl LogReader {
    pub(super) fn start(disk: Disk) -> Result<Self> {
        Ok(Self { disk, pool: ComputePool::named("task-read", 1)?, indexes: Arc::default() })
    }

    /// Opens a log. `active` is whether its task ran before this was called, so that a client that reads to the end of a log that is
    /// not active has read all of it.
    pub(super) async fn open(&self, upid: &Upid, path: PathBuf, active: bool) -> Result<TaskLog> {
        let disk = self.disk.clone();
        let opened = self.pool.run(move || {
            let file = disk.open(&path)?;
            let size_bytes = file.meta()?.size_bytes;
            Ok((Arc::new(file), size_bytes))
        });
        let (file, size_bytes) = opened.await?.map_err(|e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Error::invalid(format!("there is no log of task '{upid}'")),
            _ => Error::io(format!("open the log of task '{upid}'"), e),
        })?;
        let name = upid.to_string();
        let mut index = self.remembered(&name);
        // The log of a task is only ever added to. One that is shorter than it was is another one.
        if index.scanned_bytes() > size_bytes {
            index = LineIndex::default();
        }
        while index.scanned_bytes() < size_bytes {
            let block = read(&self.pool, &file, index.scanned_bytes(), size_bytes, SCAN_BYTES).await?;
            if index.feed(&block) == 0 {
                break;
            }
        }
        self.remember(name, &index);
        // What a crash cut off in the middle of a line is shown, what is being written is not.
        let torn = !active && index.scanned_bytes() < size_bytes;
        let end_bytes = if torn { size_bytes } else { index.scanned_bytes() };
        let lines = index.lines() + u64::from(torn);
        Ok(TaskLog { file, pool: self.pool.clone(), index, end_bytes, lines, active })
    }

    fn remembered(&self, name: &str) -> LineIndex {
        let mut indexes = self.indexes.lock();
        let at = indexes.iter().position(|(known, _)| known == name);
        at.and_then(|at| indexes.remove(at)).map(|(_, index)| index).unwrap_or_default()
    }

    fn remember(&self, name: String, index: &LineIndex) {
        let mut indexes = self.indexes.lock();
        indexes.retain(|(known, _)| *known != name);
        if indexes.len() == INDEXES_MAX {
            indexes.pop_front();
        }
        indexes.push_back((name, index.clone()));
    }
}

impl TaskLog {
    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Whether its task still ran when the log was opened.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// At most `limit` lines, from number `first` on, which is 1 for the first line; 0 means so too.
    pub fn page(self, first: u64, limit: u64) -> Page {
        let line = first.saturating_sub(1);
        let (offset, skip) = self.index.seek(line);
        // A torn last line is no part of the index; it begins where that ends.
        let left = if line < self.lines { limit } else { 0 };
        Page { next: line + 1, offset, skip, left, log: self }
    }

    /// All of it, a block after the other.
    pub fn download(self) -> Download {
        Download { log: self, offset: 0 }
    }
}

/// Lines of a log, on the way to a client.
#[derive(Debug)]
pub struct Page {
    log: TaskLog,
    offset: u64,
    skip: u64,
    next: u64,
    left: u64,
}

impl Page {
    /// The next few lines with their numbers; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<(u64, String)>>> {
        while self.left > 0 && self.offset < self.log.end_bytes {
            let block = read(&self.log.pool, &self.log.file, self.offset, self.log.end_bytes, BLOCK_BYTES).await?;
            let at_end = self.offset + block.len() as u64 == self.log.end_bytes;
            let whole = block.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let whole = if at_end { block.len() } else { whole };
            if whole == 0 {
                return Err(Error::corrupt(format!("a line of a task log is longer than {BLOCK_BYTES} bytes")));
            }
            let mut lines = Vec::new();
            for line in block[..whole].split_inclusive(|byte| *byte == b'\n') {
                if self.skip > 0 {
                    self.skip -= 1;
                } else if self.left > 0 {
                    let text = line.strip_suffix(b"\n").unwrap_or(line);
                    lines.push((self.next, String::from_utf8_lossy(text).into_owned()));
                    self.next += 1;
                    self.left -= 1;
                }
            }
            self.offset += whole as u64;
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
        }
        Ok(None)
    }
}

/// A whole log, on the way to a client.
#[derive(Debug)]
pub struct Download {
    log: TaskLog,
    offset: u64,
}

impl Download {
    /// The next block; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.offset >= self.log.end_bytes {
            return Ok(None);
        }
        let block = read(&self.log.pool, &self.log.file, self.offset, self.log.end_bytes, BLOCK_BYTES).await?;
        self.offset += block.len() as u64;
        Ok(Some(block.into()))
    }
}

async fn read(pool: &ComputePool, file: &Arc<DiskFile>, offset: u64, end: u64, bytes_max: usize) -> Result<Vec<u8>> {
    let file = file.clone();
    let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(bytes_max);
    let work = move || {
        let mut block = vec![0; length];
        file.read_exact_at(&mut block, offset).map(|()| block)
    };
    pool.run(work).await?.map_err(|e| Error::io("read a task log", e))
}
