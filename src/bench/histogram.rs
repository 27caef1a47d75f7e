//! Latencies in fio's buckets, so that the bins of `json+` have fio's bounds. Pure.
//!
//! Up to 127 ns each nanosecond has a bucket; above, each doubling is cut into 64. A bucket stands for its middle: less than 1 % away.

use super::spread::as_f64;

/// Buckets of each doubling, as a power of two.
const STEP_BITS: u32 = 6;
const STEPS: usize = 1 << STEP_BITS;

/// Bounds memory; the last bucket begins at 17 s, and takes what is longer.
const BUCKETS: usize = 29 * STEPS;

/// How many latencies fell into which bucket. At most 15 KiB.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// As long as the last bucket in use asks for.
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Takes in `count` latencies of `nanos`.
    pub fn add(&mut self, nanos: u64, count: u64) {
        let bucket = bucket_of(nanos);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += count;
        self.total += count;
    }

    /// Takes in what another one saw.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (own, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *own += theirs;
        }
        self.total += other.total;
    }

    /// Buckets that are not empty, ascending: nanoseconds in their middle, count.
    pub fn bins(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bucket, count)| (middle_of(bucket), *count))
    }

    /// Nanoseconds that `percent` of the latencies do not exceed; 0 of none.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = percent / 100.0 * as_f64(self.total);
        let mut sum = 0;
        let mut last = 0;
        for (nanos, count) in self.bins() {
            sum += count;
            last = nanos;
            if as_f64(sum) >= wanted {
                break;
            }
        }
        last
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.total
    }
}

fn bucket_of(nanos: u64) -> usize {
    let Some(top_bit) = nanos.checked_ilog2() else { return 0 };
    let shift = top_bit.saturating_sub(STEP_BITS);
    // Below 128 the shift is 0, and the bucket is the number itself.
    let steps = usize::try_from(nanos >> shift).expect("seven bits");
    (shift as usize * STEPS + steps).min(BUCKETS - 1)
}

fn middle_of(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    let steps = (bucket - shift * STEPS) as u64;
    (steps << shift) + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_have_the_middles_that_fio_prints() {
        // From the bins of a run of fio 3.33.
        for printed in [0, 68, 127, 302, 306, 510, 516, 524, 1020, 1032, 1048, 2008, 9152, 30_592, 207_872, 4_014_080] {
            assert_eq!(middle_of(bucket_of(printed)), printed);
        }
    }

    #[test]
    fn each_number_lies_in_a_bucket_less_than_one_percent_away() {
        let mut nanos = 1_u64;
        while nanos < 16_000_000_000 {
            let middle = middle_of(bucket_of(nanos));
            assert!(middle.abs_diff(nanos) * 100 <= nanos, "{nanos} in {middle}");
            nanos += nanos / 50 + 1;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_count_from_below() {
        let mut low = Histogram::default();
        low.add(10, 90);
        let mut high = Histogram::default();
        high.add(100, 9);
        high.add(127, 1);
        low.merge(&high);
        let at = |percent| low.percentile(percent);
        assert_eq!((at(1.0), at(90.0), at(90.5), at(99.0), at(99.5), at(100.0)), (10, 10, 100, 100, 127, 127));
        assert_eq!((low.total(), Histogram::default().percentile(50.0)), (100, 0));
        assert_eq!(low.bins().collect::<Vec<_>>(), [(10, 90), (100, 9), (127, 1)]);
    }
}
