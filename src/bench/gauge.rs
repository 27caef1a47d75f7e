//! What is read before and after a job counts: engine, device, processor time, memory.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::host::kib;
use super::outcome::Usage;
use crate::engine::{Engine, EngineCounters};

/// Ticks a second of the times in `/proc` (`USER_HZ`, which every platform of Linux fixes at 100).
const TICKS_PER_SEC: u64 = 100;

/// The counters of one moment.
#[derive(Clone, Debug)]
pub struct Gauge {
    engine: Option<EngineCounters>,
    device: Option<Device>,
}

/// Requests that a block device has completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Device {
    reads: u64,
    read_sectors: u64,
    writes: u64,
    written_sectors: u64,
}

impl Gauge {
    /// Reads what `engine` and the device `major:minor` have counted.
    pub fn read(engine: Option<&Engine>, device_number: &str) -> Self {
        let stats = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
        Self { engine: engine.map(Engine::counters), device: device_of(&stats, device_number) }
    }

    /// What was counted since `before`, for the report; `ios` are the chunks of all runs of the job.
    pub fn since(&self, before: &Self, ios: u64) -> Map<String, Value> {
        let mut map = Map::new();
        if let (Some(now), Some(was)) = (self.engine, before.engine) {
            let (disk, disk_was) = (now.disk, was.disk);
            map.insert(
                "counters".into(),
                json!({
                    "statx": now.statx - was.statx,
                    "statx_inline": now.statx_inline - was.statx_inline,
                    "statx_cached": now.statx_cached - was.statx_cached,
                    "statx_ring": now.statx_ring - was.statx_ring,
                    "statx_pool": now.statx_pool - was.statx_pool,
                    "batches_interactive": now.batches_interactive - was.batches_interactive,
                    "batches_sweep": now.batches_sweep - was.batches_sweep,
                    "ring_submissions": now.ring_submissions - was.ring_submissions,
                    "in_flight_max": now.in_flight_max,
                    "jobs": now.jobs - was.jobs,
                    "files_opened": disk.opened - disk_was.opened,
                    "directories_read": disk.directories_read - disk_was.directories_read,
                    "files_asked": disk.stats - disk_was.stats,
                    "other_operations": disk.others - disk_was.others,
                }),
            );
        }
        if let (Some(now), Some(was)) = (self.device, before.device) {
            let reads = now.reads - was.reads;
            map.insert(
                "device".into(),
                json!({
                    "reads": reads,
                    "read_bytes": (now.read_sectors - was.read_sectors) * 512,
                    "writes": now.writes - was.writes,
                    "written_bytes": (now.written_sectors - was.written_sectors) * 512,
                    "reads_per_1000_chunks": per_thousand(reads, ios),
                }),
            );
        }
        map
    }
}

/// To one place; `null` without chunks.
#[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
fn per_thousand(reads: u64, ios: u64) -> Option<f64> {
    (ios > 0).then(|| (reads as f64 * 10_000.0 / ios as f64).round() / 10.0)
}

/// The line of a device in `/proc/diskstats` (Documentation/admin-guide/iostats.rst).
fn device_of(stats: &str, number: &str) -> Option<Device> {
    let (major, minor) = number.split_once(':')?;
    stats.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.get(..2)? != [major, minor] {
            return None;
        }
        let field = |at: usize| fields.get(at)?.parse().ok();
        Some(Device { reads: field(3)?, read_sectors: field(5)?, writes: field(7)?, written_sectors: field(9)? })
    })
}

/// Processor time, faults and switches of this process so far. Switches are those of the threads that live.
pub fn usage() -> Usage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut usage = usage_of(&read("/proc/self/stat"));
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        usage.switches += kib(&status, "voluntary_ctxt_switches") + kib(&status, "nonvoluntary_ctxt_switches");
    }
    usage
}

/// `proc_pid_stat(5)`: faults are the fields 10 and 12, times 14 and 15; the name in field 2 may hold blanks.
fn usage_of(stat: &str) -> Usage {
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let time = |number| Duration::from_millis(field(number) * 1000 / TICKS_PER_SEC);
    Usage { user: time(14), system: time(15), switches: 0, major_faults: field(12), minor_faults: field(10) }
}

/// What each of `jobs` had of what was used since `before`.
pub fn share(now: Usage, before: Usage, jobs: u32) -> Usage {
    let each = |now: u64, before: u64| now.saturating_sub(before) / u64::from(jobs.max(1));
    let time = |now: Duration, before: Duration| now.saturating_sub(before) / jobs.max(1);
    Usage {
        user: time(now.user, before.user),
        system: time(now.system, before.system),
        switches: each(now.switches, before.switches),
        major_faults: each(now.major_faults, before.major_faults),
        minor_faults: each(now.minor_faults, before.minor_faults),
    }
}

/// Memory of this process in KiB: now, and at most since [`forget_peak`].
pub fn memory_kib() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    (kib(&status, "VmRSS"), kib(&status, "VmHWM"))
}

/// Starts the peak anew (`proc_pid_clear_refs(5)`), where that is permitted.
pub fn forget_peak() {
    let file = std::fs::OpenOptions::new().write(true).open("/proc/self/clear_refs");
    if let Err(error) = file.and_then(|mut file| std::io::Write::write_all(&mut file, b"5")) {
        tracing::debug!(%error, "the peak of memory counts from the start of the process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_device_is_read() {
        let stats = " 254       0 vda 9 0 80 1 2 0 16 1 0 1 2 0 0 0 0\n 254       1 vda1 7 0 64 1 3 0 24 1 0 1 2\n";
        let device = device_of(stats, "254:1").unwrap();
        assert_eq!((device.reads, device.read_sectors, device.writes, device.written_sectors), (7, 64, 3, 24));
        assert_eq!(device_of(stats, "0:25"), None);
        assert_eq!((per_thousand(5, 1000), per_thousand(1, 3000), per_thousand(1, 0)), (Some(5.0), Some(0.3), None));
    }

    #[test]
    fn usage_is_read_behind_a_strange_name() {
        let stat = "1 (a) b c) R 1 1 1 0 -1 4194304 77 0 5 0 123 45 0 0 20 0 9 0";
        let usage = usage_of(stat);
        assert_eq!((usage.minor_faults, usage.major_faults), (77, 5));
        assert_eq!((usage.user, usage.system), (Duration::from_millis(1230), Duration::from_millis(450)));
        assert!(memory_kib().1 >= memory_kib().0 / 2);
    }
}
