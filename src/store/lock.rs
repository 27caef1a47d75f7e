//! The locks that other processes see (spec 01 §4), and who excludes whom.
//!
//! | lock | on | kind | held |
//! |---|---|---|---|
//! | [`DirLock`] of a group | its directory | `flock`, exclusive | by a backup, and by the removal of an emptied group |
//! | [`DirLock`] of a snapshot | its directory | `flock`, shared or exclusive | exclusive by its backup and its removal, shared by readers and as a base |
//! | `ProcessLock` | `BASE/.lock` | record lock | shared by each backup, exclusive by garbage collection; see `process_lock` |
//! | manifest | the manifest file | `flock`, exclusive | while it is changed; see `manifest_lock` |
//!
//! All are taken without waiting, but the manifest's. A directory may be removed and made again between its opening and its locking, so a
//! lock counts only if the path still leads to what was locked.

use std::io;
use std::path::Path;

use super::explain::failed;
use crate::engine::{DirFd, Disk, FileKind, LockMode};
use crate::error::{Error, Result};

/// A locked directory; unlocked when dropped, which closes a descriptor and so belongs on a pool thread.
#[derive(Debug)]
pub(super) struct DirLock {
    fd: DirFd,
}

/// Why a directory was not locked.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not there, or not any more.
    Absent,
    /// Somebody else holds it.
    Held,
    /// The machine's fault.
    Failed(io::Error),
}

impl DirLock {
    /// Locks a directory of the datastore at `base` without waiting. Whoever works on a group or a snapshot comes through here, so this is
    /// where a symbolic link on the way is refused: what it leads to is not the datastore's.
    pub(super) fn take(disk: &Disk, base: &Path, dir: &Path, mode: LockMode) -> Result<Self, Refusal> {
        let sorted = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Refusal::Absent,
            io::ErrorKind::WouldBlock => Refusal::Held,
            _ => Refusal::Failed(e),
        };
        confirm_real(disk, base, dir).map_err(sorted)?;
        let fd = disk.open_dir(dir).map_err(sorted)?;
        fd.try_flock(mode).map_err(sorted)?;
        let (locked, named) = (disk.dir_meta(&fd).map_err(sorted)?, disk.stat(dir).map_err(sorted)?);
        if (locked.dev, locked.ino) != (named.dev, named.ino) {
            return Err(Refusal::Absent);
        }
        Ok(Self { fd })
    }
}

/// An error unless every directory from below `base` down to `dir` is a real one; `NotFound` as soon as one is not there.
pub(super) fn confirm_real(disk: &Disk, base: &Path, dir: &Path) -> io::Result<()> {
    let below = dir.strip_prefix(base).map_err(io::Error::other)?;
    let mut at = base.to_owned();
    for component in below.components() {
        at.push(component);
        if disk.lstat(&at)?.kind != FileKind::Dir {
            let text = format!("{at:?} is no directory; symbolic links within a datastore are not followed");
            return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
        }
    }
    Ok(())
}

/// Refuses to write into `dir` if a symbolic link leads there; that it is not there is for the writing to say.
pub(super) fn refuse_links(disk: &Disk, base: &Path, dir: &Path) -> Result<()> {
    match confirm_real(disk, base, dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("unable to write into", dir, e)),
        _ => Ok(()),
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.fd.release_flock();
    }
}

impl Refusal {
    /// The error about a group, in the words of the original; `why` is its guess at who holds the lock.
    pub(super) fn of_group(self, dir: &Path, why: &str) -> Error {
        self.lift("backup group directory", dir, why)
    }

    /// The error about a snapshot.
    pub(super) fn of_snapshot(self, dir: &Path, why: &str) -> Error {
        self.lift("snapshot directory", dir, why)
    }

    fn lift(self, what: &str, dir: &Path, why: &str) -> Error {
        match self {
            Self::Absent => {
                Error::invalid(format!("unable to open {what} {dir:?} for locking - ENOENT: No such file or directory"))
            }
            Self::Held => Error::busy(format!("unable to acquire lock on {what} {dir:?} - {why}")),
            Self::Failed(e) => failed(format_args!("unable to lock {what}"), dir, e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_many_readers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("g")).unwrap();
        let take = |mode| DirLock::take(&Disk::real(), dir.path(), &dir.path().join("g"), mode);
        let shared = [take(LockMode::Shared).unwrap(), take(LockMode::Shared).unwrap()];
        assert!(matches!(take(LockMode::Exclusive), Err(Refusal::Held)));
        drop(shared);
        let exclusive = take(LockMode::Exclusive).unwrap();
        assert!(matches!(take(LockMode::Shared), Err(Refusal::Held)));
        drop(exclusive);
        take(LockMode::Shared).unwrap();
    }

    #[test]
    fn what_a_link_leads_to_is_not_locked() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(other.path().join("host/a")).unwrap();
        std::os::unix::fs::symlink(other.path().join("host"), dir.path().join("host")).unwrap();
        std::fs::create_dir(dir.path().join("vm")).unwrap();
        std::os::unix::fs::symlink(other.path().join("host/a"), dir.path().join("vm/1")).unwrap();
        for path in ["host/a", "host", "vm/1"] {
            let refusal = DirLock::take(&Disk::real(), dir.path(), &dir.path().join(path), LockMode::Shared);
            let text = refusal.unwrap_err().of_group(Path::new("/g"), "").to_string();
            assert!(text.contains("symbolic links within a datastore are not followed"), "{path}: {text}");
        }
    }

    #[test]
    fn what_is_gone_is_not_locked() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = DirLock::take(&Disk::real(), dir.path(), &dir.path().join("x"), LockMode::Shared).unwrap_err();
        let text = refusal.of_snapshot(Path::new("/d/x"), "in use").to_string();
        assert_eq!(text, "unable to open snapshot directory \"/d/x\" for locking - ENOENT: No such file or directory");
        assert_eq!(
            Refusal::Held.of_group(Path::new("/d/x"), "another backup is already running").to_string(),
            "unable to acquire lock on backup group directory \"/d/x\" - another backup is already running"
        );
    }
}
