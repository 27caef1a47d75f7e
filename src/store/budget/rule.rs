//! Whether the next unit of background work may begin. Pure: time and samples come in.

use std::num::NonZeroU64;
use std::time::Duration;

use super::back_off::{Allowed, BackOff, PAUSE_MAX};
use super::bucket::Bucket;
use super::rate::Rate;

/// What background work is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackgroundConfig {
    /// How fast it may be, all of it together.
    pub rate: Rate,
    /// Whether its reads have the I/O priority `idle`.
    pub idle_priority: bool,
    /// Whether it makes way for sessions.
    pub back_off: bool,
}

impl Default for BackgroundConfig {
    fn default() -> Self {
        Self { rate: Rate::NONE, idle_priority: true, back_off: true }
    }
}

/// Why background work waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It makes way for sessions.
    Backups,
    /// It is as fast as it may be.
    Rate,
}

/// Whether a unit may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Now; it counts as begun.
    Go,
    /// Not before `until`, or before a unit ends.
    Wait {
        /// When to ask again at the latest.
        until: Duration,
        /// Why.
        cause: Cause,
    },
}

/// The two buckets of a rate.
#[derive(Clone, Debug, Default)]
pub(super) struct Buckets {
    chunks: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Buckets {
    pub(super) fn new(rate: Rate, now: Duration) -> Self {
        let bucket = |rate: Option<NonZeroU64>| rate.map(|rate| Bucket::new(rate, now));
        Self { chunks: bucket(rate.chunks), bytes: bucket(rate.bytes) }
    }

    /// Another rate from now on; one that stays the same keeps its debts.
    fn set(&mut self, rate: Rate, now: Duration) {
        for (bucket, rate) in [(&mut self.chunks, rate.chunks), (&mut self.bytes, rate.bytes)] {
            if bucket.as_ref().map(Bucket::rate) != rate {
                *bucket = rate.map(|rate| Bucket::new(rate, now));
            }
        }
    }

    pub(super) fn wait(&mut self, now: Duration, (chunks, bytes): (u64, u64)) -> Duration {
        let of = |bucket: &mut Option<Bucket>, units| bucket.as_mut().map_or(Duration::ZERO, |b| b.wait(now, units));
        of(&mut self.chunks, chunks).max(of(&mut self.bytes, bytes))
    }

    pub(super) fn draw(&mut self, (chunks, bytes): (u64, u64)) {
        self.chunks.iter_mut().for_each(|bucket| bucket.draw(chunks));
        self.bytes.iter_mut().for_each(|bucket| bucket.draw(bytes));
    }

    pub(super) fn put_back_bytes(&mut self, bytes: u64) {
        self.bytes.iter_mut().for_each(|bucket| bucket.put_back(bytes));
    }

    /// Most chunks that make one unit, so that the rate is kept evenly.
    pub(super) fn piece(&self) -> u64 {
        self.chunks.as_ref().map_or(u64::MAX, Bucket::burst_units)
    }
}

/// Chunks that make one unit while background work makes way: some tenths of a second on a disk that does a hundred of anything in a second.
const PIECE_WHILE_SLOWED: u64 = 32;

/// The budget of a datastore.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) buckets: Buckets,
    back_off_on: bool,
    pub(super) back_off: BackOff,
    /// Units under way.
    running: u32,
    /// Since when the first of them has been.
    busy_since: Duration,
    /// For how long some were, before that.
    busy: Duration,
    /// The unit that ended last: when, and how long it took.
    last: (Duration, Duration),
}

impl Rule {
    pub(super) fn new(config: &BackgroundConfig, now: Duration) -> Self {
        Self {
            buckets: Buckets::new(config.rate, now),
            back_off_on: config.back_off,
            back_off: BackOff::default(),
            running: 0,
            busy_since: now,
            busy: Duration::ZERO,
            last: (now, Duration::ZERO),
        }
    }

    /// Other settings from now on.
    pub(super) fn set(&mut self, config: &BackgroundConfig, now: Duration) {
        self.buckets.set(config.rate, now);
        self.back_off_on = config.back_off;
    }

    /// For how long background work was under way until now.
    pub(super) fn busy(&self, now: Duration) -> Duration {
        self.busy + if self.running > 0 { now.saturating_sub(self.busy_since) } else { Duration::ZERO }
    }

    /// How far background work makes way now.
    pub(super) fn level(&self) -> u32 {
        if self.back_off_on { self.back_off.level() } else { 0 }
    }

    /// Whether to ask the kernel about pressure.
    pub(super) fn wants_pressure(&self, now: Duration) -> bool {
        self.back_off_on && self.back_off.wants_pressure(now)
    }

    /// Whether a unit of so many chunks and bytes may begin; `own` is the rate of its job.
    pub(super) fn ask(&mut self, now: Duration, own: &mut Buckets, cost: (u64, u64)) -> Verdict {
        let busy = self.busy(now);
        self.back_off.look(now, busy);
        let rate = self.buckets.wait(now, cost).max(own.wait(now, cost));
        if let Some(until) = self.makes_way_until(now) {
            let until = until.min(self.back_off.next_look().max(now + Duration::from_millis(1)));
            return Verdict::Wait { until, cause: Cause::Backups };
        }
        if rate > Duration::ZERO {
            return Verdict::Wait { until: now + rate, cause: Cause::Rate };
        }
        self.buckets.draw(cost);
        own.draw(cost);
        if self.running == 0 {
            self.busy_since = now;
        }
        self.running += 1;
        Verdict::Go
    }

    fn makes_way_until(&self, now: Duration) -> Option<Duration> {
        let (ended, took) = self.last;
        match Allowed::at(self.level()) {
            Allowed::All => None,
            Allowed::AtOnce(units) => (self.running >= units).then_some(Duration::MAX),
            Allowed::Pausing(_) if self.running > 0 => Some(Duration::MAX),
            Allowed::Pausing(times) => Some(ended + (took * times).min(PAUSE_MAX)).filter(|until| *until > now),
        }
    }

    /// A unit has ended that began so long ago.
    pub(super) fn ended(&mut self, now: Duration, took: Duration) {
        debug_assert!(self.running > 0);
        self.busy = self.busy(now);
        self.busy_since = now;
        self.running = self.running.saturating_sub(1);
        self.last = (now, took);
    }

    /// Most chunks that make one unit.
    pub(super) fn piece(&self) -> u64 {
        let slowed = if self.level() > 0 { PIECE_WHILE_SLOWED } else { u64::MAX };
        self.buckets.piece().min(slowed)
    }
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
