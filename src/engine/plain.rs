//! One presence check by plain system calls: the one that may wait, and the one that never does.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::{Errno, retry_on_intr};

use super::disk::FileKind;
use super::stat::{FileStat, StatName, StatResult};
use crate::clock::EpochSecs;

/// Type, size and access time; not the rest, so that a network file system need not ask its server for it. The access time comes along with
/// the size wherever that comes from.
pub(super) const MASK: StatxFlags = StatxFlags::TYPE.union(StatxFlags::SIZE).union(StatxFlags::ATIME);

/// Whose word is taken about a file of a network file system.
pub(super) fn sync_flag(force_sync: bool) -> AtFlags {
    if force_sync { AtFlags::STATX_FORCE_SYNC } else { AtFlags::STATX_DONT_SYNC }
}

/// What mode, size and seconds of the access time of `statx` say.
pub(super) fn file_stat(mode: u16, size_bytes: u64, accessed: i64) -> FileStat {
    let kind = match FileType::from_raw_mode(u32::from(mode)) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Dir,
        _ => FileKind::Other,
    };
    FileStat { kind, size_bytes, accessed: EpochSecs(accessed) }
}

/// `statx`, symbolic links followed. May wait for a disk.
pub(super) fn stat(dir: impl AsFd, name: &StatName, force_sync: bool) -> StatResult {
    let dir = dir.as_fd();
    let s = retry_on_intr(|| rustix::fs::statx(dir, name.as_c_str(), sync_flag(force_sync), MASK))?;
    Ok(file_stat(s.stx_mode, s.stx_size, s.stx_atime.tv_sec))
}

/// What the kernel could say without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    /// The name and its inode are in memory, and this is what they say.
    Hit(FileStat),
    /// Not in memory, or no such name: ask properly. An absent file is never reported from here.
    Miss,
    /// This kernel (before 5.12) or this sandbox has no such question.
    Unsupported,
}

/// Asks the name cache only: `openat2(O_PATH, RESOLVE_CACHED)` fails with `EAGAIN` rather than wait for a disk or a
/// server.
pub(super) fn stat_cached(dir: BorrowedFd<'_>, name: &StatName) -> Cached {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(dir, name.as_c_str(), flags, Mode::empty(), ResolveFlags::CACHED) {
        Ok(file) => match rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH | sync_flag(false), MASK) {
            Ok(s) => Cached::Hit(file_stat(s.stx_mode, s.stx_size, s.stx_atime.tv_sec)),
            Err(_) => Cached::Miss,
        },
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => Cached::Unsupported,
        Err(_) => Cached::Miss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_says_what_the_file_says_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(folder.path()).unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", folder.path().join("link")).unwrap();
        for name in ["d", "link", "missing", "d/missing", "."] {
            let name = StatName::new(name).unwrap();
            match (stat_cached(dir.as_fd(), &name), stat(&dir, &name, false)) {
                (Cached::Hit(cached), proper) => assert_eq!(Ok(cached), proper, "{name:?}"),
                (Cached::Miss, _) => {}
                (Cached::Unsupported, _) => println!("skipped: no RESOLVE_CACHED here"),
            }
        }
    }

    #[test]
    fn an_absent_name_is_never_an_answer_of_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(folder.path()).unwrap();
        let name = StatName::new("missing").unwrap();
        for _ in 0..3 {
            assert_eq!(stat(&dir, &name, false), Err(Errno::NOENT));
            assert!(!matches!(stat_cached(dir.as_fd(), &name), Cached::Hit(_)));
        }
    }
}
