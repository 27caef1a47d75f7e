//! One presence check by plain system calls: the one that may wait, and the one that never does.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::{Errno, retry_on_intr};

use super::disk::{FileKind, FileTime};
use super::stat::{FileStat, Stamp, StatName, StatResult};
use crate::clock::EpochSecs;

/// Type, size and access time; not the rest, so that a network file system need not ask its server for it. The access time comes along with
/// the size wherever that comes from.
const MASK: StatxFlags = StatxFlags::TYPE.union(StatxFlags::SIZE).union(StatxFlags::ATIME);

/// What a stamp needs besides.
const STAMP_MASK: StatxFlags = StatxFlags::INO.union(StatxFlags::MTIME).union(StatxFlags::CTIME);

/// What is asked for.
pub(super) fn mask(stamps: bool) -> StatxFlags {
    if stamps { MASK.union(STAMP_MASK) } else { MASK }
}

/// Whose word is taken about a file of a network file system.
pub(super) fn sync_flag(force_sync: bool) -> AtFlags {
    if force_sync { AtFlags::STATX_FORCE_SYNC } else { AtFlags::STATX_DONT_SYNC }
}

/// What mode, size and seconds of the access time of `statx` say.
pub(super) fn file_stat(mode: u16, size_bytes: u64, accessed: i64, stamp: Stamp) -> FileStat {
    let kind = match FileType::from_raw_mode(u32::from(mode)) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Dir,
        _ => FileKind::Other,
    };
    FileStat { kind, size_bytes, accessed: EpochSecs(accessed), stamp }
}

/// What major and minor number, inode number and two times of `statx` say.
pub(super) fn stamp_of((major, minor): (u32, u32), ino: u64, mtime: (i64, u32), ctime: (i64, u32)) -> Stamp {
    let time = |(secs, nanos)| FileTime { secs, nanos };
    Stamp { device: rustix::fs::makedev(major, minor), ino, mtime: time(mtime), ctime: time(ctime) }
}

fn of_statx(s: &Statx, stamps: bool) -> FileStat {
    let stamp = || {
        let (mtime, ctime) = (s.stx_mtime, s.stx_ctime);
        let dev = (s.stx_dev_major, s.stx_dev_minor);
        stamp_of(dev, s.stx_ino, (mtime.tv_sec, mtime.tv_nsec), (ctime.tv_sec, ctime.tv_nsec))
    };
    let stamp = if stamps { stamp() } else { Stamp::default() };
    file_stat(s.stx_mode, s.stx_size, s.stx_atime.tv_sec, stamp)
}

/// `statx`, symbolic links followed. May wait for a disk.
pub(super) fn stat(dir: impl AsFd, name: &StatName, force_sync: bool, stamps: bool) -> StatResult {
    let dir = dir.as_fd();
    let s = retry_on_intr(|| rustix::fs::statx(dir, name.as_c_str(), sync_flag(force_sync), mask(stamps)))?;
    Ok(of_statx(&s, stamps))
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
pub(super) fn stat_cached(dir: BorrowedFd<'_>, name: &StatName, stamps: bool) -> Cached {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(dir, name.as_c_str(), flags, Mode::empty(), ResolveFlags::CACHED) {
        Ok(file) => match rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH | sync_flag(false), mask(stamps)) {
            Ok(s) => Cached::Hit(of_statx(&s, stamps)),
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
            for stamps in [false, true] {
                match (stat_cached(dir.as_fd(), &name, stamps), stat(&dir, &name, false, stamps)) {
                    (Cached::Hit(cached), proper) => assert_eq!(Ok(cached), proper, "{name:?}"),
                    (Cached::Miss, _) => {}
                    (Cached::Unsupported, _) => println!("skipped: no RESOLVE_CACHED here"),
                }
            }
        }
    }

    #[test]
    fn an_absent_name_is_never_an_answer_of_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(folder.path()).unwrap();
        let name = StatName::new("missing").unwrap();
        for _ in 0..3 {
            assert_eq!(stat(&dir, &name, false, true), Err(Errno::NOENT));
            assert!(!matches!(stat_cached(dir.as_fd(), &name, true), Cached::Hit(_)));
        }
    }
}
