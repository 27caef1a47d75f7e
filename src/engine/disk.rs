//! Plain file operations, blocking, one system call each. Run on a pool thread, never on a runtime thread.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::buffers::BufferPool;
use super::counters::{DiskCounts, LiveCounts};
use super::dir::meta_of as meta_of_stat;
use super::dir_fd::DirFd;
use super::fault::Fault;
use super::file::{DiskFile, Place};
use super::sim::{Open, ROOT, Sim};
use super::stat::Stamp;
use crate::clock::EpochSecs;
use crate::sync::note_disk_work;

/// What an entry of a directory is, symbolic links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, a device, a socket, …
    Other,
}

/// What `lstat` or `stat` says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMeta {
    /// File, directory or something else.
    pub kind: FileKind,
    /// `st_size`.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, to tell whether two paths lie on one file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Number of names; 0 for a removed file or directory that is still open.
    pub nlink: u64,
    /// When its content changed last.
    pub mtime: FileTime,
    /// When anything about it changed last; unlike the former, no program can set it.
    pub ctime: FileTime,
    /// `st_atime`, whole seconds.
    pub accessed: EpochSecs,
}

impl FileMeta {
    /// What tells whether it was changed.
    pub fn stamp(&self) -> Stamp {
        Stamp { device: self.dev, ino: self.ino, mtime: self.mtime, ctime: self.ctime }
    }
}

/// A time stamp of a file, as finely as its file system tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime {
    /// Since the epoch.
    pub secs: i64,
    /// Of the second.
    pub nanos: u32,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name; entries that are not UTF-8 are left out by [`Disk::read_dir`], since no name of a datastore is.
    pub name: String,
    /// What it is, from `d_type` or `lstat`.
    pub kind: FileKind,
    /// Inode number.
    pub ino: u64,
}

/// Space of the file system below a path, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsUsage {
    /// All there is.
    pub total: u64,
    /// In use by anybody.
    pub used: u64,
    /// Free for an ordinary user.
    pub avail: u64,
}

/// The disk of this machine, or a simulated one.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub(super) begin: Begin,
    buffers: BufferPool,
    pub(super) sim: Option<Sim>,
}

/// What comes before each system call: the watch over held locks, the count, and a test's fault.
#[derive(Clone, Debug, Default)]
pub(super) struct Begin {
    counts: Arc<LiveCounts>,
    fault: Option<Arc<dyn Fault>>,
}

impl Begin {
    /// Counts names that presence checks were told, and the checks that these answered.
    pub(super) fn names_read(&self, names: u64, checks: u64) {
        self.counts.names_read(names, checks);
    }

    pub(super) fn op(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        note_disk_work(op);
        self.counts.count(op);
        match &self.fault {
            Some(fault) => fault.before(op, path),
            None => Ok(()),
        }
    }
}

pub(super) fn meta_of(m: &std::fs::Metadata) -> FileMeta {
    FileMeta {
        kind: kind_of(m.file_type()),
        size_bytes: m.len(),
        mode: m.mode() & 0o7777,
        uid: m.uid(),
        gid: m.gid(),
        dev: m.dev(),
        ino: m.ino(),
        nlink: m.nlink(),
        mtime: FileTime { secs: m.mtime(), nanos: u32::try_from(m.mtime_nsec()).unwrap_or(0) },
        ctime: FileTime { secs: m.ctime(), nanos: u32::try_from(m.ctime_nsec()).unwrap_or(0) },
        accessed: EpochSecs(m.atime()),
    }
}

