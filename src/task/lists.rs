//! The files `active` and `archive`: which tasks run, which have ended, and how many of those are kept.
//!
//! The archive is added to at each end of a task and written anew when a thousand of its lines are no longer wanted. The logs of
//! forgotten tasks are removed first: a crash in between leaves lines without a log, and the next start finds them to be too many again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::book::Book;
use super::entry::{self, TaskStatus, archive_line, log_dir, log_name, message_of, split_archive_line};
use super::replace::replace;
use crate::clock::Clock;
use crate::engine::Disk;
use crate::error::{Error, IoContext, Result};
use crate::types::Upid;

/// How much of the archive is read at the start, from its end: twice what is kept in memory, so that the start is quick whatever
/// lies there.
const ARCHIVE_READ_BYTES_MAX: u64 = 64 << 20;

/// Longest `active`: the names of all sessions and jobs that a daemon may run.
const ACTIVE_BYTES_MAX: u64 = 64 << 20;

/// Lines of the archive that are no longer wanted before it is written anew.
const STALE_LINES_MAX: usize = 1_000;

pub(super) struct Lists {
    dir: PathBuf,
    disk: Disk,
    book: Arc<Book>,
    /// How many ended tasks are kept.
    keep: usize,
    /// Lines of the archive's file that stand for forgotten tasks.
    stale_lines: usize,
}

