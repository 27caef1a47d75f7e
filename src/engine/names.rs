//! The names in a directory, for whoever wants to know of thousands of files whether they are there: one question to the directory instead
//! of one to each inode.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags};
use rustix::io::retry_on_intr;

use super::dir::{kind_of, meta_of};
use super::dir_fd::DirFd;
use super::disk::{Disk, FileKind};
use super::stat::Stamp;

/// Room for what the kernel says in one call: 32 KiB is about 340 names of chunks, more than a directory holds below 90 TB.
const NAMES_BYTES: usize = 32 << 10;

/// Memory for [`Disk::names_in`], to be used again for the next directory.
#[derive(Debug)]
pub struct NamesBuffer(Vec<u8>);

impl Default for NamesBuffer {
    fn default() -> Self {
        Self(Vec::with_capacity(NAMES_BYTES))
    }
}

/// What is asked besides the names.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// A server, whether its directory has changed.
    server: bool,
    /// Stamps before and after.
    stamps: bool,
}

impl Disk {
    /// Tells `each` the names in the directory `name`, relative to `parent`, as they come, `.` and `..` among them, with what the
    /// directory says that they are: symbolic links not followed, and `None` where the file system does not say. `each` says whether that
    /// answers a presence check, which is then counted.
    ///
    /// With `ask_server` a network file system is asked first whether the directory has changed, so that no listing is believed that
    /// it cached before another host's change. One more question, which a file system of this machine answers from memory.
    ///
    /// A name that appears, vanishes or moves meanwhile may be told or not. After an error, what was told stays true. Costs three system
    /// calls and one more for each 32 KiB of names; no allocation.
    pub fn names_in(
        &self,
        parent: &DirFd,
        name: &str,
        ask_server: bool,
        buffer: &mut NamesBuffer,
        each: impl FnMut(&[u8], Option<FileKind>) -> bool,
    ) -> io::Result<()> {
        let asked = Asked { server: ask_server, stamps: false };
        self.names_of(parent, name, Path::new(name), asked, buffer, each).map(drop)
    }

    /// As [`Self::names_in`] for the directory `path`, of which only the last component is looked up, in `parent`; the rest is for messages. Returns the stamp
    /// that the directory had before its names were read and has after: what was told is what lay in it at that stamp. `None` if it was changed meanwhile,
    /// or does not say.
    pub fn names_at(
        &self,
        parent: &DirFd,
        path: &Path,
        buffer: &mut NamesBuffer,
        each: impl FnMut(&[u8], Option<FileKind>) -> bool,
    ) -> io::Result<Option<Stamp>> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        self.names_of(parent, name, path, Asked { server: false, stamps: true }, buffer, each)
    }

    fn names_of(
        &self,
        parent: &DirFd,
        name: &str,
        shown: &Path,
        asked: Asked,
        buffer: &mut NamesBuffer,
        mut each: impl FnMut(&[u8], Option<FileKind>) -> bool,
    ) -> io::Result<Option<Stamp>> {
        self.begin.op("open", Some(shown))?;
        if let Some(parent) = parent.sim() {
            let dir = parent.open_dir(Path::new(name), true)?;
            let stamp = || asked.stamps.then(|| self.begin.op("fstat", Some(shown)).and_then(|()| dir.meta()).ok());
            let before = stamp().flatten().map(|meta| meta.stamp());
            self.begin.op("readdir", Some(shown))?;
            let (mut names, mut checks) = (0, 0);
            for (name, kind, _) in dir.entries()? {
                checks += u64::from(each(name.as_encoded_bytes(), Some(kind)));
                names += 1;
            }
            self.begin.names_read(names, checks);
            let after = stamp().flatten().map(|meta| meta.stamp());
            return Ok(before.filter(|_| before == after));
        }
        // A link is followed here as the path of a file below it would follow it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry_on_intr(|| rustix::fs::openat(parent, name, flags, Mode::empty()))?;
        if asked.server {
            self.begin.op("fstat", Some(shown))?;
            let how = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
            retry_on_intr(|| rustix::fs::statx(&dir, c"", how, StatxFlags::MTIME | StatxFlags::CTIME))?;
        }
        let stamp = || {
            asked.stamps.then(|| self.begin.op("fstat", Some(shown)).ok().and_then(|()| rustix::fs::fstat(&dir).ok()))
        };
        let before = stamp().flatten().map(|stat| meta_of(&stat).stamp());
        self.begin.op("readdir", Some(shown))?;
        let mut raw = RawDir::new(&dir, buffer.0.spare_capacity_mut());
        let (mut names, mut checks) = (0, 0);
        let told: io::Result<()> = loop {
            match raw.next() {
                None => break Ok(()),
                Some(Err(e)) => break Err(e.into()),
                Some(Ok(entry)) => {
                    let kind = match entry.file_type() {
                        FileType::Unknown => None,
                        known => Some(kind_of(known)),
                    };
                    checks += u64::from(each(entry.file_name().to_bytes(), kind));
                    names += 1;
                }
            }
        };
        self.begin.names_read(names, checks);
        told?;
        let after = stamp().flatten().map(|stat| meta_of(&stat).stamp());
        Ok(before.filter(|_| before == after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs::File;

    #[test]
    fn every_name_is_told_with_its_kind_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        for n in 0..1000 {
            File::create_new(below.join(format!("{n:064}"))).unwrap();
        }
        std::fs::create_dir(below.join("dir")).unwrap();
        std::os::unix::fs::symlink("dir", below.join("link")).unwrap();
        std::os::unix::fs::symlink("below", folder.path().join("other")).unwrap();
        let parent = DirFd::from(std::os::fd::OwnedFd::from(File::open(folder.path()).unwrap()));
        let disk = Disk::real();
        let mut buffer = NamesBuffer::default();
        for name in ["below", "other"] {
            let mut told = BTreeMap::new();
            let each = |name: &[u8], kind| {
                assert!(told.insert(name.to_vec(), kind).is_none());
                kind == Some(FileKind::File)
            };
            disk.names_in(&parent, name, false, &mut buffer, each).unwrap();
            assert_eq!(told.len(), 1004, "more than one call's worth");
            for (name, kind) in [("dir", FileKind::Dir), ("link", FileKind::Other), ("..", FileKind::Dir)] {
                assert_eq!(told[name.as_bytes()], Some(kind), "{name}");
            }
            assert_eq!(told[format!("{:064}", 77).as_bytes()], Some(FileKind::File));
        }
        for (name, errno) in [("nope", libc::ENOENT), ("below/dir/../link/nope", libc::ENOENT)] {
            let error = disk.names_in(&parent, name, true, &mut buffer, |_, _| panic!()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno), "{name}");
        }
        let counts = disk.counts();
        assert_eq!((counts.opened, counts.directories_read), (4, 2));
        assert_eq!((counts.names_read, counts.checks_by_name), (2008, 2000));
    }
}