fn set_accessed(path: &Path, time: Timespec) -> io::Result<()> {
    let keep = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let times = Timestamps { last_access: time, last_modification: keep };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn kind_of(t: std::fs::FileType) -> FileKind {
    if t.is_file() {
        FileKind::File
    } else if t.is_dir() {
        FileKind::Dir
    } else {
        FileKind::Other
    }
}

impl Disk {
    /// The disk that the kernel shows.
    pub fn real() -> Self {
        Self::default()
    }

    /// The same disk, with a fault before each operation (tests).
    pub fn with_fault(fault: Arc<dyn Fault>) -> Self {
        Self { begin: Begin { fault: Some(fault), ..Begin::default() }, ..Self::default() }
    }

    /// A simulated disk; with a fault before each operation, if there is one.
    pub fn simulated(sim: &Sim, fault: Option<Arc<dyn Fault>>) -> Self {
        Self { begin: Begin { fault, ..Begin::default() }, sim: Some(sim.clone()), ..Self::default() }
    }

    /// Memory for whole chunks, shared with its clones.
    pub fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// What was asked of it and its clones so far.
    pub fn counts(&self) -> DiskCounts {
        self.begin.counts.now()
    }

    fn begin(&self, op: &'static str, path: &Path) -> io::Result<()> {
        self.begin.op(op, Some(path))
    }

    fn file(&self, file: std::fs::File) -> DiskFile {
        DiskFile::new(Place::Kernel(file), self.begin.clone())
    }

    fn sim_file(&self, sim: &Sim, path: &Path, how: Open) -> io::Result<DiskFile> {
        Ok(DiskFile::new(Place::Sim(sim.open(ROOT, path, how)?), self.begin.clone()))
    }

    /// Opens a regular file for reading, `O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK` (a FIFO put in place of a file does not hang us).
    pub fn open(&self, path: &Path) -> io::Result<DiskFile> {
        self.begin("open", path)?;
        if let Some(sim) = &self.sim {
            return self.sim_file(sim, path, Open::READ);
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(self.file(file))
    }

    /// Opens for reading and writing, creating an empty file of `mode & ~umask` where none is.
    pub fn open_or_create(&self, path: &Path, mode: u32) -> io::Result<DiskFile> {
        self.begin("open", path)?;
        if let Some(sim) = &self.sim {
            return self.sim_file(sim, path, Open { write: true, create: Some(mode), ..Open::READ });
        }
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(mode).custom_flags(libc::O_NOFOLLOW);
        Ok(self.file(options.open(path)?))
    }

    /// Opens an existing regular file for reading and writing, symbolic links not followed.
    pub fn open_rw(&self, path: &Path) -> io::Result<DiskFile> {
        self.begin("open", path)?;
        if let Some(sim) = &self.sim {
            return self.sim_file(sim, path, Open { write: true, ..Open::READ });
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        Ok(self.file(std::fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?))
    }

    /// Opens for reading what a path leads to: a symbolic link is followed, as the presence check does.
    pub fn open_target(&self, path: &Path) -> io::Result<DiskFile> {
        self.begin("open", path)?;
        if let Some(sim) = &self.sim {
            return self.sim_file(sim, path, Open { follow: true, ..Open::READ });
        }
        Ok(self.file(std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?))
    }

    /// Makes a file that must not exist yet, open for reading and writing.
    pub fn create_new(&self, path: &Path, mode: u32) -> io::Result<DiskFile> {
        self.begin("create", path)?;
        if let Some(sim) = &self.sim {
            return self.sim_file(sim, path, Open { write: true, create: Some(mode), exclusive: true, follow: false });
        }
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        Ok(self.file(options.open(path)?))
    }

    /// A directory's descriptor, `O_DIRECTORY | O_CLOEXEC`.
    pub fn open_dir(&self, path: &Path) -> io::Result<DirFd> {
        self.begin("open", path)?;
        if let Some(sim) = &self.sim {
            return Ok(sim.open_dir(ROOT, path, true)?.into());
        }
        Ok(open_dir(path)?.into())
    }

    /// What `fstat` says about an open directory.
    pub fn dir_meta(&self, dir: &DirFd) -> io::Result<FileMeta> {
        self.begin.op("fstat", None)?;
        match dir.sim() {
            Some(handle) => handle.meta(),
            None => Ok(meta_of_stat(&rustix::fs::fstat(dir)?)),
        }
    }

    /// A whole file, at most `max_bytes` long; a longer one is `InvalidData` and is not read.
    pub fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.open(path)?.read_all(max_bytes)
    }

    /// What a path names, symbolic links not followed.
    pub fn lstat(&self, path: &Path) -> io::Result<FileMeta> {
        self.begin("lstat", path)?;
        if let Some(sim) = &self.sim {
            return sim.stat(ROOT, path, false);
        }
        Ok(meta_of(&std::fs::symlink_metadata(path)?))
    }

    /// What a path leads to, symbolic links followed.
    pub fn stat(&self, path: &Path) -> io::Result<FileMeta> {
        self.begin("stat", path)?;
        if let Some(sim) = &self.sim {
            return sim.stat(ROOT, path, true);
        }
        Ok(meta_of(&std::fs::metadata(path)?))
    }

    /// All entries in the order that the directory gives them, without `.` and `..`.
    pub fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.begin("readdir", path)?;
        if let Some(sim) = &self.sim {
            return Ok(sim_entries(sim.read_dir(ROOT, path)?));
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let Some(name) = entry.file_name().into_string().ok() else { continue };
            let kind = match entry.file_type() {
                Ok(t) => kind_of(t),
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            entries.push(DirEntry { name, kind, ino: std::os::unix::fs::DirEntryExt::ino(&entry) });
        }
        Ok(entries)
    }

    /// As [`Self::read_dir`], with the names that are not UTF-8: for who must not overlook anything.
    pub fn read_dir_all(&self, path: &Path) -> io::Result<Vec<(OsString, FileKind)>> {
        self.begin("readdir", path)?;
        if let Some(sim) = &self.sim {
            return Ok(sim.read_dir(ROOT, path)?.into_iter().map(|(name, kind, _)| (name, kind)).collect());
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            match entry.file_type() {
                Ok(t) => entries.push((entry.file_name(), kind_of(t))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(entries)
    }

    /// `mkdir` with `mode & ~umask`; fails if the name is taken.
    pub fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.begin("mkdir", path)?;
        if let Some(sim) = &self.sim {
            return sim.mkdir(path, mode);
        }
        std::fs::DirBuilder::new().mode(mode).create(path)
    }

    /// As [`Self::mkdir`], with the directories above it; fine if it is there already.
    pub fn mkdir_all(&self, path: &Path, mode: u32) -> io::Result<()> {
        match (self.mkdir(path, mode), path.parent()) {
            (Err(e), Some(parent)) if e.kind() == io::ErrorKind::NotFound => {
                self.mkdir_all(parent, mode)?;
                self.mkdir_all(path, mode)
            }
            (Err(e), _) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            (made, _) => made,
        }
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.begin("rmdir", path)?;
        if let Some(sim) = &self.sim {
            return sim.rmdir(path);
        }
        std::fs::remove_dir(path)
    }

    /// Removes a file's name.
    pub fn unlink(&self, path: &Path) -> io::Result<()> {
        self.begin("unlink", path)?;
        if let Some(sim) = &self.sim {
            return sim.unlink(path);
        }
        std::fs::remove_file(path)
    }

    /// Removes a directory and all below it. Symbolic links are not followed, and one in the directory's own place is refused.
    pub fn remove_tree(&self, path: &Path) -> io::Result<()> {
        if self.lstat(path)?.kind != FileKind::Dir {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{path:?} is no directory")));
        }
        for entry in self.read_dir(path)? {
            let below = path.join(&entry.name);
            match entry.kind {
                FileKind::Dir => self.remove_tree(&below)?,
                FileKind::File | FileKind::Other => match self.unlink(&below) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                },
            }
        }
        self.rmdir(path)
    }

    /// Gives a file its final name, replacing what had it. Atomic.
    #[expect(clippy::disallowed_methods, reason = "the home of rename")]
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin("rename", to)?;
        if let Some(sim) = &self.sim {
            return sim.rename(from, to);
        }
        std::fs::rename(from, to)
    }

    /// Sets the access time to now and leaves the rest, symbolic links not followed (spec 01 §6.3).
    pub fn touch(&self, path: &Path) -> io::Result<()> {
        self.begin("utimensat", path)?;
        if let Some(sim) = &self.sim {
            return sim.touch(path);
        }
        set_accessed(path, Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW })
    }

    /// The same with another time than now.
    pub fn set_accessed(&self, path: &Path, time: EpochSecs) -> io::Result<()> {
        self.begin("utimensat", path)?;
        if let Some(sim) = &self.sim {
            return sim.set_accessed(path, time.0);
        }
        set_accessed(path, Timespec { tv_sec: time.0, tv_nsec: 0 })
    }

    /// Sets permission bits of a path, umask ignored.
    pub fn chmod(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.begin("chmod", path)?;
        if let Some(sim) = &self.sim {
            return sim.chmod(path, mode);
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }

    /// Sets owner and group of a path, symbolic links not followed.
    pub fn chown(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        self.begin("chown", path)?;
        if let Some(sim) = &self.sim {
            return sim.chown(path, (uid, gid));
        }
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
    }

    /// Makes the entries of a directory durable.
    pub fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        self.begin("open", path)?;
        if let Some(sim) = &self.sim {
            self.begin("fsync", path)?;
            return sim.fsync_dir(path);
        }
        let dir = open_dir(path)?;
        self.begin("fsync", path)?;
        Ok(rustix::fs::fsync(dir)?)
    }

    /// Makes everything of the file system below `path` durable.
    pub fn syncfs(&self, path: &Path) -> io::Result<()> {
        self.begin("open", path)?;
        if let Some(sim) = &self.sim {
            self.begin("syncfs", path)?;
            return sim.syncfs(path);
        }
        let dir = open_dir(path)?;
        self.begin("syncfs", path)?;
        Ok(rustix::fs::syncfs(dir)?)
    }

    /// Space of the file system below `path`.
    pub fn usage(&self, path: &Path) -> io::Result<FsUsage> {
        self.begin("statvfs", path)?;
        if let Some(sim) = &self.sim {
            return sim.usage(path);
        }
        let s = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(s.f_frsize);
        Ok(FsUsage {
            total: bytes(s.f_blocks),
            used: bytes(s.f_blocks.saturating_sub(s.f_bfree)),
            avail: bytes(s.f_bavail),
        })
    }

    /// The magic number of the file system below `path` (`statfs(2)`, field `f_type`).
    pub fn fs_magic(&self, path: &Path) -> io::Result<u64> {
        self.begin("statfs", path)?;
        if let Some(sim) = &self.sim {
            return sim.fs_magic(path);
        }
        let s = rustix::fs::statfs(path)?;
        Ok(s.f_type.cast_unsigned())
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

/// Entries of a simulated directory, those left out that [`Disk::read_dir`] leaves out.
pub(super) fn sim_entries(entries: Vec<(OsString, FileKind, u64)>) -> Vec<DirEntry> {
    let named = entries.into_iter().filter_map(|(name, kind, ino)| Some((name.into_string().ok()?, kind, ino)));
    named.map(|(name, kind, ino)| DirEntry { name, kind, ino }).collect()
}
