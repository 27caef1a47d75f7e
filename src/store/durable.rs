//! The one way a file appears in a datastore: whole or not at all.
//!
//! Written under a temporary name in the same directory, synced, renamed, directory synced; removed again on any error. Which
//! of the two syncs are made follows from the sync level and from what the file is for:
//!
//! | level | chunk, blob, index ([`Weight::Payload`]) | manifest ([`Weight::Commit`]) | at finish, before the manifest |
//! |---|---|---|---|
//! | `none` | no sync | no sync | nothing |
//! | `file` | file, directory | file, directory | snapshot, group and type directory |
//! | `filesystem` | no sync | file, directory | one `syncfs` |
//!
//! The manifest is what makes a snapshot count. It is synced on its own at both safe levels, for it appears behind the `syncfs`; and so is a
//! later change of it, a mark of failure above all. The original never syncs it (spec 01 §6.2), nor indexes and blobs at level `file`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::SyncLevel;
use super::layout::{random_suffix, temp_name};
use super::temps::{TempNote, Temps};
use crate::engine::{Disk, DiskFile, SyncScope};
use crate::sync::Mutex;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Worth nothing without a manifest.
    Payload,
    /// Says that a snapshot is finished, or something about a finished one.
    Commit,
}

/// How often a random name may be taken before something else must be wrong.
const NAME_TRIES: u32 = 4;

/// Mode of chunks, blobs and manifests, set whatever the umask is (spec 01 §1.2).
const FILE_MODE: u32 = 0o644;

/// Makes files and directories as sync level and owner of a datastore demand.
#[derive(Clone, Debug)]
pub(super) struct Durable {
    /// One for all clones: it may change while the datastore is open.
    level: Arc<Mutex<SyncLevel>>,
    owner: Option<(u32, u32)>,
    temps: Arc<Temps>,
}

/// A file under its temporary name. Dropped without [`Self::publish`] it stays: who makes it removes it with [`Self::discard`].
#[derive(Debug)]
pub(super) struct TempFile {
    pub(super) file: DiskFile,
    pub(super) path: PathBuf,
    note: TempNote,
}

impl Durable {
    /// `owner` is given to everything new; `None` leaves it to the kernel.
    pub(super) fn new(level: SyncLevel, owner: Option<(u32, u32)>, temps: Arc<Temps>) -> Self {
        Self { level: Arc::new(Mutex::new(level)), owner, temps }
    }

    /// Whether files of this weight are synced one by one.
    pub(super) fn syncs(&self, weight: Weight) -> bool {
        match (self.level(), weight) {
            (SyncLevel::None, _) | (SyncLevel::Filesystem, Weight::Payload) => false,
            (SyncLevel::File, _) | (SyncLevel::Filesystem, Weight::Commit) => true,
        }
    }

    /// The level itself.
    pub(super) fn level(&self) -> SyncLevel {
        *self.level.lock()
    }

    /// Another level from now on, for everybody who shares this.
    pub(super) fn set_level(&self, level: SyncLevel) {
        *self.level.lock() = level;
    }

    /// Puts `bytes` at `path`, replacing what is there. On an error what was there still is, unless only the sync of the directory
    /// failed.
    pub(super) fn put(&self, disk: &Disk, path: &Path, bytes: &[u8], weight: Weight) -> io::Result<()> {
        let mut tries = 1;
        let temp = loop {
            let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
            // mkstemp's mode first, so that nobody reads a file whose owner is not right yet.
            match self.create_temp(disk, &path.with_file_name(temp_name(name, &random_suffix()?)), 0o600) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < NAME_TRIES => tries += 1,
                made => break made?,
            }
        };
        let written = temp.file.chmod(FILE_MODE).and_then(|()| temp.file.write_all_at(bytes, 0));
        match written {
            Ok(()) => self.publish(disk, temp, path, weight),
            Err(e) => {
                temp.discard(disk);
                Err(e)
            }
        }
    }

    /// Makes a file under the temporary name `path`, with `mode & ~umask` and the datastore's owner.
    pub(super) fn create_temp(&self, disk: &Disk, path: &Path, mode: u32) -> io::Result<TempFile> {
        let note = self.temps.note(disk, path);
        let file = disk.create_new(path, mode)?;
        let temp = TempFile { file, path: path.to_owned(), note };
        match self.give(disk, path) {
            Ok(()) => Ok(temp),
            Err(e) => {
                temp.discard(disk);
                Err(e)
            }
        }
    }

    /// Gives a temporary file its final name.
    pub(super) fn publish(&self, disk: &Disk, temp: TempFile, path: &Path, weight: Weight) -> io::Result<()> {
        let sync = self.syncs(weight);
        let synced = if sync { temp.file.sync(SyncScope::All) } else { Ok(()) };
        if let Err(e) = synced.and_then(|()| disk.rename(&temp.path, path)) {
            temp.discard(disk);
            return Err(e);
        }
        match path.parent() {
            Some(dir) if sync => disk.fsync_dir(dir),
            _ => Ok(()),
        }
    }

    /// Makes a file that must not exist yet, in place: what decides between two programs that make it at once. Removed again on an error.
    pub(super) fn create_exclusive(&self, disk: &Disk, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let file = disk.create_new(path, mode)?;
        let written = self
            .give(disk, path)
            .and_then(|()| file.write_all_at(bytes, 0))
            .and_then(|()| if self.syncs(Weight::Payload) { file.sync(SyncScope::All) } else { Ok(()) });
        written.inspect_err(|_| drop(disk.unlink(path)))
    }

    /// Makes a directory with `mode & ~umask`; the error tells if the name is taken.
    pub(super) fn make_dir(&self, disk: &Disk, path: &Path, mode: u32) -> io::Result<()> {
        disk.mkdir(path, mode)?;
        self.give(disk, path).inspect_err(|_| drop(disk.rmdir(path)))
    }

    /// Gives what was just made to the datastore's owner.
    pub(super) fn give(&self, disk: &Disk, path: &Path) -> io::Result<()> {
        match self.owner {
            Some((uid, gid)) => disk.chown(path, uid, gid),
            None => Ok(()),
        }
    }
}

impl TempFile {
    /// Removes it. If that fails it stays on record for the next start.
    pub(super) fn discard(self, disk: &Disk) {
        drop(self.file);
        match disk.unlink(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = ?self.path, error = %e, "unable to remove a temporary file");
                self.note.keep();
            }
            _ => drop(self.note),
        }
    }
}
