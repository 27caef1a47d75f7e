//! What the machine says of itself: processors, memory, load, root file system, kernel, identity.
//!
//! Texts of proc(5) are read by pure functions; reading the files is left to [`Host::look`], which blocks for microseconds and belongs on the compute pool.

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use crate::error::{Error, IoContext, Result};

/// Ticks of all processors together since boot, from the first line of `/proc/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTicks {
    total: u64,
    idle: u64,
    io_wait: u64,
}

impl CpuTicks {
    /// Now.
    pub(super) fn read() -> Result<Self> {
        Ok(Self::parse(&read("/proc/stat")?))
    }

    fn parse(stat: &str) -> Self {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or("");
        // user nice system idle iowait irq softirq steal; guest time, which follows, is part of user time.
        let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
        let at = |place: usize| ticks.get(place).copied().unwrap_or_default();
        Self { total: ticks.iter().sum(), idle: at(3), io_wait: at(4) }
    }

    /// Parts of the time since `before` that processors worked, and that they waited for disks: 0 to 1 each.
    pub(super) fn since(self, before: Self) -> (f64, f64) {
        let passed = |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).map_or(f64::MAX, f64::from);
        let total = passed(self.total, before.total);
        if total <= 0.0 {
            return (0.0, 0.0);
        }
        let (idle, wait) = (passed(self.idle, before.idle), passed(self.io_wait, before.io_wait));
        (((total - idle - wait) / total).clamp(0.0, 1.0), (wait / total).clamp(0.0, 1.0))
    }
}

/// Bytes of memory or swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    pub total: u64,
    pub used: u64,
    pub free: u64,
}

/// Bytes of the root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Root {
    pub total: u64,
    pub used: u64,
    pub avail: u64,
}

/// The processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct CpuInfo {
    pub model: String,
    pub sockets: usize,
    pub cpus: usize,
}

/// What changes from call to call, processor time aside.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Host {
    pub loadavg: [f64; 3],
    pub memory: Memory,
    pub swap: Memory,
    pub root: Root,
    pub uptime: u64,
    pub kversion: String,
    #[serde(rename = "current-kernel")]
    pub current_kernel: Kernel,
    #[serde(rename = "boot-info")]
    pub boot_info: BootInfo,
    pub cpuinfo: CpuInfo,
}

/// The kernel, as uname(2) has it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Kernel {
    pub sysname: String,
    pub release: String,
    pub version: String,
    pub machine: String,
}

/// How the machine started.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct BootInfo {
    pub mode: &'static str,
}

impl Host {
    /// Asks the kernel. Blocks.
    pub(super) fn look() -> Result<Self> {
        let root =
            rustix::fs::statvfs("/").map_err(std::io::Error::from).io_context(|| "ask for the space of \"/\"")?;
        let bytes = |blocks: u64| blocks.saturating_mul(root.f_frsize);
        let (memory, swap) = memory(&read("/proc/meminfo")?);
        let kernel = rustix::system::uname();
        let word = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let current_kernel = Kernel {
            sysname: word(kernel.sysname()),
            release: word(kernel.release()),
            version: word(kernel.version()),
            machine: word(kernel.machine()),
        };
        // Linux makes this directory when the firmware has handed over by EFI.
        let is_efi = std::path::Path::new("/sys/firmware/efi").exists();
        Ok(Self {
            loadavg: loadavg(&read("/proc/loadavg")?),
            memory,
            swap,
            root: Root {
                total: bytes(root.f_blocks),
                used: bytes(root.f_blocks.saturating_sub(root.f_bfree)),
                avail: bytes(root.f_bavail),
            },
            uptime: uptime(&read("/proc/uptime")?),
            kversion: format!("{} {} {}", current_kernel.sysname, current_kernel.release, current_kernel.version),
            current_kernel,
            boot_info: BootInfo { mode: if is_efi { "efi" } else { "legacy-bios" } },
            cpuinfo: cpuinfo(&read("/proc/cpuinfo")?),
        })
    }
}

