//! Starts tasks, hands out their logs, remembers which are running.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::book::{Book, Walk};
use super::entry::TaskStatus;
use super::history::{Draft, Run, RunKind};
use super::log_reader::{LogReader, TaskLog};
use super::writer::{Ending, Writer};
use crate::clock::{Clock, EpochSecs};
use crate::engine::Disk;
use crate::error::{IoContext, Kind, Result};
use crate::metrics::{TaskMetrics, TaskResult};
use crate::sync::Mutex;
use crate::types::{AuthId, DatastoreName, Upid};

/// How many ended tasks are kept, with their logs, unless the configuration says otherwise; the oldest go first.
pub const ENDED_TASKS_KEPT: usize = 20_000;

/// All tasks of a daemon. A cheap clone.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    node: String,
    pid: u32,
    pstart: u64,
    next_id: AtomicU64,
    writer: Writer,
    reader: LogReader,
    book: Arc<Book>,
    metrics: TaskMetrics,
}

/// Whether a task runs, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It runs.
    Running,
    /// It has ended.
    Ended(EpochSecs, TaskStatus),
}

impl Registry {
    /// Opens the task directory `dir` and keeps as many ended tasks as is usual, see [`Self::open_keeping`].
    pub fn open(dir: &Path, clock: Clock) -> Result<Self> {
        Self::open_keeping(dir, clock, ENDED_TASKS_KEPT)
    }

