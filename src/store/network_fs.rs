//! Which file systems another host may change. Pure.

/// `f_type` of `statfs(2)` for file systems whose files live elsewhere (linux/magic.h and each driver's own header).
const NETWORK_MAGICS: [u64; 12] = [
    0x0000_6969, // NFS
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2 and later
    0x0000_517B, // SMB, the old driver
    0x00C3_6400, // Ceph
    0x6573_5546, // FUSE: sshfs, GlusterFS, JuiceFS, …
    0x0102_1997, // 9p: a virtual machine's host
    0x5346_414F, // AFS
    0x0BD0_0BD0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x0116_1970, // GFS2, one file system below several hosts
];

/// Whether the kernel may answer from a cache that another host has overtaken.
pub(super) fn is_network_fs(magic: u64) -> bool {
    NETWORK_MAGICS.contains(&magic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_disks_are_not_networks() {
        assert!(is_network_fs(0x6969) && is_network_fs(0x6573_5546));
        for (name, magic) in [("ext4", 0xEF53), ("xfs", 0x5846_5342), ("btrfs", 0x9123_683E), ("zfs", 0x2FC1_2FC1)] {
            assert!(!is_network_fs(magic), "{name}");
        }
    }
}