impl Lists {
    /// Makes the directory, reads the archive into the book, and archives what was active when the daemon died.
    pub(super) fn open(dir: PathBuf, disk: Disk, book: Arc<Book>, keep: usize, clock: &Clock) -> Result<Self> {
        let mut lists = Self { dir, disk, book, keep, stale_lines: 0 };
        lists.make_dir(&lists.dir)?;
        let archive = lists.read_archive()?;
        for line in archive.lines() {
            match split_archive_line(line) {
                Some(listed) => lists.book.end(&listed.upid, line),
                None => lists.stale_lines += 1,
            }
        }
        let active = match lists.disk.read(&lists.dir.join("active"), ACTIVE_BYTES_MAX) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.io_context(|| format!("read {:?}", lists.dir.join("active")))?,
        };
        let active = String::from_utf8_lossy(&active);
        for upid in active.lines().filter_map(|line| line.parse::<Upid>().ok()) {
            if lists.book.ended(&upid).is_none() {
                lists.archive(&upid, &archive_line(&upid, clock.now(), &lists.status_in_log(&upid)))?;
            }
        }
        lists.write_active(Vec::new())?;
        Ok(lists)
    }

    /// Names the running tasks. Atomic but not durable: after a power cut the lists may be old, and [`Self::open`] works from what it
    /// finds.
    pub(super) fn write_active(&self, mut upids: Vec<&String>) -> Result<()> {
        upids.sort();
        let text: String = upids.into_iter().map(|upid| format!("{upid}\n")).collect();
        replace(&self.disk, &self.dir, "active", &text, false)
    }

    /// Adds a task that has ended, to the file and to the book.
    pub(super) fn archive(&self, upid: &Upid, line: &str) -> Result<()> {
        let path = self.dir.join("archive");
        let append = || -> Result<()> {
            let file = self.disk.open_or_create(&path, 0o644).io_context(|| format!("open {path:?}"))?;
            let end = file.meta().io_context(|| format!("stat {path:?}"))?.size_bytes;
            file.write_all_at(format!("{line}\n").as_bytes(), end).io_context(|| format!("write {path:?}"))
        };
        let appended = append();
        // Whether or not the disk took it, the task has ended.
        self.book.end(upid, line);
        appended
    }

    /// Takes the oldest task away, with its log, if there are too many; `false` if there was nothing to do.
    pub(super) fn forget_one(&mut self) -> bool {
        let Some(line) = self.book.forget_oldest(self.keep) else { return false };
        if let Some(listed) = split_archive_line(&line) {
            // A log that is already gone is what is wanted.
            let _ = self.disk.unlink(&self.log_path(&listed.upid));
        }
        self.stale_lines += 1;
        if self.stale_lines >= STALE_LINES_MAX {
            self.rewrite_archive();
        }
        true
    }

    fn rewrite_archive(&mut self) {
        let text: String = self.book.ended_lines().iter().map(|line| format!("{line}\n")).collect();
        // Tried again after another thousand, if it fails.
        self.stale_lines = 0;
        if let Err(error) = replace(&self.disk, &self.dir, "archive", &text, true) {
            tracing::error!(%error, "the list of ended tasks could not be made shorter");
        }
    }

    /// Makes the directory of a task's log and tells the log's path.
    pub(super) fn log_place(&self, upid: &Upid) -> Result<PathBuf> {
        self.make_dir(&self.dir.join(log_dir(upid)))?;
        Ok(self.log_path(upid))
    }

    fn log_path(&self, upid: &Upid) -> PathBuf {
        self.dir.join(log_dir(upid)).join(log_name(upid))
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        match self.disk.mkdir(path, 0o755) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::io(format!("create directory {path:?}"), e))
            }
            _ => Ok(()),
        }
    }

    /// The end of the archive, without a line that a crash cut off: its task is still among the active ones.
    fn read_archive(&self) -> Result<String> {
        let path = self.dir.join("archive");
        let read = || -> io::Result<Vec<u8>> {
            let file = self.disk.open_rw(&path)?;
            let size = file.meta()?.size_bytes;
            let start = size.saturating_sub(ARCHIVE_READ_BYTES_MAX);
            let mut bytes = vec![0; usize::try_from(size - start).unwrap_or(0)];
            file.read_exact_at(&mut bytes, start)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole < bytes.len() {
                file.set_len(start + whole as u64)?;
                bytes.truncate(whole);
            }
            if start > 0 {
                let first = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                bytes.drain(..first);
            }
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(Error::io(format!("read {path:?}"), e)),
        }
    }

    /// What the last line of a log says.
    fn status_in_log(&self, upid: &Upid) -> TaskStatus {
        let tail = || -> io::Result<Vec<u8>> {
            let file = self.disk.open(&self.log_path(upid))?;
            let size = file.meta()?.size_bytes;
            // One line, its time stamp and its end.
            let start = size.saturating_sub(entry::LINE_BYTES_MAX as u64 + 64);
            let mut bytes = vec![0; usize::try_from(size - start).unwrap_or(0)];
            file.read_exact_at(&mut bytes, start)?;
            Ok(bytes)
        };
        let text = tail().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        text.lines()
            .last()
            .and_then(|line| TaskStatus::from_result_line(message_of(line)))
            .unwrap_or(TaskStatus::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;

    fn upid(n: usize) -> Upid {
        format!("UPID:a:00000001:00000001:{n:08X}:66607C8A:backup:x:root@pam:").parse().unwrap()
    }

    fn lists(dir: &Path, keep: usize) -> Lists {
        let clock = Clock::manual(EpochSecs(1));
        Lists::open(dir.to_owned(), Disk::real(), Arc::new(Book::default()), keep, &clock).unwrap()
    }

    fn archived(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join("archive")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn line(n: usize, end: i64, status: &TaskStatus) -> String {
        archive_line(&upid(n), EpochSecs(end), status)
    }

    #[test]
    fn what_a_crash_cut_off_is_archived_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let died = lists(dir.path(), 100);
        for (n, log) in [(0, "x: in the middle\n"), (1, "2026-11-22T18:24:49+00:00: TASK OK\n"), (2, ""), (3, "")] {
            let path = died.log_place(&upid(n)).unwrap();
            std::fs::File::create_new(&path).unwrap();
            died.disk.open_rw(&path).unwrap().write_all_at(log.as_bytes(), 0).unwrap();
        }
        let names: Vec<String> = (0..5).map(|n| upid(n).to_string()).collect();
        died.write_active(names.iter().collect()).unwrap();
        // The third died between the two lists, the fourth in the middle of its archive line, the fifth before it had a log.
        died.archive(&upid(2), &line(2, 7, &TaskStatus::Warnings(2))).unwrap();
        let archive = died.disk.open_rw(&dir.path().join("archive")).unwrap();
        let end = archive.meta().unwrap().size_bytes;
        archive.write_all_at(&line(3, 8, &TaskStatus::Ok).as_bytes()[..70], end).unwrap();
        drop(died);
        let next = lists(dir.path(), 100);
        let want = [
            line(2, 7, &TaskStatus::Warnings(2)),
            line(0, 1, &TaskStatus::Unknown),
            line(1, 1, &TaskStatus::Ok),
            line(3, 1, &TaskStatus::Unknown),
            line(4, 1, &TaskStatus::Unknown),
        ];
        assert_eq!(archived(dir.path()), want);
        assert_eq!(next.book.ended_lines().iter().map(|line| line.to_string()).collect::<Vec<_>>(), want);
        assert_eq!(std::fs::read_to_string(dir.path().join("active")).unwrap(), "");
    }

    #[test]
    fn the_oldest_are_forgotten_with_their_logs() {
        let dir = tempfile::tempdir().unwrap();
        let mut lists = lists(dir.path(), 5);
        let log = lists.log_place(&upid(0)).unwrap();
        std::fs::File::create_new(&log).unwrap();
        for n in 0..5 {
            lists.archive(&upid(n), &line(n, 1, &TaskStatus::Ok)).unwrap();
        }
        assert!(!lists.forget_one(), "five are kept");
        lists.archive(&upid(5), &line(5, 1, &TaskStatus::Ok)).unwrap();
        assert!(log.exists());
        assert!(lists.forget_one());
        assert!(!log.exists());
        assert!(!lists.forget_one());
        assert_eq!(archived(dir.path()).len(), 6, "the file is not written anew for one");
        for n in 6..6 + STALE_LINES_MAX {
            lists.archive(&upid(n), &line(n, 1, &TaskStatus::Ok)).unwrap();
            assert!(lists.forget_one());
        }
        assert!(archived(dir.path()).len() < 10);
        assert_eq!(lists.book.ended_count(), 5);
    }

    /// A crash at every point of the rotation, shown by starting again: nothing that is to be kept is lost, and what is too much goes.
    #[test]
    fn a_start_after_a_rotation_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let kept: Vec<String> = (10..15).map(|n| line(n, 1, &TaskStatus::Ok)).collect();
        for forgotten in [0, 1, 9, 10] {
            let _ = std::fs::remove_file(dir.path().join("archive"));
            let mut died = lists(dir.path(), 5);
            for n in 0..15 {
                died.archive(&upid(n), &line(n, 1, &TaskStatus::Ok)).unwrap();
                let _ = std::fs::File::create_new(died.log_place(&upid(n)).unwrap());
            }
            (0..forgotten).for_each(|_| assert!(died.forget_one()));
            drop(died);
            let mut next = lists(dir.path(), 5);
            while next.forget_one() {}
            next.rewrite_archive();
            assert_eq!(archived(dir.path()), kept, "{forgotten}");
            let logs = (0..15).filter(|n| next.log_path(&upid(*n)).exists()).count();
            assert_eq!(logs, 5, "{forgotten}");
        }
    }
}
