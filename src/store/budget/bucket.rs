//! A rate, as a bucket that fills and is drawn from. Pure.

use std::num::NonZeroU64;
use std::time::Duration;

/// How much of a second's worth may be drawn at once after a pause: a tenth, so that a backup that arrives meets no long burst.
const BURST_DIVISOR: i128 = 10;

/// What one unit is in the numbers below: a unit a second fills one of them a nanosecond, so no time is lost to rounding.
const UNIT: i128 = 1_000_000_000;

/// So many units a second. Times are since any moment, the same for all calls.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate: NonZeroU64,
    /// In billionths of a unit; below nothing when more was drawn than was there.
    level: i128,
    filled_at: Duration,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: NonZeroU64, now: Duration) -> Self {
        let mut bucket = Self { rate, level: 0, filled_at: now };
        bucket.level = bucket.burst();
        bucket
    }

    /// The rate in units a second.
    pub(super) fn rate(&self) -> NonZeroU64 {
        self.rate
    }

    /// Most units that are there at once: never fewer than one, or nothing could be drawn.
    pub(super) fn burst_units(&self) -> u64 {
        (self.rate.get() / 10).max(1)
    }

    fn burst(&self) -> i128 {
        (i128::from(self.rate.get()) * UNIT / BURST_DIVISOR).max(UNIT)
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled_at).as_nanos();
        let filled = i128::try_from(passed).unwrap_or(i128::MAX).saturating_mul(i128::from(self.rate.get()));
        self.level = self.level.saturating_add(filled).min(self.burst());
        self.filled_at = self.filled_at.max(now);
    }

    /// How long it takes until `units` may be drawn. What is more than a bucket holds may be drawn from a full one, and leaves a debt.
    pub(super) fn wait(&mut self, now: Duration, units: u64) -> Duration {
        self.fill(now);
        let wanted = (i128::from(units) * UNIT).min(self.burst());
        let short = u128::try_from(wanted - self.level).unwrap_or(0);
        let nanos = short.div_ceil(u128::from(self.rate.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Draws, whether so much is there or not.
    pub(super) fn draw(&mut self, units: u64) {
        self.level = self.level.saturating_sub(i128::from(units) * UNIT);
    }

    /// Puts back what was drawn and not needed.
    pub(super) fn put_back(&mut self, units: u64) {
        self.level = self.level.saturating_add(i128::from(units) * UNIT).min(self.burst());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket(rate: u64) -> Bucket {
        Bucket::new(NonZeroU64::new(rate).unwrap(), Duration::ZERO)
    }

    #[test]
    fn a_full_bucket_gives_a_tenth_of_a_second_and_then_the_rate() {
        let mut bucket = bucket(100);
        let mut now = Duration::ZERO;
        let mut at = Vec::new();
        for _ in 0..13 {
            now += bucket.wait(now, 1);
            bucket.draw(1);
            at.push(now.as_millis());
        }
        assert_eq!(at, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 20, 30]);
    }

    #[test]
    fn a_slow_rate_still_gives_one_at_a_time() {
        let mut bucket = bucket(2);
        assert_eq!(bucket.wait(Duration::ZERO, 1), Duration::ZERO);
        bucket.draw(1);
        assert_eq!(bucket.wait(Duration::ZERO, 1), Duration::from_millis(500));
        assert_eq!(bucket.wait(Duration::from_millis(300), 1), Duration::from_millis(200));
    }

    #[test]
    fn what_is_larger_than_the_bucket_leaves_a_debt_and_what_was_not_needed_comes_back() {
        let mut bucket = bucket(100);
        assert_eq!(bucket.wait(Duration::ZERO, 1000), Duration::ZERO, "from a full one");
        bucket.draw(1000);
        assert_eq!(bucket.wait(Duration::ZERO, 1), Duration::from_millis(9910));
        bucket.put_back(900);
        assert_eq!(bucket.wait(Duration::ZERO, 1), Duration::from_millis(910));
        bucket.put_back(u64::MAX);
        assert_eq!(bucket.wait(Duration::ZERO, 10), Duration::ZERO);
        assert_eq!(bucket.wait(Duration::ZERO, 11), Duration::ZERO, "no more than it holds");
        bucket.draw(10);
        assert_eq!(bucket.wait(Duration::ZERO, 1), Duration::from_millis(10));
    }

    proptest! {
        /// However drawn from, in no stretch of time comes more out of it than the rate, one burst, and the excess of the last piece.
        #[test]
        fn no_stretch_of_time_sees_more_than_rate_and_burst(
            rate in 1u64..5000,
            asks in proptest::collection::vec((0u64..3_000_000_000, 1u64..700), 1..60),
        ) {
            let mut bucket = bucket(rate);
            let burst = bucket.burst_units();
            let (mut now, mut drawn) = (Duration::ZERO, Vec::new());
            for (idle_nanos, units) in asks {
                now += Duration::from_nanos(idle_nanos);
                now += bucket.wait(now, units);
                prop_assert_eq!(bucket.wait(now, units), Duration::ZERO, "a wait is long enough");
                bucket.draw(units);
                drawn.push((now, units));
            }
            for first in 0..drawn.len() {
                let mut sum = 0;
                for (at, units) in &drawn[first..] {
                    sum += units;
                    let passed = (*at - drawn[first].0).as_nanos();
                    let allowed = u128::from(rate) * passed / 1_000_000_000 + u128::from(burst.max(*units)) + 1;
                    prop_assert!(u128::from(sum) <= allowed, "{sum} > {allowed} after {passed} ns");
                }
            }
        }

        /// And whoever waits gets it: as much as the rate says, but for one piece.
        #[test]
        fn whoever_keeps_asking_gets_the_rate(rate in 1u64..5000, units in 1u64..500) {
            let mut bucket = bucket(rate);
            let (mut now, mut sum) = (Duration::ZERO, 0);
            for _ in 0..50 {
                now += bucket.wait(now, units);
                bucket.draw(units);
                sum += units;
            }
            let due = u128::from(rate) * now.as_nanos() / 1_000_000_000;
            prop_assert!(u128::from(sum) + u128::from(units) >= due);
        }
    }
}
