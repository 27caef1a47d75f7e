//! The one thread that writes the files of all tasks.
//!
//! Lines wait in a queue of bounded length; who logs never waits. Starts and ends always get in: there are few, and
//! each belongs to a session that has a limit of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::entry::{self, TaskStatus, archive_line, log_dir, log_line, log_name, message_of};
use crate::clock::Clock;
use crate::engine::{Disk, DiskFile};
use crate::error::{Error, IoContext, Result};
use crate::types::Upid;

/// Most lines of all tasks that wait for the disk: 16 MiB at worst, seconds of the chattiest job at best.
const QUEUED_LINES_MAX: usize = 4096;

/// Longest log of one task; past it only the result is written. A verification that names a million bad chunks fits.
const LOG_BYTES_MAX: u64 = 256 << 20;

/// Longest `active` and `archive` that are read back: 20 000 tasks of the longest names.
const LIST_BYTES_MAX: u64 = 128 << 20;

/// How many ended tasks are kept, with their logs; the oldest go first.
const ARCHIVED_TASKS_MAX: usize = 20_000;

/// How many more may gather before the oldest are removed, so that the archive is not rewritten at every end.
const ARCHIVED_TASKS_SLACK: usize = 1_000;

enum Command {
    Create { upid: Arc<Upid>, done: oneshot::Sender<Result<()>> },
    Line { upid: Arc<Upid>, line: String },
    End { upid: Arc<Upid>, status: TaskStatus, lost_lines: u64, done: oneshot::Sender<()> },
    Flush { done: oneshot::Sender<()> },
}

/// Hands commands to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    commands: Option<mpsc::Sender<Command>>,
    queued_lines: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(dir: PathBuf, disk: Disk, clock: Clock) -> Result<Self> {
        let (commands, queue) = mpsc::channel();
        let queued_lines = Arc::new(AtomicUsize::new(0));
        let mut files = Files { dir: dir.clone(), disk, clock, open: HashMap::new(), archived: 0 };
        files.recover()?;
        let counter = queued_lines.clone();
        let thread = std::thread::Builder::new()
            .name("task-log".to_owned())
            .spawn(move || files.serve(&queue, &counter))
            .io_context(|| "start the thread that writes task logs")?;
        Ok(Self { dir, commands: Some(commands), queued_lines, thread: Some(thread) })
    }

    pub(super) fn log_path(&self, upid: &Upid) -> PathBuf {
        self.dir.join(log_dir(upid)).join(log_name(upid))
    }

    pub(super) async fn create(&self, upid: Arc<Upid>) -> Result<()> {
        let (done, created) = oneshot::channel();
        self.send(Command::Create { upid, done });
        created.await.unwrap_or_else(|_| Err(Error::closed("the writer of task logs has ended")))
    }

    /// `false` if the line was left out, because too many wait for the disk.
    pub(super) fn line(&self, upid: &Arc<Upid>, mut line: String) -> bool {
        if self.queued_lines.fetch_add(1, Ordering::Relaxed) >= QUEUED_LINES_MAX {
            self.queued_lines.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        while line.len() > entry::LINE_BYTES_MAX {
            line.pop();
        }
        self.send(Command::Line { upid: upid.clone(), line });
        true
    }

    pub(super) fn end(&self, upid: Arc<Upid>, status: TaskStatus, lost_lines: u64) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        self.send(Command::End { upid, status, lost_lines, done });
        ended
    }

    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.send(Command::Flush { done });
        let _ = flushed.await;
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // Fails only after the thread has ended, which `drop` alone brings about.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The open log of a running task.
struct Sheet {
    file: DiskFile,
    end: u64,
    full: bool,
}

struct Files {
    dir: PathBuf,
    disk: Disk,
    clock: Clock,
    open: HashMap<String, Sheet>,
    archived: usize,
}

