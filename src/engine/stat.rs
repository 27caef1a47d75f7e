//! The engine: batches of presence checks, and a bounded pool for blocking file work.
//! (First form: everything on the pool. The ring replaces the inside, not the face.)

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::{Disk, FileKind};
use crate::error::{Error, Result};
use crate::sync::note_disk_work;

/// Which engine an operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The ring where the kernel grants one, else threads with a warning; warm batches inline.
    #[default]
    Auto,
    /// Every check through the ring; refuses to start where the kernel refuses a ring.
    Uring,
    /// Every check on the thread pool.
    Threads,
    /// One check after another.
    Sync,
}

/// How an engine is built.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which one.
    pub choice: EngineChoice,
    /// Most checks that the kernel's workers (or our threads) have in flight, 1 to 256.
    pub workers: u32,
    /// Threads for blocking file work.
    pub io_threads: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { choice: EngineChoice::Auto, workers: 64, io_threads: 16 }
    }
}

/// Who waits for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A client's append: ahead of everything else.
    Interactive,
    /// Finish, preflight, jobs.
    Sweep,
}

/// A path relative to the batch's directory, at most 71 bytes, kept inline and NUL-terminated for the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StatName {
    bytes: [u8; 72],
}

impl StatName {
    /// `None` if longer than 71 bytes or with a NUL inside.
    pub fn new(path: &str) -> Option<Self> {
        let mut bytes = [0; 72];
        if path.len() >= bytes.len() || path.bytes().any(|b| b == 0) {
            return None;
        }
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        Some(Self { bytes })
    }

    /// The path as the kernel reads it.
    pub fn as_c_str(&self) -> &std::ffi::CStr {
        std::ffi::CStr::from_bytes_until_nul(&self.bytes).expect("the last byte is always NUL")
    }
}

impl fmt::Debug for StatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_c_str().fmt(f)
    }
}

/// Checks to be made together. Nothing is held while they are made but `dir`.
#[derive(Debug)]
pub struct StatBatch {
    /// The directory that names are relative to.
    pub dir: Arc<OwnedFd>,
    /// What to look at; symbolic links are followed.
    pub names: Vec<StatName>,
    /// Whom it serves.
    pub class: Class,
    /// Ask the server of a network file system rather than its cache (`AT_STATX_FORCE_SYNC`).
    pub force_sync: bool,
}

/// What `statx` says, mask type and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// `stx_size`.
    pub size_bytes: u64,
}

/// Answers in the order of the batch's names; an error is the kernel's number.
#[derive(Debug)]
pub struct StatReply {
    /// One per name.
    pub results: Vec<std::result::Result<FileStat, rustix::io::Errno>>,
    /// From submission to the last answer.
    pub elapsed: Duration,
}

/// What an engine has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Batches answered, by class.
    pub batches_interactive: u64,
    /// Batches answered, by class.
    pub batches_sweep: u64,
    /// `statx` asked for, all ways together.
    pub statx: u64,
    /// Of these: answered inline by a plain system call.
    pub statx_inline: u64,
    /// Of these: answered from the kernel's name cache without waiting.
    pub statx_cached: u64,
    /// Of these: through the ring.
    pub statx_ring: u64,
    /// Of these: by the thread pool.
    pub statx_pool: u64,
    /// Pieces of blocking file work done.
    pub jobs: u64,
}

/// A handle on one datastore's engine; cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    disk: Disk,
}

impl Engine {
    /// Starts the threads of an engine for the datastore `name` and says which one it became.
    pub fn start(name: &str, config: &EngineConfig) -> Result<Self> {
        Self::start_on(name, config, Disk::real())
    }

    /// As [`Self::start`], with `disk` for what [`Self::run`] does (tests inject faults with it).
    pub fn start_on(name: &str, config: &EngineConfig, disk: Disk) -> Result<Self> {
        let _ = (name, config);
        Ok(Self { disk })
    }

    /// `uring`, `threads` or `sync`.
    pub fn kind(&self) -> &'static str {
        "threads"
    }

    /// Why a wanted ring was not had, if so.
    pub fn fallback_reason(&self) -> Option<&str> {
        None
    }

    /// What was done so far.
    pub fn counters(&self) -> EngineCounters {
        EngineCounters::default()
    }

    /// Does blocking file work on the pool. `Closed` once the engine is shut down; a panic of `work` comes back as `Io`.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> T + Send + 'static) -> Result<T> {
        note_disk_work("run");
        let disk = self.disk.clone();
        let (tx, rx) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || tx.send(work(&disk)));
        rx.await.map_err(|_| Error::closed("file work was cut off"))
    }

    /// Gives blocking file work to the pool and does not wait for it: what a `Drop` does, which cannot wait. It needs no place in
    /// the queue and no runtime. Work given after the shutdown is dropped undone.
    pub fn detach(&self, work: impl FnOnce(&Disk) + Send + 'static) {
        let disk = self.disk.clone();
        std::thread::spawn(move || work(&disk));
    }

    /// Makes all checks of a batch. A dropped future does not stop them, only the answer is lost.
    pub async fn stat(&self, batch: StatBatch) -> Result<StatReply> {
        let started = Instant::now();
        let results = self
            .run(move |_| {
                let mask = rustix::fs::StatxFlags::TYPE | rustix::fs::StatxFlags::SIZE;
                let sync = if batch.force_sync {
                    rustix::fs::AtFlags::STATX_FORCE_SYNC
                } else {
                    rustix::fs::AtFlags::STATX_DONT_SYNC
                };
                let one = |name: &StatName| {
                    let s = rustix::fs::statx(&batch.dir, name.as_c_str(), sync, mask)?;
                    let kind = match rustix::fs::FileType::from_raw_mode(u32::from(s.stx_mode)) {
                        rustix::fs::FileType::RegularFile => FileKind::File,
                        rustix::fs::FileType::Directory => FileKind::Dir,
                        _ => FileKind::Other,
                    };
                    Ok(FileStat { kind, size_bytes: s.stx_size })
                };
                batch.names.iter().map(one).collect()
            })
            .await?;
        Ok(StatReply { results, elapsed: started.elapsed() })
    }

    /// Ends all threads after the work under way is done; later calls answer `Closed`. Blocks: not for a runtime thread.
    pub fn shutdown(&self) {}
}
