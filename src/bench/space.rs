//! What a job's data takes, computed before anything is written.

use std::path::Path;

use super::job::{Job, Workload};
use crate::error::{Error, IoContext, Result};
use crate::store::layout::CHUNK_DIR_COUNT;

/// What a file takes of a disk at least, and in what steps.
const BLOCK_BYTES: u64 = 4096;

/// What an empty file takes: its inode, and its name in a directory.
const EMPTY_FILE_BYTES: u64 = 512;

/// Header of a chunk's blob.
const BLOB_HEADER_BYTES: u64 = 12;

/// `statfs(2)`: a file system in memory, whose directories take no blocks.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Space and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes, rounded up to blocks.
    pub bytes: u64,
    /// Of these: what directories take.
    pub directory_bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl Need {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            directory_bytes: self.directory_bytes.saturating_add(other.directory_bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }

    /// `count` files of `bytes` each.
    fn files(count: u64, bytes: u64) -> Self {
        let each = bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES).saturating_add(EMPTY_FILE_BYTES);
        Self { bytes: count.saturating_mul(each), directory_bytes: 0, inodes: count }
    }

    /// The directories of a datastore.
    fn store() -> Self {
        let count = u64::from(CHUNK_DIR_COUNT);
        Self { bytes: count * BLOCK_BYTES, directory_bytes: count * BLOCK_BYTES, inodes: count }
    }

    /// What `job` makes beside its datastore, at most: images and streams count as one large file each.
    pub fn of_work(job: &Job) -> Self {
        match job.workload {
            Workload::Backup if job.unchanged => Self::files(2, job.size),
            Workload::Backup => Self::files(u64::from(job.numjobs.max(1)), job.size),
            Workload::Restore => Self::files(1, job.size),
            _ => Self::default(),
        }
    }

    /// What its datastore takes, at most.
    pub fn of_store(job: &Job) -> Self {
        if job.existing {
            return Self::default();
        }
        let chunks = |count: u64| Self::files(count, job.bs.saturating_add(BLOB_HEADER_BYTES));
        // The chunks of an image are as long as it is, together.
        let whole = |count: u64| Self::files(count, job.size);
        let clients = u64::from(job.numjobs.max(1));
        let data = match job.workload {
            Workload::KnownAppend | Workload::KnownFinish | Workload::Gc => Self::files(job.nrfiles, 0),
            Workload::ChunkInsert => chunks(job.nrfiles.saturating_mul(clients)),
            Workload::ChunkRead | Workload::Verify => chunks(job.nrfiles),
            Workload::Backup if job.unchanged => whole(2),
            Workload::Backup => whole(clients.saturating_mul(job.loops.max(1))),
            Workload::Restore => whole(1),
        };
        data.and(Self::store())
    }
}

/// Sees that `need` fits into the file system of `directory`.
///
/// Errors: `Invalid`, with both figures.
pub fn check(directory: &Path, need: Need) -> Result<()> {
    let fs = rustix::fs::statvfs(directory).map_err(std::io::Error::from);
    let fs = fs.io_context(|| format!("cannot look at the space of {directory:?}"))?;
    let magic = rustix::fs::statfs(directory).map(|fs| fs.f_type.cast_unsigned()).unwrap_or_default();
    let bytes = need.bytes - if magic == TMPFS_MAGIC { need.directory_bytes } else { 0 };
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    if bytes > free {
        return Err(Error::invalid(format!(
            "not enough space in {directory:?}: {} are needed, {} are free; choose a smaller size, or another directory",
            shown(bytes),
            shown(free)
        )));
    }
    // 0 where a file system makes inodes as it needs them.
    if fs.f_files > 0 && need.inodes > fs.f_favail {
        return Err(Error::invalid(format!(
            "not enough inodes in {directory:?}: {} files and directories are needed, {} are free",
            need.inodes, fs.f_favail
        )));
    }
    Ok(())
}

fn shown(bytes: u64) -> String {
    let mib = bytes.div_ceil(1 << 20);
    if mib < 10 << 10 { format!("{mib} MiB") } else { format!("{} GiB", mib.div_ceil(1 << 10)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::run_tests::job;

    #[test]
    fn the_need_is_that_of_the_workload() {
        let need = |workload, edit: fn(&mut Job)| {
            let mut job = job(Path::new("/nowhere"), workload);
            (job.nrfiles, job.bs, job.size, job.numjobs) = (1000, 1 << 20, 1 << 30, 2);
            edit(&mut job);
            Need::of_store(&job).and(Need::of_work(&job)).bytes >> 20
        };
        assert_eq!(need(Workload::KnownAppend, |_| {}), 256, "the directories");
        assert!((2256..2300).contains(&need(Workload::ChunkInsert, |_| {})));
        assert!((1256..1300).contains(&need(Workload::ChunkRead, |_| {})));
        assert!((2048 + 256 + 2048..4400).contains(&need(Workload::Backup, |_| {})));
        assert!((4096 + 256..4400).contains(&need(Workload::Backup, |job| job.unchanged = true)));
        assert_eq!(need(Workload::ChunkRead, |job| job.existing = true), 0);
        assert!(need(Workload::ChunkInsert, |job| job.nrfiles = u64::MAX) > 1 << 40, "no overflow");
    }

    #[test]
    fn too_little_space_is_told_with_both_figures() {
        let need = Need { bytes: u64::MAX, directory_bytes: 0, inodes: 0 };
        let said = check(Path::new("/dev/shm"), need).unwrap_err().to_string();
        assert!(said.contains("17179869184 GiB are needed") && said.contains("are free"), "{said}");
        assert!(check(Path::new("/dev/shm"), Need::default()).is_ok());
    }
}
