//! What the measurements share: rounds that alternate between the rivals, medians with their spread, processor time,
//! cold caches.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// `cargo test --all-targets` starts benches too, without this word; then there is nothing to do.
pub fn asked_for() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// A fresh folder below `BENCH_DIR` (the system's temporary folder if not set).
pub fn folder() -> tempfile::TempDir {
    let base = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(base).expect("a folder to work in")
}

/// The number that an environment variable gives.
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// Processor time of all threads of this process, the kernel's io_uring workers among them.
pub fn cpu_time() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(usage.tv_sec).unwrap_or(0), u32::try_from(usage.tv_nsec).unwrap_or(0))
}

/// Writes all back and forgets what is cached, names and inodes too. Needs root.
pub fn drop_caches() -> io::Result<()> {
    rustix::fs::sync();
    std::fs::OpenOptions::new().write(true).open("/proc/sys/vm/drop_caches")?.write_all(b"3")
}

/// What one round took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: Duration,
    pub cpu: Duration,
}

/// Measures what `work` takes.
pub fn measure(work: impl FnOnce()) -> Cost {
    let (cpu, wall) = (cpu_time(), Instant::now());
    work();
    Cost { wall: wall.elapsed(), cpu: cpu_time() - cpu }
}

/// Rounds of one rival in one cell.
#[derive(Clone, Debug, Default)]
pub struct Series {
    costs: Vec<Cost>,
}

impl Series {
    pub fn push(&mut self, cost: Cost) {
        self.costs.push(cost);
    }

    /// Median and extremes, in microseconds per operation, of the wall clock.
    pub fn wall_us(&self, operations: usize) -> Spread {
        Spread::of(self.costs.iter().map(|cost| per_operation_us(cost.wall, operations)).collect())
    }

    /// The same of processor time.
    pub fn cpu_us(&self, operations: usize) -> Spread {
        Spread::of(self.costs.iter().map(|cost| per_operation_us(cost.cpu, operations)).collect())
    }
}

fn per_operation_us(time: Duration, operations: usize) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(u32::try_from(operations).expect("a small number"))
}

/// A median between its extremes.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of values that need not be sorted.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.median < 100.0 { 1 } else { 0 };
        write!(f, "{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.min, self.max)
    }
}