impl Files {
    fn serve(mut self, queue: &mpsc::Receiver<Command>, queued_lines: &AtomicUsize) {
        while let Ok(command) = queue.recv() {
            match command {
                Command::Create { upid, done } => {
                    let _ = done.send(self.create(&upid));
                }
                Command::Line { upid, line } => {
                    queued_lines.fetch_sub(1, Ordering::Relaxed);
                    self.add(&upid, &line);
                }
                Command::End { upid, status, lost_lines, done } => {
                    if lost_lines > 0 {
                        self.add(
                            &upid,
                            &format!("{lost_lines} lines were left out: the disk of the task logs is too slow"),
                        );
                    }
                    self.end(&upid, &status);
                    let _ = done.send(());
                }
                Command::Flush { done } => {
                    let _ = done.send(());
                }
            }
        }
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        match self.disk.mkdir(path, 0o755) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::io(format!("create directory {path:?}"), e))
            }
            _ => Ok(()),
        }
    }

    fn create(&mut self, upid: &Upid) -> Result<()> {
        let dir = self.dir.join(log_dir(upid));
        self.make_dir(&dir)?;
        let path = dir.join(log_name(upid));
        let file = self.disk.create_new(&path, 0o644).io_context(|| format!("create task log {path:?}"))?;
        self.open.insert(upid.to_string(), Sheet { file, end: 0, full: false });
        if let Err(e) = self.write_active() {
            self.open.remove(&upid.to_string());
            return Err(e);
        }
        Ok(())
    }

    fn add(&mut self, upid: &Upid, message: &str) {
        let Some(sheet) = self.open.get_mut(&upid.to_string()).filter(|sheet| !sheet.full) else { return };
        let now = self.clock.now();
        if sheet.end >= LOG_BYTES_MAX {
            sheet.full = true;
            sheet.write(upid, &log_line(now, "the log is full: further lines are left out"));
        } else {
            sheet.write(upid, &log_line(now, message));
        }
    }

    fn end(&mut self, upid: &Upid, status: &TaskStatus) {
        let Some(mut sheet) = self.open.remove(&upid.to_string()) else { return };
        let now = self.clock.now();
        sheet.write(upid, &log_line(now, &status.result_line()));
        // The archive first: a crash in between leaves the task in both lists, and `recover` sorts that out.
        let listed = self.append_archive(&archive_line(upid, now, status)).and_then(|()| self.write_active());
        if let Err(error) = listed {
            tracing::error!(%upid, %error, "the task lists could not be written");
        }
    }

    fn write_active(&self) -> Result<()> {
        let mut upids: Vec<&String> = self.open.keys().collect();
        upids.sort();
        let text: String = upids.into_iter().map(|upid| format!("{upid}\n")).collect();
        self.replace("active", &text)
    }

    /// Atomic but not durable: after a power cut the lists may be old, and `recover` works from what it finds.
    fn replace(&self, name: &str, text: &str) -> Result<()> {
        let (path, new) = (self.dir.join(name), self.dir.join(format!("{name}.tmp")));
        let file = self.disk.open_or_create(&new, 0o644).io_context(|| format!("create {new:?}"))?;
        file.set_len(0)
            .and_then(|()| file.write_all_at(text.as_bytes(), 0))
            .and_then(|()| self.disk.rename(&new, &path))
            .io_context(|| format!("write {path:?}"))
    }

    fn append_archive(&mut self, lines: &str) -> Result<()> {
        let path = self.dir.join("archive");
        let file = self.disk.open_or_create(&path, 0o644).io_context(|| format!("open {path:?}"))?;
        let end = file.meta().io_context(|| format!("stat {path:?}"))?.size_bytes;
        file.write_all_at(lines.as_bytes(), end).io_context(|| format!("write {path:?}"))?;
        self.archived += lines.lines().count();
        if self.archived > ARCHIVED_TASKS_MAX + ARCHIVED_TASKS_SLACK { self.forget_oldest() } else { Ok(()) }
    }

    fn forget_oldest(&mut self) -> Result<()> {
        let archive = self.read("archive")?;
        let lines: Vec<&str> = archive.lines().collect();
        let (old, kept) = lines.split_at(lines.len().saturating_sub(ARCHIVED_TASKS_MAX));
        for upid in old.iter().filter_map(|line| line.split(' ').next()?.parse::<Upid>().ok()) {
            // A log that is already gone is what is wanted.
            let _ = self.disk.unlink(&self.dir.join(log_dir(&upid)).join(log_name(&upid)));
        }
        self.archived = kept.len();
        self.replace("archive", &kept.iter().map(|line| format!("{line}\n")).collect::<String>())
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        match self.disk.read(&path, LIST_BYTES_MAX) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(Error::io(format!("read {path:?}"), e)),
        }
    }

    /// Archives what was active when the daemon died.
    fn recover(&mut self) -> Result<()> {
        self.make_dir(&self.dir.clone())?;
        let archive = self.read("archive")?;
        self.archived = archive.lines().count();
        let mut lines = String::new();
        for upid in self.read("active")?.lines().filter_map(|line| line.parse::<Upid>().ok()) {
            let listed = format!("{upid} ");
            if !archive.lines().any(|line| line.starts_with(&listed)) {
                lines.push_str(&archive_line(&upid, self.clock.now(), &self.status_in_log(&upid)));
            }
        }
        if !lines.is_empty() {
            self.append_archive(&lines)?;
        }
        self.write_active()
    }

    /// What the last line of a log says.
    fn status_in_log(&self, upid: &Upid) -> TaskStatus {
        let path = self.dir.join(log_dir(upid)).join(log_name(upid));
        let tail = || -> std::io::Result<Vec<u8>> {
            let file = self.disk.open(&path)?;
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

impl Sheet {
    fn write(&mut self, upid: &Upid, line: &str) {
        let bytes = format!("{line}\n");
        match self.file.write_all_at(bytes.as_bytes(), self.end) {
            Ok(()) => self.end += bytes.len() as u64,
            // The task goes on: its work is worth more than its log.
            Err(error) => tracing::error!(%upid, %error, "a line of a task log was lost: {line:.200}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;

    #[tokio::test]
    async fn a_flood_of_lines_never_blocks_and_keeps_the_result() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::start(dir.path().to_owned(), Disk::real(), Clock::system()).unwrap();
        let upid = Arc::new(upid(1));
        writer.create(upid.clone()).await.unwrap();
        let all = 3 * QUEUED_LINES_MAX;
        let lost = (0..all).filter(|i| !writer.line(&upid, format!("line {i}"))).count();
        writer.end(upid.clone(), TaskStatus::Ok, lost as u64).await.unwrap();
        let log = std::fs::read_to_string(writer.log_path(&upid)).unwrap();
        assert!(log.lines().last().unwrap().ends_with(": TASK OK"));
        assert_eq!(log.lines().filter(|line| line.contains(": line ")).count(), all - lost);
        assert_eq!(log.contains("lines were left out"), lost > 0);
        assert_eq!(writer.queued_lines.load(Ordering::Relaxed), 0);
    }

    fn upid(n: usize) -> Upid {
        format!("UPID:a:00000001:00000001:{n:08X}:66607C8A:backup:x:root@pam:").parse().unwrap()
    }

    fn files(dir: &Path) -> Files {
        let clock = Clock::manual(EpochSecs(1));
        Files { dir: dir.to_owned(), disk: Disk::real(), clock, open: HashMap::new(), archived: 0 }
    }

    #[test]
    fn what_a_crash_cut_off_is_archived_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut died = files(dir.path());
        died.recover().unwrap();
        for n in 0..3 {
            died.create(&upid(n)).unwrap();
        }
        died.add(&upid(0), "in the middle");
        // The second died between its result and the lists, the third between the two lists.
        died.open.get_mut(&upid(1).to_string()).unwrap().write(&upid(1), &log_line(EpochSecs(1), "TASK OK"));
        died.append_archive(&archive_line(&upid(2), EpochSecs(7), &TaskStatus::Warnings(2))).unwrap();
        drop(died);
        let mut next = files(dir.path());
        next.recover().unwrap();
        let archive = next.read("archive").unwrap();
        let mut lines: Vec<&str> = archive.lines().collect();
        lines.sort_unstable();
        let want = [(0, 1, "unknown"), (1, 1, "OK"), (2, 7, "WARNINGS: 2")]
            .map(|(n, end, status)| format!("{} {end:08X} {status}", upid(n)));
        assert_eq!(lines, want);
        assert_eq!(next.read("active").unwrap(), "");
    }

    #[test]
    fn the_oldest_tasks_are_forgotten_with_their_logs() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path());
        files.create(&upid(0)).unwrap();
        files.end(&upid(0), &TaskStatus::Ok);
        let lines: String = (1..ARCHIVED_TASKS_MAX + ARCHIVED_TASKS_SLACK)
            .map(|n| archive_line(&upid(n), EpochSecs(1), &TaskStatus::Ok))
            .collect();
        files.append_archive(&lines).unwrap();
        let log = dir.path().join(log_dir(&upid(0))).join(log_name(&upid(0)));
        assert!(log.exists());
        files.append_archive(&archive_line(&upid(99_999), EpochSecs(1), &TaskStatus::Ok)).unwrap();
        assert!(!log.exists());
        assert_eq!(files.read("archive").unwrap().lines().count(), ARCHIVED_TASKS_MAX);
    }
}
