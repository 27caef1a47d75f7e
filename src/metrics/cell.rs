//! What counts: counters, levels and histograms, each an atomic number or a row of them. Nothing here takes a lock.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::exposition::{Exposition, Metric};

/// A label whose values are all known when the program is built, so that a cell is found by arithmetic.
pub trait Label: Copy + 'static {
    /// All values, in the order of [`Self::pos`].
    const ALL: &'static [Self];

    /// Its place in [`Self::ALL`].
    fn pos(self) -> usize;

    /// As it is shown.
    fn word(self) -> &'static str;
}

/// Makes an enum a [`Label`]: `labels!(Place { Append: "append", Finish: "finish" })`.
macro_rules! labels {
    ($name:ty { $($value:ident: $word:literal),+ $(,)? }) => {
        impl $crate::metrics::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn pos(self) -> usize {
                Self::ALL.iter().position(|value| *value == self).unwrap_or_default()
            }

            fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word),+
                }
            }
        }
    };
}
pub(super) use labels;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// One more.
    pub fn rise(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One fewer.
    pub fn fall(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One cell for each value of a label.
#[derive(Debug)]
pub struct Row<L, C> {
    cells: Box<[C]>,
    label: std::marker::PhantomData<L>,
}

impl<L: Label, C: Default> Default for Row<L, C> {
    fn default() -> Self {
        Self { cells: L::ALL.iter().map(|_| C::default()).collect(), label: std::marker::PhantomData }
    }
}

impl<L: Label, C> Row<L, C> {
    /// The cell of a value.
    pub fn at(&self, value: L) -> &C {
        &self.cells[value.pos()]
    }

    /// The same, for whoever has the row to itself.
    pub fn at_mut(&mut self, value: L) -> &mut C {
        &mut self.cells[value.pos()]
    }

    /// Every value as it is shown, with its cell.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &C)> {
        L::ALL.iter().map(|value| value.word()).zip(&self.cells)
    }
}

/// Upper ends of the buckets of a [`Histogram`], a factor of about three apart: from a warm batch (tens of microseconds) to a batch of 4096 on one
/// disk (40 s at 100 checks a second). Their number is what a scrape pays for, each datastore, engine and place.
pub const LATENCY_BOUNDS: [Duration; 13] = [
    Duration::from_micros(100),
    Duration::from_micros(300),
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(100),
];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one counts what was longer than every bound.
    buckets: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, elapsed: Duration) {
        let bucket = LATENCY_BOUNDS.iter().position(|bound| elapsed <= *bound).unwrap_or(LATENCY_BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Writes `_bucket`, `_sum` and `_count`. The count is the sum of the buckets that were read, so that the three agree while others go on counting.
    pub(super) fn show(&self, metric: &'static Metric, values: &[&str], into: &mut Exposition) {
        let mut count = 0;
        let mut upto = Vec::with_capacity(self.buckets.len());
        for (at, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            upto.push((LATENCY_BOUNDS.get(at).map(Duration::as_secs_f64), count));
        }
        let sum = Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed));
        into.histogram(metric, values, &upto, sum.as_secs_f64());
    }
}
