//! What an engine counts about itself. Every number is exact and is counted before the answer it belongs to is given.

use std::sync::atomic::{AtomicU64, Ordering};

use super::stat::Class;

/// What an engine has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Batches of clients' appends answered.
    pub batches_interactive: u64,
    /// Batches of finish and preflight answered.
    pub batches_sweep: u64,
    /// Batches of jobs answered.
    pub batches_background: u64,
    /// Names answered, all ways together: the sum of the next four.
    pub statx: u64,
    /// Of these: answered inline by a plain system call.
    pub statx_inline: u64,
    /// Of these: answered from the kernel's name cache without waiting.
    pub statx_cached: u64,
    /// Of these: through the ring.
    pub statx_ring: u64,
    /// Of these: by the threads that stand in for the ring.
    pub statx_pool: u64,
    /// `io_uring_enter` calls that handed checks to the kernel.
    pub ring_submissions: u64,
    /// Checks in flight now.
    pub in_flight: u64,
    /// Most checks that were ever in flight together.
    pub in_flight_max: u64,
    /// Pieces of blocking file work done.
    pub jobs: u64,
    /// Changes of a thread's I/O priority between normal and idle.
    pub priority_changes: u64,
    /// What file work asked of the disk.
    pub disk: DiskCounts,
}

/// What was asked of a [`Disk`](super::Disk), presence checks aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Files and directories opened, made ones aside.
    pub opened: u64,
    /// Directories whose entries were read.
    pub directories_read: u64,
    /// Names told by directories that were read for presence checks.
    pub names_read: u64,
    /// Presence checks that were answered by one of these.
    pub checks_by_name: u64,
    /// Questions about one file: `stat`, `lstat`, `fstat`.
    pub stats: u64,
    /// Everything else.
    pub others: u64,
}

/// The live numbers of [`DiskCounts`].
#[derive(Debug, Default)]
pub(super) struct LiveCounts {
    opened: AtomicU64,
    directories_read: AtomicU64,
    names_read: AtomicU64,
    checks_by_name: AtomicU64,
    stats: AtomicU64,
    others: AtomicU64,
}

impl LiveCounts {
    pub(super) fn count(&self, op: &str) {
        let counter = match op {
            "open" => &self.opened,
            "readdir" => &self.directories_read,
            "stat" | "lstat" | "fstat" => &self.stats,
            _ => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn names_read(&self, names: u64, checks: u64) {
        self.names_read.fetch_add(names, Ordering::Relaxed);
        self.checks_by_name.fetch_add(checks, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> DiskCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskCounts {
            opened: read(&self.opened),
            directories_read: read(&self.directories_read),
            names_read: read(&self.names_read),
            checks_by_name: read(&self.checks_by_name),
            stats: read(&self.stats),
            others: read(&self.others),
        }
    }
}

/// How a check was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Plain system call on the engine's own thread.
    Inline,
    /// Out of the kernel's name cache.
    Cached,
    /// Through the ring.
    Ring,
    /// By a thread of the stat pool.
    Pool,
}

/// The live counters, shared between an engine's handle and its thread.
#[derive(Debug, Default)]
pub(super) struct Counters {
    batches: [AtomicU64; 3],
    answered: [AtomicU64; 4],
    ring_submissions: AtomicU64,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
}

impl Counters {
    pub(super) fn batch(&self, class: Class) {
        self.batches[class as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, way: Way, count: u64) {
        self.answered[way as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn ring_submission(&self) {
        self.ring_submissions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self, now: usize) {
        self.in_flight.store(now as u64, Ordering::Relaxed);
        self.in_flight_max.fetch_max(now as u64, Ordering::Relaxed);
    }

    /// All of them now; `jobs` is the pool's number, `priority_changes` that of all threads, `disk` are the disk's.
    pub(super) fn snapshot(&self, jobs: u64, priority_changes: u64, disk: DiskCounts) -> EngineCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [statx_inline, statx_cached, statx_ring, statx_pool] = self.answered.each_ref().map(read);
        EngineCounters {
            batches_interactive: read(&self.batches[Class::Interactive as usize]),
            batches_sweep: read(&self.batches[Class::Sweep as usize]),
            batches_background: read(&self.batches[Class::Background as usize]),
            statx: statx_inline + statx_cached + statx_ring + statx_pool,
            statx_inline,
            statx_cached,
            statx_ring,
            statx_pool,
            ring_submissions: read(&self.ring_submissions),
            in_flight: read(&self.in_flight),
            in_flight_max: read(&self.in_flight_max),
            jobs,
            priority_changes,
            disk,
        }
    }
}
