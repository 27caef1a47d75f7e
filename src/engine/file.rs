//! An open file of a disk, and its locks; blocking, one system call each.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};

use rustix::fs::FlockOperation;

use super::buffers::{Buffer, BufferPool};
use super::disk::{Begin, FileKind, FileMeta, meta_of};
use super::sim::SimHandle;
use crate::sync::note_disk_work;

/// Whether others may hold a lock too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Several holders.
    Shared,
    /// One holder.
    Exclusive,
}

/// What a POSIX record lock on a whole file becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLock {
    /// `F_RDLCK`.
    Shared,
    /// `F_WRLCK`.
    Exclusive,
    /// `F_UNLCK`.
    Unlocked,
}

/// What a sync makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncScope {
    /// `fdatasync`: the bytes and the size.
    Data,
    /// `fsync`: also mode, owner and times.
    All,
}

/// An open file of a datastore.
#[derive(Debug)]
pub struct DiskFile {
    file: Place,
    begin: Begin,
}

/// Where an open file lies.
#[derive(Debug)]
pub(super) enum Place {
    Kernel(std::fs::File),
    Sim(SimHandle),
}

/// How long a file is that is to be read whole, if it is a regular one and no longer than `max_bytes`; else `InvalidData`.
fn whole_size(meta: &FileMeta, max_bytes: u64) -> io::Result<usize> {
    if meta.kind != FileKind::File {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    if meta.size_bytes > max_bytes {
        let text = format!("file has {} bytes, more than the {max_bytes} it may have", meta.size_bytes);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    usize::try_from(meta.size_bytes).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

impl DiskFile {
    pub(super) fn new(file: Place, begin: Begin) -> Self {
        Self { file, begin }
    }

    /// What `fstat` says.
    pub fn meta(&self) -> io::Result<FileMeta> {
        self.begin.op("fstat", None)?;
        match &self.file {
            Place::Kernel(file) => Ok(meta_of(&file.metadata()?)),
            Place::Sim(file) => file.meta(),
        }
    }

    /// All of it, at most `max_bytes`; a longer file, or what is not a regular file, is `InvalidData` and is not read.
    pub fn read_all(&self, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.read_whole(&self.meta()?, max_bytes)
    }

    /// As [`Self::read_all`], for whoever has asked for [`Self::meta`] already.
    pub fn read_whole(&self, meta: &FileMeta, max_bytes: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; whole_size(meta, max_bytes)?];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// As [`Self::read_all`], into a buffer of `pool`.
    pub fn read_buffer(&self, max_bytes: u64, pool: &BufferPool) -> io::Result<Buffer> {
        let size = whole_size(&self.meta()?, max_bytes)?;
        let mut buffer = pool.take(size);
        buffer.set_len(size);
        self.read_exact_at(&mut buffer, 0)?;
        Ok(buffer)
    }

    /// Asks the kernel to forget what it has cached of the file, so that the next reading comes from the disk. A wish: what it cannot
    /// forget it keeps.
    pub fn forget_cached(&self) {
        let Place::Kernel(file) = &self.file else { return };
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// Up to `buf.len()` bytes at `offset`; 0 at the end of the file.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.begin.op("pread", None)?;
        match &self.file {
            Place::Kernel(file) => file.read_at(buf, offset),
            Place::Sim(file) => file.read_at(buf, offset),
        }
    }

    /// Exactly `buf.len()` bytes at `offset`; a shorter file is `UnexpectedEof`.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.begin.op("pread", None)?;
        match &self.file {
            Place::Kernel(file) => file.read_exact_at(buf, offset),
            Place::Sim(file) => file.read_exact_at(buf, offset),
        }
    }

    /// All of `buf` at `offset`.
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.begin.op("pwrite", None)?;
        match &self.file {
            Place::Kernel(file) => file.write_all_at(buf, offset),
            Place::Sim(file) => file.write_all_at(buf, offset),
        }
    }

    /// Cuts or extends with zeros.
    pub fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        self.begin.op("ftruncate", None)?;
        match &self.file {
            Place::Kernel(file) => file.set_len(size_bytes),
            Place::Sim(file) => file.set_len(size_bytes),
        }
    }

    /// Sets permission bits, umask ignored.
    pub fn chmod(&self, mode: u32) -> io::Result<()> {
        self.begin.op("fchmod", None)?;
        match &self.file {
            Place::Kernel(file) => file.set_permissions(std::fs::Permissions::from_mode(mode)),
            Place::Sim(file) => file.chmod(mode),
        }
    }

    /// Makes the file durable, not its name: see [`Disk::fsync_dir`](super::Disk::fsync_dir).
    pub fn sync(&self, scope: SyncScope) -> io::Result<()> {
        self.begin.op("fsync", None)?;
        match (&self.file, scope) {
            (Place::Kernel(file), SyncScope::Data) => file.sync_data(),
            (Place::Kernel(file), SyncScope::All) => file.sync_all(),
            (Place::Sim(file), scope) => file.sync(scope),
        }
    }

    /// `flock(2)` without waiting; `WouldBlock` when somebody holds it.
    pub fn try_flock(&self, mode: LockMode) -> io::Result<()> {
        self.begin.op("flock", None)?;
        match &self.file {
            Place::Kernel(file) => try_flock(file, mode),
            Place::Sim(file) => file.try_flock(mode),
        }
    }

    /// Gives up a `flock(2)` at once. Closing the file does so too, but only when a child process that is just being started does not have a copy of it.
    pub fn release_flock(&self) -> io::Result<()> {
        match &self.file {
            Place::Kernel(file) => release_flock(file),
            Place::Sim(file) => {
                file.release_flock();
                Ok(())
            }
        }
    }

    /// Changes this process's record lock on the whole file, without waiting; `WouldBlock` or `PermissionDenied` when
    /// another process holds it. Mind the trap of record locks: closing ANY descriptor of the file drops it (spec 01 §4.1).
    pub fn try_record_lock(&self, lock: RecordLock) -> io::Result<()> {
        self.begin.op("fcntl", None)?;
        let operation = match lock {
            RecordLock::Shared => FlockOperation::NonBlockingLockShared,
            RecordLock::Exclusive => FlockOperation::NonBlockingLockExclusive,
            RecordLock::Unlocked => FlockOperation::NonBlockingUnlock,
        };
        match &self.file {
            Place::Kernel(file) => Ok(rustix::fs::fcntl_lock(file, operation)?),
            // No other process is on a simulated disk.
            Place::Sim(_) => Ok(()),
        }
    }
}

/// `flock(2)` without waiting on any descriptor, a directory's too; `WouldBlock` when somebody holds it.
pub fn try_flock(fd: impl AsFd, mode: LockMode) -> io::Result<()> {
    let operation = match mode {
        LockMode::Shared => FlockOperation::NonBlockingLockShared,
        LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    Ok(rustix::fs::flock(fd, operation)?)
}

/// Gives up a `flock(2)` at once. Closing the descriptor does so too, but only when a child process that is just being started does not
/// have a copy of it.
pub fn release_flock(fd: impl AsFd) -> io::Result<()> {
    note_disk_work("flock");
    Ok(rustix::fs::flock(fd, FlockOperation::Unlock)?)
}
