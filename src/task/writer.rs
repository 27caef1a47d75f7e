//! The one thread that writes the files of all tasks.
//!
//! Lines wait in a queue of bounded length; who logs never waits. Starts and ends always get in: there are few, and
//! each belongs to a session that has a limit of its own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::book::Book;
use super::entry::{self, TaskStatus, archive_line, log_dir, log_line, log_name};
use super::history::{Draft, Histories, Run};
use super::lists::Lists;
use crate::clock::Clock;
use crate::engine::{Disk, DiskFile};
use crate::error::{Error, IoContext, Result};
use crate::types::{DatastoreName, Upid};

/// Most lines of all tasks that wait for the disk: 16 MiB at worst, seconds of the chattiest job at best.
const QUEUED_LINES_MAX: usize = 4096;

/// Longest log of one task; past it only the result is written. A verification that names a million bad chunks fits.
const LOG_BYTES_MAX: u64 = 256 << 20;

enum Command {
    Create { upid: Arc<Upid>, done: oneshot::Sender<Result<()>> },
    Line { upid: Arc<Upid>, line: String },
    End { upid: Arc<Upid>, ending: Ending, done: oneshot::Sender<()> },
    History { store: DatastoreName, done: oneshot::Sender<Result<Vec<Run>>> },
    Flush { done: oneshot::Sender<()> },
}

/// How a task ends.
pub(super) struct Ending {
    pub(super) status: TaskStatus,
    pub(super) lost_lines: u64,
    /// For the history of its datastore.
    pub(super) run: Option<Draft>,
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
    /// Reads the archive into `book` and starts the thread, which keeps `keep` ended tasks.
    pub(super) fn start(dir: PathBuf, disk: Disk, clock: Clock, book: Arc<Book>, keep: usize) -> Result<Self> {
        let (commands, queue) = mpsc::channel();
        let queued_lines = Arc::new(AtomicUsize::new(0));
        let lists = Lists::open(dir.clone(), disk.clone(), book, keep, &clock)?;
        let histories = Histories::new(dir.join("history"), disk.clone());
        let files = Files { lists, histories, disk, clock, open: HashMap::new() };
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

    pub(super) fn end(&self, upid: Arc<Upid>, ending: Ending) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        self.send(Command::End { upid, ending, done });
        ended
    }

    /// The runs of a datastore, the one that ended last at the end.
    pub(super) async fn history(&self, store: DatastoreName) -> Result<Vec<Run>> {
        let (done, listed) = oneshot::channel();
        self.send(Command::History { store, done });
        listed.await.unwrap_or_else(|_| Err(Error::closed("the writer of task logs has ended")))
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
    lists: Lists,
    histories: Histories,
    disk: Disk,
    clock: Clock,
    open: HashMap<String, Sheet>,
}

impl Files {
    fn serve(mut self, queue: &mpsc::Receiver<Command>, queued_lines: &AtomicUsize) {
        while let Some(command) = self.next(queue) {
            match command {
                Command::Create { upid, done } => {
                    let _ = done.send(self.create(&upid));
                }
                Command::Line { upid, line } => {
                    queued_lines.fetch_sub(1, Ordering::Relaxed);
                    self.add(&upid, &line);
                }
                Command::End { upid, ending: Ending { status, lost_lines, run }, done } => {
                    if lost_lines > 0 {
                        self.add(
                            &upid,
                            &format!("{lost_lines} lines were left out: the disk of the task logs is too slow"),
                        );
                    }
                    // The run first: whoever sees that the task has ended finds what it came to.
                    run.into_iter().for_each(|run| self.note(&upid, &status, run));
                    self.end(&upid, &status);
                    let _ = done.send(());
                    // However busy the thread is, the list does not grow: one came, at least one goes.
                    self.lists.forget_one();
                }
                Command::History { store, done } => {
                    let _ = done.send(self.histories.list(&store));
                }
                Command::Flush { done } => {
                    let _ = done.send(());
                }
            }
        }
    }

