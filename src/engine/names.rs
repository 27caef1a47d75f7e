//! What lies in a directory, name by name and without a word about inodes: the cheapest way to see that many files are there.
//!
//! Opening a directory, reading it and closing it costs as much as three or four checks of single files, however many names it holds; where
//! each check would be a seek or a round trip, those are one or two (docs/performance.md).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags};
use rustix::io::retry_on_intr;

use super::disk::{Disk, FileKind};

/// Room for what the kernel says about entries in one call: some 370 chunk names.
const ENTRIES_BYTES: usize = 32 << 10;

/// Memory for reading directories, used again from one to the next.
#[derive(Debug, Default)]
pub struct NameBuffer {
    bytes: Vec<u8>,
}

impl Disk {
    /// Shows `visit` each name in the directory `name` below `above`, with what the directory says it is; `None` where it does not say.
    /// `name` must be a directory itself, not a symbolic link to one.
    ///
    /// With `ask_server` a network file system is asked first whether the directory has changed, so that no cached listing from
    /// before another host's change is read.
    ///
    /// Names that came or went meanwhile may be shown or not.
    pub fn visit_names(
        &self,
        above: &OwnedFd,
        name: &str,
        ask_server: bool,
        buffer: &mut NameBuffer,
        mut visit: impl FnMut(&[u8], Option<FileKind>),
    ) -> io::Result<()> {
        self.begin.op("open", Some(name.as_ref()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = retry_on_intr(|| rustix::fs::openat(above.as_fd(), name, flags, Mode::empty()))?;
        if ask_server {
            self.begin.op("fstat", Some(name.as_ref()))?;
            let how = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
            retry_on_intr(|| rustix::fs::statx(&dir, c"", how, StatxFlags::MTIME | StatxFlags::CTIME))?;
        }
        self.begin.op("readdir", Some(name.as_ref()))?;
        buffer.bytes.reserve(ENTRIES_BYTES);
        let mut raw = RawDir::new(&dir, buffer.bytes.spare_capacity_mut());
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let kind = match entry.file_type() {
                FileType::RegularFile => Some(FileKind::File),
                FileType::Directory => Some(FileKind::Dir),
                FileType::Unknown => None,
                _ => Some(FileKind::Other),
            };
            visit(entry.file_name().to_bytes(), kind);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_shown_once_with_its_kind_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("0a1b");
        std::fs::create_dir(&dir).unwrap();
        for n in 0..2000 {
            std::fs::File::create_new(dir.join(format!("{n:064}"))).unwrap();
        }
        std::fs::create_dir(dir.join("dir")).unwrap();
        std::os::unix::fs::symlink("dir", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("0a1b", folder.path().join("elsewhere")).unwrap();
        let above = OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
        let disk = Disk::real();
        let mut buffer = NameBuffer::default();
        for ask_server in [false, true] {
            let mut seen = std::collections::HashMap::new();
            let visit = |name: &[u8], kind| assert!(seen.insert(name.to_vec(), kind).is_none());
            disk.visit_names(&above, "0a1b", ask_server, &mut buffer, visit).unwrap();
            assert_eq!(seen.len(), 2000 + 4, "with . and ..");
            for (name, kind) in [("dir", FileKind::Dir), ("link", FileKind::Other), (&"0".repeat(64), FileKind::File)] {
                assert_eq!(seen[name.as_bytes()], Some(kind), "{name}");
            }
        }
        let mut open = |name: &str| disk.visit_names(&above, name, false, &mut buffer, |_, _| panic!("{name}"));
        assert_eq!(open("gone").unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(open("elsewhere").is_err());
        assert_eq!(disk.counts().directories_read, 2);
    }
}
