//! The start of a backup (spec 03 §2 steps 7 to 12, §4): each step in its order, and undone when a later one fails.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::backup::{BackupLease, Base};
use super::datastore::Inner;
use super::explain::failed;
use super::lease::{Lease, Locks};
use super::lock::{DirLock, Refusal, confirm_real};
use super::operations::OperationGuard;
use super::process_lock::Share;
use super::snapshot::{create_owner, is_group_leftover, load_manifest, read_owner, remove_group_if_empty};
use super::tree;
use crate::engine::{Disk, LockMode};
use crate::error::{Error, Result};
use crate::format::manifest::VerifyOutcome;
use crate::types::{AuthId, Namespace, Snapshot};

/// Mode of directories before the umask (spec 01 §1.2).
pub(super) const DIR_MODE: u32 = 0o777;

/// How often a group may be removed between its making and its locking before somebody does that on purpose.
const GROUP_TRIES: u32 = 5;

/// What a backup starts with.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) store: Arc<Inner>,
    pub(super) namespace: Namespace,
    pub(super) snapshot: Snapshot,
    pub(super) auth: AuthId,
    pub(super) benchmark: bool,
    pub(super) share: Share,
    pub(super) operation: OperationGuard,
}

impl Begin {
    /// Takes the locks and makes the directory. The lease is made here, on the pool, so that one nobody waits for any more cleans up after
    /// itself.
    pub(super) fn run(self, disk: &Disk) -> Result<BackupLease> {
        let group_dir = self.store.layout.group(&self.namespace, self.snapshot.group());
        let (group, group_made) = self.lock_group(disk, &group_dir)?;
        match self.enter_group(disk) {
            Ok((base, base_lock, snapshot)) => {
                let Self { store, namespace, snapshot: name, share, operation, .. } = self;
                let locks = Locks { snapshot, base: base_lock, group, share, operation };
                Ok(BackupLease::new(Lease::new(store, (namespace, name), base, group_made, locks)))
            }
            Err(e) => {
                if group_made && let Err(e) = remove_group_if_empty(disk, &self.store.durable, &group_dir) {
                    tracing::warn!(dir = ?group_dir, error = %e, "unable to remove an empty group");
                }
                drop(group);
                Err(e)
            }
        }
    }

    /// The group's directory, made if it is not there, locked, and owned by somebody who lets us in.
    fn lock_group(&self, disk: &Disk, dir: &Path) -> Result<(DirLock, bool)> {
        let why = "another backup is already running";
        let mut tries = 1;
        let (lock, made) = loop {
            let made = self.make_group(disk, dir)?;
            match DirLock::take(disk, self.store.layout.base(), dir, LockMode::Exclusive) {
                Ok(lock) => break (lock, made),
                // Emptied and removed by somebody else in between.
                Err(Refusal::Absent) if tries < GROUP_TRIES => tries += 1,
                Err(refusal) => return Err(refusal.of_group(dir, why)),
            }
        };
        let group = self.snapshot.group();
        let path = self.store.layout.owner(&self.namespace, group);
        if is_group_leftover(disk, dir)? {
            match disk.unlink(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("unable to replace empty owner file", &path, e));
                }
                _ => {}
            }
            if let Err(e) = create_owner(disk, &self.store.durable, &path, &self.auth) {
                if made {
                    let _ = disk.rmdir(dir);
                }
                return Err(e);
            }
            return Ok((lock, true));
        }
        let owner = read_owner(disk, &path, group)?;
        if !self.benchmark && !self.auth.owns(&owner) {
            return Err(Error::invalid(format!("backup owner check failed ({} != {owner})", self.auth)));
        }
        Ok((lock, false))
    }

    fn make_group(&self, disk: &Disk, dir: &Path) -> Result<bool> {
        let type_dir = self.store.layout.type_dir(&self.namespace, self.snapshot.group().ty());
        for (path, is_group) in [(type_dir.as_path(), false), (dir, true)] {
            match self.store.durable.make_dir(disk, path, DIR_MODE) {
                Ok(()) if is_group => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(tree::namespace_not_found()),
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("unable to create backup group directory", path, e));
                }
                _ => {}
            }
            // Before anything is made where a link leads.
            confirm_real(disk, self.store.layout.base(), path)
                .map_err(|e| failed("unable to create backup group directory", path, e))?;
        }
        Ok(false)
    }

    /// Chooses and locks the base, then makes and locks the new directory.
    fn enter_group(&self, disk: &Disk) -> Result<(Option<Base>, Option<DirLock>, DirLock)> {
        let layout = &self.store.layout;
        let base = self.choose_base(disk)?;
        let mut base_lock = None;
        if let Some(base) = &base {
            if self.snapshot.time() <= base.snapshot.time() {
                return Err(Error::invalid("backup timestamp is older than last backup."));
            }
            let dir = layout.snapshot(&self.namespace, &base.snapshot);
            let lock = DirLock::take(disk, layout.base(), &dir, LockMode::Shared);
            base_lock =
                Some(lock.map_err(|r| r.of_snapshot(&dir, "base snapshot is already locked by another operation"))?);
        }
        let dir = layout.snapshot(&self.namespace, &self.snapshot);
        self.store.durable.make_dir(disk, &dir, DIR_MODE).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Error::invalid("backup directory already exists."),
            _ => failed("unable to create snapshot directory", &dir, e),
        })?;
        match DirLock::take(disk, layout.base(), &dir, LockMode::Exclusive) {
            Ok(lock) => Ok((base, base_lock, lock)),
            Err(refusal) => {
                let _ = disk.rmdir(&dir);
                Err(refusal.of_snapshot(&dir, "internal error - locked by another operation"))
            }
        }
    }

    /// The newest finished snapshot, unless it is marked as failed; there is no fallback to an older one (spec 03 §4).
    fn choose_base(&self, disk: &Disk) -> Result<Option<Base>> {
        let layout = &self.store.layout;
        let snapshots = tree::snapshots(disk, layout, &self.namespace, self.snapshot.group())?;
        for snapshot in snapshots.into_iter().rev() {
            let path = layout.manifest(&self.namespace, &snapshot);
            match disk.lstat(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                found => found.map_err(|e| failed("unable to stat manifest", &path, e))?,
            };
            let manifest = load_manifest(disk, &path)?.manifest;
            let is_failed = manifest.verify_state().is_some_and(|found| found.state == VerifyOutcome::Failed);
            return Ok((!is_failed).then_some(Base { snapshot, manifest }));
        }
        Ok(None)
    }
}