    /// The next command. While there is none, old tasks are forgotten one at a time.
    fn next(&mut self, queue: &mpsc::Receiver<Command>) -> Option<Command> {
        loop {
            match queue.try_recv() {
                Ok(command) => return Some(command),
                Err(mpsc::TryRecvError::Disconnected) => return None,
                Err(mpsc::TryRecvError::Empty) if self.lists.forget_one() => {}
                Err(mpsc::TryRecvError::Empty) => return queue.recv().ok(),
            }
        }
    }

    /// The list first: a crash in between leaves a task that is known and has no log, not a log that nobody knows.
    fn create(&mut self, upid: &Upid) -> Result<()> {
        let name = upid.to_string();
        self.lists.write_active(self.open.keys().chain([&name]).collect())?;
        let create = || -> Result<DiskFile> {
            let path = self.lists.log_place(upid)?;
            self.disk.create_new(&path, 0o644).io_context(|| format!("create task log {path:?}"))
        };
        match create() {
            Ok(file) => {
                self.open.insert(name, Sheet { file, end: 0, full: false });
                Ok(())
            }
            Err(e) => {
                self.lists.write_active(self.open.keys().collect())?;
                Err(e)
            }
        }
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

    fn note(&mut self, upid: &Upid, status: &TaskStatus, run: Draft) {
        let store = run.store.clone();
        if let Err(error) = self.histories.add(&store, &run.ended(upid, self.clock.now(), status)) {
            tracing::error!(%upid, %error, "the history of a datastore could not be written");
        }
    }

    fn end(&mut self, upid: &Upid, status: &TaskStatus) {
        let now = self.clock.now();
        if let Some(mut sheet) = self.open.remove(&upid.to_string()) {
            sheet.write(upid, &log_line(now, &status.result_line()));
        }
        // The archive first: a crash in between leaves the task in both lists, and the next start sorts that out.
        let archived = self.lists.archive(upid, &archive_line(upid, now, status));
        if let Err(error) = archived.and_then(|()| self.lists.write_active(self.open.keys().collect())) {
            tracing::error!(%upid, %error, "the task lists could not be written");
        }
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

    #[tokio::test]
    async fn a_flood_of_lines_never_blocks_and_keeps_the_result() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::start(dir.path().to_owned(), Disk::real(), Clock::system(), Arc::default(), 10).unwrap();
        let upid = Arc::new(upid(1));
        writer.create(upid.clone()).await.unwrap();
        let all = 3 * QUEUED_LINES_MAX;
        let lost = (0..all).filter(|i| !writer.line(&upid, format!("line {i}"))).count();
        let ending = Ending { status: TaskStatus::Ok, lost_lines: lost as u64, run: None };
        writer.end(upid.clone(), ending).await.unwrap();
        let log = std::fs::read_to_string(writer.log_path(&upid)).unwrap();
        assert!(log.lines().last().unwrap().ends_with(": TASK OK"));
        assert_eq!(log.lines().filter(|line| line.contains(": line ")).count(), all - lost);
        assert_eq!(log.contains("lines were left out"), lost > 0);
        assert_eq!(writer.queued_lines.load(Ordering::Relaxed), 0);
    }

    fn upid(n: usize) -> Upid {
        format!("UPID:a:00000001:00000001:{n:08X}:66607C8A:backup:x:root@pam:").parse().unwrap()
    }

    #[tokio::test]
    async fn old_tasks_are_forgotten_while_nothing_else_is_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (book, clock) = (Arc::new(Book::default()), Clock::system());
        let lines: String = (0..50).map(|n| format!("{} 66607C8A OK\n", upid(n))).collect();
        Disk::real().create_new(&dir.path().join("archive"), 0o644).unwrap().write_all_at(lines.as_bytes(), 0).unwrap();
        let writer = Writer::start(dir.path().to_owned(), Disk::real(), clock, book.clone(), 10).unwrap();
        assert!(book.ended_count() > 0);
        while book.ended_count() > 10 {
            tokio::task::yield_now().await;
        }
        let newest = book.ended_lines().pop().unwrap();
        assert_eq!(*newest, *format!("{} 66607C8A OK", upid(49)));
        writer.flush().await;
        assert_eq!(book.ended_count(), 10);
    }
}
