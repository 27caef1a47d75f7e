//! What one job, or a group of them, has measured so far. Pure.

use std::time::Duration;

use super::histogram::Histogram;
use super::spread::Spread;

/// How long bandwidth and I/Os are averaged for one sample, as in fio.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// Upper ends of a unit's latencies in the report; what is longer belongs to the next unit.
pub const LATENCY_STEPS: [u64; 10] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000];

/// I/Os in flight: each step covers what is below the next.
pub const DEPTH_STEPS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

/// I/Os of one call: each step covers what is above the one before; the seventh is for more than the last.
pub const CALL_STEPS: [u32; 6] = [0, 4, 8, 16, 32, 64];

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
    /// From the first of them ready to all handed over; zero where one call does both, which then counts as no submission at all, as with
    /// fio's synchronous engines.
    pub slat: Duration,
    /// From there to the last answer.
    pub clat: Duration,
    /// I/Os of this job in flight while they were, themselves included.
    pub depth: u32,
}

/// What has been measured. Merges with others of its group. Memory is bounded, however long it goes on.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// I/Os by direction.
    pub ios: [u64; 3],
    /// Bytes by direction.
    pub bytes: [u64; 3],
    /// Latencies and rates by direction.
    pub ways: [Way; 3],
    /// How long each wait for stable storage took, in ns.
    pub syncs: Timing,
    /// I/Os by how many were in flight ([`DEPTH_STEPS`]).
    pub depths: [u64; 7],
    /// Calls by how many I/Os they submitted ([`CALL_STEPS`]).
    pub submits: [u64; 7],
    /// Calls by how many I/Os they brought back ([`CALL_STEPS`]).
    pub completes: [u64; 7],
    /// I/Os by completion latency: ns, µs and ms ([`LATENCY_STEPS`]), then below 2 s, then the rest.
    pub latencies: [u64; 32],
}

/// One direction.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Submission, in ns.
    pub slat: Spread,
    /// Completion, in ns.
    pub clat: Timing,
    /// Both together, in ns.
    pub lat: Spread,
    /// KiB a second, one of each [`SAMPLE_INTERVAL`].
    pub bw: Spread,
    /// I/Os a second, the same.
    pub iops: Spread,
    window: Window,
}

/// Latencies with their distribution.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    /// In ns.
    pub spread: Spread,
    /// In ns.
    pub histogram: Histogram,
}

/// The sample that is being taken.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    number: u64,
    ios: u64,
    bytes: u64,
}

impl Stats {
    /// Takes in one answer; `at` is the time since the job began to count.
    pub fn add(&mut self, io: &Io, at: Duration) {
        if io.count == 0 {
            return;
        }
        let count = u64::from(io.count);
        self.ios[io.direction as usize] += count;
        self.bytes[io.direction as usize] += io.bytes;
        self.ways[io.direction as usize].add(io, at);
        self.depths[DEPTH_STEPS.iter().rposition(|step| io.depth.max(1) >= *step).unwrap_or(0)] += count;
        self.submits[call_step(io.count)] += 1;
        self.completes[call_step(io.count)] += 1;
        self.latencies[latency_step(nanos(io.clat))] += count;
    }

    /// Takes in one wait for stable storage.
    pub fn add_sync(&mut self, took: Duration) {
        self.syncs.add(nanos(took), 1);
    }

    /// Takes in what another job of the group measured.
    pub fn merge(&mut self, other: &Self) {
        add_each(&mut self.ios, &other.ios);
        add_each(&mut self.bytes, &other.bytes);
        for (own, theirs) in self.ways.iter_mut().zip(&other.ways) {
            own.merge(theirs);
        }
        self.syncs.merge(&other.syncs);
        add_each(&mut self.depths, &other.depths);
        add_each(&mut self.submits, &other.submits);
        add_each(&mut self.completes, &other.completes);
        add_each(&mut self.latencies, &other.latencies);
    }
}

impl Way {
    fn add(&mut self, io: &Io, at: Duration) {
        let count = u64::from(io.count);
        if !io.slat.is_zero() {
            self.slat.add(nanos(io.slat), count);
        }
        self.clat.add(nanos(io.clat), count);
        self.lat.add(nanos(io.slat.saturating_add(io.clat)), count);
        let (ios, bytes) = self.close_windows(at, io);
        self.window.ios += count - ios;
        self.window.bytes += io.bytes - bytes;
    }

    /// Ends the samples that are over at `at`. Of I/Os that took longer than a sample, the share of the windows that end now is in
    /// these: it comes back. In a window without an I/O nothing came.
    fn close_windows(&mut self, at: Duration, io: &Io) -> (u64, u64) {
        let number = u64::try_from(at.as_nanos() / SAMPLE_INTERVAL.as_nanos()).unwrap_or(u64::MAX);
        let Some(over) = number.checked_sub(self.window.number).filter(|over| *over > 0) else { return (0, 0) };
        let took = nanos(io.slat.saturating_add(io.clat));
        // Windows that it was under way in from end to end.
        let whole = over.min(took / nanos(SAMPLE_INTERVAL));
        let of_window = |amount: u64| {
            let share = u128::from(amount) * SAMPLE_INTERVAL.as_nanos() / u128::from(took.max(1));
            if whole == 0 { 0 } else { u64::try_from(share).unwrap_or(u64::MAX) }
        };
        let (ios, bytes) = (of_window(u64::from(io.count)), of_window(io.bytes));
        let per_second = |n: u64| n.saturating_mul(1000) / 500;
        let mut sample = |ios: u64, bytes: u64, windows: u64| {
            self.iops.add(per_second(ios), windows);
            self.bw.add(per_second(bytes) / 1024, windows);
        };
        let first_is_whole = u64::from(whole == over);
        sample(self.window.ios + ios * first_is_whole, self.window.bytes + bytes * first_is_whole, 1);
        sample(ios, bytes, whole - first_is_whole);
        sample(0, 0, over - 1 - (whole - first_is_whole));
        self.window = Window { number, ios: 0, bytes: 0 };
        (ios * whole, bytes * whole)
    }

