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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Fault;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts reads.
    #[derive(Debug, Default)]
    struct Reads(AtomicUsize);

    impl Fault for Reads {
        fn before(&self, op: &'static str, _: Option<&Path>) -> io::Result<()> {
            self.0.fetch_add(usize::from(op == "pread"), Ordering::Relaxed);
            Ok(())
        }
    }

    struct World {
        dir: tempfile::TempDir,
        reads: Arc<Reads>,
        reader: LogReader,
        upid: Upid,
    }

    impl World {
        fn new() -> Self {
            let reads = Arc::new(Reads::default());
            let reader = LogReader::start(Disk::with_fault(reads.clone())).unwrap();
            let upid = "UPID:a:00000001:00000001:00000001:66607C8A:backup:x:root@pam:".parse().unwrap();
            Self { dir: tempfile::tempdir().unwrap(), reads, reader, upid }
        }

        fn append(&self, text: &str) {
            let file = Disk::real().open_or_create(&self.dir.path().join("log"), 0o644).unwrap();
            let end = file.meta().unwrap().size_bytes;
            file.write_all_at(text.as_bytes(), end).unwrap();
        }

        async fn open(&self, active: bool) -> TaskLog {
            self.reader.open(&self.upid, self.dir.path().join("log"), active).await.unwrap()
        }

        async fn page(&self, active: bool, first: u64, limit: u64) -> Vec<(u64, String)> {
            let mut page = self.open(active).await.page(first, limit);
            let mut lines = Vec::new();
            while let Some(more) = page.next().await.unwrap() {
                lines.extend(more);
            }
            lines
        }

        fn reads(&self) -> usize {
            self.reads.0.swap(0, Ordering::Relaxed)
        }
    }

    fn numbered(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, String)> {
        range.map(|n| (n, format!("line {n}"))).collect()
    }

    #[tokio::test]
    async fn pages_begin_and_end_where_they_are_asked_to() {
        let world = World::new();
        world.append(&(1..=1200).map(|n| format!("line {n}\n")).collect::<String>());
        for (first, limit, want) in [
            (0, 50, 1..=50),
            (1, 50, 1..=50),
            (51, 2, 51..=52),
            (1000, 500, 1000..=1200),
            (1024, 3, 1024..=1026),
            (1025, 3, 1025..=1027),
            (1200, 10, 1200..=1200),
            (1, u64::MAX, 1..=1200),
        ] {
            assert_eq!(world.page(true, first, limit).await, numbered(want), "{first} {limit}");
        }
        for first in [1201, 5000, u64::MAX] {
            assert_eq!(world.page(true, first, 10).await, [], "{first}");
        }
        assert_eq!(world.open(false).await.lines(), 1200);
    }

    #[tokio::test]
    async fn a_line_that_is_being_written_is_shown_when_it_is_whole_or_will_never_be() {
        let world = World::new();
        world.append("one\ntw");
        assert_eq!(world.page(true, 1, 10).await, [(1, "one".to_owned())]);
        assert_eq!(world.open(true).await.lines(), 1);
        assert_eq!(world.page(false, 1, 10).await, [(1, "one".to_owned()), (2, "tw".to_owned())]);
        assert_eq!(world.page(false, 2, 10).await, [(2, "tw".to_owned())]);
        assert_eq!(world.open(false).await.lines(), 2);
        world.append("o\nthree\n");
        assert_eq!(world.page(true, 2, 10).await, [(2, "two".to_owned()), (3, "three".to_owned())]);
    }

    /// 20 MiB are counted once; after that a page costs two reads wherever it lies, and what was added one more.
    #[tokio::test]
    async fn a_page_of_a_long_log_does_not_read_what_is_before_it() {
        let world = World::new();
        let filler = "x".repeat(80);
        world.append(&(0..240_000).map(|n| format!("{n} {filler}\n")).collect::<String>());
        assert_eq!(world.open(true).await.lines(), 240_000);
        assert!(world.reads() >= 20);
        for first in [1, 100_000, 239_500] {
            let lines = world.page(true, first, 500).await;
            assert_eq!((lines.len(), lines[0].0), (500, first));
            assert!(world.reads() <= 4, "at most 1,524 lines in blocks of 64 KiB");
        }
        world.append("the last\n");
        assert_eq!(world.page(true, 240_001, 500).await, [(240_001, "the last".to_owned())]);
        assert!(world.reads() <= 4);
        for n in 0..INDEXES_MAX + 5 {
            world.reader.remember(n.to_string(), &LineIndex::default());
        }
        assert_eq!(world.reader.indexes.lock().len(), INDEXES_MAX);
    }

    #[tokio::test]
    async fn a_download_is_the_file() {
        let world = World::new();
        let text = "a line\n".repeat(30_000) + "and a half";
        world.append(&text);
        let mut download = world.open(false).await.download();
        let mut got = Vec::new();
        while let Some(block) = download.next().await.unwrap() {
            assert!(block.len() <= BLOCK_BYTES);
            got.extend_from_slice(&block);
        }
        assert!(got == text.as_bytes());
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_is_named() {
        let world = World::new();
        let opened = world.reader.open(&world.upid, world.dir.path().join("log"), false).await;
        assert_eq!(opened.unwrap_err().to_string(), format!("there is no log of task '{}'", world.upid));
    }
}
