//! How long appends take, without background work and beside it. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// Batches that are remembered from quiet times: the slowest percentile of them is two or three, which is no accident any more.
const QUIET_BATCHES: usize = 256;

/// Batches of a moment that are looked at; more say nothing more.
const RECENT_BATCHES_MAX: usize = 1024;

/// Of a batch's time, the part that background work may have been under way for the batch to count as a quiet one: an eighth.
const QUIET_DIVISOR: u32 = 8;

/// A batch that takes no longer disturbs nobody, whatever was usual before: a client has some hundred milliseconds of data in flight.
pub(super) const UNNOTICED: Duration = Duration::from_millis(5);

/// What a batch may take as long as nobody knows what is usual here. Too low, it only slows background work down until there has been
/// quiet enough to know.
pub(super) const UNKNOWN: Duration = Duration::from_millis(50);

/// A batch of an append, ended or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// How long it has taken.
    pub(super) took: Duration,
    /// How long background work was under way meanwhile.
    pub(super) beside: Duration,
}

impl Batch {
    fn is_quiet(self) -> bool {
        self.beside <= self.took / QUIET_DIVISOR
    }
}

/// What one look at the batches of a moment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There were none.
    Nothing,
    /// They are as fast as without background work.
    Fine,
    /// Background work makes them wait.
    Slow,
}

/// The batches of a datastore.
#[derive(Debug, Default)]
pub(super) struct Latency {
    quiet: VecDeque<Duration>,
    /// Since the last look.
    recent: Vec<Batch>,
}

impl Latency {
    /// A batch has ended.
    pub(super) fn add(&mut self, batch: Batch) {
        if batch.is_quiet() {
            if self.quiet.len() >= QUIET_BATCHES {
                self.quiet.pop_front();
            }
            self.quiet.push_back(batch.took);
        }
        if self.recent.len() < RECENT_BATCHES_MAX {
            self.recent.push(batch);
        }
    }

    /// What a batch may take: half as much again as all but the slowest hundredth of the quiet ones took.
    pub(super) fn allowed(&self) -> Duration {
        percentile_99(self.quiet.iter().copied()).map_or(UNKNOWN, |usual| (usual * 3 / 2).max(UNNOTICED))
    }

    /// Looks at the batches since the last look, and at those that are `under_way`, as if they ended now.
    pub(super) fn look(&mut self, under_way: impl Iterator<Item = Batch>) -> Look {
        let allowed = self.allowed();
        // What is under way says that it is slow, never that it is fast.
        let slow_already = under_way.filter(|batch| batch.took > allowed);
        let seen: Vec<Batch> = self.recent.drain(..).chain(slow_already).collect();
        if seen.is_empty() {
            return Look::Nothing;
        }
        let disturbed = seen.iter().filter(|batch| !batch.is_quiet()).map(|batch| batch.took);
        match percentile_99(disturbed) {
            Some(slowest) if slowest > allowed => Look::Slow,
            _ => Look::Fine,
        }
    }
}

/// Of fewer than a hundred, the slowest.
fn percentile_99(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn batch(took_ms: u32, beside_ms: u32) -> Batch {
        Batch { took: MS * took_ms, beside: MS * beside_ms }
    }

    fn look(latency: &mut Latency) -> Look {
        latency.look(std::iter::empty())
    }

    #[test]
    fn what_is_usual_is_what_quiet_batches_took() {
        let mut latency = Latency::default();
        assert_eq!((latency.allowed(), look(&mut latency)), (UNKNOWN, Look::Nothing));
        (0..20).for_each(|_| latency.add(batch(40, 0)));
        latency.add(batch(40, 5));
        latency.add(batch(400, 51));
        assert_eq!(latency.allowed(), MS * 60, "the last one was disturbed");
        assert_eq!(look(&mut latency), Look::Slow);
        assert_eq!(look(&mut latency), Look::Nothing, "each counts once");
        latency.add(batch(60, 60));
        assert_eq!(look(&mut latency), Look::Fine);
        latency.add(batch(61, 61));
        assert_eq!(look(&mut latency), Look::Slow);
        latency.add(batch(1000, 0));
        assert_eq!(look(&mut latency), Look::Fine, "slow by itself: no reason to make anybody wait");
    }

    #[test]
    fn fast_is_fast_enough() {
        let mut latency = Latency::default();
        (0..20).for_each(|_| latency.add(Batch { took: MS / 10, beside: Duration::ZERO }));
        latency.add(batch(5, 5));
        assert_eq!((latency.allowed(), look(&mut latency)), (UNNOTICED, Look::Fine));
    }

    #[test]
    fn one_accident_in_a_hundred_is_none_and_old_times_are_forgotten() {
        let mut latency = Latency::default();
        (0..198).for_each(|_| latency.add(batch(10, 0)));
        (0..2).for_each(|_| latency.add(batch(5000, 0)));
        assert_eq!(latency.allowed(), MS * 15);
        (0..2).for_each(|_| latency.add(batch(5000, 0)));
        assert_eq!(latency.allowed(), MS * 7500);
        (0..QUIET_BATCHES).for_each(|_| latency.add(batch(20, 0)));
        assert_eq!((latency.allowed(), latency.quiet.len()), (MS * 30, QUIET_BATCHES));
    }

    #[test]
    fn a_batch_that_hangs_is_slow_before_it_ends() {
        let mut latency = Latency::default();
        latency.add(batch(10, 0));
        assert_eq!(latency.look([batch(14, 14)].into_iter()), Look::Fine, "of the one that ended");
        assert_eq!(latency.look([batch(14, 14)].into_iter()), Look::Nothing);
        assert_eq!(latency.look([batch(16, 16)].into_iter()), Look::Slow);
    }
}