    fn merge(&mut self, other: &Self) {
        self.slat.append(&other.slat);
        self.clat.merge(&other.clat);
        self.lat.append(&other.lat);
        self.bw.stack(&other.bw);
        self.iops.stack(&other.iops);
    }
}

impl Timing {
    fn add(&mut self, nanos: u64, count: u64) {
        self.spread.add(nanos, count);
        self.histogram.add(nanos, count);
    }

    fn merge(&mut self, other: &Self) {
        self.spread.append(&other.spread);
        self.histogram.merge(&other.histogram);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn add_each<const N: usize>(own: &mut [u64; N], theirs: &[u64; N]) {
    for (own, theirs) in own.iter_mut().zip(theirs) {
        *own += theirs;
    }
}

fn call_step(ios: u32) -> usize {
    CALL_STEPS.iter().position(|step| ios <= *step).unwrap_or(CALL_STEPS.len())
}

fn latency_step(nanos: u64) -> usize {
    let (unit, value) = match nanos {
        0..1_000 => (0, nanos),
        1_000..1_000_000 => (1, nanos / 1_000),
        1_000_000..1_000_000_000 => (2, nanos / 1_000_000),
        1_000_000_000..2_000_000_000 => return 30,
        _ => return 31,
    };
    let step = LATENCY_STEPS.iter().position(|step| value < *step).unwrap_or(LATENCY_STEPS.len() - 1);
    unit * LATENCY_STEPS.len() + step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(count: u32, clat: Duration) -> Io {
        let bytes = u64::from(count) * 4096;
        Io { direction: Direction::Read, count, bytes, slat: Duration::from_nanos(500), clat, depth: count }
    }

    #[test]
    fn a_batch_counts_each_of_its_ios_with_the_latency_of_all() {
        let mut stats = Stats::default();
        stats.add(&io(128, Duration::from_micros(3)), Duration::ZERO);
        stats.add(&io(1, Duration::from_millis(7)), Duration::ZERO);
        stats.add(&io(0, Duration::ZERO), Duration::ZERO);
        let way = &stats.ways[0];
        assert_eq!((stats.ios[0], stats.bytes[0]), (129, 129 * 4096));
        assert_eq!((way.clat.spread.count(), way.clat.spread.min(), way.clat.spread.max()), (129, 3_000, 7_000_000));
        assert_eq!((way.lat.min(), way.slat.max()), (3_500, 500));
        assert_eq!((stats.depths, stats.submits), ([1, 0, 0, 0, 0, 0, 128], [0, 1, 0, 0, 0, 0, 1]));
        assert_eq!((stats.latencies[11], stats.latencies[22]), (128, 1), "below 4 us, below 10 ms");
    }

    #[test]
    fn each_half_second_is_a_sample_and_an_idle_one_is_none_less() {
        let mut stats = Stats::default();
        for at in [0, 100, 499, 700, 2600] {
            stats.add(&io(100, Duration::from_micros(1)), Duration::from_millis(at));
        }
        let way = &stats.ways[0];
        assert_eq!((way.iops.count(), way.iops.max(), way.iops.min()), (5, 600, 0));
        assert!((way.iops.mean() - 160.0).abs() < 1e-9, "600, 200, 0, 0, 0");
        assert_eq!(way.bw.max(), 2400);
        let mut both = Stats::default();
        both.merge(&stats);
        both.merge(&stats);
        assert_eq!((both.ios[0], both.ways[0].iops.max(), both.ways[0].iops.count()), (1000, 1200, 10));
        assert_eq!(both.ways[0].clat.histogram.total(), 1000);
    }

    #[test]
    fn a_long_batch_is_shared_out_over_the_samples_that_it_took() {
        let mut stats = Stats::default();
        stats.add(&io(1000, Duration::from_millis(2500)), Duration::from_millis(2600));
        let iops = &stats.ways[0].iops;
        assert_eq!((iops.count(), iops.min(), iops.max()), (5, 398, 398));
        // It takes two of the three that end with it; the first one had nothing.
        let mut late = Stats::default();
        late.add(&io(1000, Duration::from_millis(1000)), Duration::from_millis(1700));
        late.add(&io(1, Duration::from_millis(1)), Duration::from_millis(2100));
        let iops = &late.ways[0].iops;
        assert_eq!((iops.count(), iops.min(), iops.max()), (4, 0, 998));
        assert!((iops.mean() - 500.0).abs() < 1e-9, "{}", iops.mean());
    }

    #[test]
    fn steps_begin_and_end_where_fio_has_them() {
        for (ns, step) in [(0, 0), (1, 0), (2, 1), (999, 9), (1_000, 10), (1_999, 10), (999_999, 19), (1_000_000, 20)] {
            assert_eq!(latency_step(ns), step, "{ns}");
        }
        assert_eq!([999_999_999, 1_000_000_000, 1_999_999_999, 2_000_000_000].map(latency_step), [29, 30, 30, 31]);
        assert_eq!([0, 1, 4, 5, 64, 65].map(call_step), [0, 1, 1, 2, 5, 6]);
    }
}
