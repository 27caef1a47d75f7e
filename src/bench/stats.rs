//! What one job, or a group of them, has measured so far. Pure.

use std::time::Duration;

/// Direction of an I/O; checks count as reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Data or metadata comes from the disk.
    Read,
    /// Data goes to the disk.
    Write,
    /// Chunks are removed.
    Trim,
}

/// I/Os of one direction that were submitted together and answered together.
#[derive(Clone, Copy, Debug)]
pub struct Io {
    /// Which way.
    pub direction: Direction,
    /// How many.
    pub count: u32,
    /// Bytes of all of them; a check has none.
    pub bytes: u64,
    /// From the first of them ready to all handed over.
    pub slat: Duration,
    /// From there to the last answer.
    pub clat: Duration,
    /// I/Os of this job in flight while they were, themselves included.
    pub depth: u32,
}

/// What has been measured. Merges with others of its group.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// I/Os by direction.
    pub ios: [u64; 3],
    /// Bytes by direction.
    pub bytes: [u64; 3],
}

impl Stats {
    /// Takes in one answer; `at` is the time since the job began to count.
    pub fn add(&mut self, io: &Io, at: Duration) {
        let _ = at;
        self.ios[io.direction as usize] += u64::from(io.count);
        self.bytes[io.direction as usize] += io.bytes;
    }

    /// Takes in what another job of the group measured.
    pub fn merge(&mut self, other: &Self) {
        for at in 0..3 {
            self.ios[at] += other.ios[at];
            self.bytes[at] += other.bytes[at];
        }
    }
}
