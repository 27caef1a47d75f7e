//! What a job ran on: figures mean little without it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

/// The machine, and the file system of one directory. What cannot be found out is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the processor.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: u64,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// Whether a ring is granted, or why not.
    pub io_uring: String,
    /// Type of the file system.
    pub fs: String,
    /// Its mount options, those of the mount before those of the file system.
    pub mount_options: String,
    /// What is mounted.
    pub device: String,
    /// `major:minor` of the device; of file systems in memory and on a network a number of the kernel's own.
    pub device_number: String,
    /// Whether it has platters; `None` for what is no block device.
    pub rotational: Option<bool>,
    /// The I/O scheduler.
    pub scheduler: String,
}

impl Host {
    /// Looks at the machine and at the file system of `directory`. `io_uring` is what the engine said.
    pub fn look(directory: &Path, io_uring: String) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut host = Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from) as u64,
            memory_bytes: kib(&read("/proc/meminfo"), "MemTotal") << 10,
            io_uring,
            ..Self::default()
        };
        let Ok(meta) = directory.metadata() else { return host };
        host.device_number = format!("{}:{}", rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        if let Some(mount) = mount_of(&read("/proc/self/mountinfo"), &host.device_number, directory) {
            (host.fs, host.mount_options, host.device) = (mount.fs, mount.options, mount.source);
        }
        // A partition has no queue of its own; that of its disk is one directory up.
        let queue = |name: &str| {
            let base = format!("/sys/dev/block/{}", host.device_number);
            [format!("{base}/queue/{name}"), format!("{base}/../queue/{name}")]
                .iter()
                .find_map(|path| std::fs::read_to_string(path).ok())
        };
        host.rotational = queue("rotational").map(|text| text.trim() == "1");
        let schedulers = queue("scheduler").unwrap_or_default();
        host.scheduler = schedulers.split(['[', ']']).nth(1).unwrap_or(schedulers.trim()).to_owned();
        host
    }

    /// The same for people.
    pub fn lines(&self) -> Vec<String> {
        let disk = match self.rotational {
            None => "no block device".to_owned(),
            Some(rotational) => {
                let kind = if rotational { "rotational" } else { "not rotational" };
                format!("{kind}, scheduler {}", self.scheduler)
            }
        };
        vec![
            format!(
                "machine: Linux {}, {} x {}, {} MiB memory, io_uring {}",
                self.kernel,
                self.cpus,
                self.cpu,
                self.memory_bytes >> 20,
                self.io_uring
            ),
            format!("storage: {} on {} ({}), {disk}", self.fs, self.device, self.mount_options),
        ]
    }
}

/// The value of a line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The value of a line `name: 123 kB`.
pub(super) fn kib(text: &str, name: &str) -> u64 {
    field(text, name).and_then(|value| value.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    fs: String,
    options: String,
    source: String,
}

/// The mount of a device in `/proc/self/mountinfo` (proc(5)): of several the one that `directory` lies in, else the last. Subvolumes of
/// btrfs show another number in `stat` than here, so a mount point above the directory will do.
fn mount_of(text: &str, device: &str, directory: &Path) -> Option<Mount> {
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let mut best: Option<((bool, usize), Mount)> = None;
    for line in text.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let before: Vec<&str> = before.split(' ').collect();
        let after: Vec<&str> = after.split(' ').collect();
        let (&[_, _, number, _, point, options, ..], &[fs, source, fs_options, ..]) = (&before[..], &after[..]) else {
            continue;
        };
        let point = point.replace("\\040", " ");
        if !directory.starts_with(&point) {
            continue;
        }
        let rank = (number == device, point.len());
        // Later ones lie over earlier ones.
        if best.as_ref().is_none_or(|(best, _)| rank >= *best) {
            let options = format!("{options};{fs_options}");
            best = Some((rank, Mount { fs: fs.to_owned(), options, source: source.to_owned() }));
        }
    }
    best.map(|(_, mount)| mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 22 0:25 / /dev/shm rw,nosuid,nodev - tmpfs tmpfs rw,inode64
31 22 0:40 /sub /none/a\\040b rw,noatime - btrfs /dev/vdb rw,space_cache
";

    #[test]
    fn the_mount_is_found_by_device_and_place() {
        let fs = |device, dir: &str| mount_of(MOUNTS, device, Path::new(dir)).map(|m| (m.fs, m.options, m.source));
        let found = |fs: &str, options: &str, source: &str| Some((fs.into(), options.into(), source.into()));
        assert_eq!(fs("254:1", "/none"), found("ext4", "rw,relatime;rw,errors=remount-ro", "/dev/vda1"));
        assert_eq!(fs("0:25", "/dev/shm"), found("tmpfs", "rw,nosuid,nodev;rw,inode64", "tmpfs"));
        assert_eq!(fs("0:99", "/none/a b/c"), found("btrfs", "rw,noatime;rw,space_cache", "/dev/vdb"));
        assert_eq!(mount_of("rubbish\n1 2 - \n", "1:1", Path::new("/")), None);
    }

    #[test]
    fn this_machine_has_a_kernel_and_a_file_system() {
        let host = Host::look(Path::new("/dev/shm"), "granted".into());
        assert!(!host.kernel.is_empty() && host.cpus > 0 && host.memory_bytes > 0, "{host:?}");
        assert!(!host.fs.is_empty() && !host.mount_options.is_empty(), "{host:?}");
        assert_eq!(host.lines().len(), 2);
    }

    #[test]
    fn fields_are_read_by_their_whole_name() {
        let text = "MemTotal:       1024 kB\nMemFree: 7 kB\nmodel name\t: A CPU: 3 GHz\n";
        assert_eq!((kib(text, "MemTotal"), kib(text, "Mem")), (1024, 0));
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU: 3 GHz"));
    }
}
