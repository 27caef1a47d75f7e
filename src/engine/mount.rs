//! Which mount of which boot a directory is seen through: for as long as that is the same, nobody but the kernel that tells of it has changed the file
//! system below.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::retry_on_intr;

use super::dir_fd::DirFd;
use super::disk::Disk;

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// `STATX_MNT_ID_UNIQUE`, since Linux 6.8: a number that no other mount of this boot gets. The older `STATX_MNT_ID` is given anew as soon as it is free.
const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// A mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which boot of the machine.
    pub boot: [u8; 16],
    /// Device number.
    pub device: u64,
    /// Which mount of this boot; `None` where the kernel has no number that is given once only.
    pub id: Option<u64>,
}

impl Disk {
    /// The mount that an open directory lies on.
    ///
    /// Errors: `InvalidData` where the kernel does not say which boot this is.
    pub fn mount_of(&self, dir: &DirFd) -> io::Result<Mount> {
        self.begin.op("fstat", None)?;
        if let Some(handle) = dir.sim() {
            return Ok(handle.mount());
        }
        let boot = parse_boot_id(&std::fs::read_to_string(Path::new(BOOT_ID))?).ok_or(io::ErrorKind::InvalidData)?;
        let s = retry_on_intr(|| rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, UNIQUE_ID))?;
        let id = (s.stx_mask & UNIQUE_ID.bits() != 0).then_some(s.stx_mnt_id);
        Ok(Mount { boot, device: rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor), id })
    }
}

/// `3ed85f34-…`: 32 hex digits and four hyphens.
fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim_end().chars().filter(|c| *c != '-').collect();
    let is_hex = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u128::from_str_radix(&digits, 16).ok().filter(|_| is_hex).map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_a_number_of_sixteen_bytes() {
        let id = parse_boot_id("3ed85f34-d90b-4d0e-9d1d-0d7a2f2b6c01\n").unwrap();
        assert_eq!((id[0], id[15]), (0x3e, 0x01));
        for bad in ["", "3ed85f34", "+ed85f34-d90b-4d0e-9d1d-0d7a2f2b6c01", "3ed85f34-d90b-4d0e-9d1d-0d7a2f2b6c0100"] {
            assert_eq!(parse_boot_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_directories_of_a_mount_say_the_same_and_another_mount_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let disk = Disk::real();
        let mount = |path: &Path| disk.mount_of(&disk.open_dir(path).unwrap()).unwrap();
        assert_eq!(mount(folder.path()), mount(&below));
        assert_ne!(mount(folder.path()).device, mount(Path::new("/proc")).device);
        if let (Some(one), Some(other)) = (mount(&below).id, mount(Path::new("/proc")).id) {
            assert_ne!(one, other);
        }
    }
}
