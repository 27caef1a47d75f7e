//! How busy the disks below the jobs' directories were: fio's `disk_util`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::report::DiskUse;
use super::spread::as_f64;

/// The counters of some disks at one moment.
#[derive(Clone, Debug)]
pub struct DiskWatch {
    begun: Instant,
    /// By their folders in `/sys`.
    disks: BTreeMap<PathBuf, Counters>,
}

/// `Documentation/block/stat.rst` of the kernel; ticks are ms.
type Counters = [u64; 11];

const IO_TICKS: usize = 9;

impl DiskWatch {
    /// Reads the counters of the disks that `directories` lie on. File systems without a disk of their own are left out.
    pub fn begin<'a>(directories: impl Iterator<Item = &'a Path>) -> Self {
        let folders = directories.filter_map(folder_of);
        let disks = folders.filter_map(|folder| counters(&folder).map(|now| (folder, now))).collect();
        Self { begun: Instant::now(), disks }
    }

    /// What they did since then.
    pub fn since(&self) -> Vec<DiskUse> {
        let ms = self.begun.elapsed().as_secs_f64() * 1000.0;
        let used = |(folder, before): (&PathBuf, &Counters)| {
            let name = folder.file_name()?.to_string_lossy().into_owned();
            Some(used(name, before, &counters(folder)?, ms))
        };
        self.disks.iter().filter_map(used).collect()
    }
}

fn used(name: String, before: &Counters, now: &Counters, ms: f64) -> DiskUse {
    let grown = |at: usize| now[at].saturating_sub(before[at]);
    let util = if ms > 0.0 { (as_f64(grown(IO_TICKS)) * 100.0 / ms).min(100.0) } else { 0.0 };
    DiskUse {
        name,
        read_ios: grown(0),
        write_ios: grown(4),
        read_merges: grown(1),
        write_merges: grown(5),
        read_ticks: grown(3),
        write_ticks: grown(7),
        in_queue: grown(10),
        util,
    }
}

/// The folder of the whole disk, not of a partition.
fn folder_of(directory: &Path) -> Option<PathBuf> {
    let device = directory.metadata().ok()?.dev();
    let link = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let folder = std::fs::canonicalize(link).ok()?;
    if folder.join("partition").exists() { folder.parent().map(Path::to_owned) } else { Some(folder) }
}

fn counters(folder: &Path) -> Option<Counters> {
    parsed(&std::fs::read_to_string(folder.join("stat")).ok()?)
}

fn parsed(text: &str) -> Option<Counters> {
    let numbers: Vec<u64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // Newer kernels append more.
    numbers.get(..11)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_is_what_was_done() {
        let before = parsed("1 2 3 4 5 6 7 8 0 10 11\n").unwrap();
        let now = parsed("11 22 33 44 55 66 77 88 1 110 111 0 0 0 0").unwrap();
        let used = used("vda".into(), &before, &now, 200.0);
        assert_eq!((used.read_ios, used.write_ios, used.read_merges, used.write_merges), (10, 50, 20, 60));
        assert_eq!((used.read_ticks, used.write_ticks, used.in_queue), (40, 80, 100));
        assert!((used.util - 50.0).abs() < 1e-9);
        assert_eq!(parsed("1 2 x"), None);
    }

    #[test]
    fn memory_has_no_disk() {
        assert!(DiskWatch::begin([Path::new("/dev/shm"), Path::new("/nonexistent")].into_iter()).since().is_empty());
    }
}
