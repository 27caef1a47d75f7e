//! The lock on `BASE/.lock` that tells other processes of a datastore what this one does (spec 01 §4.1).
//!
//! Shared while a backup runs, exclusive while chunks are collected; within this process both may be held at once. It is a POSIX record
//! lock, as that of the original, and such a lock vanishes when *any* descriptor of the file is closed by the process. So the file is opened
//! once per process, however often the datastore is opened ([`open`]), and nobody else may open it.
//!
//! A change of what is held is one system call that answers at once; the changes are put in order by an asynchronous lock, since a
//! release that overtakes an acquisition would leave a backup without its share.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock, Weak};

use tokio::runtime::Handle;

use super::custody::Custody;
use super::explain::failed;
use crate::clock::EpochSecs;
use crate::engine::{Disk, DiskFile, Engine, RecordLock};
use crate::error::{Error, Result};
use crate::sync::Mutex;

/// Mode of the lock file (spec 01 §1.2).
pub(super) const LOCK_FILE_MODE: u32 = 0o644;

/// One datastore's lock in this process.
#[derive(Debug)]
pub(super) struct ProcessLock {
    path: PathBuf,
    file: OnceLock<Arc<DiskFile>>,
    holders: Mutex<Holders>,
    /// What writers and garbage collection agree on: it belongs to the directory as the lock does.
    pub(super) custody: Arc<Custody>,
    /// Held while a change is made; goes with the work, so that an abandoned change still keeps its turn.
    change: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Holders {
    /// Shares by number, with the time since when.
    shares: BTreeMap<u64, EpochSecs>,
    next: u64,
    exclusive: bool,
}

impl Holders {
    fn wanted(&self) -> RecordLock {
        match (self.exclusive, self.shares.is_empty()) {
            (true, _) => RecordLock::Exclusive,
            (false, false) => RecordLock::Shared,
            (false, true) => RecordLock::Unlocked,
        }
    }
}

/// Device and inode of a datastore's directory, which may be reached by several paths.
type DirId = (u64, u64);

/// All locks of this process.
static OPEN: LazyLock<Mutex<HashMap<DirId, Weak<ProcessLock>>>> = LazyLock::new(Mutex::default);

/// The lock of the file at `path`, the same one for everybody in this process. The file itself is opened with the first share.
pub(super) fn open(disk: &Disk, path: &Path) -> io::Result<Arc<ProcessLock>> {
    let dir = disk.stat(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
    let key = (dir.dev, dir.ino);
    let mut table = OPEN.lock();
    table.retain(|_, lock| lock.strong_count() > 0);
    if let Some(lock) = table.get(&key).and_then(Weak::upgrade) {
        return Ok(lock);
    }
    let lock = Arc::new(ProcessLock {
        path: path.to_owned(),
        file: OnceLock::new(),
        holders: Mutex::default(),
        custody: Arc::default(),
        change: Arc::default(),
    });
    table.insert(key, Arc::downgrade(&lock));
    Ok(lock)
}

/// Whether somebody in this process still has the lock of the datastore at `base`.
#[cfg(test)]
pub(super) fn is_open(base: &Path) -> bool {
    let dir = Disk::real().stat(base).unwrap();
    OPEN.lock().get(&(dir.dev, dir.ino)).is_some_and(|lock| lock.strong_count() > 0)
}

impl ProcessLock {
    /// Takes a share from `now` on. Busy if another process collects garbage here.
    pub(super) async fn share(self: &Arc<Self>, engine: &Engine, now: EpochSecs) -> Result<Share> {
        let number = {
            let mut holders = self.holders.lock();
            holders.next += 1;
            let number = holders.next;
            holders.shares.insert(number, now);
            number
        };
        let share = Share { hold: Some(Hold::new(self, engine, Some(number))) };
        match self.settle(engine).await {
            Ok(()) => Ok(share),
            Err(e) => {
                share.release().await;
                Err(e)
            }
        }
    }

    /// Takes the exclusive lock, for as long as no other process works on this datastore. Shares of this process may go on.
    pub(super) async fn exclude(self: &Arc<Self>, engine: &Engine) -> Result<Exclusion> {
        if std::mem::replace(&mut self.holders.lock().exclusive, true) {
            return Err(Error::busy("the datastore is locked by another job of this daemon"));
        }
        let exclusion = Exclusion { hold: Some(Hold::new(self, engine, None)) };
        match self.settle(engine).await {
            Ok(()) => Ok(exclusion),
            Err(e) => {
                exclusion.release().await;
                Err(e)
            }
        }
    }

    /// Since when the oldest share is held: what is younger than that may belong to a backup that is not finished.
    pub(super) fn oldest_share(&self) -> Option<EpochSecs> {
        self.holders.lock().shares.values().min().copied()
    }

    /// Makes what is held what is wanted.
    async fn settle(self: &Arc<Self>, engine: &Engine) -> Result<()> {
        let turn = Arc::clone(&self.change).lock_owned().await;
        let lock = Arc::clone(self);
        engine
            .run(move |disk| {
                let _turn = turn;
                let wanted = lock.holders.lock().wanted();
                if wanted == RecordLock::Unlocked && lock.file.get().is_none() {
                    return Ok(());
                }
                let file = lock.file(disk).map_err(|e| failed("unable to open the process lock", &lock.path, e))?;
                file.try_record_lock(wanted).map_err(|e| match e.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied => Error::busy(format!(
                        "unable to get the {} process lock on {:?} - another process uses this datastore",
                        if wanted == RecordLock::Shared { "shared" } else { "exclusive" },
                        lock.path
                    )),
                    _ => failed("unable to change the process lock on", &lock.path, e),
                })
            })
            .await?
    }

    fn file(&self, disk: &Disk) -> io::Result<Arc<DiskFile>> {
        if let Some(file) = self.file.get() {
            return Ok(Arc::clone(file));
        }
        // Only one change at a time comes here, so the file is not opened twice, nor closed.
        let file = Arc::new(disk.open_or_create(&self.path, LOCK_FILE_MODE)?);
        Ok(Arc::clone(self.file.get_or_init(|| file)))
    }

    fn forget(&self, share: Option<u64>) {
        let mut holders = self.holders.lock();
        match share {
            Some(number) => drop(holders.shares.remove(&number)),
            None => holders.exclusive = false,
        }
    }
}

#[derive(Debug)]
struct Hold {
    lock: Arc<ProcessLock>,
    engine: Engine,
    runtime: Handle,
    share: Option<u64>,
}

impl Hold {
    /// Within a runtime, which is where the release of a dropped guard runs later.
    fn new(lock: &Arc<ProcessLock>, engine: &Engine, share: Option<u64>) -> Self {
        Self { lock: Arc::clone(lock), engine: engine.clone(), runtime: Handle::current(), share }
    }

