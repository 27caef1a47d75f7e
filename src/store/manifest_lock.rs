//! The lock under which a manifest is changed (spec 01 §4.3).
//!
//! Within this process changes of one manifest queue up. Against other processes there are two ways:
//!
//! * by default the manifest file itself is locked, and the lock counts only if the path still leads to that file, for every
//!   change replaces it. That needs no directory, leaves nothing behind, and holds between hosts that share a file system;
//! * with a lock directory, the file of the original's scheme in it, so that a server of that kind on the same datastore is
//!   excluded: `DIR/STORE/ns/…/TYPE/ID/TIME/TIME.index.json.lck`.
//!
//! The wait is asynchronous and ends after [`WAIT_MAX`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::claims::{Claim, Claims};
use super::explain::failed;
use crate::engine::{Disk, DiskFile, Engine, LockMode};
use crate::error::{Error, Result};

/// How long a change waits for its turn, as the original does.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Pause between two tries for a lock that another process holds; a change takes some milliseconds.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Mode of a lock file in a lock directory.
const LOCK_FILE_MODE: u32 = 0o660;

/// The manifest locks of one datastore.
#[derive(Debug)]
pub(super) struct ManifestLocks {
    base: PathBuf,
    /// Lock directory and datastore name joined.
    dir: Option<PathBuf>,
    claims: Claims<PathBuf>,
}

/// The right to change one manifest; dropped on a pool thread.
#[derive(Debug)]
pub(super) struct ManifestLock {
    _claim: Claim<PathBuf>,
    file: DiskFile,
}

impl Drop for ManifestLock {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.file.release_flock();
    }
}

impl ManifestLocks {
    /// For the datastore at `base`; `dir` as described above, without the datastore's name.
    pub(super) fn new(base: &Path, dir: Option<&Path>, store: &str) -> Self {
        Self { base: base.to_owned(), dir: dir.map(|d| d.join(store)), claims: Claims::default() }
    }

    /// Waits for a turn within this process alone.
    pub(super) async fn queue(&self, manifest: &Path) -> Claim<PathBuf> {
        self.claims.claim(manifest.to_owned()).await
    }

    /// Waits for the lock of the manifest at `manifest`.
    pub(super) async fn take(&self, engine: &Engine, manifest: &Path) -> Result<ManifestLock> {
        let deadline = Instant::now() + WAIT_MAX;
        let busy = || Error::busy(format!("unable to acquire manifest lock {manifest:?} - it is being changed"));
        let left = deadline.saturating_duration_since(Instant::now());
        let claim = tokio::time::timeout(left, self.claims.claim(manifest.to_owned())).await.map_err(|_| busy())?;
        let in_dir = self.lock_file(manifest)?;
        loop {
            let (manifest, in_dir) = (manifest.to_owned(), in_dir.clone());
            let tried = engine.run(move |disk| match in_dir {
                Some(path) => try_in_dir(disk, &path),
                None => try_itself(disk, &manifest),
            });
            match tried.await?? {
                Some(file) => return Ok(ManifestLock { _claim: claim, file }),
                None if Instant::now() >= deadline => return Err(busy()),
                None => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// Removes the lock file of a manifest whose snapshot is removed.
    pub(super) fn forget(&self, disk: &Disk, manifest: &Path) {
        if let Ok(Some(path)) = self.lock_file(manifest) {
            let _ = disk.unlink(&path);
            if let Some(dir) = path.parent() {
                let _ = disk.rmdir(dir);
            }
        }
    }

    fn lock_file(&self, manifest: &Path) -> Result<Option<PathBuf>> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let snapshot =
            manifest.parent().and_then(|p| Some((p.strip_prefix(&self.base).ok()?, p.file_name()?.to_str()?)));
        match snapshot {
            Some((path, time)) => Ok(Some(dir.join(path).join(format!("{time}.index.json.lck")))),
            None => Err(Error::invalid(format!("{manifest:?} is no manifest of this datastore"))),
        }
    }
}

fn try_itself(disk: &Disk, manifest: &Path) -> Result<Option<DiskFile>> {
    // For writing, because an exclusive flock on NFS asks for that.
    let file = disk.open_rw(manifest).map_err(|e| super::snapshot::unable_to_load(manifest, e))?;
    let still_there = |file: &DiskFile| {
        let (locked, named) = (file.meta()?, disk.lstat(manifest)?);
        io::Result::Ok((locked.dev, locked.ino) == (named.dev, named.ino))
    };
    lock(file, manifest, still_there)
}

fn try_in_dir(disk: &Disk, path: &Path) -> Result<Option<DiskFile>> {
    if let Some(dir) = path.parent() {
        disk.mkdir_all(dir, 0o755).map_err(|e| failed("unable to make the lock directory", dir, e))?;
    }
    let file =
        disk.open_or_create(path, LOCK_FILE_MODE).map_err(|e| failed("unable to open manifest lock", path, e))?;
    // Removed together with the snapshot, so here too the name counts.
    let still_there = |file: &DiskFile| match disk.lstat(path) {
        Ok(named) => Ok(named.ino == file.meta()?.ino),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    };
    lock(file, path, still_there)
}

fn lock(
    file: DiskFile,
    path: &Path,
    still_there: impl FnOnce(&DiskFile) -> io::Result<bool>,
) -> Result<Option<DiskFile>> {
    match file.try_flock(LockMode::Exclusive).and_then(|()| still_there(&file)) {
        Ok(true) => Ok(Some(file)),
        Ok(false) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(failed("unable to acquire manifest lock", path, e)),
    }
}