    /// Opens the task directory `dir`, making it where it is missing. Tasks that a crash cut off are archived, with
    /// the result that their log shows, else as `unknown`. The newest `keep` ended tasks are kept.
    /// Blocks; call it before the runtime serves.
    pub fn open_keeping(dir: &Path, clock: Clock, keep: usize) -> Result<Self> {
        let book = Arc::new(Book::default());
        let writer = Writer::start(dir.to_owned(), Disk::real(), clock.clone(), book.clone(), keep)?;
        let inner = Inner {
            clock,
            node: node_name(),
            pid: std::process::id(),
            pstart: process_start()?,
            next_id: AtomicU64::new(1),
            writer,
            reader: LogReader::start(Disk::real())?,
            book,
            metrics: TaskMetrics::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts a task: its log exists when this returns, unless the disk refused it; then the task runs without one.
    pub async fn start(&self, worker_type: &str, worker_id: Option<String>, auth: &AuthId) -> Result<Task> {
        let upid = Arc::new(Upid {
            node: self.inner.node.clone(),
            pid: self.inner.pid,
            pstart: self.inner.pstart,
            task_id: self.inner.next_id.fetch_add(1, Ordering::Relaxed),
            start: self.inner.clock.now(),
            worker_type: worker_type.to_owned(),
            worker_id,
            auth_id: auth.clone(),
        });
        match self.inner.writer.create(upid.clone()).await {
            Err(e) if e.kind() == Kind::Closed => return Err(e),
            // A full disk must keep nobody from restoring, nor from what makes room.
            Err(error) => tracing::error!(%upid, %error, "a task runs without a log"),
            Ok(()) => {}
        }
        let (abort, _) = watch::channel(false);
        self.inner.book.begin(upid.clone(), abort.clone());
        self.inner.metrics.task_started(worker_type);
        tracing::info!(%upid, "task started");
        Ok(Task {
            registry: self.inner.clone(),
            upid,
            abort,
            warnings: AtomicU64::new(0),
            lost_lines: AtomicU64::new(0),
            run: Mutex::new(None),
            ended: false,
        })
    }

    /// Asks a running task to stop; `false` if none of that name runs.
    pub fn abort(&self, upid: &Upid) -> bool {
        self.inner.book.abort(upid)
    }

    /// What is counted about tasks.
    pub fn metrics(&self) -> &TaskMetrics {
        &self.inner.metrics
    }

    /// How many tasks run.
    pub fn running_count(&self) -> usize {
        self.inner.book.running_count()
    }

    /// Begins a walk over all tasks: running ones, the newest first, then the one that ended last, and so on.
    pub fn walk(&self) -> Walk {
        self.inner.book.walk()
    }

    /// Whether a task runs, or how it ended; `None` for one that is not known, or forgotten.
    pub fn state(&self, upid: &Upid) -> Option<TaskState> {
        if self.inner.book.is_running(upid) {
            return Some(TaskState::Running);
        }
        self.inner.book.ended(upid).map(|(end, status)| TaskState::Ended(end, status))
    }

    /// Opens a task's log to read it as it is now.
    pub async fn log(&self, upid: &Upid) -> Result<TaskLog> {
        // Before the file is looked at: a log whose task had ended by then is whole.
        let active = self.inner.book.is_running(upid);
        self.inner.reader.open(upid, self.log_path(upid), active).await
    }

    /// What the jobs of a datastore came to, the run that ended last at the end; of each kind the last [`super::RUNS_KEPT`].
    pub async fn history(&self, store: &DatastoreName) -> Result<Vec<Run>> {
        self.inner.writer.history(store.clone()).await
    }

    /// Path of a task's log, running or ended.
    pub fn log_path(&self, upid: &Upid) -> PathBuf {
        self.inner.writer.log_path(upid)
    }

    /// Waits until everything logged so far is in its file.
    pub async fn flush(&self) {
        self.inner.writer.flush().await;
    }
}

/// A running task. Dropped without [`Task::end`], it ends with an error.
#[derive(Debug)]
pub struct Task {
    registry: Arc<Inner>,
    upid: Arc<Upid>,
    abort: watch::Sender<bool>,
    warnings: AtomicU64,
    lost_lines: AtomicU64,
    run: Mutex<Option<Draft>>,
    ended: bool,
}

impl Task {
    /// The task's name.
    pub fn upid(&self) -> &Upid {
        &self.upid
    }

    /// Adds a line to the log. Never blocks; a line that the writer cannot take in time is left out and counted.
    pub fn log(&self, line: impl Into<String>) {
        if !self.registry.writer.line(&self.upid, line.into()) {
            self.lost_lines.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds a line that also counts for the result `WARNINGS: n`.
    pub fn warn(&self, line: impl Into<String>) {
        self.warnings.fetch_add(1, Ordering::Relaxed);
        self.log(format!("WARN: {}", line.into()));
    }

    /// This task is a run of that kind, which the history of the datastore will show when it has ended.
    pub fn is_run_of(&self, store: &DatastoreName, kind: RunKind) {
        *self.run.lock() = Some(Draft { store: store.clone(), kind, figures: Value::Null });
    }

    /// What it came to so far, an object of numbers for the history.
    pub fn figures(&self, figures: &impl Serialize) {
        if let Some(run) = self.run.lock().as_mut() {
            run.figures = serde_json::to_value(figures).unwrap_or_default();
        }
    }

    /// Ends the task with its result, and waits until that is in the log.
    pub async fn end(mut self, result: Result<(), String>) {
        if let Some(written) = self.finish(result) {
            // The writer ends only when the daemon does; then there is nothing left to wait for.
            let _ = written.await;
        }
    }

    /// Resolves when somebody asks this task to stop; never for one that is left alone.
    pub fn aborted(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut requests = self.abort.subscribe();
        async move {
            if requests.wait_for(|asked| *asked).await.is_err() {
                // The task is gone, so nobody can ask any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether somebody has asked this task to stop; for work that cannot wait for [`Self::aborted`].
    pub fn is_aborted(&self) -> bool {
        *self.abort.borrow()
    }

    fn finish(&mut self, result: Result<(), String>) -> Option<tokio::sync::oneshot::Receiver<()>> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        let status = match (result, self.warnings.load(Ordering::Relaxed)) {
            (Err(text), _) => TaskStatus::Error(text),
            (Ok(()), 0) => TaskStatus::Ok,
            (Ok(()), count) => TaskStatus::Warnings(count),
        };
        tracing::info!(upid = %self.upid, %status, "task ended");
        let result = match &status {
            TaskStatus::Ok => TaskResult::Ok,
            TaskStatus::Warnings(_) => TaskResult::Warnings,
            TaskStatus::Error(_) | TaskStatus::Unknown => TaskResult::Error,
        };
        self.registry.metrics.task_ended(&self.upid.worker_type, result, self.registry.clock.now());
        let ending =
            Ending { status, lost_lines: self.lost_lines.load(Ordering::Relaxed), run: self.run.lock().take() };
        Some(self.registry.writer.end(self.upid.clone(), ending))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.finish(Err("the task was dropped before it ended".to_owned()));
    }
}

/// The host name up to its first dot, made fit for a UPID.
fn node_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let first = name.split('.').next().unwrap_or("");
    let node: String = first.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let node = node.trim_matches('-');
    if node.is_empty() { "localhost".to_owned() } else { node.to_owned() }
}

/// Field 22 of `/proc/self/stat`: when this process began, in clock ticks since boot. See proc(5).
fn process_start() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").io_context(|| "read \"/proc/self/stat\"")?;
    // The second field, the command in parentheses, may hold spaces and parentheses.
    let after_command = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_command.split_ascii_whitespace().nth(19).and_then(|text| text.parse().ok());
    Ok(field.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;

    fn admin() -> AuthId {
        "admin@pbs!default".parse().unwrap()
    }

    fn messages(registry: &Registry, upid: &Upid) -> Vec<String> {
        let text = std::fs::read_to_string(registry.log_path(upid)).unwrap();
        text.lines().map(|line| line[27..].to_owned()).collect()
    }

    #[tokio::test]
    async fn a_task_leaves_a_log_and_an_archive_line() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path(), Clock::manual(EpochSecs(0x6660_7C8A))).unwrap();
        let task = registry.start("backup", Some("main:host/a".into()), &admin()).await.unwrap();
        let upid = task.upid().clone();
        assert_eq!(std::fs::read_to_string(dir.path().join("active")).unwrap(), format!("{upid}\n"));
        assert_eq!(registry.running_count(), 1);
        task.log("starting\nwith two lines");
        task.end(Ok(())).await;
        assert_eq!(messages(&registry, &upid), ["starting with two lines", "TASK OK"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("active")).unwrap(), "");
        assert_eq!(std::fs::read_to_string(dir.path().join("archive")).unwrap(), format!("{upid} 66607C8A OK\n"));
        assert_eq!(registry.running_count(), 0);
        assert_eq!(upid.to_string().parse::<Upid>().unwrap(), upid);
    }

    /// As on a full disk: what makes room runs as a task too.
    #[tokio::test]
    async fn a_task_whose_log_cannot_be_made_runs_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("tasks");
        let registry = Registry::open(&place, Clock::system()).unwrap();
        for entry in std::fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
        }
        std::fs::remove_dir(&place).unwrap();
        let task = registry.start("garbage_collection", None, &admin()).await.unwrap();
        let upid = task.upid().clone();
        assert_eq!(registry.running_count(), 1);
        task.log("nobody will read this");
        std::fs::create_dir(&place).unwrap();
        task.end(Ok(())).await;
        assert_eq!(registry.running_count(), 0);
        let archive = std::fs::read_to_string(place.join("archive")).unwrap();
        assert!(archive.starts_with(&upid.to_string()) && archive.ends_with(" OK\n"), "{archive}");
    }