    async fn release(self) {
        self.lock.forget(self.share);
        if let Err(e) = self.lock.settle(&self.engine).await {
            tracing::warn!(path = ?self.lock.path, error = %e, "unable to release the process lock");
        }
    }

    /// Drop cannot wait. If the runtime has ended the process is about to, and its locks with it.
    fn release_behind(self) {
        let runtime = self.runtime.clone();
        drop(runtime.spawn(self.release()));
    }
}

/// A share of the process lock.
#[derive(Debug)]
pub struct Share {
    hold: Option<Hold>,
}

impl Share {
    /// Gives it back, and waits until other processes see that.
    pub async fn release(mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release().await;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release_behind();
        }
    }
}

/// The exclusive process lock.
#[derive(Debug)]
pub struct Exclusion {
    hold: Option<Hold>,
}

impl Exclusion {
    /// Gives it back, and waits until other processes see that.
    pub async fn release(mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release().await;
        }
    }
}

impl Drop for Exclusion {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release_behind();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::engine::EngineConfig;

    /// What a foreign process gets when it asks for a record lock on the whole file.
    fn foreign(path: &Path, kind: &str) -> bool {
        let script = format!(
            "import fcntl,os,struct,sys\n\
             fd=os.open(sys.argv[1],os.O_RDWR)\n\
             try: fcntl.fcntl(fd,fcntl.F_SETLK,struct.pack('hhqqi',fcntl.{kind},0,0,0,0))\n\
             except OSError: sys.exit(1)\n"
        );
        Command::new("python3").args(["-c", &script]).arg(path).status().unwrap().success()
    }

    fn store() -> (tempfile::TempDir, PathBuf, Engine) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        (dir, path, Engine::start("t", &EngineConfig::default()).unwrap())
    }

    #[tokio::test]
    async fn shares_are_counted_and_seen_by_other_processes() {
        let (_dir, path, engine) = store();
        let lock = open(&Disk::real(), &path).unwrap();
        let first = lock.share(&engine, EpochSecs(7)).await.unwrap();
        // Opened again in the same process: the same lock, so closing one does not cost the other its record.
        let again = open(&Disk::real(), &path).unwrap();
        let second = again.share(&engine, EpochSecs(5)).await.unwrap();
        assert_eq!(lock.oldest_share(), Some(EpochSecs(5)));
        assert!(foreign(&path, "F_RDLCK") && !foreign(&path, "F_WRLCK"));
        second.release().await;
        drop(again);
        assert_eq!(lock.oldest_share(), Some(EpochSecs(7)));
        assert!(!foreign(&path, "F_WRLCK"), "the first share is still held");
        first.release().await;
        assert_eq!(lock.oldest_share(), None);
        assert!(foreign(&path, "F_WRLCK"));
    }

    #[tokio::test]
    async fn an_exclusive_lock_leaves_a_share_behind_when_there_is_one() {
        let (_dir, path, engine) = store();
        let lock = open(&Disk::real(), &path).unwrap();
        let share = lock.share(&engine, EpochSecs(7)).await.unwrap();
        let exclusion = lock.exclude(&engine).await.unwrap();
        assert!(!foreign(&path, "F_RDLCK"));
        assert!(lock.exclude(&engine).await.unwrap_err().to_string().contains("another job of this daemon"));
        exclusion.release().await;
        assert!(foreign(&path, "F_RDLCK") && !foreign(&path, "F_WRLCK"));
        drop(share);
        // It is given back behind the caller's back.
        tokio::time::timeout(std::time::Duration::from_secs(30), async {
            while !foreign(&path, "F_WRLCK") {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_foreign_garbage_collection_keeps_backups_out() {
        let (_dir, path, engine) = store();
        std::fs::File::options().create_new(true).write(true).open(&path).unwrap();
        let script = "import fcntl,os,struct,sys\n\
                      fd=os.open(sys.argv[1],os.O_RDWR)\n\
                      fcntl.fcntl(fd,fcntl.F_SETLK,struct.pack('hhqqi',fcntl.F_WRLCK,0,0,0,0))\n\
                      print('held',flush=True)\n\
                      sys.stdin.read()\n";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        let lock = open(&Disk::real(), &path).unwrap();
        let refused = lock.share(&engine, EpochSecs(1)).await.unwrap_err();
        assert_eq!(refused.kind(), crate::error::Kind::Busy, "{refused}");
        assert_eq!(lock.oldest_share(), None);
        drop(child.stdin.take());
        child.wait().unwrap();
        lock.share(&engine, EpochSecs(1)).await.unwrap().release().await;
    }
}