/// An id of this machine that stays, and that does not tell the machine id, which is a secret of sorts (machine-id(5)). Blocks.
pub(super) fn instance_id() -> Result<String> {
    let id = read("/etc/machine-id").ok().filter(|text| !text.trim().is_empty());
    let id = id.ok_or_else(|| {
        Error::not_found("this machine has no id in \"/etc/machine-id\": systemd-machine-id-setup makes one")
    })?;
    Ok(derived_id(id.trim()))
}

/// 128 bits in hex from a keyed hash: who has them cannot go back, and other programs that do the same get others.
fn derived_id(machine_id: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(machine_id.as_bytes()).expect("any length is a key");
    hex::encode(&mac.chain_update("ringvault instance").finalize().into_bytes()[..16])
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).io_context(|| format!("read {path:?}"))
}

fn loadavg(text: &str) -> [f64; 3] {
    let mut words = text.split_ascii_whitespace().map(|word| word.parse().unwrap_or_default());
    std::array::from_fn(|_| words.next().unwrap_or_default())
}

fn uptime(text: &str) -> u64 {
    text.split(['.', ' ']).next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
}

/// Memory and swap. Memory that the kernel gives back at once when asked counts as free.
fn memory(meminfo: &str) -> (Memory, Memory) {
    let bytes = |key: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_default().saturating_mul(1024)
    };
    let of = |total: u64, free: u64| Memory { total, used: total.saturating_sub(free), free };
    (of(bytes("MemTotal"), bytes("MemAvailable")), of(bytes("SwapTotal"), bytes("SwapFree")))
}

fn cpuinfo(text: &str) -> CpuInfo {
    let values = |key: &'static str| {
        text.lines().filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim())
        })
    };
    let sockets: std::collections::BTreeSet<&str> = values("physical id").collect();
    CpuInfo {
        model: values("model name").next().unwrap_or("unknown").to_owned(),
        // Architectures without these words have one socket as far as anybody can tell.
        sockets: sockets.len().max(1),
        cpus: values("processor").count().max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_kernel_are_read() {
        let stat = "cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2 3\nintr 5\n";
        let before = CpuTicks::parse(stat);
        assert_eq!(before, CpuTicks { total: 1000, idle: 800, io_wait: 50 });
        let after = CpuTicks { total: 1100, idle: 850, io_wait: 70 };
        assert_eq!(after.since(before), (0.3, 0.2));
        assert_eq!(before.since(before), (0.0, 0.0));
        assert_eq!(CpuTicks::parse(""), CpuTicks::default());

        assert_eq!(loadavg("0.50 1.25 2.00 3/400 12345\n"), [0.5, 1.25, 2.0]);
        assert_eq!(uptime("12345.67 54321.00\n"), 12345);

        let meminfo = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable:  600 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n";
        let (ram, swap) = memory(meminfo);
        assert_eq!(ram, Memory { total: 1_024_000, used: 409_600, free: 614_400 });
        assert_eq!(swap, Memory { total: 10_240, used: 6144, free: 4096 });

        let two = "processor\t: 0\nmodel name\t: Fast One: X\nphysical id\t: 0\n\nprocessor\t: 1\nmodel name\t: Fast One: X\nphysical id\t: 1\n";
        assert_eq!(cpuinfo(two), CpuInfo { model: "Fast One: X".to_owned(), sockets: 2, cpus: 2 });
        assert_eq!(cpuinfo("processor : 0\n"), CpuInfo { model: "unknown".to_owned(), sockets: 1, cpus: 1 });
    }

    #[test]
    fn the_instance_id_stays_and_hides_the_machine_id() {
        let machine = "0123456789abcdef0123456789abcdef";
        let id = derived_id(machine);
        assert_eq!(id, derived_id(machine));
        assert_eq!((id.len(), id.contains("0123")), (32, false));
        assert_ne!(id, derived_id("0123456789abcdef0123456789abcdee"));
    }

    #[test]
    fn this_machine_can_be_asked() {
        let host = Host::look().unwrap();
        assert!(host.memory.total >= host.memory.used && host.memory.total > 0);
        assert!(host.root.total > 0 && host.cpuinfo.cpus > 0 && host.kversion.starts_with("Linux "));
        let (cpu, wait) = CpuTicks::read().unwrap().since(CpuTicks::default());
        assert!((0.0..=1.0).contains(&cpu) && (0.0..=1.0).contains(&wait));
    }
}