    #[tokio::test]
    async fn every_way_to_end() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path(), Clock::system()).unwrap();
        let warned = registry.start("verify", None, &admin()).await.unwrap();
        let warned_upid = warned.upid().clone();
        warned.warn("one");
        warned.end(Ok(())).await;
        assert_eq!(messages(&registry, &warned_upid), ["WARN: one", "TASK WARNINGS: 1"]);
        let failed = registry.start("backup", None, &admin()).await.unwrap();
        let failed_upid = failed.upid().clone();
        failed.end(Err("disk\nfull".into())).await;
        assert_eq!(messages(&registry, &failed_upid), ["TASK ERROR: disk full"]);
        let dropped = registry.start("backup", None, &admin()).await.unwrap();
        let dropped_upid = dropped.upid().clone();
        drop(dropped);
        registry.flush().await;
        assert_eq!(messages(&registry, &dropped_upid), ["TASK ERROR: the task was dropped before it ended"]);
    }

    #[tokio::test]
    async fn a_task_hears_that_it_shall_stop() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path(), Clock::system()).unwrap();
        let task = registry.start("backup", None, &admin()).await.unwrap();
        let aborted = task.aborted();
        assert!(registry.abort(task.upid()));
        aborted.await;
        let upid = task.upid().clone();
        task.end(Err("aborted".into())).await;
        assert!(!registry.abort(&upid));
    }
}
