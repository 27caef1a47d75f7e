//! A directory held open: what lies in it is named relative to it, so that its path is walked once and not for every file.
//!
//! On a network file system each component of a path may be a request to the server.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::dir_fd::DirFd;
use super::disk::{Begin, DirEntry, Disk, FileKind, FileMeta, FileTime, sim_entries};
use super::file::{DiskFile, Place};
use super::sim::ROOT;
use crate::clock::EpochSecs;

/// Room for what the kernel says about entries in one call: 32 KiB is about 500 names, more than a snapshot has and most groups.
const ENTRIES_BYTES: usize = 32 << 10;

/// An open directory.
#[derive(Debug)]
pub struct DiskDir {
    fd: DirFd,
    path: PathBuf,
    begin: Begin,
}

impl Disk {
    /// Opens a directory, the last component not a symbolic link.
    pub fn dir(&self, path: &Path) -> io::Result<DiskDir> {
        self.begin.op("open", Some(path))?;
        let fd = match &self.sim {
            Some(sim) => sim.open_dir(ROOT, path, false)?.into(),
            None => open_dir(CWD, path)?.into(),
        };
        Ok(DiskDir { fd, path: path.to_owned(), begin: self.begin.clone() })
    }
}

impl DiskDir {
    /// Where it is, or was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory `name` in it, not a symbolic link.
    pub fn dir(&self, name: &str) -> io::Result<Self> {
        let path = self.path.join(name);
        self.begin.op("open", Some(&path))?;
        let fd = match self.fd.sim() {
            Some(handle) => handle.open_dir(Path::new(name), false)?.into(),
            None => open_dir(&self.fd, Path::new(name))?.into(),
        };
        Ok(Self { fd, path, begin: self.begin.clone() })
    }

    /// What `fstat` says about it.
    pub fn meta(&self) -> io::Result<FileMeta> {
        self.begin.op("fstat", Some(&self.path))?;
        match self.fd.sim() {
            Some(handle) => handle.meta(),
            None => Ok(meta_of(&rustix::fs::fstat(&self.fd)?)),
        }
    }

    /// What `name`, a path relative to it, names; a symbolic link at its end not followed.
    pub fn lstat(&self, name: impl AsRef<Path>) -> io::Result<FileMeta> {
        self.begin.op("lstat", Some(&self.path.join(&name)))?;
        if let Some(handle) = self.fd.sim() {
            return handle.lstat(name.as_ref());
        }
        Ok(meta_of(&retry_on_intr(|| rustix::fs::statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW))?))
    }

    /// Opens a regular file of it for reading, as [`Disk::open`] does.
    pub fn open(&self, name: impl AsRef<Path>) -> io::Result<DiskFile> {
        self.begin.op("open", Some(&self.path.join(&name)))?;
        if let Some(handle) = self.fd.sim() {
            return Ok(DiskFile::new(Place::Sim(handle.open(name.as_ref())?), self.begin.clone()));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, name.as_ref(), flags, Mode::empty()))?;
        Ok(DiskFile::new(Place::Kernel(fd.into()), self.begin.clone()))
    }

    /// All its entries, as [`Disk::read_dir`] gives them. Once only: a second call finds nothing.
    pub fn entries(&self) -> io::Result<Vec<DirEntry>> {
        self.begin.op("readdir", Some(&self.path))?;
        if let Some(handle) = self.fd.sim() {
            return Ok(sim_entries(handle.entries()?));
        }
        let mut buffer = Vec::with_capacity(ENTRIES_BYTES);
        let mut raw = RawDir::new(&self.fd, buffer.spare_capacity_mut());
        let mut entries = Vec::new();
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not say.
                FileType::Unknown => match self.lstat(name) {
                    Ok(meta) => meta.kind,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                },
                known => kind_of(known),
            };
            entries.push(DirEntry { name: name.to_owned(), kind, ino: entry.ino() });
        }
        Ok(entries)
    }
}

fn open_dir(at: impl std::os::fd::AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = retry_on_intr(|| rustix::fs::openat(&at, path.as_os_str().as_bytes(), flags, Mode::empty()));
    opened.map_err(|e| match e {
        // The kernel's word for a symbolic link here.
        Errno::LOOP => Errno::NOTDIR.into(),
        e => e.into(),
    })
}

pub(super) fn kind_of(t: FileType) -> FileKind {
    match t {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Dir,
        _ => FileKind::Other,
    }
}

/// What a `stat` structure says.
pub(super) fn meta_of(s: &Stat) -> FileMeta {
    FileMeta {
        kind: kind_of(FileType::from_raw_mode(s.st_mode)),
        size_bytes: u64::try_from(s.st_size).unwrap_or(0),
        mode: s.st_mode & 0o7777,
        uid: s.st_uid,
        gid: s.st_gid,
        dev: s.st_dev,
        ino: s.st_ino,
        nlink: s.st_nlink,
        mtime: FileTime { secs: s.st_mtime, nanos: u32::try_from(s.st_mtime_nsec).unwrap_or(0) },
        ctime: FileTime { secs: s.st_ctime, nanos: u32::try_from(s.st_ctime_nsec).unwrap_or(0) },
        accessed: EpochSecs(s.st_atime),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_held_directory_says_what_its_path_says() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        for n in 0..1000 {
            std::fs::File::create_new(below.join(format!("a-name-of-some-length-{n:04}"))).unwrap();
        }
        std::fs::create_dir(below.join("dir")).unwrap();
        symlink("dir", below.join("link")).unwrap();
        let disk = Disk::real();
        let dir = disk.dir(folder.path()).unwrap().dir("below").unwrap();
        assert_eq!(dir.path(), below);
        let sorted = |mut entries: Vec<DirEntry>| {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            entries
        };
        assert_eq!(
            sorted(dir.entries().unwrap()),
            sorted(disk.read_dir(&below).unwrap()),
            "more than one call's worth"
        );
        assert_eq!(dir.meta().unwrap(), disk.stat(&below).unwrap());
        assert_eq!(dir.lstat("link").unwrap(), disk.lstat(&below.join("link")).unwrap());
        let meta = below.metadata().unwrap();
        assert_eq!(
            dir.meta().unwrap().ctime,
            FileTime { secs: meta.ctime(), nanos: u32::try_from(meta.ctime_nsec()).unwrap() }
        );
        for (name, want) in
            [("link", libc::ENOTDIR), ("nope", libc::ENOENT), ("a-name-of-some-length-0000", libc::ENOTDIR)]
        {
            assert_eq!(dir.dir(name).unwrap_err().raw_os_error(), Some(want), "{name}");
        }
        assert_eq!(dir.open("a-name-of-some-length-0001").unwrap().read_all(10).unwrap(), b"");
        assert_eq!(disk.counts().directories_read, 2);
    }
}
